//! What honest kernels can still do, and how the engine differs with a sandbox.

use std::fs::File;
use std::io::Read;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU32;
use std::sync::mpsc::channel;

use arenite::engine::{CrashClass, CrashFrame};
use arenite::{
    Array, ArrayMut, BuildError, Engine, JobErrorKind, JobLimit, Rejection, Sandbox, SandboxReport,
    Spawn, TileMut, WorkerExit, call,
};
use rand::RngExt;

use crate::harness::{
    ABORTED, Calls, Lab, are_all, assert_kind, assert_says, builder, filled, panicked,
    private_bytes, rejected, state_of, step, tests, wait_until,
};
use crate::lab::{denied, raw, strict, strict_with};

tests![
    kernels_may_use_threads_and_memory,
    a_panic_has_its_stack,
    a_crash_is_described,
    private_memory_beyond_the_ceiling_fails,
    filled_memory_cannot_be_hidden_from_the_ceiling,
    many_lanes_under_a_ceiling,
    queries_about_other_processes_are_refused,
    in_place_arguments_are_refused,
    failing_rows_are_found,
    spawning_is_refused,
    sums_random_numbers_and_scratch_work,
    a_full_arena_fails_the_copy_out,
    large_results_are_copied_without_the_lock,
    a_small_part_of_a_large_array_is_copied_without_the_lock,
    on_worker_start_may_open_files,
    a_thread_left_by_on_worker_start_fails_the_build,
    the_report_names_missing_parts,
    all_lanes_are_sandboxed,
];

fn kernels_may_use_threads_and_memory() {
    let lab = strict(2);
    let kernel = |values: &Array<u64>, threads: usize| -> u64 {
        let values: &[u64] = values;
        std::thread::scope(|scope| {
            let parts = values.chunks(values.len().div_ceil(threads));
            let running: Vec<_> = parts
                .map(|part| scope.spawn(move || part.to_vec().iter().sum::<u64>()))
                .collect();
            running
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum()
        })
    };
    let values = Array::from_fn(2_000_000, |i| i as u64);
    let expected: u64 = values.iter().sum();
    let values = lab.import(&values).unwrap();
    for threads in [1, 2, 8] {
        assert_eq!(lab.value_of(kernel, (&values, threads)), expected);
    }
    // Grows step by step, far beyond one arena of the allocator.
    let grow = |to: usize| {
        (0..to)
            .fold(Vec::new(), |mut all, i| {
                all.push(i);
                all
            })
            .len()
    };
    assert_eq!(lab.value_of(grow, (10_000_000,)), 10_000_000);
    let clock = || {
        let start = std::time::Instant::now();
        std::thread::sleep(std::time::Duration::from_micros(100));
        start.elapsed().as_micros() >= 100 && std::time::SystemTime::now() > std::time::UNIX_EPOCH
    };
    assert!(lab.value_of(clock, ()));
    assert_eq!(lab.stats().restarts(), 0);
}

#[inline(never)]
fn the_kernel_that_panics(n: u32) -> u32 {
    assert!(std::hint::black_box(n) > 100, "{n} is not more than 100");
    n
}

fn a_panic_has_its_stack() {
    let lab = strict(1);
    for _ in 0..3 {
        let error = lab.error_of(the_kernel_that_panics, (5,));
        let (message, location, backtrace) = panicked(error.kind());
        assert_eq!(message, "5 is not more than 100");
        assert_says(&location, "work.rs:");
        assert_says(&backtrace, "the_kernel_that_panics");
        assert!(
            !backtrace.contains("arenite_runs_kernel"),
            "only its part: {backtrace}"
        );
    }
    assert_eq!(lab.value_of(the_kernel_that_panics, (101,)), 101);
    assert_eq!(lab.stats().workers[0].restarts, 0);
}

