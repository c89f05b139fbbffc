//! The order of services: who comes after whom, and who cannot come at all.

use std::collections::{BTreeMap, BTreeSet};

use super::mount;
use super::unit::Unit;

/// Services that the manager starts itself, before all units.
pub const BUILT_IN: [&str; 1] = ["redis"];

/// An order of units.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// Each level comes after those before it; within one, the order is free.
    pub levels: Vec<Vec<String>>,
    /// Units that cannot come, and why.
    pub faults: BTreeMap<String, String>,
}

/// Orders units. `broken` are there, and cannot start.
pub fn order(units: &BTreeMap<String, Unit>, broken: &[String]) -> Order {
    let mut faults: BTreeMap<String, String> = BTreeMap::new();
    for (name, unit) in units {
        let known = |other: &&String| units.contains_key(*other) || comes_before_units(other);
        let fault = match unit.after.iter().find(|other| !known(other)) {
            Some(other) if broken.contains(other) => format!("it comes after {other}, which cannot start"),
            Some(other) => format!("it comes after {other}, and there is no such service"),
            None => continue,
        };
        faults.insert(name.clone(), fault);
    }
    let mut waiting: BTreeSet<&String> = units.keys().filter(|name| !faults.contains_key(*name)).collect();
    let mut levels = Vec::new();
    let mut placed: BTreeSet<&str> = BTreeSet::new();
    loop {
        let is_placed = |other: &String| placed.contains(other.as_str()) || comes_before_units(other);
        let free = |name: &&String| units[*name].after.iter().all(is_placed);
        let level: Vec<&String> = waiting.iter().copied().filter(free).collect();
        if level.is_empty() {
            break;
        }
        waiting.retain(|name| !level.contains(name));
        placed.extend(level.iter().map(|name| name.as_str()));
        levels.push(level.into_iter().cloned().collect());
    }
    let stuck: BTreeSet<&str> =
        waiting.iter().chain(&faults.keys().collect::<BTreeSet<_>>()).map(|n| n.as_str()).collect();
    let blamed: Vec<_> = waiting.iter().map(|name| (name.to_string(), blame(name, units, &stuck))).collect();
    faults.extend(blamed);
    Order { levels, faults }
}

/// Whether a service is none of a unit, and comes after none. A mount that nobody has told of yet is waited for.
fn comes_before_units(name: &str) -> bool {
    BUILT_IN.contains(&name) || mount::path_of(name).is_some()
}

/// Why a unit could not be placed: it is in a circle, or comes after one that cannot start.
fn blame(name: &str, units: &BTreeMap<String, Unit>, stuck: &BTreeSet<&str>) -> String {
    let mut path: Vec<&str> = vec![name];
    loop {
        let last = path[path.len() - 1];
        let next =
            units.get(last).and_then(|unit| unit.after.iter().find(|other| stuck.contains(other.as_str())));
        let Some(next) = next else { return format!("it comes after {last}, which cannot start") };
        if let Some(start) = path.iter().position(|seen| seen == next) {
            let circle = [&path[start..], &[next.as_str()]].concat().join(" after ");
            return format!("services wait for each other: {circle}");
        }
        path.push(next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn units(afters: &[(&str, &[&str])]) -> BTreeMap<String, Unit> {
        let unit = |after: &[&str]| Unit::parse(&format!("exec = ['x']\nafter = {after:?}")).unwrap();
        afters.iter().map(|(name, after)| (name.to_string(), unit(after))).collect()
    }

    #[test]
    fn levels_follow_after() {
        let order = order(&units(&[("a", &["b", "c"]), ("b", &["c"]), ("c", &["redis"]), ("d", &[])]), &[]);
        assert_eq!(order.levels, [vec!["c", "d"], vec!["b"], vec!["a"]]);
        assert!(order.faults.is_empty());
    }

    #[test]
    fn a_mount_can_be_waited_for_wherever_one_may_be() {
        let after = |other: &str| order(&units(&[("a", &[other])]), &[]);
        for good in ["mount:/system", "mount:/var/lib/app"] {
            assert_eq!(after(good).levels, [vec!["a"]], "{good}");
        }
        let twice = ["mount:/system/", "mount:/var//x", "mount:/var/./x", "mount:/var/x/"];
        for bad in ["mount:", "mount:/etc", "mount:var/x", "mount:/run/core0/x"].iter().chain(&twice) {
            assert!(after(bad).faults["a"].contains("there is no such service"), "{bad}");
        }
    }

    #[test]
    fn a_circle_and_a_missing_service_are_named_and_the_rest_runs() {
        let order = order(
            &units(&[
                ("a", &["b"]),
                ("b", &["c"]),
                ("c", &["b"]),
                ("lost", &["nobody"]),
                ("behind", &["lost"]),
                ("fine", &[]),
                ("self", &["self"]),
                ("torn", &["damaged"]),
            ]),
            &["damaged".to_string()],
        );
        assert_eq!(order.levels, [vec!["fine"]]);
        assert_eq!(order.faults["b"], "services wait for each other: b after c after b");
        assert_eq!(order.faults["a"], "services wait for each other: b after c after b");
        assert_eq!(order.faults["self"], "services wait for each other: self after self");
        assert_eq!(order.faults["lost"], "it comes after nobody, and there is no such service");
        assert_eq!(order.faults["torn"], "it comes after damaged, which cannot start");
        assert_eq!(order.faults["behind"], "it comes after lost, which cannot start");
    }
}
