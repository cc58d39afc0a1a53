//! What is lost with a worker, and what a checkpoint restores.

use bytemuck::{CheckedBitPattern, NoUninit};

use super::*;
use crate::harness::assert_kind;

tests![
    a_call_without_a_state_names_the_cause,
    a_crash_ends_an_actor_without_checkpoints,
    a_checkpoint_restores_its_state,
    before_the_first_checkpoint_an_actor_starts_again,
    a_failed_checkpoint_is_retried_after_the_next_call,
    retracted_calls_are_in_no_checkpoint,
    a_worker_killed_while_restoring_is_replaced,
    a_state_that_kills_every_restoring_worker_is_lost,
    a_call_beyond_its_limit_is_killed,
    a_call_before_the_end_of_an_actor_whose_worker_is_killed,
    a_restart_waits_for_arena_memory,
    a_shutdown_waits_for_a_restart,
];

fn a_call_without_a_state_names_the_cause() {
    fn refuse() -> Result<List, String> {
        Err("no list today".into())
    }
    fn panic() -> List {
        panic!("no list")
    }
    fn die() -> List {
        std::process::abort()
    }
    let lab = Lab::new(1);
    let refused: Actor<List> = lab.actor(refuse, ()).start();
    let early: Vec<_> = (0..10).map(|x| refused.call(List::push, (x,))).collect();
    for call in early {
        let why = JobErrorKind::Returned("no list today".into());
        assert_eq!(lost(call), (why, 0, false));
    }
    let panicked = lab.actor(panic, ()).start();
    let (why, ..) = lost(panicked.call(List::push, (0,)));
    assert!(matches!(why, JobErrorKind::Panicked { .. }), "{why:?}");
    let died = lab.actor(die, ()).start();
    assert_eq!(lost(died.call(List::push, (0,))).0, ABORTED);
    assert_eq!(died.status().restarts, 0, "it is not retried");
    let foreign = lab
        .actor(|_: &Array<u8>| List::new(), (Array::from_slice(&[1]),))
        .start();
    let error = foreign.call(List::seen, ()).wait().unwrap_err();
    assert_eq!(*error.kind(), rejected(Rejection::ForeignArray));
    // The initial kernel may return a `Result`.
    let made: Actor<List> = lab.actor(|| Ok::<_, String>(List::new()), ()).start();
    assert_eq!(made.call(List::push, (0,)).wait().unwrap(), 1);
}

fn a_crash_ends_an_actor_without_checkpoints() {
    let lab = Lab::new(2);
    let gate = Gate::new();
    let actors = [(); 4].map(|()| new_list(&lab));
    for actor in &actors {
        actor.call(List::push, (1,)).wait().unwrap();
    }
    let victim = &actors[0];
    let is_beside = |other: &&Actor<List>| here(other) == here(victim);
    let beside = actors[1..].iter().find(is_beside).unwrap();
    let elsewhere = actors.iter().find(|other| !is_beside(other)).unwrap();
    let waits = victim.call(List::push_at, (2, gate.path()));
    let held = gate.meet();
    let crash = victim.call(List::abort, ());
    let job = crash.id();
    let behind: Vec<_> = (0..300).map(|x| victim.call(List::push, (x,))).collect();
    drop(held);
    waits.wait().unwrap();
    for call in behind.into_iter().chain([victim.call(List::push, (300,))]) {
        assert_eq!(lost(call), (ABORTED, 2, false));
    }
    assert_eq!(lost(crash), (ABORTED, 2, false));
    // The other actors of the same worker.
    let cause = Box::new(ABORTED);
    let neighbour = JobErrorKind::Lost(WorkerExit::OtherJob { job, cause });
    assert_eq!(lost(beside.call(List::seen, ())), (neighbour, 1, false));
    assert!(victim.status().lost.is_some());
    assert_eq!(seen(elsewhere), [1]);
    // The worker goes on, also for other actors.
    assert!(seen(&new_list(&lab)).is_empty());
    drop(actors);
    lab.assert_in_use(0);
}

