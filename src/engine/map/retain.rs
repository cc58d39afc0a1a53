//! Copies of items, kept until their jobs have ended.

use std::collections::VecDeque;

use crate::engine::{JobError, JobFailure};
use crate::kernel::Key;

/// An iterator of items that stores a copy of each item until the item's result is returned.
pub(super) struct Retaining<I: Iterator, E: JobFailure> {
    items: I,
    retain: fn(&I::Item) -> E::Retained,
    pulled: usize,
    /// The copies with the indices of their items, in order.
    retained: VecDeque<(usize, E::Retained)>,
}

impl<I: Iterator, E: JobFailure> Retaining<I, E> {
    pub(super) fn new(items: I, retain: fn(&I::Item) -> E::Retained) -> Self {
        Self {
            items,
            retain,
            pulled: 0,
            retained: VecDeque::new(),
        }
    }

    pub(super) fn into_items(self) -> I {
        self.items
    }

    /// Converts a result into the form that the map returns. Called once for each item. `is_last`: whether a failure
    /// ends the map.
    pub(super) fn answer<R>(
        &mut self,
        index: usize,
        result: Result<R, JobError>,
        is_last: bool,
    ) -> Result<R, E> {
        let retained = self.take(index);
        result.map_err(|error| {
            if is_last {
                // The other jobs were abandoned, so their copies are not needed.
                self.retained.clear();
            }
            E::from_error(index, retained, error, Key::new())
        })
    }

    fn take(&mut self, index: usize) -> E::Retained {
        if let Some(nothing) = E::NOTHING {
            return nothing;
        }
        let found = match self.retained.front() {
            // If results are returned in order, this copy is always the first.
            Some(&(first, _)) if first == index => Ok(0),
            _ => self
                .retained
                .binary_search_by_key(&index, |&(index, _)| index),
        };
        let retained = found.ok().and_then(|at| self.retained.remove(at));
        retained.expect("a result belongs to an item").1
    }
}

impl<I: Iterator, E: JobFailure> Iterator for Retaining<I, E> {
    type Item = I::Item;

    fn next(&mut self) -> Option<I::Item> {
        let item = self.items.next()?;
        if E::NOTHING.is_none() {
            self.retained.push_back((self.pulled, (self.retain)(&item)));
            self.pulled += 1;
        }
        Some(item)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.items.size_hint()
    }
}
