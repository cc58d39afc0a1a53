//! Runs functions on arrays in worker processes that share memory with the program.
//!
//! A panic, a stray write, an `abort()` in a C library or a malicious input file ends one job with an error that says
//! what happened. The program, its other jobs and their data continue. Threads cannot do that, and pools that copy
//! their data between processes are slower. Here arrays are neither copied nor serialised: they are in memory that all
//! processes have mapped, and a job travels as a descriptor of 128 bytes. Only the results of sandboxed workers
//! (`Builder::sandbox`) are copied.
//!
//! # A complete program
//!
//! ```standalone_crate
//! use arenite::{Array, Engine};
//!
//! // A kernel: an ordinary function, tested and called like any other.
//! fn brighten(pixels: &Array<u8>, by: u8) -> Result<Array<u8>, String> {
//!     if pixels.is_empty() {
//!         return Err("nothing to brighten".into());
//!     }
//!     // Allocated in the worker's part of the shared memory: returning it copies nothing.
//!     Ok(Array::from_fn(pixels.shape(), |i| pixels[i].saturating_add(by)))
//! }
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     // Call it first: a worker is this program started again, and in a worker `init` never returns.
//!     arenite::init();
//!
//!     let engine = Engine::builder().workers(2).capacity(256 << 20).build()?;
//!
//!     // One job.
//!     let photo = engine.from_fn([600, 800, 3], |i| (i % 251) as u8)?;
//!     let bright = engine.submit(brighten, (&photo, 10)).wait()?;
//!     assert_eq!(bright.shape(), photo.shape());
//!     assert_eq!(bright[7], 17);
//!
//!     // Many jobs, in order, with a bounded number in flight.
//!     let by = (0..20).map(|by| (&photo, by));
//!     for (by, bright) in engine.map(brighten, by).enumerate() {
//!         assert_eq!(bright?[0], by as u8);
//!     }
//!
//!     // One array, written in place by all workers at once.
//!     let mut out = engine.zeros::<f32>([1000, 1000])?;
//!     engine.scope(|s| {
//!         for tile in out.tiles_mut(100) {
//!             s.submit(|tile: &mut [f32]| tile.fill(0.5), (tile,));
//!         }
//!     })?;
//!     assert_eq!(out[999_999], 0.5);
//!
//!     // A job that ends its process fails with an error; the next one runs in a new process.
//!     fn crash() {
//!         std::process::abort();
//!     }
//!     let error = engine.submit(crash, ()).wait().unwrap_err();
//!     assert!(error.to_string().contains("SIGABRT"), "{error}");
//!     assert_eq!(engine.submit(brighten, (&photo, 1)).wait()?[0], 1);
//!     Ok(())
//! }
//! ```
//!
//! # Where to look
//!
//! | to | see |
//! |---|---|
//! | start an engine | [`init`], [`Engine::builder`]; in tests [`test_workers!`], in a library [`auto_init!`] |
//! | start workers from another program, for kernels in a shared object | [`Builder::worker_program`], [`run_worker`] |
//! | bring data in | [`Engine::from_slice`], [`Engine::read_file`], [`Engine::read_npy`], [`Engine::zeros`] |
//! | run one job | [`Engine::submit`]; with options, or several kernels on one worker: [`Engine::job`] |
//! | use variables of the program in a kernel | [`kernel!`](kernel!) |
//! | run many | [`Engine::map`] in order; [`unordered`](engine::Map::unordered) or [`as_completed`] as they end |
//! | limit a job's time, retry it, start it first | [`JobOptions`], of jobs, maps, scopes and stages |
//! | let `?` take every error | [`Error`] |
//! | learn why a job failed | [`JobError`], [`JobErrorKind`]; a kernel's own error type: [`Typed`], [`KernelError`] |
//! | learn what failed, with its arguments | [`Map::report`](engine::Map::report), [`DeadLetter`]; stop or continue: [`OnFailure`] |
//! | wait for one of many jobs, or for all | [`wait_any`], [`wait_all`] |
//! | use `async` | a [`Job`] is a future; [`Map::stream`](engine::Map::stream), [`submit_async`](engine::JobBuilder::submit_async), [`call_async`](Actor::call_async) |
//! | end a job | [`Job::cancel`] with [`cancelled`], [`Job::kill`]; from another thread [`Job::killer`] |
//! | run several jobs as one | [`Engine::scope`]; with your own error type [`Engine::scope_try`], to keep all errors [`Engine::scope_collect`] |
//! | work on one large array | [`Engine::par`]: [`map`](par::Par::map), [`apply`](par::Par::apply); [`Engine::scope`] with [`ArrayMut::tiles_mut`] |
//! | sum, search, count, reduce | [`Engine::par`]: [`sum`](par::Par::sum), [`argmax`](par::Par::argmax), [`scan`](par::Par::scan), [`histogram`](par::Par::histogram), [`reduce`](par::Par::reduce) |
//! | run jobs on each other's values | [`Engine::submit`], [`Graph`] |
//! | run jobs that a kernel asks for | [`Spawn`], [`call`] |
//! | keep a state in a worker, and call it | [`Engine::actor`], with a name or checkpoints |
//! | run an endless source through stages and windows | [`stream`] |
//! | keep buffers and tables in a worker between jobs | [`scratch`], [`scratch_for`] |
//! | know in which worker a kernel runs, act when it ends | [`worker_identity`], [`at_worker_end`] |
//! | draw random numbers in kernels | [`rng`], [`Builder::seed`] |
//! | know what a kernel may take and return | [`kernel::Arg`], [`kernel::Reply`], [`Scalar`] |
//! | limit how many jobs run at a time or per second | [`Limiter`] |
//! | limit the bytes in flight | [`Builder::max_in_flight_bytes`] |
//! | run several jobs concurrently in each worker | [`Builder::lanes`] |
//! | limit a worker's memory, replace workers that leak | [`Builder::memory_limit`], [`Builder::recycle_above_bytes`], [`Builder::recycle_after_jobs`] |
//! | sandbox the workers | `Builder::sandbox` (feature `sandbox`) |
//! | receive what workers print, line by line | [`Builder::on_log`] |
//! | debug without processes | [`Engine::inline`] |
//! | divide files between machines | [`shard`] |
//! | split an array into parts | [`Array::partitions`] |
//! | read and write `.npy` | [`array::npy`] |
//! | share memory with other processes without a copy | [`MemoryFile`](array::MemoryFile), [`Array::map_sealed`] |
//! | read CSV, JSON and Parquet files into tables, and run kernels on their parts | the crate `arenite-tables` |
//! | share arrays by name with other programs, let them call kernels | the crate `arenite-store` |
//! | decode, resize and encode pictures | the crate `arenite-image` |
//! | show progress and statistics | [`Engine::progress`], [`Engine::stats`] |
//! | see afterwards what ran when, and what took long | [`Trace`]: events for a trace viewer, a report for a browser |
//! | know what a machine or container offers | [`platform`], or the command `arenite doctor` |
//!
//! # Layers
//!
//! The crate is built in layers: a module uses only modules above it in this list (`tests/layers.rs` checks it).
//! `src/README.md` follows a job through them.
//!
//! | layer | what it is |
//! |---|---|
//! | `sync` | atomics, cells and fences; those of loom in the models |
//! | `sys` | Linux: owned resources and typed errors |
//! | `arena` | shared memory in regions, one per writing process |
//! | `array` | typed arrays with shapes in that memory: [`array`](mod@array) |
//! | `kernel` | which functions can be sent, with which arguments: [`kernel`](mod@kernel) |
//! | `link` | how a job travels: slots, state words, doorbells |
//! | `control` | the handshake of a new worker |
//! | `worker` | start, main loop and stop of a worker process |
//! | `trace` | files that record what happened when |
//! | `supervisor` | queue, policies, monitor, recovery |
//! | `engine` | the public API: [`engine`] |
//! | `platform` | what this system offers an engine: [`platform`] |
//!
//! # Features
//!
//! - `ndarray` (default): arrays as views of [`ndarray`](https://docs.rs/ndarray), and arrays from them.
//! - `sandbox`: workers without rights, `Builder::sandbox`.
//! - `template`: workers are forked from a process that has loaded what all of them need,
//!   `engine::WorkerProgram::template`.
//! - `tracing`: events of the [`tracing`](https://docs.rs/tracing) crate in kernels arrive at [`Builder::on_log`] with
//!   level and target, and at the program's subscriber, if there is one, as events of the target `arenite::worker`.
//!   Spans stay in the worker.
//! - `points`: for the tests of this crate; rejected in release builds.
//!
//! # Platform
//!
//! Linux 5.10 or newer on x86_64 or aarch64, with pages of 4 KiB. Newer features of Linux are used if they exist
//! ([`platform::features`]). Tests run on Linux 6.18, and with a system call filter that makes it behave like 5.10.

