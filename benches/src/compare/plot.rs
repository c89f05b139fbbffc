//! The drawing: per part a group of bars, each contender's cost as a multiple of a reference, on a log scale.
//!
//! The reference is ext4 where it takes part, else the best rival. To the left of the line is better.

use std::path::Path;

use anyhow::anyhow;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::contender::EXT4;
use super::facts::Facts;
use super::part::{PARTS, Part, digits};
use super::results::{Results, is_ours};

const WIDTH: u32 = 1200;
const BAR: f64 = 15.0;
const ABOVE: u32 = 70;
const BELOW: u32 = 50;
const LABELS: u32 = 250;
/// Drawn at most; the number beside the bar tells the rest.
const MOST: f64 = 100.0;
const LEAST: f64 = 0.01;
const FONT: &str = "sans-serif";

/// Ours in two strong colours, the others each in one of its own.
const COLOURS: [(&str, RGBColor); 8] = [
    ("flist fuse", RGBColor(244, 143, 60)),
    ("flist", RGBColor(208, 62, 25)),
    ("nydus v3 verifying", RGBColor(126, 164, 214)),
    ("nydus", RGBColor(44, 95, 168)),
    ("ext4", RGBColor(110, 110, 110)),
    ("erofs", RGBColor(46, 139, 87)),
    ("mkfs.erofs", RGBColor(46, 139, 87)),
    ("", RGBColor(168, 140, 190)),
];

struct Group {
    part: &'static Part,
    reference: String,
    /// Contender and cost.
    bars: Vec<(String, f64)>,
}

/// Draws to an SVG file.
pub(super) fn draw(file: &Path, results: &Results, facts: &Facts) -> anyhow::Result<()> {
    let groups: Vec<Group> = PARTS.iter().filter_map(|part| group(results, part)).collect();
    let lines: usize = groups.iter().map(|group| group.bars.len() + 1).sum();
    if lines == 0 {
        return Ok(());
    }
    let height = ABOVE + BELOW + (lines as f64 * BAR) as u32;
    let root = SVGBackend::new(file, (WIDTH, height)).into_drawing_area();
    paint(&root, &groups, lines, facts).map_err(|error| anyhow!("{error}"))?;
    root.present().map_err(|error| anyhow!("{error}"))
}

fn group(results: &Results, part: &'static Part) -> Option<Group> {
    let names = results.contenders(part.name);
    let median = |name: &str| results.median(part.name, name).filter(|value| *value > 0.0);
    let cost = |name: &&&str| median(name).map_or(f64::INFINITY, |value| part.unit.cost(value, 1.0));
    let rivals = names.iter().filter(|name| !is_ours(name));
    let best = rivals.min_by(|a, b| cost(a).total_cmp(&cost(b)));
    let reference = *names.iter().find(|name| **name == EXT4).or(best)?;
    let base = median(reference)?;
    let bars =
        names.iter().filter_map(|name| Some(((*name).to_owned(), part.unit.cost(median(name)?, base))));
    Some(Group { part, reference: reference.to_owned(), bars: bars.collect() })
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Error<'a> = DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>;

fn paint<'a>(root: &Area<'a>, groups: &[Group], lines: usize, facts: &Facts) -> Result<(), Error<'a>> {
    root.fill(&WHITE)?;
    let title = (FONT, 17).into_font().color(&BLACK);
    root.draw(&Text::new(
        "Cost beside ext4, or the best rival where ext4 has no part: left of 1 is better",
        (12, 10),
        title,
    ))?;
    root.draw(&Text::new(facts.line(), (12, 34), (FONT, 12).into_font().color(&BLACK.mix(0.7))))?;
    let costs = || groups.iter().flat_map(|group| &group.bars).map(|(_, cost)| cost.clamp(LEAST, MOST));
    let (low, high) = (costs().fold(0.5, f64::min) * 0.8, costs().fold(2.0, f64::max) * 2.5);
    let mut chart = ChartBuilder::on(root)
        .margin_top(ABOVE - 10)
        .margin_right(20)
        .x_label_area_size(BELOW - 10)
        .y_label_area_size(LABELS)
        .build_cartesian_2d((low..high).log_scale(), lines as f64..0.0)?;
    chart.configure_mesh().disable_y_mesh().y_labels(0).x_label_formatter(&|cost| digits(*cost)).draw()?;
    let mut y = 0.5;
    for group in groups {
        label(root, chart.backend_coord(&(low, y)), group)?;
        for (name, cost) in &group.bars {
            let end = cost.clamp(LEAST, MOST);
            let bar = Rectangle::new([(1.0, y + 0.08), (end, y + 0.92)], colour(name).filled());
            let text = Text::new(format!("{name} {}", digits(*cost)), (4, 0), small());
            let beside = EmptyElement::at((end.max(1.0), y + 0.5)) + text;
            chart.draw_series([bar])?;
            chart.draw_series([beside])?;
            y += 1.0;
        }
        y += 1.0;
    }
    let line = PathElement::new(vec![(1.0, 0.0), (1.0, lines as f64)], BLACK);
    chart.draw_series([line])?;
    Ok(())
}

/// The part's name and what one is, to the left of its bars.
fn label<'a>(root: &Area<'a>, (x, y): (i32, i32), group: &Group) -> Result<(), Error<'a>> {
    let right = |size: u32| {
        let style = (FONT, size).into_font().color(&BLACK);
        style.pos(Pos::new(HPos::Right, VPos::Top))
    };
    root.draw(&Text::new(group.part.name.to_owned(), (x - 10, y), right(14)))?;
    let what = format!("1 = {}", group.reference);
    root.draw(&Text::new(what, (x - 10, y + BAR as i32), right(10)))
}

fn small() -> TextStyle<'static> {
    (FONT, 11).into_font().color(&BLACK).pos(Pos::new(HPos::Left, VPos::Center))
}

fn colour(contender: &str) -> RGBColor {
    COLOURS.iter().find(|(begin, _)| contender.starts_with(begin)).map_or(BLACK, |(_, colour)| *colour)
}
