//! Which core0 this is.

use schemars::JsonSchema;
use serde::Serialize;

/// The version of core0.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Version {
    /// Its release.
    pub version: String,
    /// Branch it was built from; empty when the build does not say.
    pub branch: String,
    /// Revision it was built from; empty when the build does not say.
    pub revision: String,
    /// Built with changes that are in no revision.
    pub dirty: bool,
}

/// What the build said in `G8_BRANCH`, `G8_REVISION` and `G8_DIRTY`.
pub fn version() -> Version {
    Version {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        branch: option_env!("G8_BRANCH").unwrap_or_default().to_owned(),
        revision: option_env!("G8_REVISION").unwrap_or_default().to_owned(),
        dirty: option_env!("G8_DIRTY").is_some_and(|d| !d.is_empty()),
    }
}
