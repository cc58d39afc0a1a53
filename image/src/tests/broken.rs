//! Mislabelled, truncated and corrupt files.

use image::{GrayImage, RgbaImage};

use super::*;

/// A chunk of PNG.
fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let body = [&kind[..], data].concat();
    let sum = meta::crc32(&body).to_be_bytes();
    [&(data.len() as u32).to_be_bytes(), &body[..], &sum].concat()
}

fn files() -> Vec<(&'static str, Vec<u8>)> {
    let picture: DynamicImage = waves(61, 47).into();
    let alpha: DynamicImage = RgbaImage::from_fn(50, 40, |x, y| {
        image::Rgba([x as u8 * 5, y as u8 * 6, 77, (x * y) as u8])
    })
    .into();
    vec![
        ("jpeg", jpeg(&waves(61, 47))),
        ("progressive", progressive_jpeg(&waves(61, 47))),
        ("png", written(&picture, ImageFormat::Png)),
        ("png alpha", written(&alpha, ImageFormat::Png)),
        ("webp lossless", written(&alpha, ImageFormat::WebP)),
        ("webp lossy", webp(&waves(61, 47), (61, 47), Some(80))),
        ("webp alpha", webp(alpha.as_bytes(), (50, 40), Some(80))),
        ("gif", written(&alpha, ImageFormat::Gif)),
        ("tiff", written(&picture, ImageFormat::Tiff)),
        ("bmp", written(&picture, ImageFormat::Bmp)),
        ("pnm", written(&picture, ImageFormat::Pnm)),
        ("qoi", written(&alpha, ImageFormat::Qoi)),
        ("tga", written(&alpha, ImageFormat::Tga)),
        ("ico", written(&alpha, ImageFormat::Ico)),
        (
            "avif",
            include_bytes!("pictures/avif_420_8_full.avif").to_vec(),
        ),
        (
            "avif alpha",
            include_bytes!("pictures/avif_alpha_multiplied_10.avif").to_vec(),
        ),
        (
            "avif grid",
            include_bytes!("pictures/avif_grid_alpha.avif").to_vec(),
        ),
        ("jxl", include_bytes!("pictures/jxl_rgba8.jxl").to_vec()),
        (
            "jxl lossy",
            include_bytes!("pictures/jxl_rgb8_lossy.jxl").to_vec(),
        ),
        (
            "jxl container",
            include_bytes!("pictures/jxl_grey16_container.jxl").to_vec(),
        ),
    ]
}

#[track_caller]
fn assert_no_panic(name: &str, result: &Result<Pixels, ImageError>) {
    if let Err(error) = result {
        let text = error.to_string();
        assert!(!text.contains("panicked"), "{name}: {text}");
        assert!(!text.is_empty() && !text.contains('\n'), "{name}: {text}");
    }
}

#[test]
fn a_prefix_of_a_file_is_an_error_or_complete() {
    let spec = spec("20");
    for (name, file) in files() {
        let whole = resize_to_pixels(&file, &spec).unwrap();
        let step = (file.len() / 400).max(1);
        for end in (0..file.len())
            .step_by(step)
            .chain(file.len() - 20..file.len())
        {
            let result = resize_to_pixels(&file[..end], &spec);
            assert_no_panic(name, &result);
            if let Ok(pixels) = result {
                // Of a damaged container, luma and chroma are not resized apart.
                let is_near = name == "webp lossy" && difference(&pixels, &whole) < 2.0;
                assert!(
                    pixels == whole || is_near,
                    "{name}: torn after {end} of {}",
                    file.len()
                );
            }
        }
    }
}

