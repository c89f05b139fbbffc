//! A unit: how a service is started, watched and stopped. One TOML file, named after the service.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::condition;
use crate::process::Process;
use crate::wire::is_name;

/// Most units.
const UNITS: usize = 1024;
/// Longest file.
const FILE_MAX: u64 = 256 << 10;
/// Longest time in a unit, in seconds: a year.
const SECONDS_MAX: f64 = 365.0 * 24.0 * 3600.0;

/// `NAME.toml`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Unit {
    /// Program and arguments. No shell sees them.
    pub exec: Vec<String>,
    /// Services that must be ready before.
    #[serde(default)]
    pub after: Vec<String>,
    /// Runs only where this holds of the kernel's arguments, like `and(a, not(b))`.
    #[serde(default)]
    pub condition: Option<String>,
    /// It ends by itself, and is ready when it ended well.
    #[serde(default)]
    pub one_shot: bool,
    /// Seconds after which a one-shot runs again.
    #[serde(default)]
    pub recurring: Option<f64>,
    /// When it is started again. By default always; a one-shot never.
    #[serde(default)]
    pub restart: Option<Restart>,
    /// How often it is started again without having been well for a minute; 0 is for ever.
    #[serde(default)]
    pub restart_limit: u32,
    /// When it is ready; without this, when it runs.
    #[serde(default)]
    pub ready: Option<Ready>,
    /// Seconds that it may take to be ready; then it is ended, as one that failed.
    #[serde(default = "ready_timeout")]
    pub ready_timeout: f64,
    /// Whether it is well.
    #[serde(default)]
    pub health: Option<Health>,
    /// Variables on top of the node's own.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Folder to start in.
    #[serde(default)]
    pub dir: String,
    /// Most processes and threads of it and all that it starts; `limits.processes_each` of the node when absent.
    #[serde(default)]
    pub processes: Option<std::num::NonZeroU32>,
    /// The signal that ends it.
    #[serde(default = "terminate")]
    pub stop_signal: i32,
    /// Seconds that it may take to end; less when the node ends and has no time for that.
    #[serde(default = "stop_timeout")]
    pub stop_timeout: f64,
}

/// When a service is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// Whenever it ended.
    Always,
    /// When it did not end well.
    OnFailure,
    /// Not at all.
    Never,
}

/// When a service is ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Ready {
    /// When it prints a line with this in it.
    Match(String),
    /// When this port of the loopback takes connections.
    Port(u16),
    /// When it sends `READY=1` to the socket in `NOTIFY_SOCKET`, as sd_notify(3) does.
    Notify,
}

/// Whether a service is well: a program that says so by its exit code.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// Program and arguments.
    pub exec: Vec<String>,
    /// Seconds between two tests, and the longest that one may take.
    pub period: f64,
    /// So many failures in a row end the service; it is then started again.
    #[serde(default = "failures")]
    pub failures: u32,
}

fn terminate() -> i32 {
    libc::SIGTERM
}

fn stop_timeout() -> f64 {
    2.0
}

fn ready_timeout() -> f64 {
    90.0
}

fn failures() -> u32 {
    3
}

/// Why a file is no unit.
#[derive(Debug, thiserror::Error)]
pub enum UnitError {
    /// It cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is no TOML, or has wrong fields.
    #[error("{0}")]
    Parse(String),
    /// Its fields do not go together.
    #[error("{0}")]
    Fault(String),
}

impl Unit {
    /// Reads the text of a unit.
    pub fn parse(text: &str) -> Result<Self, UnitError> {
        let unit: Self = toml::from_str(text).map_err(|e| UnitError::Parse(e.to_string().trim().into()))?;
        match unit.fault() {
            None => Ok(unit),
            Some(fault) => Err(UnitError::Fault(fault)),
        }
    }

