//! All graphs of an engine.

use std::collections::{BTreeSet, VecDeque};

use super::ends::{LastEnd, Over};
use super::families::Families;
use super::run::Run;

/// What has jobs of its own to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Begun {
    Graph(u32),
    Family(u32),
}

/// All graphs of an engine.
#[derive(Debug, Default)]
pub(in crate::supervisor) struct Graphs {
    pub(super) runs: Vec<Option<Box<Run>>>,
    pub(super) free: Vec<u32>,
    pub(super) over: VecDeque<Over>,
    /// Somebody goes through `over`.
    pub(super) continuing: bool,
    /// Some unit went to the queue.
    pub(super) kept: bool,
    /// What admission holds back, by its place in the line.
    pub(super) held_back: BTreeSet<(u64, Begun)>,
    /// What jobs have spawned.
    pub(super) families: Families,
    /// Set when a job is drained, for the end of the unit that it may be.
    pub(in crate::supervisor) last: LastEnd,
}

impl Graphs {
    /// Has a job ended of which its graph has not heard?
    #[inline]
    pub(in crate::supervisor) fn have_ends(&self) -> bool {
        !self.over.is_empty() && !self.continuing
    }

    /// A panic may have left it half done: the others are to be gone on with.
    pub(in crate::supervisor) fn begin_again(&mut self) {
        self.continuing = false;
    }

    /// Jobs that graphs which run have not sent yet.
    pub(in crate::supervisor) fn planned(&self) -> usize {
        let runs = self.runs.iter().flatten();
        runs.map(|run| run.planned()).sum()
    }

    /// Is there something to go on with?
    #[inline]
    pub(in crate::supervisor) fn have_news(&self) -> bool {
        !self.over.is_empty() || !self.held_back.is_empty()
    }

    /// The place in admission's line of the first thing that was begun and is held back.
    pub(in crate::supervisor) fn first_held_back(&self) -> Option<u64> {
        self.held_back.first().map(|&(ticket, _)| ticket)
    }
}
