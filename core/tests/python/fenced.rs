//! A node in a network and a mount namespace of its own, and Python programs beside it in there.
//!
//! What the clients do to networks and mounts then stays in the fence. Loop devices are the machine's; the tests that
//! make them detach them.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// How long a suite of Python tests may take before it is a hang.
const SUITE: Duration = Duration::from_secs(600);
/// How long a node may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(60);

/// A node behind a fence. Dropping it stops it.
pub struct Fenced {
    manager: Child,
    ready: Value,
    folder: TempDir,
}

impl Fenced {
    /// Starts one in a new folder, with a user for each lesser role: its name is its role, its password lies beside.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("node");
        std::fs::create_dir(&dir).unwrap();
        let mut config = String::new();
        for role in ["read", "operate"] {
            let password = dir.join(format!("{role}.password"));
            std::fs::write(&password, format!("password-of-{role}\n")).unwrap();
            config += &format!("[users.{role}]\nrole = \"{role}\"\npassword_file = {password:?}\n");
        }
        std::fs::write(dir.join("core0.toml"), config).unwrap();
        let log = std::fs::File::create(folder.path().join("core0.log")).unwrap();
        // /sys shows the links of the namespace that it was mounted in.
        let fence = "ip link set lo up && mount -t sysfs sysfs /sys && exec \"$@\"";
        let mut manager = Command::new("unshare")
            .args(["--net", "--mount", "--propagation", "private", "--", "sh", "-c", fence, "fence"])
            .args([env!("CARGO_BIN_EXE_core0"), "run", "--dev"])
            .arg(&dir)
            .env_remove("G8_CORE0_CONFIG")
            // The cache and the home of whoever runs the tests are theirs.
            .env("G8_CACHE", folder.path().join("cache"))
            .env_remove("G8_FROM")
            .env("HOME", folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(manager.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready = line.strip_prefix("ready ").and_then(|json| serde_json::from_str(json).ok());
        let Some(ready) = ready else {
            let log = std::fs::read_to_string(folder.path().join("core0.log")).unwrap();
            panic!("no ready line but {line:?}\n{log}");
        };
        Self { manager, ready, folder }
    }

    /// What is removed with it.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A Python program inside the fence, run in a folder. It leaves no files beside its sources.
    ///
    /// The node is in `G8_NODE` as its folder, and in `G8_TEST_LOGIN` as `HOST:PORT:PASSWORD`, which the old client takes.
    pub fn python(&self, venv: &Path, folder: &Path) -> Command {
        let text = |key: &str| self.ready[key].as_str().unwrap();
        let mut python = Command::new("nsenter");
        python
            .args(["--net", "--mount", "--target", &self.manager.id().to_string(), "--"])
            // With another table of mounts the working folder is /.
            .args(["sh", "-c", "cd \"$0\" && exec \"$@\""])
            .arg(folder)
            .arg(venv.join("bin/python"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env_remove("PYTHONPATH")
            .env("HOME", self.folder.path())
            .env("G8_NODE", self.folder.path().join("node"))
            .env("G8_TEST_LOGIN", format!("{}:{}:{}", text("host"), self.ready["port"], text("password")));
        python
    }

    /// pytest, to be run in a folder.
    pub fn pytest(&self, venv: &Path, folder: &Path) -> Command {
        let mut pytest = self.python(venv, folder);
        pytest
            .args(["-m", "pytest", "-q", "-p", "no:cacheprovider", "--basetemp"])
            .arg(self.folder.path().join("pytest"));
        pytest
    }

    /// Runs a suite, and shows what failed with the end of the node's log.
    pub fn passes(&self, suite: &mut Command) {
        if let Err(said) = run(suite, SUITE) {
            let log = std::fs::read_to_string(self.folder.path().join("core0.log")).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(40).collect();
            panic!("{said}\n\nthe node said:\n{}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
        }
    }
}

impl Drop for Fenced {
    fn drop(&mut self) {
        // SAFETY: kill(2) of a child that was not waited for.
        unsafe { libc::kill(self.manager.id() as i32, libc::SIGTERM) };
        let began = Instant::now();
        while matches!(self.manager.try_wait(), Ok(None)) && began.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.manager.kill();
        let _ = self.manager.wait();
    }
}

/// In a group of its own, which goes with the test. Whoever runs tests in the background of a script has SIGINT ignored, and
/// what Ctrl-C does is tested.
fn alone() -> std::io::Result<()> {
    // SAFETY: no pointers.
    let done = unsafe {
        libc::signal(libc::SIGINT, libc::SIG_DFL) != libc::SIG_ERR
            && libc::setpgid(0, 0) == 0
            && libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) == 0
    };
    if done { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// Runs a program to its end; what it said, if it failed or took too long.
pub fn run(command: &mut Command, patience: Duration) -> Result<String, String> {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let errors = writer.try_clone().unwrap();
    // SAFETY: system calls alone.
    unsafe { command.pre_exec(alone) };
    let mut child = command.stdin(Stdio::null()).stdout(writer).stderr(errors).spawn().unwrap();
    // The writing ends that the command holds would keep the pipe open.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let listener = std::thread::spawn(move || {
        let mut said = Vec::new();
        reader.read_to_end(&mut said).map(|_| String::from_utf8_lossy(&said).into_owned())
    });
    let began = Instant::now();
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break Some(status),
            None if began.elapsed() > patience => {
                // With all that it started, which else would hold the pipe open. SAFETY: no pointers.
                unsafe { libc::kill(-(child.id() as i32), libc::SIGKILL) };
                child.wait().unwrap();
                break None;
            }
            None => std::thread::sleep(Duration::from_millis(50)),
        }
    };
    let said = listener.join().unwrap().unwrap_or_default();
    match status {
        Some(status) if status.success() => Ok(said),
        Some(status) => Err(format!("{said}\n{status}")),
        None => Err(format!("{said}\nstill running after {} s", patience.as_secs())),
    }
}
