//! Writes the figures as JSON: a list of objects, one for each case and system that was measured or for which no time
//! was left. The list of cases has the same form.

use std::io::{self, Write};

use arenite_bench::cases::Case;
use serde::Serialize;

use super::figures::{Absent, CaseFigures, SystemFigures};
use super::table;

#[derive(Serialize)]
struct Row<'a> {
    case: &'a str,
    system: &'a str,
    unit: &'a str,
    median: f64,
    min: f64,
    max: f64,
    runs: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    written_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peak_bytes: Option<u64>,
}

/// Takes the place of the row of a system for which no time was left, so that readers of the list find the reason.
#[derive(Serialize)]
struct LeftOut<'a> {
    case: &'a str,
    system: &'a str,
    unit: &'a str,
    left_out: String,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Line<'a> {
    Figures(Row<'a>),
    LeftOut(LeftOut<'a>),
}

fn line<'a>(case: &'a CaseFigures, system: &'a SystemFigures) -> Option<Line<'a>> {
    let (case, unit) = (case.id.as_str(), case.unit.id());
    if let Some(Absent::Late(budget)) = system.absent {
        return Some(Line::LeftOut(LeftOut {
            case,
            system: system.id,
            unit,
            left_out: format!("no time was left of {budget:?}"),
        }));
    }
    Some(Line::Figures(Row {
        case,
        system: system.id,
        unit,
        median: system.median()?,
        min: system.min()?,
        max: system.max()?,
        runs: system.samples.len(),
        written_bytes: system.written,
        peak_bytes: system.peak,
    }))
}

/// Writes all figures, and the systems for which no time was left.
///
/// # Errors
/// The errors of `out`.
pub fn write(cases: &[CaseFigures], out: &mut impl Write) -> io::Result<()> {
    let rows: Vec<Line<'_>> = cases
        .iter()
        .flat_map(|case| {
            let systems = case.systems.iter();
            systems.filter_map(move |system| line(case, system))
        })
        .collect();
    serde_json::to_writer_pretty(&mut *out, &rows)?;
    writeln!(out)
}

#[derive(Serialize)]
struct Listed<'a> {
    case: &'a str,
    title: &'a str,
    unit: &'a str,
    /// Whether `--quick` measures the case.
    quick: bool,
    systems: Vec<&'a str>,
    goals: Vec<String>,
    notes: &'a [&'static str],
}

/// Lists cases without measuring them.
///
/// # Errors
/// The errors of `out`.
pub fn list(cases: &[Case], out: &mut impl Write) -> io::Result<()> {
    let goals = |case: &Case| {
        let goals = case.goals.iter();
        goals
            .map(|goal| table::describe_goal(goal, case.unit))
            .collect()
    };
    let listed: Vec<Listed<'_>> = cases
        .iter()
        .map(|case| Listed {
            case: &case.id,
            title: &case.title,
            unit: case.unit.id(),
            quick: case.quick,
            systems: case.systems.iter().map(|system| system.id).collect(),
            goals: goals(case),
            notes: &case.notes,
        })
        .collect();
    serde_json::to_writer_pretty(&mut *out, &listed)?;
    writeln!(out)
}
