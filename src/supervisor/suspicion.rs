//! Suspicion: jobs that were at the head of a lane, unclaimed, when its worker died.
//!
//! A worker that a job has taken over can say that it never began the job, which would then be run again and again. So
//! such a job is charged for each death; with a score of [`TOO_MUCH`] it counts as one that ran.

/// What a death counts in which no lane of the worker ran anything.
pub(super) const UNEXPLAINED: u32 = 4;
/// What a death counts in which another lane ran something.
pub(super) const EXPLAINED: u32 = 1;
/// Sixteen unexplained deaths.
const TOO_MUCH: u32 = 16 * UNEXPLAINED;

/// Scores by job number, or by start of an actor: see `Actors::started_by`. The oldest charge first.
#[derive(Debug, Default)]
pub(super) struct Suspicion {
    scores: Vec<(u64, u32)>,
}

impl Suspicion {
    /// Charges a job for a death. Returns whether its score is too high. Keeps the scores of at most `most` jobs.
    pub(super) fn charge(&mut self, job: u64, weight: u32, most: usize) -> bool {
        let known = self.scores.iter().position(|&(other, _)| other == job);
        let score = weight + known.map_or(0, |at| self.scores.remove(at).1);
        if score >= TOO_MUCH {
            return true;
        }
        if self.scores.len() >= most {
            self.scores.remove(0);
        }
        self.scores.push((job, score));
        false
    }
}
