//! Compares the fast paths with libjpeg: one eighth bit for bit, other scales up to rounding. Tests the choice of the
//! scale.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::cell::Cell;
use std::ffi::c_int;

use mozjpeg::{ColorSpace, CompInfoExt, Compress, Decompress};
use mozjpeg_sys::jpeg_common_struct;

use super::super::color::without_ycbcr;
use super::super::damage::FailOn;
use super::super::error::ImageError;
use super::super::format::Format;
use super::super::meta::{Request, StoredPlan};
use super::super::pad::Padding;
use super::super::pixels::{Pixels, Samples};
use super::super::size::Region;
use super::super::spec::{Filter, ResizeSpec};
use super::eighth::{self, Eighth};
use super::huffman::Table;
use super::inverse::{SIDE, Square, inverse};
use super::markers::{self, Scans};
use super::{faults, planes};

/// The coding of a test picture.
#[derive(Debug, Clone, Copy)]
struct Kind {
    grey: bool,
    chroma: (u8, u8),
    quality: f32,
    optimized: bool,
}

/// The next pseudo-random number.
fn random(seed: &mut u64) -> u64 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed
}

/// Deterministic pixels, from smooth (`noise` 0) to pure noise (256).
fn picture(width: usize, height: usize, channels: usize, noise: usize) -> Vec<u8> {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64 ^ (width * 31 + height) as u64;
    let mut samples = Vec::with_capacity(width * height * channels);
    for y in 0..height {
        for x in 0..width {
            for channel in 0..channels {
                let random = random(&mut seed);
                let smooth = (x * (channel + 1) / 3 + y * 2 / (channel + 1)) % 256;
                let mix = (smooth * (256 - noise) + (random % 256) as usize * noise) / 256;
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

/// Sides and samples by libjpeg, at this scale and in this colour space.
fn libjpeg(file: &[u8], eighths: u32, space: ColorSpace) -> (usize, usize, Vec<u8>) {
    let mut header = Decompress::new_mem(file).unwrap();
    header.scale(eighths as u8);
    let mut lines = header.to_colorspace(space).unwrap();
    let samples = lines.read_scanlines::<u8>().unwrap();
    (lines.width(), lines.height(), samples)
}

/// The samples of a JPEG.
fn eight(pixels: Pixels) -> Vec<u8> {
    match pixels.samples {
        Samples::Eight(samples) => samples,
        Samples::Sixteen(_) => panic!("a JPEG has 8 bits"),
    }
}

/// The pixels after the conversion that normally follows resizing.
fn rgb(eighth: Eighth) -> Vec<u8> {
    eight(without_ycbcr(eighth.into_pixels()))
}

#[track_caller]
fn assert_same(file: &[u8], what: &str) {
    let space = match Decompress::new_mem(file).unwrap().color_space() {
        ColorSpace::JCS_GRAYSCALE => ColorSpace::JCS_GRAYSCALE,
        _ => ColorSpace::JCS_RGB,
    };
    let (width, height, samples) = libjpeg(file, 1, space);
    let ours = eighth::decode(file).unwrap_or_else(|| panic!("{what}: declined"));
    assert_eq!((ours.width, ours.height), (width, height), "{what}");
    assert!(rgb(ours) == samples, "{what}: other pixels");
}

#[test]
fn an_eighth_equals_libjpeg_bit_for_bit() {
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

/// N × N samples by the defining sum.
fn summed(block: &[i16; 64], quant: &[f32; 64], n: usize) -> Vec<Vec<f64>> {
    let weight = |k: usize, u: usize| {
        let scale = if u == 0 { 0.5f64.sqrt() } else { 1.0 };
        let angle = ((2 * k + 1) * u) as f64 * std::f64::consts::PI / (2 * n) as f64;
        0.5 * scale * angle.cos()
    };
    let sample = |y, x| {
        let terms = (0..n).flat_map(|v| (0..n).map(move |u| (v, u)));
        let sum: f64 = terms
            .map(|(v, u)| {
                // Columns first.
                let at = u * SIDE + v;
                f64::from(block[at]) * f64::from(quant[at]) * weight(y, v) * weight(x, u)
            })
            .sum();
        (sum + 128.0).clamp(0.0, 255.0)
    };
    (0..n)
        .map(|y| (0..n).map(|x| sample(y, x)).collect())
        .collect()
}

#[test]
fn the_inverse_transform_equals_its_definition() {
    type Inverse = fn(&[i16; 64], &[f32; 64]) -> Square;
    let sides: [(usize, [Inverse; 2]); 7] = [
        (2, [inverse::<2, 4>, inverse::<2, 8>]),
        (3, [inverse::<3, 4>, inverse::<3, 8>]),
        (4, [inverse::<4, 4>, inverse::<4, 8>]),
        (5, [inverse::<5, 4>, inverse::<5, 8>]),
        (6, [inverse::<6, 4>, inverse::<6, 8>]),
        (7, [inverse::<7, 4>, inverse::<7, 8>]),
        (8, [inverse::<8, 4>, inverse::<8, 8>]),
    ];
    let mut seed = 0x853c_49e6_748f_ea9b_u64;
    let mut random = |below: u64| random(&mut seed) % below;
    for round in 0..200 {
        // Small coefficients, whose samples are between black and white, and large ones, as only corrupt files have.
        let most = [40, 400, 60_000][round % 3];
        let quant = std::array::from_fn(|_| (1 + random(60)) as f32);
        for (n, inverses) in sides {
            for (few, inverse) in [true, false].into_iter().zip(inverses) {
                let mut block = [0; 64];
                for (at, coefficient) in block.iter_mut().enumerate() {
                    let is_in = !few || (at % SIDE < 4 && at / SIDE < 4);
                    if is_in && random(3) == 0 {
                        *coefficient = (random(most) as i32 - most as i32 / 2) as i16;
                    }
                }
                let (ours, theirs) = (inverse(&block, &quant), summed(&block, &quant, n));
                // `f32` has 24 bits: a sum of millions loses its last places.
                let rounding = 0.501 + most as f64 / 1e4;
                for (y, row) in theirs.iter().enumerate() {
                    for (x, &sample) in row.iter().enumerate() {
                        assert!(
                            (f64::from(ours[y][x]) - sample).abs() <= rounding,
                            "{n}, few {few}, at {x}, {y}: {} for {sample}",
                            ours[y][x]
                        );
                    }
                }
            }
        }
    }
}

/// The region of a whole picture.
const fn whole(width: f64, height: f64) -> Region {
    Region {
        left: 0.0,
        top: 0.0,
        width,
        height,
    }
}

#[track_caller]
fn assert_near(ours: &[u8], theirs: &[u8], what: &str) {
    assert_eq!(ours.len(), theirs.len(), "{what}");
    let off = ours.iter().zip(theirs).map(|(a, b)| a.abs_diff(*b)).max();
    assert!(off <= Some(1), "{what}: off by {off:?}");
}

/// Decodes a file by libjpeg, with warnings as errors.
fn strict<T>(file: &[u8], work: impl FnOnce(Decompress<&[u8]>) -> std::io::Result<T>) -> Option<T> {
    let corrupt = |error| ImageError::corrupt(Format::Jpeg, error);
    let made = faults::guarded(|| {
        let header =
            Decompress::with_err(faults::error_manager(crate::FailOn::Error)).from_mem(file);
        header.and_then(work).map_err(corrupt)
    });
    made.ok()
}

/// Luma by libjpeg at this scale; `None` on a warning.
fn strict_luma(file: &[u8], eighths: u32) -> Option<Vec<u8>> {
    strict(file, |mut header| {
        header.scale(eighths as u8);
        let mut lines = header.grayscale()?;
        let samples = lines.read_scanlines::<u8>()?;
        lines.finish()?;
        Ok(samples)
    })
}

/// Whether the file meets the conditions for the fast paths.
fn is_common(file: &[u8]) -> bool {
    let header = strict(file, |header| {
        Ok((header.color_space(), header.width() * header.height()))
    });
    let is_known = |(space, area)| {
        area < 1 << 20 && matches!(space, ColorSpace::JCS_GRAYSCALE | ColorSpace::JCS_YCbCr)
    };
    header.is_some_and(is_known) && markers::count_scans(file, 100) == Scans::AllInOne
}

/// Cb and Cr interleaved, at their own resolution, by libjpeg.
fn libjpeg_chroma(file: &[u8], width: usize, height: usize) -> Vec<u8> {
    let mut lines = Decompress::new_mem(file).unwrap().raw().unwrap();
    let stride = lines.components()[1].row_stride();
    let mut planes = [Vec::new(), Vec::new(), Vec::new()];
    lines.read_raw_data(&mut planes.each_mut());
    let [_, blue, red] = planes;
    let place = |y: usize| (0..width).map(move |x| y * stride + x);
    let places = (0..height).flat_map(place);
    places.flat_map(|at| [blue[at], red[at]]).collect()
}

#[test]
fn planes_equal_libjpeg_up_to_rounding() {
    for noise in [0, 60, 256] {
        for quality in [5.0, 50.0, 85.0, 100.0] {
            for (width, height) in [(1, 1), (8, 8), (17, 9), (64, 48), (203, 131)] {
                let colours = [(1, 1), (2, 1), (2, 2)].map(|chroma| (false, chroma));
                for (grey, chroma) in colours.into_iter().chain([(true, (1, 1))]) {
                    let kind = Kind {
                        grey,
                        chroma,
                        quality,
                        optimized: noise == 60,
                    };
                    let samples = picture(width, height, if grey { 1 } else { 3 }, noise);
                    let file = encode(&samples, width, height, kind);
                    for eighths in 2..=8 {
                        let what = format!("{eighths}, {width}x{height}, noise {noise}, {kind:?}");
                        let region = whole(width as f64, height as f64);
                        let (luma, colour) =
                            planes::decode(&file, eighths, &[region]).unwrap().unwrap();
                        let (wide, high, theirs) =
                            libjpeg(&file, eighths, ColorSpace::JCS_GRAYSCALE);
                        let sides = (luma.width as usize, luma.height as usize);
                        assert_eq!(sides, (wide, high), "{what}");
                        // libjpeg averages neighbours at these scales.
                        if !matches!(eighths, 2 | 4) {
                            assert_near(&eight(luma), &theirs, &what);
                        }
                        let Some(colour) = colour else {
                            assert!(grey, "{what}");
                            continue;
                        };
                        let (wide, high) = (colour.width as usize, colour.height as usize);
                        assert_eq!(colour.pairs.len(), 2 * wide * high, "{what}");
                        let (across, down) = (usize::from(chroma.0), usize::from(chroma.1));
                        if (across, down) == (1, 1) && !matches!(eighths, 2 | 4) {
                            let (_, _, theirs) = libjpeg(&file, eighths, ColorSpace::JCS_YCbCr);
                            let theirs = theirs.as_chunks::<3>().0.iter();
                            let theirs: Vec<u8> = theirs.flat_map(|p| [p[1], p[2]]).collect();
                            assert_near(&colour.pairs, &theirs, &what);
                        }
                        if eighths as usize * across.min(down) >= SIDE {
                            let all = (width.div_ceil(across), height.div_ceil(down));
                            assert_eq!((wide, high), all, "{what}");
                            assert_near(&colour.pairs, &libjpeg_chroma(&file, wide, high), &what);
                            let half =
                                whole(width as f64 / across as f64, height as f64 / down as f64);
                            assert_eq!(colour.regions, [half], "{what}");
                        }
                    }
                }
            }
        }
    }
}

/// A file of strips separated by restart markers, joined from files with the same tables.
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
    // The last strips are longer than a piece of unstuffed data.
    for (strips, mcus) in [(2, 1), (3, 7), (19, 4), (3, 250)] {
        assert_same(
            &with_restarts(strips, mcus),
            &format!("{strips} strips of {mcus}"),
        );
    }
    let file = with_restarts(19, 4);
    let (luma, _) = planes::decode(&file, 3, &[whole(64.0, 304.0)])
        .unwrap()
        .unwrap();
    let (_, _, theirs) = libjpeg(&file, 3, ColorSpace::JCS_GRAYSCALE);
    assert_near(&eight(luma), &theirs, "19 strips at 3");
    // A restart marker out of order, and a missing one: declined.
    let file = with_restarts(3, 7);
    let marker = file.windows(2).position(|w| w == [0xff, 0xd1]).unwrap();
    let mut wrong = file.clone();
    wrong[marker + 1] = 0xd5;
    assert!(eighth::decode(&wrong).is_none());
    assert!(
        planes::decode(&wrong, 5, &[whole(112.0, 48.0)])
            .unwrap()
            .is_none()
    );
    let missing = [&file[..marker], &file[marker + 2..]].concat();
    assert!(eighth::decode(&missing).is_none());
}

#[test]
fn only_tables_that_libjpeg_accepts_are_accepted() {
    let table = |counts: &[u8], symbols: &[u8]| {
        let mut all = [0; 16];
        all[..counts.len()].copy_from_slice(counts);
        Table::new(&all, symbols).is_some()
    };
    assert!(table(&[1, 1], &[0, 1]));
    assert!(!table(&[1, 2], &[0, 1, 2]), "11 is taken");
    assert!(!table(&[2], &[0, 1]), "1 is taken");
    assert!(!table(&[1, 3], &[0, 1, 2, 3]), "too many");
    assert!(!table(&[1, 1], &[0]), "too few symbols");
    // A DC difference of sixteen bits, even if no code in the data uses it.
    let kind = Kind {
        grey: true,
        chroma: (1, 1),
        quality: 85.0,
        optimized: false,
    };
    let mut file = encode(&picture(40, 40, 1, 60), 40, 40, kind);
    assert!(
        planes::decode(&file, 4, &[whole(40.0, 40.0)])
            .unwrap()
            .is_some()
    );
    let table = file
        .windows(5)
        .position(|w| w[..2] == [0xff, 0xc4] && w[4] == 0);
    let at = table.unwrap() + 5;
    let symbols: usize = file[at..at + 16]
        .iter()
        .map(|&count| usize::from(count))
        .sum();
    file[at + 16 + symbols - 1] = 16;
    assert!(strict_luma(&file, 4).is_none());
    assert!(
        planes::decode(&file, 4, &[whole(40.0, 40.0)])
            .unwrap()
            .is_none()
    );
}

#[test]
fn torn_or_corrupt_data_is_declined_or_complete() {
    let kind = Kind {
        grey: false,
        chroma: (2, 2),
        quality: 85.0,
        optimized: true,
    };
    let file = encode(&picture(120, 90, 3, 60), 120, 90, kind);
    let Eighth { samples, .. } = eighth::decode(&file).unwrap();
    let (luma, _) = planes::decode(&file, 6, &[whole(120.0, 90.0)])
        .unwrap()
        .unwrap();
    for end in 0..file.len() {
        if let Some(cut) = eighth::decode(&file[..end]) {
            assert!(cut.samples == samples, "torn after {end}");
        }
        if let Some((cut, _)) = planes::decode(&file[..end], 6, &[whole(120.0, 90.0)]).unwrap() {
            assert!(cut == luma, "torn after {end}");
        }
    }
    // No panic; and if a corrupt file is accepted, libjpeg decodes it without warning to the same pixels.
    let mut seed = 88_172_645_463_325_252_u64;
    let mut random = |below: usize| (random(&mut seed) >> 20) as usize % below;
    let mut taken = 0;
    for _ in 0..20_000 {
        let mut corrupted = file.clone();
        for _ in 0..1 + random(3) {
            let at = random(corrupted.len() - 2);
            match random(4) {
                0 => corrupted[at] = random(256) as u8,
                1 => corrupted[at] ^= 1 << random(8),
                2 => drop(corrupted.remove(at)),
                _ => drop(corrupted.splice(at..at, [0xff, [0xd0, 0xd9, 0xc4, 0x01][random(4)]])),
            }
        }
        let small = eighth::decode(&corrupted);
        let planes = planes::decode(&corrupted, 6, &[whole(120.0, 90.0)]).unwrap();
        if !is_common(&corrupted) {
            continue;
        }
        if small.is_some() {
            assert!(strict_luma(&corrupted, 1).is_some(), "libjpeg rejects it");
        }
        let Some((luma, _)) = planes else { continue };
        let theirs = strict_luma(&corrupted, 6).expect("libjpeg rejects it");
        let ours = eight(luma);
        // libjpeg keeps only the last bits of values far beyond black or white.
        let alike = |(a, b): (&u8, &u8)| a.abs_diff(*b) <= 1 || matches!(*a, 0 | u8::MAX);
        assert_eq!(ours.len(), theirs.len());
        assert!(ours.iter().zip(&theirs).all(alike), "other pixels");
        taken += 1;
    }
    assert!(taken > 1000, "{taken} were accepted");
}

/// Returns whether libjpeg warns about the file.
fn libjpeg_warns(file: &[u8]) -> bool {
    thread_local! {
        static WARNINGS: Cell<u32> = const { Cell::new(0) };
    }
    extern "C-unwind" fn count(_: &mut jpeg_common_struct, level: c_int) {
        if level < 0 {
            WARNINGS.set(WARNINGS.get() + 1);
        }
    }
    WARNINGS.set(0);
    let mut manager = faults::error_manager(FailOn::None);
    manager.emit_message = Some(count);
    let read = || {
        let mut lines = Decompress::with_err(manager).from_mem(file)?.rgb()?;
        lines.read_scanlines::<u8>()?;
        lines.finish()
    };
    let decoded =
        faults::guarded(|| read().map_err(|error| ImageError::corrupt(Format::Jpeg, error)));
    WARNINGS.get() > 0 || decoded.is_err()
}

/// The offset of the data of the last scan.
fn data_of(file: &[u8]) -> usize {
    let scan = file
        .windows(2)
        .rposition(|two| two == [0xff, 0xda])
        .unwrap();
    scan + 2 + usize::from(u16::from_be_bytes([file[scan + 2], file[scan + 3]]))
}

/// Asserts that a file is whole, or damaged, at each scale.
#[track_caller]
fn assert_judged(file: &[u8], is_damaged: bool, what: &str) {
    let spec = |size: &str| ResizeSpec::new(size.parse().unwrap());
    for spec in [spec("8x8"), spec("90x90"), ResizeSpec::full_size()] {
        match crate::resize_encoded(file, &spec) {
            Ok(made) => assert!(!is_damaged, "{what}, {:?}: {:?}", spec.size, made.damage),
            Err(error) => assert!(
                is_damaged && error.proves_damage(),
                "{what}, {:?}: {error}",
                spec.size
            ),
        }
    }
    let checked = crate::check(file, &ResizeSpec::full_size());
    assert_eq!(checked.is_err(), is_damaged, "{what}: {checked:?}");
}

#[test]
fn damage_to_pixels_is_reported_wherever_libjpeg_warns() {
    let plain = |progressive| {
        let mut encoder = Compress::new(ColorSpace::JCS_RGB);
        encoder.set_fastest_defaults();
        if progressive {
            encoder.set_progressive_mode();
        }
        encoder.set_size(160, 120);
        let mut encoder = encoder.start_compress(Vec::new()).unwrap();
        encoder.write_scanlines(&picture(160, 120, 3, 60)).unwrap();
        encoder.finish().unwrap()
    };
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = |below: usize| (random(&mut seed) >> 20) as usize % below;
    for (name, whole) in [
        ("restarts", with_restarts(8, 10)),
        ("plain", plain(false)),
        ("progressive", plain(true)),
    ] {
        assert!(!libjpeg_warns(&whole), "{name}");
        assert_judged(&whole, false, name);
        let mut warned = 0;
        for round in 0..120 {
            let mut file = whole.clone();
            let start = data_of(&file);
            let at = start + random(file.len() - 2 - 64 - start);
            match round % 4 {
                0 => file[at..at + 64].fill_with(|| random(256) as u8),
                1 => file[at..at + 8].fill_with(|| random(256) as u8),
                2 => drop(file.drain(at..at + 1 + random(16))),
                _ => file[at] ^= 1 << random(8),
            }
            let warns = libjpeg_warns(&file);
            assert_judged(&file, warns, &format!("{name}, {round} at {at}"));
            warned += u32::from(warns);
        }
        assert!((30..110).contains(&warned), "{name}: {warned}");
    }
}

/// Inserts bytes before each marker that ends data of a scan.
fn padded(file: &[u8], padding: &[u8]) -> Vec<u8> {
    let (mut padded, mut in_data, mut at) = (Vec::new(), false, 0);
    while let Some(&[first, second]) = file.get(at..at + 2) {
        let len = match (first, second) {
            (0xff, 0x01..=0xfe) => {
                padded.extend_from_slice(if in_data { padding } else { &[] });
                in_data = matches!(second, 0xd0..=0xd7 | 0xda);
                match second {
                    0xd0..=0xd9 => 2,
                    _ => 2 + usize::from(u16::from_be_bytes([file[at + 2], file[at + 3]])),
                }
            }
            _ => 1,
        };
        padded.extend_from_slice(&file[at..at + len]);
        at += len;
    }
    padded.extend_from_slice(&file[at..]);
    padded
}

/// libjpeg decodes the same pixels from all of these files.
#[test]
fn a_few_padding_bytes_before_a_marker_are_no_damage() {
    let plain = with_restarts(1, 12);
    // Other markers than the end follow the data.
    let followed = |marker: &[u8]| [&plain[..plain.len() - 2], marker, b"\xff\xd9"].concat();
    let table = [b"\xff\xdb\0\x43\x03", &[1; 64][..]].concat();
    // From `cjpeg -restart 1`, with the options `-sample 4x1`, `-progressive`, `-arithmetic`, both, and one scan per
    // component.
    for (name, file) in [
        ("restarts", &with_restarts(19, 4)[..]),
        ("plain", &plain),
        ("comment", &followed(b"\xff\xfe\0\x05abc")),
        ("application", &followed(b"\xff\xe9\0\x05abc")),
        ("table", &followed(&table)),
        ("restart", &followed(b"\xff\xd0")),
        ("4:1:1", include_bytes!("../tests/padded/411.jpg")),
        (
            "progressive",
            include_bytes!("../tests/padded/progressive.jpg"),
        ),
        (
            "arithmetic",
            include_bytes!("../tests/padded/arithmetic.jpg"),
        ),
        (
            "arithmetic and progressive",
            include_bytes!("../tests/padded/arithmetic_progressive.jpg"),
        ),
        ("several scans", include_bytes!("../tests/padded/scans.jpg")),
    ] {
        let pixels = |file: &[u8]| libjpeg(file, 8, ColorSpace::JCS_RGB);
        let whole = pixels(file);
        for length in 1..=15 {
            // Fill bytes may precede any marker.
            let zeros = vec![0; length];
            for padding in [
                &zeros[..],
                &vec![0xff; length],
                &[&zeros[..], b"\xff\xff"].concat(),
            ] {
                let padded = padded(file, padding);
                assert_judged(&padded, false, &format!("{name}, {padding:?}"));
                assert!(pixels(&padded) == whole, "{name}, {padding:?}");
            }
        }
        for padding in [&[0; 40][..], &[7; 12]] {
            let padded = padded(file, padding);
            assert!(libjpeg_warns(&padded), "{name}, {padding:?}");
            assert_judged(&padded, true, name);
        }
    }
}

#[test]
fn restart_markers_out_of_order_are_damage_unless_numbered_by_a_rule() {
    let whole = with_restarts(11, 4);
    let markers: Vec<usize> = (data_of(&whole)..whole.len() - 2)
        .filter(|&at| whole[at] == 0xff && matches!(whole[at + 1], 0xd0..=0xd7))
        .collect();
    assert_eq!(markers.len(), 10);
    let numbered = |number: &dyn Fn(usize) -> usize| {
        let mut file = whole.clone();
        for (index, &at) in markers.iter().enumerate() {
            file[at + 1] = 0xd0 + (number(index) % 8) as u8;
        }
        file
    };
    let pixels = crate::resize_to_pixels(&whole, &ResizeSpec::full_size());
    // An encoder that counts from another number, or does not count.
    for file in [numbered(&|index| index + 3), numbered(&|_| 0)] {
        assert_judged(&file, false, "by a rule");
        assert_eq!(
            crate::resize_to_pixels(&file, &ResizeSpec::full_size()),
            pixels
        );
        let damage = crate::check(&file, &ResizeSpec::full_size())
            .unwrap()
            .damage
            .unwrap();
        assert!(
            damage.text.contains("no pixel is missing"),
            "{}",
            damage.text
        );
    }
    // Two intervals change places, an interval is lost, and one appears twice.
    let [a, b, c] = [markers[3], markers[4], markers[5]];
    let swapped = [&whole[..a], &whole[b..c], &whole[a..b], &whole[c..]].concat();
    let lost = [&whole[..a], &whole[b..]].concat();
    let twice = [&whole[..b], &whole[a..b], &whole[b..]].concat();
    for (what, file) in [("swapped", swapped), ("lost", lost), ("twice", twice)] {
        assert!(libjpeg_warns(&file), "{what}");
        assert_judged(&file, true, what);
    }
}

#[test]
fn a_jpeg_of_too_many_segments_is_refused_and_says_so() {
    let whole = with_restarts(2, 4);
    for marker in [0xe1, 0xe2, 0xfe] {
        let with = |count: usize| {
            let segment = [0xff, marker, 0, 2].repeat(count);
            [&whole[..2], &segment, &whole[2..]].concat()
        };
        // SOI excepted, the file itself has a few segments.
        assert_judged(&with(16_000), false, "16,000");
        let error = crate::check(&with(160_000), &ResizeSpec::full_size()).unwrap_err();
        assert!(!error.proves_damage(), "{error}");
        assert!(
            error.to_string().contains("more than 16384 segments"),
            "{error}"
        );
    }
}

#[test]
fn the_scale_is_the_smallest_that_leaves_twice_the_target() {
    let plan = |(width, height), (left, top, wide, high)| StoredPlan {
        width,
        height,
        region: Region {
            left,
            top,
            width: wide,
            height: high,
        },
        padding: Padding::default(),
    };
    let scale = |target, region, spec: &ResizeSpec| {
        let request = Request {
            spec,
            sizes: &[],
            animates: false,
            checks: false,
        };
        super::eighths(&[plan(target, region)], request)
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
        let usual = ResizeSpec::full_size();
        assert_eq!(
            scale(target, region, &usual),
            eighths,
            "{target:?} of {region:?}"
        );
        for (filter, linear) in [
            (Filter::Box, false),
            (Filter::Nearest, false),
            (Filter::Lanczos3, true),
        ] {
            let exact = ResizeSpec {
                filter,
                linear,
                ..usual
            };
            assert_eq!(scale(target, region, &exact), 8);
        }
    }
}
