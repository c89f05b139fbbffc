//! The boot of a machine: named stages, in order. PID 1, the small `core0-init`, runs the first ones; its manager runs the
//! others beside its own start, and again when it was started anew, so each can be run twice.
//!
//! A stage that fails is shown on the console with why. The machine goes on or tries again; it never halts.

pub mod arguments;
pub mod bootstrap;
mod clock;
pub mod console;
pub mod drivers;
pub mod early;
pub mod line;
pub mod network;

use std::net::IpAddr;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, join, join_all, pending};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::paths::Paths;
use crate::redis::server::{ListenError, Server};
use crate::service::Summary;
use crate::sys::netlink;
use crate::sys::tool::ToolError;
use arguments::Arguments;
use console::Console;
use line::State;

/// Pauses before a stage is tried again, in seconds.
const PAUSE: [u64; 5] = [1, 2, 5, 10, 30];
/// How long the boot waits for services; after that it goes on, and says what they wait for.
const SERVICES: Duration = Duration::from_secs(3);

/// All stages. The overlay network, updates and the private file system come between `network` and `redis`.
pub const STAGES: [Stage; 7] = [
    Stage { name: early::STAGES[0].0, run: Run::Pid1, on_failure: OnFailure::GoOn },
    Stage { name: early::STAGES[1].0, run: Run::Pid1, on_failure: OnFailure::GoOn },
    Stage { name: "drivers", run: Run::Beside(|_| drivers::load().boxed()), on_failure: OnFailure::GoOn },
    Stage {
        name: "network",
        run: Run::Manager(|boot| boot.network_is_up().boxed()),
        on_failure: OnFailure::Again,
    },
    Stage {
        name: "redis",
        run: Run::Manager(|boot| boot.redis_listens().boxed()),
        on_failure: OnFailure::Again,
    },
    Stage {
        name: "bootstrap",
        run: Run::Manager(|boot| boot.bootstrap_is_known().boxed()),
        on_failure: OnFailure::GoOn,
    },
    Stage {
        name: "services",
        run: Run::Manager(|boot| boot.services_run().boxed()),
        on_failure: OnFailure::Later,
    },
];

/// A step of a boot.
pub struct Stage {
    /// What the console calls it.
    pub name: &'static str,
    /// What it does.
    pub run: Run,
    /// What happens when it fails.
    pub on_failure: OnFailure,
}

/// Who runs a stage. It returns what the console should say.
pub enum Run {
    /// PID 1, of which the manager is the child.
    Pid1,
    /// The manager.
    Manager(Work),
    /// The manager, beside all others: nobody waits until it is through.
    Beside(Work),
}

/// What the manager does in a stage.
type Work = fn(&Boot) -> BoxFuture<'_, Result<String, StageError>>;

/// What happens when a stage fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// The next one is run.
    GoOn,
    /// It is run again after a pause.
    Again,
    /// The next one is run, and what this one waits for comes while the machine runs.
    Later,
}

