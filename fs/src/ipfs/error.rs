//! Why a node did not do what it was asked, told apart by what the caller can do about it.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use ipfs_api_prelude::ApiError;
use reqwest::StatusCode;
use serde::Deserialize;

use crate::source::is_about_tls;

/// What the library finds wrong by itself, where it does not say with which call.
const SOME_CALL: &str = "/api/v0";
/// Most characters of what a node says that are repeated.
const SHOWN: usize = 300;
/// Most that a node may ask us to wait before we come again.
const PEACE: Duration = Duration::from_secs(30);

/// Why a call brought nothing. The name of the node is for the caller to tell.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RpcError {
    /// Nobody answers, or the answer broke off: it may work again in a moment.
    #[error("{call}: no answer")]
    Gone {
        /// What was asked.
        call: &'static str,
        /// Why not.
        #[source]
        source: Arc<dyn Error + Send + Sync>,
    },
    /// Its certificate is not to be trusted, or it does not encrypt as it must; neither passes by itself.
    #[error("{call}: no connection that can be trusted")]
    Untrusted {
        /// What was asked.
        call: &'static str,
        /// What is wrong.
        #[source]
        source: Arc<dyn Error + Send + Sync>,
    },
    /// It took longer than we wait.
    #[error("{call}: no sign of life for {waited:?}")]
    Silent {
        /// What was asked.
        call: &'static str,
        /// How long we waited.
        waited: Duration,
    },
    /// It is busy, or something in front of it is: it may work again later.
    #[error("{call}: HTTP status {status}")]
    Busy {
        /// What was asked.
        call: &'static str,
        /// What it answered.
        status: StatusCode,
        /// How long it wants to be left in peace.
        wait: Option<Duration>,
    },
    /// It understood and says no.
    #[error("{call}: the node says: {message}")]
    Refused {
        /// What was asked.
        call: &'static str,
        /// Its words.
        message: String,
    },
    /// It began, and did not say that it was done.
    #[error("{call}: the answer ended before the node said that it was done: its log may tell why")]
    CutShort {
        /// What was asked.
        call: &'static str,
    },
    /// It does not have this call.
    #[error("{call}: the node has no such call")]
    Unknown {
        /// What was asked.
        call: &'static str,
    },
    /// It wants to know who asks.
    #[error(
        "{call}: the node wants other credentials (HTTP status {status}): write ipfs:http://USER:PASSWORD@HOST:PORT"
    )]
    Locked {
        /// What was asked.
        call: &'static str,
        /// What it answered.
        status: StatusCode,
    },
    /// It sends more than there can be.
    #[error("{call}: more than {most} bytes came")]
    TooMuch {
        /// What was asked.
        call: &'static str,
        /// The bound.
        most: usize,
    },
    /// What is asked with cannot be sent: it is too long for a URL.
    #[error("{call}: this cannot be asked")]
    Unaskable {
        /// What was asked.
        call: &'static str,
        /// Why not.
        #[source]
        source: Arc<dyn Error + Send + Sync>,
    },
    /// What answers is no RPC of an IPFS node.
    #[error(
        "{call}: this is not the RPC of an IPFS node, which is at port 5001 unless configured otherwise: {what}"
    )]
    NotAnRpc {
        /// What was asked.
        call: &'static str,
        /// What it answered.
        what: String,
    },
}

impl RpcError {
    /// No answer, and no URL in why not.
    pub(super) fn unheard(call: &'static str, error: reqwest::Error) -> RpcError {
        let error = error.without_url();
        match is_about_tls(&error) {
            true => RpcError::Untrusted { call, source: Arc::new(error) },
            false => RpcError::Gone { call, source: Arc::new(error) },
        }
    }

    pub(super) fn unaskable(call: &'static str, cause: impl Error + Send + Sync + 'static) -> RpcError {
        RpcError::Unaskable { call, source: Arc::new(cause) }
    }

    pub(super) fn strange(call: &'static str, what: impl std::fmt::Display) -> RpcError {
        RpcError::NotAnRpc { call, what: shown(&what.to_string()) }
    }

    /// Whether the same call may work in a moment, without anybody doing something about it.
    pub fn may_pass(&self) -> bool {
        match self {
            RpcError::Gone { .. } | RpcError::Silent { .. } | RpcError::Busy { .. } => true,
            RpcError::Refused { .. }
            | RpcError::CutShort { .. }
            | RpcError::Unknown { .. }
            | RpcError::Locked { .. }
            | RpcError::TooMuch { .. }
            | RpcError::Untrusted { .. }
            | RpcError::Unaskable { .. }
            | RpcError::NotAnRpc { .. } => false,
        }
    }

