//! The plan by which files are read: [`Plan`].

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use arrow_schema::{Field, Schema, SchemaRef};

use super::cut::{State, first_record, scan, without_mark};
use super::error::{Origin, TableError, TableErrorKind};
use super::kernels::{self, Format, Spec, load};
use super::parse::names;
use super::part::Part;
use super::run::essential;
use arenite::Array;
use arenite::engine::{Engine, JobError};
use arenite::kernel::Bytes;

/// The maximum number of bytes of a file from which its schema is inferred.
const SAMPLE: u64 = 1 << 20;
const GZIP: [u8; 2] = [0x1F, 0x8B];

/// The files that a table is read from, and how they are read.
pub(super) struct Plan<'e> {
    pub(super) engine: &'e Engine,
    pub(super) files: Vec<Arc<Path>>,
    pub(super) format: Format,
    pub(super) delimiter: u8,
    pub(super) has_header: bool,
    pub(super) part_bytes: u64,
    /// The maximum number of surveys in flight for a file.
    pub(super) ahead: usize,
    /// An empty array, for jobs that read a file directly.
    pub(super) nothing: Array<u8>,
    /// For each Parquet file, the number of rows of each group.
    pub(super) groups: Vec<Vec<u64>>,
}

pub(super) fn path_bytes(path: &Path) -> Bytes {
    path.as_os_str().as_bytes().into()
}

/// Returns the error of a failed job that worked on the part `origin`.
pub(super) fn failed(origin: Origin, error: JobError) -> TableError {
    TableError::new(Some(origin), TableErrorKind::Job(error))
}

impl Plan<'_> {
    /// Returns the parameters for reading these bytes of a file of this length.
    pub(super) fn spec(&self, start: u64, end: u64, len: u64) -> Spec {
        Spec {
            start,
            end,
            format: self.format,
            delimiter: self.delimiter,
            has_header: self.has_header,
            is_first: start == 0,
            is_last: end == len,
            unused: [0; 3],
        }
    }

    /// Returns the length of a file, which can be cut.
    pub(super) fn len(&self, file: &Arc<Path>) -> Result<u64, TableError> {
        let check = || -> io::Result<u64> {
            let known = file.metadata()?;
            let mut begin = [0; 2];
            let is_gzip = known.is_file()
                && self.format != Format::Parquet
                && File::open(file)?.read(&mut begin)? == 2
                && begin == GZIP;
            if known.is_file() && !is_gzip {
                return Ok(known.len());
            }
            let what = if is_gzip {
                "compressed"
            } else {
                "no plain file"
            };
            let text = format!(
                "it is {what}, and cannot be cut into parts: write its content into a file first"
            );
            Err(io::Error::new(io::ErrorKind::Unsupported, text))
        };
        check().map_err(|error| TableError::of_file(file, error))
    }

    /// Returns the end of the header of a CSV file, and of the empty lines before it.
    pub(super) fn header_end(&self, file: &Path, len: u64) -> io::Result<u64> {
        let begin = load(file, 0, len.min(SAMPLE)).map_err(io::Error::other)?;
        let content = without_mark(&begin);
        let end = first_record(content, self.spec(0, len, len).records()).unwrap_or(content.len());
        Ok((begin.len() - content.len() + end) as u64)
    }

    /// Returns bytes of a file if workers cannot open it, otherwise nothing.
    pub(super) fn content(
        &self,
        file: &Arc<Path>,
        start: u64,
        end: u64,
    ) -> Result<Array<u8>, TableError> {
        if !self.engine.is_sandboxed() || start == end {
            return Ok(self.nothing.clone());
        }
        let bytes = load(file, start, end).map_err(|text| TableError::of_file(file, text))?;
        let copied = self.engine.from_slice(&bytes);
        copied.map_err(|full| TableError::of_file(file, full))
    }

    /// Returns the schema of the first file that has rows.
    pub(super) fn schema(&self) -> Result<SchemaRef, TableError> {
        let mut without_rows = None;
        for file in &self.files {
            let len = self.len(file)?;
            let spec = self.spec(0, len.min(SAMPLE), len);
            let mut sample =
                load(file, 0, spec.end).map_err(|text| TableError::of_file(file, text))?;
            if !spec.is_last {
                let end = scan(&sample, spec.records(), State::Outside, b'\n').last;
                sample.truncate(end.unwrap_or(sample.len()));
            }
            let is_blank = |bytes: &[u8]| bytes.iter().all(u8::is_ascii_whitespace);
            let content = without_mark(&sample);
            let rows = match spec.format == Format::Csv && spec.has_header {
                true => {
                    first_record(content, spec.records()).map_or(&[][..], |end| &content[end..])
                }
                false => content,
            };
            if !is_blank(rows) {
                return self.infer(file, spec, &sample);
            }
            if !is_blank(content) {
                without_rows.get_or_insert((file, spec, sample));
            }
        }
        match without_rows {
            Some((file, spec, sample)) => self.infer(file, spec, &sample),
            None => {
                let nothing = "there is no row to infer a schema from: pass one with schema()";
                Err(TableError::of_file(&self.files[0], nothing.to_owned()))
            }
        }
    }

    fn infer(&self, file: &Arc<Path>, spec: Spec, sample: &[u8]) -> Result<SchemaRef, TableError> {
        let sample = self.engine.from_slice(sample);
        let sample = sample.map_err(|full| TableError::of_file(file, full))?;
        let job = self.engine.job(kernels::infer, (spec, &sample));
        let found = job.options(&essential()).submit().wait();
        let found = found.map_err(|error| failed(Origin::file_only(file), error))?;
        Ok(found.header()?.0)
    }

    /// Returns the schema of Parquet files, which must have the same columns, or those of a `given` schema. Stores the
    /// number of rows of each of their row groups.
    pub(super) fn describe(&mut self, given: Option<SchemaRef>) -> Result<SchemaRef, TableError> {
        let mut table = given.clone();
        let is_optional = self.files.len() > 1;
        for file in &self.files {
            let len = self.len(file)?;
            let data = self.content(file, 0, len)?;
            let job = self
                .engine
                .job(kernels::describe, (path_bytes(file), &data));
            let found = job.options(&essential()).submit().wait();
            let (found, rows) = found.map_err(|error| failed(Origin::file_only(file), error))?;
            let (found, _) = found.header()?;
            let known = table.get_or_insert_with(|| optional(&found, is_optional));
            if given.is_none() && names(&found) != names(known) {
                return Err(TableError::of_file(
                    file,
                    format!(
                        "its columns are {:?}, and those of the first file {:?}",
                        names(&found),
                        names(known)
                    ),
                ));
            }
            self.groups.push(rows.to_vec());
        }
        Ok(table.expect("there is at least one file"))
    }

    /// Copies a schema to shared memory, where workers read it.
    pub(super) fn shared_schema(&self, schema: &SchemaRef) -> Result<Part, TableError> {
        let part = Part::new(schema, &[])?;
        let shared = self
            .engine
            .import(part.as_array())
            .map_err(|full| TableError::new(None, full.into()))?;
        Ok(shared.into())
    }
}

/// Returns the schema, with all columns optional if `is_optional` is true: rows of other files may lack a value.
fn optional(schema: &Schema, is_optional: bool) -> SchemaRef {
    let field = |field: &Arc<Field>| {
        let nullable = field.is_nullable() || is_optional;
        Arc::new(field.as_ref().clone().with_nullable(nullable))
    };
    let fields: Vec<_> = schema.fields().iter().map(field).collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata.clone()))
}
