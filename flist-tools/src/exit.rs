//! From an error to what the user sees and the exit code that scripts see.
//!
//! 0 success, 1 the user or the data, 2 usage (clap's own), 3 a bug of ours. `flist run` differs: 125 when flist failed,
//! 126 and 127 as a shell, else the code of the command.

use std::io::{self, Write};
use std::process::ExitCode;

/// An exit code that is not an error to be told: the code of a command that ran, or of a check that found something.
#[derive(Debug, thiserror::Error)]
#[error("exit code {0}")]
pub struct Quiet(pub u8);

/// Wraps the error of a command that has an exit code of its own for failing.
#[derive(Debug, thiserror::Error)]
#[error("{source:#}")]
pub struct WithCode {
    /// The code.
    pub code: u8,
    /// What went wrong.
    pub source: anyhow::Error,
}

/// Tells the error, if there is one, and says how to exit.
pub fn code(result: anyhow::Result<()>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    if let Some(Quiet(code)) = error.downcast_ref() {
        return ExitCode::from(*code);
    }
    // Nobody reads any more: what a shell reports for a writer whose pipe was closed.
    if error.chain().any(is_broken_pipe) {
        return ExitCode::from(141);
    }
    let (code, error) = match error.downcast::<WithCode>() {
        Ok(with) => (with.code, with.source),
        Err(error) => (1, error),
    };
    // When stderr is closed too there is nobody left to tell.
    let _ = writeln!(io::stderr(), "flist: error: {}", text(&error));
    ExitCode::from(code)
}

fn is_broken_pipe(error: &(dyn std::error::Error + 'static)) -> bool {
    let kind = match (error.downcast_ref::<io::Error>(), error.downcast_ref::<serde_json::Error>()) {
        (Some(error), _) => Some(error.kind()),
        (None, Some(error)) => error.io_error_kind(),
        (None, None) => None,
    };
    kind == Some(io::ErrorKind::BrokenPipe)
}

/// The error and its causes on one line, without those that only repeat what was said.
fn text(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let part = cause.to_string();
        if text.ends_with(&part) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&part);
    }
    text
}
