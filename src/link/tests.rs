//! Tests of the link on the heap: the state word against a model, and the steps that models of the
//! memory order leave out.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;

use proptest::prelude::*;

use super::cells::GRANTS;
use super::poster::Drained;
use super::state::{BARE, Claim, Finished, Generation, LONE, Look, ReplyIn, StateWord};
use super::*;
use crate::sync::Ordering;

type Cells = LinkCells<4>;

fn link() -> (Poster<4>, Taker<4>, Arc<Cells>) {
    let cells = Arc::new(Cells::on_heap());
    let poster = Poster::new(Arc::clone(&cells));
    let taker = Taker::new(Arc::clone(&cells), 0, 0);
    (poster, taker, cells)
}

fn post(poster: &mut Poster<4>, job: u64) -> u64 {
    poster.post(&Call {
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
fn a_request_is_heard_by_the_job_it_is_for() {
    let (mut poster, mut taker, _) = link();
    for lap in 0..3 {
        let first = post(&mut poster, 1);
        post(&mut poster, 2);
        assert!(!taker.is_cancelled(), "lap {lap}: none runs");
        assert_eq!(taker.next(), Next::Run);
        assert!(!taker.is_cancelled());
        assert!(matches!(poster.ask(first, CANCEL | NOTICE), Ask::Set(_)));
        assert!(taker.is_cancelled());
        taker.finish(false, 0, None);
        assert!(!taker.is_cancelled(), "it has ended");
        assert_eq!(taker.next(), Next::Run);
        assert!(!taker.is_cancelled(), "the next one");
        taker.finish(false, 0, None);
        let mut reply = Reply::default();
        while !matches!(poster.drain(&mut reply), Drained::Nothing) {}
    }
}

/// One thing that somebody does to the word.
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
    /// Somebody who is a lap ahead or behind.
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

/// What the word means, in words.
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
    /// Whoever does what he may do in whatever order: each transition says what the model says. The
    /// laps go over the end of the generations.
    #[test]
    fn the_word_follows_its_model(acts in acts(), start in 0u64..6) {
        let word = StateWord::new();
        let first = (1u64 << 24) - 3 + start;
        // Lap of the supervisor and of the worker; the word of the lap before looks old to both.
        let (mut lap, mut mine) = (first, first);
        let mut model = Model::Free;
        let at = |lap| Generation::of(lap, 1);
        for act in acts {
            match act {
                Act::Post(bits) => {
                    // Only when drained, as `room` says.
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
                        Model::Queued(bits) if mine == lap => {
                            model = Model::Running(bits);
                            Claim::Run
                        }
                        Model::Retracted => Claim::Retracted,
                        _ => Claim::Empty,
                    };
                    prop_assert_eq!(word.claim(at(mine)), expected);
                }
                Act::Pass => {
                    if model == Model::Retracted {
                        word.pass(at(mine));
                        mine += 1;
                        model = Model::Skipped;
                    }
                }
                Act::Finish { failed, reply_in } => {
                    if let Model::Running(bits) = model {
                        let told = word.finish(at(mine), failed, reply_in);
                        let expected = Finished { wake: bits & WAITER != 0, notice: bits & NOTICE != 0 };
                        prop_assert_eq!(told, expected);
                        mine += 1;
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
            prop_assert_eq!(is_open(word.place_to_sleep(), lap, 1), open);
        }
    }

    /// Whatever a worker writes into its half, draining names a fault or gives values, and goes on.
    #[test]
    fn a_hostile_half_is_only_wrong(
        words in prop::collection::vec((any::<u32>(), 0u32..8), 4),
        garbage in any::<[u64; 4]>(),
    ) {
        let (mut poster, _, cells) = link();
        for job in 0..4 {
            post(&mut poster, job);
        }
        for (position, (word, phase)) in words.into_iter().enumerate() {
            // Of this generation, or of any.
            let word = if word & 1 == 0 { word & (BARE | LONE) | phase } else { word };
            let cell = &cells.reply().states[position];
            cell.state.place_to_sleep().store(word, crate::sync::Ordering::Relaxed);
            let reply = &cells.reply().replies[position];
            for (to, from) in [&reply.head, &reply.grant, &reply.cursor, &reply.words[0]].into_iter().zip(garbage) {
                to.store(from, crate::sync::Ordering::Relaxed);
            }
        }
        let mut reply = Reply::default();
        for _ in 0..5 {
            match poster.drain(&mut reply) {
                Drained::Nothing | Drained::Fault(_) => break,
                Drained::Ended { .. } | Drained::Skipped { .. } => {}
            }
        }
        poster.start_over();
        prop_assert_eq!(poster.open(), 0);
        prop_assert_eq!(poster.tail(), 4);
    }
}

#[test]
fn words_are_readable() {
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
    let (mut poster, mut taker, _) = link();
    for number in 0..GRANTS as u64 {
        assert!(poster.grant(number * 4096, 4096, false));
    }
    // The lane waits for memory: that says nothing about which of these it has read.
    taker.want(64, 0);
    assert!(!poster.grant(1 << 20, 4096, false));
    assert_eq!(taker.next_grant().unwrap().offset, 0);
    assert!(poster.grant(1 << 20, 4096, true));
    for number in 1..GRANTS as u64 {
        assert_eq!(taker.next_grant().unwrap().offset, number * 4096);
    }
    let last = taker.next_grant().unwrap();
    assert_eq!((last.offset, last.len, last.fresh), (1 << 20, 4096, true));
    assert!(taker.next_grant().is_none());
}

#[test]
fn a_worker_that_claims_to_have_read_the_future_gets_no_grants() {
    let (mut poster, _, cells) = link();
    for lie in [1, 7, 9, 1 << 31] {
        cells
            .reply()
            .taken
            .store(lie, crate::sync::Ordering::Relaxed);
        assert!(!poster.grant(0, 4096, false), "{lie}");
    }
}

#[test]
fn an_answer_is_for_the_want_that_it_names() {
    let (mut poster, mut taker, _) = link();
    taker.want(1 << 30, 0);
    let large = poster.wanted().unwrap();
    // Memory for the large one is looked for. Meanwhile a grant given ahead was enough, and the lane
    // wants something small.
    assert!(poster.grant(0, 4096, false));
    taker.next_grant().unwrap();
    taker.want(64, 0);
    poster.answer_want(large, Some([1 << 30, 0, 0, 0, 0, 0]));
    let small = poster.wanted().unwrap();
    assert_eq!(small.bytes, 64);
    assert!(poster.grant(8192, 4096, false));
    poster.answer_want(small, None);
    assert!(poster.wanted().is_none());
    let Answer::Granted(granted) = taker.await_grant() else {
        panic!("the small one was refused with the numbers of the large one");
    };
    assert_eq!(granted.offset, 8192);
}

#[test]
fn starting_over_leaves_no_word_to_sleep_on() {
    let (mut poster, mut taker, cells) = link();
    let position = post(&mut poster, 1);
    let Ask::Set(value) = poster.ask(position, WAITER) else {
        panic!("the job is queued");
    };
    // The worker dies before it claims it. Whoever comes to sleep with what it read stays awake.
    poster.start_over();
    let word = cells.state(position).place_to_sleep();
    assert_ne!(word.load(crate::sync::Ordering::Relaxed), value);
    assert!(!is_open(word, position, 4));
    // The next worker begins behind it.
    assert_eq!(taker.next(), Next::Empty);
    let mut next = Taker::new(cells, poster.tail(), poster.granted());
    assert_eq!(next.next(), Next::Empty);
    post(&mut poster, 2);
    assert_eq!(next.next(), Next::Run);
    assert_eq!(next.call().job, 2);
}

/// Whoever has taken a worker over can write every word of its link, also those of jobs that nobody has posted yet.
#[test]
fn what_a_worker_wrote_beyond_its_jobs_dies_with_it() {
    for phase in 0..8u32 {
        let (mut poster, mut taker, cells) = link();
        for job in 0..4 {
            post(&mut poster, job);
        }
        assert_eq!(taker.next(), Next::Run);
        for ahead in 0..4 {
            let position = poster.tail() + ahead;
            let word = phase | ((position / 4) as u32) << 8;
            let cell = cells.state(position).place_to_sleep();
            cell.store(word, crate::sync::Ordering::Relaxed);
        }
        poster.start_over();
        let mut next = Taker::new(cells, poster.tail(), poster.granted());
        assert_eq!(next.next(), Next::Empty, "{phase}");
        for job in 10..14 {
            post(&mut poster, job);
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
    let (mut poster, mut taker, _) = link();
    post(&mut poster, 1);
    post(&mut poster, 2);
    assert!(matches!(poster.retract(0), Retract::Taken { wake: false }));
    poster.set_flags(STOP);
    assert_eq!(taker.next(), Next::Run);
    assert_eq!(taker.call().job, 2);
    assert!(!taker.finish(false, 1, None));
    assert_eq!(taker.next(), Next::Stop);
    let mut reply = Reply::default();
    assert!(matches!(
        poster.drain(&mut reply),
        Drained::Skipped { position: 0 }
    ));
    assert!(matches!(
        poster.drain(&mut reply),
        Drained::Ended {
            position: 1,
            bare: true,
            ..
        }
    ));
    assert!(matches!(poster.drain(&mut reply), Drained::Nothing));
}

#[test]
fn neighbours_know_who_is_on_which_core_and_who_waits_for_one() {
    let cells = || -> &'static LinkCells<4> { Box::leak(Box::new(LinkCells::on_heap())) };
    let (one, two) = (cells(), cells());
    let neighbours = Neighbours::of(&[one, two]);
    let cores = || neighbours.cores().collect::<Vec<_>>();
    assert_eq!((neighbours.len(), cores()), (2, vec![]));
    assert!(!neighbours.any_waits_for_a_core());
    one.runs_on(0);
    two.runs_on(7);
    assert_eq!(cores(), [0, 7]);
    one.goes_to_sleep();
    assert_eq!(cores(), [7]);
    assert!(!neighbours.any_waits_for_a_core());
    // Rung: it waits until it says where it is.
    one.post().bell.fetch_add(1, Ordering::Relaxed);
    assert!(neighbours.any_waits_for_a_core());
    one.runs_on(1);
    assert!(!neighbours.any_waits_for_a_core());
    // Between two jobs for longer than it takes to look twice. In a kernel it may be as long as it likes.
    two.set_phase(Phase::Running(1));
    assert!(!neighbours.any_waits_for_a_core());
    assert!(!neighbours.any_waits_for_a_core());
    two.set_phase(Phase::Publishing(1));
    assert!(!neighbours.any_waits_for_a_core());
    assert!(neighbours.any_waits_for_a_core());
    two.set_phase(Phase::Opening(2));
    assert!(!neighbours.any_waits_for_a_core());
    // Whatever a hostile one says is a number.
    two.reply().place.store(u64::MAX, Ordering::Relaxed);
    assert_eq!(cores(), [1, u32::MAX]);
}

fn word(grant: u64) -> Answering<'static> {
    Answering {
        kind: kind::VALUE,
        arrays: 0,
        spilled: false,
        len: 1,
        grant,
        cursor: 4096,
        words: &[5],
    }
}

#[test]
fn a_word_that_comes_with_news_of_a_grant_brings_them() {
    let (mut poster, mut taker, _) = link();
    for grant in [3, NO_GRANT] {
        post(&mut poster, 1);
        assert_eq!(taker.next(), Next::Run);
        let _ = taker.finish(false, 1, Some(&word(grant)));
        let mut reply = Reply::default();
        assert!(matches!(
            poster.drain(&mut reply),
            Drained::Ended { bare: false, .. }
        ));
        assert_eq!((reply.kind, reply.len, reply.words[0]), (kind::VALUE, 1, 5));
        assert_eq!(reply.grant, grant);
        assert!(grant == NO_GRANT || reply.cursor == 4096);
    }
}

#[test]
fn a_table_of_finished_jobs_is_no_reason_to_ring() {
    let (mut poster, mut taker, cells) = link();
    cells.hub().arm(1);
    for job in 0..4 {
        post(&mut poster, job);
    }
    for _ in 0..4 {
        assert_eq!(taker.next(), Next::Run);
        assert!(!taker.finish(false, 1, Some(&word(NO_GRANT))));
    }
    assert_eq!(taker.next(), Next::Empty);
}
