//! The arena as a worker sees it.

use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError, RwLock};

use nix::errno::Errno;

use super::budget::lock;
use super::error::ArenaError;
use super::layout::{CHUNK, Layout, PAGE};
use super::names::read_header;
use super::offset::{BadOffset, Extent};
use crate::sys::{self, Access, Map, Prot, Segment};

/// What a worker attaches to.
#[derive(Debug)]
pub struct AttachSpec {
    /// Inherited descriptors in the order of [`Arena::descriptors`](super::Arena::descriptors).
    pub fds: Vec<OwnedFd>,
    /// The region that this worker writes.
    pub own: u16,
    /// Bytes that each region reserves, as the supervisor says.
    pub reservation: u64,
    /// Whether arrays may be lent to this worker to be changed in place.
    pub lend: bool,
}

/// The arena as a worker sees it: every region readable, its own writable where it has been opened.
#[derive(Debug)]
pub struct View {
    layout: Layout,
    own: u16,
    control: Map,
    /// Until the worker has mapped its half of its links.
    control_rw: Mutex<Option<Segment>>,
    regions: Vec<Seen>,
}

#[derive(Debug)]
struct Seen {
    map: Map,
    /// Read-only, to ask how long the segment has become. None once descriptors were closed.
    segment: RwLock<Option<Segment>>,
    known_len: AtomicU64,
    /// Writable description for the second map, when arrays may be lent.
    lendable: Mutex<Option<Segment>>,
    second: OnceLock<Map>,
}

/// What copies of this process read.
static READ_IN_COPIES: OnceLock<&'static View> = OnceLock::new();

/// In a copy, before anything else: what cannot be mapped is missing there.
fn map_in_copy() {
    if let Some(view) = READ_IN_COPIES.get() {
        view.map_in_copy();
    }
}

impl View {
    /// Attaches: maps everything, and closes what was inherited and is not needed any more.
    ///
    /// Every region is mapped from a read-only description of this process's own, so its map can never become
    /// writable; the own region from the inherited one, closed for writing until [`View::open_own`]. Of the control
    /// segment even the writable description is its own: the inherited one holds the supervisor's lock, which would
    /// live on in a map.
    ///
    /// # Errors
    ///
    /// [`ArenaError::Absent`], [`ArenaError::NotReady`], [`ArenaError::WrongVersion`], [`ArenaError::Truncated`], and
    /// [`ArenaError::System`] when the system refuses.
    pub fn attach(spec: AttachSpec) -> Result<View, ArenaError> {
        let AttachSpec {
            mut fds,
            own,
            reservation,
            lend,
        } = spec;
        let absent = |what: String| ArenaError::Absent { what };
        if fds.is_empty() {
            return Err(absent("no descriptor was inherited".into()));
        }
        let region_fds = fds.split_off(1);
        let control_fd = &fds[0];
        let open = |fd: &OwnedFd, access| match Segment::reopen(fd.as_raw_fd(), access) {
            Err(error) if error.errno() == Errno::ENOENT => Err(absent(error.to_string())),
            Err(error) => Err(error.into()),
            Ok(segment) => Ok(segment),
        };
        let control = open(control_fd, Access::ReadOnly)?;
        let layout = read_header(&control)?;
        if layout.regions as usize != region_fds.len() {
            let what = format!(
                "{} of {} regions were inherited",
                region_fds.len(),
                layout.regions
            );
            return Err(absent(what));
        }
        if layout.reservation != reservation || usize::from(own) >= region_fds.len() {
            let what = format!(
                "region {own} of {reservation} bytes was promised, the arena has {} of {} bytes",
                layout.regions, layout.reservation
            );
            return Err(absent(what));
        }
        let len = usize_of(reservation)?;
        let control_map = Map::new(
            &control,
            0,
            usize_of(layout.control_len)?,
            Prot::Read,
            false,
        )?;
        let mut regions = Vec::with_capacity(region_fds.len());
        for (index, writable) in region_fds.into_iter().enumerate() {
            let mine = index == usize::from(own);
            let segment = open(&writable, Access::ReadOnly)?;
            let writable = Segment::from(writable);
            let source = if mine { &writable } else { &segment };
            let map = Map::new(source, 0, len, Prot::Read, true)?;
            if mine {
                // A copy would go on writing when the job is over.
                map.keep_from_forks()?;
            }
            regions.push(Seen {
                map,
                known_len: AtomicU64::new(0),
                segment: RwLock::new(Some(segment)),
                lendable: Mutex::new((lend && !mine).then_some(writable)),
                second: OnceLock::new(),
            });
        }
        Ok(View {
            layout,
            own,
            control: control_map,
            control_rw: Mutex::new(Some(open(control_fd, Access::ReadWrite)?)),
            regions,
        })
    }