#[test]
fn a_truncated_jpeg_is_reported_as_truncated() {
    let photo = waves(400, 300);
    for file in [jpeg(&photo), progressive_jpeg(&photo)] {
        let error = resize_encoded(&file[..file.len() / 2], &spec("64")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "truncated JPEG: the file ends before the picture does"
        );
    }
    // Only the end marker is missing, and no pixel.
    let file = jpeg(&photo);
    let open = &file[..file.len() - 2];
    let full = ResizeSpec::full_size();
    let of_check = check(open, &full).unwrap().damage;
    let of_results =
        [spec("20"), spec("180"), full].map(|spec| resize_encoded(open, &spec).unwrap().damage);
    for damage in of_results.into_iter().chain([of_check]) {
        let damage = damage.unwrap();
        assert_eq!(damage.missing, 0);
        assert!(
            damage.text.contains("its end marker is missing"),
            "{}",
            damage.text
        );
    }
    let file = progressive_jpeg(&photo);
    assert!(resize_encoded(&file[..file.len() - 2], &spec("64")).is_err());
    // Bytes after the end are ignored.
    let longer = [file.as_slice(), b"trailing rubbish \xff\xd8\xff\xda"].concat();
    assert!(resize_encoded(&longer, &spec("64")).is_ok());
}

#[test]
fn a_torn_picture_is_written_as_far_as_it_goes_if_that_is_allowed() {
    let strict = spec("20");
    let tolerant = ResizeSpec {
        fail_on: FailOn::None,
        ..strict
    };
    for (name, file) in files() {
        let whole = resize_encoded(&file, &strict).unwrap();
        assert_eq!(whole.damage, None, "{name}");
        let mut shown = 0;
        for end in (0..file.len()).step_by((file.len() / 100).max(1)) {
            let Ok(made) = resize_encoded(&file[..end], &tolerant) else {
                continue;
            };
            assert_eq!(
                (made.width, made.height),
                (whole.width, whole.height),
                "{name}"
            );
            let allowed = ResizeSpec {
                fail_on: FailOn::Truncated,
                ..strict
            };
            match made.damage {
                None => assert_eq!(made.bytes, whole.bytes, "{name}: torn after {end}"),
                Some(damage) if damage.missing > 0 => {
                    assert!(damage.missing <= damage.pixels, "{name}: {damage:?}");
                    assert!(damage.text.contains('%'), "{name}: {damage:?}");
                    assert!(
                        resize_encoded(&file[..end], &allowed).is_err(),
                        "{name}: {damage:?}"
                    );
                    shown += 1;
                }
                Some(_) => {}
            }
        }
        // Two decoders yield whole pictures only, and the directory of this TIFF is at its end.
        let all_or_nothing = ["avif", "jxl", "tiff", "progressive"]
            .iter()
            .any(|start| name.starts_with(start));
        assert!(shown > 0 || all_or_nothing, "{name}");
    }
}

/// A scaled decode locates the loss as exactly as a decode at full size, and shows the rows above it.
#[test]
fn rows_above_a_loss_are_shown_at_any_scale() {
    let file = jpeg(&waves(240, 200));
    let missing = |torn: &[u8], spec: &ResizeSpec| {
        let damage = resize_encoded(torn, spec).unwrap().damage;
        damage.map_or(0, |damage| damage.missing / 240)
    };
    let full = ResizeSpec {
        fail_on: FailOn::None,
        ..ResizeSpec::full_size()
    };
    for tenth in 2..10 {
        let torn = &file[..file.len() * tenth / 10];
        let expected = missing(torn, &full);
        for size in ["110x", "60x", "30x", "15x"] {
            let size = size.parse().unwrap();
            let rows = missing(torn, &ResizeSpec { size, ..full });
            // One row of blocks more or less: 16 pixels with 4:2:0 chroma.
            assert!(
                rows.abs_diff(expected) <= 16,
                "{tenth} {size}: {rows} of {expected}"
            );
        }
        let checked = check(torn, &full).unwrap().damage.unwrap();
        assert!(
            (checked.missing / 240).abs_diff(expected) <= 16,
            "{tenth}: {checked:?}"
        );
    }
}

