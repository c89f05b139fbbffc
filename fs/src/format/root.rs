//! The root: the dag-cbor node whose CID is the address of an flist.
//!
//! It links to everything, directly (tree and map pieces) or through the shards (data blocks), so one recursive
//! pin of it keeps the whole image.

use std::collections::BTreeMap;

use cid::Cid;
use g8_cache::{BlockId, Codec};
use serde::{Deserialize, Serialize};

use super::{FormatError, piece, shard};

/// The format version this crate writes and the only one it reads.
pub const VERSION: u64 = 1;
/// `kind` of the root, so that a foreign dag-cbor node is told apart by name.
pub const KIND: &str = "flist";
/// `os` of every root: the only system whose files an EROFS tree describes.
pub const OS: &str = "linux";
/// Most bytes a tree may have, which are 8 million inodes of 126 bytes: a root of a few kilobytes must not cost more.
pub const MAX_TREE_BYTES: u64 = 1 << 30;
/// Most bytes a block map may have, which are 40 million contents; decoded they take up to six times as much memory.
pub const MAX_MAP_BYTES: u64 = 1 << 28;

/// What to run in the image, and as whom; names follow the OCI image configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// Program and first arguments, before the user's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// Environment as `KEY=VALUE`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// Free key-value pairs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// `user[:group]`, names or numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Absolute working directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
}

/// The root node. Sizes are in bytes unless the name says otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Root {
    /// CPU architecture of the executables in the tree, as Go and OCI name it (`amd64`, `arm64`), when known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arch: Option<String>,
    /// Data blocks, as many as the shards link to.
    pub blocks: u64,
    /// What to run.
    pub config: RunConfig,
    /// Sum of the sizes of all regular files, hardlinks counted once.
    pub content_bytes: u64,
    /// Inodes in the tree.
    pub inodes: u64,
    /// Always [`KIND`].
    pub kind: String,
    /// Pieces of the block map, in order.
    pub map: Vec<Cid>,
    /// Length of the block map when its pieces are decoded and joined.
    pub map_bytes: u64,
    /// Operating system, always [`OS`].
    pub os: String,
    /// The flist this one was derived from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Cid>,
    /// Lists of links to every data block, in block table order.
    pub shards: Vec<Cid>,
    /// Sum of the stored sizes of all data blocks.
    pub stored_bytes: u64,
    /// Pieces of the EROFS tree, in order.
    pub tree: Vec<Cid>,
    /// Length of the tree when its pieces are decoded and joined.
    pub tree_bytes: u64,
    /// Always [`VERSION`].
    pub version: u64,
}

/// Just enough of a root to say which version it has, whatever else changed.
#[derive(Deserialize)]
struct Header {
    kind: String,
    version: u64,
}

impl Root {
    /// The canonical bytes of this root. Their SHA-256 with codec dag-cbor is the address of the flist.
    pub fn to_bytes(&self) -> Result<Vec<u8>, FormatError> {
        serde_ipld_dagcbor::to_vec(self)
            .map_err(|e| FormatError::Cbor { what: "flist root", reason: e.to_string() })
    }

