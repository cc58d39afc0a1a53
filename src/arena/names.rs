//! Names in `/dev/shm`: creating a named control segment, telling live arenas from dead ones, sweeping.

use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt;
use std::ptr::NonNull;
use std::sync::Mutex;
use std::time::Duration;

use nix::errno::Errno;
use shared_memory::{Shmem, ShmemConf, ShmemError};

use super::error::ArenaError;
use super::layout::{self, HEADER_LEN};
use super::region::Missing;
use crate::sync::lock;
use crate::sys::fork::OwnerProcess;
use crate::sys::limits::without_file_size_signal;
use crate::sys::truncation::{self, Watched};
use crate::sys::{self, Access, Map, Prot, Segment};

/// Maximum number of tries to create a name.
const ATTEMPTS: u32 = 100;

/// A name counts as taken if it was found locked this number of times.
const LOCK_CHECKS: u32 = 30;
const LOCK_CHECK_PAUSE: Duration = Duration::from_millis(1);

fn prefix() -> String {
    format!("/arenite-{}-", sys::effective_user())
}

/// Suffix of segment names that a user has chosen.
const CHOSEN_SUFFIX: &str = ".kept";

/// The segment name of an arena with a chosen name.
fn chosen_segment(name: &str) -> String {
    // Random names contain no dot, so they never equal this name.
    format!("{}{name}{CHOSEN_SUFFIX}", prefix())
}

/// The control segment in the supervisor: mapped whole, readable and writable.
pub struct ControlSegment {
    /// Must be dropped before `mapping`, so it is declared first.
    _watched: Watched,
    mapping: Mapping,
    len: u64,
    segment: Segment,
    name: Mutex<Option<String>>,
    /// The process that created the segment. No other process removes its name.
    pub(super) process: OwnerProcess,
}

enum Mapping {
    Named(Shmem),
    Plain(Map),
}

// SAFETY: both variants own an address range that they unmap when dropped. ControlSegment hands out only its start as a
// raw pointer; accesses through it follow the rules of the link layer.
unsafe impl Send for ControlSegment {}
// SAFETY: as above; `&ControlSegment` gives access to nothing of the Shmem but its address.
unsafe impl Sync for ControlSegment {}

