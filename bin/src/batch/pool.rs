//! Runs the work on an engine: the bytes of a file go to the arena; a worker decodes, resizes and encodes, and returns
//! the result.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use arenite::engine::{AsCompleted, LogSource, TraceError};
use arenite::{
    ArenaFull, Array, BuildError, Engine, InputError, Job, JobError, JobErrorKind, JobLimit,
    JobOptions, KernelError, Returned, Sandbox, Trace, Typed, WorkerExit, as_completed,
};
use arenite_image::{
    Damage, Format, ImageError, Output, ResizeSpec, Size, announced, check, resize_encoded_sizes,
};

use super::outcome::{Encoded, Fault, Made, Warning};
use super::plan::{Item, Task};
use super::printer::{Confinement, Purpose};
use super::progress::{FailedAllocations, Messages, print_aside};
use crate::text::{one_line, reason, show_bytes, show_path};

/// The number of jobs in flight for each worker: one runs, one waits. A third made small pictures 1 % faster and photos
/// 2 % slower, because their bytes had left the caches before a worker read them.
const PER_WORKER: usize = 2;

/// The maximum number of sizes of a picture: twice as many as web pages use.
pub(crate) const MAX_SIZES: usize = 32;

/// The results to make of a picture.
#[derive(Clone, Debug)]
pub(crate) struct Make {
    /// The settings of the results. The output format is set for each picture.
    pub spec: ResizeSpec,
    /// The sizes of the results: 1 to [`MAX_SIZES`]; none for `check`, whose result has no bytes.
    pub sizes: Vec<Size>,
    /// The deadline of an attempt; `None` for one that grows with the pixels of the picture.
    pub timeout: Option<Duration>,
    /// The number of attempts after the first.
    pub retries: u32,
}

/// The settings of a run's engine.
#[derive(Debug)]
pub(crate) struct Settings {
    /// What the workers do with pictures.
    pub purpose: Purpose,
    /// The number of worker processes.
    pub workers: usize,
    /// Capacity of the arena in bytes; `None` for the engine's default.
    pub capacity: Option<u64>,
    /// Private memory of a worker in bytes.
    pub memory_limit: u64,
    /// How workers are confined.
    pub sandbox: Sandbox,
    /// Whether the command line says how workers are confined.
    pub is_sandbox_requested: bool,
    /// The maximum number of attempts after the first for any picture.
    pub most_retries: u32,
    /// Whether messages of the engine are dropped while stderr is full. If not, printing waits until stderr is read.
    pub drops_messages: bool,
    /// File for the trace.
    pub trace: Option<PathBuf>,
    /// File for the report.
    pub report: Option<PathBuf>,
}

/// The reason why a job was not started.
#[derive(Debug)]
pub(crate) enum Refused {
    /// There is no room now, but there may be room when a running job has ended.
    Full(Fault),
    /// This input cannot be processed.
    Failed(Fault),
}

/// An engine whose workers make the results of pictures.
#[derive(Debug)]
pub(crate) struct Makers<'a> {
    engine: Engine,
    settings: &'a Settings,
    workers: usize,
    /// The limit on the bytes of files in flight: half of the arena, so that there is room for results. A single file
    /// may exceed it.
    budget: u64,
}

/// The engine of a run with a list of pictures, and its jobs.
#[derive(Debug)]
pub(crate) struct EnginePool<'a> {
    /// The jobs in flight. Declared before the engine, so that it is dropped first.
    jobs: AsCompleted<Reply>,
    /// For each job, the index of the picture and the length of its file.
    pictures: HashMap<usize, (usize, u64)>,
    /// The total length of the files of the jobs in flight.
    in_flight_bytes: u64,
    makers: Makers<'a>,
    make: &'a Make,
}

/// The encoded results, the width and height of each, the microseconds that they took, and a warning about the input
/// with the fraction of its pixels that is missing.
pub(crate) type Reply = (Vec<Array<u8>>, Vec<[u32; 2]>, u64, Option<(String, f64)>);

