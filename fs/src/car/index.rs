//! Where each block of an archive lies: one sequential pass, in which every block is proven.
//!
//! The archive is read in steps of [`STEP`], and the blocks of a step are hashed on all threads: opening costs the reading of
//! the whole file, about a second a gigabyte on two processors. A block whose bytes are not its own is left out and remembered with
//! its offset. An archive that ends in the middle of a block, or has something else between blocks, is refused as a
//! whole: what follows cannot be found, and whoever made it did not finish.

use std::collections::HashMap;
use std::io::{self, Read};
use std::time::{Duration, Instant};

use cid::Cid;
use g8_cache::{BlockId, MAX_STORED};
use rayon::prelude::*;

use super::MAX_SECTION;
use super::parse::{self, BadCar, Parsed, Section};

/// Bytes read at once. Any section fits.
const STEP: usize = 8 << 20;
const _: () = assert!(STEP > MAX_SECTION + 10);
/// Most blocks of an archive: at 48 bytes each they take 100 MB.
const MAX_BLOCKS: usize = 1 << 21;
/// Damaged blocks that are remembered.
const MAX_DAMAGED: usize = 1024;

/// What bounds an opening.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// When it must be done.
    pub until: Option<Instant>,
    /// Most blocks.
    pub blocks: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { until: None, blocks: MAX_BLOCKS }
    }
}

/// Why an archive cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Nothing in it.
    #[error("it is empty")]
    Empty,
    /// Something else, or damaged.
    #[error("at offset {offset}: {what}")]
    Bad {
        /// Where.
        offset: u64,
        /// What is wrong.
        what: BadCar,
    },
    /// It ends too early.
    #[error("it is cut off: {} at offset {offset} lacks its last {missing} bytes or more: copy it again", part(.cid))]
    Cut {
        /// Where what is cut begins.
        offset: u64,
        /// The block, where its name is there.
        cid: Option<Cid>,
        /// Bytes that are not there.
        missing: u64,
    },
    /// Too many blocks.
    #[error("it has more than {0} blocks")]
    TooMany(usize),
    /// The time is over.
    #[error(
        "proving it took longer than {took:.0?}, for {bytes} bytes: raise --deadline; the next mounts share what one has read"
    )]
    Late {
        /// How long.
        took: Duration,
        /// How far it came.
        bytes: u64,
    },
    /// The system refused.
    #[error("reading it at offset {offset}")]
    Io {
        /// Where.
        offset: u64,
        /// What it said.
        #[source]
        source: io::Error,
    },
}

fn part(cid: &Option<Cid>) -> String {
    cid.as_ref().map_or("what begins".into(), |cid| format!("block {cid}"))
}

/// The blocks of an archive.
#[derive(Debug)]
pub struct Index {
    roots: Vec<Cid>,
    /// Sorted by id.
    places: Vec<Place>,
    damaged: HashMap<BlockId, u64>,
    damaged_count: u64,
    foreign: u64,
    bytes: u64,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    id: BlockId,
    len: u32,
    offset: u64,
}
const _: () = assert!(size_of::<Place>() == 48);

/// A section of the bytes that were read last.
struct Found {
    place: Place,
    start: usize,
}

impl Index {
    /// Reads `from` to its end.
    pub fn read(mut from: impl Read, limits: Limits) -> Result<Index, OpenError> {
        let began = Instant::now();
        let mut buffer = vec![0; STEP];
        let mut scan = Scan::new(limits.blocks);
        let (mut filled, mut base) = (0, 0);
        loop {
            let end = loop {
                let read = match from.read(&mut buffer[filled..]) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    other => other,
                };
                let read = read.map_err(|source| OpenError::Io { offset: base + filled as u64, source })?;
                filled += read;
                if read == 0 || filled == STEP {
                    break read == 0;
                }
            };
            let used = scan.step(&buffer[..filled], base)?;
            match (used == filled, end) {
                (true, true) => break,
                (false, true) => return Err(scan.cut(&buffer[used..filled], base + used as u64)),
                (_, false) => {}
            }
            buffer.copy_within(used..filled, 0);
            filled -= used;
            base += used as u64;
            if limits.until.is_some_and(|until| Instant::now() >= until) {
                return Err(OpenError::Late { took: began.elapsed(), bytes: base });
            }
        }
        if !scan.has_header {
            return Err(OpenError::Empty);
        }
        scan.index.bytes = base + filled as u64;
        Ok(scan.finish())
    }

    /// What the header names.
    pub fn roots(&self) -> &[Cid] {
        &self.roots
    }

    /// Blocks that can be had.
    pub fn blocks(&self) -> usize {
        self.places.len()
    }

    /// Their ids, in their own order.
    pub fn ids(&self) -> impl Iterator<Item = &BlockId> {
        self.places.iter().map(|place| &place.id)
    }

    /// Bytes of the archive.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Blocks with names that none of ours has, which are left out.
    pub fn foreign(&self) -> u64 {
        self.foreign
    }

    /// Blocks that were left out because their bytes are not their own.
    pub fn damaged_count(&self) -> u64 {
        self.damaged_count
    }

    /// The first of them with their offsets, in the order of the archive.
    pub fn damaged(&self) -> Vec<(BlockId, u64)> {
        let mut list: Vec<_> = self.damaged.iter().map(|(id, offset)| (*id, *offset)).collect();
        list.sort_by_key(|(_, offset)| *offset);
        list
    }

    /// Where the bytes of a block are, and how many.
    pub fn find(&self, id: &BlockId) -> Option<(u64, usize)> {
        let at = self.places.binary_search_by(|place| place.id.cmp(id)).ok()?;
        Some((self.places[at].offset, self.places[at].len as usize))
    }

    /// Where a block lies whose bytes are not its own.
    pub fn find_damaged(&self, id: &BlockId) -> Option<u64> {
        self.damaged.get(id).copied()
    }
}

