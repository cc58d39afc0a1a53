//! PNM, QOI, TGA and ICO: all kinds of pixels, as another decoder reads them.

use image::RgbaImage;

use super::*;

/// Decodes a file with both decoders, and compares 16 bits of red, green, blue and alpha.
#[track_caller]
fn assert_same(name: &str, file: &[u8], format: ImageFormat, most: u16) {
    let other = image::load_from_memory_with_format(file, format).unwrap();
    assert_pixels(name, file, &other, most);
}

#[track_caller]
fn assert_pixels(name: &str, file: &[u8], expected: &DynamicImage, most: u16) {
    let made = decode(file).unwrap_or_else(|error| panic!("{name}: {error}"));
    let png = encode(made, Format::Png, 80).unwrap();
    let (made, expected) = (
        image::load_from_memory(&png).unwrap().to_rgba16(),
        expected.to_rgba16(),
    );
    assert_eq!(made.dimensions(), expected.dimensions(), "{name}");
    let pairs = made.pixels().zip(expected.pixels());
    for (made, expected) in pairs {
        let is_near = made
            .0
            .iter()
            .zip(expected.0)
            .all(|(a, b)| a.abs_diff(b) <= most);
        // Colours of transparent pixels do not matter.
        let is_hidden = made[3] == 0 && expected[3] == 0;
        assert!(is_near || is_hidden, "{name}: {made:?} {expected:?}");
    }
}

/// Samples that depend on their place, up to `most`.
fn samples(count: usize, most: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |index| (index * index + 7 * index) % (most + 1))
}

#[test]
fn all_kinds_of_netpbm_are_read() {
    const SIDES: (usize, usize) = (13, 7);
    let count = SIDES.0 * SIDES.1;
    let sides = "13 # a comment\n7";
    let digits = |channels: usize, most: usize| -> String {
        let samples = samples(count * channels, most);
        samples.map(|sample| format!("{sample}\n")).collect()
    };
    let bytes = |channels: usize, most: usize| -> Vec<u8> {
        let samples = samples(count * channels, most);
        match most {
            ..256 => samples.map(|sample| sample as u8).collect(),
            _ => samples
                .flat_map(|sample| (sample as u16).to_be_bytes())
                .collect(),
        }
    };
    let mut files = vec![
        ("P1", format!("P1\n{sides}\n{}", digits(1, 1)).into_bytes()),
        (
            "P4",
            [format!("P4\n{sides}\n").as_bytes(), &bytes(1, 255)[..14]].concat(),
        ),
    ];
    for most in [1, 9, 255, 256, 1000, 65535] {
        let text =
            |kind: &str, channels| format!("{kind}\n{sides} {most}\n{}", digits(channels, most));
        files.push(("P2", text("P2", 1).into_bytes()));
        files.push(("P3", text("P3", 3).into_bytes()));
        let file = |header: String, channels| [header.as_bytes(), &bytes(channels, most)].concat();
        files.push(("P5", file(format!("P5\n{sides}\n{most}\n"), 1)));
        files.push(("P6", file(format!("P6 {sides} {most}\t"), 3)));
        for (depth, kind) in [
            (1, "GRAYSCALE"),
            (2, "GRAYSCALE_ALPHA"),
            (3, "RGB"),
            (4, "RGB_ALPHA"),
        ] {
            let header = format!(
                "P7\nWIDTH 13\nHEIGHT 7\nDEPTH {depth}\n# a comment\nMAXVAL {most}\nTUPLTYPE {kind}\nENDHDR\n"
            );
            files.push((kind, file(header, depth)));
        }
    }
    for (name, file) in &files {
        // The other decoder may round down.
        assert_same(name, file, ImageFormat::Pnm, 257);
        assert!(
            check(file, &ResizeSpec::full_size())
                .unwrap()
                .damage
                .is_none()
        );
    }
    // Bits without blanks.
    assert_eq!(
        decode(b"P1 3 2 101\n010").unwrap().eight_bits(),
        [0, 255, 0, 255, 0, 255]
    );
    for (wrong, damage) in [
        (&b"P2 2 1 5 3 9"[..], "exceeds"),
        (b"P2 2 1 5 3 x", "a number"),
        (b"P1 2 1 02", "a bit"),
        (b"P5 2 1 0 \0\0", "largest number"),
        (b"P6 2 0 255 ", "no pixels"),
        (b"P6 99999999999 1 255 ", "a number"),
        (b"P7\nWIDTH 2\nENDHDR\n", "incomplete"),
        (b"P5 2 2 255 abc", "truncated"),
    ] {
        let error = decode(wrong).unwrap_err();
        assert!(
            error.proves_damage() && error.to_string().contains(damage),
            "{error}"
        );
    }
    // ImageMagick writes and reads up to 32 bits per sample, Pillow pictures of floating-point samples.
    for (header, text) in [
        ("P5 1 1 65536\n", "65536"),
        ("P3 1 1 4294967295\n", "4294967295"),
        (
            "P7\nWIDTH 1\nHEIGHT 1\nDEPTH 1\nMAXVAL 16777215\nENDHDR\n",
            "16777215",
        ),
        ("Pf\n1 1\n-1.0\n", "PFM"),
        ("PF\n1 1\n1.0\n", "PFM"),
    ] {
        let file = [header.as_bytes(), &[0; 12]].concat();
        let error = decode(&file).unwrap_err();
        let is_unsupported = matches!(error, ImageError::UnsupportedVariety { .. });
        assert!(
            is_unsupported && error.to_string().contains(text),
            "{error}"
        );
    }
}

