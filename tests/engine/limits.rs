//! Limits: what a worker may use, and what ended it when it used more.

use std::fs;
use std::hint::black_box;
use std::path::PathBuf;
use std::process::Command;

use arenite::engine::Builder;
use arenite::engine::SystemLimit;
use arenite::{ArenaFull, Array, ArrayMut, Backing, JobErrorKind, JobLimit, TileMut};
use libtest_mimic::Trial;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::Signal;

use crate::harness::programs::{Ended, Program, Scenario};
use crate::harness::{
    ABORTED, Calls, Gate, Invariant, KILLED, Lab, assert_says, builder, pass, private_bytes,
    send_signal, trial,
};

pub fn tests() -> Vec<Trial> {
    let mut all = always::tests();
    let groups = trial(
        "engine::limits::the_kernels_out_of_memory_killer",
        linux_out_of_memory_killer,
    );
    let full = trial(
        "engine::limits::a_container_that_the_arena_fills",
        a_container_that_the_arena_fills,
    );
    let none = Group::new("probe", 64 * MIB).is_none();
    all.extend([groups, full].map(|trial| trial.with_ignored_flag(none)));
    all
}

mod always {
    use super::*;
    crate::harness::tests![
        a_memory_bomb_costs_one_job,
        a_program_that_a_kernel_starts_has_the_same_ceiling,
        memory_that_does_not_fit_is_named,
        an_abort_below_the_ceiling_is_an_abort,
        a_kill_from_outside_is_a_kill,
        freed_memory_is_reused_by_the_next_job,
    ];
}

const MIB: u64 = 1 << 20;
const CEILING: u64 = 96 * MIB;

fn limited(workers: usize) -> Lab {
    Lab::balanced_with(workers, |builder| builder.memory_limit(CEILING))
}

/// Allocates private memory MiB by MiB, and reports how far it got.
fn hoard(mut taken: TileMut<'_, u64>) {
    let mut heap = Vec::new();
    loop {
        heap.push(black_box(vec![1_u8; MIB as usize]));
        taken[0] = heap.len() as u64;
    }
}

fn a_memory_bomb_costs_one_job() {
    fn arena(len: usize) -> Array<u8> {
        let mut array = ArrayMut::zeros(len);
        array.fill(1);
        array.seal()
    }
    fn sum(values: &Array<u8>) -> u64 {
        values.chunks(64).map(|chunk| u64::from(chunk[0])).sum()
    }
    let lab = limited(2);
    let bystander = lab.from_fn(1_000_000, |i| i as u8).unwrap();
    let expected = sum(&bystander);
    for round in 1..=20 {
        let mut taken = lab.zeros::<u64>(1).unwrap();
        let error = lab
            .scope(|s| {
                s.submit(hoard, (&mut taken,));
            })
            .unwrap_err();
        let full = JobErrorKind::Limit(JobLimit::Memory {
            limit: CEILING,
            requested: Some(MIB),
            hint: None,
        });
        assert_eq!(*error.kind(), full, "round {round}: {error}");
        assert_says(&error, "memory limit");
        let reached = taken[0] * MIB;
        assert!(
            (CEILING / 2..CEILING).contains(&reached),
            "it got {reached} bytes of {CEILING}"
        );
        // Other jobs are not affected, and the arena does not count.
        assert_eq!(lab.value_of(sum, (&bystander,)), expected);
        if round <= 3 {
            let len = 2 * CEILING as usize;
            assert_eq!(lab.value_of(arena, (len,)).len(), len);
        }
        let restarts = || lab.stats().restarts();
        assert_eq!(restarts(), round);
    }
}

fn a_program_that_a_kernel_starts_has_the_same_ceiling() {
    /// In KiB.
    fn ceiling() -> String {
        let output = Command::new("sh").args(["-c", "ulimit -d"]).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    }
    let reported = limited(1).submit(ceiling, ()).wait().unwrap();
    assert_eq!(reported.trim(), (CEILING >> 10).to_string());
    // Without a ceiling, the limit is this program's.
    assert_eq!(Lab::new(1).submit(ceiling, ()).wait().unwrap(), ceiling());
}

/// As many C libraries do.
fn library(piece: usize) -> u64 {
    loop {
        // SAFETY: malloc takes a number; its result is written within its length, and leaked on purpose.
        unsafe {
            let memory = libc::malloc(piece);
            if memory.is_null() {
                libc::abort();
            }
            black_box(libc::memset(memory, 1, piece));
        }
    }
}

fn large(bytes: usize) -> usize {
    black_box(vec![1_u8; bytes]).len()
}

fn on_a_thread() -> usize {
    let hoard = || {
        let mut heap = Vec::new();
        loop {
            heap.push(black_box(vec![1_u8; MIB as usize]));
        }
    };
    std::thread::spawn(hoard).join().unwrap()
}

