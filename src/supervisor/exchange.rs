//! Many jobs under one lock: calls in, answers out; and waiting for the first of several jobs.

use std::collections::VecDeque;
use std::task::Waker;
use std::time::Duration;

use super::Shared;
use super::actor::actor_of;
use super::bell::{Words, park_until};
use super::core::{Core, Read};
use super::error::JobError;
use super::lane::NOBODY;
use super::lock::wake_all;
use super::options::JobOptions;
use super::record::{AWAITED, JobId, Stage};
use crate::kernel::wire::ArgWriter;
use crate::kernel::{CallWriter, KernelInfo};
use crate::link::{Ask, NOTICE, WAITER};
use crate::sys::futex;

/// What each result of a map comes with: `()` in the order of the items, the index of its item (`usize`) in the order in which
/// jobs end. Sealed.
pub trait ResultKey: Copy {
    /// Results are taken in the order of the items.
    #[doc(hidden)]
    const ORDERED: bool;
    /// A result with its key, as the map gives it.
    type Item<T>;
    /// The key of the item with this index.
    #[doc(hidden)]
    fn of(index: usize) -> Self;
    /// The index of the item; `None` if the order says it.
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

/// The jobs of a map that have been sent, and the answers that nobody has fetched.
#[derive(Debug)]
pub(crate) struct Flight<K, R> {
    pub(crate) open: VecDeque<(K, JobId)>,
    pub(crate) done: VecDeque<(K, Result<R, JobError>)>,
    /// Jobs that were ever sent.
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
    /// Neither jobs nor answers.
    pub(crate) fn is_over(&self) -> bool {
        self.open.is_empty() && self.done.is_empty()
    }
}

/// What is expected of a kernel's jobs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outlook {
    /// Jobs worth keeping in flight.
    pub(crate) window: usize,
    /// How long one takes, in nanoseconds.
    pub(crate) expected_ns: u32,
    /// Output memory that one takes; `None` while nobody knows.
    pub(crate) bytes: Option<u64>,
}

impl Shared {
    /// Sends calls of one kernel in order, and takes the answers that have come: those at the front, or all. One lock for
    /// all of it. Returns how many calls were sent: all, but where there is a ceiling; then, if `wait`, at least one, unless
    /// some are in flight, which are to be waited for.
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
            // Otherwise each takes memory when it is let in.
            calls.iter_mut().for_each(|call| self.spill(&mut call.0));
        }
        let mut core = self.lock();
        let before = flight.sent;
        // First: a lane whose ended jobs nobody has taken looks as if it stood still, and then another one is woken.
        core.drain_busy();
        core.refill();
        for call in calls {
            let submit =
                |core: &mut Core, call: &mut ArgWriter| core.submit(kernel, call, 0, options);
            let id = if core.admission.is_none() {
                submit(&mut core, &mut call.0)
            } else if let Some(entry) = core.enter_now(kernel, &call.0) {
                let (entered, id) = self.submit_let_in(core, &mut call.0, entry, submit);
                core = entered;
                id
            } else if wait && flight.is_over() {
                let (admitted, id) = self.submit_admitted(core, kernel, &mut call.0, submit);
                core = admitted;
                id
            } else {
                break;
            };
            flight.open.push_back((K::of(flight.sent), id));
            flight.sent += 1;
        }
        if K::ORDERED {
            while let Some(&(key, id)) = flight.open.front()
                && let Some(answer) = core.try_take(id, read)
            {
                flight.open.pop_front();
                flight.done.push_back((key, answer));
            }
        } else {
            let done = &mut flight.done;
            flight
                .open
                .retain(|&(key, id)| match core.try_take(id, read) {
                    Some(answer) => {
                        done.push_back((key, answer));
                        false
                    }
                    None => true,
                });
        }
        self.unlock(core);
        flight.sent - before
    }

    /// What is known of a kernel's jobs.
    pub(crate) fn outlook(&self, kernel: &KernelInfo) -> Outlook {
        let mut core = self.lock();
        let index = core.kernels.index(kernel);
        let kernel = core.kernels.get(index);
        Outlook {
            window: self.window(kernel.expected_ns),
            expected_ns: kernel.expected_ns,
            bytes: (kernel.calls > 0).then_some(kernel.expected_bytes),
        }
    }

    /// Which of these jobs has ended; if none has, the waker is called when one does. To be asked again then.
    pub(crate) fn poll_any<I>(&self, ids: I, waker: &Waker) -> Option<usize>
    where
        I: Iterator<Item = JobId> + Clone,
    {
        self.poll_any_beside(ids, waker, None, &mut Vec::new())
    }

    /// The same where tasks may wait for these jobs: their wakers, which were in the way, are to be put back. And for a thread
    /// that may sleep on words: where there is one that its worker wakes, that is all that tells of an end.
    pub(crate) fn poll_any_beside<'s, I>(
        &'s self,
        ids: I,
        waker: &Waker,
        words: Option<&mut Words<'s>>,
        displaced: &mut Vec<(JobId, Waker)>,
    ) -> Option<usize>
    where
        I: Iterator<Item = JobId> + Clone,
    {
        // Wakers are foreign code: they are cloned and dropped outside the lock.
        let mut wakers: Vec<_> = ids.clone().map(|_| Some(waker.clone())).collect();
        let mut words = words.filter(|_| futex::has_wait_any());
        let mut core = self.lock();
        if words.is_some() {
            // It is awake: what is put into a lane now has a word on which it will sleep.
            core.await_no_more(ids.clone());
        }
        let mut ended = core.look_for_end(ids.clone());
        if ended.is_none() {
            for (id, waker) in ids.clone().zip(&mut wakers) {
                std::mem::swap(&mut core.records.get(id).waker, waker);
            }
            let waits_for = if words.is_some() { AWAITED } else { NOTICE };
            for (lane, position) in core.first_ends(ids.clone(), waits_for) {
                // Over already: found below.
                let lane_of = &mut core.lanes[lane];
                match &mut words {
                    Some(words) if words.has_room() => {
                        if let Ask::Set(value) = lane_of.ask(position, WAITER) {
                            let word = self.cells[lane].state(position).as_futex();
                            words.push(word, value);
                        }
                    }
                    _ => _ = lane_of.ask(position, NOTICE),
                }
            }
            core.be_watched();
            // What ended before it was asked is found here.
            ended = core.look_for_end(ids.clone());
            if ended.is_some() {
                core.await_no_more(ids.clone());
            }
        }
        self.unlock(core);
        for (id, other) in ids.zip(wakers) {
            displaced.extend(
                other
                    .filter(|other| !other.will_wake(waker))
                    .map(|other| (id, other)),
            );
        }
        ended
    }

    /// Puts wakers back; those of jobs that have ended meanwhile are called.
    pub(crate) fn put_back(&self, mut displaced: Vec<(JobId, Waker)>) {
        if displaced.is_empty() {
            return;
        }
        let mut core = self.lock();
        let ended = displaced.extract_if(.., |(id, waker)| {
            let record = core.records.get(*id);
            let ended = record.stage == Stage::Answered;
            if !ended && let Some(ours) = &mut record.waker {
                std::mem::swap(ours, waker);
            }
            ended
        });
        let ended: Vec<_> = ended.collect();
        self.unlock(core);
        wake_all(ended.into_iter().map(|(_, waker)| waker));
    }

    /// Whether one of these jobs has ended, and which.
    pub(crate) fn look_any(&self, ids: impl Iterator<Item = JobId>) -> Option<usize> {
        let mut core = self.lock();
        let ended = core.look_for_end(ids);
        self.unlock(core);
        ended
    }

    /// Waits until one of these jobs has ended; `None` if the time runs out before.
    pub(crate) fn wait_any<I>(&self, ids: I, limit: Option<Duration>) -> Option<usize>
    where
        I: Iterator<Item = JobId> + Clone,
    {
        let ended = park_until(limit, |waker, words| {
            self.poll_any_beside(ids.clone(), waker, Some(words), &mut Vec::new())
        });
        if ended.is_none() {
            self.lock().await_no_more(ids);
        }
        ended
    }
}

