//! Reading files: [`Reader`] and [`Scan`].

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use arrow_schema::SchemaRef;

use super::error::{Fault, Origin, TableError, TableErrorKind};
use super::kernels::{self, Format, schema_with_file};
use super::part::Part;
use super::plan::{Plan, failed};
use super::run::{Done, Flying, OnProgress, PartMap, Start, essential, label, parts_ahead};
use super::schema::{merge, widen_by_position};
use super::sources::Sources;
use super::table::{PartReport, Table};
use super::tasks::{Task, Tasks};
use arenite::Array;
use arenite::engine::{Engine, JobOptions};
use arenite::engine::{Permits, Retried};
use arenite::kernel::{Arg, Args, Bytes, Kernel, Reply, RetrySafe, SplitArgs, SplitFirst};

/// The maximum default size of a part in bytes.
const PART: u64 = 32 << 20;
/// The minimum default size of a part in bytes.
const SMALL_PART: u64 = 1 << 20;
/// The number of parts for each worker, unless parts would be too small or too large.
const PARTS_PER_WORKER: u64 = 4;

/// The methods of an [`Engine`] for tables.
pub trait Tables {
    /// Reads CSV files into a table. `from` is a file, a folder, a pattern or a list of these.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// # let folder = tempfile::tempdir()?;
    /// # let data = folder.path().to_str().unwrap();
    /// use arenite_tables::Tables;
    /// use arenite_tables::arrow::array::{cast::AsArray, types::Float64Type};
    ///
    /// std::fs::write(format!("{data}/a.csv"), "name,price\napple,1.5\n\"pear,\nripe\",2\n")?;
    /// std::fs::write(format!("{data}/b.csv"), "name,price\nplum,\n")?;
    /// let table = engine.read_csv(format!("{data}/*.csv"))?;
    /// assert_eq!((table.rows(), table.parts().len()), (3, 2));
    /// for batch in table.batches() {
    ///     let batch = batch?;
    ///     let prices = batch.column_by_name("price").unwrap().as_primitive::<Float64Type>();
    ///     assert!(prices.iter().flatten().all(|price| price < 3.0));
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// Fields may be quoted, and then contain delimiters, line breaks and doubled quotes. Lines end with `\n`, `\r\n`
    /// or `\r`; a byte-order mark and empty lines are skipped. Workers read the files, except pipes and files compressed
    /// with gzip, which this process reads. An empty cell is null. [`csv`](Self::csv) has options.
    ///
    /// # Errors
    /// The first [`TableError`], which names file, row and column. [`Reader::report`] returns the other parts too.
    fn read_csv(&self, from: impl Into<Sources>) -> Result<Table, TableError>;

    /// Like [`read_csv`](Self::read_csv), for files with one JSON object per line.
    ///
    /// # Errors
    /// The first [`TableError`]. A field that the schema lacks is an error too, so that no value is lost.
    fn read_json(&self, from: impl Into<Sources>) -> Result<Table, TableError>;

    /// Like [`read_csv`](Self::read_csv), for Parquet files. Each row group is a part.
    ///
    /// # Errors
    /// The first [`TableError`].
    fn read_parquet(&self, from: impl Into<Sources>) -> Result<Table, TableError>;

    /// Reads CSV files with options, or part by part.
    fn csv(&self, from: impl Into<Sources>) -> Reader<'_>;

    /// Reads files with one JSON object per line, with options or part by part.
    fn json(&self, from: impl Into<Sources>) -> Reader<'_>;

    /// Reads Parquet files with options, or part by part.
    fn parquet(&self, from: impl Into<Sources>) -> Reader<'_>;

