//! Every single measurement, what is made of them, and the file they are kept in.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::Context;
use serde_json::json;

use super::facts::Facts;
use super::figures::Checked;
use super::part;

/// What else a measurement has seen, by a name that ends in its unit.
pub(super) type Extras = BTreeMap<&'static str, f64>;

/// One measurement.
struct Measured {
    part: &'static str,
    contender: String,
    round: usize,
    value: f64,
    extras: Extras,
}

/// All measurements, in the order they were made.
#[derive(Default)]
pub(super) struct Results(Vec<Measured>);

/// Where a row writes what it measures of one contender in one round.
pub(super) struct Log<'a> {
    results: &'a mut Results,
    contender: &'a str,
    round: usize,
}

impl<'a> Log<'a> {
    pub(super) fn new(results: &'a mut Results, contender: &'a str, round: usize) -> Log<'a> {
        Log { results, contender, round }
    }

    /// The value is in the unit of the part.
    pub(super) fn add(&mut self, part: &'static str, value: f64, extras: Extras) {
        debug_assert!(part::named(part).is_some(), "{part} is not in the table of parts");
        let contender = self.contender.to_owned();
        self.results.0.push(Measured { part, contender, round: self.round, value, extras });
    }
}

impl Results {
    fn of<'a>(&'a self, part: &'a str, contender: &'a str) -> impl Iterator<Item = &'a Measured> {
        self.0.iter().filter(move |m| m.part == part && m.contender == contender)
    }

    /// Who was measured in a part: ours first, then in order of the first round.
    pub(super) fn contenders(&self, part: &str) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for measured in self.0.iter().filter(|m| m.part == part) {
            if !names.contains(&measured.contender.as_str()) {
                names.push(&measured.contender);
            }
        }
        names.sort_by_key(|name| !is_ours(name));
        names
    }

    pub(super) fn values(&self, part: &str, contender: &str) -> Vec<f64> {
        self.of(part, contender).map(|m| m.value).collect()
    }

    pub(super) fn median(&self, part: &str, contender: &str) -> Option<f64> {
        median(self.values(part, contender))
    }

    /// Medians of what else was seen.
    pub(super) fn extras(&self, part: &str, contender: &str) -> Extras {
        let mut all: BTreeMap<&'static str, Vec<f64>> = BTreeMap::new();
        for measured in self.of(part, contender) {
            for (key, value) in &measured.extras {
                all.entry(key).or_default().push(*value);
            }
        }
        all.into_iter().filter_map(|(key, values)| Some((key, median(values)?))).collect()
    }
}

/// Whether a contender is one of flist's.
pub(super) fn is_ours(contender: &str) -> bool {
    contender.starts_with("flist")
}

/// The middle one, or the mean of the two in the middle.
pub(super) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let (low, high) = (values.len().checked_sub(1)? / 2, values.len() / 2);
    Some((values[low] + values[high]) / 2.0)
}

/// Keeps all of it in `STEM.json`.
pub(super) fn keep(stem: &Path, facts: &Facts, results: &Results, checked: &[Checked]) -> anyhow::Result<()> {
    let runs = results.0.iter().map(|m| {
        let unit = part::named(m.part).map(|part| part.unit);
        json!({
            "part": m.part, "contender": m.contender, "round": m.round, "value": m.value,
            "unit": if unit == Some(part::Unit::Bytes) { "bytes" } else { unit.map_or("", part::Unit::label) },
            "extras": m.extras,
        })
    });
    let document = json!({
        "facts": facts.document(),
        "figures": checked.iter().map(Checked::document).collect::<Vec<_>>(),
        "runs": runs.collect::<Vec<_>>(),
    });
    let file = stem.with_extension("json");
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    let text = format!("{}\n", serde_json::to_string_pretty(&document)?);
    fs::write(&file, text).with_context(|| format!("writing {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        assert_eq!(median(vec![4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(Vec::new()), None);
    }
}
