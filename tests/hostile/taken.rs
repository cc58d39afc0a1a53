//! Segments truncated, hole-punched or unlinked by another process of the same user: the program ends with an error
//! that names the segment, or continues; its workers end with it.

use std::fs::File;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use arenite::{Array, Backing, Engine, JobError, JobErrorKind, JobLimit, WorkerExit};
use nix::fcntl::{FallocateFlags, fallocate};

use crate::harness::programs::{Program, Scenario, pause, say};
use crate::harness::{
    ABORTED, Gate, assert_kind, builder, made, pass, state_of, step, tests, wait_until,
};
use crate::maps::leads_to;
use crate::users::{BACKING, asked_backing, lose_a_worker};

tests![
    reading_a_truncated_region,
    a_hole_punched_region,
    a_hole_punched_control_segment,
    any_segment_truncated_at_any_time,
    unlinking_a_kept_name,
    sealed_segments_are_immune,
    a_program_keeps_its_own_handler,
];

pub const SCENARIOS: &[Scenario] = &[
    ("taken-read", read),
    ("taken-any", any),
    ("taken-punched", punched),
    ("taken-links", links),
    ("taken-name", name),
    ("taken-name-busy", name_of_busy),
    ("taken-sealed", sealed),
    ("taken-handler", handler),
];

/// The descriptors of a process for segments whose name contains this.
fn segments(pid: i32, name: &str) -> Vec<PathBuf> {
    let folder = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let paths = folder.flatten().map(|entry| entry.path());
    let leads_there = |path: &PathBuf| {
        std::fs::read_link(path).is_ok_and(|target| leads_to(&target.to_string_lossy(), name))
    };
    paths.filter(leads_there).collect()
}

/// The segments of a program, as any process of the same user can write them. All are opened before the first is
/// changed: a busy program may be gone a moment later, and its descriptors with it.
fn open_for_writing(program: &Program, name: &str) -> Vec<File> {
    let open = |path| File::options().write(true).open(path).unwrap();
    let paths = segments(program.pid(), name).into_iter();
    let files: Vec<File> = paths.map(open).collect();
    assert!(!files.is_empty(), "the program has {name}");
    files
}

/// Truncates the segments of a program to this number of bytes.
fn cut(program: &Program, name: &str, len: u64) {
    for file in open_for_writing(program, name) {
        file.set_len(len).unwrap();
    }
}

fn start(scenario: &str) -> Program {
    start_with(scenario, &[])
}

/// With these variables.
fn start_with(scenario: &str, variables: &[(&str, &str)]) -> Program {
    let change = |command: &mut Command| {
        command.envs(variables.iter().copied());
    };
    let mut program = Program::with(scenario, || Ok(()), change);
    program.expect("ready");
    program
}

const REGION: &str = "ARENITE_HOSTILE_REGION";
const BUSY: &str = "ARENITE_HOSTILE_BUSY";

fn reading_a_truncated_region() {
    for (name, len, region) in [("region-0", 0, "region 0"), ("region-1", 8192, "region 1")] {
        let mut program = start("taken-read");
        cut(&program, name, len);
        program.go_on();
        let ended = program.end();
        // It ended at once, with the reason.
        assert_eq!(ended.signal, Some(libc::SIGBUS), "{ended:?}");
        let bytes = format!("({len} bytes");
        for word in [region, "was truncated by another process", "Sealed", &bytes] {
            assert!(ended.errors.contains(word), "{word:?}: {ended:?}");
        }
    }
}

/// To nothing, to a page, and in the middle of one; before workers have work, or while they do. Either the supervisor
/// meets the missing memory and ends at once, or a worker does, and then nothing continues; the segment is named in
/// both cases.
fn any_segment_truncated_at_any_time() {
    for backing in ["memfd", "named"] {
        for (segment, what) in [
            ("control", "control segment"),
            ("region-0", "region 0"),
            ("region-1", "region 1"),
        ] {
            for (len, busy) in [0, 4096, 5001]
                .iter()
                .flat_map(|&len| [(len, "0"), (len, "1")])
            {
                let case = format!("{backing}: {segment} is cut to {len} bytes, busy: {busy}");
                step(&*case);
                let mut program = start_with("taken-any", &[(BACKING, backing), (BUSY, busy)]);
                cut(&program, segment, len);
                program.go_on();
                let ended = program.end();
                let at_once = ended.signal == Some(libc::SIGBUS);
                assert!(at_once || ended.code == Some(GAVE_UP), "{case}: {ended:?}");
                for word in [what, "was truncated by another process", "Sealed"] {
                    assert!(ended.errors.contains(word), "{case}: {ended:?}");
                }
            }
        }
    }
}

fn a_hole_punched_region() {
    for backing in ["memfd", "named"] {
        for region in ["0", "1"] {
            let mut program = start_with("taken-punched", &[(BACKING, backing), (REGION, region)]);
            punch(&program, &format!("region-{region}"));
            program.go_on();
            program.end().assert_done();
        }
    }
}

