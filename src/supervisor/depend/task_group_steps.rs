//! Runs spawned jobs: sends tasks, and answers the job that spawned them with the value of the last.

use std::time::Instant;

use super::ends::{EndNotice, JobEnd};
use super::graphs::HeldBack;
use super::limits::{MAX_OPEN_TASKS, MAX_SPAWN_DEPTH, MOST_CANCELLED};
use super::spawn_reply::{ChildValue, SpawnReply, Unloaded};
use super::task_group::{CancelMode, Spawned, TaskGroup};
use crate::kernel::wire::{ArgWriter, Leases};
use crate::link::{CANCEL, NOTICE, STAMPED};
use crate::supervisor::error::{Because, JobErrorKind, JobLimit, Rejection, WorkerExit};
use crate::supervisor::job_table::JobTable;
use crate::supervisor::options::JobOptions;
use crate::supervisor::owner::Owner;
use crate::supervisor::record::{JobId, Outcome, Stage};
use crate::supervisor::state::EngineState;
use crate::supervisor::submit::{Refusal, refuse};
use crate::supervisor::timers::Timer;

impl EngineState {
    /// Number of jobs that wait for jobs that they spawned.
    pub(in crate::supervisor) fn jobs_waiting_for_spawned(&self) -> usize {
        self.graphs.task_groups.count
    }

