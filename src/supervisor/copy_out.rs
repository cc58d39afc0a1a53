//! Copies results of sandboxed workers to memory that no worker can write.
//!
//! The thread that drains a small result copies it. The monitor copies large results without the engine's lock: until
//! then their jobs are in [`Stage::Copying`].

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::error::{JobErrorKind, JobLimit};
use super::record::{Record, Stage};
use super::shared::Supervisor;
use super::state::EngineState;
use super::uncopied::{Uncopied, Uncopieds};
use crate::arena::{Arena, ArenaFull, Block};
use crate::kernel::wire::{Lease, ReceivedArray};

/// Maximum number of bytes that are copied under the lock.
const SMALL: u64 = 64 << 10;

impl Record {
    /// Returns true if the monitor is to copy the value of a job. Checkpoints of an actor are copied at once, because
    /// the order of their ends and of its other jobs matters.
    pub(super) fn is_copied_later(&self, bytes: u64) -> bool {
        bytes > SMALL && (self.owner.has_handle() || self.owner.actor().is_none())
    }
}

impl EngineState {
    /// Answers a job after the monitor has copied its value or has failed to.
    fn copied(&mut self, value: Uncopied, result: Result<(), ArenaFull>) {
        let Uncopied {
            record,
            lane,
            generation,
            checked,
            leases,
            took_ns,
        } = value;
        self.uncopied.finish_one();
        match result {
            Ok(()) => self.answer_checked(record, (lane, generation), checked, took_ns),
            Err(full) => {
                let worker = self.lanes.worker_of(lane) as u32;
                self.not_copied(record, worker, full, (took_ns, checked.bytes));
            }
        }
        // Inputs are freed only now: the value may contain some of them.
        drop(leases);
        if self.runs.has_pending_work() {
            self.process_ends();
        }
        self.call_if_drained();
    }

    /// Fails a job for whose value the arena has no room.
    pub(super) fn not_copied(
        &mut self,
        record: u32,
        worker: u32,
        full: ArenaFull,
        (took_ns, bytes): (u64, u64),
    ) {
        let kernel = self.records.at(record).kernel;
        self.kernels.get(kernel).learn(took_ns, bytes, true);
        let full = JobErrorKind::Limit(JobLimit::Arena(full));
        self.fail(record, full, Some(worker), Vec::new());
    }

    /// Answers all jobs whose values were not copied. Called after the monitor has panicked.
    pub(super) fn fail_uncopied(&mut self, why: &JobErrorKind) {
        self.uncopied = Uncopieds::default();
        for record in self.records.in_stage(Stage::Copying) {
            self.fail(record, why.clone(), None, Vec::new());
        }
    }
}

impl Supervisor {
    /// Copies the waiting values. Called by the monitor. Returns whether there were any.
    pub(super) fn copy_values(&self) -> bool {
        let waiting = self.lock().uncopied.take();
        let any = !waiting.is_empty();
        for mut value in waiting {
            let result = copy_out(&self.arena, value.checked.blocks(), &value.leases);
            let mut state = self.lock();
            state.copied(value, result);
            self.unlock(state);
        }
        any
    }
}

/// Copies the fresh arrays of a reply into region 0. Inputs that come back are there already.
///
/// Code that took over a worker can write into the worker's region as long as the process lives, and such writes must
/// not be visible through a handle. Arrays that shared memory share the copy afterwards.
pub(super) fn copy_out<'a>(
    arena: &Arc<Arena>,
    arrays: impl Iterator<Item = &'a mut ReceivedArray>,
    leases: &[Lease],
) -> Result<(), ArenaFull> {
    let inputs = leases.iter().filter_map(|lease| match lease {
        Lease::Shared(input) | Lease::Owned(input) => Some(Arc::as_ptr(input)),
        // No memory is lent to sandboxed workers, and they open no files.
        Lease::Lent(_) | Lease::Loan { .. } | Lease::File(_) => None,
    });
    let inputs: HashSet<*const Block> = inputs.collect();
    // The map also retains the copied blocks until all arrays are copied: while a block exists, no copy has its
    // address.
    let mut copies: HashMap<*const Block, (Arc<Block>, Arc<Block>)> = HashMap::new();
    for array in arrays {
        let from = Arc::as_ptr(&array.block);
        if array.block.extent().at.region() == 0 || inputs.contains(&from) {
            continue;
        }
        let copy = match copies.get(&from) {
            Some((_, copy)) => Arc::clone(copy),
            None => {
                let copy = Arc::new(arena.alloc_copy(&array.block)?);
                crate::sync::point!("copy.allocated");
                copies.insert(from, (Arc::clone(&array.block), Arc::clone(&copy)));
                copy
            }
        };
        array.block = copy;
        crate::sync::point!("copy.done");
    }
    Ok(())
}
