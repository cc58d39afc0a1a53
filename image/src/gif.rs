//! GIF, by the `gif` crate: frames on a screen that is at least as large as the first frame.

use std::borrow::Cow;
use std::io::{Cursor, Read};
use std::ops::Range;

use gif::{
    ColorOutput, DecodeOptions, DecodingError, DisposalMethod, Encoder, Extension, MemoryLimit,
    Repeat,
};

use super::animation::{Animation, Area, Change, Disposal, Frame, Screen, Unchanged, changes};
use super::damage::{Found, Loss};
use super::encode::INVISIBLE;
use super::error::ImageError;
use super::format::Format;
use super::meta::{Decoded, Metadata, Request};
use super::palette::{Indexed, MAX_COLORS};
use super::pixels::{Color, Orientation, Pixels, Samples, buffer};
use super::spec::ResizeSpec;

/// Bytes of a pixel.
const PIXEL: usize = 4;

/// Decodes the first frame. If the screen is smaller than the frame, or has no size, it grows to the frame, as in
/// browsers.
pub(super) fn decode(input: &[u8], request: Request<'_>) -> Result<Decoded, ImageError> {
    let spec = request.spec;
    let format = Format::Gif;
    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::RGBA);
    // The size is checked here, before anything is allocated.
    options.set_memory_limit(MemoryLimit::Unlimited);
    let file = Cursor::new(without_padding(input));
    let mut decoder = options.read_info(file).map_err(translate)?;
    let area = |width: u32, height: u32| u64::from(width) * u64::from(height);
    let screen @ (width, height) = (decoder.width().into(), decoder.height().into());
    if area(width, height) > 0 {
        spec.check_source(screen, format)?;
        spec.admit(area(width, height) * PIXEL as u64, input.len() as u64)?;
    }
    let frame = decoder.next_frame_info().map_err(translate)?;
    let frame = frame.ok_or_else(|| ImageError::corrupt(format, "it has no picture"))?;
    let [left, top, across, down] =
        [frame.left, frame.top, frame.width, frame.height].map(u32::from);
    let width = u32::from(decoder.width()).max(left + across);
    let height = u32::from(decoder.height()).max(top + down);
    spec.check_source((width, height), format)?;
    spec.check_source((across, down), format)?;
    let is_whole = (across, down) == (width, height);
    let bytes = area(width, height) * PIXEL as u64;
    spec.admit(bytes, input.len() as u64)?;
    let metadata = Metadata {
        exif: None,
        xmp: decoder.xmp_metadata().map(<[u8]>::to_vec),
        icc: decoder.icc_profile().map(<[u8]>::to_vec),
        hdr: None,
    };
    let orientation = Orientation::NoTransforms;
    let plans = request.plans((width, height), orientation, format)?;

    let mut shown = buffer::<u8>(area(across, down) as usize * PIXEL)?;
    let mut damage = None;
    if let Err(error) = decoder.read_into_buffer(&mut shown) {
        // Pixels that were not decoded are transparent, like pixels that a frame leaves free.
        let missing = shown.as_chunks::<PIXEL>().0.iter().rev();
        let missing = missing.take_while(|pixel| **pixel == [0; PIXEL]).count();
        let loss = Loss::Pixels(missing.max(1) as u64);
        let error = translate(error);
        damage = Some(Found { loss, error });
    }
    let samples = if is_whole {
        shown
    } else {
        let mut screen = buffer::<u8>(bytes as usize)?;
        let (row, wide) = (across as usize * PIXEL, width as usize * PIXEL);
        let rows = screen.chunks_exact_mut(wide).skip(top as usize);
        for (to, from) in rows.zip(shown.chunks_exact(row)) {
            to[left as usize * PIXEL..][..row].copy_from_slice(from);
        }
        screen
    };
    let pixels = Pixels {
        width,
        height,
        color: Color::Rgba,
        samples: Samples::Eight(samples),
    };
    Ok(Decoded {
        // The decoder always yields alpha.
        pixels: pixels.without_full_alpha(),
        chroma: None,
        plans,
        orientation,
        metadata,
        damage,
        full: (width, height),
    })
}

