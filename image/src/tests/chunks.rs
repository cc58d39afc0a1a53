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

/// A file of one grey pixel per level, or of indices, with these chunks before the pixels.
fn levels(kind: u8, chunks: &[Vec<u8>]) -> Vec<u8> {
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    let rows: Vec<u8> = (0..16_u8)
        .flat_map(|row| [vec![0], (row * 16..=row * 16 + 15).collect()].concat())
        .collect();
    std::io::Write::write_all(&mut zlib, &rows).unwrap();
    let header = chunk(b"IHDR", &[0, 0, 0, 16, 0, 0, 0, 16, 8, kind, 0, 0, 0]);
    let signature = b"\x89PNG\r\n\x1a\n".to_vec();
    let pixels = chunk(b"IDAT", &zlib.finish().unwrap());
    let parts = [
        signature,
        header,
        chunks.concat(),
        pixels,
        chunk(b"IEND", &[]),
    ];
    parts.concat()
}

/// libpng shows the pixels without the profile and without transparency, too, and warns.
#[test]
fn profiles_and_transparency_that_cannot_be_read_are_a_warning() {
    let srgb = moxcms::ColorProfile::new_srgb().encode().unwrap();
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut zlib, &srgb).unwrap();
    let packed = zlib.finish().unwrap();
    let profile = |start: &[u8], packed: &[u8]| chunk(b"iCCP", &[start, packed].concat());
    let mut spoilt = packed.clone();
    spoilt[2..30].fill(0xff);
    let palette: Vec<u8> = (0..=255).flat_map(|level| [level; 3]).collect();
    let palette = chunk(b"PLTE", &palette);
    let clear = |len| chunk(b"tRNS", &vec![0; len]);
    let (grey, indexed) = (0, 3);
    let whole = [
        (grey, vec![]),
        (grey, vec![profile(b"p\0\0", &packed)]),
        (grey, vec![clear(2)]),
        (indexed, vec![palette.clone(), clear(256)]),
        (indexed, vec![palette.clone(), clear(1)]),
    ];
    for (kind, chunks) in whole {
        let file = levels(kind, &chunks);
        assert_eq!(check(&file, &ResizeSpec::full_size()).unwrap().damage, None);
    }
    for (kind, chunks, name) in [
        (grey, vec![profile(b"p\0\0", &spoilt)], "iCCP"),
        (grey, vec![profile(b"p\0\0", &packed[..200])], "iCCP"),
        (grey, vec![profile(b"p\0\x01", &packed)], "iCCP"),
        (grey, vec![profile(b"\0\0", &packed)], "iCCP"),
        (grey, vec![clear(1)], "tRNS"),
        (indexed, vec![palette.clone(), clear(257)], "tRNS"),
        (indexed, vec![clear(9), palette.clone()], "tRNS"),
    ] {
        let file = levels(kind, &chunks);
        let made = resize_encoded(&file, &ResizeSpec::full_size()).unwrap();
        let damage = made.damage.unwrap();
        assert!(damage.text.contains(name), "{name}: {}", damage.text);
        assert_eq!(damage.missing, 0);
        let expected: Vec<u8> = (0..=255).collect();
        let picture = image::load_from_memory(&made.bytes).unwrap();
        assert!(!picture.color().has_alpha());
        assert_eq!(picture.to_luma8().into_raw(), expected, "{name}");
        let strict = ResizeSpec {
            fail_on: FailOn::Warning,
            ..ResizeSpec::full_size()
        };
        assert!(resize_encoded(&file, &strict).unwrap_err().proves_damage());
    }
}