/// Frees all memory of the segments of a program; they read as zeros.
fn punch(program: &Program, name: &str) {
    for file in open_for_writing(program, name) {
        let len = file.metadata().unwrap().len() as i64;
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        fallocate(&file, flags, 0, len).unwrap();
    }
}

/// Links, doorbells and the header become zeros: under sleeping workers, under one that has a job, and while jobs come
/// and go. Every job gets an answer, and if nothing continues, the answer names the segment.
fn a_hole_punched_control_segment() {
    for backing in ["memfd", "named"] {
        for way in [ASLEEP, AT_WORK, BUSY_ALL_THE_TIME] {
            step(format!("{backing}: the control segment is punched, {way}"));
            let mut program = start_with("taken-links", &[(BACKING, backing), (BUSY, way)]);
            if way == ASLEEP {
                wait_until("all sleep", || {
                    let all = program.processes();
                    all.iter().all(|&pid| state_of(pid) == Some('S'))
                });
            }
            punch(&program, "control");
            program.go_on();
            program.end().assert_done();
        }
    }
}

const ASLEEP: &str = "asleep";
const AT_WORK: &str = "at work";
const BUSY_ALL_THE_TIME: &str = "busy all the time";

fn unlinking_a_kept_name() {
    for scenario in ["taken-name", "taken-name-busy"] {
        let mut program = Program::start(scenario, || Ok(()));
        let path = program.line();
        std::fs::remove_file(path).unwrap();
        program.go_on();
        program.end().assert_done();
    }
}

fn sealed_segments_are_immune() {
    let mut program = start("taken-sealed");
    for name in ["region-0", "region-1", "control"] {
        for path in segments(program.pid(), name) {
            let file = File::options().write(true).open(path).unwrap();
            let error = file.set_len(0).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{name}");
        }
    }
    program.go_on();
    program.end().assert_done();
}

fn a_program_keeps_its_own_handler() {
    let mut program = start("taken-handler");
    program.go_on();
    let ended = program.end();
    assert_eq!((ended.code, &*ended.output), (Some(42), ""), "{ended:?}");
}

// ---- what those programs do ---------------------------------------------------------------------------------

fn build(backing: Backing) -> Engine {
    builder(1, 32 << 20).backing(backing).build().unwrap()
}

fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().map(|&x| u64::from(x)).sum()
}

/// Reads arrays in both regions.
fn read() {
    let engine = build(Backing::Memfd);
    let own = engine.from_fn(100_000, |i| i as u8).unwrap();
    let result = engine.submit(made, (100_000,)).wait().unwrap();
    say("ready");
    pause();
    let sums = (sum(&own), sum(&result));
    panic!("{sums:?} was read from memory that is gone");
}

/// The exit code of a program whose engine cannot continue.
const GAVE_UP: i32 = 1;

fn filled(bytes: &[u8]) -> Array<u8> {
    Array::from_fn(10_000, |i| bytes[i * 10])
}

/// Reads arrays in both regions repeatedly, here and in workers, until the engine reports that it cannot continue.
fn any() {
    let engine = build(asked_backing());
    let own = engine.from_fn(100_000, |i| i as u8).unwrap();
    let result = engine.submit(made, (100_000,)).wait().unwrap();
    let expected = sum(&own);
    // While it is busy it does not wait for a report of the truncation.
    let busy = std::env::var(BUSY).unwrap() == "1";
    let mut rounds = 0;
    loop {
        if rounds == 1 {
            say("ready");
            if !busy {
                pause();
            }
        }
        rounds += 1;
        match engine.submit(filled, (&own,)).wait() {
            Ok(array) => {
                assert!(array.iter().zip(0..).all(|(&x, i)| x == (i * 10) as u8));
                assert_eq!((sum(&own), sum(&result)), (expected, expected));
            }
            Err(error) => match error.kind() {
                JobErrorKind::NoWorkers(why) => {
                    eprintln!("{why}");
                    break;
                }
                JobErrorKind::Lost(WorkerExit::Signal(libc::SIGBUS))
                | JobErrorKind::Limit(JobLimit::Arena(_)) => {}
                _ => panic!("{error}"),
            },
        }
    }
    engine.shutdown();
    std::process::exit(GAVE_UP);
}

/// Continues with a region whose content is gone, until a worker ends.
fn punched() {
    let engine = build(asked_backing());
    let own = engine.from_fn(1 << 20, |i| i as u8).unwrap();
    let result = engine.submit(made, (1 << 20,)).wait().unwrap();
    let region = std::env::var(REGION).unwrap();
    say("ready");
    pause();
    // The content of an array is lost, and cannot be distinguished from zeros.
    let sums = [sum(&own), sum(&result)];
    let lost = region.parse::<usize>().unwrap();
    assert!(sums[lost] < sums[1 - lost], "{sums:?}");
    lose_a_worker(&engine);
    let error = engine.submit(made, (10,)).wait().unwrap_err();
    let JobErrorKind::NoWorkers(why) = error.kind() else {
        panic!("{error}");
    };
    let expected = format!("region {region} was hole-punched by another process");
    assert!(why.contains(&expected), "{why}");
    drop((own, result));
    engine.shutdown();
}

