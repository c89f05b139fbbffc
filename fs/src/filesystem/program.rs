//! What a program that starts will read next, fetched before it asks.
//!
//! A start is a chain: the kernel reads the program, then its loader, which reads one library after the other, each of them
//! beginning and end. From a far source every link costs a round trip, although the program says in its first kilobytes
//! what comes. So when the beginning of one had to be waited for, what it names is fetched at once: its loader, the libraries
//! that it needs and those that they need, and then the program itself, here and there in which it will run.
//!
//! It is a guess: names are looked for in the usual places only, and who is not found is left to be read when he is wanted.
//! Every file is followed once in the life of a mount, and what one program may bring is bounded.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::Bytes;
use futures::stream::{self, StreamExt};
use g8_cache::Class;
use parking_lot::Mutex;

use super::{Filesystem, FsError, MAX_AHEAD, PARALLEL, Piece};
use crate::elf::{self, Head};
use crate::erofs::{Device, FileKind, Inode, Nid};
use crate::paths::{self, Last};

/// Files that are followed in the life of a mount; a table of 64 KiB.
const MAX_FOLLOWED: usize = 4096;
/// Images with more files are followed in mode `fuse` alone: where files begin would take more than 10 MiB to remember.
const MAX_BEGINNINGS: usize = 1 << 18;
/// Files that one program may bring.
const MAX_FILES: usize = 64;
/// Stored bytes that it may bring.
const MAX_BYTES: u64 = 16 << 20;
/// Stored bytes that are fetched of one library, from its beginning on, and of the program itself.
const MAX_OF_LIBRARY: u64 = 1 << 20;
const MAX_OF_PROGRAM: u64 = 4 << 20;
/// Plain bytes behind a small file that the kernel asks for with its end, in mode `kernel`.
const BEHIND: u64 = 128 << 10;
/// Pieces of a file that are looked at: a hostile one can have the same few without end, which cost no bytes.
const MAX_PIECES: usize = 4096;
/// Bytes of a file that its headers lie in.
const HEAD: u64 = 4096;
/// What every loader reads when it begins.
const LOADER_CACHE: &[u8] = b"/etc/ld.so.cache";
/// Where libraries are, after the folders of the machine's own.
const FOLDERS: [&str; 5] = ["/lib64", "/usr/lib64", "/lib", "/usr/lib", "/usr/local/lib"];

/// Where a library for this `e_machine` may be.
fn folders(machine: u16) -> impl Iterator<Item = String> {
    let own = match machine {
        62 => Some("x86_64"),
        183 => Some("aarch64"),
        243 => Some("riscv64"),
        _ => None,
    };
    let own = own.into_iter().flat_map(|machine| {
        ["/lib", "/usr/lib", "/usr/local/lib"].map(|folder| format!("{folder}/{machine}-linux-gnu"))
    });
    own.chain(FOLDERS.map(ToOwned::to_owned))
}

/// Files that were followed already, and where files begin.
#[derive(Debug, Default)]
pub(super) struct Programs {
    followed: Mutex<Vec<Nid>>,
    beginnings: OnceLock<HashMap<(Device, u64), Nid>>,
}

impl Programs {
    /// Whether it is the first time, and there is room to remember it.
    fn is_new(&self, nid: Nid) -> bool {
        let mut followed = self.followed.lock();
        match followed.binary_search(&nid) {
            Err(index) if followed.len() < MAX_FOLLOWED => {
                followed.insert(index, nid);
                true
            }
            Ok(_) | Err(_) => false,
        }
    }
}

/// Who is read: the kernel names a file in mode `fuse`, and a place in mode `kernel`.
#[derive(Clone, Copy, Debug)]
pub enum Begins {
    /// This file.
    File(Nid),
    /// Perhaps a file, at this address of a data space.
    At(Device, u64),
}

/// What one program may still bring, and what it has brought: a block is paid for once, whatever it is wanted for.
struct Budget {
    files: usize,
    bytes: u64,
    blocks: HashSet<u32>,
    /// Plain bytes that are wanted behind each small file.
    behind: u64,
}

impl Budget {
    fn new(begins: Begins) -> Budget {
        let behind = match begins {
            Begins::File(_) => 0,
            Begins::At(..) => BEHIND,
        };
        Budget { files: MAX_FILES, bytes: MAX_BYTES, blocks: HashSet::new(), behind }
    }

