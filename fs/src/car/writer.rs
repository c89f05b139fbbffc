//! Writing a CAR: a header, then blocks as they come.

use std::io::{self, Write};

use g8_cache::{BlockId, VerifiedBlock};

use super::{header, prefix};

/// Writes a CARv1 to anything that takes bytes: a file, a pipe, the body of a request.
///
/// Only proven blocks are taken. A block that is put twice stands there twice: whoever walks a DAG knows what it has seen.
/// Nothing is written beside what is put, so the order of the puts is that of the archive.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    blocks: u64,
    bytes: u64,
}

impl<W: Write> Writer<W> {
    /// Begins an archive of the DAGs of `roots`.
    pub fn new(mut out: W, roots: &[BlockId]) -> io::Result<Writer<W>> {
        let roots: Vec<cid::Cid> = roots.iter().map(BlockId::cid).collect();
        let header = header(&roots);
        out.write_all(&header)?;
        Ok(Writer { out, blocks: 0, bytes: header.len() as u64 })
    }

    /// Appends a block.
    pub fn put(&mut self, block: &VerifiedBlock) -> io::Result<()> {
        let prefix = prefix(&block.id(), block.bytes().len());
        self.out.write_all(&prefix)?;
        self.out.write_all(block.bytes())?;
        self.blocks += 1;
        self.bytes += (prefix.len() + block.bytes().len()) as u64;
        Ok(())
    }

    /// Blocks put so far.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Bytes written so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Flushes what was written and gives back where it went. An archive has no end mark: syncing a file, and giving it its
    /// name, is for the caller.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.flush()?;
        Ok(self.out)
    }
}
