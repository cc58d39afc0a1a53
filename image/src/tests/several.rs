//! Several sizes of one decode, against a run for each.

use super::*;

fn sizes(texts: &[&str]) -> Vec<Size> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// The mean difference of the samples, in levels of 255.
fn difference(one: &Pixels, other: &Pixels) -> f64 {
    let shape = |pixels: &Pixels| (pixels.width, pixels.height, pixels.color);
    assert_eq!(shape(one), shape(other));
    let levels = |pixels: &Pixels| -> Vec<f64> {
        match &pixels.samples {
            Samples::Eight(samples) => samples.iter().map(|&s| f64::from(s)).collect(),
            Samples::Sixteen(samples) => samples.iter().map(|&s| f64::from(s) / 257.0).collect(),
        }
    };
    let (one, other) = (levels(one), levels(other));
    let sum: f64 = one.iter().zip(&other).map(|(a, b)| (a - b).abs()).sum();
    sum / one.len() as f64
}

/// Noise on waves: what a shortcut would blur or alias.
fn noise(width: u32, height: u32) -> RgbImage {
    let mut picture = waves(width, height);
    let mut seed = 1_u32;
    for sample in picture.iter_mut() {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *sample = sample.saturating_add_signed((seed >> 24) as u8 as i8 / 4);
    }
    picture
}

#[test]
fn the_largest_is_that_of_its_own_run_and_the_rest_is_as_good() {
    let photo = noise(803, 601);
    let alpha = DynamicImage::ImageRgb8(photo.clone()).into_rgba8();
    let mut holes = alpha.clone();
    for (x, y, pixel) in holes.enumerate_pixels_mut() {
        pixel[3] = if (x / 9 + y / 7) % 2 == 0 { 0 } else { 255 };
    }
    let deep = DynamicImage::ImageRgb16(DynamicImage::ImageRgb8(photo.clone()).into_rgb16());
    let grey = DynamicImage::ImageLuma8(DynamicImage::ImageRgb8(photo.clone()).into_luma8());
    let samples = ["chelsea.jpg", "coffee.png", "hubble-deep-field.jpg"].map(|name| {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../samples");
        (name, std::fs::read(format!("{folder}/{name}")).unwrap())
    });
    let made = [
        ("jpeg", jpeg(&photo)),
        ("progressive", progressive_jpeg(&photo)),
        ("png", written(&photo.clone().into(), ImageFormat::Png)),
        ("opaque", written(&alpha.into(), ImageFormat::Png)),
        ("holes", written(&holes.into(), ImageFormat::Png)),
        ("deep", written(&deep, ImageFormat::Png)),
        ("grey", written(&grey, ImageFormat::Png)),
        ("bmp", written(&photo.into(), ImageFormat::Bmp)),
    ];
    let mut worst = 0.0_f64;
    for (name, file) in made.into_iter().chain(samples) {
        for (list, fit) in [
            (["30", "200", "90"], Fit::Contain),
            (["20x60", "200x150", "50x50"], Fit::Cover),
            (["17x90!", "200x150!", "60x61!"], Fit::Fill),
        ] {
            for filter in [Filter::Lanczos3, Filter::Bilinear, Filter::Box] {
                let spec = ResizeSpec {
                    fit,
                    filter,
                    ..ResizeSpec::full_size()
                };
                let sizes = sizes(&list);
                let together = resize_sizes_to_pixels(&file, &spec, &sizes).unwrap();
                for (index, (size, pixels)) in sizes.iter().zip(&together).enumerate() {
                    let alone = ResizeSpec {
                        size: *size,
                        ..spec
                    };
                    let alone = resize_to_pixels(&file, &alone).unwrap();
                    let what = format!("{name}, {size}, {fit:?}, {filter:?}");
                    let error = difference(pixels, &alone);
                    worst = worst.max(error);
                    assert!(error <= 2.0, "{what}: {error}");
                    let is_exact =
                        !name.ends_with("jpg") && !matches!(name, "jpeg" | "progressive");
                    if index == 1
                        || filter == Filter::Box
                        || (is_exact && filter != Filter::Lanczos3)
                    {
                        assert_eq!(*pixels, alone, "{what}");
                    }
                }
            }
        }
    }
    println!("the worst mean difference is {worst:.2} levels");
}

#[test]
fn sizes_have_results_in_their_order_and_equal_ones_are_equal() {
    let file = jpeg(&waves(64, 48));
    let spec = ResizeSpec {
        enlarge: false,
        keep_metadata: true,
        ..ResizeSpec::full_size()
    };
    let list = sizes(&["100", "16x", "200", "x24", "32"]);
    let files = resize_encoded_sizes(&file, &spec, &list).unwrap();
    let widths: Vec<u32> = files.iter().map(|file| decoded(file).width()).collect();
    assert_eq!(widths, [64, 16, 64, 32, 32]);
    assert_eq!(files[0], files[2]);
    assert_eq!(files[3], files[4]);
    let pixels = resize_sizes_to_pixels(&file, &spec, &list).unwrap();
    assert_eq!(pixels[0], pixels[2]);
    assert_eq!(pixels[1].width, 16);
}

#[test]
fn each_result_is_upright_and_has_its_own_sides_in_its_metadata() {
    let pixels = Pixels {
        width: 64,
        height: 48,
        color: Color::Rgb,
        samples: Samples::Eight(quarters(64, 48).into_raw()),
    };
    let metadata = Metadata {
        exif: Some(exif(6)),
        ..Metadata::default()
    };
    let file = jpeg::encode(&pixels, Encoding::new(90), Some(&metadata)).unwrap();
    let spec = ResizeSpec {
        keep_metadata: true,
        ..ResizeSpec::full_size()
    };
    let [red, green, blue, yellow] = QUARTERS;
    for result in resize_encoded_sizes(&file, &spec, &sizes(&["24x", "12x"])).unwrap() {
        assert_eq!(result.height * 3, result.width * 4);
        assert_quarters(&decoded(&result), [blue, red, yellow, green]);
        let again = resize_encoded(&result.bytes, &ResizeSpec::full_size()).unwrap();
        assert_eq!((again.width, again.height), (result.width, result.height));
    }
}

#[test]
fn one_bad_size_is_the_error_of_all() {
    let file = jpeg(&waves(64, 48));
    let spec = ResizeSpec::full_size();
    let none = resize_encoded_sizes(&file, &spec, &[]).unwrap_err();
    assert!(matches!(none, ImageError::BadRequest { .. }), "{none}");
    let large = resize_encoded_sizes(&file, &spec, &sizes(&["8", "60000"])).unwrap_err();
    let expected = matches!(large, ImageError::OutputTooManyPixels { .. });
    assert!(expected, "{large}");
}

/// A result of the picture's own size is a copy, whatever else is made.
#[test]
fn no_result_is_made_from_an_enlarged_one() {
    let picture = noise(40, 30);
    let file = written(&picture.into(), ImageFormat::Png);
    for enlarged in ["160x", "30%"] {
        for others in [["100%", "20x"], ["100%", "13x9!"]] {
            let all = sizes(&[&others[..], &[enlarged, "120x400!"]].concat());
            let made = resize_encoded_sizes(&file, &ResizeSpec::full_size(), &all).unwrap();
            for (made, size) in made.iter().zip(&all) {
                let alone = ResizeSpec {
                    size: *size,
                    ..ResizeSpec::full_size()
                };
                let alone = resize_encoded(&file, &alone).unwrap();
                assert_eq!(made.bytes, alone.bytes, "{size} beside {enlarged}");
            }
        }
    }
}
