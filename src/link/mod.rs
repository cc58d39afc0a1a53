#![doc = include_str!("README.md")]

#[cfg(not(arenite_loom))]
mod attach;
mod cells;
mod doorbell;
#[cfg(all(test, arenite_loom))]
mod loom;
#[cfg(not(arenite_loom))]
mod neighbours;
mod poster;
mod recorder;
mod span;
mod state;
mod taker;
#[cfg(all(test, not(arenite_loom)))]
mod tests;

pub(crate) use cells::{
    CallSlot, INLINE_WORDS, LOW_SHIFT, LinkCells, MORE, REFUSAL_WORDS, SLOTS, SPARE, SPILLED, SPIN,
    STAMPED, STOP, control_bytes,
};
#[cfg(not(arenite_loom))]
pub(crate) use neighbours::Neighbours;
pub(crate) use poster::{Call, Drained, Poster, Reply, Want, after_keeping};
pub(crate) use recorder::{Phase, steps};
pub(crate) use state::{Ask, CANCEL, NOTICE, Retract, WAITER, is_open};
pub(crate) use taker::{Answer, Answering, Granted, NO_GRANT, Next, Taker};

/// What a reply is.
pub(crate) mod kind {
    /// The kernel's value.
    pub(crate) const VALUE: u8 = 0;
    /// The text of the kernel's `Err`.
    pub(crate) const RETURNED: u8 = 1;
    /// Message, location and backtrace of a panic.
    pub(crate) const PANICKED: u8 = 2;
    /// Handles that outlived the job: their number. The worker ends itself.
    pub(crate) const ESCAPED: u8 = 3;
    /// The numbers of an `ArenaFull`.
    pub(crate) const ARENA_FULL: u8 = 4;
    /// Arguments that this worker cannot accept.
    pub(crate) const BAD_ARGUMENTS: u8 = 5;
    /// No value yet: jobs that are to run first, and what goes on with theirs.
    pub(crate) const SPAWN: u8 = 6;
    /// Nothing: it was asked to stop, and did so between two of its parts.
    pub(crate) const CANCELLED: u8 = 7;
    /// A chain's value, and how its time is spread over its nodes.
    pub(crate) const TIMED: u8 = 8;
}
