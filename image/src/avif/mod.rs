//! AVIF and HEIC: the still picture of a file, in the orientation that the file specifies. The container is read here;
//! rav1d decodes AV1, the system's libde265 decodes HEVC, and ravif encodes AVIF.

#[allow(unsafe_code, reason = "the decoder has the interface of C only")]
mod av1;
mod boxes;
mod canvas;
mod container;
#[cfg(feature = "avif")]
mod file;
mod film;
#[allow(
    unsafe_code,
    reason = "the decoder is a library of C, loaded when it is needed"
)]
mod hevc;
mod item;
#[allow(unsafe_code, reason = "samples are memory of a decoder")]
mod picture;
#[cfg(feature = "avif")]
mod write;

use super::animation::over;
use super::color::profile_of_code_points;
use super::error::ImageError;
use super::format::Format;
use super::hdr::Hdr;
use super::meta::{Decoded, Metadata, Request};
use super::pixels::{Color, Orientation, Pixels, Samples, buffer};
use super::spec::ResizeSpec;

use boxes::corrupt;
pub(super) use boxes::{Reader, TopBox};
use canvas::{Canvas, Output};
use container::{CodePoints, Container, Crop, Turn};
use item::Item;

pub(super) use hevc::version as hevc_version;
#[cfg(feature = "avif")]
pub(super) use write::encode;

/// Returns width and height of the largest picture, as the metadata says.
pub(super) fn announced(file: &[u8]) -> Option<(u32, u32)> {
    Container::read(file).ok()?.largest()
}

/// Decodes the still picture of a file. In an animation this is usually the first frame.
pub(super) fn decode(
    input: &[u8],
    format: Format,
    request: Request<'_>,
) -> Result<Decoded, ImageError> {
    // The code for both formats creates errors about AVIF: replace the format.
    let of_format = |error: ImageError| error.with_format(format);
    let decoded = decode_primary(input, format, request);
    Ok(decoded.map_err(of_format)?.with_damage(of_format))
}

fn decode_primary(
    input: &[u8],
    format: Format,
    request: Request<'_>,
) -> Result<Decoded, ImageError> {
    let spec = request.spec;
    let container = Container::read(input)?;
    let whole = Whole::new(&container, container.primary, spec)?;
    let picture = &whole.picture;
    let orientation = orientation(picture.properties.turn);
    let shown = picture.crop();
    let full = (shown.width, shown.height);
    let plans = request.plans(full, orientation, format)?;
    let takes_smaller = format == Format::Heic
        && whole.alpha.is_none()
        && !request.checks
        && !request.needs_exact_pixels();
    let smaller = match takes_smaller {
        true => picture.smaller(&plans, spec),
        false => None,
    };
    // A thumbnail that cannot be decoded is not needed.
    let smaller = smaller.and_then(|(picture, plans)| {
        let alpha = None;
        Some((Whole { picture, alpha }.pixels(spec).ok()?, plans))
    });
    let ((pixels, points), plans) = match smaller {
        Some(smaller) => smaller,
        None => (whole.pixels(spec)?, plans),
    };
    let icc = picture.properties.icc.map(<[u8]>::to_vec);
    let is_grey = matches!(pixels.color, Color::Gray | Color::GrayAlpha);
    let (exif, xmp) = container.descriptions_of(container.primary);
    let hdr = match icc {
        Some(_) => None,
        None => Hdr::of_code_points(points.primaries, points.transfer),
    };
    let metadata = Metadata {
        // The orientation in EXIF is ignored: the container has its own.
        exif,
        xmp,
        icc: icc.or_else(|| profile_of_code_points(points.primaries, points.transfer, is_grey)),
        hdr,
    };
    Ok(Decoded {
        pixels,
        chroma: None,
        plans,
        orientation,
        metadata,
        damage: container.damage_beyond(),
        full,
    })
}

/// A picture and its transparency.
struct Whole<'a> {
    picture: Item<'a>,
    alpha: Option<Item<'a>>,
}

