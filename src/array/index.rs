//! Elements by position: `a[7]`, `a[2..5]`, and `a[[row, column]]`.

use std::ops::{
    Index, IndexMut, Range, RangeFrom, RangeFull, RangeInclusive, RangeTo, RangeToInclusive,
};

use super::{Array, ArrayMut, Element, Shape, TileMut};

mod sealed {
    #[allow(unnameable_types, reason = "sealed on purpose")]
    pub trait Sealed {}
}

/// An index of an array, as in `array[…]`: a flat, row-major number or range of elements, as for a slice, or `[row,
/// column, …]` with one number for each axis.
///
/// ```
/// use arenite::ArrayMut;
///
/// let mut table = ArrayMut::from_fn([3, 4], |i| i);
/// assert_eq!((table[[1, 2]], table[6]), (6, 6));
/// table[[2, 3]] = 0;
/// assert_eq!(table[8..], [8, 9, 10, 0]);
/// ```
///
/// # Panics
///
/// If the array has no such element, or if the number of axes differs.
#[diagnostic::on_unimplemented(
    message = "an array of `{T}` cannot be indexed by `{Self}`",
    label = "not an index of an array",
    note = "an element is `a[i]` with a `usize`, or `a[[row, column]]` with one `usize` for each axis; a part is `a[from..to]`"
)]
pub trait ArrayIndex<T>: sealed::Sealed {
    /// The result of indexing: an element or a slice.
    type Output: ?Sized;
    #[doc(hidden)]
    fn of(self, elements: &[T], shape: Shape) -> &Self::Output;
    #[doc(hidden)]
    fn of_mut(self, elements: &mut [T], shape: Shape) -> &mut Self::Output;
}

macro_rules! as_slices {
    ($($index:ty => $output:ty),+ $(,)?) => {$(
        impl sealed::Sealed for $index {}
        impl<T> ArrayIndex<T> for $index {
            type Output = $output;
            #[inline]
            #[track_caller]
            fn of(self, elements: &[T], _: Shape) -> &$output {
                &elements[self]
            }
            #[inline]
            #[track_caller]
            fn of_mut(self, elements: &mut [T], _: Shape) -> &mut $output {
                &mut elements[self]
            }
        }
    )+};
}

as_slices!(
    usize => T,
    Range<usize> => [T],
    RangeFrom<usize> => [T],
    RangeFull => [T],
    RangeInclusive<usize> => [T],
    RangeTo<usize> => [T],
    RangeToInclusive<usize> => [T],
);

impl<const N: usize> sealed::Sealed for [usize; N] {}
impl<T, const N: usize> ArrayIndex<T> for [usize; N] {
    type Output = T;
    #[inline]
    #[track_caller]
    fn of(self, elements: &[T], shape: Shape) -> &T {
        &elements[flat(self, shape)]
    }
    #[inline]
    #[track_caller]
    fn of_mut(self, elements: &mut [T], shape: Shape) -> &mut T {
        &mut elements[flat(self, shape)]
    }
}

#[inline]
#[track_caller]
fn flat<const N: usize>(at: [usize; N], shape: Shape) -> usize {
    let dims = shape.dims();
    let is_within = dims.len() == N && at.iter().zip(dims).all(|(at, dim)| at < dim);
    assert!(is_within, "element {at:?} of an array of shape {shape}");
    at.iter()
        .zip(dims)
        .fold(0, |flat, (at, dim)| flat * dim + at)
}

macro_rules! indexed {
    ($(($($parameters:tt)*) $array:ty),+) => {$(
        impl<$($parameters)*, I: ArrayIndex<T>> Index<I> for $array {
            type Output = I::Output;
            #[inline]
            #[track_caller]
            fn index(&self, index: I) -> &I::Output {
                index.of(self, self.shape())
            }
        }
    )+};
}
macro_rules! indexed_mut {
    ($(($($parameters:tt)*) $array:ty),+) => {$(
        impl<$($parameters)*, I: ArrayIndex<T>> IndexMut<I> for $array {
            #[inline]
            #[track_caller]
            fn index_mut(&mut self, index: I) -> &mut I::Output {
                let shape = self.shape();
                index.of_mut(self, shape)
            }
        }
    )+};
}

indexed!((T: Element) Array<T>, (T: Element) ArrayMut<T>, ('s, T: Element) TileMut<'s, T>);
indexed_mut!((T: Element) ArrayMut<T>, ('s, T: Element) TileMut<'s, T>);
