//! What a bootstrap file says. BOOT.md describes it; it is judged here as a whole, so that nothing is done by half of it.
//!
//! It is YAML without anchors, aliases, merge keys and tags, in one document.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use g8_cache::BlockId;
use g8_fs::source::Spec;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_saphyr::options::{DuplicateKeyPolicy, MergeKeyPolicy};
use sha2::Digest;

use crate::boot::arguments::{is_hash, is_network};
use crate::boot::network::plan::{Endpoint, judge_controllers};
use crate::domain::flist::place::{WRITABLE, is_writable};

/// Longest file.
pub const FILE_MAX: usize = 64 << 10;
/// Deepest nesting; the format itself has three levels.
const DEPTH: usize = 8;
/// Most scalars, lists and maps.
const NODES: usize = 4096;
/// Most mounts, controllers and sources.
pub const MANY: usize = 16;
/// Longest password.
const PASSWORD_MAX: usize = 512;

/// See the module's text.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// Higher in each file than in all before it.
    pub sequence: u64,
    /// The machines that it is for: a signature says nothing of the name that a file is served by.
    pub arch: Arch,
    /// Until when it is taken up.
    #[serde(deserialize_with = "time")]
    pub expires: jiff::Timestamp,
    /// What should run.
    pub image: Option<Image>,
    /// The flist of the system's components.
    #[serde(default, deserialize_with = "flist")]
    pub system: Option<BlockId>,
    /// Other flists, and where they are shown.
    #[serde(default)]
    pub mounts: Vec<Mount>,
    /// Who may command the node.
    pub redis: Option<Redis>,
    /// Where controllers are.
    #[serde(default)]
    pub controllers: Vec<Endpoint>,
    /// Where the blocks of `system` and `mounts` come from.
    #[serde(default)]
    pub sources: Vec<Source>,
    /// The overlay network to join.
    pub overlay: Option<Overlay>,
}

/// An architecture, by the name that files have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arch {
    /// x86-64.
    I64,
    /// ARM of 64 bits.
    Arm64,
}

impl Arch {
    /// That of this machine; nothing where no file can be for it.
    pub fn own() -> Option<Self> {
        match std::env::consts::ARCH {
            "x86_64" => Some(Self::I64),
            "aarch64" => Some(Self::Arm64),
            _ => None,
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::I64 => "i64",
            Self::Arm64 => "arm64",
        })
    }
}

/// The image that should run.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// SHA-256 of its manifest.
    pub build_id: Sha256,
    /// Where it is.
    #[serde(deserialize_with = "block")]
    pub image_cid: BlockId,
    /// Higher for a newer one.
    pub sequence: u64,
}

/// An flist to mount.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// Its address.
    #[serde(deserialize_with = "block")]
    pub flist: BlockId,
    /// Where.
    pub path: PathBuf,
}

/// Who may command the node: `password`, or its hash in `password_sha256`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Login")]
pub struct Redis {
    /// SHA-256 of the administrator's password.
    pub password_sha256: Sha256,
}

/// As it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Login {
    password: Option<String>,
    password_sha256: Option<Sha256>,
}

impl TryFrom<Login> for Redis {
    type Error = &'static str;

    fn try_from(login: Login) -> Result<Self, Self::Error> {
        let password_sha256 = match (login.password, login.password_sha256) {
            (None, Some(hash)) => hash,
            (Some(password), None) if (1..=PASSWORD_MAX).contains(&password.len()) => {
                Sha256::of(password.as_bytes())
            }
            (Some(_), None) => return Err("the password is empty, or longer than 512 bytes"),
            (Some(_), Some(_)) | (None, None) => {
                return Err("redis has either a password or its password_sha256");
            }
        };
        Ok(Self { password_sha256 })
    }
}

/// An overlay network.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Overlay {
    /// Its number: 16 hexadecimal digits.
    pub zerotier: String,
}

/// 64 hexadecimal digits, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sha256(pub String);