fn a_crash_is_described() {
    fn vandal(values: &Array<u8>) -> u8 {
        // SAFETY: none: a bug, on purpose.
        unsafe { values.as_ptr().cast_mut().add(40).write_volatile(1) };
        values[0]
    }
    let lab = strict(1);
    let values = lab.from_slice(&[7_u8; 64]).unwrap();
    let error = lab.error_of(vandal, (&values,));
    let class = CrashClass::Input {
        array: 1,
        offset: 40,
        len: 64,
    };
    let crash = error.crash().unwrap_or_else(|| panic!("{error}"));
    assert_eq!((&crash.class, crash.signal), (&class, 11), "{error}");
    let is_it = |frame: &CrashFrame| {
        let function = frame.function.as_deref().unwrap_or_default();
        function.contains("vandal")
            && frame
                .file
                .as_deref()
                .is_some_and(|file| file.ends_with("work.rs"))
    };
    assert!(crash.frames().iter().any(is_it), "{:#?}", crash.frames());
    let error = lab.error_of(|| -> u8 { std::process::abort() }, ());
    assert_eq!(*error.kind(), ABORTED, "{error}");
    let crash = error.crash().unwrap_or_else(|| panic!("{error}"));
    assert_eq!(crash.class, CrashClass::Abort, "{error}");
    let error = lab.error_of(|| -> u8 { std::process::exit(3) }, ());
    assert_kind!(error, JobErrorKind::Lost(WorkerExit::Code(Some(3))));
    assert_eq!(lab.value_of(|x: u32| x + 1, (1,)), 2);
}

fn private_memory_beyond_the_ceiling_fails() {
    fn bomb(bytes: usize) -> usize {
        std::hint::black_box(vec![1_u8; bytes]).len()
    }
    let lab = strict_with(1, |builder| builder.memory_limit(64 << 20));
    let error = lab.error_of(bomb, (256 << 20,));
    let limit = matches!(error.kind(), JobErrorKind::Limit(JobLimit::Memory { limit, .. }) if *limit == 64 << 20);
    assert!(limit, "{error}");
    assert_eq!(lab.value_of(|x: u32| x + 1, (1,)), 2);
    // Linux counts memory that grows downward as stack, outside the ceiling. Thread stacks are not of this kind.
    fn map(bytes: usize, flags: i32) -> i64 {
        let private = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let write = libc::PROT_READ | libc::PROT_WRITE;
        let map = raw!(libc::SYS_mmap, 0, bytes, write, private | flags, -1, 0);
        map.min(0)
    }
    let error = lab.error_of(map, (256 << 20, libc::MAP_GROWSDOWN));
    assert_eq!(*error.kind(), denied("mmap"), "{error}");
    let stack = libc::MAP_STACK | libc::MAP_NORESERVE;
    assert_eq!(lab.value_of(map, (8 << 20, stack)), 0);
    // An allocator configured for huge pages asks for these, and falls back.
    let refused = -i64::from(libc::EACCES);
    let aside = lab.submit(map, (8 << 20, libc::MAP_HUGETLB));
    assert_eq!(aside.wait().unwrap(), refused);
    let refused = -i64::from(libc::ENOMEM);
    assert_eq!(lab.value_of(map, (256 << 20, stack)), refused);
}

/// Linux does not count memory that was made read-only or inaccessible. The kernel tries to hide what it fills in every
/// way that `mprotect` has; what Linux says of its process counts.
fn filled_memory_cannot_be_hidden_from_the_ceiling() {
    const MIB: usize = 1 << 20;
    fn fill(hidden_by: i32, piece: usize) -> u64 {
        let private = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let write = libc::PROT_READ | libc::PROT_WRITE;
        let one = || {
            let map = raw!(libc::SYS_mmap, 0, piece, write, private, -1, 0);
            if map <= 0 {
                return false;
            }
            // SAFETY: this memory has just been mapped for this alone.
            unsafe { std::ptr::write_bytes(map as *mut u8, 7, piece) };
            // Page by page, as honest guards are small.
            let step = if piece > MIB { piece } else { 4096 };
            (0..piece)
                .step_by(step)
                .all(|at| raw!(libc::SYS_mprotect, map + at as i64, step, hidden_by) == 0)
        };
        let filled = (0..4096).take_while(|_| one()).count() as u64 * piece as u64;
        std::thread::sleep(std::time::Duration::MAX);
        filled
    }
    for (hidden_by, piece) in [
        (libc::PROT_READ, 8 * MIB),
        (libc::PROT_NONE, 8 * MIB),
        (libc::PROT_READ, MIB / 4),
        (libc::PROT_NONE, MIB / 4),
    ] {
        let lab = strict_with(1, |builder| builder.memory_limit(64 << 20));
        let pid = lab.pid(0) as u32;
        let anonymous = || private_bytes(pid).unwrap();
        let job = lab.submit(fill, (hidden_by, piece));
        // Sleeping, since it found no more.
        wait_until("the kernel has filled what it got", || {
            anonymous() > 32 << 20 && state_of(pid as i32) == Some('S')
        });
        let most = anonymous();
        assert!(most <= 72 << 20, "{} MiB", most >> 20);
        job.kill();
        lab.failure_of(job);
    }
    // Threads and their guard pages work.
    let lab = strict_with(1, |builder| builder.memory_limit(64 << 20));
    let threads = || {
        (0..20)
            .map(|n| std::thread::spawn(move || n).join().unwrap())
            .sum::<u64>()
    };
    assert_eq!(lab.value_of(threads, ()), 190);
}

