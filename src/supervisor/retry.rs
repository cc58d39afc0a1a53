//! Attempts after the first.

use std::ops::Range;
use std::time::{Duration, Instant};

use super::error::{Death, JobErrorKind, JobLimit};
use super::policy::After;
use super::record::Stage;
use super::state::EngineState;
use super::timers::Timer;
use crate::sys::clock;

impl EngineState {
    /// Handles an attempt that ended without a value: the job waits for the next attempt, or is answered.
    pub(super) fn attempt_failed(
        &mut self,
        index: u32,
        mut why: JobErrorKind,
        worker: Option<u32>,
        lent: Vec<Range<usize>>,
    ) {
        let closing = self.lifecycle.is_over();
        let quarantine_after = self.config.quarantine_after;
        if self.records.at(index).policy.is_some() {
            let record = self.records.look(index);
            let killed = worker.map(|worker| &self.workers[worker as usize]);
            let crash = record.crash(killed, &self.arena, &why);
            let words = killed.map_or_else(Vec::new, |worker| worker.last_words().of(record.job));
            let (traced, job) = (record.is_traced(), record.job);
            let traced = traced.then(|| crash.clone());
            let death = Death {
                kind: why.clone(),
                worker,
                last_words: words,
                crash,
            };
            let record = self.records.at(index);
            let policy = record.policy.as_mut();
            let after =
                policy.map(|policy| policy.attempt_failed(death, job, quarantine_after, closing));
            match after {
                Some(After::Again { pause }) => {
                    if let Some(crash) = traced {
                        let (records, kernels) = (&self.records, &mut self.kernels);
                        let how = (crash.as_ref(), true);
                        self.trace.failed(index, records, kernels, &why, how);
                    }
                    let record = self.records.at(index);
                    record.attempt = record.attempt.saturating_add(1);
                    return self.wait_for_next_attempt(index, pause);
                }
                Some(After::Quarantine { deaths }) => {
                    why = JobErrorKind::Limit(JobLimit::Quarantined { deaths })
                }
                Some(After::Answer) | None => {}
            }
        }
        self.fail(index, why, worker, lent);
    }

    fn wait_for_next_attempt(&mut self, index: u32, pause: Duration) {
        let due = clock::saturating_add(Instant::now(), pause);
        let record = self.records.at(index);
        record.stage = Stage::Waiting;
        if let Some(policy) = &mut record.policy {
            policy.due = Some(due);
        }
        self.timers.add(due, Timer::Attempt(index));
        // Each attempt needs a permit of its own.
        self.give_back(index);
        crate::sync::point!("retry.waits");
        self.monitor.call_before(due);
        crate::sync::point!("retry.reported");
    }

    /// Queues jobs whose pause is over. `over` begins with the job that has waited longest.
    pub(super) fn begin_attempts(&mut self, over: impl Iterator<Item = u32>) {
        let over: Vec<_> = over
            .inspect(|&index| self.timers.end_pause(self.records.at(index), index))
            .collect();
        if over.is_empty() {
            return;
        }
        crate::sync::point!("retry.over");
        // The jobs go ahead of waiting jobs. A job that needs a permit waits at its limiter instead, after earlier
        // jobs.
        let over: Vec<_> = over
            .into_iter()
            .filter(|&index| {
                let parts = (&mut self.records, &mut self.monitor);
                !self.permit_waiters.wait_for_permit(index, parts)
            })
            .collect();
        over.into_iter().rev().for_each(|index| self.requeue(index));
        crate::sync::point!("retry.due");
        self.lanes.update_flags(&self.queue, &self.config);
    }

    /// Answers all jobs that wait for another attempt.
    pub(super) fn fail_waiting(&mut self, why: &JobErrorKind) {
        while let Some(index) = { self.timers.attempts().next() } {
            // The failure may cancel other jobs of its group.
            self.timers.end_pause(self.records.at(index), index);
            self.fail(index, why.clone(), None, Vec::new());
        }
    }
}
