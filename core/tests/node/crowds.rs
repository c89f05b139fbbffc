//! Jobs and services that have more processes than they may: they are ended with all that they started.

use std::path::Path;

use serde_json::{Value, json};

use crate::harness::{Node, new_id, processes, runs, said, until};
use crate::init::Machine;

/// The machine's own number of processes, below which it stays whatever is wrong with core0; it is a number of the PID
/// namespace's own since Linux 6.14.
const FENCE: u64 = 1000;
/// What a job may have of it when nobody says so.
const BOUND: u64 = FENCE * 15 / 100;

/// A machine that harms nobody: its processes have what others leave of a processor, and are gone with it.
fn fenced() -> Machine {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    assert!(version >= (6, 14), "before Linux 6.14 all namespaces have one pid_max, here is {release}");
    Machine::start_after(&format!("echo {FENCE} > /proc/sys/kernel/pid_max"), |_| {})
}

/// Processes with this in their command line.
fn count(mark: &str) -> usize {
    processes().iter().filter(|(_, line)| line.contains(mark)).count()
}

/// Runs a script that forks without end, and gives its result when nothing of it is left. The node answers meanwhile.
fn let_it_fork(machine: &Machine, mark: &str, script: &str) -> Value {
    // Others test here, too.
    let script = format!("renice -n 19 $$ >/dev/null; {script}");
    let envelope = json!({"id": mark, "command": "bash", "arguments": {"script": script}});
    let mut connection = machine.connect().unwrap();
    redis::cmd("RPUSH").arg("core:default").arg(envelope.to_string()).exec(&mut connection).unwrap();
    assert_eq!(machine.call(&new_id(), "core.ping", json!({}))["state"], "SUCCESS");
    let result = machine.result(&mut connection, mark);
    until("nothing of it is left", || {
        assert_eq!(machine.call(&new_id(), "core.ping", json!({}))["state"], "SUCCESS");
        count(mark) == 0
    });
    result
}

/// An error that says why.
fn is_refused(result: &Value, most: u64) {
    assert_eq!((&result["state"], &result["code"]), (&json!("ERROR"), &json!(1137)), "{result}");
    let critical = result["critical"].as_str().unwrap();
    let wanted = [&format!("more than the {most} that it may have"), "limits.processes_each of core0.toml"];
    assert!(wanted.iter().all(|part| critical.contains(part)), "{critical}");
}

#[test]
fn a_job_that_forks_without_end_is_ended_whole_and_the_others_live_on() {
    let machine = fenced();
    // What other jobs run and have left behind.
    let neighbour = "(setsid sleep 6039 >/dev/null 2>&1 &); exec sleep 6039";
    let id = new_id();
    let envelope = json!({"id": id, "command": "bash", "arguments": {"script": neighbour}}).to_string();
    redis::cmd("RPUSH").arg("core:default").arg(envelope).exec(&mut machine.connect().unwrap()).unwrap();
    until("the neighbour runs", || count("sleep 6039 ") == 2);

    // Its first process stays.
    let mark = format!("{}-stays", new_id());
    let bomb = format!("bomb() {{ bomb | bomb & }}; : {mark}; bomb 2>/dev/null; sleep 600");
    is_refused(&let_it_fork(&machine, &mark, &bomb), BOUND);

    // Each in a session of its own, so that no signal to the group of the first reaches it.
    let mark = format!("{}-flees", new_id());
    let file = machine.dir().join(format!("{mark}.sh"));
    std::fs::write(&file, "setsid bash \"$0\" & setsid bash \"$0\" & wait\n").unwrap();
    is_refused(&let_it_fork(&machine, &mark, &format!("exec bash {} 2>/dev/null", file.display())), BOUND);

    // As fast as a program can, ahead of all others.
    let mark = format!("{}-fast", new_id());
    let bomb = format!("exec perl -e 'setpriority(0, 0, -20); fork while 1' {mark} 2>/dev/null");
    is_refused(&let_it_fork(&machine, &mark, &bomb), BOUND);

    // All but the first have lost their parents.
    let mark = format!("{}-orphans", new_id());
    std::fs::write(&file, "for i in 1 2 3; do setsid -f bash \"$0\" $1; done; sleep 600\n").unwrap();
    is_refused(&let_it_fork(&machine, &mark, &format!("exec bash {} {mark}", file.display())), BOUND);

    // The first goes at once, so that its result says nothing of what it leaves; with the marks and without.
    for (who, lose) in [("job test-", ""), ("jobs", "prlimit --rttime=unlimited ")] {
        let mark = format!("{}-goes", new_id());
        let result = let_it_fork(
            &machine,
            &mark,
            &format!(
                "{lose}setsid -f bash -c \"while [ -d /proc/$$ ]; do sleep 0.05; done; exec bash {} {mark}\" >/dev/null 2>&1",
                file.display()
            ),
        );
        assert_eq!(result["state"], "SUCCESS", "{result}");
        until("the log says so", || {
            let log = said(machine.dir());
            let mut lines = log.lines().filter(|line| line.contains(&format!("what {who}")));
            lines.any(|line| {
                line.contains("had left behind is killed")
                    && line.contains(&format!("more than the {BOUND} "))
            })
        });
    }

    assert_eq!(count("sleep 6039 "), 2);
    assert_eq!(machine.bash(&new_id(), "echo works"), "works");
}

