//! Tests of the state with a worker that is a handle in this process, and the few that need a real one.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::admission::{Admission, LineTicket};
use super::fixture::{arena_for, settings};
pub(super) use super::fixture::{fixture, kernel, with_lanes};
use super::lane::{Lane, NO_RECORD};
use super::record::Stage;
use super::retained::RetainedArrays;
use super::state::EngineState;
use super::worker::Status;
use super::*;
use crate::arena::{Arena, Block, BlockPlacement, Extent, Offset};
use crate::kernel::wire::{ArgWriter, Lease, Leases, SentArray};
use crate::kernel::{KernelInfo, Reply, Single};
use crate::link::{Consumer, LinkCells, NO_GRANT, Next, OutgoingReply, Phase, kind, steps};

mod decoders;
mod errors;
mod memory;
mod model;
mod pending_batches;
mod placing;
mod policies;
mod records;
mod recovery;
mod replies;
mod retained;
mod spawned;
mod traces;
mod untraced;
mod wakers;
mod wrong_words;

crate::test_workers!();

const PAGE: u64 = 4096;

pub(super) fn arena(workers: u16) -> Arc<Arena> {
    arena_for(workers, 1)
}

fn lane() -> (Arc<Arena>, Lane) {
    let arena = arena(1);
    let cells = Arc::new(LinkCells::in_arena(&arena, 0));
    (arena, Lane::new(1, cells))
}

fn submit(shared: &Supervisor) -> JobId {
    submit_of(shared, Owner::Handle)
}

#[test]
fn code_of_a_shared_library_is_no_kernel() {
    let (shared, _) = fixture(1, 1);
    let info = kernel().of_a_library();
    let job = shared.submit(
        &info,
        &mut ArgWriter::new(shared.arena.id()),
        Owner::Handle,
        None,
    );
    let answer = answer(&shared, job).unwrap();
    assert!(
        answer.contains(&JobErrorKind::Rejected(Rejection::ForeignKernel).to_string()),
        "{answer}"
    );
}

fn submit_in(shared: &Supervisor, group: Group) -> JobId {
    submit_of(shared, Owner::scope(group))
}

fn submit_of(shared: &Supervisor, owner: Owner) -> JobId {
    shared.submit(
        &kernel(),
        &mut ArgWriter::new(shared.arena.id()),
        owner,
        None,
    )
}

/// Submits a job once it is admitted.
fn poll_enter(shared: &Supervisor, line: &mut LineTicket) -> Poll<JobId> {
    let mut call = ArgWriter::new(shared.arena.id());
    let context = Context::from_waker(Waker::noop());
    shared.poll_submit(
        &kernel(),
        &mut call,
        Owner::Handle.into(),
        None,
        line,
        &context,
    )
}

/// A reply of one word.
pub(super) fn one_word(kind: u8, word: &[u64; 1]) -> OutgoingReply<'_> {
    OutgoingReply {
        kind,
        arrays: 0,
        retained: 0,
        spilled: false,
        len: 1,
        grant: NO_GRANT,
        cursor: 0,
        words: word,
    }
}

/// The answer as text. `None` if the job has no answer.
fn answer(shared: &Supervisor, id: JobId) -> Option<String> {
    let answer = shared.wait_timeout(id, <() as Reply>::receive, Duration::ZERO)?;
    Some(answer.map_or_else(|error| error.to_string(), |()| "value".into()))
}

pub(super) fn die(shared: &Supervisor, lane: usize) {
    die_of(shared, lane, 9);
}

pub(super) fn die_of(shared: &Supervisor, lane: usize, signal: i32) {
    let words = super::output::last_words::LastWords::default();
    shared.recover(
        lane,
        JobErrorKind::Lost(WorkerExit::Signal(signal)),
        None,
        words,
    );
}

/// Fails if `f` does not end.
pub(super) fn in_time<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let _ = sender.send(f());
    });
    match receiver.recv_timeout(Duration::from_secs(60)) {
        Ok(value) => {
            thread.join().unwrap();
            value
        }
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            std::panic::resume_unwind(thread.join().unwrap_err())
        }
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("it hangs"),
    }
}

