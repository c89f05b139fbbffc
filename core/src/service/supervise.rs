//! Keeping one service: a task that starts it when it may, watches it, starts it again, and stops it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::control::{Control, PAUSE, PAUSE_MAX, not_wanted};
use super::memory::Memory;
use super::ready::Watch;
use super::status::{ServiceState, Status};
use super::table::Parts;
use super::unit::{Health, Ready, Restart, Unit};
use crate::log::now_ms;
use crate::process::{Message, drain};
use crate::spawner::{Child, Exit};

/// Who was well for so long begins anew.
const WELL: Duration = Duration::from_secs(60);

/// A service that is a process. Its task ends when its sender of `wanted` is gone.
#[derive(Debug)]
pub struct Service {
    /// Its name, and what it is doing.
    pub control: Arc<Control>,
    /// What it is; a new one counts from the next start on.
    pub unit: Mutex<Unit>,
    /// What it comes after.
    pub after: Mutex<Vec<Other>>,
    /// Its time to end is over, whatever its unit says.
    pub late: watch::Sender<bool>,
}

/// A service that another one comes after.
#[derive(Clone, Debug)]
pub struct Other {
    /// Its name.
    pub name: String,
    /// What it is doing.
    pub status: watch::Receiver<Status>,
}

/// How a run of a service ended.
enum End {
    /// By itself.
    Exit(Option<Exit>),
    /// It could not be started, or it was not ready in time.
    Failed(String),
    /// It was told to.
    Told,
}

impl Service {
    /// One that is waiting.
    pub fn new(name: &str, unit: Unit, after: Vec<Other>, memory: Arc<Memory>) -> Arc<Self> {
        let control = Control::new(name, ServiceState::Waiting, memory);
        let (unit, after, late) = (Mutex::new(unit), Mutex::new(after), watch::Sender::new(false));
        Arc::new(Self { control, unit, after, late })
    }

    /// Whether it comes after another one.
    pub fn comes_after(&self, name: &str) -> bool {
        self.after.lock().iter().any(|other| other.name == name)
    }

    /// The source of its records in the log.
    pub fn source(name: &str) -> Arc<str> {
        format!("service {name}").into()
    }

    fn enter(&self, state: ServiceState, pid: i32, reason: impl Into<String>) {
        let reason = reason.into();
        let name = &self.control.name;
        match state {
            ServiceState::Failed => tracing::error!("service {name} failed: {reason}"),
            ServiceState::Pausing => tracing::warn!("service {name} ended: {reason}"),
            _ => tracing::debug!("service {name} is {state:?}"),
        }
        self.control.enter(state, pid, reason);
    }

