//! All services of a node: reading their units, starting, stopping and listing them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

use super::condition;
use super::control::Control;
use super::graph::{self, BUILT_IN, Order};
use super::memory::Memory;
use super::mount::{Mount, name_of, path_of};
use super::status::{ServiceState, Status};
use super::supervise::{Other, Service};
use super::unit::{Unit, UnitError, read_all};
use crate::command::CommandError;
use crate::domain::flist::{Noted, Told};
use crate::log::{Logs, Record, Tap};
use crate::process::Process;
use crate::spawner::{Child, Spawner};

/// How long one that is killed may take to be gone, or that ends by itself to say so.
const KILLED: Duration = Duration::from_millis(200);
/// How long mounts may take to end: what is late is ended with all else that the node has mounted.
const UNMOUNTED: Duration = Duration::from_millis(700);
/// How long a task may take to have its process.
const TAKEN: Duration = Duration::from_millis(500);

/// What services need of the node.
#[derive(Clone, Debug)]
pub struct Parts {
    /// Starts processes.
    pub spawner: Spawner,
    /// Takes their output.
    pub logs: Arc<Logs>,
    /// The folder with the units.
    pub units: PathBuf,
    /// The folder for notify sockets, and for what became of services.
    pub notify_dir: PathBuf,
    /// The kernel's arguments.
    pub cmdline: String,
    /// Most processes and threads of one whose unit does not say.
    pub processes: u64,
    /// Mounts flists.
    pub flists: Arc<Noted>,
}

impl Parts {
    /// What to start, with its bound.
    pub(super) fn bound(&self, process: Process) -> Process {
        Process { processes: process.processes.or(Some(self.processes)), ..process }
    }
}

/// See the module's text.
#[derive(Debug)]
pub struct Services {
    parts: Parts,
    memory: Arc<Memory>,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    running: BTreeMap<String, Arc<Service>>,
    /// Those that the node was told of, and those that units wait for.
    mounts: BTreeMap<String, (Arc<Mount>, AbortHandle)>,
    /// Units without a task: at fault, or not for this node.
    idle: BTreeMap<String, Status>,
    /// Who comes after whom, for stopping.
    levels: Vec<Vec<String>>,
}

impl Services {
    /// No services yet; but what became of them under an earlier manager is known.
    pub fn new(parts: Parts) -> Self {
        let memory = Arc::new(Memory::open(parts.notify_dir.join("services.json"), parts.spawner.clone()));
        Self { parts, memory, table: Mutex::default() }
    }

    /// Reads the units and starts what is new. What an earlier manager kept is taken over; what no unit names any more
    /// is stopped. Changed units count from the next start of their service on.
    pub async fn reload(&self, kept: &mut HashMap<String, Child>) -> Result<(), UnitError> {
        self.read(kept, |_| true).await
    }

    /// Takes over what an earlier manager kept, and starts nothing: it is going to be stopped.
    pub async fn take_over(&self, kept: &mut HashMap<String, Child>) -> Result<(), UnitError> {
        let names: BTreeSet<String> = kept.keys().cloned().collect();
        self.read(kept, |name| names.contains(name)).await?;
        let running: Vec<_> = self.table.lock().running.values().cloned().collect();
        // Before that it does not know its process.
        let taken = running.iter().map(async |service| {
            let mut status = service.control.status.subscribe();
            // The task lives as long as the service.
            let _ = status.wait_for(|status| status.state != ServiceState::Waiting).await;
        });
        if timeout(TAKEN, join_all(taken)).await.is_err() {
            tracing::warn!("some services of an earlier manager are killed");
        }
        Ok(())
    }

    async fn read(
        &self,
        kept: &mut HashMap<String, Child>,
        is_meant: impl Fn(&str) -> bool,
    ) -> Result<(), UnitError> {
        let read = read_all(&self.parts.units)?;
        let mut idle: BTreeMap<String, Status> = BTreeMap::new();
        let mut units: BTreeMap<String, Unit> = BTreeMap::new();
        for (name, unit) in read {
            match unit {
                Ok(_) if BUILT_IN.contains(&name.as_str()) => {
                    idle.insert(name, Status::new(ServiceState::Failed, "core0 has a service of this name"));
                }
                Ok(unit) => drop(units.insert(name, unit)),
                Err(error) => drop(idle.insert(name, Status::new(ServiceState::Failed, error.to_string()))),
            }
        }
        // A unit that cannot be read is there all the same: who comes after it waits, and is told why.
        let broken: Vec<String> = idle.keys().cloned().collect();
        let Order { mut levels, faults } = graph::order(&units, &broken);
        for (name, fault) in faults {
            units.remove(&name);
            idle.insert(name, Status::new(ServiceState::Failed, fault));
        }
        for (name, status) in &idle {
            tracing::error!("service {name} cannot be started: {}", status.reason);
        }
        let vanished = {
            let mut table = self.table.lock();
            self.tidy(&mut table);
            // What runs goes on as it was when its unit is at fault now. It is stopped with the first.
            levels.push(idle.keys().filter(|name| table.running.contains_key(*name)).cloned().collect());
            for name in levels.iter().flatten().filter(|name| is_meant(name)) {
                let Some(unit) = units.remove(name) else { continue };
                self.add(&mut table, name, unit, kept.remove(name), &mut idle);
            }
            let named = |name: &String| levels.iter().flatten().any(|known| known == name);
            let gone: Vec<String> = table.running.keys().filter(|name| !named(name)).cloned().collect();
            let vanished: Vec<_> = gone.iter().filter_map(|name| table.running.remove(name)).collect();
            (table.levels, table.idle) = (levels, idle);
            vanished
        };
        for service in vanished {
            service.control.stop().await;
            self.memory.forget(&service.control.name);
        }
        Ok(())
    }

