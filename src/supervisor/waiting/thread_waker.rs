//! Waiting for several kinds of events: the thread sleeps on a word of its own, which its waker changes, and on state
//! words of jobs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use super::LOOK_AGAIN;
use crate::sync::FIRST_COUNT;
use crate::sys::futex;

/// The thread does not sleep, and was not woken since its last sleep.
const QUIET: u32 = 0;
/// The thread was woken since its last sleep.
const RUNG: u32 = 1;
/// The thread sleeps, or is about to.
const ASLEEP: u32 = 2;

/// Wakes the thread through its own futex word. Not `unpark`: code run from a waker on this thread may park and consume
/// the token.
struct WakeWord(AtomicU32);

impl Wake for WakeWord {
    fn wake(self: Arc<Self>) {
        // Release: "woken", pairs with the swap in `sleep_on`. Everything before the call to `wake` is visible to the
        // woken thread.
        if self.0.swap(RUNG, Ordering::Release) == ASLEEP {
            futex::wake(&self.0, 1);
        }
    }
}

/// After this number of consecutive sleeps without an event, the thread sleeps for a [`MOMENT`] on its own word only.
/// This limits how often a worker that changes its state word continuously can wake the thread.
const IN_VAIN: u32 = 64;
const MOMENT: Duration = Duration::from_millis(1);

/// State words on which a thread sleeps in addition to its own word, with the values that they have until the event.
/// Workers may write to them, so the thread checks its condition from time to time.
#[derive(Debug, Default)]
pub(crate) struct Words<'s>(Vec<(&'s AtomicU32, u32)>);

impl<'s> Words<'s> {
    /// Returns true if there is room for another word, besides the thread's own.
    pub(in crate::supervisor) fn has_room(&self) -> bool {
        self.0.len() + 1 < futex::MAX_WORDS
    }

    pub(in crate::supervisor) fn push(&mut self, word: &'s AtomicU32, holds: u32) {
        self.0.push((word, holds));
    }
}

/// The waker of this thread.
pub(in crate::supervisor) struct ThreadWaker {
    word: Arc<WakeWord>,
    waker: Waker,
}

impl ThreadWaker {
    pub(in crate::supervisor) fn new() -> Self {
        let word = Arc::new(WakeWord(AtomicU32::new(QUIET)));
        let waker = Waker::from(Arc::clone(&word));
        Self { word, waker }
    }

    pub(in crate::supervisor) fn waker(&self) -> &Waker {
        &self.waker
    }

    /// Sleeps until the thread is woken, or returns at once if it was woken since its last sleep, or after the time
    /// limit.
    pub(in crate::supervisor) fn sleep(&self, until: Option<Instant>) {
        while !self.sleep_on(&Words::default(), until) {
            if until.is_some_and(|until| until <= Instant::now()) {
                return;
            }
        }
    }

    /// Sleeps once, also on these words. Returns true if the thread was woken since its last sleep.
    fn sleep_on(&self, words: &Words<'_>, until: Option<Instant>) -> bool {
        let word = &self.word.0;
        // Relaxed: it publishes nothing; the swap below reads whether the thread was woken.
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
        // Acquire: pairs with the Release in `wake`.
        word.swap(QUIET, Ordering::Acquire) == RUNG
    }
}

/// Calls `ask` until it returns a value: again each time that the waker is called, or a word that `ask` has added
/// changes. Returns `None` if the time limit passes first.
pub(crate) fn park_until<'s, T>(
    limit: Option<Duration>,
    mut ask: impl FnMut(&Waker, &mut Words<'s>) -> Option<T>,
) -> Option<T> {
    // A limit beyond the range of the clock counts as no limit.
    let until = limit.and_then(|limit| Instant::now().checked_add(limit));
    let thread = ThreadWaker::new();
    let mut words = Words::default();
    let mut sleeps = FIRST_COUNT;
    loop {
        words.0.clear();
        if let Some(found) = ask(thread.waker(), &mut words) {
            return Some(found);
        }
        if until.is_some_and(|until| until <= Instant::now()) {
            return None;
        }
        if words.0.is_empty() {
            thread.sleep(until);
            continue;
        }
        sleeps = sleeps.wrapping_add(1);
        if sleeps.is_multiple_of(IN_VAIN) {
            thread.sleep_on(&Words::default(), Some(Instant::now() + MOMENT));
        } else {
            thread.sleep_on(&words, until);
        }
    }
}