impl std::fmt::Debug for ControlSegment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ControlSegment")
            .field("base", &self.base())
            .field("len", &self.len)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl ControlSegment {
    /// Creates a control segment without a name.
    pub(super) fn anonymous(len: u64, sealed: bool) -> Result<ControlSegment, ArenaError> {
        let segment = Segment::create_memfd("arenite-control", sealed)?;
        segment.set_len(len)?;
        segment.allocate(0..len)?;
        let map = Map::new(&segment, 0, len as usize, Prot::ReadWrite, false)?;
        let watched = truncation::watch(map.base(), map.len(), segment.as_raw_fd(), None);
        Ok(ControlSegment {
            _watched: watched,
            mapping: Mapping::Plain(map),
            len,
            segment,
            name: Mutex::new(None),
            process: OwnerProcess::current(),
        })
    }

    /// Creates a control segment in `/dev/shm`. Its name is kept only if the user chose one.
    ///
    /// Creates the name exclusively, locks the file, and checks that the name still exists. If a sweep has removed the
    /// name meanwhile, starts again.
    pub(super) fn named(name: Option<&str>, len: u64) -> Result<ControlSegment, ArenaError> {
        let mut checks = 0;
        for _ in 0..ATTEMPTS {
            let full = match name {
                Some(name) => chosen_segment(name),
                None => format!("{}{:016x}", prefix(), sys::random()),
            };
            let create = || {
                let failed = |errno| ShmemError::MapCreateFailed(errno as u32);
                sys::inject::allowed().map_err(failed)?;
                ShmemConf::new().os_id(&full).size(len as usize).create()
            };
            let mut shmem = match without_file_size_signal(create) {
                Ok(shmem) => shmem,
                Err(ShmemError::MappingIdExists) => {
                    if let Some(name) = name
                        && !remove_if_stale(&full)?
                    {
                        // A sweep or a listing also holds the lock, but only for microseconds unless it is interrupted.
                        // A lock held for longer belongs to a live arena.
                        checks += 1;
                        if checks > LOCK_CHECKS {
                            return Err(ArenaError::NameTaken { name: name.into() });
                        }
                        std::thread::sleep(LOCK_CHECK_PAUSE);
                    }
                    continue;
                }
                Err(error) => return Err(shmem_error(&error, &full).into()),
            };
            crate::sync::point!("create.named");
            // From here on, this module removes the name. The `shared_memory` crate would remove it even from another
            // file that has it by then.
            shmem.set_owner(false);
            let base = NonNull::new(shmem.as_ptr());
            let segment = match adopt(&full, base) {
                Ok(Some(segment)) => segment,
                other => {
                    // A random name must not stay: no other program uses it, so only a sweep or a listing can have had
                    // the lock meanwhile. Nor must a name stay that could not even be opened: no sweep could open it
                    // either.
                    let failed = other.is_err() && is_at(&full, base);
                    if name.is_none() || failed {
                        let _ = Segment::unlink(&full);
                    }
                    match other {
                        Err(error) if error.errno() != Errno::ENOENT => return Err(error.into()),
                        _ => continue,
                    }
                }
            };
            crate::sync::point!("create.locked");
            let fd = segment.as_raw_fd();
            let watched = base.map(|base| truncation::watch(base, len as usize, fd, None));
            let mut control = ControlSegment {
                _watched: watched.expect("a map of a segment never starts at address 0"),
                mapping: Mapping::Named(shmem),
                len,
                segment,
                name: Mutex::new(Some(full)),
                process: OwnerProcess::current(),
            };
            // If a call below fails, dropping `control` removes the name.
            control.segment.allocate(0..len)?;
            crate::sync::point!("create.sized");
            if name.is_none() {
                control.remove_name();
                crate::sync::point!("create.unnamed");
            }
            control.len = len;
            return Ok(control);
        }
        Err(sys::Error::new("shm_open", Errno::EAGAIN, "a new control segment").into())
    }

    /// The first byte. The header page comes first; the rest, from [`ControlSegment::body`] on, belongs to the links.
    pub fn base(&self) -> NonNull<u8> {
        match &self.mapping {
            Mapping::Named(shmem) => {
                NonNull::new(shmem.as_ptr()).expect("a map of a segment never starts at address 0")
            }
            Mapping::Plain(map) => map.base(),
        }
    }

    /// Length in bytes, header included.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// The first byte after the header, aligned to a page; the body is zero when the arena is created.
    pub fn body(&self) -> NonNull<u8> {
        // SAFETY: every control segment is longer than its header.
        unsafe { self.base().add(HEADER_LEN as usize) }
    }

    /// The descriptor of the segment.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.segment.as_fd()
    }

    /// What another process has removed from the segment, if anything.
    pub(super) fn missing(&self) -> Option<Missing> {
        let stat = self.segment.stat().ok()?;
        let is_truncated = stat.len < self.len;
        let left = if is_truncated { stat.len } else { stat.blocks };
        (left < self.len).then_some(Missing {
            is_truncated,
            left,
            expected: self.len,
        })
    }

    /// Removes the name, if there is one and it still refers to this segment.
    pub(super) fn remove_name(&self) {
        if !self.process.is_current() {
            return;
        }
        let Some(name) = lock(&self.name).take() else {
            return;
        };
        // Only the holder of the lock removes a name, so the name is ours, unless a user removed it by hand and another
        // program chose it since. The check needs no descriptor: the process may have none left.
        let found = std::fs::symlink_metadata(format!("/dev/shm{name}"));
        let found = found.map(|found| (found.dev(), found.ino()));
        // A name that stays would block other programs, so each of these calls is retried once.
        let ours = self.segment.stat().or_else(|_| self.segment.stat());
        let ours = ours.map(|stat| stat.identity);
        let chosen = name.ends_with(CHOSEN_SUFFIX);
        if chosen && (found.is_err() || found.ok() != ours.ok()) {
            return;
        }
        let _ = Segment::unlink(&name).or_else(|_| Segment::unlink(&name));
    }
}

