//! Several lanes in one worker: jobs that wait side by side, and what happens to the others when one of them ends it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hint::black_box;
use std::io::Write;
use std::iter;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread::{self, ThreadId};
use std::time::Duration;

use arenite::engine::Builder;
use arenite::{Array, ArrayMut, Engine, Job, JobError, JobErrorKind, TileMut};
use nix::sys::signal::{Signal, kill, raise};
use nix::unistd::Pid;

use crate::harness::{Diary, Gate, Lab, note, pass, step, tests, wait_until};

tests![
    jobs_wait_side_by_side,
    a_slow_call_does_not_hold_up_the_next,
    jobs_are_spread_over_the_workers,
    a_worker_starts_once_for_all_its_lanes,
    a_crash_names_what_it_took_along,
    the_numbers_in_an_error_are_those_of_jobs,
    a_death_from_outside_blames_nobody,
    what_was_taken_along_runs_again_if_it_may,
    what_had_not_begun_runs_elsewhere,
    a_deadline_has_a_worker_to_itself,
    others_go_on_while_one_waits_for_its_worker,
    a_deadline_that_was_given_up_keeps_no_worker,
    others_have_their_turn_among_deadlines,
    deadlines_may_share_a_worker,
    cancelling_now_takes_others_along,
    each_lane_hears_only_of_its_own_cancelling,
    a_panic_stays_in_its_lane,
    a_memory_bomb_is_told_from_those_beside_it,
    a_handle_that_escapes_ends_all_lanes,
    workers_are_replaced_after_so_many_jobs_of_all_lanes,
    arrays_of_many_lanes_do_not_meet,
    a_grant_that_another_lane_has_used_up,
    nothing_needs_no_room,
    tiles_in_one_page_are_written_by_many_lanes,
    a_lent_array_stays_open_when_its_maker_goes_on,
    kills_under_load,
    the_last_lines_are_those_of_the_worker,
    a_shutdown_waits_for_all_lanes,
    a_stop_drops_nothing_that_threads_keep,
    an_engine_that_is_dropped_does_not,
    too_many_of_them,
];

fn lanes(workers: usize, lanes: usize) -> Lab {
    Lab::with(workers, |builder| builder.lanes(lanes))
}

/// Waits at the gate, and says which process it is.
fn at_gate(gate: &str) -> u32 {
    pass(gate);
    std::process::id()
}

/// Jobs that wait, each at its gate, and have all come there.
struct Waiting {
    jobs: Vec<Job<u32>>,
    held: Vec<std::fs::File>,
}

impl Waiting {
    fn new(lab: &Lab, count: usize) -> Self {
        Self::with(lab, count, 0)
    }

    fn with(lab: &Lab, count: usize, retries: u32) -> Self {
        let gates: Vec<_> = (0..count).map(|_| Gate::new()).collect();
        let submit = |gate: &Gate| lab.job(at_gate, (&gate.path(),)).retries(retries).submit();
        let jobs = gates.iter().map(submit).collect();
        let held = gates.iter().map(Gate::meet).collect();
        Self { jobs, held }
    }

    /// Lets them go on; the process of each.
    fn go(self) -> Vec<u32> {
        drop(self.held);
        let pids = self.jobs.into_iter().map(|job| job.wait().unwrap());
        pids.collect()
    }

    /// None of them has a value.
    fn fail(self, lab: &Lab) -> Vec<JobError> {
        let errors = self.jobs.into_iter().map(|job| lab.failure_of(job));
        let errors = errors.collect();
        drop(self.held);
        errors
    }
}

fn jobs_wait_side_by_side() {
    let lab = lanes(1, 8);
    let waiting = Waiting::new(&lab, 8);
    assert_eq!(lab.stats().workers[0].open, 8);
    let pids: BTreeSet<u32> = waiting.go().into_iter().collect();
    assert_eq!(pids.len(), 1, "one process: {pids:?}");
    assert_eq!(lab.stats().workers.len(), 1);
    lab.assert_in_use(0);
}

fn a_slow_call_does_not_hold_up_the_next() {
    let lab = lanes(1, 2);
    for _ in 0..10 {
        let slow = Waiting::new(&lab, 1);
        // Some are posted behind it, and taken over by the other lane.
        let quick: Vec<_> = (0..50u32).map(|n| lab.submit(|n: u32| n, (n,))).collect();
        step("quick jobs beside a slow one");
        for (n, job) in (0..).zip(quick) {
            assert_eq!(job.wait().unwrap(), n);
        }
        slow.go();
    }
    lab.assert_in_use(0);
}

