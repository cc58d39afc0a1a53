//! The queue of jobs and actors that wait for a lane: jobs by priority, and in order within each priority; actors in
//! turns.

use std::collections::VecDeque;

use super::job_table::JobTable;
use super::record::{Record, Stage};

/// The number of stale entries (without a job) at which they are removed.
const SLACK: usize = 64;

/// Where a waiting job may be posted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Constraint {
    /// A job: to any lane.
    Any,
    /// An exclusive job: to a worker without other jobs.
    WholeWorker,
    /// An actor without a state: to any lane, which hosts the state from then on.
    Host,
    /// An actor with a state: to the lane that hosts the state.
    Lane(usize),
}

/// An entry for a queued job. It is stale once the job's record says otherwise.
#[derive(Clone, Copy, Debug)]
struct Entry {
    index: u32,
    generation: u32,
}

impl Entry {
    fn is_live(self, records: &JobTable) -> bool {
        let record = records.look(self.index);
        record.generation == self.generation && record.stage == Stage::Queued
    }
}

/// Jobs with the same constraint.
#[derive(Debug, Default)]
struct Line {
    /// Lowest priority first.
    classes: [VecDeque<Entry>; 3],
    /// Number of entries of each class that are not stale.
    live: [usize; 3],
}

impl Line {
    #[inline]
    fn len(&self) -> usize {
        self.live.iter().sum()
    }

    fn entries(&self) -> usize {
        self.classes.iter().map(VecDeque::len).sum()
    }

    #[inline]
    fn pop(&mut self, records: &JobTable) -> Option<u32> {
        for (class, live) in self.classes.iter_mut().zip(&mut self.live).rev() {
            while let Some(entry) = class.pop_front() {
                if entry.is_live(records) {
                    *live -= 1;
                    return Some(entry.index);
                }
            }
        }
        None
    }

    /// Returns the job that `pop` would take.
    fn first(&self, records: &JobTable) -> Option<u32> {
        let mut entries = self.classes.iter().rev().flatten();
        let first = entries.find(|entry| entry.is_live(records))?;
        Some(first.index)
    }

    fn give_up(&mut self, class: usize, records: &JobTable) {
        self.live[class] -= 1;
        if self.entries() > 2 * self.len() + SLACK {
            for class in &mut self.classes {
                class.retain(|entry| entry.is_live(records));
            }
        }
    }
}

/// The waiting calls of an actor.
#[derive(Debug, Default)]
struct ActorLine {
    calls: Line,
    /// Whether the actor is in `turns`.
    is_queued: bool,
}

/// Each job with [`Stage::Queued`] has exactly one entry.
#[derive(Debug)]
pub(super) struct Queue {
    shared: Line,
    exclusive: Line,
    /// The waiting calls of each actor, by index.
    actors: Vec<ActorLine>,
    /// Actors that have a job to post, by lane, in the order of their turns. The last entry is for actors without a
    /// lane.
    turns: Vec<VecDeque<u32>>,
    /// Number of actors in `turns`.
    queued_actors: usize,
    /// Whether actors went ahead of jobs that share a worker the last time. The two alternate.
    actors_first: bool,
    /// Whether the job that was placed last was exclusive: then other jobs go first the next time. Without alternation,
    /// one kind would wait until the other kind's queue is empty.
    exclusive_last: bool,
}

impl Queue {
    pub(super) fn new(lanes: usize) -> Self {
        Self {
            shared: Line::default(),
            exclusive: Line::default(),
            actors: Vec::new(),
            turns: vec![VecDeque::new(); lanes + 1],
            queued_actors: 0,
            actors_first: false,
            exclusive_last: false,
        }
    }

    #[inline]
    pub(super) fn push_back(&mut self, index: u32, record: &Record) {
        let generation = record.generation;
        let (line, class) = self.line_of(record);
        line.live[class] += 1;
        line.classes[class].push_back(Entry { index, generation });
    }

    /// Queues a job that was taken back at the front: it is older than all waiting jobs.
    #[inline]
    pub(super) fn push_front(&mut self, index: u32, record: &Record) {
        let generation = record.generation;
        let (line, class) = self.line_of(record);
        line.live[class] += 1;
        line.classes[class].push_front(Entry { index, generation });
    }

    /// Returns the line in which a job waits, and its class there.
    #[inline]
    fn line_of(&mut self, record: &Record) -> (&mut Line, usize) {
        let class = record.priority() as usize;
        if let Some(actor) = record.owner.actor() {
            return (&mut self.actors[actor as usize].calls, class);
        }
        let line = match record.is_exclusive() {
            true => &mut self.exclusive,
            false => &mut self.shared,
        };
        (line, class)
    }

    /// Takes the next job for this constraint. If an actor is next, takes the actor's next job.
    #[inline]
    pub(super) fn next_for(&mut self, constraint: Constraint, records: &JobTable) -> Option<u32> {
        match constraint {
            Constraint::Any => self.shared.pop(records),
            Constraint::WholeWorker => self.exclusive.pop(records),
            Constraint::Host | Constraint::Lane(_) => {
                let actor = self.turns_of(constraint).pop_front()?;
                self.actors[actor as usize].is_queued = false;
                self.queued_actors -= 1;
                Some(actor)
            }
        }
    }

    /// Takes the next call of an actor.
    pub(super) fn next_call(&mut self, actor: u32, records: &JobTable) -> Option<u32> {
        self.actors[actor as usize].calls.pop(records)
    }

