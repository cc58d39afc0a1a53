//! Finds the pages of a private map that this process has written: [`Written`].

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use arenite::raw::memory::{OwnerProcess, PAGE, allowed};
use nix::Result;
use nix::errno::Errno;

/// Access to the page table of this process through `/proc/self/pagemap`.
#[derive(Debug)]
pub(crate) struct Written {
    map: File,
    /// Device and inode of the file: after a program has closed all descriptors, another file may have the same
    /// descriptor number.
    identity: (u64, u64),
    /// Whether Linux lacks `PAGEMAP_SCAN` (Linux before 6.7).
    has_no_scan: AtomicBool,
    /// A `userfaultfd` with asynchronous write protection (see [`protection`]), and its device and inode. `None` if
    /// Linux lacks or forbids such protection.
    protection: OnceLock<Option<(File, (u64, u64))>>,
}

/// Returns the request code `_IOWR(kind, number, T)`.
const fn read_write<T>(kind: u64, number: u64) -> u64 {
    3 << 30 | (size_of::<T>() as u64) << 16 | kind << 8 | number
}

/// The `kind` of all requests of `userfaultfd`, and its API version.
const UFFD: u64 = 0xaa;

/// The argument of `PAGEMAP_SCAN`, from Linux' include/uapi/linux/fs.h.
#[repr(C)]
struct Scan {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    found: u64,
    most_found: u64,
    most_pages: u64,
    inverted: u64,
    all_of: u64,
    any_of: u64,
    returned: u64,
}

/// A range of pages that a scan has found.
#[repr(C)]
#[derive(Default)]
struct Found {
    start: u64,
    end: u64,
    categories: u64,
}

/// The pages that a scan protects against writing.
#[derive(Clone, Copy, PartialEq)]
enum Protect {
    No,
    Found,
}

/// Opens a `userfaultfd` with asynchronous write protection: a write to a protected page succeeds, and ends the
/// protection.
fn protection() -> Result<(File, (u64, u64))> {
    /// The argument of `UFFDIO_API`.
    #[repr(C)]
    struct Api {
        version: u64,
        features: u64,
        requests: u64,
    }
    const API: u64 = read_write::<Api>(UFFD, 0x3f);
    const WP_ASYNC: u64 = 1 << 15;
    /// Linux allows unprivileged programs only this mode, which does not affect asynchronous protection.
    const USER_MODE_ONLY: i32 = 1;
    allowed()?;
    let flags = libc::O_CLOEXEC | libc::O_NONBLOCK | USER_MODE_ONLY;
    // SAFETY: passes a number and creates a descriptor. No memory is accessed.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_userfaultfd, flags) })?;
    // SAFETY: the descriptor was just created, and no other code owns it.
    let file = File::from(unsafe { OwnedFd::from_raw_fd(fd as i32) });
    let mut api = Api {
        version: UFFD,
        features: WP_ASYNC,
        requests: 0,
    };
    allowed()?;
    // SAFETY: reads and writes the value above, which is a local variable with the layout of Linux.
    Errno::result(unsafe {
        libc::ioctl(file.as_raw_fd(), API as _, std::ptr::from_mut(&mut api))
    })?;
    let identity = identity(&file)?;
    Ok((file, identity))
}

fn number(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}

fn identity(file: &File) -> Result<(u64, u64)> {
    let meta = file.metadata().map_err(|why| number(&why))?;
    Ok((meta.dev(), meta.ino()))
}

impl Written {
    /// Returns the access to the page table of this process, which is opened once.
    pub(crate) fn of_this_process() -> Result<Arc<Written>> {
        static OPEN: Mutex<Option<(OwnerProcess, Arc<Written>)>> = Mutex::new(None);
        // Do not wait: in a forked process, the mutex may stay locked by a thread that does not exist there.
        let Ok(mut open) = OPEN.try_lock() else {
            return Written::open().map(Arc::new);
        };
        match &*open {
            Some((process, written)) if process.is_current() => Ok(Arc::clone(written)),
            _ => {
                let written = Arc::new(Written::open()?);
                *open = Some((OwnerProcess::current(), Arc::clone(&written)));
                Ok(written)
            }
        }
    }

    pub(crate) fn open() -> Result<Written> {
        allowed()?;
        let map = File::open("/proc/self/pagemap").map_err(|why| number(&why))?;
        let identity = identity(&map)?;
        Ok(Written {
            map,
            identity,
            has_no_scan: AtomicBool::new(false),
            protection: OnceLock::new(),
        })
    }

    /// Returns true if a page at these addresses was written since the last [`take`](Self::take), so that this process
    /// has a copy of its own. The addresses must map a segment privately.
    pub(crate) fn is_any(&self, addresses: Range<usize>) -> Result<bool> {
        let pages = addresses.start / PAGE * PAGE..addresses.end.next_multiple_of(PAGE);
        self.check()?;
        if !self.has_no_scan.load(Ordering::Relaxed) {
            let found = self.scan(&pages, Protect::No, &mut [Found::default()]);
            match found.map(|(ranges, _)| ranges > 0) {
                Err(Errno::ENOTTY | Errno::EINVAL) => {
                    // Relaxed: another thread that misses the change gets the same error itself.
                    self.has_no_scan.store(true, Ordering::Relaxed);
                }
                found => return found,
            }
        }
        self.read(pages)
    }

