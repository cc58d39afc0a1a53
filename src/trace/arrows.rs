//! Arrows: from where a job ended to where the one that needs it began.
//!
//! A dependency may be told before its first job has ended, or after. Whatever has not met its other end waits here, up to a
//! limit; beyond it arrows are left out and counted.

use std::collections::{BTreeSet, HashMap};

use super::Place;

/// Ends that are remembered for dependencies that are told later: of about so many jobs that were numbered last.
const RECENT: usize = 4096;
/// Arrows that may wait for one of their ends.
const WAITING: usize = 1 << 20;

/// One end of an arrow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spot {
    pub(super) place: Place,
    pub(super) at: u64,
}

#[derive(Debug, Default)]
pub(super) struct Arrows {
    /// Jobs that have ended lately, and where; each in the place that its number says, until another one takes that.
    recent: Vec<Option<(u64, Spot)>>,
    /// Jobs that have not ended, each with one that needs it.
    needed: BTreeSet<(u64, u64)>,
    /// The same, the one that needs first.
    needs: BTreeSet<(u64, u64)>,
    /// By the job that has not begun: where what it needs has ended.
    ready: HashMap<u64, Vec<Spot>>,
    /// How many of those there are.
    met: usize,
}

impl Arrows {
    /// Job `to` needs job `from`. False: there is no room to remember that.
    pub(super) fn depends(&mut self, from: u64, to: u64) -> bool {
        if self.waiting() >= WAITING {
            return false;
        }
        match self.recent_end(from) {
            Some(spot) => {
                self.ready.entry(to).or_default().push(spot);
                self.met += 1;
            }
            None => {
                self.needed.insert((from, to));
                self.needs.insert((to, from));
            }
        }
        true
    }

    fn waiting(&self) -> usize {
        self.needed.len() + self.met
    }

    fn recent_end(&self, job: u64) -> Option<Spot> {
        let &(of, spot) = self.recent.get(place(job))?.as_ref()?;
        (of == job).then_some(spot)
    }

    /// A job has begun here: where its arrows come from.
    pub(super) fn began(&mut self, job: u64) -> Vec<Spot> {
        // Most programs draw no arrows, and pay for none.
        if self.waiting() == 0 {
            return Vec::new();
        }
        // It had all that it needs: where the rest has ended was forgotten, and nobody will say it again.
        take(&mut self.needs, &mut self.needed, job);
        let spots = self.ready.remove(&job).unwrap_or_default();
        self.met -= spots.len();
        spots
    }

    /// A job has ended with a value.
    pub(super) fn ended(&mut self, job: u64, spot: Spot) {
        for to in take(&mut self.needed, &mut self.needs, job) {
            self.ready.entry(to).or_default().push(spot);
            self.met += 1;
        }
        if self.recent.is_empty() {
            self.recent = vec![None; RECENT];
        }
        self.recent[place(job)] = Some((job, spot));
    }

    /// A job will not give a value, or will never run: nothing leads from it or to it.
    pub(super) fn gone(&mut self, job: u64) {
        take(&mut self.needed, &mut self.needs, job);
        self.began(job);
    }
}

/// Takes all pairs of this job out of both sets: the first has it first, the other has the same pairs turned round.
fn take(pairs: &mut BTreeSet<(u64, u64)>, turned: &mut BTreeSet<(u64, u64)>, job: u64) -> Vec<u64> {
    // Most programs draw no arrows, and pay for none.
    if pairs.is_empty() {
        return Vec::new();
    }
    let of_job = pairs.range((job, 0)..=(job, u64::MAX));
    let others: Vec<u64> = of_job.map(|&(_, other)| other).collect();
    for &other in &others {
        pairs.remove(&(job, other));
        turned.remove(&(other, job));
    }
    others
}

fn place(job: u64) -> usize {
    job as usize % RECENT
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spot(at: u64) -> Spot {
        let place = Place { worker: 1, lane: 0 };
        Spot { place, at }
    }

    #[test]
    fn an_arrow_is_found_whenever_it_is_told() {
        let mut arrows = Arrows::default();
        arrows.depends(1, 3);
        arrows.ended(1, spot(10));
        arrows.ended(2, spot(20));
        arrows.depends(2, 3);
        assert_eq!(arrows.began(3), [spot(10), spot(20)]);
        assert_eq!((arrows.waiting(), arrows.began(3)), (0, Vec::new()));
    }

    #[test]
    fn what_never_meets_is_bounded() {
        let mut arrows = Arrows::default();
        let jobs = 3 * RECENT as u64;
        for job in 0..jobs {
            arrows.ended(job, spot(job));
        }
        assert_eq!(arrows.recent.len(), RECENT);
        let oldest = jobs - RECENT as u64;
        let ends = [oldest - 1, oldest, jobs - 1].map(|job| arrows.recent_end(job));
        assert_eq!(ends, [None, Some(spot(oldest)), Some(spot(jobs - 1))]);
        let told = (0..WAITING as u64 + 5).filter(|&job| arrows.depends(u64::MAX, job));
        assert_eq!(told.count(), WAITING);
        arrows.gone(u64::MAX);
        assert_eq!(arrows.waiting(), 0);
    }

    #[test]
    fn nothing_waits_for_an_end_that_is_forgotten_or_never_comes() {
        let mut arrows = Arrows::default();
        let jobs = 3 * RECENT as u64;
        for job in 0..jobs {
            arrows.ended(job, spot(job));
        }
        let (forgotten, recent, never) = (0, jobs - 1, u64::MAX);
        for (to, from) in (jobs..).zip([forgotten, recent, never]) {
            arrows.depends(from, to);
            arrows.depends(forgotten, to);
        }
        assert_eq!(arrows.waiting(), 5);
        assert_eq!(arrows.began(jobs), []);
        assert_eq!(arrows.began(jobs + 1), [spot(recent)]);
        arrows.gone(jobs + 2);
        assert_eq!(arrows.waiting(), 0);
        assert!(arrows.needs.is_empty() && arrows.ready.is_empty());
    }
}
