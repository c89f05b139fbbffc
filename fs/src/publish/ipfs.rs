//! Publishing to an IPFS node: what it lacks is streamed to it in CARs, and one recursive pin keeps the whole.
//!
//! In rounds: ask the node for every object whether it is there, send what is not, data first and the root last, have the
//! root pinned by the import that brings it. The node pins only what is whole, so its garbage collector, whatever it took
//! meanwhile, costs another round and never a hole. Only when the node says, in so many words, that it pinned this root,
//! and lists the pin afterwards, the flist is published.

mod delivery;
mod ledger;

use std::collections::HashSet;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use futures::stream::{self, StreamExt};
use g8_cache::BlockId;

use super::plan::Plan;
use super::{Done, Objects, PublishError, PublishOptions, stopped};
use crate::ipfs::{Node, Presence, RpcAddress, RpcError, Verdict, Version};
use ledger::Ledger;

/// Rounds before we give up on a node that does not keep what it is given.
const ROUNDS: usize = 3;
/// Objects asked for at the same time.
const ASKED: usize = 16;
/// How long a node may take to say whether it has an object.
const SAYS: Duration = Duration::from_secs(2);
/// A node that has twice not said after this time whether it has one object, which a healthy one does in a few milliseconds, is
/// taken for one that waits for what is missing, as js-ipfs does; that one says what it is and is not tried out.
const PROMPT: Duration = Duration::from_secs(1);
/// Objects that a node may leave us in the dark about. Then the others are not asked for, each of which would cost as long.
const UNSAID: usize = 2 * ASKED;
/// How long a node may take to list one pin.
const LISTS: Duration = Duration::from_secs(10);
/// How long a node that is told to stop may take to write what it has got.
const GRACE: Duration = Duration::from_secs(5);
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
        to: to.clone(),
        silence: options.deadline,
        waits: false,
        imports: true,
        ledger: Ledger::new(objects.progress.clone()),
    };
    // What ends in good order after a stop does so itself; what hangs is not waited for.
    let overdue = async {
        stopped(objects.stop.clone()).await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        done = run.all(options) => done,
        () = overdue => Err(PublishError::Stopped(to)),
    }
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
    /// What it has.
    ledger: Ledger,
}

impl Run<'_> {
    async fn all(&mut self, options: &PublishOptions) -> Result<Done, PublishError> {
        // The first call also tells whether there is a node at all; for one that is not there nobody wants to wait.
        let version = self.node.version().await.map_err(self.told())?;
        self.waits = !version.says_what_it_lacks() || (self.is_silent().await? && self.is_silent().await?);
        self.rounds().await?;
        if let Some(profile) = self.plan.profile {
            // It came with the rest; its own pin keeps it, and with it the flist.
            let name = version.names_pins().then(|| format!("{}?profile", options.name));
            self.pin(profile, name.as_deref()).await?;
        }
        let pin = self.name(&version, &options.name).await;
        for root in self.plan.roots() {
            if !self.is_pinned(root).await? {
                return Err(PublishError::NoPin(self.to.clone()));
            }
        }
        Ok(self.ledger.close(pin))
    }

    async fn rounds(&mut self) -> Result<(), PublishError> {
        let mut pauses = PAUSES.build();
        let mut refused = None;
        for round in 0..ROUNDS {
            let missing = self.missing(&self.plan.root_last()).await?;
            if missing.is_empty() && self.is_pinned(self.plan.id).await? {
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
        let (mut missing, mut asked, mut unsaid) = (Vec::new(), 0, 0);
        while let Some((id, presence)) = answers.next().await {
            asked += 1;
            match presence.map_err(&told)? {
                Presence::Here(bytes) => self.ledger.has(id, bytes),
                Presence::Missing => missing.push(id),
                // To send what is there already is only slow.
                Presence::Unsaid => {
                    missing.push(id);
                    unsaid += 1;
                }
            }
            if unsaid > UNSAID {
                tracing::warn!(to = %self.to, "the node does not say what it has: sending the rest");
                missing.extend(&ids[asked..]);
                break;
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

    async fn is_pinned(&self, id: BlockId) -> Result<bool, PublishError> {
        patiently(|| self.node.has_pinned(&id, LISTS)).await.map_err(self.told())
    }

    async fn pin(&self, id: BlockId, name: Option<&str>) -> Result<(), PublishError> {
        let pin = || self.node.pin(&id, name, self.plan.len() as u64, self.silence);
        patiently(pin).await.map_err(self.told())
    }

    /// Names the pin, which kubo does by pinning anew. That the pin is there is looked at afterwards, so this may fail.
    async fn name(&self, version: &Version, name: &str) -> Option<String> {
        if !version.names_pins() {
            return None;
        }
        let named = async {
            if self.node.pin_name(&self.plan.id).await?.as_deref() != Some(name) {
                let most = self.plan.len() as u64;
                self.node.pin(&self.plan.id, Some(name), most, self.silence).await?;
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
                    let pause = pause.max(error.peace());
                    tracing::debug!(%error, ?pause, "asking the node again");
                    tokio::time::sleep(pause).await;
                }
                None => return Err(error),
            },
            other => return other,
        }
    }
}
