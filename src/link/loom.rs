//! Models of the link protocol: every order of the two sides' accesses, on two to four slots.
//!
//! `RUSTFLAGS="--cfg arenite_loom" CARGO_TARGET_DIR=target/loom cargo test --release --lib
//! --no-default-features link::loom`
//!
//! A sleeper is woken by a wake-up only (doorbell.rs), so a lost one is a deadlock that loom reports;
//! so is a slot that is posted before its turn. The number of preemptions is bounded: three find every
//! defect that was put in by hand, among them each fence taken out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32 as Count, Ordering::Relaxed};

use loom::sync::{Condvar, Mutex};
use loom::thread;

use super::doorbell;
use super::poster::Drained;
use super::state::Ask;
use super::{
    Answer, Answering, CANCEL, Call, LOW_SHIFT, LinkCells, MORE, NO_GRANT, NOTICE, Next, Poster,
    Reply, Retract, STOP, Taker, WAITER, kind,
};
use crate::sync::death;

fn explore(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(preemptions);
    builder.max_branches = 20_000;
    builder.check(model);
}

fn link<const N: usize>() -> (Poster<N>, Taker<N>, Arc<LinkCells<N>>) {
    let cells = Arc::new(LinkCells::on_heap());
    let poster = Poster::new(Arc::clone(&cells));
    let taker = Taker::new(Arc::clone(&cells), 0, 0);
    (poster, taker, cells)
}

fn post<const N: usize>(poster: &mut Poster<N>, job: u64, requests: u32) {
    let call = Call {
        job,
        entry: 0,
        len: 1,
        form: 0,
        seed: 0,
        words: &[job * 10],
        requests,
    };
    poster.post(&call);
}

/// Which grant the reply of this job names: none for every second one, whose reply is then its only word.
fn grant_of(job: u64) -> u64 {
    if job % 2 == 0 { 7 } else { NO_GRANT }
}

/// Runs the claimed job; true if the monitor has to be rung.
fn run<const N: usize>(taker: &mut Taker<N>) -> bool {
    let call = taker.call();
    assert_eq!(call.args[0], call.job * 10, "a torn call");
    let answer = Answering {
        kind: kind::VALUE,
        arrays: 0,
        spilled: false,
        len: 1,
        grant: grant_of(call.job),
        cursor: call.job,
        words: &[call.job * 100],
    };
    taker.finish(false, call.job, Some(&answer))
}

