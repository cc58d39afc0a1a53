//! arenite runs array and image kernels in separate worker processes, on shared memory.

// Models check the link floor alone: nothing else is built with `--cfg arenite_loom`.
#[cfg(not(arenite_loom))]
pub mod arena;
#[cfg(not(arenite_loom))]
pub mod array;
#[cfg(not(arenite_loom))]
mod control;
#[cfg(not(arenite_loom))]
pub mod engine;
#[cfg(all(feature = "image", not(arenite_loom)))]
pub mod image;
#[cfg(not(arenite_loom))]
pub mod kernel;
#[cfg_attr(arenite_loom, allow(dead_code, unused_imports))]
mod link;
#[cfg(not(arenite_loom))]
mod supervisor;
#[cfg_attr(arenite_loom, allow(dead_code))]
mod sync;
#[cfg(not(arenite_loom))]
mod sys;
#[cfg(all(feature = "bench", not(arenite_loom)))]
pub mod twins;
#[cfg(not(arenite_loom))]
mod worker;

#[cfg(not(arenite_loom))]
pub use arena::{ArenaFull, Backing};
#[cfg(not(arenite_loom))]
pub use array::{Array, ArrayMut, Element, Shape, TileMut};
#[cfg(not(arenite_loom))]
pub use engine::{
    BuildError, Engine, Guard, InputError, Job, JobError, JobErrorKind, Scope, Stats, as_completed,
};
#[cfg(not(arenite_loom))]
pub use kernel::{Kernel, Scalar};
#[cfg(not(arenite_loom))]
pub use worker::init;
