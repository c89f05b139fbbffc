//! Modes, owners, times and extended attributes, each on every kind of file that can have them.

use rustix::fs::FileType;

use crate::tree::Builder;

pub(super) fn plant(tree: &mut Builder) {
    modes(tree);
    owners(tree);
    times(tree);
    xattrs(tree);
    acls(tree);
}

fn modes(tree: &Builder) {
    tree.dir("modes/files");
    tree.dir("modes/dirs");
    for mode in 0..0o10000 {
        let rel = format!("modes/files/{mode:04o}");
        tree.file(&rel, b"");
        tree.mode(&rel, mode);
    }
    for mode in (0..0o10000).step_by(0o111) {
        let rel = format!("modes/dirs/{mode:04o}");
        tree.dir(&rel);
        tree.file(format!("{rel}/inside"), rel.as_bytes());
        tree.mode(&rel, mode);
    }
}

fn owners(tree: &Builder) {
    tree.dir("owners");
    // 2^32 - 1 means "leave it" to chown, so 2^32 - 2 is the largest there is.
    let ids = [0, 1, 1000, 65_533, 65_534, 65_535, 65_536, 70_000, 0x7fff_ffff, 0x8000_0000, 0xffff_fffe];
    for uid in ids {
        for gid in ids {
            let rel = format!("owners/{uid}_{gid}");
            tree.file(&rel, b"");
            tree.owner(&rel, uid, gid);
        }
    }
    tree.dir("owners/dir");
    tree.symlink("owners/symlink", "dir");
    tree.node("owners/fifo", FileType::Fifo, 0, 0);
    tree.file("owners/suid", b"#!/bin/true\n");
    for rel in ["owners/dir", "owners/symlink", "owners/fifo", "owners/suid"] {
        tree.owner(rel, 100_000, 0xffff_fffe);
    }
    tree.mode("owners/suid", 0o6755);
}

fn times(tree: &mut Builder) {
    tree.dir("times");
    // From the first to the last second ext4 can hold (1901 to 2446), and the borders where 32 bits end.
    let seconds = [
        -0x8000_0000,
        -0x7fff_ffff,
        -1,
        0,
        1,
        0x7fff_ffff,
        0x8000_0000,
        0xffff_ffff,
        0x1_0000_0000,
        0x3_7fff_ffff,
    ];
    for (i, second) in seconds.into_iter().enumerate() {
        for nanosecond in [0, 1, 999_999_999] {
            // ext4 cannot hold a fraction behind its last second on every kernel.
            let nanosecond = if second == 0x3_7fff_ffff { 0 } else { nanosecond };
            for kind in ["file", "dir", "symlink", "fifo"] {
                let rel = format!("times/{kind}_{i}_{nanosecond}");
                if tree.path(&rel).symlink_metadata().is_ok() {
                    continue;
                }
                match kind {
                    "file" => tree.file(&rel, b"t"),
                    "dir" => tree.dir(&rel),
                    "symlink" => tree.symlink(&rel, "nowhere"),
                    _ => tree.node(&rel, FileType::Fifo, 0, 0),
                }
                tree.time(&rel, second, nanosecond);
            }
        }
    }
    tree.time("times", -2_000_000_000, 1);
}

fn xattrs(tree: &Builder) {
    tree.dir("xattrs/shared");
    tree.file("xattrs/plain", b"x");
    tree.xattr("xattrs/plain", "user.empty", b"");
    tree.xattr("xattrs/plain", "user.binary", &[0, 255, 10, 0]);
    tree.xattr("xattrs/plain", "trusted.one", b"only root sees me");
    tree.xattr("xattrs/plain", "security.anything", b"label");
    for len in [1, 2, 3, 4, 5, 100, 3000] {
        tree.file(format!("xattrs/value_{len}"), b"");
        tree.xattr(format!("xattrs/value_{len}"), "user.value", &vec![b'v'; len]);
    }
    for len in [1, 199, 200, 250] {
        tree.file(format!("xattrs/name_{len}"), b"");
        tree.xattr(format!("xattrs/name_{len}"), &format!("user.{}", "n".repeat(len)), b"long name");
    }
    tree.file("xattrs/many", b"");
    for i in 0..60 {
        tree.xattr("xattrs/many", &format!("user.number.{i:03}"), format!("{i}").as_bytes());
    }
    // cap_net_raw=ep, version 2 without a root id.
    let capability = [&0x0200_0001_u32.to_le_bytes()[..], &(1_u32 << 13).to_le_bytes(), &[0; 12]].concat();
    tree.file("xattrs/ping", b"#!/bin/true\n");
    tree.mode("xattrs/ping", 0o755);
    tree.xattr("xattrs/ping", "security.capability", &capability);
    tree.symlink("xattrs/symlink", "plain");
    tree.xattr("xattrs/symlink", "trusted.on_a_symlink", b"yes");
    tree.node("xattrs/fifo", FileType::Fifo, 0, 0);
    tree.xattr("xattrs/fifo", "trusted.on_a_fifo", b"yes");
    tree.node("xattrs/device", FileType::BlockDevice, 7, 7);
    tree.xattr("xattrs/device", "security.on_a_device", b"yes");
    tree.xattr("xattrs", "user.on_a_directory", b"yes");
    for i in 0..300 {
        let rel = format!("xattrs/shared/{i}");
        tree.file(&rel, b"");
        for j in 0..(i % 6) {
            tree.xattr(&rel, &format!("user.shared.{j}"), &[b's'; 40]);
        }
        if i % 7 == 0 {
            tree.xattr(&rel, "user.own", format!("only {i}").as_bytes());
        }
    }
}

/// POSIX ACLs in the kernel's own form: version 2, then entries of tag, permissions and id.
fn acls(tree: &Builder) {
    const NOBODY: u32 = 65_534;
    const NO_ID: u32 = u32::MAX;
    let acl = |entries: &[(u16, u16, u32)]| {
        let mut bytes = 2_u32.to_le_bytes().to_vec();
        for (tag, perm, id) in entries {
            bytes.extend_from_slice(&tag.to_le_bytes());
            bytes.extend_from_slice(&perm.to_le_bytes());
            bytes.extend_from_slice(&id.to_le_bytes());
        }
        bytes
    };
    // user:: rw-, user:nobody r-x, user:4000000000 ---, group:: r--, group:nobody rwx, mask rwx, other ---
    let access = acl(&[
        (1, 6, NO_ID),
        (2, 5, NOBODY),
        (2, 0, 4_000_000_000),
        (4, 4, NO_ID),
        (8, 7, NOBODY),
        (16, 7, NO_ID),
        (32, 0, NO_ID),
    ]);
    tree.dir("acls/dir");
    tree.dir("acls/both");
    tree.file("acls/file", b"shared with nobody");
    tree.file("acls/file_again", b"the same list on a second file");
    tree.mode("acls/file", 0o640);
    for rel in ["acls/file", "acls/file_again", "acls/both"] {
        tree.xattr(rel, "system.posix_acl_access", &access);
    }
    for rel in ["acls/dir", "acls/both"] {
        tree.xattr(rel, "system.posix_acl_default", &access);
    }
    // Born under a default list, so it inherits one.
    tree.file("acls/dir/inherits", b"");
    tree.dir("acls/dir/inherits_default");
}
