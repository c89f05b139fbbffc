//! A root filesystem of a few programs of this machine and the libraries they need.

use std::fs;
use std::path::Path;

use crate::{args, process};

/// Copies `programs` (absolute paths) and their libraries to the same places below `root`, with `/bin/sh` and the usual
/// empty directories.
pub fn build(root: &Path, programs: &[&str]) {
    for dir in ["bin", "dev", "etc", "proc", "sys", "tmp", "root", "usr/bin"] {
        mkdir(&root.join(dir));
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nguest:x:1234:2345::/tmp:/bin/sh\n")
        .expect("write passwd");
    fs::write(root.join("etc/group"), "root:x:0:\nguest:x:2345:\n").expect("write group");
    copy("/bin/sh", root);
    for program in programs {
        copy(program, root);
    }
}

fn copy(program: &str, root: &Path) {
    put(program, root);
    for library in libraries(program) {
        put(&library, root);
    }
}

/// The absolute paths in the output of ldd: `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x...)` or the path alone.
fn libraries(program: &str) -> Vec<String> {
    let listing = process::tool("ldd", args![program]).text();
    let path = |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(str::to_owned);
    listing.lines().filter_map(path).collect()
}

fn put(file: &str, root: &Path) {
    let to = root.join(file.trim_start_matches('/'));
    if to.exists() {
        return;
    }
    mkdir(to.parent().expect("an absolute path has a parent"));
    fs::copy(file, &to).unwrap_or_else(|e| panic!("copy {file}: {e}"));
}

fn mkdir(dir: &Path) {
    fs::create_dir_all(dir).unwrap_or_else(|e| panic!("mkdir {}: {e}", dir.display()));
}
