//! Statistics of jobs: what they print as such, and what they use, gathered by key and tags over five minutes and an hour.

use std::collections::{BTreeMap, VecDeque};

use schemars::JsonSchema;
use serde::Serialize;

use crate::process::{Aggregation, Metric};

/// Most keys with their tags; more are dropped and counted.
const KEYS: usize = 4096;
/// Over how many seconds values are gathered.
pub const SPANS: [u64; 2] = [300, 3600];
/// How many spans of the past are remembered.
const HISTORY: usize = 5;

/// What the values of a span come to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct Sum {
    /// Their average.
    pub avg: f64,
    /// Their sum.
    pub total: f64,
    /// The largest.
    pub max: f64,
    /// How many they are.
    pub count: u64,
    /// When the span began, in seconds since 1970.
    pub start: u64,
}

/// A key with its tags.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// What is made of its values.
    pub op: Aggregation,
    /// The last value.
    pub last_value: f64,
    /// When it came, in ms since 1970.
    pub last_time: u64,
    /// The spans of now, by their seconds.
    pub current: BTreeMap<u64, Sum>,
    /// The last spans of five minutes, the newest last.
    pub history: VecDeque<Sum>,
}

/// A span that is over, of a key.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Over {
    #[serde(skip)]
    pub span: u64,
    pub key: String,
    pub tags: BTreeMap<String, String>,
    #[serde(flatten)]
    pub sum: Sum,
}

/// See the module's text.
#[derive(Debug, Default)]
pub struct Statistics {
    /// By the user whose job it was, the key and its tags.
    entries: BTreeMap<(String, String, BTreeMap<String, String>), Entry>,
    dropped: u64,
}

impl Statistics {
    /// Adds a value of a job of `owner`. Gives the spans that it found to be over.
    pub fn put(&mut self, owner: &str, metric: Metric, now_ms: u64) -> Vec<Over> {
        let Metric { key, value, aggregation, tags } = metric;
        let id = (owner.to_owned(), key, tags);
        let is_known = self.entries.contains_key(&id);
        if self.entries.len() >= KEYS && !is_known {
            // What nothing was added to for the longest span has nothing to tell of now.
            self.entries.retain(|_, entry| entry.last_time + 1000 * SPANS[1] > now_ms);
        }
        if self.entries.len() >= KEYS && !is_known {
            self.dropped += 1;
            if self.dropped.is_power_of_two() {
                tracing::warn!("{} statistics are dropped: {KEYS} keys are gathered already", self.dropped);
            }
            return Vec::new();
        }
        let new = || Entry {
            key: id.1.clone(),
            tags: id.2.clone(),
            op: aggregation,
            last_value: value,
            last_time: 0,
            current: BTreeMap::new(),
            history: VecDeque::new(),
        };
        let entry = self.entries.entry(id.clone()).or_insert_with(new);
        let counts = match (aggregation, entry.last_time) {
            (Aggregation::Average, _) => Some(value),
            // Of something that grows there is nothing to tell at first.
            (Aggregation::Difference, 0) => None,
            (Aggregation::Difference, last) => {
                let seconds = now_ms.saturating_sub(last) as f64 / 1000.0;
                // Less than before is something that began anew.
                let grown = if value < entry.last_value { value } else { value - entry.last_value };
                (seconds > 0.0).then(|| grown / seconds)
            }
        };
        (entry.op, entry.last_value, entry.last_time) = (aggregation, value, now_ms);
        counts.map_or_else(Vec::new, |value| entry.add(value, now_ms / 1000))
    }

    /// The entries of `owner`, or of all, of a key, and with all of these tags.
    pub fn find(
        &self,
        owner: Option<&str>,
        key: Option<&str>,
        tags: &BTreeMap<String, String>,
    ) -> Vec<Entry> {
        let fits = |entry: &&Entry| {
            key.is_none_or(|key| key == entry.key)
                && tags.iter().all(|(name, value)| entry.tags.get(name) == Some(value))
        };
        let of_owner = self.entries.iter().filter(|((user, ..), _)| owner.is_none_or(|owner| owner == user));
        of_owner.map(|(_, entry)| entry).filter(fits).cloned().collect()
    }
}

