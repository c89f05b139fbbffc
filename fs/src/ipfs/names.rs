//! IPNS: names that a node signs with one of its keys, and what they stand for now.

use std::time::Duration;

use g8_cache::BlockId;
use ipfs_api_backend_hyper::{IpfsApi, KeyType};
use serde::Deserialize;

use super::error::{RpcError, shown};
use super::library::{SOON, within};
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

impl Node {
    /// The key called `key`, by its name or its id.
    pub async fn key(&self, key: &str) -> Result<Option<Key>, RpcError> {
        let keys = within("key/list", SOON, self.limited(SOON).key_list()).await?.keys;
        let found = keys.into_iter().find(|known| known.name == key || known.id == key);
        Ok(found.map(|key| Key { name: shown(&key.name), id: shown(&key.id) }))
    }

    /// Makes a key.
    pub async fn make_key(&self, name: &str) -> Result<Key, RpcError> {
        let made =
            within("key/gen", SOON, self.limited(SOON).key_gen(name, KeyType::Ed25519, NO_SIZE)).await?;
        Ok(Key { name: shown(&made.name), id: shown(&made.id) })
    }

    /// Lets the name of `key` stand for `id`. The library cannot say that this may be done without peers.
    pub async fn publish_name(
        &self,
        key: &Key,
        id: &BlockId,
        lifetime: &str,
        ttl: &str,
    ) -> Result<(), RpcError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Published {
            value: String,
        }
        const CALL: &str = "name/publish";
        let path = format!("/ipfs/{id}");
        let query = [
            ("arg", path.as_str()),
            ("key", &key.name),
            ("lifetime", lifetime),
            ("ttl", ttl),
            ("resolve", "false"),
            ("allow-offline", "true"),
        ];
        let published: Published = self.ask(CALL, &query, SIGNS).await?;
        match target(&published.value) {
            Some(value) if value == *id => Ok(()),
            Some(_) | None => Err(RpcError::strange(CALL, format_args!("it published {}", published.value))),
        }
    }

    /// What `name` (an IPNS name or a domain) stands for now.
    pub async fn resolve(&self, name: &str, limit: Duration) -> Result<BlockId, RpcError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Resolved {
            path: String,
        }
        const CALL: &str = "name/resolve";
        let arg = format!("/ipns/{name}");
        // Not by the library: this one may last, and an answer of the library has no bound.
        let resolved: Resolved = self.ask(CALL, &[("arg", &arg), ("recursive", "true")], limit).await?;
        target(&resolved.path).ok_or_else(|| RpcError::Refused {
            call: CALL,
            message: format!("{name} is {}, no flist", shown(&resolved.path)),
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