    /// Returns true if the next call of an actor lacks no value of a job.
    #[inline]
    pub(super) fn has_whole_call(&self, actor: u32, records: &JobTable) -> bool {
        let calls = &self.actors[actor as usize].calls;
        calls.len() > 0
            && calls
                .first(records)
                .is_some_and(|call| !records.look(call).lacks_values())
    }

    /// Removes a queued job without placing it. The caller changes its stage afterwards.
    pub(super) fn give_up(&mut self, index: u32, records: &JobTable) {
        let (line, class) = self.line_of(records.look(index));
        line.give_up(class, records);
    }

    fn turns_of(&mut self, constraint: Constraint) -> &mut VecDeque<u32> {
        let last = self.turns.len() - 1;
        match constraint {
            Constraint::Lane(lane) => &mut self.turns[lane],
            _ => &mut self.turns[last],
        }
    }

    /// Makes room for the calls of a new actor.
    pub(super) fn add_actor(&mut self, actor: u32) {
        let len = self.actors.len().max(actor as usize + 1);
        self.actors.resize_with(len, ActorLine::default);
    }

    /// Adds an actor that has a job to post to `turns`, unless it is there already.
    pub(super) fn queue_actor(&mut self, actor: u32, constraint: Constraint) {
        if !std::mem::replace(&mut self.actors[actor as usize].is_queued, true) {
            self.queued_actors += 1;
            self.turns_of(constraint).push_back(actor);
        }
    }

    /// Removes an actor from `turns`.
    pub(super) fn unqueue_actor(&mut self, actor: u32) {
        if std::mem::take(&mut self.actors[actor as usize].is_queued) {
            self.queued_actors -= 1;
            for turns in &mut self.turns {
                turns.retain(|&other| other != actor);
            }
        }
    }

    /// Removes all actors with this constraint from `turns`.
    pub(super) fn unqueue_actors(&mut self, constraint: Constraint) {
        for actor in std::mem::take(self.turns_of(constraint)) {
            self.actors[actor as usize].is_queued = false;
            self.queued_actors -= 1;
        }
    }

    /// Returns true if an actor that this lane hosts has a job to post.
    #[inline]
    pub(super) fn has_turns(&self, lane: usize) -> bool {
        !self.turns[lane].is_empty()
    }

    /// Returns true if an actor without a lane waits for one.
    pub(super) fn waits_for_host(&self) -> bool {
        self.turns.last().is_some_and(|turns| !turns.is_empty())
    }

    /// Returns true if any actor has a job to post.
    #[inline]
    pub(super) fn has_actors(&self) -> bool {
        self.queued_actors > 0
    }

    /// Returns true if a call of this actor waits, or the actor waits for its turn to post a job.
    #[inline]
    pub(super) fn has_waiting(&self, actor: u32) -> bool {
        self.actors[actor as usize].is_queued || self.calls_of(actor) > 0
    }

    /// Returns the number of calls that wait for their actor.
    #[inline]
    pub(super) fn calls_of(&self, actor: u32) -> usize {
        self.actors[actor as usize].calls.len()
    }

    /// Returns true if a job waits that could be posted if lanes had room.
    #[inline]
    pub(super) fn has_work(&self) -> bool {
        self.unbound() > 0 || self.queued_actors > 0
    }

    /// Returns the number of waiting jobs that belong to no actor.
    #[inline]
    pub(super) fn unbound(&self) -> usize {
        self.shared.len() + self.exclusive.len()
    }

    /// Returns the number of waiting jobs.
    pub(super) fn len(&self) -> usize {
        let calls: usize = self.actors.iter().map(|actor| actor.calls.len()).sum();
        self.unbound() + calls
    }

    /// Returns true if no job waits that may share its worker.
    #[inline]
    pub(super) fn is_clear(&self) -> bool {
        self.shared.len() == 0
    }

    /// Returns true if an exclusive job waits.
    #[inline]
    pub(super) fn has_exclusive(&self) -> bool {
        self.exclusive.len() > 0
    }

    /// Returns true if no job of this job's priority or a higher one waits where this job would.
    pub(super) fn has_none_from(&mut self, record: &Record) -> bool {
        let (line, class) = self.line_of(record);
        let mut classes = line.live[class..].iter();
        classes.all(|&live| live == 0)
    }

    /// Returns true if actors go ahead of jobs that share a worker this time. Alternates with each call.
    #[inline]
    pub(super) fn take_actors_first(&mut self) -> bool {
        self.actors_first = !self.actors_first;
        self.actors_first && self.queued_actors > 0
    }

    /// Returns true if exclusive jobs are placed after the others this time.
    #[inline]
    pub(super) fn exclusive_goes_last(&self) -> bool {
        self.exclusive_last
    }

    /// Sets whether exclusive jobs are placed after the others the next time.
    pub(super) fn set_exclusive_last(&mut self, last: bool) {
        self.exclusive_last = last;
    }

    /// Returns the waiting jobs that belong to no actor, in order.
    #[cfg(test)]
    pub(super) fn in_order(&self, records: &JobTable) -> Vec<u32> {
        let lines = [&self.shared, &self.exclusive].into_iter();
        let entries = lines.flat_map(|line| line.classes.iter().rev().flatten());
        let live = entries.filter(|entry| entry.is_live(records));
        live.map(|entry| entry.index).collect()
    }

    /// Returns the number of entries, including stale ones.
    #[cfg(test)]
    pub(super) fn entries(&self) -> usize {
        self.shared.entries() + self.exclusive.entries()
    }
}
