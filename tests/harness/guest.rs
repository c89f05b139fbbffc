//! A virtual machine with the minimal image in it, driven over its serial line and its redis.
//!
//! It is emulated, with one processor: emulation is what every test machine has. Two guards belong to that: one processor,
//! and no `cmpxchg16b`, which qemu 7.2 emulates wrongly.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use redis::{Connection, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo};
use serde_json::{Value, json};

use crate::{Place, args, process, wait};

/// How long an image may take, packages and all.
const BUILD: Duration = Duration::from_secs(240);
/// How long the whole boot may take on a slow machine.
const BOOT: Duration = Duration::from_secs(180);
/// How long a command may take.
const COMMAND: Duration = Duration::from_secs(60);
/// How long the way down may take.
const DOWN: Duration = Duration::from_secs(90);
/// How long a guest that is up may take to say PONG.
const MOMENT: Duration = Duration::from_millis(200);
/// Length of the disk.
const DISK: u64 = 256 << 20;
/// The password of the node; the kernel is told its SHA-256.
const PASSWORD: &str = "of the guest";
const PASSWORD_SHA256: &str = "9652ece16d70a1d1819e25a5d90877da44ef94015e85b031f232a31e628eb83f";
/// Ports that are tried when others are faster.
const PORTS: usize = 5;
/// What the console says last.
const LAST_STAGE: &str = "services   done";

/// A running machine. Dropping it switches it off.
pub struct Guest {
    qemu: Child,
    serial: Arc<Serial>,
    port: u16,
    gateway: u16,
    /// How long it took until redis answered, or until the last stage was through.
    pub booted_in: Duration,
    _one: Option<File>,
}

/// What a machine has that others have not.
#[derive(Default)]
pub struct Own {
    /// Files in its image, and what they are on this machine.
    pub files: Vec<(String, PathBuf)>,
    /// More arguments of its kernel.
    pub arguments: String,
    /// Disks that it can only read, behind its own.
    pub media: Vec<PathBuf>,
}

/// What the machine said on its serial line.
#[derive(Default)]
struct Serial {
    said: Mutex<(String, bool)>,
    more: Condvar,
}

impl Guest {
    /// Builds the image and boots it, until redis answers.
    #[track_caller]
    pub fn boot(place: &Place, own: &Own) -> Self {
        let media: Vec<OsString> =
            own.media.iter().enumerate().flat_map(|(n, file)| medium(n, file)).collect();
        // As that of a machine whose battery is empty.
        let clock = args!["-rtc", "base=2000-01-01T00:00:00"];
        let boot = |image: &Path| [kernel(image, &own.arguments), media.clone(), clock.clone()].concat();
        let mut guest = Self::boot_from(place, own, boot);
        let began = Instant::now();
        guest.until_it_answers();
        guest.booted_in += began.elapsed();
        guest
    }

    /// Builds the image and boots it from a medium, which are arguments of qemu, until the last stage is through. Only one
    /// machine runs at a time.
    #[track_caller]
    pub fn boot_from(place: &Place, own: &Own, medium: impl Fn(&Path) -> Vec<OsString>) -> Self {
        let programs = programs();
        let one = File::create(programs.join("guest.lock")).expect("the folder of programs is ours");
        one.lock().expect("a lock can be waited for");
        let image = place.dir("image");
        build(&programs, &image, own);
        let disk = place.join("disk");
        File::create(&disk).and_then(|file| file.set_len(DISK)).expect("a sparse file of the test's own");
        for _ in 0..PORTS {
            let [port, gateway] = ports();
            let began = Instant::now();
            let (mut qemu, serial) = start(&medium(&image), &disk, [port, gateway]);
            match serial.until(LAST_STAGE, BOOT) {
                Ok(()) => {
                    return Self { qemu, serial, port, gateway, booted_in: began.elapsed(), _one: Some(one) };
                }
                Err(said) => {
                    let _ = qemu.kill();
                    let _ = qemu.wait();
                    assert!(said.contains("host forwarding"), "it does not boot; it said:\n{said}");
                }
            }
        }
        panic!("{PORTS} free ports were taken by others");
    }

