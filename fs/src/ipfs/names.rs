//! IPNS: names that a node signs with one of its keys, and what they stand for now.

use std::time::Duration;

use g8_cache::BlockId;
use ipfs_api_backend_hyper::{IpfsApi, KeyType, request, response};
use ipfs_api_prelude::Backend;
use serde::Serialize;

use super::bounded::{SOON, With};
use super::error::{RpcError, shown};
use super::{Node, block_id};

/// How long a node may take to sign a name. Online it tells the network, which is slow; it may do that later.
const SIGNS: Duration = Duration::from_secs(90);
/// The library asks for a size of the key, and this kind has none: what kubo means by none.
const NO_SIZE: i32 = -1;

/// A key of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// What the node calls it.
    pub name: String,
    /// The name that it signs, without `ipns://`.
    pub id: String,
}

/// What the library cannot say of a name that is published: whether that may be done without peers.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Offline {
    allow_offline: bool,
}

impl Node {
    /// The key called `key`, by its name or its id.
    pub async fn key(&self, key: &str) -> Result<Option<Key>, RpcError> {
        let keys = self.within(SOON).key_list().await?.keys;
        let found = keys.into_iter().find(|known| known.name == key || known.id == key);
        Ok(found.map(|key| Key { name: shown(&key.name), id: shown(&key.id) }))
    }

    /// Makes a key.
    pub async fn make_key(&self, name: &str) -> Result<Key, RpcError> {
        let made = self.within(SOON).key_gen(name, KeyType::Ed25519, NO_SIZE).await?;
        Ok(Key { name: shown(&made.name), id: shown(&made.id) })
    }

    /// Lets the name of `key` stand for `id`.
    pub async fn publish_name(
        &self,
        key: &Key,
        id: &BlockId,
        lifetime: &str,
        ttl: &str,
    ) -> Result<(), RpcError> {
        let path = format!("/ipfs/{id}");
        let (lifetime, ttl, key) = (Some(lifetime), Some(ttl), Some(key.name.as_str()));
        let request = request::NamePublish { path: &path, resolve: false, lifetime, ttl, key };
        let request = With { request, more: Offline { allow_offline: true } };
        let published: response::NamePublishResponse = self.within(SIGNS).request(request, None).await?;
        match target(&published.value) {
            Some(value) if value == *id => Ok(()),
            Some(_) | None => {
                Err(RpcError::strange("name/publish", format_args!("it published {}", published.value)))
            }
        }
    }

    /// What `name` (an IPNS name or a domain) stands for now.
    pub async fn resolve(&self, name: &str, limit: Duration) -> Result<BlockId, RpcError> {
        let path = self.within(limit).name_resolve(Some(&format!("/ipns/{name}")), true, false).await?.path;
        target(&path).ok_or_else(|| RpcError::Refused {
            call: "name/resolve",
            message: format!("{name} is {}, no flist", shown(&path)),
        })
    }
}

/// The block that a path names alone.
fn target(path: &str) -> Option<BlockId> {
    block_id(path.strip_prefix("/ipfs/")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stands_for_one_block_in_any_spelling() {
        let id: BlockId = "bafyreihyrpefhacm6kkp4ql6j6udakdit7g3dmkzfriqfykhjw6cad5lrm".parse().unwrap();
        assert_eq!(target(&format!("/ipfs/{id}")), Some(id));
        assert_eq!(target(&format!("/ipfs/{}", id.to_string().to_uppercase())), Some(id));
        for other in [format!("/ipfs/{id}/below"), format!("/ipns/{id}"), id.to_string(), String::new()] {
            assert_eq!(target(&other), None, "{other}");
        }
    }
}
