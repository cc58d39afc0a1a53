//! Memory that has to be committed is awaited without the lock, and requested in vain only once.

use super::*;
use crate::arena::BlockPlacement;
use crate::supervisor::failed_reply::MAX_FAILED_WORDS;
use crate::supervisor::monitor::{Monitor, UNUSED_PERIOD};
#[cfg(feature = "sandbox")]
use crate::supervisor::owner::Role;

/// Makes the kernel one that has returned arrays before.
fn make_known(shared: &Supervisor) {
    let mut state = shared.lock();
    let index = state.kernels.index(&kernel());
    state.kernels.get(index).learn(10, 100_000, false);
}

fn short_of(shared: &Supervisor) -> u64 {
    shared.lock().lanes[0].grants().short_of()
}

#[test]
fn memory_is_committed_without_the_lock() {
    let (shared, consumers) = fixture(1, 1);
    make_known(&shared);
    let arena = Arc::clone(&shared.arena);
    let turns = [0, 1].map(|region| arena.hold_commit_lock(region));
    let other = Arc::clone(&shared);
    // The call is too long for a slot, and no memory is committed yet.
    let long = std::thread::spawn(move || {
        let mut call = ArgWriter::new(other.arena.id());
        (0..100).for_each(|word| call.word(word));
        other.submit(&kernel(), &mut call, Owner::Handle, None)
    });
    let other = Arc::clone(&shared);
    let id = in_time(move || {
        for _ in 0..50 {
            other.stats();
            std::thread::park_timeout(Duration::from_millis(1));
        }
        submit(&other)
    });
    assert!(!long.is_finished());
    assert_ne!(short_of(&shared), 0, "the monitor is to commit it");
    drop(turns);
    let long = long.join().unwrap();
    let state = shared.lock();
    let leases = &state.records.look(long.index).leases;
    assert!(matches!(&leases[..], [Lease::Shared(block)] if block.len() == 800));
    drop(state);
    shared.abandon(id);
    drop(consumers);
}

#[test]
fn a_grant_without_room_is_requested_again_when_there_is_more() {
    let (shared, consumers) = fixture(1, 1);
    make_known(&shared);
    let arena = Arc::clone(&shared.arena);
    let full = arena
        .alloc(0, arena.capacity(), BlockPlacement::Packed)
        .unwrap();
    let first = submit(&shared);
    assert_ne!(short_of(&shared), 0);
    // The monitor records this when it finds no room.
    let mut state = shared.lock();
    state.lanes[0].grants_mut().committed(Some(arena.in_use()));
    drop(state);
    let second = submit(&shared);
    assert_eq!(short_of(&shared), 0);
    drop(full);
    let third = submit(&shared);
    assert_ne!(short_of(&shared), 0);
    for id in [first, second, third] {
        shared.abandon(id);
    }
    drop(consumers);
}

#[test]
fn the_monitor_looks_at_memory_without_use_while_there_is_some() {
    let (shared, consumers) = fixture(1, 1);
    let mut monitor = Monitor::idle(Arc::clone(&shared));
    let committed = || shared.arena.stats().committed;
    let start = Instant::now();
    let at = |looks| start + looks * UNUSED_PERIOD;
    assert_eq!(monitor.return_unused(start), None);
    let before = committed();
    drop(shared.arena.alloc(0, 8 << 20, BlockPlacement::Packed));
    assert_eq!(monitor.return_unused(start), Some(at(1)));
    let just_before = at(1).checked_sub(Duration::from_nanos(1)).unwrap();
    assert_eq!(monitor.return_unused(just_before), Some(at(1)));
    assert_eq!(monitor.return_unused(at(1)), Some(at(2)));
    assert!(committed() >= before + (8 << 20), "it was needed lately");
    assert_eq!(monitor.return_unused(at(2)), None);
    assert!(committed() < before + (2 << 20));
    drop(consumers);
}

