//! Pictures of panels, for the documentation: what Grafana would show, as small SVG files.

use std::{collections::HashMap, fmt::Write};

use e2e::prometheus::Series;

use crate::panels::Panel;

/// The width of one of 24 columns, and the height of a line.
const COLUMN: f64 = 50.0;
const LINE: f64 = 34.0;

const COLORS: [&str; 10] = [
    "#0284c7", "#ea580c", "#16a34a", "#9333ea", "#dc2626", "#0d9488", "#ca8a04", "#db2777", "#475569",
    "#65a30d",
];

/// Of a panel: from its border to the axes.
const LEFT: f64 = 58.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 62.0;

/// One line of a panel's legend, and its points.
pub(crate) struct Line {
    pub(crate) legend: String,
    pub(crate) points: Vec<(f64, f64)>,
    /// Of the axis on the right, its unit.
    right: Option<String>,
}

impl Line {
    pub(crate) fn new(panel: &Panel, legend: &str, series: Series) -> Self {
        let mut text = legend.to_owned();
        for (label, value) in &series.labels {
            text = text.replace(&format!("{{{{{label}}}}}"), value);
        }
        // What the series lacks is empty, as in Grafana.
        while let Some((start, end)) = text.find("{{").zip(text.find("}}")) {
            text.replace_range(start..end + 2, "");
        }
        Self { right: panel.right.get(&text).cloned(), legend: text, points: series.points }
    }
}

/// What was done to the release, at the time that it was done.
pub(crate) type Event = (f64, &'static str);

pub(crate) fn file_name(row: &str) -> String {
    row.to_lowercase().replace(' ', "-")
}

/// All panels of a row, from the beginning of the run to its end.
pub(crate) fn draw(panels: &[(&Panel, Vec<Line>)], (from, to): (f64, f64), events: &[Event]) -> String {
    let top = panels.iter().map(|(panel, _)| panel.lines.0).min().unwrap_or_default();
    let bottom = panels.iter().map(|(panel, _)| panel.lines.0 + panel.lines.1).max().unwrap_or_default();
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 1200 {:.0}\" font-family=\"system-ui, sans-serif\" font-size=\"11\" \
         fill=\"#334155\" role=\"img\" aria-label=\"{}\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n",
        (bottom - top) as f64 * LINE,
        panels.first().map_or("", |(panel, _)| &panel.row),
    );
    for (panel, lines) in panels {
        let (x, y) = (panel.columns.0 as f64 * COLUMN, (panel.lines.0 - top) as f64 * LINE);
        let (width, height) = (panel.columns.1 as f64 * COLUMN - 6.0, panel.lines.1 as f64 * LINE - 6.0);
        let _ = writeln!(
            svg,
            "<g transform=\"translate({} {})\"><rect width=\"{width}\" height=\"{height}\" rx=\"4\" fill=\"none\" stroke=\"#cbd5e1\"/>\
             <text x=\"10\" y=\"18\" font-size=\"13\" font-weight=\"600\" fill=\"#0f172a\">{}</text>",
            x + 3.0,
            y + 3.0,
            escaped(&panel.title)
        );
        if panel.is_number {
            number(&mut svg, panel, lines, width, height);
        } else {
            course(&mut svg, panel, lines, (from, to), events, (width, height));
        }
        svg.push_str("</g>\n");
    }
    svg + "</svg>\n"
}

fn number(svg: &mut String, panel: &Panel, lines: &[Line], width: f64, height: f64) {
    let latest = lines.iter().find_map(|line| line.points.last());
    let text = latest.map_or_else(
        || "none".to_owned(),
        |(_, value)| match panel.texts[format!("{value}")]["text"].as_str() {
            Some(text) => text.to_owned(),
            // Counts, though a rate that is extrapolated is no whole number.
            None if panel.unit == "short" => format!("{:.0}", value.round()),
            None => shown(*value, &panel.unit),
        },
    );
    let _ = write!(
        svg,
        "<text x=\"{:.0}\" y=\"{:.0}\" font-size=\"30\" text-anchor=\"middle\" fill=\"#0f172a\">{}</text>",
        width / 2.0,
        height / 2.0 + 22.0,
        escaped(&text)
    );
}

