//! Reading the row groups of Parquet files, and writing parts as such files.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch};
use arrow_cast::{CastOptions, cast_with_options};
use arrow_schema::{ArrowError, Field, Schema, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ParquetRecordBatchReaderBuilder};
use parquet::file::reader::ChunkReader;

use super::parse::{batch_rows, names, text};
use super::part::Part;
use arenite::Array;

/// Returns the schema of a file, and the number of rows of each row group.
pub(super) fn describe(path: &Path, data: &Array<u8>) -> Result<(Schema, Vec<u64>), String> {
    fn of(reader: &impl ChunkReader) -> Result<(Schema, Vec<u64>), String> {
        let metadata = ArrowReaderMetadata::load(reader, Default::default())
            .map_err(|error| format!("no whole Parquet file: {error}"))?;
        let groups = metadata.metadata().row_groups().iter();
        let rows = groups.map(|group| u64::try_from(group.num_rows()).unwrap_or(0));
        Ok((metadata.schema().as_ref().clone(), rows.collect()))
    }
    match open(path, data)? {
        Input::File(file) => of(&file),
        Input::Memory(bytes) => of(&bytes),
    }
}

/// Reads a row group.
pub(super) fn read(
    path: &Path,
    data: &Array<u8>,
    group: u64,
    table: &SchemaRef,
) -> Result<Vec<RecordBatch>, String> {
    fn of<R: ChunkReader + 'static>(
        reader: R,
        group: usize,
        table: &SchemaRef,
    ) -> Result<Vec<RecordBatch>, String> {
        let reader = ParquetRecordBatchReaderBuilder::try_new(reader)
            .and_then(|builder| {
                builder
                    .with_row_groups(vec![group])
                    .with_batch_size(batch_rows(table.fields().len()))
                    .build()
            })
            .map_err(|error| error.to_string())?;
        reader
            .map(|batch| arrange(&batch.map_err(text)?, table))
            .collect()
    }
    let group = usize::try_from(group).map_err(|_| "no such row group")?;
    match open(path, data)? {
        Input::File(file) => of(file, group, table),
        Input::Memory(bytes) => of(bytes, group, table),
    }
}

enum Input {
    File(File),
    Memory(bytes::Bytes),
}

/// Returns the content if it was passed as an argument, otherwise the file.
fn open(path: &Path, data: &Array<u8>) -> Result<Input, String> {
    if !data.is_empty() {
        return Ok(Input::Memory(bytes::Bytes::from_owner(data.clone())));
    }
    File::open(path)
        .map(Input::File)
        .map_err(|error| format!("cannot open it: {error}"))
}

/// Arranges columns in the order of the table, by name unless the names are the same, and converts them to its types.
fn arrange(batch: &RecordBatch, table: &SchemaRef) -> Result<RecordBatch, String> {
    let found = batch.schema();
    // Two columns may have one name.
    let is_same = names(&found) == names(table);
    // A value that does not fit is an error, not null.
    let options = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    let column = |(position, field): (usize, &Arc<Field>)| -> Result<ArrayRef, String> {
        let column = match is_same {
            true => Some(batch.column(position)),
            false => batch.column_by_name(field.name()),
        };
        let column = column.ok_or_else(|| format!("it has no column {:?}", field.name()))?;
        cast_with_options(column, field.data_type(), &options)
            .map_err(|error| format!("column {:?}: {error}", field.name()))
    };
    let columns = table.fields().iter().enumerate().map(column);
    RecordBatch::try_new(table.clone(), columns.collect::<Result<_, _>>()?).map_err(text)
}

/// Encodes a part as a Parquet file, in an array.
pub(super) fn encode(part: &Part) -> Result<Array<u8>, String> {
    let encode = || -> Result<Vec<u8>, ArrowError> {
        let (schema, _) = part.header()?;
        let mut writer = ArrowWriter::try_new(Vec::new(), schema, None)?;
        for batch in part.batches()? {
            writer.write(&batch)?;
        }
        Ok(writer.into_inner()?)
    };
    encode().map(|file| Array::from_slice(&file)).map_err(text)
}
