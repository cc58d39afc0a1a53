#![doc = include_str!("README.md")]

mod affinity;
#[cfg(feature = "tracing")]
mod events;
mod files;
pub(crate) mod frame;
mod lane;
mod memory;
mod output;
mod pages;
pub(crate) mod panics;
mod retention;
mod rng;
#[cfg(feature = "sandbox")]
mod sandbox;
mod scratch;
#[cfg(feature = "sandbox")]
mod stacks;
mod start;
#[cfg(feature = "template")]
mod template;

#[cfg(test)]
#[path = "../../tests/support/hostile_arguments.rs"]
#[allow(unsafe_code, reason = "writes through pointers, as a kernel may")]
mod hostile;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

pub use lane::{begin_timed, cancelled};
pub(crate) use rng::{InlineJobGuard, enter_inline_job, inline_job_seeds};
pub use rng::{JobRng, for_each_element, rng};
pub use scratch::{Scratch, scratch, scratch_for};
pub(crate) use start::Mark;
#[cfg(feature = "template")]
pub use template::{ForkedTemplate, Template};

use crate::arena::ArenaFull;
use crate::link::REFUSAL_WORDS;
use crate::sync::catch_panic;

/// The environment variable that makes a process a worker.
pub(crate) const MARK: &str = "ARENITE_WORKER";
/// Exit code of a worker that could not start (BSD's `EX_SOFTWARE`).
pub(crate) const EXIT_CANNOT_START: i32 = 70;
/// Exit code of a worker that could not start because something was short (BSD's `EX_TEMPFAIL`): another attempt may
/// succeed.
pub(crate) const EXIT_CANNOT_START_NOW: i32 = 75;
/// Exit code of a worker in which array handles outlived their job.
pub(crate) const EXIT_ESCAPED: i32 = 71;
/// Exit code of a worker in which a lane panicked outside a kernel.
const EXIT_LANE_PANICKED: i32 = 72;

/// Whether `init` has been called, so that an engine can start copies of this program as workers.
static INITIALISED: AtomicBool = AtomicBool::new(false);
/// Whether this process is a worker.
static WORKER: AtomicBool = AtomicBool::new(false);
/// What [`worker_identity`] returns; not set in the program.
static IDENTITY: OnceLock<WorkerIdentity> = OnceLock::new();
/// The function that this worker calls when it has run its last job.
static AT_END: OnceLock<fn()> = OnceLock::new();

/// Identifies a worker in its engine: returned by [`worker_identity`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerIdentity {
    /// The number of the worker, from 0 to below the number of workers, spares included.
    pub number: u32,
    /// The number of processes that had this worker number before.
    pub generation: u32,
    /// The label of the engine.
    pub label: String,
}

/// Returns which worker this process is, or `None` in the program. Available from `on_worker_start` on.
pub fn worker_identity() -> Option<&'static WorkerIdentity> {
    IDENTITY.get()
}

/// Registers `call` to run on the first thread of this worker before the worker ends, after all its jobs: at the
/// shutdown of its engine, or when it is recycled. A worker that is killed does not run `call`. The worker is killed if
/// the call takes longer than the grace period ([`Builder::grace`](crate::engine::Builder::grace)).
///
/// Only the first call has an effect. In the program this does nothing.
pub fn at_worker_end(call: fn()) {
    let _ = AT_END.set(call);
}

/// Runs the function that [`at_worker_end`] has registered.
fn run_at_end() {
    if let Some(call) = AT_END.get() {
        // The process ends in either case.
        catch_panic(call);
    }
}

/// Sets what [`worker_identity`] returns. Called once, before code of the program runs.
fn set_identity(welcome: &crate::control::Welcome) {
    let identity = WorkerIdentity {
        number: welcome.worker,
        generation: welcome.generation,
        label: welcome.label.clone(),
    };
    let _ = IDENTITY.set(identity);
}

