//! All runs of an engine.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::Ordering;

use super::ends::{EndNotice, JobEnd, ended_in_worker};
use super::limits::{MAX_OPEN_TASKS, MAX_SPAWN_DEPTH};
use super::plan::Calls;
use super::run::{Run, Spawned, UnitStage, Writers};
use crate::kernel::Shares;
use crate::supervisor::error::{JobError, JobErrorKind, JobLimit};
use crate::supervisor::job_table::JobTable;
use crate::supervisor::lane::Lane;
use crate::supervisor::lanes::Lanes;
use crate::supervisor::owner::Owner;
use crate::supervisor::record::{Record, Stage};
use crate::supervisor::trace::Trace;

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
    /// Whether a unit was put into the queue.
    has_queued: bool,
    /// Runs that admission does not let send a job now, by ticket.
    held_back: BTreeSet<HeldBack>,
    /// The end of the job that is being drained. It is filled in for every job, because the job may be a unit.
    drained: JobEnd,
    /// `None` while a thread writes a call.
    writers: Option<Box<Writers>>,
}

/// A run that admission does not let send a job: its ticket and its index.
pub(super) type HeldBack = (u64, u32);

impl Runs {
    /// Adds a run. Its units are sent later, when ends are processed, because the caller may be in the middle of a
    /// change.
    pub(super) fn add(&mut self, mut run: Run) -> u32 {
        self.serial += 1;
        run.serial = self.serial;
        self.open_tasks += run.spawned.as_ref().map_or(0, |spawned| spawned.open);
        let index = self.free.pop().unwrap_or_else(|| {
            self.all.push(None);
            self.all.len() as u32 - 1
        });
        self.all[index as usize] = Some(Box::new(run));
        self.add_notice(EndNotice::Advance { run: index });
        index
    }

    // ---- the end of the job that is being drained -------------------------------------------

    /// Begins the end of a job, as its lane has reported it.
    #[inline]
    pub(in crate::supervisor) fn begin_end(&mut self, lane: usize, took_ns: u64) {
        self.drained = JobEnd {
            took_ns,
            lane: lane as u32,
            ..JobEnd::default()
        };
    }

    /// Continues with the end of a job that was put aside.
    pub(in crate::supervisor) fn resume_end(&mut self, end: JobEnd) {
        self.drained = end;
    }

    /// Returns what is known about the end of the job that is being drained.
    pub(in crate::supervisor) fn drained(&self) -> JobEnd {
        self.drained
    }

    /// Notes the bytes of fresh arrays in the value.
    pub(in crate::supervisor) fn note_bytes(&mut self, bytes: u64) {
        self.drained.bytes = bytes;
    }

    /// Notes the step of the node that a failed chain had reached.
    pub(in crate::supervisor) fn note_step(&mut self, step: u32) {
        self.drained.step = step;
    }

    /// Notes how the time of a chain is divided among its nodes.
    pub(in crate::supervisor) fn note_shares(&mut self, shares: Option<Shares>) {
        self.drained.shares = shares;
    }

