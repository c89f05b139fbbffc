//! Containers that are told to end: they do, whatever becomes of the manager that was told so.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::harness::{processes, runs, said, until, with_own_network};
use crate::place::{Place, data, names};

/// An entrypoint that hears a polite signal, and goes on.
fn stubborn() -> Value {
    let script = "trap 'echo told > /told' TERM; echo ready > /ready; while :; do sleep 0.05; done";
    json!({"entrypoint": ["sh", "-c", script], "port": {"8080": 80}})
}

/// One that is there, with the pid of its first process.
fn deaf(place: &Place) -> (u64, i32) {
    let id = place.created(stubborn());
    until("it is deaf", || place.sh(id, "cat /ready 2>/dev/null") == "ready\n");
    (id, pid(place, id))
}

fn pid(place: &Place, id: u64) -> i32 {
    place.list()[id.to_string()]["container"]["pid"].as_i64().unwrap() as i32
}

fn record(place: &Place, id: u64) -> PathBuf {
    place.node.dir.join(format!("containers/{id}.json"))
}

#[test]
fn a_container_that_was_told_to_end_ends_though_the_manager_is_killed_before() {
    with_own_network(|| {
        let mut place = Place::new();
        let [(ending, first), (other, second)] = [deaf(&place), {
            let id = place.created(json!({}));
            (id, pid(&place, id))
        }];
        place.terminate(ending);
        place.node.kill_manager();
        let written: Value = serde_json::from_slice(&fs::read(record(&place, ending)).unwrap()).unwrap();
        assert_eq!(written["ending"], true, "{}", said(&place.node.dir));
        place.node.restart();
        until("it is gone", || !runs(first));
        let list = place.list();
        assert!(list[ending.to_string()].is_null(), "{list}");
        // Its number and its ports are free, and nobody else was meant.
        until("its record is gone", || !record(&place, ending).exists());
        assert!(runs(second));
        let next = place.created(json!({"port": {"8080": 80}}));
        for id in [other, next] {
            place.terminate(id);
        }
        place.until_nothing_is_left();
    });
}

#[test]
fn a_port_of_a_container_that_is_ending_is_waited_for() {
    with_own_network(|| {
        let place = Place::new();
        let (ending, first) = deaf(&place);
        // One that is not ending is no reason to wait.
        let (code, said) = place.refused(json!({"port": {"8080": 80}}));
        assert!(code == 409 && said.contains(&format!("taken by container {ending}")), "{code} {said}");
        place.terminate(ending);
        let next = place.created(json!({"port": {"8080": 80}}));
        assert!(!runs(first));
        place.terminate(next);
        // Also one of those that end by themselves, and that nobody shows as running. Its network takes its time: somebody
        // has its namespace open.
        let script = "while [ ! -e /tmp/go ]; do sleep 0.05; done";
        let ended = place.created(json!({"port": {"8080": 80}, "entrypoint": ["sh", "-c", script]}));
        let namespace = fs::File::open(format!("/proc/{}/ns/net", pid(&place, ended))).unwrap();
        place.begin(ended, "core.system", json!({"name": "touch", "args": ["/tmp/go"]}));
        until("it has ended", || {
            let found = place.node.call("corex.get", json!({"query": ended, "ended": true}));
            found["state"] == "SUCCESS" && data(&found)["state"] == "ended"
        });
        let next = place.created(json!({"port": {"8080": 80}}));
        drop(namespace);
        place.terminate(next);
        place.until_nothing_is_left();
    });
}

#[test]
fn an_orderly_stop_takes_those_apart_that_are_ending() {
    with_own_network(|| {
        let mut place = Place::new();
        let (ending, first) = deaf(&place);
        place.terminate(ending);
        let took = place.node.stop();
        assert!(!runs(first), "{took:?}\n{}", said(&place.node.dir));
        // All of it, at once: nobody comes after this manager.
        let dir = place.node.dir.display().to_string();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&dir), "{mounts}");
        for folder in ["containers", "flists", "bridges"] {
            assert_eq!(names(&place.node.dir.join(folder)), Vec::<String>::new(), "{folder}");
        }
        assert_eq!(names(&place.node.dir.join("networks")), ["salt"]);
        let script = "ip -o link | grep -v ' lo:'; nft list ruleset | grep elements";
        let output = std::process::Command::new("sh").args(["-c", script]).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "", "neither links nor elements");
        until("its daemon is gone", || place.node.processes().is_empty());
    });
}

#[test]
fn a_container_whose_entrypoint_nobody_knows_any_more_is_ended() {
    with_own_network(|| {
        let mut place = Place::new();
        let id = place.created(json!({}));
        let first = pid(&place, id);
        place.node.kill_manager();
        // As it is when a manager dies after its end, and before it has said so to the spawner.
        let path = record(&place, id);
        let mut record: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        record["wanted"]["entrypoint"] = json!(["sleep", "600"]);
        fs::write(&path, record.to_string()).unwrap();
        place.node.restart();
        until("it is gone", || !runs(first));
        place.until_nothing_is_left();
    });
}

#[test]
fn a_program_on_a_terminal_in_a_container_ends_with_the_manager_that_showed_it() {
    with_own_network(|| {
        let mut place = Place::new();
        let id = place.created(json!({}));
        let script = "trap '' HUP; echo ready > /ready; while :; do sleep 0.07312; done";
        let terminal = json!({"rows": 24, "cols": 80});
        let shown = place.begin(
            id,
            "core.system",
            json!({"name": "sh", "args": ["-c", script], "terminal": terminal}),
        );
        let left =
            place.begin(id, "core.system", json!({"name": "sh", "args": ["-c", "sleep 5; echo done"]}));
        until("it runs", || place.sh(id, "cat /ready 2>/dev/null") == "ready\n");
        let its = || processes().into_iter().filter(|(_, line)| line.contains("0.07312")).count();
        assert!(its() > 0);
        place.node.kill_manager();
        place.node.restart();
        let result = place.node.result(&shown);
        assert_eq!((&result["state"], &result["code"]), (&json!("ERROR"), &json!(503)), "{result}");
        until("it is gone", || its() == 0);
        // A job without a terminal goes on.
        let result = place.node.result(&left);
        assert_eq!(
            (&result["state"], &result["streams"][0]),
            (&json!("SUCCESS"), &json!("done\n")),
            "{result}"
        );
        place.terminate(id);
        place.until_nothing_is_left();
    });
}
