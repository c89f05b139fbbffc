//! What stands at the front of some bytes of a CAR. Whoever has too few of them is told how many are needed.

use std::ops::Range;

use cid::Cid;
use serde::Deserialize;
use unsigned_varint::decode;

use super::{MAX_CID, MAX_HEADER, MAX_SECTION};

/// Why bytes are not those of a CAR.
#[derive(Debug, thiserror::Error)]
pub enum BadCar {
    /// A length is none.
    #[error("a length is not a varint")]
    Varint,
    /// The header is longer than any.
    #[error("the header has {0} bytes, more than {MAX_HEADER}: it is not a CAR")]
    HeaderLen(u64),
    /// The header is something else.
    #[error("the header is not that of a CAR: {0}")]
    Header(String),
    /// Another version, such as the indexed one.
    #[error("it is a CAR of version {0}, and only version 1 can be read: extract the version 1 inside it")]
    Version(u64),
    /// A section is longer than one of a block.
    #[error("a section has {0} bytes, more than any block: {MAX_SECTION}")]
    SectionLen(u64),
    /// A section has no CID.
    #[error("a section does not begin with a CID: {0}")]
    Cid(String),
}

/// What was found at the front of the bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed<T> {
    /// All of it, in so many bytes.
    Whole(T, usize),
    /// The beginning: it has so many bytes or more. The CID is that of a section, once it is known.
    Short(usize, Option<Cid>),
}

/// A block as it lies in the bytes.
#[derive(Debug, PartialEq, Eq)]
pub struct Section {
    /// Its name, which may be one that no block of ours has.
    pub cid: Cid,
    /// Where its bytes are.
    pub data: Range<usize>,
}

/// The header: the roots.
pub fn header(bytes: &[u8]) -> Result<Parsed<Vec<Cid>>, BadCar> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Header {
        #[serde(default)]
        roots: Option<Vec<Cid>>,
        version: u64,
    }
    let Some((len, start)) = length(bytes)? else { return Ok(Parsed::Short(bytes.len() + 1, None)) };
    if len > MAX_HEADER as u64 {
        return Err(BadCar::HeaderLen(len));
    }
    let end = start + len as usize;
    let Some(header) = bytes.get(start..end) else { return Ok(Parsed::Short(end, None)) };
    let header: Header = serde_ipld_dagcbor::from_slice(header).map_err(|e| BadCar::Header(e.to_string()))?;
    match (header.version, header.roots) {
        (1, Some(roots)) => Ok(Parsed::Whole(roots, end)),
        (1, None) => Err(BadCar::Header("it names no roots".into())),
        (version, _) => Err(BadCar::Version(version)),
    }
}

/// The next section.
pub fn section(bytes: &[u8]) -> Result<Parsed<Section>, BadCar> {
    let Some((len, start)) = length(bytes)? else { return Ok(Parsed::Short(bytes.len() + 1, None)) };
    if len > MAX_SECTION as u64 {
        return Err(BadCar::SectionLen(len));
    }
    let end = start + len as usize;
    let here = &bytes[start..end.min(bytes.len())];
    let mut rest = here;
    let cid = match Cid::read_bytes(&mut rest) {
        Ok(cid) => cid,
        // It may be the beginning of one.
        Err(_) if bytes.len() < end && here.len() < MAX_CID => {
            return Ok(Parsed::Short(end.min(start + MAX_CID), None));
        }
        Err(error) => return Err(BadCar::Cid(error.to_string())),
    };
    if bytes.len() < end {
        return Ok(Parsed::Short(end, Some(cid)));
    }
    Ok(Parsed::Whole(Section { cid, data: start + (here.len() - rest.len())..end }, end))
}

/// A length and where what it counts begins; `None` when its last byte is not there yet.
fn length(bytes: &[u8]) -> Result<Option<(u64, usize)>, BadCar> {
    match decode::u64(bytes) {
        Ok((len, rest)) => Ok(Some((len, bytes.len() - rest.len()))),
        Err(decode::Error::Insufficient) => Ok(None),
        Err(_) => Err(BadCar::Varint),
    }
}
