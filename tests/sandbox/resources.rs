//! A sandboxed job takes all it can get of a resource. Jobs of another worker go on, and so does the program.
//!
//! Private memory is in `work`: `private_memory_beyond_the_ceiling_fails`,
//! `filled_memory_cannot_be_hidden_from_the_ceiling`. Files, and with them the disk, cannot be opened: `calls`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arenite::engine::LogLine;
use arenite::{ArrayMut, Job};

use crate::harness::{late, private_bytes, status_of, step, tests, wait_until};
use crate::lab::{Victim, raw, strict, strict_with};

tests![
    all_of_the_arena,
    all_that_can_be_printed,
    as_many_threads_as_there_may_be,
    all_descriptors,
    all_signals_to_the_program,
    all_processor_time,
];

/// Runs honest jobs while the attack, which does not end on its own, has taken what it gets.
fn beside(victim: &Victim, attack: Job<u64>, has_taken: impl Fn(usize) -> bool) {
    wait_until("the attack runs", || attack.is_running());
    let hostile = victim.lab.busy_worker();
    wait_until("the attack has taken all", || has_taken(hostile));
    for _ in 0..20 {
        victim.honest().check();
        step("the next honest job");
    }
    assert!(!attack.is_done());
    attack.kill();
    victim.lab.failure_of(attack);
    victim.honest().check();
    victim.check();
}

fn all_of_the_arena() {
    fn hog() -> u64 {
        let mut all = Vec::new();
        while let Ok(mut array) = ArrayMut::<u8>::try_zeros(1 << 20) {
            array.fill(1);
            all.push(array);
        }
        std::thread::sleep(Duration::MAX);
        all.len() as u64
    }
    let victim = Victim::in_lab(strict_with(2, |builder| builder.capacity(64 << 20)));
    let attack = victim.lab.submit(hog, ());
    // All but the other worker's share.
    let granted = |worker: usize| victim.lab.stats().workers[worker].granted;
    beside(&victim, attack, |worker| granted(worker) > 48 << 20);
}

fn all_that_can_be_printed() {
    fn flood() -> u64 {
        loop {
            println!("{}", "x".repeat(4000));
        }
    }
    let own = std::process::id();
    let lines = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&lines);
    // Slower than the worker.
    let sink = move |_: &LogLine| {
        count.fetch_add(1, Ordering::Relaxed);
        std::thread::yield_now();
    };
    let victim = Victim::in_lab(strict_with(2, |builder| builder.on_log(sink)));
    let before = private_bytes(own).unwrap();
    let attack = victim.lab.submit(flood, ());
    beside(&victim, attack, |_| lines.load(Ordering::Relaxed) > 200);
    let more = private_bytes(own).unwrap().saturating_sub(before);
    assert!(more < 64 << 20, "{} MiB more", more >> 20);
}

/// Bounded, because other programs of this user would get none.
fn as_many_threads_as_there_may_be() {
    const MAX: u64 = 500;
    fn threads() -> u64 {
        let start = || {
            let builder = std::thread::Builder::new().stack_size(16 << 10);
            builder.spawn(|| std::thread::sleep(Duration::MAX)).is_ok()
        };
        let count = (0..MAX).take_while(|_| start()).count() as u64;
        std::thread::sleep(Duration::MAX);
        count
    }
    let victim = Victim::in_lab(strict_with(2, |builder| builder.memory_limit(64 << 20)));
    let attack = victim.lab.submit(threads, ());
    let has_started = |worker| {
        let threads = status_of(victim.lab.pid(worker) as u32, "Threads").unwrap();
        threads.parse::<u64>().unwrap() > 100
    };
    beside(&victim, attack, has_started);
}

fn all_descriptors() {
    let victim = Victim::new();
    victim.refused("descriptors", |victim| {
        let attack = || -> i64 {
            let mut pair = [0_i32; 2];
            let mut one = || {
                i64::from(raw!(libc::SYS_eventfd2, 0, 0) >= 0)
                    + i64::from(raw!(libc::SYS_pipe2, pair.as_mut_ptr(), 0) >= 0)
                    + i64::from(raw!(libc::SYS_epoll_create1, 0) >= 0)
                    + i64::from(raw!(libc::SYS_dup, 1) >= 0)
                    + i64::from(raw!(libc::SYS_fcntl, 1, libc::F_DUPFD, 3) >= 0)
                    + i64::from(raw!(libc::SYS_socket, libc::AF_UNIX, libc::SOCK_STREAM, 0) >= 0)
                    + i64::from(raw!(libc::SYS_timerfd_create, 0, 0) >= 0)
            };
            (0..1000).map(|_| one()).sum()
        };
        victim.lab.submit(attack, ())
    });
}

/// Whatever a worker may write to wakes the program's monitor.
fn all_signals_to_the_program() {
    fn storm() -> u64 {
        let one = 1_u64.to_ne_bytes();
        loop {
            // Those of its output too.
            for descriptor in 3..64 {
                let _ = raw!(libc::SYS_write, descriptor, one.as_ptr(), one.len());
            }
        }
    }
    let victim = Victim::in_lab(strict_with(2, |builder| builder.on_log(|_| ())));
    let attack = victim.lab.submit(storm, ());
    beside(&victim, attack, |_| true);
}

fn all_processor_time() {
    fn spin() -> u64 {
        loop {
            std::hint::spin_loop();
        }
    }
    let limit = Duration::from_millis(100);
    let victim = Victim::in_lab(strict(2));
    let attacks: Vec<_> = (0..4)
        .map(|_| victim.lab.job(spin, ()).deadline(limit).submit())
        .collect();
    victim.honest().check();
    for attack in attacks {
        let error = victim.lab.failure_of(attack);
        assert_eq!(*error.kind(), late(limit), "{error}");
    }
    victim.honest().check();
    victim.check();
}
