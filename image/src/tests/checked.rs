//! [`check`](super::check()): the verdict of a full decode, without a result.

use std::path::Path;

use super::*;

fn full() -> ResizeSpec {
    ResizeSpec::full_size()
}

/// Whole files of all formats and kinds.
fn files() -> Vec<(&'static str, Vec<u8>)> {
    let picture = waves(83, 61);
    let written = |format| written(&picture.clone().into(), format);
    vec![
        ("sequential JPEG", jpeg(&picture)),
        ("progressive JPEG", progressive_jpeg(&picture)),
        ("PNG", written(ImageFormat::Png)),
        ("WebP", written(ImageFormat::WebP)),
        ("GIF", written(ImageFormat::Gif)),
        ("TIFF", written(ImageFormat::Tiff)),
        ("BMP", written(ImageFormat::Bmp)),
        ("PNM", written(ImageFormat::Pnm)),
        ("QOI", written(ImageFormat::Qoi)),
        ("TGA", written(ImageFormat::Tga)),
        ("ICO", written(ImageFormat::Ico)),
    ]
}

#[test]
fn whole_files_are_whole_and_torn_ones_are_damaged() {
    for (name, file) in files() {
        let checked = check(&file, &full()).unwrap();
        assert_eq!((checked.width, checked.height), (83, 61), "{name}");
        assert_eq!(checked.damage, None, "{name}");
        for end in [file.len() / 8, file.len() / 2, file.len() * 9 / 10] {
            let error = check(&file[..end], &full()).unwrap_err();
            assert!(error.proves_damage(), "{name}, {end}: {error}");
        }
    }
    let error = check(b"<html>", &full()).unwrap_err();
    assert!(error.proves_damage(), "{error}");
}

#[test]
fn files_that_end_early_are_truncated_wherever_they_end() {
    let is_truncated =
        |file: &[u8]| matches!(check(file, &full()), Err(ImageError::Truncated { .. }));
    for (name, file) in files() {
        let ends = [file.len() / 16, file.len() / 4, file.len() / 2];
        let each = 3..file.len() - 8;
        let ends = match name.contains("JPEG") {
            true => ends.into_iter().chain(each).collect(),
            false => ends.to_vec(),
        };
        for end in ends {
            assert!(is_truncated(&file[..end]), "{name}, {end}");
        }
        // With an end marker, segments are missing, not the end.
        let start = file.windows(2).position(|pair| pair == [0xff, 0xda]);
        if let Some(start) = start.filter(|_| name.contains("JPEG")) {
            let ended = [&file[..start], &[0xff, 0xd9]].concat();
            let error = check(&ended, &full()).unwrap_err();
            assert!(
                matches!(error, ImageError::Corrupt { .. }),
                "{name}: {error}"
            );
        }
    }
}

#[test]
fn the_verdict_on_spoilt_files_is_that_of_a_full_decode() {
    let mut verdicts = [0; 2];
    for (name, file) in files() {
        for round in 0..200 {
            let mut spoilt = file.clone();
            let at = file.len() * round / 200;
            spoilt[at] ^= 1 << (round % 8);
            for fail_on in [FailOn::Truncated, FailOn::Error] {
                let spec = ResizeSpec { fail_on, ..full() };
                let has_lost = |damage: Option<Damage>| damage.is_some_and(|it| it.missing > 0);
                let checked = check(&spoilt, &spec).map(|checked| has_lost(checked.damage));
                let decoded = rendered(&spoilt, &spec).map(|decoded| has_lost(decoded.damage));
                // Only the check looks at what follows the first picture.
                let goes_further = matches!(name, "GIF" | "WebP") && decoded.is_ok();
                if !goes_further {
                    assert_eq!(checked, decoded, "{name}, {at}");
                }
                verdicts[usize::from(check(&spoilt, &spec).is_ok())] += 1;
            }
        }
    }
    // Both happen: many formats have no checksum.
    assert!(verdicts.iter().all(|&count| count > 100), "{verdicts:?}");
}

