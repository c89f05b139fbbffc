//! A control group for memory: little of it for a test that wants pressure, and a count of its own for page cache.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A group; dropping it removes it, once its processes have ended.
pub struct MemoryCgroup {
    dir: PathBuf,
    version: Version,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl MemoryCgroup {
    /// A group called `name` at the root of the hierarchy.
    pub fn new(name: &str) -> Self {
        let (root, version) = hierarchy();
        let dir = root.join(format!("g8os-tests-{}-{name}", std::process::id()));
        fs::create_dir(&dir).unwrap_or_else(|e| panic!("mkdir {}: {e}", dir.display()));
        Self { dir, version }
    }

    /// Gives it `mib` MiB, page cache included.
    pub fn limit(&self, mib: u64) {
        let file = match self.version {
            Version::One => "memory.limit_in_bytes",
            Version::Two => "memory.max",
        };
        fs::write(self.dir.join(file), (mib << 20).to_string()).expect("root may limit a group");
    }

    /// `program` in the group, with all that it starts.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("sh");
        command
            .args(["-c", "echo $$ > \"$0\" && exec \"$@\""])
            .arg(self.dir.join("cgroup.procs"))
            .arg(program);
        command
    }

    /// Bytes of page cache that its processes brought in.
    pub fn page_cache(&self) -> u64 {
        let key = match self.version {
            Version::One => "cache",
            Version::Two => "file",
        };
        let stat = fs::read_to_string(self.dir.join("memory.stat")).expect("a group has counters");
        let line = stat.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(' ')?.parse().ok());
        line.unwrap_or_else(|| panic!("no {key} in {stat}"))
    }
}

impl Drop for MemoryCgroup {
    fn drop(&mut self) {
        for _ in 0..200 {
            if fs::remove_dir(&self.dir).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

/// The hierarchy that has the memory controller.
fn hierarchy() -> (PathBuf, Version) {
    let unified = Path::new("/sys/fs/cgroup");
    let controllers = fs::read_to_string(unified.join("cgroup.controllers")).unwrap_or_default();
    if controllers.split_whitespace().any(|c| c == "memory") {
        fs::write(unified.join("cgroup.subtree_control"), "+memory").expect("groups may limit memory");
        return (unified.to_owned(), Version::Two);
    }
    let own = unified.join("memory");
    assert!(
        own.join("memory.limit_in_bytes").exists(),
        "no memory controller is mounted below {}",
        unified.display()
    );
    (own, Version::One)
}
