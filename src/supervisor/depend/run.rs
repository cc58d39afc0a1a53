//! The state of a run: a graph, or the tasks that a job has spawned.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::ends::JobEnd;
use super::limits::WINDOW;
use super::plan::{Calls, NodeCalls, RunPlan, RunUnit, node_name};
use super::spawn_reply::{ChildValue, SpawnReply, Unloaded};
use crate::kernel::wire::{ArgWriter, ReceivedArray, ReplyReader, WordReader};
use crate::kernel::{
    CallWriter, ChainWriter, Ended, Forward, KernelInfo, Loading, MAX_SHARES, Receiving, Shares,
    seed_of_task, to_offset,
};
use crate::supervisor::error::{Because, Failed, JobError, JobErrorKind, JobLimit, WorkerExit};
use crate::supervisor::job_table::JobTable;
use crate::supervisor::kernels::Kernels;
use crate::supervisor::lane::NO_RECORD;
use crate::supervisor::options::JobOptions;
use crate::supervisor::record::JobId;
use crate::supervisor::reply::{Unreadable, read_guarded};
use crate::supervisor::timers::Entry;

/// The stage of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UnitStage {
    /// The unit waits for other units, or to be sent.
    Waiting,
    /// The unit has a record and no answer.
    Sent,
    /// The unit has a value, which stays in its record until its last user has taken it.
    Done,
    /// The unit has no value, because the unit with this number failed: this one, or one that it depends on.
    Failed(u32),
    /// The unit has no value, because the run was stopped by a failure or cancelled.
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
    /// The number of the unit's job.
    pub(super) job: u64,
    pub(super) took_ns: u64,
    pub(super) worker: u32,
}

/// Additional state of a run of tasks. The value of the last task becomes the value of the job that spawned them.
#[derive(Debug)]
pub(super) struct Spawned {
    /// Number of jobs that wait for each other in the chain of spawns that ends with this run.
    pub(super) depth: u32,
    /// Seed of the tasks' random numbers.
    pub(super) seed: u64,
    pub(super) options: Option<Arc<JobOptions>>,
    /// Number of tasks that have not ended, except tasks that will never be sent.
    pub(super) open: u64,
    /// Why the run will have no value.
    pub(super) failure: Option<Because>,
}

/// How the sent jobs of a run are cancelled, the strongest way last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::supervisor) enum CancelMode {
    /// Ask them to stop.
    Ask,
    /// Ask them to stop, and kill their workers after the grace period.
    AskThenKill,
    /// Kill their workers.
    Kill,
}

/// A run of units, where units may wait for other units.
pub(in crate::supervisor) struct Run {
    /// Distinguishes runs that have the same index at different times.
    pub(super) serial: u64,
    pub(super) plan: RunPlan,
    /// The record that is answered when the run is over: the record of the job that spawned the units, or of the graph.
    pub(super) parent: u32,
    /// The additional state of a run of tasks. `None` for a graph.
    pub(super) spawned: Option<Spawned>,
    pub(super) states: Vec<UnitState>,
    /// The units that are ready to be sent. The unit of the highest level is sent first, so that values are used before
    /// more values are produced. Among equals, or with a ceiling, the unit with the lowest number is sent first.
    pub(super) ready: BinaryHeap<(u32, Reverse<u32>)>,
    /// For each kernel of the plan: the index of the kernel, and the offset of its step function.
    pub(super) kernels: Vec<(u32, u64)>,
    /// The kernel of chains in a graph.
    pub(super) chain: u32,
    /// The run's ticket in the line of admission.
    pub(super) ticket: u64,
    /// Number of units without a record that may still get one.
    pub(super) waiting: usize,
    /// Number of units with a record and no answer.
    pub(super) sent: usize,
    /// Progress in nodes.
    pub(super) progress: GraphProgress,
    /// Number of requested units that have not ended.
    pub(super) undecided: usize,
    /// Errors by the unit that failed, with the node that failed.
    pub(super) errors: HashMap<u32, (u32, JobError)>,
    /// How the time of short chains is divided among their nodes, by unit.
    shares: HashMap<u32, Shares>,
    /// If the run was stopped: the strongest way in which its jobs were cancelled.
    pub(super) stopped: Option<CancelMode>,
    /// The timer that kills the jobs that still run after the run was stopped.
    pub(super) kill: Option<Entry>,
    /// The unit whose failure stopped the run.
    pub(super) stopped_at: Option<u32>,
    /// With a ceiling: the next unit in order.
    pub(super) next: u32,
    /// With a ceiling: the bytes of values that exist or are being produced.
    pub(super) held: u64,
    /// With a ceiling: for each unit, the number of its users that have not ended.
    pub(super) ends_left: Vec<u32>,
    /// Number of threads that drive the graph: they drain lanes, and send ready units.
    pub(super) driving_threads: u32,
}

