//! The jobs of an engine that wait for their turn.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Wake, Waker};
use std::time::Instant;

use super::books::Ticket;
use super::{Limit, Limiter};
use crate::link::NOTICE;
use crate::supervisor::Shared;
use crate::supervisor::core::Core;
use crate::supervisor::error::JobErrorKind;
use crate::supervisor::record::Stage;

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
    /// Whose monitor is rung.
    engine: Weak<Shared>,
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
    /// Jobs that wait for their turn.
    pub(in crate::supervisor) fn len(&self) -> usize {
        self.len
    }

    pub(in crate::supervisor) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What a job leaves in this limiter's line.
    fn bell(&self, limiter: &Limiter) -> Waker {
        let address = limiter.address();
        if let Some(line) = self.lines.get(&address) {
            return line.bell.clone();
        }
        Waker::from(Arc::new(Bell {
            engine: Weak::clone(&self.engine),
            rung: Arc::clone(&self.rung),
            limiter: address,
        }))
    }

    fn add(&mut self, limiter: Limiter, bell: Waker, ticket: Ticket, record: u32) {
        let line = self.lines.entry(limiter.address()).or_insert_with(|| Line {
            limiter,
            bell,
            waiting: BTreeMap::new(),
            due: None,
        });
        line.waiting.insert(ticket, record);
        self.len += 1;
    }

    fn remove(&mut self, limiter: &Limiter, ticket: Ticket) {
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
    fn look_at_clock(&mut self, address: usize) {
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
    fn called(&mut self, address: usize) -> Vec<u32> {
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
    fn news(&self) -> BTreeSet<usize> {
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

impl Core {
    /// If the job of this record needs a permit: takes one, or joins the line. True if it has to wait.
    #[cold]
    pub(in crate::supervisor) fn joins_a_line(&mut self, index: u32) -> bool {
        let record = self.records.at(index);
        let Some(policy) = &mut record.policy else {
            return false;
        };
        let Some(Limit { limiter, caller }) = policy.options.limit.clone() else {
            return false;
        };
        // So that its answer is not told on the short way, which gives nothing back; and its end is heard by the monitor,
        // because somebody else may wait for it, in another engine too.
        record.parked = true;
        record.requests |= NOTICE;
        let come = {
            let (mut books, now) = limiter.lock();
            if books.enters(now) {
                None
            } else {
                let bell = self.lines.bell(&limiter);
                Some((books.joins(caller, &bell), bell))
            }
        };
        crate::sync::point!("limit.came");
        let Some((ticket, bell)) = come else {
            policy.turn = Turn::Permit;
            return false;
        };
        policy.turn = Turn::Waits(ticket);
        record.stage = Stage::Waiting;
        let address = limiter.address();
        self.lines.add(limiter, bell, ticket, index);
        self.lines.look_at_clock(address);
        crate::sync::point!("limit.waits");
        self.be_watched();
        self.look_when_due();
        true
    }

    /// The monitor looks again when somebody's time may have come.
    fn look_when_due(&mut self) {
        if let Some(due) = self.line_due() {
            self.wake_monitor_by(due);
        }
    }

    /// The job of this record needs its permit, or its place in the line, no longer.
    pub(in crate::supervisor) fn give_back(&mut self, index: u32) {
        let Some(policy) = &mut self.records.at(index).policy else {
            return;
        };
        let Some(Limit { limiter, .. }) = policy.options.limit.clone() else {
            return;
        };
        let address = limiter.address();
        let bells = match std::mem::take(&mut policy.turn) {
            Turn::Nothing => return,
            Turn::Permit => limiter.give_back(),
            Turn::Waits(ticket) => {
                self.lines.remove(&limiter, ticket);
                let (mut books, now) = limiter.lock();
                books.leave(ticket, now)
            }
        };
        crate::sync::point!("limit.given_back");
        self.tell(address, bells);
        self.let_in(address);
        // Whoever is the first now was told nothing that is left to do here, and only the clock can let him in.
        self.look_when_due();
    }

    /// Calls whoever may come in at the limiters that have something new.
    pub(in crate::supervisor) fn look_at_lines(&mut self) {
        for address in self.lines.news() {
            let Some(line) = self.lines.lines.get(&address) else {
                continue;
            };
            let bells = line.limiter.call();
            self.tell(address, bells);
            self.let_in(address);
        }
    }

    fn tell(&mut self, address: usize, bells: Vec<Waker>) {
        let own = self.lines.lines.get(&address).map(|line| &line.bell);
        let others = bells
            .into_iter()
            .filter(|bell| own.is_none_or(|own| !bell.will_wake(own)));
        self.wakers.extend(others);
    }

    /// Queues the jobs of this limiter whose turn it is.
    fn let_in(&mut self, address: usize) {
        let called = self.lines.called(address);
        if called.is_empty() {
            return;
        }
        for index in called {
            let record = self.records.at(index);
            record.stage = Stage::Queued;
            if let Some(policy) = &mut record.policy {
                policy.turn = Turn::Permit;
            }
            self.queue.push_back(index, self.records.at(index));
        }
        crate::sync::point!("limit.called");
        // Whoever has the lock may refill; if not, the monitor does.
        self.call_monitor = true;
        self.update_flags();
    }

    /// When the monitor has to look at a clock for somebody in a line.
    pub(in crate::supervisor) fn line_due(&self) -> Option<Instant> {
        self.lines.due.first().map(|&(due, _)| due)
    }

    /// Answers all jobs that wait for their turn.
    pub(in crate::supervisor) fn fail_lines(&mut self, why: &JobErrorKind) {
        // One by one: the failure of one may cancel others of its group.
        while let Some(&index) = self
            .lines
            .lines
            .first_key_value()
            .and_then(|(_, line)| line.waiting.values().next())
        {
            self.fail(index, why.clone(), None, Vec::new());
        }
    }
}

/// Rings the monitor of an engine, if it still is, and says for which limiter.
struct Bell {
    engine: Weak<Shared>,
    rung: Arc<Mutex<BTreeSet<usize>>>,
    limiter: usize,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        // First: the monitor looks there when it is rung.
        locked(&self.rung).insert(self.limiter);
        if let Some(shared) = self.engine.upgrade() {
            shared.ring();
        }
    }
}

impl Shared {
    /// From here on jobs in lines are called by the monitor's bell.
    pub(in crate::supervisor) fn hang_up_bell(self: &Arc<Self>) {
        self.lock().lines.engine = Arc::downgrade(self);
    }
}
