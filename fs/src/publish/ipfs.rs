//! Publishing to an IPFS node: what it lacks is streamed to it in CARs, and one recursive pin keeps the whole.
//!
//! In rounds: ask the node for every object whether it is there, send what is not, data first and the root last, have the
//! root pinned by the import that brings it. The node pins only what is whole, so its garbage collector, whatever it took
//! meanwhile, costs another round and never a hole. Only when the node says, in so many words, that it pinned this root,
//! and lists the pin afterwards, the flist is published.

mod delivery;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use futures::stream::{self, StreamExt};
use g8_cache::BlockId;

use super::plan::Plan;
use super::{Done, Objects, PublishError, PublishOptions, stopped};
use crate::ipfs::{Node, Presence, RpcAddress, RpcError, Verdict};

/// Rounds before we give up on a node that does not keep what it is given.
const ROUNDS: usize = 3;
/// Objects asked for at the same time.
const ASKED: usize = 16;
/// How long a node may take to say whether it has an object.
const SAYS: Duration = Duration::from_secs(2);
/// A node that has twice not said after this time whether it has one object, which a healthy one does in a few milliseconds, is
/// taken for one that waits for what is missing, as js-ipfs does; that one says what it is and is not tried out.
const PROMPT: Duration = Duration::from_secs(1);
/// How long a node may take to list one pin.
const LISTS: Duration = Duration::from_secs(10);
/// A CAR has about so many bytes: a broken connection costs no more, and a node has its own work with larger ones.
const CAR_BYTES: u64 = 256 << 20;
/// Pauses before a call that failed is made again: 200 ms to 5 s, and up to as much again by chance.
const PAUSES: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(200))
    .with_max_delay(Duration::from_secs(5))
    .with_factor(3.0)
    .with_jitter()
    .with_max_times(4);

pub(super) async fn publish(
    plan: &Plan,
    objects: &Objects,
    address: &RpcAddress,
    options: &PublishOptions,
) -> Result<Done, PublishError> {
    let to = format!("ipfs:{address}");
    let node = Node::new(address).map_err(|error| PublishError::Client(to.clone(), error))?;
    let mut run = Run {
        plan,
        objects,
        node,
        to,
        silence: options.deadline,
        waits: false,
        imports: true,
        here: HashMap::new(),
        offered: HashSet::new(),
        sent: HashMap::new(),
    };
    // The first call also tells whether there is a node at all; for one that is not there nobody wants to wait.
    let version = run.node.version().await.map_err(run.told())?;
    run.waits = !version.says_what_it_lacks() || (run.is_silent().await? && run.is_silent().await?);
    run.rounds().await?;
    if let Some(profile) = plan.profile {
        // It came with the rest; its own pin keeps it, and with it the flist.
        let name = version.names_pins().then(|| format!("{}?profile", options.name));
        patiently(|| run.node.pin(&profile, name.as_deref(), run.silence)).await.map_err(run.told())?;
    }
    let pin = if version.names_pins() { run.name(&options.name).await } else { None };
    if !run.is_pinned().await? {
        return Err(PublishError::NoPin(run.to));
    }
    Ok(Done {
        skipped_bytes: run.here.values().sum(),
        sent: run.sent.len() as u64,
        sent_bytes: run.sent.values().sum(),
        pin,
    })
}

/// One publication to one node.
struct Run<'a> {
    plan: &'a Plan,
    objects: &'a Objects,
    node: Node,
    to: String,
    /// How long nothing may move.
    silence: Duration,
    /// Whether the node waits for what is missing instead of saying so.
    waits: bool,
    /// Whether the node knows `dag/import`, as far as we know.
    imports: bool,
    /// Objects that the node had, and their sizes.
    here: HashMap<BlockId, u64>,
    /// Objects that went into some CAR.
    offered: HashSet<BlockId>,
    /// Objects that arrived, and their sizes.
    sent: HashMap<BlockId, u64>,
}

