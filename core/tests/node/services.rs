//! Services from TOML units.

use std::path::Path;

use serde_json::{Value, json};

use crate::harness::{Node, processes, runs, until};

fn unit(dir: &Path, name: &str, text: &str) {
    std::fs::create_dir_all(dir.join("services")).unwrap();
    std::fs::write(dir.join(format!("services/{name}.toml")), text).unwrap();
}

/// A unit that runs a script of bash.
fn script(dir: &Path, name: &str, script: &str, more: &str) {
    unit(dir, name, &format!("exec = ['bash', '-c', '''{script}''']\n{more}\n"));
}

fn answer(node: &Node, command: &str, arguments: Value) -> Value {
    let result = node.call(command, arguments);
    assert_eq!(result["state"], "SUCCESS", "{result}");
    serde_json::from_str(result["data"].as_str().unwrap()).unwrap()
}

fn state(node: &Node, name: &str) -> String {
    answer(node, "service.status", json!({"name": name}))["state"].as_str().unwrap().into()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn services_start_in_order_when_ready_and_stop_in_reverse() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let out = dir.join("order");
    let life = |name: &str, ready: &str| {
        format!(
            "trap \"echo stop {name} >> {0}; exit 0\" TERM; sleep 0.3; echo start {name} >> {0}; {ready}; while :; do sleep 0.05; done",
            out.display()
        )
    };
    script(dir, "line", &life("line", "echo now I am up"), "ready = { match = 'I am up' }");
    let notify = "python3 -c \"import os,socket; socket.socket(1,2).sendto(bytes([10]).join([b\\\"X=1\\\",b\\\"READY=1\\\"]),os.environ[\\\"NOTIFY_SOCKET\\\"])\"";
    script(dir, "notify", &life("notify", notify), "after = ['line', 'redis']\nready = 'notify'");
    script(dir, "last", &life("last", "true"), "after = ['notify']");
    script(dir, "once", &format!("echo once >> {}", out.display()), "after = ['last']\none_shot = true");
    let mut node = Node::start_in(dir);
    until("the one-shot is done", || state(&node, "once") == "done");
    let started = read(&out);
    let begins: Vec<&str> = started.lines().collect();
    let place =
        |line: &str| begins.iter().position(|begin| *begin == line).unwrap_or_else(|| panic!("{begins:?}"));
    assert!(place("start line") < place("start notify"), "{begins:?}");
    for name in ["line", "notify", "last"] {
        assert_eq!(state(&node, name), "ready", "{name}");
    }
    until("the last one writes", || read(&out).contains("start last"));
    node.stop();
    let all = read(&out);
    let stops: Vec<&str> = all.lines().filter(|line| line.starts_with("stop")).collect();
    assert_eq!(stops, ["stop last", "stop notify", "stop line"]);
}

#[test]
fn a_service_that_dies_comes_back_and_one_that_dies_too_often_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    unit(dir, "steady", "exec = ['sleep', '6001']");
    script(dir, "dying", &format!("echo x >> {}; exit 7", dir.join("deaths").display()), "restart_limit = 2");
    script(
        dir,
        "moody",
        &format!("echo x >> {}; exit 0", dir.join("ends").display()),
        "restart = 'on-failure'",
    );
    let node = Node::start_in(dir);
    until("it is ready", || state(&node, "steady") == "ready");
    let pid = answer(&node, "service.status", json!({"name": "steady"}))["pid"].as_i64().unwrap() as i32;
    crate::harness::signal(pid, libc::SIGKILL);
    until("it has a new pid", || {
        let status = answer(&node, "service.status", json!({"name": "steady"}));
        status["state"] == "ready" && status["pid"] != pid && status["restarts"] == 1
    });
    until("the dying one is given up", || state(&node, "dying") == "failed");
    let status = answer(&node, "service.status", json!({"name": "dying"}));
    assert_eq!(status["reason"], "exit code 7, 3 times");
    assert_eq!(read(&dir.join("deaths")), "x\nx\nx\n");
    until("the moody one is left alone", || state(&node, "moody") == "ended");
    assert_eq!(read(&dir.join("ends")), "x\n");
    // It tries again when it is told to.
    node.call("service.start", json!({"name": "dying"}));
    until("it tried again", || read(&dir.join("deaths")).lines().count() > 3);
    node.call("service.start", json!({"name": "moody"}));
    until("it ran again", || read(&dir.join("ends")) == "x\nx\n");
}

