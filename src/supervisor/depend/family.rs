//! Jobs that a kernel spawned: they run, and what goes on with their values answers the job that spawned them. See
//! "Spawned jobs" in the README of this floor.

use std::time::{Duration, Instant};

use super::ends::{LastEnd, Over};
use super::families::{FAMILY, Family};
use super::graphs::Begun;
use super::told::{ChildValue, MOST_DEEP, MOST_OPEN, Told, Unloaded};
use crate::kernel::wire::{ArgWriter, Leases};
use crate::link::{CANCEL, NOTICE, STAMPED};
use crate::supervisor::actor::actor_of;
use crate::supervisor::error::{Because, JobErrorKind};
use crate::supervisor::job_table::JobTable;
use crate::supervisor::options::JobOptions;
use crate::supervisor::record::{JobId, NO_GRAPH, Outcome, Stage};
use crate::supervisor::state::EngineState;
use crate::sys::clock::postponed;

/// In place of a worker: not an end, but a family that may go on.
const MAY_GO_ON: u32 = u32::MAX;

/// A list of jobs to spawn with their kernels, or why there will be none.
type Spawned = Result<(Told, Vec<u32>), JobErrorKind>;

impl EngineState {
    /// Jobs that wait for what they have spawned.
    pub(in crate::supervisor) fn waiting_for_spawned(&self) -> usize {
        self.graphs.families.count
    }

    /// A job ended with a list of jobs that have to run first.
    #[cold]
    pub(in crate::supervisor) fn ended_with_spawn(
        &mut self,
        lane: usize,
        index: u32,
        took_ns: u64,
    ) {
        let record = self.records.at(index);
        let leases = std::mem::take(&mut record.leases);
        let kernel = record.kernel;
        match self.read_spawn(lane, index, &leases) {
            Err(what) => {
                self.records.at(index).leases = leases;
                self.lanes[lane].jobs -= 1;
                self.condemn(lane, index, JobErrorKind::Protocol(what));
            }
            Ok((spawned, bytes)) => {
                self.kernels.get(kernel).learn(took_ns, bytes, false);
                let record = self.records.at(index);
                if record.is_traced() {
                    self.trace_value(index, bytes);
                    // What follows is told of those that it has spawned.
                    self.records.at(index).form &= !STAMPED;
                }
                // They have leases of their own.
                drop(leases);
                match spawned {
                    Err(why) => self.fail(index, why, None, Vec::new()),
                    Ok((told, kernels)) => self.begin_family(index, told, kernels),
                }
            }
        }
    }

    /// The list and its kernels, or why it is refused, and the bytes that came with it. An error is what is wrong with it.
    fn read_spawn(
        &mut self,
        lane: usize,
        index: u32,
        leases: &Leases,
    ) -> Result<(Spawned, u64), String> {
        let reply = self.reply;
        let unpacked = self.unpack(lane, &reply, leases)?;
        let record = self.records.look(index);
        let (kernel, of_actor) = (record.kernel, actor_of(record.group).is_some());
        if of_actor || !self.kernels.get(kernel).spawns {
            return Err("jobs to spawn from a kernel that spawns none".into());
        }
        let bytes = unpacked.bytes;
        if self.config.is_sandboxed() {
            return Ok((Err(JobErrorKind::NoSpawning), bytes));
        }
        let (words, arrays) = unpacked.into_words(&reply);
        // Before anything is made of it that is as long as it.
        if let Some(why) = self.too_many(index, Told::tasks_in(&words)) {
            return Ok((Err(why), bytes));
        }
        let told = Told::read(words, arrays)?;
        let worker = self.lanes.worker_of(lane);
        let kernels = told.kernels.iter();
        let kernels = kernels.map(|told| self.kernels.spawned(told, worker));
        let kernels = kernels.collect::<Option<Vec<u32>>>();
        let kernels = kernels.ok_or("more kernels than a program has")?;
        Ok((Ok((told, kernels)), bytes))
    }

    /// The family whose task a job is, and whether it is what goes on with the values of the others.
    fn above(&self, index: u32) -> Option<(&Family, bool)> {
        let record = self.records.look(index);
        if record.graph == NO_GRAPH || record.graph & FAMILY == 0 {
            return None;
        }
        let above = self.graphs.families.look(record.graph & !FAMILY)?;
        Some((above, record.unit as usize == above.children()))
    }

