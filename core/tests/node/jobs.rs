//! Jobs: output, codes, queues, limits, restarts, killing.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Node, runs, until};

fn bash(script: &str) -> Value {
    json!({"command": "bash", "arguments": {"script": script}})
}

fn with(mut envelope: Value, field: &str, value: Value) -> Value {
    envelope[field] = value;
    envelope
}

#[test]
fn a_process_gives_its_output_and_its_code() {
    let node = Node::start();
    let arguments = json!({"name": "sh", "args": ["-c", "cat; echo $X; pwd; echo bad >&2; exit 3"], "dir": "/tmp",
        "env": {"X": "y"}, "stdin": "in\n"});
    let id = node.push(json!({"command": "core.system", "arguments": arguments, "tags": ["a", "b"]}));
    let result = node.result(&id);
    assert_eq!(result["streams"], json!(["in\ny\n/tmp\n", "bad\n"]), "{result}");
    assert_eq!((&result["state"], &result["code"]), (&json!("ERROR"), &json!(1003)));
    assert_eq!(
        (&result["tags"], &result["id"], &result["command"]),
        (&json!(["a", "b"]), &json!(id), &json!("core.system"))
    );
}

#[test]
fn a_message_of_a_result_level_is_the_answer() {
    let node = Node::start();
    let result =
        node.result(&node.push(bash("echo 20::1; echo '20:::{'; echo '\"a\": 2}'; echo :::; echo plain")));
    assert_eq!((&result["level"], &result["data"]), (&json!(20), &json!("{\n\"a\": 2}")), "{result}");
    assert_eq!(result["streams"][0], "plain\n");
    for level in [20, 21, 22, 23, 30] {
        for (script, data) in [
            (format!("echo {level}::'a: [1]'; echo plain"), "a: [1]"),
            (
                format!("echo {level}:::; echo a = 1; echo; echo b = 2; echo :::; echo plain"),
                "a = 1\n\nb = 2",
            ),
        ] {
            let result = node.result(&node.push(bash(&script)));
            assert_eq!(
                (&result["state"], &result["level"], result["data"].as_str()),
                (&json!("SUCCESS"), &json!(level), Some(data)),
                "{result}"
            );
            assert_eq!(result["streams"][0], "plain\n");
        }
    }
    // Messages of other levels are none.
    for level in [3, 4, 9, 19, 24, 31] {
        let result = node.result(&node.push(bash(&format!("echo {level}::no"))));
        assert_eq!((&result["level"], &result["data"]), (&json!(0), &json!("")), "{result}");
    }
}

#[test]
fn the_result_keeps_the_last_lines_and_the_log_keeps_all() {
    let node = Node::start();
    let result = node.result(&node.push(bash("seq 1 3000")));
    let lines: Vec<&str> = result["streams"][0].as_str().unwrap().lines().collect();
    assert_eq!((lines.len(), lines[0], lines[99]), (100, "2901", "3000"));
    until("all lines in the log", || {
        let log = std::fs::read_to_string(node.dir.join("log/jobs.log")).unwrap();
        log.lines().filter(|line| line.contains("\"source\":\"job ")).count() == 3000
    });
}

#[test]
fn a_job_that_prints_without_end_is_killed_in_time_and_harms_nobody() {
    let node = Node::start();
    let loud = node.push(with(bash("yes $(head -c 1000 /dev/zero | tr '\\0' x)"), "max_time", json!(2)));
    let long = node.push(with(bash("tr '\\0' x < /dev/zero"), "max_time", json!(2)));
    assert_eq!(node.call("core.ping", json!({}))["state"], "SUCCESS");
    for id in [loud, long] {
        let result = node.result(&id);
        assert_eq!(result["state"], "TIMEOUT", "{}", result["critical"]);
        assert!(result["streams"][0].as_str().unwrap().len() <= 256 << 10);
    }
}

#[test]
fn an_administrator_can_kill_what_fills_the_node() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("core0.toml"), "[limits]\naccepted = 1\n").unwrap();
    let node = Node::start_in(folder.path());
    let long = node.push(bash("sleep 600"));
    until("the job runs", || {
        let list = node.call("job.list", json!({"id": long}));
        list["data"].as_str().is_some_and(|data| data.contains("\"pid\":"))
    });
    assert_eq!(node.call("job.kill", json!({"id": long}))["state"], "SUCCESS");
    assert_eq!(node.result(&long)["state"], "KILLED");
}

