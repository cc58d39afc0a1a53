//! Graphs: jobs that wait for other jobs. See "Graphs" in the README of this floor.

pub(super) mod ends;
mod families;
mod family;
pub(super) mod graphs;
mod run;
pub(super) mod told;
mod waiting;

use std::ops::Bound;
use std::sync::atomic::Ordering;
use std::task::Waker;

use self::ends::{LastEnd, Over};
use self::families::WINDOW;
pub(super) use self::family::Breaking;
use self::graphs::Begun;
pub use self::run::GraphProgress;
use self::run::{Bad, Run, UnitStage};
pub(crate) use self::run::{Calls, GraphPlan, NodeFate, Unit};
pub(crate) use self::told::MOST_DEEP;
use super::error::{JobError, JobErrorKind};
use super::lane::{Lane, NOBODY};
use super::record::{JobId, NO_GRAPH, Outcome, Stage};
use super::reply::Read;
use super::state::EngineState;
use crate::link::{Ask, NOTICE, fence_after_queueing};

impl EngineState {
    /// Takes a graph over. Its first jobs are sent.
    fn start_graph(&mut self, plan: GraphPlan) -> u32 {
        let ticket = self.begin();
        let run = Run::new(plan, &mut self.kernels, self.arena.id(), ticket);
        let graph = self.graphs.free.pop().unwrap_or_else(|| {
            self.graphs.runs.push(None);
            self.graphs.runs.len() as u32 - 1
        });
        self.monitor.watch_memory();
        self.graphs.runs[graph as usize] = Some(Box::new(run));
        // A lane that has many jobs is looked at while more are sent, and the first may have ended by then. Their ends are
        // heard afterwards: while the run is being fed nobody could tell it.
        self.graphs.continuing = true;
        self.with_run(graph, |state, run| state.feed(graph, run));
        self.graphs.continuing = false;
        crate::sync::point!("graph.taken_over");
        // Also of what was refused at once.
        self.continue_graphs();
        graph
    }

    fn run_of(&mut self, graph: u32) -> &mut Run {
        let run = self.graphs.runs[graph as usize].as_mut();
        run.expect("a graph runs as long as its handle lives")
    }

    /// The job of a unit has its answer, which is kept in its record.
    pub(super) fn unit_ended(&mut self, index: u32, outcome: Outcome) {
        self.discharge(index);
        let stage = self.records.at(index).stage;
        let step = match &outcome {
            Outcome::Failed(error) => self.step_of(error, stage),
            _ => 0,
        };
        let end = LastEnd {
            step,
            ..self.graphs.last
        };
        let record = self.records.at(index);
        record.stage = Stage::Answered;
        record.outcome = Some(outcome);
        self.graphs.over.push_back(Over { record: index, end });
        crate::sync::point!("unit.answered");
    }

    /// The kernel of the node that a lane runs, as far as its worker says, if that is a chain's.
    pub(super) fn node_that_runs(&self, lane: &Lane, record: u32) -> Option<u32> {
        let record = self.records.look(record);
        let run = self.graphs.runs.get(record.graph as usize)?.as_ref()?;
        // Relaxed: a name, which may be old.
        let step = lane.producer.cells().noted_step();
        (run.chain == record.kernel).then(|| run.kernel_of_step(record.unit, step))
    }

    /// How far a chain had come that failed.
    fn step_of(&self, error: &JobError, stage: Stage) -> u32 {
        match stage {
            _ if ended_in_worker(error) => self.graphs.last.step,
            Stage::Placed { link, .. } => {
                let reply = self.lanes[link as usize].producer.cells().reply();
                // Relaxed: a name, read after the worker's end or from one that is being ended.
                reply.step.load(Ordering::Relaxed)
            }
            _ => 0,
        }
    }

    /// Hears of all ends, and sends what they were waited for.
    pub(super) fn continue_graphs(&mut self) {
        if std::mem::replace(&mut self.graphs.continuing, true) {
            return;
        }
        loop {
            while let Some(over) = self.graphs.over.pop_front() {
                self.hear(over);
            }
            self.feed_held_back();
            if std::mem::take(&mut self.graphs.kept) {
                // As after the first job that is kept: lanes have to know, and may have run dry meanwhile.
                self.monitor.watch_memory();
                self.update_flags();
                fence_after_queueing();
                self.drain_busy();
                self.refill();
            }
            if self.graphs.over.is_empty() {
                break;
            }
        }
        self.graphs.continuing = false;
    }

