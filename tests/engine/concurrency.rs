//! Many threads on one engine, and jobs without a waiter.

use std::io::Read;
use std::thread;

use arenite::Job;

use crate::harness::{Calls, Gate, Lab, pass, step, tests};

tests![
    threads_wait_for_each_others_jobs,
    detached_jobs_end_while_the_caller_sleeps,
    a_long_job_delays_no_job_that_another_worker_can_run,
];

fn square(n: u64) -> u64 {
    n * n
}

/// Each thread submits a batch and passes the handles to the next thread.
fn threads_wait_for_each_others_jobs() {
    let lab = Lab::new(2);
    thread::scope(|threads| {
        let lab = &lab;
        let (mut first, second): (Vec<_>, Vec<_>) = (0..8)
            .map(|_| std::sync::mpsc::channel::<Vec<(u64, Job<u64>)>>())
            .unzip();
        first.rotate_left(1);
        for (next, own) in first.into_iter().zip(second) {
            threads.spawn(move || {
                let jobs = (0..10_000u64)
                    .map(|n| (n, lab.submit(square, (n,))))
                    .collect();
                next.send(jobs).unwrap();
                drop(next);
                for (n, job) in own.recv().unwrap() {
                    assert_eq!(job.wait().unwrap(), n * n);
                }
            });
        }
        step("8 threads in a ring");
    });
    lab.assert_in_use(0);
}

/// Progress depends on no thread of the caller: this one sleeps on a pipe and never enters the engine.
fn detached_jobs_end_while_the_caller_sleeps() {
    fn tell(path: &str) {
        let mut pipe = std::fs::File::options()
            .write(true)
            .open(path)
            .expect("the pipe stands");
        std::io::Write::write_all(&mut pipe, b".").expect("a pipe takes one byte");
    }
    let lab = Lab::balanced(2);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipe");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    // Opened for both, so that it never reports end of file.
    let mut pipe = std::fs::File::options()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    let path = path.to_str().unwrap();
    for _ in 0..10_000 {
        lab.submit(tell, (path,)).detach();
    }
    step("10,000 bytes from detached jobs");
    let mut bytes = vec![0; 10_000];
    pipe.read_exact(&mut bytes).unwrap();
    assert!(bytes.iter().all(|&byte| byte == b'.'));
}

fn a_long_job_delays_no_job_that_another_worker_can_run() {
    let lab = Lab::new(2);
    // The engine has learned that this kernel is very short.
    fn usually_short(gate: &str) {
        if !gate.is_empty() {
            pass(gate);
        }
    }
    for _ in 0..2000 {
        lab.value_of(usually_short, ("",));
    }
    let gate = Gate::new();
    let long = lab.submit(usually_short, (&gate.path(),));
    let behind: Vec<_> = (0..200).map(|_| lab.submit(usually_short, ("",))).collect();
    let held = gate.meet();
    step("short jobs that were put behind a long one");
    behind.into_iter().for_each(|job| job.wait().unwrap());
    drop(held);
    long.wait().unwrap();
}
