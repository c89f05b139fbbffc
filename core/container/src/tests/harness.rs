//! Runs containers in processes of their own: this test binary again, told by the environment what to do.
//! Only so can a test capture the output, kill the caller, or give it a terminal.

use std::ffi::CString;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};

use rustix::mount::{MountPropagationFlags, mount_change};
use tempfile::TempDir;

use super::super::{Command as Program, ConfigFile, Covered, Network, Spec, Upper, User, Volume, run};

const LAUNCH: &str = "G8_CONTAINER_TEST";
/// Between the fields of [`LAUNCH`] and within a list.
const FIELD: char = '\u{1e}';
const ITEM: char = '\u{1f}';
const EXIT_MOUNTS_LEAKED: i32 = 99;

/// A small image: busybox, its applets, and the usual directories but those that the container makes.
pub(super) struct Image {
    directory: TempDir,
}

impl Image {
    pub(super) fn new() -> Self {
        assert!(rustix::process::geteuid().is_root(), "the tests of the container need root");
        let directory = tempfile::tempdir().expect("tempdir");
        let image = Image { directory };
        fs::set_permissions(image.path(""), std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .expect("chmod");
        for name in ["bin", "etc", "root", "tmp"] {
            fs::create_dir(image.path(name)).expect("mkdir");
        }
        fs::copy("/bin/busybox", image.path("bin/busybox")).expect("needs busybox-static in /bin");
        for applet in
            "cat chmod dd echo false grep head hostname id ifconfig ls mkdir mknod mount ps pwd rm setsid sh \
            sleep stat touch true umount wc"
                .split_whitespace()
        {
            symlink("busybox", image.path("bin").join(applet)).expect("symlink");
        }
        image
    }

    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    pub(super) fn sh(&self, script: &str) -> Launch {
        self.launch(&["sh", "-c", script])
    }

    pub(super) fn launch(&self, argv: &[&str]) -> Launch {
        Launch {
            lower: self.directory.path().to_owned(),
            argv: argv.iter().map(ToString::to_string).collect(),
            workdir: "/".into(),
            user: ROOT,
            upper_bytes: 16 << 20,
            disk: None,
            network: Network::None,
            volumes: Vec::new(),
            files: Vec::new(),
            privileged: false,
            failing: u8::MAX,
            threads: 1,
        }
    }
}

pub(super) const ROOT: User = User { uid: 0, gid: 0, groups: Vec::new(), home: None };

pub(super) fn spec(lower: PathBuf) -> Spec {
    Spec {
        lower,
        upper: Upper::Memory { bytes: 16 << 20 },
        hostname: "inside".to_owned(),
        network: Network::None,
        volumes: Vec::new(),
        files: Vec::new(),
        limits: None,
        workdir: "/".into(),
        privileged: false,
    }
}

pub(super) fn program(argv: &[&str]) -> Program {
    Program {
        argv: argv.iter().map(|argument| c(argument)).collect(),
        env: vec![c("PATH=/sbin:/bin"), c("MARK=environment")],
        user: ROOT,
    }
}

fn c(text: &str) -> CString {
    CString::new(text).expect("no NUL in a test")
}

/// A container to be started, as data that can cross into another process.
pub(super) struct Launch {
    pub(super) lower: PathBuf,
    pub(super) argv: Vec<String>,
    pub(super) workdir: PathBuf,
    pub(super) user: User,
    pub(super) upper_bytes: u64,
    /// The upper layer's folder, when it is on disk.
    pub(super) disk: Option<PathBuf>,
    pub(super) network: Network,
    /// Source, target, and whether it is read-only.
    pub(super) volumes: Vec<(PathBuf, &'static str, bool)>,
    /// Path and content.
    pub(super) files: Vec<(&'static str, &'static str)>,
    pub(super) privileged: bool,
    /// The number of the step that fails.
    pub(super) failing: u8,
    /// How many of it run at the same time.
    pub(super) threads: usize,
}

impl Launch {
    /// Starts the container and does not wait. Without a terminal stdin is empty.
    pub(super) fn start(&self) -> Running {
        self.start_with(Stdio::null())
    }

    pub(super) fn start_with(&self, stdin: Stdio) -> Running {
        let mut child = self.command().stdin(stdin).stderr(Stdio::piped()).spawn().expect("launcher");
        let output = BufReader::new(child.stderr.take().expect("piped"));
        Running { child, output }
    }

    /// Starts the container as the leader of a session on this terminal.
    pub(super) fn start_on(&self, terminal: &OwnedFd) -> Child {
        let clone = || Stdio::from(terminal.try_clone().expect("dup"));
        let mut command = self.command();
        command.stdin(clone()).stderr(clone());
        // SAFETY: two system calls, both safe between fork and exec.
        unsafe {
            command.pre_exec(|| {
                rustix::process::setsid()?;
                Ok(rustix::process::ioctl_tiocsctty(std::io::stdin().as_fd())?)
            })
        };
        command.spawn().expect("launcher")
    }

    pub(super) fn finish(&self) -> Finished {
        self.start().finish()
    }

