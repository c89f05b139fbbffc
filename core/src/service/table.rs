//! All services of a node: reading their units, starting, stopping and listing them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};

use super::condition;
use super::graph::{self, BUILT_IN, Order};
use super::memory::Memory;
use super::status::{ServiceState, Status};
use super::supervise::{Other, Service};
use super::unit::{Unit, UnitError, read_all};
use crate::command::CommandError;
use crate::log::{Logs, Record, Tap};
use crate::process::Process;
use crate::spawner::{Child, Spawner};

/// How long one that is killed may take to be gone, or that ends by itself to say so.
const KILLED: Duration = Duration::from_millis(200);
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
            let mut status = service.status.subscribe();
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
            stop(&service).await;
            self.memory.forget(&service.name);
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
        // A service that was skipped has no task: nobody waits for it.
        let after: Vec<Other> = unit
            .after
            .iter()
            .filter_map(|other| table.running.get(other))
            .map(|service| Other { name: service.name.clone(), status: service.status.subscribe() })
            .collect();
        if let Some(service) = table.running.get(name) {
            *service.unit.lock() = unit;
            *service.after.lock() = after;
            return;
        }
        let service = Service::new(name, unit, after, self.memory.clone());
        table.running.insert(name.into(), service.clone());
        tokio::spawn(service.keep(self.parts.clone(), kept));
    }

    /// All of them, by name.
    pub fn list(&self) -> BTreeMap<String, Status> {
        let table = self.table.lock();
        let mut list = table.idle.clone();
        for (name, service) in &table.running {
            let mut status = service.status.borrow().clone();
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

    fn get(&self, name: &str) -> Result<Arc<Service>, CommandError> {
        let table = self.table.lock();
        match (table.running.get(name), table.idle.get(name)) {
            (Some(service), _) => Ok(service.clone()),
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
            stop(&service).await;
        }
        service.wanted.send_replace(true);
        Ok(())
    }

    /// Stops it, and says so when it is stopped. Who comes after it goes on.
    pub async fn stop(&self, name: &str) -> Result<(), CommandError> {
        let service = self.get(name)?;
        stop(&service).await;
        Ok(())
    }

    /// Stops it and lets it run again.
    pub async fn restart(&self, name: &str) -> Result<(), CommandError> {
        let service = self.get(name)?;
        stop(&service).await;
        service.wanted.send_replace(true);
        Ok(())
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
        let levels: Vec<Vec<Arc<Service>>> = {
            let table = self.table.lock();
            let of = |level: &Vec<String>| {
                level.iter().filter_map(|name| table.running.get(name).cloned()).collect()
            };
            table.levels.iter().rev().map(of).collect()
        };
        let deadline = Instant::now() + limit;
        let wanted: Vec<Duration> = levels.iter().map(|level| wanted(level)).collect();
        for (place, level) in levels.iter().enumerate() {
            let share = fair(&wanted[place..], deadline.saturating_duration_since(Instant::now()));
            if timeout(share, join_all(level.iter().map(|service| stop(service)))).await.is_ok() {
                continue;
            }
            for service in level.iter().filter(|service| service.status.borrow().pid != 0) {
                tracing::warn!("service {} did not end in time: it is killed", service.name);
                service.late.send_replace(true);
            }
            if timeout(KILLED, join_all(level.iter().map(|service| stop(service)))).await.is_err() {
                tracing::warn!("some services do not end although they are killed");
            }
        }
    }
}

/// How long those of a level that runs want to end, at most.
fn wanted(level: &[Arc<Service>]) -> Duration {
    let running = level.iter().filter(|service| service.status.borrow().pid != 0);
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

async fn stop(service: &Service) {
    let mut status = service.status.subscribe();
    let mut wanted = service.wanted.subscribe();
    service.wanted.send_replace(false);
    // The task lives as long as the service. It may never see that it was stopped, when somebody starts it at once.
    tokio::select! {
        _ = status.wait_for(|status| status.state == ServiceState::Stopped && status.pid == 0) => {}
        _ = wanted.wait_for(|wanted| *wanted) => {}
    }
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
