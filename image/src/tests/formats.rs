//! All formats, in and out, and all kinds of pixels.

use image::{ColorType, GrayImage, ImageBuffer, Rgba, RgbaImage};

use super::*;

#[test]
fn every_input_format_gives_its_default_output() {
    let picture = DynamicImage::ImageRgb8(quarters(80, 60));
    let cases = [
        (jpeg(&quarters(80, 60)), Format::Jpeg),
        (progressive_jpeg(&quarters(80, 60)), Format::Jpeg),
        (written(&picture, ImageFormat::Png), Format::Png),
        (written(&picture, ImageFormat::WebP), Format::WebP),
        (
            written(&picture.to_rgba8().into(), ImageFormat::Gif),
            Format::Gif,
        ),
        (written(&picture, ImageFormat::Tiff), Format::Png),
        (written(&picture, ImageFormat::Bmp), Format::Png),
    ];
    for (file, output) in &cases {
        let small = resize_encoded(file, &spec("40x40")).unwrap();
        assert_eq!((small.format, small.width, small.height), (*output, 40, 30));
        assert_quarters(&decoded(&small), QUARTERS);
        for output in [Output::Jpeg, Output::Png, Output::WebP, Output::Gif] {
            let spec = ResizeSpec {
                output,
                ..spec("20x20")
            };
            let small = resize_encoded(file, &spec).unwrap();
            assert_eq!(small.format, output.format_for(Format::Bmp));
            assert_quarters(&decoded(&small), QUARTERS);
        }
    }
}

/// A TIFF of one strip after its directory: grey or RGBA, by the number of channels.
pub(super) fn tiff(
    (width, height): (u32, u32),
    channels: u32,
    (compression, extra): (u32, u32),
    strip: &[u8],
) -> Vec<u8> {
    const SHORT: u16 = 3;
    const LONG: u16 = 4;
    const ENTRIES: u32 = 11;
    let depths = 8 + 2 + ENTRIES * 12 + 4;
    let start = depths + 8;
    let one = |tag: u16, value: u32| (tag, SHORT, 1, value);
    let entries: [(u16, u16, u32, u32); ENTRIES as usize] = [
        one(256, width),
        one(257, height),
        // One number is in the entry itself, several are after the directory.
        (258, SHORT, channels, if channels == 1 { 8 } else { depths }),
        one(259, compression),
        one(262, if channels == 1 { 1 } else { 2 }),
        (273, LONG, 1, start),
        one(277, channels),
        one(278, height),
        (279, LONG, 1, strip.len() as u32),
        one(284, 1),
        one(338, extra),
    ];
    let mut file = b"II*\0\x08\0\0\0".to_vec();
    file.extend((ENTRIES as u16).to_le_bytes());
    for (tag, kind, count, value) in entries {
        file.extend(tag.to_le_bytes());
        file.extend(kind.to_le_bytes());
        file.extend(count.to_le_bytes());
        file.extend(value.to_le_bytes());
    }
    file.extend([0, 0, 0, 0, 8, 0, 8, 0, 8, 0, 8, 0]);
    assert_eq!(file.len(), start as usize);
    file.extend(strip);
    file
}

/// As libtiff does, which estimates the length.
#[test]
fn a_strip_without_its_length_extends_to_the_end_of_the_file() {
    let strip: Vec<u8> = (0..16 * 12).map(|at| at as u8).collect();
    let whole = tiff((16, 12), 1, (1, 0), &strip);
    let length = [23, 1, 4, 0, 1, 0, 0, 0];
    let at = whole.windows(8).position(|entry| entry == length).unwrap() + 8;
    let expected = decode(&whole).unwrap().samples;
    for wrong in [0, 100_u32] {
        let mut file = whole.clone();
        file[at..at + 4].copy_from_slice(&wrong.to_le_bytes());
        assert_eq!(decode(&file).unwrap().samples, expected, "{wrong}");
        file.truncate(whole.len() - 1);
        assert!(decode(&file).unwrap_err().proves_damage());
    }
}

