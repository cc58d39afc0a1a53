//! One lane as the supervisor sees it: its link, its jobs, and its output memory. Its process is part of
//! [`Worker`](super::worker).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::grants::{Grants, Taken};
use super::job_table::JobTable;
use super::retained::RetainedArrays;
use crate::arena::{Arena, Block};
use crate::kernel::wire::{Lease, SentArray};
use crate::link::{Ask, LinkCells, NOTICE, Producer, Reply, SLOTS};
use crate::sync::FIRST_COUNT;
use crate::sys::clock;

/// Stands for no record: the job was retracted, or there was none.
pub(super) const NO_RECORD: u32 = u32::MAX;

/// The expected duration of the work that a lane may have ahead. It is short, so that a long job delays few jobs, and
/// long enough for a thread to be woken, get a core and refill the lane meanwhile.
pub(super) const DEPTH_NS: u64 = 500_000;

/// The deadline of a running job.
#[derive(Clone, Copy, Debug)]
pub(super) struct Alarm {
    pub(super) position: u64,
    pub(super) at: Instant,
    /// When the clock was started, plus the time for which the program did not run since.
    pub(super) since: Instant,
    /// When it was last found that the program had not run, and for how long in all.
    pub(super) stopped: Option<(Instant, Duration)>,
}

/// What to do with the clock of a lane's oldest job: see [`Lane::update_alarm`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Clock {
    /// No job of the lane has a deadline.
    NotNeeded,
    /// The clock runs for the oldest job, or waits for the end of a job without a deadline.
    Unchanged,
    /// The clock has to be started for the job at this position.
    Starts(u64),
}

/// One lane: see the module.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) producer: Producer,
    /// Whether the worker accepts jobs: a copy of its [`Status`](super::worker::Status).
    is_ready: bool,
    /// Whether the worker is being killed. Then its replies on this lane are ignored.
    is_condemned: bool,
    /// The generation of the worker.
    generation: u32,
    /// The record of each slot's job.
    records: Box<[u32; SLOTS]>,
    /// Expected duration of each slot's job, in nanoseconds.
    expected: Box<[u32; SLOTS]>,
    /// Sum of `expected` over open jobs.
    backlog_ns: u64,
    grants: Grants,
    /// Arrays whose handles in the worker outlive their job.
    retained: RetainedArrays,
    /// The position of the oldest open job at the last tick.
    seen_at_tick: u64,
    /// Positions of jobs with a deadline, oldest first. Some may have ended or been taken back.
    timed: VecDeque<u64>,
    /// The running clock of the oldest open job.
    alarm: Option<Alarm>,
    /// The position of the last job ahead of the next job with a deadline. The monitor is notified when the job at this
    /// position ends.
    noticed: u64,
    /// The position of a job that had ended, according to the worker, when a request was made. The next drain must find
    /// its end.
    reported_end: u64,
    /// Number of jobs that ended on this lane in all generations of the worker.
    jobs: u64,
    /// The value of `jobs` when the present generation began.
    jobs_before: u64,
    /// The first position that the present generation may not have: `share`, or no limit while the lane has actors.
    last: u64,
    /// The first position beyond the lane's share of the jobs after which the worker is recycled.
    share: u64,
    /// The first position to which no job may be posted now: `last`, or 0 while no job may be posted.
    until: u64,
    /// Number of actors whose state is hosted here.
    actors: usize,
    /// Whether no job may be posted because memory is short.
    is_paused: bool,
    /// Whether no job may be posted on any lane of the worker, because one job has the worker to itself or will have
    /// it.
    is_exclusive: bool,
}

impl Lane {
    pub(super) fn new(region: u16, cells: Arc<LinkCells>) -> Self {
        Self {
            producer: Producer::new(cells),
            is_ready: false,
            is_condemned: false,
            generation: FIRST_COUNT,
            records: Box::new([NO_RECORD; SLOTS]),
            expected: Box::new([0; SLOTS]),
            backlog_ns: 0,
            grants: Grants::new(region),
            retained: RetainedArrays::default(),
            seen_at_tick: u64::MAX,
            timed: VecDeque::new(),
            alarm: None,
            noticed: u64::MAX,
            reported_end: u64::MAX,
            jobs: 0,
            jobs_before: 0,
            last: u64::MAX,
            share: u64::MAX,
            until: u64::MAX,
            actors: 0,
            is_paused: false,
            is_exclusive: false,
        }
    }

