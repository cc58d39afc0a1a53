//! Animations: all their frames, in all formats that have any. The other decoders are those of the `image` crate, which
//! also compose frames.

use std::io::Cursor;

use ::gif::{DisposalMethod, Encoder, Repeat};
use image::codecs::gif::GifDecoder;
use image::codecs::png::PngDecoder;
use image::codecs::webp::WebPDecoder;
use image::metadata::LoopCount;
use image::{AnimationDecoder, RgbaImage};

use super::*;
use crate::{Damage, FailOn};

/// Frames as they are shown, each with its milliseconds, and the number of plays.
type Shown = (Vec<(RgbaImage, u32)>, u32);

const ANIMATED: [(Output, Format); 3] = [
    (Output::Gif, Format::Gif),
    (Output::WebP, Format::WebP),
    (Output::Png, Format::Png),
];

fn shown(file: &[u8]) -> Shown {
    fn all<'a>(decoder: impl AnimationDecoder<'a>) -> Shown {
        let plays = match decoder.loop_count() {
            LoopCount::Infinite => 0,
            LoopCount::Finite(plays) => plays.get(),
        };
        let frames = decoder.into_frames().map(|frame| {
            let frame = frame.unwrap();
            let (millis, over) = frame.delay().numer_denom_ms();
            (frame.into_buffer(), millis / over)
        });
        (frames.collect(), plays)
    }
    let reader = Cursor::new(file);
    match probe(file).unwrap() {
        Format::Gif => {
            let (frames, _) = all(GifDecoder::new(reader).unwrap());
            // That decoder takes the number of repetitions for that of plays.
            let mut decoder = ::gif::DecodeOptions::new().read_info(file).unwrap();
            decoder.next_frame_info().unwrap();
            let plays = match decoder.repeat() {
                Repeat::Infinite => 0,
                Repeat::Finite(again) => u32::from(again) + 1,
            };
            (frames, plays)
        }
        Format::WebP => all(WebPDecoder::new(reader).unwrap()),
        _ => all(PngDecoder::new(reader).unwrap().apng().unwrap()),
    }
}

/// A GIF with a frame of each kind: smaller than the screen, beyond it, transparent in places, with each disposal, and
/// equal to the one before.
fn gif_of_all_kinds(repeat: Option<Repeat>) -> Vec<u8> {
    let palette = [255, 0, 0, 0, 255, 0, 0, 0, 255, 9, 9, 9];
    let mut file = Vec::new();
    let mut encoder = Encoder::new(&mut file, 20, 12, &palette).unwrap();
    if let Some(repeat) = repeat {
        encoder.set_repeat(repeat).unwrap();
    }
    let mut add = |area: [u16; 4], color: u8, hole: bool, dispose, delay| {
        let [left, top, width, height] = area;
        let mut buffer = vec![color; usize::from(width) * usize::from(height)];
        if hole {
            buffer[..usize::from(width)].fill(3);
        }
        let frame = ::gif::Frame {
            left,
            top,
            width,
            height,
            delay,
            dispose,
            transparent: hole.then_some(3),
            buffer: buffer.into(),
            ..::gif::Frame::default()
        };
        encoder.write_frame(&frame).unwrap();
    };
    add([0, 0, 20, 12], 0, false, DisposalMethod::Keep, 7);
    add([3, 2, 5, 5], 1, true, DisposalMethod::Keep, 10);
    add([3, 2, 5, 5], 1, true, DisposalMethod::Keep, 13);
    add([9, 4, 7, 6], 2, false, DisposalMethod::Previous, 0);
    add([1, 1, 4, 4], 2, false, DisposalMethod::Any, 100);
    add([15, 8, 5, 4], 1, true, DisposalMethod::Background, 5);
    add([0, 0, 2, 2], 1, false, DisposalMethod::Keep, 65_535);
    drop(encoder);
    file
}

/// One whose pixels never become transparent again.
fn opaque_gif() -> Vec<u8> {
    let palette: Vec<u8> = (0..=255u8)
        .flat_map(|value| [value, value / 2, 255 - value])
        .collect();
    let mut file = Vec::new();
    let mut encoder = Encoder::new(&mut file, 64, 48, &palette).unwrap();
    encoder.set_repeat(Repeat::Infinite).unwrap();
    for number in 0..12usize {
        let mut buffer: Vec<u8> = (0..64 * 48)
            .map(|at: u32| (at.wrapping_mul(2_654_435_761) >> 8) as u8 % 175)
            .collect();
        for y in 10..20 {
            buffer[y * 64 + number * 4..][..8].fill(250);
        }
        let frame = ::gif::Frame {
            width: 64,
            height: 48,
            delay: 4,
            buffer: buffer.into(),
            ..::gif::Frame::default()
        };
        encoder.write_frame(&frame).unwrap();
    }
    drop(encoder);
    file
}

