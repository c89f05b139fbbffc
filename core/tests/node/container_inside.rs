//! Commands inside of containers: what they see is what the container sees, and nothing leads out.

use std::fs;
use std::os::unix::fs::MetadataExt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::harness::{until, with_own_network};
use crate::place::{Place, data, names};

/// A place with one container.
struct Inside {
    place: Place,
    id: u64,
}

impl Inside {
    fn new(more: Value) -> Self {
        let place = Place::new();
        let id = place.created(more);
        Self { place, id }
    }

    /// What a command answers inside.
    fn ask(&self, command: &str, arguments: Value) -> Value {
        let result = self.place.run(self.id, command, arguments);
        assert_eq!(result["container"], self.id, "{result}");
        data(&result)
    }

    /// The code of a refusal inside, and what it says.
    fn refused(&self, command: &str, arguments: Value) -> (u64, String) {
        let result = self.place.run(self.id, command, arguments);
        assert_eq!(result["state"], "ERROR", "{result}");
        (result["code"].as_u64().unwrap(), result["data"].as_str().unwrap().to_owned())
    }

    fn sh(&self, script: &str) -> String {
        self.place.sh(self.id, script)
    }

    fn open(&self, file: &str, mode: &str) -> String {
        self.ask("filesystem.open", json!({"file": file, "mode": mode})).as_str().unwrap().to_owned()
    }

    fn read(&self, fd: &str) -> Vec<u8> {
        STANDARD.decode(self.ask("filesystem.read", json!({"fd": fd})).as_str().unwrap()).unwrap()
    }

    fn write(&self, fd: &str, bytes: &[u8]) {
        self.ask("filesystem.write", json!({"fd": fd, "block": STANDARD.encode(bytes)}));
    }

    fn end(self) {
        self.place.terminate(self.id);
        self.place.until_nothing_is_left();
    }
}

