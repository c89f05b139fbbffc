//! Hints: where a reference says that blocks may be, and which of them will be wanted first.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use g8_cache::{BadId, BlockId, Codec};
use multiaddr::{Multiaddr, Protocol};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

use super::public::{self, NotPublic};
use crate::source::{BadAddress, Gateway, Spec};

/// Most hints of each kind.
pub const MAX_HINTS: usize = 8;
/// Longest hint.
const MAX_HINT: usize = 1024;
/// What would end a hint, or be taken for something else by a shell or a browser.
const ENCODED: &AsciiSet =
    &CONTROLS.add(b' ').add(b'%').add(b'&').add(b'#').add(b'+').add(b'"').add(b'<').add(b'>');

/// Gateways and nodes that may have the blocks of an flist, and the profile that says which are wanted first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    gateways: Vec<Gateway>,
    peers: Vec<Multiaddr>,
    profile: Option<BlockId>,
}

/// How far hints are followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// To public addresses.
    #[default]
    Public,
    /// Wherever they lead: the user trusts whoever wrote them.
    Anywhere,
}

/// Why a hint is not followed.
#[derive(Debug, thiserror::Error)]
pub enum BadHint {
    /// Nothing that we know.
    #[error("unknown hint {0:?}: a hint is gw=URL, peer=MULTIADDR or profile=CID")]
    Unknown(String),
    /// Too many.
    #[error("more than {MAX_HINTS} {0} hints")]
    TooMany(&'static str),
    /// Too long, or not text.
    #[error("a {0} hint is longer than {MAX_HINT} bytes or not UTF-8")]
    Text(&'static str),
    /// Not a gateway. The text is not repeated: credentials may be in it.
    #[error("a gw hint is not the URL of a gateway")]
    Gateway(#[source] BadAddress),
    /// Not a profile.
    #[error(
        "the profile {0:?} is no address of one: `flist profile record` prints it, beginning with bafyrei"
    )]
    Profile(String, #[source] Option<BadId>),
    /// Which one counts?
    #[error("a reference has one profile, not two")]
    TwoProfiles,
    /// Somebody's credentials are nobody else's business.
    #[error("the hint {0} has credentials: name it with --from instead")]
    Credentials(Gateway),
    /// Not a node.
    #[error("the peer hint {0:?} is no address of a node: write /ip4/ADDR/tcp/PORT/p2p/ID")]
    Peer(String, #[source] Option<multiaddr::Error>),
    /// It leads where a stranger has no business.
    #[error("the hint {hint} is not followed: use --allow-private-hints if you trust whoever wrote it")]
    Private {
        /// The hint.
        hint: String,
        /// Where it leads.
        #[source]
        source: NotPublic,
    },
    /// Who resolves the name of a node is the IPFS node, and nobody could look at what it finds.
    #[error(
        "the peer hint {0} has a host name, which could lead anywhere: name its IP address, or use --allow-private-hints"
    )]
    PeerName(Multiaddr),
}

impl Hints {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.gateways.is_empty() && self.peers.is_empty() && self.profile.is_none()
    }

    /// Those of `others` that are not here follow, as many as there is room for.
    pub fn extend(&mut self, others: &Hints) {
        fn add<T: Clone + PartialEq>(to: &mut Vec<T>, from: &[T]) {
            for one in from {
                if to.len() < MAX_HINTS && !to.contains(one) {
                    to.push(one.clone());
                }
            }
        }
        add(&mut self.gateways, &others.gateways);
        add(&mut self.peers, &others.peers);
        self.profile = self.profile.or(others.profile);
    }

    /// The profile of what will be read first.
    pub fn profile(&self) -> Option<BlockId> {
        self.profile
    }

    /// The same hints with this profile instead.
    pub fn with_profile(self, profile: BlockId) -> Hints {
        Hints { profile: Some(profile), ..self }
    }

    /// The gateways as sources, each of which goes no further than `reach`, wherever it is redirected or its name leads.
    pub fn gateways(&self, reach: Reach) -> Result<Vec<Spec>, BadHint> {
        let spec = |gateway: &Gateway| match reach {
            Reach::Anywhere => Ok(Spec::Http(gateway.clone())),
            Reach::Public => match gateway.judge() {
                Ok(()) => Ok(Spec::Hint(gateway.clone())),
                Err(source) => Err(BadHint::Private { hint: gateway.to_string(), source }),
            },
        };
        self.gateways.iter().map(spec).collect()
    }