#[test]
fn restart_markers_that_are_missing_or_misnumbered_cost_no_pixel() {
    let picture = waves(128, 96);
    let mut encoder = mozjpeg::Compress::new(mozjpeg::ColorSpace::JCS_RGB);
    encoder.set_fastest_defaults();
    encoder.set_size(128, 96);
    let mut encoder = encoder.start_compress(Vec::new()).unwrap();
    encoder.write_scanlines(picture.as_raw()).unwrap();
    let plain = encoder.finish().unwrap();
    let whole = resize_to_pixels(&plain, &spec("50")).unwrap();
    // Announced before the scan, but absent.
    let scan = plain.windows(2).position(|two| two == b"\xff\xda").unwrap();
    let announced = [&plain[..scan], b"\xff\xdd\0\x04\0\x05", &plain[scan..]].concat();
    let made = resize_encoded(&announced, &spec("50")).unwrap();
    assert_eq!(made.damage.map(|damage| damage.missing), Some(0));
    assert_eq!(resize_to_pixels(&announced, &spec("50")), Ok(whole));
}

#[test]
fn a_png_that_lacks_only_its_end_is_accepted() {
    let file = written(&waves(61, 47).into(), ImageFormat::Png);
    let whole = resize_to_pixels(&file, &spec("20")).unwrap();
    for missing in 1..=12 {
        let pixels = resize_to_pixels(&file[..file.len() - missing], &spec("20"));
        assert_eq!(pixels.as_ref(), Ok(&whole), "{missing} bytes are missing");
    }
    // Without its last pixels it is truncated, even if it ends after a chunk.
    let at = file.windows(4).position(|four| four == b"IDAT").unwrap();
    let pixels = &file[at + 4..file.len() - 12 - 4];
    let (most, rest) = pixels.split_at(pixels.len() - 100);
    let torn = [&file[..at - 4], &chunk(b"IDAT", most)].concat();
    let truncated = ImageError::Truncated {
        format: Format::Png,
    };
    assert_eq!(resize_to_pixels(&torn, &spec("20")), Err(truncated));
    let whole_again = [torn, chunk(b"IDAT", rest)].concat();
    assert_eq!(resize_to_pixels(&whole_again, &spec("20")), Ok(whole));
}

#[test]
fn a_png_with_a_wrong_checksum_is_damaged() {
    let whole = written(&waves(61, 47).into(), ImageFormat::Png);
    let pixels = resize_to_pixels(&whole, &spec("20"));
    // The file has one chunk of pixels, which ends with the checksum of all pixels, and then its own.
    let front = whole.windows(4).position(|four| four == b"IDAT").unwrap() - 4;
    let end = whole.len() - 12;
    let data = &whole[front + 8..end - 4];
    let mut other = data.to_vec();
    *other.last_mut().unwrap() ^= 1;
    let of_all = [&whole[..front], &chunk(b"IDAT", &other), &whole[end..]].concat();
    let mut of_chunk = whole.clone();
    of_chunk[end - 1] ^= 1;
    for file in [of_all, of_chunk] {
        let error = resize_to_pixels(&file, &spec("20")).unwrap_err();
        assert!(error.proves_damage(), "{error}");
        assert!(check(&file, &ResizeSpec::full_size()).is_err());
        let any = ResizeSpec {
            fail_on: FailOn::None,
            ..spec("20")
        };
        let made = resize_encoded(&file, &any).unwrap();
        let damage = made.damage.unwrap();
        assert_eq!(damage.missing, 0);
        assert!(
            damage.text.contains("pixels may be wrong"),
            "{}",
            damage.text
        );
        assert_eq!(resize_to_pixels(&file, &any), pixels);
    }
    // The decoder ignores these chunks.
    for kind in [b"eXIf", b"iCCP", b"tRNS", b"gAMA"] {
        let mut ignored = chunk(kind, &[0; 6]);
        *ignored.last_mut().unwrap() ^= 1;
        let file = [&whole[..33], &ignored, &whole[33..]].concat();
        let damage = resize_encoded(&file, &spec("20")).unwrap().damage.unwrap();
        let name = String::from_utf8_lossy(kind);
        assert!(damage.text.contains(&*name), "{name}: {}", damage.text);
        assert_eq!(resize_to_pixels(&file, &spec("20")), pixels);
    }
}

