//! Pieces: how tree and map travel. Both are cut by content (so that a change stays local), and each piece is one
//! zstd frame that names its plain size, stored as a raw leaf.

use fastcdc::v2020::FastCDC;
use g8_cache::MAX_STORED;

use super::FormatError;

/// Most plain bytes in a piece. zstd adds at most a header and three bytes per 128 KiB to what it cannot shrink,
/// so a stored piece always stays below [`MAX_STORED`].
pub const MAX_PLAIN: usize = 960 * 1024;
const MIN_PLAIN: usize = 64 * 1024;
const AVERAGE_PLAIN: usize = 256 * 1024;
/// Metadata is small, read by everyone and compressed once: it always gets this level, whatever the data gets.
const LEVEL: i32 = 9;

const _: () = assert!(MAX_PLAIN + MAX_PLAIN / 1024 + 64 < MAX_STORED);

/// Cuts `bytes` and compresses each part. Deterministic for the pinned libzstd.
pub fn encode(bytes: &[u8]) -> std::io::Result<Vec<Vec<u8>>> {
    FastCDC::new(bytes, MIN_PLAIN, AVERAGE_PLAIN, MAX_PLAIN)
        .map(|chunk| zstd::bulk::compress(&bytes[chunk.offset..chunk.offset + chunk.length], LEVEL))
        .collect()
}

/// Decodes pieces one by one, as they arrive, into exactly the declared number of bytes.
#[derive(Debug)]
pub struct Joiner {
    what: &'static str,
    total: u64,
    so_far: u64,
    pieces: usize,
}

impl Joiner {
    /// For the pieces of `what`, which hold `total` bytes when they are decoded and joined.
    pub fn new(what: &'static str, total: u64) -> Self {
        Joiner { what, total, so_far: 0, pieces: 0 }
    }

    /// The plain bytes of the next piece.
    pub fn push(&mut self, stored: &[u8]) -> Result<Vec<u8>, FormatError> {
        let piece = self.pieces;
        let fail = |reason: String| FormatError::field(self.what, format!("piece {piece}: {reason}"));
        let plain = decode_one(stored).map_err(fail)?;
        self.so_far += plain.len() as u64;
        self.pieces += 1;
        if self.so_far > self.total {
            return Err(fail(format!("the pieces are longer than the {} bytes the root names", self.total)));
        }
        Ok(plain)
    }

    /// Whether all bytes were there.
    pub fn finish(self) -> Result<(), FormatError> {
        if self.so_far == self.total {
            return Ok(());
        }
        let reason = format!("the pieces hold {} bytes, the root names {}", self.so_far, self.total);
        Err(FormatError::field(self.what, reason))
    }
}

/// Decodes the `stored` pieces, in order, into exactly `total` bytes.
pub fn decode<S: AsRef<[u8]>>(what: &'static str, stored: &[S], total: u64) -> Result<Vec<u8>, FormatError> {
    let mut joiner = Joiner::new(what, total);
    let mut joined = Vec::new();
    for piece in stored {
        joined.extend(joiner.push(piece.as_ref())?);
    }
    joiner.finish()?;
    Ok(joined)
}

fn decode_one(stored: &[u8]) -> Result<Vec<u8>, String> {
    let declared = zstd::zstd_safe::get_frame_content_size(stored)
        .ok()
        .flatten()
        .ok_or("not one zstd frame with a content size")?;
    if declared == 0 || declared > MAX_PLAIN as u64 {
        return Err(format!("declares {declared} plain bytes, not 1 to {MAX_PLAIN}"));
    }
    let frame = zstd::zstd_safe::find_frame_compressed_size(stored)
        .map_err(|code| zstd::zstd_safe::get_error_name(code).to_owned())?;
    if frame != stored.len() {
        return Err(format!("{} bytes follow the zstd frame", stored.len() - frame));
    }
    let plain = zstd::bulk::decompress(stored, declared as usize).map_err(|e| e.to_string())?;
    if plain.len() as u64 != declared {
        return Err(format!("decodes to {} bytes, declares {declared}", plain.len()));
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_join_to_what_was_cut_and_stay_small() {
        let mut state = 1u64;
        let noise: Vec<u8> = (0..3 << 20)
            .map(|_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 33) as u8
            })
            .collect();
        for bytes in [vec![7; 10], vec![0; 5 << 20], noise] {
            let pieces = encode(&bytes).unwrap();
            assert!(pieces.iter().all(|p| p.len() <= MAX_STORED));
            assert_eq!(decode("tree", &pieces, bytes.len() as u64).unwrap(), bytes);
            decode("tree", &pieces, bytes.len() as u64 - 1).unwrap_err();
            decode("tree", &pieces, bytes.len() as u64 + 1).unwrap_err();
        }
    }

    #[test]
    fn a_frame_that_declares_too_much_or_drags_a_tail_is_refused() {
        let bomb = zstd::bulk::compress(&vec![0; MAX_PLAIN + 1], 1).unwrap();
        decode("map", &[bomb], MAX_PLAIN as u64 + 1).unwrap_err();
        let mut tail = zstd::bulk::compress(b"abc", 1).unwrap();
        tail.push(0);
        decode("map", &[tail], 3).unwrap_err();
        decode("map", &[&b"\x28\xb5\x2f\xfd"[..]], 3).unwrap_err();
        decode::<&[u8]>("map", &[], 3).unwrap_err();
    }
}