#[cfg(not(target_os = "linux"))]
compile_error!(
    "arenite needs Linux: on Windows use WSL 2, on macOS a container or a virtual machine"
);

// Loom models check `link` and `sync` alone: with `--cfg arenite_loom` every other module is empty, and nothing is
// exported.
#[cfg(not(arenite_loom))]
mod arena;
#[cfg(not(arenite_loom))]
pub mod array;
#[cfg(not(arenite_loom))]
#[forbid(unsafe_code)]
mod control;
#[cfg(not(arenite_loom))]
#[forbid(unsafe_code)]
pub mod engine;
#[cfg(not(arenite_loom))]
pub mod kernel;
#[cfg_attr(arenite_loom, allow(dead_code, unused_imports))]
mod link;
#[cfg(not(arenite_loom))]
#[forbid(unsafe_code)]
pub mod platform;
#[cfg(not(arenite_loom))]
#[deny(unsafe_code)]
mod supervisor;
#[cfg_attr(arenite_loom, allow(dead_code))]
mod sync;
#[cfg(not(arenite_loom))]
mod sys;
#[cfg(not(arenite_loom))]
#[forbid(unsafe_code)]
mod trace;
#[cfg(not(arenite_loom))]
#[deny(unsafe_code)]
mod worker;

#[cfg(not(arenite_loom))]
pub use exports::*;

