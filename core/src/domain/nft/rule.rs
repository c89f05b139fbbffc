//! An open port, and how it lies in the sets of the table.

use std::fmt;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::subnet;
use crate::argument::InterfaceName;
use crate::sys::netlink::Cidr;

/// An open TCP port: to all, or to who comes in by a link, from a network, or both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The port.
    pub port: u16,
    /// The link.
    pub interface: Option<InterfaceName>,
    /// The network; its address is the first one of it.
    pub subnet: Option<Cidr>,
}

/// A rule as callers see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ShownRule {
    /// The port.
    pub port: u16,
    /// The link it is open to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// The network it is open to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subnet: Option<String>,
}

impl From<Rule> for ShownRule {
    fn from(rule: Rule) -> Self {
        ShownRule {
            port: rule.port,
            interface: rule.interface.map(|link| link.to_string()),
            subnet: rule.subnet.map(|net| net.to_string()),
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "port {}", self.port)?;
        if let Some(link) = &self.interface {
            write!(f, " on {link}")?;
        }
        match self.subnet {
            Some(net) => write!(f, " from {net}"),
            None => Ok(()),
        }
    }
}

impl PartialOrd for Rule {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Rule {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let key = |rule: &Rule| {
            let net = rule.subnet.map(|net| (net.address, net.prefix));
            (rule.port, rule.interface.as_deref().map(str::to_owned), net)
        };
        key(self).cmp(&key(other))
    }
}

impl Rule {
    /// The set it lies in, and its element there.
    pub fn element(&self) -> (&'static str, String) {
        let port = self.port;
        match (&self.interface, self.subnet) {
            (None, None) => ("open", port.to_string()),
            (Some(link), None) => ("open_link", format!("\"{link}\" . {port}")),
            (None, Some(net)) if net.address.is_ipv4() => ("open_net", format!("{net} . {port}")),
            (None, Some(net)) => ("open_net6", format!("{net} . {port}")),
            (Some(link), Some(net)) if net.address.is_ipv4() => {
                ("open_link_net", format!("\"{link}\" . {net} . {port}"))
            }
            (Some(link), Some(net)) => ("open_link_net6", format!("\"{link}\" . {net} . {port}")),
        }
    }

    /// Both lie in one set, whose networks may have no address in common.
    pub fn overlaps(&self, other: &Rule) -> bool {
        let same = self.port == other.port && self.interface == other.interface;
        match (self.subnet, other.subnet) {
            (Some(a), Some(b)) => same && a.overlaps(b),
            (None, _) | (_, None) => false,
        }
    }
}

/// The rules of a set as `nft -j` shows it. What we would not have put there is logged and left out.
pub fn of_set(set: &Value) -> Vec<Rule> {
    let name = set["name"].as_str().unwrap_or_default();
    if !name.starts_with("open") {
        return Vec::new();
    }
    let elements = set["elem"].as_array().map(Vec::as_slice).unwrap_or_default();
    let read = |element: &Value| {
        let rule = of_element(name, element);
        if rule.is_none() {
            tracing::warn!(set = name, %element, "an element of the firewall that is none of ours");
        }
        rule
    };
    elements.iter().filter_map(read).collect()
}

fn of_element(set: &str, element: &Value) -> Option<Rule> {
    let parts = match element.get("concat") {
        Some(parts) => parts.as_array()?.as_slice(),
        None => std::slice::from_ref(element),
    };
    let (port, rest) = parts.split_last()?;
    let port = u16::try_from(port.as_u64()?).ok()?;
    let (link, net) = match (set, rest) {
        ("open", []) => (None, None),
        ("open_link", [link]) => (Some(link), None),
        ("open_net" | "open_net6", [net]) => (None, Some(net)),
        ("open_link_net" | "open_link_net6", [link, net]) => (Some(link), Some(net)),
        _ => return None,
    };
    let interface = link.map(|link| link.as_str()?.parse().ok()).map_or(Some(None), |link| link.map(Some))?;
    let subnet = net.map(network).map_or(Some(None), |net| net.map(Some))?;
    Some(Rule { port, interface, subnet })
}

/// `"10.0.0.1"`, or `{"prefix": {"addr": "10.0.0.0", "len": 8}}`.
fn network(value: &Value) -> Option<Cidr> {
    match value.get("prefix") {
        Some(prefix) => subnet(&format!("{}/{}", prefix["addr"].as_str()?, prefix["len"].as_u64()?)),
        None => subnet(value.as_str()?),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_nft_lists_is_what_was_put_there() {
        let sets = [
            json!({"name": "open", "elem": [22]}),
            json!({"name": "open_link", "elem": [{"concat": ["eth0", 80]}]}),
            json!({"name": "open_net", "elem": [{"concat": [{"prefix": {"addr": "0.0.0.0", "len": 0}}, 81]},
                                               {"concat": ["10.1.2.3", 82]}]}),
            json!({"name": "open_link_net6", "elem": [{"concat": ["e", {"prefix": {"addr": "fd00::", "len": 8}}, 80]}]}),
            json!({"name": "open_net6"}),
            json!({"name": "nat", "elem": ["10.0.0.1"]}),
        ];
        let rules: Vec<Rule> = sets.iter().flat_map(of_set).collect();
        let elements: Vec<(&str, String)> = rules.iter().map(Rule::element).collect();
        let expected = [
            ("open", "22"),
            ("open_link", "\"eth0\" . 80"),
            ("open_net", "0.0.0.0/0 . 81"),
            ("open_net", "10.1.2.3/32 . 82"),
            ("open_link_net6", "\"e\" . fd00::/8 . 80"),
        ];
        assert_eq!(elements, expected.map(|(set, element)| (set, element.to_owned())));
    }

    #[test]
    fn foreign_elements_are_left_out() {
        for elem in
            [json!([{"range": [1, 2]}]), json!(["ssh"]), json!([70_000]), json!([{"concat": []}]), json!(7)]
        {
            assert_eq!(of_set(&json!({"name": "open", "elem": elem})), [], "{elem}");
        }
    }
}
