//! Models of the link protocol: every order of the two sides' accesses, on two to four slots.
//!
//! `RUSTFLAGS="--cfg arenite_loom" CARGO_TARGET_DIR=target/loom cargo test --release --lib
//! --no-default-features link::loom`
//!
//! Only a wake-up wakes a sleeper (futex.rs), so a lost wake-up is a deadlock, which loom reports. Loom also reports a
//! slot that is posted too early. The number of preemptions is bounded: three find every defect that was introduced by
//! hand, including the removal of each fence.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32 as Count, Ordering::Relaxed};

use loom::sync::{Condvar, Mutex};
use loom::thread;

use super::futex;
use super::producer::Drained;
use super::state::Ask;
use super::{
    AllocAnswer, BACKLOG, CANCEL, Call, Consumer, LOW_SHIFT, LinkCells, NO_GRANT, NOTICE, Next,
    OutgoingReply, Producer, Reply, Retract, STOP, WAITER, kind,
};
use crate::sync::death;

fn explore(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(preemptions);
    builder.max_branches = 20_000;
    builder.check(model);
}

fn link<const N: usize>() -> (Producer<N>, Consumer<N>, Arc<LinkCells<N>>) {
    let cells = Arc::new(LinkCells::on_heap());
    let producer = Producer::new(Arc::clone(&cells));
    let consumer = Consumer::new(Arc::clone(&cells), 0, 0);
    (producer, consumer, cells)
}

fn post<const N: usize>(producer: &mut Producer<N>, job: u64, requests: u32) {
    let call = Call {
        job,
        entry: 0,
        len: 1,
        form: 0,
        seed: 0,
        words: &[job * 10],
        requests,
    };
    producer.post(&call);
}

/// The grant that the reply of a job names. Every second job names none, so that its reply is a single word.
fn grant_of(job: u64) -> u64 {
    if job % 2 == 0 { 7 } else { NO_GRANT }
}

/// Runs the claimed job. Returns true if the monitor has to be signalled.
fn run<const N: usize>(consumer: &mut Consumer<N>) -> bool {
    let call = consumer.call();
    assert_eq!(call.args[0], call.job * 10, "a torn call");
    let answer = OutgoingReply {
        kind: kind::VALUE,
        arrays: 0,
        retained: 0,
        spilled: false,
        len: 1,
        grant: grant_of(call.job),
        cursor: call.job,
        words: &[call.job * 100],
    };
    consumer.finish(false, call.job, Some(&answer))
}

/// Drains one answer, if there is one; it must be the answer of `job`.
fn take<const N: usize>(producer: &mut Producer<N>, job: u64) -> bool {
    let mut reply = Reply::default();
    match producer.drain(&mut reply) {
        Drained::Nothing => false,
        Drained::Ended {
            position, took_ns, ..
        } => {
            assert_eq!(position, job);
            assert_eq!(
                (took_ns, reply.grant, reply.words[0]),
                (job, grant_of(job), job * 100),
                "a torn reply"
            );
            assert!(reply.grant == NO_GRANT || reply.cursor == job);
            true
        }
        other => panic!("job {job}: {other:?}"),
    }
}

/// Stands for the `EventFd` and the poller of the monitor.
#[derive(Default)]
struct Event {
    signalled: Mutex<bool>,
    changed: Condvar,
}

impl Event {
    fn signal(&self) {
        *self.signalled.lock().unwrap() = true;
        self.changed.notify_one();
    }

    fn wait(&self) {
        let mut signalled = self.signalled.lock().unwrap();
        while !*signalled {
            signalled = self.changed.wait(signalled).unwrap();
        }
        *signalled = false;
    }
}

/// Counts the runs of each of `N` jobs.
type Runs<const N: usize> = Arc<[Count; N]>;

/// A worker that runs all jobs until it is stopped.
fn worker<const N: usize, const JOBS: usize>(
    mut consumer: Consumer<N>,
) -> (thread::JoinHandle<()>, Runs<JOBS>) {
    let runs: Runs<JOBS> = Arc::new(std::array::from_fn(|_| Count::new(0)));
    let counts = Arc::clone(&runs);
    let worker = thread::spawn(move || {
        loop {
            match consumer.next() {
                Next::Run => {
                    counts[consumer.call().job as usize].fetch_add(1, Relaxed);
                    let _ = run(&mut consumer);
                }
                Next::Empty => consumer.sleep(),
                Next::Stop => return,
            }
        }
    });
    (worker, runs)
}