fn jobs_are_spread_over_the_workers() {
    let lab = lanes(3, 4);
    for count in [3, 6, 12] {
        let mut of = BTreeMap::new();
        for pid in Waiting::new(&lab, count).go() {
            *of.entry(pid).or_insert(0) += 1;
        }
        let each: Vec<usize> = of.into_values().collect();
        assert_eq!(each, [count / 3; 3], "{count} jobs");
    }
}

fn a_worker_starts_once_for_all_its_lanes() {
    static STARTS: AtomicU32 = AtomicU32::new(0);
    fn starts(gate: &str) -> u32 {
        pass(gate);
        STARTS.load(Ordering::Relaxed)
    }
    fn thread(gate: &str) -> String {
        pass(gate);
        let id: ThreadId = thread::current().id();
        format!("{id:?}")
    }
    let start = || {
        STARTS.fetch_add(1, Ordering::Relaxed);
    };
    let lab = Lab::with(1, |builder| builder.lanes(4).on_worker_start(start));
    for _ in 0..2 {
        let gates: Vec<_> = (0..4).map(|_| Gate::new()).collect();
        let jobs: Vec<_> = gates
            .iter()
            .map(|gate| lab.submit(starts, (&gate.path(),)))
            .collect();
        let held: Vec<_> = gates.iter().map(Gate::meet).collect();
        drop(held);
        for job in jobs {
            assert_eq!(job.wait().unwrap(), 1);
        }
        let jobs: Vec<_> = gates
            .iter()
            .map(|gate| lab.submit(thread, (&gate.path(),)))
            .collect();
        let held: Vec<_> = gates.iter().map(Gate::meet).collect();
        drop(held);
        let threads: BTreeSet<String> = jobs.into_iter().map(|job| job.wait().unwrap()).collect();
        assert_eq!(threads.len(), 4, "a thread for each lane: {threads:?}");
        lab.replace(0);
    }
}

/// Ways to end a process from within, and what it is told as.
fn ways() -> [(u32, JobErrorKind); 6] {
    [
        (0, JobErrorKind::Signal(libc::SIGABRT)),
        (1, JobErrorKind::Signal(libc::SIGSEGV)),
        (2, JobErrorKind::Exited(Some(3))),
        (3, JobErrorKind::Signal(libc::SIGSEGV)),
        (4, JobErrorKind::Signal(libc::SIGFPE)),
        (5, JobErrorKind::Signal(libc::SIGBUS)),
    ]
}

/// Ends this process.
fn end(way: u32) {
    #[allow(unconditional_recursion, reason = "until the stack is full")]
    fn deep(n: u64) -> u64 {
        let here = black_box([n; 64]);
        deep(n + 1) + here[0]
    }
    match way {
        0 => std::process::abort(),
        // SAFETY: none of it is: that is the point.
        1 => unsafe { black_box(std::ptr::without_provenance_mut::<u8>(8)).write_volatile(1) },
        2 => std::process::exit(3),
        3 => drop(black_box(deep(0))),
        4 => raise(Signal::SIGFPE).unwrap(),
        _ => raise(Signal::SIGBUS).unwrap(),
    }
}

/// Each of them was lost because of this one, which names them.
fn assert_lost(lost: &[JobError], culprit: &JobError) {
    for error in lost {
        let expected = JobErrorKind::LostWith {
            job: culprit.job(),
            culprit: Box::new(culprit.kind().clone()),
        };
        assert_eq!(*error.kind(), expected, "{error}");
        assert!(error.beside().is_empty(), "{error}");
        assert_eq!(error.worker(), culprit.worker());
        let text = error.to_string();
        assert!(
            text.contains(&format!("because of job {}", culprit.job())),
            "{text}"
        );
    }
    let lost: Vec<u64> = lost.iter().map(JobError::job).collect();
    assert_eq!(culprit.beside(), lost, "{culprit}");
    if lost.len() > 1 {
        let named: Vec<_> = lost.iter().map(u64::to_string).collect();
        let named = format!("it took jobs {} along", named.join(", "));
        assert!(culprit.to_string().contains(&named), "{culprit}");
    }
}

