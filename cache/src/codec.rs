//! Plain bytes to a stored block and back: independent frames, each zstd or raw.
//!
//! Every frame decodes to exactly `frame_len` bytes but the last one, and a frame stored in as many bytes as it has is
//! raw. zstd frames carry their content size, no checksum (the CID proves them) and no dictionary. The bytes depend
//! on the plain bytes, the options and the linked libzstd alone; a change here changes every CID.

mod decode;
mod encode;
mod probe;

pub use decode::DecodeError;
pub(crate) use decode::decode_frame;
pub use encode::{EncodeError, EncodeOptions, EncodedBlock, Encoder};

#[cfg(test)]
mod tests;
