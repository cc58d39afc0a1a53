//! Colour conversion: YCbCr to RGB, profiles and inks to sRGB.
//!
//! Pixels are converted after resizing, when there are few. Each thread caches the transform of its last profile:
//! photos in a folder mostly share one profile. moxcms makes the transform, or Little CMS for the kinds of profile that
//! moxcms rejects or misreads: grey with L*a*b* or with tables, tables of unequal sides or to XYZ, L*a*b* in another
//! coding than the version suggests or without a table, headers of old and new versions.

use std::cell::RefCell;
use std::ops::Range;
use std::panic::catch_unwind;
use std::rc::Rc;

use lcms2::{Flags, Intent, PixelFormat, Profile, Transform as LcmsTransform};
use moxcms::{
    CicpProfile, ColorProfile, DataColorSpace, Layout, LocalizableString, LutType, LutWarehouse,
    MatrixCoefficients, ProfileText, ProfileVersion, TransferCharacteristics, TransformExecutor,
    TransformOptions, Xyzd,
};

use super::hdr::Hdr;
use super::pixels::{Color, Pixels, Samples};

/// Converts samples to sRGB. Returns whether it succeeded.
type Transform<T> = Rc<dyn Fn(&[T], &mut [T]) -> bool>;

/// The transforms of a profile.
#[derive(Clone)]
struct Converter {
    /// Whether the conversion changes no colour visibly: most photos are sRGB.
    is_identity: bool,
    /// Whether the results are grey. Some profiles for grey add a tint.
    is_grey: bool,
    eight: Transform<u8>,
    sixteen: Transform<u16>,
}

struct Cached {
    icc: Vec<u8>,
    color: Color,
    converter: Option<Converter>,
}

thread_local! {
    static LAST: RefCell<Option<Cached>> = const { RefCell::new(None) };
}

/// Converts pixels to sRGB by their profile. If there is no profile that can be applied, the pixels count as sRGB. Grey
/// stays grey unless the profile tints it, and YCbCr stays YCbCr if there is nothing to convert. Inks always become
/// RGB; without a profile, by multiplication.
pub(super) fn to_srgb(pixels: Pixels, icc: Option<&[u8]>) -> Pixels {
    let converter = icc.and_then(|icc| converter_for(icc, pixels.color));
    match converter {
        Some(converter) if converter.is_identity => pixels,
        Some(converter) => converted(without_ycbcr(pixels), &converter),
        None => inks_multiplied(pixels),
    }
}

/// Returns the reason why a profile cannot be applied to pixels of this colour model, if any. A profile for RGB can be
/// applied to grey.
pub(super) fn fault_of_profile(icc: &[u8], color: Color) -> Option<String> {
    if converter_for(icc, color).is_some() {
        return None;
    }
    let others = [Color::Gray, Color::Rgb, Color::Cmyk];
    let is_other = others.iter().any(|&other| is_profile_of(icc, other));
    Some(match is_other && !is_profile_of(icc, color) {
        true => {
            "its colour profile is for other colours than it has, and is not applied".to_owned()
        }
        false => "its colour profile cannot be read, and is not applied".to_owned(),
    })
}

/// A white point of CIE L*a*b*, and the matrix from XYZ beneath that white to linear sRGB.
pub(super) struct White([f32; 3], [[f32; 3]; 3]);

/// The white of sRGB.
pub(super) const D65: White = White(
    [0.950_47, 1.0, 1.088_83],
    [
        [3.240_454, -1.537_138, -0.498_531],
        [-0.969_266, 1.876_011, 0.041_556],
        [0.055_643, -0.204_026, 1.057_225],
    ],
);

/// The white of colour profiles, adapted to that of sRGB by the Bradford matrix.
pub(super) const D50: White = White(
    [0.964_22, 1.0, 0.825_21],
    [
        [3.133_856, -1.616_867, -0.490_615],
        [-0.978_768, 1.916_142, 0.033_454],
        [0.071_945, -0.228_991, 1.405_243],
    ],
);

/// Converts CIE L*a*b* to sRGB.
pub(super) fn from_lab([level, a, b]: [f32; 3], White(white, matrix): &White) -> [u8; 3] {
    let y = (level + 16.0) / 116.0;
    let cube = |root: f32| match root > 6.0 / 29.0 {
        true => root * root * root,
        false => (root - 4.0 / 29.0) * 108.0 / 841.0,
    };
    let [x, y, z] = [y + a / 500.0, y, y - b / 200.0].map(cube);
    let [x, y, z] = [x * white[0], y * white[1], z * white[2]];
    matrix.map(|[of_x, of_y, of_z]| {
        let part = (of_x * x + of_y * y + of_z * z).clamp(0.0, 1.0);
        let encoded = match part <= 0.003_130_8 {
            true => 12.92 * part,
            false => 1.055 * part.powf(1.0 / 2.4) - 0.055,
        };
        (encoded * 255.0).round() as u8
    })
}

