//! Exclusive arrays: [`ArrayMut`].

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;

use super::lane::{LaneChunkOwner, LaneCount, LaneTicket};
use super::memory::{self, AllocError, Content, ExclusiveMemory};
use super::sealed::check_reshape;
use super::show::debug;
use super::{Array, Element, Shape, ShapeError, TileMut, TilesMut};
use crate::arena::{Arena, ArenaFull, Block, BlockPlacement, Extent, Offset};
use crate::sys::PAGE;

/// An exclusive array: row-major, contiguous, writable through its only handle.
///
/// It moves into a job and comes back as part of the result, or lends its tiles to the jobs of a scope.
///
/// ```
/// use arenite::array::ArrayMut;
///
/// let mut a = ArrayMut::<i64>::zeros([2, 3]);
/// a[4] = 5;
/// a.row_mut(0).fill(1);
/// assert_eq!(a.seal()[..], [1, 1, 1, 0, 5, 0]);
/// ```
pub struct ArrayMut<T: Element> {
    first: NonNull<T>,
    shape: Shape,
    len: usize,
    memory: ExclusiveMemory,
    element: PhantomData<T>,
}

// SAFETY: the handle is the only access to its elements, which are Send. The owner of the memory is Send too: a chunk
// is returned to its lane only on the lane's own thread.
unsafe impl<T: Element> Send for ArrayMut<T> {}
// SAFETY: `&ArrayMut` only reads elements, which are Sync.
unsafe impl<T: Element> Sync for ArrayMut<T> {}

/// Location of the elements of an [`ArrayMut`], or of one of its tiles.
#[derive(Copy, Clone, Debug)]
pub(crate) enum ArrayMutLocation<'a> {
    /// This process's heap.
    Private,
    /// An extent of an arena block, in the supervisor.
    Block(&'a Block, Extent),
    /// An extent of the arena, inside a kernel.
    Lane(Extent),
}

impl ArrayMutLocation<'_> {
    /// Whether this is a block that shares no page with other blocks.
    pub(crate) fn owns_pages(self) -> bool {
        match self {
            ArrayMutLocation::Block(block, _) => {
                block.extent().at.offset().is_multiple_of(PAGE as u64)
                    && block.held().is_multiple_of(PAGE as u64)
            }
            ArrayMutLocation::Private | ArrayMutLocation::Lane(_) => false,
        }
    }

    /// The location of `bytes` bytes that begin `skip` bytes further on.
    pub(super) fn part(self, skip: usize, bytes: usize) -> Self {
        let part = |whole: Extent| memory::extent(memory::advance(whole.at, skip), bytes);
        match self {
            ArrayMutLocation::Private => ArrayMutLocation::Private,
            ArrayMutLocation::Block(block, whole) => ArrayMutLocation::Block(block, part(whole)),
            ArrayMutLocation::Lane(whole) => ArrayMutLocation::Lane(part(whole)),
        }
    }
}

impl<T: Element> ArrayMut<T> {
    /// Copies `elements` into a one-dimensional array.
    ///
    /// # Panics
    ///
    /// If there is no memory for it (inside a kernel, in the arena); [`try_from_slice`](ArrayMut::try_from_slice)
    /// returns that error.
    #[track_caller]
    pub fn from_slice(elements: &[T]) -> ArrayMut<T> {
        or_panic(ArrayMut::try_from_slice(elements))
    }

    /// Copies `elements`, in row-major order, into an array of this shape.
    ///
    /// # Panics
    ///
    /// Like [`Array::from_vec`].
    #[track_caller]
    pub fn from_vec(elements: impl AsRef<[T]>, shape: impl Into<Shape>) -> ArrayMut<T> {
        let (elements, shape) = (elements.as_ref(), shape.into());
        check_count(elements.len(), shape);
        ArrayMut::from_slice(elements).with_shape(shape)
    }

