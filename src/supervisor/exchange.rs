//! Many jobs under one lock: calls in, answers out; and waiting for the first of several jobs.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use super::Shared;
use super::actor::actor_of;
use super::core::{Core, Read};
use super::error::JobError;
use super::lane::NOBODY;
use super::lock::wake_all;
use super::policy::Terms;
use super::record::{JobId, Stage};
use crate::kernel::wire::ArgWriter;
use crate::kernel::{CallWriter, KernelInfo};
use crate::link::{Ask, NOTICE};

/// What a map knows its jobs by.
pub(crate) trait Key: Copy {
    /// Answers are taken in the order of the jobs.
    const ORDERED: bool;
    /// The key of the item at this place.
    fn of(index: usize) -> Self;
}

/// In order: the place says it.
impl Key for () {
    const ORDERED: bool = true;
    fn of(_: usize) {}
}

/// As they end.
impl Key for usize {
    const ORDERED: bool = false;
    fn of(index: usize) -> Self {
        index
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
    pub(crate) fn exchange<K: Key, R>(
        &self,
        kernel: &KernelInfo,
        terms: Option<&Terms>,
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
                |core: &mut Core, call: &mut ArgWriter| core.submit(kernel, call, 0, terms);
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
        self.poll_any_beside(ids, waker, &mut Vec::new())
    }

    /// The same where tasks may wait for these jobs: their wakers, which were in the way, are to be put back.
    pub(crate) fn poll_any_beside<I>(
        &self,
        ids: I,
        waker: &Waker,
        displaced: &mut Vec<(JobId, Waker)>,
    ) -> Option<usize>
    where
        I: Iterator<Item = JobId> + Clone,
    {
        // Wakers are foreign code: they are cloned and dropped outside the lock.
        let mut wakers: Vec<_> = ids.clone().map(|_| Some(waker.clone())).collect();
        let mut core = self.lock();
        let mut ended = core.look_for_end(ids.clone());
        if ended.is_none() {
            for (id, waker) in ids.clone().zip(&mut wakers) {
                std::mem::swap(&mut core.records.get(id).waker, waker);
            }
            core.want_first_notice(ids.clone());
            core.be_watched();
            // What ended before it was asked for notice is found here.
            ended = core.look_for_end(ids.clone());
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
        park_until(limit, |waker| self.poll_any(ids.clone(), waker))
    }
}

impl Core {
    /// Takes what lanes have finished, and looks for a job that has ended.
    fn look_for_end(&mut self, mut ids: impl Iterator<Item = JobId>) -> Option<usize> {
        self.drain_busy();
        self.refill();
        ids.position(|id| self.records.get(id).stage == Stage::Answered)
    }

    /// Somebody waits for the first end among these jobs. A lane ends its jobs in order, so the oldest one in each is
    /// enough, unless it [goes on](Core::notice_behind); one that is posted later says so by itself. The oldest call of an actor says so as well: it stays where it is
    /// when those before it are given to a lane without work.
    fn want_first_notice(&mut self, ids: impl Iterator<Item = JobId>) {
        let mut oldest = vec![[None; 2]; self.lanes.len()];
        for id in ids {
            let record = self.records.get(id);
            record.requests |= NOTICE;
            if let Stage::Placed { link, position } = record.stage {
                let stays = actor_of(record.group).is_some();
                let oldest: &mut Option<u64> = &mut oldest[link as usize][usize::from(stays)];
                *oldest = Some(oldest.map_or(position, |other| other.min(position)));
            }
        }
        for (lane, positions) in self.lanes.iter_mut().zip(oldest) {
            for position in positions.into_iter().flatten() {
                // Over already: whoever waits drains before it sleeps.
                let _: Ask = lane.ask(position, NOTICE);
            }
        }
    }

    /// This job's end in this lane may be no answer: it waits for its next attempt, or for what it has spawned. Then nobody who
    /// waits for the first of several has been told, and those behind it in the lane, which were not asked, are.
    pub(super) fn notice_behind(&mut self, lane: usize, index: u32) {
        let record = self.records.look(index);
        let goes_on = matches!(record.stage, Stage::Waiting | Stage::Spawned { .. });
        if !goes_on || record.requests & NOTICE == 0 {
            return;
        }
        let lane = &mut self.lanes[lane];
        for position in lane.poster.open_positions() {
            let behind = lane.record_at(position);
            if behind != NOBODY && self.records.look(behind).requests & NOTICE != 0 {
                // Over already: the drain that is under way finds it.
                let _: Ask = lane.ask(position, NOTICE);
            }
        }
    }
}

/// Wakes a thread, and remembers that it did: what else sleeps in that thread meanwhile, in a waker that it calls, may use up
/// the token of `unpark`.
struct Unpark {
    thread: Thread,
    rung: AtomicBool,
}

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        // Release: what was done before is seen by whoever finds that it rang; pairs with the swap in `sleep`.
        self.rung.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

/// What wakes this thread.
pub(super) struct ThreadBell {
    unpark: Arc<Unpark>,
    waker: Waker,
}

impl ThreadBell {
    pub(super) fn new() -> Self {
        let unpark = Arc::new(Unpark {
            thread: std::thread::current(),
            rung: AtomicBool::new(false),
        });
        let waker = Waker::from(Arc::clone(&unpark));
        Self { unpark, waker }
    }

    pub(super) fn waker(&self) -> &Waker {
        &self.waker
    }

    /// Sleeps until it has rung since the last sleep, or the time runs out.
    pub(super) fn sleep(&self, until: Option<Instant>) {
        // Acquire: pairs with the store of the waker.
        while !self.unpark.rung.swap(false, Ordering::Acquire) {
            match until.map(|until| until.saturating_duration_since(Instant::now())) {
                Some(Duration::ZERO) => return,
                Some(left) => std::thread::park_timeout(left),
                None => std::thread::park(),
            }
        }
    }
}

/// Asks again and again, whenever the waker was called; `None` if the time runs out before there is something.
pub(crate) fn park_until<T>(
    limit: Option<Duration>,
    mut ask: impl FnMut(&Waker) -> Option<T>,
) -> Option<T> {
    // A limit beyond all clocks is none.
    let until = limit.and_then(|limit| Instant::now().checked_add(limit));
    let bell = ThreadBell::new();
    loop {
        if let Some(found) = ask(bell.waker()) {
            return Some(found);
        }
        if until.is_some_and(|until| until <= Instant::now()) {
            return None;
        }
        bell.sleep(until);
    }
}
