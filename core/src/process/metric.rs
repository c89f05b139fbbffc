//! A statistic that a process printed, as `10::KEY:VALUE|A` or `|D`, and perhaps `|TAG=VALUE,TAG=VALUE`. Pure.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Longest key, name of a tag and value of one.
const WORD_MAX: usize = 128;
/// Most tags.
const TAGS_MAX: usize = 16;

/// What is made of the values of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Aggregation {
    /// Each value counts as it is.
    #[serde(rename = "A")]
    Average,
    /// The values are of something that only grows; what counts is how much a second.
    #[serde(rename = "D")]
    Difference,
}

/// A statistic.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    /// Of what.
    pub key: String,
    /// How much.
    pub value: f64,
    /// What is made of it.
    pub aggregation: Aggregation,
    /// What it is about, more closely.
    pub tags: BTreeMap<String, String>,
}

impl Metric {
    /// Reads the text of a message; `None` when it is no statistic.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.trim().splitn(3, '|');
        let (key, value) = parts.next()?.rsplit_once(':')?;
        let aggregation = match parts.next()?.trim() {
            "A" => Aggregation::Average,
            "D" => Aggregation::Difference,
            _ => return None,
        };
        let value = value.trim().parse().ok().filter(|value: &f64| value.is_finite())?;
        let mut tags = BTreeMap::new();
        for tag in parts.next().unwrap_or_default().split(',').filter(|tag| !tag.trim().is_empty()) {
            let (name, value) = tag.split_once('=')?;
            tags.insert(word(name)?, word(value)?);
        }
        let key = word(key)?;
        (tags.len() <= TAGS_MAX).then_some(Self { key, value, aggregation, tags })
    }
}

impl std::fmt::Display for Metric {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { key, value, aggregation, tags } = self;
        let letter = match aggregation {
            Aggregation::Average => 'A',
            Aggregation::Difference => 'D',
        };
        write!(f, "{key}:{value}|{letter}")?;
        for (i, (name, value)) in tags.iter().enumerate() {
            write!(f, "{}{name}={value}", if i == 0 { '|' } else { ',' })?;
        }
        Ok(())
    }
}

fn word(text: &str) -> Option<String> {
    let text = text.trim();
    (!text.is_empty() && text.len() <= WORD_MAX && !text.contains(char::is_control)).then(|| text.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statistic_is_read_and_written() {
        for text in ["disk.iops:12.5|A", "net.bytes:7|D|id=eth0", "a:b:-3|A|id=x,kind=y"] {
            assert_eq!(Metric::parse(text).unwrap().to_string(), text);
        }
        let metric = Metric::parse(" load : 1.5 | A | id = a , ").unwrap();
        assert_eq!((metric.key.as_str(), metric.value, metric.tags.len()), ("load", 1.5, 1));
    }

    #[test]
    fn what_is_none_is_refused() {
        let long = format!("{}:1|A", "k".repeat(WORD_MAX + 1));
        let many = format!("k:1|A|{}", (0..=TAGS_MAX).map(|i| format!("t{i}=x,")).collect::<String>());
        for text in ["", "k", "k:1", "k:x|A", "k:1|B", ":1|A", "k:NaN|A", "k:inf|D", "k:1|A|t", &long, &many]
        {
            assert_eq!(Metric::parse(text), None, "{text}");
        }
    }
}
