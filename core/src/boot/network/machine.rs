//! The plan by which a node finds its network, without any network: what has happened goes in, what to do next comes out.
//!
//! Everything is set up as configured, and a controller is looked for. While there is none, DHCP is tried on one NIC after
//! the other, then an address of last resort; each NIC that leads nowhere is put back as configured before the next one is
//! tried, so never more than one differs from its configuration. After all that comes a pause, and everything begins anew,
//! for ever.

use std::collections::VecDeque;
use std::time::Duration;

/// Pauses after failed searches, in seconds.
const PAUSE: [u64; 5] = [1, 2, 5, 10, 30];
/// A network that lasted so long was a good one: the pauses begin anew.
const WELL: Duration = Duration::from_secs(60);

/// A way to get an address beside the configured one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From a DHCP server.
    Dhcp,
    /// A random one, where the controller has a fixed one.
    LastResort,
}

/// Where a controller is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Where {
    /// Where it is configured to be.
    Configured,
    /// At its address in the network of last resort.
    LastResort,
}

/// A NIC that DHCP can be tried on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its name.
    pub nic: String,
    /// It is configured for DHCP, so a server was asked already.
    pub was_asked: bool,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Set all links up as configured.
    Configure,
    /// Look for a controller.
    Check(Where),
    /// Give a NIC an address.
    Try(Way, String),
    /// Put a NIC back as configured.
    Restore(String),
    /// Wait so long, or until a NIC or its cable changes.
    Rest(Duration),
    /// Keep the network until it is lost. With a way and a NIC, it is not the configured one.
    Hold(Option<(Way, String)>),
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// All is set up as configured.
    Configured {
        /// The NICs that something is plugged into.
        candidates: Vec<Candidate>,
        /// Some link has an address.
        addressed: bool,
    },
    /// It was done, and brought what it was for.
    Succeeded,
    /// It could not be done, or in vain.
    Failed,
    /// The network is lost, after this time.
    Lost(Duration),
}

/// See the module's text.
#[derive(Debug)]
pub struct Machine {
    /// What was asked for last.
    doing: Action,
    /// What differs from its configuration.
    tried: Option<(Way, String)>,
    /// What is still to be tried in this search.
    left: VecDeque<(Way, String)>,
    /// Failed searches in a row.
    failures: usize,
}

impl Machine {
    /// Begins, with [`Action::Configure`].
    pub fn new() -> Self {
        Self { doing: Action::Configure, tried: None, left: VecDeque::new(), failures: 0 }
    }

    /// What is to be done now.
    pub fn action(&self) -> &Action {
        &self.doing
    }

    /// Goes on.
    pub fn next(&mut self, event: Event) {
        self.doing = match (&self.doing, event) {
            (Action::Configure, Event::Configured { candidates, addressed }) => {
                let unasked = candidates.iter().filter(|candidate| !candidate.was_asked);
                let dhcp = unasked.map(|candidate| (Way::Dhcp, candidate.nic.clone()));
                let last = candidates.iter().map(|candidate| (Way::LastResort, candidate.nic.clone()));
                self.left = dhcp.chain(last).collect();
                if addressed { Action::Check(Where::Configured) } else { self.try_next() }
            }
            (Action::Try(Way::Dhcp, _), Event::Succeeded) => Action::Check(Where::Configured),
            (Action::Try(Way::LastResort, _), Event::Succeeded) => Action::Check(Where::LastResort),
            (Action::Check(_), Event::Succeeded) => Action::Hold(self.tried.clone()),
            (Action::Hold(_), event) => {
                if matches!(event, Event::Lost(after) if after >= WELL) {
                    self.failures = 0;
                }
                self.left.clear();
                self.restore()
            }
            (Action::Try(..) | Action::Check(_), _) => self.restore(),
            (Action::Rest(_), _) => Action::Configure,
            (Action::Configure | Action::Restore(_), _) => self.try_next(),
        };
    }

    /// Puts back what differs, and goes on when nothing does.
    fn restore(&mut self) -> Action {
        match self.tried.take() {
            Some((_, nic)) => Action::Restore(nic),
            None => self.try_next(),
        }
    }

