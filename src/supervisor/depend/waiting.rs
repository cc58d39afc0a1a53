//! Drives graphs, and takes their values.

use std::time::Instant;

use super::plan::RunPlan;
use super::run::{GraphProgress, NodeFate, Run, UnitStage};
use crate::link::{Ask, NOTICE};
use crate::supervisor::answer::TakenAnswer;
use crate::supervisor::error::JobError;
use crate::supervisor::owner::Owner;
use crate::supervisor::record::{JobId, Stage};
use crate::supervisor::reply::Read;
use crate::supervisor::shared::{Locked, Supervisor};
use crate::supervisor::state::EngineState;
use crate::supervisor::waiting::job::SPIN_BELOW_NS;
use crate::supervisor::waiting::wakers::drop_waker;

/// A running graph.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GraphId {
    /// The job whose record is answered when each requested unit has ended. The values stay in the records of the
    /// units.
    pub(crate) job: JobId,
    pub(super) run: u32,
}

impl Supervisor {
    /// Starts a graph. It runs until it is dropped, or until each requested unit has ended.
    pub(crate) fn start_graph(&self, plan: RunPlan) -> GraphId {
        let mut locked = self.lock();
        let state = &mut *locked;
        let ticket = state
            .admission
            .as_mut()
            .map_or(0, |line| line.draw_ticket());
        let (job, _) = state.records.add_uncounted();
        let run = Run::of_graph(plan, &mut state.kernels, ticket, job.index);
        let chain = run.chain;
        let run = state.runs.add(run);
        let record = state.records.at(job.index);
        record.stage = Stage::Spawned { run };
        record.owner = Owner::Handle;
        record.kernel = chain;
        state.monitor.watch_memory();
        // This also processes the ends of jobs that are refused at once.
        state.process_ends();
        crate::sync::point!("graph.taken_over");
        self.unlock(locked);
        GraphId { job, run }
    }

    /// Returns the number of bytes that the values of a graph may take: the free memory of the arena.
    pub(crate) fn room(&self) -> u64 {
        let stats = self.arena.stats();
        stats.capacity - stats.in_use
    }

    /// Drives a graph as long as its next end is expected soon: drains lanes, and sends ready units. Afterwards the
    /// monitor continues the graph and answers its record.
    pub(in crate::supervisor) fn drive<'a>(
        &'a self,
        mut state: Locked<'a>,
        graph: u32,
        until: Option<Instant>,
    ) -> Locked<'a> {
        state.runs.get(graph).driving_threads += 1;
        loop {
            state.catch_up();
            let run = state.runs.get(graph);
            if run.undecided == 0 {
                run.driving_threads -= 1;
                return state;
            }
            let is_late = until.is_some_and(|until| until <= Instant::now());
            let may_spin = !is_late && state.lanes.busy() < self.cores();
            // The lane where the next end is expected, if it is expected soon.
            let Some((lane, position)) = state.lanes.oldest().filter(|_| may_spin) else {
                break;
            };
            let record = state.lanes[lane].record_at(position);
            let kernel = state.records.look(record).kernel;
            if state.kernels.get(kernel).expected_ns >= SPIN_BELOW_NS {
                break;
            }
            self.unlock(state);
            let ended = self.spin(lane, position, Instant::now());
            state = self.lock();
            if !ended {
                break;
            }
            // Detects a worker that reports an end although there is none to drain.
            let lane = &mut state.lanes[lane];
            if lane.holds(position) && !lane.is_condemned() {
                let _: Ask = lane.ask(position, NOTICE);
            }
        }
        state.runs.get(graph).driving_threads -= 1;
        // The monitor continues the run when one of these jobs ends. The loop below finds jobs that have ended.
        let sent: Vec<_> = state.runs.get(graph).sent_jobs().collect();
        for id in sent {
            let EngineState { lanes, records, .. } = &mut *state;
            lanes.want_notice(id, records);
        }
        state.catch_up();
        state
    }

    /// Takes the value of a requested node.
    pub(crate) fn take_node<R>(
        &self,
        graph: GraphId,
        node: u32,
        read: Read<R>,
    ) -> Result<R, JobError> {
        let mut state = self.lock();
        let run = state.runs.get(graph.run);
        let unit = run.plan.jobs.unit_of[node as usize];
        let unit_state = run.states[unit as usize];
        let taken = match unit_state.stage {
            UnitStage::Done => {
                // The record is removed with the value, although units that will never run still count as users.
                run.plan.jobs.units[unit as usize].uses -= 1;
                run.states[unit as usize].stage = UnitStage::Failed(unit);
                let taken = state.take(unit_state.record, read);
                taken.expect("a unit that is done has its answer in its record")
            }
            UnitStage::Failed(root) => TakenAnswer::Read(Err(match run.error_of(root) {
                (failed, error) if *failed == node => error.clone(),
                // Another node failed, perhaps of the same chain.
                _ => run.error_of_dependent(unit, root),
            })),
            UnitStage::Stopped => TakenAnswer::Read(Err(run.error_of_stopped(unit))),
            UnitStage::Waiting | UnitStage::Sent => {
                unreachable!("values are taken when it is known how all end")
            }
        };
        self.unlock(state);
        self.read(taken, read)
    }

    /// Returns how each node of a graph ended.
    pub(crate) fn fates(&self, graph: GraphId) -> Vec<NodeFate> {
        let mut state = self.lock();
        let run = state.runs.get(graph.run);
        let nodes = 0..run.plan.jobs.unit_of.len() as u32;
        let fates = nodes.map(|node| run.fate(node)).collect();
        self.unlock(state);
        fates
    }

    /// Returns the progress of a graph.
    pub(crate) fn graph_progress(&self, graph: GraphId) -> GraphProgress {
        let mut state = self.lock();
        // Processes the ends of jobs first.
        state.catch_up();
        let progress = state.runs.get(graph.run).progress;
        self.unlock(state);
        progress
    }

    /// Drops a graph.
    pub(crate) fn drop_graph(&self, graph: GraphId) {
        if self.is_copy() {
            return;
        }
        let mut locked = self.lock();
        let state = &mut *locked;
        // Units that have not begun never will; units that run are abandoned. The run, with the arguments of unsent
        // units, is freed outside the lock.
        state.process_all_ends();
        let mut wakers = Vec::from_iter(state.records.get(graph.job).waker.take());
        state.records.remove(graph.job.index);
        let run = state.runs.remove_with_values(graph.run, &mut state.records);
        let kill = run.as_ref().and_then(|run| run.kill);
        state.timers.remove_end(kill);
        for id in run.iter().flat_map(|run| run.sent_jobs()) {
            state.records.get(id).owner = Owner::None;
            wakers.extend(state.abandon(id));
        }
        crate::sync::point!("graph.dropped");
        state.refill();
        self.unlock(locked);
        drop(run);
        wakers.into_iter().for_each(|waker| drop_waker(Some(waker)));
    }
}
