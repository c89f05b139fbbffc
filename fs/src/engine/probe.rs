//! Whether this kernel can be trusted with mode `kernel`, found out by trying.
//!
//! Before a fix in 2025 file-backed EROFS took what a short answer lacks for zeros, and for a while it could not be
//! stacked below two overlays; distributions carry either state under any version number. So a tree of one file is
//! mounted in no directory, over devices that answer one read right and one short: the first must give its bytes,
//! the second an error, and two overlays must stack on it.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::OnceLock;

use fuser::ReplyData;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::FsOpenFlags;

use super::devices::{Devices, mount_detached};
use crate::erofs::{self, BLOCK_SIZE, Chunk, Content, Device, DeviceSizes, Mtime, Node, NodeId, NodeKind};
use crate::fuse::{Space, SpaceEdge, Spaces};

/// Blocks of each device, and of each of the two files.
const BLOCKS: u32 = 8;
/// What every right byte is.
const BYTE: u8 = 0xa5;

/// Why mode `kernel` is not taken.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Unfit {
    /// mount(2) of EROFS is for root.
    #[error("only root can have the kernel mount a tree")]
    NotRoot,
    /// No EROFS in this kernel.
    #[error("this kernel has no EROFS: load the module `erofs`")]
    NoErofs,
    /// EROFS cannot be mounted from files.
    #[error("this kernel cannot mount EROFS from files (Linux 6.12 can): {0}")]
    NotFromFiles(String),
    /// It makes zeros of missing bytes.
    #[error(
        "this kernel's EROFS takes the missing part of a short answer for zeros: a newer one has the fix"
    )]
    ZeroFills,
    /// A right answer did not come through.
    #[error("this kernel's EROFS does not read what its device holds")]
    Misreads,
    /// Overlays do not stack on it.
    #[error("this kernel cannot stack two overlays on an EROFS from files: {0}")]
    NotStackable(String),
    /// The mount itself was refused.
    #[error("{0}")]
    Refused(String),
}

/// The verdict of one process, found at the first question.
#[derive(Default)]
pub(super) struct Probe(OnceLock<Result<(), Unfit>>);

impl Probe {
    /// Whether mode `kernel` can be taken.
    pub(super) fn verdict(&self) -> Result<(), Unfit> {
        self.0
            .get_or_init(|| {
                let began = std::time::Instant::now();
                let verdict = try_out();
                tracing::info!(?verdict, took = ?began.elapsed(), "probed mode kernel");
                verdict
            })
            .clone()
    }
}

fn try_out() -> Result<(), Unfit> {
    if !rustix::process::geteuid().is_root() {
        return Err(Unfit::NotRoot);
    }
    let context = rustix::mount::fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC).map_err(|e| match e {
        Errno::NODEV => Unfit::NoErofs,
        other => Unfit::Refused(format!("EROFS cannot be mounted: {other}")),
    })?;
    judge(context, Short { tree: tree() })
}

/// Mounts what `spaces` hold, and tries what must work.
fn judge(context: OwnedFd, spaces: impl Spaces) -> Result<(), Unfit> {
    let not_from_files = |e: io::Error| Unfit::NotFromFiles(e.to_string());
    let (devices, _session) =
        Devices::serve(SpaceEdge(spaces)).map_err(|e| Unfit::NotFromFiles(chain(&e)))?;
    let mounted = mount_tree(context, &devices).map_err(not_from_files)?;
    read_back(&mounted)?;
    let stacked = overlay(&mounted, ["one", "two"]).and_then(|once| overlay(&once, ["three", "four"]));
    stacked.map_err(|e| Unfit::NotStackable(e.to_string()))?;
    Ok(())
}

fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

/// The tree, from the devices' own mount: every kernel that reads devices there reads a tree there.
pub(super) fn mount_tree(context: OwnedFd, devices: &Devices) -> io::Result<OwnedFd> {
    let set = |key: &str, value: &str| rustix::mount::fsconfig_set_string(&context, key, value);
    set("source", &devices.path(Space::Tree))?;
    set("device", &devices.path(Space::Small))?;
    set("device", &devices.path(Space::Big))?;
    rustix::mount::fsconfig_set_flag(&context, "ro")?;
    rustix::mount::fsconfig_create(&context)?;
    mount_detached(context)
}

