//! Bytes as HTTP hands them out: with a strong validator, and in parts (RFC 9110, 13 and 14).

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Response, StatusCode};
use sha2::{Digest, Sha256};

use crate::lock::hex;

/// Digits of a validator.
const ETAG: usize = 32;

/// The body of an answer.
pub type Answer = Full<Bytes>;

/// Something that is served.
#[derive(Clone, Debug)]
pub struct Content {
    bytes: Bytes,
    kind: &'static str,
    name: &'static str,
    etag: String,
}

impl Content {
    /// Bytes of a kind, under the name that they are saved by.
    pub fn new(bytes: Bytes, kind: &'static str, name: &'static str) -> Self {
        let etag = format!("\"{}\"", &hex(&Sha256::digest(&bytes))[..ETAG]);
        Self { bytes, kind, name, etag }
    }

    /// Bytes whose validator is known.
    pub fn with_etag(bytes: Bytes, kind: &'static str, name: &'static str, etag: &str) -> Self {
        Self { bytes, kind, name, etag: format!("\"{etag}\"") }
    }

    /// The answer to a request with these headers.
    pub fn answer(&self, headers: &HeaderMap) -> Response<Answer> {
        let header = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let matches = |list: &str| {
            list.split(',').any(|tag| tag.trim().trim_start_matches("W/") == self.etag || tag.trim() == "*")
        };
        if header(header::IF_NONE_MATCH).is_some_and(matches) {
            return self.with(StatusCode::NOT_MODIFIED, Bytes::new(), None);
        }
        // A part of what the client has not the rest of is of no use to it.
        let same = header(header::IF_RANGE).is_none_or(|tag| tag == self.etag);
        match header(header::RANGE).filter(|_| same).and_then(|range| part(range, self.bytes.len() as u64)) {
            None => self.with(StatusCode::OK, self.bytes.clone(), None),
            Some(Err(NoSuchPart)) => self.with(
                StatusCode::RANGE_NOT_SATISFIABLE,
                Bytes::new(),
                Some(format!("bytes */{}", self.bytes.len())),
            ),
            Some(Ok((first, last))) => {
                let part = self.bytes.slice(first as usize..=last as usize);
                let place = format!("bytes {first}-{last}/{}", self.bytes.len());
                self.with(StatusCode::PARTIAL_CONTENT, part, Some(place))
            }
        }
    }

    fn with(&self, status: StatusCode, bytes: Bytes, place: Option<String>) -> Response<Answer> {
        let mut response = Response::new(Answer::new(bytes));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        let mut set = |name, text: &str| {
            headers.insert(name, HeaderValue::from_str(text).expect("digits, and texts of our own"));
        };
        set(header::ETAG, &self.etag);
        set(header::ACCEPT_RANGES, "bytes");
        set(header::CONTENT_TYPE, self.kind);
        set(header::CONTENT_DISPOSITION, &format!("attachment; filename=\"{}\"", self.name));
        if let Some(place) = place {
            set(header::CONTENT_RANGE, &place);
        }
        response
    }
}

/// A part that begins behind the end.
#[derive(Debug, PartialEq, Eq)]
struct NoSuchPart;

/// The first and the last byte that are asked for; `None` for all, as for several parts at once and for what is no range.
fn part(range: &str, length: u64) -> Option<Result<(u64, u64), NoSuchPart>> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let number =
        |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
    let (first, last) = match (first.is_empty(), last.is_empty()) {
        (true, true) => return None,
        (true, false) => (length.saturating_sub(number(last)?), if number(last)? == 0 { 0 } else { length }),
        (false, true) => (number(first)?, length),
        (false, false) => (number(first)?, number(last)?.checked_add(1)?),
    };
    if last != 0 && last <= first && first < length {
        return None;
    }
    let last = last.min(length);
    Some(if first < last { Ok((first, last - 1)) } else { Err(NoSuchPart) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_those_of_the_standard() {
        let cases = [
            ("bytes=0-0", Some(Ok((0, 0)))),
            ("bytes=2-", Some(Ok((2, 9)))),
            ("bytes=-3", Some(Ok((7, 9)))),
            ("bytes=-30", Some(Ok((0, 9)))),
            ("bytes=5-99", Some(Ok((5, 9)))),
            ("bytes=10-", Some(Err(NoSuchPart))),
            ("bytes=99-100", Some(Err(NoSuchPart))),
            ("bytes=-0", Some(Err(NoSuchPart))),
            ("bytes=5-2", None),
            ("bytes=-", None),
            ("bytes=0-1,4-5", None),
            ("bytes=+1-2", None),
            ("bytes=0-18446744073709551615", None),
            ("lines=0-1", None),
        ];
        for (range, expected) in cases {
            assert_eq!(part(range, 10), expected, "{range}");
        }
        assert_eq!(part("bytes=0-", 0), Some(Err(NoSuchPart)));
    }
}