    /// Keeps it for as long as the node runs. An earlier manager may have kept its process, or known what became of it.
    pub async fn keep(self: Arc<Self>, parts: Parts, kept: Option<Child>) {
        let past = self.control.past().filter(|_| kept.is_none());
        if past.as_ref().is_some_and(|past| past.state == ServiceState::Stopped) {
            self.control.wanted.send_replace(false);
        }
        let mut wanted = self.control.wanted.subscribe();
        let mut kept = kept;
        let (mut pause, mut failures) = (PAUSE, 0);
        if let Some(past) = past.filter(|past| past.state != ServiceState::Stopped) {
            let again = self.unit.lock().recurring.filter(|_| past.state == ServiceState::Done);
            let since = Duration::from_millis(now_ms().saturating_sub(past.since));
            self.control.turn(past);
            self.control
                .idle(again.map(|every| Duration::from_secs_f64(every).saturating_sub(since)), &mut wanted)
                .await;
        }
        loop {
            if !*wanted.borrow_and_update() {
                self.enter(ServiceState::Stopped, 0, "");
                if wanted.wait_for(|wanted| *wanted).await.is_err() {
                    return;
                }
                (pause, failures) = (PAUSE, 0);
            }
            if kept.is_none() && !self.wait_for_others(&mut wanted).await {
                continue;
            }
            let began = Instant::now();
            let unit = self.unit.lock().clone();
            let end = self.run(&parts, &unit, kept.take(), &mut wanted).await;
            if began.elapsed() > WELL && !matches!(end, End::Failed(_)) {
                (pause, failures) = (PAUSE, 0);
            }
            let (well, reason) = match &end {
                End::Told => continue,
                End::Exit(Some(Exit::Code(0))) => (true, "it ended".to_string()),
                End::Exit(Some(Exit::Code(code))) => (false, format!("exit code {code}")),
                End::Exit(Some(Exit::Signal(signal))) => (false, format!("signal {signal}")),
                End::Exit(Some(Exit::TooMany(too_many))) => {
                    (false, format!("killed: {too_many}; `processes` of its unit says how many"))
                }
                End::Exit(None) => (false, "the spawner died".into()),
                End::Failed(reason) => (false, reason.clone()),
            };
            if unit.one_shot && well {
                self.enter(ServiceState::Done, 0, "");
                let again = unit.recurring.map(Duration::from_secs_f64);
                self.control.idle(again, &mut wanted).await;
                continue;
            }
            let again = match unit.restart() {
                Restart::Always => true,
                Restart::OnFailure => !well,
                Restart::Never => false,
            };
            failures += 1;
            if !again || (unit.restart_limit > 0 && failures > unit.restart_limit) {
                let state = if well { ServiceState::Ended } else { ServiceState::Failed };
                let often = if again { format!("{reason}, {failures} times") } else { reason };
                self.enter(state, 0, often);
                self.control.idle(None, &mut wanted).await;
                (pause, failures) = (PAUSE, 0);
                continue;
            }
            self.enter(ServiceState::Pausing, 0, reason);
            self.control.idle(Some(pause), &mut wanted).await;
            pause = (pause * 2).min(PAUSE_MAX);
            self.control.status.send_modify(|status| status.restarts += 1);
        }
    }

    /// Waits for what it comes after; false when it is not wanted any more.
    async fn wait_for_others(&self, wanted: &mut watch::Receiver<bool>) -> bool {
        let mut after = self.after.lock().clone();
        for other in &mut after {
            loop {
                let why = {
                    let status = other.status.borrow_and_update();
                    if status.state.lets_others_start() {
                        break;
                    }
                    // One that waits itself says for whom.
                    let reason = match status.state {
                        ServiceState::Waiting => String::new(),
                        _ if status.reason.is_empty() => String::new(),
                        _ => format!(": {}", status.reason),
                    };
                    format!("it comes after {}, which is {}{reason}", other.name, status.state)
                };
                self.wait(why);
                tokio::select! {
                    changed = other.status.changed() => if changed.is_err() {
                        // A sender that is gone is a service that was removed.
                        break;
                    },
                    () = not_wanted(wanted) => return false,
                }
            }
        }
        true
    }

    /// It is waiting, and this is why now.
    fn wait(&self, why: String) {
        if self.control.status.borrow().state != ServiceState::Waiting {
            return self.enter(ServiceState::Waiting, 0, why);
        }
        self.control.status.send_if_modified(|status| {
            let is_new = status.reason != why;
            status.reason = why;
            is_new
        });
    }