impl Drop for ControlSegment {
    fn drop(&mut self) {
        self.remove_name();
    }
}

/// Opens and locks the control segment that was just created as `name` and mapped at `base`. `None` if a sweep has
/// removed it meanwhile.
fn adopt(name: &str, base: Option<NonNull<u8>>) -> sys::Result<Option<Segment>> {
    let segment = Segment::open_named(name, Access::ReadWrite)?;
    let locked = segment.try_lock()?;
    let stat = segment.stat()?;
    // Another program may have chosen the same name meanwhile. Random names are not checked, because no other program
    // generates the same name, and the list of mappings is long in large programs.
    let ours =
        !name.ends_with(CHOSEN_SUFFIX) || base.and_then(sys::mapped_file) == Some(stat.identity);
    Ok((locked && stat.nlink > 0 && ours).then_some(segment))
}

/// Whether `name` refers to the file mapped at `base`.
fn is_at(name: &str, base: Option<NonNull<u8>>) -> bool {
    let found = std::fs::symlink_metadata(format!("/dev/shm{name}"));
    let found = found.map(|found| (found.dev(), found.ino()));
    base.and_then(sys::mapped_file)
        .is_some_and(|ours| found.is_ok_and(|found| found == ours))
}

fn shmem_error(error: &ShmemError, name: &str) -> sys::Error {
    let (call, code) = match error {
        ShmemError::MapCreateFailed(code) => ("shm_open", *code),
        ShmemError::UnknownOsError(code) => ("ftruncate", *code),
        _ => ("shm_open", libc::EIO as u32),
    };
    let errno = Errno::from_raw(i32::try_from(code).unwrap_or(libc::EIO));
    sys::Error::new(call, errno, format!("the segment {name}"))
}

/// Removes `name` if no live process holds its lock. Returns whether it is gone.
///
/// The lock is held while the name is removed; a process that locks a file whose name is gone creates a new file.
/// Without this order a sweep would remove segments that have just been created.
fn remove_if_stale(name: &str) -> sys::Result<bool> {
    let segment = match Segment::open_named(name, Access::ReadWrite) {
        Ok(segment) => segment,
        Err(error) if error.errno() == Errno::ENOENT => return Ok(true),
        Err(error) => return Err(error),
    };
    let stat = segment.stat()?;
    if stat.uid != sys::effective_user() {
        // Another user owns the segment; not even root removes it.
        let what = format!("the segment {name}, which belongs to user {}", stat.uid);
        return Err(sys::Error::new("shm_open", Errno::EPERM, what));
    }
    if !segment.try_lock()? {
        return Ok(false);
    }
    if segment.stat()?.nlink > 0 {
        match Segment::unlink(name) {
            Err(error) if error.errno() != Errno::ENOENT => return Err(error),
            _ => {}
        }
    }
    Ok(true)
}

/// Segment names of this user's arenas, live or dead, with the leading slash.
fn names() -> Vec<String> {
    let prefix = prefix();
    let Ok(entries) = std::fs::read_dir("/dev/shm") else {
        return Vec::new();
    };
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .map(|name| format!("/{name}"))
        .filter(|name| name.starts_with(&prefix))
        .collect();
    names.sort();
    names
}

/// Removes what this user's arenas left in `/dev/shm` when their programs were killed. Returns the names removed.
///
/// Never removes a live arena: its program holds a lock that Linux releases only when the program ends. Skips segments
/// that cannot be opened.
pub fn sweep() -> Vec<String> {
    names()
        .into_iter()
        .filter(|name| remove_if_stale(name) == Ok(true))
        .collect()
}

