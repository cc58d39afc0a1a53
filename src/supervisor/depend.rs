//! Graphs: jobs that wait for other jobs. See "Graphs" in the README of this floor.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::Shared;
use super::core::{Closing, Core, Read};
use super::error::{Failed, JobError, JobErrorKind};
use super::lane::NOBODY;
use super::policy::{Policy, Priority, Terms};
use super::record::{JobId, NO_GRAPH, Outcome, Records, Stage};
use crate::kernel::wire::{ArgWriter, Received, ReplyReader, WordReader};
use crate::kernel::{
    BadReply, CallWriter, ChainWriter, Ended, Forward, KernelInfo, Loading, NodeKernel, Receiving,
    to_offset,
};
use crate::link::{Ask, NOTICE, SLOTS, after_keeping};

/// Jobs of one graph that have a record and no answer, at most: enough for every worker, however many are ready.
const WINDOW: usize = 2 * SLOTS;
/// A job that is expected to take longer is not worth spinning for.
const SPIN_BELOW_NS: u32 = 60_000;
/// Whoever waits while admission holds a graph back looks again after this long.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// The arguments of a graph's nodes, each written once.
pub(crate) trait Calls: Send {
    /// Writes the call of a node.
    fn load(&mut self, node: u32, loading: &mut Loading<'_>);
}

/// One job of a graph: a node, or a chain of them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Unit {
    /// Its nodes are `count` from here on, in [`GraphPlan::nodes`].
    pub(crate) first: u32,
    pub(crate) count: u32,
    /// Where its part of [`GraphPlan::dependents`] begins.
    pub(crate) dependents: u32,
    /// Where its part of [`GraphPlan::sources`] begins.
    pub(crate) sources: u32,
    /// Ends that it waits for.
    pub(crate) waits: u32,
    /// How often its value is taken, by other units and by whoever asked for it.
    pub(crate) uses: u32,
    /// Index into [`GraphPlan::terms`], from 1 on; 0 for none.
    pub(crate) terms: u32,
    /// The longest way from a unit that waits for nothing.
    pub(crate) level: u32,
    /// Somebody asked for its value.
    pub(crate) wanted: bool,
    /// Bytes of its value, where they are declared.
    pub(crate) bytes: u64,
}

/// A graph as it is handed over. Units stand in an order in which they could run one after the other.
pub(crate) struct GraphPlan {
    pub(crate) units: Vec<Unit>,
    /// Node numbers, unit by unit.
    pub(crate) nodes: Vec<u32>,
    /// By node: the unit, or [`u32::MAX`] if nobody asked for it.
    pub(crate) unit_of: Vec<u32>,
    /// By node: index into `kernels`.
    pub(crate) kernel_of: Vec<u32>,
    pub(crate) kernels: Vec<NodeKernel>,
    /// Units that wait for each unit, unit by unit.
    pub(crate) dependents: Vec<u32>,
    /// Units whose value each unit takes, unit by unit.
    pub(crate) sources: Vec<u32>,
    pub(crate) terms: Vec<Terms>,
    /// Names of nodes that have one.
    pub(crate) names: HashMap<u32, String>,
    /// Units start in order, and never so many that their values take more bytes than this.
    pub(crate) ceiling: Option<u64>,
    pub(crate) calls: Box<dyn Calls>,
}

impl GraphPlan {
    fn part(all: &[u32], from: u32, next: Option<u32>) -> std::ops::Range<usize> {
        from as usize..next.map_or(all.len(), |next| next as usize)
    }

    fn dependents_of(&self, unit: u32) -> std::ops::Range<usize> {
        let next = self.units.get(unit as usize + 1);
        let from = self.units[unit as usize].dependents;
        Self::part(&self.dependents, from, next.map(|unit| unit.dependents))
    }

    fn sources_of(&self, unit: u32) -> std::ops::Range<usize> {
        let next = self.units.get(unit as usize + 1);
        let from = self.units[unit as usize].sources;
        Self::part(&self.sources, from, next.map(|unit| unit.sources))
    }

