//! Words of a link that mean harm: whatever a worker writes into its half, at whatever moment, the supervisor does not
//! panic, does not read out of range, answers each job once, and kills for what cannot be true.
//!
//! [`attack`] plays any bytes as such a worker. It is what a fuzzer would call; here it runs a corpus of files and a long
//! stretch of seeded numbers.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;
use std::sync::atomic::AtomicBool;

use super::core::Core;
use super::monitor::Monitor;
use super::tests::{die, fixture, in_time, kernel};
use super::worker::Status;
use super::*;
use crate::arena::Placement;
use crate::array::Array;
use crate::kernel::wire::{Lease, SENT_WORDS};
use crate::kernel::{BadReply, Receiving, Reply};
use crate::link::{Answering, INLINE_WORDS, Next, Taker, kind};
use crate::sync::{AtomicU32, AtomicU64};
use crate::sys::process::Exit;

const LANES: u16 = 2;

/// Numbers that a worker may write: edges, neighbours of the truth, and anything.
fn lie(script: &mut Script<'_>, truth: u64) -> u64 {
    let pick = script.byte();
    let any = script.long();
    match pick % 10 {
        0 => 0,
        1 => u64::MAX,
        2 => truth.wrapping_add(1),
        3 => truth.wrapping_sub(1),
        4 => u64::from(u32::MAX),
        5 => 1 << (any % 64),
        6 => truth ^ 1 << (any % 64),
        7 => any % 300,
        8 => any % (1 << 20) * 64,
        _ => any,
    }
}

/// Bytes as instructions; zeros when they are used up.
struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn byte(&mut self) -> u8 {
        self.0.split_off_first().copied().unwrap_or(0)
    }

    fn long(&mut self) -> u64 {
        let mut bytes = [0; 8];
        bytes.fill_with(|| self.byte());
        u64::from_le_bytes(bytes)
    }
}

/// What a job is expected to answer with.
#[derive(Clone, Copy)]
enum Wants {
    Nothing,
    Number,
    Flag,
    Text,
    Bytes,
}

struct Attack {
    shared: Arc<Shared>,
    monitor: Monitor,
    takers: Vec<Taker>,
    running: Vec<bool>,
    jobs: Vec<(JobId, Wants)>,
    submitted: usize,
    answered: usize,
    given_up: usize,
    deaths: usize,
}

impl Attack {
    fn new() -> Self {
        let (shared, takers) = fixture(LANES, LANES.into());
        Self {
            monitor: Monitor::idle(Arc::clone(&shared)),
            shared,
            takers,
            running: vec![false; LANES.into()],
            jobs: Vec::new(),
            submitted: 0,
            answered: 0,
            given_up: 0,
            deaths: 0,
        }
    }

    fn step(&mut self, script: &mut Script<'_>) {
        let what = script.byte();
        let lane = usize::from(script.byte() % LANES as u8);
        match what % 16 {
            0..=2 => self.submit(script),
            3 | 4 => self.work(lane, script),
            5 => self.take_memory(lane),
            6..=11 => self.spoil(lane, script),
            12 => {
                self.shared.stats();
            }
            13 => self.look(script),
            14 => {
                self.monitor.serve();
            }
            _ => self.give_up(script),
        }
        self.bury();
    }

    fn submit(&mut self, script: &mut Script<'_>) {
        // A slot's worth of jobs and some that wait is plenty.
        if self.jobs.len() > 600 {
            return;
        }
        let mut call = ArgWriter::new(self.shared.arena.id());
        let pick = script.byte();
        if pick & 8 != 0 {
            let block = self.shared.arena.alloc(0, 1000, Placement::Packed);
            let Ok(block) = block else { return };
            call.word(bytemuck::cast(block.extent().at));
            call.leases.push(Lease::Shared(Arc::new(block)));
        }
        (0..pick / 16).for_each(|word| call.word(word.into()));
        let wants = match pick % 5 {
            0 => Wants::Nothing,
            1 => Wants::Number,
            2 => Wants::Flag,
            3 => Wants::Text,
            _ => Wants::Bytes,
        };
        let id = self.shared.submit(&kernel(), &mut call, 0, None);
        self.jobs.push((id, wants));
        self.submitted += 1;
    }

