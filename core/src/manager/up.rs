//! The way up: redis, what an earlier manager kept or had accepted, the queues, the services. Then the node is watched.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep};

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
use crate::service::{Services, Summary};

/// How long services are looked at often: the boot waits for them.
const STARTING: Duration = Duration::from_secs(3);
/// How often that is.
const LOOK_SOON: Duration = Duration::from_millis(100);
/// How often they are looked at later: one that ends all the time does not fill the console.
const LOOK: Duration = Duration::from_secs(1);

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
    // Nobody who is on the network waits for services.
    if let Some(booting) = &booting {
        booting.up.send_replace(Some(Up { server: server.clone(), services: None }));
    }
    node.services.reload(&mut kept.services).await.context("cannot read the units of services")?;
    for unknown in [&mut kept.jobs, &mut kept.services, &mut kept.others] {
        abandon(std::mem::take(unknown)).await;
    }

    let (mut boot, mut told) = (None, None);
    match booting {
        Some(Booting { up: is_told, task, bootstrap, mounts }) => {
            (boot, told) = (Some(task), Some((is_told, bootstrap, mounts)));
        }
        None => {
            // No bootstrap file will be heard of.
            node.services.show(&BTreeMap::new());
            // Not on a machine, whose output is its console: that is no place for a password.
            say_ready(&server)?;
        }
    }
    let mounts = async {
        match &told {
            Some((_, bootstrap, shown)) => mounts::show(&node.services, bootstrap.clone(), shown).await,
            None => std::future::pending().await,
        }
    };
    let summaries = async {
        match &told {
            Some((is_told, ..)) => sum_up(&node.services, &server, is_told).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        ended = redis => bail!("redis cannot be kept up: {ended:?}"),
        ended = async { boot.as_mut().expect("the branch is taken with a boot only").await }, if boot.is_some() => {
            bail!("the boot does not go on: {ended:?}")
        }
        never = summaries => match never {},
        () = mounts => bail!("nobody shows the flists of the bootstrap file any more"),
        Some(ended) = beside.intakes.join_next() => bail!("a queue is not read any more: {ended:?}"),
    }
}

/// Tells for ever how the services are: soon while they start, and then what changes within a second is told together.
async fn sum_up(services: &Services, server: &Server, told: &watch::Sender<Option<Up>>) -> Infallible {
    let began = Instant::now();
    loop {
        let services = Some(Summary::of(&services.list()));
        told.send_if_modified(|up| {
            let is_new = up.as_ref().is_none_or(|up| up.services != services);
            *up = Some(Up { server: server.clone(), services });
            is_new
        });
        sleep(if began.elapsed() < STARTING { LOOK_SOON } else { LOOK }).await;
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