    /// The arena's random number.
    pub fn id(&self) -> u64 {
        self.layout.id
    }

    /// The region that this worker writes.
    pub fn own(&self) -> u16 {
        self.own
    }

    /// How many regions there are.
    pub fn regions(&self) -> u16 {
        self.regions.len() as u16
    }

    /// Bytes that each region reserves.
    pub fn reservation(&self) -> u64 {
        self.layout.reservation
    }

    /// The whole control segment, read-only.
    pub fn control(&self) -> &Map {
        &self.control
    }

    /// Maps `range` of the control segment (whole pages) for writing: this worker's half of its links, and nobody else's: a
    /// process that a kernel forks does not have it, so a copy of the worker cannot answer for it.
    ///
    /// # Errors
    ///
    /// [`ArenaError::System`] after [`View::close_control`], for a range that does not consist of whole pages of the
    /// segment, and when the system refuses.
    pub fn control_rw(&self, range: Range<u64>) -> Result<Map, ArenaError> {
        let error = |errno| {
            let what = format!(
                "bytes {} to {} of the control segment",
                range.start, range.end
            );
            sys::Error::new("mmap", errno, what)
        };
        if range.start >= range.end
            || range.end > self.layout.control_len
            || !range.start.is_multiple_of(PAGE)
            || !range.end.is_multiple_of(PAGE)
        {
            return Err(error(Errno::EINVAL).into());
        }
        let segment = lock(&self.control_rw);
        let segment = segment.as_ref().ok_or_else(|| error(Errno::EBADF))?;
        let len = usize_of(range.end - range.start)?;
        let map = Map::new(segment, range.start, len, Prot::ReadWrite, false)?;
        map.keep_from_forks()?;
        Ok(map)
    }

    /// Closes the writable descriptor of the control segment: what is mapped stays, nothing more can be.
    pub fn close_control(&self) {
        lock(&self.control_rw).take();
    }

    /// Closes every descriptor; what is mapped stays. Lengths are then bounded by the reservation alone, and arrays
    /// can be lent only from regions that were lent from before.
    pub fn close_descriptors(&self) {
        self.close_control();
        for seen in &self.regions {
            seen.segment
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            lock(&seen.lendable).take();
        }
    }

    /// From now on copies that `fork` makes of this process find what it can write at the same place, for reading: an array that
    /// a kernel was given lies there or not, depending on who made it. They can write nothing of the arena. Once.
    pub fn read_in_copies(&'static self) {
        let _ = READ_IN_COPIES.set(self);
        sys::fork::first_in_copies(map_in_copy);
    }

    fn map_in_copy(&self) {
        for (index, seen) in self.regions.iter().enumerate() {
            // Somebody who is not here may just be closing it.
            let Ok(segment) = seen.segment.try_read() else {
                continue;
            };
            let Some(segment) = &*segment else { continue };
            if index == usize::from(self.own) {
                let _ = seen.map.read_in_copy(segment);
            }
            if let Some(second) = seen.second.get() {
                let _ = second.read_in_copy(segment);
            }
        }
    }

    /// Seals what this process may only read: nobody can unmap, move or reprotect it any more.
    ///
    /// # Errors
    ///
    /// When the system refuses.
    #[cfg(feature = "sandbox")]
    pub fn seal(&self) -> sys::Result<()> {
        self.control.seal()?;
        for (index, seen) in self.regions.iter().enumerate() {
            // The own region is opened and closed by `mprotect` as grants come and go.
            if index != usize::from(self.own) {
                seen.map.seal()?;
            }
        }
        Ok(())
    }

    fn seen(&self, extent: Extent) -> Result<(&Seen, Range<usize>), BadOffset> {
        let none = BadOffset {
            extent,
            committed: 0,
        };
        let seen = self
            .regions
            .get(usize::from(extent.at.region()))
            .ok_or(none)?;
        let end = extent.end().ok_or(none)?;
        // Relaxed: a bound that only grows; the memory itself is handed over by the link.
        let mut len = seen.known_len.load(Ordering::Relaxed);
        if end > len {
            len = match &*seen.segment.read().unwrap_or_else(PoisonError::into_inner) {
                Some(segment) => segment.stat().map_or(len, |stat| stat.len),
                None => self.layout.reservation,
            }
            .min(self.layout.reservation);
            seen.known_len.fetch_max(len, Ordering::Relaxed);
        }
        if end > len {
            return Err(BadOffset {
                extent,
                committed: len,
            });
        }
        Ok((seen, extent.at.offset() as usize..end as usize))
    }

