//! Sealed memory files, mapped for reading: by the process that has one from a store, and by workers whose jobs take
//! an array in it.
//!
//! A worker opens the file through the supervisor's descriptor, `/proc/PID/fd/N`. That descriptor stays open as long as
//! a handle to the file exists, which includes the lease of each job; the name also has device and inode, so that a
//! worker never maps another file.

use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use nix::unistd::Pid;

use super::memory::{self, Keeper, SealedMemory};
#[cfg(feature = "store")]
use super::sealed::ArrayLocation;
use super::{Array, Element, PrivateCopy, Shape};
use crate::arena::Block;
#[cfg(feature = "store")]
use crate::sys::Access;
use crate::sys::{self, HUGE, Map, PAGE, Prot, Segment};

/// A memory file that no process can write, grow or truncate any more, mapped for reading.
pub(crate) struct SealedFile {
    /// `None` if it has no bytes.
    map: Option<Arc<Map>>,
    /// Where the map begins in the file.
    start: u64,
    /// The descriptor through which workers open it; in a worker, its own of a file of which it maps parts. `None`:
    /// jobs get a copy.
    segment: Option<Arc<Segment>>,
    /// Device and inode.
    identity: (u64, u64),
    /// Copies of parts of it in arenas, each with its first byte in the file, as long as jobs have them.
    copies: Mutex<Vec<(u64, Weak<Block>)>>,
    /// Dropped after the map.
    #[allow(dead_code, reason = "for its drop")]
    keep: Box<dyn Keeper>,
}

/// How a worker finds a sealed file: a descriptor of the supervisor, and the file that it must refer to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FileName {
    pub(crate) fd: u32,
    /// Device and inode.
    pub(crate) identity: (u64, u64),
}

/// Why a worker cannot map a file of the supervisor.
#[derive(Debug)]
pub(crate) enum OpenError {
    /// Linux refused.
    System(sys::Error),
    /// The descriptor refers to another file.
    Another(FileName),
    /// It can still be truncated.
    MayShrink,
}

impl From<sys::Error> for OpenError {
    fn from(error: sys::Error) -> OpenError {
        OpenError::System(error)
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System(error) => error.fmt(f),
            Self::Another(name) => write!(f, "descriptor {} is another file", name.fd),
            Self::MayShrink => f.write_str("it can be truncated"),
        }
    }
}

/// Why a memory file is no array.
#[derive(Debug)]
pub(crate) enum MapError {
    /// It can still be written or truncated.
    NotSealed,
    /// It has another length than an array of this shape.
    Length { expected: u64, found: u64 },
    /// Linux refused.
    System(sys::Error),
}

impl From<sys::Error> for MapError {
    fn from(error: sys::Error) -> MapError {
        MapError::System(error)
    }
}

impl SealedFile {
    /// Maps a file that the caller has found to be sealed, with its identity and length.
    fn map(
        segment: Segment,
        stat: &sys::SegmentStat,
        keep: impl Send + Sync + UnwindSafe + RefUnwindSafe + 'static,
    ) -> sys::Result<SealedFile> {
        /// Up to this size a copy for a job costs less than a descriptor.
        const SMALL: u64 = 64 << 10;
        let map = map(&segment, stat.len)?;
        // Objects that a program could map before must not fail for want of descriptors.
        let is_offered =
            stat.len > SMALL && !sys::limits::is_short_of_descriptors(segment.as_raw_fd());
        Ok(SealedFile {
            map: map.map(Arc::new),
            segment: is_offered.then(|| Arc::new(segment)),
            identity: stat.identity,
            start: 0,
            copies: Mutex::default(),
            keep: Box::new(keep),
        })
    }

    /// A part of a memory file that no process writes while `keep` lives: of a [`CowHeap`](super::CowHeap). `map` maps
    /// all of the file for reading.
    pub(super) fn part(
        map: Arc<Map>,
        segment: Arc<Segment>,
        identity: (u64, u64),
        keep: impl Send + Sync + UnwindSafe + RefUnwindSafe + 'static,
    ) -> SealedFile {
        SealedFile {
            map: Some(map),
            segment: Some(segment),
            identity,
            start: 0,
            copies: Mutex::default(),
            keep: Box::new(keep),
        }
    }

