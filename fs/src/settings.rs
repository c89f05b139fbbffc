//! Where blocks come from, where the cache is, how large and how patient it is: what the variables `G8_*` say of it, and
//! what holds when they say nothing.
//!
//! `flist` declares the same as options, and core0 has the variables alone. Both build [`Settings`], so that they share one
//! store, one cache and one daemon.

use std::ffi::OsString;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use crate::engine::{EngineConfig, Mode, default_cache};
use crate::reference::Reach;
use crate::source::{Spec, default_store};

/// Sources, with commas between them.
pub const FROM: &str = "G8_FROM";
/// Folder of the cache.
pub const CACHE: &str = "G8_CACHE";
/// Most bytes of the cache on the disk.
pub const CACHE_SIZE: &str = "G8_CACHE_SIZE";
/// Most bytes of decoded contents in memory.
pub const CACHE_MEMORY: &str = "G8_CACHE_MEMORY";
/// How a mount reaches the kernel.
pub const MODE: &str = "G8_MODE";
/// Seconds that a read may take.
pub const DEADLINE: &str = "G8_DEADLINE";
/// Whether hints are followed to addresses that are not public.
pub const ALLOW_PRIVATE_HINTS: &str = "G8_ALLOW_PRIVATE_HINTS";

/// How long a read may take unless somebody says otherwise, in seconds.
pub const DEADLINE_SECONDS: u64 = 60;
/// How long it may be made.
pub const DEADLINE_RANGE: RangeInclusive<u64> = 1..=3600;

/// Why settings are none.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A variable holds something that it cannot.
    #[error("{0}: {1}")]
    Variable(&'static str, String),
    /// Nobody says where blocks come from.
    #[error("neither --from, {FROM} nor HOME is set: say where blocks come from")]
    NoStore,
    /// Nobody says where the cache is.
    #[error("neither --cache, {CACHE} nor HOME is set: say where the cache is")]
    NoCache,
    /// A folder that cannot be written in a mount table or a message.
    #[error("the cache folder {} is not UTF-8: choose another", .0.display())]
    OddCache(PathBuf),
    /// The working folder is gone, perhaps.
    #[error("a path cannot be made absolute")]
    Path(#[source] std::io::Error),
}

/// What was set; where nothing was, the methods know what holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where blocks come from, in order.
    pub from: Vec<Spec>,
    /// Folder of the cache.
    pub cache: Option<PathBuf>,
    /// Most bytes of the cache on the disk.
    pub cache_size: Option<u64>,
    /// Most bytes of decoded contents in memory.
    pub cache_memory: Option<u64>,
    /// How a mount reaches the kernel.
    pub mode: Mode,
    /// How long a read, or opening an image, may take.
    pub deadline: Duration,
    /// How far hints are followed.
    pub reach: Reach,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            from: Vec::new(),
            cache: None,
            cache_size: None,
            cache_memory: None,
            mode: Mode::Auto,
            deadline: Duration::from_secs(DEADLINE_SECONDS),
            reach: Reach::Public,
        }
    }
}

impl Settings {
    /// What the environment of this process says.
    pub fn of_environment() -> Result<Self, SettingsError> {
        Self::read(|name| std::env::var_os(name))
    }

