//! Decoders of every format in sandboxed workers.

use std::io::Cursor;

use arenite::Array;
use arenite_image::{ImageError, Output, ResizeSpec, resize_encoded};

use crate::harness::{step, tests};
use crate::lab::strict;

tests![
    samples_decode_as_without_a_sandbox,
    every_format_is_read,
    broken_files_are_errors
];

fn shrink(file: &Array<u8>, spec: ResizeSpec) -> Result<Array<u8>, ImageError> {
    Ok(Array::from_slice(&resize_encoded(file, &spec)?.bytes))
}

fn spec(output: Output) -> ResizeSpec {
    ResizeSpec {
        output,
        ..ResizeSpec::new("64".parse().unwrap())
    }
}

fn outputs() -> [Output; 4] {
    [Output::SameAsInput, Output::Jpeg, Output::Png, Output::WebP]
}

fn samples_decode_as_without_a_sandbox() {
    let lab = strict(2);
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../samples");
    let mut pictures = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension == "md") {
            continue;
        }
        let file = lab.read_file(&path).unwrap();
        for output in outputs() {
            step(format!("{} as {output:?}", path.display()));
            let made = lab.submit(shrink, (&file, spec(output))).wait().unwrap();
            assert_eq!(
                made[..],
                resize_encoded(&file, &spec(output)).unwrap().bytes[..],
                "{}",
                path.display()
            );
        }
        pictures += 1;
    }
    assert!(pictures >= 5, "{pictures} samples");
    assert_eq!(lab.stats().restarts(), 0);
}

fn every_format_is_read() {
    use image::ImageFormat::{Bmp, Gif, Jpeg, Png, Tiff, WebP};
    let lab = strict(1);
    let picture = image::RgbImage::from_fn(200, 150, |x, y| {
        image::Rgb([x as u8, y as u8, (x ^ y) as u8])
    });
    for format in [Bmp, Gif, Jpeg, Png, Tiff, WebP] {
        step(format!("{format:?}"));
        let mut bytes = Cursor::new(Vec::new());
        picture.write_to(&mut bytes, format).unwrap();
        let file = lab.from_slice(bytes.get_ref()).unwrap();
        for output in outputs() {
            let made = lab.submit(shrink, (&file, spec(output))).wait().unwrap();
            assert_eq!(
                made[..],
                resize_encoded(&file, &spec(output)).unwrap().bytes[..],
                "{format:?}"
            );
        }
    }
}

fn broken_files_are_errors() {
    let lab = strict(1);
    let whole = std::fs::read(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../samples/rocket.jpg"
    ))
    .unwrap();
    for keep in [0, 2, 100, whole.len() / 2] {
        let file = lab.from_slice(&whole[..keep]).unwrap();
        let error = lab.failure_of(lab.submit(shrink, (&file, spec(Output::Jpeg))));
        assert!(
            matches!(error.kind(), arenite::JobErrorKind::Returned(_)),
            "{keep} bytes: {error}"
        );
    }
    assert_eq!(lab.stats().workers[0].restarts, 0);
}