    fn fault(&self) -> Option<String> {
        let health = self.health.as_ref();
        let period = health.map(|health| health.period);
        let times = [Some(self.stop_timeout), Some(self.ready_timeout), self.recurring, period];
        let programs = [Some(self.process()), health.map(|health| health.process(self))];
        if let Some(time) = times.into_iter().flatten().find(|time| !(*time > 0.0 && *time <= SECONDS_MAX)) {
            return Some(format!("{time} is not between 0 and {SECONDS_MAX} seconds"));
        }
        if let Some(fault) = programs.into_iter().flatten().find_map(|process| process.fault()) {
            return Some(fault);
        }
        if self.recurring.is_some() && !self.one_shot {
            return Some("recurring is for a one_shot".into());
        }
        if !(1..=64).contains(&self.stop_signal) {
            return Some(format!("stop_signal {} is no signal", self.stop_signal));
        }
        self.condition.as_deref().and_then(|condition| condition::holds(condition, "").err())
    }

    /// What to start.
    pub fn process(&self) -> Process {
        let (argv, env, dir) = (self.exec.clone(), self.env.clone(), self.dir.clone());
        let processes = self.processes.map(|most| u64::from(most.get()));
        Process { argv, env, dir, processes, ..Process::default() }
    }

    /// When it is started again.
    pub fn restart(&self) -> Restart {
        self.restart.unwrap_or(if self.one_shot { Restart::Never } else { Restart::Always })
    }

    /// How long it may take to be ready.
    pub fn ready_timeout(&self) -> Duration {
        Duration::from_secs_f64(self.ready_timeout)
    }

    /// How long it may take to end.
    pub fn stop_timeout(&self) -> Duration {
        Duration::from_secs_f64(self.stop_timeout)
    }
}

impl Health {
    /// The test, in the surroundings of its service.
    pub fn process(&self, unit: &Unit) -> Process {
        Process { argv: self.exec.clone(), ..unit.process() }
    }
}

/// All units of a folder, or what is wrong with one. No folder is no units.
pub fn read_all(dir: &Path) -> Result<BTreeMap<String, Result<Unit, UnitError>>, UnitError> {
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |source| UnitError::Read { path, source }
    };
    let entries = match std::fs::read_dir(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        other => other.map_err(failed(dir))?,
    };
    let mut units = BTreeMap::new();
    for entry in entries {
        let path = entry.map_err(failed(dir))?.path();
        let name = path.file_stem().and_then(|name| name.to_str()).map(str::to_owned);
        match name {
            Some(name) if path.extension().is_some_and(|end| end == "toml") && is_name(&name) => {
                if units.len() >= UNITS {
                    return Err(UnitError::Fault(format!("more than {UNITS} units in {}", dir.display())));
                }
                units.insert(name, read(&path));
            }
            Some(_) | None => {}
        }
    }
    Ok(units)
}

fn read(path: &Path) -> Result<Unit, UnitError> {
    let failed = |source| UnitError::Read { path: path.into(), source };
    if std::fs::metadata(path).map_err(failed)?.len() > FILE_MAX {
        return Err(UnitError::Fault(format!("longer than {FILE_MAX} bytes")));
    }
    Unit::parse(&std::fs::read_to_string(path).map_err(failed)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_of_one_line_is_enough() {
        let unit = Unit::parse("exec = ['sleep', '1']").unwrap();
        assert_eq!((unit.restart(), unit.stop_signal, unit.one_shot), (Restart::Always, 15, false));
        let unit =
            Unit::parse("exec = ['x']\none_shot = true\nready = { port = 80 }\nrecurring = 1.5").unwrap();
        assert_eq!((unit.restart(), unit.ready), (Restart::Never, Some(Ready::Port(80))));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, said) in [
            ("", "exec"),
            ("exec = []", "empty"),
            ("exec = ['x']\nexce = 1", "exce"),
            ("exec = ['x']\nstop_timeout = -1.0", "between 0"),
            ("exec = ['x']\nstop_timeout = nan", "between 0"),
            ("exec = ['x']\nready_timeout = 0.0", "between 0"),
            ("exec = ['x']\nrecurring = 5.0", "one_shot"),
            ("exec = ['x']\nstop_signal = 99", "no signal"),
            ("exec = ['x']\ncondition = 'and(a'", "condition"),
            ("exec = ['x']\nhealth = { exec = [''], period = 1.0 }", "empty"),
        ] {
            let error = Unit::parse(text).unwrap_err().to_string();
            assert!(error.contains(said), "{text:?}: {error}");
        }
    }
}
