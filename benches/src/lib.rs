//! The comparison with other tools, and what it shares with the demo: running programs, a Debian tree, a mount that
//! always goes away.

pub mod compare;
pub mod debian;
pub mod flist;
pub mod machine;
pub mod run;
pub mod stop;