// ---- the words of a worker are judged ----------------------------------------------------------

#[test]
fn skipping_a_job_that_was_not_taken_back_is_a_fault() {
    let (shared, consumers) = fixture(1, 1);
    let (first, second) = (submit(&shared), submit(&shared));
    // The worker claims to have skipped a job that was not taken back.
    write_word(&shared, 0, SKIPPED);
    assert!(answer(&shared, first).is_none());
    assert_eq!(shared.lock().workers[0].status(), Status::Leaving);
    drop(consumers);
    die(&shared, 0);
    let why = answer(&shared, first).unwrap();
    assert!(why.contains("skipped"), "{why}");
    answer(&shared, second).expect("it had not begun, but this worker's reports count for nothing");
    let state = shared.lock();
    assert_eq!((state.lanes.open(), state.records.live()), (0, 0));
}

#[test]
fn only_a_cancelled_job_may_answer_cancelled() {
    for asked in [true, false] {
        let (shared, mut consumers) = fixture(1, 1);
        let id = submit(&shared);
        assert_eq!(consumers[0].next(), Next::Run);
        if asked {
            shared.cancel(id);
        }
        consumers[0].finish(true, 1, Some(&one_word(kind::CANCELLED, &[0])));
        let answered = answer(&shared, id);
        assert_eq!(answered.is_some(), asked);
        if !asked {
            assert_eq!(shared.lock().workers[0].status(), Status::Leaving);
            die(&shared, 0);
        }
        let answered = answered.or_else(|| answer(&shared, id)).unwrap();
        assert_eq!(answered.contains("and it was not"), !asked, "{answered}");
        assert_eq!(answered.ends_with("cancelled"), asked, "{answered}");
    }
}

#[test]
fn jobs_lost_with_a_faulty_worker_name_the_fault() {
    let (shared, mut consumers) = fixture(1, 1);
    let [lie, runs, queued] = [(); 3].map(|()| submit(&shared));
    assert_eq!(consumers[0].next(), Next::Run);
    let _ = consumers[0].finish(false, 1, None);
    assert_eq!(consumers[0].next(), Next::Run);
    // The reply is empty, although the kernel returns a number.
    let value = shared.wait_timeout(lie, <u64 as Reply>::receive, Duration::ZERO);
    let error = value.unwrap().unwrap_err();
    assert!(
        matches!(error.kind(), JobErrorKind::Lost(WorkerExit::Protocol(_))),
        "{error}"
    );
    die(&shared, 0);
    for id in [runs, queued] {
        let why = answer(&shared, id).expect("it is not put back: it may have begun");
        assert!(why.contains("lost with its worker"), "{why}");
        assert!(why.contains("cannot have sent"), "{why}");
    }
    let state = shared.lock();
    assert_eq!((state.lanes.open(), state.records.live()), (0, 0));
}

#[test]
fn a_job_that_ended_before_its_worker_died_has_its_value() {
    let (shared, mut consumers) = fixture(1, 1);
    let id = submit(&shared);
    assert_eq!(consumers[0].next(), Next::Run);
    let answer = OutgoingReply {
        kind: kind::VALUE,
        arrays: 0,
        retained: 0,
        spilled: false,
        len: 1,
        grant: NO_GRANT,
        cursor: 0,
        words: &[42],
    };
    let _ = consumers[0].finish(false, 1, Some(&answer));
    die(&shared, 0);
    let value = shared.wait_timeout(id, <u64 as Reply>::receive, Duration::ZERO);
    assert_eq!(value.unwrap().unwrap(), 42);
}

#[test]
fn long_jobs_count_with_their_whole_time() {
    let (shared, mut consumers) = fixture(1, 1);
    let minutes = Duration::from_mins(10);
    for _ in 0..2 {
        let id = submit(&shared);
        assert_eq!(consumers[0].next(), Next::Run);
        let _ = consumers[0].finish(false, minutes.as_nanos() as u64, None);
        assert_eq!(answer(&shared, id).unwrap(), "value");
    }
    let total = shared.lock().kernels.get(0).stats().total;
    assert!(
        total > minutes * 2 - Duration::from_millis(1) && total <= minutes * 2,
        "{total:?}"
    );
}

