//! [`BuildError`], the error of building an engine, and [`Error`], any error of this crate.

use std::fmt;

#[cfg(feature = "sandbox")]
use super::SandboxReport;
use super::limits::{MAX_LANES, MAX_WORKERS};
use super::stream::StreamError;
use super::{ActorNameError, InputError, JobError, TraceError};
use crate::arena::{ArenaError, ArenaFull};
use crate::array::ShapeError;
use crate::array::npy::NpyError;
use crate::sys::debug_as_text;

/// An engine could not be built.
#[non_exhaustive]
pub enum BuildError {
    /// `arenite::init()` was not called, so copies of this program would run `main` again.
    NotInitialised,
    /// This process is a worker: a kernel cannot have workers of its own.
    InWorker,
    /// More workers were requested than an engine may have.
    TooManyWorkers {
        /// The requested number.
        asked: usize,
    },
    /// More lanes were requested than the workers of an engine may have together.
    TooManyLanes {
        /// The requested number, per worker.
        asked: usize,
    },
    /// A setting has a value that is not allowed.
    BadLimit {
        /// The method of [`Builder`](super::Builder) that sets the value.
        limit: &'static str,
        /// The value.
        given: String,
        /// The values that are allowed.
        allowed: String,
    },
    /// The arena cannot be created.
    Arena(ArenaError),
    /// A worker could not start; the text says why.
    Worker(String),
    /// A file of [`Builder::trace`](super::Builder::trace) cannot be written.
    Trace(TraceError),
    /// A system call failed.
    System(crate::arena::SystemError),
    /// An argument of `on_worker_start_with` is an array.
    StartWithArrays,
    /// The function of `on_worker_start` or `retain_escaped` is not in the executable or shared object that contains
    /// arenite.
    ForeignKernel,
    /// [`Sandbox::Required`](super::Sandbox::Required) was set, and the running Linux lacks a part of the sandbox.
    #[cfg(feature = "sandbox")]
    SandboxLacks(SandboxReport),
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotInitialised => f.write_str(
                "arenite::init() was not called: call it first in main (in tests: arenite::test_workers!() once per \
                 crate)",
            ),
            Self::InWorker => f.write_str(
                "this process is a worker, and a worker cannot build an engine of its own: submit jobs from the program \
                 that started it, or return them from the kernel (see `Spawn`)",
            ),
            Self::TooManyWorkers { asked } => {
                write!(f, "{asked} workers are too many; the limit is {MAX_WORKERS}")
            }
            Self::TooManyLanes { asked } => {
                write!(f, "{asked} lanes in each worker are too many; the limit for all workers together is {MAX_LANES}")
            }
            Self::BadLimit {
                limit,
                given,
                allowed,
            } => write!(f, "{limit} cannot be {given}: set it to {allowed}"),
            Self::Arena(error) => error.fmt(f),
            Self::Worker(why) => write!(f, "a worker could not start: {why}"),
            Self::Trace(error) => error.fmt(f),
            Self::System(error) => error.fmt(f),
            Self::StartWithArrays => f.write_str(
                "on_worker_start_with takes no arrays, because they need the arena that is built later: pass bytes or a \
                 file name",
            ),
            Self::ForeignKernel => {
                f.write_str(
                "a function given to the builder is code of another library; it must be in the executable or shared \
                 object that contains arenite",
            )
            }
            #[cfg(feature = "sandbox")]
            Self::SandboxLacks(report) => write!(f, "a sandbox is required, and {report}"),
        }
    }
}

impl std::error::Error for BuildError {}

debug_as_text!(BuildError);

macro_rules! any_error {
    ($($variant:ident($error:ty), $doc:literal;)+) => {
        /// Any error of this crate, for functions that build an engine, create arrays and wait for jobs. Displays the
        /// text of the error that it contains.
        ///
        /// ```
        /// use arenite::Engine;
        ///
        /// fn total(engine: &Engine) -> Result<u64, arenite::Error> {
        ///     let numbers = engine.from_iter(0..1000_u64)?;
        ///     Ok(engine.submit(|numbers: &[u64]| numbers.iter().sum::<u64>(), (&numbers,)).wait()?)
        /// }
        ///
        /// # let engine = Engine::inline();
        /// assert_eq!(total(&engine)?, 499_500);
        /// # Ok::<(), arenite::Error>(())
        /// ```
        #[derive(Debug)]
        #[non_exhaustive]
        pub enum Error {
            $(#[doc = $doc] $variant($error),)+
        }

        impl fmt::Display for Error {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$variant(error) => error.fmt(f),)+
                }
            }
        }

        impl std::error::Error for Error {
            fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
                match self {
                    $(Self::$variant(error) => error.source(),)+
                }
            }
        }

        $(impl From<$error> for Error {
            fn from(error: $error) -> Self {
                Self::$variant(error)
            }
        })+
    };
}

any_error! {
    Build(BuildError), "An engine could not be built.";
    ArenaFull(ArenaFull), "There is no room for an array.";
    Job(JobError), "A job failed.";
    Input(InputError), "A file or a foreign array could not be brought in.";
    Npy(NpyError), "A file is not the `.npy` array that was asked for.";
    Shape(ShapeError), "Too many axes, or another number of elements.";
    Stream(StreamError), "A stream ended early.";
    ActorName(ActorNameError), "An actor's name is taken or unknown.";
    Trace(TraceError), "A trace cannot be written.";
    Io(std::io::Error), "A file cannot be read or written.";
    Other(Box<dyn std::error::Error + Send + Sync>), "Of a crate that uses this one: a store, a service, a table.";
}
