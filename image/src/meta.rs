//! What travels beside the pixels: EXIF, XMP, colour profile, and how it gets into PNG and WebP.

use image::metadata::Orientation;

use super::error::ImageError;
use super::exif;
use super::format::Format;
use super::pixels::{Pixels, swaps_sides};
use super::size::Region;
use super::spec::ResizeSpec;

/// A decoded picture, perhaps scaled, in the orientation it is stored in.
#[derive(Debug)]
pub(super) struct Decoded {
    pub(super) pixels: Pixels,
    /// The colour of `pixels`, which are its luma then.
    pub(super) chroma: Option<Chroma>,
    /// What to make of `pixels`.
    pub(super) plan: StoredPlan,
    pub(super) orientation: Orientation,
    pub(super) metadata: Metadata,
}

/// The colour of a picture apart from its luma, and with no more pixels.
#[derive(Debug)]
pub(super) struct Chroma {
    pub(super) width: u32,
    pub(super) height: u32,
    /// Blue and red of each pixel, as of [`Color::YCbCr`](super::pixels::Color::YCbCr).
    pub(super) pairs: Vec<u8>,
    /// The part of the picture that is to become one.
    pub(super) region: Region,
}

/// A [`Plan`](super::size::Plan) in the orientation of the stored pixels.
#[derive(Debug, Clone, Copy)]
pub(super) struct StoredPlan {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) region: Region,
}

impl StoredPlan {
    /// The plan for stored sides that a viewer turns by `orientation`.
    pub(super) fn new(
        spec: &ResizeSpec,
        (width, height): (u32, u32),
        orientation: Orientation,
        format: Format,
    ) -> Result<Self, ImageError> {
        if !swaps_sides(orientation) {
            let plan = spec.plan(width, height, format)?;
            return Ok(Self {
                width: plan.width,
                height: plan.height,
                region: plan.region,
            });
        }
        // The region lies in the middle, so that turning it swaps its sides and nothing else.
        let plan = spec.plan(height, width, format)?;
        Ok(Self {
            width: plan.height,
            height: plan.width,
            region: Region {
                left: plan.region.top,
                top: plan.region.left,
                width: plan.region.height,
                height: plan.region.width,
            },
        })
    }

    /// The same plan over pixels that were scaled by `scale` when they were decoded, now of these
    /// sides. A last row or column that only part of a source block filled is left out.
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
    /// The TIFF structure, `II` or `MM` first.
    pub(super) exif: Option<Vec<u8>>,
    pub(super) xmp: Option<Vec<u8>>,
    pub(super) icc: Option<Vec<u8>>,
}

impl Metadata {
    /// The orientation that EXIF gives, upright where it gives none.
    pub(super) fn orientation(&self) -> Orientation {
        self.exif
            .as_deref()
            .and_then(Orientation::from_exif_chunk)
            .unwrap_or(Orientation::NoTransforms)
    }

    /// Has it be about a picture of these sides: "upright" wherever an orientation is written, if the pixels have been turned as
    /// one of them said (`turned`), or were upright by it. That is EXIF's, or TIFF's own: what XMP says alone stays true.
    pub(super) fn describe(&mut self, sides: (u32, u32), turned: bool) {
        let mut said = turned;
        if let Some(exif) = &mut self.exif {
            exif::describe(exif, sides);
            // Its answer is the orientation that was there, which has been applied.
            said |= Orientation::remove_from_exif_chunk(exif).is_some();
        }
        // What it says of other parts of the file is not true of one that has only the picture.
        self.xmp
            .take_if(|xmp| ELSEWHERE.iter().any(|name| contains(xmp, name)));
        if let Some(xmp) = self.xmp.as_mut().filter(|_| said) {
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

/// In XMP, what speaks of something beside the picture: a gain map, a film, further pictures, small copies.
const ELSEWHERE: [&[u8]; 6] = [
    b"hdrgm:",
    b"GCamera:MotionPhoto",
    b"GCamera:MicroVideo",
    b"Container:Directory",
    b"xmp:Thumbnails",
    b"xapGImg:image",
];

fn position(text: &[u8], name: &[u8]) -> Option<usize> {
    text.windows(name.len()).position(|window| window == name)
}

fn contains(text: &[u8], name: &[u8]) -> bool {
    position(text, name).is_some()
}

/// `png` with `xmp` in a text chunk of the name that is agreed on, right behind the header.
pub(super) fn add_xmp_to_png(png: &mut Vec<u8>, xmp: &[u8]) {
    /// Signature, and the header chunk: length, name, 13 bytes, checksum.
    const BEHIND_HEADER: usize = 8 + 4 + 4 + 13 + 4;
    // Keyword, then: not compressed, method 0, no language, no translated keyword.
    let mut chunk = b"iTXtXML:com.adobe.xmp\0\0\0\0\0".to_vec();
    chunk.extend_from_slice(xmp);
    let Ok(length) = u32::try_from(chunk.len() - 4) else {
        return;
    };
    let sum = crc32(&chunk).to_be_bytes();
    let whole = [&length.to_be_bytes()[..], &chunk, &sum].concat();
    png.splice(BEHIND_HEADER..BEHIND_HEADER, whole);
}

/// The checksum of a PNG chunk. A few kilobytes at most: no table.
pub(super) fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |sum, &byte| {
        (0..8).fold(sum ^ u32::from(byte), |sum, _| {
            (sum >> 1) ^ (0xedb8_8320 & (sum & 1).wrapping_neg())
        })
    })
}

/// `webp`, as libwebp wrote it, in the extended container with the metadata's chunks.
pub(super) fn add_to_webp(
    webp: &[u8],
    metadata: &Metadata,
    (width, height): (u32, u32),
    alpha: bool,
) -> Option<Vec<u8>> {
    let mut chunks = webp.get(12..)?;
    // An extended header that libwebp wrote for alpha gives way to ours.
    if chunks.starts_with(b"VP8X") {
        chunks = chunks.get(18..)?;
    }
    let mut flags = 0u8;
    let present = |part: &Option<Vec<u8>>, bit: u8| if part.is_some() { bit } else { 0 };
    flags |= present(&metadata.icc, 0x20) | present(&metadata.exif, 0x08);
    flags |= present(&metadata.xmp, 0x04) | if alpha { 0x10 } else { 0 };

    let mut header = vec![flags, 0, 0, 0];
    header.extend_from_slice(&(width - 1).to_le_bytes()[..3]);
    header.extend_from_slice(&(height - 1).to_le_bytes()[..3]);
    let mut body = b"WEBP".to_vec();
    push_chunk(&mut body, b"VP8X", &header)?;
    if let Some(icc) = &metadata.icc {
        push_chunk(&mut body, b"ICCP", icc)?;
    }
    body.extend_from_slice(chunks);
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
    // Chunks begin at even places.
    body.resize(body.len().next_multiple_of(2), 0);
    Some(())
}
