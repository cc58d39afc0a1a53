//! Animations: decoding the frames of a file as they are displayed, and writing files of resized frames.
//!
//! Frames are decoded and resized one after the other, so that only one of them is in memory at full size. A written
//! frame covers only the part of the picture that differs from the previous frame.

use ::png::{BitDepth, BlendOp, ColorType, DisposeOp, Info};

use super::color::is_profile_of;
use super::damage::Found;
use super::encode::{self, Encoding};
use super::error::ImageError;
use super::format::Format;
use super::meta::{Metadata, complete_png};
use super::pixels::{Color, Pixels, Samples, buffer};
use super::spec::ResizeSpec;
use super::{announced, gif, png, webp};

/// A picture, or one frame of an animation.
pub(super) struct Frame {
    pub(super) pixels: Pixels,
    /// The time for which the frame is displayed, in milliseconds; 0 for a still picture.
    pub(super) millis: u32,
}

/// The frames of a file, as an iterator.
pub(super) struct Animation<'a> {
    /// The iterator ends after damage.
    pub(super) frames: Box<dyn Iterator<Item = Result<Frame, Found>> + 'a>,
    /// How often the animation is displayed; 0 for endless repetition.
    pub(super) plays: u32,
}

impl<'a> Animation<'a> {
    /// Creates an animation. `next` decodes the next frame, and returns `None` after the last.
    pub(super) fn new(
        plays: u32,
        mut next: impl FnMut() -> Result<Option<Frame>, Found> + 'a,
    ) -> Animation<'a> {
        let mut has_ended = false;
        let frames = std::iter::from_fn(move || {
            let frame = match has_ended {
                true => None,
                false => next().transpose(),
            };
            has_ended = !matches!(frame, Some(Ok(_)));
            frame
        });
        Animation {
            frames: Box::new(frames),
            plays,
        }
    }
}

/// Opens the animation in a file whose first picture has been decoded. `None` if the file has one picture. Also `None`
/// for PNG with 16 bits per sample and for interlaced PNG, of which only the first picture is read.
///
/// Unless `draws`, frames are only decoded: they have no samples, and take no time and memory for the whole screen.
pub(super) fn open<'a>(
    input: &'a [u8],
    format: Format,
    spec: &'a ResizeSpec,
    draws: bool,
) -> Result<Option<Animation<'a>>, ImageError> {
    let animation = match format {
        Format::Gif => gif::animation(input, spec, draws),
        Format::WebP => webp::animation(input, spec, draws),
        Format::Png => png::animation(input, spec, draws),
        _ => Ok(None),
    }?;
    if animation.is_some() {
        admit(input, format, spec, draws)?;
    }
    Ok(animation)
}

/// Returns the sides of all frames of an animation, according to their headers. Empty for other files.
pub(super) fn frame_sides(input: &[u8], format: Format) -> Vec<(u32, u32)> {
    match format {
        Format::Gif => gif::frame_sides(input).collect(),
        Format::WebP => webp::frame_sides(input).collect(),
        Format::Png => png::frame_sides(input).collect(),
        _ => Vec::new(),
    }
}

/// Checks the limits of `spec` before the frames are decoded. The effort of a frame that is drawn is that of the
/// screen, and of other frames that of their own pixels. A few bytes suffice for a frame, so that a small file may
/// announce hours of work.
///
/// # Errors
/// `TooManyFrames` if all frames exceed [`ResizeSpec::MAX_FRAMES`] times `max_pixels`, `Bomb` if they exceed
/// `max_ratio`.
fn admit(input: &[u8], format: Format, spec: &ResizeSpec, draws: bool) -> Result<(), ImageError> {
    /// The memory of all frames that is allowed at any ratio, as a multiple of that of a still picture.
    const HARMLESS: u64 = 32 * ResizeSpec::HARMLESS;
    let frames = frame_sides(input, format);
    let area = |(width, height)| u64::from(width) * u64::from(height);
    let screen = announced(input).map_or(0, |screen| area((screen.width, screen.height)));
    let of_frame = |sides| {
        if draws {
            screen.max(area(sides))
        } else {
            area(sides)
        }
    };
    let pixels = frames
        .iter()
        .fold(0_u64, |sum, &sides| sum.saturating_add(of_frame(sides)));
    let limit = spec.max_pixels.saturating_mul(ResizeSpec::MAX_FRAMES);
    if pixels > limit {
        let frames = u32::try_from(frames.len()).unwrap_or(u32::MAX);
        return Err(ImageError::TooManyFrames {
            frames,
            pixels,
            limit,
        });
    }
    let (bytes, file) = (pixels * PIXEL as u64, input.len() as u64);
    let limit = spec.max_ratio;
    if bytes > file.saturating_mul(limit.into()).max(HARMLESS) {
        return Err(ImageError::Bomb { bytes, file, limit });
    }
    Ok(())
}