/// A value is found malformed when it is read, after the exit of its worker and before the start of the next
/// generation.
#[test]
fn a_fault_found_late_does_not_kill_the_next_generation() {
    let (shared, mut consumers) = fixture(1, 1);
    let id = submit(&shared);
    assert_eq!(consumers[0].next(), Next::Run);
    let answer = one_word(kind::VALUE, &[42]);
    let _ = consumers[0].finish(false, 1, Some(&answer));
    die(&shared, 0);
    let value = shared.wait_timeout(
        id,
        <crate::array::Array<u8> as Reply>::receive,
        Duration::ZERO,
    );
    let error = value.unwrap().unwrap_err();
    assert!(
        matches!(error.kind(), JobErrorKind::Lost(WorkerExit::Protocol(_))),
        "{error}"
    );
    let mut state = shared.lock();
    state.next_generation(0);
    state.set_status(0, Status::Ready);
    assert!(!state.lanes[0].is_condemned() && state.workers[0].kill_reasons().is_empty());
    drop(state);
}

const QUEUED: u32 = 1;
const DONE_BARE: u32 = 3 | 1 << 6;
const SKIPPED: u32 = 6;

fn write_word(shared: &Supervisor, position: u64, word: u32) {
    let cell = shared.cells[0].state(position).as_futex();
    cell.store(word, Ordering::Relaxed);
}

#[test]
fn an_answer_to_a_job_that_was_taken_back_is_a_fault() {
    let (shared, _consumers) = fixture(1, 1);
    let (first, second) = (submit(&shared), submit(&shared));
    shared.abandon(second);
    write_word(&shared, 0, DONE_BARE);
    write_word(&shared, 1, DONE_BARE);
    assert_eq!(answer(&shared, first).unwrap(), "value");
    shared.stats();
    assert_eq!(shared.lock().workers[0].status(), Status::Leaving);
    die(&shared, 0);
    let state = shared.lock();
    assert_eq!((state.lanes.open(), state.records.live()), (0, 0));
}

#[test]
fn a_condemned_lane_frees_nothing_before_the_exit() {
    let (shared, _consumers) = fixture(1, 1);
    let first = submit(&shared);
    write_word(&shared, 0, 7);
    assert!(answer(&shared, first).is_none());
    // The kill reason names the record. If the job were removed now, another job would get the answer.
    write_word(&shared, 0, QUEUED);
    shared.abandon(first);
    let second = submit(&shared);
    die(&shared, 0);
    assert!(answer(&shared, second).is_none(), "it waits for a worker");
    assert_eq!(shared.lock().records.live(), 1);
}

#[test]
fn an_engine_gives_up_when_no_worker_can_be_started() {
    let (shared, consumers) = fixture(2, 0);
    let id = submit(&shared);
    for worker in [0, 0, 0, 0, 0, 1, 1, 1] {
        shared.cannot_start(worker, "no room".into());
        // The other worker may be about to become ready.
        assert!(answer(&shared, id).is_none());
    }
    shared.cannot_start(1, "no room".into());
    let why = answer(&shared, id).unwrap();
    assert!(why.contains("4 times in a row: no room"), "{why}");
    assert!(shared.revive() && !shared.revive());
    let id = submit(&shared);
    shared.cannot_start(0, "no room".into());
    assert!(answer(&shared, id).is_none());
    drop(consumers);
}

#[test]
fn an_engine_does_not_give_up_for_what_may_pass() {
    let (shared, _consumers) = fixture(2, 0);
    let id = submit(&shared);
    let short = crate::sys::Error::new("pipe2", nix::errno::Errno::EMFILE, "a worker");
    for round in 0..40 {
        for worker in 0..2 {
            // Three other reasons are not four in a row.
            let failure = match round % 4 {
                0 => short.clone().into(),
                _ => "no room".into(),
            };
            shared.cannot_start(worker, failure);
            assert!(answer(&shared, id).is_none());
        }
    }
    assert_eq!(shared.broken(), None);
    assert!(!shared.revive());
    assert!(shared.stats().start_failure.is_some());
}

