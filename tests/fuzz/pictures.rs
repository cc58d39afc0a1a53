//! Pictures, spoilt.

use crate::driver::Driver;
use crate::seeds::{mend_png, seeds};
use crate::targets::resize_input;

#[test]
fn pictures_cut_at_every_byte() {
    Driver::new(resize_input).cut_at_every_byte(&seeds());
}

#[test]
fn pictures_with_each_bit_of_the_header_flipped() {
    let seeds = seeds();
    let mut driver = Driver::new(resize_input);
    driver.each_bit_flipped(&seeds);
    // Once more behind the checksums.
    for (name, seed) in seeds.iter().filter(|(name, _)| name.starts_with("png")) {
        for bit in 0..seed.len().min(120) * 8 {
            let mut spoilt = seed.clone();
            spoilt[bit / 8] ^= 1 << (bit % 8);
            mend_png(&mut spoilt);
            driver.case(
                || format!("{name} with bit {bit} flipped and mended"),
                &spoilt,
            );
        }
    }
}

#[test]
fn pictures_in_a_random_stretch() {
    Driver::new(resize_input).random_stretch(&seeds(), mend_png);
}

#[test]
fn seeds_are_pictures() {
    for (name, seed) in seeds() {
        let spec = arenite::image::ResizeSpec::new("16".parse().unwrap());
        if let Err(error) = arenite::image::resize_encoded(&seed, &spec) {
            panic!("{name}: {error}");
        }
    }
}