    /// Like [`from_slice`](ArrayMut::from_slice), but returns an error if there is no memory.
    ///
    /// # Errors
    ///
    /// [`ArenaFull`] if there is no memory for the copy (inside a kernel, in the arena).
    pub fn try_from_slice(elements: &[T]) -> Result<ArrayMut<T>, ArenaFull> {
        // SAFETY: `fill` gets memory for the elements of the slice, which nothing else accesses yet, and writes all of
        // them.
        unsafe {
            ArrayMut::build(elements.len().into(), Content::None, |first| {
                first.copy_from_nonoverlapping(NonNull::from(elements).cast(), elements.len());
            })
        }
    }

    /// Creates an array of zeros.
    ///
    /// # Panics
    ///
    /// If the array does not fit the address space, or there is no memory for it (inside a kernel, in the arena);
    /// [`try_zeros`](ArrayMut::try_zeros) returns the latter error.
    #[track_caller]
    pub fn zeros(shape: impl Into<Shape>) -> ArrayMut<T> {
        or_panic(ArrayMut::try_zeros(shape))
    }

    /// Like [`zeros`](ArrayMut::zeros), but returns an error if there is no memory.
    ///
    /// # Errors
    ///
    /// [`ArenaFull`] if there is no memory for the array (inside a kernel, in the arena).
    ///
    /// # Panics
    ///
    /// If the array does not fit the address space.
    pub fn try_zeros(shape: impl Into<Shape>) -> Result<ArrayMut<T>, ArenaFull> {
        // SAFETY: the memory is requested as zeros, which are valid elements: T is Pod.
        unsafe { ArrayMut::build(shape.into(), Content::Zeros, |_| {}) }
    }

    /// Creates an array with *unspecified* elements, for code that writes every element.
    ///
    /// Saves the time in which [`zeros`](ArrayMut::zeros) clears memory that was used before. Elements that the code
    /// does not write have any value, and may differ from run to run.
    ///
    /// ```
    /// use arenite::{Array, ArrayMut};
    ///
    /// fn brighten(pixels: &Array<u8>) -> Array<u8> {
    ///     let mut out = ArrayMut::uninit(pixels.shape());
    ///     for (to, from) in out.iter_mut().zip(pixels.iter()) {
    ///         *to = from.saturating_add(9);
    ///     }
    ///     out.seal()
    /// }
    ///
    /// # let engine = arenite::Engine::inline();
    /// let pixels = engine.from_slice(&[1, 100, 250])?;
    /// assert_eq!(engine.submit(brighten, (&pixels,)).wait()?[..], [10, 109, 255]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Panics
    ///
    /// Like [`zeros`](ArrayMut::zeros).
    #[doc(alias = "empty")]
    #[track_caller]
    pub fn uninit(shape: impl Into<Shape>) -> ArrayMut<T> {
        or_panic(ArrayMut::try_uninit(shape))
    }

    /// Like [`uninit`](ArrayMut::uninit), but returns an error if there is no memory.
    ///
    /// # Errors
    ///
    /// Like [`try_zeros`](ArrayMut::try_zeros).
    ///
    /// # Panics
    ///
    /// If the array does not fit the address space.
    pub fn try_uninit(shape: impl Into<Shape>) -> Result<ArrayMut<T>, ArenaFull> {
        // SAFETY: the memory is requested as initialised bytes, which are valid elements: T is Pod.
        unsafe { ArrayMut::build(shape.into(), Content::Any, |_| {}) }
    }

    /// Creates an array with unspecified elements, for a shape that was read from a file. The error says whether the
    /// arena or the system has no memory.
    pub(crate) fn to_read(shape: Shape) -> Result<ArrayMut<T>, AllocError> {
        let bytes = memory::bytes_of::<T>(&shape);
        // The memory holds initialised bytes, which are valid elements: T is Pod.
        let (ptr, memory) = memory::allocate(bytes, Content::Any)?;
        let first = memory::first_element(ptr, bytes);
        let len = memory::len_of(&shape);
        Ok(ArrayMut::assemble(first, shape, len, memory))
    }

