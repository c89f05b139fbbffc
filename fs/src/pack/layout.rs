//! Laying out: the events of the readers, in tree order, become runs, extents and blocks.
//!
//! Here everything that decides the image's shape happens on one thread: what was seen before is found again (whole
//! contents, then pieces), small pieces are gathered into bundles, and each new content gets its run.

use std::collections::HashMap;
use std::ops::Range;

use g8_cache::MAX_STORED;

use super::PackError;
use super::encode::Encoders;
use super::options::PackOptions;
use super::read::{Event, What};
use super::segment::{BUNDLED_BELOW, Piece};
use super::space::{Run, Spaces};
use super::walk::Tree;
use crate::erofs::{Content, DeviceSizes};
use crate::format::{Extent, MapBuilder};

/// Contents up to this size lie in the tree itself, beside their inode: they need no extent and no request.
pub(super) const INLINE_MAX: usize = 128;
/// A bundle below this size is not closed.
const MIN_BUNDLE: usize = 128 * 1024;
/// Above it, each piece closes its bundle with a chance of its length in this many bytes.
const BUNDLE_GROWTH: u64 = 384 * 1024;
/// No bundle exceeds what may be stored when it does not compress.
const MAX_BUNDLE: usize = MAX_STORED;

/// Where a piece is stored.
#[derive(Clone, Copy, Debug)]
struct Stored {
    block: u32,
    offset: u32,
    len: u32,
}

/// The contents of a file, as its inode will name them.
#[derive(Debug)]
pub(super) enum FileContent {
    Run(Run),
    Inline(Vec<u8>),
}

impl FileContent {
    pub fn content(&self) -> Content {
        match self {
            FileContent::Run(run) => run.content(),
            FileContent::Inline(bytes) => Content::Inline(bytes.clone()),
        }
    }
}

/// All that laying out found.
#[derive(Debug)]
pub(super) struct Laid {
    pub map: MapBuilder,
    pub spaces: DeviceSizes,
    /// By entry.
    pub contents: HashMap<u32, FileContent>,
    /// Entries that changed while they were read.
    pub skipped: Vec<u32>,
    /// Bytes that needed no block of their own.
    pub duplicate_bytes: u64,
    /// The architecture most ELF files of the tree were built for.
    pub arch: Option<&'static str>,
}

/// The file whose events are arriving.
#[derive(Default)]
struct Current {
    pieces: Vec<(u64, [u8; 32], Stored)>,
    inline: Option<Vec<u8>>,
    duplicate: u64,
}

pub(super) struct Layout {
    encoders: Encoders,
    map: MapBuilder,
    spaces: Spaces,
    /// Pieces by hash.
    pieces: HashMap<[u8; 32], Stored>,
    /// Runs by the hash of the whole contents.
    runs: HashMap<[u8; 32], Run>,
    bundle: Option<(u32, Vec<u8>)>,
    current: Current,
    contents: HashMap<u32, FileContent>,
    skipped: Vec<u32>,
    duplicate_bytes: u64,
    machines: HashMap<u16, u64>,
}

impl Layout {
    pub fn new(options: &PackOptions, encoders: Encoders) -> Self {
        Layout {
            encoders,
            map: MapBuilder::new(options.frame_len),
            spaces: Spaces::default(),
            pieces: HashMap::new(),
            runs: HashMap::new(),
            bundle: None,
            current: Current::default(),
            contents: HashMap::new(),
            skipped: Vec::new(),
            duplicate_bytes: 0,
            machines: HashMap::new(),
        }
    }

    /// The next event of the readers.
    pub fn take(&mut self, tree: &Tree, event: Event, skip_changed: bool) -> Result<(), PackError> {
        let entry = event.entry;
        match event.what {
            What::Piece(piece) => self.piece(tree, entry, piece),
            What::End { holes, elf_machine } => {
                if let Some(machine) = elf_machine {
                    *self.machines.entry(machine).or_default() += 1;
                }
                self.end(tree, entry, &holes)
            }
            What::Changed if skip_changed => {
                // Its pieces stay in their blocks; nothing points to them.
                self.current = Current::default();
                self.skipped.push(entry);
                Ok(())
            }
            What::Changed => Err(PackError::Changed(tree.display(entry))),
            What::Failed(source) => {
                Err(PackError::Io { path: tree.display(entry), action: "reading the file", source })
            }
        }
    }