#[test]
fn a_webp_with_damaged_alpha_is_damaged() {
    let pixels: Vec<u8> = (0..40 * 30 * 4).map(|i| (i % 251) as u8).collect();
    let whole = webp(&pixels, (40, 30), Some(80));
    let alpha = whole.windows(4).position(|kind| kind == b"ALPH").unwrap();
    let refused = |at: usize, value: u8| {
        let mut file = whole.to_vec();
        file[at] = value;
        let error = resize_to_pixels(&file, &spec("20")).err()?;
        assert!(error.proves_damage(), "{value:#x} at {at}: {error}");
        Some(error)
    };
    for head in [0x02, 0x20, 0xc1] {
        refused(alpha + 8, head).unwrap();
    }
    // The compressed values: some bytes only change them.
    let damaged = (alpha + 9..alpha + 60).flat_map(|at| [0, 0xff].map(|value| refused(at, value)));
    assert!(damaged.flatten().count() > 10);
}

/// Valid files that no decoder here reads are no damage.
#[test]
fn unknown_varieties_are_named() {
    let named = |file: &[u8], name: &str| {
        let error = resize_to_pixels(file, &spec("20")).unwrap_err();
        let is_named = error.to_string().contains(name) && !error.proves_damage();
        assert!(is_named, "{name}: {error}");
    };
    let png = written(&waves(40, 30).into(), ImageFormat::Png);
    let with = |at: usize, kind: &[u8; 4]| [&png[..at], &chunk(kind, &[0; 4]), &png[at..]].concat();
    named(&with(8, b"CgBI"), "CgBI");
    named(&with(33, b"XyZz"), "XyZz");
    let mut damaged = with(33, b"XyZz");
    damaged[40] ^= 1;
    assert!(
        resize_to_pixels(&damaged, &spec("20"))
            .unwrap_err()
            .proves_damage()
    );
    // A JPEG-LS file begins with its frame header, SOF55 (ISO/IEC 14495-1).
    let frame = [
        0xff, 0xd8, 0xff, 0xf7, 0, 11, 8, 0, 30, 0, 40, 1, 1, 0x11, 0,
    ];
    named(&frame, "JPEG-LS");
    // Luma has 3 x 1 samples for 2 x 1 of chroma.
    let mut fractional = jpeg(&waves(40, 30));
    let mut pairs = fractional.windows(2);
    let header = pairs.position(|pair| pair == [0xff, 0xc0]).unwrap();
    for (at, sampling) in [(11, 0x31), (14, 0x21), (17, 0x21)] {
        fractional[header + at] = sampling;
    }
    named(&fractional, "sampling");
}

#[test]
fn flipped_bytes_never_panic() {
    let spec = ResizeSpec {
        max_pixels: 4_000_000,
        ..spec("20")
    };
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed as usize
    };
    for (name, file) in files() {
        for round in 0..600 {
            let mut spoilt = file.clone();
            // Half of the rounds aim at the header, which is short.
            let reach = if round % 2 == 0 {
                spoilt.len()
            } else {
                spoilt.len().min(120)
            };
            for _ in 0..=round % 4 {
                spoilt[next() % reach] = next() as u8;
            }
            assert_no_panic(name, &resize_to_pixels(&spoilt, &spec));
        }
    }
}

/// A phone with 200 megapixels and a scanner: what decoding needs is little, and so the limits let the header pass.
#[test]
fn a_large_jpeg_passes_the_default_limits() {
    let small = quarters(64, 64);
    for (mut file, marker) in [(jpeg(&small), 0xc0), (progressive_jpeg(&small), 0xc2)] {
        let frame = file
            .windows(2)
            .position(|two| two == [0xff, marker])
            .unwrap();
        for (height, width) in [(12_240u16, 16_320u16), (17_000, 17_700)] {
            file[frame + 5..frame + 9]
                .copy_from_slice(&[height.to_be_bytes(), width.to_be_bytes()].concat());
            let error = resize_encoded(&file, &spec("64")).unwrap_err();
            // All coefficients of several scans are in memory; the file is too short for them.
            let is_right = match error {
                ImageError::Truncated { .. } | ImageError::Corrupt { .. } => true,
                ImageError::Bomb { .. } => marker == 0xc2,
                _ => false,
            };
            assert!(is_right, "{error}");
        }
    }
}

