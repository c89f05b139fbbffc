//! The cache from outside: promises that its callers rely on, each with the fault that would break it.

mod allocations;
mod classes;
mod cost;
mod damage;
mod disk;
mod expected;
mod faults;
mod flights;
mod followed;
mod full_disk;
mod harness;
mod held;
mod live_list;
mod memory;
mod remote;
mod sealed;
