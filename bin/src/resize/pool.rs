//! The engine at work: file bytes go into the arena, a worker decodes, resizes and encodes, the encoded bytes come back.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use arenite::engine::{AsCompleted, Death, TraceError};
use arenite_image::{ImageError, Output, ResizeSpec, resize_encoded};
use arenite::{
    ArenaFull, Array, BuildError, Engine, InputError, JobError, JobErrorKind, Sandbox, Trace,
    as_completed,
};

use super::args::{LockDown, ResizeArgs};
use super::fault::{Fault, one_line, reason};
use super::plan::Task;
use super::report::show;
use super::runner::{Ended, Made, Pool, Refused};
use crate::units::show_bytes;

/// Jobs under way per worker: one runs, one waits beside it. A third made small pictures 1 % quicker and photos 2 % slower, whose
/// bytes were out of the caches by the time a worker read them.
const PER_WORKER: usize = 2;

/// An engine whose workers make pictures.
#[derive(Debug)]
pub(crate) struct EnginePool {
    /// What is under way. In front of the engine, which ends after it.
    jobs: AsCompleted<(Array<u8>, u64)>,
    /// The number of each one's picture and the bytes of its file, by the number of its job.
    pictures: HashMap<usize, (usize, u64)>,
    /// The bytes of all of them.
    under_way: u64,
    engine: Engine,
    spec: ResizeSpec,
    workers: usize,
    timeout: Option<Duration>,
    retries: u32,
    /// Most bytes of files under way at once: half of the arena, so that there is room for results. One file alone
    /// may take more.
    budget: u64,
}

/// The kernel: an encoded picture in, an encoded picture and the microseconds it took out.
fn resize_file(file: &Array<u8>, spec: ResizeSpec) -> Result<(Array<u8>, u64), Told> {
    let start = Instant::now();
    let picture = resize_encoded(file, &spec).map_err(Told)?;
    let bytes = Array::from_slice(&picture.bytes);
    Ok((bytes, start.elapsed().as_micros() as u64))
}

/// Only text crosses from a kernel that fails: the word for programs goes behind the sentence for people, in brackets. Traces and
/// reports show both.
#[derive(Debug)]
struct Told(ImageError);

/// What a kernel can say about a picture, in a word.
const CAUSES: [&str; 11] = [
    "unsupported-format",
    "not-an-image",
    "truncated",
    "corrupt",
    "too-many-pixels",
    "too-many-bytes",
    "bomb",
    "output-too-large",
    "out-of-memory",
    "encode",
    OTHER,
];
/// The word for what has none of its own.
const OTHER: &str = "returned";

fn cause_of(error: &ImageError) -> &'static str {
    match error {
        ImageError::Unsupported { .. } | ImageError::UnsupportedVariety { .. } => {
            "unsupported-format"
        }
        ImageError::NotAnImage => "not-an-image",
        ImageError::Truncated { .. } => "truncated",
        ImageError::Corrupt { .. } => "corrupt",
        ImageError::TooManyPixels { .. } => "too-many-pixels",
        ImageError::TooManyBytes { .. } => "too-many-bytes",
        ImageError::Bomb { .. } => "bomb",
        ImageError::OutputTooLarge { .. } | ImageError::OutputTooManyPixels { .. } => {
            "output-too-large"
        }
        ImageError::OutOfMemory { .. } => "out-of-memory",
        ImageError::Encode { .. } => "encode",
        _ => OTHER,
    }
}

/// Advice of the library names the fields of a request; here they are flags.
fn in_flags(error: &ImageError) -> String {
    let text = error.to_string();
    let text = text.replace("give more memory", "raise --memory-limit");
    let text = text.replace("max_pixels", "--max-pixels");
    let text = text.replace("max_ratio", "--max-ratio");
    text.replace("max_bytes", "--memory-limit")
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cause = cause_of(&self.0);
        debug_assert!(CAUSES.contains(&cause), "{cause} is not in the list");
        write!(f, "{} [{cause}]", in_flags(&self.0))
    }
}

/// The other end of [`Told`].
fn returned(text: &str) -> Fault {
    // Back to the constant: what comes from a worker is no name for anything.
    let told = text.strip_suffix(']').and_then(|text| {
        let (text, cause) = text.rsplit_once(" [")?;
        let cause = CAUSES.into_iter().find(|known| *known == cause)?;
        Some((cause, text))
    });
    let (cause, text) = told.unwrap_or((OTHER, text));
    Fault::new(cause, text)
}

