//! Waits for graphs, and takes their values.

use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::plan::RunPlan;
use super::run::{GraphProgress, NodeFate};
use crate::link::{Ask, NOTICE};
use crate::supervisor::error::JobError;
use crate::supervisor::reply::Read;
use crate::supervisor::shared::Supervisor;
use crate::supervisor::waiting::LOOK_AGAIN;
use crate::supervisor::waiting::job::SPIN_BELOW_NS;
use crate::supervisor::waiting::wakers::drop_waker;

impl Supervisor {
    /// Takes over a graph. It runs until it is dropped, or until the end of each requested unit is known.
    pub(crate) fn start_graph(&self, plan: RunPlan) -> u32 {
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

    /// Blocks until the end of each requested unit is known. Returns false if the time runs out.
    pub(crate) fn wait_graph(&self, graph: u32, limit: Option<Duration>) -> bool {
        let until = limit.and_then(|limit| Instant::now().checked_add(limit));
        let mut state = self.lock();
        state.runs.get(graph).driving_threads += 1;
        loop {
            state.drain_busy();
            state.refill();
            if state.runs.get(graph).undecided == 0 {
                state.runs.get(graph).driving_threads -= 1;
                self.unlock(state);
                return true;
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                state.runs.get(graph).driving_threads -= 1;
                state.leave_to_monitor(graph);
                self.unlock(state);
                return false;
            }
            // While a job ends soon, this thread drives the graph.
            if let Some((lane, position, expected)) = state.next_end()
                && expected < SPIN_BELOW_NS
                && state.lanes.busy() < self.cores()
            {
                self.unlock(state);
                let ended = self.spin(lane, position, Instant::now());
                state = self.lock();
                if ended {
                    // Finds a worker that reports an end and has nothing to drain.
                    let lane = &mut state.lanes[lane];
                    if lane.holds(position) && !lane.is_condemned() {
                        let _: Ask = lane.ask(position, NOTICE);
                    }
                    continue;
                }
            }
            // Otherwise the monitor continues the graph, and wakes this thread when it is over.
            state.runs.get(graph).driving_threads -= 1;
            state.leave_to_monitor(graph);
            let held_back = state.runs.first_held_back().is_some();
            let run = state.runs.get(graph);
            if run.undecided == 0 {
                self.unlock(state);
                return true;
            }
            run.parked = true;
            state.monitor.watch_memory();
            let spot = self.parking.of(graph);
            let ticket = spot.ticket();
            self.unlock(state);
            let limit = if held_back {
                Some(left.map_or(LOOK_AGAIN, |left| left.min(LOOK_AGAIN)))
            } else {
                left
            };
            spot.sleep(ticket, limit);
            state = self.lock();
            state.runs.get(graph).driving_threads += 1;
        }
    }

    /// Ready when the end of each requested unit is known; otherwise keeps the waker.
    pub(crate) fn poll_graph(&self, graph: u32, context: &mut Context<'_>) -> Poll<()> {
        let mut waker = Some(context.waker().clone());
        let mut state = self.lock();
        state.drain_busy();
        state.refill();
        let run = state.runs.get(graph);
        let over = run.undecided == 0;
        if !over {
            std::mem::swap(&mut run.waker, &mut waker);
            state.monitor.watch_memory();
        }
        self.unlock(state);
        drop_waker(waker);
        if over { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Takes the value of a requested node.
    pub(crate) fn take_node<R>(&self, graph: u32, node: u32, read: Read<R>) -> Result<R, JobError> {
        let mut state = self.lock();
        let taken = state.take_node(graph, node, read);
        self.unlock(state);
        taken
    }

    /// How each node of a graph ran.
    pub(crate) fn fates(&self, graph: u32) -> Vec<NodeFate> {
        let mut state = self.lock();
        let run = state.runs.get(graph);
        let nodes = 0..run.plan.unit_of.len() as u32;
        let fates = nodes.map(|node| run.fate(node)).collect();
        self.unlock(state);
        fates
    }

    /// Progress of a graph.
    pub(crate) fn graph_progress(&self, graph: u32) -> GraphProgress {
        let mut state = self.lock();
        // Processes ended jobs first.
        state.drain_busy();
        state.refill();
        let progress = state.runs.get(graph).progress;
        self.unlock(state);
        progress
    }

    /// Drops a graph.
    pub(crate) fn drop_graph(&self, graph: u32) {
        if self.is_copy() {
            return;
        }
        let mut state = self.lock();
        let (mut run, wakers) = state.drop_graph(graph);
        state.refill();
        self.unlock(state);
        let own = run.as_mut().and_then(|run| run.waker.take());
        own.into_iter()
            .chain(wakers)
            .for_each(|waker| drop_waker(Some(waker)));
    }
}