/// Each thread's allocator reserves address space, which a ceiling limits.
fn many_lanes_under_a_ceiling() {
    fn allocate(n: u64) -> u64 {
        let parts: Vec<Vec<u64>> = (0..20).map(|_| vec![n; 10_000]).collect();
        std::hint::black_box(parts)
            .iter()
            .map(|part| part[9_999])
            .sum()
    }
    let lab = strict_with(1, |builder| builder.lanes(48).memory_limit(512 << 20));
    let sums = lab.map(allocate, (0..500u64).map(|n| (n,)));
    for (n, sum) in (0..).zip(sums) {
        assert_eq!(sum.unwrap(), 20 * n);
    }
    assert_eq!(lab.stats().workers[0].restarts, 0);
}

/// Clocks and affinity of other processes, and locks that other processes appear to hold.
fn queries_about_other_processes_are_refused() {
    const INVALID: i64 = libc::EINVAL as i64;
    let lab = strict(1);
    let other = std::process::id() as i64;
    let refused = -i64::from(libc::EACCES);
    fn clock(id: i64) -> i64 {
        let mut time = [0_i64; 2];
        raw!(libc::SYS_clock_gettime, id, time.as_mut_ptr())
    }
    fn cores(pid: i64) -> i64 {
        let mut set = [0_u64; 128];
        raw!(
            libc::SYS_sched_getaffinity,
            pid,
            size_of_val(&set),
            set.as_mut_ptr()
        )
    }
    // The clock of the process: its complemented id.
    let of_other = (!other << 3) | 2;
    assert_eq!(lab.value_of(clock, (of_other,)), refused);
    assert_eq!(lab.value_of(cores, (other,)), refused);
    for clock_of_nobody in [libc::CLOCK_REALTIME, libc::CLOCK_MONOTONIC, libc::CLOCK_TAI] {
        let answer = lab.value_of(clock, (i64::from(clock_of_nobody),));
        assert!([0, -INVALID].contains(&answer), "{answer}");
    }
    assert!(lab.value_of(cores, (0,)) > 0);
    let lock = |owner: u32| {
        let word = AtomicU32::new(owner);
        let lock = libc::FUTEX_LOCK_PI | libc::FUTEX_PRIVATE_FLAG;
        raw!(libc::SYS_futex, word.as_ptr(), lock, 0, 0, 0, 0)
    };
    let error = lab.error_of(lock, (std::process::id(),));
    assert_eq!(*error.kind(), denied("futex"), "{error}");
}

fn in_place_arguments_are_refused() {
    fn fill(mut tile: TileMut<'_, u32>) {
        tile.fill(7);
    }
    fn whole(values: &mut [u32]) {
        values.fill(7);
    }
    fn moved(mut values: ArrayMut<u32>) -> ArrayMut<u32> {
        values.fill(7);
        values
    }
    let lab = strict(1);
    let mut array = lab.zeros::<u32>(10_000).unwrap();
    let tiles = lab.scope(|s| {
        for tile in array.tiles_mut(5_000) {
            s.submit(fill, (tile,));
        }
    });
    assert_eq!(*tiles.unwrap_err().kind(), rejected(Rejection::Lending));
    let lent = lab.scope(|s| drop(s.submit(whole, (&mut array,))));
    assert_eq!(*lent.unwrap_err().kind(), rejected(Rejection::Lending));
    let applied = lab
        .par_mut(&mut array)
        .apply(|values: &mut [u32]| values.fill(7));
    let error = applied.unwrap_err();
    assert_eq!(*error.kind(), rejected(Rejection::Lending));
    assert_says(&error, "return a fresh array");
    assert!(array.iter().all(|&x| x == 0));
    let error = lab.error_of(moved, (array,));
    assert_eq!(*error.kind(), rejected(Rejection::Lending));
    // Reading works in all of these ways.
    let input = lab.from_slice(&[1_u32, 2, 3]).unwrap();
    let doubled = lab.par(&input).apply(|from: &[u32], to: &mut [u32]| {
        to.iter_mut()
            .zip(from)
            .for_each(|(to, from)| *to = from * 2);
    });
    assert_eq!(doubled.unwrap()[..], [2, 4, 6]);
    let long = lab
        .import(&Array::from_fn([3_000, 41], |i| i as u32))
        .unwrap();
    let squares = lab.par(&long).map(|x| u64::from(x) * u64::from(x)).unwrap();
    assert_eq!(squares.shape(), long.shape());
    assert!(
        squares
            .iter()
            .zip(0..)
            .all(|(&square, i): (_, u64)| square == i * i)
    );
    let table = lab.from_fn(100, |i| i as u64).unwrap();
    let found = lab
        .par(&long)
        .with(&table)
        .map(|x: u32, table: &[u64]| table[x as usize % 100]);
    let found = found.unwrap();
    assert!(found.iter().zip(0..).all(|(&y, i): (_, u64)| y == i % 100));
    drop((table, found));
    let nothing = lab.par(&lab.from_slice::<u32>(&[]).unwrap()).map(|x| x + 1);
    assert_eq!(nothing.unwrap().len(), 0);
    drop((long, squares));
    assert_eq!(lab.stats().workers[0].restarts, 0);
}