/// Returns the samples of a pixel in this background colour, which is transparent if the colour model has alpha.
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

/// Returns whether a profile is for pixels of this colour model, according to the colour space in its header.
pub(super) fn is_profile_of(icc: &[u8], color: Color) -> bool {
    match icc.get(16..20) {
        Some(b"GRAY") => matches!(color, Color::Gray | Color::GrayAlpha),
        Some(b"RGB ") => matches!(color, Color::Rgb | Color::Rgba | Color::YCbCr),
        Some(b"CMYK") => color == Color::Cmyk,
        _ => false,
    }
}

/// The offset of the number of tags in a profile. The entries of the tags follow.
const TAGS: usize = 128;
/// The number of bytes of an entry: the name of the tag, its offset and its length.
const ENTRY: usize = 12;

/// Returns the HDR coding of pixels with this colour model, if their profile has code points for it (tag `cicp`, full
/// range). Curves and tables in such a profile contain another program's tone mapping.
pub(super) fn hdr_of_profile(icc: &[u8], color: Color) -> Option<Hdr> {
    let word = |at: usize| Some(u32::from_be_bytes(*icc.get(at..)?.first_chunk()?));
    if !is_profile_of(icc, color) {
        return None;
    }
    let count = (word(TAGS)? as usize).min(icc.len() / ENTRY);
    let mut entries = (0..count).map(|number| TAGS + 4 + number * ENTRY);
    let entry = entries.find(|&at| word(at) == Some(u32::from_be_bytes(*b"cicp")))?;
    let tag = icc.get(word(entry + 4)? as usize..)?;
    match *tag.first_chunk::<12>()? {
        [
            b'c',
            b'i',
            b'c',
            b'p',
            _,
            _,
            _,
            _,
            primaries,
            transfer,
            0,
            1,
        ] => Hdr::of_code_points(primaries, transfer),
        _ => None,
    }
}

/// The number of the curve of sRGB in H.273.
pub(super) const CURVE_OF_SRGB: u8 = 13;

/// Returns the primaries and the curve by which pixels are displayed. BT.709, BT.601 and BT.2020 define the curve of a
/// camera, and pixels that name it are displayed as those of sRGB, unchanged: by browsers (`GetTransferFunction` of
/// Chromium's color_space.cc) and by all programs that ignore the numbers. With that curve, the primaries of BT.601 are
/// a default of encoders for video, and count as those of BT.709, which are close.
const fn displayed(primaries: u8, transfer: u8) -> (u8, u8) {
    match (primaries, transfer) {
        (5..=7, 1 | 6 | 14 | 15) => (1, CURVE_OF_SRGB),
        (primaries, 1 | 6 | 14 | 15) => (primaries, CURVE_OF_SRGB),
        other => other,
    }
}

/// Returns the profile for code points (H.273). `None` for HDR, which needs tone mapping.
pub(super) fn from_code_points(primaries: u8, transfer: u8) -> Option<ColorProfile> {
    let (primaries, transfer) = displayed(primaries, transfer);
    let curve = TransferCharacteristics::try_from(transfer).ok()?;
    let is_hdr = matches!(
        curve,
        TransferCharacteristics::Smpte2084 | TransferCharacteristics::Hlg
    );
    if is_hdr {
        return None;
    }
    let mut profile = ColorProfile::new_srgb();
    // The update sets the curves. Its result is ignored: it may be `false` after a success.
    profile.red_trc = None;
    let _ = profile.update_rgb_colorimetry_from_cicp(CicpProfile {
        color_primaries: primaries.try_into().ok()?,
        transfer_characteristics: curve,
        matrix_coefficients: MatrixCoefficients::Identity,
        full_range: true,
    });
    profile.red_trc.is_some().then_some(profile)
}

/// Returns the bytes of the profile for code points. Unspecified code points count as those of sRGB. `None` for sRGB.
pub(super) fn profile_of_code_points(
    primaries: u8,
    transfer: u8,
    is_grey: bool,
) -> Option<Vec<u8>> {
    const UNSPECIFIED: u8 = 2;
    /// BT.709 with the curve of sRGB.
    const SRGB: (u8, u8) = (1, CURVE_OF_SRGB);
    let or = |number, default| {
        if number == UNSPECIFIED {
            default
        } else {
            number
        }
    };
    let points = displayed(or(primaries, SRGB.0), or(transfer, SRGB.1));
    match points {
        SRGB => None,
        (primaries, transfer) => {
            let profile = from_code_points(primaries, transfer)?;
            encoded(profile, &name_of(primaries, transfer), is_grey)
        }
    }
}