#[test]
fn qoi_is_read_with_all_its_steps() {
    let noise = RgbaImage::from_fn(40, 30, |x, y| {
        let (x, y) = (x as u8, y as u8);
        match y {
            ..5 => image::Rgba([9, 9, 9, 255]),
            5..15 => image::Rgba([x, x.wrapping_mul(2), x / 2, 255]),
            15..20 => image::Rgba([x.wrapping_mul(91), y.wrapping_mul(77), 3, 255]),
            _ => image::Rgba([x % 3 * 80, 7, 200, x.wrapping_mul(y)]),
        }
    });
    for picture in [
        noise.clone().into(),
        DynamicImage::from(noise).to_rgb8().into(),
    ] {
        let file = written(&picture, ImageFormat::Qoi);
        assert_pixels("qoi", &file, &picture, 0);
        // A missing end costs no pixel.
        let error = decode(&file[..file.len() / 2]).unwrap_err();
        assert!(matches!(error, ImageError::Truncated { .. }), "{error}");
        let checked = check(&file[..file.len() - 3], &ResizeSpec::full_size()).unwrap();
        assert_eq!(checked.damage.unwrap().missing, 0);
    }
}

/// A TGA: kind, flags, bits of a pixel and the pixels; of a palette the bits and the colours.
fn tga([kind, flags, bits]: [u8; 3], pixels: &[u8], palette: (u8, &[u8])) -> Vec<u8> {
    let (width, height) = (5u16, 3u16);
    let has_palette = palette.0 > 0;
    let colors = palette.1.len() / usize::from(palette.0).div_ceil(8).max(1);
    let mut file = vec![4, u8::from(has_palette), kind];
    // The first colour of the palette has number 2.
    file.extend((if has_palette { 2u16 } else { 0 }).to_le_bytes());
    file.extend((colors as u16).to_le_bytes());
    file.extend([palette.0, 0, 0, 0, 0]);
    file.extend(width.to_le_bytes());
    file.extend(height.to_le_bytes());
    file.extend([bits, flags]);
    file.extend(b"text");
    file.extend(palette.1);
    file.extend(pixels);
    file
}

/// Pixels of this size as packets: runs of equal ones, and others.
fn packets(pixels: &[u8], bytes: usize) -> Vec<u8> {
    let mut packets = Vec::new();
    let mut rest: Vec<&[u8]> = pixels.chunks_exact(bytes).collect();
    while let Some(first) = rest.first() {
        let run = rest.iter().take_while(|pixel| *pixel == first).count();
        let count = if run > 1 { run } else { rest.len().min(2) };
        packets.push((count as u8 - 1) | if run > 1 { 0x80 } else { 0 });
        let stored = if run > 1 { 1 } else { count };
        packets.extend(rest[..stored].concat());
        rest.drain(..count);
    }
    packets
}

