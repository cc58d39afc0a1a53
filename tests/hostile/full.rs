//! A /dev/shm that is too small, full from the start, or filled by others at any moment: in the program's own mount
//! namespace, which takes root. Without root those tests are listed as ignored.

use std::time::Duration;

use arenite::{
    Array, ArrayMut, Backing, BuildError, Engine, JobErrorKind, JobLimit, Trace, WorkerExit,
};
use libtest_mimic::Trial;
use nix::mount::{MsFlags, mount};

use crate::harness::programs::{Program, Scenario, own_shm};
use crate::harness::runs::Order;
use crate::harness::runs::crowded::{Hog, crowd, fill, room};
use crate::harness::{Dice, Gate, Invariant, Lab, assert_kind, builder, named, pass, seeds};
use crate::kernels::refusing;
use crate::users::is_root;

/// What programs do with a /dev/shm of some sizes in MiB, by the names of their trials.
const WITH_ROOM: [(Scenario, &[u32]); 9] = [
    (("full_at_create", create), &[4, 16, 64]),
    (("full_at_growth", growth), &[8, 16, 64]),
    (("full_during_a_job", job), &[8, 32]),
    (("filled_by_another_program", another_program), &[8, 16, 64]),
    (("without_names", auto), &[4, 64]),
    (("without_names_filled_later", later), &[16, 64]),
    (("read_only_dev_shm", read_only), &[64]),
    (("spilled_replies_and_holes", spilled), &[16]),
    (("files_of_a_trace", trace), &[4]),
];

/// With any /dev/shm, but without memory files.
const NAMES_ONLY: Scenario = ("without_memory_files", names_only);

pub fn scenarios() -> Vec<Scenario> {
    let all = WITH_ROOM.iter().map(|&(scenario, _)| scenario);
    all.chain([NAMES_ONLY]).collect()
}

pub fn tests() -> Vec<Trial> {
    let with_room = |&((name, _), sizes): &(Scenario, &'static [u32])| {
        let play = move || {
            for &mib in sizes {
                let program = Program::start(name, own_shm(Some(mib)));
                program.end().assert_done();
            }
        };
        named(format!("full::{name}"), play).with_ignored_flag(!is_root())
    };
    // As with vm.memfd_noexec=2, or in a container with a system call filter.
    let (name, _) = NAMES_ONLY;
    let names_only = named(format!("full::{name}"), move || {
        let refused = refusing(&[libc::SYS_memfd_create], libc::EPERM);
        Program::start(name, refused).end().assert_done();
    });
    WITH_ROOM
        .iter()
        .map(with_room)
        .chain([names_only])
        .collect()
}

// ---- what those programs do ---------------------------------------------------------------------------------

fn size() -> u64 {
    room().unwrap().0
}

fn with_names(capacity: u64) -> Result<Engine, BuildError> {
    builder(2, capacity).backing(Backing::Named).build()
}

/// Checks that only new workers' grants are held, and that there is room for another job.
fn assert_holds(engine: &Engine) {
    let holds = Invariant::before().holds(engine, 0);
    holds.unwrap_or_else(|why| panic!("{why}"));
}

/// Writes and reads every byte, here and in workers.
fn assert_works(engine: &Engine) {
    let values = engine.from_fn(100_000, |i| i as u8).unwrap();
    assert!(values.iter().enumerate().all(|(i, &x)| x == i as u8));
    for with in 0..20 {
        let result = engine.submit(fill, (100_000, with)).wait().unwrap();
        assert!(result.iter().all(|&x| x == with));
    }
}

fn create() {
    let size = size();
    // More than there is.
    let error = with_names(size + (1 << 20)).unwrap_err();
    let lower = format!("or lower the capacity to {size} bytes at most");
    for part in ["more than /dev/shm has", "mount a larger one", &lower] {
        assert!(error.to_string().contains(part), "{error}");
    }
    // No room for the first byte.
    for leave in [0, 4096, 64 * 1024, 100 * 1024] {
        let hog = Hog::leaving(leave).unwrap();
        match with_names(size / 2) {
            Err(error) => assert!(error.to_string().contains("No space left"), "{error}"),
            // The control segment only.
            Ok(engine) => {
                let job = engine.submit(|| Array::<u8>::zeros(1 << 20), ()).wait();
                let error = job.unwrap_err();
                assert_kind!(error, JobErrorKind::Limit(JobLimit::Arena(_)));
                assert!(engine.zeros::<u8>(1 << 20).is_err());
                assert_eq!(engine.submit(|n: u32| n + 1, (1,)).wait().unwrap(), 2);
                drop(hog);
                assert_works(&engine);
                assert_holds(&engine);
            }
        }
    }
    let engine = with_names(size / 2).unwrap();
    assert_works(&engine);
    assert_holds(&engine);
}

