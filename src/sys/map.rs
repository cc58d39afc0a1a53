//! Memory maps of segments as raw memory. This layer never forms a reference into a map.

use std::ops::Range;
use std::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};

use memmap2::{MmapOptions, MmapRaw};
use nix::errno::Errno;

use super::error::{Error, Result};
use super::inject::allowed;
use super::segment::Segment;

/// The size of small pages in layouts, in bytes. Creating an arena fails on machines with another page size.
pub const PAGE: usize = 4096;

/// The size of a huge page, and of a chunk, in bytes.
pub const HUGE: usize = 2 << 20;

/// Returns Linux' page size in bytes.
pub fn page_size() -> usize {
    static SIZE: OnceLock<usize> = OnceLock::new();
    *SIZE.get_or_init(|| {
        nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)
            .ok()
            .flatten()
            .and_then(|size| usize::try_from(size).ok())
            .unwrap_or(PAGE)
    })
}

/// Access rights of mapped pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prot {
    /// No access: any access raises SIGSEGV.
    None,
    /// Reading.
    Read,
    /// Reading and writing.
    ReadWrite,
}

impl Prot {
    fn flags(self) -> i32 {
        match self {
            Prot::None => libc::PROT_NONE,
            Prot::Read => libc::PROT_READ,
            Prot::ReadWrite => libc::PROT_READ | libc::PROT_WRITE,
        }
    }
}

/// A shared map of a part of a segment. Dropping it unmaps it.
///
/// A map only hands out raw pointers. Layers above decide from ownership and leases whether memory may be read or
/// written. Touching pages beyond the segment's length raises SIGBUS.
#[derive(Debug)]
pub struct Map {
    base: NonNull<u8>,
    len: usize,
    unmap: Unmap,
}

/// Which code unmaps the map.
#[derive(Debug)]
enum Unmap {
    /// `memmap2`, for an ordinary map.
    Plain { _raw: MmapRaw },
    /// [`Map::drop`], for a map that is aligned to 2 MiB or private, which `memmap2` does not support.
    Whole,
}

// SAFETY: a Map is an address range and hands out raw pointers only. Mapping, protecting and unmapping may happen on
// any thread, and unmapping needs `&mut` (drop).
unsafe impl Send for Map {}
// SAFETY: as for `Send`; the methods that take `&self` are system calls, which Linux serialises.
unsafe impl Sync for Map {}

impl Map {
    /// Maps `len` bytes of `segment` from `offset` (a multiple of the page size). The range may extend beyond the
    /// present length of the segment.
    ///
    /// With `aligned_2m` the base is a multiple of 2 MiB, so that chunks of the segment can be huge pages.
    pub fn new(
        segment: &Segment,
        offset: u64,
        len: usize,
        prot: Prot,
        aligned_2m: bool,
    ) -> Result<Map> {
        let what = || format!("{len} bytes at {offset} of a segment");
        if len == 0 {
            return Err(Error::new("mmap", Errno::EINVAL, what()));
        }
        allowed().map_err(|errno| Error::new("mmap", errno, what()))?;
        if aligned_2m || prot == Prot::None {
            return Map::aligned(segment, offset, len, prot, libc::MAP_SHARED);
        }
        let mut options = MmapOptions::new();
        options.offset(offset).len(len);
        let raw = match prot {
            Prot::ReadWrite => options.map_raw(segment.as_raw_fd()),
            Prot::Read | Prot::None => options.map_raw_read_only(segment.as_raw_fd()),
        }
        .map_err(|error| {
            let errno = Errno::from_raw(error.raw_os_error().unwrap_or(libc::EINVAL));
            Error::new("mmap", errno, what())
        })?;
        let base = NonNull::new(raw.as_mut_ptr())
            .ok_or_else(|| Error::new("mmap", Errno::ENOMEM, what()))?;
        Ok(Map {
            base,
            len,
            unmap: Unmap::Plain { _raw: raw },
        })
    }

