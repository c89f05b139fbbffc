//! The blocks of a CAR as a gateway sends it: depth first, in the order of the links, each once.
//!
//! Links are found by how they look in dag-cbor: tag 42 and a byte string of a zero and a CIDv1 with SHA-256. Nothing else in a
//! node of an flist looks so.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::{car, cid};

/// Tag 42, a byte string of 37 bytes, the zero.
const LINK: [u8; 5] = [0xd8, 0x2a, 0x58, 0x25, 0];
/// A CIDv1 of SHA-256.
const CID_LEN: usize = 36;

/// A section: what stands before a block, and the file of that.
pub(super) struct Section {
    pub(super) prefix: Vec<u8>,
    pub(super) block: PathBuf,
    pub(super) len: u64,
}

/// The sections below `root`, the first with the header before it; none without the root. Like a gateway that finds a
/// block missing, it ends there.
pub(super) fn sections(store: &Path, root: &str) -> Option<Vec<Section>> {
    let (mut out, mut seen, mut waiting) = (Vec::new(), HashSet::new(), vec![cid::bytes(root)?]);
    let mut before = car::header(root);
    while let Some(id) = waiting.pop() {
        if !seen.insert(id.clone()) {
            continue;
        }
        let Some((block, len)) = file(store, &cid::text(&id)) else { break };
        if u64::from(id[1]) == cid::DAG_CBOR {
            waiting.extend(links(&fs::read(&block).ok()?).into_iter().rev());
        }
        let mut prefix = std::mem::take(&mut before);
        cid::varint(&mut prefix, id.len() as u64 + len);
        prefix.extend_from_slice(&id);
        out.push(Section { prefix, block, len });
    }
    (!out.is_empty()).then_some(out)
}

fn file(store: &Path, cid: &str) -> Option<(PathBuf, u64)> {
    let path = super::found::place(store, cid)?;
    let len = fs::metadata(&path).ok()?.len();
    Some((path, len))
}

fn links(node: &[u8]) -> Vec<Vec<u8>> {
    let starts = node.windows(LINK.len()).enumerate().filter(|(_, window)| **window == LINK);
    starts.filter_map(|(at, _)| Some(node.get(at + LINK.len()..)?.get(..CID_LEN)?.to_vec())).collect()
}
