//! The processes of the node, from /proc/PID, and signals to them.

use std::fs;
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use schemars::JsonSchema;
use serde::Serialize;

use crate::sys::text;

/// Why there is nothing to say of a process, or nothing was done to it.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// No such process.
    #[error("no process {0}")]
    Gone(i64),
    /// Never.
    #[error("process {0} is not for callers: 1 is the node itself, and smaller numbers are groups")]
    Protected(i64),
    /// Not between 0 and 64.
    #[error("signal {0} is none: 0 to 64 are")]
    NoSignal(i64),
    /// The kernel refuses.
    #[error("cannot signal process {0}")]
    Signal(i64, #[source] Errno),
    /// /proc is not to be read.
    #[error("cannot list the processes")]
    List(#[source] io::Error),
}

/// One process.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// The number of its parent.
    pub ppid: u32,
    /// Its arguments, joined by blanks; its name in brackets when it has none.
    pub cmdline: String,
    /// Its name.
    pub name: String,
    /// When it was started, in ms since 1970.
    pub createtime: u64,
    /// What it used of the processors.
    pub cpu: CpuTime,
    /// Memory it has, in bytes.
    pub rss: u64,
    /// Memory it could have, in bytes.
    pub vms: u64,
    /// Memory of it that is in swap, in bytes.
    pub swap: u64,
    /// How many files it has open.
    pub ofd: u64,
    /// Its limits.
    pub rlimit: Vec<Limit>,
}

/// Seconds of processors.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct CpuTime {
    /// In the process itself.
    pub user: f64,
    /// In the kernel, for it.
    pub system: f64,
    /// Waiting for disks.
    pub iowait: f64,
}

/// A limit of a process, -1 when there is none (getrlimit(2)).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Limit {
    /// What is limited, as `Max open files`.
    pub resource: String,
    /// The limit now.
    pub soft: i64,
    /// What it may be raised to.
    pub hard: i64,
}

/// One process, or all when none is named. Threads of the kernel are among them.
pub fn list(pid: Option<i64>) -> Result<Vec<Process>, ProcessError> {
    let boot = boot_time().map_err(ProcessError::List)?;
    if let Some(pid) = pid {
        let number = u32::try_from(pid).map_err(|_| ProcessError::Gone(pid))?;
        return Ok(vec![read(number, boot).ok_or(ProcessError::Gone(pid))?]);
    }
    let entries = fs::read_dir("/proc").map_err(ProcessError::List)?;
    let mut pids: Vec<u32> = entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    // Who ends meanwhile is not in the list.
    Ok(pids.into_iter().filter_map(|pid| read(pid, boot)).collect())
}

/// Sends a signal to one process.
pub fn kill(pid: i64, signal: i64) -> Result<(), ProcessError> {
    if pid <= 1 {
        return Err(ProcessError::Protected(pid));
    }
    if !(0..=64).contains(&signal) {
        return Err(ProcessError::NoSignal(signal));
    }
    let number = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(ProcessError::Gone(pid))?;
    let failed = |e| match e {
        Errno::SRCH => ProcessError::Gone(pid),
        other => ProcessError::Signal(pid, other),
    };
    // Through a descriptor, which never names the next process of the same number.
    let process = pidfd_open(number, PidfdFlags::empty()).map_err(failed)?;
    if signal == 0 {
        return Ok(());
    }
    // SAFETY: a signal to another process; to this one it is one that a caller may send as well by `kill`.
    let signal = unsafe { Signal::from_raw_unchecked(signal as i32) };
    pidfd_send_signal(process, signal).map_err(failed)
}

/// When the machine was started.
fn boot_time() -> io::Result<SystemTime> {
    let stat = text::read("/proc/stat")?;
    let seconds = stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok());
    let seconds = seconds.ok_or_else(|| io::Error::other("/proc/stat has no btime"))?;
    Ok(UNIX_EPOCH + Duration::from_secs(seconds))
}

fn read(pid: u32, boot: SystemTime) -> Option<Process> {
    let folder = format!("/proc/{pid}");
    let stat = Stat::parse(&text::read(format!("{folder}/stat")).ok()?)?;
    let started = boot + Duration::from_millis(stat.starttime.saturating_mul(1000) / ticks());
    let since_1970 = started.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let cmdline = text::read(format!("{folder}/cmdline")).unwrap_or_default();
    let words = cmdline.trim_end_matches('\0').replace('\0', " ");
    let status = text::read(format!("{folder}/status")).unwrap_or_default();
    let seconds = |ticks_used: u64| ticks_used as f64 / ticks() as f64;
    let page = rustix::param::page_size() as u64;
    Some(Process {
        pid,
        ppid: stat.ppid,
        cmdline: if words.is_empty() { format!("[{}]", stat.name) } else { words },
        name: stat.name,
        createtime: since_1970.as_millis() as u64,
        cpu: CpuTime {
            user: seconds(stat.utime),
            system: seconds(stat.stime),
            iowait: seconds(stat.blkio_ticks),
        },
        rss: stat.rss_pages.saturating_mul(page),
        vms: stat.vsize,
        swap: kib(&status, "VmSwap:").saturating_mul(1024),
        ofd: fs::read_dir(format!("{folder}/fd")).map_or(0, |entries| entries.count() as u64),
        rlimit: limits(&text::read(format!("{folder}/limits")).unwrap_or_default()),
    })
}

