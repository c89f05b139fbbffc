//! Just enough of CARs and dag-cbor for a node of tests: what is in an archive, and what a root reaches.

use std::collections::{BTreeMap, BTreeSet};

use crate::cid::{DAG_CBOR, SHA2_256, codec, encode};

/// A CIDv1 of SHA-256 in binary: version, codec, hash, length, digest.
const CID: usize = 36;
/// What stands before a CID where dag-cbor links to it: tag 42, a string of 37 bytes, and a zero.
const LINK: [u8; 5] = [0xd8, 0x2a, 0x58, 0x25, 0x00];

fn text(cid: &[u8]) -> String {
    encode(u64::from(cid[1]), SHA2_256, &cid[4..CID])
}

/// The CID that `bytes` have.
pub fn name(codec: u64, bytes: &[u8]) -> String {
    use std::io::Write;
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(bytes).expect("it is written");
    let line = crate::process::tool("sha256sum", [file.path().into()]).text();
    let digit = |at: usize| u8::from_str_radix(&line[at..at + 2], 16).expect("sha256sum prints hex");
    let digest: Vec<u8> = (0..32).map(|at| digit(at * 2)).collect();
    encode(codec, SHA2_256, &digest)
}

/// The first root of an archive.
pub fn root(car: &[u8]) -> String {
    links(&car[..header(car).unwrap_or(0)]).into_iter().next().unwrap_or_default()
}

/// Where the header ends.
fn header(car: &[u8]) -> Option<usize> {
    let (len, used) = varint(car)?;
    Some(used + len)
}

/// Every whole block of an archive, which may be cut off.
pub fn sections(car: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut rest = header(car).and_then(|end| car.get(end..)).unwrap_or_default();
    while let Some((len, used)) = varint(rest) {
        let Some(section) = rest.get(used..used + len) else { break };
        found.push((text(&section[..CID]), section[CID..].to_vec()));
        rest = &rest[used + len..];
    }
    found
}

/// Keeps blocks.
pub fn keep(blocks: &mut BTreeMap<String, Vec<u8>>, sections: Vec<(String, Vec<u8>)>) {
    blocks.extend(sections);
}

/// A block that `root` reaches and that is not there.
pub fn lacks(blocks: &BTreeMap<String, Vec<u8>>, root: &str) -> Option<String> {
    let (mut todo, mut seen) = (vec![root.to_owned()], BTreeSet::new());
    while let Some(cid) = todo.pop() {
        let Some(block) = blocks.get(&cid) else { return Some(cid) };
        if codec(&cid) == Some(DAG_CBOR) && seen.insert(cid) {
            todo.extend(links(block));
        }
    }
    None
}

fn links(node: &[u8]) -> Vec<String> {
    let starts = node.windows(LINK.len()).enumerate().filter(|(_, w)| *w == LINK);
    starts.filter_map(|(at, _)| node.get(at + LINK.len()..at + LINK.len() + CID)).map(text).collect()
}

fn varint(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut number = 0;
    for (at, byte) in bytes.iter().take(9).enumerate() {
        number |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((number, at + 1));
        }
    }
    None
}