/// The screen on which the frames of an animation are drawn: red, green, blue and alpha of each pixel.
pub(super) struct Screen<'a> {
    format: Format,
    spec: &'a ResizeSpec,
    /// The length of the file, in bytes.
    file: u64,
    width: u32,
    height: u32,
    /// Empty unless `draws`.
    pixels: Vec<u8>,
    undo: Undo,
}

/// What happens to the area of a frame before the next frame is drawn.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Disposal {
    Keep,
    /// The area becomes transparent.
    Clear,
    /// The area gets the content that it had before the frame.
    Restore,
}

enum Undo {
    Nothing,
    Clear(Area),
    Restore(Vec<u8>),
}

/// Bytes of a pixel.
const PIXEL: usize = 4;

impl<'a> Screen<'a> {
    /// Creates a transparent screen. Unless `draws`, frames change nothing on it.
    ///
    /// # Errors
    /// If it exceeds the limits of `spec`.
    pub(super) fn new(
        (width, height): (u32, u32),
        (file, format): (&[u8], Format),
        spec: &'a ResizeSpec,
        draws: bool,
    ) -> Result<Screen<'a>, ImageError> {
        let mut screen = Screen {
            format,
            spec,
            file: file.len() as u64,
            width,
            height,
            pixels: Vec::new(),
            undo: Undo::Nothing,
        };
        let bytes = screen.admit((width, height))?;
        screen.pixels = buffer(if draws { bytes } else { 0 })?;
        Ok(screen)
    }

    /// Checks the limits of `spec` before a frame with these sides is decoded. Returns the size of the frame in bytes.
    pub(super) fn admit(&self, sides: (u32, u32)) -> Result<usize, ImageError> {
        let bytes = u64::from(sides.0) * u64::from(sides.1) * PIXEL as u64;
        self.spec.check_source(sides, self.format)?;
        self.spec.admit(bytes, self.file)?;
        usize::try_from(bytes).map_err(|_| ImageError::OutOfMemory { bytes })
    }

    /// Draws the part of an RGBA frame that lies on the screen. If `is_over`, blends it over the content; otherwise
    /// replaces the content.
    pub(super) fn draw(&mut self, area: Area, frame: &[u8], is_over: bool, disposal: Disposal) {
        match std::mem::replace(&mut self.undo, Undo::Nothing) {
            Undo::Nothing => {}
            Undo::Clear(area) => self.rows(area).for_each(|row| row.fill(0)),
            Undo::Restore(pixels) => self.pixels = pixels,
        }
        self.undo = match disposal {
            Disposal::Keep => Undo::Nothing,
            Disposal::Clear => Undo::Clear(area),
            Disposal::Restore => Undo::Restore(self.pixels.clone()),
        };
        let across = (area.right - area.left).max(1) * PIXEL;
        for (row, from) in self.rows(area).zip(frame.chunks_exact(across)) {
            let pixels = row.as_chunks_mut::<PIXEL>().0.iter_mut();
            for (below, above) in pixels.zip(from.as_chunks::<PIXEL>().0) {
                *below = match is_over {
                    true => over(*above, *below),
                    false => *above,
                };
            }
        }
    }

    /// Returns the content of the screen as a frame, without samples if nothing is drawn.
    pub(super) fn frame(&self, millis: u32) -> Frame {
        let pixels = Pixels {
            width: self.width,
            height: self.height,
            color: Color::Rgba,
            samples: Samples::Eight(self.pixels.clone()),
        };
        Frame {
            pixels: pixels.without_full_alpha(),
            millis,
        }
    }

    /// Returns the rows of the part of an area that lies on the screen.
    fn rows(&mut self, area: Area) -> impl Iterator<Item = &mut [u8]> {
        let width = self.width as usize;
        let right = area.right.min(width);
        let left = area.left.min(right);
        let rows = self.pixels.chunks_exact_mut(width * PIXEL);
        let rows = rows.take(area.bottom).skip(area.top);
        rows.map(move |row| &mut row[left * PIXEL..right * PIXEL])
    }
}

