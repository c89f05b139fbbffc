//! The kernel's own EROFS driver as the judge of contents, and `fsck.erofs` as the judge of structure.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::{Flist, Place, args, process};

/// A tree and both data spaces as local files, mounted by the kernel; dropping it unmounts.
pub struct KernelMount(PathBuf);

impl KernelMount {
    /// Mounts `tree` with the devices `small` and `big` on `dir`. All three must lie on ext4, xfs or btrfs: the kernel
    /// reads them through the page cache, which tmpfs and overlayfs do not offer it.
    pub fn new(tree: &Path, small: &Path, big: &Path, dir: &Path) -> Self {
        let mut options = b"device=".to_vec();
        options.extend_from_slice(small.as_os_str().as_bytes());
        options.extend_from_slice(b",device=");
        options.extend_from_slice(big.as_os_str().as_bytes());
        let options = CString::new(options).expect("paths hold no NUL");
        mount(tree, dir, "erofs", MountFlags::RDONLY, Some(options.as_c_str()))
            .unwrap_or_else(|e| panic!("the kernel refuses the tree {}: {e} (see dmesg)", tree.display()));
        Self(dir.to_owned())
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for KernelMount {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

/// Writes the image `cid` out with `flist info`, lets `fsck.erofs` judge the tree, and mounts all with the kernel.
pub fn judge(flist: &Flist, cid: &str, place: &Place) -> KernelMount {
    let (tree, small, big) = (place.join("tree.erofs"), place.join("small.data"), place.join("big.data"));
    flist.ok(args!["info", cid, "--tree-out", tree, "--small-out", small, "--big-out", big]);
    // One stand-in for each device of the table; contents are the kernel's to judge.
    process::tool("fsck.erofs", args!["--device=/dev/null", "--device=/dev/null", tree]);
    KernelMount::new(&tree, &small, &big, &place.dir("kernel"))
}
