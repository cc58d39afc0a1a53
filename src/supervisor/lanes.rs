//! The lanes of an engine, and their totals.

use std::iter::StepBy;
use std::ops::{Deref, DerefMut, Range};

use super::job_table::JobTable;
use super::lane::{DEPTH_NS, Lane};

/// A lane with less backlog than this is expected to have room soon. A new actor waits for such a lane, so that actors
/// that are created at the same time are spread.
const SOON_NS: u64 = 40 * DEPTH_NS;

/// All lanes. Lane `n` belongs to worker `n` modulo the number of workers, so consecutive lanes are spread over the
/// workers.
#[derive(Debug)]
pub(super) struct Lanes {
    lanes: Vec<Lane>,
    workers: usize,
    /// A bit for each lane that has work. The bit of a lane whose work has ended is set until the lane is drained.
    busy: Vec<u64>,
    /// A bit for each lane that retains arrays. Such lanes are drained for their releases.
    retaining: Vec<u64>,
    /// A bit for each lane that got jobs since the lock was taken. These lanes are rung before the lock is released.
    unrung: Vec<u64>,
    /// The lane that got work last.
    recent: usize,
    /// Number of jobs in slots.
    open: usize,
    /// Number of lanes that accept jobs.
    ready: usize,
    /// The worker that is reserved for the first waiting exclusive job.
    reserved: Option<usize>,
}

impl Lanes {
    pub(super) fn new(lanes: Vec<Lane>, workers: usize) -> Self {
        let words = lanes.len().div_ceil(64);
        Self {
            lanes,
            workers,
            busy: vec![0; words],
            retaining: vec![0; words],
            unrung: vec![0; words],
            recent: 0,
            open: 0,
            ready: 0,
            reserved: None,
        }
    }

    /// Returns the lanes of a worker.
    #[inline]
    pub(super) fn of_worker(&self, worker: usize) -> StepBy<Range<usize>> {
        lanes_of(worker, self.workers, self.lanes.len())
    }

    /// Returns the worker of a lane.
    #[inline]
    pub(super) fn worker_of(&self, lane: usize) -> usize {
        lane % self.workers
    }

    /// Returns the number of workers.
    pub(super) fn workers(&self) -> usize {
        self.workers
    }

    /// Returns the number of lanes of each worker.
    pub(super) fn per_worker(&self) -> usize {
        self.lanes.len() / self.workers
    }

    /// Returns the number of jobs in slots.
    #[inline]
    pub(super) fn open(&self) -> usize {
        self.open
    }

    /// Returns the number of lanes that accept jobs.
    #[inline]
    pub(super) fn ready(&self) -> usize {
        self.ready
    }

    /// Returns the lane that got work last.
    #[inline]
    pub(super) fn recent(&self) -> usize {
        self.recent
    }

    /// Returns the number of lanes that have work, or had when they were last drained.
    pub(super) fn busy(&self) -> usize {
        self.busy
            .iter()
            .map(|word| word.count_ones() as usize)
            .sum()
    }

    /// Returns the number of words of the set that [`drained_word`](Lanes::drained_word) returns.
    #[inline]
    pub(super) fn busy_words(&self) -> usize {
        self.busy.len()
    }

    /// Returns a bit for each of 64 lanes: set if the lane has to be drained, because it has work, had work when it was
    /// last drained, or retains arrays.
    #[inline]
    pub(super) fn drained_word(&self, word: usize) -> u64 {
        self.busy[word] | self.retaining[word]
    }

    /// Updates whether this lane retains arrays.
    pub(super) fn note_retaining(&mut self, lane: usize) {
        let (word, bit) = (lane / 64, 1 << (lane % 64));
        match self.lanes[lane].retained().is_empty() {
            true => self.retaining[word] &= !bit,
            false => self.retaining[word] |= bit,
        }
    }

    /// Wakes the sleeping workers of lanes that retain arrays: they report the arrays that were released meanwhile.
    #[cold]
    pub(super) fn ring_retaining(&mut self) {
        for lane in &mut self.lanes {
            if !lane.retained().is_empty() {
                lane.producer.ring();
            }
        }
    }

    /// Marks this lane to be rung before the lock is released. Called before a job is posted, so that the worker finds
    /// the job whatever happens in between.
    #[inline]
    pub(super) fn set_unrung(&mut self, lane: usize) {
        self.unrung[lane / 64] |= 1 << (lane % 64);
    }

    /// Records that a job was posted to this lane. Returns the lane that had got work last until then, if it is another
    /// lane.
    #[inline]
    pub(super) fn posted(&mut self, lane: usize) -> Option<usize> {
        self.open += 1;
        self.busy[lane / 64] |= 1 << (lane % 64);
        let before = std::mem::replace(&mut self.recent, lane);
        (before != lane).then_some(before)
    }