    async fn run(
        &self,
        parts: &Parts,
        unit: &Unit,
        kept: Option<Child>,
        wanted: &mut watch::Receiver<bool>,
    ) -> End {
        let was_kept = kept.is_some();
        let socket = parts.notify_dir.join(format!("{}.sock", self.control.name));
        let ready = if was_kept { None } else { unit.ready.as_ref() };
        let watch = match Watch::new(ready, &socket) {
            Ok(watch) => watch,
            Err(e) => return End::Failed(format!("cannot make {}: {e}", socket.display())),
        };
        let mut child = match kept {
            Some(child) => child,
            None => match self.start(parts, unit, socket).await {
                Ok(child) => child,
                Err(reason) => return End::Failed(reason),
            },
        };
        if let Err(e) = self.listen(parts, unit, &mut child, &watch) {
            tracing::error!("the output of service {} is lost: {e}", self.control.name);
        }
        self.enter(ServiceState::Starting, child.pid, "");
        let mut is_ready = unit.one_shot;
        let health = self.health(parts, unit);
        let late = sleep(unit.ready_timeout());
        tokio::pin!(health, late);
        loop {
            tokio::select! {
                exit = child.wait() => return End::Exit(exit),
                () = watch.ready(), if !is_ready => {
                    is_ready = true;
                    self.enter(ServiceState::Ready, child.pid, "");
                }
                () = &mut late, if !is_ready => {
                    self.end(&mut child, unit).await;
                    return End::Failed(format!("it was not ready within {} s", unit.ready_timeout));
                }
                () = &mut health, if is_ready && unit.health.is_some() => {
                    tracing::error!("service {} is not well: it is ended", self.control.name);
                    self.end(&mut child, unit).await;
                    return End::Exit(Some(Exit::Signal(unit.stop_signal)));
                }
                () = not_wanted(wanted) => {
                    self.end(&mut child, unit).await;
                    return End::Told;
                }
            }
        }
    }

    /// Ends its process: its signal, and after its time the other one.
    async fn end(&self, child: &mut Child, unit: &Unit) {
        let handle = child.handle();
        handle.signal(unit.stop_signal).await;
        let mut late = self.late.subscribe();
        tokio::select! {
            _ = child.wait() => return,
            () = sleep(unit.stop_timeout()) => {}
            // The sender is ours.
            _ = late.wait_for(|late| *late) => {}
        }
        handle.signal(libc::SIGKILL).await;
        child.wait().await;
    }

    async fn start(&self, parts: &Parts, unit: &Unit, socket: PathBuf) -> Result<Child, String> {
        let mut process = parts.bound(unit.process());
        if unit.ready == Some(Ready::Notify) {
            process.env.insert("NOTIFY_SOCKET".into(), socket.display().to_string());
        }
        let tag = format!("service {}", self.control.name);
        parts.spawner.spawn(&process, &tag).await.map_err(|error| {
            let source = std::error::Error::source(&error).map(|e| format!(": {e}")).unwrap_or_default();
            format!("{error}{source}")
        })
    }

    fn listen(&self, parts: &Parts, unit: &Unit, child: &mut Child, watch: &Watch) -> std::io::Result<()> {
        let Some(ends) = child.output.take() else { return Ok(()) };
        let seen = watch.line();
        let wanted = match &unit.ready {
            Some(Ready::Match(text)) => text.clone(),
            Some(Ready::Port(_) | Ready::Notify) | None => String::new(),
        };
        let hear = move |message: &Message| {
            if let Some(seen) = seen.as_ref().filter(|_| message.text.contains(&wanted)) {
                seen.notify_one();
            }
        };
        drain(ends, Self::source(&self.control.name), parts.logs.clone(), hear)
    }

    /// Returns when the service is not well.
    async fn health(&self, parts: &Parts, unit: &Unit) {
        let Some(health) = &unit.health else { return std::future::pending().await };
        let period = Duration::from_secs_f64(health.period);
        let mut failures = 0;
        while failures < health.failures.max(1) {
            sleep(period).await;
            failures = if self.is_well(parts, unit, health, period).await { 0 } else { failures + 1 };
        }
    }

    async fn is_well(&self, parts: &Parts, unit: &Unit, health: &Health, limit: Duration) -> bool {
        let tag = format!("test {}", self.control.name);
        let process = parts.bound(health.process(unit));
        let Ok(mut child) = parts.spawner.spawn(&process, &tag).await else { return false };
        if let Some(ends) = child.output.take() {
            let drained = drain(ends, Self::source(&self.control.name), parts.logs.clone(), |_: &Message| {});
            if let Err(e) = drained {
                tracing::warn!("the output of the test of {} is lost: {e}", self.control.name);
            }
        }
        match timeout(limit, child.wait()).await {
            Ok(exit) => exit == Some(Exit::Code(0)),
            Err(_) => {
                child.handle().signal(libc::SIGKILL).await;
                child.wait().await;
                false
            }
        }
    }
}