/// An arena with a kept name.
#[cfg(test)]
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NamedArena {
    /// The name that the program chose for the arena.
    pub name: String,
    /// Whether the program of the arena is alive.
    pub live: bool,
    /// Process id of the arena's program, if the header is readable.
    pub pid: Option<u32>,
    /// Capacity in bytes, if the header is readable.
    pub capacity: Option<u64>,
    /// Number of workers, if the header is readable.
    pub workers: Option<u32>,
}

/// This user's arenas with kept names, sorted by name.
#[cfg(test)]
pub fn list() -> Vec<NamedArena> {
    let prefix = prefix();
    names()
        .into_iter()
        .filter_map(|full| {
            let name = full
                .strip_prefix(&prefix)?
                .strip_suffix(CHOSEN_SUFFIX)?
                .to_owned();
            let segment = Segment::open_named(&full, Access::ReadWrite).ok()?;
            if segment.stat().ok()?.uid != sys::effective_user() {
                return None;
            }
            let live = segment.is_locked().ok()?;
            let layout = read_header(&segment).ok();
            Some(NamedArena {
                name,
                live,
                pid: layout.map(|layout| layout.pid),
                capacity: layout.map(|layout| layout.capacity),
                workers: layout.map(|layout| layout.regions.saturating_sub(1)),
            })
        })
        .collect()
}

/// A name in `/dev/shm` that belongs to an arena of this user, live or dead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentName {
    /// The segment's name, with the leading slash.
    pub segment: String,
    /// The arena's name, if its program chose one.
    pub arena: Option<String>,
    /// Whether the arena's program is alive. If not, [`sweep`] removes the name.
    pub live: bool,
    /// Bytes of memory allocated to the segment.
    pub bytes: u64,
    /// Time since the segment was created, according to the system clock.
    pub age: Duration,
}

/// All names of this user's arenas in `/dev/shm`, sorted. Skips segments that cannot be opened or belong to other
/// users.
///
/// May contain names that another process is creating or removing.
pub fn segments() -> Vec<SegmentName> {
    let prefix = prefix();
    let look = |segment: String| {
        let open = Segment::open_named(&segment, Access::ReadOnly).ok()?;
        let stat = open.stat().ok()?;
        // The segment was removed after its name was found, or another user has created it.
        if stat.nlink == 0 || stat.uid != sys::effective_user() {
            return None;
        }
        let arena = segment
            .strip_prefix(&prefix)
            .and_then(|rest| rest.strip_suffix(CHOSEN_SUFFIX));
        Some(SegmentName {
            arena: arena.map(str::to_owned),
            live: open.is_locked().ok()?,
            bytes: stat.blocks,
            age: std::time::SystemTime::now()
                .duration_since(stat.modified)
                .unwrap_or_default(),
            segment,
        })
    };
    names().into_iter().filter_map(look).collect()
}

/// Reads and checks the header of a control segment that another process has created.
pub(super) fn read_header(segment: &Segment) -> Result<layout::Layout, ArenaError> {
    let len = segment.stat()?.len;
    if len == 0 {
        return Err(ArenaError::NotReady);
    }
    if len < HEADER_LEN {
        return Err(ArenaError::Truncated {
            segment: "control".into(),
            len,
            expected: HEADER_LEN,
        });
    }
    layout::read(segment, len)
}

/// Creates a segment for a region of a named arena and removes its name.
pub(super) fn region_segment(id: u64, index: u16) -> sys::Result<Segment> {
    let name = format!("{}{id:016x}.r{index}", prefix());
    let segment = Segment::create_named(&name)?;
    crate::sync::point!("create.region_named");
    match Segment::unlink(&name).or_else(|_| Segment::unlink(&name)) {
        // ENOENT: a sweep has already removed the name.
        Err(error) if error.errno() != Errno::ENOENT => Err(error),
        _ => {
            crate::sync::point!("create.region_unnamed");
            Ok(segment)
        }
    }
}
