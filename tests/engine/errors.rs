//! Kernel errors that reach the caller as values.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use arenite::{
    Array, Backoff, Engine, FailedDependency, JobError, JobErrorKind, JobLimit, KernelError,
    Sandbox, Spawn, Typed, WorkerExit, call,
};

use crate::harness::{Calls, Lab, assert_kind, assert_says, tests, wait_until};

tests![
    a_returned_error_keeps_its_type,
    an_untyped_error_arrives_as_its_text,
    an_error_larger_than_a_slot_arrives_whole,
    a_typed_error_without_room_is_a_full_arena,
    maps_and_scopes_keep_the_type,
    jobs_of_jobs_keep_the_type_of_the_one_that_failed,
    spawned_jobs_keep_the_type,
    reductions_keep_the_type,
    actors_keep_the_type,
    retries_keep_the_type_of_the_last_error,
    a_broken_encoding_is_a_protocol_fault,
    a_decoder_that_panics_fails_its_job,
];

/// The error type of these kernels.
#[derive(Clone, Debug, PartialEq)]
enum Refusal {
    Odd(u64),
    Named { name: String },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Odd(n) => write!(f, "{n} is odd"),
            Self::Named { name } => write!(f, "{} bytes of a name", name.len()),
        }
    }
}

impl KernelError for Refusal {
    fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Odd(n) => [&[0][..], &n.to_le_bytes()].concat(),
            Self::Named { name } => [&[1], name.as_bytes()].concat(),
        }
    }
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        match kind {
            0 => Some(Self::Odd(u64::from_le_bytes(rest.try_into().ok()?))),
            1 => Some(Self::Named {
                name: String::from_utf8(rest.to_vec()).ok()?,
            }),
            _ => None,
        }
    }
}

fn half(n: u64) -> Result<u64, Typed<Refusal>> {
    match n % 2 {
        0 => Ok(n / 2),
        _ => Err(Refusal::Odd(n).into()),
    }
}

fn named(len: usize) -> Result<Array<u8>, Typed<Refusal>> {
    // `?` wraps it.
    Err(Refusal::Named {
        name: "x".repeat(len),
    })?
}

/// Whether this job returned the error that `n` is odd.
#[track_caller]
fn assert_odd(error: &JobError, n: u64) {
    assert_eq!(error.returned(), Some(Refusal::Odd(n)), "{error}");
    assert_eq!(error.returned::<u64>(), None, "it is of another type");
    let text = format!("{n} is odd");
    assert_says(&error, &text);
}

fn a_returned_error_keeps_its_type() {
    let lab = Lab::balanced(1);
    for engine in [&*lab, &Engine::inline()] {
        assert_eq!(engine.value_of(half, (4,)), 2);
        let error = engine.error_of(half, (3,));
        assert_odd(&error, 3);
        let JobErrorKind::Returned(returned) = error.kind() else {
            panic!("{error}");
        };
        assert_eq!(returned.text(), "3 is odd");
        assert_eq!(returned.value(), Some(Refusal::Odd(3)));
        assert!(error.kernel().ends_with("half"), "{error}");
        // Plain data needs no encoding.
        let code = |n: i32| -> Result<(), Typed<i32>> { Err(Typed(-n)) };
        let error = engine.error_of(code, (5,));
        assert_eq!(error.returned(), Some(-5), "{error}");
        // In a chain, the error of the kernel that failed.
        for (n, at) in [(3, 3), (6, 3), (8, 0)] {
            let chain = engine.job(half, (n,)).then(half, ()).then(|n: u64| n, ());
            match (chain.submit().wait(), at) {
                (Ok(n), 0) => assert_eq!(n, 2),
                (Err(error), at) => assert_odd(&error, at),
                (Ok(n), _) => panic!("{n}"),
            }
        }
    }
    assert_eq!(lab.stats().restarts(), 0);
}

fn an_untyped_error_arrives_as_its_text() {
    fn plain(n: u64) -> Result<u64, Refusal> {
        half(n).map_err(|Typed(error)| error)
    }
    let lab = Lab::new(1);
    for engine in [&*lab, &Engine::inline()] {
        let error = engine.error_of(plain, (3,));
        assert_eq!(*error.kind(), JobErrorKind::Returned("3 is odd".into()));
        assert_eq!(error.returned::<Refusal>(), None);
        // The same text with a value is another error.
        let typed = engine.error_of(half, (3,));
        assert_ne!(typed.kind(), error.kind());
    }
}

