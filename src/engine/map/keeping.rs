//! Results beside the arguments of what failed.

use std::collections::VecDeque;
use std::fmt;

use super::{DeadLetter, Feed, Map, OnFailure};
use crate::engine::JobError;

/// Items, and copies of those whose answers have not been given.
pub(super) struct Remembering<I: Iterator> {
    items: I,
    pulled: usize,
    /// With their places, the first one first.
    kept: VecDeque<(usize, I::Item)>,
}

impl<I: Iterator> Remembering<I> {
    /// The copy of an item whose answer is given. Each is answered once.
    fn take(&mut self, index: usize) -> I::Item {
        let found = match self.kept.front() {
            // In order it always is.
            Some(&(first, _)) if first == index => Ok(0),
            _ => self.kept.binary_search_by_key(&index, |&(place, _)| place),
        };
        let kept = found.ok().and_then(|at| self.kept.remove(at));
        kept.expect("an answer is that of an item").1
    }
}

impl<I: Iterator<Item: Clone>> Iterator for Remembering<I> {
    type Item = I::Item;

    fn next(&mut self) -> Option<I::Item> {
        let item = self.items.next()?;
        self.kept.push_back((self.pulled, item.clone()));
        self.pulled += 1;
        Some(item)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.items.size_hint()
    }
}

impl<I: Iterator<Item: Clone>, R, K> Feed<Remembering<I>, R, K> {
    /// The answer of the item at this place, as it is given.
    fn with_args(
        &mut self,
        index: usize,
        answer: Result<R, JobError>,
    ) -> Result<R, DeadLetter<I::Item>> {
        let items = &mut self.plan.items;
        let args = items.take(index);
        if answer.is_err() && self.plan.on_failure == OnFailure::Stop {
            // It is the last one: the others were given up.
            items.kept.clear();
        }
        answer.map_err(|error| DeadLetter::new(index, args, error))
    }
}

/// The iterator of [`Map::keep_args`].
///
/// Dropping it cancels what is in flight.
#[must_use = "a map is lazy: nothing runs before it is iterated over"]
pub struct KeepingArgs<I: Iterator<Item: Clone>, R> {
    pub(super) feed: Feed<Remembering<I>, R, ()>,
    given: usize,
}

/// The iterator of [`KeepingArgs::unordered`].
///
/// Dropping it cancels what is in flight.
#[must_use = "a map is lazy: nothing runs before it is iterated over"]
pub struct UnorderedKeepingArgs<I: Iterator<Item: Clone>, R> {
    pub(super) feed: Feed<Remembering<I>, R, usize>,
}

impl<I: Iterator<Item: Clone>, R> Map<I, R> {
    /// Gives a [`DeadLetter`] for each job that fails: with the arguments, of which a copy is kept until the job has
    /// ended. A copy of an array is another handle.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// fn positive(n: i32) -> Result<i32, &'static str> {
    ///     if n > 0 { Ok(n) } else { Err("not positive") }
    /// }
    ///
    /// let items = [3, -4, 5].map(|n| (n,));
    /// for result in engine.map(positive, items).keep_args() {
    ///     if let Err(letter) = result {
    ///         assert_eq!((letter.index(), letter.args()), (1, &(-4,)));
    ///     }
    /// }
    /// ```
    ///
    /// Arguments that a job changes in place are gone with it; there is no copy of them to keep:
    ///
    /// ```compile_fail,E0599
    /// # let engine = arenite::Engine::inline();
    /// use arenite::ArrayMut;
    ///
    /// fn fill(mut values: ArrayMut<u32>) -> ArrayMut<u32> {
    ///     values.fill(1);
    ///     values
    /// }
    ///
    /// let items = (0..4).map(|n| (engine.zeros::<u32>(n).unwrap(),));
    /// let filled = engine.map(fill, items).keep_args();
    /// ```
    ///
    /// # Panics
    /// If results have been taken from the map already.
    pub fn keep_args(self) -> KeepingArgs<I, R> {
        let (plan, shared) = self.feed.into_parts("keep_args");
        let mut plan = plan.with(|items| Remembering {
            items,
            pulled: 0,
            kept: VecDeque::new(),
        });
        plan.kept = 1;
        KeepingArgs {
            feed: Feed::new(plan, shared),
            given: 0,
        }
    }
}

impl<I: Iterator<Item: Clone>, R> KeepingArgs<I, R> {
    /// Gives each result as soon as its job has ended, with the index of the item, as [`Map::unordered`] does: a failure is
    /// known while others still run, and may be sent again at once.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// fn fetch(page: u32, patience: u32) -> Result<u32, String> {
    ///     if page < patience { Ok(page * 10) } else { Err(format!("page {page} took too long")) }
    /// }
    ///
    /// let pages = engine.map(fetch, (0..4).map(|page| (page, 3))).keep_args().unordered();
    /// let (mut sum, mut again) = (0, Vec::new());
    /// for (_, result) in pages {
    ///     match result {
    ///         Ok(value) => sum += value,
    ///         // With more patience.
    ///         Err(letter) => again.push(engine.submit(fetch, (letter.into_args().0, 100))),
    ///     }
    /// }
    /// assert_eq!((sum, again.len()), (30, 1));
    /// for job in again {
    ///     sum += job.wait()?;
    /// }
    /// assert_eq!(sum, 60);
    /// # Ok::<(), arenite::JobError>(())
    /// ```
    ///
    /// # Panics
    /// If results have been taken already.
    pub fn unordered(self) -> UnorderedKeepingArgs<I, R> {
        let (plan, shared) = self.feed.into_parts("unordered");
        UnorderedKeepingArgs {
            feed: Feed::new(plan, shared),
        }
    }

    pub(super) fn letter(&mut self, answer: Result<R, JobError>) -> Result<R, DeadLetter<I::Item>> {
        let index = self.given;
        self.given += 1;
        self.feed.with_args(index, answer)
    }
}

impl<I: Iterator<Item: Clone>, R> UnorderedKeepingArgs<I, R> {
    pub(super) fn letter(
        &mut self,
        (index, answer): (usize, Result<R, JobError>),
    ) -> (usize, Result<R, DeadLetter<I::Item>>) {
        (index, self.feed.with_args(index, answer))
    }
}

impl<I: Iterator<Item: Clone>, R> Iterator for KeepingArgs<I, R> {
    type Item = Result<R, DeadLetter<I::Item>>;

    fn next(&mut self) -> Option<Self::Item> {
        let ((), answer) = self.feed.next()?;
        Some(self.letter(answer))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.feed.size_hint()
    }
}

impl<I: Iterator<Item: Clone>, R> Iterator for UnorderedKeepingArgs<I, R> {
    type Item = (usize, Result<R, DeadLetter<I::Item>>);

    fn next(&mut self) -> Option<Self::Item> {
        let answer = self.feed.next()?;
        Some(self.letter(answer))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.feed.size_hint()
    }
}

impl<I: Iterator<Item: Clone>, R> fmt::Debug for KeepingArgs<I, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeepingArgs")
            .field("kernel", &self.feed.plan.calls.kernel.name)
            .field("in_flight", &self.feed.in_flight())
            .finish_non_exhaustive()
    }
}

impl<I: Iterator<Item: Clone>, R> fmt::Debug for UnorderedKeepingArgs<I, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnorderedKeepingArgs")
            .field("kernel", &self.feed.plan.calls.kernel.name)
            .field("in_flight", &self.feed.in_flight())
            .finish_non_exhaustive()
    }
}