    /// Closes the last bundle and waits until every block is stored.
    pub fn finish(mut self) -> Result<Laid, PackError> {
        self.close_bundle()?;
        for (index, block) in self.encoders.finish()? {
            self.map.set_block(index, &block);
        }
        // Ties go to the larger number, so that the answer does not depend on the map's order.
        let machine = self.machines.iter().max_by_key(|(machine, count)| (**count, **machine));
        Ok(Laid {
            map: self.map,
            spaces: self.spaces.sizes(),
            contents: self.contents,
            skipped: self.skipped,
            duplicate_bytes: self.duplicate_bytes,
            arch: machine.and_then(|(machine, _)| arch_name(*machine)),
        })
    }

    fn piece(&mut self, tree: &Tree, entry: u32, piece: Piece) -> Result<(), PackError> {
        let size = tree.entries[entry as usize].stat.st_size as usize;
        if size <= INLINE_MAX {
            self.current.inline = Some(piece.data);
            return Ok(());
        }
        let (at, hash, len) = (piece.at, piece.hash, piece.data.len());
        let stored = match self.pieces.get(&hash) {
            Some(stored) => {
                self.current.duplicate += len as u64;
                *stored
            }
            None => {
                let stored = if len < BUNDLED_BELOW { self.bundle(piece)? } else { self.block(piece)? };
                self.pieces.insert(hash, stored);
                stored
            }
        };
        self.current.pieces.push((at, hash, stored));
        Ok(())
    }

    fn end(&mut self, tree: &Tree, entry: u32, holes: &[Range<u64>]) -> Result<(), PackError> {
        let Current { pieces, inline, duplicate } = std::mem::take(&mut self.current);
        self.duplicate_bytes += duplicate;
        let node = &tree.entries[entry as usize];
        let size = node.stat.st_size as u64;
        if size <= INLINE_MAX as u64 {
            // Zeros have no pieces.
            let bytes = inline.unwrap_or_else(|| vec![0; size as usize]);
            self.contents.insert(entry, FileContent::Inline(bytes));
            return Ok(());
        }
        let key = content_key(size, &pieces);
        let run = match self.runs.get(&key) {
            Some(run) => run.clone(),
            None => {
                let placed = self.spaces.place(size, holes, node.parent, node.top);
                let run = placed.map_err(|full| PackError::Unrepresentable {
                    path: tree.display(entry),
                    reason: full.to_string(),
                })?;
                for (at, _, stored) in &pieces {
                    let extent = Extent {
                        start: run.address(*at),
                        len: stored.len,
                        block: stored.block,
                        offset: stored.offset,
                    };
                    self.map.add_extent(run.device, extent);
                }
                self.runs.insert(key, run.clone());
                run
            }
        };
        self.contents.insert(entry, FileContent::Run(run));
        Ok(())
    }

    /// A piece that is a block of its own.
    fn block(&mut self, piece: Piece) -> Result<Stored, PackError> {
        let len = piece.data.len() as u32;
        let block = self.map.add_block();
        self.encoders.encode(block, piece.data)?;
        Ok(Stored { block, offset: 0, len })
    }

    /// A piece that shares its block. Bundles are closed by content: a rolling decision on the pieces' hashes, so that
    /// an insertion moves the borders in its neighbourhood only.
    fn bundle(&mut self, piece: Piece) -> Result<Stored, PackError> {
        if self.bundle.as_ref().is_some_and(|(_, data)| data.len() + piece.data.len() > MAX_BUNDLE) {
            self.close_bundle()?;
        }
        let map = &mut self.map;
        let (block, data) =
            self.bundle.get_or_insert_with(|| (map.add_block(), Vec::with_capacity(MAX_BUNDLE)));
        let stored = Stored { block: *block, offset: data.len() as u32, len: piece.data.len() as u32 };
        data.extend_from_slice(&piece.data);
        let draw = u64::from(u32::from_le_bytes(piece.hash[..4].try_into().expect("four bytes of a hash")));
        if data.len() >= MIN_BUNDLE && draw * BUNDLE_GROWTH < (piece.data.len() as u64) << 32 {
            self.close_bundle()?;
        }
        Ok(stored)
    }

    fn close_bundle(&mut self) -> Result<(), PackError> {
        match self.bundle.take() {
            Some((block, data)) => self.encoders.encode(block, data),
            None => Ok(()),
        }
    }
}

/// Identity of a file's contents: its size and what lies where.
fn content_key(size: u64, pieces: &[(u64, [u8; 32], Stored)]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&size.to_le_bytes());
    for (at, hash, _) in pieces {
        hasher.update(&at.to_le_bytes());
        hasher.update(hash);
    }
    *hasher.finalize().as_bytes()
}

/// Name of an ELF machine as OCI images use it.
fn arch_name(machine: u16) -> Option<&'static str> {
    match machine {
        62 => Some("amd64"),
        183 => Some("arm64"),
        243 => Some("riscv64"),
        21 => Some("ppc64le"),
        _ => None,
    }
}