    /// The nodes.
    pub fn peers(&self, reach: Reach) -> Result<&[Multiaddr], BadHint> {
        if reach == Reach::Public {
            self.peers.iter().try_for_each(judge_peer)?;
        }
        Ok(&self.peers)
    }

    fn push(&mut self, key: &str, value: &str) -> Result<(), BadHint> {
        let kind = match key {
            "gw" => "gw",
            "peer" => "peer",
            "profile" => "profile",
            _ => return Err(BadHint::Unknown(key.chars().take(20).collect())),
        };
        if value.len() > MAX_HINT {
            return Err(BadHint::Text(kind));
        }
        let value = percent_decode_str(value).decode_utf8().map_err(|_| BadHint::Text(kind))?;
        let held = match kind {
            "gw" => self.gateways.len(),
            "peer" => self.peers.len(),
            _ => 0,
        };
        if held >= MAX_HINTS {
            return Err(BadHint::TooMany(kind));
        }
        match kind {
            "gw" => self.gateways.push(gateway(&value)?),
            "peer" => self.peers.push(peer(&value)?),
            _ if self.profile.is_some() => return Err(BadHint::TwoProfiles),
            _ => self.profile = Some(profile(&value)?),
        }
        Ok(())
    }
}

fn gateway(text: &str) -> Result<Gateway, BadHint> {
    let gateway: Gateway = text.parse().map_err(BadHint::Gateway)?;
    if gateway.has_credentials() {
        return Err(BadHint::Credentials(gateway));
    }
    Ok(gateway)
}

fn profile(text: &str) -> Result<BlockId, BadHint> {
    let shown = || text.chars().filter(|c| !c.is_control()).take(100).collect::<String>();
    match text.parse::<BlockId>() {
        Ok(id) if id.codec() == Codec::DagCbor => Ok(id),
        Ok(_) => Err(BadHint::Profile(shown(), None)),
        Err(error) => Err(BadHint::Profile(shown(), Some(error))),
    }
}

/// A node is at an address or a host, and has an identity that it is known by.
fn peer(text: &str) -> Result<Multiaddr, BadHint> {
    let shown = || text.chars().filter(|c| !c.is_control()).take(100).collect::<String>();
    let address: Multiaddr = text.parse().map_err(|error| BadHint::Peer(shown(), Some(error)))?;
    let is_at_host = matches!(
        address.iter().next(),
        Some(
            Protocol::Ip4(_)
                | Protocol::Ip6(_)
                | Protocol::Dns(_)
                | Protocol::Dns4(_)
                | Protocol::Dns6(_)
                | Protocol::Dnsaddr(_)
        )
    );
    let has_identity = matches!(address.iter().last(), Some(Protocol::P2p(_)));
    // What it prints is what a node is told, so it must mean the same.
    let is_stable = address.to_string().parse::<Multiaddr>().is_ok_and(|again| again == address);
    if is_at_host && has_identity && is_stable { Ok(address) } else { Err(BadHint::Peer(shown(), None)) }
}

fn judge_peer(peer: &Multiaddr) -> Result<(), BadHint> {
    for part in peer {
        let address = match part {
            Protocol::Ip4(address) => IpAddr::V4(address),
            Protocol::Ip6(address) => IpAddr::V6(address),
            Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_) | Protocol::Dnsaddr(_) => {
                return Err(BadHint::PeerName(peer.clone()));
            }
            _ => continue,
        };
        public::judge(address).map_err(|source| BadHint::Private { hint: peer.to_string(), source })?;
    }
    Ok(())
}

impl FromStr for Hints {
    type Err = BadHint;

    fn from_str(text: &str) -> Result<Hints, BadHint> {
        let mut hints = Hints::default();
        for hint in text.split('&').filter(|hint| !hint.is_empty()) {
            let (key, value) = hint.split_once('=').unwrap_or((hint, ""));
            hints.push(key, value)?;
        }
        Ok(hints)
    }
}

impl fmt::Display for Hints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gateways = self.gateways.iter().map(|gateway| ("gw", gateway.to_string()));
        let peers = self.peers.iter().map(|peer| ("peer", peer.to_string()));
        let profile = self.profile.iter().map(|profile| ("profile", profile.to_string()));
        for (index, (key, value)) in gateways.chain(peers).chain(profile).enumerate() {
            let separator = if index == 0 { "" } else { "&" };
            write!(f, "{separator}{key}={}", utf8_percent_encode(&value, ENCODED))?;
        }
        Ok(())
    }
}
