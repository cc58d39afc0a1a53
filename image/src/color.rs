//! Colour conversion: YCbCr to RGB, profiles and inks to sRGB.
//!
//! Pixels are converted after resizing, when they are few. Each thread caches the transform of its last profile: photos
//! of a folder mostly share one.

use std::cell::RefCell;
use std::sync::Arc;

use moxcms::{
    CicpProfile, ColorProfile, DataColorSpace, Layout, MatrixCoefficients, TransferCharacteristics,
    Transform8BitExecutor, Transform16BitExecutor, TransformOptions,
};

use super::pixels::{Color, Pixels, Samples};

/// The transforms of a profile; one is `None` if moxcms could not make it.
#[derive(Clone)]
struct Converter {
    /// Channels of the profile, without alpha.
    channels: usize,
    /// Whether it changes no colour visibly: most photos are sRGB.
    is_identity: bool,
    eight: Option<Arc<Transform8BitExecutor>>,
    sixteen: Option<Arc<Transform16BitExecutor>>,
}

struct Cached {
    icc: Vec<u8>,
    color: Color,
    converter: Option<Converter>,
}

thread_local! {
    static LAST: RefCell<Option<Cached>> = const { RefCell::new(None) };
}

/// Converts pixels to sRGB by their profile. Without a profile of their colour model they count as sRGB. Grey stays
/// grey, and YCbCr stays YCbCr if there is nothing to convert. Inks always become RGB; without a profile, by
/// multiplication.
pub(super) fn to_srgb(pixels: Pixels, icc: Option<&[u8]>) -> Pixels {
    let color = match pixels.color {
        Color::YCbCr => Color::Rgb,
        color => color,
    };
    let converter = icc.and_then(|icc| converter_for(icc, color));
    match converter {
        Some(converter) if converter.is_identity => pixels,
        Some(converter) => converted(without_ycbcr(pixels), &converter),
        None => inks_multiplied(pixels),
    }
}

/// Converts CIE L*a*b*, whose white is that of sRGB, to sRGB.
pub(super) fn from_lab([level, a, b]: [f32; 3]) -> [u8; 3] {
    const WHITE: [f32; 3] = [0.950_47, 1.0, 1.088_83];
    let y = (level + 16.0) / 116.0;
    let cube = |root: f32| match root > 6.0 / 29.0 {
        true => root * root * root,
        false => (root - 4.0 / 29.0) * 108.0 / 841.0,
    };
    let [x, y, z] = [y + a / 500.0, y, y - b / 200.0].map(cube);
    let [x, y, z] = [x * WHITE[0], y * WHITE[1], z * WHITE[2]];
    let linear = [
        3.240_454 * x - 1.537_138 * y - 0.498_531 * z,
        -0.969_266 * x + 1.876_011 * y + 0.041_556 * z,
        0.055_643 * x - 0.204_026 * y + 1.057_225 * z,
    ];
    linear.map(|part| {
        let part = part.clamp(0.0, 1.0);
        let encoded = match part <= 0.003_130_8 {
            true => 12.92 * part,
            false => 1.055 * part.powf(1.0 / 2.4) - 0.055,
        };
        (encoded * 255.0).round() as u8
    })
}

/// The samples of a pixel that shows this background: transparent where there is alpha.
pub(super) fn background_of(color: Color, [r, g, b]: [u8; 3]) -> Vec<u8> {
    let (red, green, blue) = (f32::from(r), f32::from(g), f32::from(b));
    let luma = (0.299 * red + 0.587 * green + 0.114 * blue).round() as u8;
    match color {
        Color::Gray => vec![luma],
        Color::GrayAlpha => vec![luma, 0],
        Color::Rgb => vec![r, g, b],
        Color::Rgba => vec![r, g, b, 0],
        Color::Cmyk => vec![!r, !g, !b, 0],
        Color::YCbCr => {
            let difference = |other: f32, scale: f32| 128.0 + (other - f32::from(luma)) / scale;
            vec![
                luma,
                difference(blue, 1.772).round() as u8,
                difference(red, 1.402).round() as u8,
            ]
        }
    }
}

/// Whether a profile is for pixels of this colour model, by the colour space in its header.
pub(super) fn is_profile_of(icc: &[u8], color: Color) -> bool {
    match icc.get(16..20) {
        Some(b"GRAY") => matches!(color, Color::Gray | Color::GrayAlpha),
        Some(b"RGB ") => matches!(color, Color::Rgb | Color::Rgba | Color::YCbCr),
        Some(b"CMYK") => color == Color::Cmyk,
        _ => false,
    }
}

