//! WebP: luma and chroma apart, and torn files.

use super::*;

fn lossy(picture: &RgbImage) -> Vec<u8> {
    webp(picture, picture.dimensions(), Some(90))
}

#[test]
fn planes_show_what_rgb_shows() {
    // Odd sides: chroma has half of them, rounded up.
    for (picture, size) in [
        (waves(201, 151), "80"),
        (waves(200, 150), "140"),
        (waves(333, 97), "40"),
        (quarters(160, 120), "40"),
        (waves(7, 300), "30"),
    ] {
        let file = lossy(&picture);
        let fast = spec(size);
        let small = resize_to_pixels(&file, &fast).unwrap();
        // A file of PNG is decoded to RGB.
        let whole = encode(decode(&file).unwrap(), Format::Png, 80).unwrap();
        let exact = resize_to_pixels(&whole, &fast).unwrap();
        let difference = difference(&small, &exact);
        assert!(difference < 2.0, "{size}: {difference}");
    }
}

#[test]
fn black_and_white_stay_black_and_white() {
    for level in [0, 1, 128, 254, 255] {
        let picture = RgbImage::from_pixel(64, 64, image::Rgb([level; 3]));
        let small = resize_to_pixels(&lossy(&picture), &spec("16")).unwrap();
        let seen = small.eight_bits();
        let is_near = |seen: &u8| seen.abs_diff(level) <= 1;
        assert!(seen.iter().all(is_near), "{level}: {seen:?}");
    }
}

#[test]
fn the_rows_of_a_torn_file_are_shown() {
    let picture = quarters(160, 128);
    let file = lossy(&picture);
    let torn = &file[..file.len() * 3 / 4];
    let strict = ResizeSpec::full_size();
    let error = resize_to_pixels(torn, &strict).unwrap_err();
    assert!(matches!(error, ImageError::Truncated { .. }), "{error}");
    let tolerant = ResizeSpec {
        fail_on: FailOn::None,
        background: [1, 2, 3],
        output: Output::Png,
        ..strict
    };
    let made = resize_encoded(torn, &tolerant).unwrap();
    let missing = made.damage.expect("it is torn").missing;
    let rows = 128 - missing / 160;
    assert!((16..128).contains(&rows), "{rows} rows");
    let shown = decode(&made.bytes).unwrap();
    let whole = decode(&file).unwrap();
    let known = rows as usize * 160 * 3;
    // Rows are smoothed over their borders when the next ones are known.
    assert_eq!(shown.eight_bits()[..known], whole.eight_bits()[..known]);
    let rest = shown.eight_bits()[known..].as_chunks::<3>().0;
    assert!(rest.iter().all(|pixel| *pixel == [1, 2, 3]));
}

/// Pillow and libvips show the same.
#[test]
fn alpha_beside_lossy_pixels_counts_if_the_header_announces_it() {
    let pixels = [200, 30, 30, 90].repeat(64);
    let lossy = webp(&pixels, (8, 8), Some(90));
    let lossless = webp(&pixels, (8, 8), None);
    assert_eq!(
        (&lossy[12..16], &lossless[12..16]),
        (&b"VP8X"[..], &b"VP8L"[..])
    );
    for (chunks, flags, color) in [
        (&lossy[30..], 0x10, Color::Rgba),
        (&lossy[30..], 0, Color::Rgb),
        (&lossless[12..], 0x10, Color::Rgba),
        (&lossless[12..], 0, Color::Rgba),
    ] {
        let header = [b"VP8X\x0a\0\0\0", &[flags, 0, 0, 0, 7, 0, 0, 7, 0, 0][..]].concat();
        let body = [b"WEBP", &header[..], chunks].concat();
        let file = [b"RIFF", &(body.len() as u32).to_le_bytes()[..], &body].concat();
        let shown = decode(&file).unwrap();
        assert_eq!(shown.color, color, "{flags}");
        let middle = shown.eight_bits().chunks(color.channels()).nth(36).unwrap();
        assert!(
            middle[0] >= 198 && middle.get(3).is_none_or(|&alpha| alpha == 90),
            "{middle:?}"
        );
        assert_eq!(check(&file, &ResizeSpec::full_size()).unwrap().damage, None);
    }
}
