//! Sealed memory files that are mapped for reading: in the process that calls [`Array::map_sealed`], and in workers
//! whose jobs take an array in such a file.
//!
//! A worker opens the file through the supervisor's descriptor, `/proc/PID/fd/N`. That descriptor stays open as long as
//! a handle to the file exists; the lease of each job is such a handle. [`FileName`] also contains device and inode, so
//! that a worker never maps another file.

use std::fmt;
use std::os::fd::OwnedFd;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use nix::unistd::Pid;

use super::memory::{self, Keeper, SealedMemory};
use super::sealed::ArrayLocation;
use super::{Array, Element, PrivateMap, Shape};
use crate::arena::Block;
use crate::sync::catch_panic;
use crate::sys::{self, Access, HUGE, Map, PAGE, Prot, Segment};

/// A memory file, mapped for reading, that no process can write, grow or truncate any more. Or parts of a memory file
/// that its owner leases to arrays: no process writes these parts while an array has them.
pub struct SealedFile {
    /// `None` if the file has no bytes.
    map: Option<Arc<Map>>,
    /// The offset of the map in the file.
    start: u64,
    /// In the supervisor: the descriptor through which workers open the file; `None` if jobs get a copy. In a worker:
    /// its own descriptor of a file that it maps in parts; `None` if it maps the whole file.
    segment: Option<Arc<Segment>>,
    /// Device and inode.
    identity: (u64, u64),
    /// Copies, in arenas, of parts of the file; each lives as long as a job has it. The number is the offset of the
    /// part in the file.
    copies: Mutex<Vec<(u64, Weak<Block>)>>,
    /// Keeps the bytes unchanged. Dropped after the map.
    #[allow(dead_code, reason = "for its drop")]
    keep: Kept,
}

/// A value of the program that is only dropped. A panic in its drop, whose message the panic hook has printed, goes no
/// further: the last handle may be dropped at any place in an engine.
struct Kept(Option<Box<dyn Keeper>>);

impl Kept {
    fn new(keep: impl Keeper + 'static) -> Self {
        Self(Some(Box::new(keep)))
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let keep = self.0.take();
        catch_panic(|| drop(keep));
    }
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
    /// The call that failed.
    System(sys::Error),
    /// The descriptor refers to another file.
    Another(FileName),
    /// The file can still be truncated.
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

/// Why [`Array::map_sealed`] cannot map a memory file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MapError {
    /// The file can still be written, grown or truncated.
    NotSealed,
    /// The file has another length than an array of this shape.
    Length {
        /// Bytes of an array of this shape.
        expected: u64,
        /// Bytes of the file.
        found: u64,
    },
    /// The descriptor does not refer to a memory file, or Linux refused to map the file.
    System(sys::Error),
}

