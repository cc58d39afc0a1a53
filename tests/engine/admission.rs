//! Admission by bytes: which jobs enter, which wait, and what is returned to the caller.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::task::{Context, Waker};
use std::thread;

use arenite::{Array, ArrayMut, Engine, JobErrorKind, RefusedBy};
use futures_core::Stream;

use crate::harness::{
    Calls, Gate, Lab, assert_kind, assert_says, at_gates, block_on, pass, step, tests, wait_until,
};

tests![
    many_threads_stay_below_the_ceiling,
    memory_held_by_arguments_counts,
    one_larger_than_the_ceiling_runs_alone,
    a_new_kernel_runs_on_all_workers_at_once,
    jobs_are_admitted_in_order_of_arrival,
    try_submit_returns_the_arguments,
    a_refused_chain_returns_all_arguments,
    a_long_text_takes_no_memory_before_it_is_let_in,
    maps_and_scopes_stay_below_the_ceiling,
    jobs_that_die_or_are_dropped_free_their_share,
    a_map_outlives_its_engine,
];

const MIB: u64 = 1 << 20;

fn limited(workers: usize, bytes: u64) -> Lab {
    Lab::balanced_with(workers, |builder| builder.max_in_flight_bytes(bytes))
}

fn mib(engine: &Engine, count: usize) -> ArrayMut<u8> {
    engine.zeros(count << 20).unwrap()
}

fn result(len: usize) -> Array<u8> {
    Array::zeros(len)
}

fn many_threads_stay_below_the_ceiling() {
    const LEN: u64 = MIB / 8;
    let lab = limited(2, 10 * LEN);
    // From here on the kernel's result size is known.
    lab.value_of(result, (LEN as usize,));
    let (over, most) = (AtomicBool::new(false), AtomicU64::new(0));
    step("eight threads that submit more than is let in");
    thread::scope(|threads| {
        let (lab, over, most) = (&lab, &over, &most);
        let watcher = threads.spawn(move || {
            while !over.load(SeqCst) {
                most.fetch_max(lab.stats().admitted, SeqCst);
                thread::park_timeout(std::time::Duration::from_micros(200));
            }
        });
        let submitters: Vec<_> = (0..8)
            .map(|_| {
                threads.spawn(move || {
                    let jobs: Vec<_> = (0..50)
                        .map(|_| lab.submit(result, (LEN as usize,)))
                        .collect();
                    for job in jobs {
                        assert_eq!(job.wait().unwrap().len() as u64, LEN);
                    }
                })
            })
            .collect();
        let ended: Vec<_> = submitters.into_iter().map(|thread| thread.join()).collect();
        over.store(true, SeqCst);
        ended.into_iter().for_each(|end| end.unwrap());
        watcher.join().unwrap();
    });
    let most = most.into_inner();
    assert!((LEN..=10 * LEN).contains(&most), "{most} bytes in flight");
}

fn memory_held_by_arguments_counts() {
    fn take(_: ArrayMut<u8>, gate: &str) {
        pass(gate);
    }
    fn read(_: &Array<u8>, gate: &str) {
        pass(gate);
    }
    let lab = limited(2, 16 * MIB);
    // Both kernels are known to return nothing.
    let known = Gate::new();
    let small = lab.zeros::<u8>(1).unwrap();
    let job = lab.submit(take, (small, &known.path()));
    known.open();
    job.wait().unwrap();
    let job = lab.submit(read, (&lab.from_slice(&[1_u8]).unwrap(), &known.path()));
    known.open();
    job.wait().unwrap();
    let gates = [Gate::new(), Gate::new()];
    let bytes = |held: u64| held..held + 4096;
    let admitted = || lab.stats().admitted;
    // Moved in: all of it counts.
    let job = lab.submit(take, (mib(&lab, 5), &gates[0].path()));
    assert!(bytes(5 * MIB).contains(&admitted()), "{}", admitted());
    // Shared with another handle: nothing counts.
    let shared = mib(&lab, 5).seal();
    let other = lab.submit(read, (&shared, &gates[1].path()));
    assert!(bytes(5 * MIB).contains(&admitted()), "{}", admitted());
    // The last handle moved in: it counts again.
    let behind = lab.submit(read, (mib(&lab, 3).seal(), &gates[0].path()));
    assert!(bytes(8 * MIB).contains(&admitted()), "{}", admitted());
    gates[0].open();
    job.wait().unwrap();
    gates[0].open();
    behind.wait().unwrap();
    assert!(bytes(0).contains(&admitted()), "{}", admitted());
    gates[1].open();
    other.wait().unwrap();
    assert_eq!(admitted(), 0);
}

