//! High dynamic range: codes and what they stand for are points that ITU-R BT.2408 and BT.2100 name.

use super::*;
use crate::hdr::Hdr;
use crate::meta::Metadata;

const PQ: u8 = 16;
const HLG: u8 = 18;

fn tagged(pixels: &Pixels, primaries: u8, transfer: u8) -> Vec<u8> {
    let metadata = Metadata {
        hdr: Hdr::of_code_points(primaries, transfer),
        ..Metadata::default()
    };
    encode::encode(pixels, Format::Png, Encoding::new(80), Some(&metadata)).unwrap()
}

fn grey(codes: &[f64], is_deep: bool) -> Pixels {
    let samples = codes.iter().flat_map(|code| [code; 3]);
    Pixels {
        width: codes.len() as u32,
        height: 1,
        color: Color::Rgb,
        samples: match is_deep {
            true => Samples::Sixteen(
                samples
                    .map(|code| (code * 65_535.0).round() as u16)
                    .collect(),
            ),
            false => Samples::Eight(samples.map(|code| (code * 255.0).round() as u8).collect()),
        },
    }
}

fn levels(file: &[u8]) -> Vec<u8> {
    let shown = decode(file).unwrap().into_eight_bits();
    let pixels = shown.eight_bits().chunks_exact(3);
    pixels
        .map(|pixel| {
            assert!(
                pixel.iter().all(|part| part.abs_diff(pixel[0]) <= 1),
                "{pixel:?}"
            );
            pixel[0]
        })
        .collect()
}

/// PQ by its definition.
fn pq(nits: f64) -> f64 {
    let power = (nits / 10_000.0).powf(2610.0 / 16_384.0);
    ((0.8359375 + 18.8515625 * power) / (1.0 + 18.6875 * power)).powf(78.84375)
}

fn light_of_srgb(level: u8) -> f64 {
    match f64::from(level) / 255.0 {
        dark @ ..=0.04045 => dark / 12.92,
        level => ((level + 0.055) / 1.055).powf(2.4),
    }
}

#[test]
fn light_up_to_93_nits_stays_and_the_rest_is_compressed() {
    let all: Vec<u8> = (0..=255).collect();
    let codes: Vec<f64> = all
        .iter()
        .map(|&level| pq(203.0 * light_of_srgb(level)))
        .collect();
    for (is_deep, step) in [(true, 1), (false, 3)] {
        let seen = levels(&tagged(&grey(&codes, is_deep), 9, PQ));
        for (&level, &seen) in all.iter().zip(&seen) {
            match level {
                ..=176 => assert!(seen.abs_diff(level) <= step, "{level} is {seen}"),
                _ => assert!(
                    (176..=level.saturating_add(step)).contains(&seen),
                    "{level} is {seen}"
                ),
            }
        }
        assert!(
            (225..=235).contains(&seen[255]),
            "white of graphics is {}",
            seen[255]
        );
        assert!(seen.is_sorted());
    }
    // 1000 nits and more are white.
    let bright = grey(&[pq(600.0), pq(1000.0), pq(4000.0), 1.0], true);
    let seen = levels(&tagged(&bright, 9, PQ));
    assert!(
        (240..255).contains(&seen[0]) && seen[1..] == [255; 3],
        "{seen:?}"
    );
}

/// BT.2408: 75 % of HLG and 58 % of PQ are 203 nits; 38 % and 38 % are 26 nits.
#[test]
fn both_curves_mean_the_same_light() {
    let same = |hlg: f64, pq: f64, most: u8| {
        let [hlg, pq] = [(hlg, HLG), (pq, PQ)]
            .map(|(code, curve)| levels(&tagged(&grey(&[code], true), 9, curve))[0]);
        assert!(hlg.abs_diff(pq) <= most, "{hlg} {pq}");
    };
    same(0.75, 0.58, 2);
    same(0.38, 0.38, 4);
    same(1.0, 0.7518, 0);
    same(0.0, 0.0, 0);
}

#[test]
fn primaries_are_converted_and_hues_stay() {
    // Green of 30 nits in sRGB, in the primaries of BT.2020.
    let green = [0.3293, 0.9195, 0.0880].map(|part| pq(60.0 * part));
    let pixels = Pixels {
        width: 1,
        height: 1,
        color: Color::Rgb,
        samples: Samples::Sixteen(green.map(|code| (code * 65_535.0) as u16).to_vec()),
    };
    let wide = decode(&tagged(&pixels, 9, PQ)).unwrap().into_eight_bits();
    let [red, green, blue] = wide.eight_bits() else {
        panic!()
    };
    assert!(
        *red < 12 && *blue < 12 && (140..156).contains(green),
        "{red} {green} {blue}"
    );
    let narrow = decode(&tagged(&pixels, 1, PQ)).unwrap().into_eight_bits();
    assert!(narrow.eight_bits()[0] > 60, "{narrow:?}");
}

