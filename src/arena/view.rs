//! The arena in a worker.

use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError, RwLock};

use nix::errno::Errno;

use super::error::ArenaError;
use super::layout::{CHUNK, Layout, PAGE};
use super::names::read_header;
use super::offset::{BadOffset, Extent};
use crate::sync::lock;
use crate::sys::crash::{Area, Located};
use crate::sys::{self, Access, Map, Prot, Segment};

/// Parameters of [`View::attach`].
#[derive(Debug)]
pub struct AttachSpec {
    /// Inherited descriptors in the order of [`Arena::descriptors`](super::Arena::descriptors).
    pub fds: Vec<OwnedFd>,
    /// The region that this worker writes.
    pub own: u16,
    /// Bytes that each region reserves, as announced by the supervisor.
    pub reservation: u64,
    /// Whether arrays may be lent to this worker, to be changed in place.
    pub lend: bool,
}

/// The arena in a worker: every region is readable; the worker's own is also writable where it is open.
#[derive(Debug)]
pub struct View {
    layout: Layout,
    own: u16,
    control: Map,
    /// A writable descriptor; `None` once the worker has mapped its half of its links.
    control_rw: Mutex<Option<Segment>>,
    regions: Vec<MappedRegion>,
}

#[derive(Debug)]
struct MappedRegion {
    map: Map,
    /// A read-only descriptor, to query the current length of the segment. `None` once descriptors are closed.
    segment: RwLock<Option<Segment>>,
    known_len: AtomicU64,
    /// A writable descriptor, from which `lend_map` is made; `None` if arrays may not be lent.
    lendable: Mutex<Option<Segment>>,
    lend_map: OnceLock<Map>,
}

/// The view that [`map_in_fork`] maps in forked processes.
static FORK_VIEW: OnceLock<&'static View> = OnceLock::new();

/// Runs in a forked process before any other code. A part that cannot be mapped is missing in that process.
fn map_in_fork() {
    if let Some(view) = FORK_VIEW.get() {
        view.map_in_fork();
    }
}

