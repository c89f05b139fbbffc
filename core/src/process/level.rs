//! The levels of messages that a process prints, as `LEVEL::text` or `LEVEL:::` to `:::` around several lines.

/// A line of standard output.
pub const STDOUT: u16 = 1;
/// A line of standard error.
pub const STDERR: u16 = 2;

/// A warning.
pub const WARNING: u16 = 7;
/// A statistic: [`Metric`](super::Metric).
pub const METRIC: u16 = 10;

/// Whether a number is a level that a process may use; other numbers before `::` are text, like an address is.
pub fn is_known(level: u16) -> bool {
    matches!(level, 1..=11 | 20..=23 | 30)
}

/// Whether such a message is the job's result.
pub fn is_result(level: u16) -> bool {
    matches!(level, 20..=23 | 30)
}