    /// In a worker: opens a file of the supervisor, and maps it if all of it is final. Parts of others, which the
    /// supervisor says are final as long as a job has them, are mapped by [`window`](Self::window).
    pub(crate) fn open(supervisor: Pid, name: FileName) -> Result<SealedFile, OpenError> {
        let segment = Segment::open_in_process(supervisor, name.fd)?;
        let stat = segment.stat()?;
        if stat.identity != name.identity {
            return Err(OpenError::Another(name));
        }
        if !segment.keeps_length()? {
            return Err(OpenError::MayShrink);
        }
        let (map, segment) = match segment.is_sealed()? {
            true => (map(&segment, stat.len)?, None),
            false => (None, Some(Arc::new(segment))),
        };
        Ok(SealedFile {
            map: map.map(Arc::new),
            start: 0,
            segment,
            identity: stat.identity,
            copies: Mutex::default(),
            keep: Box::new(()),
        })
    }

    /// In a worker: maps these bytes, if this is a file of which parts are final.
    pub(crate) fn window(&self, (skip, len): (u64, u64)) -> sys::Result<Option<SealedFile>> {
        let Some(segment) = &self.segment else {
            return Ok(None);
        };
        let unit = if len >= HUGE as u64 { HUGE } else { PAGE } as u64;
        let start = skip / unit * unit;
        let len = usize::try_from(len + (skip - start)).unwrap_or(usize::MAX);
        let map = Map::new(segment, start, len.max(1), Prot::Read, unit == HUGE as u64)?;
        Ok(Some(SealedFile {
            map: Some(Arc::new(map)),
            start,
            segment: Some(Arc::clone(segment)),
            identity: self.identity,
            copies: Mutex::default(),
            keep: Box::new(()),
        }))
    }

    /// In a worker: maps these bytes of a window for a job that may change them for itself.
    pub(crate) fn private_copy(&self, skip: u64, len: usize) -> Option<PrivateCopy> {
        PrivateCopy::map(self.segment.as_ref()?, skip, len).ok()
    }

    /// In a worker: makes what a window shows a copy. The job that has it has not been answered.
    pub(crate) fn detach(&self) -> sys::Result<()> {
        match (&self.map, &self.segment) {
            (Some(map), Some(segment)) => map.detach(segment, self.start),
            _ => Ok(()),
        }
    }

    /// Whether this is a window of these bytes of a file.
    pub(crate) fn is_window(&self, identity: (u64, u64), (skip, len): (u64, u64)) -> bool {
        let end = |map: &Arc<Map>| self.start + map.len() as u64;
        self.segment.is_some()
            && self.identity == identity
            && skip >= self.start
            && self.map.as_ref().is_some_and(|map| skip + len == end(map))
    }

    /// How workers find it, if its descriptor is open.
    pub(crate) fn name(&self) -> Option<FileName> {
        let segment = self.segment.as_ref()?;
        Some(FileName {
            fd: u32::try_from(segment.as_raw_fd()).ok()?,
            identity: self.identity,
        })
    }

    /// Whether all of the file is final, in a worker.
    pub(crate) fn is_sealed(&self) -> bool {
        self.segment.is_none()
    }

    /// Device and inode. No other file has them while this value lives.
    pub(crate) fn identity(&self) -> (u64, u64) {
        self.identity
    }

    /// Where the byte at this address is in the file. 0 for an array without bytes, which has no position.
    pub(super) fn skip(&self, first: NonNull<u8>, bytes: usize) -> u64 {
        let base = self.map.as_ref().filter(|_| bytes > 0);
        let base = base.map(|map| map.base());
        base.map_or(0, |base| {
            self.start + (first.as_ptr().addr() - base.as_ptr().addr()) as u64
        })
    }