/// Allows engines to start this program as a worker. Call it first in `main`, before any runtime or thread.
///
/// An engine starts copies of the running program. In such a copy `init` never returns: it finds a mark in the
/// environment and runs jobs instead of the rest of `main`. In the program itself `init` returns at once.
///
/// ```
/// // fn main() {
/// arenite::init();
/// // … the program
/// ```
///
/// # In a library
///
/// A library that uses an engine cannot call `init` for its users: it must be the first call in *their* `main`.
/// Document this, re-export `init` (`pub use arenite::init;`), and pass on the error
/// [`NotInitialised`](crate::engine::BuildError::NotInitialised). Examples in the docs of the library call it in their
/// first line, in code blocks marked `standalone_crate`; its tests use [`test_workers!`](crate::test_workers).
///
/// # With tokio
///
/// `#[tokio::main]` starts the runtime and its threads before the first line of `main`, so every worker would start
/// them too. Write out `main`, and call `init` before the runtime is built:
///
/// ```standalone_crate
/// use std::sync::Arc;
/// use arenite::Engine;
///
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     arenite::init();
///     let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
///     runtime.block_on(serve())
/// }
///
/// async fn serve() -> Result<(), Box<dyn std::error::Error>> {
///     let engine = Arc::new(Engine::builder().workers(2).build()?);
///     let request = tokio::spawn({
///         let engine = Arc::clone(&engine);
///         async move { engine.submit(|x: u64| x + 1, (41,)).await }
///     });
///     assert_eq!(request.await??, 42);
///     Ok(())
/// }
/// ```
///
/// The same applies to other macros that wrap `main` (`#[async_std::main]`, `#[actix_web::main]`), and to everything
/// that starts threads. If threads with descriptors exist before `init`, building the engine fails with an error that
/// says so.
pub fn init() {
    if let Some(mark) = crate::sys::process::take_env(MARK) {
        become_worker(&mark, None, None);
    }
    INITIALISED.store(true, Ordering::Relaxed);
}

/// Makes this process a worker of the engine that has started it, and runs its jobs. For the program that
/// [`Builder::worker_program`](crate::engine::Builder::worker_program) names.
/// [`Builder::worker_program`](crate::engine::Builder::worker_program).
///
/// `identity` must equal that of the [`WorkerProgram`](crate::engine::WorkerProgram); otherwise the worker fails to
/// start. The file that contains this crate (the executable or the shared object) must be the file that the engine's
/// process uses.
///
/// Call it in the process that the engine has started, on its first thread, and while no other thread uses the
/// environment. Do not call it in a process that this process starts.
///
/// If no engine has started the process, it exits with code 70 and a message on stderr.
///
/// ```standalone_crate
/// use arenite::Engine;
/// use arenite::engine::WorkerProgram;
///
/// // This example is its own worker program: its first argument says so.
/// if std::env::args().nth(1).as_deref() == Some("--worker") {
///     arenite::run_worker(b"version 1");
/// }
/// let program = WorkerProgram::new(std::env::current_exe()?)
///     .args(["--worker"])
///     .identity("version 1");
/// let engine = Engine::builder().workers(1).worker_program(program).build()?;
/// assert_eq!(engine.submit(|x: u32| x + 1, (41,)).wait()?, 42);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn run_worker(identity: &[u8]) -> ! {
    run(identity, None)
}

/// Without the feature `template`, no program has one.
#[cfg(not(feature = "template"))]
trait Template {}

/// Like [`run_worker`], for a program that can also be the [template](crate::engine::WorkerProgram::template) from
/// which workers are copied.
#[cfg(feature = "template")]
pub fn run_worker_from_template(identity: &[u8], template: &dyn Template) -> ! {
    run(identity, Some(template))
}

fn run(identity: &[u8], template: Option<&dyn Template>) -> ! {
    match crate::sys::process::take_env(MARK) {
        Some(mark) => become_worker(&mark, Some(identity), template),
        None => {
            start::report(
                "no engine has started this process: it runs a worker program, which engines start on their own",
            );
            crate::sys::process::exit_now(EXIT_CANNOT_START)
        }
    }
}

/// Makes this process the worker that `mark` describes. `identity` is that of a worker program; `None` for a copy of
/// the program that calls `init`.
fn become_worker(mark: &str, identity: Option<&[u8]>, template: Option<&dyn Template>) -> ! {
    set_worker();
    start::main(mark, identity, template)
}

