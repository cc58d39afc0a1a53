//! The kernels for tables: find ends of records, infer schemas, read parts, count rows.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use arrow_array::{ArrayRef, DictionaryArray, Int32Array, RecordBatch, StringArray};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};
use bytemuck::{CheckedBitPattern, NoUninit};

use super::cut::{Records, State, scan};
use super::error::Fault;
use super::part::Part;
use super::{csv, json, parquet};
use arenite::Array;
use arenite::kernel::{Bytes, Scalar, Typed};

/// The number of rows from which a schema is inferred.
pub(super) const SAMPLED_ROWS: usize = 1000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, NoUninit, CheckedBitPattern)]
#[repr(u8)]
pub(super) enum Format {
    Csv,
    Json,
    Parquet,
}

/// Identifies a part, and specifies how to read it.
#[derive(Clone, Copy, Debug, NoUninit, CheckedBitPattern)]
#[repr(C)]
pub(super) struct Spec {
    /// The position of the first byte, or the index of the row group.
    pub(super) start: u64,
    /// The position after the last byte.
    pub(super) end: u64,
    pub(super) format: Format,
    pub(super) delimiter: u8,
    pub(super) has_header: bool,
    pub(super) by_name: bool,
    pub(super) widen: bool,
    /// Whether the bytes are passed as an argument, because a worker cannot read them from the file.
    pub(super) is_passed: bool,
    /// Whether the part ends at the end of its file.
    pub(super) is_last: bool,
    /// Whether the part contains the first record.
    pub(super) is_first: bool,
}

impl Scalar for Spec {}

impl Spec {
    pub(super) fn records(&self) -> Records {
        match self.format {
            Format::Csv => Records::Csv {
                delimiter: self.delimiter,
            },
            Format::Json | Format::Parquet => Records::Lines,
        }
    }
}

fn path_of(bytes: &Bytes) -> &Path {
    Path::new(std::ffi::OsStr::from_bytes(bytes))
}

/// Reads bytes of a file.
fn load(path: &Path, start: u64, end: u64) -> Result<Vec<u8>, Fault> {
    let failed = |error: std::io::Error| Fault::new(format!("cannot read it: {error}"));
    let mut file = File::open(path).map_err(failed)?;
    file.seek(SeekFrom::Start(start)).map_err(failed)?;
    let len = end - start;
    let mut bytes = Vec::with_capacity(usize::try_from(len).unwrap_or(0));
    file.take(len).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 != len {
        return Err(Fault::new(format!(
            "the file has become shorter while it was read: {} bytes are missing",
            len - bytes.len() as u64
        )));
    }
    Ok(bytes)
}

/// The bytes of a part.
enum Content<'a> {
    Passed(&'a [u8]),
    Loaded(Vec<u8>),
}

impl<'a> Content<'a> {
    fn of(path: &Bytes, spec: &Spec, data: &'a Array<u8>) -> Result<Self, Fault> {
        if spec.is_passed {
            Ok(Self::Passed(data))
        } else {
            load(path_of(path), spec.start, spec.end).map(Self::Loaded)
        }
    }
}

impl std::ops::Deref for Content<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Passed(bytes) => bytes,
            Self::Loaded(bytes) => bytes,
        }
    }
}

/// Stands for "no position" in the result of a [`survey`].
pub(super) const NOWHERE: u64 = u64::MAX;

/// Returns, for each state in which the bytes may begin, the state after the bytes, and the position in the file after
/// the first record that ends in the bytes.
pub(super) fn survey(path: &Bytes, spec: Spec) -> Result<[u64; 6], Typed<Fault>> {
    // The byte before the part decides whether a quote opens a field.
    let more = u64::from(!spec.is_first);
    let bytes = load(path_of(path), spec.start.saturating_sub(more), spec.end)?;
    let (before, bytes) = match bytes.split_first() {
        Some((before, bytes)) if !spec.is_first => (*before, bytes),
        _ => (b'\n', &bytes[..]),
    };
    let mut found = [NOWHERE; 6];
    for (state, found) in State::ALL.into_iter().zip(found.chunks_exact_mut(2)) {
        let scanned = scan(bytes, spec.records(), state, before);
        found[0] = scanned.state as u64;
        if let Some(first) = scanned.first {
            found[1] = spec.start + first as u64;
        }
    }
    Ok(found)
}

