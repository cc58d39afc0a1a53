//! One graph as it is handed over, and as it runs.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::task::Waker;
use std::time::Duration;

use super::ends::LastEnd;
use crate::kernel::wire::{ArgWriter, ReceivedArray, ReplyReader, WordReader};
use crate::kernel::{
    CallWriter, ChainWriter, Ended, Forward, KernelInfo, Loading, MAX_SHARES, NodeKernel,
    Receiving, Shares, to_offset,
};
use crate::supervisor::error::{Failed, JobError};
use crate::supervisor::job_table::JobTable;
use crate::supervisor::kernels::Kernels;
use crate::supervisor::lane::NOBODY;
use crate::supervisor::options::JobOptions;
use crate::supervisor::record::{JobId, Outcome};
use crate::supervisor::reply::{Unreadable, read_guarded};

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
    /// Index into [`GraphPlan::options`], from 1 on; 0 for none.
    pub(crate) options: u32,
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
    pub(crate) options: Vec<JobOptions>,
    /// Names of nodes that have one.
    pub(crate) names: HashMap<u32, String>,
    /// Units start in order, and never so many that their values take more bytes than this.
    pub(crate) ceiling: Option<u64>,
    /// The first failure ends it.
    pub(crate) stops: bool,
    pub(crate) calls: Box<dyn Calls>,
}

impl GraphPlan {
    fn part(all: &[u32], from: u32, next: Option<u32>) -> std::ops::Range<usize> {
        from as usize..next.map_or(all.len(), |next| next as usize)
    }

    pub(super) fn dependents_of(&self, unit: u32) -> std::ops::Range<usize> {
        Self::dependents_among(&self.units, &self.dependents, unit)
    }

