//! Submits the jobs of a map and takes their answers in batches, to lock the engine less often.

use std::collections::VecDeque;

use super::admission::exclusive_bytes;
use super::answer::TakenAnswer;
use super::error::JobError;
use super::lane::DEPTH_NS;
use super::options::JobOptions;
use super::owner::Owner;
use super::record::JobId;
use super::reply::Read;
use super::shared::Supervisor;
use crate::kernel::{CallWriter, KernelInfo};
use crate::link::SLOTS;

/// The key that each result of a map is returned with: `()` in the order of the items, the item's index (`usize`) in
/// the order in which jobs end. Sealed.
pub trait ResultKey: Copy {
    /// Results are taken in the order of the items.
    #[doc(hidden)]
    const ORDERED: bool;
    /// A result with its key, in the form that the map returns.
    type Item<T>;
    /// Returns the key of the item with this index.
    #[doc(hidden)]
    fn of(index: usize) -> Self;
    /// Returns the index of the item. `None` if the order of the results determines it.
    #[doc(hidden)]
    fn index(self) -> Option<usize>;
    #[doc(hidden)]
    fn item<T>(self, result: T) -> Self::Item<T>;
}

impl ResultKey for () {
    const ORDERED: bool = true;
    type Item<T> = T;
    fn of(_: usize) {}
    fn index(self) -> Option<usize> {
        None
    }
    fn item<T>(self, result: T) -> T {
        result
    }
}

impl ResultKey for usize {
    const ORDERED: bool = false;
    type Item<T> = (usize, T);
    fn of(index: usize) -> Self {
        index
    }
    fn index(self) -> Option<usize> {
        Some(self)
    }
    fn item<T>(self, result: T) -> (usize, T) {
        (self, result)
    }
}

/// The submitted jobs of a map, and the answers that were taken and not returned yet.
#[derive(Debug)]
pub(crate) struct Flight<K, R> {
    pub(crate) open: VecDeque<(K, JobId)>,
    pub(crate) done: VecDeque<(K, Result<R, JobError>)>,
    /// Number of jobs submitted so far.
    pub(crate) sent: usize,
}

impl<K, R> Default for Flight<K, R> {
    fn default() -> Self {
        Self {
            open: VecDeque::new(),
            done: VecDeque::new(),
            sent: 0,
        }
    }
}

impl<K, R> Flight<K, R> {
    /// Returns true if there are neither jobs nor answers.
    pub(crate) fn is_over(&self) -> bool {
        self.open.is_empty() && self.done.is_empty()
    }
}

/// The expected duration and memory of a kernel's jobs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outlook {
    /// Number of jobs to have in flight.
    pub(crate) window: usize,
    /// Duration of a job in nanoseconds.
    pub(crate) expected_ns: u32,
    /// Memory of a job's result in bytes. `None` before the first job has ended.
    pub(crate) bytes: Option<u64>,
}

/// For an ordered map: the maximum number of jobs in flight per lane.
const IN_ORDER_PER_LANE: u64 = 8;
/// For an ordered map: the maximum expected time of the jobs in flight of one lane, in nanoseconds.
const IN_ORDER_NS: u64 = 50_000_000;
/// For an ordered map: the maximum number of bytes of the jobs in flight.
const IN_ORDER_BYTES: u64 = 64 << 20;
/// For an ordered map: the bytes of the jobs in flight are at most the arena's capacity divided by this.
const PART_IN_ORDER: u64 = 16;

/// For a map with more than two jobs per lane: the bytes in flight are at most the arena's capacity divided by this.
const PART_IN_FLIGHT: u64 = 4;