    /// What admission has held back tries again, in the order in which it was begun.
    fn feed_held_back(&mut self) {
        let first = self.graphs.first_held_back();
        let mut after = None;
        while let Some(&(ticket, begun)) = match after {
            None => self.graphs.held_back.first(),
            Some(after) => {
                let behind = (Bound::Excluded(after), Bound::Unbounded);
                self.graphs.held_back.range(behind).next()
            }
        } {
            after = Some((ticket, begun));
            // Whatever is held back again puts itself here; what is over does not.
            self.graphs.held_back.remove(&(ticket, begun));
            match begun {
                Begun::Graph(graph) => self.with_run(graph, |state, run| state.feed(graph, run)),
                Begun::Family(family) => self.step_family(family),
            }
            if self.graphs.held_back.contains(&(ticket, begun)) {
                // Nothing is let in before it that was begun later.
                break;
            }
        }
        if first != self.graphs.first_held_back() {
            // Somebody may have stood behind it.
            self.tell_line();
        }
    }

    /// Admission holds this back: it is tried again when a job has ended.
    fn hold_back(&mut self, ticket: u64, begun: Begun) {
        self.graphs.held_back.insert((ticket, begun));
        self.monitor.watch_memory();
        if !self.want_next_ends() {
            // One has ended meanwhile, and nobody is told of it.
            self.monitor.look_again();
        }
    }

    /// Goes on with what something has ended, or given up, that is told of its end.
    pub(super) fn go_on(&mut self) {
        if self.graphs.have_news() {
            self.refill();
        }
    }

    /// Does something with a run and the rest of the core.
    fn with_run(&mut self, graph: u32, f: impl FnOnce(&mut Self, &mut Run)) {
        if let Some(mut run) = self.graphs.runs[graph as usize].take() {
            f(self, &mut run);
            self.graphs.runs[graph as usize] = Some(run);
        }
    }

    fn hear(&mut self, over: Over) {
        if self.family_hears(over) {
            return;
        }
        let record = self.records.at(over.record);
        let (graph, unit) = (record.graph, record.unit);
        self.with_run(graph, |state, run| {
            run.sent -= 1;
            let record = state.records.at(over.record);
            record.graph = NO_GRAPH;
            record.detached = false;
            if let Some(Outcome::Failed(error)) = &record.outcome {
                if ended_in_worker(error) {
                    run.count_nodes(unit, &over.end, true, &mut state.kernels);
                }
                let stopped = run.stopped_at.is_some() && *error.kind() == JobErrorKind::Cancelled;
                let error = run.blame(unit, error, over.end.step);
                state.records.remove(over.record);
                if stopped {
                    run.stop(unit);
                } else {
                    state.fail_unit(run, unit, error);
                    if run.plan.stops && run.stopped_at.is_none() {
                        state.stop_graph(run, unit);
                    }
                }
            } else {
                run.count_nodes(unit, &over.end, false, &mut state.kernels);
                let worker = state.lanes.worker_of(over.end.lane as usize);
                run.done(unit, &over.end, worker as u32);
                state.unit_done(run, unit);
            }
            state.feed(graph, run);
            if run.wanted == 0 {
                state.tell_over(graph, run);
            }
        });
    }

    /// A unit has a value.
    fn unit_done(&mut self, run: &mut Run, unit: u32) {
        if run.plan.units[unit as usize].uses == 0 {
            let record = run.states[unit as usize].record;
            self.records.remove(record.index);
            crate::sync::point!("unit.freed");
        }
        run.wanted -= usize::from(run.plan.units[unit as usize].wanted);
        for at in run.plan.dependents_of(unit) {
            let dependent = run.plan.dependents[at];
            let waits = &mut run.plan.units[dependent as usize].waits;
            *waits -= 1;
            if *waits == 0 && run.states[dependent as usize].stage == UnitStage::Waiting {
                run.make_ready(dependent);
                crate::sync::point!("unit.released");
            }
        }
        run.give_back(unit);
    }

    /// A unit gave no value: neither will those that wait for it.
    fn fail_unit(&mut self, run: &mut Run, unit: u32, error: (u32, JobError)) {
        run.errors.insert(unit, error);
        run.moves(unit, UnitStage::Failed(unit));
        run.give_back(unit);
        let mut lost = vec![unit];
        while let Some(failed) = lost.pop() {
            run.wanted -= usize::from(run.plan.units[failed as usize].wanted);
            for at in run.plan.dependents_of(failed) {
                let dependent = run.plan.dependents[at];
                if run.states[dependent as usize].stage != UnitStage::Waiting {
                    continue;
                }
                run.moves(dependent, UnitStage::Failed(unit));
                run.takes_nothing(dependent, &mut self.records);
                run.give_back(dependent);
                lost.push(dependent);
            }
        }
        crate::sync::point!("unit.failed");
    }