impl<'a> Whole<'a> {
    /// Checks a picture against the limits of `spec`, without decoding anything.
    fn new(
        container: &'a Container<'a>,
        number: u32,
        spec: &ResizeSpec,
    ) -> Result<Self, ImageError> {
        let picture = Item::new(container, number, spec)?;
        let alpha = match container.alpha_of(number)? {
            // That of the picture from which this picture is derived.
            None => container.alpha_of(picture.source)?,
            alpha => alpha,
        };
        let alpha = match alpha {
            Some(alpha) => Some(Item::new(container, alpha, spec)?),
            None => None,
        };
        let has_layers = |item: &Item<'_>| !item.layers.is_empty();
        let reason = match &alpha {
            Some(alpha) if alpha.sides != picture.sides => {
                "its alpha has other sides than its colours"
            }
            Some(alpha) if has_layers(alpha) || has_layers(&picture) => {
                "an overlay with an alpha of its own"
            }
            _ => return Ok(Self { picture, alpha }),
        };
        Err(ImageError::variety(Format::Avif, reason))
    }

    /// Decodes the visible part, in stored orientation. Returns it with the code points of its colours.
    fn pixels(&self, spec: &ResizeSpec) -> Result<(Pixels, CodePoints), ImageError> {
        let (picture, alpha) = (&self.picture, self.alpha.as_ref());
        let config = picture.config;
        let color = match (config.is_grey, alpha) {
            (true, None) => Color::Gray,
            (true, Some(_)) => Color::GrayAlpha,
            (false, None) if picture.layers.is_empty() => Color::Rgb,
            (false, _) => Color::Rgba,
        };
        let (width, height) = picture.sides;
        let bytes_of_sample = if config.depth > 8 { 2 } else { 1 };
        let samples = u64::from(width) * u64::from(height) * color.channels() as u64;
        spec.admit(samples * bytes_of_sample, picture.container.file_len())?;
        let len =
            usize::try_from(samples).map_err(|_| ImageError::OutOfMemory { bytes: samples })?;
        let (samples, points) = match config.depth {
            8 if !picture.layers.is_empty() => {
                let mut samples: Vec<u8> = buffer(len)?;
                let points = draw_layers(&mut samples, picture, spec)?;
                (Samples::Eight(samples), points)
            }
            8 => {
                let mut samples: Vec<u8> = buffer(len)?;
                let points = fill(&mut samples, picture, alpha, color)?;
                (Samples::Eight(samples), points)
            }
            _ => {
                let mut samples: Vec<u16> = buffer(len)?;
                let points = fill(&mut samples, picture, alpha, color)?;
                (Samples::Sixteen(samples), points)
            }
        };
        let mut pixels = Pixels {
            width,
            height,
            color,
            samples,
        };
        if alpha.is_some_and(|alpha| alpha.multiplies(picture)) {
            pixels.divide_by_alpha();
        }
        if !picture.layers.is_empty() {
            pixels = pixels.without_full_alpha();
        }
        Ok((cropped(pixels, picture.crop()), points))
    }
}

/// Decodes colours and alpha into samples. Returns the code points of the colours.
fn fill<T: Output>(
    samples: &mut [T],
    picture: &Item<'_>,
    alpha: Option<&Item<'_>>,
    color: Color,
) -> Result<CodePoints, ImageError> {
    let mut canvas = Canvas {
        samples,
        width: picture.sides.0 as usize,
        height: picture.sides.1 as usize,
        channels: color.channels(),
    };
    let mut points = picture.properties.code_points;
    picture.for_each_tile(|tile, offset| {
        let points = *points.get_or_insert_with(|| tile.code_points());
        match picture.config.depth {
            8 => canvas.draw::<u8>(tile, offset, points, picture.config),
            _ => canvas.draw::<u16>(tile, offset, points, picture.config),
        }
    })?;
    if let Some(alpha) = alpha {
        let depth = alpha.config.depth;
        alpha.for_each_tile(|tile, offset| {
            let points = alpha.properties.code_points;
            let is_full = points.unwrap_or_else(|| tile.code_points()).is_full;
            match depth {
                8 => canvas.draw_alpha::<u8>(tile, offset, (depth, is_full)),
                _ => canvas.draw_alpha::<u16>(tile, offset, (depth, is_full)),
            }
        })?;
    }
    points.ok_or_else(|| corrupt("a picture without tiles"))
}

