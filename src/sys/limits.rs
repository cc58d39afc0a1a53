//! Limits of this process and its container: memory, address space, files, processes, cores.

use std::fs;
use std::io::{self, Read};
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, SigmaskHow, Signal};

use super::error::{Error, Result, retry};
use super::inject::allowed;

/// Space of a file system in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Total size.
    pub size: u64,
    /// Free bytes that this process may use.
    pub free: u64,
}

/// Returns the space of the file system at `path`, which is `/dev/shm` for named segments.
pub fn shm_space(path: &Path) -> Result<Space> {
    let stat = retry(|| nix::sys::statvfs::statvfs(path))
        .map_err(|errno| Error::new("statvfs", errno, path.display().to_string()))?;
    let unit = stat.fragment_size();
    // A tmpfs mounted with size=0 has no limit and reports zero blocks.
    if stat.blocks() == 0 {
        return Ok(Space {
            size: u64::MAX,
            free: u64::MAX,
        });
    }
    Ok(Space {
        size: stat.blocks().saturating_mul(unit),
        free: stat.blocks_available().saturating_mul(unit),
    })
}

/// Memory available to this process, in bytes: that of the machine, or of the container if that is less.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Total memory.
    pub limit: u64,
    /// Whether `limit` is a container's limit, not the memory of the machine.
    pub contained: bool,
    /// Memory that can be allocated now without swapping.
    pub available: u64,
    /// Whether a container, not the machine, limits `available`.
    pub available_contained: bool,
}

#[cfg(test)]
impl Memory {
    /// Returns the memory of a container with this limit.
    pub(crate) fn of_a_container(limit: u64, available: u64) -> Self {
        Self {
            limit,
            contained: true,
            available,
            available_contained: true,
        }
    }
}

/// Reads the memory limits from files below `root`, which is `/` except in tests.
///
/// Reads `/proc/meminfo` and every memory control group from this process's own up to the root, of versions 1 and 2.
/// Page cache that a group can drop counts as available.
///
/// Returns `None` if the files cannot be read for lack of descriptors or memory. The caller then uses its previous
/// result.
pub fn memory_now(root: &Path) -> Option<Memory> {
    let read = || -> io::Result<Memory> {
        let meminfo = read_file(&root.join("proc/meminfo"))?;
        let total = total(&meminfo);
        let mut memory = Memory {
            limit: total,
            contained: false,
            available: field(&meminfo, "MemAvailable:")
                .map_or(total, |kib| kib.saturating_mul(1024)),
            available_contained: false,
        };
        for group in groups(root)? {
            group.apply(&mut memory, total)?;
        }
        Ok(memory)
    };
    read().ok()
}

/// Like `memory_now`, for callers without a previous result: unknown values are `UNKNOWN_MEMORY`.
pub fn memory_available(root: &Path) -> Memory {
    memory_now(root).unwrap_or(Memory {
        limit: UNKNOWN_MEMORY,
        contained: false,
        available: UNKNOWN_MEMORY,
        available_contained: false,
    })
}

/// A length in bytes that most files of `/proc` and `/sys` do not exceed.
const USUAL_LEN: usize = 4096;

/// Reads a file of `/proc` or `/sys`. If the file does not exist, or this process may not read it, returns an empty
/// text. An error means that reading was not possible, and says nothing about the content.
fn read_file(path: &Path) -> io::Result<String> {
    let cannot_look = [libc::EMFILE, libc::ENFILE, libc::ENOMEM];
    let read = || -> io::Result<String> {
        let mut text = String::with_capacity(USUAL_LEN);
        // `take` hides the size: generated files report 0, and `read_to_string` would then read in small pieces.
        fs::File::open(path)?
            .take(u64::MAX)
            .read_to_string(&mut text)?;
        Ok(text)
    };
    match read() {
        Err(error)
            if !error
                .raw_os_error()
                .is_some_and(|code| cannot_look.contains(&code)) =>
        {
            Ok(String::new())
        }
        answer => answer,
    }
}

/// A control group with a limit, and its usage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupLimit {
    /// The folder of the group.
    pub group: PathBuf,
    /// Version of control groups, 1 or 2.
    pub version: u8,
    /// Maximum for all processes of the group together, in bytes or as a number of processes and threads.
    pub limit: u64,
    /// Current usage, in the same unit, without page cache that can be dropped.
    pub used: u64,
}