#[test]
fn a_palette_that_ends_within_a_colour_is_an_error() {
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut chunk = |kind: &[u8; 4], data: &[u8]| {
        let body = [&kind[..], data].concat();
        file.extend((data.len() as u32).to_be_bytes());
        file.extend(&body);
        file.extend(meta::crc32(&body).to_be_bytes());
    };
    // One pixel with an index of eight bits, and a transparent colour, so that the palette is unpacked.
    chunk(b"IHDR", &[0, 0, 0, 1, 0, 0, 0, 1, 8, 3, 0, 0, 0]);
    chunk(b"PLTE", &[1, 2, 3, 4, 5]);
    chunk(b"tRNS", &[9]);
    chunk(b"IDAT", &[0x78, 1, 1, 2, 0, 0xfd, 0xff, 0, 0, 0, 2, 0, 1]);
    chunk(b"IEND", &[]);
    let error = resize_to_pixels(&file, &spec("8")).unwrap_err();
    assert!(
        error.to_string().contains("a palette of 5 bytes"),
        "{error}"
    );
}

/// A height of 0, and the number of lines after the pixels: legal, and not supported by libjpeg.
#[test]
fn a_jpeg_with_its_height_after_the_pixels_is_no_damage() {
    let whole = jpeg(&quarters(40, 30));
    let frame = whole
        .windows(2)
        .position(|two| two == [0xff, 0xc0])
        .unwrap();
    let (mut file, end) = (whole.clone(), whole.len() - 2);
    file[frame + 5..frame + 7].fill(0);
    let late = [&file[..end], &[0xff, 0xdc, 0, 4, 0, 30], &file[end..]].concat();
    for result in [
        decode(&late).map(|_| ()),
        check(&late, &ResizeSpec::full_size()).map(|_| ()),
    ] {
        let error = result.unwrap_err();
        assert!(
            !error.proves_damage() && error.to_string().contains("DNL"),
            "{error}"
        );
    }
    for broken in [file, [&whole[..end], &late[end..]].concat()] {
        let error = decode(&broken).map(|_| ());
        assert!(error.is_ok() || error.unwrap_err().proves_damage());
    }
}

