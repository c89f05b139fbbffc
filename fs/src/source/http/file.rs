//! Plain small files over HTTP, by the client that fetches blocks: the same redirects, certificates and bounds.

use std::error::Error;
use std::time::Duration;

use url::Url;

use super::client::{ClientError, Way, build};
use crate::reference::Reach;

/// Why a file did not come.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// No client can be made.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Nobody answers, the connection breaks, or a redirect is refused.
    #[error("no answer: {0}")]
    NoAnswer(String),
    /// Another status than 200.
    #[error("the server answers {0}")]
    Status(u16),
    /// It is longer than it may be.
    #[error("it has more than {0} bytes")]
    Long(usize),
    /// It takes too long.
    #[error("it is not here after {0:?}")]
    Slow(Duration),
}

/// Fetches a file of `most` bytes within `patience`. Whatever comes is a stranger's.
pub async fn fetch_file(url: &Url, most: usize, patience: Duration) -> Result<Vec<u8>, FileError> {
    let way = match url.scheme() {
        "https" => Way::Encrypted(Reach::Anywhere),
        _ => Way::Plain(Reach::Anywhere),
    };
    let client = build(way)?;
    let fetched = async {
        let mut response = client.get(url.clone()).send().await.map_err(no_answer)?;
        if response.status() != reqwest::StatusCode::OK {
            return Err(FileError::Status(response.status().as_u16()));
        }
        let mut bytes = Vec::new();
        while let Some(part) = response.chunk().await.map_err(no_answer)? {
            if bytes.len() + part.len() > most {
                return Err(FileError::Long(most));
            }
            bytes.extend_from_slice(&part);
        }
        Ok(bytes)
    };
    tokio::time::timeout(patience, fetched).await.unwrap_or(Err(FileError::Slow(patience)))
}

/// The last cause: the others say that a request failed.
fn no_answer(error: reqwest::Error) -> FileError {
    let mut cause: &dyn Error = &error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    FileError::NoAnswer(cause.to_string())
}