    /// The kernel of a node.
    fn kernel(&self, node: u32) -> &NodeKernel {
        &self.kernels[self.kernel_of[node as usize] as usize]
    }

    /// How a node is called in messages.
    fn name(&self, node: u32) -> String {
        let name = self.names.get(&node);
        name.map_or_else(|| format!("node {node}"), |name| format!("node {name:?}"))
    }
}

/// Where a unit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum UnitStage {
    /// For others, or for its turn.
    Waiting,
    /// It has a record, and no answer.
    Sent,
    /// Its value is in its record, as long as somebody will take it.
    Done,
    /// It gave no value, or this unit did, without which it cannot run.
    Failed(u32),
}

#[derive(Clone, Copy, Debug)]
struct UnitState {
    stage: UnitStage,
    record: JobId,
    /// The number of its job.
    job: u64,
    took_ns: u32,
    worker: u32,
}

/// A graph that runs.
pub(super) struct Run {
    plan: GraphPlan,
    states: Vec<UnitState>,
    /// Units that wait for nothing but their turn: what has come furthest goes first, so that values are taken before others
    /// are made; otherwise, or if there is a ceiling, in their order.
    ready: BinaryHeap<(u32, Reverse<u32>)>,
    /// By the plan's kernels: the index of the job's kernel, and the offset of the step.
    kernels: Vec<(u32, u64)>,
    chain: u32,
    /// Units that have a record and no answer.
    sent: usize,
    /// Units that were asked for, and of which it is not known yet how they end.
    wanted: usize,
    /// Why units failed, by the one that is to blame.
    errors: HashMap<u32, JobError>,
    /// With a ceiling: the next unit, bytes of values that are there or will be, and how many ends of others each waits for
    /// before it is free.
    next: u32,
    held: u64,
    ends_left: Vec<u32>,
    /// Threads that drain, and place what is ready.
    drivers: u32,
    /// A thread sleeps until it is over.
    parked: bool,
    waker: Option<Waker>,
    call: CallWriter,
    link: ChainWriter,
}

impl std::fmt::Debug for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Run")
            .field("units", &self.states.len())
            .field("ready", &self.ready.len())
            .field("sent", &self.sent)
            .field("wanted", &self.wanted)
            .finish_non_exhaustive()
    }
}

/// An end that its graph has not heard of.
#[derive(Clone, Copy, Debug)]
struct Over {
    record: u32,
    took_ns: u32,
    worker: u32,
    /// Of a chain that failed: which of its nodes.
    step: u32,
}

/// All graphs of an engine.
#[derive(Debug, Default)]
pub(super) struct Graphs {
    runs: Vec<Option<Box<Run>>>,
    free: Vec<u32>,
    over: VecDeque<Over>,
    /// Somebody goes through `over`.
    continuing: bool,
    /// Some unit went to the queue.
    kept: bool,
    /// Admission has held some graph back.
    hungry: bool,
    /// Duration and lane of the job that was drained last.
    pub(super) drained: (u32, u32),
    /// The node of its chain that the failure drained last came from.
    pub(super) failed_step: u32,
}

impl Graphs {
    /// Is there something to go on with?
    #[inline]
    pub(super) fn have_news(&self) -> bool {
        !self.over.is_empty() || self.hungry
    }
}

/// The values of a run's units, as its nodes take them.
struct Values<'a> {
    records: &'a mut Records,
    plan: &'a mut GraphPlan,
    states: &'a [UnitState],
    /// A unit whose value cannot be read.
    bad: Option<u32>,
}

impl Values<'_> {
    /// Nobody will take the value of this unit once more.
    fn used(records: &mut Records, plan: &mut GraphPlan, states: &[UnitState], unit: u32) {
        let uses = &mut plan.units[unit as usize].uses;
        *uses -= 1;
        if *uses == 0 && states[unit as usize].stage == UnitStage::Done {
            records.remove(states[unit as usize].record.index);
        }
    }
}

