//! A table of many files, enriched part by part: `cargo run --release -p arenite-tables --example partitions [FOLDER]`.
//!
//! Writes sales of a year as CSV files, one a month; the notes in them have line breaks. Then it looks up the price of
//! each sale in an array that all workers share, in two ways: on a table in memory, and on files that may be larger
//! than memory. One of the files is broken: only its part is lost, and the error names it.

use std::error::Error;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use arenite::{Array, Engine};
use arenite_tables::arrow::array::cast::AsArray;
use arenite_tables::arrow::array::types::{Float64Type, Int64Type};
use arenite_tables::arrow::array::{Float64Array, RecordBatch};
use arenite_tables::arrow::schema::{ArrowError, DataType, Field, Schema};
use arenite_tables::{Part, Tables};

const MONTHS: usize = 12;
const SALES: usize = 20_000;
const ITEMS: usize = 1000;

/// Adds a column with the value of each sale.
fn enrich(part: &Part, prices: &Array<f64>) -> Result<Part, ArrowError> {
    let add = |batch: RecordBatch| {
        let items = batch.column(0).as_primitive::<Int64Type>().values();
        let counts = batch.column(1).as_primitive::<Int64Type>().values();
        let value = |(&item, &count): (&i64, &i64)| prices[item as usize] * count as f64;
        let values: Float64Array = items.iter().zip(counts).map(value).collect();
        let mut fields = batch.schema().fields().to_vec();
        fields.push(Arc::new(Field::new("value", DataType::Float64, true)));
        let mut columns = batch.columns().to_vec();
        columns.push(Arc::new(values));
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
    };
    let batches: Vec<_> = part
        .batches()?
        .into_iter()
        .map(add)
        .collect::<Result<_, _>>()?;
    Part::new(&batches[0].schema(), &batches)
}

/// The value of all sales of a part.
fn total(part: &Part, prices: &Array<f64>) -> Result<f64, ArrowError> {
    let batches = enrich(part, prices)?.batches()?;
    let values = batches.iter().map(|batch| {
        let values = batch.column_by_name("value");
        values.map_or(0.0, |values| {
            values.as_primitive::<Float64Type>().values().iter().sum()
        })
    });
    Ok(values.sum())
}

/// Writes the files. Returns the value of all sales, without the broken file.
fn write(folder: &Path, prices: &[f64]) -> Result<f64, Box<dyn Error>> {
    let mut value = 0.0;
    for month in 0..MONTHS {
        let mut csv = String::from("item,count,note\n");
        for sale in 0..SALES {
            let (item, count) = ((sale * 7 + month) % ITEMS, sale % 5);
            value += prices[item] * count as f64;
            writeln!(csv, "{item},{count},\"sale {sale},\nof month {month}\"")?;
        }
        fs::write(folder.join(format!("{month:02}.csv")), csv)?;
    }
    fs::write(folder.join("broken.csv"), "item,count,note\n1,1,\n2,two,\n")?;
    Ok(value)
}

fn main() -> Result<(), Box<dyn Error>> {
    arenite::init();
    let scratch = tempfile::tempdir()?;
    let folder = std::env::args()
        .nth(1)
        .map_or_else(|| scratch.path().to_owned(), Into::into);
    fs::create_dir_all(&folder)?;
    let prices: Vec<f64> = (0..ITEMS).map(|item| item as f64 / 4.0).collect();
    let expected = write(&folder, &prices)?;

    let engine = Engine::builder().build()?;
    // One array, which no job copies.
    let prices = engine.from_slice(&prices)?;

    // The whole table in memory.
    let report = engine.csv(&folder).part_bytes(1 << 18).report()?;
    let (sales, failures) = report.into_parts();
    for failure in &failures {
        println!("left out: {failure}");
    }
    assert_eq!(failures.len(), 1);
    assert_eq!(sales.rows(), (MONTHS * SALES) as u64);
    let enriched = engine.map_partitions(&sales, enrich, (&prices,)).table()?;
    let files = enriched.write_parquet(&engine, folder.join("enriched"))?;
    println!(
        "{} sales in {} parts, written as {} files",
        enriched.rows(),
        sales.parts().len(),
        files.len()
    );

    // Part by part: the memory does not grow with the files.
    let scan = engine
        .csv(folder.join("[0-9]*.csv"))
        .part_bytes(1 << 18)
        .scan()?;
    let totals = scan.map_partitions(total, (&prices,));
    let value: f64 = totals.sum::<Result<f64, _>>()?;
    assert!((value - expected).abs() < 1e-6 * expected);

    // The same, written as it is made.
    let scan = engine.csv(folder.join("[0-9]*.csv")).scan()?;
    let enriched = scan.map_partitions(enrich, (&prices,));
    let files = enriched.write_parquet(folder.join("by_part"))?;
    assert_eq!(files.len(), MONTHS);
    println!("sold for {value}");
    Ok(())
}