    /// This failure is the last thing that was waited for: what has not begun never will, and what runs is asked to stop.
    fn stop_graph(&mut self, run: &mut Run, at: u32) {
        run.stopped_at = Some(at);
        for unit in 0..run.plan.units.len() as u32 {
            let state = run.states[unit as usize];
            match state.stage {
                UnitStage::Waiting => {
                    run.stop(unit);
                    run.takes_nothing(unit, &mut self.records);
                }
                // Its end is heard as any other.
                UnitStage::Sent => self.cancel(state.record),
                UnitStage::Done | UnitStage::Failed(_) | UnitStage::Stopped => {}
            }
        }
    }

    /// Sends what is ready, as far as it may be, unless all that was asked for is decided: then values are being taken, and
    /// what is left would be for nobody.
    fn feed(&mut self, graph: u32, run: &mut Run) {
        while run.wanted > 0
            && run.sent < WINDOW
            && let Some(unit) = run.next_ready()
        {
            let kernel = run.kernel(unit);
            let entry = if self.admission.is_some() {
                let Some(entry) = self.enter_unit(kernel, run.ticket) else {
                    self.hold_back(run.ticket, Begun::Graph(graph));
                    break;
                };
                Some(entry)
            } else {
                None
            };
            run.goes(unit);
            let id = self.send_unit(graph, run, unit, kernel);
            if let Some(entry) = entry {
                self.entered(id, entry);
            }
        }
    }

    /// Writes the call of a unit into a record, and places it.
    fn send_unit(&mut self, graph: u32, run: &mut Run, unit: u32, kernel: u32) -> JobId {
        let bad = run.load(unit, &mut self.records);
        crate::sync::point!("unit.forwarded");
        let (id, record) = self.records.add();
        let job = record.job;
        record.kernel = kernel;
        record.group = 0;
        record.detached = true;
        record.graph = graph;
        record.unit = unit;
        record.seed = run.call.0.seed;
        record.requests = if run.drivers == 0 { NOTICE } else { 0 };
        let options = run.plan.units[unit as usize].options;
        if options != 0 {
            self.set_options(id.index, &run.plan.options[options as usize - 1]);
        }
        let refusal = self.write_call(id.index, &mut run.call.0);
        run.sent_as(unit, id, job);
        crate::sync::point!("unit.recorded");
        if self.trace.is_some() {
            self.trace_sources(run, unit);
        }
        let refusal = refusal.or_else(|| self.refusal_of_unit(kernel));
        if let Some(Bad { unit, why }) = bad {
            let source = run.states[unit as usize].record.index;
            let error = self.not_read(source, why);
            self.count_failed(id.index, error.kind());
            self.answer(id.index, Outcome::Failed(error));
        } else if let Some(why) = refusal {
            self.fail(id.index, why, None, Vec::new());
        } else if options != 0
            && self.is_kept_back(id.index, &run.plan.options[options as usize - 1])
        {
            // It is answered, or its limiter says when it goes on.
        } else if self.scheduler.has_priorities() && self.overtake(id.index)
            || !self.queue.is_clear()
            || !self.place(id.index)
        {
            self.queue.push_back(id.index, self.records.at(id.index));
            self.graphs.kept = true;
        }
        crate::sync::point!("unit.placed");
        id
    }

    /// The trace hears whose values a unit takes.
    #[cold]
    fn trace_sources(&self, run: &Run, unit: u32) {
        for at in run.plan.sources_of(unit) {
            let source = run.plan.sources[at];
            let job = |unit: u32| run.states[unit as usize].job;
            self.trace_depends(job(source), job(unit));
        }
    }

    /// A graph that was accepted is finished, unless everything ends now.
    fn refusal_of_unit(&mut self, kernel: u32) -> Option<JobErrorKind> {
        if self.lifecycle.closes_now() {
            return Some(JobErrorKind::ShutDown);
        }
        self.cannot_run(kernel)
    }

