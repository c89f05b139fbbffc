//! Where blocks come from: the one trait that the layers above implement.

use std::error::Error;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::block::{StoredBlock, TooLarge};
use crate::id::BlockId;

/// What an origin was told to expect, for as long as it is held.
pub type Expected = Box<dyn Send + Sync>;

/// A place that gives bytes for ids. It is believed in nothing: what it gives is verified by whoever asked.
#[async_trait]
pub trait Origin: Send + Sync {
    /// The spec string it was made from, such as `dir:/var/lib/g8os`; for logs and counters, so without secrets.
    fn spec(&self) -> &str;

    /// Gives the bytes of `id`. The future may be dropped at any point, when another source was faster or the time
    /// is over. Reading must stop at [`crate::MAX_STORED`] bytes, and the bytes must not be a slice of a much larger
    /// buffer: the memory tier holds on to them and counts their length alone.
    async fn fetch(&self, id: &BlockId) -> Result<StoredBlock, FetchError>;

    /// Is told that the flist `root` is about to be opened, so [`Origin::fetch`] will be called for it, if it is not here yet,
    /// and then for what it links to first. An origin that can ask for all of that at once gives something to hold until the
    /// flist is open. It asks for nothing before it is asked for the root.
    fn expect(&self, root: &BlockId) -> Option<Expected> {
        let _ = root;
        None
    }

    /// Whether [`Origin::read_range`] works: part of a block costs it less than the whole.
    fn reads_ranges(&self) -> bool {
        false
    }

    /// Gives the bytes `range` of `id`, which are at most a block. For frames of blocks that were proven before; whatever
    /// goes wrong, the whole block is fetched, so the reason of an error is told to nobody.
    async fn read_range(&self, id: &BlockId, range: Range<u64>) -> Result<Bytes, FetchError> {
        let _ = (id, range);
        Err(FetchError::NotFound)
    }

    /// Whether its blocks are worth a place in the disk tier: not those of a store on this machine, unless asked.
    fn keep(&self) -> bool;

    /// Whether others run it, behind a network. Then a failure may pass by itself, and the read waits for that as long as
    /// it can; and wrong blocks are held against it.
    fn is_remote(&self) -> bool {
        false
    }
}

/// Why an origin gave nothing.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FetchError {
    /// It works and does not have the block: ask another one.
    #[error("does not have it")]
    NotFound,
    /// It did not work this time: ask another one, and this one again later.
    #[error("is unavailable")]
    Unavailable(#[source] Arc<dyn Error + Send + Sync>),
    /// It works and asks to be left in peace for so long: ask another one.
    #[error("asks to wait {0:?}")]
    Busy(Duration),
    /// It answers, but not as a source of blocks: a wrong address, or one that wants to know who asks. Whether it ever will
    /// is not for this read to find out.
    #[error("cannot be used")]
    Unfit(#[source] Arc<dyn Error + Send + Sync>),
    /// It offered more bytes than a block has: it is broken or hostile.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
}

impl FetchError {
    /// Trouble of any kind, from an error or a text.
    pub fn unavailable(cause: impl Into<Box<dyn Error + Send + Sync>>) -> FetchError {
        FetchError::Unavailable(Arc::from(cause.into()))
    }

    /// Not a source at all, for a reason that an error or a text tells.
    pub fn unfit(cause: impl Into<Box<dyn Error + Send + Sync>>) -> FetchError {
        FetchError::Unfit(Arc::from(cause.into()))
    }
}

impl From<std::io::Error> for FetchError {
    fn from(error: std::io::Error) -> FetchError {
        match error.kind() {
            std::io::ErrorKind::NotFound => FetchError::NotFound,
            _ => FetchError::unavailable(error),
        }
    }
}