#[test]
fn tga_is_read_with_palettes_run_lengths_and_any_corner_first() {
    let colors = |bytes: usize, rgba: fn(&[u8]) -> [u8; 4]| {
        let mut stored: Vec<u8> = samples(15 * bytes, 255)
            .map(|sample| sample as u8)
            .collect();
        // Runs, also over the end of a row.
        stored.copy_within(..bytes, bytes);
        stored.copy_within(4 * bytes..5 * bytes, 5 * bytes);
        let picture = stored.chunks_exact(bytes).map(rgba).collect::<Vec<_>>();
        (stored, picture)
    };
    fn without_alpha(pixel: &[u8]) -> [u8; 4] {
        let pixel = u16::from_le_bytes([pixel[0], pixel[1]]);
        let part = |shift: u16| ((pixel >> shift & 31) * 255 / 31) as u8;
        [part(10), part(5), part(0), 255]
    }
    fn with_alpha(pixel: &[u8]) -> [u8; 4] {
        let [r, g, b, _] = without_alpha(pixel);
        [r, g, b, if pixel[1] & 0x80 == 0 { 0 } else { 255 }]
    }
    /// Name, kind, alpha, bits, and the colour of a stored pixel.
    type Stored = (&'static str, u8, u8, u8, fn(&[u8]) -> [u8; 4]);
    let kinds: [Stored; 7] = [
        ("15 bits", 2, 0, 15, without_alpha),
        ("16 bits", 2, 0, 16, without_alpha),
        ("16 bits with alpha", 2, 1, 16, with_alpha),
        ("24 bits", 2, 0, 24, |bgr| [bgr[2], bgr[1], bgr[0], 255]),
        ("32 bits", 2, 8, 32, |bgra| {
            [bgra[2], bgra[1], bgra[0], bgra[3]]
        }),
        ("grey", 3, 0, 8, |grey| [grey[0], grey[0], grey[0], 255]),
        ("grey and alpha", 3, 8, 16, |grey| {
            [grey[0], grey[0], grey[0], grey[1]]
        }),
    ];
    for (name, kind, alpha, bits, rgba) in kinds {
        let bytes = usize::from(bits).div_ceil(8);
        let (stored, picture) = colors(bytes, rgba);
        for corner in 0..4u8 {
            let expected: DynamicImage = RgbaImage::from_fn(5, 3, |x, y| {
                let (x, y) = (
                    if corner & 1 == 0 { x } else { 4 - x },
                    if corner & 2 == 0 { 2 - y } else { y },
                );
                image::Rgba(picture[(y * 5 + x) as usize])
            })
            .into();
            let flags = corner << 4 | alpha;
            let plain = tga([kind, flags, bits], &stored, (0, &[]));
            let runs = tga([kind + 8, flags, bits], &packets(&stored, bytes), (0, &[]));
            assert_pixels(name, &plain, &expected, 0);
            assert_pixels(name, &runs, &expected, 0);
            for file in [plain, runs] {
                let error = decode(&file[..file.len() - 1]).unwrap_err();
                assert!(
                    matches!(error, ImageError::Truncated { .. }),
                    "{name}: {error}"
                );
            }
        }
    }
    // Alpha that is 0 everywhere is none.
    let empty = tga([2, 0x28, 32], &[1, 2, 3, 0].repeat(15), (0, &[]));
    assert_eq!(decode(&empty).unwrap().color, Color::Rgb);
    let indices: Vec<u8> = (0..15).map(|index| index % 4 + 2).collect();
    let palettes: [(u8, &[u8], [u8; 4]); 3] = [
        (
            16,
            &[0x1f, 0x80, 0xe0, 0x83, 0, 0xfc, 0xff, 0xff],
            [0, 0, 255, 255],
        ),
        (
            24,
            &[255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9],
            [0, 0, 255, 255],
        ),
        (
            32,
            &[255, 0, 0, 128, 0, 255, 0, 9, 0, 0, 255, 0, 9, 9, 9, 255],
            [0, 0, 255, 128],
        ),
    ];
    for (bits, palette, first) in palettes {
        let wide: Vec<u8> = indices.iter().flat_map(|&index| [index, 0]).collect();
        let files = [
            tga([1, 0x20, 8], &indices, (bits, palette)),
            tga([9, 0x20, 8], &packets(&indices, 1), (bits, palette)),
            tga([1, 0x20, 16], &wide, (bits, palette)),
        ];
        let pixels = files.map(|file| decode(&file).unwrap());
        let channels = pixels[0].color.channels();
        assert_eq!(
            pixels[0].eight_bits()[..channels],
            first[..channels],
            "{bits}"
        );
        assert!(pixels[1] == pixels[0] && pixels[2] == pixels[0], "{bits}");
    }
    // As another program writes it.
    let picture: DynamicImage = waves(61, 47).into();
    assert_pixels("tga", &written(&picture, ImageFormat::Tga), &picture, 0);
}

/// Pillow writes black and white with one bit, see `pictures/make.py`. Other numbers of bits are valid, and not read.
#[test]
fn a_tga_with_an_unusual_number_of_bits_is_no_damage() {
    let file = tga([3, 0x20, 1], &[0b0101_0000, 0xf8, 0b1000_1111], (0, &[]));
    let rows = ["01010", "11111", "10001"].concat();
    let expected = rows.bytes().map(|bit| if bit == b'1' { 255 } else { 0 });
    let expected: Vec<u8> = expected.collect();
    assert_eq!(decode(&file).unwrap().eight_bits(), expected);
    let truncated = ImageError::Truncated {
        format: Format::Tga,
    };
    assert_eq!(decode(&file[..file.len() - 1]), Err(truncated));
    let palette = [7; 12];
    for (header, palette) in [
        ([11, 0x20, 1], (0, &[][..])),
        ([3, 0x20, 4], (0, &[])),
        ([2, 0x20, 8], (0, &[])),
        ([1, 0x20, 4], (24, &palette)),
        ([1, 0x20, 8], (8, &palette)),
    ] {
        let file = tga(header, &[0x84, 0, 0x84, 0, 0x84, 0, 0, 0], palette);
        assert_eq!(readable_format(&file), Ok(Format::Tga));
        let error = check(&file, &ResizeSpec::full_size()).unwrap_err();
        assert!(
            matches!(error, ImageError::UnsupportedVariety { .. }),
            "{error}"
        );
    }
}

/// Most files with a byte too many or too few end so. Pillow refuses most of them, too.
#[test]
fn runs_of_a_tga_that_exceed_the_picture_are_damage() {
    let pixels: Vec<u8> = (0..15).map(|index| index / 4 * 60).collect();
    let whole = tga([11, 0x20, 8], &packets(&pixels, 1), (0, &[]));
    assert_eq!(decode(&whole).unwrap().eight_bits(), pixels);
    let mut longer = whole.clone();
    let last = longer.len() - 2;
    longer[last] += 1;
    let error = decode(&longer).unwrap_err();
    assert!(error.to_string().contains("last run is longer"), "{error}");
    let lenient = ResizeSpec {
        fail_on: FailOn::Truncated,
        ..ResizeSpec::full_size()
    };
    let made = resize_encoded(&longer, &lenient).unwrap();
    let text = made.damage.as_ref().unwrap().text.clone();
    assert!(text.contains("may be wrong"), "{text}");
    assert_eq!(decoded(&made).to_luma8().into_raw(), pixels);
}

/// An icon of pictures: sides, bits, and what the file has of it.
fn icon(pictures: &[(u8, u8, u16, Vec<u8>)]) -> Vec<u8> {
    let mut file = vec![0, 0, 1, 0, pictures.len() as u8, 0];
    let mut offset = 6 + 16 * pictures.len() as u32;
    for (width, height, bits, data) in pictures {
        file.extend([*width, *height, 0, 0, 1, 0]);
        file.extend(bits.to_le_bytes());
        file.extend((data.len() as u32).to_le_bytes());
        file.extend(offset.to_le_bytes());
        offset += data.len() as u32;
    }
    file.extend(pictures.iter().flat_map(|(_, _, _, data)| data));
    file
}

/// A BMP as icons have it, of 20x10 pixels with a mask.
fn dib(bits: u16, most: u8) -> Vec<u8> {
    let mut dib = 40u32.to_le_bytes().to_vec();
    dib.extend([20u32, 20].iter().flat_map(|side| side.to_le_bytes()));
    dib.extend([1, 0]);
    dib.extend(bits.to_le_bytes());
    dib.extend([0; 24]);
    let colors = if bits <= 8 { 1 << bits } else { 0 };
    for color in 0..colors {
        dib.extend([(color * 91) as u8, (color * 7) as u8, color as u8, 0]);
    }
    let stride = (20 * usize::from(bits)).div_ceil(32) * 4;
    let pixels = samples(stride * 10, 255).enumerate();
    dib.extend(pixels.map(|(at, sample)| match bits {
        32 if at % 4 == 3 => (sample as u8).min(most),
        _ => sample as u8,
    }));
    // Beside alpha it does not count, which the other decoder does not know.
    let shown = if bits == 32 && most > 0 { 0 } else { 255 };
    dib.extend(
        samples(10, shown)
            .flat_map(|sample| [sample as u8, shown as u8 & 0x3c, shown as u8 & 0xf0, 0]),
    );
    dib
}

#[test]
fn the_largest_picture_of_an_icon_is_read_with_its_mask() {
    let png = |side: u32| written(&waves(side, side).into(), ImageFormat::Png);
    for bits in [1, 4, 8, 24, 32] {
        let file = icon(&[(16, 16, 32, png(16)), (20, 10, bits, dib(bits, 255))]);
        let large = icon(&[(20, 10, bits, dib(bits, 255))]);
        assert_eq!(decode(&file).unwrap().width, 16, "more pixels");
        assert_same(&format!("{bits} bits"), &large, ImageFormat::Ico, 0);
        let torn = &large[..large.len() * 3 / 4];
        let error = decode(torn).unwrap_err();
        assert!(
            matches!(
                error,
                ImageError::Truncated {
                    format: Format::Ico
                }
            ),
            "{error}"
        );
    }
    // Without alpha the mask counts.
    let masked = decode(&icon(&[(20, 10, 32, dib(32, 0))])).unwrap();
    let colors = decode(&icon(&[(20, 10, 24, dib(24, 0))])).unwrap();
    let alphas = |pixels: &Pixels| -> Vec<u8> {
        pixels
            .eight_bits()
            .iter()
            .skip(3)
            .step_by(4)
            .copied()
            .collect()
    };
    assert_eq!((masked.color, colors.color), (Color::Rgba, Color::Rgba));
    assert_eq!(alphas(&masked), alphas(&colors));
    let sizes = [(16, 32), (48, 8), (48, 32), (0, 8)].map(|(side, bits): (u8, u16)| {
        (
            side,
            side,
            bits,
            png(if side == 0 { 256 } else { side.into() }),
        )
    });
    assert_eq!(decode(&icon(&sizes)).unwrap().width, 256);
    let picture: DynamicImage = waves(48, 48).into();
    let file = written(&picture, ImageFormat::Ico);
    assert_pixels("png", &file, &picture, 0);
    // Neither entries nor pictures where they are said to be.
    for end in 0..6 + 16 + 20 {
        assert!(decode(&file[..end]).unwrap_err().proves_damage());
    }
}

/// As in Pillow and in browsers.
#[test]
fn the_pixels_of_a_bmp_without_their_offset_follow_the_palette() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/tests/pictures");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.to_string_lossy().into_owned();
        // In these, the pixels are elsewhere.
        if !name.ends_with(".bmp") || name.contains("gap") || name.contains("offset") {
            continue;
        }
        let mut file = std::fs::read(&path).unwrap();
        let expected = decode(&file);
        file[10..14].fill(0);
        assert!(decode(&file) == expected, "{name}");
        count += 1;
    }
    assert!(count > 20, "{count}");
}

