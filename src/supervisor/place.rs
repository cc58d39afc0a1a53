//! Chooses the lane for each job: placing, refilling, and moving jobs to idle lanes.

use super::config::Config;
use super::grants::Grants;
use super::lane::Lane;
use super::lanes::Lanes;
use super::lifecycle::Closing;
use super::queue::{Constraint, Queue};
use super::record::Stage;
use super::state::EngineState;
use crate::link::{BACKLOG, Call, LOW_SHIFT, NOTICE, SLOTS, SPILLED, SPIN, STEALABLE, STOP};

/// The cost of waking a sleeping worker. Less work than this is not worth a second worker.
const WAKE_NS: u64 = 25_000;
/// A job with a shorter expected duration is not worth a core of its own.
const TINY_NS: u32 = 10_000;
/// Jobs with a shorter expected duration do not need a lane each. The default expectation of a new kernel is longer.
const SHORT_NS: u32 = 100_000;
/// The remaining duration that is expected of a job that has not ended since the last tick.
const TICK_NS: u32 = 1_000_000;
/// Number of posted jobs after which a busy lane is drained again.
const DRAIN_EVERY: u64 = 32;

impl Lanes {
    /// Chooses the lane for a job of this expected duration: the lane that got work last, while its backlog is less
    /// than the cost of a wake-up; otherwise a lane without work; otherwise the lane with the shortest backlog.
    #[inline]
    pub(super) fn choose(
        &self,
        expected_ns: u32,
        queued: usize,
        submitter_is_idle: bool,
        config: &Config,
    ) -> Option<usize> {
        let recent = &self[self.recent()];
        let fits = |lane: &Lane| lane.fits(expected_ns);
        let behind = recent.backlog_ns() + u64::from(expected_ns);
        if fits(recent) && (recent.is_idle() || behind <= WAKE_NS) {
            return Some(self.recent());
        }
        self.choose_slow(&fits, expected_ns, queued, submitter_is_idle, config)
    }

    #[cold]
    fn choose_slow(
        &self,
        fits: &impl Fn(&Lane) -> bool,
        expected_ns: u32,
        queued: usize,
        submitter_is_idle: bool,
        config: &Config,
    ) -> Option<usize> {
        // A link that is full of tiny jobs does not justify waking another worker: its own worker empties it sooner,
        // unless one of the jobs turned out to be long.
        let recent = &self[self.recent()];
        let queued = queued as u64 * u64::from(expected_ns);
        if recent.is_ready()
            && recent.producer.free_slots() == 0
            && recent.backlog_ns() + queued < 4 * WAKE_NS
            && !recent.stands_still()
        {
            return None;
        }
        // The submitting thread needs a core too. While it submits many tiny jobs to one lane, waking one worker more
        // than there are spare cores would only take time from it. When it stops, the lane runs low and rings the
        // monitor, which places jobs without this restriction.
        let open = recent.producer.open() as u64;
        let streams = recent.is_ready()
            && recent.backlog_ns() < open * u64::from(TINY_NS)
            && !recent.stands_still();
        let crowded = streams
            && expected_ns < TINY_NS
            && !submitter_is_idle
            && self.busy() + 1 >= config.cores;
        let free = |lane: &&Lane| lane.is_idle() && fits(lane) && !crowded;
        let awake = |lane: &&Lane| !lane.producer.seems_asleep();
        let position = |wanted: &dyn Fn(&&Lane) -> bool| self.iter().position(|lane| wanted(&lane));
        let shortest = |wanted: &dyn Fn(&Lane) -> bool| {
            let lanes = self.iter().enumerate();
            let busy = |lane: &Lane| fits(lane) && !lane.is_idle() && wanted(lane);
            lanes
                .filter(|(_, lane)| busy(lane))
                .min_by_key(|(_, lane)| lane.backlog_ns())
                .map(|(index, _)| index)
        };
        // One lane per worker is enough for jobs that are known to be short: more lanes would wake threads that only
        // compete for the worker's core.
        if config.lanes_share_regions
            && expected_ns < SHORT_NS
            && self.busy() >= config.active_workers
            && let Some(busy) = shortest(&|lane| !lane.stands_still())
        {
            return Some(busy);
        }
        let found = match config.lanes_share_regions {
            true => self.spread(&|lane| free(&lane)),
            false => position(&|lane| free(lane) && awake(lane)).or_else(|| position(&free)),
        };
        found.or_else(|| shortest(&|_| true))
    }

    /// Chooses a free lane of the worker that has the fewest busy lanes. Prefers the first lane of a worker, because
    /// the others are not faster.
    fn spread(&self, free: &dyn Fn(&Lane) -> bool) -> Option<usize> {
        let workers = 0..self.workers();
        let best = workers.filter_map(|worker| {
            let lanes = || self.of_worker(worker).map(|lane| (lane, &self[lane]));
            let (first, _) = lanes().find(|(_, lane)| free(lane))?;
            let busy = lanes().filter(|(_, lane)| !lane.is_idle()).count();
            Some((busy, first))
        });
        best.min().map(|(_, lane)| lane)
    }