    /// Creates a one-dimensional array of `len` elements from their bytes, in private memory even inside a kernel.
    /// `None` if there is no memory.
    ///
    /// # Panics
    ///
    /// If the number of bytes is another one.
    pub(crate) fn from_bytes(len: usize, bytes: &[u8]) -> Option<ArrayMut<T>> {
        assert_eq!(len * size_of::<T>(), bytes.len(), "bytes of {len} elements");
        let (ptr, memory) = memory::copied_privately(bytes)?;
        // The memory holds initialised bytes, which are valid elements: T is Pod.
        let first = memory::first_element(ptr, bytes.len());
        Some(ArrayMut::assemble(first, len.into(), len, memory))
    }

    /// Creates an array whose element number `i`, in row-major order, is `f(i)`.
    ///
    /// # Panics
    ///
    /// If the array does not fit the address space, or there is no memory for it (inside a kernel, in the arena);
    /// [`try_from_fn`](ArrayMut::try_from_fn) returns the latter error.
    ///
    /// ```
    /// # use arenite::array::ArrayMut;
    /// let width = 4;
    /// let a = ArrayMut::from_fn([3, width], |i| (i / width, i % width).0 as u8);
    /// assert_eq!(a.row(2), [2, 2, 2, 2]);
    /// ```
    #[track_caller]
    pub fn from_fn(shape: impl Into<Shape>, f: impl FnMut(usize) -> T) -> ArrayMut<T> {
        or_panic(ArrayMut::try_from_fn(shape, f))
    }

    /// Like [`from_fn`](ArrayMut::from_fn), but returns an error if there is no memory.
    ///
    /// # Errors
    ///
    /// [`ArenaFull`] if there is no memory for the array (inside a kernel, in the arena); `f` is not called then.
    ///
    /// # Panics
    ///
    /// If the array does not fit the address space.
    pub fn try_from_fn(
        shape: impl Into<Shape>,
        mut f: impl FnMut(usize) -> T,
    ) -> Result<ArrayMut<T>, ArenaFull> {
        let shape = shape.into();
        let len = memory::len_of(&shape);
        // SAFETY: `fill` gets room for `len` elements in memory that nothing else accesses yet, and writes all of them
        // before it returns. If `f` panics, the memory is freed without being read.
        unsafe {
            ArrayMut::build(shape, Content::None, |first| {
                for i in 0..len {
                    first.add(i).write(f(i));
                }
            })
        }
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

    /// The address of the first element. Does not form a reference to the elements, as `array[..].as_ptr()` does: see
    /// [`Array::as_ptr`].
    #[inline]
    pub fn as_ptr(&self) -> *const T {
        self.first.as_ptr()
    }

    /// The address of the first element, for writing. Forms no reference to the elements, like
    /// [`as_ptr`](ArrayMut::as_ptr).
    #[inline]
    pub fn as_mut_ptr(&mut self) -> *mut T {
        self.first.as_ptr()
    }

    /// Row `index`: one step along the leading axis.
    ///
    /// # Panics
    ///
    /// If `index` is not below `shape().rows()`.
    pub fn row(&self, index: usize) -> &[T] {
        &self[row_range(self.shape, index)]
    }

    /// Row `index`, mutably: one step along the leading axis.
    ///
    /// # Panics
    ///
    /// If `index` is not below `shape().rows()`.
    pub fn row_mut(&mut self, index: usize) -> &mut [T] {
        let range = row_range(self.shape, index);
        &mut self[range]
    }

    /// The whole array as one tile, for calling a kernel that changes a tile in place.
    ///
    /// ```
    /// # use arenite::array::{ArrayMut, TileMut};
    /// fn number_rows(mut tile: TileMut<'_, usize>) {
    ///     let rows = tile.rows();
    ///     for (element, row) in tile.iter_mut().zip(rows) {
    ///         *element = row;
    ///     }
    /// }
    ///
    /// let mut out = ArrayMut::zeros(3);
    /// number_rows(out.as_tile_mut());
    /// assert_eq!(out[..], [0, 1, 2]);
    /// ```
    pub fn as_tile_mut(&mut self) -> TileMut<'_, T> {
        // If there is no memory for pages of its own, the array does not move, and lending it reports the error.
        let _ = self.own_pages();
        let shape = self.shape;
        let location = self.location();
        // SAFETY: the tile borrows the array mutably, and is all of it.
        unsafe { TileMut::from_parts(self.first.cast(), shape, 0..shape.rows(), location) }
    }

