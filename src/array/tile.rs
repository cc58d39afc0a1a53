//! Tiles: disjoint exclusive parts of an `ArrayMut`.

use std::fmt;
use std::iter::FusedIterator;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut, Range};
use std::ptr::NonNull;

use super::memory;
use super::show::debug;
use super::{ArrayMut, ArrayMutLocation, Element, Shape};

/// An exclusive part of an [`ArrayMut`] along its leading axis, from [`ArrayMut::tiles_mut`].
///
/// It is a `&mut [T]` that knows its shape and its rows in the parent. While it is alive the parent is borrowed, so
/// that it cannot be sealed, for example:
///
/// ```compile_fail,E0505
/// # use arenite::array::ArrayMut;
/// let mut out = ArrayMut::<u32>::zeros([5, 2]);
/// let mut tile = out.as_tile_mut();
/// let sealed = out.seal();
/// tile[0] = 1;
/// ```
pub struct TileMut<'s, T: Element> {
    first: NonNull<T>,
    shape: Shape,
    len: usize,
    rows: Range<usize>,
    location: ArrayMutLocation<'s>,
    // Covariant in 's and invariant in T, like the `&mut [T]` that it is.
    lent: PhantomData<&'s mut [T]>,
}

// SAFETY: a tile is the only access to its elements, which are Send, as `&mut [T]` is; its location consists of
// numbers.
unsafe impl<T: Element> Send for TileMut<'_, T> {}
// SAFETY: `&TileMut` only reads elements, which are Sync.
unsafe impl<T: Element> Sync for TileMut<'_, T> {}

impl<'s, T: Element> TileMut<'s, T> {
    /// The rows of the parent that the tile covers.
    pub fn rows(&self) -> Range<usize> {
        self.rows.clone()
    }

    /// The tile's own shape: the parent's, with the leading extent `rows().len()`.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Creates a tile of `shape` from the elements at `ptr`, which are the rows `rows` of its parent.
    ///
    /// # Safety
    ///
    /// For `'s` the elements stay mapped, readable and writable at `ptr`. They are lent to the running job: no other
    /// process and no other handle reads or writes them.
    ///
    /// # Panics
    ///
    /// If the tile does not fit the address space, or `ptr` is not aligned.
    pub(crate) unsafe fn from_parts(
        ptr: NonNull<u8>,
        shape: Shape,
        rows: Range<usize>,
        location: ArrayMutLocation<'s>,
    ) -> TileMut<'s, T> {
        let bytes = memory::bytes_of::<T>(&shape);
        TileMut {
            first: memory::first_element(ptr, bytes),
            shape,
            len: memory::len_of(&shape),
            rows,
            location,
            lent: PhantomData,
        }
    }

    /// The location of the elements.
    pub(crate) fn location(&self) -> ArrayMutLocation<'s> {
        self.location
    }
}

impl<T: Element> Deref for TileMut<'_, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: a tile of an exclusive array that stays mutably borrowed while the tile lives. The tiles of an array
        // are disjoint. In the program the tile has not moved into a job, because moving consumes it; in a job it is
        // lent to that job alone. So no other process writes the elements.
        unsafe { std::slice::from_raw_parts(self.first.as_ptr(), self.len) }
    }
}

impl<T: Element> DerefMut for TileMut<'_, T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as for `deref`; the tile itself is also borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.first.as_ptr(), self.len) }
    }
}

impl<T: Element> AsRef<[T]> for TileMut<'_, T> {
    fn as_ref(&self) -> &[T] {
        self
    }
}

impl<T: Element> AsMut<[T]> for TileMut<'_, T> {
    fn as_mut(&mut self) -> &mut [T] {
        self
    }
}

impl<T: Element> fmt::Debug for TileMut<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug(f, "TileMut", self.shape, self)
    }
}

/// Iterator over the tiles of an array, in order, returned by [`ArrayMut::tiles_mut`].
pub(crate) struct TilesMut<'s, T: Element> {
    first: NonNull<T>,
    shape: Shape,
    row_len: usize,
    /// Rows per tile.
    step: usize,
    /// Rows that are in no tile yet.
    left: Range<usize>,
    location: ArrayMutLocation<'s>,
    lent: PhantomData<&'s mut [T]>,
}

// SAFETY: the iterator has the mutable borrow of the elements that are in no tile yet, and they are Send.
unsafe impl<T: Element> Send for TilesMut<'_, T> {}
// SAFETY: `&TilesMut` gives access to no element.
unsafe impl<T: Element> Sync for TilesMut<'_, T> {}

impl<'s, T: Element> TilesMut<'s, T> {
    pub(super) fn new(array: &'s mut ArrayMut<T>, rows: usize) -> TilesMut<'s, T> {
        assert!(rows > 0, "tiles of 0 rows");
        let shape = array.shape();
        let (first, location) = array.parts_mut();
        TilesMut {
            first,
            shape,
            row_len: shape.row_len().expect("counted when the array was made"),
            step: rows,
            left: 0..shape.rows(),
            location,
            lent: PhantomData,
        }
    }

    /// Returns the tile of `rows`. Rows before them that are left get no tile. Must not be combined with
    /// [`next_back`](DoubleEndedIterator::next_back).
    pub(crate) fn at(&mut self, rows: Range<usize>) -> TileMut<'s, T> {
        let Range { start, end } = rows;
        assert!(
            self.left.start <= start && start <= end && end <= self.left.end,
            "rows {start}..{end} of {:?} that are left",
            self.left
        );
        self.left.start = end;
        // SAFETY: these rows are no longer in `left`.
        unsafe { self.tile(rows) }
    }

    /// The tile of `rows`.
    ///
    /// # Safety
    ///
    /// No tile of these rows has been handed out, or will be: the caller has removed them from `left`.
    unsafe fn tile(&self, rows: Range<usize>) -> TileMut<'s, T> {
        let skip = rows.start * self.row_len;
        let len = rows.len() * self.row_len;
        TileMut {
            // SAFETY: the rows are within the array, so `skip` elements are too.
            first: unsafe { self.first.add(skip) },
            shape: self.shape.with_rows(rows.len()),
            len,
            rows,
            location: self
                .location
                .part(skip * size_of::<T>(), len * size_of::<T>()),
            lent: PhantomData,
        }
    }
}

impl<'s, T: Element> Iterator for TilesMut<'s, T> {
    type Item = TileMut<'s, T>;

    fn next(&mut self) -> Option<TileMut<'s, T>> {
        if self.left.is_empty() {
            return None;
        }
        let rows = self.left.start..self.left.end.min(self.left.start.saturating_add(self.step));
        self.left.start = rows.end;
        // SAFETY: these rows are no longer in `left`.
        Some(unsafe { self.tile(rows) })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let tiles = self.left.len().div_ceil(self.step);
        (tiles, Some(tiles))
    }
}

impl<T: Element> DoubleEndedIterator for TilesMut<'_, T> {
    fn next_back(&mut self) -> Option<Self::Item> {
        if self.left.is_empty() {
            return None;
        }
        // `left` starts at a multiple of `step`, so a remainder belongs to the last tile.
        let over = self.left.len() % self.step;
        let rows = self.left.end - if over == 0 { self.step } else { over }..self.left.end;
        self.left.end = rows.start;
        // SAFETY: these rows are no longer in `left`.
        Some(unsafe { self.tile(rows) })
    }
}

impl<T: Element> ExactSizeIterator for TilesMut<'_, T> {}
impl<T: Element> FusedIterator for TilesMut<'_, T> {}
