//! The facts about the machine, without judging them.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use arenite::platform::{self, SegmentName};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::{AccessFlags, SysconfVar, access, geteuid, sysconf};

/// The resources of this machine, its container and this process. All sizes are in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Machine {
    /// The release of Linux, such as `6.18.1-generic`.
    pub kernel: String,
    /// The architecture, such as `x86_64`.
    pub arch: String,
    /// The size of a page of memory.
    pub page: u64,
    /// The number of cores that this process may use, container limits included: the default number of workers.
    pub cores: usize,
    /// Whether this process is root of the machine, to whom some limits do not apply. Root of an unprivileged container
    /// is an ordinary user.
    pub root: bool,
    /// Whether `/proc` shows this process. Workers are started from there.
    pub proc: bool,
    /// Memory of the machine or of its container, whichever is less; `None` if unknown.
    pub memory: Option<Room>,
    /// The memory limit of the container. If control groups are nested, the limit that leaves the least memory.
    pub container: Option<ContainerRoom>,
    /// The limit of the container on processes and threads. If control groups are nested, the limit that leaves the
    /// fewest.
    pub container_tasks: Option<ContainerTasks>,
    /// The file system at `/dev/shm`, if it exists.
    pub shm: Option<Room>,
    /// Whether this user may make files in `/dev/shm`.
    pub shm_writable: bool,
    /// Whether `/dev/shm` is mounted read-only.
    pub shm_read_only: bool,
    /// The folder where workers connect to their program; the folder for temporary files if they cannot connect.
    pub temporary: PathBuf,
    /// The reason why workers cannot connect in `temporary`; `None` if they can.
    pub temporary_fault: Option<String>,
    /// The default capacity of an engine: half of the available memory; `None` if that is unknown.
    pub capacity: Option<u64>,
    /// Limits of this process.
    pub bounds: Bounds,
    /// Features of Linux, and whether they work.
    pub features: Vec<Feature>,
    /// Whether this command decodes JPEG by assembly.
    pub jpeg_assembly: bool,
    /// The version of libde265, which decodes HEIC; `None` if it is missing.
    pub heic: Option<String>,
    /// Names of this user's arenas in `/dev/shm`, in use or left behind.
    pub names: Vec<SegmentName>,
}

/// The size of a store and its free part, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    /// The total size; `u64::MAX` if unbounded.
    pub size: u64,
    /// The part that is available now.
    pub free: u64,
}

/// A container's memory limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ContainerRoom {
    /// The folder of the container's control group.
    pub group: PathBuf,
    /// Version of control groups, 1 or 2.
    pub version: u8,
    /// The limit, and what is left of it.
    pub room: Room,
}

/// A container's limit on processes and threads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ContainerTasks {
    /// The folder of the container's control group.
    pub group: PathBuf,
    /// Version of control groups, 1 or 2.
    pub version: u8,
    /// The maximum number at the same time.
    pub limit: u64,
    /// The number at the moment.
    pub used: u64,
}

/// Limits of this process; `None` for no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Bounds {
    /// `RLIMIT_NOFILE`: open descriptors.
    pub files: Option<u64>,
    /// `RLIMIT_NPROC`: processes and threads of this user.
    pub processes: Option<u64>,
    /// The number of processes and threads of this user that `/proc` shows. The user's processes in other containers
    /// also count for the limit, but are not in this number.
    pub processes_now: u64,
    /// `RLIMIT_AS`: bytes of addresses.
    pub address_space: Option<u64>,
    /// `RLIMIT_DATA`: bytes of private memory.
    pub data: Option<u64>,
    /// `RLIMIT_FSIZE`: bytes of a file.
    pub file_size: Option<u64>,
    /// `RLIMIT_CPU`: seconds of CPU time.
    pub cpu_seconds: Option<u64>,
    /// `vm.max_map_count`: mappings of a process.
    pub mappings: Option<u64>,
}

/// How much an engine needs a feature of Linux.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// No engine starts without the feature.
    Always,
    /// An engine is slower without the feature.
    Speed,
    /// Only [`Backing::Sealed`](arenite::Backing::Sealed) needs the feature.
    Sealed,
    /// Only sandboxed workers use the feature.
    Sandbox,
}

/// A feature of Linux, and whether it works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Feature {
    /// The name of the feature in the manual pages.
    pub name: &'static str,
    /// What the engine uses the feature for.
    pub purpose: &'static str,
    /// The release of Linux that introduced the feature.
    pub since: &'static str,
    /// How much an engine needs the feature.
    pub need: Need,
    /// A detail if the feature works, the reason if it does not.
    pub state: Result<String, String>,
}

impl Machine {
    /// Reads the facts. Changes nothing.
    pub(super) fn probe() -> Machine {
        Machine::probe_below(Path::new("/"))
    }

    /// Like [`probe`](Self::probe), but reads `/proc` and `/sys` below another root folder.
    pub(super) fn probe_below(root: &Path) -> Machine {
        let (kernel, arch) = kernel();
        let memory = platform::memory(root);
        let shm = Path::new("/dev/shm");
        let sockets = platform::socket_folder();
        Machine {
            kernel,
            arch,
            page: page_size(),
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            root: is_root(root, geteuid().as_raw()),
            proc: Path::new("/proc/self/exe").exists() && Path::new("/proc/self/fd/").exists(),
            memory: memory.map(|memory| Room {
                size: memory.limit,
                free: memory.available,
            }),
            container: platform::memory_group(root).map(|found| ContainerRoom {
                room: Room {
                    size: found.limit,
                    free: found.limit.saturating_sub(found.used),
                },
                group: found.group,
                version: found.version,
            }),
            container_tasks: platform::task_group(root).map(|found| ContainerTasks {
                group: found.group,
                version: found.version,
                limit: found.limit,
                used: found.used,
            }),
            shm: room_of(shm),
            shm_writable: access(shm, AccessFlags::W_OK | AccessFlags::X_OK) == Ok(()),
            shm_read_only: statvfs(shm).is_ok_and(|stat| stat.flags().contains(FsFlags::ST_RDONLY)),
            temporary_fault: sockets.as_ref().err().cloned(),
            temporary: sockets.unwrap_or_else(|_| std::env::temp_dir()),
            capacity: memory.map(|_| platform::default_capacity()),
            bounds: Bounds::probe(),
            features: features(),
            jpeg_assembly: arenite_image::has_jpeg_assembly(),
            heic: arenite_image::heic_decoder().ok(),
            names: platform::segments(),
        }
    }

