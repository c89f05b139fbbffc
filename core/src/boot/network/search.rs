//! The search for a network: does what the machine says, one step after the other, and tells what it waits for.

mod hold;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::edge::{Edge, Files, wanted};
use super::keeper::{Note, Said, Times};
use super::last_resort::{self, CONTROLLER, Claim};
use super::machine::{Action, Candidate, Event, Machine, Way, Where};
use super::nics::{Nics, Seen};
use super::plan::{Address, Endpoint, Plan};
use super::{NetworkError, State, Up, reach, told};
use crate::boot::bootstrap::medium::Named;
use crate::sys::netlink::{self, Link, Netlink};

/// Notes of keepers that wait to be read; a keeper that has more to say waits.
const NOTES: usize = 16;
/// A pause is never shorter: links that change all the time would end each.
const SHORTEST: Duration = Duration::from_secs(1);
/// Where the controller of last resort listens when none is configured.
const LAST_RESORT_PORT: u16 = 443;

/// Where things are, and how long they may take.
pub struct Setup {
    /// `net.toml`.
    pub plan: PathBuf,
    /// The last one that made sense.
    pub kept: PathBuf,
    /// What is written.
    pub files: Files,
    /// Where the node gets its bootstrap file from.
    pub bootstrap: watch::Receiver<Named>,
    /// The controllers that it names.
    pub told: watch::Receiver<Vec<Endpoint>>,
    /// What NICs are.
    pub nics: Nics,
    /// How long leases and cables may take.
    pub times: Times,
    /// Where numbers of last resort come from.
    pub number: Box<dyn FnMut() -> u8 + Send + Sync>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            plan: PathBuf::new(),
            kept: PathBuf::new(),
            files: Files { resolver: PathBuf::new(), addresses: PathBuf::new() },
            bootstrap: watch::channel(Named::default()).1,
            told: watch::channel(Vec::new()).1,
            nics: Nics { kind: "", patience: Duration::from_secs(5) },
            times: Times { lease: Duration::from_secs(10), cable: Duration::from_secs(10) },
            number: Box::new(last_resort::random_number),
        }
    }
}

/// A keeper who asks for a lease, and the name of its link.
type Asked = (u64, String);

/// A search for a network.
pub struct Search {
    setup: Setup,
    state: watch::Sender<State>,
    edge: Edge,
    notes: mpsc::Receiver<Note>,
    plan: Plan,
    /// What is wrong with the file of the plan.
    refused: Option<String>,
    /// What is wrong with the plan, or with what it wants.
    trouble: Option<String>,
    /// Why this search has found nothing yet.
    reasons: Vec<String>,
    controller: Option<String>,
    /// The links that were there when they were set up as configured.
    there: Seen,
    /// Some could not be set up.
    broken: bool,
    /// When that was.
    set_up: Instant,
    /// There is a network, whatever is looked at again.
    holds: bool,
}

impl Search {
    /// One that has not begun.
    pub fn new(setup: Setup, state: watch::Sender<State>) -> Self {
        let (sender, notes) = mpsc::channel(NOTES);
        let edge = Edge::new(setup.nics, setup.files.clone(), setup.times, sender);
        Self {
            setup,
            state,
            edge,
            notes,
            plan: Plan::default(),
            refused: None,
            trouble: None,
            reasons: Vec::new(),
            controller: None,
            there: Seen::new(),
            broken: false,
            set_up: Instant::now(),
            holds: false,
        }
    }

    /// Searches, keeps what it found until it is lost, and searches again.
    pub async fn for_ever(&mut self) {
        let mut machine = Machine::new();
        loop {
            let event = self.perform(machine.action().clone()).await;
            machine.next(event);
        }
    }

    async fn perform(&mut self, action: Action) -> Event {
        let done = match &action {
            Action::Configure => {
                self.reasons.clear();
                match self.configure().await {
                    Ok(event) => return event,
                    Err(e) => Err(told(&e)),
                }
            }
            Action::Check(place) => self.check(*place).await,
            Action::Try(Way::Dhcp, nic) => self.lease(nic).await.map_err(|e| format!("{nic}: {e}")),
            Action::Try(Way::LastResort, nic) => self.claim(nic).await.map_err(|e| format!("{nic}: {e}")),
            Action::Restore(nic) => self.restore(nic).await.map_err(|e| format!("{nic}: {e}")),
            Action::Rest(pause) => {
                self.rest(*pause).await;
                Ok(())
            }
            Action::Hold(held) => {
                self.holds = true;
                let lasted = self.hold(held.as_ref()).await;
                self.holds = false;
                return Event::Lost(lasted);
            }
        };
        match done {
            Ok(()) => Event::Succeeded,
            Err(why) => {
                tracing::info!("{action:?}: {why}");
                self.reasons.push(why);
                Event::Failed
            }
        }
    }

