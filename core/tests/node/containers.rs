//! Containers on a node, from flists: made, commanded, kept over a restart, taken apart. They need root.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::container_steps::{link, tree};
use crate::harness::{runs, until, with_own_network};
use crate::place::{Place, data, names};

#[test]
fn a_container_is_made_commanded_listed_and_taken_apart() {
    with_own_network(|| {
        let place = Place::new();
        let shown = place.node.dir.join("shown");
        fs::create_dir(&shown).unwrap();
        fs::write(shown.join("file"), "shown").unwrap();
        // As g8core sends it: what is not asked for is null.
        let id = place.created(json!({
            "storage": format!("{},http://me:verysecret@127.0.0.1:9", place.storage),
            "name": "first", "tags": ["a", "b"], "env": {"MARK": "environment"}, "hostname": "inside",
            "config": {"/etc/app/conf": "configured"}, "mount": {shown.to_str().unwrap(): "/data"},
            "network": {"zerotier": null, "bridge": null}, "port": null, "host_network": false,
        }));

        // Commands inside, with their results where those of the node's are.
        assert_eq!(
            place.sh(id, "hostname; echo $MARK; cat /etc/app/conf /data/file; id -u"),
            "inside\nenvironment\nconfiguredshown0\n"
        );
        let result = place.run(id, "bash", json!({"script": "echo out; echo err >&2; exit 7"}));
        assert_eq!((&result["code"], &result["container"]), (&json!(1007), &json!(id)), "{result}");
        assert_eq!(result["streams"], json!(["out\n", "err\n"]));
        let result =
            place.run(id, "core.system", json!({"name": "cat", "stdin": "input", "env": {"A": "b"}}));
        assert_eq!(result["streams"][0], "input\n");
        assert!(data(&place.run(id, "core.ping", json!({}))).as_str().unwrap().starts_with("PONG"));
        let result = place.run(id, "core.system", json!({"name": "no-such-program"}));
        assert_eq!((&result["state"], &result["code"]), (&json!("ERROR"), &json!(404)), "{result}");
        let result = place.run(id, "disk.list", json!({}));
        assert_eq!(result["code"], 406, "{result}");

        // Its processes: its init, and what asks.
        let said = place.sh(id, "cat /proc/1/cmdline; echo; cat /proc/1/comm; ls -d /proc/[0-9]*; readlink /proc/1/exe || echo hidden");
        assert!(said.starts_with("container-init") && said.ends_with("hidden\n"), "{said}");
        assert!(!said.contains(place.node.dir.to_str().unwrap()), "{said}");

        let list = place.list();
        let listed = &list[id.to_string()]["container"];
        assert_eq!(
            (&listed["arguments"]["root"], &listed["arguments"]["name"]),
            (&json!(place.cid), &json!("first"))
        );
        assert_eq!(
            listed["arguments"]["storage"],
            format!("{},http://127.0.0.1:9", place.storage),
            "no password"
        );
        assert_eq!(listed["arguments"]["config"], json!(["/etc/app/conf"]), "contents may be secrets");
        let pid = listed["pid"].as_i64().unwrap() as i32;
        assert!(runs(pid) && list[id.to_string()]["rss"].as_u64().unwrap() > 0);
        for query in [json!(id), json!(id.to_string()), json!("first")] {
            assert_eq!(data(&place.node.call("corex.get", json!({"query": query})))["id"], id);
        }
        let found = |tags: Value| {
            data(&place.node.call("corex.find", json!({"tags": tags}))).as_object().unwrap().len()
        };
        assert_eq!((found(json!(["b"])), found(json!(["a", "c"])), found(json!([]))), (1, 0, 1));

        // A second one shares the image.
        let second = place.created(json!({}));
        assert_ne!(second, id);
        assert_eq!(names(&place.node.dir.join("flists")).len(), 1);
        assert_eq!(place.sh(second, "hostname; ls /data || true"), format!("core-{second}\n"));

        // Ending one ends what runs in it, and says so.
        let sleeping = place.begin(id, "core.system", json!({"name": "sleep", "args": ["600"]}));
        let inner = json!({
            "id": "recurring", "command": "core.system", "arguments": {"name": "true"}, "recurring_period": 0.05,
        });
        let recurring = data(&place.node.call("corex.dispatch", json!({"container": id, "command": inner})));
        let recurring = recurring.as_str().unwrap().to_owned();
        place.terminate(id);
        let result = place.node.result(&sleeping);
        assert_eq!(result["state"], "ERROR", "{result}");
        // Also what would run for ever.
        assert_eq!(place.node.result(&recurring)["container"], id);
        until("it is gone", || !runs(pid));
        assert_eq!(place.node.call("corex.terminate", json!({"container": id}))["code"], 404);
        let inner = json!({"command": "core.ping", "arguments": {}});
        assert_eq!(
            place.node.call("corex.dispatch", json!({"container": id, "command": inner}))["code"],
            404
        );
        assert_eq!(place.sh(second, "echo still here"), "still here\n");
        place.terminate(second);
        place.until_nothing_is_left();
        assert_eq!(fs::read_to_string(shown.join("file")).unwrap(), "shown");
    });
}

