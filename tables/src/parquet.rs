//! Reading the row groups of Parquet files.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, new_null_array};
use arrow_schema::{ArrowError, Field, Schema, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ParquetRecordBatchReaderBuilder};
use parquet::file::reader::ChunkReader;

use super::csv::batch_rows;
use super::error::Fault;
use super::part::Part;
use super::schema::{cast, names, twice};
use arenite::Array;

/// Returns the schema of a file, and the number of rows of each row group.
pub(super) fn describe(path: &Path, data: &Array<u8>) -> Result<(Schema, Vec<u64>), Fault> {
    fn of(reader: &impl ChunkReader) -> Result<(Schema, Vec<u64>), Fault> {
        let metadata = ArrowReaderMetadata::load(reader, Default::default())
            .map_err(|error| Fault::new(format!("no whole Parquet file: {error}")))?;
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
) -> Result<Vec<RecordBatch>, Fault> {
    fn of<R: ChunkReader + 'static>(
        reader: R,
        group: usize,
        table: &SchemaRef,
    ) -> Result<Vec<RecordBatch>, Fault> {
        let text = |error: ArrowError| Fault::new(error.to_string());
        let reader = ParquetRecordBatchReaderBuilder::try_new(reader)
            .and_then(|builder| {
                builder
                    .with_row_groups(vec![group])
                    .with_batch_size(batch_rows(table.fields().len()))
                    .build()
            })
            .map_err(|error| Fault::new(error.to_string()))?;
        reader
            .map(|batch| arrange(&batch.map_err(text)?, table))
            .collect()
    }
    let group = usize::try_from(group).map_err(|_| Fault::new("no such row group"))?;
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
fn open(path: &Path, data: &Array<u8>) -> Result<Input, Fault> {
    if !data.is_empty() {
        return Ok(Input::Memory(bytes::Bytes::from_owner(data.clone())));
    }
    File::open(path)
        .map(Input::File)
        .map_err(|error| Fault::new(format!("cannot open it: {error}")))
}

/// Arranges columns in the order of the table: by name, unless the names are the same. A
/// column that the file lacks is null.
fn arrange(batch: &RecordBatch, table: &SchemaRef) -> Result<RecordBatch, Fault> {
    let found = names(&batch.schema());
    // Two columns may have one name.
    let is_same = found == names(table);
    let column = |(position, field): (usize, &Arc<Field>)| -> Result<ArrayRef, Fault> {
        let name = field.name();
        let column = match is_same {
            true => Some(batch.column(position)),
            false if found.iter().filter(|other| *other == name).count() > 1 => {
                return Err(twice(name));
            }
            false => batch.column_by_name(name),
        };
        match column {
            None => Ok(new_null_array(field.data_type(), batch.num_rows())),
            Some(column) => cast(column, field.data_type()).map_err(|error| Fault {
                column: Some(name.clone()),
                ..Fault::new(error.to_string())
            }),
        }
    };
    let columns = table.fields().iter().enumerate().map(column);
    RecordBatch::try_new(table.clone(), columns.collect::<Result<_, _>>()?)
        .map_err(|error| Fault::new(error.to_string()))
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
    encode()
        .map(|file| Array::from_slice(&file))
        .map_err(|error| error.to_string())
}
