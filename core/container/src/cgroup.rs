//! The cgroup of a container: what it may use, where the kernel can be told so.
//!
//! Only version 2. A limit whose controller is not there, as where version 1 has taken it, is an error that says so: a
//! container that asked for a limit never runs without it.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{ContainerError, syscall};

/// Below the root of the hierarchy; all containers are in it.
const PARENT: &str = "g8os";
/// Where version 2 may be mounted: alone, or beside version 1.
const ROOTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
/// The period in which a processor's time is counted, in us; a longer one where the kernel takes no quota that is so small a
/// part of it: 1000 us is the least.
const CPU_PERIOD_US: u64 = 100_000;
const CPU_LONG_PERIOD_US: u64 = 1_000_000;
const CPU_QUOTA_MIN_US: u64 = 1000;
/// How often, with 5 ms between, a cgroup is removed whose processes were killed.
const REMOVALS: u32 = 100;

/// What a container may use at most; what is absent has no bound.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Memory in bytes; beyond it the whole container is killed. Swap is not used.
    pub memory_bytes: Option<u64>,
    /// Processor time in thousandths of one processor.
    pub cpu_millis: Option<u64>,
    /// Processes and threads.
    pub processes: Option<u64>,
}

impl Limits {
    /// The files to write, each with its controller.
    fn settings(&self) -> Vec<(&'static str, &'static str, String)> {
        let mut settings = Vec::new();
        if let Some(bytes) = self.memory_bytes {
            settings.push(("memory", "memory.max", bytes.to_string()));
            settings.push(("memory", "memory.oom.group", "1".into()));
            settings.push(("memory", "memory.swap.max", "0".into()));
        }
        if let Some(millis) = self.cpu_millis {
            let quota = |period: u64| millis.saturating_mul(period / 1000);
            let period =
                if quota(CPU_PERIOD_US) < CPU_QUOTA_MIN_US { CPU_LONG_PERIOD_US } else { CPU_PERIOD_US };
            settings.push(("cpu", "cpu.max", format!("{} {period}", quota(period))));
        }
        if let Some(count) = self.processes {
            settings.push(("pids", "pids.max", count.to_string()));
        }
        settings
    }
}

/// A cgroup that is removed, with all that is in it, when it is dropped.
#[derive(Debug)]
pub(crate) struct Cgroup {
    path: PathBuf,
    /// For clone3.
    pub(crate) directory: OwnedFd,
}

impl Cgroup {
    /// Makes one; none when there are no limits to keep.
    pub(crate) fn create(name: &str, limits: &Limits) -> Result<Option<Self>, ContainerError> {
        let settings = limits.settings();
        if settings.is_empty() {
            return Ok(None);
        }
        let root = root();
        let has = root.map(controllers).unwrap_or_default();
        let missing =
            settings.iter().find(|(controller, ..)| !has.split_whitespace().any(|c| c == *controller));
        if let Some((controller, ..)) = missing {
            let has = has.trim().to_owned();
            return Err(ContainerError::NoController { controller, has });
        }
        let Some(root) = root else {
            return Err(ContainerError::NoController { controller: "any", has });
        };
        let failed = |step| move |source| ContainerError::Step { step, source };
        Self::make(root, name, &settings).map(Some).map_err(failed("set the limits"))
    }

    fn make(root: &Path, name: &str, settings: &[(&str, &str, String)]) -> io::Result<Self> {
        let path = open_parent(root, settings.iter().map(|(controller, ..)| *controller))?.join(name);
        // One of this name is left of a container whose maker was killed: nobody else has the name.
        remove(&path)?;
        fs::create_dir(&path)?;
        let directory = File::open(&path)?.into();
        let cgroup = Cgroup { path, directory };
        for (_, file, value) in settings {
            match fs::write(cgroup.path.join(file), value) {
                // Kernels without swap have no file for it.
                Err(e) if e.kind() == io::ErrorKind::NotFound && file.contains("swap") => {}
                done => done?,
            }
        }
        Ok(cgroup)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // It can stay behind only while the kernel still takes apart what was killed; the next of this name removes it.
        let _ = remove(&self.path);
    }
}