    // ---- the worker's status ----------------------------------------------------------------

    /// Returns true if the worker accepts jobs.
    #[inline]
    pub(super) fn is_ready(&self) -> bool {
        self.is_ready
    }

    /// Sets whether the worker accepts jobs, and returns the previous value. Called only by
    /// [`Lanes::set_ready`](super::lanes::Lanes), which counts ready lanes.
    pub(super) fn set_ready(&mut self, ready: bool) -> bool {
        std::mem::replace(&mut self.is_ready, ready)
    }

    /// Returns true if the worker's replies on this lane are ignored.
    #[inline]
    pub(super) fn is_condemned(&self) -> bool {
        self.is_condemned
    }

    /// Makes the worker's replies on this lane be ignored. Returns true if they were not before.
    pub(super) fn condemn(&mut self) -> bool {
        self.alarm = None;
        !std::mem::replace(&mut self.is_condemned, true)
    }

    /// Returns the generation of the worker.
    #[inline]
    pub(super) fn generation(&self) -> u32 {
        self.generation
    }

    /// Sets the generation. Called only by `EngineState::next_generation`, which does so for all lanes of the worker.
    pub(super) fn set_generation(&mut self, generation: u32) {
        self.generation = generation;
    }

    // ---- jobs -------------------------------------------------------------------------------

    #[inline]
    pub(super) fn is_idle(&self) -> bool {
        self.producer.open() == 0
    }

    /// Returns the number of jobs in the lane. Retracted slots that the worker has not passed yet do not count.
    pub(super) fn live(&self) -> usize {
        self.records
            .iter()
            .filter(|&&record| record != NO_RECORD)
            .count()
    }

    /// Returns the record of the job at this position, or [`NO_RECORD`].
    #[inline]
    pub(super) fn record_at(&self, position: u64) -> u32 {
        self.records[(position % SLOTS as u64) as usize]
    }

    /// Returns the positions of the jobs in the lane, oldest first.
    pub(super) fn held(&self) -> impl DoubleEndedIterator<Item = u64> {
        let open = self.producer.open_positions();
        open.filter(|&position| self.record_at(position) != NO_RECORD)
    }

    /// Returns the positions of the jobs that may run on another lane: all except those of actors.
    pub(super) fn movable(&self, records: &JobTable) -> impl DoubleEndedIterator<Item = u64> {
        let is_free = |record| records.look(record).owner.actor().is_none();
        self.held()
            .filter(move |&position| is_free(self.record_at(position)))
    }

    /// Returns true if a job of the lane that has not begun may run on another lane.
    pub(super) fn has_movable(&self, records: &JobTable) -> bool {
        if !self.is_ready || self.producer.open() < 2 {
            return false;
        }
        let first = self.producer.open_positions().start;
        self.actors == 0 || self.movable(records).any(|position| position != first)
    }

    /// Returns the position of the newest job that has begun, as the worker reports it.
    pub(super) fn begun(&self) -> Option<u64> {
        let mut newest_first = self.held().rev();
        newest_first.find(|&position| !self.producer.is_queued(position))
    }

    /// Returns true if there is an open job at this position.
    pub(super) fn holds(&self, position: u64) -> bool {
        self.producer.open_positions().contains(&position) && self.record_at(position) != NO_RECORD
    }

    /// Adds a request to the job at this position. If the job has ended, the next drain must find its end.
    pub(super) fn ask(&mut self, position: u64, request: u32) -> Ask {
        let asked = self.producer.ask(position, request);
        if asked == Ask::Over {
            self.reported_end = position;
        }
        asked
    }

