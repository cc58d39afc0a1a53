//! All graphs and task groups of an engine.

use std::collections::{BTreeSet, VecDeque};

use super::ends::{EndNotice, JobEnd};
use super::graph_run::GraphRun;
use super::task_group::TaskGroups;
use crate::link::SLOTS;

/// Most jobs of one graph with a record and no answer: enough for every worker.
pub(super) const WINDOW: usize = 2 * SLOTS;

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
    pub(super) over: VecDeque<EndNotice>,
    /// A thread processes `over`.
    pub(super) continuing: bool,
    /// A unit went to the queue.
    pub(super) kept: bool,
    /// Graphs and task groups that admission holds back, by ticket.
    pub(super) held_back: BTreeSet<(u64, HeldBack)>,
    /// Groups of spawned jobs.
    pub(super) task_groups: TaskGroups,
    /// Set when a job is drained, in case it is a unit.
    pub(in crate::supervisor) last: JobEnd,
}

impl Graphs {
    /// Whether ends wait to be processed, and no thread does so.
    #[inline]
    pub(in crate::supervisor) fn has_unhandled_ends(&self) -> bool {
        !self.over.is_empty() && !self.continuing
    }

    /// Allows ends to be processed again after a panic interrupted it.
    pub(in crate::supervisor) fn reset_after_panic(&mut self) {
        self.continuing = false;
    }

    /// Number of jobs that running graphs have not sent yet.
    pub(in crate::supervisor) fn planned(&self) -> usize {
        let runs = self.runs.iter().flatten();
        runs.map(|run| run.planned()).sum()
    }

    /// Whether there are ends to process or held-back work to try.
    #[inline]
    pub(in crate::supervisor) fn has_pending_work(&self) -> bool {
        !self.over.is_empty() || !self.held_back.is_empty()
    }

    /// The ticket of the first held-back graph or task group.
    pub(in crate::supervisor) fn first_held_back(&self) -> Option<u64> {
        self.held_back.first().map(|&(ticket, _)| ticket)
    }
}
