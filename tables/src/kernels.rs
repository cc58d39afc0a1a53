//! The kernels for tables: find ends of records, infer schemas, read parts.

use std::borrow::Cow;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use arrow_schema::{Schema, SchemaRef};
use bytemuck::{CheckedBitPattern, NoUninit};

use super::cut::{Records, State, scan, without_mark};
use super::parse::text;
use super::part::Part;
use super::{parquet, parse};
use arenite::Array;
use arenite::kernel::{Bytes, Scalar};

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
    /// Whether the part begins with its file.
    pub(super) is_first: bool,
    /// Whether the part ends with its file.
    pub(super) is_last: bool,
    pub(super) unused: [u8; 3],
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

pub(super) fn path_of(bytes: &Bytes) -> &Path {
    Path::new(std::ffi::OsStr::from_bytes(bytes))
}

/// Returns bytes of a file: `data` if they were passed as an argument, because a worker cannot open the file.
fn content<'a>(
    path: &Bytes,
    start: u64,
    end: u64,
    data: &'a Array<u8>,
) -> Result<Cow<'a, [u8]>, String> {
    if !data.is_empty() || start == end {
        return Ok(Cow::Borrowed(data));
    }
    load(path_of(path), start, end).map(Cow::Owned)
}

/// Reads bytes of a file.
pub(super) fn load(path: &Path, start: u64, end: u64) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| format!("cannot read it: {error}");
    let file = File::open(path).map_err(failed)?;
    let mut bytes = vec![0; usize::try_from(end - start).unwrap_or(usize::MAX)];
    file.read_exact_at(&mut bytes, start).map_err(failed)?;
    Ok(bytes)
}

/// Stands for "no position" in the result of a [`survey`].
pub(super) const NOWHERE: u64 = u64::MAX;

/// Returns, for each state in which the bytes may begin, the state after the bytes, and the position in the file after
/// the first record that ends in the bytes.
pub(super) fn survey(path: &Bytes, spec: Spec, data: &Array<u8>) -> Result<[u64; 6], String> {
    // The byte before the part decides whether a quote opens a field.
    let begin = surveyed_from(&spec);
    let all = content(path, begin, spec.end, data)?;
    let (before, bytes) = match all.split_first() {
        Some((before, bytes)) if !spec.is_first => (*before, bytes),
        _ => (b'\n', without_mark(&all)),
    };
    let begin = spec.end - bytes.len() as u64;
    let mut found = [NOWHERE; 6];
    for (state, found) in State::ALL.into_iter().zip(found.chunks_exact_mut(2)) {
        let scanned = scan(bytes, spec.records(), state, before);
        found[0] = scanned.state as u64;
        if let Some(first) = scanned.first {
            found[1] = begin + first as u64;
        }
    }
    Ok(found)
}

/// Returns the position of the first byte that a survey needs.
pub(super) fn surveyed_from(spec: &Spec) -> u64 {
    spec.start - u64::from(!spec.is_first)
}

/// Infers the schema of a file from its beginning.
pub(super) fn infer(spec: Spec, sample: &Array<u8>) -> Result<Part, String> {
    no_rows(parse::infer(sample, &spec)?)
}

fn no_rows(schema: Schema) -> Result<Part, String> {
    Part::new(&Arc::new(schema), &[]).map_err(text)
}

/// Returns the schema of a Parquet file, and the number of rows of each row group.
pub(super) fn describe(path: &Bytes, data: &Array<u8>) -> Result<(Part, Array<u64>), String> {
    let (schema, rows) = parquet::describe(path_of(path), data)?;
    Ok((no_rows(schema)?, Array::from_slice(&rows)))
}

/// Reads a part.
pub(super) fn read(
    path: &Bytes,
    spec: Spec,
    schema: &Part,
    data: &Array<u8>,
) -> Result<Part, String> {
    let (table, _): (SchemaRef, _) = schema.header().map_err(text)?;
    let content = || content(path, spec.start, spec.end, data);
    let batches = match spec.format {
        Format::Csv => parse::csv(&content()?, &spec, &table)?,
        Format::Json => parse::json(&content()?, &table)?,
        Format::Parquet => parquet::read(path_of(path), data, spec.start, &table)?,
    };
    Part::new(&table, &batches).map_err(text)
}
