//! A lazy pipeline over pictures, and what it looked like when it ran:
//! `cargo run --release --example graph [--svg FILE] [PHOTO…]`.
//!
//! How sharp is each photo, and which is the sharpest? Nothing runs while the graph is described. What is asked for runs
//! once, side by side; steps that only take over each other's values are one job; a file that breaks the decoder costs what
//! depends on it and nothing else.

use std::path::PathBuf;

use arenite::{Array, Engine, Graph, JobErrorKind};
use arenite_image::{ResizeSpec, resize_to_pixels};

/// Rows by columns by channels, at most so many pixels on a side.
fn decode(file: &[u8], side: u32) -> Result<Array<u8>, Box<dyn std::error::Error>> {
    let spec = ResizeSpec::new(format!("{side}x{side}>").parse()?);
    Ok(resize_to_pixels(file, &spec)?.to_array()?)
}

/// The mean of the channels of each pixel.
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

/// Each pixel is the mean of those around it.
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

/// What blurring takes away.
fn difference(sharp: &[f32], blurred: &[f32]) -> Array<f32> {
    Array::from_fn(sharp.len(), |i| (sharp[i] - blurred[i]).abs())
}

fn mean(values: &[f32]) -> f64 {
    values.iter().map(|&x| f64::from(x)).sum::<f64>() / values.len().max(1) as f64
}

fn larger(a: f64, b: f64) -> f64 {
    a.max(b)
}

/// What the nodes of a picture say, with their seconds.
fn times(svg: &str) -> Vec<(f64, &str)> {
    let texts = svg
        .split("</text>")
        .filter_map(|before| before.rsplit('>').next());
    let seconds = |said: &str| {
        let (number, unit) = said.split_at(said.find(|c: char| c.is_alphabetic())?);
        let number: f64 = number.parse().ok()?;
        Some(match unit.split([' ', ',']).next()? {
            "s" => number,
            "ms" => number * 1e-3,
            "µs" => number * 1e-6,
            "ns" => number * 1e-9,
            _ => return None,
        })
    };
    let said = texts.filter(|said| said.contains(", worker 0") || said.contains(", worker 1"));
    said.filter_map(|said| Some((seconds(said)?, said)))
        .collect()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    arenite::init();
    let engine = Engine::builder().workers(2).capacity(512 << 20).build()?;
    let mut svg_to = None;
    let mut paths: Vec<PathBuf> = Vec::new();
    let mut arguments = std::env::args_os().skip(1);
    while let Some(argument) = arguments.next() {
        if argument == "--svg" {
            svg_to = arguments.next().map(PathBuf::from);
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

    let mut graph = Graph::new();
    let mut scores = Vec::new();
    for path in &paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let file = engine.read_file(path)?;
        // A picture that takes its worker with it has another try.
        let pixels = graph.job(decode, (&file, 256)).name(name).retries(1).add();
        let grey = graph.add(grey, (&pixels,));
        // From here to the score each value is taken by the next step alone.
        let blurred = graph.add(blur, (&grey, 2));
        let edges = graph.add(difference, (&grey, &blurred));
        scores.push(graph.add(mean, (&edges,)));
        // Nobody asks for this one, so it never runs.
        let _unused = graph.add(blur, (&grey, 20));
    }
    // A file that is no picture leaves this without a value, and the others as they are.
    let Some(mut best) = scores
        .first()
        .map(|first| graph.add(larger, (first, first)))
    else {
        return Err("no files".into());
    };
    for score in &scores[1..] {
        best = graph.add(larger, (&best, score));
    }
    let plan = graph.plan((&scores, &best))?;
    println!(
        "{} nodes, of which {} are needed, in {} jobs",
        graph.len(),
        plan.nodes,
        plan.jobs
    );
    assert_eq!(plan.nodes, graph.len() - paths.len());
    assert!(plan.jobs < plan.nodes);

    let running = graph.run(&engine, (&scores, &best))?;
    let report = running.report();
    let (scores, best) = running.results();
    let (mut sharpest, mut good) = (0f64, 0);
    for (path, score) in paths.iter().zip(scores) {
        let name = path.file_name().unwrap_or_default().display();
        match score {
            Ok(score) => {
                sharpest = sharpest.max(score);
                good += 1;
                println!("{name}: {score:.2}");
            }
            Err(error) => match error.kind() {
                JobErrorKind::DependencyFailed { cause, .. } => println!("{name}: {cause}"),
                kind => println!("{name}: {kind}"),
            },
        }
    }
    match best {
        Ok(best) => {
            println!("the sharpest: {best:.2}");
            assert_eq!(best, sharpest);
        }
        Err(error) => println!("the sharpest is not known: {error}"),
    }
    assert!(sharpest > 0.0, "none of the files is a photo");

    let svg = report.svg();
    assert!(svg.starts_with("<svg") && svg.contains("not needed"));
    // Each node that has run says how long and where, also the last two steps of a photo, which are one job.
    let times = times(&svg);
    assert!(times.len() >= 5 * good, "{times:?}");
    assert!(
        !times.iter().any(|(_, said)| said.contains(" with ")),
        "{times:?}"
    );
    // What took longest is the warmest.
    let longest = times
        .iter()
        .map(|(seconds, _)| *seconds)
        .fold(0.0, f64::max);
    let busy = report.busy().as_secs_f64();
    assert!(longest <= 1.1 * busy && longest * times.len() as f64 >= 0.9 * busy);
    assert!(svg.contains("fill=\"#fec087\""));
    println!("{} jobs were busy for {:.1?}", report.jobs(), report.busy());
    if let Some(path) = svg_to {
        std::fs::write(&path, svg)?;
        println!("drawn in {}", path.display());
    }
    Ok(())
}
