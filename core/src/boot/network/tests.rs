//! In network namespaces, against real DHCP servers. The NICs are of kind veth, as their cables end in another namespace.

mod absurd;
mod far;
mod last_resort;
mod later;
mod leases;
mod names;
mod planned;
mod routes;

use std::path::Path;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::edge::Files;
use super::keeper::Times;
use super::nics::Nics;
use super::search::{Search, Setup};
use super::{State, Up};
use crate::sys::namespace::in_new_network;
use far::{Far, sh};

/// How long anything may take before it is a hang.
const PATIENCE: Duration = Duration::from_secs(120);

/// A node whose files lie in a folder: a search that goes on until this is dropped, and what it says.
struct Node {
    search: JoinHandle<()>,
    seen: watch::Receiver<State>,
}

/// As that of a machine, but it waits no longer than tests can.
fn setup(folder: &Path) -> Setup {
    Setup {
        plan: folder.join("net.toml"),
        kept: folder.join("kept.toml"),
        files: Files { resolver: folder.join("resolv.conf"), addresses: folder.join("addresses") },
        nics: Nics { kind: "veth", patience: Duration::from_secs(2) },
        times: Times { lease: Duration::from_secs(5), cable: Duration::from_secs(3) },
        ..Setup::default()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.search.abort();
    }
}

impl Node {
    /// One that searches as a machine does, but waits no longer than tests can.
    async fn new(folder: &Path) -> Self {
        Self::with(folder, |_| {}).await
    }

    async fn with(folder: &Path, change: impl FnOnce(&mut Setup)) -> Self {
        super::loopback().await.unwrap();
        let mut setup = setup(folder);
        change(&mut setup);
        let (state, seen) =
            watch::channel(State::Searching { why: "its turn".into(), addresses: Vec::new() });
        let mut search = Search::new(setup, state);
        Self { search: tokio::spawn(async move { search.for_ever().await }), seen }
    }

    /// Ends it, as a manager is killed: nothing is taken back.
    async fn kill(mut self) {
        self.search.abort();
        assert!((&mut self.search).await.unwrap_err().is_cancelled());
    }

    /// Waits until the search says something.
    #[track_caller]
    fn until(&mut self, holds: impl Fn(&State) -> bool) -> impl Future<Output = State> {
        let caller = std::panic::Location::caller();
        async move {
            let mut said = Vec::new();
            let seen = async {
                loop {
                    let state = self.seen.borrow_and_update().clone();
                    said.push(state.clone());
                    if holds(&state) {
                        return state;
                    }
                    self.seen.changed().await.unwrap();
                }
            };
            let found = tokio::time::timeout(PATIENCE, seen).await;
            found.unwrap_or_else(|_| panic!("{caller}: it does not happen in time; it said {said:#?}"))
        }
    }

    /// Waits for a network.
    #[track_caller]
    fn until_up(&mut self) -> impl Future<Output = Up> {
        let up = self.until(|state| matches!(state, State::Up(_)));
        async move {
            match up.await {
                State::Up(up) => up,
                State::Searching { .. } => unreachable!("that was waited for"),
            }
        }
    }

    /// Waits until its network is as it should be, which it has all the time until then.
    #[track_caller]
    fn until_it_has(&mut self, holds: impl Fn(&Up) -> bool) -> impl Future<Output = State> {
        self.until(move |state| match state {
            State::Up(up) => holds(up),
            State::Searching { why, .. } => panic!("the network is lost: {why}"),
        })
    }

    /// Waits until it says what it waits for.
    #[track_caller]
    fn until_it_waits_for(&mut self, words: &str) -> impl Future<Output = State> {
        self.until(move |state| matches!(state, State::Searching { why, .. } if why.contains(words)))
    }

    fn plan(folder: &Path, text: &str) {
        std::fs::write(folder.join("net.toml"), text).unwrap();
    }
}
