//! Encoding a block: cut into frames, compress each, name the result.

use bytes::Bytes;
use zstd::zstd_safe::{self, CCtx, CParameter};

use super::probe::Probe;
use crate::desc::{BlockDesc, MAX_STORED, MIN_FRAME_LEN};
use crate::id::{BlockId, Codec};

/// How blocks are encoded. The same options give the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodeOptions {
    /// zstd level.
    pub level: i32,
    /// Plain bytes of each frame but the last: small frames make random reads cheap, large ones compress better.
    pub frame_len: u32,
}

impl Default for EncodeOptions {
    /// Level 3 and 256 KiB: the knee of ratio against the cost of a 4 KiB read.
    fn default() -> EncodeOptions {
        EncodeOptions { level: 3, frame_len: 256 * 1024 }
    }
}

/// Why nothing was encoded.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// zstd has no such level.
    #[error("zstd has no level {0}")]
    Level(i32),
    /// Frames too short or too long.
    #[error("a frame length of {0} bytes is not within {MIN_FRAME_LEN} to {MAX_STORED}")]
    FrameLen(u32),
    /// A block has 1 to [`MAX_STORED`] plain bytes.
    #[error("{0} bytes do not make a block, which has 1 to {MAX_STORED}")]
    PlainLen(usize),
    /// zstd failed, which is out of memory; the encoder is of no more use.
    #[error("zstd: {0}")]
    Zstd(&'static str),
}

/// A block ready to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedBlock {
    /// Its name: the SHA-256 of `stored`.
    pub id: BlockId,
    /// The bytes to store.
    pub stored: Bytes,
    /// Length of what was encoded, in bytes.
    pub plain_len: u32,
    /// Plain bytes of each frame but the last.
    pub frame_len: u32,
    /// Stored length of each frame.
    pub frames: Vec<u32>,
}

impl EncodedBlock {
    /// The description under which readers will ask for it.
    pub fn desc(&self) -> BlockDesc<'_> {
        BlockDesc::new(self.id, self.plain_len, self.frame_len, &self.frames)
            .expect("the encoder makes possible blocks only")
    }
}

/// Encodes block after block; one per worker thread.
pub struct Encoder {
    options: EncodeOptions,
    context: Context,
    probe: Probe,
    scratch: Vec<u8>,
}

impl Encoder {
    /// An encoder for these options.
    pub fn new(options: EncodeOptions) -> Result<Encoder, EncodeError> {
        if !zstd::compression_level_range().contains(&options.level) {
            return Err(EncodeError::Level(options.level));
        }
        if options.frame_len < MIN_FRAME_LEN || options.frame_len as usize > MAX_STORED {
            return Err(EncodeError::FrameLen(options.frame_len));
        }
        let context = Context::new(options.level)?;
        Ok(Encoder { options, context, probe: Probe::new()?, scratch: Vec::new() })
    }

    /// Encodes the plain bytes of one block.
    pub fn encode(&mut self, plain: &[u8]) -> Result<EncodedBlock, EncodeError> {
        if plain.is_empty() || plain.len() > MAX_STORED {
            return Err(EncodeError::PlainLen(plain.len()));
        }
        let mut stored = Vec::with_capacity(plain.len());
        let mut frames = Vec::with_capacity(plain.len().div_ceil(self.options.frame_len as usize));
        for frame in plain.chunks(self.options.frame_len as usize) {
            let before = stored.len();
            match self.compress(frame)? {
                Some(smaller) => stored.extend_from_slice(smaller),
                None => stored.extend_from_slice(frame),
            }
            frames.push((stored.len() - before) as u32);
        }
        stored.shrink_to_fit();
        Ok(EncodedBlock {
            id: BlockId::of(Codec::Raw, &stored),
            stored: stored.into(),
            plain_len: plain.len() as u32,
            frame_len: self.options.frame_len,
            frames,
        })
    }

    /// The zstd frame of `plain`, or none when it is better kept raw.
    fn compress(&mut self, plain: &[u8]) -> Result<Option<&[u8]>, EncodeError> {
        if self.probe.looks_incompressible(plain)? {
            return Ok(None);
        }
        self.context.compress(plain, &mut self.scratch)?;
        Ok((self.scratch.len() < plain.len()).then_some(self.scratch.as_slice()))
    }
}

/// A zstd context and its parameters, kept from frame to frame: making it anew costs 5 %. What it compressed before
/// does not show in the bytes, which a test holds it to.
pub(super) struct Context(CCtx<'static>);

impl Context {
    pub(super) fn new(level: i32) -> Result<Context, EncodeError> {
        let mut context = CCtx::try_create().ok_or(EncodeError::Zstd("out of memory"))?;
        for parameter in [
            CParameter::CompressionLevel(level),
            CParameter::ContentSizeFlag(true),
            CParameter::ChecksumFlag(false),
        ] {
            context.set_parameter(parameter).map_err(failed)?;
        }
        Ok(Context(context))
    }

    /// Compresses `plain` into `out`, whose old contents go.
    pub(super) fn compress(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.clear();
        // The bound, not the length of `plain`: room must never influence what is written.
        out.reserve(zstd_safe::compress_bound(plain.len()));
        self.0.compress2(out, plain).map_err(failed)?;
        Ok(())
    }
}

fn failed(code: zstd_safe::ErrorCode) -> EncodeError {
    EncodeError::Zstd(zstd_safe::get_error_name(code))
}
