//! Results as they end.

use std::fmt;
use std::time::Duration;

use super::{Feed, Map};
use crate::engine::JobError;

/// The iterator of [`Map::unordered`]: each result with the index of its item.
///
/// Dropping it cancels what is in flight.
#[must_use = "a map is lazy: nothing runs before it is iterated over"]
pub struct Unordered<I: Iterator, R> {
    pub(super) feed: Feed<I, R, usize>,
}

impl<I: Iterator, R> Map<I, R> {
    /// Gives each result as soon as its job has ended, with the index of the item, counted from 0. An item that takes
    /// long holds up no other.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// let items = [3u64, 1, 2];
    /// let squares = engine.map(|n: u64| n * n, items.map(|n| (n,)));
    /// for (index, square) in squares.unordered() {
    ///     assert_eq!(square?, items[index] * items[index]);
    /// }
    /// # Ok::<(), arenite::JobError>(())
    /// ```
    ///
    /// # Panics
    /// If results have been taken from the map already.
    #[doc(alias = "imap_unordered")]
    pub fn unordered(self) -> Unordered<I, R> {
        let (plan, shared) = self.feed.into_parts("unordered");
        Unordered {
            feed: Feed::new(plan, shared),
        }
    }
}

impl<I: Iterator, R> Unordered<I, R> {
    /// As `next`, but waits for a job no longer than this: see [`Map::next_timeout`].
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// use std::time::Duration;
    ///
    /// let mut squares = engine.map(|n: u64| n * n, [(3,)]).unordered();
    /// let (index, square) = squares.next_timeout(Duration::from_secs(10)).expect("it takes less");
    /// assert_eq!((index, square?), (0, 9));
    /// assert!(squares.next_timeout(Duration::ZERO).is_none() && squares.is_over());
    /// # Ok::<(), arenite::JobError>(())
    /// ```
    pub fn next_timeout(&mut self, limit: Duration) -> Option<(usize, Result<R, JobError>)> {
        self.feed.next_timeout(limit)
    }

    /// Were all results given? Known when somebody has asked for one more.
    pub fn is_over(&self) -> bool {
        self.feed.is_over()
    }
}

impl<I: Iterator, R> Iterator for Unordered<I, R> {
    type Item = (usize, Result<R, JobError>);

    fn next(&mut self) -> Option<Self::Item> {
        self.feed.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.feed.size_hint()
    }
}

impl<I: Iterator, R> fmt::Debug for Unordered<I, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unordered")
            .field("kernel", &self.feed.plan.calls.kernel.name)
            .field("in_flight", &self.feed.in_flight())
            .finish_non_exhaustive()
    }
}