#[test]
fn the_sides_are_those_that_a_viewer_shows_and_limits_are_no_damage() {
    let file = include_bytes!("reported/jpeg_exif_orientation_LONG.jpg");
    let (checked, decoded) = (check(file, &full()).unwrap(), decode(file).unwrap());
    let sides = (decoded.width, decoded.height);
    assert_eq!((checked.width, checked.height), sides);
    assert_eq!(checked.format, Format::Jpeg);
    for spec in [
        ResizeSpec {
            max_pixels: 1000,
            ..full()
        },
        ResizeSpec {
            max_bytes: 100,
            ..full()
        },
    ] {
        let error = check(file, &spec).unwrap_err();
        assert!(!error.proves_damage(), "{error}");
    }
    let jpeg_2000 = check(b"\xff\x4f\xff\x51", &full()).unwrap_err();
    assert!(!jpeg_2000.proves_damage(), "{jpeg_2000}");
}

#[test]
fn damage_around_the_pixels_counts_by_the_policy() {
    for file in [
        &include_bytes!("reported/jpeg_dri_without_rst.jpg")[..],
        include_bytes!("reported/jpeg_zero_after_soi.jpg"),
        include_bytes!("reported/png_truncated_idat_after_complete_pixels.png"),
    ] {
        let checked = check(file, &full()).unwrap();
        assert_eq!(checked.damage.unwrap().missing, 0);
        let fail_on = FailOn::Warning;
        let error = check(file, &ResizeSpec { fail_on, ..full() }).unwrap_err();
        assert!(error.proves_damage(), "{error}");
    }
    let torn = include_bytes!("reported/jpeg_truncated_by_50_bytes.jpg");
    assert!(matches!(
        check(torn, &full()),
        Err(ImageError::Truncated { .. })
    ));
    let fail_on = FailOn::None;
    let checked = check(torn, &ResizeSpec { fail_on, ..full() }).unwrap();
    assert!(checked.damage.unwrap().missing > 0);
}

/// A GIF of three frames; the later ones are small and in a corner.
fn animated_gif() -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = ::gif::Encoder::new(&mut file, 40, 30, &[0, 0, 0, 255, 255, 255]).unwrap();
    for side in [40, 9, 8] {
        let pixels = (0..side * 30_usize).map(|i| (i * i % 7 % 2) as u8);
        let pixels = pixels.collect::<Vec<_>>();
        let frame = ::gif::Frame::from_indexed_pixels(side as u16, 30, pixels, None);
        encoder.write_frame(&frame).unwrap();
    }
    drop(encoder);
    file
}

#[test]
fn all_frames_of_a_gif_are_checked() {
    let whole = animated_gif();
    let checked = check(&whole, &full()).unwrap();
    assert_eq!((checked.width, checked.damage), (40, None));
    let torn = &whole[..whole.len() - 12];
    // The first frame is whole.
    assert!(decode(torn).is_ok());
    let error = check(torn, &full()).unwrap_err();
    assert!(matches!(error, ImageError::Truncated { .. }), "{error}");
    let fail_on = FailOn::None;
    let checked = check(torn, &ResizeSpec { fail_on, ..full() }).unwrap();
    let text = checked.damage.unwrap().text;
    assert!(text.contains("what comes before is whole"), "{text}");
    // Without its last byte it lacks nothing but its end.
    let unended = check(&whole[..whole.len() - 1], &full()).unwrap();
    let text = unended.damage.unwrap().text;
    assert!(text.contains("its end marker is missing"), "{text}");
}

/// docs/check.md: later frames with 16 bits per sample are not decoded, and are missed if the file ends before them.
#[test]
fn damage_in_later_frames_of_a_png_counts_where_they_are_decoded() {
    for (depth, is_decoded) in [
        (::png::BitDepth::Eight, true),
        (::png::BitDepth::Sixteen, false),
    ] {
        let mut file = Vec::new();
        let mut encoder = ::png::Encoder::new(&mut file, 16, 16);
        encoder.set_depth(depth);
        encoder.set_animated(2, 0).unwrap();
        let mut writer = encoder.write_header().unwrap();
        for _ in 0..2 {
            let samples: Vec<u8> = (0..256 * depth as usize / 8)
                .map(|i| (i * i) as u8)
                .collect();
            writer.write_image_data(&samples).unwrap();
        }
        writer.finish().unwrap();
        assert_eq!(check(&file, &full()).map(|it| it.damage), Ok(None));
        let later = file.windows(4).rposition(|kind| kind == b"fdAT").unwrap();
        let mut spoilt = file.clone();
        spoilt[later + 30] ^= 1;
        let error = check(&file[..later + 30], &full()).unwrap_err();
        assert!(matches!(error, ImageError::Truncated { .. }), "{error}");
        match check(&spoilt, &full()) {
            Err(error) => assert!(is_decoded && error.proves_damage(), "{error}"),
            Ok(checked) => assert!(!is_decoded && checked.damage.is_none()),
        }
    }
}

