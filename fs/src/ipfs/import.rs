//! `dag/import`: many blocks in one streamed CAR, and a strict judgement of what the node says about it.
//!
//! A node answers 200 also when the pin failed, so the status alone means nothing. How long an import takes is not bounded,
//! only how long nothing moves.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, BoxStream, Stream, StreamExt};
use g8_cache::BlockId;
use ipfs_api_prelude::{ApiRequest, Backend};
use parking_lot::Mutex;
use reqwest::Body;
use reqwest::multipart::{Form, Part};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::answer::LINE;
use super::error::{RpcError, shown};
use super::{Node, block_id};

const CALL: &str = "dag/import";
/// Most lines of an answer: one a root and one at the end.
const LINES: usize = 64;
/// So much longer than between two movements a node may take to answer when it has everything: it writes to its disk, and walks
/// over all that it is to pin.
pub(super) const AFTERTHOUGHT: u32 = 10;

/// What a CAR brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Blocks.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Whether the node has taken it to its end.
    pub is_whole: bool,
}

/// When something last moved, shared by the stream of a CAR and who waits for its answer.
#[derive(Clone, Debug)]
pub struct Movement(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    at: Instant,
    /// Whose turn it is.
    turn: Turn,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// The node takes bytes.
    Taking,
    /// We look for the next block: that has a deadline of its own.
    Looking,
    /// The node has everything.
    Answering,
}

impl Movement {
    /// Something moves now.
    pub fn start() -> Movement {
        Movement(Arc::new(Mutex::new(State { at: Instant::now(), turn: Turn::Taking })))
    }

    fn note(&self, turn: Turn) {
        *self.0.lock() = State { at: Instant::now(), turn };
    }

    /// Returns when nothing has moved for too long, with how long that was.
    async fn stops(&self, silence: Duration) -> Duration {
        loop {
            let (at, limit) = {
                let state = self.0.lock();
                match state.turn {
                    Turn::Taking => (state.at, silence),
                    Turn::Answering => (state.at, silence * AFTERTHOUGHT),
                    Turn::Looking => (Instant::now(), silence),
                }
            };
            if at.elapsed() >= limit {
                return limit;
            }
            tokio::time::sleep_until(at + limit).await;
        }
    }

    /// `chunks` as the body of a request, noting whose turn it is.
    fn watch(
        self,
        chunks: BoxStream<'static, Result<Bytes, std::io::Error>>,
    ) -> impl Stream<Item = Result<Bytes, std::io::Error>> + Send {
        stream::unfold((self, chunks), |(movement, mut chunks)| async move {
            movement.note(Turn::Looking);
            let chunk = chunks.next().await;
            movement.note(if chunk.is_some() { Turn::Taking } else { Turn::Answering });
            Some((chunk?, (movement, chunks)))
        })
    }
}

/// What a node said about a CAR.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Roots that it speaks of, and what went wrong with pinning each; empty when nothing did.
    pub roots: Vec<(Option<BlockId>, String)>,
    /// How many blocks it counted. js-ipfs does not count.
    pub counted: Option<u64>,
}

/// What that means.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Verdict {
    /// It has the blocks and not the pin.
    #[error("it did not pin the flist: {0}")]
    PinFailed(String),
    /// Its answer ended without a word about the root: the import was cut off.
    #[error("it did not say whether it pinned the flist")]
    NoRoot,
    /// It speaks of another root.
    #[error("it pinned something else than the flist")]
    OtherRoot,
    /// It answered before it had everything.
    #[error("it answered before it had all blocks")]
    Early,
    /// It counted other blocks than were sent.
    #[error("it counted {counted} blocks, {sent} were sent")]
    Count {
        /// By the node.
        counted: u64,
        /// By us.
        sent: u64,
    },
}

impl Told {
    /// Whether everything that was `sent` arrived, and `pinned` with it if there was something to pin.
    pub fn judge(&self, sent: Sent, pinned: Option<&BlockId>) -> Result<(), Verdict> {
        if !sent.is_whole {
            return Err(Verdict::Early);
        }
        if let Some(counted) = self.counted
            && counted != sent.blocks
        {
            return Err(Verdict::Count { counted, sent: sent.blocks });
        }
        let Some(root) = pinned else { return Ok(()) };
        match self.roots.as_slice() {
            [] => Err(Verdict::NoRoot),
            [(Some(id), trouble)] if id == root => match trouble.as_str() {
                "" => Ok(()),
                trouble => Err(Verdict::PinFailed(shown(trouble))),
            },
            [..] => Err(Verdict::OtherRoot),
        }
    }
}

/// What the library has no call for.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Import {
    pin_roots: bool,
    stats: bool,
}