fn stop<const N: usize>(producer: &mut Producer<N>, worker: thread::JoinHandle<()>) {
    producer.set_flags(STOP);
    producer.ring();
    worker.join().unwrap();
}

fn counts<const N: usize>(runs: &Runs<N>) -> [u32; N] {
    runs.each_ref().map(|count| count.load(Relaxed))
}

/// Post, claim, finish, drain and post again, with a worker that sleeps when it finds no job and a supervisor that
/// rings once per sleep.
#[test]
fn a_sleeping_worker_is_woken_for_every_job() {
    explore(2, || {
        let (mut producer, consumer, _) = link::<2>();
        let (worker, runs) = worker::<2, 3>(consumer);
        let mut drained = 0;
        for job in 0..3 {
            while producer.free_slots() == 0 {
                if take(&mut producer, drained) {
                    drained += 1;
                } else {
                    thread::yield_now();
                }
            }
            post(&mut producer, job, 0);
            // One fence for two jobs.
            producer.ring_early();
            if producer.free_slots() == 0 {
                producer.ring_posted();
            }
        }
        stop(&mut producer, worker);
        assert_eq!(counts(&runs), [1; 3]);
        while drained < 3 {
            assert!(take(&mut producer, drained));
            drained += 1;
        }
    });
}

/// A job is run or retracted, never both, and its slot is reused only after the worker has passed it.
#[test]
fn a_job_is_claimed_or_retracted() {
    explore(3, || {
        let (mut producer, consumer, _) = link::<2>();
        post(&mut producer, 0, 0);
        let (worker, runs) = worker::<2, 3>(consumer);
        let retracted = match producer.retract(0) {
            Retract::Taken { wake } => {
                assert!(!wake, "no thread waits");
                producer.ring();
                true
            }
            Retract::TooLate => false,
        };
        post(&mut producer, 1, 0);
        producer.ring_posted();
        // Wait until the slot of job 0 is free.
        while producer.free_slots() == 0 {
            let mut reply = Reply::default();
            match producer.drain(&mut reply) {
                Drained::Nothing => thread::yield_now(),
                Drained::Skipped { position } => assert!(position == 0 && retracted),
                Drained::Ended { position, .. } => assert!(position == 1 || !retracted),
                Drained::Fault(what) => panic!("{what}"),
            }
        }
        post(&mut producer, 2, 0);
        stop(&mut producer, worker);
        assert_eq!(counts(&runs), [u32::from(!retracted), 1, 1]);
    });
}

/// A job is cancelled while it begins and ends. It is retracted and never runs, or sees the flag, or is over; in each
/// case it is answered once.
#[test]
fn a_cancelled_job_is_answered_once() {
    explore(3, || {
        let (mut producer, consumer, _) = link::<2>();
        post(&mut producer, 0, 0);
        let (worker, runs) = worker::<2, 1>(consumer);
        let retracted = matches!(producer.retract(0), Retract::Taken { .. });
        let asked = (!retracted).then(|| producer.ask(0, CANCEL));
        let mut reply = Reply::default();
        if asked == Some(Ask::Over) {
            assert!(take(&mut producer, 0), "a job that is over has its answer");
        } else {
            producer.ring();
            loop {
                match producer.drain(&mut reply) {
                    Drained::Nothing => thread::yield_now(),
                    Drained::Skipped { position: 0 } if retracted => break,
                    Drained::Ended { position: 0, .. } if !retracted => break,
                    other => panic!("retracted: {retracted}, and then {other:?}"),
                }
            }
            assert!(retracted || reply.words[0] == 0 && reply.cursor == 0);
        }
        assert_eq!(producer.open(), 0);
        stop(&mut producer, worker);
        assert_eq!(counts(&runs), [u32::from(!retracted)]);
    });
}

