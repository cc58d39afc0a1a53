//! Spares: workers that are ready before another one ends.

use std::path::Path;
use std::time::Duration;

use arenite::engine::WorkerStats;
use arenite::{Array, Engine, JobErrorKind, JobLimit};
use nix::sys::signal::Signal;

use crate::harness::{
    Calls, Gate, Invariant, KILLED, Lab, assert_kind, at_gates, hang, pass, send_signal, step,
    tests, wait_until,
};

tests![
    each_end_is_followed_by_a_spare,
    spares_get_no_jobs,
    lanes_move_together,
    an_actor_moves_to_a_spare,
    spares_that_die_cost_nothing,
    spares_that_do_not_start_cost_nothing,
    all_die_at_once,
    the_next_job_waits_for_the_exit,
    shutdown_while_spares_start,
];

fn end(pid: u32, signal: Signal) {
    send_signal(pid as i32, signal);
}

/// Process ids of the workers that take jobs, and of the spares.
fn pids(engine: &Engine) -> (Vec<u32>, Vec<u32>) {
    let workers = engine.stats().workers;
    assert!(workers.iter().all(|worker| !(worker.ready && worker.spare)));
    let of = |wanted: fn(&WorkerStats) -> bool| {
        let wanted = workers.iter().filter(|worker| wanted(worker));
        wanted.map(|worker| worker.pid).collect()
    };
    (of(|worker| worker.ready), of(|worker| worker.spare))
}

/// Waits until all are ready, and returns their process ids.
fn settled(engine: &Engine, active: usize, spares: usize) -> (Vec<u32>, Vec<u32>) {
    wait_until("all workers and spares are ready", || {
        let (ready, spare) = pids(engine);
        (ready.len(), spare.len()) == (active, spares)
    });
    pids(engine)
}

fn held(gate: &str) {
    pass(gate);
    hang();
}

/// The job after a death runs in a process that was ready before it, whatever the cause of death.
fn each_end_is_followed_by_a_spare() {
    fn crash() {
        std::process::abort();
    }
    fn take(bytes: usize) -> usize {
        std::hint::black_box(vec![1u8; bytes]).len()
    }
    fn leave() {
        std::process::exit(3);
    }
    let invariant = Invariant::before();
    let lab = Lab::with(1, |builder| builder.spares(1).memory_limit(256 << 20));
    type End = fn(&Lab);
    let ends: [(&str, End); 6] = [
        ("a crash", |lab| {
            lab.error_of(crash, ());
        }),
        ("an exit", |lab| {
            lab.error_of(leave, ());
        }),
        ("a deadline", |lab| {
            let late = lab.job(hang, ()).deadline(Duration::from_millis(10));
            lab.failure_of(late.submit());
        }),
        ("a cancellation", |lab| {
            let gate = Gate::new();
            let job = lab.submit(held, (&gate.path(),));
            gate.open();
            job.kill();
            lab.failure_of(job);
        }),
        ("the memory limit", |lab| {
            lab.error_of(take, (1 << 30,));
        }),
        ("a kill from outside", |lab| {
            let (ready, _) = pids(lab);
            end(ready[0], Signal::SIGKILL);
            wait_until("it is gone", || !pids(lab).0.contains(&ready[0]));
        }),
    ];
    for (what, end) in ends {
        let (ready, spare) = settled(&lab, 1, 1);
        assert_eq!(lab.value_of(std::process::id, ()), ready[0], "{what}");
        end(&lab);
        step(format!("a job after {what}"));
        assert_eq!(lab.value_of(std::process::id, ()), spare[0], "{what}");
    }
    settled(&lab, 1, 1);
    assert_eq!(lab.stats().restarts(), 6);
    invariant.ends(lab).unwrap();

    let lab = Lab::with(1, |builder| builder.spares(1).recycle_after_jobs(1));
    for _ in 0..5 {
        let (ready, spare) = settled(&lab, 1, 1);
        assert_eq!(lab.value_of(std::process::id, ()), ready[0]);
        assert_eq!(lab.value_of(std::process::id, ()), spare[0]);
    }
    assert_eq!(lab.stats().restarts(), 0);
    settled(&lab, 1, 1);
    assert_eq!(lab.stats().recycled(), 10);
}

