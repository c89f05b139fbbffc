//! A node to make containers on.

use std::fs;
use std::path::{Path, PathBuf};

use g8_fs::pack::PackOptions;
use serde_json::{Value, json};

use crate::harness::{Node, until};
use crate::image::{pack_busybox, pack_with};

/// A node with an flist of a small root filesystem in a store of its own.
pub struct Place {
    pub node: Node,
    pub cid: String,
    pub storage: String,
}

impl Place {
    pub fn new() -> Self {
        Self::on(Node::start())
    }

    /// One whose node has its folder and this `core0.toml`.
    pub fn configured(dir: &Path, text: &str) -> Self {
        fs::write(dir.join("core0.toml"), text).unwrap();
        Self::on(Node::start_in(dir))
    }

    pub fn on(node: Node) -> Self {
        let (cid, store) = pack_busybox(&node.dir);
        let storage = format!("dir:{}", store.display());
        Self { node, cid, storage }
    }

    /// What the image is packed from.
    pub fn tree(&self) -> PathBuf {
        self.node.dir.join("tree")
    }

    /// Packs its tree again, as it is by now.
    pub fn pack(&self, options: &PackOptions) -> String {
        pack_with(&self.tree(), &self.node.dir.join("store"), options)
    }

    /// The same with a file `large` of 6 MiB that nothing makes smaller, beside what a container needs.
    pub fn pack_large_file(&self) -> String {
        let mut byte = 1_u32;
        let noise = std::iter::repeat_with(|| {
            byte = byte.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (byte >> 24) as u8
        });
        fs::write(self.tree().join("large"), noise.take(6 << 20).collect::<Vec<u8>>()).unwrap();
        self.pack(&PackOptions::default())
    }

    pub fn create(&self, more: Value) -> Value {
        let mut arguments = json!({"root": self.cid, "storage": self.storage});
        arguments.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.node.call("corex.create", arguments)
    }

    pub fn created(&self, more: Value) -> u64 {
        data(&self.create(more)).as_u64().unwrap()
    }

    /// The code of a refusal and what it says.
    pub fn refused(&self, more: Value) -> (u64, String) {
        let result = self.create(more);
        assert_eq!(result["state"], "ERROR", "{result}");
        (result["code"].as_u64().unwrap(), result["data"].as_str().unwrap().to_owned())
    }

    /// Begins a command in a container, and gives the id of its result.
    pub fn begin(&self, container: u64, command: &str, arguments: Value) -> String {
        let inner = json!({"command": command, "arguments": arguments});
        let result = self.node.call("corex.dispatch", json!({"container": container, "command": inner}));
        data(&result).as_str().unwrap().to_owned()
    }

    pub fn run(&self, container: u64, command: &str, arguments: Value) -> Value {
        self.node.result(&self.begin(container, command, arguments))
    }

    /// What a script prints in a container.
    pub fn sh(&self, container: u64, script: &str) -> String {
        let result = self.run(container, "core.system", json!({"name": "sh", "args": ["-c", script]}));
        result["streams"][0].as_str().unwrap().to_owned()
    }

    pub fn terminate(&self, container: u64) {
        data(&self.node.call("corex.terminate", json!({"container": container})));
    }

    pub fn list(&self) -> Value {
        data(&self.node.call("corex.list", json!({})))
    }

    /// No mount and no record is there that was not there before.
    #[track_caller]
    pub fn until_nothing_is_left(&self) {
        let dir = self.node.dir.display().to_string();
        until("the records are gone", || names(&self.node.dir.join("containers")).is_empty());
        until("the mounts are gone", || {
            let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
            !mounts.lines().any(|line| line.contains(&dir)) && names(&self.node.dir.join("flists")).is_empty()
        });
    }
}

pub fn data(result: &Value) -> Value {
    assert_eq!(result["state"], "SUCCESS", "{result}");
    serde_json::from_str(result["data"].as_str().unwrap()).unwrap()
}

pub fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}