#[test]
fn a_stream_of_a_loud_job_is_bounded_by_bytes_and_ends() {
    let node = Node::start();
    let script = "line=$(head -c 50000 /dev/zero | tr '\\0' x); for i in {1..600}; do echo $line; done";
    let id = node.push(with(bash(script), "stream", json!(true)));
    assert_eq!(node.result(&id)["state"], "SUCCESS");
    let key = format!("stream:{id}");
    until("the stream has its end and a life", || {
        redis::cmd("TTL").arg(&key).query::<i64>(&mut node.connect()).unwrap() > 0
    });
    let bytes: u64 =
        redis::cmd("MEMORY").arg("USAGE").arg(&key).arg("SAMPLES").arg(0).query(&mut node.connect()).unwrap();
    assert!((1 << 20..6 << 20).contains(&bytes), "{bytes}");
}

#[test]
fn a_timeout_kills_the_whole_group() {
    let node = Node::start();
    let pids = node.dir.join("pids");
    let script = format!("sleep 600 & echo $! > {0}; sleep 600 & echo $! >> {0}; wait", pids.display());
    let result = node.result(&node.push(with(bash(&script), "max_time", json!(5))));
    assert_eq!(result["state"], "TIMEOUT", "{result}");
    let pids = std::fs::read_to_string(pids).unwrap();
    let pids: Vec<i32> = pids.lines().map(|pid| pid.parse().unwrap()).collect();
    assert_eq!(pids.len(), 2);
    until("both children are gone", || !pids.iter().any(|&pid| runs(pid)));
}

#[test]
fn a_process_is_started_as_a_shell_would_start_it() {
    use std::os::unix::fs::PermissionsExt;
    let node = Node::start();
    let run = |name: &str, more: Value| {
        let mut arguments = json!({"name": name, "args": ["a b", "c"]});
        more.as_object().unwrap().iter().for_each(|(key, value)| arguments[key] = value.clone());
        node.result(&node.push(json!({"command": "core.system", "arguments": arguments})))
    };
    let file = |name: &str, text: &str, mode: u32| {
        let path = node.dir.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        path.display().to_string()
    };
    // A script without a first line that says what runs it, by its path, by PATH, and by a folder.
    let script = file("plain-script", "echo \"$1\" $2", 0o755);
    assert_eq!(run(&script, json!({}))["streams"][0], "a b c\n");
    let path = format!("/no/such:{}:/bin", node.dir.display());
    assert_eq!(run("plain-script", json!({"env": {"PATH": path}}))["streams"][0], "a b c\n");
    assert_eq!(run("./plain-script", json!({"dir": node.dir}))["streams"][0], "a b c\n");
    let denied = file("denied", "echo never", 0o644);
    let result = run(&denied, json!({}));
    assert_eq!((&result["state"], &result["code"]), (&json!("ERROR"), &json!(500)), "{result}");
    assert!(result["data"].as_str().unwrap().contains("Permission denied"), "{result}");
    // Nothing of the spawner's reaches it: descriptors, signals, limits.
    let seen = "ls /proc/self/fd | tr '\\n' ' '; grep -E '^Sig(Blk|Ign)' /proc/self/status; ulimit -n; yes | head -n 1";
    let id = node.push(bash(seen));
    let seen = node.result(&id)["streams"][0].as_str().unwrap().to_string();
    let lines: Vec<&str> = seen.lines().collect();
    assert!(lines[0].starts_with("0 1 2 3 SigBlk:\t0000000000000000"), "{seen}");
    assert!(
        lines[1].starts_with("SigIgn:\t")
            && lines[1].ends_with("0000000")
            && lines[2] == "1024"
            && lines[3] == "y",
        "{seen}"
    );
    // One that is too large for a packet.
    let large = "x".repeat(20_000);
    assert_eq!(
        run("sh", json!({"args": ["-c", "echo ${#X}"], "env": {"X": large}}))["streams"][0],
        "20000\n"
    );
}

