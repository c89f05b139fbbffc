//! `core0`, the shell of a node around the flist engine: PID 1, services, jobs, redis, containers.
//!
//! No role of it exists yet. The program says so instead of pretending: what works today is `flist`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let version = env!("CARGO_PKG_VERSION");
    match std::env::args().nth(1).as_deref() {
        Some("--version") => {
            println!("core0 {version}");
            ExitCode::SUCCESS
        }
        Some(_) | None => {
            eprintln!("core0 {version} has no roles yet: pack, mount and run images with `flist`");
            ExitCode::from(2)
        }
    }
}