/// Pillow skips zeros between blocks, and reads nothing after the end marker.
#[test]
fn zeros_around_the_blocks_of_a_gif_are_no_damage() {
    let spec = full();
    let frames = |file: &[u8]| {
        let animation = animation::open(file, Format::Gif, &spec, true)
            .unwrap()
            .unwrap();
        let frames = animation.frames.map(|frame| frame.unwrap().pixels);
        frames.collect::<Vec<_>>()
    };
    let whole = animated_gif();
    let (first, all) = (decode(&whole).unwrap(), frames(&whole));
    assert_eq!(all.len(), 3);
    let is_block = |four: &[u8]| four[..3] == [b'!', 0xf9, 4];
    let blocks = (0..whole.len() - 4).filter(|&at| is_block(&whole[at..at + 4]));
    let places: Vec<usize> = blocks.chain([whole.len() - 1, whole.len()]).collect();
    assert_eq!(places.len(), 5);
    for place in places {
        for count in [1, 2, 700] {
            let mut file = whole.clone();
            file.splice(place..place, vec![0; count]);
            assert_eq!(check(&file, &spec).map(|it| it.damage), Ok(None), "{place}");
            assert_eq!(decode(&file).as_ref(), Ok(&first), "{place}");
            assert_eq!(frames(&file), all, "{place}");
        }
    }
    // Instead of the end marker.
    let padded = [&whole[..whole.len() - 1], &[0; 5]].concat();
    let damage = check(&padded, &spec).unwrap().damage.unwrap();
    assert!(
        damage.text.contains("its end marker is missing"),
        "{}",
        damage.text
    );
    assert_eq!(damage.missing, 0);
}

/// GIF89a wants decoders to skip them. Pillow and libvips do.
#[test]
fn extensions_of_unknown_kinds_in_a_gif_are_skipped() {
    let spec = full();
    let frames = |file: &[u8]| {
        let animation = animation::open(file, Format::Gif, &spec, true).unwrap();
        let frames = animation.unwrap().frames.map(|frame| frame.unwrap().pixels);
        frames.collect::<Vec<_>>()
    };
    let whole = animated_gif();
    let (first, all) = (decode(&whole).unwrap(), frames(&whole));
    let is_time = |four: &[u8]| four[..3] == [b'!', 0xf9, 4];
    let times = (0..whole.len() - 4).filter(|&at| is_time(&whole[at..at + 4]));
    // Before each time, between it and its picture, and before the end marker.
    let places = times.flat_map(|at| [at, at + 8]);
    let places: Vec<usize> = places.chain([whole.len() - 1]).collect();
    assert_eq!(places.len(), 7);
    let long = [&[255; 256][..], &[3, b',', b';', 0, 0]].concat();
    for (place, label) in places
        .iter()
        .flat_map(|&at| [(at, 0), (at, 0x77), (at, 0xfd)])
    {
        for parts in [&[2, b'!', 0xf9, 0][..], &long] {
            let mut file = whole.clone();
            file.splice(place..place, [&[b'!', label], parts].concat());
            assert_eq!(check(&file, &spec).map(|it| it.damage), Ok(None), "{place}");
            assert_eq!(decode(&file).as_ref(), Ok(&first), "{place}");
            assert_eq!(frames(&file), all, "{place}");
            // Torn inside the extension.
            let torn = check(&file[..place + 1 + parts.len()], &spec);
            assert!(
                matches!(torn, Err(ImageError::Truncated { .. })),
                "{place}: {torn:?}"
            );
        }
    }
}