    /// Changes the shape, without moving elements.
    ///
    /// # Errors
    ///
    /// [`ShapeError`] if the number of elements differs.
    pub fn reshape(mut self, shape: impl Into<Shape>) -> Result<ArrayMut<T>, ShapeError> {
        self.shape = check_reshape::<T>(self.shape, shape.into())?;
        Ok(self)
    }

    /// Keeps the first `rows` rows, or all if there are fewer.
    ///
    /// A kernel can allocate as much as its result may need, and return what it used.
    ///
    /// ```
    /// # use arenite::array::ArrayMut;
    /// let mut found = ArrayMut::<u32>::zeros(100);
    /// let mut count = 0;
    /// for number in (1..100).filter(|number| 100 % number == 0) {
    ///     found[count] = number;
    ///     count += 1;
    /// }
    /// found.truncate(count);
    /// assert_eq!(found[..], [1, 2, 4, 5, 10, 20, 25, 50]);
    /// ```
    pub fn truncate(&mut self, rows: usize) {
        if rows < self.shape.rows() {
            self.shape = self.shape.with_rows(rows);
            self.len = memory::len_of(&self.shape);
        }
    }

    /// Makes the array immutable and shareable, without touching its elements. [`Array::try_into_mut`] is the reverse.
    pub fn seal(self) -> Array<T> {
        Array::assemble(self.first, self.shape, self.len, self.memory.seal())
    }

