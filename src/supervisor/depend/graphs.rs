//! All graphs and task groups of an engine.

use std::collections::{BTreeSet, VecDeque};

use super::ends::{EndNotice, JobEnd};
use super::graph_run::GraphRun;
use super::task_group::TaskGroups;
use crate::kernel::Shares;

/// A graph or task group that admission holds back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum HeldBack {
    Graph(u32),
    TaskGroup(u32),
}

/// All graphs and task groups of an engine.
#[derive(Debug, Default)]
pub(in crate::supervisor) struct Graphs {
    pub(super) runs: Vec<Option<Box<GraphRun>>>,
    pub(super) free: Vec<u32>,
    /// Failed tasks and cancels of task groups are in front. Otherwise a deep recursion would grow at its lower end as
    /// fast as a cancel comes down to it.
    pub(super) ends: VecDeque<EndNotice>,
    /// A thread processes `ends`.
    pub(super) is_processing: bool,
    /// A unit went to the queue.
    pub(in crate::supervisor) has_queued: bool,
    /// Graphs and task groups that admission holds back, by ticket.
    pub(super) held_back: BTreeSet<(u64, HeldBack)>,
    /// Groups of spawned jobs.
    pub(super) task_groups: TaskGroups,
    /// Set when a job is drained, in case it is a unit.
    pub(super) last: JobEnd,
}

impl Graphs {
    /// Begins the end of a job that was drained from this lane.
    #[inline]
    pub(in crate::supervisor) fn begin_end(&mut self, lane: u32, took_ns: u64) {
        self.last = JobEnd {
            took_ns,
            lane,
            ..JobEnd::default()
        };
    }

    /// What was noted of the end that [`begin_end`](Self::begin_end) began, to continue it later.
    #[cfg(feature = "sandbox")]
    pub(in crate::supervisor) fn pause_end(&self) -> JobEnd {
        self.last
    }

    /// Continues an end.
    #[cfg(feature = "sandbox")]
    pub(in crate::supervisor) fn resume_end(&mut self, end: JobEnd) {
        self.last = end;
    }

    /// Notes the bytes of fresh arrays in its value.
    pub(in crate::supervisor) fn note_bytes(&mut self, bytes: u64) {
        self.last.bytes = bytes;
    }

    /// Notes which node of a failed chain failed.
    pub(in crate::supervisor) fn note_step(&mut self, step: u32) {
        self.last.step = step;
    }

    /// Notes how the time of a chain is divided among its nodes.
    pub(in crate::supervisor) fn note_shares(&mut self, shares: Option<Shares>) {
        self.last.shares = shares;
    }

    /// The noted shares of the last job.
    #[cfg(test)]
    pub(in crate::supervisor) fn last_shares(&self) -> Option<Shares> {
        self.last.shares
    }

    /// Whether the task group with this index still has this serial number.
    pub(in crate::supervisor) fn is_task_group(&self, task_group: u32, serial: u64) -> bool {
        let of = self.task_groups.look(task_group);
        of.is_some_and(|of| of.serial == serial)
    }

    /// Whether ends wait to be processed, and no thread does so.
    #[inline]
    pub(in crate::supervisor) fn has_unhandled_ends(&self) -> bool {
        !self.ends.is_empty() && !self.is_processing
    }

    /// Allows ends to be processed again after a panic interrupted it.
    pub(in crate::supervisor) fn reset_after_panic(&mut self) {
        self.is_processing = false;
    }

    /// Number of jobs that running graphs have not sent yet.
    pub(in crate::supervisor) fn planned(&self) -> usize {
        let runs = self.runs.iter().flatten();
        runs.map(|run| run.planned()).sum()
    }

    /// Whether there are ends to process or held-back work to try.
    #[inline]
    pub(in crate::supervisor) fn has_pending_work(&self) -> bool {
        !self.ends.is_empty() || !self.held_back.is_empty()
    }

    /// The ticket of the first held-back graph or task group.
    pub(in crate::supervisor) fn first_held_back(&self) -> Option<u64> {
        self.held_back.first().map(|&(ticket, _)| ticket)
    }
}