fn read_back(mounted: &OwnedFd) -> Result<(), Unfit> {
    let read = |name: &str| -> io::Result<Vec<u8>> {
        let file = rustix::fs::openat(mounted, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let mut bytes = Vec::new();
        File::from(file).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let right = read("right").map_err(|_| Unfit::Misreads)?;
    if right != [BYTE; (BLOCKS as u64 * BLOCK_SIZE) as usize] {
        return Err(Unfit::Misreads);
    }
    for short in ["short-small", "short-big"] {
        match read(short) {
            Err(e) if e.raw_os_error() == Some(libc::EIO) => {}
            Ok(_) | Err(_) => return Err(Unfit::ZeroFills),
        }
    }
    Ok(())
}

/// An overlay of two directories.
fn overlay(on: &OwnedFd, directories: [&str; 2]) -> io::Result<OwnedFd> {
    let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let layers = directories.map(|name| format!("/proc/self/fd/{}/{name}", on.as_raw_fd())).join(":");
    rustix::mount::fsconfig_set_string(&context, "lowerdir", layers)?;
    rustix::mount::fsconfig_create(&context)?;
    mount_detached(context)
}

/// Files `right` and `short-small` in `small`, `short-big` in `big`; directories `one`, with `three` and `four`, and `two`.
fn tree() -> Vec<u8> {
    let file = |device, block| {
        let size = u64::from(BLOCKS) * BLOCK_SIZE;
        let chunk = Chunk { device, block };
        NodeKind::Regular(Content::Chunked { size, chunk_bits: 31, chunks: vec![Some(chunk)] })
    };
    let directory = |parent, names: &[(&str, u32)]| NodeKind::Directory {
        parent: NodeId(parent),
        entries: names.iter().map(|(name, id)| (name.as_bytes().to_vec(), NodeId(*id))).collect(),
    };
    let kinds = [
        directory(0, &[("right", 1), ("short-small", 2), ("short-big", 3), ("one", 4), ("two", 5)]),
        file(Device::Small, 0),
        file(Device::Small, BLOCKS),
        file(Device::Big, 0),
        directory(0, &[("three", 6), ("four", 7)]),
        directory(0, &[]),
        directory(4, &[]),
        directory(4, &[]),
    ];
    let node =
        |kind| Node { permissions: 0o755, uid: 0, gid: 0, mtime: Mtime::default(), xattrs: Vec::new(), kind };
    let devices = DeviceSizes { small_blocks: 2 * BLOCKS, big_blocks: BLOCKS };
    erofs::write(&kinds.map(node), devices).expect("a tree of a few nodes has a place for each")
}

/// The tree and its devices. All of `big` and the second half of `small` is answered short.
struct Short {
    tree: Vec<u8>,
}

impl Spaces for Short {
    fn size(&self, space: Space) -> u64 {
        match space {
            Space::Small => u64::from(2 * BLOCKS) * BLOCK_SIZE,
            Space::Big => u64::from(BLOCKS) * BLOCK_SIZE,
            Space::Tree => self.tree.len() as u64,
        }
    }

    fn read(&self, space: Space, offset: u64, len: u32, reply: ReplyData) {
        let short = match space {
            Space::Tree => return reply.data(&self.tree[offset as usize..][..len as usize]),
            Space::Small => offset + u64::from(len) > u64::from(BLOCKS) * BLOCK_SIZE,
            Space::Big => true,
        };
        let len = if short { len / 2 } else { len };
        reply.data(&vec![BYTE; len as usize]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tests of both modes run here, so here it must be fit.
    #[test]
    fn this_kernel_is_fit_and_the_probe_leaves_nothing() {
        try_out().unwrap();
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!table.contains("flist-devices"), "{table}");
    }

    /// Answers in full where the probe answers short, with `.1` in the places of missing bytes and `.2` in all others:
    /// what a reader sees on a kernel that makes things up.
    struct Seen(Short, u8, u8);

    impl Spaces for Seen {
        fn size(&self, space: Space) -> u64 {
            self.0.size(space)
        }

        fn read(&self, space: Space, offset: u64, len: u32, reply: ReplyData) {
            let Seen(short, missing, there) = self;
            if space == Space::Tree {
                return short.read(space, offset, len, reply);
            }
            let mut bytes = vec![*there; len as usize];
            bytes[len as usize / 2..].fill(*missing);
            reply.data(&bytes);
        }
    }

    /// There is no such kernel here, so its readers' answers are had from the devices.
    #[test]
    fn a_kernel_that_makes_bytes_up_is_told_by_what_a_reader_sees() {
        let verdict = |missing, there| {
            let context = rustix::mount::fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
            judge(context, Seen(Short { tree: tree() }, missing, there))
        };
        for missing in [0, BYTE] {
            let verdict = verdict(missing, BYTE);
            assert!(matches!(verdict, Err(Unfit::ZeroFills)), "no error where half is missing: {verdict:?}");
        }
        let verdict = verdict(0, 0);
        assert!(matches!(verdict, Err(Unfit::Misreads)), "{verdict:?}");
    }

    #[test]
    fn a_tree_that_is_none_or_a_kernel_that_mounts_none_is_not_from_files() {
        let context = rustix::mount::fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
        let verdict = judge(context, Short { tree: vec![BYTE; BLOCK_SIZE as usize] });
        assert!(matches!(verdict, Err(Unfit::NotFromFiles(_))), "{verdict:?}");
    }
}