    /// The worker goes on with its job or begins one, and may answer with whatever it likes.
    fn work(&mut self, lane: usize, script: &mut Script<'_>) {
        let taker = &mut self.takers[lane];
        if !self.running[lane] {
            self.running[lane] = taker.next() == Next::Run;
            return;
        }
        self.running[lane] = false;
        let pick = script.byte();
        if pick.is_multiple_of(4) {
            taker.finish(pick & 8 != 0, 10, None);
            return;
        }
        let granted = self.shared.lock().lanes[lane].grants_held().next();
        let (at, held) = granted.unwrap_or((4096, 4096));
        let first = self.shared.lock().lanes[lane]
            .poster
            .granted()
            .wrapping_sub(1);
        let region = u64::from(self.shared.lock().lanes[lane].region) << 48;
        // The truth about one array at the beginning of the first grant, each number of which may be a lie.
        let arrays = u64::from(pick % 3);
        let mut words = Vec::new();
        for _ in 0..arrays {
            words.extend([region | at, 64, region | at, 64]);
        }
        words.extend([1, 64]);
        let len = words.len() as u64;
        words.resize(INLINE_WORDS, 7);
        for word in &mut words {
            if script.byte().is_multiple_of(8) {
                *word = lie(script, *word);
            }
        }
        let mut tell = |truth: u64| match script.byte().is_multiple_of(8) {
            true => lie(script, truth),
            false => truth,
        };
        let spilled = pick & 16 != 0;
        let (head, tail) = ([region | at, len * 8], [0; 10]);
        let words = if spilled {
            [&head[..], &tail[..]].concat()
        } else {
            words
        };
        let words: Vec<u64> = words.into_iter().take(INLINE_WORDS).collect();
        let answer = Answering {
            kind: tell(kind::VALUE.into()) as u8,
            arrays: tell(arrays) as u16,
            spilled,
            len: tell(len) as u32,
            grant: tell(first.into()) as u32,
            cursor: tell(at + held.min(64)),
            words: &words,
        };
        taker.finish(pick & 8 != 0, tell(10) as u32, Some(&answer));
    }

    fn take_memory(&mut self, lane: usize) {
        let taker = &mut self.takers[lane];
        if taker.next_grant().is_none() {
            taker.want(5000, 0);
        }
    }