/// Parts of the result are copied out, however small they are.
fn failing_rows_are_found() {
    fn poison(x: u32) -> [u64; 2] {
        assert_ne!(x, 3 * 4321);
        if x == 3 * 11_000 + 1 {
            std::process::abort();
        }
        [x.into(), arenite::rng().random()]
    }
    let expected = {
        let engine = Engine::builder().seed(7).inline();
        let input = engine.from_fn([20_000, 3], |_| 0).unwrap();
        let drawn = engine
            .par(&input)
            .map(|_: u32| arenite::rng().random::<u64>());
        drawn.unwrap().to_vec()
    };
    let lab = strict_with(2, |builder| builder.seed(7));
    let input = lab.from_fn([20_000, 3], |i| i as u32).unwrap();
    let report = lab.par(&input).map_report(poison).unwrap();
    let failed: Vec<_> = report
        .failures
        .iter()
        .map(|letter| (letter.index, letter.args.len()))
        .collect();
    assert_eq!(failed, [(4321, 3), (11_000, 3)], "{report}");
    for letter in &report.failures {
        assert_eq!(letter.args[..], input.rows(letter.index..=letter.index)[..]);
    }
    assert_eq!(report.values.shape(), input.shape());
    assert_eq!(*report.failures[1].error.kind(), ABORTED);
    for (i, &value) in report.values.iter().enumerate() {
        let failed = [4321, 11_000].contains(&(i / 3));
        let expected = if failed {
            [0; 2]
        } else {
            [i as u64, expected[i]]
        };
        assert_eq!(value, expected, "element {i}");
    }
}

/// Results of chunks are copied out, and have the same bits.
fn spawning_is_refused() {
    fn fib(n: u64) -> Spawn<u64> {
        if n < 2 {
            return n.into();
        }
        let below = (call(fib, (n - 1,)), call(fib, (n - 2,)));
        Spawn::new(|a: u64, b: u64| a + b, below)
    }
    let lab = strict(2);
    let error = lab.error_of(fib, (5,));
    assert_eq!(*error.kind(), rejected(Rejection::Spawning));
    assert_says(&error, "strict sandbox");
    // The worker did nothing wrong, and an immediate value is a value.
    assert_eq!(lab.value_of(fib, (1,)), 1);
    // Arrays that came with it are freed.
    fn with_arrays(n: usize) -> Spawn<u64> {
        let made = Array::from_fn(n, |i| i as u64);
        Spawn::new(|all: &[u64]| all.iter().sum::<u64>(), (made,))
    }
    let error = lab.error_of(with_arrays, (100_000,));
    assert_eq!(*error.kind(), rejected(Rejection::Spawning));
    let restarts = |worker: usize| lab.stats().workers[worker].restarts;
    assert_eq!(restarts(0) + restarts(1), 0);
}

