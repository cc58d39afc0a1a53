//! The timeline of the report: the number of waiting jobs, and below it a row for each lane, coloured by kernel.
//!
//! If a trace has few runs, each run is drawn. If it has many, the share of each kernel in each time step is drawn.

use std::fmt::Write as _;

use super::report::{Count, Time, escaped, named};
use super::summary::{COLOURS, COLUMNS, LaneFigures, Summary};

/// The width of the picture, in pixels at its natural size.
const WIDTH: f64 = 1100.0;
const LEFT: f64 = 118.0;
const PLOT: f64 = WIDTH - LEFT - 12.0;
const QUEUE: f64 = 54.0;
const ROW: f64 = 24.0;
const GAP: f64 = 6.0;
const AXIS: f64 = 26.0;
const TOP: f64 = 8.0;

/// Draws the timeline into the page.
pub(super) fn draw(page: &mut String, summary: &Summary) {
    let rows = summary.lanes.len() as f64;
    let bottom = TOP + QUEUE + GAP + rows * (ROW + GAP);
    let height = bottom + AXIS;
    let _ = writeln!(
        page,
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"What each lane ran over time\">"
    );
    axis(page, summary, bottom);
    queue(page, summary);
    let has_several_lanes = summary.lanes.keys().any(|id| id.lane > 0);
    for (index, (id, lane)) in summary.lanes.iter().enumerate() {
        let y = TOP + QUEUE + GAP + index as f64 * (ROW + GAP);
        let name = if has_several_lanes {
            format!("worker {} lane {}", id.worker, id.lane)
        } else {
            format!("worker {}", id.worker)
        };
        let _ = writeln!(
            page,
            "<text class=\"name\" x=\"{}\" y=\"{}\" text-anchor=\"end\">{name}</text>\
             <rect class=\"row\" x=\"{LEFT}\" y=\"{y}\" width=\"{PLOT}\" height=\"{ROW}\"/>",
            LEFT - 8.0,
            y + ROW / 2.0 + 4.0,
        );
        if summary.has_more_runs {
            shares(page, summary, lane, y);
        } else {
            let runs = summary.runs.iter().filter(|run| run.lane == *id);
            for run in runs {
                let (x, end) = (x(summary, run.began), x(summary, run.ended));
                let title = format!(
                    "{}, job {}: {}{}",
                    named(&summary.kernels[run.kernel]),
                    run.job,
                    Time(run.took()),
                    if run.failed { ", failed" } else { "" }
                );
                let _ = writeln!(
                    page,
                    "<rect class=\"k{}\" x=\"{x:.2}\" y=\"{}\" width=\"{:.2}\" height=\"{}\"><title>{}</title></rect>",
                    run.kernel.min(COLOURS),
                    y + 2.0,
                    (end - x).max(0.5),
                    ROW - 4.0,
                    escaped(&title),
                );
            }
        }
        for &mark in &lane.marks {
            let x = x(summary, mark);
            let _ = writeln!(
                page,
                "<path class=\"mark\" d=\"M{:.1} {y}h8l-4 7z\"><title>failed at {}</title></path>",
                x - 4.0,
                Time(mark)
            );
        }
    }
    page.push_str("</svg>\n");
}

fn x(summary: &Summary, at: u64) -> f64 {
    LEFT + PLOT * at as f64 / summary.end.max(1) as f64
}

/// Draws ticks at round times.
fn axis(page: &mut String, summary: &Summary, bottom: f64) {
    let step = round_step(summary.end.max(1));
    for tick in 0..=summary.end / step {
        let at = tick * step;
        let x = x(summary, at);
        let anchor = if x > WIDTH - 40.0 { "end" } else { "middle" };
        let _ = writeln!(
            page,
            "<path class=\"grid\" d=\"M{x:.1} {TOP}V{bottom}\"/><text x=\"{x:.1}\" y=\"{}\" text-anchor=\"{anchor}\">{}</text>",
            bottom + 17.0,
            Time(at)
        );
    }
}

/// Returns the step between ticks: 1, 2 or 5 times a power of ten, so that there are five to thirteen ticks.
fn round_step(end: u64) -> u64 {
    let least = end.div_ceil(12).max(1);
    let power = 10u64.pow(least.ilog10());
    [1, 2, 5]
        .into_iter()
        .map(|step| step * power)
        .find(|step| *step >= least)
        .unwrap_or(10 * power)
}

/// The number of time steps up to the end.
fn steps(summary: &Summary) -> usize {
    ((summary.end / summary.step.max(1)) as usize + 1).min(COLUMNS)
}

/// Draws the number of waiting jobs.
fn queue(page: &mut String, summary: &Summary) {
    let values = summary.waiting.values(summary.step);
    let step = summary.step.max(1) as f64;
    let values: Vec<f64> = values
        .iter()
        .take(steps(summary))
        .map(|&value| value as f64 / step)
        .collect();
    let most = values.iter().copied().fold(0.0, f64::max);
    let base = TOP + QUEUE;
    let _ = writeln!(
        page,
        "<text class=\"name\" x=\"{0}\" y=\"{1}\" text-anchor=\"end\">waiting jobs</text>\
         <text x=\"{0}\" y=\"{2}\" text-anchor=\"end\">up to {most}</text>",
        LEFT - 8.0,
        TOP + 22.0,
        TOP + 38.0,
        most = Count(most.ceil() as u64),
    );
    if most <= 0.0 {
        return;
    }
    let mut path = format!("M{LEFT} {base}");
    for (index, value) in values.iter().enumerate() {
        let y = base - QUEUE * value / most;
        let end = x(summary, (index as u64 + 1) * summary.step).min(LEFT + PLOT);
        let _ = write!(path, "V{y:.1}H{end:.1}");
    }
    let _ = writeln!(page, "<path class=\"queue\" d=\"{path}V{base}Z\"/>");
}

/// Draws the share of each kernel in each step, stacked.
fn shares(page: &mut String, summary: &Summary, lane: &LaneFigures, y: f64) {
    let count = steps(summary);
    let mut base = vec![y + ROW - 2.0; count];
    let height = ROW - 4.0;
    for (colour, columns) in &lane.busy {
        let mut path = String::new();
        let values = columns.values(summary.step);
        for (index, &value) in values
            .iter()
            .take(count)
            .enumerate()
            .filter(|(_, v)| **v > 0)
        {
            let from = x(summary, index as u64 * summary.step);
            let end = x(summary, (index as u64 + 1) * summary.step).min(LEFT + PLOT);
            let part = (value as f64 / summary.step as f64).min(1.0);
            let top = (base[index] - height * part).max(y + 2.0);
            let _ = write!(
                path,
                "M{from:.1} {:.1}V{top:.1}H{end:.1}V{:.1}Z",
                base[index], base[index]
            );
            base[index] = top;
        }
        let _ = writeln!(page, "<path class=\"k{colour}\" d=\"{path}\"/>");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_few() {
        for end in [1, 7, 283, 1_000, 4_940, 123_456_789, u64::MAX / 2] {
            let step = round_step(end);
            assert!(end / step <= 12, "{end}: {}", end / step);
            assert!(end < 5 || end / step >= 4, "{end}: {}", end / step);
            let mut digits = step;
            while digits.is_multiple_of(10) {
                digits /= 10;
            }
            assert!([1, 2, 5].contains(&digits), "{step}");
        }
    }
}
