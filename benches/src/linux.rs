//! Functions of Linux that the baselines and the runner need: cores, processor time, and free memory.

use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::{Pid, SysconfVar, sysconf};

use crate::BenchError;

/// Stands for the calling thread in calls such as `sched_setaffinity`.
const THIS_THREAD: Pid = Pid::from_raw(0);

/// Keeps the calling thread on one core until dropped.
#[derive(Debug)]
pub(crate) struct Pinned {
    before: CpuSet,
}

impl Pinned {
    /// Pins the calling thread to `core`.
    pub(crate) fn to(core: usize) -> Result<Self, BenchError> {
        let failed = |errno| BenchError::io(format!("pin a thread to core {core}"), errno);
        let before = sched_getaffinity(THIS_THREAD).map_err(failed)?;
        let mut only = CpuSet::new();
        only.set(core).map_err(failed)?;
        sched_setaffinity(THIS_THREAD, &only).map_err(failed)?;
        Ok(Self { before })
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // Linux has returned this set, so it accepts it. If restoring fails, that only costs speed.
        let _ = sched_setaffinity(THIS_THREAD, &self.before);
    }
}

/// Returns two processors on which the calling thread may run. Prefers two that are not hardware threads of the same
/// core.
pub(crate) fn two_cores() -> Option<(usize, usize)> {
    let allowed = sched_getaffinity(THIS_THREAD).ok()?;
    let mut cores = (0..CpuSet::count()).filter(|&core| allowed.is_set(core) == Ok(true));
    let first = cores.next()?;
    let rest: Vec<usize> = cores.collect();
    let siblings = fs::read_to_string(format!(
        "/sys/devices/system/cpu/cpu{first}/topology/thread_siblings_list"
    ))
    .unwrap_or_default();
    let separate = rest.iter().find(|core| !is_in_list(&siblings, **core));
    separate.or(rest.first()).map(|&second| (first, second))
}

/// Returns whether a list such as `0-3,8` names `core`.
fn is_in_list(list: &str, core: usize) -> bool {
    list.trim().split(',').any(|part| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let bounds = (from.parse::<usize>(), to.parse::<usize>());
        matches!(bounds, (Ok(from), Ok(to)) if (from..=to).contains(&core))
    })
}

/// Returns the processor time that all threads of process `pid` have used so far, with a resolution of nanoseconds
/// rather than ticks.
pub(crate) fn cpu_time(pid: i32) -> Result<Duration, BenchError> {
    let failed = |errno| BenchError::io(format!("read the processor time of process {pid}"), errno);
    let clock = clock_getcpuclockid(Pid::from_raw(pid)).map_err(failed)?;
    clock_gettime(clock).map(Duration::from).map_err(failed)
}

/// Returns the number of bytes of private memory of process `pid`: the touched parts of its heap and stacks, without
/// shared memory and file pages. Returns `None` if the process has ended.
pub(crate) fn private_memory(pid: i32) -> Option<u64> {
    // Not `smaps_rollup`, which only a debugger may read.
    let text = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let mut pages = text.split_ascii_whitespace().skip(1).map(str::parse::<u64>);
    let (resident, shared) = (pages.next()?.ok()?, pages.next()?.ok()?);
    let page = u64::try_from(sysconf(SysconfVar::PAGE_SIZE).ok()??).ok()?;
    Some(resident.saturating_sub(shared).saturating_mul(page))
}

/// Returns the number of bytes of free memory, with regard to the limits of containers. `root` is `/` except in tests.
pub(crate) fn free_memory(root: &Path) -> u64 {
    let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
    let meminfo = read(&root.join("proc/meminfo"));
    let machine = field(&meminfo, "MemAvailable:").map_or(u64::MAX, |kib| kib.saturating_mul(1024));
    let groups = read(&root.join("proc/self/cgroup"));
    groups
        .lines()
        .flat_map(|line| levels(root, line))
        .filter_map(|group| group.free())
        .fold(machine, u64::min)
}

/// The folder of a memory control group, and the version of its interface.
struct MemoryGroup {
    folder: std::path::PathBuf,
    is_version_2: bool,
}

