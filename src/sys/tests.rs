//! Tests of this layer with real files, maps and processes.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fs;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::limits::{
    GroupLimit, Memory, UNKNOWN_MEMORY, memory_available, memory_group, memory_now, task_group,
};
use super::process::{GROUP_SIGNALS, exit_now};
use super::*;

/// The environment variable with a test child's task.
const ROLE: &str = "ARENITE_SYS_TEST_CHILD";
/// The environment variable with the number of its first inherited descriptor.
const FIRST: &str = "ARENITE_SYS_TEST_FIRST";
/// Time limit: a test that waits this long fails.
const LONG: Duration = Duration::from_secs(30);

/// Runs in a child before libtest does; does nothing in a parent.
#[used]
#[unsafe(link_section = ".init_array")]
static CHILD: extern "C" fn() = child;

extern "C" fn child() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    let code = std::panic::catch_unwind(|| act(&role)).unwrap_or(101);
    std::process::exit(code);
}

fn act(role: &str) -> i32 {
    let first: RawFd = std::env::var(FIRST).unwrap().parse().unwrap();
    // SAFETY: the parent passes these numbers to this process alone, which has just started.
    let inherited = |n: RawFd| unsafe { OwnedFd::from_raw_fd(first + n) };
    match role {
        "exit" => 7,
        "busy" | "stopped" => {
            let (watch, ready) = (inherited(0), inherited(1));
            let _armed = kill_me_on_hangup(watch.as_fd()).unwrap();
            nix::unistd::write(&ready, b"r").unwrap();
            if role == "stopped" {
                nix::sys::signal::raise(Signal::SIGSTOP).unwrap();
            }
            loop {
                std::hint::spin_loop();
            }
        }
        "inherit" => {
            let (pipe, other) = (inherited(0), inherited(1));
            let keep = [pipe.as_raw_fd(), other.as_raw_fd()];
            close_all_except(&keep).unwrap();
            let open: Vec<RawFd> = (3..1024)
                .filter(|&fd| fs::read_link(format!("/proc/self/fd/{fd}")).is_ok())
                .collect();
            assert_eq!(open, keep);
            let mask = nix::sys::signal::SigSet::thread_get_mask().unwrap();
            assert!(!mask.contains(Signal::SIGUSR1), "it may come at any time");
            // Blocked until `ignore_group_signals`.
            for signal in GROUP_SIGNALS {
                assert!(mask.contains(signal), "{signal}");
                nix::sys::signal::raise(signal).unwrap();
            }
            ignore_group_signals().unwrap();
            let mask = nix::sys::signal::SigSet::thread_get_mask().unwrap();
            assert_eq!(mask, nix::sys::signal::SigSet::empty());
            for signal in GROUP_SIGNALS {
                nix::sys::signal::raise(signal).unwrap();
            }
            // Before `main`, `std::env::args` has them with glibc only.
            assert_eq!(fs::read("/proc/self/cmdline").unwrap(), b"arenite-worker\0");
            set_pdeathsig(Signal::SIGKILL).unwrap();
            set_dumpable(false).unwrap();
            nix::unistd::write(&other, getppid().to_string().as_bytes()).unwrap();
            0
        }
        "numbers" => match unshare(CloneFlags::CLONE_NEWPID) {
            Ok(()) => end_of_copy(copy(None, a_number_is_used_again)),
            Err(_) => NOT_TRIED,
        },
        role => panic!("unknown role {role}"),
    }
}

/// Exit code of a child whose test is not possible here.
const NOT_TRIED: i32 = 77;

/// Forks this process, which has one thread; the copy gets process id `number` if given, and exits with the result of
/// `body`.
fn copy(number: Option<Pid>, body: fn() -> i32) -> Pid {
    let numbers: Vec<_> = number.iter().map(|number| number.as_raw()).collect();
    let ends_with = libc::SIGCHLD as u64;
    // SAFETY: zeros mean that an option is not used.
    let mut asked: libc::clone_args = unsafe { std::mem::zeroed() };
    (asked.exit_signal, asked.set_tid_size) = (ends_with, numbers.len() as u64);
    asked.set_tid = if numbers.is_empty() {
        0
    } else {
        numbers.as_ptr() as u64
    };
    // SAFETY: the copy shares no memory, and so needs no stack; the list of numbers lives through the call.
    let copy = unsafe { libc::syscall(libc::SYS_clone3, &raw const asked, size_of_val(&asked)) };
    if copy == 0 {
        let code = std::panic::catch_unwind(body).unwrap_or(101);
        exit_now(code);
    }
    Pid::from_raw(Errno::result(copy).unwrap() as i32)
}

