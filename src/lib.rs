//! Array and image work in separate worker processes, on shared memory, at the speed of a thread pool.
//!
//! A panic, a wild pointer, an `abort()` in a C library or a hostile input file ends one job with an error that
//! says what happened. The program, its other jobs and their data go on. That is what threads cannot
//! give; what it costs is what the benchmarks are there to show (`cargo run --release -p arenite-bench`).
//!
//! It costs next to nothing per job, because arrays are neither copied nor serialised: they lie in memory that all
//! processes have mapped, and what travels to a worker is a descriptor of 128 bytes. Only the results of workers that are
//! locked down (`Builder::sandbox`) are copied.
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
//!     // Made in the worker's part of the shared memory; returning it copies nothing.
//!     Ok(Array::from_fn(pixels.shape(), |i| pixels[i].saturating_add(by)))
//! }
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     // First of all: in a worker, which is this program started again, `init` never returns.
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
//!     // Many, in order, a bounded number in flight.
//!     let by = (0..20).map(|by| (&photo, by));
//!     for (by, bright) in engine.map(brighten, by).enumerate() {
//!         assert_eq!(bright?[0], by as u8);
//!     }
//!
//!     // One array, written by all workers at once, in place.
//!     let mut out = engine.zeros::<f32>([1000, 1000])?;
//!     engine.scope(|s| {
//!         for tile in out.tiles_mut(100) {
//!             s.submit(|tile: &mut [f32]| tile.fill(0.5), (tile,));
//!         }
//!     })?;
//!     assert_eq!(out[999_999], 0.5);
//!
//!     // A job that takes its process with it is an error; the next one runs in a new process.
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
//! | start an engine | [`init`], [`Engine::builder`], in tests [`test_workers!`] |
//! | bring data in | [`Engine::from_slice`], [`Engine::read_file`], [`Engine::read_npy`], [`Engine::zeros`] |
//! | run one job | [`Engine::submit`]; several kernels on one worker: [`Engine::job`] |
//! | run many | [`Engine::map`] in order, [`unordered`](engine::Map::unordered) or [`as_completed`] as they end |
//! | run jobs that take each other's values | [`Graph`] |
//! | run what a kernel turns out to need | [`Spawn`], [`call`] |
//! | wait for one of many, or all | [`wait_any`], [`wait_all`] |
//! | do so in `async` code | a [`Job`] is a future; [`Map::stream`](engine::Map::stream), [`submit_async`](engine::JobBuilder::submit_async), [`call_async`](Actor::call_async) |
//! | know what failed, with its arguments | [`Map::report`](engine::Map::report), [`DeadLetter`]; stop or go on: [`OnFailure`] |
//! | bound how many run at a time, or in a second | [`Limiter`] |
//! | keep a state in a worker, and call it | [`Engine::actor`], with checkpoints [`Engine::actor_builder`] |
//! | run several jobs as one | [`Engine::scope`], with errors of one's own [`Engine::scope_try`], to keep all errors [`Engine::scope_collect`] |
//! | run an endless source through stages and windows | [`stream`] |
//! | work on one large array | [`Engine::par`]: [`map`](par::Par::map), [`apply`](par::Par::apply); [`Engine::scope`] with [`ArrayMut::tiles_mut`] |
//! | sum up, search, count, reduce | [`Engine::par`]: [`sum`](par::Par::sum), [`argmax`](par::Par::argmax), [`scan`](par::Par::scan), [`histogram`](par::Par::histogram), [`reduce`](par::Par::reduce) |
//! | cut an array into parts | [`Array::partitions`] |
//! | keep buffers and tables in a worker from job to job | [`scratch`], [`scratch_for`] |
//! | draw random numbers in kernels | [`rng`], [`Builder::seed`] |
//! | know what a kernel may take and return | [`kernel::Arg`], [`kernel::Reply`], [`Scalar`] |
//! | limit a job's time, retry it, start it first | [`JobOptions`], of jobs, maps, scopes, nodes and stages |
//! | run several jobs side by side in each worker | [`Builder::lanes`] |
//! | bound a worker's memory, replace workers that leak | [`Builder::memory_limit`], [`Builder::recycle_above`], [`Builder::recycle_after_jobs`] |
//! | bound the bytes under way | [`Builder::admission`] |
//! | take every right from the workers | `Builder::sandbox` (feature `sandbox`) |
//! | give up on a job | [`Job::cancel`] with [`cancelled`], [`Job::cancel_now`] |
//! | know why a job failed | [`JobError`], [`JobErrorKind`] |
//! | take what workers print, line by line | [`Builder::on_log`] |
//! | debug without processes | [`Engine::inline`] |
//! | read and write `.npy` | [`array::npy`] |
//! | decode, resize and encode pictures | the crate `arenite-image` |
//! | see how far it is, and how it does | [`Engine::progress`], [`Engine::stats`] |
//! | see afterwards what ran when, and why it took so long | [`Trace`]: events for a trace viewer, a report for a browser |
//! | know what a machine or container offers | [`platform`], or the command `arenite doctor` |
//!
//! # Floors
//!
//! The crate is built in floors: a module uses only what stands above it in this list
//! (`tests/floors.rs` checks it). Each has a description of what it guarantees.
//!
//! | floor | what it is |
//! |---|---|
//! | `sync` | atomics, cells and fences; switches to loom's for the models |
//! | `sys` | Linux as values that clean up after themselves, and typed errors |
//! | `arena` | shared memory in regions, one per writing process: [`arena`] |
//! | `array` | typed, shaped views of it: [`array`](mod@array) |
//! | `kernel` | which functions can be sent, with which arguments: [`kernel`] |
//! | `link` | how a job travels: slots, state words, doorbells |
//! | `control` | the handshake when a worker starts |
//! | `worker` | start, run and stop of a worker process |
//! | `trace` | what happened when, as files |
//! | `supervisor` | queue, policy, monitor, recovery |
//! | `engine` | the public face: [`engine`] |
//! | `platform` | what this system offers an engine: [`platform`] |
//!
//! # Features
//!
//! - `ndarray` (default): views of arrays as [`ndarray`](https://docs.rs/ndarray)'s, and arrays from them.
//! - `sandbox`: workers without rights: `Builder::sandbox`.
//! - `points`: named places at which tests kill, and what fuzzers call; refused in release builds. Not meant for programs.
//! - `tracing`: events of the [`tracing`](https://docs.rs/tracing) crate in kernels arrive at
//!   [`Builder::on_log`] with level and target, and at the subscriber of the program, if it has
//!   one, as events of the target `arenite::worker`. Spans stay in the worker.
//!
//! # Platform
//!
//! Linux 6.1 or newer on x86_64 or aarch64, with pages of 4 KiB.

