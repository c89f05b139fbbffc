//! PID 1 as a program of its own: the same code as `core0 init`, which runs this one when it lies beside it.
//!
//! A large program is large as PID 1 too, for what the loader writes into it: 1.7 MiB of `core0` would be private to a
//! process that does nothing but wait.

use std::process::ExitCode;

use core0::cli::InitArgs;
use core0::init;

fn main() -> ExitCode {
    let words = std::iter::once("init".into()).chain(std::env::args_os().skip(1));
    let Some(args) = InitArgs::plain(words) else {
        eprintln!("core0-init: takes [--machine] [-- ARGUMENTS OF core0 run]");
        return ExitCode::from(2);
    };
    let core0 = std::env::current_exe().map(|own| own.with_file_name("core0"));
    match core0.and_then(|core0| init::init(&core0, &args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("core0-init: {e}");
            ExitCode::FAILURE
        }
    }
}