/// Frames that are shown for no time are left out, equal ones are one.
fn merged((frames, plays): Shown) -> Shown {
    let mut all: Vec<(RgbaImage, u32)> = Vec::new();
    for (mut picture, millis) in frames {
        for pixel in picture.pixels_mut().filter(|pixel| pixel[3] == 0) {
            pixel.0 = [0; 4];
        }
        match all.last_mut() {
            Some((last, time)) if *last == picture => *time += millis,
            _ => all.push((picture, millis)),
        }
    }
    (all, plays)
}

#[track_caller]
fn assert_same(file: &[u8], expected: &Shown, format: Format) {
    let (frames, plays) = merged(shown(file));
    assert_eq!(plays, expected.1, "{format}");
    let millis =
        |frames: &[(RgbaImage, u32)]| frames.iter().map(|(_, millis)| *millis).collect::<Vec<_>>();
    assert_eq!(millis(&frames), millis(&expected.0), "{format}");
    for (number, (one, other)) in frames.iter().zip(&expected.0).enumerate() {
        let differs = one
            .0
            .enumerate_pixels()
            .find(|(x, y, pixel)| *pixel != other.0.get_pixel(*x, *y));
        assert_eq!(differs, None, "{format}, frame {number}");
    }
}

fn lossless(output: Output) -> ResizeSpec {
    ResizeSpec {
        output,
        lossless: true,
        ..ResizeSpec::full_size()
    }
}

#[test]
fn each_format_becomes_each_other_with_all_frames() {
    for file in [
        gif_of_all_kinds(None),
        gif_of_all_kinds(Some(Repeat::Finite(2))),
        opaque_gif(),
    ] {
        let expected = merged(shown(&file));
        for (output, format) in ANIMATED {
            let first = resize_encoded(&file, &lossless(output)).unwrap();
            assert_eq!(first.format, format);
            assert_same(&first.bytes, &expected, format);
            for (output, second) in ANIMATED {
                let again = resize_encoded(&first.bytes, &lossless(output)).unwrap();
                assert_same(&again.bytes, &expected, second);
            }
        }
    }
}

#[test]
fn each_frame_is_resized_like_a_picture_of_its_own() {
    let file = opaque_gif();
    let spec = ResizeSpec {
        output: Output::Png,
        ..spec("31x")
    };
    let small = resize_encoded(&file, &spec).unwrap();
    assert_eq!((small.width, small.height), (31, 23));
    let (before, after) = (shown(&file).0, shown(&small.bytes).0);
    assert_eq!(after.len(), 12);
    for ((large, _), (small, _)) in before.into_iter().zip(after) {
        let png = written(
            &DynamicImage::from(large).to_rgb8().into(),
            ImageFormat::Png,
        );
        let alone = resize_encoded(&png, &spec).unwrap();
        assert!(decoded(&alone).to_rgba8() == small);
    }
}

#[test]
fn a_frame_holds_what_changes() {
    let file = opaque_gif();
    for (output, format) in ANIMATED {
        let whole = resize_encoded(&file, &lossless(output)).unwrap().bytes;
        let still = ResizeSpec {
            first_frame: true,
            ..lossless(output)
        };
        let first = resize_encoded(&file, &still).unwrap().bytes;
        // 11 frames more, each with a twentieth of the pixels and a palette.
        assert!(
            whole.len() < 3 * first.len(),
            "{format}: {} and {}",
            whole.len(),
            first.len()
        );
        assert_eq!(
            image::load_from_memory(&first).unwrap().to_rgba8(),
            shown(&file).0[0].0
        );
    }
}