/// Blends the pixel `above` over the pixel `below`.
pub(super) fn over(above: [u8; PIXEL], below: [u8; PIXEL]) -> [u8; PIXEL] {
    match (above[3], below[3]) {
        (u8::MAX, _) => above,
        (0, _) => below,
        (_, 0) => above,
        (alpha, under) => {
            let (alpha, full) = (u32::from(alpha), 255);
            // The part of the lower pixel in the sum, in steps of 255 squared.
            let rest = u32::from(under) * (full - alpha);
            let sum = alpha * full + rest;
            let mix = |at: usize| {
                let color = u32::from(above[at]) * alpha * full + u32::from(below[at]) * rest;
                ((color + sum / 2) / sum) as u8
            };
            [mix(0), mix(1), mix(2), ((sum + full / 2) / full) as u8]
        }
    }
}

/// Encodes frames of equal sides, with 8 bits per sample. Only PNG may stay grey, for the colours of a profile for grey
/// are those of grey pixels.
pub(super) fn encode(
    frames: Vec<Frame>,
    plays: u32,
    format: Format,
    how: Encoding,
    metadata: Option<&Metadata>,
) -> Result<Vec<u8>, ImageError> {
    let has_alpha = frames.iter().any(|frame| frame.pixels.color.has_alpha());
    let is_grey = |frame: &Frame| matches!(frame.pixels.color, Color::Gray | Color::GrayAlpha);
    let stays_grey = format == Format::Png && frames.iter().all(is_grey);
    let frames = frames.into_iter().map(|frame| {
        let pixels = match stays_grey {
            true => frame.pixels,
            false => frame.pixels.into_rgb(),
        };
        let pixels = pixels.into_eight_bits();
        let pixels = if has_alpha {
            pixels.with_alpha()
        } else {
            pixels
        };
        Frame { pixels, ..frame }
    });
    let frames: Vec<Frame> = frames.collect();
    match format {
        Format::Gif => gif::encode(frames, plays),
        Format::Png => animated_png(&frames, plays, metadata),
        Format::WebP => webp::encode_animation(&frames, plays, how, metadata),
        _ => Err(ImageError::NotAnOutput { format }),
    }
}

/// A frame to write: the part that differs from the previous frame.
pub(super) struct Change {
    /// The position of the part in the picture. Both numbers are even, as WebP requires.
    pub(super) left: u32,
    pub(super) top: u32,
    pub(super) pixels: Pixels,
    pub(super) millis: u32,
}

impl Change {
    pub(super) fn whole(frame: Frame) -> Change {
        Change {
            left: 0,
            top: 0,
            pixels: frame.pixels,
            millis: frame.millis,
        }
    }
}

/// How to write unchanged pixels inside the area of a change.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Unchanged {
    /// The pixels are written again.
    Repeated,
    /// The pixels become transparent. Requires RGBA frames.
    Transparent,
}

/// The longest time of a frame: GIF and PNG count hundredths of a second in 16 bits.
const MAX_MILLIS: u32 = u16::MAX as u32 * 10;

/// Returns the changes from frame to frame. The first change is the whole first frame. A frame that equals the previous
/// frame only prolongs that frame.
pub(super) fn changes(frames: &[Frame], unchanged: Unchanged) -> Vec<Change> {
    let mut changes: Vec<Change> = Vec::with_capacity(frames.len());
    let mut before: Option<&Pixels> = None;
    for frame in frames {
        let millis = frame.millis.min(MAX_MILLIS);
        let sides = (frame.pixels.width, frame.pixels.height);
        let before = before.replace(&frame.pixels);
        let area = match before {
            None => Some(Area::new((0, 0), sides)),
            Some(before) => Area::of_difference(before, &frame.pixels),
        };
        match (area, changes.last_mut()) {
            (None, Some(last)) if last.millis + millis <= MAX_MILLIS => last.millis += millis,
            (area, _) => {
                let area = area.unwrap_or(Area::new((0, 0), (1, 1)));
                let mut pixels = area.of(&frame.pixels);
                if let Some(before) = before.filter(|_| unchanged == Unchanged::Transparent) {
                    pixels.hide_equal(&area.of(before));
                }
                changes.push(Change {
                    left: area.left as u32,
                    top: area.top as u32,
                    pixels,
                    millis,
                });
            }
        }
    }
    changes
}

