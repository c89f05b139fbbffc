//! `flist ls REF [PATH]`: list a directory as ls(1) does.

use g8_fs::erofs::{FileKind, Inode};
use g8_fs::paths::Last;
use serde::Serialize;

use crate::cli::{Global, LsArgs};
use crate::commands::stat::{Attributes, permissions, time};
use crate::output;
use crate::session::Session;

#[derive(Serialize)]
struct Entry {
    name: String,
    #[serde(flatten)]
    attributes: Attributes,
}

pub fn run(global: &Global, args: &LsArgs) -> anyhow::Result<()> {
    let session = Session::open(global, &args.reference)?;
    let tree = &session.fs.image().tree;
    let start = session.find(&args.path, Last::Follow)?;
    let mut found: Vec<(Vec<u8>, Inode)> = Vec::new();
    if start.is_dir() {
        for entry in tree.read_dir(&start, 0)? {
            let entry = entry?;
            if entry.name != b"." && entry.name != b".." {
                found.push((entry.name.to_vec(), tree.inode(entry.nid)?));
            }
        }
    } else {
        use std::os::unix::ffi::OsStrExt;
        found.push((args.path.as_os_str().as_bytes().to_vec(), start));
    }
    if global.json {
        let entries: anyhow::Result<Vec<Entry>> = found
            .iter()
            .map(|(name, inode)| {
                Ok(Entry { name: output::name(name), attributes: Attributes::of(&session, inode)? })
            })
            .collect();
        return output::json(&entries?);
    }
    for (name, inode) in found {
        let mut line = output::name(&name);
        if args.long {
            if inode.is_symlink() {
                line.push_str(&format!(" -> {}", output::name(tree.read_link(&inode)?)));
            }
            let size = match inode.kind() {
                FileKind::CharDevice | FileKind::BlockDevice => {
                    format!("{}, {}", inode.rdev.major, inode.rdev.minor)
                }
                FileKind::Regular
                | FileKind::Directory
                | FileKind::Symlink
                | FileKind::Fifo
                | FileKind::Socket => inode.size.to_string(),
            };
            line = format!(
                "{} {:>3} {:>5} {:>5} {:>10} {} {line}",
                permissions(&inode),
                inode.nlink,
                inode.uid,
                inode.gid,
                size,
                time(inode.mtime),
            );
        }
        output::line(line)?;
    }
    Ok(())
}