/// Most decoders clear a frame to its transparent colour, and to another one if it has none.
#[test]
fn a_frame_that_is_cleared_has_a_transparent_colour() {
    for colors in [2, 255, 256, 3000] {
        let full = RgbaImage::from_fn(60, 50, |x, y| {
            let at = (y * 60 + x) % colors;
            image::Rgba([at as u8, (at >> 8) as u8, 7, 255])
        });
        let hole = RgbaImage::from_fn(60, 50, |x, y| match x < 30 {
            true => image::Rgba([0; 4]),
            false => *full.get_pixel(x, y),
        });
        let frames = [&full, &hole, &full].map(|picture| animation::Frame {
            pixels: Pixels {
                width: 60,
                height: 50,
                color: Color::Rgba,
                samples: Samples::Eight(picture.as_raw().clone()),
            },
            millis: 50,
        });
        let file = gif::encode(frames.into(), 0).unwrap();
        let mut decoder = ::gif::DecodeOptions::new().read_info(&file[..]).unwrap();
        let mut count = 0;
        while let Some(frame) = decoder.next_frame_info().unwrap() {
            assert_eq!(frame.dispose, ::gif::DisposalMethod::Background);
            assert!(
                frame.transparent.is_some(),
                "{colors} colours, frame {count}"
            );
            count += 1;
        }
        let (shown, _) = shown(&file);
        assert_eq!((count, shown.len()), (3, 3));
        for ((seen, _), expected) in shown.iter().zip([&full, &hole, &full]) {
            let alphas =
                |picture: &RgbaImage| picture.pixels().map(|pixel| pixel[3]).collect::<Vec<_>>();
            assert_eq!(alphas(seen), alphas(expected), "{colors} colours");
            if colors < 256 {
                assert_eq!(seen, expected);
            }
        }
    }
}

#[test]
fn a_png_with_fewer_frames_than_it_announces_has_those() {
    let mut file = Vec::new();
    let mut encoder = ::png::Encoder::new(&mut file, 8, 8);
    encoder.set_color(::png::ColorType::Rgb);
    encoder.set_animated(2, 0).unwrap();
    let mut writer = encoder.write_header().unwrap();
    for level in [10, 200] {
        writer.write_image_data(&[level; 8 * 8 * 3]).unwrap();
    }
    writer.finish().unwrap();
    let at = file.windows(4).position(|kind| kind == b"acTL").unwrap();
    file[at + 7] = 9;
    let sum = meta::crc32(&file[at..at + 12]).to_be_bytes();
    file[at + 12..at + 16].copy_from_slice(&sum);
    let made = resize_encoded(&file, &lossless(Output::SameAsInput)).unwrap();
    assert_eq!(shown(&made.bytes).0.len(), 2);
    let text = made.damage.unwrap().text;
    assert!(
        text.contains("fewer frames than announced (2 of 9)"),
        "{text}"
    );
    assert!(
        check(&file, &ResizeSpec::full_size())
            .unwrap()
            .damage
            .is_some()
    );
    let strict = ResizeSpec {
        fail_on: FailOn::Warning,
        ..lossless(Output::SameAsInput)
    };
    assert!(resize_encoded(&file, &strict).is_err());
}

#[test]
fn stills_stay_still() {
    let file = opaque_gif();
    let jpeg = ResizeSpec {
        output: Output::Jpeg,
        ..spec("32x")
    };
    assert_eq!(resize_encoded(&file, &jpeg).unwrap().format, Format::Jpeg);
    let photo = include_bytes!("../../../samples/chelsea.jpg").as_slice();
    let gif = ResizeSpec {
        output: Output::Gif,
        ..spec("100x")
    };
    let gif = resize_encoded(photo, &gif).unwrap();
    assert_eq!(shown(&gif.bytes).0.len(), 1);
    // Dithered, so that only the mean of neighbours is near.
    let png = ResizeSpec {
        output: Output::Png,
        ..spec("100x")
    };
    let png = decoded(&resize_encoded(photo, &png).unwrap());
    let mean = |picture: &DynamicImage| {
        picture
            .resize_exact(25, 17, image::imageops::Triangle)
            .to_rgb8()
    };
    let (one, other) = (mean(&png), mean(&decoded(&gif)));
    let sum: u64 = one
        .iter()
        .zip(other.iter())
        .map(|(a, b)| u64::from(a.abs_diff(*b)))
        .sum();
    assert!(sum < 2 * one.len() as u64, "{sum} of {}", one.len());
    assert_eq!(resize_to_pixels(&file, &spec("64x")).unwrap().width, 64);
}