#[test]
fn threads_count_as_processes() {
    let machine = fenced();
    let threads = "import threading, time\nfor i in range(400): threading.Thread(target=time.sleep, args=(600,)).start()";
    let arguments = json!({"name": "python3", "args": ["-c", threads]});
    is_refused(&machine.call(&new_id(), "core.system", arguments), BOUND);
}

/// A node whose jobs may have 40 processes.
fn small(dir: &Path) -> Node {
    std::fs::write(dir.join("core0.toml"), "[limits]\nprocesses_each = 40\n").unwrap();
    Node::start_in(dir)
}

#[test]
fn who_had_too_many_while_there_was_no_manager_is_told_by_the_next_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = small(folder.path());
    let go = folder.path().join("go");
    let many = "for i in $(seq 60); do setsid sleep 6041 & done; sleep 6041";
    let script = format!("until [ -e {} ]; do sleep 0.05; done; {many}", go.display());
    let id = node.push(json!({"command": "bash", "arguments": {"script": script}}));
    until("it runs", || count(&go.display().to_string()) > 0);
    node.kill_manager();
    let spawner = node.pid_of("spawner");
    std::fs::write(&go, "").unwrap();
    until("it is ended", || count(&go.display().to_string()) == 0 && count("sleep 6041 ") == 0);
    assert!(runs(spawner));
    node.restart();
    is_refused(&node.result(&id), 40);
}

#[test]
fn a_service_has_a_bound_of_its_own_and_is_started_again_as_one_that_failed() {
    let folder = tempfile::tempdir().unwrap();
    let units = folder.path().join("services");
    std::fs::create_dir(&units).unwrap();
    // Both have more than the jobs of this node may have, and one may.
    let many = "for i in $(seq 60); do setsid sleep 6042 & done; exec sleep 6042";
    let unit = |most: u32| format!("exec = ['bash', '-c', '{many}']\nprocesses = {most}\nrestart = 'never'");
    std::fs::write(units.join("many.toml"), unit(80)).unwrap();
    let node = small(folder.path());
    let status = || node.call("service.status", json!({"name": "many"}))["data"].as_str().unwrap().to_owned();
    until("all run", || count("sleep 6042 ") == 61);
    std::fs::write(units.join("many.toml"), unit(50)).unwrap();
    node.call("service.reload", json!({}));
    node.call("service.restart", json!({"name": "many"}));
    until("it was ended", || status().contains("more than the 50 that it may have"));
    assert!(status().contains("`processes` of its unit"), "{}", status());
    assert!(status().contains("\"failed\""), "{}", status());
    assert!(said(&node.dir).contains("more than the 50 that it may have"), "{}", said(&node.dir));
}