    /// Records that a job has left its slot.
    #[inline]
    pub(super) fn left(&mut self) {
        self.open -= 1;
    }

    /// Records that this lane has no work.
    #[inline]
    pub(super) fn set_idle(&mut self, lane: usize) {
        self.busy[lane / 64] &= !(1 << (lane % 64));
    }

    /// Sets whether the lanes of this worker accept jobs.
    pub(super) fn set_ready(&mut self, worker: usize, ready: bool) {
        for lane in self.of_worker(worker) {
            let was = self.lanes[lane].set_ready(ready);
            self.ready = self.ready + usize::from(ready) - usize::from(was);
        }
    }

    /// Returns the number of jobs that all generations of this worker have finished.
    pub(super) fn jobs_of(&self, worker: usize) -> u64 {
        let lanes = self.of_worker(worker);
        lanes.map(|lane| self.lanes[lane].jobs()).sum()
    }

    /// Returns the number of jobs that the present generation of this worker has finished.
    pub(super) fn jobs_of_generation(&self, worker: usize) -> u64 {
        let jobs = |lane: usize| self.lanes[lane].jobs_of_generation();
        self.of_worker(worker).map(jobs).sum()
    }

    /// Begins the next generation of a worker, which may have this number of jobs, divided equally among its lanes.
    pub(super) fn begin_generation(&mut self, worker: usize, jobs: u64) {
        let lanes = self.per_worker() as u64;
        for (number, lane) in (0..).zip(self.of_worker(worker)) {
            let share = match jobs {
                u64::MAX => u64::MAX,
                jobs => jobs / lanes + u64::from(number < jobs % lanes),
            };
            self.lanes[lane].begin_generation(share);
        }
        self.forget_exclusive(worker);
    }

    /// Returns true if all lanes of a worker have had and ended their shares of jobs.
    pub(super) fn have_served(&self, worker: usize) -> bool {
        let mut lanes = self.of_worker(worker);
        lanes.all(|lane| self.lanes[lane].has_served())
    }

    /// Returns true if the job of this record is in a lane.
    pub(super) fn hold(&self, record: u32) -> bool {
        let holds = |lane: &Lane| lane.held().any(|at| lane.record_at(at) == record);
        self.lanes.iter().any(holds)
    }

    /// Sets whether no job may be posted because memory is short.
    pub(super) fn set_paused(&mut self, paused: bool) {
        self.lanes
            .iter_mut()
            .for_each(|lane| lane.set_paused(paused));
    }

    /// Wakes the sleeping workers of lanes that got jobs.
    #[inline]
    pub(super) fn ring_posted(&mut self) {
        for word in 0..self.unrung.len() {
            let mut left = std::mem::take(&mut self.unrung[word]);
            while left != 0 {
                let bit = left.trailing_zeros() as usize;
                left &= left - 1;
                self.lanes[word * 64 + bit].producer.ring_posted();
                crate::sync::point!("submit.rung");
            }
        }
    }
}

/// Exclusive jobs: jobs with a deadline, in an engine with several lanes per worker. If such a job exceeds its
/// deadline, its worker is killed, so nothing else runs there: the job is placed on a worker without open jobs, and no
/// other job is placed there until it ends. If no worker is free, the job waits, and one worker is reserved for it
/// while the others continue. A worker without actors is preferred, because their states would be lost with it.
impl Lanes {
    /// Returns the worker that is reserved for the first waiting exclusive job.
    pub(super) fn reserved(&self) -> Option<usize> {
        self.reserved
    }

    fn is_exclusive(&self, worker: usize) -> bool {
        // All lanes of a worker have the same value.
        self.lanes[worker].is_exclusive()
    }

    fn set_exclusive(&mut self, worker: usize, exclusive: bool) {
        for lane in self.of_worker(worker) {
            self.lanes[lane].set_exclusive(exclusive);
        }
    }

    /// Chooses a lane of a worker without open jobs. The caller posts an exclusive job there.
    pub(super) fn choose_exclusive(&mut self) -> Option<usize> {
        let reserved = self.reserved;
        let free = |&worker: &usize| {
            self.lanes[worker].is_ready()
                && (!self.is_exclusive(worker) || reserved == Some(worker))
                && self
                    .of_worker(worker)
                    .all(|lane| self.lanes[lane].is_idle())
        };
        let key = |&worker: &usize| (self.actors_of(worker) > 0, reserved != Some(worker));
        let worker = (0..self.workers).filter(free).min_by_key(key)?;
        if reserved == Some(worker) {
            self.unreserve();
        }
        let mut lanes = self.of_worker(worker);
        lanes.find(|&lane| self.lanes[lane].room() > 0)
    }