/// Returns the profile of light with the primaries of sRGB.
pub(super) fn linear_profile() -> Option<Vec<u8>> {
    const PRIMARIES_OF_SRGB: u8 = 1;
    const LINEAR: u8 = 8;
    profile_of_code_points(PRIMARIES_OF_SRGB, LINEAR, false)
}

/// Returns the common name of the colours of code points.
pub(super) fn name_of(primaries: u8, transfer: u8) -> String {
    let (primaries, transfer) = displayed(primaries, transfer);
    let primaries = match primaries {
        1 if transfer == CURVE_OF_SRGB => return "sRGB".to_owned(),
        1 => "BT.709",
        4 => "BT.470 M",
        5 => "BT.601 625",
        6 | 7 => "BT.601 525",
        8 => "Film",
        9 => "BT.2020",
        10 => "XYZ",
        11 => "DCI-P3",
        12 if transfer == CURVE_OF_SRGB => return "Display P3".to_owned(),
        12 => "P3-D65",
        22 => "EBU 3213",
        _ => "Unknown",
    };
    let curve = match transfer {
        4 => "gamma 2.2",
        5 => "gamma 2.8",
        7 => "SMPTE 240 curve",
        8 => "linear",
        CURVE_OF_SRGB => "sRGB curve",
        17 => "SMPTE 428 curve",
        other => return format!("{primaries}, curve {other} of H.273"),
    };
    format!("{primaries}, {curve}")
}

/// Returns the bytes of a profile with a name; if `is_grey`, of a profile for grey with the same curve. They are the
/// same at any time.
pub(super) fn encoded(mut profile: ColorProfile, name: &str, is_grey: bool) -> Option<Vec<u8>> {
    /// The white of the connection space, in the numbers of ICC.1.
    const D50: Xyzd = Xyzd {
        x: 0.9642,
        y: 1.0,
        z: 0.8249,
    };
    profile.cicp = None;
    if is_grey {
        let curve = profile.red_trc;
        profile = ColorProfile::new_gray_with_gamma(1.0);
        profile.gray_trc = curve;
    }
    (profile.white_point, profile.media_white_point) = (D50, Some(D50));
    // moxcms writes the matrix to the cones of the eye in its place.
    profile.chromatic_adaptation = None;
    let [language, country, name] = ["en", "US", name].map(str::to_owned);
    let name = LocalizableString::new(language, country, name);
    profile.description = Some(ProfileText::Localizable(vec![name]));
    let mut icc = aligned(&profile.encode().ok()?)?;
    // moxcms writes the time of the run.
    icc.get_mut(DATE)?.copy_from_slice(&NEW_YEAR_2026);
    Some(icc)
}

/// The bytes of a profile with the time at which it was made: year, month, day, hour, minute and second, of two bytes
/// each.
const DATE: Range<usize> = 24..36;
const NEW_YEAR_2026: [u8; 12] = [0x07, 0xea, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0];

/// Returns a profile whose length and offsets are multiples of 4, as ICC.1 prescribes: moxcms writes others,
/// which libpng ignores.
fn aligned(icc: &[u8]) -> Option<Vec<u8>> {
    let word = |at: usize| Some(u32::from_be_bytes(*icc.get(at..)?.first_chunk()?) as usize);
    let first = TAGS + 4;
    let end = first + word(TAGS)? * ENTRY;
    let mut out = icc.get(..end)?.to_vec();
    for entry in (first..end).step_by(ENTRY) {
        let (offset, len) = (word(entry + 4)?, word(entry + 8)?);
        let place = u32::try_from(out.len()).ok()?;
        out[entry + 4..entry + 8].copy_from_slice(&place.to_be_bytes());
        out.extend_from_slice(icc.get(offset..)?.get(..len)?);
        out.resize(out.len().next_multiple_of(4), 0);
    }
    let len = u32::try_from(out.len()).ok()?;
    out[..4].copy_from_slice(&len.to_be_bytes());
    Some(out)
}

