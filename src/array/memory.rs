//! Owners of the memory behind a handle, and the source of fresh memory.

use std::alloc::{self, Layout};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::ptr::NonNull;
use std::sync::Arc;

use super::Shape;
use super::lane::{CurrentLane, LaneChunkOwner, LaneTicket};
use super::sealed_file::SealedFile;
use crate::arena::{ArenaFull, Block, BlockPlacement, Extent, Offset};

/// Alignment of every array in bytes. Sub-arrays start at a multiple of their row.
pub(super) const ALIGN: usize = 64;

/// Private memory.
pub(super) struct Heap {
    start: NonNull<u8>,
    base: NonNull<u8>,
    layout: Layout,
}

// SAFETY: a Heap owns its allocation alone and hands out only the address; the handle around it decides who may read or
// write through it.
unsafe impl Send for Heap {}
// SAFETY: as above; `&Heap` gives access to no byte.
unsafe impl Sync for Heap {}

/// Required content of fresh memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Content {
    /// None: it is written before it is read, and may be uninitialised.
    None,
    /// Zeros.
    Zeros,
    /// Any initialised bytes.
    Any,
}

impl Heap {
    /// The allocation for `bytes` bytes, or `None` if it does not fit the address space.
    fn layout(bytes: usize, content: Content) -> Option<Layout> {
        // The system's pages are zero, so zeros are the cheapest initialised bytes.
        let zeroed = content != Content::None;
        let (size, align) = match (bytes, zeroed) {
            // Nothing to allocate.
            (0, _) => (0, ALIGN),
            // At this alignment the allocator uses zero pages of the system unchanged; at a larger one it clears them
            // itself. So the array is aligned within a larger allocation.
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
        // SAFETY: `align_offset` is below ALIGN, by which a zeroed allocation is larger than requested; an allocation
        // made with that alignment has offset 0.
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
        /// Start of the array.
        at: Offset,
    },
    // Dropped in this order: the chunk is returned before the count shows that the handle is gone.
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

/// Keeps memory mapped until it is dropped.
pub(super) trait Keeper: Send + Sync + UnwindSafe + RefUnwindSafe {}

impl<T: Send + Sync + UnwindSafe + RefUnwindSafe> Keeper for T {}

/// Owner of the memory of a sealed handle; a clone is another handle to the same memory.
#[derive(Clone)]
pub(super) enum SealedMemory {
    Private(Arc<Heap>),
    /// A file that its mapper guarantees not to change.
    Mapped(#[allow(dead_code, reason = "keeps the file mapped")] Arc<dyn Keeper>),
    /// A sealed memory file.
    File(Arc<SealedFile>),
    Block {
        block: Arc<Block>,
        /// Start of the array.
        at: Offset,
    },
    // Dropped in this order, as above.
    Lane {
        /// `None` for a parameter: the supervisor holds its lease.
        owner: Option<Arc<LaneChunkOwner>>,
        at: Offset,
        ticket: LaneTicket,
    },
}

// The handles are Send and Sync despite their raw pointer; the owners of the memory must be so too.
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
    /// Another handle to the same memory, for an array that starts `skip` bytes further on.
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

    /// Makes the owner exclusive, if no other handle exists in any process and the memory is writable here.
    ///
    /// A count of this process alone decides where no other process can have a handle (private memory), and where this
    /// process counts for all of them: in the supervisor, the leases of jobs and of lanes are handles to the block. A
    /// lane knows nothing of handles elsewhere, so a chunk of which it has sent any part stays sealed.
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
                // Only looked at now: another handle may have published it until it was gone.
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

/// Allocates `bytes` bytes: from the lane if a kernel runs on this thread, otherwise privately.
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
        // SAFETY: `LaneMemory::alloc` gave this process write access to at least `bytes` bytes at `ptr`, and no other
        // handle to the chunk exists yet.
        unsafe { chunk.ptr.write_bytes(0, bytes) }
    }
    let memory = ExclusiveMemory::Lane {
        owner,
        at: chunk.at,
        ticket: LaneTicket::new(count),
    };
    Ok((chunk.ptr, memory))
}

/// Copies `bytes` into private memory, also on the thread of a lane. `None` if the system has none.
pub(super) fn copied_privately(bytes: &[u8]) -> Option<(NonNull<u8>, ExclusiveMemory)> {
    let heap = Heap::new(bytes.len(), Content::None)?;
    // SAFETY: the heap has at least that many bytes at its start, to which nothing else refers yet.
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

/// Size in bytes of an array of `T`.
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

/// Number of elements of a shape whose size is known to fit.
pub(super) fn len_of(shape: &Shape) -> usize {
    match shape.len() {
        Some(len) => len,
        None => panic!("the elements of an array of shape {shape} cannot be counted"),
    }
}

/// The pointer and arena offset of an array of `bytes` bytes at `skip` in a block, or `None` if it is not within the
/// block.
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