/// The kernel of `resize`. If several results have the same sides, returns only the first.
fn resize_file(
    file: &Array<u8>,
    spec: ResizeSpec,
    sizes: Vec<Size>,
) -> Result<Reply, Typed<PictureError>> {
    let start = Instant::now();
    let pictures = resize_encoded_sizes(file, &spec, &sizes).map_err(PictureError)?;
    let damage = pictures.first().and_then(|picture| picture.damage.clone());
    let mut files = Vec::with_capacity(pictures.len());
    let mut all_sides = Vec::with_capacity(pictures.len());
    for picture in pictures {
        let sides = [picture.width, picture.height];
        if !all_sides.contains(&sides) {
            all_sides.push(sides);
            files.push(Array::from_slice(&picture.bytes));
        }
    }
    let took = start.elapsed().as_micros() as u64;
    Ok((files, all_sides, took, damage.map(warning)))
}

/// The kernel of `check`. Returns the sides of the picture and an empty result.
fn check_file(file: &Array<u8>, spec: ResizeSpec) -> Result<Reply, Typed<PictureError>> {
    let start = Instant::now();
    let checked = check(file, &spec).map_err(PictureError)?;
    let sides = vec![[checked.width, checked.height]];
    let took = start.elapsed().as_micros() as u64;
    Ok((
        vec![Array::from_slice(&[])],
        sides,
        took,
        checked.damage.map(warning),
    ))
}

fn warning(damage: Damage) -> (String, f64) {
    let missing = damage.missing as f64 / damage.pixels.max(1) as f64;
    (damage.text, missing)
}

/// The error of a picture, in the terms of the command. Traces and reports show its text and its cause.
#[derive(Debug, PartialEq)]
struct PictureError(ImageError);

impl PictureError {
    /// Returns the word for [`Fault::cause`].
    fn cause(&self) -> &'static str {
        match self.0 {
            ImageError::Unsupported { .. } | ImageError::UnsupportedVariety { .. } => {
                "unsupported-format"
            }
            ImageError::NotAnImage => "not-an-image",
            ImageError::Truncated { .. } => "truncated",
            ImageError::Corrupt { .. } => "corrupt",
            ImageError::TooManyPixels { .. } | ImageError::TooManyFrames { .. } => {
                "too-many-pixels"
            }
            ImageError::TooManyBytes { .. } => "too-many-bytes",
            ImageError::Bomb { .. } => "bomb",
            ImageError::OutputTooLarge { .. } | ImageError::OutputTooManyPixels { .. } => {
                "output-too-large"
            }
            ImageError::OutOfMemory { .. } => "out-of-memory",
            ImageError::Encode { .. } => "encode",
            _ => "returned",
        }
    }

    /// Returns the sentence for [`Fault::text`]. Its advice names a flag of the command instead of a field of
    /// [`ResizeSpec`].
    fn text(&self) -> String {
        let advice = match self.0 {
            ImageError::TooManyPixels { .. } | ImageError::TooManyFrames { .. } => {
                "if you trust the file, raise --max-pixels"
            }
            ImageError::OutputTooManyPixels { .. } => {
                "ask for a smaller size, or raise --max-pixels"
            }
            ImageError::TooManyBytes { .. } => "if you trust the file, raise --memory-limit",
            ImageError::Bomb { .. } => "if you trust the file, raise --max-ratio",
            ImageError::OutOfMemory { .. } => "raise --memory-limit",
            _ => return self.0.to_string(),
        };
        format!("{:#}; {advice}", self.0)
    }
}

impl fmt::Display for PictureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.text(), self.cause())
    }
}

impl KernelError for PictureError {
    fn to_bytes(&self) -> Vec<u8> {
        self.0.to_bytes()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        ImageError::from_bytes(bytes).map(PictureError)
    }
}

/// Returns the failure for a picture whose kernel returned an error.
fn returned(error: &Returned) -> Fault {
    match error.value::<PictureError>() {
        Some(error) => Fault {
            proves_damage: error.0.proves_damage(),
            ..Fault::new(error.cause(), error.text())
        },
        None => Fault::new("returned", error.text()),
    }
}

