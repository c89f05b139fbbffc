//! Files of the node: the ones that callers hold open, and what can be done to a path.
//!
//! Everything here blocks and is called on threads for that. A caller may name any path: this is the administration of the
//! node, not a jail. What is bounded is what a caller can make the node hold: files, bytes, entries of a list.

mod error;
mod files;
mod mode;
mod names;
mod paths;
mod tree;

pub use error::FilesystemError;
pub use files::{BLOCK, Files, open_file, read_block};
pub use mode::OpenMode;
pub use names::{group, user};
pub use paths::{Entry, exists, list, make_dir, move_to, remove};
pub use tree::{Depth, change_mode, change_owner};
