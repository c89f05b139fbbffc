//! The way up: redis, what an earlier manager kept or had accepted, the queues, the services. Then the node is watched.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::io::Write as _;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use tokio::task::{JoinHandle, JoinSet};

use super::keeper::Keeper;
use super::{Booting, Kept};
use crate::boot::Up;
use crate::boot::bootstrap::mounts;
use crate::config::Config;
use crate::context::{Caller, Node};
use crate::job::{Sender, abandon, know_logged};
use crate::publish::Outlet;
use crate::queue::answers::Answers;
use crate::queue::intake::Intake;
use crate::queue::recover::{recover, take_stock};
use crate::redis::Link;
use crate::redis::server::Server;

/// What the way up begins with.
pub struct Start {
    pub keeper: Keeper,
    pub answers: Answers,
    pub outlet: Outlet,
    pub booting: Option<Booting>,
}

/// What runs beside the node, as far as it has been started.
#[derive(Default)]
pub struct Beside {
    /// Keeps redis up.
    pub redis: Option<JoinHandle<anyhow::Result<()>>>,
    /// Writes results.
    pub writer: Option<JoinHandle<()>>,
    /// Read the queues.
    pub intakes: JoinSet<()>,
}

/// Brings the node up and watches it; returns when it cannot go on. It may be dropped at any time: what it has started by then
/// is in its arguments.
pub async fn live(
    node: &Arc<Node>,
    start: Start,
    kept: &mut Kept,
    beside: &mut Beside,
) -> anyhow::Result<Infallible> {
    let Start { keeper, answers, outlet, booting } = start;
    let keeper = keeper.start(kept.services.remove("redis")).await?;
    let (access, server) = (keeper.access(), keeper.server());
    let redis = beside.redis.insert(tokio::spawn(keeper.keep()));

    // Those that turn out to be only half a container are taken apart, and their networks with them.
    let alive: BTreeSet<_> = kept.containers.keys().filter_map(|id| id.parse().ok()).collect();
    node.domains.start(&alive).await;
    node.containers.adopt(std::mem::take(&mut kept.containers)).await;
    know_logged(&node.logs, &mut kept.jobs).await;
    beside.writer = Some(tokio::spawn(answers.run(Link::new(&access)?, node.logs.clone())));
    tokio::spawn(outlet.run(Link::new(&access)?));

    let mut link = Link::new(&access)?;
    let mut intakes = Vec::new();
    for sender in senders(&node.config) {
        let seen = recover(node, &sender, &mut link, &mut kept.jobs)
            .await
            .context("cannot read what was accepted before")?;
        intakes.push(Intake::new(sender, Link::new(&access)?, seen));
    }
    node.containers.recovered();
    take_stock(node, &mut link).await.context("cannot read what was answered before")?;
    for intake in intakes {
        beside.intakes.spawn(intake.run(node.clone()));
    }
    let up = |services| Some(Up { server: server.clone(), services });
    // Nobody who is on the network waits for services.
    if let Some(booting) = &booting {
        booting.up.send_replace(up(None));
    }
    node.services.reload(&mut kept.services).await.context("cannot read the units of services")?;
    for unknown in [&mut kept.jobs, &mut kept.services, &mut kept.others] {
        abandon(std::mem::take(unknown)).await;
    }

    let (mut boot, mut told) = (None, None);
    match booting {
        Some(Booting { up: is_told, task, bootstrap, mounts }) => {
            is_told.send_replace(up(Some(node.services.list().len())));
            (boot, told) = (Some(task), Some((bootstrap, mounts)));
        }
        // Not on a machine, whose output is its console: that is no place for a password.
        None => say_ready(&server)?,
    }
    let mounts = async {
        match &told {
            Some((bootstrap, shown)) => mounts::show(&node.services, bootstrap.clone(), shown).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        ended = redis => bail!("redis cannot be kept up: {ended:?}"),
        ended = async { boot.as_mut().expect("the branch is taken with a boot only").await }, if boot.is_some() => {
            bail!("the boot does not go on: {ended:?}")
        }
        () = mounts => bail!("nobody shows the flists of the bootstrap file any more"),
        Some(ended) = beside.intakes.join_next() => bail!("a queue is not read any more: {ended:?}"),
    }
}

fn say_ready(server: &Server) -> anyhow::Result<()> {
    let ready = serde_json::json!({"host": "127.0.0.1", "port": server.port, "password": server.password});
    writeln!(std::io::stdout(), "ready {ready}").context("nobody can be told that the node is ready")
}

fn senders(config: &Config) -> Vec<Sender> {
    let users = config.users.iter().map(|(name, user)| Caller { user: name.clone(), role: user.role });
    std::iter::once(Caller::admin()).chain(users).map(Sender::new).collect()
}
