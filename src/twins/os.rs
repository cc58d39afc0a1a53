//! The few raw calls the twins need: a page shared by two processes, a futex on it, and pinning to a core.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::time::Duration;

use memmap2::{MmapMut, MmapOptions};
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::TwinError;

/// What two processes share: only atomics, each word in a cache line of its own.
#[repr(C, align(4096))]
#[derive(Debug)]
pub(super) struct PageCells {
    /// Written by the asking side, read by the answering side.
    pub(super) request: Line,
    /// Written by the answering side, read by the asking side.
    pub(super) reply: Line,
    /// What the request carries.
    pub(super) argument: WideLine,
    /// What the reply carries.
    pub(super) result: WideLine,
}

/// A 32-bit word alone in its pair of cache lines.
#[repr(C, align(128))]
#[derive(Debug)]
pub(super) struct Line(pub(super) AtomicU32);

/// A 64-bit word alone in its pair of cache lines.
#[repr(C, align(128))]
#[derive(Debug)]
pub(super) struct WideLine(pub(super) AtomicU64);

const _: () = assert!(size_of::<PageCells>() == 4096);

/// One mapped page that another process maps as well.
#[derive(Debug)]
pub(super) struct SharedPage {
    map: MmapMut,
    file: OwnedFd,
}

impl SharedPage {
    /// A fresh page of zeros.
    pub(super) fn create() -> Result<Self, TwinError> {
        let file = memfd_create(c"arenite-twin", MFdFlags::MFD_CLOEXEC)
            .map_err(|errno| TwinError::io("create a shared page", errno))?;
        nix::unistd::ftruncate(&file, size_of::<PageCells>() as i64)
            .map_err(|errno| TwinError::io("size a shared page", errno))?;
        Self::open(file)
    }

    /// Maps the page behind a descriptor that came from the other process.
    pub(super) fn open(file: OwnedFd) -> Result<Self, TwinError> {
        let file = File::from(file);
        // SAFETY: the mapping is only ever used as `PageCells`, which holds atomics alone, so the other process may
        // write at any time; nobody shrinks the file, whose descriptor these two processes alone hold.
        let map = unsafe {
            MmapOptions::new()
                .len(size_of::<PageCells>())
                .map_mut(&file)
        }
        .map_err(|error| TwinError::io("map a shared page", error))?;
        Ok(Self {
            map,
            file: file.into(),
        })
    }

    /// Another descriptor of the same page, to hand to a child.
    pub(super) fn descriptor(&self) -> Result<OwnedFd, TwinError> {
        self.file
            .as_fd()
            .try_clone_to_owned()
            .map_err(|error| TwinError::io("hand on a shared page", error))
    }

    /// The words on the page.
    pub(super) fn cells(&self) -> &PageCells {
        // SAFETY: the mapping is one page long, page-aligned, and lives as long as `self`; every bit pattern is a
        // valid `PageCells`, and foreign writers only meet atomics.
        unsafe { &*self.map.as_ptr().cast::<PageCells>() }
    }
}

/// Sleeps while `word` holds `expected`, at most as long as `limit`; may also return for no reason.
pub(super) fn futex_wait(word: &AtomicU32, expected: u32, limit: Option<Duration>) {
    let time = limit.map(|limit| libc::timespec {
        tv_sec: limit.as_secs() as libc::time_t,
        tv_nsec: libc::c_long::from(limit.subsec_nanos() as i32),
    });
    let time: *const libc::timespec = time.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: `word` is a live, aligned futex word, `time` is null or points to a timespec that outlives the call.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT,
            expected,
            time,
        );
    }
}

/// Wakes one sleeper on `word`.
pub(super) fn futex_wake(word: &AtomicU32) {
    // SAFETY: `word` is a live, aligned futex word; waking has no further condition.
    unsafe {
        libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, 1);
    }
}

/// The cores this thread may run on.
pub(super) fn allowed_cores() -> Vec<usize> {
    let set = affinity();
    (0..libc::CPU_SETSIZE as usize)
        // SAFETY: `set` is an initialised set and the number is below CPU_SETSIZE.
        .filter(|&core| unsafe { libc::CPU_ISSET(core, &set) })
        .collect()
}

/// Two cores that are not two threads of one core, if there are two at all.
pub(super) fn two_cores() -> Option<(usize, usize)> {
    let cores = allowed_cores();
    let (&first, rest) = cores.split_first()?;
    let siblings = std::fs::read_to_string(format!(
        "/sys/devices/system/cpu/cpu{first}/topology/thread_siblings_list"
    ))
    .unwrap_or_default();
    let is_sibling = |core: &usize| {
        siblings.trim().split(',').any(|part| {
            let mut ends = part.splitn(2, '-').filter_map(|n| n.parse::<usize>().ok());
            let start = ends.next();
            let end = ends.next().or(start);
            matches!((start, end), (Some(a), Some(b)) if (a..=b).contains(core))
        })
    };
    let second = rest.iter().find(|core| !is_sibling(core)).or(rest.first());
    second.map(|&second| (first, second))
}

fn affinity() -> libc::cpu_set_t {
    // SAFETY: a `cpu_set_t` of zeros is an empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is a valid set of exactly the size given; 0 means the calling thread.
    unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) };
    set
}

fn set_affinity(set: &libc::cpu_set_t) -> io::Result<()> {
    // SAFETY: `set` is an initialised set of exactly the size given; 0 means the calling thread.
    if unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), set) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Keeps the calling thread on one core until dropped.
pub(super) struct Pinned {
    before: libc::cpu_set_t,
}

impl Pinned {
    /// Pins the calling thread.
    pub(super) fn to(core: usize) -> Result<Self, TwinError> {
        let before = affinity();
        // SAFETY: a `cpu_set_t` of zeros is an empty set, and callers pass a core below CPU_SETSIZE.
        let set = unsafe {
            let mut set: libc::cpu_set_t = std::mem::zeroed();
            libc::CPU_SET(core, &mut set);
            set
        };
        set_affinity(&set).map_err(|error| TwinError::io(format!("pin to core {core}"), error))?;
        Ok(Self { before })
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // Pinning worked with a set of this kind; failing to undo it would only cost speed.
        let _ = set_affinity(&self.before);
    }
}

/// CPU time that a whole process has used so far, all threads together.
pub(super) fn cpu_time_of(pid: i32) -> Result<Duration, TwinError> {
    let mut clock: libc::clockid_t = 0;
    // SAFETY: `clock` is a valid place for the answer.
    let answer = unsafe { libc::clock_getcpuclockid(pid, &mut clock) };
    if answer != 0 {
        let error = io::Error::from_raw_os_error(answer);
        return Err(TwinError::io(format!("read the CPU time of {pid}"), error));
    }
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a valid place for the answer.
    if unsafe { libc::clock_gettime(clock, &mut time) } != 0 {
        let error = io::Error::last_os_error();
        return Err(TwinError::io(format!("read the CPU time of {pid}"), error));
    }
    Ok(Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
}

/// Becomes another program, which dies with our parent as we would (the signal outlives `exec`).
pub(super) fn execute(
    program: &std::ffi::OsStr,
    arguments: impl Iterator<Item = std::ffi::OsString>,
) -> TwinError {
    use std::os::unix::process::CommandExt;
    let error = std::process::Command::new(program)
        .args(arguments)
        .env_remove(super::child::MARKER)
        .exec();
    TwinError::io(format!("start {}", program.display()), error)
}
