//! A graph as it is handed over, and the state of its run.
//!
//! A *unit* is one job of a graph: a node, or a chain of nodes.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::task::Waker;
use std::time::Duration;

use super::ends::JobEnd;
use crate::kernel::wire::{ArgWriter, ReceivedArray, ReplyReader, WordReader};
use crate::kernel::{
    CallWriter, ChainWriter, Ended, Forward, KernelInfo, Loading, MAX_SHARES, NodeKernel,
    Receiving, Shares, to_offset,
};
use crate::supervisor::error::{Failed, JobError};
use crate::supervisor::job_table::JobTable;
use crate::supervisor::kernels::Kernels;
use crate::supervisor::lane::NO_RECORD;
use crate::supervisor::options::JobOptions;
use crate::supervisor::record::JobId;
use crate::supervisor::reply::{Unreadable, read_guarded};

/// Writes the arguments of a graph's nodes.
pub(crate) trait NodeCalls: Send {
    /// Writes the call of a node. Called once per node.
    fn load(&mut self, node: u32, loading: &mut Loading<'_>);
}

/// One job of a graph: a node, or a chain of nodes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct GraphUnit {
    /// Its nodes are `count` entries of [`GraphPlan::nodes`] from here on.
    pub(crate) first: u32,
    pub(crate) count: u32,
    /// Start of its part of [`GraphPlan::dependents`].
    pub(crate) dependents: u32,
    /// Start of its part of [`GraphPlan::sources`].
    pub(crate) sources: u32,
    /// Number of units that it waits for and that have not ended.
    pub(crate) waits: u32,
    /// Number of times that its value is still taken, by other units and by the caller.
    pub(crate) uses: u32,
    /// Index into [`GraphPlan::options`], from 1; 0 for none.
    pub(crate) options: u32,
    /// Length of the longest path from a unit without sources.
    pub(crate) level: u32,
    /// The caller asked for its value.
    pub(crate) is_requested: bool,
    /// Bytes of its value, where they are declared.
    pub(crate) bytes: u64,
}

/// A graph as it is handed over. Units are in topological order.
pub(crate) struct GraphPlan {
    pub(crate) units: Vec<GraphUnit>,
    /// Node numbers, unit by unit.
    pub(crate) nodes: Vec<u32>,
    /// By node: its unit, or [`u32::MAX`] if the node is not needed.
    pub(crate) unit_of: Vec<u32>,
    /// By node: index into `kernels`.
    pub(crate) kernel_of: Vec<u32>,
    pub(crate) kernels: Vec<NodeKernel>,
    /// Units that wait for each unit, unit by unit.
    pub(crate) dependents: Vec<u32>,
    /// Units whose value each unit takes, unit by unit.
    pub(crate) sources: Vec<u32>,
    pub(crate) options: Vec<JobOptions>,
    /// Names of nodes that have one.
    pub(crate) names: HashMap<u32, String>,
    /// Limit on the bytes of all values. Units start in order, as long as their values fit.
    pub(crate) ceiling: Option<u64>,
    /// Whether the first failure stops the graph.
    pub(crate) stops: bool,
    pub(crate) calls: Box<dyn NodeCalls>,
}

impl GraphPlan {
    fn part(all: &[u32], from: u32, next: Option<u32>) -> std::ops::Range<usize> {
        from as usize..next.map_or(all.len(), |next| next as usize)
    }

    pub(super) fn dependents_of(&self, unit: u32) -> std::ops::Range<usize> {
        Self::dependents_among(&self.units, &self.dependents, unit)
    }

    /// Returns which part of `dependents` belongs to `unit`.
    pub(crate) fn dependents_among(
        units: &[GraphUnit],
        dependents: &[u32],
        unit: u32,
    ) -> std::ops::Range<usize> {
        let next = units.get(unit as usize + 1);
        let from = units[unit as usize].dependents;
        Self::part(dependents, from, next.map(|unit| unit.dependents))
    }

    pub(super) fn sources_of(&self, unit: u32) -> std::ops::Range<usize> {
        let next = self.units.get(unit as usize + 1);
        let from = self.units[unit as usize].sources;
        Self::part(&self.sources, from, next.map(|unit| unit.sources))
    }

    /// The options of a unit's job.
    pub(super) fn options_of(&self, unit: u32) -> Option<&JobOptions> {
        let number = self.units[unit as usize].options as usize;
        number.checked_sub(1).map(|at| &self.options[at])
    }

