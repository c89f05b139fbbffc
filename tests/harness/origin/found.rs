//! What an [`super::Origin`] has for a request: a block of its store or all below one, or a plain file, or a part of one.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::dag::{self, Section};
use super::link::Sending;
use super::{PROBE, Shared, lock};

/// Bytes of a file that are read and sent at a time.
const PART: u64 = 1 << 20;

/// Something to give.
pub(super) struct Found {
    pub(super) status: &'static str,
    /// Headers of its own, each ended.
    pub(super) headers: String,
    pub(super) body: Body,
}

/// Its bytes.
pub(super) enum Body {
    Memory(Vec<u8>),
    Part(File, Range<u64>),
    Car(Vec<Section>),
}

impl Body {
    pub(super) fn len(&self) -> u64 {
        match self {
            Body::Memory(bytes) => bytes.len() as u64,
            Body::Part(_, range) => range.end - range.start,
            Body::Car(sections) => sections.iter().map(|s| s.prefix.len() as u64 + s.len).sum(),
        }
    }

    /// All of it in memory, to be spoiled.
    pub(super) fn bytes(self) -> io::Result<Vec<u8>> {
        match self {
            Body::Memory(bytes) => Ok(bytes),
            Body::Part(file, range) => {
                let mut bytes = vec![0; (range.end - range.start) as usize];
                file.read_exact_at(&mut bytes, range.start)?;
                Ok(bytes)
            }
            Body::Car(sections) => {
                let parts = sections.into_iter().map(|s| Ok([s.prefix, fs::read(s.block)?].concat()));
                parts.collect::<io::Result<Vec<_>>>().map(|parts| parts.concat())
            }
        }
    }

    pub(super) fn send(self, sending: &mut Sending<'_>) -> io::Result<()> {
        let (file, range) = match self {
            Body::Memory(bytes) => return sending.send(&bytes),
            Body::Part(file, range) => (file, range),
            Body::Car(sections) => {
                return sections.into_iter().try_for_each(|section| {
                    sending.send(&section.prefix)?;
                    sending.send(&fs::read(section.block)?)
                });
            }
        };
        if sending.has_no_bound() {
            return sending.send_file(&file, range);
        }
        let mut buffer = vec![0; PART.min(range.end - range.start) as usize];
        let mut at = range.start;
        while at < range.end {
            let part = &mut buffer[..PART.min(range.end - at) as usize];
            file.read_exact_at(part, at)?;
            sending.send(part)?;
            at += part.len() as u64;
        }
        Ok(())
    }
}

impl Shared {
    /// What there is for a request.
    pub(super) fn find(&self, head: &str, target: &str) -> Option<Found> {
        match target.strip_prefix("/ipfs/") {
            Some(rest) => match rest.split_once('?') {
                Some((cid, super::CAR)) => self.car(cid),
                Some((cid, _)) => self.block(cid),
                None => self.block(rest),
            },
            None => self.file(head, target),
        }
    }

    fn block(&self, cid: &str) -> Option<Found> {
        let headers = "Content-Type: application/vnd.ipld.raw\r\n".to_owned();
        if cid == PROBE {
            return Some(Found { status: "200 OK", headers, body: Body::Memory(Vec::new()) });
        }
        let block = File::open(place(&self.store, cid)?).ok()?;
        let len = block.metadata().ok()?.len();
        Some(Found { status: "200 OK", headers, body: Body::Part(block, 0..len) })
    }

    fn car(&self, root: &str) -> Option<Found> {
        let headers = "Content-Type: application/vnd.ipld.car; version=1; order=dfs; dups=n\r\n".to_owned();
        let body = Body::Car(dag::sections(&self.store, root)?);
        Some(Found { status: "200 OK", headers, body })
    }

    fn file(&self, head: &str, target: &str) -> Option<Found> {
        let name = target.rsplit('/').next()?;
        let name = name.strip_prefix("sha256:").unwrap_or(name);
        if name.is_empty() || name.starts_with('.') {
            return None;
        }
        let file = File::open(lock(&self.files).as_ref()?.join(name)).ok()?;
        let all = file.metadata().ok()?.len();
        let (status, range) = match asked_range(head, all) {
            Some(range) => ("206 Partial Content", range),
            None => ("200 OK", 0..all),
        };
        let mut headers = "Content-Type: application/octet-stream\r\nAccept-Ranges: bytes\r\n".to_owned();
        if status.starts_with("206") {
            headers += &format!("Content-Range: bytes {}-{}/{all}\r\n", range.start, range.end - 1);
        }
        Some(Found { status, headers, body: Body::Part(file, range) })
    }
}

/// Where a block is in a `dir:` store: in a folder named by the two characters before the last.
pub(super) fn place(store: &Path, cid: &str) -> Option<PathBuf> {
    Some(store.join(cid.get(cid.len().checked_sub(3)?..cid.len() - 1)?).join(cid))
}

/// `Range: bytes=FROM-TO`, `FROM-` or `-LAST`; one that is none of these, or empty, means everything (RFC 9110, 14.2).
fn asked_range(head: &str, all: u64) -> Option<Range<u64>> {
    let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with("range:"))?;
    let (from, to) = line.split_once('=')?.1.trim().split_once('-')?;
    let range = match (from.parse::<u64>(), to.parse::<u64>()) {
        (Ok(from), Ok(to)) => from..to.checked_add(1)?.min(all),
        (Ok(from), Err(_)) => from..all,
        (Err(_), Ok(last)) => all.saturating_sub(last)..all,
        (Err(_), Err(_)) => return None,
    };
    (range.start < range.end).then_some(range)
}