    /// Records that an exclusive job was posted to this lane.
    pub(super) fn begin_exclusive(&mut self, lane: usize) {
        self.set_exclusive(self.worker_of(lane), true);
    }

    /// Records that this lane has no job with a deadline any more: an exclusive job has ended.
    pub(super) fn end_exclusive(&mut self, lane: usize) {
        let worker = self.worker_of(lane);
        if self.is_exclusive(worker) && self.reserved != Some(worker) {
            self.set_exclusive(worker, false);
        }
    }

    /// Ends the reservation of a worker that has exited.
    pub(super) fn forget_exclusive(&mut self, worker: usize) {
        self.set_exclusive(worker, false);
        self.reserved.take_if(|reserved| *reserved == worker);
    }

    /// Reserves a worker, which then gets no new jobs, unless one is reserved already. Prefers a worker without actors,
    /// because actors get no calls meanwhile, and then the worker with the fewest jobs. The caller takes back the
    /// unbegun jobs of the returned worker.
    pub(super) fn reserve(&mut self) -> Option<usize> {
        if let Some(worker) = self.reserved {
            if self.lanes[worker].is_ready() {
                return None;
            }
            self.unreserve();
        }
        let may = |&worker: &usize| self.lanes[worker].is_ready() && !self.is_exclusive(worker);
        let key = |&worker: &usize| {
            let lanes = self.of_worker(worker);
            let jobs: usize = lanes.map(|lane| self.lanes[lane].producer.open()).sum();
            (self.actors_of(worker) > 0, jobs)
        };
        self.reserved = (0..self.workers).filter(may).min_by_key(key);
        self.set_exclusive(self.reserved?, true);
        self.reserved
    }

    /// Ends the reservation: no job waits for a worker of its own any more.
    pub(super) fn unreserve(&mut self) {
        if let Some(worker) = self.reserved.take() {
            self.set_exclusive(worker, false);
        }
    }
}

/// The states of actors.
impl Lanes {
    /// Returns the number of actors whose state is hosted in this worker.
    pub(super) fn actors_of(&self, worker: usize) -> usize {
        let lanes = self.of_worker(worker);
        lanes.map(|lane| self.lanes[lane].actors()).sum()
    }

    /// Chooses a lane for a new actor: the lane with the fewest actors, among these the lane whose worker has the
    /// fewest, then a lane without ordinary jobs, whose duration is unknown. Considers only lanes that have room or are
    /// expected to have room soon. Returns `None` if the best lane has no room yet.
    pub(super) fn choose_for_actor(&self, records: &JobTable) -> Option<usize> {
        let lanes = self.lanes.iter().enumerate();
        let soon = |lane: &Lane| lane.is_ready() && lane.room() > 0 && lane.backlog_ns() <= SOON_NS;
        let may = lanes.filter(|(_, lane)| lane.fits(0) || soon(lane));
        let best = may.min_by_key(|(index, lane)| {
            let beside = self.actors_of(self.worker_of(*index));
            let has_jobs = lane.movable(records).next().is_some();
            (lane.actors(), beside, has_jobs, *index)
        });
        let (index, lane) = best?;
        lane.fits(0).then_some(index)
    }

    /// Returns true if a waiting actor waits for the lane with the fewest actors although another lane has room. The
    /// monitor then checks whether the actor waits longer than expected.
    pub(super) fn pass_an_actor_by(&self, records: &JobTable) -> bool {
        self.lanes.iter().any(|lane| lane.fits(0)) && self.choose_for_actor(records).is_none()
    }

    /// Counts an actor that this lane hosts. Its worker is not recycled while it hosts any.
    pub(super) fn host(&mut self, lane: usize) {
        self.lanes[lane].count_actor();
        self.set_stays(self.worker_of(lane), true);
    }

    /// Removes an actor from the count.
    pub(super) fn unhost(&mut self, lane: usize) {
        self.lanes[lane].uncount_actor();
        let worker = self.worker_of(lane);
        self.set_stays(worker, self.actors_of(worker) > 0);
    }

    fn set_stays(&mut self, worker: usize, stays: bool) {
        for lane in self.of_worker(worker) {
            self.lanes[lane].set_stays(stays);
        }
    }
}

impl Deref for Lanes {
    type Target = [Lane];

    #[inline]
    fn deref(&self) -> &[Lane] {
        &self.lanes
    }
}

impl DerefMut for Lanes {
    #[inline]
    fn deref_mut(&mut self) -> &mut [Lane] {
        &mut self.lanes
    }
}

/// Returns the lanes of a worker: see [`Lanes`].
#[inline]
pub(super) fn lanes_of(worker: usize, workers: usize, lanes: usize) -> StepBy<Range<usize>> {
    (worker..lanes).step_by(workers)
}