/// With the size of the allocation, unless a C library has asked for it.
fn memory_that_does_not_fit_is_named() {
    let lab = limited(1);
    let fits = CEILING as usize / 2;
    assert_eq!(lab.value_of(large, (fits,)), fits);
    for (error, requested) in [
        (lab.error_of(large, (CEILING as usize,)), Some(CEILING)),
        (lab.error_of(large, (1 << 40,)), Some(1 << 40)),
        (lab.error_of(on_a_thread, ()), Some(MIB)),
        (lab.error_of(library, (100,)), None),
        (lab.error_of(library, (100_000,)), None),
        (lab.error_of(library, (10_000_000,)), None),
        (lab.error_of(library, (1_000_000_000,)), None),
    ] {
        let expected = JobErrorKind::Limit(JobLimit::Memory {
            limit: CEILING,
            requested,
            hint: None,
        });
        assert_eq!(*error.kind(), expected, "{error}");
        let bytes = requested.map_or(String::new(), |bytes| bytes.to_string());
        assert_says(&error, &bytes);
    }
}

fn freed_memory_is_reused_by_the_next_job() {
    /// Page faults of a job that fills this number of blocks of 1 MiB, and the private memory afterwards.
    fn work(blocks: usize) -> (u64, u64) {
        let faults = || {
            getrusage(UsageWho::RUSAGE_SELF)
                .unwrap()
                .minor_page_faults() as u64
        };
        let before = faults();
        let heap: Vec<_> = (0..blocks).map(|_| vec![1_u8; MIB as usize]).collect();
        drop(black_box(heap));
        let taken = faults() - before;
        (taken, private_bytes(std::process::id()).unwrap())
    }
    // Only glibc's allocator is configured.
    if cfg!(target_env = "gnu") {
        let lab = Lab::new(1);
        lab.value_of(work, (12,));
        let (faults, _) = lab.value_of(work, (12,));
        assert!(faults < 256, "{faults} of the 3072 pages were taken again");
    }
    let marked = |builder: Builder| builder.recycle_above_bytes(16 * MIB);
    let limited = |builder: Builder| builder.memory_limit(32 * MIB);
    for few in [Lab::with(1, marked), Lab::with(1, limited)] {
        let (_, kept) = few.value_of(work, (12,));
        assert!(
            kept < 12 * MIB,
            "{kept} bytes are kept where a few are allowed"
        );
    }
}

fn an_abort_below_the_ceiling_is_an_abort() {
    /// A failed allocation of an earlier job is not the cause of a later abort.
    fn modest() -> bool {
        let mut heap = Vec::<u8>::new();
        heap.try_reserve_exact(black_box(2 * CEILING as usize))
            .is_err()
    }
    let lab = limited(1);
    for _ in 0..3 {
        assert!(lab.value_of(modest, ()), "more than the ceiling");
        let pid = lab.pid(0);
        let error = lab.error_of(|| -> u8 { std::process::abort() }, ());
        assert_eq!(*error.kind(), ABORTED, "{error}");
        lab.await_restart(0, 1);
        assert_ne!(lab.pid(0), pid);
    }
    // A signal from outside is not an abort of its own, however little memory is left.
    let gate = Gate::new();
    let full = |gate: &str| {
        let mut heap = Vec::new();
        while heap.try_reserve(1).is_ok() {
            let mut piece = Vec::<u8>::new();
            if piece.try_reserve_exact(MIB as usize).is_err() {
                break;
            }
            heap.push(piece);
        }
        black_box(&heap);
        heap.clear();
        pass(gate);
    };
    let job = lab.submit(full, (&gate.path(),));
    let held = gate.meet();
    send_signal(lab.pid(0), Signal::SIGABRT);
    let error = lab.failure_of(job);
    drop(held);
    assert_eq!(*error.kind(), ABORTED, "{error}");
}

fn a_kill_from_outside_is_a_kill() {
    let lab = limited(1);
    for _ in 0..3 {
        let (job, held) = lab.hold();
        send_signal(lab.pid(0), Signal::SIGKILL);
        let error = lab.failure_of(job);
        drop(held);
        assert_eq!(*error.kind(), KILLED, "{error}");
    }
}

// ---- the kernel's own limit ----------------------------------------------------------------------------------

/// A memory control group of this test, removed on drop.
struct Group {
    path: PathBuf,
}

impl Group {
    /// `None` if this system has none that a test may create.
    fn new(name: &str, limit: u64) -> Option<Self> {
        let name = format!("arenite-{name}-{}", std::process::id());
        let first = PathBuf::from("/sys/fs/cgroup/memory").join(&name);
        let second = PathBuf::from("/sys/fs/cgroup").join(&name);
        let (path, file) = match fs::create_dir(&first) {
            Ok(()) => (first, "memory.limit_in_bytes"),
            Err(_) => {
                fs::create_dir(&second).ok()?;
                (second, "memory.max")
            }
        };
        let group = Self { path };
        fs::write(group.path.join(file), limit.to_string()).ok()?;
        // Without this, swap would be used up first. Not every version of Linux has it.
        let _ = fs::write(group.path.join("memory.swappiness"), "0");
        let _ = fs::write(group.path.join("memory.swap.max"), "0");
        Some(group)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Its processes have been reaped, but the group is updated a little later.
        for _ in 0..1000 {
            if fs::remove_dir(&self.path).is_ok() {
                return;
            }
            std::thread::park_timeout(std::time::Duration::from_millis(1));
        }
    }
}

