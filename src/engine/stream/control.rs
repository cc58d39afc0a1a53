//! The handle for other threads, the statistics, and the notification that wakes the sleeping driver.

use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::Wake;

use crate::sync::lock;

/// Statistics of a stream at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamStats {
    /// Number of items taken from the source.
    pub taken: u64,
    /// Number of delivered results.
    pub delivered: u64,
    /// Number of items that failed, at a stage or in the source.
    pub failed: u64,
    /// Number of items that arrived after all of their windows had closed.
    pub late: u64,
    /// Number of closed windows.
    pub windows: u64,
    /// Number of items in flight: taken from the source and not yet delivered, dropped or in a window.
    pub in_flight: usize,
    /// The maximum number of items in flight at one time.
    pub most_in_flight: usize,
    /// Bytes of the items in flight, if [`bytes_in_flight`](super::Stream::bytes_in_flight) measures them.
    pub bytes_in_flight: u64,
    /// Number of items in open windows; for a fold, number of open windows.
    pub held_by_windows: usize,
}

/// What other threads have requested from the driver. A later variant overrides an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Wanted {
    Run,
    Drain,
    Stop,
}

/// The state that the driver shares with other threads.
#[derive(Debug)]
pub(super) struct Control {
    wanted: AtomicU8,
    is_notified: Mutex<bool>,
    changed: Condvar,
    stats: Mutex<StreamStats>,
}

impl Control {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            wanted: AtomicU8::new(Wanted::Run as u8),
            is_notified: Mutex::new(false),
            changed: Condvar::new(),
            stats: Mutex::default(),
        })
    }

    pub(super) fn wanted(&self) -> Wanted {
        // Acquire: pairs with the release in `want`.
        match self.wanted.load(Ordering::Acquire) {
            0 => Wanted::Run,
            1 => Wanted::Drain,
            _ => Wanted::Stop,
        }
    }

    fn want(&self, wanted: Wanted) {
        // Release: pairs with the acquire in `wanted`, so the driver sees everything that the caller did before.
        self.wanted.fetch_max(wanted as u8, Ordering::AcqRel);
        self.notify();
    }

    /// Wakes the driver. Call it after writing the data that the driver reads.
    pub(super) fn notify(&self) {
        *lock(&self.is_notified) = true;
        self.changed.notify_one();
    }

    /// Sleeps until notified. Returns at once if there was a notification since the last sleep.
    pub(super) fn sleep(&self) {
        let is_notified = lock(&self.is_notified);
        let waited = self
            .changed
            .wait_while(is_notified, |is_notified| !*is_notified);
        *waited.unwrap_or_else(PoisonError::into_inner) = false;
    }

    pub(super) fn publish(&self, stats: StreamStats) {
        *lock(&self.stats) = stats;
    }

    pub(super) fn stats(&self) -> StreamStats {
        *lock(&self.stats)
    }
}

/// `Control` is the waker of a stage's jobs.
impl Wake for Control {
    fn wake(self: Arc<Self>) {
        self.notify();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.notify();
    }
}

/// Ends or inspects a stream from any thread. See [`Stream::handle`](super::Stream::handle).
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
///         // The source is endless; items taken from it are finished.
///         handle.drain();
///     }
/// }
/// assert_eq!(handle.stats().taken, squares);
/// # Ok::<(), arenite::stream::StreamError>(())
/// ```
#[derive(Clone)]
pub struct Handle(pub(super) Arc<Control>);

impl Handle {
    /// Makes the stream take no more items from its source, and finish the items that it has taken, including open
    /// windows. A source that blocks inside `next` has to return first, unless it runs on [a thread of its
    /// own](super::Stream::spawn).
    pub fn drain(&self) {
        self.0.want(Wanted::Drain);
    }

    /// Ends the stream now: jobs in flight are cancelled, and the iterator of results ends.
    pub fn stop(&self) {
        self.0.want(Wanted::Stop);
    }

    /// Returns the statistics that the driver published last.
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