impl Core {
    /// Takes what lanes have finished, and looks for a job that has ended.
    fn look_for_end(&mut self, mut ids: impl Iterator<Item = JobId>) -> Option<usize> {
        self.drain_busy();
        self.refill();
        ids.position(|id| self.records.get(id).stage == Stage::Answered)
    }

    /// No thread sleeps for any of these jobs.
    fn await_no_more(&mut self, ids: impl Iterator<Item = JobId>) {
        for id in ids {
            self.records.get(id).requests &= !AWAITED;
        }
    }

    /// Somebody waits for the first end among these jobs: where that may be seen, by lane and position. A lane ends its jobs in
    /// order, so the oldest one in each is enough, unless it [goes on](Core::notice_behind); one that is posted later says so by
    /// itself, as all of them `wait_for`. The oldest call of an actor is asked as well: it stays where it is when those before it
    /// are given to a lane without work.
    fn first_ends(
        &mut self,
        ids: impl Iterator<Item = JobId>,
        waits_for: u32,
    ) -> Vec<(usize, u64)> {
        let mut oldest = vec![[None; 2]; self.lanes.len()];
        for id in ids {
            let record = self.records.get(id);
            record.requests |= waits_for;
            if let Stage::Placed { link, position } = record.stage {
                let stays = actor_of(record.group).is_some();
                let oldest: &mut Option<u64> = &mut oldest[link as usize][usize::from(stays)];
                *oldest = Some(oldest.map_or(position, |other| other.min(position)));
            }
        }
        let oldest = oldest.into_iter().enumerate();
        oldest
            .flat_map(|(lane, positions)| {
                let positions = positions.into_iter().flatten();
                positions.map(move |position| (lane, position))
            })
            .collect()
    }

    /// This job's end in this lane may be no answer: it waits for its next attempt, or for what it has spawned. Then nobody who
    /// waits for the first of several has been told, and those behind it in the lane, which were not asked, are.
    pub(super) fn notice_behind(&mut self, lane: usize, index: u32) {
        let record = self.records.look(index);
        let goes_on = matches!(record.stage, Stage::Waiting | Stage::Spawned { .. });
        if !goes_on || !record.is_noticed() {
            return;
        }
        let lane = &mut self.lanes[lane];
        for position in lane.producer.open_positions() {
            let behind = lane.record_at(position);
            if behind != NOBODY && self.records.look(behind).is_noticed() {
                // Over already: the drain that is under way finds it.
                let _: Ask = lane.ask(position, NOTICE);
            }
        }
    }
}