fn a_crash_names_what_it_took_along() {
    let lab = lanes(1, 4);
    for (way, cause) in ways() {
        for beside in [3, 1] {
            let waiting = Waiting::new(&lab, beside);
            let culprit = lab.failure_of(lab.submit(end, (way,)));
            assert_eq!(*culprit.kind(), cause, "way {way}: {culprit}");
            assert_lost(&waiting.fail(&lab), &culprit);
        }
        // Alone it takes nobody along.
        let culprit = lab.failure_of(lab.submit(end, (way,)));
        assert_eq!(*culprit.kind(), cause, "way {way}: {culprit}");
        assert!(culprit.beside().is_empty(), "{culprit}");
    }
    assert_eq!(lab.submit(|| 1u8, ()).wait().unwrap(), 1);
    lab.assert_in_use(0);
}

/// The numbers in an error are those that the program can ask its jobs for.
fn the_numbers_in_an_error_are_those_of_jobs() {
    let lab = lanes(1, 4);
    let gates = [Gate::new(), Gate::new()];
    let submit = |gate: &Gate| lab.job(at_gate, (gate.path(),));
    let plain = submit(&gates[0]).submit();
    let kept = submit(&gates[1]).keep_args();
    let held = gates.each_ref().map(Gate::meet);
    let ids = [plain.id(), kept.id()];
    let mut scoped = 0;
    step("the job that takes the others along");
    let ended = lab.scope(|s| scoped = s.submit(end, (0,)).id());
    let error = ended.unwrap_err();
    drop(held);
    assert_eq!((error.job(), error.beside()), (scoped, &ids[..]), "{error}");
    assert_eq!(plain.id(), ids[0], "also when it has ended");
    assert_eq!(lab.failure_of(plain).job(), ids[0]);
    assert_eq!(kept.wait().unwrap_err().error().job(), ids[1]);
    // One whose value is gone has none, and one that ran here never had.
    let mut taken = lab.submit(|| 1u8, ());
    assert!(taken.id() > scoped);
    while taken.wait_timeout(Duration::from_secs(1)).is_none() {}
    assert_eq!(taken.id(), 0);
    assert_eq!(Engine::inline().submit(|| 1u8, ()).id(), 0);
    lab.assert_in_use(0);
}

fn a_death_from_outside_blames_nobody() {
    let lab = lanes(1, 4);
    let waiting = Waiting::new(&lab, 3);
    kill(Pid::from_raw(lab.pid(0)), Signal::SIGKILL).unwrap();
    let errors = waiting.fail(&lab);
    let jobs: Vec<u64> = errors.iter().map(JobError::job).collect();
    for error in &errors {
        assert_eq!(*error.kind(), JobErrorKind::Signal(9), "{error}");
        let others = jobs.iter().copied().filter(|&job| job != error.job());
        assert_eq!(error.beside(), others.collect::<Vec<_>>(), "{error}");
        let text = error.to_string();
        assert!(text.contains("any of them may have done it"), "{text}");
    }
    // One that has the worker to itself is it.
    let waiting = Waiting::new(&lab, 1);
    kill(Pid::from_raw(lab.pid(0)), Signal::SIGKILL).unwrap();
    let errors = waiting.fail(&lab);
    assert!(errors[0].beside().is_empty(), "{}", errors[0]);
    lab.assert_in_use(0);
}

fn what_was_taken_along_runs_again_if_it_may() {
    let lab = lanes(1, 3);
    let gate = Gate::new();
    let first = lab.job(at_gate, (&gate.path(),)).retries(1).submit();
    let held = gate.meet();
    let lost = Waiting::new(&lab, 1);
    let culprit = lab.failure_of(lab.submit(end, (0,)));
    drop(held);
    assert_eq!(
        *lost.fail(&lab)[0].kind(),
        JobErrorKind::LostWith {
            job: culprit.job(),
            culprit: Box::new(JobErrorKind::Signal(libc::SIGABRT)),
        }
    );
    // Its attempt is not counted: it comes to the gate again.
    gate.open();
    assert_eq!(first.wait().unwrap() as i32, lab.pid(0));
    lab.assert_in_use(0);
}

fn what_had_not_begun_runs_elsewhere() {
    let lab = lanes(2, 2);
    let waiting = Waiting::new(&lab, 4);
    // All lanes are taken, so these wait in them or in the queue.
    let behind: Vec<_> = (0..600u32).map(|n| lab.submit(|n: u32| n, (n,))).collect();
    kill(Pid::from_raw(lab.pid(0)), Signal::SIGKILL).unwrap();
    step("what was behind the jobs that died");
    for (n, job) in (0..).zip(behind) {
        assert_eq!(job.wait().unwrap(), n);
    }
    let Waiting { jobs, held } = waiting;
    drop(held);
    let failed = jobs.into_iter().filter_map(|job| job.wait().err());
    assert_eq!(failed.count(), 2, "those of one worker");
    lab.assert_in_use(0);
}

