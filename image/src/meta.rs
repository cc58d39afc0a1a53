//! Decoded pictures with their metadata: EXIF, XMP and colour profile.

use super::color::{
    CURVE_OF_SRGB, fault_of_profile, hdr_of_profile, profile_of_code_points, to_srgb, without_ycbcr,
};
use super::damage::Found;
use super::error::ImageError;
use super::exif;
use super::format::Format;
use super::hdr::Hdr;
use super::pad::Padding;
use super::pixels::{Color, Orientation, Pixels, swaps_sides};
use super::size::{Region, Size};
use super::spec::{Filter, ResizeSpec};
use super::xmp;

/// A decoded picture in its stored orientation, possibly scaled.
#[derive(Debug)]
pub(super) struct Decoded {
    pub(super) pixels: Pixels,
    /// Chroma, if `pixels` contain only luma.
    pub(super) chroma: Option<Chroma>,
    /// How to resize `pixels`, for each size of the request.
    pub(super) plans: Vec<StoredPlan>,
    pub(super) orientation: Orientation,
    pub(super) metadata: Metadata,
    /// The worst damage, if any.
    pub(super) damage: Option<Found>,
    /// The stored sides at full size.
    pub(super) full: (u32, u32),
}

impl Decoded {
    /// Creates a picture in a format that has no metadata.
    pub(super) fn without_metadata(
        pixels: Pixels,
        plans: Vec<StoredPlan>,
        orientation: Orientation,
        damage: Option<Found>,
        full: (u32, u32),
    ) -> Self {
        Self {
            pixels: pixels.without_full_alpha(),
            chroma: None,
            plans,
            orientation,
            metadata: Metadata::default(),
            damage,
            full,
        }
    }

    /// Returns the same picture, with its damage reworded as damage of the file that contains the picture.
    pub(super) fn with_damage(self, reword: impl FnOnce(ImageError) -> ImageError) -> Self {
        let damage = self.damage.map(|found| Found {
            error: reword(found.error),
            ..found
        });
        Self { damage, ..self }
    }
}

/// The chroma planes of a picture, with at most as many pixels as luma.
#[derive(Debug)]
pub(super) struct Chroma {
    pub(super) width: u32,
    pub(super) height: u32,
    /// Cb and Cr of each pixel; 128 is no difference.
    pub(super) pairs: Vec<u8>,
    /// The ranges of the values of chroma and luma.
    pub(super) levels: Levels,
    /// The part of the picture that becomes the result, for each size of the request.
    pub(super) regions: Vec<Region>,
}

/// The ranges of luma and chroma in a byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Levels {
    /// All 256 values are used, as in [`Color::YCbCr`](super::pixels::Color::YCbCr).
    Full,
    /// Luma of 16 to 235 and chroma of 16 to 240, as in video.
    Video,
}

/// What to make of one decoded picture: a result for each size.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request<'a> {
    /// The settings except for the size.
    pub(super) spec: &'a ResizeSpec,
    pub(super) sizes: &'a [Size],
    /// Whether the result contains all frames of an animation.
    pub(super) animates: bool,
    /// Whether the picture itself must be decoded, to find damage, even if a thumbnail has enough pixels.
    pub(super) checks: bool,
}

impl Request<'_> {
    /// Returns the plan of each size for a picture with these stored sides.
    ///
    /// # Errors
    /// The errors of [`ResizeSpec::plan`], for any of the sizes.
    pub(super) fn plans(
        &self,
        sides: (u32, u32),
        orientation: Orientation,
        format: Format,
    ) -> Result<Vec<StoredPlan>, ImageError> {
        let plan = |&size| {
            let spec = ResizeSpec { size, ..*self.spec };
            StoredPlan::new(&spec, sides, orientation, format)
        };
        self.sizes.iter().map(plan).collect()
    }

    /// Returns whether exact pixels at full size are needed: the results of these filters must equal those of other
    /// programs bit by bit, and a scaled decode averages stored numbers instead of light.
    pub(super) fn needs_exact_pixels(&self) -> bool {
        self.spec.linear || matches!(self.spec.filter, Filter::Box | Filter::Nearest)
    }

    /// Returns whether luma and chroma are converted to RGB after filtering. Both steps are linear, so their order only
    /// affects rounding. After filtering there are fewer pixels to convert than `pixels`, and JPEG output needs no
    /// conversion.
    pub(super) fn converts_late(&self, plans: &[StoredPlan], pixels: u64) -> bool {
        let area = |plan: &StoredPlan| u64::from(plan.width) * u64::from(plan.height);
        !self.needs_exact_pixels() && plans.iter().all(|plan| area(plan) <= pixels / 2)
    }
}

