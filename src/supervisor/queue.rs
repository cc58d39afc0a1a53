//! The jobs that no lane has, by priority, first in first out within each.

use std::collections::VecDeque;

use super::policy::Priority;
use super::record::{Record, Records, Stage};

/// Entries that may name nothing before they are swept out.
const SLACK: usize = 64;

/// A queued job, as long as its record says the same.
#[derive(Clone, Copy, Debug)]
struct Entry {
    index: u32,
    generation: u32,
}

impl Entry {
    fn is_live(self, records: &Records) -> bool {
        let record = records.look(self.index);
        record.generation == self.generation && record.stage == Stage::Queued
    }
}

/// See the module. Each job whose stage is [`Stage::Queued`] has exactly one entry.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Lowest priority first.
    classes: [VecDeque<Entry>; 3],
    /// Entries that name a job.
    live: usize,
}

impl Queue {
    #[inline]
    pub(super) fn push_back(&mut self, index: u32, record: &Record) {
        self.live += 1;
        self.classes[record.priority() as usize].push_back(entry(index, record));
    }

    /// For a job that was taken back: it is older than what waits.
    #[inline]
    pub(super) fn push_front(&mut self, index: u32, record: &Record) {
        self.live += 1;
        self.classes[record.priority() as usize].push_front(entry(index, record));
    }

    /// Takes out the next job.
    #[inline]
    pub(super) fn pop(&mut self, records: &Records) -> Option<u32> {
        for class in self.classes.iter_mut().rev() {
            while let Some(entry) = class.pop_front() {
                if entry.is_live(records) {
                    self.live -= 1;
                    return Some(entry.index);
                }
            }
        }
        None
    }

    /// A queued job is given up: its record is about to say so.
    pub(super) fn give_up(&mut self, records: &Records) {
        self.live -= 1;
        let entries: usize = self.classes.iter().map(VecDeque::len).sum();
        if entries > 2 * self.live + SLACK {
            for class in &mut self.classes {
                class.retain(|entry| entry.is_live(records));
            }
        }
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.live == 0
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.live
    }

    /// Does nothing wait that has this priority or a higher one?
    pub(super) fn has_none_from(&self, priority: Priority) -> bool {
        let mut classes = self.classes[priority as usize..].iter();
        classes.all(VecDeque::is_empty)
    }

    /// The jobs in their order.
    #[cfg(test)]
    pub(super) fn in_order(&self, records: &Records) -> Vec<u32> {
        let entries = self.classes.iter().rev().flatten();
        let live = entries.filter(|entry| entry.is_live(records));
        live.map(|entry| entry.index).collect()
    }

    /// Entries, those that name nothing included.
    #[cfg(test)]
    pub(super) fn entries(&self) -> usize {
        self.classes.iter().map(VecDeque::len).sum()
    }
}

fn entry(index: u32, record: &Record) -> Entry {
    Entry {
        index,
        generation: record.generation,
    }
}