/// Each worker has this number of starts that end so, one after the other, before the engine gives up.
#[track_caller]
fn gives_up_after(starts: u32, signal: i32, step: u8) {
    let (shared, _consumers) = fixture(2, 0);
    let id = submit(&shared);
    for start in 1..=starts {
        for worker in 0..2 {
            assert!(answer(&shared, id).is_none(), "start {start} of {worker}");
            shared.lock().set_status(worker, Status::Starting);
            shared.cells[worker].set_phase(Phase::Starting(step));
            die_of(&shared, worker, signal);
        }
    }
    let why = answer(&shared, id).unwrap();
    assert!(why.contains(&format!("{starts} times in a row")), "{why}");
}

#[test]
fn starts_that_are_killed_count_less_than_starts_that_crash() {
    for step in [steps::MAP, steps::ON_START] {
        for signal in [libc::SIGKILL, libc::SIGTERM, libc::SIGINT] {
            gives_up_after(32, signal, step);
        }
        for signal in [libc::SIGSEGV, libc::SIGABRT, libc::SIGSYS, libc::SIGXCPU] {
            gives_up_after(4, signal, step);
        }
    }
}

#[test]
fn workers_that_die_as_soon_as_they_are_ready_end_the_start() {
    let (shared, _consumers) = fixture(2, 0);
    shared.lock().lifecycle.set_not_started();
    for death in 1..=3 {
        assert!(shared.lock().lifecycle.broken().is_none(), "{death}");
        shared.lock().set_status(0, Status::Ready);
        die_of(&shared, 0, 11);
    }
    let why = in_time(move || shared.wait_until_started().unwrap_err().to_string());
    assert!(
        why.contains("3 times in a row") && why.contains("SIGSEGV"),
        "{why}"
    );
}

#[test]
fn a_condemned_lane_gets_no_request_for_its_next_end() {
    in_time(|| {
        let (shared, mut consumers) = fixture(1, 1);
        let [lie, ends] = [(); 2].map(|()| submit(&shared));
        shared.lock().admission = Some(Box::new(Admission::new(1)));
        let entry = shared.try_admit_job(&kernel(), 0).unwrap();
        let mut call = ArgWriter::new(shared.arena.id());
        let id = shared.submit_admitted_job(&kernel(), &mut call, None, entry);
        assert_eq!(consumers[0].next(), Next::Run);
        consumers[0].finish(false, 1, None);
        let value = shared.wait_timeout(lie, <u64 as Reply>::receive, Duration::ZERO);
        value.unwrap().unwrap_err();
        // Replies of the worker are ignored from now on.
        assert_eq!(consumers[0].next(), Next::Run);
        consumers[0].finish(false, 1, None);
        let mut line = LineTicket::default();
        assert!(poll_enter(&shared, &mut line).is_pending());
        die(&shared, 0);
        let poll = poll_enter(&shared, &mut line);
        assert!(poll.is_ready(), "nothing is in flight any more");
        for id in [ends, id] {
            assert!(answer(&shared, id).is_some());
        }
    });
}

#[test]
fn a_waiter_on_a_condemned_lane_sleeps_until_the_exit() {
    let (shared, mut consumers) = fixture(1, 1);
    let input = shared.arena.alloc(0, PAGE, BlockPlacement::Packed).unwrap();
    let input = Arc::new(input);
    let mut call = ArgWriter::new(shared.arena.id());
    call.leases.push(Lease::Shared(Arc::clone(&input)));
    let first = shared.submit(&kernel(), &mut call, Owner::Handle, None);
    drop(call);
    assert_eq!(consumers[0].next(), Next::Run);
    let escaped = one_word(kind::ESCAPED, &[1]);
    consumers[0].finish(true, 1, Some(&escaped));
    let waiter = {
        let shared = Arc::clone(&shared);
        std::thread::spawn(move || {
            shared
                .wait(first, <() as Reply>::receive)
                .unwrap_err()
                .to_string()
        })
    };
    // The thread sleeps on its parking word, and does not spin on the state word of a job that has ended.
    in_time({
        let shared = Arc::clone(&shared);
        move || {
            while !shared.lock().records.get(first).parked {
                std::thread::yield_now();
            }
        }
    });
    // A hostile worker can read the input as long as its process lives.
    assert_eq!(Arc::strong_count(&input), 2, "given back too early");
    let progress = shared.progress();
    assert_eq!(
        (progress.done, progress.failed, progress.left()),
        (0, 0, 1),
        "not before its worker has gone"
    );
    die(&shared, 0);
    let progress = shared.progress();
    assert_eq!((progress.done, progress.failed, progress.left()), (0, 1, 0));
    let why = in_time(move || waiter.join().unwrap());
    assert!(why.contains("handle"), "{why}");
    assert_eq!(Arc::strong_count(&input), 1);
}

