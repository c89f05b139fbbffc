//! What is left of a container when a step of its making fails, or when the manager is killed there: nothing.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::container_arguments::controllers;
use crate::harness::{Node, new_id, runs, until, with_own_network};
use crate::image::{pack_busybox, pack_with};
use crate::place::{Place, data, names};

/// The steps of making the container of these tests, as they follow each other: each one fails here, and the manager is
/// killed at each one.
const STEPS: &[&str] = &[
    "write its record",
    "mount an image",
    "look at what it shows",
    "mount an image",
    "find its user",
    "make its upper layer",
    "reserve its network",
    "find the bridges of its network",
    "write its network down",
    "gather its files",
    "have it built",
    "make a socket into the container",
    "clone its first process",
    "open its network namespace",
    "take its ends",
    "attach its network",
    "hold its ports",
    "make a NIC",
    "enter its network namespace",
    "raise a NIC",
    "give it a way out",
    "lead its own ports back to it",
    "let others in",
    "let it go on",
    "speak to its first process",
    "start its entrypoint",
    "write that it is whole",
    "show it",
];

/// A place with a container that has nothing to do with those that fail, and keeps what all of them share.
struct Broken {
    place: Place,
    fault: PathBuf,
    witness: u64,
    /// An flist that only those have which fail.
    shown: String,
    folder: tempfile::TempDir,
}

