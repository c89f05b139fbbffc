//! `core0`: a thin shell around the flist engine. One program, several processes, told apart by their first argument.
//!
//! A command travels `queue -> job -> command -> domain`: [`queue`] takes it from redis, [`job`] runs it, [`command`]
//! has one struct per command. [`context`] is what a command may use of its node.

#![deny(clippy::print_stderr)]

pub mod argument;
pub mod boot;
pub mod cli;
pub mod command;
pub mod config;
pub mod context;
pub mod domain;
pub mod fault;
pub mod gateway;
pub mod init;
pub mod job;
pub mod log;
pub mod manager;
pub mod paths;
pub mod process;
pub mod publish;
pub mod queue;
pub mod redis;
pub mod say;
pub mod schema;
pub mod service;
pub mod spawner;
pub mod sys;
pub mod wire;
