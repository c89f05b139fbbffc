//! `flist name publish KEY REF`: have IPFS nodes sign that a name stands for an flist.

use std::time::Duration;

use anyhow::{Context, bail};
use g8_cache::BlockId;
use g8_fs::ipfs::{Key, Node, RpcAddress, RpcError};
use g8_fs::source::Spec;
use serde::Serialize;

use crate::cli::{Global, NameCommand, NamePublishArgs};
use crate::session::{runtime, wanted};
use crate::{defaults, output};

/// How long a node may take to say what it has pinned.
const LISTS: Duration = Duration::from_secs(10);

#[derive(Serialize)]
struct Named {
    name: String,
    key: String,
    cid: BlockId,
    to: String,
}

pub fn run(global: &Global, command: &NameCommand) -> anyhow::Result<()> {
    match command {
        NameCommand::Publish(args) => publish(global, args),
    }
}

fn publish(global: &Global, args: &NamePublishArgs) -> anyhow::Result<()> {
    let cid = wanted(global, &args.reference)?.id;
    let node = node(global)?;
    let to = format!("ipfs:{}", node.address());
    let key = runtime()?.block_on(sign(&node, args, &cid)).with_context(|| format!("naming it on {to}"))?;
    let named = Named { name: format!("ipns://{}", key.id), key: key.name, cid, to };
    if global.json { output::json(&named) } else { output::line(named.name) }
}

/// The one node that `--to` names: its keys are its own.
fn node(global: &Global) -> anyhow::Result<Node> {
    match defaults::sinks(global)?.as_slice() {
        [Spec::Ipfs(address)] => client(address),
        [other] => bail!("{other} has no keys to sign names with: name an IPFS node with --to ipfs:URL"),
        more => {
            bail!("{} sinks given, a name is signed by one node: name one with --to ipfs:URL", more.len())
        }
    }
}

fn client(address: &RpcAddress) -> anyhow::Result<Node> {
    Node::new(address).with_context(|| format!("sink ipfs:{address}"))
}

async fn sign(node: &Node, args: &NamePublishArgs, cid: &BlockId) -> Result<Key, RpcError> {
    if !node.has_pinned(cid, LISTS).await? {
        output::warn(format_args!(
            "the node has not pinned {cid}: publish it there, or who follows the name finds nothing"
        ));
    }
    let key = match node.key(&args.key).await? {
        Some(key) => key,
        None => node.make_key(&args.key).await?,
    };
    node.publish_name(&key, cid, &args.lifetime, &args.ttl).await?;
    Ok(key)
}