#[test]
fn an_entrypoint_is_what_a_container_lives_for() {
    with_own_network(|| {
        let place = Place::new();
        let script = "id -u; pwd; echo $HOME; while [ ! -e /tmp/go ]; do sleep 0.05; done; exit 3";
        let id = place.created(json!({"entrypoint": ["sh", "-c", script], "user": "web", "workdir": "/tmp"}));
        place.sh(id, "touch /tmp/go");
        until("it ends with its entrypoint", || place.list()[id.to_string()].is_null());
        // How it did is remembered, and what it said.
        let found = || data(&place.node.call("corex.get", json!({"query": id, "ended": true})));
        until("its last words are known", || found()["ended"]["last"].as_array().unwrap().len() == 3);
        let found = found();
        let (state, ended) = (&found["state"], &found["ended"]);
        assert_eq!(
            (state, &ended["code"], &ended["signal"]),
            (&json!("ended"), &json!(3), &Value::Null),
            "{found}"
        );
        assert_eq!(ended["last"][2], "/srv", "{found}");
        assert!(
            found["container"].is_null() && ended["time"].as_u64() >= ended["starttime"].as_u64(),
            "{found}"
        );
        // Whoever does not ask for that is told that there is none; and a number is no name.
        let code = |query: Value| place.node.call("corex.get", query)["code"].clone();
        assert_eq!(code(json!({"query": id})), 404);
        let other = place.created(json!({"name": "77", "nics": [], "entrypoint": ["true"]}));
        until("one whose name is a number has ended", || place.list()[other.to_string()].is_null());
        let named = data(&place.node.call("corex.get", json!({"query": "77", "ended": true})));
        assert_eq!(named["id"], other, "{named}");
        assert_eq!(code(json!({"query": 77, "ended": true})), 404);
        // By its name only as long as none of the name runs.
        let named = |script: &str| {
            place.created(json!({"name": "one", "entrypoint": ["sh", "-c", script], "nics": []}))
        };
        let crashed = named("echo out; kill -9 $$");
        let shown = || data(&place.node.call("corex.get", json!({"query": "one", "ended": true})));
        until("it has crashed", || shown()["state"] == "ended");
        assert_eq!((&shown()["id"], &shown()["ended"]["signal"]), (&json!(crashed), &json!(9)));
        let next = named("sleep 600");
        assert_eq!((&shown()["id"], &shown()["state"]), (&json!(next), &json!("running")));
        place.terminate(next);
        until("it was terminated", || shown()["id"] == next && shown()["state"] == "ended");
        assert_eq!(shown()["ended"]["signal"], 15);
        let log = || {
            let files = fs::read_dir(place.node.dir.join("log")).unwrap().flatten();
            files.filter_map(|file| fs::read_to_string(file.path()).ok()).collect::<String>()
        };
        let source = format!("container {id}");
        until("its output is in the log", || {
            let log = log();
            let lines = log.lines().filter(|line| line.contains(&source)).count();
            lines >= 3 && log.contains("/srv")
        });
        place.until_nothing_is_left();
    });
}

