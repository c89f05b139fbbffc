//! `flist stat REF PATH...`: every attribute of a file.

use g8_fs::erofs::{FileKind, Inode, Mtime};
use g8_fs::paths::Last;
use serde::Serialize;

use crate::cli::{Global, StatArgs};
use crate::output;
use crate::session::Session;

/// An inode for programs. Values of xattrs are hexadecimal, since they are bytes.
#[derive(Serialize)]
pub struct Attributes {
    kind: &'static str,
    inode: u64,
    mode: String,
    links: u32,
    uid: u32,
    gid: u32,
    size: u64,
    mtime_secs: i64,
    mtime_nanos: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<(u32, u32)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    xattrs: Vec<(String, String)>,
}

impl Attributes {
    /// The attributes of `inode`.
    pub fn of(session: &Session, inode: &Inode) -> anyhow::Result<Attributes> {
        let tree = &session.fs.image().tree;
        let mut xattrs = Vec::new();
        for xattr in tree.xattrs(inode)? {
            let xattr = xattr?;
            let name = output::name(&[xattr.prefix, xattr.name].concat());
            xattrs.push((name, xattr.value.iter().map(|b| format!("{b:02x}")).collect()));
        }
        let device = matches!(inode.kind(), FileKind::CharDevice | FileKind::BlockDevice);
        Ok(Attributes {
            kind: kind(inode.kind()),
            inode: inode.nid.0,
            mode: format!("{:04o}", inode.permissions()),
            links: inode.nlink,
            uid: inode.uid,
            gid: inode.gid,
            size: inode.size,
            mtime_secs: inode.mtime.secs,
            mtime_nanos: inode.mtime.nanos,
            device: device.then_some((inode.rdev.major, inode.rdev.minor)),
            target: if inode.is_symlink() { Some(output::name(tree.read_link(inode)?)) } else { None },
            xattrs,
        })
    }
}

pub fn run(global: &Global, args: &StatArgs) -> anyhow::Result<()> {
    let session = Session::open(global, &args.reference)?;
    let last = if args.dereference { Last::Follow } else { Last::Itself };
    let mut all = Vec::new();
    for path in &args.paths {
        let inode = session.find(path, last)?;
        let attributes = Attributes::of(&session, &inode)?;
        if !global.json {
            use std::os::unix::ffi::OsStrExt;
            output::line(format_args!("  File: {}", output::name(path.as_os_str().as_bytes())))?;
            if let Some(target) = &attributes.target {
                output::line(format_args!("Target: {target}"))?;
            }
            output::line(format_args!(
                "  Size: {:<12} Inode: {:<10} Links: {:<5} {}",
                attributes.size, attributes.inode, attributes.links, attributes.kind
            ))?;
            if let Some((major, minor)) = attributes.device {
                output::line(format_args!("Device: {major}, {minor}"))?;
            }
            output::line(format_args!(
                "Access: ({}/{}) Uid: {} Gid: {}",
                attributes.mode,
                permissions(&inode),
                attributes.uid,
                attributes.gid
            ))?;
            output::line(format_args!("Modify: {}.{:09}", time(inode.mtime), inode.mtime.nanos))?;
            for (name, value) in &attributes.xattrs {
                output::line(format_args!(" Xattr: {name}=0x{value}"))?;
            }
        }
        all.push(attributes);
    }
    if global.json { output::json(&all) } else { Ok(()) }
}

fn kind(kind: FileKind) -> &'static str {
    match kind {
        FileKind::Regular => "regular file",
        FileKind::Directory => "directory",
        FileKind::Symlink => "symbolic link",
        FileKind::CharDevice => "character device",
        FileKind::BlockDevice => "block device",
        FileKind::Fifo => "fifo",
        FileKind::Socket => "socket",
    }
}

/// `drwxr-xr-x`, as ls(1) prints it.
pub fn permissions(inode: &Inode) -> String {
    let kind = match inode.kind() {
        FileKind::Regular => '-',
        FileKind::Directory => 'd',
        FileKind::Symlink => 'l',
        FileKind::CharDevice => 'c',
        FileKind::BlockDevice => 'b',
        FileKind::Fifo => 'p',
        FileKind::Socket => 's',
    };
    let mode = inode.permissions();
    let mut text = String::from(kind);
    for (shift, special, mark) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (mode & special != 0, bits & 1 != 0) {
            (false, false) => '-',
            (false, true) => 'x',
            (true, true) => mark,
            (true, false) => mark.to_ascii_uppercase(),
        });
    }
    text
}

/// A time in UTC, to the second.
pub fn time(mtime: Mtime) -> String {
    match jiff::Timestamp::from_second(mtime.secs) {
        Ok(time) => time.strftime("%Y-%m-%d %H:%M:%S").to_string(),
        // Beyond the year 9999.
        Err(_) => format!("@{}", mtime.secs),
    }
}
