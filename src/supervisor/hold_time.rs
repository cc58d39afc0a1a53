//! Measures how long the engine's lock is held, in builds for tests.
//!
//! Every thread that submits or waits needs the lock, so a thread that holds it for long delays all others.

use std::cell::Cell;
use std::panic::Location;
use std::time::Duration;

use crate::sys::clock;

/// The longest time that a thread may work while it holds the lock. The goal is a millisecond. In a run of the suites,
/// in this hardly optimized build and with twenty other programs running, the lock is taken many millions of times and
/// held longer than the goal some hundred times: the start of an actor with a megabyte of arguments and the recovery
/// after the end of a worker take up to 30 ms; a recursion with a hundred thousand open jobs takes up to 100 ms, in
/// calls of `free` that merge all small blocks freed earlier. The rest of the limit is for machines that give this
/// process no core for a while, which counts as work.
const LONGEST: Duration = Duration::from_millis(300);

thread_local! {
    /// Processor time of this thread in checks that the program wrote, and in its panic hook if a check panics.
    static FOREIGN: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    /// The number of locks of engines that this thread holds.
    static HELD: Cell<u32> = const { Cell::new(0) };
}

/// Ends the process if this thread holds the lock of an engine. For work whose time nothing bounds.
pub(super) fn expect_released(work: &str) {
    if HELD.get() > 0 {
        eprintln!("arenite: {work} while this thread holds the lock of an engine");
        std::process::abort();
    }
}

/// Calls a check of the program. Its time does not count.
pub(super) fn uncounted<R>(check: impl FnOnce() -> R) -> R {
    let since = clock::thread_cpu_time();
    let value = check();
    let took = clock::thread_cpu_time().saturating_sub(since);
    FOREIGN.set(FOREIGN.get() + took);
    value
}

/// The processor time of the thread when it took the lock, and the code that took it.
///
/// Processor time is measured because a thread may be suspended at any moment on a crowded machine, which is not the
/// fault of the code under the lock. That code does not sleep.
#[derive(Debug)]
pub(super) struct HoldTime {
    since: Duration,
    caller: &'static Location<'static>,
}

impl HoldTime {
    #[track_caller]
    pub(super) fn begin() -> Self {
        HELD.set(HELD.get() + 1);
        Self {
            since: clock::thread_cpu_time().saturating_sub(FOREIGN.get()),
            caller: Location::caller(),
        }
    }

    /// Ends the process if the lock was held for too long: a panic would be caught by guards for other panics.
    pub(super) fn end(&self) {
        HELD.set(HELD.get() - 1);
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