/// The group that the program of a test joins.
const GROUP: &str = "ARENITE_TEST_GROUP";

pub const SCENARIOS: &[Scenario] = &[("crowded", crowded), ("filled", filled)];

fn join_group() {
    let group = PathBuf::from(std::env::var(GROUP).unwrap());
    let own = std::process::id().to_string();
    fs::write(group.join("cgroup.procs"), own).unwrap();
}

/// Runs this scenario in its own group.
fn in_group(scenario: &str, limit: u64) -> Ended {
    let group = Group::new(scenario, limit).expect("it was possible a moment ago");
    let change = |command: &mut Command| {
        command.env(GROUP, &group.path);
    };
    Program::with(scenario, || Ok(()), change).end()
}

/// In a group with little memory.
fn crowded() {
    join_group();
    let engine = builder(1, 16 << 20)
        .backing(Backing::Memfd)
        .build()
        .unwrap();
    for _ in 0..2 {
        let mut taken = engine.zeros::<u64>(1).unwrap();
        let result = engine.scope(|s| {
            s.submit(hoard, (&mut taken,));
        });
        println!("{:?}", result.unwrap_err().kind());
    }
    // The same signal, without a lack of memory.
    let pid = || engine.stats().workers[0].pid as i32;
    let die = |_: u32| -> u32 {
        // SAFETY: the process kills itself.
        unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
        unreachable!("it has been killed")
    };
    println!("{:?}", engine.error_of(die, (pid() as u32,)).kind());
    engine.shutdown();
}

fn linux_out_of_memory_killer() {
    let ended = in_group("crowded", 128 * MIB);
    let lines: Vec<&str> = ended.output.lines().collect();
    assert_eq!(
        lines,
        [
            "Lost(OutOfMemoryKill)",
            "Lost(OutOfMemoryKill)",
            "Lost(Signal(9))",
            "done"
        ],
        "{ended:?}"
    );
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

/// Memory of the container, and the maximum capacity of an arena there.
const ROOM: u64 = 192 * MIB;

fn a_container_that_the_arena_fills() {
    in_group("filled", ROOM).assert_done();
}

/// In a group with less memory than the arena's capacity, because processes use some of it. The supervisor's arrays and
/// the workers' results fill it, in turn and at once. A request beyond it fails and names the limit, and no process is
/// killed.
fn filled() {
    const EACH: usize = MIB as usize;
    fn made(round: u8) -> Array<u8> {
        let mut array = ArrayMut::zeros(EACH);
        array.fill(round + 1);
        array.seal()
    }
    let by_container = |full: &ArenaFull| {
        assert_eq!(full.limit(), Some(SystemLimit::Container), "{full}");
        assert!(full.requested >= MIB, "{full}");
    };
    join_group();
    let invariant = Invariant::before();
    let engine = builder(3, ROOM).backing(Backing::Memfd).build().unwrap();
    let own = |most: usize| {
        let mut all = Vec::new();
        while all.len() < most {
            match engine.zeros::<u8>(EACH) {
                Ok(array) => all.push(array),
                Err(full) => {
                    by_container(&full);
                    return (all, true);
                }
            }
        }
        (all, false)
    };
    for round in 0..6 {
        // Nothing, a part, or all of it is used before the workers allocate.
        let (held, full) = own([0, 30, usize::MAX][round as usize % 3]);
        assert_eq!(full, round % 3 == 2, "round {round}: {} arrays", held.len());
        let mut results = Vec::new();
        let mut refused = 0;
        // Each of them reaches the limit.
        while refused < 3 {
            for answer in engine.map(made, (0..12).map(|_| (round,))) {
                match answer {
                    Ok(array) => results.push(array),
                    Err(error) => match error.kind() {
                        JobErrorKind::Limit(JobLimit::Arena(full)) => {
                            by_container(full);
                            refused += 1;
                        }
                        _ => panic!("round {round}: {error}"),
                    },
                }
            }
        }
        let (zeros, ones) = (vec![0; EACH], vec![round + 1; EACH]);
        assert!(held.iter().all(|array| array[..] == zeros[..]), "{round}");
        assert!(results.iter().all(|array| array[..] == ones[..]), "{round}");
        assert_eq!(engine.stats().restarts(), 3 * u64::from(round));
        drop((held, results));
        // It ends each of the three once.
        invariant.holds(&engine, 0).unwrap();
    }
    engine.shutdown();
    invariant.nothing_left().unwrap();
}