/// Returns the frames of a file with more than one frame, or with damage after the first frame.
pub(super) fn animation<'a>(
    input: &'a [u8],
    spec: &'a ResizeSpec,
    draws: bool,
) -> Result<Option<Animation<'a>>, ImageError> {
    let file = without_padding(input);
    let mut options = DecodeOptions::new();
    options.skip_frame_decoding(true);
    let mut decoder = options.read_info(&file[..]).map_err(translate)?;
    for _ in 0..2 {
        if let Ok(None) = decoder.next_frame_info() {
            return Ok(None);
        }
    }
    // GIF stores how often the animation starts again.
    let plays = match repetitions(&file) {
        Some(0) => 0,
        again => u32::from(again.unwrap_or(0)) + 1,
    };
    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::RGBA);
    // Sizes are checked here, before anything is allocated.
    options.set_memory_limit(MemoryLimit::Unlimited);
    let mut decoder = options.read_info(Cursor::new(file)).map_err(translate)?;
    let mut screen = None;
    let next = move || {
        let frame = match decoder.next_frame_info() {
            Ok(Some(frame)) => frame,
            Ok(None) => return Ok(None),
            Err(error) => {
                return Err(match translate(error) {
                    ImageError::Truncated { format } if lacks_only_its_end(input) => {
                        Found::around(no_end(format))
                    }
                    error => Found::later(error),
                });
            }
        };
        let place = (frame.left.into(), frame.top.into());
        let sides = (frame.width.into(), frame.height.into());
        let disposal = match frame.dispose {
            DisposalMethod::Any | DisposalMethod::Keep => Disposal::Keep,
            DisposalMethod::Background => Disposal::Clear,
            DisposalMethod::Previous => Disposal::Restore,
        };
        let millis = u32::from(frame.delay) * HUNDREDTH as u32;
        let screen = match &mut screen {
            Some(screen) => screen,
            none => {
                let width = u32::from(decoder.width()).max(place.0 + sides.0);
                let height = u32::from(decoder.height()).max(place.1 + sides.1);
                let made = Screen::new((width, height), (input, Format::Gif), spec, draws);
                none.insert(made.map_err(Found::later)?)
            }
        };
        let bytes = screen.admit(sides).map_err(Found::later)?;
        let mut drawn = buffer::<u8>(bytes).map_err(Found::later)?;
        let read = decoder.read_into_buffer(&mut drawn);
        read.map_err(|error| Found::later(translate(error)))?;
        screen.draw(Area::new(place, sides), &drawn, true, disposal);
        Ok(Some(screen.frame(millis)))
    };
    Ok(Some(Animation::new(plays, next)))
}

/// Returns the damage of a file that ends before its last block or its end marker does.
pub(super) fn damage_after_first(file: &[u8]) -> Option<Found> {
    let format = Format::Gif;
    let last = blocks(file).last()?.end;
    match file.len().checked_sub(last) {
        None => Some(Found::later(ImageError::Truncated { format })),
        Some(0) => Some(Found::around(no_end(format))),
        // The end marker, or a block of an unknown kind.
        Some(_) => None,
    }
}

/// Returns the sides of the screen in the header.
pub(super) fn announced(file: &[u8]) -> Option<(u32, u32)> {
    sides(file.get(6..)?)
}

/// Returns the sides of all frames, according to their headers.
pub(super) fn frame_sides(file: &[u8]) -> impl Iterator<Item = (u32, u32)> {
    let frames = blocks(file).filter(|block| file[block.start] == b',');
    frames.filter_map(|block| sides(file.get(block.start + 5..)?))
}

/// Reads two sides.
fn sides(bytes: &[u8]) -> Option<(u32, u32)> {
    let &[a, b, c, d] = bytes.first_chunk()?;
    Some((
        u16::from_le_bytes([a, b]).into(),
        u16::from_le_bytes([c, d]).into(),
    ))
}

/// Returns the places of the blocks before the end marker. A zero counts as a block. The last block may end beyond the
/// file.
fn blocks(file: &[u8]) -> impl Iterator<Item = Range<usize>> {
    let palette = |flags: u8| match flags & 0x80 {
        0 => 0_usize,
        _ => 3 << ((flags & 7) + 1),
    };
    // Skips parts of a block; each begins with its length, and the last is empty.
    let after_parts = move |mut at: usize| {
        while let Some(&length @ 1..) = file.get(at) {
            at += 1 + usize::from(length);
        }
        at + 1
    };
    let flags = move |at: usize| file.get(at).copied().unwrap_or_default();
    let mut at = 13 + palette(flags(10));
    std::iter::from_fn(move || {
        let start = at;
        at = match file.get(start)? {
            0 => start + 1,
            b'!' => after_parts(start + 2),
            b',' => after_parts(start + 10 + palette(flags(start + 9)) + 1),
            _ => return None,
        };
        Some(start..at)
    })
}