#[test]
fn with_metadata_pixels_and_their_code_points_stay() {
    let pixels = grey(&[0.2, 0.4, 0.58, 0.7, 0.9, 0.1, 0.3, 0.5], true);
    for transfer in [PQ, HLG] {
        let file = tagged(&pixels, 9, transfer);
        let keep = |output| ResizeSpec {
            output,
            keep_metadata: true,
            quality: 100,
            ..ResizeSpec::full_size()
        };
        let png = resize_encoded(&file, &keep(Output::Png)).unwrap();
        let info = ::png::Decoder::new(std::io::Cursor::new(&png.bytes))
            .read_info()
            .unwrap();
        let points = info.info().coding_independent_code_points.unwrap();
        assert_eq!(
            (points.color_primaries, points.transfer_function),
            (9, transfer)
        );
        assert!(info.info().icc_profile.is_none());
        assert_eq!(
            rendered(&png.bytes, &keep(Output::Png)).unwrap().frames[0].pixels,
            pixels
        );

        let avif = resize_encoded(&file, &keep(Output::Avif)).unwrap();
        let points = [b"nclx\0\x09\0", &[transfer][..], &[0, 6, 0x80]].concat();
        assert!(avif.bytes.windows(points.len()).any(|part| part == points));
        // Read again, they are tone-mapped like the original.
        let both = [&file, &avif.bytes].map(|file| decode(file).unwrap().into_eight_bits());
        assert!(difference(&both[0], &both[1]) < 4.0);
        // These have no place for code points.
        for output in [Output::Jpeg, Output::WebP] {
            let small = resize_encoded(&file, &keep(output)).unwrap();
            assert!(
                difference(&decode(&small.bytes).unwrap(), &both[0]) < 6.0,
                "{output:?}"
            );
        }
    }
}

/// H.273: black is 16 and white 235, times 256 in 16 bits. Alpha has all numbers.
#[test]
fn narrow_range_is_expanded() {
    for is_deep in [false, true] {
        let (unit, most) = if is_deep {
            (256.0, 65_535.0)
        } else {
            (1.0, 255.0)
        };
        let codes: Vec<f64> = (0..=255).map(f64::from).collect();
        let stored = codes.iter().flat_map(|code| [code * unit; 4]);
        let pixels = Pixels {
            width: 256,
            height: 1,
            color: Color::Rgba,
            samples: match is_deep {
                true => Samples::Sixteen(stored.map(|code| code as u16).collect()),
                false => Samples::Eight(stored.map(|code| code as u8).collect()),
            },
        };
        let mut file = tagged(&pixels, 9, PQ);
        let at = file.windows(4).position(|part| part == b"cICP").unwrap();
        // The curve of sRGB, in its primaries, so that the numbers stay.
        file[at + 4..at + 8].copy_from_slice(&[1, 13, 0, 0]);
        let sum = crate::meta::crc32(&file[at..at + 8]).to_be_bytes();
        file[at + 8..at + 12].copy_from_slice(&sum);
        let seen: Vec<f64> = match decode(&file).unwrap().samples {
            Samples::Eight(samples) => samples.into_iter().map(f64::from).collect(),
            Samples::Sixteen(samples) => samples.into_iter().map(f64::from).collect(),
        };
        for (code, seen) in codes.iter().zip(seen.chunks_exact(4)) {
            let level = ((code - 16.0) / 219.0).clamp(0.0, 1.0) * most;
            let step = most / 255.0 * 0.51;
            assert!(
                seen[..3].iter().all(|part| (part - level).abs() <= step),
                "{code} is {seen:?}"
            );
            assert_eq!(seen[3], code * unit);
        }
    }
}

#[test]
fn code_points_in_a_profile_count_like_those_of_a_file() {
    use moxcms::{CicpColorPrimaries, CicpProfile, MatrixCoefficients, TransferCharacteristics};
    let codes: Vec<f64> = (0..=100).map(|part| f64::from(part) / 100.0).collect();
    let pixels = grey(&codes, true);
    for (transfer, curve) in [
        (PQ, TransferCharacteristics::Smpte2084),
        (HLG, TransferCharacteristics::Hlg),
    ] {
        let mut profile = crate::color::from_code_points(9, 13).unwrap();
        profile.cicp = Some(CicpProfile {
            color_primaries: CicpColorPrimaries::Bt2020,
            transfer_characteristics: curve,
            matrix_coefficients: MatrixCoefficients::Identity,
            full_range: true,
        });
        let metadata = Metadata {
            icc: Some(profile.encode().unwrap()),
            ..Metadata::default()
        };
        let in_profile =
            |format| encode::encode(&pixels, format, Encoding::new(100), Some(&metadata));
        let file = in_profile(Format::Png).unwrap();
        assert_eq!(levels(&file), levels(&tagged(&pixels, 9, transfer)));
        // Kept, it stays beside the same pixels.
        let keep = ResizeSpec {
            keep_metadata: true,
            ..ResizeSpec::full_size()
        };
        let kept = rendered(&file, &keep).unwrap();
        assert_eq!(kept.frames[0].pixels, pixels);
        assert_eq!(kept.metadata.icc, metadata.icc);
    }
}
