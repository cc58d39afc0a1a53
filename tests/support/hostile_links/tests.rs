#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::panic::{AssertUnwindSafe, catch_unwind};

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

fn assert_protocol(error: &JobError, what: &str) {
    let is_protocol = matches!(error.kind(), JobErrorKind::Lost(WorkerExit::Protocol(_)));
    assert!(is_protocol, "{what}: {error}");
}

/// Each value of the state word of a posted job: an impossible one is a fault, a possible one is not.
#[test]
fn every_state_word_is_classified() {
    const GENERATION: u32 = 8;
    for phase in 0..8u32 {
        for bits in 0..32u32 {
            for lap in [0u32, 1, 2, 1 << 23, (1 << 24) - 1] {
                let (shared, _consumers) = fixture(1, 1);
                let mut call = ArgWriter::new(shared.arena.id());
                let id = shared.submit(&kernel(), &mut call, Owner::Handle, None);
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
                let is_answered = phase == 3 && (bare || lone) && lap == 0;
                assert_eq!(answer.is_some(), is_answered, "{word:#x}");
                if condemned {
                    die(&shared, 0);
                    let answer = shared.wait_timeout(id, <() as Reply>::receive, Duration::ZERO);
                    let error = answer.unwrap().unwrap_err();
                    assert_protocol(&error, &format!("{word:#x}"));
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
        assert_protocol(&error, form);
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
    const VIEWS: [(u64, u64); 6] = [
        (0, 64),
        (64, 64),
        (0, MAX),
        (MAX, 1),
        (1 << 20, 64),
        (8, 56),
    ];
    let (mut values, mut faults) = (0, 0);
    for case in 0.. {
        // The digits of the case are the choices.
        let mut rest = case;
        let mut choice = |count: usize| {
            let at = rest % count;
            rest /= count;
            at
        };
        let kind = [0u8, 1, 4, 6, 8, 9, 255][choice(7)];
        let (failed, spilled) = (choice(2) == 1, choice(2) == 1);
        let arrays = [0u8, 1, 2, 255][choice(4)];
        let len = [0u32, 4, 6, 12, 13, u32::MAX][choice(6)];
        let grant = [0u32, 1, u32::MAX][choice(3)];
        let view = VIEWS[choice(VIEWS.len())];
        if rest > 0 {
            break;
        }
        let (shared, mut consumers) = fixture(1, 1);
        let block = shared.arena.grant(1, 4096, false).unwrap();
        let at = block.extent().at.offset();
        shared.lock().lanes[0].grant(block).unwrap();
        let mut call = ArgWriter::new(shared.arena.id());
        let id = shared.submit(&kernel(), &mut call, Owner::Handle, None);
        assert_eq!(consumers[0].next(), Next::Run);
        let whole = 1 << 48 | at;
        let mut words = [0; 12];
        words[..6].copy_from_slice(&[whole, 64, whole.wrapping_add(view.0), view.1, 1, view.1]);
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
        let answer = shared.wait_timeout(id, <Array<u8> as Reply>::receive, Duration::ZERO);
        let is_condemned = shared.lock().workers[0].status() == Status::Leaving;
        match answer {
            Some(Ok(bytes)) => {
                assert_eq!((kind, failed, arrays), (kind::VALUE, false, 1));
                assert!(bytes.len() <= 64 && bytes.iter().all(|&x| x == 0));
                values += 1;
            }
            // A truncated text is a valid text, and any numbers are those of a full arena. Anything else that is no
            // value costs the worker.
            Some(Err(error)) => {
                let may_be = failed && [kind::RETURNED, kind::ARENA_FULL].contains(&kind);
                assert!(may_be || is_condemned, "{error}");
            }
            None => {
                faults += 1;
                assert!(is_condemned);
            }
        }
        die(&shared, 0);
        if let Some(late) = shared.lock().records.live().checked_sub(1) {
            assert_eq!(late, 0);
        }
    }
    assert!(
        values > 0 && faults > 1000,
        "{values} values, {faults} faults"
    );
}
