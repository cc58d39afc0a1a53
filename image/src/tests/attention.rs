//! Crops at the part of the most interest.

use super::*;

const SKY: [u8; 3] = [120, 140, 160];

/// A sky with a disc of this colour around a point, in shares of the sides.
fn disc((width, height): (u32, u32), (x, y): (f32, f32), colour: [u8; 3]) -> RgbImage {
    let (centre_x, centre_y) = (x * width as f32, y * height as f32);
    let radius = 0.1 * width.max(height) as f32;
    RgbImage::from_fn(width, height, |x, y| {
        let (x, y) = (x as f32 + 0.5 - centre_x, y as f32 + 0.5 - centre_y);
        image::Rgb(if x.hypot(y) < radius { colour } else { SKY })
    })
}

fn crop(file: &[u8], size: &str) -> Encoded {
    let spec = ResizeSpec {
        fit: Fit::Cover,
        position: Position::Attention,
        output: Output::Png,
        ..spec(size)
    };
    resize_encoded(file, &spec).unwrap()
}

/// The share of pixels that differ visibly from the sky.
fn subject(encoded: &Encoded) -> f64 {
    let picture = decoded(encoded).to_rgb8();
    let differs =
        |pixel: &&image::Rgb<u8>| pixel.0.iter().zip(SKY).any(|(a, b)| a.abs_diff(b) > 40);
    picture.pixels().filter(differs).count() as f64 / picture.pixels().len() as f64
}

const SKIN: [u8; 3] = [224, 172, 140];

#[test]
fn the_subject_is_in_the_crop_wherever_it_is() {
    for at in [0.1, 0.35, 0.5, 0.7, 0.9] {
        for (sides, point) in [((400, 200), (at, 0.5)), ((150, 300), (0.5, at))] {
            let colour = [200, 30, 40];
            let picture = disc(sides, point, colour);
            let whole = std::f64::consts::PI * 0.01 * f64::from(sides.0.max(sides.1).pow(2));
            let side = f64::from(sides.0.min(sides.1));
            let share = whole / (side * side);
            for (name, file) in [
                ("jpeg", jpeg(&picture)),
                ("progressive", progressive_jpeg(&picture)),
                ("png", written(&picture.clone().into(), ImageFormat::Png)),
                (
                    "grey",
                    written(
                        &DynamicImage::from(picture.clone()).to_luma8().into(),
                        ImageFormat::Png,
                    ),
                ),
                (
                    "deep",
                    written(
                        &DynamicImage::from(picture.clone()).to_rgba16().into(),
                        ImageFormat::Png,
                    ),
                ),
            ] {
                for size in ["40x40", "100x100"] {
                    let shown = subject(&crop(&file, size));
                    let what = format!("{name}, {size} of {sides:?} at {at}");
                    assert!(shown > 0.8 * share, "{what}: {shown:.3} of {share:.3}");
                }
            }
        }
    }
}

#[test]
fn an_upright_crop_of_a_turned_picture_has_the_subject() {
    let pixels = |picture: RgbImage| Pixels {
        width: picture.width(),
        height: picture.height(),
        color: Color::Rgb,
        samples: Samples::Eight(picture.into_raw()),
    };
    for orientation in 1..=8 {
        let metadata = Metadata {
            exif: Some(exif(orientation)),
            ..Metadata::default()
        };
        let picture = pixels(disc((400, 200), (0.15, 0.5), [200, 30, 40]));
        let file = jpeg::encode(&picture, Encoding::new(90), Some(&metadata)).unwrap();
        let shown = subject(&crop(&file, "60x60"));
        assert!(shown > 0.1, "orientation {orientation}: {shown:.3}");
    }
}

#[test]
fn skin_draws_more_attention_than_another_colour_of_its_light() {
    let mut picture = disc((400, 200), (0.15, 0.5), [120, 180, 205]);
    let other = disc((400, 200), (0.85, 0.5), SKIN);
    for (x, y, pixel) in other.enumerate_pixels().filter(|(x, ..)| *x >= 200) {
        picture.put_pixel(x, y, *pixel);
    }
    let result = decoded(&crop(&jpeg(&picture), "60x60")).to_rgb8();
    let warm = |pixel: &&image::Rgb<u8>| pixel[0] > pixel[2] + 40;
    assert!(result.pixels().any(|pixel| warm(&pixel)));
}

#[test]
fn transparent_pixels_draw_no_attention() {
    let picture = DynamicImage::ImageRgb8(disc((400, 200), (0.15, 0.5), [200, 30, 40]));
    let mut picture = picture.into_rgba8();
    for pixel in picture.pixels_mut().filter(|pixel| pixel[0] == 200) {
        pixel[3] = 0;
    }
    for (x, y) in (330..370).flat_map(|x| (80..120).map(move |y| (x, y))) {
        picture.put_pixel(x, y, image::Rgba([120, 160, 150, 255]));
    }
    let file = written(&picture.into(), ImageFormat::Png);
    let result = decoded(&crop(&file, "50x50")).to_rgba8();
    assert!(result.pixels().all(|pixel| pixel[3] == 255));
}

#[test]
fn without_interest_the_middle_is_shown_and_whole_pixels_stay_whole() {
    let flat = RgbImage::from_pixel(300, 100, image::Rgb(SKY));
    let middle = ResizeSpec {
        fit: Fit::Cover,
        output: Output::Png,
        ..spec("100x100")
    };
    let attention = ResizeSpec {
        position: Position::Attention,
        ..middle
    };
    let line = RgbImage::from_fn(300, 100, |x, _| {
        image::Rgb([if matches!(x, 149 | 150) { 255 } else { 90 }; 3])
    });
    for picture in [flat, line] {
        let file = written(&picture.into(), ImageFormat::Png);
        let [one, other] = [middle, attention].map(|spec| resize_to_pixels(&file, &spec).unwrap());
        assert_eq!(one, other);
    }
    let noise = RgbImage::from_fn(300, 100, |x, y| image::Rgb([((x * 7) ^ (y * 13)) as u8; 3]));
    let file = written(&noise.clone().into(), ImageFormat::Png);
    let cut = decoded(&resize_encoded(&file, &attention).unwrap()).to_rgb8();
    let is_part = |left: u32| {
        cut.enumerate_pixels()
            .all(|(x, y, p)| noise.get_pixel(left + x, y) == p)
    };
    assert!((0..=200).any(is_part), "pixels are copied unchanged");
}

#[test]
fn all_sizes_show_the_same_part() {
    let file = jpeg(&disc((800, 300), (0.12, 0.5), SKIN));
    let spec = ResizeSpec {
        fit: Fit::Cover,
        position: Position::Attention,
        output: Output::Png,
        ..ResizeSpec::full_size()
    };
    let sizes = ["90x90", "30x30", "200x200"].map(|size| size.parse().unwrap());
    let files = resize_encoded_sizes(&file, &spec, &sizes).unwrap();
    let shares: Vec<f64> = files.iter().map(subject).collect();
    assert!(
        shares.iter().all(|share| (share - shares[0]).abs() < 0.05),
        "{shares:?}"
    );
    assert!(shares[0] > 0.1, "{shares:?}");
}
