//! CMYK: equal inks and profiles yield equal colours from each format.

use std::io::Cursor;

use ::tiff::encoder::colortype::{CMYK8, CMYK16, ColorType};
use ::tiff::encoder::{TiffEncoder, TiffValue};
use ::tiff::tags::Tag;
use moxcms::{
    ColorProfile, DataColorSpace, LutDataType, LutStore, LutType, LutWarehouse, Matrix3d,
    ProfileClass,
};

use super::*;

/// Four quarters, all with ink.
const INKS: [[u8; 4]; 4] = [
    [200, 20, 40, 0],
    [10, 180, 90, 30],
    [60, 60, 220, 90],
    [5, 5, 5, 5],
];

fn inks() -> Vec<u8> {
    let rows = (0..64).flat_map(|y| (0..64).map(move |x| (x, y)));
    rows.flat_map(|(x, y)| INKS[x / 32 + y / 32 * 2]).collect()
}

/// A profile that differs from plain multiplication: cyan is a red, and black leaves half of the light.
fn profile() -> Vec<u8> {
    let mut nodes = Vec::new();
    for node in 0..16u32 {
        let [c, m, y, k] = [3, 2, 1, 0].map(|bit| f64::from(node >> bit & 1));
        let lightness = (100.0 - 15.0 * (c + m + y)) * (1.0 - k / 2.0);
        nodes.push((lightness / 100.0 * 65_280.0) as u16);
        for color in [60.0 * (c - m), 60.0 * (y - m)] {
            nodes.push(((color + 128.0) * 256.0) as u16);
        }
    }
    let line = |channels| LutStore::Store16([0, 65_535].repeat(channels));
    let lut = LutWarehouse::Lut(LutDataType {
        num_input_channels: 4,
        num_output_channels: 3,
        num_clut_grid_points: 2,
        matrix: Matrix3d::IDENTITY,
        num_input_table_entries: 2,
        num_output_table_entries: 2,
        input_table: line(4),
        clut_table: LutStore::Store16(nodes),
        output_table: line(3),
        lut_type: LutType::Lut16,
    });
    let mut profile = ColorProfile::default();
    profile.color_space = DataColorSpace::Cmyk;
    profile.pcs = DataColorSpace::Lab;
    profile.profile_class = ProfileClass::OutputDevice;
    profile.lut_a_to_b_perceptual = Some(lut.clone());
    profile.lut_a_to_b_colorimetric = Some(lut);
    profile.encode().unwrap()
}

fn tiff<C: ColorType>(inks: &[C::Inner], icc: Option<&[u8]>) -> Vec<u8>
where
    [C::Inner]: TiffValue,
{
    let mut file = Cursor::new(Vec::new());
    let mut encoder = TiffEncoder::new(&mut file).unwrap();
    let mut image = encoder.new_image::<C>(64, 64).unwrap();
    if let Some(icc) = icc {
        image.encoder().write_tag(Tag::IccProfile, icc).unwrap();
    }
    image.write_data(inks).unwrap();
    file.into_inner()
}

/// Inverted, as Adobe writes them.
fn jpeg(inks: &[u8], icc: Option<&[u8]>) -> Vec<u8> {
    let mut encoder = mozjpeg::Compress::new(mozjpeg::ColorSpace::JCS_CMYK);
    encoder.set_fastest_defaults();
    encoder.set_size(64, 64);
    encoder.set_quality(100.0);
    let mut encoder = encoder.start_compress(Vec::new()).unwrap();
    if let Some(icc) = icc {
        encoder.write_icc_profile(icc);
    }
    let inks: Vec<u8> = inks.iter().map(|ink| !ink).collect();
    encoder.write_scanlines(&inks).unwrap();
    encoder.finish().unwrap()
}