    fn add(
        &self,
        table: &mut Table,
        name: &str,
        unit: Unit,
        kept: Option<Child>,
        idle: &mut BTreeMap<String, Status>,
    ) {
        let holds = unit.condition.as_deref().map_or(Ok(true), |c| condition::holds(c, &self.parts.cmdline));
        if holds != Ok(true) {
            idle.insert(name.into(), Status::new(ServiceState::Skipped, "its condition does not hold"));
            return;
        }
        let after: Vec<Other> = unit.after.iter().filter_map(|other| self.other(table, other)).collect();
        if let Some(service) = table.running.get(name) {
            *service.unit.lock() = unit;
            *service.after.lock() = after;
            return;
        }
        let service = Service::new(name, unit, after, self.memory.clone());
        table.running.insert(name.into(), service.clone());
        tokio::spawn(service.keep(self.parts.clone(), kept));
    }

    /// One that another comes after. A service that was skipped has no task: nobody waits for it.
    fn other(&self, table: &mut Table, name: &str) -> Option<Other> {
        let control = match path_of(name) {
            Some(path) => self.mount(table, &path).control.clone(),
            None => table.running.get(name)?.control.clone(),
        };
        Some(Other { name: name.into(), status: control.status.subscribe() })
    }

    /// The mount of a path, which keeps itself from now on.
    fn mount(&self, table: &mut Table, path: &Path) -> Arc<Mount> {
        let new = || {
            let mount = Mount::new(path.into(), self.parts.flists.clone(), self.memory.clone());
            let task = tokio::spawn(mount.clone().keep());
            (mount, task.abort_handle())
        };
        table.mounts.entry(name_of(path)).or_insert_with(new).0.clone()
    }

    /// Drops mounts of which nobody tells any more and for which no unit waits.
    fn tidy(&self, table: &mut Table) {
        let waits = |name: &String| table.running.values().any(|service| service.comes_after(name));
        let over = table.mounts.iter().filter(|(name, (mount, _))| mount.is_over() && !waits(name));
        let over: Vec<String> = over.map(|(name, _)| name.clone()).collect();
        for name in over {
            if let Some((_, task)) = table.mounts.remove(&name) {
                task.abort();
            }
            self.memory.forget(&name);
        }
    }

    /// These are the mounts that the node is told of, and no others any more: what an earlier manager mounted and what was told
    /// before is ended. All those that there are now, with what they are doing.
    pub fn show(&self, told: &BTreeMap<PathBuf, Told>) -> Vec<(PathBuf, watch::Receiver<Status>)> {
        let before = self.parts.flists.told().unwrap_or_else(|e| {
            tracing::error!("mounts of an earlier manager may stay: {e}");
            Vec::new()
        });
        let mut table = self.table.lock();
        for path in before.iter().chain(told.keys()) {
            self.mount(&mut table, path);
        }
        for (mount, _) in table.mounts.values() {
            mount.tell(told.get(mount.path()).cloned());
        }
        self.tidy(&mut table);
        let there = table.mounts.values().filter(|(mount, _)| !mount.is_over());
        there.map(|(mount, _)| (mount.path().into(), mount.control.status.subscribe())).collect()
    }

    /// All of them, by name.
    pub fn list(&self) -> BTreeMap<String, Status> {
        let mut table = self.table.lock();
        self.tidy(&mut table);
        let mut list = table.idle.clone();
        for (name, (mount, _)) in &table.mounts {
            list.insert(name.clone(), mount.control.status.borrow().clone());
        }
        for (name, service) in &table.running {
            let mut status = service.control.status.borrow().clone();
            if let Some(idle) = table.idle.get(name) {
                status.reason = format!("it runs as before: {}", idle.reason);
            }
            list.insert(name.clone(), status);
        }
        list
    }

    /// One of them.
    pub fn status(&self, name: &str) -> Result<Status, CommandError> {
        self.list().remove(name).ok_or_else(|| unknown(name))
    }

    fn get(&self, name: &str) -> Result<Arc<Control>, CommandError> {
        let table = self.table.lock();
        if let Some((mount, _)) = table.mounts.get(name) {
            return Ok(mount.control.clone());
        }
        match (table.running.get(name), table.idle.get(name)) {
            (Some(service), _) => Ok(service.control.clone()),
            (None, Some(idle)) => {
                Err(CommandError::precondition(format!("service {name} cannot run: {}", idle.reason)))
            }
            (None, None) => Err(unknown(name)),
        }
    }

