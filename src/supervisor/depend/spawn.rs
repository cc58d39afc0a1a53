//! Jobs that spawn others: reads their replies, starts the runs of their tasks, and answers the jobs.

use std::sync::Arc;

use super::run::Run;
use super::spawn_reply::SpawnReply;
use crate::kernel::wire::{ArgWriter, Leases};
use crate::link::{CANCEL, NOTICE, STAMPED};
use crate::supervisor::error::{JobErrorKind, Rejection};
use crate::supervisor::owner::Owner;
use crate::supervisor::record::{JobId, Outcome, Stage};
use crate::supervisor::state::EngineState;
use crate::supervisor::submit::refuse;

/// The tasks of a reply and their kernels, or why they are refused.
type Tasks = Result<(SpawnReply, Vec<u32>), JobErrorKind>;

impl EngineState {
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
                self.condemn_for(lane, index, what);
            }
            Ok((spawned, bytes)) => {
                self.kernels.get(kernel).learn(took_ns, bytes, false);
                self.trace
                    .value(index, &self.records, &mut self.kernels, bytes);
                // Further events of this trace belong to the spawned jobs.
                self.records.at(index).form &= !STAMPED;
                // The tasks have their own leases.
                drop(leases);
                match spawned {
                    Err(why) => self.fail(index, why, None, Vec::new()),
                    Ok((reply, kernels)) => self.start_tasks(index, reply, kernels),
                }
            }
        }
    }

    /// Reads the reply of a job that spawns. Returns its tasks, or why they are refused, and the bytes of its arrays.
    ///
    /// # Errors
    ///
    /// A description of what is wrong with the reply.
    fn read_spawn(
        &mut self,
        lane: usize,
        index: u32,
        leases: &Leases,
    ) -> Result<(Tasks, u64), String> {
        let reply = self.reply;
        let checked =
            self.lanes
                .unpack(lane, (&self.arena, &self.config), &reply, leases, false)?;
        let record = self.records.look(index);
        let (kernel, owner) = (record.kernel, record.owner);
        if owner.actor().is_some() || !self.kernels.get(kernel).spawns {
            return Err("spawned jobs from a kernel that does not spawn".into());
        }
        let bytes = checked.bytes;
        if self.config.is_sandboxed {
            return Ok((Err(JobErrorKind::Rejected(Rejection::Spawning)), bytes));
        }
        let (words, arrays) = checked.into_words();
        // Checked before anything of the claimed size is allocated.
        if let Some(why) = self.runs.too_many(owner, SpawnReply::tasks_in(&words)) {
            return Ok((Err(why), bytes));
        }
        let mut reply = SpawnReply::read(words, arrays)?;
        let worker = self.lanes.worker_of(lane);
        let kernels = std::mem::take(&mut reply.kernels).into_iter();
        let kernels = kernels.map(|named| self.kernels.spawned(&named, worker));
        let kernels = kernels.collect::<Option<Vec<_>>>();
        let kernels = kernels.ok_or("more kernels than a program can have")?;
        Ok((Ok((reply, kernels)), bytes))
    }

    /// Begins the run of the tasks that a job has spawned.
    fn start_tasks(&mut self, index: u32, reply: SpawnReply, kernels: Vec<u32>) {
        let record = self.records.look(index);
        let (seed, owner) = (record.seed, record.owner);
        let depth = self.runs.depth_below(owner);
        let enclosing = self.runs.enclosing(owner);
        let has_stopped = enclosing.is_some_and(|(run, _)| run.stopped.is_some());
        if has_stopped || record.requests & CANCEL != 0 {
            return self.fail(index, JobErrorKind::Cancelled, None, Vec::new());
        }
        let own = record.policy.as_ref();
        let (ticket, options, parent) = match enclosing {
            None => (None, own.map(|own| Arc::new(own.options.clone())), None),
            // The tasks get the options of the outermost job that spawns: the options of this task may have no retries.
            Some((run, is_last)) => (
                Some(run.ticket),
                run.options.clone(),
                is_last.then_some(run.parent),
            ),
        };
        // While the job waits, its permit and charge are returned, because its tasks may need them.
        self.discharge(index);
        if parent.is_some()
            && let Owner::Task { run, .. } = owner
        {
            // The new run answers the same parent, so a loop of last tasks that spawn again does not grow.
            self.runs.remove(run);
            self.records.remove(index);
        }
        let parent = parent.unwrap_or(index);
        let ticket =
            ticket.unwrap_or_else(|| self.admission.as_mut().map_or(0, |line| line.draw_ticket()));
        let run = Run::new(reply, kernels, (depth, seed, ticket), options, parent);
        let run = self.runs.add(run);
        self.records.at(parent).stage = Stage::Spawned { run };
        crate::sync::point!("tasks.begun");
    }

    /// Sends ready tasks. If the run is over without a value, answers its parent.
    pub(super) fn advance(&mut self, number: u32) {
        self.send_ready(number);
        let Some(run) = self.runs.find(number) else {
            return;
        };
        let (parent, sent) = (run.parent, run.sent);
        if let Some(why) = run.failure.take_if(|_| sent == 0) {
            let run = self.runs.remove_with_values(number, &mut self.records);
            self.timers.remove_end(run.and_then(|run| run.kill));
            self.fail(parent, why, None, Vec::new());
        }
    }

    /// Sends ready tasks, up to the limits of window and admission.
    fn send_ready(&mut self, number: u32) {
        while let Some(run) = self.runs.find(number)
            && let Some((task, kernel)) = run.next_ready()
        {
            let ticket = run.ticket;
            let Ok(admitted) = self.admit(kernel, 0, Some(ticket)) else {
                // The run tries again when a job ends.
                self.runs.hold_back((ticket, number));
                self.monitor.watch_memory();
                if !self.lanes.request_next_ends() {
                    // A job has ended without a notice, before the request.
                    self.monitor.look_again();
                }
                return;
            };
            let id = self.send_task(number, task, kernel);
            self.charge_admitted(id, admitted);
        }
    }

    /// Writes the call of a task into a record, and places it.
    fn send_task(&mut self, number: u32, task: u32, kernel: u32) -> JobId {
        let mut call = ArgWriter::new(self.arena.id());
        let run = self.runs.get(number);
        let (parent, is_last) = (run.parent, run.is_last(task));
        let mut sources = Vec::new();
        if self.trace.is_on() {
            match is_last {
                true => sources.extend(run.done_jobs().map(|id| self.records.get(id).job)),
                false => sources.push(self.records.look(parent).job),
            }
        }
        let options = run.options_of(task).map(Arc::clone);
        let options = options.as_deref();
        let loaded = run.load(task, &mut self.records, &mut call);
        crate::sync::point!("tasks.forwarded");
        let owner = Owner::Task { run: number, task };
        let (id, refusal) = self.enter_record(kernel, &mut call, owner, options);
        let run = self.runs.get(number);
        let record = self.records.get(id);
        record.requests |= NOTICE;
        let job = record.job;
        run.sent_as(task, id);
        crate::sync::point!("tasks.recorded");
        for source in sources {
            self.trace.depends(source, job);
        }
        let refusal = loaded.err().map_or(refusal, refuse);
        self.enter(id.index, refusal, options);
        crate::sync::point!("tasks.placed");
        id
    }

    /// Answers the parent with the value of the last task, which has this record.
    pub(super) fn finish_tasks(&mut self, number: u32, index: u32) {
        crate::sync::point!("tasks.continued");
        let parent = self.runs.get(number).parent;
        self.runs.remove(number);
        let last = self.records.at(index);
        let outcome = last.outcome.take().unwrap_or(Outcome::Bare);
        let arrays = std::mem::take(&mut last.arrays);
        let (payload, answered_by) = (last.payload, last.answered_by);
        self.records.remove(index);
        let record = self.records.at(parent);
        record.payload = payload;
        record.arrays = arrays;
        record.answered_by = answered_by;
        self.answer(parent, outcome);
    }
}