/// Longer than any test.
const LONG: Duration = Duration::from_secs(600);

fn a_deadline_has_a_worker_to_itself() {
    let lab = lanes(1, 4);
    for _ in 0..5 {
        let before = Waiting::new(&lab, 2);
        let gate = Gate::new();
        let timed = lab.job(at_gate, (&gate.path(),)).deadline(LONG).submit();
        // Its worker is busy, and nothing new begins there.
        let after = lab.submit(|| 1u8, ());
        assert_eq!(lab.stats().queued, 2);
        before.go();
        let held = gate.meet();
        assert_eq!(lab.stats().queued, 1, "nothing runs beside it");
        assert!(!after.is_done());
        drop(held);
        timed.wait().unwrap();
        assert_eq!(after.wait().unwrap(), 1);
    }
    // What exceeds it is ended alone, again and again.
    for _ in 0..3 {
        let limit = Duration::from_millis(1);
        let gate = Gate::new();
        let error = lab.failure_of(lab.job(at_gate, (&gate.path(),)).deadline(limit).submit());
        assert_eq!(*error.kind(), JobErrorKind::DeadlineExceeded { limit });
        assert!(error.beside().is_empty(), "{error}");
    }
    lab.assert_in_use(0);
}

fn others_go_on_while_one_waits_for_its_worker() {
    let lab = lanes(2, 2);
    let first = Waiting::new(&lab, 1);
    let second = Waiting::new(&lab, 1);
    let gate = Gate::new();
    let timed = lab.job(at_gate, (&gate.path(),)).deadline(LONG).submit();
    let queue: Vec<_> = (0..3)
        .map(|_| lab.job(|| 1u8, ()).deadline(LONG).submit())
        .collect();
    // One of the two workers is kept for the job; the other one still has a lane.
    for n in 0..100u32 {
        assert_eq!(lab.submit(|n: u32| n, (n,)).wait().unwrap(), n);
    }
    assert!(!timed.is_done());
    first.go();
    second.go();
    let held = gate.meet();
    // The others that want a worker for themselves share the second one, one after the other.
    for job in queue {
        assert_eq!(job.wait().unwrap(), 1);
    }
    let beside = lab.submit(std::process::id, ()).wait().unwrap();
    drop(held);
    assert_ne!(timed.wait().unwrap(), beside);
    lab.assert_in_use(0);
}

/// There are always more of those than workers, which may each have one alone. Either kind would go on for ever if it got no turn.
fn others_have_their_turn_among_deadlines() {
    let lab = lanes(1, 3);
    let over = AtomicBool::new(false);
    let alone = AtomicU64::new(0);
    let numbers = iter::from_fn(|| (!over.load(Ordering::Relaxed)).then_some((1u64,)));
    thread::scope(|threads| {
        threads.spawn(|| {
            let map = lab
                .map(|x: u64| x, numbers)
                .deadline(Duration::from_secs(60));
            for one in map {
                alone.fetch_add(one.unwrap(), Ordering::Relaxed);
            }
        });
        let actor = lab.actor(|| 0_u64, ());
        let mut n = 0;
        while n < 20 || alone.load(Ordering::Relaxed) < 20 {
            n += 1;
            // All later ones are one step, for which there is a limit.
            if n <= 20 {
                step(format!("call {n}"));
            }
            let count = |state: &mut u64| {
                *state += 1;
                *state
            };
            assert_eq!(actor.call(count, ()).wait().unwrap(), n);
            let plain = lab.submit(|x: u64| x + 1, (n,));
            assert_eq!(plain.wait().unwrap(), n + 1);
        }
        over.store(true, Ordering::Relaxed);
    });
    lab.assert_in_use(0);
}

