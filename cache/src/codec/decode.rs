//! Decoding one frame to exactly the length that its description promises.
//!
//! One-shot decoding writes straight into a buffer of that length: no window is ever allocated, so a frame cannot ask
//! for memory, and it cannot write past the end. What the bytes say of themselves is compared before any work is done.

use std::cell::RefCell;

use bytes::Bytes;
use zstd::zstd_safe::{self, DCtx};

use crate::id::BlockId;

/// Why proven bytes did not become plain ones. Another source cannot help: the description or the packer is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The block has fewer frames.
    #[error("block {id} has no frame {index}")]
    NoSuchFrame {
        /// The block.
        id: BlockId,
        /// The frame asked for.
        index: usize,
    },
    /// The description is of another block.
    #[error("the description is of block {described}, the bytes of {held}")]
    OtherBlock {
        /// Block described.
        described: BlockId,
        /// Block at hand.
        held: BlockId,
    },
    /// The description's frames do not add up to the block.
    #[error("{described} stored bytes described, the block has {held}")]
    StoredLen {
        /// Sum of the described frames.
        described: u32,
        /// Length of the block.
        held: usize,
    },
    /// The stored bytes are not one zstd frame from end to end.
    #[error("{stored_len} stored bytes are not one zstd frame")]
    NotOneFrame {
        /// Their length.
        stored_len: usize,
    },
    /// The frame says, or yields, another length than described.
    #[error("the frame decodes to {got:?} bytes instead of {want}")]
    PlainLen {
        /// Length described.
        want: u32,
        /// Length said or found; none when the frame does not say.
        got: Option<u64>,
    },
    /// zstd refused the frame.
    #[error("zstd: {0}")]
    Zstd(&'static str),
}

thread_local! {
    /// Kept from frame to frame: it is large, and would be allocated for each.
    static CONTEXT: RefCell<DCtx<'static>> = RefCell::new(DCtx::create());
}

/// Decodes one stored frame; the caller has bounded `plain_len` by [`crate::MAX_STORED`].
pub(crate) fn decode_frame(stored: &[u8], plain_len: u32) -> Result<Bytes, DecodeError> {
    if stored.len() == plain_len as usize {
        // A copy, because a slice would keep the whole block in memory for as long as one frame of it is cached.
        return Ok(Bytes::copy_from_slice(stored));
    }
    check_header(stored, plain_len)?;
    let mut plain = Vec::with_capacity(plain_len as usize);
    CONTEXT.with_borrow_mut(|context| {
        context.decompress(&mut plain, stored).map_err(|code| {
            // The binding refuses all further work of a context that has failed once.
            *context = DCtx::create();
            DecodeError::Zstd(zstd_safe::get_error_name(code))
        })
    })?;
    if plain.len() != plain_len as usize {
        return Err(DecodeError::PlainLen { want: plain_len, got: Some(plain.len() as u64) });
    }
    Ok(plain.into())
}

fn check_header(stored: &[u8], plain_len: u32) -> Result<(), DecodeError> {
    let not_one = DecodeError::NotOneFrame { stored_len: stored.len() };
    let Ok(said) = zstd_safe::get_frame_content_size(stored) else { return Err(not_one) };
    if said != Some(u64::from(plain_len)) {
        return Err(DecodeError::PlainLen { want: plain_len, got: said });
    }
    // Without this, empty or skippable frames could follow, and one plain block would have many stored forms.
    match zstd_safe::find_frame_compressed_size(stored) {
        Ok(len) if len == stored.len() => Ok(()),
        Ok(_) | Err(_) => Err(not_one),
    }
}
