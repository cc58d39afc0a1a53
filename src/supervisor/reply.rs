//! Reads a reply into a value of the program's type.

use std::cell::Cell;
use std::mem::forget;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::error::JobErrorKind;
use crate::kernel::{BadReply, Receiving};

/// Why a reply cannot be read.
pub(super) enum Unreadable {
    /// It is not a reply that the job's kernel can have sent.
    Malformed,
    /// The program's own check of a type panicked.
    CheckPanicked(JobErrorKind),
}

/// Reads a reply inside a `catch_unwind` guard: a type of the program may have a check or a conversion of its own, and
/// a panic in it must not leave the engine's state half changed. The panic's payload is leaked, because its drop could
/// panic again under the lock.
pub(super) fn read_guarded<R>(read: impl FnOnce() -> Result<R, BadReply>) -> Result<R, Unreadable> {
    IS_READING.set(true);
    let guarded = || catch_unwind(AssertUnwindSafe(read));
    #[cfg(feature = "points")]
    let value = super::hold_time::uncounted(guarded);
    #[cfg(not(feature = "points"))]
    let value = guarded();
    IS_READING.set(false);
    match value {
        Ok(value) => value.map_err(|BadReply| Unreadable::Malformed),
        Err(panic) => Err(Unreadable::CheckPanicked(JobErrorKind::caught_panic(
            panic, forget,
        ))),
    }
}

thread_local! {
    /// Whether this thread reads a reply while it holds the lock of an engine.
    static IS_READING: Cell<bool> = const { Cell::new(false) };
}

/// Rejects calls of an engine from code of the program that reads a reply: this thread holds the lock of the engine
/// whose reply it reads.
///
/// # Panics
///
/// If this thread is reading a reply.
#[inline]
pub(super) fn assert_not_reading() {
    assert!(
        !IS_READING.get(),
        "a type calls an engine, or drops a handle of one, while its value is read from a reply: its check \
         (`CheckedBitPattern`), its conversion (`newtype!`) or its `from_bytes` (`KernelError`) may do nothing else \
         than make the value"
    );
}

/// Converts a reply into a value.
pub(crate) type Read<R> = fn(&mut Receiving<'_>) -> Result<R, BadReply>;