/// A kernel that polls sees that its job is cancelled. The next job is not cancelled.
#[test]
fn a_polling_kernel_sees_the_cancel_request() {
    explore(3, || {
        let (mut producer, mut consumer, _) = link::<2>();
        post(&mut producer, 0, 0);
        post(&mut producer, 1, 0);
        let worker = thread::spawn(move || {
            assert_eq!(consumer.next(), Next::Run);
            while !consumer.is_cancelled() {
                thread::yield_now();
            }
            let _ = run(&mut consumer);
            assert_eq!(consumer.next(), Next::Run);
            assert!(!consumer.is_cancelled(), "the job before was cancelled");
            let _ = run(&mut consumer);
        });
        assert!(matches!(producer.ask(0, CANCEL), Ask::Set(_)));
        for job in 0..2 {
            while !take(&mut producer, job) {
                thread::yield_now();
            }
        }
        worker.join().unwrap();
    });
}

/// The final state of a job's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Done,
    Failed,
    BackInTheQueue,
}

/// The worker dies at any of its steps between claim and the last wake-up, while a thread waits on the word and drains.
/// Recovery follows its exit: a finished job has its result, a job that had not begun goes back to the queue, and the
/// waiting thread is woken.
#[test]
fn a_worker_may_die_at_any_step() {
    // Before the claim, at `claim.taken`, `publish.filled`, `complete.stored`, `complete.woken`, and not at all.
    for (point, expected) in [
        (0, Fate::BackInTheQueue),
        (1, Fate::Failed),
        (2, Fate::Failed),
        (3, Fate::Done),
        (4, Fate::Done),
        (5, Fate::Done),
    ] {
        explore(3, move || {
            let (mut producer, mut consumer, cells) = link::<2>();
            post(&mut producer, 0, 0);
            let core = Arc::new(Mutex::new((producer, None)));
            let worker = thread::spawn(move || {
                let died = point == 0
                    || death::at(point, || {
                        assert_eq!(consumer.next(), Next::Run);
                        let _ = run(&mut consumer);
                    })
                    .is_none();
                assert_eq!(
                    died,
                    point < 5,
                    "the kill points of this model have changed"
                );
            });
            let waiter = {
                let (core, cells) = (Arc::clone(&core), Arc::clone(&cells));
                thread::spawn(move || {
                    loop {
                        let mut held = core.lock().unwrap();
                        let (producer, fate) = &mut *held;
                        if fate.is_none() && take(producer, 0) {
                            *fate = Some(Fate::Done);
                        }
                        if fate.is_some() {
                            return;
                        }
                        let asked = producer.ask(0, WAITER);
                        drop(held);
                        if let Ask::Set(value) = asked {
                            futex::wait(cells.state(0).as_futex(), value, None);
                        }
                    }
                })
            };
            // The confirmed exit.
            worker.join().unwrap();
            let mut held = core.lock().unwrap();
            let (producer, fate) = &mut *held;
            if fate.is_none() && take(producer, 0) {
                *fate = Some(Fate::Done);
            }
            if fate.is_none() {
                *fate = Some(if producer.is_queued(0) {
                    Fate::BackInTheQueue
                } else {
                    Fate::Failed
                });
            }
            assert_eq!(*fate, Some(expected));
            producer.reset();
            assert_eq!((producer.open(), producer.tail()), (0, 1));
            drop(held);
            waiter.join().unwrap();
        });
    }
}

/// A thread that sleeps on the word of its job is woken, even if the job is claimed and finished meanwhile.
#[test]
fn a_waiter_on_the_word_is_woken() {
    explore(3, || {
        let (mut producer, mut consumer, cells) = link::<2>();
        post(&mut producer, 0, 0);
        let worker = thread::spawn(move || {
            assert_eq!(consumer.next(), Next::Run);
            let _ = run(&mut consumer);
        });
        while !take(&mut producer, 0) {
            if let Ask::Set(value) = producer.ask(0, WAITER) {
                futex::wait(cells.state(0).as_futex(), value, None);
            }
        }
        worker.join().unwrap();
    });
}