/// Infers the schema of a sample or of a whole part.
pub(super) fn infer(
    path: &Bytes,
    spec: Spec,
    header: &Bytes,
    data: &Array<u8>,
    rows: u64,
) -> Result<Part, Typed<Fault>> {
    let content = Content::of(path, &spec, data)?;
    let rows = usize::try_from(rows).ok().filter(|rows| *rows > 0);
    let schema = match spec.format {
        Format::Csv => csv::infer(&content, header, &spec, rows)?,
        Format::Json => json::infer(&content, rows)?,
        Format::Parquet => return Err(Fault::new("a Parquet file has its schema").into()),
    };
    no_rows(schema)
}

fn no_rows(schema: Schema) -> Result<Part, Typed<Fault>> {
    Part::new(&Arc::new(schema), &[]).map_err(|error| Fault::new(error.to_string()).into())
}

/// Returns the schema of a Parquet file, and the number of rows of each row group.
pub(super) fn describe(path: &Bytes, data: &Array<u8>) -> Result<(Part, Array<u64>), Typed<Fault>> {
    let (schema, rows) = parquet::describe(path_of(path), data)?;
    Ok((no_rows(schema)?, Array::from_slice(&rows)))
}

/// Reads a part.
pub(super) fn read(
    path: &Bytes,
    spec: Spec,
    header: &Bytes,
    schema: &Part,
    data: &Array<u8>,
    file_column: &str,
) -> Result<Part, Typed<Fault>> {
    let broken = |error: ArrowError| Fault::new(error.to_string());
    let (table, _) = schema.header().map_err(broken)?;
    let batches = match spec.format {
        Format::Csv => csv::parse(&Content::of(path, &spec, data)?, header, &spec, &table)?,
        Format::Json => json::parse(&Content::of(path, &spec, data)?, &spec, &table)?,
        Format::Parquet => parquet::read(path_of(path), data, spec.start, &table)?,
    };
    let part = if file_column.is_empty() {
        Part::new(&table, &batches)
    } else {
        let name = path_of(path).to_string_lossy();
        with_file(&table, batches, file_column, &name)
    };
    part.map_err(|error| broken(error).into())
}

/// Returns the schema with an additional column for the path of the file.
pub(super) fn schema_with_file(table: &SchemaRef, column: &str) -> SchemaRef {
    if column.is_empty() {
        return table.clone();
    }
    let text = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let mut fields: Vec<_> = table.fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new(column, text, true)));
    Arc::new(Schema::new_with_metadata(fields, table.metadata.clone()))
}

fn with_file(
    table: &SchemaRef,
    batches: Vec<RecordBatch>,
    column: &str,
    file: &str,
) -> Result<Part, ArrowError> {
    let schema = schema_with_file(table, column);
    let names: ArrayRef = Arc::new(StringArray::from(vec![file]));
    let add = |batch: RecordBatch| {
        let keys = Int32Array::from(vec![0; batch.num_rows()]);
        let files = DictionaryArray::try_new(keys, names.clone())?;
        let mut columns = batch.columns().to_vec();
        columns.push(Arc::new(files));
        RecordBatch::try_new(schema.clone(), columns)
    };
    let batches: Vec<_> = batches.into_iter().map(add).collect::<Result<_, _>>()?;
    Part::new(&schema, &batches)
}

/// Counts the rows of bytes that begin and end with whole records.
pub(super) fn count_rows(path: &Bytes, spec: Spec) -> Result<u64, Typed<Fault>> {
    let bytes = load(path_of(path), spec.start, spec.end)?;
    Ok(match spec.format {
        Format::Csv => csv::count_rows(&bytes, spec.delimiter),
        Format::Json => json::count_rows(&bytes),
        Format::Parquet => 0,
    })
}