#[test]
fn jobs_of_a_group_are_answered_once_when_the_engine_ends() {
    let (shared, _consumers) = fixture(1, 0);
    let group = shared.new_group(false);
    let jobs = [submit_in(&shared, group), submit_in(&shared, group)];
    let mut state = shared.lock();
    state.fail_queued(&JobErrorKind::ShutDown);
    drop(state);
    assert!(answer(&shared, jobs[0]).unwrap().contains("shut down"));
    assert!(answer(&shared, jobs[1]).unwrap().contains("cancel"));
}

#[test]
fn a_failure_found_while_a_job_is_submitted_cancels_it_with_its_group() {
    let (shared, mut consumers) = fixture(1, 1);
    let group = shared.new_group(false);
    // By their expected duration, two jobs fill the lane.
    let ahead = [submit_in(&shared, group), submit_in(&shared, group)];
    assert_eq!(consumers[0].next(), Next::Run);
    let failed = one_word(kind::RETURNED, &[0]);
    consumers[0].finish(true, 1, Some(&failed));
    let late = submit_in(&shared, group);
    assert_eq!(
        answer(&shared, ahead[0]).as_deref().map(str::is_empty),
        Some(false)
    );
    for cancelled in [ahead[1], late] {
        assert!(answer(&shared, cancelled).unwrap().contains("cancel"));
    }
    let mut state = shared.lock();
    assert_eq!(
        (state.queue.len(), state.lanes.open(), state.records.live()),
        (0, 0, 0)
    );
    state.refill();
    assert_eq!(state.lanes.open(), 0);
}

// ---- waiting -----------------------------------------------------------------------------------

#[test]
fn a_limit_beyond_the_clock_is_no_limit() {
    let (shared, _consumers) = fixture(1, 0);
    shared.close(Closing::Now, None);
    let refused = submit(&shared);
    let answer = shared.wait_timeout(refused, <() as Reply>::receive, Duration::MAX);
    assert!(answer.unwrap().is_err());
}

#[test]
fn shutdown_is_notified_of_the_end_of_a_detached_job() {
    fn nap(ms: u64) {
        std::thread::sleep(Duration::from_millis(ms));
    }
    fn info<F: crate::kernel::Kernel<(u64,), ()>>(_: F) -> KernelInfo {
        KernelInfo::of::<Single<F, (u64,), ()>>()
    }
    // Waits for one job, and for several jobs of which all but the first wait in the queue.
    let run = |naps: &'static [u64]| {
        let (shared, monitor) = start(arena(1), settings(1, 1), None).unwrap();
        for &ms in naps {
            let mut call = ArgWriter::new(shared.arena.id());
            call.word(ms);
            let id = shared.submit(&info(nap), &mut call, Owner::Handle, None);
            shared.detach(id);
        }
        shared.close(Closing::Drain, None);
        monitor.join().unwrap();
        let mut state = shared.lock();
        assert_eq!(state.records.live(), 0);
        assert_eq!(state.kernels.get(0).calls, naps.len() as u64);
    };
    in_time(move || run(&[20]));
    in_time(move || run(&[20, 5, 20]));
}

// ---- what a reply sends ------------------------------------------------------------------------

