//! Values that a lane keeps for later jobs: [`scratch`].

use std::any::{Any, TypeId};
use std::cell::RefCell;
use std::fmt;
use std::ops::{Deref, DerefMut};

use super::rng;

/// Max number of values that a lane keeps. If there are more, the least recently used value is dropped.
const MAX_VALUES: usize = 64;

thread_local! {
    /// The values of this thread, the most recently used last.
    static SCRATCH: RefCell<Vec<CachedValue>> = const { RefCell::new(Vec::new()) };
}

/// The type of a value, and its key among the values of this type.
type Id = (TypeId, u64);

struct CachedValue {
    id: Id,
    value: Box<dyn Any>,
}

/// In a kernel: returns a value of type `T` that stays in the worker for later jobs. The first job that requests the
/// value calls `make`; later jobs on the same worker get the value as the previous job left it. Use it for values that
/// are slow to make: buffers, tables, plans, models.
///
/// ```
/// use arenite::Array;
///
/// /// Buffers that are reused by all jobs of a worker.
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
/// The value is a cache: any worker may run a job, so a result must not depend on the value found. Generators that
/// `make` gets from [`rng`](crate::rng) do not change the random numbers of the job.
///
/// A worker keeps the 64 most recently used values, per [lane](crate::engine::Builder::lanes). They are dropped with
/// the worker, also when the worker is [recycled](crate::engine::Builder::recycle_after_jobs). If a job panics while it
/// uses a value, the value is dropped. Values count as private memory
/// ([`memory_limit`](crate::engine::Builder::memory_limit),
/// [`recycle_above_bytes`](crate::engine::Builder::recycle_above_bytes)).
///
/// A value must not contain arrays: a job whose array handles are alive after its end fails with
/// [`WorkerExit::Escaped`](crate::WorkerExit::Escaped). Pass arrays as arguments instead: a worker has all arrays
/// mapped, so passing one costs the same for any size.
///
/// Outside a kernel and with an inline engine, values belong to the calling thread until it ends.
pub fn scratch<T: 'static>(make: impl FnOnce() -> T) -> Scratch<T> {
    scratch_for(0, make)
}

/// Like [`scratch`], with one value for each key, such as a size or the number of a model. Key 0 is the key of
/// [`scratch`].
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
    let value = take(id).and_then(|value| value.downcast().ok());
    let value = value.unwrap_or_else(|| Box::new(rng::in_scratch(make)));
    Scratch {
        id,
        value: Some(value),
    }
}

fn take(id: Id) -> Option<Box<dyn Any>> {
    let take = |values: &RefCell<Vec<CachedValue>>| {
        let mut values = values.borrow_mut();
        let at = values.iter().rposition(|cached| cached.id == id)?;
        Some(values.remove(at).value)
    };
    SCRATCH.try_with(take).ok().flatten()
}

/// Stores a value. Returns the value that is replaced or dropped for it, which the caller must drop.
fn put_back(id: Id, value: Box<dyn Any>) -> Option<CachedValue> {
    let put = |values: &RefCell<Vec<CachedValue>>| {
        let mut values = values.borrow_mut();
        let same = values.iter().position(|cached| cached.id == id);
        let oldest = (values.len() == MAX_VALUES).then_some(0);
        let replaced = same.or(oldest).map(|at| values.remove(at));
        values.push(CachedValue { id, value });
        replaced
    };
    // While thread-locals are destroyed, the value is dropped.
    SCRATCH.try_with(put).ok().flatten()
}

/// A guard for a value of [`scratch`]. Dropping the guard gives the value back to the worker.
#[must_use = "an unused value need not be made"]
pub struct Scratch<T: 'static> {
    id: Id,
    /// `Some` until dropped.
    value: Option<Box<T>>,
}

const PRESENT: &str = "the value is present until the drop";

impl<T> Deref for Scratch<T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.value.as_deref().expect(PRESENT)
    }
}

impl<T> DerefMut for Scratch<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.value.as_deref_mut().expect(PRESENT)
    }
}

impl<T> Drop for Scratch<T> {
    fn drop(&mut self) {
        // A panic may have left the value in an inconsistent state.
        if let Some(value) = self.value.take()
            && !std::thread::panicking()
        {
            // The replaced value is dropped here, outside the borrow of `SCRATCH`, because its drop may use scratch.
            rng::in_scratch(|| drop(put_back(self.id, value)));
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

    /// Runs a test on a thread of its own, without values of other tests.
    fn on_own_thread(test: fn()) {
        std::thread::spawn(test).join().unwrap();
    }

    #[test]
    fn a_value_is_found_as_it_was_left() {
        on_own_thread(|| {
            scratch(|| vec![1]).push(2);
            scratch(|| -> Vec<i32> { unreachable!("the value exists") }).push(3);
            assert_eq!(*scratch(Vec::<i32>::new), [1, 2, 3]);
            assert!(scratch(Vec::<u8>::new).is_empty(), "another type");
            assert!(scratch_for(1, Vec::<i32>::new).is_empty(), "another key");
            assert_eq!(scratch_for(0, Vec::<i32>::new).len(), 3, "the same key");
        });
    }

    #[test]
    fn of_two_values_in_use_at_once_the_last_dropped_is_retained() {
        on_own_thread(|| {
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
    fn the_most_recently_used_values_are_retained() {
        on_own_thread(|| {
            let values: Vec<Rc<u64>> = (0..MAX_VALUES as u64 + 10).map(Rc::new).collect();
            let retained = || {
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
                // The first value stays in use.
                assert_eq!(**scratch_for(0, || Rc::new(7_u64)), 0);
            }
            assert_eq!(retained(), MAX_VALUES);
            assert_eq!(Rc::strong_count(&values[0]), 2);
            assert_eq!(Rc::strong_count(&values[1]), 1);
        });
    }

    #[test]
    fn a_panic_drops_the_value_in_use() {
        on_own_thread(|| {
            let value = Rc::new(());
            drop(scratch(|| Rc::clone(&value)));
            drop(scratch_for(1, || Rc::clone(&value)));
            let panic = std::panic::AssertUnwindSafe(|| {
                let _value = scratch(|| Rc::new(()));
                panic!("half done");
            });
            assert!(std::panic::catch_unwind(panic).is_err());
            assert_eq!(Rc::strong_count(&value), 2, "the other value is retained");
        });
    }

    /// Uses scratch when dropped.
    struct Nested;
    impl Drop for Nested {
        fn drop(&mut self) {
            drop(scratch(|| 0u32));
        }
    }

    #[test]
    fn a_value_may_use_scratch_when_dropped() {
        on_own_thread(|| {
            (0..MAX_VALUES as u64 + 10).for_each(|key| drop(scratch_for(key, || Nested)));
        });
    }
}
