//! What the WebP decoder believes before it looks: that a chunk of metadata is as long as its header says, also where the file ends
//! before (four gigabytes for a hundred bytes), and that the picture in a frame is no larger than the frame.

use std::borrow::Cow;

use super::error::ImageError;
use super::format::Format;

pub(super) const EXIF: &[u8; 4] = b"EXIF";
pub(super) const XMP: &[u8; 4] = b"XMP ";
pub(super) const ICC: &[u8; 4] = b"ICCP";

/// The file's own header: a chunk of all the others, with a kind of its own.
const HEADER: usize = 4 + 4 + 4;
/// In the first byte of what an extended file says of itself. Behind three more it has its sides, as a frame has: each less 1, in
/// three bytes.
const ANIMATION: u8 = 0x02;
const ALPHA: u8 = 0x10;
/// What an animation says of a frame, before the chunks of its picture: its place, its sides, how long it is shown.
const FRAME: usize = 16;

/// The chunks that begin in these bytes: kind, length of the data by the header, and the data as far as it is there.
fn chunks(mut rest: &[u8]) -> impl Iterator<Item = ([u8; 4], usize, &[u8])> {
    std::iter::from_fn(move || {
        let (&[k0, k1, k2, k3, a, b, c, d], behind) = rest.split_first_chunk::<8>()?;
        let len = u32::from_le_bytes([a, b, c, d]) as usize;
        // They begin at even places.
        let whole = len.saturating_add(len % 2).min(behind.len());
        rest = &behind[whole..];
        Some(([k0, k1, k2, k3], len, &behind[..len.min(behind.len())]))
    })
}

/// The file is shorter than its header says.
pub(super) fn is_cut(file: &[u8]) -> bool {
    chunks(file)
        .next()
        .is_some_and(|(_, len, data)| data.len() < len)
}

/// The chunks behind the header of an extended file; none in others.
fn extended(file: &[u8]) -> impl Iterator<Item = ([u8; 4], usize, &[u8])> {
    let mut chunks = chunks(file.get(HEADER..).unwrap_or_default());
    let is_extended = chunks.next().is_some_and(|(kind, ..)| kind == *b"VP8X");
    is_extended.then_some(chunks).into_iter().flatten()
}

/// The first chunk of this kind, where the file is an extended one, and that chunk is whole.
pub(super) fn bytes_of(file: &[u8], kind: &[u8; 4]) -> Option<Vec<u8>> {
    let (_, len, data) = extended(file).find(|(found, ..)| found == kind)?;
    (data.len() == len).then(|| data.to_vec())
}

/// The file as its decoder is to see it: where the first frame of an animation leaves some of the picture free, with alpha, which
/// may not have been announced. What is free shows what is behind the picture; without alpha it would be black.
pub(super) fn with_ground(file: &[u8]) -> Cow<'_, [u8]> {
    let bare = || {
        let header = file.get(HEADER + 8..)?;
        let is_bare = header.first()? & (ANIMATION | ALPHA) == ANIMATION;
        let canvas = header.get(4..10)?;
        let (.., frame) = extended(file).find(|(kind, ..)| kind == b"ANMF")?;
        Some(is_bare && frame.get(6..12)? != canvas)
    };
    if bare() != Some(true) {
        return Cow::Borrowed(file);
    }
    let mut file = file.to_vec();
    file[HEADER + 8] |= ALPHA;
    Cow::Owned(file)
}

/// A lossy picture in the first frame of an animation has to have the frame's sides, which lie within those that the file
/// announces: its decoder makes room for the picture before it compares them.
pub(super) fn check_frame(file: &[u8]) -> Result<(), ImageError> {
    let Some((_, _, frame)) = extended(file).find(|(kind, ..)| kind == b"ANMF") else {
        return Ok(());
    };
    let mut behind_alpha = false;
    for (kind, _, picture) in chunks(frame.get(FRAME..).unwrap_or_default()) {
        // What follows the alpha channel is the picture, whatever it calls itself.
        let is_picture = std::mem::replace(&mut behind_alpha, kind == *b"ALPH") || kind == *b"VP8 ";
        if !is_picture {
            continue;
        }
        // Behind the tag and the start code of a key frame.
        let (Some(&[w0, w1, w2, h0, h1, h2]), Some(&[a, b, c, d])) = (
            frame[6..].first_chunk(),
            picture.get(6..).and_then(|sides| sides.first_chunk()),
        ) else {
            // The decoder looks for its sides behind the end of the frame.
            return Err(ImageError::corrupt(
                Format::WebP,
                "a frame without a picture",
            ));
        };
        let frames = [[w0, w1, w2, 0], [h0, h1, h2, 0]].map(|side| u32::from_le_bytes(side) + 1);
        let pictures = [[a, b], [c, d]].map(|side| u32::from(u16::from_le_bytes(side) & 0x3fff));
        if frames != pictures {
            let reason = format!("a picture of {pictures:?} pixels in a frame of {frames:?}");
            return Err(ImageError::corrupt(Format::WebP, reason));
        }
    }
    Ok(())
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
    fn the_first_whole_chunk_is_taken() {
        let header = chunk(b"VP8X", 10, &[0; 10]);
        let odd = chunk(b"ICCP", 3, b"abc\0");
        let exif = chunk(EXIF, 4, b"exif");
        let second = chunk(EXIF, 4, b"more");
        let all = file(&[header.clone(), odd, exif.clone(), second]);
        assert_eq!(bytes_of(&all, ICC).as_deref(), Some(&b"abc"[..]));
        assert_eq!(bytes_of(&all, EXIF).as_deref(), Some(&b"exif"[..]));
        assert_eq!(bytes_of(&all, XMP), None);
        let simple = file(&[chunk(b"VP8L", 10, &[0; 10]), exif]);
        assert_eq!(bytes_of(&simple, EXIF), None, "not an extended file");
        for len in [5, u32::MAX] {
            let torn = file(&[header.clone(), chunk(EXIF, len, b"exif")]);
            assert_eq!(bytes_of(&torn, EXIF), None, "{len} bytes");
        }
        for end in 0..all.len() {
            bytes_of(&all[..end], XMP);
        }
    }
}