#[test]
fn jobs_are_listed_and_killed() {
    let node = Node::start();
    let id = node.push(bash("sleep 600"));
    let mut pid = 0;
    until("the job has a process", || {
        let list = node.call("job.list", json!({"id": id}));
        if list["state"] != "SUCCESS" {
            return false;
        }
        let list: Value = serde_json::from_str(list["data"].as_str().unwrap()).unwrap();
        assert_eq!((&list[0]["id"], &list[0]["cmd"]["command"]), (&json!(id), &json!("bash")));
        pid = list[0]["pid"].as_i64().unwrap() as i32;
        pid > 0
    });
    until("it is a program, and not on its way to one", || runs(pid));
    assert_eq!(node.call("job.kill", json!({"id": id}))["data"], "true");
    let result = node.result(&id);
    assert_eq!((&result["state"], &result["code"]), (&json!("KILLED"), &json!(1000 + 128 + 15)), "{result}");
    until("its process is gone", || !runs(pid));
    let others: Vec<String> = (0..3).map(|_| node.push(bash("sleep 600"))).collect();
    until("three jobs run", || {
        let list = node.call("job.list", json!({}));
        let list: Value = serde_json::from_str(list["data"].as_str().unwrap()).unwrap();
        list.as_array().unwrap().iter().filter(|job| job["pid"] != 0).count() == 3
    });
    assert_eq!(node.call("job.killall", json!({"signal": 9}))["data"], "3");
    others.iter().for_each(|id| assert_eq!(node.result(id)["state"], "KILLED"));
}

#[test]
fn statistics_of_jobs_are_gathered_and_those_with_an_interval_say_what_they_use() {
    let node = Node::start();
    let query = |arguments: Value| -> Value {
        let result = node.call("aggregator.query", arguments);
        assert_eq!(result["state"], "SUCCESS", "{result}");
        serde_json::from_str(result["data"].as_str().unwrap()).unwrap()
    };
    let printed = "echo '10::rooms:3|A|house=a'; echo '10::rooms:5|A|house=a'; echo '10::rooms:9|A|house=b'; echo 10::nonsense";
    assert_eq!(node.result(&node.push(bash(printed)))["state"], "SUCCESS");
    let found = query(json!({"key": "rooms", "tags": {"house": "a"}}));
    assert_eq!(found.as_array().unwrap().len(), 1, "{found}");
    // The hour may have ended between the two.
    let sum = &found[0]["current"]["3600"];
    assert!(sum["max"] == json!(5.0) && found[0]["last_value"] == json!(5.0), "{found}");
    assert_eq!(query(json!({"key": "nonsense"})), json!([]));
    // What its child uses is its own, too.
    let busy = with(
        bash("(while :; do :; done) & head -c 50000000 /dev/zero | tail -c 50000000 >/dev/null; wait"),
        "stats_interval",
        json!(1),
    );
    let id = node.push(with(busy, "stream", json!(true)));
    until("its processor time is told", || {
        let found = query(json!({"key": "job.cpu", "tags": {"id": id}}));
        found[0]["current"]["3600"]["max"].as_f64().is_some_and(|percent| percent > 1.0)
    });
    let list = node.call("job.list", json!({"id": id}));
    let list: Value = serde_json::from_str(list["data"].as_str().unwrap()).unwrap();
    assert!(list[0]["cpu"].as_f64().unwrap() > 0.0 && list[0]["processes"].as_u64().unwrap() >= 2, "{list}");
    assert!(list[0]["rss"].as_u64().unwrap() > 1 << 20, "{list}");
    assert_eq!(node.call("job.kill", json!({"id": id, "signal": 9}))["state"], "SUCCESS");
    node.result(&id);
    let entries: Vec<(String, Vec<String>)> = redis::cmd("XRANGE")
        .arg(format!("stream:{id}"))
        .arg("-")
        .arg("+")
        .query(&mut node.connect())
        .unwrap();
    let told = entries.iter().any(|(_, fields)| {
        fields[1] == "10"
            && fields.last().unwrap().starts_with("job.rss:")
            && fields.last().unwrap().ends_with(&format!("|A|id={id}"))
    });
    assert!(told, "{entries:?}");
}

