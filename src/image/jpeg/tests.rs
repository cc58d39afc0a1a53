//! The short cut to one eighth against libjpeg, bit for bit; and how far a decode scales.
#![allow(clippy::unwrap_used, reason = "tests")]

use mozjpeg::{ColorSpace, Compress, Decompress};

use super::super::color::without_ycbcr;
use super::super::meta::StoredPlan;
use super::super::pixels::Samples;
use super::super::size::Region;
use super::super::spec::Filter;
use super::eighth::{self, Eighth};

/// How a test picture is coded.
#[derive(Debug, Clone, Copy)]
struct Kind {
    grey: bool,
    chroma: (u8, u8),
    quality: f32,
    optimized: bool,
}

/// Deterministic pixels between smooth (`noise` 0) and pure noise (256).
fn picture(width: usize, height: usize, channels: usize, noise: usize) -> Vec<u8> {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64 ^ (width * 31 + height) as u64;
    let mut samples = Vec::with_capacity(width * height * channels);
    for y in 0..height {
        for x in 0..width {
            for channel in 0..channels {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                let smooth = (x * (channel + 1) / 3 + y * 2 / (channel + 1)) % 256;
                let mix = (smooth * (256 - noise) + (seed % 256) as usize * noise) / 256;
                samples.push(mix as u8);
            }
        }
    }
    samples
}

fn encode(samples: &[u8], width: usize, height: usize, kind: Kind) -> Vec<u8> {
    let mut encoder = Compress::new(if kind.grey {
        ColorSpace::JCS_GRAYSCALE
    } else {
        ColorSpace::JCS_RGB
    });
    encoder.set_fastest_defaults();
    encoder.set_optimize_coding(kind.optimized);
    encoder.set_size(width, height);
    encoder.set_quality(kind.quality);
    if !kind.grey {
        encoder.set_chroma_sampling_pixel_sizes(kind.chroma, kind.chroma);
    }
    let mut encoder = encoder.start_compress(Vec::new()).unwrap();
    encoder.write_scanlines(samples).unwrap();
    encoder.finish().unwrap()
}

fn libjpeg(file: &[u8]) -> (usize, usize, Vec<u8>) {
    let mut header = Decompress::new_mem(file).unwrap();
    header.scale(1);
    let mut lines = if header.color_space() == ColorSpace::JCS_GRAYSCALE {
        header.grayscale().unwrap()
    } else {
        header.rgb().unwrap()
    };
    let samples = lines.read_scanlines::<u8>().unwrap();
    (lines.width(), lines.height(), samples)
}

/// The pixels as they are converted after resizing.
fn rgb(eighth: Eighth) -> Vec<u8> {
    match without_ycbcr(eighth.into_pixels()).samples {
        Samples::Eight(samples) => samples,
        Samples::Sixteen(_) => panic!("a JPEG has 8 bits"),
    }
}

#[track_caller]
fn assert_same(file: &[u8], what: &str) {
    let (width, height, samples) = libjpeg(file);
    let ours = eighth::decode(file).unwrap_or_else(|| panic!("{what}: not taken"));
    assert_eq!((ours.width, ours.height), (width, height), "{what}");
    assert!(rgb(ours) == samples, "{what}: other pixels");
}

#[test]
fn an_eighth_is_bit_for_bit_libjpegs() {
    for noise in [0, 30, 256] {
        for quality in [5.0, 50.0, 85.0, 100.0] {
            for optimized in [false, true] {
                for (width, height) in [(1, 1), (8, 8), (17, 9), (64, 48), (203, 131)] {
                    let colours = [(1, 1), (2, 1), (2, 2)].map(|chroma| (false, chroma));
                    for (grey, chroma) in colours.into_iter().chain([(true, (1, 1))]) {
                        let kind = Kind {
                            grey,
                            chroma,
                            quality,
                            optimized,
                        };
                        let channels = if grey { 1 } else { 3 };
                        let samples = picture(width, height, channels, noise);
                        let file = encode(&samples, width, height, kind);
                        assert_same(&file, &format!("{width}x{height} noise {noise} {kind:?}"));
                    }
                }
            }
        }
    }
}