    /// The kernel of a node.
    fn kernel(&self, node: u32) -> &NodeKernel {
        &self.kernels[self.kernel_of[node as usize] as usize]
    }

    /// The name of a node in messages.
    fn name(&self, node: u32) -> String {
        let name = self.names.get(&node);
        name.map_or_else(|| format!("node {node}"), |name| format!("node {name:?}"))
    }
}

/// Progress of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GraphUnitStage {
    /// Waits for other units, or to be sent.
    Waiting,
    /// Has a record and no answer.
    Sent,
    /// Its value is in its record until the last user has taken it.
    Done,
    /// Gave no value, because this unit failed: itself, or one that it depends on.
    Failed(u32),
    /// Gave no value, because the graph stopped at a failure.
    Stopped,
}

impl GraphUnitStage {
    pub(super) fn has_failed(self) -> bool {
        matches!(self, Self::Failed(_) | Self::Stopped)
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct GraphUnitState {
    pub(super) stage: GraphUnitStage,
    pub(super) record: JobId,
    /// Its job number.
    pub(super) job: u64,
    pub(super) took_ns: u64,
    pub(super) worker: u32,
}

/// The run of a graph.
pub(in crate::supervisor) struct GraphRun {
    pub(super) plan: GraphPlan,
    pub(super) states: Vec<GraphUnitState>,
    /// Units ready to be sent. The highest level mark_sent first, so that values are taken before others are made; then, or
    /// with a ceiling, the lowest number.
    pub(super) ready: BinaryHeap<(u32, Reverse<u32>)>,
    /// By the plan's kernels: the index of the kernel, and the offset of its step function.
    pub(super) kernels: Vec<(u32, u64)>,
    pub(super) chain: u32,
    /// Its ticket in admission's line.
    pub(super) ticket: u64,
    /// Number of units without a record that may still get one.
    pub(super) waiting: usize,
    /// Number of units with a record and no answer.
    pub(super) sent: usize,
    /// Progress in nodes.
    pub(super) progress: GraphProgress,
    /// Number of requested units whose end is not known.
    pub(super) undecided: usize,
    /// Errors by the unit that is to blame, with the node that failed.
    pub(super) errors: HashMap<u32, (u32, JobError)>,
    /// How the time of short chains is divided among their nodes, by unit.
    shares: HashMap<u32, Shares>,
    /// The unit whose failure stopped the graph.
    pub(super) stopped_at: Option<u32>,
    /// With a ceiling: the next unit, the bytes of values that exist or are being made, and the number of ends of users
    /// after which each unit's value is free.
    pub(super) next: u32,
    pub(super) held: u64,
    pub(super) ends_left: Vec<u32>,
    /// Number of threads that drive the graph: they drain, and send what is ready.
    pub(super) driving_threads: u32,
    /// A thread sleeps until the graph is over.
    pub(super) parked: bool,
    pub(super) waker: Option<Waker>,
    pub(super) call: CallWriter,
    pub(super) link: ChainWriter,
}

impl std::fmt::Debug for GraphRun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GraphRun")
            .field("units", &self.states.len())
            .field("ready", &self.ready.len())
            .field("sent", &self.sent)
            .field("undecided", &self.undecided)
            .finish_non_exhaustive()
    }
}

/// The values of a run's units, for the nodes that take them.
pub(super) struct Values<'a> {
    records: &'a mut JobTable,
    plan: &'a mut GraphPlan,
    states: &'a [GraphUnitState],
    bad: Option<UnreadableSource>,
}

/// A unit whose value cannot be read.
pub(super) struct UnreadableSource {
    pub(super) unit: u32,
    pub(super) why: Unreadable,
}

impl Values<'_> {
    /// Counts one use of the value of this unit, and removes its record after the last.
    pub(super) fn used(
        records: &mut JobTable,
        plan: &mut GraphPlan,
        states: &[GraphUnitState],
        unit: u32,
    ) {
        let uses = &mut plan.units[unit as usize].uses;
        *uses -= 1;
        if *uses == 0 && states[unit as usize].stage == GraphUnitStage::Done {
            records.remove(states[unit as usize].record.index);
            crate::sync::point!("unit.freed");
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
            (false, false) => record.arrays.iter().map(ReceivedArray::share).collect(),
        };
        let words = WordReader::new(record.value());
        let arrays = arrays.into_iter();
        let mut reply = Receiving(ReplyReader { words, arrays });
        if let Err(why) = read_guarded(|| forward(&mut reply, call)) {
            self.bad = Some(UnreadableSource { unit, why });
            return false;
        }
        Self::used(self.records, self.plan, self.states, unit);
        true
    }
}

