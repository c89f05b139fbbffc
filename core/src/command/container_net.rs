//! What callers hear when a container gets no network.

use super::CommandError;
use crate::domain::bridge::BridgeError;
use crate::domain::container_net::{NetworkError, PlanError};

impl From<PlanError> for CommandError {
    fn from(error: PlanError) -> Self {
        let message = error.to_string();
        match error {
            PlanError::Invalid(_) => CommandError::bad_request(message),
            PlanError::Unsupported(_) => CommandError::not_acceptable(message),
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
            #[cfg(test)]
            NetworkError::Injected(_) => CommandError::internal(message),
        }
    }
}