/// Finds the memory control group that leaves this process the fewest bytes, if any group has a limit. For `root` see
/// `memory_now`.
pub fn memory_group(root: &Path) -> Option<GroupLimit> {
    let machine = total(&read_file(&root.join("proc/meminfo")).ok()?);
    nearest(groups(root).ok()?, |group| {
        group.limit_and_use(machine).ok()?
    })
}

/// Finds the control group whose limit on processes and threads (`pids.max`) is nearest, if any group has a limit. The
/// limit applies to the root user too. For `root` see `memory_now`.
pub fn task_group(root: &Path) -> Option<GroupLimit> {
    nearest(groups_of(root, "pids").ok()?, |group| {
        // "max" means no limit, and does not parse as a number.
        let limit = group.number("pids.max").ok()??;
        Some((limit, group.number("pids.current").ok()?.unwrap_or(0)))
    })
}

/// Returns the group with the smallest difference between limit and usage. `limit_and_use` returns `None` for a group
/// without a limit.
fn nearest(
    groups: Vec<Group>,
    limit_and_use: impl Fn(&Group) -> Option<(u64, u64)>,
) -> Option<GroupLimit> {
    let limits = groups.into_iter().filter_map(|group| {
        let (limit, used) = limit_and_use(&group)?;
        Some(GroupLimit {
            version: if group.is_v2 { 2 } else { 1 },
            group: group.path,
            limit,
            used,
        })
    });
    limits.min_by_key(|found| found.limit.saturating_sub(found.used))
}

/// The memory assumed for a machine whose `/proc/meminfo` does not state it. Version 1 of control groups writes almost
/// 2^63 for "no limit"; this is half of that, so "no limit" is never below it.
pub const UNKNOWN_MEMORY: u64 = 1 << 62;

/// Returns the machine's memory in bytes.
fn total(meminfo: &str) -> u64 {
    field(meminfo, "MemTotal:").map_or(UNKNOWN_MEMORY, |kib| kib.saturating_mul(1024))
}

/// Returns the number after `name` in a text with lines of the form "name value".
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next()? == name).then(|| words.next()?.parse().ok())?
    })
}

/// A control group.
pub(super) struct Group {
    pub(super) path: PathBuf,
    /// Whether the group has version 2 of the interface; otherwise version 1.
    pub(super) is_v2: bool,
}

impl Group {
    fn number(&self, file: &str) -> io::Result<Option<u64>> {
        Ok(read_file(&self.path.join(file))?.trim().parse().ok())
    }

    /// Returns the limit in bytes, and the usage without the page cache, which Linux drops before it refuses memory to
    /// a process. Returns `None` if the limit is not below `machine`: such a limit has no effect, and reading the usage
    /// is slow.
    fn limit_and_use(&self, machine: u64) -> io::Result<Option<(u64, u64)>> {
        let (limit, usage, caches) = if self.is_v2 {
            (
                "memory.max",
                "memory.current",
                ["inactive_file", "active_file"],
            )
        } else {
            (
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
                ["total_inactive_file", "total_active_file"],
            )
        };
        // Version 2 writes "max" for no limit, which is not a number; version 1 writes almost 2^63, which is never
        // below `machine`.
        let Some(limit) = self.number(limit)?.filter(|&limit| limit < machine) else {
            return Ok(None);
        };
        let stat = read_file(&self.path.join("memory.stat"))?;
        let caches = caches.map(|cache| field(&stat, cache).unwrap_or(0));
        let droppable = caches.into_iter().fold(0, u64::saturating_add);
        let used = self.number(usage)?.unwrap_or(0).saturating_sub(droppable);
        Ok(Some((limit, used)))
    }

    fn apply(&self, memory: &mut Memory, machine: u64) -> io::Result<()> {
        let Some((limit, used)) = self.limit_and_use(machine)? else {
            return Ok(());
        };
        if limit < memory.limit {
            memory.limit = limit;
            memory.contained = true;
        }
        let left = limit.saturating_sub(used);
        if left < memory.available {
            memory.available = left;
            memory.available_contained = true;
        }
        Ok(())
    }
}

/// Returns every memory control group of this process, innermost first.
pub(super) fn groups(root: &Path) -> io::Result<Vec<Group>> {
    groups_of(root, "memory")
}