    /// Takes the position of a job that had ended according to the worker, to check that the drain has found its end.
    #[inline]
    pub(super) fn take_reported_end(&mut self) -> Option<u64> {
        let position = std::mem::replace(&mut self.reported_end, u64::MAX);
        (position != u64::MAX).then_some(position)
    }

    /// Records that the job of this record was posted at this position.
    #[inline]
    pub(super) fn note(&mut self, position: u64, record: u32, expected_ns: u32) {
        let index = (position % SLOTS as u64) as usize;
        self.records[index] = record;
        self.expected[index] = expected_ns;
        self.backlog_ns += u64::from(expected_ns);
    }

    /// Removes the job at this position from its slot. Returns its record, or [`NO_RECORD`].
    #[inline]
    pub(super) fn take(&mut self, position: u64) -> u32 {
        let index = (position % SLOTS as u64) as usize;
        self.backlog_ns -= u64::from(std::mem::take(&mut self.expected[index]));
        std::mem::replace(&mut self.records[index], NO_RECORD)
    }

    /// Returns the total expected duration of the open jobs in nanoseconds.
    #[inline]
    pub(super) fn backlog_ns(&self) -> u64 {
        self.backlog_ns
    }

    /// Returns true if the lane's oldest job is the same as at the last tick.
    pub(super) fn stands_still(&self) -> bool {
        self.seen_at_tick == self.producer.open_positions().start
    }

    /// Records the oldest job, at a tick. If it was already the oldest at the last tick, extends its expected duration
    /// by at least `more_ns` and returns true.
    pub(super) fn tick(&mut self, more_ns: u32) -> bool {
        let oldest = self.producer.open_positions().start;
        let stuck = std::mem::replace(&mut self.seen_at_tick, oldest) == oldest;
        if stuck {
            self.expect_longer(oldest, more_ns);
        }
        stuck
    }

    /// Extends the expected duration of the job at this position by `more_ns`.
    pub(super) fn expect_longer(&mut self, position: u64, more_ns: u32) {
        let expected = &mut self.expected[(position % SLOTS as u64) as usize];
        let longer = expected.saturating_add(more_ns);
        self.backlog_ns += u64::from(longer - *expected);
        *expected = longer;
    }

    /// Forgets the oldest job of the last tick.
    pub(super) fn forget_tick(&mut self) {
        self.seen_at_tick = u64::MAX;
    }

    // ---- deadlines --------------------------------------------------------------------------

    /// Records that a job with a deadline was posted at this position.
    pub(super) fn add_timed(&mut self, position: u64) {
        self.timed.push_back(position);
    }

    /// Returns true if jobs with a deadline may be open.
    #[inline]
    pub(super) fn has_timed(&self) -> bool {
        !self.timed.is_empty()
    }

    /// Returns the deadline of the oldest open job, if its clock runs.
    pub(super) fn alarm(&self) -> Option<Alarm> {
        self.alarm
    }

    /// Starts or stops the clock of the oldest open job.
    pub(super) fn set_alarm(&mut self, alarm: Option<Alarm>) {
        self.alarm = alarm;
    }

    /// Postpones the deadline of the job whose clock runs.
    pub(super) fn postpone_alarm(&mut self, by: Duration) {
        if let Some(alarm) = &mut self.alarm {
            alarm.at = clock::postponed(alarm.at, by);
            alarm.since = clock::postponed(alarm.since, by);
            let before = alarm.stopped.map_or(Duration::ZERO, |(_, all)| all);
            alarm.stopped = Some((Instant::now(), before.saturating_add(by)));
        }
    }

