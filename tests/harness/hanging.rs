//! A source that hangs: a store below an overlay on another flist, whose daemon is stopped.
//!
//! A pipe under the name of an object would not do, since a store never waits for one.

use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::{Pid, Signal, kill_process};

use crate::process::PATIENCE;
use crate::{Flist, args, wait};

/// The store; dropping it lets it answer again and takes it away.
pub struct HangingStore {
    serving: Flist,
    pid: Pid,
    dir: PathBuf,
}

impl HangingStore {
    /// The same objects as `store`, answering for now. The caller must have [`own_mounts`](crate::namespace::own_mounts).
    pub fn copy_of(store: &Path) -> Self {
        let serving = Flist::new();
        let cid = serving.pack(store);
        let lower = serving.home().dir("lower");
        serving.ok(args!["mount", cid, lower, "--mode", "fuse"]);
        let pid = serving.mounts()[0].pid;
        // An overlay, since a store on an flist is refused; of two layers, since a read-only one must have them.
        let (dir, empty) = (serving.home().dir("hanging"), serving.home().dir("empty"));
        let layers = std::ffi::CString::new(format!("lowerdir={}:{}", lower.display(), empty.display()));
        let layers = layers.expect("paths hold no NUL");
        mount("overlay", &dir, "overlay", MountFlags::RDONLY, Some(layers.as_c_str()))
            .expect("an overlay on an flist");
        Self { serving, pid: Pid::from_raw(pid).expect("a daemon has a pid"), dir }
    }

    /// As `--from` names it.
    pub fn spec(&self) -> String {
        format!("dir:{}", self.dir.display())
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// From here on whoever reads what was not read before waits.
    pub fn hang(&self) {
        kill_process(self.pid, Signal::STOP).expect("the daemon runs");
        // Each thread stops when it next looks.
        wait::until("the daemon has stopped", PATIENCE, || wait::is_stopped(self.pid.as_raw_nonzero().get()));
    }

    /// Answers everything, also what was asked meanwhile.
    pub fn answer(&self) {
        kill_process(self.pid, Signal::CONT).expect("the daemon is there");
    }
}

impl Drop for HangingStore {
    fn drop(&mut self) {
        let _ = kill_process(self.pid, Signal::CONT);
        let _ = unmount(&self.dir, UnmountFlags::DETACH);
        let lower = self.serving.home().join("lower");
        let _ = self.serving.command(args!["umount", lower, "--lazy"]).output();
    }
}
