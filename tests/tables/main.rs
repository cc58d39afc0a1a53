//! Tables with real workers: the same rows for any number of them, deaths that cost one part, files that are hard to
//! read.

#![allow(clippy::unwrap_used, reason = "tests")]

use arenite::Engine;
use arenite_tables::arrow::array::RecordBatch;
use arenite_tables::arrow::array::cast::AsArray;
use arenite_tables::arrow::array::types::Int64Type;
use arenite_tables::arrow::schema::ArrowError;
use arenite_tables::{Part, Table};

mod deaths;
mod files;

arenite::test_workers!();

fn engine(workers: usize) -> Engine {
    Engine::builder()
        .workers(workers)
        .capacity(256 << 20)
        .build()
        .unwrap()
}

/// The first column.
fn numbers(table: &Table) -> Vec<i64> {
    let of_batch = |batch: &RecordBatch| {
        batch
            .column(0)
            .as_primitive::<Int64Type>()
            .values()
            .to_vec()
    };
    table
        .batches()
        .flat_map(|batch| of_batch(&batch.unwrap()))
        .collect()
}

/// Rows of a number and a text with a line break.
fn csv(rows: std::ops::Range<i64>) -> String {
    let mut csv = String::from("number,text\n");
    for row in rows {
        csv.push_str(&format!("{row},\"a,\n\"\"{row}\"\"\"\n"));
    }
    csv
}

fn sum(part: &Part) -> Result<i64, ArrowError> {
    let batches = part.batches()?;
    Ok(batches
        .iter()
        .flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values())
        .sum())
}