/// How a node ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NodeFate {
    /// Has not ended.
    Open,
    /// Gave a value after `took`, on this worker. If the time of the node is not known on its own, `took` is that of a
    /// job with `with` other nodes.
    Done {
        took: Duration,
        worker: u32,
        with: u32,
    },
    /// Gave no value.
    Failed,
    /// Never ran, because another node failed.
    Skipped,
}

/// Progress of a running graph: see [`Running::progress`](crate::engine::Running::progress).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GraphProgress {
    /// Number of nodes that the requested values need.
    pub nodes: usize,
    /// Nodes that gave a value.
    pub done: usize,
    /// Nodes that gave none. A chain that runs as one job fails as a whole.
    pub failed: usize,
    /// Nodes that will never run, because another one failed.
    pub skipped: usize,
}

impl GraphProgress {
    /// Nodes whose end is not known yet.
    pub fn left(&self) -> usize {
        self.nodes - self.done - self.failed - self.skipped
    }

    pub(crate) fn count(&mut self, fate: NodeFate) {
        match fate {
            NodeFate::Open => {}
            NodeFate::Done { .. } => self.done += 1,
            NodeFate::Failed => self.failed += 1,
            NodeFate::Skipped => self.skipped += 1,
        }
    }
}

impl GraphRun {
    pub(super) fn new(plan: GraphPlan, all: &mut Kernels, arena: u64, ticket: u64) -> Self {
        let kernels = plan.kernels.iter().map(|kernel| {
            let step = to_offset(kernel.step).unwrap_or_default();
            (all.index(&kernel.info), step)
        });
        let kernels = kernels.collect();
        let waiting = GraphUnitState {
            stage: GraphUnitStage::Waiting,
            record: JobId::NONE,
            job: 0,
            took_ns: 0,
            worker: NO_RECORD,
        };
        let mut run = Self {
            states: vec![waiting; plan.units.len()],
            ready: BinaryHeap::new(),
            kernels,
            chain: all.index(&KernelInfo::of_chain()),
            ticket,
            waiting: plan.units.len(),
            sent: 0,
            progress: GraphProgress {
                nodes: plan.nodes.len(),
                ..GraphProgress::default()
            },
            undecided: plan.units.iter().filter(|unit| unit.is_requested).count(),
            errors: HashMap::new(),
            shares: HashMap::new(),
            stopped_at: None,
            next: 0,
            held: 0,
            ends_left: Vec::new(),
            driving_threads: 0,
            parked: false,
            waker: None,
            call: CallWriter(ArgWriter::new(arena)),
            link: ChainWriter::new(arena),
            plan,
        };
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
        run
    }

    pub(super) fn make_ready(&mut self, unit: u32) {
        let level = match self.plan.ceiling {
            None => self.plan.units[unit as usize].level,
            Some(_) => 0,
        };
        self.ready.push((level, Reverse(unit)));
    }

    /// Returns the next unit that may be sent. It stays the first of `ready` until [`mark_sent`](Self::mark_sent) is called.
    pub(super) fn next_ready(&mut self) -> Option<u32> {
        loop {
            let &(_, Reverse(unit)) = self.ready.peek()?;
            if self.states[unit as usize].stage != GraphUnitStage::Waiting {
                self.ready.pop();
                continue;
            }
            let Some(ceiling) = self.plan.ceiling else {
                return Some(unit);
            };
            // In order: then the values held at any time are at most those that running one unit after the other would
            // hold.
            while self.states[self.next as usize].stage.has_failed() {
                self.next += 1;
            }
            let bytes = self.plan.units[unit as usize].bytes;
            let fits = self.held.saturating_add(bytes) <= ceiling || self.sent == 0;
            return (unit == self.next && fits).then_some(unit);
        }
    }

    /// Marks the unit that [`next_ready`](Self::next_ready) returned as sent.
    pub(super) fn mark_sent(&mut self, unit: u32) {
        self.ready.pop();
        if self.plan.ceiling.is_some() {
            self.next += 1;
            self.held += self.plan.units[unit as usize].bytes;
        }
    }

