//! The owners of the memory to which array handles refer, and the allocation of fresh memory.

use std::alloc::{self, Layout};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::ptr::NonNull;
use std::sync::Arc;

use super::Shape;
use super::lane::{CurrentLane, LaneChunkOwner, LaneTicket};
use super::sealed_file::SealedFile;
use crate::arena::{ArenaFull, Block, BlockPlacement, Extent, Offset};

/// Alignment of every array in bytes. A sub-array starts at a multiple of its row length instead.
pub(super) const ALIGN: usize = 64;

/// An allocation of private memory.
pub(super) struct Heap {
    start: NonNull<u8>,
    base: NonNull<u8>,
    layout: Layout,
}

// SAFETY: a Heap owns its allocation alone, in memory of this process, and hands out only the address. The handle that
// owns the Heap decides which thread may read or write through the address.
unsafe impl Send for Heap {}
// SAFETY: as above; `&Heap` gives access to no byte.
unsafe impl Sync for Heap {}

/// The content that fresh memory must have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Content {
    /// Any, even uninitialised: the caller writes all of it before reading it.
    None,
    /// Zeros.
    Zeros,
    /// Any initialised bytes.
    Any,
}

impl Heap {
    /// The allocation for `bytes` bytes, or `None` if it does not fit the address space.
    fn layout(bytes: usize, content: Content) -> Option<Layout> {
        // Pages from Linux are zero, so zeros are the cheapest initialised bytes.
        let zeroed = content != Content::None;
        let (size, align) = match (bytes, zeroed) {
            // No memory to allocate.
            (0, _) => (0, ALIGN),
            // At this alignment the allocator returns zero pages of Linux unchanged; at a larger alignment it clears
            // them itself. So allocate more, and align the array within the allocation.
            (_, true) => (bytes.saturating_add(ALIGN), 16),
            (_, false) => (bytes, ALIGN),
        };
        Layout::from_size_align(size, align).ok()
    }

    /// Allocates `bytes` bytes at a multiple of [`ALIGN`]. `None` if the system has no memory.
    fn new(bytes: usize, content: Content) -> Option<Heap> {
        let layout = Heap::layout(bytes, content)?;
        if layout.size() == 0 {
            let base = NonNull::<AlignedByte>::dangling().cast();
            return Some(Heap {
                start: base,
                base,
                layout,
            });
        }
        // SAFETY: the layout has a size above 0.
        let base = unsafe {
            if content != Content::None {
                alloc::alloc_zeroed(layout)
            } else {
                alloc::alloc(layout)
            }
        };
        let base = NonNull::new(base)?;
        // SAFETY: a zeroed allocation is ALIGN bytes larger than requested, and `align_offset` is below ALIGN. Another
        // allocation has that alignment, so the offset is 0.
        let start = unsafe { base.add(base.align_offset(ALIGN)) };
        Some(Heap {
            start,
            base,
            layout,
        })
    }
}

