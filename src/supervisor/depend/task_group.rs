//! Groups of spawned jobs.

use super::limits::WINDOW;
use super::spawn_reply::SpawnReply;
use crate::kernel::wire::ArgWriter;
use crate::supervisor::error::{Because, JobErrorKind};
use crate::supervisor::options::JobOptions;
use crate::supervisor::record::JobId;

/// The jobs that one job has spawned.
#[derive(Debug)]
pub(super) struct TaskGroup {
    /// Distinguishes groups that use the same index one after the other.
    pub(super) serial: u64,
    /// The record of the job that the group answers.
    pub(super) parent: u32,
    pub(super) depth: u32,
    /// Seed of the tasks' random numbers.
    pub(super) seed: u64,
    pub(super) options: Option<Box<JobOptions>>,
    pub(super) reply: SpawnReply,
    /// By kernel of the reply: index of the kernel.
    pub(super) kernels: Vec<u32>,
    /// By task: the record that it has, or had.
    pub(super) sent: Vec<JobId>,
    /// Tasks with a record and no answer.
    pub(super) open: usize,
    /// Children that gave their value.
    pub(super) done: usize,
    /// Why there will be no value.
    pub(super) failed: Option<Because>,
    /// Of a failed group: the strongest way in which its jobs were cancelled.
    pub(super) cancel_mode: Option<CancelMode>,
    /// Of a failed group: the number of jobs in `sent` that were cancelled or removed.
    pub(super) cancelled: usize,
    /// Ticket in admission's line.
    pub(super) ticket: u64,
}

impl TaskGroup {
    pub(super) fn children(&self) -> usize {
        self.reply.tasks.len() - 1
    }

    /// The next task that may be sent.
    pub(super) fn next(&self) -> Option<usize> {
        let next = self.sent.len();
        let children = self.children();
        let ready = next < children && self.open < WINDOW || next == children && self.done == next;
        (ready && self.failed.is_none()).then_some(next)
    }
}

/// The tasks of a reply and their kernels, or why they are refused.
pub(super) type Spawned = Result<(SpawnReply, Vec<u32>), JobErrorKind>;

/// All task groups of an engine.
#[derive(Debug, Default)]
pub(super) struct TaskGroups {
    pub(super) all: Vec<Option<Box<TaskGroup>>>,
    pub(super) free: Vec<u32>,
    pub(super) serial: u64,
    /// Number of groups.
    pub(super) count: usize,
    /// Number of tasks that have not ended.
    pub(super) open: u64,
    pub(super) call: Option<ArgWriter>,
}

impl TaskGroups {
    pub(super) fn look(&self, task_group: u32) -> Option<&TaskGroup> {
        self.all.get(task_group as usize)?.as_deref()
    }

    pub(super) fn get(&mut self, task_group: u32) -> Option<&mut TaskGroup> {
        self.all.get_mut(task_group as usize)?.as_deref_mut()
    }

    pub(super) fn add(&mut self, task_group: TaskGroup) -> u32 {
        self.count += 1;
        self.open += task_group.reply.tasks.len() as u64;
        let task_group = Some(Box::new(task_group));
        if let Some(index) = self.free.pop() {
            self.all[index as usize] = task_group;
            return index;
        }
        self.all.push(task_group);
        self.all.len() as u32 - 1
    }

    pub(super) fn remove(&mut self, index: u32) -> Option<Box<TaskGroup>> {
        let task_group = self.all.get_mut(index as usize)?.take()?;
        self.free.push(index);
        self.count -= 1;
        Some(task_group)
    }
}

/// How the sent jobs of a group are cancelled, the strongest way last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::supervisor) enum CancelMode {
    /// Ask them to stop.
    Ask,
    /// Ask them to stop, and kill their workers after the grace period.
    AskThenKill,
    /// Kill their workers.
    Kill,
}
