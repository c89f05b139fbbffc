//! The result as a picture: one bar for each task and source, on a logarithmic scale of time.

use std::path::Path;

use anyhow::Context;
use plotters::prelude::*;

use super::report::{Report, show};

const WIDTH: u32 = 900;
const ROW: u32 = 26;
const MARGIN: u32 = 60;
/// Where bars begin: sources and tasks are written left of it.
const LABELS: i32 = 420;
const COLORS: [RGBColor; 4] = [
    RGBColor(0x33, 0x66, 0x99),
    RGBColor(0x99, 0x66, 0x33),
    RGBColor(0x44, 0x88, 0x55),
    RGBColor(0x88, 0x44, 0x77),
];

pub fn write(report: &Report, file: &Path) -> anyhow::Result<()> {
    std::fs::write(file, draw(report)?).with_context(|| format!("writing {}", file.display()))
}

fn draw(report: &Report) -> anyhow::Result<String> {
    let bars: Vec<(usize, String, f64)> = report
        .sources
        .iter()
        .enumerate()
        .flat_map(|(n, rows)| {
            let label = move |name: &str| format!("{name}: {}", short(&rows.source));
            rows.tasks.iter().map(move |task| (n, label(task.name), task.median_seconds()))
        })
        .collect();
    let shortest = bars.iter().map(|bar| bar.2).fold(f64::INFINITY, f64::min).max(1e-7);
    let longest = bars.iter().map(|bar| bar.2).fold(shortest, f64::max);
    let mut svg = String::new();
    {
        let height = MARGIN + ROW * bars.len() as u32;
        let area = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        area.fill(&WHITE).map_err(plain)?;
        let text = ("sans-serif", 14).into_font();
        let title = "flist bench, medians, logarithmic";
        area.draw(&Text::new(title, (10, 10), ("sans-serif", 18).into_font())).map_err(plain)?;
        let room = f64::from(WIDTH as i32 - LABELS - 90);
        for (row, (source, label, seconds)) in bars.iter().enumerate() {
            let y = 40 + row as i32 * ROW as i32;
            // The shortest bar is still to be seen.
            let share = (seconds / shortest).ln() / (longest / shortest).ln().max(1e-9);
            let end = LABELS + (room * (0.05 + 0.95 * share.clamp(0.0, 1.0))) as i32;
            area.draw(&Text::new(label.clone(), (10, y), text.clone())).map_err(plain)?;
            let color = COLORS[source % COLORS.len()].filled();
            area.draw(&Rectangle::new([(LABELS, y), (end, y + 16)], color)).map_err(plain)?;
            area.draw(&Text::new(show(*seconds), (end + 6, y), text.clone())).map_err(plain)?;
        }
        area.present().map_err(plain)?;
    }
    Ok(svg)
}

/// The backend's errors hold borrowed things; their words are enough.
fn plain(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow::anyhow!("drawing: {error}")
}

/// The end of a long source.
fn short(source: &str) -> String {
    const MOST: usize = 32;
    let count = source.chars().count();
    if count <= MOST {
        return source.to_owned();
    }
    format!("...{}", source.chars().skip(count - MOST).collect::<String>())
}