/// Never more workers than asked for have jobs, however many jobs wait.
fn spares_get_no_jobs() {
    let lab = Lab::with(2, |builder| builder.spares(2));
    let (ready, spares) = settled(&lab, 2, 2);
    let (running, held) = at_gates(2, |gate| lab.submit(pass, (gate,)));
    let waiting: Vec<_> = (0..100).map(|_| lab.submit(std::process::id, ())).collect();
    let mut workers = lab.stats().workers.into_iter();
    assert!(workers.all(|worker| !worker.spare || worker.open == 0));
    drop(held);
    running.into_iter().for_each(|job| job.wait().unwrap());
    for job in waiting {
        assert!(ready.contains(&job.wait().unwrap()));
    }
    let mapped = lab.map(std::process::id, (0..1000).map(|_| ()));
    for pid in mapped {
        assert!(ready.contains(&pid.unwrap()));
    }
    assert_eq!(pids(&lab), (ready, spares));
}

/// A spare takes over all lanes of a worker.
fn lanes_move_together() {
    let lab = Lab::balanced_with(1, |builder| builder.lanes(3).spares(1));
    let (ready, spare) = settled(&lab, 1, 1);
    for (round, pid) in [ready[0], spare[0]].into_iter().enumerate() {
        // All three are at their gates at the same time.
        let (jobs, open) = at_gates(3, |gate| lab.submit(held, (gate,)));
        let behind = lab.submit(std::process::id, ());
        end(pid, Signal::SIGKILL);
        for job in jobs {
            let error = lab.failure_of(job);
            assert_eq!(*error.kind(), KILLED, "{error}");
        }
        drop(open);
        let next = behind.wait().unwrap();
        if round == 0 {
            assert_eq!(next, spare[0]);
        }
    }
}

/// An actor with checkpoints whose worker dies is restored in a spare.
fn an_actor_moves_to_a_spare() {
    struct Home(u64);
    let lab = Lab::with(1, |builder| builder.spares(1));
    let (ready, spare) = settled(&lab, 1, 1);
    let actor = lab
        .actor(|| Home(7), ())
        .checkpoint(
            1,
            |home: &Home| Array::from_slice(&[home.0]),
            |saved: &Array<u64>| Home(saved[0]),
        )
        .start();
    let home = |home: &mut Home| {
        home.0 += 1;
        (std::process::id(), home.0)
    };
    assert_eq!(actor.call(home, ()).wait().unwrap(), (ready[0], 8));
    fn crash(_: &mut Home) {
        std::process::abort();
    }
    lab.failure_of(actor.call(crash, ()));
    assert_eq!(actor.call(home, ()).wait().unwrap(), (spare[0], 9));
}

/// Spares that die again and again: the others work on.
fn spares_that_die_cost_nothing() {
    let lab = Lab::balanced_with(1, |builder| builder.spares(2));
    let (ready, _) = settled(&lab, 1, 2);
    let (running, at_gate) = lab.hold();
    for _ in 0..3 {
        let (_, spares) = settled(&lab, 1, 2);
        let restarts = lab.stats().restarts();
        for spare in spares {
            end(spare, Signal::SIGKILL);
        }
        wait_until("both are gone", || lab.stats().restarts() == restarts + 2);
    }
    drop(at_gate);
    running.wait().unwrap();
    assert_eq!(lab.value_of(std::process::id, ()), ready[0]);
    settled(&lab, 1, 2);
}

/// In workers: fails to start once a file exists.
fn start_unless(file: &str) {
    if Path::new(file).exists() {
        std::process::abort();
    }
}

