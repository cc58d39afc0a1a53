//! Tests of a link on the heap: the state word against a model, and what the loom models leave out.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;

use proptest::prelude::*;

use super::cells::GRANTS;
use super::producer::Drained;
use super::state::{Claim, EMPTY, Finished, Generation, Look, ONE_WORD, ReplyIn, StateWord};
use super::*;
use crate::sync::Ordering;

type Cells = LinkCells<4>;

fn link() -> (Producer<4>, Consumer<4>, Arc<Cells>) {
    let cells = Arc::new(Cells::on_heap());
    let producer = Producer::new(Arc::clone(&cells));
    let consumer = Consumer::new(Arc::clone(&cells), 0, 0);
    (producer, consumer, cells)
}

fn post(producer: &mut Producer<4>, job: u64) -> u64 {
    producer.post(&Call {
        job,
        entry: 1,
        len: 1,
        form: 0,
        seed: 0,
        words: &[job],
        requests: 0,
    })
}

#[test]
fn a_cancel_request_reaches_only_its_job() {
    let (mut producer, mut consumer, _) = link();
    for lap in 0..3 {
        let first = post(&mut producer, 1);
        post(&mut producer, 2);
        assert!(!consumer.is_cancelled(), "lap {lap}: no job runs");
        assert_eq!(consumer.next(), Next::Run);
        assert!(!consumer.is_cancelled());
        assert!(matches!(producer.ask(first, CANCEL | NOTICE), Ask::Set(_)));
        assert!(consumer.is_cancelled());
        consumer.finish(false, 0, None);
        assert!(!consumer.is_cancelled(), "the job has ended");
        assert_eq!(consumer.next(), Next::Run);
        assert!(!consumer.is_cancelled(), "the next job");
        consumer.finish(false, 0, None);
        let mut reply = Reply::default();
        while !matches!(producer.drain(&mut reply), Drained::Nothing) {}
    }
}

/// An operation on the word.
#[derive(Clone, Copy, Debug)]
enum Act {
    Post(u32),
    Claim,
    Pass,
    Finish {
        failed: bool,
        reply_in: ReplyIn,
    },
    Retract,
    Ask(u32),
    Look,
    /// Operations of a side that is a lap ahead or behind.
    Stray,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let bits = (0u32..8).prop_map(|bits| {
        let bit = |index: u32, bit: u32| if bits >> index & 1 == 1 { bit } else { 0 };
        bit(0, WAITER) | bit(1, NOTICE) | bit(2, CANCEL)
    });
    let reply_in = prop_oneof![
        Just(ReplyIn::Nothing),
        Just(ReplyIn::Cell),
        Just(ReplyIn::Slot),
    ];
    let act = prop_oneof![
        2 => bits.clone().prop_map(Act::Post),
        2 => Just(Act::Claim),
        1 => Just(Act::Pass),
        2 => (any::<bool>(), reply_in).prop_map(|(failed, reply_in)| Act::Finish { failed, reply_in }),
        1 => Just(Act::Retract),
        2 => bits.prop_map(Act::Ask),
        2 => Just(Act::Look),
        1 => Just(Act::Stray),
    ];
    prop::collection::vec(act, 1..200)
}