    /// Whether a block of so many stored bytes is within it.
    fn pays(&mut self, block: u32, stored_len: u64) -> bool {
        if self.blocks.contains(&block) {
            return true;
        }
        let pays = stored_len <= self.bytes;
        if pays {
            self.bytes -= stored_len;
            self.blocks.insert(block);
        }
        pays
    }
}

impl Filesystem {
    /// `contents` had to be waited for. When they are the beginning of a program, `runtime` fetches what it needs.
    pub fn follow_program(
        self: &Arc<Self>,
        begins: Begins,
        contents: &[u8],
        runtime: &tokio::runtime::Handle,
    ) {
        if !contents.starts_with(elf::MAGIC) || self.sources.carries() == 0 || !self.guesses() {
            return;
        }
        let Some(head) = Head::parse(contents) else { return };
        // That of a program is in what was read already.
        let interpreter = head.interpreter.clone().and_then(|range| {
            elf::string(contents.get(range.start as usize..range.end as usize)?).map(<[u8]>::to_vec)
        });
        let fs = self.clone();
        let handle = runtime.clone();
        runtime.spawn(async move {
            let Some(nid) = fs.beginning(begins).await.filter(|nid| fs.programs.is_new(*nid)) else { return };
            let Ok(inode) = fs.inode(nid) else { return };
            let mut budget = Budget::new(begins);
            fs.bring_part(&inode, head.relocated.clone(), MAX_OF_LIBRARY, &mut budget, &handle);
            let first = interpreter.iter().flat_map(|path| [path, LOADER_CACHE]);
            let first = first.filter_map(|path| fs.file_at(path)).collect();
            let following = async {
                let mut fresh = fs.bring_files(first, &mut budget, &handle);
                let files = fs.named_by(&inode, &head, &mut budget).await;
                fresh.extend(fs.bring_files(files, &mut budget, &handle));
                // Its loader runs first. What has none is a library that somebody opens.
                let most = if head.interpreter.is_some() { MAX_OF_PROGRAM } else { MAX_OF_LIBRARY };
                fs.bring_part(&inode, 0..inode.size, most, &mut budget, &handle);
                let mut todo = fs.heads(fresh, &mut budget).await;
                while let Some((inode, head)) = todo.pop() {
                    let files = fs.named_by(&inode, &head, &mut budget).await;
                    let fresh = fs.bring_files(files, &mut budget, &handle);
                    todo.extend(fs.heads(fresh, &mut budget).await);
                }
            };
            // All of it in the time of one read: nobody waits for it, and it holds the file system.
            if tokio::time::timeout(fs.deadline, following).await.is_err() {
                tracing::debug!(nid = nid.0, "what a program names came too slowly");
            }
        });
    }

    /// The file that begins there.
    async fn beginning(self: &Arc<Self>, begins: Begins) -> Option<Nid> {
        let (device, address) = match begins {
            Begins::File(nid) => return Some(nid),
            Begins::At(device, address) => (device, address),
        };
        if self.programs.beginnings.get().is_none() {
            let fs = self.clone();
            let look =
                move || fs.programs.beginnings.get_or_init(|| fs.all_beginnings().unwrap_or_default()).len();
            let files = tokio::task::spawn_blocking(look).await.ok()?;
            tracing::debug!(files, "looked where files begin");
        }
        self.programs.beginnings.get()?.get(&(device, address)).copied()
    }

    /// Where the regular files begin; nothing when there are too many. The tree was judged when it was opened: it has no loops.
    fn all_beginnings(&self) -> Result<HashMap<(Device, u64), Nid>, FsError> {
        let tree = &self.image.tree;
        let mut found = HashMap::new();
        let mut folders = vec![tree.root()];
        while let Some(folder) = folders.pop() {
            for entry in tree.read_dir(&self.inode(folder)?, 0)? {
                let entry = entry?;
                match entry.kind {
                    FileKind::Directory if entry.name != b"." && entry.name != b".." => {
                        folders.push(entry.nid)
                    }
                    FileKind::Regular if found.len() >= MAX_BEGINNINGS => return Ok(HashMap::new()),
                    FileKind::Regular => {
                        found.extend(self.place_of(entry.nid, 0).map(|place| (place, entry.nid)));
                    }
                    _ => {}
                }
            }
        }
        Ok(found)
    }

    fn file_at(&self, path: &[u8]) -> Option<Inode> {
        paths::resolve(self, path, Last::Follow).ok().filter(Inode::is_file)
    }

