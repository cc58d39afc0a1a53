//! Draws the figures as a picture: one panel for each case, one bar for each system, on a log scale.
//!
//! The picture can be read without the table: every panel has a title, a unit and the better direction; every bar has
//! its figure and the factor to the figure of arenite. The three colours (Okabe and Ito's blue and orange, and a grey)
//! are distinct for colour-blind readers and in print. The legend names the colours.

mod panel;

use std::fmt::Write;

use super::figures::{CaseFigures, Machine};
use panel::{Kind, Panel, Row};

const WIDTH: f64 = 1360.0;
const MARGIN: f64 = 32.0;
const GAP: f64 = 24.0;
const PANEL: f64 = (WIDTH - 2.0 * MARGIN - GAP) / 2.0;
const HEAD: f64 = 132.0;
const FOOT: f64 = 40.0;

/// Positions inside a panel.
const PAD: f64 = 18.0;
const LABELS: f64 = 196.0;
const BARS: f64 = 212.0;
const ROW: f64 = 25.0;
const BAR: f64 = 15.0;
const PANEL_HEAD: f64 = 62.0;
const AXIS: f64 = 26.0;

const INK: &str = "#1b1f24";
const SOFT: &str = "#59636e";
const GRID: &str = "#e3e7eb";
const OURS: &str = "#0072b2";
const OTHERS: &str = "#e69f00";
const BARE: &str = "#a7b0b9";

/// Draws all cases. Returns a complete SVG file.
pub fn draw(cases: &[CaseFigures], machine: &Machine) -> String {
    let panels = panel::panels(cases);
    let mut columns = [0.0_f64; 2];
    let mut body = String::new();
    let total: f64 = panels.iter().map(|panel| height(panel) + GAP).sum();
    let single = panels.len() == 1;
    for panel in &panels {
        // Fill the left column first, until half of the height is used.
        let left = columns[0] + height(panel) / 2.0 <= total / 2.0 || columns[0] == 0.0;
        let column = usize::from(!left || columns[1] > 0.0);
        let x = MARGIN + column as f64 * (PANEL + GAP);
        draw_panel(&mut body, panel, x, HEAD + columns[column]);
        columns[column] += height(panel) + GAP;
    }
    let width = if single { PANEL + 2.0 * MARGIN } else { WIDTH };
    let whole = HEAD + columns[0].max(columns[1]) + FOOT - GAP;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {whole:.0}\" width=\"{width:.0}\" \
         height=\"{whole:.0}\" font-family=\"system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif\" \
         role=\"img\" aria-label=\"arenite measured beside other ways to do the same work\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#f4f6f8\"/>\n"
    );
    text(
        &mut svg,
        MARGIN,
        46.0,
        24.0,
        INK,
        "bold",
        "start",
        "arenite beside other ways to do the same work",
    );
    text(
        &mut svg,
        MARGIN,
        70.0,
        13.0,
        SOFT,
        "normal",
        "start",
        &machine.describe(),
    );
    legend(&mut svg, single);
    svg.push_str(&body);
    text(
        &mut svg,
        MARGIN,
        whole - 16.0,
        11.5,
        SOFT,
        "normal",
        "start",
        "Medians of samples taken in turns by “arenite-bench”. Faster and slower: than arenite. Log scale: each grid line is ten times the one before.",
    );
    svg.push_str("</svg>\n");
    svg
}

fn legend(svg: &mut String, single: bool) {
    let entries = [
        (OURS, "arenite"),
        (OTHERS, "other ways to do the same"),
        (BARE, "the bare mechanism, with nothing around it"),
    ];
    let mut x = MARGIN;
    for (colour, words) in entries {
        let size = if single { 12.0 } else { 13.0 };
        rect(svg, x, 90.0, 14.0, 14.0, colour, 3.0);
        text(svg, x + 20.0, 102.0, size, INK, "normal", "start", words);
        x += 44.0 + words.len() as f64 * size * 0.54;
    }
}

fn height(panel: &Panel) -> f64 {
    let axis = if panel.has_bars() { AXIS } else { 0.0 };
    PANEL_HEAD + panel.rows.len() as f64 * ROW + axis + PAD / 2.0
}

fn draw_panel(svg: &mut String, panel: &Panel, x: f64, y: f64) {
    rect(svg, x, y, PANEL, height(panel), "#ffffff", 8.0);
    text(
        svg,
        x + PAD,
        y + 28.0,
        15.0,
        INK,
        "bold",
        "start",
        &panel.title,
    );
    text(
        svg,
        x + PAD,
        y + 47.0,
        12.0,
        SOFT,
        "normal",
        "start",
        &panel.note,
    );
    let top = y + PANEL_HEAD;
    let left = x + PAD + LABELS + 10.0;
    let scale = Scale::of(panel);
    if panel.has_bars() {
        let bottom = top + panel.rows.len() as f64 * ROW + 2.0;
        for decade in scale.low..=scale.high {
            let at = left + scale.position(10_f64.powi(decade)) * BARS;
            let _ = writeln!(
                svg,
                "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{top:.1}\" y2=\"{bottom:.1}\" stroke=\"{GRID}\"/>"
            );
            // With many decades, only every second or third number fits.
            let every = (scale.high - scale.low) / 5 + 1;
            if (decade - scale.low) % every == 0 {
                let number = panel::axis_number(decade);
                text(
                    svg,
                    at,
                    bottom + 14.0,
                    10.5,
                    SOFT,
                    "normal",
                    "middle",
                    &number,
                );
            }
        }
    }
    for (i, row) in panel.rows.iter().enumerate() {
        draw_row(
            svg,
            row,
            &scale,
            panel.has_bars(),
            x,
            left,
            top + i as f64 * ROW,
        );
    }
}