    /// Lets it run. One that failed or ended runs again.
    pub async fn start(&self, name: &str) -> Result<(), CommandError> {
        let service = self.get(name)?;
        let state = service.status.borrow().state;
        if matches!(state, ServiceState::Failed | ServiceState::Ended | ServiceState::Done) {
            service.stop().await;
        }
        service.wanted.send_replace(true);
        Ok(())
    }

    /// Stops it, and says so when it is stopped, or why a mount cannot be ended. Who comes after it goes on.
    pub async fn stop(&self, name: &str) -> Result<(), CommandError> {
        let service = self.get(name)?;
        let mount = self.table.lock().mounts.get(name).map(|(mount, _)| mount.clone());
        match mount {
            Some(mount) => mount
                .stop()
                .await
                .map_err(|why| CommandError::unavailable(format!("{name} is not stopped yet: {why}")))?,
            None => service.stop().await,
        }
        Ok(())
    }

    /// Stops it and lets it run again, also when it could not be stopped.
    pub async fn restart(&self, name: &str) -> Result<(), CommandError> {
        let service = self.get(name)?;
        let stopped = self.stop(name).await;
        service.wanted.send_replace(true);
        stopped
    }

    /// The last messages of a service.
    pub fn logs(&self, name: &str, count: usize) -> Result<Vec<Record>, CommandError> {
        self.status(name)?;
        let tap = Tap { stream: String::new(), levels: Vec::new(), source: Some(Service::source(name)) };
        Ok(self.parts.logs.last(&tap, count))
    }

    /// Stops all, each after those that come after it. A level of them has what its units want of `limit`, or its [`fair`] share;
    /// what is late then is killed, and the next level has its turn.
    pub async fn stop_all(&self, limit: Duration) {
        self.memory.close();
        let (levels, mounts): (Vec<Vec<Arc<Service>>>, Vec<Arc<Control>>) = {
            let table = self.table.lock();
            let of = |level: &Vec<String>| {
                level.iter().filter_map(|name| table.running.get(name).cloned()).collect()
            };
            let mounts = table.mounts.values().map(|(mount, _)| mount.control.clone()).collect();
            (table.levels.iter().rev().map(of).collect(), mounts)
        };
        let deadline = Instant::now() + limit;
        let mut wanted: Vec<Duration> = levels.iter().map(|level| wanted(level)).collect();
        if !mounts.is_empty() {
            wanted.push(UNMOUNTED);
        }
        for (place, level) in levels.iter().enumerate() {
            let share = fair(&wanted[place..], deadline.saturating_duration_since(Instant::now()));
            if timeout(share, join_all(level.iter().map(|service| service.control.stop()))).await.is_ok() {
                continue;
            }
            for service in level.iter().filter(|service| service.control.status.borrow().pid != 0) {
                tracing::warn!("service {} did not end in time: it is killed", service.control.name);
                service.late.send_replace(true);
            }
            if timeout(KILLED, join_all(level.iter().map(|service| service.control.stop()))).await.is_err() {
                tracing::warn!("some services do not end although they are killed");
            }
        }
        // No service has them any more. One whose flist is being asked for, of a server that does not answer, takes its time.
        let share = fair(&[UNMOUNTED], deadline.saturating_duration_since(Instant::now()));
        if timeout(share, join_all(mounts.iter().map(|mount| mount.stop()))).await.is_err() {
            tracing::warn!("some mounts did not end in time");
        }
    }
}

/// How long those of a level that runs want to end, at most.
fn wanted(level: &[Arc<Service>]) -> Duration {
    let running = level.iter().filter(|service| service.control.status.borrow().pid != 0);
    // The end of one that is killed in its own time is waited for.
    running.map(|service| service.unit.lock().stop_timeout() + KILLED).max().unwrap_or(KILLED)
}

/// What the first of these has of what is left: who wants little has that, and the others the same.
fn fair(wanted: &[Duration], mut left: Duration) -> Duration {
    let mut modest = wanted.to_vec();
    modest.sort_unstable();
    let mut others = modest.len() as u32;
    for want in modest {
        let share = left / others;
        if want > share {
            return share.min(wanted[0]);
        }
        (left, others) = (left - want, others - 1);
    }
    wanted[0]
}

fn unknown(name: &str) -> CommandError {
    CommandError::not_found(format!("there is no service {name}: service.list lists all"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_wants_little_has_it_and_the_others_the_same() {
        for (wanted, left, first) in [
            ([2, 2, 2], 12, 2),
            ([9, 9, 9], 12, 4),
            ([9, 2, 2], 12, 8),
            ([2, 9, 9], 12, 2),
            ([1000, 2, 1000], 12, 5),
            ([3, 1, 9], 6, 2),
            ([9, 9, 9], 0, 0),
        ] {
            let seconds = wanted.map(Duration::from_secs);
            assert_eq!(fair(&seconds, Duration::from_secs(left)).as_secs(), first, "{wanted:?} of {left}");
        }
    }
}