fn a_checkpoint_restores_its_state() {
    let lab = Lab::new(2);
    let gate = Gate::new();
    let list = saved_list(&lab, 3);
    for x in 0..8 {
        list.call(List::push, (x,)).wait().unwrap();
    }
    let waits = list.call(List::push_at, (8, gate.path()));
    let held = gate.meet();
    let behind: Vec<_> = (9..400).map(|x| list.call(List::push, (x,))).collect();
    kill_worker_of(&lab, &list);
    // The checkpoint holds 0 to 5; 6 and 7 are forgotten; 8 had begun.
    assert_eq!(lost(waits), (KILLED, 2, true));
    drop(held);
    for (len, call) in (7..).zip(behind) {
        assert_eq!(call.wait().unwrap(), len, "unbegun calls are answered");
    }
    assert!(seen(&list).into_iter().eq((0..6).chain(9..400)));
    let status = list.status();
    assert_eq!(
        (status.restarts, status.forgotten, status.lost),
        (1, 2, None)
    );
    assert_eq!(status.failed_checkpoints, 0);
    // The same while the actor is idle: no call reports it, but the handle does.
    let before = list.status();
    let held = seen(&list);
    kill_worker_of(&lab, &list);
    wait_until("it has continued", || list.status().restarts == 2);
    let left = seen(&list);
    let forgotten = list.status().forgotten - before.forgotten;
    // Reading the list was a call as well; if it made a checkpoint due, that may have died with the worker.
    assert!(forgotten <= 3 && held.starts_with(&left));
    assert!(held.len() - left.len() <= forgotten as usize);
    drop(list);
    lab.assert_in_use(0);
}

fn before_the_first_checkpoint_an_actor_starts_again() {
    fn begin(first: &Array<u64>, more: u64) -> List {
        let seen = first.iter().copied().chain([more]).collect();
        List { seen }
    }
    fn restore(saved: &Array<u64>, first: &Array<u64>, more: u64) -> List {
        assert_eq!(
            (first.len(), more),
            (2, 9),
            "the arguments are those of the beginning"
        );
        List::restore(saved)
    }
    let lab = Lab::new(1);
    let first = lab.from_slice(&[7u64, 8]).unwrap();
    let list = lab
        .actor(begin, (first, 9))
        .checkpoint(2, List::seen, restore)
        .start();
    list.call(List::push, (10,)).wait().unwrap();
    assert_eq!(lost(list.call(List::abort, ())), (ABORTED, 1, true));
    assert_eq!(list.call(List::push, (11,)).wait().unwrap(), 4);
    assert_eq!(list.call(List::push, (12,)).wait().unwrap(), 5);
    assert_eq!(lost(list.call(List::abort, ())), (ABORTED, 0, true));
    assert_eq!(seen(&list), [7, 8, 9, 11, 12]);
    drop(list);
    lab.assert_in_use(0);
}

fn a_failed_checkpoint_is_retried_after_the_next_call() {
    fn save(list: &List) -> Result<Array<u64>, String> {
        match list.seen.len() {
            3 => Err("not three".into()),
            4 => panic!("not four"),
            _ => Ok(list.seen()),
        }
    }
    let lab = Lab::new(1);
    let list = lab
        .actor(List::new, ())
        .checkpoint(3, save, List::restore)
        .start();
    for x in 0..4 {
        list.call(List::push, (x,)).wait().unwrap();
    }
    // Checkpoints are made after the calls.
    wait_until("two have failed", || list.status().failed_checkpoints == 2);
    assert_eq!(list.status().checkpoints, 0);
    list.call(List::push, (4,)).wait().unwrap();
    wait_until("one is made", || list.status().checkpoints == 1);
    assert_eq!(lost(list.call(List::abort, ())), (ABORTED, 0, true));
    assert_eq!(seen(&list), [0, 1, 2, 3, 4]);
}