fn a_deadline_that_was_given_up_keeps_no_worker() {
    let lab = lanes(1, 3);
    for drops in [true, false] {
        let before = Waiting::new(&lab, 1);
        let timed = lab.job(|| 0u8, ()).deadline(LONG).submit();
        let after = lab.submit(|| 1u8, ());
        assert_eq!(lab.stats().queued, 2);
        if drops {
            drop(timed);
        } else {
            timed.cancel();
            assert_eq!(*lab.failure_of(timed).kind(), JobErrorKind::Cancelled);
        }
        assert_eq!(after.wait().unwrap(), 1);
        before.go();
    }
    // Nor one whose worker dies while it waits for it.
    let before = Waiting::new(&lab, 2);
    let timed = lab.job(|| 2u8, ()).deadline(LONG).submit();
    kill(Pid::from_raw(lab.pid(0)), Signal::SIGKILL).unwrap();
    assert_eq!(timed.wait().unwrap(), 2);
    before.fail(&lab);
    assert_eq!(
        Waiting::new(&lab, 3).go().len(),
        3,
        "all lanes are there again"
    );
    lab.assert_in_use(0);
}

fn deadlines_may_share_a_worker() {
    let lab = Lab::with(1, |builder| builder.lanes(3).share_deadlines(true));
    let gates = [Gate::new(), Gate::new()];
    let timed = |limit| {
        let submit = |gate: &Gate| lab.job(at_gate, (&gate.path(),)).deadline(limit).submit();
        gates.iter().map(submit).collect::<Vec<_>>()
    };
    let jobs = timed(LONG);
    let held: Vec<_> = gates.iter().map(Gate::meet).collect();
    drop(held);
    for job in jobs {
        job.wait().unwrap();
    }
    let waiting = Waiting::new(&lab, 2);
    let limit = Duration::from_millis(1);
    let gate = Gate::new();
    let job = lab.job(at_gate, (&gate.path(),)).deadline(limit).submit();
    let culprit = lab.failure_of(job);
    assert_eq!(*culprit.kind(), JobErrorKind::DeadlineExceeded { limit });
    assert_lost(&waiting.fail(&lab), &culprit);
    lab.assert_in_use(0);
}

fn cancelling_now_takes_others_along() {
    let lab = lanes(1, 3);
    let waiting = Waiting::new(&lab, 2);
    let gate = Gate::new();
    let job = lab.submit(pass, (&gate.path(),));
    let held = gate.meet();
    job.cancel_now();
    let culprit = lab.failure_of(job);
    drop(held);
    assert_eq!(*culprit.kind(), JobErrorKind::Cancelled);
    assert_lost(&waiting.fail(&lab), &culprit);
    assert_eq!(lab.submit(|| 1u8, ()).wait().unwrap(), 1);
    lab.assert_in_use(0);
}

fn each_lane_hears_only_of_its_own_cancelling() {
    /// Comes to the gate, goes on when it is told to end, and says whether it was.
    fn told(gate: &str, until: bool) -> bool {
        pass(gate);
        while until && !arenite::cancelled() {
            thread::yield_now();
        }
        arenite::cancelled()
    }
    let lab = lanes(1, 2);
    let gates = [Gate::new(), Gate::new()];
    let first = lab.submit(told, (&gates[0].path(), true));
    let second = lab.submit(told, (&gates[1].path(), false));
    let held: Vec<_> = gates.iter().map(Gate::meet).collect();
    first.cancel();
    drop(held);
    assert!(first.wait().unwrap());
    assert!(!second.wait().unwrap());
}

fn a_panic_stays_in_its_lane() {
    fn fail(n: u32) {
        panic!("number {n}");
    }
    let lab = lanes(1, 3);
    let pid = lab.pid(0);
    let waiting = Waiting::new(&lab, 2);
    for n in 0..20u32 {
        let error = lab.failure_of(lab.submit(fail, (n,)));
        let said = format!("number {n}");
        assert!(
            matches!(error.kind(), JobErrorKind::Panicked { message, .. } if *message == said),
            "{error:?}"
        );
    }
    assert_eq!(waiting.go(), [pid as u32; 2]);
}

fn a_memory_bomb_is_told_from_those_beside_it() {
    fn hoard() -> u64 {
        let mut heap = Vec::new();
        loop {
            heap.push(black_box(vec![1_u8; 1 << 20]));
        }
    }
    let limit = 128 << 20;
    let lab = Lab::with(1, |builder| builder.lanes(3).memory_limit(limit));
    for _ in 0..3 {
        let waiting = Waiting::new(&lab, 2);
        let culprit = lab.failure_of(lab.submit(hoard, ()));
        let full = JobErrorKind::MemoryLimit {
            limit,
            requested: Some(1 << 20),
        };
        assert_eq!(*culprit.kind(), full, "{culprit}");
        assert_lost(&waiting.fail(&lab), &culprit);
    }
    lab.assert_in_use(0);
}

