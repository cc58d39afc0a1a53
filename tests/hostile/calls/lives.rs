//! Scenarios of a supervisor whose calls fail: as much as fits into some ten milliseconds.

use std::time::Duration;

use arenite::engine::{ArenaError, Builder, SystemError};
use arenite::{
    ArenaFull, Array, ArrayMut, Backing, BuildError, Engine, InputError, JobError, JobErrorKind,
    JobLimit, TileMut, failing_calls,
};

use crate::harness::{ABORTED, Invariant, hang, wait_until};

/// A scenario.
#[derive(Clone, Copy)]
pub struct Life {
    pub name: &'static str,
    pub live: fn(&Invariant) -> Result<(), Failed>,
    /// The first calls fail for each of the reasons, as many as it takes to build the engine; each later one fails for
    /// one of them.
    pub each: u64,
}

pub const LIVES: &[Life] = &[
    Life {
        name: "a life with memory files",
        live: |invariant| deaths(Backing::Memfd, invariant),
        each: 60,
    },
    Life {
        name: "a life with named memory",
        live: |invariant| deaths(Backing::Named, invariant),
        each: 60,
    },
    Life {
        name: "a life with a kept name",
        live: kept,
        each: 0,
    },
    Life {
        name: "a life with a large array",
        live: large,
        each: 0,
    },
    Life {
        name: "a life with locked-down workers",
        live: locked,
        each: 0,
    },
];

/// Where a scenario ended early: the error, or what was wrong at its end.
#[derive(Debug)]
pub enum Failed {
    Build(BuildError),
    Input(ArenaFull),
    File(InputError),
    Job(JobError),
    Accounting(String),
}

impl Failed {
    /// Whether the program may see a failed call with this reason as this error.
    pub fn says(&self, errno: i32) -> bool {
        let is_ours = |error: &SystemError| error.raw_os_error() == errno;
        match self {
            Self::Build(BuildError::System(error)) => is_ours(error),
            Self::Build(BuildError::Arena(ArenaError::System(error))) => is_ours(error),
            Self::Build(BuildError::Arena(ArenaError::ArenaFull(_))) => true,
            Self::Build(BuildError::Worker(_)) => true,
            Self::Build(_) => false,
            Self::Input(full) | Self::File(InputError::ArenaFull(full)) => full.requested > 0,
            Self::File(_) | Self::Accounting(_) => false,
            Self::Job(error) => matches!(error.kind(), JobErrorKind::Limit(JobLimit::Arena(_))),
        }
    }
}

/// Every byte once. Arrays are made and compared in such pieces: byte by byte, a debug build takes longer than the rest
/// of the test.
static BYTES: [u8; 256] = {
    let mut bytes = [0; 256];
    let mut i = 0;
    while i < 256 {
        bytes[i] = i as u8;
        i += 1;
    }
    bytes
};

fn ramp(n: usize) -> Array<u8> {
    let mut ramp = ArrayMut::zeros(n);
    for piece in ramp.chunks_mut(BYTES.len()) {
        piece.copy_from_slice(&BYTES[..piece.len()]);
    }
    ramp.seal()
}

fn is_ramp(bytes: &[u8], n: usize) -> bool {
    let mut pieces = bytes.chunks(BYTES.len());
    bytes.len() == n && pieces.all(|piece| piece == &BYTES[..piece.len()])
}

fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().map(|&x| u64::from(x)).sum()
}

/// The first error of a scenario, which continues.
#[derive(Default)]
struct Troubles(Option<Failed>);

impl Troubles {
    fn note(&mut self, failed: Failed) {
        self.0.get_or_insert(failed);
    }

    /// The value of a job, if it has one.
    fn value<R>(&mut self, answer: Result<R, JobError>) -> Option<R> {
        answer.map_err(|error| self.note(Failed::Job(error))).ok()
    }

    /// Some arrays, all of which have to be right.
    fn ramps(&mut self, engine: &Engine) {
        let mut answers = 0;
        for (n, result) in (0..).zip(engine.map(ramp, (0..20usize).map(|n| (n * 5000,)))) {
            if let Some(bytes) = self.value(result) {
                assert!(is_ramp(&bytes, n * 5000));
            }
            answers += 1;
        }
        assert_eq!(answers, 20, "each has an answer");
    }

    /// A worker that ends, and is replaced.
    fn abort(&mut self, engine: &Engine) {
        let abort = || -> u8 { std::process::abort() };
        match engine.submit(abort, ()).wait().unwrap_err() {
            error if *error.kind() == ABORTED => {}
            error => self.note(Failed::Job(error)),
        }
    }

    /// A large array, when this number of workers that died has been replaced.
    fn go_on(&mut self, engine: &Engine, restarts: u64) {
        if let Some(bytes) = self.value(engine.submit(ramp, (700_000,)).wait()) {
            assert!(is_ramp(&bytes, 700_000));
        }
        wait_until("those that died have been replaced", || {
            let stats = engine.stats();
            stats.restarts() >= restarts && stats.workers.iter().all(|worker| worker.ready)
        });
    }

    /// The end of a scenario: whatever failed, the accounting is consistent. No call fails while that is checked, so
    /// that failures hit the scenario's own calls, and then those of the engine's end.
    fn end(self, engine: Engine, invariant: &Invariant) -> Result<(), Failed> {
        failing_calls::suspend(|| invariant.holds(&engine, 0)).map_err(Failed::Accounting)?;
        engine.shutdown();
        self.0.map_or(Ok(()), Err)
    }
}

