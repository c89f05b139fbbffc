//! What a group of processes has used since it began, as it grows: processes come and go, and it never falls or leaps.
//!
//! The kernel counts for a process what those of its children used that it waited for. So the plain sum over those that are there
//! falls when one ends, and leaps when its parent has waited for it: what it had used would be counted twice. Here each process
//! counts by what it grew since the last look; and what one that is gone had used is a debt of its parent, who grows by as
//! much when it waits. A debt that is not due at the next look either, as somebody else reaped the child, is forgotten.

use std::collections::HashMap;

/// Generations between a process that is gone and an heir, at most.
const DEPTH: usize = 64;

/// What only grows: ticks of processor time, bytes read, bytes written.
pub type Grown = [u64; 3];

/// One process, at one look.
#[derive(Clone, Copy, Debug)]
pub struct Sight {
    pub pid: i32,
    pub parent: i32,
    /// When it was started, in ticks since the machine was.
    pub started: u64,
    /// Its own, and of children that it waited for.
    pub grown: Grown,
}

/// See the module's text.
#[derive(Debug, Default)]
pub struct Meter {
    seen: HashMap<i32, Seen>,
    used: Grown,
    /// When it was looked last, in ticks since the machine was started.
    looked: Option<u64>,
}

#[derive(Debug)]
struct Seen {
    sight: Sight,
    /// What children had used that were gone at the last look.
    owed: Grown,
}

impl Meter {
    /// Takes what is there now, and gives what all that ever was has used.
    pub fn look(&mut self, now: u64, group: impl Iterator<Item = Sight>) -> Grown {
        let before = std::mem::take(&mut self.seen);
        let known = |sight: &Sight| before.get(&sight.pid).filter(|seen| seen.sight.started == sight.started);
        let here: HashMap<i32, Sight> = group.map(|sight| (sight.pid, sight)).collect();
        let mut debts: HashMap<i32, Grown> = HashMap::new();
        for (pid, gone) in &before {
            if here.get(pid).is_some_and(|sight| known(sight).is_some()) {
                continue;
            }
            // Who waited for its parent has all of it.
            let mut heir = gone.sight.parent;
            for _ in 0..DEPTH {
                match before.get(&heir) {
                    Some(seen) if here.get(&heir).is_none_or(|sight| known(sight).is_none()) => {
                        heir = seen.sight.parent;
                    }
                    Some(_) | None => break,
                }
            }
            let debt = debts.entry(heir).or_default();
            *debt = zip(*debt, zip(gone.sight.grown, gone.owed, u64::saturating_add), u64::saturating_add);
        }
        for (pid, sight) in here {
            let mut owed = debts.remove(&pid).unwrap_or_default();
            let grown = match known(&sight) {
                Some(seen) => {
                    let grown = zip(sight.grown, seen.sight.grown, u64::saturating_sub);
                    let paid = zip(grown, seen.owed, u64::min);
                    let rest = zip(grown, paid, u64::saturating_sub);
                    let grown = zip(rest, owed, u64::saturating_sub);
                    owed = zip(owed, rest, u64::saturating_sub);
                    grown
                }
                // One that is older than the last look came out of another group, with what it had used there.
                None if self.looked.is_some_and(|looked| sight.started < looked) => Grown::default(),
                None => sight.grown,
            };
            self.used = zip(self.used, grown, u64::saturating_add);
            self.seen.insert(pid, Seen { sight, owed });
        }
        self.looked = Some(now);
        self.used
    }
}

fn zip(a: Grown, b: Grown, f: impl Fn(u64, u64) -> u64) -> Grown {
    std::array::from_fn(|i| f(a[i], b[i]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks once a tick at processes of a pid, a parent, and what each has used; all were started as often as their pid.
    fn looks(looks: &[&[(i32, i32, u64)]]) -> Vec<u64> {
        let mut meter = Meter::default();
        let mut look = |(i, group): (usize, &&[(i32, i32, u64)])| {
            let sights = group.iter().map(|&(pid, parent, used)| {
                let (started, grown) = (pid.unsigned_abs().into(), [used, 2 * used, 0]);
                Sight { pid, parent, started, grown }
            });
            let used = meter.look(10 * i as u64, sights);
            assert_eq!(used[1], 2 * used[0]);
            used[0]
        };
        looks.iter().enumerate().map(&mut look).collect()
    }

    #[test]
    fn what_a_child_used_counts_once_whenever_its_parent_waits_for_it() {
        // At once, with what it used since the last look; or one look later.
        assert_eq!(looks(&[&[(1, 0, 5), (2, 1, 100)], &[(1, 0, 112)]]), [105, 112]);
        assert_eq!(looks(&[&[(1, 0, 5), (2, 1, 100)], &[(1, 0, 6)], &[(1, 0, 112)]]), [105, 105, 112]);
        // Through a parent that is gone, too.
        assert_eq!(looks(&[&[(1, 0, 5), (2, 1, 10), (3, 2, 90)], &[(1, 0, 107)]]), [105, 107]);
    }

    #[test]
    fn what_nobody_waits_for_is_not_taken_back_and_the_others_go_on() {
        // Its parent is gone, and it is the spawner's.
        let orphan = looks(&[&[(1, 0, 5), (2, 9, 100)], &[(1, 0, 8)], &[(1, 0, 20)]]);
        assert_eq!(orphan, [105, 108, 120]);
        // Reaped by somebody else: its parent owes it for two looks, and no longer.
        let lost = looks(&[&[(1, 0, 5), (2, 1, 4)], &[(1, 0, 6)], &[(1, 0, 7)], &[(1, 0, 50)]]);
        assert_eq!(lost, [9, 9, 9, 52]);
    }

    #[test]
    fn who_is_new_counts_from_its_start_and_who_joins_from_now() {
        assert_eq!(looks(&[&[(1, 0, 5)], &[(1, 0, 5), (12, 1, 7)]]), [5, 12]);
        let joined =
            looks(&[&[(1, 0, 5)], &[(1, 0, 5)], &[(1, 0, 5), (3, 1, 700)], &[(1, 0, 5), (3, 1, 702)]]);
        assert_eq!(joined, [5, 5, 5, 7]);
        // A pid that is taken again is another process.
        let mut meter = Meter::default();
        let sight = |started, used| Sight { pid: 7, parent: 1, started, grown: [used; 3] };
        assert_eq!(meter.look(10, [sight(1, 100)].into_iter()), [100; 3]);
        assert_eq!(meter.look(20, [sight(15, 3)].into_iter()), [103; 3]);
    }
}