fn end_of_copy(copy: Pid) -> i32 {
    match PidFd::open(copy).unwrap().wait_exit().unwrap() {
        Exit::Code(code) => code,
        other => panic!("{other:?}"),
    }
}

fn pause() -> i32 {
    loop {
        // SAFETY: waits for a signal; every signal ends this process.
        unsafe { libc::pause() };
    }
}

/// Runs as the first process of a namespace, in which nothing else takes process ids.
fn a_number_is_used_again() -> i32 {
    let process = PidFd::open(copy(None, pause)).unwrap();
    process.kill(Signal::SIGKILL).unwrap();
    assert_eq!(process.wait_exit().unwrap(), Exit::Signal(libc::SIGKILL));
    let bystander = copy(Some(process.pid()), pause);
    assert_eq!(bystander, process.pid());
    process.kill(Signal::SIGKILL).unwrap();
    assert_eq!(process.try_exit().unwrap(), Some(Exit::Unknown));
    // The exit status names SIGUSR1, so the earlier SIGKILL did not reach it.
    let bystander = PidFd::open(bystander).unwrap();
    bystander.kill(Signal::SIGUSR1).unwrap();
    assert_eq!(bystander.wait_exit().unwrap(), Exit::Signal(libc::SIGUSR1));
    0
}

