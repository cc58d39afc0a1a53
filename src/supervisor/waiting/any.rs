//! Waiting for the first of several jobs.

use std::task::Waker;
use std::time::Duration;

use super::thread_waker::{Words, park_until};
use super::wakers::wake_all;
use crate::link::{Ask, NOTICE, WAITER};
use crate::supervisor::record::{AWAITED, JobId, Stage};
use crate::supervisor::shared::Supervisor;
use crate::supervisor::state::EngineState;
use crate::sys::futex;

impl Supervisor {
    /// Returns the index of a job that has ended. If none has, the waker is called when one does.
    pub(crate) fn poll_any<I>(&self, ids: I, waker: &Waker) -> Option<usize>
    where
        I: Iterator<Item = JobId> + Clone,
    {
        self.poll_any_with(ids, waker, None, &mut Vec::new())
    }

    /// Like [`poll_any`](Self::poll_any), for jobs that other tasks may await, and for a thread that sleeps on
    /// state words. The replaced wakers of tasks are put into `displaced` and must be [put back](Supervisor::put_back).
    /// If a job's state word is added to `words`, the worker wakes the thread through that word, and the waker is not
    /// called for the job.
    pub(crate) fn poll_any_with<'s, I>(
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
        let mut state = self.lock();
        if words.is_some() {
            // The thread is awake: if one of these jobs is placed now, the thread will sleep on its state word.
            state.records.await_no_more(ids.clone());
        }
        let mut ended = look_for_end(&mut state, ids.clone());
        if ended.is_none() {
            for (id, waker) in ids.clone().zip(&mut wakers) {
                std::mem::swap(&mut state.records.get(id).waker, waker);
            }
            let waits_for = if words.is_some() { AWAITED } else { NOTICE };
            let EngineState { lanes, records, .. } = &mut *state;
            for (lane, position) in lanes.first_ends(ids.clone(), records, waits_for) {
                // If the job has ended already, it is found below.
                let lane_of = &mut lanes[lane];
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
            state.monitor.watch_memory();
            // Finds jobs that ended before the request.
            ended = look_for_end(&mut state, ids.clone());
            if ended.is_some() {
                state.records.await_no_more(ids.clone());
            }
        }
        self.unlock(state);
        for (id, other) in ids.zip(wakers) {
            displaced.extend(
                other
                    .filter(|other| !other.will_wake(waker))
                    .map(|other| (id, other)),
            );
        }
        ended
    }

    /// Puts wakers back. Calls the wakers of jobs that have ended in the meantime.
    pub(crate) fn put_back(&self, mut displaced: Vec<(JobId, Waker)>) {
        if displaced.is_empty() {
            return;
        }
        let mut state = self.lock();
        let ended = displaced.extract_if(.., |(id, waker)| {
            let record = state.records.get(*id);
            let ended = record.stage == Stage::Answered;
            if !ended && let Some(ours) = &mut record.waker {
                std::mem::swap(ours, waker);
            }
            ended
        });
        let ended: Vec<_> = ended.collect();
        self.unlock(state);
        wake_all(ended.into_iter().map(|(_, waker)| waker));
    }

    /// Returns the index of a job that has ended, without waiting.
    pub(crate) fn look_any(&self, ids: impl Iterator<Item = JobId>) -> Option<usize> {
        let mut state = self.lock();
        let ended = look_for_end(&mut state, ids);
        self.unlock(state);
        ended
    }

    /// Waits until one of these jobs has ended. Returns `None` if the time limit passes first.
    pub(crate) fn wait_any<I>(&self, ids: I, limit: Option<Duration>) -> Option<usize>
    where
        I: Iterator<Item = JobId> + Clone,
    {
        self.assert_may_wait();
        let ended = park_until(limit, |waker, words| {
            self.poll_any_with(ids.clone(), waker, Some(words), &mut Vec::new())
        });
        if ended.is_none() {
            self.lock().records.await_no_more(ids);
        }
        ended
    }
}

/// Drains the lanes, and returns the index of a job that has ended.
fn look_for_end(state: &mut EngineState, mut ids: impl Iterator<Item = JobId>) -> Option<usize> {
    state.catch_up();
    ids.position(|id| state.records.get(id).stage == Stage::Answered)
}