/// As libtiff does: the end of the codes is in the codes.
#[test]
fn the_only_strip_of_a_compressed_tiff_may_have_any_length_beyond_its_own() {
    let strip: Vec<u8> = (0..64 * 48).map(|at| (at * at % 97) as u8).collect();
    let expected = decode(&tiff((64, 48), 1, (1, 0), &strip)).unwrap().samples;
    let mut lzw = weezl::encode::Encoder::with_tiff_size_switch(weezl::BitOrder::Msb, 8);
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut zlib, &strip).unwrap();
    for (compression, codes) in [
        (5, lzw.encode(&strip).unwrap()),
        (8, zlib.finish().unwrap()),
    ] {
        let whole = tiff((64, 48), 1, (compression, 0), &codes);
        let entry = whole
            .windows(8)
            .position(|entry| entry == [23, 1, 4, 0, 1, 0, 0, 0]);
        let at = entry.unwrap() + 8;
        for wrong in [0, codes.len() as u32 + 1, 1 << 20, u32::MAX] {
            let mut file = whole.clone();
            file[at..at + 4].copy_from_slice(&wrong.to_le_bytes());
            assert_eq!(
                decode(&file).unwrap().samples,
                expected,
                "{compression}, {wrong}"
            );
            let missing = check(&file, &ResizeSpec::full_size()).unwrap().damage;
            assert_eq!(missing.map_or(0, |damage| damage.missing), 0);
            file.truncate(whole.len() - codes.len() / 2);
            assert!(decode(&file).unwrap_err().proves_damage());
        }
    }
}

/// Each bit of a fax is changed. With `fail_on=warning`, libvips 8.18, which asks libtiff, accepts the listed changes
/// too, except 734 and 521: these end the last row early. In Group 3 it accepts more, and shows wrong pixels.
#[test]
fn invalid_codes_of_a_fax_are_damage_as_in_libtiff() {
    let huffman = include_bytes!("pictures/tiff_tiff_ccitt.tif");
    let group_3 = include_bytes!("pictures/tiff_group3.tif");
    let two_dimensional = include_bytes!("pictures/tiff_group3_2d.tif");
    let group_4 = include_bytes!("pictures/tiff_group4.tif");
    let files: [(&[u8], usize, &[usize]); 4] = [
        (
            huffman,
            71,
            &[
                28, 29, 30, 31, 60, 61, 62, 63, 74, 86, 87, 98, 110, 111, 134, 135, 158, 159, 188,
                189, 190, 191, 220, 221, 222, 223, 234, 246, 247, 258, 270, 271, 294, 295, 318,
                319, 348, 349, 350, 351, 380, 381, 382, 383, 394, 406, 407, 418, 430, 431, 454,
                455, 478, 479, 508, 509, 510, 511, 540, 541, 542, 543, 554, 566, 567,
            ],
        ),
        (group_3, 96, &[734, 750, 762, 763, 764, 765, 766, 767]),
        (
            two_dimensional,
            77,
            &[521, 527, 528, 590, 601, 613, 614, 615],
        ),
        (
            group_4,
            75,
            &[
                13, 19, 28, 82, 86, 112, 126, 134, 155, 184, 242, 246, 272, 286, 294, 315, 319,
                326, 329, 333, 344, 397, 402, 406, 432, 446, 454, 457, 472, 475, 479, 486, 489,
                493, 504, 508, 511, 514, 543, 557, 558, 561, 562, 565, 566, 568, 572, 573, 574,
                575, 576, 577, 578, 579, 580, 581, 582, 583, 584, 585, 586, 587, 588, 589, 590,
                591, 592, 593, 594, 595, 596, 597, 598, 599,
            ],
        ),
    ];
    for (file, len, valid) in files {
        let accepted = (0..len * 8).filter(|bit| {
            let mut spoilt = file.to_vec();
            // The only strip follows the header.
            spoilt[8 + bit / 8] ^= 0x80 >> (bit % 8);
            match check(&spoilt, &ResizeSpec::full_size()) {
                Ok(checked) => checked.damage.is_none(),
                Err(error) => !error.proves_damage(),
            }
        });
        assert_eq!(accepted.collect::<Vec<_>>(), valid);
    }
}

#[test]
fn associated_alpha_is_divided_out() {
    // Half transparent, with associated and with unassociated alpha.
    for (extra, stored) in [(1, [100, 50, 0, 128]), (2, [199, 100, 0, 128])] {
        let file = tiff((16, 12), 4, (1, extra), &stored.repeat(16 * 12));
        let pixels = decode(&file).unwrap();
        assert_eq!(pixels.color, Color::Rgba);
        assert_eq!(
            pixels.samples,
            Samples::Eight([199, 100, 0, 128].repeat(16 * 12))
        );
    }
}