#[test]
fn frames_are_decoded_without_drawing_them_on_the_screen() {
    // 40 frames of 1,000,000 pixels are more than 4 times as many.
    let limits = ResizeSpec {
        max_pixels: 9_000_000,
        ..full()
    };
    // One large frame and many tiny ones, each the change of a pixel.
    let frames = || {
        let file = written(&waves(1000, 1000).into(), ImageFormat::Png);
        let frame = |number: u8| {
            let mut pixels = decode(&file).unwrap();
            if let Samples::Eight(samples) = &mut pixels.samples {
                samples[..3].fill(number);
            }
            animation::Frame { pixels, millis: 20 }
        };
        (0..40).map(frame).collect()
    };
    for format in [Format::Gif, Format::WebP, Format::Png] {
        let file = animation::encode(frames(), 0, format, Encoding::new(80), None).unwrap();
        let animates = |spec: &ResizeSpec| {
            let drawn = animation::open(&file, format, spec, true).map_err(Found::later)?;
            let drawn = drawn.unwrap();
            drawn
                .frames
                .collect::<Result<Vec<_>, _>>()
                .map(|all| all.len())
        };
        assert_eq!(animates(&full()).unwrap(), 40, "{format}");
        assert!(matches!(
            animates(&limits).unwrap_err().error,
            ImageError::TooManyFrames { .. }
        ));
        assert_eq!(
            check(&file, &limits).map(|it| it.damage),
            Ok(None),
            "{format}"
        );
        // In the last frame.
        let torn = &file[..file.len() - 20];
        assert!(
            check(torn, &limits).unwrap_err().proves_damage(),
            "{format}"
        );
    }
}

#[test]
fn sides_and_frames_are_announced_by_headers() {
    let picture = waves(83, 61);
    let files = [
        jpeg(&picture),
        progressive_jpeg(&picture),
        written(&picture.clone().into(), ImageFormat::Png),
        written(&picture.clone().into(), ImageFormat::WebP),
        webp(&picture, (83, 61), Some(80)),
        written(&picture.clone().into(), ImageFormat::Gif),
        written(&picture.clone().into(), ImageFormat::Tiff),
        written(&picture.clone().into(), ImageFormat::Bmp),
        written(&picture.clone().into(), ImageFormat::Pnm),
        written(&picture.into(), ImageFormat::Qoi),
    ];
    for file in files {
        let found = announced(&file).unwrap();
        assert_eq!((found.width, found.height, found.frames), (83, 61, 1));
        for end in 0..file.len().min(400) {
            let _ = announced(&file[..end]);
        }
    }
    let frame = |level: u8| {
        let samples = Samples::Eight(vec![level; 20 * 10 * 3]);
        let pixels = Pixels {
            width: 20,
            height: 10,
            color: Color::Rgb,
            samples,
        };
        animation::Frame { pixels, millis: 20 }
    };
    for format in [Format::Gif, Format::WebP, Format::Png] {
        let frames = (0..7).map(|level| frame(level * 30)).collect();
        let file = animation::encode(frames, 0, format, Encoding::new(80), None).unwrap();
        let found = announced(&file).unwrap();
        assert_eq!(
            (found.width, found.height, found.frames),
            (20, 10, 7),
            "{format}"
        );
    }
    // Written by libheif and libjxl, with the pixels that another decoder reads.
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/tests/pictures");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let pixels = path.with_file_name(format!("{name}.png"));
        let is_jxl = name.ends_with(".jxl");
        let is_other = name.ends_with(".avif") || name.ends_with(".heic");
        if !pixels.exists() || !(is_jxl || is_other) {
            continue;
        }
        let found = announced(&std::fs::read(&path).unwrap()).unwrap();
        let (width, height) = image::image_dimensions(&pixels).unwrap();
        match is_jxl {
            true => assert_eq!((found.width, found.height), (width, height), "{name}"),
            // Before crops and turns.
            false => assert!(found.width * found.height >= width * height, "{name}"),
        }
        count += 1;
    }
    assert!(count >= 20, "{count}");
}