    /// How long it wants to be left in peace, within what anybody may ask of us.
    pub fn peace(&self) -> Duration {
        let RpcError::Busy { wait: Some(wait), .. } = self else { return Duration::ZERO };
        (*wait).min(PEACE)
    }

    /// Whether the node says itself that it does not have what was asked for. The words are all that nodes give.
    pub fn is_missing(&self) -> bool {
        let RpcError::Refused { message, .. } = self else { return false };
        let message = message.to_ascii_lowercase();
        !self.is_late() && ["not found", "could not find"].iter().any(|words| message.contains(words))
    }

    /// Whether time ran out, ours or the node's.
    pub fn is_late(&self) -> bool {
        match self {
            RpcError::Silent { .. } => true,
            RpcError::Refused { message, .. } => {
                let message = message.to_ascii_lowercase();
                ["deadline exceeded", "timed out", "timeout"].iter().any(|words| message.contains(words))
            }
            RpcError::Gone { .. }
            | RpcError::Busy { .. }
            | RpcError::CutShort { .. }
            | RpcError::Unknown { .. }
            | RpcError::Locked { .. }
            | RpcError::TooMuch { .. }
            | RpcError::Untrusted { .. }
            | RpcError::Unaskable { .. }
            | RpcError::NotAnRpc { .. } => false,
        }
    }

    /// Judges an answer that is not 200 by its status and body.
    pub(super) fn of(
        call: &'static str,
        status: StatusCode,
        wait: Option<Duration>,
        body: &[u8],
    ) -> RpcError {
        match (status, message(body)) {
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) => RpcError::Locked { call, status },
            (StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT, _) => {
                RpcError::Busy { call, status, wait }
            }
            // Nodes say all their own trouble with a 500; the others are those of something in front of one.
            (StatusCode::INTERNAL_SERVER_ERROR, Some(message)) => RpcError::Refused { call, message },
            (status, _) if status.is_server_error() => RpcError::Busy { call, status, wait },
            (_, Some(message)) => RpcError::Refused { call, message },
            (StatusCode::NOT_FOUND, None) => RpcError::Unknown { call },
            (status, None) => RpcError::strange(call, format_args!("HTTP status {status}")),
        }
    }
}

impl From<ApiError> for RpcError {
    fn from(said: ApiError) -> RpcError {
        RpcError::Refused { call: SOME_CALL, message: shown(&said.message) }
    }
}

impl From<ipfs_api_prelude::Error> for RpcError {
    fn from(error: ipfs_api_prelude::Error) -> RpcError {
        RpcError::strange(SOME_CALL, error)
    }
}

/// What a node says in its own form of an error.
pub(super) fn message(said: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Said {
        #[serde(rename = "Message")]
        message: String,
    }
    serde_json::from_slice::<Said>(said).ok().map(|said| shown(&said.message))
}

/// Words of a stranger, without what would mislead a terminal and not all of them.
pub(super) fn shown(words: &str) -> String {
    let mut shown: String =
        words.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(SHOWN).collect();
    if words.trim().chars().nth(SHOWN).is_some() {
        shown.push_str(" ...");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_not_200_says_what_can_be_done_about_it() {
        let told = |status: u16, body: &str| {
            RpcError::of("id", StatusCode::from_u16(status).unwrap(), None, body.as_bytes())
        };
        let said = r#"{"Message":"block was not found","Code":0,"Type":"error"}"#;
        assert!(
            matches!(told(500, said), RpcError::Refused { message, .. } if message == "block was not found")
        );
        assert!(matches!(told(404, "404 page not found\n"), RpcError::Unknown { .. }));
        assert!(matches!(told(401, ""), RpcError::Locked { .. }));
        assert!(matches!(told(405, ""), RpcError::NotAnRpc { .. }));
        assert!(matches!(told(502, "<html>"), RpcError::Busy { .. }));
        assert!(told(429, "").may_pass() && !told(500, said).may_pass());
    }

    #[test]
    fn missing_and_late_are_told_apart() {
        let said = |message: &str| RpcError::Refused { call: "block/get", message: message.into() };
        for missing in
            ["block was not found locally (offline): ipld: could not find bafk", "ipld: could not find bafk"]
        {
            assert!(said(missing).is_missing() && !said(missing).is_late());
        }
        for late in [
            "context deadline exceeded",
            "request timed out",
            "ipld: could not find bafk: context deadline exceeded",
        ] {
            assert!(said(late).is_late() && !said(late).is_missing());
        }
    }

    #[test]
    fn words_of_a_node_are_cut_and_harmless() {
        let shown = shown(&format!("\x1b[2J{}", "x".repeat(1000)));
        assert!(shown.len() < 320 && !shown.contains('\x1b'), "{shown}");
    }
}