    /// The address of `extent` in this process, for reading; in the own region also for writing where it is open.
    ///
    /// # Errors
    ///
    /// [`BadOffset`] when it reaches beyond its segment, or there is no such region.
    pub fn pointer(&self, extent: Extent) -> Result<NonNull<u8>, BadOffset> {
        let (seen, range) = self.seen(extent)?;
        seen.map.at(range.start, range.len()).ok_or(BadOffset {
            extent,
            committed: seen.map.len() as u64,
        })
    }

    /// Opens bytes of the own region for writing, rounded outward to whole pages.
    ///
    /// # Errors
    ///
    /// When the system refuses, for instance because this process has too many maps (`vm.max_map_count`).
    pub fn open_own(&self, range: Range<u64>) -> sys::Result<()> {
        let start = range.start / PAGE * PAGE;
        let end = range.end.next_multiple_of(PAGE);
        self.protect_own(start..end, Prot::ReadWrite)
    }

    /// Closes bytes of the own region for writing: the pages that lie wholly inside `range`.
    ///
    /// # Errors
    ///
    /// As [`View::open_own`].
    pub fn close_own(&self, range: Range<u64>) -> sys::Result<()> {
        let start = range.start.next_multiple_of(PAGE);
        let end = range.end / PAGE * PAGE;
        self.protect_own(start..end.max(start), Prot::Read)
    }

    fn protect_own(&self, range: Range<u64>, prot: Prot) -> sys::Result<()> {
        let map = &self.regions[usize::from(self.own)].map;
        map.protect(range.start as usize..range.end as usize, prot)
    }

    /// Opens whole pages of another region for writing, in a second map that is otherwise closed; the first byte there.
    ///
    /// An extent of the own region is opened in place. One without bytes opens nothing.
    ///
    /// # Errors
    ///
    /// `EINVAL` when the extent is not in the arena, `EPERM` when nothing may be lent to this worker, and when the
    /// system refuses.
    pub fn lend_open(&self, extent: Extent) -> sys::Result<NonNull<u8>> {
        let (map, range) = self.lent(extent)?;
        if !range.is_empty() {
            map.protect(pages(&range), Prot::ReadWrite)?;
        }
        map.at(range.start, range.len())
            .ok_or_else(|| lend_error(extent, Errno::EINVAL))
    }

    /// Closes again what [`View::lend_open`] opened.
    ///
    /// # Errors
    ///
    /// As [`View::lend_open`].
    pub fn lend_close(&self, extent: Extent) -> sys::Result<()> {
        let (map, range) = self.lent(extent)?;
        // The page around a place without bytes may hold what the worker writes next.
        if range.is_empty() {
            return Ok(());
        }
        let prot = if extent.at.region() == self.own {
            Prot::Read
        } else {
            Prot::None
        };
        map.protect(pages(&range), prot)
    }

    fn lent(&self, extent: Extent) -> sys::Result<(&Map, Range<usize>)> {
        let (seen, range) = self
            .seen(extent)
            .map_err(|_| lend_error(extent, Errno::EINVAL))?;
        if extent.at.region() == self.own {
            return Ok((&seen.map, range));
        }
        if let Some(map) = seen.second.get() {
            return Ok((map, range));
        }
        let segment = lock(&seen.lendable);
        let segment = segment
            .as_ref()
            .ok_or_else(|| lend_error(extent, Errno::EPERM))?;
        let map = Map::new(segment, 0, seen.map.len(), Prot::None, true)?;
        // As of the own region.
        map.keep_from_forks()?;
        // Two threads may have come here; the map of the one that lost is dropped again.
        Ok((seen.second.get_or_init(|| map), range))
    }
}

fn pages(range: &Range<usize>) -> Range<usize> {
    let page = PAGE as usize;
    range.start / page * page..range.end.next_multiple_of(page)
}

fn lend_error(extent: Extent, errno: Errno) -> sys::Error {
    let what = format!("{} bytes at {}", extent.len, extent.at);
    sys::Error::new("mprotect", errno, what)
}

fn usize_of(len: u64) -> Result<usize, ArenaError> {
    usize::try_from(len)
        .ok()
        .filter(|&len| len as u64 <= u64::MAX - CHUNK)
        .ok_or_else(|| {
            sys::Error::new("mmap", Errno::ENOMEM, format!("{len} bytes of addresses")).into()
        })
}