    /// Any word of the half becomes anything.
    fn spoil(&mut self, lane: usize, script: &mut Script<'_>) {
        let pick = script.byte();
        let slot = usize::from(script.byte());
        // Most of the time where the supervisor looks next.
        let next = self.shared.lock().lanes[lane].poster.open_positions().start as usize;
        let slot = if slot < 160 { next % SLOTS } else { slot };
        let word = usize::from(script.byte());
        let reply = self.shared.cells[lane].reply();
        let short = |cell: &AtomicU32, script: &mut Script<'_>| {
            let truth = cell.load(Ordering::Relaxed);
            cell.store(lie(script, truth.into()) as u32, Ordering::Relaxed);
        };
        let long = |cell: &AtomicU64, script: &mut Script<'_>| {
            let truth = cell.load(Ordering::Relaxed);
            cell.store(lie(script, truth), Ordering::Relaxed);
        };
        let answer = &reply.replies[slot];
        let notes = &reply.recorder;
        match pick % 11 {
            0..=2 => short(reply.states[slot].state.place_to_sleep(), script),
            3 if word % 2 == 0 => short(&reply.states[slot].took, script),
            3 => long(&reply.states[slot].word, script),
            4 => short(&reply.asleep, script),
            5 => short(&reply.wants, script),
            6 => long(&reply.want_bytes, script),
            7 => short(&reply.taken, script),
            8 => long(
                [&answer.head, &answer.grant, &answer.cursor, &answer.spare][word % 4],
                script,
            ),
            9 => match word % 3 {
                0 => long(&notes.now, script),
                1 => long(&notes.written, script),
                _ => long(&notes.words[slot % notes.words.len()], script),
            },
            _ => long(&answer.words[word % INLINE_WORDS], script),
        }
    }

    fn look(&mut self, script: &mut Script<'_>) {
        if self.jobs.is_empty() {
            return;
        }
        let (id, wants) = self.jobs[usize::from(script.byte()) % self.jobs.len()];
        if self.answer(id, wants) {
            self.jobs.retain(|(other, _)| *other != id);
        }
    }

    /// Takes the answer if there is one; a value must be one.
    fn answer(&mut self, id: JobId, wants: Wants) -> bool {
        fn take<R>(
            shared: &Shared,
            id: JobId,
            read: fn(&mut Receiving<'_>) -> Result<R, BadReply>,
        ) -> Option<bool> {
            shared
                .wait(id, read, Some(Duration::ZERO))
                .map(|answer| answer.is_ok())
        }
        let shared = &self.shared;
        let answer = match wants {
            Wants::Nothing => take(shared, id, <() as Reply>::receive),
            Wants::Number => take(shared, id, <u64 as Reply>::receive),
            Wants::Flag => take(shared, id, <bool as Reply>::receive),
            Wants::Text => take(shared, id, <String as Reply>::receive),
            Wants::Bytes => {
                let answer = shared.wait(id, <Array<u8> as Reply>::receive, Some(Duration::ZERO));
                // Every byte of it can be read.
                answer.map(|answer| {
                    answer.is_ok_and(|bytes| {
                        bytes.iter().map(|&x| u64::from(x)).sum::<u64>() < u64::MAX
                    })
                })
            }
        };
        self.answered += usize::from(answer.is_some());
        answer.is_some()
    }

    fn give_up(&mut self, script: &mut Script<'_>) {
        let pick = usize::from(script.byte());
        if self.jobs.is_empty() {
            return;
        }
        let at = pick % self.jobs.len();
        if pick % 4 == 0 {
            let (id, _) = self.jobs.swap_remove(at);
            self.shared.abandon(id);
            self.given_up += 1;
        } else {
            self.shared.cancel(self.jobs[at].0);
        }
    }

    /// Condemned workers are gone at once here, and new ones begin.
    fn bury(&mut self) {
        for lane in 0..LANES.into() {
            if self.shared.lock().workers[lane].status() == Status::Leaving {
                self.die(lane);
            }
        }
    }

    fn die(&mut self, lane: usize) {
        self.monitor.bury(lane, Exit::Signal(6));
        self.deaths += 1;
        self.running[lane] = false;
        let mut core = self.shared.lock();
        let it = &core.lanes[lane];
        let (tail, granted) = (it.poster.tail(), it.poster.granted());
        self.takers[lane] = Taker::new(Arc::clone(&self.shared.cells[lane]), tail, granted);
        core.next_life(lane);
        core.set_status(lane, Status::Ready);
        core.refill();
    }

    /// Everything comes to its end: each job is answered once, and no memory is left.
    fn end(mut self) -> usize {
        for lane in 0..LANES.into() {
            self.die(lane);
        }
        self.shared.lock().closing = Closing::Now;
        for lane in 0..LANES.into() {
            self.monitor.bury(lane, Exit::Signal(6));
        }
        let mut core = self.shared.lock();
        Core::end(&mut core);
        assert_eq!((core.open, core.queue.len()), (0, 0));
        drop(core);
        for (id, wants) in std::mem::take(&mut self.jobs) {
            assert!(self.answer(id, wants), "a job without an answer");
        }
        assert_eq!(self.answered + self.given_up, self.submitted);
        let mut core = self.shared.lock();
        assert_eq!(core.records.live(), 0);
        for lane in &mut core.lanes {
            assert_eq!(lane.backlog_ns, 0);
            lane.revoke();
        }
        drop(core);
        let stats = self.shared.arena.stats();
        assert_eq!((stats.in_use, stats.blocks), (0, 0), "{stats:?}");
        self.deaths
    }
}

/// Plays bytes as a hostile worker; how many steps it took, and how many workers they cost.
fn attack(bytes: &[u8]) -> (usize, usize) {
    let mut attack = Attack::new();
    let mut script = Script(bytes);
    let mut steps = 0;
    while !script.0.is_empty() {
        attack.step(&mut script);
        steps += 1;
    }
    (steps, attack.end())
}

/// Numbers that can be made again.
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

#[test]
fn a_stretch_of_seeded_attacks() {
    let mut deaths = 0;
    let mut steps = 0;
    for seed in 0..200 {
        let bytes = script(seed, 6800);
        let (taken, lost) =
            std::panic::catch_unwind(|| attack(&bytes)).unwrap_or_else(|_| panic!("seed {seed}"));
        steps += taken;
        deaths += lost;
    }
    assert!(
        steps > 100_000 && deaths > 2000,
        "{steps} steps, {deaths} lies noticed"
    );
}

#[test]
fn the_corpus() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus/link_words");
    let mut files = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        attack(&std::fs::read(&path).unwrap());
        files += 1;
    }
    assert!(files >= 8, "{} has {files} files", folder.display());
}

