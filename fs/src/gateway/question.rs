//! What a request asks for, or why it is refused.

use cid::Cid;
use g8_cache::{BadId, BlockId, Codec};
use hyper::header::{ACCEPT, CONTENT_LENGTH, HeaderMap, IF_NONE_MATCH, TRANSFER_ENCODING};
use hyper::{Method, Request, StatusCode};
use url::form_urlencoded;

/// Media types of a block and of a CAR.
pub(super) const RAW: &str = "application/vnd.ipld.raw";
pub(super) const CAR: &str = "application/vnd.ipld.car";

/// No CID of ours is half as long.
const MAX_CID: usize = 200;

/// Which form an answer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Raw,
    Car,
}

/// How much of the DAG below a CID a CAR has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    Block,
    All,
}

/// What is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// The empty identity CID, by which clients find out whether this is a gateway.
    Probe,
    Block(BlockId),
    Car(BlockId, Scope),
}

/// A request that can be answered.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) ask: Ask,
    pub(super) form: Form,
    /// The CID in its canonical spelling.
    pub(super) cid: Cid,
    /// Whether the URL alone says which form is wanted; else caches must look at `Accept` too.
    pub(super) by_url: bool,
    if_none_match: Vec<String>,
}

/// Why there is no answer but this.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) what: String,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, what: impl Into<String>) -> Refusal {
        Refusal { status, what: what.into() }
    }

    pub(super) fn busy() -> Refusal {
        Refusal::new(StatusCode::TOO_MANY_REQUESTS, "too many requests at a time, come back in a second")
    }

    fn bad(what: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::BAD_REQUEST, what)
    }

    fn unacceptable(what: impl Into<String>) -> Refusal {
        Refusal::new(StatusCode::NOT_ACCEPTABLE, what)
    }
}

impl Question {
    pub(super) fn of<B>(request: &Request<B>) -> Result<Question, Refusal> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "blocks can be read, by GET and HEAD"));
        }
        let headers = request.headers();
        let has_body = headers.contains_key(TRANSFER_ENCODING)
            || headers.get(CONTENT_LENGTH).is_some_and(|length| length.as_bytes() != b"0");
        if has_body {
            return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "a request for a block has no body"));
        }
        let no_such_place = || Refusal::new(StatusCode::NOT_FOUND, "blocks are at /ipfs/CID?format=raw");
        let below = request.uri().path().strip_prefix("/ipfs/").ok_or_else(no_such_place)?;
        let (cid, path) = below.split_once('/').unwrap_or((below, ""));
        if !path.is_empty() {
            return Err(Refusal::bad("paths below a CID are not followed: ask for the CID itself"));
        }
        let query: Vec<(String, String)> =
            form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes())
                .map(|(key, value)| (key.into_owned(), value.into_owned()))
                .collect();
        let of_query = |key: &str| query.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str());
        let (form, by_url) = match of_query("format") {
            Some("raw") => (Form::Raw, true),
            Some("car") => (Form::Car, true),
            Some(other) => {
                return Err(Refusal::unacceptable(format!("format {other:?} is neither raw nor car")));
            }
            None => (accepted(headers)?, false),
        };
        if form == Form::Car {
            can_write(of_query("car-version"), of_query("car-order"), of_query("car-dups"))?;
        }
        let cid = parse(cid)?;
        let ask = match (identify(&cid)?, form) {
            (None, _) => Ask::Probe,
            (Some(id), Form::Raw) => Ask::Block(id),
            (Some(id), Form::Car) => Ask::Car(id, scope(of_query("dag-scope"), of_query("entity-bytes"))?),
        };
        let tags = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
        let if_none_match =
            tags.flat_map(|list| list.split(',')).map(|tag| tag.trim().trim_start_matches("W/").to_owned());
        Ok(Question { ask, form, cid, by_url, if_none_match: if_none_match.collect() })
    }

    /// Names the bytes of the answer: what a CID names never changes.
    pub(super) fn etag(&self) -> String {
        match self.ask {
            Ask::Car(id, Scope::All) => format!("\"{id}.all.dfs.n.car\""),
            Ask::Car(id, Scope::Block) => format!("\"{id}.block.dfs.n.car\""),
            Ask::Block(_) | Ask::Probe => match self.form {
                Form::Raw => format!("\"{}.raw\"", self.cid),
                Form::Car => format!("\"{}.car\"", self.cid),
            },
        }
    }

    /// Whether the client has the answer already.
    pub(super) fn is_known(&self) -> bool {
        self.if_none_match.contains(&self.etag())
    }
}

