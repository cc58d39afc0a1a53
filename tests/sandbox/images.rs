//! Decoders of every format in sandboxed workers.

use std::io::Cursor;
use std::path::PathBuf;

use arenite::Array;
use arenite_image::{ImageError, Output, ResizeSpec, resize_encoded};

use crate::harness::{Calls, step, tests};
use crate::lab::strict;

tests![
    pictures_decode_as_without_a_sandbox,
    broken_files_are_errors
];

const SAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../samples");

fn shrink(file: &Array<u8>, spec: ResizeSpec) -> Result<Array<u8>, ImageError> {
    Ok(Array::from_slice(&resize_encoded(file, &spec)?.bytes))
}

fn spec(output: Output) -> ResizeSpec {
    ResizeSpec {
        output,
        ..ResizeSpec::new("64".parse().unwrap())
    }
}

/// Of each sample, and of a picture in each format.
fn pictures_decode_as_without_a_sandbox() {
    use image::ImageFormat::{Bmp, Gif, Jpeg, Png, Tiff, WebP};
    let samples = std::fs::read_dir(SAMPLES).unwrap();
    let samples = samples.map(|entry| entry.unwrap().path());
    let is_picture = |path: &PathBuf| path.extension().is_some_and(|end| end != "md");
    let mut files: Vec<(String, Vec<u8>)> = samples
        .filter(is_picture)
        .map(|path| (path.display().to_string(), std::fs::read(path).unwrap()))
        .collect();
    assert!(files.len() >= 5, "{} samples", files.len());
    let picture = image::RgbImage::from_fn(200, 150, |x, y| {
        image::Rgb([x as u8, y as u8, (x ^ y) as u8])
    });
    files.extend([Bmp, Gif, Jpeg, Png, Tiff, WebP].map(|format| {
        let mut bytes = Cursor::new(Vec::new());
        picture.write_to(&mut bytes, format).unwrap();
        (format!("{format:?}"), bytes.into_inner())
    }));
    let lab = strict(2);
    for (name, bytes) in files {
        let file = lab.from_slice(&bytes).unwrap();
        for output in [Output::SameAsInput, Output::Jpeg, Output::Png, Output::WebP] {
            step(format!("{name} as {output:?}"));
            let made = lab.value_of(shrink, (&file, spec(output)));
            let expected = resize_encoded(&file, &spec(output)).unwrap();
            assert_eq!(made[..], expected.bytes[..], "{name}");
        }
    }
    assert_eq!(lab.stats().restarts(), 0);
}

fn broken_files_are_errors() {
    let lab = strict(1);
    let whole = std::fs::read(format!("{SAMPLES}/rocket.jpg")).unwrap();
    for keep in [0, 2, 100, whole.len() / 2] {
        let file = lab.from_slice(&whole[..keep]).unwrap();
        let error = lab.error_of(shrink, (&file, spec(Output::Jpeg)));
        assert!(
            matches!(error.kind(), arenite::JobErrorKind::Returned(_)),
            "{keep} bytes: {error}"
        );
    }
    assert_eq!(lab.stats().workers[0].restarts, 0);
}
