//! A run: the tasks that a job has spawned.

use std::sync::Arc;

use super::ends::CancelMode;
use super::limits::WINDOW;
use super::spawn_reply::{ChildValue, SpawnReply, Unloaded};
use crate::kernel::seed_of_task;
use crate::kernel::wire::ArgWriter;
use crate::supervisor::error::{Because, JobErrorKind, JobLimit, WorkerExit};
use crate::supervisor::job_table::JobTable;
use crate::supervisor::options::JobOptions;
use crate::supervisor::record::JobId;
use crate::supervisor::timers::Entry;

/// The stage of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TaskStage {
    /// The task waits to be sent.
    Waiting,
    /// The task has a record and no answer.
    Sent(JobId),
    /// The task has a value, which stays in its record until the last task takes it.
    Done(JobId),
}

/// The tasks that a job has spawned: its children, and the last task, which takes their values. The value of the last
/// task becomes the value of the job.
#[derive(Debug)]
pub(in crate::supervisor) struct Run {
    /// Distinguishes runs that have the same index at different times.
    pub(super) serial: u64,
    /// The record of the job that spawned the tasks.
    pub(super) parent: u32,
    /// Number of jobs that wait for each other in the chain of spawns that ends with this run.
    pub(super) depth: u32,
    /// Seed of the tasks' random numbers.
    seed: u64,
    /// The options of the job that spawned.
    pub(super) options: Option<Arc<JobOptions>>,
    /// The same without retries, for a task that changes its arguments: these exist only once.
    once: Option<Arc<JobOptions>>,
    /// The tasks and their arguments. `None` if nothing more is sent.
    pub(super) reply: Option<SpawnReply>,
    /// The kernels that the reply names.
    kernels: Vec<u32>,
    tasks: Vec<TaskStage>,
    /// The next child to send.
    next: u32,
    /// Number of children without a value.
    without_value: u32,
    /// The run's ticket in the line of admission.
    pub(super) ticket: u64,
    /// Number of tasks with a record and no answer.
    pub(super) sent: usize,
    /// Number of tasks that have not ended, except tasks that will never be sent.
    pub(super) open: u64,
    /// Why the run will have no value.
    pub(super) failure: Option<Because>,
    /// If the run was stopped: the strongest way in which its tasks were cancelled.
    pub(super) stopped: Option<CancelMode>,
    /// The timer that kills the tasks that still run after the run was stopped.
    pub(super) kill: Option<Entry>,
}

impl Run {
    pub(super) fn new(
        reply: SpawnReply,
        kernels: Vec<u32>,
        (depth, seed, ticket): (u32, u64, u64),
        options: Option<Arc<JobOptions>>,
        parent: u32,
    ) -> Self {
        let once = options.as_ref().and_then(|options| {
            let options = JobOptions {
                retries: 0,
                ..JobOptions::clone(options)
            };
            options.if_set().is_some().then(|| Arc::new(options))
        });
        let tasks = reply.tasks.len();
        Self {
            serial: 0,
            parent,
            depth,
            seed,
            once,
            options: options.filter(|options| options.if_set().is_some()),
            kernels,
            tasks: vec![TaskStage::Waiting; tasks],
            next: 0,
            without_value: tasks as u32 - 1,
            ticket,
            sent: 0,
            open: tasks as u64,
            failure: None,
            stopped: None,
            kill: None,
            reply: Some(reply),
        }
    }

    fn last(&self) -> u32 {
        self.tasks.len() as u32 - 1
    }

    /// Returns true if the value of this task becomes the value of the parent.
    pub(super) fn is_last(&self, task: u32) -> bool {
        task == self.last()
    }

    /// Returns the next task that may be sent, and its kernel.
    pub(super) fn next_ready(&self) -> Option<(u32, u32)> {
        let may_send = self.stopped.is_none()
            && self.sent < WINDOW
            && match self.next {
                next if next == self.last() => self.without_value == 0,
                next => next < self.last(),
            };
        let reply = self.reply.as_ref().filter(|_| may_send)?;
        let kernel = reply.tasks[self.next as usize].kernel;
        Some((self.next, self.kernels[kernel as usize]))
    }

    /// Returns the options of a task's job.
    pub(super) fn options_of(&self, task: u32) -> Option<&Arc<JobOptions>> {
        let moved = self
            .reply
            .as_ref()
            .is_some_and(|reply| reply.tasks[task as usize].moved);
        if moved { &self.once } else { &self.options }.as_ref()
    }

    /// Writes the call of a task. The last task takes the values of all others.
    pub(super) fn load(
        &mut self,
        task: u32,
        records: &mut JobTable,
        call: &mut ArgWriter,
    ) -> Result<(), JobErrorKind> {
        self.next = task + 1;
        let mut values = Vec::new();
        if self.is_last(task) {
            for child in &self.tasks[..task as usize] {
                let &TaskStage::Done(id) = child else {
                    unreachable!("the last task is sent when all others have a value");
                };
                let record = records.get(id);
                values.push(ChildValue {
                    words: record.value().to_vec(),
                    arrays: std::mem::take(&mut record.arrays),
                });
                records.remove(id.index);
                crate::sync::point!("tasks.freed");
            }
            self.tasks[..task as usize].fill(TaskStage::Waiting);
        }
        call.seed = seed_of_task(self.seed, u64::from(task));
        let mut values = values.into_iter();
        let Some(reply) = &mut self.reply else {
            unreachable!("tasks are sent while their calls are there");
        };
        let loaded = reply.load(task as usize, call, || values.next());
        loaded.map_err(|why| match why {
            Unloaded::Full(full) => JobErrorKind::Limit(JobLimit::Arena(full)),
            Unloaded::Malformed => {
                JobErrorKind::Lost(WorkerExit::Protocol("a call without its values".into()))
            }
        })
    }

    /// Returns the jobs of tasks that have a value.
    pub(super) fn done_jobs(&self) -> impl Iterator<Item = JobId> {
        self.tasks.iter().filter_map(|task| match task {
            TaskStage::Done(id) => Some(*id),
            _ => None,
        })
    }

    pub(super) fn sent_as(&mut self, task: u32, id: JobId) {
        self.tasks[task as usize] = TaskStage::Sent(id);
        self.sent += 1;
    }

    /// Records that a task has ended. Its record stays, if it has a value: see [`done`](Self::done).
    pub(super) fn ended(&mut self, task: u32) {
        self.sent -= 1;
        self.open -= 1;
        let stage = &mut self.tasks[task as usize];
        if let TaskStage::Sent(id) = *stage {
            *stage = TaskStage::Done(id);
        }
    }

    /// Counts the value of a child.
    pub(super) fn done(&mut self, task: u32) {
        if !self.is_last(task) {
            self.without_value -= 1;
        }
    }

    /// Returns the jobs of tasks that were sent and have not ended.
    pub(super) fn sent_jobs(&self) -> Vec<JobId> {
        let sent = self.tasks.iter().filter_map(|task| match task {
            TaskStage::Sent(id) => Some(*id),
            _ => None,
        });
        sent.collect()
    }

    /// Removes the values that no task has taken.
    pub(super) fn remove_values(&self, records: &mut JobTable) {
        for id in self.done_jobs() {
            if records.find(id).is_some() {
                records.remove(id.index);
            }
        }
    }
}