    fn command(&self) -> Command {
        let User { uid, gid, groups, .. } = &self.user;
        let list = |items: Vec<String>| items.join(&ITEM.to_string());
        let fields = [
            self.lower.display().to_string(),
            list(self.argv.clone()),
            self.workdir.display().to_string(),
            list([uid, gid].into_iter().chain(groups).map(ToString::to_string).collect()),
            self.upper_bytes.to_string(),
            (self.network == Network::Host).to_string(),
            self.privileged.to_string(),
            self.threads.to_string(),
            self.failing.to_string(),
            self.disk.as_ref().map_or_else(String::new, |folder| folder.display().to_string()),
            list(
                self.volumes
                    .iter()
                    .flat_map(|(source, target, read_only)| {
                        [source.display().to_string(), (*target).to_owned(), read_only.to_string()]
                    })
                    .collect(),
            ),
            list(
                self.files.iter().flat_map(|(path, content)| [*path, *content]).map(str::to_owned).collect(),
            ),
        ];
        let mut command = Command::new(std::env::current_exe().expect("this test"));
        command.args(["--exact", "tests::launcher", "--nocapture", "--test-threads=1"]);
        command.env(LAUNCH, fields.join(&FIELD.to_string())).stdout(Stdio::null());
        command
    }
}

/// The other side of [`Launch::command`]: runs the container when asked to and exits with its code, or 125.
pub(super) fn launch_if_asked() {
    let Ok(fields) = std::env::var(LAUNCH) else { return };
    let fields: Vec<&str> = fields.split(FIELD).collect();
    let [
        lower,
        argv,
        workdir,
        ids,
        upper_bytes,
        host_network,
        privileged,
        threads,
        failing,
        disk,
        volumes,
        files,
    ] = fields[..]
    else {
        panic!("malformed launch");
    };
    let list = |field: &str| -> Vec<String> {
        field.split(ITEM).filter(|_| !field.is_empty()).map(str::to_owned).collect()
    };
    let ids: Vec<u32> = ids.split(ITEM).map(|id| id.parse().expect("id")).collect();
    let spec = Spec {
        upper: match disk {
            "" => Upper::Memory { bytes: upper_bytes.parse().expect("size") },
            folder => Upper::Disk { folder: folder.into() },
        },
        network: if host_network == "true" { Network::Host } else { Network::None },
        volumes: list(volumes)
            .chunks(3)
            .map(|v| Volume { source: (&v[0]).into(), target: (&v[1]).into(), read_only: v[2] == "true" })
            .collect(),
        files: list(files)
            .chunks(2)
            .map(|f| ConfigFile {
                path: (&f[0]).into(),
                content: f[1].clone().into_bytes(),
                covered: Covered::Refused,
            })
            .collect(),
        workdir: workdir.into(),
        privileged: privileged == "true",
        ..spec(lower.into())
    };
    let program = Program {
        user: User { uid: ids[0], gid: ids[1], groups: ids[2..].to_vec(), home: None },
        ..program(&argv.split(ITEM).collect::<Vec<_>>())
    };
    // libtest has written to stdout, so the container's output goes where stderr goes.
    // SAFETY: both descriptors are open, and nobody else writes to stdout from here on.
    assert_eq!(unsafe { libc::dup2(libc::STDERR_FILENO, libc::STDOUT_FILENO) }, libc::STDOUT_FILENO);
    let failing = failing.parse().expect("number");
    super::super::step::FAILING.store(failing, std::sync::atomic::Ordering::Relaxed);
    let before = own_mounts();
    let runs: Vec<_> = (0..threads.parse().expect("count"))
        .map(|_| {
            let (spec, program) = (spec.clone(), program.clone());
            std::thread::spawn(move || run(&spec, &program))
        })
        .collect();
    let mut code = 0;
    for result in runs.into_iter().map(|run| run.join().expect("run does not panic")) {
        code += result.unwrap_or_else(|error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            eprintln!("{error}: {cause}");
            125
        });
    }
    let leaked = mounts() != before;
    std::process::exit(if leaked { EXIT_MOUNTS_LEAKED } else { code });
}

/// Gives this thread, and the threads it starts, mounts that no other process changes. They propagate among
/// themselves, as a host's do, so a mount that escapes from a container appears among them.
fn own_mounts() -> String {
    // SAFETY: this thread shares no working directory with others on which they rely.
    assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNS) }, 0, "unshare");
    for propagation in [MountPropagationFlags::PRIVATE, MountPropagationFlags::SHARED] {
        mount_change("/", propagation | MountPropagationFlags::REC).expect("propagation");
    }
    mounts()
}

fn mounts() -> String {
    fs::read_to_string("/proc/thread-self/mountinfo").expect("mountinfo")
}

/// A launcher with a container in it.
pub(super) struct Running {
    pub(super) child: Child,
    output: BufReader<ChildStderr>,
}

/// How a container ended.
pub(super) struct Finished {
    pub(super) code: i32,
    output: String,
}

impl Running {
    pub(super) fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("output");
        line
    }

    pub(super) fn signal(&self, signal: i32) {
        send(&self.child, signal);
    }

    pub(super) fn finish(mut self) -> Finished {
        let mut output = String::new();
        self.output.read_to_string(&mut output).expect("output");
        let status = self.child.wait().expect("wait");
        assert_ne!(status.code(), Some(EXIT_MOUNTS_LEAKED), "the mounts of the host have changed: {output}");
        Finished { code: status.code().unwrap_or(-status.signal().unwrap_or(0)), output }
    }
}

impl Drop for Running {
    /// So that a test that fails leaves no container.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Finished {
    pub(super) fn text(&self) -> &str {
        &self.output
    }
}

pub(super) fn send(child: &Child, signal: i32) {
    // SAFETY: no pointers; the child has not been waited for, so the pid is its own.
    assert_eq!(unsafe { libc::kill(child.id().cast_signed(), signal) }, 0);
}

/// Whether any process of the machine has `word` among its arguments.
pub(super) fn any_process_with(word: &str) -> bool {
    fs::read_dir("/proc").expect("proc").flatten().any(|entry| {
        let arguments = fs::read(Path::new(&entry.path()).join("cmdline")).unwrap_or_default();
        arguments.split(|byte| *byte == 0).any(|argument| argument == word.as_bytes())
    })
}