#[test]
fn damage_after_the_first_frame_is_that_of_an_animation() {
    for (output, format) in ANIMATED {
        let whole = resize_encoded(&opaque_gif(), &lossless(output))
            .unwrap()
            .bytes;
        let torn = &whole[..whole.len() - 60];
        let result = resize_encoded(torn, &lossless(output));
        let error = result.map(|encoded| encoded.damage).unwrap_err();
        assert!(error.proves_damage(), "{format}: {error}");
        let lenient = ResizeSpec {
            fail_on: FailOn::None,
            ..lossless(output)
        };
        let result = resize_encoded(torn, &lenient).unwrap();
        let Some(Damage {
            missing: 0, text, ..
        }) = result.damage
        else {
            panic!("{format}: {:?}", result.damage);
        };
        assert!(
            text.ends_with("what comes before is whole"),
            "{format}: {text}"
        );
        let (frames, _) = shown(&result.bytes);
        assert!(
            (9..12).contains(&frames.len()),
            "{format}: {} frames",
            frames.len()
        );
    }
}

/// The decoder would allocate the picture before it compares the sides.
#[test]
fn a_later_frame_with_a_picture_of_other_sides_is_damage() {
    let lossy = ResizeSpec {
        output: Output::WebP,
        ..ResizeSpec::full_size()
    };
    let mut file = resize_encoded(&opaque_gif(), &lossy).unwrap().bytes;
    let start = file.windows(4).rposition(|kind| kind == b"VP8 ").unwrap();
    // The width, after the length, the tag and the start code.
    file[start + 4 + 4 + 6] ^= 1;
    let error = resize_encoded(&file, &lossy).unwrap_err();
    assert!(error.proves_damage(), "{error}");
    assert!(check(&file, &lossy).unwrap_err().proves_damage());
    let lenient = ResizeSpec {
        fail_on: FailOn::None,
        ..lossy
    };
    let first = resize_encoded(&file, &lenient).unwrap();
    assert_eq!(first.damage.unwrap().missing, 0);
}

#[test]
fn frames_together_keep_to_the_limit_of_memory() {
    let spec = ResizeSpec {
        max_bytes: 64 * 48 * 4 * 4,
        ..ResizeSpec::full_size()
    };
    let error = resize_encoded(&opaque_gif(), &spec).unwrap_err();
    assert!(matches!(error, ImageError::TooManyBytes { .. }), "{error}");
    let first = ResizeSpec {
        first_frame: true,
        ..spec
    };
    assert!(resize_encoded(&opaque_gif(), &first).is_ok());
}

/// A profile with red and blue exchanged.
#[test]
fn a_gif_has_the_colours_of_srgb_also_with_metadata() {
    let mut swapped = moxcms::ColorProfile::new_srgb();
    std::mem::swap(&mut swapped.red_colorant, &mut swapped.blue_colorant);
    let profile = swapped.encode().unwrap();
    let mut png = Vec::new();
    let mut encoder = image::codecs::png::PngEncoder::new(&mut png);
    encoder.set_icc_profile(profile).unwrap();
    let red = [230, 20, 20].repeat(16);
    encoder
        .write_image(&red, 4, 4, ExtendedColorType::Rgb8)
        .unwrap();
    let spec = ResizeSpec {
        output: Output::Gif,
        keep_metadata: true,
        ..ResizeSpec::full_size()
    };
    let gif = decoded(&resize_encoded(&png, &spec).unwrap()).to_rgb8();
    let [red, _, blue] = gif.get_pixel(0, 0).0;
    assert!(blue > 200 && red < 60, "{gif:?}");
}

#[test]
fn metadata_of_an_animation_is_kept_in_webp_and_png() {
    let webp = ResizeSpec {
        output: Output::WebP,
        ..ResizeSpec::full_size()
    };
    let animation = resize_encoded(&opaque_gif(), &webp).unwrap().bytes;
    // With EXIF behind the frames, as the order of chunks wants it.
    let mut file = animation;
    file[20] |= 0x08;
    let exif = exif(6);
    file.extend_from_slice(b"EXIF");
    file.extend_from_slice(&(exif.len() as u32).to_le_bytes());
    file.extend_from_slice(&exif);
    let length = (file.len() - 8) as u32;
    file[4..8].copy_from_slice(&length.to_le_bytes());
    for output in [Output::WebP, Output::Png, Output::Gif] {
        let spec = ResizeSpec {
            keep_metadata: true,
            output,
            ..spec("20x")
        };
        let turned = resize_encoded(&file, &spec).unwrap();
        assert_eq!((turned.width, turned.height), (20, 27), "{output:?}");
        assert_eq!(shown(&turned.bytes).0.len(), 12);
        let has_exif = turned.bytes.windows(4).any(|bytes| bytes == b"II*\0");
        assert_eq!(has_exif, output != Output::Gif, "{output:?}");
    }
}

/// A chunk of WebP.
fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let mut chunk = [kind, &(data.len() as u32).to_le_bytes()[..], data].concat();
    chunk.resize(chunk.len().next_multiple_of(2), 0);
    chunk
}