    /// Where redis is, on this machine.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where its gateway is, on this machine, as `--from` names it.
    pub fn gateway(&self) -> String {
        format!("http://127.0.0.1:{}", self.gateway)
    }

    /// The administrator's password.
    pub fn password(&self) -> &'static str {
        PASSWORD
    }

    /// All that the console showed.
    pub fn said(&self) -> String {
        self.serial.said.lock().expect("nobody panics with it").0.clone()
    }

    /// Waits until the console shows something.
    #[track_caller]
    pub fn until_it_says(&self, words: &str) {
        if let Err(said) = self.serial.until(words, COMMAND) {
            panic!("the console does not show {words:?} within {COMMAND:?}:\n{said}");
        }
    }

    /// A connection of the administrator, or of somebody with another password or none.
    pub fn connect(&self, password: Option<&str>) -> redis::RedisResult<Connection> {
        let mut login = RedisConnectionInfo::default();
        if let Some(password) = password {
            login = login.set_password(password);
        }
        let address = ConnectionAddr::Tcp("127.0.0.1".into(), self.port);
        let client = redis::Client::open(address.into_connection_info()?.set_redis_settings(login))?;
        let connection = client.get_connection_with_timeout(COMMAND)?;
        connection.set_read_timeout(Some(COMMAND + Duration::from_secs(5)))?;
        Ok(connection)
    }

    /// Sends a command, waits for its result, and returns its data. It must succeed.
    #[track_caller]
    pub fn call(&self, command: &str, arguments: Value) -> Value {
        let result = self.result(command, arguments);
        assert_eq!(result["state"], "SUCCESS", "{command}: {result}\n{}", self.said());
        serde_json::from_str(result["data"].as_str().unwrap_or_default()).unwrap_or(Value::Null)
    }

    /// Runs a script, which must succeed, and returns what it prints.
    #[track_caller]
    pub fn bash(&self, script: &str) -> String {
        let result = self.result("bash", json!({"script": format!("set -e; {script}")}));
        assert_eq!(result["state"], "SUCCESS", "{script}: {result}");
        result["streams"][0].as_str().unwrap_or_default().trim().to_owned()
    }

    /// The same; nothing when the manager was killed while the script ran or waited to, which is not told from its own end.
    #[track_caller]
    pub fn bash_or_interrupted(&self, script: &str) -> Option<String> {
        let result = self.result("bash", json!({"script": script}));
        match result["state"] == "SUCCESS" {
            true => Some(result["streams"][0].as_str().unwrap_or_default().trim().to_owned()),
            false => {
                assert_eq!(result["code"], 503, "{script}: {result}");
                None
            }
        }
    }

    /// Sends a command and gives its whole result.
    #[track_caller]
    pub fn result(&self, command: &str, arguments: Value) -> Value {
        use std::sync::atomic::{AtomicU64, Ordering};
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = format!("guest-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let envelope = json!({"id": id, "command": command, "arguments": arguments}).to_string();
        let mut connection = self.connect(Some(PASSWORD)).expect("redis takes connections");
        redis::cmd("RPUSH").arg("core:default").arg(envelope).exec(&mut connection).expect("it is taken");
        self.answer(&mut connection, &id)
    }

    /// The result of a command that was sent before.
    #[track_caller]
    pub fn result_of(&self, id: &str) -> Value {
        self.answer(&mut self.connect(Some(PASSWORD)).expect("redis takes connections"), id)
    }

    #[track_caller]
    fn answer(&self, connection: &mut Connection, id: &str) -> Value {
        let mut pop = redis::cmd("BLPOP");
        pop.arg(format!("result:{id}")).arg(COMMAND.as_secs());
        let popped: Option<(String, String)> = pop.query(connection).expect("redis answers");
        let (_, result) = popped
            .unwrap_or_else(|| panic!("command {id} has no result within {COMMAND:?}:\n{}", self.said()));
        serde_json::from_str(&result).expect("a result is JSON")
    }

    /// Until redis says PONG: qemu takes connections before the guest does, and breaks them.
    #[track_caller]
    fn until_it_answers(&self) {
        let answers = || {
            let pong = |mut connection| redis::cmd("PING").query::<String>(&mut connection);
            self.connect(Some(PASSWORD)).and_then(pong).is_ok_and(|pong| pong == "PONG")
        };
        wait::until("redis answers", COMMAND, answers);
    }

    /// Switches it off by its own command. It must end by itself, and well.
    #[track_caller]
    pub fn power_off(mut self) {
        self.call("core.poweroff", json!({}));
        assert!(wait::ends(self.qemu.id() as i32, DOWN), "it is not off after {DOWN:?}:\n{}", self.said());
        let status = self.qemu.wait().expect("our own child can be waited for");
        let said = self.said();
        assert!(
            status.success() && said.contains("Power down") && !said.contains("Kernel panic"),
            "{status}\n{said}"
        );
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

impl Serial {
    /// Waits until the machine says something; its words are the error when it does not, or ends before.
    fn until(&self, words: &str, limit: Duration) -> Result<(), String> {
        let deadline = Instant::now() + limit;
        let mut said = self.said.lock().expect("nobody panics with it");
        loop {
            if said.0.contains(words) {
                return Ok(());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if said.1 || left.is_zero() {
                return Err(said.0.clone());
            }
            said = self.more.wait_timeout(said, left).expect("nobody panics with it").0;
        }
    }

    /// Reads to the end.
    fn read(&self, mut from: impl Read) {
        let mut buffer = [0; 4096];
        loop {
            let n = from.read(&mut buffer).unwrap_or(0);
            let mut said = self.said.lock().expect("nobody panics with it");
            said.0.push_str(&String::from_utf8_lossy(&buffer[..n]));
            said.1 |= n == 0;
            self.more.notify_all();
            if n == 0 {
                return;
            }
        }
    }
}

/// Boots a kernel and an initramfs of a folder with these arguments, and says how long it took from the first line of the
/// kernel until redis answered with PONG. What the machine said is the error.
pub fn time_to_pong(image: &Path, arguments: &str, password: Option<&str>) -> Result<Duration, String> {
    let place = Place::new();
    let disk = place.join("disk");
    File::create(&disk).and_then(|file| file.set_len(DISK)).expect("a sparse file of the run's own");
    let [port, gateway] = ports();
    // From its first line on, of which `quiet` would say nothing.
    let arguments = format!("console=ttyS0 earlyprintk=ttyS0 loglevel=6 panic=-1 {arguments}");
    let (kernel, initramfs) = (image.join("vmlinuz"), image.join("initramfs-minimal.cpio.zst"));
    let medium = args!["-kernel", kernel, "-initrd", initramfs, "-append", arguments];
    let (qemu, serial) = start(&medium, &disk, [port, gateway]);
    let began = serial.until("Linux version", BOOT).map(|()| Instant::now());
    let mut guest = Guest { qemu, serial, port, gateway, booted_in: Duration::ZERO, _one: None };
    let began = began?;
    while !says_pong(port, password) {
        let has_ended = guest.qemu.try_wait().expect("our own child can be waited for").is_some();
        if has_ended || began.elapsed() > BOOT {
            return Err(guest.said());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(began.elapsed())
}

/// Asks once, and for a moment: qemu takes a connection at once, and when its guest has no network yet, it tries that again only
/// after 6 s, then 12.
fn says_pong(port: u16, password: Option<&str>) -> bool {
    let ask = || {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(MOMENT))?;
        let login = password.map_or_else(String::new, |password| format!("AUTH \"{password}\"\r\n"));
        stream.write_all(format!("{login}PING\r\n").as_bytes())?;
        let (mut said, mut read) = (Vec::new(), [0; 64]);
        while !said.ends_with(b"+PONG\r\n") {
            match stream.read(&mut read)? {
                0 => return Ok(false),
                n => said.extend_from_slice(&read[..n]),
            }
        }
        std::io::Result::Ok(true)
    };
    // It is asked again.
    ask().unwrap_or(false)
}

/// Free ports of the loopback, both asked for at once, so that they differ.
fn ports() -> [u16; 2] {
    let free = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("the loopback has a free port"));
    free.map(|free| free.local_addr().expect("it is bound").port())
}

/// The folder where cargo leaves programs.
pub fn programs() -> PathBuf {
    let test = std::env::current_exe().expect("a process knows its executable");
    test.ancestors().nth(2).expect("tests lie in target/PROFILE/deps").into()
}

#[track_caller]
fn build(programs: &Path, image: &Path, own: &Own) {
    let recipes = Path::new(env!("CARGO_MANIFEST_DIR")).join("../initramfs/recipes");
    let mut arguments = args![
        "build",
        "--minimal",
        "--relock",
        "--recipes",
        recipes,
        "--programs",
        programs,
        "--output",
        image
    ];
    for (place, file) in &own.files {
        arguments.extend(args!["--with", format!("{place}={}", file.display())]);
    }
    let built = process::run(Command::new(programs.join("initramfs")).args(arguments), BUILD).ok();
    eprintln!("{}{}", built.stderr, built.text());
}

/// Kernel and initramfs, handed over by qemu itself.
fn kernel(image: &Path, more: &str) -> Vec<OsString> {
    let (kernel, initramfs) = (image.join("vmlinuz"), image.join("initramfs-minimal.cpio.zst"));
    args!["-kernel", kernel, "-initrd", initramfs, "-append", format!("{} {more}", kernel_arguments())]
}

/// A disk that is found after the machine's own, so that this one stays `vda`.
fn medium(n: usize, file: &Path) -> Vec<OsString> {
    let drive = format!("file={},if=none,id=medium{n},format=raw,readonly=on", file.display());
    args!["-drive", drive, "-device", format!("virtio-blk-pci,drive=medium{n},addr={:#x}", 0x10 + n)]
}

/// What the kernel of a guest that is to be reached is told.
pub fn kernel_arguments() -> String {
    format!("console=ttyS0 quiet panic=-1 redis.sha256={PASSWORD_SHA256}")
}

/// Starts qemu. What it says itself is on the serial line too.
fn start(medium: &[OsString], disk: &Path, [port, gateway]: [u16; 2]) -> (Child, Arc<Serial>) {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let network =
        format!("user,id=n0,hostfwd=tcp:127.0.0.1:{port}-:6379,hostfwd=tcp:127.0.0.1:{gateway}-:8080");
    let drive = format!("file={},if=none,id=d0,format=raw,cache=unsafe", disk.display());
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args([
        "-accel",
        "tcg,thread=single",
        "-cpu",
        "max,-cx16",
        "-smp",
        "1",
        "-machine",
        "q35",
        "-m",
        "512",
    ])
    .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio"])
    .args(medium)
    .args(["-netdev", &network, "-device", "virtio-net-pci,netdev=n0,romfile="])
    .args(["-device", "virtio-rng-pci", "-drive", &drive, "-device", "virtio-blk-pci,drive=d0"])
    .stdin(Stdio::null())
    .stderr(writer.try_clone().expect("a second descriptor of a pipe"))
    .stdout(writer);
    let child = qemu.spawn().unwrap_or_else(|e| panic!("qemu-system-x86_64 (package qemu-system-x86): {e}"));
    // The command holds ends of the pipe, which would never end.
    drop(qemu);
    let serial = Arc::new(Serial::default());
    let reading = serial.clone();
    std::thread::spawn(move || reading.read(reader));
    (child, serial)
}