fn course(
    svg: &mut String,
    panel: &Panel,
    lines: &[Line],
    (from, to): (f64, f64),
    events: &[Event],
    (width, height): (f64, f64),
) {
    let stacked = if panel.is_stacked { stack(lines) } else { Vec::new() };
    let lines = if panel.is_stacked { &stacked } else { lines };
    let second = lines.iter().find_map(|line| line.right.as_deref());
    let right = width - if second.is_some() { LEFT } else { RIGHT };
    let floor = height - BOTTOM;
    let x = |time: f64| LEFT + (time - from) / (to - from) * (right - LEFT);
    let tops = [false, true]
        .map(|of_right| top(lines, of_right, second.filter(|_| of_right).unwrap_or(&panel.unit)));
    let y = |value: f64, of_right: bool| floor - value.max(0.0) / tops[usize::from(of_right)] * (floor - TOP);

    for quarter in [0.0, 0.5, 1.0] {
        let at = y(quarter * tops[0], false);
        let _ = write!(
            svg,
            "<path d=\"M{LEFT} {at:.1}H{right:.1}\" stroke=\"#e2e8f0\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 5.0,
            at + 4.0,
            shown(quarter * tops[0], &panel.unit)
        );
        if let Some(unit) = second {
            let text = shown(quarter * tops[1], unit);
            let _ = write!(svg, "<text x=\"{:.1}\" y=\"{:.1}\">{text}</text>", right + 5.0, at + 4.0);
        }
    }
    let minutes = ((to - from) / 60.0).floor() as u32;
    for minute in 0..=minutes {
        let at = x(from + 60.0 * f64::from(minute));
        let text = if minute == 0 { "0 min".to_owned() } else { minute.to_string() };
        let _ =
            write!(svg, "<text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{text}</text>", floor + 14.0);
    }
    for (index, (time, _)) in events.iter().enumerate() {
        let at = x(*time);
        let _ = write!(
            svg,
            "<path d=\"M{at:.1} {TOP}V{floor:.1}\" stroke=\"#94a3b8\" stroke-dasharray=\"2 3\"/>\
             <text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\" font-size=\"10\">{}</text>",
            TOP - 3.0,
            index + 1
        );
    }
    if lines.is_empty() {
        let _ = write!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">none</text>",
            (LEFT + right) / 2.0,
            (TOP + floor) / 2.0
        );
    }
    for (line, color) in lines.iter().zip(COLORS.into_iter().cycle()) {
        let path = path(&line.points, (to - from) / 30.0, x, |value| y(value, line.right.is_some()));
        let _ = write!(svg, "<path d=\"{path}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"1.5\"/>");
    }
    legend(svg, lines, width, floor + 30.0);
}

/// Each line upon those before it.
fn stack(lines: &[Line]) -> Vec<Line> {
    let mut sums = HashMap::new();
    let mut add = |&(time, value): &(f64, f64)| {
        let sum = sums.entry((time * 1000.0) as u64).or_insert(0.0);
        *sum += value;
        (time, *sum)
    };
    let stacked = |line: &Line| Line {
        legend: line.legend.clone(),
        points: line.points.iter().map(&mut add).collect(),
        right: None,
    };
    lines.iter().map(stacked).collect()
}

/// The uppermost value of an axis: a round one above all that is shown.
fn top(lines: &[Line], of_right: bool, unit: &str) -> f64 {
    let points = lines.iter().filter(|line| line.right.is_some() == of_right).flat_map(|line| &line.points);
    let most = points.map(|(_, value)| *value).fold(0.0, f64::max);
    if most <= 0.0 {
        return 1.0;
    }
    let base: f64 = if unit == "bytes" { 1024.0 * 1024.0 } else { 1.0 };
    let power = base * 10_f64.powf((most / base).log10().floor());
    [1.0, 2.0, 4.0, 6.0, 8.0, 10.0]
        .map(|factor| factor * power)
        .into_iter()
        .find(|top| *top >= most)
        .unwrap_or(most)
}

