#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicBool;

use super::*;
use crate::kernel::wire::SENT_WORDS;
use crate::supervisor::tests::{die, in_time};
use crate::sys::asked;

/// A reproducible sequence of numbers.
fn seeded(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed;
    move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

fn script(seed: u64, len: usize) -> Vec<u8> {
    let mut next = seeded(seed);
    (0..len.div_ceil(8))
        .flat_map(|_| next().to_le_bytes())
        .collect()
}

/// Names the seed of an attack that fails or hangs.
fn with_seed<T: Send + 'static>(seed: u64, attack: impl FnOnce() -> T + Send + 'static) -> T {
    catch_unwind(AssertUnwindSafe(|| in_time(attack)))
        .unwrap_or_else(|_| panic!("seed {seed}: ARENITE_FUZZ_SEED={seed} begins with it"))
}

/// Runs attacks, each with its own seed, until they have written 100,000 forged values.
#[test]
fn seeded_attacks_are_survived() {
    let enough = asked::cases(10_000) as usize;
    let mut all = AttackStats::default();
    for seed in asked::first_seed().. {
        let bytes = script(seed, 6800);
        all += with_seed(seed, move || link_words(&bytes));
        if all.forged >= enough {
            break;
        }
    }
    println!("{all:?}");
    // A share that the supervisor has to notice: the others are in words that it does not read, or could be true.
    assert!(all.deaths * 50 > all.forged, "{all:?}");
}

/// A worker that changes its words while they are read.
#[test]
fn words_may_change_between_two_reads() {
    let first = asked::first_seed();
    for seed in first..first + u64::from(asked::cases(10_000).div_ceil(3_333)) {
        with_seed(seed, move || flip_between_reads(seed));
    }
}

fn flip_between_reads(seed: u64) {
    let mut attack = Attack::new();
    let stop = AtomicBool::new(false);
    let cells: Vec<_> = attack.shared.cells.clone();
    std::thread::scope(|threads| {
        threads.spawn(|| {
            let mut next = seeded(seed ^ 0xffff);
            while !stop.load(Ordering::Relaxed) {
                let (lane, slot) = (next() as usize % cells.len(), next() as usize % 8);
                let reply = cells[lane].reply();
                let word = reply.states[slot].state.as_futex();
                word.fetch_xor(1 << (next() % 9), Ordering::Relaxed);
                let answer = &reply.replies[slot];
                answer.head.fetch_xor(1 << (next() % 40), Ordering::Relaxed);
                answer
                    .cursor
                    .fetch_xor(1 << (next() % 20), Ordering::Relaxed);
                reply.grants_taken.fetch_add(1, Ordering::Relaxed);
                reply.alloc_requests.fetch_add(1, Ordering::Relaxed);
                reply
                    .alloc_bytes
                    .store(next() % (1 << 23), Ordering::Relaxed);
            }
        });
        let bytes = script(seed, 3000);
        let mut script = Script::of(&bytes);
        while !script.is_over() {
            attack.step(&mut script);
        }
        stop.store(true, Ordering::Relaxed);
    });
    attack.end();
}

/// Each value of the state word of a posted job: an impossible one is a fault, a possible one is not.
#[test]
fn every_state_word_is_classified() {
    const GENERATION: u32 = 8;
    for phase in 0..8u32 {
        for bits in 0..32u32 {
            for lap in [0u32, 1, 2, 1 << 23, (1 << 24) - 1] {
                let (shared, _consumers) = fixture(1, 1);
                let id = shared.submit(
                    &kernel(),
                    &mut ArgWriter::new(shared.arena.id()),
                    Owner::Handle,
                    None,
                );
                let word = phase | bits << 3 | lap << GENERATION;
                shared.cells[0]
                    .state(0)
                    .as_futex()
                    .store(word, Ordering::Relaxed);
                shared.stats();
                let condemned = shared.lock().workers[0].status() == Status::Leaving;
                // The job was not retracted, so it cannot have been skipped; 0 and 7 are no phases.
                let cannot_be = lap != 0 || matches!(phase, 0 | 6 | 7);
                // The zeros of the slot are no valid failure, and a value only if they are not read.
                let (bare, lone) = (bits & 8 != 0, bits & 16 != 0);
                let cannot_be = cannot_be || phase == 4 || phase == 3 && !bare && !lone;
                assert_eq!(condemned, cannot_be, "{word:#x}");
                let answer = shared.wait_timeout(id, <() as Reply>::receive, Duration::ZERO);
                assert_eq!(
                    answer.is_some(),
                    phase == 3 && (bare || lone) && lap == 0,
                    "{word:#x}"
                );
                if condemned {
                    die(&shared, 0);
                    let answer = shared.wait_timeout(id, <() as Reply>::receive, Duration::ZERO);
                    let error = answer.unwrap().unwrap_err();
                    assert!(
                        matches!(error.kind(), JobErrorKind::Lost(WorkerExit::Protocol(_))),
                        "{word:#x}: {error}"
                    );
                }
            }
        }
    }
}

