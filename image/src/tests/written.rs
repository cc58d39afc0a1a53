//! Pictures of other writers, in every combination of what their formats offer, against what other decoders show: see
//! `pictures/make.py`. And pictures that were reported as refused or wrong: `reported/README.md`.

use std::path::{Path, PathBuf};

use image::RgbaImage;

use super::*;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/tests")
        .join(name)
}

/// The pictures of a folder that have an expected result beside them, sorted by name.
fn pictures(name: &str) -> Vec<(String, Vec<u8>, RgbaImage)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder(name)).unwrap() {
        let path = entry.unwrap().path();
        let shown = PathBuf::from(format!("{}.png", path.display()));
        let is_heic = path
            .extension()
            .is_some_and(|extension| extension == "heic");
        if is_heic && let Err(error) = heic_decoder() {
            assert!(
                std::env::var_os("ARENITE_NEED_LIBDE265").is_none(),
                "{error}"
            );
            continue;
        }
        if shown.exists() {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let shown = image::open(shown).unwrap().to_rgba8();
            found.push((name, std::fs::read(path).unwrap(), shown));
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

/// The mean difference of two pictures in steps of 255, with colours weighted by alpha.
fn mean_error(one: &RgbaImage, other: &RgbaImage) -> f64 {
    let weighted = |pixel: &image::Rgba<u8>| {
        let [r, g, b, a] = pixel.0.map(f64::from);
        [r * a / 255.0, g * a / 255.0, b * a / 255.0, a]
    };
    let mut sum = 0.0;
    for (one, other) in one.pixels().zip(other.pixels()) {
        let parts = weighted(one).into_iter().zip(weighted(other));
        sum += parts.map(|(one, other)| (one - other).abs()).sum::<f64>();
    }
    sum / (4.0 * f64::from(one.width()) * f64::from(one.height()))
}

fn rgba(pixels: Pixels) -> RgbaImage {
    let (width, height) = (pixels.width, pixels.height);
    let pixels = pixels.into_eight_bits().into_rgb();
    let Samples::Eight(samples) = pixels.samples else {
        panic!("eight bits")
    };
    match pixels.color {
        Color::Rgb => {
            let picture = RgbImage::from_raw(width, height, samples).unwrap();
            DynamicImage::from(picture).to_rgba8()
        }
        Color::Rgba => RgbaImage::from_raw(width, height, samples).unwrap(),
        other => panic!("{other:?}"),
    }
}

/// The largest mean error, in steps of 255.
const MAX: f64 = 2.0;

#[track_caller]
fn compare(folder: &str, spec: impl Fn(&RgbaImage) -> ResizeSpec, least: usize) {
    let pictures = pictures(folder);
    assert!(pictures.len() >= least, "{} pictures", pictures.len());
    let mut wrong = Vec::new();
    for (name, file, shown) in pictures {
        let mut spec = spec(&shown);
        if name.ends_with(".heic") {
            // The default is JPEG, which has no alpha.
            spec.output = Output::Png;
        }
        match resize_to_pixels(&file, &spec) {
            Err(error) => wrong.push(format!("{name}: {error}")),
            Ok(pixels) if (pixels.width, pixels.height) != shown.dimensions() => {
                wrong.push(format!("{name}: {}x{}", pixels.width, pixels.height));
            }
            Ok(pixels) => {
                let error = mean_error(&rgba(pixels), &shown);
                if error > MAX {
                    wrong.push(format!("{name}: mean error {error:.1}"));
                }
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn pictures_of_other_writers_look_as_in_other_decoders() {
    compare("pictures", |_| ResizeSpec::full_size(), 280);
}

#[test]
fn reported_pictures_look_as_in_other_decoders() {
    let spec = |shown: &RgbaImage| ResizeSpec {
        filter: Filter::Box,
        ..ResizeSpec::new(
            format!("{}x{}!", shown.width(), shown.height())
                .parse()
                .unwrap(),
        )
    };
    compare("reported", spec, 18);
}