impl View {
    /// Attaches to an arena: maps everything, and closes inherited descriptors that are no longer needed.
    ///
    /// Other regions are mapped from read-only file descriptions that are opened here, so their maps can never become
    /// writable. The worker's own region is mapped from the inherited file description, and is closed for writing until
    /// [`View::open_own`]. The control segment is opened again, even for writing: a map of the inherited file
    /// description would keep the supervisor's lock alive.
    ///
    /// # Errors
    ///
    /// [`ArenaError::Absent`], [`ArenaError::NotReady`], [`ArenaError::WrongVersion`], [`ArenaError::Truncated`], and
    /// [`ArenaError::System`] if a system call fails.
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
                // A forked process must not have this map: it could write after the end of the job.
                map.exclude_from_forks()?;
            }
            regions.push(MappedRegion {
                map,
                known_len: AtomicU64::new(0),
                segment: RwLock::new(Some(segment)),
                lendable: Mutex::new((lend && !mine).then_some(writable)),
                lend_map: OnceLock::new(),
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
    #[cfg(test)]
    pub fn id(&self) -> u64 {
        self.layout.id
    }

    /// The region that this worker writes.
    pub fn own(&self) -> u16 {
        self.own
    }

    /// Number of regions.
    #[cfg(test)]
    pub fn regions(&self) -> u16 {
        self.regions.len() as u16
    }

    /// The whole control segment, read-only.
    pub fn control(&self) -> &Map {
        &self.control
    }

    /// Maps `range` of the control segment (whole pages) for writing: this worker's half of its links. Forked processes
    /// do not have the map, so they cannot answer for the worker.
    ///
    /// # Errors
    ///
    /// [`ArenaError::System`] after [`View::close_control`], if `range` does not consist of whole pages of the segment,
    /// and if a system call fails.
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
        map.exclude_from_forks()?;
        Ok(map)
    }

    /// Closes the writable descriptor of the control segment: existing maps stay, but no more can be made.
    pub fn close_control(&self) {
        lock(&self.control_rw).take();
    }

    /// Closes every descriptor; maps stay. Afterwards only the reservation bounds lengths, and arrays can be lent only
    /// from regions from which an array was lent before.
    pub fn close_descriptors(&self) {
        self.close_control();
        for region in &self.regions {
            region
                .segment
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            lock(&region.lendable).take();
        }
    }

    /// Makes memory that this process can write readable in forked processes, at the same addresses, because it may
    /// contain arrays that a kernel was given. Forked processes can write no part of the arena. Only the first call has
    /// an effect.
    pub fn keep_readable_in_forks(&'static self) {
        let _ = FORK_VIEW.set(self);
        sys::fork::run_first_in_forks(map_in_fork);
    }

    fn map_in_fork(&self) {
        for (index, region) in self.regions.iter().enumerate() {
            // A thread that does not exist in this process may hold the lock for writing.
            let Ok(segment) = region.segment.try_read() else {
                continue;
            };
            let Some(segment) = &*segment else { continue };
            if index == usize::from(self.own) {
                let _ = region.map.remap_read_only_in_fork(segment);
            }
            if let Some(second) = region.lend_map.get() {
                let _ = second.remap_read_only_in_fork(segment);
            }
        }
    }

    /// Seals the read-only maps: they can no longer be unmapped, moved or reprotected.
    ///
    /// # Errors
    ///
    /// If a system call fails.
    #[cfg(feature = "sandbox")]
    pub fn seal(&self) -> sys::Result<()> {
        self.control.seal()?;
        for (index, region) in self.regions.iter().enumerate() {
            // `mprotect` opens and closes the worker's own region as grants come and go.
            if index != usize::from(self.own) {
                region.map.seal()?;
            }
        }
        Ok(())
    }

    fn resolve(&self, extent: Extent) -> Result<(&MappedRegion, Range<usize>), BadOffset> {
        let none = BadOffset {
            extent,
            committed: 0,
        };
        let region = self
            .regions
            .get(usize::from(extent.at.region()))
            .ok_or(none)?;
        let end = extent.end().ok_or(none)?;
        // Relaxed: a bound that only grows; the memory itself is handed over by the link.
        let mut len = region.known_len.load(Ordering::Relaxed);
        if end > len {
            let segment = region.segment.read();
            let segment = segment.unwrap_or_else(PoisonError::into_inner);
            // A job may have closed the descriptor.
            let open = segment.as_ref().filter(|segment| segment.check().is_ok());
            let stat = open.and_then(|segment| segment.stat().ok());
            len = stat.map_or(self.layout.reservation, |stat| stat.len);
            len = len.min(self.layout.reservation);
            region.known_len.fetch_max(len, Ordering::Relaxed);
        }
        if end > len {
            return Err(BadOffset {
                extent,
                committed: len,
            });
        }
        Ok((region, extent.at.offset() as usize..end as usize))
    }

    /// The address of `extent` in this process: for reading and, where the worker's own region is open, also for
    /// writing.
    ///
    /// # Errors
    ///
    /// [`BadOffset`] if the extent does not end within its segment, or the region does not exist.
    pub fn pointer(&self, extent: Extent) -> Result<NonNull<u8>, BadOffset> {
        let (region, range) = self.resolve(extent)?;
        region.map.at(range.start, range.len()).ok_or(BadOffset {
            extent,
            committed: region.map.len() as u64,
        })
    }

    /// Calls `map` with the segment of an extent and the position of the extent's first byte in it. Returns `None` if
    /// the extent does not exist, or after the descriptors were closed.
    pub fn with_segment<T>(
        &self,
        extent: Extent,
        map: impl FnOnce(&Segment, u64) -> T,
    ) -> Option<T> {
        let (region, range) = self.resolve(extent).ok()?;
        let segment = region.segment.read();
        let segment = segment.unwrap_or_else(PoisonError::into_inner);
        segment
            .as_ref()
            .map(|segment| map(segment, range.start as u64))
    }

    /// The location of `address`, if it is in a map of the arena. Async-signal-safe.
    pub fn locate(&self, address: usize) -> Option<Located> {
        let inside = |map: &Map| {
            let at = address.checked_sub(map.base().as_ptr().addr())?;
            (at < map.len()).then_some(at as u64)
        };
        let located = |area, region, offset| Located {
            area,
            region,
            offset,
        };
        let control = inside(&self.control).map(|at| located(Area::Control, 0, at));
        control.or_else(|| {
            (0..).zip(&self.regions).find_map(|(number, region)| {
                let lent = || {
                    let at = region.lend_map.get().and_then(inside)?;
                    Some(located(Area::Lent, number, at))
                };
                let at = inside(&region.map);
                at.map(|at| located(Area::Region, number, at)).or_else(lent)
            })
        })
    }

    /// Opens bytes of the worker's own region for writing, rounded outward to whole pages.
    ///
    /// # Errors
    ///
    /// If a system call fails, for instance because this process has too many maps (`vm.max_map_count`).
    pub fn open_own(&self, range: Range<u64>) -> sys::Result<()> {
        let start = range.start / PAGE * PAGE;
        let end = range.end.next_multiple_of(PAGE);
        self.protect_own(start..end, Prot::ReadWrite)
    }

    /// Closes bytes of the worker's own region for writing: the pages that are wholly inside `range`.
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

    /// Opens the pages of an extent of another region for writing, in a second map of that region. Returns the address
    /// of the extent in the second map.
    ///
    /// An extent of the worker's own region is opened in place. An empty extent opens nothing.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the extent is outside the arena, `EPERM` if arrays may not be lent to this worker, and the error of
    /// a failed system call.
    pub fn lend_open(&self, extent: Extent) -> sys::Result<NonNull<u8>> {
        let (map, range) = self.lent(extent)?;
        if !range.is_empty() {
            map.protect(pages(&range), Prot::ReadWrite)?;
        }
        map.at(range.start, range.len())
            .ok_or_else(|| lend_error(extent, Errno::EINVAL))
    }

    /// Closes what [`View::lend_open`] opened.
    ///
    /// # Errors
    ///
    /// As [`View::lend_open`].
    pub fn lend_close(&self, extent: Extent) -> sys::Result<()> {
        self.lend_protect(extent, Prot::None)
    }

    /// Closes for writing what [`View::lend_open`] opened, but leaves it readable in the second map.
    ///
    /// # Errors
    ///
    /// As [`View::lend_open`].
    pub fn lend_close_readable(&self, extent: Extent) -> sys::Result<()> {
        self.lend_protect(extent, Prot::Read)
    }

    fn lend_protect(&self, extent: Extent, prot: Prot) -> sys::Result<()> {
        let (map, range) = self.lent(extent)?;
        // The page around an empty extent may contain what the worker writes next.
        if range.is_empty() {
            return Ok(());
        }
        // The worker's own region has no second map, so it stays readable.
        let is_own = extent.at.region() == self.own;
        map.protect(pages(&range), if is_own { Prot::Read } else { prot })
    }

    fn lent(&self, extent: Extent) -> sys::Result<(&Map, Range<usize>)> {
        let (region, range) = self
            .resolve(extent)
            .map_err(|_| lend_error(extent, Errno::EINVAL))?;
        if extent.at.region() == self.own {
            return Ok((&region.map, range));
        }
        if let Some(map) = region.lend_map.get() {
            return Ok((map, range));
        }
        let segment = lock(&region.lendable);
        let segment = segment
            .as_ref()
            .ok_or_else(|| lend_error(extent, Errno::EPERM))?;
        let map = Map::new(segment, 0, region.map.len(), Prot::None, true)?;
        // A forked process must not have this map: it could write after the end of the job.
        map.exclude_from_forks()?;
        // If another thread was faster, this map is dropped.
        Ok((region.lend_map.get_or_init(|| map), range))
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