impl EnginePool {
    /// Starts so many workers.
    ///
    /// # Errors
    ///
    /// A sentence that says what to do.
    fn start(args: &ResizeArgs, spec: ResizeSpec, workers: usize) -> Result<EnginePool, String> {
        let mut builder = Engine::builder()
            .workers(workers)
            .memory_limit(args.memory_limit)
            // What was asked for is tried, also where the engine would give up sooner.
            .quarantine_after(args.retries.saturating_add(1).max(5))
            .label("resize")
            .on_log(|line| super::progress::print_aside(&line.to_string()));
        if let Some(capacity) = args.capacity {
            builder = builder.capacity(capacity);
        }
        builder = builder.sandbox(match args.sandbox {
            None => Sandbox::Off,
            Some(LockDown::Available) => Sandbox::Strict,
            Some(LockDown::Require) => Sandbox::Required,
        });
        let trace = match (&args.trace, &args.report) {
            (Some(events), Some(page)) => Some(Trace::to(events).report(page)),
            (Some(events), None) => Some(Trace::to(events)),
            (None, Some(page)) => Some(Trace::only_report(page)),
            (None, None) => None,
        };
        if let Some(trace) = trace {
            builder = builder.trace(trace);
        }
        let engine = builder.build().map_err(|error| match error {
            BuildError::Trace(error) => no_trace(args, &error),
            error => with_fewer_workers(error.to_string(), workers),
        })?;
        let budget = engine.stats().arena.capacity / 2;
        Ok(EnginePool {
            jobs: as_completed([]),
            pictures: HashMap::new(),
            under_way: 0,
            engine,
            spec,
            workers,
            timeout: args.timeout,
            retries: args.retries,
            budget,
        })
    }
}

/// A pool that starts while its pictures are still being looked for, where that is known to be worth it: workers take as long to load
/// as the names of some hundred files.
pub(crate) struct Early<'scope> {
    args: &'scope ResizeArgs,
    spec: ResizeSpec,
    /// Workers that were asked for, or one for each core.
    workers: Result<usize, String>,
    started: Option<ScopedJoinHandle<'scope, Result<EnginePool, String>>>,
}

impl<'scope> Early<'scope> {
    /// Starts it, if there is work for all of its workers by all that can be told in advance, and nothing to be decided before.
    pub(crate) fn begin<'env: 'scope>(
        args: &'env ResizeArgs,
        spec: ResizeSpec,
        threads: &'scope Scope<'scope, 'env>,
    ) -> Early<'scope> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let asked = args.workers_asked();
        let workers = asked.map(|asked| asked.map_or(cores, usize::from));
        // Files beside the results may be in the way of an input; and perhaps nothing is to be done at all.
        let is_settled = !args.dry_run && !args.resume && args.written().next().is_none();
        let has_much = |workers: usize| {
            args.inputs.len() >= workers
                || args.inputs.iter().any(|input| Path::new(input).is_dir())
        };
        let started = match workers {
            Ok(workers) if is_settled && workers <= cores && has_much(workers) => {
                let start = move || EnginePool::start(args, spec, workers);
                let named = std::thread::Builder::new().name("start".into());
                // Without a thread for it, it starts in its turn.
                named.spawn_scoped(threads, start).ok()
            }
            _ => None,
        };
        Early {
            args,
            spec,
            workers,
            started,
        }
    }

    /// The pool, or one that is started now, with no more workers than there are pictures.
    ///
    /// # Errors
    ///
    /// A sentence that says what to do.
    pub(crate) fn or_start(self, pictures: usize) -> Result<EnginePool, String> {
        match self.started {
            Some(started) => started
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            None => EnginePool::start(self.args, self.spec, self.workers?.min(pictures)),
        }
    }
}

/// What can be done about too few descriptors without a right to more of them.
fn with_fewer_workers(mut error: String, workers: usize) -> String {
    if workers > 1 && error.ends_with("`ulimit -n`)") {
        error.push_str(", or use fewer workers, such as -j 1");
    }
    error
}

/// Completes the files of `--trace` and `--report`.
///
/// # Errors
///
/// A sentence that names the file.
pub(crate) fn write_trace(args: &ResizeArgs, pool: &EnginePool) -> Result<(), String> {
    let written = pool.engine.write_trace();
    written.map(drop).map_err(|error| no_trace(args, &error))
}

fn no_trace(args: &ResizeArgs, error: &TraceError) -> String {
    let what = if args.report.as_ref() == Some(&error.path) {
        "report"
    } else {
        "trace"
    };
    let file = show(&error.path);
    format!(
        "cannot write the {what} to {file}: {}",
        reason(&error.error)
    )
}

/// What the running kernel lacks of the sandbox that was asked for, a sentence each.
pub(crate) fn lacking(engine: &EnginePool) -> Vec<&'static str> {
    let report = engine.engine.sandbox_report();
    report.map_or_else(Vec::new, |report| report.lacking())
}

impl Pool for EnginePool {
    type Bytes = Array<u8>;

    fn depth(&self) -> usize {
        self.workers * PER_WORKER
    }

