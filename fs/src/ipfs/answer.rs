//! What a node answers: judged by its head, and read within bounds of bytes and time.
//!
//! A status of 200 is not the last word: what goes wrong later is said in a trailer, and something else than a node may answer.
//! No URL gets into an error.

use std::sync::OnceLock;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures::stream::{self, Stream};
use http_0_2::HeaderMap as OldHeaders;
use http_body_util::BodyExt;
use hyper::body::Body as _;
use reqwest::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use reqwest::{Body, Response, StatusCode};
use tokio::time::{Instant, timeout, timeout_at};

use super::error::{RpcError, message};

/// Most bytes of an answer that is neither a block nor a list of lines.
pub(super) const ANSWER: usize = 256 << 10;
/// Most bytes of one line.
pub(super) const LINE: usize = 64 << 10;
/// How much longer we wait than the node is told.
const MARGIN: Duration = Duration::from_millis(500);
/// How long a node that refused may take to say why: what it is asked may have no end, and this must.
const EXPLAINS: Duration = Duration::from_secs(5);
/// Where a node says what went wrong after it had begun with 200.
const TROUBLE: &str = "x-stream-error";

/// What an answer may cost.
#[derive(Clone, Copy)]
pub(super) struct Bound {
    /// What was asked.
    pub(super) call: &'static str,
    /// Bytes of an answer that is no list of lines.
    pub(super) most: usize,
    /// When it was asked.
    pub(super) began: Instant,
    /// What the node was told; without, who reads the lines looks at the clock.
    pub(super) limit: Option<Duration>,
}

impl Bound {
    pub(super) async fn in_time<T>(
        self,
        work: impl Future<Output = Result<T, RpcError>>,
    ) -> Result<T, RpcError> {
        let Some(limit) = self.limit else { return work.await };
        let waited = limit + MARGIN;
        let work = timeout_at(self.began + waited, work).await;
        work.map_err(|_| RpcError::Silent { call: self.call, waited })?
    }
}

/// An answer of a node that did not refuse, of which the body is still to be read.
pub(super) struct Answer {
    bound: Bound,
    headers: HeaderMap,
    /// The same, once the library asked for one.
    old: OnceLock<OldHeaders>,
    body: Body,
}

impl Answer {
    /// Whether an answer is one of a node, and no refusal.
    pub(super) async fn judge(response: Response, bound: Bound) -> Result<Answer, RpcError> {
        let (head, body) = hyper::Response::<Body>::from(response).into_parts();
        let mut answer = Answer { bound, headers: head.headers, old: OnceLock::new(), body };
        if head.status != StatusCode::OK {
            return Err(answer.refusal(head.status).await);
        }
        let kind = answer.headers.get(CONTENT_TYPE).map(|kind| kind.as_bytes().to_ascii_lowercase());
        if kind.is_some_and(|kind| kind.starts_with(b"text/html")) {
            return Err(RpcError::strange(bound.call, "it answered with a web page"));
        }
        match trouble(&answer.headers) {
            Some(message) => Err(RpcError::Refused { call: bound.call, message }),
            None => Ok(answer),
        }
    }

    async fn refusal(&mut self, status: StatusCode) -> RpcError {
        let wait = self.headers.get(RETRY_AFTER).and_then(|wait| wait.to_str().ok()?.trim().parse().ok());
        let body = match timeout(EXPLAINS, self.collect(ANSWER)).await {
            Ok(Ok(body)) => body,
            // The status alone has to do.
            Ok(Err(_)) | Err(_) => Bytes::new(),
        };
        RpcError::of(self.bound.call, status, wait.map(Duration::from_secs), &body)
    }

