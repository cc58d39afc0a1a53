//! Limits that are too low: an engine works, or an error names the limit. Never a death or a hang, and nothing is left.

use arenite::stream::Stream;
use arenite::{Array, Backing, Engine, OnFailure};
use nix::sys::resource::{Resource, setrlimit};

use crate::harness::programs::{Ended, Program, Scenario, say};
use crate::harness::{Invariant, assert_kind, builder, tests};
use crate::users::become_unprivileged;

tests![
    open_files,
    processes,
    no_thread_for_a_source,
    locked_memory,
    addresses,
    data,
    file_sizes,
    a_file_size_limit_that_comes_later,
];

pub const SCENARIOS: &[Scenario] = &[
    ("limits-build", build),
    ("limits-later", later),
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
    let backing = match std::env::var("ARENITE_HOSTILE_BACKING").as_deref() {
        Ok("named") => Backing::Named,
        _ => Backing::Memfd,
    };
    let engine = builder(2, 16 << 20).backing(backing).build();
    match engine {
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
            command.env("ARENITE_HOSTILE_BACKING", backing);
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

/// Works, or fails and names the limit.
fn assert_named(resource: Resource, limit: u64, names: &[&str]) -> bool {
    let said = under(resource, limit);
    for line in &said {
        let named = names.iter().any(|name| line.contains(name));
        assert!(
            line == "works" || line.starts_with("refused: ") && named,
            "{resource:?} {limit}: {line}"
        );
    }
    said.iter().all(|line| line == "works")
}

fn open_files() {
    assert!(!assert_named(
        Resource::RLIMIT_NOFILE,
        16,
        &["RLIMIT_NOFILE"]
    ));
    for limit in [20, 24, 28, 32, 40] {
        assert_named(Resource::RLIMIT_NOFILE, limit, &["RLIMIT_NOFILE"]);
    }
    assert!(assert_named(Resource::RLIMIT_NOFILE, 64, &[]));
}

fn processes() {
    if !crate::users::is_root() {
        // Other processes of this user count as well.
        assert_named(Resource::RLIMIT_NPROC, 1, &["RLIMIT_NPROC"]);
        return;
    }
    assert!(!assert_named(Resource::RLIMIT_NPROC, 1, &["RLIMIT_NPROC"]));
    for limit in [2, 3, 4] {
        assert_named(Resource::RLIMIT_NPROC, limit, &["RLIMIT_NPROC"]);
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
    assert!(assert_named(Resource::RLIMIT_MEMLOCK, 0, &[]));
}

fn addresses() {
    const MIB: u64 = 1 << 20;
    assert!(!assert_named(Resource::RLIMIT_AS, 64 * MIB, &["RLIMIT_AS"]));
    assert_named(Resource::RLIMIT_AS, 256 * MIB, &["RLIMIT_AS"]);
    assert!(assert_named(Resource::RLIMIT_AS, 4096 * MIB, &[]));
}

fn data() {
    const MIB: u64 = 1 << 20;
    assert_named(Resource::RLIMIT_DATA, 4 * MIB, &["RLIMIT_DATA"]);
    assert!(assert_named(Resource::RLIMIT_DATA, 64 * MIB, &[]));
}

fn file_sizes() {
    for limit in [0, 4096, 100_000, 1 << 20, 15 << 20] {
        assert!(!assert_named(
            Resource::RLIMIT_FSIZE,
            limit,
            &["RLIMIT_FSIZE"]
        ));
    }
    assert!(assert_named(Resource::RLIMIT_FSIZE, 16 << 20, &[]));
}

/// Grows its arena after the limit was set.
fn later() {
    let engine = builder(1, 64 << 20).build().unwrap();
    work(&engine);
    setrlimit(Resource::RLIMIT_FSIZE, 4 << 20, 4 << 20).unwrap();
    let full = engine.zeros::<u8>(32 << 20).unwrap_err();
    assert!(full.capacity == 64 << 20, "{full}");
    let error = engine
        .submit(|n: usize| Array::<u8>::zeros(n), (32 << 20,))
        .wait()
        .unwrap_err();
    assert_kind!(
        error,
        arenite::JobErrorKind::Limit(arenite::JobLimit::Arena(_))
    );
    work(&engine);
    engine.shutdown();
}

/// SIGXFSZ would end the program.
fn a_file_size_limit_that_comes_later() {
    let ended: Ended = Program::start("limits-later", become_unprivileged).end();
    ended.assert_done();
}