    fn aligned(segment: &Segment, offset: u64, len: usize, prot: Prot, kind: i32) -> Result<Map> {
        let what = || format!("{len} bytes at {offset} of a segment, aligned to 2 MiB");
        let fail = |errno| Error::new("mmap", errno, what());
        let offset = i64::try_from(offset).map_err(|_| fail(Errno::EOVERFLOW))?;
        let padded = len
            .checked_next_multiple_of(PAGE)
            .ok_or_else(|| fail(Errno::ENOMEM))?;
        let slack = padded
            .checked_add(HUGE)
            .ok_or_else(|| fail(Errno::ENOMEM))?;
        // SAFETY: an anonymous PROT_NONE map at an address that Linux chooses replaces nothing.
        let reserved = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                slack,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if reserved == libc::MAP_FAILED {
            return Err(Error::last("mmap", what()));
        }
        let start = reserved as usize;
        let base = start.next_multiple_of(HUGE);
        let mapped = match allowed() {
            // SAFETY: [base, base + padded) is inside the reservation just made, whose address no other code has, so
            // MAP_FIXED replaces only pages of the reservation.
            Ok(()) => unsafe {
                libc::mmap(
                    base as *mut libc::c_void,
                    padded,
                    prot.flags(),
                    kind | libc::MAP_FIXED | libc::MAP_NORESERVE,
                    segment.as_raw_fd(),
                    offset,
                )
            },
            Err(errno) => {
                errno.set();
                libc::MAP_FAILED
            }
        };
        let failed = (mapped == libc::MAP_FAILED).then(|| Error::last("mmap", what()));
        let (front, back) = (base - start, start + slack - (base + padded));
        // SAFETY: both ranges are the unused ends of the reservation made above; no pointer into them was handed out.
        unsafe {
            if front > 0 {
                libc::munmap(reserved, front);
            }
            if back > 0 {
                libc::munmap((base + padded) as *mut libc::c_void, back);
            }
        }
        if let Some(error) = failed {
            // SAFETY: this is the rest of the reservation; no pointer into it was handed out.
            unsafe { libc::munmap(base as *mut libc::c_void, padded) };
            return Err(error);
        }
        let base = NonNull::new(base as *mut u8).ok_or_else(|| fail(Errno::ENOMEM))?;
        Ok(Map {
            base,
            len,
            unmap: Unmap::Whole,
        })
    }

    /// Returns the address of the first byte.
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Returns the length in bytes.
    #[allow(clippy::len_without_is_empty, reason = "there is always one")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns the address of byte `at`, if the `len` bytes from `at` on are inside the map.
    pub fn at(&self, at: usize, len: usize) -> Option<NonNull<u8>> {
        let end = at.checked_add(len)?;
        if end > self.len {
            return None;
        }
        // SAFETY: at <= self.len, checked above, so the address is inside the map or just after it.
        Some(unsafe { self.base.add(at) })
    }

    /// Changes the access rights of `range`, whose ends are multiples of the page size.
    ///
    /// Fails with `EACCES` if `prot` allows writing and the map was made from a read-only descriptor.
    pub(crate) fn protect(&self, range: Range<usize>, prot: Prot) -> Result<()> {
        let what = || format!("bytes {} to {} of a map", range.start, range.end);
        if range.is_empty() {
            return Ok(());
        }
        let address = self
            .at(range.start, range.len())
            .ok_or_else(|| Error::new("mprotect", Errno::ENOMEM, what()))?;
        allowed().map_err(|errno| Error::new("mprotect", errno, what()))?;
        // SAFETY: the range is inside this live map (checked by `at`). References into it exist only in layers above,
        // whose leases decide when a range may be closed.
        let answer = unsafe { libc::mprotect(address.as_ptr().cast(), range.len(), prot.flags()) };
        if answer == 0 {
            Ok(())
        } else {
            Err(Error::last("mprotect", what()))
        }
    }

    /// Excludes this map from forked copies of this process: touching the map there raises SIGSEGV.
    pub(crate) fn exclude_from_forks(&self) -> Result<()> {
        self.advise(0..self.len, libc::MADV_DONTFORK, "madvise(DONTFORK)")
    }

    /// Excludes `range`, which is the whole map or ends at multiples of the page size, from core dumps of this process.
    pub fn exclude_from_core_dumps(&self, range: Range<usize>) -> Result<()> {
        self.advise(range, libc::MADV_DONTDUMP, "madvise(DONTDUMP)")
    }

    /// Calls `madvise` with advice that changes neither content nor addresses.
    fn advise(&self, range: Range<usize>, advice: i32, call: &'static str) -> Result<()> {
        let error = |errno| {
            let what = format!("bytes {} to {} of a map", range.start, range.end);
            Error::new(call, errno, what)
        };
        if range.is_empty() {
            return Ok(());
        }
        let address = self
            .at(range.start, range.len())
            .ok_or_else(|| error(Errno::ENOMEM))?;
        allowed()
            // SAFETY: the range is inside this live map; callers pass only advice that keeps content and protection.
            .map(|()| unsafe { libc::madvise(address.as_ptr().cast(), range.len(), advice) })
            .and_then(Errno::result)
            .map(drop)
            .map_err(error)
    }

    /// Maps the same bytes of `segment` read-only at the same addresses, in a forked copy of a process that has called
    /// [`Map::exclude_from_forks`]. `segment` must be the segment of this map.
    pub(crate) fn remap_read_only_in_fork(&self, segment: &Segment) -> Result<()> {
        let what = || format!("a map of {} bytes, in a forked copy", self.len);
        allowed().map_err(|errno| Error::new("mmap", errno, what()))?;
        // SAFETY: the addresses of this map, which are not mapped in this process. MAP_FIXED_NOREPLACE fails if
        // anything else is mapped there.
        let mapped = unsafe {
            libc::mmap(
                self.base.as_ptr().cast(),
                self.len,
                libc::PROT_READ,
                libc::MAP_SHARED | libc::MAP_FIXED_NOREPLACE | libc::MAP_NORESERVE,
                segment.as_raw_fd(),
                0,
            )
        };
        if mapped == libc::MAP_FAILED {
            Err(Error::last("mmap", what()))
        } else {
            Ok(())
        }
    }

