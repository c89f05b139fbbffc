//! Blocks: get one, ask whether one is there, put one, list all.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use g8_cache::{BlockId, Codec, MAX_STORED, VerifiedBlock};
use reqwest::multipart::{Form, Part};
use serde::Deserialize;

use super::call::judge;
use super::error::RpcError;
use super::import::AFTERTHOUGHT;
use super::{Node, block_id};

/// Multihash code of sha2-256.
const SHA2_256: u64 = 0x12;
/// Most blocks of a node that are listed: some 100 MB of text, and 32 MB kept.
const LOCAL: usize = 1 << 20;

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
            Ok(stat) if block_id(&stat.key).as_ref() != Some(id) => {
                Err(RpcError::strange("block/stat", "it answered for another block"))
            }
            Ok(stat) if stat.size > MAX_STORED as u64 => Err(RpcError::strange(
                "block/stat",
                format_args!("it has {id} with {} bytes, a block has at most {MAX_STORED}", stat.size),
            )),
            Ok(stat) => Ok(Presence::Here(stat.size)),
            Err(error) if error.is_missing() => Ok(Presence::Missing),
            Err(error) if error.is_late() => Ok(Presence::Unsaid),
            Err(error) => Err(error),
        }
    }

    /// The SHA-256 digests of all that it has itself: it forgets what codecs blocks were put with. Nothing may come for `silence`,
    /// and all of it may take as long as what comes after an import.
    pub async fn local(&self, silence: Duration) -> Result<HashSet<[u8; 32]>, RpcError> {
        const CALL: &str = "refs/local";
        let waited = silence * AFTERTHOUGHT;
        let all = tokio::time::timeout(waited, self.local_digests(CALL, silence));
        all.await.map_err(|_| RpcError::Silent { call: CALL, waited })?
    }

    async fn local_digests(
        &self,
        call: &'static str,
        silence: Duration,
    ) -> Result<HashSet<[u8; 32]>, RpcError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Line {
            r#ref: String,
        }
        let silent = |_| RpcError::Silent { call, waited: silence };
        let sent = tokio::time::timeout(silence, self.post(call, &[]).send()).await.map_err(silent)?;
        let response = judge(call, sent.map_err(|error| RpcError::gone(call, error.without_url()))?).await?;
        let mut lines = super::import::lines(call, response.bytes_stream().boxed());
        let (mut digests, mut count) = (HashSet::new(), 0);
        while let Some(line) = tokio::time::timeout(silence, lines.next()).await.map_err(silent)? {
            count += 1;
            if count > LOCAL {
                return Err(RpcError::TooMuch { call, most: LOCAL });
            }
            let line: Line =
                serde_json::from_slice(&line?).map_err(|error| RpcError::strange(call, error))?;
            // What is no block of ours is of no interest.
            let cid =
                cid::Cid::try_from(line.r#ref.as_str()).ok().filter(|cid| cid.hash().code() == SHA2_256);
            digests.extend(cid.and_then(|cid| <[u8; 32]>::try_from(cid.hash().digest()).ok()));
        }
        Ok(digests)
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