impl Ended for Values<'_> {
    fn forward(&mut self, node: u32, forward: Forward, call: &mut CallWriter) -> bool {
        let unit = self.plan.unit_of[node as usize];
        let record = self.records.get(self.states[unit as usize].record);
        let last = self.plan.units[unit as usize].uses == 1;
        let arrays = match (record.arrays.is_empty(), last) {
            (true, _) | (_, true) => std::mem::take(&mut record.arrays),
            (false, false) => record.arrays.iter().map(Received::again).collect(),
        };
        let words: &[u64] = match &record.outcome {
            Some(Outcome::Inline { len }) => &record.payload[..*len as usize],
            Some(Outcome::Long(words)) => words,
            Some(Outcome::Bare | Outcome::Failed(_)) | None => &[],
        };
        let words = WordReader::new(words);
        let arrays = arrays.into_iter();
        let read = forward(&mut Receiving(ReplyReader { words, arrays }), call);
        if read == Err(BadReply) {
            self.bad = Some(unit);
            return false;
        }
        Self::used(self.records, self.plan, self.states, unit);
        true
    }
}

/// What is known of how a node ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NodeFate {
    /// It has not ended.
    Open,
    /// Its job took so long, on this worker; `with` other nodes were part of it.
    Done {
        took: Duration,
        worker: u32,
        with: u32,
    },
    /// It gave no value.
    Failed,
    /// It never ran, because another one failed.
    Skipped,
}

impl Core {
    /// Takes a graph over. Its first jobs are sent.
    fn start_graph(&mut self, plan: GraphPlan) -> u32 {
        let kernels = plan.kernels.iter().map(|kernel| {
            let step = to_offset(kernel.step).unwrap_or_default();
            (self.kernels.index(&kernel.info), step)
        });
        let kernels = kernels.collect();
        let arena = self.arena.id();
        let waiting = UnitState {
            stage: UnitStage::Waiting,
            record: JobId::NOBODY,
            job: 0,
            took_ns: 0,
            worker: NOBODY,
        };
        let mut run = Box::new(Run {
            states: vec![waiting; plan.units.len()],
            ready: BinaryHeap::new(),
            kernels,
            chain: self.kernels.index(&KernelInfo::of_chain()),
            sent: 0,
            wanted: plan.units.iter().filter(|unit| unit.wanted).count(),
            errors: HashMap::new(),
            next: 0,
            held: 0,
            ends_left: Vec::new(),
            drivers: 0,
            parked: false,
            waker: None,
            call: CallWriter(ArgWriter::new(arena)),
            link: ChainWriter::new(arena),
            plan,
        });
        if run.plan.ceiling.is_some() {
            run.ends_left = vec![0; run.plan.units.len()];
            for &source in &run.plan.sources {
                run.ends_left[source as usize] += 1;
            }
        }
        for unit in 0..run.plan.units.len() as u32 {
            if run.plan.units[unit as usize].waits == 0 {
                run.make_ready(unit);
            }
        }
        let graph = self.graphs.free.pop().unwrap_or_else(|| {
            self.graphs.runs.push(None);
            self.graphs.runs.len() as u32 - 1
        });
        self.be_watched();
        self.feed(graph, &mut run);
        self.graphs.runs[graph as usize] = Some(run);
        // What was refused at once has ended.
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
        let (took_ns, lane) = self.graphs.drained;
        let worker = self.worker_of(lane as usize) as u32;
        let stage = self.records.at(index).stage;
        let step = match &outcome {
            Outcome::Failed(error) => self.step_of(error, stage),
            _ => 0,
        };
        let record = self.records.at(index);
        record.stage = Stage::Answered;
        record.outcome = Some(outcome);
        self.graphs.over.push_back(Over {
            record: index,
            took_ns,
            worker,
            step,
        });
    }