    /// Sets all links up as configured.
    pub(super) async fn configure(&mut self) -> Result<Event, NetworkError> {
        self.waits("its links");
        self.refused = self.read_plan();
        let (links, mut asked) = self.set_up(self.setup.nics, None).await?;
        let fronts = self.setup.nics.fronts(&self.plan, &links);
        let fronts = fronts.inspect_err(|e| self.reasons.push(e.to_string())).unwrap_or_default();
        asked.retain(|(_, name)| links.iter().any(|link| link.name == *name && link.carrier));
        self.wait_for_leases(asked).await;
        self.resolve();
        let candidates = fronts.iter().map(|link| Candidate {
            nic: link.name.clone(),
            was_asked: wanted(self.setup.nics, &self.plan, link)
                .is_some_and(|(_, w)| w.address == Some(Address::Dhcp)),
        });
        Ok(Event::Configured { candidates: candidates.collect(), addressed: !self.edge.set().is_empty() })
    }

    /// Sets all links up as configured but one, which something else is tried on. It returns them, and the keepers who ask
    /// for leases with the names of their links.
    async fn set_up(
        &mut self,
        nics: Nics,
        but: Option<&str>,
    ) -> Result<(Vec<Link>, Vec<Asked>), NetworkError> {
        self.set_up = Instant::now();
        let mut broken = self.edge.make(&self.plan).await;
        let links = nics.look().await?;
        self.there = nics.seen(&self.plan, &links);
        self.edge.forget_all_but(&links).await;
        let mut asked = Vec::new();
        for link in links.iter().filter(|link| but != Some(&link.name)) {
            match self.edge.configure(&self.plan, link).await {
                Ok(keeper) => asked.extend(keeper.map(|keeper| (keeper, link.name.clone()))),
                Err(e) => broken.push(told(&e)),
            }
        }
        self.broken = !broken.is_empty();
        let trouble: Vec<String> = self.refused.iter().cloned().chain(broken).collect();
        self.trouble = Some(trouble.join("; ")).filter(|text| !text.is_empty());
        Ok((links, asked))
    }

    /// Reads the plan. One that makes no sense changes nothing: the last one that did is kept, also beyond the end of this
    /// process.
    fn read_plan(&mut self) -> Option<String> {
        match Plan::load(&self.setup.plan) {
            Ok(Some((plan, text))) => {
                self.plan = plan;
                let new = self.setup.kept.with_extension("new");
                let kept = fs::write(&new, text).and_then(|()| fs::rename(&new, &self.setup.kept));
                kept.err().map(|e| format!("cannot keep net.toml in {}: {e}", self.setup.kept.display()))
            }
            Ok(None) => {
                self.plan = Plan::default();
                None
            }
            Err(e) => {
                // It made sense when it was kept.
                if let Ok(Some((plan, _))) = Plan::load(&self.setup.kept) {
                    self.plan = plan;
                }
                Some(format!("{e} (the last one that made sense holds)"))
            }
        }
    }

    /// Waits until servers have answered, one way or the other.
    async fn wait_for_leases(&mut self, mut asked: Vec<Asked>) {
        let deadline = Instant::now() + self.setup.times.lease + SHORTEST;
        while !asked.is_empty() {
            let names: Vec<&str> = asked.iter().map(|(_, name)| name.as_str()).collect();
            self.waits(&format!("a lease on {}", names.join(", ")));
            let Ok(Some(note)) = timeout_at(deadline, self.notes.recv()).await else { return };
            let keeper = note.keeper;
            self.take_note(note).await;
            asked.retain(|(other, _)| *other != keeper);
        }
    }

