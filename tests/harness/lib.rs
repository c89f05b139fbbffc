//! What every integration test stands on: trees to pack, a runner of the binary, and judges of the result.
//!
//! The tests are black boxes: they know the command line, the layout of a `dir:` store, and the kernel, and no crate of ours.

pub mod announcer;
pub mod car;
pub mod cid;
pub mod compare;
pub mod connections;
pub mod debian;
pub mod flist;
pub mod gateway;
pub mod guest;
pub mod hanging;
pub mod http;
pub mod idmap;
pub mod ipfs;
pub mod kernel_mount;
pub mod mapping;
pub mod memory_cgroup;
pub mod mode;
pub mod mount_table;
pub mod mounted;
pub mod namespace;
pub mod net;
pub mod oddities;
pub mod operator;
pub mod origin;
pub mod page_cache;
pub mod place;
pub mod prng;
pub mod process;
pub mod publisher;
pub mod random_tree;
pub mod rootfs;
pub mod rpc;
pub mod skip;
pub mod soak;
pub mod status;
pub mod store;
pub mod synthetic;
pub mod tls;
pub mod tmpfs;
pub mod tree;
pub mod wait;
pub mod walk;

pub use announcer::Announcer;
pub use flist::Flist;
pub use gateway::Gateway;
pub use ipfs::Kubo;
pub use mode::Mode;
pub use mounted::Mounted;
pub use net::{Lan, Node};
pub use operator::Operator;
pub use origin::Origin;
pub use place::Place;
pub use prng::SplitMix64;
pub use process::Outcome;
pub use rpc::Rpc;

/// Arguments of mixed string kinds as one list.
#[macro_export]
macro_rules! args {
    ($($arg:expr),* $(,)?) => { vec![$(std::ffi::OsString::from(AsRef::<std::ffi::OsStr>::as_ref(&$arg))),*] };
}
