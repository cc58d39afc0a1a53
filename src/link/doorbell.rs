//! Sleeping on a word and waking whoever sleeps there: a futex, or under loom a scheduler's yield.

#[cfg(not(arenite_loom))]
use std::time::Duration;

use crate::sync::AtomicU32;

/// Sleeps while the word still reads `seen`, at most `limit`. May return early.
#[cfg(not(arenite_loom))]
pub(crate) fn wait(word: &AtomicU32, seen: u32, limit: Option<Duration>) {
    let _ = crate::sys::futex::wait(word, seen, limit);
}

/// Wakes every sleeper of the word.
#[cfg(not(arenite_loom))]
pub(crate) fn wake(word: &AtomicU32) {
    crate::sys::futex::wake(word, u32::MAX >> 1);
}

/// In a model nobody is woken by hand: a sleeper looks whenever the scheduler lets it. A wake-up
/// that the protocol forgets shows as a word that never changes.
#[cfg(arenite_loom)]
pub(crate) fn wait(word: &AtomicU32, seen: u32, _limit: Option<std::time::Duration>) {
    while word.load(crate::sync::Ordering::Relaxed) == seen {
        loom::thread::yield_now();
    }
}

/// See [`wait`].
#[cfg(arenite_loom)]
pub(crate) fn wake(_word: &AtomicU32) {}
