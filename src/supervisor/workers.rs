//! The workers of an engine.

use std::ops::{Deref, DerefMut};

use super::worker::{Status, Worker};

/// All workers of an engine, including the spares.
#[derive(Debug)]
pub(super) struct Workers(Vec<Worker>);

impl Workers {
    /// Returns this number of workers without a process.
    pub(super) fn new(count: usize) -> Self {
        Self((0..count).map(|_| Worker::new()).collect())
    }

    /// Returns the workers with this status.
    pub(super) fn with_status(&self, status: Status) -> impl Iterator<Item = usize> {
        let workers = self.0.iter().enumerate();
        let with = workers.filter(move |(_, worker)| worker.status() == status);
        with.map(|(index, _)| index)
    }

    /// Returns the number of workers by which the active ones fall short of `most`.
    pub(super) fn missing(&self, most: usize) -> usize {
        let count = |status| self.with_status(status).count();
        most.saturating_sub(count(Status::Ready) + count(Status::Leaving))
    }
}

impl Deref for Workers {
    type Target = [Worker];

    #[inline]
    fn deref(&self) -> &[Worker] {
        &self.0
    }
}

impl DerefMut for Workers {
    #[inline]
    fn deref_mut(&mut self) -> &mut [Worker] {
        &mut self.0
    }
}
