//! Values that a lane keeps from job to job.

use std::any::{Any, TypeId};
use std::cell::RefCell;
use std::fmt;
use std::ops::{Deref, DerefMut};

use super::rng;

/// Values that a lane keeps. One more costs the one that was not used for the longest time.
const KEPT: usize = 64;

thread_local! {
    /// What is kept on this thread, the latest last.
    static SCRATCH: RefCell<Vec<Kept>> = const { RefCell::new(Vec::new()) };
}

/// The type of a value, and its key among those of this type.
type Id = (TypeId, u64);

struct Kept {
    id: Id,
    value: Box<dyn Any>,
}

/// In a kernel: a value of type `T` that stays with the worker from job to job. The first job that asks for it makes it, later
/// ones on the same worker find it as it was left: buffers, tables, plans, models, whatever takes long to make.
///
/// ```
/// use arenite::Array;
///
/// /// What one worker needs for its work, apart from arguments and results.
/// struct Buffers {
///     sorted: Vec<f32>,
/// }
///
/// fn median(values: &[f32]) -> Option<f32> {
///     let mut buffers = arenite::scratch(|| Buffers { sorted: Vec::new() });
///     buffers.sorted.clear();
///     buffers.sorted.extend_from_slice(values);
///     buffers.sorted.sort_by(f32::total_cmp);
///     buffers.sorted.get(values.len() / 2).copied()
/// }
///
/// let engine = arenite::Engine::inline();
/// let values = engine.from_slice(&[3.0, 1.0, 2.0])?;
/// for _round in 0..3 {
///     assert_eq!(engine.submit(median, (&values,)).wait()?, Some(2.0));
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Which worker runs a job is not said, so a result must not depend on what is found: it is a cache. [`rng`](crate::rng) is
/// careful about that: generators that `make` asks for move none of those that the job asks for. The worker's 64 values
/// used last are kept (those of each [lane](crate::engine::Builder::lanes), which shares none); all of them end with it, also
/// when it is
/// [recycled](crate::engine::Builder::recycle_after_jobs). A job that panics while it has a value loses it. They count as
/// private memory ([`memory_limit`](crate::engine::Builder::memory_limit),
/// [`recycle_above`](crate::engine::Builder::recycle_above)).
///
/// Arrays must not be kept: a job whose array handles are alive after its end fails with
/// [`Escaped`](crate::JobErrorKind::Escaped). There is no need to: a worker has all arrays mapped, and passing one costs the
/// same at each call, whatever its size.
///
/// Outside a kernel and with an inline engine values are kept by the calling thread until it ends.
pub fn scratch<T: 'static>(make: impl FnOnce() -> T) -> Scratch<T> {
    scratch_for(0, make)
}

/// As [`scratch`], with one value for each key: for a size, for the number of a model. Key 0 is that of [`scratch`] itself.
///
/// ```
/// fn powers(of: u64, upto: u64) -> u64 {
///     let table = arenite::scratch_for(of, || {
///         std::iter::successors(Some(1), |power: &u64| power.checked_mul(of)).collect::<Vec<_>>()
///     });
///     table.iter().filter(|&&power| power <= upto).count() as u64
/// }
///
/// let engine = arenite::Engine::inline();
/// assert_eq!(engine.submit(powers, (2, 1000)).wait()?, 10);
/// assert_eq!(engine.submit(powers, (10, 1000)).wait()?, 4);
/// # Ok::<(), arenite::JobError>(())
/// ```
pub fn scratch_for<T: 'static>(key: u64, make: impl FnOnce() -> T) -> Scratch<T> {
    let id = (TypeId::of::<T>(), key);
    let value = take(id).and_then(|kept| kept.downcast().ok());
    let value = value.unwrap_or_else(|| Box::new(rng::aside(make)));
    Scratch {
        id,
        value: Some(value),
    }
}

fn take(id: Id) -> Option<Box<dyn Any>> {
    let take = |kept: &RefCell<Vec<Kept>>| {
        let mut kept = kept.borrow_mut();
        let at = kept.iter().rposition(|kept| kept.id == id)?;
        Some(kept.remove(at).value)
    };
    SCRATCH.try_with(take).ok().flatten()
}

