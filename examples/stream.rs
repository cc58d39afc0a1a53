//! Finds people who walk through a picture, in an endless stream of frames that is cut into sessions of movement:
//! `cargo run --release --example stream [FRAMES]`.
//!
//! The source never ends, and memory stays flat: a bounded number of frames is in flight, and each is freed once it has
//! been analysed. Some frames arrive far too late, and one kills its worker.

use std::time::Duration;

use arenite::stream::{Stream, Windows};
use arenite::{Array, Engine, OnFailure};

const SHAPE: [usize; 2] = [480, 640];
const FRAME: Duration = Duration::from_millis(40);
/// Minimum pause between two sessions of movement.
const PAUSE: Duration = Duration::from_secs(1);

/// A frame of the camera. Its number is its time.
struct Frame {
    number: u32,
    pixels: Array<u8>,
}

/// Returns whether a person walks by: in 50 of 250 frames.
fn something_moves(number: u32) -> bool {
    (100..150).contains(&(number % 250))
}

/// Returns whether a frame is delayed. The delay is 3.6 seconds, longer than a walk and the pause after it.
fn is_held_up(number: u32) -> bool {
    number > 0 && number.is_multiple_of(97)
}

/// One frame crashes the decoder.
const BROKEN: u32 = 360;

/// Returns the numbers of the frames in order of arrival.
fn arrivals() -> impl Iterator<Item = u32> {
    (0u32..).flat_map(|number| {
        let held_up = number.checked_sub(90).filter(|&then| is_held_up(then));
        let now = Some(number).filter(|&now| !is_held_up(now));
        held_up.into_iter().chain(now)
    })
}

/// Compares a frame with the empty picture.
fn difference(frame: &Array<u8>, empty: &Array<u8>) -> Array<u8> {
    if frame[0] == u8::MAX {
        // A decoder in C may do this.
        std::process::abort();
    }
    Array::from_fn(frame.shape(), |i| frame[i].abs_diff(empty[i]))
}

fn pixels_above(difference: &[u8], threshold: u8) -> u64 {
    difference.iter().filter(|&&x| x > threshold).count() as u64
}

/// The summary of one session.
#[derive(Debug, Default, PartialEq)]
struct Walk {
    frames: u32,
    largest: u64,
}

/// Returns the private memory of this program and its workers in bytes, without the arena.
fn private_bytes(engine: &Engine) -> u64 {
    let workers = engine.stats().workers;
    let pids = workers.iter().map(|worker| worker.pid);
    let of_one = |pid| {
        // A worker that has just died has no memory.
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let mut lines = status.lines();
        let line = lines.find_map(|line| line.strip_prefix("RssAnon:"));
        let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        kib.unwrap_or(0) << 10
    };
    pids.chain([std::process::id()]).map(of_one).sum()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    arenite::init();
    let frames: u32 = match std::env::args().nth(1) {
        Some(frames) => frames.parse()?,
        None => 1_000,
    };
    let engine = Engine::builder().workers(2).capacity(256 << 20).build()?;
    let empty = engine.from_fn(SHAPE, |i| (i % 97) as u8)?;

    let camera = arrivals().map(|number| {
        let walker = something_moves(number).then(|| 2_000 * (number as usize % 50));
        let mut pixels = engine.uninit(SHAPE)?;
        pixels.copy_from_slice(&empty);
        if let Some(from) = walker {
            pixels[from..from + 5_000].fill(200);
        }
        if number == BROKEN {
            pixels[0] = u8::MAX;
        }
        let pixels = pixels.seal();
        Ok::<_, arenite::ArenaFull>(Frame { number, pixels })
    });

    let mut lost = Vec::new();
    let walks = Stream::fallible(camera)
        .in_flight(8)
        .on_failure(OnFailure::GoOn)
        .event_time(|frame| FRAME * frame.number)
        .watermark(Duration::from_millis(500))
        .map(|frame| frame.pixels)
        .stage(difference, (empty.clone(),))
        .dead_letters(|letter| lost.push(letter))
        .stage(pixels_above, (50,))
        .filter(|&pixels| pixels > 1_000)
        .window(Windows::session(PAUSE))?
        .fold(
            Walk::default,
            |walk, pixels| {
                walk.frames += 1;
                walk.largest = walk.largest.max(pixels);
            },
            |walk, later| {
                walk.frames += later.frames;
                walk.largest = walk.largest.max(later.largest);
            },
        );

    // The stream is endless: after enough frames, the items already taken are finished.
    let handle = walks.handle();
    let mut seen = 0;
    // Memory at the first walk, when every buffer has reached its size, and the maximum since.
    let mut private: Option<(u64, u64)> = None;
    let mut walks = walks.run(&engine);
    while let Some(walk) = walks.next() {
        let walk = walk?;
        let span = walk.span.ok_or("sessions are in time")?;
        println!("from {:?} to {:?}: {:?}", span.start, span.end, walk.value);

        let now = private_bytes(&engine);
        let (_, most) = private.get_or_insert((now, now));
        *most = now.max(*most);

        let first = 250 * seen + 100;
        let there = |number: &u32| !is_held_up(*number) && *number != BROKEN;
        if walks.stats().taken < u64::from(frames) {
            let walkers: Vec<u32> = (first..first + 50).filter(there).collect();
            let (from, to) = (walkers[0], walkers[walkers.len() - 1]);
            assert_eq!(span, FRAME * from..FRAME * to + PAUSE);
            assert_eq!(walk.value.frames as usize, walkers.len());
            assert!(walk.value.largest <= 5_000);
        } else {
            handle.drain();
        }
        seen += 1;
    }

    let stats = walks.stats();
    drop(walks);
    println!("{stats:?}");
    for letter in &lost {
        println!("one frame less: {letter}");
    }
    assert_eq!(lost.len() as u64, stats.failed);
    assert!(stats.in_flight == 0 && stats.most_in_flight <= 9);
    // Delayed frames with a person belong to a session that has ended. They are counted as late.
    let arrived = arrivals().take(usize::try_from(stats.taken)?);
    let late = arrived.filter(|&number| is_held_up(number) && something_moves(number));
    assert_eq!(stats.late, late.count() as u64);
    println!("{} frames with a walker came too late", stats.late);

    // The arena holds eight frames before and after a stage, the empty picture and the workers' grants, however long
    // the stream is.
    let most = engine.stats().arena.high_water;
    let given = stats.taken * empty.len() as u64;
    println!("{} MB went through {} MB", given >> 20, most >> 20);
    assert!(most < 12 << 20);
    // Private memory does not grow: 20 frames would show.
    let (first, most) = private.ok_or("no walk was seen")?;
    println!(
        "of their own, the program and its workers had {} kB, and {} kB at most",
        first >> 10,
        most >> 10
    );
    assert!(most < first + (6 << 20));
    Ok(())
}
