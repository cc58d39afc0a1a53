//! `ArrayMut`: exclusive.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;

use super::lane::{LaneChunkOwner, LaneCount, LaneTicket};
use super::memory::{self, AllocError, Content, Exclusive};
use super::sealed::{check_reshape, debug};
use super::{Array, BadReshape, Element, Shape, TileMut, TilesMut};
use crate::arena::{Arena, ArenaFull, Block, BlockPlacement, Extent, Offset};
use crate::sys::PAGE;

/// An exclusive array: row-major, contiguous, writable by its one handle. It moves into a job and comes back as part
/// of its result, or lends its tiles to the jobs of a scope.
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
    memory: Exclusive,
    element: PhantomData<T>,
}

// SAFETY: the handle is the only access to its elements, which are Send; what owns the memory is Send too (a lane's
// chunk is given back to its lane only on the lane's own thread).
unsafe impl<T: Element> Send for ArrayMut<T> {}
// SAFETY: `&ArrayMut` only reads elements, which are Sync.
unsafe impl<T: Element> Sync for ArrayMut<T> {}

/// Where the elements of an [`ArrayMut`] or a tile of one lie.
#[derive(Copy, Clone, Debug)]
pub(crate) enum ArrayMutLocation<'a> {
    /// On this process's heap.
    Private,
    /// In this extent of a block of the arena, in the supervisor.
    Block(&'a Block, Extent),
    /// In this extent of the arena, inside a kernel.
    Lane(Extent),
}

