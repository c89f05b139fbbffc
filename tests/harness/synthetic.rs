//! Plain trees of a known size, where the oddities would only be in the way.

use std::path::{Path, PathBuf};

use crate::prng::SplitMix64;
use crate::tree::Builder;

const KIB: u64 = 1024;

/// About 60 MB that do not compress: 2,000 files of 4 to 20 KiB in 40 directories, six of 6 MiB.
pub fn sixty_megabytes(root: &Path) {
    let tree = Builder::at(root);
    let mut rng = SplitMix64::new(60);
    for dir in 0..40 {
        tree.dir(format!("dir-{dir:02}"));
        for file in 0..50 {
            let size = 4 * KIB + rng.below(16 * KIB);
            tree.file(format!("dir-{dir:02}/file-{file:02}"), &rng.bytes(size as usize));
        }
    }
    for file in 0..6 {
        tree.file(format!("big-{file}"), &rng.bytes(6 << 20));
    }
    tree.finish();
}

/// About 308 MiB that do not compress, the large blocks before the small ones: 240 files of 1 MiB, then 1,040 of 67 KiB, each a
/// block of its own.
pub fn three_hundred_megabytes(root: &Path) {
    let tree = Builder::at(root);
    let mut rng = SplitMix64::new(300);
    for file in 0..240 {
        tree.file(format!("a-{file:03}"), &rng.bytes(1 << 20));
    }
    for file in 0..1040 {
        tree.file(format!("b-{file:04}"), &rng.bytes(67 << 10));
    }
    tree.finish();
}

/// About 7 MB in which no file depends on more than a few blocks: 60 files of 60 KiB, two of 1.5 MiB, and a few tiny ones.
pub fn seven_megabytes(root: &Path) {
    let tree = Builder::at(root);
    let mut rng = SplitMix64::new(7);
    tree.dir("files");
    for file in 0..60 {
        tree.file(format!("files/{file:02}"), &rng.bytes(60 << 10));
    }
    tree.file("big-a", &rng.bytes(3 << 19));
    tree.file("big-b", &rng.text(3 << 19));
    for file in 0..5 {
        tree.file(format!("tiny-{file}"), format!("tiny {file}").as_bytes());
    }
    tree.symlink("link", "big-a");
    tree.finish();
}

/// A few small files of every ordinary kind: for tests that need some image, no matter which.
pub fn tiny(root: &Path) {
    let tree = Builder::at(root);
    tree.dir("dir/empty");
    tree.file("hello", b"hello, world\n");
    tree.file("dir/noise", &SplitMix64::new(5).bytes(100_000));
    tree.file("dir/text", &SplitMix64::new(6).text(50_000));
    tree.hardlink("hello", "dir/hello_again");
    tree.symlink("link", "dir/text");
    tree.finish();
}

/// Every regular file below `root`, sorted, as paths from there.
pub fn files(root: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    crate::walk::walk(root, &mut |v| {
        if rustix::fs::FileType::from_raw_mode(v.stat.st_mode).is_file() {
            out.push(v.rel.clone());
        }
    })
    .unwrap_or_else(|e| panic!("walk {}: {e}", root.display()));
    out.sort();
    out
}
