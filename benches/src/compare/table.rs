//! The printed tables: one per heading, a line per part and contender.

use comfy_table::{CellAlignment, Table, presets};
use indicatif::BinaryBytes;

use super::part::{PARTS, Part, Unit, digits};
use super::results::{Extras, Results, is_ours};

const COLUMNS: [&str; 8] = ["what", "contender", "median", "best", "unit", "x flist", "runs", "also"];
/// Numbers are set to the right.
const NUMBERS: [usize; 4] = [2, 3, 5, 6];

/// Prints all parts that were measured.
pub(super) fn print(results: &Results) {
    for parts in PARTS.chunk_by(|a, b| a.heading == b.heading) {
        let mut table = Table::new();
        table.load_style(presets::ASCII_MARKDOWN);
        table.set_header(COLUMNS);
        for number in NUMBERS {
            if let Some(column) = table.column_mut(number) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        for part in parts {
            for contender in results.contenders(part.name) {
                if let Some(line) = line(results, part, contender) {
                    table.add_row(line);
                }
            }
        }
        if !table.is_empty() {
            println!("\n### {}\n\n{table}", parts[0].heading);
        }
    }
}

fn line(results: &Results, part: &Part, contender: &str) -> Option<[String; 8]> {
    let values = results.values(part.name, contender);
    let median = results.median(part.name, contender)?;
    let first = results.contenders(part.name).into_iter().find(|name| is_ours(name));
    let ratio = first.and_then(|first| results.median(part.name, first)).map(|first| digits(median / first));
    let best = match part.unit {
        Unit::MebibytesASecond => values.iter().copied().fold(f64::MIN, f64::max),
        _ => values.iter().copied().fold(f64::MAX, f64::min),
    };
    Some([
        part.what.to_owned(),
        contender.to_owned(),
        part.unit.show(median),
        part.unit.show(best),
        part.unit.label().to_owned(),
        ratio.unwrap_or_default(),
        values.len().to_string(),
        also(&results.extras(part.name, contender)),
    ])
}

/// What else was seen, in words.
fn also(extras: &Extras) -> String {
    let bytes = |n: f64| BinaryBytes(n.max(0.0) as u64);
    let word = |(key, n): (&&str, &f64)| match *key {
        "mb_per_second" => format!("{} MB/s", digits(*n)),
        "files_per_second" => format!("{} files/s", digits(*n)),
        "peak_rss_bytes" => format!("peak RSS {}", bytes(*n)),
        "cpu_seconds" => format!("CPU {} s", digits(*n)),
        "fetched_bytes" => format!("fetched {}", bytes(*n)),
        "needed_bytes" => format!("needed {}", bytes(*n)),
        "decoded_bytes" => format!("decoded {}", bytes(*n)),
        "cache_bytes" => format!("cache grew by {}", bytes(*n)),
        "fetches" if *n == 1.0 => "1 fetch".to_owned(),
        "fetches" => format!("{n:.0} fetches"),
        "rss_anon_bytes" => format!("anonymous {}", bytes(*n)),
        "budget_bytes" => format!("cache may take {}", bytes(*n)),
        other => format!("{other} {}", digits(*n)),
    };
    extras.iter().map(word).collect::<Vec<_>>().join(", ")
}
