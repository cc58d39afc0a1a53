//! Which pages of a private map this process has written: [`Written`].

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use nix::errno::Errno;

use super::error::{Error, Result};
use super::fork::OwnerProcess;
use super::inject::allowed;
use super::map::PAGE;

/// The page table of this process, as Linux shows it.
#[derive(Debug)]
pub struct Written {
    map: File,
    /// Device and inode: a program that closes all descriptors gives this one to another file.
    identity: (u64, u64),
    /// Linux has no `PAGEMAP_SCAN` (before 6.7).
    has_no_scan: AtomicBool,
}

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

/// Where pages were found.
#[repr(C)]
#[derive(Default)]
struct Found {
    start: u64,
    end: u64,
    categories: u64,
}

fn number(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}

fn identity(file: &File) -> nix::Result<(u64, u64)> {
    let meta = file.metadata().map_err(|why| number(&why))?;
    Ok((meta.dev(), meta.ino()))
}

impl Written {
    /// The page table of the calling process, which is opened once.
    pub fn of_this_process() -> Result<Arc<Written>> {
        static OPEN: Mutex<Option<(OwnerProcess, Arc<Written>)>> = Mutex::new(None);
        // In a forked copy, a thread that does not exist there may hold the lock.
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

    fn open() -> Result<Written> {
        let error = |errno| Error::new("open", errno, "/proc/self/pagemap");
        allowed().map_err(error)?;
        let map = File::open("/proc/self/pagemap").map_err(|why| error(number(&why)))?;
        let identity = identity(&map).map_err(error)?;
        Ok(Written {
            map,
            identity,
            has_no_scan: AtomicBool::new(false),
        })
    }

    /// Whether a page of these addresses, which map a segment privately, is a copy that a write to it has made.
    pub fn is_any(&self, addresses: Range<usize>) -> Result<bool> {
        let pages = addresses.start / PAGE * PAGE..addresses.end.next_multiple_of(PAGE);
        if identity(&self.map) != Ok(self.identity) {
            return Err(Error::new("fstat", Errno::EBADF, "/proc/self/pagemap"));
        }
        if !self.has_no_scan.load(Ordering::Relaxed) {
            match self.scan(&pages) {
                Err(error) if matches!(error.errno(), Errno::ENOTTY | Errno::EINVAL) => {
                    // Relaxed: another thread finds out by itself.
                    self.has_no_scan.store(true, Ordering::Relaxed);
                }
                found => return found,
            }
        }
        self.read(pages)
    }

    fn scan(&self, pages: &Range<usize>) -> Result<bool> {
        /// `_IOWR('f', 16, struct pm_scan_arg)`.
        const PAGEMAP_SCAN: u64 =
            3 << 30 | (size_of::<Scan>() as u64) << 16 | (b'f' as u64) << 8 | 16;
        const IS_FILE: u64 = 1 << 2;
        const IS_PRESENT: u64 = 1 << 3;
        const IS_SWAPPED: u64 = 1 << 4;
        let mut found = Found::default();
        let mut scan = Scan {
            size: size_of::<Scan>() as u64,
            flags: 0,
            start: pages.start as u64,
            end: pages.end as u64,
            walk_end: 0,
            found: std::ptr::from_mut(&mut found).addr() as u64,
            most_found: 1,
            most_pages: 1,
            inverted: IS_FILE,
            all_of: IS_FILE,
            any_of: IS_PRESENT | IS_SWAPPED,
            returned: IS_PRESENT,
        };
        let error = |errno| Error::new("ioctl(PAGEMAP_SCAN)", errno, "/proc/self/pagemap");
        allowed().map_err(error)?;
        // SAFETY: reads and writes the two values above, whose layout is that of Linux, and no memory of the pages.
        let answer = unsafe {
            libc::ioctl(
                self.map.as_raw_fd(),
                PAGEMAP_SCAN as _,
                std::ptr::from_mut(&mut scan),
            )
        };
        Errno::result(answer)
            .map(|ranges| ranges > 0)
            .map_err(error)
    }

    /// The same by reading a word for each page.
    fn read(&self, pages: Range<usize>) -> Result<bool> {
        const IS_PRESENT: u64 = 1 << 63;
        const IS_SWAPPED: u64 = 1 << 62;
        const IS_FILE: u64 = 1 << 61;
        let mut words = [0; 8 * 512];
        for first in pages.clone().step_by(512 * PAGE) {
            let count = ((pages.end - first) / PAGE).min(512);
            let bytes = &mut words[..8 * count];
            let error = |errno| Error::new("read", errno, "/proc/self/pagemap");
            allowed().map_err(error)?;
            self.map
                .read_exact_at(bytes, (first / PAGE * 8) as u64)
                .map_err(|why| error(number(&why)))?;
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
    use crate::sys::{HUGE, Map, Prot, Segment};

    #[test]
    fn a_write_is_seen_by_both_ways_and_is_no_other_maps() {
        let segment = Segment::create_memfd("written", true).unwrap();
        segment.set_len(HUGE as u64).unwrap();
        let map = Map::new(&segment, 0, HUGE, Prot::ReadWrite, true).unwrap();
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
        // SAFETY: bytes of the two maps, which this thread alone has.
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
}