/// Why a stage failed.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// A tool does not do its work.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// Some devices have no driver, since it does not answer; the others have theirs.
    #[error("{loaded}, but not for {alias}: {why}")]
    Drivers {
        /// What is there.
        loaded: String,
        /// The first kind of device that has none, as its `modalias` says.
        alias: String,
        /// Why.
        why: ToolError,
    },
    /// The network.
    #[error(transparent)]
    Network(#[from] network::NetworkError),
    /// Links and addresses.
    #[error(transparent)]
    Netlink(#[from] netlink::Error),
    /// redis does not listen.
    #[error(transparent)]
    Redis(#[from] ListenError),
    /// There is no bootstrap file to follow.
    #[error("{0}")]
    Bootstrap(bootstrap::follow::Shown),
    /// Some services are not ready.
    #[error("{0}")]
    Services(Summary),
    /// The manager ends.
    #[error("the node is being stopped")]
    Stopped,
}

/// What the manager has once it is up.
#[derive(Clone)]
pub struct Up {
    /// Its redis.
    pub server: Server,
    /// How its services are, once they are started.
    pub services: Option<Summary>,
}

/// Where the password of others comes from.
pub enum Password {
    /// From the kernel's arguments or the configuration.
    Own,
    /// From the bootstrap file; its SHA-256, if one was kept.
    Told(Option<String>),
}

/// The manager's part of a boot.
pub struct Boot {
    console: Console,
    paths: Paths,
    network: watch::Receiver<network::State>,
    bootstrap: watch::Receiver<bootstrap::follow::State>,
    manager: watch::Receiver<Option<Up>>,
    /// The password that the bootstrap file gives, as redis knows it; nothing when the administrator has another one that
    /// goes before.
    let_in: Option<Mutex<Option<String>>>,
    /// The addresses that redis was told last.
    listens_at: Mutex<Option<Vec<IpAddr>>>,
}

impl Boot {
    /// Begins: the loopback, which redis needs, and the search for a network, which takes its time.
    pub async fn begin(
        paths: Paths,
        arguments: Arguments,
        password: Password,
        manager: watch::Receiver<Option<Up>>,
        mounts: watch::Receiver<bootstrap::mounts::Mounts>,
    ) -> Result<Self, StageError> {
        network::loopback().await?;
        let let_in = match password {
            Password::Own => None,
            Password::Told(hash) => Some(Mutex::new(hash)),
        };
        let console = Console::open();
        for refused in &arguments.refused {
            console.say(refused);
        }
        // Before anything is judged by it.
        if let Some(said) = clock::no_earlier_than_the_image(&paths.manifest()) {
            console.say(&said);
        }
        if let Some(network) = &arguments.zerotier {
            console
                .say(&format!("zerotier={network} is not joined yet: this node can join no overlay network"));
        }
        for stage in &STAGES {
            if matches!(stage.run, Run::Pid1) {
                console.is_done_already(stage.name);
            }
        }
        let named = bootstrap::medium::named(arguments.bootstrap, paths.medium(), &paths.bootstrap());
        let (controllers, told) = watch::channel(Vec::new());
        let network = network::start(paths.net(), paths.run(), named.clone(), told);
        let setup = bootstrap::follow::Setup {
            named,
            key: paths.bootstrap_key(),
            kept: paths.bootstrap(),
            manifest: paths.manifest(),
            controllers,
            mounts,
        };
        let bootstrap = bootstrap::follow::start(setup, network.clone());
        Ok(Self { console, paths, network, bootstrap, manager, let_in, listens_at: Mutex::default() })
    }

    /// What the node knows of its bootstrap file.
    pub fn bootstrap(&self) -> watch::Receiver<bootstrap::follow::State> {
        self.bootstrap.clone()
    }

    /// Runs the manager's stages, and then shows for ever what changes.
    pub async fn run(self) {
        let beside = STAGES.iter().filter_map(|stage| match stage.run {
            Run::Beside(run) => Some(self.stage(stage, run)),
            Run::Pid1 | Run::Manager(_) => None,
        });
        let in_order = async {
            for stage in &STAGES {
                match stage.run {
                    Run::Manager(run) => self.stage(stage, run).await,
                    Run::Pid1 | Run::Beside(_) => {}
                }
            }
            self.console.page();
            self.follow().await;
        };
        join(join_all(beside), in_order).await;
    }

    /// Runs a stage until it is through, or given up.
    async fn stage(&self, stage: &Stage, run: Work) {
        for pause in PAUSE.iter().chain(std::iter::repeat(&PAUSE[PAUSE.len() - 1])) {
            self.console.set(stage.name, State::Runs);
            match (run(self).await, stage.on_failure) {
                (Ok(result), _) => return self.console.set(stage.name, State::Done(result)),
                (Err(e), OnFailure::GoOn) => {
                    return self.console.set(stage.name, State::Failed(e.to_string()));
                }
                (Err(e), OnFailure::Later) => {
                    return self.console.set(stage.name, State::Waits(e.to_string()));
                }
                (Err(e), OnFailure::Again) => {
                    self.console.set(stage.name, State::Waits(format!("{e}; again in {pause} s")));
                    tokio::time::sleep(Duration::from_secs(*pause)).await;
                }
            }
        }
    }

    /// Waits until there is a network, and says meanwhile what for.
    async fn network_is_up(&self) -> Result<String, StageError> {
        let mut network = self.network.clone();
        loop {
            let state = network.borrow_and_update().clone();
            let addresses = state.addresses();
            match state {
                network::State::Up(up) => return Ok(up.to_string()),
                network::State::Searching { why, .. } => self.console.set("network", State::Waits(why)),
            }
            // Without a controller, somebody on the configured network can reach the node all the same.
            let listens = async {
                match self.redis_listens().await {
                    Ok(result) if !addresses.is_empty() => self.console.set("redis", State::Done(result)),
                    Ok(_) => {}
                    Err(e) => self.console.set("redis", State::Waits(e.to_string())),
                }
                std::future::pending().await
            };
            tokio::select! {
                changed = network.changed() => changed.map_err(|_| StageError::Stopped)?,
                () = listens => {}
            }
        }
    }

    async fn redis_listens(&self) -> Result<String, StageError> {
        let server = self.manager_is_up().await?.server;
        self.let_in(&server).await?;
        if !server.is_for_others() {
            return Ok("on the loopback alone: redis.sha256=, the hash of a password, opens it".into());
        }
        let addresses = self.addresses();
        // Each time redis closes its sockets and opens them anew, and cuts off who waits to be accepted.
        if self.listens_at.lock().as_ref() != Some(&addresses) {
            server.listen(&self.paths, &addresses).await?;
            *self.listens_at.lock() = Some(addresses.clone());
        }
        let list: Vec<String> =
            addresses.iter().map(|address| format!("{address}:{}", server.port)).collect();
        Ok(list.join(" "))
    }

    /// Has the password hold that the bootstrap file gives, if that goes before no other.
    async fn let_in(&self, server: &Server) -> Result<(), StageError> {
        let Some(let_in) = &self.let_in else { return Ok(()) };
        let document = self.bootstrap.borrow().document.clone();
        let told = document.and_then(|document| document.redis.clone()).map(|redis| redis.password_sha256.0);
        let known = let_in.lock().clone();
        if told != known {
            server.let_in(&self.paths, told.as_deref()).await?;
            *let_in.lock() = told;
            // With nobody to let in it listens nowhere, and with somebody where it did not.
            server.listen(&self.paths, &self.addresses()).await?;
            *self.listens_at.lock() = Some(self.addresses());
        }
        Ok(())
    }

    /// Waits until the server of the bootstrap file was asked for the first time.
    async fn bootstrap_is_known(&self) -> Result<String, StageError> {
        let mut bootstrap = self.bootstrap.clone();
        let state = bootstrap.wait_for(|state| state.asked).await.map_err(|_| StageError::Stopped)?;
        match (&state.document, state.shown.trouble.is_empty()) {
            (None, false) => Err(StageError::Bootstrap(state.shown.clone())),
            (Some(_), _) | (None, true) => Ok(state.shown.to_string()),
        }
    }

    /// Waits until the services are started, and for a moment until they are ready.
    async fn services_run(&self) -> Result<String, StageError> {
        let mut manager = self.manager.clone();
        let are_there = |up: &Option<Up>| services(up).is_some();
        drop(manager.wait_for(are_there).await.map_err(|_| StageError::Stopped)?);
        let are_well = manager.wait_for(|up| services(up).is_some_and(Summary::is_well));
        // What is not ready in time is said, and followed.
        let _ = timeout(SERVICES, are_well).await;
        let summary = services(&self.manager.borrow()).cloned().unwrap_or_default();
        if summary.is_well() { Ok(summary.to_string()) } else { Err(StageError::Services(summary)) }
    }

    async fn manager_is_up(&self) -> Result<Up, StageError> {
        let mut manager = self.manager.clone();
        let up = manager.wait_for(Option::is_some).await.map_err(|_| StageError::Stopped)?;
        Ok(up.clone().expect("that was waited for"))
    }

    fn addresses(&self) -> Vec<IpAddr> {
        self.network.borrow().addresses()
    }

    /// Goes with the network, which comes and goes: the console says it, and redis listens where it can be reached. It says what
    /// services wait for, too.
    async fn follow(&self) {
        let (mut network, mut bootstrap) = (self.network.clone(), self.bootstrap.clone());
        let mut manager = self.manager.clone();
        let mut pauses = PAUSE.iter().peekable();
        loop {
            let state = network.borrow_and_update().clone();
            match &state {
                network::State::Up(up) => self.console.set("network", State::Done(up.to_string())),
                network::State::Searching { why, .. } => {
                    self.console.set("network", State::Waits(why.clone()));
                }
            }
            let known = bootstrap.borrow_and_update().clone();
            self.console.set(
                "bootstrap",
                match (&known.document, known.shown.trouble.is_empty()) {
                    (None, false) => State::Waits(known.shown.to_string()),
                    (Some(_), _) | (None, true) => State::Done(known.shown.to_string()),
                },
            );
            let summary = services(&manager.borrow_and_update()).cloned();
            match summary {
                Some(summary) if summary.is_well() => {
                    self.console.set("services", State::Done(summary.to_string()));
                }
                Some(summary) => self.console.set("services", State::Waits(summary.to_string())),
                None => {}
            }
            let again = match self.redis_listens().await {
                Ok(result) => {
                    self.console.set("redis", State::Done(result));
                    pauses = PAUSE.iter().peekable();
                    None
                }
                Err(e) => {
                    let pause = pauses.next_if(|pause| **pause < PAUSE[PAUSE.len() - 1]);
                    let pause = *pause.unwrap_or(&PAUSE[PAUSE.len() - 1]);
                    self.console.set("redis", State::Waits(format!("{e}; again in {pause} s")));
                    Some(Duration::from_secs(pause))
                }
            };
            tokio::select! {
                changed = network.changed() => if changed.is_err() { return },
                changed = bootstrap.changed() => if changed.is_err() { return },
                () = changes(&mut manager) => {}
                () = tokio::time::sleep(again.unwrap_or_default()), if again.is_some() => {}
            }
        }
    }
}

/// Waits until the manager tells something new. One that ends tells nothing more, and the network is followed to the end.
async fn changes(manager: &mut watch::Receiver<Option<Up>>) {
    if manager.changed().await.is_err() {
        pending().await
    }
}

/// How the services are, once they are started.
fn services(up: &Option<Up>) -> Option<&Summary> {
    up.as_ref()?.services.as_ref()
}

#[cfg(test)]
mod tests;
