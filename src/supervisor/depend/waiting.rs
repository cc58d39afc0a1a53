//! Waiting for graphs, and taking their values.

use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::{GraphPlan, GraphProgress, NodeFate};
use crate::link::{Ask, NOTICE};
use crate::supervisor::Shared;
use crate::supervisor::core::Read;
use crate::supervisor::error::JobError;
use crate::supervisor::lock::drop_waker;
use crate::supervisor::wait::{LOOK_AGAIN, SPIN_BELOW_NS};

impl Shared {
    /// Takes a graph over, which runs until it is dropped or everything that was asked for is decided.
    pub(crate) fn start_graph(&self, plan: GraphPlan) -> u32 {
        let mut core = self.lock();
        let graph = core.start_graph(plan);
        self.unlock(core);
        graph
    }

    /// Bytes that values of a graph may take: what is free now.
    pub(crate) fn room(&self) -> u64 {
        let stats = self.arena.stats();
        stats.capacity - stats.in_use
    }

    /// Waits until everything that was asked for is decided. False if the time runs out before.
    pub(crate) fn wait_graph(&self, graph: u32, limit: Option<Duration>) -> bool {
        let until = limit.and_then(|limit| Instant::now().checked_add(limit));
        let mut core = self.lock();
        core.run_of(graph).drivers += 1;
        loop {
            core.drain_busy();
            core.refill();
            if core.run_of(graph).wanted == 0 {
                core.run_of(graph).drivers -= 1;
                self.unlock(core);
                return true;
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                core.run_of(graph).drivers -= 1;
                core.leave_to_monitor(graph);
                self.unlock(core);
                return false;
            }
            // As long as something ends soon this thread goes on with the graph itself.
            if let Some((lane, position, expected)) = core.next_end()
                && expected < SPIN_BELOW_NS
                && core.busy_lanes() < self.cores()
            {
                self.unlock(core);
                let ended = self.spin(lane, position);
                core = self.lock();
                if ended {
                    // So that a worker is found out that says so and has nothing to drain.
                    let lane = &mut core.lanes[lane];
                    if lane.holds(position) && !lane.condemned {
                        let _: Ask = lane.ask(position, NOTICE);
                    }
                    continue;
                }
            }
            // Otherwise the monitor does, and tells when it is over.
            core.run_of(graph).drivers -= 1;
            core.leave_to_monitor(graph);
            let held_back = core.graphs.first_held_back().is_some();
            let run = core.run_of(graph);
            if run.wanted == 0 {
                self.unlock(core);
                return true;
            }
            run.parked = true;
            core.be_watched();
            let spot = self.parking.of(graph);
            let ticket = spot.ticket();
            self.unlock(core);
            let limit = if held_back {
                Some(left.map_or(LOOK_AGAIN, |left| left.min(LOOK_AGAIN)))
            } else {
                left
            };
            spot.sleep(ticket, limit);
            core = self.lock();
            core.run_of(graph).drivers += 1;
        }
    }

    /// As a future: ready when everything that was asked for is decided, otherwise the waker is kept.
    pub(crate) fn poll_graph(&self, graph: u32, context: &mut Context<'_>) -> Poll<()> {
        let mut waker = Some(context.waker().clone());
        let mut core = self.lock();
        core.drain_busy();
        core.refill();
        let run = core.run_of(graph);
        let over = run.wanted == 0;
        if !over {
            std::mem::swap(&mut run.waker, &mut waker);
            core.be_watched();
        }
        self.unlock(core);
        drop_waker(waker);
        if over { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Takes the value of a node that was asked for.
    pub(crate) fn take_node<R>(&self, graph: u32, node: u32, read: Read<R>) -> Result<R, JobError> {
        let mut core = self.lock();
        let taken = core.take_node(graph, node, read);
        self.unlock(core);
        taken
    }

    /// How each of a graph's nodes ran.
    pub(crate) fn fates(&self, graph: u32) -> Vec<NodeFate> {
        let mut core = self.lock();
        let run = core.run_of(graph);
        let nodes = 0..run.plan.unit_of.len() as u32;
        let fates = nodes.map(|node| run.fate(node)).collect();
        self.unlock(core);
        fates
    }

    /// How far a graph is.
    pub(crate) fn graph_progress(&self, graph: u32) -> GraphProgress {
        let mut core = self.lock();
        // What has ended is heard of first.
        core.drain_busy();
        core.refill();
        let progress = core.run_of(graph).progress;
        self.unlock(core);
        progress
    }

    /// Nobody asks for a graph any more.
    pub(crate) fn drop_graph(&self, graph: u32) {
        if self.is_copy() {
            return;
        }
        let mut core = self.lock();
        let (mut run, wakers) = core.drop_graph(graph);
        core.refill();
        self.unlock(core);
        let own = run.as_mut().and_then(|run| run.waker.take());
        own.into_iter()
            .chain(wakers)
            .for_each(|waker| drop_waker(Some(waker)));
    }
}
