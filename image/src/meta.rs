//! Metadata: EXIF, XMP and colour profile, and how they are written into PNG and WebP.

use image::metadata::Orientation;

use super::damage::Found;
use super::error::ImageError;
use super::exif;
use super::format::Format;
use super::pad::Padding;
use super::pixels::{Pixels, swaps_sides};
use super::size::{Region, Size};
use super::spec::ResizeSpec;

/// A decoded picture in its stored orientation, possibly scaled.
#[derive(Debug)]
pub(super) struct Decoded {
    pub(super) pixels: Pixels,
    /// Chroma, if `pixels` are only the luma.
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

/// The chroma planes of a picture, with at most as many pixels as the luma.
#[derive(Debug)]
pub(super) struct Chroma {
    pub(super) width: u32,
    pub(super) height: u32,
    /// Cb and Cr of each pixel, as in [`Color::YCbCr`](super::pixels::Color::YCbCr).
    pub(super) pairs: Vec<u8>,
    /// The part of the picture that becomes the result, for each size of the request.
    pub(super) regions: Vec<Region>,
}

/// What to make of one decoded picture: a result per size.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request<'a> {
    /// Everything but the size.
    pub(super) spec: &'a ResizeSpec,
    pub(super) sizes: &'a [Size],
    /// Whether all frames of an animation are wanted.
    pub(super) animates: bool,
}

impl Request<'_> {
    /// The plan of each size for a picture of these stored sides.
    ///
    /// # Errors
    /// Those of [`ResizeSpec::plan`], if one of the sizes has them.
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
}

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
    /// The plan for pixels of these stored sides, which a viewer turns by `orientation`.
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

    /// The plan for the same picture, decoded at `scale` to these sides. A last row or column from a partly filled
    /// block is left out.
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

/// EXIF, XMP and colour profile, without their containers' headers.
#[derive(Debug, Default, Clone)]
pub(super) struct Metadata {
    /// The TIFF structure, which starts with `II` or `MM`.
    pub(super) exif: Option<Vec<u8>>,
    pub(super) xmp: Option<Vec<u8>>,
    pub(super) icc: Option<Vec<u8>>,
}

impl Metadata {
    /// The orientation in EXIF; upright if there is none.
    pub(super) fn orientation(&self) -> Orientation {
        let number = self.exif.as_deref().and_then(exif::orientation);
        number
            .and_then(Orientation::from_exif)
            .unwrap_or(Orientation::NoTransforms)
    }

    /// Updates the metadata to a result of these sides. Orientations become "upright" if one of them was applied, which
    /// may be that of EXIF or that of TIFF (`turned`). An orientation in XMP alone is not applied, and stays.
    pub(super) fn describe(&mut self, sides: (u32, u32), turned: bool) {
        let mut is_applied = turned;
        if let Some(exif) = &mut self.exif {
            exif::describe(exif, sides);
            // One that exists has been applied.
            is_applied |= exif::make_upright(exif);
        }
        // XMP about other parts of the file would be wrong for a result without them.
        self.xmp
            .take_if(|xmp| OTHER_PARTS.iter().any(|name| contains(xmp, name)));
        if let Some(xmp) = self.xmp.as_mut().filter(|_| is_applied) {
            for name in [
                &b"tiff:Orientation=\""[..],
                b"tiff:Orientation='",
                b"<tiff:Orientation>",
            ] {
                let found = position(xmp, name);
                if let Some(digit) = found.and_then(|at| xmp.get_mut(at + name.len()))
                    && digit.is_ascii_digit()
                {
                    *digit = b'1';
                }
            }
        }
    }
}

/// Names in XMP about other parts of the file: gain maps, motion photos, further pictures, thumbnails.
const OTHER_PARTS: [&[u8]; 6] = [
    b"hdrgm:",
    b"GCamera:MotionPhoto",
    b"GCamera:MicroVideo",
    b"Container:Directory",
    b"xmp:Thumbnails",
    b"xapGImg:image",
];

/// EXIF without the name that some formats put before it.
pub(super) fn without_prefix(exif: Vec<u8>) -> Vec<u8> {
    match exif.strip_prefix(b"Exif\0\0") {
        Some(inner) => inner.to_vec(),
        None => exif,
    }
}

fn position(text: &[u8], name: &[u8]) -> Option<usize> {
    text.windows(name.len()).position(|window| window == name)
}

fn contains(text: &[u8], name: &[u8]) -> bool {
    position(text, name).is_some()
}

/// Inserts `xmp` into `png` as a text chunk with the standard keyword, right after the header.
pub(super) fn add_xmp_to_png(png: &mut Vec<u8>, xmp: &[u8]) {
    /// Signature and header chunk: length, name, 13 bytes, checksum.
    const AFTER_HEADER: usize = 8 + 4 + 4 + 13 + 4;
    // Keyword; then not compressed, method 0, no language, no translated keyword.
    let mut chunk = b"iTXtXML:com.adobe.xmp\0\0\0\0\0".to_vec();
    chunk.extend_from_slice(xmp);
    let Ok(length) = u32::try_from(chunk.len() - 4) else {
        return;
    };
    let sum = crc32(&chunk).to_be_bytes();
    let whole = [&length.to_be_bytes()[..], &chunk, &sum].concat();
    png.splice(AFTER_HEADER..AFTER_HEADER, whole);
}

/// The checksum of a PNG chunk, without a table: chunks have a few kilobytes at most.
pub(super) fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |sum, &byte| {
        (0..8).fold(sum ^ u32::from(byte), |sum, _| {
            (sum >> 1) ^ (0xedb8_8320 & (sum & 1).wrapping_neg())
        })
    })
}

/// An extended WebP file: the chunks of its pictures and of the metadata. `flags` are those of the pictures.
pub(super) fn webp_file(
    pictures: &[u8],
    mut flags: u8,
    (width, height): (u32, u32),
    metadata: &Metadata,
) -> Option<Vec<u8>> {
    let present = |part: &Option<Vec<u8>>, bit: u8| if part.is_some() { bit } else { 0 };
    flags |= present(&metadata.icc, 0x20) | present(&metadata.exif, 0x08);
    flags |= present(&metadata.xmp, 0x04);

    let mut header = vec![flags, 0, 0, 0];
    header.extend_from_slice(&(width - 1).to_le_bytes()[..3]);
    header.extend_from_slice(&(height - 1).to_le_bytes()[..3]);
    let mut body = b"WEBP".to_vec();
    push_chunk(&mut body, b"VP8X", &header)?;
    if let Some(icc) = &metadata.icc {
        push_chunk(&mut body, b"ICCP", icc)?;
    }
    body.extend_from_slice(pictures);
    if let Some(exif) = &metadata.exif {
        push_chunk(&mut body, b"EXIF", exif)?;
    }
    if let Some(xmp) = &metadata.xmp {
        push_chunk(&mut body, b"XMP ", xmp)?;
    }
    let length = u32::try_from(body.len()).ok()?;
    Some([b"RIFF", &length.to_le_bytes()[..], &body].concat())
}

fn push_chunk(body: &mut Vec<u8>, name: &[u8; 4], content: &[u8]) -> Option<()> {
    body.extend_from_slice(name);
    body.extend_from_slice(&u32::try_from(content.len()).ok()?.to_le_bytes());
    body.extend_from_slice(content);
    // Chunks start at even offsets.
    body.resize(body.len().next_multiple_of(2), 0);
    Some(())
}
