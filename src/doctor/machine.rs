//! The facts.

use std::path::{Path, PathBuf};

use crate::arena::{SegmentName, default_capacity, segments};
use crate::control;
use crate::sys::limits::{self, Memory, Space};
use crate::sys::probe::{self, Bound, LANDLOCK_SCOPES};
use crate::sys::{self, effective_user};

/// What a process on this machine has to work with. All sizes are bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Machine {
    /// The kernel's release, such as `6.18.1-generic`.
    pub kernel: String,
    /// The architecture, such as `x86_64`.
    pub arch: String,
    /// Bytes of a page of memory.
    pub page: u64,
    /// Cores that this process may use, container limits counted: the default number of workers.
    pub cores: usize,
    /// Whether this process is root of the machine, which some limits do not bind; root of a container without privileges
    /// is a user like others.
    pub root: bool,
    /// Whether `/proc` shows this process, which workers are started from.
    pub proc: bool,
    /// Memory of the machine or of its container, whichever is less; `None` where neither tells.
    pub memory: Option<Room>,
    /// The container's memory limit that is nearest, if there is one.
    pub container: Option<ContainerRoom>,
    /// The container's limit of processes and threads that is nearest, if there is one.
    pub container_tasks: Option<ContainerTasks>,
    /// The file system at `/dev/shm`, if it can be looked at.
    pub shm: Option<Room>,
    /// Whether this user may make files in `/dev/shm`.
    pub shm_writable: bool,
    /// Whether `/dev/shm` is mounted such that nobody may.
    pub shm_read_only: bool,
    /// The folder for temporary files, where workers meet their program.
    pub temporary: PathBuf,
    /// Why they cannot meet there; `None` if they can.
    pub temporary_fault: Option<String>,
    /// What an engine without a capacity of its own would take at most: half of the memory; `None` where nobody can tell
    /// how much that is.
    pub capacity: Option<u64>,
    /// Limits of this process.
    pub bounds: Bounds,
    /// What the kernel can do, and what not.
    pub features: Vec<Feature>,
    /// Names of this user's arenas in `/dev/shm`, living or left behind.
    pub names: Vec<SegmentName>,
}

/// So much there is, and so much of it is free, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// All of it; `u64::MAX` where nothing bounds it.
    pub size: u64,
    /// What can be had now.
    pub free: u64,
}

/// A container's memory limit.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ContainerRoom {
    /// The folder of its control group.
    pub group: PathBuf,
    /// Version of control groups, 1 or 2.
    pub version: u8,
    /// The limit, and what is left of it.
    pub room: Room,
}

/// How many processes and threads a container may have.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ContainerTasks {
    /// The folder of its control group.
    pub group: PathBuf,
    /// Version of control groups, 1 or 2.
    pub version: u8,
    /// The most that may be there at the same time.
    pub limit: u64,
    /// How many are there now.
    pub used: u64,
}

/// Limits of this process; `None` where there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Bounds {
    /// `RLIMIT_NOFILE`: open descriptors.
    pub files: Option<u64>,
    /// `RLIMIT_NPROC`: processes and threads of this user.
    pub processes: Option<u64>,
    /// Processes and threads that this user runs already: those that can be seen from here. Others, in other containers,
    /// count for the limit too.
    pub processes_now: u64,
    /// `RLIMIT_AS`: bytes of addresses.
    pub address_space: Option<u64>,
    /// `RLIMIT_DATA`: bytes of private memory.
    pub data: Option<u64>,
    /// `RLIMIT_FSIZE`: bytes of a file.
    pub file_size: Option<u64>,
    /// `RLIMIT_CPU`: seconds of computing.
    pub cpu_seconds: Option<u64>,
    /// `vm.max_map_count`: mappings of a process.
    pub mappings: Option<u64>,
}

/// How much an engine needs a feature of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Need {
    /// No engine starts without it.
    Always,
    /// An engine is slower without it.
    Speed,
    /// Only [`Backing::Sealed`](crate::Backing::Sealed) needs it.
    Sealed,
    /// Only sandboxed workers use it.
    Sandbox,
}

/// Something that the kernel can do, or not.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Feature {
    /// Its name, as manual pages call it.
    pub name: &'static str,
    /// What it is for here.
    pub purpose: &'static str,
    /// The kernel that brought it.
    pub since: &'static str,
    /// Who needs it.
    pub need: Need,
    /// What the kernel said when it was tried: some detail, or why not.
    pub state: Result<String, String>,
}

impl Machine {
    /// Looks around; changes nothing.
    pub fn look() -> Machine {
        Machine::look_below(Path::new("/"))
    }

