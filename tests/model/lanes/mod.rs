//! Several lanes in one worker: concurrent jobs, and what happens to the others when one of them ends the process.

mod arrays;
mod deadlines;
mod deaths;
mod sides;

use std::hint::black_box;

use arenite::{Array, Job, JobError, JobErrorKind, WorkerExit};
use nix::sys::signal::{Signal, raise};

use crate::harness::{Lab, at_gates, pass};

/// The tests of all parts.
pub fn tests() -> Vec<libtest_mimic::Trial> {
    let parts = [
        sides::tests(),
        arrays::tests(),
        deadlines::tests(),
        deaths::tests(),
    ];
    parts.into_iter().flatten().collect()
}

fn lanes(workers: usize, lanes: usize) -> Lab {
    Lab::with(workers, |builder| builder.lanes(lanes))
}

/// Waits at the gate, and returns the process id.
fn at_gate(gate: &str) -> u32 {
    pass(gate);
    std::process::id()
}

/// Jobs that have each reached their gate.
struct Waiting {
    jobs: Vec<Job<u32>>,
    held: Vec<std::fs::File>,
}

impl Waiting {
    fn new(lab: &Lab, count: usize) -> Self {
        let (jobs, held) = at_gates(count, |gate| lab.submit(at_gate, (gate,)));
        Self { jobs, held }
    }

    /// Releases them; returns the process id of each.
    fn go(self) -> Vec<u32> {
        drop(self.held);
        let pids = self.jobs.into_iter().map(|job| job.wait().unwrap());
        pids.collect()
    }

    /// Expects all of them to fail.
    fn fail(self, lab: &Lab) -> Vec<JobError> {
        let errors = self.jobs.into_iter().map(|job| lab.failure_of(job));
        let errors = errors.collect();
        drop(self.held);
        errors
    }
}

/// Ends this process.
fn end(way: u32) {
    #[allow(unconditional_recursion, reason = "until the stack is full")]
    fn deep(n: u64) -> u64 {
        let here = black_box([n; 64]);
        deep(n + 1) + here[0]
    }
    match way {
        0 => std::process::abort(),
        // SAFETY: unsound on purpose, to crash.
        1 => unsafe { black_box(std::ptr::without_provenance_mut::<u8>(8)).write_volatile(1) },
        2 => std::process::exit(3),
        3 => drop(black_box(deep(0))),
        4 => raise(Signal::SIGFPE).unwrap(),
        5 => raise(Signal::SIGBUS).unwrap(),
        6 => std::mem::forget(Array::from_fn(1000, |i| i as u32)),
        _ => {
            let mut heap = Vec::new();
            loop {
                heap.push(black_box(vec![1_u8; 1 << 20]));
            }
        }
    }
}

/// Checks that each of them was lost because of the culprit, and that its error names them.
fn assert_lost(lost: &[JobError], culprit: &JobError) {
    for error in lost {
        let expected = JobErrorKind::Lost(WorkerExit::OtherJob {
            job: culprit.job(),
            cause: Box::new(culprit.kind().clone()),
        });
        assert_eq!(*error.kind(), expected, "{error}");
        assert!(error.lost_jobs().is_empty(), "{error}");
        assert_eq!(error.worker(), culprit.worker());
        let text = error.to_string();
        assert!(
            text.contains(&format!("because of job {}", culprit.job().unwrap())),
            "{text}"
        );
    }
    let lost: Vec<u64> = lost.iter().filter_map(JobError::job).collect();
    assert_eq!(culprit.lost_jobs(), lost, "{culprit}");
    if lost.len() > 1 {
        let named: Vec<_> = lost.iter().map(u64::to_string).collect();
        let named = format!("jobs {} were lost with it", named.join(", "));
        assert!(culprit.to_string().contains(&named), "{culprit}");
    }
}