/// Returns the file without zeros before its blocks and its end marker, which other programs skip too. Extensions of
/// unknown kinds, which a decoder has to skip, become comments.
fn without_padding(file: &[u8]) -> Cow<'_, [u8]> {
    let (mut copied, mut start) = (Vec::new(), 0);
    for block in blocks(file) {
        match file[block.start] {
            0 => {
                copied.extend_from_slice(&file[start..block.start]);
                start = block.end;
            }
            b'!' => {
                let is_unknown = |&label: &u8| Extension::from_u8(label).is_none();
                if file.get(block.start + 1).is_some_and(is_unknown) {
                    copied.extend_from_slice(&file[start..=block.start]);
                    copied.push(Extension::Comment as u8);
                    start = block.start + 2;
                }
            }
            _ => {}
        }
    }
    if start == 0 {
        return Cow::Borrowed(file);
    }
    copied.extend_from_slice(&file[start..]);
    Cow::Owned(copied)
}

/// Returns how often the animation starts again, 0 for endless repetition, from the last extension that says so: it may
/// stand anywhere among the frames. `None` if none does.
fn repetitions(file: &[u8]) -> Option<u16> {
    let extensions = blocks(file).filter_map(|block| file.get(block));
    let again = extensions.filter_map(|block| {
        let parts = block.strip_prefix(b"!\xff\x0b")?;
        let parts = parts
            .strip_prefix(b"NETSCAPE2.0")
            .or_else(|| parts.strip_prefix(b"ANIMEXTS1.0"))?;
        match *parts {
            // The first part: its length and kind.
            [3..=u8::MAX, 1, low, high, ..] => Some(u16::from_le_bytes([low, high])),
            _ => None,
        }
    });
    again.last()
}

fn no_end(format: Format) -> ImageError {
    ImageError::corrupt(format, "its end marker is missing")
}

/// Returns whether a file that ends early contains all frames.
fn lacks_only_its_end(file: &[u8]) -> bool {
    let mut options = DecodeOptions::new();
    options.skip_frame_decoding(true);
    let file = without_padding(file);
    let Ok(mut decoder) = options.read_info(file.chain(&b";"[..])) else {
        return false;
    };
    loop {
        match decoder.next_frame_info() {
            Ok(Some(_)) => {}
            end => return end.is_ok(),
        }
    }
}

/// The number of milliseconds in a hundredth of a second, the unit of time in GIF.
const HUNDREDTH: u64 = 10;

/// The lowest alpha of a pixel that becomes opaque: GIF has no half-transparent pixels.
const OPAQUE: u8 = 128;

/// Encodes a picture of 8-bit RGB or RGBA.
pub(super) fn encode_still(pixels: &Pixels) -> Result<Vec<u8>, ImageError> {
    let still = Frame {
        pixels: pixels.clone(),
        millis: 0,
    };
    encode(vec![still], 1)
}

/// Encodes frames of 8-bit RGB or RGBA. Each frame gets the 256 colours that fit best.
pub(super) fn encode(frames: Vec<Frame>, plays: u32) -> Result<Vec<u8>, ImageError> {
    let failed = |reason: String| ImageError::Encode {
        format: Format::Gif,
        reason,
    };
    let frames: Vec<Frame> = frames.into_iter().map(without_half_alpha).collect();
    // A frame can cover earlier pixels, but cannot make them transparent again.
    let clears = frames
        .windows(2)
        .any(|pair| becomes_transparent(&pair[0].pixels, &pair[1].pixels));
    let changes = match clears {
        true => frames.into_iter().map(Change::whole).collect(),
        false => changes(&frames, Unchanged::Transparent),
    };
    let Some(first) = changes.first() else {
        return Err(failed("it has no frame".to_owned()));
    };
    let short = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
    let (width, height) = (short(first.pixels.width), short(first.pixels.height));
    let mut out = Vec::new();
    let written = |error: gif::EncodingError| failed(error.to_string());
    let mut encoder = Encoder::new(&mut out, width, height, &[]).map_err(written)?;
    let repeat = match plays {
        0 => Some(Repeat::Infinite),
        // Without a number the animation is displayed once.
        1 => None,
        plays => Some(Repeat::Finite(short(plays - 1))),
    };
    if let Some(repeat) = repeat {
        encoder.set_repeat(repeat).map_err(written)?;
    }
    let mut time = 0;
    for change in changes {
        let pixels = &change.pixels;
        let indexed =
            indexed(pixels, clears).ok_or_else(|| failed("it has no 8-bit colours".to_owned()))?;
        // Rounded as a running sum, so that long animations keep their total time.
        let hundredths = |millis: u64| (millis + HUNDREDTH / 2) / HUNDREDTH;
        let start = hundredths(time);
        time += u64::from(change.millis);
        let frame = gif::Frame {
            delay: short((hundredths(time) - start) as u32),
            dispose: match clears {
                true => DisposalMethod::Background,
                false => DisposalMethod::Keep,
            },
            transparent: has_transparent(&indexed).then_some(0),
            left: short(change.left),
            top: short(change.top),
            width: short(pixels.width),
            height: short(pixels.height),
            palette: Some(
                indexed
                    .colors
                    .iter()
                    .flat_map(|color| color[..3].to_vec())
                    .collect(),
            ),
            buffer: Cow::Owned(indexed.indices),
            ..gif::Frame::default()
        };
        encoder.write_frame(&frame).map_err(written)?;
    }
    drop(encoder);
    Ok(out)
}

