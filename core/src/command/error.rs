//! Why a command failed: a stable code for programs, a message for people.

use std::error::Error;

/// The codes of results, as HTTP numbers them. They never change their meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The arguments are missing, mistyped or out of bounds: 400.
    BadRequest,
    /// The caller's role does not allow it: 403.
    Forbidden,
    /// What the command is about is not there: 404.
    NotFound,
    /// This node cannot do it in this way: 406.
    NotAcceptable,
    /// What it would make is there already, or is in the way: 409.
    Conflict,
    /// The state of the node does not allow it, like a disk in use: 412.
    Precondition,
    /// A tool or the system failed: 500.
    Internal,
    /// Not now: interrupted, overloaded, stopping: 503.
    Unavailable,
}

impl Code {
    /// All of them, by number.
    pub const ALL: [Self; 8] = [
        Self::BadRequest,
        Self::Forbidden,
        Self::NotFound,
        Self::NotAcceptable,
        Self::Conflict,
        Self::Precondition,
        Self::Internal,
        Self::Unavailable,
    ];

    /// What it means, for the reference.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::BadRequest => "the arguments are missing, mistyped or out of bounds",
            Self::Forbidden => "the caller's role does not allow it",
            Self::NotFound => "what it is about is not there",
            Self::NotAcceptable => "this node cannot do it in this way",
            Self::Conflict => "something is there already, or in the way",
            Self::Precondition => "the state of the node does not allow it",
            Self::Internal => "a tool or the system failed",
            Self::Unavailable => "not now: interrupted, overloaded or stopping",
        }
    }

    /// The number in a result.
    pub const fn number(self) -> u32 {
        match self {
            Self::BadRequest => 400,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::NotAcceptable => 406,
            Self::Conflict => 409,
            Self::Precondition => 412,
            Self::Internal => 500,
            Self::Unavailable => 503,
        }
    }
}

/// Most bytes of a report: it may repeat an argument of two megabytes.
const REPORT_MAX: usize = 500;

/// Why a command failed. The message says what, why and what next; `stderr` is what a tool complained.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct CommandError {
    code: Code,
    message: String,
    stderr: String,
    #[source]
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl CommandError {
    /// An error with this code.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), stderr: String::new(), source: None }
    }

    /// 400: the arguments are wrong.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(Code::BadRequest, message)
    }

    /// 403: the caller may not.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(Code::Forbidden, message)
    }

    /// 404: it is not there.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Code::NotFound, message)
    }

    /// 406: not on this node, or not like this.
    pub fn not_acceptable(message: impl Into<String>) -> Self {
        Self::new(Code::NotAcceptable, message)
    }

    /// 409: something is in the way.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(Code::Conflict, message)
    }

    /// 412: not in this state.
    pub fn precondition(message: impl Into<String>) -> Self {
        Self::new(Code::Precondition, message)
    }

    /// 500: a tool or the system failed.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Code::Internal, message)
    }

    /// 503: not now.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Code::Unavailable, message)
    }

    /// 500, by a defect of core0.
    pub fn internal_because(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::internal("the command ended in a defect of core0").because(source)
    }

    /// Adds the cause.
    pub fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Adds what a tool wrote to its standard error; the result shows it as `streams[1]`.
    pub fn with_stderr(mut self, stderr: impl Into<String>) -> Self {
        self.stderr = stderr.into();
        self
    }

    /// The stable code.
    pub fn code(&self) -> Code {
        self.code
    }

    /// What a tool complained.
    pub fn stderr(&self) -> &str {
        &self.stderr
    }

    /// The message and its causes on one line. Of a long one the middle is left out: what failed is at its beginning, and why at
    /// its end.
    pub fn report(&self) -> String {
        let mut report = self.message.clone();
        let mut cause = self.source();
        while let Some(error) = cause {
            report.push_str(": ");
            report.push_str(&error.to_string());
            cause = error.source();
        }
        if report.len() > REPORT_MAX {
            let head = report.floor_char_boundary(REPORT_MAX / 2);
            let tail = report.ceil_char_boundary(report.len() - REPORT_MAX / 2);
            report.replace_range(head..tail, " ... ");
        }
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_has_every_cause_once() {
        let io = std::io::Error::other("disk gone");
        let error = CommandError::internal("cannot write /etc/hosts").because(io);
        assert_eq!(error.report(), "cannot write /etc/hosts: disk gone");
        assert_eq!((error.code().number(), error.to_string().as_str()), (500, "cannot write /etc/hosts"));
    }

    #[test]
    fn a_report_that_repeats_two_megabytes_is_short_and_keeps_what_failed_and_why() {
        for argument in ["x".repeat(2 << 20), "ä€😀".repeat(200_000)] {
            let error = CommandError::not_found(format!("no job {argument} runs"));
            let report = error.because(std::io::Error::other("gone")).report();
            assert!(report.starts_with("no job ") && report.ends_with(" runs: gone"), "{report}");
            assert!(report.contains(" ... ") && report.len() <= REPORT_MAX + " ... ".len(), "{report}");
        }
    }
}
