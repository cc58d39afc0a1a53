//! arenite runs array and image kernels in separate worker processes, on shared memory.

pub mod arena;
pub mod array;
mod control;
pub mod engine;
#[cfg(feature = "image")]
pub mod image;
pub mod kernel;
mod link;
mod supervisor;
mod sync;
mod sys;
#[cfg(feature = "bench")]
pub mod twins;
mod worker;

pub use arena::{ArenaFull, Backing};
pub use array::{Array, ArrayMut, Element, Shape, TileMut};
pub use engine::{
    BuildError, Engine, Guard, InputError, Job, JobError, JobErrorKind, Scope, Stats, as_completed,
};
pub use kernel::{Kernel, Scalar};
pub use worker::init;
