//! The jobs that no lane has, by priority, first in first out within each.

use std::collections::VecDeque;

use super::job_table::JobTable;
use super::options::Priority;
use super::record::{Record, Stage};

/// Entries without a job before they are swept out.
const SLACK: usize = 64;

/// A queued job, as long as its record agrees.
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

/// Each job with [`Stage::Queued`] has exactly one entry.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Lowest priority first.
    classes: [VecDeque<Entry>; 3],
    /// Exclusive jobs.
    exclusive: VecDeque<Entry>,
    /// Entries of each class that have a job.
    live: [usize; 3],
    /// Exclusive jobs that wait.
    live_exclusive: usize,
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

    /// The class of a job, in which it is counted.
    #[inline]
    fn count_in(&mut self, record: &Record) -> &mut VecDeque<Entry> {
        if record.is_exclusive() {
            self.live_exclusive += 1;
            return &mut self.exclusive;
        }
        let class = record.priority() as usize;
        self.live[class] += 1;
        &mut self.classes[class]
    }

    /// Takes the next exclusive job.
    pub(super) fn pop_exclusive(&mut self, records: &JobTable) -> Option<u32> {
        while let Some(entry) = self.exclusive.pop_front() {
            if entry.is_live(records) {
                self.live_exclusive -= 1;
                return Some(entry.index);
            }
        }
        None
    }

    /// Takes a job, exclusive or not.
    pub(super) fn pop_any(&mut self, records: &JobTable) -> Option<u32> {
        self.pop_exclusive(records).or_else(|| self.pop(records))
    }

    /// Takes the next job that shares its worker.
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

    /// A queued job leaves the queue without being placed. The caller changes its stage afterwards.
    pub(super) fn give_up(&mut self, index: u32, records: &JobTable) {
        let record = records.look(index);
        if record.is_exclusive() {
            self.live_exclusive -= 1;
        } else {
            self.live[record.priority() as usize] -= 1;
        }
        let classes = self.classes.iter().chain([&self.exclusive]);
        let entries: usize = classes.map(VecDeque::len).sum();
        if entries > 2 * self.len() + SLACK {
            for class in self.classes.iter_mut().chain([&mut self.exclusive]) {
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
        self.live.iter().sum::<usize>() + self.live_exclusive
    }

    /// Whether no job waits that shares its worker.
    #[inline]
    pub(super) fn is_clear(&self) -> bool {
        self.live == [0; 3]
    }

    /// Whether an exclusive job waits.
    #[inline]
    pub(super) fn has_exclusive(&self) -> bool {
        self.live_exclusive > 0
    }

    /// Whether no job waits that has this priority or a higher one.
    pub(super) fn has_none_from(&self, priority: Priority) -> bool {
        let mut classes = self.live[priority as usize..].iter();
        classes.all(|&live| live == 0)
    }

    /// The jobs in order.
    #[cfg(test)]
    pub(super) fn in_order(&self, records: &JobTable) -> Vec<u32> {
        let entries = self.classes.iter().rev().chain([&self.exclusive]).flatten();
        let live = entries.filter(|entry| entry.is_live(records));
        live.map(|entry| entry.index).collect()
    }

    /// Entries, including those without a job.
    #[cfg(test)]
    pub(super) fn entries(&self) -> usize {
        let classes = self.classes.iter().chain([&self.exclusive]);
        classes.map(VecDeque::len).sum()
    }
}

fn entry(index: u32, record: &Record) -> Entry {
    Entry {
        index,
        generation: record.generation,
    }
}
