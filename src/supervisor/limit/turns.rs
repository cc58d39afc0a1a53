//! Jobs that wait for the permit of a limiter.

use std::task::Waker;
use std::time::Instant;

use super::Limit;
use super::lines::Turn;
use crate::link::NOTICE;
use crate::supervisor::error::JobErrorKind;
use crate::supervisor::record::Stage;
use crate::supervisor::state::EngineState;

impl EngineState {
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
        self.monitor.watch_memory();
        self.look_when_due();
        true
    }

    /// The monitor looks again when somebody's time may have come.
    fn look_when_due(&mut self) {
        if let Some(due) = self.line_due() {
            self.monitor.call_before(due);
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
            let Some(limiter) = self.lines.limiter(address) else {
                continue;
            };
            let bells = limiter.call();
            self.tell(address, bells);
            self.let_in(address);
        }
    }

    fn tell(&mut self, address: usize, bells: Vec<Waker>) {
        let own = self.lines.own_bell(address);
        let others = bells
            .into_iter()
            .filter(|bell| own.is_none_or(|own| !bell.will_wake(own)));
        self.waiters.call(others);
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
        self.monitor.call();
        self.update_flags();
    }

    /// When the monitor has to look at a clock for somebody in a line.
    pub(in crate::supervisor) fn line_due(&self) -> Option<Instant> {
        self.lines.due()
    }

    /// Answers all jobs that wait for their turn.
    pub(in crate::supervisor) fn fail_lines(&mut self, why: &JobErrorKind) {
        // One by one: the failure of one may cancel others of its group.
        while let Some(index) = self.lines.any_waiting() {
            self.fail(index, why.clone(), None, Vec::new());
        }
    }
}