    /// How far a chain had come that failed.
    fn step_of(&self, error: &JobError, stage: Stage) -> u32 {
        match (error.kind(), stage) {
            (
                JobErrorKind::Returned(_)
                | JobErrorKind::Panicked { .. }
                | JobErrorKind::ArenaFull(_),
                _,
            ) => self.graphs.failed_step,
            (_, Stage::Placed { link, .. }) => {
                let reply = self.lanes[link as usize].poster.cells().reply();
                // Relaxed: a name, read after the worker's end or from one that is being ended.
                reply.step.load(Ordering::Relaxed)
            }
            (_, _) => 0,
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
            if std::mem::take(&mut self.graphs.hungry) {
                for graph in 0..self.graphs.runs.len() {
                    self.with_run(graph as u32, |core, run| core.feed(graph as u32, run));
                }
            }
            if std::mem::take(&mut self.graphs.kept) {
                // As after the first job that is kept: lanes have to know, and may have run dry meanwhile.
                self.be_watched();
                self.update_flags();
                after_keeping();
                self.drain_busy();
                self.refill();
            }
            if self.graphs.over.is_empty() {
                break;
            }
        }
        self.graphs.continuing = false;
    }

    /// Does something with a run and the rest of the core.
    fn with_run(&mut self, graph: u32, f: impl FnOnce(&mut Self, &mut Run)) {
        if let Some(mut run) = self.graphs.runs[graph as usize].take() {
            f(self, &mut run);
            self.graphs.runs[graph as usize] = Some(run);
        }
    }

    fn hear(&mut self, over: Over) {
        let record = self.records.at(over.record);
        let (graph, unit) = (record.graph, record.unit);
        self.with_run(graph, |core, run| {
            run.sent -= 1;
            let record = core.records.at(over.record);
            record.graph = NO_GRAPH;
            record.detached = false;
            if let Some(Outcome::Failed(error)) = &record.outcome {
                let error = run.blame(unit, error, over.step);
                core.records.remove(over.record);
                core.fail_unit(run, unit, error);
            } else {
                run.done(unit, &over);
                core.unit_done(run, unit);
            }
            core.feed(graph, run);
            if run.wanted == 0 {
                core.tell_over(graph, run);
            }
        });
    }

    /// A unit has a value.
    fn unit_done(&mut self, run: &mut Run, unit: u32) {
        if run.plan.units[unit as usize].uses == 0 {
            let record = run.states[unit as usize].record;
            self.records.remove(record.index);
        }
        run.wanted -= usize::from(run.plan.units[unit as usize].wanted);
        for at in run.plan.dependents_of(unit) {
            let dependent = run.plan.dependents[at];
            let waits = &mut run.plan.units[dependent as usize].waits;
            *waits -= 1;
            if *waits == 0 && run.states[dependent as usize].stage == UnitStage::Waiting {
                run.make_ready(dependent);
            }
        }
        run.give_back(unit);
    }

    /// A unit gave no value: neither will those that wait for it.
    fn fail_unit(&mut self, run: &mut Run, unit: u32, error: JobError) {
        run.errors.insert(unit, error);
        run.states[unit as usize].stage = UnitStage::Failed(unit);
        run.give_back(unit);
        let mut lost = vec![unit];
        while let Some(failed) = lost.pop() {
            run.wanted -= usize::from(run.plan.units[failed as usize].wanted);
            for at in run.plan.dependents_of(failed) {
                let dependent = run.plan.dependents[at];
                if run.states[dependent as usize].stage != UnitStage::Waiting {
                    continue;
                }
                run.states[dependent as usize].stage = UnitStage::Failed(unit);
                // What it would have taken is not kept for it.
                for at in run.plan.sources_of(dependent) {
                    let source = run.plan.sources[at];
                    Values::used(&mut self.records, &mut run.plan, &run.states, source);
                }
                run.give_back(dependent);
                lost.push(dependent);
            }
        }
    }

