//! Containers whose source stalls: what they start waits for it, and neither the node nor their jobs wait for that.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::gateway::Gateway;
use crate::harness::{Node, runs, said, until, with_own_network};
use crate::place::{Place, data};

/// Longer than a spawner may be silent that does not wait for the kernel.
const SILENCE: Duration = Duration::from_secs(14);

/// A script that nobody has read, in a large file of its own.
fn pack_cold_script(place: &Place) -> String {
    place.pack_large_file();
    let noise = fs::read(place.tree().join("large")).unwrap();
    let cold = place.tree().join("cold");
    fs::write(&cold, [b"#!/bin/sh\necho cold; echo cold >> /ran; exit\n", noise.as_slice()].concat())
        .unwrap();
    fs::set_permissions(&cold, fs::Permissions::from_mode(0o755)).unwrap();
    place.pack(&g8_fs::pack::PackOptions::default())
}

/// Whether a process waits for the kernel (proc_pid_stat(5)), as one does until what it starts is a program.
fn waits(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('D'))
}

fn begin(place: &Place, container: u64, inner: Value) -> String {
    let result = place.node.call("corex.dispatch", json!({"container": container, "command": inner}));
    data(&result).as_str().unwrap().to_owned()
}

#[test]
fn a_container_that_waits_for_its_source_lives_on_with_its_jobs_when_the_manager_is_killed() {
    with_own_network(|| {
        let folder = tempfile::tempdir().unwrap();
        let mut place = Place::on(Node::start_with(folder.path(), &[("G8_DEADLINE", "300")]));
        let cid = pack_cold_script(&place);
        let gateway = Gateway::of(&place);
        let script = "echo begun > /begun; while [ ! -e /stop ]; do sleep 0.05; done; exit 5";
        let arguments =
            json!({"root": cid, "storage": gateway.url(), "nics": [], "entrypoint": ["sh", "-c", script]});
        let id = place.created(arguments);
        let pid = place.list()[id.to_string()]["container"]["pid"].as_i64().unwrap() as i32;
        until("its program runs", || place.sh(id, "cat /begun 2>/dev/null; busybox true") == "begun\n");
        let job = json!({"command": "core.system", "arguments": {"name": "sh", "args": ["-c",
            "echo before; while [ ! -e /tmp/go ]; do sleep 0.05; done; echo after"]}});
        let job = begin(&place, id, job);
        let recurring =
            json!({"command": "core.system", "arguments": {"name": "true"}, "recurring_period": 1});
        let recurring = begin(&place, id, recurring);

        gateway.signal(libc::SIGSTOP);
        let cold = |more: Value| {
            let mut inner = json!({"command": "core.system", "arguments": {"name": "/cold"}});
            inner.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            begin(&place, id, inner)
        };
        // Jobs end when they shall, though what they start is not even a program.
        let late = cold(json!({"max_time": 1}));
        until("it is started", || waits(pid));
        let killed = cold(json!({}));
        // One that nobody has to wait for, behind two that nobody wants and before one that somebody does.
        let unwanted = |max_restart: u32| {
            let arguments = json!({"name": "sh", "args": ["-c", "echo unwanted >> /ran"]});
            begin(
                &place,
                id,
                json!({"command": "core.system", "arguments": arguments, "max_time": 1, "max_restart": max_restart}),
            )
        };
        for job in [unwanted(0), unwanted(1)] {
            let result = place.node.result(&job);
            assert_eq!((&result["state"], &result["code"]), (&json!("TIMEOUT"), &json!(1137)), "{result}");
        }
        let result = place.node.result(&late);
        assert_eq!((&result["state"], &result["code"]), (&json!("TIMEOUT"), &json!(1137)), "{result}");
        data(&place.node.call("job.kill", json!({"id": killed, "signal": 9})));
        assert_eq!(place.node.result(&killed)["state"], "KILLED");
        let waiting = cold(json!({}));
        until("it is taken up", || {
            let list = place.node.call("job.list", json!({"id": waiting}));
            list["state"] == "SUCCESS" && list["data"].as_str().is_some_and(|jobs| jobs.contains(&waiting))
        });
        // Whoever starts it is asked a moment later, and does not answer.
        std::thread::sleep(Duration::from_secs(1));
        assert!(waits(pid), "{}", said(&place.node.dir));

        place.node.kill_manager();
        place.node.restart();
        // The node is there, while the container waits.
        assert_eq!(place.node.call("core.ping", json!({}))["state"], "SUCCESS");
        assert!(waits(pid) && !place.list()[id.to_string()].is_null(), "{}", said(&place.node.dir));
        let began = Instant::now();
        until("a while", || began.elapsed() > SILENCE);
        assert!(waits(pid) && !place.list()[id.to_string()].is_null(), "{}", said(&place.node.dir));
        // Also those of before, which are still to be told.
        data(&place.node.call("job.kill", json!({"id": recurring, "signal": 9})));
        assert_eq!(place.node.result(&recurring)["state"], "KILLED");

        gateway.signal(libc::SIGCONT);
        assert_eq!(place.sh(id, "touch /tmp/go; echo here"), "here\n");
        let result = place.node.result(&job);
        assert_eq!(
            (&result["state"], &result["streams"][0]),
            (&json!("SUCCESS"), &json!("before\nafter\n")),
            "{result}"
        );
        // Nobody had answered this one, so it was on its way in when the manager died.
        let result = place.node.result(&waiting);
        assert_eq!(
            (&result["state"], &result["streams"][0]),
            (&json!("SUCCESS"), &json!("cold\n")),
            "{result}"
        );
        until("what nobody wants is gone", || !place.sh(id, "ps").contains("/cold"));
        // But for the one that was a program by then, and is killed as one.
        let ran = place.sh(id, "cat /ran");
        assert!(ran == "cold\n" || ran == "cold\ncold\n", "{ran}");
        // Its entrypoint is known again: its end is that of the container.
        place.sh(id, "touch /stop");
        until("it ends", || !runs(pid));
        place.until_nothing_is_left();
    });
}