fn one_larger_than_the_ceiling_runs_alone() {
    let lab = limited(2, MIB);
    let gate = Gate::new();
    let large = |gate: &str, _: ArrayMut<u8>| pass(gate);
    let first = lab.submit(large, (&gate.path(), mib(&lab, 8)));
    let held = gate.meet();
    let through = AtomicBool::new(false);
    thread::scope(|threads| {
        let (lab, through, path) = (&lab, &through, gate.path());
        let second = threads.spawn(move || {
            let array = mib(lab, 8);
            let job = lab.submit(large, (path, array));
            through.store(true, SeqCst);
            job.wait().unwrap();
        });
        wait_until(
            "it holds its array, and so is about to be refused or let in",
            || lab.stats().arena.in_use > 16 * MIB,
        );
        assert!(lab.job(|| (), ()).try_submit().is_err(), "not beside it");
        assert!(!through.load(SeqCst));
        drop(held);
        first.wait().unwrap();
        gate.open();
        second.join().unwrap();
    });
}

fn a_new_kernel_runs_on_all_workers_at_once() {
    let lab = Lab::balanced_with(3, |builder| builder.lanes(2).max_in_flight_bytes(6 * MIB));
    // The result size is unknown until the first job has ended, and none ends before all have begun.
    let new = |gate: &str| {
        pass(gate);
        Array::<u8>::zeros(1)
    };
    let (jobs, held) = at_gates(6, |gate| lab.submit(new, (gate,)));
    assert!(lab.job(new, ("",)).try_submit().is_err());
    drop(held);
    jobs.into_iter().for_each(|job| drop(job.wait().unwrap()));
}

fn jobs_are_admitted_in_order_of_arrival() {
    /// Number of jobs that the worker has run before.
    fn turn() -> u64 {
        static TURNS: AtomicU64 = AtomicU64::new(0);
        TURNS.fetch_add(1, SeqCst)
    }
    fn large(_: ArrayMut<u8>) -> u64 {
        turn()
    }
    let lab = limited(1, 4 * MIB);
    let gate = Gate::new();
    lab.value_of(turn, ());
    lab.value_of(large, (lab.zeros(1).unwrap(),));
    let hold = |gate: &str, _: ArrayMut<u8>| pass(gate);
    let known = lab.submit(hold, (gate.path(), lab.zeros(1).unwrap()));
    gate.open();
    known.wait().unwrap();
    // Two MiB run and three do not fit next to them. Later jobs wait behind those, however small.
    let running = lab.submit(hold, (gate.path(), mib(&lab, 2)));
    let held = gate.meet();
    let small = lab.job(turn, ()).try_submit();
    drop(small.expect("there is room for a small one"));
    let barrier = Barrier::new(2);
    let (first, second) = thread::scope(|threads| {
        let (lab, barrier) = (&lab, &barrier);
        let first = threads.spawn(move || {
            let array = mib(lab, 3);
            lab.value_of(large, (array,))
        });
        step("the first to be in the line");
        // Refused because another caller waits, not because of its size.
        while let Ok(job) = lab.job(turn, ()).try_submit() {
            drop(job);
        }
        let second = threads.spawn(move || {
            barrier.wait();
            lab.value_of(turn, ())
        });
        barrier.wait();
        drop(held);
        running.wait().unwrap();
        (first.join().unwrap(), second.join().unwrap())
    });
    assert!(first < second, "{first} {second}");
}

