//! A second view of a mount in which every owner is shifted, as a container in a user namespace gets it.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags, move_mount, open_tree, unmount};

/// The shifted view; dropping it unmounts.
pub struct IdMapped(PathBuf);

impl IdMapped {
    /// Shows `source` on `dir` with owner 0 to 65,535 as `shift` and up. Fails when the filesystem refuses idmaps.
    pub fn new(source: &Path, dir: &Path, shift: u32) -> std::io::Result<Self> {
        let holder = UserNamespace::new(shift)?;
        let namespace = File::open(format!("/proc/{}/ns/user", holder.0.id()))?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let tree = open_tree(CWD, source, flags)?;
        set_idmap(&tree, &namespace)?;
        move_mount(&tree, "", CWD, dir, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
        Ok(Self(dir.to_owned()))
    }
}

impl Drop for IdMapped {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

fn set_idmap(tree: &OwnedFd, namespace: &File) -> std::io::Result<()> {
    let attr = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: namespace.as_raw_fd() as u64,
    };
    // SAFETY: the path is a NUL-terminated literal, `attr` lives over the call and its true size is passed.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    };
    if done == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// A user namespace whose 0 to 65,535 are `shift` and up outside, kept open by a process; dropping it ends that.
pub struct UserNamespace(Child);

impl UserNamespace {
    /// A new one.
    pub fn new(shift: u32) -> std::io::Result<Self> {
        let child = Command::new("unshare")
            .args(["--user", "sh", "-c", "echo ready; read end"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut holder = Self(child);
        let pid = holder.ready()?;
        for map in ["uid_map", "gid_map"] {
            std::fs::write(format!("/proc/{pid}/{map}"), format!("0 {shift} 65536"))?;
        }
        Ok(holder)
    }

    /// `program` as its root, with mounts of its own.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--user", "--target", &self.0.id().to_string(), "unshare", "--mount", program]);
        command
    }

    /// Its process id, once it is in its own namespace.
    fn ready(&mut self) -> std::io::Result<u32> {
        let out = self.0.stdout.take().ok_or(std::io::ErrorKind::BrokenPipe)?;
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line)?;
        if line.trim() == "ready" { Ok(self.0.id()) } else { Err(std::io::ErrorKind::UnexpectedEof.into()) }
    }
}

impl Drop for UserNamespace {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