    /// Handles the end of a job that spawned others.
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
                self.lanes[lane].uncount_job();
                self.condemn(lane, index, JobErrorKind::Lost(WorkerExit::Protocol(what)));
            }
            Ok((spawned, bytes)) => {
                self.kernels.get(kernel).learn(took_ns, bytes, false);
                let record = self.records.at(index);
                if record.is_traced() {
                    self.trace_value(index, bytes);
                    // Further events are those of the spawned jobs.
                    self.records.at(index).form &= !STAMPED;
                }
                // The tasks have leases of their own.
                drop(leases);
                match spawned {
                    Err(why) => self.fail(index, why, None, Vec::new()),
                    Ok((reply, kernels)) => self.start_task_group(index, reply, kernels),
                }
            }
        }
    }

    /// Reads the reply of a job that spawns. Returns its tasks, or why they are refused, and the bytes of its arrays.
    ///
    /// # Errors
    /// What is wrong with the reply.
    pub(super) fn read_spawn(
        &mut self,
        lane: usize,
        index: u32,
        leases: &Leases,
    ) -> Result<(Spawned, u64), String> {
        let reply = self.reply;
        let unpacked = self.unpack(lane, &reply, leases, false)?;
        let record = self.records.look(index);
        let (kernel, of_actor) = (record.kernel, record.owner.actor().is_some());
        if of_actor || !self.kernels.get(kernel).spawns {
            return Err("spawned jobs from a kernel that does not spawn".into());
        }
        let bytes = unpacked.bytes;
        if self.config.is_sandboxed() {
            return Ok((Err(JobErrorKind::Rejected(Rejection::Spawning)), bytes));
        }
        let (words, arrays) = unpacked.into_words(&reply);
        // Before anything of the claimed size is built.
        if let Some(why) = self.too_many(index, SpawnReply::tasks_in(&words)) {
            return Ok((Err(why), bytes));
        }
        let reply = SpawnReply::read(words, arrays)?;
        let worker = self.lanes.worker_of(lane);
        let kernels = reply.kernels.iter();
        let kernels = kernels.map(|reply| self.kernels.spawned(reply, worker));
        let kernels = kernels.collect::<Option<Vec<u32>>>();
        let kernels = kernels.ok_or("more kernels than a program can have")?;
        Ok((Ok((reply, kernels)), bytes))
    }

    /// The task group that a job belongs to, and whether it is the last task.
    pub(super) fn enclosing_group(&self, index: u32) -> Option<(&TaskGroup, bool)> {
        let Owner::Task { task_group, task } = self.records.look(index).owner else {
            return None;
        };
        let enclosing_group = self.graphs.task_groups.look(task_group)?;
        Some((enclosing_group, task as usize == enclosing_group.children()))
    }

    /// Why a job may not spawn this number of tasks.
    pub(super) fn too_many(&self, index: u32, tasks: u64) -> Option<JobErrorKind> {
        let depth = depth_below(self.enclosing_group(index));
        let open = self.graphs.task_groups.open + tasks;
        (depth > MAX_SPAWN_DEPTH || open > MAX_OPEN_TASKS)
            .then_some(JobErrorKind::Limit(JobLimit::Spawned { depth, open }))
    }

    pub(super) fn start_task_group(&mut self, index: u32, reply: SpawnReply, kernels: Vec<u32>) {
        let record = self.records.at(index);
        let (seed, owner) = (record.seed, record.owner);
        if record.requests & CANCEL != 0 {
            return self.fail(index, JobErrorKind::Cancelled, None, Vec::new());
        }
        let enclosing_group = self.enclosing_group(index);
        let depth = depth_below(enclosing_group);
        let options = match &enclosing_group {
            // The options of the parent: this task's own may be without retries.
            Some((enclosing_group, _)) => enclosing_group.options.clone(),
            None => {
                let policy = self.records.look(index).policy.as_ref();
                policy.map(|policy| Box::new(policy.options.clone()))
            }
        };
        let goes_on = enclosing_group
            .and_then(|(enclosing_group, goes_on)| goes_on.then_some(enclosing_group.parent));
        let enclosing_group = enclosing_group.map(|(enclosing_group, _)| enclosing_group.ticket);
        // Returns permit and admission charge while the job waits: its tasks may need them.
        self.discharge(index);
        let mut parent = index;
        if let Some(enclosing_group) = goes_on {
            // The job was the last of its group, and the new group answers the same parent. So a loop of these does not
            // grow.
            parent = enclosing_group;
            self.graphs.task_groups.open -= 1;
            if let Owner::Task { task_group, .. } = owner {
                self.graphs.task_groups.remove(task_group);
            }
            self.records.remove(index);
        }
        let ticket = enclosing_group.unwrap_or_else(|| self.draw_admission_ticket());
        let task_groups = &mut self.graphs.task_groups;
        task_groups.serial += 1;
        let task_group = task_groups.add(TaskGroup {
            serial: task_groups.serial,
            parent,
            depth,
            seed,
            options,
            reply,
            kernels,
            sent: Vec::new(),
            open: 0,
            done: 0,
            failed: None,
            cancel_mode: None,
            cancelled: 0,
            ticket,
        });
        self.records.at(parent).stage = Stage::Spawned { task_group };
        crate::sync::point!("task_group.begun");
        self.schedule_task_group(task_group);
    }

    /// Not advanced here, where the caller may be in the middle of a change.
    pub(super) fn schedule_task_group(&mut self, task_group: u32) {
        self.graphs
            .ends
            .push_back(EndNotice::Advance { task_group });
    }

    /// Handles the end of a task.
    pub(super) fn handle_task_end(&mut self, index: u32, task_group: u32, task: u32, end: JobEnd) {
        let record = self.records.at(index);
        record.owner = Owner::Handle;
        self.graphs.task_groups.open -= 1;
        let failed = match &record.outcome {
            Some(Outcome::Failed(error)) => Some(error.of_child()),
            _ => None,
        };
        let Some(of) = self.graphs.task_groups.get(task_group) else {
            return self.records.remove(index);
        };
        of.open -= 1;
        if let Some(why) = failed {
            let first = of.failed.is_none();
            self.records.remove(index);
            // The tasks that are cancelled for it fail as well.
            if first {
                self.cancel_task_group(task_group, why, CancelMode::AskThenKill);
            }
        } else if of.failed.is_some() {
            self.records.remove(index);
        } else if task as usize == of.children() {
            crate::sync::point!("task_group.continued");
            return self.finish_task_group(task_group, index, end);
        } else {
            of.done += 1;
        }
        self.advance_task_group(task_group);
    }

    /// Sends tasks that are ready. Answers the parent of a failed group when none of its tasks runs any more.
    pub(super) fn advance_task_group(&mut self, task_group: u32) {
        while let Some(of) = self.graphs.task_groups.get(task_group) {
            if let Some(why) = of
                .failed
                .take_if(|_| of.open == 0 && of.cancelled == of.sent.len())
            {
                let parent = of.parent;
                self.graphs.task_groups.remove(task_group);
                return self.fail(parent, why, None, Vec::new());
            }
            let Some(task) = of.next() else { return };
            let kernel = of.kernels[of.reply.tasks[task].kernel as usize];
            let mut admitted = None;
            if self.admission.is_some() {
                let ticket = of.ticket;
                admitted = self.admit_begun(kernel, ticket);
                if admitted.is_none() {
                    return self.hold_back(ticket, HeldBack::TaskGroup(task_group));
                }
            }
            let id = self.send_task(task_group, task, kernel);
            if let Some(admitted) = admitted {
                self.charge_admitted(id, admitted);
            }
        }
    }

    /// Writes the call of a task into a record, and places it.
    pub(super) fn send_task(&mut self, task_group: u32, task: usize, kernel: u32) -> JobId {
        let graphs = &mut self.graphs.task_groups;
        let arena = self.arena.id();
        let mut call = graphs.call.take().unwrap_or_else(|| ArgWriter::new(arena));
        call.reset();
        // Before the last task takes the values of the others, whose records are removed then.
        let before = match (&self.trace, self.graphs.task_groups.look(task_group)) {
            (Some(_), Some(of)) => self.jobs_before(of, task),
            _ => Vec::new(),
        };
        let of = self
            .graphs
            .task_groups
            .get(task_group)
            .expect("a group that sends tasks exists");
        of.open += 1;
        call.seed = crate::kernel::seed_of_task(of.seed, task as u64);
        let moved = of.reply.tasks[task].moved;
        let mut options = of.options.clone();
        let unloaded = load(of, task, &mut call, &mut self.records);
        if let Some(options) = &mut options {
            // The arguments that it changes exist only once.
            options.retries = if moved { 0 } else { options.retries };
        }
        let options = options.as_deref().and_then(JobOptions::if_set);
        let owner = Owner::Task {
            task_group,
            task: task as u32,
        };
        let (id, refusal) = self.enter_record(kernel, &mut call, owner, options);
        self.graphs.task_groups.call = Some(call);
        let record = self.records.get(id);
        record.requests |= NOTICE;
        let job = record.job;
        if let Some(of) = self.graphs.task_groups.get(task_group) {
            of.sent.push(id);
        }
        before
            .into_iter()
            .for_each(|from| self.trace_depends(from, job));
        crate::sync::point!("task_group.recorded");
        self.enter(id.index, unloaded.or(refusal), options);
        crate::sync::point!("task_group.sent");
        id
    }

    /// The numbers of the jobs that a task follows: the one that spawned it, or all other tasks of the group.
    #[cold]
    fn jobs_before(&self, of: &TaskGroup, task: usize) -> Vec<u64> {
        let job = |index: u32| self.records.look(index).job;
        match task == of.children() {
            true => of.sent.iter().map(|id| job(id.index)).collect(),
            false => vec![job(of.parent)],
        }
    }

    /// Answers the parent with the value of the last task.
    pub(super) fn finish_task_group(&mut self, task_group: u32, index: u32, end: JobEnd) {
        let Some(of) = self.graphs.task_groups.remove(task_group) else {
            return;
        };
        let last = self.records.at(index);
        let outcome = last.outcome.take().unwrap_or(Outcome::Bare);
        let arrays = std::mem::take(&mut last.arrays);
        let (payload, answered_by) = (last.payload, last.answered_by);
        self.records.remove(index);
        let parent = self.records.at(of.parent);
        parent.payload = payload;
        parent.arrays = arrays;
        parent.answered_by = answered_by;
        self.graphs.last = end;
        self.answer(of.parent, outcome);
    }

    /// Cancels a task group: discards what was not sent. What was sent is cancelled as `how` says, some at a time:
    /// [`process_ends`](Self::process_ends).
    pub(in crate::supervisor) fn cancel_task_group(
        &mut self,
        task_group: u32,
        why: impl Into<Because>,
        how: CancelMode,
    ) {
        let task_groups = &mut self.graphs.task_groups;
        let Some(of) = task_groups.all[task_group as usize].as_deref_mut() else {
            return;
        };
        if of.failed.is_none() {
            of.failed = Some(why.into());
            task_groups.open -= (of.reply.tasks.len() - of.sent.len()) as u64;
            of.reply.clear();
        }
        if of.cancel_mode >= Some(how) {
            // Its jobs were cancelled so before. Each group of a deep recursion would do it again for all below.
            return;
        }
        of.cancel_mode = Some(how);
        let serial = of.serial;
        if how == CancelMode::AskThenKill
            && of.open > 0
            && let Some(due) = Instant::now().checked_add(self.config.grace())
        {
            self.timers
                .add(due, Timer::TaskGroup { task_group, serial });
            self.monitor.call_before(due);
        }
        self.graphs.ends.push_front(EndNotice::Cancel {
            task_group,
            serial,
            how,
            from: 0,
        });
        crate::sync::point!("task_group.broken");
    }

    /// Cancels jobs that a cancelled group has sent, from one on, and leaves the rest for later. Returns their number.
    pub(super) fn cancel_sent(
        &mut self,
        task_group: u32,
        serial: u64,
        how: CancelMode,
        from: usize,
    ) -> usize {
        let of = self.graphs.task_groups.get(task_group);
        let Some(of) = of.filter(|of| of.serial == serial) else {
            return 1;
        };
        let next = of.sent.len().min(from + MOST_CANCELLED);
        let sent = of.sent[from..next].to_vec();
        for id in sent {
            let Some(record) = self.records.find(id) else {
                continue;
            };
            match record.stage {
                // Processed already: its value is not needed any more.
                Stage::Answered if record.owner == Owner::Handle => self.records.remove(id.index),
                Stage::Answered => {}
                Stage::Spawned { task_group } => {
                    // The outer group kills its jobs, with those below, when the grace period is over.
                    let how = match how {
                        CancelMode::AskThenKill => CancelMode::Ask,
                        how => how,
                    };
                    self.cancel_task_group(task_group, JobErrorKind::Cancelled, how);
                }
                _ if how == CancelMode::Kill => self.kill(id),
                _ => self.cancel(id),
            }
        }
        let ends = &mut self.graphs.ends;
        let Some(of) = self.graphs.task_groups.get(task_group) else {
            return next - from;
        };
        of.cancelled = of.cancelled.max(next);
        ends.push_front(if next == of.sent.len() {
            EndNotice::Advance { task_group }
        } else {
            EndNotice::Cancel {
                task_group,
                serial,
                how,
                from: next,
            }
        });
        1 + next - from
    }

    /// Cancels the tasks of a job that has spawned others. Returns false if it has not.
    pub(in crate::supervisor) fn cancel_spawned(&mut self, id: JobId, how: CancelMode) -> bool {
        let record = self.records.get(id);
        let Stage::Spawned { task_group } = record.stage else {
            return false;
        };
        self.cancel_task_group(task_group, JobErrorKind::Cancelled, how);
        true
    }
}

