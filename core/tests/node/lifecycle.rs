//! Start, stop, and what happens when a part of the node is killed.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Node, begin, processes, promised, runs, said, signal, until};

#[test]
fn a_node_stops_within_five_seconds_and_leaves_nothing() {
    promised(Duration::from_secs(5), || {
        let mut node = Node::start();
        // One that will not go, one that left its group and its parent.
        let script = "trap '' TERM; while :; do sleep 1; done";
        let stubborn = node.push(json!({"command": "bash", "arguments": {"script": script}}));
        let pid_file = node.dir.join("pid");
        let script = format!("setsid bash -c 'echo $$ > {}; exec sleep 600' & disown", pid_file.display());
        node.result(&node.push(json!({"command": "bash", "arguments": {"script": script}})));
        let mut orphan = 0;
        until("the orphan runs", || {
            orphan =
                std::fs::read_to_string(&pid_file).ok().and_then(|pid| pid.trim().parse().ok()).unwrap_or(0);
            orphan > 0
        });
        until("the stubborn job has a process", || {
            let list = node.call("job.list", json!({"id": stubborn}));
            list["data"].as_str().is_some_and(|data| !data.contains("\"pid\":0"))
        });
        let took = node.stop();
        assert!(!runs(orphan), "the orphan still runs\n{}", said(&node.dir));
        assert_eq!(node.processes(), []);
        took
    });
}

#[test]
fn a_spawner_that_hangs_does_not_keep_the_node_from_ending() {
    promised(Duration::from_secs(5), || {
        let mut node = Node::start();
        let job = node.push(json!({"command": "bash", "arguments": {"script": "sleep 600"}}));
        until("the job is accepted", || node.call("job.list", json!({"id": job}))["state"] == "SUCCESS");
        signal(node.pid_of("spawner"), libc::SIGSTOP);
        let took = node.stop();
        until("nothing is left", || node.processes().is_empty());
        took
    });
}

/// A redis that starts and then does nothing: a program of that name, in the way of the real one. Gives the environment with it.
fn redis_that_hangs(dir: &Path) -> Vec<(String, String)> {
    use std::os::unix::fs::PermissionsExt;
    let program = dir.join("bin/redis-server");
    std::fs::create_dir_all(dir.join("bin")).unwrap();
    std::fs::write(&program, format!("#!/bin/sh\nexec tail -f {}/hangs\n", dir.display())).unwrap();
    std::fs::write(dir.join("hangs"), "").unwrap();
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("{}/bin:{}", dir.display(), std::env::var("PATH").unwrap());
    vec![("PATH".into(), path)]
}

#[test]
fn a_node_that_waits_for_its_redis_ends_within_five_seconds_and_leaves_nothing() {
    promised(Duration::from_secs(5), || {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        let mut node = Node::of(begin(dir, &redis_that_hangs(dir)), dir);
        let redis = format!("tail -f {}/hangs", dir.display());
        until("redis was started", || processes().iter().any(|(_, line)| line.contains(&redis)));
        let took = node.stop();
        // Its redis has the folder in its command line, too.
        assert_eq!(node.processes(), []);
        took
    });
}

#[test]
fn a_manager_that_waits_for_a_kept_redis_ends_in_order_what_an_earlier_one_left() {
    promised(Duration::from_secs(5), || {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        let polite = |name: &str| {
            format!(
                "trap 'echo {name} >> {0}/order; exit 0' TERM; touch {0}/{name}; while :; do sleep 600 & wait; done",
                dir.display()
            )
        };
        std::fs::create_dir(dir.join("services")).unwrap();
        for (name, more) in [("first", ""), ("second", "after = ['first']")] {
            let unit = format!("exec = ['bash', '-c', \"\"\"{}\"\"\"]\n{more}\n", polite(name));
            std::fs::write(dir.join(format!("services/{name}.toml")), unit).unwrap();
        }
        let mut node = Node::start_in(dir);
        let job = node.push(json!({"command": "bash", "arguments": {"script": polite("job")}}));
        until("all run", || ["first", "second", "job"].iter().all(|name| dir.join(name).exists()));
        signal(node.pid_of("redis-server"), libc::SIGSTOP);
        node.kill_manager();
        node.manager = begin(dir, &[]);
        until("the manager has begun", || has_lock(&node));
        let took = node.stop();
        assert_eq!(node.processes(), []);
        let order = std::fs::read_to_string(dir.join("order")).unwrap_or_default();
        assert_eq!(order, "job\nsecond\nfirst\n", "{}", said(dir));
        // Nobody is left without a result.
        node.restart();
        assert_eq!(node.result(&job)["code"], 503);
        took
    });
}

