//! The framing of a CARv1, <https://ipld.io/specs/transport/car/carv1/>.

use bytes::Bytes;
use cid::Cid;
use g8_cache::{BlockId, VerifiedBlock};
use serde::Serialize;

/// The header of a CAR with one root.
pub(super) fn header(root: &BlockId) -> Bytes {
    #[derive(Serialize)]
    struct Header<'a> {
        roots: [&'a Cid; 1],
        version: u64,
    }
    let header = serde_ipld_dagcbor::to_vec(&Header { roots: [&root.cid()], version: 1 });
    let header = header.expect("a CID and a number can be encoded");
    let mut buffer = unsigned_varint::encode::usize_buffer();
    [unsigned_varint::encode::usize(header.len(), &mut buffer), &header].concat().into()
}

/// What stands before the bytes of a block: the length of both, and its CID.
pub(super) fn prefix(block: &VerifiedBlock) -> Bytes {
    let cid = block.id().cid().to_bytes();
    let mut buffer = unsigned_varint::encode::usize_buffer();
    let len = unsigned_varint::encode::usize(cid.len() + block.bytes().len(), &mut buffer);
    [len, &cid].concat().into()
}