/// A file of strips with a restart marker between them, joined from separate files of the same tables.
fn with_restarts(strips: usize, mcus: usize) -> Vec<u8> {
    let (width, height) = (16 * mcus, 16);
    let kind = Kind {
        grey: false,
        chroma: (2, 2),
        quality: 90.0,
        optimized: false,
    };
    let samples = picture(width, height * strips, 3, 100);
    let mut joined = Vec::new();
    for (index, strip) in samples.chunks_exact(width * height * 3).enumerate() {
        let file = encode(strip, width, height, kind);
        let scan = file.windows(2).position(|w| w == [0xff, 0xda]).unwrap();
        let data = scan + 2 + usize::from(u16::from_be_bytes([file[scan + 2], file[scan + 3]]));
        if index == 0 {
            joined.extend_from_slice(&file[..scan]);
            let frame = joined.windows(2).position(|w| w == [0xff, 0xc0]).unwrap();
            let lines = (height * strips) as u16;
            joined[frame + 5..frame + 7].copy_from_slice(&lines.to_be_bytes());
            joined.extend_from_slice(&[0xff, 0xdd, 0, 4, 0, mcus as u8]);
            joined.extend_from_slice(&file[scan..data]);
        } else {
            joined.extend_from_slice(&[0xff, 0xd0 + ((index - 1) % 8) as u8]);
        }
        joined.extend_from_slice(&file[data..file.len() - 2]);
    }
    joined.extend_from_slice(&[0xff, 0xd9]);
    joined
}

#[test]
fn restart_markers_are_followed() {
    // The last ones are longer than what is taken in at a time.
    for (strips, mcus) in [(2, 1), (3, 7), (19, 4), (3, 250)] {
        assert_same(
            &with_restarts(strips, mcus),
            &format!("{strips} strips of {mcus}"),
        );
    }
    // One out of order, and one missing: left to libjpeg, which knows what to say.
    let file = with_restarts(3, 7);
    let marker = file.windows(2).position(|w| w == [0xff, 0xd1]).unwrap();
    let mut wrong = file.clone();
    wrong[marker + 1] = 0xd5;
    assert!(eighth::decode(&wrong).is_none());
    let missing = [&file[..marker], &file[marker + 2..]].concat();
    assert!(eighth::decode(&missing).is_none());
}

#[test]
fn cut_or_spoilt_data_is_left_to_libjpeg_or_whole() {
    let kind = Kind {
        grey: false,
        chroma: (2, 2),
        quality: 85.0,
        optimized: true,
    };
    let file = encode(&picture(120, 90, 3, 60), 120, 90, kind);
    let Eighth { samples, .. } = eighth::decode(&file).unwrap();
    for end in 0..file.len() {
        if let Some(cut) = eighth::decode(&file[..end]) {
            assert!(cut.samples == samples, "torn after {end}");
        }
    }
    let mut seed = 88_172_645_463_325_252_u64;
    for _ in 0..4000 {
        let mut spoilt = file.clone();
        for _ in 0..2 {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            let at = seed as usize % spoilt.len();
            spoilt[at] = (seed >> 32) as u8;
        }
        // No panic, and where libjpeg has no complaint, the same pixels.
        let _ = eighth::decode(&spoilt);
    }
}

#[test]
fn a_scaled_decode_leaves_twice_the_target_and_not_an_eighth_more() {
    let plan = |(width, height), (left, top, wide, high)| StoredPlan {
        width,
        height,
        region: Region {
            left,
            top,
            width: wide,
            height: high,
        },
    };
    for (target, region, eighths) in [
        ((224, 168), (0.0, 0.0, 4000.0, 3000.0), 1),
        ((224, 168), (0.0, 0.0, 640.0, 480.0), 6),
        ((224, 224), (80.0, 0.0, 480.0, 480.0), 8),
        ((80, 60), (0.0, 0.0, 640.0, 480.0), 2),
        ((81, 60), (0.0, 0.0, 640.0, 480.0), 3),
        ((80, 61), (0.0, 0.0, 640.0, 480.0), 3),
        ((400, 300), (0.0, 0.0, 640.0, 480.0), 8),
        ((1280, 960), (0.0, 0.0, 640.0, 480.0), 8),
    ] {
        assert_eq!(
            super::eighths(&plan(target, region), Filter::Lanczos3),
            eighths,
            "{target:?} of {region:?}"
        );
        for whole in [Filter::Box, Filter::Nearest] {
            assert_eq!(super::eighths(&plan(target, region), whole), 8);
        }
    }
}
