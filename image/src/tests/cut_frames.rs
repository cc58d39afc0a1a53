//! Files that end early, beyond their first picture: [`check`](super::check()) and results at any place of the end.

use super::*;

const AVIF: &[u8] = include_bytes!("pictures/avif_frames.avif");
const ALPHA: &[u8] = include_bytes!("pictures/avif_alpha_444_8.avif");
const EXIF: &[u8] = include_bytes!("pictures/avif_exif.avif");
const JXL: &[u8] = include_bytes!("pictures/jxl_frames.jxl");
const CONTAINER: &[u8] = include_bytes!("pictures/jxl_frames_container.jxl");

fn full() -> ResizeSpec {
    ResizeSpec::full_size()
}

/// The place of a box at the top level of a file, with its header.
fn place(file: &[u8], kind: &[u8; 4]) -> std::ops::Range<usize> {
    let at = file.windows(4).position(|four| four == kind).unwrap() - 4;
    let len = u32::from_be_bytes(file[at..at + 4].try_into().unwrap()) as usize;
    at..at + len
}

/// Asserts that a file is whole, and that each of its beginnings is truncated.
#[track_caller]
fn assert_truncated_anywhere(name: &str, file: &[u8]) {
    let whole = check(file, &full()).unwrap();
    assert_eq!(whole.damage, None, "{name}");
    let still = ResizeSpec {
        output: Output::Png,
        ..full()
    };
    let shown = resize_encoded(file, &still).unwrap();
    assert_eq!(shown.damage, None, "{name}");
    for end in 24..file.len() {
        let torn = &file[..end];
        let is_truncated = |error| matches!(error, ImageError::Truncated { .. });
        let checked = check(torn, &full()).map_err(is_truncated);
        assert_eq!(checked, Err(true), "{name}, {end} of {}", file.len());
        // The first picture is shown if it is whole, with a warning.
        match resize_encoded(torn, &still) {
            Ok(made) => {
                assert_eq!(made.bytes, shown.bytes, "{name}, {end}");
                let is_whole = |damage: Damage| damage.missing == 0;
                assert!(made.damage.is_some_and(is_whole), "{name}, {end}");
            }
            Err(error) => assert!(is_truncated(error), "{name}, {end}"),
        }
    }
}

/// An animation whose tables are at the end, as a writer that does not know them earlier has them.
fn with_tables_last(file: &[u8]) -> Vec<u8> {
    let (tables, rest) = (place(file, b"moov"), place(file, b"mdat"));
    let mut free = file[tables.clone()].to_vec();
    free[4..8].copy_from_slice(b"free");
    [&file[..tables.start], &free, &file[rest], &file[tables]].concat()
}

/// A JPEG XL whose codestream is in a box, or in two.
fn in_boxes(codestream: &[u8], is_split: bool) -> Vec<u8> {
    let boxed = |kind: &[u8; 4], number: &[u8], part: &[u8]| {
        let len = (part.len() + number.len() + 8) as u32;
        [&len.to_be_bytes(), &kind[..], number, part].concat()
    };
    let start = boxed(b"JXL ", b"", b"\r\n\x87\n");
    let brand = boxed(b"ftyp", b"", b"jxl \0\0\0\0jxl ");
    let (one, other) = codestream.split_at(codestream.len() / 2);
    let boxes = match is_split {
        false => vec![boxed(b"jxlc", b"", codestream)],
        true => vec![
            boxed(b"jxlp", &[0, 0, 0, 0], one),
            boxed(b"jxlp", &[0x80, 0, 0, 1], other),
        ],
    };
    [start, brand, boxes.concat()].concat()
}