#[cfg(not(arenite_loom))]
mod exports {
    pub use crate::arena::{ArenaFull, Backing};
    pub use crate::array::{Array, ArrayIndex, ArrayMut, Element, Shape, TileMut};
    #[doc(hidden)]
    pub use crate::control::{lock_socket_names, pin_socket_folder};
    pub use crate::engine::par::{Par, ParMut};
    pub use crate::engine::{
        Actor, ActorNameError, ActorStatus, Backoff, BuildError, Builder, Canceller, DeadLetter,
        Engine, Error, FailedDependency, Graph, Guard, InputError, Job, JobBuilder, JobError,
        JobErrorKind, JobLimit, JobOptions, Limiter, Map, OnFailure, Priority, Progress, Refused,
        RefusedBy, Rejection, Report, Scope, Spawn, Stats, Trace, WorkerExit, as_completed, call,
        par, shard, stream, wait_all, wait_any,
    };
    #[cfg(feature = "sandbox")]
    pub use crate::engine::{Sandbox, SandboxReport};
    /// For bindings of other languages: their calls, and what their functions need. Not subject to semantic versioning.
    #[doc(hidden)]
    pub mod raw {
        pub use crate::engine::raw::*;
        pub use crate::kernel::raw::*;
        pub use crate::worker::{begin_timed, for_each_element};
    }
    pub use crate::kernel::{Bytes, Kernel, KernelError, Returned, Scalar, Typed};
    #[cfg(feature = "points")]
    #[doc(hidden)]
    pub use crate::supervisor::hostile::{AttackStats, link_words};
    #[cfg(feature = "points")]
    #[doc(hidden)]
    pub use crate::sync::points;
    #[cfg(feature = "points")]
    #[doc(hidden)]
    pub use crate::sys::inject as failing_calls;
    pub use crate::trace::escape::{escape_text, needs_escape};
    #[cfg(feature = "template")]
    pub use crate::worker::{ForkedTemplate, Template, run_worker_from_template};
    pub use crate::worker::{
        JobRng, Scratch, WorkerIdentity, at_worker_end, cancelled, init, rng, run_worker, scratch,
        scratch_for, worker_identity,
    };
    /// The crate whose derives make plain types [elements](Element) and [scalars](Scalar), in the version that this
    /// crate uses.
    pub use bytemuck;
}

// The programs in README.md and docs/guide.md are doctests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
#[cfg(doctest)]
#[doc = include_str!("../docs/guide.md")]
struct Guide;
