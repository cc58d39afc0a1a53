//! Kinds of replies.

/// The kernel's value.
pub(crate) const VALUE: u8 = 0;
/// The text of the kernel's `Err`.
pub(crate) const RETURNED: u8 = 1;
/// Message, location and backtrace of a panic.
pub(crate) const PANICKED: u8 = 2;
/// The number of array handles that outlived the job. The worker then exits.
pub(crate) const ESCAPED: u8 = 3;
/// The numbers of an `ArenaFull`.
pub(crate) const ARENA_FULL: u8 = 4;
/// The arguments are invalid or refer to memory out of reach.
pub(crate) const BAD_ARGUMENTS: u8 = 5;
/// Jobs to run first, and the continuation that takes their values.
pub(crate) const SPAWN: u8 = 6;
/// No words: the job was cancelled between two of its parts.
pub(crate) const CANCELLED: u8 = 7;
/// The kernel's `Err` as text and as a value.
pub(crate) const TYPED_ERROR: u8 = 9;