    /// Maps `len` bytes of `segment` from `offset` (a multiple of the page size) for reading and writing, privately:
    /// writes change copies of the pages. A map of at least 2 MiB is aligned to 2 MiB.
    pub(crate) fn new_private(segment: &Segment, offset: u64, len: usize) -> Result<Map> {
        if len >= HUGE {
            return Map::aligned(segment, offset, len, Prot::ReadWrite, libc::MAP_PRIVATE);
        }
        let error = |errno| {
            let what = format!("{len} bytes at {offset} of a segment, privately");
            Error::new("mmap", errno, what)
        };
        allowed().map_err(error)?;
        // SAFETY: a map at an address that Linux chooses replaces nothing.
        let mapped = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                Prot::ReadWrite.flags(),
                libc::MAP_PRIVATE | libc::MAP_NORESERVE,
                segment.as_raw_fd(),
                offset as libc::off_t,
            )
        };
        let base = match mapped {
            libc::MAP_FAILED => None,
            mapped => NonNull::new(mapped.cast()),
        };
        Ok(Map {
            base: base.ok_or_else(|| error(Errno::last()))?,
            len,
            unmap: Unmap::Whole,
        })
    }

    /// Replaces this map by a readable copy of its content, which later changes of `segment` do not affect. The map
    /// must show `segment` from `offset` on. Nothing may change the content during the call.
    pub(crate) fn detach(&self, segment: &Segment, offset: u64) -> Result<()> {
        let error = |errno| Error::new("mmap", errno, format!("{} bytes of a map", self.len));
        allowed().map_err(error)?;
        // SAFETY: MAP_FIXED replaces the pages of this live map. If Linux refuses, it does so before it unmaps
        // anything: with `MAP_NORESERVE` it accounts for nothing.
        let mapped = unsafe {
            libc::mmap(
                self.base.as_ptr().cast(),
                self.len.next_multiple_of(PAGE),
                Prot::ReadWrite.flags(),
                libc::MAP_PRIVATE | libc::MAP_FIXED | libc::MAP_NORESERVE,
                segment.as_raw_fd(),
                offset as libc::off_t,
            )
        };
        if mapped == libc::MAP_FAILED {
            return Err(error(Errno::last()));
        }
        self.copy_pages();
        self.protect(0..self.len, Prot::Read)
    }

    /// Makes Linux copy all pages of this map, which must be private and writable. Other threads may write to the pages
    /// meanwhile.
    pub(crate) fn copy_pages(&self) {
        for page in (0..self.len).step_by(PAGE) {
            // SAFETY: the address of a byte of this live map, which is mapped for writing; other threads of this
            // process may write it, and atomics allow that.
            let byte = unsafe { AtomicU8::from_ptr(self.base.add(page).as_ptr()) };
            let value = byte.load(Ordering::Relaxed);
            // Any write makes Linux copy the page. If the exchange fails, another thread has written.
            let _ = byte.compare_exchange(value, value, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// Advises Linux whether the first access to a chunk of `range` should allocate a huge page. Linux may be
    /// configured to ignore the advice for shared memory.
    pub fn advise_huge(&self, range: Range<usize>, huge: bool) -> Result<()> {
        if huge {
            self.advise(range, libc::MADV_HUGEPAGE, "madvise(HUGEPAGE)")
        } else {
            self.advise(range, libc::MADV_NOHUGEPAGE, "madvise(NOHUGEPAGE)")
        }
    }

    /// Asks Linux to turn the 2 MiB chunks of `range` into huge pages now. The content stays. May fail at any time.
    pub fn collapse(&self, range: Range<usize>) -> Result<()> {
        /// From Linux' include/uapi/asm-generic/mman-common.h, 6.1 and later.
        const MADV_COLLAPSE: i32 = 25;
        self.advise(range, MADV_COLLAPSE, "madvise(COLLAPSE)")
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        if matches!(self.unmap, Unmap::Whole) {
            let padded = self.len.next_multiple_of(PAGE);
            // SAFETY: the range was mapped by `aligned` or `new_private` and is unmapped only here. Code that has a
            // pointer into it also holds the value that owns this map.
            unsafe { libc::munmap(self.base.as_ptr().cast(), padded) };
        }
    }
}

/// Returns device and inode of the file that is mapped at `address`, if any.
pub fn mapped_file(address: NonNull<u8>) -> Option<(u64, u64)> {
    let address = address.as_ptr() as usize;
    // Paths in the file need not be UTF-8.
    let maps = std::fs::read("/proc/self/maps").ok()?;
    String::from_utf8_lossy(&maps).lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let range = usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?;
        if !range.contains(&address) {
            return None;
        }
        let (major, minor) = words.nth(2)?.split_once(':')?;
        let major = u32::from_str_radix(major, 16).ok()?;
        let minor = u32::from_str_radix(minor, 16).ok()?;
        let inode = words.next()?.parse().ok()?;
        Some((libc::makedev(major, minor), inode))
    })
}
