//! No-op jobs: the round trip of a single job, and the number of jobs per second.

use std::hint::black_box;
use std::time::{Duration, Instant};

use super::{BenchError, Case, Goal, Reading, Running, Setup, Unit, ours, rayon_pool};
use crate::ipc::IpcPeer;
use crate::page::{PagePeer, Placement};
use crate::stream::{StreamKind, StreamPeer};
use crate::{pool, work};

/// The number of jobs in one operation of the rate cases.
pub(super) const JOBS: u64 = 100_000;
/// The number of round trips that are made on a bare page in place of [`JOBS`] jobs, which would take seconds if both
/// sides sleep.
const TRIPS: u64 = 2_000;
/// The pause of the idle case.
pub(super) const PAUSE: Duration = Duration::from_millis(2);

pub(super) fn cases(setup: &Setup) -> Vec<Case> {
    let (trips, idle_trips) = if setup.quick { (500, 40) } else { (2_000, 100) };
    let hot = Case::new(
        "noop-rtt-hot",
        "Hand over an empty job and wait for it, back to back",
        Unit::Microseconds,
    )
    .plan(trips, 9, 200)
    .goals(&[
        Goal::AtMost(0.4, "rayon"),
        Goal::AtMost(4.0, "spin"),
        Goal::AtMost(0.15, "unix-socket"),
    ])
    .system("arenite", ours::noop_hot)
    .system("rayon", rayon_hot)
    .system("spin", |_| page_hot(Placement::Spin))
    .system("futex", |_| page_hot(Placement::Futex))
    .system("futex-one-core", |_| page_hot(Placement::FutexOneCore))
    .system("unix-socket", |_| stream_hot(StreamKind::UnixSocket))
    .system("pipe", |_| stream_hot(StreamKind::Pipe))
    .system("ipc-channel", |_| ipc_hot());

    let idle = Case::new(
        "noop-rtt-idle",
        "Hand over an empty job after 2 ms of idle time",
        Unit::Microseconds,
    )
    .plan(idle_trips, 7, 5)
    .goals(&[Goal::AtMost(1.25, "futex"), Goal::AtMost(1.0, "rayon")])
    .note("without spin: a system that spins through the pause is not idle, and all others sleep")
    .system("arenite", ours::noop_idle)
    .system("rayon", rayon_idle)
    .system("futex", |_| page_idle(Placement::Futex))
    .system("futex-one-core", |_| page_idle(Placement::FutexOneCore))
    .system("unix-socket", |_| stream_idle(StreamKind::UnixSocket))
    .system("pipe", |_| stream_idle(StreamKind::Pipe))
    .system("ipc-channel", |_| ipc_idle());

    let rate = with_pools(
        Case::new(
            "noop-rate",
            "100,000 empty jobs by one call of map, 2 workers",
            Unit::JobsPerSecond(JOBS),
        )
        .plan(1, 9, 1)
        .goals(&[
            Goal::AtLeast(1.0, "rayon"),
            Goal::AtLeast(15.0, "unix-socket"),
            Goal::AtLeast(20.0, "ipc-channel"),
        ])
        .system("arenite", ours::noop_map),
    );
    let submit = with_pools(
        Case::new(
            "noop-rate-submit",
            "100,000 empty jobs submitted one at a time, 2 workers",
            Unit::JobsPerSecond(JOBS),
        )
        .plan(1, 9, 1)
        .goals(&[
            Goal::AtLeast(0.8, "rayon"),
            Goal::AtLeast(15.0, "unix-socket"),
            Goal::AtLeast(20.0, "ipc-channel"),
        ])
        .system("arenite", ours::noop_submit),
    );
    vec![hot, idle, rate, submit]
}

/// Adds rayon, pools of processes, and bare pages. A page carries one job at a time, so its rate is that of sequential
/// round trips.
fn with_pools(case: Case) -> Case {
    case.note("spin, futex and futex-one-core hand over one job at a time to one process, 2,000 jobs a sample")
        .note("rayon spawns each job in a scope; its par_iter hands over ranges, and is far faster")
        .note("unix-socket, pipe and ipc-channel make a system call for each job and for each result")
        .system("rayon", rayon_rate)
        .system("spin", |_| page_rate(Placement::Spin))
        .system("futex", |_| page_rate(Placement::Futex))
        .system("futex-one-core", |_| page_rate(Placement::FutexOneCore))
        .system("unix-socket", |setup| stream_rate(setup, StreamKind::UnixSocket))
        .system("pipe", |setup| stream_rate(setup, StreamKind::Pipe))
        .system("ipc-channel", ipc_rate)
}