impl ArrayMutLocation<'_> {
    /// Whether nothing else lies in the pages of the block.
    pub(crate) fn owns_pages(self) -> bool {
        match self {
            ArrayMutLocation::Block(block, _) => {
                block.extent().at.offset().is_multiple_of(PAGE as u64)
                    && block.held().is_multiple_of(PAGE as u64)
            }
            ArrayMutLocation::Private | ArrayMutLocation::Lane(_) => false,
        }
    }

    /// The place of the `bytes` bytes from `skip` on.
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
    /// A one-dimensional array with a copy of `elements`.
    ///
    /// # Panics
    ///
    /// Where there is no memory for it: inside a kernel, that of the arena; [`try_from_slice`](ArrayMut::try_from_slice) returns
    /// the error.
    #[track_caller]
    pub fn from_slice(elements: &[T]) -> ArrayMut<T> {
        or_panic(ArrayMut::try_from_slice(elements))
    }

    /// Like [`from_slice`](ArrayMut::from_slice).
    ///
    /// # Errors
    ///
    /// [`ArenaFull`] where there is no memory for the copy: inside a kernel, that of the arena.
    pub fn try_from_slice(elements: &[T]) -> Result<ArrayMut<T>, ArenaFull> {
        // SAFETY: `fill` gets room for as many elements as the slice has, in memory that nobody else has yet, and
        // writes them all.
        unsafe {
            ArrayMut::build(elements.len().into(), Content::None, |first| {
                first.copy_from_nonoverlapping(NonNull::from(elements).cast(), elements.len());
            })
        }
    }

    /// An array of zeros.
    ///
    /// # Panics
    ///
    /// Where the array does not fit the address space, and where there is no memory for it: inside a kernel, that of the arena;
    /// [`try_zeros`](ArrayMut::try_zeros) returns that error.
    #[track_caller]
    pub fn zeros(shape: impl Into<Shape>) -> ArrayMut<T> {
        or_panic(ArrayMut::try_zeros(shape))
    }

    /// Like [`zeros`](ArrayMut::zeros).
    ///
    /// # Errors
    ///
    /// [`ArenaFull`] where there is no memory for the array: inside a kernel, that of the arena.
    ///
    /// # Panics
    ///
    /// Where the array does not fit the address space.
    pub fn try_zeros(shape: impl Into<Shape>) -> Result<ArrayMut<T>, ArenaFull> {
        // SAFETY: the memory is asked for as zeros, which are elements: T is Pod.
        unsafe { ArrayMut::build(shape.into(), Content::Zeros, |_| {}) }
    }

    /// An array whose elements are *unspecified*: for whoever writes each of them anyway. Where [`zeros`](ArrayMut::zeros) has
    /// to clear memory that was in use before, this saves that pass. Do not let through what was not written: it is part
    /// of the result, and may differ from run to run.
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
    /// As [`zeros`](ArrayMut::zeros).
    #[doc(alias("empty", "unfilled"))]
    #[track_caller]
    pub fn uninit(shape: impl Into<Shape>) -> ArrayMut<T> {
        or_panic(ArrayMut::try_uninit(shape))
    }

    /// Like [`uninit`](ArrayMut::uninit).
    ///
    /// # Errors
    ///
    /// As [`try_zeros`](ArrayMut::try_zeros).
    ///
    /// # Panics
    ///
    /// Where the array does not fit the address space.
    pub fn try_uninit(shape: impl Into<Shape>) -> Result<ArrayMut<T>, ArenaFull> {
        // SAFETY: the memory is asked for with bytes in it, and any bytes are elements: T is Pod.
        unsafe { ArrayMut::build(shape.into(), Content::Any, |_| {}) }
    }

    /// The same, for a shape that a file says: no memory is an error, wherever it should have come from.
    pub(crate) fn to_read(shape: Shape) -> Result<ArrayMut<T>, AllocError> {
        let bytes = memory::bytes_of::<T>(&shape);
        // As above, what is there are elements.
        let (ptr, memory) = memory::allocate(bytes, Content::Any)?;
        let first = memory::first_element(ptr, bytes);
        let len = memory::len_of(&shape);
        Ok(ArrayMut::assemble(first, shape, len, memory))
    }

    /// An array whose element number `i`, counted in row-major order, is `f(i)`.
    ///
    /// # Panics
    ///
    /// Where the array does not fit the address space, and where there is no memory for it: inside a kernel, that of the arena;
    /// [`try_from_fn`](ArrayMut::try_from_fn) returns that error.
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

    /// Like [`from_fn`](ArrayMut::from_fn).
    ///
    /// # Errors
    ///
    /// [`ArenaFull`] where there is no memory for the array (inside a kernel, that of the arena); `f` has not been called then.
    ///
    /// # Panics
    ///
    /// Where the array does not fit the address space.
    pub fn try_from_fn(
        shape: impl Into<Shape>,
        mut f: impl FnMut(usize) -> T,
    ) -> Result<ArrayMut<T>, ArenaFull> {
        let shape = shape.into();
        let len = memory::len_of(&shape);
        // SAFETY: `fill` gets room for `len` elements in memory that nobody else has yet, and writes them all before
        // it returns; where `f` panics, the memory is freed without being read.
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

    /// The elements in row-major order.
    pub fn as_slice(&self) -> &[T] {
        self
    }

    /// The elements in row-major order, to change.
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        self
    }

    /// Step `index` along the leading axis.
    ///
    /// # Panics
    ///
    /// Where `index` is not below `shape().rows()`.
    pub fn row(&self, index: usize) -> &[T] {
        &self[row_range(self.shape, index)]
    }

    /// Step `index` along the leading axis, to change.
    ///
    /// # Panics
    ///
    /// Where `index` is not below `shape().rows()`.
    pub fn row_mut(&mut self, index: usize) -> &mut [T] {
        let range = row_range(self.shape, index);
        &mut self[range]
    }

    /// The whole array as one tile, as a kernel that changes a tile in place takes it.
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
        // Without room for whole pages it stays where it is, and lending it says so.
        let _ = self.own_pages();
        let shape = self.shape;
        let place = self.location();
        // SAFETY: the tile borrows the array mutably, and is all of it.
        unsafe { TileMut::from_parts(self.first.cast(), shape, 0..shape.rows(), place) }
    }

    /// The same elements in another shape.
    ///
    /// # Errors
    ///
    /// [`BadReshape`] where the number of elements differs.
    pub fn reshape(mut self, shape: impl Into<Shape>) -> Result<ArrayMut<T>, BadReshape> {
        self.shape = check_reshape::<T>(self.shape, shape.into())?;
        Ok(self)
    }

    /// Keeps the first `rows` steps along the leading axis, or all where there are fewer. So a kernel can allocate as
    /// much as its result may take, and return what it took.
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

    /// Ends writing: the array becomes immutable and can be shared. Costs nothing per element.
    /// [`Array::try_into_mut`] is the way back.
    pub fn seal(self) -> Array<T> {
        Array::assemble(self.first, self.shape, self.len, self.memory.seal())
    }

    /// Cuts the array along its leading axis into tiles of `rows` steps each; the last one has what is left. The
    /// tiles are disjoint, so that several jobs of a scope can write one array.
    ///
    /// # Panics
    ///
    /// Where `rows` is 0.
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
    /// An array lends each of its rows once:
    ///
    /// ```compile_fail,E0499
    /// # use arenite::array::ArrayMut;
    /// let mut out = ArrayMut::<u32>::zeros([5, 2]);
    /// let mut tiles = out.tiles_mut(2);
    /// let mut overlapping = out.tiles_mut(3);
    /// tiles.next().unwrap()[0] = 1;
    /// ```
    ///
    /// and cannot be touched itself while a tile is alive:
    ///
    /// ```compile_fail,E0502
    /// # use arenite::array::ArrayMut;
    /// let mut out = ArrayMut::<u32>::zeros([5, 2]);
    /// let mut tile = out.tiles_mut(2).next().unwrap();
    /// let first = out[0];
    /// tile[0] = first;
    /// ```
    pub fn tiles_mut(&mut self, rows: usize) -> TilesMut<'_, T> {
        // Without room for whole pages it stays where it is, and lending it says so.
        let _ = self.own_pages();
        TilesMut::new(self, rows)
    }

    /// # Safety
    ///
    /// `fill` makes the memory that it gets (room for the shape's elements, with that content, and nobody else's) hold
    /// initialised elements.
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
        memory: Exclusive,
    ) -> ArrayMut<T> {
        ArrayMut {
            first,
            shape,
            len,
            memory,
            element: PhantomData,
        }
    }

    /// The same elements in a shape that is known to have as many.
    pub(super) fn with_shape(self, shape: Shape) -> ArrayMut<T> {
        debug_assert_eq!(shape.len(), Some(self.len));
        ArrayMut { shape, ..self }
    }

    /// The parts that tiles are cut from: the first element, and what tells their place.
    pub(super) fn parts_mut(&mut self) -> (NonNull<T>, ArrayMutLocation<'_>) {
        (self.first, self.location())
    }
}