/// Also from a sandbox, whose memory nothing else reads.
fn an_error_larger_than_a_slot_arrives_whole() {
    let strict = Lab::balanced_with(1, |builder| builder.sandbox(Sandbox::Strict));
    let lab = Lab::balanced(1);
    for engine in [&*lab, &*strict, &Engine::inline()] {
        for len in [0, 1, 8, 50, 96, 4096, 100_000, (1 << 20) - 1] {
            let error = engine.error_of(named, (len,));
            let name = "x".repeat(len);
            assert_eq!(error.returned(), Some(Refusal::Named { name }), "{error}");
        }
        let error = engine.error_of(named, (8 << 20,));
        assert_eq!(error.returned::<Refusal>(), None);
        assert_says(&error, "is the most");
    }
    assert_eq!(lab.stats().restarts() + strict.stats().restarts(), 0);
}

fn a_typed_error_without_room_is_a_full_arena() {
    let lab = Lab::balanced_with(1, |builder| builder.capacity(16 << 20));
    let mut all = Vec::new();
    while let Ok(array) = lab.uninit::<u8>(64 << 10) {
        all.push(array);
    }
    let error = lab.error_of(named, (500_000,));
    assert_kind!(error, JobErrorKind::Limit(JobLimit::Arena(_)));
    // A short one fits into its slot.
    let error = lab.error_of(named, (10,));
    let name = "x".repeat(10);
    assert_eq!(error.returned(), Some(Refusal::Named { name }), "{error}");
    drop(all);
    assert_eq!(lab.stats().restarts(), 0);
}

fn maps_and_scopes_keep_the_type() {
    let lab = Lab::balanced(2);
    for engine in [&*lab, &Engine::inline()] {
        for (n, result) in engine.map(half, (0..100).map(|n| (n,))).enumerate() {
            match result {
                Ok(half) => assert_eq!(half, n as u64 / 2),
                Err(error) => assert_odd(&error, n as u64),
            }
        }
        let report = engine.map(half, (0..10).map(|n| (n,))).report();
        for (letter, n) in report.failures.iter().zip([1, 3, 5, 7, 9]) {
            assert_eq!(letter.args, (n,));
            assert_odd(&letter.error, n);
        }
        assert_eq!(report.failures.len(), 5);
        let error = engine.scope(|s| drop(s.submit(half, (7,)))).unwrap_err();
        assert_odd(&error, 7);
        let error = engine
            .scope_try(|s| s.submit(half, (9,)).wait())
            .unwrap_err();
        assert_odd(&error, 9);
        let (_, errors) = engine.scope_collect(|s| drop(s.submit(half, (5,))));
        assert_odd(&errors[0], 5);
    }
}

fn jobs_of_jobs_keep_the_type_of_the_one_that_failed() {
    let lab = Lab::balanced(2);
    for engine in [&*lab, &Engine::inline()] {
        for n in [3, 6, 12] {
            let first = engine.submit(half, (n,));
            let second = engine.submit(half, (&first,));
            let third = engine.submit(half, (&second,));
            assert_odd(&third.wait().unwrap_err(), 3);
        }
        let odd = engine.submit(half, (5,));
        let sum = |a: u64, b: u64| a + b;
        let [left, right] = [(); 2].map(|()| engine.submit(half, (&odd,)));
        let last = engine.submit(sum, (&left, &right));
        let error = last.wait().unwrap_err();
        assert_kind!(
            error,
            JobErrorKind::Dependency(FailedDependency::Input { .. })
        );
        assert_odd(&error, 5);
        assert_odd(error.origin().unwrap(), 5);
    }
    assert_eq!(lab.stats().restarts(), 0);
}

fn spawned_jobs_keep_the_type() {
    fn halves(n: u64) -> Result<Spawn<u64>, Typed<Refusal>> {
        if n == 13 {
            return Err(Refusal::Odd(n).into());
        }
        let sum = |a: u64, b: u64| a + b;
        Ok(Spawn::new(sum, (call(half, (n,)), call(half, (n + 2,)))))
    }
    fn then_half(n: u64) -> Spawn<Result<u64, Typed<Refusal>>> {
        Spawn::new(half, (call(|n: u64| n + 1, (n,)),))
    }
    let lab = Lab::balanced(2);
    for engine in [&*lab, &Engine::inline()] {
        assert_eq!(engine.value_of(halves, (4,)), 5);
        let error = engine.error_of(halves, (13,));
        assert_kind!(error, JobErrorKind::Returned(_));
        assert_odd(&error, 13);
        let error = engine.error_of(halves, (5,));
        assert_kind!(
            error,
            JobErrorKind::Dependency(FailedDependency::Child { .. })
        );
        assert!(matches!(error.returned(), Some(Refusal::Odd(5 | 7))));
        let error = engine.error_of(then_half, (6,));
        assert_odd(&error, 7);
    }
    assert_eq!(lab.stats().restarts(), 0);
}