/// The colours in the middles of the four quarters, at 16 bits.
fn colors(file: &[u8], keep_metadata: bool) -> [[u16; 3]; 4] {
    let spec = ResizeSpec {
        keep_metadata,
        output: Output::Png,
        ..spec("16")
    };
    let small = decoded(&resize_encoded(file, &spec).unwrap()).to_rgb16();
    [(4, 4), (11, 4), (4, 11), (11, 11)].map(|(x, y)| small.get_pixel(x, y).0)
}

fn distance(one: [[u16; 3]; 4], other: [[u16; 3]; 4]) -> u16 {
    let pairs = one.as_flattened().iter().zip(other.as_flattened());
    pairs.map(|(a, b)| a.abs_diff(*b)).max().unwrap()
}

#[test]
fn a_cmyk_profile_is_applied_in_each_format() {
    const STEPS: u16 = 3 * 257;
    let eight = inks();
    let sixteen: Vec<u16> = eight.iter().map(|&ink| u16::from(ink) * 257).collect();
    let icc = profile();
    let plain = colors(&tiff::<CMYK8>(&eight, None), false);
    for (kind, icc) in [("with", Some(&icc[..])), ("without", None)] {
        for keep in [false, true] {
            let expected = colors(&jpeg(&eight, icc), keep);
            let changed = distance(expected, plain);
            assert_eq!(changed > 40 * 257, icc.is_some(), "{kind}: {expected:?}");
            for file in [tiff::<CMYK8>(&eight, icc), tiff::<CMYK16>(&sixteen, icc)] {
                let seen = colors(&file, keep);
                let far = distance(seen, expected);
                assert!(far <= STEPS, "{kind} profile: {seen:?}, not {expected:?}");
            }
        }
    }
}

#[test]
fn sixteen_bits_of_ink_stay_sixteen_bits() {
    let ramp: Vec<u16> = (0..64 * 64).flat_map(|n| [n * 3, 0, 0, 0]).collect();
    // The profile is applied to the upper half of their bits.
    for (icc, least) in [(None, 4096), (Some(profile()), 40)] {
        let pixels = decode(&tiff::<CMYK16>(&ramp, icc.as_deref())).unwrap();
        let Samples::Sixteen(samples) = pixels.samples else {
            panic!("8 bits of 16");
        };
        let mut colors: Vec<&[u16]> = samples.chunks_exact(3).collect();
        colors.sort_unstable();
        colors.dedup();
        assert!(colors.len() >= least, "{} of 4096 colours", colors.len());
    }
}

#[test]
fn inks_are_limited_by_their_bytes_and_truncated_files_are_errors() {
    let file = tiff::<CMYK8>(&inks(), None);
    let room = |max_bytes| ResizeSpec {
        max_bytes,
        ..spec("16")
    };
    // Four bytes per pixel count, although the result has three.
    assert!(resize_encoded(&file, &room(64 * 64 * 4)).is_ok());
    let error = resize_encoded(&file, &room(64 * 64 * 4 - 1)).unwrap_err();
    assert!(matches!(error, ImageError::TooManyBytes { .. }), "{error}");
    for cut in [file.len() / 4, file.len() / 2] {
        // The directory is after the pixels: it moves with the cut.
        let mut torn = file[..8].to_vec();
        torn.extend(&file[cut..]);
        let start = u32::from_le_bytes(file[4..8].try_into().unwrap());
        torn[4..8].copy_from_slice(&(start - (cut as u32 - 8)).to_le_bytes());
        assert!(resize_encoded(&torn, &spec("16")).is_err());
    }
}

/// Profiles of printing presses are larger than a small picture, by which the decoder's limits are set.
#[test]
fn a_profile_may_be_larger_than_its_picture() {
    let inks = inks();
    let mut large = profile();
    let small = colors(&tiff::<CMYK8>(&inks, Some(&large)), false);
    large.resize(600_000, 0);
    let len = (large.len() as u32).to_be_bytes();
    large[..4].copy_from_slice(&len);
    assert_eq!(colors(&tiff::<CMYK8>(&inks, Some(&large)), false), small);
    assert_ne!(colors(&tiff::<CMYK8>(&inks, None), false), small);
}
