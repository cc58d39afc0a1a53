//! Writes the figures as a table.

use std::io::{self, Write};

use arenite_bench::cases::{Case, Goal, Unit};

use super::figures::{CaseFigures, Machine, SystemFigures};
use super::{goals, names};

/// Writes the lines above the table.
///
/// # Errors
/// The errors of `out`, as for the functions below.
pub fn head(machine: &Machine, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "{}", machine.describe())?;
    writeln!(
        out,
        "Medians, with the smallest and the largest sample. Systems of a case take turns."
    )
}

/// Writes a case: a line per system, then its goals.
pub fn case(case: &CaseFigures, before: &[CaseFigures], out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "\n{}: {}", case.id, case.title)?;
    for system in &case.systems {
        line(case, system, out)?;
    }
    for note in &case.notes {
        writeln!(out, "  note: {note}")?;
    }
    for outcome in goals::compare(case, before) {
        let (mark, reached) = match (outcome.met, outcome.reached) {
            (Some(true), Some(reached)) => ("met", names::number(reached)),
            (Some(false), Some(reached)) => ("MISSED", names::number(reached)),
            _ => ("not measured", "–".to_owned()),
        };
        let few = match outcome.samples {
            1 if outcome.met.is_some() => " by one sample",
            _ => "",
        };
        writeln!(out, "  goal: {}: {reached}, {mark}{few}", outcome.goal)?;
    }
    out.flush()
}

fn line(case: &CaseFigures, system: &SystemFigures, out: &mut impl Write) -> io::Result<()> {
    write!(out, "  {:<17}", system.id)?;
    let (Some(median), Some(min), Some(max)) = (system.median(), system.min(), system.max()) else {
        let why = system.absent.as_ref();
        let why = why.map_or_else(|| "no samples".to_owned(), ToString::to_string);
        return writeln!(out, " {why}");
    };
    let unit = names::unit(case.unit);
    let spread = format!("{} … {}", names::number(min), names::number(max));
    write!(out, " {:>10} {unit:<9} {spread:<25}", names::number(median))?;
    let ratio = match case.ours() {
        Some(_) if names::is_ours(system.id) => "1".to_owned(),
        Some(ours) => names::factor(ours, median, case.unit),
        None => String::new(),
    };
    write!(out, " {ratio:<16}")?;
    if let Some(written) = system.written {
        write!(out, " wrote {:.2} MB", written as f64 / 1e6)?;
    }
    if let Some(peak) = system.peak {
        write!(out, " peak {:.0} MB", peak as f64 / 1e6)?;
    }
    writeln!(out)
}

/// The minimum number of samples for a useful median.
const ENOUGH: usize = 3;

/// Writes how many goals are met, and which goals are missed.
pub fn summary(cases: &[CaseFigures], out: &mut impl Write) -> io::Result<()> {
    let outcomes: Vec<(&str, goals::Outcome)> = cases
        .iter()
        .enumerate()
        .flat_map(|(i, case)| {
            let all = goals::compare(case, &cases[..i]);
            all.into_iter().map(|outcome| (case.id.as_str(), outcome))
        })
        .collect();
    let judged = outcomes.iter().filter(|(_, v)| v.met.is_some()).count();
    if judged == 0 {
        return Ok(());
    }
    let met = outcomes.iter().filter(|(_, v)| v.met == Some(true)).count();
    let few = outcomes
        .iter()
        .filter(|(_, v)| v.met.is_some() && v.samples < ENOUGH);
    let parts = [
        (
            few.count(),
            format!("compared with fewer than {ENOUGH} samples"),
        ),
        (outcomes.len() - judged, "not measured".to_owned()),
    ];
    write!(out, "\n{met} of {judged} goals met")?;
    for (count, words) in parts.iter().filter(|(count, _)| *count > 0) {
        write!(out, "; {count} {words}")?;
    }
    writeln!(out, ".")?;
    for (id, outcome) in outcomes.iter().filter(|(_, v)| v.met == Some(false)) {
        let reached = outcome.reached.map(names::number).unwrap_or_default();
        writeln!(out, "missed: {id}: {}: {reached}", outcome.goal)?;
    }
    Ok(())
}

/// Lists cases without measuring them.
pub fn list(cases: &[Case], out: &mut impl Write) -> io::Result<()> {
    for case in cases {
        let systems: Vec<&str> = case.systems.iter().map(|system| system.id).collect();
        let quick = if case.quick { "" } else { ", not with --quick" };
        writeln!(
            out,
            "{}: {} [{}{quick}]",
            case.id,
            case.title,
            case.unit.id()
        )?;
        writeln!(out, "  {}", systems.join(", "))?;
        for note in &case.notes {
            writeln!(out, "  note: {note}")?;
        }
        for goal in &case.goals {
            writeln!(out, "  goal: {}", describe_goal(goal, case.unit))?;
        }
    }
    Ok(())
}

/// Describes a goal.
pub fn describe_goal(goal: &Goal, unit: Unit) -> String {
    match goal {
        Goal::AtMost(bound, id) => format!("at most {bound} × {id}"),
        Goal::AtLeast(bound, id) => format!("at least {bound} × as fast as {id}"),
        Goal::BestAtLeast(bound, id) => {
            format!("best sample at least {bound} × as fast as the best of {id}")
        }
        Goal::Below(bound) => format!("at most {bound} {}", unit.id()),
        Goal::AtMostCase(bound, id) => format!("at most {bound} × {id}"),
        other => format!("{other:?}"),
    }
}
