//! What containers see when the daemon that serves their image dies: nothing, where another one goes on with it.

use std::process::Command;

use serde_json::{Value, json};

use crate::gateway::Gateway;
use crate::harness::{Node, runs, said, signal, until, with_own_network};
use crate::place::{Place, data};

/// The only mount of a node.
fn mount(place: &Place) -> Value {
    let mounts = data(&place.node.call("flist.list", json!({})));
    assert_eq!(mounts.as_array().map(Vec::len), Some(1), "{mounts}");
    mounts[0].clone()
}

fn daemon(place: &Place) -> i32 {
    mount(place)["pid"].as_i64().unwrap() as i32
}

fn kill_daemon(place: &Place) -> i32 {
    let daemon = daemon(place);
    signal(daemon, libc::SIGKILL);
    until("the daemon is gone", || !runs(daemon));
    daemon
}

fn image(place: &Place, container: u64) -> Value {
    data(&place.node.call("corex.get", json!({"query": container})))["container"]["image"].clone()
}

const SUM: &str = "busybox md5sum /large";

/// What it is where nobody mounts anything.
fn sum(place: &Place) -> String {
    let output = Command::new("md5sum").arg(place.tree().join("large")).output().unwrap();
    String::from_utf8(output.stdout).unwrap()[..32].to_owned()
}

fn a_killed_daemon_is_nothing(mode: &str) {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::on(Node::start_with(folder.path(), &[("G8_MODE", mode), ("G8_DEADLINE", "120")]));
    let cid = place.pack_large_file();
    let gateway = Gateway::of(&place);
    let create = || place.created(json!({"root": cid, "storage": gateway.url(), "nics": []}));
    let [idle, reading] = [create(), create()];
    for container in [idle, reading] {
        assert_eq!(place.sh(container, "echo ready > /tmp/file; cat /tmp/file"), "ready\n");
    }
    assert_eq!(mount(&place)["mode"], mode);

    // With requests that the daemon has taken, and cannot answer.
    gateway.signal(libc::SIGSTOP);
    let asked = || mount(&place)["requests"].as_u64().unwrap();
    let before = asked();
    let sums = [SUM, "cat /large | busybox md5sum"]
        .map(|script| place.begin(reading, "core.system", json!({"name": "sh", "args": ["-c", script]})));
    until("reads wait", || asked() > before);
    let killed = kill_daemon(&place);
    gateway.signal(libc::SIGCONT);
    let expected = sum(&place);
    for id in sums {
        let result = place.node.result(&id);
        assert_eq!(result["state"], "SUCCESS", "{result}\n{}", said(&place.node.dir));
        assert_eq!(result["streams"][0].as_str().unwrap()[..32], expected, "{result}");
    }
    // Another one goes on with the same mount: for those that have it, and those that come.
    let heir = daemon(&place);
    assert_ne!(heir, killed);
    assert!(place.sh(idle, SUM).starts_with(&expected));
    let new = create();
    assert!(place.sh(new, SUM).starts_with(&expected));
    assert_eq!(
        (daemon(&place), image(&place, idle), image(&place, new)),
        (heir, json!("served"), json!("served"))
    );

    // The next manager keeps it, too: nothing was read of a container that is made now.
    let mut place = place;
    place.node.kill_manager();
    place.node.restart();
    let killed = kill_daemon(&place);
    until("another one goes on", || {
        !place.node.call("flist.list", json!({}))["data"].as_str().unwrap().contains(&killed.to_string())
    });
    for container in [idle, new] {
        assert!(place.sh(container, "busybox md5sum /bin/busybox /large").contains(&expected));
        assert_eq!(image(&place, container), "served");
    }
    for container in [idle, reading, new] {
        place.terminate(container);
    }
    place.until_nothing_is_left();
}

#[test]
fn a_killed_daemon_is_nothing_to_containers_in_mode_kernel() {
    with_own_network(|| a_killed_daemon_is_nothing("kernel"));
}

