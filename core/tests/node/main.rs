//! A node as a process: `core0 run --dev` with its real redis, driven as a client drives it.

mod bad_input;
mod config;
mod container_arguments;
mod container_daemons;
mod container_ends;
mod container_escapes;
mod container_images;
mod container_inside;
mod container_layers;
mod container_networks;
mod container_sources;
mod container_stalls;
mod container_steps;
mod containers;
mod crowds;
mod cuts;
mod dev;
mod domains;
mod faults;
mod flists;
mod gateway;
mod harness;
#[path = "../image.rs"]
mod image;
mod init;
mod jobs;
mod lifecycle;
mod logs;
mod loud;
mod old_client;
mod place;
mod power;
mod redis_server;
mod services;
mod spawner;
mod terminals;
mod users;
#[path = "../python/venv.rs"]
mod venv;
mod wire;
