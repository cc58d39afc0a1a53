//! Animations: the frames of a file as they are shown, and files of resized frames.
//!
//! Frames are decoded and resized one after the other, so that only one is in memory at full size. A written frame covers
//! the part of the picture that differs from the frame before.

use std::io::Cursor;

use ::png::{BitDepth, BlendOp, ColorType, DisposeOp, Info};
use image::codecs::png::PngDecoder;
use image::codecs::webp::WebPDecoder;
use image::metadata::LoopCount;
use image::{AnimationDecoder, ImageDecoder};

use super::damage::Found;
use super::encode::{self, Encoding};
use super::error::ImageError;
use super::format::Format;
use super::meta::{Metadata, add_xmp_to_png, webp_file};
use super::pixels::{Color, Pixels, Samples};
use super::spec::ResizeSpec;
use super::still::{decoding_limits, translate};
use super::{gif, png, riff};

/// A picture, or one of an animation.
pub(super) struct Frame {
    pub(super) pixels: Pixels,
    /// How long it is shown, in milliseconds; 0 for a still picture.
    pub(super) millis: u32,
}

/// The frames of a file, one after the other.
pub(super) struct Animation<'a> {
    /// Ends after damage.
    pub(super) frames: Box<dyn Iterator<Item = Result<Frame, Found>> + 'a>,
    /// How often it is shown; 0 is without end.
    pub(super) plays: u32,
}

/// Opens the animation in a file whose first picture has been decoded within the limits of `spec`. `None` if the file
/// has one picture, and for PNG with 16 bits per sample, of which only the first is read.
pub(super) fn open<'a>(
    input: &'a [u8],
    format: Format,
    spec: &'a ResizeSpec,
) -> Result<Option<Animation<'a>>, ImageError> {
    let failed = |error| translate(error, format);
    Ok(match format {
        Format::Gif => gif::animation(input, spec)?,
        Format::WebP if riff::frames(input) > 1 => {
            riff::check_frames(input)?;
            let file = Cursor::new(riff::with_transparent_canvas(input));
            let mut decoder = WebPDecoder::new(file).map_err(failed)?;
            let limits = decoding_limits(decoder.total_bytes());
            decoder.set_limits(limits).map_err(failed)?;
            Some(decoded_by(decoder, format))
        }
        Format::Png if png::is_animated(input) => {
            let mut decoder = PngDecoder::new(Cursor::new(input)).map_err(failed)?;
            let limits = decoding_limits(decoder.total_bytes());
            decoder.set_limits(limits).map_err(failed)?;
            Some(decoded_by(decoder.apng().map_err(failed)?, format))
        }
        _ => None,
    })
}

fn decoded_by<'a>(decoder: impl AnimationDecoder<'a>, format: Format) -> Animation<'a> {
    let plays = match decoder.loop_count() {
        LoopCount::Infinite => 0,
        LoopCount::Finite(plays) => plays.get(),
    };
    let frames = decoder.into_frames().map(move |frame| {
        let frame = frame.map_err(|error| Found::later(translate(error, format)))?;
        let (millis, over) = frame.delay().numer_denom_ms();
        let shown = frame.into_buffer();
        let pixels = Pixels {
            width: shown.width(),
            height: shown.height(),
            color: Color::Rgba,
            samples: Samples::Eight(shown.into_raw()),
        };
        Ok(Frame {
            pixels: pixels.without_full_alpha(),
            millis: millis / over.max(1),
        })
    });
    let mut has_failed = false;
    let frames =
        frames.take_while(move |frame| !std::mem::replace(&mut has_failed, frame.is_err()));
    Animation {
        frames: Box::new(frames),
        plays,
    }
}

