//! What was measured: medians over the rounds, as a table and as JSON with every single round.

use std::time::Duration;

use comfy_table::{Table, presets};
use g8_fs::image::Image;
use g8_fs::source::Spec;
use serde::Serialize;

use super::files::Files;
use super::place::Use;
use super::start::Start;
use crate::output;

/// Everything.
#[derive(Debug, Serialize)]
pub struct Report {
    /// CID of the flist.
    #[serde(rename = "ref")]
    reference: String,
    /// Stored bytes of all its blocks.
    stored_bytes: u64,
    /// Sum of the sizes of its regular files.
    content_bytes: u64,
    /// Per source, in the order given.
    pub sources: Vec<Rows>,
}

/// What was measured from one source.
#[derive(Debug, Serialize)]
pub struct Rows {
    /// The source.
    pub source: String,
    /// The tasks, in the order of their first measurement.
    pub tasks: Vec<Task>,
}

/// One task and its rounds.
#[derive(Debug, Serialize)]
pub struct Task {
    /// What was done.
    pub name: &'static str,
    /// How often it was done in a round, for tasks of many equal parts.
    parts: usize,
    /// Bytes that the task is about; 0 where only the kernel knows.
    needed_bytes: u64,
    rounds: Vec<Round>,
}

#[derive(Debug, Serialize)]
struct Round {
    seconds: f64,
    fetched_bytes: u64,
    read_bytes: u64,
    kernel_requests: u64,
    source_requests: u64,
    /// Of one part: the middle one and the slowest of twenty.
    #[serde(skip_serializing_if = "Option::is_none")]
    part_seconds: Option<[f64; 2]>,
}

impl Report {
    pub fn new(image: &Image, sources: &[Spec]) -> Report {
        let rows = |source: &Spec| Rows { source: source.to_string(), tasks: Vec::new() };
        Report {
            reference: image.id.to_string(),
            stored_bytes: image.root.stored_bytes,
            content_bytes: image.root.content_bytes,
            sources: sources.iter().map(rows).collect(),
        }
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(["SOURCE", "TASK", "TIME", "MIN", "PER FILE", "95 %", "FETCHED", "OF", "REQUESTS"]);
        for rows in &self.sources {
            for task in &rows.tasks {
                let round = task.median();
                let [middle, slow] =
                    round.part_seconds.map_or([String::new(), String::new()], |p| p.map(show));
                table.add_row([
                    output::name(rows.source.as_bytes()),
                    task.name.to_owned(),
                    show(round.seconds),
                    show(task.fastest()),
                    middle,
                    slow,
                    output::size(round.fetched_bytes),
                    output::size(if task.needed_bytes > 0 { task.needed_bytes } else { round.read_bytes }),
                    format!("{} / {}", round.kernel_requests, round.source_requests),
                ]);
            }
        }
        format!(
            "{table}\nmedians; fetched: compressed, of all {}; of: the plain bytes that were read, of all {}; \
             requests: of the kernel / to the source",
            output::size(self.stored_bytes),
            output::size(self.content_bytes)
        )
    }
}

impl Rows {
    pub fn add_files(&mut self, mounted_in: Duration, files: &Files) {
        self.task("mount", 1, 0).rounds.push(Round {
            seconds: mounted_in.as_secs_f64(),
            fetched_bytes: 0,
            read_bytes: 0,
            kernel_requests: 0,
            source_requests: 0,
            part_seconds: None,
        });
        for (name, (used, times)) in [("files, cold", &files.cold), ("files, warm", &files.warm)] {
            let round = Round { part_seconds: quantiles(times), ..Round::of(used) };
            self.task(name, files.count, files.bytes).rounds.push(round);
        }
    }

    pub fn add_start(&mut self, start: &Start) {
        self.task("mount and start, cold", 1, 0).rounds.push(Round::of(&start.cold));
        self.task("start, warm", 1, 0).rounds.push(Round::of(&start.warm));
    }

    fn task(&mut self, name: &'static str, parts: usize, needed_bytes: u64) -> &mut Task {
        let at = match self.tasks.iter().position(|task| task.name == name) {
            Some(at) => at,
            None => {
                self.tasks.push(Task { name, parts, needed_bytes, rounds: Vec::new() });
                self.tasks.len() - 1
            }
        };
        &mut self.tasks[at]
    }
}

impl Task {
    /// The round with the middle time.
    fn median(&self) -> &Round {
        let mut order: Vec<&Round> = self.rounds.iter().collect();
        order.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
        order[order.len() / 2]
    }

    /// Its time.
    pub fn median_seconds(&self) -> f64 {
        self.median().seconds
    }

    fn fastest(&self) -> f64 {
        self.rounds.iter().map(|round| round.seconds).fold(f64::INFINITY, f64::min)
    }
}

impl Round {
    fn of(used: &Use) -> Round {
        Round {
            seconds: used.time.as_secs_f64(),
            fetched_bytes: used.fetched,
            read_bytes: used.read,
            kernel_requests: used.kernel_requests,
            source_requests: used.source_requests,
            part_seconds: None,
        }
    }
}

fn quantiles(times: &[Duration]) -> Option<[f64; 2]> {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let at = |percent: usize| sorted.get((sorted.len() * percent / 100).min(sorted.len().wrapping_sub(1)));
    Some([at(50)?.as_secs_f64(), at(95)?.as_secs_f64()])
}

/// Seconds in the unit that fits.
pub fn show(seconds: f64) -> String {
    match seconds {
        s if s >= 1.0 => format!("{s:.2} s"),
        s if s >= 1e-3 => format!("{:.1} ms", s * 1e3),
        s => format!("{:.1} us", s * 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_a_round_and_quantiles_need_a_time() {
        let round = |seconds| Round {
            seconds,
            fetched_bytes: seconds as u64,
            read_bytes: 0,
            kernel_requests: 0,
            source_requests: 0,
            part_seconds: None,
        };
        let task =
            Task { name: "x", parts: 1, needed_bytes: 0, rounds: vec![round(9.0), round(1.0), round(5.0)] };
        assert_eq!((task.median().fetched_bytes, task.fastest()), (5, 1.0));
        assert_eq!(quantiles(&[]), None);
        let times: Vec<Duration> = (1..=100).map(Duration::from_secs).collect();
        assert_eq!(quantiles(&times), Some([51.0, 96.0]));
        assert_eq!(
            ["2.50 s", "2.5 ms", "2.5 us"],
            [2.5, 2.5e-3, 2.5e-6].map(show).each_ref().map(|s| s.as_str())
        );
    }
}
