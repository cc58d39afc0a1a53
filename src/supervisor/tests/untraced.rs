//! Without a trace, there is no extra work: not in a worker, and not in threads that submit jobs or take answers.

use super::*;
use crate::link::SLOTS;
use crate::sys::clock;
use crate::trace::{TraceConfig, TraceOwner, Tracer};

const JOBS: u64 = 1000;

fn tracer(folder: &tempfile::TempDir) -> TraceOwner {
    let plan = TraceConfig {
        events: Some(folder.path().join("events.json")),
        report: None,
        attempts: 10 * JOBS,
    };
    Tracer::start(plan, "test").unwrap()
}

/// Number of slots into which a real worker has written times, after this number of jobs.
fn times_written(tracer: Option<TraceOwner>) -> usize {
    let (shared, monitor) = start(arena(1), settings(1, 1), tracer).unwrap();
    for _ in 0..JOBS {
        let id = submit(&shared);
        let ended = shared.wait(id, <() as Reply>::receive);
        ended.unwrap();
    }
    let written = {
        let state = shared.lock();
        let stamps = (0..SLOTS as u64).map(|position| state.lanes[0].producer.stamps(position));
        stamps
            .map(|(began, ended)| usize::from(began > 0) + usize::from(ended > 0))
            .sum()
    };
    shared.close(Closing::Now, None);
    monitor.join().unwrap();
    shared.end_trace();
    written
}

#[test]
fn a_worker_takes_no_times_without_a_trace() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(times_written(None), 0);
    assert_eq!(times_written(Some(tracer(&folder))), 2 * SLOTS);
}

/// Number of times that this thread reads the clock for this number of jobs, whose worker is a handle in this process.
fn looks_at_the_clock(tracer: Option<TraceOwner>) -> u64 {
    let (shared, mut consumers) = fixture(1, 1);
    if let Some(owner) = &tracer {
        let state = &mut *shared.lock();
        state.trace.begin(Arc::clone(&owner.0), &state.lanes);
    }
    let before = clock::reads();
    for n in 0..JOBS {
        let id = submit(&shared);
        if n % 10 == 9 {
            // Some jobs never run.
            shared.abandon(id);
            continue;
        }
        assert_eq!(consumers[0].next(), Next::Run);
        consumers[0].finish(false, 0, None);
        assert_eq!(answer(&shared, id).as_deref(), Some("value"));
    }
    die(&shared, 0);
    clock::reads() - before
}

#[test]
fn the_supervisor_takes_no_times_without_a_trace() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(looks_at_the_clock(None), 0);
    // The clock is read for the submission, the placement and the end of a job.
    let looks = looks_at_the_clock(Some(tracer(&folder)));
    assert!(looks >= 3 * JOBS / 10 * 9, "{looks}");
}
