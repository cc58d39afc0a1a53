//! The stages of an engine, from its start to its end.

use std::time::{Duration, Instant};

use crate::sys::clock;

/// Whether and how the engine ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Closing {
    #[default]
    No,
    /// All jobs are finished first.
    Drain,
    /// All jobs are answered at once.
    Now,
}

/// The stage of an engine. Stages only advance: started, closing by [`Closing::Drain`], closing by [`Closing::Now`],
/// stopping.
#[derive(Debug, Default)]
pub(super) struct Lifecycle {
    closing: Closing,
    /// While the engine closes by [`Closing::Drain`]: when all remaining jobs are answered at the latest.
    drains_until: Option<Instant>,
    /// Whether as many workers as may be active were ready at the same time; for a start in the background, whether one
    /// was.
    has_started: bool,
    /// Whether the workers are being stopped, because nothing is left to do.
    is_stopping: bool,
    /// Why no job can run any more.
    broken: Option<String>,
    /// Whether `broken` is about failed starts of workers alone, which may be tried again.
    may_revive: bool,
}

impl Lifecycle {
    #[inline]
    pub(super) fn closing(&self) -> Closing {
        self.closing
    }

    /// Returns true if the engine closes without finishing its jobs.
    #[inline]
    pub(super) fn closes_now(&self) -> bool {
        self.closing == Closing::Now
    }

    /// Returns true if the engine accepts no new jobs, because it closes or is broken.
    pub(super) fn is_over(&self) -> bool {
        self.closing != Closing::No || self.broken.is_some()
    }

    /// Returns why no job can run any more, if the engine is broken.
    #[inline]
    pub(super) fn broken(&self) -> Option<&String> {
        self.broken.as_ref()
    }

    pub(super) fn has_started(&self) -> bool {
        self.has_started
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.is_stopping
    }

    /// Records that enough workers are ready.
    pub(super) fn set_started(&mut self) {
        self.has_started = true;
    }

    /// Closes the engine. A later call cannot turn [`Closing::Now`] into [`Closing::Drain`]. Of several limits, the
    /// earliest counts.
    pub(super) fn close(&mut self, how: Closing, drains_until: Option<Instant>) {
        self.drains_until = self.drains_until.into_iter().chain(drains_until).min();
        if self.closing != Closing::Now {
            self.closing = how;
        }
    }

    /// Records that the workers are being stopped.
    pub(super) fn set_stopping(&mut self) {
        self.is_stopping = true;
    }

    /// Records that no job can run any more. The first reason stays. `may_revive`: see [`revive`](Self::revive).
    pub(super) fn set_broken(&mut self, why: &str, may_revive: bool) {
        self.may_revive = may_revive && (self.may_revive || self.broken.is_none());
        self.broken.get_or_insert_with(|| why.to_owned());
    }

    /// Lets jobs run again, if the engine is broken only because starts of workers failed. Returns whether it was.
    pub(super) fn revive(&mut self) -> bool {
        let may = self.may_revive && self.closing == Closing::No;
        may && self.broken.take().is_some()
    }

    /// Returns the time when draining ends at the latest.
    pub(super) fn drains_until(&self) -> Option<Instant> {
        self.drains_until
    }

    /// Postpones the end of draining.
    pub(super) fn postpone(&mut self, by: Duration) {
        self.drains_until = self.drains_until.map(|at| clock::postponed(at, by));
    }

    /// Closes the engine at once if the time for draining is over. Returns whether it did.
    ///
    /// Does nothing if `is_drained`: then the workers are about to be stopped, unless the engine gets jobs before that.
    pub(super) fn end_drain(&mut self, now: Instant, is_drained: bool) -> bool {
        let is_due = self.drains_until.is_some_and(|until| until <= now);
        if !is_due || !self.is_stopping && is_drained {
            return false;
        }
        self.drains_until = None;
        if self.is_stopping {
            return false;
        }
        self.closing = Closing::Now;
        true
    }
}

#[cfg(test)]
impl Lifecycle {
    pub(super) fn set_not_started(&mut self) {
        self.has_started = false;
    }
}