#[test]
fn a_port_a_health_test_and_a_period_are_watched() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let port = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    let server = format!("sleep 0.5; exec python3 -m http.server {port} --bind 127.0.0.1");
    script(dir, "web", &server, &format!("ready = {{ port = {port} }}"));
    let sick = dir.join("sick");
    let health = format!(
        "health = {{ exec = ['test', '!', '-e', '{}'], period = 0.2, failures = 2 }}",
        sick.display()
    );
    unit(dir, "ill", &format!("exec = ['sleep', '6002']\n{health}"));
    let ticks = dir.join("ticks");
    script(dir, "tick", &format!("echo x >> {}", ticks.display()), "one_shot = true\nrecurring = 0.2");
    let node = Node::start_in(dir);
    until("the port is taken", || state(&node, "web") == "ready");
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    until("it ticked three times", || read(&ticks).lines().count() >= 3);
    until("it is well", || state(&node, "ill") == "ready");
    let pid = answer(&node, "service.status", json!({"name": "ill"}))["pid"].clone();
    std::fs::write(&sick, "").unwrap();
    until("it was ended", || !runs(pid.as_i64().unwrap() as i32));
    std::fs::remove_file(&sick).unwrap();
    until("it is well again", || {
        let status = answer(&node, "service.status", json!({"name": "ill"}));
        status["state"] == "ready" && status["pid"] != pid
    });
}

#[test]
fn units_that_cannot_be_used_say_why_and_the_rest_runs() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    unit(dir, "a", "exec = ['sleep', '1']\nafter = ['b']");
    unit(dir, "b", "exec = ['sleep', '1']\nafter = ['a']");
    unit(dir, "lost", "exec = ['sleep', '1']\nafter = ['nobody']");
    unit(dir, "typo", "exce = ['sleep']");
    unit(dir, "redis", "exec = ['sleep', '1']");
    unit(dir, "elsewhere", "exec = ['sleep', '1']\ncondition = 'no-such-argument'");
    unit(dir, "behind", "exec = ['sleep', '6003']\nafter = ['elsewhere']");
    unit(dir, "absent", "exec = ['no-such-program']\nrestart = 'never'");
    let node = Node::start_in(dir);
    let list = answer(&node, "service.list", json!({}));
    for (name, reason) in [
        ("a", "services wait for each other: a after b after a"),
        ("lost", "it comes after nobody, and there is no such service"),
        ("typo", "exce"),
        ("redis", "core0 has a service of this name"),
    ] {
        assert_eq!(list[name]["state"], "failed", "{list}");
        assert!(list[name]["reason"].as_str().unwrap().contains(reason), "{list}");
    }
    assert_eq!(list["elsewhere"]["state"], "skipped");
    until("who comes after a skipped one runs", || state(&node, "behind") == "ready");
    until("a missing program is a failure", || state(&node, "absent") == "failed");
    let status = answer(&node, "service.status", json!({"name": "absent"}));
    assert!(status["reason"].as_str().unwrap().contains("no-such-program"), "{status}");
    let refused = node.call("service.start", json!({"name": "a"}));
    assert_eq!((&refused["state"], &refused["code"]), (&json!("ERROR"), &json!(412)), "{refused}");
    assert_eq!(node.call("service.stop", json!({"name": "none"}))["code"], 404);
}

#[test]
fn services_are_commanded_reloaded_and_logged() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    script(dir, "talk", "echo hello $WHO; exec sleep 6004", "env = { WHO = 'you' }");
    let node = Node::start_in(dir);
    until("it said hello", || {
        !answer(&node, "service.logs", json!({"name": "talk"})).as_array().unwrap().is_empty()
    });
    assert_eq!(answer(&node, "service.logs", json!({"name": "talk"}))[0]["text"], "hello you");
    let pid = answer(&node, "service.status", json!({"name": "talk"}))["pid"].as_i64().unwrap() as i32;
    assert_eq!(answer(&node, "service.stop", json!({"name": "talk"}))["state"], "stopped");
    assert!(!runs(pid));
    answer(&node, "service.start", json!({"name": "talk"}));
    until("it runs again", || state(&node, "talk") == "ready");
    answer(&node, "service.restart", json!({"name": "talk"}));
    until("it runs again", || state(&node, "talk") == "ready");
    unit(dir, "new", "exec = ['sleep', '6005']");
    std::fs::remove_file(dir.join("services/talk.toml")).unwrap();
    let list = answer(&node, "service.reload", json!({}));
    assert!(list.get("talk").is_none() && list.get("new").is_some(), "{list}");
    until("the new one runs", || state(&node, "new") == "ready");
    assert!(!processes().iter().any(|(_, line)| line == "sleep 6004 "));
}