fn reductions_keep_the_type() {
    fn sum(part: &Array<u64>) -> Result<u64, Typed<Refusal>> {
        match part.iter().find(|&&n| n == 70_001) {
            Some(&n) => Err(Refusal::Odd(n).into()),
            None => Ok(part.iter().sum()),
        }
    }
    fn add(a: u64, b: u64) -> Result<u64, Typed<u64>> {
        match a + b {
            n if n > 100_000_000_000 => Err(Typed(n)),
            n => Ok(n),
        }
    }
    let lab = Lab::new(2);
    for engine in [&*lab, &Engine::inline()] {
        let numbers = engine.from_fn([100_000], |i| i as u64).unwrap();
        let error = engine.par(&numbers).reduce(sum, (), add).unwrap_err();
        assert_eq!(error.returned(), Some(Refusal::Odd(70_001)), "{error}");
        let numbers = engine.from_fn([400_000], |i| 1_000_000 + i as u64).unwrap();
        let error = engine.par(&numbers).reduce(sum, (), add).unwrap_err();
        let sum: Option<u64> = error.returned();
        assert!(sum.is_some_and(|sum| sum > 100_000_000_000), "{error}");
    }
    assert_eq!(lab.stats().restarts(), 0);
}

fn actors_keep_the_type() {
    fn start(n: u64) -> Result<u64, Typed<Refusal>> {
        half(n)
    }
    fn add(state: &mut u64, n: u64) -> Result<u64, Typed<Refusal>> {
        *state += half(n)?;
        Ok(*state)
    }
    let lab = Lab::new(1);
    for engine in [&*lab, &Engine::inline()] {
        let actor = engine.actor::<_, _, _, _, u64>(start, (10,)).start();
        let error = actor.call(add, (3,)).wait().unwrap_err();
        assert_odd(&error, 3);
        assert_eq!(actor.call(add, (4,)).wait().unwrap(), 7);
        // Calls fail because the state was never created.
        let actor = engine.actor::<_, _, _, _, u64>(start, (11,)).start();
        let error = actor.call(add, (4,)).wait().unwrap_err();
        assert_kind!(
            error,
            JobErrorKind::Dependency(FailedDependency::Actor { .. })
        );
        assert_odd(&error, 11);
    }
    assert_eq!(lab.stats().restarts(), 0);
}

fn retries_keep_the_type_of_the_last_error() {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    fn count() -> Result<(), Typed<u32>> {
        Err(Typed(CALLS.fetch_add(1, SeqCst)))
    }
    let lab = Lab::new(1);
    let job = lab.job(count, ()).retries(2).retry_errors();
    let error = job.backoff(Backoff::NONE).submit().wait().unwrap_err();
    assert_eq!(
        (error.returned(), error.attempt()),
        (Some(2u32), 3),
        "{error}"
    );
    let earlier = error.deaths().iter().map(|death| death.kind.returned());
    assert!(earlier.eq([Some(0u32), Some(1)]), "{error:#?}");
}

/// Set while the program decodes an [`Unreadable`]; workers never set it.
static MODE: AtomicU32 = AtomicU32::new(0);

/// An error that its worker can decode, but the program cannot.
#[derive(Debug)]
struct Unreadable;

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unreadable")
    }
}

impl KernelError for Unreadable {
    fn to_bytes(&self) -> Vec<u8> {
        Vec::new()
    }
    fn from_bytes(_: &[u8]) -> Option<Self> {
        match MODE.load(SeqCst) {
            0 => Some(Self),
            1 => None,
            _ => panic!("out of order"),
        }
    }
}

fn unreadable() -> Result<(), Typed<Unreadable>> {
    Err(Typed(Unreadable))
}

fn a_broken_encoding_is_a_protocol_fault() {
    let lab = Lab::new(1);
    lab.value_of(|| (), ());
    MODE.store(1, SeqCst);
    let error = lab.error_of(unreadable, ());
    MODE.store(0, SeqCst);
    assert_kind!(error, JobErrorKind::Lost(WorkerExit::Protocol(_)));
    wait_until("its worker is replaced", || lab.stats().restarts() == 1);
    // The next one is fine, and so is the encoding.
    let error = lab.error_of(unreadable, ());
    assert!(error.returned::<Unreadable>().is_some(), "{error}");
    // An inline engine detects and names it at once.
    MODE.store(1, SeqCst);
    let error = Engine::inline().submit(unreadable, ()).wait().unwrap_err();
    MODE.store(0, SeqCst);
    assert_says(&error, "Unreadable");
}

fn a_decoder_that_panics_fails_its_job() {
    let lab = Lab::balanced(1);
    lab.value_of(|| (), ());
    MODE.store(2, SeqCst);
    let error = lab.error_of(unreadable, ());
    MODE.store(0, SeqCst);
    assert_kind!(error, JobErrorKind::Panicked { message, .. } if message == "out of order");
    lab.value_of(|| (), ());
    assert_eq!(lab.stats().restarts(), 0);
}
