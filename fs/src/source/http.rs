//! `http://` and `https://`: a trustless gateway, which gives blocks by their CIDs and is trusted in nothing.
//!
//! One block is one `GET BASE/ipfs/CID?format=raw`. Connections are kept and used again; there are no cookies, no
//! compression and no proxies. Whoever answers is a stranger: the body is read up to the size of a block and not further,
//! what takes longer than the try is given up by whoever asked, and a redirect leads at most three steps and never from
//! https to http. A gateway that a reference hints at (`hint:URL`) is followed to public addresses only, at every redirect and
//! every look-up of a name. What the answers mean:
//!
//! | answer | is |
//! |---|---|
//! | 200 with a block's type, or without any | the bytes, still to be proven |
//! | 404, 410 | the block is not there |
//! | 429, 503 with `Retry-After` | busy: asked again when it says, at the latest after 10 s |
//! | another 5xx, 408, 425, no answer, half an answer | not available now: asked again |
//! | HTML, a login, another status, a bad certificate, a bad redirect | no gateway: not asked again for this read |
//!
//! While an flist is opened, its root is asked for with all below it (`?format=car`), and map and tree are taken from the
//! beginning of that answer (`bulk`): one round trip instead of two. It is a shortcut and nothing more:
//!
//! | answer to `?format=car` | is |
//! |---|---|
//! | 200 with the type of a CAR, and the root in it first | root, map and tree, each still to be proven; cut off after them |
//! | anything else, or none within a second | no shortcut; no failure of the source |
//! | a CAR that ends, stalls or goes on with something else | what came; the rest is asked for block by block |

mod address;
mod bulk;
mod client;
mod file;
mod resolver;
#[cfg(test)]
mod tests;
mod warm;

use std::error::Error;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use g8_cache::{BlockId, Expected, FetchError, MAX_STORED, Origin, StoredBlock, TooLarge};
use reqwest::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode};

use crate::reference::Reach;
use crate::reference::public::NotPublic;
pub use address::{BadAddress, Gateway};
use bulk::Bulk;
pub use client::ClientError;
pub(crate) use client::{Way, build, is_about_tls};
pub use file::{FileError, fetch_file};
use warm::Warm;

/// Media type of a block.
const RAW: &str = "application/vnd.ipld.raw";
/// That of bytes nobody knows more about, as static file servers say it.
const BYTES: &str = "application/octet-stream";
/// Most that a gateway may ask us to wait.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// A gateway as one of the sources of a mount.
#[derive(Debug)]
pub(super) struct HttpSource {
    /// How it is named to people: without credentials.
    spec: String,
    gateway: Gateway,
    client: Client,
    warm: Warm,
    bulk: Bulk,
}

impl HttpSource {
    /// The gateway, named `spec` to people, asked no further than `reach`.
    pub(super) fn new(spec: String, gateway: &Gateway, reach: Reach) -> Result<Self, ClientError> {
        let way = if gateway.is_encrypted() { Way::Encrypted(reach) } else { Way::Plain(reach) };
        Self::by(way, spec, gateway.clone())
    }

    /// The gateway that listens on a unix socket, named `spec` to people.
    pub(super) fn on_socket(spec: String, socket: &Path) -> Result<Self, ClientError> {
        Self::by(Way::Socket(socket), spec, Gateway::nowhere())
    }

    /// The gateway at one address, which leads nowhere else; named `spec` to people.
    pub(super) fn at(spec: String, address: SocketAddr) -> Result<Self, ClientError> {
        Self::by(Way::Neighbour(address), spec, Gateway::at_port(address.port()))
    }

    fn by(way: Way<'_>, spec: String, gateway: Gateway) -> Result<Self, ClientError> {
        Ok(HttpSource {
            spec,
            gateway,
            client: client::build(way)?,
            warm: Warm::of(way),
            bulk: Bulk::default(),
        })
    }
}

#[async_trait]
impl Origin for HttpSource {
    fn spec(&self) -> &str {
        &self.spec
    }

    fn keep(&self) -> bool {
        true
    }

    fn is_remote(&self) -> bool {
        true
    }

    fn expect(&self, root: &BlockId) -> Option<Expected> {
        self.bulk.expect(root)
    }

    async fn fetch(&self, id: &BlockId) -> Result<StoredBlock, FetchError> {
        self.warm.up(&self.client, &self.gateway);
        let car = || self.client.get(self.gateway.car(id)).header(ACCEPT, bulk::CAR_IN_ORDER);
        if let Some(block) = self.bulk.take(id, car).await {
            return Ok(block?);
        }
        let request = self.client.get(self.gateway.block(id)).header(ACCEPT, RAW);
        let response = request.send().await.map_err(failed)?;
        let bytes = body(judge(response)?, id).await?;
        Ok(StoredBlock::new(*id, bytes)?)
    }
}

/// Whether an answer brings a block.
fn judge(response: Response) -> Result<Response, FetchError> {
    let status = response.status();
    let told = || format!("HTTP status {status}");
    match status {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND | StatusCode::GONE => return Err(FetchError::NotFound),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            return Err(match wait_asked_for(&response) {
                Some(wait) => FetchError::Busy(wait),
                None => FetchError::unavailable(told()),
            });
        }
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY => return Err(FetchError::unavailable(told())),
        _ if status.is_server_error() => return Err(FetchError::unavailable(told())),
        _ => return Err(FetchError::unfit(told())),
    }
    let essence = media_type(&response);
    match essence.as_str() {
        RAW | BYTES | "" => Ok(response),
        _ => {
            // What a stranger sends is shown, but not all of it.
            let shown: String = essence.chars().filter(|c| !c.is_control()).take(60).collect();
            Err(FetchError::unfit(format!("is not a trustless gateway: it answered with {shown}")))
        }
    }
}

/// What an answer says it is, without parameters.
fn media_type(response: &Response) -> String {
    let kind = response.headers().get(CONTENT_TYPE);
    let kind = kind.map(|kind| String::from_utf8_lossy(kind.as_bytes()).into_owned()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// `Retry-After` in seconds; the other form, a date, asks for more than we would wait anyway.
fn wait_asked_for(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(WAIT_MAX))
}

/// The body, and never more of it than a block has.
async fn body(mut response: Response, id: &BlockId) -> Result<Bytes, FetchError> {
    let announced = response.content_length();
    if let Some(len) = announced.filter(|len| *len > MAX_STORED as u64) {
        return Err(TooLarge { id: *id, len }.into());
    }
    let mut bytes = Vec::with_capacity(announced.unwrap_or_default() as usize);
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        if bytes.len() + chunk.len() > MAX_STORED {
            return Err(TooLarge { id: *id, len: (bytes.len() + chunk.len()) as u64 }.into());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(Bytes::from(bytes))
}

/// Why there was no answer. The URL stays out of it: it has the credentials, and the reader knows it.
fn failed(error: reqwest::Error) -> FetchError {
    let error = error.without_url();
    if error.is_redirect() || is_about_tls(&error) || leads_astray(&error) {
        return FetchError::unfit(error);
    }
    FetchError::unavailable(error)
}

/// A name that leads where it may not does so again.
fn leads_astray(error: &(dyn Error + 'static)) -> bool {
    error.is::<NotPublic>() || error.source().is_some_and(leads_astray)
}