/// libpng ignores gAMA out of its range, and cHRM that describes no colours, too.
#[test]
fn a_gamma_or_primaries_that_nothing_can_show_are_a_warning() {
    let numbers = |numbers: &[u32]| {
        numbers
            .iter()
            .flat_map(|number| number.to_be_bytes())
            .collect::<Vec<_>>()
    };
    let gamma = |gamma: u32| chunk(b"gAMA", &numbers(&[gamma]));
    let places = |places: [u32; 8]| chunk(b"cHRM", &numbers(&places));
    let palette: Vec<u8> = (0..=255)
        .flat_map(|level| [level, level, 255 - level])
        .collect();
    let picture = |colors: &[Vec<u8>]| {
        let all = [colors, &[chunk(b"PLTE", &palette)]].concat();
        let file = levels(3, &all);
        resize_encoded(&file, &ResizeSpec::full_size()).unwrap()
    };
    let plain = picture(&[]);
    for (chunk, name) in [
        (gamma(0), "gAMA"),
        (gamma(1), "gAMA"),
        (gamma(15), "gAMA"),
        (gamma(625_000_001), "gAMA"),
        (gamma(u32::MAX), "gAMA"),
        (chunk(b"gAMA", &[0; 3]), "gAMA"),
        (places([0; 8]), "cHRM"),
        // No triangle: one point, a line, and almost a line.
        (
            places([31_270, 32_900].repeat(4).try_into().unwrap()),
            "cHRM",
        ),
        (
            places([
                31_270, 32_900, 10_000, 10_000, 20_000, 20_000, 30_000, 30_000,
            ]),
            "cHRM",
        ),
        (
            places([
                20_000, 20_000, 10_000, 10_000, 20_000, 20_010, 30_000, 30_000,
            ]),
            "cHRM",
        ),
        // The white point is outside, at a corner, or on a side.
        (
            places([5_000, 5_000, 64_000, 33_000, 30_000, 60_000, 15_000, 6_000]),
            "cHRM",
        ),
        (
            places([
                30_000, 60_000, 64_000, 33_000, 30_000, 60_000, 15_000, 6_000,
            ]),
            "cHRM",
        ),
        (
            places([
                45_000, 45_000, 60_000, 30_000, 30_000, 60_000, 15_000, 6_000,
            ]),
            "cHRM",
        ),
        // No colours.
        (
            places([
                31_270, 32_900, 94_000, 33_000, 30_000, 60_000, 15_000, 6_000,
            ]),
            "cHRM",
        ),
        (
            places([
                31_270,
                32_900,
                64_000,
                33_000,
                30_000,
                60_000,
                15_000,
                u32::MAX,
            ]),
            "cHRM",
        ),
    ] {
        let made = picture(std::slice::from_ref(&chunk));
        assert_eq!(made.bytes, plain.bytes, "{chunk:?}");
        let text = made.damage.unwrap().text;
        assert!(text.contains(name), "{text}");
    }
    // Not sRGB: linear light, wide primaries in both directions of rotation.
    for chunk in [
        gamma(100_000),
        gamma(16),
        gamma(625_000_000),
        places([31_270, 32_900, 73_470, 26_530, 15_960, 84_040, 3_660, 10]),
        places([
            31_270, 32_900, 15_000, 6_000, 30_000, 60_000, 64_000, 33_000,
        ]),
    ] {
        let made = picture(std::slice::from_ref(&chunk));
        assert!(
            made.bytes != plain.bytes && made.damage.is_none(),
            "{:?}",
            made.damage
        );
    }
}

/// As ImageMagick and exiftool wrote it; Pillow turns such pictures, see `pictures/make.py`.
#[test]
fn exif_as_text_is_applied_and_kept() {
    let upright = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x01\0\0\0\0\0\0";
    let keep = ResizeSpec {
        keep_metadata: true,
        ..ResizeSpec::full_size()
    };
    for file in [
        &include_bytes!("pictures/png_text_exif_5.png")[..],
        include_bytes!("pictures/png_text_exif_6.png"),
        include_bytes!("pictures/png_text_app1_8.png"),
    ] {
        // Behind the header.
        let len = u32::from_be_bytes(*file[33..].first_chunk().unwrap()) as usize;
        let (header, (text, rest)) = (&file[..33], file[33..].split_at(12 + len));
        let (pixels, end) = rest.split_at(rest.len() - 12);
        let later = [header, pixels, text, end].concat();
        for file in [file, &later] {
            let made = resize_encoded(file, &keep).unwrap();
            assert_eq!(
                (made.width, made.height, made.damage.is_some()),
                (21, 29, false)
            );
            let read = rendered(&made.bytes, &keep).unwrap().metadata;
            assert_eq!(read.exif.as_deref(), Some(&upright[..]));
        }
        // A chunk for EXIF prevails.
        let own = [header, &chunk(b"eXIf", &exif(1)), text, rest].concat();
        assert_eq!(decode(&own).unwrap().width, 29);
        // Neither of these is EXIF.
        for other in [
            &b"Raw profile type exif\0\nexif\n 8\n4d4d002axx"[..],
            b"Raw profile type exif\0",
            b"Raw",
        ] {
            let odd = [header, &chunk(b"tEXt", other), rest].concat();
            assert_eq!(decode(&odd).unwrap().width, 29);
        }
    }
}