#[test]
fn an_icon_that_ends_early_is_found() {
    let spec = ResizeSpec::full_size();
    let png = |side: u32| written(&waves(side, side).into(), ImageFormat::Png);
    let large = (48, 48, 32, png(48));
    let two = icon(&[large.clone(), (16, 16, 32, png(16))]);
    assert_eq!(check(&two, &spec).unwrap().damage, None);
    for end in [two.len() - 1, two.len() - png(16).len()] {
        let torn = &two[..end];
        let error = check(torn, &spec).unwrap_err();
        assert!(matches!(error, ImageError::Truncated { .. }), "{error}");
        // The largest is whole.
        let damage = resize_encoded(torn, &spec).unwrap().damage.unwrap();
        assert!(damage.missing == 0 && damage.text.contains("truncated ICO"));
    }
    // The mask has no meaning next to alpha.
    let one = icon(&[(20, 10, 32, dib(32, 255))]);
    let whole = resize_encoded(&one, &spec).unwrap();
    let torn = &one[..one.len() - 5];
    let made = resize_encoded(torn, &spec).unwrap();
    assert_eq!((made.bytes, whole.damage), (whole.bytes, None));
    for damage in [made.damage, check(torn, &spec).unwrap().damage] {
        let text = damage.unwrap().text;
        assert!(
            text.contains("shorter than its directory says; no pixel"),
            "{text}"
        );
    }
}