    /// A copy of `len` bytes from byte `skip` on, in the arena of this number, where `alloc` allocates. Jobs that have
    /// the same bytes at the same time share it. `None` if there are not that many.
    pub(crate) fn copy_in<E>(
        &self,
        (skip, len): (u64, u64),
        arena: u64,
        alloc: impl FnOnce(u64) -> Result<Block, E>,
    ) -> Option<Result<Arc<Block>, E>> {
        let from = self.at(skip, usize::try_from(len).ok()?)?;
        let copies = || self.copies.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = |block: &Block| block.arena_id() == arena && block.extent().len == len;
        let known = copies()
            .iter()
            .filter(|(at, _)| *at == skip)
            .find_map(|(_, block)| block.upgrade().filter(|block| is_known(block)));
        if let Some(block) = known {
            return Some(Ok(block));
        }
        // Without the lock: `alloc` may wait for the engine, whose lock a caller of this function may hold.
        let block = match alloc(len) {
            Ok(block) => Arc::new(block),
            Err(full) => return Some(Err(full)),
        };
        // SAFETY: `at` found the bytes in the map of a file that Linux lets no process write; the block was just
        // allocated, is known to no other code or process, and has this length.
        unsafe {
            block
                .as_ptr()
                .as_ptr()
                .copy_from_nonoverlapping(from.as_ptr(), len as usize);
        }
        let mut copies = copies();
        copies.retain(|(_, block)| block.strong_count() > 0);
        copies.push((skip, Arc::downgrade(&block)));
        Some(Ok(block))
    }

    /// The address of `len` bytes from byte `skip` on, if there are that many.
    fn at(&self, skip: u64, len: usize) -> Option<NonNull<u8>> {
        match &self.map {
            _ if len == 0 => Some(NonNull::dangling()),
            Some(map) => map.at(usize::try_from(skip.checked_sub(self.start)?).ok()?, len),
            None => None,
        }
    }
}

impl fmt::Debug for SealedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealedFile")
            .field("bytes", &self.map.as_ref().map_or(0, |map| map.len()))
            .field("name", &self.name())
            .finish_non_exhaustive()
    }
}

fn map(segment: &Segment, len: u64) -> sys::Result<Option<Map>> {
    // A length beyond the address space fails in `mmap`.
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    match len {
        0 => Ok(None),
        _ => Map::new(segment, 0, len, Prot::Read, len >= HUGE).map(Some),
    }
}

impl<T: Element> Array<T> {
    /// Maps a sealed memory file that holds exactly an array of this shape. `keep` is dropped after the last handle.
    pub(crate) fn map_sealed(
        segment: Segment,
        shape: Shape,
        keep: impl Send + Sync + UnwindSafe + RefUnwindSafe + 'static,
    ) -> Result<Array<T>, MapError> {
        if !segment.is_sealed()? {
            return Err(MapError::NotSealed);
        }
        let stat = segment.stat()?;
        let expected = match shape.bytes::<T>() {
            Some(bytes) => bytes as u64,
            None => u64::MAX,
        };
        let wrong = MapError::Length {
            expected,
            found: stat.len,
        };
        if stat.len != expected {
            return Err(wrong);
        }
        let file = Arc::new(SealedFile::map(segment, &stat, keep)?);
        Array::in_file(file, 0, shape).ok_or(wrong)
    }

    /// Another descriptor of the sealed file that has these elements and nothing else, if this process has one.
    #[cfg(feature = "store")]
    pub(crate) fn file_alone(&self) -> Option<Segment> {
        let ArrayLocation::File(file, 0) = self.location() else {
            return None;
        };
        let bytes = file.map.as_ref().map_or(0, |map| map.len());
        let segment = file.segment.as_ref()?;
        (bytes == size_of_val::<[T]>(self))
            .then(|| Segment::reopen(segment.as_raw_fd(), Access::ReadOnly).ok())
            .flatten()
    }

    /// The array of this shape at byte `skip` of a file; `None` if it is not within the file, or not aligned.
    pub(crate) fn in_file(file: Arc<SealedFile>, skip: u64, shape: Shape) -> Option<Array<T>> {
        let bytes = shape.bytes::<T>()?;
        let start = file.at(skip, bytes)?;
        if bytes > 0 && !start.cast::<T>().is_aligned() {
            return None;
        }
        Some(Array::assemble(
            memory::first_element(start, bytes),
            shape,
            memory::len_of(&shape),
            SealedMemory::File(file),
        ))
    }
}
