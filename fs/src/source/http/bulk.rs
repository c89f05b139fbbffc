//! The metadata of an flist in one answer: the CAR of its root, which gateways send depth first, so that root, map and tree
//! come before any data.
//!
//! The request for the root becomes one for its CAR. A task reads it block by block, and whoever fetches a block that is to
//! come in it waits for it there; to the layers above it looks as if each had been asked for alone, so proofs, hedges and
//! records are as ever. What the root links to is taken from bytes that nobody has proven yet: if they lie, a wait was in
//! vain, and it ends with the answer.
//!
//! Nothing is read past the first block that is not expected, or past the last one that is; what comes too slowly is not
//! waited for; and what nobody takes is not held without bound. All that is missing then is asked for block by block.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use cid::Cid;
use g8_cache::{BlockId, Expected, StoredBlock, TooLarge};
use parking_lot::Mutex;
use reqwest::{RequestBuilder, Response, StatusCode};
use tokio::sync::watch;
use tokio::time::timeout;

use super::media_type;
use crate::car::BadCar;
use crate::car::parse::{self, Parsed};
use crate::format::Root;

/// Media type of a CAR.
const CAR: &str = "application/vnd.ipld.car";
/// The same as it is asked for: in the order of the links, every block once.
pub(super) const CAR_IN_ORDER: &str = "application/vnd.ipld.car; version=1; order=dfs; dups=n";
/// How long the root may take: as long as a source of which nothing is known is waited for before another one is asked.
const FIRST: Duration = Duration::from_secs(1);
/// How long each further block may take.
const NEXT: Duration = Duration::from_secs(3);
/// How long a block is waited for while others come: half of what a try may take, so that the other half is left to ask for
/// it alone.
const TURN: Duration = Duration::from_secs(5);
/// Bytes that may wait for somebody to take them, and how long it is waited for that when there are more.
const HELD_MAX: usize = 8 << 20;
const BREATH: Duration = Duration::from_millis(100);