    /// Parses and judges a root. Refuses non-canonical encodings, so one root has one address.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FormatError> {
        let cbor = |reason: String| FormatError::Cbor { what: "flist root", reason };
        let header: Header =
            serde_ipld_dagcbor::from_slice(bytes).map_err(|e| cbor(format!("no flist header: {e}")))?;
        if header.kind != KIND {
            return Err(FormatError::field("flist root", format!("kind is {:?}, not {KIND:?}", header.kind)));
        }
        if header.version != VERSION {
            return Err(FormatError::Version { found: header.version, known: VERSION });
        }
        let root: Root = serde_ipld_dagcbor::from_slice(bytes).map_err(|e| cbor(e.to_string()))?;
        if root.to_bytes()? != bytes {
            return Err(cbor("another encoding of the same node is the canonical one".into()));
        }
        root.judge()?;
        Ok(root)
    }

    /// Ids of the tree's pieces.
    pub fn tree_pieces(&self) -> Result<Vec<BlockId>, FormatError> {
        links("tree", &self.tree, Codec::Raw)
    }

    /// Ids of the map's pieces.
    pub fn map_pieces(&self) -> Result<Vec<BlockId>, FormatError> {
        links("map", &self.map, Codec::Raw)
    }

    /// Ids of the shards.
    pub fn shard_ids(&self) -> Result<Vec<BlockId>, FormatError> {
        links("shards", &self.shards, Codec::DagCbor)
    }

    fn judge(&self) -> Result<(), FormatError> {
        bounded("tree_bytes", self.tree_bytes, MAX_TREE_BYTES)?;
        bounded("map_bytes", self.map_bytes, MAX_MAP_BYTES)?;
        let pieces = |what, list: &[Cid], bytes: u64| {
            let least = bytes.div_ceil(piece::MAX_PLAIN as u64);
            if (list.len() as u64) < least || list.len() as u64 > bytes {
                return Err(FormatError::field(
                    what,
                    format!("{} pieces cannot hold {bytes} bytes", list.len()),
                ));
            }
            Ok(())
        };
        pieces("tree", &self.tree, self.tree_bytes)?;
        pieces("map", &self.map, self.map_bytes)?;
        if self.shards.len() as u64 != self.blocks.div_ceil(shard::MAX_LINKS as u64) {
            return Err(FormatError::field(
                "shards",
                format!("{} shards for {} blocks", self.shards.len(), self.blocks),
            ));
        }
        if self.os != OS {
            return Err(FormatError::field("os", format!("is {:?}, not {OS:?}", self.os)));
        }
        self.tree_pieces()?;
        self.map_pieces()?;
        self.shard_ids()?;
        links("parent", self.parent.as_slice(), Codec::DagCbor)?;
        Ok(())
    }
}

fn bounded(what: &'static str, value: u64, most: u64) -> Result<(), FormatError> {
    if value > most {
        return Err(FormatError::field(what, format!("{value} is more than the {most} an flist may have")));
    }
    Ok(())
}

fn links(what: &'static str, cids: &[Cid], codec: Codec) -> Result<Vec<BlockId>, FormatError> {
    cids.iter()
        .map(|cid| {
            let id = BlockId::try_from(cid).map_err(|source| FormatError::Link { what, source })?;
            if id.codec() != codec {
                return Err(FormatError::field(what, format!("{cid} has the wrong codec")));
            }
            Ok(id)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Root {
        let raw = BlockId::of(Codec::Raw, b"x").cid();
        Root {
            arch: Some("amd64".into()),
            blocks: 1,
            config: RunConfig { env: vec!["A=b".into()], ..RunConfig::default() },
            content_bytes: 5,
            inodes: 2,
            kind: KIND.into(),
            map: vec![raw],
            map_bytes: 30,
            os: OS.into(),
            parent: None,
            shards: vec![BlockId::of(Codec::DagCbor, b"s").cid()],
            stored_bytes: 5,
            tree: vec![raw],
            tree_bytes: 4096,
            version: VERSION,
        }
    }

    #[test]
    fn a_root_survives_the_round_trip() {
        let root = sample();
        assert_eq!(Root::from_bytes(&root.to_bytes().unwrap()).unwrap(), root);
    }

    #[test]
    fn lying_counts_foreign_kinds_and_later_versions_are_refused() {
        for change in [
            (|r: &mut Root| r.version = 2) as fn(&mut Root),
            |r| r.kind = "other".into(),
            |r| r.blocks = 5000,
            |r| r.tree_bytes = MAX_TREE_BYTES + 1,
            |r| r.tree.clear(),
            |r| r.shards = r.tree.clone(),
            |r| r.os = "plan9".into(),
            |r| r.parent = Some(r.tree[0]),
            |r| r.tree_bytes = 100 << 20,
        ] {
            let mut root = sample();
            change(&mut root);
            Root::from_bytes(&root.to_bytes().unwrap()).unwrap_err();
        }
    }

    #[test]
    fn trailing_and_truncated_bytes_are_refused() {
        let bytes = sample().to_bytes().unwrap();
        for cut in 0..bytes.len() {
            Root::from_bytes(&bytes[..cut]).unwrap_err();
        }
        let mut longer = bytes.clone();
        longer.push(0);
        Root::from_bytes(&longer).unwrap_err();
    }
}
