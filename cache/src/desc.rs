//! What a reader knows of a block before it has it: id, plain length and the cuts between its frames.
//!
//! A description comes out of an flist, so it is checked once when made and then believed: all arithmetic after
//! that is in bounds. [`BlockDesc`] borrows the cuts from the caller's table, so that a cache hit allocates nothing.

use crate::id::BlockId;

/// No block is larger, stored or plain, in bytes: limits of kubo before 0.40, js-ipfs and bitswap (1 MiB less their
/// framing). A change breaks every flist and its delivery.
pub const MAX_STORED: usize = 1_032_192;

/// No frame length is smaller, in bytes: bounds the number of frames of a block, thus of every table made from one.
pub const MIN_FRAME_LEN: u32 = 4096;

/// The most frames a block can have.
pub(crate) const MAX_FRAMES: usize = MAX_STORED.div_ceil(MIN_FRAME_LEN as usize);

const _: () = assert!(MAX_STORED == 1_032_192 && MAX_FRAMES == 252);

/// A block as its flist describes it; checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockDesc<'a> {
    id: BlockId,
    plain_len: u32,
    frame_len: u32,
    frames: &'a [u32],
}

/// Why a description describes no possible block.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadDesc {
    /// No bytes, or more than a block may have.
    #[error("a plain length of {0} bytes is not within 1 to {MAX_STORED}")]
    PlainLen(u32),
    /// Frames too short or too long.
    #[error("a frame length of {0} bytes is not within {MIN_FRAME_LEN} to {MAX_STORED}")]
    FrameLen(u32),
    /// Plain length and frame length ask for another number of frames.
    #[error("{got} frames where the lengths ask for {want}")]
    FrameCount {
        /// Frames that the lengths ask for.
        want: u32,
        /// Frames described.
        got: usize,
    },
    /// A frame without bytes, or stored in more bytes than it has.
    #[error("frame {index} stores {stored_len} bytes for {plain_len} plain ones")]
    Frame {
        /// Which frame.
        index: usize,
        /// Its stored length.
        stored_len: u32,
        /// Its plain length.
        plain_len: u32,
    },
}

/// Where one frame lies in its block, and how long it becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FrameSpan {
    /// Position among the frames of the block.
    pub index: u32,
    /// First byte within the stored block.
    pub start: u32,
    /// Stored length in bytes; equal to `plain_len` means stored raw.
    pub stored_len: u32,
    /// Decoded length in bytes.
    pub plain_len: u32,
}

impl FrameSpan {
    /// A whole block of `len` stored bytes, taken as it is.
    pub(crate) fn whole(len: u32) -> FrameSpan {
        FrameSpan { index: 0, start: 0, stored_len: len, plain_len: len }
    }

    /// The frame's part of the stored block.
    pub(crate) fn range(&self) -> std::ops::Range<usize> {
        self.start as usize..(self.start + self.stored_len) as usize
    }
}

impl<'a> BlockDesc<'a> {
    /// A description; `frames` are the stored lengths of the frames in order.
    pub fn new(
        id: BlockId,
        plain_len: u32,
        frame_len: u32,
        frames: &'a [u32],
    ) -> Result<BlockDesc<'a>, BadDesc> {
        if plain_len == 0 || plain_len as usize > MAX_STORED {
            return Err(BadDesc::PlainLen(plain_len));
        }
        if frame_len < MIN_FRAME_LEN || frame_len as usize > MAX_STORED {
            return Err(BadDesc::FrameLen(frame_len));
        }
        let want = plain_len.div_ceil(frame_len);
        if frames.len() != want as usize {
            return Err(BadDesc::FrameCount { want, got: frames.len() });
        }
        // No frame exceeds its plain bytes, so the sum cannot exceed `plain_len`, thus not MAX_STORED.
        let desc = BlockDesc { id, plain_len, frame_len, frames };
        for (index, &stored_len) in frames.iter().enumerate() {
            let plain_len = desc.plain_len_of(index);
            if stored_len == 0 || stored_len > plain_len {
                return Err(BadDesc::Frame { index, stored_len, plain_len });
            }
        }
        Ok(desc)
    }

    /// The id of the block.
    pub fn id(&self) -> BlockId {
        self.id
    }

    /// Decoded length of the whole block in bytes.
    pub fn plain_len(&self) -> u32 {
        self.plain_len
    }

    /// Decoded length in bytes of each frame but the last.
    pub fn frame_len(&self) -> u32 {
        self.frame_len
    }

    /// Stored lengths of the frames, in order.
    pub fn frames(&self) -> &'a [u32] {
        self.frames
    }

    /// Stored length of the whole block in bytes.
    pub fn stored_len(&self) -> u32 {
        self.frames.iter().sum()
    }

    /// Where frame `index` lies; `None` when the block has no such frame.
    pub fn frame(&self, index: usize) -> Option<FrameSpan> {
        let stored_len = *self.frames.get(index)?;
        let start = self.frames[..index].iter().sum();
        let position = u32::try_from(index).ok()?;
        Some(FrameSpan { index: position, start, stored_len, plain_len: self.plain_len_of(index) })
    }

    /// Every frame in order.
    pub fn spans(&self) -> impl Iterator<Item = FrameSpan> + use<'a> {
        let desc = *self;
        (0..desc.frames.len()).filter_map(move |index| desc.frame(index))
    }

    /// The same description with its own copy of the cuts.
    pub fn to_owned(&self) -> OwnedBlockDesc {
        OwnedBlockDesc {
            id: self.id,
            plain_len: self.plain_len,
            frame_len: self.frame_len,
            frames: self.frames.into(),
        }
    }

    /// `index` is below the number of frames.
    fn plain_len_of(&self, index: usize) -> u32 {
        if index + 1 == self.frames.len() {
            self.plain_len - (self.frames.len() as u32 - 1) * self.frame_len
        } else {
            self.frame_len
        }
    }
}