#[test]
fn a_program_that_is_swapped_for_a_fifo_while_it_is_started_holds_nobody_up() {
    with_own_network(|| {
        let place = Place::new();
        let id = place.created(json!({"nics": []}));
        // No script says what runs it, so whoever starts it looks into it.
        let swap = "cd /tmp; echo exit > text; chmod 755 text; busybox mkfifo fifo; chmod 755 fifo; ln text x
            echo ready > ready; while [ ! -e stop ]; do ln fifo next; mv next x; ln text next; mv next x; done";
        let swapping = place.begin(id, "core.system", json!({"name": "sh", "args": ["-c", swap]}));
        until("it swaps", || place.sh(id, "cat /tmp/ready 2>/dev/null") == "ready\n");
        let inner = json!({"command": "core.system", "arguments": {"name": "/tmp/x"}, "max_time": 20});
        // The shell that runs it may get the FIFO, and waits: it is not waited for.
        let begun: Vec<String> = (0..40).map(|_| begin(&place, id, inner.clone())).collect();
        place.sh(id, "touch /tmp/stop");
        assert_eq!(place.node.result(&swapping)["state"], "SUCCESS");
        for job in begun {
            place.node.result(&job);
        }
        place.terminate(id);
        place.until_nothing_is_left();
    });
}

#[test]
fn a_container_that_waits_for_its_source_is_terminated_and_stopped_as_any_other() {
    with_own_network(|| {
        let folder = tempfile::tempdir().unwrap();
        let mut place = Place::on(Node::start_with(folder.path(), &[("G8_DEADLINE", "300")]));
        let cid = pack_cold_script(&place);
        let gateway = Gateway::of(&place);
        let create = || {
            let id = place.created(json!({"root": cid, "storage": gateway.url(), "nics": []}));
            assert_eq!(place.sh(id, "echo ready"), "ready\n");
            (id, place.list()[id.to_string()]["container"]["pid"].as_i64().unwrap() as i32)
        };
        let [(first, first_pid), (_, second_pid)] = [create(), create()];
        gateway.signal(libc::SIGSTOP);
        for id in [first, first + 1] {
            place.begin(id, "core.system", json!({"name": "/cold"}));
        }
        until("both wait", || waits(first_pid) && waits(second_pid));
        place.node.kill_manager();
        place.node.restart();
        place.terminate(first);
        until("it is gone", || !runs(first_pid));
        assert!(waits(second_pid));
        place.node.stop();
        assert!(!runs(second_pid));
        gateway.signal(libc::SIGCONT);
        // What could not be unmounted while its source stalled, the next manager ends.
        place.node.restart();
        place.until_nothing_is_left();
    });
}
