//! A mount that the node was told of, as a service: `mount:PATH`, a name that no unit can have.
//!
//! It has no process of its own: the daemon of the flists serves it. It is ready when the flist is there, and tried again like any
//! service. While nobody tells of an flist for its path it waits, for those that come after it, and has nothing mounted.

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

/// The service of a path.
pub fn name_of(path: &Path) -> String {
    format!("{PREFIX}{}", path.display())
}

/// The path of a service, if it is one of these.
pub fn path_of(name: &str) -> Option<PathBuf> {
    name.strip_prefix(PREFIX).map(PathBuf::from).filter(|path| is_place(path))
}

/// See the module's text.
#[derive(Debug)]
pub struct Mount {
    /// Its name, and what it is doing.
    pub control: Arc<Control>,
    /// What to show; nothing when it should not be there.
    pub told: watch::Sender<Option<Told>>,
    path: PathBuf,
    flists: Arc<Noted>,
}

impl Mount {
    /// One that nobody has told of.
    pub fn new(path: PathBuf, flists: Arc<Noted>, memory: Arc<Memory>) -> Arc<Self> {
        // What an earlier manager has left there is not looked at yet.
        let control = Control::new(&name_of(&path), ServiceState::Starting, memory);
        Arc::new(Self { control, told: watch::Sender::new(None), path, flists })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Tells it what to show; nothing happens when it knows.
    pub fn tell(&self, told: Option<Told>) {
        self.told.send_if_modified(|known| {
            let is_new = *known != told;
            *known = told;
            is_new
        });
    }

    /// Nobody tells of it, and nothing is mounted by it.
    pub fn is_over(&self) -> bool {
        let state = self.control.status.borrow().state;
        self.told.borrow().is_none() && matches!(state, ServiceState::Waiting | ServiceState::Stopped)
    }

    /// Keeps it, for as long as the node runs.
    pub async fn keep(self: Arc<Self>) {
        let mut wanted = self.control.wanted.subscribe();
        let mut told = self.told.subscribe();
        if self.control.past().is_some_and(|past| past.state == ServiceState::Stopped) {
            self.control.wanted.send_replace(false);
        }
        let mut pause = PAUSE;
        loop {
            let (is_wanted, shown) = (*wanted.borrow_and_update(), told.borrow_and_update().clone());
            let done = match shown.clone().filter(|_| is_wanted) {
                Some(shown) => self.show(shown).await,
                None => self.hide().await,
            };
            match (done, is_wanted, shown) {
                (Ok(()), true, Some(shown)) => {
                    self.change(ServiceState::Ready, "");
                    let since = Instant::now();
                    tokio::select! {
                        why = self.gone(&shown) => self.change(ServiceState::Pausing, &why),
                        changed = told.changed() => match changed {
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
                        changed = told.changed() => if changed.is_err() { return },
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
                (Err(why), ..) => self.change(ServiceState::Pausing, &why),
            }
            tokio::select! {
                () = sleep(pause) => pause = (pause * 2).min(PAUSE_MAX),
                changed = told.changed() => if changed.is_err() { return } else { pause = PAUSE },
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