/// A [`BlockDesc`] that owns its cuts, for a caller without a table to borrow from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedBlockDesc {
    id: BlockId,
    plain_len: u32,
    frame_len: u32,
    frames: Box<[u32]>,
}

impl OwnedBlockDesc {
    /// The borrowed form that the cache takes.
    pub fn as_desc(&self) -> BlockDesc<'_> {
        BlockDesc { id: self.id, plain_len: self.plain_len, frame_len: self.frame_len, frames: &self.frames }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Codec;
    use proptest::prelude::*;

    const ID: BlockId = BlockId::new(Codec::Raw, [1; 32]);

    #[test]
    fn impossible_blocks_are_refused() {
        let refusal = |plain, frame, frames: &[u32]| BlockDesc::new(ID, plain, frame, frames).unwrap_err();
        assert_eq!(refusal(0, 4096, &[]), BadDesc::PlainLen(0));
        assert_eq!(refusal(1_032_193, 1_032_192, &[9, 1]), BadDesc::PlainLen(1_032_193));
        assert_eq!(refusal(10, 4095, &[9]), BadDesc::FrameLen(4095));
        assert_eq!(refusal(10, u32::MAX, &[9]), BadDesc::FrameLen(u32::MAX));
        assert_eq!(refusal(8193, 4096, &[1, 1]), BadDesc::FrameCount { want: 3, got: 2 });
        assert_eq!(refusal(8192, 4096, &[1, 0]), BadDesc::Frame { index: 1, stored_len: 0, plain_len: 4096 });
        assert_eq!(refusal(4097, 4096, &[1, 2]), BadDesc::Frame { index: 1, stored_len: 2, plain_len: 1 });
        assert!(BlockDesc::new(ID, 1_032_192, 1_032_192, &[1_032_192]).is_ok());
    }

    proptest! {
        #[test]
        fn spans_are_adjacent_and_fill_the_block(
            plain in 1..=MAX_STORED as u32, frame in MIN_FRAME_LEN..=MAX_STORED as u32, cut in 1..4096_u32,
        ) {
            let count = plain.div_ceil(frame);
            let last = plain - (count - 1) * frame;
            let frames: Vec<u32> =
                (0..count).map(|i| if i + 1 == count { cut.min(last) } else { cut }).collect();
            let desc = BlockDesc::new(ID, plain, frame, &frames).unwrap();
            let (mut stored, mut decoded) = (0, 0);
            for span in desc.spans() {
                prop_assert_eq!(span.start, stored);
                stored += span.stored_len;
                decoded += span.plain_len;
            }
            prop_assert_eq!((stored, decoded), (desc.stored_len(), plain));
            prop_assert!(desc.frame(frames.len()).is_none());
            let owned = desc.to_owned();
            prop_assert_eq!(owned.as_desc(), desc);
        }

        #[test]
        fn checking_never_panics(plain: u32, frame: u32, frames: Vec<u32>) {
            let _ = BlockDesc::new(ID, plain, frame, &frames);
        }
    }
}