/// The state that the word stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Model {
    Free,
    Queued(u32),
    Running(u32),
    Ended { failed: bool, reply_in: ReplyIn },
    Retracted,
    Skipped,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(crate::sys::asked::cases(10_000)))]
    /// Each transition returns what the model says, for any order of allowed operations. The laps cross the wrap-around
    /// of generations.
    #[test]
    fn the_word_follows_its_model(acts in acts(), start in 0u64..6) {
        let word = StateWord::new();
        let first = (1u64 << 24) - 3 + start;
        // The laps of the supervisor and of the worker.
        let (mut lap, mut worker_lap) = (first, first);
        let mut model = Model::Free;
        let at = |lap| Generation::of(lap, 1);
        for act in acts {
            match act {
                Act::Post(bits) => {
                    // Post only into a drained slot, as `free_slots` ensures.
                    match model {
                        Model::Free => {}
                        Model::Ended { .. } | Model::Skipped => lap += 1,
                        _ => continue,
                    }
                    word.post(at(lap), bits);
                    model = Model::Queued(bits);
                }
                Act::Claim => {
                    let expected = match model {
                        Model::Queued(bits) if worker_lap == lap => {
                            model = Model::Running(bits);
                            Claim::Run
                        }
                        Model::Retracted => Claim::Retracted,
                        _ => Claim::Empty,
                    };
                    prop_assert_eq!(word.claim(at(worker_lap)), expected);
                }
                Act::Pass => {
                    if model == Model::Retracted {
                        word.pass(at(worker_lap));
                        worker_lap += 1;
                        model = Model::Skipped;
                    }
                }
                Act::Finish { failed, reply_in } => {
                    if let Model::Running(bits) = model {
                        let finished = word.finish(at(worker_lap), failed, reply_in);
                        let expected = Finished { wake: bits & WAITER != 0, notice: bits & NOTICE != 0 };
                        prop_assert_eq!(finished, expected);
                        worker_lap += 1;
                        model = Model::Ended { failed, reply_in };
                    }
                }
                Act::Retract => {
                    let expected = match model {
                        Model::Queued(bits) => {
                            model = Model::Retracted;
                            Retract::Taken { wake: bits & WAITER != 0 }
                        }
                        _ => Retract::TooLate,
                    };
                    prop_assert_eq!(word.retract(at(lap)), expected);
                }
                Act::Ask(bit) => {
                    let asked = word.ask(at(lap), bit);
                    match &mut model {
                        Model::Queued(bits) | Model::Running(bits) => {
                            *bits |= bit;
                            let Ask::Set(value) = asked else {
                                return Err(TestCaseError::fail(format!("{asked:?}")));
                            };
                            let has = value & (WAITER | NOTICE | CANCEL);
                            prop_assert_eq!(has, *bits);
                        }
                        _ => prop_assert_eq!(asked, Ask::Over),
                    }
                }
                Act::Stray => {}
                Act::Look => {
                    let looked = word.look(at(lap));
                    match model {
                        Model::Free => prop_assert!(matches!(looked, Look::Fault(_))),
                        Model::Queued(_) | Model::Running(_) | Model::Retracted => {
                            prop_assert_eq!(looked, Look::Open);
                        }
                        Model::Ended { failed: true, .. } => prop_assert_eq!(looked, Look::Failed),
                        Model::Ended { reply_in, .. } => prop_assert_eq!(looked, Look::Done(reply_in)),
                        Model::Skipped => prop_assert_eq!(looked, Look::Skipped),
                    }
                }
            }
            if let Act::Stray = act {
                for stray in [lap - 1, lap + 1] {
                    prop_assert_eq!(word.claim(at(stray)), Claim::Empty);
                    prop_assert_eq!(word.ask(at(stray), CANCEL), Ask::Over);
                    prop_assert_eq!(word.retract(at(stray)), Retract::TooLate);
                    prop_assert!(matches!(word.look(at(stray)), Look::Fault(_)));
                }
            }
            prop_assert_eq!(word.is_queued(at(lap)), matches!(model, Model::Queued(_)));
            let open = matches!(model, Model::Queued(_) | Model::Running(_));
            prop_assert_eq!(is_open(word.as_futex(), lap, 1), open);
            let running = matches!(model, Model::Running(_));
            prop_assert_eq!(is_running(word.as_futex(), lap, 1), running);
        }
    }

    /// With any content of the reply half, draining reports a fault or returns values, and goes on.
    #[test]
    fn draining_survives_any_reply_half(
        words in prop::collection::vec((any::<u32>(), 0u32..8), 4),
        garbage in any::<[u64; 4]>(),
    ) {
        let (mut producer, _, cells) = link();
        for job in 0..4 {
            post(&mut producer, job);
        }
        for (position, (word, phase)) in words.into_iter().enumerate() {
            // A word of this generation, or an arbitrary one.
            let word = if word & 1 == 0 { word & (EMPTY | ONE_WORD) | phase } else { word };
            let cell = &cells.reply().states[position];
            cell.state.as_futex().store(word, crate::sync::Ordering::Relaxed);
            let reply = &cells.reply().replies[position];
            for (to, from) in [&reply.head, &reply.grant, &reply.cursor, &reply.words[0]].into_iter().zip(garbage) {
                to.store(from, crate::sync::Ordering::Relaxed);
            }
        }
        let mut reply = Reply::default();
        for _ in 0..5 {
            match producer.drain(&mut reply) {
                Drained::Nothing | Drained::Fault(_) => break,
                Drained::Ended { .. } | Drained::Skipped { .. } => {}
            }
        }
        producer.reset();
        prop_assert_eq!(producer.open(), 0);
        prop_assert_eq!(producer.tail(), 4);
    }
}

#[test]
fn words_have_a_readable_debug_form() {
    let word = StateWord::new();
    word.post(Generation::of(7, 1), WAITER);
    assert!(matches!(word.look(Generation::of(7, 1)), Look::Open));
    let Look::Fault(seen) = word.look(Generation::of(8, 1)) else {
        panic!("another generation is a fault");
    };
    assert_eq!(format!("{seen:?}"), "Queued@7+WAITER");
}