#[test]
fn an_animation_that_ends_early_is_truncated_wherever_it_ends() {
    assert_truncated_anywhere("JPEG XL", JXL);
    assert_truncated_anywhere("JPEG XL in a container", CONTAINER);
    assert_truncated_anywhere("JPEG XL in a box", &in_boxes(JXL, false));
    assert_truncated_anywhere("JPEG XL in two boxes", &in_boxes(JXL, true));
    assert_truncated_anywhere("AVIF", AVIF);
    assert_truncated_anywhere("AVIF with its tables at the end", &with_tables_last(AVIF));
    // The length of the data is not known: only the tables say where it ends.
    let mut open = AVIF.to_vec();
    let data = place(AVIF, b"mdat");
    assert_eq!(data.end, AVIF.len());
    open[data.start..data.start + 4].fill(0);
    assert_truncated_anywhere("AVIF without the length of its data", &open);
}

#[test]
fn a_later_picture_beyond_the_end_of_a_file_is_found() {
    // The alpha, which is last, as another picture.
    let mut two = ALPHA.to_vec();
    let at = place(&two, b"auxl").start + 4;
    two[at..at + 4].copy_from_slice(b"abcd");
    assert_truncated_anywhere("AVIF of two pictures", &two);
}

#[test]
fn a_later_picture_that_is_cut_is_a_warning_of_a_result() {
    let spec = ResizeSpec {
        output: Output::Png,
        ..full()
    };
    let strict = ResizeSpec {
        fail_on: FailOn::Warning,
        ..spec
    };
    for file in [AVIF, JXL, CONTAINER] {
        let torn = &file[..file.len() - 1];
        let text = resize_encoded(torn, &spec).unwrap().damage.unwrap().text;
        assert!(text.starts_with("truncated "), "{text}");
        assert!(text.ends_with("; what comes before is whole"), "{text}");
        assert!(resize_encoded(torn, &strict).is_err());
    }
}

#[test]
fn an_end_after_the_pixels_is_a_warning() {
    let strict = ResizeSpec {
        fail_on: FailOn::Warning,
        ..full()
    };
    let box_of_exif = [&[0, 0, 0, 34][..], b"Exif\0\0\0\0", &exif(1)[..22]].concat();
    let jxl = [
        include_bytes!("pictures/jxl_rgb8_container.jxl"),
        &box_of_exif[..],
    ]
    .concat();
    let keeping = ResizeSpec {
        keep_metadata: true,
        output: Output::Avif,
        ..full()
    };
    let avif = resize_encoded(EXIF, &keeping).unwrap().bytes;
    for (file, last) in [(&avif, 1), (&avif, 4), (&jxl, 1), (&jxl, 20), (&jxl, 29)] {
        assert_eq!(check(file, &strict).unwrap().damage, None);
        let torn = &file[..file.len() - last];
        let text = check(torn, &full()).unwrap().damage.unwrap().text;
        let expected = "the file ends early, after its pixels; no pixel is missing";
        assert!(text.ends_with(expected), "{text}");
        assert!(check(torn, &strict).unwrap_err().proves_damage());
    }
}

/// heif-convert, avifdec and djxl show these files without a warning.
#[test]
fn bytes_after_the_last_box_are_no_damage() {
    let heic = include_bytes!("pictures/heic_420_8.heic");
    let video = include_bytes!("pictures/heic_video.heic");
    let jxl = include_bytes!("pictures/jxl_rgb8_container.jxl");
    for file in [&heic[..], video, EXIF, AVIF, jxl, CONTAINER] {
        for stray in [
            &b"\0"[..],
            b"\0\0\0",
            b"\0\0\0\0\0\0\0",
            b"\n",
            b"\r\n",
            b"abc",
            b"somebody",
            b"added by another program",
            b"Exif\0\0II*\0\x08\0\0\0",
            b"\xff\xd8\xff\xe0\0\x10JFIF\0\x01",
            &[0; 5000],
            &[0xff; 33],
        ] {
            let file = [file, stray].concat();
            let fail_on = FailOn::Warning;
            let checked = check(&file, &ResizeSpec { fail_on, ..full() });
            assert_eq!(checked.map(|it| it.damage), Ok(None), "{stray:?}");
        }
    }
}
