//! The handle for other threads, the figures, and the bell that the driver sleeps on.

use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Wake;

/// Figures of a stream at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamStats {
    /// Items that the source gave.
    pub taken: u64,
    /// Results that were given out.
    pub delivered: u64,
    /// Items that failed, at a stage or in the source.
    pub failed: u64,
    /// Items that came after all of their windows had been closed.
    pub late: u64,
    /// Windows that were closed.
    pub windows: u64,
    /// Items that were taken and have not come to an end.
    pub in_flight: usize,
    /// The most that were in flight at one time.
    pub most_in_flight: usize,
    /// Their bytes, where these are told: [`bytes_in_flight`](super::Stream::bytes_in_flight).
    pub bytes_in_flight: u64,
    /// What open windows hold: items, or windows of a fold.
    pub held_by_windows: usize,
}

/// What somebody wants of the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Wanted {
    Run,
    Drain,
    Stop,
}

/// What the driver shares with other threads.
#[derive(Debug)]
pub(super) struct Control {
    wanted: AtomicU8,
    rung: Mutex<bool>,
    bell: Condvar,
    stats: Mutex<StreamStats>,
}

impl Control {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            wanted: AtomicU8::new(Wanted::Run as u8),
            rung: Mutex::new(false),
            bell: Condvar::new(),
            stats: Mutex::default(),
        })
    }

    pub(super) fn wanted(&self) -> Wanted {
        // Acquire: pairs with `want`.
        match self.wanted.load(Ordering::Acquire) {
            0 => Wanted::Run,
            1 => Wanted::Drain,
            _ => Wanted::Stop,
        }
    }

    fn want(&self, wanted: Wanted) {
        // Release: what its caller did before is seen by who obeys; pairs with `wanted`.
        self.wanted.fetch_max(wanted as u8, Ordering::AcqRel);
        self.ring();
    }

    /// Wakes the driver: after whatever it is to see was written.
    pub(super) fn ring(&self) {
        *lock(&self.rung) = true;
        self.bell.notify_one();
    }

    /// Sleeps until somebody rings, or has done so since the last sleep.
    pub(super) fn sleep(&self) {
        let mut rung = lock(&self.rung);
        while !*rung {
            rung = self.bell.wait(rung).unwrap_or_else(PoisonError::into_inner);
        }
        *rung = false;
    }

    pub(super) fn publish(&self, stats: StreamStats) {
        *lock(&self.stats) = stats;
    }

    pub(super) fn stats(&self) -> StreamStats {
        *lock(&self.stats)
    }
}

/// Jobs ring as well.
impl Wake for Control {
    fn wake(self: Arc<Self>) {
        self.ring();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ring();
    }
}

/// No code of others runs under these locks.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends a stream, or looks at it, from any thread. See [`Stream::handle`](super::Stream::handle).
///
/// ```
/// use arenite::{Engine, stream::Stream};
///
/// let engine = Engine::inline();
/// let stream = Stream::new(0u64..).stage(|n: u64| n * n, ());
/// let handle = stream.handle();
/// let mut squares = 0;
/// for square in stream.run(&engine) {
///     square?;
///     squares += 1;
///     if squares == 10 {
///         // An endless source; what was taken from it is finished.
///         handle.drain();
///     }
/// }
/// assert_eq!(handle.stats().taken, squares);
/// # Ok::<(), arenite::stream::StreamError>(())
/// ```
#[derive(Clone)]
pub struct Handle(pub(super) Arc<Control>);

impl Handle {
    /// Takes no more from the source and finishes what was taken, open windows included. A source that waits inside of
    /// `next` is heard first, unless it has [a thread of its own](super::Stream::spawn).
    pub fn drain(&self) {
        self.0.want(Wanted::Drain);
    }

    /// Ends the stream now: what is in flight is cancelled, and the iterator ends.
    pub fn stop(&self) {
        self.0.want(Wanted::Stop);
    }

    /// Figures as they were when the driver last looked.
    pub fn stats(&self) -> StreamStats {
        self.0.stats()
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