/// The start of a file that announces 50,000 by 50,000 pixels.
fn bombs() -> Vec<(Format, Vec<u8>)> {
    let side = 50_000u32;
    let be = side.to_be_bytes();
    let le = side.to_le_bytes();
    let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\x0d".to_vec();
    let header = [&b"IHDR"[..], &be, &be, &[8, 6, 0, 0, 0]].concat();
    png.extend(&header);
    png.extend(meta::crc32(&header).to_be_bytes());
    png.extend(b"\0\0\0\0IDAT\x35\xaf\x06\x1e");

    let mut jpeg = jpeg(&waves(16, 16));
    let frame = jpeg.windows(2).position(|w| w == [0xff, 0xc0]).unwrap();
    jpeg[frame + 5..frame + 7].copy_from_slice(&be[2..]);
    jpeg[frame + 7..frame + 9].copy_from_slice(&be[2..]);

    let mut gif = b"GIF89a".to_vec();
    gif.extend(&le[..2]);
    gif.extend(&le[..2]);
    gif.extend([0, 0, 0, 0x2c, 0, 0, 0, 0]);
    gif.extend(&le[..2]);
    gif.extend(&le[..2]);
    gif.extend([0, 2, 0, 0x3b]);

    let mut bmp = written(&DynamicImage::ImageRgb8(waves(4, 4)), ImageFormat::Bmp);
    bmp[18..22].copy_from_slice(&le);
    bmp[22..26].copy_from_slice(&le);

    let mut tiff = written(&DynamicImage::ImageRgb8(waves(4, 4)), ImageFormat::Tiff);
    for tag in [[0x00, 0x01], [0x01, 0x01]] {
        let at = tiff
            .windows(4)
            .position(|w| w[..2] == tag && w[2..] == [4, 0])
            .unwrap();
        tiff[at + 8..at + 12].copy_from_slice(&le);
    }
    // Twice 14 bits, each one less than the side: 16,383 by 16,383.
    let mut webp = written(&DynamicImage::ImageRgb8(waves(4, 4)), ImageFormat::WebP);
    let at = webp.windows(4).position(|w| w == b"VP8L").unwrap() + 9;
    webp[at..at + 4].copy_from_slice(&[0xfe, 0xbf, 0xff, 0x0f]);
    let pnm = format!("P6 {side} {side} 255 ").into_bytes();
    let qoi = [&b"qoif"[..], &be, &be, &[4, 0]].concat();
    let short = &le[..2];
    let tga = [&b"\0\0\x0a\0\0\0\0\0\0\0\0\0"[..], short, short, &[32, 8]].concat();
    let mut ico = [
        &b"\0\0\x01\0\x01\0\0\0\0\0\x01\0\x20\0\x28\0\0\0\x16\0\0\0\x28\0\0\0"[..],
        &le,
    ]
    .concat();
    ico.extend((2 * side).to_le_bytes());
    ico.extend([1, 0, 32, 0]);
    ico.extend([0; 24]);
    vec![
        (Format::Pnm, pnm),
        (Format::Qoi, qoi),
        (Format::Tga, tga),
        (Format::Ico, ico),
        (Format::Png, png),
        (Format::Jpeg, jpeg),
        (Format::Gif, gif),
        (Format::Bmp, bmp),
        (Format::Tiff, tiff),
        (Format::WebP, webp),
    ]
}

#[test]
fn bombs_are_rejected_by_their_header() {
    for (format, file) in bombs() {
        // Fewer than the largest WebP has.
        let few = ResizeSpec {
            max_pixels: 128_000_000,
            ..spec("20")
        };
        let error = resize_encoded(&file, &few).unwrap_err();
        assert!(
            matches!(error, ImageError::TooManyPixels { .. }),
            "{format}: {error}"
        );
        assert!(error.to_string().contains("max_pixels"), "{error}");
    }
    let file = jpeg(&waves(40, 30));
    let limited = |max_pixels| {
        resize_encoded(
            &file,
            &ResizeSpec {
                max_pixels,
                ..spec("20")
            },
        )
    };
    assert!(limited(1200).is_ok());
    assert_eq!(
        limited(1199).unwrap_err().to_string(),
        "40x30 is 1200 pixels, more than the limit of 1199; if you trust the file, raise max_pixels"
    );
}

#[test]
fn the_most_pixels_that_become_one_are_averaged_exactly() {
    let filters = [
        Filter::Lanczos3,
        Filter::CatmullRom,
        Filter::Mitchell,
        Filter::Bilinear,
        Filter::Box,
    ];
    for (level, filter) in [0_u8, 128, 255]
        .into_iter()
        .flat_map(|level| filters.map(|filter| (level, filter)))
    {
        for (side, to) in [(1000, 1), (8191, 1), (8192, 1), (3 * 8192, 3)] {
            for turned in [false, true] {
                let turn = |(a, b)| if turned { (b, a) } else { (a, b) };
                let small = resize_pixels(
                    &vec![level; side as usize],
                    turn((side, 1)),
                    1,
                    turn((to, 1)),
                    filter,
                );
                let near = |found: &u8| found.abs_diff(level) <= 1;
                assert!(
                    small.as_ref().is_ok_and(|small| small.iter().all(near)),
                    "{filter:?}, {side}: {small:?}"
                );
            }
        }
        let error = resize_pixels(&[level; 8193], (8193, 1), 1, (1, 1), filter).unwrap_err();
        assert!(error.to_string().contains("at most 8192"), "{error}");
    }
}

