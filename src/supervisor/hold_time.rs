//! How long the engine's lock is held, in builds for tests.
//!
//! Every thread that submits or waits needs the lock, so whatever one thread does with it delays all others.

use std::cell::Cell;
use std::panic::Location;
use std::time::Duration;

use crate::sys::clock;

/// The longest that one thread may work with the lock held. The goal is a millisecond. In a whole run of the suites, in
/// this hardly optimized build beside twenty other programs, some hundred of many millions of times are above it: the
/// start of an actor with a megabyte of arguments and the recovery from the end of a worker take up to 30 ms; a
/// recursion with a hundred thousand open jobs up to 100 ms, in calls of `free` that merge all small blocks freed
/// before. The rest is for machines that give this one no core for a while, which counts as work.
const LONGEST: Duration = Duration::from_millis(300);

thread_local! {
    /// Processor time of this thread in checks that the program wrote, and in its panic hook if one panics.
    static FOREIGN: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// Calls a check of the program, the time of which does not count.
pub(super) fn uncounted<R>(check: impl FnOnce() -> R) -> R {
    let since = clock::thread_cpu_time();
    let value = check();
    let took = clock::thread_cpu_time().saturating_sub(since);
    FOREIGN.set(FOREIGN.get() + took);
    value
}

/// The lock is held since the thread had worked this long, by this caller.
///
/// Measured is the processor time of the thread: on a crowded machine it may be suspended at any moment, which is no
/// fault of the code under the lock. That code does not sleep.
#[derive(Debug)]
pub(super) struct HoldTime {
    since: Duration,
    caller: &'static Location<'static>,
}

impl HoldTime {
    #[track_caller]
    pub(super) fn begin() -> Self {
        Self {
            since: clock::thread_cpu_time().saturating_sub(FOREIGN.get()),
            caller: Location::caller(),
        }
    }

    /// Ends the program if it was too long: a panic here would be caught by guards that are meant for other panics.
    pub(super) fn end(&self) {
        let held = clock::thread_cpu_time().saturating_sub(self.since + FOREIGN.get());
        if held > LONGEST {
            eprintln!(
                "arenite: the lock of the engine was held for {held:?} by {}; the limit is {LONGEST:?}",
                self.caller
            );
            std::process::abort();
        }
    }
}
