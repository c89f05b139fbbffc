//! The types that carry the proof: what a source gave, what is proven, what is decoded.
//!
//! A [`StoredBlock`] is bytes and a claim. [`StoredBlock::verify`] is the only place where a digest is compared with
//! bytes, and the only public way to a [`VerifiedBlock`]; the decoder accepts nothing else. (The disk tier proves
//! its own entries by MAC, and a frame of a block that was verified before is proven by its seal; both say so by the
//! crate-private constructors here.)

use std::ops::Deref;

use bytes::Bytes;

use crate::codec::{self, DecodeError};
use crate::desc::{BlockDesc, FrameSpan, MAX_STORED};
use crate::id::BlockId;

/// Bytes as a source gave them: bounded by [`MAX_STORED`], not proven.
#[derive(Clone, Debug)]
pub struct StoredBlock {
    id: BlockId,
    bytes: Bytes,
    came_along: bool,
}

/// More bytes than any block has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{len} bytes offered for {id}, a block has at most {MAX_STORED}")]
pub struct TooLarge {
    /// The block asked for.
    pub id: BlockId,
    /// Bytes offered, or announced.
    pub len: u64,
}

/// Bytes that are not the block they were said to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{len} bytes offered for {want} are those of {got}")]
pub struct WrongBytes {
    /// The block asked for.
    pub want: BlockId,
    /// The id that the bytes have.
    pub got: BlockId,
    /// How many bytes came.
    pub len: usize,
}

impl StoredBlock {
    /// Takes bytes that claim to be block `id`.
    pub fn new(id: BlockId, bytes: impl Into<Bytes>) -> Result<StoredBlock, TooLarge> {
        let bytes = bytes.into();
        if bytes.len() > MAX_STORED {
            return Err(TooLarge { id, len: bytes.len() as u64 });
        }
        Ok(StoredBlock { id, bytes, came_along: false })
    }

    /// It came along with another block, so how long it took says nothing about the source.
    pub fn along(self) -> StoredBlock {
        StoredBlock { came_along: true, ..self }
    }

    /// Whether it came along with another one.
    pub(crate) fn came_along(&self) -> bool {
        self.came_along
    }

    /// The id that the bytes claim.
    pub fn id(&self) -> BlockId {
        self.id
    }

    /// Length in bytes; may be zero.
    #[expect(clippy::len_without_is_empty, reason = "nobody asks an unproven block whether it is empty")]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Hashes the bytes: 0.5 ms for the largest block, so not on a thread that serves others.
    pub fn verify(self) -> Result<VerifiedBlock, WrongBytes> {
        let got = BlockId::of(self.id.codec(), &self.bytes);
        if got != self.id {
            return Err(WrongBytes { want: self.id, got, len: self.bytes.len() });
        }
        Ok(VerifiedBlock { id: self.id, bytes: self.bytes })
    }
}

/// All stored bytes of a block, proven to be its.
#[derive(Clone, Debug)]
pub struct VerifiedBlock {
    id: BlockId,
    bytes: Bytes,
}

impl VerifiedBlock {
    /// For the disk tier, after every MAC of the entry agreed.
    pub(crate) fn proven_by_mac(id: BlockId, bytes: Bytes) -> VerifiedBlock {
        VerifiedBlock { id, bytes }
    }

    /// The id.
    pub fn id(&self) -> BlockId {
        self.id
    }

    /// The stored bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Decodes frame `index`.
    pub fn decode(&self, desc: &BlockDesc<'_>, index: usize) -> Result<PlainFrame, DecodeError> {
        self.check_desc(desc)?;
        let span = desc.frame(index).ok_or(DecodeError::NoSuchFrame { id: self.id, index })?;
        self.frame(span).decode()
    }

    /// Decodes every frame into one run of bytes.
    pub fn decode_block(&self, desc: &BlockDesc<'_>) -> Result<PlainBlock, DecodeError> {
        self.check_desc(desc)?;
        let mut plain = Vec::with_capacity(desc.plain_len() as usize);
        for span in desc.spans() {
            plain.extend_from_slice(&self.frame(span).decode()?);
        }
        Ok(PlainBlock(plain.into()))
    }

    /// `span` comes from a description that [`VerifiedBlock::check_desc`] accepted.
    fn frame(&self, span: FrameSpan) -> VerifiedFrame<'_> {
        VerifiedFrame { stored: &self.bytes[span.range()], plain_len: span.plain_len }
    }

    /// A right id does not make the flist's other claims about the block right.
    fn check_desc(&self, desc: &BlockDesc<'_>) -> Result<(), DecodeError> {
        if desc.id() != self.id {
            return Err(DecodeError::OtherBlock { described: desc.id(), held: self.id });
        }
        if desc.stored_len() as usize != self.bytes.len() {
            return Err(DecodeError::StoredLen { described: desc.stored_len(), held: self.bytes.len() });
        }
        Ok(())
    }
}

/// The proven stored bytes of one frame, borrowed from where they lie.
pub(crate) struct VerifiedFrame<'a> {
    stored: &'a [u8],
    plain_len: u32,
}

impl<'a> VerifiedFrame<'a> {
    /// For the disk tier after the MAC of the frame agreed, and for a frame that matches its seal.
    pub(crate) fn proven_alone(stored: &'a [u8], plain_len: u32) -> VerifiedFrame<'a> {
        VerifiedFrame { stored, plain_len }
    }

    /// Decodes to exactly the plain length, or fails.
    pub(crate) fn decode(&self) -> Result<PlainFrame, DecodeError> {
        codec::decode_frame(self.stored, self.plain_len).map(PlainFrame)
    }
}

/// The decoded bytes of one frame. A clone shares them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlainFrame(Bytes);

/// The decoded bytes of a whole block. A clone shares them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlainBlock(Bytes);

impl PlainFrame {
    /// The bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// The bytes, by value.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

impl PlainBlock {
    /// The bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// The bytes, by value.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

impl Deref for PlainFrame {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Deref for PlainBlock {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}