#[test]
fn what_cannot_be_made_is_told_and_leaves_nothing() {
    with_own_network(|| {
        let place = Place::new();
        let unknown = "bafyreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku";
        let missing = place.node.dir.join("missing");
        for (arguments, code, expected) in [
            (json!({"root": unknown}), 412, unknown),
            (json!({"root": "no flist"}), 400, "no flist"),
            (json!({"root": ""}), 400, "root is empty"),
            (json!({"storage": "nfs:/x"}), 400, "nfs"),
            (json!({"mount": {missing.to_str().unwrap(): "/data"}}), 412, "missing"),
            (json!({"mount": {"/dev/null": "/data"}}), 412, "cannot show /dev/null inside"),
            (json!({"mount": {"/tmp": "relative"}}), 400, "no place in a container"),
            (json!({"mount": {unknown: "/data"}}), 412, unknown),
            (json!({"config": {"/etc/../x": ""}}), 400, "no place in a container"),
            (json!({"config": {"/etc/plain/x": ""}}), 412, "write a file of the container"),
            (json!({"mount": {"/tmp": "/etc/plain/x"}}), 412, "mount a volume"),
            (json!({"entrypoint": ["no-such-program"]}), 404, "no-such-program"),
            (json!({"entrypoint": ["/etc/plain"]}), 412, "/etc/plain"),
            (json!({"entrypoint": ["true"], "workdir": "/etc/plain"}), 412, "/etc/plain"),
            (json!({"workdir": "/etc/plain/x"}), 412, "create the working directory"),
            (json!({"workdir": "relative"}), 400, "must be absolute"),
            (json!({"entrypoint": ["true"], "user": "nobody-knows"}), 400, "nobody-knows"),
            (json!({"hostname": "x".repeat(65)}), 400, "host name"),
            (json!({"upper_size": 0}), 400, "bytes"),
            (json!({"limits": {"cpu": -1}}), 400, "processors"),
            (json!({"limits": {"processes": (4 << 20) + 1}}), 400, "no kernel has more"),
            (json!({"limits": {"memory": 0}}), 400, "limit of 0"),
        ] {
            let (found, said) = place.refused(arguments.clone());
            assert!(found == code && said.contains(expected), "{arguments}: {found} {said}");
            assert_eq!(names(&place.node.dir.join("containers")), Vec::<String>::new(), "{arguments}");
        }
        let inner = json!({"arguments": {}});
        let id = place.created(json!({}));
        assert_eq!(
            place.node.call("corex.dispatch", json!({"container": id, "command": inner}))["code"],
            400
        );
        place.terminate(id);
        place.until_nothing_is_left();
    });
}

#[test]
fn containers_and_their_jobs_live_on_when_the_manager_is_killed() {
    with_own_network(|| {
        let mut place = Place::new();
        let id = place.created(json!({"name": "kept", "entrypoint": ["sleep", "600"]}));
        let idle = place.created(json!({}));
        let pid = place.list()[id.to_string()]["container"]["pid"].as_i64().unwrap() as i32;
        let script = "echo before; while [ ! -e /tmp/go ]; do sleep 0.05; done; echo after; exit 4";
        let job = place.begin(id, "core.system", json!({"name": "sh", "args": ["-c", script]}));
        until("the job runs", || place.sh(id, "ps").contains("sleep 0.05"));
        place.node.kill_manager();
        place.node.restart();
        assert!(runs(pid));
        assert_eq!(place.list()[id.to_string()]["container"]["arguments"]["name"], "kept");
        place.sh(id, "touch /tmp/go");
        let result = place.node.result(&job);
        assert_eq!((&result["code"], &result["container"]), (&json!(1004), &json!(id)), "{result}");
        assert!(result["streams"][0].as_str().unwrap().ends_with("after\n"), "{result}");
        assert_eq!(place.sh(idle, "echo here"), "here\n");
        // Both are still one image's, and go as others do.
        place.terminate(idle);
        assert_eq!(place.sh(id, "echo here"), "here\n");
        // A container whose first process is killed is gone, too; here by a signal from inside.
        place.begin(id, "core.system", json!({"name": "sh", "args": ["-c", "kill 1"]}));
        until("it is gone", || place.list().as_object().unwrap().is_empty());
        place.until_nothing_is_left();

        // One that is left to the end of the node ends with it.
        let last = place.created(json!({}));
        let pid = place.list()[last.to_string()]["container"]["pid"].as_i64().unwrap() as i32;
        place.node.stop();
        assert!(!runs(pid));
        place.until_nothing_is_left();
    });
}

/// How many containers come and go before anything is measured.
const WARM: usize = 10;
/// What each that came and went may leave in the spawner and in the manager, in KiB.
const EACH_KIB: [u64; 2] = [4, 32];

/// The namespaces in which the node's processes live, or that they hold open.
fn spaces(place: &Place) -> BTreeSet<String> {
    let roots = [place.node.pid_of("spawner"), place.node.manager.id() as i32];
    let mut spaces = BTreeSet::new();
    for pid in roots.into_iter().flat_map(tree) {
        for kind in ["ns", "fd"] {
            let folder = format!("/proc/{pid}/{kind}");
            let links = names(Path::new(&folder)).into_iter().map(|name| link(&format!("{folder}/{name}")));
            // As `net:[4026531840]`.
            spaces.extend(links.filter(|target| target.contains(":[40")));
        }
    }
    spaces
}

