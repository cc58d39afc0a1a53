//! Pictures that are cut, flipped and torn at random: an image or an error, whatever the bytes are.

use std::time::Instant;

use arenite::image::{Output, ResizeSpec, Size, probe, resize_encoded};
use arenite::{Array, Job, JobErrorKind};

use super::lab::{Invariant, Lab, step};
use super::runs::{Dice, Order, Seen};

/// The longest side of a result.
const SIDE: u32 = 16;
/// Where headers are, which every other mutation aims at.
const HEADER: u64 = 160;
/// Jobs that are submitted at once.
const BATCH: usize = 64;
/// One case of so many is left as it was: it has to give what one process alone makes of it.
const WHOLE_EVERY: u64 = 16;

/// In a worker: an encoded picture in, a small one out.
fn shrink(file: &[u8], spec: ResizeSpec) -> Result<Array<u8>, String> {
    let small = resize_encoded(file, &spec).map_err(|error| error.to_string())?;
    if small.width.max(small.height) > SIDE || small.width.min(small.height) == 0 {
        // Not an error of the picture: this ends the run.
        panic!("a picture of {} by {}", small.width, small.height);
    }
    Ok(Array::from_slice(&small.bytes))
}

fn square(side: u32) -> Result<Size, String> {
    let size = side.to_string().parse::<Size>();
    size.map_err(|error| error.to_string())
}

fn spec(output: Output) -> Result<ResizeSpec, String> {
    Ok(ResizeSpec {
        // So that a header with a flipped bit is refused rather than decoded for seconds.
        max_pixels: 1_000_000,
        max_bytes: 16 << 20,
        keep_metadata: true,
        output,
        ..ResizeSpec::new(square(SIDE)?)
    })
}

/// A picture without compression, from which the other formats are made.
fn bitmap(width: u32, height: u32) -> Vec<u8> {
    let row = (width * 3).next_multiple_of(4);
    let mut file = b"BM".to_vec();
    let fields: [(u32, usize); 14] = [
        (54 + row * height, 4),
        (0, 4),
        (54, 4),
        (40, 4),
        (width, 4),
        (height, 4),
        (1, 2),
        (24, 2),
        (0, 4),
        (row * height, 4),
        (2835, 4),
        (2835, 4),
        (0, 4),
        (0, 4),
    ];
    for (value, bytes) in fields {
        file.extend(&value.to_le_bytes()[..bytes]);
    }
    for y in 0..height {
        file.extend((0..row).map(|x| ((x * 5) ^ (y * 7)) as u8));
    }
    file
}

/// A whole picture in each format that is written, and in one that is only read.
fn seeds() -> Result<Vec<Vec<u8>>, String> {
    let bitmap = bitmap(61, 47);
    let large = ResizeSpec {
        size: square(48)?,
        ..spec(Output::Jpeg)?
    };
    let mut seeds = Vec::new();
    for output in [Output::Jpeg, Output::Png, Output::WebP] {
        let made = resize_encoded(&bitmap, &ResizeSpec { output, ..large });
        seeds.push(made.map_err(|error| error.to_string())?.bytes);
    }
    seeds.push(bitmap);
    Ok(seeds)
}

/// Does one to four things to a picture.
fn mutate(file: &mut Vec<u8>, dice: &mut Dice) {
    for _ in 0..=dice.below(4) {
        let len = file.len() as u64;
        let end = if dice.below(2) == 0 {
            len
        } else {
            len.min(HEADER)
        };
        let at = dice.below(end) as usize;
        match dice.below(5) {
            0 => file.truncate(at),
            1 if at < file.len() => file[at] ^= 1 << dice.below(8),
            2 if at < file.len() => file[at] = [0, 1, 0x7f, 0x80, 0xff][dice.below(5) as usize],
            3 => {
                let to = (at + dice.below(32) as usize).min(file.len());
                file.drain(at.min(to)..to);
            }
            _ => {
                let more: Vec<u8> = (0..dice.below(8)).map(|_| dice.below(256) as u8).collect();
                file.splice(at..at, more);
            }
        }
    }
}

/// A case under way, with what has to come of it where that is known.
struct Case {
    job: Job<Array<u8>>,
    expected: Option<Vec<u8>>,
}

/// An image that can be read again, or an error in one sentence; no worker falls over it.
pub(super) fn run(order: Order) -> Result<Seen, String> {
    let seeds = seeds()?;
    let invariant = Invariant::before();
    let lab = Lab::new(2);
    let mut dice = Dice::new(order.seed);
    let end = Instant::now() + order.length;
    let mut seen = Seen::default();
    while seen.jobs == 0 || Instant::now() < end {
        step("pictures that are broken");
        let mut cases = Vec::with_capacity(BATCH);
        for _ in 0..BATCH {
            cases.push(begin(&lab, &seeds, &mut dice, &mut seen)?);
        }
        for case in cases {
            judge(case).map_err(|why| format!("picture {}: {why}", seen.jobs))?;
            seen.jobs += 1;
        }
    }
    let restarts = lab.stats().restarts();
    if restarts > 0 {
        return Err(format!("{restarts} workers fell over a picture"));
    }
    invariant.holds(&lab, 0)?;
    drop(lab);
    invariant.nothing_left()?;
    Ok(seen)
}

fn begin(lab: &Lab, seeds: &[Vec<u8>], dice: &mut Dice, seen: &mut Seen) -> Result<Case, String> {
    let outputs = [Output::Jpeg, Output::Png, Output::WebP];
    let spec = spec(outputs[dice.below(outputs.len() as u64) as usize])?;
    let mut file = seeds[dice.below(seeds.len() as u64) as usize].clone();
    let expected = if dice.below(WHOLE_EVERY) == 0 {
        Some(
            resize_encoded(&file, &spec)
                .map_err(|error| error.to_string())?
                .bytes,
        )
    } else {
        mutate(&mut file, dice);
        seen.faults += 1;
        None
    };
    let file = lab.from_slice(&file).map_err(|error| error.to_string())?;
    let job = lab.submit(shrink, (&file, spec));
    Ok(Case { job, expected })
}

fn judge(Case { job, expected }: Case) -> Result<(), String> {
    match (job.wait(), expected) {
        (Ok(made), Some(expected)) if made[..] == expected[..] => Ok(()),
        (_, Some(_)) => Err("a whole one gives something else than in one process".into()),
        (Ok(made), None) if probe(&made).is_some() => Ok(()),
        (Ok(_), None) => Err("a result that is no picture".into()),
        (Err(error), None) => match error.kind() {
            JobErrorKind::Returned(text) if is_a_sentence(text) => Ok(()),
            _ => Err(error.to_string()),
        },
    }
}

/// Something for a person, on one line.
fn is_a_sentence(text: &str) -> bool {
    !text.is_empty() && !text.chars().any(char::is_control)
}