    /// Updates the flags of a lane after its state has changed.
    #[inline]
    pub(super) fn flag(&mut self, index: usize, queue: &Queue, config: &Config) {
        let more = queue.has_work();
        let spare = self.open() > self.ready();
        let spin = config.may_spin && index == self.recent();
        let lane = &mut self[index];
        if lane.producer.flags() & STOP != 0 {
            return;
        }
        let mut flags = if spin { SPIN } else { 0 } | if spare { STEALABLE } else { 0 };
        if more {
            // The lane rings when a quarter of its jobs is left, rounded to a power of two.
            let low = (lane.producer.open() as u32 / 4)
                .clamp(1, 64)
                .next_power_of_two();
            flags |= BACKLOG | low << LOW_SHIFT;
        }
        lane.producer.set_flags(flags);
    }

    /// Updates the flags of all lanes.
    pub(super) fn update_flags(&mut self, queue: &Queue, config: &Config) {
        for index in 0..self.len() {
            self.flag(index, queue, config);
        }
    }
}

impl EngineState {
    /// Posts the job of a record if a lane should get it now. Returns whether it was posted.
    #[inline]
    pub(super) fn place(&mut self, index: u32) -> bool {
        // Exclusive jobs that wait already go first.
        let must_wait = self.records.at(index).is_exclusive() && self.queue.has_exclusive();
        !must_wait && self.place_first(index)
    }

    /// Like [`place`](Self::place), for a job that goes ahead of all waiting jobs.
    #[inline]
    fn place_first(&mut self, index: u32) -> bool {
        let record = self.records.at(index);
        let chosen = if record.is_exclusive() {
            self.lanes.choose_exclusive()
        } else {
            let expected = self.kernels.get(record.kernel).expected_ns;
            let queued = self.queue.unbound();
            let is_watched = self.scheduler.submitter_is_idle();
            self.lanes
                .choose(expected, queued, is_watched, &self.config)
        };
        let Some(chosen) = chosen else {
            return false;
        };
        self.put(index, chosen);
        true
    }

    /// Takes the next job with this constraint from the queue and places it. Returns false if it cannot be placed: then
    /// it remains the next job.
    #[inline]
    fn place_next(&mut self, constraint: Constraint) -> bool {
        let Some(index) = self.queue.next_for(constraint, &self.records) else {
            return false;
        };
        let is_placed = self.place_first(index);
        if !is_placed {
            self.queue.push_front(index, self.records.at(index));
        }
        is_placed
    }

    /// Posts the job of a record to this lane, which has room.
    #[inline]
    pub(super) fn put(&mut self, index: u32, chosen: usize) {
        let record = self.records.at(index);
        let kernel = self.kernels.get(record.kernel);
        let expected = kernel.expected_ns;
        let bytes = kernel.expected_bytes;
        let offset = kernel.offset.unwrap_or_default();
        if bytes > 0 {
            let shared = self.config.lanes_share_regions;
            if self.lanes[chosen].is_short_of(bytes, shared) {
                // If the worker would then exceed its share of the arena, memory is not granted ahead: the worker
                // requests what it needs.
                let len = Grants::len_ahead(bytes, shared);
                let (lanes, arena) = (&mut self.lanes, &self.arena);
                if lanes.check_ahead(chosen, len, arena, &self.config).is_ok() {
                    self.monitor.call_if(lanes[chosen].top_up(arena, len));
                }
            }
        }
        let record = self.records.at(index);
        let mut words = record.len as usize;
        if record.form != 0 {
            if record.form & SPILLED != 0 {
                words = 2;
            }
            if let Some(trace) = self.trace.get() {
                trace.placed(index);
            }
        }
        // While the engine closes, the monitor is notified of every end: it waits for the last job, whichever thread
        // has placed it.
        let ending = if self.lifecycle.closing() == Closing::No {
            0
        } else {
            NOTICE
        };
        self.lanes.set_unrung(chosen);
        let lane = &mut self.lanes[chosen];
        let position = lane.producer.post(&Call {
            job: record.job,
            entry: offset,
            len: record.len,
            form: record.form,
            seed: record.seed,
            words: &record.payload[..words],
            requests: record.asked() | ending,
        });
        record.stage = Stage::Placed {
            lane: chosen as u32,
            position,
        };
        let record_has_policy = record.policy.is_some();
        lane.note(position, index, expected);
        crate::sync::point!("submit.noted");
        if let Some(before) = self.lanes.posted(chosen) {
            // Only the lane that got work last may spin.
            self.lanes.flag(before, &self.queue, &self.config);
        }
        self.lanes.flag(chosen, &self.queue, &self.config);
        if record_has_policy {
            let (records, monitor) = (&self.records, &mut self.monitor);
            self.lanes
                .watch_if_timed((index, chosen, position), records, monitor);
        }
        let lane = &mut self.lanes[chosen];
        lane.producer.ring_early();
        // If a job waits for another one while a lane is idle, the monitor checks soon whether to move it.
        let is_behind = lane.producer.open() > 1;
        if is_behind && !self.monitor.ticks() && self.lanes.open() < self.lanes.ready() * 2 {
            self.monitor.start_ticking();
        }
        if position.is_multiple_of(DRAIN_EVERY) && self.lanes[chosen].producer.open() > SLOTS / 4 {
            self.drain(chosen);
        }
    }