    /// Runs a kernel on each part of a table. The first argument of the kernel is the `&Part`; the other arguments are
    /// those in `rest`, the same for each job. An array in `rest` is broadcast, without a copy.
    ///
    /// ```
    /// # use arenite_tables::Tables;
    /// # let engine = arenite::Engine::inline();
    /// # let folder = tempfile::tempdir()?;
    /// # let data = folder.path().join("a.csv");
    /// use arenite::Array;
    /// use arenite_tables::Part;
    /// use arenite_tables::arrow::array::{cast::AsArray, types::Int64Type};
    /// use arenite_tables::arrow::schema::ArrowError;
    ///
    /// fn total(part: &Part, prices: &Array<f64>) -> Result<f64, ArrowError> {
    ///     let mut sum = 0.0;
    ///     for batch in part.batches()? {
    ///         let items = batch.column(0).as_primitive::<Int64Type>();
    ///         sum += items.values().iter().map(|&item| prices[item as usize]).sum::<f64>();
    ///     }
    ///     Ok(sum)
    /// }
    ///
    /// std::fs::write(&data, "item\n0\n2\n2\n")?;
    /// let table = engine.read_csv(&data)?;
    /// let prices = engine.from_slice(&[1.5, 10.0, 0.25])?;
    /// let totals: Vec<f64> = engine.map_partitions(&table, total, (&prices,)).collect::<Result<_, _>>()?;
    /// assert_eq!(totals, [2.0]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    fn map_partitions<'e, F, B, Q, R>(
        &'e self,
        table: &Table,
        kernel: F,
        rest: B,
    ) -> PartMap<'e, R::Out>
    where
        F: Kernel<Q, R>,
        Q: SplitFirst + 'static,
        Part: Arg<'static, Q::First>,
        B: Args<'static, Q::Rest> + RetrySafe + Clone + Send + 'e,
        R: Reply + 'static;
}

impl Tables for Engine {
    fn read_csv(&self, from: impl Into<Sources>) -> Result<Table, TableError> {
        self.csv(from).read()
    }

    fn read_json(&self, from: impl Into<Sources>) -> Result<Table, TableError> {
        self.json(from).read()
    }

    fn read_parquet(&self, from: impl Into<Sources>) -> Result<Table, TableError> {
        self.parquet(from).read()
    }

    fn csv(&self, from: impl Into<Sources>) -> Reader<'_> {
        Reader::new(self, Format::Csv, from.into())
    }

    fn json(&self, from: impl Into<Sources>) -> Reader<'_> {
        Reader::new(self, Format::Json, from.into())
    }

    fn parquet(&self, from: impl Into<Sources>) -> Reader<'_> {
        Reader::new(self, Format::Parquet, from.into())
    }

    fn map_partitions<'e, F, B, Q, R>(
        &'e self,
        table: &Table,
        kernel: F,
        rest: B,
    ) -> PartMap<'e, R::Out>
    where
        F: Kernel<Q, R>,
        Q: SplitFirst + 'static,
        Part: Arg<'static, Q::First>,
        B: Args<'static, Q::Rest> + RetrySafe + Clone + Send + 'e,
        R: Reply + 'static,
    {
        let table = table.clone();
        let bytes = |part: &Part| part.as_array().len() as u64;
        let total = table.parts().iter().map(bytes).sum();
        let (mut next, mut read) = (0, 0);
        let start = move |options: &JobOptions<Retried>| {
            let part = table.parts().get(next)?.clone();
            let origin = table.origin(next).cloned();
            next += 1;
            read += bytes(&part);
            let job = self.job(kernel, SplitArgs(part, rest.clone()));
            let job = job.options(&labelled(options, origin.as_ref())).submit();
            Some(Ok(Flying {
                origin,
                task: None,
                job,
                read,
            }))
        };
        PartMap::new(self, Box::new(start), total)
    }
}

fn labelled(options: &JobOptions<Retried>, origin: Option<&Origin>) -> JobOptions<Retried> {
    match origin {
        Some(origin) => options.clone().label(label(origin)),
        None => options.clone(),
    }
}

/// Files to read, with options.
///
/// | to | call |
/// |---|---|
/// | read all of it | [`read`](Self::read), [`report`](Self::report) |
/// | read more than there is memory for, part by part | [`scan`](Self::scan) |
/// | read files whose columns differ | [`by_name`](Self::by_name) |
/// | read values that the inferred types do not fit | [`schema`](Self::schema), [`widen`](Self::widen) |
/// | know which file a row is from | [`file_column`](Self::file_column) |
/// | show progress | [`on_progress`](Self::on_progress) |
#[must_use = "a reader is lazy: nothing is read before `read`, `report` or `scan`"]
pub struct Reader<'e> {
    engine: &'e Engine,
    from: Sources,
    format: Format,
    delimiter: u8,
    has_header: bool,
    by_name: bool,
    widen: bool,
    part_bytes: Option<usize>,
    file_column: String,
    schema: Option<SchemaRef>,
    options: JobOptions<Retried>,
    on_progress: Option<OnProgress<'e>>,
}

