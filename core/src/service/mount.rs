//! A mount that the node was told of, as a service: `mount:PATH`, a name that no unit can have.
//!
//! It has no process of its own: the daemon of the flists serves it. It is ready when the flist is there, and tried again like any
//! service. While nobody tells of an flist for its path it waits, for those that come after it, and has nothing mounted. Before anybody was heard,
//! what an earlier manager has mounted there stays: services that run use it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::control::{Control, PAUSE, PAUSE_MAX, not_wanted};
use super::memory::Memory;
use super::status::{ServiceState, Status};
use crate::command::CommandError;
use crate::domain::flist::place::is_place;
use crate::domain::flist::{Noted, ShowError, Told};

/// How the name of such a service begins; names of units have no colon.
const PREFIX: &str = "mount:";
/// How often a mount is looked at.
const LOOK: Duration = Duration::from_secs(5);
/// One that was there for so long begins anew with its pauses.
const WELL: Duration = Duration::from_secs(60);
/// How long who stops one waits for that.
const STOP: Duration = Duration::from_secs(60);

/// The service of a path, however that is written.
pub fn name_of(path: &Path) -> String {
    format!("{PREFIX}{}", path.components().collect::<PathBuf>().display())
}

/// The path of a service, if it is one of these. Each place has one name.
pub fn path_of(name: &str) -> Option<PathBuf> {
    let path = name.strip_prefix(PREFIX).map(PathBuf::from)?;
    (is_place(&path) && name_of(&path) == name).then_some(path)
}

/// What it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Heard {
    /// Nothing yet, by this manager.
    NotYet,
    /// Nothing should be there.
    Nothing,
    /// This should be there.
    Flist(Told),
}

/// See the module's text.
#[derive(Debug)]
pub struct Mount {
    /// Its name, and what it is doing.
    pub control: Arc<Control>,
    heard: watch::Sender<Heard>,
    /// Why what shall not be there is there still, each time that it could not be ended.
    stays: watch::Sender<String>,
    path: PathBuf,
    flists: Arc<Noted>,
}