    fn read(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, SettingsError> {
        // A variable that is empty is not set, as everywhere.
        let set = |name| variable(name).filter(|value| !value.is_empty());
        let text = |name| match set(name).map(OsString::into_string) {
            None => Ok(None),
            Some(Ok(text)) => Ok(Some(text)),
            Some(Err(_)) => Err(SettingsError::Variable(name, "it is not UTF-8".into())),
        };
        let bytes = |name| match text(name)? {
            Some(text) => size(&text).map(Some).map_err(|why| SettingsError::Variable(name, why)),
            None => Ok(None),
        };
        let source =
            |spec: &str| spec.parse::<Spec>().map_err(|e| SettingsError::Variable(FROM, e.to_string()));
        let from = text(FROM)?.unwrap_or_default();
        Ok(Settings {
            from: from.split(',').filter(|spec| !spec.is_empty()).map(source).collect::<Result<_, _>>()?,
            cache: set(CACHE).map(PathBuf::from),
            cache_size: bytes(CACHE_SIZE)?,
            cache_memory: bytes(CACHE_MEMORY)?,
            mode: match text(MODE)?.as_deref() {
                None | Some("auto") => Mode::Auto,
                Some("kernel") => Mode::Kernel,
                Some("fuse") => Mode::Fuse,
                Some(_) => {
                    return Err(SettingsError::Variable(MODE, "it is none of auto, kernel and fuse".into()));
                }
            },
            deadline: match text(DEADLINE)? {
                Some(text) => deadline(&text).map_err(|why| SettingsError::Variable(DEADLINE, why))?,
                None => Duration::from_secs(DEADLINE_SECONDS),
            },
            reach: match text(ALLOW_PRIVATE_HINTS)?.is_some_and(|text| is_true(&text)) {
                true => Reach::Anywhere,
                false => Reach::Public,
            },
        })
    }

    /// The sources, with absolute paths; the default store when there are none.
    pub fn sources(&self) -> Result<Vec<Spec>, SettingsError> {
        if self.from.is_empty() {
            return Ok(vec![default_store().ok_or(SettingsError::NoStore)?]);
        }
        self.from.iter().map(|spec| spec.clone().absolute().map_err(SettingsError::Path)).collect()
    }

    /// The folder of the cache.
    pub fn cache(&self) -> Result<PathBuf, SettingsError> {
        let cache = match &self.cache {
            Some(path) => std::path::absolute(path).map_err(SettingsError::Path)?,
            None => default_cache().ok_or(SettingsError::NoCache)?,
        };
        if cache.to_str().is_none() {
            return Err(SettingsError::OddCache(cache));
        }
        Ok(cache)
    }

    /// How the daemon of the cache is set up.
    pub fn engine(&self) -> Result<EngineConfig, SettingsError> {
        let usual = EngineConfig::new(self.cache()?);
        Ok(EngineConfig {
            disk_budget: self.cache_size.unwrap_or(usual.disk_budget),
            memory_budget: self.cache_memory.unwrap_or(usual.memory_budget),
            ..usual
        })
    }

    /// What says the same to a program that becomes the daemon, whatever its environment is.
    pub fn daemon_arguments(&self) -> Result<Vec<OsString>, SettingsError> {
        let mut arguments: Vec<OsString> = vec!["--cache".into(), self.cache()?.into()];
        for (name, bytes) in [("--cache-size", self.cache_size), ("--cache-memory", self.cache_memory)] {
            if let Some(bytes) = bytes {
                arguments.extend([name.into(), bytes.to_string().into()]);
            }
        }
        Ok(arguments)
    }
}

/// A number of bytes, as `10G` or `512M`; the units are binary.
pub fn size(text: &str) -> Result<u64, String> {
    parse_size::Config::new()
        .with_binary()
        .parse_size(text)
        .map_err(|_| "a size is a number with K, M, G or T, such as 512M".into())
}

fn deadline(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| DEADLINE_RANGE.contains(seconds));
    seconds.map(Duration::from_secs).ok_or_else(|| {
        format!(
            "a deadline is a number of seconds from {} to {}",
            DEADLINE_RANGE.start(),
            DEADLINE_RANGE.end()
        )
    })
}

/// As clap reads it for `flist`.
fn is_true(text: &str) -> bool {
    !matches!(text.to_lowercase().as_str(), "" | "n" | "no" | "f" | "false" | "off" | "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Settings, SettingsError> {
        Settings::read(|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn nothing_and_empty_variables_are_the_usual() {
        let usual = read(&[]).unwrap();
        assert_eq!(usual, Settings::default());
        assert_eq!((usual.deadline, usual.mode), (Duration::from_secs(60), Mode::Auto));
        assert_eq!((usual.reach, usual.cache_size), (Reach::Public, None));
        let names = [FROM, CACHE, CACHE_SIZE, CACHE_MEMORY, MODE, DEADLINE, ALLOW_PRIVATE_HINTS];
        assert_eq!(read(&names.map(|name| (name, ""))).unwrap(), usual);
    }

    #[test]
    fn what_is_set_holds_and_reaches_the_daemon() {
        let set = read(&[
            (FROM, "dir:/a,https://b"),
            (CACHE, "/c d"),
            (CACHE_SIZE, "1G"),
            (CACHE_MEMORY, "2M"),
            (MODE, "fuse"),
            (DEADLINE, "7"),
            (ALLOW_PRIVATE_HINTS, "yes"),
        ])
        .unwrap();
        assert_eq!(set.sources().unwrap().len(), 2);
        assert_eq!(
            (set.deadline, set.mode, set.reach),
            (Duration::from_secs(7), Mode::Fuse, Reach::Anywhere)
        );
        let engine = set.engine().unwrap();
        assert_eq!((engine.disk_budget, engine.memory_budget), (1 << 30, 2 << 20));
        let words = ["--cache", "/c d", "--cache-size", "1073741824", "--cache-memory", "2097152"];
        assert_eq!(set.daemon_arguments().unwrap(), words);
    }

    #[test]
    fn what_is_wrong_is_named_by_its_variable() {
        for (name, value) in [
            (FROM, "nfs:/x"),
            (CACHE_SIZE, "lots"),
            (CACHE_MEMORY, "-1"),
            (MODE, "slow"),
            (DEADLINE, "0"),
            (DEADLINE, "1h"),
        ] {
            let error = read(&[(name, value)]).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{name}: ")), "{error}");
        }
    }

    #[test]
    fn sizes_are_binary() {
        assert_eq!(size("256K").unwrap(), 256 << 10);
        assert_eq!(size("1GiB").unwrap(), 1 << 30);
        size("lots").unwrap_err();
    }
}