#[test]
fn a_container_says_what_it_is_itself() {
    with_own_network(|| {
        let inside = Inside::new(json!({"hostname": "inside", "port": {"8080": 80}}));
        let server = inside.place.begin(
            inside.id,
            "core.system",
            json!({"name": "httpd", "args": ["-f", "-p", "80", "-h", "/etc"]}),
        );
        until("it serves", || inside.sh("cat /proc/net/tcp6 /proc/net/tcp").contains(":0050 "));

        let os = inside.ask("info.os", json!({}));
        assert_eq!((&os["hostname"], &os["os"]), (&json!("inside"), &json!("linux")));
        // Its own processes and no others: container-init, the server, and what asks.
        let all = inside.ask("process.list", json!({"pid": 0}));
        let lines: Vec<&str> =
            all.as_array().unwrap().iter().map(|p| p["cmdline"].as_str().unwrap()).collect();
        let (own, others): (Vec<&str>, Vec<&str>) =
            lines.iter().partition(|line| line.contains("container-init"));
        assert_eq!(others, ["httpd -f -p 80 -h /etc"]);
        // One that asked before may not be reaped yet.
        assert!((2..5).contains(&own.len()) && lines[0].starts_with("container-init"), "{lines:?}");
        assert!((3..6).contains(&os["procs"].as_u64().unwrap()), "{os}");
        let pids: Vec<u64> = all.as_array().unwrap().iter().map(|p| p["pid"].as_u64().unwrap()).collect();
        assert_eq!(pids[0], 1);
        assert!(inside.sh("ls -d /proc/[0-9]*").contains(&format!("/proc/{}\n", pids[1])));
        let one = inside.ask("process.list", json!({"pid": pids[1]}));
        assert_eq!(one[0]["name"], "httpd");

        let nics = inside.ask("info.nic", json!({}));
        let nics: Vec<&str> =
            nics.as_array().unwrap().iter().map(|nic| nic["name"].as_str().unwrap()).collect();
        assert_eq!(nics, ["lo", "eth0"]);
        let ports = inside.ask("info.port", json!({}));
        let open: Vec<&Value> = ports.as_array().unwrap().iter().filter(|port| port["port"] == 80).collect();
        assert!(open.len() == 1 && open[0]["pid"] == pids[1], "{ports}");
        // Those of the node, which it runs on.
        let count = |cpus: Value| cpus.as_array().unwrap().len();
        let node = &inside.place.node;
        assert_eq!(count(inside.ask("info.cpu", json!({}))), count(data(&node.call("info.cpu", json!({})))));
        assert!(inside.ask("info.mem", json!({}))["total"].as_u64().unwrap() > 0);
        assert!(inside.ask("info.disk", json!({})).is_array());
        assert_eq!(inside.ask("info.version", json!({})), data(&node.call("info.version", json!({}))));

        // Jobs in it are its own, those of others are not there; a process of it ends by its number.
        let other =
            node.push(json!({"command": "core.system", "arguments": {"name": "sleep", "args": ["600"]}}));
        until("both jobs are there", || {
            data(&node.call("job.list", json!({}))).as_array().unwrap().len() >= 3
        });
        let jobs = inside.ask("process.list", json!({}));
        let ids: Vec<&str> = jobs.as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap()).collect();
        assert!(ids.contains(&server.as_str()) && !ids.contains(&other.as_str()), "{ids:?}");
        assert_eq!(inside.refused("process.kill", json!({"id": other})).0, 404);
        assert_eq!(inside.refused("process.list", json!({"id": other})).0, 404);
        assert_eq!(inside.refused("process.kill", json!({"pid": 1})).0, 400);
        let own = i64::from(inside.place.node.manager.id());
        assert_eq!(
            inside.refused("process.kill", json!({"pid": own.max(100_000)})).0,
            404,
            "no pid of the node's"
        );
        assert_eq!(inside.ask("process.kill", json!({"pid": pids[1], "signal": 9})), true);
        assert_eq!(inside.place.node.result(&server)["state"], "ERROR");
        let waits = inside.place.begin(inside.id, "core.system", json!({"name": "sleep", "args": ["600"]}));
        assert_eq!(inside.ask("process.kill", json!({"id": waits})), true);
        assert_eq!(inside.place.node.result(&waits)["state"], "KILLED");
        node.call("job.kill", json!({"id": other, "signal": 9}));
        assert_eq!(inside.refused("disk.list", json!({})).0, 406);
        inside.end();
    });
}

