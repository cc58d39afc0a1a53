//! Wakers are foreign code: they panic, take the lock, sleep, and affect each other's tasks.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::link::{NOTICE, WAITER};
use crate::supervisor::waiting::thread_waker::Words;

#[test]
fn a_waker_that_panics_does_not_affect_others() {
    let (shared, mut consumers) = fixture(1, 1);
    let woken = Arc::new(Tells::default());
    let wakers = [
        Waker::from(Arc::new(Falls)),
        Waker::from(Arc::clone(&woken)),
    ];
    let ids = wakers.map(|waker| {
        let id = submit(&shared);
        let mut context = Context::from_waker(&waker);
        assert!(
            shared
                .poll(id, <() as Reply>::receive, &mut context)
                .is_pending()
        );
        id
    });
    for _ in ids {
        assert_eq!(consumers[0].next(), Next::Run);
        consumers[0].finish(false, 1, None);
    }
    shared.stats();
    assert!(woken.0.load(Ordering::Relaxed));
    for id in ids {
        assert_eq!(answer(&shared, id).unwrap(), "value");
    }
}

/// Calls the engine when it is dropped, like a task that owns jobs.
struct Calls(Arc<Supervisor>);

impl Wake for Calls {
    fn wake(self: Arc<Self>) {}
}

impl Drop for Calls {
    fn drop(&mut self) {
        self.0.stats();
    }
}

#[test]
fn wakers_are_dropped_outside_the_lock() {
    let (shared, _consumers) = fixture(1, 0);
    in_time(move || {
        let poll = |id| {
            let waker = Waker::from(Arc::new(Calls(Arc::clone(&shared))));
            assert!(matches!(
                shared.poll(id, <() as Reply>::receive, &mut Context::from_waker(&waker)),
                Poll::Pending
            ));
        };
        let (first, second) = (submit(&shared), submit(&shared));
        poll(first);
        poll(first);
        shared.abandon(first);
        poll(second);
        shared.detach(second);
    });
}

fn poll(shared: &Supervisor, id: JobId, waker: &Waker) -> bool {
    let mut context = Context::from_waker(waker);
    let poll = shared.poll(id, <() as Reply>::receive, &mut context);
    poll.is_ready()
}

struct Falls;

impl Wake for Falls {
    fn wake(self: Arc<Self>) {
        panic!("the executor is gone");
    }
}

#[derive(Default)]
struct Tells(AtomicBool);

