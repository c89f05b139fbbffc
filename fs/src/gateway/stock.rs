//! What a gateway has to give.

use std::time::{Duration, Instant};

use g8_cache::error::SaidList;
use g8_cache::{BlockId, Cache, Class, GetError, Sources, VerifiedBlock};

/// Where the blocks of a gateway come from, and how long one may take. A clone is the same.
#[derive(Clone)]
pub struct Stock {
    cache: Cache,
    /// None are asked when there are none: a block that is not in the cache is not here.
    sources: Option<Sources>,
    deadline: Duration,
}

impl Stock {
    /// All that `sources` have. `cache` remembers what was asked for last.
    pub fn of_sources(cache: Cache, sources: Sources, deadline: Duration) -> Stock {
        Stock { cache, sources: Some(sources), deadline }
    }

    /// What `cache` holds as a whole, and nothing else: who asks makes it neither fetch nor keep anything.
    pub fn of_cache(cache: Cache, deadline: Duration) -> Stock {
        Stock { cache, sources: None, deadline }
    }

    /// A block, proven.
    pub(super) async fn get(&self, id: BlockId, class: Class) -> Result<VerifiedBlock, GetError> {
        let Some(sources) = &self.sources else {
            let held = tokio::time::timeout(self.deadline, self.cache.held(id)).await;
            let said = SaidList::default();
            return match held {
                Ok(Some(block)) => Ok(block),
                Ok(None) => Err(GetError::NotFound { id, said }),
                Err(_) => Err(GetError::TimedOut { id, waited: self.deadline, said }),
            };
        };
        self.cache.get_object(id, sources, class.until(Instant::now() + self.deadline)).await
    }
}