fn parse(text: &str) -> Result<Cid, Refusal> {
    if text.is_empty() || text.len() > MAX_CID {
        return Err(Refusal::bad("what stands behind /ipfs/ is not a CID"));
    }
    Cid::try_from(text).map_err(|_| Refusal::bad("what stands behind /ipfs/ is not a CID"))
}

/// The block of a CID; `None` for the probe.
fn identify(cid: &Cid) -> Result<Option<BlockId>, Refusal> {
    const IDENTITY: u64 = 0;
    if cid.hash().code() == IDENTITY && cid.codec() == Codec::Raw.code() && cid.hash().digest().is_empty() {
        return Ok(None);
    }
    match BlockId::try_from(cid) {
        Ok(id) => Ok(Some(id)),
        Err(error @ (BadId::Version | BadId::Codec(_) | BadId::Hash(_))) => {
            Err(Refusal::new(StatusCode::NOT_FOUND, format!("no flist has such a block: {error}")))
        }
        Err(error @ (BadId::Syntax(_) | BadId::DigestLen(_) | BadId::Spelling(_))) => {
            Err(Refusal::bad(error.to_string()))
        }
    }
}

/// For what is no UnixFS, an entity is its block.
fn scope(scope: Option<&str>, entity_bytes: Option<&str>) -> Result<Scope, Refusal> {
    match (scope, entity_bytes) {
        (Some("block" | "entity"), _) | (None, Some(_)) => Ok(Scope::Block),
        (Some("all") | None, _) => Ok(Scope::All),
        (Some(other), _) => {
            Err(Refusal::bad(format!("dag-scope {other:?} is none of block, entity and all")))
        }
    }
}

/// We write one kind of CAR.
fn can_write(version: Option<&str>, order: Option<&str>, dups: Option<&str>) -> Result<(), Refusal> {
    let all =
        [("version", version, ["1", "1"]), ("order", order, ["dfs", "unk"]), ("dups", dups, ["n", "n"])];
    for (what, wanted, known) in all {
        if let Some(wanted) = wanted.filter(|wanted| !wanted.is_empty() && !known.contains(wanted)) {
            return Err(Refusal::unacceptable(format!(
                "CARs come with version=1, order=dfs, dups=n, not with {what}={wanted}"
            )));
        }
    }
    Ok(())
}

/// What `Accept` likes most of what there is.
fn accepted(headers: &HeaderMap) -> Result<Form, Refusal> {
    let values: Vec<&str> = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    if values.is_empty() {
        return Err(Refusal::bad("say what you want: ?format=raw or ?format=car"));
    }
    let mut best: Option<(f32, Form)> = None;
    let mut refused =
        Refusal::unacceptable(format!("there are {RAW} and {CAR}: say ?format=raw or ?format=car"));
    for range in values.iter().flat_map(|value| value.split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let form = match parts.next().unwrap_or_default().to_ascii_lowercase().as_str() {
            RAW => Form::Raw,
            CAR => Form::Car,
            _ => continue,
        };
        let parameters: Vec<(&str, &str)> = parts.filter_map(|part| part.split_once('=')).collect();
        let of = |key: &str| {
            let found = parameters.iter().find(|(k, _)| k.trim().eq_ignore_ascii_case(key));
            found.map(|(_, value)| value.trim().trim_matches('"'))
        };
        let quality = of("q").map_or(1.0, |q| q.parse().unwrap_or(0.0));
        if form == Form::Car
            && let Err(refusal) = can_write(of("version"), of("order"), of("dups"))
        {
            refused = refusal;
        } else if quality > best.map_or(0.0, |(most, _)| most) {
            best = Some((quality, form));
        }
    }
    best.map(|(_, form)| form).ok_or(refused)
}
