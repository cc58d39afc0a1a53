//! Tests of attaching, names and full file systems, with real processes.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::*;
use crate::sys::{self, Access, Exit, PidFd, Poller, WatchPipe};

const ROLE: &str = "ARENITE_ARENA_TEST_CHILD";
const FIRST: &str = "ARENITE_ARENA_TEST_FIRST";
const GIVEN: &str = "ARENITE_ARENA_TEST_GIVEN";
const LONG: Duration = Duration::from_secs(60);

/// Runs in a child before libtest does; does nothing in a parent.
#[used]
#[unsafe(link_section = ".init_array")]
static CHILD: extern "C" fn() = child;

extern "C" fn child() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    let given = std::env::var(GIVEN).unwrap_or_default();
    let first = std::env::var(FIRST).map_or(0, |first| first.parse().unwrap_or(0));
    sys::set_dumpable(false).ok();
    let act = || match role.as_str() {
        "worker" => worker(first, &given),
        "holder" => holder(first, &given),
        "full" => full(),
        role => panic!("unknown role {role}"),
    };
    std::process::exit(std::panic::catch_unwind(act).map_or(101, |()| 0));
}

fn start(role: &str, fds: &[std::os::fd::BorrowedFd<'_>], given: &str) -> PidFd {
    let program = sys::process::Program::this(sys::process::environment(|_| true)).unwrap();
    // The inherited numbers are above all numbers that the child's own descriptors get, because the child checks which
    // inherited descriptors are open.
    let first = sys::first_target_fd(&program, fds) + 64;
    let env = [
        (ROLE, role.to_owned()),
        (FIRST, first.to_string()),
        (GIVEN, given.to_owned()),
    ];
    PidFd::open(sys::spawn(&program, &env, fds, first, None).unwrap()).unwrap()
}

fn end(child: &PidFd) -> Exit {
    let poller = Poller::new().unwrap();
    poller.add(child.as_fd(), 1).unwrap();
    if poller.wait(Some(LONG)).unwrap().is_empty() {
        child.kill(Signal::SIGKILL).unwrap();
        panic!("child {} did not end: {:?}", child.pid(), child.wait_exit());
    }
    child.wait_exit().unwrap()
}

fn extents(text: &str) -> Vec<Extent> {
    text.split(';')
        .map(|part| {
            let numbers: Vec<u64> = part.split(',').map(|n| n.parse().unwrap()).collect();
            Extent {
                at: Offset::new(numbers[0] as u16, numbers[1]),
                len: numbers[2],
            }
        })
        .collect()
}

fn text(blocks: &[&Block]) -> String {
    let parts: Vec<String> = blocks
        .iter()
        .map(|block| block.extent())
        .map(|Extent { at, len }| format!("{},{},{len}", at.region(), at.offset()))
        .collect();
    parts.join(";")
}

/// Reads the input, writes to its grant, a lent block and the control segment, and finally to the input.
fn worker(first: i32, given: &str) {
    let given = extents(given);
    let fds = (0..4)
        // SAFETY: the parent passes these numbers to this process alone, which has just started.
        .map(|n| unsafe { OwnedFd::from_raw_fd(first + n) })
        .collect();
    let view = View::attach(AttachSpec {
        fds,
        own: 1,
        reservation: 64 << 20,
        lend: true,
    })
    .unwrap();
    let open = |n: &i32| std::fs::read_link(format!("/proc/self/fd/{}", first + n)).is_ok();
    // Of the inherited descriptors, those of the other regions stay open, since their arrays may be lent to this
    // process.
    assert_eq!((0..4).filter(open).collect::<Vec<_>>(), [1, 3]);
    let (input, grant, lent) = (given[0], given[1], given[2]);
    let read = view.pointer(input).unwrap();
    // SAFETY: the input is mapped, and the parent touches no block while it waits for this process.
    let input_byte = unsafe { read.read_volatile() };
    assert_eq!(input_byte, 7);
    for bad in [u64::MAX, 65 << 20] {
        assert!(view.pointer(Extent { len: bad, ..input }).is_err());
    }
    let beyond = Extent {
        at: Offset::new(2, 0),
        len: 1,
    };
    assert_eq!(view.pointer(beyond).unwrap_err().committed, 0);

    let own = view.pointer(grant).unwrap();
    let range = grant.at.offset()..grant.at.offset() + grant.len;
    view.open_own(range.clone()).unwrap();
    // SAFETY: the grant was opened just above and belongs to this worker alone.
    unsafe { own.write_bytes(8, grant.len as usize) };
    view.close_own(range).unwrap();

    let writable = view.lend_open(lent).unwrap();
    // SAFETY: the lent pages were opened just above and belong to this worker alone until it closes them.
    unsafe { writable.write_bytes(9, lent.len as usize) };
    view.lend_close(lent).unwrap();
    let outside = Extent {
        len: 1 << 40,
        ..lent
    };
    assert_eq!(
        view.lend_open(outside).unwrap_err().errno(),
        nix::errno::Errno::EINVAL
    );

    let links = view.control_rw(4096..8192).unwrap();
    // SAFETY: the page is mapped writable and belongs to this worker alone.
    unsafe { links.base().write(10) };
    // SAFETY: the same page through the read-only map; no process writes to it now.
    let seen = unsafe { view.control().base().add(4096).read_volatile() };
    assert_eq!(seen, 10);
    assert!(view.control_rw(4097..8192).is_err());
    assert!(view.control_rw(8192..1 << 20).is_err());
    view.close_control();
    assert!(view.control_rw(4096..8192).is_err());
    view.close_descriptors();
    assert_eq!(view.pointer(input), Ok(read));

    // SAFETY: the map is read-only: the write faults, and this process ends.
    unsafe { read.write_volatile(1) };
}

#[test]
fn a_worker_reads_all_regions_and_dies_by_writing_to_an_input() {
    for backing in [Backing::Named, Backing::Memfd, Backing::Sealed] {
        let arena = arena(backing, 64 << 20);
        let input = arena.alloc(0, 100, BlockPlacement::Packed).unwrap();
        let lent = arena.alloc(0, 5000, BlockPlacement::Pages).unwrap();
        fill(&input, 7);
        fill(&lent, 7);
        arena.set_ready();
        // The second worker attaches although every name is removed and another process has attached before.
        for _ in 0..2 {
            let grant = arena.grant(1, 100_000, false).unwrap();
            let given = text(&[&input, &grant, &lent]);
            let child = start("worker", &arena.descriptors(), &given);
            assert_eq!(end(&child), Exit::Signal(libc::SIGSEGV), "{backing:?}");
            assert!(bytes(&input).iter().all(|&byte| byte == 7));
            assert!(bytes(&grant).iter().all(|&byte| byte == 8));
            assert!(bytes(&lent).iter().all(|&byte| byte == 9));
            // SAFETY: the child that wrote this byte has ended.
            assert_eq!(unsafe { arena.control().body().read() }, 10);
        }
    }
}

fn own(arena: &Arena) -> Vec<OwnedFd> {
    arena
        .descriptors()
        .iter()
        .map(|fd| fd.try_clone_to_owned().unwrap())
        .collect()
}

fn attach(fds: Vec<OwnedFd>, own: u16) -> Result<View, ArenaError> {
    View::attach(AttachSpec {
        fds,
        own,
        reservation: 64 << 20,
        lend: false,
    })
}

#[test]
fn attach_errors_name_the_cause() {
    let arena = arena(Backing::Memfd, 64 << 20);
    assert_eq!(attach(own(&arena), 1).unwrap_err(), ArenaError::NotReady);
    arena.set_ready();
    let view = attach(own(&arena), 2).unwrap();
    assert_eq!((view.id(), view.own(), view.regions()), (arena.id(), 2, 3));
    let block = arena.alloc(0, 1 << 20, BlockPlacement::Packed).unwrap();
    assert!(
        view.pointer(block.extent()).is_ok(),
        "grown after attaching"
    );
    let error = view.lend_open(block.extent()).unwrap_err();
    assert_eq!(
        error.errno(),
        nix::errno::Errno::EPERM,
        "arrays must not be lent to it"
    );

    let absent = |result: Result<View, ArenaError>| {
        let error = result.unwrap_err();
        assert!(matches!(error, ArenaError::Absent { .. }), "{error}");
    };
    absent(attach(Vec::new(), 0));
    absent(attach(own(&arena).drain(..2).collect(), 0));
    absent(attach(own(&arena), 3));

    // A truncated or overwritten control segment.
    let segment = Segment::reopen(own(&arena)[0].as_raw_fd(), Access::ReadWrite).unwrap();
    let control = arena.control();
    segment.set_len(8192).unwrap();
    let error = attach(own(&arena), 1).unwrap_err();
    let expected = ArenaError::Truncated {
        segment: "control".into(),
        len: 8192,
        expected: control.len(),
    };
    assert_eq!(error, expected);
    // SAFETY: the header page, which no other process maps.
    unsafe { control.base().add(8).write(99) };
    let error = attach(own(&arena), 1).unwrap_err();
    assert!(matches!(error, ArenaError::WrongVersion { found: 99, .. }));
    // SAFETY: as above.
    unsafe { control.base().write(0) };
    let error = attach(own(&arena), 1).unwrap_err();
    assert!(matches!(error, ArenaError::WrongVersion { found: 0, .. }));
    assert_eq!(error.to_string(), "this is not an arena");
    segment.set_len(100).unwrap();
    let error = attach(own(&arena), 1).unwrap_err();
    assert!(matches!(error, ArenaError::Truncated { len: 100, .. }));
    segment.set_len(0).unwrap();
    assert_eq!(attach(own(&arena), 1).unwrap_err(), ArenaError::NotReady);
}

#[test]
fn creating_an_arena_leaves_no_name() {
    let arena = arena(Backing::Named, 8 << 20);
    for fd in own(&arena) {
        assert_eq!(Segment::from_fd(fd).stat().unwrap().nlink, 0);
    }
}

/// The id comes from the system, not from state that a fork inherits.
#[test]
fn a_fork_draws_arena_ids_of_its_own() {
    let id = || {
        let spec = Spec {
            capacity: 1 << 20,
            sweep: false,
            ..Spec::default()
        };
        Arena::create(&spec).map_or(0, |arena| arena.id())
    };
    let before = id();
    let of_fork = || {
        let (read, write) = nix::unistd::pipe().unwrap();
        // SAFETY: the child has this thread only, and uses nothing that another thread may have locked.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let _ = nix::unistd::write(&write, &id().to_ne_bytes());
            // SAFETY: ends the child without the destructors of a test.
            unsafe { libc::_exit(0) };
        }
        drop(write);
        let mut bytes = [0; 8];
        let count = nix::unistd::read(&read, &mut bytes).unwrap();
        let child = nix::unistd::Pid::from_raw(child);
        nix::sys::wait::waitpid(child, None).unwrap();
        assert_eq!(count, bytes.len());
        u64::from_ne_bytes(bytes)
    };
    let mut all = vec![0, before, of_fork(), of_fork(), id()];
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 5, "{all:x?}");
}