/// A worker that changes its words while they are looked at.
#[test]
fn words_that_change_between_two_reads() {
    in_time(|| {
        for seed in 0..30 {
            let mut attack = Attack::new();
            let stop = AtomicBool::new(false);
            let cells: Vec<_> = attack.shared.cells.clone();
            std::thread::scope(|threads| {
                threads.spawn(|| {
                    let mut next = seeded(seed ^ 0xffff);
                    while !stop.load(Ordering::Relaxed) {
                        let (lane, slot) = (next() as usize % cells.len(), next() as usize % 8);
                        let reply = cells[lane].reply();
                        let word = reply.states[slot].state.place_to_sleep();
                        word.fetch_xor(1 << (next() % 9), Ordering::Relaxed);
                        reply.replies[slot]
                            .head
                            .fetch_xor(1 << (next() % 40), Ordering::Relaxed);
                        reply.replies[slot]
                            .cursor
                            .fetch_xor(1 << (next() % 20), Ordering::Relaxed);
                        reply.taken.fetch_add(1, Ordering::Relaxed);
                        reply.wants.fetch_add(1, Ordering::Relaxed);
                        reply
                            .want_bytes
                            .store(next() % (1 << 23), Ordering::Relaxed);
                    }
                });
                let bytes = script(seed, 3000);
                let mut script = Script(&bytes);
                while !script.0.is_empty() {
                    attack.step(&mut script);
                }
                stop.store(true, Ordering::Relaxed);
            });
            attack.end();
        }
    });
}

/// Each state word that can be written for a job that was posted: what cannot follow is a fault, what can is not.
#[test]
fn every_state_word_is_judged() {
    const GENERATION: u32 = 8;
    for phase in 0..8u32 {
        for bits in 0..32u32 {
            for lap in [0u32, 1, 2, 1 << 23, (1 << 24) - 1] {
                let (shared, _takers) = fixture(1, 1);
                let id = shared.submit(&kernel(), &mut ArgWriter::new(shared.arena.id()), 0, None);
                let word = phase | bits << 3 | lap << GENERATION;
                shared.cells[0]
                    .state(0)
                    .place_to_sleep()
                    .store(word, Ordering::Relaxed);
                shared.stats();
                let condemned = shared.lock().workers[0].status() == Status::Leaving;
                // Nobody took this job back, so nobody can have passed over it; 0 and 7 are no phases.
                let cannot_be = lap != 0 || matches!(phase, 0 | 6 | 7);
                // The zeros of the slot are no failure, and a value only if they are not looked at.
                let (bare, lone) = (bits & 8 != 0, bits & 16 != 0);
                let cannot_be = cannot_be || phase == 4 || phase == 3 && !bare && !lone;
                assert_eq!(condemned, cannot_be, "{word:#x}");
                let answer = shared.wait(id, <() as Reply>::receive, Some(Duration::ZERO));
                assert_eq!(
                    answer.is_some(),
                    phase == 3 && (bare || lone) && lap == 0,
                    "{word:#x}"
                );
                if condemned {
                    die(&shared, 0);
                    let answer = shared.wait(id, <() as Reply>::receive, Some(Duration::ZERO));
                    let error = answer.unwrap().unwrap_err();
                    assert!(
                        matches!(error.kind(), JobErrorKind::Protocol(_)),
                        "{word:#x}: {error}"
                    );
                }
            }
        }
    }
}

/// Each reply that the edges of its numbers give, for a job that returns bytes: a value within the grant, or a fault.
#[test]
fn every_edge_of_a_reply_is_judged() {
    const MAX: u64 = u64::MAX;
    let mut values = 0;
    let mut faults = 0;
    for kind in [0u8, 1, 4, 6, 255] {
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
                                let (shared, mut takers) = fixture(1, 1);
                                let block = shared.arena.grant(1, 4096, false).unwrap();
                                let at = block.extent().at.offset();
                                shared.lock().lanes[0].grant(block).unwrap();
                                let id = shared.submit(
                                    &kernel(),
                                    &mut ArgWriter::new(shared.arena.id()),
                                    0,
                                    None,
                                );
                                assert_eq!(takers[0].next(), Next::Run);
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
                                let answer = Answering {
                                    kind,
                                    arrays: arrays.into(),
                                    spilled,
                                    len,
                                    grant,
                                    cursor: at + 64,
                                    words: &words,
                                };
                                takers[0].finish(failed, 1, Some(&answer));
                                let answer = shared.wait(
                                    id,
                                    <Array<u8> as Reply>::receive,
                                    Some(Duration::ZERO),
                                );
                                match answer {
                                    Some(Ok(bytes)) => {
                                        assert_eq!((kind, failed, arrays), (kind::VALUE, false, 1));
                                        assert!(bytes.len() <= 64 && bytes.iter().all(|&x| x == 0));
                                        values += 1;
                                    }
                                    // Texts that are cut are texts, and any numbers are those of a full arena;
                                    // whatever else is no value costs the worker.
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