fn a_handle_that_escapes_ends_all_lanes() {
    let lab = lanes(1, 3);
    let waiting = Waiting::new(&lab, 2);
    let made = || std::mem::forget(Array::from_fn(1000, |i| i as u32));
    let culprit = lab.failure_of(lab.submit(made, ()));
    assert_eq!(*culprit.kind(), JobErrorKind::Escaped { count: 1 });
    assert_lost(&waiting.fail(&lab), &culprit);
    lab.assert_in_use(0);
}

fn workers_are_replaced_after_so_many_jobs_of_all_lanes() {
    const JOBS: u64 = 10;
    let lab = Lab::with(2, |builder| builder.lanes(4).recycle_after_jobs(JOBS));
    let mut of = BTreeMap::new();
    for wait in [false, true] {
        let job = |wait: bool| {
            if wait {
                thread::sleep(Duration::from_millis(1));
            }
            std::process::id()
        };
        let jobs: Vec<_> = (0..100).map(|_| lab.submit(job, (wait,))).collect();
        for job in jobs {
            *of.entry(job.wait().unwrap()).or_insert(0) += 1;
        }
    }
    assert_eq!(of.values().sum::<u64>(), 200);
    assert!(of.values().all(|&jobs| jobs <= JOBS), "{of:?}");
    wait_until("all that have had their number are replaced", || {
        lab.stats().recycled() as usize >= of.values().filter(|&&jobs| jobs == JOBS).count()
    });
    let stats = lab.stats();
    assert_eq!(stats.restarts(), 0, "{stats:?}");
    lab.assert_in_use(0);
}

/// Some numbers that only this seed has.
fn numbers(len: usize, seed: u32) -> Array<u32> {
    Array::from_fn(len, |i| (i as u32).wrapping_mul(0x9e37_79b9) ^ seed)
}

fn assert_numbers(array: &Array<u32>, len: usize, seed: u32) {
    assert_eq!(array.len(), len);
    let wrong = array
        .iter()
        .zip(0u32..)
        .position(|(&x, i)| x != i.wrapping_mul(0x9e37_79b9) ^ seed);
    assert_eq!(wrong, None, "array {seed} of {len}");
}

/// Lengths on both sides of a page, of what has pages of its own, and of what a grant holds.
fn length(n: u32) -> usize {
    [3, 1000, 1025, 20_000, 70_000, 300_000][n as usize % 6] + n as usize
}

fn arrays_of_many_lanes_do_not_meet() {
    /// Makes its own, reads another one, and leaves some behind on the way.
    fn work(input: &Array<u32>, n: u32) -> (Array<u32>, u32) {
        let passing: Vec<_> = (0..3).map(|k| numbers(length(n + k), n)).collect();
        let sum = input.iter().fold(0u32, |sum, &x| sum.wrapping_add(x));
        drop(passing);
        (numbers(length(n), n), sum)
    }
    for guard in [arenite::Guard::On, arenite::Guard::Off] {
        let lab = Lab::with(2, |builder| builder.lanes(6).guard(guard));
        let input = lab.from_fn(50_000, |i| i as u32).unwrap();
        let sum = input.iter().fold(0u32, |sum, &x| sum.wrapping_add(x));
        for round in 0..3 {
            let jobs: Vec<_> = (0..120u32).map(|n| lab.submit(work, (&input, n))).collect();
            step(format!("round {round}"));
            for (n, job) in (0..).zip(jobs) {
                let (array, read) = job.wait().unwrap();
                assert_numbers(&array, length(n), n);
                assert_eq!(read, sum);
            }
        }
        assert_eq!(lab.stats().restarts(), 0);
        drop(input);
        lab.assert_in_use(0);
    }
}

/// Results that fill a grant each, and are dropped at once: another lane is granted the same range before the first one has left
/// it. That the first leaves it while the other still writes is rarer, one job of ten thousand.
fn a_grant_that_another_lane_has_used_up() {
    fn slowly(n: u32) -> Array<u32> {
        Array::from_fn([20, 41_000, 82_000][n as usize % 3], |i| {
            if i % 1024 == 0 {
                thread::yield_now();
            }
            i as u32 ^ n
        })
    }
    const JOBS: u32 = 20_000;
    let lab = lanes(1, 3);
    let mut waiting = VecDeque::new();
    for n in 0..JOBS {
        waiting.push_back(lab.submit(slowly, (n,)));
        if waiting.len() > 5 {
            waiting.pop_front().map(Job::wait).unwrap().unwrap();
        }
    }
    waiting
        .into_iter()
        .for_each(|job| drop(job.wait().unwrap()));
    assert_eq!(lab.stats().restarts(), 0);
    lab.assert_in_use(0);
}