    /// Sends what is ready, as far as it may be.
    fn feed(&mut self, graph: u32, run: &mut Run) {
        while run.sent < WINDOW
            && let Some(unit) = run.next_ready()
        {
            let kernel = run.kernel(unit);
            let entry = if self.admission.is_some() {
                let info = self.kernels.get(kernel).info;
                let Some(entry) = self.enter_unit(&info) else {
                    self.graphs.hungry = true;
                    self.be_watched();
                    self.want_next_ends();
                    break;
                };
                Some(entry)
            } else {
                None
            };
            run.ready.pop();
            let id = self.send_unit(graph, run, unit, kernel);
            if let Some(entry) = entry {
                self.entered(id, entry);
            }
        }
    }

    /// Writes the call of a unit into a record, and places it.
    fn send_unit(&mut self, graph: u32, run: &mut Run, unit: u32, kernel: u32) -> JobId {
        let bad = run.load(unit, &mut self.records);
        let (id, record) = self.records.add();
        self.next_job += 1;
        record.job = self.next_job;
        record.kernel = kernel;
        record.group = 0;
        record.detached = true;
        record.graph = graph;
        record.unit = unit;
        record.requests = if run.drivers == 0 { NOTICE } else { 0 };
        let terms = run.plan.units[unit as usize].terms;
        if terms != 0 {
            let terms = run.plan.terms[terms as usize - 1];
            record.policy = Some(Box::new(Policy::new(terms)));
            self.ranked |= terms.priority != Priority::Normal;
        }
        let job = record.job;
        let refusal = self.write_call(id.index, &mut run.call.0);
        run.sent_as(unit, id, job);
        if self.trace.is_some() {
            self.trace_sources(run, unit);
        }
        crate::sync::point!("graph.recorded");
        let refusal = refusal.or_else(|| self.refusal_of_unit(kernel));
        if let Some(source) = bad {
            let record = run.states[source as usize].record;
            let error = self.unreadable(record.index);
            self.answer(id.index, Outcome::Failed(error));
        } else if let Some(why) = refusal {
            self.fail(id.index, why, None, Vec::new());
        } else if self.ranked && self.overtake(id.index)
            || !self.queue.is_empty()
            || !self.place(id.index)
        {
            self.queue.push_back(id.index, self.records.at(id.index));
            self.graphs.kept = true;
        }
        crate::sync::point!("graph.sent");
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
        if self.closing == Closing::Now {
            return Some(JobErrorKind::ShutDown);
        }
        if let Some(why) = &self.broken {
            return Some(JobErrorKind::NoWorkers(why.clone()));
        }
        let foreign = self.kernels.get(kernel).offset.is_none();
        foreign.then_some(JobErrorKind::ForeignKernel)
    }

    /// Everything that was asked for is decided.
    fn tell_over(&mut self, graph: u32, run: &mut Run) {
        self.wakers.extend(run.waker.take());
        if std::mem::take(&mut run.parked) {
            self.parking.of(graph).notify();
        }
    }

    /// The monitor is to go on with this graph: it hears of the end of each of its jobs.
    fn leave_to_monitor(&mut self, graph: u32) {
        for index in 0..self.lanes.len() {
            for position in self.lanes[index].poster.open_positions() {
                let record = self.lanes[index].record_at(position);
                if record == NOBODY || self.records.look(record).graph != graph {
                    continue;
                }
                self.records.at(record).requests |= NOTICE;
                // Over already: found below.
                let _: Ask = self.lanes[index].poster.ask(position, NOTICE);
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
        if self.queue.is_empty() && self.waiting.is_empty() {
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
        let lane = [self.recent].into_iter().chain(0..self.lanes.len());
        for index in lane {
            let lane = &self.lanes[index];
            if lane.is_idle() || lane.condemned {
                continue;
            }
            let mut open = lane.poster.open_positions();
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
                // It is nobody's but the caller's now: others have their leases.
                run.plan.units[unit as usize].uses = 1;
                run.states[unit as usize].stage = UnitStage::Failed(unit);
                let taken = self.try_take(state.record, read);
                taken.expect("a unit that is done has its answer in its record")
            }
            UnitStage::Failed(root) if root == unit => {
                let error = run.errors.get(&root).cloned();
                Err(error.expect("a unit that failed has an error"))
            }
            UnitStage::Failed(root) => Err(run.lost_to(unit, root)),
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
                UnitStage::Done | UnitStage::Waiting | UnitStage::Failed(_) => {}
            }
        }
        (run, wakers)
    }
}

impl Run {
    fn make_ready(&mut self, unit: u32) {
        let level = match self.plan.ceiling {
            None => self.plan.units[unit as usize].level,
            Some(_) => 0,
        };
        self.ready.push((level, Reverse(unit)));
    }