    /// Why a job may not spawn so many tasks.
    fn too_many(&self, index: u32, tasks: u64) -> Option<JobErrorKind> {
        let depth = depth_below(self.above(index));
        let open = self.graphs.families.open + tasks;
        (depth > MOST_DEEP || open > MOST_OPEN).then_some(JobErrorKind::SpawnLimit { depth, open })
    }

    fn begin_family(&mut self, index: u32, told: Told, kernels: Vec<u32>) {
        let record = self.records.at(index);
        let (seed, graph) = (record.seed, record.graph);
        if record.requests & CANCEL != 0 {
            return self.fail(index, JobErrorKind::Cancelled, None, Vec::new());
        }
        let above = self.above(index);
        let depth = depth_below(above);
        let options = match &above {
            // Those of the job: this task may have no retries itself.
            Some((above, _)) => above.options.clone(),
            None => {
                let policy = self.records.look(index).policy.as_ref();
                policy.map(|policy| Box::new(policy.options.clone()))
            }
        };
        let goes_on = above.and_then(|(above, goes_on)| goes_on.then_some(above.parent));
        let above = above.map(|(above, _)| above.ticket);
        // While it waits it takes nobody's permit and counts for no bytes: those that it waits for need them.
        self.discharge(index);
        let mut parent = index;
        if let Some(above) = goes_on {
            // It was the last of its family, and the new one answers the same job: so a loop of these does not grow.
            parent = above;
            self.graphs.families.open -= 1;
            self.graphs.families.remove(graph & !FAMILY);
            self.records.at(index).graph = NO_GRAPH;
            self.records.remove(index);
        }
        let ticket = above.unwrap_or_else(|| self.begin());
        let families = &mut self.graphs.families;
        families.serial += 1;
        let family = families.add(Family {
            serial: families.serial,
            parent,
            depth,
            seed,
            options,
            told,
            kernels,
            sent: Vec::new(),
            open: 0,
            done: 0,
            failed: None,
            ticket,
        });
        self.records.at(parent).stage = Stage::Spawned { family };
        crate::sync::point!("family.begun");
        self.let_go_on(family);
    }

    /// Not here, which may be in the middle of anything.
    fn let_go_on(&mut self, family: u32) {
        self.graphs.over.push_back(Over {
            record: family,
            end: LastEnd {
                lane: MAY_GO_ON,
                ..LastEnd::default()
            },
        });
    }

    /// Is this entry of the list about a family? Then it is heard here.
    pub(super) fn family_hears(&mut self, over: Over) -> bool {
        if over.end.lane == MAY_GO_ON {
            self.step_family(over.record);
            return true;
        }
        let record = self.records.at(over.record);
        let (graph, unit) = (record.graph, record.unit as usize);
        if graph & FAMILY == 0 || graph == NO_GRAPH {
            return false;
        }
        record.graph = NO_GRAPH;
        record.detached = false;
        let family = graph & !FAMILY;
        self.graphs.families.open -= 1;
        let failed = match &record.outcome {
            Some(Outcome::Failed(error)) => Some(error.of_child()),
            _ => None,
        };
        let Some(of) = self.graphs.families.get(family) else {
            self.records.remove(over.record);
            return true;
        };
        of.open -= 1;
        if let Some(why) = failed {
            let first = of.failed.is_none();
            self.records.remove(over.record);
            // Those that it gives up fail as well.
            if first {
                self.break_family(family, why, Breaking::Failed);
            }
        } else if of.failed.is_some() {
            self.records.remove(over.record);
        } else if unit == of.children() {
            crate::sync::point!("family.continued");
            self.end_family(family, over);
            return true;
        } else {
            of.done += 1;
        }
        self.step_family(family);
        true
    }

    /// Sends what may be sent; if it has failed, and nothing of it runs any more, says so.
    pub(super) fn step_family(&mut self, family: u32) {
        while let Some(of) = self.graphs.families.get(family) {
            if let Some(why) = of.failed.take_if(|_| of.open == 0) {
                let parent = of.parent;
                self.graphs.families.remove(family);
                return self.fail(parent, why, None, Vec::new());
            }
            let Some(task) = of.next() else { return };
            let kernel = of.kernels[of.told.tasks[task].kernel as usize];
            let mut entry = None;
            if self.admission.is_some() {
                let ticket = of.ticket;
                entry = self.enter_unit(kernel, ticket);
                if entry.is_none() {
                    return self.hold_back(ticket, Begun::Family(family));
                }
            }
            let id = self.send_task(family, task, kernel);
            if let Some(entry) = entry {
                self.entered(id, entry);
            }
        }
    }