/// The profile of code points (H.273). Not those of HDR, which need tone mapping.
pub(super) fn from_code_points(primaries: u8, transfer: u8) -> Option<ColorProfile> {
    let curve = TransferCharacteristics::try_from(transfer).ok()?;
    let is_hdr = matches!(
        curve,
        TransferCharacteristics::Smpte2084 | TransferCharacteristics::Hlg
    );
    if is_hdr {
        return None;
    }
    let mut profile = ColorProfile::new_srgb();
    // Set by the update, which also returns `false` when it has worked.
    profile.red_trc = None;
    let _ = profile.update_rgb_colorimetry_from_cicp(CicpProfile {
        color_primaries: primaries.try_into().ok()?,
        transfer_characteristics: curve,
        matrix_coefficients: MatrixCoefficients::Identity,
        full_range: true,
    });
    profile.red_trc.is_some().then_some(profile)
}

/// The bytes of the profile of code points, of which those that are not specified are those of sRGB; `None` is sRGB.
pub(super) fn profile_of_code_points(
    primaries: u8,
    transfer: u8,
    is_grey: bool,
) -> Option<Vec<u8>> {
    const UNSPECIFIED: u8 = 2;
    /// BT.709 with the curve of sRGB.
    const SRGB: (u8, u8) = (1, 13);
    let or = |number, default| {
        if number == UNSPECIFIED {
            default
        } else {
            number
        }
    };
    let points = (or(primaries, SRGB.0), or(transfer, SRGB.1));
    match points {
        SRGB => None,
        (primaries, transfer) => encoded(from_code_points(primaries, transfer)?, is_grey),
    }
}

/// The bytes of a profile; for grey, of one with its curve.
pub(super) fn encoded(mut profile: ColorProfile, is_grey: bool) -> Option<Vec<u8>> {
    profile.cicp = None;
    if is_grey {
        let curve = profile.red_trc;
        profile = ColorProfile::new_gray_with_gamma(1.0);
        profile.gray_trc = curve;
    }
    profile.encode().ok()
}

fn converter_for(icc: &[u8], color: Color) -> Option<Converter> {
    LAST.with_borrow_mut(|last| {
        match last {
            Some(cached) if cached.color == color && cached.icc == icc => {}
            _ => {
                *last = Some(Cached {
                    icc: icc.to_vec(),
                    color,
                    converter: Converter::new(icc, color),
                });
            }
        }
        last.as_ref().and_then(|cached| cached.converter.clone())
    })
}

impl Converter {
    /// `None` if the profile cannot be read or is for another colour model.
    fn new(icc: &[u8], color: Color) -> Option<Self> {
        let profile = ColorProfile::new_from_slice(icc).ok()?;
        let (channels, from) = match (profile.color_space, color) {
            (DataColorSpace::Rgb, Color::Rgb) => (3, Layout::Rgb),
            (DataColorSpace::Rgb, Color::Rgba) => (3, Layout::Rgba),
            (DataColorSpace::Gray, Color::Gray) => (1, Layout::Gray),
            (DataColorSpace::Gray, Color::GrayAlpha) => (1, Layout::GrayAlpha),
            // moxcms takes the four channels of CMYK as if they were RGBA.
            (DataColorSpace::Cmyk, Color::Cmyk) => (4, Layout::Rgba),
            _ => return None,
        };
        let into = if color.has_alpha() {
            Layout::Rgba
        } else {
            Layout::Rgb
        };
        let srgb = ColorProfile::new_srgb();
        let options = TransformOptions::default();
        let eight = profile
            .create_transform_8bit(from, &srgb, into, options)
            .ok();
        let sixteen = profile
            .create_transform_16bit(from, &srgb, into, options)
            .ok();
        if eight.is_none() && sixteen.is_none() {
            return None;
        }
        let mut converter = Self {
            channels,
            is_identity: false,
            eight,
            sixteen,
        };
        converter.is_identity = color != Color::Cmyk && converter.changes_at_most_one_step(color);
        Some(converter)
    }

    /// Tries a coarse grid of colours: a difference of one step of 256 is rounding.
    fn changes_at_most_one_step(&self, color: Color) -> bool {
        const STEPS: [u8; 6] = [0, 51, 102, 153, 204, 255];
        let mut probe = Vec::new();
        for (r, g, b) in STEPS
            .iter()
            .flat_map(|&r| STEPS.iter().flat_map(move |&g| STEPS.map(|b| (r, g, b))))
        {
            match color {
                Color::Gray => probe.push(r),
                Color::GrayAlpha => probe.extend([r, 255]),
                Color::Rgba => probe.extend([r, g, b, 255]),
                _ => probe.extend([r, g, b]),
            }
        }
        let pixels = Pixels {
            width: (probe.len() / color.channels()) as u32,
            height: 1,
            color,
            samples: Samples::Eight(probe.clone()),
        };
        match converted(pixels, self).samples {
            Samples::Eight(after) => probe.iter().zip(&after).all(|(a, b)| a.abs_diff(*b) <= 1),
            Samples::Sixteen(_) => false,
        }
    }
}