impl<'e> Reader<'e> {
    fn new(engine: &'e Engine, format: Format, from: Sources) -> Self {
        Self {
            engine,
            from,
            format,
            delimiter: b',',
            has_header: true,
            by_name: false,
            widen: false,
            part_bytes: None,
            file_column: String::new(),
            schema: None,
            options: JobOptions::default(),
            on_progress: None,
        }
    }

    /// Sets the byte between the fields of a CSV file, instead of a comma.
    pub fn delimiter(mut self, delimiter: u8) -> Self {
        self.delimiter = delimiter;
        self
    }

    /// Declares that CSV files begin with rows, not with a header. Without a [schema](Self::schema), the columns are
    /// `column_1` and so on.
    pub fn no_header(mut self) -> Self {
        self.has_header = false;
        self
    }

    /// Sets the columns and their types, instead of those inferred from the first 1,000 rows (at most 1 MiB) of the
    /// first file. (A column that is empty in all these rows is inferred as text.) A Parquet file has its own schema:
    /// `schema` replaces it, and values are converted.
    pub fn schema(mut self, schema: SchemaRef) -> Self {
        self.schema = Some(schema);
        self
    }

    /// If a value does not fit the type that was inferred for its column, reads the files again with a type that fits
    /// all rows: an integer becomes a float, then text. Without this option, such a value is an error.
    pub fn widen(mut self) -> Self {
        self.widen = true;
        self
    }

    /// Matches columns by name: the table has the columns of all files, in the order of their first appearance, and
    /// null if a file lacks a column. Without this option, files must have the columns of the first file, in its order.
    pub fn by_name(mut self) -> Self {
        self.by_name = true;
        self
    }

    /// Adds a column with the path of the file that the row comes from.
    pub fn file_column(mut self, name: impl Into<String>) -> Self {
        self.file_column = name.into();
        self
    }

    /// Sets the size of a part in bytes of its file: a part has all records that begin in this number of bytes, and at
    /// least one. Default: 32 MiB, but down to 1 MiB if that keeps all workers busy. Parsing needs about twice the size
    /// in each worker. The rows of a table do not depend on the size of parts. Row groups of Parquet files are not
    /// divided.
    pub fn part_bytes(mut self, bytes: usize) -> Self {
        self.part_bytes = Some(bytes.max(1));
        self
    }

    /// Sets the options of the jobs that read, such as a deadline or retries. An error names a part by its file and
    /// bytes instead of a label.
    pub fn options<M>(mut self, options: &JobOptions<M>) -> Self
    where
        Part: Permits<M>,
    {
        self.options = options.clone().retriable();
        self
    }

    /// Calls `report(read, total)` after each part, on the thread that reads or takes the results of a scan: `read`
    /// bytes of the `total` bytes of all files have been read. For a compressed file, bytes are counted before
    /// decompression; for a Parquet file, in proportion to its rows; a pipe counts as 0. If [`widen`](Self::widen)
    /// reads the files again, the count starts again.
    ///
    /// ```
    /// # use arenite_tables::Tables;
    /// # let engine = arenite::Engine::inline();
    /// # let folder = tempfile::tempdir()?;
    /// # let data = folder.path().to_str().unwrap();
    /// std::fs::write(format!("{data}/a.csv"), "n\n1\n2\n3\n")?;
    /// let mut shown = Vec::new();
    /// let reader = engine.csv(data).part_bytes(2);
    /// // With indicatif: `bar.set_length(total); bar.set_position(read);`
    /// reader.on_progress(|read, total| shown.push((read, total))).read()?;
    /// assert_eq!(shown, [(6, 8), (8, 8)]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "tqdm")]
    pub fn on_progress(mut self, report: impl FnMut(u64, u64) + Send + 'e) -> Self {
        self.on_progress = Some(Box::new(report));
        self
    }

    /// Reads all parts into a table.
    ///
    /// # Errors
    /// The first failure, which cancels the rest. [`report`](Self::report) returns the parts that succeeded too.
    pub fn read(self) -> Result<Table, TableError> {
        let (table, mut failures) = self.gather(true)?.into_parts();
        match failures.is_empty() {
            true => Ok(table),
            false => Err(failures.swap_remove(0)),
        }
    }

