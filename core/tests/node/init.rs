//! PID 1, in namespaces of its own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use redis::{Connection, ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo};
use serde_json::{Value, json};

use crate::harness::{PATIENCE, until};

/// Prints the pid of the manager.
const FIND_MANAGER: &str = "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline 2>/dev/null | grep -qE '^[^ ]*core0 run' && echo ${p#/proc/}; done; true";

/// `core0 init` as PID 1 of new PID and mount namespaces.
pub struct Machine {
    /// What waits for its end.
    pub unshare: Child,
    folder: tempfile::TempDir,
}

impl Machine {
    /// One that answers.
    pub fn start() -> Self {
        Self::start_after("true", |_| {})
    }

    /// One in whose namespaces a script ran before, and whose folder was filled.
    pub fn start_after(script: &str, fill: impl FnOnce(&Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fill(folder.path());
        let log = std::fs::File::create(folder.path().join("stderr.log")).unwrap();
        Self::begin(script, folder, log)
    }

    fn begin(script: &str, folder: tempfile::TempDir, stderr: impl Into<Stdio>) -> Self {
        let unshare = Command::new("unshare")
            .args([
                "--pid",
                "--fork",
                "--mount",
                "--mount-proc",
                "--propagation",
                "private",
                "--kill-child=KILL",
            ])
            .args(["sh", "-c", &format!("{script} && exec \"$@\""), "before"])
            .arg(env!("CARGO_BIN_EXE_core0"))
            .args(["init", "--machine", "--", "--dev"])
            .arg(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .unwrap();
        let machine = Self { unshare, folder };
        until("the node answers", || machine.connect().is_some());
        machine
    }

    /// The folder of its node.
    pub fn dir(&self) -> &Path {
        self.folder.path()
    }

    /// A connection of the administrator, when redis takes one.
    pub fn connect(&self) -> Option<Connection> {
        let password = std::fs::read_to_string(self.dir().join("password")).ok()?;
        let login = RedisConnectionInfo::default().set_password(password);
        let address = ConnectionAddr::Unix(self.dir().join("redis.sock"));
        let client =
            redis::Client::open(address.into_connection_info().ok()?.set_redis_settings(login)).ok()?;
        let mut connection = client.get_connection().ok()?;
        redis::cmd("PING").exec(&mut connection).ok().map(|()| connection)
    }

    /// A command and its result.
    pub fn call(&self, id: &str, command: &str, arguments: Value) -> Value {
        let envelope = json!({"id": id, "command": command, "arguments": arguments}).to_string();
        // At once: what ends the machine ends redis a moment after it is answered.
        let mut both = redis::pipe();
        both.cmd("RPUSH").arg("core:default").arg(envelope).ignore();
        both.cmd("BLPOP").arg(format!("result:{id}")).arg(PATIENCE.as_secs());
        let (popped,) = both.query(&mut self.connect().unwrap()).unwrap();
        self.parse(id, popped)
    }

    /// Takes a result that may have to be waited for.
    pub fn result(&self, connection: &mut Connection, id: &str) -> Value {
        let wait = PATIENCE.as_secs();
        let popped = redis::cmd("BLPOP").arg(format!("result:{id}")).arg(wait).query(connection).unwrap();
        self.parse(id, popped)
    }

    fn parse(&self, id: &str, popped: Option<(String, String)>) -> Value {
        let (_, json) = popped.unwrap_or_else(|| {
            let log = std::fs::read_to_string(self.dir().join("stderr.log")).unwrap_or_default();
            panic!("no result of {id}\n{log}")
        });
        serde_json::from_str(&json).unwrap()
    }

    /// Waits for its end, and says by which signal its PID 1 ended: reboot(2) in a PID namespace sends SIGHUP for a reboot and
    /// SIGINT for power off.
    pub fn end(&mut self) -> Option<i32> {
        until("the machine is down", || matches!(self.unshare.try_wait(), Ok(Some(_))));
        let status = self.unshare.wait().unwrap();
        // unshare reports a signal as 128 and more, or does the same to itself.
        let signal = std::os::unix::process::ExitStatusExt::signal(&status);
        signal.or_else(|| status.code().and_then(|code| code.checked_sub(128)))
    }

    /// Runs a script in the machine and gives what it prints.
    pub fn bash(&self, id: &str, script: &str) -> String {
        let result = self.call(id, "bash", json!({"script": script}));
        assert_eq!(result["state"], "SUCCESS", "{result}");
        result["streams"][0].as_str().unwrap().trim().into()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // The kernel ends a PID namespace with its PID 1, and unshare ends that.
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
    }
}

#[test]
fn two_thousand_short_jobs_and_as_many_orphans_lose_no_exit_and_leave_no_zombie() {
    let machine = Machine::start();
    let reaped = || {
        let state = machine.call(&crate::harness::new_id(), "core.state", json!({}));
        let state: Value = serde_json::from_str(state["data"].as_str().unwrap()).unwrap();
        state["orphans"].as_u64().unwrap_or_else(|| panic!("{state}"))
    };
    let before = reaped();
    let mut connection = machine.connect().unwrap();
    let mut pipeline = redis::pipe();
    for i in 0..2000 {
        // `( ... & )` leaves an orphan behind, which ends after its parents.
        let script = format!("echo {i}; echo bad >&2; (sleep 0.2 >/dev/null 2>&1 &); exit {}", i % 5);
        let arguments = json!({"name": "sh", "args": ["-c", script]});
        let envelope = json!({"id": format!("o{i}"), "command": "core.system", "arguments": arguments});
        pipeline.cmd("RPUSH").arg("core:default").arg(envelope.to_string()).ignore();
    }
    pipeline.exec(&mut connection).unwrap();
    for i in 0..2000 {
        let result = machine.result(&mut connection, &format!("o{i}"));
        let code = if i % 5 == 0 { 0 } else { 1000 + i % 5 };
        assert_eq!(
            (&result["code"], &result["streams"]),
            (&json!(code), &json!([format!("{i}\n"), "bad\n"])),
            "{result}"
        );
    }
    until("no zombie and no orphan is left", || {
        let count = "cat /proc/[0-9]*/stat 2>/dev/null | grep -cE '\\) Z |\\(sleep\\)' || true";
        machine.bash(&crate::harness::new_id(), count) == "0"
    });
    // Each of them once, and nothing else: what a job waits for is none of them.
    until("each orphan is counted", || reaped() - before >= 2000);
    assert_eq!(reaped() - before, 2000);
}

#[test]
fn a_manager_that_is_killed_is_started_again_and_orphans_of_pid_1_are_reaped() {
    let machine = Machine::start();
    let manager = machine.bash("m1", FIND_MANAGER);
    let spawner_parent = machine.bash("m2", "cut -d' ' -f4 /proc/$PPID/stat");
    assert_eq!(spawner_parent, manager);
    // The job that kills it is still there afterwards.
    let killer =
        machine.call("k", "bash", json!({"script": format!("kill -9 {manager}; sleep 1; echo survived")}));
    assert_eq!(killer["streams"][0], "survived\n", "{killer}");
    let next = machine.bash("m3", FIND_MANAGER);
    assert_ne!(next, manager);
    assert_eq!(machine.bash("m4", "cut -d' ' -f4 /proc/$PPID/stat"), "1");
}

/// Puts a script in the place of a program.
fn script(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&new, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::rename(new, path).unwrap();
}

/// What cannot be read yet has no lines.
fn said(machine: &Machine) -> String {
    std::fs::read_to_string(machine.dir().join("stderr.log")).unwrap_or_default()
}

#[test]
fn a_manager_that_never_runs_is_started_for_ever_and_its_end_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let beside = |name: &str| folder.path().join("bin").join(name);
    std::fs::create_dir(folder.path().join("bin")).unwrap();
    std::fs::copy(env!("CARGO_BIN_EXE_core0-init"), beside("core0-init")).unwrap();
    script(&beside("core0"), "exit 3");
    let log = std::fs::File::create(folder.path().join("stderr.log")).unwrap();
    let unshare = Command::new("unshare")
        .args(["--pid", "--fork", "--mount", "--mount-proc", "--propagation", "private", "--kill-child=KILL"])
        .arg(beside("core0-init"))
        .args(["--namespace", "--dev"])
        .arg(folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    let mut machine = Machine { unshare, folder };
    for pause in [400, 800] {
        let words = format!("the manager ended with code 3: it is started again in {pause} ms");
        until(&words, || said(&machine).contains(&words));
    }
    let bin = machine.dir().join("bin");
    let link = |to: &str| {
        std::os::unix::fs::symlink(to, bin.join("new")).unwrap();
        std::fs::rename(bin.join("new"), bin.join("core0")).unwrap();
    };
    // It is gone altogether, it dies at once, and at last it is whole.
    link("/absent");
    until("it says that there is none", || said(&machine).contains("cannot start the manager: No such file"));
    script(&bin.join("core0"), "kill -ABRT $$");
    until("it says by which signal", || said(&machine).contains("the manager ended by signal 6"));
    assert!(matches!(machine.unshare.try_wait(), Ok(None)), "{}", said(&machine));
    link(env!("CARGO_BIN_EXE_core0"));
    until("the node answers", || machine.connect().is_some());
    assert_eq!(machine.call("ping", "core.ping", json!({}))["state"], "SUCCESS");
}

#[test]
fn pid_1_is_small() {
    let machine = Machine::start();
    let anon = machine.bash("r", "grep RssAnon /proc/1/status");
    let kib: u64 = anon.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(kib <= 512, "{anon}");
    let threads = machine.bash("t", "grep Threads /proc/1/status");
    assert_eq!(threads.split_whitespace().nth(1), Some("1"));
}

/// The process of a PID namespace that is its PID 1, as the host numbers it.
fn pid_1_of(machine: &Machine) -> i32 {
    let children = format!("/proc/{0}/task/{0}/children", machine.unshare.id());
    std::fs::read_to_string(children).unwrap().trim().parse().unwrap()
}

/// Has a job run that writes into a file, which is given, when it is asked to end.
fn polite_job(machine: &Machine) -> PathBuf {
    let mark = machine.dir().join("mark");
    let script = format!(
        "trap 'echo ended >> {}; exit 0' TERM; echo up; while :; do sleep 0.05; done",
        mark.display()
    );
    let envelope = json!({"id": "polite", "command": "bash", "arguments": {"script": script}}).to_string();
    redis::cmd("RPUSH").arg("core:default").arg(envelope).exec(&mut machine.connect().unwrap()).unwrap();
    until("the polite job runs", || {
        let log = std::fs::read_to_string(machine.dir().join("log/jobs.log")).unwrap_or_default();
        log.contains("up")
    });
    mark
}

#[test]
fn ctrl_alt_del_is_an_orderly_reboot() {
    let mut machine = Machine::start();
    // The kernel gives it away to the machine alone, and says so in a namespace. Where it does, it sends SIGINT.
    let log = std::fs::read_to_string(machine.dir().join("stderr.log")).unwrap();
    assert!(log.contains("Ctrl-Alt-Del is not ours: Invalid argument"), "{log}");
    let mark = polite_job(&machine);
    crate::harness::signal(pid_1_of(&machine), libc::SIGINT);
    assert_eq!(machine.end(), Some(libc::SIGHUP));
    assert_eq!(std::fs::read_to_string(mark).unwrap(), "ended\n");
}

#[test]
fn core_reboot_answers_and_reboots_in_order() {
    let mut machine = Machine::start();
    let mark = polite_job(&machine);
    assert_eq!(machine.call("again", "core.reboot", json!({}))["state"], "SUCCESS");
    until("the machine is down", || matches!(machine.unshare.try_wait(), Ok(Some(_))));
    // reboot(2) in a PID namespace ends its PID 1 by SIGHUP for a reboot, and by SIGINT for the other ends.
    let status = machine.unshare.wait().unwrap();
    let signal = std::os::unix::process::ExitStatusExt::signal(&status);
    assert!(signal == Some(libc::SIGHUP) || status.code() == Some(128 + libc::SIGHUP), "{status:?}");
    assert_eq!(std::fs::read_to_string(mark).unwrap(), "ended\n");
}

#[test]
fn signals_that_mean_nothing_to_pid_1_do_nothing() {
    let mut machine = Machine::start();
    let pid = pid_1_of(&machine);
    for signal in [
        libc::SIGHUP,
        libc::SIGQUIT,
        libc::SIGWINCH,
        libc::SIGPWR,
        libc::SIGPIPE,
        libc::SIGALRM,
        libc::SIGRTMIN(),
    ] {
        crate::harness::signal(pid, signal);
    }
    assert_eq!(machine.bash("after", "echo there"), "there");
    assert!(matches!(machine.unshare.try_wait(), Ok(None)));
}

#[test]
fn a_service_of_a_machine_has_the_time_that_its_unit_says() {
    let unit = |dir: &Path| {
        let script = format!(
            "trap 'sleep 3; echo ended > {0}/mark; exit 0' TERM; touch {0}/runs; while :; do sleep 600 & wait; done",
            dir.display()
        );
        std::fs::create_dir(dir.join("services")).unwrap();
        let unit = format!("exec = ['bash', '-c', \"\"\"{script}\"\"\"]\nstop_timeout = 20.0\n");
        std::fs::write(dir.join("services/slow.toml"), unit).unwrap();
    };
    let mut machine = Machine::start_after("true", unit);
    until("the service runs", || machine.dir().join("runs").exists());
    assert_eq!(machine.call("off", "core.poweroff", json!({}))["state"], "SUCCESS");
    assert_eq!(machine.end(), Some(libc::SIGINT));
    assert_eq!(std::fs::read_to_string(machine.dir().join("mark")).unwrap_or_default(), "ended\n");
}

/// PID 1 says that it does not get Ctrl-Alt-Del, and panicked when it could not.
#[test]
fn a_machine_that_can_say_nothing_answers_all_the_same() {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let (reader, closed) = std::io::pipe().unwrap();
    drop(reader);
    for stderr in [Stdio::from(full), Stdio::from(closed)] {
        let mut machine = Machine::begin("true", tempfile::tempdir().unwrap(), stderr);
        assert_eq!(machine.call("ping", "core.ping", json!({}))["state"], "SUCCESS");
        // The next manager has something to say, too.
        let manager = machine.bash("find", FIND_MANAGER);
        machine.call("kill", "bash", json!({"script": format!("kill -9 {manager}; sleep 1")}));
        assert_eq!(machine.call("again", "core.ping", json!({}))["state"], "SUCCESS");
        assert_eq!(machine.call("off", "core.poweroff", json!({}))["state"], "SUCCESS");
        assert_eq!(machine.end(), Some(libc::SIGINT));
    }
}

/// Runs a tool and gives what it prints.
fn printed(program: &str, arguments: &[&std::ffi::OsStr]) -> String {
    let ran = Command::new(program).args(arguments).output().unwrap();
    assert!(ran.status.success(), "{program}: {}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).unwrap()
}

/// What is mounted in a machine is gone from its namespace with its last process, whoever unmounted it. So the test holds the
/// namespace: what is unmounted then was so by PID 1.
#[test]
fn poweroff_answers_ends_everything_in_order_and_unmounts() {
    let mut machine = Machine::start();
    let mark = machine.dir().join("mark");
    let (disk, volume) = (machine.dir().join("disk"), machine.dir().join("volume"));
    let make = format!(
        "truncate -s 32M {0} && mkfs.ext4 -q {0} && mkdir {1} && mount -o loop {0} {1} && echo kept > {1}/file",
        disk.display(),
        volume.display()
    );
    machine.bash("mount", &make);
    let namespace = std::fs::File::open(format!("/proc/{}/ns/mnt", pid_1_of(&machine))).unwrap();
    let is_mounted = || {
        let features = printed("dumpe2fs", &["-h".as_ref(), disk.as_os_str()]);
        let loops = printed("losetup", &["-j".as_ref(), disk.as_os_str()]);
        (features.contains("needs_recovery"), !loops.is_empty())
    };
    assert_eq!(is_mounted(), (true, true));
    let script =
        format!("trap 'echo ended >> {}; exit 0' TERM; while :; do sleep 0.05; done", mark.display());
    let envelope = json!({"id": "polite", "command": "bash", "arguments": {"script": script}}).to_string();
    let mut connection = machine.connect().unwrap();
    redis::cmd("RPUSH").arg("core:default").arg(envelope).exec(&mut connection).unwrap();
    until("the polite job runs", || {
        let list = machine.call(&crate::harness::new_id(), "job.list", json!({"id": "polite"}));
        list["data"].as_str().is_some_and(|data| data.contains("\"pid\":") && !data.contains("\"pid\":0"))
    });
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert_eq!(machine.call("off", "core.poweroff", json!({}))["state"], "SUCCESS");
    assert_eq!(machine.end(), Some(libc::SIGINT));
    assert_eq!(std::fs::read_to_string(mark).unwrap(), "ended\n");
    until("the disk is unmounted", || is_mounted() == (false, false));
    let file = printed("debugfs", &["-R".as_ref(), "cat /file".as_ref(), disk.as_os_str()]);
    assert_eq!(file, "kept\n");
    drop(namespace);
}

/// PID 1 does not wait for its manager for ever, and ends in order what that did not.
#[test]
fn a_machine_whose_manager_hangs_ends_all_the_same() {
    let mut machine = Machine::start();
    let mark = polite_job(&machine);
    let manager = machine.bash("find", FIND_MANAGER);
    let stop = format!("kill -STOP {manager}");
    let envelope = json!({"id": "stop", "command": "bash", "arguments": {"script": stop}}).to_string();
    redis::cmd("RPUSH").arg("core:default").arg(envelope).exec(&mut machine.connect().unwrap()).unwrap();
    let pid_1 = pid_1_of(&machine);
    let children = format!("/proc/{pid_1}/task/{pid_1}/children");
    until("the manager is stopped", || {
        let children = std::fs::read_to_string(&children).unwrap();
        children.split_whitespace().any(|pid| {
            std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") T "))
        })
    });
    crate::harness::signal(pid_1, libc::SIGUSR2);
    assert_eq!(machine.end(), Some(libc::SIGINT));
    assert_eq!(std::fs::read_to_string(mark).unwrap(), "ended\n");
}
