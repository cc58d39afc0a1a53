//! All runs of an engine, and the ends to process.

use std::collections::{BTreeSet, VecDeque};

use super::ends::EndNotice;
use super::limits::{MAX_OPEN_TASKS, MAX_SPAWN_DEPTH};
use super::run::Run;
use crate::supervisor::error::{JobErrorKind, JobLimit};
use crate::supervisor::job_table::JobTable;
use crate::supervisor::owner::Owner;

/// All runs of an engine.
#[derive(Debug, Default)]
pub(in crate::supervisor) struct Runs {
    all: Vec<Option<Box<Run>>>,
    free: Vec<u32>,
    /// Number of runs that were started so far.
    serial: u64,
    /// Number of spawned jobs that have not ended.
    open_tasks: u64,
    /// Events to process, first to last. Failed tasks and cancellations are put in front: otherwise a deep recursion
    /// would grow at its lower end as fast as a cancellation descends.
    ends: VecDeque<EndNotice>,
    /// Whether a thread processes `ends`.
    is_processing: bool,
    /// Number of jobs that wait for jobs whose values they take.
    pub(in crate::supervisor) open_calls: usize,
    /// Whether a job was put into the queue while ends were processed.
    has_queued: bool,
    /// Runs that admission does not let send a job now, by ticket.
    held_back: BTreeSet<HeldBack>,
}

/// A run that admission does not let send a job: its ticket and its index.
pub(super) type HeldBack = (u64, u32);

impl Runs {
    /// Adds a run. Its tasks are sent later, when ends are processed, because the caller may be in the middle of a
    /// change.
    pub(super) fn add(&mut self, mut run: Run) -> u32 {
        self.serial += 1;
        run.serial = self.serial;
        self.open_tasks += run.open;
        let index = self.free.pop().unwrap_or_else(|| {
            self.all.push(None);
            self.all.len() as u32 - 1
        });
        self.all[index as usize] = Some(Box::new(run));
        self.add_notice(EndNotice::Advance { run: index });
        index
    }

    // ---- ends to process --------------------------------------------------------------------

    /// Adds an event that is processed after all others.
    pub(in crate::supervisor) fn add_notice(&mut self, notice: EndNotice) {
        self.ends.push_back(notice);
    }

    /// Adds an event that is processed next.
    pub(super) fn add_urgent_notice(&mut self, notice: EndNotice) {
        self.ends.push_front(notice);
    }

    /// Removes and returns the event to process next.
    pub(super) fn next_notice(&mut self) -> Option<EndNotice> {
        self.ends.pop_front()
    }

    /// Returns true if there are events to process.
    pub(super) fn has_notices(&self) -> bool {
        !self.ends.is_empty()
    }

    /// Begins to process ends. Returns false if a caller on the stack does already.
    #[must_use]
    pub(super) fn begin_processing(&mut self) -> bool {
        !std::mem::replace(&mut self.is_processing, true)
    }

    /// Returns true if ends are being processed.
    #[inline]
    pub(in crate::supervisor) fn is_processing(&self) -> bool {
        self.is_processing
    }

    /// Records that ends are not being processed any more, after the last one or after a panic.
    pub(in crate::supervisor) fn end_processing(&mut self) {
        self.is_processing = false;
    }

    /// Records that a job was put into the queue. The lanes are notified when ends are processed.
    pub(in crate::supervisor) fn note_queued(&mut self) {
        self.has_queued = true;
    }

    /// Returns whether a job was put into the queue since the last call.
    pub(super) fn take_queued(&mut self) -> bool {
        std::mem::take(&mut self.has_queued)
    }

    /// Returns true if ends wait to be processed and no thread processes them.
    #[inline]
    pub(in crate::supervisor) fn has_unhandled_ends(&self) -> bool {
        !self.ends.is_empty() && !self.is_processing
    }

    /// Returns true if there are ends to process, or held-back runs to try again.
    #[inline]
    pub(in crate::supervisor) fn has_pending_work(&self) -> bool {
        !self.ends.is_empty() || !self.held_back.is_empty()
    }