fn extent(at: u64, len: u64) -> Extent {
    Extent {
        at: Offset::new(1, at),
        len,
    }
}

fn whole(at: u64, len: u64) -> SentArray {
    let chunk = extent(at, len);
    SentArray { chunk, view: chunk }
}

#[test]
fn two_arrays_without_bytes_are_distinct() {
    let none = RetainedArrays::default();
    let (arena, mut lane) = lane();
    let block = arena.grant(1, PAGE, false).unwrap();
    let at = block.extent().at.offset();
    lane.grant(block).unwrap();
    let received = lane
        .grants_mut()
        .receive(&arena, 0, at, &[whole(at, 0), whole(at, 0)], &[], &none)
        .unwrap()
        .arrays;
    assert!(!Arc::ptr_eq(&received[0].block, &received[1].block));
}

#[test]
fn overlapping_views_count_their_memory_once() {
    let none = RetainedArrays::default();
    let (arena, mut lane) = lane();
    let block = arena.grant(1, 4 * PAGE, false).unwrap();
    let at = block.extent().at.offset();
    lane.grant(block).unwrap();
    let mut sent = vec![whole(at, 2 * PAGE); 100];
    sent.push(whole(at + 2 * PAGE, PAGE));
    let taken = lane
        .grants_mut()
        .receive(&arena, 0, at + 3 * PAGE, &sent, &[], &none)
        .unwrap();
    assert_eq!((taken.arrays.len(), taken.bytes), (101, 3 * PAGE));
    let half = SentArray {
        view: extent(at + 3 * PAGE, PAGE / 2),
        ..whole(at + 3 * PAGE, PAGE)
    };
    let taken = lane
        .grants_mut()
        .receive(&arena, 0, at + 4 * PAGE, &[half], &[], &none)
        .unwrap();
    assert_eq!(taken.bytes, PAGE / 2);
}

/// A number that replaces a correct one.
#[derive(Clone, Copy, Debug)]
enum Lie {
    None,
    Plus(u64),
    Minus(u64),
    Value(u64),
}

impl Lie {
    fn about(self, truth: u64) -> u64 {
        match self {
            Self::None => truth,
            Self::Plus(by) => truth.wrapping_add(by),
            Self::Minus(by) => truth.wrapping_sub(by),
            Self::Value(value) => value,
        }
    }
}

fn lie() -> impl Strategy<Value = Lie> {
    prop_oneof![
        16 => Just(Lie::None),
        1 => prop_oneof![Just(1u64), Just(8), Just(64), Just(4096), 0u64..1 << 20].prop_map(Lie::Plus),
        1 => prop_oneof![Just(1u64), Just(8), Just(64), Just(4096), 0u64..1 << 20].prop_map(Lie::Minus),
        1 => prop_oneof![Just(0), Just(u64::MAX), Just(u64::MAX - 63), Just(1 << 48), Just(1 << 63), any::<u64>()]
            .prop_map(Lie::Value),
    ]
}

/// The arena counts exactly the memory of the lane, the handles and the input, and no two blocks overlap.
fn check_accounting(
    arena: &Arc<Arena>,
    lane: &Lane,
    kept: &[Arc<Block>],
    inputs: &[&Arc<Block>],
) -> Result<(), TestCaseError> {
    let handles = kept
        .iter()
        .map(|block| (block.extent().at.offset(), block.held()));
    let mut extents: Vec<(u64, u64)> = handles.chain(lane.grants().blocks()).collect();
    extents.retain(|&(_, held)| held > 0);
    extents.sort_unstable();
    extents.dedup();
    for pair in extents.windows(2) {
        prop_assert!(pair[0].0 + pair[0].1 <= pair[1].0, "{pair:?}");
    }
    let held: u64 = extents.iter().map(|(_, held)| held).sum();
    let inputs: u64 = inputs.iter().map(|input| input.held()).sum();
    prop_assert_eq!(arena.stats().in_use, held + inputs);
    let ahead: u64 = lane.grants().blocks().map(|(_, held)| held).sum();
    prop_assert_eq!(lane.grants().ahead(), ahead);
    Ok(())
}
