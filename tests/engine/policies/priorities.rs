//! The order in which jobs run.

use std::time::Duration;

use arenite::Priority::{High, Low, Normal};
use arenite::{Job, JobOptions, Priority};

use crate::harness::{Diary, Gate, Lab, note, pass, tests};

tests![highest_priority_first_then_oldest,];

fn line(diary: &str, text: &str) {
    note(diary, text);
}

fn send(lab: &Lab, diary: &str, options: &JobOptions, priority: Priority, n: u32) -> Job<()> {
    let text = format!("{priority:?} {n}");
    let job = lab.job(line, (diary, text)).options(options);
    job.priority(priority).submit()
}

/// Also among jobs of which each has its worker to itself.
fn highest_priority_first_then_oldest() {
    let exclusive = JobOptions::new().deadline(Duration::from_secs(3600));
    for (lanes, options) in [(1, JobOptions::new()), (3, exclusive)] {
        let lab = Lab::balanced_with(1, |builder| builder.lanes(lanes));
        (0..5).for_each(|_| highest_first(&lab, &options));
        let squares = lab.map(|n: u32| n * n, (0..1000).map(|n| (n,)));
        let squares = squares
            .options(&JobOptions::new().priority(Low))
            .map(Result::unwrap);
        assert!(squares.eq((0..1000).map(|n| n * n)));
    }
}

fn highest_first(lab: &Lab, options: &JobOptions) {
    let (gate, diary) = (Gate::new(), Diary::new());
    let path = diary.path();
    let running = lab.job(pass, (&gate.path(),)).options(options).submit();
    let held = gate.meet();
    let mut jobs = Vec::new();
    for n in 0..20 {
        for priority in [Low, Normal, High] {
            jobs.push(send(lab, &path, options, priority, n));
        }
    }
    // One of each is dropped; the order of the others stays.
    for at in [30, 31, 32] {
        jobs[at].cancel();
    }
    drop(held);
    running.wait().unwrap();
    let failed = jobs.into_iter().filter_map(|job| job.wait().err()).count();
    assert_eq!(failed, 3);
    let expected = [High, Normal, Low].into_iter().flat_map(|priority| {
        let numbers = (0..20).filter(|&n| n != 10);
        numbers.map(move |n| format!("{priority:?} {n}"))
    });
    assert_eq!(diary.lines(), expected.collect::<Vec<_>>());
}