#[test]
fn a_unit_that_is_spoilt_leaves_its_service_running_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    unit(dir, "steady", "exec = ['sleep', '6006']");
    let node = Node::start_in(dir);
    until("it runs", || state(&node, "steady") == "ready");
    let pid = answer(&node, "service.status", json!({"name": "steady"}))["pid"].clone();
    unit(dir, "steady", "exce = ['sleep', '6006']");
    let list = answer(&node, "service.reload", json!({}));
    assert_eq!((&list["steady"]["state"], &list["steady"]["pid"]), (&json!("ready"), &pid), "{list}");
    assert!(list["steady"]["reason"].as_str().unwrap().contains("exce"), "{list}");
    assert_eq!(answer(&node, "service.stop", json!({"name": "steady"}))["state"], "stopped");
    assert!(!runs(pid.as_i64().unwrap() as i32));
}

#[test]
fn stops_that_race_with_starts_return() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    unit(dir, "busy", "exec = ['sleep', '6007']");
    let node = Node::start_in(dir);
    until("it runs", || state(&node, "busy") == "ready");
    let ids: Vec<String> = (0..100)
        .map(|i| {
            let command = if i % 2 == 0 { "service.stop" } else { "service.start" };
            node.push(json!({"command": command, "arguments": {"name": "busy"}}))
        })
        .collect();
    for id in ids {
        assert_eq!(node.result(&id)["state"], "SUCCESS");
    }
}

#[test]
fn what_a_service_leaves_in_its_group_is_gone_when_it_runs_again() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let left = dir.join("left");
    script(
        dir,
        "careless",
        &format!("sleep 6008 >/dev/null 2>&1 & echo $! >> {}; exit 1", left.display()),
        "restart_limit = 2",
    );
    let node = Node::start_in(dir);
    until("it is given up", || state(&node, "careless") == "failed");
    let left: Vec<i32> = read(&left).lines().map(|pid| pid.parse().unwrap()).collect();
    assert_eq!(left.len(), 3);
    until("all it left is gone", || !left.iter().any(|&pid| runs(pid)));
}

#[test]
fn a_service_keeps_its_pid_when_the_manager_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    script(dir, "kept", "while :; do echo beat; sleep 0.1; done", "");
    let mut node = Node::start_in(dir);
    until("it runs", || state(&node, "kept") == "ready");
    let before = answer(&node, "service.status", json!({"name": "kept"}));
    node.kill_manager();
    node.restart();
    until("it is taken over", || state(&node, "kept") == "ready");
    let after = answer(&node, "service.status", json!({"name": "kept"}));
    assert_eq!((&before["pid"], &after["restarts"]), (&after["pid"], &json!(0)));
    until("it is heard", || {
        let logs = answer(&node, "service.logs", json!({"name": "kept"}));
        logs.as_array().unwrap().iter().any(|line| line["text"] == "beat")
    });
}

#[test]
fn what_became_of_services_outlives_a_manager_that_is_killed_and_not_a_stop() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let ran = |name: &str| std::fs::read_to_string(dir.join(format!("{name}.ran"))).unwrap_or_default().len();
    let unit = |name: &str, then: &str, more: &str| {
        script(
            dir,
            name,
            &format!("printf x >> {}; {then}", dir.join(format!("{name}.ran")).display()),
            more,
        );
    };
    unit("once", "exit 0", "one_shot = true");
    unit("told", "exec sleep 600", "");
    unit("hopeless", "exit 3", "restart = 'never'");
    unit("later", "exec sleep 600", "after = ['once']");
    let mut node = Node::start_in(dir);
    let states = [("once", "done"), ("told", "stopped"), ("hopeless", "failed"), ("later", "ready")];
    until("told runs", || state(&node, "told") == "ready" && ran("told") == 1);
    answer(&node, "service.stop", json!({"name": "told"}));
    until("all are as they shall be", || {
        states.iter().all(|(name, now)| state(&node, name) == *now && ran(name) == 1)
    });
    let before = answer(&node, "service.list", json!({}));
    for _ in 0..2 {
        node.kill_manager();
        node.restart();
        until("they are so again", || states.iter().all(|(name, now)| state(&node, name) == *now));
        assert_eq!(states.map(|(name, _)| ran(name)), [1; 4]);
    }
    let after = answer(&node, "service.list", json!({}));
    for of in ["reason", "since"] {
        assert_eq!(before["hopeless"][of], after["hopeless"][of], "{after}");
    }
    // They are not there for good.
    answer(&node, "service.start", json!({"name": "told"}));
    until("it runs again", || state(&node, "told") == "ready");
    node.kill_manager();
    node.restart();
    until("it is taken over", || state(&node, "told") == "ready");
    assert_eq!(ran("told"), 2);
    node.stop();
    let node = Node::start_in(dir);
    until("all have begun anew", || {
        state(&node, "told") == "ready" && ran("hopeless") == 2 && ran("once") == 2
    });
}