    /// Reads all parts. Returns a table of the parts that succeeded, and the failures of the others.
    ///
    /// ```
    /// # use arenite_tables::Tables;
    /// # let engine = arenite::Engine::inline();
    /// # let folder = tempfile::tempdir()?;
    /// # let data = folder.path().to_str().unwrap();
    /// std::fs::write(format!("{data}/a.csv"), "n\n1\n2\n")?;
    /// std::fs::write(format!("{data}/b.csv"), "n\n3\nfour\n")?;
    /// let report = engine.csv(data).report()?;
    /// assert_eq!(report.values().rows(), 2);
    /// let [failure] = report.failures() else { panic!("{report:?}") };
    /// assert_eq!((failure.row(), failure.column()), (Some(2), Some("n")));
    /// assert!(failure.to_string().contains(r#"b.csv, row 2, column "n": "four" is not Int64"#));
    /// // Or, where the type may follow the data:
    /// assert_eq!(engine.csv(data).widen().read()?.rows(), 4);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// If no file or no schema is found.
    pub fn report(self) -> Result<PartReport<Table>, TableError> {
        self.gather(false)
    }

    /// Prepares to run a kernel on each part in the same job that reads it. The table is never in memory as a whole, so
    /// it may be larger than memory.
    ///
    /// # Errors
    /// If no file or no schema is found. Always fails with [`widen`](Self::widen), which may need all rows.
    pub fn scan(mut self) -> Result<Scan<'e>, TableError> {
        if self.widen {
            let text =
                "widen() may have to read all rows again, which scan() cannot: pass a schema";
            return Err(TableError::new(None, TableErrorKind::Data(text.into())));
        }
        let on_progress = self.on_progress.take();
        let (plan, schema, options) = self.plan()?;
        Ok(Scan {
            plan: Arc::new(plan),
            schema,
            options,
            on_progress,
        })
    }

    fn plan(self) -> Result<(Plan<'e>, SchemaRef, JobOptions<Retried>), TableError> {
        let files = self.from.files()?;
        let ahead = parts_ahead(self.engine);
        let nothing = self.engine.from_slice(&[]);
        let len = |file: &Arc<std::path::Path>| file.metadata().map_or(0, |known| known.len());
        let lens: Vec<u64> = files.iter().map(len).collect();
        let total: u64 = lens.iter().sum();
        let mut plan = Plan {
            engine: self.engine,
            format: self.format,
            delimiter: self.delimiter,
            has_header: self.has_header,
            by_name: self.by_name,
            widen: self.widen,
            part_bytes: self.part_bytes.unwrap_or_else(|| {
                let even = total / (PARTS_PER_WORKER * ahead as u64 / 2);
                even.clamp(SMALL_PART, PART) as usize
            }),
            files,
            lens,
            file_column: self.file_column,
            ahead,
            nothing: nothing.map_err(|full| TableError::new(None, full.into()))?,
            opened: Mutex::new(HashMap::new()),
            groups: Vec::new(),
        };
        let schema = match self.schema {
            // Even with a given schema, the row groups of Parquet files must be known.
            Some(schema) if plan.format == Format::Parquet => plan.describe(Some(&schema))?,
            Some(schema) => schema,
            None => plan.schema()?,
        };
        if !plan.file_column.is_empty() && schema.column_with_name(&plan.file_column).is_some() {
            let text = format!("the files have a column {:?} themselves", plan.file_column);
            return Err(TableError::of_file(&plan.files[0], text));
        }
        Ok((plan, schema, self.options))
    }

    fn gather(mut self, stops: bool) -> Result<PartReport<Table>, TableError> {
        let mut on_progress = self.on_progress.take();
        let (plan, mut schema, options) = self.plan()?;
        let plan = Arc::new(plan);
        loop {
            let attempt = gather(&plan, &schema, &options, stops, &mut on_progress)?;
            match attempt.wider {
                Some(wider) => schema = wider,
                None => return Ok(attempt.report),
            }
        }
    }
}

struct Attempt {
    report: PartReport<Table>,
    /// The schema with which reading must start again, if any.
    wider: Option<SchemaRef>,
}

