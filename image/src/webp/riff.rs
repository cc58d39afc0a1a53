//! The container of WebP: chunks, metadata, the frames of an animation.

use super::super::animation::{Animation, Area, Disposal, Screen};
use super::super::damage::{Found, Loss};
use super::super::error::ImageError;
use super::super::format::Format;
use super::super::meta::Metadata;
use super::super::spec::ResizeSpec;
use super::{decoder, still};

pub(super) const EXIF: &[u8; 4] = b"EXIF";
pub(super) const XMP: &[u8; 4] = b"XMP ";
pub(super) const ICC: &[u8; 4] = b"ICCP";

/// The header of the file: the outer chunk's kind and length, and the file type.
const HEADER: usize = 4 + 4 + 4;
// Flags in the first byte of the header of an extended file. Three reserved bytes follow this byte, then the sides,
// each minus 1, in three bytes.
pub(super) const ANIMATION: u8 = 0x02;
pub(super) const ALPHA: u8 = 0x10;
const HAS_XMP: u8 = 0x04;
const HAS_EXIF: u8 = 0x08;
const HAS_ICC: u8 = 0x20;
/// The number of bytes of a frame before the chunks of its picture: position, sides, duration, flags.
const FRAME: usize = 16;
/// Flag of a frame: its area becomes transparent before the next frame.
const CLEARED: u8 = 0x01;
/// Flag of a frame: it replaces the pixels that it covers.
const REPLACES: u8 = 0x02;

/// Returns the chunks: kind, length of the data according to the header, and the data that exists.
fn chunks(mut rest: &[u8]) -> impl Iterator<Item = ([u8; 4], usize, &[u8])> {
    std::iter::from_fn(move || {
        let (&[k0, k1, k2, k3, a, b, c, d], after) = rest.split_first_chunk::<8>()?;
        let len = u32::from_le_bytes([a, b, c, d]) as usize;
        // Chunks start at even offsets.
        let whole = len.saturating_add(len % 2).min(after.len());
        rest = &after[whole..];
        Some(([k0, k1, k2, k3], len, &after[..len.min(after.len())]))
    })
}

/// Returns whether the file is shorter than its header says.
pub(super) fn is_truncated(file: &[u8]) -> bool {
    chunks(file)
        .next()
        .is_some_and(|(_, len, data)| data.len() < len)
}

/// Returns what is wrong with the chunks of an animation, so that frames are lost.
fn broken_among_frames(file: &[u8]) -> Option<&'static str> {
    let (_, _, content) = chunks(file).next().filter(|_| is_animation(file))?;
    for (kind, len, data) in chunks(content.get(4..)?) {
        if data.len() < len {
            return Some("a chunk is longer than the file");
        }
        // Chunks of other kinds may stand between frames.
        let picture = data.get(FRAME..FRAME + 4).filter(|_| &kind != b"ANMF");
        if matches!(picture, Some(b"VP8 " | b"VP8L" | b"ALPH")) {
            return Some("a frame has the name of another chunk");
        }
    }
    None
}

/// Returns the damage of a file whose first picture is whole, if the file is shorter than its header says, or if frames
/// are lost.
pub(in super::super) fn damage_after_first(file: &[u8]) -> Option<Found> {
    let format = Format::WebP;
    if !is_truncated(file) {
        let reason = broken_among_frames(file)?;
        return Some(Found::later(ImageError::corrupt(format, reason)));
    }
    Some(match is_animation(file) {
        true => Found {
            loss: Loss::Later,
            error: ImageError::Truncated { format },
        },
        false => Found::around(ImageError::corrupt(
            format,
            "it is shorter than its header says",
        )),
    })
}

/// Returns the chunks after the header of an extended file; none for other files.
fn extended(file: &[u8]) -> impl Iterator<Item = ([u8; 4], usize, &[u8])> {
    let mut chunks = chunks(file.get(HEADER..).unwrap_or_default());
    let is_extended = chunks.next().is_some_and(|(kind, ..)| kind == *b"VP8X");
    is_extended.then_some(chunks).into_iter().flatten()
}

/// Returns the first chunk with metadata of this kind in an extended file, if it is complete and the header announces
/// it: libwebp ignores other chunks.
pub(super) fn bytes_of(file: &[u8], kind: &[u8; 4]) -> Option<Vec<u8>> {
    let flag = match kind {
        ICC => HAS_ICC,
        EXIF => HAS_EXIF,
        _ => HAS_XMP,
    };
    file.get(HEADER + 8).filter(|flags| *flags & flag != 0)?;
    let (_, len, data) = extended(file).find(|(found, ..)| found == kind)?;
    (data.len() == len).then(|| data.to_vec())
}

/// Returns the chunk with the alpha of a lossy picture: the last before the colours, as in libwebp.
pub(super) fn alpha(file: &[u8]) -> Option<&[u8]> {
    let chunks = extended(file).take_while(|(kind, ..)| kind != b"VP8 ");
    let alpha = chunks.filter(|(kind, ..)| kind == b"ALPH").last();
    alpha.map(|(_, _, data)| data)
}

