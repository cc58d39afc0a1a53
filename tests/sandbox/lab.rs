//! An engine with a hostile kernel next to an honest one.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use arenite::engine::Builder;
use arenite::{Array, Job, JobErrorKind, Sandbox, WorkerExit};
use libc::{PROT_READ, PROT_WRITE, SYS_mprotect};

use crate::harness::{Lab, assert_says, status_of, step};

/// Builds an engine with sandboxed workers, whose memory has to balance when it is dropped.
pub fn strict(workers: usize) -> Lab {
    strict_with(workers, |builder| builder)
}

pub fn strict_with(workers: usize, change: impl FnOnce(Builder) -> Builder) -> Lab {
    Lab::balanced_with(workers, |builder| change(builder.sandbox(Sandbox::Strict)))
}

/// Whether this process may inspect sandboxed workers, which are not dumpable: root in a container often may not.
pub fn may_look() -> bool {
    const CAP_SYS_PTRACE: u32 = 19;
    let effective = status_of(std::process::id(), "CapEff");
    let effective = effective.and_then(|mask| u64::from_str_radix(&mask, 16).ok());
    effective.is_some_and(|mask| mask >> CAP_SYS_PTRACE & 1 == 1)
}

/// The descriptors of a sandboxed worker and their targets, if this process may inspect it. Skips those closed
/// meanwhile.
pub fn descriptors(pid: i32) -> BTreeMap<u32, String> {
    let folder = format!("/proc/{pid}/fd");
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder}: {error}"));
    let target = |entry: fs::DirEntry| {
        let number = entry.file_name().to_str()?.parse().ok()?;
        let target = fs::read_link(entry.path()).ok()?;
        Some((number, target.to_string_lossy().into_owned()))
    };
    entries.flatten().filter_map(target).collect()
}

/// The worker of a job was ended for this system call.
pub fn denied(call: &str) -> JobErrorKind {
    JobErrorKind::Lost(WorkerExit::Denied { call: call.into() })
}

/// The honest kernel: reads one array and returns another.
fn double(values: &Array<u32>) -> Array<u32> {
    Array::from_fn(values.shape(), |i| values[i] * 2)
}

/// An array with known content, and its engine, which is dropped after it.
pub struct Victim {
    pub array: Array<u32>,
    pub lab: Lab,
}

impl Victim {
    pub fn new() -> Self {
        Self::in_lab(strict(2))
    }

    /// Builds one with two workers.
    pub fn in_lab(lab: Lab) -> Self {
        let array = lab.from_slice(&numbers()).unwrap();
        Self { array, lab }
    }

    /// Process ids of the supervisor and both workers, as targets for attacks.
    pub fn others(&self) -> (i32, i32, i32) {
        let supervisor = std::process::id() as i32;
        (supervisor, self.lab.pid(0), self.lab.pid(1))
    }

    /// Submits an honest job; [`Honest::check`] checks its result.
    pub fn honest(&self) -> Honest {
        Honest(self.lab.submit(double, (&self.array,)))
    }

    /// Checks that `call` ends the hostile job, while an honest one succeeds.
    pub fn denied<R: Send + Debug + 'static>(
        &self,
        call: &str,
        attack: impl FnOnce(&Self) -> Job<R>,
    ) {
        step(format!("{call} to be denied"));
        let honest = self.honest();
        let error = self.lab.failure_of(attack(self));
        assert_eq!(*error.kind(), denied(call), "{call}: {error}");
        assert_says(&error, call);
        honest.check();
        self.honest().check();
        self.check();
    }

    /// Checks that the attack is refused and its worker lives on. `attack` returns the number of successes.
    pub fn refused(&self, what: &str, attack: impl FnOnce(&Self) -> Job<i64>) {
        step(format!("{what} to be refused"));
        let honest = self.honest();
        let restarts = self.restarts();
        let answer = attack(self)
            .wait()
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(answer, 0, "{what}");
        honest.check();
        self.check();
        assert_eq!(self.restarts(), restarts, "{what}");
    }

    pub fn restarts(&self) -> u64 {
        self.lab.stats().restarts()
    }

    /// Checks that the array is unchanged.
    pub fn check(&self) {
        assert_eq!(self.array[..], numbers()[..]);
    }
}

/// In a worker: the process id of the other worker.
pub fn sibling(first: i32, second: i32) -> i32 {
    if first == std::process::id() as i32 {
        second
    } else {
        first
    }
}

/// A submitted honest job.
pub struct Honest(Job<Array<u32>>);

impl Honest {
    pub fn check(self) {
        // If it shared a worker with the attack, it must not be the one to blame.
        let doubled = match self.0.wait() {
            Ok(doubled) => doubled,
            Err(error) => panic!("an honest job: {error}"),
        };
        assert!(
            doubled
                .iter()
                .zip(numbers())
                .all(|(&two, one)| two == one * 2)
        );
    }
}

fn numbers() -> Vec<u32> {
    (0..100_000).collect()
}

/// Result of a raw system call: a value, or an errno as a negative number.
pub fn answer(value: i64) -> i64 {
    if value < 0 {
        -i64::from(std::io::Error::last_os_error().raw_os_error().unwrap_or(0))
    } else {
        value
    }
}

/// Makes a raw system call.
macro_rules! raw {
    ($number:expr $(, $argument:expr)* $(,)?) => {
        // SAFETY: an attack, on purpose: the sandbox must stop it before it does anything. Otherwise its arguments harm
        // this process at most.
        $crate::lab::answer(unsafe { libc::syscall($number $(, $argument as libc::c_long)*) })
    };
}
pub(crate) use raw;

/// Address of the latest remembered array.
static LAST: AtomicUsize = AtomicUsize::new(0);

/// In a worker: remembers the address of an array that this worker made.
pub fn remember(array: Array<u32>) -> Array<u32> {
    LAST.store(array.as_ptr() as usize, Relaxed);
    array
}

/// In a worker: overwrites that array. Returns whether this worker can.
pub fn spoil(len: usize) -> bool {
    let first = LAST.load(Relaxed);
    let (start, end) = (first / 4096 * 4096, first + len * 4);
    let len_of_pages = (end - start).next_multiple_of(4096);
    let opened = raw!(SYS_mprotect, start, len_of_pages, PROT_READ | PROT_WRITE);
    // SAFETY: none: an attack, on memory that this worker made.
    unsafe { std::ptr::with_exposed_provenance_mut::<u8>(first).write_bytes(0xee, len * 4) };
    opened == 0
}