/// Starts a worker that runs one job. The thread returns true if the monitor has to be signalled.
fn run_one(mut consumer: Consumer<2>) -> thread::JoinHandle<bool> {
    thread::spawn(move || {
        assert_eq!(consumer.next(), Next::Run);
        consumer.finish(false, 0, None)
    })
}

/// A thread waits for any of two jobs, in two lanes, and sleeps on both words: the one that ends first wakes it.
#[test]
fn a_waiter_for_any_of_two_jobs_is_woken() {
    explore(2, || {
        let links = [link::<2>(), link::<2>()];
        let (mut producers, mut workers, mut cells) = (Vec::new(), Vec::new(), Vec::new());
        for (mut producer, consumer, cell) in links {
            post(&mut producer, 0, 0);
            workers.push(run_one(consumer));
            producers.push(producer);
            cells.push(cell);
        }
        let mut left = 2;
        while left > 0 {
            let mut words = Vec::new();
            for (producer, cell) in producers.iter_mut().zip(&cells) {
                if producer.open() == 0 {
                    continue;
                }
                match producer.ask(0, WAITER) {
                    Ask::Set(value) => words.push((cell.state(0).as_futex(), value)),
                    Ask::Over => {
                        assert!(matches!(
                            producer.drain(&mut Reply::default()),
                            Drained::Ended { position: 0, .. }
                        ));
                        left -= 1;
                    }
                }
            }
            // Sleep only if no ended job was found.
            if words.len() == left && left > 0 {
                futex::wait_any(&words);
            }
        }
        for worker in workers {
            let _ = worker.join().unwrap();
        }
    });
}

/// A job is queued in the supervisor while a thread waits for the running job, or has stopped waiting for it. Either
/// the thread is woken, and refills the lane, or the monitor is signalled.
#[test]
fn a_lane_that_wakes_no_thread_signals_the_monitor() {
    explore(3, || {
        let (mut producer, consumer, cells) = link::<2>();
        post(&mut producer, 0, 0);
        producer.set_flags(BACKLOG | 1 << LOW_SHIFT);
        // The monitor sleeps.
        cells.hub().arm(1);
        let Ask::Set(value) = producer.ask(0, WAITER) else {
            panic!("the job has not begun");
        };
        let worker = run_one(consumer);
        // When this returns, the thread was woken, or the word had changed before it slept.
        futex::wait(cells.state(0).as_futex(), value, None);
        let woken_or_awake = matches!(
            producer.drain(&mut Reply::default()),
            Drained::Ended { position: 0, .. }
        );
        let rung = worker.join().unwrap();
        assert!(woken_or_awake || rung);
    });
    // Here the thread has stopped waiting before the job ends.
    explore(3, || {
        let (mut producer, consumer, cells) = link::<2>();
        post(&mut producer, 0, 0);
        producer.set_flags(BACKLOG | 1 << LOW_SHIFT);
        cells.hub().arm(1);
        assert!(matches!(producer.ask(0, WAITER), Ask::Set(_)));
        let worker = run_one(consumer);
        assert!(worker.join().unwrap(), "no thread sleeps on the word");
    });
}

/// As above, with a third thread that retracts the job and posts it in the next slot.
#[test]
fn a_waiter_on_the_word_is_woken_when_its_job_moves() {
    explore(2, || {
        let (producer, mut consumer, cells) = link::<2>();
        let core = Arc::new(Mutex::new((producer, 0)));
        post(&mut core.lock().unwrap().0, 0, 0);
        let worker = thread::spawn(move || {
            loop {
                match consumer.next() {
                    Next::Run => {
                        let job = consumer.call().job;
                        assert_eq!(job, 0);
                        let _ = consumer.finish(false, 0, None);
                        return;
                    }
                    Next::Empty => consumer.sleep(),
                    Next::Stop => unreachable!("STOP is not set"),
                }
            }
        });
        let mover = {
            let (core, cells) = (Arc::clone(&core), Arc::clone(&cells));
            thread::spawn(move || {
                let mut core = core.lock().unwrap();
                let (producer, current) = &mut *core;
                if let Retract::Taken { wake } = producer.retract(0) {
                    post(producer, 0, 0);
                    *current = 1;
                    if wake {
                        futex::wake(cells.state(0).as_futex());
                    }
                    producer.ring_posted();
                }
            })
        };
        loop {
            let mut held = core.lock().unwrap();
            let (producer, current) = &mut *held;
            let mut reply = Reply::default();
            match producer.drain(&mut reply) {
                Drained::Ended { position, .. } => {
                    assert_eq!(position, *current);
                    break;
                }
                Drained::Skipped { .. } => continue,
                Drained::Nothing => {}
                Drained::Fault(what) => panic!("{what}"),
            }
            let position = *current;
            let asked = producer.ask(position, WAITER);
            drop(held);
            match asked {
                Ask::Set(value) => {
                    futex::wait(cells.state(position).as_futex(), value, None);
                }
                // The job has ended, and the worker has passed the slot before it.
                Ask::Over => thread::yield_now(),
            }
        }
        worker.join().unwrap();
        mover.join().unwrap();
    });
}