/// The depth of a group spawned by such a job: the last task stays at the depth of its group.
pub(super) fn depth_below(enclosing_group: Option<(&TaskGroup, bool)>) -> u32 {
    enclosing_group.map_or(1, |(enclosing_group, goes_on)| {
        enclosing_group.depth + u32::from(!goes_on)
    })
}
/// Writes the call of a task. Returns the answer of the task if it cannot be written.
fn load(of: &mut TaskGroup, task: usize, call: &mut ArgWriter, records: &mut JobTable) -> Refusal {
    // Takes the children's values out of their records, and removes the records.
    let mut values = Vec::new();
    if task == of.children() {
        for id in &of.sent[..task] {
            let Some(record) = records.find(*id) else {
                continue;
            };
            values.push((record.value().to_vec(), std::mem::take(&mut record.arrays)));
            records.remove(id.index);
        }
    }
    let mut next = values.iter_mut();
    let loaded = of.reply.load(task, call, || {
        let (words, arrays) = next.next()?;
        let arrays = std::mem::take(arrays);
        Some(ChildValue { words, arrays })
    });
    match loaded {
        Ok(()) => None,
        Err(Unloaded::Full(full)) => refuse(JobErrorKind::Limit(JobLimit::Arena(full))),
        Err(Unloaded::Malformed) => refuse(JobErrorKind::Lost(WorkerExit::Protocol(
            "a call without its values".into(),
        ))),
    }
}