/// What has no bytes is made where there is no memory left, in lanes that never had any.
fn nothing_needs_no_room() {
    fn empty(gate: &str) -> Array<u64> {
        pass(gate);
        Array::from_slice(&[])
    }
    let lab = Lab::with(1, |builder| builder.lanes(3).capacity(4 << 20));
    let all = iter::from_fn(|| lab.zeros::<u8>(64 << 10).ok());
    let all: Vec<_> = all.collect();
    let gates: Vec<_> = (0..3).map(|_| Gate::new()).collect();
    let jobs = gates.iter().map(|gate| lab.submit(empty, (&gate.path(),)));
    let jobs: Vec<_> = jobs.collect();
    let held: Vec<_> = gates.iter().map(Gate::meet).collect();
    drop(held);
    for job in jobs {
        assert_eq!(job.wait().unwrap().len(), 0);
    }
    drop(all);
    lab.assert_in_use(0);
}

fn tiles_in_one_page_are_written_by_many_lanes() {
    fn fill(mut tile: TileMut<'_, u8>, rounds: u8) {
        for round in 0..=rounds {
            tile.iter_mut().for_each(|x| *x = round);
            thread::yield_now();
        }
    }
    let lab = lanes(1, 8);
    for len in [64, 4096, 5000, 40_000] {
        let mut out = lab.zeros::<u8>(len).unwrap();
        for rounds in [1, 20] {
            lab.scope(|s| {
                for tile in out.tiles_mut(32) {
                    s.submit(fill, (tile, rounds));
                }
            })
            .unwrap();
            assert!(out.iter().all(|&x| x == rounds));
        }
    }
    lab.assert_in_use(0);
}

/// Workers die all the time, and jobs that may be tried again all come to their end.
/// Out of the grant that its lane uses; both lanes make one.
fn make(len: usize) -> ArrayMut<u8> {
    static BOTH: Barrier = Barrier::new(2);
    BOTH.wait();
    ArrayMut::zeros(len)
}

fn a_lent_array_stays_open_when_its_maker_goes_on() {
    fn write(gate: &str, mut a: TileMut<'_, u8>, mut b: TileMut<'_, u8>) {
        pass(gate);
        a.fill(1);
        b.fill(2);
    }
    // Whole pages, so that they are lent where they lie.
    const LEN: usize = 64 << 10;
    let lab = lanes(1, 2);
    let both = [(); 2].map(|()| lab.submit(make, (LEN,)));
    let [mut a, mut b] = both.map(|job| job.wait().unwrap());
    let gate = Gate::new();
    lab.scope(|scope| {
        let writes = scope.submit(write, (&gate.path(), a.as_tile_mut(), b.as_tile_mut()));
        let held = gate.meet();
        // The other lane, which has made one of them, comes to further grants.
        step("results of the other lane");
        for _ in 0..100 {
            let made = lab.submit(|len: usize| Array::<u8>::zeros(len), (1usize << 20,));
            assert_eq!(made.wait().unwrap().len(), 1 << 20);
        }
        drop(held);
        writes.wait().unwrap();
    })
    .unwrap();
    assert!(a.iter().all(|&x| x == 1) && b.iter().all(|&x| x == 2));
    drop((a, b));
    lab.assert_in_use(0);
}

fn kills_under_load() {
    fn work(n: u32) -> Array<u32> {
        // Some wait, so that lanes are taken side by side.
        if n.is_multiple_of(5) {
            thread::sleep(Duration::from_millis(1));
        }
        numbers(length(n % 4), n)
    }
    let lab = Lab::with(2, |builder| builder.lanes(5).quarantine_after(1000));
    let kills = AtomicU32::new(0);
    let (stop, stopped) = channel::<()>();
    thread::scope(|threads| {
        let lab = &lab;
        let kills = &kills;
        threads.spawn(move || {
            // Half of the deaths come from within.
            let pause = Duration::from_millis(3);
            while stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                let kills = kills.fetch_add(1, Ordering::SeqCst) + 1;
                if kills.is_multiple_of(2) {
                    let ended = lab.submit(end, (kills / 2 % 2,)).wait();
                    assert!(ended.is_err());
                } else {
                    let _ = kill(
                        Pid::from_raw(lab.pid(kills as usize / 2 % 2)),
                        Signal::SIGKILL,
                    );
                }
            }
        });
        for round in 0.. {
            if round >= 4 && kills.load(Ordering::SeqCst) >= 2 {
                break;
            }
            step(format!("round {round} under fire"));
            let submit = |n| lab.job(work, (n,)).retries(1000).submit();
            let jobs: Vec<_> = (0..200u32).map(submit).collect();
            for (n, job) in (0..).zip(jobs) {
                assert_numbers(&job.wait().unwrap(), length(n % 4), n);
            }
        }
        drop(stop);
    });
    lab.assert_in_use(0);
}