    /// The next unit that may be sent; it is the first of `ready`.
    fn next_ready(&mut self) -> Option<u32> {
        loop {
            let &(_, Reverse(unit)) = self.ready.peek()?;
            if self.states[unit as usize].stage != UnitStage::Waiting {
                self.ready.pop();
                continue;
            }
            let Some(ceiling) = self.plan.ceiling else {
                return Some(unit);
            };
            // In order, so that what is held at any time is no more than what one after the other would hold.
            while matches!(self.states[self.next as usize].stage, UnitStage::Failed(_)) {
                self.next += 1;
            }
            let bytes = self.plan.units[unit as usize].bytes;
            if unit != self.next || self.held.saturating_add(bytes) > ceiling && self.sent > 0 {
                return None;
            }
            self.next += 1;
            self.held += bytes;
            return Some(unit);
        }
    }

    /// The kernel of a unit's job.
    fn kernel(&self, unit: u32) -> u32 {
        let Unit { first, count, .. } = self.plan.units[unit as usize];
        if count > 1 {
            return self.chain;
        }
        let node = self.plan.nodes[first as usize];
        self.kernels[self.plan.kernel_of[node as usize] as usize].0
    }

    /// Writes the call of a unit. If a value that it takes cannot be read: the unit whose value that is.
    fn load(&mut self, unit: u32, records: &mut Records) -> Option<u32> {
        let Self {
            plan,
            states,
            call,
            link,
            kernels,
            ..
        } = self;
        let Unit { first, count, .. } = plan.units[unit as usize];
        call.0.reset();
        // The calls are apart while the rest of the plan tells where values are.
        let mut calls = std::mem::replace(&mut plan.calls, Box::new(NoCalls));
        let mut values = Values {
            records,
            plan,
            states,
            bad: None,
        };
        if count == 1 {
            let node = values.plan.nodes[first as usize];
            let mut loading = Loading {
                call,
                ended: &mut values,
                before: None,
                mask: 0,
                unreadable: false,
            };
            calls.load(node, &mut loading);
        } else {
            ChainWriter::begin(call, count);
            let mut before = None;
            for at in 0..count {
                let node = values.plan.nodes[(first + at) as usize];
                let mut loading = Loading {
                    call: &mut link.node,
                    ended: &mut values,
                    before,
                    mask: 0,
                    unreadable: false,
                };
                calls.load(node, &mut loading);
                let mask = loading.mask;
                let (_, step) = kernels[values.plan.kernel_of[node as usize] as usize];
                link.finish(call, step, mask, at + 1 == count);
                before = Some(node);
            }
        }
        let bad = values.bad;
        plan.calls = calls;
        bad
    }

    fn sent_as(&mut self, unit: u32, record: JobId, job: u64) {
        let state = &mut self.states[unit as usize];
        state.stage = UnitStage::Sent;
        state.record = record;
        state.job = job;
        self.sent += 1;
    }

    fn done(&mut self, unit: u32, over: &Over) {
        let state = &mut self.states[unit as usize];
        state.stage = UnitStage::Done;
        state.took_ns = over.took_ns;
        state.worker = over.worker;
    }

