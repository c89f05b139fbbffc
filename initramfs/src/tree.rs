//! The files of an image, before they are written down. Nothing of the machine that builds gets in but contents: owners,
//! times, numbers and the order are the same everywhere, and modes are one of two.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;

/// Programs and folders.
pub const EXECUTABLE: u32 = 0o755;
/// All other files.
pub const PLAIN: u32 = 0o644;
/// The folders that lie in `/usr`, and are links where they used to be.
const MERGED: [&str; 4] = ["bin", "sbin", "lib", "lib64"];

/// Paths from the root, without a slash in front, and what lies there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree(BTreeMap<String, Node>);

/// What lies at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// A folder and its mode.
    Folder(u32),
    /// A file and its mode.
    File(Content, u32),
    /// A symbolic link and where it leads.
    Link(String),
    /// A character device: major and minor number.
    Device(u32, u32),
}

/// Where the bytes of a file are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Here.
    Bytes(Vec<u8>),
    /// In a file of this machine.
    Path(PathBuf),
}

impl Content {
    /// The bytes.
    pub fn read(&self) -> io::Result<Vec<u8>> {
        match self {
            Self::Bytes(bytes) => Ok(bytes.clone()),
            Self::Path(path) => fs::read(path),
        }
    }
}

impl Tree {
    /// The folders of `/usr`, the links to them, and the console that the kernel opens for PID 1.
    pub fn new() -> Self {
        let mut tree = Self(BTreeMap::new());
        for name in MERGED {
            tree.insert(&format!("/usr/{name}"), Node::Folder(EXECUTABLE));
            tree.0.insert(name.to_owned(), Node::Link(format!("usr/{name}")));
        }
        tree.insert("/dev/console", Node::Device(5, 1));
        tree
    }

    /// Puts something at a path, in folders that are made for it.
    pub fn insert(&mut self, path: &str, node: Node) {
        let path = place(path);
        for (end, _) in path.match_indices('/') {
            self.0.entry(path[..end].to_owned()).or_insert(Node::Folder(EXECUTABLE));
        }
        self.0.insert(path, node);
    }

    /// What lies at a path.
    pub fn get(&self, path: &str) -> Option<&Node> {
        self.0.get(&place(path))
    }

    /// All of it: folders before what is in them, and otherwise by the bytes of the paths.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.0.iter().map(|(path, node)| (path.as_str(), node))
    }
}

impl Default for Tree {
    fn default() -> Self {
        Self::new()
    }
}

/// A path as it is in the image: without a slash in front, without `.` and `..`, and in `/usr` where that is merged.
pub fn place(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    if parts.len() > 1 && MERGED.contains(&parts[0]) {
        parts.insert(0, "usr");
    }
    parts.join("/")
}

/// Where a symbolic link at `path` leads.
pub fn target(path: &str, link: &str) -> String {
    if link.starts_with('/') {
        return place(link);
    }
    let path = place(path);
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    place(&format!("{folder}/{link}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_placed_where_they_are_in_a_merged_usr() {
        for (path, expected) in [
            ("/bin/ip", "usr/bin/ip"),
            ("./sbin//modprobe", "usr/sbin/modprobe"),
            ("/usr/bin/x/../y", "usr/bin/y"),
            ("/etc/bin/x", "etc/bin/x"),
            ("/../../lib/a", "usr/lib/a"),
        ] {
            assert_eq!(place(path), expected);
        }
        assert_eq!(target("/sbin/modprobe", "/bin/kmod"), "usr/bin/kmod");
        assert_eq!(target("/usr/lib/dropbear/c", "../../bin/c"), "usr/bin/c");
    }

    #[test]
    fn folders_come_before_what_is_in_them() {
        let mut tree = Tree::new();
        tree.insert("/a/b/c", Node::Link("x".into()));
        tree.insert("/a/b", Node::Folder(0o700));
        let paths: Vec<&str> =
            tree.iter().map(|(path, _)| path).filter(|path| path.starts_with('a')).collect();
        assert_eq!(paths, ["a", "a/b", "a/b/c"]);
        assert_eq!(tree.get("/a/b"), Some(&Node::Folder(0o700)));
    }
}
