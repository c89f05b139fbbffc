//! `std::io` and `std::error` under the name that old crates of multiformats ask for.

pub use std::{error, io};