fn start(role: &str, fds: &[std::os::fd::BorrowedFd<'_>]) -> PidFd {
    let program = process::Program::this(process::environment(|_| true)).unwrap();
    let first = first_target_fd(&program, fds);
    let env = [(ROLE, role.to_owned()), (FIRST, first.to_string())];
    PidFd::open(spawn(&program, &env, fds, first, None).unwrap()).unwrap()
}

/// Waits for the end of a child, and kills it after the time limit.
fn end(child: &PidFd) -> Exit {
    let poller = Poller::new().unwrap();
    poller.add(child.as_fd(), 1).unwrap();
    if poller.wait(Some(LONG)).unwrap().is_empty() {
        child.kill(Signal::SIGKILL).unwrap();
        panic!("child {} did not end: {:?}", child.pid(), child.wait_exit());
    }
    child.wait_exit().unwrap()
}

#[test]
fn exits_and_signals_are_told_apart() {
    let child = start("exit", &[]);
    assert_eq!(end(&child), Exit::Code(7));
    child.kill(Signal::SIGKILL).unwrap();

    let ready = WatchPipe::new().unwrap();
    let watch = WatchPipe::new().unwrap();
    let child = start(
        "busy",
        &[watch.read.as_fd(), ready.write.as_ref().unwrap().as_fd()],
    );
    assert_eq!(child.try_exit().unwrap(), None);
    child.kill(Signal::SIGUSR1).unwrap();
    assert_eq!(end(&child), Exit::Signal(libc::SIGUSR1));
    assert_eq!(
        child.try_exit().unwrap(),
        Some(Exit::Unknown),
        "taken already"
    );
}

#[test]
fn a_process_that_reuses_a_dead_ones_number_gets_none_of_its_signals() {
    match end(&start("numbers", &[])) {
        Exit::Code(NOT_TRIED) => asked::not_tried("a namespace of process numbers needs root"),
        other => assert_eq!(other, Exit::Code(0)),
    }
}

#[test]
fn a_closed_pipe_kills_a_busy_child_and_a_stopped_one() {
    for role in ["busy", "stopped"] {
        let ready = WatchPipe::new().unwrap();
        let watch = WatchPipe::new().unwrap();
        let child = start(
            role,
            &[watch.read.as_fd(), ready.write.as_ref().unwrap().as_fd()],
        );
        drop(ready.write);
        nix::unistd::read(&ready.read, &mut [0]).unwrap();
        if role == "stopped" {
            use nix::sys::wait::{Id, WaitPidFlag, waitid};
            waitid(Id::PIDFd(child.as_fd()), WaitPidFlag::WSTOPPED).unwrap();
        }
        assert_eq!(child.try_exit().unwrap(), None);
        drop(watch.write);
        assert_eq!(end(&child), Exit::Signal(libc::SIGKILL), "{role}");
    }
}

#[test]
fn a_pipe_closed_before_it_is_watched_is_an_error() {
    let watch = WatchPipe::new().unwrap();
    drop(watch.write);
    let error = kill_me_on_hangup(watch.read.as_fd()).unwrap_err();
    assert_eq!(error.errno(), Errno::EPIPE);
}

#[test]
fn a_child_inherits_only_what_it_is_given() {
    let answer = WatchPipe::new().unwrap();
    let event = EventFd::new().unwrap();
    let child = start(
        "inherit",
        &[event.as_fd(), answer.write.as_ref().unwrap().as_fd()],
    );
    drop(answer.write);
    assert_eq!(end(&child), Exit::Code(0));
    let mut text = [0; 32];
    let len = nix::unistd::read(&answer.read, &mut text).unwrap();
    assert_eq!(text[..len], *std::process::id().to_string().as_bytes());
}

#[test]
fn a_read_only_description_never_gives_a_writable_map() {
    let segment = Segment::create_memfd("read-only", false).unwrap();
    segment.set_len(8192).unwrap();
    let own = Segment::reopen(segment.as_raw_fd(), Access::ReadOnly).unwrap();
    let error = Map::new(&own, 0, 8192, Prot::ReadWrite, true).unwrap_err();
    assert_eq!(error.errno(), Errno::EACCES);
    for aligned in [false, true] {
        let map = Map::new(&own, 0, 8192, Prot::Read, aligned).unwrap();
        let error = map.protect(0..4096, Prot::ReadWrite).unwrap_err();
        assert_eq!(error.errno(), Errno::EACCES);
        assert_eq!(mapped_file(map.base()), Some(own.stat().unwrap().identity));
        assert!(map.at(8192, 0).is_some());
        assert_eq!(map.at(8192, 1), None);
        assert_eq!(map.at(1, usize::MAX), None);
    }
}

#[test]
fn a_sealed_segment_grows_and_frees_pages_but_is_never_truncated() {
    let segment = Segment::create_memfd("sealed", true).unwrap();
    segment.set_len(1 << 20).unwrap();
    segment.allocate(0..65536).unwrap();
    assert_eq!(segment.stat().unwrap().blocks, 65536);
    assert_eq!(segment.set_len(0).unwrap_err().errno(), Errno::EPERM);
    let other = Segment::reopen(segment.as_raw_fd(), Access::ReadWrite).unwrap();
    assert_eq!(other.set_len(4096).unwrap_err().errno(), Errno::EPERM);
    segment.punch(0..65536).unwrap();
    assert_eq!(segment.stat().unwrap().blocks, 0);
    segment.set_len(2 << 20).unwrap();
}

#[test]
fn memory_for_a_truncated_part_does_not_bring_it_back() {
    let segment = Segment::create_memfd("truncated", false).unwrap();
    segment.set_len(1 << 20).unwrap();
    segment.allocate(0..65536).unwrap();
    let other = Segment::reopen(segment.as_raw_fd(), Access::ReadWrite).unwrap();
    other.set_len(5001).unwrap();
    segment.allocate(0..65536).unwrap();
    segment.allocate(500_000..600_000).unwrap();
    assert_eq!(segment.stat().unwrap().len, 5001);
}

#[test]
fn names_are_exclusive_and_locks_belong_to_descriptions() {
    let name = format!("/arenite-sys-test-{}", std::process::id());
    let segment = Segment::create_named(&name).unwrap();
    assert_eq!(
        Segment::create_named(&name).unwrap_err().errno(),
        Errno::EEXIST
    );
    let other = Segment::open_named(&name, Access::ReadOnly).unwrap();
    assert_eq!(other.stat().unwrap().nlink, 1);
    assert!(segment.try_lock().unwrap());
    assert!(
        segment.try_lock().unwrap(),
        "taken twice by one description"
    );
    assert!(!other.try_lock().unwrap());
    assert!(other.is_locked().unwrap());
    drop(segment);
    assert!(!other.is_locked().unwrap());
    assert!(other.try_lock().unwrap());
    Segment::unlink(&name).unwrap();
    assert_eq!(other.stat().unwrap().nlink, 0);
    let error = Segment::open_named(&name, Access::ReadOnly).unwrap_err();
    assert_eq!(error.errno(), Errno::ENOENT);
    let text = error.to_string();
    assert!(
        text.contains("shm_open") && text.contains(&name) && text.contains("ENOENT"),
        "{text}"
    );
}

#[test]
fn large_maps_are_aligned_and_may_extend_beyond_the_segment() {
    let segment = Segment::create_memfd("aligned", false).unwrap();
    let map = Map::new(&segment, 0, 64 << 20, Prot::ReadWrite, true).unwrap();
    assert_eq!(map.base().as_ptr() as usize % HUGE, 0);
    segment.set_len(HUGE as u64).unwrap();
    segment.allocate(0..4096).unwrap();
    // SAFETY: byte 100 is in the page allocated just now, in a segment that only this test knows.
    unsafe { map.base().add(100).write(9) };
    match map.collapse(0..HUGE) {
        Ok(()) => assert_eq!(segment.stat().unwrap().blocks, HUGE as u64),
        // No free huge page, or Linux before 6.1: best effort.
        Err(error) => eprintln!("{error}"),
    }
    // SAFETY: as above.
    assert_eq!(unsafe { map.base().add(100).read() }, 9);
}

/// The word at the start of a map of a segment that is longer than a page.
fn word(map: &Map) -> &AtomicU32 {
    // SAFETY: the page is committed and mapped while `map` lives, and only ever accessed as this atomic.
    unsafe { &*map.base().as_ptr().cast::<AtomicU32>() }
}

#[test]
fn a_futex_wakes_through_another_read_only_map() {
    let segment = Segment::create_memfd("futex", false).unwrap();
    segment.set_len(4096).unwrap();
    segment.allocate(0..4096).unwrap();
    let writable = Map::new(&segment, 0, 4096, Prot::ReadWrite, false).unwrap();
    let read_only = Map::new(&segment, 0, 4096, Prot::Read, false).unwrap();
    assert_eq!(
        futex::wait(word(&read_only), 1, Some(LONG)),
        futex::Wait::Changed
    );
    let short = Some(Duration::from_millis(1));
    assert_eq!(
        futex::wait(word(&read_only), 0, short),
        futex::Wait::TimedOut
    );
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while word(&read_only).load(Ordering::Acquire) == 0 {
                let end = futex::wait(word(&read_only), 0, Some(LONG));
                assert_ne!(end, futex::Wait::TimedOut);
            }
        });
        // Retry until the other thread sleeps; woken spuriously, it sleeps again.
        while futex::wake(word(&writable), 1) == 0 {
            std::thread::yield_now();
        }
        word(&writable).store(1, Ordering::Release);
        let _ = futex::wake(word(&writable), u32::MAX);
    });
}

