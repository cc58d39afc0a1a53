//! Sealed arrays: [`Array`].

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Bound, Deref, Range, RangeBounds};
use std::ptr::NonNull;
use std::sync::Arc;

use super::lane::{LaneCount, LaneTicket};
use super::memory::{self, SealedMemory};
use super::sealed_file::SealedFile;
use super::show::debug;
use super::{ArrayMut, Element, Shape, ShapeError};
use crate::arena::{ArenaFull, Block, Extent, Offset};

/// A sealed array: immutable, row-major, contiguous, and shared by reference counting. Any number of jobs may read it.
///
/// [`clone`](Array::clone), [`rows`](Array::rows) and [`row`](Array::row) return another handle to the same memory
/// without copying.
///
/// ```
/// use arenite::array::Array;
///
/// let a = Array::from_fn([3, 4], |i| i as f32);
/// assert_eq!(a.shape().dims(), [3, 4]);
/// assert_eq!(a.rows(1..3)[..], [4., 5., 6., 7., 8., 9., 10., 11.]);
/// assert_eq!(a.row(2).iter().sum::<f32>(), 38.);
/// ```
pub struct Array<T: Element> {
    first: NonNull<T>,
    shape: Shape,
    len: usize,
    memory: SealedMemory,
    element: PhantomData<T>,
}

// SAFETY: the handle gives shared access to elements that are Send + Sync. Atomics count the handles to their memory,
// which stays sealed while a handle lives: no process writes it. The supervisor counts the handles of all processes. A
// worker counts only its own, but never unseals memory that it has published.
unsafe impl<T: Element> Send for Array<T> {}
// SAFETY: as for `Send`.
unsafe impl<T: Element> Sync for Array<T> {}

