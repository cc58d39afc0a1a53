//! What the engine is measured against: sockets, pipes, futexes, other crates.
//!
//! A *twin* does the same work by other means, as well as those means allow: a bare ping-pong over a shared page, a
//! pool of processes behind Unix sockets, rayon on the same data. [`cases::all`] puts them beside the engine, case by
//! case; `arenite bench` and the Criterion benches both run that list, so that a figure has one definition.
//!
//! The twins' worker processes are this program, started again with a marker in the environment. So [`init`] has to
//! be called at the very beginning of `main`, directly after [`arenite::init`](crate::init).
//!
//! Three rules hold for every case. Systems of one case take turns, one sample each, so that noise hits all alike.
//! Every sample starts with untimed operations of its own, so that no worker is measured half awake: but for whole programs, what is
//! done for the first time, idle time and memory. And a twin that spins is asleep while another system is measured.

pub mod cases;
mod child;
mod error;
mod ipc;
mod page;
#[doc(hidden)]
pub mod photos;
mod pool;
mod program;
mod spawn;
mod stream;
pub mod work;

pub use error::TwinError;

/// Turns this process into a twin's worker if it was started as one; such a process never returns from here.
///
/// Call it in `main` after [`arenite::init`](crate::init) and before anything else. In an ordinary process it only
/// prepares `procspawn`, which needs the same treatment and recognises its own processes by a marker of its own.
pub fn init() {
    child::become_worker_if_marked();
    procspawn::init();
}
