//! Every kind of file: symlinks of all lengths, hard links, fifos, sockets and devices.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::FileType;

use crate::tree::Builder;

pub(super) fn plant(tree: &Builder) {
    symlinks(tree);
    hardlinks(tree);
    special(tree);
}

fn symlinks(tree: &Builder) {
    tree.dir("symlinks");
    tree.file("symlinks/target", b"found");
    for (name, target) in [
        ("to_file", "target"),
        ("to_dir", "."),
        ("upwards", "../kinds/fifo"),
        ("absolute", "/etc/hostname"),
        ("dangling", "nothing/here"),
        ("loop_a", "loop_b"),
        ("loop_b", "loop_a"),
        ("one_byte", "x"),
        ("with_newline", "a\nb"),
        ("slashes", "a//b/./../c/"),
    ] {
        tree.symlink(format!("symlinks/{name}"), target);
    }
    tree.symlink("symlinks/not_utf8", OsStr::from_bytes(b"\xff\xfe/\x80"));
    // 4,095 is the longest there is; around 2,048 and 3,996 a writer changes between inline and a block of its own.
    for len in [59, 60, 61, 1023, 1024, 2047, 2048, 2049, 3900, 4000, 4031, 4032, 4033, 4064, 4094, 4095] {
        let target: String = (0..len).map(|i| if i % 200 == 199 { '/' } else { 'l' }).collect();
        tree.symlink(format!("symlinks/length_{len}"), target);
    }
}

fn hardlinks(tree: &Builder) {
    tree.dir("hardlinks/a/b/c");
    tree.dir("hardlinks/z");
    tree.file("hardlinks/pair", b"two names, one directory");
    tree.hardlink("hardlinks/pair", "hardlinks/pair_again");
    tree.file("hardlinks/z/first", b"five names in five directories");
    for rel in ["hardlinks/a/second", "hardlinks/a/b/third", "hardlinks/a/b/c/fourth", "zz_fifth_at_the_top"]
    {
        tree.hardlink("hardlinks/z/first", rel);
    }
    tree.file("hardlinks/many_0", b"300 names");
    for i in 1..300 {
        tree.hardlink("hardlinks/many_0", format!("hardlinks/many_{i}"));
    }
    tree.file("hardlinks/empty", b"");
    tree.hardlink("hardlinks/empty", "hardlinks/empty_again");
    // The same content under another inode must not become a link.
    tree.file("hardlinks/pair_copy", b"two names, one directory");
    tree.node("hardlinks/fifo", FileType::Fifo, 0, 0);
    tree.hardlink("hardlinks/fifo", "hardlinks/a/fifo_again");
    tree.symlink("hardlinks/symlink", "somewhere");
    tree.hardlink("hardlinks/symlink", "hardlinks/a/symlink_again");
    tree.node("hardlinks/device", FileType::CharacterDevice, 5, 1);
    tree.hardlink("hardlinks/device", "hardlinks/z/device_again");
}

fn special(tree: &Builder) {
    tree.dir("kinds");
    tree.node("kinds/fifo", FileType::Fifo, 0, 0);
    tree.node("kinds/socket", FileType::Socket, 0, 0);
    // Linux has 12 bits of major and 20 bits of minor; 0/0 is an overlay whiteout and a legal node.
    for (major, minor) in
        [(0, 0), (1, 3), (7, 255), (8, 256), (255, 255), (256, 0), (4095, 1_048_575), (0, 65_536)]
    {
        tree.node(format!("kinds/char_{major}_{minor}"), FileType::CharacterDevice, major, minor);
        tree.node(format!("kinds/block_{major}_{minor}"), FileType::BlockDevice, major, minor);
    }
    tree.dir("kinds/empty_directory");
    tree.file("kinds/empty_file", b"");
}
