//! Arrows: from the end of a job to the start of a job that needs its value.
//!
//! A dependency may be reported before or after the job that gives the value has ended. Arrows with an unknown end are
//! stored up to a limit; further arrows are left out and counted.

use std::collections::{BTreeSet, HashMap};

use super::LaneId;

/// Max number of recent jobs whose ends are stored, for dependencies that are reported later.
const RECENT: usize = 4096;
/// Max number of stored arrows with an unknown end.
const MAX_WAITING: usize = 1 << 20;

/// One end of an arrow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct ArrowEnd {
    pub(super) lane: LaneId,
    pub(super) at: u64,
}

/// Pairs the ends of arrows.
#[derive(Debug, Default)]
pub(super) struct Arrows {
    /// Jobs that have ended recently, with their arrow ends, by job number mod [`RECENT`].
    recent: Vec<Option<(u64, ArrowEnd)>>,
    /// Pairs of a job that has not ended and a job that needs its value.
    needed: BTreeSet<(u64, u64)>,
    /// The same pairs in reverse order.
    needs: BTreeSet<(u64, u64)>,
    /// For each job that has not begun: the ends of the jobs that it needs.
    ready: HashMap<u64, Vec<ArrowEnd>>,
    /// The total number of ends in `ready`.
    ready_ends: usize,
}

impl Arrows {
    /// Records that job `to` needs the value of job `from`. Returns false if the limit is reached.
    pub(super) fn depends(&mut self, from: u64, to: u64) -> bool {
        if self.waiting() >= MAX_WAITING {
            return false;
        }
        match self.recent_end(from) {
            Some(end) => {
                self.ready.entry(to).or_default().push(end);
                self.ready_ends += 1;
            }
            None => {
                self.needed.insert((from, to));
                self.needs.insert((to, from));
            }
        }
        true
    }

    fn waiting(&self) -> usize {
        self.needed.len() + self.ready_ends
    }

    fn recent_end(&self, job: u64) -> Option<ArrowEnd> {
        let &(of, end) = self.recent.get(slot(job))?.as_ref()?;
        (of == job).then_some(end)
    }

    /// Called when a job has begun. Returns where the arrows that lead to it start.
    pub(super) fn began(&mut self, job: u64) -> Vec<ArrowEnd> {
        // Fast path for programs without dependencies.
        if self.waiting() == 0 {
            return Vec::new();
        }
        // All jobs that this job needs have ended. Ends that are still unknown were dropped from `recent`.
        take(&mut self.needs, &mut self.needed, job);
        let ends = self.ready.remove(&job).unwrap_or_default();
        self.ready_ends -= ends.len();
        ends
    }

    /// Records the end of a job that has ended with a value.
    pub(super) fn ended(&mut self, job: u64, end: ArrowEnd) {
        for to in take(&mut self.needed, &mut self.needs, job) {
            self.ready.entry(to).or_default().push(end);
            self.ready_ends += 1;
        }
        if self.recent.is_empty() {
            self.recent = vec![None; RECENT];
        }
        self.recent[slot(job)] = Some((job, end));
    }

    /// Removes the arrows from and to a job. Called when the job has failed or will never run.
    pub(super) fn forget(&mut self, job: u64) {
        take(&mut self.needed, &mut self.needs, job);
        self.began(job);
    }
}

/// Removes all pairs of this job from `pairs`, and the reversed pairs from the other set. Returns the other jobs.
fn take(
    pairs: &mut BTreeSet<(u64, u64)>,
    reversed: &mut BTreeSet<(u64, u64)>,
    job: u64,
) -> Vec<u64> {
    // Fast path for programs without dependencies.
    if pairs.is_empty() {
        return Vec::new();
    }
    let of_job = pairs.range((job, 0)..=(job, u64::MAX));
    let others: Vec<u64> = of_job.map(|&(_, other)| other).collect();
    for &other in &others {
        pairs.remove(&(job, other));
        reversed.remove(&(other, job));
    }
    others
}

fn slot(job: u64) -> usize {
    job as usize % RECENT
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(at: u64) -> ArrowEnd {
        let lane = LaneId { worker: 1, lane: 0 };
        ArrowEnd { lane, at }
    }

    #[test]
    fn an_arrow_is_found_whenever_the_dependency_is_reported() {
        let mut arrows = Arrows::default();
        arrows.depends(1, 3);
        arrows.ended(1, end(10));
        arrows.ended(2, end(20));
        arrows.depends(2, 3);
        assert_eq!(arrows.began(3), [end(10), end(20)]);
        assert_eq!((arrows.waiting(), arrows.began(3)), (0, Vec::new()));
    }

    #[test]
    fn incomplete_arrows_are_bounded() {
        let mut arrows = Arrows::default();
        let jobs = 3 * RECENT as u64;
        for job in 0..jobs {
            arrows.ended(job, end(job));
        }
        assert_eq!(arrows.recent.len(), RECENT);
        let oldest = jobs - RECENT as u64;
        let ends = [oldest - 1, oldest, jobs - 1].map(|job| arrows.recent_end(job));
        assert_eq!(ends, [None, Some(end(oldest)), Some(end(jobs - 1))]);
        let stored = (0..MAX_WAITING as u64 + 5).filter(|&job| arrows.depends(u64::MAX, job));
        assert_eq!(stored.count(), MAX_WAITING);
        arrows.forget(u64::MAX);
        assert_eq!(arrows.waiting(), 0);
    }

    #[test]
    fn no_arrow_waits_for_a_forgotten_or_missing_end() {
        let mut arrows = Arrows::default();
        let jobs = 3 * RECENT as u64;
        for job in 0..jobs {
            arrows.ended(job, end(job));
        }
        let (forgotten, recent, never) = (0, jobs - 1, u64::MAX);
        for (to, from) in (jobs..).zip([forgotten, recent, never]) {
            arrows.depends(from, to);
            arrows.depends(forgotten, to);
        }
        assert_eq!(arrows.waiting(), 5);
        assert_eq!(arrows.began(jobs), []);
        assert_eq!(arrows.began(jobs + 1), [end(recent)]);
        arrows.forget(jobs + 2);
        assert_eq!(arrows.waiting(), 0);
        assert!(arrows.needs.is_empty() && arrows.ready.is_empty());
    }
}
