//! Suspicion: jobs that were at the head of a lane, unclaimed, when its worker died.
//!
//! A worker that a job has taken over can claim that it never began the job, which would then be run again and again.
//! So such a job is charged for each death; at a score of [`TOO_MUCH`] it counts as a job that ran.

/// The charge for a death during which no lane of the worker ran a job.
pub(super) const UNEXPLAINED: u32 = 4;
/// The charge for a death during which another lane ran a job.
pub(super) const EXPLAINED: u32 = 1;
/// The score at which a job counts as one that ran: sixteen unexplained deaths.
const TOO_MUCH: u32 = 16 * UNEXPLAINED;

/// Scores by job number, or by start of an actor: see `Actors::started_by`. The oldest charge comes first.
#[derive(Debug, Default)]
pub(super) struct Suspicion {
    scores: Vec<(u64, u32)>,
}

impl Suspicion {
    /// Charges a job for a death. Returns true if its score is too high. Stores the scores of at most `most` jobs.
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