impl<'a> Makers<'a> {
    /// Starts `workers` workers. In a sandbox they can decode HEIC only if `may_need_hevc` is set.
    ///
    /// # Errors
    ///
    /// A sentence that says what to do.
    pub(crate) fn start(
        settings: &'a Settings,
        workers: usize,
        may_need_hevc: bool,
    ) -> Result<Makers<'a>, String> {
        arenite::pin_socket_folder();
        let mut builder = Engine::builder()
            .workers(workers)
            .memory_limit(settings.memory_limit)
            // All retries must happen, even if the engine would otherwise quarantine the job sooner.
            .quarantine_after(settings.most_retries.saturating_add(1).max(5))
            .sandbox(settings.sandbox)
            .label(settings.purpose.name());
        if may_need_hevc && settings.sandbox != Sandbox::Off {
            // Loads the decoder of HEIC before the sandbox is closed. Without a sandbox, the first picture that needs
            // the decoder loads it. If the system has no decoder, such pictures fail.
            builder = builder.on_worker_start(|| drop(arenite_image::heic_decoder()));
        }
        let messages = match settings.drops_messages {
            true => Some(Messages::print()?),
            false => None,
        };
        let failed_allocations = FailedAllocations::default();
        builder = builder.on_log(move |line| match &messages {
            // Not printed: messages of decoders about a picture are also in the picture's error or warning.
            _ if line.source == LogSource::Event || failed_allocations.have(line) => {}
            Some(messages) => messages.print_or_drop(line.to_string()),
            None => print_aside(&line.to_string()),
        });
        if let Some(capacity) = settings.capacity {
            builder = builder.capacity(capacity);
        }
        let trace = match (&settings.trace, &settings.report) {
            (Some(events), Some(page)) => Some(Trace::to(events).report(page)),
            (Some(events), None) => Some(Trace::to(events)),
            (None, Some(page)) => Some(Trace::only_report(page)),
            (None, None) => None,
        };
        if let Some(trace) = trace {
            builder = builder.trace(trace);
        }
        let engine = builder.build().map_err(|error| match error {
            BuildError::Trace(error) => settings.trace_failed(&error),
            error => with_fewer_workers(error.to_string(), workers),
        })?;
        let budget = engine.stats().arena.capacity / 2;
        Ok(Makers {
            engine,
            settings,
            workers,
            budget,
        })
    }

    /// Returns the number of jobs that keeps the workers busy while files are read and results are written.
    pub(crate) fn depth(&self) -> usize {
        self.workers * PER_WORKER
    }

    /// Returns the limit on the bytes of files in flight. A single file may exceed it.
    pub(crate) fn budget(&self) -> u64 {
        self.budget
    }

    /// Reads the file and starts its job. Returns the job and the length of the file.
    pub(crate) fn submit(
        &self,
        path: &Path,
        format: Format,
        make: &Make,
    ) -> Result<(Job<Reply>, u64), Refused> {
        let file = self.engine.read_file(path).map_err(refused)?;
        let len = file.len() as u64;
        let options = JobOptions::new().label(path.to_string_lossy());
        let limit = make
            .timeout
            .unwrap_or_else(|| patience(&file, format, make));
        let options = options.deadline(limit).retries(make.retries);
        let job = match self.settings.purpose {
            Purpose::Resize => {
                // Writes the format of the planned name, even if the input has changed since.
                let output = Output::try_from(format)
                    .map_err(|error| Refused::Failed(Fault::new("returned", error.to_string())))?;
                let spec = ResizeSpec {
                    output,
                    ..make.spec
                };
                let job = self.engine.job(resize_file, (file, spec, &make.sizes));
                job.options(&options).submit()
            }
            Purpose::Check => {
                let job = self.engine.job(check_file, (file, make.spec));
                job.options(&options).submit()
            }
        };
        Ok((job, len))
    }

    fn write_trace(&self) -> Result<(), String> {
        let written = self.engine.write_trace();
        written
            .map(drop)
            .map_err(|error| self.settings.trace_failed(&error))
    }

    /// Returns how the workers are confined.
    pub(crate) fn confinement(&self) -> Confinement {
        let report = self.engine.sandbox_report();
        Confinement {
            sandbox: if report.is_some() { "on" } else { "off" },
            not_enforced: report.map_or_else(Vec::new, |report| report.lacking()),
            is_requested: self.settings.is_sandbox_requested,
        }
    }
}

