//! Pictures with random truncations, flipped bits and gaps: each gives a picture or an error. And bombs: each gives an error before
//! memory is allocated for it.

use std::io::Cursor;
use std::time::Instant;

use arenite::{Array, Job, JobErrorKind};
use arenite_image::{Output, ResizeSpec, Size, probe, resize_encoded};

use crate::harness::Dice;
use crate::harness::runs::{Order, Seen};
use crate::harness::{Invariant, Lab, step};

/// The longest side of a result.
const SIDE: u32 = 16;
/// Sizes of the parts with headers, which get two of three mutations: the headers of a JPEG are at its beginning, the directory
/// of a TIFF at its end.
const HEADER: u64 = 640;
const DIRECTORY: u64 = 130;
/// Number of jobs that are submitted together.
const BATCH: usize = 64;
/// One of this many cases is not mutated; its result has to equal that of one process.
const WHOLE_EVERY: u64 = 16;
/// One of this many cases is a bomb: it announces far more than it contains.
const BOMB_EVERY: u64 = 16;
/// Memory limit of a worker: less than the large bombs decode to, and more than the 256 MiB that the TIFF decoder may allocate for
/// a list of a directory before it can be given a limit.
const CEILING: u64 = 320 << 20;

/// The kernel: decodes a picture and encodes a small one.
fn shrink(file: &[u8], spec: ResizeSpec) -> Result<Array<u8>, String> {
    let small = resize_encoded(file, &spec).map_err(|error| error.to_string())?;
    if small.width.max(small.height) > SIDE || small.width.min(small.height) == 0 {
        // Not an error of the picture: it fails the run.
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
        // A header with a flipped bit is refused, not decoded for seconds.
        max_pixels: 1_000_000,
        max_bytes: 16 << 20,
        keep_metadata: true,
        output,
        ..ResizeSpec::new(square(SIDE)?)
    })
}

/// Returns an uncompressed picture, from which the other formats are created.
pub(super) fn bitmap(width: u32, height: u32) -> Vec<u8> {
    let pixel = |x, y| image::Rgb([0, 1, 2].map(|part| (((3 * x + part) * 5) ^ (y * 7)) as u8));
    let picture = image::RgbImage::from_fn(width, height, pixel);
    let mut file = Cursor::new(Vec::new());
    let written = picture.write_to(&mut file, image::ImageFormat::Bmp);
    written.expect("a small picture can be written");
    file.into_inner()
}

/// Returns an uncompressed GIF: the table of its decoder is cleared before it grows, so that each code is a byte.
fn gif(width: u16, height: u16, data: &[u8]) -> Vec<u8> {
    let sides = [width.to_le_bytes(), height.to_le_bytes()].concat();
    let mut file = b"GIF89a".to_vec();
    file.extend(&sides);
    // 128 colours follow.
    file.extend([0xf6, 0, 0]);
    file.extend((0..128u8).flat_map(|n| [n * 2, 255 - n, n ^ 0x55]));
    file.extend([0x2c, 0, 0, 0, 0]);
    file.extend(&sides);
    file.extend([0, 7]);
    const EMPTY: u8 = 128;
    let codes = data.chunks(100).flat_map(|run| {
        let run = run.iter().map(|colour| colour % 128);
        std::iter::once(EMPTY).chain(run)
    });
    let codes: Vec<u8> = codes.chain([EMPTY + 1]).collect();
    for block in codes.chunks(255) {
        file.push(block.len() as u8);
        file.extend(block);
    }
    file.extend([0, 0x3b]);
    file
}

/// Returns a grey TIFF of one strip with this declared length. Its directory follows the pixels.
fn tiff(width: u32, height: u32, strip: u32, pixels: &[u8]) -> Vec<u8> {
    const SHORT: u16 = 3;
    const LONG: u16 = 4;
    let end = (8 + pixels.len() as u32).next_multiple_of(2);
    let entries: [(u16, u16, u32); 9] = [
        (256, LONG, width),
        (257, LONG, height),
        // Eight bits of grey, not packed.
        (258, SHORT, 8),
        (259, SHORT, 1),
        (262, SHORT, 1),
        (273, LONG, 8),
        (277, SHORT, 1),
        (278, LONG, height),
        (279, LONG, strip),
    ];
    let mut file = b"II*\0".to_vec();
    file.extend(end.to_le_bytes());
    file.extend(pixels);
    file.resize(end as usize, 0);
    file.extend((entries.len() as u16).to_le_bytes());
    for (tag, kind, value) in entries {
        file.extend(tag.to_le_bytes());
        file.extend(kind.to_le_bytes());
        file.extend(1u32.to_le_bytes());
        file.extend(value.to_le_bytes());
    }
    file.extend([0; 4]);
    file
}

/// Returns files of a few bytes that announce gigabytes.
fn bombs(whole: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut bombs = vec![
        PNG_OF_A_GIGABYTE.to_vec(),
        // 7 GB.
        gif(42_000, 42_000, &[0]),
        // The number of its pixels is allowed, that of its bytes is not.
        gif(10_000, 10_000, &[0]),
        // 45 GB, and 121 MB, which the pixel limit allows; in a strip of 4 GB.
        tiff(213_800, 213_800, u32::MAX, &[0; 64]),
        tiff(11_000, 11_000, u32::MAX, &[0; 64]),
    ];
    // 363 MB.
    let bitmap = whole.iter().find(|file| file.starts_with(b"BM"));
    bombs.extend(bitmap.map(|file| {
        let mut file = file.clone();
        for side in [18, 22] {
            file[side..side + 4].copy_from_slice(&11_000u32.to_le_bytes());
        }
        file
    }));
    bombs
}