impl std::fmt::Debug for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Run")
            .field("units", &self.states.len())
            .field("ready", &self.ready.len())
            .field("sent", &self.sent)
            .field("undecided", &self.undecided)
            .finish_non_exhaustive()
    }
}

/// Buffers in which calls are written before they are moved into records.
#[derive(Debug)]
pub(super) struct Writers {
    pub(super) call: CallWriter,
    link: ChainWriter,
}

impl Writers {
    pub(super) fn new(arena: u64) -> Self {
        Self {
            call: CallWriter(ArgWriter::new(arena)),
            link: ChainWriter::new(arena),
        }
    }
}

/// Why the call of a unit cannot be written.
pub(super) enum NoCall {
    /// The value of this source unit cannot be read.
    Unreadable {
        unit: u32,
        why: Unreadable,
    },
    Refused(JobErrorKind),
}

/// Gives the nodes of a unit the values of other units.
struct Values<'a> {
    records: &'a mut JobTable,
    plan: &'a mut RunPlan,
    states: &'a [UnitState],
    bad: Option<NoCall>,
}

impl Values<'_> {
    /// Counts one use of the value of this unit. Removes the record after the last use.
    fn used(records: &mut JobTable, plan: &mut RunPlan, states: &[UnitState], unit: u32) {
        let uses = &mut plan.jobs.units[unit as usize].uses;
        *uses -= 1;
        if *uses == 0 && states[unit as usize].stage == UnitStage::Done {
            records.remove(states[unit as usize].record.index);
            crate::sync::point!("unit.freed");
        }
    }
}

impl Ended for Values<'_> {
    fn forward(&mut self, node: u32, forward: Forward, call: &mut CallWriter) -> bool {
        let unit = self.plan.jobs.unit_of[node as usize];
        let record = self.records.get(self.states[unit as usize].record);
        let last = self.plan.jobs.units[unit as usize].uses == 1;
        let arrays = match (record.arrays.is_empty(), last) {
            (true, _) | (_, true) => std::mem::take(&mut record.arrays),
            (false, false) => record.arrays.iter().map(ReceivedArray::share).collect(),
        };
        let words = WordReader::new(record.value());
        let arrays = arrays.into_iter();
        let mut reply = Receiving(ReplyReader { words, arrays });
        if let Err(why) = read_guarded(|| forward(&mut reply, call)) {
            self.bad = Some(NoCall::Unreadable { unit, why });
            return false;
        }
        Self::used(self.records, self.plan, self.states, unit);
        true
    }
}

/// How a node ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NodeFate {
    /// The node has not ended.
    Open,
    /// The node returned a value after `took`, on this worker. If its time is not known separately, then `took` is the
    /// time of a job that also ran `with` other nodes.
    Done {
        took: Duration,
        worker: u32,
        with: u32,
    },
    /// The node returned no value.
    Failed,
    /// The node never ran, because another node failed.
    Skipped,
}

/// Progress of a running graph: see [`Running::progress`](crate::engine::Running::progress).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GraphProgress {
    /// Number of nodes that the requested values depend on.
    pub nodes: usize,
    /// Number of nodes that returned a value.
    pub done: usize,
    /// Number of nodes that returned no value. A chain that runs as one job fails as a whole.
    pub failed: usize,
    /// Number of nodes that will never run, because another node failed.
    pub skipped: usize,
}

impl GraphProgress {
    /// Returns the number of nodes whose end is not known yet.
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
    /// Returns the run of a graph.
    pub(super) fn of_graph(plan: RunPlan, all: &mut Kernels, ticket: u64, parent: u32) -> Self {
        let kernels = plan.kernels.iter().map(|kernel| {
            let step = to_offset(kernel.step).unwrap_or_default();
            (all.index(&kernel.info), step)
        });
        let kernels = kernels.collect();
        let chain = all.index(&KernelInfo::of_chain());
        Self {
            chain,
            ..Self::new(plan, kernels, ticket, parent, None)
        }
    }

