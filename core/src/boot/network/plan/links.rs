//! In which order links are made: each one after those that it lies on.

use std::collections::BTreeSet;

use super::Plan;
use crate::argument::InterfaceName;

/// The links of a plan, each after those that it lies on.
pub type Order<'a> = Vec<&'a InterfaceName>;

impl Plan {
    /// The order in which links are made; the error says which of them lie on each other.
    pub fn order(&self) -> Result<Order<'_>, String> {
        self.judge_ports()?;
        let mut order: Order<'_> = Vec::new();
        let mut left: BTreeSet<&InterfaceName> = self.links.keys().collect();
        while !left.is_empty() {
            let ready = |name: &InterfaceName| self.below(name).iter().all(|below| !left.contains(below));
            let next: Vec<&InterfaceName> = left.iter().copied().filter(|name| ready(name)).collect();
            if next.is_empty() {
                let names: Vec<&str> = left.iter().map(|name| &***name).collect();
                return Err(format!("these links lie on each other: {}", names.join(", ")));
            }
            for name in next {
                left.remove(name);
                order.push(name);
            }
        }
        Ok(order)
    }

    /// The bridge that a link is a port of.
    pub fn bridge_of(&self, port: &str) -> Option<&InterfaceName> {
        let has = |ports: &[InterfaceName]| ports.iter().any(|name| **name == *port);
        let mut links = self.links.iter();
        links
            .find(|(_, wanted)| wanted.bridge.as_ref().is_some_and(|bridge| has(&bridge.ports)))
            .map(|(name, _)| name)
    }

    /// What a link lies on, of what the plan names.
    fn below(&self, name: &InterfaceName) -> Vec<&InterfaceName> {
        let Some(wanted) = self.links.get(name) else { return Vec::new() };
        let vlan = wanted.vlan.iter().map(|vlan| &vlan.on);
        let vxlan = wanted.vxlan.iter().filter_map(|vxlan| vxlan.on.as_ref());
        vlan.chain(vxlan).chain(wanted.bridge.iter().flat_map(|bridge| &bridge.ports)).collect()
    }

    fn judge_ports(&self) -> Result<(), String> {
        let mut taken = BTreeSet::new();
        for (bridge, wanted) in &self.links {
            for port in wanted.bridge.iter().flat_map(|bridge| &bridge.ports) {
                if !taken.insert(port) {
                    return Err(format!("link {bridge}: {port} is a port already"));
                }
                let Some(wanted) = self.links.get(port) else { continue };
                if wanted.address.is_some() || wanted.bridge.is_some() {
                    return Err(format!("link {port}: a port has no address and is no bridge itself"));
                }
            }
        }
        Ok(())
    }
}
