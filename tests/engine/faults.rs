//! Faulty kernels: each fault costs one job and names its cause.

use std::hint::black_box;

use arenite::{Array, ArrayMut, Engine, JobError, JobErrorKind, JobLimit, WorkerExit};

use crate::harness::{Calls, Lab, assert_says, by_signal, made, panicked, tests, vandal};

tests![
    a_panic_has_message_location_and_backtrace,
    a_long_message_leaves_room_for_its_location,
    panics_of_every_kind,
    an_exit,
    signals,
    a_write_to_an_input_changes_nothing,
    a_write_to_a_text_argument_is_private,
    a_write_to_another_workers_array_changes_nothing,
    a_write_to_a_published_array_changes_nothing,
    arena_full_keeps_its_numbers,
    a_kernel_may_handle_a_full_arena,
    descriptors_closed_by_a_kernel,
    a_kernel_that_forks,
    a_process_that_a_kernel_forks_may_exit,
    what_a_dead_worker_wrote_is_in_no_zeros,
];

/// The job fails, its worker is replaced, and the engine continues.
fn assert_death(lab: &Lab, error: &JobError, expected: &JobErrorKind) {
    assert_eq!(error.kind(), expected, "{error}");
    assert_eq!((error.worker(), error.attempt()), (Some(0), 1));
    assert_eq!(lab.value_of(|x: u32| x + 1, (1,)), 2);
    assert!(lab.stats().workers[0].restarts > 0);
}

#[inline(never)]
fn the_kernel_that_panics(n: u32) -> u32 {
    assert!(black_box(n) > 100, "{n} is not more than 100");
    n
}

fn a_panic_has_message_location_and_backtrace() {
    let lab = Lab::balanced(1);
    let error = lab.error_of(the_kernel_that_panics, (5,));
    let (message, location, backtrace) = panicked(error.kind());
    assert_eq!(message, "5 is not more than 100");
    assert_says(&location, "faults.rs:");
    assert_says(&backtrace, "the_kernel_that_panics");
    assert_says(&error, "panicked at");
    assert_says(&error, message);
    assert!(error.kernel().ends_with("the_kernel_that_panics"));
    // The worker lives.
    let pid = lab.pid(0);
    for n in 0..200 {
        assert_eq!(
            lab.submit(the_kernel_that_panics, (n,)).wait().is_ok(),
            n > 100
        );
    }
    assert_eq!((lab.pid(0), lab.stats().workers[0].restarts), (pid, 0));
    assert_eq!(lab.failures("the_kernel_that_panics"), 102);
}

fn a_long_message_leaves_room_for_its_location() {
    fn says_much(of: u32) {
        panic!("{}\u{1e}", "\u{e4}".repeat(of as usize));
    }
    let lab = Lab::balanced(1);
    for of in [1, 4095, 4096, 100_000] {
        let error = lab.error_of(says_much, (of,));
        let (message, location, backtrace) = panicked(error.kind());
        let text = message.trim_start_matches('\u{e4}');
        assert_eq!((message.len() - text.len()) / 2, of.min(4096) as usize);
        assert_eq!(text.ends_with("bytes more"), of > 4095, "{text}");
        assert_says(&location, "faults.rs:");
        assert!(backtrace.contains("says_much"), "{of}: {backtrace}");
        assert!(!backtrace.contains('\u{1e}'), "{of}: {backtrace}");
    }
}