#[test]
fn files_of_a_container_are_opened_read_written_and_changed_in_there() {
    with_own_network(|| {
        let inside = Inside::new(json!({"nics": []}));
        let content: Vec<u8> = (0..700_000_u32).map(|i| (i % 251) as u8).collect();
        let fd = inside.open("/tmp/new", "wx");
        for part in content.chunks(500_000) {
            inside.write(&fd, part);
        }
        inside.ask("filesystem.close", json!({"fd": fd}));
        assert_eq!(inside.refused("filesystem.read", json!({"fd": fd})).0, 404);
        assert_eq!(inside.sh("stat -c '%s %u %a' /tmp/new"), "700000 0 644\n");
        let fd = inside.open("/tmp/new", "r");
        assert_eq!(inside.read(&fd), content[..512 * 1024]);
        assert_eq!(inside.read(&fd), content[512 * 1024..]);
        assert_eq!(inside.read(&fd), b"");
        // Another container, and the node, do not know the name.
        let other = inside.place.created(json!({"nics": []}));
        let elsewhere = inside.place.run(other, "filesystem.read", json!({"fd": fd}));
        assert_eq!(elsewhere["code"], 404, "{elsewhere}");
        assert_eq!(inside.place.node.call("filesystem.read", json!({"fd": fd}))["code"], 404);
        inside.place.terminate(other);

        assert_eq!(inside.ask("filesystem.exists", json!({"path": "/etc/plain"})), true);
        assert_eq!(inside.ask("filesystem.exists", json!({"path": inside.place.node.dir})), false);
        inside.ask("filesystem.mkdir", json!({"path": "/tmp/a/b"}));
        inside.ask("filesystem.move", json!({"path": "/tmp/new", "destination": "/tmp/a/moved"}));
        inside.ask("filesystem.chmod", json!({"path": "/tmp/a", "mode": 0o750, "recursive": true}));
        // By its names, and they are those of the container.
        inside.ask(
            "filesystem.chown",
            json!({"path": "/tmp/a", "user": "web", "group": "33", "recursive": true}),
        );
        assert_eq!(inside.sh("stat -c '%a %u %g' /tmp/a /tmp/a/b /tmp/a/moved"), "750 33 33\n".repeat(3));
        let list = inside.ask("filesystem.list", json!({"path": "/tmp/a"}));
        let entries: Vec<_> = list.as_array().unwrap().iter().map(|e| (&e["name"], &e["size"])).collect();
        assert_eq!((entries[0].0, entries[1]), (&json!("b"), (&json!("moved"), &json!(700_000))));
        inside.ask("filesystem.remove", json!({"path": "/tmp/a"}));
        assert_eq!(inside.sh("ls /tmp"), "");
        assert_eq!(inside.refused("filesystem.open", json!({"file": "/no/such", "mode": "r"})).0, 404);
        assert_eq!(inside.refused("filesystem.remove", json!({"path": "/proc"})).0, 412);
        assert_eq!(
            inside
                .refused("filesystem.chown", json!({"path": "/tmp", "user": "nobody-knows", "group": "0"}))
                .0,
            400
        );

        // As many are held open as one container may, and none is left after its end.
        let manager = inside.place.node.manager.id();
        let held = || names(format!("/proc/{manager}/fd").as_ref()).len();
        let before = held();
        let mut open = 1;
        let full = loop {
            let result = inside.place.run(inside.id, "filesystem.open", json!({"file": "/etc/plain"}));
            if result["state"] != "SUCCESS" {
                break result;
            }
            open += 1;
            assert!(open <= 64, "there is no end of open files");
        };
        assert_eq!((&full["code"], open), (&json!(503), 64), "{full}");
        assert!(held() >= before + 60);
        inside.place.terminate(inside.id);
        until("the files are closed", || held() <= before + 4);
        inside.place.until_nothing_is_left();
    });
}

