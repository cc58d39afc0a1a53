//! Orientation, profiles and other metadata.

use image::codecs::png::PngEncoder;
use image::metadata::Orientation;
use moxcms::ColorProfile;

use super::*;
use crate::meta::Metadata;

const XMP: &str =
    r#"<x:xmpmeta><rdf:Description tiff:Orientation="6" dc:title="Cat"/></x:xmpmeta>"#;

fn tagged_jpeg(picture: &RgbImage, metadata: &Metadata) -> Vec<u8> {
    let pixels = Pixels {
        width: picture.width(),
        height: picture.height(),
        color: Color::Rgb,
        samples: Samples::Eight(picture.as_raw().clone()),
    };
    jpeg::encode(&pixels, Encoding::new(95), Some(metadata)).unwrap()
}

fn tagged_png(picture: &RgbImage, metadata: &Metadata) -> Vec<u8> {
    let pixels = Pixels {
        width: picture.width(),
        height: picture.height(),
        color: Color::Rgb,
        samples: Samples::Eight(picture.as_raw().clone()),
    };
    encode::encode(&pixels, Format::Png, Encoding::new(80), Some(metadata)).unwrap()
}

fn tagged_webp(picture: &RgbImage, metadata: &Metadata) -> Vec<u8> {
    let pixels = Pixels {
        width: picture.width(),
        height: picture.height(),
        color: Color::Rgb,
        samples: Samples::Eight(picture.as_raw().clone()),
    };
    encode::encode(&pixels, Format::WebP, Encoding::new(95), Some(metadata)).unwrap()
}

/// A TIFF of one strip with an orientation tag, which the `image` crate does not write.
fn tagged_tiff(picture: &RgbImage, orientation: u8) -> Vec<u8> {
    let (w, h) = picture.dimensions();
    let bytes = picture.as_raw();
    let mut file = b"II*\0\x08\0\0\0".to_vec();
    let entries: [(u16, u16, u32, u32); 9] = [
        (256, 4, 1, w),
        (257, 4, 1, h),
        (258, 3, 1, 8), // one value stands for all three samples
        (259, 3, 1, 1),
        (262, 3, 1, 2),
        (273, 4, 1, 8 + 2 + 9 * 12 + 4),
        (274, 3, 1, orientation.into()),
        (277, 3, 1, 3),
        (279, 4, 1, bytes.len() as u32),
    ];
    file.extend((entries.len() as u16).to_le_bytes());
    for (tag, kind, count, value) in entries {
        file.extend(tag.to_le_bytes());
        file.extend(kind.to_le_bytes());
        file.extend(count.to_le_bytes());
        file.extend(value.to_le_bytes());
    }
    file.extend([0; 4]);
    file.extend(bytes);
    file
}

#[test]
fn every_orientation_of_every_format_is_applied() {
    let stored = quarters(96, 64);
    for number in 1..=8 {
        let mut upright = DynamicImage::ImageRgb8(stored.clone());
        upright.apply_orientation(Orientation::from_exif(number).unwrap());
        let expected = {
            let picture = upright.to_rgb8();
            let (w, h) = picture.dimensions();
            [(0, 0), (w - 1, 0), (0, h - 1), (w - 1, h - 1)].map(|(x, y)| picture.get_pixel(x, y).0)
        };
        let metadata = Metadata {
            exif: Some(exif(number)),
            ..Metadata::default()
        };
        for file in [
            tagged_jpeg(&stored, &metadata),
            tagged_png(&stored, &metadata),
            tagged_webp(&stored, &metadata),
            tagged_tiff(&stored, number),
        ] {
            for fit in [Fit::Contain, Fit::Cover, Fit::Fill, Fit::Pad] {
                let spec = ResizeSpec {
                    fit,
                    ..spec("30x20")
                };
                let small = resize_encoded(&file, &spec).unwrap();
                let sides = match (fit, number) {
                    (Fit::Contain, 5..) => (13, 20),
                    _ => (30, 20),
                };
                assert_eq!(
                    (small.width, small.height),
                    sides,
                    "orientation {number} {fit:?}"
                );
                if !matches!(fit, Fit::Cover | Fit::Pad) || number < 5 {
                    assert_quarters(&decoded(&small), expected);
                }
            }
        }
    }
}