#[test]
fn what_processes_used_that_ended_is_told_once_and_makes_no_peak() {
    let node = Node::start();
    // Two seconds of processor time of a child that is waited for, and one of an orphan that nobody of the group waits for.
    let burn = |seconds: u32| format!("bash -c 'ulimit -t {seconds}; while :; do :; done'");
    let script = format!("{}; ({} &); sleep 600", burn(2), burn(1));
    let id = node.push(with(bash(&script), "stats_interval", json!(1)));
    let told = || -> Value {
        let result = node.call("aggregator.query", json!({"key": "job.cpu", "tags": {"id": id}}));
        serde_json::from_str(result["data"].as_str().unwrap()).unwrap()
    };
    let list = || {
        let list = node.call("job.list", json!({"id": id}));
        serde_json::from_str::<Value>(list["data"].as_str().unwrap()).unwrap()
    };
    // In percent of a second. Of the orphan, what it used after the last look is nobody's.
    let used = || told()[0]["last_value"].as_f64().unwrap_or(0.0);
    until("both were seen", || used() > 200.0);
    until("the orphan is gone", || list()[0]["processes"] == 2);
    let count = || told()[0]["current"]["3600"]["count"].as_u64().unwrap();
    let before = count();
    // The hour may end meanwhile.
    until("it was looked again", || count() >= before + 2 || count() < before);
    assert!((200.0..320.0).contains(&used()), "{}", told());
    // One burns at a time, so there is never more than one processor's worth; some looks come late.
    let most = told()[0]["current"]["3600"]["max"].as_f64().unwrap();
    assert!(most < 150.0, "{}", told());
    assert_eq!(node.call("job.kill", json!({"id": id, "signal": 9}))["state"], "SUCCESS");
}

#[test]
fn a_background_process_does_not_hold_the_result_back() {
    let node = Node::start();
    let began = Instant::now();
    let result = node.result(&node.push(bash("sleep 30 & echo done")));
    assert_eq!((&result["state"], &result["streams"][0]), (&json!("SUCCESS"), &json!("done\n")));
    assert!(began.elapsed() < Duration::from_secs(25));
}

#[test]
fn commands_of_a_queue_run_one_after_the_other_in_order() {
    let node = Node::start();
    let out = node.dir.join("order");
    let ids: Vec<String> = (0..8)
        .map(|i| {
            let script = format!("echo begin {i} >> {0}; sleep 0.05; echo end {i} >> {0}", out.display());
            node.push(with(bash(&script), "queue", json!("q")))
        })
        .collect();
    ids.iter().for_each(|id| assert_eq!(node.result(id)["state"], "SUCCESS"));
    let expected: String = (0..8).map(|i| format!("begin {i}\nend {i}\n")).collect();
    assert_eq!(std::fs::read_to_string(out).unwrap(), expected);
}

#[test]
fn a_job_that_waits_for_its_turn_can_be_killed() {
    let node = Node::start();
    let first = node.push(with(bash("sleep 600"), "queue", json!("q")));
    let second = node.push(with(bash("echo never"), "queue", json!("q")));
    until("the second is known", || node.call("job.kill", json!({"id": second}))["state"] == "SUCCESS");
    assert_eq!(node.result(&second)["state"], "KILLED");
    until("the first is known", || node.call("job.kill", json!({"id": first}))["state"] == "SUCCESS");
    assert_eq!(node.result(&first)["state"], "KILLED");
}

#[test]
fn a_job_that_fails_is_started_again_as_often_as_it_says() {
    let node = Node::start();
    let out = node.dir.join("runs");
    let script = format!("echo x >> {}; exit 1", out.display());
    let result = node.result(&node.push(with(bash(&script), "max_restart", json!(2))));
    assert_eq!(result["state"], "ERROR");
    assert_eq!(std::fs::read_to_string(out).unwrap(), "x\nx\nx\n");
}