fn converter_for(icc: &[u8], color: Color) -> Option<Converter> {
    let color = match color {
        Color::YCbCr => Color::Rgb,
        color => color,
    };
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
    /// Creates the converter of a profile. `None` if the profile cannot be read or is for another colour model.
    fn new(icc: &[u8], color: Color) -> Option<Self> {
        let (eight, sixteen) = match color {
            Color::Gray | Color::GrayAlpha if is_profile_of(icc, Color::Rgb) => {
                let rgb = if color.has_alpha() {
                    Color::Rgba
                } else {
                    Color::Rgb
                };
                let (eight, sixteen) = transforms(icc, rgb)?;
                (of_grey(eight, color), of_grey(sixteen, color))
            }
            _ => transforms(icc, color)?,
        };
        let mut converter = Self {
            is_identity: false,
            is_grey: false,
            eight,
            sixteen,
        };
        converter.is_grey = converter.makes_grey(color);
        converter.is_identity = color != Color::Cmyk && converter.changes_at_most_one_step(color);
        Some(converter)
    }

    /// Returns whether the profile leaves all levels of grey without a tint.
    fn makes_grey(&self, color: Color) -> bool {
        let levels: Vec<u8> = match color {
            Color::Gray => (0..=u8::MAX).collect(),
            Color::GrayAlpha => (0..=u8::MAX).flat_map(|level| [level, u8::MAX]).collect(),
            _ => return false,
        };
        let width = if color.has_alpha() { 4 } else { 3 };
        let mut shown = vec![0; 256 * width];
        let is_near = |pixel: &[u8]| {
            let tint = |other: usize| pixel[0].abs_diff(pixel[other]);
            tint(1).max(tint(2)) <= 1
        };
        (self.eight)(&levels, &mut shown) && shown.chunks_exact(width).all(is_near)
    }

    /// Tests a coarse grid of colours. A difference of one step of 256 counts as rounding.
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

/// Returns the transforms of moxcms for a profile, or otherwise those of Little CMS.
fn transforms(icc: &[u8], color: Color) -> Option<(Transform<u8>, Transform<u16>)> {
    if !describes_colors(icc) {
        return None;
    }
    // moxcms should not panic, but profiles have a hundred kinds of tags.
    let first = catch_unwind(|| by_moxcms(icc, color)).unwrap_or(None);
    first.or_else(|| by_lcms(icc, color))
}

/// Returns whether a profile leads from device colours to a connection space, according to its header: not from one
/// device to another, from one connection space to another, or from names.
fn describes_colors(icc: &[u8]) -> bool {
    let is_conversion = matches!(icc.get(12..16), Some(b"link" | b"abst" | b"nmcl"));
    !is_conversion && matches!(icc.get(20..24), Some(b"XYZ " | b"Lab "))
}

fn by_moxcms(icc: &[u8], color: Color) -> Option<(Transform<u8>, Transform<u16>)> {
    fn checked<T: Copy + Default + 'static>(
        by: &std::sync::Arc<dyn TransformExecutor<T> + Send + Sync>,
    ) -> Transform<T> {
        let by = by.clone();
        Rc::new(move |from, into| by.transform(from, into).is_ok())
    }
    let profile = ColorProfile::new_from_slice(icc).ok()?;
    if is_misread(&profile) {
        return None;
    }
    let from = match (profile.color_space, color) {
        (DataColorSpace::Rgb, Color::Rgb) => Layout::Rgb,
        (DataColorSpace::Rgb, Color::Rgba) => Layout::Rgba,
        (DataColorSpace::Gray, Color::Gray) => Layout::Gray,
        (DataColorSpace::Gray, Color::GrayAlpha) => Layout::GrayAlpha,
        // moxcms takes the four channels of CMYK in the layout of RGBA.
        (DataColorSpace::Cmyk, Color::Cmyk) => Layout::Rgba,
        _ => return None,
    };
    let into = if color.has_alpha() {
        Layout::Rgba
    } else {
        Layout::Rgb
    };
    let srgb = ColorProfile::new_srgb();
    let options = TransformOptions::default();
    let eight = profile.create_transform_8bit(from, &srgb, into, options);
    let sixteen = profile.create_transform_16bit(from, &srgb, into, options);
    Some((checked(&eight.ok()?), checked(&sixteen.ok()?)))
}

/// Returns whether moxcms misreads a profile.
fn is_misread(profile: &ColorProfile) -> bool {
    let tables = [
        &profile.lut_a_to_b_perceptual,
        &profile.lut_a_to_b_colorimetric,
        &profile.lut_a_to_b_saturation,
    ];
    let mut tables = tables.into_iter().flatten().peekable();
    let has_tables = tables.peek().is_some();
    match profile.pcs {
        // moxcms takes colorants for XYZ whatever the header says. Tables of the type `mft2` code L*a*b* as in version
        // 2, all others as in version 4; moxcms goes by the version of the profile.
        DataColorSpace::Lab if has_tables => {
            let is_old = profile.version() < ProfileVersion::V4_0;
            tables.any(|table| is_mft2(table) != is_old || has_unequal_sides(table))
        }
        DataColorSpace::Lab => true,
        // moxcms confuses the scale of XYZ in tables, and prefers colorants to tables.
        _ => has_tables,
    }
}

