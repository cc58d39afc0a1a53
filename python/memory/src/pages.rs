//! A map of a memory file for writing, whose pages become private to this process and shared again: [`Pages`].

use std::io;
use std::ops::{Deref, Range};

use arenite::raw::memory::{Map, Prot, Segment, allowed};
use nix::errno::Errno;

/// A map of a whole segment for reading and writing, from its first byte on, and of addresses behind its end.
///
/// The ends of all ranges are multiples of the page size.
#[derive(Debug)]
pub(crate) struct Pages(Map);

impl Deref for Pages {
    type Target = Map;

    fn deref(&self) -> &Map {
        &self.0
    }
}

impl Pages {
    /// Maps `len` bytes of a segment, aligned to 2 MiB. No memory is allocated.
    pub(crate) fn new(segment: &Segment, len: usize) -> io::Result<Self> {
        Ok(Self(Map::new(segment, 0, len, Prot::ReadWrite, true)?))
    }

    /// Makes `range` private to this process. The content stays, but later writes to `range` change a copy of the page,
    /// which no other map shows. With `shared`, reverses this: drops the copies, so that `range` shows the segment
    /// again.
    ///
    /// `segment` must be the segment of this map. Threads that access `range` during the call see its content from
    /// before or after the call.
    pub(crate) fn set_shared(
        &self,
        range: Range<usize>,
        segment: &Segment,
        shared: bool,
    ) -> nix::Result<()> {
        let kind = if shared {
            libc::MAP_SHARED
        } else {
            libc::MAP_PRIVATE
        };
        self.replace(
            range,
            libc::PROT_READ | libc::PROT_WRITE,
            kind,
            Some(segment),
        )
    }

    /// Replaces `range` by zeros of this process alone. No pointers into `range` may be in use.
    pub(crate) fn set_anonymous(&self, range: Range<usize>) -> nix::Result<()> {
        let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        self.replace(range, libc::PROT_READ | libc::PROT_WRITE, kind, None)
    }

    /// Unmaps `range`. The addresses stay reserved. The caller must not use pointers into `range` afterwards.
    pub(crate) fn release(&self, range: Range<usize>) -> nix::Result<()> {
        let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        self.replace(range, libc::PROT_NONE, kind, None)
    }

    /// Replaces `range` by a copy of its content in private memory. Writes of other threads during the call may be
    /// lost.
    pub(crate) fn copy_in_place(&self, range: Range<usize>) -> nix::Result<()> {
        let address = self.at(range.start, range.len()).ok_or(Errno::ENOMEM)?;
        allowed()?;
        // SAFETY: the new map is at an address that Linux chooses, as long as the range, and known to no other code. It
        // then replaces pages of this live map (checked by `at`).
        let moved = unsafe {
            let copy = libc::mmap(
                std::ptr::null_mut(),
                range.len(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            );
            if copy == libc::MAP_FAILED {
                return Err(Errno::last());
            }
            std::ptr::copy_nonoverlapping(address.as_ptr(), copy.cast(), range.len());
            let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
            libc::mremap(copy, range.len(), range.len(), flags, address.as_ptr())
        };
        match moved {
            libc::MAP_FAILED => Err(Errno::last()),
            _ => Ok(()),
        }
    }

    /// Writes the bytes `range` of this map to `segment`, from offset `at` on. If another thread changes the bytes
    /// meanwhile, some old and some new bytes are written.
    pub(crate) fn store(
        &self,
        mut range: Range<usize>,
        segment: &Segment,
        mut at: u64,
    ) -> nix::Result<()> {
        while !range.is_empty() {
            let from = self.at(range.start, range.len()).ok_or(Errno::EFAULT)?;
            allowed()?;
            // SAFETY: inside this live map (checked by `at`), of which Linux reads the bytes.
            let written = Errno::result(unsafe {
                libc::pwrite(
                    segment.as_raw_fd(),
                    from.as_ptr().cast(),
                    range.len(),
                    at as libc::off_t,
                )
            });
            match written {
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
                Ok(0) => return Err(Errno::ENOSPC),
                Ok(written) => {
                    range.start += written as usize;
                    at += written as u64;
                }
            }
        }
        Ok(())
    }

    /// Replaces the map at `range` by the same range of the segment, or by memory that belongs to no segment.
    fn replace(
        &self,
        range: Range<usize>,
        prot: i32,
        kind: i32,
        segment: Option<&Segment>,
    ) -> nix::Result<()> {
        let address = self.at(range.start, range.len()).ok_or(Errno::ENOMEM)?;
        allowed()?;
        // SAFETY: the range is inside this live map (checked by `at`), so MAP_FIXED replaces only pages of this map. If
        // Linux refuses, it does so before it unmaps anything: with `MAP_NORESERVE` it accounts for nothing.
        let mapped = unsafe {
            libc::mmap(
                address.as_ptr().cast(),
                range.len(),
                prot,
                kind | libc::MAP_FIXED | libc::MAP_NORESERVE,
                segment.map_or(-1, |segment| segment.as_raw_fd()),
                segment.map_or(0, |_| range.start as libc::off_t),
            )
        };
        match mapped {
            libc::MAP_FAILED => Err(Errno::last()),
            _ => Ok(()),
        }
    }
}