/// A frame of one colour, with these flags: 1 clears it afterwards, 2 replaces what it covers.
fn webp_frame(place: (u32, u32), sides: (u32, u32), color: [u8; 4], flags: u8) -> Vec<u8> {
    let pixels = color.repeat((sides.0 * sides.1) as usize);
    let file = webp(&pixels, sides, None);
    let at = file.windows(4).position(|kind| kind == b"VP8L").unwrap();
    let number = |number: u32| number.to_le_bytes()[..3].to_vec();
    let numbers = [place.0 / 2, place.1 / 2, sides.0 - 1, sides.1 - 1, 50].map(number);
    chunk(
        b"ANMF",
        &[numbers.concat(), vec![flags], file[at..].to_vec()].concat(),
    )
}

fn webp_of(flags: u8, chunks: &[Vec<u8>]) -> Vec<u8> {
    let header = [vec![flags, 0, 0, 0], vec![19, 0, 0, 9, 0, 0]].concat();
    let body = [
        b"WEBP".to_vec(),
        chunk(b"VP8X", &header),
        chunk(b"ANIM", &[0, 0, 0, 0, 3, 0]),
        chunks.concat(),
    ];
    let body = body.concat();
    [b"RIFF", &(body.len() as u32).to_le_bytes()[..], &body].concat()
}

const RED: [u8; 4] = [255, 0, 0, 255];
const BLUE: [u8; 4] = [0, 0, 255, 255];

#[test]
fn frames_of_webp_are_cleared_and_blended_as_they_say() {
    let half = [0, 255, 0, 128];
    let frames = [
        webp_frame((0, 0), (20, 10), RED, 0),
        webp_frame((2, 2), (4, 4), BLUE, 1),
        // Between frames other chunks may stand.
        chunk(b"SOME", b"odd"),
        webp_frame((10, 2), (4, 4), half, 0),
        webp_frame((10, 2), (2, 2), half, 2),
    ];
    let file = webp_of(0x12, &frames);
    let made = resize_encoded(&file, &lossless(Output::Png)).unwrap();
    let (frames, plays) = shown(&made.bytes);
    let at = |frame: usize, x, y| frames[frame].0.get_pixel(x, y).0;
    assert_eq!((frames.len(), plays), (4, 3));
    assert_eq!((at(1, 3, 3), at(1, 10, 3)), (BLUE, RED));
    // Cleared, which shows what is behind the picture.
    assert_eq!(at(2, 3, 3)[3], 0);
    assert_eq!(at(2, 12, 3), [127, 128, 0, 255]);
    assert_eq!(at(3, 10, 3), half);
}

/// The header of a still picture, and two frames: a decoder of animations would panic.
#[test]
fn frames_of_a_still_webp_are_ignored() {
    let pixels = RED.repeat(20 * 10);
    let still = webp(&pixels, (20, 10), None);
    let at = still.windows(4).position(|kind| kind == b"VP8L").unwrap();
    let frames = [
        still[at..].to_vec(),
        webp_frame((0, 0), (20, 10), BLUE, 0),
        webp_frame((0, 0), (20, 10), BLUE, 0),
    ];
    let file = webp_of(0, &frames);
    let made = resize_encoded(&file, &lossless(Output::Png)).unwrap();
    assert_eq!(decoded(&made).to_rgba8().get_pixel(5, 5).0, RED);
    assert_eq!(check(&file, &ResizeSpec::full_size()).unwrap().width, 20);
}

#[test]
fn a_webp_that_ends_between_two_frames_is_truncated() {
    let frames = [RED, BLUE, RED].map(|color| webp_frame((0, 0), (20, 10), color, 0));
    let whole = webp_of(2, &frames);
    let spec = ResizeSpec::full_size();
    let mut end = whole.len();
    for left in [2, 1] {
        end -= frames[left].len();
        // Up to the beginning of the next frame.
        for torn in [&whole[..end], &whole[..end + 5]] {
            let error = resize_encoded(torn, &spec).map(|made| made.damage);
            assert!(
                matches!(error, Err(ImageError::Truncated { .. })),
                "{error:?}"
            );
            let fail_on = FailOn::None;
            let made = resize_encoded(torn, &ResizeSpec { fail_on, ..spec }).unwrap();
            assert!(made.damage.is_some());
            assert_eq!(decode(&made.bytes).unwrap().width, 20);
            if left > 1 {
                assert_eq!(shown(&made.bytes).0.len(), left);
            }
        }
    }
    // Without a frame.
    for end in 22..=end - frames[0].len() {
        for fail_on in [FailOn::None, FailOn::Warning] {
            let error = resize_encoded(&whole[..end], &ResizeSpec { fail_on, ..spec });
            assert!(
                matches!(error, Err(ImageError::Truncated { .. })),
                "{end}: {error:?}"
            );
        }
    }
}