    /// The kernel of a unit's job.
    pub(super) fn kernel(&self, unit: u32) -> u32 {
        let GraphUnit { first, count, .. } = self.plan.units[unit as usize];
        if count > 1 {
            return self.chain;
        }
        let node = self.plan.nodes[first as usize];
        self.kernels[self.plan.kernel_of[node as usize] as usize].0
    }

    /// The kernel of a node in the chain of a unit.
    pub(super) fn kernel_of_step(&self, unit: u32, step: u32) -> u32 {
        let GraphUnit { first, count, .. } = self.plan.units[unit as usize];
        let node = self.plan.nodes[(first + step.min(count - 1)) as usize];
        self.kernels[self.plan.kernel_of[node as usize] as usize].0
    }

    /// Counts the nodes of a chain that ran in the statistics of their kernels. Where only the whole was measured, as
    /// for one that failed, each node counts for an equal part.
    pub(super) fn count_nodes(&self, unit: u32, end: &JobEnd, failed: bool, all: &mut Kernels) {
        let count = self.plan.units[unit as usize].count;
        if count == 1 {
            return;
        }
        let last = match failed {
            true => end.step.min(count - 1),
            false => count - 1,
        };
        let mut own = end.shares.map(|shares| shares.of_nodes(count, end.took_ns));
        let equal = end.took_ns / u64::from(last + 1);
        let mut rest = end.took_ns;
        for step in 0..last {
            let part = own.as_mut().and_then(Iterator::next).unwrap_or(equal);
            rest = rest.saturating_sub(part);
            let kernel = self.kernel_of_step(unit, step);
            all.get(kernel).count_node(part, 0, false);
        }
        let kernel = self.kernel_of_step(unit, last);
        all.get(kernel).count_node(rest, end.bytes, failed);
    }