#[test]
fn a_thread_sleeps_on_several_words_until_one_of_them_wakes_it() {
    if !futex::has_wait_any() {
        eprintln!("skipped: Linux has no futex_waitv here");
        return;
    }
    let segment = Segment::create_memfd("futex", false).unwrap();
    segment.set_len(4096).unwrap();
    segment.allocate(0..4096).unwrap();
    let writable = Map::new(&segment, 0, 4096, Prot::ReadWrite, false).unwrap();
    let read_only = Map::new(&segment, 0, 4096, Prot::Read, false).unwrap();
    let own = AtomicU32::new(5);
    let shared = word(&read_only);
    let short = Some(Duration::from_millis(1));
    for (holds, end) in [
        ([0, 5], futex::Wait::TimedOut),
        ([1, 5], futex::Wait::Changed),
        ([0, 6], futex::Wait::Changed),
    ] {
        let words = [(shared, holds[0]), (&own, holds[1])];
        assert_eq!(futex::wait_any(&words, short), end, "{holds:?}");
    }
    // Without a limit, and with one beyond every clock.
    for (woken, limit) in [(&own, None), (word(&writable), Some(Duration::MAX))] {
        std::thread::scope(|scope| {
            let sleeper = scope.spawn(|| futex::wait_any(&[(shared, 0), (&own, 5)], limit));
            // Retry until the other thread sleeps.
            while futex::wake(woken, 1) == 0 {
                std::thread::yield_now();
            }
            assert_eq!(sleeper.join().unwrap(), futex::Wait::Woken);
        });
    }
    let many = vec![(&own, 5); futex::MAX_WORDS];
    assert_eq!(futex::wait_any(&many, short), futex::Wait::TimedOut);
}