    pub(super) fn new(
        plan: RunPlan,
        kernels: Vec<(u32, u64)>,
        ticket: u64,
        parent: u32,
        spawned: Option<Spawned>,
    ) -> Self {
        let waiting = UnitState {
            stage: UnitStage::Waiting,
            record: JobId::NONE,
            job: 0,
            took_ns: 0,
            worker: NO_RECORD,
        };
        let mut run = Self {
            serial: 0,
            parent,
            spawned,
            states: vec![waiting; plan.jobs.units.len()],
            ready: BinaryHeap::new(),
            kernels,
            chain: NO_RECORD,
            ticket,
            waiting: plan.jobs.units.len(),
            sent: 0,
            progress: GraphProgress {
                nodes: plan.jobs.nodes.len(),
                ..GraphProgress::default()
            },
            undecided: plan
                .jobs
                .units
                .iter()
                .filter(|unit| unit.is_requested)
                .count(),
            errors: HashMap::new(),
            shares: HashMap::new(),
            stopped: None,
            kill: None,
            stopped_at: None,
            next: 0,
            held: 0,
            ends_left: Vec::new(),
            driving_threads: 0,
            plan,
        };
        if run.plan.ceiling.is_some() {
            run.ends_left = vec![0; run.plan.jobs.units.len()];
            for &source in &run.plan.jobs.sources {
                run.ends_left[source as usize] += 1;
            }
        }
        for unit in 0..run.plan.jobs.units.len() as u32 {
            if run.plan.jobs.units[unit as usize].waits == 0 {
                run.make_ready(unit);
            }
        }
        run
    }

    /// Returns true if no further unit is sent: the run was stopped, or each requested unit has ended. From then on,
    /// threads may take the values of a graph.
    fn is_closed(&self) -> bool {
        self.undecided == 0 || self.stopped.is_some()
    }

    /// Returns true if this unit's value becomes the value of the parent.
    pub(super) fn is_last(&self, unit: u32) -> bool {
        self.spawned.is_some() && unit as usize + 1 == self.states.len()
    }

    fn make_ready(&mut self, unit: u32) {
        let level = match self.plan.ceiling {
            None => self.plan.jobs.units[unit as usize].level,
            Some(_) => 0,
        };
        self.ready.push((level, Reverse(unit)));
    }

    /// Returns the next unit that may be sent. The unit remains the first of `ready` until
    /// [`mark_sent`](Self::mark_sent).
    pub(super) fn next_ready(&mut self) -> Option<u32> {
        if self.is_closed() || self.sent >= WINDOW {
            return None;
        }
        loop {
            let &(_, Reverse(unit)) = self.ready.peek()?;
            if self.states[unit as usize].stage != UnitStage::Waiting {
                self.ready.pop();
                continue;
            }
            let Some(ceiling) = self.plan.ceiling else {
                return Some(unit);
            };
            // Sends units in order. Then at any time the values take at most as much memory as if the units ran one
            // after the other.
            while self.states[self.next as usize].stage.has_failed() {
                self.next += 1;
            }
            let bytes = self.plan.jobs.units[unit as usize].bytes;
            let fits = self.held.saturating_add(bytes) <= ceiling || self.sent == 0;
            return (unit == self.next && fits).then_some(unit);
        }
    }

    /// Marks the unit that [`next_ready`](Self::next_ready) returned as sent.
    pub(super) fn mark_sent(&mut self, unit: u32) {
        self.ready.pop();
        if self.plan.ceiling.is_some() {
            self.next += 1;
            self.held += self.plan.jobs.units[unit as usize].bytes;
        }
    }

    /// Returns the kernel of a unit's job.
    pub(super) fn kernel(&self, unit: u32) -> u32 {
        match self.plan.jobs.units[unit as usize].count {
            1 => self.kernel_of_step(unit, 0),
            _ => self.chain,
        }
    }

    /// Returns the kernel of a node in the chain of a unit.
    pub(super) fn kernel_of_step(&self, unit: u32, step: u32) -> u32 {
        let node = self.plan.jobs.node_at(unit, step);
        self.kernels[self.plan.kernel_of[node as usize] as usize].0
    }