fn named(name: &str) -> Result<Arc<Arena>, ArenaError> {
    Arena::create(&Spec {
        name: Some(name.into()),
        capacity: 8 << 20,
        ..Spec::default()
    })
}

fn found(name: &str) -> Option<NamedArena> {
    list().into_iter().find(|arena| arena.name == name)
}

/// Creates a named arena, reports that, and waits to be killed.
fn holder(first: i32, name: &str) {
    // SAFETY: the parent passes these numbers to this process alone, which has just started.
    let [watch, ready] = [0, 1].map(|n| unsafe { OwnedFd::from_raw_fd(first + n) });
    let _armed = sys::kill_me_on_hangup(watch.as_fd()).unwrap();
    let arena = named(name).unwrap();
    arena.set_ready();
    nix::unistd::write(&ready, b"r").unwrap();
    loop {
        std::hint::spin_loop();
    }
}

#[test]
fn a_kept_name_is_listed_while_its_program_lives_and_swept_afterwards() {
    let name = format!("test-{}", std::process::id());
    let arena = named(&name).unwrap();
    assert_eq!(found(&name).unwrap().pid, None, "not ready");
    arena.set_ready();
    let seen = found(&name).unwrap();
    assert!(seen.live);
    assert_eq!(seen.pid, Some(std::process::id()));
    assert_eq!((seen.capacity, seen.workers), (Some(8 << 20), Some(1)));
    let mut names = segments().into_iter();
    let segment = names.find(|one| one.arena.as_ref() == Some(&name)).unwrap();
    assert!(segment.live && segment.bytes >= 4096, "{segment:?}");
    assert!(segment.segment.ends_with(&format!("{name}.kept")));
    assert!(segment.age.as_secs() < 3600, "{segment:?}");
    assert_eq!(
        named(&name).unwrap_err(),
        ArenaError::NameTaken { name: name.clone() }
    );
    sweep();
    assert!(found(&name).is_some(), "its program is alive");
    let block = arena.alloc(0, 100, BlockPlacement::Packed).unwrap();
    arena.retire();
    drop(arena);
    assert_eq!(found(&name), None);
    drop(block);

    let (watch, ready) = (WatchPipe::new().unwrap(), WatchPipe::new().unwrap());
    let child = start(
        "holder",
        &[watch.read.as_fd(), ready.write.as_ref().unwrap().as_fd()],
        &name,
    );
    drop(ready.write);
    assert_eq!(nix::unistd::read(&ready.read, &mut [0]), Ok(1));
    assert!(found(&name).unwrap().live);
    assert!(named(&name).is_err());
    child.kill(Signal::SIGKILL).unwrap();
    assert_eq!(end(&child), Exit::Signal(libc::SIGKILL));
    // Another program of this user may have swept the name by now; while it does so it holds the lock for a moment.
    let is_dead = (0..60_000).any(|_| {
        let live = found(&name).is_some_and(|left| left.live);
        if live {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        !live
    });
    assert!(is_dead, "its program is gone");
    sweep();
    let again = named(&name).unwrap();
    assert!(found(&name).unwrap().live);
    drop(again);
    assert_eq!(found(&name), None);
}

#[test]
fn a_sweep_never_removes_a_live_arena() {
    let name = format!("swept-{}", std::process::id());
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Acquire) {
                    sweep();
                    list();
                }
            });
        }
        let made = std::panic::catch_unwind(|| {
            for _ in 0..1_000 {
                let arena = named(&name).unwrap();
                assert!(found(&name).is_some());
                drop(arena);
                assert_eq!(found(&name), None);
            }
        });
        stop.store(true, Ordering::Release);
        made.unwrap();
    });
}

