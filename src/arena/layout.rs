//! Units of layout, and the header of the control segment.

use std::mem::offset_of;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering, fence};

use bytemuck::{Pod, Zeroable};

use super::error::ArenaError;
use crate::sys::{self, Segment};

/// Alignment and padding of blocks in bytes: a cache line.
pub(crate) const QUANTUM: u64 = 64;
/// The unit, in bytes, of mappings and of blocks that are lent or published.
pub(crate) const PAGE: u64 = sys::PAGE as u64;
/// Blocks of at least this number of bytes have whole pages of their own.
pub(crate) const LARGE: u64 = 64 << 10;
/// The unit of committing huge pages, in bytes.
pub(super) const CHUNK: u64 = sys::HUGE as u64;
/// The unit of committing small pages, in bytes.
pub(super) const GRANULE: u64 = 64 << 10;

/// Length of the header in bytes. In the control segment, the links follow it.
pub(crate) const HEADER_LEN: u64 = PAGE;

const MAGIC: u64 = u64::from_le_bytes(*b"arenite\x01");
/// Incremented with every change of the layout of shared memory.
pub(super) const LAYOUT_VERSION: u32 = 1;
const READY: u32 = 0x5EAD_1E55;

/// Sizes and identity of an arena, written once by the supervisor before `ready`.
#[repr(C)]
#[derive(Copy, Clone, Pod, Zeroable, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Random number of this arena.
    pub id: u64,
    /// Bytes of the control segment, header included.
    pub control_len: u64,
    /// Bytes that each region reserves.
    pub reservation: u64,
    /// Bytes that all regions together may commit.
    pub capacity: u64,
    /// Number of regions: one for the supervisor and one per worker.
    pub regions: u32,
    /// Process id of the supervisor, shown to users; never used to decide whether it lives.
    pub pid: u32,
}

/// The first page of the control segment.
///
/// | field | writer | reader | protection |
/// |---|---|---|---|
/// | `magic`, `version`, `layout` | supervisor, before `ready` | every process | never change after `ready` |
/// | `ready` | supervisor, once, Release | every process, Acquire | atomic |
#[repr(C)]
#[derive(Debug)]
struct Header {
    magic: u64,
    version: u32,
    ready: AtomicU32,
    layout: Layout,
}

const _: () = {
    assert!(size_of::<Layout>() == 40 && align_of::<Layout>() == 8);
    assert!(size_of::<Header>() == 56 && align_of::<Header>() == 8);
    assert!(offset_of!(Header, magic) == 0);
    assert!(offset_of!(Header, version) == 8);
    assert!(offset_of!(Header, ready) == 12);
    assert!(offset_of!(Header, layout) == 16);
    assert!(size_of::<Header>() as u64 <= HEADER_LEN);
    assert!(CHUNK.is_multiple_of(GRANULE) && GRANULE.is_multiple_of(PAGE) && CHUNK / GRANULE == 32);
};

/// Writes everything except the ready word.
///
/// # Safety
///
/// `base` must be the start of a mapped, writable and committed control segment that no other process or thread
/// accesses yet.
pub(super) unsafe fn write(base: NonNull<u8>, layout: &Layout) {
    let header = base.cast::<Header>().as_ptr();
    // SAFETY: the caller owns the page exclusively until `set_ready`, and a map is page-aligned.
    unsafe {
        (&raw mut (*header).magic).write(MAGIC);
        (&raw mut (*header).version).write(LAYOUT_VERSION);
        (&raw mut (*header).layout).write(*layout);
    }
}

/// Declares the control segment complete, by storing the ready word.
///
/// # Safety
///
/// `base` must be the start of a mapped, writable and committed control segment.
pub(super) unsafe fn set_ready(base: NonNull<u8>) {
    // SAFETY: the ready word is only ever accessed as an atomic, and the caller guarantees that the page is mapped.
    let ready = unsafe { &(*base.cast::<Header>().as_ptr()).ready };
    // Release: "layout written", pairs with the Acquire in `read`.
    ready.store(READY, Ordering::Release);
}

/// Reads and checks the header of a control segment of `len` bytes.
///
/// Reads the file, not a map of it, because its creator may truncate it at any time.
pub(super) fn read(segment: &Segment, len: u64) -> Result<Layout, ArenaError> {
    let fill = |bytes: &mut [u8], at: usize| match segment.read_at(bytes, at as i64) {
        Ok(read) if read == bytes.len() => Ok(()),
        Ok(read) => Err(ArenaError::Truncated {
            segment: "control".into(),
            len: (at + read) as u64,
            expected: HEADER_LEN,
        }),
        Err(error) => Err(error.into()),
    };
    let mut ready = [0; 4];
    fill(&mut ready, offset_of!(Header, ready))?;
    // Acquire: "layout written", pairs with the Release in `set_ready`.
    fence(Ordering::Acquire);
    match u32::from_ne_bytes(ready) {
        READY => {}
        0 => return Err(ArenaError::NotReady),
        _ => {
            return Err(ArenaError::WrongVersion {
                found: 0,
                expected: LAYOUT_VERSION,
            });
        }
    }
    let mut start = [0; 12];
    fill(&mut start, 0)?;
    let (magic, version) = start.split_at(8);
    let magic = u64::from_ne_bytes(magic.try_into().expect("eight bytes"));
    let version = u32::from_ne_bytes(version.try_into().expect("four bytes"));
    let mut layout = Layout::zeroed();
    fill(
        bytemuck::bytes_of_mut(&mut layout),
        offset_of!(Header, layout),
    )?;
    if magic != MAGIC || version != LAYOUT_VERSION {
        return Err(ArenaError::WrongVersion {
            found: if magic == MAGIC { version } else { 0 },
            expected: LAYOUT_VERSION,
        });
    }
    if layout.control_len > len {
        return Err(ArenaError::Truncated {
            segment: "control".into(),
            len,
            expected: layout.control_len,
        });
    }
    Ok(layout)
}