#[test]
fn an_event_fd_stays_readable_until_cleared() {
    let (bell, other) = (EventFd::new().unwrap(), EventFd::new().unwrap());
    let poller = Poller::new().unwrap();
    poller.add(bell.as_fd(), 5).unwrap();
    poller.add(other.as_fd(), 6).unwrap();
    assert!(poller.wait(Some(Duration::ZERO)).unwrap().is_empty());
    bell.ring().unwrap();
    bell.ring().unwrap();
    assert_eq!(poller.wait(Some(LONG)).unwrap(), [5]);
    assert!(bell.clear().unwrap());
    assert!(!bell.clear().unwrap());
    other.ring().unwrap();
    poller.remove(other.as_fd()).unwrap();
    assert!(poller.wait(Some(Duration::ZERO)).unwrap().is_empty());
}

/// A temporary root folder with these files.
pub(super) fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    root
}

/// Runs `body` on a thread with a full descriptor table of its own, which can open nothing.
pub(crate) fn without_descriptors(body: impl FnOnce() + Send) {
    /// Some systems allow a thousand times as many.
    const MAX: usize = 1 << 20;
    std::thread::scope(|threads| {
        let thread = threads.spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_FILES).unwrap();
            let null = fs::File::open("/dev/null").unwrap();
            let copies = std::iter::repeat_with(|| null.try_clone());
            let copies: Vec<_> = copies.take(MAX).map_while(Result::ok).collect();
            if copies.len() == MAX {
                return asked::not_tried(
                    "a table of descriptors that is full: it may have too many",
                );
            }
            body();
        });
        thread.join().unwrap();
    });
}

const MIB: u64 = 1 << 20;
const MEMINFO: (&str, &str) = (
    "proc/meminfo",
    "MemTotal: 8388608 kB\nMemFree: 100 kB\nMemAvailable: 4194304 kB\n",
);

#[test]
fn the_machine_limits_memory_without_a_container() {
    let root = tree(&[MEMINFO]);
    let expected = Memory {
        limit: 8192 * MIB,
        contained: false,
        available: 4096 * MIB,
        available_contained: false,
    };
    assert_eq!(memory_available(root.path()), expected);
    assert_eq!(memory_group(root.path()), None);
}

#[test]
fn an_unreadable_limit_does_not_count_as_unlimited() {
    let limit = ("sys/fs/cgroup/a/memory.max", "536870912\n");
    let root = tree(&[MEMINFO, ("proc/self/cgroup", "0::/a\n"), limit]);
    assert_eq!(memory_now(root.path()).unwrap().limit, 512 * MIB);
    without_descriptors(|| assert_eq!(memory_now(root.path()), None));
    let nothing = memory_now(tempfile::tempdir().unwrap().path()).unwrap();
    assert_eq!(nothing.limit, UNKNOWN_MEMORY, "where nothing says more");
}

