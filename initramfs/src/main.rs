//! `initramfs` builds the bootable images that carry `core0`.
//!
//! There is no recipe yet, since there is no `core0` to carry. The program says so instead of pretending.

use std::process::ExitCode;

fn main() -> ExitCode {
    let version = env!("CARGO_PKG_VERSION");
    match std::env::args().nth(1).as_deref() {
        Some("--version") => {
            println!("initramfs {version}");
            ExitCode::SUCCESS
        }
        Some(_) | None => {
            eprintln!("initramfs {version} has no recipes yet");
            ExitCode::from(2)
        }
    }
}