impl MemoryGroup {
    /// Returns the number of bytes that this group may still use, if the group has a limit. Page cache counts as free:
    /// Linux drops it before it refuses memory.
    fn free(&self) -> Option<u64> {
        let (limit, usage, caches) = match self.is_version_2 {
            true => (
                "memory.max",
                "memory.current",
                ["inactive_file", "active_file"],
            ),
            false => (
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
                ["total_inactive_file", "total_active_file"],
            ),
        };
        let read = |file: &str| fs::read_to_string(self.folder.join(file)).ok();
        // If there is no limit, version 2 says "max", which does not parse; version 1 says almost 2^63.
        let limit: u64 = read(limit)?.trim().parse().ok()?;
        let used: u64 = read(usage)?.trim().parse().ok()?;
        let stat = read("memory.stat").unwrap_or_default();
        let cached: u64 = caches.iter().filter_map(|cache| field(&stat, cache)).sum();
        Some(limit.saturating_sub(used.saturating_sub(cached)))
    }
}

/// Returns the memory control groups that a line of `/proc/self/cgroup` names, from the group itself up to the root.
fn levels(root: &Path, line: &str) -> Vec<MemoryGroup> {
    let mut parts = line.splitn(3, ':');
    let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next())
    else {
        return Vec::new();
    };
    let is_version_2 = controllers.is_empty();
    let mount = match is_version_2 {
        true => root.join("sys/fs/cgroup"),
        false if controllers.split(',').any(|name| name == "memory") => {
            root.join("sys/fs/cgroup/memory")
        }
        false => return Vec::new(),
    };
    // In a container the group's own folder is often mounted as the root, while the path is that of the host. So a
    // folder that does not exist counts as having no limit, and the mount point itself is always read.
    Path::new(path.trim_start_matches('/'))
        .ancestors()
        .map(|level| MemoryGroup {
            folder: mount.join(level),
            is_version_2,
        })
        .collect()
}

/// Returns the number after `name` in a file of lines "name value".
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next()? == name).then(|| words.next()?.parse().ok())?
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn lists_of_cores_are_parsed() {
        assert!(is_in_list("0-3,8\n", 2) && is_in_list("0-3,8\n", 8) && is_in_list("5", 5));
        assert!(!is_in_list("0-3,8\n", 4) && !is_in_list("", 0));
    }

    #[test]
    fn pinning_ends_when_the_value_is_dropped() {
        // On a thread of its own, so that no other test is pinned.
        std::thread::spawn(|| {
            let Some((first, second)) = two_cores() else {
                return;
            };
            assert_ne!(first, second);
            let pinned = Pinned::to(second).unwrap();
            assert_eq!(two_cores(), None);
            drop(pinned);
            assert_eq!(two_cores(), Some((first, second)));
        })
        .join()
        .unwrap();
    }

    #[test]
    fn processor_time_grows_with_work() {
        let pid = std::process::id().cast_signed();
        let before = cpu_time(pid).unwrap();
        let mut x = 1_u64;
        while cpu_time(pid).unwrap() <= before {
            x = std::hint::black_box(x.wrapping_mul(3));
        }
        // Above every process number that Linux assigns.
        assert!(cpu_time(1 << 22 | 1).is_err());
    }

    #[test]
    fn private_memory_is_at_least_what_the_heap_holds() {
        let heap = std::hint::black_box(vec![1_u8; 64 << 20]);
        let own = private_memory(std::process::id().cast_signed()).unwrap();
        assert!(own >= heap.len() as u64, "{own}");
    }

    #[test]
    fn the_smallest_limit_bounds_the_free_memory() {
        const MEMINFO: (&str, &str) =
            ("proc/meminfo", "MemTotal: 9000 kB\nMemAvailable: 8000 kB\n");
        let machine = tree(&[MEMINFO, ("proc/self/cgroup", "0::/\n")]);
        assert_eq!(free_memory(machine.path()), 8000 * 1024);
        let second = tree(&[
            MEMINFO,
            ("proc/self/cgroup", "0::/a/b\n"),
            ("sys/fs/cgroup/a/b/memory.max", "max\n"),
            ("sys/fs/cgroup/a/memory.max", "5000\n"),
            ("sys/fs/cgroup/a/memory.current", "3000\n"),
            (
                "sys/fs/cgroup/a/memory.stat",
                "anon 1\ninactive_file 700\nactive_file 300\n",
            ),
        ]);
        assert_eq!(free_memory(second.path()), 3000);
        let first = tree(&[
            MEMINFO,
            ("proc/self/cgroup", "4:cpu,memory:/docker/abc\n3:pids:/\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "5000\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "2000\n"),
        ]);
        assert_eq!(free_memory(first.path()), 3000);
    }
}
