//! The network of last resort, 10.254.254.0/24: whoever finds nobody takes a random address in it that nobody else has, and
//! looks for a controller at the last one. Conflicts are found and resolved as RFC 5227 says.

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use crate::sys::arp::{Arp, Packet};
use crate::sys::netlink::{Cidr, Link};

/// Where the controller is.
pub const CONTROLLER: Ipv4Addr = Ipv4Addr::new(10, 254, 254, 254);
/// The length of the network's prefix.
const PREFIX: u8 = 24;
/// The last numbers that a node can have.
const NUMBERS: std::ops::RangeInclusive<u8> = 1..=253;
/// Addresses that are tried on a NIC before another way is; the next search goes on.
const TRIES: usize = 10;

// RFC 5227, 1.1.
const PROBE_WAIT: Duration = Duration::from_secs(1);
const PROBES: usize = 3;
const PROBE_MIN: Duration = Duration::from_secs(1);
const PROBE_MAX: Duration = Duration::from_secs(2);
const ANNOUNCE_WAIT: Duration = Duration::from_secs(2);
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(2);
const DEFEND_INTERVAL: Duration = Duration::from_secs(10);

/// Why a NIC got no address.
#[derive(Debug, thiserror::Error)]
pub enum LastResortError {
    /// Others have all that were tried.
    #[error("others have all {TRIES} addresses of 10.254.254.0/24 that were tried")]
    Taken,
    /// The kernel.
    #[error("cannot probe for an address by ARP: {0}")]
    Arp(#[from] io::Error),
}

/// An address that nobody else has, as long as somebody looks after it.
#[derive(Debug)]
pub struct Claim {
    arp: Arp,
    address: Ipv4Addr,
}

/// A random number between 1 and 253.
pub fn random_number() -> u8 {
    fastrand::u8(NUMBERS)
}

impl Claim {
    /// Tries addresses until one is free.
    pub async fn new(nic: &Link, mut number: impl FnMut() -> u8) -> Result<Self, LastResortError> {
        let arp = Arp::open(nic)?;
        for _ in 0..TRIES {
            let [a, b, c, _] = CONTROLLER.octets();
            let address = Ipv4Addr::from([a, b, c, number()]);
            if is_free(&arp, address).await? {
                return Ok(Self { arp, address });
            }
            tracing::info!("somebody else has {address} on {}", nic.name);
        }
        Err(LastResortError::Taken)
    }

    /// The address.
    pub fn address(&self) -> Cidr {
        Cidr { address: self.address.into(), prefix: PREFIX }
    }

    /// Says that the address is taken, and defends it: once in ten seconds. It returns when somebody else insists.
    pub async fn defend(&self) -> io::Result<()> {
        let announcement = Packet::announcement(self.arp.hardware(), self.address);
        self.arp.send(&announcement).await?;
        let mut second = Some(Instant::now() + ANNOUNCE_INTERVAL);
        let mut defended: Option<Instant> = None;
        loop {
            let packet = match second {
                Some(at) => match timeout_at(at, self.arp.receive()).await {
                    Ok(packet) => packet?,
                    Err(_) => {
                        self.arp.send(&announcement).await?;
                        second = None;
                        continue;
                    }
                },
                None => self.arp.receive().await?,
            };
            // Who only probes gets his answer from the kernel.
            if packet.hardware == self.arp.hardware() || packet.sender != self.address {
                continue;
            }
            if defended.is_some_and(|at| at.elapsed() < DEFEND_INTERVAL) {
                return Ok(());
            }
            defended = Some(Instant::now());
            self.arp.send(&announcement).await?;
        }
    }
}

/// Nobody has an address, and nobody else is about to take it (RFC 5227, 2.1.1).
async fn is_free(arp: &Arp, address: Ipv4Addr) -> io::Result<bool> {
    let probing = async {
        sleep(random(Duration::ZERO, PROBE_WAIT)).await;
        for probe in 0..PROBES {
            if probe > 0 {
                sleep(random(PROBE_MIN, PROBE_MAX)).await;
            }
            arp.send(&Packet::probe(arp.hardware(), address)).await?;
        }
        sleep(ANNOUNCE_WAIT).await;
        Ok(true)
    };
    let listening = async {
        while !arp.receive().await?.conflicts(arp.hardware(), address) {}
        Ok(false)
    };
    tokio::select! {
        biased;
        free = listening => free,
        free = probing => free,
    }
}

fn random(from: Duration, to: Duration) -> Duration {
    from + (to - from).mul_f64(fastrand::f64())
}
