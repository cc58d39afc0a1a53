//! All runs of an engine.

use std::collections::{BTreeSet, VecDeque};

use super::ends::{EndNotice, JobEnd};
use super::limits::{MAX_OPEN_TASKS, MAX_SPAWN_DEPTH};
use super::plan::Calls;
use super::run::{Run, Spawned, UnitStage, Writers};
use crate::supervisor::error::{JobErrorKind, JobLimit};
use crate::supervisor::job_table::JobTable;
use crate::supervisor::lane::Lane;
use crate::supervisor::owner::Owner;
use crate::supervisor::record::Record;
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
    pub(super) ends: VecDeque<EndNotice>,
    /// Whether a thread processes `ends`.
    pub(in crate::supervisor) is_processing: bool,
    /// Whether a unit was put into the queue.
    pub(in crate::supervisor) has_queued: bool,
    /// Runs that admission does not let send a job now, by ticket.
    pub(super) held_back: BTreeSet<(u64, u32)>,
    /// The end of a job that is being drained. It is filled in for every job, because the job may be a unit.
    pub(in crate::supervisor) last: JobEnd,
    /// `None` while a thread writes a call.
    pub(super) writers: Option<Box<Writers>>,
}

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
        self.ends.push_back(EndNotice::Advance { run: index });
        index
    }

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

    /// Returns the number of jobs that wait for the jobs that they have spawned.
    pub(in crate::supervisor) fn waiting_parents(&self) -> usize {
        self.all.len() - self.free.len() - self.graph_count()
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
