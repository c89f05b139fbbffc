//! Containers beside those of crun and runc, in one run: made, a program run in them, ended; and what a hundred of one flist
//! take.
//!
//! `cargo bench -p core0 --bench containers`, as root. The rivals run from a plain folder, in a mount namespace of their own
//! with a cgroup2 of their own and without a resources section: they do not take every machine's cgroups as they are. They
//! have no user namespace and no overlay, which ours have; ours are three commands, each through redis and back. What any of
//! them writes down of its containers lies in memory, as it does on a machine.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use redis::{Connection, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo};
use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::thread::UnshareFlags;
use serde_json::{Value, json};

#[path = "../tests/image.rs"]
mod image;

/// Containers of a round, one after the other.
const CONTAINERS: usize = 100;
/// Rounds; the contenders take turns within each.
const ROUNDS: usize = 3;

struct Node {
    manager: Child,
    connection: Connection,
    dir: PathBuf,
    sent: u64,
    root: Value,
}

impl Node {
    fn start(folder: &Path) -> Self {
        let (cid, store) = image::pack_busybox(folder);
        let dir = folder.join("node");
        fs::create_dir(&dir).expect("a folder");
        rustix::mount::mount("tmpfs", &dir, "tmpfs", MountFlags::empty(), c"mode=0700").expect("root mounts");
        let mut manager = Command::new(env!("CARGO_BIN_EXE_core0"))
            .args(["run", "--dev"])
            .arg(&dir)
            .env("G8_LOG", "error")
            .env("G8_CACHE", folder.join("cache"))
            .env_remove("G8_FROM")
            .stdout(Stdio::piped())
            .spawn()
            .expect("core0 starts");
        let mut line = String::new();
        let stdout = manager.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut line).expect("core0 says that it is ready");
        let ready: Value = serde_json::from_str(line.trim_start_matches("ready ")).expect("in JSON");
        let login =
            RedisConnectionInfo::default().set_password(ready["password"].as_str().expect("a password"));
        let address = ConnectionAddr::Tcp("127.0.0.1".into(), ready["port"].as_u64().expect("a port") as u16);
        let info = address.into_connection_info().expect("an address").set_redis_settings(login);
        let client = redis::Client::open(info).expect("an address of redis");
        let connection = client.get_connection().expect("redis answers");
        let root = json!({"root": cid, "storage": format!("dir:{}", store.display())});
        Self { manager, connection, dir, sent: 0, root }
    }

    fn call(&mut self, command: &str, arguments: Value, container: Option<u64>) -> Value {
        self.sent += 1;
        let id = format!("b{}", self.sent);
        let envelope = json!({"id": id, "command": command, "arguments": arguments, "container": container});
        let (_, (_, result)): (u64, (String, String)) = redis::pipe()
            .rpush("core:default", envelope.to_string())
            .cmd("BLPOP")
            .arg(format!("result:{id}"))
            .arg(60)
            .query(&mut self.connection)
            .expect("a result");
        let result: Value = serde_json::from_str(&result).expect("JSON");
        assert_eq!(result["state"], "SUCCESS", "{result}");
        serde_json::from_str(result["data"].as_str().unwrap_or("null")).unwrap_or(Value::Null)
    }

    fn create(&mut self, more: Value) -> u64 {
        let mut arguments = self.root.clone();
        let more = more.as_object().expect("an object").clone();
        arguments.as_object_mut().expect("an object").extend(more);
        self.call("corex.create", arguments, None).as_u64().expect("a number")
    }

    fn terminate(&mut self, container: u64) {
        self.call("corex.terminate", json!({"container": container}), None);
    }

    /// The time of a container until its end is answered, and until all are taken apart.
    fn round(&mut self, more: &Value) -> [Duration; 2] {
        let began = Instant::now();
        for _ in 0..CONTAINERS {
            let container = self.create(more.clone());
            self.call("core.system", json!({"name": "true"}), Some(container));
            self.terminate(container);
        }
        let answered = began.elapsed();
        self.until_none();
        [answered, began.elapsed()].map(|time| time / CONTAINERS as u32)
    }

    fn until_none(&self) {
        while fs::read_dir(self.dir.join("containers")).is_ok_and(|mut entries| entries.next().is_some()) {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // SAFETY: no pointers.
        unsafe { libc::kill(self.manager.id() as i32, libc::SIGTERM) };
        let _ = self.manager.wait();
    }
}