#[test]
fn a_command_that_takes_a_while_shows_that_it_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    script(dir, "stubborn", "trap '' TERM; while :; do sleep 0.1; done", "stop_timeout = 5");
    let node = Node::start_in(dir);
    until("it runs", || state(&node, "stubborn") == "ready");
    let id = node.push(json!({"command": "service.stop", "arguments": {"name": "stubborn"}}));
    let flag = format!("result:{id}:flag");
    until("its flag is there", || {
        redis::cmd("EXISTS").arg(&flag).query::<u64>(&mut node.connect()).unwrap() == 1
    });
    let life = || redis::cmd("TTL").arg(&flag).query::<i64>(&mut node.connect()).unwrap();
    // Without a time to live it runs. A test that was away for five seconds has missed that.
    assert!(life() == -1 || node.result_within(&id, std::time::Duration::from_secs(1)).is_some());
    assert_eq!(node.result(&id)["state"], "SUCCESS");
    assert!(life() > 0);
    assert_eq!(redis::cmd("LLEN").arg(&flag).query::<u64>(&mut node.connect()).unwrap(), 1);
}

#[test]
fn pauses_before_a_service_that_dies_is_started_again_grow_and_its_state_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let starts = dir.join("starts");
    script(dir, "dying", &format!("date +%s%N >> {}; exit 7", starts.display()), "restart_limit = 6");
    let node = Node::start_in(dir);
    let status = || answer(&node, "service.status", json!({"name": "dying"}));
    let mut seen = Vec::new();
    until("it is given up", || {
        let status = status();
        seen.push((status["state"].clone(), status["reason"].clone(), status["pid"].clone()));
        status["state"] == "failed"
    });
    assert!(seen.contains(&(json!("pausing"), json!("exit code 7"), json!(0))), "{seen:?}");
    let status = status();
    assert_eq!((&status["reason"], &status["restarts"]), (&json!("exit code 7, 7 times"), &json!(6)));
    let times: Vec<u64> = read(&starts).lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(times.len(), 7);
    let pauses: Vec<u64> = times.windows(2).map(|two| (two[1] - two[0]) / 1_000_000).collect();
    // 100 ms, and twice as long each time. A loaded machine makes them longer, never shorter.
    for (i, pause) in pauses.iter().enumerate() {
        assert!(*pause >= 100 << i, "pause {i} of {pauses:?} ms");
    }
}

#[test]
fn who_comes_after_a_one_shot_starts_when_that_is_done_and_not_when_it_failed() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let (out, go) = (dir.join("order"), dir.join("go"));
    let prepare =
        format!("while [ ! -e {} ]; do sleep 0.05; done; echo prepared >> {}", go.display(), out.display());
    script(dir, "prepare", &prepare, "one_shot = true");
    script(
        dir,
        "user",
        &format!("echo started >> {}; exec sleep 6009", out.display()),
        "after = ['prepare']",
    );
    script(dir, "broken", "exit 3", "one_shot = true");
    script(dir, "behind", &format!("echo behind >> {}", out.display()), "after = ['broken']");
    let node = Node::start_in(dir);
    let why = |name: &str| {
        let status = answer(&node, "service.status", json!({"name": name}));
        (status["state"].as_str().unwrap().to_owned(), status["reason"].as_str().unwrap().to_owned())
    };
    let waits = |reason: &str| ("waiting".to_owned(), reason.to_owned());
    until("it waits for the one-shot", || why("user") == waits("it comes after prepare, which is starting"));
    until("it says whose failure it waits for", || {
        why("behind") == waits("it comes after broken, which is failed: exit code 3")
    });
    std::fs::write(&go, "").unwrap();
    until("it runs", || state(&node, "user") == "ready" && read(&out).lines().count() == 2);
    assert_eq!(read(&out), "prepared\nstarted\n");
    assert_eq!(state(&node, "prepare"), "done");
    // Told to run again when it is repaired, the one-shot lets on who waits.
    script(dir, "broken", "true", "one_shot = true");
    answer(&node, "service.reload", json!({}));
    answer(&node, "service.start", json!({"name": "broken"}));
    until("who waited ran", || read(&out).contains("behind"));
}

