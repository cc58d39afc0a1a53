//! Limits that are too low: an engine works, or an error names the limit. Never a death or a hang, and nothing is left.

use std::time::Duration;

use arenite::engine::SystemLimit;
use arenite::stream::Stream;
use arenite::{Array, Engine, JobErrorKind, JobLimit, OnFailure};
use arenite_memory::CowHeap;
use nix::sys::resource::{Resource, setrlimit};

use crate::harness::programs::{Ended, Program, Scenario, say};
use crate::harness::{Calls, Invariant, assert_kind, builder, tests};
use crate::users::{BACKING, asked_backing, become_unprivileged};

tests![
    open_files,
    processes,
    no_thread_for_a_source,
    locked_memory,
    memory_that_is_locked_later,
    addresses,
    data,
    file_sizes,
    a_file_size_limit_that_comes_later,
];

pub const SCENARIOS: &[Scenario] = &[
    ("limits-build", build),
    ("limits-later", later),
    ("limits-locked", locked),
    ("limits-source", source),
];

fn numbers(values: &Array<u32>, n: u32) -> Array<u32> {
    Array::from_fn(values.shape(), |i| values[i] + n)
}

/// Works, and holds nothing afterwards.
fn work(engine: &Engine) {
    let values = engine.from_fn(10_000, |i| i as u32).unwrap();
    let mut answers = 0;
    for (n, result) in (0..).zip(engine.map(numbers, (0..50u32).map(|n| (&values, n)))) {
        assert!(result.unwrap().iter().zip(0..).all(|(&x, i)| x == i + n));
        answers += 1;
    }
    assert_eq!(answers, 50, "each has an answer");
    drop(values);
    let holds = Invariant::before().holds(engine, 0);
    holds.unwrap_or_else(|why| panic!("{why}"));
}

/// Builds an engine, works with it and ends it, or returns why not.
fn build() {
    match builder(2, 16 << 20).backing(asked_backing()).build() {
        Ok(engine) => {
            work(&engine);
            engine.shutdown();
            say("works");
        }
        Err(error) => say(format!("refused: {error}")),
    }
}

/// Runs the scenario under a limit, ten times with both backings. Returns the output.
fn under(resource: Resource, limit: u64) -> Vec<String> {
    let once = |backing: &str| {
        let prepare = move || {
            become_unprivileged()?;
            setrlimit(resource, limit, limit)?;
            Ok(())
        };
        let change = |command: &mut std::process::Command| {
            command.env(BACKING, backing);
        };
        let ended = Program::with("limits-build", prepare, change).end();
        assert_eq!(ended.code, Some(0), "{resource:?} {limit}: {ended:?}");
        let said = ended
            .output
            .strip_suffix("done\n")
            .expect("it went through to its end");
        said.trim_end().to_owned()
    };
    (0..5)
        .flat_map(|_| [once("memfd"), once("named")])
        .collect()
}

/// Checks that programs under any of these limits work, or fail and name the limit: those that are too low, others, and
/// those that suffice.
fn check(resource: Resource, too_low: &[u64], low: &[u64], enough: &[u64]) {
    let name = format!("{resource:?}");
    let all = [(too_low, Some(false)), (low, None), (enough, Some(true))];
    for (limits, works) in all {
        for &limit in limits {
            let said = under(resource, limit);
            for line in &said {
                let is_named = line.starts_with("refused: ") && line.contains(&name);
                assert!(line == "works" || is_named, "{name} {limit}: {line}");
            }
            let all_work = said.iter().all(|line| line == "works");
            assert!(
                works.is_none_or(|works| works == all_work),
                "{name} {limit}: {said:?}"
            );
        }
    }
}

const MIB: u64 = 1 << 20;

fn open_files() {
    check(Resource::RLIMIT_NOFILE, &[16], &[20, 24, 28, 32, 40], &[64]);
}

fn processes() {
    match crate::users::is_root() {
        true => check(Resource::RLIMIT_NPROC, &[1], &[2, 3, 4], &[]),
        // Other processes of this user count as well.
        false => check(Resource::RLIMIT_NPROC, &[], &[1], &[]),
    }
}

