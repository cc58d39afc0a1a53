//! What waits for a lane: jobs by priority, first in first out within each; and actors, whose jobs take turns.

use std::collections::VecDeque;

use super::job_table::JobTable;
use super::options::Priority;
use super::record::{Record, Stage};

/// Entries without a job before they are swept out.
const SLACK: usize = 64;

/// Where something that waits may be posted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Constraint {
    /// A job: in any lane.
    Any,
    /// An exclusive job: in a worker without other jobs.
    WholeWorker,
    /// An actor: in any lane, where its state is from then on.
    Host,
    /// An actor: in the lane where its state is.
    Lane(usize),
}

/// A queued job, as long as its record agrees.
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
    /// Entries of each class that have a job.
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

    fn give_up(&mut self, class: usize, records: &JobTable) {
        self.live[class] -= 1;
        if self.entries() > 2 * self.len() + SLACK {
            for class in &mut self.classes {
                class.retain(|entry| entry.is_live(records));
            }
        }
    }
}

/// What an actor waits with.
#[derive(Debug, Default)]
struct ActorLine {
    calls: Line,
    /// The actor waits for its turn: see [`Queue::list`].
    is_listed: bool,
}

/// Each job with [`Stage::Queued`] has exactly one entry.
#[derive(Debug)]
pub(super) struct Queue {
    shared: Line,
    exclusive: Line,
    /// By actor.
    actors: Vec<ActorLine>,
    /// Actors with something to post, by lane, in the order of their turns. The last are those without a lane.
    turns: Vec<VecDeque<u32>>,
    /// Number of actors in `turns`.
    listed: usize,
    /// Whether actors were first the last time, before jobs that share a worker; they alternate.
    actors_first: bool,
    /// The job that was placed last was exclusive: others go first next time. Otherwise an exclusive job would wait for
    /// the last of the others, or they for the last of these.
    exclusive_last: bool,
}

