//! Tasks that look after the address of a link: they renew a lease, or defend an address, and say what comes of it.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout_at};

use super::dhcp::{Before, Client, DhcpError};
use super::last_resort::Claim;
use super::setting::Setting;
use crate::sys::netlink::{self, Link, Netlink};

/// Pauses between two attempts to get a lease that is configured, in seconds.
const PAUSE: [u64; 4] = [2, 5, 10, 30];

/// The pause before somebody is asked again for a lease that nobody has confirmed.
const AGAIN: Duration = Duration::from_secs(5);

/// What a keeper says.
#[derive(Debug)]
pub struct Note {
    /// Which one; one that was stopped may have said something before.
    pub keeper: u64,
    /// What.
    pub said: Said,
}

/// What becomes of an address.
#[derive(Debug)]
pub enum Said {
    /// A server gave this; it may be in the place of something else.
    Leased(Setting),
    /// There is none, or none any more.
    Over(String),
}

/// How long a keeper goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goes {
    /// Until its first address is over.
    Once,
    /// For ever: it is configured.
    On,
}

/// A task that ends with this.
#[derive(Debug)]
pub struct Keeper {
    /// What its notes carry.
    pub number: u64,
    task: JoinHandle<()>,
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Keeper {
    /// Asks for a lease and keeps it.
    pub fn lease(number: u64, link: Link, times: Times, goes: Goes, notes: mpsc::Sender<Note>) -> Self {
        let task = async move {
            let mut before: Option<Box<Before>> = None;
            for pause in PAUSE.into_iter().chain(std::iter::repeat(PAUSE[PAUSE.len() - 1])) {
                let said = loop {
                    match lease(number, &link, times, before.take(), &notes).await {
                        Ended::Replugged(lease) => before = lease,
                        Ended::Over(why) => break Said::Over(why),
                    }
                };
                // Nobody listens any more when the search ends.
                if notes.send(Note { keeper: number, said }).await.is_err() || goes == Goes::Once {
                    return;
                }
                sleep(Duration::from_secs(pause)).await;
            }
        };
        Self { number, task: tokio::spawn(task) }
    }

    /// Defends an address of last resort.
    pub fn claim(number: u64, link: Link, times: Times, claim: Claim, notes: mpsc::Sender<Note>) -> Self {
        let task = async move {
            let why = tokio::select! {
                ended = claim.defend() => match ended {
                    Ok(()) => format!("somebody else insists on {}", claim.address().address),
                    Err(e) => e.to_string(),
                },
                // What is at the other end now may have our address.
                cable = cable(&link, times) => cable.to_string(),
            };
            let _ = notes.send(Note { keeper: number, said: Said::Over(why) }).await;
        };
        Self { number, task: tokio::spawn(task) }
    }
}

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// A server, to give a first lease.
    pub lease: Duration,
    /// A cable, to be plugged in again.
    pub cable: Duration,
}

/// How a lease ends.
enum Ended {
    /// Something was plugged in again: whether this is still ours has to be asked.
    Replugged(Option<Box<Before>>),
    Over(String),
}

async fn lease(
    number: u64,
    link: &Link,
    times: Times,
    before: Option<Box<Before>>,
    notes: &mpsc::Sender<Note>,
) -> Ended {
    let mut cable = std::pin::pin!(cable(link, times));
    let asked = match &before {
        None => ask(link, times, None).await,
        Some(held) => tokio::select! {
            cable = &mut cable => return cable.ends(before),
            asked = confirm(link, times, held) => asked,
        },
    };
    let (mut client, mut setting) = match asked {
        Ok(leased) => leased,
        Err(e) => return Ended::Over(e.to_string()),
    };
    loop {
        if notes.send(Note { keeper: number, said: Said::Leased(setting.clone()) }).await.is_err() {
            return Ended::Over("the search ends".into());
        }
        tokio::select! {
            cable = &mut cable => return cable.ends(client.held().map(Box::new)),
            next = client.next(&setting) => match next {
                Ok(next) => setting = next,
                Err(e) => return Ended::Over(e.to_string()),
            },
        }
    }
}