    /// Splits the array along its leading axis into tiles of `rows` rows each; the last one has the rest.
    ///
    /// Tiles are disjoint, so several jobs of a scope can write one array.
    ///
    /// # Panics
    ///
    /// If `rows` is 0.
    ///
    /// ```
    /// # use arenite::array::ArrayMut;
    /// let mut out = ArrayMut::<u32>::zeros([5, 2]);
    /// for mut tile in out.tiles_mut(2) {
    ///     let first = tile.rows().start as u32;
    ///     tile.fill(first);
    /// }
    /// assert_eq!(out[..], [0, 0, 0, 0, 2, 2, 2, 2, 4, 4]);
    /// ```
    ///
    /// Each row is lent only once:
    ///
    /// ```compile_fail,E0499
    /// # use arenite::array::ArrayMut;
    /// let mut out = ArrayMut::<u32>::zeros([5, 2]);
    /// let mut tiles = out.tiles_mut(2);
    /// let mut overlapping = out.tiles_mut(3);
    /// tiles.next().unwrap()[0] = 1;
    /// ```
    ///
    /// The array itself cannot be accessed while a tile is alive:
    ///
    /// ```compile_fail,E0502
    /// # use arenite::array::ArrayMut;
    /// let mut out = ArrayMut::<u32>::zeros([5, 2]);
    /// let mut tile = out.tiles_mut(2).next().unwrap();
    /// let first = out[0];
    /// tile[0] = first;
    /// ```
    pub fn tiles_mut(
        &mut self,
        rows: usize,
    ) -> impl DoubleEndedIterator<Item = TileMut<'_, T>> + ExactSizeIterator {
        self.tiles(rows)
    }

    pub(crate) fn tiles(&mut self, rows: usize) -> TilesMut<'_, T> {
        // If there is no memory for pages of its own, the array does not move, and lending it reports the error.
        let _ = self.own_pages();
        TilesMut::new(self, rows)
    }

    /// Splits the array along its leading axis into `n` tiles, whose numbers of rows differ by at most one, larger
    /// tiles first. There are fewer tiles if the array has fewer than `n` rows.
    ///
    /// # Panics
    ///
    /// If `n` is 0.
    ///
    /// ```
    /// # use arenite::array::ArrayMut;
    /// let mut out = ArrayMut::<u32>::zeros(7);
    /// for (number, mut tile) in out.partitions_mut(3).enumerate() {
    ///     tile.fill(number as u32);
    /// }
    /// assert_eq!(out[..], [0, 0, 0, 1, 1, 2, 2]);
    /// ```
    #[track_caller]
    pub fn partitions_mut(&mut self, n: usize) -> impl ExactSizeIterator<Item = TileMut<'_, T>> {
        assert!(n > 0, "an array in 0 parts");
        let (rows, n) = (self.shape.rows(), n.min(self.shape.rows()));
        let end_of = move |part: usize| part * (rows / n) + part.min(rows % n);
        let mut tiles = self.tiles(rows.max(1));
        (0..n).map(move |part| tiles.at(end_of(part)..end_of(part + 1)))
    }

    /// Splits the array along its leading axis before each row in `at`, as `numpy.split` does. Two equal numbers give a
    /// tile without rows.
    ///
    /// # Panics
    ///
    /// If a number is below the previous one, or above `shape().rows()`.
    ///
    /// ```
    /// # use arenite::array::ArrayMut;
    /// let mut out = ArrayMut::<u32>::zeros([10, 2]);
    /// let [head, body, tail] = out.split_rows_mut([1, 8]).try_into().unwrap();
    /// assert_eq!((head.rows(), body.rows(), tail.rows()), (0..1, 1..8, 8..10));
    /// ```
    #[track_caller]
    pub fn split_rows_mut(&mut self, at: impl AsRef<[usize]>) -> Vec<TileMut<'_, T>> {
        let rows = self.shape.rows();
        let mut tiles = self.tiles(rows.max(1));
        let starts = [0].into_iter().chain(at.as_ref().iter().copied());
        let ends = at.as_ref().iter().copied().chain([rows]);
        starts
            .zip(ends)
            .map(|(start, end)| tiles.at(start..end))
            .collect()
    }

    /// Allocates an array, whose elements `fill` writes.
    ///
    /// # Safety
    ///
    /// `fill` gets memory for the shape's elements, with content `content`, that nothing else accesses. After `fill`
    /// returns, all elements must be initialised.
    unsafe fn build(
        shape: Shape,
        content: Content,
        fill: impl FnOnce(NonNull<T>),
    ) -> Result<ArrayMut<T>, ArenaFull> {
        const {
            assert!(
                align_of::<T>() <= memory::ALIGN,
                "elements of an array may be aligned to 64 bytes at most"
            );
        }
        let bytes = memory::bytes_of::<T>(&shape);
        let (ptr, memory) = memory::allocate(bytes, content)?;
        let first = memory::first_element(ptr, bytes);
        fill(first);
        let len = memory::len_of(&shape);
        Ok(ArrayMut::assemble(first, shape, len, memory))
    }

    pub(super) fn assemble(
        first: NonNull<T>,
        shape: Shape,
        len: usize,
        memory: ExclusiveMemory,
    ) -> ArrayMut<T> {
        ArrayMut {
            first,
            shape,
            len,
            memory,
            element: PhantomData,
        }
    }

    /// Changes the shape to one that is known to have the same number of elements.
    pub(super) fn with_shape(self, shape: Shape) -> ArrayMut<T> {
        debug_assert_eq!(shape.len(), Some(self.len));
        ArrayMut { shape, ..self }
    }

    /// The address of the first element and the location, from which tiles are made.
    pub(super) fn parts_mut(&mut self) -> (NonNull<T>, ArrayMutLocation<'_>) {
        (self.first, self.location())
    }
}

/// Hooks for the layers that move arrays between processes.
impl<T: Element> ArrayMut<T> {
    /// Moves a small array of the arena to pages that nothing else shares, so that they can be opened to a worker.
    /// Arrays that already have such pages do not move.
    pub(crate) fn own_pages(&mut self) -> Result<(), ArenaFull> {
        let ExclusiveMemory::Block { block, at } = &self.memory else {
            return Ok(());
        };
        if self.len == 0 || ArrayMutLocation::Block(block, memory::extent(*at, 0)).owns_pages() {
            return Ok(());
        }
        self.move_to(Arc::clone(block.arena()))
    }

