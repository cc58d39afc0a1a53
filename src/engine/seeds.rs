//! Seeds of the random numbers that jobs draw: see [`rng`](crate::rng).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use super::inlined::{self, Inlined, Inside};
use crate::kernel::seed_in_series;
use crate::sys::random;
use crate::worker::{InlineJobGuard, enter_inline_job};

/// The seed of a run, and the counters that number its jobs.
#[derive(Debug)]
pub(crate) struct Seeds {
    run: u64,
    /// Number of calls so far that run several jobs, such as maps.
    series: AtomicU64,
    /// Number of single jobs of an inline engine. In an engine with workers, the supervisor counts them.
    jobs: AtomicU64,
    /// Records the jobs of an inline engine.
    pub(super) inlined: Option<Arc<Inlined>>,
}

/// Marks, from creation to drop, that a job of an inline engine runs on this thread.
#[must_use]
#[derive(Debug)]
pub(crate) struct InlineJob {
    _entered: InlineJobGuard,
    _inside: Inside,
}

/// The jobs of one call, identified by their index in the call: see [`raw::series`](crate::raw::series).
#[derive(Clone, Debug)]
pub struct Series {
    run: u64,
    number: u64,
    /// Records the jobs of an inline engine. Refers to nothing if the engine has workers.
    inlined: Weak<Inlined>,
}

impl Seeds {
    pub(super) fn new(run: Option<u64>) -> Self {
        Self {
            run: run.unwrap_or_else(random),
            series: AtomicU64::new(0),
            jobs: AtomicU64::new(0),
            inlined: None,
        }
    }

    /// Makes these the seeds of an inline engine.
    pub(super) fn inlined(mut self, inlined: Inlined) -> Self {
        self.inlined = Some(Arc::new(inlined));
        self
    }

    pub(super) fn run(&self) -> u64 {
        self.run
    }

    /// Returns the next number for a call that runs several jobs.
    pub(crate) fn series(&self) -> Series {
        // Relaxed: only a counter.
        let number = self.series.fetch_add(1, Ordering::Relaxed);
        Series {
            run: self.run,
            number,
            inlined: self
                .inlined
                .as_ref()
                .map(Arc::downgrade)
                .unwrap_or_default(),
        }
    }

    /// Begins a job of an inline engine on this thread. Seed 0 stands for the next seed in the order of submission.
    pub(super) fn begin_inline(&self, seed: u64) -> InlineJob {
        let next = || {
            // Relaxed: only a counter.
            self.jobs.fetch_add(1, Ordering::Relaxed) + 1
        };
        InlineJob {
            _entered: enter_inline_job(self.run, if seed == 0 { next() } else { seed }),
            _inside: inlined::enter(self.inlined.clone()),
        }
    }
}

impl Series {
    /// Returns the number of this series among those of its engine, which
    /// [`for_each_element`](crate::raw::for_each_element) takes.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Returns the seed of the job with this index.
    #[inline]
    pub(crate) fn seed(&self, index: u64) -> u64 {
        seed_in_series(self.number, index)
    }

    /// Begins the job with this index on this thread, in an inline engine.
    pub(crate) fn begin_inline(&self, index: u64) -> InlineJob {
        InlineJob {
            _entered: enter_inline_job(self.run, self.seed(index)),
            _inside: inlined::enter(self.inlined.upgrade()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_two_jobs_have_the_same_seed() {
        let seeds = Seeds::new(Some(1));
        let mut seen = HashSet::new();
        for _ in 0..300 {
            let series = seeds.series();
            for index in 0..1000 {
                let seed = series.seed(index);
                assert!(seed >> 63 == 1 && seen.insert(seed));
            }
        }
    }

    #[test]
    fn runs_without_a_seed_differ() {
        assert_ne!(Seeds::new(None).run(), Seeds::new(None).run());
        assert_eq!(Seeds::new(Some(3)).run(), 3);
    }
}
