//! The plan by which files are read: [`Plan`].

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow_schema::{Schema, SchemaRef};

use super::error::{Fault, Origin, Place, TableError, TableErrorKind};
use super::feed::Feed;
use super::kernels::{self, Format, SAMPLED_ROWS, Spec};
use super::part::Part;
use super::run::essential;
use super::schema::{duplicate, merge, names, of_csv, twice};
use arenite::Array;
use arenite::engine::{Engine, InputError, JobError};
use arenite::kernel::Bytes;

/// The maximum number of bytes of a file from which its schema is inferred.
const SAMPLE: usize = 1 << 20;

/// The files that a table is read from, and how they are read.
pub(super) struct Plan<'e> {
    pub(super) engine: &'e Engine,
    pub(super) files: Vec<Arc<Path>>,
    /// The length of each file in bytes; 0 for a pipe.
    pub(super) lens: Vec<u64>,
    pub(super) format: Format,
    pub(super) delimiter: u8,
    pub(super) has_header: bool,
    pub(super) by_name: bool,
    pub(super) widen: bool,
    pub(super) part_bytes: usize,
    /// The name of the column for the path of the file; empty for no column.
    pub(super) file_column: String,
    /// The maximum number of surveys in flight for a file.
    pub(super) ahead: usize,
    /// An empty array, for jobs that read a file directly.
    pub(super) nothing: Array<u8>,
    /// Pipes that were sampled and not read yet, by the index of the file.
    pub(super) opened: Mutex<HashMap<usize, Feed>>,
    /// For each Parquet file, the number of rows of each group, and the content if it can be read only once.
    pub(super) groups: Vec<(Vec<u64>, Option<Array<u8>>)>,
}

pub(super) fn path_bytes(path: &Path) -> Bytes {
    path.as_os_str().as_bytes().into()
}

/// Returns the error for a failed job that worked on the part `origin`.
pub(super) fn failed(origin: Origin, error: JobError) -> TableError {
    match error.returned::<Fault>() {
        Some(fault) => TableError::of_fault(origin, fault, None),
        None => TableError::new(Some(origin), TableErrorKind::Job(error)),
    }
}

