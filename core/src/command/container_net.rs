//! What callers hear of the network of a container: what it is, or why there is none.

use schemars::JsonSchema;
use serde::Serialize;

use super::CommandError;
use crate::domain::bridge::BridgeError;
use crate::domain::container_net::{Attached, NetworkError, PlanError};

/// The network of a container.
#[derive(Debug, Serialize, JsonSchema)]
pub struct NetworkShown {
    nics: Vec<NicShown>,
    ports: Vec<PortShown>,
}

/// A NIC of a container.
#[derive(Debug, Serialize, JsonSchema)]
struct NicShown {
    /// Name of the link in the container.
    name: String,
    /// The bridge that it is on.
    bridge: String,
    /// Its hardware address.
    hwaddr: String,
    /// Its address, as 172.18.0.2/16.
    address: Option<String>,
}

/// A port of the node that leads to a container.
#[derive(Debug, Serialize, JsonSchema)]
struct PortShown {
    /// `tcp` or `udp`.
    protocol: String,
    /// The port of the node.
    host: u16,
    /// The port of the container.
    container: u16,
}

impl From<Attached> for NetworkShown {
    fn from(network: Attached) -> Self {
        let nics = network.nics.into_iter().map(|nic| NicShown {
            name: nic.name,
            bridge: nic.bridge,
            hwaddr: nic.hardware.map(|byte| format!("{byte:02x}")).join(":"),
            address: nic.address.map(|address| address.to_string()),
        });
        let ports = network.ports.into_iter().map(|port| PortShown {
            protocol: port.protocol.to_string(),
            host: port.host,
            container: port.container,
        });
        Self { nics: nics.collect(), ports: ports.collect() }
    }
}

impl From<PlanError> for CommandError {
    fn from(error: PlanError) -> Self {
        let message = error.to_string();
        match error {
            PlanError::Invalid(_) => CommandError::bad_request(message),
            PlanError::Unsupported(_) | PlanError::ZeroTier => CommandError::not_acceptable(message),
        }
    }
}

impl From<NetworkError> for CommandError {
    fn from(error: NetworkError) -> Self {
        let message = error.to_string();
        match error {
            NetworkError::Plan(error) => error.into(),
            NetworkError::Exists(_) | NetworkError::AddressTaken { .. } | NetworkError::PortTaken { .. } => {
                CommandError::conflict(message)
            }
            NetworkError::NoBridge(_) => CommandError::not_found(message),
            NetworkError::NoRange(_) | NetworkError::Unreachable { .. } => {
                CommandError::precondition(message)
            }
            NetworkError::Full(_) | NetworkError::TooMany | NetworkError::Released(_) => {
                CommandError::unavailable(message)
            }
            NetworkError::Port(_, _, source) => CommandError::internal(message).because(source),
            NetworkError::Netlink(error) => error.into(),
            NetworkError::DefaultBridge(error) => {
                let next = match &error {
                    BridgeError::Overlaps { .. } => {
                        ": choose another network, network.containers in core0.toml"
                    }
                    _ => "",
                };
                let inner = CommandError::from(error);
                CommandError::new(inner.code(), message + next).with_stderr(inner.stderr())
            }
            NetworkError::Bridge(error) => error.into(),
            NetworkError::Firewall(error) => error.into(),
            NetworkError::File(_, source) => CommandError::internal(message).because(source),
            NetworkError::Interrupted(_, source) => CommandError::internal(message).because(source),
            NetworkError::Fault(_) => CommandError::internal(message),
            #[cfg(test)]
            NetworkError::Injected(_) => CommandError::internal(message),
        }
    }
}
