//! Statistics of photos, in two steps that share their memory:
//! `cargo run --release --example pipeline [PHOTO…]`.
//!
//! The bytes of each file are read directly into the arena. One worker decodes them and computes statistics of the
//! pixels, which never leave it. A file that breaks the decoder fails only itself.

use std::path::PathBuf;

use arenite::{Array, Engine, JobError, JobErrorKind};
use arenite_image::{ResizeSpec, resize_to_pixels};

/// Decodes to rows × columns × channels, at most `side` pixels per side.
fn decode(file: &[u8], side: u32) -> Result<Array<u8>, Box<dyn std::error::Error>> {
    let spec = ResizeSpec::new(format!("{side}x{side}>").parse()?);
    Ok(resize_to_pixels(file, &spec)?.to_array()?)
}

/// Returns the histogram of all channels, and the mean of each (up to four).
fn statistics(pixels: &Array<u8>) -> (Array<u64>, [f64; 4]) {
    let channels = pixels.shape().dims()[2];
    let mut sums = [0u64; 4];
    let mut histogram = [0u64; 256];
    for pixel in pixels.chunks(channels) {
        for (sum, &value) in sums.iter_mut().zip(pixel) {
            *sum += u64::from(value);
            histogram[usize::from(value)] += 1;
        }
    }
    let count = (pixels.len() / channels).max(1) as f64;
    (
        Array::from_slice(&histogram),
        sums.map(|sum| sum as f64 / count),
    )
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    arenite::init();
    let engine = Engine::builder().workers(2).capacity(512 << 20).build()?;
    let mut paths: Vec<PathBuf> = std::env::args_os()
        .skip(1)
        .map(PathBuf::from)
        .filter(|path| path.is_file())
        .collect();
    if paths.is_empty() {
        let samples = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../samples"))?;
        paths = samples
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<_, _>>()?;
        paths.sort();
    }

    // Submits all jobs before waiting for the first. The values between the two steps stay in the worker.
    let jobs = paths.iter().map(|path| {
        let file = engine.read_file(path)?;
        Ok(engine
            .job(decode, (&file, 512))
            .then(statistics, ())
            .submit())
    });
    let jobs = jobs.collect::<Result<Vec<_>, arenite::InputError>>()?;
    let mut photos = 0;
    for (path, job) in paths.iter().zip(jobs) {
        let name = path.file_name().unwrap_or_default().display();
        match job.wait() {
            Ok((histogram, means)) => {
                photos += 1;
                let median = median(&histogram);
                println!("{name}: median {median}, means {:.1?}", means);
                assert!(
                    histogram.iter().sum::<u64>() > 0 && means.iter().all(|mean| *mean <= 255.0)
                );
            }
            Err(error) => println!("{name}: {}", reason(&error)),
        }
    }
    assert!(photos > 0, "none of the files is a photo");
    Ok(())
}

fn median(histogram: &[u64]) -> usize {
    let half = histogram.iter().sum::<u64>() / 2;
    let mut seen = 0;
    histogram
        .iter()
        .position(|count| {
            seen += count;
            seen > half
        })
        .unwrap_or(0)
}

/// Returns the reason for the user: not a picture, or a crash of the decoder.
fn reason(error: &JobError) -> String {
    match error.kind() {
        JobErrorKind::Returned(why) => why.to_string(),
        kind => format!("the decoder failed: {kind}"),
    }
}