#[test]
fn grants_are_not_overwritten_before_they_are_read() {
    let (mut producer, mut consumer, _) = link();
    for number in 0..GRANTS as u64 {
        assert!(producer.grant(number * 4096, 4096, false));
    }
    // An allocation request does not imply that the lane has read its grants.
    consumer.request_alloc(64, 0);
    assert!(!producer.grant(1 << 20, 4096, false));
    assert_eq!(consumer.next_grant().unwrap().offset, 0);
    assert!(producer.grant(1 << 20, 4096, true));
    for number in 1..GRANTS as u64 {
        assert_eq!(consumer.next_grant().unwrap().offset, number * 4096);
    }
    let last = consumer.next_grant().unwrap();
    assert_eq!((last.offset, last.len, last.fresh), (1 << 20, 4096, true));
    assert!(consumer.next_grant().is_none());
}

#[test]
fn a_worker_that_claims_unwritten_grants_gets_none() {
    let (mut producer, _, cells) = link();
    for claimed in [1, 7, 9, 1 << 31] {
        cells
            .reply()
            .grants_taken
            .store(claimed, crate::sync::Ordering::Relaxed);
        assert!(!producer.grant(0, 4096, false), "{claimed}");
    }
}

#[test]
fn an_answer_is_for_the_request_that_it_names() {
    let (mut producer, mut consumer, _) = link();
    consumer.request_alloc(1 << 30, 0);
    let large = producer.alloc_request().unwrap();
    // While memory for the large request is sought, a grant given ahead satisfies it, and the lane makes a small
    // request.
    assert!(producer.grant(0, 4096, false));
    consumer.next_grant().unwrap();
    consumer.request_alloc(64, 0);
    producer.answer_alloc(large, Some([1 << 30, 0, 0, 0, 0, 0, 0]));
    let small = producer.alloc_request().unwrap();
    assert_eq!(small.bytes, 64);
    assert!(producer.grant(8192, 4096, false));
    producer.answer_alloc(small, None);
    assert!(producer.alloc_request().is_none());
    let AllocAnswer::Granted(granted) = consumer.await_grant() else {
        panic!("the small one was refused with the numbers of the large one");
    };
    assert_eq!(granted.offset, 8192);
}

#[test]
fn a_reset_leaves_no_word_to_sleep_on() {
    let (mut producer, mut consumer, cells) = link();
    let position = post(&mut producer, 1);
    let Ask::Set(value) = producer.ask(position, WAITER) else {
        panic!("the job is queued");
    };
    // The worker dies before it claims the job. A thread that tries to sleep with a value that it read before does not
    // sleep.
    producer.reset();
    let word = cells.state(position).as_futex();
    assert_ne!(word.load(crate::sync::Ordering::Relaxed), value);
    assert!(!is_open(word, position, 4));
    // The next worker begins after the job.
    assert_eq!(consumer.next(), Next::Empty);
    let mut next = Consumer::new(cells, producer.tail(), producer.granted());
    assert_eq!(next.next(), Next::Empty);
    post(&mut producer, 2);
    assert_eq!(next.next(), Next::Run);
    assert_eq!(next.call().job, 2);
}

/// A hostile worker can write every word of its link, including those of jobs that are not posted yet.
#[test]
fn words_written_beyond_the_posted_jobs_are_cleared() {
    for phase in 0..8u32 {
        let (mut producer, mut consumer, cells) = link();
        for job in 0..4 {
            post(&mut producer, job);
        }
        assert_eq!(consumer.next(), Next::Run);
        for ahead in 0..4 {
            let position = producer.tail() + ahead;
            let word = phase | ((position / 4) as u32) << 8;
            let cell = cells.state(position).as_futex();
            cell.store(word, crate::sync::Ordering::Relaxed);
        }
        producer.reset();
        let mut next = Consumer::new(cells, producer.tail(), producer.granted());
        assert_eq!(next.next(), Next::Empty, "{phase}");
        for job in 10..14 {
            post(&mut producer, job);
        }
        for job in 10..14 {
            assert_eq!(next.next(), Next::Run, "{phase}");
            assert_eq!(next.call().job, job);
            assert!(!next.finish(false, 1, None));
        }
        assert_eq!(next.next(), Next::Empty);
    }
}

#[test]
fn jobs_posted_before_the_stop_are_run() {
    let (mut producer, mut consumer, _) = link();
    post(&mut producer, 1);
    post(&mut producer, 2);
    assert!(matches!(
        producer.retract(0),
        Retract::Taken { wake: false }
    ));
    producer.set_flags(STOP);
    assert_eq!(consumer.next(), Next::Run);
    assert_eq!(consumer.call().job, 2);
    assert!(!consumer.finish(false, 1, None));
    assert_eq!(consumer.next(), Next::Stop);
    let mut reply = Reply::default();
    assert!(matches!(
        producer.drain(&mut reply),
        Drained::Skipped { position: 0 }
    ));
    assert!(matches!(
        producer.drain(&mut reply),
        Drained::Ended {
            position: 1,
            is_empty: true,
            ..
        }
    ));
    assert!(matches!(producer.drain(&mut reply), Drained::Nothing));
}

