//! The systems that the engine is compared with: sockets, pipes, futexes, other crates.
//!
//! A *baseline* does the same work by other means, as well as these means allow: a bare ping-pong over a shared page, a
//! pool of processes connected by Unix sockets, or rayon on the same data. [`cases::all`] lists the baselines and the
//! engine, case by case. The program `arenite-bench` and the Criterion benches both run that list, so that a figure has
//! one definition.
//!
//! The worker processes of the baselines are this program, started again with a marker in the environment. So [`init`]
//! must be called at the very beginning of `main`, directly after [`arenite::init`].
//!
//! Three rules apply. The systems of a case are sampled in turns, so that noise affects all alike. Every sample starts
//! with untimed operations, so that no worker is measured before it is fully awake; the exceptions are whole programs,
//! first-time operations, idle time and memory. A baseline that spins sleeps while another system is measured.

#![deny(unsafe_code)]

pub mod cases;
mod child;
mod error;
mod hog;
mod ipc;
mod linux;
mod page;
pub mod photos;
mod pool;
mod program;
mod service;
mod spawn;
mod stream;
pub mod work;

pub use error::BenchError;

/// Turns this process into a baseline's worker if it was started as one. In such a process this function never returns.
///
/// Call it in `main` after [`arenite::init`] and before anything else. In an ordinary process this function only
/// prepares `procspawn`, which also executes the program again and recognises its own processes by a marker of its own.
pub fn init() {
    child::become_worker_if_marked();
    procspawn::init();
}
