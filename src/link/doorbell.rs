//! Sleeping on a word and waking whoever sleeps there: a futex, or in a model what a futex does.

#[cfg(not(arenite_loom))]
use std::time::Duration;

use crate::sync::AtomicU32;

/// Sleeps while the word still reads `seen`, at most `limit`. May return early.
#[cfg(not(arenite_loom))]
pub(crate) fn wait(word: &AtomicU32, seen: u32, limit: Option<Duration>) {
    let _ = crate::sys::futex::wait(word, seen, limit);
}

/// Wakes every sleeper of the word, and says how many.
#[cfg(not(arenite_loom))]
pub(crate) fn wake(word: &AtomicU32) -> usize {
    crate::sys::futex::wake(word, u32::MAX >> 1)
}

#[cfg(arenite_loom)]
pub(crate) use model::{wait, wait_any, wake};

/// A futex as the kernel makes it: a list of sleepers behind a lock, under which the word is compared.
/// Nobody is woken but by `wake`, so that a model in which the protocol forgets one ends in a deadlock.
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

    /// See the real one. A model has no clock, and so no limit.
    pub(crate) fn wait(word: &AtomicU32, seen: u32, _limit: Option<std::time::Duration>) {
        wait_any(&[(word, seen)]);
    }

    /// Sleeps on all of them, as `futex_waitv` does. That compares one after the other; who is woken on the way returns as well, so
    /// it is no less to compare them in one step.
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
        // Whoever takes an entry out of the list unparks.
        thread::park();
        let me = thread::current().id();
        sleepers().retain(|(_, thread)| thread.id() != me);
    }

    /// See the real one.
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