impl Sha256 {
    fn of(bytes: &[u8]) -> Self {
        Self(sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

impl<'de> Deserialize<'de> for Sha256 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match is_hash(&text) {
            true => Ok(Self(text.to_ascii_lowercase())),
            false => Err(D::Error::custom("no SHA-256: it has 64 hexadecimal digits")),
        }
    }
}

/// A source that a stranger's machine can have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source(pub String);

impl<'de> Deserialize<'de> for Source {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.parse::<Spec>() {
            Ok(Spec::Http(_)) => Ok(Self(text)),
            Ok(Spec::Dir(_) | Spec::Car(_) | Spec::Hint(_) | Spec::Ipfs(_) | Spec::Peer) => {
                Err(D::Error::custom("a source of a bootstrap file begins with http:// or https://"))
            }
            Err(e) => Err(D::Error::custom(e)),
        }
    }
}

fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<jiff::Timestamp, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| D::Error::custom("no time: it is written like 2030-01-31T12:00:00Z"))
}

fn block<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BlockId, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|e| D::Error::custom(format!("no CID: {e}")))
}

fn flist<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<BlockId>, D::Error> {
    block(deserializer).map(Some)
}

/// Why a text is no bootstrap file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// It is too long.
    #[error("it has more than {FILE_MAX} bytes")]
    Long,
    /// It is no YAML, not the YAML that is read here, or has wrong fields.
    #[error("line {line}: {why}")]
    Parse {
        /// Where, from 1; 0 when nobody knows.
        line: u64,
        /// Why, on one line.
        why: String,
    },
    /// What it says makes no sense.
    #[error("{0}")]
    Senseless(String),
}

impl Document {
    /// Reads a file.
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        if bytes.len() > FILE_MAX {
            return Err(DocumentError::Long);
        }
        let text = std::str::from_utf8(bytes)
            .map_err(|_| DocumentError::Parse { line: 0, why: "it is not UTF-8".into() })?;
        let document: Self = yaml(text)?;
        document.judge().map_err(DocumentError::Senseless)?;
        Ok(document)
    }

    fn judge(&self) -> Result<(), String> {
        let lists = [
            ("mounts", self.mounts.len()),
            ("controllers", self.controllers.len()),
            ("sources", self.sources.len()),
        ];
        if let Some((name, _)) = lists.into_iter().find(|(_, length)| *length > MANY) {
            return Err(format!("more than {MANY} {name}"));
        }
        let mut places = BTreeSet::new();
        for Mount { path, .. } in &self.mounts {
            if !is_writable(path) {
                return Err(format!(
                    "mounts: {path:?} is no place for an flist: it is an absolute path below one of {WRITABLE:?}, without '..'"
                ));
            }
            if !places.insert(path) {
                return Err(format!("mounts: {path:?} is there twice"));
            }
        }
        if (self.system.is_some() || !self.mounts.is_empty()) && self.sources.is_empty() {
            return Err("system and mounts need sources to come from".into());
        }
        judge_controllers(&self.controllers)?;
        match &self.overlay {
            Some(Overlay { zerotier }) if !is_network(zerotier) => {
                Err(format!("overlay: {zerotier:.40?} is no network: it has 16 hexadecimal digits"))
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// Reads YAML that cannot grow: what is not written out is refused.
pub(super) fn yaml<T: DeserializeOwned>(text: &str) -> Result<T, DocumentError> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_anchors: 0,
            max_aliases: 0,
            max_merge_keys: 0,
            max_depth: DEPTH,
            max_nodes: NODES,
            max_events: 4 * NODES,
            max_documents: 1,
            max_total_scalar_bytes: FILE_MAX,
        },
        duplicate_keys: DuplicateKeyPolicy::Error,
        merge_keys: MergeKeyPolicy::Error,
        strict_booleans: true,
        reject_unsupported_tags: true,
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options(text, options).map_err(refused)
}

/// On one line, with the place.
fn refused(error: serde_saphyr::Error) -> DocumentError {
    let line = error.location().map_or(0, |place| place.line());
    let why = error.without_snippet().to_string();
    let why: String = why.lines().next().unwrap_or_default().chars().take(200).collect();
    DocumentError::Parse { line, why }
}