    /// Which part of these are the units that wait for one of those.
    pub(crate) fn dependents_among(
        units: &[Unit],
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
pub(super) enum UnitStage {
    /// For others, or for its turn.
    Waiting,
    /// It has a record, and no answer.
    Sent,
    /// Its value is in its record, as long as somebody will take it.
    Done,
    /// It gave no value, or this unit did, without which it cannot run.
    Failed(u32),
    /// It gave no value because the graph stops at a failure.
    Stopped,
}

impl UnitStage {
    pub(super) fn has_failed(self) -> bool {
        matches!(self, Self::Failed(_) | Self::Stopped)
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct UnitState {
    pub(super) stage: UnitStage,
    pub(super) record: JobId,
    /// The number of its job.
    pub(super) job: u64,
    pub(super) took_ns: u64,
    pub(super) worker: u32,
}

/// A graph that runs.
pub(in crate::supervisor) struct Run {
    pub(super) plan: GraphPlan,
    pub(super) states: Vec<UnitState>,
    /// Units that wait for nothing but their turn: what has come furthest goes first, so that values are taken before others
    /// are made; otherwise, or if there is a ceiling, in their order.
    pub(super) ready: BinaryHeap<(u32, Reverse<u32>)>,
    /// By the plan's kernels: the index of the job's kernel, and the offset of the step.
    pub(super) kernels: Vec<(u32, u64)>,
    pub(super) chain: u32,
    /// Its place in the line of admission.
    pub(super) ticket: u64,
    /// Units that have no record yet, and may get one.
    pub(super) waiting: usize,
    /// Units that have a record and no answer.
    pub(super) sent: usize,
    /// How far it is, by nodes.
    pub(super) progress: GraphProgress,
    /// Units that were asked for, and of which it is not known yet how they end.
    pub(super) wanted: usize,
    /// Why units failed, by the one that is to blame, and which of its nodes it was.
    pub(super) errors: HashMap<u32, (u32, JobError)>,
    /// How the time of short chains is spread over their nodes, by unit.
    shares: HashMap<u32, Shares>,
    /// The unit at whose failure the graph has stopped.
    pub(super) stopped_at: Option<u32>,
    /// With a ceiling: the next unit, bytes of values that are there or will be, and how many ends of others each waits for
    /// before it is free.
    pub(super) next: u32,
    pub(super) held: u64,
    pub(super) ends_left: Vec<u32>,
    /// Threads that drain, and place what is ready.
    pub(super) drivers: u32,
    /// A thread sleeps until it is over.
    pub(super) parked: bool,
    pub(super) waker: Option<Waker>,
    pub(super) call: CallWriter,
    pub(super) link: ChainWriter,
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

/// The values of a run's units, as its nodes take them.
pub(super) struct Values<'a> {
    records: &'a mut JobTable,
    plan: &'a mut GraphPlan,
    states: &'a [UnitState],
    bad: Option<Bad>,
}

/// A unit whose value cannot be read.
pub(super) struct Bad {
    pub(super) unit: u32,
    pub(super) why: Unreadable,
}

impl Values<'_> {
    /// Nobody will take the value of this unit once more.
    pub(super) fn used(
        records: &mut JobTable,
        plan: &mut GraphPlan,
        states: &[UnitState],
        unit: u32,
    ) {
        let uses = &mut plan.units[unit as usize].uses;
        *uses -= 1;
        if *uses == 0 && states[unit as usize].stage == UnitStage::Done {
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
        let words: &[u64] = match &record.outcome {
            Some(Outcome::Inline { len }) => &record.payload[..*len as usize],
            Some(Outcome::Long(words)) => words,
            Some(Outcome::Bare | Outcome::Failed(_)) | None => &[],
        };
        let words = WordReader::new(words);
        let arrays = arrays.into_iter();
        let mut reply = Receiving(ReplyReader { words, arrays });
        if let Err(why) = read_guarded(|| forward(&mut reply, call)) {
            self.bad = Some(Bad { unit, why });
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
    /// It took so long, on this worker; or, where it is not known of each, its job with so many other nodes did.
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

/// How far a graph is that runs: see [`Running::progress`](crate::engine::Running::progress).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GraphProgress {
    /// Nodes that are needed for what was asked for.
    pub nodes: usize,
    /// Those that gave a value.
    pub done: usize,
    /// Those that gave none. A chain that runs as one job on workers fails as one there.
    pub failed: usize,
    /// Those that never ran and never will, because another one failed.
    pub skipped: usize,
}

impl GraphProgress {
    /// Nodes of which it is not known yet how they end.
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

impl Run {
    pub(super) fn new(plan: GraphPlan, all: &mut Kernels, arena: u64, ticket: u64) -> Self {
        let kernels = plan.kernels.iter().map(|kernel| {
            let step = to_offset(kernel.step).unwrap_or_default();
            (all.index(&kernel.info), step)
        });
        let kernels = kernels.collect();
        let waiting = UnitState {
            stage: UnitStage::Waiting,
            record: JobId::NOBODY,
            job: 0,
            took_ns: 0,
            worker: NOBODY,
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
            wanted: plan.units.iter().filter(|unit| unit.wanted).count(),
            errors: HashMap::new(),
            shares: HashMap::new(),
            stopped_at: None,
            next: 0,
            held: 0,
            ends_left: Vec::new(),
            drivers: 0,
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

    /// The next unit that may be sent; it is the first of `ready`, until [`goes`](Self::goes) says that it is.
    pub(super) fn next_ready(&mut self) -> Option<u32> {
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
            while self.states[self.next as usize].stage.has_failed() {
                self.next += 1;
            }
            let bytes = self.plan.units[unit as usize].bytes;
            let fits = self.held.saturating_add(bytes) <= ceiling || self.sent == 0;
            return (unit == self.next && fits).then_some(unit);
        }
    }

    /// The unit that [`next_ready`](Self::next_ready) has named is sent.
    pub(super) fn goes(&mut self, unit: u32) {
        self.ready.pop();
        if self.plan.ceiling.is_some() {
            self.next += 1;
            self.held += self.plan.units[unit as usize].bytes;
        }
    }

    /// The kernel of a unit's job.
    pub(super) fn kernel(&self, unit: u32) -> u32 {
        let Unit { first, count, .. } = self.plan.units[unit as usize];
        if count > 1 {
            return self.chain;
        }
        let node = self.plan.nodes[first as usize];
        self.kernels[self.plan.kernel_of[node as usize] as usize].0
    }

    /// The kernel of a node in the chain that a unit is.
    pub(super) fn kernel_of_step(&self, unit: u32, step: u32) -> u32 {
        let Unit { first, count, .. } = self.plan.units[unit as usize];
        let node = self.plan.nodes[(first + step.min(count - 1)) as usize];
        self.kernels[self.plan.kernel_of[node as usize] as usize].0
    }

    /// The job of a chain has ended: each of its nodes that ran counts. Where only the whole was measured, as of one that failed, each
    /// has an equal part of that.
    pub(super) fn count_nodes(&self, unit: u32, end: &LastEnd, failed: bool, all: &mut Kernels) {
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

    /// Writes the call of a unit. If a value that it takes cannot be read: the unit whose value that is.
    pub(super) fn load(&mut self, unit: u32, records: &mut JobTable) -> Option<Bad> {
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

    pub(super) fn sent_as(&mut self, unit: u32, record: JobId, job: u64) {
        self.moves(unit, UnitStage::Sent);
        let state = &mut self.states[unit as usize];
        state.record = record;
        state.job = job;
        self.sent += 1;
    }

    /// A unit comes to another stage, for the first time.
    pub(super) fn moves(&mut self, unit: u32, to: UnitStage) {
        let stage = &mut self.states[unit as usize].stage;
        self.waiting -= usize::from(*stage == UnitStage::Waiting);
        *stage = to;
        let nodes = self.plan.units[unit as usize].count as usize;
        match to {
            UnitStage::Waiting | UnitStage::Sent => {}
            UnitStage::Done => self.progress.done += nodes,
            UnitStage::Failed(root) if root == unit => self.progress.failed += nodes,
            UnitStage::Failed(_) | UnitStage::Stopped => self.progress.skipped += nodes,
        }
    }

    /// A unit gives no value, because the graph has stopped.
    pub(super) fn stop(&mut self, unit: u32) {
        self.moves(unit, UnitStage::Stopped);
        self.wanted -= usize::from(self.plan.units[unit as usize].wanted);
    }

    /// What a unit would have taken is not kept for it.
    pub(super) fn takes_nothing(&mut self, unit: u32, records: &mut JobTable) {
        for at in self.plan.sources_of(unit) {
            let source = self.plan.sources[at];
            Values::used(records, &mut self.plan, &self.states, source);
        }
    }

    pub(super) fn done(&mut self, unit: u32, end: &LastEnd, worker: u32) {
        self.moves(unit, UnitStage::Done);
        let state = &mut self.states[unit as usize];
        state.took_ns = end.took_ns;
        state.worker = worker;
        // Of longer chains it is not known of each node.
        if let Some(shares) = end.shares
            && (2..=MAX_SHARES).contains(&self.plan.units[unit as usize].count)
        {
            self.shares.insert(unit, shares);
        }
    }

    /// With a ceiling: a unit is over, and what it took is free, unless others want it too.
    pub(super) fn give_back(&mut self, unit: u32) {
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
        let failed = self.states[unit as usize].stage.has_failed();
        let nobody = self.ends_left[unit as usize] == 0 && !self.plan.units[unit as usize].wanted;
        if unit < self.next && (failed || nobody) {
            self.held -= self.plan.units[unit as usize].bytes;
        }
    }

    /// Which node of a unit failed, and its error.
    pub(super) fn blame(&self, unit: u32, error: &JobError, step: u32) -> (u32, JobError) {
        let Unit { first, count, .. } = self.plan.units[unit as usize];
        let node = self.plan.nodes[(first + step.min(count - 1)) as usize];
        if count == 1 {
            return (node, error.clone());
        }
        (node, error.of_kernel(self.plan.kernel(node).info.name))
    }

    /// The error of a unit that could not run, because of this one.
    pub(super) fn lost_to(&self, unit: u32, root: u32) -> JobError {
        let (node, error) = self.error_of(root);
        let why = error.of_dependency(self.plan.name(*node));
        Failed::new(why, self.last_kernel(unit), 0).into()
    }

    /// The error of a unit that the graph has stopped.
    pub(super) fn stopped(&self, unit: u32) -> JobError {
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
        let Unit { first, count, .. } = self.plan.units[unit as usize];
        let last = self.plan.nodes[(first + count - 1) as usize];
        self.plan.kernel(last).info.name
    }

    /// Jobs that it has not sent yet. Once everything that was asked for is decided it sends no more.
    pub(super) fn planned(&self) -> usize {
        if self.wanted == 0 { 0 } else { self.waiting }
    }

    /// How a node ran.
    pub(super) fn fate(&self, node: u32) -> NodeFate {
        let unit = self.plan.unit_of[node as usize];
        let Some(state) = self.states.get(unit as usize) else {
            return NodeFate::Open;
        };
        match state.stage {
            UnitStage::Waiting | UnitStage::Sent => NodeFate::Open,
            _ if state.worker != NOBODY => {
                let Unit { first, count, .. } = self.plan.units[unit as usize];
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
            UnitStage::Failed(root) if root == unit => NodeFate::Failed,
            UnitStage::Failed(_) | UnitStage::Stopped => NodeFate::Skipped,
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
