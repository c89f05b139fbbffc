//! CARv1, the archive of IPFS: a header that names roots, then one section a block, as
//! <https://ipld.io/specs/transport/car/carv1/> draws it.
//!
//! ```text
//! file    = varint(n) header[n] section*
//! header  = dag-cbor {"roots": [CID...], "version": 1}
//! section = varint(n) (CID data)[n]
//! ```
//!
//! [`parse`] takes bytes, does no I/O, never panics and bounds every length; [`Index`] reads a whole archive once and proves
//! it; [`Writer`] writes one. What is written here is also the body of the gateway's CARs. The order of sections is the
//! writer's choice and no reader of ours relies on it.

mod index;
pub mod parse;
mod writer;

use g8_cache::{BlockId, MAX_STORED};
use serde::Serialize;

pub use index::{Index, Limits, OpenError};
pub use parse::BadCar;
pub use writer::Writer;

/// Longest header, which bounds the roots to some 1,600.
pub const MAX_HEADER: usize = 64 << 10;
/// Longest CID: four varints and a digest of 64 bytes.
pub const MAX_CID: usize = 4 * 10 + 64;
/// Longest section, without the varint before it.
pub const MAX_SECTION: usize = MAX_CID + MAX_STORED;

/// The header of an archive of `roots`, with its length before it.
pub fn header(roots: &[cid::Cid]) -> Vec<u8> {
    #[derive(Serialize)]
    struct Header<'a> {
        roots: &'a [cid::Cid],
        version: u64,
    }
    let header = serde_ipld_dagcbor::to_vec(&Header { roots, version: 1 });
    let header = header.expect("CIDs and a number can be encoded");
    let mut buffer = unsigned_varint::encode::usize_buffer();
    [unsigned_varint::encode::usize(header.len(), &mut buffer), &header].concat()
}

/// What stands before the `len` bytes of block `id`: the length of both, and the CID.
pub fn prefix(id: &BlockId, len: usize) -> Vec<u8> {
    let cid = id.cid().to_bytes();
    let mut buffer = unsigned_varint::encode::usize_buffer();
    [unsigned_varint::encode::usize(cid.len() + len, &mut buffer), &cid].concat()
}
