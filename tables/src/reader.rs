//! Reading files: [`Reader`] and [`Scan`].

use std::fmt;
use std::sync::Arc;

use arrow_schema::SchemaRef;

use super::error::TableError;
use super::kernels::{self, Format, Spec};
use super::part::Part;
use super::plan::Plan;
use super::run::{Flying, PartMap, labelled, parts_ahead};
use super::sources::Sources;
use super::table::{PartReport, Table};
use super::tasks::{Task, Tasks};
use arenite::Array;
use arenite::engine::{Engine, Job, JobOptions, Permits};
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
    /// or `\r`; a byte-order mark and empty lines are skipped. An empty cell is null. [`csv`](Self::csv) has options.
    ///
    /// # Errors
    /// The first [`TableError`], which names a part. [`Reader::report`] returns the other parts too.
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
        let mut next = 0;
        let start = move |options: &JobOptions<true>| {
            let part = table.parts().get(next)?.clone();
            let origin = table.origin(next).cloned();
            next += 1;
            let job = self.job(kernel, SplitArgs(part, rest.clone()));
            let job = job.options(&labelled(options, origin.as_ref())).submit();
            Some(Ok(Flying { origin, job }))
        };
        PartMap::new(self, Box::new(start))
    }
}

/// Files to read, with options.
///
/// | to | call |
/// |---|---|
/// | read all of it | [`read`](Self::read), [`report`](Self::report) |
/// | read more than there is memory for, part by part | [`scan`](Self::scan) |
/// | read values that the inferred types do not fit | [`schema`](Self::schema) |
#[must_use = "a reader is lazy: nothing is read before `read`, `report` or `scan`"]
pub struct Reader<'e> {
    engine: &'e Engine,
    from: Sources,
    format: Format,
    delimiter: u8,
    has_header: bool,
    part_bytes: Option<u64>,
    schema: Option<SchemaRef>,
    options: JobOptions<true>,
}

impl<'e> Reader<'e> {
    fn new(engine: &'e Engine, format: Format, from: Sources) -> Self {
        Self {
            engine,
            from,
            format,
            delimiter: b',',
            has_header: format == Format::Csv,
            part_bytes: None,
            schema: None,
            options: JobOptions::default(),
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
    /// first file that has rows. (A CSV column that is empty in all these rows is inferred as text.) A Parquet file has
    /// its own schema: `schema` replaces it, and values are converted.
    pub fn schema(mut self, schema: SchemaRef) -> Self {
        self.schema = Some(schema);
        self
    }

    /// Sets the size of a part in bytes of its file: a part has all records that begin in this number of bytes, and at
    /// least one. Default: 32 MiB, but down to 1 MiB if that keeps all workers busy. Parsing needs about twice the size
    /// in each worker. The rows of a table do not depend on the size of parts. Row groups of Parquet files are not
    /// divided.
    pub fn part_bytes(mut self, bytes: usize) -> Self {
        self.part_bytes = Some(bytes.max(1) as u64);
        self
    }

    /// Sets the options of the jobs that read, such as a deadline or retries. An error names a part by its file and
    /// bytes instead of a label.
    pub fn options<const RETRIES: bool>(mut self, options: &JobOptions<RETRIES>) -> Self
    where
        Part: Permits<RETRIES>,
    {
        self.options = options.clone().retriable();
        self
    }

    /// Reads all parts into a table.
    ///
    /// # Errors
    /// The first failure, which cancels the rest. [`report`](Self::report) returns the parts that succeeded too.
    pub fn read(self) -> Result<Table, TableError> {
        let scan = self.scan()?;
        let mut table = Table::empty(Some(scan.schema()));
        let mut parts = scan.parts();
        while let Some(done) = parts.next_done() {
            table.push(done.result?, done.origin)?;
        }
        Ok(table)
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
    /// assert!(failure.to_string().contains("b.csv, bytes 0..9: "), "{failure}");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// If no file or no schema is found.
    pub fn report(self) -> Result<PartReport<Table>, TableError> {
        let scan = self.scan()?;
        let mut values = Table::empty(Some(scan.schema()));
        let mut failures = Vec::new();
        let mut parts = scan.parts();
        while let Some(done) = parts.next_done() {
            let pushed = done.result.and_then(|part| values.push(part, done.origin));
            failures.extend(pushed.err());
        }
        Ok(PartReport { values, failures })
    }

    /// Prepares to run a kernel on each part in the same job that reads it. The table is never in memory as a whole, so
    /// it may be larger than memory.
    ///
    /// # Errors
    /// If no file or no schema is found.
    pub fn scan(self) -> Result<Scan<'e>, TableError> {
        let files = self.from.files()?;
        let ahead = parts_ahead(self.engine);
        let nothing = self.engine.from_slice(&[]);
        let len = |file: &Arc<std::path::Path>| file.metadata().map_or(0, |known| known.len());
        let total: u64 = files.iter().map(len).sum();
        let mut plan = Plan {
            engine: self.engine,
            format: self.format,
            delimiter: self.delimiter,
            has_header: self.has_header,
            part_bytes: self.part_bytes.unwrap_or_else(|| {
                let even = total / (PARTS_PER_WORKER * ahead as u64 / 2);
                even.clamp(SMALL_PART, PART)
            }),
            files,
            ahead,
            nothing: nothing.map_err(|full| TableError::new(None, full.into()))?,
            groups: Vec::new(),
        };
        let schema = match self.schema {
            // Even with a given schema, the row groups of Parquet files must be known.
            given if plan.format == Format::Parquet => plan.describe(given)?,
            Some(schema) => schema,
            None => plan.schema()?,
        };
        Ok(Scan {
            plan: Arc::new(plan),
            schema,
            options: self.options,
        })
    }
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
    options: JobOptions<true>,
}

type ReadArgs = (Bytes, Spec, Part, Array<u8>);

impl<'e> Scan<'e> {
    /// Returns the columns and their types.
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
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
        let engine = self.plan.engine;
        self.start(move |args, options| engine.job(kernels::read, args).options(options).submit())
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
        let engine = self.plan.engine;
        self.start(move |args, options| {
            let job = engine.job(kernels::read, args).then(kernel, rest.clone());
            job.options(options).submit()
        })
    }

    /// Returns a map that starts the job of a part by `submit`. The schema is put into shared memory once.
    fn start<R: Send + 'static>(
        self,
        mut submit: impl FnMut(ReadArgs, &JobOptions<true>) -> Job<R> + Send + 'e,
    ) -> PartMap<'e, R> {
        let Self {
            plan,
            schema,
            options,
        } = self;
        let engine = plan.engine;
        let mut tasks = Tasks::new(Arc::clone(&plan));
        let mut shared: Option<Part> = None;
        let mut begin = move |task: Task, options: &JobOptions<true>| {
            let schema = match &shared {
                Some(part) => part.clone(),
                None => shared.insert(plan.shared_schema(&schema)?).clone(),
            };
            let origin = Some(task.origin);
            let args = (task.path, task.spec, schema, task.data);
            let job = submit(args, &labelled(options, origin.as_ref()));
            Ok(Flying { origin, job })
        };
        let start = move |options: &JobOptions<true>| {
            Some(tasks.next()?.and_then(|task| begin(task, options)))
        };
        PartMap::new(engine, Box::new(start)).options(&options)
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
