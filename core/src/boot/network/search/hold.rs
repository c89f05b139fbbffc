//! A network that was found is kept until it is lost. What appears meanwhile is set up as configured, and what is gone is
//! forgotten.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until};

use super::{SHORTEST, Search, changed};
use crate::boot::network::edge::Edge;
use crate::boot::network::keeper::{self, Cable, Note, Said};
use crate::boot::network::last_resort::CONTROLLER;
use crate::boot::network::machine::{Way, Where};
use crate::boot::network::nics::Nics;
use crate::boot::network::setting::Route;
use crate::boot::network::{NetworkError, reach};
use crate::sys::netlink::{self, Cidr, Link, Netlink};

/// How often links that could not be set up are tried again, and the controller of last resort is looked for.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// How often in vain before the controller of last resort is given up.
const MISSES: u32 = 3;

/// Why a network may be lost.
struct Doubt {
    why: String,
    /// It is: nothing that is left may do as well.
    decides: bool,
}

impl Search {
    /// Keeps the network until it is lost, and returns how long it lasted.
    pub(super) async fn hold(&mut self, tried: Option<&(Way, String)>) -> Duration {
        let began = Instant::now();
        let nic = tried.map(|(_, nic)| nic.as_str());
        let is_last_resort = matches!(tried, Some((Way::LastResort, _)));
        self.reasons.clear();
        // It may have been found by what is taken back now.
        if self.edge.tidy().await && !self.still_leads(is_last_resort).await {
            self.reasons.push("only what an earlier manager had set led anywhere".into());
            return began.elapsed();
        }
        self.is_up();
        let (mut misses, mut controller_due) = (0, began + LOOK_AGAIN);
        let times = self.setup.times;
        let (mut cables, mut watched) = (FuturesUnordered::new(), BTreeSet::new());
        // Before the first look at the links, so that no change is missed. Where nobody can tell, they are looked at all the same.
        let (mut changes, mut links_due) = (netlink::Changes::open().ok(), began);
        loop {
            for link in self.edge.unwatched() {
                if watched.insert(link.index) {
                    cables.push(keeper::moved(link, times));
                }
            }
            let doubt = tokio::select! {
                Some(note) = self.notes.recv() => self.heed(note, nic).await,
                Some((link, cable)) = cables.next() => {
                    // The cable of a NIC that is gone moves no more.
                    if is_gone(&link).await {
                        links_due = Instant::now();
                        continue;
                    }
                    cables.push(keeper::moved(link.clone(), times));
                    match cable {
                        Cable::Pulled => Some(Doubt { why: format!("{}: no carrier", link.name), decides: false }),
                        // The kernel may have taken its routes away.
                        Cable::Replugged => {
                            if let Err(e) = self.edge.configure(&self.plan, &link).await {
                                self.breaks(&e);
                            }
                            None
                        }
                    }
                }
                () = sleep_until(controller_due), if is_last_resort => {
                    let found = reach::any(&self.controllers_of_last_resort()).await;
                    misses = if found.is_ok() { 0 } else { misses + 1 };
                    controller_due = Instant::now() + LOOK_AGAIN;
                    let why = format!("the controller at {CONTROLLER} is gone");
                    (misses >= MISSES).then_some(Doubt { why, decides: true })
                }
                () = changed(&mut changes) => {
                    // Links can change all the time.
                    links_due = links_due.min(Instant::now() + SHORTEST);
                    continue;
                }
                () = sleep_until(links_due) => {
                    let doubt = self.follow(nic).await.unwrap_or_else(|e| {
                        tracing::warn!("{e}");
                        None
                    });
                    links_due = Instant::now() + LOOK_AGAIN;
                    doubt
                }
            };
            if let Some(Doubt { why, decides }) = doubt {
                tracing::warn!("{why}");
                if decides || !self.still_leads(is_last_resort).await {
                    self.reasons.push(why);
                    return began.elapsed();
                }
            }
            self.is_up();
        }
    }

    /// What a keeper says becomes so.
    async fn heed(&mut self, note: Note, nic: Option<&str>) -> Option<Doubt> {
        let name = self.edge.name_of(note.keeper);
        let (before, way_out) = (name.as_deref().and_then(|name| at(&self.edge, name)), way_out(&self.edge));
        let over = match &note.said {
            Said::Over(why) => Some(why.clone()),
            Said::Leased(_) => None,
        };
        self.take_note(note).await;
        let name = name?;
        match over {
            Some(why) => Some(Doubt { why: format!("{name}: {why}"), decides: nic == Some(&name) }),
            // One beside all that was there changes nothing, nor does one that is there again after a cable was plugged in anew:
            // a controller may be away meanwhile.
            None if before.is_some() && before != at(&self.edge, &name)
                || way_out != self::way_out(&self.edge) =>
            {
                Some(Doubt { why: format!("{name}: a new lease"), decides: false })
            }
            None => None,
        }
    }

    /// Whether what is left may do as well.
    async fn still_leads(&mut self, is_last_resort: bool) -> bool {
        self.check(Where::Configured).await.is_ok()
            || is_last_resort && self.check(Where::LastResort).await.is_ok()
    }

    /// Sets up as configured what has appeared since that was done last, and forgets what is gone. The network stays: what
    /// it is on is left alone.
    async fn follow(&mut self, nic: Option<&str>) -> Result<Option<Doubt>, NetworkError> {
        let is_same = self.seen().await?.keys().eq(self.there.keys());
        if is_same && !(self.broken && self.set_up.elapsed() >= LOOK_AGAIN) {
            return Ok(None);
        }
        let (names, way_out) = (set(&self.edge), way_out(&self.edge));
        // Whether something is plugged into a NIC is not waited for: who asks there for a lease asks again.
        self.set_up(Nics { patience: Duration::ZERO, ..self.setup.nics }, nic).await?;
        self.resolve();
        let gone: Vec<String> = names.difference(&set(&self.edge)).cloned().collect();
        if !gone.is_empty() {
            let decides = gone.iter().any(|name| nic == Some(name));
            return Ok(Some(Doubt { why: format!("{}: gone", gone.join(", ")), decides }));
        }
        let other_way = Doubt { why: "there is another way out".into(), decides: false };
        Ok((way_out != self::way_out(&self.edge)).then_some(other_way))
    }
}

/// The names of the links that have an address.
fn set(edge: &Edge) -> BTreeSet<String> {
    edge.set().into_iter().map(|(link, _)| link.name.clone()).collect()
}

/// The address of a link, and its router to everywhere.
fn at(edge: &Edge, name: &str) -> Option<(Cidr, Option<Route>)> {
    let set = edge.set().into_iter().find(|(link, _)| link.name == name);
    set.map(|(_, setting)| (setting.address, setting.way_out().cloned()))
}

/// By which link everything else is reached, and which router.
fn way_out(edge: &Edge) -> Option<(u32, Option<IpAddr>)> {
    edge.set().into_iter().find_map(|(link, setting)| Some((link.index, setting.way_out()?.gateway)))
}

async fn is_gone(link: &Link) -> bool {
    let found = async { Netlink::open().await?.link(&link.name).await };
    match found.await {
        Ok(now) => now.index != link.index,
        Err(e) => matches!(e, netlink::Error::NoLink(_)),
    }
}