/// 16,384 by 16,384 pixels of four bytes, of which none are there; its checksums are right.
const PNG_OF_A_GIGABYTE: &[u8; 65] = b"\x89PNG\r\n\x1a\n\
    \0\0\0\rIHDR\0\0@\0\0\0@\0\x08\x06\0\0\0\xa9\xc8\x10\x84\
    \0\0\0\x08IDATx\x9cc\0\0\0\x01\0.\xee\x87_\
    \0\0\0\0IEND\xaeB`\x82";

/// Returns a valid picture in each supported format.
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
    let grey = &bitmap[54..];
    seeds.push(gif(61, 47, &grey[..61 * 47]));
    seeds.push(tiff(61, 47, 61 * 47, &grey[..61 * 47]));
    seeds.push(bitmap);
    Ok(seeds)
}

/// Applies one to four mutations to a picture.
fn mutate(file: &mut Vec<u8>, dice: &mut Dice) {
    for _ in 0..=dice.below(4) {
        let len = file.len() as u64;
        let at = match dice.below(3) {
            0 => dice.below(len),
            1 => dice.below(len.min(HEADER)),
            _ => len.saturating_sub(1 + dice.below(len.min(DIRECTORY))),
        };
        let at = at as usize;
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

/// A running case, with its expected result.
struct Case {
    job: Job<Array<u8>>,
    expected: Expected,
}

enum Expected {
    /// The result of one process.
    This(Vec<u8>),
    /// A picture or an error.
    Anything,
    /// An error, because it announces too much.
    Refusal,
}

/// Each case gives a picture that can be decoded, or an error of one sentence. No worker dies.
pub(super) fn run(order: Order) -> Result<Seen, String> {
    let seeds = seeds()?;
    let bombs = bombs(&seeds);
    let invariant = Invariant::before();
    let lab = Lab::with(2, |builder| builder.memory_limit(CEILING));
    let mut dice = Dice::new(order.seed);
    let end = Instant::now() + order.length;
    let mut seen = Seen::default();
    while seen.jobs == 0 || Instant::now() < end {
        step("pictures that are broken");
        let mut cases = Vec::with_capacity(BATCH);
        for _ in 0..BATCH {
            cases.push(begin(&lab, &seeds, &bombs, &mut dice, &mut seen)?);
        }
        for case in cases {
            judge(case).map_err(|why| format!("picture {}: {why}", seen.jobs))?;
            seen.jobs += 1;
        }
    }
    let restarts = lab.stats().restarts();
    if restarts > 0 {
        return Err(format!("{restarts} workers died of a picture"));
    }
    invariant.ends(lab)?;
    Ok(seen)
}

fn begin(
    lab: &Lab,
    seeds: &[Vec<u8>],
    bombs: &[Vec<u8>],
    dice: &mut Dice,
    seen: &mut Seen,
) -> Result<Case, String> {
    let outputs = [Output::Jpeg, Output::Png, Output::WebP];
    let mut spec = spec(outputs[dice.below(outputs.len() as u64) as usize])?;
    let mut file = seeds[dice.below(seeds.len() as u64) as usize].clone();
    let expected = if dice.below(WHOLE_EVERY) == 0 {
        let made = resize_encoded(&file, &spec).map_err(|error| error.to_string())?;
        Expected::This(made.bytes)
    } else if dice.below(BOMB_EVERY) == 0 {
        file.clone_from(&bombs[dice.below(bombs.len() as u64) as usize]);
        // Default limits.
        spec = ResizeSpec::new(square(SIDE)?);
        seen.faults += 1;
        Expected::Refusal
    } else {
        mutate(&mut file, dice);
        seen.faults += 1;
        Expected::Anything
    };
    let file = lab.from_slice(&file).map_err(|error| error.to_string())?;
    let job = lab.submit(shrink, (&file, spec));
    Ok(Case { job, expected })
}

fn judge(Case { job, expected }: Case) -> Result<(), String> {
    match (job.wait(), expected) {
        (Ok(made), Expected::This(bytes)) if made[..] == bytes[..] => Ok(()),
        (_, Expected::This(_)) => {
            Err("a valid picture has another result than in one process".into())
        }
        (Ok(_), Expected::Refusal) => Err("a bomb was decoded".into()),
        (Ok(made), Expected::Anything) if probe(&made).is_some() => Ok(()),
        (Ok(_), Expected::Anything) => Err("a result that is no picture".into()),
        (Err(error), Expected::Anything | Expected::Refusal) => match error.kind() {
            JobErrorKind::Returned(text) if is_a_sentence(text.text()) => Ok(()),
            _ => Err(error.to_string()),
        },
    }
}

/// Returns whether this is a message on one line.
fn is_a_sentence(text: &str) -> bool {
    !text.is_empty() && !text.chars().any(char::is_control)
}
