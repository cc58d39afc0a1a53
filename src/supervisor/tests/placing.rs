//! Tests of which lane gets a job.

use std::sync::atomic::Ordering;

use super::super::actor::ActorPlan;
use super::policies::{HOUR, finish, submit_with, timed};
use super::*;
use crate::link::NOTICE;
use crate::link::Phase;
use crate::sys::cores;

/// Number of busy lanes of each worker.
fn busy(shared: &Supervisor) -> Vec<usize> {
    let state = shared.lock();
    let of = |worker| state.lanes.of_worker(worker).map(|lane| &state.lanes[lane]);
    let workers = 0..state.workers.len();
    workers
        .map(|worker| of(worker).filter(|lane| !lane.is_idle()).count())
        .collect()
}

#[test]
fn jobs_are_spread_over_the_workers_whichever_lanes_sleep() {
    // In the first case no lane sleeps. In the second all lanes sleep except the later lanes of the first worker, which
    // have not slept yet when it is ready.
    let sleeping: [fn(usize) -> bool; 2] = [|_| false, |lane| lane < 3 || lane % 3 != 0];
    for asleep in sleeping {
        let (shared, consumers) = with_lanes(3, 4, 3);
        for (lane, cells) in shared.cells.iter().enumerate() {
            let asleep = u32::from(asleep(lane));
            cells.reply().asleep.store(asleep, Ordering::Relaxed);
        }
        let jobs: Vec<_> = (1..=12usize)
            .map(|job| {
                let id = submit(&shared);
                let (least, most) = (job / 3, job.div_ceil(3));
                let busy = busy(&shared);
                assert!(
                    busy.iter().all(|&busy| least <= busy && busy <= most),
                    "{busy:?} after {job} jobs"
                );
                id
            })
            .collect();
        drop((jobs, consumers));
    }
}

#[test]
fn a_job_goes_where_fewer_lanes_are_busy() {
    let (shared, mut consumers) = with_lanes(3, 4, 3);
    let first: Vec<_> = (0..6).map(|_| submit(&shared)).collect();
    assert_eq!(busy(&shared), [2, 2, 2]);
    // All jobs have ended except the second job of the first worker, whose other lanes are the first idle lanes.
    for (lane, &id) in first.iter().enumerate().filter(|(lane, _)| *lane != 3) {
        assert_eq!(consumers[lane].next(), Next::Run);
        consumers[lane].finish(false, 1_000_000, None);
        assert_eq!(answer(&shared, id).unwrap(), "value");
    }
    assert_eq!(busy(&shared), [1, 0, 0]);
    let second = [submit(&shared), submit(&shared)];
    assert_eq!(busy(&shared), [1, 1, 1], "not beside what runs");
    drop((first, second, consumers));
}

#[test]
fn a_lane_that_falls_asleep_beside_a_new_job_is_rung_when_the_lock_is_released() {
    let (shared, consumers) = fixture(1, 1);
    let bell = || shared.cells[0].post().doorbell.load(Ordering::Relaxed);
    let mut state = shared.lock();
    let mut call = ArgWriter::new(shared.arena.id());
    state.submit(&kernel(), &mut call, Owner::Handle, None);
    // The worker falls asleep between the first check whether it sleeps and the final check.
    shared.cells[0].reply().asleep.store(1, Ordering::Relaxed);
    let before = bell();
    drop(state);
    assert_ne!(bell(), before);
    drop(consumers);
}

/// A job that is taken back counts for no share of the jobs after which its worker is recycled.
#[test]
fn a_lane_gets_its_share_of_jobs_although_some_are_taken_back() {
    let (shared, _consumers) = fixture(1, 1);
    shared.lock().lanes[0].begin_generation(2);
    let ranked = |priority| {
        let options = JobOptions {
            priority,
            ..JobOptions::default()
        };
        submit_with(&shared, options)
    };
    let [first, second] = [(); 2].map(|()| ranked(Priority::Low));
    let high = ranked(Priority::High);
    let stage = |id| shared.lock().records.get(id).stage;
    let on_lane = |id| matches!(stage(id), Stage::Placed { lane: 0, .. });
    assert!(
        on_lane(high) && !on_lane(second),
        "{:?}",
        [first, second, high].map(stage)
    );
}