    /// Looks for a controller, or without any for a route to everywhere and the bootstrap file's server.
    async fn check(&mut self, place: Where) -> Result<(), String> {
        self.resolve();
        self.controller = None;
        let endpoints = match place {
            Where::Configured => self.controllers(),
            Where::LastResort => self.controllers_of_last_resort(),
        };
        if !endpoints.is_empty() {
            let names: Vec<String> = endpoints.iter().map(Endpoint::to_string).collect();
            self.waits(&format!("a controller: {}", names.join(", ")));
            let found = reach::any(&endpoints).await.map_err(|why| format!("no controller: {why}"))?;
            self.controller = Some(found.to_string());
            return Ok(());
        }
        self.waits("a route to everywhere");
        let leads_out = async {
            let netlink = Netlink::open().await?;
            let (routes, links) = (netlink.routes().await?, netlink.links().await?);
            let works = |index| links.iter().any(|link: &Link| link.index == index && link.carrier);
            Ok(routes.iter().any(|route| route.destination.is_none() && works(route.link)))
        };
        let leads_out: Result<bool, netlink::Error> = leads_out.await;
        if !leads_out.map_err(|e| told(&e))? {
            return Err("no default route".into());
        }
        let named = self.setup.bootstrap.borrow().server.clone();
        match &named {
            Some(bootstrap) => {
                self.waits(&format!("the server of the bootstrap file, {bootstrap}"));
                let found = reach::any(std::slice::from_ref(bootstrap)).await;
                found.map(drop).map_err(|why| format!("no bootstrap file: {why}"))
            }
            None => Ok(()),
        }
    }

    /// Those of the plan, or else those of the bootstrap file. Beside the latter its server will do: what it named can be wrong,
    /// and it must be possible to hear that.
    fn controllers(&self) -> Vec<Endpoint> {
        if !self.plan.controllers.is_empty() {
            return self.plan.controllers.clone();
        }
        let mut told = self.setup.told.borrow().clone();
        if !told.is_empty() {
            told.extend(self.setup.bootstrap.borrow().server.clone());
        }
        told
    }

    /// The controllers' schemes and ports, at the one address.
    fn controllers_of_last_resort(&self) -> Vec<Endpoint> {
        let mut known: Vec<(String, u16)> =
            self.controllers().iter().map(|c| (c.url().scheme().to_owned(), c.port())).collect();
        known.sort();
        known.dedup();
        if known.is_empty() {
            known.push(("https".into(), LAST_RESORT_PORT));
        }
        known.iter().map(|(scheme, port)| at_last_resort(scheme, *port)).collect()
    }

    /// Gives a NIC a lease.
    async fn lease(&mut self, nic: &str) -> Result<(), String> {
        let link = self.link(nic).await?;
        let keeper = self.edge.try_lease(&link).await.map_err(|e| told(&e))?;
        self.waits(&format!("a lease on {nic}"));
        let deadline = Instant::now() + 2 * self.setup.times.lease;
        loop {
            let note = match timeout_at(deadline, self.notes.recv()).await {
                Ok(Some(note)) => note,
                Ok(None) | Err(_) => return Err("no lease".into()),
            };
            match note.said {
                Said::Over(why) if note.keeper == keeper => return Err(why),
                Said::Leased(setting) if note.keeper == keeper => {
                    return self.edge.leased(keeper, setting).await.map(drop).map_err(|e| told(&e));
                }
                Said::Over(_) | Said::Leased(_) => self.take_note(note).await,
            }
        }
    }

    /// Gives a NIC an address of last resort.
    async fn claim(&mut self, nic: &str) -> Result<(), String> {
        let link = self.link(nic).await?;
        self.edge.clear(nic).await.map_err(|e| told(&e))?;
        self.waits(&format!("an address of last resort on {nic} that nobody else has"));
        let claim = Claim::new(&link, &mut self.setup.number).await.map_err(|e| e.to_string())?;
        self.edge.try_claim(&link, claim).await.map_err(|e| told(&e))
    }

    /// Puts a NIC back as configured.
    async fn restore(&mut self, nic: &str) -> Result<(), String> {
        // Why it led nowhere.
        self.reasons.extend(self.edge.trouble_of(nic));
        if let Err(e) = self.edge.clear(nic).await {
            // It is tried once more, by whatever is configured.
            tracing::warn!("{nic}: {}", told(&e));
        }
        let link = self.link(nic).await?;
        self.edge.configure(&self.plan, &link).await.map(drop).map_err(|e| told(&e))
    }

