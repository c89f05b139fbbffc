//! What the cache of a daemon holds, for other processes of this user: a gateway on a second socket beside the daemon's.
//!
//! So the process that strangers talk to is not the one that owns mounts. The gateway begins with the first who wants it and
//! ends with the daemon, which lives as long as one of them does. It has no sources: whatever strangers ask for, the
//! daemon fetches nothing for them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::protocol::Refusal;
use super::server::listen;
use crate::engine::Engine;
use crate::gateway::{Gateway, Limits, Stock};

/// Name of its socket in the cache folder.
pub(crate) const SOCKET: &str = "blocks.sock";
/// Processes that may want blocks at the same time.
const MAX_HOLDERS: usize = 16;
/// Looking for a block waits behind all reading of mounts, but no longer than this.
const DEADLINE: Duration = Duration::from_secs(10);

/// Who wants blocks, and whether they are given yet.
#[derive(Default)]
pub(super) struct Blocks {
    holders: Arc<AtomicUsize>,
    is_given: Mutex<bool>,
}

/// Somebody who wants blocks.
pub(super) struct Holder(Arc<AtomicUsize>);

impl Drop for Holder {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Blocks {
    pub(super) fn is_idle(&self) -> bool {
        self.holders.load(Ordering::Acquire) == 0
    }

    /// Gives blocks from here on, for as long as the holder stays.
    pub(super) fn hold(&self, engine: &Engine) -> Result<Holder, Refusal> {
        let others = self.holders.fetch_add(1, Ordering::AcqRel);
        let holder = Holder(Arc::clone(&self.holders));
        if others >= MAX_HOLDERS {
            let message =
                format!("{MAX_HOLDERS} processes take blocks of this cache already: stop one first");
            return Err(Refusal { message });
        }
        let mut is_given = self.is_given.lock();
        if !*is_given {
            let message = |e: io::Error| format!("{}: {e}", engine.cache_dir().join(SOCKET).display());
            give(engine).map_err(|e| Refusal { message: message(e) })?;
            *is_given = true;
        }
        Ok(holder)
    }
}

fn give(engine: &Engine) -> io::Result<()> {
    let limits = Limits { connections: 128, requests: 32, cars: 1, ..Limits::default() };
    let stock = Stock::of_cache(engine.cache().clone(), DEADLINE);
    let socket = listen(engine.cache_dir(), SOCKET)?;
    let _runtime = engine.runtime().enter();
    let gateway = Gateway::on_socket(socket, stock, limits)?;
    engine.runtime().spawn(gateway.run(std::future::pending()));
    Ok(())
}
