//! Which cores a thread runs on.

use nix::errno::Errno;

use super::inject::allowed;

/// Cores that this floor can name.
const LIMIT: usize = libc::CPU_SETSIZE as usize;

/// The core that the calling thread runs on, at this moment.
#[inline]
pub fn current() -> u32 {
    // SAFETY: takes nothing and reads a number that the kernel keeps for the thread.
    u32::try_from(unsafe { libc::sched_getcpu() }).unwrap_or(u32::MAX)
}

/// Moves the calling thread to a core that is none of these, where it may run on one. It may come back later.
pub fn leave(cores: impl IntoIterator<Item = u32>) -> bool {
    let before = affinity();
    let mut set = before;
    for core in cores {
        if core as usize >= LIMIT {
            return false;
        }
        // SAFETY: `set` is an initialised set and `core` lies within it.
        unsafe { libc::CPU_CLR(core as usize, &mut set) };
    }
    // SAFETY: `set` is an initialised set.
    let others = unsafe { libc::CPU_COUNT(&set) };
    if others == 0 || set_affinity(&set).is_err() {
        return false;
    }
    // All there are: a set that is no more than what the container allows now would keep the thread there when that is allowed
    // more. Where the thread itself is kept to fewer, that shows, and stays.
    let all = set_affinity(&full_set()).map(|()| affinity());
    // SAFETY: both are initialised sets.
    let as_before = all.is_ok_and(|all| unsafe { libc::CPU_EQUAL(&all, &before) });
    if !as_before {
        // The kernel gave out this very set; failing to restore it could only cost speed.
        let _ = set_affinity(&before);
    }
    true
}

fn empty_set() -> libc::cpu_set_t {
    // SAFETY: a set is plain bits, and zeros are an empty one.
    unsafe { std::mem::zeroed() }
}

fn full_set() -> libc::cpu_set_t {
    let mut set = empty_set();
    // SAFETY: a set is plain bits, and ones are all cores.
    unsafe { std::ptr::write_bytes(&raw mut set, 0xff, 1) };
    set
}

fn affinity() -> libc::cpu_set_t {
    let mut set = empty_set();
    // SAFETY: `set` is a live set of exactly the size given; 0 means the calling thread. The call can only fail for a
    // kernel with more cores than the set has room for; the set stays empty then, and no two cores are found.
    unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) };
    set
}

fn set_affinity(set: &libc::cpu_set_t) -> nix::Result<()> {
    allowed()?;
    // SAFETY: `set` is an initialised set of exactly the size given; 0 means the calling thread.
    let answer = unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), set) };
    Errno::result(answer).map(drop)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
mod tests {
    use super::*;
    use crate::sys::asked;

    /// Keeps the calling thread on one core until dropped.
    struct Pinned(libc::cpu_set_t);

    impl Pinned {
        fn to(core: usize) -> nix::Result<Pinned> {
            let before = affinity();
            let mut set = empty_set();
            // SAFETY: `set` is an initialised set and `core` lies within it.
            unsafe { libc::CPU_SET(core, &mut set) };
            set_affinity(&set).map(|()| Pinned(before))
        }
    }

    impl Drop for Pinned {
        fn drop(&mut self) {
            let _ = set_affinity(&self.0);
        }
    }

    /// Two cores that the calling thread may run on.
    fn two_cores() -> Option<(usize, usize)> {
        let set = affinity();
        // SAFETY: `set` is an initialised set and the numbers lie within it.
        let mut allowed = (0..LIMIT).filter(|&core| unsafe { libc::CPU_ISSET(core, &set) });
        allowed.next().zip(allowed.next())
    }

    #[test]
    fn a_thread_leaves_its_core_and_may_come_back() {
        // On a thread of its own, so that no other test is moved.
        std::thread::spawn(|| {
            let Some((first, second)) = two_cores() else {
                return;
            };
            let before = affinity();
            drop(Pinned::to(first).unwrap());
            assert!(leave([first as u32]));
            assert_eq!(two_cores(), Some((first, second)));
            // SAFETY: both are initialised sets.
            assert!(unsafe { libc::CPU_EQUAL(&before, &affinity()) });
            let _pinned = Pinned::to(second).unwrap();
            assert!(!leave([second as u32]), "there is no other");
            assert!(!leave([u32::MAX]));
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_thread_that_is_kept_to_fewer_cores_stays_there() {
        std::thread::spawn(|| {
            let Some((first, _)) = two_cores() else {
                return;
            };
            let _pinned = Pinned::to(first).unwrap();
            let before = affinity();
            assert!(leave([]));
            // SAFETY: both are initialised sets.
            assert!(unsafe { libc::CPU_EQUAL(&before, &affinity()) });
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_thread_that_has_left_a_core_has_those_that_its_container_gets() {
        let Some((first, second)) = two_cores() else {
            return;
        };
        let group = format!("/sys/fs/cgroup/cpuset/arenite-test-{}", std::process::id());
        if std::fs::create_dir(&group).is_err() {
            return asked::not_tried(
                "a container that gets another core: control groups of version 1 and root",
            );
        }
        let write = |name: &str, text: &str| std::fs::write(format!("{group}/{name}"), text);
        let grown = std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                write("cpuset.mems", "0")?;
                write("cpuset.cpus", &first.to_string())?;
                write("tasks", &nix::unistd::gettid().to_string())?;
                assert!(leave([]));
                write("cpuset.cpus", &format!("{first},{second}"))?;
                std::io::Result::Ok(two_cores())
            });
            thread.join()
        });
        std::fs::remove_dir(&group).unwrap();
        assert!(grown.unwrap().unwrap().is_some());
    }
}
