//! The jobs of an engine that wait for their turn.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Weak};
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

/// The jobs of an engine that wait for their turn.
#[derive(Debug)]
pub(in crate::supervisor) struct Lines {
    /// Rings the monitor.
    bell: Waker,
    lines: Vec<Line>,
}

#[derive(Debug)]
struct Line {
    limiter: Limiter,
    /// Records by ticket.
    waiting: BTreeMap<Ticket, u32>,
}

impl Default for Lines {
    fn default() -> Self {
        Self {
            bell: Waker::noop().clone(),
            lines: Vec::new(),
        }
    }
}

impl Lines {
    /// Jobs that wait for their turn.
    pub(in crate::supervisor) fn len(&self) -> usize {
        self.lines.iter().map(|line| line.waiting.len()).sum()
    }

    pub(in crate::supervisor) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    fn add(&mut self, limiter: Limiter, ticket: Ticket, record: u32) {
        let known = self.lines.iter_mut().find(|line| line.limiter == limiter);
        match known {
            Some(line) => {
                line.waiting.insert(ticket, record);
            }
            None => self.lines.push(Line {
                limiter,
                waiting: BTreeMap::from([(ticket, record)]),
            }),
        }
    }

    fn remove(&mut self, limiter: &Limiter, ticket: Ticket) {
        for line in &mut self.lines {
            if line.limiter == *limiter {
                line.waiting.remove(&ticket);
            }
        }
        self.lines.retain(|line| !line.waiting.is_empty());
    }

    /// Takes out the jobs whose turn it is, in the order in which each line has called them.
    fn called(&mut self) -> Vec<u32> {
        let mut called = Vec::new();
        for line in &mut self.lines {
            let (mut books, _) = line.limiter.lock();
            // Others are called too: of other engines, and threads.
            let tickets: Vec<_> = books.called.keys().copied().collect();
            let before = called.len();
            for ticket in tickets {
                if let Entry::Occupied(mine) = line.waiting.entry(ticket)
                    && let Some(call) = books.has_call(ticket)
                {
                    called.push((call, mine.remove()));
                }
            }
            called[before..].sort_unstable();
        }
        self.lines.retain(|line| !line.waiting.is_empty());
        called.into_iter().map(|(_, record)| record).collect()
    }

    /// The next time at which somebody's turn may have come.
    fn due(&self) -> Option<Instant> {
        let mine = |line: &Line| {
            let (first, due) = line.limiter.due()?;
            line.waiting.contains_key(&first).then_some(due)
        };
        self.lines.iter().filter_map(mine).min()
    }
}

impl Core {
    /// If the job of this record needs a permit: takes one, or joins the line. True if it has to wait.
    #[cold]
    pub(in crate::supervisor) fn joins_a_line(&mut self, index: u32) -> bool {
        let record = self.records.at(index);
        let Some(policy) = &mut record.policy else {
            return false;
        };
        let Some(Limit { limiter, caller }) = policy.terms.limit.clone() else {
            return false;
        };
        // So that its answer is not told on the short way, which gives nothing back; and its end is heard by the monitor,
        // because somebody else may wait for it, in another engine too.
        record.parked = true;
        record.requests |= NOTICE;
        let come = {
            let (mut books, now) = limiter.lock();
            books.come(now, caller, &self.lines.bell)
        };
        crate::sync::point!("limit.came");
        let Some(ticket) = come else {
            policy.turn = Turn::Permit;
            return false;
        };
        policy.turn = Turn::Waits(ticket);
        record.stage = Stage::Waiting;
        self.lines.add(limiter, ticket, index);
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
        let Some(Limit { limiter, .. }) = policy.terms.limit.clone() else {
            return;
        };
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
        self.tell(bells);
        self.let_in();
        // Whoever is the first now was told nothing that is left to do here, and only the clock can let him in.
        self.look_when_due();
    }

    /// Rings for the first in each line whose time has come.
    pub(in crate::supervisor) fn look_at_lines(&mut self) {
        if self.lines.is_empty() {
            return;
        }
        let limiters: Vec<_> = self
            .lines
            .lines
            .iter()
            .map(|line| line.limiter.clone())
            .collect();
        for limiter in limiters {
            let bells = limiter.call();
            self.tell(bells);
        }
        self.let_in();
    }

    fn tell(&mut self, bells: Vec<Waker>) {
        let own = &self.lines.bell;
        let others = bells.into_iter().filter(|bell| !bell.will_wake(own));
        self.wakers.extend(others);
    }

    /// Queues the jobs whose turn it is.
    fn let_in(&mut self) {
        let called = self.lines.called();
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
        self.lines.due()
    }

    /// Answers all jobs that wait for their turn.
    pub(in crate::supervisor) fn fail_lines(&mut self, why: &JobErrorKind) {
        // One by one: the failure of one may cancel others of its group.
        while let Some(&index) = self
            .lines
            .lines
            .first()
            .and_then(|line| line.waiting.values().next())
        {
            self.fail(index, why.clone(), None, Vec::new());
        }
    }
}

/// Rings the monitor of an engine, if it still is.
struct Bell(Weak<Shared>);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        if let Some(shared) = self.0.upgrade() {
            shared.ring();
        }
    }
}

impl Shared {
    /// From here on jobs in lines are called by the monitor's bell.
    pub(in crate::supervisor) fn hang_up_bell(self: &Arc<Self>) {
        let bell = Waker::from(Arc::new(Bell(Arc::downgrade(self))));
        self.lock().lines.bell = bell;
    }
}
