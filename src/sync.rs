//! Atomics, fences and cells that loom can replace by its own, and named kill points ([`point!`]).
//!
//! Protocol code (the link layer) takes its atomics from here. A build with `--cfg arenite_loom` replaces these atomics
//! by loom's, and the models in `link/loom.rs` explore every order of their accesses. The rest of the crate uses `std`
//! directly. [`catch_panic`] calls foreign code.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
#[cfg(not(arenite_loom))]
use std::sync::{Mutex, MutexGuard, PoisonError};

#[cfg(all(feature = "points", not(arenite_loom)))]
#[path = "../tests/support/points.rs"]
pub mod points;

/// Marks a kill point between two steps of a protocol. Its name must be listed in `points.rs`. Expands to nothing
/// without the feature `points`.
macro_rules! point {
    ($name:literal) => {
        #[cfg(all(feature = "points", not(arenite_loom)))]
        {
            const INDEX: usize = $crate::sync::points::index($name);
            $crate::sync::points::pass(INDEX);
        }
        #[cfg(all(arenite_loom, test))]
        $crate::sync::death::step();
    };
}
pub(crate) use point;

/// Kill points in a loom model: a modelled thread may end at any of them, as a killed worker does.
#[cfg(all(arenite_loom, test))]
pub(crate) mod death {
    use std::cell::Cell;
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

    loom::thread_local! {
        static LEFT: Cell<u32> = Cell::new(u32::MAX);
    }

    struct Died;

    /// Runs `f` up to the `point`-th kill point, counted from 1. Returns `None` if `f` reached that point.
    pub(crate) fn at<T>(point: u32, f: impl FnOnce() -> T) -> Option<T> {
        LEFT.with(|left| left.set(point));
        let ended = catch_unwind(AssertUnwindSafe(f));
        LEFT.with(|left| left.set(u32::MAX));
        match ended {
            Ok(value) => Some(value),
            Err(payload) if payload.is::<Died>() => None,
            Err(payload) => resume_unwind(payload),
        }
    }

    pub(crate) fn step() {
        let is_reached = LEFT.with(|left| {
            let now = left.get();
            left.set(now.saturating_sub(u32::from(now != u32::MAX)));
            now == 1
        });
        if is_reached {
            resume_unwind(Box::new(Died));
        }
    }
}

/// The first value of counters that may wrap. In test builds it is close to `u32::MAX`, so that all test suites cover
/// the wrap.
#[cfg(not(arenite_loom))]
pub(crate) const FIRST_COUNT: u32 = if cfg!(any(test, feature = "points")) {
    u32::MAX - 3
} else {
    0
};

/// Returns whether workers survive the death of their supervisor, which only tests request.
#[cfg(not(arenite_loom))]
pub(crate) fn orphans_live() -> bool {
    #[cfg(feature = "points")]
    return points::orphans_live();
    #[cfg(not(feature = "points"))]
    false
}

#[cfg(not(arenite_loom))]
pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

#[cfg(arenite_loom)]
pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// Memory that one side writes and the other side reads. The protocol ensures that they do not do so at the same time.
///
/// loom's cell checks at each access that two accesses never overlap. Without loom, a cell is an `UnsafeCell` with the
/// same interface.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct Cell<T>(
    #[cfg(arenite_loom)] loom::cell::UnsafeCell<T>,
    #[cfg(not(arenite_loom))] std::cell::UnsafeCell<T>,
);

impl<T> Cell<T> {
    /// Creates a cell on the heap, for models and tests. Cells in mapped memory are never constructed.
    #[cfg(any(test, arenite_loom))]
    pub(crate) fn new(value: T) -> Self {
        #[cfg(arenite_loom)]
        return Self(loom::cell::UnsafeCell::new(value));
        #[cfg(not(arenite_loom))]
        return Self(std::cell::UnsafeCell::new(value));
    }

    /// Calls `f` with a pointer that may be read through.
    #[inline]
    pub(crate) fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
        #[cfg(arenite_loom)]
        return self.0.with(f);
        #[cfg(not(arenite_loom))]
        return f(self.0.get());
    }

    /// Calls `f` with a pointer that may be written through.
    #[inline]
    pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        #[cfg(arenite_loom)]
        return self.0.with_mut(f);
        #[cfg(not(arenite_loom))]
        return f(self.0.get());
    }
}

/// Locks a mutex, and ignores poisoning: a panic under a lock is a bug of this crate, and the value is still the best
/// there is.
#[cfg(not(arenite_loom))]
#[inline]
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Calls foreign code: a waker, a drop, a function of the program. Returns `None` if it panics; the panic hook has then
/// printed the message.
pub(crate) fn catch_panic<T>(call: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(call))
        .map_err(drop_payload)
        .ok()
}

/// Drops the payload of a panic. The payload's destructor is foreign code and may panic too; that panic does not
/// propagate.
pub(crate) fn drop_payload(payload: Box<dyn Any + Send>) {
    if let Err(thrown) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        // Leaked: dropping this payload could panic again.
        std::mem::forget(thrown);
    }
}

/// Prefetches the cache line of `at`, which will be read soon.
#[inline(always)]
pub(crate) fn prefetch_read<T>(at: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch is a hint: it cannot fault.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(at).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}
