//! High dynamic range: pixels coded by PQ or HLG (ITU-R BT.2100) are converted for a display whose white has 203 nits.
//!
//! The curve is that of ITU-R BT.2390 (section 5.4), from a display of 1000 nits to a display of 203 nits, the white of
//! graphics in BT.2408. Up to 93 nits it changes nothing. It is applied to the brightest channel of a pixel, so that
//! hues do not change.

use super::pixels::{Color, Pixels, Samples};

/// The light, in nits, that is shown as [`WHITE`]. Brighter light is shown as `WHITE`, too.
const PEAK: f32 = 1000.0;
/// The light, in nits, of the display's white.
const WHITE: f32 = 203.0;
/// The weight of each channel in luminance, with the primaries of BT.2020.
const LUMINANCE: [f32; 3] = [0.2627, 0.6780, 0.0593];

/// The coding of pixels of high dynamic range: the primaries by their number in H.273, and the curve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hdr {
    pub(super) primaries: u8,
    curve: Curve,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Curve {
    Pq = 16,
    Hlg = 18,
}

impl Hdr {
    /// Returns the coding for code points; `None` if the curve is neither PQ nor HLG.
    pub(super) const fn of_code_points(primaries: u8, transfer: u8) -> Option<Self> {
        let curve = match transfer {
            16 => Curve::Pq,
            18 => Curve::Hlg,
            _ => return None,
        };
        Some(Self { primaries, curve })
    }

    /// Returns the number of the curve in H.273.
    pub(super) const fn transfer(self) -> u8 {
        self.curve as u8
    }

    /// Converts the pixels to the curve of sRGB, with the same primaries. They must be grey or RGB.
    pub(super) fn tone_mapped(self, mut pixels: Pixels) -> Pixels {
        let color = pixels.color;
        match &mut pixels.samples {
            Samples::Eight(samples) => self.map(samples, color, |sample| sample as u8),
            Samples::Sixteen(samples) => self.map(samples, color, |sample| sample as u16),
        }
        pixels
    }

    fn map<T: Copy + Into<u32>>(self, samples: &mut [T], color: Color, narrow: fn(f32) -> T) {
        let most = (1 << (8 * size_of::<T>())) - 1;
        let full = most as f32;
        let light: Vec<f32> = (0..=most)
            .map(|code| self.light(code as f32 / full))
            .collect();
        let colors = color.channels() - usize::from(color.has_alpha());
        for pixel in samples.chunks_exact_mut(color.channels()) {
            let colors = &mut pixel[..colors];
            let mut nits = [0.0; 3];
            for (nits, &mut code) in nits.iter_mut().zip(&mut *colors) {
                *nits = light[code.into() as usize];
            }
            if self.curve == Curve::Hlg {
                // The system gamma of a display of 1000 nits.
                let luminance = match colors.len() {
                    1 => nits[0],
                    _ => nits
                        .iter()
                        .zip(LUMINANCE)
                        .map(|(light, part)| light * part)
                        .sum(),
                };
                let scale = PEAK * luminance.powf(0.2);
                nits = nits.map(|light| light * scale);
            }
            let brightest = nits.into_iter().fold(0.0, f32::max);
            let scale = match brightest > 0.0 {
                true => shown(brightest) / brightest / WHITE,
                false => 0.0,
            };
            for (color, nits) in colors.iter_mut().zip(nits) {
                *color = narrow((srgb(nits * scale) * full).round());
            }
        }
    }

    /// Returns the light of a code between 0 and 1: in nits for PQ, relative to the scene for HLG.
    fn light(self, code: f32) -> f32 {
        match self.curve {
            Curve::Pq => from_pq(code),
            Curve::Hlg => {
                const A: f32 = 0.178_832_77;
                const B: f32 = 0.284_668_92;
                const C: f32 = 0.559_910_7;
                match code <= 0.5 {
                    true => code * code / 3.0,
                    false => (((code - C) / A).exp() + B) / 12.0,
                }
            }
        }
    }
}

/// Returns the light, in nits, that a display of 203 nits shows for this light.
fn shown(nits: f32) -> f32 {
    let peak = to_pq(PEAK);
    let (code, most) = ((to_pq(nits) / peak).min(1.0), to_pq(WHITE) / peak);
    let knee = 1.5 * most - 0.5;
    if code < knee {
        return nits;
    }
    let t = (code - knee) / (1.0 - knee);
    let (square, cube) = (t * t, t * t * t);
    let code = (2.0 * cube - 3.0 * square + 1.0) * knee
        + (cube - 2.0 * square + t) * (1.0 - knee)
        + (3.0 * square - 2.0 * cube) * most;
    from_pq(code * peak).min(WHITE)
}

const M1: f32 = 2610.0 / 16_384.0;
const M2: f32 = 2523.0 / 32.0;
const C1: f32 = 3424.0 / 4096.0;
const C2: f32 = 2413.0 / 128.0;
const C3: f32 = 2392.0 / 128.0;

fn from_pq(code: f32) -> f32 {
    let root = code.powf(1.0 / M2);
    10_000.0 * ((root - C1).max(0.0) / (C2 - C3 * root)).powf(1.0 / M1)
}

fn to_pq(nits: f32) -> f32 {
    let power = (nits / 10_000.0).powf(M1);
    ((C1 + C2 * power) / (1.0 + C3 * power)).powf(M2)
}

fn srgb(light: f32) -> f32 {
    match light.min(1.0) {
        dark @ ..=0.003_130_8 => 12.92 * dark,
        light => 1.055 * light.powf(1.0 / 2.4) - 0.055,
    }
}
