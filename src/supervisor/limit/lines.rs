//! The jobs of an engine that wait for their turn.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Wake, Waker};
use std::time::Instant;

use super::Limiter;
use super::books::Ticket;
use crate::sys::event::EventFd;

/// What a job has of its limiter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::supervisor) enum Turn {
    #[default]
    Nothing,
    /// A place in the line.
    Waits(Ticket),
    /// A permit.
    Permit,
}

/// The jobs of an engine that wait for their turn. A program may have a limiter for each of ten thousand hosts: a job touches
/// its own.
#[derive(Debug, Default)]
pub(in crate::supervisor) struct Lines {
    /// Wakes the monitor of this engine, if it still runs.
    monitor: Weak<EventFd>,
    /// By the addresses of their limiters, which they keep alive; none is empty.
    lines: BTreeMap<usize, Line>,
    len: usize,
    /// Those with a time at which somebody's turn may come.
    due: BTreeSet<(Instant, usize)>,
    /// Those for which somebody else has rung, and which nobody has looked at since.
    rung: Arc<Mutex<BTreeSet<usize>>>,
}

#[derive(Debug)]
struct Line {
    limiter: Limiter,
    bell: Waker,
    /// Records by ticket.
    waiting: BTreeMap<Ticket, u32>,
    /// Its entry in `due`.
    due: Option<Instant>,
}

impl Lines {
    /// From now on the monitor is rung here when the turn of a job may have come.
    pub(in crate::supervisor) fn ring_at(&mut self, monitor: &Arc<EventFd>) {
        self.monitor = Arc::downgrade(monitor);
    }

    /// When the monitor has to look at a clock for somebody in a line.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due.first().map(|&(due, _)| due)
    }

    /// The limiter at this address, if jobs wait for it.
    pub(super) fn limiter(&self, address: usize) -> Option<&Limiter> {
        self.lines.get(&address).map(|line| &line.limiter)
    }

    /// What the jobs that wait for it have left there.
    pub(super) fn own_bell(&self, address: usize) -> Option<&Waker> {
        self.lines.get(&address).map(|line| &line.bell)
    }

    /// Some job that waits.
    pub(super) fn any_waiting(&self) -> Option<u32> {
        let (_, line) = self.lines.first_key_value()?;
        line.waiting.values().next().copied()
    }

    /// Jobs that wait for their turn.
    pub(in crate::supervisor) fn len(&self) -> usize {
        self.len
    }

    pub(in crate::supervisor) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What a job leaves in this limiter's line.
    pub(super) fn bell(&self, limiter: &Limiter) -> Waker {
        let address = limiter.address();
        if let Some(line) = self.lines.get(&address) {
            return line.bell.clone();
        }
        Waker::from(Arc::new(Bell {
            monitor: Weak::clone(&self.monitor),
            rung: Arc::clone(&self.rung),
            limiter: address,
        }))
    }

    pub(super) fn add(&mut self, limiter: Limiter, bell: Waker, ticket: Ticket, record: u32) {
        let line = self.lines.entry(limiter.address()).or_insert_with(|| Line {
            limiter,
            bell,
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

    /// Notes when somebody here has to look at the clock for this limiter. Whoever gets into that position without a doing of
    /// this engine is rung for.
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

    /// Takes out the jobs of this limiter whose turn it is, in the order in which it has called them.
    pub(super) fn called(&mut self, address: usize) -> Vec<u32> {
        let Some(Line {
            limiter, waiting, ..
        }) = self.lines.get_mut(&address)
        else {
            return Vec::new();
        };
        let mut called = Vec::new();
        {
            let (mut books, _) = limiter.lock();
            // Others are called too: of other engines, and threads.
            let tickets: Vec<_> = books.called.keys().copied().collect();
            for ticket in tickets {
                if let Entry::Occupied(mine) = waiting.entry(ticket)
                    && let Some(call) = books.has_call(ticket)
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

    /// The limiters that have something new: somebody has rung for them, or a time has come.
    pub(super) fn news(&self) -> BTreeSet<usize> {
        let mut news = std::mem::take(&mut *locked(&self.rung));
        if !self.due.is_empty() {
            let come = self.due.range(..=(Instant::now(), usize::MAX));
            news.extend(come.map(|&(_, address)| address));
        }
        news
    }
}

fn locked(rung: &Mutex<BTreeSet<usize>>) -> MutexGuard<'_, BTreeSet<usize>> {
    rung.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Rings the monitor of an engine, if it still is, and says for which limiter.
struct Bell {
    monitor: Weak<EventFd>,
    rung: Arc<Mutex<BTreeSet<usize>>>,
    limiter: usize,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        // First: the monitor looks there when it is rung.
        locked(&self.rung).insert(self.limiter);
        if let Some(monitor) = self.monitor.upgrade() {
            // Fails only for a bad descriptor.
            let _ = monitor.ring();
        }
    }
}