fn growth() {
    let size = size();
    let engine = with_names(size).unwrap();
    let mut kept = Vec::new();
    // The arena may use all of it, but the control segment and other programs need some.
    let full = loop {
        match engine.zeros::<u8>(700_000) {
            Ok(mut array) => {
                array.fill(7);
                kept.push(array);
            }
            Err(full) => break full,
        }
    };
    assert!(full.shm_free < 4 << 20, "{full}");
    assert!(kept.iter().all(|array| array.iter().all(|&x| x == 7)));
    // Results find no room either, and fail with an error.
    let error = engine.submit(fill, (2 << 20, 1)).wait().unwrap_err();
    assert_kind!(error, JobErrorKind::Limit(JobLimit::Arena(_)));
    // There is room again.
    drop(kept);
    assert_works(&engine);
    assert_holds(&engine);
}

fn job() {
    /// Makes arrays until there is no room, several times, touching all of them.
    fn hungry(rounds: usize) -> u64 {
        let mut made = 0;
        for _ in 0..rounds {
            let mut kept = Vec::new();
            while let Ok(mut array) = ArrayMut::<u8>::try_zeros(300_000) {
                array.fill(3);
                made += array.iter().map(|&x| u64::from(x)).sum::<u64>();
                kept.push(array);
            }
        }
        made
    }
    let engine = with_names(size()).unwrap();
    let hog = Hog::leaving(3 << 20).unwrap();
    let jobs: Vec<_> = (0..4).map(|_| engine.submit(hungry, (3,))).collect();
    // A job may find that the others hold everything.
    let made: Vec<u64> = jobs.into_iter().map(|job| job.wait().unwrap()).collect();
    assert!(made.iter().any(|&bytes| bytes > 0), "{made:?}");
    drop(hog);
    assert_works(&engine);
    assert_eq!(engine.stats().restarts(), 0);
    assert_holds(&engine);
}

fn another_program() {
    let order = Order {
        seed: seeds(1).start,
        length: Duration::from_millis(500),
        strict: false,
    };
    crowd(order, &mut Dice::new(order.seed), || false).unwrap();
}

fn auto() {
    let size = size();
    let build = |capacity| builder(2, capacity).build().unwrap();
    // More than /dev/shm has.
    let engine = build(size * 2);
    let large = engine.submit(fill, (size as usize + (1 << 20), 5));
    let large = large.wait().unwrap();
    assert!(large.iter().all(|&x| x == 5));
    drop(large);
    assert_holds(&engine);
    drop(engine);
    // It is full.
    let hog = Hog::leaving(0).unwrap();
    let engine = build(size / 2);
    assert_works(&engine);
    assert_holds(&engine);
    drop(hog);
}

/// An engine with the default backing, built while there was room: when it grows, during a job, and at any other moment
/// it does not need /dev/shm.
fn later() {
    let size = size();
    let capacity = size / 2;
    let engine = builder(2, capacity).build().unwrap();
    assert_works(&engine);
    let hog = Hog::leaving(0).unwrap();
    let made = |_| engine.from_fn(capacity as usize / 16, |_| 7u8).unwrap();
    let kept: Vec<_> = (0..8).map(made).collect();
    assert!(kept.iter().all(|array| array.iter().all(|&x| x == 7)));
    drop((kept, hog));
    engine.trim();

    fn fill_later(gate: &str, n: usize) -> Array<u8> {
        pass(gate);
        fill(n, 4)
    }
    let gate = Gate::new();
    let job = engine.submit(fill_later, (&gate.path(), capacity as usize / 4));
    let held = gate.meet();
    let hog = Hog::leaving(0).unwrap();
    drop(held);
    assert!(job.wait().unwrap().iter().all(|&x| x == 4));
    drop(hog);

    let piece = capacity as usize / 128;
    for round in 0..10 {
        let hog = Hog::leaving(round % 4 * 300_000).unwrap();
        let jobs: Vec<_> = (0..20)
            .map(|n| engine.submit(fill, (piece * (n as usize % 4 + 1), n)))
            .collect();
        hog.take_all_but(0).unwrap();
        for (n, job) in (0..).zip(jobs) {
            assert!(job.wait().unwrap().iter().all(|&x| x == n));
        }
    }
    assert_holds(&engine);
}