fn draw_row(svg: &mut String, row: &Row, scale: &Scale, bars: bool, x: f64, left: f64, y: f64) {
    let (colour, weight) = match row.kind {
        Kind::Ours => (OURS, "bold"),
        Kind::Other => (OTHERS, "normal"),
        Kind::Bare => (BARE, "normal"),
    };
    let base = y + ROW / 2.0 + 4.5;
    text(
        svg,
        x + PAD + LABELS,
        base,
        12.5,
        INK,
        weight,
        "end",
        &row.label,
    );
    let mut end = left;
    if let Some(value) = row.value
        && bars
    {
        let length = (scale.position(value) * BARS).max(2.0);
        rect(svg, left, y + (ROW - BAR) / 2.0, length, BAR, colour, 2.0);
        end += length;
    }
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{base:.1}\" font-size=\"12.5\" fill=\"{INK}\"><tspan font-weight=\"{weight}\">{}</tspan>\
         <tspan dx=\"8\" fill=\"{SOFT}\">{}</tspan></text>",
        end + 8.0,
        escape(&row.figure),
        escape(&row.factor)
    );
}

/// Whole decades around the values of a panel.
struct Scale {
    low: i32,
    high: i32,
}

impl Scale {
    fn of(panel: &Panel) -> Self {
        let values = || panel.rows.iter().filter_map(|row| row.value);
        let min = values().fold(f64::INFINITY, f64::min);
        let max = values().fold(0.0, f64::max);
        if !(min.is_finite() && min > 0.0) {
            return Self { low: 0, high: 1 };
        }
        // The scale begins clearly below the shortest bar, so that the bar is visible.
        let low = (min / 1.6).log10().floor() as i32;
        Self {
            low,
            high: (max.log10().ceil() as i32).max(low + 1),
        }
    }

    /// Returns the position of a value, from 0 at the low end to 1 at the high end.
    fn position(&self, value: f64) -> f64 {
        let span = f64::from(self.high - self.low);
        ((value.log10() - f64::from(self.low)) / span).clamp(0.0, 1.0)
    }
}

fn rect(svg: &mut String, x: f64, y: f64, width: f64, height: f64, fill: &str, round: f64) {
    let _ = writeln!(
        svg,
        "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"{round}\" fill=\"{fill}\"/>"
    );
}

#[expect(clippy::too_many_arguments, reason = "the attributes of one element")]
fn text(
    svg: &mut String,
    x: f64,
    y: f64,
    size: f64,
    fill: &str,
    weight: &str,
    anchor: &str,
    words: &str,
) {
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{size}\" fill=\"{fill}\" font-weight=\"{weight}\" \
         text-anchor=\"{anchor}\">{}</text>",
        escape(words)
    );
}

fn escape(words: &str) -> String {
    words
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use arenite_bench::cases::Unit;

    use super::super::figures::SystemFigures;
    use super::*;

    fn case(id: &str, systems: &[(&'static str, f64)]) -> CaseFigures {
        CaseFigures {
            id: id.to_owned(),
            title: "Fish & <chips>".to_owned(),
            unit: Unit::Microseconds,
            systems: systems
                .iter()
                .map(|&(id, sample)| SystemFigures {
                    id,
                    samples: vec![sample],
                    written: None,
                    peak: None,
                    absent: None,
                })
                .collect(),
            goals: Vec::new(),
            notes: Vec::new(),
        }
    }

    fn machine() -> Machine {
        Machine {
            processor: "a <fast> one".to_owned(),
            cores: 2,
            memory: 8 << 30,
            kernel: "6.1".to_owned(),
        }
    }

    #[test]
    fn titles_are_escaped_and_figures_shown() {
        let picture = draw(
            &[case("a", &[("arenite", 2.0), ("rayon", 10.0)])],
            &machine(),
        );
        assert!(picture.starts_with("<svg ") && picture.ends_with("</svg>\n"));
        assert!(picture.contains("Fish &amp; &lt;chips&gt;"));
        assert!(picture.contains("10.0 µs"));
        assert!(picture.contains("5.00× slower"));
        assert!(!picture.contains("NaN") && !picture.contains("inf"));
    }

    #[test]
    fn a_run_without_figures_is_still_a_picture() {
        let mut empty = case("a", &[("arenite", 1.0)]);
        empty.systems[0].samples.clear();
        let picture = draw(&[empty], &machine());
        assert!(picture.ends_with("</svg>\n"));
        assert!(!picture.contains("NaN") && !picture.contains("inf"));
        assert!(draw(&[], &machine()).ends_with("</svg>\n"));
    }

    #[test]
    fn a_zero_is_drawn_although_it_has_no_logarithm() {
        let picture = draw(
            &[case("a", &[("arenite", 0.0), ("rayon", 0.0)])],
            &machine(),
        );
        assert!(!picture.contains("NaN") && !picture.contains("inf"));
    }
}