impl Supervisor {
    /// Submits calls of one kernel in order, and takes the answers that have arrived. If `K` is ordered, takes an
    /// answer only after those of all earlier items. Locks the engine once. Returns the number of submitted calls,
    /// which is smaller than the number of calls only if there is a ceiling on bytes in flight. With a ceiling and
    /// `wait`, submits at least one call if the map has no job in flight.
    pub(crate) fn exchange<K: ResultKey, R>(
        &self,
        kernel: &KernelInfo,
        options: Option<&JobOptions>,
        calls: &mut [CallWriter],
        flight: &mut Flight<K, R>,
        read: Read<R>,
        wait: bool,
    ) -> usize {
        if !self.has_ceiling() {
            // With a ceiling, a call gets memory when it is admitted.
            calls.iter_mut().for_each(|call| self.spill(&mut call.0));
        }
        let mut state = self.lock();
        let before = flight.sent;
        // Drains first: the jobs of an undrained lane look as if they were running, and another worker would be woken.
        state.catch_up();
        let index = state.kernels.index(kernel);
        for call in calls {
            let (call, owner) = (&mut call.0, Owner::Handle);
            let id = if state.admission.is_none() {
                state.submit(kernel, call, owner, options)
            } else if let Ok(entry) = { state.admit(index, exclusive_bytes(call), None) } {
                let (entered, id) =
                    self.submit_with_admission(state, kernel, call, owner.into(), options, entry);
                state = entered;
                id
            } else if wait && flight.is_over() {
                let (admitted, id) =
                    self.submit_admitted(state, kernel, call, owner.into(), options);
                state = admitted;
                id
            } else {
                break;
            };
            flight.open.push_back((K::of(flight.sent), id));
            flight.sent += 1;
        }
        // Values to read without the lock: for an ordered map only the first, otherwise all.
        let mut unread = Vec::new();
        if K::ORDERED {
            while unread.is_empty()
                && let Some(&(key, id)) = flight.open.front()
                && let Some(taken) = state.take(id, read)
            {
                flight.open.pop_front();
                match taken {
                    TakenAnswer::Read(answer) => flight.done.push_back((key, answer)),
                    taken @ TakenAnswer::Unread(_) => unread.push((key, taken)),
                }
            }
        } else {
            let done = &mut flight.done;
            flight.open.retain(|&(key, id)| match state.take(id, read) {
                Some(TakenAnswer::Read(answer)) => {
                    done.push_back((key, answer));
                    false
                }
                Some(taken @ TakenAnswer::Unread(_)) => {
                    unread.push((key, taken));
                    false
                }
                None => true,
            });
        }
        self.unlock(state);
        for (key, taken) in unread {
            let answer = self.read(taken, read);
            flight.done.push_back((key, answer));
        }
        flight.sent - before
    }

    /// Returns the expected duration and memory of a kernel's jobs.
    pub(crate) fn outlook(&self, kernel: &KernelInfo) -> Outlook {
        let mut state = self.lock();
        let index = state.kernels.index(kernel);
        let kernel = state.kernels.get(index);
        Outlook {
            window: self.window(kernel.expected_ns),
            expected_ns: kernel.expected_ns,
            bytes: (kernel.calls > 0).then_some(kernel.expected_bytes),
        }
    }

    /// Returns the number of jobs to have in flight for a kernel whose jobs take this time: enough that no worker
    /// becomes idle.
    fn window(&self, expected_ns: u32) -> usize {
        let lanes = self.active_lanes();
        // Twice the depth of a lane, because results may have to wait for an earlier result, and at least two jobs per
        // lane.
        let depth_ns = 2 * DEPTH_NS / u64::from(expected_ns.max(1));
        let per_lane = (depth_ns as usize).clamp(2, SLOTS);
        // Additional tiny jobs would only wait in the queue.
        (per_lane * lanes).clamp(2 * lanes, SLOTS.max(2 * lanes))
    }

    /// Returns the number of jobs of a map that may be in flight if each takes `each` bytes. The rest of the arena is
    /// for the source of the map and for other jobs.
    pub(crate) fn window_in_memory(&self, each: u64) -> usize {
        let bytes = self.arena.capacity() / PART_IN_FLIGHT;
        usize::try_from(bytes / each.max(1))
            .unwrap_or(usize::MAX)
            .max(2 * self.active_lanes())
    }

    /// Returns the number of jobs that may be in flight if answers are taken in order and each job occupies `each`
    /// bytes. While a long job delays the answers of later items, workers have to continue.
    pub(crate) fn window_in_order(&self, expected_ns: u32, each: u64) -> usize {
        let bytes = (self.arena.capacity() / PART_IN_ORDER).min(IN_ORDER_BYTES);
        // Jobs that other threads submit later wait until all of these have begun.
        let per_lane = (IN_ORDER_NS / u64::from(expected_ns.max(1))).min(IN_ORDER_PER_LANE);
        (bytes / each.max(1)).min(per_lane * self.active_lanes() as u64) as usize
    }
}
