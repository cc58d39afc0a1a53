//! Hostile words in a link. Whatever a worker writes into its half, at any moment, the supervisor does not panic, does
//! not read out of range, answers each job once, and kills the worker for what cannot be true.
//!
//! [`link_words`] interprets any bytes as such a worker. A fuzzer calls it, with the feature `points`, and so does
//! `tests/fuzz` with a corpus of files; the tests beside it run a long sequence of seeded numbers.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::fixture::{fixture, kernel};
use super::monitor::Monitor;
use super::state::EngineState;
use super::worker::Status;
use super::*;
use crate::arena::{BlockPlacement, Extent};
use crate::array::Array;
use crate::kernel::wire::{ArgWriter, Lease};
use crate::kernel::{BadReply, Bytes, Receiving, Reply};
use crate::link::{Consumer, INLINE_WORDS, Next, OutgoingReply, SLOTS, kind};
use crate::sync::{AtomicU32, AtomicU64};
use crate::sys::process::Exit;

const LANES: u16 = 2;

/// Interprets bytes as the actions of a hostile worker. Panics if the supervisor violates a guarantee.
pub fn link_words(bytes: &[u8]) -> AttackStats {
    let mut attack = Attack::new();
    let mut script = Script::of(bytes);
    let mut steps = 0;
    while !script.is_over() {
        attack.step(&mut script);
        steps += 1;
    }
    AttackStats {
        steps,
        forged: script.forged,
        deaths: attack.end(),
    }
}

/// Statistics of an attack.
#[derive(Clone, Copy, Debug, Default)]
pub struct AttackStats {
    /// Actions of worker and supervisor.
    pub steps: usize,
    /// Numbers that the worker wrote in place of the true ones.
    pub forged: usize,
    /// Workers that were killed, beside those that ended with the attack.
    pub deaths: usize,
}

impl std::ops::AddAssign for AttackStats {
    fn add_assign(&mut self, other: Self) {
        self.steps += other.steps;
        self.forged += other.forged;
        self.deaths += other.deaths;
    }
}

/// Bytes as instructions; zeros when they are used up.
struct Script<'a> {
    bytes: &'a [u8],
    forged: usize,
}

impl<'a> Script<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        Self { bytes, forged: 0 }
    }

    fn is_over(&self) -> bool {
        self.bytes.is_empty()
    }

    fn byte(&mut self) -> u8 {
        self.bytes.split_off_first().copied().unwrap_or(0)
    }

    fn long(&mut self) -> u64 {
        let mut bytes = [0; 8];
        bytes.fill_with(|| self.byte());
        u64::from_le_bytes(bytes)
    }

    /// A value of `bits` bits that a worker may write in place of the true one: edges, neighbours of the true value,
    /// and random values.
    fn forge(&mut self, correct: u64, bits: u32) -> u64 {
        let pick = self.byte();
        let any = self.long();
        let value = match pick % 10 {
            0 => 0,
            1 => u64::MAX,
            2 => correct.wrapping_add(1),
            3 => correct.wrapping_sub(1),
            4 => u64::from(u32::MAX),
            5 => 1 << (any % 64),
            6 => correct ^ 1 << (any % 64),
            7 => any % 300,
            8 => any % (1 << 20) * 64,
            _ => any,
        };
        // A random value may be the true one.
        self.forged += usize::from((value ^ correct) << (64 - bits) != 0);
        value
    }
}

/// The type that a job is expected to return.
#[derive(Clone, Copy)]
enum Expected {
    Nothing,
    Number,
    Flag,
    Text,
    Bytes,
    Run,
    List,
}

struct Attack {
    shared: Arc<Supervisor>,
    monitor: Monitor,
    consumers: Vec<Consumer>,
    running: Vec<bool>,
    jobs: Vec<(JobId, Expected)>,
    /// Current group of jobs that are cancelled together, and its number of jobs.
    group: (Group, usize),
    submitted: usize,
    answered: usize,
    given_up: usize,
    deaths: usize,
}

