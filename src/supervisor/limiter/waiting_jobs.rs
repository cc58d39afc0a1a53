//! The jobs of an engine that wait for a permit.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Wake, Waker};
use std::time::Instant;

use super::handle::Limiter;
use super::permits::Ticket;
use crate::sync::lock;
use crate::sys::event::EventFd;

/// What a job has at its limiter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::supervisor) enum PermitStage {
    #[default]
    None,
    /// The job waits with this ticket.
    Waiting(Ticket),
    /// The job holds a permit.
    Held,
}

/// The jobs of an engine that wait for a permit. A program may have a limiter for each of ten thousand hosts, so a job
/// accesses only the queue of its own limiter.
#[derive(Debug, Default)]
pub(in crate::supervisor) struct WaitingJobs {
    /// The eventfd of the monitor, which limiters ring.
    monitor: Weak<EventFd>,
    /// The waiting jobs of each limiter, by the limiter's address. An entry keeps its limiter alive, and is removed
    /// with its last job.
    lines: BTreeMap<usize, LimiterQueue>,
    len: usize,
    /// Limiters that may have a permit at a certain time.
    due: BTreeSet<(Instant, usize)>,
    /// Limiters that woke this engine and were not checked since.
    woken: Arc<Mutex<BTreeSet<usize>>>,
}

#[derive(Debug)]
struct LimiterQueue {
    limiter: Limiter,
    waker: Waker,
    /// The index of the record by ticket.
    waiting: BTreeMap<Ticket, u32>,
    /// The entry of this limiter in `WaitingJobs::due`.
    due: Option<Instant>,
}

impl WaitingJobs {
    /// Registers the eventfd of the monitor, which limiters ring.
    pub(in crate::supervisor) fn set_monitor(&mut self, monitor: &Arc<EventFd>) {
        self.monitor = Arc::downgrade(monitor);
    }

    /// Returns the next time at which a limiter may have a permit.
    pub(in crate::supervisor) fn due(&self) -> Option<Instant> {
        self.due.first().map(|&(due, _)| due)
    }

    /// Returns the limiter at this address, if jobs of this engine wait for it.
    pub(super) fn limiter(&self, address: usize) -> Option<&Limiter> {
        self.lines.get(&address).map(|line| &line.limiter)
    }

    /// Returns those of a limiter's wakers that belong to other engines or threads.
    pub(super) fn others(&self, address: usize, mut wakers: Vec<Waker>) -> Vec<Waker> {
        if let Some(line) = self.lines.get(&address) {
            wakers.retain(|waker| !waker.will_wake(&line.waker));
        }
        wakers
    }

    /// Returns the record of some waiting job.
    pub(super) fn any_waiting(&self) -> Option<u32> {
        let (_, line) = self.lines.first_key_value()?;
        line.waiting.values().next().copied()
    }

    /// Returns the number of waiting jobs.
    pub(in crate::supervisor) fn len(&self) -> usize {
        self.len
    }

    pub(in crate::supervisor) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the waker that a job stores in this limiter's queue.
    pub(super) fn waker(&self, limiter: &Limiter) -> Waker {
        let address = limiter.address();
        if let Some(line) = self.lines.get(&address) {
            return line.waker.clone();
        }
        Waker::from(Arc::new(LimiterWaker {
            monitor: Weak::clone(&self.monitor),
            woken: Arc::clone(&self.woken),
            limiter: address,
        }))
    }

    pub(super) fn add(&mut self, limiter: Limiter, waker: Waker, ticket: Ticket, record: u32) {
        let line = self
            .lines
            .entry(limiter.address())
            .or_insert_with(|| LimiterQueue {
                limiter,
                waker,
                waiting: BTreeMap::new(),
                due: None,
            });
        line.waiting.insert(ticket, record);
        self.len += 1;
    }

    pub(super) fn remove(&mut self, limiter: &Limiter, ticket: Ticket) {
        let address = limiter.address();
        let Some(line) = self.lines.get_mut(&address) else {
            return;
        };
        self.len -= usize::from(line.waiting.remove(&ticket).is_some());
        self.drop_if_empty(address);
    }

    fn drop_if_empty(&mut self, address: usize) {
        if self
            .lines
            .get(&address)
            .is_some_and(|line| line.waiting.is_empty())
        {
            self.set_due(address, None);
            self.lines.remove(&address);
        }
    }

    /// Updates the time at which this engine has to check the limiter. If the action of another engine or thread makes
    /// a job of this engine the first waiter, the limiter wakes this engine.
    pub(super) fn look_at_clock(&mut self, address: usize) {
        let Some(line) = self.lines.get(&address) else {
            return;
        };
        let due = line.limiter.due();
        let mine = due.filter(|(first, _)| line.waiting.contains_key(first));
        self.set_due(address, mine.map(|(_, due)| due));
    }

    fn set_due(&mut self, address: usize, due: Option<Instant>) {
        let Some(line) = self.lines.get_mut(&address) else {
            return;
        };
        if let Some(old) = line.due {
            self.due.remove(&(old, address));
        }
        line.due = due;
        self.due.extend(due.map(|due| (due, address)));
    }

    /// Removes the jobs that this limiter has called, in the order of the calls.
    pub(super) fn called(&mut self, address: usize) -> Vec<u32> {
        let Some(LimiterQueue {
            limiter, waiting, ..
        }) = self.lines.get_mut(&address)
        else {
            return Vec::new();
        };
        let mut called = Vec::new();
        {
            let (mut state, _) = limiter.lock();
            // Waiters of other engines and threads are called too.
            let tickets: Vec<_> = state.called.keys().copied().collect();
            for ticket in tickets {
                if let Entry::Occupied(mine) = waiting.entry(ticket)
                    && let Some(call) = state.take_call_number(ticket)
                {
                    called.push((call, mine.remove()));
                }
            }
        }
        self.len -= called.len();
        self.look_at_clock(address);
        self.drop_if_empty(address);
        called.sort_unstable();
        called.into_iter().map(|(_, record)| record).collect()
    }

    /// Returns the limiters that woke this engine, and the limiters whose time has come.
    pub(super) fn limiters_to_check(&self) -> BTreeSet<usize> {
        let mut limiters_to_check = std::mem::take(&mut *lock(&self.woken));
        if !self.due.is_empty() {
            let come = self.due.range(..=(Instant::now(), usize::MAX));
            limiters_to_check.extend(come.map(|&(_, address)| address));
        }
        limiters_to_check
    }
}

/// Wakes the monitor of an engine, if that still exists, and records for which limiter.
struct LimiterWaker {
    monitor: Weak<EventFd>,
    woken: Arc<Mutex<BTreeSet<usize>>>,
    limiter: usize,
}

impl Wake for LimiterWaker {
    fn wake(self: Arc<Self>) {
        // Recorded first: the monitor reads the record when it wakes.
        lock(&self.woken).insert(self.limiter);
        if let Some(monitor) = self.monitor.upgrade() {
            // Fails only for a bad descriptor.
            let _ = monitor.ring();
        }
    }
}