impl Broken {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let fault = folder.path().join("fault");
        let dir = folder.path().join("node");
        fs::create_dir(&dir).unwrap();
        let node = Node::start_with(&dir, &[("CORE0_FAULT", fault.to_str().unwrap())]);
        let (cid, store) = pack_busybox(&dir);
        let tree = folder.path().join("shown");
        fs::create_dir(&tree).unwrap();
        fs::write(tree.join("file"), "of another flist").unwrap();
        let shown = pack_with(&tree, &store, &g8_fs::pack::PackOptions::default());
        let place = Place { node, cid, storage: format!("dir:{}", store.display()) };
        let witness = place.created(json!({"name": "witness", "port": {"8081": 81}}));
        Self { place, fault, witness, shown, folder }
    }

    /// With something of everything: every step has something to do.
    fn arguments(&self) -> Value {
        // A cgroup, where the kernel has what it takes.
        let limits = match controllers().split_whitespace().any(|has| has == "pids") {
            true => json!({"processes": 200}),
            false => Value::Null,
        };
        json!({
            "root": self.place.cid, "storage": self.place.storage, "name": "again",
            "mount": {(self.folder.path().to_str().unwrap()): "/host", (&self.shown): "/shown"},
            "config": {"/etc/app": "text"}, "upper": "disk",
            "entrypoint": ["sleep", "600"], "user": "web", "port": {"8080": 80}, "limits": limits,
        })
    }

    /// The step at which it happened; none when there was no such step.
    fn hit(&self) -> Option<String> {
        let said = fs::read_to_string(&self.fault).unwrap();
        fs::remove_file(&self.fault).unwrap();
        said.strip_prefix("at ").map(str::to_owned)
    }

    /// All that a container consists of, on the whole node.
    fn traces(&self) -> BTreeSet<String> {
        let dir = &self.place.node.dir;
        let mut traces = BTreeSet::new();
        let script = "ip -o link | sed 's/^[0-9]*: \\([^:@]*\\).*/link \\1/'
            ip -o addr | awk '{print \"address\", $2, $4}'
            ss -Htuln4 | awk '{print \"socket\", $1, $5}'
            nft list table inet core0
            for f in /proc/sys/net/ipv4/conf/*/route_localnet; do echo $f $(cat $f); done
            find /sys/fs/cgroup -path '*g8os/*' -name \"container-$0-*\"";
        let manager = self.place.node.manager.id().to_string();
        let output = Command::new("sh").args(["-c", script, &manager]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        traces.extend(text.lines().map(|line| line.trim().to_owned()));
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mounts = mounts.lines().filter(|line| line.contains(dir.to_str().unwrap()));
        traces.extend(mounts.map(|line| format!("mount {:?}", line.split(' ').nth(4))));
        for folder in ["containers", "networks", "bridges", "flists", "layers"] {
            traces.extend(names(&dir.join(folder)).into_iter().map(|name| format!("{folder}/{name}")));
        }
        // Its image stays for a moment, as others may ask for it.
        traces.retain(|trace| !trace.contains(&self.shown));
        // Processes, with the namespaces that they live in, and what the spawner holds open: sockets, namespaces, ranges of ids.
        let spawner = self.place.node.pid_of("spawner");
        for pid in tree(spawner) {
            let spaces = ["net", "mnt", "pid", "user", "ipc", "uts", "cgroup"];
            let spaces = spaces.map(|space| link(&format!("/proc/{pid}/ns/{space}")));
            traces.insert(format!("process {pid} {}", spaces.join(" ")));
        }
        let (mut open, folder) = (0, format!("/proc/{spawner}/fd"));
        for fd in names(Path::new(&folder)) {
            let target = link(&format!("{folder}/{fd}"));
            open += 1;
            if target.contains("user-ranges") || target.starts_with("net:") {
                traces.insert(format!("the spawner has {target} as {fd}"));
            }
        }
        traces.insert(format!("the spawner has {open} files"));
        traces
    }

    fn until_as(&self, before: &BTreeSet<String>, when: &str) {
        let mut differ = Vec::new();
        let end = std::time::Instant::now() + crate::harness::PATIENCE;
        while std::time::Instant::now() < end {
            differ = before.symmetric_difference(&self.traces()).cloned().collect();
            if differ.is_empty() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        panic!("{when}: {differ:#?}");
    }

    /// Makes it, without a fault, under the same name and at the same port.
    fn make_again(&self) -> u64 {
        let id = data(&self.place.node.call("corex.create", self.arguments())).as_u64().unwrap();
        let found = data(&self.place.node.call("corex.get", json!({"query": "again"})));
        assert_eq!(found["id"], id);
        assert_eq!(self.place.sh(id, "cat /shown/file /etc/app"), "of another flisttext\n");
        id
    }

    /// Ends all: the image that only the failing ones had is given back, too.
    fn end(self) {
        let images = names(&self.place.node.dir.join("flists"));
        assert!(images.contains(&self.place.cid), "{images:?}");
        until("the image that only failing containers had is unmounted", || {
            names(&self.place.node.dir.join("flists")) == [self.place.cid.clone()]
        });
        assert_eq!(self.place.sh(self.witness, "echo still here"), "still here\n");
        self.place.terminate(self.witness);
        self.place.until_nothing_is_left();
    }
}

/// What a link of /proc leads to; who is gone has none.
pub fn link(path: &str) -> String {
    fs::read_link(path).map(|target| target.display().to_string()).unwrap_or_default()
}

/// A process and all below it.
pub fn tree(pid: i32) -> Vec<i32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let below = children.split_whitespace().flat_map(|child| tree(child.parse().unwrap()));
    std::iter::once(pid).chain(below).collect()
}

#[test]
fn a_step_that_fails_is_named_and_leaves_nothing_and_the_same_container_can_be_made() {
    with_own_network(|| {
        let broken = Broken::new();
        let before = broken.traces();
        let mut hit = Vec::new();
        loop {
            fs::write(&broken.fault, format!("fail {}", hit.len() + 1)).unwrap();
            let result = broken.place.node.call("corex.create", broken.arguments());
            let Some(step) = broken.hit() else {
                // There are no more steps: it was made.
                broken.place.terminate(data(&result).as_u64().unwrap());
                break;
            };
            let said = result["data"].as_str().unwrap();
            assert_eq!(result["state"], "ERROR", "{result}");
            assert!(said.contains(&format!("cannot {step}")), "{step}: {said}");
            broken.until_as(&before, &format!("after step {}, {step}", hit.len() + 1));
            broken.place.terminate(broken.make_again());
            broken.until_as(&before, &format!("made and ended after step {step}"));
            hit.push(step);
            assert!(hit.len() <= STEPS.len(), "there is no end of steps: {hit:?}");
        }
        assert_eq!(hit, STEPS);
        broken.until_as(&before, "after the one that was made");
        // What is looked for above is there while a container is.
        let id = broken.make_again();
        let more: Vec<String> = broken.traces().difference(&before).cloned().collect();
        for part in
            ["link c", ":8080", "containers/", "networks/", "layers/", "process ", "user-ranges", "net:"]
        {
            assert!(more.iter().any(|trace| trace.contains(part)), "{part} is not among {more:#?}");
        }
        broken.place.terminate(id);
        broken.until_as(&before, "at the end");
        broken.end();
    });
}

#[test]
fn the_next_manager_takes_apart_what_one_left_that_was_killed_at_any_step() {
    with_own_network(|| {
        let mut broken = Broken::new();
        let before = broken.traces();
        let mut hit = Vec::new();
        loop {
            let node = &mut broken.place.node;
            let manager = node.manager.id();
            fs::write(&broken.fault, format!("kill {manager} {}", hit.len() + 1)).unwrap();
            let arguments = broken.arguments();
            let node = &mut broken.place.node;
            let id = node.push(json!({"id": new_id(), "command": "corex.create", "arguments": arguments}));
            let mut redis = node.connect();
            let mut answered =
                || redis::cmd("EXISTS").arg(format!("result:{id}")).query::<bool>(&mut redis).unwrap();
            until("it is made, or the manager is dead", || !runs(manager as i32) || answered());
            let Some(step) = broken.hit() else {
                let result = broken.place.node.result(&id);
                broken.place.terminate(data(&result).as_u64().unwrap());
                break;
            };
            let node = &mut broken.place.node;
            node.manager.wait().unwrap();
            node.restart();
            let result = node.result(&id);
            assert_eq!((&result["state"], &result["code"]), (&json!("ERROR"), &json!(503)), "{result}");
            // A container that is whole lives on, as if the answer alone had been lost.
            let list = broken.place.list();
            let made: Vec<u64> = list.as_object().unwrap().keys().map(|id| id.parse().unwrap()).collect();
            let made: Vec<u64> = made.into_iter().filter(|id| *id != broken.witness).collect();
            match step.as_str() {
                "show it" => broken.place.terminate(made[0]),
                _ => assert_eq!(made, Vec::<u64>::new(), "{step}"),
            }
            broken.until_as(&before, &format!("killed at step {}, {step}", hit.len() + 1));
            broken.place.terminate(broken.make_again());
            broken.until_as(&before, &format!("made and ended after step {step}"));
            hit.push(step);
            assert!(hit.len() <= STEPS.len(), "there is no end of steps: {hit:?}");
        }
        assert_eq!(hit, STEPS);
        broken.until_as(&before, "at the end");
        broken.end();
    });
}