/// Encodes frames of equal sides, with 8 bits per sample in RGB or RGBA.
pub(super) fn encode(
    frames: Vec<Frame>,
    plays: u32,
    format: Format,
    how: Encoding,
    metadata: Option<&Metadata>,
) -> Result<Vec<u8>, ImageError> {
    let has_alpha = frames.iter().any(|frame| frame.pixels.color.has_alpha());
    let frames = frames.into_iter().map(|frame| {
        let pixels = frame.pixels.into_rgb().into_eight_bits();
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
        Format::WebP => animated_webp(&frames, plays, how, metadata),
        _ => Err(ImageError::NotAnOutput { format }),
    }
}

/// A frame to write: the part of it that differs from the one before.
pub(super) struct Change {
    /// The offset in the picture, both numbers even, as WebP needs them.
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

/// Pixels that are the same as in the frame before, beside pixels that are not.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Unchanged {
    /// They are repeated.
    Repeated,
    /// They are transparent. The frames are RGBA.
    Transparent,
}

/// The longest time of a frame: GIF and PNG count hundredths of a second in 16 bits.
const MOST_MILLIS: u32 = u16::MAX as u32 * 10;

/// What changes from frame to frame. The first is whole; one that equals its predecessor only prolongs it.
pub(super) fn changes(frames: &[Frame], unchanged: Unchanged) -> Vec<Change> {
    let mut changes: Vec<Change> = Vec::with_capacity(frames.len());
    let mut before: Option<&Pixels> = None;
    for frame in frames {
        let millis = frame.millis.min(MOST_MILLIS);
        let sides = (frame.pixels.width, frame.pixels.height);
        let before = before.replace(&frame.pixels);
        let area = match before {
            None => Some(Area::whole(sides)),
            Some(before) => Area::of_difference(before, &frame.pixels),
        };
        match (area, changes.last_mut()) {
            (None, Some(last)) if last.millis + millis <= MOST_MILLIS => last.millis += millis,
            (area, _) => {
                let area = area.unwrap_or(Area::whole((1, 1)));
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
struct Area {
    left: usize,
    top: usize,
    right: usize,
    bottom: usize,
}

impl Area {
    fn whole((width, height): (u32, u32)) -> Area {
        Area {
            left: 0,
            top: 0,
            right: width as usize,
            bottom: height as usize,
        }
    }

    /// The smallest area outside of which two pictures are equal, with an even offset; `None` if they are equal.
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

    /// This part of a picture of 8 bits per sample.
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
    info.color_type = match first.pixels.color {
        Color::Rgba => ColorType::Rgba,
        _ => ColorType::Rgb,
    };
    encode::describe_png(&mut info, metadata);
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
    if let Some(xmp) = metadata.and_then(|metadata| metadata.xmp.as_deref()) {
        add_xmp_to_png(&mut out, xmp);
    }
    Ok(out)
}

fn animated_webp(
    frames: &[Frame],
    plays: u32,
    how: Encoding,
    metadata: Option<&Metadata>,
) -> Result<Vec<u8>, ImageError> {
    let changes = changes(frames, Unchanged::Repeated);
    let mut encoded = Vec::with_capacity(changes.len());
    for change in &changes {
        encoded.push(encode::webp_picture(&change.pixels, how)?);
    }
    let chunks = changes.iter().zip(&encoded).map(|(change, file)| {
        let sides = (change.pixels.width, change.pixels.height);
        riff::frame((change.left, change.top), sides, change.millis, file)
    });
    let sides = frames
        .first()
        .map_or((1, 1), |first| (first.pixels.width, first.pixels.height));
    let has_alpha = frames.iter().any(|frame| frame.pixels.color.has_alpha());
    let body: Option<Vec<Vec<u8>>> = chunks.collect();
    let flags = riff::ANIMATION | if has_alpha { riff::ALPHA } else { 0 };
    body.and_then(|frames| {
        let plays = u16::try_from(plays).unwrap_or(u16::MAX);
        let body = [riff::animation(plays), frames.concat()].concat();
        webp_file(
            &body,
            flags,
            sides,
            metadata.unwrap_or(&Metadata::default()),
        )
    })
    .ok_or_else(|| ImageError::Encode {
        format: Format::WebP,
        reason: "it is larger than 4 GiB".to_owned(),
    })
}