fn names_only() {
    let engine = builder(2, 8 << 20).build().unwrap();
    assert_works(&engine);
    assert_holds(&engine);
    let forbidden = builder(1, 8 << 20).backing(Backing::Memfd).build();
    let error = forbidden.unwrap_err();
    assert!(error.to_string().contains("memfd_create"), "{error}");
}

/// As in a container where it is mounted read-only.
fn read_only() {
    let none = None::<&str>;
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(none, "/dev/shm", none, flags, none).unwrap();
    let engine = builder(1, 8 << 20).build().unwrap();
    assert_works(&engine);
    assert_holds(&engine);
    let error = with_names(8 << 20).unwrap_err();
    assert!(error.to_string().contains("Read-only"), "{error}");
}

/// A worker that reports an answer where there is no memory: reading it would end the supervisor.
fn spilled() {
    fn lie(at: u64) -> Array<u8> {
        crate::words::answer_with_words_at(at);
        Array::zeros(10)
    }
    let engine = with_names(8 << 20).unwrap();
    // Makes the region long, with holes in it.
    drop(engine.submit(fill, (4 << 20, 1)).wait().unwrap());
    let hog = Hog::leaving(0).unwrap();
    let mut lies = 0;
    for at in [0u64, 1 << 20, 3 << 20, 6 << 20] {
        let answers = (0..50).map(|_| engine.submit(lie, (at,)).wait());
        for error in answers.filter_map(Result::err) {
            assert_kind!(
                error,
                JobErrorKind::Lost(WorkerExit::Protocol(_))
                    | JobErrorKind::Limit(JobLimit::Arena(_))
            );
            lies += 1;
        }
    }
    assert!(lies > 0, "no lie was noticed");
    drop(hog);
    // Live workers would continue to lie: new ones are needed.
    let lab = Lab::of(engine);
    (0..2).for_each(|worker| lab.replace(worker));
    assert_works(&lab);
    assert_holds(&lab);
}

/// The disk with the files of a trace fills up: what was written stays complete.
fn trace() {
    fn fail(len: usize) -> Result<(), String> {
        Err("x".repeat(len))
    }
    fn half(n: u64) -> u64 {
        n / 2
    }
    let [events, page] = ["/dev/shm/events.json", "/dev/shm/report.html"];
    let engine = builder(2, 1 << 20)
        .backing(Backing::Memfd)
        .trace(Trace::to(events).report(page))
        .build()
        .unwrap();
    let fail_often = |times: usize| {
        for _ in 0..times {
            engine.submit(fail, (500,)).wait().unwrap_err();
        }
    };
    fail_often(10);
    let written = engine.write_trace().unwrap().unwrap();
    assert_eq!((written.attempts, written.dropped), (10, 0));
    let hog = Hog::leaving(100_000).unwrap();
    for n in 0..1000 {
        engine.submit(half, (n,)).wait().unwrap();
    }
    let full = || {
        let error = engine.write_trace().unwrap_err();
        assert!(error.path.ends_with("events.json"), "{error}");
        assert_eq!(error.error.kind(), std::io::ErrorKind::StorageFull);
    };
    full();
    let runs = || {
        let text = std::fs::read_to_string(events).unwrap();
        let whole: serde_json::Value = serde_json::from_str(&text).unwrap();
        let events = whole["traceEvents"].as_array().unwrap();
        let runs = events.iter().filter(|event| event["cat"] == "job").count();
        let dropped = whole["otherData"]["dropped_events"].as_str().unwrap();
        (runs, dropped.parse::<usize>().unwrap())
    };
    let before = runs();
    assert!(before.0 >= 10 && before.1 > 0, "{before:?}");
    // A longer page than the existing one, for which there is no room either.
    let content = std::fs::read_to_string(page).unwrap();
    fail_often(150);
    hog.take_all_but(0).unwrap();
    full();
    drop(engine);
    assert_eq!(std::fs::read_to_string(page).unwrap(), content);
    assert_eq!(runs(), before);
    let left = std::fs::read_dir("/dev/shm").unwrap().count();
    assert_eq!(left, 2, "nothing but the two files");
    for path in [events, page] {
        std::fs::remove_file(path).unwrap();
    }
}
