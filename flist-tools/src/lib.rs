//! `flist`: the command line of flists.
//!
//! [`cli`] declares every command and option once; help, man pages and completions come from it. Each verb is one file
//! in [`commands`]. What they share: [`session`] opens an image without a daemon, [`defaults`] says where things are,
//! [`output`] prints, [`progress`] draws bars. Containers are `g8-container`'s.

pub mod cli;
pub mod commands;
mod defaults;
pub mod exit;
mod network;
mod output;
mod progress;
mod session;