fn is_mft2(table: &LutWarehouse) -> bool {
    matches!(table, LutWarehouse::Lut(table) if table.lut_type == LutType::Lut16)
}

/// Returns whether a table has sides of different lengths, which moxcms confuses.
fn has_unequal_sides(table: &LutWarehouse) -> bool {
    let LutWarehouse::Multidimensional(table) = table else {
        return false;
    };
    let inputs = usize::from(table.num_input_channels);
    let mut sides = table.grid_points.iter().take(inputs);
    let first = sides.next();
    sides.any(|side| Some(side) != first)
}

fn by_lcms(icc: &[u8], color: Color) -> Option<(Transform<u8>, Transform<u16>)> {
    if !is_profile_of(icc, color) {
        return None;
    }
    let (eight, sixteen) = match color {
        Color::Gray => (PixelFormat::GRAY_8, PixelFormat::GRAY_16),
        Color::GrayAlpha => (PixelFormat::GRAYA_8, PixelFormat::GRAYA_16),
        Color::Rgb => (PixelFormat::RGB_8, PixelFormat::RGB_16),
        Color::Rgba => (PixelFormat::RGBA_8, PixelFormat::RGBA_16),
        Color::Cmyk => (PixelFormat::CMYK_8, PixelFormat::CMYK_16),
        Color::YCbCr => return None,
    };
    let (into_eight, into_sixteen) = match color.has_alpha() {
        true => (PixelFormat::RGBA_8, PixelFormat::RGBA_16),
        false => (PixelFormat::RGB_8, PixelFormat::RGB_16),
    };
    let (profile, srgb) = (Profile::new_icc(icc).ok()?, Profile::new_srgb());
    let transform = |from, into| -> Option<LcmsTransform<u8, u8>> {
        // The second intent is for profiles that have no tables for the first.
        let mut intents = [Intent::Perceptual, Intent::RelativeColorimetric].into_iter();
        intents.find_map(|intent| {
            let flags = Flags::COPY_ALPHA;
            LcmsTransform::new_flags(&profile, from, &srgb, into, intent, flags).ok()
        })
    };
    let eight = transform(eight, into_eight)?;
    let sixteen = transform(sixteen, into_sixteen)?;
    Some((
        Rc::new(move |from, into| {
            eight.transform_pixels(from, into);
            true
        }),
        Rc::new(move |from, into| {
            let (from, into) = (bytemuck::cast_slice(from), bytemuck::cast_slice_mut(into));
            sixteen.transform_pixels(from, into);
            true
        }),
    ))
}

/// Makes a transform for grey from a transform for RGB or RGBA.
fn of_grey<T: Copy + 'static>(rgb: Transform<T>, color: Color) -> Transform<T> {
    Rc::new(move |from, into| {
        let pixels: Vec<T> = match color.has_alpha() {
            true => {
                let pixels = from.as_chunks::<2>().0.iter();
                pixels
                    .flat_map(|&[grey, alpha]| [grey, grey, grey, alpha])
                    .collect()
            }
            false => from.iter().flat_map(|&grey| [grey; 3]).collect(),
        };
        rgb(&pixels, into)
    })
}

/// Applies a converter of the pixels' colour model.
fn converted(pixels: Pixels, converter: &Converter) -> Pixels {
    let color = match (converter.is_grey, pixels.color.has_alpha()) {
        (true, false) => Color::Gray,
        (true, true) => Color::GrayAlpha,
        (false, false) => Color::Rgb,
        (false, true) => Color::Rgba,
    };
    let count = pixels.width as usize * pixels.height as usize;
    let width = if color.has_alpha() { 4 } else { 3 };
    let samples = match &pixels.samples {
        Samples::Eight(samples) => {
            let mut out = vec![0; count * width];
            match (converter.eight)(samples, &mut out) {
                true => Samples::Eight(back_to_grey(out, color, width)),
                false => return inks_multiplied(pixels),
            }
        }
        Samples::Sixteen(samples) => {
            let mut out = vec![0; count * width];
            match (converter.sixteen)(samples, &mut out) {
                true => Samples::Sixteen(back_to_grey(out, color, width)),
                false => return inks_multiplied(pixels),
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

/// Converts 8-bit YCbCr to RGB, with the arithmetic of libjpeg (jdcolor.c). Other pixels do not change.
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

/// Converts inks without a profile: each ink absorbs its share of the light that black leaves. Other pixels do not
/// change.
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
