//! Runs graphs: sends what is ready, and processes ends.

use std::ops::Bound;
use std::sync::atomic::Ordering;
use std::task::Waker;

use super::ends::{EndNotice, JobEnd};
use super::graph_run::{GraphPlan, GraphRun, GraphUnitStage, UnreadableSource};
use super::graphs::HeldBack;
use super::limits::{MOST_ENDS, WINDOW};
use crate::link::{Ask, NOTICE, fence_after_queueing};
use crate::supervisor::error::{JobError, JobErrorKind};
use crate::supervisor::lane::{Lane, NO_RECORD};
use crate::supervisor::owner::Owner;
use crate::supervisor::record::{JobId, Outcome, Stage};
use crate::supervisor::reply::Read;
use crate::supervisor::state::EngineState;

impl EngineState {
    /// Takes over a graph and sends its first jobs.
    pub(super) fn start_graph(&mut self, plan: GraphPlan) -> u32 {
        let ticket = self.draw_admission_ticket();
        let run = GraphRun::new(plan, &mut self.kernels, self.arena.id(), ticket);
        let graph = self.graphs.free.pop().unwrap_or_else(|| {
            self.graphs.runs.push(None);
            self.graphs.runs.len() as u32 - 1
        });
        self.monitor.watch_memory();
        self.graphs.runs[graph as usize] = Some(Box::new(run));
        // Sending may drain a lane, and the first jobs may have ended by then. Their ends are only appended while the
        // run is out of its place, and processed below.
        self.graphs.is_processing = true;
        self.with_run(graph, |state, run| state.send_ready(graph, run));
        self.graphs.is_processing = false;
        crate::sync::point!("graph.taken_over");
        // Also processes jobs that were refused at once.
        self.process_ends();
        graph
    }

    pub(super) fn run_of(&mut self, graph: u32) -> &mut GraphRun {
        let run = self.graphs.runs[graph as usize].as_mut();
        run.expect("a graph runs as long as its handle lives")
    }

    /// Keeps the answer of a unit's job in its record, and appends the end.
    pub(in crate::supervisor) fn unit_ended(&mut self, index: u32, outcome: Outcome) {
        self.discharge(index);
        let stage = self.records.at(index).stage;
        let step = match &outcome {
            Outcome::Failed(error) => self.step_of(error, stage),
            _ => 0,
        };
        let end = JobEnd {
            step,
            ..self.graphs.last
        };
        let record = self.records.at(index);
        let fails_group = matches!(
            (record.owner, &outcome),
            (Owner::Task { .. }, Outcome::Failed(_))
        );
        record.stage = Stage::Answered;
        record.outcome = Some(outcome);
        let notice = EndNotice::Job { record: index, end };
        match fails_group {
            true => self.graphs.ends.push_front(notice),
            false => self.graphs.ends.push_back(notice),
        }
        crate::sync::point!("unit.answered");
    }

    /// The kernel of the chain's node that a lane runs, as its worker reports it; `None` if the job is no chain.
    pub(in crate::supervisor) fn running_node(&self, lane: &Lane, record: u32) -> Option<u32> {
        // Relaxed: a name for statistics, which may be old.
        let step = lane.producer.cells().noted_step();
        self.node_at_step(record, step)
    }

    /// The kernel of a job; of a chain, that of the node at this step.
    pub(in crate::supervisor) fn kernel_at_step(&self, record: u32, step: u32) -> u32 {
        let node = self.node_at_step(record, step);
        node.unwrap_or_else(|| self.records.look(record).kernel)
    }

    /// The kernel of the node at this step of a chain; `None` if the job is no chain.
    fn node_at_step(&self, record: u32, step: u32) -> Option<u32> {
        let record = self.records.look(record);
        let Owner::Unit { graph, unit } = record.owner else {
            return None;
        };
        let run = self.graphs.runs.get(graph as usize)?.as_ref()?;
        (run.chain == record.kernel).then(|| run.kernel_of_step(unit, step))
    }

    /// The node that a failed chain had reached.
    pub(super) fn step_of(&self, error: &JobError, stage: Stage) -> u32 {
        match stage {
            _ if ended_in_worker(error) => self.graphs.last.step,
            Stage::Placed { link, .. } => {
                let reply = self.lanes[link as usize].producer.cells().reply();
                // Relaxed: read after the worker's end, or for a name only.
                reply.step.load(Ordering::Relaxed)
            }
            _ => 0,
        }
    }