/// Reads all parts with one schema.
fn gather<'e>(
    plan: &Arc<Plan<'e>>,
    schema: &SchemaRef,
    options: &JobOptions<Retried>,
    stops: bool,
    on_progress: &mut Option<OnProgress<'e>>,
) -> Result<Attempt, TableError> {
    let columns = schema_with_file(schema, &plan.file_column);
    let mut table = Table::empty(Some(columns));
    let mut failures = Vec::new();
    let mut wider: Option<SchemaRef> = None;
    // The number of rows of the current file so far, if all its parts could be read.
    let mut rows_of_file = Some(0);
    let mut last_file: Option<Arc<std::path::Path>> = None;
    let start = start_reads(plan, schema);
    let mut parts = PartMap::new(plan.engine, start, plan.total()).options(options);
    parts.on_progress = on_progress.take();
    while let Some(done) = parts.next_done() {
        let file = done.origin.as_ref().map(|origin| Arc::clone(&origin.file));
        if last_file != file {
            rows_of_file = Some(0);
            last_file = file;
        }
        let error = match done {
            Done {
                result: Ok(part),
                origin,
                ..
            } if wider.is_none() => match table.push(part, origin) {
                Ok(rows) => {
                    rows_of_file = rows_of_file.map(|known: u64| known.saturating_add(rows));
                    continue;
                }
                Err(error) => error,
            },
            Done { result: Ok(_), .. } => continue,
            Done {
                result: Err(error),
                is_of_type: true,
                task: Some(task),
                ..
            } if plan.widen && plan.is_repeatable() => {
                match widened(plan, schema, wider.as_ref(), task) {
                    Ok(Some(found)) => {
                        wider = Some(found);
                        table = Table::empty(None);
                        continue;
                    }
                    // Another type would not help.
                    Ok(None) => error,
                    Err(error) => error,
                }
            }
            Done {
                result: Err(error), ..
            } => error,
        };
        failures.push(error.with_rows_before(rows_of_file));
        rows_of_file = None;
        if stops {
            break;
        }
    }
    *on_progress = parts.on_progress.take();
    let report = PartReport {
        values: table,
        failures,
    };
    // Reading again will find the other faults again.
    let wider = wider.filter(|_| !stops || report.failures.is_empty());
    Ok(Attempt { report, wider })
}

/// Returns a schema that also fits this part; `None` if the part fits the types with which it was read, so that other
/// types would not help. `wider`: the schema that other parts need.
fn widened(
    plan: &Plan<'_>,
    schema: &SchemaRef,
    wider: Option<&SchemaRef>,
    task: Task,
) -> Result<Option<SchemaRef>, TableError> {
    let origin = task.origin.clone();
    let args = (task.path, task.spec, task.header, task.data, 0);
    let found = plan
        .engine
        .job(kernels::infer, args)
        .options(&essential())
        .submit();
    let found = match found.wait() {
        Ok(found) => found,
        // No schema fits the rows of the part, so the fault that was found first is reported.
        Err(error) if error.returned::<Fault>().is_some() => return Ok(None),
        Err(error) => return Err(failed(origin, error)),
    };
    let (found, _) = found.header()?;
    let merged = |known: &SchemaRef| match plan.format == Format::Csv && !plan.by_name {
        true => widen_by_position(known, &found),
        false => merge(known, &found, true).unwrap_or_else(|_| known.clone()),
    };
    let fits = merged(schema);
    Ok((fits != *schema).then(|| wider.map_or(fits, merged)))
}

type ReadArgs = (Bytes, kernels::Spec, Bytes, Part, Array<u8>, String);

fn read_args(plan: &Plan<'_>, schema: Part, task: &Task) -> ReadArgs {
    (
        task.path.clone(),
        task.spec,
        task.header.clone(),
        schema,
        task.data.clone(),
        plan.file_column.clone(),
    )
}

/// Returns a function that returns at each call the next task and the schema. The first call puts the schema into
/// shared memory, which later calls share.
fn tasks<'e>(
    plan: &Arc<Plan<'e>>,
    schema: &SchemaRef,
) -> impl FnMut() -> Option<Result<(Task, Part), TableError>> + Send + use<'e> {
    let mut tasks = Tasks::new(Arc::clone(plan));
    let (plan, schema) = (Arc::clone(plan), schema.clone());
    let mut shared: Option<Part> = None;
    move || {
        let next = tasks.next()?.and_then(|task| {
            let part = match &shared {
                Some(part) => part.clone(),
                None => shared.insert(plan.shared_schema(&schema)?).clone(),
            };
            Ok((task, part))
        });
        Some(next)
    }
}

