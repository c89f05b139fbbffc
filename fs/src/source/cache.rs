//! `cache:FOLDER`, what the cache of another process of this user holds: a trustless gateway on a unix socket.
//!
//! It is opened by name for each connection, so it is found again when the daemon was replaced. Its blocks are proven as
//! those of any source are: what may be trusted is in the other process, and not on the way from there.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use g8_cache::{BlockId, FetchError, Origin, Source, StoredBlock};

use super::http::{ClientError, HttpSource};
use crate::daemon::{BLOCKS_SOCKET, short_path};

/// Why a cache cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum CacheSourceError {
    /// Its folder cannot be opened.
    #[error("opening the folder of the cache")]
    Folder(#[source] std::io::Error),
    /// There is no client for it.
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// The cache of a daemon as a source. It answers while the daemon is held by a [`Link`](crate::daemon::Link).
pub fn cache_source(folder: &Path) -> Result<Arc<Source>, CacheSourceError> {
    let (socket, folder_fd) = short_path(folder, BLOCKS_SOCKET).map_err(CacheSourceError::Folder)?;
    let http = HttpSource::on_socket(format!("cache:{}", folder.display()), &socket)?;
    Ok(Arc::new(Source::new(Arc::new(CacheSource { http, _folder: folder_fd }))))
}

struct CacheSource {
    http: HttpSource,
    /// The path of the socket leads through it.
    _folder: OwnedFd,
}

#[async_trait]
impl Origin for CacheSource {
    fn spec(&self) -> &str {
        self.http.spec()
    }

    async fn fetch(&self, id: &BlockId) -> Result<StoredBlock, FetchError> {
        self.http.fetch(id).await
    }

    fn keep(&self) -> bool {
        false
    }
}