fn sums_random_numbers_and_scratch_work() {
    let lab = strict_with(2, |builder| builder.seed(7));
    let free = Engine::builder().seed(7).inline();
    let noise: Vec<f32> = (0..300_000u32)
        .map(|i| i.wrapping_mul(0x85eb_ca6b) as f32 - 2e9)
        .collect();
    let there = lab.from_slice(&noise).unwrap();
    let here = free.from_slice(&noise).unwrap();
    let bits = |array: Array<f32>| array.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    assert_eq!(
        lab.par(&there).sum().unwrap().to_bits(),
        free.par(&here).sum().unwrap().to_bits()
    );
    assert_eq!(
        bits(lab.par(&there).cumsum().unwrap()),
        bits(free.par(&here).cumsum().unwrap())
    );
    let largest = |a: f32, b: f32| a.max(b);
    assert_eq!(
        bits(lab.par(&there).scan(largest).unwrap()),
        bits(free.par(&here).scan(largest).unwrap())
    );
    assert_eq!(
        lab.par(&there).histogram(10, (-2e9, 2e9)).unwrap(),
        free.par(&here).histogram(10, (-2e9, 2e9)).unwrap()
    );
    let draw = |_: u32| -> u64 {
        *arenite::scratch(|| 0) += 1;
        // By chance, on a thread without a job: that takes a system call.
        let other = std::thread::spawn(|| arenite::rng().random::<u64>());
        assert!(other.join().is_ok());
        arenite::rng().random()
    };
    let items = || (0..20u32).map(|n| (n,));
    let drawn: Vec<_> = lab.map(draw, items()).map(Result::unwrap).collect();
    assert!(free.map(draw, items()).map(Result::unwrap).eq(drawn));
}

fn a_full_arena_fails_the_copy_out() {
    let lab = strict_with(1, |builder| builder.capacity(64 << 20));
    let make = |len: usize| Array::<u8>::zeros(len);
    let error = lab.error_of(make, (40 << 20,));
    assert_kind!(error, JobErrorKind::Limit(JobLimit::Arena(full)) if full.requested == 40 << 20);
    assert_eq!(lab.value_of(make, (10 << 20,)).len(), 10 << 20);
    // A report retries in smaller parts what does not fit.
    let input = lab.zeros::<u8>(20 << 20).unwrap().seal();
    let report = lab
        .par(&input)
        .map_report(|x: u8| u16::from(x) + 7)
        .unwrap();
    assert!(report.failures.is_empty(), "{report}");
    assert!(report.values.iter().all(|&x| x == 7));
    assert_eq!(lab.stats().workers[0].restarts, 0);
}

static LOADED: OnceLock<(Vec<u8>, File)> = OnceLock::new();

/// Whatever happens to the handle of a job whose result the monitor copies, others have their values, and no memory is
/// left. A build with the feature `points` ends where such a copy is made with the engine's lock held.
fn large_results_are_copied_without_the_lock() {
    const BYTES: usize = 24 << 20;
    let make = |fill: u8| filled(BYTES, fill).seal();
    let lab = strict_with(2, |builder| builder.capacity(512 << 20));
    for round in 0..3_u8 {
        step(format!("round {round}"));
        let mut jobs: Vec<_> = (0..6).map(|n| Some(lab.submit(make, (n,)))).collect();
        let small: Vec<_> = (0..20_u32)
            .map(|n| lab.submit(|n: u32| n + 1, (n,)))
            .collect();
        drop(jobs[1].take());
        jobs[2].take().unwrap().detach();
        jobs[3].as_ref().unwrap().cancel();
        for (job, n) in small.into_iter().zip(1..) {
            assert_eq!(job.wait().unwrap(), n);
        }
        for (n, job) in (0..6).zip(jobs) {
            match job.map(arenite::Job::wait) {
                Some(Ok(array)) => assert!(array.len() == BYTES && are_all(&array, n)),
                Some(Err(error)) => assert_eq!((n, error.kind()), (3, &JobErrorKind::Cancelled)),
                None => assert!(n == 1 || n == 2),
            }
        }
        wait_until("all is answered and freed", || {
            let stats = lab.stats();
            stats.open == 0 && stats.untaken == 0
        });
        lab.assert_in_use(0);
    }
    let text = |times: usize| "ä".repeat(times);
    assert_eq!(lab.value_of(text, (500_000,)), text(500_000));
    lab.assert_in_use(0);
    // The engine ends while a result is copied: the job has an answer.
    let jobs: Vec<_> = (0..4).map(|n| lab.submit(make, (n,))).collect();
    lab.into_inner().shutdown();
    for (n, job) in (0..4).zip(jobs) {
        assert!(are_all(&job.wait().unwrap(), n));
    }
}