impl<'a> EnginePool<'a> {
    fn start(
        settings: &'a Settings,
        make: &'a Make,
        workers: usize,
        may_need_hevc: bool,
    ) -> Result<EnginePool<'a>, String> {
        Ok(EnginePool {
            jobs: as_completed([]),
            pictures: HashMap::new(),
            in_flight_bytes: 0,
            makers: Makers::start(settings, workers, may_need_hevc)?,
            make,
        })
    }

    /// Completes the files of `--trace` and `--report`.
    ///
    /// # Errors
    ///
    /// A sentence that names the file.
    pub(crate) fn write_trace(&self) -> Result<(), String> {
        self.makers.write_trace()
    }

    /// Returns how the workers are confined.
    pub(crate) fn confinement(&self) -> Confinement {
        self.makers.confinement()
    }
}

impl Settings {
    fn trace_failed(&self, error: &TraceError) -> String {
        let what = match self.report.as_ref() == Some(&error.path) {
            true => "report",
            false => "trace",
        };
        let file = show_path(&error.path);
        let why = reason(&error.error);
        format!("cannot write the {what} to {file}: {why}")
    }
}

/// A pool that may start while the search for inputs is still running: starting workers takes as long as finding
/// several hundred files.
pub(crate) struct Early<'scope> {
    settings: &'scope Settings,
    make: &'scope Make,
    started: Option<ScopedJoinHandle<'scope, Result<EnginePool<'scope>, String>>>,
}

impl<'scope> Early<'scope> {
    /// If `now` is true, starts the pool on a thread. Otherwise [`or_start`](Early::or_start) starts the pool.
    pub(crate) fn begin<'env: 'scope>(
        settings: &'env Settings,
        make: &'env Make,
        now: bool,
        threads: &'scope Scope<'scope, 'env>,
    ) -> Early<'scope> {
        let start = move || EnginePool::start(settings, make, settings.workers, true);
        let thread = std::thread::Builder::new().name("start".into());
        // If no thread can be started, the pool starts later.
        let started = now.then(|| thread.spawn_scoped(threads, start).ok());
        Early {
            settings,
            make,
            started: started.flatten(),
        }
    }

    /// Returns the pool if it was started early. Otherwise starts a pool for these items, with at most one worker for
    /// each picture.
    ///
    /// # Errors
    ///
    /// A sentence that says what to do.
    pub(crate) fn or_start(self, items: &[Item]) -> Result<EnginePool<'scope>, String> {
        match self.started {
            Some(started) => started
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            None => {
                let ready = || items.iter().filter_map(Item::ready);
                let workers = self.settings.workers.min(ready().count());
                // AVIF has the same container as HEIC.
                let may_need_hevc =
                    ready().any(|task| matches!(task.source, Format::Heic | Format::Avif));
                EnginePool::start(self.settings, self.make, workers, may_need_hevc)
            }
        }
    }
}

/// Adds advice to an error about too few descriptors: fewer workers need fewer descriptors.
fn with_fewer_workers(mut error: String, workers: usize) -> String {
    if workers > 1 && error.ends_with("`ulimit -n`)") {
        error.push_str(", or use fewer workers, such as -j 1");
    }
    error
}

