//! The figures that we aim for, as data, and what was measured of them. A missed one is said, and is no error.

use comfy_table::{Table, presets};
use serde_json::{Value, json};

use super::contender::{
    BARE, DOWNLOAD, EROFS, EXT4, FAR_FUSE, FAR_KERNEL, FAR_NYDUS, FLIST, FLIST_FUSE, FLIST_KERNEL,
    FLIST_PUBLISH, FUSE_PROFILE, FUSE_STALLED, FUSE_THREE, KERNEL_PROFILE, KERNEL_STALLED, KERNEL_THREE,
    NYDUS,
};
use super::part::{self, digits};
use super::results::Results;

/// A figure to reach.
struct Figure {
    what: &'static str,
    ours: &'static str,
    part: &'static str,
    of: Of,
    bound: Bound,
}

/// What is made of our median in the part.
#[derive(Clone, Copy)]
enum Of {
    /// The median itself.
    Itself,
    /// How many times a rival's time or size.
    Cost(&'static str),
    /// How many times as fast as a rival.
    Speed(&'static str),
    /// Something else that was seen.
    Extra(&'static str),
    /// MiB above the memory that the daemon is allowed for its cache.
    MibOverBudget,
}

#[derive(Clone, Copy)]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
}
use Bound::{AtLeast, AtMost};
use Of::{Cost, Extra, Itself, MibOverBudget, Speed};

const FIGURES: &[Figure] = &[
    figure("pack: speed", FLIST, "pack/usr", Speed(NYDUS), AtLeast(0.95)),
    figure("pack: size", FLIST, "size/usr", Cost(NYDUS), AtMost(1.08)),
    figure("pack, tiny files: time", FLIST, "pack/tiny", Cost(NYDUS), AtMost(0.6)),
    figure("publish to a node: speed", FLIST_PUBLISH, "publish/usr", Speed(BARE), AtLeast(0.8)),
    figure("mount inside the daemon: ms", FLIST_KERNEL, "mount/inside", Itself, AtMost(1.5)),
    figure("mount inside the daemon: ms", FLIST_FUSE, "mount/inside", Itself, AtMost(1.5)),
    figure("find -ls, inodes dropped: time", FLIST_KERNEL, "find/cold", Cost(EROFS), AtMost(1.1)),
    figure("10 KB files fresh: time", FLIST_KERNEL, "small/fresh", Cost(EROFS), AtMost(1.5)),
    figure("open+read+close warm: time", FLIST_KERNEL, "small/warm", Cost(EXT4), AtMost(1.1)),
    figure("sequential hot: speed", FLIST_KERNEL, "seq/hot", Speed(EXT4), AtLeast(0.9)),
    figure("random 4 KiB hot: speed", FLIST_KERNEL, "random/hot", Speed(EXT4), AtLeast(0.9)),
    figure("find -ls, inodes dropped: time", FLIST_FUSE, "find/cold", Cost(NYDUS), AtMost(1.0)),
    figure("10 KB files fresh: time", FLIST_FUSE, "small/fresh", Cost(NYDUS), AtMost(1.0)),
    figure("open+read+close warm: time", FLIST_FUSE, "small/warm", Cost(EXT4), AtMost(1.3)),
    figure("tar, empty cache: time", FLIST_KERNEL, "tar/empty", Cost(NYDUS), AtMost(0.8)),
    figure("tar, empty cache: time", FLIST_FUSE, "tar/empty", Cost(NYDUS), AtMost(0.8)),
    figure("random 4 KiB, disk cache: time", FLIST_KERNEL, "random/disk", Cost(NYDUS), AtMost(3.0)),
    figure("random 4 KiB, disk cache: time", FLIST_FUSE, "random/disk", Cost(NYDUS), AtMost(3.0)),
    figure("daemon memory: MiB over budget", FLIST_KERNEL, "rss/empty", MibOverBudget, AtMost(64.0)),
    figure("daemon memory: MiB over budget", FLIST_KERNEL, "rss/disk", MibOverBudget, AtMost(64.0)),
    figure("daemon memory: MiB over budget", FLIST_FUSE, "rss/empty", MibOverBudget, AtMost(64.0)),
    figure("daemon memory: MiB over budget", FLIST_FUSE, "rss/disk", MibOverBudget, AtMost(64.0)),
    figure("64 readers: fetches", FLIST_KERNEL, "flight/page", Extra("fetches"), AtMost(1.0)),
    figure("64 readers: fetches", FLIST_FUSE, "flight/page", Extra("fetches"), AtMost(1.0)),
    figure("64 readers, O_DIRECT: fetches", FLIST_FUSE, "flight/direct", Extra("fetches"), AtMost(1.0)),
    figure("tar from http next door: time", FAR_KERNEL, "lan/tar", Cost(FLIST_KERNEL), AtMost(1.15)),
    figure("tar from http next door: time", FAR_FUSE, "lan/tar", Cost(FLIST_FUSE), AtMost(1.15)),
    figure("python from far away: time", FAR_KERNEL, "wan/start", Cost(FAR_NYDUS), AtMost(1.0)),
    figure("python from far away: time", FAR_FUSE, "wan/start", Cost(FAR_NYDUS), AtMost(1.0)),
    figure("python from far away: time", FAR_KERNEL, "wan/start", Cost(DOWNLOAD), AtMost(0.4)),
    figure("python from far away: time", FAR_FUSE, "wan/start", Cost(DOWNLOAD), AtMost(0.4)),
    figure("python from far away: time", KERNEL_PROFILE, "wan/start", Cost(DOWNLOAD), AtMost(0.4)),
    figure("python from far away: time", FUSE_PROFILE, "wan/start", Cost(DOWNLOAD), AtMost(0.4)),
    figure("cold reads, p99", KERNEL_STALLED, "stall/p99", Cost(KERNEL_THREE), AtMost(2.0)),
    figure("cold reads, p99", FUSE_STALLED, "stall/p99", Cost(FUSE_THREE), AtMost(2.0)),
];

const fn figure(what: &'static str, ours: &'static str, part: &'static str, of: Of, bound: Bound) -> Figure {
    Figure { what, ours, part, of, bound }
}

/// A figure and what was measured of it, if it was.
pub(super) struct Checked {
    figure: &'static Figure,
    value: Option<f64>,
}

/// All figures, measured.
pub(super) fn check(results: &Results) -> Vec<Checked> {
    FIGURES.iter().map(|figure| Checked { figure, value: value(figure, results) }).collect()
}

fn value(figure: &Figure, results: &Results) -> Option<f64> {
    let unit = part::named(figure.part)?.unit;
    let ours = results.median(figure.part, figure.ours)?;
    let extra = |key: &str| results.extras(figure.part, figure.ours).get(key).copied();
    match figure.of {
        Itself => Some(ours),
        Cost(rival) => Some(unit.cost(ours, results.median(figure.part, rival)?)),
        Speed(rival) => Some(1.0 / unit.cost(ours, results.median(figure.part, rival)?)),
        Extra(key) => extra(key),
        MibOverBudget => Some((ours - extra("budget_bytes")?) / f64::from(1 << 20)),
    }
}

impl Checked {
    /// Nothing if it was not measured.
    fn is_met(&self) -> Option<bool> {
        self.value.map(|value| match self.figure.bound {
            AtMost(most) => value <= most,
            AtLeast(least) => value >= least,
        })
    }

    fn aim(&self) -> String {
        let than = match self.figure.of {
            Cost(rival) | Speed(rival) => format!(" x {rival}"),
            Itself | Extra(_) | MibOverBudget => String::new(),
        };
        match self.figure.bound {
            AtMost(most) => format!("<= {most}{than}"),
            AtLeast(least) => format!(">= {least}{than}"),
        }
    }

    pub(super) fn document(&self) -> Value {
        let figure = self.figure;
        json!({
            "what": figure.what, "contender": figure.ours, "part": figure.part, "aim": self.aim(),
            "value": self.value, "met": self.is_met(),
        })
    }
}

/// Which are met, as a table.
pub(super) fn print(checked: &[Checked]) {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(["figure", "contender", "aim", "verdict"]);
    for one in checked {
        let verdict = match (one.is_met(), one.value) {
            (Some(met), Some(value)) => {
                format!("{} ({})", if met { "met" } else { "missed" }, digits(value))
            }
            _ => "not measured".to_owned(),
        };
        table.add_row([one.figure.what, one.figure.ours, &one.aim(), &verdict]);
    }
    println!("\n### Figures to reach\n\n{table}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::results::{Extras, Log};

    #[test]
    fn every_figure_names_a_part_that_is_measured() {
        for figure in FIGURES {
            assert!(part::named(figure.part).is_some(), "{}", figure.part);
        }
    }

    #[test]
    fn speed_is_the_inverse_of_cost_also_where_more_is_better() {
        let mut results = Results::default();
        for (contender, value) in [(FLIST_KERNEL, 900.0), (EXT4, 1000.0)] {
            Log::new(&mut results, contender, 0).add("seq/hot", value, Extras::new());
        }
        let hot = FIGURES.iter().find(|figure| figure.part == "seq/hot");
        let speed = hot.and_then(|figure| value(figure, &results));
        assert!(speed.is_some_and(|speed| (speed - 0.9).abs() < 1e-9), "{speed:?}");
    }
}