/// Applies a converter of the pixels' colour model; pixels of a depth without a transform stay as they are.
fn converted(pixels: Pixels, converter: &Converter) -> Pixels {
    let alpha = pixels.color.has_alpha();
    let color = match (converter.channels, alpha) {
        (1, false) => Color::Gray,
        (1, true) => Color::GrayAlpha,
        (_, false) => Color::Rgb,
        (_, true) => Color::Rgba,
    };
    let count = pixels.width as usize * pixels.height as usize;
    let width = if alpha { 4 } else { 3 };
    let samples = match &pixels.samples {
        Samples::Eight(samples) => {
            let mut out = vec![0; count * width];
            match &converter.eight {
                Some(transform) if transform.transform(samples, &mut out).is_ok() => {
                    Samples::Eight(back_to_grey(out, color, width))
                }
                _ => return inks_multiplied(pixels),
            }
        }
        Samples::Sixteen(samples) => {
            let mut out = vec![0; count * width];
            match &converter.sixteen {
                Some(transform) if transform.transform(samples, &mut out).is_ok() => {
                    Samples::Sixteen(back_to_grey(out, color, width))
                }
                _ => return inks_multiplied(pixels),
            }
        }
    };
    Pixels {
        color,
        samples,
        ..pixels
    }
}

/// Keeps one of the three equal channels that the transform yields for grey.
fn back_to_grey<T: Copy>(samples: Vec<T>, color: Color, width: usize) -> Vec<T> {
    match color {
        Color::Gray => samples.chunks_exact(width).map(|p| p[0]).collect(),
        Color::GrayAlpha => samples
            .chunks_exact(width)
            .flat_map(|p| [p[0], p[3]])
            .collect(),
        _ => samples,
    }
}

/// Converts 8-bit YCbCr to RGB, in libjpeg's arithmetic (jdcolor.c). Other pixels stay as they are.
pub(super) fn without_ycbcr(mut pixels: Pixels) -> Pixels {
    if pixels.color == Color::YCbCr
        && let Samples::Eight(samples) = &mut pixels.samples
    {
        for pixel in samples.as_chunks_mut::<3>().0 {
            *pixel = rgb(*pixel);
        }
        pixels.color = Color::Rgb;
    }
    pixels
}

/// Converts 8-bit YCbCr to RGB.
#[inline]
pub(super) fn rgb([luma, blue, red]: [u8; 3]) -> [u8; 3] {
    const HALF: i32 = 1 << 15;
    let (luma, blue, red) = (i32::from(luma), i32::from(blue) - 128, i32::from(red) - 128);
    let r = luma + ((91_881 * red + HALF) >> 16);
    let g = luma + ((-22_554 * blue - 46_802 * red + HALF) >> 16);
    let b = luma + ((116_130 * blue + HALF) >> 16);
    // Not `[r, g, b].map(…)`: the compiler does not inline it here.
    [clamped(r), clamped(g), clamped(b)]
}

#[inline]
fn clamped(sample: i32) -> u8 {
    sample.clamp(0, 255) as u8
}

/// Converts inks without a profile: each ink absorbs its share of the light that black leaves. Other pixels stay as
/// they are.
fn inks_multiplied(pixels: Pixels) -> Pixels {
    if pixels.color != Color::Cmyk {
        return pixels;
    }
    let samples = match &pixels.samples {
        Samples::Eight(samples) => Samples::Eight(multiplied(samples, |ink, black| {
            let (ink, black) = (255 - u32::from(ink), 255 - u32::from(black));
            ((ink * black + 127) / 255) as u8
        })),
        Samples::Sixteen(samples) => Samples::Sixteen(multiplied(samples, |ink, black| {
            let (ink, black) = (65_535 - u64::from(ink), 65_535 - u64::from(black));
            ((ink * black + 32_767) / 65_535) as u16
        })),
    };
    Pixels {
        color: Color::Rgb,
        samples,
        ..pixels
    }
}

fn multiplied<T: Copy>(inks: &[T], light: impl Fn(T, T) -> T) -> Vec<T> {
    let pixels = inks.chunks_exact(4);
    pixels
        .flat_map(|p| [light(p[0], p[3]), light(p[1], p[3]), light(p[2], p[3])])
        .collect()
}
