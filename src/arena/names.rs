//! Names in `/dev/shm`: making the control segment under one, telling living arenas from dead ones, sweeping.

use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt;
use std::ptr::NonNull;
use std::sync::Mutex;
use std::time::Duration;

use nix::errno::Errno;
use shared_memory::{Shmem, ShmemConf, ShmemError};

use super::budget::lock;
use super::error::ArenaError;
use super::layout::{self, HEADER_LEN};
use super::region::Missing;
use crate::sys::cut::{self, Watched};
use crate::sys::fork::Original;
use crate::sys::limits::without_file_size_signal;
use crate::sys::{self, Access, Map, Prot, Segment};

/// How often a name is tried before something must be wrong.
const ATTEMPTS: u32 = 100;

/// How often a name must be found locked before it counts as taken.
const LOOKS: u32 = 30;
const BETWEEN_LOOKS: Duration = Duration::from_millis(1);

fn prefix() -> String {
    format!("/arenite-{}-", sys::effective_user())
}

/// What the names of segments end with that a user has chosen.
const KEPT: &str = ".kept";

/// The segment name of an arena that a user has named.
fn kept_name(name: &str) -> String {
    // The dot keeps it apart from random names.
    format!("{}{name}{KEPT}", prefix())
}

/// The control segment as the supervisor holds it: mapped whole, readable and writable.
pub struct Control {
    /// Before the map, which it speaks of.
    _watched: Watched,
    held: Held,
    len: u64,
    segment: Segment,
    kept: Mutex<Option<String>>,
    /// Who made it and everything in it, and removes its name.
    pub(super) original: Original,
}

enum Held {
    Named(Shmem),
    Plain(Map),
}

// SAFETY: both variants are an address range that is unmapped on drop; Control hands out its raw start only, and what
// lies there is accessed by the rules of the link floor.
unsafe impl Send for Control {}
// SAFETY: as above; `&Control` gives no access to the Shmem but its address.
unsafe impl Sync for Control {}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control")
            .field("base", &self.base())
            .field("len", &self.len)
            .field("kept", &self.kept)
            .finish_non_exhaustive()
    }
}

impl Control {
    /// Makes one without a name.
    pub(super) fn anonymous(len: u64, sealed: bool) -> Result<Control, ArenaError> {
        let segment = Segment::create_memfd("arenite-control", sealed)?;
        segment.allocate(0..len)?;
        let map = Map::new(&segment, 0, len as usize, Prot::ReadWrite, false)?;
        let watched = cut::watch(map.base(), map.len(), segment.as_raw_fd(), None);
        Ok(Control {
            _watched: watched,
            held: Held::Plain(map),
            len,
            segment,
            kept: Mutex::new(None),
            original: Original::here(),
        })
    }