/// Pillow 13 wrote it (`save(…, bitmap_format="bmp")`): rows of the mask have no padding.
#[test]
fn a_short_mask_that_hides_nothing_hides_nothing() {
    const PILLOW: &[u8] =
        b"\0\0\x01\0\x01\0\x03\x02\0\0\0\0\x18\0B\0\0\0\x16\0\0\0(\0\0\0\x03\0\0\0\x04\0\0\0\
        \x01\0\x18\0\0\0\0\0\x18\0\0\0\xc4\x0e\0\0\xc4\x0e\0\0\0\0\0\0\0\0\0\0\
        \t\t\tccc\xe6\xf0\xfa\0\0\0\0\0\xc8\0\xc8\0\xc8\0\0\0\0\0\0\0";
    let spec = ResizeSpec::full_size();
    let made = resize_encoded(PILLOW, &spec).unwrap();
    let pixels = decoded(&made).to_rgba8();
    let rows = [
        [200, 0, 0],
        [0, 200, 0],
        [0, 0, 200],
        [9; 3],
        [99; 3],
        [250, 240, 230],
    ];
    let shown: Vec<u8> = rows.iter().flat_map(|&[r, g, b]| [r, g, b, 255]).collect();
    assert_eq!(*pixels.as_raw(), shown);
    let text = made.damage.unwrap().text;
    assert!(
        text.contains("mask is shorter") && text.ends_with("no pixel is missing"),
        "{text}"
    );
    // A mask that hides pixels, and one that the file lacks.
    let hiding = [&PILLOW[..87], &[0x20]].concat();
    for torn in [&hiding[..], &PILLOW[..87]] {
        let error = resize_encoded(torn, &spec).unwrap_err();
        assert!(matches!(error, ImageError::Truncated { .. }), "{error}");
    }
}