#[test]
fn a_service_that_is_never_ready_is_ended_and_who_comes_after_it_says_why_it_does_not_run() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let pids = dir.join("pids");
    let mute = format!("echo $$ >> {}; exec sleep 6010", pids.display());
    script(dir, "mute", &mute, "ready = { match = 'never said' }\nready_timeout = 0.7\nrestart_limit = 1");
    unit(dir, "behind", "exec = ['sleep', '6011']\nafter = ['mute']");
    unit(dir, "far", "exec = ['sleep', '6012']\nafter = ['behind']");
    let node = Node::start_in(dir);
    until("it is given up", || state(&node, "mute") == "failed");
    let list = answer(&node, "service.list", json!({}));
    let reason = |name: &str| list[name]["reason"].as_str().unwrap().to_owned();
    assert_eq!(reason("mute"), "it was not ready within 0.7 s, 2 times");
    until("who comes after it says why", || {
        let status = answer(&node, "service.status", json!({"name": "behind"}));
        (status["state"].as_str(), status["reason"].as_str())
            == (
                Some("waiting"),
                Some("it comes after mute, which is failed: it was not ready within 0.7 s, 2 times"),
            )
    });
    let far = answer(&node, "service.status", json!({"name": "far"}));
    assert_eq!(far["reason"], "it comes after behind, which is waiting");
    assert!(!processes().iter().any(|(_, line)| ["sleep 6011 ", "sleep 6012 "].contains(&line.as_str())));
    let pids: Vec<i32> = read(&pids).lines().map(|pid| pid.parse().unwrap()).collect();
    assert_eq!(pids.len(), 2);
    until("what was not ready is gone", || !pids.iter().any(|&pid| runs(pid)));
}

#[test]
fn a_unit_whose_condition_holds_runs() {
    let cmdline = std::fs::read_to_string("/proc/cmdline").unwrap();
    // What this kernel was told, whatever that is.
    let argument = cmdline.split_ascii_whitespace().find(|word| !word.contains(['(', ')', ','])).unwrap();
    let name = argument.split('=').next().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    for (service, condition, number) in [
        ("whole", argument.to_owned(), 6013),
        ("name", name.to_owned(), 6014),
        ("both", format!("and({name}, not(no-such-argument))"), 6015),
        ("neither", format!("not({name})"), 6016),
    ] {
        unit(dir, service, &format!("exec = ['sleep', '{number}']\ncondition = '{condition}'"));
    }
    let node = Node::start_in(dir);
    for service in ["whole", "name", "both"] {
        until("it runs", || state(&node, service) == "ready");
    }
    assert_eq!(state(&node, "neither"), "skipped");
}

/// Only the last of a chain does not end when it is asked to. There was no signal for the others then: all were killed when the
/// time of all was over.
#[test]
fn a_service_that_does_not_end_is_killed_and_those_before_it_end_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let (order, last) = (dir.join("order"), dir.join("last"));
    let polite = |name: &str| {
        let state =
            format!("kill -0 $(cat {}) 2>/dev/null && echo -n there- || echo -n gone-", last.display());
        format!(
            "trap '{{ {state}; echo {name}; }} >> {}; exit 0' TERM; touch {}; while :; do sleep 600 & wait; done",
            order.display(),
            dir.join(name).display()
        )
    };
    for (name, more) in [("a", ""), ("b", "after = ['a']"), ("c", "after = ['b']")] {
        script(dir, name, &polite(name), more);
    }
    let stubborn = format!("trap '' TERM; echo $$ > {}; while :; do sleep 1; done", last.display());
    script(dir, "d", &stubborn, "after = ['c']\nstop_timeout = 600.0");
    let mut node = Node::start_in(dir);
    until("all run", || ["a", "b", "c", "last"].iter().all(|name| dir.join(name).exists()));
    node.stop();
    assert_eq!(read(&order), "gone-c\ngone-b\ngone-a\n", "{}", crate::harness::said(dir));
}