impl Run<'_> {
    async fn rounds(&mut self) -> Result<(), PublishError> {
        let mut pauses = PAUSES.build();
        let mut refused = None;
        for round in 0..ROUNDS {
            let missing = self.missing(&self.plan.root_last()).await?;
            if missing.is_empty() && self.is_pinned().await? {
                return Ok(());
            }
            match self.deliver(missing).await? {
                Ok(()) => return Ok(()),
                Err(verdict) => {
                    tracing::warn!(to = %self.to, round, %verdict, "the node does not have the flist yet");
                    refused = Some(verdict);
                }
            }
            self.pause(pauses.next().unwrap_or_default()).await?;
        }
        Err(PublishError::Refused { to: self.to.clone(), verdict: refused.unwrap_or(Verdict::NoRoot) })
    }

    /// Whether the node does not say at once that it has the root or has it not.
    async fn is_silent(&self) -> Result<bool, PublishError> {
        let root = patiently(|| self.node.presence(&self.plan.id, PROMPT)).await.map_err(self.told())?;
        Ok(root == Presence::Unsaid)
    }

    /// Which of `ids` the node does not have, in their order.
    async fn missing(&mut self, ids: &[BlockId]) -> Result<Vec<BlockId>, PublishError> {
        let known = self.known().await?;
        let (node, told) = (self.node.clone(), self.told());
        let ask = |id: BlockId| {
            let (node, ask) = (node.clone(), known.as_ref().is_none_or(|known| known.contains(id.digest())));
            async move {
                match ask {
                    true => (id, patiently(|| node.presence(&id, SAYS)).await),
                    false => (id, Ok(Presence::Missing)),
                }
            }
        };
        let answers = stream::iter(ids.iter().copied()).map(ask).buffered(ASKED);
        let mut answers = Box::pin(answers.take_until(stopped(self.objects.stop.clone())));
        let mut missing = Vec::new();
        while let Some((id, presence)) = answers.next().await {
            match presence.map_err(&told)? {
                Presence::Here(bytes) => {
                    if !self.here.contains_key(&id) && !self.sent.contains_key(&id) {
                        let ours = self.offered.contains(&id);
                        if ours { &mut self.sent } else { &mut self.here }.insert(id, bytes);
                        self.objects.progress.add(bytes);
                    }
                }
                // To send what is there already is only slow.
                Presence::Missing | Presence::Unsaid => missing.push(id),
            }
        }
        self.go_on()?;
        Ok(missing)
    }

    /// Digests of all that the node has, if it is one that can only be asked for what it has: others say for each object whether
    /// it is there. One that has too much to list, or cannot, is sent everything.
    async fn known(&self) -> Result<Option<HashSet<[u8; 32]>>, PublishError> {
        if !self.waits {
            return Ok(None);
        }
        match patiently(|| self.node.local(self.silence)).await {
            Ok(known) => Ok(Some(known)),
            Err(error @ (RpcError::Gone { .. } | RpcError::Busy { .. } | RpcError::Silent { .. })) => {
                Err(self.told()(error))
            }
            Err(error) => {
                tracing::info!(to = %self.to, %error, "what is on the node cannot be listed: sending everything");
                Ok(Some(HashSet::new()))
            }
        }
    }

    async fn is_pinned(&self) -> Result<bool, PublishError> {
        let (node, id) = (&self.node, self.plan.id);
        patiently(|| node.has_pinned(&id, LISTS)).await.map_err(self.told())
    }

    /// Names the pin, which kubo does by pinning anew. That the pin is there is looked at afterwards, so this may fail.
    async fn name(&self, name: &str) -> Option<String> {
        let named = async {
            if self.node.pin_name(&self.plan.id).await?.as_deref() != Some(name) {
                self.node.pin(&self.plan.id, Some(name), self.silence).await?;
            }
            self.node.pin_name(&self.plan.id).await
        };
        let named = tokio::select! {
            named = named => named,
            // It is published; a name is not worth waiting for.
            () = stopped(self.objects.stop.clone()) => return None,
        };
        match named {
            Ok(named) => named,
            Err(error) => {
                tracing::warn!(to = %self.to, %error, "the pin has no name");
                None
            }
        }
    }

    fn told(&self) -> impl Fn(RpcError) -> PublishError + use<> {
        let to = self.to.clone();
        move |error| PublishError::Node(to.clone(), error)
    }

    /// An error when the user wants to stop.
    fn go_on(&self) -> Result<(), PublishError> {
        match self.objects.is_stopped() {
            true => Err(PublishError::Stopped(self.to.clone())),
            false => Ok(()),
        }
    }

    async fn pause(&self, pause: Duration) -> Result<(), PublishError> {
        tokio::select! {
            () = tokio::time::sleep(pause) => Ok(()),
            () = stopped(self.objects.stop.clone()) => self.go_on(),
        }
    }
}

/// Makes a call again, a few times, while its trouble may pass by itself.
async fn patiently<T, F: Future<Output = Result<T, RpcError>>>(
    mut call: impl FnMut() -> F,
) -> Result<T, RpcError> {
    let mut pauses = PAUSES.build();
    loop {
        match call().await {
            // Who said nothing for so long is not waited for again.
            Err(error) if error.may_pass() && !error.is_late() => match pauses.next() {
                Some(pause) => {
                    tracing::debug!(%error, ?pause, "asking the node again");
                    tokio::time::sleep(pause).await;
                }
                None => return Err(error),
            },
            other => return other,
        }
    }
}
