//! What is in an image, in the image: how old it is, and a line for each file and the kernel, by which a machine can say what it
//! runs. The SHA-256 of it is the build id.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::tree::{Content, Node, PLAIN, Tree};

/// Where it is in the image.
const PLACE: &str = "/etc/g8os/manifest";

/// Puts it into the tree, and returns the build id. `made` is when its packages were locked, in seconds since 1970.
pub fn insert(tree: &mut Tree, kernel: &Path, made: u64) -> io::Result<String> {
    let mut text = format!("made {made}\nkernel {}\n", digest(&std::fs::read(kernel)?));
    for (path, node) in tree.iter() {
        match node {
            Node::Folder(mode) => writeln!(text, "folder {mode:o} {path:?}"),
            Node::File(content, mode) => {
                writeln!(text, "file {mode:o} {path:?} {}", digest(&content.read()?))
            }
            Node::Link(to) => writeln!(text, "link {path:?} {to:?}"),
            Node::Device(major, minor) => writeln!(text, "device {major}:{minor} {path:?}"),
        }
        .map_err(io::Error::other)?;
    }
    let id = digest(text.as_bytes());
    tree.insert(PLACE, Node::File(Content::Bytes(text.into_bytes()), PLAIN));
    Ok(id)
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_changes_in_an_image_changes_its_build_id() {
        let kernel = tempfile::NamedTempFile::new().unwrap();
        let of = |changes: &dyn Fn(&mut Tree)| {
            let mut tree = Tree::new();
            tree.insert("/etc/file", Node::File(Content::Bytes(b"a".to_vec()), PLAIN));
            changes(&mut tree);
            insert(&mut tree, kernel.path(), 1).unwrap()
        };
        let usual = of(&|_| {});
        assert_eq!(usual, of(&|_| {}));
        let changes: [&dyn Fn(&mut Tree); 4] = [
            &|tree| tree.insert("/etc/file", Node::File(Content::Bytes(b"b".to_vec()), PLAIN)),
            &|tree| tree.insert("/etc/file", Node::File(Content::Bytes(b"a".to_vec()), 0o755)),
            &|tree| tree.insert("/etc/more", Node::Link("file".into())),
            &|tree| tree.insert("/etc/empty", Node::Folder(0o755)),
        ];
        for change in changes {
            assert_ne!(of(change), usual);
        }
        std::fs::write(kernel.path(), "another").unwrap();
        assert_ne!(of(&|_| {}), usual);
    }
}
