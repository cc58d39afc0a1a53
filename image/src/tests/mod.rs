//! Makes pictures, resizes them, and checks the results with another decoder.
#![allow(clippy::unwrap_used, reason = "tests")]

mod alpha;
mod animated;
mod attention;
mod avif;
mod broken;
mod checked;
mod chunks;
mod cut;
mod cut_frames;
mod formats;
mod hdr;
mod heic;
mod inks;
mod light;
mod metadata;
mod profiles;
mod raw;
mod several;
mod simple;
mod tiff_jpeg;
mod webp;
mod whole;
mod written;

use image::{DynamicImage, ExtendedColorType, ImageEncoder, ImageFormat, RgbImage};

use super::*;

/// Red, green, blue and yellow quarters, in reading order.
const QUARTERS: [[u8; 3]; 4] = [[200, 30, 30], [30, 180, 40], [40, 40, 210], [220, 210, 40]];

fn quarters(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let right = usize::from(x >= width / 2);
        let lower = usize::from(y >= height / 2);
        image::Rgb(QUARTERS[lower * 2 + right])
    })
}

/// A smooth picture with detail, without symmetry.
fn waves(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let (x, y) = (x as f32, y as f32);
        let wave = |a: f32, b: f32| (127.0 + 100.0 * (x * a + y * b).sin()) as u8;
        image::Rgb([wave(0.11, 0.02), wave(-0.05, 0.13), wave(0.031, 0.017)])
    })
}

fn written(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut file = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut file, format).unwrap();
    file.into_inner()
}

fn jpeg(picture: &RgbImage) -> Vec<u8> {
    let pixels = Pixels {
        width: picture.width(),
        height: picture.height(),
        color: Color::Rgb,
        samples: Samples::Eight(picture.as_raw().clone()),
    };
    jpeg::encode(&pixels, Encoding::new(92), None).unwrap()
}

fn progressive_jpeg(picture: &RgbImage) -> Vec<u8> {
    let mut encoder = mozjpeg::Compress::new(mozjpeg::ColorSpace::JCS_RGB);
    encoder.set_size(picture.width() as usize, picture.height() as usize);
    encoder.set_progressive_mode();
    encoder.set_quality(90.0);
    let mut encoder = encoder.start_compress(Vec::new()).unwrap();
    encoder.write_scanlines(picture.as_raw()).unwrap();
    encoder.finish().unwrap()
}

/// WebP of RGB, or of RGBA where there are four channels; lossless without a quality.
fn webp(samples: &[u8], (width, height): (u32, u32), quality: Option<u8>) -> Vec<u8> {
    let pixels = Pixels {
        width,
        height,
        color: match samples.len() / (width * height) as usize {
            3 => Color::Rgb,
            _ => Color::Rgba,
        },
        samples: Samples::Eight(samples.to_vec()),
    };
    let mut how = Encoding::new(quality.unwrap_or(75));
    how.lossless = quality.is_none();
    crate::webp::encode(&pixels, how, None).unwrap()
}

/// What is encoded for one size.
fn rendered(file: &[u8], spec: &ResizeSpec) -> Result<Rendered, ImageError> {
    let sizes = &[spec.size];
    let request = Request {
        spec,
        sizes,
        animates: false,
        checks: false,
    };
    render(file, request).map(|(mut all, _)| all.remove(0))
}

fn spec(size: &str) -> ResizeSpec {
    ResizeSpec::new(size.parse().unwrap())
}

fn decoded(encoded: &Encoded) -> DynamicImage {
    let picture = image::load_from_memory(&encoded.bytes).unwrap();
    assert_eq!(
        (picture.width(), picture.height()),
        (encoded.width, encoded.height)
    );
    assert_eq!(probe(&encoded.bytes), Some(encoded.format));
    picture
}