impl Plan<'_> {
    /// Returns the parameters for reading these bytes of a file.
    pub(super) fn spec(&self, start: u64, end: u64) -> Spec {
        Spec {
            start,
            end,
            format: self.format,
            delimiter: self.delimiter,
            has_header: self.has_header && self.format == Format::Csv,
            by_name: self.by_name,
            widen: self.widen,
            is_passed: false,
            is_last: false,
            is_first: false,
        }
    }

    /// Returns the number of bytes of all files.
    pub(super) fn total(&self) -> u64 {
        self.lens.iter().sum()
    }

    /// Returns whether workers are sandboxed, and so cannot open files.
    pub(super) fn is_sandboxed(&self) -> bool {
        self.engine.is_sandboxed()
    }

    fn opened(&self) -> MutexGuard<'_, HashMap<usize, Feed>> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a file at its beginning.
    pub(super) fn open(&self, index: usize) -> Result<Feed, TableError> {
        if let Some(feed) = self.opened().remove(&index) {
            return Ok(feed);
        }
        let spec = self.spec(0, 0);
        Feed::open(&self.files[index], spec.records(), spec.has_header)
            .map_err(|error| TableError::of_file(&self.files[index], error))
    }

    /// Returns whether the files can be read again.
    pub(super) fn is_repeatable(&self) -> bool {
        self.files.iter().all(|file| file.is_file())
    }

    /// Returns the schema of the first file that has rows. If columns are matched by name, returns the union of the
    /// schemas of all files.
    pub(super) fn schema(&mut self) -> Result<SchemaRef, TableError> {
        match self.format {
            Format::Parquet => self.describe(None),
            Format::Json => self.infer(),
            Format::Csv => self.infer().map(|found| of_csv(&found)),
        }
    }

    fn infer(&mut self) -> Result<SchemaRef, TableError> {
        let mut merged: Option<SchemaRef> = None;
        // The number of samples in flight is bounded: the map requests as many as its workers need.
        let failure = RefCell::new(None);
        let files = RefCell::new(Vec::new());
        let without_rows = RefCell::new(None);
        let samples = (0..self.files.len()).filter_map(|index| match self.sample(index) {
            Ok(Some(sample)) if failure.borrow().is_none() => {
                if sample.3.is_empty() && !self.by_name {
                    without_rows.borrow_mut().get_or_insert((index, sample));
                    return None;
                }
                Some((index, sample))
            }
            Ok(_) => None,
            Err(error) => {
                failure.borrow_mut().get_or_insert(error);
                None
            }
        });
        // If columns are not matched by name, the schema of one file suffices: of the first without rows, if none has
        // rows.
        let samples = samples
            .chain(std::iter::from_fn(|| without_rows.take()))
            .take(if self.by_name { usize::MAX } else { 1 })
            .map(|(index, sample)| {
                files.borrow_mut().push(index);
                sample
            });
        let inferred = self
            .engine
            .map(kernels::infer, samples)
            .options(&essential());
        for (number, found) in inferred.enumerate() {
            let file = &self.files[files.borrow()[number]];
            let whole = || Origin::file_only(file);
            // A sample is the beginning of its file, so no rows come before it.
            let found = found.map_err(|error| match error.returned::<Fault>() {
                Some(fault) => TableError::of_fault(whole(), fault, Some(0)),
                None => failed(whole(), error),
            })?;
            let (found, _) = found.header()?;
            if !self.by_name {
                return Ok(found);
            }
            check_names(&found, file)?;
            merged = Some(match merged {
                Some(known) => self.union(&known, &found, file)?,
                None => found,
            });
        }
        if let Some(error) = failure.take() {
            return Err(error);
        }
        merged.ok_or_else(|| {
            let nothing = "there is no row to infer a schema from: pass one with schema()";
            TableError::of_file(&self.files[0], nothing.to_owned())
        })
    }

    /// Returns the union of the schema so far and that of another file.
    fn union(
        &self,
        known: &Schema,
        other: &Schema,
        file: &Arc<Path>,
    ) -> Result<SchemaRef, TableError> {
        merge(known, other, self.widen).map_err(|(column, x, y)| {
            let fault = Fault {
                column: Some(column),
                ..Fault::new(format!(
                    "it is {y} in this file and {x} in those before; pass a schema, or let widen() choose a type"
                ))
            };
            TableError::of_fault(Origin::file_only(file), fault, None)
        })
    }

    /// Returns the arguments of a job that infers the schema of a file. `None` if the file has no content.
    #[allow(clippy::type_complexity, reason = "the arguments of a kernel")]
    fn sample(
        &self,
        index: usize,
    ) -> Result<Option<(Bytes, Spec, Bytes, Array<u8>, u64)>, TableError> {
        let file = &self.files[index];
        let mut feed = self.open(index)?;
        let mut spec = self.spec(0, 0);
        spec.is_passed = true;
        let header = Bytes::from(&feed.header);
        let mut sample = feed.sample(SAMPLE, spec.records());
        let is_blank = |byte: &u8| match self.format {
            Format::Json => byte.is_ascii_whitespace(),
            Format::Csv | Format::Parquet => matches!(byte, b'\n' | b'\r'),
        };
        // Empty lines are no rows.
        if sample.iter().all(is_blank) {
            sample = &[];
        }
        let is_empty = sample.is_empty() && header.is_empty();
        let data = self
            .engine
            .from_slice(sample)
            .map_err(|full| TableError::of_file(file, full))?;
        if !file.is_file() {
            self.opened().insert(index, feed);
        }
        let args = (path_bytes(file), spec, header, data, SAMPLED_ROWS as u64);
        Ok((!is_empty).then_some(args))
    }

    /// Returns the schema of Parquet files, or checks that they have the columns of a `given` one. Stores the number of
    /// rows of each of their row groups.
    pub(super) fn describe(&mut self, given: Option<&SchemaRef>) -> Result<SchemaRef, TableError> {
        let mut merged: Option<SchemaRef> = None;
        let failure = RefCell::new(None);
        let contents = RefCell::new(Vec::new());
        let described: Vec<_> = {
            let args = self
                .files
                .iter()
                .map_while(|file| match self.content(file) {
                    Ok(content) => {
                        let once = content.clone().filter(|_| !file.is_file());
                        contents.borrow_mut().push(once);
                        Some((
                            path_bytes(file),
                            content.unwrap_or_else(|| self.nothing.clone()),
                        ))
                    }
                    Err(error) => {
                        failure.borrow_mut().get_or_insert(error);
                        None
                    }
                });
            let jobs = self.engine.map(kernels::describe, args);
            jobs.options(&essential()).collect()
        };
        for ((file, described), content) in self.files.iter().zip(described).zip(contents.take()) {
            let (found, rows) =
                described.map_err(|error| failed(Origin::file_only(file), error))?;
            let (found, _) = found.header()?;
            if self.by_name {
                check_names(&found, file)?;
            }
            merged = Some(match (merged, given) {
                (known, Some(given)) => {
                    self.has_columns(&found, given, file)?;
                    known.unwrap_or_else(|| given.clone())
                }
                (Some(known), None) => {
                    if !self.by_name {
                        self.same_columns(&known, &found, file)?;
                    }
                    self.union(&known, &found, file)?
                }
                (None, None) => optional(&found, self.by_name || self.files.len() > 1),
            });
            self.groups.push((rows.to_vec(), content));
        }
        match (failure.take(), merged) {
            (Some(error), _) => Err(error),
            (None, Some(schema)) => Ok(schema),
            (None, None) => unreachable!("there is at least one file"),
        }
    }

    /// Checks that a file has all columns of the schema, unless columns are matched by name.
    fn has_columns(
        &self,
        found: &Schema,
        given: &Schema,
        file: &Arc<Path>,
    ) -> Result<(), TableError> {
        let is_missing = |name: &&String| !self.by_name && found.column_with_name(name).is_none();
        match given
            .fields()
            .iter()
            .map(|field| field.name())
            .find(is_missing)
        {
            None => Ok(()),
            Some(name) => Err(TableError::of_file(
                file,
                format!(
                    "the schema has the column {name:?}, and this file does not; by_name() reads files whose columns \
                     differ"
                ),
            )),
        }
    }

    fn same_columns(
        &self,
        known: &Schema,
        found: &Schema,
        file: &Arc<Path>,
    ) -> Result<(), TableError> {
        let (known, found) = (names(known), names(found));
        if known == found {
            return Ok(());
        }
        Err(TableError::of_file(
            file,
            format!(
                "its columns are {found:?}, and those of the first file {known:?}; by_name() reads files whose \
                 columns differ"
            ),
        ))
    }

    /// Returns the content of a file if workers cannot open the file.
    pub(super) fn content(&self, file: &Arc<Path>) -> Result<Option<Array<u8>>, TableError> {
        if file.is_file() && !self.is_sandboxed() {
            return Ok(None);
        }
        let read = self.engine.read_file(file);
        read.map(Some).map_err(|error| match error {
            InputError::Io { error, .. } => TableError::of_file(file, error),
            InputError::ArenaFull(full) => TableError::of_file(file, full),
            InputError::Npy { error, .. } => TableError::of_file(file, io::Error::other(error)),
            other => TableError::of_file(file, io::Error::other(other)),
        })
    }

    /// Returns the origin for bytes of a file.
    pub(super) fn origin(&self, file: &Arc<Path>, start: u64, end: u64) -> Origin {
        Origin {
            file: Arc::clone(file),
            place: Place::Bytes(start..end),
        }
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

/// Checks that no two columns of a file have the same name.
fn check_names(found: &Schema, file: &Arc<Path>) -> Result<(), TableError> {
    match duplicate(&names(found)) {
        Some(name) => Err(TableError::of_fault(
            Origin::file_only(file),
            twice(name),
            None,
        )),
        None => Ok(()),
    }
}

/// Returns the schema, with all columns optional if `is_optional` is true: rows of other files may lack a value.
fn optional(schema: &Schema, is_optional: bool) -> SchemaRef {
    let field = |field: &Arc<arrow_schema::Field>| {
        let nullable = field.is_nullable() || is_optional;
        Arc::new(field.as_ref().clone().with_nullable(nullable))
    };
    let fields: Vec<_> = schema.fields().iter().map(field).collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata.clone()))
}
