#![doc = include_str!("README.md")]

#[cfg(not(arenite_loom))]
mod attach;
mod cells;
mod consumer;
mod futex;
#[cfg(arenite_loom)]
#[path = "../kernel/wire/kind.rs"]
pub(crate) mod kind;
#[cfg(all(test, arenite_loom))]
mod loom;
#[cfg(not(arenite_loom))]
mod neighbours;
mod producer;
mod recorder;
mod span;
#[cfg(not(arenite_loom))]
mod spin;
mod state;
#[cfg(all(test, not(arenite_loom)))]
mod tests;

#[cfg(not(arenite_loom))]
pub(crate) use crate::kernel::wire::kind;
pub(crate) use cells::{
    BACKLOG, CallSlot, INLINE_WORDS, LOW_SHIFT, LinkCells, MAX_RETAINED, REFUSAL_WORDS, SLOTS,
    SPILLED, SPIN, STAMPED, STEALABLE, STOP, control_bytes,
};
pub(crate) use consumer::{AllocAnswer, Consumer, Granted, NO_GRANT, Next, OutgoingReply};
#[cfg(not(arenite_loom))]
pub(crate) use neighbours::Neighbours;
pub(crate) use producer::{AllocRequest, Call, Drained, Producer, Reply, fence_after_queueing};
pub(crate) use recorder::{Phase, steps};
#[cfg(not(arenite_loom))]
pub(crate) use spin::SpinLimit;
pub(crate) use state::{Ask, CANCEL, NOTICE, Retract, WAITER, is_open, is_running};
