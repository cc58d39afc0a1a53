//! Resizing in linear light: averages light instead of stored numbers, which are roughly the logarithm of light. A fine
//! pattern of black and white becomes the grey that it looks like from afar.

use std::sync::LazyLock;

use super::error::ImageError;
use super::pixels::{Color, Pixels, Samples, buffer, narrow};
use super::resample;
use super::spec::ResizeSpec;

/// The light of each 8-bit sample, 0 to 65,535, by the curve of sRGB.
static LIGHT_OF_EIGHT: LazyLock<Vec<u16>> = LazyLock::new(|| table(1 << 8, light));
/// The light of each 16-bit sample.
static LIGHT_OF_SIXTEEN: LazyLock<Vec<u16>> = LazyLock::new(|| table(1 << 16, light));
/// The 16-bit sample of each amount of light.
static SAMPLE_OF_LIGHT: LazyLock<Vec<u16>> = LazyLock::new(|| table(1 << 16, sample));

/// Returns a table with the values of `value` at `len` points from 0 to 1. The results of `value` are from 0 to 1, too.
fn table(len: usize, value: fn(f64) -> f64) -> Vec<u16> {
    let last = (len - 1) as f64;
    let at = |index| (value(index as f64 / last) * 65_535.0).round() as u16;
    (0..len).map(at).collect()
}

fn light(sample: f64) -> f64 {
    match sample <= 0.040_45 {
        true => sample / 12.92,
        false => ((sample + 0.055) / 1.055).powf(2.4),
    }
}

fn sample(light: f64) -> f64 {
    match light <= 0.003_130_8 {
        true => light * 12.92,
        false => 1.055 * light.powf(1.0 / 2.4) - 0.055,
    }
}

/// Converts samples of grey or RGB, with or without alpha, to light. The samples count as sRGB. Needs two more bytes of
/// memory per sample of the source.
pub(super) fn to_light(pixels: Pixels, max_bytes: u64) -> Result<Pixels, ImageError> {
    let color = pixels.color;
    let samples = match pixels.samples {
        Samples::Eight(samples) => {
            let (bytes, limit) = (
                2 * samples.len() as u64,
                max_bytes.max(ResizeSpec::HARMLESS),
            );
            if bytes > limit {
                return Err(ImageError::TooManyBytes { bytes, limit });
            }
            let mut out = buffer(samples.len())?;
            let table = &*LIGHT_OF_EIGHT;
            for (lit, &sample) in out.iter_mut().zip(&samples) {
                *lit = table[usize::from(sample)];
            }
            set_alpha(color, &mut out, |at| u16::from(samples[at]) * 257);
            resample::keep_buffer(samples);
            out
        }
        Samples::Sixteen(mut samples) => {
            convert(color, &mut samples, &LIGHT_OF_SIXTEEN);
            samples
        }
    };
    Ok(Pixels {
        samples: Samples::Sixteen(samples),
        ..pixels
    })
}

/// Converts resized light to samples, rounded to 8 bits if the picture had 8.
pub(super) fn from_light(mut pixels: Pixels, is_eight: bool) -> Pixels {
    if let Samples::Sixteen(samples) = &mut pixels.samples {
        convert(pixels.color, samples, &SAMPLE_OF_LIGHT);
        if is_eight {
            let samples = samples.iter().map(|&sample| narrow(sample)).collect();
            pixels.samples = Samples::Eight(samples);
        }
    }
    pixels
}

/// Sets each sample of alpha to `value` of the sample's index.
fn set_alpha(color: Color, samples: &mut [u16], value: impl Fn(usize) -> u16) {
    if color.has_alpha() {
        let channels = color.channels();
        for at in (channels - 1..samples.len()).step_by(channels) {
            samples[at] = value(at);
        }
    }
}

/// Converts all samples except alpha.
fn convert(color: Color, samples: &mut [u16], table: &[u16]) {
    let channels = color.channels();
    let colors = channels - usize::from(color.has_alpha());
    for pixel in samples.chunks_exact_mut(channels) {
        for sample in &mut pixel[..colors] {
            *sample = table[usize::from(*sample)];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grey(samples: Samples) -> Pixels {
        Pixels {
            width: 256,
            height: 1,
            color: Color::Gray,
            samples,
        }
    }

    #[test]
    fn each_sample_survives_the_way_to_light_and_back() {
        let all: Vec<u8> = (0..=255).collect();
        let lit = to_light(grey(Samples::Eight(all.clone())), 0);
        assert_eq!(
            lit.map(|lit| from_light(lit, true).samples),
            Ok(Samples::Eight(all))
        );
        // Steps of light are coarser than those of dark samples.
        for sample in (0..=65_535).step_by(13) {
            let back = SAMPLE_OF_LIGHT[usize::from(LIGHT_OF_SIXTEEN[sample])];
            assert!(usize::from(back).abs_diff(sample) <= 7, "{sample} {back}");
        }
    }
}