impl Wake for Tells {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Ends the job that its thread is about to wait for, and sleeps.
struct Ends(Arc<Supervisor>, std::sync::Mutex<Option<Consumer>>);

impl Wake for Ends {
    fn wake(self: Arc<Self>) {
        if let Some(mut consumer) = self.1.lock().unwrap().take() {
            assert_eq!(consumer.next(), Next::Run);
            consumer.finish(false, 1, None);
            self.0.stats();
            // Consumes the token that other code may have stored to unpark this thread.
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }
}

#[test]
fn a_waker_that_sleeps_in_a_waiting_thread_consumes_no_end() {
    let (shared, mut consumers) = fixture(1, 1);
    in_time(move || {
        let (woken, awaited) = (submit(&shared), submit(&shared));
        let mut consumer = consumers.remove(0);
        let ends = Arc::new(Ends(Arc::clone(&shared), std::sync::Mutex::default()));
        assert!(!poll(&shared, woken, &Waker::from(Arc::clone(&ends))));
        assert_eq!(consumer.next(), Next::Run);
        consumer.finish(false, 1, None);
        *ends.1.lock().unwrap() = Some(consumer);
        assert_eq!(shared.wait_any([awaited].into_iter(), None), Some(0));
    });
}

#[test]
fn waiting_for_any_puts_the_wakers_of_tasks_back() {
    let (shared, mut consumers) = fixture(1, 1);
    let [first, second] = [(); 2].map(|()| submit(&shared));
    let woken = [(); 2].map(|()| Arc::new(Tells::default()));
    let is_woken = |which: usize| woken[which].0.load(Ordering::Relaxed);
    for (id, woken) in [first, second].into_iter().zip(&woken) {
        assert!(!poll(&shared, id, &Waker::from(Arc::clone(woken))));
    }
    let ids = [first, second].into_iter();
    let mut displaced = Vec::new();
    let thread = Waker::from(Arc::new(Tells::default()));
    for _ in 0..2 {
        let ended = shared.poll_any_with(ids.clone(), &thread, None, &mut displaced);
        assert_eq!(ended, None);
        assert!(!is_woken(0) && !is_woken(1));
    }
    assert_eq!(consumers[0].next(), Next::Run);
    consumers[0].finish(false, 1, None);
    assert_eq!(shared.look_any(ids), Some(0));
    shared.put_back(displaced);
    assert!(is_woken(0), "it has ended, and its task was not woken");
    assert!(!is_woken(1));
    assert_eq!(consumers[0].next(), Next::Run);
    consumers[0].finish(false, 1, None);
    shared.stats();
    assert!(is_woken(1));
}

/// The first of two jobs is retried in an hour. The end of the second job was not requested: the end of the first was
/// expected to come earlier.
#[test]
fn waiting_for_any_ends_with_a_job_behind_one_that_is_retried() {
    let (shared, mut consumers) = fixture(1, 1);
    let hour = Duration::from_secs(3600);
    let options = JobOptions {
        retries: 1,
        backoff: Backoff::new(hour, hour),
        ..JobOptions::default()
    };
    let mut call = ArgWriter::new(shared.arena.id());
    let first = shared.submit(&kernel(), &mut call, Owner::Handle, Some(&options));
    let second = submit(&shared);
    let woken = Arc::new(Tells::default());
    let ids = [first, second].into_iter();
    assert_eq!(shared.poll_any(ids, &Waker::from(Arc::clone(&woken))), None);
    // The monitor "sleeps".
    shared.cells[0].hub().arm(1);
    assert_eq!(consumers[0].next(), Next::Run);
    let panicked = one_word(kind::PANICKED, &[0]);
    assert!(consumers[0].finish(true, 1, Some(&panicked)));
    shared.stats();
    assert_eq!(shared.lock().records.get(first).stage, Stage::Waiting);
    assert!(!woken.0.load(Ordering::Relaxed), "it has no answer");
    shared.cells[0].hub().arm(2);
    assert_eq!(consumers[0].next(), Next::Run);
    assert!(consumers[0].finish(false, 1, None), "the monitor is rung");
    shared.stats();
    assert!(woken.0.load(Ordering::Relaxed));
}

#[test]
fn a_waker_that_panics_does_not_affect_wakers_that_are_put_back() {
    let (shared, mut consumers) = fixture(1, 1);
    let ids = [(); 2].map(|()| submit(&shared));
    let woken = Arc::new(Tells::default());
    let wakers = [
        Waker::from(Arc::new(Falls)),
        Waker::from(Arc::clone(&woken)),
    ];
    for (id, waker) in ids.iter().zip(&wakers) {
        assert!(!poll(&shared, *id, waker));
    }
    let mut displaced = Vec::new();
    let ended = shared.poll_any_with(ids.into_iter(), Waker::noop(), None, &mut displaced);
    assert_eq!(ended, None);
    for _ in ids {
        assert_eq!(consumers[0].next(), Next::Run);
        consumers[0].finish(false, 1, None);
    }
    shared.stats();
    shared.put_back(displaced);
    assert!(woken.0.load(Ordering::Relaxed));
}

/// Returns the requests in the state word of a placed job.
fn asked(shared: &Supervisor, id: JobId) -> u32 {
    let Stage::Placed { lane, position } = shared.lock().records.get(id).stage else {
        panic!("it is in no lane");
    };
    let word = shared.cells[lane as usize].state(position);
    word.as_futex().load(Ordering::Relaxed) & (WAITER | NOTICE)
}

fn is_placed(shared: &Supervisor, id: JobId) -> bool {
    matches!(shared.lock().records.get(id).stage, Stage::Placed { .. })
}

/// Submits jobs until a further job finds no room on a lane. Returns all of them; that job is the last.
fn submit_one_too_many(shared: &Supervisor) -> Vec<JobId> {
    let mut ids = vec![submit(shared)];
    while ids.last().is_some_and(|&last| is_placed(shared, last)) {
        ids.push(submit(shared));
    }
    ids
}

/// The steps of a thread before it sleeps on state words.
fn look(shared: &Supervisor, ids: &[JobId], waker: &Waker) -> Option<usize> {
    let ids = ids.iter().copied();
    shared.poll_any_with(ids, waker, Some(&mut Words::default()), &mut Vec::new())
}

#[test]
fn waiting_for_any_sleeps_on_the_words_of_the_oldest_jobs() {
    if !crate::sys::futex::has_wait_any() {
        return;
    }
    let (shared, mut consumers) = fixture(2, 2);
    let mut ids = submit_one_too_many(&shared);
    let queued = ids.pop().unwrap();
    assert_eq!(look(&shared, &ids, Waker::noop()), None);
    let waiters = |ids: &[JobId]| {
        let waits = |&&id: &&JobId| asked(&shared, id) == WAITER;
        ids.iter().filter(waits).count()
    };
    assert_eq!(waiters(&ids), 2, "the oldest of each lane");
    assert!(ids.iter().all(|&id| asked(&shared, id) & NOTICE == 0));
    // The monitor and the thread sleep: the monitor is not rung.
    shared.abandon(queued);
    shared.cells[0].hub().arm(1);
    let ended = in_time({
        let (shared, ids) = (Arc::clone(&shared), ids.clone());
        move || {
            let waiting = {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || shared.wait_any(ids.into_iter(), None))
            };
            assert_eq!(consumers[1].next(), Next::Run);
            assert!(!consumers[1].finish(false, 1, None), "the monitor is rung");
            waiting.join().unwrap().expect("there is no limit")
        }
    });
    assert_eq!(shared.lock().records.get(ids[ended]).stage, Stage::Answered);
}

#[test]
fn a_job_placed_while_a_thread_waits_for_any_is_reported() {
    if !crate::sys::futex::has_wait_any() {
        return;
    }
    for awake in [false, true] {
        let (shared, mut consumers) = fixture(1, 1);
        let before = submit_one_too_many(&shared);
        let queued = *before.last().unwrap();
        let waits_for = [queued];
        let woken = Arc::new(Tells::default());
        let waker = Waker::from(Arc::clone(&woken));
        assert_eq!(look(&shared, &waits_for, &waker), None);
        while !is_placed(&shared, queued) {
            assert_eq!(consumers[0].next(), Next::Run);
            consumers[0].finish(false, 1, None);
            if awake {
                assert_eq!(look(&shared, &waits_for, &waker), None);
            } else {
                assert!(!shared.is_done(queued));
            }
        }
        // A thread that is awake requests its wake-up before it sleeps. The word of a job that is not the oldest is of
        // no use yet.
        let expected = if awake { WAITER } else { NOTICE };
        assert_eq!(asked(&shared, queued), expected, "awake: {awake}");
        assert!(!woken.0.load(Ordering::Relaxed));
        shared.cells[0].hub().arm(1);
        let last = loop {
            assert_eq!(consumers[0].next(), Next::Run);
            let rings = consumers[0].finish(false, 1, None);
            if shared.is_done(queued) {
                break rings;
            }
        };
        assert_eq!(last, !awake, "awake: {awake}");
        assert!(woken.0.load(Ordering::Relaxed));
    }
}

/// The lane did not ring the monitor because a thread slept on the word. Another thread had drained the lane before
/// this thread woke up.
#[test]
fn a_woken_thread_refills_the_lanes() {
    let (shared, mut consumers) = fixture(1, 1);
    let ids = submit_one_too_many(&shared);
    for _ in 1..ids.len() {
        assert_eq!(consumers[0].next(), Next::Run);
        consumers[0].finish(false, 1, None);
    }
    shared.lock().drain(0);
    let queued = *ids.last().unwrap();
    assert!(!is_placed(&shared, queued));
    assert!(shared.wait(ids[0], <() as Reply>::receive).is_ok());
    assert!(is_placed(&shared, queued));
}
