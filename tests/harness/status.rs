//! What `flist mounts --json` says about one mount.

use std::path::PathBuf;

use serde_json::Value;

use crate::Mode;

/// One element of the array.
#[derive(Debug, Clone)]
pub struct MountStatus {
    /// The daemon.
    pub pid: i32,
    /// The CID, perhaps with hints.
    pub reference: String,
    /// Where.
    pub mountpoint: PathBuf,
    /// How it reaches the kernel.
    pub mode: Mode,
    /// Directory of the cache.
    pub cache: PathBuf,
    /// Bytes answered to readers.
    pub bytes_read: u64,
    /// Stored bytes taken from sources since the mount, metadata included.
    pub bytes_fetched: u64,
    /// Requests of the kernel.
    pub requests: u64,
    /// Blocks found in memory.
    pub hits_memory: u64,
    /// Blocks found on disk.
    pub hits_disk: u64,
    /// Blocks that failed their proof, over all sources.
    pub wrong: u64,
}

impl MountStatus {
    /// Reads one element; panics with it when a promised field is missing.
    #[track_caller]
    pub fn from_json(v: &Value) -> Self {
        let number = |v: &Value, key: &str| {
            v[key].as_u64().unwrap_or_else(|| panic!("`flist mounts --json` has no number {key}: {v:#}"))
        };
        let text = |key: &str| {
            v[key]
                .as_str()
                .unwrap_or_else(|| panic!("`flist mounts --json` has no text {key}: {v:#}"))
                .to_owned()
        };
        let sources = v["sources"].as_array().unwrap_or_else(|| panic!("no array of sources: {v:#}"));
        for source in sources {
            assert!(source["spec"].is_string(), "a source without spec: {source:#}");
            number(source, "bytes");
            number(source, "requests");
        }
        Self {
            pid: number(v, "pid") as i32,
            reference: text("ref"),
            mountpoint: text("mountpoint").into(),
            mode: Mode::from_name(&text("mode")).unwrap_or_else(|| panic!("no mode: {v:#}")),
            cache: text("cache").into(),
            bytes_read: number(v, "bytes_read"),
            bytes_fetched: number(v, "bytes_fetched"),
            requests: number(v, "requests"),
            hits_memory: number(&v["hits"], "memory"),
            hits_disk: number(&v["hits"], "disk"),
            wrong: sources.iter().map(|s| number(s, "wrong")).sum(),
        }
    }
}