/// Location of the elements of an [`Array`].
#[derive(Copy, Clone, Debug)]
pub(crate) enum ArrayLocation<'a> {
    /// This process's heap.
    Private,
    /// A mapped file, which may change.
    Mapped,
    /// A sealed memory file, and the offset of the array's first byte in it.
    File(&'a Arc<SealedFile>, u64),
    /// An extent of an arena block, in the supervisor.
    Block(&'a Arc<Block>, Extent),
    /// An extent of the arena, inside a kernel.
    Lane(Extent),
}

impl<T: Element> Array<T> {
    /// Copies `elements` into a one-dimensional array.
    ///
    /// # Panics
    ///
    /// If there is no memory for it (inside a kernel, in the arena); [`try_from_slice`](Array::try_from_slice) returns
    /// that error.
    #[track_caller]
    pub fn from_slice(elements: &[T]) -> Array<T> {
        ArrayMut::from_slice(elements).seal()
    }

    /// Copies `elements`, in row-major order, into an array of this shape.
    ///
    /// ```
    /// # use arenite::Array;
    /// let table = Array::from_vec(vec![1, 2, 3, 4, 5, 6], [2, 3]);
    /// assert_eq!(table[[1, 0]], 4);
    /// ```
    ///
    /// # Panics
    ///
    /// If `elements` has another length than the shape, or there is no memory (inside a kernel, in the arena).
    #[track_caller]
    pub fn from_vec(elements: impl AsRef<[T]>, shape: impl Into<Shape>) -> Array<T> {
        ArrayMut::from_vec(elements, shape).seal()
    }

    /// Like [`from_slice`](Array::from_slice), but returns an error if there is no memory.
    ///
    /// # Errors
    ///
    /// [`ArenaFull`] if there is no memory for the copy (inside a kernel, in the arena).
    pub fn try_from_slice(elements: &[T]) -> Result<Array<T>, ArenaFull> {
        ArrayMut::try_from_slice(elements).map(ArrayMut::seal)
    }

    /// Creates an array of zeros.
    ///
    /// # Panics
    ///
    /// If the array does not fit the address space, or there is no memory for it (inside a kernel, in the arena);
    /// [`ArrayMut::try_zeros`] returns the latter error.
    #[track_caller]
    pub fn zeros(shape: impl Into<Shape>) -> Array<T> {
        ArrayMut::zeros(shape).seal()
    }

    /// Creates an array whose element number `i`, in row-major order, is `f(i)`.
    ///
    /// # Panics
    ///
    /// If the array does not fit the address space, or there is no memory for it (inside a kernel, in the arena);
    /// [`ArrayMut::try_from_fn`] returns the latter error.
    #[track_caller]
    pub fn from_fn(shape: impl Into<Shape>, f: impl FnMut(usize) -> T) -> Array<T> {
        ArrayMut::from_fn(shape, f).seal()
    }

    /// The shape.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The number of elements.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The address of the first element. It is aligned even if there are no elements, and valid for `len()`
    /// elements while a handle to the array lives.
    ///
    /// Unlike `array[..].as_ptr()`, this call forms no reference to the elements. So a binding of another language can
    /// hand out the address of memory that the language may change; [`raw`](crate::raw) says what else that requires.
    ///
    /// ```
    /// # use arenite::array::Array;
    /// let a = Array::from_fn([3, 4], |i| i as u32);
    /// assert_eq!(a.row(2).as_ptr().addr() - a.as_ptr().addr(), 2 * 4 * size_of::<u32>());
    /// ```
    #[inline]
    pub fn as_ptr(&self) -> *const T {
        self.first.as_ptr()
    }

    /// The rows `range` along the leading axis, as another handle to the same memory.
    ///
    /// # Panics
    ///
    /// If the range is not within `0..shape().rows()`.
    ///
    /// ```
    /// # use arenite::array::Array;
    /// let table = Array::from_fn([10, 3], |i| i as u32);
    /// let head = table.rows(..2);
    /// drop(table);
    /// assert_eq!(head.shape().dims(), [2, 3]);
    /// assert_eq!(head[..], [0, 1, 2, 3, 4, 5]);
    /// ```
    #[must_use]
    #[track_caller]
    pub fn rows(&self, range: impl RangeBounds<usize>) -> Array<T> {
        let range = resolve(range, self.shape.rows());
        self.part(range.start, self.shape.with_rows(range.len()))
    }

    /// Row `index`, as another handle to the same memory. The leading axis is dropped; a one-dimensional array keeps it
    /// with extent 1.
    ///
    /// # Panics
    ///
    /// If `index` is not below `shape().rows()`.
    #[must_use]
    #[track_caller]
    pub fn row(&self, index: usize) -> Array<T> {
        let rows = self.shape.rows();
        assert!(index < rows, "row {index} of an array of {rows} rows");
        self.part(index, self.shape.row())
    }

    /// Changes the shape, without moving elements.
    ///
    /// # Errors
    ///
    /// [`ShapeError`] if the number of elements differs.
    ///
    /// ```
    /// # use arenite::array::Array;
    /// let bytes = Array::from_slice(&[1_u8, 2, 3, 4, 5, 6]);
    /// let table = bytes.reshape([2, 3])?;
    /// assert_eq!(table.row(1)[..], [4, 5, 6]);
    /// assert!(table.reshape([4, 4]).is_err());
    /// # Ok::<(), arenite::array::ShapeError>(())
    /// ```
    pub fn reshape(mut self, shape: impl Into<Shape>) -> Result<Array<T>, ShapeError> {
        self.shape = check_reshape::<T>(self.shape, shape.into())?;
        Ok(self)
    }

    /// Makes the array writable again, if this is its only handle in any process: there is no clone, no sub-array, no
    /// open job that reads it, and no worker that [retains](crate::engine::Builder::retain_escaped) it.
    ///
    /// # Errors
    ///
    /// The array as it was, if there are other handles, or if its memory cannot be written here
    /// (a kernel's input, or a mapped file). In a worker also if any part of the array was returned, passed to a
    /// spawned job, or saved in a checkpoint: other processes may read it. Use [`copy`](Array::copy) then.
    ///
    /// ```
    /// # use arenite::array::Array;
    /// let a = Array::from_slice(&[1, 2, 3]);
    /// let clone = a.clone();
    /// let a = a.try_into_mut().expect_err("there is a clone");
    /// drop(clone);
    /// let mut a = a.try_into_mut().expect("it is the only handle");
    /// a[0] = 7;
    /// assert_eq!(a.seal()[..], [7, 2, 3]);
    /// ```
    pub fn try_into_mut(self) -> Result<ArrayMut<T>, Array<T>> {
        let Array {
            first,
            shape,
            len,
            memory,
            element,
        } = self;
        match memory.try_unseal() {
            Ok(memory) => Ok(ArrayMut::assemble(first, shape, len, memory)),
            Err(memory) => Err(Array {
                first,
                shape,
                len,
                memory,
                element,
            }),
        }
    }

    /// Copies the elements into a writable array of the same shape.
    ///
    /// ```
    /// # use arenite::array::Array;
    /// let a = Array::from_fn([2, 2], |i| i);
    /// let mut copy = a.copy();
    /// copy[3] = 7;
    /// assert_eq!((&copy[..], copy.shape()), (&[0, 1, 2, 7][..], a.shape()));
    /// assert_eq!(a[3], 3);
    /// ```
    ///
    /// # Panics
    ///
    /// If there is no memory for the copy (inside a kernel, in the arena).
    #[track_caller]
    pub fn copy(&self) -> ArrayMut<T> {
        ArrayMut::from_slice(self).with_shape(self.shape)
    }

    pub(super) fn assemble(
        first: NonNull<T>,
        shape: Shape,
        len: usize,
        memory: SealedMemory,
    ) -> Array<T> {
        Array {
            first,
            shape,
            len,
            memory,
            element: PhantomData,
        }
    }

    pub(super) fn into_parts(self) -> (NonNull<T>, Shape, usize, SealedMemory) {
        (self.first, self.shape, self.len, self.memory)
    }

    fn part(&self, skip_rows: usize, shape: Shape) -> Array<T> {
        let row_len = self
            .shape
            .row_len()
            .expect("counted when the array was made");
        let len = shape.len().expect("at most as many as in the whole array");
        let skip = skip_rows * row_len;
        debug_assert!(skip + len <= self.len);
        Array {
            // SAFETY: `skip` is at most `len`, the number of elements that this handle keeps mapped.
            first: unsafe { self.first.add(skip) },
            shape,
            len,
            memory: self.memory.advanced(skip * size_of::<T>()),
            element: PhantomData,
        }
    }
}

/// Hooks for the layers that move arrays between processes.
impl<T: Element> Array<T> {
    /// Creates a sealed array of `shape` that begins `skip` bytes into `block`.
    ///
    /// A block says who owns memory, not who writes it. The caller guarantees that no process writes the block from now
    /// on while it lives: the block was never granted or lent, or its job has published it and was answered, or the
    /// exit of the worker that had it is confirmed. The array's references rely on that.
    ///
    /// # Panics
    ///
    /// If the array is not within the block, or not aligned. Check values from a worker with
    /// [`fits_block`](Array::fits_block) first.
    pub(crate) fn from_block(block: Arc<Block>, skip: u64, shape: Shape) -> Array<T> {
        let bytes = memory::bytes_of::<T>(&shape);
        let (ptr, at) = memory::in_block(&block, skip, bytes).unwrap_or_else(|| {
            panic!("an array of {bytes} bytes at {skip} does not lie within {block:?}")
        });
        Array::assemble(
            memory::first_element(ptr, bytes),
            shape,
            memory::len_of(&shape),
            SealedMemory::Block { block, at },
        )
    }

    /// Whether an array of `shape` that begins `skip` bytes into `block` is within the block and aligned.
    pub(crate) fn fits_block(block: &Block, skip: u64, shape: Shape) -> bool {
        shape.bytes::<T>().is_some_and(|bytes| {
            memory::in_block(block, skip, bytes)
                .is_some_and(|(ptr, _)| bytes == 0 || ptr.cast::<T>().is_aligned())
        })
    }

    /// Creates the handle of a parameter of the job that runs on the lane of `count`. The array has `shape`, is at
    /// `ptr` in this process, and at `at` in the arena. The handle is counted.
    ///
    /// # Safety
    ///
    /// The elements stay mapped and readable at `ptr`, and no process writes them, until `count` is 0 after the end of
    /// the job, or this process ends: the supervisor has a lease for the job, or for the lane that retains them.
    ///
    /// # Panics
    ///
    /// If the array does not fit the address space, or `ptr` is not aligned.
    pub(crate) unsafe fn from_lane(
        ptr: NonNull<u8>,
        at: Offset,
        shape: Shape,
        count: &'static LaneCount,
    ) -> Array<T> {
        let bytes = memory::bytes_of::<T>(&shape);
        Array::assemble(
            memory::first_element(ptr, bytes),
            shape,
            memory::len_of(&shape),
            SealedMemory::Lane {
                owner: None,
                at,
                ticket: LaneTicket::new(count),
            },
        )
    }

    /// The location of the elements.
    pub(crate) fn location(&self) -> ArrayLocation<'_> {
        // Not through a slice, which would form a reference: see `as_ptr`.
        let bytes = self.len * size_of::<T>();
        match &self.memory {
            SealedMemory::Private(_) => ArrayLocation::Private,
            SealedMemory::Mapped(_) => ArrayLocation::Mapped,
            SealedMemory::File(file) => {
                ArrayLocation::File(file, file.skip(self.first.cast(), bytes))
            }
            SealedMemory::Block { block, at } => {
                ArrayLocation::Block(block, memory::extent(*at, bytes))
            }
            SealedMemory::Lane { at, .. } => ArrayLocation::Lane(memory::extent(*at, bytes)),
        }
    }

    /// The chunk that the lane allocated for this array. `None` for parameters, windows and memory outside the lane.
    pub(crate) fn lane_chunk(&self) -> Option<Extent> {
        match &self.memory {
            SealedMemory::Lane {
                owner: Some(owner), ..
            } => owner.chunk(),
            _ => None,
        }
    }

    /// Publishes the elements as part of the running job's result and returns their extent. The handle is no longer
    /// counted, and the memory is not rolled back. `is_own` tells whether a counter belongs to this job, or to state
    /// that stays in its lane.
    ///
    /// # Errors
    ///
    /// The array itself, if it is not in a lane, or if `is_own` returns false for its counter: then the array belongs
    /// to another job, and another lane of this process has handed it over.
    pub(crate) fn take_lane(
        self,
        is_own: impl FnOnce(&'static LaneCount) -> bool,
    ) -> Result<Extent, Array<T>> {
        let ArrayLocation::Lane(extent) = self.location() else {
            return Err(self);
        };
        if let SealedMemory::Lane { owner, ticket, .. } = &self.memory {
            if !is_own(ticket.count()) {
                return Err(self);
            }
            if let Some(owner) = owner {
                owner.publish();
            }
        }
        Ok(extent)
    }
}

impl<T: Element> Deref for Array<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: a sealed array: `len` initialised elements stay mapped at `first` while a handle lives, and no
        // process writes them. Private: no other process maps the heap, and an Array hands out no `&mut`. Block:
        // sealed, and not given to a process that writes before the last handle or lease is gone. Lane: the supervisor
        // has a lease for the job or the lane, or this process alone wrote the elements before it sealed them, and does
        // not unseal what it has published. File: Linux refuses writes to a sealed file; to the file of a snapshot its
        // heap does not write. Mapped: the caller of `npy::map` guarantees it.
        unsafe { std::slice::from_raw_parts(self.first.as_ptr(), self.len) }
    }
}

