//! The kernel's list of mounts, for leak checks. Tests share the machine, so they ask only about their own directories.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use rustix::mount::UnmountFlags;

/// One line of mountinfo, of the namespace that this thread is in.
#[derive(Debug, Clone)]
pub struct Mount {
    /// Where it is mounted.
    pub mountpoint: PathBuf,
    /// Options of the mount, comma separated.
    pub options: String,
    /// Kind of filesystem, with its subtype.
    pub kind: String,
    /// What is mounted.
    pub source: String,
    /// Options of the superblock, comma separated.
    pub super_options: String,
}

/// All mounts at or below `dir`, in mount order.
pub fn under(dir: &Path) -> Vec<Mount> {
    all().into_iter().filter(|m| m.mountpoint.starts_with(dir)).collect()
}

/// The topmost mount exactly at `dir`.
pub fn at(dir: &Path) -> Option<Mount> {
    all().into_iter().rev().find(|m| m.mountpoint == dir)
}

/// Unmounts what is on top of `dir`, which nobody uses any more. A child that another test forks holds whatever files are
/// open at that moment until it executes its program, so a busy one is tried again for a while.
#[track_caller]
pub fn unmount(dir: &Path) {
    crate::wait::until("nobody holds the mount", Duration::from_secs(10), || {
        match rustix::mount::unmount(dir, UnmountFlags::empty()) {
            Ok(()) => true,
            Err(Errno::BUSY) => false,
            Err(e) => panic!("unmounting {}: {e}", dir.display()),
        }
    });
}

/// Panics if anything is mounted at or below `dir`.
pub fn assert_none_under(dir: &Path) {
    let left = under(dir);
    assert!(left.is_empty(), "mounts left below {}: {left:#?}", dir.display());
}

/// `erofs-N` of the EROFS mounted on `dir`, the name of its backing device: the number that `/sys/fs/erofs` has and the
/// mount table has not.
pub fn erofs_name(dir: &Path) -> String {
    // What FS_IOC_GETFSSYSFSPATH fills in (linux/fs.h).
    #[repr(C)]
    struct SysfsPath {
        len: u8,
        name: [u8; 128],
    }
    const GET_SYSFS_PATH: rustix::ioctl::Opcode = rustix::ioctl::opcode::read::<SysfsPath>(0x15, 1);
    let root = std::fs::File::open(dir).unwrap_or_else(|e| panic!("open {}: {e}", dir.display()));
    // SAFETY: the kernel fills a struct of this layout for this request.
    let path =
        unsafe { rustix::ioctl::ioctl(&root, rustix::ioctl::Getter::<GET_SYSFS_PATH, SysfsPath>::new()) };
    let path = path.unwrap_or_else(|e| panic!("{} is no EROFS: {e}", dir.display()));
    let name = String::from_utf8_lossy(&path.name[..path.len.into()]).into_owned();
    name.strip_prefix("erofs/").unwrap_or_else(|| panic!("{} is on {name}", dir.display())).to_owned()
}

/// The kernel hands the table out page by page; only two equal readings in a row are one table.
fn all() -> Vec<Mount> {
    let read = || std::fs::read("/proc/thread-self/mountinfo").expect("the kernel lists its mounts");
    let mut text = read();
    for _ in 0..50 {
        let again = read();
        if again == text {
            break;
        }
        text = again;
    }
    text.split(|b| *b == b'\n').filter_map(parse).collect()
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue` (proc(5)).
fn parse(line: &[u8]) -> Option<Mount> {
    let fields: Vec<&[u8]> = line.split(|b| *b == b' ').collect();
    let dash = fields.iter().position(|f| *f == b"-")?;
    let text = |i: usize| fields.get(i).map(|f| String::from_utf8_lossy(&unescape(f)).into_owned());
    Some(Mount {
        mountpoint: PathBuf::from(OsString::from_vec(unescape(fields.get(4)?))),
        options: text(5)?,
        kind: text(dash + 1)?,
        source: text(dash + 2)?,
        super_options: text(dash + 3)?,
    })
}

/// Undoes the octal escapes of space, tab, newline and backslash.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut i = 0;
    while i < field.len() {
        let digits = field.get(i + 1..i + 4).and_then(|d| std::str::from_utf8(d).ok());
        match digits.and_then(|d| u8::from_str_radix(d, 8).ok()) {
            Some(byte) if field[i] == b'\\' => {
                out.push(byte);
                i += 4;
            }
            _ => {
                out.push(field[i]);
                i += 1;
            }
        }
    }
    out
}