    /// Returns what to do with the clock, after the oldest job or the next job with a deadline may have changed.
    /// Requests notice of the end of the job ahead of the next job with a deadline. Also returns whether that earlier
    /// job had ended already: then the monitor has to drain the lane before it blocks.
    pub(super) fn update_alarm(&mut self) -> (Clock, bool) {
        while let Some(&position) = self.timed.front()
            && !self.holds(position)
        {
            self.timed.pop_front();
        }
        if self.timed.len() > 2 * SLOTS {
            // While a long job without a deadline runs, any number of jobs with a deadline may be posted and taken
            // back.
            let mut timed = std::mem::take(&mut self.timed);
            timed.retain(|&position| self.holds(position));
            self.timed = timed;
        }
        let Some(&first) = self.timed.front() else {
            self.alarm = None;
            return (Clock::NotNeeded, false);
        };
        let open = self.producer.open_positions();
        let oldest = open.clone().find(|&position| self.holds(position));
        let runs = oldest == Some(first);
        let next = if runs {
            let later = self.timed.iter().skip(1);
            later.copied().find(|&position| self.holds(position))
        } else {
            Some(first)
        };
        let mut was_over = false;
        if let Some(next) = next {
            let before = (open.start..next)
                .rev()
                .find(|&position| self.holds(position));
            if let Some(before) = before
                && self.noticed != before
            {
                self.noticed = before;
                was_over = self.ask(before, NOTICE) == Ask::Over;
            }
        }
        if !runs {
            self.alarm = None;
            return (Clock::Unchanged, was_over);
        }
        match self.alarm {
            Some(alarm) if alarm.position == first => (Clock::Unchanged, was_over),
            _ => (Clock::Starts(first), was_over),
        }
    }

    // ---- output memory ----------------------------------------------------------------------

    pub(super) fn region(&self) -> u16 {
        self.grants.region()
    }

    pub(super) fn grants(&self) -> &Grants {
        &self.grants
    }

    pub(super) fn grants_mut(&mut self) -> &mut Grants {
        &mut self.grants
    }

    /// Grants a block to the worker.
    ///
    /// # Errors
    ///
    /// Returns the block if the link has no room for another grant now.
    pub(super) fn grant(&mut self, block: Block) -> Result<(), Block> {
        let number = self.producer.granted();
        let at = block.extent().at.offset();
        if !self.producer.grant(at, block.held(), block.is_fresh()) {
            return Err(block);
        }
        self.grants.add(number, block);
        Ok(())
    }

    /// Returns true if memory is to be granted ahead for jobs of a kernel that is known to need `bytes`.
    ///
    /// `shared`: whether lanes share the region.
    #[inline]
    pub(super) fn is_short_of(&self, bytes: u64, shared: bool) -> bool {
        let jobs = self.producer.open() as u64 + if shared { 1 } else { 2 };
        self.grants.ahead() < bytes.saturating_mul(jobs.min(8))
    }

    /// Grants memory of this length ahead. Returns whether the monitor has to be called to do it.
    #[cold]
    pub(super) fn top_up(&mut self, arena: &Arc<Arena>, len: u64) -> bool {
        let (block, call) = self.grants.find_ahead(arena, len);
        if let Some(block) = block {
            // If the link has no room for another grant, the lane has enough memory.
            drop(self.grant(block));
        }
        call
    }

    /// See [`Grants::receive`].
    pub(super) fn receive(
        &mut self,
        arena: &Arc<Arena>,
        reply: &Reply,
        sent: &[SentArray],
        leases: &[Lease],
    ) -> Result<Taken, String> {
        self.grants.receive(
            arena,
            reply.grant,
            reply.cursor,
            sent,
            leases,
            &self.retained,
        )
    }

    /// Returns the arrays whose handles in the worker outlive their job.
    pub(super) fn retained(&self) -> &RetainedArrays {
        &self.retained
    }

    pub(super) fn retained_mut(&mut self) -> &mut RetainedArrays {
        &mut self.retained
    }

    pub(super) fn link_and_retained(&mut self) -> (&mut Producer, &mut RetainedArrays) {
        (&mut self.producer, &mut self.retained)
    }

    // ---- how many jobs a generation may have ------------------------------------------------

    /// Returns the number of free slots, or 0 while no job may be posted.
    #[inline]
    pub(super) fn room(&self) -> usize {
        if self.producer.tail() >= self.until {
            return 0;
        }
        self.producer.free_slots()
    }

