//! The last output of a worker that died.

use crate::supervisor::error::{JobErrorKind, LostJobs, WorkerExit};
use crate::sys::crash::NotedCrash;
use crate::trace::escape;

/// The maximum number of lines that an error contains in addition to a traceback.
const LINES: usize = 16;
/// The maximum number of bytes of the lines that an error contains in addition to a traceback.
const BYTES: usize = 2048;
/// Limit on the bytes of one line.
const LONGEST: usize = 512;

/// Stands for a job number: the line belongs to one of several jobs.
pub(in crate::supervisor) const UNKNOWN_JOB: u64 = u64::MAX;

#[derive(Debug)]
struct Line {
    job: u64,
    text: String,
    /// Whether the line is part of a traceback, whose length is limited already.
    is_traceback: bool,
}

/// The last lines of a dead worker with their jobs (0: none), oldest first.
#[derive(Debug, Default)]
pub(in crate::supervisor) struct LastWords {
    lines: Vec<Line>,
    /// The size of the first failed allocation that the output reports for the job that the worker died in, in bytes.
    /// Stored separately, because a long backtrace may displace the line.
    pub(in crate::supervisor) failed_allocation: Option<u64>,
    /// Whether OpenBLAS printed that it got no memory, after which it ends the process.
    pub(in crate::supervisor) blas_gave_up: bool,
    /// The crash that the process recorded.
    pub(in crate::supervisor) crash: Option<NotedCrash>,
    /// The jobs that ran when the worker died.
    ran: Vec<u64>,
    /// Whether it is known which of these jobs ended the worker.
    is_culprit_known: bool,
}

impl LastWords {
    /// Adds a line, escaped. Later lines do not displace a line of a traceback.
    pub(in crate::supervisor) fn push(&mut self, job: u64, line: &[u8], is_traceback: bool) {
        self.lines.push(Line {
            job,
            text: escape::escape_line(line, LONGEST, 0),
            is_traceback,
        });
    }

    /// Sets the jobs that ran when the worker died, and whether the culprit is known.
    pub(in crate::supervisor) fn ran(&mut self, jobs: Vec<u64>, known: bool) {
        self.ran = jobs;
        self.is_culprit_known = known;
    }

    /// Returns the other jobs that ran, if `job` ended the worker or may have ended it.
    pub(in crate::supervisor) fn lost_jobs(&self, job: u64, why: &JobErrorKind) -> LostJobs {
        if matches!(why, JobErrorKind::Lost(WorkerExit::OtherJob { .. }))
            || !self.ran.contains(&job)
        {
            return LostJobs::default();
        }
        LostJobs {
            jobs: self
                .ran
                .iter()
                .copied()
                .filter(|&other| other != job)
                .collect(),
            are_innocent: self.is_culprit_known,
        }
    }

    /// Returns the last lines of a job, including lines that may be of other jobs.
    pub(in crate::supervisor) fn of(&self, job: u64) -> Vec<String> {
        self.last(|of| of == job || of == UNKNOWN_JOB)
    }

    /// Returns the last lines of all jobs.
    pub(in crate::supervisor) fn all(&self) -> Vec<String> {
        self.last(|_| true)
    }

    fn last(&self, wanted: impl Fn(u64) -> bool) -> Vec<String> {
        let (mut count, mut bytes) = (0, 0);
        let lines = self.lines.iter().rev();
        let mut last: Vec<_> = lines
            .filter(|line| wanted(line.job))
            .filter(|line| {
                if line.is_traceback {
                    return true;
                }
                count += 1;
                bytes += line.text.len();
                count <= LINES && bytes <= BYTES
            })
            .map(|line| line.text.clone())
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
        words.push(0, b"start", false);
        for n in 0..40 {
            words.push(7, format!("seven {n}").as_bytes(), false);
            words.push(8, b"eight", false);
        }
        let of = words.of(7);
        assert_eq!(of.len(), LINES);
        assert_eq!((of[0].as_str(), of[15].as_str()), ("seven 24", "seven 39"));
        assert!(words.of(9).is_empty());
        assert_eq!(words.of(0), ["start"]);
        assert_eq!(words.all().len(), LINES);
    }

    #[test]
    fn a_traceback_is_retained_whatever_follows() {
        let mut words = LastWords::default();
        words.push(7, b"before", false);
        (0..19).for_each(|n| words.push(7, format!("frame {n}").as_bytes(), true));
        (0..16).for_each(|_| words.push(7, b"after", false));
        let of = words.of(7);
        assert_eq!(of.len(), 19 + LINES);
        assert_eq!((of[0].as_str(), of[18].as_str()), ("frame 0", "frame 18"));
        assert!(words.of(8).is_empty());
    }

    #[test]
    fn long_lines_stay_below_the_byte_limit() {
        let mut words = LastWords::default();
        for _ in 0..16 {
            words.push(1, &[b'x'; 5000], false);
        }
        let of = words.of(1);
        assert!(of.len() >= 3 && of.iter().map(String::len).sum::<usize>() <= BYTES);
        assert!(of[0].ends_with("… (4488 more bytes)"), "{}", of[0]);
    }
}