    /// Like [`own_pages`](ArrayMut::own_pages), but also moves a sub-array to a block of its own, if it was left as the
    /// only handle to its block. Afterwards the array can move into a job.
    pub(crate) fn own_block(&mut self) -> Result<(), ArenaFull> {
        match &self.memory {
            ExclusiveMemory::Block { block, at } if *at != block.extent().at => {
                self.move_to(Arc::clone(block.arena()))
            }
            _ => self.own_pages(),
        }
    }

    fn move_to(&mut self, arena: Arc<Arena>) -> Result<(), ArenaFull> {
        let bytes = self.len * size_of::<T>();
        let to = arena.alloc(0, bytes as u64, BlockPlacement::Pages)?;
        let mut moved = ArrayMut::from_block(to, 0, self.shape);
        moved.copy_from_slice(self);
        *self = moved;
        Ok(())
    }

    /// Creates an exclusive array of `shape`, `skip` bytes into `block`.
    ///
    /// The caller guarantees that no other process reads or writes the block while the array has it: see
    /// [`Array::from_block`].
    ///
    /// # Panics
    ///
    /// If the array is not within the block, or not aligned.
    pub(crate) fn from_block(block: Block, skip: u64, shape: Shape) -> ArrayMut<T> {
        let bytes = memory::bytes_of::<T>(&shape);
        let (ptr, at) = memory::in_block(&block, skip, bytes).unwrap_or_else(|| {
            panic!("an array of {bytes} bytes at {skip} does not lie within {block:?}")
        });
        ArrayMut::assemble(
            memory::first_element(ptr, bytes),
            shape,
            memory::len_of(&shape),
            ExclusiveMemory::Block { block, at },
        )
    }

    /// Returns the block, which begins with the elements, so that it can move into a job.
    ///
    /// # Errors
    ///
    /// The array itself, if it is not at the start of a block: it is not in the arena, or it was a sub-array that
    /// became the only handle to its block.
    #[allow(
        clippy::result_large_err,
        reason = "the array itself goes back, to be copied instead"
    )]
    pub(crate) fn into_block(self) -> Result<(Block, Shape), ArrayMut<T>> {
        match self.memory {
            ExclusiveMemory::Block { block, at } if at == block.extent().at => {
                Ok((block, self.shape))
            }
            memory => Err(ArrayMut { memory, ..self }),
        }
    }

    /// Creates the handle of an array that was moved into the job that runs on the lane of `count`. The array has
    /// `shape`, is at `ptr` in this process, and at `at` in the arena. The handle is counted; dropping it frees
    /// nothing.
    ///
    /// # Safety
    ///
    /// The elements stay mapped and readable at `ptr` until `count` is 0 after the end of the job, or this process
    /// ends. Until the job ends they are writable, and lent to this job: no other process and no other handle reads or
    /// writes them. If the array moved into the job and no part of it was sent, this stays true as long as there are
    /// handles. Otherwise no reference to the elements of an `ArrayMut` is formed after the end of the job.
    ///
    /// # Panics
    ///
    /// If the array does not fit the address space, or `ptr` is not aligned.
    pub(crate) unsafe fn from_lane_window(
        ptr: NonNull<u8>,
        at: Offset,
        shape: Shape,
        count: &'static LaneCount,
    ) -> ArrayMut<T> {
        let bytes = memory::bytes_of::<T>(&shape);
        ArrayMut::assemble(
            memory::first_element(ptr, bytes),
            shape,
            memory::len_of(&shape),
            ExclusiveMemory::Lane {
                owner: LaneChunkOwner::window(count),
                at,
                ticket: LaneTicket::new(count),
            },
        )
    }

    /// Creates the handle of an array that the program has lent to a kernel that runs inline, in the program's process.
    ///
    /// # Safety
    ///
    /// The memory is writable, and no other handle forms a reference to its elements while this one lives.
    pub(crate) unsafe fn from_loan(lent: Array<T>) -> ArrayMut<T> {
        let (first, shape, len, memory) = lent.into_parts();
        ArrayMut::assemble(first, shape, len, ExclusiveMemory::Loan(memory))
    }

    /// The location of the elements.
    pub(crate) fn location(&self) -> ArrayMutLocation<'_> {
        let bytes = self.len * size_of::<T>();
        match &self.memory {
            // An array that was lent to a kernel cannot be passed on to a job: it counts as private.
            ExclusiveMemory::Private(_) | ExclusiveMemory::Loan(_) => ArrayMutLocation::Private,
            ExclusiveMemory::Block { block, at } => {
                ArrayMutLocation::Block(block, memory::extent(*at, bytes))
            }
            ExclusiveMemory::Lane { at, .. } => ArrayMutLocation::Lane(memory::extent(*at, bytes)),
        }
    }
}

