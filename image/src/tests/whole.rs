//! Pictures at full size: decoded, encoded, as arrays.

use super::*;
use arenite::Array;

#[test]
fn decoded_pixels_equal_those_of_another_decoder() {
    let picture = waves(61, 47);
    for format in [ImageFormat::Png, ImageFormat::Bmp, ImageFormat::Tiff] {
        let file = written(&picture.clone().into(), format);
        let pixels = decode(&file).unwrap();
        assert_eq!((pixels.width, pixels.height), (61, 47));
        assert_eq!(pixels.samples, Samples::Eight(picture.as_raw().clone()));
    }
    // Not scaled: equal to the other decoder up to the rounding of its transform.
    let file = jpeg(&picture);
    let other = image::load_from_memory(&file).unwrap().into_rgb8();
    let Samples::Eight(samples) = decode(&file).unwrap().samples else {
        panic!("a JPEG has 8 bits");
    };
    let pairs = samples.iter().zip(other.as_raw());
    let error: u64 = pairs.map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
    assert!(error < 2 * samples.len() as u64, "{error}");
}

#[test]
fn limits_hold_at_full_size() {
    let file = written(&waves(100, 100).into(), ImageFormat::Png);
    let spec = ResizeSpec {
        max_pixels: 9_999,
        ..ResizeSpec::full_size()
    };
    let refused = resize_to_pixels(&file, &spec).unwrap_err();
    assert!(
        matches!(refused, ImageError::TooManyPixels { .. }),
        "{refused}"
    );
}

fn pixels(color: Color, samples: Samples) -> Pixels {
    Pixels {
        width: 8,
        height: 4,
        color,
        samples,
    }
}

#[test]
fn every_kind_of_pixel_becomes_every_format() {
    for color in [
        Color::Gray,
        Color::GrayAlpha,
        Color::Rgb,
        Color::Rgba,
        Color::Cmyk,
    ] {
        let count = 32 * color.channels();
        for samples in [
            Samples::Eight(vec![90; count]),
            Samples::Sixteen(vec![90 * 257; count]),
        ] {
            for format in [Format::Jpeg, Format::Png, Format::WebP] {
                let file = encode(pixels(color, samples.clone()), format, 90).unwrap();
                assert_eq!(probe(&file), Some(format));
                let seen = decode(&file).unwrap();
                assert_eq!((seen.width, seen.height), (8, 4), "{color:?} as {format}");
            }
        }
    }
}

#[test]
fn arguments_that_are_not_a_picture_are_rejected() {
    for len in [0, 95, 97] {
        let wrong = encode(
            pixels(Color::Rgb, Samples::Eight(vec![0; len])),
            Format::Png,
            80,
        );
        assert!(
            matches!(wrong, Err(ImageError::BadRequest { .. })),
            "{wrong:?}"
        );
    }
    let none = Pixels {
        width: 0,
        ..pixels(Color::Gray, Samples::Eight(Vec::new()))
    };
    assert!(matches!(
        encode(none, Format::Jpeg, 80),
        Err(ImageError::BadRequest { .. })
    ));
    let tiff = encode(
        pixels(Color::Gray, Samples::Eight(vec![0; 32])),
        Format::Tiff,
        80,
    );
    assert!(
        matches!(tiff, Err(ImageError::NotAnOutput { .. })),
        "{tiff:?}"
    );
    let long = Pixels {
        width: 16_384,
        height: 1,
        color: Color::Gray,
        samples: Samples::Eight(vec![0; 16_384]),
    };
    assert!(matches!(
        encode(long, Format::WebP, 80),
        Err(ImageError::OutputTooLarge { .. })
    ));
}

#[test]
fn pictures_convert_to_arrays_and_back() {
    for (shape, color) in [
        (vec![4, 8], Color::Gray),
        (vec![4, 8, 1], Color::Gray),
        (vec![4, 8, 2], Color::GrayAlpha),
        (vec![4, 8, 3], Color::Rgb),
        (vec![4, 8, 4], Color::Rgba),
    ] {
        let shape = arenite::Shape::try_from(&shape[..]).unwrap();
        let array = Array::from_fn(shape, |i| i as u8);
        let picture = Pixels::from_array(&array).unwrap();
        assert_eq!(
            (picture.width, picture.height, picture.color),
            (8, 4, color)
        );
        let back = picture.to_array().unwrap();
        assert_eq!(back[..], array[..]);
        assert_eq!(back.shape().dims(), [4, 8, color.channels()]);
    }
    let deep = pixels(Color::Gray, Samples::Sixteen(vec![65_535; 32]));
    assert_eq!(deep.to_array().unwrap()[..], [255; 32]);
    for wrong in [
        Array::<u8>::zeros(32),
        Array::zeros([4, 8, 5]),
        Array::zeros([1, 4, 8, 3]),
    ] {
        assert!(Pixels::from_array(&wrong).is_err());
    }
}