/// Returns the colours of a frame: its own, or those that fit best, mixed where the difference would be visible. A
/// transparent colour comes first. A frame that is cleared always has a transparent colour: most decoders clear to it,
/// or to another colour if it is missing.
fn indexed(pixels: &Pixels, is_cleared: bool) -> Option<Indexed> {
    let mut indexed = match Indexed::exact(pixels) {
        Some(exact)
            if !is_cleared || exact.colors.len() < MAX_COLORS || has_transparent(&exact) =>
        {
            exact
        }
        _ => nearest(
            pixels,
            if is_cleared {
                MAX_COLORS - 1
            } else {
                MAX_COLORS
            },
        )?,
    };
    if is_cleared && !has_transparent(&indexed) {
        indexed.colors.insert(0, [0; PIXEL]);
        indexed.indices.iter_mut().for_each(|index| *index += 1);
    }
    Some(indexed)
}

fn has_transparent(indexed: &Indexed) -> bool {
    indexed.colors.first().is_some_and(|color| color[3] == 0)
}

/// Returns the picture with at most `most` colours, those that fit best.
fn nearest(pixels: &Pixels, most: usize) -> Option<Indexed> {
    let mut indexed = Indexed::nearest(pixels, most)?;
    if indexed.error > INVISIBLE {
        indexed = indexed.dithered(pixels);
    }
    // Colours that are means of opaque and transparent pixels become transparent.
    let clear = indexed
        .colors
        .iter()
        .take_while(|color| color[3] < OPAQUE)
        .count();
    if let Some(first) = indexed.colors.first_mut().filter(|_| clear > 0) {
        *first = [0; PIXEL];
        let indices = indexed.indices.iter_mut();
        indices
            .filter(|index| usize::from(**index) < clear)
            .for_each(|index| *index = 0);
    }
    Some(indexed)
}

/// Returns the frame as RGBA, with each pixel opaque or transparent.
fn without_half_alpha(frame: Frame) -> Frame {
    let mut pixels = frame.pixels.with_alpha();
    if let Samples::Eight(samples) = &mut pixels.samples {
        for pixel in samples.as_chunks_mut::<PIXEL>().0 {
            match pixel[3] >= OPAQUE {
                true => pixel[3] = u8::MAX,
                false => *pixel = [0; PIXEL],
            }
        }
    }
    Frame { pixels, ..frame }
}

/// Returns whether an opaque pixel of one frame is transparent in the next.
fn becomes_transparent(one: &Pixels, next: &Pixels) -> bool {
    let (one, next) = (
        one.eight_bits().as_chunks().0,
        next.eight_bits().as_chunks().0,
    );
    let mut pairs = one.iter().zip(next);
    pairs.any(|(one, next): (&[u8; PIXEL], &[u8; PIXEL])| one[3] > 0 && next[3] == 0)
}

/// Converts an error of the decoder.
fn translate(error: DecodingError) -> ImageError {
    let format = Format::Gif;
    match error {
        DecodingError::UnexpectedEof => ImageError::Truncated { format },
        DecodingError::Io(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            ImageError::Truncated { format }
        }
        DecodingError::OutOfMemory | DecodingError::MemoryLimit => {
            ImageError::OutOfMemory { bytes: 0 }
        }
        DecodingError::LzwError(_) => {
            ImageError::corrupt(format, "its pixels hold an invalid code")
        }
        DecodingError::EndCodeNotFound => {
            ImageError::corrupt(format, "it has fewer pixels than its header says")
        }
        DecodingError::Format(error) => {
            let text = error.to_string();
            let reason = match text.as_str() {
                _ if text.contains("truncated") || text.contains("unexpected data") => {
                    "it has fewer pixels than its header says"
                }
                _ if text.contains("code size") => "its pixels have codes of an impossible size",
                _ if text.contains("color table") => "it has no palette",
                _ if text.contains("block type") => "an unknown kind of block",
                text => text,
            };
            ImageError::corrupt(format, reason)
        }
        other => ImageError::corrupt(format, other),
    }
}