fn retracted_calls_are_in_no_checkpoint() {
    let lab = Lab::new(1);
    // The engine posts many jobs ahead once it knows that they are short.
    let short = saved_list(&lab, 1);
    for x in 0..300 {
        short.call(List::push, (x,)).wait().unwrap();
    }
    drop(short);
    for cancelled in [1, 2, 5] {
        let list = saved_list(&lab, 1);
        let gate = Gate::new();
        let first = list.call(List::push_at, (0, gate.path()));
        let held = gate.meet();
        // Each call is posted, followed by a checkpoint.
        let behind: Vec<_> = (0..cancelled)
            .map(|_| list.call(List::push, (7,)))
            .collect();
        behind.iter().for_each(arenite::Job::cancel);
        let last = list.call(List::push, (1,));
        drop(held);
        assert_eq!(first.wait().unwrap(), 1);
        for call in behind {
            assert_eq!(*call.wait().unwrap_err().kind(), JobErrorKind::Cancelled);
        }
        assert_eq!(last.wait().unwrap(), 2);
        wait_until("all calls are in a checkpoint", || lab.stats().open == 0);
        let nothing = (ABORTED, 0, true);
        assert_eq!(lost(list.call(List::abort, ())), nothing);
        assert_eq!(seen(&list), [0, 1]);
    }
}

fn begin_beside(_: &str) -> List {
    List::new()
}

fn a_worker_killed_while_restoring_is_replaced() {
    fn restore(saved: &Array<u64>, gate: &str) -> List {
        if std::path::Path::new(gate).exists() {
            pass(gate);
        }
        List::restore(saved)
    }
    let lab = Lab::new(1);
    let gate = Gate::new();
    let list = lab
        .actor(begin_beside, (gate.path(),))
        .checkpoint(1, List::seen, restore)
        .start();
    list.call(List::push, (7,)).wait().unwrap();
    await_saved(&list, 1);
    assert!(lost(list.call(List::abort, ())).2, "it goes on");
    let call = list.call(List::push, (8,));
    let held = gate.meet();
    std::fs::remove_file(gate.path()).unwrap();
    send_signal(lab.pid(0), Signal::SIGKILL);
    step("the call that waits for the state");
    assert_eq!(call.wait().unwrap(), 2);
    drop(held);
    assert_eq!(seen(&list), [7, 8]);
    drop(list);
    lab.assert_in_use(0);
}

fn a_state_that_kills_every_restoring_worker_is_lost() {
    fn restore(_: &Array<u64>) -> List {
        std::process::abort()
    }
    let lab = Lab::with(1, |builder| builder.quarantine_after(3));
    let list = lab
        .actor(List::new, ())
        .checkpoint(1, List::seen, restore)
        .start();
    list.call(List::push, (7,)).wait().unwrap();
    await_saved(&list, 1);
    assert!(lost(list.call(List::abort, ())).2, "a restart is attempted");
    let end = (ABORTED, 0, false);
    assert_eq!(lost(list.call(List::push, (8,))), end);
    assert_eq!(lost(list.call(List::push, (9,))), end);
    let restarts = lab.stats().workers[0].restarts;
    assert_eq!(restarts, 1 + 3, "the call, and three starts");
    drop(list);
    lab.assert_in_use(0);
}

fn a_call_beyond_its_limit_is_killed() {
    let lab = Lab::new(1);
    let list = saved_list(&lab, 1);
    let limit = Duration::from_millis(50);
    list.call_within(Duration::from_secs(1_000), List::push, (1,))
        .wait()
        .unwrap();
    let hangs = list.call_within(limit, List::hang, ());
    let behind = list.call(List::push, (2,));
    let (why, forgotten, restarted) = lost(hangs);
    assert_eq!(why, late(limit));
    assert_eq!((forgotten, restarted), (0, true));
    assert_eq!(behind.wait().unwrap(), 2);
    assert_eq!(seen(&list), [1, 2]);
}

/// An actor whose arguments do not fit into a slot, so that each start needs arena memory.
fn heavy(lab: &Lab) -> Actor<List> {
    fn begin(text: &str) -> List {
        let seen = vec![text.len() as u64];
        List { seen }
    }
    fn again(saved: &Array<u64>, text: &str) -> List {
        assert_eq!(saved[0], text.len() as u64);
        List::restore(saved)
    }
    let text = "x".repeat(4 << 20);
    lab.actor(begin, (text.as_str(),))
        .checkpoint(1, List::seen, again)
        .start()
}

/// Kills the worker of the actor while the arena is full of the returned arrays.
fn lose_while_full(lab: &Lab, list: &Actor<List>, restarts: u64) -> Vec<Array<u8>> {
    // The memory of its start has been freed.
    here(list);
    let fill = || lab.from_slice(&[0u8; 1 << 20]).ok();
    let full: Vec<_> = std::iter::from_fn(fill).collect();
    kill_worker_of(lab, list);
    wait_until("a restart is due", || list.status().restarts == restarts);
    full
}