impl EnginePool<'_> {
    /// Runs the jobs of `feed`, at most [`depth`](Makers::depth) at a time, and passes each result to `done` as soon as
    /// it is ready, so that a slow picture does not delay others. Begins no more jobs once `feed` has ended or
    /// `may_begin` has returned `false`, and ends when all jobs in flight have ended. If `done` returns `Break`, this
    /// ends at once, and leaves the jobs in flight in the pool.
    pub(crate) fn run<'t>(
        &mut self,
        mut feed: impl Iterator<Item = (usize, &'t Path, &'t Task)>,
        may_begin: impl Fn() -> bool,
        mut done: impl FnMut(usize, Result<Made<Array<u8>>, Fault>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let mut waiting = None;
        loop {
            while self.pictures.len() < self.makers.depth() && may_begin() {
                let Some((index, path, task)) = waiting.take().or_else(|| feed.next()) else {
                    break;
                };
                match self.begin(index, path, task) {
                    Ok(()) => {}
                    Err(Refused::Full(_)) if !self.pictures.is_empty() => {
                        waiting = Some((index, path, task));
                        break;
                    }
                    Err(Refused::Full(fault) | Refused::Failed(fault)) => done(index, Err(fault))?,
                }
            }
            let Some((job, result)) = self.jobs.next() else {
                return ControlFlow::Continue(());
            };
            let picture = self.pictures.remove(&job);
            let (index, len) = picture.expect("each job was noted when it was started");
            self.in_flight_bytes -= len;
            done(index, made(result, self.make))?;
        }
    }

    /// Reads the file and starts its job, for the item with this index.
    fn begin(&mut self, index: usize, path: &Path, task: &Task) -> Result<(), Refused> {
        let budget = self.makers.budget;
        if self.in_flight_bytes > 0 && self.in_flight_bytes + task.stamp.len > budget {
            let text = format!(
                "{} do not fit next to the files being processed",
                show_bytes(task.stamp.len)
            );
            return Err(Refused::Full(Fault::new("arena-full", text)));
        }
        let (job, len) = self.makers.submit(path, task.format, self.make)?;
        let job = self.jobs.push(job);
        self.pictures.insert(job, (index, len));
        self.in_flight_bytes += len;
        Ok(())
    }
}

/// Converts the result of a job. A decoder may have been taken over, so a number of results that was not asked for is a
/// failure.
pub(crate) fn made(result: Result<Reply, JobError>, make: &Make) -> Result<Made<Array<u8>>, Fault> {
    let (files, sides, micros, warning) = result.map_err(|error| fault(&error))?;
    let most = make.sizes.len().max(1);
    let is_new = |(at, one): (usize, &[u32; 2])| !sides[..at].contains(one);
    if files.len() != sides.len()
        || !(1..=most).contains(&files.len())
        || !sides.iter().enumerate().all(is_new)
    {
        let text = format!(
            "its worker returned {} pictures of {} sizes, {most} were asked for",
            files.len(),
            sides.len()
        );
        return Err(Fault::new("protocol", text));
    }
    let results = files.into_iter().zip(sides);
    Ok(Made {
        results: results
            .map(|(bytes, sides)| Encoded { bytes, sides })
            .collect(),
        took: Duration::from_micros(micros),
        warning: warning.map(|(text, missing)| Warning { text, missing }),
    })
}

/// Returns the deadline of an attempt without `--timeout`. It ends decoders that hang, and no honest picture on a slow
/// and busy machine: a decoder takes tenths of a second per megapixel, and the encoder of AVIF three seconds.
fn patience(file: &[u8], format: Format, make: &Make) -> Duration {
    const AT_LEAST: u64 = 60;
    const PER_MEGAPIXEL: u64 = 10;
    const PER_WRITTEN_MEGAPIXEL: u64 = 60;
    const MEGAPIXEL: u64 = 1_000_000;
    let most = make.spec.max_pixels;
    let (sides, frames) = match announced(file) {
        Some(found) => ((found.width, found.height), u64::from(found.frames)),
        None => ([most.isqrt() as u32; 2].into(), 1),
    };
    let area = |(width, height): (u32, u32)| u64::from(width) * u64::from(height);
    let moves = matches!(format, Format::Gif | Format::WebP | Format::Png);
    let frames_written = if moves && !make.spec.first_frame {
        frames
    } else {
        1
    };
    let written = make.sizes.iter().map(|&size| {
        let spec = ResizeSpec { size, ..make.spec };
        let plan = spec.plan(sides.0, sides.1, format);
        plan.map_or(0, |plan| area(plan.output()))
    });
    // More is refused.
    let within = |pixels: u64, frames: u64| {
        let most = most.saturating_mul(ResizeSpec::MAX_FRAMES);
        pixels.saturating_mul(frames).min(most)
    };
    let read = within(area(sides), frames).saturating_mul(PER_MEGAPIXEL);
    let written = within(written.sum(), frames_written).saturating_mul(PER_WRITTEN_MEGAPIXEL);
    Duration::from_secs(AT_LEAST + read.saturating_add(written) / MEGAPIXEL)
}

