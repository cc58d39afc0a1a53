//! Parsing CSV and lines of JSON with the readers of Arrow, and inferring schemas.

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_csv::reader::Format as CsvFormat;
use arrow_json::reader::infer_json_schema;
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};

use super::cut::{State, first_record, scan, without_mark};
use super::kernels::{Format, Spec};

/// The number of rows from which a schema is inferred.
const SAMPLED_ROWS: usize = 1000;
/// The maximum number of rows of a batch.
const BATCH: usize = 1 << 16;
/// The number of cells of a batch, where [`BATCH`] rows would have more cells.
const CELLS: usize = 1 << 20;

pub(super) fn batch_rows(columns: usize) -> usize {
    (CELLS / columns.max(1)).clamp(1 << 10, BATCH)
}

/// Parses the whole records of a part of a CSV file.
pub(super) fn csv(
    mut data: &[u8],
    spec: &Spec,
    table: &SchemaRef,
) -> Result<Vec<RecordBatch>, String> {
    let records = spec.records();
    if spec.is_first {
        data = without_mark(data);
    }
    // The parser would take the rest of the file as one field.
    if spec.is_last && scan(data, records, State::Outside, b'\n').state == State::Quoted {
        return Err("the file ends inside the quotes of a field".into());
    }
    if spec.is_first && spec.has_header {
        let end = first_record(data, records).unwrap_or(data.len());
        check_header(&data[..end], spec, table)?;
        data = &data[end..];
    }
    let mut decoder = arrow_csv::ReaderBuilder::new(table.clone())
        .with_delimiter(spec.delimiter)
        .with_batch_size(batch_rows(table.fields().len()))
        .build_decoder();
    let mut decode = || {
        let mut batches = Vec::new();
        // An empty line, which is no record: a decoder skips a byte-order mark before its first byte, but only the
        // beginning of a file may have one.
        decoder.decode(b"\n")?;
        loop {
            let read = decoder.decode(data)?;
            data = &data[read..];
            if read == 0 || decoder.capacity() == 0 {
                match decoder.flush()? {
                    Some(batch) => batches.push(batch),
                    None => return Ok(batches),
                }
            }
        }
    };
    decode().map_err(text)
}

/// Checks that a file has the columns of the table.
fn check_header(header: &[u8], spec: &Spec, table: &SchemaRef) -> Result<(), String> {
    if header.iter().all(|byte| matches!(byte, b'\n' | b'\r')) {
        return Ok(());
    }
    let found = csv_format(spec).infer_schema(header, Some(0));
    let (found, _) = found.map_err(|error| format!("the header cannot be read: {error}"))?;
    let [found, known] = [&found, &**table].map(names);
    match found == known {
        true => Ok(()),
        false => Err(format!(
            "the columns of this file are {found:?}, and those of the table {known:?}"
        )),
    }
}

pub(super) fn names(schema: &Schema) -> Vec<&String> {
    schema.fields().iter().map(|field| field.name()).collect()
}

fn csv_format(spec: &Spec) -> CsvFormat {
    CsvFormat::default()
        .with_header(spec.has_header)
        .with_delimiter(spec.delimiter)
}

/// Parses the whole lines of a part of a file with one JSON object in each line.
pub(super) fn json(mut data: &[u8], table: &SchemaRef) -> Result<Vec<RecordBatch>, String> {
    let mut decode = || {
        let mut decoder = arrow_json::ReaderBuilder::new(table.clone())
            .with_batch_size(batch_rows(table.fields().len()))
            .with_strict_mode(true)
            .build_decoder()?;
        let mut batches = Vec::new();
        loop {
            let read = decoder.decode(data)?;
            data = &data[read..];
            if data.is_empty() && decoder.has_partial_record() {
                let text = "an object that does not end in its line";
                return Err(ArrowError::JsonError(text.into()));
            }
            match decoder.flush()? {
                Some(batch) => batches.push(batch),
                None if data.is_empty() => return Ok(batches),
                None => {}
            }
        }
    };
    decode().map_err(text)
}

/// Returns the schema that fits the first rows of a file. `sample` is its beginning, up to the end of a record.
pub(super) fn infer(sample: &[u8], spec: &Spec) -> Result<Schema, String> {
    if spec.format == Format::Json {
        let (schema, _) =
            infer_json_schema(without_mark(sample), Some(SAMPLED_ROWS)).map_err(text)?;
        return Ok(schema);
    }
    let sample = without_mark(sample);
    let (schema, _) = csv_format(spec)
        .infer_schema(sample, Some(SAMPLED_ROWS))
        .map_err(text)?;
    // A column without a value in these rows may have texts in others.
    let field = |field: &Arc<Field>| match field.data_type() {
        DataType::Null => Arc::new(Field::new(field.name(), DataType::Utf8, true)),
        _ => field.clone(),
    };
    Ok(Schema::new(
        schema.fields().iter().map(field).collect::<Vec<_>>(),
    ))
}

pub(super) fn text(error: ArrowError) -> String {
    error.to_string()
}