/// A folder that `crun` and `runc` take: what their own `spec` says, without terminal and resources, to run `true`.
fn bundle(program: &str, folder: &Path) -> PathBuf {
    let bundle = folder.join(program);
    fs::create_dir(&bundle).expect("a folder");
    let done = Command::new(program).arg("spec").current_dir(&bundle).status();
    assert!(done.is_ok_and(|status| status.success()), "{program} is in the package of its name");
    let path = bundle.join("config.json");
    let mut spec: Value = serde_json::from_slice(&fs::read(&path).expect("a spec")).expect("JSON");
    spec["process"]["terminal"] = false.into();
    spec["process"]["args"] = json!(["true"]);
    spec["root"]["path"] = json!(folder.join("tree"));
    spec["linux"].as_object_mut().expect("a section for Linux").remove("resources");
    fs::write(&path, spec.to_string()).expect("a spec is written");
    bundle
}

/// The time of a container of a rival.
fn rival(program: &str, bundle: &Path) -> Duration {
    let script = "umount -lR /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup && mount -t tmpfs none /run && echo ready
        i=0; while [ $i -lt $3 ]; do $1 --root /run/rival run -b $2 bench$i </dev/null || exit 1; i=$((i + 1)); done";
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--propagation", "private", "sh", "-c", script, "rival", program]);
    unshare.arg(bundle).arg(CONTAINERS.to_string()).stdout(Stdio::piped());
    let mut child = unshare.spawn().expect("unshare is in util-linux");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("it is piped"))
        .read_line(&mut line)
        .expect("it says something");
    assert_eq!(line, "ready\n", "{program} has no cgroup2");
    let began = Instant::now();
    assert!(child.wait().expect("it ends").success(), "{program} fails");
    began.elapsed() / CONTAINERS as u32
}

/// Memory of a process alone, in KiB.
fn own_kib(pid: u64) -> i64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap_or("0");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// A hundred containers of one flist: mounts, and what those who look after them took for each.
fn hundred(node: &mut Node) {
    let warm = node.create(json!({"nics": []}));
    let daemon = node.call("flist.list", json!({}), None)[0]["pid"].as_u64().expect("a daemon");
    let spawner =
        node.call("corex.get", json!({"query": warm}), None)["container"]["pid"].as_u64().expect("a pid");
    let parent = fs::read_to_string(format!("/proc/{spawner}/stat")).expect("it runs");
    let spawner: u64 = parent
        .rsplit_once(") ")
        .expect("a stat")
        .1
        .split(' ')
        .nth(1)
        .expect("a parent")
        .parse()
        .expect("a pid");
    let keepers = [u64::from(node.manager.id()), spawner, daemon];
    let before: i64 = keepers.iter().map(|pid| own_kib(*pid)).sum();
    let all: Vec<u64> = (0..CONTAINERS).map(|_| node.create(json!({"nics": []}))).collect();
    let after: i64 = keepers.iter().map(|pid| own_kib(*pid)).sum();
    let mounts = node.call("flist.list", json!({}), None).as_array().map_or(0, Vec::len);
    let init =
        node.call("corex.get", json!({"query": all[0]}), None)["container"]["pid"].as_u64().expect("a pid");
    println!(
        "{CONTAINERS} containers of one flist: {mounts} mount, {} KiB each in manager, spawner and daemon, and {} KiB of its own init",
        (after - before) / CONTAINERS as i64,
        own_kib(init)
    );
    for container in all.into_iter().chain([warm]) {
        node.terminate(container);
    }
    node.until_none();
}

fn main() {
    // The bridge of the containers is this namespace's, and so are mounts.
    // SAFETY: namespaces change no memory and no descriptor of this thread, and there is no other yet.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET | UnshareFlags::NEWNS) }
        .expect("root makes namespaces");
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).expect("root changes mounts");
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status().expect("ip is in iproute2");
    assert!(up.success());
    let folder = tempfile::tempdir().expect("a folder");
    let mut node = Node::start(folder.path());
    let bundles = ["crun", "runc"].map(|program| (program, bundle(program, folder.path())));
    // The mount and the bridge are there.
    let warm = node.create(json!({}));
    node.terminate(warm);
    println!("{:<36} {:>14} {:>14}", "create, run true, destroy", "answered", "taken apart");
    for _ in 0..ROUNDS {
        for (program, bundle) in &bundles {
            println!("{program:<36} {:>14} {:>14.2?}", "", rival(program, bundle));
        }
        for (name, more) in [("core0, no network", json!({"nics": []})), ("core0, bridge", json!({}))] {
            let [answered, gone] = node.round(&more);
            println!("{name:<36} {answered:>14.2?} {gone:>14.2?}");
        }
    }
    hundred(&mut node);
}
