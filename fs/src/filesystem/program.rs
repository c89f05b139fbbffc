//! What a program that starts will read next, fetched before it asks.
//!
//! A start is a chain: the kernel reads the program, then its loader, which reads one library after the other, each of them
//! beginning and end. From a far source every link costs a round trip, although the program says in its first kilobytes
//! what comes. So when the beginning of one had to be waited for, what it names is fetched at once: its loader, the libraries
//! that it needs and those that they need.
//!
//! It is a guess: names are looked for in the usual places only, and who is not found is left to be read when he is wanted.
//! Every file is followed once in the life of a mount, and what one program may bring is bounded.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::Bytes;
use futures::stream::{self, StreamExt};
use g8_cache::Class;
use parking_lot::Mutex;

use super::{Filesystem, FsError, MAX_AHEAD, PARALLEL};
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
/// Stored bytes that are fetched of one file, from its beginning on.
const MAX_OF_FILE: u64 = 1 << 20;
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

/// What one program may still bring.
struct Budget {
    files: usize,
    bytes: u64,
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
            let mut budget = Budget { files: MAX_FILES, bytes: MAX_BYTES };
            fs.bring_part(&inode, head.relocated.clone(), &mut budget, &handle);
            let first = interpreter.iter().flat_map(|path| [path, LOADER_CACHE]);
            let first = first.filter_map(|path| fs.file_at(path)).collect();
            let following = async {
                let mut todo = fs.bring_files(first, &mut budget, &handle).await;
                todo.push((inode, head));
                while let Some((inode, head)) = todo.pop() {
                    let files = fs.named_by(&inode, &head).await;
                    todo.extend(fs.bring_files(files, &mut budget, &handle).await);
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
    async fn named_by(&self, inode: &Inode, head: &Head) -> Vec<Inode> {
        let mut files = Vec::new();
        let Some(dynamic) = self.part(inode, head.dynamic.clone()).await else { return files };
        for at in head.needed(&dynamic) {
            let name = self.part(inode, at..at.saturating_add(elf::MAX_NAME + 1)).await;
            let Some(Ok(name)) = name.as_deref().and_then(elf::string).map(std::str::from_utf8) else {
                break;
            };
            let mut paths = folders(head.machine).map(|folder| format!("{folder}/{name}"));
            files.extend(paths.find_map(|path| self.file_at(path.as_bytes())));
        }
        files
    }

    /// Fetches what is new of `files`; the heads of those that name others.
    async fn bring_files(
        self: &Arc<Self>,
        files: Vec<Inode>,
        budget: &mut Budget,
        runtime: &tokio::runtime::Handle,
    ) -> Vec<(Inode, Head)> {
        let mut fresh = Vec::new();
        for inode in files {
            if budget.files == 0 || !self.programs.is_new(inode.nid) {
                continue;
            }
            budget.files -= 1;
            self.bring_part(&inode, 0..inode.size, budget, runtime);
            fresh.push(inode);
        }
        let heads = stream::iter(fresh).map(|inode| async move {
            let head = Head::parse(&self.part(&inode, 0..HEAD).await?)?;
            Some((inode, head))
        });
        heads.buffered(PARALLEL).filter_map(std::future::ready).collect().await
    }

    /// Has a part of a file fetched, as far as the budget goes.
    fn bring_part(
        self: &Arc<Self>,
        inode: &Inode,
        range: Range<u64>,
        budget: &mut Budget,
        runtime: &tokio::runtime::Handle,
    ) {
        let (mut blocks, mut left) = (Vec::new(), MAX_OF_FILE.min(budget.bytes));
        let len = range.end.min(inode.size).saturating_sub(range.start);
        let mut looked_at = 0;
        let chosen = self.pieces(inode, range.start, len, &mut |piece| {
            looked_at += 1;
            if looked_at > MAX_PIECES {
                return false;
            }
            let Some((block, _)) = piece.frame().filter(|(block, _)| !blocks.contains(block)) else {
                return true;
            };
            let stored = u64::from(self.image.map.block(block).stored_len());
            let fits = stored <= left && blocks.len() < MAX_AHEAD;
            if fits {
                left -= stored;
                blocks.push(block);
            }
            fits
        });
        if chosen.is_ok() {
            budget.bytes = budget.bytes.saturating_sub(self.bring_blocks(blocks, runtime));
        }
    }

    /// A part of a file, as read-ahead.
    async fn part(&self, inode: &Inode, range: Range<u64>) -> Option<Bytes> {
        let len = range.end.min(inode.size).checked_sub(range.start)?;
        let mut pieces = Vec::new();
        self.pieces(inode, range.start, len, &mut |piece| {
            pieces.push(piece);
            true
        })
        .ok()?;
        let terms = Class::ReadAhead.until(Instant::now() + self.deadline);
        self.gather(pieces, len, terms).await.ok().map(|contents| contents.0)
    }
}