#[test]
fn a_torn_jpeg_inside_a_tiff_is_an_error() {
    let grey = Pixels {
        width: 64,
        height: 48,
        color: Color::Gray,
        samples: Samples::Eight((0..64 * 48).map(|i| (i % 64) as u8 * 4).collect()),
    };
    let strip = encode(grey.clone(), Format::Jpeg, 95).unwrap();
    let whole = tiff((64, 48), 1, (7, 0), &strip);
    let seen = decode(&whole).unwrap();
    assert_eq!(seen.color, Color::Gray);
    let (Samples::Eight(seen), Samples::Eight(grey)) = (seen.samples, grey.samples) else {
        panic!("both have 8 bits");
    };
    assert!(seen.iter().zip(&grey).all(|(a, b)| a.abs_diff(*b) < 20));
    let error = decode(&whole[..whole.len() - strip.len() / 3]).unwrap_err();
    assert!(matches!(error, ImageError::Truncated { .. }), "{error}");
    // A part of its end marker is missing, and no pixel.
    let almost = resize_encoded(&whole[..whole.len() - 1], &ResizeSpec::full_size()).unwrap();
    assert_eq!(almost.damage.map(|damage| damage.missing), Some(0));
}

#[test]
fn a_large_tiff_is_resized_while_it_is_read_as_if_it_were_whole() {
    let colors = waves(4001, 2903);
    let alpha = RgbaImage::from_fn(2900, 3000, |x, y| {
        let color = colors.get_pixel(x, y % 2900);
        Rgba([color[0], color[1], color[2], (x + y) as u8])
    });
    let deep = ImageBuffer::from_fn(2404, 2410, |x, y| {
        let color = colors.get_pixel(x, y);
        image::Rgb([0, 1, 2].map(|at| u16::from(color[at]) * 257))
    });
    let cover = ResizeSpec {
        fit: Fit::Cover,
        position: Position::Top,
        ..spec("301x97")
    };
    let nearest = ResizeSpec {
        filter: Filter::Nearest,
        ..spec("100x100")
    };
    let specs = [spec("224x224"), spec("1000x"), cover, nearest];
    for (picture, specs) in [
        (DynamicImage::ImageRgb8(colors), &specs[..]),
        (DynamicImage::ImageRgba8(alpha), &specs[..1]),
        (DynamicImage::ImageRgb16(deep), &specs[..1]),
    ] {
        let [strips, whole] =
            [ImageFormat::Tiff, ImageFormat::Png].map(|format| written(&picture, format));
        for spec in specs {
            let [strips, whole] =
                [&strips, &whole].map(|file| resize_to_pixels(file, spec).unwrap());
            assert_eq!((strips.width, strips.height), (whole.width, whole.height));
            let worst = match (&strips.samples, &whole.samples) {
                (Samples::Eight(one), Samples::Eight(other)) => {
                    let pairs = one.iter().zip(other);
                    pairs.map(|(a, b)| u16::from(a.abs_diff(*b))).max()
                }
                (Samples::Sixteen(one), Samples::Sixteen(other)) => {
                    one.iter().zip(other).map(|(a, b)| a.abs_diff(*b)).max()
                }
                _ => None,
            };
            assert!(worst.is_some_and(|worst| worst <= 1), "{worst:?}, {spec:?}");
        }
    }
}

