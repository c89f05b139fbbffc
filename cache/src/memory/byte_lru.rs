//! A least-recently-used map bounded by bytes instead of by entries.

use std::hash::Hash;

use lru::LruCache;

/// What an entry costs beside its bytes: table slot, list links, and the shared header of the bytes; roughly.
const ENTRY_COST: u64 = 160;

/// The map. Values are cheap to clone.
pub(super) struct ByteLru<K: Hash + Eq, V> {
    entries: LruCache<K, (V, u64)>,
    bytes: u64,
    budget: u64,
}

impl<K: Hash + Eq, V: Clone> ByteLru<K, V> {
    pub(super) fn new(budget: u64) -> ByteLru<K, V> {
        ByteLru { entries: LruCache::unbounded(), bytes: 0, budget }
    }

    pub(super) fn get(&mut self, key: &K) -> Option<V> {
        self.entries.get(key).map(|(value, _)| value.clone())
    }

    /// The value, which becomes no younger by it.
    pub(super) fn peek(&self, key: &K) -> Option<V> {
        self.entries.peek(key).map(|(value, _)| value.clone())
    }

    /// Keeps a value of `cost` bytes and gives what had to go, for the caller to drop outside of its lock. A value
    /// larger than the whole budget is not kept, rather than emptying the map in vain.
    #[must_use = "to be dropped after the lock"]
    pub(super) fn put(&mut self, key: K, value: V, cost: u64) -> Vec<V> {
        let cost = cost + ENTRY_COST;
        if cost > self.budget {
            return Vec::new();
        }
        let mut gone = Vec::new();
        if let Some((value, cost)) = self.entries.put(key, (value, cost)) {
            self.bytes -= cost;
            gone.push(value);
        }
        self.bytes += cost;
        while self.bytes > self.budget {
            let (_, (value, cost)) = self.entries.pop_lru().expect("bytes are counted for entries only");
            self.bytes -= cost;
            gone.push(value);
        }
        gone
    }

    /// Whether a value of `cost` bytes is kept and nothing goes for it.
    pub(super) fn has_room(&self, cost: u64) -> bool {
        self.bytes.saturating_add(cost).saturating_add(ENTRY_COST) <= self.budget
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.bytes = 0;
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_least_recently_used_goes_first() {
        let mut map = ByteLru::new(3 * (100 + ENTRY_COST));
        for key in 0..3 {
            assert!(map.put(key, key, 100).is_empty());
        }
        assert_eq!(map.get(&0), Some(0));
        assert_eq!(map.put(3, 3, 100), [1]);
        assert_eq!((map.get(&1), map.get(&0), map.len()), (None, Some(0), 3));
        assert!(map.put(4, 4, 1_000_000).is_empty());
        assert_eq!((map.get(&4), map.len()), (None, 3));
    }

    proptest! {
        #[test]
        fn the_budget_holds_after_every_put(
            budget in 0..10_000_u64, puts in prop::collection::vec((0..20_u8, 0..3000_u64), 0..200),
        ) {
            let mut map = ByteLru::new(budget);
            for (key, cost) in puts {
                drop(map.put(key, cost, cost));
                let counted: u64 = map.entries.iter().map(|(_, (cost, _))| cost + ENTRY_COST).sum();
                prop_assert_eq!(map.bytes(), counted);
                prop_assert!(counted <= budget);
            }
        }
    }
}
