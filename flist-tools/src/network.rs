//! What the IPFS nodes among the sources do for a reference: they follow its name, and meet the peers that it hints at.

use std::time::Duration;

use anyhow::Context;
use g8_fs::ipfs::Node;
use g8_fs::names::Names;
use g8_fs::reference::{Followed, Hints, Resolved, follow};
use g8_fs::source::Spec;

use crate::cli::Global;
use crate::output;
use crate::session::runtime;

/// How long nodes may take to meet peers. A hint that leads nowhere holds nobody up for longer.
const MEETS: Duration = Duration::from_secs(3);

/// The IPFS nodes among `sources`.
pub fn nodes(sources: &[Spec]) -> anyhow::Result<Vec<Node>> {
    let addresses = sources.iter().filter_map(|spec| match spec {
        Spec::Ipfs(address) => Some(address),
        Spec::Dir(_) | Spec::Car(_) | Spec::Http(_) | Spec::Hint(_) | Spec::Peer => None,
    });
    addresses.map(|address| Node::new(address).with_context(|| format!("source ipfs:{address}"))).collect()
}

/// Where the mutable name `name` leads, for which half of the deadline may be spent: the other half is for what it leads to.
pub fn lead(global: &Global, name: &str, hints: &Hints, nodes: &[Node]) -> anyhow::Result<Resolved> {
    let names = Names::of_user();
    let Followed { id, stale, forgotten } =
        runtime()?.block_on(follow(name, nodes, names.as_ref(), global.deadline() / 2))?;
    if let Some(why) = stale {
        output::warn(format_args!(
            "{name} may lead elsewhere by now, this is where it led last: {}",
            told(&why)
        ));
    }
    if let Some(why) = forgotten {
        output::warn(format_args!("where {name} leads is not kept for later: {}", told(&why)));
    }
    Ok(Resolved { id, hints: hints.clone(), name: Some(name.to_owned()) })
}

/// Connects the nodes to peers, as far as that works at once.
pub fn meet(nodes: &[Node], peers: &[impl ToString]) -> anyhow::Result<()> {
    if nodes.is_empty() || peers.is_empty() {
        return Ok(());
    }
    runtime()?.block_on(async {
        let mut meetings = tokio::task::JoinSet::new();
        for (node, peer) in nodes.iter().flat_map(|node| peers.iter().map(move |peer| (node, peer))) {
            meetings.spawn(one_meeting(node.clone(), peer.to_string()));
        }
        meetings.join_all().await;
    });
    Ok(())
}

async fn one_meeting(node: Node, peer: String) {
    match node.connect(&peer, MEETS).await {
        Ok(()) => tracing::info!(node = %node.address(), peer, "connected"),
        Err(error) => {
            let (node, error) = (node.address(), told(&error));
            tracing::warn!(%node, peer, error, "a peer that the reference hints at is not met");
        }
    }
}

/// An error with its causes.
fn told(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
