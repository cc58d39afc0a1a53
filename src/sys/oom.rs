//! Detecting kills by Linux' out-of-memory killer.

use std::fs;
use std::path::{Path, PathBuf};

use super::limits::groups;

/// Counts the processes that Linux has killed for lack of memory.
///
/// A memory control group counts the members that were killed, no matter whether the group, an ancestor or the machine
/// ran out of memory. So the counter of the innermost group that has one is read. If no group has a counter, the
/// machine's counter is read.
#[derive(Debug)]
pub struct OomCounter {
    path: PathBuf,
}

impl OomCounter {
    /// Finds the counter for this process and its children. `root` is `/` except in tests. Returns `None` if there is
    /// no readable counter.
    pub fn find(root: &Path) -> Option<OomCounter> {
        let files = groups(root).unwrap_or_default().into_iter().map(|group| {
            let name = match group.is_v2 {
                true => "memory.events",
                false => "memory.oom_control",
            };
            group.path.join(name)
        });
        files
            .chain([root.join("proc/vmstat")])
            .map(|path| OomCounter { path })
            .find(|counter| counter.read().is_some())
    }

    /// Returns the number of processes killed so far, if the counter can be read.
    pub fn read(&self) -> Option<u64> {
        let text = fs::read_to_string(&self.path).ok()?;
        text.lines().find_map(|line| {
            let count = line.strip_prefix("oom_kill ")?;
            count.trim().parse().ok()
        })
    }
}

/// Returns the number of bytes of private memory of process `pid`: the touched pages of its heap and stacks, without
/// shared memory and file pages. Returns `None` if the process has ended.
pub fn private_memory(root: &Path, pid: u32) -> Option<u64> {
    // Not `smaps_rollup`, which requires the rights of a debugger.
    let text = fs::read_to_string(root.join(format!("proc/{pid}/statm"))).ok()?;
    let mut pages = text.split_ascii_whitespace().skip(1).map(str::parse::<u64>);
    let (resident, shared) = (pages.next()?.ok()?, pages.next()?.ok()?);
    let private = resident.saturating_sub(shared);
    Some(private.saturating_mul(super::page_size() as u64))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::tests::tree;
    use super::*;

    const VMSTAT: (&str, &str) = ("proc/vmstat", "nr_free_pages 7\noom_kill 3\noom_kill_x 9\n");

    fn count(root: &tempfile::TempDir) -> Option<u64> {
        OomCounter::find(root.path())?.read()
    }

    #[test]
    fn the_innermost_group_with_a_counter_is_read() {
        let second = tree(&[
            VMSTAT,
            ("proc/self/cgroup", "0::/a/b\n"),
            (
                "sys/fs/cgroup/a/b/memory.events",
                "low 0\noom 5\noom_kill 4\n",
            ),
            ("sys/fs/cgroup/a/memory.events", "oom_kill 40\n"),
        ]);
        assert_eq!(count(&second), Some(4));
        fs::remove_file(second.path().join("sys/fs/cgroup/a/b/memory.events")).unwrap();
        assert_eq!(count(&second), Some(40), "no controller in the innermost");
        let first = tree(&[
            VMSTAT,
            ("proc/self/cgroup", "4:memory:/docker/abc\n0::/\n"),
            // A container: the path is the host's, but its own group is mounted as the root.
            (
                "sys/fs/cgroup/memory/memory.oom_control",
                "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
            ),
        ]);
        assert_eq!(count(&first), Some(2));
    }

    #[test]
    fn the_machine_counter_is_read_where_no_group_has_one() {
        let root = tree(&[VMSTAT, ("proc/self/cgroup", "0::/\n")]);
        assert_eq!(count(&root), Some(3));
        fs::remove_file(root.path().join("proc/vmstat")).unwrap();
        assert!(OomCounter::find(root.path()).is_none());
    }

    #[test]
    fn private_memory_excludes_shared_memory() {
        let page = super::super::page_size() as u64;
        let root = tree(&[("proc/7/statm", "1000 300 120 4 0 200 0\n")]);
        assert_eq!(private_memory(root.path(), 7), Some(180 * page));
        assert_eq!(private_memory(root.path(), 8), None);
        let more = std::hint::black_box(vec![1_u8; 64 << 20]);
        let own = private_memory(Path::new("/"), std::process::id()).unwrap();
        assert!(own >= more.len() as u64, "{own}");
    }
}