    pub(super) fn call(&self) -> &'static str {
        self.bound.call
    }

    /// A header as the library knows them.
    pub(super) fn header(&self, name: &http_0_2::HeaderName) -> Option<&http_0_2::HeaderValue> {
        let old = self.old.get_or_init(|| {
            let pairs = self.headers.iter().filter_map(|(name, value)| {
                let name = http_0_2::HeaderName::from_bytes(name.as_str().as_bytes()).ok()?;
                Some((name, http_0_2::HeaderValue::from_bytes(value.as_bytes()).ok()?))
            });
            pairs.collect()
        });
        old.get(name)
    }

    /// The body, and never more of it than its bound.
    pub(super) async fn whole(mut self) -> Result<Bytes, RpcError> {
        self.bound.in_time(self.collect(self.bound.most)).await
    }

    async fn collect(&mut self, most: usize) -> Result<Bytes, RpcError> {
        let call = self.bound.call;
        let announced = self.body.size_hint().exact().unwrap_or_default();
        if announced > most as u64 {
            return Err(RpcError::TooMuch { call, most });
        }
        let mut bytes = Vec::with_capacity(announced as usize);
        while let Some(chunk) = self.chunk().await? {
            if bytes.len() + chunk.len() > most {
                return Err(RpcError::TooMuch { call, most });
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes.into())
    }

    /// The next bytes. What the node says at their end against them is an error.
    async fn chunk(&mut self) -> Result<Option<Bytes>, RpcError> {
        let call = self.bound.call;
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(|error| RpcError::unheard(call, error))?;
            match frame.into_data() {
                Ok(bytes) => return Ok(Some(bytes)),
                Err(frame) => {
                    if let Some(message) = frame.trailers_ref().and_then(trouble) {
                        return Err(RpcError::Refused { call, message });
                    }
                }
            }
        }
        Ok(None)
    }

    /// The lines of the body, without empty ones; none is longer than [`LINE`], and no more bytes of empty ones stand between two.
    pub(super) fn lines(self) -> impl Stream<Item = Result<Bytes, RpcError>> + Send + 'static {
        stream::try_unfold((self, BytesMut::new()), |(mut answer, mut rest)| async move {
            let mut empty = 0;
            loop {
                if let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                    let line = rest.split_to(end).freeze();
                    rest.advance(1);
                    if !line.trim_ascii().is_empty() {
                        return Ok(Some((line, (answer, rest))));
                    }
                    empty += line.len() + 1;
                    if empty <= LINE {
                        continue;
                    }
                }
                if rest.len() + empty > LINE {
                    return Err(RpcError::TooMuch { call: answer.call(), most: LINE });
                }
                match answer.chunk().await? {
                    Some(chunk) => rest.extend_from_slice(&chunk),
                    None if rest.trim_ascii().is_empty() => return Ok(None),
                    None => return Ok(Some((rest.split().freeze(), (answer, rest)))),
                }
            }
        })
    }
}

/// What a node says in a header or a trailer to have gone wrong: kubo in plain words, js-ipfs in JSON.
fn trouble(headers: &HeaderMap) -> Option<String> {
    let words = headers.get(TROUBLE)?.as_bytes();
    Some(message(words).unwrap_or_else(|| super::error::shown(&String::from_utf8_lossy(words))))
}

#[cfg(test)]
pub(super) mod tests {
    use futures::StreamExt;

    use super::*;

    /// What a node that says `chunks` answers.
    pub(in super::super) fn said(call: &'static str, chunks: &[&'static str]) -> Answer {
        let chunks = chunks.iter().map(|chunk| Ok::<_, std::io::Error>(Bytes::from_static(chunk.as_bytes())));
        let body = Body::wrap_stream(stream::iter(chunks.collect::<Vec<_>>()));
        let bound = Bound { call, most: ANSWER, began: Instant::now(), limit: None };
        Answer { bound, headers: HeaderMap::new(), old: OnceLock::new(), body }
    }

    #[tokio::test]
    async fn lines_are_the_same_wherever_an_answer_is_cut() {
        let lines = said("refs/local", &["a\n", "\n\n b", "b\nc"]).lines();
        let lines: Vec<_> = lines.map(Result::unwrap).collect().await;
        assert_eq!(lines, ["a", " bb", "c"]);
    }

    #[tokio::test]
    async fn a_body_is_read_up_to_its_bound_and_not_further() {
        const KIB: &str = include_str!("answer.rs");
        let chunk = &KIB[..1024];
        let exact = said("version", &[chunk; ANSWER >> 10]).whole().await.unwrap();
        assert_eq!(exact.len(), ANSWER);
        let more = said("version", &[chunk; (ANSWER >> 10) + 1]).whole().await;
        assert!(matches!(more, Err(RpcError::TooMuch { call: "version", most: ANSWER })), "{more:?}");
    }

    #[test]
    fn trouble_is_told_in_the_words_of_either_node() {
        let told = |words: &'static str| {
            trouble(&HeaderMap::from_iter([(TROUBLE.parse().unwrap(), words.parse().unwrap())]))
        };
        assert_eq!(told("disk full").unwrap(), "disk full");
        assert_eq!(told(r#"{"Message":"disk full","Code":0}"#).unwrap(), "disk full");
        assert_eq!(trouble(&HeaderMap::new()), None);
    }
}