impl Queue {
    pub(super) fn new(lanes: usize) -> Self {
        Self {
            shared: Line::default(),
            exclusive: Line::default(),
            actors: Vec::new(),
            turns: vec![VecDeque::new(); lanes + 1],
            listed: 0,
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

    /// For a job that was taken back: it is older than what waits.
    #[inline]
    pub(super) fn push_front(&mut self, index: u32, record: &Record) {
        let generation = record.generation;
        let (line, class) = self.line_of(record);
        line.live[class] += 1;
        line.classes[class].push_front(Entry { index, generation });
    }

    /// Where a job waits, and its class there. Exclusive jobs are all of one class.
    #[inline]
    fn line_of(&mut self, record: &Record) -> (&mut Line, usize) {
        let class = record.priority() as usize;
        if let Some(actor) = record.owner.actor() {
            return (&mut self.actors[actor as usize].calls, class);
        }
        match record.is_exclusive() {
            true => (&mut self.exclusive, Priority::Normal as usize),
            false => (&mut self.shared, class),
        }
    }

    /// Takes what is next for this constraint: a job, or an actor, whose job is then posted.
    #[inline]
    pub(super) fn next_for(&mut self, constraint: Constraint, records: &JobTable) -> Option<u32> {
        match constraint {
            Constraint::Any => self.shared.pop(records),
            Constraint::WholeWorker => self.exclusive.pop(records),
            Constraint::Host | Constraint::Lane(_) => {
                let actor = self.turns_of(constraint).pop_front()?;
                self.actors[actor as usize].is_listed = false;
                self.listed -= 1;
                Some(actor)
            }
        }
    }

    /// Takes the next call of an actor.
    pub(super) fn next_call(&mut self, actor: u32, records: &JobTable) -> Option<u32> {
        self.actors[actor as usize].calls.pop(records)
    }

    /// A queued job leaves the queue without being placed. The caller changes its stage afterwards.
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

    /// Prepares for a new actor.
    pub(super) fn add_actor(&mut self, actor: u32) {
        let len = self.actors.len().max(actor as usize + 1);
        self.actors.resize_with(len, ActorLine::default);
    }

    /// Lets an actor wait for its turn, unless it does.
    pub(super) fn list(&mut self, actor: u32, constraint: Constraint) {
        if !std::mem::replace(&mut self.actors[actor as usize].is_listed, true) {
            self.listed += 1;
            self.turns_of(constraint).push_back(actor);
        }
    }

    /// Ends the wait of an actor for its turn.
    pub(super) fn unlist(&mut self, actor: u32) {
        if std::mem::take(&mut self.actors[actor as usize].is_listed) {
            self.listed -= 1;
            for turns in &mut self.turns {
                turns.retain(|&other| other != actor);
            }
        }
    }

    /// Ends the wait of all actors with this constraint.
    pub(super) fn unlist_all(&mut self, constraint: Constraint) {
        for actor in std::mem::take(self.turns_of(constraint)) {
            self.actors[actor as usize].is_listed = false;
            self.listed -= 1;
        }
    }

    /// Whether something waits that only this lane can have.
    #[inline]
    pub(super) fn has_turns(&self, lane: usize) -> bool {
        !self.turns[lane].is_empty()
    }

    /// Whether an actor waits for a lane.
    pub(super) fn waits_for_host(&self) -> bool {
        self.turns.last().is_some_and(|turns| !turns.is_empty())
    }

    /// Whether actors wait for their turns.
    #[inline]
    pub(super) fn has_actors(&self) -> bool {
        self.listed > 0
    }

    /// Whether a call of this actor, or the actor for its turn, waits.
    #[inline]
    pub(super) fn has_waiting(&self, actor: u32) -> bool {
        self.actors[actor as usize].is_listed || self.calls_of(actor) > 0
    }

    /// Number of calls that wait for their actor.
    #[inline]
    pub(super) fn calls_of(&self, actor: u32) -> usize {
        self.actors[actor as usize].calls.len()
    }

    /// Whether anything waits that could be posted if lanes had room.
    #[inline]
    pub(super) fn has_work(&self) -> bool {
        self.unbound() > 0 || self.listed > 0
    }

    /// Number of jobs of no actor.
    #[inline]
    pub(super) fn unbound(&self) -> usize {
        self.shared.len() + self.exclusive.len()
    }

    /// Number of jobs.
    pub(super) fn len(&self) -> usize {
        let calls: usize = self.actors.iter().map(|actor| actor.calls.len()).sum();
        self.unbound() + calls
    }

    /// Whether no job waits that shares its worker.
    #[inline]
    pub(super) fn is_clear(&self) -> bool {
        self.shared.len() == 0
    }

    /// Whether an exclusive job waits.
    #[inline]
    pub(super) fn has_exclusive(&self) -> bool {
        self.exclusive.len() > 0
    }

    /// Whether no job waits that has this priority or a higher one.
    pub(super) fn has_none_from(&self, priority: Priority) -> bool {
        let mut classes = self.shared.live[priority as usize..].iter();
        classes.all(|&live| live == 0)
    }

    /// Whether actors are placed before jobs that share a worker this time. Alternates with each call.
    #[inline]
    pub(super) fn take_actors_first(&mut self) -> bool {
        self.actors_first = !self.actors_first;
        self.actors_first && self.listed > 0
    }

    /// Whether exclusive jobs are placed after the others this time.
    #[inline]
    pub(super) fn exclusive_goes_last(&self) -> bool {
        self.exclusive_last
    }

    /// An exclusive job was placed, or it is their turn again.
    pub(super) fn set_exclusive_last(&mut self, last: bool) {
        self.exclusive_last = last;
    }

    /// The jobs of no actor, in order.
    #[cfg(test)]
    pub(super) fn in_order(&self, records: &JobTable) -> Vec<u32> {
        let lines = [&self.shared, &self.exclusive].into_iter();
        let entries = lines.flat_map(|line| line.classes.iter().rev().flatten());
        let live = entries.filter(|entry| entry.is_live(records));
        live.map(|entry| entry.index).collect()
    }

    /// Entries, including those without a job.
    #[cfg(test)]
    pub(super) fn entries(&self) -> usize {
        self.shared.entries() + self.exclusive.entries()
    }
}
