//! A lazy pipeline over pictures, and a drawing of its run:
//! `cargo run --release --example graph [--dot FILE] [PHOTO…]`.
//!
//! How sharp is each photo, and which is the sharpest? Describing the graph runs nothing. The requested nodes then run
//! once, in parallel; steps that only pass values on are fused into one job; a file that breaks the decoder fails only
//! the nodes that depend on it.

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

/// Returns the run times in the labels of a drawing: in seconds, and as written.
fn times(dot: &str) -> Vec<(f64, &str)> {
    let labels = dot.split("[label=\"").skip(1);
    let texts = labels.filter_map(|label| label.split('"').next()?.split("\\n").nth(1));
    let seconds = |text: &str| {
        let (number, unit) = text.split_at(text.find(|c: char| c.is_alphabetic())?);
        let number: f64 = number.parse().ok()?;
        Some(match unit.split([' ', ',']).next()? {
            "s" => number,
            "ms" => number * 1e-3,
            "µs" => number * 1e-6,
            "ns" => number * 1e-9,
            _ => return None,
        })
    };
    let timed = texts.filter(|text| text.contains(", worker 0") || text.contains(", worker 1"));
    timed
        .filter_map(|text| Some((seconds(text)?, text)))
        .collect()
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

    let mut graph = Graph::new();
    let mut scores = Vec::new();
    for path in &paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let file = engine.read_file(path)?;
        // A picture that crashes its worker is retried.
        let pixels = graph.job(decode, (&file, 256)).name(name).retries(1).add();
        let grey = graph.add(grey, (&pixels,));
        // From here to the score, each value is used by the next step only.
        let blurred = graph.add(blur, (&grey, 2));
        let edges = graph.add(difference, (&grey, &blurred));
        scores.push(graph.add(mean, (&edges,)));
        // This node is not requested, so it never runs.
        let _unused = graph.add(blur, (&grey, 20));
    }
    // A file that is not a picture fails this node, but not the other scores.
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
    let (dot, jobs, busy) = (running.dot(), running.jobs(), running.busy());
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
                JobErrorKind::Dependency(FailedDependency::Node { cause, .. }) => {
                    println!("{name}: {cause}")
                }
                kind => println!("{name}: {kind}"),
            },
        }
    }
    match best {
        Ok(best) => {
            println!("the sharpest: {best:.2}");
            assert_eq!(best, sharpest);
        }
        Err(error) => println!("the sharpest is unknown: {error}"),
    }
    assert!(sharpest > 0.0, "none of the files is a photo");

    assert!(dot.starts_with("digraph") && dot.contains("not needed"));
    // Each node that ran has its time and worker, also the last two steps of a photo, which are one job.
    let times = times(&dot);
    assert!(times.len() >= 5 * good, "{times:?}");
    assert!(
        !times.iter().any(|(_, text)| text.contains(" with ")),
        "{times:?}"
    );
    // The slowest node has the warmest colour.
    let longest = times
        .iter()
        .map(|(seconds, _)| *seconds)
        .fold(0.0, f64::max);
    let seconds = busy.as_secs_f64();
    assert!(longest <= 1.1 * seconds && longest * times.len() as f64 >= 0.9 * seconds);
    assert!(dot.contains("fillcolor=\"#fec087\""));
    println!("{jobs} jobs were busy for {busy:.1?}");
    if let Some(path) = dot_to {
        std::fs::write(&path, dot)?;
        println!("`dot -Tsvg {}` draws the graph", path.display());
    }
    Ok(())
}
