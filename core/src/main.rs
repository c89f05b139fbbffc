//! The program `core0`: its first argument says which process of a node it is.

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