#[test]
fn a_killed_daemon_is_nothing_to_containers_in_mode_fuse() {
    with_own_network(|| a_killed_daemon_is_nothing("fuse"));
}

/// Containers, of which the first has an image that is lost: what it has not read is an error, at once.
fn is_lost(place: &Place, old: u64, new: u64) {
    until("it is told", || image(place, old) == "lost");
    let result = place.run(old, "core.system", json!({"name": "cat", "args": ["/large"]}));
    assert_eq!(result["state"], "ERROR", "{result}");
    // Commands, and what it has written or read, stay.
    assert_eq!(place.sh(old, "cat /tmp/file"), "written\n");
    assert_eq!(image(place, new), "served");
    assert!(place.sh(new, SUM).starts_with(&sum(place)));
}

#[test]
fn an_image_that_nobody_kept_is_lost_to_its_containers_also_for_the_managers_that_come() {
    with_own_network(|| {
        let mut place = Place::new();
        let cid = place.pack_large_file();
        let create = |place: &Place| place.created(json!({"root": cid, "nics": []}));
        let old = create(&place);
        assert_eq!(place.sh(old, "echo written > /tmp/file; cat /tmp/file"), "written\n");
        // Whoever keeps it dies first.
        let killed = daemon(&place);
        place.node.kill_manager();
        signal(killed, libc::SIGKILL);
        until("the daemon is gone", || !runs(killed));
        place.node.restart();
        let new = create(&place);
        is_lost(&place, old, new);
        place.node.kill_manager();
        place.node.restart();
        is_lost(&place, old, new);
        for container in [old, new] {
            place.terminate(container);
        }
        place.until_nothing_is_left();
    });
}

#[test]
fn a_daemon_that_does_not_answer_the_next_manager_in_time_is_heard_later() {
    with_own_network(|| {
        let folder = tempfile::tempdir().unwrap();
        let mut place = Place::on(Node::start_with(folder.path(), &[("G8_DEADLINE", "120")]));
        let cid = place.pack_large_file();
        let gateway = Gateway::of(&place);
        let create = || place.created(json!({"root": cid, "storage": gateway.url(), "nics": []}));
        let containers = [create(), create()];
        let slow = daemon(&place);
        place.node.kill_manager();
        signal(slow, libc::SIGSTOP);
        place.node.restart();
        until("it is told", || said(&place.node.dir).contains("does not answer: it is asked on"));
        signal(slow, libc::SIGCONT);
        until("it is heard", || said(&place.node.dir).contains("has answered"));
        // It is looked after from then on, as before.
        assert_eq!(kill_daemon(&place), slow);
        let expected = sum(&place);
        for container in containers {
            assert!(place.sh(container, SUM).starts_with(&expected));
            assert_eq!(image(&place, container), "served");
        }
        // And what is lost is told of to those that it was not known of.
        for _ in 0..2 {
            until("another one goes on", || data(&place.node.call("flist.list", json!({}))) != json!([]));
            kill_daemon(&place);
        }
        for container in containers {
            until("it is told", || image(&place, container) == "lost");
            place.terminate(container);
        }
        place.until_nothing_is_left();
    });
}

#[test]
fn daemons_that_die_again_and_again_are_not_started_for_ever() {
    with_own_network(|| {
        let place = Place::new();
        let cid = place.pack_large_file();
        let create = || place.created(json!({"root": cid, "nics": []}));
        let old = create();
        assert_eq!(place.sh(old, "echo written > /tmp/file; cat /tmp/file"), "written\n");
        for _ in 0..2 {
            kill_daemon(&place);
            until("another one goes on", || data(&place.node.call("flist.list", json!({}))) != json!([]));
            assert_eq!(image(&place, old), "served");
        }
        kill_daemon(&place);
        until("it is told", || image(&place, old) == "lost");
        let new = create();
        is_lost(&place, old, new);
        assert!(said(&place.node.dir).contains("3 daemons died within"), "{}", said(&place.node.dir));
        for container in [old, new] {
            place.terminate(container);
        }
        place.until_nothing_is_left();
    });
}
