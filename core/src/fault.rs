//! Faults that a test asks for: a step that fails, or at which a process is killed. Builds without debug assertions, as
//! every release, have nothing of it.
//!
//! A test names a file in `CORE0_FAULT` and writes `fail N` or `kill PID N` into it. Each [`step`] counts N down, in the
//! manager and in the spawner; at the last one the file says `at` and the step's words instead, and it happens.

/// A step that failed because a test wanted it to.
#[derive(Debug, thiserror::Error)]
#[error("cannot {0}: a test has it fail")]
pub struct Fault(&'static str);

impl Fault {
    /// The step, in words that follow "cannot".
    pub fn what(&self) -> &'static str {
        self.0
    }
}

/// Stands before what may fail; `what` follows the word "cannot".
#[cfg(debug_assertions)]
pub fn step(what: &'static str) -> Result<(), Fault> {
    let Some(file) = std::env::var_os("CORE0_FAULT") else { return Ok(()) };
    // Without one nothing is wanted.
    let wanted = std::fs::read_to_string(&file).unwrap_or_default();
    let words: Vec<&str> = wanted.split_whitespace().collect();
    let (victim, left) = match words[..] {
        ["fail", left] => (None, left.parse::<u32>().ok()),
        ["kill", pid, left] => (pid.parse().ok().and_then(rustix::process::Pid::from_raw), left.parse().ok()),
        _ => return Ok(()),
    };
    let left = left.unwrap_or_default();
    if left > 1 {
        let rest = words[..words.len() - 1].join(" ");
        std::fs::write(&file, format!("{rest} {}", left - 1)).expect("the test's file can be written");
        return Ok(());
    }
    std::fs::write(&file, format!("at {what}")).expect("the test's file can be written");
    let Some(victim) = victim else { return Err(Fault(what)) };
    rustix::process::kill_process(victim, rustix::process::Signal::KILL).expect("it is there");
    // Nothing happens any more in who was killed, and whoever killed another goes on.
    while victim == rustix::process::getpid() {
        std::thread::park();
    }
    Ok(())
}

/// Stands before what may fail.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn step(_what: &'static str) -> Result<(), Fault> {
    Ok(())
}