    /// Writes the call of a task into a record, and places it.
    fn send_task(&mut self, family: u32, task: usize, kernel: u32) -> JobId {
        let (id, record) = self.records.add();
        let index = id.index;
        record.kernel = kernel;
        record.group = 0;
        record.detached = true;
        record.graph = FAMILY | family;
        record.unit = task as u32;
        record.requests = NOTICE;
        let job = record.job;
        let graphs = &mut self.graphs.families;
        let arena = self.arena.id();
        let mut call = graphs.call.take().unwrap_or_else(|| ArgWriter::new(arena));
        call.reset();
        let of = graphs.get(family).expect("a family that sends is there");
        of.open += 1;
        of.sent.push(id);
        call.seed = crate::kernel::seed_of_task(of.seed, task as u64);
        let (parent, moved) = (of.parent, of.told.tasks[task].moved);
        let mut options = of.options.clone();
        let refusal = load(of, task, &mut call, &mut self.records);
        self.records.at(index).seed = call.seed;
        if let Some(options) = &mut options {
            // What it changes is not there a second time.
            options.retries = if moved { 0 } else { options.retries };
        }
        let options = options.as_deref().and_then(JobOptions::if_set);
        if let Some(options) = options {
            self.set_options(index, options);
        }
        if self.trace.is_some() {
            self.trace_family(family, task, parent, job);
        }
        let refusal = self.write_call(index, &mut call).or(refusal);
        self.graphs.families.call = Some(call);
        crate::sync::point!("family.recorded");
        if let Some(why) = refusal.or_else(|| self.refusal_of_unit(kernel)) {
            self.fail(index, why, None, Vec::new());
        } else if let Some(options) = options
            && self.is_kept_back(index, options)
        {
            // It is answered, or its limiter says when it goes on.
        } else if self.scheduler.has_priorities() && self.overtake(index)
            || !self.queue.is_clear()
            || !self.place(index)
        {
            // Before all that waits: so what was begun is ended before more is begun, and few wait at any time.
            self.queue.push_front(index, self.records.at(index));
            self.graphs.kept = true;
        }
        crate::sync::point!("family.sent");
        id
    }

    /// The trace hears who waits for whom.
    #[cold]
    fn trace_family(&mut self, family: u32, task: usize, parent: u32, job: u64) {
        let Some(of) = self.graphs.families.get(family) else {
            return;
        };
        let children = of.children();
        let sources: Vec<JobId> = of.sent[..if task == children { children } else { 0 }].to_vec();
        if task < children {
            let from = self.records.look(parent).job;
            self.trace_depends(from, job);
        }
        for source in sources {
            let from = self.records.look(source.index).job;
            self.trace_depends(from, job);
        }
    }

    /// What went on with the values of the others has the value of the job that spawned them.
    fn end_family(&mut self, family: u32, over: Over) {
        let Some(of) = self.graphs.families.remove(family) else {
            return;
        };
        let last = self.records.at(over.record);
        let outcome = last.outcome.take().unwrap_or(Outcome::Bare);
        let arrays = std::mem::take(&mut last.arrays);
        let (payload, answered_by) = (last.payload, last.answered_by);
        self.records.remove(over.record);
        let parent = self.records.at(of.parent);
        parent.payload = payload;
        parent.arrays = arrays;
        parent.answered_by = answered_by;
        self.graphs.last = over.end;
        self.answer(of.parent, outcome);
    }