    /// The libraries that a program or library names.
    async fn named_by(&self, inode: &Inode, head: &Head, budget: &mut Budget) -> Vec<Inode> {
        let mut files = Vec::new();
        let Some(dynamic) = self.part(inode, head.dynamic.clone(), budget).await else { return files };
        for at in head.needed(&dynamic) {
            let name = self.part(inode, at..at.saturating_add(elf::MAX_NAME + 1), budget).await;
            let Some(Ok(name)) = name.as_deref().and_then(elf::string).map(std::str::from_utf8) else {
                break;
            };
            let mut paths = folders(head.machine).map(|folder| format!("{folder}/{name}"));
            files.extend(paths.find_map(|path| self.file_at(path.as_bytes())));
        }
        files
    }

    /// Has what is new of `files` fetched; which those are.
    fn bring_files(
        self: &Arc<Self>,
        files: Vec<Inode>,
        budget: &mut Budget,
        runtime: &tokio::runtime::Handle,
    ) -> Vec<Inode> {
        let mut fresh = Vec::new();
        for inode in files {
            if budget.files == 0 || !self.programs.is_new(inode.nid) {
                continue;
            }
            budget.files -= 1;
            self.bring_part(&inode, 0..inode.size, MAX_OF_LIBRARY, budget, runtime);
            fresh.push(inode);
        }
        fresh
    }

    /// The heads of those files that name others.
    async fn heads(&self, files: Vec<Inode>, budget: &mut Budget) -> Vec<(Inode, Head)> {
        let mut heads = Vec::new();
        for inode in files {
            if let Some(part) = self.paid(&inode, 0..HEAD, budget) {
                heads.push(self.read_head(inode, part));
            }
        }
        stream::iter(heads).buffered(PARALLEL).filter_map(std::future::ready).collect().await
    }

    async fn read_head(&self, inode: Inode, part: (Vec<Piece<'_>>, u64)) -> Option<(Inode, Head)> {
        let head = Head::parse(&self.read_part(part).await?)?;
        Some((inode, head))
    }

    /// Has a part of a file fetched, up to `most` stored bytes and as far as the budget goes.
    fn bring_part(
        self: &Arc<Self>,
        inode: &Inode,
        range: Range<u64>,
        most: u64,
        budget: &mut Budget,
        runtime: &tokio::runtime::Handle,
    ) {
        let (mut blocks, mut left, mut looked_at) = (Vec::new(), most, 0);
        let end = range.end.min(inode.size);
        let behind = if end == inode.size { budget.behind } else { 0 };
        let mut choose = |piece: Piece<'_>| {
            looked_at += 1;
            if looked_at > MAX_PIECES {
                return false;
            }
            let Some((block, _)) = piece.frame().filter(|(block, _)| !blocks.contains(block)) else {
                return true;
            };
            let stored = u64::from(self.image.map.block(block).stored_len());
            let fits = stored <= left && blocks.len() < MAX_AHEAD && budget.pays(block, stored);
            if fits {
                left -= stored;
                blocks.push(block);
            }
            fits
        };
        if self.pieces(inode, range.start, end.saturating_sub(range.start), &mut choose).is_err() {
            return;
        }
        if let Some((Device::Small, address)) = end.checked_sub(1).and_then(|at| self.place_of(inode.nid, at))
        {
            let mut parts = self.image.map.parts(Device::Small, address, behind);
            parts.all(|part| self.frames(part, &mut choose));
        }
        self.bring_blocks(blocks, runtime);
    }

    /// A part of a file, as read-ahead; none when it costs more than is left.
    async fn part(&self, inode: &Inode, range: Range<u64>, budget: &mut Budget) -> Option<Bytes> {
        self.read_part(self.paid(inode, range, budget)?).await
    }

    /// The pieces of a part of a file that the budget pays, and how long it is.
    fn paid(&self, inode: &Inode, range: Range<u64>, budget: &mut Budget) -> Option<(Vec<Piece<'_>>, u64)> {
        let len = range.end.min(inode.size).checked_sub(range.start)?;
        let (mut pieces, mut is_paid) = (Vec::new(), true);
        let all = self.pieces(inode, range.start, len, &mut |piece| {
            is_paid = piece.frame().is_none_or(|(block, _)| {
                budget.pays(block, u64::from(self.image.map.block(block).stored_len()))
            });
            pieces.push(piece);
            is_paid
        });
        (all.is_ok() && is_paid).then_some((pieces, len))
    }

    async fn read_part(&self, (pieces, len): (Vec<Piece<'_>>, u64)) -> Option<Bytes> {
        let terms = Class::ReadAhead.until(Instant::now() + self.deadline);
        self.gather(pieces, len, terms).await.ok().map(|gathered| gathered.finish().0)
    }
}