/// Hooks for the floors that move arrays between processes.
impl<T: Element> ArrayMut<T> {
    /// Makes sure that no page of the array holds anything else, so that it can be opened to a worker: a small array
    /// of the arena moves to pages of its own.
    pub(crate) fn own_pages(&mut self) -> Result<(), ArenaFull> {
        let Exclusive::Block { block, at } = &self.memory else {
            return Ok(());
        };
        if self.len == 0 || ArrayMutLocation::Block(block, memory::extent(*at, 0)).owns_pages() {
            return Ok(());
        }
        self.move_to(Arc::clone(block.arena()))
    }

    /// Makes sure that the array can move into a job: as [`own_pages`](ArrayMut::own_pages), and a sub-array that
    /// became the only handle to its block moves to one of its own.
    pub(crate) fn own_block(&mut self) -> Result<(), ArenaFull> {
        match &self.memory {
            Exclusive::Block { block, at } if *at != block.extent().at => {
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

    /// An exclusive array of `shape`, `skip` bytes into `block`.
    ///
    /// The caller vouches that no other process writes or reads the block as long as the array has it, in the same
    /// way as for [`Array::from_block`].
    ///
    /// # Panics
    ///
    /// Where the array is not within the block or not aligned.
    pub(crate) fn from_block(block: Block, skip: u64, shape: Shape) -> ArrayMut<T> {
        let bytes = memory::bytes_of::<T>(&shape);
        let (ptr, at) = memory::in_block(&block, skip, bytes).unwrap_or_else(|| {
            panic!("an array of {bytes} bytes at {skip} does not lie within {block:?}")
        });
        ArrayMut::assemble(
            memory::first_element(ptr, bytes),
            shape,
            memory::len_of(&shape),
            Exclusive::Block { block, at },
        )
    }

    /// Gives the block back, so that it can move into a job. The elements start at its start.
    ///
    /// # Errors
    ///
    /// The array itself, where it does not start a block: it is not in the arena, or was a sub-array that became the
    /// only handle to its block.
    #[allow(
        clippy::result_large_err,
        reason = "the array itself goes back, to be copied instead"
    )]
    pub(crate) fn into_block(self) -> Result<(Block, Shape), ArrayMut<T>> {
        match self.memory {
            Exclusive::Block { block, at } if at == block.extent().at => Ok((block, self.shape)),
            memory => Err(ArrayMut { memory, ..self }),
        }
    }

    /// An array that was moved into the job which runs on the lane of `count`: `shape` at `ptr`, which is `at` in
    /// the arena. The handle counts itself; dropping it gives nothing back to the lane.
    ///
    /// # Safety
    ///
    /// Until the job has ended with a count of 0, or this process ends, the elements stay mapped, readable and
    /// writable at `ptr`, and no other process and no other handle reads or writes them: they are lent to this job.
    ///
    /// # Panics
    ///
    /// Where the array does not fit the address space, or `ptr` is not aligned.
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
            Exclusive::Lane {
                owner: LaneChunkOwner::window(count),
                at,
                ticket: LaneTicket::new(count),
            },
        )
    }

    /// Where the elements lie.
    pub(crate) fn location(&self) -> ArrayMutLocation<'_> {
        let bytes = self.len * size_of::<T>();
        match &self.memory {
            Exclusive::Private(_) => ArrayMutLocation::Private,
            Exclusive::Block { block, at } => {
                ArrayMutLocation::Block(block, memory::extent(*at, bytes))
            }
            Exclusive::Lane { at, .. } => ArrayMutLocation::Lane(memory::extent(*at, bytes)),
        }
    }
}

