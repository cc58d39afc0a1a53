//! Locks, and named points where tests kill the process ([`point!`]).

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Marks a point between two steps of a protocol at which tests kill or stop the process. Its name must be listed in
/// `tests/support/points.rs`. Expands to nothing without the feature `points`.
macro_rules! point {
    ($name:literal) => {
        #[cfg(feature = "points")]
        {
            const INDEX: usize = arenite::points::index($name);
            arenite::points::pass(INDEX);
        }
    };
}
pub(crate) use point;

/// Locks a mutex, and ignores poisoning: a panic under a lock is a bug of this crate, and the value is still the best
/// there is.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
