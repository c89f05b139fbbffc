//! One dnsmasq: a child that is started again when it ends, and ended when its bridge is.

use std::net::Ipv4Addr;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};
use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStderr};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::record::Files;
use crate::sys::netlink::Cidr;
use crate::sys::{text, tool};

/// How long it may take until it serves.
const READY: Duration = Duration::from_secs(20);
/// How long it may take to end when it is asked to.
const END: Duration = Duration::from_secs(5);
/// The first wait before it is started again; each further one is twice as long, up to the last.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LAST_WAIT: Duration = Duration::from_secs(60);
/// Most bytes of a line that it logs.
const LINE: usize = 4096;
/// Most leases of a bridge.
const MAX_LEASES: &str = "1000";

/// A dnsmasq that serves. It ends when this is dropped, and in order with [`Dnsmasq::stop`].
#[derive(Debug)]
pub struct Dnsmasq {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// What it is started with. Its configuration file is none, so that the host's own does not matter.
pub fn arguments(link: &str, network: Cidr, start: Ipv4Addr, end: Ipv4Addr, files: &Files) -> Vec<String> {
    let mask = network.mask().expect("a plan has dnsmasq in IPv4 networks only");
    let address = network.address;
    vec![
        "--keep-in-foreground".to_owned(),
        "--conf-file=/dev/null".to_owned(),
        "--log-facility=-".to_owned(),
        "--no-hosts".to_owned(),
        // Nobody else gives addresses on an own bridge.
        "--dhcp-authoritative".to_owned(),
        "--no-ping".to_owned(),
        "--quiet-dhcp".to_owned(),
        "--bind-interfaces".to_owned(),
        "--except-interface=lo".to_owned(),
        format!("--interface={link}"),
        format!("--listen-address={address}"),
        format!("--dhcp-range={start},{end},{mask},12h"),
        format!("--dhcp-option=option:dns-server,{address}"),
        format!("--dhcp-lease-max={MAX_LEASES}"),
        format!("--dhcp-leasefile={}", files.leases.display()),
        pid_argument(files),
    ]
}

fn pid_argument(files: &Files) -> String {
    format!("--pid-file={}", files.pid.display())
}

impl Dnsmasq {
    /// Starts it, and returns when it serves.
    pub async fn start(arguments: Vec<String>, files: Files) -> Result<Self, String> {
        let (child, log) = spawn(&arguments, &files).await?;
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(supervise(child, log, arguments, files, stopped));
        Ok(Dnsmasq { stop, task })
    }

    /// Ends it, and returns when it has ended.
    pub async fn stop(self) {
        // It may have given up: then nobody listens, and the task has ended.
        let _ = self.stop.send(());
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the supervisor of a dnsmasq failed");
        }
    }
}

/// Keeps it running until it is told to stop, or until nobody can tell it any more.
async fn supervise(
    mut child: Child,
    mut log: ChildStderr,
    arguments: Vec<String>,
    files: Files,
    mut stopped: oneshot::Receiver<()>,
) {
    let mut wait = FIRST_WAIT;
    loop {
        let began = Instant::now();
        tokio::select! {
            _ = &mut stopped => return end(child, &files).await,
            () = follow(&mut log) => {}
        }
        // Its log ends with it.
        tokio::select! {
            _ = &mut stopped => return end(child, &files).await,
            status = child.wait() => tracing::warn!(?status, pid_file = %files.pid.display(), "dnsmasq ended"),
        }
        if began.elapsed() > LAST_WAIT {
            wait = FIRST_WAIT;
        }
        loop {
            tokio::select! {
                _ = &mut stopped => return,
                () = tokio::time::sleep(wait) => {}
            }
            wait = (2 * wait).min(LAST_WAIT);
            match spawn(&arguments, &files).await {
                Ok((new, new_log)) => {
                    (child, log) = (new, new_log);
                    break;
                }
                Err(error) => tracing::error!(%error, again_in = ?wait, "dnsmasq does not start"),
            }
        }
    }
}

/// Starts one and reads its log until it says that it has started.
async fn spawn(arguments: &[String], files: &Files) -> Result<(Child, ChildStderr), String> {
    let mut command = tool::command("dnsmasq");
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|e| format!("it cannot be started: {e}"))?;
    let mut log = child.stderr.take().expect("stderr is a pipe");
    let said = tokio::time::timeout(READY, async {
        let mut said = String::new();
        while let Some(text) = more(&mut log).await {
            said.push_str(&text);
            if said.contains(": started, ") {
                return Ok(());
            }
            if said.len() > 16 * LINE {
                break;
            }
        }
        Err(said.trim().replace('\n', "; "))
    });
    match said.await {
        Ok(Ok(())) => Ok((child, log)),
        Ok(Err(said)) if said.is_empty() => Err("it ended without a word".to_owned()),
        Ok(Err(said)) => Err(said),
        Err(_) => Err(format!("it did not start within {READY:?}; see {}", files.pid.display())),
    }
}

/// Logs what it says until it ends.
async fn follow(log: &mut ChildStderr) {
    while let Some(text) = more(log).await {
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            tracing::info!(target: "dnsmasq", "{line}");
        }
    }
}

async fn more(log: &mut ChildStderr) -> Option<String> {
    let mut buffer = [0; LINE];
    let n = log.read(&mut buffer).await.ok().filter(|n| *n > 0)?;
    Some(String::from_utf8_lossy(&buffer[..n]).into_owned())
}

async fn end(mut child: Child, files: &Files) {
    if let Some(pid) = child.id().and_then(|pid| Pid::from_raw(pid as i32))
        && let Err(error) = kill_process(pid, Signal::TERM)
    {
        tracing::warn!(%error, "dnsmasq cannot be asked to end");
    }
    if tokio::time::timeout(END, child.wait()).await.is_err() {
        tracing::warn!(pid_file = %files.pid.display(), "dnsmasq does not end, and is killed");
    }
    if let Err(error) = child.kill().await {
        tracing::error!(%error, pid_file = %files.pid.display(), "dnsmasq is not gone");
    }
}

/// Kills the dnsmasq that a killed manager left behind. It is found by its command line: its file may not have its number yet.
pub async fn kill_stray(files: &Files) {
    let argument = pid_argument(files);
    let kill = move || {
        let entries = match std::fs::read_dir("/proc") {
            Ok(entries) => entries,
            Err(error) => return tracing::error!(%error, "cannot look for a dnsmasq of before"),
        };
        let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter_map(Pid::from_raw).for_each(|pid| kill_if_it_has(pid, &argument));
    };
    if let Err(error) = tokio::task::spawn_blocking(kill).await {
        tracing::error!(%error, "looking for a dnsmasq of before failed");
    }
}

fn kill_if_it_has(pid: Pid, argument: &str) {
    // The descriptor first: what we then look at is what we kill.
    let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { return };
    let cmdline = text::read(format!("/proc/{}/cmdline", pid.as_raw_pid())).unwrap_or_default();
    if !cmdline.split('\0').any(|word| word == argument) {
        return;
    }
    if let Err(error) = pidfd_send_signal(&process, Signal::KILL) {
        tracing::warn!(%error, "a dnsmasq of before stays");
        return;
    }
    let limit = Timespec { tv_sec: END.as_secs() as i64, tv_nsec: 0 };
    if !matches!(poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&limit)), Ok(1)) {
        tracing::warn!("a dnsmasq of before does not end");
    }
}
