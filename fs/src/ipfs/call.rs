//! Calls over connections that are kept: what is asked often, what streams, and what the library has no call for.
//!
//! Every call is a POST. Bodies are read up to a bound and not further, nothing is redirected, and no URL gets into an error.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::{RequestBuilder, Response, StatusCode};
use serde::de::DeserializeOwned;

use super::Node;
use super::error::RpcError;

/// Most bytes of an answer that is not a block.
const ANSWER: usize = 256 << 10;
/// How much longer we wait than we ask the node to work.
const MARGIN: Duration = Duration::from_millis(500);
/// How long a node that refused may take to say why: what it is asked may have no end, and this must.
const EXPLAINS: Duration = Duration::from_secs(5);

impl Node {
    /// A call with its arguments, ready to be sent.
    pub(super) fn post(&self, call: &'static str, query: &[(&str, &str)]) -> RequestBuilder {
        let request = self.http.post(self.address.call(call)).query(query);
        match self.address.credentials() {
            Some((user, password)) => request.basic_auth(user, Some(password)),
            None => request,
        }
    }

    /// Asks for one JSON document, which the node may think about for `limit`.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        call: &'static str,
        query: &[(&str, &str)],
        limit: Duration,
    ) -> Result<T, RpcError> {
        let body = self.bytes(call, query, limit, ANSWER).await?;
        serde_json::from_slice(&body).map_err(|error| RpcError::strange(call, error))
    }

    /// The body of an answer of at most `most` bytes.
    pub(super) async fn bytes(
        &self,
        call: &'static str,
        query: &[(&str, &str)],
        limit: Duration,
        most: usize,
    ) -> Result<Bytes, RpcError> {
        let time = format!("{}ms", limit.as_millis());
        let request = self.post(call, query).query(&[("timeout", &time)]);
        let answer = async {
            let response = request.send().await.map_err(|error| RpcError::gone(call, error.without_url()))?;
            body(call, judge(call, response).await?, most).await
        };
        let waited = limit + MARGIN;
        tokio::time::timeout(waited, answer).await.map_err(|_| RpcError::Silent { call, waited })?
    }
}

/// Whether an answer is one of the node, and no refusal.
pub(super) async fn judge(call: &'static str, response: Response) -> Result<Response, RpcError> {
    let status = response.status();
    if status == StatusCode::OK {
        let kind = response.headers().get(CONTENT_TYPE).map(|kind| kind.as_bytes().to_ascii_lowercase());
        if kind.is_some_and(|kind| kind.starts_with(b"text/html")) {
            return Err(RpcError::strange(call, "it answered with a web page"));
        }
        return Ok(response);
    }
    let wait = response.headers().get(RETRY_AFTER).and_then(|wait| wait.to_str().ok()?.trim().parse().ok());
    let body = match tokio::time::timeout(EXPLAINS, body(call, response, ANSWER)).await {
        Ok(Ok(body)) => body,
        // The status alone has to do.
        Ok(Err(_)) | Err(_) => Bytes::new(),
    };
    Err(RpcError::of(call, status, wait.map(Duration::from_secs), &body))
}

/// The body, and never more of it than `most`.
pub(super) async fn body(call: &'static str, mut response: Response, most: usize) -> Result<Bytes, RpcError> {
    let announced = response.content_length().unwrap_or_default();
    let too_much = || RpcError::TooMuch { call, most };
    if announced > most as u64 {
        return Err(too_much());
    }
    let mut bytes = Vec::with_capacity(announced as usize);
    while let Some(chunk) =
        response.chunk().await.map_err(|error| RpcError::gone(call, error.without_url()))?
    {
        if bytes.len() + chunk.len() > most {
            return Err(too_much());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.into())
}