fn a_shutdown_waits_for_a_restart() {
    for _ in 0..5 {
        let lab = Lab::with(2, |builder| builder.capacity(32 << 20));
        let list = heavy(&lab);
        assert_eq!(list.call(List::push, (7,)).wait().unwrap(), 2);
        await_saved(&list, 1);
        let full = lose_while_full(&lab, &list, 1);
        let call = list.call(List::seen, ());
        let engine = lab.into_inner();
        let ending = std::thread::spawn(move || engine.shutdown());
        drop(full);
        step("the engine to finish the calls of an actor without memory");
        assert_eq!(call.wait().unwrap()[..], [4 << 20, 7]);
        ending.join().unwrap();
    }
}

fn a_restart_waits_for_arena_memory() {
    let lab = Lab::with(2, |builder| builder.capacity(32 << 20));
    let list = heavy(&lab);
    assert_eq!(list.call(List::push, (7,)).wait().unwrap(), 2);
    await_saved(&list, 1);
    for restarts in 1..4 {
        let full = lose_while_full(&lab, &list, restarts);
        let call = list.call(List::seen, ());
        assert_eq!(list.status().lost, None);
        assert!(!call.is_done(), "it does not fit");
        drop(full);
        step("a call of an actor after memory was freed");
        assert_eq!(call.wait().unwrap()[..], [4 << 20, 7]);
    }
    // An actor that waits for memory can be ended, and does not keep an engine from ending.
    let other = heavy(&lab);
    let full = lose_while_full(&lab, &other, 1);
    other.stop();
    assert_eq!(other.status().lost, Some(rejected(Rejection::ActorEnded)));
    drop(full);
    seen(&list);
    let full = lose_while_full(&lab, &list, list.status().restarts + 1);
    let call = list.call(List::seen, ());
    step("the engine to end");
    drop(lab.into_inner());
    let error = call.wait().unwrap_err();
    let ended = |why: &JobErrorKind| match why {
        // Tried once more at the end.
        JobErrorKind::Dependency(FailedDependency::Actor { cause, .. }) => {
            matches!(**cause, JobErrorKind::Limit(JobLimit::Arena(_)))
        }
        why => *why == JobErrorKind::ShutDown,
    };
    assert!(ended(error.kind()), "{error}");
    drop(full);
}

/// A number without valid values.
#[derive(Clone, Copy, Debug, NoUninit)]
#[repr(transparent)]
struct Never(u32);

// SAFETY: any bits are a valid `u32`; rejecting all of them is allowed.
unsafe impl CheckedBitPattern for Never {
    type Bits = u32;
    fn is_valid_bit_pattern(_: &u32) -> bool {
        false
    }
}

impl arenite::Scalar for Never {}

/// An invalid value is a fault of the worker. None of its words are trusted then, not even that the actor's end has not
/// begun.
fn a_call_before_the_end_of_an_actor_whose_worker_is_killed() {
    // As the only actor, and together with another.
    for others in [0, 1] {
        let lab = Lab::new(1);
        let gate = Gate::new();
        let others: Vec<_> = (0..others).map(|_| new_list(&lab)).collect();
        let list = new_list(&lab);
        // The engine posts many jobs ahead once it knows that they are short.
        for x in 0..300 {
            list.call(List::push, (x,)).wait().unwrap();
        }
        let bad = list.call(|_: &mut List| Never(1), ());
        let slow = list.call(List::push_at, (0, gate.path()));
        let held = gate.meet();
        drop(list);
        step("the invalid value");
        let why = bad.wait().unwrap_err();
        assert_kind!(why, JobErrorKind::Lost(WorkerExit::Protocol(_)));
        drop(held);
        let (why, ..) = lost(slow);
        assert!(
            matches!(why, JobErrorKind::Lost(WorkerExit::OtherJob { .. })),
            "{why:?}"
        );
        wait_until("all calls are answered", || lab.stats().open == 0);
        for other in others {
            let (why, ..) = lost(other.call(List::seen, ()));
            assert!(
                matches!(why, JobErrorKind::Lost(WorkerExit::OtherJob { .. })),
                "{why:?}"
            );
        }
    }
}
