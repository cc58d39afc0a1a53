//! Jobs over pictures that take each other's values, and a drawing of them:
//! `cargo run --release --example graph [--dot FILE] [PHOTO…]`.
//!
//! How sharp is each photo, and which is the sharpest? Each job runs once its inputs are there, in parallel; no picture
//! visits this program; a file that breaks the decoder fails only the jobs that take its picture.

use std::path::PathBuf;

use arenite::{Array, Engine, FailedDependency, Graph, JobErrorKind};
use arenite_image::{ResizeSpec, resize_to_pixels};

/// Decodes to rows × columns × channels, at most `side` pixels per side.
fn decode(file: &[u8], side: u32) -> Result<Array<u8>, Box<dyn std::error::Error>> {
    let spec = ResizeSpec::new(format!("{side}x{side}>").parse()?);
    Ok(resize_to_pixels(file, &spec)?.to_array()?)
}

/// Returns the mean of the channels of each pixel.
fn grey(pixels: &Array<u8>) -> Array<f32> {
    let shape = pixels.shape();
    let &[height, width, channels] = shape.dims() else {
        return Array::from_slice(&[]);
    };
    Array::from_fn([height, width], |at| {
        let pixel = &pixels[at * channels..][..channels];
        pixel.iter().map(|&value| f32::from(value)).sum::<f32>() / channels as f32
    })
}

/// Replaces each pixel by the mean of its neighbourhood.
fn blur(picture: &Array<f32>, radius: usize) -> Array<f32> {
    let shape = picture.shape();
    let (height, width) = (shape.rows(), shape.row_len().unwrap_or(0));
    Array::from_fn([height, width], |at| {
        let (y, x) = (at / width, at % width);
        let rows = y.saturating_sub(radius)..(y + radius + 1).min(height);
        let columns = x.saturating_sub(radius)..(x + radius + 1).min(width);
        let count = (rows.len() * columns.len()) as f32;
        let sum: f32 = rows
            .map(|y| picture[y * width..][columns.clone()].iter().sum::<f32>())
            .sum();
        sum / count
    })
}

/// Returns the detail that blurring removes.
fn difference(sharp: &[f32], blurred: &[f32]) -> Array<f32> {
    Array::from_fn(sharp.len(), |i| (sharp[i] - blurred[i]).abs())
}

fn mean(values: &[f32]) -> f64 {
    values.iter().map(|&x| f64::from(x)).sum::<f64>() / values.len().max(1) as f64
}

fn larger(a: f64, b: f64) -> f64 {
    a.max(b)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    arenite::init();
    let engine = Engine::builder().workers(2).capacity(512 << 20).build()?;
    let mut dot_to = None;
    let mut paths: Vec<PathBuf> = Vec::new();
    let mut arguments = std::env::args_os().skip(1);
    while let Some(argument) = arguments.next() {
        if argument == "--dot" {
            dot_to = arguments.next().map(PathBuf::from);
        } else if PathBuf::from(&argument).is_file() {
            paths.push(argument.into());
        }
    }
    if paths.is_empty() {
        let samples = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../samples"))?;
        let samples: Result<Vec<_>, _> = samples
            .map(|entry| entry.map(|entry| entry.path()))
            .collect();
        paths = samples?;
        paths.sort();
    }

    let mut graph = Graph::new(&engine);
    let mut scores = Vec::new();
    for path in &paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let file = engine.read_file(path)?;
        // A picture that crashes its worker is retried.
        let pixels = engine.job(decode, (&file, 256)).name(&name).retries(1);
        let pixels = graph.add_job(pixels);
        let grey = graph.add(grey, (pixels,));
        let blurred = graph.add(blur, (&grey, 2));
        let edges = graph.add(difference, (grey, blurred));
        scores.push(graph.add(mean, (edges,)));
    }
    // A file that is not a picture fails this job, but not the other scores.
    let Some(mut best) = scores
        .first()
        .map(|first| graph.add(larger, (first, first)))
    else {
        return Err("no files".into());
    };
    for score in &scores[1..] {
        best = graph.add(larger, (best, score));
    }
    println!("{} jobs", graph.len());
    assert_eq!(graph.len(), 6 * paths.len());
    let dot = graph.dot();
    let mut sharpest = 0f64;
    for (path, score) in paths.iter().zip(scores) {
        let name = path.file_name().unwrap_or_default().display();
        match score.wait() {
            Ok(score) => {
                sharpest = sharpest.max(score);
                println!("{name}: {score:.2}");
            }
            Err(error) => match error.kind() {
                JobErrorKind::Dependency(FailedDependency::Input { cause, .. }) => {
                    println!("{name}: {cause}")
                }
                kind => println!("{name}: {kind}"),
            },
        }
    }
    match best.wait() {
        Ok(best) => {
            println!("the sharpest: {best:.2}");
            assert_eq!(best, sharpest);
        }
        Err(error) => println!("the sharpest is unknown: {error}"),
    }
    assert!(sharpest > 0.0, "none of the files is a photo");

    // An arrow for each value that a job takes.
    assert!(dot.starts_with("digraph"));
    assert_eq!(dot.matches(" -> ").count(), 7 * paths.len());
    if let Some(path) = dot_to {
        std::fs::write(&path, dot)?;
        println!("`dot -Tsvg {}` draws the jobs", path.display());
    }
    Ok(())
}