/// Asserts that the middles of the four quarters have these colours, up to the loss of a codec.
#[track_caller]
fn assert_quarters(picture: &DynamicImage, expected: [[u8; 3]; 4]) {
    let picture = picture.to_rgb8();
    let (w, h) = picture.dimensions();
    let middles = [
        (w / 4, h / 4),
        (3 * w / 4, h / 4),
        (w / 4, 3 * h / 4),
        (3 * w / 4, 3 * h / 4),
    ];
    let seen = middles.map(|(x, y)| picture.get_pixel(x, y).0);
    let near = |a: [u8; 3], b: [u8; 3]| a.iter().zip(b).all(|(a, b)| a.abs_diff(b) <= 24);
    assert!(
        seen.iter().zip(expected).all(|(&a, b)| near(a, b)),
        "expected {expected:?}, seen {seen:?}"
    );
}

/// The mean difference of two pictures with equal sides, in levels.
fn difference(one: &Pixels, other: &Pixels) -> f64 {
    assert_eq!((one.width, one.height), (other.width, other.height));
    let pairs = one.eight_bits().iter().zip(other.eight_bits());
    let sum: u64 = pairs.map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
    sum as f64 / one.eight_bits().len() as f64
}

/// Minimal EXIF: one entry, the orientation.
fn exif(orientation: u8) -> Vec<u8> {
    let mut exif = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
    exif.extend([orientation, 0, 0, 0, 0, 0, 0, 0]);
    exif
}

#[test]
fn invalid_bytes_are_not_a_spec() {
    let spec = spec("640x480>");
    let bytes = bytemuck::bytes_of(&spec);
    let back: &ResizeSpec = bytemuck::checked::from_bytes(bytes);
    assert_eq!(*back, spec);
    let words: Vec<u64> = bytemuck::pod_collect_to_vec(bytes);
    let mut nonsense = words.clone();
    for at in 0..bytes.len() {
        bytemuck::cast_slice_mut::<u64, u8>(&mut nonsense)[at] = 0xfe;
        // A value or an error, but never a bool of 254.
        let _ = bytemuck::checked::try_from_bytes::<ResizeSpec>(bytemuck::cast_slice(&nonsense));
        nonsense.clone_from(&words);
    }
    bytemuck::cast_slice_mut::<u64, u8>(&mut nonsense)[29] = 2; // `enlarge`
    let refused = bytemuck::checked::try_from_bytes::<ResizeSpec>(bytemuck::cast_slice(&nonsense));
    assert!(refused.is_err());
}

#[test]
fn raw_pixels_are_checked_and_resized() {
    let grey: Vec<u8> = vec![9; 6];
    assert!(resize_pixels(&grey, (3, 2), 1, (1, 1), Filter::Box).is_ok());
    for (size, channels, out) in [
        ((3, 3), 1, (1, 1)),
        ((3, 2), 0, (1, 1)),
        ((3, 2), 1, (0, 1)),
    ] {
        let error = resize_pixels(&grey, size, channels, out, Filter::Box).unwrap_err();
        assert!(matches!(error, ImageError::BadRequest { .. }), "{error}");
    }
    assert!(resize_pixels(&grey, (u32::MAX, u32::MAX), 4, (1, 1), Filter::Box).is_err());
    let mut short = [0; 2];
    assert!(resize_pixels_into(&grey, (3, 2), 1, &mut short, (1, 1), Filter::Box).is_err());

    // Transparent red next to opaque green: no red may bleed into visible pixels.
    let row = [
        [255, 0, 0, 0],
        [255, 0, 0, 0],
        [0, 200, 0, 255],
        [0, 200, 0, 255],
    ];
    let small = resize_pixels(row.as_flattened(), (4, 1), 4, (2, 1), Filter::Bilinear).unwrap();
    for pixel in small.chunks_exact(4) {
        assert!(
            pixel[3] == 0 || (pixel[0] == 0 && pixel[1].abs_diff(200) <= 8),
            "{small:?}"
        );
    }
}
