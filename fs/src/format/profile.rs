//! Profiles: which blocks of an flist somebody needed, in the order of need, so that the next one gets them before asking.
//!
//! A profile is an object of its own beside the flist, found by its own CID (`fs/FORMAT.md`, "Profiles"). It links to the
//! flist and never changes its address; there may be many for one flist. It is advice from a stranger: it names blocks by
//! their number in the block table, so the worst that it can do is to have the wrong part of an flist fetched.

use std::collections::HashSet;

use cid::Cid;
use g8_cache::{BlockId, Codec};
use serde::{Deserialize, Serialize};

use super::FormatError;

/// The version this crate writes and the only one it reads.
pub const VERSION: u64 = 1;
/// `kind` of a profile.
pub const KIND: &str = "flist-profile";
/// Most blocks of a profile: 6 GiB of average ones, in 330 kB.
pub const MAX_BLOCKS: usize = 65_536;
/// Longest label, in bytes.
pub const MAX_LABEL: usize = 1024;

const WHAT: &str = "profile";

/// See the module's text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Numbers of blocks in the block table, in the order in which they were first needed; each once.
    pub blocks: Vec<u32>,
    /// Link to the root of the flist.
    pub flist: Cid,
    /// Always [`KIND`].
    pub kind: String,
    /// What was run, for people.
    pub label: String,
    /// Always [`VERSION`].
    pub version: u64,
}

/// Just enough of a profile to say which version it has, whatever else changed.
#[derive(Deserialize)]
struct Header {
    kind: String,
    version: u64,
}

impl Profile {
    /// A profile of the flist `flist`. What does not fit is cut off: the blocks that were needed last, the end of the label.
    pub fn new(flist: BlockId, label: &str, mut blocks: Vec<u32>) -> Profile {
        blocks.truncate(MAX_BLOCKS);
        let label = label[..label.floor_char_boundary(MAX_LABEL)].to_owned();
        Profile { blocks, flist: flist.cid(), kind: KIND.into(), label, version: VERSION }
    }

    /// The canonical bytes. Their SHA-256 with codec dag-cbor is the address.
    pub fn to_bytes(&self) -> Result<Vec<u8>, FormatError> {
        serde_ipld_dagcbor::to_vec(self).map_err(|e| cbor(e.to_string()))
    }

    /// Parses and judges a profile. Refuses non-canonical encodings, so one profile has one address.
    pub fn from_bytes(bytes: &[u8]) -> Result<Profile, FormatError> {
        let header: Header =
            serde_ipld_dagcbor::from_slice(bytes).map_err(|e| cbor(format!("no profile header: {e}")))?;
        if header.kind != KIND {
            return Err(FormatError::field(WHAT, format!("kind is {:?}, not {KIND:?}", header.kind)));
        }
        if header.version != VERSION {
            return Err(FormatError::field(WHAT, format!("version {} is not supported", header.version)));
        }
        let profile: Profile = serde_ipld_dagcbor::from_slice(bytes).map_err(|e| cbor(e.to_string()))?;
        if profile.to_bytes()? != bytes {
            return Err(cbor("another encoding of the same node is the canonical one".into()));
        }
        profile.judge()?;
        Ok(profile)
    }

    /// The flist that it is about.
    pub fn flist(&self) -> Result<BlockId, FormatError> {
        let id = BlockId::try_from(&self.flist).map_err(|source| FormatError::Link { what: WHAT, source })?;
        match id.codec() {
            Codec::DagCbor => Ok(id),
            Codec::Raw => Err(FormatError::field(WHAT, format!("{id} is a raw block and no flist"))),
        }
    }

    /// Whether it can be used for the flist `id`, which has so many blocks.
    pub fn judge_for(&self, id: BlockId, block_count: usize) -> Result<(), FormatError> {
        let flist = self.flist()?;
        if flist != id {
            return Err(FormatError::field(WHAT, format!("it is one of the flist {flist}")));
        }
        match self.blocks.iter().find(|block| **block as usize >= block_count) {
            Some(block) => {
                Err(FormatError::field(WHAT, format!("block {block} of an flist with {block_count}")))
            }
            None => Ok(()),
        }
    }

    fn judge(&self) -> Result<(), FormatError> {
        if self.blocks.len() > MAX_BLOCKS {
            return Err(FormatError::field(
                WHAT,
                format!("{} blocks, not up to {MAX_BLOCKS}", self.blocks.len()),
            ));
        }
        if self.label.len() > MAX_LABEL {
            return Err(FormatError::field(WHAT, format!("a label of {} bytes", self.label.len())));
        }
        let mut seen = HashSet::with_capacity(self.blocks.len());
        if let Some(twice) = self.blocks.iter().find(|block| !seen.insert(**block)) {
            return Err(FormatError::field(WHAT, format!("block {twice} stands in it twice")));
        }
        self.flist().map(drop)
    }
}

fn cbor(reason: String) -> FormatError {
    FormatError::Cbor { what: WHAT, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Profile {
        Profile::new(BlockId::of(Codec::DagCbor, b"root"), "python3 -c 'print(1)'", vec![7, 0, 70_000, 3])
    }

    #[test]
    fn a_profile_survives_the_round_trip_and_its_bytes_are_always_the_same() {
        let bytes = sample().to_bytes().unwrap();
        assert_eq!(Profile::from_bytes(&bytes).unwrap(), sample());
        let id = BlockId::of(Codec::DagCbor, &bytes).to_string();
        assert_eq!(id, "bafyreigzsa2ohlzcjd57xaosspkqvxktm5z47k7qv2le4xjgwnktalslhq");
    }

    #[test]
    fn what_does_not_fit_is_cut_off() {
        let blocks = (0..MAX_BLOCKS as u32 + 5).collect();
        let profile = Profile::new(BlockId::of(Codec::DagCbor, b"root"), &"é".repeat(MAX_LABEL), blocks);
        assert_eq!((profile.blocks.len(), profile.label.len()), (MAX_BLOCKS, MAX_LABEL));
        let bytes = profile.to_bytes().unwrap();
        assert!(bytes.len() <= g8_cache::MAX_STORED);
        assert_eq!(Profile::from_bytes(&bytes).unwrap(), profile);
    }

    #[test]
    fn what_is_no_profile_is_refused() {
        for change in [
            (|p: &mut Profile| p.version = 2) as fn(&mut Profile),
            |p| p.kind = "flist".into(),
            |p| p.blocks.push(7),
            |p| p.blocks = (0..=MAX_BLOCKS as u32).collect(),
            |p| p.label = "x".repeat(MAX_LABEL + 1),
            |p| p.flist = BlockId::of(Codec::Raw, b"data").cid(),
        ] {
            let mut profile = sample();
            change(&mut profile);
            Profile::from_bytes(&profile.to_bytes().unwrap()).unwrap_err();
        }
        let bytes = sample().to_bytes().unwrap();
        for cut in 0..bytes.len() {
            Profile::from_bytes(&bytes[..cut]).unwrap_err();
        }
        Profile::from_bytes(&[&bytes[..], b"\0"].concat()).unwrap_err();
    }

    #[test]
    fn a_profile_is_good_for_its_own_flist_only_and_for_blocks_that_it_has() {
        let (own, other) = (BlockId::of(Codec::DagCbor, b"root"), BlockId::of(Codec::DagCbor, b"other"));
        sample().judge_for(own, 70_001).unwrap();
        sample().judge_for(own, 70_000).unwrap_err();
        sample().judge_for(other, 70_001).unwrap_err();
    }
}