/// A part of a picture, in pixels.
#[derive(Clone, Copy)]
pub(super) struct Area {
    left: usize,
    top: usize,
    right: usize,
    bottom: usize,
}

impl Area {
    pub(super) fn new((left, top): (u32, u32), (width, height): (u32, u32)) -> Area {
        Area {
            left: left as usize,
            top: top as usize,
            right: left as usize + width as usize,
            bottom: top as usize + height as usize,
        }
    }

    /// Returns the smallest area that contains all differences between two pictures, at an even position. `None` if
    /// they are equal.
    fn of_difference(one: &Pixels, other: &Pixels) -> Option<Area> {
        let channels = one.color.channels();
        let width = one.width as usize;
        let (one, other) = (one.eight_bits(), other.eight_bits());
        let mut found: Option<Area> = None;
        let rows = one
            .chunks_exact(width * channels)
            .zip(other.chunks_exact(width * channels));
        for (y, (one, other)) in rows.enumerate() {
            let differs = |(a, b): (&u8, &u8)| a != b;
            let Some(first) = one.iter().zip(other).position(differs) else {
                continue;
            };
            let last = one.iter().zip(other).rposition(differs).unwrap_or(first);
            let area = found.get_or_insert(Area {
                left: width,
                top: y,
                right: 0,
                bottom: 0,
            });
            area.left = area.left.min(first / channels);
            area.right = area.right.max(last / channels + 1);
            area.bottom = y + 1;
        }
        found.map(|area| Area {
            left: area.left / 2 * 2,
            top: area.top / 2 * 2,
            ..area
        })
    }

    /// Copies the part of a picture with 8 bits per sample that this area covers.
    fn of(&self, pixels: &Pixels) -> Pixels {
        let channels = pixels.color.channels();
        let samples = pixels.eight_bits();
        let rows = samples.chunks_exact(pixels.width as usize * channels);
        let rows = rows.take(self.bottom).skip(self.top);
        let part = rows.flat_map(|row| &row[self.left * channels..self.right * channels]);
        Pixels {
            width: (self.right - self.left) as u32,
            height: (self.bottom - self.top) as u32,
            color: pixels.color,
            samples: Samples::Eight(part.copied().collect()),
        }
    }
}

fn animated_png(
    frames: &[Frame],
    plays: u32,
    metadata: Option<&Metadata>,
) -> Result<Vec<u8>, ImageError> {
    let failed = |error: ::png::EncodingError| ImageError::Encode {
        format: Format::Png,
        reason: error.to_string(),
    };
    let changes = changes(frames, Unchanged::Repeated);
    let mut out = Vec::new();
    let Some(first) = changes.first() else {
        return Ok(out);
    };
    let mut info = Info::with_size(first.pixels.width, first.pixels.height);
    info.bit_depth = BitDepth::Eight;
    let color = first.pixels.color;
    info.color_type = match color {
        Color::Gray => ColorType::Grayscale,
        Color::GrayAlpha => ColorType::GrayscaleAlpha,
        Color::Rgba => ColorType::Rgba,
        _ => ColorType::Rgb,
    };
    encode::describe_png(&mut info, metadata);
    let icc = info.icc_profile;
    info.icc_profile = icc.filter(|icc| is_profile_of(icc, color));
    let mut encoder = ::png::Encoder::with_info(&mut out, info).map_err(failed)?;
    encoder
        .set_animated(changes.len() as u32, plays)
        .map_err(failed)?;
    let mut writer = encoder.write_header().map_err(failed)?;
    for change in &changes {
        let Change {
            left,
            top,
            pixels,
            millis,
        } = change;
        let (delay, per_second) = match u16::try_from(*millis) {
            Ok(millis) => (millis, 1000),
            Err(_) => (u16::try_from(millis / 10).unwrap_or(u16::MAX), 100),
        };
        writer
            .set_frame_delay(delay, per_second)
            .and_then(|()| writer.set_blend_op(BlendOp::Source))
            .and_then(|()| writer.set_dispose_op(DisposeOp::None))
            .and_then(|()| writer.reset_frame_position())
            .and_then(|()| writer.set_frame_dimension(pixels.width, pixels.height))
            .and_then(|()| writer.set_frame_position(*left, *top))
            .and_then(|()| writer.write_image_data(pixels.eight_bits()))
            .map_err(failed)?;
    }
    writer.finish().map_err(failed)?;
    if let Some(metadata) = metadata {
        complete_png(&mut out, metadata);
    }
    Ok(out)
}