    /// With a ceiling: a unit is over, and what it took is free, unless others want it too.
    fn give_back(&mut self, unit: u32) {
        if self.plan.ceiling.is_none() {
            return;
        }
        let sources = self.plan.sources_of(unit);
        for at in sources {
            let source = self.plan.sources[at] as usize;
            self.ends_left[source] -= 1;
            let free = self.ends_left[source] == 0 && !self.plan.units[source].wanted;
            if free && self.states[source].stage == UnitStage::Done {
                self.held -= self.plan.units[source].bytes;
            }
        }
        let failed = matches!(self.states[unit as usize].stage, UnitStage::Failed(_));
        let nobody = self.ends_left[unit as usize] == 0 && !self.plan.units[unit as usize].wanted;
        if unit < self.next && (failed || nobody) {
            self.held -= self.plan.units[unit as usize].bytes;
        }
    }

    /// The error of a unit that failed, with the node that did.
    fn blame(&self, unit: u32, error: &JobError, step: u32) -> JobError {
        let Unit { first, count, .. } = self.plan.units[unit as usize];
        if count == 1 {
            return error.clone();
        }
        let node = self.plan.nodes[(first + step.min(count - 1)) as usize];
        error.of_kernel(self.plan.kernel(node).info.name)
    }

    /// The error of a unit that could not run.
    fn lost_to(&self, unit: u32, root: u32) -> JobError {
        let last = |unit: u32| {
            let Unit { first, count, .. } = self.plan.units[unit as usize];
            self.plan.nodes[(first + count - 1) as usize]
        };
        let Some(error) = self.errors.get(&root) else {
            unreachable!("a unit that failed has an error");
        };
        let kernel = error.kernel();
        let failed = self.plan.units[root as usize];
        let nodes = &self.plan.nodes[failed.first as usize..(failed.first + failed.count) as usize];
        // Of a chain, the node whose kernel it was.
        let to_blame = nodes
            .iter()
            .find(|&&node| self.plan.kernel(node).info.name == kernel);
        let kind = JobErrorKind::DependencyFailed {
            node: self
                .plan
                .name(to_blame.copied().unwrap_or_else(|| last(root))),
            job: error.job(),
            kernel,
            cause: Box::new(error.kind().clone()),
        };
        Failed::new(kind, self.plan.kernel(last(unit)).info.name, 0).into()
    }

    /// How a node ran.
    fn fate(&self, node: u32) -> NodeFate {
        let unit = self.plan.unit_of[node as usize];
        let Some(state) = self.states.get(unit as usize) else {
            return NodeFate::Open;
        };
        match state.stage {
            UnitStage::Waiting | UnitStage::Sent => NodeFate::Open,
            _ if state.worker != NOBODY => NodeFate::Done {
                took: Duration::from_nanos(state.took_ns.into()),
                worker: state.worker,
                with: self.plan.units[unit as usize].count - 1,
            },
            UnitStage::Failed(root) if root == unit => NodeFate::Failed,
            UnitStage::Failed(_) => NodeFate::Skipped,
            UnitStage::Done => NodeFate::Open,
        }
    }
}

/// Stands in for the calls of a plan while one of them is written.
struct NoCalls;

impl Calls for NoCalls {
    fn load(&mut self, _: u32, _: &mut Loading<'_>) {
        unreachable!("one call is written at a time");
    }
}

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
                && core.busy_lanes() < self.cores
            {
                self.unlock(core);
                let ended = self.spin(lane, position);
                core = self.lock();
                if ended {
                    continue;
                }
            }
            // Otherwise the monitor does, and tells when it is over.
            core.run_of(graph).drivers -= 1;
            core.leave_to_monitor(graph);
            let hungry = core.graphs.hungry;
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
            let limit = if hungry {
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
        drop(waker);
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

    /// Nobody asks for a graph any more.
    pub(crate) fn drop_graph(&self, graph: u32) {
        let mut core = self.lock();
        let dropped = core.drop_graph(graph);
        core.refill();
        self.unlock(core);
        drop(dropped);
    }
}
