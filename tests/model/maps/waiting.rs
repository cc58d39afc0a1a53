//! Waiting for any or all of several jobs.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::thread;
use std::time::Duration;

use arenite::{Job, JobError};

use super::square;
use crate::harness::{Gate, KILLED, Lab, WakeFlag, at_gates, step, tests, through, wait_until};
use crate::narrow::{measure, narrow, three_mib};

tests![
    the_first_of_several_jobs,
    the_first_of_several_engines,
    wait_all_returns_when_all_jobs_have_ended,
    a_death_among_several_jobs,
    waiting_for_any_does_not_steal_wakers,
    results_of_a_map_within_a_time,
    the_time_limit_of_a_map_covers_admission,
];

fn the_first_of_several_jobs() {
    let lab = Lab::new(3);
    let (mut jobs, held) = at_gates(3, |gate| lab.submit(through, (gate, 0)));
    for limit in [Duration::ZERO, Duration::from_millis(1)] {
        assert_eq!(arenite::wait_any(&mut jobs, Some(limit)), None);
    }
    let mut held = held.into_iter();
    let (first, second) = (held.next(), held.next());
    thread::scope(|s| {
        let opener = s.spawn(move || drop(second));
        step("the second job, whose gate is open");
        assert_eq!(arenite::wait_any(&mut jobs, None), Some(1));
        opener.join().unwrap();
    });
    // An ended job is found at once among others.
    assert_eq!(arenite::wait_any(&mut jobs, None), Some(1));
    jobs.remove(1).wait().unwrap();
    drop(first);
    assert_eq!(arenite::wait_any(&mut jobs, None), Some(0));
    drop(held);
    assert!(arenite::wait_all(&jobs, None));
    assert_eq!(arenite::wait_any(&mut Vec::<Job<u64>>::new(), None), None);
}

fn the_first_of_several_engines() {
    let labs = [Lab::new(1), Lab::new(1)];
    let mut each = labs.iter();
    let submit = |gate: &str| each.next().unwrap().submit(through, (gate, 7));
    let (mut jobs, held) = at_gates(2, submit);
    thread::scope(|s| {
        s.spawn(|| {
            wait_until("a job is in each", || {
                labs.iter().all(|lab| lab.stats().open == 1)
            });
            // The death of the second engine's worker ends its job as well.
            labs[1].replace(0);
        });
        step("the job of the second engine");
        assert_eq!(arenite::wait_any(&mut jobs, None), Some(1));
    });
    drop(held);
    jobs.pop().unwrap().wait().unwrap_err();
    assert_eq!(jobs.pop().unwrap().wait().unwrap(), 7);
}

fn wait_all_returns_when_all_jobs_have_ended() {
    let lab = Lab::new(2);
    let gate = Gate::new();
    let mut jobs: Vec<_> = (0..500).map(|n| lab.submit(square, (n,))).collect();
    jobs.push(lab.submit(through, (gate.path(), 0)));
    let held = gate.meet();
    assert!(!arenite::wait_all(&jobs, Some(Duration::from_millis(1))));
    drop(held);
    step("all jobs");
    assert!(arenite::wait_all(&jobs, None));
    assert!(jobs.iter().all(arenite::Job::is_done));
    for (n, job) in (0..500).zip(jobs) {
        assert_eq!(job.wait().unwrap(), n * n);
    }
}