    fn start(&mut self, index: usize, path: &Path, task: &Task) -> Result<(), Refused> {
        if self.under_way > 0 && self.under_way + task.stamp.len > self.budget {
            let text = format!(
                "{} do not fit beside what is under way",
                show_bytes(task.stamp.len)
            );
            return Err(Refused::Full(Fault::new("arena-full", text)));
        }
        let file = self.engine.read_file(path).map_err(refused)?;
        let len = file.len() as u64;
        // The name is already fixed: the format is what it was named for, whatever the file turns into meanwhile.
        let output = Output::try_from(task.format)
            .map_err(|error| Refused::Failed(Fault::new("returned", error.to_string())))?;
        let spec = ResizeSpec {
            output,
            ..self.spec
        };
        let mut job = self
            .engine
            .job(resize_file, (file, spec))
            .label(path.to_string_lossy());
        if let Some(limit) = self.timeout {
            job = job.deadline(limit);
        }
        let job = self.jobs.push(job.retries(self.retries).submit());
        self.pictures.insert(job, (index, len));
        self.under_way += len;
        Ok(())
    }

    fn finish(&mut self) -> Option<Ended<Array<u8>>> {
        let (job, result) = self.jobs.next()?;
        let picture = self.pictures.remove(&job);
        let (index, len) = picture.expect("each job was noted when it was started");
        self.under_way -= len;
        let made = match result {
            Ok((bytes, micros)) => Ok(Made {
                bytes,
                took: Duration::from_micros(micros),
            }),
            Err(error) => Err(fault(&error)),
        };
        Some((index, made))
    }
}

/// A file that did not get into the arena.
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

/// The word for programs, and the engine's sentence without the job's number: the file is named already.
fn fault(error: &JobError) -> Fault {
    // A job that is given up says how it ended each time.
    let kind = match error.kind() {
        JobErrorKind::Quarantined { .. } => error.deaths().last().map_or(error.kind(), Death::kind),
        kind => kind,
    };
    let mut fault = match kind {
        JobErrorKind::Returned(text) => returned(text),
        JobErrorKind::ArenaFull(full) => no_room(full),
        kind => Fault {
            cause: cause(kind),
            ..Fault::new("other", words(kind))
        },
    };
    // What it says then is what the sentence says.
    let at_limit = matches!(kind, JobErrorKind::MemoryLimit { .. });
    if !at_limit && let Some(last) = error.last_words().last() {
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

/// The engine's sentence; where there is something to do, with the flag.
fn words(kind: &JobErrorKind) -> String {
    match kind {
        JobErrorKind::MemoryLimit { limit, requested } => {
            let asked = requested.map_or_else(|| "more".to_owned(), show_bytes);
            format!(
                "its worker could not allocate {asked} within its memory limit of {}; raise --memory-limit",
                show_bytes(*limit)
            )
        }
        JobErrorKind::DeadlineExceeded { .. } => format!("{kind}; raise --timeout"),
        kind => kind.to_string(),
    }
}

fn cause(kind: &JobErrorKind) -> Cow<'static, str> {
    match kind {
        JobErrorKind::Panicked { .. } => "panicked".into(),
        JobErrorKind::Signal(number) => format!("signal-{number}").into(),
        JobErrorKind::Exited(Some(code)) => format!("exited-{code}").into(),
        JobErrorKind::DeadlineExceeded { .. } => "timeout".into(),
        JobErrorKind::MemoryLimit { .. } => "memory-limit".into(),
        JobErrorKind::OutOfMemoryKill => "out-of-memory-kill".into(),
        JobErrorKind::Denied { .. } => "denied".into(),
        JobErrorKind::LostWith { culprit, .. } => cause(culprit),
        JobErrorKind::Protocol(_) => "protocol".into(),
        JobErrorKind::NoWorkers(_) => "no-workers".into(),
        _ => "other".into(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn an_error_keeps_its_cause_on_the_way() {
        let error = ImageError::TooManyPixels {
            width: 9,
            height: 9,
            limit: 5,
        };
        let fault = returned(&Told(error.clone()).to_string());
        // The library names a field of its request where the command has a flag.
        let text = error.to_string();
        assert!(text.ends_with(" max_pixels"), "{text}");
        let text = text.replace("max_pixels", "--max-pixels");
        assert_eq!(fault, Fault::new("too-many-pixels", text));
        assert_eq!(returned("plain").cause, "returned");
        for made_up in ["made up [text]", "made up [", "[corrupt]"] {
            assert_eq!(returned(made_up), Fault::new("returned", made_up));
        }
    }

    #[test]
    fn the_kernel_is_a_plain_function() {
        let spec = ResizeSpec::new("8x8".parse().unwrap());
        let text = resize_file(&Array::from_slice(b"no picture"), spec)
            .unwrap_err()
            .to_string();
        assert_eq!(returned(&text).cause, "not-an-image");
    }
}