/// Returns all control groups of this process that may have `controller`, innermost first.
fn groups_of(root: &Path, controller: &str) -> io::Result<Vec<Group>> {
    let first = format!("sys/fs/cgroup/{controller}");
    let text = read_file(&root.join("proc/self/cgroup"))?;
    let mut groups = Vec::new();
    for line in text.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(number), Some(controllers), Some(path)) =
            (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        let (mounts, is_v2): (&[&str], bool) = if number == "0" && controllers.is_empty() {
            (&["sys/fs/cgroup", "sys/fs/cgroup/unified"], true)
        } else if controllers.split(',').any(|name| name == controller) {
            (&[&first], false)
        } else {
            continue;
        };
        for mount in mounts {
            let mount = root.join(mount);
            // In a container the group's own folder is often mounted as the root, while the path is that of the host.
            // So a level that does not exist counts as having no limit, and the mount point itself is always read.
            let mut level = Some(Path::new(path.trim_start_matches('/')));
            while let Some(inner) = level {
                let path = mount.join(inner);
                groups.push(Group { path, is_v2 });
                level = inner.parent();
            }
        }
    }
    Ok(groups)
}

fn limit(resource: Resource) -> Option<u64> {
    match getrlimit(resource) {
        Ok((soft, _)) if soft != libc::RLIM_INFINITY => Some(soft),
        _ => None,
    }
}

/// Returns `RLIMIT_AS` in bytes, if it is set. The limit also counts reserved address space.
pub fn address_space_limit() -> Option<u64> {
    limit(Resource::RLIMIT_AS)
}

/// Returns `RLIMIT_FSIZE` in bytes, if it is set. The limit applies to the length of segments; exceeding it raises
/// SIGXFSZ.
pub fn file_size_limit() -> Option<u64> {
    limit(Resource::RLIMIT_FSIZE)
}

/// Runs a call that may exceed `RLIMIT_FSIZE`. If the call exceeds the limit, it fails with `EFBIG`, and the SIGXFSZ
/// that Linux sends does not end this process.
pub fn without_file_size_signal<T>(call: impl FnOnce() -> T) -> T {
    if file_size_limit().is_none() {
        return call();
    }
    let mut set = SigSet::empty();
    set.add(Signal::SIGXFSZ);
    let pending = |set: &SigSet| -> bool {
        // SAFETY: sigpending writes into a local set.
        unsafe {
            let mut now: libc::sigset_t = std::mem::zeroed();
            libc::sigpending(&raw mut now) == 0
                && set
                    .iter()
                    .any(|signal| libc::sigismember(&raw const now, signal as i32) == 1)
        }
    };
    let before = pending(&set);
    // Both calls fail only for a wrong argument.
    let mask = set.thread_swap_mask(SigmaskHow::SIG_BLOCK);
    let answer = call();
    if !before && pending(&set) {
        // Linux has sent the signal to this thread because of this call.
        let _ = set.wait();
    }
    if let Ok(mask) = mask {
        let _ = mask.thread_set_mask();
    }
    answer
}

/// Returns whether more than half of the descriptors that this process may open are in use. `new` is the number of a
/// descriptor that was just opened: it was the lowest free number.
pub fn is_short_of_descriptors(new: RawFd) -> bool {
    let new = u64::try_from(new).unwrap_or(0);
    limit(Resource::RLIMIT_NOFILE).is_some_and(|limit| new > limit / 2)
}

/// Checks that this process may open `more` descriptors. If not, the error names the limit.
///
/// A new descriptor has the lowest free number, so this number is about the count of open descriptors.
pub fn room_for_descriptors(more: u64) -> Result<()> {
    let Some(limit) = limit(Resource::RLIMIT_NOFILE) else {
        return Ok(());
    };
    let what = || format!("{more} more descriptors of {limit} in all");
    let error = |errno| Error::new("open", errno, what());
    // SAFETY: F_DUPFD_CLOEXEC takes numbers. The copy is closed at once.
    let next = unsafe {
        let copy = libc::fcntl(0, libc::F_DUPFD_CLOEXEC, 0);
        if copy >= 0 {
            libc::close(copy);
        }
        copy
    };
    let next = match u64::try_from(next) {
        Ok(next) => next,
        Err(_) if Errno::last() == Errno::EMFILE => return Err(error(Errno::EMFILE)),
        // Standard input is closed: the next number cannot be determined.
        Err(_) => return Ok(()),
    };
    if next.saturating_add(more) > limit {
        return Err(error(Errno::EMFILE));
    }
    Ok(())
}

