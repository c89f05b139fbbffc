//! What callers say about the network of a container, in the words of `corex.create`.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// Most ports of a container.
pub const MAX_PORTS: usize = 128;

/// The arguments of `corex.create` that are about the network.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub struct NetworkArguments {
    /// The container has the network of the node, and the other arguments of the network mean nothing. Unless it is privileged
    /// it may not listen on a port below 1024 there: choose a higher one, or leave this out and have `port` lead the low port
    /// into its own network.
    #[serde(default)]
    pub host_network: bool,
    /// NICs as the client of 2017 asks for them, beside `eth0` on the default bridge.
    #[serde(default)]
    pub network: Option<OldNetwork>,
    /// NICs as later clients ask for them: these and no others. One on the default bridge when it is not given.
    #[serde(default)]
    pub nics: Option<Vec<NicArguments>>,
    /// Ports of the node that lead to ports of the container.
    #[serde(default)]
    pub port: Option<PortArguments>,
}

/// NICs in the words of 2017.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OldNetwork {
    /// A network of ZeroTier, which this node does not support.
    #[serde(default)]
    pub zerotier: Option<String>,
    /// Bridges, each with the address there: empty or `none`, `dhcp`, or one as 10.0.0.2/24.
    #[serde(default)]
    pub bridge: Option<Vec<(String, Option<String>)>>,
}

/// A NIC of a container.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NicArguments {
    /// `default`: on the default bridge; `bridge`: on another. `zerotier`, `vlan`, `vxlan`, `macvlan` and `passthrough` are
    /// not supported by this node.
    #[serde(rename = "type")]
    pub kind: String,
    /// Name of the bridge.
    #[serde(default)]
    pub id: Option<String>,
    /// Name of the link in the container; `eth0` and so on when empty.
    #[serde(default)]
    pub name: Option<String>,
    /// Hardware address; one of its own when empty.
    #[serde(default)]
    pub hwaddr: Option<String>,
    /// Its address.
    #[serde(default)]
    pub config: Option<NicConfig>,
    /// Statistics of the NIC, which this node does not keep.
    #[serde(default)]
    pub monitor: bool,
}

/// The address of a NIC.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NicConfig {
    /// One from the range of the bridge.
    #[serde(default)]
    pub dhcp: bool,
    /// A fixed one, as 10.0.0.2/24.
    #[serde(default)]
    pub cidr: Option<String>,
    /// Where packets for other networks go, as 10.0.0.1.
    #[serde(default)]
    pub gateway: Option<String>,
    /// Addresses of DNS servers.
    #[serde(default)]
    pub dns: Option<Vec<String>>,
}

/// Ports as pairs, no more of them than a container may have: counted before they are kept.
#[derive(Clone, Debug, Default)]
pub struct PortArguments(pub Vec<(String, i64)>);

impl<'de> Deserialize<'de> for PortArguments {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = PortArguments;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of ports of the node and ports of the container")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<PortArguments, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    if pairs.len() == MAX_PORTS {
                        return Err(serde::de::Error::custom(format!("more than {MAX_PORTS} ports")));
                    }
                    pairs.push(pair);
                }
                Ok(PortArguments(pairs))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

impl Serialize for PortArguments {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(host, container)| (host, container)))
    }
}

impl JsonSchema for PortArguments {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "PortArguments".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "description": "Ports of the node, as \"8080\", \"8080|udp\" or \"8080|tcp+udp\", and the port of the container each leads to.",
            "additionalProperties": { "type": "integer", "minimum": 1, "maximum": 65535 },
            "maxProperties": MAX_PORTS,
        })
    }
}