    /// Returns true if Linux has asynchronous write protection (from 6.7 on) and allows it.
    pub(crate) fn can_track(&self) -> bool {
        self.protection().is_some()
    }

    fn protection(&self) -> Option<&(File, (u64, u64))> {
        self.protection.get_or_init(|| protection().ok()).as_ref()
    }

    /// Prepares [`take`](Self::take) for these addresses. Returns false if Linux lacks asynchronous write protection
    /// (before 6.7) or does not allow it.
    pub(crate) fn track(&self, addresses: Range<usize>) -> bool {
        /// The argument of `UFFDIO_REGISTER`.
        #[repr(C)]
        struct Register {
            start: u64,
            len: u64,
            mode: u64,
            requests: u64,
        }
        const REGISTER: u64 = read_write::<Register>(UFFD, 0);
        const MODE_PROTECT: u64 = 1 << 1;
        let Some((file, known)) = self.protection() else {
            return false;
        };
        if identity(file) != Ok(*known) || allowed().is_err() {
            return false;
        }
        let start = addresses.start / PAGE * PAGE;
        let mut register = Register {
            start: start as u64,
            len: (addresses.end.next_multiple_of(PAGE) - start) as u64,
            mode: MODE_PROTECT,
            requests: 0,
        };
        // SAFETY: reads and writes the value above, which is a local variable with the layout of Linux. Registering
        // changes no page, and every access to the pages still succeeds.
        let answer = unsafe {
            libc::ioctl(
                file.as_raw_fd(),
                REGISTER as _,
                std::ptr::from_mut(&mut register),
            )
        };
        answer == 0
    }

    /// Calls `each` with all runs of pages that were written, in the sense of [`is_any`](Self::is_any). From then on
    /// these pages count as not written until the next write, which may happen during the call to `each`. All addresses
    /// must be [tracked](Self::track).
    ///
    /// # Errors
    ///
    /// After an error, it is unknown which pages count as not written.
    pub(crate) fn take(
        &self,
        addresses: Range<usize>,
        mut each: impl FnMut(Range<usize>),
    ) -> Result<()> {
        let mut pages = addresses.start / PAGE * PAGE..addresses.end.next_multiple_of(PAGE);
        let mut found = [const {
            Found {
                start: 0,
                end: 0,
                categories: 0,
            }
        }; 256];
        while !pages.is_empty() {
            self.check()?;
            let (ranges, end) = self.scan(&pages, Protect::Found, &mut found)?;
            for found in &found[..ranges] {
                each(found.start as usize..found.end as usize);
            }
            pages.start = if ranges < found.len() { pages.end } else { end };
        }
        Ok(())
    }

    fn check(&self) -> Result<()> {
        match identity(&self.map) == Ok(self.identity) {
            true => Ok(()),
            false => Err(Errno::EBADF),
        }
    }

    /// Writes the ranges of written pages to `found`. Returns the number of ranges, and the address where the scan
    /// ended.
    fn scan(
        &self,
        pages: &Range<usize>,
        protect: Protect,
        found: &mut [Found],
    ) -> Result<(usize, usize)> {
        const PAGEMAP_SCAN: u64 = read_write::<Scan>(b'f' as u64, 16);
        /// `PM_SCAN_WP_MATCHING` and `PM_SCAN_CHECK_WPASYNC`: fails with `EPERM` if a page cannot be protected.
        const PROTECTS: u64 = 1 << 0 | 1 << 1;
        const IS_WRITTEN: u64 = 1 << 1;
        const IS_FILE: u64 = 1 << 2;
        const IS_PRESENT: u64 = 1 << 3;
        const IS_SWAPPED: u64 = 1 << 4;
        let mut scan = Scan {
            size: size_of::<Scan>() as u64,
            flags: if protect == Protect::Found {
                PROTECTS
            } else {
                0
            },
            start: pages.start as u64,
            end: pages.end as u64,
            walk_end: 0,
            found: found.as_mut_ptr().addr() as u64,
            most_found: found.len() as u64,
            most_pages: if protect == Protect::Found {
                0
            } else {
                found.len() as u64
            },
            inverted: IS_FILE,
            all_of: IS_FILE | IS_WRITTEN,
            any_of: IS_PRESENT | IS_SWAPPED,
            returned: IS_PRESENT,
        };
        allowed()?;
        // SAFETY: reads and writes `scan` and `found`, which this call borrows and which have the layouts of Linux.
        // Reads the page table, not the pages.
        let answer = unsafe {
            libc::ioctl(
                self.map.as_raw_fd(),
                PAGEMAP_SCAN as _,
                std::ptr::from_mut(&mut scan),
            )
        };
        Errno::result(answer).map(|ranges| (ranges as usize, scan.walk_end as usize))
    }