#[test]
fn a_webp_with_a_broken_chunk_among_its_frames_is_damaged() {
    let frames = [RED, BLUE, RED].map(|color| webp_frame((0, 0), (20, 10), color, 0));
    let whole = webp_of(2, &frames);
    let second = whole.len() - frames[2].len() - frames[1].len();
    let mut renamed = whole.clone();
    renamed[second] ^= 1;
    let mut too_long = whole.clone();
    too_long[second + 7] = 0x40;
    let spec = ResizeSpec::full_size();
    for (file, left) in [(renamed, 2), (too_long, 1)] {
        for result in [
            check(&file, &spec).map(|_| ()),
            resize_encoded(&file, &spec).map(|_| ()),
        ] {
            assert!(result.as_ref().unwrap_err().proves_damage(), "{result:?}");
        }
        let fail_on = FailOn::None;
        let made = resize_encoded(&file, &ResizeSpec { fail_on, ..spec }).unwrap();
        assert!(made.damage.is_some(), "{left} frames are left");
    }
    // Metadata may stand anywhere, and chunks of other kinds at the end.
    let [first, second, _] = frames;
    let chunks = [first, chunk(b"XMP ", b"<x/>"), second, chunk(b"more", b"x")];
    assert_eq!(
        resize_encoded(&webp_of(2, &chunks), &spec).unwrap().damage,
        None
    );
}

#[test]
fn a_still_webp_that_lacks_what_follows_its_pixels_is_whole() {
    let pixels = RED.repeat(200);
    for file in [
        webp(&pixels, (20, 10), None),
        webp(&pixels, (20, 10), Some(80)),
        webp(&pixels[..600], (20, 10), Some(80)),
    ] {
        let exif = chunk(b"EXIF", &[7; 31]);
        let file = webp_of(0x08, &[file[12..].to_vec(), exif]);
        let spec = ResizeSpec::full_size();
        let whole = resize_encoded(&file, &spec).unwrap();
        assert_eq!(whole.damage, None);
        for end in file.len() - 40..file.len() {
            let torn = &file[..end];
            let made = resize_encoded(torn, &spec).unwrap();
            assert_eq!(made.bytes, whole.bytes, "{end}");
            assert_eq!(made.damage.map(|damage| damage.missing), Some(0), "{end}");
            let fail_on = FailOn::Warning;
            assert!(resize_encoded(torn, &ResizeSpec { fail_on, ..spec }).is_err());
        }
    }
}

#[test]
fn margins_do_not_change_from_frame_to_frame() {
    // The first frame is opaque, the last one is not.
    let frames = [
        webp_frame((0, 0), (20, 10), RED, 1),
        webp_frame((0, 0), (4, 4), BLUE, 0),
    ];
    let file = webp_of(0x12, &frames);
    let spec = ResizeSpec {
        fit: Fit::Pad,
        output: Output::Png,
        ..spec("20x20")
    };
    let (frames, _) = shown(&resize_encoded(&file, &spec).unwrap().bytes);
    let margin = |frame: usize| frames[frame].0.get_pixel(10, 1).0;
    assert_eq!(margin(0), margin(1));
}