#[test]
fn missing_strips_of_a_large_tiff_show_the_background() {
    let picture = DynamicImage::ImageLuma8(GrayImage::new(6000, 6000));
    let mut file = written(&picture, ImageFormat::Tiff);
    let reader = std::io::Cursor::new(&file);
    let mut reader = ::tiff::decoder::Decoder::new(reader).unwrap();
    let places = reader
        .get_tag_u32_vec(::tiff::tags::Tag::StripOffsets)
        .unwrap();
    let rows = reader.get_tag_u32(::tiff::tags::Tag::RowsPerStrip).unwrap();
    // The places of the first two strips, of which the second one is then beyond the file.
    let table = [places[0], places[1]].map(u32::to_le_bytes).concat();
    let at = file.windows(8).rposition(|window| window == table).unwrap();
    file[at + 4..at + 8].copy_from_slice(&u32::MAX.to_le_bytes());
    let spec = ResizeSpec {
        fail_on: FailOn::None,
        ..spec("60x60")
    };
    let damage = resize_encoded(&file, &spec).unwrap().damage.unwrap();
    assert_eq!(damage.missing, u64::from(rows) * 6000);
    let Samples::Eight(samples) = resize_to_pixels(&file, &spec).unwrap().samples else {
        panic!("it has 8 bits");
    };
    let column: Vec<u8> = samples.chunks(60).map(|row| row[30]).collect();
    let middle = (rows + rows / 2) as usize / 100;
    assert_eq!(
        (column[0], column[middle], column[59]),
        (0, 255, 0),
        "{column:?}"
    );
}

#[test]
fn fits_work_with_odd_sides() {
    let file = jpeg(&quarters(301, 203));
    for (fit, sides) in [
        (Fit::Contain, (64, 43)),
        (Fit::Cover, (64, 64)),
        (Fit::Fill, (64, 64)),
    ] {
        let small = resize_encoded(
            &file,
            &ResizeSpec {
                fit,
                ..spec("64x64")
            },
        )
        .unwrap();
        assert_eq!((small.width, small.height), sides);
        assert_quarters(&decoded(&small), QUARTERS);
    }
    // Scaled decoding rounds sides up: the plan must stay inside the decoded picture.
    for (w, h) in [
        (1, 1),
        (7, 9),
        (8, 8),
        (9, 1),
        (17, 33),
        (100, 3),
        (255, 257),
    ] {
        let file = jpeg(&waves(w, h));
        for size in ["1", "2", "5x3", "16", "40x1", "3x!", "9x9<", "9x9>"] {
            for fit in [Fit::Contain, Fit::Cover, Fit::Fill] {
                let spec = ResizeSpec { fit, ..spec(size) };
                let plan = spec.plan(w, h, Format::Jpeg).unwrap();
                let small = resize_encoded(&file, &spec).unwrap();
                assert_eq!((small.width, small.height), (plan.width, plan.height));
            }
        }
    }
}

#[test]
fn a_scaled_jpeg_decode_matches_a_full_decode() {
    let reference = |size: &str| -> Vec<f32> {
        let target: Size = size.parse().unwrap();
        image::imageops::resize(
            &image::Rgb32FImage::from(DynamicImage::ImageRgb8(waves(640, 480)).into_rgb32f()),
            target.width,
            target.height,
            image::imageops::FilterType::Lanczos3,
        )
        .into_raw()
    };
    for size in ["40x30!", "100x75!", "200x150!", "320x240!", "500x375!"] {
        let pixels = resize_to_pixels(&jpeg(&waves(640, 480)), &spec(size)).unwrap();
        let Samples::Eight(samples) = pixels.samples else {
            panic!("a JPEG has 8 bits")
        };
        let error: f32 = samples
            .iter()
            .zip(reference(size))
            .map(|(&a, b)| (f32::from(a) - b * 255.0).powi(2))
            .sum::<f32>()
            / samples.len() as f32;
        assert!(error < 6.0, "{size}: mean square error {error}");
    }
}

#[test]
fn filters_that_need_exact_pixels_get_a_full_decode() {
    let file = jpeg(&waves(640, 480));
    let whole = decode(&file).unwrap();
    let Samples::Eight(samples) = &whole.samples else {
        panic!("a JPEG has 8 bits")
    };
    for filter in [Filter::Nearest, Filter::Box] {
        for side in [30, 50, 64, 100, 200] {
            let spec = ResizeSpec {
                filter,
                ..spec(&format!("{side}x{side}!"))
            };
            let seen = resize_to_pixels(&file, &spec).unwrap();
            let expected = resize_pixels(samples, (640, 480), 3, (side, side), filter).unwrap();
            assert!(
                seen.samples == Samples::Eight(expected),
                "{filter:?}, {side}"
            );
        }
    }
}