#[test]
fn nothing_in_a_container_leads_out_of_it_or_holds_the_node_up() {
    with_own_network(|| {
        let inside = Inside::new(json!({"nics": [], "upper_size": 16 << 20}));
        let dir = inside.place.node.dir.clone();
        fs::write(dir.join("secret"), "of the node").unwrap();
        let secret = dir.join("secret");
        let path = secret.to_str().unwrap();
        // Links and dots end at its own root, whoever's root they name.
        inside.sh(&format!(
            "cd /tmp; ln -s {path} absolute; ln -s ../../../../../..{path} dots; ln -s /proc/1/root{path} first; \
             ln -s /proc/self/root{path} own; ln -s /proc/1/cwd{path} cwd; ln -s loop loop; ln -s / top"
        ));
        for file in ["absolute", "dots", "first", "own", "cwd", "loop"] {
            let (code, said) = inside.refused("filesystem.open", json!({"file": format!("/tmp/{file}")}));
            assert!([404, 412, 500].contains(&code), "{file}: {code} {said}");
        }
        for file in [path.to_owned(), format!("/tmp/../../../..{path}"), format!("/tmp/top/../..{path}")] {
            assert_eq!(inside.ask("filesystem.exists", json!({"path": file})), false, "{file}");
        }
        inside.ask("filesystem.mkdir", json!({"path": "/tmp/top/made"}));
        assert_eq!(inside.sh("ls -d /made"), "/made\n");
        // The memory and the program of its first process, and of what carries the command out, are the node's.
        for file in ["/proc/1/mem", "/proc/1/exe", "/proc/1/fd/0", "/proc/kcore"] {
            let (code, said) = inside.refused("filesystem.open", json!({"file": file, "mode": "r+"}));
            assert!([400, 404, 412, 500].contains(&code), "{file}: {code} {said}");
        }
        let (code, said) = inside.refused("filesystem.open", json!({"file": "/proc/self/exe", "mode": "r+"}));
        assert!([412, 500].contains(&code), "{code} {said}");
        for (file, mode) in [("/proc/sys/kernel/core_pattern", "w"), ("/proc/sys/vm/drop_caches", "w")] {
            assert_eq!(
                inside.refused("filesystem.open", json!({"file": file, "mode": mode})).0,
                412,
                "{file}"
            );
        }
        // Folders of the node do not change with those inside.
        let before = fs::metadata(&dir).unwrap();
        inside.ask("filesystem.chmod", json!({"path": "/tmp", "mode": 0o700, "recursive": true}));
        inside
            .ask("filesystem.chown", json!({"path": "/tmp", "user": "33", "group": "33", "recursive": true}));
        let after = fs::metadata(&dir).unwrap();
        assert_eq!((before.mode(), before.uid()), (after.mode(), after.uid()));
        assert_eq!(fs::metadata(&secret).unwrap().uid(), 0);

        // What waits, what has no end, what is too large.
        inside.sh("mkfifo /tmp/fifo");
        let (code, said) = inside.refused("filesystem.open", json!({"file": "/tmp/fifo"}));
        assert!(code == 400 && said.contains("a FIFO"), "{code} {said}");
        let endless = inside.open("/dev/zero", "r");
        assert_eq!(inside.read(&endless), vec![0; 512 * 1024]);
        inside.sh("truncate -s 107374182400 /tmp/huge");
        let huge = inside.open("/tmp/huge", "r+");
        assert_eq!(inside.read(&huge).len(), 512 * 1024);
        let full = inside.open("/tmp/full", "w");
        let block = STANDARD.encode(vec![7; 1 << 20]);
        let refused = (0..32).find_map(|_| {
            let result = inside.place.run(inside.id, "filesystem.write", json!({"fd": full, "block": block}));
            (result["state"] == "ERROR").then_some(result)
        });
        let said = refused.expect("16 MiB are full")["data"].as_str().unwrap().to_owned();
        assert!(said.contains("No space left"), "{said}");
        inside.ask("filesystem.remove", json!({"path": "/tmp/full"}));
        // More than an answer has is an error of that command.
        inside.sh("mkdir /tmp/many; cd /tmp/many; i=0; while [ $i -lt 4000 ]; do : > $(printf '%0250d' $i); i=$((i+1)); done");
        let (code, said) = inside.refused("filesystem.list", json!({"path": "/tmp/many"}));
        assert!(code == 500 && said.contains("too large"), "{code} {said}");

        // What was killed while it was under way leaves no process.
        let mut slow = inside.place.begin(
            inside.id,
            "filesystem.chmod",
            json!({"path": "/", "mode": 0o755, "recursive": true}),
        );
        inside.place.node.call("job.kill", json!({"id": slow, "signal": 9}));
        slow = inside.place.node.result(&slow)["state"].as_str().unwrap().to_owned();
        assert!(["KILLED", "ERROR", "SUCCESS"].contains(&slow.as_str()), "{slow}");
        until("no errand is left", || inside.ask("info.os", json!({}))["procs"] == 2);
        inside.end();
    });
}

#[test]
fn a_dispatched_command_is_known_when_the_dispatch_is_answered() {
    with_own_network(|| {
        let inside = Inside::new(json!({"nics": []}));
        for _ in 0..20 {
            let job = inside.place.begin(inside.id, "core.system", json!({"name": "sleep", "args": ["600"]}));
            let found = inside.place.node.call("job.list", json!({"id": job}));
            assert_eq!(data(&found)[0]["cmd"]["command"], "core.system");
            inside.place.node.call("job.kill", json!({"id": job, "signal": 9}));
            assert_eq!(inside.place.node.result(&job)["state"], "KILLED");
        }
        inside.end();
    });
}