#[test]
fn an_animated_png_of_grey_keeps_its_profile_and_its_times() {
    let mut file = Vec::new();
    let mut info = ::png::Info::with_size(8, 8);
    info.color_type = ::png::ColorType::Grayscale;
    info.bit_depth = ::png::BitDepth::Eight;
    info.source_gamma = Some(::png::ScaledFloat::new(1.0));
    let mut encoder = ::png::Encoder::with_info(&mut file, info).unwrap();
    encoder.set_animated(60, 2).unwrap();
    encoder.set_frame_delay(1, 60).unwrap();
    let mut writer = encoder.write_header().unwrap();
    for number in 0..60 {
        writer.write_image_data(&[number * 4; 64]).unwrap();
    }
    writer.finish().unwrap();
    let spec = lossless(Output::WebP);
    let still = ResizeSpec {
        first_frame: true,
        ..spec
    };
    let (frames, plays) = shown(&resize_encoded(&file, &spec).unwrap().bytes);
    assert_eq!((frames.len(), plays), (60, 2));
    assert_eq!(frames.iter().map(|(_, millis)| millis).sum::<u32>(), 1000);
    let first = decoded(&resize_encoded(&file, &still).unwrap()).to_rgba8();
    assert_eq!(frames[0].0, first);
    // Light of a half is a level of 188.
    assert!(frames[32].0.get_pixel(0, 0)[0].abs_diff(188) <= 2);

    // With metadata, levels and profile stay, and mean the same.
    let keep = ResizeSpec {
        keep_metadata: true,
        ..lossless(Output::Png)
    };
    let kept = resize_encoded(&file, &keep).unwrap().bytes;
    let mut reader = ::png::Decoder::new(Cursor::new(&kept)).read_info().unwrap();
    let info = reader.info();
    assert_eq!(info.color_type, ::png::ColorType::Grayscale);
    assert_eq!(info.icc_profile.as_ref().unwrap()[16..20], *b"GRAY");
    let mut samples = vec![0; reader.output_buffer_size().unwrap()];
    for number in 0..60 {
        reader.next_frame(&mut samples).unwrap();
        assert_eq!(samples, [number * 4; 64]);
    }
    let again = shown(&resize_encoded(&kept, &spec).unwrap().bytes).0;
    assert!(again == frames);
}

/// The limits are those of docs/resize.md. Nothing is decoded: the pixels of these frames are no pixels.
#[test]
fn frames_that_would_take_minutes_are_refused_by_their_headers() {
    let webp = |sides: (u32, u32), frames: usize| {
        let frame = webp_frame((0, 0), (1, 1), RED, 0);
        let mut wide = frame.clone();
        wide[14..17].copy_from_slice(&(sides.0 - 1).to_le_bytes()[..3]);
        wide[17..20].copy_from_slice(&(sides.1 - 1).to_le_bytes()[..3]);
        let mut file = webp_of(0x12, &[vec![frame], vec![wide; frames - 1]].concat());
        file[24..27].copy_from_slice(&(sides.0 - 1).to_le_bytes()[..3]);
        file[27..30].copy_from_slice(&(sides.1 - 1).to_le_bytes()[..3]);
        file
    };
    let gif = |(width, height): (u16, u16), frames: usize| {
        let mut file = b"GIF89a".to_vec();
        file.extend([width, height].map(u16::to_le_bytes).concat());
        file.extend([0x80, 0, 0, 0, 0, 0, 9, 9, 9]);
        // One pixel: clear, index 1, end.
        let frame = b",\0\0\0\0\x01\0\x01\0\0\x02\x02\x4c\x01\0";
        file.extend(frame.repeat(frames));
        [file, b";".to_vec()].concat()
    };
    let full = ResizeSpec::full_size();
    let refused = |file: &[u8], format| {
        assert_eq!(readable_format(file), Ok(format));
        let opened = animation::open(file, format, &full, true);
        opened.err().or_else(|| resize_encoded(file, &full).err())
    };
    // 2,000,000,000 pixels of the screen; and as many bytes of a small file.
    let error = refused(&gif((100, 100), 200_000), Format::Gif).unwrap();
    let expected = ImageError::TooManyFrames {
        frames: 200_000,
        pixels: 2_000_000_000,
        limit: 1_600_000_000,
    };
    assert_eq!(error, expected);
    let error = refused(&webp((4000, 4000), 50), Format::WebP).unwrap();
    assert!(matches!(error, ImageError::Bomb { .. }), "{error}");
    assert!(error.to_string().contains("4096 times"), "{error}");
    // A check does not draw frames on the screen: a pixel for each counts.
    assert_eq!(check(&gif((100, 100), 2_000), &full).unwrap().damage, None);
    let spec = ResizeSpec {
        max_pixels: 10_000,
        ..full
    };
    assert!(check(&gif((100, 100), 20_000), &spec).is_ok());
    let error = check(&gif((100, 100), 40_001), &spec).unwrap_err();
    assert!(matches!(error, ImageError::TooManyFrames { .. }), "{error}");
    let error = check(&webp((4000, 4000), 50), &full).unwrap_err();
    assert!(matches!(error, ImageError::Bomb { .. }), "{error}");
    // The first frame alone is within the limits.
    for file in [gif((100, 100), 200_000), webp((4000, 4000), 50)] {
        let first_frame = true;
        assert!(
            resize_encoded(
                &file,
                &ResizeSpec {
                    first_frame,
                    ..full
                }
            )
            .is_ok()
        );
    }
}