/// The minimum ratio of the sides after a reduced decode to the sides of the output. Compared with a full decode, the
/// sample pictures then have an SSIM of at least 0.997 and 46 dB.
pub(super) const SPARE: f64 = 2.0;

/// A [`Plan`](super::size::Plan) for the pixels in stored orientation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct StoredPlan {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) region: Region,
    /// Margins around the upright picture.
    pub(super) padding: Padding,
}

impl StoredPlan {
    /// Returns the plan for pixels with these stored sides, which a viewer turns by `orientation`.
    pub(super) fn new(
        spec: &ResizeSpec,
        (width, height): (u32, u32),
        orientation: Orientation,
        format: Format,
    ) -> Result<Self, ImageError> {
        let swaps = swaps_sides(orientation);
        let plan = match swaps {
            true => spec.plan(height, width, format)?,
            false => spec.plan(width, height, format)?,
        };
        let (across, down) = match swaps {
            true => (plan.height, plan.width),
            false => (plan.width, plan.height),
        };
        Ok(Self {
            width: across,
            height: down,
            region: plan.region.stored((width, height), orientation),
            padding: plan.padding,
        })
    }

    /// Returns whether a decode at `scale` has enough pixels for the quality of the result: [`SPARE`] times its sides.
    pub(super) fn has_spare(&self, scale: f64) -> bool {
        self.region.width * scale >= SPARE * f64::from(self.width)
            && self.region.height * scale >= SPARE * f64::from(self.height)
    }

    /// Returns whether the result has a side that is longer than that of its region.
    pub(super) fn enlarges(&self) -> bool {
        f64::from(self.width) > self.region.width || f64::from(self.height) > self.region.height
    }

    /// Returns the plan for the same picture, decoded at `scale` to these sides. Leaves out a last row or column that
    /// comes from a block filled in part.
    pub(super) fn scaled(self, scale: f64, (width, height): (u32, u32)) -> Self {
        if scale == 1.0 {
            return self;
        }
        Self {
            region: self.region.scaled((scale, scale), (width, height)),
            ..self
        }
    }
}

/// EXIF, XMP and the description of the colours, without the headers of their containers.
#[derive(Debug, Default, Clone)]
pub(super) struct Metadata {
    /// The TIFF structure, which starts with `II` or `MM`.
    pub(super) exif: Option<Vec<u8>>,
    pub(super) xmp: Option<Vec<u8>>,
    pub(super) icc: Option<Vec<u8>>,
    /// The coding of the pixels, if they are of high dynamic range and have no profile.
    pub(super) hdr: Option<Hdr>,
}

impl Metadata {
    /// Converts pixels to sRGB by the description of their colours, and removes that description.
    pub(super) fn apply_colors(&mut self, pixels: Pixels) -> Pixels {
        let icc = self.icc.take();
        let in_profile = || {
            icc.as_deref()
                .and_then(|icc| hdr_of_profile(icc, pixels.color))
        };
        let Some(hdr) = self.hdr.take().or_else(in_profile) else {
            return to_srgb(pixels, icc.as_deref());
        };
        let pixels = without_ycbcr(pixels);
        let is_grey = matches!(pixels.color, Color::Gray | Color::GrayAlpha);
        let icc = profile_of_code_points(hdr.primaries, CURVE_OF_SRGB, is_grey);
        to_srgb(hdr.tone_mapped(pixels), icc.as_deref())
    }

    /// Returns the faults of the metadata for pixels of this colour model: faults of the profile and, if `keeps`, of
    /// EXIF. If `keeps`, removes EXIF that other programs would reject.
    pub(super) fn faults(&mut self, color: Color, keeps: bool) -> Vec<String> {
        let mut faults = Vec::new();
        faults.extend(
            self.icc
                .as_deref()
                .and_then(|icc| fault_of_profile(icc, color)),
        );
        let rejected = |exif: &mut Vec<u8>| !exif::begins_as_exif(exif);
        if let Some(exif) = self.exif.take_if(|exif| keeps && rejected(exif))
            && !exif.is_empty()
        {
            faults.push("its EXIF does not begin as EXIF does, and is left out".to_owned());
        }
        faults
    }

