//! Copies of large arrays by several threads of the program. A sandboxed worker must not start threads.

use std::sync::{Mutex, PoisonError};

use super::Element;
use crate::sys::limits::cores;

/// From this size on several threads copy: most of the time goes into pages that this process has not touched.
pub(crate) const SHARED_FROM: usize = 4 << 20;

/// The most threads; more do not copy faster.
const MOST: usize = 8;

/// The number of threads that copy.
pub(crate) fn thread_count() -> usize {
    cores().min(MOST)
}

/// Calls `work` with each part, on several threads, of which this is one.
pub(crate) fn by_threads<I>(parts: I, work: impl Fn(I::Item) + Sync)
where
    I: Iterator + Send,
{
    let parts = Mutex::new(parts);
    let next = || parts.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || {
        while let Some(part) = next() {
            work(part);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..thread_count() {
            // Without another thread this one does it all.
            let _ = std::thread::Builder::new().spawn_scoped(scope, work);
        }
        work();
    });
}

/// Copies elements into a slice of the same length.
pub(crate) fn copy_by_threads<T: Element>(from: &[T], to: &mut [T]) {
    if size_of_val(to) < SHARED_FROM {
        return to.copy_from_slice(from);
    }
    let each = to.len().div_ceil(4 * thread_count());
    by_threads(from.chunks(each).zip(to.chunks_mut(each)), |(from, to)| {
        to.copy_from_slice(from);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_has_every_element_in_its_place() {
        for more in [0, 1, 4099] {
            let from: Vec<u64> = (0..(SHARED_FROM / 8 + more) as u64).collect();
            let mut to = vec![0; from.len()];
            copy_by_threads(&from, &mut to);
            assert!(to == from);
        }
        copy_by_threads::<u8>(&[], &mut []);
    }
}
