//! What kernels leave behind besides a value: programs and processes that they start, panics, arrays that one lane
//! passes to another, and output that a library has buffered.

use std::fs::OpenOptions;
use std::io::{Error, Read};
use std::panic::panic_any;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use arenite::{Array, ArrayMut, Backing, Engine, Job, JobErrorKind, TileMut};

use crate::harness::{Calls, Gate, Lab, pass, step, tests};
use crate::logs::Said;

tests![
    programs_started_by_kernels_inherit_nothing,
    closed_descriptors_cost_no_other_job,
    forked_copies_change_no_array,
    forked_copies_can_read_the_workers_inputs,
    payloads_of_panics_are_dropped,
    payloads_of_panics_are_dropped_in_the_program_too,
    arrays_passed_between_lanes,
    c_streams_are_flushed_at_the_end,
    a_locked_c_stream_does_not_keep_a_worker_alive,
];

// ---- programs and processes ---------------------------------------------------------------------------------

/// The open descriptors of a program that a kernel starts, except those opened to list them: numbers and targets.
fn inherited(_: &Array<u8>, mut tile: TileMut<'_, u8>) -> String {
    // A program may also be started while something is lent.
    tile[0] = 1;
    let listed = Command::new("ls").args(["-l", "/proc/self/fd"]).output();
    let listed = String::from_utf8(listed.unwrap().stdout).unwrap();
    let targets = listed.lines().filter_map(|line| {
        let (before, target) = line.split_once(" -> ")?;
        let number = before.split_whitespace().last()?;
        let own = target.starts_with("/proc/") && target.ends_with("/fd");
        let standard = ["0", "1", "2"].contains(&number);
        (!own).then(|| match standard {
            true => number.to_owned(),
            false => format!("{number}: {target}"),
        })
    });
    let mut targets: Vec<String> = targets.collect();
    targets.sort();
    targets.join(", ")
}

fn programs_started_by_kernels_inherit_nothing() {
    for backing in [Backing::Memfd, Backing::Auto] {
        let lab = Lab::with(2, |builder| builder.backing(backing));
        let input = lab.from_slice(&[1u8; 10_000]).unwrap();
        let mut array = lab.zeros::<u8>(10_000).unwrap();
        let found = lab.scope(|s| s.submit(inherited, (&input, &mut array)).wait());
        assert_eq!(found.unwrap().unwrap(), "0, 1, 2");
    }
}

/// Closes the descriptors that its worker has, as daemons do, and opens a file with their numbers, if one is named.
fn close_all(path: &str) -> bool {
    // SAFETY: the worker checks its descriptors after the job.
    unsafe { libc::close_range(3, u32::MAX, 0) };
    for _ in 0..40 * usize::from(!path.is_empty()) {
        let file = OpenOptions::new().append(true).open(path);
        std::mem::forget(file.unwrap());
    }
    println!("closed all");
    // The worker does not look after a quicker job.
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_micros(20) {}
    true
}

fn filled(len: u64, value: u32) -> Array<u32> {
    Array::from_fn(len as usize, |_| value)
}

/// Other jobs have the values that plain code computes, the files of the jobs are not written, and nothing waits for
/// ever.
fn closed_descriptors_cost_no_other_job() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap().to_owned();
    for (workers, lanes, reopens) in [(1, 1, false), (1, 1, true), (2, 1, true), (1, 2, false)] {
        step(format!("{workers} workers with {lanes} lanes, {reopens}"));
        let lab = Lab::with(workers, |builder| {
            builder.lanes(lanes).quarantine_after(1_000)
        });
        let path = if reopens { path.as_str() } else { "" };
        // With several lanes, the job may end its worker, and the other jobs of the worker with it.
        let retries = if lanes > 1 { 40 } else { 0 };
        let jobs: Vec<_> = (0..60_u32)
            .map(|n| {
                let len = 1_u64 << (n % 21);
                let closes = (n % 3 == 0).then(|| lab.job(close_all, (path,)).submit());
                let job = lab.job(filled, (len, n)).retries(retries).submit();
                (n, len, closes, job)
            })
            .collect();
        for (n, len, closes, job) in jobs {
            if let Some(closes) = closes {
                assert!(closes.wait().is_ok() || lanes > 1, "job {n}");
            }
            assert_eq!(&*job.wait().unwrap(), vec![n; len as usize], "job {n}");
        }
        assert!(lab.stats().restarts() > 0);
    }
    let mut written = Vec::new();
    file.read_to_end(&mut written).unwrap();
    assert_eq!(written, b"", "what the worker wrote into a file of a job");
}