    /// Returns the orientation in EXIF; upright if there is none.
    pub(super) fn orientation(&self) -> Orientation {
        let number = self.exif.as_deref().and_then(exif::orientation);
        number
            .and_then(Orientation::from_exif)
            .unwrap_or(Orientation::NoTransforms)
    }

    /// Updates the metadata for a result with these sides, in EXIF and XMP. If an orientation was applied, whether that
    /// of EXIF or that of TIFF (`turned`), all orientations become "upright". An orientation that is only in XMP is not
    /// applied and stays.
    pub(super) fn describe(&mut self, sides: (u32, u32), turned: bool) {
        let mut is_applied = turned;
        if let Some(exif) = &mut self.exif {
            exif::describe(exif, sides);
            // The orientation in EXIF, if there is one, has been applied.
            is_applied |= exif::make_upright(exif);
        }
        self.xmp = self.xmp.take().and_then(xmp::without_other_parts);
        if let Some(xmp) = &mut self.xmp {
            let (width, height) = sides;
            xmp::set_number(xmp, "tiff:ImageWidth", width);
            xmp::set_number(xmp, "tiff:ImageLength", height);
            xmp::set_number(xmp, "exif:PixelXDimension", width);
            xmp::set_number(xmp, "exif:PixelYDimension", height);
            if is_applied {
                xmp::set_number(xmp, "tiff:Orientation", 1);
            }
        }
    }
}

/// Returns EXIF in the content of a box or item, which begins with the number of bytes between this number and EXIF.
/// Searches EXIF if it is not there: some programs write a wrong number, or none.
pub(super) fn exif_after_offset(content: &[u8]) -> Option<Vec<u8>> {
    let announced = content
        .split_first_chunk::<4>()
        .and_then(|(skipped, rest)| rest.get(u32::from_be_bytes(*skipped) as usize..));
    let mut starts = (0..content.len()).map(|at| &content[at..]);
    let exif = announced
        .filter(|exif| exif::begins_as_exif(exif))
        .or_else(|| starts.find(|exif| exif::begins_as_exif(exif)));
    exif.or(announced).map(<[u8]>::to_vec)
}

/// Removes the prefix that some formats put before EXIF.
pub(super) fn without_prefix(exif: Vec<u8>) -> Vec<u8> {
    match exif.strip_prefix(b"Exif\0\0") {
        Some(inner) => inner.to_vec(),
        None => exif,
    }
}

/// Inserts into a PNG, directly after the header, what the encoder of PNG does not write: XMP, as a text chunk with the
/// standard keyword, and the code points of high dynamic range.
pub(super) fn complete_png(png: &mut Vec<u8>, metadata: &Metadata) {
    /// Signature and header chunk: length, name, 13 bytes, checksum.
    const AFTER_HEADER: usize = 8 + 4 + 4 + 13 + 4;
    let mut add = |kind_and_data: &[u8]| {
        let Ok(length) = u32::try_from(kind_and_data.len() - 4) else {
            return;
        };
        let sum = crc32(kind_and_data).to_be_bytes();
        let whole = [&length.to_be_bytes()[..], kind_and_data, &sum].concat();
        png.splice(AFTER_HEADER..AFTER_HEADER, whole);
    };
    if let Some(xmp) = &metadata.xmp {
        // Keyword; not compressed, method 0, no language, no translated keyword.
        add(&[b"iTXtXML:com.adobe.xmp\0\0\0\0\0", &xmp[..]].concat());
    }
    if let Some(hdr) = metadata.hdr {
        // Matrix: RGB. Range: full.
        add(&[&b"cICP"[..], &[hdr.primaries, hdr.transfer(), 0, 1]].concat());
    }
}

/// Returns the checksum of a PNG chunk.
pub(super) fn crc32(bytes: &[u8]) -> u32 {
    let mut sum = flate2::Crc::new();
    sum.update(bytes);
    sum.sum()
}
