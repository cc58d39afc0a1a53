//! A shared object with kernels, as an extension module of an interpreter is. `host.rs` loads it.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::ffi::{CStr, CString, OsStr, c_char};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use arenite::bytemuck::{Pod, Zeroable};
use arenite::engine::WorkerProgram;
use arenite::{Array, BuildError, Engine, JobErrorKind, WorkerExit};

type Outcome = Result<(), Box<dyn std::error::Error>>;
type Test = (&'static str, fn(&Path) -> Outcome);

const IDENTITY: &[u8] = b"object 1";

/// Makes the process a worker.
#[unsafe(no_mangle)]
pub extern "C" fn object_worker() {
    arenite::run_worker(IDENTITY)
}

/// Tests engines whose workers run `program`, with `worker` as its argument. Returns whether they passed, and prints what
/// did not.
///
/// # Safety
/// `program` is a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn object_test(program: *const c_char) -> bool {
    // SAFETY: the caller's promise.
    let program = Path::new(OsStr::from_bytes(
        unsafe { CStr::from_ptr(program) }.to_bytes(),
    ));
    let tests: [Test; 4] = [
        ("the_program_has_to_be_named", the_program_has_to_be_named),
        ("kernels_of_the_object_run", kernels_of_the_object_run),
        ("a_panic_names_its_place", a_panic_names_its_place),
        // Last: it changes the environment.
        (
            "workers_start_whatever_the_environment_is_now",
            workers_start_whatever_the_environment_is_now,
        ),
    ];
    let mut failed = 0;
    for (name, test) in tests {
        let outcome = std::panic::catch_unwind(|| test(program).map_err(|error| error.to_string()));
        match &outcome {
            Ok(Ok(())) => println!("test {name} ... ok"),
            Ok(Err(why)) => println!("test {name} ... FAILED: {why}"),
            Err(_) => println!("test {name} ... FAILED"),
        }
        failed += usize::from(!matches!(outcome, Ok(Ok(()))));
    }
    let (passed, word) = (
        tests.len() - failed,
        if failed == 0 { "ok" } else { "FAILED" },
    );
    println!("\ntest result: {word}. {passed} passed; {failed} failed; 0 ignored");
    failed == 0
}

fn engine(program: &Path) -> Result<Engine, BuildError> {
    let program = WorkerProgram::new(program)
        .args(["worker"])
        .identity(IDENTITY);
    Engine::builder()
        .workers(2)
        .capacity(64 << 20)
        .on_worker_start(start)
        .worker_program(program)
        .build()
}

static STARTED: std::sync::OnceLock<u64> = std::sync::OnceLock::new();

fn start() {
    STARTED.set(7).expect("called once");
}

/// This package does not depend on `bytemuck`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[bytemuck(crate = "arenite::bytemuck")]
#[repr(C)]
struct Factor(u64);

impl arenite::Scalar for Factor {}

fn scaled(values: &Array<u64>, by: Factor) -> Array<u64> {
    let start = STARTED.get().expect("started");
    Array::from_fn(values.shape(), |i| values[i] * by.0 + start)
}

fn the_program_has_to_be_named(_program: &Path) -> Outcome {
    match Engine::builder().workers(1).build() {
        Err(BuildError::NotInitialised) => Ok(()),
        other => Err(format!("{other:?}").into()),
    }
}

fn kernels_of_the_object_run(program: &Path) -> Outcome {
    let engine = engine(program)?;
    let values = engine.from_fn(1000, |i| i as u64)?;
    for (by, result) in (0..100).zip(engine.map(scaled, (0..100).map(|by| (&values, Factor(by))))) {
        let result = result?;
        assert!((0..).zip(result.iter()).all(|(i, &x)| x == i * by + 7));
    }
    let error = engine
        .submit(|| -> u8 { std::process::abort() }, ())
        .wait()
        .unwrap_err();
    assert_eq!(
        *error.kind(),
        JobErrorKind::Lost(WorkerExit::Signal(libc::SIGABRT))
    );
    // A function of another object.
    let error = engine
        .submit(
            || -> String { Engine::builder().build().unwrap_err().to_string() },
            (),
        )
        .wait()?;
    assert!(error.contains("this process is a worker"), "{error}");
    Ok(())
}

fn a_panic_names_its_place(program: &Path) -> Outcome {
    let error = engine(program)?
        .submit(|| -> u8 { panic!("on purpose") }, ())
        .wait()
        .unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("on purpose") && text.contains("object/lib.rs"),
        "{text}"
    );
    Ok(())
}

/// Changes the environment as code does that knows nothing of Rust's lock.
fn setenv(name: &CStr, value: &str) {
    let value = CString::new(value).expect("no zero byte");
    // SAFETY: no other thread uses the environment: this is what the test asserts of the engine.
    assert_eq!(unsafe { libc::setenv(name.as_ptr(), value.as_ptr(), 1) }, 0);
}

fn workers_start_whatever_the_environment_is_now(program: &Path) -> Outcome {
    let of_worker = || std::env::var("ARENITE_TEST_OBJECT").unwrap_or_default();
    let engine = engine(program)?;
    setenv(c"TMPDIR", "/missing/folder");
    setenv(c"ARENITE_TEST_OBJECT", "later");
    for exit in [|| -> u8 { std::process::exit(3) }; 4] {
        let error = engine.submit(exit, ()).wait().unwrap_err();
        assert_eq!(*error.kind(), JobErrorKind::Lost(WorkerExit::Code(Some(3))));
    }
    while engine
        .stats()
        .workers
        .iter()
        .any(|worker| worker.restarts < 1)
    {
        // Jobs go to both workers only if both are ready.
        let busy = || -> u8 { std::process::exit(3) };
        let jobs: Vec<_> = (0..4).map(|_| engine.submit(busy, ())).collect();
        jobs.into_iter().for_each(|job| drop(job.wait()));
    }
    let value = engine.submit(of_worker, ()).wait()?;
    assert_eq!(value, "");
    assert!(engine.shutdown_timeout(Duration::from_secs(60)));
    // The folder for sockets stays that of the first engine; the environment is the present one.
    let engine = self::engine(program)?;
    assert_eq!(engine.submit(of_worker, ()).wait()?, "later");
    Ok(())
}