    /// Places queued jobs while lanes have room for them.
    pub(super) fn refill(&mut self) {
        if self.runs.has_pending_work() {
            self.process_ends();
        }
        if self.scheduler.is_low_on_memory() {
            return self.refill_one_at_a_time();
        }
        let exclusive_last = self.queue.exclusive_goes_last();
        if self.queue.has_exclusive() && !exclusive_last {
            self.place_exclusive(true);
        }
        let actors_first = self.queue.take_actors_first();
        if actors_first {
            self.feed_actors(usize::MAX);
        }
        let before = self.queue.unbound() == 0;
        while self.place_next(Constraint::Any) {}
        if before != (self.queue.unbound() == 0) {
            self.lanes.update_flags(&self.queue, &self.config);
        }
        if !actors_first && self.queue.has_actors() {
            self.feed_actors(usize::MAX);
        }
        if exclusive_last {
            self.queue.set_exclusive_last(false);
            // This reserves no worker yet: the jobs that were just placed there would be taken back.
            self.place_exclusive(false);
        }
    }

    /// While memory is short: places one job if no job runs.
    #[cold]
    fn refill_one_at_a_time(&mut self) {
        if self.lanes.open() > 0 {
            return;
        }
        let is_empty = self.queue.unbound() == 0;
        let actors = self.queue.take_actors_first() || is_empty && self.queue.has_actors();
        if is_empty && !actors {
            return;
        }
        self.lanes.set_paused(false);
        if actors {
            self.feed_actors(1);
        } else {
            let order = match self.queue.exclusive_goes_last() {
                true => [Constraint::Any, Constraint::WholeWorker],
                false => [Constraint::WholeWorker, Constraint::Any],
            };
            let placed = order.into_iter().find(|&next| self.place_next(next));
            let is_exclusive = placed == Some(Constraint::WholeWorker);
            self.queue.set_exclusive_last(is_exclusive);
            if !self.queue.has_exclusive() {
                self.lanes.unreserve();
            }
        }
        self.lanes.set_paused(true);
        if !is_empty && self.queue.unbound() == 0 {
            self.lanes.update_flags(&self.queue, &self.config);
        }
    }

    /// Places waiting exclusive jobs on workers without other jobs. If `reserve` and an exclusive job remains, reserves
    /// a worker for it, and takes back the unbegun jobs of that worker.
    #[cold]
    fn place_exclusive(&mut self, reserve: bool) {
        while self.place_next(Constraint::WholeWorker) {
            self.queue.set_exclusive_last(true);
        }
        if !self.queue.has_exclusive() {
            self.lanes.unreserve();
        } else if reserve && let Some(worker) = self.lanes.reserve() {
            self.reclaim(self.lanes.of_worker(worker));
        }
    }

    /// Moves jobs that wait for a long job to lanes without work, and finds other lanes for actors that wait too long.
    /// `tick`: time has passed since the last call with `tick`, so a job that still runs counts as long.
    pub(super) fn even_out(&mut self, tick: bool) {
        let idle = self
            .lanes
            .iter()
            .filter(|lane| lane.is_ready() && lane.is_idle() && lane.room() > 0)
            .count();
        let mut waiting = false;
        let passed_by = self.queue.waits_for_host() && self.lanes.pass_an_actor_by(&self.records);
        for index in 0..self.lanes.len() {
            let behind = idle > 0 && self.lanes[index].has_movable(&self.records);
            let lane = &mut self.lanes[index];
            let awaited = passed_by && lane.is_ready() && !lane.is_idle();
            if !behind && !awaited {
                lane.forget_tick();
                continue;
            }
            waiting = true;
            // A job that still runs at the next tick counts as long: no more jobs should be posted after it.
            let stuck = tick && lane.tick(TICK_NS);
            if behind && (stuck || lane.backlog_ns() > 4 * WAKE_NS) {
                self.share_out(index, idle);
            }
        }
        self.monitor.keep_ticking(waiting, tick);
        self.refill();
        // Lanes that got no job also have to know that others have jobs to spare.
        self.lanes.update_flags(&self.queue, &self.config);
    }

    /// Takes back a fair share of the jobs that a lane has not begun, newest first.
    fn share_out(&mut self, index: usize, idle: usize) {
        let lane = &self.lanes[index];
        // Retracted slots do not count: the worker has not skipped them yet.
        let ahead = lane.held().count().saturating_sub(1);
        let share = (ahead * idle).div_ceil(idle + 1);
        let newest = lane.movable(&self.records).rev().take(share);
        for position in newest.collect::<Vec<_>>() {
            let record = self.lanes[index].record_at(position);
            if !self.take_back(index, position) {
                break;
            }
            self.requeue(record);
        }
    }
}
