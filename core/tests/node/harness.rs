//! Starts a node in a folder of its own, and speaks to it over redis.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use redis::{Connection, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo};
use serde_json::{Value, json};

/// How long anything may take before it is a hang. Test machines are slow and loaded.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A running node. Dropping it stops it, and kills what is left.
pub struct Node {
    /// Its folder.
    pub dir: PathBuf,
    /// The manager.
    pub manager: Child,
    /// Where its redis listens.
    pub port: u16,
    /// The administrator's password.
    pub password: String,
    /// What is in its environment, besides what all nodes have.
    environment: Vec<(String, String)>,
    folder: Option<tempfile::TempDir>,
}

impl Node {
    /// A new one in a new folder.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut node = Self::start_in(folder.path());
        node.folder = Some(folder);
        node
    }

    /// One in a folder that may be known to an earlier one.
    pub fn start_in(dir: &Path) -> Self {
        Self::start_with(dir, &[])
    }

    /// One with these variables in its environment.
    pub fn start_with(dir: &Path, environment: &[(&str, &str)]) -> Self {
        let environment: Vec<(String, String)> =
            environment.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let (manager, port, password) = launch(dir, &environment);
        Self { dir: dir.into(), manager, port, password, environment, folder: None }
    }

    /// One that was started otherwise; its port and its password are not known yet.
    pub fn of(manager: Child, dir: &Path) -> Self {
        let (port, password, environment) = (0, String::new(), Vec::new());
        Self { dir: dir.into(), manager, port, password, environment, folder: None }
    }

    /// Starts the manager again, after it was killed.
    pub fn restart(&mut self) {
        (self.manager, self.port, self.password) = launch(&self.dir, &self.environment);
    }

    /// A connection of the administrator.
    pub fn connect(&self) -> Connection {
        self.connect_as("default", &self.password).unwrap()
    }

    /// A connection of anybody.
    pub fn connect_as(&self, user: &str, password: &str) -> redis::RedisResult<Connection> {
        let login = RedisConnectionInfo::default().set_username(user).set_password(password);
        let address = ConnectionAddr::Tcp("127.0.0.1".into(), self.port);
        redis::Client::open(address.into_connection_info()?.set_redis_settings(login))?.get_connection()
    }

    /// A connection of core0 itself, which may do all.
    pub fn connect_as_core0(&self) -> Connection {
        let password = std::fs::read_to_string(self.dir.join("redis/core0.password")).unwrap();
        self.connect_as("core0", &password).unwrap()
    }

    /// Sends a command and waits for its result.
    pub fn call(&self, command: &str, arguments: Value) -> Value {
        let id = self.push(json!({"command": command, "arguments": arguments}));
        self.result(&id)
    }

    /// Sends an envelope under a new id, or its own. A redis that is away is asked again: of one id there is one command.
    pub fn push(&self, mut envelope: Value) -> String {
        if envelope["id"].is_null() {
            envelope["id"] = new_id().into();
        }
        let json = envelope.to_string();
        until("redis takes a command", || {
            let mut connection = self.connect_as("default", &self.password).ok();
            connection.as_mut().is_some_and(|connection| {
                redis::cmd("RPUSH").arg("core:default").arg(&json).exec(connection).is_ok()
            })
        });
        envelope["id"].as_str().unwrap().into()
    }

    /// Sends bytes.
    pub fn push_raw(&self, raw: &[u8]) {
        redis::cmd("RPUSH").arg("core:default").arg(raw).exec(&mut self.connect()).unwrap();
    }

    /// Waits for a result, as old clients do: without taking it away.
    pub fn result(&self, id: &str) -> Value {
        self.result_within(id, PATIENCE).unwrap_or_else(|| panic!("no result of {id}\n{}", said(&self.dir)))
    }

    /// Waits for a result that may not come. A redis that is away is asked again.
    pub fn result_within(&self, id: &str, patience: Duration) -> Option<Value> {
        let key = format!("result:{id}");
        let began = Instant::now();
        while began.elapsed() < patience {
            let read = self.connect_as("default", &self.password).and_then(|mut connection| {
                redis::cmd("BRPOPLPUSH").arg(&key).arg(&key).arg(1).query::<Option<String>>(&mut connection)
            });
            match read {
                Ok(Some(json)) => return Some(serde_json::from_str(&json).unwrap()),
                Ok(None) => {}
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
        None
    }

    /// Kills the manager alone, as the kernel would.
    pub fn kill_manager(&mut self) {
        self.manager.kill().unwrap();
        self.manager.wait().unwrap();
    }

    /// Ends the node, and says how long that took.
    pub fn stop(&mut self) -> Duration {
        let began = Instant::now();
        signal(self.manager.id() as i32, libc::SIGTERM);
        let status = self.manager.wait().unwrap();
        assert!(status.success(), "{status}\n{}", said(&self.dir));
        began.elapsed()
    }

    /// The processes that have the node's folder in their command line, and its redis.
    pub fn processes(&self) -> Vec<(i32, String)> {
        // redis overwrites its command line.
        let (dir, redis) = (self.dir.to_str().unwrap(), format!("redis-server 127.0.0.1:{}", self.port));
        processes().into_iter().filter(|(_, line)| line.contains(dir) || line.contains(&redis)).collect()
    }

    /// The pid of one of them.
    pub fn pid_of(&self, part: &str) -> i32 {
        let all = self.processes();
        let found = all.iter().find(|(_, line)| line.contains(part));
        found.unwrap_or_else(|| panic!("no {part} among {all:?}")).0
    }
}

/// Starts a manager.
pub fn begin(dir: &Path, environment: &[(String, String)]) -> Child {
    let log = std::fs::File::options().create(true).append(true).open(dir.join("stderr.log")).unwrap();
    Command::new(env!("CARGO_BIN_EXE_core0"))
        .args(["run", "--dev"])
        .arg(dir)
        .env_remove("G8_CORE0_CONFIG")
        .env("G8_LOG", "info")
        // The cache of whoever runs the tests is theirs.
        .env("G8_CACHE", dir.join("cache"))
        .env_remove("G8_FROM")
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// Starts a manager and waits until it is ready.
fn launch(dir: &Path, environment: &[(String, String)]) -> (Child, u16, String) {
    let mut manager = begin(dir, environment);
    let mut line = String::new();
    BufReader::new(manager.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let ready = line.strip_prefix("ready ").unwrap_or_else(|| panic!("{line:?}\n{}", said(dir)));
    let ready: Value = serde_json::from_str(ready).unwrap();
    assert_eq!(ready["host"], "127.0.0.1");
    (manager, ready["port"].as_u64().unwrap() as u16, ready["password"].as_str().unwrap().into())
}

impl Drop for Node {
    fn drop(&mut self) {
        if matches!(self.manager.try_wait(), Ok(None)) {
            signal(self.manager.id() as i32, libc::SIGTERM);
            until_or_not(Duration::from_secs(10), || !matches!(self.manager.try_wait(), Ok(None)));
            let _ = self.manager.kill();
            let _ = self.manager.wait();
        }
        // A test that killed the manager leaves the spawner; it takes all the others with it.
        for (pid, _) in self.processes().iter().filter(|(_, line)| line.contains("spawner")) {
            signal(*pid, libc::SIGTERM);
        }
        until_or_not(Duration::from_secs(10), || self.processes().is_empty());
    }
}

/// What the node said on its standard error.
pub fn said(dir: &Path) -> String {
    std::fs::read_to_string(dir.join("stderr.log")).unwrap_or_default()
}

/// An id that is not used yet.
pub fn new_id() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("test-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// All processes and their command lines; zombies have none.
pub fn processes() -> Vec<(i32, String)> {
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        Some((pid, String::from_utf8_lossy(&line).replace('\0', " ")))
    })
    .collect()
}

/// Whether a process runs; a zombie does not.
pub fn runs(pid: i32) -> bool {
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
}

/// Runs a test on a thread in a new network namespace, where what it starts lives too: its links and rules go with it. The
/// containers of two nodes would be on one bridge otherwise.
pub fn with_own_network(test: impl FnOnce() + Send + 'static) {
    let run = move || {
        // SAFETY: a network namespace changes no memory and no descriptor of this thread.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }
            .expect("root makes network namespaces");
        let up = Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap();
        assert!(up.success());
        test();
    };
    if let Err(panic) = std::thread::spawn(run).join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs a test on a thread in a new mount namespace, where what it starts lives too: its mounts go with it.
pub fn with_own_mounts(test: impl FnOnce() + Send + 'static) {
    let run = move || {
        // SAFETY: a mount namespace changes no memory and no descriptor of this thread.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }
            .expect("root makes mount namespaces");
        let private = Command::new("mount").args(["--make-rprivate", "/"]).status().unwrap();
        assert!(private.success());
        test();
    };
    if let Err(panic) = std::thread::spawn(run).join() {
        std::panic::resume_unwind(panic);
    }
}

/// Checks a promise of time. Test machines are slow and loaded: the best of three tries counts, and none takes four times as long.
#[track_caller]
pub fn promised(limit: Duration, mut attempt: impl FnMut() -> Duration) {
    let mut took = Vec::new();
    while took.len() < 3 && took.last().is_none_or(|last| *last > limit) {
        took.push(attempt());
        assert!(
            took.iter().all(|took| *took <= 4 * limit),
            "promised within {limit:?}, and it took {took:?}"
        );
    }
    assert!(
        took.last().is_some_and(|last| *last <= limit),
        "promised within {limit:?}, and it took {took:?}"
    );
}

/// Sends a signal.
pub fn signal(pid: i32, signal: i32) {
    // SAFETY: no pointers.
    unsafe { libc::kill(pid, signal) };
}

/// Waits until something holds; panics when it does not.
#[track_caller]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    assert!(until_or_not(PATIENCE, &mut holds), "not within {PATIENCE:?}: {what}");
}

fn until_or_not(patience: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let began = Instant::now();
    while began.elapsed() < patience {
        if holds() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    false
}
