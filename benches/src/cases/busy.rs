//! Small work while other programs use the processor all the time, two programs for each core at nice 0 or 10, or while
//! another worker of the same pool does.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;

use super::arrays::{Pictures, pictures, rayon_images, stream_images};
use super::noop::{JOBS, rayon_hot, rayon_rate, rayon_round_trip, stream_hot, stream_rate, timed};
use super::{BenchError, Case, Goal, Running, Setup, Unit, ours, rayon_pool};
use crate::hog::Hogs;
use crate::stream::StreamKind;
use crate::work;

pub(super) fn cases(_: &Setup) -> Vec<Case> {
    let pictures = pictures();
    let mut cases: Vec<_> = [0, 10]
        .into_iter()
        .flat_map(|nice| [round_trip(nice), map(nice), images(&pictures, nice)])
        .chain([beside_own()])
        .collect();
    cases.iter_mut().for_each(|case| case.quick = false);
    cases
}

/// Returns the id of a case. An id without a suffix means that the other programs have the same nice value as the
/// benchmark.
fn id(work: &str, nice: i32) -> String {
    match nice {
        0 => format!("busy-{work}"),
        _ => format!("busy-{work}-nice"),
    }
}

/// Makes a system that runs beside hogs. The hogs use the processor only during the samples of the system.
fn beside<F>(nice: i32, start: F) -> impl Fn(&Setup) -> Result<Running, BenchError>
where
    F: Fn(&Setup) -> Result<Running, BenchError>,
{
    move |setup| {
        let mut system = start(setup)?;
        Ok(Box::new(move |times| {
            let _hogs = Hogs::start(nice)?;
            system.run(times)
        }))
    }
}

fn round_trip(nice: i32) -> Case {
    Case::new(
        id("rtt", nice),
        format!("Hand over an empty job and wait for it, back to back, beside programs at nice {nice}; mean of 400"),
        Unit::Microseconds,
    )
    .plan(400, 15, 100)
    .goals(&[Goal::AtMost(2.0, "unix-socket")])
    .system("arenite", beside(nice, ours::noop_hot))
    .system("rayon", beside(nice, rayon_hot))
    .system("thread", beside(nice, |_| thread_hot()))
    .system("unix-socket", beside(nice, |_| stream_hot(StreamKind::UnixSocket)))
}

fn beside_own() -> Case {
    Case::new(
        "busy-own",
        "Hand over an empty job and wait for it, back to back, while another worker of the pool computes; mean of 400",
        Unit::Microseconds,
    )
    .plan(400, 15, 100)
    .goals(&[Goal::AtMost(1.0, "rayon")])
    .system("arenite", ours::noop_beside_own)
    .system("rayon", rayon_beside_own)
}

fn rayon_beside_own(setup: &Setup) -> Result<Running, BenchError> {
    let pool = rayon_pool(setup)?;
    Ok(Box::new(move |times| {
        let [begun, ended] = [const { AtomicBool::new(false) }; 2];
        pool.in_place_scope(|scope| {
            scope.spawn(|_| {
                begun.store(true, Ordering::Relaxed);
                work::burn(|| ended.load(Ordering::Relaxed));
            });
            while !begun.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            let took = timed(times, |i| rayon_round_trip(&pool, i));
            ended.store(true, Ordering::Relaxed);
            took
        })
    }))
}

fn map(nice: i32) -> Case {
    Case::new(
        id("map", nice),
        format!("100,000 empty jobs by one call of map, 2 workers, beside programs at nice {nice}"),
        Unit::JobsPerSecond(JOBS),
    )
    .plan(1, 9, 1)
    .goals(&[Goal::AtLeast(0.8, "rayon")])
    .system("arenite", beside(nice, ours::noop_map))
    .system("rayon", beside(nice, rayon_rate))
    .system(
        "unix-socket",
        beside(nice, |setup| stream_rate(setup, StreamKind::UnixSocket)),
    )
}

fn images(pictures: &Pictures, nice: i32) -> Case {
    let with = |start: fn(&Setup, &Pictures) -> Result<Running, BenchError>| {
        let pictures = pictures.clone();
        beside(nice, move |setup: &Setup| start(setup, &pictures))
    };
    let mut case = Case::new(
        id("images", nice),
        format!(
            "Shrink 64 pictures of 10 MB to 224×224, 2 workers, beside programs at nice {nice}"
        ),
        Unit::Milliseconds,
    )
    .plan(1, 5, 1)
    .goals(&[Goal::AtLeast(0.9, "rayon")])
    .system(
        "arenite",
        with(|setup, pictures| ours::images(setup, &pictures.get())),
    )
    .system("rayon", with(rayon_images))
    .system(
        "unix-socket",
        with(|setup, pictures| stream_images(setup, StreamKind::UnixSocket, pictures)),
    );
    case.memory = 3 << 30;
    case
}

/// Passes jobs to one thread, and results back, through channels of the standard library.
fn thread_hot() -> Result<Running, BenchError> {
    let (jobs, to_do) = channel::<u64>();
    let (done, results) = channel();
    // The thread ends when the channel of jobs is dropped with the system.
    std::thread::spawn(move || {
        to_do
            .into_iter()
            .try_for_each(|x| done.send(work::noop(black_box(x))))
    });
    let ended = || BenchError::Missing("the thread has ended".to_owned());
    Ok(Box::new(move |times| {
        timed(times, |i| {
            jobs.send(i).map_err(|_| ended())?;
            BenchError::expect(results.recv().map_err(|_| ended())?, work::noop(i))
        })
    }))
}