    /// Counts the nodes of a chain that ran, in the statistics of their kernels. If only the total time was measured,
    /// as for a chain that failed, the time is divided equally among the nodes.
    pub(super) fn count_nodes(&self, unit: u32, end: &JobEnd, failed: bool, all: &mut Kernels) {
        let count = self.plan.jobs.units[unit as usize].count;
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

    /// Writes the call of a unit.
    pub(super) fn load(
        &mut self,
        unit: u32,
        records: &mut JobTable,
        to: &mut Writers,
    ) -> Result<(), NoCall> {
        to.call.0.reset();
        // Moved out of the plan while the rest of the plan is borrowed.
        let mut calls = std::mem::replace(&mut self.plan.calls, Calls::None);
        let loaded = match &mut calls {
            Calls::Nodes(nodes) => self.load_nodes(unit, nodes.as_mut(), records, to),
            Calls::Tasks(reply) => self.load_task(unit, reply, records, &mut to.call.0),
            Calls::None => unreachable!("units are sent while their calls are there"),
        };
        self.plan.calls = calls;
        loaded
    }

    fn load_nodes(
        &mut self,
        unit: u32,
        calls: &mut dyn NodeCalls,
        records: &mut JobTable,
        Writers { call, link }: &mut Writers,
    ) -> Result<(), NoCall> {
        let Self {
            plan,
            states,
            kernels,
            ..
        } = self;
        let RunUnit { first, count, .. } = plan.jobs.units[unit as usize];
        let mut values = Values {
            records,
            plan,
            states,
            bad: None,
        };
        if count == 1 {
            let node = values.plan.jobs.nodes[first as usize];
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
                let node = values.plan.jobs.nodes[(first + at) as usize];
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
        values.bad.map_or(Ok(()), Err)
    }

    /// Writes the call of a task. The last task takes the values of all others.
    fn load_task(
        &mut self,
        unit: u32,
        reply: &mut SpawnReply,
        records: &mut JobTable,
        call: &mut ArgWriter,
    ) -> Result<(), NoCall> {
        let mut values = Vec::new();
        for at in self.plan.jobs.sources_of(unit) {
            let source = self.plan.jobs.sources[at];
            let record = records.get(self.states[source as usize].record);
            values.push(ChildValue {
                words: record.value().to_vec(),
                arrays: std::mem::take(&mut record.arrays),
            });
            Values::used(records, &mut self.plan, &self.states, source);
        }
        call.seed = self
            .spawned
            .as_ref()
            .map_or(0, |spawned| seed_of_task(spawned.seed, u64::from(unit)));
        let mut values = values.into_iter();
        let loaded = reply.load(unit as usize, call, || values.next());
        loaded.map_err(|why| {
            NoCall::Refused(match why {
                Unloaded::Full(full) => JobErrorKind::Limit(JobLimit::Arena(full)),
                Unloaded::Malformed => {
                    JobErrorKind::Lost(WorkerExit::Protocol("a call without its values".into()))
                }
            })
        })
    }

    pub(super) fn sent_as(&mut self, unit: u32, record: JobId, job: u64) {
        self.move_to(unit, UnitStage::Sent);
        let state = &mut self.states[unit as usize];
        state.record = record;
        state.job = job;
        self.sent += 1;
    }

    /// Moves a unit to another stage, and updates the run's counts.
    fn move_to(&mut self, unit: u32, to: UnitStage) {
        let stage = &mut self.states[unit as usize].stage;
        self.waiting -= usize::from(*stage == UnitStage::Waiting);
        *stage = to;
        let nodes = self.plan.jobs.units[unit as usize].count as usize;
        match to {
            UnitStage::Waiting | UnitStage::Sent => {}
            UnitStage::Done => self.progress.done += nodes,
            UnitStage::Failed(root) if root == unit => self.progress.failed += nodes,
            UnitStage::Failed(_) | UnitStage::Stopped => self.progress.skipped += nodes,
        }
    }

    /// Marks a unit as stopped with the run.
    pub(super) fn stop(&mut self, unit: u32) {
        self.move_to(unit, UnitStage::Stopped);
        self.undecided -= usize::from(self.plan.jobs.units[unit as usize].is_requested);
    }

    /// Stops all units that were not sent.
    pub(super) fn stop_unsent(&mut self, records: &mut JobTable) {
        for unit in 0..self.states.len() as u32 {
            if self.states[unit as usize].stage == UnitStage::Waiting {
                self.stop(unit);
                self.drop_claims(unit, records);
            }
        }
    }

    /// Returns the jobs of units that were sent and have not ended.
    pub(super) fn sent_jobs(&self) -> impl Iterator<Item = JobId> {
        let states = self.states.iter();
        let sent = states.filter(|state| state.stage == UnitStage::Sent);
        sent.map(|state| state.record)
    }

    /// Ends the unit's claims on the values of other units.
    fn drop_claims(&mut self, unit: u32, records: &mut JobTable) {
        for at in self.plan.jobs.sources_of(unit) {
            let source = self.plan.jobs.sources[at];
            Values::used(records, &mut self.plan, &self.states, source);
        }
    }

    /// Records that a unit returned a value, and makes dependent units ready.
    pub(super) fn done(&mut self, unit: u32, end: &JobEnd, worker: u32, records: &mut JobTable) {
        self.move_to(unit, UnitStage::Done);
        let state = &mut self.states[unit as usize];
        state.took_ns = end.took_ns;
        state.worker = worker;
        // The times of the nodes are known only for short chains.
        if let Some(shares) = end.shares
            && (2..=MAX_SHARES).contains(&self.plan.jobs.units[unit as usize].count)
        {
            self.shares.insert(unit, shares);
        }
        if self.plan.jobs.units[unit as usize].uses == 0 {
            records.remove(self.states[unit as usize].record.index);
            crate::sync::point!("unit.freed");
        }
        self.undecided -= usize::from(self.plan.jobs.units[unit as usize].is_requested);
        for at in self.plan.jobs.dependents_of(unit) {
            let dependent = self.plan.jobs.dependents[at];
            let waits = &mut self.plan.jobs.units[dependent as usize].waits;
            *waits -= 1;
            if *waits == 0 && self.states[dependent as usize].stage == UnitStage::Waiting {
                self.make_ready(dependent);
                crate::sync::point!("unit.released");
            }
        }
        self.release_sources(unit);
    }

    /// Records that a unit failed, and fails all units that depend on it.
    pub(super) fn fail(&mut self, unit: u32, error: (u32, JobError), records: &mut JobTable) {
        self.errors.insert(unit, error);
        self.move_to(unit, UnitStage::Failed(unit));
        self.release_sources(unit);
        let mut lost = vec![unit];
        while let Some(failed) = lost.pop() {
            self.undecided -= usize::from(self.plan.jobs.units[failed as usize].is_requested);
            for at in self.plan.jobs.dependents_of(failed) {
                let dependent = self.plan.jobs.dependents[at];
                if self.states[dependent as usize].stage != UnitStage::Waiting {
                    continue;
                }
                self.move_to(dependent, UnitStage::Failed(unit));
                self.drop_claims(dependent, records);
                self.release_sources(dependent);
                lost.push(dependent);
            }
        }
        crate::sync::point!("unit.failed");
    }

    /// Subtracts the bytes of values that no other unit will use, after a unit has ended. Does nothing without a
    /// ceiling.
    fn release_sources(&mut self, unit: u32) {
        if self.plan.ceiling.is_none() {
            return;
        }
        let sources = self.plan.jobs.sources_of(unit);
        for at in sources {
            let source = self.plan.jobs.sources[at] as usize;
            self.ends_left[source] -= 1;
            let free = self.ends_left[source] == 0 && !self.plan.jobs.units[source].is_requested;
            if free && self.states[source].stage == UnitStage::Done {
                self.held -= self.plan.jobs.units[source].bytes;
            }
        }
        let failed = self.states[unit as usize].stage.has_failed();
        let is_unused =
            self.ends_left[unit as usize] == 0 && !self.plan.jobs.units[unit as usize].is_requested;
        if unit < self.next && (failed || is_unused) {
            self.held -= self.plan.jobs.units[unit as usize].bytes;
        }
    }

    /// Returns the node that failed in a failed unit, and its error.
    pub(super) fn blame(&self, unit: u32, error: &JobError, step: u32) -> (u32, JobError) {
        let node = self.plan.jobs.node_at(unit, step);
        if self.plan.jobs.units[unit as usize].count == 1 {
            return (node, error.clone());
        }
        (node, error.of_kernel(self.plan.kernel(node).info.name))
    }

    /// Returns the error of a unit that could not run because `root` failed.
    pub(super) fn error_of_dependent(&self, unit: u32, root: u32) -> JobError {
        let (node, error) = self.error_of(root);
        let why = error.of_dependency(node_name(&self.plan.names, *node));
        Failed::new(why, self.last_kernel(unit), 0).into()
    }

    /// Returns the error of a unit that was stopped with its run.
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
        self.plan
            .kernel(self.plan.jobs.node_at(unit, u32::MAX))
            .info
            .name
    }

    /// Returns the number of jobs that the run will still send. 0 once each requested unit has ended.
    pub(super) fn planned(&self) -> usize {
        if self.undecided == 0 { 0 } else { self.waiting }
    }

    /// Returns how a node ended.
    pub(super) fn fate(&self, node: u32) -> NodeFate {
        let unit = self.plan.jobs.unit_of[node as usize];
        let Some(state) = self.states.get(unit as usize) else {
            return NodeFate::Open;
        };
        match state.stage {
            UnitStage::Waiting | UnitStage::Sent => NodeFate::Open,
            _ if state.worker != NO_RECORD => {
                let of = &self.plan.jobs.units[unit as usize];
                let (nodes, count) = (self.plan.jobs.nodes_of(of), of.count);
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
