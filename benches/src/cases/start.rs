//! The time from no worker to the first result.

use std::time::Duration;

use super::{BenchError, Case, Goal, Reading, Setup, Unit, ours};
use crate::spawn;

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "start",
            "Start 2 workers and wait for the first result",
            Unit::Milliseconds,
        )
        .plan(3, 9, 1)
        .goals(&[
            Goal::AtMost(2.0, "bare-spawn"),
            Goal::AtMost(1.0, "procspawn"),
        ])
        .system("arenite", ours::start)
        .system("bare-spawn", |setup| {
            let workers = setup.workers;
            Ok(Box::new(move |times| each(times, || spawn::bare(workers))))
        })
        .system("procspawn", |setup: &Setup| {
            let workers = setup.workers;
            Ok(Box::new(move |times| {
                each(times, || spawn::procspawn_pool(workers))
            }))
        }),
    ]
}

/// Repeats an operation that returns its own time. The time does not include the end of the operation's processes.
pub(super) fn each(
    times: u64,
    mut operation: impl FnMut() -> Result<Duration, BenchError>,
) -> Result<Reading, BenchError> {
    (0..times)
        .map(|_| operation())
        .collect::<Result<_, _>>()
        .map(Reading::Each)
}