/// In a stream of tiny jobs, two are often on the same lane while another lane is idle, and have ended a moment later.
/// The monitor is called for that once, and then ticks.
#[test]
fn the_monitor_is_called_once_for_a_stream_of_tiny_jobs() {
    let (shared, mut consumers) = fixture(2, 2);
    let index = {
        let mut state = shared.lock();
        let index = state.kernels.index(&kernel());
        state.kernels.get(index).learn(100, 0, false);
        index
    };
    let mut two_jobs = || {
        let jobs = [submit(&shared), submit(&shared)];
        let called = shared.monitor_event().clear().unwrap();
        for id in jobs {
            assert_eq!(consumers[0].next(), Next::Run);
            consumers[0].finish(false, 100, None);
            assert_eq!(answer(&shared, id).unwrap(), "value");
        }
        assert_eq!(shared.lock().kernels.get(index).expected_ns, 100);
        called
    };
    // The monitor watches memory whenever a thread waits.
    {
        let mut state = shared.lock();
        state.monitor.watch_memory();
        state.monitor.take_call();
    }
    assert!(two_jobs());
    for _ in 0..3 {
        shared.lock().even_out(false);
        assert!(!two_jobs(), "it looks in a moment anyway");
    }
    // A whole tick passes in which no job waits for another one.
    shared.lock().even_out(true);
    assert!(two_jobs());
}

/// A thread that waits for the first of several jobs is notified of the first end on each lane, even if the oldest of
/// them has moved to another lane.
#[test]
fn the_end_of_an_actor_call_is_reported_after_the_jobs_before_it_moved() {
    let (shared, mut consumers) = fixture(2, 1);
    {
        let mut state = shared.lock();
        let index = state.kernels.index(&kernel());
        state.kernels.get(index).learn(1000, 0, false);
    }
    let args = || ArgWriter::new(shared.arena.id());
    let actor = shared.new_actor(ActorPlan {
        start: kernel(),
        args: args(),
        end: kernel(),
        checkpoints: None,
    });
    assert_eq!(consumers[0].next(), Next::Run);
    consumers[0].finish(false, 1000, None);
    shared.stats();
    let long = submit(&shared);
    assert_eq!(consumers[0].next(), Next::Run);
    let movable = submit(&shared);
    let call = shared.submit(&kernel(), &mut args(), actor, None);
    let place = |id| match shared.lock().records.get(id).stage {
        Stage::Placed { lane, position } => (lane, position),
        other => panic!("{other:?}"),
    };
    let (lane, position) = place(call);
    assert_eq!((place(movable).0, lane), (0, 0));
    let asked = |link: u32, position| {
        let cell = shared.cells[link as usize].state(position).as_futex();
        cell.load(Ordering::Relaxed) & NOTICE != 0
    };
    assert!(!asked(lane, position));
    let ids = [movable, call];
    assert_eq!(shared.poll_any(ids.into_iter(), Waker::noop()), None);
    // Another worker is ready, and the first makes no progress.
    let mut state = shared.lock();
    state.set_status(1, Status::Ready);
    state.even_out(true);
    state.even_out(true);
    drop(state);
    let (link, moved_to) = place(movable);
    assert_eq!((link, place(call)), (1, (lane, position)));
    assert!(asked(link, moved_to) && asked(lane, position));
    drop((long, consumers));
}

/// The worker's size is read without the lock, and an actor may start there in between: its state would be lost.
#[test]
fn a_worker_that_was_too_large_stays_if_an_actor_started_since() {
    for (actor, since) in [(true, Status::Ready), (false, Status::Leaving)] {
        let (shared, mut consumers) = fixture(1, 1);
        let generation = shared.lock().workers[0].generation();
        let id = actor.then(|| {
            let id = shared.new_actor(ActorPlan {
                start: kernel(),
                args: ArgWriter::new(shared.arena.id()),
                end: kernel(),
                checkpoints: None,
            });
            assert_eq!(consumers[0].next(), Next::Run);
            id
        });
        let mut state = shared.lock();
        state.retire_grown(0, generation.wrapping_add(1));
        assert_eq!(
            state.workers[0].status(),
            Status::Ready,
            "another generation"
        );
        state.retire_grown(0, generation);
        assert_eq!(state.workers[0].status(), since);
        shared.unlock(state);
        drop((id, consumers));
    }
}