fn try_submit_returns_the_arguments() {
    fn keep(values: ArrayMut<u8>, gate: &str, n: u32) -> (ArrayMut<u8>, u32) {
        pass(gate);
        (values, n)
    }
    let lab = limited(1, 3 * MIB);
    let gate = Gate::new();
    let mut values = mib(&lab, 2);
    values[7] = 9;
    let first = lab
        .job(keep, (values, gate.path(), 1))
        .try_submit()
        .unwrap();
    let held = gate.meet();
    let mut other = mib(&lab, 2);
    other[7] = 8;
    let refused = lab
        .job(keep, (other, gate.path(), 2))
        .try_submit()
        .unwrap_err();
    let RefusedBy::Admission {
        bytes,
        in_flight,
        limit,
    } = refused.why
    else {
        panic!("{refused}")
    };
    assert!(
        bytes >= 2 * MIB && in_flight >= 2 * MIB && limit == 3 * MIB,
        "{refused}"
    );
    assert_says(&refused, &limit.to_string());
    let in_use = lab.stats().arena.in_use;
    let (mut other, path, n) = *refused.args;
    assert_eq!((other[7], &path, n), (8, &gate.path(), 2));
    other[7] = 7;
    assert_eq!(lab.stats().arena.in_use, in_use, "nothing was kept");
    drop(held);
    assert_eq!(first.wait().unwrap().0[7], 9);
    let again = lab.job(keep, (other, path, n)).try_submit().unwrap();
    gate.open();
    let (other, n) = again.wait().unwrap();
    assert_eq!((other[7], n), (7, 2));
}

fn a_refused_chain_returns_all_arguments() {
    let lab = limited(1, MIB);
    let (running, held) = lab.hold();
    let chain = |engine: &Engine, values: ArrayMut<u8>, text: String| {
        let first = |values: ArrayMut<u8>| values.seal();
        let second = |values: &Array<u8>, text: &str| values.len() + text.len();
        engine
            .job(first, (values,))
            .then(second, (text,))
            .try_submit()
    };
    let values = mib(&lab, 2);
    let ((values,), (text,)) = *chain(&lab, values, "four".into()).unwrap_err().args;
    drop(held);
    running.wait().unwrap();
    let job = chain(&lab, values, text).unwrap();
    assert_eq!(job.wait().unwrap(), 2 * MIB as usize + 4);
    // An inline engine runs it at once.
    let job = chain(&Engine::inline(), ArrayMut::zeros(10), "x".into()).unwrap();
    assert_eq!(job.wait().unwrap(), 11);
}

fn a_long_text_takes_no_memory_before_it_is_let_in() {
    fn length(text: &str, gate: &str) -> usize {
        if !gate.is_empty() {
            pass(gate);
        }
        text.len()
    }
    let lab = limited(1, 4 * MIB);
    let text = "x".repeat(3 * MIB as usize);
    assert_eq!(lab.value_of(length, (&text, "")), text.len());
    let gate = Gate::new();
    let first = lab.submit(length, (&text, &gate.path()));
    let held = gate.meet();
    let in_use = lab.stats().arena.in_use;
    assert!(in_use < 5 * MIB, "{in_use}");
    thread::scope(|threads| {
        let submits = || lab.value_of(length, (&text, ""));
        let waiting: Vec<_> = (0..4).map(|_| threads.spawn(submits)).collect();
        wait_until("a caller waits", || {
            lab.job(|| (), ()).try_submit().is_err()
        });
        let now = lab.stats().arena.in_use;
        assert_eq!(now, in_use, "those who wait have taken nothing");
        drop(held);
        for thread in waiting {
            assert_eq!(thread.join().unwrap(), text.len());
        }
    });
    first.wait().unwrap();
    let mut map = lab.map(length, (0..20).map(|_| (text.as_str(), "")));
    for value in map.by_ref() {
        assert_eq!(value.unwrap(), text.len());
        assert!(lab.stats().arena.in_use < 8 * MIB);
    }
}