/// Ends a copy of a worker.
fn leave(code: i32) -> ! {
    // SAFETY: only ends the process.
    unsafe { libc::_exit(code) }
}

fn status_of(copy: i32) -> i32 {
    let mut status = 0;
    // SAFETY: waits for the copy, and writes its status to this variable.
    let ended = unsafe { libc::waitpid(copy, &raw mut status, 0) };
    assert_eq!(ended, copy, "{}", Error::last_os_error());
    status
}

/// Leaves a copy behind that writes into the tile long after the job.
fn writes_later(mut tile: TileMut<'_, u32>, gate: &str) -> i32 {
    // SAFETY: only this thread continues in the copy, which ends on its own.
    let copy = unsafe { libc::fork() };
    if copy == 0 {
        pass(gate);
        tile.fill(7);
        leave(0);
    }
    copy
}

/// The same with a result.
fn returns_and_writes_later(gate: &str) -> (ArrayMut<u32>, i32) {
    let mut made = ArrayMut::zeros(10_000);
    let copy = writes_later(made.as_tile_mut(), gate);
    (made, copy)
}

fn forked_copies_change_no_array() {
    let lab = Lab::balanced(1);
    let zeros = |len: usize| ArrayMut::<u32>::zeros(len);
    let ends = |array: &ArrayMut<u32>, gate: &Gate, copy: i32| {
        gate.open();
        step("the copy of the worker to end");
        let status = lab.value_of(status_of, (copy,));
        assert!(array.iter().all(|&x| x == 0), "a copy has changed it");
        assert!(libc::WIFSIGNALED(status), "{status:#x}");
        assert_eq!(libc::WTERMSIG(status), libc::SIGSEGV);
    };
    let of_worker = lab.value_of(zeros, (10_000,));
    for mut array in [lab.zeros(10_000).unwrap(), of_worker] {
        let gate = Gate::new();
        let path = gate.path();
        let copy = lab.scope(|s| {
            let job = s.submit(writes_later, (&mut array, path.as_str()));
            job.wait().unwrap()
        });
        ends(&array, &gate, copy.unwrap());
    }
    let gate = Gate::new();
    let job = lab.submit(returns_and_writes_later, (&gate.path(),));
    let (array, copy) = job.wait().unwrap();
    ends(&array, &gate, copy);
    drop(array);
    assert_eq!(lab.stats().restarts(), 0);
}

/// Whatever process made the array; the copy cannot change it.
fn forked_copies_can_read_the_workers_inputs() {
    fn sum(given: &Array<u8>, made: &Array<u8>, tile: TileMut<'_, u8>) -> i32 {
        // SAFETY: only this thread continues in the copy, which ends at once.
        let copy = unsafe { libc::fork() };
        if copy == 0 {
            leave(i32::from(given[9_999] + made[9_999] + tile[9_999]));
        }
        status_of(copy)
    }
    let lab = Lab::new(1);
    let fives = || Array::from_slice(&[5u8; 10_000]);
    let given = lab.from_slice(&[1u8; 10_000]).unwrap();
    let made = lab.value_of(fives, ());
    let mut lent = lab
        .from_slice(&[10u8; 10_000])
        .unwrap()
        .try_into_mut()
        .unwrap();
    let status = lab.scope(|s| s.submit(sum, (&given, &made, &mut lent)).wait());
    let status = status.unwrap().unwrap();
    assert!(libc::WIFEXITED(status), "{status:#x}");
    assert_eq!(libc::WEXITSTATUS(status), 16);
    assert_eq!(lab.stats().restarts(), 0);
}

// ---- panics -------------------------------------------------------------------------------------------------

const MIB: usize = 1 << 20;

fn payloads_of_panics_are_dropped() {
    fn text(len: usize) {
        panic!("{}", "x".repeat(len));
    }
    fn with_array(values: &Array<u8>) {
        panic_any(values.clone());
    }
    // All the texts together exceed a worker's memory limit.
    let lab = Lab::balanced_with(1, |builder| builder.memory_limit(96 * MIB as u64));
    for round in 0..200 {
        let error = lab.error_of(text, (MIB,));
        let panicked = matches!(error.kind(), JobErrorKind::Panicked { .. });
        assert!(panicked, "round {round}: {:?}", error.kind());
    }
    let values = lab.from_slice(&[1u8, 2, 3]).unwrap();
    let error = lab.error_of(with_array, (&values,));
    let panicked = matches!(error.kind(), JobErrorKind::Panicked { .. });
    assert!(panicked, "{error}");
    assert_eq!(lab.stats().restarts(), 0);
}

