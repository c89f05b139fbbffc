//! What the demo and the comparisons share: running programs, a Debian tree, a mount that always goes away.

pub mod debian;
pub mod flist;
pub mod machine;
pub mod run;
