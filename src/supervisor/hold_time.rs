//! How long the engine's lock is held, in builds for tests.
//!
//! Every thread that submits or waits needs the lock, so whatever one thread does with it delays all others.

use std::panic::Location;
use std::time::Duration;

use crate::sys::clock;

/// The longest that one thread may work with the lock held. A release build stays below a millisecond. This is a build
/// for tests: the library is hardly optimized, each step looks for kill points, and a virtual machine that is given no
/// core for a while (tens of milliseconds on a crowded host) counts that as work.
const LONGEST: Duration = Duration::from_millis(50);

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
            since: clock::thread_cpu_time(),
            caller: Location::caller(),
        }
    }

    /// Ends the program if it was too long: a panic here would be caught by guards that are meant for other panics.
    pub(super) fn end(&self) {
        let held = clock::thread_cpu_time().saturating_sub(self.since);
        if held > LONGEST {
            eprintln!(
                "arenite: the lock of the engine was held for {held:?} by {}; the limit is {LONGEST:?}",
                self.caller
            );
            std::process::abort();
        }
    }
}