/// "Done without words" or one word is no answer of a kernel that returns bytes. The worker is killed, and the error
/// names it.
#[test]
fn an_answer_of_the_wrong_type_costs_the_worker() {
    const DONE: u32 = 3;
    for (form, word) in [("bare", DONE | 1 << 6), ("one word", DONE | 1 << 7)] {
        let (shared, _consumers) = fixture(2, 2);
        let mut call = ArgWriter::new(shared.arena.id());
        let id = shared.submit(&kernel(), &mut call, Owner::Handle, None);
        let lane = (0..2)
            .find(|&lane| shared.lock().lanes[lane].producer.open() > 0)
            .unwrap();
        let state = shared.cells[lane].state(0).as_futex();
        state.store(word, Ordering::Relaxed);
        let answer = shared.wait_timeout(id, <Array<u8> as Reply>::receive, Duration::ZERO);
        let error = answer.unwrap().unwrap_err();
        assert!(
            matches!(error.kind(), JobErrorKind::Lost(WorkerExit::Protocol(_))),
            "{form}: {error}"
        );
        assert_eq!(error.worker(), Some(lane as u32), "{form}");
        let statuses = [0, 1].map(|worker| shared.lock().workers[worker].status());
        assert_eq!(statuses[lane], Status::Leaving, "{form}");
        assert_eq!(statuses[1 - lane], Status::Ready, "{form}");
    }
}

/// Each reply that the edges of its numbers give, for a job that returns bytes: a value within the grant, or a fault.
#[test]
fn every_edge_of_a_reply_is_classified() {
    const MAX: u64 = u64::MAX;
    let mut values = 0;
    let mut faults = 0;
    for kind in [0u8, 1, 4, 6, 8, 9, 255] {
        for failed in [false, true] {
            for arrays in [0u8, 1, 2, 255] {
                for len in [0u32, 4, 6, 12, 13, u32::MAX] {
                    for spilled in [false, true] {
                        for grant in [0u32, 1, u32::MAX] {
                            for view in [
                                (0u64, 64u64),
                                (64, 64),
                                (0, MAX),
                                (MAX, 1),
                                (1 << 20, 64),
                                (8, 56),
                            ] {
                                let (shared, mut consumers) = fixture(1, 1);
                                let block = shared.arena.grant(1, 4096, false).unwrap();
                                let at = block.extent().at.offset();
                                shared.lock().lanes[0].grant(block).unwrap();
                                let id = shared.submit(
                                    &kernel(),
                                    &mut ArgWriter::new(shared.arena.id()),
                                    Owner::Handle,
                                    None,
                                );
                                assert_eq!(consumers[0].next(), Next::Run);
                                let whole = 1 << 48 | at;
                                let words = [
                                    whole,
                                    64,
                                    whole.wrapping_add(view.0),
                                    view.1,
                                    1,
                                    view.1,
                                    0,
                                    0,
                                    0,
                                    0,
                                    0,
                                    0,
                                ];
                                assert!(words.len() >= SENT_WORDS);
                                let answer = OutgoingReply {
                                    kind,
                                    arrays: arrays.into(),
                                    retained: 0,
                                    spilled,
                                    len,
                                    grant: grant.into(),
                                    cursor: at + 64,
                                    words: &words,
                                };
                                consumers[0].finish(failed, 1, Some(&answer));
                                let answer = shared.wait_timeout(
                                    id,
                                    <Array<u8> as Reply>::receive,
                                    Duration::ZERO,
                                );
                                match answer {
                                    Some(Ok(bytes)) => {
                                        assert_eq!((kind, failed, arrays), (kind::VALUE, false, 1));
                                        assert!(bytes.len() <= 64 && bytes.iter().all(|&x| x == 0));
                                        values += 1;
                                    }
                                    // A truncated text is a valid text, and any numbers are those of a full arena.
                                    // Anything else that is no value costs the worker.
                                    Some(Err(error)) => assert!(
                                        failed
                                            && [kind::RETURNED, kind::ARENA_FULL].contains(&kind)
                                            || shared.lock().workers[0].status() == Status::Leaving,
                                        "{error}"
                                    ),
                                    None => {
                                        faults += 1;
                                        assert_eq!(
                                            shared.lock().workers[0].status(),
                                            Status::Leaving
                                        );
                                    }
                                }
                                die(&shared, 0);
                                if let Some(late) = shared.lock().records.live().checked_sub(1) {
                                    assert_eq!(late, 0);
                                }
                            }
                        }
                    }
                }
            }
        }
    }
    assert!(
        values > 0 && faults > 1000,
        "{values} values, {faults} faults"
    );
}