/// Times `times` operations together.
pub(super) fn timed(
    times: u64,
    mut operation: impl FnMut(u64) -> Result<(), BenchError>,
) -> Result<Reading, BenchError> {
    let start = Instant::now();
    for i in 0..times {
        operation(i)?;
    }
    Ok(Reading::Total(start.elapsed()))
}

/// Times each of `times` operations, with a pause before each.
pub(super) fn timed_after_pauses(
    times: u64,
    mut operation: impl FnMut(u64) -> Result<(), BenchError>,
) -> Result<Reading, BenchError> {
    let mut each = Vec::with_capacity(times as usize);
    for i in 0..times {
        std::thread::sleep(PAUSE);
        let start = Instant::now();
        operation(i)?;
        each.push(start.elapsed());
    }
    Ok(Reading::Each(each))
}

pub(super) fn rayon_round_trip(pool: &rayon::ThreadPool, x: u64) -> Result<(), BenchError> {
    BenchError::expect(pool.install(|| work::noop(black_box(x))), work::noop(x))
}

pub(super) fn rayon_hot(setup: &Setup) -> Result<Running, BenchError> {
    let pool = rayon_pool(setup)?;
    Ok(Box::new(move |times| {
        timed(times, |i| rayon_round_trip(&pool, i))
    }))
}

fn rayon_idle(setup: &Setup) -> Result<Running, BenchError> {
    let pool = rayon_pool(setup)?;
    Ok(Box::new(move |times| {
        timed_after_pauses(times, |i| rayon_round_trip(&pool, i))
    }))
}

pub(super) fn rayon_rate(setup: &Setup) -> Result<Running, BenchError> {
    let pool = rayon_pool(setup)?;
    Ok(Box::new(move |times| {
        timed(times, |_| {
            pool.scope(|scope| {
                for job in 0..JOBS {
                    scope.spawn(move |_| {
                        black_box(work::noop(black_box(job)));
                    });
                }
            });
            Ok(())
        })
    }))
}

fn page_hot(placement: Placement) -> Result<Running, BenchError> {
    let mut peer = PagePeer::start(placement)?;
    Ok(Box::new(move |times| {
        peer.round_trips(times).map(Reading::Total)
    }))
}

fn page_idle(placement: Placement) -> Result<Running, BenchError> {
    let mut peer = PagePeer::start(placement)?;
    Ok(Box::new(move |times| {
        peer.after_pauses(times, PAUSE).map(Reading::Each)
    }))
}

/// Makes [`TRIPS`] round trips, and extrapolates their time to [`JOBS`].
fn page_rate(placement: Placement) -> Result<Running, BenchError> {
    let mut peer = PagePeer::start(placement)?;
    Ok(Box::new(move |times| {
        let part = peer.round_trips(times * TRIPS)?;
        Ok(Reading::Total(part * (JOBS / TRIPS) as u32))
    }))
}

pub(super) fn stream_hot(kind: StreamKind) -> Result<Running, BenchError> {
    let mut peer = StreamPeer::start(kind)?;
    Ok(Box::new(move |times| timed(times, |i| peer.noop(i))))
}

fn stream_idle(kind: StreamKind) -> Result<Running, BenchError> {
    let mut peer = StreamPeer::start(kind)?;
    Ok(Box::new(move |times| {
        timed_after_pauses(times, |i| peer.noop(i))
    }))
}

pub(super) fn stream_rate(setup: &Setup, kind: StreamKind) -> Result<Running, BenchError> {
    let mut peers = pool::streams(kind, setup.workers)?;
    Ok(Box::new(move |times| {
        timed(times, |_| pool::run_noops(&mut peers, JOBS))
    }))
}

fn ipc_hot() -> Result<Running, BenchError> {
    let mut peer = IpcPeer::start("ipc-channel")?;
    Ok(Box::new(move |times| timed(times, |i| peer.noop(i))))
}

fn ipc_idle() -> Result<Running, BenchError> {
    let mut peer = IpcPeer::start("ipc-channel")?;
    Ok(Box::new(move |times| {
        timed_after_pauses(times, |i| peer.noop(i))
    }))
}

fn ipc_rate(setup: &Setup) -> Result<Running, BenchError> {
    let mut peers = (0..setup.workers)
        .map(|_| IpcPeer::start("ipc-channel"))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Box::new(move |times| {
        timed(times, |_| pool::run_noops(&mut peers, JOBS))
    }))
}