    /// Makes one in `/dev/shm`, keeping its name only if the user gave one.
    ///
    /// Create exclusively, lock, look whether the name is still there; start again if a sweep came between.
    pub(super) fn named(name: Option<&str>, len: u64) -> Result<Control, ArenaError> {
        let mut looks = 0;
        for _ in 0..ATTEMPTS {
            let full = match name {
                Some(name) => kept_name(name),
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
                        // A sweep or a list that is looking holds a lock too, for microseconds if it is not
                        // interrupted: only who holds it for long lives there.
                        looks += 1;
                        if looks > LOOKS {
                            return Err(ArenaError::NameTaken { name: name.into() });
                        }
                        std::thread::sleep(BETWEEN_LOOKS);
                    }
                    continue;
                }
                Err(error) => return Err(shmem_error(&error, &full).into()),
            };
            crate::sync::point!("create.named");
            // From here on the name is removed by us: the crate would remove whatever has it at that time.
            shmem.set_owner(false);
            let base = NonNull::new(shmem.as_ptr());
            let segment = match adopt(&full, base) {
                Ok(Some(segment)) => segment,
                other => {
                    // A random name is nobody else's: if only a reader of locks came between, it must not stay. Nor
                    // must one that could not even be opened, which no sweep could either.
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
            let watched = base.map(|base| cut::watch(base, len as usize, fd, None));
            let mut control = Control {
                _watched: watched.expect("a map of a segment never starts at address 0"),
                held: Held::Named(shmem),
                len,
                segment,
                kept: Mutex::new(Some(full)),
                original: Original::here(),
            };
            // An error from here on removes the name by dropping `control`.
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

    /// The first byte. The header page is written; the rest, from [`Control::body`] on, belongs to the links.
    pub fn base(&self) -> NonNull<u8> {
        match &self.held {
            Held::Named(shmem) => {
                NonNull::new(shmem.as_ptr()).expect("a map of a segment never starts at address 0")
            }
            Held::Plain(map) => map.base(),
        }
    }

    /// Bytes, header included.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has no bytes, which never happens.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The first byte behind the header: zero when the arena was made, aligned to a page.
    pub fn body(&self) -> NonNull<u8> {
        // SAFETY: every control segment is longer than its header.
        unsafe { self.base().add(HEADER_LEN as usize) }
    }

    /// The descriptor.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.segment.as_fd()
    }

    /// Whether somebody else has taken something of it away.
    pub(super) fn missing(&self) -> Option<Missing> {
        let stat = self.segment.stat().ok()?;
        let cut = stat.len < self.len;
        let left = if cut { stat.len } else { stat.blocks };
        (left < self.len).then_some(Missing {
            cut,
            left,
            expected: self.len,
        })
    }

    /// Removes the name, if one was kept and is still ours.
    pub(super) fn remove_name(&self) {
        if !self.original.is_here() {
            return;
        }
        let Some(name) = lock(&self.kept).take() else {
            return;
        };
        // Only who holds the lock removes a name, so it is ours, unless somebody has removed it by hand, after which
        // another program may have chosen it too. No descriptor is needed for this: there may be none left.
        let found = std::fs::symlink_metadata(format!("/dev/shm{name}"));
        let found = found.map(|found| (found.dev(), found.ino()));
        // A name that stays is in everybody's way, so each of these is worth a second try.
        let ours = self.segment.stat().or_else(|_| self.segment.stat());
        let ours = ours.map(|stat| stat.identity);
        let chosen = name.ends_with(KEPT);
        if chosen && (found.is_err() || found.ok() != ours.ok()) {
            return;
        }
        let _ = Segment::unlink(&name).or_else(|_| Segment::unlink(&name));
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.remove_name();
    }
}

/// Opens and locks the control segment that was just made under this name and mapped at `base`; `None` if a sweep came
/// between.
fn adopt(name: &str, base: Option<NonNull<u8>>) -> sys::Result<Option<Segment>> {
    let segment = Segment::open_named(name, Access::ReadWrite)?;
    let locked = segment.try_lock()?;
    let stat = segment.stat()?;
    // Another program may have chosen the same name in between, but not found the same random one; and the list of what is mapped is
    // long in large programs.
    let ours = !name.ends_with(KEPT) || base.and_then(sys::mapped_file) == Some(stat.identity);
    Ok((locked && stat.nlink > 0 && ours).then_some(segment))
}

/// Whether this name leads to the file that is mapped at `base`.
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

/// Removes `name` if no living process holds its lock; says whether it is gone.
///
/// The lock is held while the name is removed, and whoever finds a name without links has lost it: without this order a
/// sweep would remove segments that have just been made.
fn remove_if_stale(name: &str) -> sys::Result<bool> {
    let segment = match Segment::open_named(name, Access::ReadWrite) {
        Ok(segment) => segment,
        Err(error) if error.errno() == Errno::ENOENT => return Ok(true),
        Err(error) => return Err(error),
    };
    let stat = segment.stat()?;
    if stat.uid != sys::effective_user() {
        // Somebody else has taken the name; not even root takes it away from them.
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

/// Segment names of this user's arenas, living or not, with the leading slash.
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

/// Removes what arenas of this user left in `/dev/shm` when their programs were killed; the names removed.
///
/// A living arena is never touched: its program holds a lock that the kernel lets go of only when it ends. What cannot
/// be opened is left alone.
pub fn sweep() -> Vec<String> {
    names()
        .into_iter()
        .filter(|name| remove_if_stale(name) == Ok(true))
        .collect()
}

/// An arena that keeps a name.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NamedArena {
    /// The name its program gave it.
    pub name: String,
    /// Whether that program lives.
    pub live: bool,
    /// Process number of that program, when the header could be read.
    pub pid: Option<u32>,
    /// Its capacity in bytes, when the header could be read.
    pub capacity: Option<u64>,
    /// How many workers it has, when the header could be read.
    pub workers: Option<u32>,
}

/// This user's arenas that keep a name, sorted by it.
pub fn list() -> Vec<NamedArena> {
    let prefix = prefix();
    names()
        .into_iter()
        .filter_map(|full| {
            let name = full
                .strip_prefix(&prefix)?
                .strip_suffix(".kept")?
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

/// A name in `/dev/shm` that an arena of this user has, or has left there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentName {
    /// The name of the segment, with its leading slash.
    pub segment: String,
    /// The name of the arena, if its program gave it one.
    pub arena: Option<String>,
    /// Whether its program lives. What is not live is what [`sweep`] removes.
    pub live: bool,
    /// Bytes of memory behind it.
    pub bytes: u64,
    /// How long ago it was made, as far as the clock tells.
    pub age: Duration,
}

/// Every name that arenas of this user have in `/dev/shm`, sorted. What cannot be opened is left out, and so is what other
/// users have put there under such a name.
///
/// A name that is just being made or removed may be among them for an instant.
pub fn segments() -> Vec<SegmentName> {
    let prefix = prefix();
    let look = |segment: String| {
        let open = Segment::open_named(&segment, Access::ReadOnly).ok()?;
        let stat = open.stat().ok()?;
        // Gone again since it was listed; or somebody else's, who has given it such a name.
        if stat.nlink == 0 || stat.uid != sys::effective_user() {
            return None;
        }
        let arena = segment
            .strip_prefix(&prefix)
            .and_then(|rest| rest.strip_suffix(".kept"));
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

/// Checks and reads the header of a control segment that somebody else has made.
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

/// A segment for a region of a named arena, without its name already.
pub(super) fn region_segment(id: u64, index: u16) -> sys::Result<Segment> {
    let name = format!("{}{id:016x}.r{index}", prefix());
    let segment = Segment::create_named(&name)?;
    crate::sync::point!("create.region_named");
    match Segment::unlink(&name).or_else(|_| Segment::unlink(&name)) {
        // A sweep has been faster.
        Err(error) if error.errno() != Errno::ENOENT => Err(error),
        _ => {
            crate::sync::point!("create.region_unnamed");
            Ok(segment)
        }
    }
}