fn the_last_lines_are_those_of_the_worker() {
    fn say_and_end(way: u32) {
        println!("about to end");
        std::io::stdout().flush().unwrap();
        end(way);
    }
    let (sender, lines) = channel();
    let log = move |line: &arenite::engine::LogLine| {
        let _ = sender.send((line.job, line.text.clone()));
    };
    let lab = Lab::with(1, |builder| builder.lanes(3).on_log(log));
    let waiting = Waiting::new(&lab, 1);
    let culprit = lab.failure_of(lab.submit(say_and_end, (0,)));
    assert_eq!(culprit.last_words(), ["about to end"]);
    let lost = waiting.fail(&lab);
    assert_eq!(lost[0].last_words(), ["about to end"]);
    step("the line itself");
    // Nobody can say which of the two printed it.
    assert_eq!(lines.recv().unwrap(), (None, "about to end".to_owned()));
}

fn a_shutdown_waits_for_all_lanes() {
    let lab = lanes(2, 4);
    let waiting = Waiting::new(&lab, 6);
    let behind: Vec<_> = (0..20u32).map(|n| lab.submit(|n: u32| n, (n,))).collect();
    let Waiting { jobs, held } = waiting;
    let engine = lab.into_inner();
    thread::scope(|threads| {
        let ending = threads.spawn(move || engine.shutdown());
        drop(held);
        ending.join().unwrap();
    });
    assert!(jobs.into_iter().all(|job| job.wait().is_ok()));
    for (n, job) in (0..).zip(behind) {
        assert_eq!(job.wait().unwrap(), n);
    }
}

/// It is the program's own, and may take any time, while other lanes still run jobs.
fn a_stop_drops_nothing_that_threads_keep() {
    struct Kept(String);
    impl Drop for Kept {
        fn drop(&mut self) {
            note(&self.0, "dropped");
        }
    }
    thread_local! {
        static KEPT: RefCell<Vec<Kept>> = const { RefCell::new(Vec::new()) };
    }
    fn keep(diary: &str, gate: &str) -> u32 {
        KEPT.with_borrow_mut(|kept| kept.push(Kept(diary.to_owned())));
        note(diary, "kept");
        at_gate(gate)
    }
    let lab = lanes(1, 3);
    let (diary, gates) = (Diary::new(), [(); 3].map(|()| Gate::new()));
    let jobs = gates
        .each_ref()
        .map(|gate| lab.submit(keep, (&diary.path(), &gate.path())));
    let held = gates.each_ref().map(Gate::meet);
    drop(held);
    for job in jobs {
        job.wait().unwrap();
    }
    lab.into_inner().shutdown();
    assert_eq!(diary.lines(), ["kept"; 3]);
}

fn an_engine_that_is_dropped_does_not() {
    let lab = lanes(2, 4);
    let Waiting { jobs, held } = Waiting::new(&lab, 6);
    drop(lab.into_inner());
    for job in jobs {
        assert_eq!(*job.wait().unwrap_err().kind(), JobErrorKind::ShutDown);
    }
    drop(held);
}

fn too_many_of_them() {
    let build = |builder: Builder| builder.capacity(64 << 20).build();
    let error = build(Engine::builder().workers(2).lanes(4000)).unwrap_err();
    assert!(
        error.to_string().contains("4000 lanes in each worker"),
        "{error}"
    );
    // None is one.
    let engine = build(Engine::builder().workers(1).lanes(0)).unwrap();
    assert_eq!(engine.submit(|| 1u8, ()).wait().unwrap(), 1);
    // Their stacks have no room in so little memory: that is said, and nothing is left.
    let builder = Engine::builder()
        .workers(1)
        .lanes(200)
        .memory_limit(64 << 20);
    let error = build(builder).unwrap_err();
    assert!(
        error.to_string().contains("lanes cannot be started"),
        "{error}"
    );
}