/// Sets the soft `RLIMIT_DATA` of this process, in bytes. This limit counts private writable memory, not shared maps.
pub fn set_data_limit(bytes: u64) -> Result<()> {
    set_soft(Resource::RLIMIT_DATA, "RLIMIT_DATA", bytes, |_, hard| hard)
}

/// While this value lives, `RLIMIT_DATA` is raised, so that this process may have more private memory.
#[derive(Debug)]
pub struct DataRoom(Option<Raised>);

#[derive(Debug)]
enum Raised {
    /// The limit was raised by this number of bytes.
    By(u64),
    /// The limit was raised from this number of bytes to no limit.
    From(u64),
}

/// Locked while the limit is changed.
static DATA_LIMIT: Mutex<()> = Mutex::new(());

impl DataRoom {
    /// Raises the soft `RLIMIT_DATA` of this process by `bytes`, or as far as the hard limit allows.
    pub fn new(bytes: u64) -> DataRoom {
        let _held = DATA_LIMIT.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(before) = limit(Resource::RLIMIT_DATA) else {
            return DataRoom(None);
        };
        let more = |soft: u64, hard: u64| hard.min(soft.saturating_add(bytes));
        if set_soft(Resource::RLIMIT_DATA, "RLIMIT_DATA", u64::MAX, more).is_err() {
            return DataRoom(None);
        }
        DataRoom(Some(match limit(Resource::RLIMIT_DATA) {
            // Other code may have lowered the limit since.
            Some(now) => Raised::By(now.saturating_sub(before)),
            None => Raised::From(before),
        }))
    }
}

impl Drop for DataRoom {
    fn drop(&mut self) {
        let Some(raised) = self.0.take() else { return };
        let _held = DATA_LIMIT.lock().unwrap_or_else(PoisonError::into_inner);
        let limit = match (raised, limit(Resource::RLIMIT_DATA)) {
            (Raised::By(bytes), Some(now)) => now.saturating_sub(bytes),
            (Raised::From(before), None) => before,
            // Other code has set the limit since.
            _ => return,
        };
        // Lowering a soft limit is always allowed.
        let _ = set_data_limit(limit);
    }
}

/// Forbids core dumps of this process by a soft `RLIMIT_CORE` of 1. With 0, Linux would still start a program that
/// collects dumps through a pipe. With 1 it does not, and it writes no file as short as one byte.
pub fn forbid_core_dumps() -> Result<()> {
    set_soft(Resource::RLIMIT_CORE, "RLIMIT_CORE", 1, |_, hard| hard)
}

/// Lowers the soft `RLIMIT_STACK` of this process: the size of the first thread's stack, which `RLIMIT_DATA` does not
/// count.
pub fn set_stack_limit(bytes: u64) -> Result<()> {
    set_soft(Resource::RLIMIT_STACK, "RLIMIT_STACK", bytes, |soft, _| {
        soft
    })
}

/// Sets the soft `RLIMIT_AS` of this process to `more` bytes above the address space that the process has at this
/// moment. Unlike `RLIMIT_DATA`, this limit also counts memory that was made read-only.
#[cfg(feature = "sandbox")]
pub fn set_address_limit(more: u64) -> Result<()> {
    let what = "/proc/self/statm";
    let error = |error: io::Error| {
        let code = error.raw_os_error().unwrap_or(libc::EIO);
        Error::new("open", Errno::from_raw(code), what)
    };
    let text = fs::read_to_string(what).map_err(error)?;
    let pages = text.split_ascii_whitespace().next();
    let pages: u64 = pages.and_then(|pages| pages.parse().ok()).unwrap_or(0);
    let own = pages.saturating_mul(super::page_size() as u64);
    let bytes = own.saturating_add(more);
    set_soft(Resource::RLIMIT_AS, "RLIMIT_AS", bytes, |soft, _| soft)
}

/// Sets a soft limit to `bytes`, or to `most(soft, hard)` if that is less. The arguments of `most` are the present
/// limits.
fn set_soft(
    resource: Resource,
    name: &str,
    bytes: u64,
    most: impl Fn(u64, u64) -> u64,
) -> Result<()> {
    let error = |call, errno| Error::new(call, errno, format!("{name} to {bytes} bytes"));
    let (soft, hard) = getrlimit(resource).map_err(|errno| error("getrlimit", errno))?;
    allowed()
        .and_then(|()| setrlimit(resource, bytes.min(most(soft, hard)), hard))
        .map_err(|errno| error("setrlimit", errno))
}

/// Returns the number of cores that this process may use, with regard to container limits.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