/// A line through the points, with gaps where there are none for a while. What lies on a level needs two points only.
fn path(points: &[(f64, f64)], gap: f64, x: impl Fn(f64) -> f64, y: impl Fn(f64) -> f64) -> String {
    let mut path = String::new();
    let mut previous: Option<f64> = None;
    for (index, &(time, value)) in points.iter().enumerate() {
        let begins = previous.is_none_or(|previous| time - previous > gap);
        previous = Some(time);
        let level = |other: Option<&(f64, f64)>| {
            other.is_some_and(|(at, of)| *of == value && (at - time).abs() <= gap)
        };
        if !begins && level(points.get(index.wrapping_sub(1))) && level(points.get(index + 1)) {
            continue;
        }
        let _ = write!(path, "{}{:.1} {:.1}", if begins { 'M' } else { 'L' }, x(time), y(value));
    }
    path
}

fn legend(svg: &mut String, lines: &[Line], width: f64, top: f64) {
    const ROWS: usize = 3;
    let (mut x, mut row) = (10.0, 0);
    for (index, (line, color)) in lines.iter().zip(COLORS.into_iter().cycle()).enumerate() {
        let text: String = line.legend.chars().take(60).collect();
        let needs = 16.0 + 6.6 * text.chars().count() as f64;
        if x + needs > width && x > 10.0 {
            (x, row) = (10.0, row + 1);
        }
        if row == ROWS {
            let _ = write!(
                svg,
                "<text x=\"{}\" y=\"16\" text-anchor=\"end\">and {} more</text>",
                width - 10.0,
                lines.len() - index
            );
            return;
        }
        let y = top + 13.0 * row as f64;
        let _ = write!(
            svg,
            "<path d=\"M{x:.0} {:.0}h10\" stroke=\"{color}\" stroke-width=\"3\"/><text x=\"{:.0}\" y=\"{y:.0}\">{}</text>",
            y - 4.0,
            x + 13.0,
            escaped(&text)
        );
        x += needs + 8.0;
    }
}

fn shown(value: f64, unit: &str) -> String {
    let (value, unit) = match unit {
        "s" if value == 0.0 => (value, ""),
        "s" if value < 0.001 => (value * 1e6, " \u{b5}s"),
        "s" if value < 1.0 => (value * 1e3, " ms"),
        "s" if value < 120.0 => (value, " s"),
        "s" if value < 7200.0 => (value / 60.0, " min"),
        "s" if value < 172_800.0 => (value / 3600.0, " h"),
        "s" if value < 86_400_000.0 => (value / 86400.0, " d"),
        "s" => (value / 31_557_600.0, " y"),
        "percentunit" => (value * 100.0, " %"),
        "bytes" => (value / 1024.0 / 1024.0, " MiB"),
        "reqps" | "ops" => (value, "/s"),
        _ => (value, ""),
    };
    let digits = if value == value.round() || value >= 100.0 {
        0
    } else if value < 1.0 {
        2
    } else {
        1
    };
    format!("{value:.digits$}{unit}")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[test]
fn what_lies_on_a_level_is_drawn_with_two_points_and_a_gap_is_left_open() {
    let points: Vec<(f64, f64)> =
        [0, 1, 2, 3, 9, 10].into_iter().map(|time| (f64::from(time), 5.0)).collect();
    assert_eq!(path(&points, 2.0, |x| x, |y| y), "M0.0 5.0L3.0 5.0M9.0 5.0L10.0 5.0");
}

#[test]
fn numbers_have_units_that_people_use() {
    let cases = [
        (0.0042, "s", "4.2 ms"),
        (90.0, "s", "90 s"),
        (5400.0, "s", "90 min"),
        (0.995, "percentunit", "99.5 %"),
    ];
    for (value, unit, expected) in cases {
        assert_eq!(shown(value, unit), expected);
    }
    assert_eq!(shown(8.0 * 1024.0 * 1024.0, "bytes"), "8 MiB");
    assert_eq!(shown(0.25, "ops"), "0.25/s");
}
