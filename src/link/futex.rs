//! Sleeping on a word and waking its sleepers: a futex, or its model under loom.

#[cfg(not(arenite_loom))]
use std::time::Duration;

use crate::sync::AtomicU32;

/// Sleeps while the word has the value `seen`, at most for `limit`. May return early.
#[cfg(not(arenite_loom))]
pub(crate) fn wait(word: &AtomicU32, seen: u32, limit: Option<Duration>) {
    let _ = crate::sys::futex::wait(word, seen, limit);
}

/// Wakes every sleeper of the word and returns their number.
#[cfg(not(arenite_loom))]
pub(crate) fn wake(word: &AtomicU32) -> usize {
    crate::sys::futex::wake(word, u32::MAX >> 1)
}

#[cfg(arenite_loom)]
pub(crate) use model::{wait, wait_any, wake};

/// A model of the futex of Linux: a list of sleepers behind a lock, under which the word is compared. Only `wake` wakes
/// a sleeper, so a lost wake-up in a model ends in a deadlock.
#[cfg(arenite_loom)]
mod model {
    use loom::sync::Mutex;
    use loom::thread::{self, Thread};

    use crate::sync::{AtomicU32, Ordering};

    loom::lazy_static! {
        static ref SLEEPERS: Mutex<Vec<(usize, Thread)>> = Mutex::new(Vec::new());
    }

    fn key(word: &AtomicU32) -> usize {
        std::ptr::from_ref(word) as usize
    }

    fn sleepers() -> loom::sync::MutexGuard<'static, Vec<(usize, Thread)>> {
        SLEEPERS.lock().expect("a model that panics is over")
    }

    /// Like the real `wait`, without a limit: a model has no clock.
    pub(crate) fn wait(word: &AtomicU32, seen: u32, _limit: Option<std::time::Duration>) {
        wait_any(&[(word, seen)]);
    }

    /// Sleeps on all words, like `futex_waitv`. Linux compares one word after the other, but also returns after a
    /// wake-up in between, so comparing all words in one step is equivalent.
    pub(crate) fn wait_any(words: &[(&AtomicU32, u32)]) {
        let mut all = sleepers();
        if words
            .iter()
            .any(|(word, seen)| word.load(Ordering::Relaxed) != *seen)
        {
            return;
        }
        all.extend(words.iter().map(|(word, _)| (key(word), thread::current())));
        drop(all);
        // `wake` removes the entry from the list and unparks.
        thread::park();
        let me = thread::current().id();
        sleepers().retain(|(_, thread)| thread.id() != me);
    }

    /// Like the real `wake`.
    pub(crate) fn wake(word: &AtomicU32) -> usize {
        let mut sleepers = sleepers();
        let (woken, others) = std::mem::take(&mut *sleepers)
            .into_iter()
            .partition(|(key_of, _)| *key_of == key(word));
        *sleepers = others;
        drop(sleepers);
        let woken: Vec<_> = woken;
        woken.iter().for_each(|(_, thread)| thread.unpark());
        woken.len()
    }
}