/// Runs in its own mount namespace, with a /dev/shm of 8 MiB.
fn full() {
    let path = c"/dev/shm";
    // SAFETY: system calls on strings that outlive them; this process has one thread.
    let mounted = unsafe {
        libc::unshare(libc::CLONE_NEWNS) == 0
            && libc::mount(
                std::ptr::null(),
                c"/".as_ptr(),
                std::ptr::null(),
                libc::MS_REC | libc::MS_PRIVATE,
                std::ptr::null(),
            ) == 0
            && libc::mount(
                c"tmpfs".as_ptr(),
                path.as_ptr(),
                c"tmpfs".as_ptr(),
                0,
                c"size=8m".as_ptr().cast(),
            ) == 0
    };
    if !mounted {
        std::process::exit(77);
    }
    let spec = |backing, capacity| Spec {
        backing,
        capacity,
        ..Spec::default()
    };
    let auto = Arena::create(&spec(Backing::Auto, 64 << 20)).unwrap();
    assert_eq!(auto.backing(), Backing::Memfd);
    let error = Arena::create(&spec(Backing::Named, 64 << 20)).unwrap_err();
    assert!(matches!(
        error,
        ArenaError::TooLarge {
            limit: SystemLimit::DevShm,
            ..
        }
    ));

    let arena = Arena::create(&spec(Backing::Named, 8 << 20)).unwrap();
    let first = arena.alloc(0, 4 << 20, BlockPlacement::Packed).unwrap();
    fill(&first, 1);
    // Another segment takes all remaining space.
    let other = Segment::create_named("/other").unwrap();
    let mut taken = 0;
    while other.allocate(taken..taken + 4096).is_ok() {
        taken += 4096;
    }
    let grown = arena.alloc(0, 3 << 20, BlockPlacement::Packed).unwrap_err();
    assert_eq!((grown.requested, grown.shm_free), (3 << 20, 0));
    assert!(grown.free >= grown.requested && grown.largest_free >= grown.requested);
    assert!(grown.to_string().contains("larger /dev/shm"), "{grown}");
    assert_eq!(grown.limit(), Some(SystemLimit::DevShm));
    let small = arena.grant(1, 4096, false).unwrap_err();
    assert_eq!(small.requested, 4096);
    let blocks = |arena: &Arena| -> u64 {
        arena
            .regions
            .iter()
            .map(|region| region.segment.stat().unwrap().blocks)
            .sum()
    };
    assert_eq!(
        blocks(&arena),
        arena.stats().committed,
        "no memory is unaccounted for"
    );

    // Free memory of the arena is returned first.
    drop(first);
    let second = arena.alloc(1, 2 << 20, BlockPlacement::Packed).unwrap();
    fill(&second, 2);
    drop(second);

    // Pages left by readers of holes belong to the arena and are freed when it needs them.
    arena.trim();
    let mut taken_again = taken;
    while taken_again < taken + (3 << 20) && other.allocate(taken_again..taken_again + 4096).is_ok()
    {
        taken_again += 4096;
    }
    let base = arena
        .pointer(Extent {
            at: Offset::new(0, 0),
            len: 2 << 20,
        })
        .unwrap();
    let left = sys::limits::shm_space(std::path::Path::new("/dev/shm"))
        .unwrap()
        .free
        / 4096;
    for page in 0..left.min(512) as usize {
        // SAFETY: a hole of a region that this process alone maps; the file system has room for this page.
        unsafe { base.add(page * 4096).read_volatile() };
    }
    assert!(
        sys::limits::shm_space(std::path::Path::new("/dev/shm"))
            .unwrap()
            .free
            < 32 * 4096
    );
    let strays = arena.alloc(1, (left.min(512) - 32) * 4096, BlockPlacement::Packed);
    fill(&strays.unwrap(), 3);

    drop((arena, auto));
    Segment::unlink("/other").unwrap();
    assert_eq!(std::fs::read_dir("/dev/shm").unwrap().count(), 0);
}

#[test]
fn a_full_dev_shm_is_an_error_and_never_a_signal() {
    let child = start("full", &[], "");
    match end(&child) {
        Exit::Code(77) => sys::asked::not_tried("a mount namespace needs root"),
        other => assert_eq!(other, Exit::Code(0)),
    }
}