/// Takes one answer, if there is one; it must be this job's.
fn take<const N: usize>(poster: &mut Poster<N>, job: u64) -> bool {
    let mut reply = Reply::default();
    match poster.drain(&mut reply) {
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

/// The monitor's doorbell: what an eventfd and a poller do.
#[derive(Default)]
struct Bell {
    rung: Mutex<bool>,
    heard: Condvar,
}

impl Bell {
    fn ring(&self) {
        *self.rung.lock().unwrap() = true;
        self.heard.notify_one();
    }

    fn sleep(&self) {
        let mut rung = self.rung.lock().unwrap();
        while !*rung {
            rung = self.heard.wait(rung).unwrap();
        }
        *rung = false;
    }
}

/// Post, claim, finish, drain and post again, with a worker that sleeps when it finds nothing and a
/// supervisor that rings once for each sleep.
#[test]
fn a_sleeping_worker_hears_of_every_job() {
    explore(2, || {
        let (mut poster, mut taker, _) = link::<2>();
        let worker = thread::spawn(move || {
            let mut ran = 0;
            loop {
                match taker.next() {
                    Next::Run => {
                        let _ = run(&mut taker);
                        ran += 1;
                    }
                    Next::Empty => taker.sleep(),
                    Next::Stop => return ran,
                }
            }
        });
        let mut drained = 0;
        for job in 0..3 {
            while poster.room() == 0 {
                if take(&mut poster, drained) {
                    drained += 1;
                } else {
                    thread::yield_now();
                }
            }
            post(&mut poster, job, 0);
            // Two jobs, one fence.
            poster.ring_early();
            if poster.room() == 0 {
                poster.ring();
            }
        }
        poster.set_flags(STOP);
        poster.ring();
        assert_eq!(worker.join().unwrap(), 3);
        while drained < 3 {
            assert!(take(&mut poster, drained));
            drained += 1;
        }
    });
}

/// A job is run or taken back and never both, and its slot is used again only when the worker is past it.
#[test]
fn a_job_is_claimed_or_taken_back() {
    explore(3, || {
        let (mut poster, mut taker, _) = link::<2>();
        let ran: Arc<[Count; 3]> = Arc::default();
        let runs = Arc::clone(&ran);
        post(&mut poster, 0, 0);
        let worker = thread::spawn(move || {
            loop {
                match taker.next() {
                    Next::Run => {
                        runs[taker.call().job as usize].fetch_add(1, Relaxed);
                        let _ = run(&mut taker);
                    }
                    Next::Empty => taker.sleep(),
                    Next::Stop => return,
                }
            }
        });
        let retracted = match poster.retract(0) {
            Retract::Taken { wake } => {
                assert!(!wake, "nobody waits");
                poster.ring();
                true
            }
            Retract::TooLate => false,
        };
        post(&mut poster, 1, 0);
        poster.ring();
        // The slot of job 0.
        while poster.room() == 0 {
            let mut reply = Reply::default();
            match poster.drain(&mut reply) {
                Drained::Nothing => thread::yield_now(),
                Drained::Skipped { position } => assert!(position == 0 && retracted),
                Drained::Ended { position, .. } => assert!(position == 1 || !retracted),
                Drained::Fault(what) => panic!("{what}"),
            }
        }
        post(&mut poster, 2, 0);
        poster.set_flags(STOP);
        poster.ring();
        worker.join().unwrap();
        let ran = ran.each_ref().map(|count| count.load(Relaxed));
        assert_eq!(ran, [u32::from(!retracted), 1, 1]);
    });
}

/// A job is cancelled while it begins and ends: it is taken back and never runs, or it gets the flag, or it is over; and
/// it is answered once, whichever it is.
#[test]
fn a_job_that_is_cancelled_is_answered_once() {
    explore(3, || {
        let (mut poster, mut taker, _) = link::<2>();
        let ran = Arc::new(Count::new(0));
        let runs = Arc::clone(&ran);
        post(&mut poster, 0, 0);
        let worker = thread::spawn(move || {
            loop {
                match taker.next() {
                    Next::Run => {
                        runs.fetch_add(1, Relaxed);
                        let _ = run(&mut taker);
                    }
                    Next::Empty => taker.sleep(),
                    Next::Stop => return,
                }
            }
        });
        let retracted = matches!(poster.retract(0), Retract::Taken { .. });
        let asked = (!retracted).then(|| poster.ask(0, CANCEL));
        let mut reply = Reply::default();
        if asked == Some(Ask::Over) {
            assert!(take(&mut poster, 0), "what is over has its answer");
        } else {
            poster.ring();
            loop {
                match poster.drain(&mut reply) {
                    Drained::Nothing => thread::yield_now(),
                    Drained::Skipped { position: 0 } if retracted => break,
                    Drained::Ended { position: 0, .. } if !retracted => break,
                    other => panic!("retracted: {retracted}, and then {other:?}"),
                }
            }
            assert!(retracted || reply.words[0] == 0 && reply.cursor == 0);
        }
        assert_eq!(poster.open(), 0);
        poster.set_flags(STOP);
        poster.ring();
        worker.join().unwrap();
        assert_eq!(ran.load(Relaxed), u32::from(!retracted));
    });
}

/// A kernel that polls hears of the request, and the next job has none.
#[test]
fn a_kernel_that_polls_hears_of_a_request() {
    explore(3, || {
        let (mut poster, mut taker, _) = link::<2>();
        post(&mut poster, 0, 0);
        post(&mut poster, 1, 0);
        let worker = thread::spawn(move || {
            assert_eq!(taker.next(), Next::Run);
            while !taker.is_cancelled() {
                thread::yield_now();
            }
            let _ = run(&mut taker);
            assert_eq!(taker.next(), Next::Run);
            assert!(!taker.is_cancelled(), "it was for the job before");
            let _ = run(&mut taker);
        });
        assert!(matches!(poster.ask(0, CANCEL), Ask::Set(_)));
        for job in 0..2 {
            while !take(&mut poster, job) {
                thread::yield_now();
            }
        }
        worker.join().unwrap();
    });
}

/// What the record of a job says in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Done,
    Failed,
    BackInTheQueue,
}

/// The worker dies at any of its steps between claim and the last wake-up, while somebody waits on the word
/// and takes what has ended. Recovery comes when it is gone: what was handed over is a result, what had not begun goes
/// back, and whoever sleeps hears of it.
#[test]
fn a_worker_may_die_at_any_step() {
    // `claim.taken`, `publish.filled`, `complete.said`, `complete.woken`, and none.
    for (point, expected) in [
        (0, Fate::BackInTheQueue),
        (1, Fate::Failed),
        (2, Fate::Failed),
        (3, Fate::Done),
        (4, Fate::Done),
        (5, Fate::Done),
    ] {
        explore(3, move || {
            let (mut poster, mut taker, cells) = link::<2>();
            post(&mut poster, 0, 0);
            let core = Arc::new(Mutex::new((poster, None)));
            let worker = thread::spawn(move || {
                let died = point == 0
                    || death::at(point, || {
                        assert_eq!(taker.next(), Next::Run);
                        let _ = run(&mut taker);
                    })
                    .is_none();
                assert_eq!(died, point < 5, "the points of this model have moved");
            });
            let waiter = {
                let (core, cells) = (Arc::clone(&core), Arc::clone(&cells));
                thread::spawn(move || {
                    loop {
                        let mut held = core.lock().unwrap();
                        let (poster, fate) = &mut *held;
                        if fate.is_none() && take(poster, 0) {
                            *fate = Some(Fate::Done);
                        }
                        if fate.is_some() {
                            return;
                        }
                        let asked = poster.ask(0, WAITER);
                        drop(held);
                        if let Ask::Set(value) = asked {
                            doorbell::wait(cells.state(0).place_to_sleep(), value, None);
                        }
                    }
                })
            };
            // The exit is confirmed.
            worker.join().unwrap();
            let mut held = core.lock().unwrap();
            let (poster, fate) = &mut *held;
            if fate.is_none() && take(poster, 0) {
                *fate = Some(Fate::Done);
            }
            if fate.is_none() {
                *fate = Some(if poster.is_queued(0) {
                    Fate::BackInTheQueue
                } else {
                    Fate::Failed
                });
            }
            assert_eq!(*fate, Some(expected));
            poster.start_over();
            assert_eq!((poster.open(), poster.tail()), (0, 1));
            drop(held);
            waiter.join().unwrap();
        });
    }
}

/// A thread that sleeps on the word of its job is woken, whether the job is claimed, finished or taken
/// back meanwhile.
#[test]
fn a_waiter_on_the_word_is_woken() {
    explore(3, || {
        let (mut poster, mut taker, cells) = link::<2>();
        post(&mut poster, 0, 0);
        let worker = thread::spawn(move || {
            assert_eq!(taker.next(), Next::Run);
            let _ = run(&mut taker);
        });
        while !take(&mut poster, 0) {
            if let Ask::Set(value) = poster.ask(0, WAITER) {
                doorbell::wait(cells.state(0).place_to_sleep(), value, None);
            }
        }
        worker.join().unwrap();
    });
}

/// A worker that runs the job it has; true if the monitor has to be rung.
fn ends_one(mut taker: Taker<2>) -> thread::JoinHandle<bool> {
    thread::spawn(move || {
        assert_eq!(taker.next(), Next::Run);
        taker.finish(false, 0, None)
    })
}

/// A thread waits for any of two jobs, in two lanes, and sleeps on both words: whichever ends first wakes it.
#[test]
fn whoever_waits_for_any_of_two_is_woken() {
    explore(2, || {
        let links = [link::<2>(), link::<2>()];
        let (mut posters, mut workers, mut cells) = (Vec::new(), Vec::new(), Vec::new());
        for (mut poster, taker, cell) in links {
            post(&mut poster, 0, 0);
            workers.push(ends_one(taker));
            posters.push(poster);
            cells.push(cell);
        }
        let mut left = 2;
        while left > 0 {
            let mut words = Vec::new();
            for (poster, cell) in posters.iter_mut().zip(&cells) {
                if poster.open() == 0 {
                    continue;
                }
                match poster.ask(0, WAITER) {
                    Ask::Set(value) => words.push((cell.state(0).place_to_sleep(), value)),
                    Ask::Over => {
                        assert!(matches!(
                            poster.drain(&mut Reply::default()),
                            Drained::Ended { position: 0, .. }
                        ));
                        left -= 1;
                    }
                }
            }
            // Whoever has found an end does not sleep.
            if words.len() == left && left > 0 {
                doorbell::wait_any(&words);
            }
        }
        for worker in workers {
            let _ = worker.join().unwrap();
        }
    });
}

/// The supervisor keeps a job while a thread waits for the one that runs, and perhaps has given that up. Either the thread is
/// woken, and gives the job out, or the monitor is rung.
#[test]
fn a_lane_that_wakes_nobody_rings() {
    explore(3, || {
        let (mut poster, taker, cells) = link::<2>();
        post(&mut poster, 0, 0);
        poster.set_flags(MORE | 1 << LOW_SHIFT);
        // The monitor sleeps.
        cells.hub().arm(1);
        let Ask::Set(value) = poster.ask(0, WAITER) else {
            panic!("nobody runs it yet");
        };
        let worker = ends_one(taker);
        // Has it slept? If not, it found another value in its way.
        doorbell::wait(cells.state(0).place_to_sleep(), value, None);
        let woken_or_awake = matches!(
            poster.drain(&mut Reply::default()),
            Drained::Ended { position: 0, .. }
        );
        let rung = worker.join().unwrap();
        assert!(woken_or_awake || rung);
    });
    // And one that has gone by then.
    explore(3, || {
        let (mut poster, taker, cells) = link::<2>();
        post(&mut poster, 0, 0);
        poster.set_flags(MORE | 1 << LOW_SHIFT);
        cells.hub().arm(1);
        assert!(matches!(poster.ask(0, WAITER), Ask::Set(_)));
        let worker = ends_one(taker);
        assert!(worker.join().unwrap(), "nobody sleeps there");
    });
}

/// As above, with a third thread that takes the job back and moves it to the next slot.
#[test]
fn a_waiter_on_the_word_is_woken_when_its_job_moves() {
    explore(2, || {
        let (poster, mut taker, cells) = link::<2>();
        let core = Arc::new(Mutex::new((poster, 0)));
        post(&mut core.lock().unwrap().0, 0, 0);
        let worker = thread::spawn(move || {
            loop {
                match taker.next() {
                    Next::Run => {
                        let job = taker.call().job;
                        assert_eq!(job, 0);
                        let _ = taker.finish(false, 0, None);
                        return;
                    }
                    Next::Empty => taker.sleep(),
                    Next::Stop => unreachable!("nobody says stop"),
                }
            }
        });
        let mover = {
            let (core, cells) = (Arc::clone(&core), Arc::clone(&cells));
            thread::spawn(move || {
                let mut core = core.lock().unwrap();
                let (poster, place) = &mut *core;
                if let Retract::Taken { wake } = poster.retract(0) {
                    post(poster, 0, 0);
                    *place = 1;
                    if wake {
                        doorbell::wake(cells.state(0).place_to_sleep());
                    }
                    poster.ring();
                }
            })
        };
        loop {
            let mut held = core.lock().unwrap();
            let (poster, place) = &mut *held;
            let mut reply = Reply::default();
            match poster.drain(&mut reply) {
                Drained::Ended { position, .. } => {
                    assert_eq!(position, *place);
                    break;
                }
                Drained::Skipped { .. } => continue,
                Drained::Nothing => {}
                Drained::Fault(what) => panic!("{what}"),
            }
            let position = *place;
            let asked = poster.ask(position, WAITER);
            drop(held);
            match asked {
                Ask::Set(value) => {
                    doorbell::wait(cells.state(position).place_to_sleep(), value, None);
                }
                // Ended; the slot before it will show at once that it was passed.
                Ask::Over => thread::yield_now(),
            }
        }
        worker.join().unwrap();
        mover.join().unwrap();
    });
}

/// A future asks for notice and goes away; the job ends; the monitor may be falling asleep.
#[test]
fn notice_reaches_the_sleeping_monitor() {
    explore(3, || {
        let (mut poster, mut taker, cells) = link::<4>();
        post(&mut poster, 0, 0);
        let core = Arc::new(Mutex::new(poster));
        let bell = Arc::new(Bell::default());
        let worker = {
            let bell = Arc::clone(&bell);
            thread::spawn(move || {
                assert_eq!(taker.next(), Next::Run);
                if run(&mut taker) {
                    bell.ring();
                }
            })
        };
        let answered = Arc::new(Bell::default());
        let user = {
            let (core, bell) = (Arc::clone(&core), Arc::clone(&bell));
            let answered = Arc::clone(&answered);
            thread::spawn(move || {
                let mut core = core.lock().unwrap();
                let _ = core.ask(0, NOTICE);
                let taken = take(&mut core, 0);
                drop(core);
                if taken {
                    // Only so that the monitor of this model comes to its end.
                    bell.ring();
                } else {
                    answered.sleep();
                }
            })
        };
        let look = || {
            let mut core = core.lock().unwrap();
            if take(&mut core, 0) {
                answered.ring();
            }
            core.open() == 0
        };
        let mut sleeps = 0;
        while !look() {
            sleeps += 1;
            cells.hub().arm(sleeps);
            if look() {
                break;
            }
            bell.sleep();
            cells.hub().disarm();
        }
        user.join().unwrap();
        worker.join().unwrap();
    });
}

/// The supervisor keeps a job because the lane seems to be busy. Whoever sees it last moves it: the
/// thread that kept it, or the monitor, which the lane rings when it runs dry.
#[test]
fn a_job_that_is_kept_gets_its_turn() {
    explore(3, || {
        let (mut poster, mut taker, cells) = link::<4>();
        post(&mut poster, 0, 0);
        let core = Arc::new(Mutex::new((poster, false)));
        let bell = Arc::new(Bell::default());
        let worker = {
            let bell = Arc::clone(&bell);
            thread::spawn(move || {
                let mut ran = 0;
                while ran < 2 {
                    match taker.next() {
                        Next::Run => {
                            ran += 1;
                            if run(&mut taker) {
                                bell.ring();
                            }
                        }
                        Next::Empty => {
                            if taker.more() && taker.monitor_sleeps() {
                                bell.ring();
                            }
                            taker.sleep();
                        }
                        Next::Stop => unreachable!("nobody says stop"),
                    }
                }
            })
        };
        // Drains, and places the kept job where there is nothing before it.
        fn look((poster, kept): &mut (Poster<4>, bool)) -> bool {
            if poster.open() > 0 {
                let job = poster.open_positions().start;
                take(poster, job);
            }
            if *kept && poster.open() == 0 {
                *kept = false;
                post(poster, 1, NOTICE);
                poster.set_flags(0);
                poster.ring();
            }
            poster.tail() == 2 && poster.open() == 0
        }
        let user = {
            let core = Arc::clone(&core);
            thread::spawn(move || {
                let mut core = core.lock().unwrap();
                core.1 = true;
                core.0.set_flags(MORE | 1 << LOW_SHIFT);
                super::after_keeping();
                look(&mut core);
            })
        };
        let mut sleeps = 0;
        while !look(&mut core.lock().unwrap()) {
            sleeps += 1;
            cells.hub().arm(sleeps);
            if !look(&mut core.lock().unwrap()) {
                bell.sleep();
                cells.hub().disarm();
            }
        }
        user.join().unwrap();
        worker.join().unwrap();
    });
}

/// Wants and their answers: a grant given ahead may come first, and a refusal is for the want that it
/// names.
#[test]
fn a_want_is_answered() {
    explore(3, || {
        let (mut poster, mut taker, _) = link::<2>();
        let bell = Arc::new(Bell::default());
        let rings = Arc::clone(&bell);
        let done = Arc::new(Count::new(0));
        let ended = Arc::clone(&done);
        let worker = thread::spawn(move || {
            let mut want = |bytes| {
                if let Some(granted) = taker.next_grant() {
                    return Answer::Granted(granted);
                }
                taker.want(bytes, 0);
                rings.ring();
                taker.await_grant()
            };
            let Answer::Granted(first) = want(64) else {
                panic!("the first was not refused");
            };
            assert_eq!((first.number, first.offset, first.len), (0, 4096, 64));
            match want(128) {
                Answer::Granted(granted) => panic!("{granted:?} was not given"),
                Answer::Refused(words) => assert_eq!(words, [128, 1, 2, 3, 4, 5]),
            }
            ended.store(1, Relaxed);
            rings.ring();
        });
        // Ahead, as with a job that is posted.
        assert!(poster.grant(4096, 64, false));
        poster.ring();
        // The monitor.
        while done.load(Relaxed) == 0 {
            bell.sleep();
            if let Some(want) = poster.wanted() {
                // For the first one the grant given ahead is as good.
                let refusal = (want.bytes != 64).then_some([want.bytes, 1, 2, 3, 4, 5]);
                poster.answer_want(want, refusal);
            }
        }
        worker.join().unwrap();
    });
}

/// A worker that has read all its grants may sleep for the next one: it is woken for each.
#[test]
fn a_grant_wakes_the_lane_that_waits() {
    explore(3, || {
        let (mut poster, mut taker, _) = link::<2>();
        let bell = Arc::new(Bell::default());
        let rings = Arc::clone(&bell);
        let worker = thread::spawn(move || {
            for number in 0..2u32 {
                taker.want(64, 0);
                rings.ring();
                let Answer::Granted(granted) = taker.await_grant() else {
                    panic!("nothing is refused");
                };
                assert_eq!(granted.number, number);
                assert_eq!(granted.offset, 4096 * (u64::from(number) + 1));
            }
        });
        for number in 1..=2 {
            // Jobs are posted while the lane waits: a ring that has nothing to do with the grant.
            poster.ring();
            let want = loop {
                bell.sleep();
                if let Some(want) = poster.wanted() {
                    break want;
                }
            };
            assert!(poster.grant(4096 * number, 64, true));
            poster.answer_want(want, None);
        }
        worker.join().unwrap();
    });
}