impl<T: Element> Deref for ArrayMut<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: an exclusive array: `len` initialised elements stay mapped at `first` while the handle lives, and no
        // other process writes them. Private: no other process maps the heap. Block: this process alone has the block;
        // no job and no retaining worker has it. Lane: granted to this lane alone and never published, lent to this job
        // alone, or moved into a job of this process, which sent no part of it. Loan: the caller of `from_loan`
        // guarantees it.
        unsafe { std::slice::from_raw_parts(self.first.as_ptr(), self.len) }
    }
}

impl<T: Element> DerefMut for ArrayMut<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as for `deref`; this is also the only handle, borrowed mutably, so nothing else reads the elements.
        unsafe { std::slice::from_raw_parts_mut(self.first.as_ptr(), self.len) }
    }
}

impl<T: Element> AsRef<[T]> for ArrayMut<T> {
    fn as_ref(&self) -> &[T] {
        self
    }
}

impl<T: Element> AsMut<[T]> for ArrayMut<T> {
    fn as_mut(&mut self) -> &mut [T] {
        self
    }
}

impl<T: Element> From<ArrayMut<T>> for Array<T> {
    fn from(array: ArrayMut<T>) -> Array<T> {
        array.seal()
    }
}

/// Collects the elements into a one-dimensional array.
impl<T: Element> FromIterator<T> for ArrayMut<T> {
    fn from_iter<I: IntoIterator<Item = T>>(elements: I) -> ArrayMut<T> {
        let elements: Vec<T> = elements.into_iter().collect();
        ArrayMut::from_slice(&elements)
    }
}

impl<'a, T: Element> IntoIterator for &'a ArrayMut<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<'a, T: Element> IntoIterator for &'a mut ArrayMut<T> {
    type Item = &'a mut T;
    type IntoIter = std::slice::IterMut<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter_mut()
    }
}

/// Arrays are equal if their shapes and all elements are equal.
impl<T: Element + PartialEq> PartialEq for ArrayMut<T> {
    fn eq(&self, other: &ArrayMut<T>) -> bool {
        self.shape == other.shape && **self == **other
    }
}

impl<T: Element + Eq> Eq for ArrayMut<T> {}

impl<T: Element> fmt::Debug for ArrayMut<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug(f, "ArrayMut", self.shape, self)
    }
}

/// Panics with the error itself as payload: the `catch_unwind` guard of a kernel then reports the numbers of the error.
#[track_caller]
fn or_panic<T>(made: Result<T, ArenaFull>) -> T {
    match made {
        Ok(made) => made,
        Err(full) => std::panic::panic_any(full),
    }
}

/// Panics unless `elements` is the number of elements of `shape`.
#[track_caller]
pub(crate) fn check_count(elements: usize, shape: Shape) {
    assert!(
        shape.len() == Some(elements),
        "{elements} elements for an array of shape {shape}"
    );
}

fn row_range(shape: Shape, index: usize) -> std::ops::Range<usize> {
    let rows = shape.rows();
    assert!(index < rows, "row {index} of an array of {rows} rows");
    let row_len = shape.row_len().expect("counted when the array was made");
    index * row_len..(index + 1) * row_len
}
