//! Damaged pictures.

use crate::driver::{Case, Driver, Seed, bits_of};
use crate::heads::{USUAL, heads};
use crate::seeds::{mend_png, seeds};
use crate::targets::resize_input;

#[test]
fn pictures_truncated_at_every_byte() {
    Driver::new(resize_input).cut_at_every_byte(&seeds());
}

#[test]
fn pictures_with_bits_of_the_header_flipped() {
    let seeds = seeds();
    let mut driver = Driver::new(resize_input);
    driver.bits_flipped(&seeds);
    // Again, after the checksums.
    for (name, seed) in seeds.iter().filter(|(name, _)| name.starts_with("png")) {
        for (at, bit) in bits_of(&heads(seed)) {
            let mut spoilt = seed.clone();
            spoilt[at] ^= 1 << bit;
            mend_png(&mut spoilt);
            driver.case(Case::Mended(name, at, bit), &spoilt);
        }
    }
}

/// The flipped bits include the fields with the size of a picture, wherever the format keeps them.
#[test]
fn heads_contain_the_size_fields() {
    let mut formats = [0; 12];
    for (name, seed) in seeds() {
        let heads = heads(&seed);
        let usual = 0..USUAL;
        assert!(
            !heads.iter().all(|head| *head == usual),
            "{name} is not understood"
        );
        let head: Vec<_> = heads.iter().map(|head| &seed[head.clone()]).collect();
        let head = head.concat();
        // Grey and colour ones have this size; others are smaller.
        let (width, height) = match name {
            "jpeg cmyk" => (12u16, 10u16),
            "pnm plain" => (2, 1),
            "png palette" | "png interlaced" | "bmp runs" => (8, 8),
            "tiff tiles predicted" => (29, 21),
            _ => (20, 14),
        };
        let be = [u32::from(width), height.into()]
            .map(u32::to_be_bytes)
            .concat();
        let le = [u32::from(width), height.into()]
            .map(u32::to_le_bytes)
            .concat();
        let short = [width, height].map(u16::to_le_bytes).concat();
        let (format, sides) = match seed[0] {
            0xff => (0, [height, width].map(u16::to_be_bytes).concat()),
            0x89 => (1, be),
            b'R' if name == "webp lossless" => {
                // 14 bits each, after the mark.
                let bits = u32::from(width - 1) | u32::from(height - 1) << 14 | 1 << 28;
                (2, bits.to_le_bytes().to_vec())
            }
            b'R' => (2, short),
            b'G' => (3, [&[0x2c, 0, 0, 0, 0], &short[..]].concat()),
            // A single LONG; the height is the next entry.
            b'I' => (4, [&[0, 1, 4, 0, 1, 0, 0, 0], &le[..4], &[1, 1]].concat()),
            b'P' if name == "pnm plain" => (7, format!("{width} {height}").into_bytes()),
            b'P' => (7, format!("WIDTH {width}\nHEIGHT {height}\n").into_bytes()),
            b'q' => (8, be),
            0 if name == "tga" => (9, short),
            0 if name == "ico" => (10, be),
            // The place of the preview.
            0 if name == "raw boxes" => (6, b"co64\0\0\0\0\0\0\0\x01".to_vec()),
            b'F' => (11, 100u32.to_be_bytes().to_vec()),
            // A box with the size of each picture in the file, which has several.
            0 => (6, b"ispe\0\0\0\0".to_vec()),
            _ => (5, le),
        };
        let found = head.windows(sides.len()).any(|window| window == sides);
        assert!(found, "{name}: {sides:x?} in {heads:?}");
        formats[format] += 1;
    }
    assert!(formats.iter().all(|&count| count > 0), "{formats:?}");
}

/// The small files of other writers among the tests of `arenite-image`.
fn kept() -> Vec<Seed> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../image/src/tests/pictures");
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    let files = entries.filter_map(|entry| {
        let name = entry.file_name().into_string().unwrap();
        let is_seed = entry.metadata().unwrap().len() < 8 << 10 && name.matches('.').count() == 1;
        is_seed.then(|| (&*name.leak(), std::fs::read(entry.path()).unwrap()))
    });
    files.collect()
}

#[test]
fn pictures_in_a_random_stretch() {
    let mut seeds = seeds();
    if let Ok(only) = std::env::var("ARENITE_FUZZ_ONLY") {
        seeds.extend(kept());
        seeds.retain(|(name, _)| only.split(',').any(|word| name.starts_with(word)));
    }
    Driver::new(resize_input).random_stretch(5_000, &seeds, mend_png);
}

#[test]
fn seeds_are_pictures() {
    let reads_heic = arenite_image::heic_decoder().is_ok();
    for (name, seed) in seeds() {
        if name.starts_with("heic") && !reads_heic {
            continue;
        }
        let spec = arenite_image::ResizeSpec::new("16".parse().unwrap());
        if let Err(error) = arenite_image::resize_encoded(&seed, &spec) {
            panic!("{name}: {error}");
        }
    }
}