/// Returns the refusal for a file that could not be read into the arena.
fn refused(error: InputError) -> Refused {
    match error {
        InputError::Io { path, error } => Refused::Failed(Fault::read(&path, &error)),
        InputError::ArenaFull(full) => Refused::Full(no_room(&full)),
        other => Refused::Failed(Fault::new("read", other.to_string())),
    }
}

fn no_room(full: &ArenaFull) -> Fault {
    let text = format!(
        "no room in shared memory: {} needed, {} free of {}; raise --capacity, or lower --workers",
        show_bytes(full.requested),
        show_bytes(full.free),
        show_bytes(full.capacity)
    );
    Fault::new("arena-full", text)
}

/// Converts the error of a job: to a word for programs, and the engine's sentence without the number of the job.
fn fault(error: &JobError) -> Fault {
    // If a job was quarantined, the cause is that of its last attempt.
    let kind = match error.kind() {
        JobErrorKind::Limit(JobLimit::Quarantined { .. }) => error
            .deaths()
            .last()
            .map_or(error.kind(), |death| &death.kind),
        kind => kind,
    };
    let mut fault = match kind {
        JobErrorKind::Returned(error) => returned(error),
        JobErrorKind::Limit(JobLimit::Arena(full)) => no_room(full),
        kind => Fault {
            cause: cause(kind),
            ..Fault::new("other", sentence(kind))
        },
    };
    // The crash is also that of the last attempt.
    let crash = error
        .crash()
        .or_else(|| error.deaths().last()?.crash.as_ref());
    if let (JobErrorKind::Lost(WorkerExit::Signal(_)), Some(crash)) = (kind, crash) {
        fault.text = one_line(&format!("its worker was ended by {crash}"));
        fault.crash = Some(Box::new(crash.clone()));
    }
    // At the memory limit, the worker's last output only repeats the engine's sentence.
    let at_limit = matches!(kind, JobErrorKind::Limit(JobLimit::Memory { .. }));
    if !at_limit && let Some(last) = error.telling_words() {
        fault.text.push_str("; its worker's last words: ");
        fault.text.push_str(&one_line(last));
    }
    fault.attempts = error.worker().map(|_| error.attempt());
    if error.attempt() > 1 {
        fault
            .text
            .push_str(&format!(" ({} attempts)", error.attempt()));
    }
    fault
}

/// Returns the engine's sentence, with advice that names the flag to change, if there is one.
fn sentence(kind: &JobErrorKind) -> String {
    match kind {
        JobErrorKind::Limit(JobLimit::Memory {
            limit, requested, ..
        }) => {
            let asked = requested.map_or_else(|| "more".to_owned(), show_bytes);
            format!(
                "its worker could not allocate {asked} within its memory limit of {}; raise --memory-limit",
                show_bytes(*limit)
            )
        }
        JobErrorKind::Limit(JobLimit::Deadline { .. }) => format!("{kind}; raise --timeout"),
        kind => kind.to_string(),
    }
}