#[repr(align(64))]
struct AlignedByte(#[allow(dead_code, reason = "only its alignment counts")] u8);

impl Drop for Heap {
    fn drop(&mut self) {
        if self.layout.size() > 0 {
            // SAFETY: `base` came from the allocator with this layout, and the last handle is gone.
            unsafe { alloc::dealloc(self.base.as_ptr(), self.layout) }
        }
    }
}

/// Owner of the memory of an exclusive handle.
pub(super) enum ExclusiveMemory {
    Private(Heap),
    Block {
        block: Block,
        /// The location of the array's first byte.
        at: Offset,
    },
    // Fields are dropped in this order: first the chunk is returned, then the handle is subtracted from the count.
    Lane {
        owner: LaneChunkOwner,
        at: Offset,
        ticket: LaneTicket,
    },
    /// Memory of a sealed array that was lent to a kernel on this thread: see [`ArrayMut::from_loan`].
    ///
    /// [`ArrayMut::from_loan`]: super::ArrayMut::from_loan
    Loan(SealedMemory),
}

/// A value that keeps memory mapped until it is dropped.
pub(super) trait Keeper: Send + Sync + UnwindSafe + RefUnwindSafe {}

impl<T: Send + Sync + UnwindSafe + RefUnwindSafe> Keeper for T {}

/// Owner of the memory of a sealed handle. A clone is another handle to the same memory.
#[derive(Clone)]
pub(super) enum SealedMemory {
    Private(Arc<Heap>),
    /// A file that does not change, as the code that mapped it guarantees.
    Mapped(#[allow(dead_code, reason = "keeps the file mapped")] Arc<dyn Keeper>),
    /// A sealed memory file.
    File(Arc<SealedFile>),
    Block {
        block: Arc<Block>,
        /// The location of the array's first byte.
        at: Offset,
    },
    // Fields are dropped in this order: see `ExclusiveMemory::Lane`.
    Lane {
        /// `None` for a parameter, for which the supervisor has a lease.
        owner: Option<Arc<LaneChunkOwner>>,
        at: Offset,
        ticket: LaneTicket,
    },
}

// Handles are Send and Sync despite their raw pointer, so the owners of the memory must be too.
const _: () = {
    const fn send_and_sync<T: Send + Sync>() {}
    send_and_sync::<ExclusiveMemory>();
    send_and_sync::<SealedMemory>();
};

impl ExclusiveMemory {
    pub(super) fn seal(self) -> SealedMemory {
        match self {
            ExclusiveMemory::Private(heap) => SealedMemory::Private(Arc::new(heap)),
            ExclusiveMemory::Block { block, at } => SealedMemory::Block {
                block: Arc::new(block),
                at,
            },
            ExclusiveMemory::Lane { owner, at, ticket } => SealedMemory::Lane {
                owner: Some(Arc::new(owner)),
                at,
                ticket,
            },
            ExclusiveMemory::Loan(memory) => memory,
        }
    }
}

impl SealedMemory {
    /// Returns the owner for another handle to the same memory, whose array starts `skip` bytes further on.
    pub(super) fn advanced(&self, skip: usize) -> SealedMemory {
        let mut shared = self.clone();
        match &mut shared {
            SealedMemory::Private(_) | SealedMemory::Mapped(_) | SealedMemory::File(_) => {}
            SealedMemory::Block { at, .. } | SealedMemory::Lane { at, .. } => {
                *at = advance(*at, skip)
            }
        }
        shared
    }

    /// Makes the owner exclusive, if no other handle exists in any process and this process may write the memory.
    ///
    /// The reference count of this process decides in two cases: for private memory, to which no other process can have
    /// a handle, and for a block in the supervisor, where each lease of a job or of a lane counts as a handle. A lane
    /// does not know the handles of other processes, so a chunk stays sealed once any part of it was sent.
    pub(super) fn try_unseal(self) -> Result<ExclusiveMemory, SealedMemory> {
        match self {
            SealedMemory::Private(heap) => Arc::try_unwrap(heap)
                .map(ExclusiveMemory::Private)
                .map_err(SealedMemory::Private),
            SealedMemory::Block { block, at } => match Arc::try_unwrap(block) {
                Ok(block) => Ok(ExclusiveMemory::Block { block, at }),
                Err(block) => Err(SealedMemory::Block { block, at }),
            },
            SealedMemory::Lane {
                owner: Some(owner),
                at,
                ticket,
            } => match Arc::try_unwrap(owner) {
                // Check only now, as the last owner: the thread of another handle may have published the chunk until
                // that handle was gone.
                Ok(owner) if !owner.is_published() => {
                    Ok(ExclusiveMemory::Lane { owner, at, ticket })
                }
                shared => Err(SealedMemory::Lane {
                    owner: Some(shared.map_or_else(|shared| shared, Arc::new)),
                    at,
                    ticket,
                }),
            },
            shared @ (SealedMemory::Mapped(_)
            | SealedMemory::File(_)
            | SealedMemory::Lane { owner: None, .. }) => Err(shared),
        }
    }
}

/// Why an allocation failed.
#[derive(Debug)]
pub(crate) enum AllocError {
    /// The arena is full.
    Arena(ArenaFull),
    /// The system has no memory.
    System {
        /// Bytes requested.
        bytes: u64,
    },
}

impl From<AllocError> for ArenaFull {
    fn from(why: AllocError) -> ArenaFull {
        match why {
            AllocError::Arena(full) => full,
            AllocError::System { bytes } => ArenaFull::private(bytes),
        }
    }
}

/// Allocates `bytes` bytes: from the lane if a kernel runs on this thread, otherwise from private memory.
pub(super) fn allocate(
    bytes: usize,
    content: Content,
) -> Result<(NonNull<u8>, ExclusiveMemory), AllocError> {
    let Some(CurrentLane { memory, count }) = CurrentLane::get() else {
        let heap = Heap::new(bytes, content).ok_or(AllocError::System {
            bytes: bytes as u64,
        })?;
        return Ok((heap.start, ExclusiveMemory::Private(heap)));
    };
    let chunk = memory
        .alloc(bytes, BlockPlacement::Packed)
        .map_err(AllocError::Arena)?;
    let count = memory.count_of(extent(chunk.at, bytes)).unwrap_or(count);
    let owner = LaneChunkOwner::fresh(chunk, bytes as u64, count);
    if content == Content::Zeros && !chunk.fresh {
        // SAFETY: `LaneMemory::alloc` returned at least `bytes` bytes at `ptr` that no other process writes. No handle
        // to the chunk exists yet in this process.
        unsafe { chunk.ptr.write_bytes(0, bytes) }
    }
    let memory = ExclusiveMemory::Lane {
        owner,
        at: chunk.at,
        ticket: LaneTicket::new(count),
    };
    Ok((chunk.ptr, memory))
}

/// Copies `bytes` into private memory, also on the thread of a lane. `None` if the system has no memory.
pub(super) fn copied_privately(bytes: &[u8]) -> Option<(NonNull<u8>, ExclusiveMemory)> {
    let heap = Heap::new(bytes.len(), Content::None)?;
    // SAFETY: the heap was just allocated with at least `bytes.len()` bytes, and no other code has its address.
    unsafe {
        heap.start
            .copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len());
    }
    Some((heap.start, ExclusiveMemory::Private(heap)))
}

/// The pointer to the first element of an array of `bytes` bytes: `ptr`, or a dangling aligned address if `bytes` is 0.
///
/// # Panics
///
/// If `ptr` is not aligned for `T`.
pub(super) fn first_element<T>(ptr: NonNull<u8>, bytes: usize) -> NonNull<T> {
    if bytes == 0 {
        return NonNull::dangling();
    }
    let first = ptr.cast::<T>();
    assert!(
        first.is_aligned(),
        "an array of elements aligned to {} cannot start at {first:p}",
        align_of::<T>()
    );
    first
}

/// The size in bytes of an array of `T`.
///
/// # Panics
///
/// If it does not fit the address space.
pub(super) fn bytes_of<T>(shape: &Shape) -> usize {
    match shape.bytes::<T>() {
        Some(bytes) => bytes,
        None => panic!(
            "an array of shape {shape} with elements of {} bytes does not fit the address space",
            size_of::<T>()
        ),
    }
}

/// The number of elements of a shape that is known to fit the address space.
pub(super) fn len_of(shape: &Shape) -> usize {
    match shape.len() {
        Some(len) => len,
        None => panic!("the elements of an array of shape {shape} cannot be counted"),
    }
}

/// The address and the location of an array of `bytes` bytes that begins `skip` bytes into `block`. `None` if the array
/// is not within the block.
pub(super) fn in_block(block: &Block, skip: u64, bytes: usize) -> Option<(NonNull<u8>, Offset)> {
    let extent = block.extent();
    if skip.checked_add(bytes as u64)? > extent.len {
        return None;
    }
    // SAFETY: `skip` is at most the block's length (checked above), and the block keeps its whole extent mapped.
    let ptr = unsafe { block.as_ptr().add(skip as usize) };
    Some((ptr, advance(extent.at, skip as usize)))
}

pub(super) fn advance(at: Offset, skip: usize) -> Offset {
    Offset::new(at.region(), at.offset() + skip as u64)
}

pub(super) fn extent(at: Offset, bytes: usize) -> Extent {
    Extent {
        at,
        len: bytes as u64,
    }
}