// Models check the link floor alone: nothing else is built with `--cfg arenite_loom`.
#[cfg(not(arenite_loom))]
pub mod arena;
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
pub use arena::{ArenaFull, Backing};
#[cfg(not(arenite_loom))]
pub use array::{Array, ArrayMut, Element, Shape, TileMut};
#[cfg(not(arenite_loom))]
#[doc(hidden)]
pub use control::lock_socket_names;
#[cfg(not(arenite_loom))]
pub use engine::{
    Actor, ActorNameError, ActorStatus, Backoff, BuildError, Builder, Canceller, DeadLetter,
    Engine, Graph, GraphError, Guard, InputError, Job, JobError, JobErrorKind, JobOptions, Limiter,
    Node, OnFailure, Priority, Progress, Refused, RefusedBy, Report, Scope, Spawn, Stats, Trace,
    as_completed, call, par, stream, wait_all, wait_any,
};
#[cfg(all(feature = "sandbox", not(arenite_loom)))]
pub use engine::{Sandbox, SandboxReport};
#[cfg(not(arenite_loom))]
pub use kernel::{Kernel, KernelError, Returned, Scalar, Typed};
#[cfg(not(arenite_loom))]
pub use rand;
#[cfg(all(feature = "points", not(arenite_loom)))]
#[doc(hidden)]
pub use supervisor::hostile::{AttackStats, link_words};
#[cfg(all(feature = "points", not(arenite_loom)))]
#[doc(hidden)]
pub use sync::points;
#[cfg(all(feature = "points", not(arenite_loom)))]
#[doc(hidden)]
pub use sys::inject as failing_calls;
#[cfg(not(arenite_loom))]
pub use worker::{Scratch, cancelled, init, rng, scratch, scratch_for};

// The programs in README.md and docs/guide.md are doctests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
#[cfg(doctest)]
#[doc = include_str!("../docs/guide.md")]
struct Guide;
