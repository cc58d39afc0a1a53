//! HEIC: what its container has beyond that of AVIF, and data that cannot be decoded.

use super::*;

const PLAIN: &[u8] = include_bytes!("pictures/heic_444_8.heic");
const GRID: &[u8] = include_bytes!("pictures/heic_grid.heic");
const THUMBNAIL: &[u8] = include_bytes!("pictures/heic_thumbnail.heic");

/// Whether there is a decoder. With `ARENITE_NEED_LIBDE265` there has to be.
fn has_decoder() -> bool {
    let loaded = heic_decoder();
    let is_needed = std::env::var_os("ARENITE_NEED_LIBDE265").is_some();
    assert!(loaded.is_ok() || !is_needed, "{loaded:?}");
    loaded.is_ok()
}

/// The place of the data in a file.
fn data_of(file: &[u8]) -> std::ops::Range<usize> {
    let at = file.windows(4).position(|four| four == b"mdat").unwrap();
    at + 4..file.len()
}

#[test]
fn the_decoder_or_the_package_with_it_is_named() {
    match heic_decoder() {
        Ok(version) => assert!(
            version.starts_with(|c: char| c.is_ascii_digit()),
            "{version}"
        ),
        Err(error) => {
            let text = error.to_string();
            assert!(text.contains("HEIC") && text.contains("libde265"), "{text}");
        }
    }
}

/// libheif shows the tiles as they are turned, flipped or cropped: `pictures/make.py`. Neither damage nor other pixels
/// may be reported for them.
#[test]
fn a_grid_of_tiles_that_are_changed_is_unsupported() {
    for file in [
        &include_bytes!("pictures/heic_grid_of_turned.heic")[..],
        include_bytes!("pictures/heic_grid_of_flipped.heic"),
        include_bytes!("pictures/heic_grid_of_cropped.heic"),
        include_bytes!("pictures/heic_grid_of_turned_derived.heic"),
        include_bytes!("pictures/heic_grid_of_flipped_derived.heic"),
        include_bytes!("pictures/heic_grid_of_cropped_derived.heic"),
    ] {
        let error = resize_to_pixels(file, &ResizeSpec::full_size()).unwrap_err();
        let is_unsupported = matches!(
            error,
            ImageError::UnsupportedVariety {
                format: Format::Heic,
                ..
            }
        );
        assert!(is_unsupported && !error.proves_damage(), "{error}");
    }
}

#[test]
fn a_thumbnail_serves_where_it_is_as_large_as_the_result() {
    if !has_decoder() {
        return;
    }
    // Without the picture itself, whose data is first: what can be made has been made of the thumbnail.
    let mut without = THUMBNAIL.to_vec();
    let data = data_of(THUMBNAIL);
    let half = data.start + data.len() / 2;
    without[data.start..half].fill(0);
    let small = ["64x64", "40x10", "8x8"];
    for size in small {
        let found = resize_to_pixels(&without, &spec(size));
        let whole = resize_to_pixels(THUMBNAIL, &spec(size)).unwrap();
        assert_eq!(found, Ok(whole), "{size}");
    }
    for size in ["65x65", "256x185"] {
        assert!(resize_to_pixels(&without, &spec(size)).is_err(), "{size}");
        assert!(resize_to_pixels(THUMBNAIL, &spec(size)).is_ok(), "{size}");
    }
    // These filters are to match other programs, from the pixels of the picture.
    let exact = ResizeSpec {
        filter: Filter::Box,
        ..spec("8x8")
    };
    assert!(resize_to_pixels(&without, &exact).is_err());
}

#[test]
fn a_thumbnail_that_cannot_be_decoded_is_not_needed() {
    if !has_decoder() {
        return;
    }
    let spec = spec("64x64");
    let whole = decode(THUMBNAIL).unwrap();
    // Its pixels; and its sides, which are those of its data no more, as in files of some cameras.
    let mut without = THUMBNAIL.to_vec();
    without.truncate(THUMBNAIL.len() - 16);
    without.extend([0x55; 16]);
    let mut narrow = THUMBNAIL.to_vec();
    let sides = narrow.windows(4).rposition(|four| four == b"ispe").unwrap();
    assert_eq!(narrow[sides + 8..sides + 12], [0, 0, 0, 64]);
    narrow[sides + 11] = 63;
    for file in [without, narrow] {
        assert_eq!(check(&file, &spec).unwrap().damage, None);
        assert_eq!(decode(&file).as_ref(), Ok(&whole));
        assert!(resize_encoded(&file, &spec).is_ok());
    }
}

#[test]
fn a_check_decodes_the_picture_itself() {
    if !has_decoder() {
        return;
    }
    let mut without = THUMBNAIL.to_vec();
    let data = data_of(THUMBNAIL);
    without[data.start..data.start + data.len() / 2].fill(0);
    let error = check(&without, &spec("8x8")).unwrap_err();
    assert!(error.proves_damage(), "{error}");
}

#[test]
fn spoilt_data_is_an_error_about_heic() {
    if !has_decoder() {
        return;
    }
    // A thumbnail that is cut, behind a whole picture, is a warning.
    let full = ResizeSpec {
        fail_on: FailOn::Warning,
        ..ResizeSpec::full_size()
    };
    for file in [PLAIN, GRID, THUMBNAIL] {
        for len in (0..file.len()).step_by(37).chain([file.len() - 1]) {
            let error = resize_to_pixels(&file[..len], &full).unwrap_err();
            let is_named = match &error {
                ImageError::NotAnImage => len < 16,
                ImageError::Truncated { format } | ImageError::Corrupt { format, .. } => {
                    *format == Format::Heic
                }
                _ => false,
            };
            assert!(is_named, "{len} bytes: {error}");
        }
        // Any other byte in the place of one. Some make other pictures.
        for at in (0..file.len()).step_by(11) {
            for value in [0, 0x55, 0xff] {
                let mut spoilt = file.to_vec();
                spoilt[at] = value;
                drop(resize_to_pixels(&spoilt, &full));
            }
        }
    }
}

#[test]
fn a_larger_picture_than_announced_is_refused_before_it_is_decoded() {
    if !has_decoder() {
        return;
    }
    // The sides that the container says are those of its part of 29x21 pixels, in a picture of 64x64.
    let at = GRID.windows(4).position(|four| four == b"ispe").unwrap();
    let mut smaller = GRID.to_vec();
    smaller[at + 8..at + 16].copy_from_slice(&[0, 0, 0, 8, 0, 0, 0, 8]);
    let error = resize_to_pixels(&smaller, &ResizeSpec::full_size()).unwrap_err();
    assert!(matches!(error, ImageError::Corrupt { .. }), "{error}");
}