/// A pass under way.
struct Scan {
    index: Index,
    most: usize,
    has_header: bool,
}

impl Scan {
    fn new(most: usize) -> Scan {
        let index = Index {
            roots: Vec::new(),
            places: Vec::new(),
            damaged: HashMap::new(),
            damaged_count: 0,
            foreign: 0,
            bytes: 0,
        };
        Scan { index, most, has_header: false }
    }

    /// Takes what is whole in `bytes`, which lie at `base` of the archive; says how many bytes that were.
    fn step(&mut self, bytes: &[u8], base: u64) -> Result<usize, OpenError> {
        let mut used = 0;
        let bad = |used: usize| move |what| OpenError::Bad { offset: base + used as u64, what };
        if !self.has_header {
            match parse::header(bytes).map_err(bad(0))? {
                Parsed::Whole(roots, len) => (self.index.roots, used, self.has_header) = (roots, len, true),
                Parsed::Short(..) => return Ok(0),
            }
        }
        let mut found = Vec::new();
        while used < bytes.len() {
            let (Section { cid, data }, len) = match parse::section(&bytes[used..]).map_err(bad(used))? {
                Parsed::Whole(section, len) => (section, len),
                Parsed::Short(..) => break,
            };
            let start = used + data.start;
            match BlockId::try_from(&cid) {
                Ok(id) if data.len() <= MAX_STORED => {
                    let place = Place { id, len: data.len() as u32, offset: base + start as u64 };
                    found.push(Found { place, start });
                }
                Ok(_) | Err(_) => self.index.foreign += 1,
            }
            used += len;
        }
        self.prove(&found, bytes)?;
        Ok(used)
    }

    fn prove(&mut self, found: &[Found], bytes: &[u8]) -> Result<(), OpenError> {
        if self.index.places.len() + found.len() > self.most {
            // Those that stand there twice take one place.
            self.dedup();
            if self.index.places.len() + found.len() > self.most {
                return Err(OpenError::TooMany(self.most));
            }
        }
        let is_right = |Found { place, start }: &Found| {
            BlockId::of(place.id.codec(), &bytes[*start..start + place.len as usize]) == place.id
        };
        let right: Vec<bool> = found.par_iter().map(is_right).collect();
        for (Found { place, .. }, right) in found.iter().zip(right) {
            if right {
                self.index.places.push(*place);
                continue;
            }
            self.index.damaged_count += 1;
            if self.index.damaged.len() < MAX_DAMAGED {
                self.index.damaged.entry(place.id).or_insert(place.offset);
            }
        }
        Ok(())
    }

    fn dedup(&mut self) {
        let places = &mut self.index.places;
        places.par_sort_unstable_by_key(|place| (place.id, place.offset));
        places.dedup_by_key(|place| place.id);
    }

    /// Why `rest`, the last bytes of the archive, are not whole.
    fn cut(&self, rest: &[u8], offset: u64) -> OpenError {
        fn needed<T>(parsed: Parsed<T>) -> Option<(usize, Option<Cid>)> {
            match parsed {
                Parsed::Whole(..) => None,
                Parsed::Short(need, cid) => Some((need, cid)),
            }
        }
        let short = match self.has_header {
            true => parse::section(rest).map(needed),
            false => parse::header(rest).map(needed),
        };
        match short {
            Ok(short) => {
                let (need, cid) = short.unwrap_or((rest.len() + 1, None));
                OpenError::Cut { offset, cid, missing: (need - rest.len()) as u64 }
            }
            Err(what) => OpenError::Bad { offset, what },
        }
    }

    fn finish(mut self) -> Index {
        self.dedup();
        self.index.places.shrink_to_fit();
        self.index
    }
}
