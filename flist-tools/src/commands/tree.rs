//! `flist tree REF [PATH]`: draw the tree as tree(1) does.

use g8_fs::erofs::Inode;
use g8_fs::paths::Last;

use crate::cli::{Global, TreeArgs};
use crate::output;
use crate::session::Session;

pub fn run(global: &Global, args: &TreeArgs) -> anyhow::Result<()> {
    let session = Session::open(global, &args.reference)?;
    let tree = &session.fs.image().tree;
    let start = session.find(&args.path, Last::Follow)?;
    use std::os::unix::ffi::OsStrExt;
    output::line(output::name(args.path.as_os_str().as_bytes()))?;
    let (mut directories, mut files) = (0u64, 0u64);
    // Entries still to draw, each with what stands before it; the last of its directory draws another branch.
    let mut pending: Vec<(Vec<u8>, Inode, String, bool, usize)> = Vec::new();
    let push = |pending: &mut Vec<_>, dir: &Inode, indent: &str, depth: usize| -> anyhow::Result<()> {
        if !dir.is_dir() || args.depth.is_some_and(|most| depth > most) {
            return Ok(());
        }
        let mut entries = Vec::new();
        for entry in tree.read_dir(dir, 0)? {
            let entry = entry?;
            if entry.name != b"." && entry.name != b".." {
                entries.push((entry.name.to_vec(), tree.inode(entry.nid)?));
            }
        }
        for (n, (name, inode)) in entries.into_iter().rev().enumerate() {
            pending.push((name, inode, indent.to_owned(), n == 0, depth));
        }
        Ok(())
    };
    push(&mut pending, &start, "", 1)?;
    while let Some((name, inode, indent, last, depth)) = pending.pop() {
        let branch = if last { "└── " } else { "├── " };
        let mut line = format!("{indent}{branch}{}", output::name(&name));
        if inode.is_symlink() {
            line.push_str(&format!(" -> {}", output::name(tree.read_link(&inode)?)));
        }
        output::line(line)?;
        if inode.is_dir() {
            directories += 1;
            let below = format!("{indent}{}", if last { "    " } else { "│   " });
            push(&mut pending, &inode, &below, depth + 1)?;
        } else {
            files += 1;
        }
    }
    output::line(format_args!("\n{directories} directories, {files} files"))
}
