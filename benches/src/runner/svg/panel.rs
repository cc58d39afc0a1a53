//! The contents of a panel, computed from figures before anything is drawn.

use arenite_bench::cases::Unit;

use super::super::figures::{CaseFigures, SystemFigures};
use super::super::names;

/// The colour of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The engine.
    Ours,
    /// Another way to do the same work.
    Other,
    /// The bare mechanism or the bare work.
    Bare,
}

/// A bar.
#[derive(Debug)]
pub struct Row {
    /// Name of the system.
    pub label: String,
    /// The figure, in the unit of the panel.
    pub value: Option<f64>,
    /// The figure with its unit, as text.
    pub figure: String,
    /// The factor to the engine's figure, as text.
    pub factor: String,
    /// The colour of the bar.
    pub kind: Kind,
}

/// One case, or several cases that form a series.
#[derive(Debug)]
pub struct Panel {
    /// Description of what is measured.
    pub title: String,
    /// The unit, and the better direction.
    pub note: String,
    /// The bars.
    pub rows: Vec<Row>,
}

impl Panel {
    /// Returns whether there are figures to compare. A single figure is shown as text only.
    pub fn has_bars(&self) -> bool {
        let positive = |row: &&Row| row.value.is_some_and(|value| value > 0.0);
        self.rows.iter().filter(positive).count() > 1
    }
}

/// Returns all panels. Cases share a panel if they measure only the engine and their ids differ only in a number.
pub fn panels(cases: &[CaseFigures]) -> Vec<Panel> {
    let mut panels: Vec<Panel> = Vec::new();
    let mut series: Option<(String, usize)> = None;
    for case in cases {
        let (stem, number) = case.id.rsplit_once('-').unwrap_or((&case.id, ""));
        let is_member = case.systems.len() == 1 && number.parse::<u32>().is_ok();
        let same = series
            .as_ref()
            .filter(|(before, _)| is_member && before == stem)
            .map(|&(_, index)| index);
        match same {
            Some(index) => {
                let first = panels[index].rows.first().and_then(|row| row.value);
                panels[index].rows.push(member(case, stem, number, first));
            }
            None if is_member => {
                series = Some((stem.to_owned(), panels.len()));
                panels.push(Panel {
                    title: series_title(stem, case),
                    note: note(case.unit),
                    rows: vec![member(case, stem, number, None)],
                });
            }
            None => {
                series = None;
                panels.push(of_case(case));
            }
        }
    }
    panels
}

fn of_case(case: &CaseFigures) -> Panel {
    let ours = case.ours();
    let row = |system: &SystemFigures| {
        let value = system.median();
        let is_ours = names::is_ours(system.id);
        let factor = match (ours, value) {
            (Some(ours), Some(value)) if !is_ours => names::factor(ours, value, case.unit),
            _ => String::new(),
        };
        Row {
            label: names::system(system.id).to_owned(),
            value,
            figure: figure(value, case.unit),
            factor,
            kind: kind(system.id),
        }
    };
    Panel {
        title: case.title.clone(),
        note: note(case.unit),
        rows: case.systems.iter().map(row).collect(),
    }
}

fn member(case: &CaseFigures, stem: &str, number: &str, first: Option<f64>) -> Row {
    let value = case.ours();
    let what = match (stem, number) {
        ("scale", "1") => "worker",
        ("scale", _) => "workers",
        ("peak-resize", _) => "photos",
        _ => "",
    };
    let factor = match (first, value) {
        (Some(first), Some(value)) if first > 0.0 => {
            format!("{:.2}× the first", value / first)
        }
        _ => String::new(),
    };
    Row {
        label: format!("{number} {what}"),
        value,
        figure: figure(value, case.unit),
        factor,
        kind: Kind::Ours,
    }
}

fn series_title(stem: &str, case: &CaseFigures) -> String {
    match stem {
        "scale" => "The cost of an empty job with more workers than cores".to_owned(),
        "peak-resize" => "The most memory held while photos are resized".to_owned(),
        _ => case.title.clone(),
    }
}

fn figure(value: Option<f64>, unit: Unit) -> String {
    value.map_or_else(
        || "not measured".to_owned(),
        |value| format!("{} {}", names::number(value), names::unit(unit)),
    )
}

fn note(unit: Unit) -> String {
    let (what, better) = match unit {
        Unit::Microseconds => ("microseconds", "shorter"),
        Unit::Milliseconds => ("milliseconds", "shorter"),
        Unit::JobsPerSecond(_) => ("jobs per second", "longer"),
        Unit::ImagesPerSecond(_) => ("photos per second", "longer"),
        Unit::NanosecondsPerJob(_) => ("nanoseconds per job", "shorter"),
        Unit::CpuMilliseconds => ("milliseconds of processor time", "shorter"),
        Unit::Megabytes => ("megabytes", "shorter"),
    };
    format!("{what}, {better} is better")
}

/// Formats a power of ten for the axis.
pub fn axis_number(decade: i32) -> String {
    match decade {
        6.. => format!("{:.0}M", 10_f64.powi(decade - 6)),
        5 => "100k".to_owned(),
        4 => "10k".to_owned(),
        0..=3 => format!("{:.0}", 10_f64.powi(decade)),
        _ => format!("{:.*}", decade.unsigned_abs() as usize, 10_f64.powi(decade)),
    }
}

fn kind(id: &str) -> Kind {
    match id {
        id if names::is_ours(id) => Kind::Ours,
        "spin" | "futex" | "futex-one-core" | "memcpy" | "bare-spawn" | "ideal" => Kind::Bare,
        _ => Kind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axis_numbers_are_short() {
        let shown: Vec<String> = (-2..8).map(axis_number).collect();
        assert_eq!(
            shown,
            [
                "0.01", "0.1", "1", "10", "100", "1000", "10k", "100k", "1M", "10M"
            ]
        );
    }
}