impl Mount {
    /// One that nobody has told of.
    pub fn new(path: PathBuf, flists: Arc<Noted>, memory: Arc<Memory>) -> Arc<Self> {
        // What an earlier manager has left there is not looked at yet.
        let control = Control::new(&name_of(&path), ServiceState::Starting, memory);
        let (heard, stays) = (watch::Sender::new(Heard::NotYet), watch::Sender::new(String::new()));
        Arc::new(Self { control, heard, stays, path, flists })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Tells it what to show; nothing happens when it knows.
    pub fn tell(&self, told: Option<Told>) {
        let told = told.map_or(Heard::Nothing, Heard::Flist);
        self.heard.send_if_modified(|known| {
            let is_new = *known != told;
            *known = told;
            is_new
        });
    }

    /// Stops it, and returns when it is stopped, or says why that cannot be done now: it is tried on.
    pub async fn stop(&self) -> Result<(), String> {
        let mut stays = self.stays.subscribe();
        tokio::select! {
            () = self.control.stop() => Ok(()),
            // The sender is ours.
            _ = stays.changed() => Err(stays.borrow().clone()),
            () = sleep(STOP) => Err(format!("what it does takes more than {} s; after that it is stopped", STOP.as_secs())),
        }
    }

    /// Nobody tells of it, and nothing is mounted by it.
    pub fn is_over(&self) -> bool {
        let state = self.control.status.borrow().state;
        *self.heard.borrow() == Heard::Nothing
            && matches!(state, ServiceState::Waiting | ServiceState::Stopped)
    }

    /// Keeps it, for as long as the node runs.
    pub async fn keep(self: Arc<Self>) {
        let mut wanted = self.control.wanted.subscribe();
        let mut heard = self.heard.subscribe();
        if self.control.past().is_some_and(|past| past.state == ServiceState::Stopped) {
            self.control.wanted.send_replace(false);
        }
        let mut pause = PAUSE;
        loop {
            let (is_wanted, known) = (*wanted.borrow_and_update(), heard.borrow_and_update().clone());
            let told = match (known, is_wanted) {
                (Heard::Flist(told), true) => Some(told),
                (Heard::NotYet, true) => {
                    self.change(ServiceState::Starting, "the bootstrap file is not known yet");
                    tokio::select! {
                        changed = heard.changed() => if changed.is_err() { return },
                        () = not_wanted(&mut wanted) => {}
                    }
                    continue;
                }
                (Heard::Nothing, true) => None,
                (_, false) => {
                    // Also if this manager does not live to see the end of it.
                    self.control.stays_stopped();
                    None
                }
            };
            let done = match told.clone() {
                Some(told) => self.show(told).await,
                None => self.hide().await,
            };
            match (done, is_wanted, told) {
                (Ok(()), true, Some(told)) => {
                    self.change(ServiceState::Ready, "");
                    let since = Instant::now();
                    tokio::select! {
                        why = self.gone(&told) => self.change(ServiceState::Pausing, &why),
                        changed = heard.changed() => match changed {
                            Ok(()) => continue,
                            Err(_) => return,
                        },
                        () = not_wanted(&mut wanted) => continue,
                    }
                    pause = if since.elapsed() > WELL { PAUSE } else { pause };
                }
                (Ok(()), true, None) => {
                    self.change(ServiceState::Waiting, "the bootstrap file names no flist for it");
                    tokio::select! {
                        changed = heard.changed() => if changed.is_err() { return },
                        () = not_wanted(&mut wanted) => {}
                    }
                    pause = PAUSE;
                    continue;
                }
                (Ok(()), false, _) => {
                    self.change(ServiceState::Stopped, "");
                    if wanted.wait_for(|wanted| *wanted).await.is_err() {
                        return;
                    }
                    pause = PAUSE;
                    continue;
                }
                (Err(why), ..) => {
                    self.change(ServiceState::Pausing, &why);
                    if !is_wanted {
                        self.stays.send_replace(why);
                    }
                }
            }
            tokio::select! {
                () = sleep(pause) => pause = (pause * 2).min(PAUSE_MAX),
                changed = heard.changed() => if changed.is_err() { return } else { pause = PAUSE },
                changed = wanted.changed() => if changed.is_err() { return },
            }
            self.control.status.send_modify(|status| status.restarts += 1);
        }
    }

    /// It is in another state. What is wrong is said once, however often it is tried.
    fn change(&self, state: ServiceState, reason: &str) {
        let before = self.control.status.borrow().clone();
        let name = &self.control.name;
        match state {
            ServiceState::Pausing if before.reason != reason => {
                tracing::warn!("service {name} is not as it should be: {reason}");
            }
            _ if before.state != state => tracing::debug!("service {name} is {state}"),
            _ => {}
        }
        self.control.enter(state, 0, reason);
    }

    async fn show(&self, told: Told) -> Result<(), String> {
        // What was wrong with it is so until it is there.
        let before = self.control.status.borrow().clone();
        let why = if before.state == ServiceState::Pausing { before.reason } else { String::new() };
        self.change(ServiceState::Starting, &why);
        let (flists, path) = (self.flists.clone(), self.path.clone());
        blocking(move || flists.show(&path, &told)).await
    }

    async fn hide(&self) -> Result<(), String> {
        let (flists, path) = (self.flists.clone(), self.path.clone());
        blocking(move || flists.hide(&path)).await.map_err(|why| format!("it stays mounted: {why}"))
    }

    /// Waits until it is not there any more, and says why.
    async fn gone(&self, told: &Told) -> String {
        loop {
            sleep(LOOK).await;
            let (flists, path, told) = (self.flists.clone(), self.path.clone(), told.clone());
            let is_shown = tokio::task::spawn_blocking(move || flists.is_shown(&path, &told)).await;
            if is_shown.is_ok_and(|is_shown| !is_shown) {
                return "somebody has unmounted it, or its daemon has died".into();
            }
        }
    }
}

/// How a mount is, in the words of who told of it.
pub fn in_words(status: &Status) -> String {
    match status.state {
        ServiceState::Ready => "mounted".into(),
        ServiceState::Starting if status.reason.is_empty() => "being mounted".into(),
        _ if status.reason.is_empty() => status.state.to_string(),
        _ => status.reason.clone(),
    }
}

/// Runs what waits for a daemon where it holds up nobody else.
async fn blocking(work: impl FnOnce() -> Result<(), ShowError> + Send + 'static) -> Result<(), String> {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(ShowError::Flist(e))) => Err(CommandError::from(e).report()),
        Ok(Err(e)) => Err(e.to_string()),
        Err(_) => Err("it was not finished: its thread panicked".into()),
    }
}