/// Returns a function that starts to read the next part at each call.
fn start_reads<'e>(plan: &Arc<Plan<'e>>, schema: &SchemaRef) -> Box<Start<'e, Part>> {
    let mut tasks = tasks(plan, schema);
    let plan = Arc::clone(plan);
    Box::new(move |options| {
        Some(tasks()?.map(|(task, schema)| {
            let job = plan
                .engine
                .job(kernels::read, read_args(&plan, schema, &task));
            let job = job.options(&labelled(options, Some(&task.origin))).submit();
            let origin = Some(task.origin.clone());
            Flying {
                origin,
                read: task.read,
                task: Some(task),
                job,
            }
        }))
    })
}

/// Files whose parts are read when a kernel needs them: see [`Reader::scan`].
///
/// ```
/// # use arenite_tables::Tables;
/// # let engine = arenite::Engine::inline();
/// # let folder = tempfile::tempdir()?;
/// # let data = folder.path().to_str().unwrap();
/// use arenite_tables::Part;
/// use arenite_tables::arrow::array::{cast::AsArray, types::Int64Type};
/// use arenite_tables::arrow::schema::ArrowError;
///
/// fn sum(part: &Part) -> Result<i64, ArrowError> {
///     let batches = part.batches()?;
///     Ok(batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values()).sum())
/// }
///
/// std::fs::write(format!("{data}/a.csv"), "n\n1\n2\n")?;
/// std::fs::write(format!("{data}/b.csv"), "n\n3\n4\n")?;
/// let sums = engine.csv(data).scan()?.map_partitions(sum, ());
/// assert_eq!(sums.sum::<Result<i64, _>>()?, 10);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Scan<'e> {
    plan: Arc<Plan<'e>>,
    schema: SchemaRef,
    options: JobOptions<Retried>,
    on_progress: Option<OnProgress<'e>>,
}

impl<'e> Scan<'e> {
    /// Returns the columns and their types.
    pub fn schema(&self) -> SchemaRef {
        schema_with_file(&self.schema, &self.plan.file_column)
    }

    /// Reads the parts, a bounded number ahead of the next one.
    ///
    /// ```
    /// # use arenite_tables::Tables;
    /// # let engine = arenite::Engine::inline();
    /// # let folder = tempfile::tempdir()?;
    /// # let data = folder.path().join("a.json");
    /// std::fs::write(&data, "{\"n\": 1}\n{\"n\": 2}\n")?;
    /// let mut rows = 0;
    /// for part in engine.json(&data).part_bytes(9).scan()?.parts() {
    ///     rows += part?.batches()?.iter().map(|batch| batch.num_rows()).sum::<usize>();
    /// }
    /// assert_eq!(rows, 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn parts(self) -> PartMap<'e, Part> {
        let start = start_reads(&self.plan, &self.schema);
        let mut parts = PartMap::new(self.plan.engine, start, self.plan.total());
        parts.on_progress = self.on_progress;
        parts.options(&self.options)
    }

    /// Runs a kernel on each part, in the job that reads it, like [`Tables::map_partitions`] for the parts of a table.
    /// If the parser or the kernel ends its process, only that part fails.
    pub fn map_partitions<F, B, Q, R>(self, kernel: F, rest: B) -> PartMap<'e, R::Out>
    where
        F: Kernel<Q, R>,
        Q: SplitFirst + 'static,
        Part: Arg<'static, Q::First>,
        B: Args<'static, Q::Rest> + RetrySafe + Clone + Send + 'e,
        R: Reply + 'static,
    {
        let mut tasks = tasks(&self.plan, &self.schema);
        let plan = Arc::clone(&self.plan);
        let start = move |options: &JobOptions<Retried>| {
            Some(tasks()?.map(|(task, schema)| {
                let job = plan
                    .engine
                    .job(kernels::read, read_args(&plan, schema, &task));
                let job = job.then(kernel, rest.clone());
                let job = job.options(&labelled(options, Some(&task.origin))).submit();
                let origin = Some(task.origin.clone());
                Flying {
                    origin,
                    read: task.read,
                    task: Some(task),
                    job,
                }
            }))
        };
        let mut parts = PartMap::new(self.plan.engine, Box::new(start), self.plan.total());
        parts.on_progress = self.on_progress;
        parts.options(&self.options)
    }
}

impl fmt::Debug for Reader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("format", &self.format)
            .field("from", &self.from)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Scan<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scan")
            .field("files", &self.plan.files)
            .finish_non_exhaustive()
    }
}
