//! Kernels: ordinary functions that a worker can run.
//!
//! A kernel is a function, or a closure that captures nothing. [`kernel!`](crate::kernel!) makes one of a loop body and
//! the variables that it names, which are its last argument. [`Param`] lists the types that a kernel may take,
//! [`Arg`] the types that a caller may pass for each of them, [`Reply`] the types that a kernel may return. A call has
//! two tuple types, each inferred on its own: the parameters `P` from the function, the arguments `A` from the call. So
//! `224` becomes the `u32` that the function takes, and an owned array from an iterator fits a parameter that borrows.
//!
//! A kernel travels to a worker as the distance of its monomorphised entry from the start of the executable. The worker
//! is the same executable; the handshake compares build ids.

pub(crate) mod actor;
mod arity;
mod bind;
mod bytes;
mod entry;
mod error;
mod extra;
mod failure;
mod host;
mod inputs;
mod list;
mod names;
mod newtype;
mod owned;
mod param;
#[doc(hidden)]
pub mod raw;
mod reply;
mod scalar;
mod seed;
mod spawn;
mod subtree;
pub(crate) mod wire;

// Traits that a program may name in a bound. The types in their methods cannot be named, so programs cannot implement
// these traits.
pub use actor::Method;
pub use bind::Bound;
pub use bytes::Bytes;
pub use entry::{Args, Kernel, Params};
pub use error::{KernelError, Returned, Typed};
#[doc(hidden)]
pub use newtype::__private;
pub use owned::{OwnedParam, OwnedParams};
pub use param::{Arg, Param, RetrySafe};
pub use reply::Reply;
pub use scalar::Scalar;

// Other traits in the bounds of public methods. Programs rarely name them.
#[doc(hidden)]
pub use actor::{ByMut, ByRef, Initial, MethodParams};
#[doc(hidden)]
pub use bind::{Append, Bind, BoundItems};
#[doc(hidden)]
pub use entry::{Accepts, Program, SplitArgs, SplitFirst};
#[doc(hidden)]
pub use reply::Value;

pub(crate) use arity::for_each_arity;
pub(crate) use entry::{
    Chain, ErrorCheck, KernelInfo, Single, captures_nothing, from_offset, kernel_name, to_offset,
    zst_value,
};
pub(crate) use error::MAX_ERROR_BYTES;
pub(crate) use extra::{Extra, ExtraArg, Nothing};
pub(crate) use failure::{BadArgument, Failure, SpawnedFailed};
pub(crate) use host::{Host, Unreachable};
pub(crate) use inputs::{Input, Inputs};
pub(crate) use names::stored;
pub(crate) use param::{CallWriter, Key};
#[cfg(test)]
pub(crate) use param::{HostRef, Words};
pub(crate) use reply::{AnyValue, BadReply, Receiving, Sending, Unfolded, reply_sealed};
pub(crate) use seed::{seed_in_series, seed_of_task};
pub(crate) use spawn::{CHILDREN, GIVEN, MAX_ARRAYS, MOVED, NAME_LIMIT, SPAWNS};
pub(crate) use spawn::{Giving, Source, SpawnKernel, Spawning, spawning};
pub(crate) use subtree::{Leaves, Subtree, Top, node};
