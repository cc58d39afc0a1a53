//! Many calls that wait at the same time, in a few workers.

use std::thread::sleep;
use std::time::Duration;

use super::noop::timed;
use super::{BenchError, Case, Goal, Running, Unit, ours};

/// The number of calls in one operation.
pub(super) const CALLS: u64 = 1000;
/// The time that each call waits.
const WAIT: Duration = Duration::from_millis(20);
/// The number of lanes of all workers together.
pub(super) const LANES: usize = 100;

pub(super) fn cases() -> Vec<Case> {
    let case = Case::new(
        "io-lanes",
        "1,000 calls that wait 20 ms each, on 100 lanes",
        Unit::Milliseconds,
    )
    .plan(1, 5, 1)
    .goals(&[Goal::AtMost(1.1, "ideal")])
    .system("arenite", ours::calls_that_wait)
    .system("ideal", |_| ideal());
    vec![case]
}

/// Makes a call that waits.
pub(super) fn call(n: u64) -> u64 {
    sleep(WAIT);
    n
}

/// Makes the calls of one lane one after the other, without the cost of submitting them.
fn ideal() -> Result<Running, BenchError> {
    Ok(Box::new(|times| {
        timed(times, |_| {
            (0..CALLS / LANES as u64).for_each(|_| sleep(WAIT));
            Ok(())
        })
    }))
}
