//! The archive that the kernel unpacks: cpio in the format `newc` (Documentation/driver-api/early-userspace/
//! buffer-format.rst), the same bytes for the same tree.
//!
//! Owners are root, times are zero, numbers count up, and hard links are not used. A file is at most 4 GiB.

use std::io::{self, Write};

use crate::tree::{Node, Tree};

const FOLDER: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_000;
const DEVICE: u32 = 0o020_000;
/// Its modes are not looked at.
const ANY: u32 = 0o777;
/// The console is root's alone.
const PRIVATE: u32 = 0o600;
/// The name of the last entry.
const TRAILER: &str = "TRAILER!!!";

/// Writes a tree and returns how many bytes that took.
pub fn write(tree: &Tree, to: &mut impl Write) -> io::Result<u64> {
    let mut archive = Archive { to, number: 0, written: 0 };
    for (path, node) in tree.iter() {
        match node {
            Node::Folder(mode) => archive.entry(path, FOLDER | mode, (0, 0), &[])?,
            Node::File(content, mode) => archive.entry(path, FILE | mode, (0, 0), &content.read()?)?,
            Node::Link(target) => archive.entry(path, LINK | ANY, (0, 0), target.as_bytes())?,
            Node::Device(major, minor) => archive.entry(path, DEVICE | PRIVATE, (*major, *minor), &[])?,
        }
    }
    archive.number = u32::MAX;
    archive.entry(TRAILER, 0, (0, 0), &[])?;
    Ok(archive.written)
}

struct Archive<'a, W> {
    to: &'a mut W,
    number: u32,
    written: u64,
}

impl<W: Write> Archive<'_, W> {
    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), content: &[u8]) -> io::Result<()> {
        let size = u32::try_from(content.len())
            .map_err(|_| io::Error::other(format!("{name} is larger than an archive can hold")))?;
        self.number = self.number.wrapping_add(1);
        let links = if mode & FOLDER == FOLDER { 2 } else { 1 };
        let name_size = name.len() as u32 + 1;
        // inode, mode, uid, gid, links, mtime, size, device of the file (2), of what it is (2), length of the name, sum
        let fields = [self.number, mode, 0, 0, links, 0, size, 0, 0, device.0, device.1, name_size, 0];
        let header: String = fields.iter().map(|field| format!("{field:08X}")).collect();
        self.put(b"070701")?;
        self.put(header.as_bytes())?;
        self.put(name.as_bytes())?;
        self.put(&[0])?;
        self.pad()?;
        self.put(content)?;
        self.pad()
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.to.write_all(bytes)?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Headers and contents begin at multiples of four.
    fn pad(&mut self) -> io::Result<()> {
        let rest = (self.written % 4) as usize;
        self.put(&[0; 4][..(4 - rest) % 4])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Content, PLAIN};

    fn tree() -> Tree {
        let mut tree = Tree::new();
        tree.insert("/etc/a", Node::File(Content::Bytes(b"hello".to_vec()), PLAIN));
        tree.insert("/init", Node::Link("usr/bin/core0".into()));
        tree.insert("/tmp", Node::Folder(0o1777));
        tree
    }

    fn archive() -> Vec<u8> {
        let mut bytes = Vec::new();
        let length = write(&tree(), &mut bytes).unwrap();
        assert_eq!(length, bytes.len() as u64);
        bytes
    }

    #[test]
    fn an_entry_is_what_the_format_says_byte_by_byte() {
        let bytes = archive();
        let name = b"etc/a\0";
        let at = bytes.windows(name.len()).position(|window| window == name).unwrap();
        assert_eq!(at % 4, 110 % 4, "the header has 110 bytes and begins at a multiple of four");
        let header = std::str::from_utf8(&bytes[at - 110..at]).unwrap();
        let field =
            |number: usize| u32::from_str_radix(&header[6 + number * 8..14 + number * 8], 16).unwrap();
        assert_eq!(&header[..6], "070701");
        assert_eq!((field(1), field(2), field(3), field(4), field(5), field(6)), (0o100_644, 0, 0, 1, 0, 5));
        assert_eq!(field(11), 6);
        let content = at + name.len();
        assert_eq!(&bytes[content + (4 - content % 4) % 4..][..5], b"hello");
        assert_eq!(bytes.len() % 4, 0);
    }

    #[test]
    fn other_programs_read_it() {
        use std::process::{Command, Stdio};
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("archive");
        std::fs::write(&path, archive()).unwrap();
        let listed = Command::new("busybox")
            .args(["cpio", "-t", "-v"])
            .stdin(Stdio::from(std::fs::File::open(&path).unwrap()))
            .output()
            .unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        for line in ["drwxrwxrwt", "init -> usr/bin/core0", "etc/a", "dev/console"] {
            assert!(listed.contains(line), "{line} in {listed}");
        }
    }

    #[test]
    fn numbers_are_never_used_twice() {
        let bytes = archive();
        let text = String::from_utf8_lossy(&bytes);
        let mut numbers: Vec<&str> =
            text.match_indices("070701").map(|(at, _)| &text[at + 6..at + 14]).collect();
        let count = numbers.len();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!((numbers.len(), count > 8), (count, true));
    }
}