    /// Processes ends: marks dependents ready and sends them. Of very many, leaves some to
    /// [`unlock`](crate::supervisor::shared::Supervisor::unlock), which releases the lock in between.
    pub(in crate::supervisor) fn process_ends(&mut self) {
        if std::mem::replace(&mut self.graphs.is_processing, true) {
            return;
        }
        let mut left = MOST_ENDS;
        loop {
            while left > 0
                && let Some(notice) = self.graphs.ends.pop_front()
            {
                left = left.saturating_sub(self.handle_end(notice));
            }
            self.retry_held_back();
            if std::mem::take(&mut self.graphs.has_queued) {
                // Jobs went to the queue: lanes have to know, and may have run dry meanwhile.
                self.monitor.watch_memory();
                self.update_flags();
                fence_after_queueing();
                self.drain_busy();
                self.refill();
            }
            if self.graphs.ends.is_empty() || left == 0 {
                break;
            }
        }
        self.graphs.is_processing = false;
    }

    /// Processes ends until there are none.
    pub(in crate::supervisor) fn process_all_ends(&mut self) {
        self.process_ends();
        while self.graphs.has_unhandled_ends() {
            self.process_ends();
        }
    }

    /// Tries again what admission holds back, by ticket.
    pub(super) fn retry_held_back(&mut self) {
        let first = self.graphs.first_held_back();
        let mut after = None;
        while let Some(&(ticket, held)) = match after {
            None => self.graphs.held_back.first(),
            Some(after) => {
                let behind = (Bound::Excluded(after), Bound::Unbounded);
                self.graphs.held_back.range(behind).next()
            }
        } {
            after = Some((ticket, held));
            // It enters itself again if it is still held back.
            self.graphs.held_back.remove(&(ticket, held));
            match held {
                HeldBack::Graph(graph) => {
                    self.with_run(graph, |state, run| state.send_ready(graph, run))
                }
                HeldBack::TaskGroup(task_group) => self.advance_task_group(task_group),
            }
            if self.graphs.held_back.contains(&(ticket, held)) {
                // No later ticket is admitted before it.
                break;
            }
        }
        if first != self.graphs.first_held_back() {
            // Jobs may have waited in the line behind it.
            self.notify_admission_line();
        }
    }

    /// Notes what admission holds back, to be tried again when a job ends.
    pub(super) fn hold_back(&mut self, ticket: u64, held: HeldBack) {
        self.graphs.held_back.insert((ticket, held));
        self.monitor.watch_memory();
        if !self.request_next_ends() {
            // A job has ended meanwhile, without a notice.
            self.monitor.look_again();
        }
    }

    /// Processes ends and held-back work after an action that may have ended jobs.
    pub(in crate::supervisor) fn settle_dependents(&mut self) {
        if self.graphs.has_pending_work() {
            self.refill();
        }
    }

    /// Takes a run out of its place, calls `f`, and puts it back.
    pub(super) fn with_run(&mut self, graph: u32, f: impl FnOnce(&mut Self, &mut GraphRun)) {
        if let Some(mut run) = self.graphs.runs[graph as usize].take() {
            f(self, &mut run);
            self.graphs.runs[graph as usize] = Some(run);
        }
    }

    /// Returns the number of jobs that it looked at.
    fn handle_end(&mut self, notice: EndNotice) -> usize {
        match notice {
            EndNotice::Advance { task_group } => self.advance_task_group(task_group),
            EndNotice::Cancel {
                task_group,
                serial,
                how,
                from,
            } => return self.cancel_sent(task_group, serial, how, from),
            EndNotice::Job { record, end } => match self.records.look(record).owner {
                Owner::Task { task_group, task } => {
                    self.handle_task_end(record, task_group, task, end);
                }
                Owner::Unit { graph, unit } => self.handle_unit_end(record, graph, unit, end),
                owner => unreachable!("the end of a job that no graph waits for: {owner:?}"),
            },
        }
        1
    }

    fn handle_unit_end(&mut self, index: u32, graph: u32, unit: u32, end: JobEnd) {
        self.with_run(graph, |state, run| {
            run.sent -= 1;
            let record = state.records.at(index);
            record.owner = Owner::Handle;
            if let Some(Outcome::Failed(error)) = &record.outcome {
                if ended_in_worker(error) {
                    run.count_nodes(unit, &end, true, &mut state.kernels);
                }
                let stopped = run.stopped_at.is_some() && *error.kind() == JobErrorKind::Cancelled;
                let error = run.blame(unit, error, end.step);
                state.records.remove(index);
                if stopped {
                    run.stop(unit);
                } else {
                    state.fail_unit(run, unit, error);
                    if run.plan.stops && run.stopped_at.is_none() {
                        state.stop_graph(run, unit);
                    }
                }
            } else {
                run.count_nodes(unit, &end, false, &mut state.kernels);
                let worker = state.lanes.worker_of(end.lane as usize);
                run.done(unit, &end, worker as u32);
                state.unit_done(run, unit);
            }
            state.send_ready(graph, run);
            if run.undecided == 0 {
                state.notify_graph_over(graph, run);
            }
        });
    }

