//! Resizing in linear light.

use image::{GrayImage, ImageBuffer, Luma, Rgb, Rgba, RgbaImage};

use super::*;

fn linear(size: &str) -> ResizeSpec {
    ResizeSpec {
        linear: true,
        filter: Filter::Box,
        ..spec(size)
    }
}

/// The middle of a result, in 8 bits.
fn middle(file: &[u8], spec: &ResizeSpec) -> [u8; 4] {
    let small = decoded(&resize_encoded(file, spec).unwrap()).to_rgba8();
    small.get_pixel(small.width() / 2, small.height() / 2).0
}

/// Half of the light of white: the grey that a fine pattern of black and white looks like.
const HALF_THE_LIGHT: u8 = 188;

#[test]
fn a_fine_pattern_keeps_its_light() {
    let is_white = |x: u32, y: u32| (x + y).is_multiple_of(2);
    let grey = GrayImage::from_fn(64, 64, |x, y| Luma([u8::from(is_white(x, y)) * 255]));
    let deep = ImageBuffer::from_fn(64, 64, |x, y| Luma([u16::from(is_white(x, y)) * 65_535]));
    let color = DynamicImage::from(grey.clone()).to_rgb8();
    for (what, file) in [
        ("grey PNG", written(&grey.clone().into(), ImageFormat::Png)),
        (
            "deep PNG",
            written(&DynamicImage::ImageLuma16(deep), ImageFormat::Png),
        ),
        ("PNG", written(&color.clone().into(), ImageFormat::Png)),
        ("WebP", written(&color.into(), ImageFormat::WebP)),
    ] {
        let [r, g, b, a] = middle(&file, &linear("8"));
        assert!(r.abs_diff(HALF_THE_LIGHT) <= 1, "{what}: {r}");
        assert_eq!((g, b, a), (r, r, 255), "{what}");
        let usual = ResizeSpec {
            linear: false,
            ..linear("8")
        };
        assert!(middle(&file, &usual)[0].abs_diff(128) <= 1, "{what}");
    }
    // Blocks as large as those of JPEG, which a scaled decode would average before.
    let blocks = RgbImage::from_fn(256, 256, |x, y| {
        Rgb([u8::from(is_white(x / 8, y / 8)) * 255; 3])
    });
    let [r, ..] = middle(&jpeg(&blocks), &linear("16"));
    assert!(r.abs_diff(HALF_THE_LIGHT) <= 3, "{r}");
}

#[test]
fn flat_colours_and_hidden_colours_change_nothing() {
    let file = jpeg(&RgbImage::from_pixel(80, 80, Rgb([200, 30, 90])));
    let usual = ResizeSpec {
        linear: false,
        ..linear("10")
    };
    let (one, other) = (middle(&file, &linear("10")), middle(&file, &usual));
    assert!(
        one.iter().zip(other).all(|(a, b)| a.abs_diff(b) <= 1),
        "{one:?} {other:?}"
    );
    // White that is transparent does not shine through.
    let stripes = RgbaImage::from_fn(64, 64, |x, _| match x % 2 {
        0 => Rgba([200, 30, 90, 255]),
        _ => Rgba([255, 255, 255, 0]),
    });
    let [r, g, b, a] = middle(&written(&stripes.into(), ImageFormat::Png), &linear("8"));
    assert_eq!([r, g, b], [200, 30, 90]);
    assert!(a.abs_diff(128) <= 1, "{a}");
}

#[test]
fn a_profile_is_applied_before_light_is_averaged() {
    // Stored numbers that are light already: their mean is that of light.
    let stripes = GrayImage::from_fn(64, 64, |x, _| Luma([(x % 2 * 128) as u8]));
    let plain = written(&stripes.into(), ImageFormat::Png);
    let mut file = plain[..33].to_vec();
    // A gamma of 1.0.
    file.extend_from_slice(b"\0\0\0\x04gAMA\0\x01\x86\xa0\x31\xe8\x96\x5f");
    file.extend_from_slice(&plain[33..]);
    let [r, ..] = middle(&file, &linear("8"));
    // The sample of sRGB for a quarter of the light of white.
    assert!(r.abs_diff(137) <= 2, "{r}");
}