impl fmt::Display for MapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSealed => f.write_str(
                "the memory file can still be changed: seal it with F_SEAL_WRITE, F_SEAL_GROW and F_SEAL_SHRINK",
            ),
            Self::Length { expected, found } => {
                write!(f, "the memory file has {found} bytes, and the array takes {expected}")
            }
            Self::System(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for MapError {}

impl From<sys::Error> for MapError {
    fn from(error: sys::Error) -> MapError {
        MapError::System(error)
    }
}

impl SealedFile {
    /// Maps a file that the caller has found to be sealed. `stat` is its identity and length.
    fn map(
        segment: Segment,
        stat: &sys::SegmentStat,
        keep: impl Send + Sync + UnwindSafe + RefUnwindSafe + 'static,
    ) -> sys::Result<SealedFile> {
        /// Up to this number of bytes, a copy for a job costs less than a descriptor.
        const SMALL: u64 = 64 << 10;
        let map = map(&segment, stat.len)?;
        // The program needs descriptors to map further objects: keep none if few are left.
        let is_offered =
            stat.len > SMALL && !sys::limits::is_short_of_descriptors(segment.as_raw_fd());
        Ok(SealedFile {
            map: map.map(Arc::new),
            segment: is_offered.then(|| Arc::new(segment)),
            identity: stat.identity,
            start: 0,
            copies: Mutex::default(),
            keep: Kept::new(keep),
        })
    }

    /// Leases bytes of a memory file to arrays, which [`array`](Self::array) makes. Jobs take these arrays by
    /// reference: workers open the file through the descriptor of `segment`. `keep` is dropped after the last array, on
    /// any thread of this process: it must neither wait nor call an engine.
    ///
    /// # Safety
    ///
    /// - `segment` is sealed against shrinking, and `map` maps it for reading, from its first byte on.
    /// - Until `keep` is dropped, the bytes of each array that is made of this lease change neither in the file nor at
    ///   their addresses in `map`, whatever process writes.
    pub unsafe fn lease(
        map: Arc<Map>,
        segment: Arc<Segment>,
        keep: impl Send + Sync + UnwindSafe + RefUnwindSafe + 'static,
    ) -> Arc<SealedFile> {
        Arc::new(SealedFile {
            map: Some(map),
            identity: segment.identity(),
            segment: Some(segment),
            start: 0,
            copies: Mutex::default(),
            keep: Kept::new(keep),
        })
    }

    /// Returns the `len` bytes from byte `skip` of the file on. `None` if they are not in the map.
    ///
    /// # Safety
    ///
    /// The caller of [`lease`](Self::lease) has promised that these bytes do not change.
    pub unsafe fn array(self: &Arc<Self>, skip: u64, len: usize) -> Option<Array<u8>> {
        Array::in_file(Arc::clone(self), skip, Shape::from(len))
    }

    /// In a worker: opens a file of the supervisor, and maps it if it is sealed. If it is not, [`window`](Self::window)
    /// later maps parts of it, which do not change while a job has them: the supervisor guarantees that.
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
            keep: Kept(None),
        })
    }

    /// In a worker: maps `len` bytes from byte `skip` on, if the file is mapped in parts. Returns `None` for a sealed
    /// file.
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
            keep: Kept(None),
        }))
    }

    /// In a worker: maps bytes of the file copy-on-write, so that a job may change them without changing the file.
    pub(crate) fn private_map(&self, skip: u64, len: usize) -> Option<PrivateMap> {
        PrivateMap::new(self.segment.as_ref()?, skip, len, true).ok()
    }

    /// In a worker: replaces the mapped bytes of a window by a copy. Called before the job that has the window is
    /// answered.
    pub(crate) fn detach(&self) -> sys::Result<()> {
        match (&self.map, &self.segment) {
            (Some(map), Some(segment)) => map.detach(segment, self.start),
            _ => Ok(()),
        }
    }

    /// Whether this is a window of the file `identity` that contains the `len` bytes from byte `skip` on and ends with
    /// them.
    pub(crate) fn is_window(&self, identity: (u64, u64), (skip, len): (u64, u64)) -> bool {
        let end = |map: &Arc<Map>| self.start + map.len() as u64;
        self.segment.is_some()
            && self.identity == identity
            && skip >= self.start
            && self.map.as_ref().is_some_and(|map| skip + len == end(map))
    }

    /// The name by which workers open the file, if the file has a descriptor.
    pub(crate) fn name(&self) -> Option<FileName> {
        let segment = self.segment.as_ref()?;
        Some(FileName {
            fd: u32::try_from(segment.as_raw_fd()).ok()?,
            identity: self.identity,
        })
    }

    /// In a worker: whether the whole file is sealed.
    pub(crate) fn is_sealed(&self) -> bool {
        self.segment.is_none()
    }

    /// Device and inode of the file. No other file has them while this value lives.
    pub(crate) fn identity(&self) -> (u64, u64) {
        self.identity
    }

    /// Returns the offset in the file of the byte at address `first`; 0 for an array without bytes, which has no
    /// position.
    pub(super) fn skip(&self, first: NonNull<u8>, bytes: usize) -> u64 {
        let base = self.map.as_ref().filter(|_| bytes > 0);
        let base = base.map(|map| map.base());
        base.map_or(0, |base| {
            self.start + (first.as_ptr().addr() - base.as_ptr().addr()) as u64
        })
    }

    /// Returns a copy of `len` bytes from byte `skip` on, in a block that `alloc` allocates in the arena with id
    /// `arena`. Jobs that need the same bytes at the same time share the copy. `None` if the file is shorter.
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
        // Not under the lock of `copies`: `alloc` may wait for the engine's lock, and another caller of this function
        // may hold the engine's lock.
        let block = match alloc(len) {
            Ok(block) => Arc::new(block),
            Err(full) => return Some(Err(full)),
        };
        // SAFETY: `at` found the bytes in the map. No process writes them while `self` lives: Linux forbids it for a
        // sealed file, and a leased file is not written during the lease. The block was just allocated with this
        // length, and no other code or process knows it.
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

    /// The address of `len` bytes from byte `skip` on, if the map has them all.
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
    // `mmap` rejects a length beyond the address space.
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    match len {
        0 => Ok(None),
        _ => Map::new(segment, 0, len, Prot::Read, len >= HUGE).map(Some),
    }
}