/// Returns whether the file is an animation.
pub(super) fn is_animation(file: &[u8]) -> bool {
    let header = file.get(HEADER..).unwrap_or_default();
    header.starts_with(b"VP8X") && header.get(8).is_some_and(|flags| flags & ANIMATION != 0)
}

/// Returns whether a file may have alpha beside its pixels: an extended file says so in its header.
pub(super) fn announces_alpha(file: &[u8]) -> bool {
    let header = file.get(HEADER..).unwrap_or_default();
    !header.starts_with(b"VP8X") || header.get(8).is_some_and(|flags| flags & ALPHA != 0)
}

/// Returns the sides of the picture in the header, or of the canvas of an animation.
pub(in super::super) fn announced(file: &[u8]) -> Option<(u32, u32)> {
    let (kind, _, data) = chunks(file.get(HEADER..)?).next()?;
    let short = |at: usize| {
        Some(u32::from(u16::from_le_bytes(
            *data.get(at..)?.first_chunk()?,
        )))
    };
    match &kind {
        b"VP8X" => sides(data.get(4..)?),
        // After the frame's tag and start code; each with two bits of scale.
        b"VP8 " => Some((short(6)? & 0x3fff, short(8)? & 0x3fff)),
        b"VP8L" => {
            let bits = u32::from_le_bytes(*data.get(1..)?.first_chunk()?);
            Some(((bits & 0x3fff) + 1, (bits >> 14 & 0x3fff) + 1))
        }
        _ => None,
    }
}

/// Returns the sides of all frames of an animation, according to their headers.
pub(in super::super) fn frame_sides(file: &[u8]) -> impl Iterator<Item = (u32, u32)> {
    frame_chunks(file).filter_map(|frame| sides(frame.get(6..)?))
}

/// Reads two sides, each minus 1 in three bytes.
fn sides(bytes: &[u8]) -> Option<(u32, u32)> {
    let bytes = bytes.get(..6)?;
    Some((number(&bytes[..3]) + 1, number(&bytes[3..]) + 1))
}

/// Reads a number of three bytes.
fn number(bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .rev()
        .fold(0, |number, &byte| number << 8 | u32::from(byte))
}

/// Returns the frames of an animation, as far as they exist.
fn frame_chunks(file: &[u8]) -> impl Iterator<Item = &[u8]> {
    let is_animation = is_animation(file);
    let frames = extended(file).filter(move |(kind, ..)| kind == b"ANMF" && is_animation);
    frames.map(|(_, _, frame)| frame)
}

/// Returns the frames of a file that has more than one frame, or that lacks some.
pub(in super::super) fn animation<'a>(
    file: &'a [u8],
    spec: &'a ResizeSpec,
    draws: bool,
) -> Result<Option<Animation<'a>>, ImageError> {
    match frame_chunks(file).count() {
        0 => Ok(None),
        1 if !is_truncated(file) && broken_among_frames(file).is_none() => Ok(None),
        _ => frames(file, spec, draws).map(Some),
    }
}

/// Returns the frames of an animation.
pub(super) fn frames<'a>(
    file: &'a [u8],
    spec: &'a ResizeSpec,
    draws: bool,
) -> Result<Animation<'a>, ImageError> {
    let format = Format::WebP;
    let damaged = move || ImageError::corrupt(format, "a frame without a picture");
    let canvas = sides(file.get(HEADER + 8 + 4..).unwrap_or_default()).ok_or_else(damaged)?;
    let mut screen = Screen::new(canvas, (file, format), spec, draws)?;
    let plays = extended(file).find(|(kind, ..)| kind == b"ANIM");
    let plays = plays.and_then(|(_, _, data)| data.get(4..6)?.try_into().ok());
    let mut draw = move |frame: &[u8]| {
        let (head, chunks) = frame.split_at_checked(FRAME).ok_or_else(damaged)?;
        let [left, top, millis] = [0, 3, 12].map(|at| number(&head[at..at + 3]));
        let sides = sides(&head[6..]).ok_or_else(damaged)?;
        if 2 * left + sides.0 > canvas.0 || 2 * top + sides.1 > canvas.1 {
            return Err(ImageError::corrupt(
                format,
                "a frame is outside the picture",
            ));
        }
        screen.admit(sides)?;
        let flags = ALPHA * u8::from(chunks.starts_with(b"ALPH"));
        let picture = self::file(chunks, flags, sides, &Metadata::default());
        let picture = picture.ok_or_else(damaged)?;
        // This header has the frame's sides. libwebp compares them with the sides of the picture before it allocates.
        let header = decoder::header(&picture).ok_or_else(damaged)?;
        let picture = still(&picture, &header, true)?.ok_or_else(damaged)?;
        let picture = picture.with_alpha();
        let disposal = match head[15] & CLEARED {
            0 => Disposal::Keep,
            _ => Disposal::Clear,
        };
        let area = Area::new((2 * left, 2 * top), sides);
        let is_over = head[15] & REPLACES == 0;
        screen.draw(area, picture.eight_bits(), is_over, disposal);
        Ok(screen.frame(millis))
    };
    let mut frames = frame_chunks(file);
    let next = move || match frames.next() {
        Some(frame) => draw(frame).map(Some).map_err(|error| match error {
            // A truncated file ends within this frame.
            ImageError::Corrupt { .. } if is_truncated(file) => {
                Found::later(ImageError::Truncated { format })
            }
            error => Found::later(error),
        }),
        None => match damage_after_first(file) {
            Some(found) => Err(found),
            None => Ok(None),
        },
    };
    let plays = plays.map_or(1, |plays| u32::from(u16::from_le_bytes(plays)));
    Ok(Animation::new(plays, next))
}