    /// A family gives no value: what was not sent will not be, and what was sent is given up.
    pub(in crate::supervisor) fn break_family(
        &mut self,
        family: u32,
        why: impl Into<Because>,
        how: Breaking,
    ) {
        // Ends are heard afterwards.
        let continuing = std::mem::replace(&mut self.graphs.continuing, true);
        let mut broken = vec![(family, why.into())];
        while let Some((family, why)) = broken.pop() {
            let families = &mut self.graphs.families;
            let Some(of) = families.all[family as usize].as_deref_mut() else {
                continue;
            };
            if of.failed.is_none() {
                of.failed = Some(why);
                of.told.forget();
                families.open -= (of.told.tasks.len() - of.sent.len()) as u64;
            }
            let (serial, open, sent) = (of.serial, of.open, of.sent.clone());
            for id in sent {
                let Some(record) = self.records.find(id) else {
                    continue;
                };
                match record.stage {
                    // Heard already: its value is not needed any more.
                    Stage::Answered if record.graph == NO_GRAPH => self.records.remove(id.index),
                    Stage::Answered => {}
                    Stage::Spawned { family } => {
                        broken.push((family, JobErrorKind::Cancelled.into()));
                    }
                    _ if how == Breaking::Now => self.cancel_now(id),
                    _ => self.cancel(id),
                }
            }
            let grace = self.config.grace();
            if how == Breaking::Failed
                && open > 0
                && let Some(due) = Instant::now().checked_add(grace)
            {
                self.graphs.families.due.insert((due, serial), family);
                self.monitor.call_before(due);
            }
            crate::sync::point!("family.broken");
            self.let_go_on(family);
        }
        self.graphs.continuing = continuing;
    }

    /// Somebody gives up on a job that has spawned others. False: it has not.
    pub(in crate::supervisor) fn cancel_spawned(&mut self, id: JobId, how: Breaking) -> bool {
        let record = self.records.get(id);
        let Stage::Spawned { family } = record.stage else {
            return false;
        };
        self.break_family(family, JobErrorKind::Cancelled, how);
        true
    }

    /// When patience with what runs on is over.
    pub(in crate::supervisor) fn postpone_families(&mut self, by: Duration) {
        let due = std::mem::take(&mut self.graphs.families.due).into_iter();
        let later = due.map(|((due, serial), family)| ((postponed(due, by), serial), family));
        self.graphs.families.due = later.collect();
    }

    pub(in crate::supervisor) fn families_due(&self) -> Option<Instant> {
        let first = self.graphs.families.due.first_key_value();
        first.map(|(&(due, _), _)| due)
    }

    /// Ends the workers that run what has no use any more.
    pub(in crate::supervisor) fn end_families(&mut self, now: Instant) {
        while let Some((&(due, serial), &family)) = self.graphs.families.due.first_key_value()
            && due <= now
        {
            self.graphs.families.due.remove(&(due, serial));
            let of = self.graphs.families.get(family);
            if of.is_some_and(|of| of.serial == serial) {
                self.break_family(family, JobErrorKind::Cancelled, Breaking::Now);
            }
        }
    }
}

/// How deep what such a job spawns is: what goes on with the values of others is as deep as those.
fn depth_below(above: Option<(&Family, bool)>) -> u32 {
    above.map_or(1, |(above, goes_on)| above.depth + u32::from(!goes_on))
}

/// How what was sent is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::supervisor) enum Breaking {
    /// Asked to stop.
    Asked,
    /// Asked to stop, and ended with its worker if it does not.
    Failed,
    /// Ended with its worker.
    Now,
}

/// The call of a task. What the job answers if it cannot be written.
fn load(
    of: &mut Family,
    task: usize,
    call: &mut ArgWriter,
    records: &mut JobTable,
) -> Option<JobErrorKind> {
    // Values are taken out of the records, one after the other, and the records go with them.
    let mut values = Vec::new();
    if task == of.children() {
        for id in &of.sent[..task] {
            let Some(record) = records.find(*id) else {
                continue;
            };
            let words = match record.outcome.take() {
                Some(Outcome::Inline { len }) => record.payload[..len as usize].to_vec(),
                Some(Outcome::Long(words)) => words,
                Some(Outcome::Bare | Outcome::Failed(_)) | None => Vec::new(),
            };
            values.push((words, std::mem::take(&mut record.arrays)));
            records.remove(id.index);
        }
    }
    let mut next = values.iter_mut();
    let loaded = of.told.load(task, call, || {
        let (words, arrays) = next.next()?;
        let arrays = std::mem::take(arrays);
        Some(ChildValue { words, arrays })
    });
    match loaded {
        Ok(()) => None,
        Err(Unloaded::Full(full)) => Some(JobErrorKind::ArenaFull(full)),
        Err(Unloaded::Malformed) => {
            Some(JobErrorKind::Protocol("a call without its values".into()))
        }
    }
}