impl<T: Element> AsRef<[T]> for Array<T> {
    fn as_ref(&self) -> &[T] {
        self
    }
}

impl<T: Element> Clone for Array<T> {
    fn clone(&self) -> Array<T> {
        Array {
            memory: self.memory.clone(),
            ..*self
        }
    }
}

/// Collects the elements into a one-dimensional array.
///
/// ```
/// # use arenite::Array;
/// let squares: Array<u64> = (1..4).map(|x| x * x).collect();
/// assert_eq!(squares[..], [1, 4, 9]);
/// ```
impl<T: Element> FromIterator<T> for Array<T> {
    fn from_iter<I: IntoIterator<Item = T>>(elements: I) -> Array<T> {
        ArrayMut::from_iter(elements).seal()
    }
}

impl<'a, T: Element> IntoIterator for &'a Array<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Arrays are equal if their shapes and all elements are equal.
impl<T: Element + PartialEq> PartialEq for Array<T> {
    fn eq(&self, other: &Array<T>) -> bool {
        self.shape == other.shape && **self == **other
    }
}

impl<T: Element + Eq> Eq for Array<T> {}

impl<T: Element> fmt::Debug for Array<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug(f, "Array", self.shape, self)
    }
}

pub(super) fn check_reshape<T>(from: Shape, to: Shape) -> Result<Shape, ShapeError> {
    // `bytes` also fails for an empty shape with strides that overflow.
    if to.bytes::<T>().is_some() && from.len() == to.len() {
        Ok(to)
    } else {
        let (from, to) = (Box::new(from), Box::new(to));
        Err(ShapeError::Elements { from, to })
    }
}

fn resolve(range: impl RangeBounds<usize>, rows: usize) -> Range<usize> {
    checked_rows(range, rows).unwrap_or_else(|problem| panic!("{problem}"))
}

/// Returns the rows of a range, or what is wrong with it.
pub(super) fn checked_rows(
    range: impl RangeBounds<usize>,
    rows: usize,
) -> Result<Range<usize>, String> {
    let start = match range.start_bound() {
        Bound::Included(&start) => Some(start),
        Bound::Excluded(&before) => before.checked_add(1),
        Bound::Unbounded => Some(0),
    };
    let end = match range.end_bound() {
        Bound::Included(&last) => last.checked_add(1),
        Bound::Excluded(&end) => Some(end),
        Bound::Unbounded => Some(rows),
    };
    match (start, end) {
        (Some(start), Some(end)) if start <= end && end <= rows => Ok(start..end),
        _ => Err(format!(
            "rows {:?} to {:?} of an array of {rows} rows",
            range.start_bound(),
            range.end_bound()
        )),
    }
}
