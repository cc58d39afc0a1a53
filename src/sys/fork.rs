//! Whether this process is still the one that made something, or a copy of it that `fork` has left behind.
//!
//! A copy has the memory, the descriptors and one of the threads, but neither the children nor the locks of files: what it does
//! with an engine would be done behind the back of the process that has it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Once, OnceLock};

/// How many times removed by `fork` this process is from the first that asked.
static COPIES: AtomicU32 = AtomicU32::new(0);

/// What a copy does first.
static FIRST: OnceLock<fn()> = OnceLock::new();

/// From now on each copy that `fork` makes of this process calls `first` before it goes on. Copies that are made by the bare
/// system call do not. Once: later ones are not called.
///
/// In the copy there is one thread, and a lock may be held by one of those that are not there.
pub fn first_in_copies(first: fn()) {
    let _ = Original::here();
    let _ = FIRST.set(first);
}

/// The process that made something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Original(u32);

impl Original {
    /// This one.
    pub fn here() -> Self {
        static REGISTERED: Once = Once::new();
        REGISTERED.call_once(|| {
            // SAFETY: the handler stores to atomics only, which may be done in a child of any program.
            // Without memory for it copies are not told apart; nothing else is lost.
            let _ = unsafe { libc::pthread_atfork(None, None, Some(count)) };
        });
        Self(COPIES.load(Ordering::Relaxed))
    }

    /// Whether that is this process, and not one that it was copied from.
    #[inline]
    pub fn is_here(self) -> bool {
        // Relaxed: written when a process begins, by its only thread.
        COPIES.load(Ordering::Relaxed) == self.0
    }

    /// Ends what a copy of that process cannot do.
    ///
    /// # Panics
    /// In a copy.
    #[inline]
    #[track_caller]
    pub fn assert_here(self) {
        if !self.is_here() {
            belongs_elsewhere();
        }
    }
}

#[cold]
#[track_caller]
fn belongs_elsewhere() -> ! {
    panic!(
        "this engine belongs to the process that built it, and this one is a copy which fork() has made: build an engine after \
         forking, or exec a program in the copy"
    )
}

/// In a copy, before anything else runs there.
extern "C" fn count() {
    COPIES.fetch_add(1, Ordering::Relaxed);
    // What a worker leaves behind is not mapped in its copy, which may end in its own way.
    super::fault::forget_note();
    super::abort::forget_note();
    if let Some(first) = FIRST.get() {
        first();
    }
}