/// A source that needs a thread, where none can be started.
fn source() {
    for on_failure in [OnFailure::Stop, OnFailure::GoOn] {
        let stream = Stream::spawn(0..10u32).on_failure(on_failure);
        let engine = Engine::inline();
        let mut run = stream.run(&engine);
        say(run.next().unwrap().unwrap_err());
        assert!(run.next().is_none());
    }
}

/// It is the last item of the stream, also where failures are skipped.
fn no_thread_for_a_source() {
    let ended = Program::start("limits-source", || {
        become_unprivileged()?;
        setrlimit(Resource::RLIMIT_NPROC, 0, 0)?;
        Ok(())
    });
    let ended: Ended = ended.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let said = ended
        .output
        .matches("the source, at item 0: its thread cannot be started");
    assert_eq!(said.count(), 2, "{ended:?}");
    assert!(ended.output.contains("RLIMIT_NPROC"), "{ended:?}");
}

fn locked_memory() {
    check(Resource::RLIMIT_MEMLOCK, &[], &[], &[0]);
}

/// Locks all its memory, as programs that must not be delayed do. Only what arrays take may become memory.
fn locked() {
    let engine = builder(1, 1 << 30).build().unwrap();
    let heap: &'static CowHeap = Box::leak(Box::new(CowHeap::new("locked").unwrap()));
    let block = heap.alloc(4 << 20, true).unwrap();
    // A failure must not take the memory of the machine.
    std::thread::spawn(|| {
        loop {
            assert_few(600);
            std::thread::park_timeout(Duration::from_millis(1));
        }
    });
    assert_eq!(
        // SAFETY: takes a number.
        unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE) },
        0
    );
    work(&engine);
    engine.error_of(|| -> u8 { std::process::abort() }, ());
    work(&engine);
    let other = heap.alloc(4 << 20, false).unwrap();
    assert_few(600);
    // SAFETY: both were allocated above and are not used.
    unsafe {
        heap.free(block);
        heap.free(other);
    }
    engine.shutdown();
    // The heap and the thread are left.
    say("done");
    std::process::exit(0);
}

/// Ends this process if it has more resident memory than this, in MiB.
fn assert_few(mib: u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_ascii_whitespace().next());
    let kib: u64 = kib.unwrap().parse().unwrap();
    if kib > mib << 10 {
        eprintln!("{kib} KiB are resident");
        std::process::exit(1);
    }
}

fn memory_that_is_locked_later() {
    if crate::users::is_root() {
        Program::start("limits-locked", || Ok(()))
            .end()
            .assert_done();
    }
}

fn addresses() {
    check(
        Resource::RLIMIT_AS,
        &[64 * MIB],
        &[256 * MIB],
        &[4096 * MIB],
    );
}

fn data() {
    check(Resource::RLIMIT_DATA, &[], &[4 * MIB], &[64 * MIB]);
}

fn file_sizes() {
    let too_low = [0, 4096, 100_000, MIB, 15 * MIB];
    check(Resource::RLIMIT_FSIZE, &too_low, &[], &[16 * MIB]);
}

/// Grows its arena after the limit was set.
fn later() {
    let engine = builder(1, 64 << 20).build().unwrap();
    work(&engine);
    setrlimit(Resource::RLIMIT_FSIZE, 4 << 20, 4 << 20).unwrap();
    let full = engine.zeros::<u8>(32 << 20).unwrap_err();
    assert!(full.capacity == 64 << 20, "{full}");
    assert_eq!(full.limit(), Some(SystemLimit::FileSize), "{full}");
    assert!(full.to_string().contains("RLIMIT_FSIZE"), "{full}");
    let made = engine.submit(|n: usize| Array::<u8>::zeros(n), (32 << 20,));
    let error = made.wait().unwrap_err();
    assert_kind!(error, JobErrorKind::Limit(JobLimit::Arena(_)));
    work(&engine);
    engine.shutdown();
}

/// SIGXFSZ would end the program.
fn a_file_size_limit_that_comes_later() {
    let ended: Ended = Program::start("limits-later", become_unprivileged).end();
    ended.assert_done();
}