/// Browsers and Pillow read all of the file, too.
#[test]
fn the_number_of_repetitions_may_stand_anywhere() {
    let plain = gif_of_all_kinds(None);
    let plays = |file: &[u8]| {
        let spec = ResizeSpec::full_size();
        let animation = animation::open(file, Format::Gif, &spec, true)
            .unwrap()
            .unwrap();
        (
            animation.plays,
            animation.frames.map(Result::unwrap).count(),
        )
    };
    let (once, count) = plays(&plain);
    assert_eq!(once, 1);
    let controls = plain
        .windows(3)
        .enumerate()
        .filter(|(_, bytes)| *bytes == b"!\xf9\x04");
    let places: Vec<usize> = controls
        .map(|(at, _)| at)
        .chain([plain.len() - 1])
        .collect();
    let extension = |name: &[u8; 11], again: u16| {
        let [low, high] = again.to_le_bytes();
        [b"!\xff\x0b", &name[..], &[3, 1, low, high, 0]].concat()
    };
    let with = |at: usize, extension: &[u8]| [&plain[..at], extension, &plain[at..]].concat();
    for at in [places[0], places[1], places[places.len() - 1]] {
        for name in [b"NETSCAPE2.0", b"ANIMEXTS1.0"] {
            for (again, expected) in [(0, 0), (1, 2), (4, 5), (u16::MAX, 65_536)] {
                let file = with(at, &extension(name, again));
                assert_eq!(plays(&file), (expected, count), "{again} at {at}");
            }
        }
        assert_eq!(plays(&with(at, &extension(b"XMP DataXMP", 4))).0, 1);
    }
    let both = [extension(b"NETSCAPE2.0", 4), extension(b"NETSCAPE2.0", 0)].concat();
    assert_eq!(plays(&with(places[1], &both)).0, 0, "the last counts");
}

/// libwebp refuses such animations.
#[test]
fn a_frame_outside_a_webp_is_damage() {
    let first = webp_frame((0, 0), (20, 10), RED, 0);
    let whole = webp_of(0x12, &[first.clone(), webp_frame((16, 6), (4, 4), BLUE, 0)]);
    assert!(check(&whole, &ResizeSpec::full_size()).is_ok());
    for place in [(18, 6), (16, 8), (100, 0), (0, 100)] {
        let outside = webp_frame(place, (4, 4), BLUE, 0);
        for frames in [
            vec![first.clone(), outside.clone()],
            vec![outside.clone(), first.clone()],
        ] {
            let file = webp_of(0x12, &frames);
            let spec = ResizeSpec::full_size();
            for error in [
                check(&file, &spec).unwrap_err(),
                resize_encoded(&file, &spec).unwrap_err(),
            ] {
                assert!(
                    error.proves_damage() && error.to_string().contains("outside"),
                    "{error}"
                );
            }
        }
    }
}

/// The same pixels, in formats with and without alpha, still and moving.
#[test]
fn margins_follow_the_pixels() {
    let margins = |file: &[u8], output| {
        let spec = ResizeSpec {
            fit: Fit::Pad,
            size: spec("24x24").size,
            ..lossless(output)
        };
        let made = resize_encoded(file, &spec).unwrap();
        let picture = image::load_from_memory(&made.bytes).unwrap().to_rgba8();
        picture.get_pixel(12, 1).0
    };
    let opaque = RgbaImage::from_pixel(24, 12, image::Rgba(RED));
    let mut clear = opaque.clone();
    clear.get_pixel_mut(23, 11)[3] = 0;
    let files = |picture: &RgbaImage| {
        let formats = [
            ImageFormat::Png,
            ImageFormat::WebP,
            ImageFormat::Tiff,
            ImageFormat::Tga,
            ImageFormat::Gif,
            ImageFormat::Qoi,
            ImageFormat::Bmp,
        ];
        formats.map(|format| (format, written(&picture.clone().into(), format)))
    };
    for output in [Output::Png, Output::WebP] {
        for (format, file) in files(&opaque) {
            assert_eq!(margins(&file, output), [255; 4], "{format:?}");
        }
        for (format, file) in files(&clear) {
            assert_eq!(margins(&file, output)[3], 0, "{format:?}");
        }
    }
    let deep = DynamicImage::ImageRgba8(opaque).to_rgba16();
    assert_eq!(
        margins(&written(&deep.into(), ImageFormat::Png), Output::Png),
        [255; 4]
    );
}