/// Few bytes and pixels, but many weights, or a large intermediate picture.
#[test]
fn memory_that_only_resizing_needs_is_limited_too() {
    let zeros = vec![0; 20_000_000];
    let narrow = |size: (u32, u32), to, filter| resize_pixels(&zeros, size, 1, to, filter);
    for filter in [Filter::Lanczos3, Filter::Box] {
        for size in [(20_000_000, 1), (1, 20_000_000)] {
            let error = narrow(size, (4000, 4000), filter).unwrap_err();
            assert!(matches!(error, ImageError::TooManyBytes { .. }), "{error}");
        }
    }
    assert_eq!(
        narrow((20_000_000, 1), (40, 1), Filter::Nearest),
        Ok(vec![0; 40])
    );
    let file = written(
        &DynamicImage::ImageLuma8(GrayImage::new(1_000_000, 10)),
        ImageFormat::Png,
    );
    let error = resize_encoded(&file, &spec("4000x4000!")).unwrap_err();
    assert!(matches!(error, ImageError::TooManyBytes { .. }), "{error}");
    assert!(error.to_string().contains("max_bytes"), "{error}");
    let error = resize_encoded(&file, &spec("100")).unwrap_err();
    assert!(error.to_string().contains("would become 100"), "{error}");
    // A long strip by itself is fine.
    let strip = resize_encoded(&file, &spec("8000")).unwrap();
    assert_eq!((strip.width, strip.height), (8000, 1));
}

#[test]
fn enormous_sides_are_too_many_pixels() {
    let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\x0d".to_vec();
    let side = 20_000_000_u32.to_be_bytes();
    let header = [&b"IHDR"[..], &side, &side, &[8, 6, 0, 0, 0]].concat();
    png.extend(&header);
    png.extend(meta::crc32(&header).to_be_bytes());
    png.extend(b"\0\0\0\0IDAT\x35\xaf\x06\x1e");
    let mut bmp = written(&DynamicImage::ImageRgb8(waves(4, 4)), ImageFormat::Bmp);
    let mut bmp_of = |width: i32, height: i32| {
        bmp[18..22].copy_from_slice(&width.to_le_bytes());
        bmp[22..26].copy_from_slice(&height.to_le_bytes());
        bmp.clone()
    };
    for (what, file) in [
        ("PNG", png.clone()),
        ("BMP", bmp_of(70_000, 70_000)),
        ("BMP downwards", bmp_of(70_000, -70_000)),
    ] {
        let error = resize_encoded(&file, &spec("20")).unwrap_err();
        let many = matches!(error, ImageError::TooManyPixels { .. });
        assert!(many, "{what}: {error}");
    }
    // A corrupt header is reported as corrupt, whatever its sides.
    png[20] ^= 1;
    let error = resize_encoded(&png, &spec("20")).unwrap_err();
    assert!(matches!(error, ImageError::Corrupt { .. }), "{error}");
}

#[test]
fn bytes_are_shown_with_units() {
    let many = ImageError::TooManyBytes {
        bytes: 3 << 29,
        limit: 1 << 30,
    };
    assert_eq!(
        many.to_string(),
        "its pixels, or resizing them, would take 1.5 GiB, more than the limit of 1.0 GiB; \
         if you trust the file, raise max_bytes"
    );
    let bomb = ImageError::Bomb {
        bytes: 75 << 20,
        file: 2048,
        limit: 4096,
    };
    assert!(
        bomb.to_string()
            .starts_with("a file of 2.0 KiB that decodes to 75.0 MiB of pixels"),
        "{bomb}"
    );
}

#[test]
fn out_of_memory_names_the_size_if_known() {
    let text = |bytes| ImageError::OutOfMemory { bytes }.to_string();
    assert!(text(7).contains("no memory for 7 B of pixels"));
    assert!(text(0).contains("no memory for its pixels"));
}

