//! DHCP, by `mozim`. What a server says is judged here, before anything is set up by it: nobody else knows the crate. What
//! comes as bytes that are no lease never gets here: `mozim` leaves it out and waits for another answer.

mod judge;

use std::time::Duration;

use mozim::{DhcpV4Client, DhcpV4Config, DhcpV4Lease, DhcpV4State};
use tokio::time::{Instant, timeout, timeout_at};

use super::setting::Setting;
use crate::sys::netlink::Link;
use judge::judge;

/// Why there is no lease.
#[derive(Debug, thiserror::Error)]
pub enum DhcpError {
    /// The client cannot work.
    #[error("no lease: {0}")]
    None(String),
    /// Nobody answers, or with something that `mozim` leaves out: it says why in its log alone.
    #[error("no lease: no server offers one that makes sense within {0:?}")]
    NoOffer(Duration),
    /// Somebody answers, and then no more.
    #[error("no lease: a server offers one and does not confirm it within {0:?}")]
    NoConfirmation(Duration),
    /// Somebody says no to what was there, and then nobody gives another one.
    #[error("no lease: a server refuses the one that was there, and none gives another within {0:?}")]
    Refused(Duration),
    /// The lease is absurd.
    #[error("a server gives an absurd lease: {0}")]
    Absurd(String),
    /// It ran out before somebody renewed it.
    #[error("nobody renewed it in time")]
    Expired,
}

/// A lease as a server gave it, to be asked for again.
#[derive(Clone, Debug)]
pub struct Before {
    lease: DhcpV4Lease,
    /// Its end.
    pub until: Instant,
}

impl Before {
    fn new(lease: DhcpV4Lease) -> Self {
        let until = Instant::now() + Duration::from_secs(lease.lease_time_sec.into());
        Self { lease, until }
    }
}

/// A client on one NIC.
pub struct Client {
    client: DhcpV4Client,
    /// It asks for what it had before.
    asks_again: bool,
    held: Option<Before>,
}

impl Client {
    /// One that asks first for what it had before, and a server that knows better says no.
    pub async fn new(nic: &Link, before: Option<Before>) -> Result<Self, DhcpError> {
        let mut config = DhcpV4Config::new(&nic.name);
        // Without its own timeout: that would end a good lease whose first renewal nobody answers.
        config.set_iface_index(nic.index);
        let config = config.set_iface_mac_raw(&nic.address).map_err(none)?.use_mac_as_client_id().clone();
        let asks_again = before.is_some();
        let client = DhcpV4Client::init(config, before.map(|before| before.lease)).await.map_err(none)?;
        Ok(Self { client, asks_again, held: None })
    }

    /// The first lease, or none when there is nobody for so long.
    pub async fn first(&mut self, patience: Duration) -> Result<Setting, DhcpError> {
        let mut silence = DhcpError::NoOffer(patience);
        let asked = async {
            loop {
                match self.client.run().await.map_err(none)? {
                    DhcpV4State::Done(lease) => return self.hold(*lease),
                    // `mozim` goes on in the same way when nobody answers, but not within a minute.
                    DhcpV4State::InitReboot | DhcpV4State::Selecting if self.asks_again => {
                        silence = DhcpError::Refused(patience);
                    }
                    DhcpV4State::Selecting => silence = DhcpError::NoConfirmation(patience),
                    DhcpV4State::InitReboot | DhcpV4State::Renewing | DhcpV4State::Rebinding => {}
                }
            }
        };
        timeout(patience, asked).await.unwrap_or(Err(silence))
    }

    /// Keeps a lease until it is another one, or none: it is good to its end, whether or not somebody answers before, and
    /// whatever.
    pub async fn next(&mut self, now: &Setting) -> Result<Setting, DhcpError> {
        while let Some(held) = &mut self.held {
            let Ok(state) = timeout_at(held.until, self.client.run()).await else { break };
            match state.map_err(none)? {
                DhcpV4State::Done(lease) => match judge(&lease) {
                    Ok(next) => {
                        *held = Before::new(*lease);
                        if next != *now {
                            return Ok(next);
                        }
                    }
                    Err(e) => {
                        tracing::warn!("a lease is renewed with nonsense, which is left out: {e}");
                        // The address itself is ours for longer.
                        if lease.yiaddr == held.lease.yiaddr {
                            held.until = Before::new(*lease).until;
                        }
                    }
                },
                DhcpV4State::Renewing | DhcpV4State::Rebinding => {}
                DhcpV4State::InitReboot | DhcpV4State::Selecting => break,
            }
        }
        Err(DhcpError::Expired)
    }

    /// The lease as the server gave it.
    pub fn held(self) -> Option<Before> {
        self.held
    }

    fn hold(&mut self, lease: DhcpV4Lease) -> Result<Setting, DhcpError> {
        let setting = judge(&lease)?;
        self.held = Some(Before::new(lease));
        Ok(setting)
    }
}

fn none(e: mozim::DhcpError) -> DhcpError {
    DhcpError::None(e.to_string())
}