    fn try_next(&mut self) -> Action {
        self.tried = self.left.pop_front();
        match self.tried.clone() {
            Some((way, nic)) => Action::Try(way, nic),
            None => {
                let pause = PAUSE[self.failures.min(PAUSE.len() - 1)];
                self.failures += 1;
                Action::Rest(Duration::from_secs(pause))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A network that may change between two steps: what leads to a controller, and what does not.
    #[derive(Clone, Debug)]
    struct World {
        nics: Vec<Nic>,
        addressed: bool,
        configured_reaches: bool,
    }

    #[derive(Clone, Debug)]
    struct Nic {
        was_asked: bool,
        /// There is a server, and whether a controller is behind it.
        lease: Option<bool>,
        /// There is a free address of last resort, and whether the controller is there.
        last: Option<bool>,
    }

    impl World {
        fn leads(&self, way: Way, nic: &str) -> Option<bool> {
            let nic = &self.nics[nic.parse::<usize>().unwrap()];
            match way {
                Way::Dhcp => nic.lease,
                Way::LastResort => nic.last,
            }
        }

        /// What a machine in this world sees.
        fn answer(&self, action: &Action, tried: Option<&(Way, String)>) -> Event {
            let done = |well: bool| if well { Event::Succeeded } else { Event::Failed };
            match action {
                Action::Configure => {
                    let candidates = self
                        .nics
                        .iter()
                        .enumerate()
                        .map(|(number, nic)| Candidate { nic: number.to_string(), was_asked: nic.was_asked });
                    Event::Configured { candidates: candidates.collect(), addressed: self.addressed }
                }
                Action::Try(way, nic) => done(self.leads(*way, nic).is_some()),
                Action::Check(_) => match tried {
                    Some((way, nic)) => done(self.leads(*way, nic) == Some(true)),
                    None => done(self.configured_reaches),
                },
                Action::Restore(_) | Action::Rest(_) => Event::Succeeded,
                Action::Hold(_) => Event::Lost(Duration::ZERO),
            }
        }

        /// What a search here finds: the first that leads to a controller, in the order of the plan.
        fn finds(&self) -> Option<Option<(Way, String)>> {
            if self.addressed && self.configured_reaches {
                return Some(None);
            }
            [Way::Dhcp, Way::LastResort].into_iter().find_map(|way| {
                let nics = self.nics.iter().enumerate();
                let mut nics = nics.filter(|(_, nic)| way == Way::LastResort || !nic.was_asked);
                let found = nics.find(|(number, _)| self.leads(way, &number.to_string()) == Some(true));
                found.map(|(number, _)| Some((way, number.to_string())))
            })
        }
    }

    fn world() -> impl Strategy<Value = World> {
        let nic = (any::<bool>(), any::<Option<bool>>(), any::<Option<bool>>());
        let nic = nic.prop_map(|(was_asked, lease, last)| Nic { was_asked, lease, last });
        let nics = proptest::collection::vec(nic, 0..5);
        (nics, any::<bool>(), any::<bool>()).prop_map(|(nics, addressed, configured_reaches)| World {
            nics,
            addressed,
            configured_reaches,
        })
    }

    fn any_event() -> impl Strategy<Value = Event> {
        prop_oneof![
            Just(Event::Succeeded),
            Just(Event::Failed),
            (0u64..200).prop_map(|seconds| Event::Lost(Duration::from_secs(seconds))),
            (proptest::collection::vec(("[a-c]", any::<bool>()), 0..4), any::<bool>()).prop_map(
                |(nics, addressed)| {
                    let candidates =
                        nics.into_iter().map(|(nic, was_asked)| Candidate { nic, was_asked }).collect();
                    Event::Configured { candidates, addressed }
                }
            ),
        ]
    }

    /// What a NIC was given last and not yet given back.
    fn follow(tried: &mut Option<(Way, String)>, action: &Action) -> Result<(), TestCaseError> {
        match action {
            Action::Try(way, nic) => {
                prop_assert_eq!(&*tried, &None, "two NICs differ from their configuration");
                *tried = Some((*way, nic.clone()));
            }
            Action::Restore(nic) => {
                prop_assert_eq!(tried.take().map(|(_, nic)| nic), Some(nic.clone()));
            }
            Action::Rest(_) | Action::Configure => prop_assert_eq!(&*tried, &None, "it rests as configured"),
            Action::Hold(held) => prop_assert_eq!(&*tried, held),
            Action::Check(_) => {}
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn the_first_way_that_leads_to_a_controller_is_taken_within_one_search(world in world()) {
            let (mut machine, mut tried) = (Machine::new(), None);
            let mut searches = 0;
            let found = loop {
                let action = machine.action().clone();
                follow(&mut tried, &action)?;
                match &action {
                    Action::Hold(held) => break Some(held.clone()),
                    Action::Rest(_) => break None,
                    Action::Configure => searches += 1,
                    Action::Check(_) | Action::Try(..) | Action::Restore(_) => {}
                }
                machine.next(world.answer(&action, tried.as_ref()));
            };
            prop_assert_eq!(found, world.finds());
            prop_assert_eq!(searches, 1);
        }

        #[test]
        fn whatever_happens_one_nic_at_most_differs_and_nothing_is_held_that_was_not_checked(
            events in proptest::collection::vec(any_event(), 0..200),
        ) {
            let (mut machine, mut tried) = (Machine::new(), None);
            follow(&mut tried, machine.action())?;
            for event in events {
                let before = machine.action().clone();
                machine.next(event.clone());
                follow(&mut tried, machine.action())?;
                if matches!(machine.action(), Action::Hold(_)) {
                    prop_assert!(matches!(before, Action::Check(_)) && event == Event::Succeeded);
                }
            }
        }

        #[test]
        fn a_controller_a_server_or_a_nic_that_appears_later_is_found_and_until_then_pauses_grow_to_half_a_minute(
            world in world(),
            rounds in 1usize..12,
            first_nics in 0usize..5,
        ) {
            let (mut machine, mut tried, mut pauses) = (Machine::new(), None, Vec::new());
            let mut dark = World { configured_reaches: false, ..world.clone() };
            dark.nics.truncate(first_nics);
            dark.nics.iter_mut().for_each(|nic| (nic.lease, nic.last) = (None, Some(false)));
            let mut steps = 0;
            loop {
                steps += 1;
                prop_assert!(steps < 1000, "it goes round in circles");
                let action = machine.action().clone();
                follow(&mut tried, &action)?;
                if let Action::Rest(pause) = action {
                    pauses.push(pause.as_secs());
                }
                let now = if pauses.len() >= rounds { &world } else { &dark };
                if let Action::Hold(held) = &action {
                    prop_assert_eq!(Some(held.clone()), world.finds());
                    break;
                }
                if pauses.len() > rounds {
                    prop_assert_eq!(None, world.finds());
                    break;
                }
                machine.next(now.answer(&action, tried.as_ref()));
            }
            let expected: Vec<u64> = (0..pauses.len()).map(|n| PAUSE[n.min(PAUSE.len() - 1)]).collect();
            prop_assert_eq!(pauses, expected);
        }
    }

    #[test]
    fn after_a_network_that_lasted_pauses_begin_anew_and_after_one_that_did_not_they_go_on() {
        let pause_after = |held: u64| {
            let mut machine = Machine::new();
            for _ in 0..3 {
                machine.next(Event::Configured { candidates: Vec::new(), addressed: false });
                assert!(matches!(machine.action(), Action::Rest(_)));
                machine.next(Event::Succeeded);
            }
            machine.next(Event::Configured { candidates: Vec::new(), addressed: true });
            machine.next(Event::Succeeded);
            assert_eq!(*machine.action(), Action::Hold(None));
            machine.next(Event::Lost(Duration::from_secs(held)));
            machine.action().clone()
        };
        assert_eq!(pause_after(3600), Action::Rest(Duration::from_secs(1)));
        assert_eq!(pause_after(2), Action::Rest(Duration::from_secs(10)));
    }
}
