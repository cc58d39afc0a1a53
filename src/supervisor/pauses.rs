//! Jobs that wait for their next attempt.

use std::collections::BTreeSet;
use std::time::Instant;

/// The jobs whose pause is not over, by its end and by record. Each has [`Stage::Waiting`](super::record::Stage).
#[derive(Debug, Default)]
pub(super) struct Pauses(BTreeSet<(Instant, u32)>);

impl Pauses {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn add(&mut self, due: Instant, record: u32) {
        self.0.insert((due, record));
    }

    pub(super) fn remove(&mut self, due: Instant, record: u32) {
        self.0.remove(&(due, record));
    }

    /// The pause that ends first.
    pub(super) fn first(&self) -> Option<(Instant, u32)> {
        self.0.first().copied()
    }
}