fn ticks() -> u64 {
    rustix::param::clock_ticks_per_second().max(1)
}

/// What we use of /proc/PID/stat (proc_pid_stat(5)).
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    name: String,
    ppid: u32,
    utime: u64,
    stime: u64,
    starttime: u64,
    vsize: u64,
    rss_pages: u64,
    blkio_ticks: u64,
}

impl Stat {
    /// The name stands in brackets and may have brackets and blanks in it.
    fn parse(text: &str) -> Option<Self> {
        let (left, right) = text.split_once('(')?.1.rsplit_once(')')?;
        let fields: Vec<&str> = right.split_whitespace().collect();
        // The first field after the name is the third one of the manual.
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        Some(Stat {
            name: left.to_owned(),
            ppid: u32::try_from(number(4)?).ok()?,
            utime: number(14)?,
            stime: number(15)?,
            starttime: number(22)?,
            vsize: number(23)?,
            rss_pages: number(24)?,
            blkio_ticks: number(42)?,
        })
    }
}

/// A number of KiB in /proc/PID/status; threads of the kernel have none.
fn kib(status: &str, key: &str) -> u64 {
    let value =
        status.lines().find_map(|line| line.strip_prefix(key)?.split_whitespace().next()?.parse().ok());
    value.unwrap_or(0)
}

/// `Max open files            1024                 4096                 files`
fn limits(text: &str) -> Vec<Limit> {
    let value = |word: &str| if word == "unlimited" { Some(-1) } else { word.parse().ok() };
    let line = |line: &str| {
        let (resource, rest) = line.split_once("  ")?;
        let mut words = rest.split_whitespace();
        let (soft, hard) = (value(words.next()?)?, value(words.next()?)?);
        Some(Limit { resource: resource.to_owned(), soft, hard })
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    use super::*;

    #[test]
    fn this_process_is_listed_with_what_it_is() {
        let pid = std::process::id();
        let own = list(None).unwrap().into_iter().find(|p| p.pid == pid).unwrap();
        let args: Vec<String> = std::env::args().collect();
        assert_eq!(own.cmdline, args.join(" "));
        assert!(own.rss > 0 && own.vms >= own.rss && own.ofd > 2, "{own:?}");
        let age = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64 - own.createtime;
        assert!(age < 24 * 3600 * 1000, "started {age} ms ago");
        assert!(own.rlimit.iter().any(|l| l.resource == "Max open files" && l.soft > 0), "{:?}", own.rlimit);
        assert_eq!(list(Some(i64::from(pid))).unwrap().len(), 1);
    }

    #[test]
    fn a_name_may_have_brackets_in_it() {
        let tail =
            "S 7 1 1 0 -1 0 0 0 0 0 14 15 0 0 20 0 1 0 22 23 24 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 42 0";
        let stat = Stat::parse(&format!("12 (a) b (c) {tail}")).unwrap();
        assert_eq!((stat.name.as_str(), stat.ppid), ("a) b (c", 7));
        assert_eq!((stat.utime, stat.stime, stat.starttime), (14, 15, 22));
        assert_eq!((stat.vsize, stat.rss_pages, stat.blkio_ticks), (23, 24, 42));
        assert_eq!(Stat::parse("12 (a S 7"), None);
        assert_eq!(Stat::parse("12 (a) S 7"), None);
    }

    #[test]
    fn a_child_is_killed_and_then_gone() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let pid = i64::from(child.id());
        kill(pid, 0).unwrap();
        kill(pid, 15).unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(15));
        assert!(matches!(kill(pid, 15), Err(ProcessError::Gone(_))));
        assert!(matches!(list(Some(pid)), Err(ProcessError::Gone(_))));
    }

    #[test]
    fn nobody_kills_the_node_or_a_group() {
        for pid in [1, 0, -1, -5, i64::MIN] {
            assert!(matches!(kill(pid, 9), Err(ProcessError::Protected(_))), "{pid}");
        }
        assert!(matches!(kill(i64::MAX, 9), Err(ProcessError::Gone(_))));
        for signal in [-1, 65, i64::MAX] {
            assert!(matches!(kill(2, signal), Err(ProcessError::NoSignal(_))), "{signal}");
        }
    }
}