impl<T: Element> Deref for ArrayMut<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: an exclusive array: `len` initialised elements stay mapped at `first` while the handle lives, and
        // no other process writes them. Private: nobody else sees them. Block: held by this process alone, in no
        // job. Lane: granted or lent to this job alone.
        unsafe { std::slice::from_raw_parts(self.first.as_ptr(), self.len) }
    }
}

impl<T: Element> DerefMut for ArrayMut<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as for `deref`, and this is the only handle, borrowed mutably: nobody reads them either.
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

/// Equal in shape and in every element.
impl<T: Element + PartialEq> PartialEq for ArrayMut<T> {
    fn eq(&self, other: &ArrayMut<T>) -> bool {
        self.shape == other.shape && **self == **other
    }
}

impl<T: Element + Eq> Eq for ArrayMut<T> {}

impl<T: Element> fmt::Debug for ArrayMut<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug::<T>(f, "ArrayMut", self.shape, &self.location())
    }
}

/// The payload is the error itself, so that the fence around a kernel reports it with its numbers.
#[track_caller]
fn or_panic<T>(made: Result<T, ArenaFull>) -> T {
    match made {
        Ok(made) => made,
        Err(full) => std::panic::panic_any(full),
    }
}

fn row_range(shape: Shape, index: usize) -> std::ops::Range<usize> {
    let rows = shape.rows();
    assert!(index < rows, "row {index} of an array of {rows} rows");
    let row_len = shape.row_len().expect("counted when the array was made");
    index * row_len..(index + 1) * row_len
}