/// Marks this process as a worker, or as the template of workers.
fn set_worker() {
    WORKER.store(true, Ordering::Relaxed);
}

/// Returns whether `init` has been called in this process.
pub(crate) fn is_initialised() -> bool {
    INITIALISED.load(Ordering::Relaxed)
}

/// Whether this process is a worker.
pub(crate) fn is_worker() -> bool {
    WORKER.load(Ordering::Relaxed)
}

/// Returns whether an engine has started this process as a worker, but the process has not become a worker.
pub(crate) fn is_unadopted() -> bool {
    // A program that no engine has started may have inherited a worker's mark in its environment.
    let started_by_parent = || {
        let mark: Mark = std::env::var(MARK).ok()?.parse().ok()?;
        (mark.parent == crate::sys::process::getppid().as_raw()).then_some(())
    };
    !is_worker() && !is_initialised() && started_by_parent().is_some()
}

/// Ends this process with the reason on stderr.
fn die(why: &str) -> ! {
    eprintln!("arenite worker {}: {why}", std::process::id());
    crate::sys::fault::note_end();
    crate::sys::process::exit_now(EXIT_CANNOT_START);
}

/// Converts an `ArenaFull` to words of a link.
pub(crate) fn full_to_words(full: ArenaFull) -> [u64; REFUSAL_WORDS] {
    bytemuck::cast(full)
}

/// Converts words of a link to an `ArenaFull`.
pub(crate) fn full_from_words(words: [u64; REFUSAL_WORDS]) -> ArenaFull {
    bytemuck::cast(words)
}

/// Calls [`init`] before `main`. Call the macro once, at the top level of a program, or of a library whose users need
/// not know of arenite: their programs, tests and doctests then start workers without calling `init`.
///
/// ```
/// // In the library.
/// arenite::auto_init!();
///
/// pub fn total(numbers: &[f64]) -> Result<f64, arenite::Error> {
///     let engine = arenite::Engine::builder().workers(1).build()?;
///     let numbers = engine.from_slice(numbers)?;
///     Ok(engine.submit(|numbers: &[f64]| numbers.iter().sum::<f64>(), (&numbers,)).wait()?)
/// }
///
/// # fn main() {
/// // In a program that uses it.
/// assert_eq!(total(&[0.5, 1.5]).unwrap(), 2.0);
/// # }
/// ```
///
/// # Limits
///
/// - A worker is another process of the same program, and ends inside this call. So nothing of `main` runs there.
///   Functions that other libraries register to run before `main` do not run either if the linker has put them after
///   this call.
/// - In a library that is loaded while the program runs (`dlopen`, a Python module) the call comes too late: its
///   engines need a [worker program](crate::Builder::worker_program).
/// - The linker must include the object file that contains the call. It does for a library among the program's
///   dependencies. If you use another linker or special flags, check that an engine can be built.
/// - Any number of libraries of one program may call the macro.
#[macro_export]
macro_rules! auto_init {
    () => {
        const _: () = {
            extern "C" fn arenite_start() {
                $crate::init();
            }
            // SAFETY: the section contains pointers to functions that are called once before `main`, with arguments
            // that this function ignores. `init` relies on nothing that `main` sets up.
            #[used]
            #[unsafe(link_section = ".init_array")]
            static ARENITE_START: extern "C" fn() = arenite_start;
        };
    };
}

/// Lets the `#[test]` functions of a crate start engines: [`auto_init!`](crate::auto_init) for a test binary, which has
/// no `main` in which [`init`] could be called. Call it once, at the top level of the test crate.
///
/// ```
/// arenite::test_workers!();
///
/// # fn main() {
/// let engine = arenite::Engine::builder().workers(1).build().unwrap();
/// assert_eq!(engine.submit(|x: u32| x + 1, (41,)).wait().unwrap(), 42);
/// # }
/// ```
#[macro_export]
macro_rules! test_workers {
    () => {
        $crate::auto_init!();
    };
}
