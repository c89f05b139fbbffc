//! Blocks: get one, ask whether one is there, put one, list all.

use std::collections::HashSet;
use std::io::Cursor;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use g8_cache::{BlockId, Codec, MAX_STORED, VerifiedBlock};
use ipfs_api_backend_hyper::{Form, IpfsApi, request, response};
use ipfs_api_prelude::Backend;
use serde::{Deserialize, Serialize};

use super::bounded::With;
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

/// How kubo is told the codec of a block.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Kubo {
    cid_codec: &'static str,
}

/// What js-ipfs has to be told beside the library's `format`.
#[derive(Serialize)]
struct JsIpfs {
    version: u8,
}

impl Node {
    /// The bytes under the name of `id`, unproven.
    pub async fn block(&self, id: &BlockId, reach: Reach, limit: Duration) -> Result<Bytes, RpcError> {
        let node = self.within(limit).reach(reach).most(MAX_STORED);
        let mut pieces = node.block_get(&id.to_string());
        // There is one, also of nothing.
        pieces.next().await.unwrap_or_else(|| Ok(Bytes::new()))
    }

    /// Whether it has `id` itself.
    pub async fn presence(&self, id: &BlockId, limit: Duration) -> Result<Presence, RpcError> {
        match self.within(limit).reach(Reach::Local).block_stat(&id.to_string()).await {
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
        /// js-ipfs leaves out that nothing went wrong, which the library's type has to have.
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Line {
            r#ref: String,
        }
        let silent = |_| RpcError::Silent { call, waited: silence };
        let mut lines = self.listening().lines::<Line>(request::RefsLocal)?;
        let (mut digests, mut count) = (HashSet::new(), 0);
        while let Some(line) = tokio::time::timeout(silence, lines.next()).await.map_err(silent)? {
            count += 1;
            if count > LOCAL {
                return Err(RpcError::TooMuch { call, most: LOCAL });
            }
            // What is no block of ours is of no interest.
            let cid =
                cid::Cid::try_from(line?.r#ref.as_str()).ok().filter(|cid| cid.hash().code() == SHA2_256);
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
        match self.put_as(block, None, Kubo { cid_codec: codec }, limit).await {
            Ok(true) => return Ok(()),
            // It may not know the words.
            Err(error @ RpcError::Refused { .. }) if error.is_late() => return Err(error),
            Ok(false) | Err(RpcError::Refused { .. }) => {}
            Err(error) => return Err(error),
        }
        match self.put_as(block, Some(codec), JsIpfs { version: 1 }, limit).await? {
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
        format: Option<&str>,
        more: impl Serialize + Send,
        limit: Duration,
    ) -> Result<bool, RpcError> {
        let mut form = Form::default();
        form.add_reader_file("file", Cursor::new(block.bytes().clone()), "block");
        let request = request::BlockPut { format, mhtype: Some("sha2-256"), mhlen: None, pin: Some(false) };
        let request = With { request, more };
        let put: response::BlockPutResponse = self.within(limit).request(request, Some(form)).await?;
        Ok(block_id(&put.key) == Some(block.id()))
    }
}