    /// Returns the step of the node that a failed chain had reached.
    pub(super) fn step_of(&self, error: &JobError, stage: Stage, lanes: &Lanes) -> u32 {
        match stage {
            _ if ended_in_worker(error) => self.drained.step,
            Stage::Placed { lane, .. } => {
                let reply = lanes[lane as usize].producer.cells().reply();
                // Relaxed: read after the worker has ended, or only to name a node.
                reply.step.load(Ordering::Relaxed)
            }
            _ => 0,
        }
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

    /// Records that ends are not being processed any more, after the last one or after a panic.
    pub(in crate::supervisor) fn end_processing(&mut self) {
        self.is_processing = false;
    }

    /// Records that a unit was put into the queue. The lanes are notified when ends are processed.
    pub(in crate::supervisor) fn note_queued(&mut self) {
        self.has_queued = true;
    }

    /// Returns whether a unit was put into the queue since the last call.
    pub(super) fn take_queued(&mut self) -> bool {
        std::mem::take(&mut self.has_queued)
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

    // ---- the buffers for calls --------------------------------------------------------------

    /// Takes the buffers in which a call is written, for the arena with this number.
    pub(super) fn take_writers(&mut self, arena: u64) -> Box<Writers> {
        let writers = self.writers.take();
        writers.unwrap_or_else(|| Box::new(Writers::new(arena)))
    }

    /// Puts the buffers back, for the next call.
    pub(super) fn put_back_writers(&mut self, writers: Box<Writers>) {
        self.writers = Some(writers);
    }

    // ---- runs -------------------------------------------------------------------------------

    pub(super) fn look(&self, index: u32) -> Option<&Run> {
        self.all.get(index as usize)?.as_deref()
    }

    pub(super) fn find(&mut self, index: u32) -> Option<&mut Run> {
        self.all.get_mut(index as usize)?.as_deref_mut()
    }

    /// Returns a run that has a handle, or units that have not ended.
    pub(super) fn get(&mut self, index: u32) -> &mut Run {
        self.find(index)
            .expect("a run lasts as long as its units and its handle")
    }

    /// Returns true if the run with this index still has this serial number.
    pub(in crate::supervisor) fn has(&self, index: u32, serial: u64) -> bool {
        self.look(index).is_some_and(|run| run.serial == serial)
    }

    /// Returns true if the units of a run were spawned.
    pub(in crate::supervisor) fn is_spawned(&self, index: u32) -> bool {
        self.look(index).is_some_and(|run| run.spawned.is_some())
    }

    /// Removes a run. Its tasks that were not sent no longer count as open.
    pub(super) fn remove(&mut self, index: u32) -> Option<Box<Run>> {
        let run = self.all.get_mut(index as usize)?.take()?;
        self.free.push(index);
        self.open_tasks -= run.spawned.as_ref().map_or(0, |spawned| spawned.open);
        Some(run)
    }

    /// Removes a run, and the values that no unit has taken.
    pub(super) fn remove_with_values(
        &mut self,
        index: u32,
        records: &mut JobTable,
    ) -> Option<Box<Run>> {
        let run = self.remove(index)?;
        let done = run.states.iter();
        for state in done.filter(|state| state.stage == UnitStage::Done) {
            if records.find(state.record).is_some() {
                records.remove(state.record.index);
            }
        }
        Some(run)
    }

    /// Returns the run of tasks that a job of this owner belongs to, and whether the job is the last task: then the run
    /// continues with the tasks that this job spawns.
    pub(super) fn enclosing(&self, owner: Owner) -> Option<(&Run, &Spawned, bool)> {
        let Owner::Unit { run, unit } = owner else {
            return None;
        };
        let run = self.look(run)?;
        Some((run, run.spawned.as_ref()?, run.is_last(unit)))
    }

    /// Returns the depth of tasks that a job of this owner spawns.
    pub(super) fn depth_below(&self, owner: Owner) -> u32 {
        let enclosing = self.enclosing(owner);
        enclosing.map_or(1, |(_, spawned, is_last)| {
            spawned.depth + u32::from(!is_last)
        })
    }

    /// Returns why a job of this owner may not spawn this number of tasks.
    pub(super) fn too_many(&self, owner: Owner, tasks: u64) -> Option<JobErrorKind> {
        let depth = self.depth_below(owner);
        let open = self.open_tasks + tasks;
        (depth > MAX_SPAWN_DEPTH || open > MAX_OPEN_TASKS)
            .then_some(JobErrorKind::Limit(JobLimit::Spawned { depth, open }))
    }

    /// Returns the kernel of the chain's node that a lane runs, as its worker reports it. `None` if the job is no
    /// chain.
    pub(in crate::supervisor) fn running_node(&self, lane: &Lane, record: &Record) -> Option<u32> {
        // Relaxed: a name for statistics, which may be old.
        self.node_at_step(record, lane.producer.cells().noted_step())
    }

    /// Returns the kernel of a job. For a chain: the kernel of the node at this step.
    pub(in crate::supervisor) fn kernel_at_step(&self, record: &Record, step: u32) -> u32 {
        self.node_at_step(record, step).unwrap_or(record.kernel)
    }

    /// Returns the kernel of the node at this step of a chain. `None` if the job is no chain.
    fn node_at_step(&self, record: &Record, step: u32) -> Option<u32> {
        let Owner::Unit { run, unit } = record.owner else {
            return None;
        };
        let run = self.look(run)?;
        (run.chain == record.kernel).then(|| run.kernel_of_step(unit, step))
    }

    /// Traces which units' values a unit takes, or which job has spawned it.
    #[cold]
    pub(super) fn trace_sources(&self, index: u32, unit: u32, records: &JobTable, trace: &Trace) {
        let Some(run) = self.look(index) else { return };
        let job = |unit: u32| run.states[unit as usize].job;
        for at in run.plan.jobs.sources_of(unit) {
            trace.depends(job(run.plan.jobs.sources[at]), job(unit));
        }
        if run.spawned.is_some() && !run.is_last(unit) {
            trace.depends(records.look(run.parent).job, job(unit));
        }
    }

    /// Counts a unit of a run as ended.
    pub(super) fn count_end(&mut self, index: u32) {
        let run = self.get(index);
        run.sent -= 1;
        if let Some(spawned) = &mut run.spawned {
            spawned.open -= 1;
            self.open_tasks -= 1;
        }
    }

    /// Stops counting the unsent tasks of a run: they will never be sent.
    pub(super) fn forget_unsent(&mut self, index: u32) {
        let run = self.get(index);
        if let Some(spawned) = &mut run.spawned {
            run.plan.calls = Calls::None;
            let unsent = spawned.open - run.sent as u64;
            spawned.open -= unsent;
            self.open_tasks -= unsent;
        }
    }

    fn graphs(&self) -> impl Iterator<Item = &Run> {
        let runs = self.all.iter().flatten().map(Box::as_ref);
        runs.filter(|run| run.spawned.is_none())
    }

    /// Returns the number of graphs.
    pub(in crate::supervisor) fn graph_count(&self) -> usize {
        self.graphs().count()
    }

    /// Returns the number of jobs that wait for other jobs: those that they have spawned, and those whose values they
    /// take.
    pub(in crate::supervisor) fn waiting_parents(&self) -> usize {
        self.all.len() - self.free.len() - self.graph_count() + self.open_calls
    }

    /// Returns true if ends are being processed.
    pub(in crate::supervisor) fn is_processing(&self) -> bool {
        self.is_processing
    }

    /// Returns true if ends wait to be processed and no thread processes them.
    #[inline]
    pub(in crate::supervisor) fn has_unhandled_ends(&self) -> bool {
        !self.ends.is_empty() && !self.is_processing
    }

    /// Returns the number of jobs that running graphs have not sent yet.
    pub(in crate::supervisor) fn planned(&self) -> usize {
        self.graphs().map(Run::planned).sum()
    }

    /// Returns true if there are ends to process, or held-back runs to try again.
    #[inline]
    pub(in crate::supervisor) fn has_pending_work(&self) -> bool {
        !self.ends.is_empty() || !self.held_back.is_empty()
    }

    /// Returns the smallest ticket of a run that admission does not let send a job now.
    pub(in crate::supervisor) fn first_held_back(&self) -> Option<u64> {
        self.held_back.first().map(|&(ticket, _)| ticket)
    }
}