#[test]
fn grey_stays_grey() {
    let grey = DynamicImage::ImageLuma8(GrayImage::from_fn(64, 64, |x, _| {
        image::Luma([x as u8 * 3])
    }));
    for (file, output) in [
        (written(&grey, ImageFormat::Jpeg), ColorType::L8),
        (written(&grey, ImageFormat::Png), ColorType::L8),
        (
            written(&grey.to_luma_alpha8().into(), ImageFormat::Png),
            ColorType::La8,
        ),
        (written(&grey, ImageFormat::Tiff), ColorType::L8),
    ] {
        let small = resize_encoded(&file, &spec("16")).unwrap();
        assert_eq!(decoded(&small).color(), output);
        let webp = ResizeSpec {
            output: Output::WebP,
            ..spec("16")
        };
        let small = decoded(&resize_encoded(&file, &webp).unwrap()).to_rgb8();
        assert!(small.get_pixel(2, 8).0[0] < 60 && small.get_pixel(13, 8).0[0] > 120);
    }
}

#[test]
fn alpha_is_kept_or_becomes_white() {
    // Left half opaque blue, right half transparent red.
    let picture: DynamicImage = RgbaImage::from_fn(60, 60, |x, _| {
        if x < 30 {
            Rgba([20, 40, 220, 255])
        } else {
            Rgba([255, 0, 0, 0])
        }
    })
    .into();
    for file in [
        written(&picture, ImageFormat::Png),
        written(&picture, ImageFormat::WebP),
        written(&picture, ImageFormat::Tiff),
        written(&picture, ImageFormat::Gif),
    ] {
        let small = decoded(&resize_encoded(&file, &spec("20")).unwrap());
        assert!(small.color().has_alpha());
        let small = small.to_rgba8();
        assert_eq!(small.get_pixel(18, 10).0[3], 0);
        assert_eq!(small.get_pixel(2, 10).0[3], 255);
        for pixel in small.pixels().filter(|pixel| pixel.0[3] > 128) {
            assert!(pixel.0[0] < 60 && pixel.0[2] > 180, "red bleeds: {pixel:?}");
        }
        let jpeg = ResizeSpec {
            output: Output::Jpeg,
            ..spec("20")
        };
        let flat = decoded(&resize_encoded(&file, &jpeg).unwrap()).to_rgb8();
        assert!(
            flat.get_pixel(18, 10).0.iter().all(|&s| s > 245),
            "white behind it"
        );
        assert!(flat.get_pixel(2, 10).0[2] > 180);
    }
}

#[test]
fn transparent_parts_show_the_background() {
    let half = |x| if x < 30 { u8::MAX } else { 0 };
    let colour: DynamicImage =
        RgbaImage::from_fn(60, 60, |x, _| Rgba([20, 40, 220, half(x)])).into();
    let grey: DynamicImage =
        ImageBuffer::from_fn(60, 60, |x, _| image::LumaA([80, half(x)])).into();
    for (picture, left) in [(&colour, [20, 40, 220]), (&grey, [80; 3])] {
        let file = written(picture, ImageFormat::Png);
        for background in [[255, 128, 0], [60; 3], [255; 3]] {
            let jpeg = ResizeSpec {
                output: Output::Jpeg,
                background,
                ..spec("20")
            };
            // With metadata, pixels keep their colour model, unless it cannot represent the background.
            for keep_metadata in [false, true] {
                let flat = resize_encoded(
                    &file,
                    &ResizeSpec {
                        keep_metadata,
                        ..jpeg
                    },
                )
                .unwrap();
                let flat = decoded(&flat);
                let stays_grey = left == [80; 3] && background != [255, 128, 0];
                assert_eq!(flat.color() == ColorType::L8, stays_grey, "{background:?}");
                let flat = flat.to_rgb8();
                for (x, expected) in [(2, left), (17, background)] {
                    let seen = flat.get_pixel(x, 10).0;
                    let near = seen.iter().zip(expected).all(|(a, b)| a.abs_diff(b) < 16);
                    assert!(near, "{seen:?} where {expected:?} was expected");
                }
            }
        }
    }
}

#[test]
fn lossless_webp_has_the_pixels_of_png() {
    let picture = quarters(97, 61);
    let noisy = DynamicImage::from(picture).unsharpen(2.0, 1);
    let file = written(&noisy, ImageFormat::Png);
    let png = decoded(&resize_encoded(&file, &spec("50")).unwrap());
    for (lossless, same) in [(true, true), (false, false)] {
        let webp = ResizeSpec {
            output: Output::WebP,
            lossless,
            // Ignored for a lossless file.
            quality: 1,
            ..spec("50")
        };
        let webp = decoded(&resize_encoded(&file, &webp).unwrap());
        assert_eq!(webp == png, same, "without loss: {lossless}");
    }
}