fn panics_of_every_kind() {
    struct Nasty;
    impl Drop for Nasty {
        fn drop(&mut self) {
            if !std::thread::panicking() {
                panic!("even its end");
            }
        }
    }
    fn with_output(n: usize) -> Array<u8> {
        let first = Array::<u8>::zeros(n);
        let _second = ArrayMut::<u8>::from_slice(&first);
        panic!("with arrays of {n} bytes in hand")
    }
    let lab = Lab::balanced(1);
    let message = |error: JobError| match error.kind() {
        JobErrorKind::Panicked { message, .. } => message.clone(),
        _ => panic!("{error:?}"),
    };
    let long = "x".repeat(100_000);
    let text = message(lab.error_of(|text: &str| -> u8 { panic!("{text}") }, (&long,)));
    assert!(
        text.strip_suffix(" … and 91808 bytes more") == Some(&long[..8192]),
        "a long message is cut, not lost: {}",
        text.len()
    );
    fn throw(n: u32) -> u32 {
        match n {
            1 => std::panic::panic_any(5u8),
            2 => std::panic::panic_any(Nasty),
            n => n,
        }
    }
    for engine in [&*lab, &Engine::inline()] {
        let thrown = engine.map(throw, (0..4).map(|n| (n,)));
        for (n, result) in (0..).zip(thrown) {
            match result {
                Ok(value) => assert!(value == n && [0, 3].contains(&n)),
                Err(error) => drop(message(error)),
            }
        }
    }
    let unheard = || -> u8 { std::panic::resume_unwind(Box::new("unheard")) };
    assert_eq!(message(lab.error_of(unheard, ())), "unheard");
    for n in [10, 1 << 20] {
        assert_eq!(
            message(lab.error_of(with_output, (n,))),
            format!("with arrays of {n} bytes in hand")
        );
    }
    // A caught panic is no failure.
    let caught = lab.submit(
        || std::panic::catch_unwind(|| panic!("caught")).is_err(),
        (),
    );
    assert!(caught.wait().unwrap());
    // Nor is its message attributed to the next panic if that is resumed from another thread, as thread pools do.
    fn handed_on() -> u8 {
        let thread = std::thread::spawn(|| -> u8 { panic!("thread {}", black_box(3)) });
        thread
            .join()
            .unwrap_or_else(|payload| std::panic::resume_unwind(payload))
    }
    let error = lab.error_of(handed_on, ());
    assert!(
        error.to_string().ends_with(": panicked: thread 3"),
        "{error}"
    );
    let careless = || -> u8 { std::thread::spawn(|| panic!("there")).join().unwrap() };
    message(lab.error_of(careless, ()));
    assert_eq!(lab.stats().workers[0].restarts, 0);
}

fn an_exit() {
    let lab = Lab::balanced(1);
    for code in [0, 3, 70, 71] {
        let error = lab.error_of(|code: i32| -> u8 { std::process::exit(code) }, (code,));
        assert_death(
            &lab,
            &error,
            &JobErrorKind::Lost(WorkerExit::Code(Some(code))),
        );
        assert_says(&error, &format!("code {code}"));
    }
}

fn signals() {
    let lab = Lab::balanced(1);
    // SAFETY: sends a signal to this very process.
    let send = |signal: i32| unsafe { libc::raise(signal) };
    for signal in [libc::SIGKILL, libc::SIGQUIT, libc::SIGFPE, libc::SIGUSR1] {
        let error = lab.error_of(send, (signal,));
        assert_death(&lab, &error, &by_signal(signal));
    }
    // Workers ignore what a terminal, a service manager or a closed pipe sends to the whole group.
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGPIPE] {
        assert_eq!(lab.value_of(send, (signal,)), 0);
    }
}

fn a_write_to_an_input_changes_nothing() {
    let lab = Lab::balanced(1);
    for len in [1usize, 100, 64 * 1024, 3 << 20] {
        let victim = lab.from_fn(len, |i| i as u8).unwrap();
        for at in [0, len / 2, len - 1] {
            let error = lab.error_of(vandal, (&victim, at));
            assert_death(&lab, &error, &by_signal(11));
            assert!(
                victim.iter().enumerate().all(|(i, &x)| x == i as u8),
                "a byte of {len} changed"
            );
        }
    }
}

fn a_write_to_a_text_argument_is_private() {
    fn scribble(text: &str) -> u8 {
        // SAFETY: none: a bug in a kernel, on purpose. The text is the worker's private copy.
        unsafe { text.as_ptr().cast_mut().write_volatile(b'X') };
        text.as_bytes()[0]
    }
    let lab = Lab::new(1);
    let text = String::from("untouched");
    assert_eq!(lab.value_of(scribble, (&text,)), b'X');
    assert_eq!(text, "untouched");
}

