//! The jobs that no lane has, by priority, first in first out within each.

use std::collections::VecDeque;

use super::job_table::JobTable;
use super::options::Priority;
use super::record::{Record, Stage};

/// Entries that may name nothing before they are swept out.
const SLACK: usize = 64;

/// A queued job, as long as its record says the same.
#[derive(Clone, Copy, Debug)]
struct Entry {
    index: u32,
    generation: u32,
}

impl Entry {
    fn is_live(self, records: &JobTable) -> bool {
        let record = records.look(self.index);
        record.generation == self.generation && record.stage == Stage::Queued
    }
}

/// See the module. Each job whose stage is [`Stage::Queued`] has exactly one entry.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Lowest priority first.
    classes: [VecDeque<Entry>; 3],
    /// Those that wait for a worker of their own, first in first out.
    alone: VecDeque<Entry>,
    /// Entries of each class that name a job.
    live: [usize; 3],
    /// Those that wait for a worker of their own.
    live_alone: usize,
}

impl Queue {
    #[inline]
    pub(super) fn push_back(&mut self, index: u32, record: &Record) {
        let class = self.count_in(record);
        class.push_back(entry(index, record));
    }

    /// For a job that was taken back: it is older than what waits.
    #[inline]
    pub(super) fn push_front(&mut self, index: u32, record: &Record) {
        let class = self.count_in(record);
        class.push_front(entry(index, record));
    }

    /// Where a job goes; it is counted.
    #[inline]
    fn count_in(&mut self, record: &Record) -> &mut VecDeque<Entry> {
        if record.is_alone() {
            self.live_alone += 1;
            return &mut self.alone;
        }
        let class = record.priority() as usize;
        self.live[class] += 1;
        &mut self.classes[class]
    }

    /// Takes out the next job that waits for a worker of its own.
    pub(super) fn pop_alone(&mut self, records: &JobTable) -> Option<u32> {
        while let Some(entry) = self.alone.pop_front() {
            if entry.is_live(records) {
                self.live_alone -= 1;
                return Some(entry.index);
            }
        }
        None
    }

    /// Takes out a job, of whatever kind.
    pub(super) fn pop_any(&mut self, records: &JobTable) -> Option<u32> {
        self.pop_alone(records).or_else(|| self.pop(records))
    }

    /// Takes out the next job that may run beside others.
    #[inline]
    pub(super) fn pop(&mut self, records: &JobTable) -> Option<u32> {
        for (class, live) in self.classes.iter_mut().zip(&mut self.live).rev() {
            while let Some(entry) = class.pop_front() {
                if entry.is_live(records) {
                    *live -= 1;
                    return Some(entry.index);
                }
            }
        }
        None
    }

    /// A queued job is given up: its record is about to say so.
    pub(super) fn give_up(&mut self, index: u32, records: &JobTable) {
        let record = records.look(index);
        if record.is_alone() {
            self.live_alone -= 1;
        } else {
            self.live[record.priority() as usize] -= 1;
        }
        let classes = self.classes.iter().chain([&self.alone]);
        let entries: usize = classes.map(VecDeque::len).sum();
        if entries > 2 * self.len() + SLACK {
            for class in self.classes.iter_mut().chain([&mut self.alone]) {
                class.retain(|entry| entry.is_live(records));
            }
        }
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.live.iter().sum::<usize>() + self.live_alone
    }

    /// Does nothing wait that may run beside others?
    #[inline]
    pub(super) fn is_clear(&self) -> bool {
        self.live == [0; 3]
    }

    /// Does something wait for a worker of its own?
    #[inline]
    pub(super) fn has_alone(&self) -> bool {
        self.live_alone > 0
    }

    /// Does nothing wait that has this priority or a higher one?
    pub(super) fn has_none_from(&self, priority: Priority) -> bool {
        let mut classes = self.live[priority as usize..].iter();
        classes.all(|&live| live == 0)
    }

    /// The jobs in their order.
    #[cfg(test)]
    pub(super) fn in_order(&self, records: &JobTable) -> Vec<u32> {
        let entries = self.classes.iter().rev().chain([&self.alone]).flatten();
        let live = entries.filter(|entry| entry.is_live(records));
        live.map(|entry| entry.index).collect()
    }

    /// Entries, those that name nothing included.
    #[cfg(test)]
    pub(super) fn entries(&self) -> usize {
        let classes = self.classes.iter().chain([&self.alone]);
        classes.map(VecDeque::len).sum()
    }
}

fn entry(index: u32, record: &Record) -> Entry {
    Entry {
        index,
        generation: record.generation,
    }
}
