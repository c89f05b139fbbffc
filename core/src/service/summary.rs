//! All services in a line, for the console: how many are ready, and what the others wait for.

use std::collections::BTreeMap;
use std::fmt;

use super::status::{ServiceState, Status};

/// Most services that are named.
const NAMED: usize = 3;
/// Most characters that they share, so that a line of the console has them all.
const ROOM: usize = 210;

/// See the module's text. One that is done, was stopped, or is not for this node is nothing to wait for, and not counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    ready: usize,
    missing: usize,
    /// The first of those that are missing, and how they are.
    named: Vec<String>,
}

impl Summary {
    /// Of these services.
    pub fn of(list: &BTreeMap<String, Status>) -> Self {
        let (mut ready, mut missing) = (0, Vec::new());
        for (name, status) in list {
            match status.state {
                ServiceState::Ready => ready += 1,
                ServiceState::Done | ServiceState::Stopped | ServiceState::Skipped => {}
                ServiceState::Waiting
                | ServiceState::Starting
                | ServiceState::Pausing
                | ServiceState::Failed
                | ServiceState::Ended => missing.push((name, status)),
            }
        }
        // Who waits for another is named after it.
        missing.sort_by_key(|(_, status)| status.state == ServiceState::Waiting);
        let room = ROOM / missing.len().clamp(1, NAMED);
        let named = missing.iter().take(NAMED).map(|(name, status)| in_words(name, status, room)).collect();
        Self { ready, missing: missing.len(), named }
    }

    /// None is missing.
    pub fn is_well(&self) -> bool {
        self.missing == 0
    }
}

fn in_words(name: &str, Status { state, reason, .. }: &Status, room: usize) -> String {
    let why = if reason.is_empty() { String::new() } else { format!(", {reason}") };
    let words = format!("{name}: {state}{why}");
    match words.char_indices().nth(room) {
        Some(_) => words.chars().take(room - 3).chain("...".chars()).collect(),
        None => words,
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ready, missing, named } = self;
        match (ready, missing) {
            (0, 0) => return f.write_str("none"),
            (_, 0) => return write!(f, "{ready}"),
            _ => write!(f, "{ready} of {}", ready + missing)?,
        }
        named.iter().try_for_each(|one| write!(f, "; {one}"))?;
        match missing - named.len() {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(services: &[(&str, ServiceState, &str)]) -> Summary {
        let one = |(name, state, reason): &(&str, ServiceState, &str)| {
            (name.to_string(), Status { restarts: 7, ..Status::new(*state, *reason) })
        };
        Summary::of(&services.iter().map(one).collect())
    }

    #[test]
    fn what_is_ready_is_counted_and_what_nobody_waits_for_is_not() {
        use ServiceState::{Done, Ready, Skipped, Stopped};
        let rest = [("b", Done, ""), ("c", Skipped, "its condition does not hold"), ("d", Stopped, "")];
        assert_eq!(summary(&rest).to_string(), "none");
        let with_two = [&[("a", Ready, ""), ("e", Ready, "")][..], &rest].concat();
        assert_eq!(summary(&with_two).to_string(), "2");
        assert!(summary(&rest).is_well() && summary(&with_two).is_well());
    }

    #[test]
    fn what_is_missing_is_named_with_why_and_who_waits_for_it_comes_after() {
        use ServiceState::{Ended, Failed, Pausing, Ready, Starting, Waiting};
        let known = [
            ("a", Waiting, "it comes after d, which is starting"),
            ("b", Ready, ""),
            ("c", Pausing, "exit code 1"),
            ("d", Starting, ""),
        ];
        let some = summary(&known);
        assert!(!some.is_well());
        assert_eq!(
            some.to_string(),
            "1 of 4; c: pausing, exit code 1; d: starting; a: waiting, it comes after d, which is starting"
        );
        let more = [&known[..], &[("e", Failed, "no such program"), ("f", Ended, "it ended")]].concat();
        assert_eq!(
            summary(&more).to_string(),
            "1 of 6; c: pausing, exit code 1; d: starting; e: failed, no such program; and 2 more"
        );
    }

    #[test]
    fn a_line_has_room_for_all_whatever_their_reasons() {
        let long = "ü".repeat(5000);
        let names: Vec<String> = (0..2000).map(|number| format!("service-{number:04}")).collect();
        let all: Vec<_> =
            names.iter().map(|name| (name.as_str(), ServiceState::Failed, long.as_str())).collect();
        let text = summary(&all).to_string();
        assert!(text.ends_with("...; and 1997 more") && text.chars().count() < 250, "{text}");
        let one = summary(&all[..1]).to_string();
        assert!(one.starts_with("0 of 1; service-0000: failed, üü") && one.chars().count() < 250, "{one}");
    }
}