    /// A unit gave a value: makes dependents ready.
    pub(super) fn unit_done(&mut self, run: &mut GraphRun, unit: u32) {
        if run.plan.units[unit as usize].uses == 0 {
            let record = run.states[unit as usize].record;
            self.records.remove(record.index);
            crate::sync::point!("unit.freed");
        }
        run.undecided -= usize::from(run.plan.units[unit as usize].is_requested);
        for at in run.plan.dependents_of(unit) {
            let dependent = run.plan.dependents[at];
            let waits = &mut run.plan.units[dependent as usize].waits;
            *waits -= 1;
            if *waits == 0 && run.states[dependent as usize].stage == GraphUnitStage::Waiting {
                run.make_ready(dependent);
                crate::sync::point!("unit.released");
            }
        }
        run.release_sources(unit);
    }

    /// A unit gave no value: fails all that depend on it.
    pub(super) fn fail_unit(&mut self, run: &mut GraphRun, unit: u32, error: (u32, JobError)) {
        run.errors.insert(unit, error);
        run.move_to(unit, GraphUnitStage::Failed(unit));
        run.release_sources(unit);
        let mut lost = vec![unit];
        while let Some(failed) = lost.pop() {
            run.undecided -= usize::from(run.plan.units[failed as usize].is_requested);
            for at in run.plan.dependents_of(failed) {
                let dependent = run.plan.dependents[at];
                if run.states[dependent as usize].stage != GraphUnitStage::Waiting {
                    continue;
                }
                run.move_to(dependent, GraphUnitStage::Failed(unit));
                run.drop_claims(dependent, &mut self.records);
                run.release_sources(dependent);
                lost.push(dependent);
            }
        }
        crate::sync::point!("unit.failed");
    }

    /// Stops the graph at the failure of unit `at`: what has not begun never will, and what runs is asked to stop.
    pub(super) fn stop_graph(&mut self, run: &mut GraphRun, at: u32) {
        run.stopped_at = Some(at);
        for unit in 0..run.plan.units.len() as u32 {
            let state = run.states[unit as usize];
            match state.stage {
                GraphUnitStage::Waiting => {
                    run.stop(unit);
                    run.drop_claims(unit, &mut self.records);
                }
                // Its end is processed as any other.
                GraphUnitStage::Sent => self.cancel(state.record),
                GraphUnitStage::Done | GraphUnitStage::Failed(_) | GraphUnitStage::Stopped => {}
            }
        }
    }

    /// Sends ready units, as far as window, ceiling and admission allow. Sends nothing once the end of each requested
    /// unit is known: values are being taken then.
    pub(super) fn send_ready(&mut self, graph: u32, run: &mut GraphRun) {
        while run.undecided > 0
            && run.sent < WINDOW
            && let Some(unit) = run.next_ready()
        {
            let kernel = run.kernel(unit);
            let admitted = if self.admission.is_some() {
                let Some(admitted) = self.admit_begun(kernel, run.ticket) else {
                    self.hold_back(run.ticket, HeldBack::Graph(graph));
                    break;
                };
                Some(admitted)
            } else {
                None
            };
            run.mark_sent(unit);
            let id = self.send_unit(graph, run, unit, kernel);
            if let Some(admitted) = admitted {
                self.charge_admitted(id, admitted);
            }
        }
    }

    /// Writes the call of a unit into a record, and places it.
    pub(super) fn send_unit(
        &mut self,
        graph: u32,
        run: &mut GraphRun,
        unit: u32,
        kernel: u32,
    ) -> JobId {
        let bad = run.load(unit, &mut self.records);
        crate::sync::point!("unit.forwarded");
        let owner = Owner::Unit { graph, unit };
        let options = run.plan.options_of(unit);
        let (id, refusal) = self.enter_record(kernel, &mut run.call.0, owner, options);
        let record = self.records.get(id);
        if run.driving_threads == 0 {
            record.requests |= NOTICE;
        }
        let job = record.job;
        run.sent_as(unit, id, job);
        crate::sync::point!("unit.recorded");
        if self.trace.is_some() {
            self.trace_sources(run, unit);
        }
        if let Some(UnreadableSource { unit, why }) = bad {
            let source = run.states[unit as usize].record.index;
            let error = self.not_read(source, why);
            self.count_failed(id.index, error.kind(), None);
            self.answer(id.index, Outcome::Failed(error));
        } else {
            self.enter(id.index, refusal, run.plan.options_of(unit));
        }
        crate::sync::point!("unit.placed");
        id
    }

    /// Reports to the trace which units' values a unit takes.
    #[cold]
    pub(super) fn trace_sources(&self, run: &GraphRun, unit: u32) {
        for at in run.plan.sources_of(unit) {
            let source = run.plan.sources[at];
            let job = |unit: u32| run.states[unit as usize].job;
            self.trace_depends(job(source), job(unit));
        }
    }

