//! Drives graphs, and takes their values.

use std::time::Instant;

use super::plan::RunPlan;
use super::run::{GraphProgress, NodeFate};
use super::steps::GraphId;
use crate::link::{Ask, NOTICE};
use crate::supervisor::error::JobError;
use crate::supervisor::reply::Read;
use crate::supervisor::shared::{Locked, Supervisor};
use crate::supervisor::waiting::job::SPIN_BELOW_NS;
use crate::supervisor::waiting::wakers::drop_waker;

impl Supervisor {
    /// Takes over a graph. It runs until it is dropped, or until the end of each requested unit is known.
    pub(crate) fn start_graph(&self, plan: RunPlan) -> GraphId {
        let mut state = self.lock();
        let graph = state.start_graph(plan);
        self.unlock(state);
        graph
    }

    /// Bytes that values of a graph may take: the free memory of the arena.
    pub(crate) fn room(&self) -> u64 {
        let stats = self.arena.stats();
        stats.capacity - stats.in_use
    }

    /// Drives a graph while its jobs end soon: drains, and sends what is ready. Then the monitor continues the graph,
    /// and answers its record.
    pub(in crate::supervisor) fn drive<'a>(
        &'a self,
        mut state: Locked<'a>,
        graph: u32,
        until: Option<Instant>,
    ) -> Locked<'a> {
        state.runs.get(graph).driving_threads += 1;
        loop {
            state.drain_busy();
            state.refill();
            let run = state.runs.get(graph);
            if run.undecided == 0 {
                run.driving_threads -= 1;
                return state;
            }
            let is_late = until.is_some_and(|until| until <= Instant::now());
            let may_spin = !is_late && state.lanes.busy() < self.cores();
            // Where the next end may be seen, if it is expected soon.
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
            // Finds a worker that reports an end and has nothing to drain.
            let lane = &mut state.lanes[lane];
            if lane.holds(position) && !lane.is_condemned() {
                let _: Ask = lane.ask(position, NOTICE);
            }
        }
        state.runs.get(graph).driving_threads -= 1;
        state.leave_to_monitor(graph);
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
        let taken = state.take_node(graph.run, node, read);
        self.unlock(state);
        taken
    }

    /// How each node of a graph ran.
    pub(crate) fn fates(&self, graph: GraphId) -> Vec<NodeFate> {
        let mut state = self.lock();
        let run = state.runs.get(graph.run);
        let nodes = 0..run.plan.jobs.unit_of.len() as u32;
        let fates = nodes.map(|node| run.fate(node)).collect();
        self.unlock(state);
        fates
    }

    /// Progress of a graph.
    pub(crate) fn graph_progress(&self, graph: GraphId) -> GraphProgress {
        let mut state = self.lock();
        // Processes ended jobs first.
        state.drain_busy();
        state.refill();
        let progress = state.runs.get(graph.run).progress;
        self.unlock(state);
        progress
    }

    /// Drops a graph.
    pub(crate) fn drop_graph(&self, graph: GraphId) {
        if self.is_copy() {
            return;
        }
        let mut state = self.lock();
        // Freed outside the lock, with the arguments of what was not sent.
        let (_run, wakers) = state.drop_graph(graph);
        state.refill();
        self.unlock(state);
        wakers.into_iter().for_each(|waker| drop_waker(Some(waker)));
    }
}