    // ---- runs without admission -------------------------------------------------------------

    /// Holds a run back until admission lets it send a job.
    pub(super) fn hold_back(&mut self, held: HeldBack) {
        self.held_back.insert(held);
    }

    /// Removes and returns the held-back run with the smallest ticket.
    pub(super) fn take_held_back(&mut self) -> Option<HeldBack> {
        self.held_back.pop_first()
    }

    pub(super) fn is_held_back(&self, held: HeldBack) -> bool {
        self.held_back.contains(&held)
    }

    /// Returns the smallest ticket of a run that admission does not let send a job now.
    pub(in crate::supervisor) fn first_held_back(&self) -> Option<u64> {
        self.held_back.first().map(|&(ticket, _)| ticket)
    }

    // ---- runs -------------------------------------------------------------------------------

    fn look(&self, index: u32) -> Option<&Run> {
        self.all.get(index as usize)?.as_deref()
    }

    pub(super) fn find(&mut self, index: u32) -> Option<&mut Run> {
        self.all.get_mut(index as usize)?.as_deref_mut()
    }

    /// Returns a run that has tasks that have not ended.
    pub(super) fn get(&mut self, index: u32) -> &mut Run {
        self.find(index).expect("a run lasts as long as its tasks")
    }

    /// Returns true if the run with this index still has this serial number.
    pub(in crate::supervisor) fn has(&self, index: u32, serial: u64) -> bool {
        self.look(index).is_some_and(|run| run.serial == serial)
    }

    /// Removes a run. Its tasks that were not sent no longer count as open.
    pub(super) fn remove(&mut self, index: u32) -> Option<Box<Run>> {
        let run = self.all.get_mut(index as usize)?.take()?;
        self.free.push(index);
        self.open_tasks -= run.open;
        Some(run)
    }

    /// Removes a run, and the values that no task has taken.
    pub(super) fn remove_with_values(
        &mut self,
        index: u32,
        records: &mut JobTable,
    ) -> Option<Box<Run>> {
        let run = self.remove(index)?;
        run.remove_values(records);
        Some(run)
    }

    /// Returns the run that a job of this owner belongs to, and whether the job is the last task: then the run
    /// continues with the tasks that this job spawns.
    pub(super) fn enclosing(&self, owner: Owner) -> Option<(&Run, bool)> {
        let Owner::Task { run, task } = owner else {
            return None;
        };
        let run = self.look(run)?;
        Some((run, run.is_last(task)))
    }

    /// Returns the depth of tasks that a job of this owner spawns.
    pub(super) fn depth_below(&self, owner: Owner) -> u32 {
        let enclosing = self.enclosing(owner);
        enclosing.map_or(1, |(run, is_last)| run.depth + u32::from(!is_last))
    }

    /// Returns why a job of this owner may not spawn this number of tasks.
    pub(super) fn too_many(&self, owner: Owner, tasks: u64) -> Option<JobErrorKind> {
        let depth = self.depth_below(owner);
        let open = self.open_tasks + tasks;
        (depth > MAX_SPAWN_DEPTH || open > MAX_OPEN_TASKS)
            .then_some(JobErrorKind::Limit(JobLimit::Spawned { depth, open }))
    }

    /// Counts a task of a run as ended.
    pub(super) fn count_end(&mut self, index: u32, task: u32) {
        self.get(index).ended(task);
        self.open_tasks -= 1;
    }

    /// Stops counting the unsent tasks of a run: they will never be sent.
    pub(super) fn forget_unsent(&mut self, index: u32) {
        let run = self.get(index);
        run.reply = None;
        let unsent = run.open - run.sent as u64;
        run.open -= unsent;
        self.open_tasks -= unsent;
    }

    /// Returns the number of jobs that wait for other jobs: those that they have spawned, and those whose values they
    /// take.
    pub(in crate::supervisor) fn waiting_parents(&self) -> usize {
        self.all.len() - self.free.len() + self.open_calls
    }
}
