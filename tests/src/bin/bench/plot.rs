//! The figures as a picture: one panel for each unit, a bar for each figure, the middle half of its rounds, and its
//! target.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::figures::{Figure, Target, Unit};

const WIDTH_PX: u32 = 1100;
const ROW_PX: u32 = 26;
const HEAD_PX: u32 = 84;

/// Panels from top to bottom.
const PANELS: [(Unit, &str); 9] = [
    (Unit::NsPerPacket, "Program cost over the empty program, ns per packet (less is better)"),
    (Unit::NsPerConnection, "Under live traffic, ns (less is better)"),
    (Unit::FlowsPerSec, "New flows per second in the programs of one processor (more is better)"),
    (Unit::ConnectionsPerSec, "Connections per second of processor time, one byte each way (more is better)"),
    (Unit::GigabitsPerSec, "One bulk TCP stream, Gbit per second of processor time (more is better)"),
    (Unit::Ratio, "Ratios, taken within a round"),
    (Unit::Millis, "Control plane, ms (less is better)"),
    (Unit::Mebibytes, "Memory, MiB (less is better)"),
    (Unit::Count, "Writes (less is better)"),
];

const MET: RGBColor = RGBColor(46, 125, 80);
const MISSED: RGBColor = RGBColor(190, 60, 50);
const PLAIN: RGBColor = RGBColor(90, 120, 170);

/// Writes the picture.
pub fn svg(path: &Path, figures: &[Figure]) -> Result<()> {
    let panels: Vec<(&str, Vec<&Figure>)> = PANELS
        .iter()
        .map(|(unit, title)| (*title, figures.iter().filter(|figure| figure.unit == *unit).collect::<Vec<_>>()))
        .filter(|(_, rows)| !rows.is_empty())
        .collect();
    let heights: Vec<u32> = panels.iter().map(|(_, rows)| HEAD_PX + ROW_PX * rows.len() as u32).collect();
    let area = SVGBackend::new(path, (WIDTH_PX, heights.iter().sum())).into_drawing_area();
    let wrong = |error: &dyn std::fmt::Display| anyhow!("cannot draw {}: {error}", path.display());
    area.fill(&WHITE).map_err(|error| wrong(&error))?;
    let mut rest = area;
    for ((title, rows), height) in panels.into_iter().zip(heights) {
        let (upper, lower) = rest.split_vertically(height);
        panel(&upper, title, &rows).map_err(|error| wrong(&error))?;
        rest = lower;
    }
    rest.present().map_err(|error| wrong(&error))
}

type Drawn<'a> = Result<(), DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>>;

fn panel<'a>(area: &DrawingArea<SVGBackend<'a>, Shift>, title: &str, rows: &[&Figure]) -> Drawn<'a> {
    let bound = |figure: &&Figure| match figure.target {
        Target::AtMost(bound) | Target::AtLeast(bound) => bound,
        Target::None => 0.0,
    };
    let largest = rows.iter().map(|row| row.middle_half().1.max(bound(row))).fold(0.0, f64::max);
    let last = i32::try_from(rows.len() - 1).unwrap_or(i32::MAX);
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 17))
        .margin_right(30)
        .x_label_area_size(28)
        .y_label_area_size(400)
        .build_cartesian_2d(0.0..largest * 1.12, (0..last).into_segmented())?;
    let name = |place: &SegmentValue<i32>| match place {
        SegmentValue::CenterOf(row) => {
            rows.get((last - row).unsigned_abs() as usize).map_or(String::new(), |row| row.what.clone())
        }
        SegmentValue::Exact(_) | SegmentValue::Last => String::new(),
    };
    chart
        .configure_mesh()
        .disable_y_mesh()
        .light_line_style(TRANSPARENT)
        .y_labels(rows.len())
        .y_label_formatter(&name)
        .label_style(("sans-serif", 13))
        .draw()?;
    for (place, row) in (0..=last).rev().zip(rows) {
        let (bottom, middle, top) =
            (SegmentValue::Exact(place), SegmentValue::CenterOf(place), SegmentValue::Exact(place + 1));
        let color = match row.is_met() {
            Some(true) => MET,
            Some(false) => MISSED,
            None => PLAIN,
        };
        let mut bar = Rectangle::new([(0.0, bottom.clone()), (row.median(), top.clone())], color.mix(0.75).filled());
        bar.set_margin(4, 4, 0, 0);
        chart.draw_series([bar])?;
        let (low, high) = row.middle_half();
        chart.draw_series([PathElement::new(vec![(low, middle.clone()), (high, middle.clone())], BLACK)])?;
        if row.target != Target::None {
            let line = vec![(bound(row), bottom), (bound(row), top)];
            chart.draw_series([PathElement::new(line, BLACK.stroke_width(2))])?;
        }
        let style = ("sans-serif", 13).into_text_style(area).pos(Pos::new(HPos::Left, VPos::Center));
        let label = Text::new(row.unit.print(row.median()), (high.max(bound(row)) + largest * 0.01, middle), style);
        chart.draw_series([label])?;
    }
    Ok(())
}