impl<T: Element> Array<T> {
    /// Maps, without a copy, a sealed memory file that contains the elements of an array of this shape in row-major
    /// order, and nothing else. Jobs of any engine take the array by reference: workers open the file through the
    /// descriptor, which stays open as long as there are handles.
    ///
    /// For files of up to 64 KiB, and when more than half of the descriptors that this process may have
    /// (`RLIMIT_NOFILE`) are open, the descriptor is closed at once. Then jobs get a copy. Jobs of sandboxed workers
    /// always do.
    ///
    /// `keep` is dropped after the last handle, including the handles of jobs. For example, its drop can report to the
    /// owner of the file that the file is no longer used. That may happen on any thread of this process, also on a
    /// thread of an engine, so dropping `keep` must neither wait nor call an engine. A panic of that drop is caught.
    ///
    /// The file needs the seals `F_SEAL_WRITE`, `F_SEAL_GROW` and `F_SEAL_SHRINK`, so that no process can change it:
    /// [`MemoryFile`](super::MemoryFile) makes such files. Reading a page that has no memory yet (a hole) raises SIGBUS
    /// if memory has run out. [`raw::map_sealed`](crate::raw::map_sealed) maps all bytes of a file whose length is not
    /// known.
    ///
    /// # Errors
    ///
    /// [`MapError`] if a seal is missing, the length does not match `shape`, or `file` is not a memory file.
    pub fn map_sealed(
        file: OwnedFd,
        shape: impl Into<Shape>,
        keep: impl Send + Sync + UnwindSafe + RefUnwindSafe + 'static,
    ) -> Result<Array<T>, MapError> {
        let (segment, shape) = (Segment::from(file), shape.into());
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

    /// Returns another read-only descriptor of the sealed memory file that contains this array and nothing else. It
    /// serves to pass the array to another process without a copy. `None` for other arrays, for parts of an array, and
    /// if this process has closed its descriptor of the file: see [`map_sealed`](Self::map_sealed).
    ///
    /// ```
    /// use arenite::array::{Array, MemoryFile};
    ///
    /// let file = MemoryFile::new("zeros", 1 << 20)?;
    /// let zeros = Array::<u8>::map_sealed(file.seal()?, [1024, 1024], ())?;
    /// let again = Array::<u8>::map_sealed(zeros.sealed_file().expect("it is open"), 1 << 20, ())?;
    /// assert_eq!(again[..], zeros[..]);
    /// assert!(zeros.rows(1..).sealed_file().is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn sealed_file(&self) -> Option<OwnedFd> {
        let ArrayLocation::File(file, 0) = self.location() else {
            return None;
        };
        let bytes = file.map.as_ref().map_or(0, |map| map.len());
        let segment = file.segment.as_ref()?;
        // An array may also be a whole file that is leased, not sealed.
        if bytes != size_of_val::<[T]>(self) || !segment.is_sealed().is_ok_and(|sealed| sealed) {
            return None;
        }
        let again = Segment::reopen(segment.as_raw_fd(), Access::ReadOnly).ok()?;
        Some(again.into())
    }

    /// Returns the array of this shape at byte `skip` of a file. `None` if the array is not within the file, or not
    /// aligned.
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