/// There may be no room for the copy.
#[cfg(feature = "sandbox")]
#[test]
fn a_job_whose_value_is_copied_counts_as_running() {
    let (shared, mut consumers) = fixture(1, 1);
    let mut state = shared.lock();
    state.config.is_sandboxed = true;
    let block = shared.arena.grant(1, 32 * PAGE, false).unwrap();
    let (granted, len) = (block.extent().at, 20 * PAGE);
    state.lanes[0].grant(block).unwrap();
    drop(state);
    let number = consumers[0].next_grant().unwrap().number;
    let job = submit(&shared);
    assert_eq!(consumers[0].next(), Next::Run);
    let at = bytemuck::cast(granted);
    let value = OutgoingReply {
        kind: kind::VALUE,
        arrays: 1,
        retained: 0,
        spilled: false,
        len: 6,
        grant: number.into(),
        cursor: granted.offset() + len,
        words: &[at, len, at, len, 1, len],
    };
    consumers[0].finish(false, 10, Some(&value));
    let figures = || {
        let progress = shared.progress();
        (progress.running, progress.done)
    };
    assert_eq!(figures(), (1, 0));
    assert!(shared.copy_values());
    assert_eq!(figures(), (0, 1));
    shared.abandon(job);
}

#[test]
fn a_lane_without_a_job_gets_no_memory() {
    let (shared, mut consumers) = fixture(1, 1);
    let mut monitor = Monitor::idle(Arc::clone(&shared));
    let in_use = || shared.arena.in_use();
    let before = in_use();
    consumers[0].request_alloc(1 << 20, 0);
    monitor.serve();
    assert_eq!(in_use(), before);
    let id = submit(&shared);
    assert_eq!(consumers[0].next(), Next::Run);
    monitor.serve();
    assert!(in_use() >= before + (1 << 20), "its job needs it");
    consumers[0].finish(false, 1, None);
    assert_eq!(answer(&shared, id).unwrap(), "value");
}

/// A grant without bytes counts for no share: a worker could have any number of them.
#[test]
fn a_request_for_no_memory_is_a_fault() {
    let (shared, mut consumers) = fixture(1, 1);
    let mut monitor = Monitor::idle(Arc::clone(&shared));
    let id = submit(&shared);
    assert_eq!(consumers[0].next(), Next::Run);
    let granted = || shared.lock().lanes[0].producer.granted();
    let before = granted();
    consumers[0].request_alloc(0, 0);
    monitor.serve();
    assert_eq!(granted(), before);
    die(&shared, 0);
    let text = answer(&shared, id).unwrap();
    assert!(
        text.contains("a request for memory of zero bytes"),
        "{text}"
    );
}

/// The program would copy it under the engine's lock.
#[test]
fn a_failure_longer_than_any_error_is_a_fault() {
    let (shared, mut consumers) = fixture(1, 1);
    let len = MAX_FAILED_WORDS as u64 + 1;
    let mut state = shared.lock();
    let block = shared.arena.grant(1, len * 8, false).unwrap();
    let granted = block.extent().at;
    state.lanes[0].grant(block).unwrap();
    drop(state);
    let number = consumers[0].next_grant().unwrap().number;
    let id = submit(&shared);
    assert_eq!(consumers[0].next(), Next::Run);
    let reply = OutgoingReply {
        kind: kind::PANICKED,
        arrays: 0,
        retained: 0,
        spilled: true,
        len: len as u32,
        grant: number.into(),
        cursor: granted.offset() + (len * 8).next_multiple_of(64),
        words: &[bytemuck::cast(granted), len * 8],
    };
    consumers[0].finish(true, 10, Some(&reply));
    assert_eq!(answer(&shared, id), None);
    die(&shared, 0);
    let text = answer(&shared, id).unwrap();
    assert!(
        text.contains(&format!("a failure of {len} words")),
        "{text}"
    );
}

/// It would be copied under the lock.
#[cfg(feature = "sandbox")]
#[test]
fn a_value_that_is_dropped_is_not_copied() {
    for (role, is_copied) in [
        (Role::Save, true),
        (Role::Start, false),
        (Role::End, false),
        (Role::Call { has_handle: false }, false),
        (Role::Call { has_handle: true }, true),
    ] {
        assert_eq!(
            Owner::Actor { actor: 0, role }.is_read(),
            is_copied,
            "{role:?}"
        );
    }
    assert!(Owner::None.is_read() && Owner::Handle.is_read());
}