    /// Returns the names that dead programs have left: [`platform::sweep`] removes these.
    pub(super) fn stale(&self) -> impl Iterator<Item = &SegmentName> {
        self.names.iter().filter(|name| !name.live)
    }
}

/// Returns the release of Linux and the architecture.
fn kernel() -> (String, String) {
    nix::sys::utsname::uname().map_or_else(
        |_| (String::new(), std::env::consts::ARCH.to_owned()),
        |name| {
            let text = |text: &std::ffi::OsStr| text.to_string_lossy().into_owned();
            (text(name.release()), text(name.machine()))
        },
    )
}

fn page_size() -> u64 {
    let size = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
    size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0)
}

/// Returns the size and the free space of a file system.
fn room_of(path: &Path) -> Option<Room> {
    let stat = statvfs(path).ok()?;
    // A tmpfs mounted with size=0 has no limit of its own and reports zero blocks.
    if stat.blocks() == 0 {
        return Some(Room {
            size: u64::MAX,
            free: u64::MAX,
        });
    }
    let unit = stat.fragment_size();
    Some(Room {
        size: stat.blocks().saturating_mul(unit),
        free: stat.blocks_available().saturating_mul(unit),
    })
}

/// Returns whether a user is root of the machine. Only the first user namespace maps all ids to themselves; user 0 of
/// another namespace may be any user outside.
pub(super) fn is_root(root: &Path, user: u32) -> bool {
    // Linux without user namespaces lacks this file.
    let map = fs::read_to_string(root.join("proc/self/uid_map"));
    let is_first = map.map_or(true, |map| {
        map.split_ascii_whitespace()
            .eq(["0", "0", &u32::MAX.to_string()])
    });
    user == 0 && is_first
}

impl Bounds {
    fn probe() -> Bounds {
        Bounds {
            files: soft_limit(Resource::RLIMIT_NOFILE),
            processes: soft_limit(Resource::RLIMIT_NPROC),
            processes_now: tasks_of_user(),
            address_space: soft_limit(Resource::RLIMIT_AS),
            data: soft_limit(Resource::RLIMIT_DATA),
            file_size: soft_limit(Resource::RLIMIT_FSIZE),
            cpu_seconds: soft_limit(Resource::RLIMIT_CPU),
            mappings: fs::read_to_string("/proc/sys/vm/max_map_count")
                .ok()
                .and_then(|text| text.trim().parse().ok()),
        }
    }
}

fn soft_limit(resource: Resource) -> Option<u64> {
    let (soft, _) = getrlimit(resource).ok()?;
    (soft != RLIM_INFINITY).then_some(soft)
}

/// Returns the number of processes and threads of this user that count for `RLIMIT_NPROC` and that `/proc` shows.
fn tasks_of_user() -> u64 {
    let Ok(entries) = fs::read_dir("/proc") else {
        return 0;
    };
    let user = geteuid().as_raw();
    entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok())
        .filter(|entry| entry.metadata().is_ok_and(|meta| meta.uid() == user))
        .filter_map(|entry| fs::read_dir(entry.path().join("task")).ok())
        .map(|tasks| tasks.count() as u64)
        .sum()
}

fn features() -> Vec<Feature> {
    platform::features()
        .into_iter()
        .map(|feature| {
            let (purpose, since, need) = use_of(feature.name);
            Feature {
                name: feature.name,
                purpose,
                since,
                need,
                state: feature.state,
            }
        })
        .collect()
}

/// Returns the purpose of a feature, the release of Linux that introduced it, and how much an engine needs it.
fn use_of(feature: &str) -> (&'static str, &'static str, Need) {
    match feature {
        "pidfd" => (
            "workers are watched and killed without ever hitting another process",
            "5.3",
            Need::Always,
        ),
        "close_range" => (
            "workers close the descriptors that they inherit and do not need",
            "5.9",
            Need::Always,
        ),
        "memfd" => (
            "arenas are made of it: memory without names, which the size of /dev/shm does not bound",
            "3.17",
            Need::Sealed,
        ),
        "MADV_COLLAPSE" => (
            "huge pages: new shared memory is ready several times sooner",
            "6.1",
            Need::Speed,
        ),
        "futex_waitv" => (
            "a thread that waits for any of several jobs is woken by their workers directly",
            "5.16",
            Need::Speed,
        ),
        "seccomp" => (
            "sandbox: forbids system calls that jobs have no use for",
            "4.14",
            Need::Sandbox,
        ),
        "Landlock" => (
            "sandbox: puts files, signals and sockets out of reach",
            "5.13",
            Need::Sandbox,
        ),
        "mseal" => (
            "sandbox: mappings of shared memory cannot be moved or replaced",
            "6.10",
            Need::Sandbox,
        ),
        _ => ("", "6.1", Need::Speed),
    }
}
