//! Checks that the PNG decoder does not make: the sides before it allocates a row, a palette that ends within a colour,
//! metadata after the pixels, and a file that lacks only its end.

use super::error::ImageError;
use super::format::Format;
use super::meta::crc32;

const SIGNATURE: usize = 8;
/// Bytes of a chunk besides its data: length, kind and checksum.
const OVERHEAD: usize = 4 + 4 + 4;

/// The chunks: kind, length of the data by the header, and the bytes of the chunk that exist.
fn chunks(file: &[u8]) -> impl Iterator<Item = ([u8; 4], usize, &[u8])> {
    let mut rest = file.get(SIGNATURE..).unwrap_or_default();
    std::iter::from_fn(move || {
        let [a, b, c, d, kind @ ..] = *rest.first_chunk::<8>()?;
        let len = u32::from_be_bytes([a, b, c, d]) as usize;
        let (whole, after) = rest.split_at(rest.len().min(len.saturating_add(OVERHEAD)));
        rest = after;
        Some((kind, len, whole))
    })
}

/// The sides in the header, if its checksum is right.
pub(super) fn announced(file: &[u8]) -> Option<(u32, u32)> {
    let (kind, _, whole) = chunks(file).next()?;
    let (body, sum) = whole.get(4..)?.split_last_chunk()?;
    let is_whole = kind == *b"IHDR" && body.len() == 4 + 13;
    if !is_whole || u32::from_be_bytes(*sum) != crc32(body) {
        return None;
    }
    let side = |at: usize| body[at..].first_chunk().copied().map(u32::from_be_bytes);
    Some((side(4)?, side(8)?))
}

/// Completes a file that lacks only its last chunk, or a part of it. The decoder then reports whether pixels are
/// missing.
pub(super) fn with_end(file: &[u8]) -> Option<Vec<u8>> {
    const END: &[u8; 12] = b"\0\0\0\0IEND\xae\x42\x60\x82";
    let mut end = SIGNATURE;
    for (kind, len, whole) in chunks(file) {
        if whole.len() < len.saturating_add(OVERHEAD) {
            break;
        }
        if kind == *b"IEND" {
            return None;
        }
        end += whole.len();
    }
    let (whole, rest) = file.split_at_checked(end)?;
    END.starts_with(rest).then(|| [whole, END].concat())
}

/// Rejects a palette that ends within a colour, on which `png` 0.18 panics.
pub(super) fn check_palette(file: &[u8]) -> Result<(), ImageError> {
    let front = chunks(file).take_while(|(kind, ..)| kind != b"IDAT");
    for (kind, len, _) in front {
        if kind == *b"PLTE" && !len.is_multiple_of(3) {
            let reason = format!("a palette of {len} bytes, which is not a multiple of 3");
            return Err(ImageError::corrupt(Format::Png, reason));
        }
    }
    Ok(())
}

/// Returns a PNG of one pixel with the EXIF and XMP that `file` has after its pixels, where the decoder does not look;
/// `None` if there are none.
pub(super) fn metadata_after_pixels(file: &[u8]) -> Option<Vec<u8>> {
    let whole = |&(kind, len, whole): &([u8; 4], usize, &[u8])| {
        let is_metadata = match &kind {
            b"eXIf" => true,
            b"iTXt" => whole[8..].starts_with(b"XML:com.adobe.xmp\0"),
            _ => false,
        };
        is_metadata && whole.len() == len.saturating_add(OVERHEAD)
    };
    let after = chunks(file).skip_while(|(kind, ..)| kind != b"IDAT");
    let after = after.take_while(|(kind, ..)| kind != b"IEND");
    let mut found = after.filter(whole).map(|(.., whole)| whole).peekable();
    found.peek()?;
    // One grey pixel.
    let header = b"IHDR\0\0\0\x01\0\0\0\x01\x08\0\0\0\0";
    let pixels = b"IDAT";
    let mut picture = b"\x89PNG\r\n\x1a\n\0\0\0\x0d".to_vec();
    picture.extend_from_slice(header);
    picture.extend(crc32(header).to_be_bytes());
    found.for_each(|chunk| picture.extend_from_slice(chunk));
    picture.extend([0; 4]);
    picture.extend_from_slice(pixels);
    picture.extend(crc32(pixels).to_be_bytes());
    Some(picture)
}