fn a_write_to_another_workers_array_changes_nothing() {
    let lab = Lab::balanced(2);
    let (blocked, held) = lab.hold();
    // One worker is at the gate while the other makes the victim; then the other way round.
    let victim = lab.value_of(made, (1000,));
    let (blocked_two, held_two) = lab.hold();
    drop(held);
    blocked.wait().unwrap();
    let error = lab.error_of(vandal, (&victim, 10));
    assert_eq!(*error.kind(), by_signal(11));
    assert!(victim.iter().enumerate().all(|(i, &x)| x == i as u8));
    drop(held_two);
    blocked_two.wait().unwrap();
}

fn a_write_to_a_published_array_changes_nothing() {
    let lab = Lab::balanced(1);
    for len in [64 * 1024, 64 * 1024 + 1, 1_000_000, 5 << 20] {
        // The first array of a worker, and one after others.
        for before in [0, 3] {
            let _others: Vec<_> = (0..before)
                .map(|n| lab.value_of(made, (n * 70_000 + 5,)))
                .collect();
            let victim = lab.value_of(made, (len,));
            for at in [0, len / 2, len - 1] {
                let pid = lab.pid(0);
                let error = lab.error_of(vandal, (&victim, at));
                assert_death(&lab, &error, &by_signal(11));
                assert!(victim.iter().enumerate().all(|(i, &x)| x == i as u8));
                assert_ne!(lab.pid(0), pid);
                // The replacement did not make the array, and cannot write it either.
                let error = lab.error_of(vandal, (&victim, at));
                assert_eq!(*error.kind(), by_signal(11));
                // One that makes its own array next to it.
                lab.value_of(made, (len,));
            }
        }
    }
}

fn arena_full_keeps_its_numbers() {
    fn by_question_mark(len: usize) -> Result<Array<u8>, arenite::ArenaFull> {
        ArrayMut::try_zeros(len).map(ArrayMut::seal)
    }
    fn boxed(len: usize) -> Result<Array<u8>, Box<dyn std::error::Error>> {
        let array = ArrayMut::try_zeros(len)?;
        Ok(array.seal())
    }
    fn described(len: usize) -> Result<Array<u8>, String> {
        ArrayMut::try_from_fn(len, |_| 1)
            .map(ArrayMut::seal)
            .map_err(|full| format!("while thinking: {full}"))
    }
    fn unwrapped(len: usize) -> Array<u8> {
        ArrayMut::try_zeros(len).unwrap().seal()
    }
    fn constructor(len: usize) -> ArrayMut<u8> {
        ArrayMut::zeros(len)
    }
    fn second(len: usize) -> (Array<u8>, Array<u8>) {
        (Array::zeros(1000), Array::zeros(len))
    }
    let lab = Lab::balanced_with(1, |builder| builder.capacity(32 << 20));
    let len = 33 << 20;
    let failures = [
        lab.error_of(by_question_mark, (len,)),
        lab.error_of(boxed, (len,)),
        lab.error_of(described, (len,)),
        lab.error_of(unwrapped, (len,)),
        lab.error_of(constructor, (len,)),
        lab.error_of(second, (len,)),
        lab.error_of(|len: usize| "x".repeat(len), (len,)),
    ];
    for error in &failures {
        let JobErrorKind::Limit(JobLimit::Arena(full)) = error.kind() else {
            panic!("{error}")
        };
        assert!(
            full.requested >= len as u64 && full.capacity == 32 << 20,
            "{full:?}"
        );
        assert!(full.free < 32 << 20 && full.free > 30 << 20, "{full:?}");
        assert_says(&error, "raise the capacity");
    }
    // Nothing was lost, and the worker lives.
    assert_eq!(lab.value_of(constructor, (1000,)).len(), 1000);
    assert_eq!(lab.value_of(constructor, (25 << 20,)).len(), 25 << 20);
    assert_eq!(lab.stats().workers[0].restarts, 0);
}