impl Entry {
    fn add(&mut self, value: f64, now: u64) -> Vec<Over> {
        let mut over = Vec::new();
        for span in SPANS {
            let start = now - now % span;
            let sum = self.current.entry(span).or_default();
            if sum.start != start {
                let ended = std::mem::replace(sum, Sum { start, ..Sum::default() });
                if ended.count > 0 {
                    if span == SPANS[0] {
                        self.history.push_back(ended.clone());
                        if self.history.len() > HISTORY {
                            self.history.pop_front();
                        }
                    }
                    over.push(Over { span, key: self.key.clone(), tags: self.tags.clone(), sum: ended });
                }
            }
            sum.max = if sum.count == 0 { value } else { sum.max.max(value) };
            sum.count += 1;
            sum.total += value;
            sum.avg = sum.total / sum.count as f64;
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metric(text: &str) -> Metric {
        Metric::parse(text).unwrap()
    }

    #[test]
    fn values_are_gathered_by_key_and_tags_and_a_span_ends() {
        let mut statistics = Statistics::default();
        let hour = 3_600_000 * 100;
        for (i, value) in [1, 5, 3].into_iter().enumerate() {
            assert_eq!(
                statistics.put("eve", metric(&format!("k:{value}|A|id=a")), hour + i as u64 * 1000),
                []
            );
        }
        statistics.put("eve", metric("k:7|A|id=b"), hour);
        let tags = [("id".to_string(), "a".to_string())].into();
        let found = statistics.find(None, Some("k"), &tags);
        let sum = Sum { avg: 3.0, total: 9.0, max: 5.0, count: 3, start: hour / 1000 };
        assert_eq!((found.len(), &found[0].current[&300], &found[0].current[&3600]), (1, &sum, &sum));
        assert_eq!(statistics.find(None, None, &BTreeMap::new()).len(), 2);
        let over = statistics.put("eve", metric("k:2|A|id=a"), hour + 300_000);
        assert_eq!((over.len(), over[0].span, &over[0].sum), (1, 300, &sum));
        assert_eq!(statistics.find(None, Some("k"), &tags)[0].history, [sum]);
    }

    #[test]
    fn nobody_sees_or_adds_to_those_of_others() {
        let mut statistics = Statistics::default();
        statistics.put("amy", metric("k:1|A|id=x"), 1);
        statistics.put("eve", metric("k:1000|A|id=x"), 1);
        let of = |owner| statistics.find(owner, Some("k"), &BTreeMap::new());
        assert_eq!(of(Some("amy")).iter().map(|entry| entry.last_value).collect::<Vec<_>>(), [1.0]);
        assert_eq!((of(Some("joe")).len(), of(None).len()), (0, 2));
    }

    #[test]
    fn of_what_grows_the_rate_counts() {
        let mut statistics = Statistics::default();
        for (value, time) in [(1000, 300_000), (1500, 301_000), (100, 302_000), (100, 302_000)] {
            statistics.put("eve", metric(&format!("k:{value}|D")), time);
        }
        let entry = &statistics.find(None, None, &BTreeMap::new())[0];
        assert_eq!((entry.current[&300].count, entry.current[&300].max), (2, 500.0));
        assert_eq!(entry.current[&300].total, 600.0);
    }

    #[test]
    fn keys_are_bounded() {
        let mut statistics = Statistics::default();
        (0..KEYS + 5).for_each(|i| drop(statistics.put("eve", metric(&format!("k{i}:1|A")), 1)));
        assert_eq!((statistics.entries.len(), statistics.dropped), (KEYS, 5));
        // An hour later there is room for others.
        statistics.put("eve", metric("new:1|A"), 2 + 1000 * SPANS[1]);
        assert_eq!((statistics.entries.len(), statistics.dropped), (1, 5));
    }
}