#[test]
fn positions_are_those_of_the_upright_picture() {
    let stored = waves(60, 40);
    for number in 1..=8 {
        let mut upright = DynamicImage::ImageRgb8(stored.clone());
        upright.apply_orientation(Orientation::from_exif(number).unwrap());
        let metadata = Metadata {
            exif: Some(exif(number)),
            ..Metadata::default()
        };
        let files = [
            tagged_png(&stored, &metadata),
            written(&upright, ImageFormat::Png),
        ];
        for position in Position::ALL {
            for size in ["10x30", "30x10"] {
                let spec = ResizeSpec {
                    fit: Fit::Cover,
                    position,
                    ..spec(size)
                };
                let [turned, plain] = files
                    .each_ref()
                    .map(|file| decoded(&resize_encoded(file, &spec).unwrap()).to_rgb8());
                let most = turned
                    .iter()
                    .zip(plain.iter())
                    .map(|(a, b)| a.abs_diff(*b))
                    .max();
                assert!(most <= Some(2), "{number} {position:?} {size}: {most:?}");
            }
        }
    }
}

#[test]
fn invalid_exif_is_ignored() {
    for bytes in [
        &b""[..],
        b"II",
        b"II*\0\xff\xff\xff\xff",
        b"II*\0\x08\0\0\0\xff\xff",
        &exif(9),
    ] {
        let metadata = Metadata {
            exif: Some(bytes.to_vec()),
            ..Metadata::default()
        };
        let file = tagged_jpeg(&quarters(40, 30), &metadata);
        for keep_metadata in [false, true] {
            let spec = ResizeSpec {
                keep_metadata,
                ..spec("20")
            };
            assert_quarters(&decoded(&resize_encoded(&file, &spec).unwrap()), QUARTERS);
        }
    }
}

/// EXIF, XMP and profile of an output, read like those of an input.
fn read_back(encoded: &Encoded) -> Metadata {
    let spec = ResizeSpec {
        keep_metadata: true,
        ..spec("64")
    };
    rendered(&encoded.bytes, &spec).unwrap().metadata
}

#[test]
fn metadata_is_dropped_or_kept_with_orientation_reset() {
    let metadata = Metadata {
        exif: Some(exif(6)),
        xmp: Some(XMP.as_bytes().to_vec()),
        icc: Some(ColorProfile::new_display_p3().encode().unwrap()),
        ..Metadata::default()
    };
    let picture = quarters(96, 64);
    for file in [
        tagged_jpeg(&picture, &metadata),
        tagged_png(&picture, &metadata),
        tagged_webp(&picture, &metadata),
    ] {
        for output in [Output::Jpeg, Output::Png, Output::WebP] {
            let spec = ResizeSpec {
                output,
                ..spec("48")
            };
            let bare = resize_encoded(&file, &spec).unwrap();
            assert_eq!((bare.width, bare.height), (32, 48));
            let read = read_back(&bare);
            assert!(read.exif.is_none() && read.xmp.is_none() && read.icc.is_none());

            let spec = ResizeSpec {
                keep_metadata: true,
                ..spec
            };
            let full = resize_encoded(&file, &spec).unwrap();
            let read = read_back(&full);
            assert_eq!(read.exif, Some(exif(1)), "{output:?}");
            assert_eq!(
                read.xmp,
                Some(XMP.replace('6', "1").into_bytes()),
                "{output:?}"
            );
            assert_eq!(read.icc, metadata.icc, "{output:?}");
            // Turned exactly once, also for another decoder.
            let turned = decoded(&full);
            assert_eq!((turned.width(), turned.height()), (32, 48));
        }
    }
}

/// Only the orientation in EXIF is applied; one in XMP alone stays true.
#[test]
fn an_orientation_that_was_not_applied_is_kept() {
    let metadata = Metadata {
        exif: None,
        xmp: Some(XMP.as_bytes().to_vec()),
        icc: None,
        ..Metadata::default()
    };
    let picture = quarters(96, 64);
    for file in [
        tagged_jpeg(&picture, &metadata),
        tagged_png(&picture, &metadata),
    ] {
        let spec = ResizeSpec {
            keep_metadata: true,
            ..spec("48")
        };
        let kept = resize_encoded(&file, &spec).unwrap();
        assert_eq!((kept.width, kept.height), (48, 32));
        assert_eq!(read_back(&kept).xmp, metadata.xmp);
    }
}