/// A killed worker ends its job for every way of waiting for several jobs.
fn a_death_among_several_jobs() {
    /// Waits for jobs in the order of their ends.
    fn one_by_one(jobs: Vec<Job<u64>>) -> Vec<(usize, Result<u64, JobError>)> {
        let mut left: Vec<_> = jobs.into_iter().enumerate().collect();
        let ends = std::iter::from_fn(|| {
            let at = arenite::wait_any(left.iter_mut().map(|(_, job)| job), None)?;
            let (index, job) = left.remove(at);
            assert!(job.is_done());
            Some((index, job.wait()))
        });
        ends.collect()
    }
    let lab = Lab::new(2);
    for way in ["as they end", "any", "all"] {
        step(format!(
            "a worker dies while a thread waits for jobs: {way}"
        ));
        let gates = [Gate::new(), Gate::new()];
        let gate = |n: usize| gates.get(n).map_or(String::new(), Gate::path);
        let jobs = (0..20).map(|n| lab.submit(through, (gate(n), n as u64)));
        let jobs: Vec<_> = jobs.collect();
        let mut held = gates.each_ref().map(Gate::meet).into_iter();
        // Kills one of the two workers at the gate; the other goes on afterwards.
        thread::scope(|s| {
            s.spawn(|| {
                lab.replace(0);
                drop(held.next());
                drop(held.next());
            });
            let mut ends: Vec<_> = match way {
                "as they end" => arenite::as_completed(jobs).collect(),
                "any" => one_by_one(jobs),
                _ => {
                    assert!(arenite::wait_all(&jobs, None));
                    assert!(jobs.iter().all(Job::is_done));
                    jobs.into_iter().map(Job::wait).enumerate().collect()
                }
            };
            ends.sort_by_key(|&(index, _)| index);
            assert!(ends.iter().map(|&(index, _)| index).eq(0..20), "each once");
            ends.retain(|(index, answer)| *answer != Ok(*index as u64));
            let [(index, Err(error))] = &ends[..] else {
                panic!("{ends:?}");
            };
            assert!(*index < 2, "one that ran");
            assert_eq!(*error.kind(), KILLED);
        });
    }
    lab.assert_in_use(0);
}

fn waiting_for_any_does_not_steal_wakers() {
    let lab = Lab::new(1);
    let gate = Gate::new();
    let mut job = lab.submit(through, (&gate.path(), 7));
    let woken = Arc::new(WakeFlag::default());
    let waker = Waker::from(Arc::clone(&woken));
    let mut context = Context::from_waker(&waker);
    assert!(Pin::new(&mut job).poll(&mut context).is_pending());
    for limit in [Duration::ZERO, Duration::from_millis(1)] {
        assert_eq!(arenite::wait_any([&mut job], Some(limit)), None);
    }
    assert!(!woken.take());
    gate.open();
    wait_until("the task is woken", || woken.take());
    assert_eq!(job.wait().unwrap(), 7);
}

fn results_of_a_map_within_a_time() {
    let lab = Lab::new(2);
    let (gate, short) = (Gate::new(), Duration::from_millis(1));
    let items = || (0..3u64).map(|n| (if n == 1 { gate.path() } else { String::new() }, n));
    step("in order");
    let mut map = lab.map(through, items());
    assert_eq!(map.next_timeout(Duration::MAX).unwrap().unwrap(), 0);
    let held = gate.meet();
    for limit in [Duration::ZERO, short] {
        assert!(map.next_timeout(limit).is_none() && !map.is_over());
    }
    drop(held);
    for n in 1..3 {
        assert_eq!(map.next_timeout(Duration::MAX).unwrap().unwrap(), n);
    }
    assert!(map.next_timeout(short).is_none() && map.is_over());
    step("as they end");
    let mut map = lab.map(through, items()).unordered();
    let mut next = |limit| {
        let next = map.next_timeout(limit);
        next.map(|(index, value)| (index as u64, value.unwrap()))
    };
    assert_eq!(next(Duration::MAX), Some((0, 0)));
    let held = gate.meet();
    assert_eq!(next(Duration::MAX), Some((2, 2)));
    assert_eq!(next(short), None);
    drop(held);
    assert_eq!(next(Duration::MAX), Some((1, 1)));
    assert_eq!(next(short), None);
    assert!(map.is_over());
    lab.assert_in_use(0);
}

fn the_time_limit_of_a_map_covers_admission() {
    let lab = narrow(1);
    let gate = Gate::new();
    let first = lab.submit(measure, (three_mib(&lab), &gate.path()));
    let met = gate.meet();
    let mut map = lab.map(measure, (0..2).map(|_| (three_mib(&lab), "")));
    for limit in [Duration::ZERO, Duration::from_millis(1)] {
        assert!(map.next_timeout(limit).is_none() && !map.is_over());
    }
    assert_eq!(lab.stats().open, 1, "only the first was admitted");
    drop(met);
    for _ in 0..2 {
        step("admission");
        assert_eq!(map.next_timeout(Duration::MAX).unwrap().unwrap(), 3 << 20);
    }
    assert!(map.next_timeout(Duration::MAX).is_none() && map.is_over());
    first.wait().unwrap();
    lab.assert_in_use(0);
}
