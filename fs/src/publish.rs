//! Publishing: every object of an flist, proven, put into a sink where others find it.
//!
//! The line: `plan` finds out what there is, [`Objects`] fetches and proves it a few blocks ahead, and the sink takes it: `dir`, `car`
//! or `ipfs`. Nothing that lacks an object is ever called published: a store gets the root last, an archive its name,
//! a node its pin.
//!
//! A stop is taken between two objects. What has arrived until then stays and is not sent again by the next run, except
//! in an archive, which is made anew.

mod car;
mod dir;
mod ipfs;
mod plan;
mod progress;

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::stream::{self, Stream, StreamExt};
use g8_cache::{BlockId, GetError, Sources, VerifiedBlock};
use serde::Serialize;
use tokio::sync::watch;

use crate::format::FormatError;
use crate::ipfs::{RpcError, Verdict};
use crate::source::{ClientError, Spec, StoreError};
use plan::Plan;

pub use progress::{Progress, Reached};

/// Blocks fetched ahead of the sink.
const AHEAD: usize = 16;

/// How to publish.
#[derive(Clone, Debug)]
pub struct PublishOptions {
    /// How long one object may take to come, and how long a sink may show no sign of life.
    pub deadline: Duration,
    /// What the pin is called, where pins have names.
    pub name: String,
    /// A profile of the flist, to be published beside it.
    pub profile: Option<BlockId>,
}

/// What was published.
#[derive(Clone, Debug, Serialize)]
pub struct PublishReport {
    /// The flist.
    pub cid: BlockId,
    /// Where it is now.
    pub to: String,
    /// Objects that it has.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Objects that were there already.
    pub skipped: u64,
    /// Objects that were sent.
    pub sent: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// How long it took.
    pub seconds: f64,
    /// Name of the pin on a node that has names for them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pin: Option<String>,
    /// The profile that was published with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<BlockId>,
}

/// Why an flist is not published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The user said so.
    #[error("stopped: what {0} has got stays there, the next run sends the rest")]
    Stopped(String),
    /// The same, and nothing is left.
    #[error("stopped: {0} is as it was before")]
    Abandoned(String),
    /// The address is a raw block.
    #[error("{0} is a raw block: the address of an flist begins with bafyrei")]
    NotAnFlist(BlockId),
    /// What the address names is none.
    #[error("{0} is not a valid flist")]
    Format(BlockId, #[source] FormatError),
    /// The profile is none, or one of another flist.
    #[error("{0} is no profile of this flist: use --no-profile to publish without it")]
    Profile(BlockId, #[source] FormatError),
    /// The profile cannot be had.
    #[error(
        "the profile {0} cannot be had: name more sources with --from, or use --no-profile to publish without it"
    )]
    NoProfile(BlockId, #[source] GetError),
    /// An object of it cannot be had.
    #[error("an object of the flist cannot be had: check the address, or name more sources with --from")]
    Get(#[from] GetError),
    /// This can only be read.
    #[error("{0} can only be read: publish to dir:PATH, car:FILE or ipfs:URL")]
    ReadOnly(String),
    /// The store does not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The archive cannot be written.
    #[error("writing the archive {0}")]
    Archive(PathBuf, #[source] std::io::Error),
    /// There is no client.
    #[error("sink {0}")]
    Client(String, #[source] ClientError),
    /// The node does not do what it should.
    #[error("{0} does not take the flist; what it has got stays, and the same command sends only the rest")]
    Node(String, #[source] RpcError),
    /// It does what it wants.
    #[error("{to} has not published the flist")]
    Refused {
        /// Which node.
        to: String,
        /// What it did.
        #[source]
        verdict: Verdict,
    },
    /// All was well, and then the pin was not there.
    #[error(
        "{0} has taken the flist and does not list its pin: see `ipfs pin ls`, and whether its garbage collector or somebody else removes pins"
    )]
    NoPin(String),
    /// A step of our own was aborted.
    #[error("a worker ended early")]
    Aborted(#[from] tokio::task::JoinError),
}

/// Says when to stop; a clone hears the same.
pub type Stop = watch::Receiver<bool>;

/// Publishes the flist `id` from `sources` to `sink`.
pub async fn publish(
    id: BlockId,
    sources: &Sources,
    sink: &Spec,
    options: &PublishOptions,
    progress: &Arc<Progress>,
    stop: &Stop,
) -> Result<PublishReport, PublishError> {
    let began = Instant::now();
    let objects = Objects {
        sources: sources.clone(),
        deadline: options.deadline,
        progress: progress.clone(),
        stop: stop.clone(),
    };
    let plan = Plan::of(id, options.profile, sources, options.deadline).await?;
    progress.begin(plan.len() as u64, plan.data_bytes);
    let done = match sink {
        Spec::Dir(path) => dir::publish(&plan, &objects, path).await?,
        Spec::Ipfs(address) => ipfs::publish(&plan, &objects, address, options).await?,
        Spec::Car(path) => car::publish(&plan, &objects, path).await?,
        Spec::Http(_) | Spec::Hint(_) | Spec::Peer => return Err(PublishError::ReadOnly(sink.to_string())),
    };
    progress.end();
    Ok(PublishReport {
        cid: id,
        to: sink.to_string(),
        objects: plan.len() as u64,
        bytes: done.skipped_bytes + done.sent_bytes,
        skipped: plan.len() as u64 - done.sent,
        sent: done.sent,
        sent_bytes: done.sent_bytes,
        seconds: began.elapsed().as_secs_f64(),
        pin: done.pin,
        profile: plan.profile,
    })
}

/// What a sink did.
#[derive(Debug, Default)]
struct Done {
    skipped_bytes: u64,
    sent: u64,
    sent_bytes: u64,
    pin: Option<String>,
}

/// Fetches objects and proves them, a few ahead.
#[derive(Clone)]
struct Objects {
    sources: Sources,
    deadline: Duration,
    progress: Arc<Progress>,
    stop: Stop,
}

type Blocks = Pin<Box<dyn Stream<Item = Result<VerifiedBlock, GetError>> + Send>>;

impl Objects {
    /// The objects `ids` in their order. It ends early when the user wants to stop.
    fn stream(&self, ids: impl IntoIterator<Item = BlockId, IntoIter: Send + 'static>) -> Blocks {
        let (sources, deadline) = (self.sources.clone(), self.deadline);
        let fetch = move |id| {
            let sources = sources.clone();
            async move { sources.fetch_verified(id, Instant::now() + deadline).await }
        };
        Box::pin(stream::iter(ids).map(fetch).buffered(AHEAD).take_until(stopped(self.stop.clone())))
    }

    fn is_stopped(&self) -> bool {
        *self.stop.borrow()
    }
}

/// Returns when the user wants to stop; never when nobody can say so any more.
async fn stopped(mut stop: Stop) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}
