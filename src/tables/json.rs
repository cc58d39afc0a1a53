//! Parts of files with one JSON object per line.

use arrow_array::RecordBatch;
use arrow_json::ReaderBuilder;
use arrow_json::reader::infer_json_schema;
use arrow_schema::{ArrowError, Schema, SchemaRef};
use memchr::memchr;

use super::csv::batch_rows;
use super::error::Fault;
use super::kernels::Spec;

/// Parses whole lines.
pub(super) fn parse(
    data: &[u8],
    spec: &Spec,
    table: &SchemaRef,
) -> Result<Vec<RecordBatch>, Fault> {
    let mut batches = Vec::new();
    let decoded = decode(
        data,
        spec,
        table,
        batch_rows(table.fields().len()),
        &mut batches,
    );
    decoded.map_err(|error| {
        let done = batches.iter().map(RecordBatch::num_rows).sum();
        diagnose(data, spec, table, done, &error)
    })?;
    Ok(batches)
}

fn decode(
    data: &[u8],
    spec: &Spec,
    table: &SchemaRef,
    rows: usize,
    batches: &mut Vec<RecordBatch>,
) -> Result<(), ArrowError> {
    let mut decoder = ReaderBuilder::new(table.clone())
        .with_batch_size(rows)
        .with_strict_mode(true)
        .with_coerce_primitive(spec.widen)
        .build_decoder()?;
    let mut rest = data;
    loop {
        let read = decoder.decode(rest)?;
        rest = &rest[read..];
        if rest.is_empty() && decoder.has_partial_record() {
            return Err(ArrowError::JsonError("an object that does not end".into()));
        }
        match decoder.flush()? {
            Some(batch) => batches.push(batch),
            None if rest.is_empty() => return Ok(()),
            None => {}
        }
    }
}

/// Finds the first line behind the first `good` rows that cannot be parsed.
fn diagnose(data: &[u8], spec: &Spec, table: &SchemaRef, good: usize, error: &ArrowError) -> Fault {
    let mut row = 0;
    for line in lines(data) {
        row += 1;
        if row <= good {
            continue;
        }
        let Err(error) = decode(line, spec, table, 1, &mut Vec::new()) else {
            continue;
        };
        let is_json = is_object(line);
        let text = if is_json {
            format!("{error}; pass a schema, or let widen() choose one that fits all rows")
        } else {
            format!("no JSON object in one line: {error}")
        };
        return Fault {
            row: row as u64,
            is_of_type: is_json,
            ..Fault::new(text)
        };
    }
    Fault::new(error.to_string())
}

/// Whether a line is an object of some schema.
fn is_object(line: &[u8]) -> bool {
    infer_json_schema(line, None).is_ok()
}

/// The lines that are not empty.
fn lines(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = data;
    let next = move || {
        let end = memchr(b'\n', rest).map_or(rest.len(), |at| at + 1);
        let (line, behind) = rest.split_at(end);
        rest = behind;
        (!line.is_empty()).then_some(line)
    };
    std::iter::from_fn(next).filter(|line| !line.trim_ascii().is_empty())
}

/// The number of rows.
pub(super) fn count_rows(data: &[u8]) -> u64 {
    lines(data).count() as u64
}

/// The schema that fits the first `rows` lines.
pub(super) fn infer(data: &[u8], rows: Option<usize>) -> Result<Schema, Fault> {
    let inferred = infer_json_schema(data, rows);
    let (schema, _) = inferred.map_err(|error| {
        let row = lines(data)
            .position(|line| !is_object(line))
            .map_or(0, |at| at + 1);
        Fault {
            row: row as u64,
            ..Fault::new(format!("no JSON object per line: {error}"))
        }
    })?;
    Ok(schema)
}
