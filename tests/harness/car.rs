//! A CARv1 of the objects of a store, made by hand: a second writer beside the product's, and the ways an archive goes bad.

use std::path::Path;

use crate::{cid, store};

/// An archive and where its sections begin.
pub struct Car {
    /// All bytes.
    pub bytes: Vec<u8>,
    /// CID, offset of the section, offset of the bytes of the block.
    pub sections: Vec<(String, usize, usize)>,
}

impl Car {
    /// Every object of `store` that `keep` wants, in the order of their names, with `root` in the header.
    pub fn of(store: &Path, root: &str, keep: impl Fn(&str) -> bool) -> Self {
        let mut bytes = header(root);
        let mut sections = Vec::new();
        for (name, path) in store::objects(store).into_iter().filter(|(name, _)| keep(name)) {
            let start = bytes.len();
            let (id, data) = (cid::bytes(&name).expect("objects are CIDs"), std::fs::read(path).unwrap());
            cid::varint(&mut bytes, (id.len() + data.len()) as u64);
            bytes.extend_from_slice(&id);
            sections.push((name, start, bytes.len()));
            bytes.extend_from_slice(&data);
        }
        Self { bytes, sections }
    }

    /// Writes it to `path` and returns it as `--from` names it.
    pub fn write(&self, path: &Path) -> String {
        std::fs::write(path, &self.bytes).unwrap();
        format!("car:{}", path.display())
    }
}

/// `{"roots": [root], "version": 1}` in dag-cbor, after its length.
pub fn header(root: &str) -> Vec<u8> {
    let root = cid::bytes(root).expect("a CID");
    let mut node = vec![0xa2, 0x65];
    node.extend_from_slice(b"roots");
    // An array of one link: tag 42, a byte string that begins with zero.
    node.extend_from_slice(&[0x81, 0xd8, 0x2a, 0x58, root.len() as u8 + 1, 0]);
    node.extend_from_slice(&root);
    node.push(0x67);
    node.extend_from_slice(b"version");
    node.push(1);
    let mut bytes = Vec::new();
    cid::varint(&mut bytes, node.len() as u64);
    bytes.extend_from_slice(&node);
    bytes
}