/// Builds the chunk that makes a file an animation. `plays`: the number of times it is displayed; 0 for endless
/// repetition.
pub(super) fn animation_chunk(plays: u16) -> Vec<u8> {
    let [low, high] = plays.to_le_bytes();
    // The background colour has four bytes; viewers ignore it.
    [b"ANIM", &6u32.to_le_bytes()[..], &[0, 0, 0, 0, low, high]].concat()
}

/// Builds the chunk of a frame from a file that libwebp wrote. The frame replaces the pixels that it covers. `None` if
/// the chunk would exceed 4 GiB.
pub(super) fn frame(
    (left, top): (u32, u32),
    (width, height): (u32, u32),
    millis: u32,
    file: &[u8],
) -> Option<Vec<u8>> {
    let picture = picture_chunks(file)?;
    let mut frame = b"ANMF".to_vec();
    let len = u32::try_from(FRAME + picture.len()).ok()?;
    frame.extend_from_slice(&len.to_le_bytes());
    for number in [left / 2, top / 2, width - 1, height - 1, millis] {
        frame.extend_from_slice(&number.to_le_bytes()[..3]);
    }
    frame.push(REPLACES);
    frame.extend_from_slice(picture);
    Some(frame)
}

/// Returns the chunks of the picture in a file that libwebp wrote. The file has an extended header if the picture has
/// alpha.
pub(super) fn picture_chunks(file: &[u8]) -> Option<&[u8]> {
    let chunks = file.get(HEADER..)?;
    match chunks.starts_with(b"VP8X") {
        true => chunks.get(18..),
        false => Some(chunks),
    }
}

/// Builds an extended WebP file from the chunks of its pictures and the metadata. `flags` are the flags that the
/// pictures need.
pub(super) fn file(
    pictures: &[u8],
    mut flags: u8,
    (width, height): (u32, u32),
    metadata: &Metadata,
) -> Option<Vec<u8>> {
    let present = |part: &Option<Vec<u8>>, bit: u8| if part.is_some() { bit } else { 0 };
    flags |= present(&metadata.icc, HAS_ICC) | present(&metadata.exif, HAS_EXIF);
    flags |= present(&metadata.xmp, HAS_XMP);

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

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(kind: &[u8; 4], len: u32, data: &[u8]) -> Vec<u8> {
        [kind, &len.to_le_bytes()[..], data].concat()
    }

    fn file(chunks: &[Vec<u8>]) -> Vec<u8> {
        [b"RIFF\xff\0\0\0WEBP", &chunks.concat()[..]].concat()
    }

    #[test]
    fn the_first_complete_chunk_is_returned() {
        let header = chunk(
            b"VP8X",
            10,
            &[HAS_ICC | HAS_EXIF, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        );
        let odd = chunk(b"ICCP", 3, b"abc\0");
        let exif = chunk(EXIF, 4, b"exif");
        let second = chunk(EXIF, 4, b"more");
        let all = file(&[header.clone(), odd, exif.clone(), second]);
        assert_eq!(bytes_of(&all, ICC).as_deref(), Some(&b"abc"[..]));
        assert_eq!(bytes_of(&all, EXIF).as_deref(), Some(&b"exif"[..]));
        assert_eq!(bytes_of(&all, XMP), None);
        let simple = file(&[chunk(b"VP8L", 10, &[0; 10]), exif.clone()]);
        assert_eq!(bytes_of(&simple, EXIF), None, "not an extended file");
        let unannounced = file(&[chunk(b"VP8X", 10, &[HAS_ICC; 10]), exif]);
        assert_eq!(
            bytes_of(&unannounced, EXIF),
            None,
            "the header lacks its flag"
        );
        for len in [5, u32::MAX] {
            let torn = file(&[header.clone(), chunk(EXIF, len, b"exif")]);
            assert_eq!(bytes_of(&torn, EXIF), None, "{len} bytes");
        }
        for end in 0..all.len() {
            bytes_of(&all[..end], XMP);
        }
    }
}
