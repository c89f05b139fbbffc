//! How a node is set up: `core0.toml`, all of it optional.
//!
//! What cannot be is refused while the file is read, so that the error says in which line it stands.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use crate::argument::Network;
use crate::boot::arguments::is_hash;
use crate::command::Role;
use crate::domain::container_net::default_bridge;
use crate::domain::nft::InputPolicy;
use crate::sys::capacity;
use crate::sys::netlink::Cidr;
use crate::wire::is_name;

/// `core0.toml`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Who may use the node beside the administrator, by name.
    #[serde(deserialize_with = "users")]
    pub users: BTreeMap<String, User>,
    /// Bounds of what callers can make the node do.
    pub limits: Limits,
    /// What comes into the node.
    pub firewall: Firewall,
    /// How the node is reached.
    pub redis: Redis,
    /// The network of containers.
    pub network: NetworkConfig,
    /// Containers.
    pub containers: ContainersConfig,
}

/// How the node is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Redis {
    /// Port of redis; 0 is a free one. A machine has 6379 by default.
    pub port: u16,
    /// SHA-256 of a password of the administrator, in hexadecimal digits. A machine that has it can be reached from its
    /// network. It is not shown.
    #[serde(skip_serializing, deserialize_with = "hash")]
    pub password_sha256: Option<String>,
}

/// Containers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ContainersConfig {
    /// An absolute path on a disk, for what containers write that are made with `upper: disk`. This node has it alone, and
    /// removes from it what its containers have left.
    #[serde(deserialize_with = "absolute")]
    pub disk: Option<PathBuf>,
}

/// The network of containers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct NetworkConfig {
    /// The node's address on the default bridge, and its network: another one where the node has neighbours in it.
    #[serde(deserialize_with = "for_containers")]
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
    #[serde(deserialize_with = "some")]
    pub processes: usize,
    /// Most commands that are accepted and not answered; more are refused with 503.
    #[serde(deserialize_with = "some")]
    pub accepted: usize,
    /// Most bytes of such commands together; those of administrators may take half as many beyond that.
    #[serde(deserialize_with = "some")]
    pub accepted_bytes: usize,
    /// Most processes and threads of one job or one service, with all that it starts; who has more is killed whole. When absent,
    /// 15 % of what the kernel can have, as systemd gives its units.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "some_if_any")]
    pub processes_each: Option<usize>,
}

impl Limits {
    /// Most processes and threads of one job or one service.
    pub fn processes_each(&self) -> u64 {
        let share = || (capacity::processes() * SHARE_PERCENT / 100).max(1);
        self.processes_each.map_or_else(share, |most| most as u64)
    }
}

/// What a job or a service gets of the processes that the kernel can have.
const SHARE_PERCENT: u64 = 15;

impl Default for Limits {
    fn default() -> Self {
        Self { processes: 2048, accepted: 16_384, accepted_bytes: 64 << 20, processes_each: None }
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

/// Names of users: redis has `default` and `core0` already.
fn users<'de, D: Deserializer<'de>>(source: D) -> Result<BTreeMap<String, User>, D::Error> {
    #[derive(PartialEq, Eq, PartialOrd, Ord, Deserialize)]
    #[serde(try_from = "String")]
    struct Name(String);

    impl TryFrom<String> for Name {
        type Error = String;

        fn try_from(name: String) -> Result<Self, String> {
            match is_name(&name) && name != "default" && name != "core0" {
                true => Ok(Self(name)),
                false => Err(format!(
                    "{name:?} cannot be a user: names are letters, digits, '-', '_' and '.', and default and core0 are taken"
                )),
            }
        }
    }

    let users = BTreeMap::<Name, User>::deserialize(source)?;
    Ok(users.into_iter().map(|(Name(name), user)| (name, user)).collect())
}

/// The folder that a node is started in is no matter of its configuration.
fn absolute<'de, D: Deserializer<'de>>(source: D) -> Result<Option<PathBuf>, D::Error> {
    match Option::<PathBuf>::deserialize(source)? {
        Some(path) if !path.is_absolute() => Err(D::Error::custom(format!("{path:?} does not begin with /"))),
        path => Ok(path),
    }
}

/// redis knows hashes in small letters alone.
fn hash<'de, D: Deserializer<'de>>(source: D) -> Result<Option<String>, D::Error> {
    match Option::<String>::deserialize(source)? {
        Some(text) if !is_hash(&text) => {
            Err(D::Error::custom("password_sha256 is no SHA-256: it has 64 hexadecimal digits"))
        }
        text => Ok(text.map(|text| text.to_ascii_lowercase())),
    }
}

fn for_containers<'de, D: Deserializer<'de>>(source: D) -> Result<Network, D::Error> {
    let network = Network::deserialize(source)?;
    default_bridge(network.0).map_err(D::Error::custom)?;
    Ok(network)
}

/// A bound of nothing would be a node that does nothing.
fn some<'de, D: Deserializer<'de>>(source: D) -> Result<usize, D::Error> {
    match u32::deserialize(source)? {
        0 => Err(D::Error::custom("a bound is at least 1")),
        some => Ok(some as usize),
    }
}

fn some_if_any<'de, D: Deserializer<'de>>(source: D) -> Result<Option<usize>, D::Error> {
    some(source).map(Some)
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

    #[test]
    fn the_hash_of_a_password_is_as_redis_reads_it() {
        let text = format!("[redis]\npassword_sha256 = '{}'", "AB".repeat(32));
        assert_eq!(toml::from_str::<Config>(&text).unwrap().redis.password_sha256, Some("ab".repeat(32)));
    }
}
