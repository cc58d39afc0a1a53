//! Decoding of QOI, the Quite OK Image Format: <https://qoiformat.org>.

use super::damage::Found;
use super::error::ImageError;
use super::format::Format;
use super::meta::{Decoded, Request};
use super::pixels::{Color, Orientation, Pixels, Samples, buffer};

const FORMAT: Format = Format::Qoi;

/// Bytes of the header.
const HEADER: usize = 14;

/// The bytes that end a file.
const END: &[u8] = b"\0\0\0\0\0\0\0\x01";

/// Returns width and height in the header.
pub(super) fn announced(file: &[u8]) -> Option<(u32, u32)> {
    let side = |at: usize| Some(u32::from_be_bytes(*file.get(at..)?.first_chunk()?));
    Some((side(4)?, side(8)?))
}

/// Decodes a picture.
pub(super) fn decode(input: &[u8], request: Request<'_>) -> Result<Decoded, ImageError> {
    let spec = request.spec;
    let (header, data) = input
        .split_first_chunk::<HEADER>()
        .ok_or(ImageError::Truncated { format: FORMAT })?;
    let channels = header[12];
    let full = announced(header).ok_or(ImageError::Truncated { format: FORMAT })?;
    let color = match channels {
        3 => Color::Rgb,
        4 => Color::Rgba,
        other => return Err(ImageError::corrupt(FORMAT, format!("{other} channels"))),
    };
    spec.check_source(full, FORMAT)?;
    let bytes = u64::from(full.0) * u64::from(full.1) * u64::from(channels);
    spec.admit(bytes, input.len() as u64)?;
    let orientation = Orientation::NoTransforms;
    let plans = request.plans(full, orientation, FORMAT)?;

    let mut samples: Vec<u8> = buffer(bytes as usize)?;
    let (done, rest) = read(data, &mut samples, color.channels());
    let mut pixels = Pixels {
        width: full.0,
        height: full.1,
        color,
        samples: Samples::Eight(samples),
    };
    let all = u64::from(full.0) * u64::from(full.1);
    let error = ImageError::Truncated { format: FORMAT };
    let damage = if (done as u64) < all {
        let rows = done / full.0 as usize;
        Some(Found::missing_rows(
            &mut pixels,
            rows,
            spec.background,
            error,
        ))
    } else if !rest.starts_with(END) {
        Some(Found::around(error))
    } else {
        None
    };
    Ok(Decoded::without_metadata(
        pixels,
        plans,
        orientation,
        damage,
        full,
    ))
}

/// Reads pixels until the data or the picture ends. Returns the number of pixels, and the bytes after them.
fn read<'a>(data: &'a [u8], samples: &mut [u8], channels: usize) -> (usize, &'a [u8]) {
    let mut seen = [[0u8; 4]; 64];
    let mut pixel = [0, 0, 0, u8::MAX];
    let mut targets = samples.chunks_exact_mut(channels);
    let (mut done, mut rest) = (0, data);
    while targets.len() > 0 {
        let mut repeat = 1;
        let [r, g, b, a] = pixel;
        let by = |red: u8, green: u8, blue: u8| {
            let (r, g) = (r.wrapping_add(red), g.wrapping_add(green));
            [r, g, b.wrapping_add(blue), a]
        };
        rest = match *rest {
            [0xfe, r, g, b, ref rest @ ..] => {
                pixel = [r, g, b, a];
                rest
            }
            [0xff, r, g, b, a, ref rest @ ..] => {
                pixel = [r, g, b, a];
                rest
            }
            [0xfe | 0xff, ..] | [] => break,
            [index @ ..0x40, ref rest @ ..] => {
                pixel = seen[usize::from(index)];
                rest
            }
            [step @ 0x40..0x80, ref rest @ ..] => {
                let part = |shift: u8| (step >> shift & 3).wrapping_sub(2);
                pixel = by(part(4), part(2), part(0));
                rest
            }
            [step @ 0x80..0xc0, others, ref rest @ ..] => {
                let step = (step & 0x3f).wrapping_sub(32);
                let part = |shift: u8| step.wrapping_add((others >> shift & 15).wrapping_sub(8));
                pixel = by(part(4), step, part(0));
                rest
            }
            [0x80..0xc0] => break,
            [run, ref rest @ ..] => {
                repeat = usize::from(run & 0x3f) + 1;
                rest
            }
        };
        let [r, g, b, a] = pixel.map(usize::from);
        seen[(r * 3 + g * 5 + b * 7 + a * 11) % 64] = pixel;
        for to in targets.by_ref().take(repeat) {
            to.copy_from_slice(&pixel[..channels]);
            done += 1;
        }
    }
    (done, rest)
}
