//! The cases: the work to measure, the systems, the unit, and the goals of the engine.
//!
//! A [`Case`] is only a description: nothing is started before [`Entry::start`]. The runner (the program
//! `arenite-bench`, or Criterion) starts all systems of a case and then samples them in turns.

mod actor;
mod arrays;
mod busy;
mod graphs;
mod handover;
mod idle;
mod lanes;
mod maps;
mod memory;
mod mixed;
mod noop;
mod numbers;
mod ours;
mod protection;
mod resize;
mod service;
mod start;
mod streams;
mod trace;

use std::cell::OnceCell;
use std::fmt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use crate::{BenchError, linux};

/// Settings of a run.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Whether to do less work per sample, and to leave out copies of 1 GiB.
    pub quick: bool,
    /// Worker processes and pool threads of every system that has workers.
    pub workers: usize,
    /// Path of the `arenite` program, for the cases that measure its command `resize`.
    pub command: Option<PathBuf>,
}

/// One sample of a system.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Reading {
    /// The time of all operations together.
    Total(Duration),
    /// The time of each operation, without the pauses between them.
    Each(Vec<Duration>),
    /// A figure that is not a time, in the unit of the case.
    Amount(f64),
    /// The reading of a program that has processed files.
    Files {
        /// The time from the start of the program to its end.
        total: Duration,
        /// The number of bytes in the files that the program has written.
        written: u64,
        /// The peak memory of the program and its children, in bytes.
        peak: u64,
    },
}

impl Reading {
    /// Returns the time of all operations together; `None` for a figure that is not a time.
    #[must_use]
    pub fn total(&self) -> Option<Duration> {
        match self {
            Self::Total(total) | Self::Files { total, .. } => Some(*total),
            Self::Each(each) => Some(each.iter().sum()),
            Self::Amount(_) => None,
        }
    }
}

/// One way to do the work of a case, ready to be sampled.
pub trait System {
    /// Runs the operation `times` times, one after the other.
    ///
    /// # Errors
    /// If the system cannot be measured. The run continues without it.
    fn run(&mut self, times: u64) -> Result<Reading, BenchError>;
}

impl<F: FnMut(u64) -> Result<Reading, BenchError>> System for F {
    fn run(&mut self, times: u64) -> Result<Reading, BenchError> {
        self(times)
    }
}

/// A system that is running.
pub type Running = Box<dyn System>;

/// Starts a system.
type Start = dyn Fn(&Setup) -> Result<Running, BenchError>;

/// The id of a system, and how to start it.
pub struct Entry {
    /// The id of the system in every output: `arenite`, `rayon`, `unix-socket` …
    pub id: &'static str,
    start: Box<Start>,
}

impl Entry {
    fn new<F>(id: &'static str, start: F) -> Self
    where
        F: Fn(&Setup) -> Result<Running, BenchError> + 'static,
    {
        Self {
            id,
            start: Box::new(start),
        }
    }

    /// Starts the processes or threads of the system, and prepares its data.
    ///
    /// # Errors
    /// [`BenchError::Missing`] if this machine lacks something that the system needs; any other error if the system
    /// failed.
    pub fn start(&self, setup: &Setup) -> Result<Running, BenchError> {
        (self.start)(setup)
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Entry").field(&self.id).finish()
    }
}

/// The unit of the figures of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Microseconds per operation.
    Microseconds,
    /// Milliseconds per operation.
    Milliseconds,
    /// Jobs per second; an operation is this many jobs.
    JobsPerSecond(u64),
    /// Images per second; an operation is this many images.
    ImagesPerSecond(u64),
    /// Nanoseconds per job; an operation is this many jobs.
    NanosecondsPerJob(u64),
    /// Milliseconds of processor time.
    CpuMilliseconds,
    /// Megabytes (1,000,000 bytes).
    Megabytes,
}

impl Unit {
    /// Returns the id of the unit in every output.
    #[must_use]
    pub fn id(self) -> &'static str {
        match self {
            Self::Microseconds => "us",
            Self::Milliseconds => "ms",
            Self::JobsPerSecond(_) => "jobs/s",
            Self::ImagesPerSecond(_) => "images/s",
            Self::NanosecondsPerJob(_) => "ns/job",
            Self::CpuMilliseconds => "cpu-ms",
            Self::Megabytes => "MB",
        }
    }

    /// Returns whether a larger figure is better.
    #[must_use]
    pub fn more_is_better(self) -> bool {
        matches!(self, Self::JobsPerSecond(_) | Self::ImagesPerSecond(_))
    }

    /// Returns the figure of one sample of `times` operations: the median if each operation has a time of its own.
    #[must_use]
    pub fn figure(self, reading: &Reading, times: u64) -> f64 {
        let seconds = match reading {
            Reading::Amount(amount) => return *amount,
            Reading::Files { peak, .. } if self == Self::Megabytes => return *peak as f64 / 1e6,
            Reading::Each(each) if !each.is_empty() => {
                let mut each = each.clone();
                each.sort_unstable();
                each[each.len() / 2].as_secs_f64()
            }
            reading => reading.total().unwrap_or_default().as_secs_f64() / times.max(1) as f64,
        };
        match self {
            Self::Microseconds => seconds * 1e6,
            Self::Milliseconds | Self::CpuMilliseconds => seconds * 1e3,
            Self::JobsPerSecond(jobs) => jobs as f64 / seconds,
            Self::ImagesPerSecond(images) => images as f64 / seconds,
            Self::NanosecondsPerJob(jobs) => seconds * 1e9 / jobs as f64,
            Self::Megabytes => seconds,
        }
    }
}

