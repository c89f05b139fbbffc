//! What is fetched although nobody has asked for it yet: further on in a stream, and around what is missing.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use g8_cache::Class;

use super::{Filesystem, around, runs};
use crate::erofs;

impl Filesystem {
    /// Whether to fetch what a reader will perhaps want beside what it waits for: a profile knows better.
    pub(super) fn guesses(&self) -> bool {
        self.replay.as_ref().is_none_or(|replay| !replay.is_followed())
    }

    /// Has `runtime` fetch what the reader of `len` bytes at `address` will want next, when it reads on and on.
    pub fn read_ahead(
        self: &Arc<Self>,
        device: erofs::Device,
        address: u64,
        len: u64,
        runtime: &tokio::runtime::Handle,
    ) {
        if let Some(range) = self.streams.follow(device, address, len) {
            self.fetch_ahead(device, range, runtime);
        }
    }

    /// The same where the reader has to wait for a source. When it does not read on and on, what lies around is worth the
    /// while of a far one.
    pub fn read_ahead_of_missing(
        self: &Arc<Self>,
        device: erofs::Device,
        address: u64,
        len: u64,
        runtime: &tokio::runtime::Handle,
    ) {
        match self.streams.follow(device, address, len) {
            Some(range) => self.fetch_ahead(device, range, runtime),
            None if self.guesses() => self.fetch_around(device, address, runtime),
            None => {}
        }
    }

    fn fetch_around(self: &Arc<Self>, device: erofs::Device, address: u64, runtime: &tokio::runtime::Handle) {
        // All that is under way together fills the way once: what is wanted now waits behind no more than that.
        let budget = self.sources.carries().saturating_sub(self.along.load(Ordering::Relaxed));
        self.bring_blocks(around::blocks(&self.image.map, device, address, budget), runtime);
    }

    /// Fetches blocks that will perhaps be wanted, as far as there is room for it.
    pub(super) fn bring_blocks(self: &Arc<Self>, blocks: Vec<u32>, runtime: &tokio::runtime::Handle) {
        for block in blocks {
            let Ok(slot) = self.ahead.clone().try_acquire_owned() else { return };
            let fs = self.clone();
            runtime.spawn(async move {
                let _slot = slot;
                let desc = fs.image.map.block(block);
                let terms = Class::ReadAhead.until(Instant::now() + fs.deadline);
                let bytes = u64::from(desc.stored_len());
                fs.along.fetch_add(bytes, Ordering::Relaxed);
                if let Err(error) = fs.cache.bring(&desc, &fs.sources, terms).await {
                    // Who really reads it will be told.
                    tracing::debug!(%error, "not fetched along");
                }
                fs.along.fetch_sub(bytes, Ordering::Relaxed);
            });
        }
    }

    fn fetch_ahead(
        self: &Arc<Self>,
        device: erofs::Device,
        range: Range<u64>,
        runtime: &tokio::runtime::Handle,
    ) {
        let map = &self.image.map;
        let Some(end) = map.extents(device).last().map(|last| last.end().min(range.end)) else { return };
        if end <= range.start {
            return;
        }
        let mut wanted: Vec<(u32, usize)> = Vec::new();
        for part in map.parts(device, range.start, end - range.start) {
            self.frames(part, &mut |piece| {
                // Many small files lie in one frame.
                wanted.extend(piece.frame().filter(|frame| wanted.last() != Some(frame)));
                true
            });
        }
        for run in runs(wanted.into_iter()) {
            // A favour: with enough of them under way the reader asks itself.
            let Ok(slot) = self.ahead.clone().try_acquire_owned() else { return };
            let fs = self.clone();
            runtime.spawn(async move {
                let _slot = slot;
                let terms = Class::ReadAhead.until(Instant::now() + fs.deadline);
                if let Err(error) = fs.fetch(run, terms).await {
                    // Who really reads it will be told.
                    tracing::debug!(%error, "not read ahead");
                }
            });
        }
    }
}
