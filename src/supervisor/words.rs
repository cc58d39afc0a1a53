//! What a worker left behind when it died.

use super::error::{Beside, JobErrorKind};
use super::plain;

/// The most lines, and bytes of them, that an error carries.
const LINES: usize = 16;
const BYTES: usize = 2048;
/// The longest of them.
const LONGEST: usize = 512;

/// In the place of a job's number: a line of some job, and nobody knows of which.
pub(super) const SOME_JOB: u64 = u64::MAX;

/// The last lines of a dead worker, and the job (0: none) that each belongs to; oldest first.
#[derive(Debug, Default)]
pub(super) struct LastWords {
    lines: Vec<(u64, String)>,
    /// Bytes of the first allocation that it said it could not get, in the job that it died in: a backtrace that follows
    /// may be longer than what is kept.
    pub(super) failed_allocation: Option<u64>,
    /// The jobs that ran when it died.
    ran: Vec<u64>,
    /// It is known which of them did it.
    known: bool,
}

impl LastWords {
    /// One more, which is made plain.
    pub(super) fn push(&mut self, job: u64, line: &[u8]) {
        self.lines.push((job, plain::line(line, LONGEST, 0)));
    }

    /// These jobs ran when it died; whether it is known which of them did it.
    pub(super) fn ran(&mut self, jobs: Vec<u64>, known: bool) {
        self.ran = jobs;
        self.known = known;
    }

    /// The jobs that ran beside this one, where it is the culprit or may be.
    pub(super) fn beside(&self, job: u64, why: &JobErrorKind) -> Beside {
        if matches!(why, JobErrorKind::LostWith { .. }) || !self.ran.contains(&job) {
            return Beside::default();
        }
        Beside {
            jobs: self
                .ran
                .iter()
                .copied()
                .filter(|&other| other != job)
                .collect(),
            known: self.known,
        }
    }

    /// Those of a job and those that may be, the last of them if they are many.
    pub(super) fn of(&self, job: u64) -> Vec<String> {
        self.last(|of| of == job || of == SOME_JOB)
    }

    /// Whatever it said last, in whatever job.
    pub(super) fn all(&self) -> Vec<String> {
        self.last(|_| true)
    }

    fn last(&self, wanted: impl Fn(u64) -> bool) -> Vec<String> {
        let mut bytes = 0;
        let lines = self.lines.iter().rev();
        let mut last: Vec<_> = lines
            .filter(|(job, _)| wanted(*job))
            .take(LINES)
            .map(|(_, line)| line.clone())
            .take_while(|line| {
                bytes += line.len();
                bytes <= BYTES
            })
            .collect();
        last.reverse();
        last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_gets_its_own_last_lines() {
        let mut words = LastWords::default();
        words.push(0, b"start");
        for n in 0..40 {
            words.push(7, format!("seven {n}").as_bytes());
            words.push(8, b"eight");
        }
        let of = words.of(7);
        assert_eq!(of.len(), LINES);
        assert_eq!((of[0].as_str(), of[15].as_str()), ("seven 24", "seven 39"));
        assert!(words.of(9).is_empty());
        assert_eq!(words.of(0), ["start"]);
        assert_eq!(words.all().len(), LINES);
    }

    #[test]
    fn many_long_lines_are_few_bytes() {
        let mut words = LastWords::default();
        for _ in 0..16 {
            words.push(1, &[b'x'; 5000]);
        }
        let of = words.of(1);
        assert!(of.len() >= 3 && of.iter().map(String::len).sum::<usize>() <= BYTES);
        assert!(of[0].ends_with("… (4488 more bytes)"), "{}", of[0]);
    }
}
