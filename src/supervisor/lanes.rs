//! The lanes of an engine, and what is counted over all of them.

use std::iter::StepBy;
use std::ops::{Index, IndexMut, Range};
use std::slice;

use super::lane::Lane;

/// All lanes. Lane `n` is one of worker `n` modulo the number of workers, so lanes taken in order are spread over the
/// workers.
#[derive(Debug)]
pub(super) struct Lanes {
    lanes: Vec<Lane>,
    workers: usize,
    /// A bit for each lane that has work. A lane whose work has ended may still have it.
    busy: Vec<u64>,
    /// A bit for each lane that retains arrays, whose releases are to be noticed.
    retaining: Vec<u64>,
    /// A bit for each lane that has got jobs since the lock was taken, and is rung before it is released.
    unrung: Vec<u64>,
    /// The lane that got work last.
    recent: usize,
    /// Jobs in slots.
    open: usize,
    /// Lanes that take jobs.
    ready: usize,
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
        }
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.lanes.len()
    }

    pub(super) fn get(&self, lane: usize) -> Option<&Lane> {
        self.lanes.get(lane)
    }

    pub(super) fn iter(&self) -> slice::Iter<'_, Lane> {
        self.lanes.iter()
    }

    pub(super) fn iter_mut(&mut self) -> slice::IterMut<'_, Lane> {
        self.lanes.iter_mut()
    }

    /// The lanes of a worker.
    #[inline]
    pub(super) fn of_worker(&self, worker: usize) -> StepBy<Range<usize>> {
        lanes_of(worker, self.workers, self.lanes.len())
    }

    /// The worker of a lane.
    #[inline]
    pub(super) fn worker_of(&self, lane: usize) -> usize {
        lane % self.workers
    }

    /// Lanes of each worker.
    pub(super) fn per_worker(&self) -> usize {
        self.lanes.len() / self.workers
    }

    /// Jobs in slots.
    #[inline]
    pub(super) fn open(&self) -> usize {
        self.open
    }

    /// Lanes that take jobs.
    #[inline]
    pub(super) fn ready(&self) -> usize {
        self.ready
    }

    /// The lane that got work last.
    #[inline]
    pub(super) fn recent(&self) -> usize {
        self.recent
    }

    /// Lanes that have work, or had when they were last drained.
    pub(super) fn busy(&self) -> usize {
        self.busy
            .iter()
            .map(|word| word.count_ones() as usize)
            .sum()
    }

    /// Words of the set that [`drained_word`](Lanes::drained_word) returns.
    #[inline]
    pub(super) fn busy_words(&self) -> usize {
        self.busy.len()
    }

    /// A bit for each of 64 lanes that is to be drained: it has work, or had when it was last drained, or retains
    /// arrays.
    #[inline]
    pub(super) fn drained_word(&self, word: usize) -> u64 {
        self.busy[word] | self.retaining[word]
    }

    /// Whether this lane retains arrays has changed.
    pub(super) fn note_retaining(&mut self, lane: usize) {
        let (word, bit) = (lane / 64, 1 << (lane % 64));
        match self.lanes[lane].retained().is_empty() {
            true => self.retaining[word] &= !bit,
            false => self.retaining[word] |= bit,
        }
    }

    /// Wakes the lanes that retain arrays where they sleep: they report what was released meanwhile.
    #[cold]
    pub(super) fn ring_retaining(&mut self) {
        for lane in &mut self.lanes {
            if !lane.retained().is_empty() {
                lane.producer.ring();
            }
        }
    }

    /// This lane is rung before the lock is released. To be called before a job is posted: whatever happens then, the
    /// worker learns of it.
    #[inline]
    pub(super) fn set_unrung(&mut self, lane: usize) {
        self.unrung[lane / 64] |= 1 << (lane % 64);
    }

    /// A job was posted in this lane. Returns the lane that got work last before, if that was another one.
    #[inline]
    pub(super) fn posted(&mut self, lane: usize) -> Option<usize> {
        self.open += 1;
        self.busy[lane / 64] |= 1 << (lane % 64);
        let before = std::mem::replace(&mut self.recent, lane);
        (before != lane).then_some(before)
    }

    /// A job has left its slot.
    #[inline]
    pub(super) fn left(&mut self) {
        self.open -= 1;
    }

    /// This lane has no work.
    #[inline]
    pub(super) fn set_idle(&mut self, lane: usize) {
        self.busy[lane / 64] &= !(1 << (lane % 64));
    }

    /// Whether the lanes of this worker take jobs.
    pub(super) fn set_ready(&mut self, worker: usize, ready: bool) {
        for lane in self.of_worker(worker) {
            let was = self.lanes[lane].set_ready(ready);
            self.ready = self.ready + usize::from(ready) - usize::from(was);
        }
    }

    /// Wakes the workers of lanes that have got jobs, where they sleep.
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

impl Index<usize> for Lanes {
    type Output = Lane;

    #[inline]
    fn index(&self, lane: usize) -> &Lane {
        &self.lanes[lane]
    }
}

impl IndexMut<usize> for Lanes {
    #[inline]
    fn index_mut(&mut self, lane: usize) -> &mut Lane {
        &mut self.lanes[lane]
    }
}

/// The numbers of a worker's lanes: see [`Lanes`].
#[inline]
pub(super) fn lanes_of(worker: usize, workers: usize, lanes: usize) -> StepBy<Range<usize>> {
    (worker..lanes).step_by(workers)
}
