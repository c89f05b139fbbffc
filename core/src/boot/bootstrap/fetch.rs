//! Fetches a bootstrap file and its signature over HTTP. The server is a stranger: both are bounded in bytes and time, and
//! nothing of them is believed here.

use std::time::Duration;

use g8_fs::source::{FileError, fetch_file};
use url::Url;

use super::judge::Signed;
use super::{document, signature};

/// How long each may take, from the name to the last byte.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why there is no file.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// It does not come.
    #[error("{url}: {source}")]
    File {
        /// What was asked for.
        url: Url,
        /// Why not.
        source: FileError,
    },
    /// A signature is text.
    #[error("{0}: it is no text")]
    NoText(Url),
}

/// Fetches both.
pub async fn fetch(url: &Url) -> Result<Signed, FetchError> {
    fetch_within(url, PATIENCE).await
}

pub(super) async fn fetch_within(url: &Url, patience: Duration) -> Result<Signed, FetchError> {
    let mut beside = url.clone();
    beside.set_path(&format!("{}.minisig", url.path()));
    let get = async |url: &Url, most| {
        let file = fetch_file(url, most, patience).await;
        file.map_err(|source| FetchError::File { url: url.clone(), source })
    };
    let bytes = get(url, document::FILE_MAX).await?;
    let signature = get(&beside, signature::FILE_MAX).await?;
    let signature = String::from_utf8(signature).map_err(|_| FetchError::NoText(beside))?;
    Ok(Signed { bytes, signature })
}
