//! Who owns the memory behind a handle, and where fresh memory comes from.

use std::alloc::{self, Layout};
use std::ptr::NonNull;
use std::sync::Arc;

use memmap2::Mmap;

use super::Shape;
use super::lane::{Lane, LaneChunkOwner, LaneTicket};
use crate::arena::{ArenaFull, Block, BlockPlacement, Extent, Offset};

/// Every array starts at a multiple of this many bytes (sub-arrays at a multiple of their row).
pub(super) const ALIGN: usize = 64;

/// Private memory.
pub(super) struct Heap {
    start: NonNull<u8>,
    base: NonNull<u8>,
    layout: Layout,
}

// SAFETY: a Heap owns its allocation alone and hands out nothing but the address; who may read or write through it is
// the business of the handle around it.
unsafe impl Send for Heap {}
// SAFETY: as above; `&Heap` gives access to no byte.
unsafe impl Sync for Heap {}

/// What fresh memory has to hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Content {
    /// Nothing: it is written before it is read, and may be uninitialised.
    None,
    /// Zeros.
    Zeros,
    /// Bytes, whatever they are.
    Any,
}

impl Heap {
    /// What is asked of the allocator for so many bytes; `None` where they do not fit the address space.
    fn layout(bytes: usize, content: Content) -> Option<Layout> {
        // The system's pages are zeros: no other bytes come cheaper.
        let zeroed = content != Content::None;
        let (size, align) = match (bytes, zeroed) {
            // Nothing to allocate.
            (0, _) => (0, ALIGN),
            // At this alignment the allocator takes zero pages from the system as they are; at a larger one it
            // writes them all. So the array is moved up inside a larger allocation.
            (_, true) => (bytes.saturating_add(ALIGN), 16),
            (_, false) => (bytes, ALIGN),
        };
        Layout::from_size_align(size, align).ok()
    }

    /// `bytes` bytes at a multiple of [`ALIGN`], if the system has them.
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
        // SAFETY: `align_offset` is below ALIGN, by which a zeroed allocation is larger than what is asked for; one
        // that was made with that alignment is not moved at all.
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

/// What keeps the memory of an exclusive handle.
pub(super) enum Exclusive {
    Private(Heap),
    Block {
        block: Block,
        /// Where the view starts.
        at: Offset,
    },
    // The fields are dropped in this order: the chunk goes back before the count says that the handle is gone.
    Lane {
        owner: LaneChunkOwner,
        at: Offset,
        ticket: LaneTicket,
    },
}

/// What keeps the memory of a sealed handle; a clone is one more handle to the same.
#[derive(Clone)]
pub(super) enum Shared {
    Private(Arc<Heap>),
    Mapped(#[allow(dead_code, reason = "keeps the file mapped")] Arc<Mmap>),
    Block {
        block: Arc<Block>,
        /// Where the view starts.
        at: Offset,
    },
    // Dropped in this order, as above.
    Lane {
        /// `None` for a parameter: its lease is in the supervisor's books.
        owner: Option<Arc<LaneChunkOwner>>,
        at: Offset,
        ticket: LaneTicket,
    },
}

// The handles promise to be Send and Sync in spite of their raw pointer; what owns the memory must be so by itself.
const _: () = {
    const fn send_and_sync<T: Send + Sync>() {}
    send_and_sync::<Exclusive>();
    send_and_sync::<Shared>();
};

impl Exclusive {
    pub(super) fn seal(self) -> Shared {
        match self {
            Exclusive::Private(heap) => Shared::Private(Arc::new(heap)),
            Exclusive::Block { block, at } => Shared::Block {
                block: Arc::new(block),
                at,
            },
            Exclusive::Lane { owner, at, ticket } => Shared::Lane {
                owner: Some(Arc::new(owner)),
                at,
                ticket,
            },
        }
    }
}

impl Shared {
    /// The same memory for a view that starts `skip` bytes further on: one more handle.
    pub(super) fn advanced(&self, skip: usize) -> Shared {
        let mut shared = self.clone();
        match &mut shared {
            Shared::Private(_) | Shared::Mapped(_) => {}
            Shared::Block { at, .. } | Shared::Lane { at, .. } => *at = advance(*at, skip),
        }
        shared
    }

    /// Gives the memory to its only handle, if it is the only one and the memory can be written here.
    pub(super) fn try_unseal(self) -> Result<Exclusive, Shared> {
        match self {
            Shared::Private(heap) => Arc::try_unwrap(heap)
                .map(Exclusive::Private)
                .map_err(Shared::Private),
            Shared::Block { block, at } => match Arc::try_unwrap(block) {
                Ok(block) => Ok(Exclusive::Block { block, at }),
                Err(block) => Err(Shared::Block { block, at }),
            },
            Shared::Lane {
                owner: Some(owner),
                at,
                ticket,
            } => match Arc::try_unwrap(owner) {
                Ok(owner) => Ok(Exclusive::Lane { owner, at, ticket }),
                Err(owner) => Err(Shared::Lane {
                    owner: Some(owner),
                    at,
                    ticket,
                }),
            },
            shared @ (Shared::Mapped(_) | Shared::Lane { owner: None, .. }) => Err(shared),
        }
    }
}

/// Why there is no memory.
#[derive(Debug)]
pub(crate) enum AllocError {
    /// The arena has none.
    Arena(ArenaFull),
    /// The system has none.
    System {
        /// Which were asked for.
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

/// Fresh memory for `bytes` bytes: the lane's where a kernel runs on this thread, private elsewhere.
pub(super) fn allocate(
    bytes: usize,
    content: Content,
) -> Result<(NonNull<u8>, Exclusive), AllocError> {
    let Some(Lane { memory, count }) = Lane::current() else {
        let heap = Heap::new(bytes, content).ok_or(AllocError::System {
            bytes: bytes as u64,
        })?;
        return Ok((heap.start, Exclusive::Private(heap)));
    };
    let chunk = memory
        .alloc(bytes, BlockPlacement::Packed)
        .map_err(AllocError::Arena)?;
    let owner = LaneChunkOwner::fresh(chunk, bytes as u64, count);
    if content == Content::Zeros && !chunk.fresh {
        // SAFETY: LaneMemory::alloc gave this process write access to at least `bytes` bytes at `ptr`, and no other
        // handle to the chunk exists yet.
        unsafe { chunk.ptr.write_bytes(0, bytes) }
    }
    let memory = Exclusive::Lane {
        owner,
        at: chunk.at,
        ticket: LaneTicket::new(count),
    };
    Ok((chunk.ptr, memory))
}

/// The pointer to the first element of a view of `bytes` bytes: `ptr` itself, or an aligned address where there is
/// nothing to point at.
///
/// # Panics
///
/// Where `ptr` is not aligned for `T`.
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

/// The bytes of an array of `T`.
///
/// # Panics
///
/// Where they do not fit the address space.
pub(super) fn bytes_of<T>(shape: &Shape) -> usize {
    match shape.bytes::<T>() {
        Some(bytes) => bytes,
        None => panic!(
            "an array of shape {shape} with elements of {} bytes does not fit the address space",
            size_of::<T>()
        ),
    }
}

/// The elements of a shape whose bytes are known to fit.
pub(super) fn len_of(shape: &Shape) -> usize {
    match shape.len() {
        Some(len) => len,
        None => panic!("the elements of an array of shape {shape} cannot be counted"),
    }
}

/// The part of a block that a view of `bytes` bytes at `skip` covers, as a pointer and a place in the arena; `None`
/// where it leaves the block.
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