impl ApiRequest for Import {
    const PATH: &'static str = "/dag/import";
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Line {
    #[serde(default)]
    root: Option<RootLine>,
    #[serde(default)]
    stats: Option<StatsLine>,
    #[serde(default)]
    message: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RootLine {
    cid: Link,
    #[serde(default)]
    pin_error_msg: String,
}

#[derive(Deserialize)]
struct Link {
    #[serde(rename = "/")]
    cid: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct StatsLine {
    block_count: u64,
}

impl Node {
    /// Streams a CAR to it and returns what it says. With `pin` it is to keep the CAR's root and all below. Nothing may stand
    /// still for longer than `silence`.
    pub async fn import(
        &self,
        car: BoxStream<'static, Result<Bytes, std::io::Error>>,
        pin: bool,
        silence: Duration,
    ) -> Result<Told, RpcError> {
        let movement = Movement::start();
        let body = Body::wrap_stream(movement.clone().watch(car));
        // Without a type js-ipfs refuses the part.
        let part = Part::stream(body)
            .file_name("flist.car")
            .mime_str("application/vnd.ipld.car")
            .expect("it is one");
        let node = self.listening();
        let asked = node.build_base_request(Import { pin_roots: pin, stats: true }, None)?;
        let answer = told(node.request_stream_json(asked.carry(Form::new().part("file", part), &node)?));
        tokio::select! {
            answer = answer => answer,
            waited = movement.stops(silence) => Err(RpcError::Silent { call: CALL, waited }),
        }
    }
}

async fn told(mut lines: impl Stream<Item = Result<Line, RpcError>> + Unpin) -> Result<Told, RpcError> {
    let mut told = Told::default();
    let mut count = 0;
    while let Some(line) = lines.next().await {
        count += 1;
        if count > LINES {
            return Err(RpcError::TooMuch { call: CALL, most: LINES * LINE });
        }
        let line = line?;
        if let Some(message) = line.message {
            return Err(RpcError::Refused { call: CALL, message: shown(&message) });
        }
        told.roots.extend(line.root.map(|root| (block_id(&root.cid.cid), root.pin_error_msg)));
        told.counted = line.stats.map(|stats| stats.block_count).or(told.counted);
    }
    Ok(told)
}

#[cfg(test)]
mod tests {
    use g8_cache::Codec;

    use super::super::answer::tests::said;
    use super::super::bounded::parsed;
    use super::*;

    fn id() -> BlockId {
        BlockId::of(Codec::DagCbor, b"")
    }

    async fn heard(chunks: &'static [&'static str]) -> Result<Told, RpcError> {
        let lines = said(CALL, chunks).lines().map(|line| parsed(CALL, &line?));
        told(lines.boxed()).await
    }

    #[tokio::test]
    async fn an_answer_is_read_line_by_line_wherever_it_is_cut() {
        let told = heard(&[
            "{\"Root\":{\"Cid\":{\"/\":\"bafyreihyrpefhacm6kkp4ql6j6udakdit7g3dmkzfriqfykhjw6cad5lrm\"},\"PinErr",
            "orMsg\":\"\"}}\n\n{\"Stats\":{\"BlockCount\":2,\"BlockBytesCount\":9}}",
        ]);
        let told = told.await.unwrap();
        assert_eq!(told.counted, Some(2));
        assert!(matches!(told.roots.as_slice(), [(Some(_), trouble)] if trouble.is_empty()));
        assert!(matches!(heard(&["<html>"]).await, Err(RpcError::NotAnRpc { .. })));
        let late = heard(&["{\"Message\":\"disk full\",\"Code\":0,\"Type\":\"error\"}\n"]).await;
        assert!(matches!(late, Err(RpcError::Refused { message, .. }) if message == "disk full"));
        assert_eq!(heard(&["\n"]).await.unwrap(), Told::default());
    }

    #[test]
    fn only_a_whole_import_with_a_pin_of_our_root_is_one() {
        let sent = Sent { blocks: 2, bytes: 9, is_whole: true };
        let told = |root: Option<BlockId>, trouble: &str, counted| Told {
            roots: vec![(root, trouble.into())],
            counted,
        };
        let judge = |told: Told| told.judge(sent, Some(&id()));
        assert_eq!(judge(told(Some(id()), "", Some(2))), Ok(()));
        assert_eq!(judge(told(Some(id()), "", None)), Ok(()));
        assert_eq!(
            judge(told(Some(id()), "merkledag: not found", Some(2))),
            Err(Verdict::PinFailed("merkledag: not found".into()))
        );
        assert_eq!(judge(told(Some(id()), "", Some(1))), Err(Verdict::Count { counted: 1, sent: 2 }));
        assert_eq!(judge(told(Some(BlockId::of(Codec::Raw, b"")), "", Some(2))), Err(Verdict::OtherRoot));
        assert_eq!(judge(told(None, "", None)), Err(Verdict::OtherRoot));
        assert_eq!(judge(Told::default()), Err(Verdict::NoRoot));
        assert_eq!(Told::default().judge(sent, None), Ok(()));
        let early = Sent { is_whole: false, ..sent };
        assert_eq!(Told::default().judge(early, None), Err(Verdict::Early));
        assert_eq!(told(Some(id()), "", Some(2)).judge(early, Some(&id())), Err(Verdict::Early));
        let twice = Told { roots: vec![(Some(id()), String::new()); 2], counted: None };
        assert_eq!(judge(twice), Err(Verdict::OtherRoot));
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_an_import_and_looking_for_blocks_does_not() {
        let silence = Duration::from_secs(2);
        let movement = Movement::start();
        assert_eq!(movement.stops(silence).await, silence);
        movement.note(Turn::Looking);
        tokio::time::timeout(silence * 100, movement.stops(silence)).await.unwrap_err();
        movement.note(Turn::Answering);
        let began = Instant::now();
        assert_eq!(movement.stops(silence).await, silence * AFTERTHOUGHT);
        assert_eq!(began.elapsed(), silence * AFTERTHOUGHT);
    }
}