fn payloads_of_panics_are_dropped_in_the_program_too() {
    static DROPPED: AtomicU32 = AtomicU32::new(0);
    struct Counted;
    impl Drop for Counted {
        fn drop(&mut self) {
            DROPPED.fetch_add(1, SeqCst);
        }
    }
    fn throw() {
        panic_any(Counted);
    }
    let engine = Engine::inline();
    let before = DROPPED.load(SeqCst);
    for dropped in 1..=3 {
        let error = engine.error_of(throw, ());
        let panicked = matches!(error.kind(), JobErrorKind::Panicked { .. });
        assert!(panicked, "{error}");
        assert_eq!(DROPPED.load(SeqCst), before + dropped);
    }
}

// ---- lanes --------------------------------------------------------------------------------------------------

/// From a lane that makes an array to one that returns it, and back afterwards.
struct Passage<T>(Mutex<Sender<T>>, Mutex<Receiver<T>>);

impl<T> Passage<T> {
    fn new() -> Self {
        let (sender, receiver) = channel();
        Self(Mutex::new(sender), Mutex::new(receiver))
    }
    fn send(&self, value: T) {
        self.0.lock().unwrap().send(value).unwrap();
    }
    fn receive(&self) -> T {
        self.1.lock().unwrap().recv().unwrap()
    }
}

static MADE: LazyLock<Passage<Array<u32>>> = LazyLock::new(Passage::new);

/// Passes an array to another lane, and waits until it is dropped there.
fn hands_over(own: &Array<u32>, gate: &str) -> u32 {
    MADE.send(Array::from_fn(10_000, |i| i as u32));
    MADE.send(own.clone());
    pass(gate);
    5
}

fn returns_it() -> (Array<u32>, Array<u32>) {
    (MADE.receive(), MADE.receive())
}

fn arrays_passed_between_lanes() {
    let lab = Lab::balanced_with(1, |builder| builder.lanes(2));
    for _ in 0..5 {
        let gate = Gate::new();
        // Two in one worker: the first it ever made, possibly in the other lane's grant.
        let own = lab.submit(|| Array::from_slice(&[9u32; 50]), ());
        let own = own.wait().unwrap();
        let first = lab.submit(hands_over, (&own, &gate.path()));
        let held = gate.meet();
        let second: Job<(Array<u32>, Array<u32>)> = lab.submit(returns_it, ());
        step("what the other lane was given");
        let (made, same) = second.wait().unwrap();
        drop(held);
        assert_eq!(first.wait().unwrap(), 5);
        assert!(made.len() == 10_000 && (0..).zip(&made).all(|(i, &x)| i == x));
        assert_eq!(same, own);
    }
    assert_eq!(lab.stats().restarts(), 0);
}

// ---- the end ------------------------------------------------------------------------------------------------

fn c_streams_are_flushed_at_the_end() {
    /// Unlike stdout, this stream is not flushed with the job.
    fn print() {
        // SAFETY: the stream is this function's own, and the texts end with a zero.
        unsafe {
            let stream = libc::fdopen(libc::dup(1), c"w".as_ptr());
            libc::fputs(c"kept by the C library".as_ptr(), stream);
        }
    }
    let said = Said::default();
    let lab = said.lab(1);
    lab.value_of(print, ());
    assert!(said.all().is_empty(), "{:?}", said.all());
    lab.into_inner().shutdown();
    let all = said.all();
    assert!(
        all.iter().any(|line| line.text == "kept by the C library"),
        "{all:?}"
    );
}

unsafe extern "C" {
    fn flockfile(file: *mut libc::FILE);
    static stdout: *mut libc::FILE;
}

fn a_locked_c_stream_does_not_keep_a_worker_alive() {
    fn hold() -> u32 {
        let (sender, receiver) = channel();
        std::thread::spawn(move || {
            // SAFETY: the C library's own stream, which lives as long as the process.
            unsafe { flockfile(stdout) };
            sender.send(()).unwrap();
            loop {
                std::thread::park();
            }
        });
        receiver.recv().unwrap();
        std::process::id()
    }
    let lab = Lab::with(1, |builder| builder.recycle_after_jobs(1));
    let mut workers: Vec<u32> = (0..2)
        .map(|_| {
            step("a worker that ends although a stream is held");
            lab.value_of(hold, ())
        })
        .collect();
    workers.dedup();
    assert_eq!(workers.len(), 2, "each had one job");
}