/// Continues over zeroed links, until the engine reports that it cannot, or until jobs succeed.
fn links() {
    let engine = builder(2, 32 << 20)
        .backing(asked_backing())
        .build()
        .unwrap();
    let own = engine.from_fn(100_000, |i| i as u8).unwrap();
    let way = std::env::var(BUSY).unwrap();
    fn may_be(why: &JobErrorKind) -> bool {
        match why {
            JobErrorKind::NoWorkers(why) => {
                why.contains("the control segment was hole-punched by another process")
            }
            JobErrorKind::Lost(WorkerExit::OtherJob { cause: culprit, .. }) => may_be(culprit),
            why => matches!(why, JobErrorKind::Lost(WorkerExit::Protocol(_))),
        }
    }
    let may_fail = |error: &JobError| assert!(may_be(error.kind()), "{error}");
    let round = |n: usize| match engine.submit(filled, (&own,)).wait() {
        Ok(array) => assert!(array.iter().zip(0..).all(|(&x, i)| x == (i * 10) as u8)),
        Err(error) => {
            eprintln!("round {n}: {error}");
            may_fail(&error);
        }
    };
    round(0);
    let gate = Gate::new();
    let at_work = (way == AT_WORK).then(|| {
        let job = engine.submit(pass, (&gate.path(),));
        (job, gate.meet())
    });
    let over = AtomicBool::new(false);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            say("ready");
            pause();
            over.store(true, Relaxed);
        });
        while !over.load(Relaxed) {
            if way == BUSY_ALL_THE_TIME {
                round(1);
            } else {
                std::thread::park_timeout(Duration::from_millis(1));
            }
        }
    });
    if let Some((job, held)) = at_work {
        drop(held);
        if let Err(error) = job.wait() {
            may_fail(&error);
        }
    }
    (2..50).for_each(round);
    // A worker that starts later cannot use zeroed links.
    if let Err(error) = engine.submit(|| -> u8 { std::process::abort() }, ()).wait()
        && *error.kind() != ABORTED
    {
        may_fail(&error);
    }
    let error = engine.submit(made, (10,)).wait().unwrap_err();
    assert_kind!(error, JobErrorKind::NoWorkers(_));
    may_fail(&error);
    drop(own);
    engine.shutdown();
}

fn with_name() -> (Engine, String) {
    let name = format!("taken-{}", std::process::id());
    let engine = builder(1, 8 << 20).name(&name).build().unwrap();
    let user = nix::unistd::geteuid();
    (engine, format!("/dev/shm/arenite-{user}-{name}.kept"))
}

/// Does not notice that its name is removed while it works.
fn name_of_busy() {
    let (engine, path) = with_name();
    let over = AtomicBool::new(false);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            say(path);
            pause();
            over.store(true, Relaxed);
        });
        for len in (0..5000).cycle() {
            assert_eq!(engine.submit(made, (len,)).wait().unwrap().len(), len);
            if over.load(Relaxed) {
                break;
            }
        }
    });
    engine.shutdown();
}

/// Works without its name.
fn name() {
    let (engine, path) = with_name();
    say(path);
    pause();
    assert_eq!(engine.submit(made, (1000,)).wait().unwrap().len(), 1000);
    lose_a_worker(&engine);
    assert_eq!(engine.submit(made, (1000,)).wait().unwrap().len(), 1000);
    engine.shutdown();
}

fn sealed() {
    let engine = build(Backing::Sealed);
    let own = engine.from_fn(100_000, |i| i as u8).unwrap();
    say("ready");
    pause();
    assert!(own.iter().enumerate().all(|(i, &x)| x == i as u8));
    assert_eq!(engine.submit(sum, (&own,)).wait().unwrap(), sum(&own));
    drop(own);
    engine.shutdown();
}

/// A program whose own files are truncated handles that as before.
fn handler() {
    extern "C" fn handle(_: i32) {
        // SAFETY: ends this process.
        unsafe { libc::_exit(42) }
    }
    let action = nix::sys::signal::SigAction::new(
        nix::sys::signal::SigHandler::Handler(handle),
        nix::sys::signal::SaFlags::empty(),
        nix::sys::signal::SigSet::empty(),
    );
    // SAFETY: the handler only ends the process.
    unsafe { nix::sys::signal::sigaction(nix::sys::signal::Signal::SIGBUS, &action) }.unwrap();
    let engine = build(Backing::Memfd);
    let file = tempfile::tempfile().unwrap();
    file.set_len(4096).unwrap();
    // SAFETY: a map of a file of this test.
    let map = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            4096,
            libc::PROT_READ,
            libc::MAP_SHARED,
            std::os::fd::AsRawFd::as_raw_fd(&file),
            0,
        )
    };
    file.set_len(0).unwrap();
    drop(engine);
    println!("ready");
    std::io::Write::flush(&mut std::io::stdout()).unwrap();
    pause();
    // SAFETY: none: beyond the end of the file, on purpose.
    unsafe { map.cast::<u8>().read_volatile() };
}
