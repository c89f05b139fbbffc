//! The name of a block: a CIDv1 over its stored bytes, held as codec and digest.
//!
//! One block has one spelling. Only what this product writes is accepted: CIDv1, sha2-256 of 32 bytes, codec raw
//! or dag-cbor, base32 in lower case. So two equal ids are equal strings, file names and keys.

use std::fmt;
use std::str::FromStr;

use cid::Cid;
use multihash::Multihash;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest, Sha256};

/// Multihash code of sha2-256 (<https://github.com/multiformats/multicodec>).
const SHA2_256: u64 = 0x12;

/// What the bytes behind an id are; part of the name, not of the digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Codec {
    /// Opaque bytes: every data block, every piece of a tree or map.
    Raw,
    /// A dag-cbor node: the root of an flist and its shards.
    DagCbor,
}

impl Codec {
    /// The multicodec number.
    pub const fn code(self) -> u64 {
        match self {
            Codec::Raw => 0x55,
            Codec::DagCbor => 0x71,
        }
    }

    const fn from_code(code: u64) -> Option<Codec> {
        match code {
            0x55 => Some(Codec::Raw),
            0x71 => Some(Codec::DagCbor),
            _ => None,
        }
    }
}

/// The id of a block: the SHA-256 over its stored (compressed) bytes, and its codec.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId {
    codec: Codec,
    digest: [u8; 32],
}

impl BlockId {
    /// Length of [`BlockId::key`].
    pub(crate) const KEY_LEN: usize = 33;

    /// An id from its parts, for tables that keep bare digests.
    pub const fn new(codec: Codec, digest: [u8; 32]) -> BlockId {
        BlockId { codec, digest }
    }

    /// The id that `bytes` have.
    pub fn of(codec: Codec, bytes: &[u8]) -> BlockId {
        BlockId { codec, digest: Sha256::digest(bytes).into() }
    }

    /// The codec.
    pub const fn codec(&self) -> Codec {
        self.codec
    }

    /// The SHA-256 digest.
    pub const fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// The same id as the `cid` crate has it.
    pub fn cid(&self) -> Cid {
        let hash =
            Multihash::wrap(SHA2_256, &self.digest).expect("a 32 byte digest fits a 64 byte multihash");
        Cid::new_v1(self.codec.code(), hash)
    }

    /// Fixed-length binary form: codec byte, digest. Key of the disk tier and input of its MACs, so a change of it
    /// empties every cache.
    pub(crate) fn key(&self) -> [u8; Self::KEY_LEN] {
        let mut key = [0; Self::KEY_LEN];
        key[0] = self.codec.code() as u8;
        key[1..].copy_from_slice(&self.digest);
        key
    }
}

impl fmt::Display for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.cid(), f)
    }
}

impl fmt::Debug for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why something is not the id of a block.
#[derive(Debug, thiserror::Error)]
pub enum BadId {
    /// Not a CID at all.
    #[error("not a CID")]
    Syntax(#[source] cid::Error),
    /// A CID, but of version 0.
    #[error("a CID of version 0; blocks are named by CIDv1")]
    Version,
    /// A codec that no block has.
    #[error("codec {0:#x} is neither raw (0x55) nor dag-cbor (0x71)")]
    Codec(u64),
    /// Another hash function than sha2-256.
    #[error("hash function {0:#x} is not sha2-256 (0x12)")]
    Hash(u64),
    /// A cut digest.
    #[error("a digest of {0} bytes instead of 32")]
    DigestLen(usize),
    /// A right CID in another spelling than lower-case base32.
    #[error("not in lower-case base32, which would read {0}")]
    Spelling(BlockId),
}

impl TryFrom<&Cid> for BlockId {
    type Error = BadId;

    fn try_from(cid: &Cid) -> Result<BlockId, BadId> {
        if cid.version() != cid::Version::V1 {
            return Err(BadId::Version);
        }
        let codec = Codec::from_code(cid.codec()).ok_or(BadId::Codec(cid.codec()))?;
        if cid.hash().code() != SHA2_256 {
            return Err(BadId::Hash(cid.hash().code()));
        }
        let digest = cid.hash().digest();
        let digest = <[u8; 32]>::try_from(digest).map_err(|_| BadId::DigestLen(digest.len()))?;
        Ok(BlockId { codec, digest })
    }
}

impl FromStr for BlockId {
    type Err = BadId;

    fn from_str(text: &str) -> Result<BlockId, BadId> {
        // The `cid` crate also takes other bases and cuts a leading `/ipfs/` off; the comparison below does not.
        let id = BlockId::try_from(&Cid::try_from(text).map_err(BadId::Syntax)?)?;
        if id.to_string() != text {
            return Err(BadId::Spelling(id));
        }
        Ok(id)
    }
}

impl Serialize for BlockId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BlockId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<BlockId, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(|bad: BadId| de::Error::custom(format_args!("{text:?}: {bad}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_id_of_known_bytes_is_pinned() {
        // `printf hello | ipfs add --cid-version=1 --raw-leaves -n`
        let id = BlockId::of(Codec::Raw, b"hello");
        assert_eq!(id.to_string(), "bafkreibm6jg3ux5qumhcn2b3flc3tyu6dmlb4xa7u5bf44yegnrjhc4yeq");
        assert_eq!(id.to_string().parse::<BlockId>().unwrap(), id);
    }

    #[test]
    fn serde_knows_an_id_as_its_string() {
        let id = BlockId::of(Codec::DagCbor, b"hello");
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(json, format!("\"{id}\""));
        assert_eq!(serde_json::from_str::<BlockId>(&json).unwrap(), id);
        let error = serde_json::from_str::<BlockId>("\"Qm\"").unwrap_err();
        assert!(error.to_string().contains("\"Qm\""), "{error}");
    }

    #[test]
    fn other_names_are_refused_with_the_reason() {
        let digest = Multihash::wrap(SHA2_256, &[7; 32]).unwrap();
        let v0 = Cid::new_v0(digest).unwrap();
        assert!(matches!(BlockId::try_from(&v0), Err(BadId::Version)));
        assert!(matches!(BlockId::try_from(&Cid::new_v1(0x70, digest)), Err(BadId::Codec(0x70))));
        let blake = Multihash::wrap(0x1e, &[7; 32]).unwrap();
        assert!(matches!(BlockId::try_from(&Cid::new_v1(0x55, blake)), Err(BadId::Hash(0x1e))));
        let short = Multihash::wrap(SHA2_256, &[7; 20]).unwrap();
        assert!(matches!(BlockId::try_from(&Cid::new_v1(0x55, short)), Err(BadId::DigestLen(20))));
        let id = BlockId::new(Codec::Raw, [7; 32]);
        assert!(matches!(id.to_string().to_uppercase().parse::<BlockId>(), Err(BadId::Spelling(_))));
        assert!(matches!(
            format!("/ipfs/{id}").parse::<BlockId>(),
            Err(BadId::Syntax(_) | BadId::Spelling(_))
        ));
        assert!(matches!("".parse::<BlockId>(), Err(BadId::Syntax(_))));
    }

    proptest! {
        #[test]
        fn an_id_survives_text_and_cid(digest: [u8; 32], cbor: bool) {
            let id = BlockId::new(if cbor { Codec::DagCbor } else { Codec::Raw }, digest);
            prop_assert_eq!(id.to_string().parse::<BlockId>().unwrap(), id);
            prop_assert_eq!(BlockId::try_from(&id.cid()).unwrap(), id);
        }

        #[test]
        fn parsing_never_panics(text in "\\PC{0,80}") {
            let _ = text.parse::<BlockId>();
        }
    }
}
