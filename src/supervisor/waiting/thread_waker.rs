//! A thread that waits for news of several kinds: it sleeps on a word of its own, which wakers ring, and on words of others.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use super::LOOK_AGAIN;
use crate::sys::futex;

/// Nobody sleeps here, and nobody has rung.
const QUIET: u32 = 0;
/// It has rung since the last sleep.
const RUNG: u32 = 1;
/// The thread sleeps, or is about to.
const ASLEEP: u32 = 2;

/// Rings where a thread sleeps: not in the token of `unpark`, which whatever else sleeps in that thread meanwhile, in a waker that it
/// calls, may use up.
struct Bell(AtomicU32);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        // Release: what was done before is seen by whoever finds that it rang; pairs with the swaps in `sleep_on`.
        if self.0.swap(RUNG, Ordering::Release) == ASLEEP {
            futex::wake(&self.0, 1);
        }
    }
}

/// After so many sleeps for nothing in a row, on words of others, the thread sleeps on its own for a [`MOMENT`]: a worker that keeps
/// changing its word wakes it only so often.
const IN_VAIN: u32 = 64;
const MOMENT: Duration = Duration::from_millis(1);

/// Words of others on which a thread sleeps beside its own, with what each has to hold until then. Workers may write to them, so it
/// looks again from time to time.
#[derive(Debug, Default)]
pub(crate) struct Words<'s>(Vec<(&'s AtomicU32, u32)>);

impl<'s> Words<'s> {
    /// One is kept for the thread's own.
    pub(in crate::supervisor) fn has_room(&self) -> bool {
        self.0.len() + 1 < futex::MAX_WORDS
    }

    pub(in crate::supervisor) fn push(&mut self, word: &'s AtomicU32, holds: u32) {
        self.0.push((word, holds));
    }
}

/// What wakes this thread.
pub(in crate::supervisor) struct ThreadBell {
    bell: Arc<Bell>,
    waker: Waker,
}

impl ThreadBell {
    pub(in crate::supervisor) fn new() -> Self {
        let bell = Arc::new(Bell(AtomicU32::new(QUIET)));
        let waker = Waker::from(Arc::clone(&bell));
        Self { bell, waker }
    }

    pub(in crate::supervisor) fn waker(&self) -> &Waker {
        &self.waker
    }

    /// Sleeps until it has rung since the last sleep, or the time runs out.
    pub(in crate::supervisor) fn sleep(&self, until: Option<Instant>) {
        while !self.sleep_on(&Words::default(), until) {
            if until.is_some_and(|until| until <= Instant::now()) {
                return;
            }
        }
    }

    /// Sleeps once, also on these words. True: it has rung since the last sleep.
    fn sleep_on(&self, words: &Words<'_>, until: Option<Instant>) -> bool {
        let word = &self.bell.0;
        // Relaxed: nothing is published by it; whether it has rung is asked below.
        let quiet = word.compare_exchange(QUIET, ASLEEP, Ordering::Relaxed, Ordering::Relaxed);
        if quiet.is_ok() {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            let _ = if words.0.is_empty() {
                futex::wait(word, ASLEEP, left)
            } else {
                let all: Vec<_> = [(word, ASLEEP)].iter().chain(&words.0).copied().collect();
                let left = left.map_or(LOOK_AGAIN, |left| left.min(LOOK_AGAIN));
                futex::wait_any(&all, Some(left))
            };
        }
        // Acquire: pairs with the swap of the waker.
        word.swap(QUIET, Ordering::Acquire) == RUNG
    }
}

/// Asks again and again, whenever the waker was called or something has happened to the words that the question has left; `None` if
/// the time runs out before there is something.
pub(crate) fn park_until<'s, T>(
    limit: Option<Duration>,
    mut ask: impl FnMut(&Waker, &mut Words<'s>) -> Option<T>,
) -> Option<T> {
    // A limit beyond all clocks is none.
    let until = limit.and_then(|limit| Instant::now().checked_add(limit));
    let bell = ThreadBell::new();
    let mut words = Words::default();
    let mut sleeps = 0u32;
    loop {
        words.0.clear();
        if let Some(found) = ask(bell.waker(), &mut words) {
            return Some(found);
        }
        if until.is_some_and(|until| until <= Instant::now()) {
            return None;
        }
        if words.0.is_empty() {
            bell.sleep(until);
            continue;
        }
        sleeps = sleeps.wrapping_add(1);
        if sleeps.is_multiple_of(IN_VAIN) {
            bell.sleep_on(&Words::default(), Some(Instant::now() + MOMENT));
        } else {
            bell.sleep_on(&words, until);
        }
    }
}
