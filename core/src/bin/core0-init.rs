//! PID 1 as a program of its own: `/init` of a machine, and what `core0 init` goes on as.
//!
//! `core0` has the engine linked in, whose relocations and C++ statics are memory in every process of it: 1.2 MiB, of
//! the half MiB that PID 1 may take. This program is the same source without the rest of the library.
//!
//! `core0-init --machine|--namespace [RUN...]`: RUN is what `core0 run` is started with.

#![deny(clippy::print_stderr)]

#[path = "../boot/early.rs"]
mod early;
#[path = "../init.rs"]
mod init;
#[path = "../boot/line.rs"]
#[expect(dead_code, reason = "the manager says more than PID 1 does")]
mod line;
#[path = "../say.rs"]
mod say;

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::ExitCode;

use say::say;

/// Where it is in the image.
const OWN: &str = "/usr/bin/core0-init";

fn main() -> ExitCode {
    if early::is_init_of_initramfs() {
        early::run();
        // From the new root, and with nothing of all that in its memory.
        let error = std::process::Command::new(OWN).args(["--machine", "--boot"]).exec();
        say(format_args!("core0-init: {OWN} cannot be started, and goes on as it is: {error}"));
        return go_on(&["--boot".into()], true);
    }
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
    go_on(&run, machine)
}

fn go_on(run: &[OsString], machine: bool) -> ExitCode {
    match init::run(run, machine).and_then(|down| init::finish(down, machine)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            say(format_args!("core0-init: {e}"));
            ExitCode::FAILURE
        }
    }
}
