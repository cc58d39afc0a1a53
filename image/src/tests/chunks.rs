//! Chunks of PNG that are invalid, out of place, or of older programs.

use super::*;

/// A chunk of PNG.
fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let body = [&kind[..], data].concat();
    let sum = meta::crc32(&body).to_be_bytes();
    [&(data.len() as u32).to_be_bytes(), &body[..], &sum].concat()
}

/// The pixels are those that Pillow and libpng show: `pictures/make.py`.
#[test]
fn chunks_that_libpng_ignores_are_at_most_a_warning() {
    let strict = ResizeSpec {
        fail_on: FailOn::Warning,
        ..ResizeSpec::full_size()
    };
    for (file, kind) in [
        (&include_bytes!("pictures/png_ignored_bkgd.png")[..], None),
        (
            include_bytes!("pictures/png_ignored_cicp_matrix.png"),
            Some("cICP"),
        ),
        (
            include_bytes!("pictures/png_ignored_cicp_range.png"),
            Some("cICP"),
        ),
        (
            include_bytes!("pictures/png_ignored_plte_5.png"),
            Some("PLTE"),
        ),
        (
            include_bytes!("pictures/png_ignored_plte_771.png"),
            Some("PLTE"),
        ),
        (
            include_bytes!("pictures/png_ignored_plte_grey.png"),
            Some("PLTE"),
        ),
    ] {
        let damage = check(file, &ResizeSpec::full_size()).unwrap().damage;
        let text = damage.as_ref().map_or("", |damage| &damage.text);
        assert_eq!(damage.is_some(), kind.is_some(), "{text}");
        assert!(text.contains(kind.unwrap_or_default()), "{kind:?}: {text}");
        assert_eq!(damage.map_or(0, |damage| damage.missing), 0);
        let judged = resize_to_pixels(file, &strict);
        assert_eq!(judged.is_err(), kind.is_some(), "{kind:?}: {judged:?}");
        // A torn file stays torn.
        let torn = check(&file[..file.len() - 30], &ResizeSpec::full_size());
        assert!(
            matches!(torn, Err(ImageError::Truncated { .. })),
            "{kind:?}"
        );
    }
}

/// The same chunk before the frames of an animation.
#[test]
fn chunks_that_libpng_ignores_do_not_end_an_animation() {
    let frame = |level: u8| animation::Frame {
        pixels: Pixels {
            width: 8,
            height: 8,
            color: Color::Rgb,
            samples: Samples::Eight(vec![level; 192]),
        },
        millis: 50,
    };
    let frames = [10, 90, 200].map(frame).into();
    let file = animation::encode(frames, 0, Format::Png, Encoding::new(80), None).unwrap();
    let code_points = chunk(b"cICP", &[9, 16, 9, 0]);
    let spoilt = [&file[..33], &code_points, &file[33..]].concat();
    let [whole, made] = [&file, &spoilt].map(|file| {
        let spec = ResizeSpec::full_size();
        resize_encoded(file, &spec).unwrap()
    });
    assert_eq!(made.bytes, whole.bytes);
    assert_eq!(made.damage.map(|damage| damage.missing), Some(0));
    let checked = check(&spoilt, &ResizeSpec::full_size()).unwrap();
    assert!(checked.damage.unwrap().text.contains("cICP"));
}
