//! Answers: status, headers, body.

use bytes::Bytes;
use g8_cache::VerifiedBlock;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};

use super::car;
use super::question::{CAR, Form, Question, RAW, Refusal};

/// A body: a block, a text, a stream or nothing.
pub(super) type Body = UnsyncBoxBody<Bytes, car::Broken>;

/// What a CID names never changes, so whoever has it may keep it.
const FOR_EVER: &str = "public, max-age=29030400, immutable";

pub(super) fn block(question: &Question, block: &VerifiedBlock) -> Response<Body> {
    found(question, whole(block.bytes().clone()))
}

pub(super) fn car(question: &Question, body: Body) -> Response<Body> {
    found(question, body)
}

/// The empty block, which is everywhere.
pub(super) fn probe(question: &Question) -> Response<Body> {
    match question.form {
        Form::Raw => found(question, whole(Bytes::new())),
        Form::Car => found(question, whole(crate::car::header(&[question.cid]).into())),
    }
}

pub(super) fn not_modified(question: &Question) -> Response<Body> {
    let mut response = found(question, nothing());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    response
}

pub(super) fn refusal(refusal: &Refusal) -> Response<Body> {
    let mut response = Response::new(whole(Bytes::from(format!("{}\n", refusal.what))));
    *response.status_mut() = refusal.status;
    set(&mut response, header::CONTENT_TYPE, "text/plain; charset=utf-8");
    set(&mut response, header::CACHE_CONTROL, "no-store");
    set(&mut response, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    match refusal.status {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            set(&mut response, header::RETRY_AFTER, "1");
        }
        StatusCode::METHOD_NOT_ALLOWED => set(&mut response, header::ALLOW, "GET, HEAD"),
        // The body that nobody asked for is not read.
        StatusCode::PAYLOAD_TOO_LARGE => set(&mut response, header::CONNECTION, "close"),
        _ => {}
    }
    response
}

/// The same headers, for HEAD.
pub(super) fn without_body(response: Response<Body>) -> Response<Body> {
    use hyper::body::Body as _;
    let (mut parts, body) = response.into_parts();
    if let Some(length) = body.size_hint().exact() {
        parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    Response::from_parts(parts, nothing())
}

fn found(question: &Question, body: Body) -> Response<Body> {
    let cid = &question.cid;
    let (kind, format, ending) = match question.form {
        Form::Raw => (RAW.to_owned(), "raw", "bin"),
        Form::Car => (format!("{CAR}; version=1; order=dfs; dups=n"), "car", "car"),
    };
    let mut response = Response::new(body);
    set(&mut response, header::CONTENT_TYPE, &kind);
    set(&mut response, header::ETAG, &question.etag());
    set(&mut response, header::CACHE_CONTROL, FOR_EVER);
    set(&mut response, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(&mut response, header::CONTENT_DISPOSITION, &format!("attachment; filename=\"{cid}.{ending}\""));
    set(&mut response, HeaderName::from_static("x-ipfs-path"), &format!("/ipfs/{cid}"));
    if !question.by_url {
        set(&mut response, header::VARY, "Accept");
        set(&mut response, header::CONTENT_LOCATION, &format!("/ipfs/{cid}?format={format}"));
    }
    response
}

fn set(response: &mut Response<Body>, name: HeaderName, value: &str) {
    // CIDs, numbers and our own words: all of them can stand in a header.
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

fn whole(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

fn nothing() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}