    /// Wakes the waiters of a graph that is over.
    pub(super) fn notify_graph_over(&mut self, graph: u32, run: &mut GraphRun) {
        self.waiters.call(run.waker.take());
        if std::mem::take(&mut run.parked) {
            self.waiters.notify(graph);
        }
        crate::sync::point!("graph.over");
    }

    /// Requests notice of the end of each job of this graph, so that the monitor continues it.
    pub(super) fn leave_to_monitor(&mut self, graph: u32) {
        for index in 0..self.lanes.len() {
            for position in self.lanes[index].producer.open_positions() {
                let record = self.lanes[index].record_at(position);
                let is_unit = |owner| matches!(owner, Owner::Unit { graph: of, .. } if of == graph);
                if record == NO_RECORD || !is_unit(self.records.look(record).owner) {
                    continue;
                }
                self.records.at(record).requests |= NOTICE;
                // A job that is over is found below.
                let _: Ask = self.lanes[index].ask(position, NOTICE);
            }
        }
        // Queued jobs request it when they are placed.
        let sent = self.maybe_queued(graph);
        for index in sent {
            self.records.at(index).requests |= NOTICE;
        }
        self.drain_busy();
        self.refill();
    }

    /// JobTable of a graph that may be in the queue.
    pub(super) fn maybe_queued(&mut self, graph: u32) -> Vec<u32> {
        let Some(run) = &self.graphs.runs[graph as usize] else {
            return Vec::new();
        };
        if self.queue.is_empty() && self.timers.attempts().next().is_none() {
            return Vec::new();
        }
        let sent = run
            .states
            .iter()
            .filter(|state| state.stage == GraphUnitStage::Sent);
        sent.map(|state| state.record.index).collect()
    }

    /// The lane and position where the next end may be seen, and the expected time of that job.
    pub(super) fn next_end(&mut self) -> Option<(usize, u64, u32)> {
        let lane = [self.lanes.recent()].into_iter().chain(0..self.lanes.len());
        for index in lane {
            let lane = &self.lanes[index];
            if lane.is_idle() || lane.is_condemned() {
                continue;
            }
            let mut open = lane.producer.open_positions();
            let oldest = open.find(|&position| lane.record_at(position) != NO_RECORD);
            if let Some(position) = oldest {
                let kernel = self.records.look(lane.record_at(position)).kernel;
                return Some((index, position, self.kernels.get(kernel).expected_ns));
            }
        }
        None
    }

    /// Takes the value of a node, or the reason why there is none.
    pub(super) fn take_node<R>(
        &mut self,
        graph: u32,
        node: u32,
        read: Read<R>,
    ) -> Result<R, JobError> {
        let run = self.run_of(graph);
        let unit = run.plan.unit_of[node as usize];
        let state = run.states[unit as usize];
        match state.stage {
            GraphUnitStage::Done => {
                // The record goes with the value, although units that will never run still count as users.
                run.plan.units[unit as usize].uses -= 1;
                run.states[unit as usize].stage = GraphUnitStage::Failed(unit);
                let taken = self.try_take(state.record, read);
                taken.expect("a unit that is done has its answer in its record")
            }
            GraphUnitStage::Failed(root) => match run.error_of(root) {
                (failed, error) if *failed == node => Err(error.clone()),
                // Another node failed, perhaps of the same chain.
                _ => Err(run.error_of_dependent(unit, root)),
            },
            GraphUnitStage::Stopped => Err(run.error_of_stopped(unit)),
            GraphUnitStage::Waiting | GraphUnitStage::Sent => {
                unreachable!("values are taken when it is known how all end")
            }
        }
    }

    /// Drops a graph: what has not begun never will, and what runs is abandoned.
    pub(super) fn drop_graph(&mut self, graph: u32) -> (Option<Box<GraphRun>>, Vec<Waker>) {
        self.process_all_ends();
        let run = self.graphs.runs[graph as usize].take();
        self.graphs.free.push(graph);
        let mut wakers = Vec::new();
        for state in run.iter().flat_map(|run| &run.states) {
            match state.stage {
                GraphUnitStage::Sent => {
                    self.records.get(state.record).owner = Owner::None;
                    wakers.extend(self.abandon(state.record));
                }
                GraphUnitStage::Done if self.records.find(state.record).is_some() => {
                    self.records.remove(state.record.index);
                }
                GraphUnitStage::Done
                | GraphUnitStage::Waiting
                | GraphUnitStage::Failed(_)
                | GraphUnitStage::Stopped => {}
            }
        }
        crate::sync::point!("graph.dropped");
        (run, wakers)
    }
}

/// Whether the error was returned by a call that ended, not by the loss of one.
pub(super) fn ended_in_worker(error: &JobError) -> bool {
    error.kind().ended_in_worker() && error.worker().is_some()
}