#[test]
fn the_tightest_version_2_group_counts() {
    let group = "sys/fs/cgroup/a/b/memory.max";
    let root = tree(&[
        MEMINFO,
        ("proc/self/cgroup", "0::/a/b\n"),
        (group, "max\n"),
        ("sys/fs/cgroup/a/memory.max", "536870912\n"),
        ("sys/fs/cgroup/a/memory.current", "314572800\n"),
        (
            "sys/fs/cgroup/a/memory.stat",
            "anon 1\ninactive_file 52428800\nactive_file 52428800\nshmem 9\n",
        ),
    ]);
    let expected = Memory {
        limit: 512 * MIB,
        contained: true,
        available: 312 * MIB,
        available_contained: true,
    };
    assert_eq!(memory_available(root.path()), expected);
    let tightest = GroupLimit {
        group: root.path().join("sys/fs/cgroup/a"),
        version: 2,
        limit: 512 * MIB,
        used: 200 * MIB,
    };
    assert_eq!(memory_group(root.path()), Some(tightest));
    fs::write(root.path().join(group), "104857600").unwrap();
    assert_eq!(memory_available(root.path()).limit, 100 * MIB);
}

#[test]
fn a_version_1_group_counts_even_if_its_path_is_the_hosts() {
    let root = tree(&[
        MEMINFO,
        (
            "proc/self/cgroup",
            "7:cpu:/x\n4:memory:/docker/abc\n0::/\nnonsense\n",
        ),
        ("sys/fs/cgroup/memory/memory.limit_in_bytes", "1073741824"),
        ("sys/fs/cgroup/memory/memory.usage_in_bytes", "1073741824"),
        (
            "sys/fs/cgroup/memory/memory.stat",
            "inactive_file 7\ntotal_inactive_file 524288\ntotal_active_file 524288\n",
        ),
    ]);
    let expected = Memory {
        limit: 1024 * MIB,
        contained: true,
        available: MIB,
        available_contained: true,
    };
    assert_eq!(memory_available(root.path()), expected);
    let found = memory_group(root.path()).unwrap();
    assert_eq!(found.group, root.path().join("sys/fs/cgroup/memory"));
    assert_eq!(
        (found.version, found.limit, found.used),
        (1, 1024 * MIB, 1023 * MIB)
    );
    // Version 1's number for "no limit".
    let limit = "sys/fs/cgroup/memory/memory.limit_in_bytes";
    fs::write(root.path().join(limit), "9223372036854771712").unwrap();
    assert_eq!(memory_group(root.path()), None);
}

#[test]
fn the_group_that_allows_the_fewest_more_processes_counts() {
    let inner = "sys/fs/cgroup/a/b/pids.max";
    let root = tree(&[
        ("proc/self/cgroup", "0::/a/b\n"),
        (inner, "max\n"),
        ("sys/fs/cgroup/a/b/pids.current", "7\n"),
        ("sys/fs/cgroup/a/pids.max", "100\n"),
        ("sys/fs/cgroup/a/pids.current", "60\n"),
    ]);
    let nearest = |path: &str, limit, used| GroupLimit {
        group: root.path().join(path),
        version: 2,
        limit,
        used,
    };
    let outer = nearest("sys/fs/cgroup/a", 100, 60);
    assert_eq!(task_group(root.path()), Some(outer));
    fs::write(root.path().join(inner), "20\n").unwrap();
    let inner = nearest("sys/fs/cgroup/a/b", 20, 7);
    assert_eq!(task_group(root.path()), Some(inner));

    let root = tree(&[
        (
            "proc/self/cgroup",
            "9:memory:/x\n5:pids:/docker/abc\n0::/\n",
        ),
        ("sys/fs/cgroup/memory/pids.max", "1"),
        ("sys/fs/cgroup/pids/pids.max", "64\n"),
        ("sys/fs/cgroup/pids/pids.current", "70\n"),
    ]);
    let first = GroupLimit {
        group: root.path().join("sys/fs/cgroup/pids"),
        version: 1,
        limit: 64,
        used: 70,
    };
    assert_eq!(task_group(root.path()), Some(first));
    let root = tree(&[("proc/self/cgroup", "0::/\n")]);
    assert_eq!(task_group(root.path()), None);
}

#[test]
fn limits_of_this_process_can_be_read() {
    assert!(limits::cores() >= 1);
    let space = limits::shm_space(Path::new("/")).unwrap();
    assert!(space.size >= space.free);
    assert!(limits::shm_space(Path::new("/no-such-place")).is_err());
    let memory = memory_available(Path::new("/"));
    assert!(memory.available <= memory.limit);
}