/// Keeps a value, and returns one that goes for it.
fn keep(id: Id, value: Box<dyn Any>) -> Option<Kept> {
    let keep = |kept: &RefCell<Vec<Kept>>| {
        let mut kept = kept.borrow_mut();
        let same = kept.iter().position(|kept| kept.id == id);
        let oldest = (kept.len() == KEPT).then_some(0);
        let gone = same.or(oldest).map(|at| kept.remove(at));
        kept.push(Kept { id, value });
        gone
    };
    // While the thread is being torn down nothing is kept.
    SCRATCH.try_with(keep).ok().flatten()
}

/// A value that this worker keeps: see [`scratch`]. It goes back when this is dropped.
#[must_use = "a value that nobody looks at need not be made"]
pub struct Scratch<T: 'static> {
    id: Id,
    /// There until the drop.
    value: Option<Box<T>>,
}

const THERE: &str = "the value is there until it is dropped";

impl<T> Deref for Scratch<T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.value.as_deref().expect(THERE)
    }
}

impl<T> DerefMut for Scratch<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.value.as_deref_mut().expect(THERE)
    }
}

impl<T> Drop for Scratch<T> {
    fn drop(&mut self) {
        // What a panic has left half done is no use to the next job.
        if let Some(value) = self.value.take()
            && !std::thread::panicking()
        {
            // Dropped here, where its own drop may use scratch again.
            rng::aside(|| drop(keep(self.id, value)));
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for Scratch<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Scratch").field(&**self).finish()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::rc::Rc;

    use super::*;

    /// Each test on a thread of its own, so that nothing is left of others.
    fn alone(test: fn()) {
        std::thread::spawn(test).join().unwrap();
    }

    #[test]
    fn a_value_is_found_as_it_was_left() {
        alone(|| {
            scratch(|| vec![1]).push(2);
            scratch(|| -> Vec<i32> { unreachable!("there is one") }).push(3);
            assert_eq!(*scratch(Vec::<i32>::new), [1, 2, 3]);
            assert!(scratch(Vec::<u8>::new).is_empty(), "another type");
            assert!(scratch_for(1, Vec::<i32>::new).is_empty(), "another key");
            assert_eq!(scratch_for(0, Vec::<i32>::new).len(), 3, "the same key");
        });
    }

    #[test]
    fn two_at_a_time_are_two_values_of_which_one_stays() {
        alone(|| {
            let mut first = scratch(|| Rc::new(1));
            let watched = Rc::downgrade(&first);
            let second = scratch(|| Rc::new(2));
            *Rc::get_mut(&mut scratch(|| Rc::new(3))).unwrap() = 4;
            assert_eq!((**first, **second), (1, 2));
            let replaced = Rc::new(5);
            *first = replaced;
            assert!(watched.upgrade().is_none());
            drop(first);
            drop(second);
            assert_eq!(**scratch(|| Rc::new(6)), 2);
        });
    }

    #[test]
    fn the_latest_are_kept() {
        alone(|| {
            let values: Vec<Rc<u64>> = (0..KEPT as u64 + 10).map(Rc::new).collect();
            let kept = || {
                values
                    .iter()
                    .filter(|value| Rc::strong_count(value) == 2)
                    .count()
            };
            for value in &values {
                assert!(Rc::ptr_eq(
                    &scratch_for(**value, || Rc::clone(value)),
                    value
                ));
                // The first is used all the time.
                assert_eq!(**scratch_for(0, || Rc::new(7_u64)), 0);
            }
            assert_eq!(kept(), KEPT);
            assert_eq!(Rc::strong_count(&values[0]), 2);
            assert_eq!(Rc::strong_count(&values[1]), 1);
        });
    }

    #[test]
    fn a_panic_loses_the_value_that_it_had() {
        alone(|| {
            let value = Rc::new(());
            drop(scratch(|| Rc::clone(&value)));
            drop(scratch_for(1, || Rc::clone(&value)));
            let panic = std::panic::AssertUnwindSafe(|| {
                let _has = scratch(|| Rc::new(()));
                panic!("half done");
            });
            assert!(std::panic::catch_unwind(panic).is_err());
            assert_eq!(Rc::strong_count(&value), 2, "the other one stays");
        });
    }

    /// Asks for a value when it goes.
    struct Nested;
    impl Drop for Nested {
        fn drop(&mut self) {
            drop(scratch(|| 0u32));
        }
    }

    #[test]
    fn a_value_may_use_scratch_when_it_goes() {
        alone(|| {
            (0..KEPT as u64 + 10).for_each(|key| drop(scratch_for(key, || Nested)));
        });
    }
}
