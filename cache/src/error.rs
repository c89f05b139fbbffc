//! Why a read gave no bytes. Which errno that becomes is for the edge that answers the kernel.
//!
//! | variant | what a caller can do |
//! |---|---|
//! | `NotFound` | add a source; trying again does not help |
//! | `Wrong` | distrust the sources named in it |
//! | `Unavailable`, `TimedOut` | try again; nothing was remembered |
//! | `Damaged` | distrust the flist: the bytes are right and do not decode as it says |

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::block::WrongBytes;
use crate::codec::DecodeError;
use crate::id::BlockId;
use crate::origin::FetchError;

/// Why there are no bytes.
#[derive(Clone, Debug, thiserror::Error)]
pub enum GetError {
    /// Every source works and none has the block; or there is no source.
    #[error("no source has block {id}{said}")]
    NotFound {
        /// The block.
        id: BlockId,
        /// Answers of the sources.
        said: SaidList,
    },
    /// No source failed, and those that had the block offered wrong bytes.
    #[error("only wrong bytes were offered for block {id}{said}")]
    Wrong {
        /// The block.
        id: BlockId,
        /// Answers of the sources.
        said: SaidList,
    },
    /// At least one source did not work, and no other had the block.
    #[error("block {id} is not available now{said}")]
    Unavailable {
        /// The block.
        id: BlockId,
        /// Answers of the sources.
        said: SaidList,
    },
    /// The caller's deadline passed first.
    #[error("block {id} did not come within {waited:?}{said}")]
    TimedOut {
        /// The block.
        id: BlockId,
        /// How long the caller waited.
        waited: Duration,
        /// Trouble that sources had meanwhile, with any block.
        said: SaidList,
    },
    /// The bytes are proven and still do not decode as described.
    #[error("block {id} does not decode as its flist says")]
    Damaged {
        /// The block.
        id: BlockId,
        /// What is wrong.
        #[source]
        source: DecodeError,
    },
    /// The fetch ended without an answer: an origin panicked, or the runtime shuts down.
    #[error("the fetch of block {id} was aborted")]
    Aborted {
        /// The block.
        id: BlockId,
    },
}

impl GetError {
    /// The verdict over what every source said.
    pub(crate) fn from_answers(id: BlockId, said: Vec<Said>) -> GetError {
        let transient = said.iter().any(|one| one.refused.is_transient());
        let lied = said.iter().any(|one| one.refused.is_lie());
        let said = SaidList(said.into());
        match (transient, lied) {
            (true, _) => GetError::Unavailable { id, said },
            (false, true) => GetError::Wrong { id, said },
            (false, false) => GetError::NotFound { id, said },
        }
    }
}

/// Why one source gave no right bytes.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Refused {
    /// It gave none.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// It gave others.
    #[error(transparent)]
    Wrong(#[from] WrongBytes),
    /// It gave wrong ones for this id before and was not asked.
    #[error("gave wrong bytes before")]
    LiedBefore,
    /// It gave too many wrong ones, and others are asked.
    #[error("is set aside for wrong bytes")]
    SetAside,
    /// It was given up on.
    #[error("did not answer within {0:?}")]
    TimedOut(Duration),
}

impl Refused {
    /// Whether the same question may be answered later.
    fn is_transient(&self) -> bool {
        self.may_pass() || matches!(self, Refused::Fetch(FetchError::Unfit(_)))
    }

    /// Whether the same question may be answered in a moment, without anybody doing something about it.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Refused::Fetch(FetchError::Unavailable(_) | FetchError::Busy(_)) | Refused::TimedOut(_) => true,
            Refused::Fetch(FetchError::NotFound | FetchError::Unfit(_) | FetchError::TooLarge(_))
            | Refused::Wrong(_)
            | Refused::LiedBefore
            | Refused::SetAside => false,
        }
    }

    /// It and its causes; there is no chain of errors above it that would tell them.
    pub(crate) fn told(&self) -> String {
        let mut told = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            told.push_str(&format!(": {error}"));
            cause = error.source();
        }
        told
    }

    /// Whether the source offered what cannot be the block.
    pub(crate) fn is_lie(&self) -> bool {
        match self {
            Refused::Fetch(FetchError::TooLarge(_))
            | Refused::Wrong(_)
            | Refused::LiedBefore
            | Refused::SetAside => true,
            Refused::Fetch(
                FetchError::NotFound
                | FetchError::Unavailable(_)
                | FetchError::Busy(_)
                | FetchError::Unfit(_),
            )
            | Refused::TimedOut(_) => false,
        }
    }
}

/// What one source said.
#[derive(Clone, Debug)]
pub struct Said {
    /// The source.
    pub spec: Arc<str>,
    /// Its answer.
    pub refused: Refused,
}

/// What every source said, in the order of the answers. A clone shares it.
#[derive(Clone, Debug, Default)]
pub struct SaidList(Arc<[Said]>);

impl FromIterator<Said> for SaidList {
    fn from_iter<I: IntoIterator<Item = Said>>(said: I) -> SaidList {
        SaidList(said.into_iter().collect())
    }
}

impl std::ops::Deref for SaidList {
    type Target = [Said];

    fn deref(&self) -> &[Said] {
        &self.0
    }
}

impl fmt::Display for SaidList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Said { spec, refused }) in self.iter().enumerate() {
            f.write_str(if index == 0 { ": " } else { "; " })?;
            write!(f, "{spec} {}", refused.told())?;
        }
        Ok(())
    }
}
