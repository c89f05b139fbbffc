//! `make soak`: everything at once for ten minutes, or `--minutes N`; `--seed N` does the same things again.

use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use harness::soak::{self, Options};

const USAGE: &str = "soak [--minutes N] [--seed N]";

fn main() -> ExitCode {
    let Some(options) = options(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    eprintln!("soak for {:?} with seed {}", options.length, options.seed);
    let report = soak::run(options);
    println!("{report}");
    ExitCode::from(u8::from(report.has_violations()))
}

fn options(mut arguments: impl Iterator<Item = String>) -> Option<Options> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut options = Options { length: Duration::from_secs(600), seed: now.as_secs() };
    while let Some(name) = arguments.next() {
        let value: u64 = arguments.next()?.parse().ok()?;
        match name.as_str() {
            "--minutes" => options.length = Duration::from_secs(value.checked_mul(60)?),
            "--seed" => options.seed = value,
            _ => return None,
        }
    }
    Some(options)
}
