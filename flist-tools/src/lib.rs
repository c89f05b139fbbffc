//! `flist`: the command line of flists.
//!
//! [`cli`] declares every command and option once; help, man pages and completions come from it. Each verb is one file
//! in [`commands`]. What they share: [`session`] opens an image without a daemon, [`defaults`] says where things are,
//! [`output`] prints, [`progress`] draws bars, [`container`] runs a command in an image.

pub mod cli;
pub mod commands;
pub mod container;
mod defaults;
pub mod exit;
mod network;
mod output;
mod progress;
mod session;