/// Runs the monitor, which sleeps by scheme 3 of the README until `look` returns true.
fn monitor(cells: &LinkCells<4>, event: &Event, mut look: impl FnMut() -> bool) {
    let mut sleeps = 0;
    while !look() {
        sleeps += 1;
        cells.hub().arm(sleeps);
        if look() {
            break;
        }
        event.wait();
        cells.hub().disarm();
    }
}

/// A future asks for notice and is dropped; the job ends; the monitor may be falling asleep.
#[test]
fn notice_reaches_the_sleeping_monitor() {
    explore(3, || {
        let (mut producer, mut consumer, cells) = link::<4>();
        post(&mut producer, 0, 0);
        let core = Arc::new(Mutex::new(producer));
        let event = Arc::new(Event::default());
        let worker = {
            let event = Arc::clone(&event);
            thread::spawn(move || {
                assert_eq!(consumer.next(), Next::Run);
                if run(&mut consumer) {
                    event.signal();
                }
            })
        };
        let answered = Arc::new(Event::default());
        let user = {
            let (core, event) = (Arc::clone(&core), Arc::clone(&event));
            let answered = Arc::clone(&answered);
            thread::spawn(move || {
                let mut core = core.lock().unwrap();
                let _ = core.ask(0, NOTICE);
                let taken = take(&mut core, 0);
                drop(core);
                if taken {
                    // Lets the monitor of this model return.
                    event.signal();
                } else {
                    answered.wait();
                }
            })
        };
        monitor(&cells, &event, || {
            let mut core = core.lock().unwrap();
            if take(&mut core, 0) {
                answered.signal();
            }
            core.open() == 0
        });
        user.join().unwrap();
        worker.join().unwrap();
    });
}

/// A job is queued in the supervisor because the lane seems busy. It is posted later by the thread that queued it, or
/// by the monitor, which the lane signals when it runs dry.
#[test]
fn a_queued_job_gets_its_turn() {
    explore(3, || {
        let (mut producer, mut consumer, cells) = link::<4>();
        post(&mut producer, 0, 0);
        let core = Arc::new(Mutex::new((producer, false)));
        let event = Arc::new(Event::default());
        let worker = {
            let event = Arc::clone(&event);
            thread::spawn(move || {
                let mut ran = 0;
                while ran < 2 {
                    match consumer.next() {
                        Next::Run => {
                            ran += 1;
                            if run(&mut consumer) {
                                event.signal();
                            }
                        }
                        Next::Empty => {
                            if consumer.work_elsewhere() && consumer.claim_monitor_signal() {
                                event.signal();
                            }
                            consumer.sleep();
                        }
                        Next::Stop => unreachable!("STOP is not set"),
                    }
                }
            })
        };
        // Drains, and posts the queued job once the lane is idle.
        fn look((producer, queued): &mut (Producer<4>, bool)) -> bool {
            if producer.open() > 0 {
                let job = producer.open_positions().start;
                take(producer, job);
            }
            if *queued && producer.open() == 0 {
                *queued = false;
                post(producer, 1, NOTICE);
                producer.set_flags(0);
                producer.ring_posted();
            }
            producer.tail() == 2 && producer.open() == 0
        }
        let user = {
            let core = Arc::clone(&core);
            thread::spawn(move || {
                let mut core = core.lock().unwrap();
                core.1 = true;
                core.0.set_flags(BACKLOG | 1 << LOW_SHIFT);
                super::fence_after_queueing();
                look(&mut core);
            })
        };
        monitor(&cells, &event, || look(&mut core.lock().unwrap()));
        user.join().unwrap();
        worker.join().unwrap();
    });
}