/// ImageMagick and FFmpeg refuse this file.
#[test]
fn a_bmp_of_negative_width_is_damaged() {
    let mut bmp = include_bytes!("pictures/bmp_rgb24.bmp").to_vec();
    let width = i32::from_le_bytes(bmp[18..22].try_into().unwrap());
    bmp[18..22].copy_from_slice(&(-width).to_le_bytes());
    let error = decode(&bmp).unwrap_err();
    assert!(
        error.proves_damage() && error.to_string().contains("negative"),
        "{error}"
    );
}

/// A profile of Display P3, as the PNG has it.
#[test]
fn a_profile_in_a_bmp_is_applied() {
    let profile = moxcms::ColorProfile::new_display_p3().encode().unwrap();
    let picture = waves(16, 8);
    let rows = picture.as_raw().chunks(48).rev();
    let pixels = rows.flat_map(|row| row.chunks(3).flat_map(|p| [p[2], p[1], p[0]]));
    let pixels: Vec<u8> = pixels.collect();
    let file = |kind: &[u8; 4], profile: &[u8]| {
        let mut header = vec![0; 124];
        let mut put =
            |at: usize, number: u32| header[at..at + 4].copy_from_slice(&number.to_le_bytes());
        put(0, 124);
        put(4, 16);
        put(8, 8);
        put(12, 1 | 24 << 16);
        put(112, 124 + pixels.len() as u32);
        put(116, profile.len() as u32);
        header[56..60].copy_from_slice(kind);
        let first = [b"BM\0\0\0\0\0\0\0\0", &(14 + 124u32).to_le_bytes()[..]].concat();
        [first, header, pixels.clone(), profile.to_vec()].concat()
    };
    let tagged = Pixels {
        width: 16,
        height: 8,
        color: Color::Rgb,
        samples: Samples::Eight(picture.as_raw().clone()),
    };
    let plain = tagged.clone();
    let shown = color::to_srgb(tagged, Some(&profile));
    assert_eq!(decode(&file(b"DEBM", &profile)).unwrap(), shown);
    assert_eq!(decode(&file(b"BGRs", &profile)).unwrap(), plain);
    assert_ne!(shown, plain);
    let whole = file(b"DEBM", &profile);
    let made = resize_encoded(&whole[..whole.len() - 1], &ResizeSpec::full_size()).unwrap();
    let text = made.damage.unwrap().text;
    assert!(text.contains("profile cannot be read"), "{text}");
}