    /// Returns whether any page was written, like [`is_any`](Self::is_any), by reading one word for each page. Used if
    /// Linux lacks `PAGEMAP_SCAN`.
    fn read(&self, pages: Range<usize>) -> Result<bool> {
        const IS_PRESENT: u64 = 1 << 63;
        const IS_SWAPPED: u64 = 1 << 62;
        const IS_FILE: u64 = 1 << 61;
        let mut words = [0; 8 * 512];
        for first in pages.clone().step_by(512 * PAGE) {
            let count = ((pages.end - first) / PAGE).min(512);
            let bytes = &mut words[..8 * count];
            allowed()?;
            self.map
                .read_exact_at(bytes, (first / PAGE * 8) as u64)
                .map_err(|why| number(&why))?;
            let (words, _) = bytes.as_chunks();
            let is_own = |word: &[u8; 8]| {
                let word = u64::from_ne_bytes(*word);
                word & (IS_PRESENT | IS_SWAPPED) != 0 && word & IS_FILE == 0
            };
            if words.iter().any(is_own) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::pages::Pages;
    use arenite::raw::memory::{HUGE, Map, Prot, Segment};

    #[test]
    fn a_write_is_seen_by_both_ways_and_is_no_other_maps() {
        let segment = Segment::create_memfd("written", true).unwrap();
        segment.set_len(HUGE as u64).unwrap();
        let map = Pages::new(&segment, HUGE).unwrap();
        let other = Map::new(&segment, 0, HUGE, Prot::Read, true).unwrap();
        let written = Written::open().unwrap();
        let all = map.base().addr().get()..map.base().addr().get() + HUGE;
        let seen = |range: Range<usize>| {
            let pages = range.start / PAGE * PAGE..range.end.next_multiple_of(PAGE);
            let read = written.read(pages).unwrap();
            assert_eq!(written.is_any(range).unwrap(), read);
            read
        };
        let (at, at_other) = (map.at(3 * PAGE, 1).unwrap(), other.at(3 * PAGE, 1).unwrap());
        // SAFETY: the bytes are in the two maps, which only this thread uses. No other process has the segment.
        let write = |value: u8| unsafe { at.write_volatile(value) };
        // SAFETY: as above.
        let both = || unsafe { (at.read_volatile(), at_other.read_volatile()) };
        write(1);
        map.set_shared(0..HUGE, &segment, false).unwrap();
        assert_eq!(both(), (1, 1));
        assert!(!seen(all.clone()), "only read");
        write(2);
        assert!(seen(all.clone()));
        let at = at.addr().get();
        assert!(seen(at..at + 1));
        assert!(!seen(all.start..at));
        assert_eq!(both(), (2, 1));
        map.set_shared(0..HUGE, &segment, true).unwrap();
        assert!(!seen(all));
        assert_eq!(both(), (1, 1));
    }

    #[test]
    fn a_page_that_was_taken_is_found_once_it_is_written_again() {
        const PAGES: usize = 2000;
        let segment = Segment::create_memfd("written", true).unwrap();
        segment.set_len((PAGES * PAGE) as u64).unwrap();
        let map = Pages::new(&segment, PAGES * PAGE).unwrap();
        map.set_shared(0..PAGES * PAGE, &segment, false).unwrap();
        let written = Written::open().unwrap();
        let begin = map.base().addr().get();
        let all = begin..begin + PAGES * PAGE;
        if !written.track(all.clone()) {
            assert!(protection().is_err() || written.has_no_scan.load(Ordering::Relaxed));
            return;
        }
        // SAFETY: the bytes are in the map, which only this thread uses. No other process has the segment.
        let write = |page: usize| unsafe { map.at(page * PAGE, 1).unwrap().write_volatile(1) };
        let take = |from: usize| {
            let mut pages = Vec::new();
            let from = begin + from * PAGE..all.end;
            let each = |run: Range<usize>| {
                pages.extend(run.step_by(PAGE).map(|address| (address - begin) / PAGE));
            };
            written.take(from, each).unwrap();
            pages
        };
        // More runs than one scan returns.
        let odd: Vec<usize> = (1..PAGES).step_by(2).collect();
        odd.iter().for_each(|page| write(*page));
        assert_eq!(take(PAGES / 2), odd[PAGES / 4..]);
        assert_eq!(take(0), odd[..PAGES / 4]);
        assert!(!written.is_any(all.clone()).unwrap());
        assert!(take(0).is_empty());
        write(7);
        write(8);
        assert!(written.is_any(all.clone()).unwrap());
        assert_eq!(take(0), [7, 8]);
        // Mapping the addresses again replaces the map.
        map.set_shared(0..PAGES * PAGE, &segment, false).unwrap();
        write(3);
        assert!(written.is_any(all.clone()).unwrap());
        assert!(written.take(all.clone(), |_| ()).is_err(), "not tracked");
        assert!(written.track(all.clone()));
        assert_eq!(take(0), [3]);
    }
}
