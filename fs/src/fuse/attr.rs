//! Inodes in the terms of FUSE.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, INodeNo};

use crate::erofs::{BLOCK_SIZE, FileKind, Inode, Mtime};

/// Attributes of an inode. Only mtime is stored: it stands for the other times too.
pub(super) fn file_attr(ino: INodeNo, inode: &Inode) -> FileAttr {
    let time = system_time(inode.mtime);
    FileAttr {
        ino,
        size: inode.size,
        // As the kernel's own EROFS counts them: whole blocks, holes included.
        blocks: inode.size.div_ceil(BLOCK_SIZE) * (BLOCK_SIZE / 512),
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
        kind: file_type(inode.kind()),
        perm: inode.permissions(),
        nlink: inode.nlink,
        uid: inode.uid,
        gid: inode.gid,
        rdev: (inode.rdev.minor & 0xff) | inode.rdev.major << 8 | (inode.rdev.minor & !0xff) << 12,
        blksize: BLOCK_SIZE as u32,
        flags: 0,
    }
}

/// What stands for a name that does not exist: inode 0.
pub(super) fn missing() -> FileAttr {
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}

pub(super) fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::Regular => FileType::RegularFile,
        FileKind::Directory => FileType::Directory,
        FileKind::Symlink => FileType::Symlink,
        FileKind::CharDevice => FileType::CharDevice,
        FileKind::BlockDevice => FileType::BlockDevice,
        FileKind::Fifo => FileType::NamedPipe,
        FileKind::Socket => FileType::Socket,
    }
}

/// A time of the tree; one that no clock can hold becomes the epoch.
fn system_time(time: Mtime) -> SystemTime {
    let nanos = Duration::from_nanos(u64::from(time.nanos));
    let seconds = Duration::from_secs(time.secs.unsigned_abs());
    let whole = if time.secs < 0 { UNIX_EPOCH.checked_sub(seconds) } else { UNIX_EPOCH.checked_add(seconds) };
    whole.and_then(|t| t.checked_add(nanos)).unwrap_or(UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_count_their_nanoseconds_forward() {
        let time = system_time(Mtime { secs: -2, nanos: 800_000_000 });
        assert_eq!(UNIX_EPOCH.duration_since(time).unwrap(), Duration::new(1, 200_000_000));
        system_time(Mtime { secs: i64::MIN, nanos: 0 });
        system_time(Mtime { secs: i64::MAX, nanos: 999_999_999 });
    }
}