#[test]
fn a_progressive_jpeg_has_the_same_pixels() {
    const BASELINE: [u8; 2] = [0xff, 0xc0];
    const PROGRESSIVE: [u8; 2] = [0xff, 0xc2];
    let file = written(&quarters(97, 61).into(), ImageFormat::Png);
    let [plain, rough_first] = [false, true].map(|progressive| {
        let jpeg = ResizeSpec {
            output: Output::Jpeg,
            progressive,
            ..spec("50")
        };
        resize_encoded(&file, &jpeg).unwrap()
    });
    let has = |file: &Encoded, marker| file.bytes.windows(2).any(|two| two == marker);
    assert!(has(&plain, BASELINE) && !has(&plain, PROGRESSIVE));
    assert!(has(&rough_first, PROGRESSIVE) && !has(&rough_first, BASELINE));
    assert_eq!(decoded(&plain), decoded(&rough_first));
    // It can be decoded again, at full size and smaller.
    assert!(resize_encoded(&rough_first.bytes, &spec("8")).is_ok());
}

#[test]
fn a_gif_without_transparent_pixels_has_no_alpha() {
    let opaque: DynamicImage = quarters(40, 30).into();
    let file = written(&opaque.to_rgba8().into(), ImageFormat::Gif);
    let png = |size| ResizeSpec {
        output: Output::Png,
        ..spec(size)
    };
    let small = decoded(&resize_encoded(&file, &png("20")).unwrap());
    assert_eq!(small.color(), ColorType::Rgb8);
    assert_quarters(&small, QUARTERS);
    let mut holed = opaque.to_rgba8();
    holed.put_pixel(39, 29, Rgba([0; 4]));
    let file = written(&holed.into(), ImageFormat::Gif);
    let small = decoded(&resize_encoded(&file, &png("40")).unwrap());
    assert_eq!(small.color(), ColorType::Rgba8);
}

/// An animation of one lossy red frame without alpha, which is not announced either.
fn animation(canvas: (u32, u32), place: (u32, u32), (width, height): (u32, u32)) -> Vec<u8> {
    let red = [220, 20, 20].repeat((width * height) as usize);
    let picture = webp(&red, (width, height), Some(90));
    assert_eq!(&picture[12..16], b"VP8 ");
    let number = |number: u32| number.to_le_bytes()[..3].to_vec();
    let chunk = |kind: &[u8; 4], data: &[u8]| {
        let mut chunk = [kind, &(data.len() as u32).to_le_bytes()[..], data].concat();
        chunk.resize(chunk.len().next_multiple_of(2), 0);
        chunk
    };
    let sides = |(width, height): (u32, u32)| [number(width - 1), number(height - 1)].concat();
    let header = chunk(b"VP8X", &[vec![2, 0, 0, 0], sides(canvas)].concat());
    let whole = chunk(b"ANIM", &[255, 255, 255, 255, 0, 0]);
    let place = [number(place.0 / 2), number(place.1 / 2)].concat();
    let frame = [place, sides((width, height)), vec![100, 0, 0, 0]].concat();
    let frame = chunk(b"ANMF", &[&frame, &picture[12..]].concat());
    let body = [&b"WEBP"[..], &header, &whole, &frame].concat();
    chunk(b"RIFF", &body)
}

#[test]
fn the_canvas_outside_the_first_frame_is_transparent() {
    let file = animation((40, 30), (20, 0), (20, 30));
    let small = decoded(&resize_encoded(&file, &spec("40")).unwrap()).to_rgba8();
    assert_eq!(small.get_pixel(5, 15).0[3], 0, "nothing is there");
    let red = small.get_pixel(30, 15).0;
    assert!(red[0] > 180 && red[2] < 60 && red[3] == 255, "{red:?}");
    let on_white = ResizeSpec {
        output: Output::Jpeg,
        ..spec("40")
    };
    let flat = decoded(&resize_encoded(&file, &on_white).unwrap()).to_rgb8();
    assert!(flat.get_pixel(5, 15).0.iter().all(|&sample| sample > 245));
    // A frame that covers the canvas needs no alpha.
    let file = animation((40, 30), (0, 0), (40, 30));
    let small = decoded(&resize_encoded(&file, &spec("40")).unwrap());
    assert_eq!(small.color(), ColorType::Rgb8);
}

