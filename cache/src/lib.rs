//! Blocks by content: prove, keep, hand out. Knows no files, no FUSE, no protocol.
//!
//! The straight line of a read, one screen each, in this order:
//!
//! 1. [`desc`]: what a caller knows of a block before it has it; [`id`]: its name; [`class`]: how urgent it is.
//! 2. [`cache`]: memory tier, disk tier, else join the one flight for the missing block.
//! 3. [`sources`], [`source`], [`origin`]: the ordered list of one mount, the record of each, where bytes come from;
//!    `standing` decides who of them is asked first.
//! 4. [`block`]: `StoredBlock -> VerifiedBlock -> PlainFrame`, the types that carry the proof; [`codec`] decodes.
//! 5. `memory`, `disk`: the two tiers. `disk` is merely the nearest origin that nobody trusts.
//!
//! Beside it: `workers` bounds what hashes and decodes, and `gate` decides who of those that wait is next.

#![forbid(unsafe_code)]

pub mod block;
pub mod cache;
pub mod class;
pub mod codec;
pub mod desc;
mod disk;
pub mod error;
mod gate;
pub mod id;
mod memory;
pub mod metrics;
pub mod origin;
pub mod source;
pub mod sources;
mod standing;
mod workers;

pub use block::{PlainBlock, PlainFrame, StoredBlock, TooLarge, VerifiedBlock, WrongBytes};
pub use cache::{
    Cache, CacheConfig, CacheStats, DiskState, DiskStats, Hit, HitStats, MemoryStats, OpenError,
};
pub use class::{Class, Terms};
pub use codec::{DecodeError, EncodeError, EncodeOptions, EncodedBlock, Encoder};
pub use desc::{BadDesc, BlockDesc, FrameSpan, MAX_STORED, MIN_FRAME_LEN, OwnedBlockDesc};
pub use error::{GetError, Refused, Said};
pub use id::{BadId, BlockId, Codec};
pub use origin::{Expected, FetchError, Origin};
pub use source::{Source, SourceStats};
pub use sources::{AddError, MAX_SOURCES, RemoveError, Sources, WeakSources};