/// Spares that never become ready: the worker is used, and replaced as soon as something starts again.
fn spares_that_do_not_start_cost_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("broken");
    let invariant = Invariant::before();
    let lab = Lab::with(1, |builder| {
        builder
            .spares(1)
            .on_worker_start_with(start_unless, (file.to_str().unwrap(),))
    });
    let (ready, spare) = settled(&lab, 1, 1);
    std::fs::write(&file, "").unwrap();
    end(spare[0], Signal::SIGKILL);
    wait_until("it is gone", || pids(&lab).1.is_empty());
    for _ in 0..200 {
        assert_eq!(lab.value_of(std::process::id, ()), ready[0]);
    }
    end(ready[0], Signal::SIGKILL);
    wait_until("none is left", || pids(&lab).0.is_empty());
    let job = lab.submit(std::process::id, ());
    std::fs::remove_file(&file).unwrap();
    let next = job.wait().unwrap();
    assert!(next != ready[0] && next != spare[0]);
    settled(&lab, 1, 1);
    invariant.holds(&lab, 0).unwrap();
    // Without any worker that starts, the engine gives up, as it does without spares.
    std::fs::write(&file, "").unwrap();
    let (ready, spare) = settled(&lab, 1, 1);
    for pid in [spare[0], ready[0]] {
        end(pid, Signal::SIGKILL);
    }
    let error = lab.error_of(hang, ());
    assert_kind!(error, JobErrorKind::NoWorkers(_));
    lab.into_inner().shutdown();
    invariant.nothing_left().unwrap();
}

/// The worker and its spares die at the same time, with jobs in front of them: these run as soon as one of them is back.
fn all_die_at_once() {
    let lab = Lab::balanced_with(1, |builder| builder.spares(1));
    for round in 1..=5u64 {
        let (ready, spare) = settled(&lab, 1, 1);
        let gate = Gate::new();
        let running = lab.job(pass, (&gate.path(),)).retries(2).submit();
        let at_gate = gate.meet();
        let behind: Vec<_> = (0..50u32).map(|n| lab.submit(|n: u32| n, (n,))).collect();
        let order = if round % 2 == 0 {
            [spare[0], ready[0]]
        } else {
            [ready[0], spare[0]]
        };
        for pid in order {
            end(pid, Signal::SIGKILL);
        }
        drop(at_gate);
        // Until then the process that dies may still be at the gate.
        wait_until("both are gone", || lab.stats().restarts() == 2 * round);
        gate.open();
        running.wait().unwrap();
        for (n, job) in (0..).zip(behind) {
            assert_eq!(job.wait().unwrap(), n);
        }
    }
    settled(&lab, 1, 1);
}

/// A job never runs beside one that is being killed: with one worker, one job at a time holds.
fn the_next_job_waits_for_the_exit() {
    let folder = tempfile::tempdir().unwrap();
    let lock = folder.path().join("lock");
    /// Fails if another process holds the lock, which goes with the process.
    fn locked(path: &str, hangs: bool) -> bool {
        let file = std::fs::File::create(path).unwrap();
        let free = file.try_lock().is_ok();
        std::mem::forget(file);
        if hangs {
            hang();
        }
        free
    }
    let path = lock.to_str().unwrap();
    let lab = Lab::with(1, |builder| builder.spares(1));
    for _ in 0..20 {
        settled(&lab, 1, 1);
        let late = lab
            .job(locked, (path, true))
            .deadline(Duration::from_millis(2));
        let late = late.submit();
        let next = lab.submit(locked, (path, false));
        let error = lab.failure_of(late);
        assert_kind!(error, JobErrorKind::Limit(JobLimit::Deadline { .. }));
        assert!(next.wait().unwrap(), "the lock is free");
        // The process that has the lock goes.
        end(lab.value_of(std::process::id, ()), Signal::SIGKILL);
        wait_until("it is free", || {
            std::fs::File::open(path).is_ok_and(|file| file.try_lock().is_ok())
        });
    }
}

/// In workers: the first one starts, all others wait.
fn start_once(file: &str) {
    if std::fs::File::create_new(file).is_err() {
        hang();
    }
}

/// The end of an engine does not wait for spares that are starting.
fn shutdown_while_spares_start() {
    for drains in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("first");
        let invariant = Invariant::before();
        // Returns although no spare ever gets ready.
        let lab = Lab::with(1, |builder| {
            builder
                .spares(2)
                .on_worker_start_with(start_once, (file.to_str().unwrap(),))
        });
        assert_eq!(lab.value_of(|| 7u8, ()), 7);
        wait_until("spares are starting", || {
            lab.stats().workers.iter().all(|worker| worker.pid != 0)
        });
        step("the end of an engine whose spares start");
        match drains {
            true => lab.into_inner().shutdown(),
            false => drop(lab),
        }
        invariant.nothing_left().unwrap();
    }
}
