//! How a node is set up: `core0.toml`, all of it optional.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::argument::Network;
use crate::command::Role;
use crate::domain::nft::InputPolicy;
use crate::sys::netlink::Cidr;

/// `core0.toml`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Who may use the node beside the administrator, by name.
    pub users: BTreeMap<String, User>,
    /// Bounds of what callers can make the node do.
    pub limits: Limits,
    /// What comes into the node.
    pub firewall: Firewall,
    /// How the node is reached.
    pub redis: Redis,
    /// The network of containers.
    pub network: NetworkConfig,
}

/// How the node is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Redis {
    /// Port of redis; 0 is a free one. A machine has 6379 by default.
    pub port: u16,
    /// SHA-256 of a password of the administrator, in hexadecimal digits. A machine that has it can be reached from its
    /// network. It is not shown.
    #[serde(skip_serializing)]
    pub password_sha256: Option<String>,
}

/// The network of containers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct NetworkConfig {
    /// The node's address on the default bridge, and its network: another one where the node has neighbours in it.
    pub containers: Network,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        let containers = Cidr { address: [172, 18, 0, 1].into(), prefix: 16 };
        Self { containers: Network(containers) }
    }
}

/// What comes into the node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Firewall {
    /// What happens to packets for the node that no rule of `nft.open_port` accepts.
    pub input: InputPolicy,
}

/// A user of the node, with its own queue `core:user:NAME` and results `result:NAME:ID`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// What it may do.
    pub role: Role,
    /// File with its password, without a line end; only root can read it.
    pub password_file: PathBuf,
}

/// Bounds of what callers can make the node do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Most processes of jobs at once; more wait.
    pub processes: usize,
    /// Most commands that are accepted and not answered; more are refused with 503.
    pub accepted: usize,
    /// Most bytes of such commands together; those of administrators may take half as many beyond that.
    pub accepted_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { processes: 2048, accepted: 16_384, accepted_bytes: 64 << 20 }
    }
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("{path} is no configuration of core0")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: Box<toml::de::Error>,
    },
}

impl Config {
    /// Reads a file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.into(), source })?;
        toml::from_str(&text)
            .map_err(|source| ConfigError::Parse { path: path.into(), source: Box::new(source) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_is_a_configuration_and_a_typo_is_named() {
        assert_eq!(toml::from_str::<Config>("").unwrap(), Config::default());
        let error = toml::from_str::<Config>("[limit]\nprocesses = 3").unwrap_err();
        assert!(error.to_string().contains("limit"), "{error}");
    }
}