fn cause(kind: &JobErrorKind) -> Cow<'static, str> {
    match kind {
        JobErrorKind::Panicked { .. } => "panicked".into(),
        JobErrorKind::Lost(WorkerExit::Signal(number)) => format!("signal-{number}").into(),
        JobErrorKind::Lost(WorkerExit::Code(Some(code))) => format!("exited-{code}").into(),
        JobErrorKind::Limit(JobLimit::Deadline { .. }) => "timeout".into(),
        JobErrorKind::Limit(JobLimit::Memory { .. }) => "memory-limit".into(),
        JobErrorKind::Lost(WorkerExit::OutOfMemoryKill) => "out-of-memory-kill".into(),
        JobErrorKind::Lost(WorkerExit::Denied { .. }) => "denied".into(),
        JobErrorKind::Lost(WorkerExit::OtherJob { cause: culprit, .. }) => cause(culprit),
        JobErrorKind::Lost(WorkerExit::Protocol(_)) => "protocol".into(),
        JobErrorKind::NoWorkers(_) => "no-workers".into(),
        _ => "other".into(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_a_picture_reaches_the_command_with_its_cause() {
        let engine = Engine::inline();
        let file = engine.from_slice(b"no picture").unwrap();
        let spec = ResizeSpec::new("8x8".parse().unwrap());
        let error = engine
            .submit(resize_file, (&file, spec, &[spec.size][..]))
            .wait()
            .unwrap_err();
        let expected = ImageError::NotAnImage;
        assert_eq!(
            fault(&error),
            Fault::damage("not-an-image", expected.to_string())
        );
    }

    #[test]
    fn only_results_that_were_asked_for_are_accepted() {
        let mut make = Make {
            spec: ResizeSpec::new("8x8".parse().unwrap()),
            sizes: ["8x8", "9x9"].map(|size| size.parse().unwrap()).to_vec(),
            timeout: None,
            retries: 0,
        };
        let file = || Array::from_slice(&[1_u8]);
        let accepted = |make: &Make, files: usize, sides: &[[u32; 2]]| {
            let files = (0..files).map(|_| file()).collect();
            let made = made(Ok((files, sides.to_vec(), 1, None)), make);
            made.map(|made| made.results.len())
                .map_err(|fault| fault.cause)
        };
        assert_eq!(accepted(&make, 1, &[[8, 8]]), Ok(1));
        assert_eq!(accepted(&make, 2, &[[8, 8], [9, 9]]), Ok(2));
        for (files, sides) in [
            (0, &[][..]),
            (1, &[]),
            (0, &[[8, 8]]),
            (1, &[[8, 8], [9, 9]]),
            (2, &[[8, 8], [8, 8]]),
            (3, &[[8, 8], [9, 9], [10, 10]]),
        ] {
            assert_eq!(
                accepted(&make, files, sides),
                Err("protocol".into()),
                "{files} {sides:?}"
            );
        }
        make.sizes.clear();
        assert_eq!(accepted(&make, 1, &[[8, 8]]), Ok(1));
        assert_eq!(accepted(&make, 0, &[]), Err("protocol".into()));
    }

    /// The figures are those of `--help`.
    #[test]
    fn the_deadline_grows_with_the_pixels_that_are_read_and_written() {
        let seconds = |file: &[u8], format, sizes: &[&str]| {
            let make = Make {
                spec: ResizeSpec::full_size(),
                sizes: sizes.iter().map(|size| size.parse().unwrap()).collect(),
                timeout: None,
                retries: 0,
            };
            patience(file, format, &make).as_secs()
        };
        let bmp = |width: u32, height: u32| {
            let mut header = vec![0; 54];
            header[..2].copy_from_slice(b"BM");
            header[14] = 40;
            header[18..22].copy_from_slice(&width.to_le_bytes());
            header[22..26].copy_from_slice(&height.to_le_bytes());
            (header[26], header[28]) = (1, 24);
            header
        };
        assert_eq!(seconds(&bmp(80, 60), Format::Jpeg, &["224"]), 60 + 2);
        assert_eq!(seconds(&bmp(4000, 3000), Format::Jpeg, &[]), 60 + 120);
        let sizes = ["1000x1000!", "2000x1000!"];
        assert_eq!(
            seconds(&bmp(4000, 3000), Format::Avif, &sizes),
            60 + 120 + 180
        );
        // Of an animation, all frames count; of an enlarged picture, its result.
        let frame = b",\0\0\0\0\x01\0\x01\0\0\x02\x02\x4c\x01\0";
        let mut gif = b"GIF89a\xe8\x03\xe8\x03\0\0\0".to_vec();
        gif.extend(frame.repeat(100));
        assert_eq!(seconds(&gif, Format::Gif, &["1000x1000"]), 60 + 1000 + 6000);
        assert_eq!(seconds(&gif, Format::Jpeg, &["1000x1000"]), 60 + 1000 + 60);
        assert_eq!(seconds(&bmp(10, 10), Format::Png, &["4000x4000"]), 60 + 960);
        // Files without a known header count as the largest picture.
        assert_eq!(seconds(b"unknown", Format::Png, &["224"]), 60 + 4003);
    }

    #[test]
    fn advice_names_flags_of_the_command() {
        let error = PictureError(ImageError::TooManyPixels {
            width: 9,
            height: 9,
            limit: 5,
        });
        let text = error.text();
        assert!(text.ends_with(" raise --max-pixels"), "{text}");
        assert_eq!(error.to_string(), format!("{text} [too-many-pixels]"));
    }
}
