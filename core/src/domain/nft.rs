//! The firewall of the node: one own table, `inet core0`, that nobody else writes and that writes nobody else's.
//!
//! What callers change are elements of sets; the chains are always the same. Every change is one transaction that also
//! puts the chains right, so a table of another version or one that somebody edited mends itself. An own table can only
//! add to what other tables drop: `nft.open_port` matters when the own input chain drops, which is a choice of the
//! configuration, or when nothing else does.

mod forward;
mod layout;
mod rule;

use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::Mutex;

pub use forward::{Forward, Protocol};
pub use layout::InputPolicy;
pub use rule::{Rule, ShownRule};

use crate::sys::netlink::Cidr;
use crate::sys::nft;
use crate::sys::tool::ToolError;

/// Most rules; a set is read as a whole.
const MAX_RULES: usize = 4096;

/// Why the firewall stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// The tool failed.
    #[error("the firewall stays as it is")]
    Tool(#[source] ToolError),
    /// It is there.
    #[error("{0} is open already")]
    Exists(Rule),
    /// A set holds no networks that overlap.
    #[error("{new} overlaps with {old}, which is open already")]
    Overlaps {
        /// What was asked.
        new: Rule,
        /// What is there.
        old: Rule,
    },
    /// It is not there.
    #[error("{0} is not open")]
    Missing(Rule),
    /// Enough.
    #[error("the firewall has {MAX_RULES} rules, and holds no more")]
    TooMany,
}

impl From<ToolError> for NftError {
    fn from(error: ToolError) -> Self {
        NftError::Tool(error)
    }
}

/// A network behind a bridge, as the firewall knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Behind {
    /// The bridge.
    pub link: String,
    /// Its network, when its packets shall leave the node with the node's address.
    pub nat: Option<Cidr>,
}

/// The firewall. One per node: its changes take turns.
#[derive(Debug, Default)]
pub struct Firewall {
    policy: InputPolicy,
    turn: Arc<Mutex<()>>,
}

impl Firewall {
    /// A firewall that does `policy` to what no rule accepts. Nothing is changed yet.
    pub fn new(policy: InputPolicy) -> Self {
        Firewall { policy, turn: Arc::default() }
    }

    /// Sets the table up at the start of the node, when it has to hold before anybody asks for anything.
    pub async fn restore(&self) -> Result<(), NftError> {
        match self.policy {
            InputPolicy::Accept => Ok(()),
            InputPolicy::Drop => self.install().await,
        }
    }

    /// Sets the table up.
    pub async fn install(&self) -> Result<(), NftError> {
        let _turn = self.turn.lock().await;
        self.change("").await
    }

    /// Opens a TCP port.
    pub async fn open_port(&self, rule: Rule) -> Result<(), NftError> {
        let _turn = self.turn.lock().await;
        let rules = list().await?;
        if rules.contains(&rule) {
            return Err(NftError::Exists(rule));
        }
        if let Some(old) = rules.iter().find(|old| old.overlaps(&rule)) {
            return Err(NftError::Overlaps { new: rule, old: old.clone() });
        }
        if rules.len() >= MAX_RULES {
            return Err(NftError::TooMany);
        }
        let (set, element) = rule.element();
        self.change(&format!("add element inet core0 {set} {{ {element} }}\n")).await
    }

    /// Takes back what `open_port` did.
    pub async fn drop_port(&self, rule: Rule) -> Result<(), NftError> {
        let _turn = self.turn.lock().await;
        if !list().await?.contains(&rule) {
            return Err(NftError::Missing(rule));
        }
        let (set, element) = rule.element();
        self.change(&format!("delete element inet core0 {set} {{ {element} }}\n")).await
    }

    /// The open ports.
    pub async fn rules(&self) -> Result<Vec<Rule>, NftError> {
        list().await
    }

    /// Lets a network behind a bridge use the node: DHCP and DNS of it, and the way out when it is NATed.
    pub async fn add_network(&self, network: &Behind) -> Result<(), NftError> {
        let _turn = self.turn.lock().await;
        self.change(&elements("add", network)).await
    }

    /// Takes back what `add_network` did; what is not there is gone already.
    pub async fn remove_network(&self, network: &Behind) -> Result<(), NftError> {
        let _turn = self.turn.lock().await;
        // What is added twice is there once, so a removal never fails for what was missing.
        self.change(&(elements("add", network) + &elements("delete", network))).await
    }

    /// Makes these the forwarded ports of the node, and no others. Whoever calls knows all of them, so that nothing that
    /// was left behind or taken away by somebody else stays so.
    pub async fn set_forwards(&self, forwards: &[Forward]) -> Result<(), NftError> {
        let _turn = self.turn.lock().await;
        self.change(&forward::script(forwards)).await
    }

    async fn change(&self, elements: &str) -> Result<(), NftError> {
        Ok(nft::apply(layout::script(self.policy) + elements).await?)
    }
}

fn elements(verb: &str, network: &Behind) -> String {
    let link = &network.link;
    let mut script = format!("{verb} element inet core0 networks {{ \"{link}\" }}\n");
    if let Some(cidr) = network.nat {
        let net = format!("{}/{}", cidr.network(), cidr.prefix);
        script += &format!("{verb} element inet core0 nat {{ {net} }}\n");
        script += &format!("{verb} element inet core0 nat_home {{ {net} . \"{link}\" }}\n");
    }
    script
}

/// An address without a prefix is a network of one.
pub fn subnet(text: &str) -> Option<Cidr> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(Cidr { address, prefix: if address.is_ipv4() { 32 } else { 128 } });
    }
    let cidr: Cidr = text.parse().ok()?;
    Some(Cidr { address: cidr.network(), ..cidr })
}

async fn list() -> Result<Vec<Rule>, NftError> {
    let objects = nft::list_table("inet", "core0").await?.unwrap_or_default();
    let sets = objects.iter().filter_map(|object| object.get("set"));
    let mut rules: Vec<Rule> = sets.flat_map(rule::of_set).collect();
    rules.sort();
    Ok(rules)
}

#[cfg(test)]
mod tests;
