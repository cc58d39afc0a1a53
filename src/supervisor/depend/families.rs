//! All groups of spawned jobs of an engine.

use std::collections::BTreeMap;
use std::time::Instant;

use super::told::Told;
use crate::kernel::wire::ArgWriter;
use crate::link::SLOTS;
use crate::supervisor::error::Because;
use crate::supervisor::options::JobOptions;
use crate::supervisor::record::JobId;

/// Jobs of one graph that have a record and no answer, at most: enough for every worker, however many are ready.
pub(super) const WINDOW: usize = 2 * SLOTS;
/// In a record's graph: the number of a family.
pub(super) const FAMILY: u32 = 1 << 31;

/// What one job has spawned.
#[derive(Debug)]
pub(super) struct Family {
    /// Tells it from one that had its place before.
    pub(super) serial: u64,
    /// The record of the job that they are to answer.
    pub(super) parent: u32,
    pub(super) depth: u32,
    /// Of the random numbers that they draw.
    pub(super) seed: u64,
    pub(super) options: Option<Box<JobOptions>>,
    pub(super) told: Told,
    /// By the kernels that were told: the index of the job's kernel.
    pub(super) kernels: Vec<u32>,
    /// By task: the record that it has, or had.
    pub(super) sent: Vec<JobId>,
    /// Tasks that have a record and no answer.
    pub(super) open: usize,
    /// Children that gave their value.
    pub(super) done: usize,
    /// Why there will be no value.
    pub(super) failed: Option<Because>,
    /// Its place in the line of admission.
    pub(super) ticket: u64,
}

impl Family {
    pub(super) fn children(&self) -> usize {
        self.told.tasks.len() - 1
    }

    /// The next task that may be sent.
    pub(super) fn next(&self) -> Option<usize> {
        let next = self.sent.len();
        let children = self.children();
        let ready = next < children && self.open < WINDOW || next == children && self.done == next;
        (ready && self.failed.is_none()).then_some(next)
    }
}

/// All families of an engine.
#[derive(Debug, Default)]
pub(super) struct Families {
    pub(super) all: Vec<Option<Box<Family>>>,
    pub(super) free: Vec<u32>,
    pub(super) serial: u64,
    /// How many there are.
    pub(super) count: usize,
    /// Tasks that have not ended.
    pub(super) open: u64,
    pub(super) call: Option<ArgWriter>,
    /// When patience is over with what runs on although its family has failed.
    pub(super) due: BTreeMap<(Instant, u64), u32>,
}

impl Families {
    pub(super) fn look(&self, family: u32) -> Option<&Family> {
        self.all.get(family as usize)?.as_deref()
    }

    pub(super) fn get(&mut self, family: u32) -> Option<&mut Family> {
        self.all.get_mut(family as usize)?.as_deref_mut()
    }

    pub(super) fn add(&mut self, family: Family) -> u32 {
        self.count += 1;
        self.open += family.told.tasks.len() as u64;
        let family = Some(Box::new(family));
        if let Some(index) = self.free.pop() {
            self.all[index as usize] = family;
            return index;
        }
        self.all.push(family);
        self.all.len() as u32 - 1
    }

    pub(super) fn remove(&mut self, index: u32) -> Option<Box<Family>> {
        let family = self.all.get_mut(index as usize)?.take()?;
        self.free.push(index);
        self.count -= 1;
        Some(family)
    }
}