/// Why no more is read of a CAR.
#[derive(Debug, thiserror::Error)]
enum NoMore {
    #[error("the request failed")]
    Http(#[source] reqwest::Error),
    #[error("the answer is {0} of type {1:?}")]
    NoCar(StatusCode, String),
    #[error("it is not a CAR")]
    Bad(#[from] BadCar),
    #[error("it goes on with something else")]
    Other,
    #[error("it ends")]
    Ended,
    #[error("it is too slow")]
    Slow(#[from] tokio::time::error::Elapsed),
}

/// The shortcut of one source.
#[derive(Debug, Default)]
pub(super) struct Bulk(Arc<Mutex<Option<Arc<Flow>>>>);

impl Bulk {
    /// One flist at a time, as a mount opens it.
    pub(super) fn expect(&self, root: &BlockId) -> Option<Expected> {
        let mut now = self.0.lock();
        if now.is_some() {
            return None;
        }
        *now = Some(Arc::new(Flow::of(*root)));
        Some(Box::new(Opening(Arc::clone(&self.0))))
    }

    /// The block, if it comes in the CAR; `car` is the request for that, made when the root is asked for.
    pub(super) async fn take(
        &self,
        id: &BlockId,
        car: impl FnOnce() -> RequestBuilder,
    ) -> Option<Result<StoredBlock, TooLarge>> {
        let flow = self.0.lock().clone()?;
        if *id == flow.root && !flow.begun.swap(true, Relaxed) {
            tokio::spawn(run(Arc::clone(&flow), car()));
        }
        let block = StoredBlock::new(*id, flow.take(id).await?);
        Some(if *id == flow.root { block } else { block.map(StoredBlock::along) })
    }
}

#[cfg(test)]
impl Bulk {
    /// Bytes that wait to be taken.
    pub(super) fn held(&self) -> usize {
        self.0.lock().as_ref().map_or(0, |flow| flow.state.borrow().held())
    }
}

/// Held while an flist is opened.
struct Opening(Arc<Mutex<Option<Arc<Flow>>>>);

impl Drop for Opening {
    fn drop(&mut self) {
        if let Some(flow) = self.0.lock().take() {
            flow.end();
            flow.state.send_modify(|state| state.is_over = true);
        }
    }
}

/// One CAR on its way.
#[derive(Debug)]
struct Flow {
    root: BlockId,
    begun: AtomicBool,
    state: watch::Sender<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What is to come.
    coming: HashSet<BlockId>,
    /// What has come and was not taken.
    here: HashMap<BlockId, Bytes>,
    /// Nobody wants anything any more.
    is_over: bool,
}

impl State {
    fn held(&self) -> usize {
        self.here.values().map(Bytes::len).sum()
    }
}

impl Flow {
    fn of(root: BlockId) -> Flow {
        let state = State { coming: HashSet::from([root]), ..State::default() };
        Flow { root, begun: AtomicBool::new(false), state: watch::Sender::new(state) }
    }

    /// Waits for a block that is to come. It is given once: who asks again has a reason to ask elsewhere.
    async fn take(&self, id: &BlockId) -> Option<Bytes> {
        let mut changes = self.state.subscribe();
        let no_longer_coming = changes.wait_for(|state| !state.coming.contains(id));
        timeout(TURN, no_longer_coming).await.ok()?.ok()?;
        let mut taken = None;
        self.state.send_if_modified(|state| {
            taken = state.here.remove(id);
            taken.is_some()
        });
        taken
    }

    /// The block of ours that a section has, if it is to come.
    fn expects(&self, cid: &Cid) -> Result<BlockId, NoMore> {
        let id = BlockId::try_from(cid).map_err(|_| NoMore::Other)?;
        if self.state.borrow().coming.contains(&id) { Ok(id) } else { Err(NoMore::Other) }
    }

    /// A block came, and with a root what follows it is known.
    fn arrived(&self, id: BlockId, bytes: Bytes) {
        let follows = if id == self.root { metadata(&bytes) } else { Vec::new() };
        self.state.send_modify(|state| {
            state.coming.remove(&id);
            state.coming.extend(follows);
            state.here.insert(id, bytes);
        });
    }

    /// Waits a little for room, then makes it: what was not taken by now was in the cache.
    async fn make_room(&self) {
        let mut changes = self.state.subscribe();
        let room = changes.wait_for(|state| state.held() <= HELD_MAX);
        if timeout(BREATH, room).await.is_err() {
            self.state.send_modify(|state| state.here.clear());
        }
    }

    fn is_complete(&self) -> bool {
        self.state.borrow().coming.is_empty()
    }

    /// No more comes.
    fn end(&self) {
        self.state.send_modify(|state| state.coming.clear());
    }
}

/// What an flist links to before its shards. A root that is none says so to whoever opens it.
fn metadata(root: &[u8]) -> Vec<BlockId> {
    let pieces =
        Root::from_bytes(root).and_then(|root| Ok([root.map_pieces()?, root.tree_pieces()?].concat()));
    pieces.unwrap_or_default()
}

/// Ends a flow also when its task panics or goes with its runtime.
struct Running(Arc<Flow>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.end();
    }
}

async fn run(flow: Arc<Flow>, request: RequestBuilder) {
    let running = Running(flow);
    let flow = &*running.0;
    let mut changes = flow.state.subscribe();
    let outcome = tokio::select! {
        outcome = read(flow, request) => outcome,
        _ = changes.wait_for(|state| state.is_over) => Ok(()),
    };
    if let Err(why) = outcome {
        let has_begun = !flow.state.borrow().coming.contains(&flow.root);
        tracing::debug!(root = %flow.root, has_begun, error = &why as &dyn std::error::Error, "no more of a CAR");
    }
}

async fn read(flow: &Flow, request: RequestBuilder) -> Result<(), NoMore> {
    let begin = async {
        let mut sections = Sections::of(request).await?;
        let root = sections.next(flow).await?;
        Ok::<_, NoMore>((sections, root))
    };
    let (mut sections, (root, bytes)) = timeout(FIRST, begin).await??;
    flow.arrived(root, bytes);
    while !flow.is_complete() {
        flow.make_room().await;
        let (id, bytes) = timeout(NEXT, sections.next(flow)).await??;
        flow.arrived(id, bytes);
    }
    Ok(())
}

/// A CAR behind its header.
struct Sections {
    response: Response,
    /// At most a section, and what came with its end.
    buffer: BytesMut,
}

impl Sections {
    async fn of(request: RequestBuilder) -> Result<Sections, NoMore> {
        let response = request.send().await.map_err(|e| NoMore::Http(e.without_url()))?;
        let (status, kind) = (response.status(), media_type(&response));
        if status != StatusCode::OK || kind != CAR {
            return Err(NoMore::NoCar(status, kind.chars().filter(|c| !c.is_control()).take(60).collect()));
        }
        let mut sections = Sections { response, buffer: BytesMut::new() };
        loop {
            if let Parsed::Whole(_, len) = parse::header(&sections.buffer)? {
                sections.buffer.advance(len);
                return Ok(sections);
            }
            sections.more().await?;
        }
    }

    /// The next block, if it is one that is expected; of another one no more is read than its name.
    async fn next(&mut self, flow: &Flow) -> Result<(BlockId, Bytes), NoMore> {
        loop {
            match parse::section(&self.buffer)? {
                Parsed::Whole(section, len) => {
                    let id = flow.expects(&section.cid)?;
                    let bytes = Bytes::copy_from_slice(&self.buffer[section.data]);
                    self.buffer.advance(len);
                    return Ok((id, bytes));
                }
                Parsed::Short(_, Some(cid)) => {
                    flow.expects(&cid)?;
                }
                Parsed::Short(_, None) => {}
            }
            self.more().await?;
        }
    }

    async fn more(&mut self) -> Result<(), NoMore> {
        let chunk = self.response.chunk().await.map_err(|e| NoMore::Http(e.without_url()))?;
        self.buffer.extend_from_slice(&chunk.ok_or(NoMore::Ended)?);
        Ok(())
    }
}