/// An actor waits for a lane that is expected to be free soon, but not for long.
#[test]
fn an_actor_does_not_wait_for_a_lane_while_another_one_has_room() {
    for (longer, waits) in [(600_000, true), (1_000_000_000, false)] {
        let (shared, consumers) = fixture(2, 0);
        let begin = || {
            shared.new_actor(ActorPlan {
                start: kernel(),
                args: ArgWriter::new(shared.arena.id()),
                end: kernel(),
                checkpoints: None,
            })
        };
        let actors = || {
            let state = shared.lock();
            [0, 1].map(|lane| state.lanes[lane].actors())
        };
        shared.lock().set_status(1, Status::Ready);
        begin();
        assert_eq!(actors(), [0, 1]);
        shared.lock().set_status(0, Status::Ready);
        let jobs = [submit(&shared), submit(&shared)];
        let mut state = shared.lock();
        assert_eq!(state.lanes[0].producer.open(), 2);
        state.lanes[0].expect_longer(0, longer);
        state.monitor.stop_ticking();
        drop(state);
        begin();
        assert_eq!(actors(), [0, 2 - usize::from(waits)]);
        let mut state = shared.lock();
        assert_eq!(state.monitor.ticks(), waits);
        (0..30).for_each(|_| state.even_out(true));
        state.even_out(true);
        assert!(!state.monitor.ticks(), "no job waits any more");
        drop(state);
        assert_eq!(actors(), [0, 2]);
        drop((jobs, consumers));
    }
}

/// An exclusive job runs in another worker than the one that was reserved for it.
#[test]
fn no_worker_stays_reserved_after_memory_was_short() {
    let (shared, mut consumers) = with_lanes(2, 2, 2);
    shared.lock().config.deadlines_are_exclusive = true;
    let args = || ArgWriter::new(shared.arena.id());
    let actor = shared.new_actor(ActorPlan {
        start: kernel(),
        args: args(),
        end: kernel(),
        checkpoints: None,
    });
    assert_eq!(consumers[0].next(), Next::Run);
    finish(&mut consumers[0]);
    shared.stats();
    let beside = submit(&shared);
    assert_eq!(consumers[0].next(), Next::Run);
    let [first, second] = [(); 2].map(|()| submit_with(&shared, timed(HOUR)));
    assert_eq!(consumers[1].next(), Next::Run);
    assert_eq!(shared.lock().lanes.reserved(), Some(0));
    shared.lock().set_low_on_memory(true);
    for (lane, id) in [(1, first), (0, beside)] {
        finish(&mut consumers[lane]);
        assert_eq!(answer(&shared, id).unwrap(), "value");
    }
    let mut state = shared.lock();
    state.refill();
    // In the worker without actors.
    let stage = state.records.get(second).stage;
    assert!(matches!(stage, Stage::Placed { lane: 1, .. }), "{stage:?}");
    assert_eq!(state.lanes.reserved(), None);
    state.set_low_on_memory(false);
    drop(state);
    shared.submit(&kernel(), &mut args(), actor, None);
    assert_eq!(consumers[0].next(), Next::Run);
}

#[test]
fn exclusive_jobs_and_others_take_turns_while_memory_is_short() {
    let (shared, mut consumers) = with_lanes(1, 2, 1);
    let mut state = shared.lock();
    state.config.deadlines_are_exclusive = true;
    state.set_low_on_memory(true);
    drop(state);
    let exclusive = [(); 3].map(|()| submit_with(&shared, timed(HOUR)));
    let others = [(); 3].map(|()| submit(&shared));
    for id in exclusive.into_iter().zip(others).flat_map(<[_; 2]>::from) {
        assert_eq!(consumers[0].next(), Next::Run);
        finish(&mut consumers[0]);
        assert_eq!(answer(&shared, id).unwrap(), "value");
        shared.lock().refill();
    }
}

#[test]
fn a_woken_thread_avoids_cores_with_kernels() {
    let cores = crate::sys::limits::cores();
    if cores < 2 {
        return crate::sys::asked::not_tried("one core");
    }
    let allowed = std::thread::available_parallelism().unwrap();
    // This runs on a thread of its own, so that the threads of other tests stay on their cores.
    let moved = move || {
        let (shared, _consumers) = with_lanes(2, 1, 2);
        let [kernel, other] = [&shared.cells[0], &shared.cells[1]];
        let here = cores::current();
        kernel.set_core(here);
        shared.step_aside();
        let idle = cores::current() != here;
        // The lane is awake and runs a kernel.
        kernel.set_phase(Phase::Running(1));
        let here = cores::current();
        kernel.set_core(here);
        shared.step_aside();
        let there = cores::current();
        // If kernels run on both of two cores, the thread stays.
        other.set_core(there);
        other.set_phase(Phase::Running(2));
        let stays = cores > 2 || !shared.step_aside() && cores::current() == there;
        assert_eq!(std::thread::available_parallelism().unwrap(), allowed);
        (idle, there != here, stays)
    };
    // Linux may move a thread at any moment, but it is unlikely to do so each time.
    assert!((0..20).any(|_| std::thread::spawn(moved).join().unwrap() == (false, true, true)));
}