/// A goal of the engine in a case.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Goal {
    /// The engine's figure is at most this factor times the figure of another system (for times and sizes).
    AtMost(f64, &'static str),
    /// The engine is at least this number of times as fast as another system.
    AtLeast(f64, &'static str),
    /// Like `AtLeast`, but compares the best sample of each system.
    BestAtLeast(f64, &'static str),
    /// The engine's figure is at most this number.
    Below(f64),
    /// The engine's figure is at most this factor times its figure in another case of the same run.
    AtMostCase(f64, &'static str),
}

/// How a case is sampled.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The number of operations in a sample.
    pub times: u64,
    /// The number of samples of each system.
    pub runs: u32,
    /// The number of untimed operations before each sample.
    pub warmup: u64,
}

/// A comparison of several systems.
#[derive(Debug)]
pub struct Case {
    /// The id of the case in every output.
    pub id: String,
    /// A description for readers who do not know the ids.
    pub title: String,
    /// The unit of the figures.
    pub unit: Unit,
    /// How the case is sampled.
    pub plan: Plan,
    /// Whether a system is started again for each sample. This is needed if something random at the start, such as the
    /// pages that the system gets, changes a figure by more than the goal allows.
    pub restarts: bool,
    /// Whether a quick run includes the case.
    pub quick: bool,
    /// The free memory that the case needs, in bytes.
    pub memory: u64,
    /// The systems, the engine first.
    pub systems: Vec<Entry>,
    /// The goals of the engine.
    pub goals: Vec<Goal>,
    /// Facts that a reader needs to compare the figures: what a system does, or why a system is left out.
    pub notes: Vec<&'static str>,
}

impl Case {
    fn new(id: impl Into<String>, title: impl Into<String>, unit: Unit) -> Self {
        Self {
            id: id.into(),
            title: title.into(),
            unit,
            plan: Plan {
                times: 1,
                runs: 7,
                warmup: 1,
            },
            restarts: false,
            quick: true,
            memory: 0,
            systems: Vec::new(),
            goals: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Returns whether a system of this case is the `arenite` command, a program of its own.
    #[must_use]
    pub fn needs_command(&self) -> bool {
        self.id.contains("resize")
    }

    /// Returns what this machine lacks to run the case. Checks free memory, with regard to the limits of containers.
    #[must_use]
    pub fn lacking(&self) -> Option<String> {
        let available = linux::free_memory(Path::new("/"));
        (available < self.memory).then(|| {
            format!(
                "the case needs {} MB of free memory, and {} MB are free",
                self.memory / 1_000_000,
                available / 1_000_000
            )
        })
    }

    fn plan(mut self, times: u64, runs: u32, warmup: u64) -> Self {
        self.plan = Plan {
            times,
            runs,
            warmup,
        };
        self
    }

    fn restarting(mut self) -> Self {
        self.restarts = true;
        self
    }

    fn goals(mut self, goals: &[Goal]) -> Self {
        self.goals = goals.to_vec();
        self
    }

    fn note(mut self, note: &'static str) -> Self {
        self.notes.push(note);
        self
    }

    fn system<F>(mut self, id: &'static str, start: F) -> Self
    where
        F: Fn(&Setup) -> Result<Running, BenchError> + 'static,
    {
        self.systems.push(Entry::new(id, start));
        self
    }
}

/// Returns all cases, in the order in which they are run and shown.
#[must_use]
pub fn all(setup: &Setup) -> Vec<Case> {
    let mut cases = noop::cases(setup);
    cases.extend(actor::cases(setup));
    cases.extend(service::cases(setup));
    cases.extend(maps::cases(setup));
    cases.extend(handover::cases(setup));
    cases.extend(arrays::cases(setup, &arrays::pictures()));
    // These cases have pictures of their own, so that memory is released with the cases that need it.
    cases.extend(protection::cases(setup, &arrays::pictures()));
    cases.extend(busy::cases(setup));
    cases.extend(numbers::cases(setup));
    cases.extend(start::cases());
    cases.extend(memory::cases());
    cases.extend(mixed::cases(setup));
    cases.extend(streams::cases(setup));
    cases.extend(trace::cases(setup));
    cases.extend(idle::cases());
    cases.extend(lanes::cases());
    cases.extend(graphs::cases(setup));
    cases.extend(resize::cases(setup));
    cases
}

/// Data that the systems of a case share. The first system that needs the data creates it. It is dropped with the case.
struct Shared<T> {
    cell: Rc<OnceCell<Rc<T>>>,
    make: fn() -> T,
}

impl<T> Shared<T> {
    fn new(make: fn() -> T) -> Self {
        Self {
            cell: Rc::default(),
            make,
        }
    }

    fn get(&self) -> Rc<T> {
        Rc::clone(self.cell.get_or_init(|| Rc::new((self.make)())))
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self {
            cell: Rc::clone(&self.cell),
            make: self.make,
        }
    }
}

/// Starts a rayon pool with as many threads as the engine has workers.
fn rayon_pool(setup: &Setup) -> Result<rayon::ThreadPool, BenchError> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(setup.workers)
        .build()
        .map_err(|error| BenchError::io("start a rayon pool", std::io::Error::other(error)))
}