/// Draws the layers of a picture into samples of red, green, blue and alpha, each over those below it. Returns the code
/// points of the colours: those of the first layer, unless the picture has its own.
fn draw_layers(
    samples: &mut [u8],
    picture: &Item<'_>,
    spec: &ResizeSpec,
) -> Result<CodePoints, ImageError> {
    let (canvas, _) = samples.as_chunks_mut();
    canvas.fill(picture.background);
    let width = picture.sides.0 as usize;
    let (mut points, mut bytes) = (picture.properties.code_points, 0);
    for layer in &picture.layers {
        let whole = Whole::new(picture.container, layer.number, spec)?;
        if !whole.picture.layers.is_empty() {
            return Err(ImageError::variety(Format::Avif, "an overlay of overlays"));
        }
        // The limit is for all layers together: a small file may repeat a layer any number of times.
        let (across, down) = whole.picture.sides;
        bytes += u64::from(across) * u64::from(down) * size_of_val(&picture.background) as u64;
        spec.admit(bytes, picture.container.file_len())?;
        let (pixels, own) = whole.pixels(spec)?;
        points.get_or_insert(own);
        let pixels = pixels.oriented(orientation(whole.picture.properties.turn))?;
        let pixels = pixels.into_eight_bits().into_rgb().with_alpha();
        // The columns of the layer that are on the canvas, and the first of them on the canvas.
        let hidden = layer.left.min(0).unsigned_abs() as usize;
        let left = layer.left.max(0) as usize;
        let rows = pixels.eight_bits().chunks_exact(pixels.width as usize * 4);
        for (y, row) in (i64::from(layer.top)..).zip(rows) {
            let start = usize::try_from(y).ok().map(|y| y * width);
            let Some(below) = start.and_then(|start| canvas.get_mut(start..start + width)) else {
                continue;
            };
            let above = row.as_chunks().0.iter().skip(hidden);
            for (below, above) in below.iter_mut().skip(left).zip(above) {
                *below = over(*above, *below);
            }
        }
    }
    points.ok_or_else(|| corrupt("an overlay without layers"))
}

const fn orientation(turn: Turn) -> Orientation {
    match (turn.quarters, turn.is_flipped) {
        (1, false) => Orientation::Rotate90,
        (2, false) => Orientation::Rotate180,
        (3, false) => Orientation::Rotate270,
        (_, false) => Orientation::NoTransforms,
        (1, true) => Orientation::Rotate90FlipH,
        // A half turn and a flip.
        (2, true) => Orientation::FlipVertical,
        (3, true) => Orientation::Rotate270FlipH,
        (_, true) => Orientation::FlipHorizontal,
    }
}

/// Returns the visible part of the pixels.
fn cropped(pixels: Pixels, crop: Crop) -> Pixels {
    fn part<T: Copy>(samples: &mut Vec<T>, stride: usize, start: usize, len: usize, rows: usize) {
        for row in 0..rows {
            let from = start + row * stride;
            samples.copy_within(from..from + len, row * len);
        }
        samples.truncate(rows * len);
    }
    if (crop.width, crop.height) == (pixels.width, pixels.height) {
        return pixels;
    }
    let channels = pixels.color.channels();
    let stride = pixels.width as usize * channels;
    let start = crop.top as usize * stride + crop.left as usize * channels;
    let (len, rows) = (crop.width as usize * channels, crop.height as usize);
    let mut samples = pixels.samples;
    match &mut samples {
        Samples::Eight(samples) => part(samples, stride, start, len, rows),
        Samples::Sixteen(samples) => part(samples, stride, start, len, rows),
    }
    Pixels {
        width: crop.width,
        height: crop.height,
        samples,
        ..pixels
    }
}