/// The copy is that of the whole array: a part refers to it. A build with the feature `points` ends where it is made with
/// the engine's lock held.
fn a_small_part_of_a_large_array_is_copied_without_the_lock() {
    const LARGE: usize = 700 << 20;
    let part = || ArrayMut::<u8>::zeros(LARGE).seal().rows(..100);
    let lab = strict_with(1, |builder| builder.capacity(3 << 30));
    assert!(are_all(&lab.value_of(part, ()), 0));
}

fn on_worker_start_may_open_files() {
    fn start() {
        let mut file = File::open("/proc/self/exe").unwrap();
        let mut bytes = vec![0; 4];
        file.read_exact(&mut bytes).unwrap();
        assert!(LOADED.set((bytes, file)).is_ok());
    }
    let kernel = || {
        let (bytes, mut file) = LOADED
            .get()
            .map(|(bytes, file)| (bytes.clone(), file))
            .unwrap();
        let mut more = [0; 4];
        (bytes == b"\x7fELF", file.read(&mut more).is_err())
    };
    let lab = strict_with(2, |builder| builder.on_worker_start(start));
    for _ in 0..2 {
        // What was read is available; the file is closed.
        assert_eq!(lab.value_of(kernel, ()), (true, true));
        lab.replace(0);
        lab.replace(1);
    }
}

fn a_thread_left_by_on_worker_start_fails_the_build() {
    let start = || {
        std::thread::spawn(|| {
            loop {
                std::thread::park();
            }
        });
    };
    let builder = || builder(1, 64 << 20).on_worker_start(start);
    let error = builder().sandbox(Sandbox::Strict).build().unwrap_err();
    assert_says(&error, "1 threads running");
    builder().build().unwrap();
}

fn the_report_names_missing_parts() {
    let report = SandboxReport::of_this_kernel();
    eprintln!("{report}");
    let lab = strict(1);
    assert_eq!(lab.sandbox_report(), Some(report));
    let required = builder(1, 64 << 20).sandbox(Sandbox::Required).build();
    match required {
        Ok(engine) => {
            assert!(report.is_complete());
            assert_eq!(engine.value_of(|x: u32| x + 1, (1,)), 2);
        }
        Err(BuildError::SandboxLacks(lacking)) => {
            assert_eq!(lacking, report);
            assert!(!report.is_complete());
        }
        Err(other) => panic!("{other}"),
    }
    assert_eq!(Lab::new(1).sandbox_report(), None);
}

/// A forbidden call in one lane ends all lanes of the worker; the error names the lane's job.
fn all_lanes_are_sandboxed() {
    fn wait() -> Array<u32> {
        println!("here");
        while !arenite::cancelled() {
            std::thread::yield_now();
        }
        Array::from_fn(1000, |i| i as u32)
    }
    fn mount() -> i64 {
        crate::lab::raw!(libc::SYS_mount, 0, 0, 0, 0, 0)
    }
    fn open() -> bool {
        File::open("/proc/self/exe").is_ok()
    }
    let (sender, lines) = channel();
    let lab = strict_with(1, |builder| {
        builder
            .lanes(3)
            .on_log(move |line| sender.send(line.text.clone()).unwrap())
    });
    for _ in 0..3 {
        let waiting: Vec<_> = (0..2).map(|_| lab.submit(wait, ())).collect();
        for _ in &waiting {
            step("two lanes wait");
            assert_eq!(lines.recv().unwrap(), "here");
        }
        assert!(!lab.value_of(open, ()), "on the third");
        waiting.iter().for_each(arenite::Job::cancel);
        for job in waiting {
            assert_eq!(job.wait().unwrap()[999], 999);
        }
    }
    let waiting: Vec<_> = (0..2).map(|_| lab.submit(wait, ())).collect();
    for _ in &waiting {
        assert_eq!(lines.recv().unwrap(), "here");
    }
    let culprit = lab.error_of(mount, ());
    assert_eq!(*culprit.kind(), denied("mount"), "{culprit}");
    assert_eq!(culprit.lost_jobs().len(), 2, "{culprit}");
    for job in waiting {
        let lost = JobErrorKind::Lost(WorkerExit::OtherJob {
            job: culprit.job(),
            cause: Box::new(denied("mount")),
        });
        assert_eq!(*lab.failure_of(job).kind(), lost);
    }
}
