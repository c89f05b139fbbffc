//! Builds the bootable images of a node, as anybody and without mounting anything.
//!
//! [`build`] is the whole line: a [`recipe`] names files of Debian packages, a [`lock`] says which versions, [`apt`] and
//! [`store`] bring them, [`pool`] is where their files are looked for, [`assemble`] takes those that are wanted with all
//! that they need, [`cpio`] writes them down, and [`media`] makes what a machine boots from. [`serve`]
//! hands it out over HTTP.

pub mod apt;
pub mod assemble;
pub mod build;
pub mod cli;
pub mod cpio;
pub mod elf;
pub mod lock;
mod manifest;
pub mod media;
pub mod modules;
pub mod pool;
pub mod recipe;
pub mod report;
pub mod resolve;
pub mod serve;
pub mod store;
pub mod system;
pub mod tool;
pub mod tree;
