//! Cutting a file: zeros become holes, the rest pieces of content-defined size.
//!
//! Holes are decided by content alone (aligned 4 KiB of zeros, at least 64 KiB in a row), so that a sparse file and
//! its copy without holes become the same flist.

use std::ops::Range;

use fastcdc::v2020::FastCDC;
use g8_cache::MAX_STORED;

use crate::erofs::BLOCK_SIZE;

/// Contents below this size, and the short ends of longer ones, share blocks.
pub(super) const BUNDLED_BELOW: usize = 64 * 1024;
const MIN_CHUNK: usize = BUNDLED_BELOW;
const AVERAGE_CHUNK: usize = 256 * 1024;
/// A chunk becomes a block of its own, and a block that does not compress is stored as it is.
const MAX_CHUNK: usize = MAX_STORED;
/// Shortest run of zeros that becomes a hole. Shorter ones compress to nothing anyway.
const MIN_HOLE: u64 = 64 * 1024;
/// How much data is gathered before it is cut: several chunks, so that little is moved.
const WINDOW: usize = 4 << 20;

const _: () = assert!(MAX_CHUNK <= MAX_STORED && WINDOW > MAX_CHUNK);

/// A part of a file's contents.
#[derive(Debug)]
pub(super) struct Piece {
    /// Where it lies in the file.
    pub at: u64,
    pub data: Vec<u8>,
    /// BLAKE3 of `data`: what is seen again is not compressed again. It never leaves this process.
    pub hash: [u8; 32],
}

impl Piece {
    pub fn new(at: u64, data: Vec<u8>) -> Self {
        let hash = *blake3::hash(&data).as_bytes();
        Piece { at, data, hash }
    }
}

/// Takes the bytes of one file in order and hands out pieces.
pub(super) struct Segmenter<F> {
    /// Data since the last hole that is not cut yet.
    data: Vec<u8>,
    /// Where `data` begins in the file.
    data_at: u64,
    /// Zeros behind `data` of which it is not known yet whether they are a hole.
    zeros: u64,
    holes: Vec<Range<u64>>,
    emit: F,
}

impl<F: FnMut(Piece)> Segmenter<F> {
    pub fn new(emit: F) -> Self {
        Segmenter { data: Vec::new(), data_at: 0, zeros: 0, holes: Vec::new(), emit }
    }

    /// The next bytes of the file. All but the last call must pass a multiple of 4 KiB.
    pub fn push(&mut self, bytes: &[u8]) {
        for block in bytes.chunks(BLOCK_SIZE as usize) {
            if block.iter().all(|b| *b == 0) {
                self.zeros += block.len() as u64;
                continue;
            }
            self.settle_zeros();
            self.data.extend_from_slice(block);
            if self.data.len() >= WINDOW {
                self.cut(MAX_CHUNK);
            }
        }
    }

    /// The next `len` bytes of the file are zeros; a multiple of 4 KiB unless it is the end.
    pub fn push_zeros(&mut self, len: u64) {
        self.zeros += len;
    }

    /// The end of the file; returns its holes.
    pub fn finish(mut self) -> Vec<Range<u64>> {
        self.settle_zeros();
        self.cut(1);
        self.holes
    }

    /// Decides about the zeros at the end: a hole, or data like any other.
    fn settle_zeros(&mut self) {
        let at = self.data_at + self.data.len() as u64;
        if self.zeros >= MIN_HOLE {
            self.cut(1);
            self.holes.push(at..at + self.zeros);
            self.data_at = at + self.zeros;
        } else {
            self.data.resize(self.data.len() + self.zeros as usize, 0);
        }
        self.zeros = 0;
    }

    /// Cuts chunks off `data` while at least `least` bytes are left: more could still move the last border.
    fn cut(&mut self, least: usize) {
        let cdc = FastCDC::new(&self.data, MIN_CHUNK, AVERAGE_CHUNK, MAX_CHUNK);
        let mut from = 0;
        while self.data.len() - from >= least {
            let (_, to) = cdc.cut(from, self.data.len() - from);
            (self.emit)(Piece::new(self.data_at + from as u64, self.data[from..to].to_vec()));
            from = to;
        }
        self.data.drain(..from);
        self.data_at += from as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(pushes: &[&[u8]]) -> (Vec<Piece>, Vec<Range<u64>>) {
        let mut pieces = Vec::new();
        let mut segmenter = Segmenter::new(|p| pieces.push(p));
        for bytes in pushes {
            segmenter.push(bytes);
        }
        let holes = segmenter.finish();
        (pieces, holes)
    }

    fn noise(len: usize) -> Vec<u8> {
        let mut reader = blake3::Hasher::new().finalize_xof();
        let mut bytes = vec![0; len];
        reader.fill(&mut bytes);
        bytes
    }

    #[test]
    fn pieces_and_holes_tile_the_file() {
        let mut file = noise(3_000_000);
        file.resize(3_000_000 / 4096 * 4096 + 40 * 4096, 0);
        file.extend(noise(10_000));
        let (pieces, holes) = run(&[&file]);
        let mut back = vec![0; file.len()];
        for p in &pieces {
            back[p.at as usize..][..p.data.len()].copy_from_slice(&p.data);
            assert!(p.data.len() <= MAX_CHUNK);
        }
        assert!(back == file);
        assert_eq!(holes.len(), 1);
        assert!(holes[0].end - holes[0].start >= MIN_HOLE && holes[0].start % 4096 == 0);
    }

    #[test]
    fn cuts_do_not_depend_on_how_the_bytes_arrive() {
        let file = noise(9 << 20);
        let whole: Vec<_> = run(&[&file]).0.iter().map(|p| (p.at, p.hash)).collect();
        let parts: Vec<&[u8]> = file.chunks(128 * 4096).collect();
        let pieces: Vec<_> = run(&parts).0.iter().map(|p| (p.at, p.hash)).collect();
        assert_eq!(whole, pieces);
        let once: Vec<_> =
            FastCDC::new(&file, MIN_CHUNK, AVERAGE_CHUNK, MAX_CHUNK).map(|c| c.offset as u64).collect();
        assert_eq!(whole.iter().map(|(at, _)| *at).collect::<Vec<_>>(), once);
    }

    #[test]
    fn told_zeros_equal_read_zeros_and_short_runs_stay_data() {
        let mut told = Vec::new();
        let mut segmenter = Segmenter::new(|p: Piece| told.push((p.at, p.hash)));
        segmenter.push(&[1; 4096]);
        segmenter.push_zeros(1 << 20);
        segmenter.push(&[2; 4096]);
        segmenter.push_zeros(8192);
        let holes = segmenter.finish();
        let mut file = vec![1; 4096];
        file.resize(4096 + (1 << 20), 0);
        file.extend([2; 4096]);
        file.resize(file.len() + 8192, 0);
        let (read, same) = run(&[&file]);
        assert_eq!(told, read.iter().map(|p| (p.at, p.hash)).collect::<Vec<_>>());
        assert_eq!(holes, same);
        assert_eq!(holes, vec![4096..4096 + (1 << 20)]);
        assert_eq!(read.last().unwrap().data.len(), 4096 + 8192);
    }
}