    /// Waits a while, or until a cable is plugged in or pulled or a server gives a lease; not at all when there is a new NIC.
    pub(super) async fn rest(&mut self, pause: Duration) {
        self.resolve();
        self.reasons.dedup();
        let why = if self.reasons.is_empty() {
            "a network: the last one is lost".into()
        } else {
            self.reasons.join("; ")
        };
        self.waits(&format!("{why}; again in {} s", pause.as_secs()));
        let began = Instant::now();
        let (mut due, earliest) = (began + pause, began + SHORTEST.min(pause));
        // Where links cannot be watched, the pause alone decides.
        let mut changes = netlink::Changes::open().ok();
        loop {
            // What most machines wait for may have happened before there was a watch. Links that others make, as those of
            // containers, are no reason to search.
            let now = self.seen().await.unwrap_or_else(|_| self.there.clone());
            let is_new = |(link, cable): (&_, &Option<_>)| cable.is_some() && !self.there.contains_key(link);
            if now.iter().any(is_new) {
                // Once: it may be that the links cannot be set up.
                self.there = now;
                return;
            }
            if now != self.there {
                due = earliest;
            }
            tokio::select! {
                () = sleep_until(due) => return,
                () = changed(&mut changes) => {}
                Some(note) = self.notes.recv() => {
                    if matches!(note.said, Said::Leased(_)) {
                        due = earliest;
                    }
                    self.take_note(note).await;
                }
            }
        }
    }

    /// The links that decide about the network, as they are now.
    async fn seen(&self) -> Result<Seen, netlink::Error> {
        let links = Netlink::open().await?.links().await?;
        Ok(self.setup.nics.seen(&self.plan, &links))
    }

    /// What a keeper says becomes so.
    async fn take_note(&mut self, note: Note) {
        match note.said {
            Said::Leased(setting) => {
                if let Err(e) = self.edge.leased(note.keeper, setting).await {
                    self.breaks(&e);
                }
            }
            Said::Over(why) => {
                if let Some(name) = self.edge.over(note.keeper).await {
                    tracing::info!("{name}: {why}");
                    self.reasons.push(format!("{name}: {why}"));
                }
            }
        }
        self.resolve();
    }

    async fn link(&self, name: &str) -> Result<Link, String> {
        let found = async { Netlink::open().await?.link(name).await };
        found.await.map_err(|e| told(&e))
    }

    fn resolve(&mut self) {
        if let Err(e) = self.edge.resolve_by(&self.plan) {
            self.breaks(&e);
        }
    }

    /// Tells what could not be done, and has it tried again.
    fn breaks(&mut self, e: &NetworkError) {
        self.trouble = Some(told(e));
        self.broken = true;
    }

    fn waits(&self, what: &str) {
        if self.holds {
            return;
        }
        let why = match self.trouble() {
            Some(trouble) => format!("{what}; {trouble}"),
            None => what.to_owned(),
        };
        let addresses = self.edge.set().into_iter().map(|(_, setting)| setting.address.address).collect();
        self.tell(State::Searching { why, addresses });
    }

    fn tell(&self, state: State) {
        self.state.send_if_modified(|told| {
            let before = std::mem::replace(told, state);
            before != *told
        });
    }

    fn is_up(&self) {
        let set = self.edge.set();
        self.tell(State::Up(Up {
            links: set.iter().map(|(link, setting)| (link.name.clone(), setting.address)).collect(),
            gateway: set.first().and_then(|(_, setting)| setting.gateway()),
            controller: self.controller.clone(),
            trouble: self.trouble(),
        }));
    }

    /// What is wrong with the plan, or with what is set.
    fn trouble(&self) -> Option<String> {
        let all: Vec<String> = self.trouble.iter().cloned().chain(self.edge.troubles()).collect();
        Some(all.join("; ")).filter(|text| !text.is_empty())
    }
}

/// Waits until a link changes, for ever where nobody can tell.
async fn changed(changes: &mut Option<netlink::Changes>) {
    match changes {
        Some(changes) => changes.next().await,
        None => std::future::pending().await,
    }
}

fn at_last_resort(scheme: &str, port: u16) -> Endpoint {
    format!("{scheme}://{CONTROLLER}:{port}").parse().expect("scheme and port are those of a URL")
}
