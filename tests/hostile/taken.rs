//! Segments cut, punched or unlinked by another process of the same user: the program ends with an error that names it,
//! or goes on; its workers are gone with it.

use std::fs::File;
use std::path::PathBuf;

use arenite::{Array, Backing, Engine, JobErrorKind};
use nix::fcntl::{FallocateFlags, fallocate};

use crate::harness::tests;
use crate::programs::{Ended, Program, pause, say};

tests![
    a_region_that_was_cut_is_read,
    a_region_that_was_cut_ends_its_workers,
    the_control_segment_is_cut,
    a_punched_region,
    a_kept_name_is_unlinked,
    sealed_segments_are_immune,
    a_program_keeps_its_own_handler,
];

pub const SCENARIOS: &[(&str, fn())] = &[
    ("taken-read", read),
    ("taken-workers", workers),
    ("taken-idle", idle),
    ("taken-punched", punched),
    ("taken-name", name),
    ("taken-sealed", sealed),
    ("taken-handler", handler),
];

/// The descriptors of a process that lead to segments whose name contains this.
fn segments(pid: i32, name: &str) -> Vec<PathBuf> {
    let folder = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .flatten();
    let leads_there = |path: &PathBuf| {
        std::fs::read_link(path).is_ok_and(|target| target.to_string_lossy().contains(name))
    };
    folder
        .map(|entry| entry.path())
        .filter(leads_there)
        .collect()
}

/// Cuts the segments of a program to so many bytes, as any process of the same user can.
fn cut(program: &Program, name: &str, len: u64) {
    let segments = segments(program.pid(), name);
    assert!(!segments.is_empty(), "the program has {name}");
    for path in segments {
        let file = File::options().write(true).open(path).unwrap();
        file.set_len(len).unwrap();
    }
}

fn start(scenario: &str) -> Program {
    let mut program = Program::start(scenario, || Ok(()));
    program.expect("ready");
    program
}

/// It ended at once, with the reason.
fn assert_named(ended: &Ended, words: &[&str]) {
    assert_eq!(ended.signal, Some(libc::SIGBUS), "{ended:?}");
    for word in words {
        assert!(
            ended.errors.contains(word),
            "{word:?} is missing: {ended:?}"
        );
    }
}

fn a_region_that_was_cut_is_read() {
    for (name, len, region) in [("region-0", 0, "region 0"), ("region-1", 8192, "region 1")] {
        let mut program = start("taken-read");
        cut(&program, name, len);
        program.go_on();
        let ended = program.end();
        assert_named(
            &ended,
            &[
                region,
                "was cut by another process",
                "Sealed",
                &format!("({len} bytes"),
            ],
        );
    }
}

fn a_region_that_was_cut_ends_its_workers() {
    for len in [0, 4096] {
        let mut program = start("taken-workers");
        cut(&program, "region-1", len);
        program.go_on();
        program.end().assert_done();
    }
}

fn the_control_segment_is_cut() {
    for len in [0, 4096, 50_000] {
        let mut program = start("taken-idle");
        cut(&program, "control", len);
        program.go_on();
        let ended = program.end();
        assert_named(&ended, &["control segment", "was cut by another process"]);
    }
}

fn a_punched_region() {
    let mut program = start("taken-punched");
    for path in segments(program.pid(), "region-0") {
        let file = File::options().write(true).open(path).unwrap();
        let len = file.metadata().unwrap().len() as i64;
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        fallocate(&file, flags, 0, len).unwrap();
    }
    program.go_on();
    program.end().assert_done();
}

fn a_kept_name_is_unlinked() {
    let mut program = Program::start("taken-name", || Ok(()));
    let path = program.line();
    std::fs::remove_file(path).unwrap();
    program.go_on();
    program.end().assert_done();
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
    assert_eq!(
        (ended.code, ended.output.as_str()),
        (Some(42), ""),
        "{ended:?}"
    );
}

// ---- what those programs do ---------------------------------------------------------------------------------

fn build(backing: Backing) -> Engine {
    Engine::builder()
        .workers(1)
        .capacity(32 << 20)
        .backing(backing)
        .build()
        .unwrap()
}

fn made(n: usize) -> Array<u8> {
    Array::from_fn(n, |i| i as u8)
}

fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().map(|&x| u64::from(x)).sum()
}

/// Reads what lies in both regions.
fn read() {
    let engine = build(Backing::Memfd);
    let own = engine.from_fn(100_000, |i| i as u8).unwrap();
    let result = engine.submit(made, (100_000,)).wait().unwrap();
    say("ready");
    pause();
    let sums = (sum(&own), sum(&result));
    panic!("{sums:?} was read from memory that is gone");
}

/// Lets workers meet the cut, and hears why nothing goes on.
fn workers() {
    let engine = build(Backing::Memfd);
    assert_eq!(
        engine.submit(made, (1 << 20,)).wait().unwrap().len(),
        1 << 20
    );
    say("ready");
    pause();
    // It meets the cut, or there is no memory to be had from what was cut.
    let error = engine.submit(made, (100_000,)).wait().unwrap_err();
    let kind = error.kind();
    assert!(
        matches!(
            kind,
            JobErrorKind::Signal(libc::SIGBUS) | JobErrorKind::ArenaFull(_)
        ),
        "{error}"
    );
    for _ in 0..3 {
        let error = engine.submit(made, (10,)).wait().unwrap_err();
        let JobErrorKind::NoWorkers(why) = error.kind() else {
            panic!("{error}");
        };
        assert!(why.contains("region 1 was cut by another process"), "{why}");
    }
    engine.shutdown();
}

/// Submits something over a link that is gone.
fn idle() {
    let engine = build(Backing::Memfd);
    assert_eq!(
        engine
            .submit(sum, (&engine.from_slice(&[1u8, 2]).unwrap(),))
            .wait()
            .unwrap(),
        3
    );
    say("ready");
    pause();
    let _ = engine.submit(made, (10,)).wait();
    panic!("that cannot be");
}

/// Goes on with a region whose content is gone, until a worker ends.
fn punched() {
    let engine = build(Backing::Memfd);
    let own = engine.from_fn(1 << 20, |i| i as u8).unwrap();
    say("ready");
    pause();
    // Its content is lost, and cannot be told from zeros.
    let _ = sum(&own);
    let error = engine
        .submit(|| -> u8 { std::process::abort() }, ())
        .wait()
        .unwrap_err();
    assert_eq!(
        *error.kind(),
        JobErrorKind::Signal(libc::SIGABRT),
        "{error}"
    );
    let error = engine.submit(made, (10,)).wait().unwrap_err();
    let JobErrorKind::NoWorkers(why) = error.kind() else {
        panic!("{error}");
    };
    assert!(
        why.contains("region 0 was punched by another process"),
        "{why}"
    );
    drop(own);
    engine.shutdown();
}

/// Works on without its name.
fn name() {
    let name = format!("taken-{}", std::process::id());
    let engine = Engine::builder()
        .workers(1)
        .capacity(8 << 20)
        .name(&name)
        .build()
        .unwrap();
    let user = nix::unistd::geteuid();
    say(format!("/dev/shm/arenite-{user}-{name}.kept"));
    pause();
    assert_eq!(engine.submit(made, (1000,)).wait().unwrap().len(), 1000);
    let error = engine
        .submit(|| -> u8 { std::process::abort() }, ())
        .wait()
        .unwrap_err();
    assert_eq!(
        *error.kind(),
        JobErrorKind::Signal(libc::SIGABRT),
        "{error}"
    );
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

/// A program whose own files are cut handles that as before.
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
    // SAFETY: a map of a file that is this test's own.
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