/// Allocation requests and their answers: a grant given ahead may satisfy a request, and a refusal is for the request
/// that it names.
#[test]
fn an_alloc_request_is_answered() {
    explore(3, || {
        let (mut producer, mut consumer, _) = link::<2>();
        let event = Arc::new(Event::default());
        let signals = Arc::clone(&event);
        let done = Arc::new(Count::new(0));
        let ended = Arc::clone(&done);
        let worker = thread::spawn(move || {
            let mut alloc = |bytes| {
                if let Some(granted) = consumer.next_grant() {
                    return AllocAnswer::Granted(granted);
                }
                consumer.request_alloc(bytes, 0);
                signals.signal();
                consumer.await_grant()
            };
            let AllocAnswer::Granted(first) = alloc(64) else {
                panic!("the first was not refused");
            };
            assert_eq!((first.number, first.offset, first.len), (0, 4096, 64));
            match alloc(128) {
                AllocAnswer::Granted(granted) => panic!("{granted:?} was not given"),
                AllocAnswer::Refused(words) => assert_eq!(words, [128, 1, 2, 3, 4, 5, 6]),
            }
            ended.store(1, Relaxed);
            signals.signal();
        });
        // A grant given ahead, as when a job is posted.
        assert!(producer.grant(4096, 64, false));
        producer.ring();
        // The monitor.
        while done.load(Relaxed) == 0 {
            event.wait();
            if let Some(request) = producer.alloc_request() {
                // The grant given ahead satisfies the first request.
                let refusal = (request.bytes != 64).then_some([request.bytes, 1, 2, 3, 4, 5, 6]);
                producer.answer_alloc(request, refusal);
            }
        }
        worker.join().unwrap();
    });
}

/// Reports of released arrays: each is read once, in order, and a lane that found no room does not sleep on.
#[test]
fn every_release_is_reported() {
    const REPORTS: u64 = 4;
    explore(3, || {
        let (mut producer, mut consumer, cells) = link::<4>();
        let event = Arc::new(Event::default());
        let signals = Arc::clone(&event);
        let worker = thread::spawn(move || {
            let mut next = 0;
            while next < REPORTS {
                let first = next;
                while next < REPORTS && consumer.has_room_for_release() {
                    consumer.report_release(next);
                    next += 1;
                }
                if next > first && consumer.claim_monitor_signal() {
                    signals.signal();
                }
                if next < REPORTS {
                    consumer.sleep();
                }
            }
        });
        let mut read = 0;
        monitor(&cells, &event, || {
            let upto = producer.released();
            assert!(producer.take_releases(upto, |number| {
                assert_eq!(number, read);
                read += 1;
            }));
            read == REPORTS
        });
        worker.join().unwrap();
    });
}

/// A lane that has read all its grants sleeps until the next one, and is woken for each.
#[test]
fn a_grant_wakes_the_lane_that_waits() {
    explore(3, || {
        let (mut producer, mut consumer, _) = link::<2>();
        let event = Arc::new(Event::default());
        let signals = Arc::clone(&event);
        let worker = thread::spawn(move || {
            for number in 0..2u32 {
                consumer.request_alloc(64, 0);
                signals.signal();
                let AllocAnswer::Granted(granted) = consumer.await_grant() else {
                    panic!("no request is refused");
                };
                assert_eq!(granted.number, number);
                assert_eq!(granted.offset, 4096 * (u64::from(number) + 1));
            }
        });
        for number in 1..=2 {
            // A job is posted while the lane waits: a ring without a grant.
            producer.ring();
            let request = loop {
                event.wait();
                if let Some(request) = producer.alloc_request() {
                    break request;
                }
            };
            assert!(producer.grant(4096 * number, 64, true));
            producer.answer_alloc(request, None);
        }
        worker.join().unwrap();
    });
}