/// Asks for a lease.
async fn ask(link: &Link, times: Times, before: Option<Before>) -> Result<(Client, Setting), DhcpError> {
    let mut client = Client::new(link, before).await?;
    let setting = client.first(times.lease).await?;
    Ok((client, setting))
}

/// Asks for the lease that is there, which is good to its end unless somebody says no (RFC 2131, 3.2): a port can stay dark for
/// half a minute. Who does not know of it is silent, so afterwards any lease will do.
async fn confirm(link: &Link, times: Times, held: &Before) -> Result<(Client, Setting), DhcpError> {
    let asked = async {
        let mut before = Some(held.clone());
        loop {
            match ask(link, times, before.take()).await {
                Err(
                    e @ (DhcpError::None(_)
                    | DhcpError::NoOffer(_)
                    | DhcpError::NoConfirmation(_)
                    | DhcpError::Absurd(_)),
                ) => {
                    tracing::info!("{}: the lease is not confirmed, and still good: {e}", link.name);
                }
                asked @ (Ok(_) | Err(DhcpError::Refused(_) | DhcpError::Expired)) => return asked,
            }
            sleep(AGAIN).await;
        }
    };
    timeout_at(held.until, asked).await.unwrap_or(Err(DhcpError::Expired))
}

/// What happened to the cable of a NIC.
#[derive(Clone, Copy, Debug)]
pub enum Cable {
    /// It was away for a moment.
    Replugged,
    /// It stays away.
    Pulled,
}

impl Cable {
    /// What becomes of a lease.
    fn ends(self, lease: Option<Box<Before>>) -> Ended {
        match self {
            Self::Replugged => Ended::Replugged(lease),
            Self::Pulled => Ended::Over(self.to_string()),
        }
    }
}

impl std::fmt::Display for Cable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Replugged => "the cable was plugged in anew",
            Self::Pulled => "no carrier: the cable was pulled",
        })
    }
}

/// Waits until something happens to a cable. One that is pulled has a while to come back.
async fn cable(link: &Link, times: Times) -> Cable {
    let mut changes = match netlink::Changes::open() {
        Ok(changes) => changes,
        Err(e) => {
            tracing::warn!("{} is not watched: {e}", link.name);
            return std::future::pending().await;
        }
    };
    let mut plugged = None;
    loop {
        match state(link).await {
            Some(now) if now.carrier => match plugged.replace(now.plugged) {
                Some(before) if before != now.plugged => return Cable::Replugged,
                Some(_) | None => changes.next().await,
            },
            Some(_) => {
                if tokio::time::timeout(times.cable, until_plugged(link, &mut changes)).await.is_err() {
                    return Cable::Pulled;
                }
                return Cable::Replugged;
            }
            None => return Cable::Pulled,
        }
    }
}

/// Waits until something happens to the cable of a link, and returns the link and what. One that is pulled already can only be
/// plugged in.
pub async fn moved(link: Link, times: Times) -> (Link, Cable) {
    let Ok(mut changes) = netlink::Changes::open() else { return std::future::pending().await };
    match state(&link).await {
        Some(now) if now.carrier => {}
        Some(_) => {
            until_plugged(&link, &mut changes).await;
            return (link, Cable::Replugged);
        }
        // Whatever comes in its place is another one, and nobody reads of changes any more.
        None => {
            drop(changes);
            return std::future::pending().await;
        }
    }
    let cable = cable(&link, times).await;
    (link, cable)
}

async fn until_plugged(link: &Link, changes: &mut netlink::Changes) {
    while state(link).await.is_some_and(|now| !now.carrier) {
        changes.next().await;
    }
}

/// The link as it is now; `None` when it is gone.
async fn state(link: &Link) -> Option<Link> {
    let found = async { Netlink::open().await?.link(&link.name).await };
    match found.await {
        Ok(now) => Some(now).filter(|now| now.index == link.index),
        Err(netlink::Error::NoLink(_)) => None,
        Err(e) => {
            tracing::warn!("{e}");
            Some(link.clone())
        }
    }
}