    /// Writes the call of a unit. Returns the source whose value cannot be read, if there is one.
    pub(super) fn load(&mut self, unit: u32, records: &mut JobTable) -> Option<UnreadableSource> {
        let Self {
            plan,
            states,
            call,
            link,
            kernels,
            ..
        } = self;
        let GraphUnit { first, count, .. } = plan.units[unit as usize];
        call.0.reset();
        // Taken out while the rest of the plan is read.
        let mut calls = std::mem::replace(&mut plan.calls, Box::new(NoNodeCalls));
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

    pub(super) fn sent_as(&mut self, unit: u32, record: JobId, job: u64) {
        self.move_to(unit, GraphUnitStage::Sent);
        let state = &mut self.states[unit as usize];
        state.record = record;
        state.job = job;
        self.sent += 1;
    }

    /// Moves a unit to another stage, for the first time.
    pub(super) fn move_to(&mut self, unit: u32, to: GraphUnitStage) {
        let stage = &mut self.states[unit as usize].stage;
        self.waiting -= usize::from(*stage == GraphUnitStage::Waiting);
        *stage = to;
        let nodes = self.plan.units[unit as usize].count as usize;
        match to {
            GraphUnitStage::Waiting | GraphUnitStage::Sent => {}
            GraphUnitStage::Done => self.progress.done += nodes,
            GraphUnitStage::Failed(root) if root == unit => self.progress.failed += nodes,
            GraphUnitStage::Failed(_) | GraphUnitStage::Stopped => self.progress.skipped += nodes,
        }
    }

    /// Marks a unit as stopped with the graph.
    pub(super) fn stop(&mut self, unit: u32) {
        self.move_to(unit, GraphUnitStage::Stopped);
        self.undecided -= usize::from(self.plan.units[unit as usize].is_requested);
    }

    /// Gives up the unit's claims on values of other units.
    pub(super) fn drop_claims(&mut self, unit: u32, records: &mut JobTable) {
        for at in self.plan.sources_of(unit) {
            let source = self.plan.sources[at];
            Values::used(records, &mut self.plan, &self.states, source);
        }
    }

    pub(super) fn done(&mut self, unit: u32, end: &JobEnd, worker: u32) {
        self.move_to(unit, GraphUnitStage::Done);
        let state = &mut self.states[unit as usize];
        state.took_ns = end.took_ns;
        state.worker = worker;
        // The time of each node is known only for short chains.
        if let Some(shares) = end.shares
            && (2..=MAX_SHARES).contains(&self.plan.units[unit as usize].count)
        {
            self.shares.insert(unit, shares);
        }
    }

    /// With a ceiling: the unit has ended; subtracts values that have no further user.
    pub(super) fn release_sources(&mut self, unit: u32) {
        if self.plan.ceiling.is_none() {
            return;
        }
        let sources = self.plan.sources_of(unit);
        for at in sources {
            let source = self.plan.sources[at] as usize;
            self.ends_left[source] -= 1;
            let free = self.ends_left[source] == 0 && !self.plan.units[source].is_requested;
            if free && self.states[source].stage == GraphUnitStage::Done {
                self.held -= self.plan.units[source].bytes;
            }
        }
        let failed = self.states[unit as usize].stage.has_failed();
        let is_unused =
            self.ends_left[unit as usize] == 0 && !self.plan.units[unit as usize].is_requested;
        if unit < self.next && (failed || is_unused) {
            self.held -= self.plan.units[unit as usize].bytes;
        }
    }

    /// The node of a unit that failed, and its error.
    pub(super) fn blame(&self, unit: u32, error: &JobError, step: u32) -> (u32, JobError) {
        let GraphUnit { first, count, .. } = self.plan.units[unit as usize];
        let node = self.plan.nodes[(first + step.min(count - 1)) as usize];
        if count == 1 {
            return (node, error.clone());
        }
        (node, error.of_kernel(self.plan.kernel(node).info.name))
    }

    /// The error of a unit that could not run because `root` failed.
    pub(super) fn error_of_dependent(&self, unit: u32, root: u32) -> JobError {
        let (node, error) = self.error_of(root);
        let why = error.of_dependency(self.plan.name(*node));
        Failed::new(why, self.last_kernel(unit), 0).into()
    }

    /// The error of a unit that was stopped with the graph.
    pub(super) fn error_of_stopped(&self, unit: u32) -> JobError {
        let Some(root) = self.stopped_at else {
            unreachable!("a graph has stopped at some unit");
        };
        let (_, error) = self.error_of(root);
        Failed::new(error.of_stop(), self.last_kernel(unit), 0).into()
    }

    pub(super) fn error_of(&self, unit: u32) -> &(u32, JobError) {
        let Some(error) = self.errors.get(&unit) else {
            unreachable!("a unit that failed has an error");
        };
        error
    }

    fn last_kernel(&self, unit: u32) -> &'static str {
        let GraphUnit { first, count, .. } = self.plan.units[unit as usize];
        let last = self.plan.nodes[(first + count - 1) as usize];
        self.plan.kernel(last).info.name
    }

    /// Number of jobs that it will still send. None once the end of each requested unit is known.
    pub(super) fn planned(&self) -> usize {
        if self.undecided == 0 { 0 } else { self.waiting }
    }

    /// How a node ran.
    pub(super) fn fate(&self, node: u32) -> NodeFate {
        let unit = self.plan.unit_of[node as usize];
        let Some(state) = self.states.get(unit as usize) else {
            return NodeFate::Open;
        };
        match state.stage {
            GraphUnitStage::Waiting | GraphUnitStage::Sent => NodeFate::Open,
            _ if state.worker != NO_RECORD => {
                let GraphUnit { first, count, .. } = self.plan.units[unit as usize];
                let nodes = &self.plan.nodes[first as usize..(first + count) as usize];
                let own = self.shares.get(&unit).and_then(|shares| {
                    let step = nodes.iter().position(|&other| other == node)?;
                    shares.of_nodes(count, state.took_ns).nth(step)
                });
                NodeFate::Done {
                    took: Duration::from_nanos(own.unwrap_or(state.took_ns)),
                    worker: state.worker,
                    with: own.map_or(count - 1, |_| 0),
                }
            }
            GraphUnitStage::Failed(root) if root == unit => NodeFate::Failed,
            GraphUnitStage::Failed(_) | GraphUnitStage::Stopped => NodeFate::Skipped,
            GraphUnitStage::Done => NodeFate::Open,
        }
    }
}

/// Placeholder for the calls of a plan while one of them is written.
struct NoNodeCalls;

impl NodeCalls for NoNodeCalls {
    fn load(&mut self, _: u32, _: &mut Loading<'_>) {
        unreachable!("one call is written at a time");
    }
}
