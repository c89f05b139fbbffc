//! Shards: dag-cbor arrays of links that name every data block, so that nothing hides inside compressed metadata
//! and a recursive pin or a garbage collector of any IPFS node sees the whole image.

use cid::Cid;
use g8_cache::{BlockId, Codec};

use super::FormatError;

/// Most links in one shard: 2,048 links of 41 bytes are 84 kB, and two levels reach 4 million blocks.
pub const MAX_LINKS: usize = 2048;

/// The canonical bytes of the shard that links to `blocks`.
pub fn encode(blocks: &[BlockId]) -> Result<Vec<u8>, FormatError> {
    let links: Vec<Cid> = blocks.iter().map(BlockId::cid).collect();
    serde_ipld_dagcbor::to_vec(&links).map_err(|e| cbor(e.to_string()))
}

/// Parses a shard: between one and [`MAX_LINKS`] links to raw blocks, in canonical form.
pub fn decode(bytes: &[u8]) -> Result<Vec<BlockId>, FormatError> {
    let links: Vec<Cid> = serde_ipld_dagcbor::from_slice(bytes).map_err(|e| cbor(e.to_string()))?;
    if links.is_empty() || links.len() > MAX_LINKS {
        return Err(FormatError::field("shard", format!("{} links, not 1 to {MAX_LINKS}", links.len())));
    }
    let blocks = links
        .iter()
        .map(|cid| match BlockId::try_from(cid) {
            Ok(id) if id.codec() == Codec::Raw => Ok(id),
            Ok(_) => Err(FormatError::field("shard", format!("{cid} is not a raw block"))),
            Err(source) => Err(FormatError::Link { what: "shard", source }),
        })
        .collect::<Result<Vec<_>, _>>()?;
    if encode(&blocks)? != bytes {
        return Err(cbor("another encoding of the same links is the canonical one".into()));
    }
    Ok(blocks)
}

fn cbor(reason: String) -> FormatError {
    FormatError::Cbor { what: "shard", reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_survive_and_odd_lists_are_refused() {
        let ids: Vec<_> = (0..MAX_LINKS as u32).map(|n| BlockId::of(Codec::Raw, &n.to_le_bytes())).collect();
        let bytes = encode(&ids).unwrap();
        assert_eq!(decode(&bytes).unwrap(), ids);
        decode(&encode(&[]).unwrap()).unwrap_err();
        let mut more = ids.clone();
        more.push(ids[0]);
        decode(&encode(&more).unwrap()).unwrap_err();
        decode(&encode(&[BlockId::of(Codec::DagCbor, b"")]).unwrap()).unwrap_err();
        decode(&bytes[..bytes.len() - 1]).unwrap_err();
    }
}