#[test]
fn a_lane_that_has_taken_its_jobs_is_not_rung_again() {
    let (mut producer, mut consumer, cells) = link();
    // What `Consumer::sleep` announces.
    let sleeps = |number| cells.reply().asleep.store(number, Ordering::Relaxed);
    sleeps(1);
    post(&mut producer, 1);
    assert!(
        producer.ring_early(),
        "it begins before the lock is released"
    );
    sleeps(0);
    assert_eq!(consumer.next(), Next::Run);
    sleeps(2);
    assert!(!producer.ring_posted(), "it waits for memory");
    sleeps(0);
    consumer.finish(false, 0, None);
    sleeps(3);
    assert!(!producer.ring_posted(), "it has nothing to do");
    let second = post(&mut producer, 2);
    let third = post(&mut producer, 3);
    assert!(matches!(producer.retract(third), Retract::Taken { .. }));
    assert!(producer.ring_posted(), "job {second} is queued");
    assert!(!producer.ring_posted(), "once for each sleep");
}

#[test]
fn neighbours_see_cores_and_lanes_that_wait_for_one() {
    let cells = || -> &'static LinkCells<4> { Box::leak(Box::new(LinkCells::on_heap())) };
    let (one, two) = (cells(), cells());
    let neighbours = Neighbours::of(&[one, two]);
    let cores = || neighbours.cores().collect::<Vec<_>>();
    assert_eq!((neighbours.len(), cores()), (2, vec![]));
    assert!(!neighbours.any_waits_for_a_core());
    one.set_core(0);
    two.set_core(7);
    assert_eq!(cores(), [0, 7]);
    assert_eq!((one.awake_core(), one.last_core()), (Some(0), 0));
    one.set_asleep(3);
    assert_eq!((one.awake_core(), one.last_core()), (None, 3));
    assert_eq!(cores(), [7]);
    assert!(!neighbours.any_waits_for_a_core());
    // The lane was rung: it waits for a core until it publishes one.
    one.post().doorbell.fetch_add(1, Ordering::Relaxed);
    assert!(neighbours.any_waits_for_a_core());
    one.set_core(1);
    assert!(!neighbours.any_waits_for_a_core());
    // A lane waits for a core if it is between the same two jobs at two calls. A kernel may run for any time.
    two.set_phase(Phase::Running(1));
    assert!(!neighbours.any_waits_for_a_core());
    assert!(!neighbours.any_waits_for_a_core());
    two.set_phase(Phase::Publishing(1));
    assert!(!neighbours.any_waits_for_a_core());
    assert!(neighbours.any_waits_for_a_core());
    two.set_phase(Phase::Opening(2));
    assert!(!neighbours.any_waits_for_a_core());
    // Any value of a hostile lane is read as a number.
    two.reply().location.store(u64::MAX, Ordering::Relaxed);
    assert_eq!(cores(), [1, u32::MAX]);
}

fn word(grant: u64) -> OutgoingReply<'static> {
    OutgoingReply {
        kind: kind::VALUE,
        arrays: 0,
        retained: 0,
        spilled: false,
        len: 1,
        grant,
        cursor: 4096,
        words: &[5],
    }
}

#[test]
fn a_one_word_reply_may_report_a_grant() {
    let (mut producer, mut consumer, _) = link();
    for grant in [3, NO_GRANT] {
        post(&mut producer, 1);
        assert_eq!(consumer.next(), Next::Run);
        let _ = consumer.finish(false, 1, Some(&word(grant)));
        let mut reply = Reply::default();
        assert!(matches!(
            producer.drain(&mut reply),
            Drained::Ended {
                is_empty: false,
                ..
            }
        ));
        assert_eq!((reply.kind, reply.len, reply.words[0]), (kind::VALUE, 1, 5));
        assert_eq!(reply.grant, grant);
        assert!(grant == NO_GRANT || reply.cursor == 4096);
    }
}

#[test]
fn a_full_table_of_finished_jobs_does_not_signal_the_monitor() {
    let (mut producer, mut consumer, cells) = link();
    cells.hub().arm(1);
    for job in 0..4 {
        post(&mut producer, job);
    }
    for _ in 0..4 {
        assert_eq!(consumer.next(), Next::Run);
        assert!(!consumer.finish(false, 1, Some(&word(NO_GRANT))));
    }
    assert_eq!(consumer.next(), Next::Empty);
}