#[test]
fn a_hundred_containers_of_one_flist_share_its_mount_and_cost_little_beyond_their_processes() {
    with_own_network(|| {
        let place = Place::new();
        // Whoever is asked for the first one starts, and stays.
        let first = place.created(json!({"nics": []}));
        let daemon = data(&place.node.call("flist.list", json!({})))[0]["pid"].as_i64().unwrap() as i32;
        let pids = [place.node.pid_of("spawner"), place.node.manager.id() as i32, daemon];
        let before = pids.map(memory_kib).iter().sum::<u64>();
        let all: Vec<u64> = (0..100).map(|_| place.created(json!({"nics": []}))).collect();
        let grown = pids.map(memory_kib).iter().sum::<u64>().saturating_sub(before);
        eprintln!("100 containers: the spawner, the manager and the daemon grew by {grown} KiB");
        // A tenth of a megabyte each; a whole one is promised.
        assert!(grown < 10 << 10, "{grown} KiB");
        let mounts = data(&place.node.call("flist.list", json!({})));
        assert_eq!(mounts.as_array().unwrap().len(), 1, "{mounts}");
        assert_eq!(names(&place.node.dir.join("flists")).len(), 1);
        assert_eq!(place.sh(all[99], "echo here"), "here\n");
        for id in all.into_iter().chain([first]) {
            place.terminate(id);
        }
        place.until_nothing_is_left();
    });
}

/// The memory of a process that is its own.
fn memory_kib(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
}

#[test]
fn many_containers_come_and_go_and_leave_the_machine_as_it_was() {
    with_own_network(|| {
        let place = Place::new();
        let count = std::env::var("CONTAINERS").ok().and_then(|count| count.parse().ok()).unwrap_or(20);
        let manager = place.node.manager.id() as i32;
        // Those of the node: others come and go beside it.
        let dir = place.node.dir.display().to_string();
        let mounts = || {
            let table = fs::read_to_string(format!("/proc/{manager}/mountinfo")).unwrap();
            table.lines().filter(|line| line.contains(&dir)).count()
        };
        let mounts_before = mounts();
        let round = |number: usize| {
            let id = place.created(json!({"port": {"8080|udp": 53}}));
            assert_eq!(place.sh(id, "echo $((1 + 1))"), "2\n", "{number}");
            place.terminate(id);
            until("its port is free", || names(&place.node.dir.join("networks")).len() <= 1);
        };
        // What stays once, as the caches of redis and what the allocator keeps of every thread, is there after the first ones.
        (0..WARM).for_each(round);
        let spawner = place.node.pid_of("spawner");
        let pids = [spawner, manager];
        let files = |pid: i32| names(Path::new(&format!("/proc/{pid}/fd"))).len();
        // Links, which hold their networks, and elements of the firewall.
        let network = || {
            let script = "ip -o link | wc -l; nft list table inet core0 | grep -c elements";
            let output = std::process::Command::new("sh").args(["-c", script]).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        until("its network is gone", || names(&place.node.dir.join("networks")) == ["salt"]);
        until("their records are gone", || names(&place.node.dir.join("containers")).is_empty());
        let before = (pids.map(files), pids.map(memory_kib));
        let spaces_before = spaces(&place);
        let network_before = network();
        (0..count).for_each(round);
        until("the records are gone", || names(&place.node.dir.join("containers")).is_empty());
        until("no descriptor is left", || {
            let now = pids.map(files);
            now[0] <= before.0[0] && now[1] <= before.0[1] + 4
        });
        // So much of the allocator's whims, whatever the number of containers, and so little for each of them.
        let after = pids.map(memory_kib);
        let grown = [after[0].saturating_sub(before.1[0]), after[1].saturating_sub(before.1[1])];
        eprintln!("{count} containers: the spawner and the manager grew by {grown:?} KiB");
        let bounds = [256 + EACH_KIB[0] * count as u64, 1024 + EACH_KIB[1] * count as u64];
        assert!(
            grown[0] < bounds[0] && grown[1] < bounds[1],
            "the spawner and the manager grew by {grown:?} KiB"
        );
        until("no namespace is left", || spaces(&place) == spaces_before);
        until("no link and no element is left", || network() == network_before);
        until("no mount is left", || {
            names(&place.node.dir.join("flists")).is_empty() && mounts() == mounts_before
        });
    });
}