#[test]
fn sides_in_xmp_become_those_of_the_result() {
    for (before, after) in [
        (
            r#"tiff:ImageWidth="96" tiff:ImageLength='64' exif:PixelXDimension="96" exif:PixelYDimension="64" "#,
            r#"tiff:ImageWidth="8" tiff:ImageLength='5' exif:PixelXDimension="8" exif:PixelYDimension="5" "#,
        ),
        (
            "><tiff:ImageWidth>4000</tiff:ImageWidth><exif:PixelYDimension>3000</exif:PixelYDimension><x ",
            "><tiff:ImageWidth>8</tiff:ImageWidth><exif:PixelYDimension>5</exif:PixelYDimension><x ",
        ),
        (r#"tiff:ImageWidth="" "#, r#"tiff:ImageWidth="" "#),
    ] {
        let xmp = |part: &str| XMP.replace("dc:title", &format!("{part}dc:title"));
        let metadata = Metadata {
            xmp: Some(xmp(before).into_bytes()),
            ..Metadata::default()
        };
        let keep = ResizeSpec {
            keep_metadata: true,
            ..spec("8")
        };
        let file = tagged_jpeg(&quarters(96, 64), &metadata);
        let made = resize_encoded(&file, &keep).unwrap();
        let text = String::from_utf8_lossy(&made.bytes);
        assert!(text.contains(&xmp(after)), "{after}");
    }
}

/// Motion photos, gain maps and thumbnails are not in the result. What else XMP says stays.
#[test]
fn xmp_about_other_parts_of_the_file_is_dropped() {
    for about in [
        r#"hdrgm:Version="1.0""#,
        r#"GCamera:MotionPhoto="1""#,
        "><Container:Directory><rdf:Seq/></Container:Directory><x",
        "><xmp:Thumbnails><rdf:Alt/></xmp:Thumbnails><x",
    ] {
        let metadata = Metadata {
            exif: Some(exif(6)),
            xmp: Some(
                XMP.replace("dc:title", &format!("{about} dc:title"))
                    .into_bytes(),
            ),
            ..Metadata::default()
        };
        let spec = ResizeSpec {
            keep_metadata: true,
            ..spec("48")
        };
        let file = tagged_jpeg(&quarters(96, 64), &metadata);
        let read = read_back(&resize_encoded(&file, &spec).unwrap());
        assert_eq!(read.exif, Some(exif(1)), "{about}");
        let xmp = String::from_utf8(read.xmp.unwrap()).unwrap();
        let name = about
            .trim_start_matches("><")
            .split(['=', '>'])
            .next()
            .unwrap();
        assert!(!xmp.contains(name), "{xmp}");
        assert!(xmp.contains(r#"dc:title="Cat""#), "{xmp}");
        assert!(xmp.contains(r#"tiff:Orientation="1""#), "{xmp}");
    }
}

/// Other programs reject a whole file because of it.
#[test]
fn exif_that_begins_like_something_else_is_left_out() {
    let keep = ResizeSpec {
        keep_metadata: true,
        ..spec("24")
    };
    for start in [&b"hello world"[..], &[0; 64], b"II\0*\x08\0\0\0"] {
        let metadata = Metadata {
            exif: Some(start.to_vec()),
            ..Metadata::default()
        };
        let file = tagged_jpeg(&quarters(48, 32), &metadata);
        for output in [Output::Jpeg, Output::Png, Output::WebP, Output::Avif] {
            let made = resize_encoded(&file, &ResizeSpec { output, ..keep }).unwrap();
            assert_eq!(read_back(&made).exif, None, "{output:?}");
            assert!(made.damage.unwrap().text.contains("EXIF"), "{output:?}");
        }
        // It does not matter where metadata is dropped.
        assert_eq!(resize_encoded(&file, &spec("24")).unwrap().damage, None);
        let strict = ResizeSpec {
            fail_on: FailOn::Warning,
            ..keep
        };
        let error = resize_encoded(&file, &strict).unwrap_err();
        assert!(error.to_string().contains("EXIF"), "{error}");
    }
}

#[test]
fn metadata_that_a_jpeg_cannot_hold_is_a_warning() {
    let long = Metadata {
        exif: Some([exif(1), vec![7; 70_000]].concat()),
        xmp: Some([XMP.as_bytes(), &[b' '; 70_000]].concat()),
        ..Metadata::default()
    };
    let file = tagged_png(&quarters(48, 32), &long);
    let keep = |output| ResizeSpec {
        output,
        keep_metadata: true,
        ..spec("24")
    };
    let made = resize_encoded(&file, &keep(Output::Jpeg)).unwrap();
    let read = read_back(&made);
    assert!(read.exif.is_none() && read.xmp.is_none());
    let text = made.damage.unwrap().text;
    assert!(
        text.contains("EXIF of 70026 bytes") && text.contains("XMP of"),
        "{text}"
    );
    for output in [Output::Png, Output::WebP, Output::Avif] {
        let made = resize_encoded(&file, &keep(output)).unwrap();
        assert_eq!(made.damage, None);
        assert!(
            read_back(&made)
                .exif
                .is_some_and(|exif| exif.len() > 70_000)
        );
    }
}

/// The name of the profile that is kept.
fn name_of_profile(file: &[u8]) -> Option<String> {
    let keep = ResizeSpec {
        keep_metadata: true,
        ..spec("8")
    };
    let icc = rendered(file, &keep).unwrap().metadata.icc?;
    let profile = ColorProfile::new_from_slice(&icc).unwrap();
    match profile.description.unwrap() {
        moxcms::ProfileText::Localizable(names) => Some(names[0].value.clone()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_profile_of_code_points_has_their_name() {
    let pictures: [(&[u8], _); 4] = [
        (
            include_bytes!("pictures/png_cicp_p3.png"),
            Some("Display P3"),
        ),
        (
            include_bytes!("pictures/png_chrm_p3.png"),
            Some("cHRM of a PNG"),
        ),
        (
            include_bytes!("pictures/png_gama_linear.png"),
            Some("gAMA of a PNG"),
        ),
        (include_bytes!("pictures/png_rgb8.png"), None),
    ];
    for (file, name) in pictures {
        assert_eq!(name_of_profile(file).as_deref(), name);
    }
}

/// A compressed box of JPEG XL. A stream of Brotli may hold bytes as they are: blocks of a length less 1, and an end.
fn compressed_box(kind: &[u8; 4], content: &[u8]) -> Vec<u8> {
    let mut stream = Vec::new();
    for (number, block) in content.chunks(1 << 16).enumerate() {
        // A window of 16 bits before the first block; then not the last block, 16 bits of length, not compressed.
        let (header, len) = (block.len() as u64 - 1, 20 - u64::from(number > 0));
        let bits = header << (len - 16) | 1 << len;
        stream.extend(&bits.to_le_bytes()[..3]);
        stream.extend(block);
    }
    stream.push(3);
    let body = [&kind[..], &stream].concat();
    [&(body.len() as u32 + 8).to_be_bytes()[..], b"brob", &body].concat()
}

#[test]
fn compressed_metadata_of_jpeg_xl_is_kept() {
    let picture = include_bytes!("pictures/jxl_rgb8_container.jxl");
    let exif_box = compressed_box(b"Exif", &[&[0; 4], &exif(6)[..]].concat());
    let xmp_box = compressed_box(b"xml ", &XMP.repeat(2000).into_bytes());
    let file = [&picture[..], &exif_box, &xmp_box].concat();
    let keep = ResizeSpec {
        keep_metadata: true,
        ..spec("8")
    };
    let made = rendered(&file, &keep).unwrap();
    assert_eq!(made.damage, None);
    assert_eq!(made.metadata.exif.unwrap().len(), exif(6).len());
    assert_eq!(made.metadata.xmp.unwrap().len(), XMP.len() * 2000);
    assert!(rendered(picture, &keep).unwrap().metadata.exif.is_none());

    let wrong = [&picture[..], b"\0\0\0\x10brobExif\xff\xff\xff\xff"].concat();
    // A window of 30 bits, which the decoder would allocate.
    let wide = [&picture[..], b"\0\0\0\x10brobxml \x11\x1e\x80\x03"].concat();
    let bomb = [
        &picture[..],
        &compressed_box(b"Exif", &vec![0; (16 << 20) + 1]),
    ]
    .concat();
    for (file, why) in [
        (wrong, "compressed wrongly"),
        (wide, "compressed wrongly"),
        (bomb, "more than 16 MiB"),
    ] {
        let damage = rendered(&file, &keep).unwrap().damage.unwrap();
        assert!(damage.text.contains(why), "{}", damage.text);
        assert_eq!(rendered(&file, &spec("8")).unwrap().damage, None);
    }
}

/// The specifications want its offset first. darktable searches the header of EXIF, ImageMagick ignores the offset.
#[test]
fn exif_is_found_whatever_the_offset_before_it_is() {
    let keep = ResizeSpec {
        keep_metadata: true,
        ..spec("8")
    };
    let exif = exif(1);
    let kept = |file: &[u8]| rendered(file, &keep).map(|it| (it.metadata.exif, it.damage));
    let parts: [&[&[u8]]; 6] = [
        &[&[0; 4], &exif],
        &[&exif],
        &[b"Exif\0\0", &exif],
        &[&[0; 4], b"Exif\0\0", &exif],
        &[&[0, 0, 0, 6], b"Exif\0\0", &exif],
        &[&[0, 0, 0, 200], &exif],
    ];
    let jxl = include_bytes!("pictures/jxl_rgb8_container.jxl");
    let expected = Ok((Some(exif.clone()), None));
    for (number, parts) in parts.iter().enumerate() {
        let content = parts.concat();
        let length = (content.len() as u32 + 8).to_be_bytes();
        let file = [&jxl[..], &length, b"Exif", &content].concat();
        assert_eq!(kept(&file), expected, "JPEG XL, {number}");
    }
    // The item has room for four bytes and EXIF.
    let avif = include_bytes!("pictures/avif_exif.avif");
    let at = avif.windows(4).position(|four| four == b"II*\0").unwrap();
    for (front, back) in [(0, 4), (2, 2), (4, 0)] {
        let mut file = avif.to_vec();
        let item = [&vec![0; front][..], &exif, &vec![0; back]].concat();
        file[at - 4..at - 4 + item.len()].copy_from_slice(&item);
        let (found, damage) = kept(&file).unwrap();
        let found = found.unwrap();
        assert_eq!(
            (&found[..exif.len()], damage),
            (&exif[..], None),
            "AVIF, {front}"
        );
    }
}

/// Moves metadata after the pixels, where it is valid and some programs write it.
fn metadata_moved_after_pixels(png: &[u8]) -> Vec<u8> {
    let mut moved = Vec::new();
    let mut file = png[..8].to_vec();
    let mut rest = &png[8..];
    while let [a, b, c, d, kind @ ..] = rest {
        let len = 12 + u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        if kind.starts_with(b"eXIf") || kind.starts_with(b"iTXt") {
            moved.extend_from_slice(&rest[..len]);
        } else {
            if kind.starts_with(b"IEND") {
                file.append(&mut moved);
            }
            file.extend_from_slice(&rest[..len]);
        }
        rest = &rest[len..];
    }
    file
}

#[test]
fn metadata_after_the_pixels_of_a_png_is_found() {
    let metadata = Metadata {
        exif: Some(exif(6)),
        xmp: Some(XMP.as_bytes().to_vec()),
        icc: None,
        ..Metadata::default()
    };
    let front = tagged_png(&quarters(96, 64), &metadata);
    let moved = metadata_moved_after_pixels(&front);
    assert_ne!(front, moved);
    assert_eq!(front.len(), moved.len());
    for keep_metadata in [false, true] {
        let spec = ResizeSpec {
            keep_metadata,
            ..spec("48")
        };
        let small = resize_encoded(&moved, &spec).unwrap();
        assert_eq!((small.width, small.height), (32, 48));
        assert_eq!(small, resize_encoded(&front, &spec).unwrap());
        let read = read_back(&small);
        assert_eq!(read.exif.is_some(), keep_metadata);
        assert_eq!(read.xmp.is_some(), keep_metadata);
    }
    // Incomplete metadata makes the file at most truncated; invalid metadata is ignored.
    let at = moved.windows(4).position(|kind| kind == b"iTXt").unwrap();
    for cut in at - 4..moved.len() {
        match resize_encoded(&moved[..cut], &spec("48")) {
            Ok(_) | Err(ImageError::Truncated { .. }) => {}
            Err(other) => panic!("{cut}: {other}"),
        }
    }
    let mut odd = moved;
    odd[at + 4 + "XML:com.adobe.xmp".len()] = b'!';
    assert!(resize_encoded(&odd, &spec("48")).is_ok());
}

/// Other programs expect numbers from 1 on, each with the count.
#[test]
fn parts_of_a_profile_are_numbered_from_one() {
    let p3 = ColorProfile::new_display_p3().encode().unwrap();
    let long = [p3.clone(), vec![7; 150_000]].concat();
    for (icc, count) in [(p3, 1), (long, 3)] {
        let metadata = Metadata {
            icc: Some(icc.clone()),
            ..Metadata::default()
        };
        let pixels = Pixels {
            width: 8,
            height: 8,
            color: Color::Rgb,
            samples: Samples::Eight(vec![0; 192]),
        };
        let file = jpeg::encode(&pixels, Encoding::new(80), Some(&metadata)).unwrap();
        let name = b"ICC_PROFILE\0";
        let parts = (0..file.len()).filter(|&at| file[at..].starts_with(name));
        let numbers: Vec<_> = parts.map(|at| [file[at + 12], file[at + 13]]).collect();
        let expected: Vec<_> = (1..=count).map(|number| [number, count]).collect();
        assert_eq!(numbers, expected);
        let decoder = image::codecs::jpeg::JpegDecoder::new(std::io::Cursor::new(&file));
        let read = image::ImageDecoder::icc_profile(&mut decoder.unwrap());
        assert_eq!(read.unwrap(), Some(icc));
    }
}

#[test]
fn a_profile_is_dropped_if_its_pixels_were_converted() {
    let p3 = ColorProfile::new_display_p3().encode().unwrap();
    let mut inks = p3.clone();
    inks[16..20].copy_from_slice(b"CMYK");
    let keep = ResizeSpec {
        keep_metadata: true,
        ..spec("8")
    };
    for (icc, stays) in [(p3, true), (inks, false), (vec![0; 10], false)] {
        let metadata = Metadata {
            icc: Some(icc),
            ..Metadata::default()
        };
        let rendered = rendered(&tagged_png(&quarters(16, 16), &metadata), &keep).unwrap();
        assert_eq!(rendered.metadata.icc.is_some(), stays);
    }
}

#[test]
fn webp_metadata_does_not_remove_alpha() {
    let picture = image::RgbaImage::from_pixel(31, 21, image::Rgba([10, 200, 30, 100]));
    let mut file = Vec::new();
    let mut encoder = PngEncoder::new(&mut file);
    encoder.set_exif_metadata(exif(3)).unwrap();
    encoder
        .write_image(&picture, 31, 21, ExtendedColorType::Rgba8)
        .unwrap();
    let spec = ResizeSpec {
        output: Output::WebP,
        keep_metadata: true,
        ..spec("15")
    };
    let small = resize_encoded(&file, &spec).unwrap();
    let back = decoded(&small).to_rgba8();
    assert!(back.pixels().all(|pixel| pixel.0[3].abs_diff(100) <= 1));
    assert_eq!(read_back(&small).exif, Some(exif(1)));
}

#[test]
fn profiles_are_applied() {
    let p3 = ColorProfile::new_display_p3().encode().unwrap();
    let srgb = ColorProfile::new_srgb().encode().unwrap();
    let with = |icc: &[u8]| Metadata {
        icc: Some(icc.to_vec()),
        ..Metadata::default()
    };
    let picture = RgbImage::from_pixel(32, 32, image::Rgb([200, 60, 60]));
    let middle = |file: &[u8], spec: &ResizeSpec| {
        let small = decoded(&resize_encoded(file, spec).unwrap());
        small.to_rgb8().get_pixel(8, 8).0
    };
    // The same numbers in Display P3 are a stronger red in sRGB.
    let file = tagged_png(&picture, &with(&p3));
    let [r, g, _] = middle(&file, &spec("16"));
    assert!(r > 208 && g < 56, "{r} {g}");
    let keep = ResizeSpec {
        keep_metadata: true,
        ..spec("16")
    };
    assert_eq!(middle(&file, &keep), [200, 60, 60]);
    // An sRGB profile, none, or an invalid one: pixels stay as they are.
    let file = tagged_png(&picture, &with(&srgb));
    assert_eq!(middle(&file, &spec("16")), [200, 60, 60]);
    let file = tagged_jpeg(&picture, &with(b"not a profile"));
    assert!(middle(&file, &spec("16"))[0].abs_diff(200) < 4);
    // The colours of a JPEG are converted after the filter, in each output format.
    for output in [Output::Jpeg, Output::Png, Output::WebP] {
        let spec = ResizeSpec {
            output,
            ..spec("16")
        };
        let [r, g, _] = middle(&tagged_jpeg(&picture, &with(&p3)), &spec);
        assert!(r > 206 && g < 58, "{output:?}: {r} {g}");
        let seen = middle(&tagged_jpeg(&picture, &with(&srgb)), &spec);
        let far = seen.iter().zip([200, 60, 60]).map(|(&a, b)| a.abs_diff(b));
        assert!(far.max() < Some(6), "{output:?}: {seen:?}");
    }

    // The same for 16 bits, alpha and grey.
    for (icc, color, samples, depth) in [
        (&p3, ExtendedColorType::Rgb16, 3, 2),
        (&p3, ExtendedColorType::Rgba8, 4, 1),
        (&p3, ExtendedColorType::Rgba16, 4, 2),
    ] {
        let mut file = Vec::new();
        let mut encoder = PngEncoder::new(&mut file);
        encoder.set_icc_profile(icc.clone()).unwrap();
        let pixel = [200, 60, 60, 255];
        let bytes: Vec<u8> = pixel[..samples]
            .iter()
            .flat_map(|&s| vec![s; depth])
            .collect();
        encoder.write_image(&bytes.repeat(64), 8, 8, color).unwrap();
        let [r, g, _] = decoded(&resize_encoded(&file, &spec("4")).unwrap())
            .to_rgb8()
            .get_pixel(1, 1)
            .0;
        assert!(r > 208 && g < 56, "{color:?}: {r} {g}");
    }
    let gamma = ColorProfile::new_gray_with_gamma(1.0).encode().unwrap();
    for (color, bytes) in [
        (ExtendedColorType::L8, vec![64; 64]),
        (ExtendedColorType::La8, [64, 255].repeat(64)),
        (ExtendedColorType::L16, vec![64; 128]),
    ] {
        let mut file = Vec::new();
        let mut encoder = PngEncoder::new(&mut file);
        encoder.set_icc_profile(gamma.clone()).unwrap();
        encoder.write_image(&bytes, 8, 8, color).unwrap();
        let small = decoded(&resize_encoded(&file, &spec("4")).unwrap());
        assert!(!small.color().has_color());
        let level = small.to_luma8().get_pixel(1, 1).0[0];
        // A quarter of the light is sample 137 in sRGB.
        assert!(level.abs_diff(137) <= 2, "{color:?}: {level}");
    }
}

#[test]
fn limits_apply_to_the_turned_result() {
    // Stored upright, shown on its side.
    let metadata = Metadata {
        exif: Some(exif(6)),
        ..Metadata::default()
    };
    let picture = waves(10, 1000);
    for (format, file) in [
        (Format::Png, tagged_png(&picture, &metadata)),
        (Format::WebP, tagged_webp(&picture, &metadata)),
        (Format::Tiff, tagged_tiff(&picture, 6)),
    ] {
        let few = |size| ResizeSpec {
            max_pixels: 10_000,
            ..spec(size)
        };
        // Unturned it would be 500x50000.
        let turned = resize_encoded(&file, &few("500x")).unwrap();
        assert_eq!((turned.width, turned.height), (500, 5), "{format}");
        let error = resize_encoded(&file, &few("x500")).unwrap_err();
        let sides = matches!(
            error,
            ImageError::OutputTooManyPixels {
                width: 50_000,
                height: 500,
                ..
            } | ImageError::OutputTooLarge {
                width: 50_000,
                height: 500,
                ..
            }
        );
        assert!(sides, "{format}: {error}");
    }
}
