//! The mount as programs see it: one file a family of system calls.

#[path = "posix/names.rs"]
mod names;
#[path = "posix/reading.rs"]
mod reading;
#[path = "posix/refusals.rs"]
mod refusals;
#[path = "posix/rights.rs"]
mod rights;
#[path = "posix/stacking.rs"]
mod stacking;