fn maps_and_scopes_stay_below_the_ceiling() {
    fn fill(tile: &mut [u8], n: u8) {
        tile.fill(n);
    }
    let lab = limited(2, 4 * MIB);
    lab.value_of(result, (MIB as usize,));
    let mut map = lab.map(result, (0..100).map(|n| (MIB as usize + n,)));
    let mut most = 0;
    for n in 0..100 {
        assert_eq!(map.next().unwrap().unwrap().len(), MIB as usize + n);
        most = most.max(lab.stats().admitted);
        // Another caller takes a share in between.
        if n % 10 == 0 {
            assert_eq!(lab.value_of(|| 5_u8, ()), 5);
        }
    }
    assert!(map.next().is_none());
    assert!((MIB..=4 * MIB).contains(&most), "{most} at most");
    // Calls that were written but not admitted are dropped with their map.
    let mut map = lab.map(
        |values: ArrayMut<u8>| values.len(),
        (0..100).map(|_| (mib(&lab, 1),)),
    );
    assert_eq!(map.next().unwrap().unwrap(), MIB as usize);
    drop(map);
    // While another caller holds everything, a map waits.
    let gate = Gate::new();
    let hold = |gate: &str, _: ArrayMut<u8>| pass(gate);
    let running = lab.submit(hold, (gate.path(), mib(&lab, 9)));
    let held = gate.meet();
    let ones = (0..10).map(|n| (n,));
    let mut stream = pin!(lab.map(|n: u32| n + 1, ones).stream());
    let mut context = Context::from_waker(Waker::noop());
    assert!(stream.as_mut().poll_next(&mut context).is_pending());
    let stats = lab.stats();
    assert_eq!((stats.open, stats.queued), (1, 0), "nothing was let in");
    thread::scope(|threads| {
        let lab = &lab;
        let mapped = threads.spawn(move || {
            let sums: Result<Vec<u32>, _> =
                lab.map(|n: u32| n + 1, (0..300).map(|n| (n,))).collect();
            assert_eq!(sums.unwrap(), Vec::from_iter(1..301));
        });
        assert!(lab.job(|| (), ()).try_submit().is_err());
        drop(held);
        running.wait().unwrap();
        mapped.join().unwrap();
    });
    let rest = poll_fn(|context| stream.as_mut().poll_next(context));
    assert_eq!(block_on(rest).unwrap().unwrap(), 1);
    let lab = limited(2, 4096);
    let mut most = 0;
    let mut out = lab.zeros::<u8>(1_000_000).unwrap();
    lab.scope(|s| {
        for (tile, n) in out.tiles_mut(1000).zip(0..) {
            s.submit(fill, (tile, n as u8));
            most = most.max(lab.stats().admitted);
        }
    })
    .unwrap();
    assert!((512..=4096).contains(&most), "{most} at most");
    assert!(
        out.chunks(1000)
            .zip(0..)
            .all(|(rows, n)| rows.iter().all(|&x| x == n as u8))
    );
}

fn jobs_that_die_or_are_dropped_free_their_share() {
    let lab = limited(1, 2 * MIB);
    let one = || mib(&lab, 3);
    let die = |_: ArrayMut<u8>, how: u8| match how {
        0 => panic!("by itself"),
        1 => std::process::abort(),
        _ => (),
    };
    for round in 0..5 {
        let gate = Gate::new();
        let hold = |gate: &str, _: ArrayMut<u8>| pass(gate);
        lab.error_of(die, (one(), 0));
        lab.error_of(die, (one(), 1));
        lab.value_of(die, (one(), 2));
        let running = lab.submit(hold, (gate.path(), one()));
        let held = gate.meet();
        assert!(
            lab.job(die, (one(), 2)).try_submit().is_err(),
            "round {round}"
        );
        running.kill();
        let error = lab.failure_of(running);
        assert_eq!(*error.kind(), JobErrorKind::Cancelled);
        drop(held);
        // Dropped by its handle, and cancelled.
        let running = lab.submit(hold, (gate.path(), one()));
        let held = gate.meet();
        drop(running);
        drop(held);
        lab.submit(die, (one(), 2)).detach();
        lab.value_of(die, (one(), 2));
    }
    // A job that is queued behind another.
    let lab = limited(1, 64 * MIB);
    let take = |_: ArrayMut<u8>| ();
    lab.value_of(take, (lab.zeros(1).unwrap(),));
    let gate = Gate::new();
    let job = lab.submit(pass, (gate.path(),));
    gate.open();
    job.wait().unwrap();
    let running = lab.submit(pass, (gate.path(),));
    let held = gate.meet();
    let behind: Vec<_> = (0..3)
        .map(|_| lab.submit(take, (lab.zeros(1 << 20).unwrap(),)))
        .collect();
    drop(behind);
    drop(held);
    running.wait().unwrap();
}

fn a_map_outlives_its_engine() {
    let lab = Lab::with(1, |builder| builder.max_in_flight_bytes(MIB));
    let mut map = lab.map(result, (0..20).map(|_| (MIB as usize,)));
    assert_eq!(map.next().unwrap().unwrap().len(), MIB as usize);
    drop(lab);
    let rest: Vec<_> = map.collect();
    assert_eq!(rest.len(), 19, "each has an answer");
    let last = rest.into_iter().last().unwrap().unwrap_err();
    assert_kind!(last, JobErrorKind::ShutDown | JobErrorKind::NoWorkers(_));
}