    /// Returns true if there is room for a job of this expected duration, and the lane has not too much work ahead of
    /// it.
    #[inline]
    pub(super) fn fits(&self, expected_ns: u32) -> bool {
        self.is_ready
            && self.room() > 0
            && (self.producer.open() < 2 || self.backlog_ns + u64::from(expected_ns) <= DEPTH_NS)
    }

    /// Sets whether no job may be posted because memory is short.
    pub(super) fn set_paused(&mut self, paused: bool) {
        self.is_paused = paused;
        self.set_until();
    }

    /// Returns true if no job may be posted because one job has, or will have, the worker to itself.
    pub(super) fn is_exclusive(&self) -> bool {
        self.is_exclusive
    }

    pub(super) fn set_exclusive(&mut self, exclusive: bool) {
        self.is_exclusive = exclusive;
        self.set_until();
    }

    fn set_until(&mut self) {
        self.until = if self.is_paused || self.is_exclusive {
            0
        } else {
            self.last
        };
    }

    /// Begins the next generation of the worker, which may have this number of jobs on this lane.
    pub(super) fn begin_generation(&mut self, jobs: u64) {
        self.share = self.producer.tail().saturating_add(jobs);
        self.last = self.share;
        self.set_until();
        self.jobs_before = self.jobs;
    }

    /// Lets the present generation have another job in the place of one that was taken back.
    pub(super) fn return_share(&mut self) {
        self.share = self.share.saturating_add(1);
        self.last = self.last.saturating_add(1);
        self.set_until();
    }

    /// Sets whether the worker stays while it hosts actors, or is recycled after its share of jobs.
    pub(super) fn set_stays(&mut self, stays: bool) {
        self.last = if stays { u64::MAX } else { self.share };
        self.set_until();
    }

    /// Returns true if the present generation has had, and ended, all jobs that it may have on this lane.
    #[inline]
    pub(super) fn has_served(&self) -> bool {
        self.producer.tail() >= self.last && self.is_idle()
    }

    /// Counts a job that ended on this lane.
    #[inline]
    pub(super) fn count_job(&mut self) {
        self.jobs += 1;
    }

    /// Reverses the last count, because the reply was wrong.
    pub(super) fn uncount_job(&mut self) {
        self.jobs -= 1;
    }

    /// Returns the number of jobs that ended on this lane in all generations.
    pub(super) fn jobs(&self) -> u64 {
        self.jobs
    }

    /// Returns the number of jobs that ended on this lane in the present generation.
    pub(super) fn jobs_of_generation(&self) -> u64 {
        self.jobs - self.jobs_before
    }

    // ---- actors -----------------------------------------------------------------------------

    /// Returns the number of actors whose state is hosted here.
    pub(super) fn actors(&self) -> usize {
        self.actors
    }

    /// Counts an actor. Called only by [`Lanes::host`](super::lanes::Lanes::host).
    pub(super) fn count_actor(&mut self) {
        self.actors += 1;
    }

    /// Removes an actor from the count. Called only by [`Lanes::unhost`](super::lanes::Lanes::unhost).
    pub(super) fn uncount_actor(&mut self) {
        self.actors -= 1;
    }

    // ---- the end of a generation ------------------------------------------------------------

    /// Frees all granted and retained memory. Called only after the exit of the worker is confirmed.
    pub(super) fn revoke(&mut self, arena: &Arena) {
        self.retained.clear(arena);
        self.timed.clear();
        self.alarm = None;
        self.noticed = u64::MAX;
        self.grants.revoke();
    }

    /// Resets the link for the next process, whose first position comes after all posted positions.
    pub(super) fn reset(&mut self) {
        self.producer.reset();
        self.producer.cells().clear_notes();
        self.backlog_ns = 0;
        self.seen_at_tick = u64::MAX;
        self.is_condemned = false;
    }
}

#[cfg(test)]
impl Lane {
    /// Returns the records of the jobs in the lane, by slot.
    pub(super) fn records(&self) -> impl Iterator<Item = u32> {
        let records = self.records.iter().copied();
        records.filter(|&record| record != NO_RECORD)
    }
}