#[test]
fn a_job_that_fails_is_started_again_as_often_as_it_says_also_by_the_next_manager() {
    let mut node = Node::start();
    let (out, go) = (node.dir.join("runs"), node.dir.join("go"));
    // Each run fails when it is told to, and a manager ends in each.
    let script = format!(
        "echo >> {0}; n=$(wc -l < {0}); while [ ! -e {1}$n ]; do sleep 0.05; done; exit 1",
        out.display(),
        go.display()
    );
    let id = node.push(with(bash(&script), "max_restart", json!(2)));
    for run in 1..=3 {
        until("the next run", || std::fs::read(&out).is_ok_and(|lines| lines.len() == run));
        node.kill_manager();
        node.restart();
        let mut restarts = Value::Null;
        until("it is taken over", || {
            let list = node.call("job.list", json!({"id": id}));
            let list: Value = serde_json::from_str(list["data"].as_str().unwrap()).unwrap();
            restarts = list[0]["restarts"].clone();
            list[0]["pid"].as_u64().is_some_and(|pid| pid > 0)
        });
        assert_eq!(restarts, run - 1);
        std::fs::write(format!("{}{run}", go.display()), "").unwrap();
    }
    let result = node.result(&id);
    assert_eq!((&result["state"], &result["code"]), (&json!("ERROR"), &json!(1001)), "{result}");
    assert_eq!(std::fs::read(&out).unwrap().len(), 3);
    let left: u64 =
        redis::cmd("EXISTS").arg("core:restarts:default").query(&mut node.connect_as_core0()).unwrap();
    assert_eq!(left, 0);
}

#[test]
fn a_recurring_job_runs_until_it_is_unscheduled_and_has_one_result() {
    let node = Node::start();
    let out = node.dir.join("runs");
    let script = format!("echo x >> {}", out.display());
    let id = node.push(with(bash(&script), "recurring_period", json!(0.1)));
    until("it ran three times", || std::fs::read_to_string(&out).is_ok_and(|text| text.len() >= 6));
    assert_eq!(node.result_within(&id, Duration::from_millis(200)), None);
    assert_eq!(node.call("job.unschedule", json!({"id": id}))["data"], "true");
    assert_eq!(node.result(&id)["state"], "SUCCESS");
    let length: u64 = redis::cmd("LLEN").arg(format!("result:{id}")).query(&mut node.connect()).unwrap();
    assert_eq!(length, 1);
}

#[test]
fn a_recurring_job_goes_on_when_the_manager_is_killed_in_its_pauses() {
    let mut node = Node::start();
    let (runs, gone) = (node.dir.join("runs"), node.dir.join("gone"));
    let count = || std::fs::read_to_string(&runs).map_or(0, |text| text.len() / 2);
    let id = node.push(with(bash(&format!("echo x >> {}", runs.display())), "recurring_period", json!(0.5)));
    // core0 carries this one out itself, and would not do it twice.
    let remove = json!({"command": "filesystem.remove", "arguments": {"path": gone}});
    let other = node.push(with(remove, "recurring_period", json!(0.5)));
    for round in 0..3 {
        let before = count();
        until("it runs", || count() > before);
        std::fs::write(&gone, "").unwrap();
        until("the other one runs", || !gone.exists());
        // A run takes less than its pause, so that is where most are caught.
        std::thread::sleep(Duration::from_millis(60 * round));
        node.kill_manager();
        node.restart();
    }
    let before = count();
    until("it still runs", || count() > before);
    for id in [&id, &other] {
        assert_eq!(node.result_within(id, Duration::from_millis(200)), None);
        assert_eq!(node.call("job.unschedule", json!({"id": id}))["state"], "SUCCESS");
        node.result(id);
        let length: u64 = redis::cmd("LLEN").arg(format!("result:{id}")).query(&mut node.connect()).unwrap();
        assert_eq!(length, 1);
    }
}

#[test]
fn hundreds_of_short_jobs_lose_nothing() {
    let node = Node::start();
    let mut pipeline = redis::pipe();
    for i in 0..500 {
        let arguments = json!({"name": "sh", "args": ["-c", format!("echo {i}; exit {}", i % 7)]});
        let envelope = json!({"id": format!("short-{i}"), "command": "core.system", "arguments": arguments});
        pipeline.cmd("RPUSH").arg("core:default").arg(envelope.to_string()).ignore();
    }
    pipeline.exec(&mut node.connect()).unwrap();
    for i in 0..500 {
        let result = node.result(&format!("short-{i}"));
        let code = if i % 7 == 0 { 0 } else { 1000 + i % 7 };
        assert_eq!(
            (&result["code"], &result["streams"][0]),
            (&json!(code), &json!(format!("{i}\n"))),
            "{result}"
        );
    }
}
