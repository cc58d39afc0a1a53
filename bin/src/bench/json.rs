//! The figures for programs: a list of objects, one per case and system that was measured.

use std::io::{self, Write};

use serde::Serialize;

use super::figures::CaseFigures;

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

/// Writes all figures.
///
/// # Errors
/// Those of `out`.
pub fn write(cases: &[CaseFigures], out: &mut impl Write) -> io::Result<()> {
    let rows: Vec<Row<'_>> = cases
        .iter()
        .flat_map(|case| {
            case.systems.iter().filter_map(|system| {
                Some(Row {
                    case: &case.id,
                    system: system.id,
                    unit: case.unit.id(),
                    median: system.median()?,
                    min: system.min()?,
                    max: system.max()?,
                    runs: system.samples.len(),
                    written_bytes: system.written,
                    peak_bytes: system.peak,
                })
            })
        })
        .collect();
    serde_json::to_writer_pretty(&mut *out, &rows)?;
    writeln!(out)
}