impl Attack {
    fn new() -> Self {
        let (shared, consumers) = fixture(LANES, LANES.into());
        shared.lock().config.retains = true;
        Self {
            group: (shared.new_group(false), 0),
            monitor: Monitor::idle(Arc::clone(&shared)),
            shared,
            consumers,
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
            5 => self.use_grant(lane),
            6..=11 => self.overwrite(lane, script),
            12 if what < 128 => {
                self.shared.stats();
            }
            12 => self.die(lane),
            13 => self.look(script),
            14 => {
                self.monitor.serve();
            }
            _ => self.give_up(script),
        }
        self.replace_condemned();
    }

    fn submit(&mut self, script: &mut Script<'_>) {
        // As many jobs as slots, and some that wait.
        if self.jobs.len() > 600 {
            return;
        }
        let mut call = ArgWriter::new(self.shared.arena.id());
        let pick = script.byte();
        if pick & 8 != 0 {
            let block = self.shared.arena.alloc(0, 1000, BlockPlacement::Packed);
            let Ok(block) = block else { return };
            call.word(bytemuck::cast(block.extent().at));
            let block = Arc::new(block);
            call.leases.push(match pick & 16 {
                0 => Lease::Shared(block),
                _ => Lease::Loan {
                    extent: Extent {
                        len: 64,
                        ..block.extent()
                    },
                    block,
                },
            });
        }
        (0..pick / 16).for_each(|word| call.word(word.into()));
        let expected = match pick % 7 {
            0 => Expected::Nothing,
            1 => Expected::Number,
            2 => Expected::Flag,
            3 => Expected::Text,
            4 => Expected::Run,
            5 => Expected::List,
            _ => Expected::Bytes,
        };
        let owner = if pick.is_multiple_of(3) {
            Owner::scope(self.group())
        } else {
            Owner::Handle
        };
        let id = self.shared.submit(&kernel(), &mut call, owner, None);
        self.jobs.push((id, expected));
        self.submitted += 1;
    }

    /// A few jobs each, so that most groups have not failed yet.
    fn group(&mut self) -> Group {
        let (group, jobs) = &mut self.group;
        *jobs += 1;
        if jobs.is_multiple_of(8) {
            *group = self.shared.new_group(false);
        }
        *group
    }

    /// The worker continues its job or begins one, and may answer with anything.
    fn work(&mut self, lane: usize, script: &mut Script<'_>) {
        let consumer = &mut self.consumers[lane];
        if !self.running[lane] {
            self.running[lane] = consumer.next() == Next::Run;
            return;
        }
        self.running[lane] = false;
        let pick = script.byte();
        if pick.is_multiple_of(4) {
            consumer.finish(pick & 8 != 0, 10, None);
            return;
        }
        let granted = self.shared.lock().lanes[lane].grants().blocks().next();
        let (at, held) = granted.unwrap_or((4096, 4096));
        let first = self.shared.lock().lanes[lane]
            .producer
            .granted()
            .wrapping_sub(1);
        let region = u64::from(self.shared.lock().lanes[lane].region()) << 48;
        // True values about one array at the beginning of the first grant. Each number may be forged.
        let arrays = u64::from(pick % 3);
        let mut words = Vec::new();
        for _ in 0..arrays {
            words.extend([region | at, 64, region | at, 64]);
        }
        // The same array again, for the lane to retain.
        let retained = u64::from((pick / 3).is_multiple_of(3));
        for _ in 0..retained {
            words.extend([region | at, 64]);
        }
        words.extend([1, 64]);
        let len = words.len() as u64;
        words.resize(INLINE_WORDS, 7);
        for word in &mut words {
            if script.byte().is_multiple_of(8) {
                *word = script.forge(*word, 64);
            }
        }
        let mut maybe_forged = |correct: u64, bits| match script.byte().is_multiple_of(8) {
            true => script.forge(correct, bits),
            false => correct,
        };
        let spilled = pick & 16 != 0;
        let (head, tail) = ([region | at, len * 8], [0; 10]);
        let words = if spilled {
            [&head[..], &tail[..]].concat()
        } else {
            words
        };
        let words: Vec<u64> = words.into_iter().take(INLINE_WORDS).collect();
        let answer = OutgoingReply {
            kind: maybe_forged(kind::VALUE.into(), 8) as u8,
            arrays: maybe_forged(arrays, 16) as u16,
            retained: maybe_forged(retained, 32) as u32,
            spilled,
            len: maybe_forged(len, 32) as u32,
            grant: maybe_forged(first.into(), 64),
            cursor: maybe_forged(at + held.min(64), 64),
            words: &words,
        };
        consumer.finish(pick & 8 != 0, maybe_forged(10, 64), Some(&answer));
    }

