//! Single blocks: get one, ask whether one is there, put one.

use std::time::Duration;

use bytes::Bytes;
use g8_cache::{BlockId, Codec, MAX_STORED, VerifiedBlock};
use reqwest::multipart::{Form, Part};
use serde::Deserialize;

use super::call::judge;
use super::error::RpcError;
use super::{Node, block_id};

/// How far a node goes for a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Only what it has: kubo answers at once. js-ipfs knows no such limit.
    Local,
    /// It asks its peers too, for as long as it may take.
    Anywhere,
}

/// Whether a block is on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It is, and has so many bytes.
    Here(u64),
    /// It is not.
    Missing,
    /// The node did not say in time: js-ipfs waits for what it does not have.
    Unsaid,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Stat {
    key: String,
    size: u64,
}

impl Node {
    /// The bytes under the name of `id`, unproven.
    pub async fn block(&self, id: &BlockId, reach: Reach, limit: Duration) -> Result<Bytes, RpcError> {
        let name = id.to_string();
        let mut query = vec![("arg", name.as_str())];
        if reach == Reach::Local {
            query.push(("offline", "true"));
        }
        self.bytes("block/get", &query, limit, MAX_STORED).await
    }

    /// Whether it has `id` itself.
    pub async fn presence(&self, id: &BlockId, limit: Duration) -> Result<Presence, RpcError> {
        let name = id.to_string();
        let query = [("arg", name.as_str()), ("offline", "true")];
        match self.ask::<Stat>("block/stat", &query, limit).await {
            Ok(stat) if block_id(&stat.key).as_ref() == Some(id) => Ok(Presence::Here(stat.size)),
            Ok(_) => Err(RpcError::strange("block/stat", "it answered for another block")),
            Err(error) if error.is_missing() => Ok(Presence::Missing),
            Err(error) if error.is_late() => Ok(Presence::Unsaid),
            Err(error) => Err(error),
        }
    }

    /// Gives it a block. Two spellings of the same wish are known; which one a node understands is seen from the CID that
    /// it answers with.
    pub async fn put(&self, block: &VerifiedBlock, limit: Duration) -> Result<(), RpcError> {
        let codec = match block.id().codec() {
            Codec::Raw => "raw",
            Codec::DagCbor => "dag-cbor",
        };
        let kubo = [("cid-codec", codec), ("mhtype", "sha2-256"), ("pin", "false")];
        let js_ipfs = [("format", codec), ("version", "1"), ("mhtype", "sha2-256"), ("pin", "false")];
        let first = self.put_as(block, &kubo, limit).await;
        match first {
            Ok(true) => return Ok(()),
            Err(error) if !matches!(error, RpcError::Refused { .. }) => return Err(error),
            Ok(false) | Err(_) => {}
        }
        match self.put_as(block, &js_ipfs, limit).await? {
            true => Ok(()),
            false => Err(RpcError::strange(
                "block/put",
                format_args!("it stores {} under another CID", block.id()),
            )),
        }
    }

    /// Whether the block is stored under its own CID.
    async fn put_as(
        &self,
        block: &VerifiedBlock,
        query: &[(&str, &str)],
        limit: Duration,
    ) -> Result<bool, RpcError> {
        const CALL: &str = "block/put";
        let part = Part::stream_with_length(block.bytes().clone(), block.bytes().len() as u64);
        let part = part.file_name("block").mime_str("application/octet-stream").expect("it is one");
        let request = self.post(CALL, query).multipart(Form::new().part("file", part));
        let answer = async {
            let response = request.send().await.map_err(|error| RpcError::gone(CALL, error.without_url()))?;
            super::call::body(CALL, judge(CALL, response).await?, 64 << 10).await
        };
        let body = tokio::time::timeout(limit, answer)
            .await
            .map_err(|_| RpcError::Silent { call: CALL, waited: limit })??;
        let stat: Stat = serde_json::from_slice(&body).map_err(|error| RpcError::strange(CALL, error))?;
        Ok(block_id(&stat.key) == Some(block.id()))
    }
}
