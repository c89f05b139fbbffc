//! PID 1 as a program of its own: what `core0 init` goes on as.
//!
//! `core0` has the engine linked in, whose relocations and C++ statics are memory in every process of it: 1.2 MiB, of
//! the half MiB that PID 1 may take. This program is the same source without the rest of the library.
//!
//! `core0-init --machine|--namespace [RUN...]`: RUN is what `core0 run` is started with.

#![deny(clippy::print_stderr)]

#[path = "../init.rs"]
mod init;
#[path = "../say.rs"]
mod say;

use std::ffi::OsString;
use std::process::ExitCode;

use say::say;

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    let machine = match words.next().as_deref().and_then(|word| word.to_str()) {
        Some("--machine") => true,
        Some("--namespace") => false,
        Some(_) | None => {
            say(format_args!("core0-init: use `core0 init`"));
            return ExitCode::from(2);
        }
    };
    if std::process::id() != 1 {
        say(format_args!("core0-init: only PID 1 can reap everybody: use `core0 run`"));
        return ExitCode::from(2);
    }
    let run: Vec<OsString> = words.collect();
    match init::run(&run, machine).and_then(|down| init::finish(down, machine)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            say(format_args!("core0-init: {e}"));
            ExitCode::FAILURE
        }
    }
}