#[test]
fn sixteen_bits_stay_if_the_output_has_them() {
    let rgb: DynamicImage = ImageBuffer::from_fn(32, 32, |x, y| {
        image::Rgb([x as u16 * 2000 + 1, y as u16 * 2000, 257])
    })
    .into();
    let grey: DynamicImage =
        ImageBuffer::from_fn(32, 32, |x, _| image::Luma([x as u16 * 2000 + 7])).into();
    for (picture, kept, eight) in [
        (&rgb, ColorType::Rgb16, ColorType::Rgb8),
        (&grey, ColorType::L16, ColorType::L8),
        (&rgb.to_rgba16().into(), ColorType::Rgba16, ColorType::Rgb8),
        (
            &grey.to_luma_alpha16().into(),
            ColorType::La16,
            ColorType::L8,
        ),
    ] {
        let mut files = vec![written(picture, ImageFormat::Png)];
        if !matches!(kept, ColorType::La16) {
            files.push(written(picture, ImageFormat::Tiff));
        }
        for file in files {
            // At full size, samples are unchanged.
            let same = decoded(&resize_encoded(&file, &spec("32")).unwrap());
            assert_eq!(same.color(), kept);
            assert_eq!(same.as_bytes(), picture.as_bytes());
            let small = decoded(&resize_encoded(&file, &spec("16")).unwrap());
            assert_eq!(small.color(), kept);
            let jpeg = ResizeSpec {
                output: Output::Jpeg,
                ..spec("16")
            };
            assert_eq!(
                decoded(&resize_encoded(&file, &jpeg).unwrap()).color(),
                eight
            );
        }
    }
    // 32-bit floats, which TIFF can hold, become 16 bits.
    let float: DynamicImage = rgb.to_rgb32f().into();
    let small = resize_encoded(&written(&float, ImageFormat::Tiff), &spec("16")).unwrap();
    assert_eq!(decoded(&small).color(), ColorType::Rgb16);
}