#[test]
fn outputs_too_large_for_their_format_are_rejected() {
    let file = jpeg(&waves(40, 1));
    // libavif 1.4 refuses a side of 32,769 pixels.
    for (output, size, longest) in [
        (Output::WebP, "20000x", 16_383),
        (Output::Avif, "32769x", 32_768),
    ] {
        let spec = ResizeSpec {
            output,
            ..spec(size)
        };
        let error = resize_encoded(&file, &spec).unwrap_err();
        assert!(
            matches!(error, ImageError::OutputTooLarge { limit, .. } if limit == longest),
            "{error}"
        );
    }
    // A thin picture made high would be enormous: rejected before memory is allocated. The message does not blame the
    // format, which could hold it.
    let error = resize_encoded(&file, &spec("x60000")).unwrap_err();
    assert!(
        matches!(
            error,
            ImageError::OutputTooLarge {
                width: 2_400_000,
                ..
            }
        ),
        "{error}"
    );
    let few = ResizeSpec {
        max_pixels: 1000,
        ..spec("400x10!")
    };
    let error = resize_encoded(&file, &few).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the result would be 400x10, 4000 pixels, more than the limit of 1000; \
         ask for a smaller size, or raise max_pixels"
    );
}

#[test]
fn a_jpeg_of_too_many_scans_is_rejected() {
    let file = progressive_jpeg(&waves(64, 64));
    // Repeat its last scan until there are too many.
    let last = file.windows(2).rposition(|w| w == [0xff, 0xda]).unwrap();
    let scan = &file[last..file.len() - 2];
    let bomb = [&file[..last], &scan.repeat(150), &[0xff, 0xd9]].concat();
    let error = resize_encoded(&bomb, &spec("20")).unwrap_err();
    assert!(error.to_string().contains("more than 100 scans"), "{error}");
}

#[test]
fn files_that_are_not_pictures_are_reported() {
    let jpeg_2000 = b"\xff\x4f\xff\x51";
    assert_eq!(
        resize_encoded(jpeg_2000, &spec("20"))
            .unwrap_err()
            .to_string(),
        "unsupported format: JPEG 2000; convert to JPEG, PNG or WebP first"
    );
    for named in [&b"%PDF-1.7"[..], b"<svg/>", b"gimp xcf v011"] {
        let error = resize_encoded(named, &spec("20")).unwrap_err();
        assert!(matches!(error, ImageError::Unsupported { .. }), "{error}");
    }
    for not in [
        &b""[..],
        b"hello",
        b"PDF-1.7",
        b"<html/>",
        b"BM but only text",
    ] {
        assert_eq!(
            resize_encoded(not, &spec("20")),
            Err(ImageError::NotAnImage)
        );
    }
    for head in [
        &b"\xff\xd8\xff"[..],
        b"GIF89a",
        b"II*\0",
        b"RIFF\0\0\0\0WEBP",
        b"\x89PNG\r\n\x1a\n",
    ] {
        let error = resize_encoded(head, &spec("20")).unwrap_err();
        assert!(!matches!(error, ImageError::NotAnImage), "{error}");
    }
}

/// As `tiffcp` leaves a file when it fails. libtiff, Pillow and libvips refuse it.
#[test]
fn a_tiff_of_holes_alone_is_corrupt() {
    let mut file = written(&waves(20, 10).into(), ImageFormat::Tiff);
    assert_eq!(check(&file, &ResizeSpec::full_size()).unwrap().damage, None);
    let start = u32::from_le_bytes(*file[4..].first_chunk().unwrap()) as usize;
    let count = u16::from_le_bytes(*file[start..].first_chunk().unwrap());
    let mut holes = 0;
    for entry in file[start + 2..].chunks_exact_mut(12).take(count.into()) {
        let tag = u16::from_le_bytes([entry[0], entry[1]]);
        if matches!(tag, 273 | 279) {
            entry[8..].fill(0);
            holes += 1;
        }
    }
    assert_eq!(holes, 2);
    let error = check(&file, &ResizeSpec::full_size()).unwrap_err();
    assert!(error.proves_damage(), "{error}");
}