    fn use_grant(&mut self, lane: usize) {
        let consumer = &mut self.consumers[lane];
        if consumer.next_grant().is_none() {
            consumer.request_alloc(5000, 0);
        }
    }

    /// Overwrites any word of the worker's half with anything.
    fn overwrite(&mut self, lane: usize, script: &mut Script<'_>) {
        let pick = script.byte();
        let slot = usize::from(script.byte());
        // Mostly where the supervisor looks next.
        let next = self.shared.lock().lanes[lane]
            .producer
            .open_positions()
            .start as usize;
        let slot = if slot < 160 { next % SLOTS } else { slot };
        let word = usize::from(script.byte());
        let reply = self.shared.cells[lane].reply();
        let short = |cell: &AtomicU32, script: &mut Script<'_>| {
            let correct = cell.load(Ordering::Relaxed);
            cell.store(script.forge(correct.into(), 32) as u32, Ordering::Relaxed);
        };
        let long = |cell: &AtomicU64, script: &mut Script<'_>| {
            let correct = cell.load(Ordering::Relaxed);
            cell.store(script.forge(correct, 64), Ordering::Relaxed);
        };
        let answer = &reply.replies[slot];
        let notes = &reply.recorder;
        match pick % 13 {
            0..=2 => short(reply.states[slot].state.as_futex(), script),
            3 if word % 2 == 0 => short(&reply.states[slot].took, script),
            3 => long(&reply.states[slot].word, script),
            4 => short(&reply.asleep, script),
            5 => short(&reply.alloc_requests, script),
            6 => long(&reply.alloc_bytes, script),
            7 => short(&reply.grants_taken, script),
            8 => long(
                [
                    &answer.head,
                    &answer.grant,
                    &answer.cursor,
                    &answer.retained,
                ][word % 4],
                script,
            ),
            9 => match word % 3 {
                0 => long(&notes.now, script),
                1 => long(&notes.written, script),
                _ => long(&notes.words[slot % notes.words.len()], script),
            },
            10 => long(&answer.words[word % INLINE_WORDS], script),
            11 => short(&reply.released, script),
            _ => long(&reply.releases[word % reply.releases.len()], script),
        }
    }

    fn look(&mut self, script: &mut Script<'_>) {
        if self.jobs.is_empty() {
            return;
        }
        let (id, expected) = self.jobs[usize::from(script.byte()) % self.jobs.len()];
        if self.answer(id, expected) {
            self.jobs.retain(|(other, _)| *other != id);
        }
    }

    /// Takes the answer if there is one. A value must be valid.
    fn answer(&mut self, id: JobId, expected: Expected) -> bool {
        fn take<R>(
            shared: &Supervisor,
            id: JobId,
            read: fn(&mut Receiving<'_>) -> Result<R, BadReply>,
        ) -> Option<bool> {
            shared
                .wait_timeout(id, read, Duration::ZERO)
                .map(|answer| answer.is_ok())
        }
        let shared = &self.shared;
        let answer = match expected {
            Expected::Nothing => take(shared, id, <() as Reply>::receive),
            Expected::Number => take(shared, id, <u64 as Reply>::receive),
            Expected::Flag => take(shared, id, <bool as Reply>::receive),
            Expected::Text => take(shared, id, <String as Reply>::receive),
            Expected::Run => take(shared, id, <Bytes as Reply>::receive),
            Expected::List => take(shared, id, <(Bytes, Vec<Array<u8>>) as Reply>::receive),
            Expected::Bytes => {
                let answer = shared.wait_timeout(id, <Array<u8> as Reply>::receive, Duration::ZERO);
                // Every byte can be read.
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
        // Jobs of a group are never abandoned.
        let is_single =
            self.shared.lock().records.look(self.jobs[at].0.index).owner == Owner::Handle;
        if pick % 4 == 0 && is_single {
            let (id, _) = self.jobs.swap_remove(at);
            self.shared.abandon(id);
            self.given_up += 1;
        } else {
            self.shared.cancel(self.jobs[at].0);
        }
    }

    /// Ends condemned workers at once, and starts new ones.
    fn replace_condemned(&mut self) {
        for lane in 0..LANES.into() {
            if self.shared.lock().workers[lane].status() == Status::Leaving {
                self.die(lane);
            }
        }
    }

    fn die(&mut self, lane: usize) {
        self.monitor.recover_for_test(lane, Exit::Signal(6));
        self.deaths += 1;
        self.running[lane] = false;
        let mut state = self.shared.lock();
        let it = &state.lanes[lane];
        let (tail, granted) = (it.producer.tail(), it.producer.granted());
        self.consumers[lane] = Consumer::new(Arc::clone(&self.shared.cells[lane]), tail, granted);
        state.next_generation(lane);
        state.set_status(lane, Status::Ready);
        state.refill();
    }

    /// Correct workers replace the hostile ones: every job is answered.
    fn work_correctly(&mut self) {
        // Each invalid answer costs a worker, and nothing else does.
        for _ in 0..2 * self.jobs.len() + SLOTS {
            for lane in 0..usize::from(LANES) {
                let consumer = &mut self.consumers[lane];
                while std::mem::take(&mut self.running[lane]) || consumer.next() == Next::Run {
                    consumer.finish(false, 10, None);
                }
            }
            self.monitor.serve();
            for (id, expected) in std::mem::take(&mut self.jobs) {
                if !self.answer(id, expected) {
                    self.jobs.push((id, expected));
                }
            }
            self.replace_condemned();
            if self.jobs.is_empty() {
                return;
            }
        }
        panic!("{} jobs have no worker", self.jobs.len());
    }

    /// Ends the attack: each job has been answered once, and no memory is left. Returns the number of workers that were
    /// killed before.
    fn end(mut self) -> usize {
        let deaths = self.deaths;
        for lane in 0..LANES.into() {
            self.die(lane);
        }
        if self.submitted.is_multiple_of(2) {
            self.work_correctly();
        }
        let mut state = self.shared.lock();
        state.lifecycle.close(Closing::Now, None);
        drop(state);
        for lane in 0..LANES.into() {
            self.monitor.recover_for_test(lane, Exit::Signal(6));
        }
        let mut state = self.shared.lock();
        EngineState::end(&mut state);
        assert_eq!((state.lanes.open(), state.queue.len()), (0, 0));
        drop(state);
        for (id, expected) in std::mem::take(&mut self.jobs) {
            assert!(self.answer(id, expected), "a job without an answer");
        }
        assert_eq!(self.answered + self.given_up, self.submitted);
        let mut state = self.shared.lock();
        assert_eq!(state.records.live(), 0);
        let arena = &self.shared.arena;
        for lane in state.lanes.iter_mut() {
            assert_eq!(lane.backlog_ns(), 0);
            lane.revoke(arena);
        }
        drop(state);
        let stats = self.shared.arena.stats();
        assert_eq!((stats.in_use, stats.blocks), (0, 0), "{stats:?}");
        deaths
    }
}