fn cmyk_jpeg(ycck: bool, inks: [u8; 4]) -> Vec<u8> {
    let mut encoder = mozjpeg::Compress::new(mozjpeg::ColorSpace::JCS_CMYK);
    encoder.set_fastest_defaults();
    if ycck {
        encoder.set_color_space(mozjpeg::ColorSpace::JCS_YCCK);
    }
    encoder.set_size(64, 64);
    encoder.set_quality(95.0);
    let mut encoder = encoder.start_compress(Vec::new()).unwrap();
    encoder.write_scanlines(&inks.repeat(64 * 64)).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn inks_become_rgb() {
    // Inverted, as Adobe writes it: no cyan, full magenta and yellow, no black is red.
    for ycck in [false, true] {
        let file = cmyk_jpeg(ycck, [255, 0, 0, 255]);
        let small = decoded(&resize_encoded(&file, &spec("16")).unwrap());
        assert_eq!(small.color(), ColorType::Rgb8);
        assert_quarters(&small, [[255, 0, 0]; 4]);
        let keep = ResizeSpec {
            keep_metadata: true,
            ..spec("16")
        };
        assert_quarters(
            &decoded(&resize_encoded(&file, &keep).unwrap()),
            [[255, 0, 0]; 4],
        );
    }
    // Without the Adobe marker too.
    let mut file = cmyk_jpeg(false, [255, 0, 0, 255]);
    let marker = file.windows(2).position(|w| w == [0xff, 0xee]).unwrap();
    let length = usize::from(u16::from_be_bytes([file[marker + 2], file[marker + 3]]));
    file.drain(marker..marker + 2 + length);
    let small = decoded(&resize_encoded(&file, &spec("16")).unwrap());
    assert_quarters(&small, [[255, 0, 0]; 4]);
}

#[test]
fn the_first_picture_of_an_animation_comes_first() {
    use image::codecs::gif::GifEncoder;
    let mut gif = Vec::new();
    let mut encoder = GifEncoder::new(&mut gif);
    for blue in [0, 255] {
        let frame = RgbaImage::from_pixel(20, 20, Rgba([250, 10, blue, 255]));
        encoder.encode_frame(image::Frame::new(frame)).unwrap();
    }
    drop(encoder);
    let small = decoded(&resize_encoded(&gif, &spec("10")).unwrap());
    assert_quarters(&small, [[250, 10, 0]; 4]);

    // Partial transparency: a lossy frame then has a separate alpha chunk.
    for (name, chunk) in [
        ("lossless", b"VP8L"),
        ("lossy", b"VP8 "),
        ("alpha", b"ALPH"),
    ] {
        let file = format!(
            "{}/src/tests/pictures/webp_animated_{name}.webp",
            env!("CARGO_MANIFEST_DIR")
        );
        let file = std::fs::read(file).unwrap();
        assert!(file.windows(4).any(|four| four == chunk), "{name}");
        let small = decoded(&resize_encoded(&file, &spec("10")).unwrap());
        assert_quarters(&small, [[250, 10, 0]; 4]);
    }
}

#[test]
fn palettes_and_single_bits_are_read_from_png() {
    use image::codecs::png::PngEncoder;
    // Made by hand, because the `image` crate writes no palettes. Palettes and low depths are expanded the same way.
    let mut one_bit = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut chunk = |name: &[u8; 4], content: &[u8]| {
        let mut body = name.to_vec();
        body.extend_from_slice(content);
        one_bit.extend_from_slice(&(content.len() as u32).to_be_bytes());
        one_bit.extend_from_slice(&body);
        one_bit.extend_from_slice(&crate::meta::crc32(&body).to_be_bytes());
    };
    // 8×2, palette of two colours, 1 bit: left half first colour, right half second.
    chunk(b"IHDR", &[0, 0, 0, 8, 0, 0, 0, 2, 1, 3, 0, 0, 0]);
    chunk(b"PLTE", &[250, 0, 0, 0, 0, 250]);
    let raw = [0, 0b0000_1111, 0, 0b0000_1111];
    let mut zlib = vec![0x78, 0x01, 1, 4, 0, 0xfb, 0xff];
    zlib.extend(raw);
    let (a, b) = raw.iter().fold((1u32, 0u32), |(a, b), &byte| {
        let a = (a + u32::from(byte)) % 65_521;
        (a, (b + a) % 65_521)
    });
    zlib.extend((b << 16 | a).to_be_bytes());
    chunk(b"IDAT", &zlib);
    chunk(b"IEND", &[]);
    let small = decoded(&resize_encoded(&one_bit, &spec("8x2!")).unwrap()).to_rgb8();
    assert_eq!(small.get_pixel(1, 1).0, [250, 0, 0]);
    assert_eq!(small.get_pixel(6, 0).0, [0, 0, 250]);

    let mut grey = Vec::new();
    PngEncoder::new(&mut grey)
        .write_image(&[0, 255, 0, 255], 2, 2, ExtendedColorType::L8)
        .unwrap();
    assert_eq!(
        decoded(&resize_encoded(&grey, &spec("1")).unwrap())
            .to_luma8()
            .get_pixel(0, 0)
            .0[0]
            .abs_diff(128)
            / 3,
        0
    );
}

#[test]
fn quality_changes_the_size_of_jpeg_and_webp() {
    let file = jpeg(&waves(300, 300));
    for output in [Output::Jpeg, Output::WebP] {
        let bytes = |quality| {
            let spec = ResizeSpec {
                output,
                quality,
                ..spec("200")
            };
            resize_encoded(&file, &spec).unwrap().bytes.len()
        };
        assert!(bytes(30) < bytes(80) && bytes(80) < bytes(100));
        assert_eq!(bytes(100), bytes(255));
        assert_eq!(bytes(0), bytes(1));
    }
}

#[test]
fn jpeg_output_is_baseline_420() {
    let small = resize_encoded(&jpeg(&waves(300, 300)), &spec("200")).unwrap();
    let frame = small
        .bytes
        .windows(2)
        .position(|w| w == [0xff, 0xc0])
        .expect("a baseline frame");
    assert_eq!(small.bytes[frame + 9], 3, "components");
    assert_eq!(
        small.bytes[frame + 11],
        0x22,
        "luma is sampled twice in both directions"
    );
    assert_eq!(small.bytes[frame + 14], 0x11);
}