#[test]
fn a_manager_that_waits_for_a_kept_spawner_ends_within_five_seconds() {
    promised(Duration::from_secs(5), || {
        let mut node = Node::start();
        let spawner = node.pid_of("spawner");
        node.kill_manager();
        signal(spawner, libc::SIGSTOP);
        node.manager = begin(&node.dir, &[]);
        until("the manager has begun", || has_lock(&node));
        let took = node.stop();
        until("nothing is left", || node.processes().is_empty());
        took
    });
}

/// Whether its manager has the lock of the folder, which it takes when it has caught the signals.
fn has_lock(node: &Node) -> bool {
    let lock = std::fs::File::open(node.dir.join("core0.lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockShared).is_err()
}

#[test]
fn a_spawner_that_hangs_is_replaced_and_its_jobs_are_answered() {
    let node = Node::start();
    let job = node.push(json!({"command": "bash", "arguments": {"script": "sleep 600"}}));
    until("the job runs", || {
        let list = node.call("job.list", json!({"id": job}));
        list["data"].as_str().is_some_and(|data| data.contains("\"pid\"") && !data.contains("\"pid\":0"))
    });
    let spawner = node.pid_of("spawner");
    signal(spawner, libc::SIGSTOP);
    let asked_meanwhile = node.push(json!({"command": "bash", "arguments": {"script": "echo works"}}));
    for id in [job, asked_meanwhile] {
        let result = node.result(&id);
        assert_eq!((&result["state"], &result["code"]), (&json!("ERROR"), &json!(503)), "{result}");
    }
    assert!(!runs(spawner));
    until("it works again", || {
        let id = node.push(json!({"command": "bash", "arguments": {"script": "echo works"}}));
        node.result(&id)["streams"][0] == "works\n"
    });
}

#[test]
fn a_kept_spawner_that_hangs_is_replaced_before_the_node_is_ready() {
    let mut node = Node::start();
    let job = node.push(json!({"command": "bash", "arguments": {"script": "sleep 600"}}));
    until("the job is accepted", || node.call("job.list", json!({"id": job}))["state"] == "SUCCESS");
    let spawner = node.pid_of("spawner");
    node.kill_manager();
    signal(spawner, libc::SIGSTOP);
    node.restart();
    assert!(!runs(spawner));
    assert_eq!(node.result(&job)["code"], 503);
    let id = node.push(json!({"command": "bash", "arguments": {"script": "echo works"}}));
    assert_eq!(node.result(&id)["streams"][0], "works\n");
}

#[test]
fn a_kept_redis_that_does_not_answer_is_gone_before_the_next_one_starts() {
    let mut node = Node::start();
    let redis = node.pid_of("redis-server");
    let port = node.port;
    node.kill_manager();
    signal(redis, libc::SIGSTOP);
    node.restart();
    assert!(!runs(redis));
    assert_eq!(node.port, port);
    assert_eq!(node.call("core.ping", json!({}))["state"], "SUCCESS");
}

#[test]
fn redis_that_is_killed_is_back_with_its_port_its_password_and_what_it_knew() {
    let node = Node::start();
    let answered = node.push(json!({"command": "core.ping"}));
    node.result(&answered);
    let running = node.push(json!({"command": "bash", "arguments": {"script": "sleep 1.5; echo done"}}));
    until("the job is accepted", || node.call("job.list", json!({"id": running}))["state"] == "SUCCESS");
    promised(Duration::from_secs(3), || {
        signal(node.pid_of("redis-server"), libc::SIGKILL);
        let began = Instant::now();
        // By the port and the password that it had. It takes connections before it has read what it kept.
        until("redis is back", || {
            let asked = node.connect_as("default", &node.password).and_then(|mut connection| {
                redis::cmd("EXISTS").arg(format!("result:{answered}")).query::<u64>(&mut connection)
            });
            asked.is_ok_and(|there| there == 1)
        });
        began.elapsed()
    });
    assert_eq!(node.result(&answered)["state"], "SUCCESS");
    assert_eq!(node.result(&running)["streams"][0], "done\n");
    assert_eq!(node.call("core.ping", json!({}))["state"], "SUCCESS");
}

#[test]
fn jobs_and_redis_keep_their_pids_when_the_manager_is_killed() {
    let mut node = Node::start();
    let dir = node.dir.clone();
    let script = format!(
        "echo $$ > {0}/pid; echo before; while [ ! -e {0}/go ]; do sleep 0.05; done; echo after; exit 4",
        dir.display()
    );
    let job = node.push(json!({"command": "bash", "arguments": {"script": script}, "tags": ["kept"]}));
    let quick = format!(
        "echo $$ > {0}/quick; while [ ! -e {0}/go-quick ]; do sleep 0.05; done; echo quick",
        dir.display()
    );
    let quick = node.push(json!({"command": "bash", "arguments": {"script": quick}}));
    until("both jobs run", || dir.join("pid").exists() && dir.join("quick").exists());
    let pid: i32 = std::fs::read_to_string(dir.join("pid")).unwrap().trim().parse().unwrap();
    let redis = node.pid_of("redis-server");
    node.kill_manager();
    // This one ends while nobody listens.
    std::fs::write(dir.join("go-quick"), "").unwrap();
    until("the quick job is gone", || {
        !runs(std::fs::read_to_string(dir.join("quick")).unwrap().trim().parse().unwrap())
    });
    node.restart();
    assert_eq!(node.pid_of("redis-server"), redis);
    assert!(runs(pid));
    assert_eq!(node.result(&quick)["streams"][0], "quick\n");
    let list = node.call("job.list", json!({"id": job}));
    let list: Value = serde_json::from_str(list["data"].as_str().unwrap()).unwrap();
    assert_eq!(list[0]["pid"], pid);
    std::fs::write(dir.join("go"), "").unwrap();
    let result = node.result(&job);
    assert_eq!((&result["code"], &result["tags"]), (&json!(1004), &json!(["kept"])), "{result}");
    assert!(result["streams"][0].as_str().unwrap().ends_with("after\n"), "{result}");
}

#[test]
fn the_death_of_the_spawner_ends_its_jobs_with_one_result_and_the_node_works_on() {
    let node = Node::start();
    let job = node.push(json!({"command": "bash", "arguments": {"script": "sleep 600"}}));
    until("the job has a process", || {
        let list = node.call("job.list", json!({"id": job}));
        list["data"].as_str().is_some_and(|data| data.contains("\"pid\"") && !data.contains("\"pid\":0"))
    });
    signal(node.pid_of("spawner"), libc::SIGKILL);
    let result = node.result(&job);
    assert_eq!((&result["state"], &result["code"]), (&json!("ERROR"), &json!(503)), "{result}");
    let again = node.push(json!({"command": "bash", "arguments": {"script": "echo works"}}));
    assert_eq!(node.result(&again)["streams"][0], "works\n");
}

#[test]
fn what_was_interrupted_is_answered_503_and_what_is_idempotent_runs_again_once() {
    let mut node = Node::start();
    let dir = node.dir.clone();
    // Accepted by a manager that died at once: what the hash of accepted commands looks like then.
    node.kill_manager();
    let password = std::fs::read_to_string(dir.join("redis/core0.password")).unwrap();
    let mut redis = node.connect_as("core0", &password).unwrap();
    let ping = |id: &str| json!({"id": id, "command": "core.ping"}).to_string();
    let script = format!("echo x >> {}/effect", dir.display());
    let bash = json!({"id": "effect", "command": "bash", "arguments": {"script": script}}).to_string();
    redis::pipe()
        .hset_multiple(
            "core:inflight:default",
            &[("901", ping("again")), ("902", ping("twice")), ("903", bash)],
        )
        .sadd("core:again:default", "902")
        .exec(&mut redis)
        .unwrap();
    node.restart();
    assert_eq!(node.result("again")["state"], "SUCCESS");
    for id in ["twice", "effect"] {
        let result = node.result(id);
        assert_eq!((&result["state"], &result["code"]), (&json!("ERROR"), &json!(503)), "{result}");
        assert!(result["data"].as_str().unwrap().contains("interrupted"), "{result}");
    }
    assert!(!dir.join("effect").exists());
    let left: u64 = redis::cmd("HLEN")
        .arg("core:inflight:default")
        .query(&mut node.connect_as("core0", &password).unwrap())
        .unwrap();
    assert_eq!(left, 0);
}

#[test]
fn a_folder_that_others_may_write_to_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o770)).unwrap();
    let refused = std::process::Command::new(env!("CARGO_BIN_EXE_core0"))
        .args(["run", "--dev"])
        .arg(folder.path())
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && stderr.contains("nobody else may write to"), "{stderr}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_second_manager_of_the_same_folder_is_refused() {
    let node = Node::start();
    let second = std::process::Command::new(env!("CARGO_BIN_EXE_core0"))
        .args(["run", "--dev"])
        .arg(&node.dir)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&second.stderr);
    assert!(!second.status.success() && stderr.contains("another core0 runs"), "{stderr}");
    assert_eq!(node.call("core.ping", json!({}))["state"], "SUCCESS");
}
