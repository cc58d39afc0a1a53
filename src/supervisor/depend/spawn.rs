//! Jobs that spawn others: reads their replies, starts the runs of their tasks, and answers the jobs.

use std::sync::Arc;

use super::ends::JobEnd;
use super::plan::RunPlan;
use super::run::{Run, Spawned};
use super::spawn_reply::SpawnReply;
use crate::kernel::wire::Leases;
use crate::link::{CANCEL, STAMPED};
use crate::supervisor::error::{JobErrorKind, Rejection};
use crate::supervisor::owner::Owner;
use crate::supervisor::record::{Outcome, Stage};
use crate::supervisor::state::EngineState;

/// The tasks of a reply and their kernels, or why they are refused.
type Tasks = Result<(SpawnReply, Vec<(u32, u64)>), JobErrorKind>;

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
        // Step functions are 0: tasks form no chains.
        let kernels = kernels.map(|named| Some((self.kernels.spawned(&named, worker)?, 0)));
        let kernels = kernels.collect::<Option<Vec<_>>>();
        let kernels = kernels.ok_or("more kernels than a program can have")?;
        Ok((Ok((reply, kernels)), bytes))
    }

    /// Begins the run of the tasks that a job has spawned.
    fn start_tasks(&mut self, index: u32, reply: SpawnReply, kernels: Vec<(u32, u64)>) {
        let record = self.records.look(index);
        let (seed, owner) = (record.seed, record.owner);
        let depth = self.runs.depth_below(owner);
        let enclosing = self.runs.enclosing(owner);
        let has_stopped = enclosing.is_some_and(|(run, ..)| run.stopped.is_some());
        if has_stopped || record.requests & CANCEL != 0 {
            return self.fail(index, JobErrorKind::Cancelled, None, Vec::new());
        }
        let own = record.policy.as_ref();
        let (ticket, options, parent) = match enclosing {
            None => (None, own.map(|own| Arc::new(own.options.clone())), None),
            // The tasks get the options of the outermost job that spawns: the options of this task may have no retries.
            Some((run, spawned, is_last)) => (
                Some(run.ticket),
                spawned.options.clone(),
                is_last.then_some(run.parent),
            ),
        };
        // While the job waits, its permit and charge are returned, because its tasks may need them.
        self.discharge(index);
        if parent.is_some()
            && let Owner::Unit { run, .. } = owner
        {
            // The new run answers the same parent, so a loop of last tasks that spawn again does not grow.
            self.runs.remove(run);
            self.records.remove(index);
        }
        let parent = parent.unwrap_or(index);
        let ticket =
            ticket.unwrap_or_else(|| self.admission.as_mut().map_or(0, |line| line.draw_ticket()));
        let open = reply.tasks.len() as u64;
        let plan = RunPlan::of_tasks(reply, options.as_ref());
        let spawned = Spawned {
            depth,
            seed,
            options,
            open,
            failure: None,
        };
        let run = Run::new(plan, kernels, ticket, parent, Some(spawned));
        let run = self.runs.add(run);
        self.records.at(parent).stage = Stage::Spawned { run };
        crate::sync::point!("tasks.begun");
    }

    /// Answers the parent with the value of the last task, which has this record.
    pub(super) fn finish_tasks(&mut self, number: u32, index: u32, end: JobEnd) {
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
        self.runs.resume_end(end);
        self.answer(parent, outcome);
    }
}