    /// Everything that was asked for is decided.
    fn tell_over(&mut self, graph: u32, run: &mut Run) {
        self.waiters.call(run.waker.take());
        if std::mem::take(&mut run.parked) {
            self.waiters.notify(graph);
        }
        crate::sync::point!("graph.over");
    }

    /// The monitor is to go on with this graph: it hears of the end of each of its jobs.
    fn leave_to_monitor(&mut self, graph: u32) {
        for index in 0..self.lanes.len() {
            for position in self.lanes[index].producer.open_positions() {
                let record = self.lanes[index].record_at(position);
                if record == NOBODY || self.records.look(record).graph != graph {
                    continue;
                }
                self.records.at(record).requests |= NOTICE;
                // Over already: found below.
                let _: Ask = self.lanes[index].ask(position, NOTICE);
            }
        }
        // Those in the queue ask when they are placed.
        let sent = self.with_queued(graph);
        for index in sent {
            self.records.at(index).requests |= NOTICE;
        }
        self.drain_busy();
        self.refill();
    }

    /// Records of a graph that no lane has.
    fn with_queued(&mut self, graph: u32) -> Vec<u32> {
        let Some(run) = &self.graphs.runs[graph as usize] else {
            return Vec::new();
        };
        if self.queue.is_empty() && self.pauses.is_empty() {
            return Vec::new();
        }
        let sent = run
            .states
            .iter()
            .filter(|state| state.stage == UnitStage::Sent);
        sent.map(|state| state.record.index).collect()
    }

    /// Where the next end of a graph's job may be seen: a lane, a position, and what that job is expected to take.
    fn next_end(&mut self) -> Option<(usize, u64, u32)> {
        let lane = [self.lanes.recent()].into_iter().chain(0..self.lanes.len());
        for index in lane {
            let lane = &self.lanes[index];
            if lane.is_idle() || lane.condemned {
                continue;
            }
            let mut open = lane.producer.open_positions();
            let oldest = open.find(|&position| lane.record_at(position) != NOBODY);
            if let Some(position) = oldest {
                let kernel = self.records.look(lane.record_at(position)).kernel;
                return Some((index, position, self.kernels.get(kernel).expected_ns));
            }
        }
        None
    }

    /// Takes the value of a node, or why there is none.
    fn take_node<R>(&mut self, graph: u32, node: u32, read: Read<R>) -> Result<R, JobError> {
        let run = self.run_of(graph);
        let unit = run.plan.unit_of[node as usize];
        let state = run.states[unit as usize];
        match state.stage {
            UnitStage::Done => {
                // The record goes with the value. Units that have not run, and never will, still count as its users.
                run.plan.units[unit as usize].uses -= 1;
                run.states[unit as usize].stage = UnitStage::Failed(unit);
                let taken = self.try_take(state.record, read);
                taken.expect("a unit that is done has its answer in its record")
            }
            UnitStage::Failed(root) => match run.error_of(root) {
                (failed, error) if *failed == node => Err(error.clone()),
                // Another one, which may be of the same chain.
                _ => Err(run.lost_to(unit, root)),
            },
            UnitStage::Stopped => Err(run.stopped(unit)),
            UnitStage::Waiting | UnitStage::Sent => {
                unreachable!("values are taken when it is known how all end")
            }
        }
    }

    /// Nobody asks for a graph any more: what has not begun will not, and what runs is asked to stop.
    fn drop_graph(&mut self, graph: u32) -> (Option<Box<Run>>, Vec<Waker>) {
        self.continue_graphs();
        let run = self.graphs.runs[graph as usize].take();
        self.graphs.free.push(graph);
        let mut wakers = Vec::new();
        for state in run.iter().flat_map(|run| &run.states) {
            match state.stage {
                UnitStage::Sent => {
                    self.records.get(state.record).graph = NO_GRAPH;
                    wakers.extend(self.abandon(state.record));
                }
                UnitStage::Done if self.records.find(state.record).is_some() => {
                    self.records.remove(state.record.index);
                }
                UnitStage::Done
                | UnitStage::Waiting
                | UnitStage::Failed(_)
                | UnitStage::Stopped => {}
            }
        }
        crate::sync::point!("graph.dropped");
        (run, wakers)
    }
}

/// Does this error come with the end of a call, and not instead of one?
fn ended_in_worker(error: &JobError) -> bool {
    use JobErrorKind::{ArenaFull, Panicked, Returned};
    let replied = matches!(error.kind(), Returned(_) | Panicked { .. } | ArenaFull(_));
    replied && error.worker().is_some()
}