    /// The same where `/proc` and `/sys` tell of machine and container below another folder.
    pub(super) fn look_below(root: &Path) -> Machine {
        let (kernel, arch) = probe::kernel();
        let Memory {
            limit, available, ..
        } = limits::memory_available(root);
        let is_known = limit != limits::UNKNOWN_MEMORY;
        let shm = Path::new("/dev/shm");
        let temporary = std::env::temp_dir();
        Machine {
            kernel,
            arch,
            page: sys::page_size() as u64,
            cores: limits::cores(),
            root: is_root(root, effective_user()),
            proc: Path::new("/proc/self/exe").exists() && Path::new("/proc/self/fd/").exists(),
            memory: is_known.then_some(Room {
                size: limit,
                free: available,
            }),
            container: limits::container(root).map(|found| ContainerRoom {
                group: found.group,
                version: found.version,
                room: Room {
                    size: found.limit,
                    free: found.limit.saturating_sub(found.used),
                },
            }),
            container_tasks: limits::tasks(root).map(|found| ContainerTasks {
                group: found.group,
                version: found.version,
                limit: found.limit,
                used: found.used,
            }),
            shm: limits::shm_space(shm)
                .ok()
                .map(|Space { size, free }| Room { size, free }),
            shm_writable: probe::may_write(shm),
            shm_read_only: probe::is_read_only(shm),
            temporary_fault: control::usable(&temporary).err(),
            temporary,
            capacity: is_known.then(default_capacity),
            bounds: Bounds::look(),
            features: features(),
            names: segments(),
        }
    }

    /// Names that dead programs left: what [`crate::arena::sweep`] removes.
    pub fn stale(&self) -> impl Iterator<Item = &SegmentName> {
        self.names.iter().filter(|name| !name.live)
    }
}

/// Whether a user is the machine's root. User 0 of a user namespace that somebody else has made may be anybody outside:
/// only the first namespace has all numbers, each for itself.
pub(super) fn is_root(root: &Path, user: u32) -> bool {
    // A kernel without namespaces of users has no such file.
    let map = std::fs::read_to_string(root.join("proc/self/uid_map"));
    let is_first = map.map_or(true, |map| {
        map.split_ascii_whitespace()
            .eq(["0", "0", &u32::MAX.to_string()])
    });
    user == 0 && is_first
}

impl Bounds {
    fn look() -> Bounds {
        Bounds {
            files: probe::bound(Bound::Files),
            processes: probe::bound(Bound::Processes),
            processes_now: probe::tasks_of_user(),
            address_space: probe::bound(Bound::AddressSpace),
            data: probe::bound(Bound::Data),
            file_size: probe::bound(Bound::FileSize),
            cpu_seconds: probe::bound(Bound::CpuTime),
            mappings: std::fs::read_to_string("/proc/sys/vm/max_map_count")
                .ok()
                .and_then(|text| text.trim().parse().ok()),
        }
    }
}

fn features() -> Vec<Feature> {
    let said = |answer: sys::Result<()>| match answer {
        Ok(()) => Ok(String::new()),
        Err(error) => Err(error.errno().desc().to_lowercase()),
    };
    let abi = |answer: sys::Result<u32>| match answer {
        Ok(abi) if abi < LANDLOCK_SCOPES => Err(format!(
            "version {abi} does not keep signals in, version {LANDLOCK_SCOPES} (Linux 6.12) does"
        )),
        Ok(abi) => Ok(format!("version {abi}")),
        Err(error) => Err(error.errno().desc().to_lowercase()),
    };
    let feature = |name, purpose, since, need, state| Feature {
        name,
        purpose,
        since,
        need,
        state,
    };
    vec![
        feature(
            "pidfd",
            "workers are watched and ended without ever meeting another process",
            "5.3",
            Need::Always,
            said(probe::pidfd()),
        ),
        feature(
            "close_range",
            "workers close what they inherited and do not need",
            "5.9",
            Need::Always,
            said(probe::close_range()),
        ),
        feature(
            "memfd",
            "what arenas are made of: memory without names, which the size of /dev/shm does not bound",
            "3.17",
            Need::Sealed,
            said(probe::memfd_seals()),
        ),
        feature(
            "MADV_COLLAPSE",
            "huge pages: new shared memory is ready several times sooner",
            "6.1",
            Need::Speed,
            said(probe::collapse()),
        ),
        feature(
            "futex_waitv",
            "a thread that waits for any of several jobs is woken by their workers themselves",
            "5.16",
            Need::Speed,
            said(probe::wait_any()),
        ),
        feature(
            "seccomp",
            "sandbox: system calls that a kernel function has no business with",
            "4.14",
            Need::Sandbox,
            said(probe::seccomp()),
        ),
        feature(
            "Landlock",
            "sandbox: files, signals and sockets out of reach",
            "5.13",
            Need::Sandbox,
            abi(probe::landlock_abi()),
        ),
        feature(
            "mseal",
            "sandbox: maps of shared memory cannot be moved or replaced",
            "6.10",
            Need::Sandbox,
            said(probe::mseal()),
        ),
    ]
}