/// Where version 2 is mounted.
fn root() -> Option<&'static Path> {
    ROOTS.iter().map(Path::new).find(|root| root.join("cgroup.controllers").exists())
}

fn controllers(root: &Path) -> String {
    fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default()
}

/// The folder of all our cgroups, made if it is not there. What is in it has these controllers.
fn open_parent<'a>(root: &Path, controllers: impl Iterator<Item = &'a str>) -> io::Result<PathBuf> {
    let parent = root.join(PARENT);
    make_folder(&parent)?;
    for controller in controllers {
        for above in [root, &parent] {
            fs::write(above.join("cgroup.subtree_control"), format!("+{controller}"))?;
        }
    }
    Ok(parent)
}

fn make_folder(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
        _ => Ok(()),
    }
}

/// Moves this process into a cgroup that may have at most so many processes and threads, with all that it starts from then on.
/// The cgroup stays, as whoever moves there with the same name is in the same one. Nothing is done where nobody counts processes.
pub fn bound_processes(name: &str, most: u64) -> io::Result<()> {
    let Some(root) = root().filter(|root| controllers(root).split_whitespace().any(|c| c == "pids")) else {
        return Ok(());
    };
    let path = open_parent(root, ["pids"].into_iter())?.join(name);
    make_folder(&path)?;
    fs::write(path.join("pids.max"), most.to_string())?;
    fs::write(path.join("cgroup.procs"), "0")
}

/// Removes the cgroup that a killed maker of a container left, with all that runs in it. One that is not there is no error.
pub fn remove_cgroup(name: &str) -> io::Result<()> {
    let mut roots = ROOTS.iter().map(Path::new).filter(|root| root.join("cgroup.controllers").exists());
    roots.try_for_each(|root| remove(&root.join(PARENT).join(name)))
}

/// Kills what is left in a cgroup and removes it.
fn remove(path: &Path) -> io::Result<()> {
    let mut tries = 0;
    loop {
        match fs::remove_dir(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy && tries < REMOVALS => {
                fs::write(path.join("cgroup.kill"), "1")?;
                syscall::pause_ms(5);
                tries += 1;
            }
            removed => return removed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_that_was_left_is_removed_with_what_runs_in_it() {
        let parent = root().expect("cgroup version 2 is mounted").join(PARENT);
        let name = format!("test-{}", std::process::id());
        fs::create_dir_all(parent.join(&name)).unwrap();
        let mut left = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        fs::write(parent.join(&name).join("cgroup.procs"), left.id().to_string()).unwrap();
        // It can be removed when the process is reaped.
        let reaped = std::thread::spawn(move || left.wait().unwrap());
        remove_cgroup(&name).unwrap();
        assert!(!parent.join(&name).exists());
        assert!(!reaped.join().unwrap().success());
        remove_cgroup(&name).unwrap();
    }

    #[test]
    fn the_smallest_share_of_a_processor_is_a_quota_that_the_kernel_takes() {
        for (millis, expected) in [(1, "1000 1000000"), (9, "9000 1000000"), (10, "1000 100000")] {
            let limits = Limits { cpu_millis: Some(millis), ..Limits::default() };
            assert_eq!(limits.settings()[0].2, expected);
        }
    }

    #[test]
    fn limits_become_the_files_of_their_controllers() {
        let limits = Limits { memory_bytes: Some(1 << 20), cpu_millis: Some(1500), processes: Some(64) };
        let written: Vec<_> =
            limits.settings().into_iter().map(|(_, file, value)| format!("{file}={value}")).collect();
        assert_eq!(
            written,
            [
                "memory.max=1048576",
                "memory.oom.group=1",
                "memory.swap.max=0",
                "cpu.max=150000 100000",
                "pids.max=64"
            ]
        );
    }
}