fn a_kernel_may_handle_a_full_arena() {
    fn modest(len: usize) -> Array<u8> {
        ArrayMut::try_zeros(len).map_or_else(|_| Array::from_slice(b"less"), ArrayMut::seal)
    }
    fn other_failure(len: usize) -> Result<Array<u8>, String> {
        let _ = ArrayMut::<u8>::try_zeros(len);
        Err("something else".into())
    }
    let lab = Lab::balanced_with(1, |builder| builder.capacity(16 << 20));
    assert_eq!(lab.value_of(modest, (17 << 20,))[..], *b"less");
    let error = lab.error_of(other_failure, (17 << 20,));
    assert_eq!(
        *error.kind(),
        JobErrorKind::Returned("something else".into())
    );
}

/// A forked copy of a worker cannot answer: it ends when it returns from the kernel.
fn a_kernel_that_forks() {
    fn split(values: &Array<u32>) -> Result<(u32, i32), String> {
        // SAFETY: none: kernels should not fork. Only this thread continues in the copy.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // The copy can read its input.
            return Ok((values[2], 0));
        }
        let mut status = 0;
        // SAFETY: waits for the copy, and writes its status to this variable.
        let ended = unsafe { libc::waitpid(child, &raw mut status, 0) };
        if ended != child {
            return Err(std::io::Error::last_os_error().to_string());
        }
        Ok((values[2] + 1, libc::WTERMSIG(status)))
    }
    let lab = Lab::new(1);
    let values = lab.from_slice(&[1u32, 2, 3]).unwrap();
    let worker = lab.value_of(std::process::id, ());
    for _ in 0..3 {
        let answer = lab.value_of(split, (&values,));
        assert_eq!(answer, (4, libc::SIGSEGV));
        assert_eq!(lab.value_of(std::process::id, ()), worker);
    }
    assert_eq!(lab.stats().workers[0].restarts, 0);
}

/// With everything that a worker records at its end: the copy has nowhere to record it.
fn a_process_that_a_kernel_forks_may_exit() {
    fn split(how: i32) -> i32 {
        // SAFETY: only this thread continues in the copy, which ends at once.
        let child = unsafe { libc::fork() };
        if child == 0 {
            match how {
                // SAFETY: ends the copy, with its exit handlers.
                0 => unsafe { libc::exit(3) },
                _ => std::process::abort(),
            }
        }
        let mut status = 0;
        // SAFETY: waits for the copy, and writes its status to this variable.
        unsafe { libc::waitpid(child, &raw mut status, 0) };
        status
    }
    let lab = Lab::with(1, |builder| builder.lanes(2).memory_limit(1 << 30));
    let status = lab.value_of(split, (0,));
    assert!(
        libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 3,
        "{status:#x}"
    );
    let status = lab.value_of(split, (1,));
    assert_eq!(libc::WTERMSIG(status), libc::SIGABRT, "{status:#x}");
    assert_eq!(lab.stats().workers[0].restarts, 0);
}

/// A kernel that closes descriptors of the worker harms itself at most.
fn descriptors_closed_by_a_kernel() {
    fn close_all() -> Array<u8> {
        // SAFETY: none: a bug in a kernel, on purpose.
        unsafe { libc::close_range(3, u32::MAX, 0) };
        Array::zeros(1000)
    }
    let lab = Lab::balanced(1);
    for _ in 0..3 {
        let job = lab.submit(close_all, ());
        // The job succeeds by luck or fails with a cause; the supervisor continues either way.
        let _ = job.wait();
        lab.replace(0);
        assert_eq!(lab.value_of(|| 5u8, ()), 5);
    }
}

fn what_a_dead_worker_wrote_is_in_no_zeros() {
    fn scribble(len: usize) {
        let mut values = ArrayMut::<u8>::uninit(len);
        values.fill(0xa5);
        black_box(&mut values);
        std::process::abort();
    }
    let zeros = |len: usize| Array::<u8>::zeros(len);
    let lab = Lab::balanced(1);
    for len in [100, 5000, 1 << 16, 1 << 20, 5 << 20] {
        // Memory is granted ahead for what a kernel has made before.
        drop(lab.value_of(zeros, (len,)));
        lab.error_of(scribble, (len,));
        for _ in 0..3 {
            let values = lab.value_of(zeros, (len,));
            assert!(values.iter().all(|&value| value == 0), "{len} bytes");
        }
    }
}