fn builder() -> Builder {
    Engine::builder().workers(2).capacity(16 << 20)
}

/// An array that several threads commit, where there are cores and huge pages: it is complete or absent, and is freed.
fn large(invariant: &Invariant) -> Result<(), Failed> {
    const LEN: usize = 70 << 20;
    let builder = Engine::builder().workers(1).capacity(256 << 20);
    let engine = builder.build().map_err(Failed::Build)?;
    let mut troubles = Troubles::default();
    match engine.zeros::<u8>(LEN) {
        Ok(zeros) => {
            assert!(engine.stats().arena.committed >= LEN as u64);
            assert!(zeros.iter().step_by(512).all(|&byte| byte == 0));
        }
        Err(full) => troubles.note(Failed::Input(full)),
    }
    // Once more, so that a call that frees memory fails too.
    engine.trim();
    engine.trim();
    assert!(engine.stats().arena.committed < 1 << 20);
    troubles.end(engine, invariant)
}

/// Build, submit, map, lose a worker on its own and one by a kill, get replacements, shut down. Returns the first
/// error.
fn deaths(backing: Backing, invariant: &Invariant) -> Result<(), Failed> {
    let engine = builder().backing(backing).build().map_err(Failed::Build)?;
    let values = engine
        .from_fn(100_000, |i| i as u8)
        .map_err(Failed::Input)?;
    let expected = values.iter().map(|&x| u64::from(x)).sum::<u64>();
    let mut troubles = Troubles::default();
    if let Some(found) = troubles.value(engine.submit(sum, (&values,)).wait()) {
        assert_eq!(found, expected);
    }
    troubles.ramps(&engine);
    troubles.abort(&engine);
    let limit = Duration::from_millis(1);
    let late = engine.job(hang, ()).deadline(limit).submit();
    match late.wait().unwrap_err() {
        error if matches!(error.kind(), JobErrorKind::Limit(JobLimit::Deadline { .. })) => {}
        error => troubles.note(Failed::Job(error)),
    }
    // Not before the hanging one is gone.
    troubles.go_on(&engine, 2);
    drop(values);
    troubles.end(engine, invariant)
}

fn fill(mut tile: TileMut<'_, u32>, with: u32) {
    tile.fill(with);
}

/// Ends when it is asked to.
fn obey() -> u8 {
    while !arenite::cancelled() {
        std::thread::park_timeout(Duration::from_micros(100));
    }
    7
}

/// An array with a name, a file, tiles, dropped jobs, freed memory, and workers that are recycled after some jobs.
fn kept(invariant: &Invariant) -> Result<(), Failed> {
    let name = format!("calls-{}", std::process::id());
    let engine = builder()
        .name(name)
        .recycle_after_jobs(16)
        .build()
        .map_err(Failed::Build)?;
    let mut troubles = Troubles::default();
    let file = tempfile::NamedTempFile::new().unwrap();
    let bytes: Vec<u8> = (0..50_000).map(|i| i as u8).collect();
    std::fs::write(file.path(), bytes).unwrap();
    match engine.read_file(file.path()) {
        Ok(bytes) => assert!(is_ramp(&bytes, 50_000)),
        Err(error) => troubles.note(Failed::File(error)),
    }
    match engine.zeros::<u32>(40_000) {
        Ok(mut array) => {
            let filled = engine.scope(|scope| {
                for (tile, with) in array.tiles_mut(5_000).zip(1..) {
                    scope.submit(fill, (tile, with));
                }
            });
            if troubles.value(filled).is_some() {
                let tiles = array.chunks(5_000).zip(1..);
                tiles.for_each(|(tile, with)| assert!(tile.iter().all(|&x| x == with)));
            }
        }
        Err(full) => troubles.note(Failed::Input(full)),
    }
    // One is asked while it runs or waits, and one is killed or retracted.
    let asked = engine.submit(obey, ());
    asked.cancel();
    let ended = engine.submit(hang, ());
    ended.kill();
    let asked = asked.wait().map(|value| assert_eq!(value, 7));
    for ended in [asked, ended.wait()] {
        match ended {
            Ok(()) => {}
            Err(error) if *error.kind() == JobErrorKind::Cancelled => {}
            Err(error) => troubles.note(Failed::Job(error)),
        }
    }
    troubles.ramps(&engine);
    engine.trim();
    troubles.ramps(&engine);
    wait_until("a worker had enough jobs", || {
        let workers = engine.stats().workers;
        workers.iter().any(|worker| worker.recycled > 0)
    });
    troubles.end(engine, invariant)
}

/// As [`deaths`], with results that are copied out. Workers with jobs are sandboxed as far as the engine reports.
fn locked(invariant: &Invariant) -> Result<(), Failed> {
    let builder = builder().sandbox(arenite::Sandbox::Strict);
    let engine = builder.build().map_err(Failed::Build)?;
    let mut troubles = Troubles::default();
    super::workers::assert_locked_down(&engine);
    // One call fails, and either of two parts denies files.
    let shut = || std::fs::File::open("/proc/self/exe").is_err();
    if let Some(shut) = troubles.value(engine.submit(shut, ()).wait()) {
        assert!(shut, "{:?}", engine.sandbox_report());
    }
    troubles.ramps(&engine);
    troubles.abort(&engine);
    troubles.go_on(&engine, 1);
    super::workers::assert_locked_down(&engine);
    troubles.end(engine, invariant)
}
