//! Kernels: ordinary functions that a worker can run.
//!
//! A kernel is a function, or a closure that captures nothing. [`Param`] says what it may take,
//! [`Arg`] what its caller may pass for that, [`Reply`] what it may return. The two tuples of a call,
//! what the function takes and what the caller passes, are inferred apart: the first from the
//! function, the second from the call, so that `224` becomes the `u32` that the function wants and an
//! owned array from an iterator fits a parameter that borrows.
//!
//! What crosses is the distance of the monomorphised entry from the start of the executable. The
//! worker is the same executable; attaching compares build ids.

pub(crate) mod actor;
mod ahead;
mod entry;
mod extra;
mod host;
mod list;
mod param;
mod reply;
mod scalar;
mod seed;
mod shares;
mod spawn;
mod step;
mod subtree;
pub(crate) mod wire;

// What a program may name in a bound. What crosses, and how, it cannot name: that is how these traits are sealed.
pub use actor::{ByMut, ByRef, Init, Initial, Method, MethodParams};
pub use entry::{Args, Kernel, Loads, Params, Program, SplitFirst};
pub use param::{Arg, Param, RetrySafe};
pub use reply::{Reply, Value};
pub use scalar::Scalar;
pub use spawn::{Given, GivenParams};
pub use step::{Feed, NodeParams};

pub(crate) use ahead::Ahead;
pub(crate) use entry::{Chain, Single, Split, Stopped};
pub(crate) use entry::{Failure, KernelInfo, conjure, from_offset, kernel_name, to_offset};
pub(crate) use extra::{Extra, ExtraArg, Nothing};
pub(crate) use host::{Host, Unreachable};
pub(crate) use param::{CallWriter, Key};
#[cfg(test)]
pub(crate) use param::{HostRef, Words};
pub(crate) use reply::{
    AnyValue, BadReply, Receiving, Sending, SpawnedFailed, Unfolded, Unsent, reply_sealed,
};
pub(crate) use seed::{seed_in_series, seed_of_task};
pub(crate) use shares::{MOST_SHARES, SHARE_WORDS, Shares};
pub(crate) use spawn::{
    CHILDREN, GIVEN, MAX_ARRAYS, MOVED, NAME_LIMIT, SPAWNS, SpawnKernel, Spawning, spawning,
};
pub(crate) use spawn::{Giving, Source};
pub(crate) use step::{ChainWriter, Ended, Forward, NodeKernel, step_reached};
pub(crate) use step::{Kept, Loading, Slot};
pub(crate) use subtree::{Leaves, Subtree, Top, node};
