//! JPEG decoding and encoding, by mozjpeg's C code, with a fast path for the most common files.
//!
//! Decoding scales: libjpeg's inverse transform can yield 1 to 8 pixels per side of a block, so a 12-megapixel photo is
//! reduced to 500 pixels across before any filtering. The scale is the smallest that leaves at least twice the target
//! on each side; the filter does the rest.
//!
//! The fast path decodes sequential files of one scan, which cameras write, if the picture shrinks. `eighth` skips the
//! coefficients that are not visible at one eighth; `planes` keeps luma and chroma separate and is vectorized. The fast
//! path decodes a file completely or not at all. Other files go to libjpeg, which also decides which files are corrupt.
//! Measurements are in `docs/design/pictures.md`.

mod eighth;
#[allow(unsafe_code, reason = "the error manager of libjpeg is a C struct")]
mod faults;
mod frame;
mod huffman;
mod inverse;
mod markers;
mod planes;
mod restarts;
#[cfg(test)]
mod tests;
mod vectors;

use mozjpeg::{ColorSpace, Compress, Decompress, Marker};

use super::damage::{FailOn, Found, Loss, fill_rows};
use super::encode::Encoding;
use super::error::ImageError;
use super::exif;
use super::format::Format;
use super::meta::{Decoded, Metadata, Request, StoredPlan};
use super::pixels::{Color, Pixels, Samples};
use super::resample::take_buffer;
use super::size::Region;
use super::tiff::{Directory, Shape};
pub(super) use faults::has_assembly;
use markers::{Scans, is_frame, segments};

const EXIF: &[u8] = b"Exif\0\0";
const XMP: &[u8] = b"http://ns.adobe.com/xap/1.0/\0";
const ICC: &[u8] = b"ICC_PROFILE\0";
/// The index of the pictures in a file (CIPA DC-007): a TIFF directory, with offsets from its own header.
const MPF: &[u8] = b"MPF\0";
/// The maximum number of bytes in a marker segment after its two length bytes.
const SEGMENT: usize = 65_533;
/// The maximum number of bytes of a profile in a segment, after name, number and count.
const PROFILE_PART: usize = SEGMENT - ICC.len() - 2;
/// The maximum length of a profile, in bytes: its parts are numbered in one byte.
pub(super) const LONGEST_PROFILE: usize = 255 * PROFILE_PART;
/// The number of pixels per side of a block, at full scale.
const BLOCK: u32 = 8;

/// The maximum number of scans of a progressive file. Encoders write about ten. Each scan takes time in proportion to
/// the whole picture: a few kilobytes of empty scans could take minutes.
const MAX_SCANS: usize = 100;
/// The maximum number of segments in front of the first scan. With the longest segments, they take 1 GiB.
const MAX_SEGMENTS: usize = 1 << 14;

/// Returns the scale of decoding, in eighths: the smallest at which the region of each plan has
/// [`SPARE`](super::meta::SPARE) times the sides of its result. Full scale if exact pixels are needed: a scaled decode
/// would change the mean of the pixels (39 dB), and which pixel is nearest.
fn eighths(plans: &[StoredPlan], request: Request<'_>) -> u32 {
    if request.needs_exact_pixels() {
        return BLOCK;
    }
    let is_enough = |eighths: &u32| {
        let scale = f64::from(*eighths) / f64::from(BLOCK);
        plans.iter().all(|plan| plan.has_spare(scale))
    };
    (1..BLOCK).find(is_enough).unwrap_or(BLOCK)
}

/// Decodes for a request, at the smallest scale that the quality of its largest result allows.
pub(super) fn decode(input: &[u8], request: Request<'_>) -> Result<Decoded, ImageError> {
    let stuffed;
    let (input, mut around) = match input {
        [0xff, 0xd8, 0x00, rest @ ..] => {
            stuffed = [&[0xff, 0xd8], rest].concat();
            let why = "a zero after its start marker";
            let error = ImageError::corrupt(Format::Jpeg, why);
            (&stuffed[..], Some(Found::around(error)))
        }
        _ => (input, None),
    };
    let mut decoded = faults::guarded(|| decode_unguarded(input, request));
    if decoded.is_err() && markers::has_late_height(input) {
        let reason = "its height is in a marker after its pixels (DNL)";
        return Err(ImageError::variety(Format::Jpeg, reason));
    }
    let has_lost = match &decoded {
        Ok(decoded) => decoded
            .damage
            .as_ref()
            .is_some_and(|damage| damage.loss != Loss::Nothing),
        Err(_) => true,
    };
    if has_lost
        && let Ok(Some((repaired, found))) = faults::guarded(|| repaired(input))
        && let Ok(whole) = faults::guarded(|| decode_unguarded(&repaired, request))
    {
        decoded = Ok(whole);
        around = Some(found);
    }
    if matches!(decoded, Err(ImageError::Corrupt { .. })) && markers::ends_in_segments(input) {
        let format = Format::Jpeg;
        return Err(ImageError::Truncated { format });
    }
    let mut decoded = decoded?;
    decoded.damage = decoded.damage.or(around);
    Ok(decoded)
}

/// Returns the stored sides of a JPEG that can be decoded. `None` for lossless JPEG and for more than 8 bits.
pub(super) fn sides(input: &[u8]) -> Option<(u32, u32)> {
    if !input.starts_with(b"\xff\xd8") {
        return None;
    }
    let before_scan = segments(input).take_while(|segment| segment.marker != 0xda);
    let mut frames = before_scan.filter(|segment| is_frame(segment.marker));
    let frame = frames.next()?;
    let &[8, a, b, c, d, ..] = frame.content else {
        return None;
    };
    let side = |high, low| u32::from(u16::from_be_bytes([high, low]));
    matches!(frame.marker, 0xc0..=0xc2).then_some((side(c, d), side(a, b)))
}

/// Returns whether a JPEG has a frame of at least `rows` rows, and data after the header of a scan.
pub(super) fn has_rows(input: &[u8], rows: usize) -> bool {
    let mut is_high = false;
    let mut image = segments(input).take_while(|segment| segment.marker != 0xd9);
    let scan = image.find(|segment| {
        if is_frame(segment.marker)
            && let [_, high, low, ..] = *segment.content
        {
            is_high = usize::from(u16::from_be_bytes([high, low])) >= rows;
        }
        segment.marker == 0xda
    });
    is_high && scan.is_some_and(|scan| scan.end < input.len())
}

/// Returns the damage of a file whose index of pictures has a picture after the first that is cut or missing. If the
/// file ends like a picture, another program may have left out the others on purpose, or moved them without changing
/// the index: this is damage outside the pixels.
pub(super) fn damage_after_first(input: &[u8]) -> Option<Found> {
    /// The tag of the entries, one for each picture.
    const ENTRIES: u16 = 0xb002;
    /// Bytes of an entry: properties, length, offset, and two numbers of other pictures.
    const ENTRY: usize = 16;
    /// The maximum number of entries that are read: each may stand for a picture of the length of the file.
    const MOST: usize = 64;
    const START: &[u8] = b"\xff\xd8";
    let before_scan = segments(input).take_while(|segment| segment.marker != 0xda);
    let mut indices = before_scan.filter(|segment| segment.marker == 0xe2);
    let index = indices.find_map(|segment| segment.content.strip_prefix(MPF))?;
    let from = index.as_ptr().addr() - input.as_ptr().addr();
    let directory = Directory::first_of(&input[from..])?;
    let entries = directory.bytes(ENTRIES)?.as_chunks::<ENTRY>().0;
    // Zeros may follow the last picture.
    let used = input.iter().rposition(|&byte| byte != 0);
    let is_ended = used.is_some_and(|last| input[..=last].ends_with(b"\xff\xd9"));
    let found = |entry: &[u8; ENTRY]| {
        let number = |at: usize| directory.number(&entry[at..at + 4]) as usize;
        // The first picture has the offset 0.
        let (len, offset) = (number(4), number(8));
        let rest = input.get(from + offset..).unwrap_or_default();
        // Pillow writes wrong lengths of later pictures.
        let is_whole = || rest.len() >= len || segments(rest).any(|segment| segment.marker == 0xd9);
        if offset == 0 || rest.starts_with(START) && is_whole() {
            return None;
        }
        let begins = START.starts_with(&rest[..rest.len().min(START.len())]);
        let format = Format::Jpeg;
        match begins && !is_ended {
            true => Some(Found::later(ImageError::Truncated { format })),
            false => {
                let why = "its index has a picture where none begins";
                Some(Found::later(ImageError::corrupt(format, why)).unshown())
            }
        }
    };
    let found = entries.iter().take(MOST).filter_map(found);
    found.min_by_key(|found| found.loss != Loss::Later)
}

/// Returns whether a JPEG has an orientation in EXIF.
pub(super) fn has_orientation(input: &[u8]) -> bool {
    let before_scan = segments(input).take_while(|segment| segment.marker != 0xda);
    let exif = before_scan.filter(|segment| segment.marker == 0xe1);
    let mut exif = exif.filter_map(|segment| segment.content.strip_prefix(EXIF));
    exif.any(|exif| exif::orientation(exif).is_some())
}

/// Decodes a JPEG inside a TIFF to the rows of a strip or tile, without converting its components. `tables` are
/// inserted in front of its segments. If pixels may be wrong, returns the reason too.
pub(super) fn components(
    input: &[u8],
    tables: Option<&[u8]>,
    shape: Shape,
) -> Result<(Vec<u8>, Option<ImageError>), ImageError> {
    let corrupt = |reason: &str| ImageError::corrupt(Format::Jpeg, reason);
    let joined;
    let input = match (
        tables.and_then(|tables| tables.strip_suffix(b"\xff\xd9")),
        input,
    ) {
        (Some(tables), [0xff, 0xd8, rest @ ..]) => {
            joined = [tables, rest].concat();
            &joined
        }
        _ => input,
    };
    faults::guarded(|| {
        let manager = faults::error_manager(FailOn::Error);
        let broken = |_| ImageError::Truncated {
            format: Format::Jpeg,
        };
        let header = Decompress::with_err(manager)
            .from_mem(input)
            .map_err(broken)?;
        if header.width() != shape.width || header.components().len() != shape.channels {
            return Err(corrupt("a strip or tile of another shape"));
        }
        let space = match header.color_space() {
            ColorSpace::JCS_YCCK => ColorSpace::JCS_CMYK,
            space @ (ColorSpace::JCS_GRAYSCALE
            | ColorSpace::JCS_YCbCr
            | ColorSpace::JCS_RGB
            | ColorSpace::JCS_CMYK) => space,
            _ => return Err(corrupt("a strip or tile of an unknown colour model")),
        };
        let mut lines = header.to_colorspace(space).map_err(broken)?;
        let height = lines.height();
        let rows = height.min(shape.rows);
        let mut samples = super::pixels::buffer(rows * shape.width * shape.channels)?;
        lines
            .read_scanlines_into::<u8>(&mut samples)
            .map_err(broken)?;
        if rows == height {
            // Finds bytes that are left over. Other damage after the last row costs nothing.
            faults::guarded(|| lines.finish().map_err(broken)).ok();
        }
        // Without its end marker, the length of the stream may be unknown.
        let doubt = misread(input).filter(|_| !faults::ended_early());
        Ok((samples, doubt))
    })
}

/// Returns the file with its restart markers repaired, and their damage; `None` if that is not needed.
fn repaired(input: &[u8]) -> Result<Option<(Vec<u8>, Found)>, ImageError> {
    if markers::count_scans(input, MAX_SCANS) != Scans::AllInOne {
        return Ok(None);
    }
    let manager = faults::error_manager(FailOn::None);
    let header = Decompress::with_err(manager).from_mem(input);
    let Ok(header) = header else { return Ok(None) };
    let parts = header.components();
    let most = |factor: fn(&mozjpeg_sys::jpeg_component_info) -> i32| {
        let most = parts.iter().map(factor).max();
        most.map_or(1, |most| most.max(1) as usize)
    };
    // A scan of one component has one block per MCU.
    let (across, down) = match parts {
        [_] => (1, 1),
        _ => (
            most(|part| part.h_samp_factor),
            most(|part| part.v_samp_factor),
        ),
    };
    let side = BLOCK as usize;
    let mcus = header.width().div_ceil(side * across) * header.height().div_ceil(side * down);
    Ok(restarts::repaired(input, mcus))
}

fn decode_unguarded(input: &[u8], request: Request<'_>) -> Result<Decoded, ImageError> {
    let spec = request.spec;
    let truncated = || ImageError::Truncated {
        format: Format::Jpeg,
    };
    let broken = |error: std::io::Error| {
        if error.kind() == std::io::ErrorKind::UnexpectedEof {
            truncated()
        } else {
            ImageError::corrupt(Format::Jpeg, error)
        }
    };
    let mut header = Decompress::with_err(faults::error_manager(spec.fail_on))
        .from_mem(input)
        .map_err(broken)?;
    let metadata = read_markers(input)?;
    let orientation = metadata.orientation();
    let (full_width, full_height) = (header.width() as u32, header.height() as u32);
    let full = (full_width, full_height);
    let plans = request.plans(full, orientation, Format::Jpeg)?;

    let scans = markers::count_scans(input, MAX_SCANS);
    if matches!(scans, Scans::Several(n) if n > MAX_SCANS) {
        let reason = format!("more than {MAX_SCANS} scans");
        return Err(ImageError::variety(Format::Jpeg, reason));
    }
    let eighths = eighths(&plans, request);
    let sequential = scans == Scans::AllInOne;
    spec.admit(announced(&header, eighths, sequential), input.len() as u64)?;
    let common = matches!(
        header.color_space(),
        ColorSpace::JCS_GRAYSCALE | ColorSpace::JCS_YCbCr
    );
    let scale = f64::from(eighths) / f64::from(BLOCK);
    let converts_late = request.converts_late(&plans, scaled_len(&header, eighths));
    // Only libjpeg finds damage outside the pixels, so the strictest policy needs libjpeg.
    let quick = match eighths {
        _ if !sequential || !common || spec.fail_on == FailOn::Warning => None,
        1 => eighth::decode(input).map(|eighth| (eighth.into_pixels(), None)),
        _ if converts_late => {
            let regions: Vec<Region> = plans.iter().map(|plan| plan.region).collect();
            planes::decode(input, eighths, &regions)?
        }
        _ => None,
    };
    let scaled = |pixels: &Pixels| {
        let sides = (pixels.width, pixels.height);
        let scaled = |plan: &StoredPlan| plan.scaled(scale, sides);
        plans.iter().map(scaled).collect()
    };
    let unended = || {
        let error = ImageError::corrupt(Format::Jpeg, "its end marker is missing");
        Found::around(error)
    };
    if let Some((pixels, chroma)) = quick {
        return Ok(Decoded {
            plans: scaled(&pixels),
            pixels,
            chroma,
            orientation,
            metadata,
            damage: (!markers::has_end(input)).then(unended),
            full,
        });
    }
    if eighths < BLOCK {
        header.scale(eighths as u8);
    }
    let (space, color) = match header.color_space() {
        ColorSpace::JCS_GRAYSCALE => (ColorSpace::JCS_GRAYSCALE, Color::Gray),
        ColorSpace::JCS_YCbCr if converts_late => (ColorSpace::JCS_YCbCr, Color::YCbCr),
        ColorSpace::JCS_YCbCr | ColorSpace::JCS_RGB => (ColorSpace::JCS_RGB, Color::Rgb),
        ColorSpace::JCS_CMYK | ColorSpace::JCS_YCCK => (ColorSpace::JCS_CMYK, Color::Cmyk),
        _ => {
            let reason = "a colour model other than grey, YCbCr, RGB, CMYK and YCCK";
            return Err(ImageError::variety(Format::Jpeg, reason));
        }
    };
    let mut lines = header.to_colorspace(space).map_err(broken)?;
    let (width, height) = (lines.width(), lines.height());
    let mut samples = take_buffer(width * height * color.channels())?;
    // The number of rows above the first lost pixels. `None` if pixels were lost earlier: several scans are read before
    // the first row.
    let mut whole = (!faults::has_lost()).then_some(height);
    let mut row = 0;
    // The rows that are read at a time, and thus the accuracy with which a loss of pixels is located: a row of blocks.
    let step = eighths as usize;
    for rows in samples.chunks_mut(step * width * color.channels()) {
        lines.read_scanlines_into::<u8>(rows).map_err(broken)?;
        if faults::has_lost() {
            whole = whole.map(|whole| whole.min(row));
        }
        row += step;
    }
    let end = faults::guarded(|| lines.finish().map_err(broken));
    if color == Color::Cmyk {
        // Adobe's programs store inverted inks; so do programs that write no marker of Adobe.
        samples.iter_mut().for_each(|sample| *sample = !*sample);
    }
    let mut pixels = Pixels {
        width: width as u32,
        height: height as u32,
        color,
        samples: Samples::Eight(samples),
    };
    // A picture of one scan is complete without its end marker if no pixel is missing. A picture of several scans may
    // lack a whole scan.
    let damage = if let Some(error) = faults::take_lost() {
        let loss = match whole.filter(|_| sequential) {
            Some(whole) => {
                if matches!(error, ImageError::Truncated { .. }) {
                    fill_rows(&mut pixels, whole, spec.background);
                }
                let share = (height - whole) as f64 / height as f64;
                let all = f64::from(full_width) * f64::from(full_height);
                Loss::Pixels((share * all).ceil() as u64)
            }
            None => Loss::Detail,
        };
        Some(Found { loss, error })
    } else if faults::ended_early() && !sequential {
        let loss = Loss::Detail;
        let error = truncated();
        Some(Found { loss, error })
    } else if let Some(error) = misread(input) {
        Some(Found::doubtful(error))
    } else if faults::ended_early() {
        Some(unended())
    } else {
        end.err().or_else(faults::take_around).map(Found::around)
    };
    Ok(Decoded {
        chroma: None,
        plans: scaled(&pixels),
        pixels,
        orientation,
        metadata,
        damage,
        full,
    })
}

/// Returns why pixels of the scans that were decoded may be wrong although all codes were valid: damage shifts the
/// codes after it, and bytes are left over at the next marker.
fn misread(input: &[u8]) -> Option<ImageError> {
    let left_over = faults::left_over();
    // libjpeg counts some bytes of an interval at the end of a later one, and some at the end of a scan not at all.
    let is_padding = || left_over <= markers::padding(input) || eighth::decode(input).is_some();
    (left_over > 0 && !is_padding()).then(|| {
        let reason = format!("{left_over} bytes of its pixels belong to no code");
        ImageError::corrupt(Format::Jpeg, reason)
    })
}

/// Returns the number of bytes that decoding needs according to the header: the scaled pixels and, for several scans,
/// the coefficients of all components. Chroma often has a quarter of the coefficients of luma.
fn announced(header: &Decompress<&[u8]>, eighths: u32, sequential: bool) -> u64 {
    let channels = match header.color_space() {
        ColorSpace::JCS_GRAYSCALE => 1,
        ColorSpace::JCS_CMYK | ColorSpace::JCS_YCCK => 4,
        _ => 3,
    };
    let pixels = scaled_len(header, eighths) * channels;
    if sequential {
        return pixels;
    }
    let parts = header.components();
    let factor = |factor: i32| u64::from(factor.max(1).unsigned_abs());
    let most = |of: fn(&mozjpeg_sys::jpeg_component_info) -> i32| {
        parts.iter().map(|part| factor(of(part))).max().unwrap_or(1)
    };
    // In each direction, the file contains whole units (MCUs) of blocks of all components.
    let units = |side: usize, most: u64| (side as u64).div_ceil(u64::from(BLOCK) * most);
    let across = units(header.width(), most(|part| part.h_samp_factor));
    let down = units(header.height(), most(|part| part.v_samp_factor));
    let blocks = |part: &mozjpeg_sys::jpeg_component_info| {
        across * factor(part.h_samp_factor) * down * factor(part.v_samp_factor)
    };
    let coefficients = parts.iter().map(blocks).sum::<u64>() * u64::from(BLOCK * BLOCK);
    pixels + coefficients * size_of::<i16>() as u64
}

/// Returns the number of pixels after decoding at this scale.
fn scaled_len(header: &Decompress<&[u8]>, eighths: u32) -> u64 {
    let scaled = |side: usize| (side as u64 * u64::from(eighths)).div_ceil(u64::from(BLOCK));
    scaled(header.width()) * scaled(header.height())
}

/// Returns EXIF, XMP and profile. libjpeg could retain segments, but takes time in proportion to the square of their
/// number.
///
/// # Errors
/// `UnsupportedVariety` beyond [`MAX_SEGMENTS`].
fn read_markers(input: &[u8]) -> Result<Metadata, ImageError> {
    let mut metadata = Metadata::default();
    let mut profile: Vec<ProfilePart<'_>> = Vec::new();
    let before_scan = segments(input).take_while(|segment| segment.marker != 0xda);
    for (number, segment) in before_scan.enumerate() {
        if number == MAX_SEGMENTS {
            let reason = format!("more than {MAX_SEGMENTS} segments before its pixels");
            return Err(ImageError::variety(Format::Jpeg, reason));
        }
        let data = segment.content;
        match segment.marker {
            0xe1 => {
                if let Some(exif) = data.strip_prefix(EXIF) {
                    metadata.exif.get_or_insert_with(|| exif.to_vec());
                } else if let Some(xmp) = data.strip_prefix(XMP) {
                    metadata.xmp.get_or_insert_with(|| xmp.to_vec());
                }
            }
            0xe2 => {
                if let Some([number, count, part @ ..]) = data.strip_prefix(ICC) {
                    profile.push((*number, *count, part));
                }
            }
            _ => {}
        }
    }
    // A profile that lacks parts is empty, which counts as a profile that cannot be read.
    metadata.icc = (!profile.is_empty()).then(|| joined(profile).unwrap_or_default());
    Ok(metadata)
}

/// A part of a profile, with its number and the number of parts.
type ProfilePart<'a> = (u8, u8, &'a [u8]);

/// Returns the profile in these parts, which may be in any order. Ignores parts that repeat a number, or that belong to
/// another number of parts than the first. `None` if a part is missing.
fn joined(mut parts: Vec<ProfilePart<'_>>) -> Option<Vec<u8>> {
    let &(_, count, _) = parts.first()?;
    parts.retain(|part| part.1 == count);
    // The order of equal numbers does not change.
    parts.sort_by_key(|part| part.0);
    parts.dedup_by_key(|part| part.0);
    parts.truncate(count.into());
    let &(first, ..) = parts.first()?;
    // Some programs count from 0.
    let is_whole = parts.len() == usize::from(count)
        && parts
            .iter()
            .zip(first..=u8::MAX)
            .all(|(part, number)| part.0 == number);
    is_whole.then(|| parts.iter().flat_map(|part| part.2).copied().collect())
}

/// Removes metadata that is too long for a JPEG. Returns what was removed, as a text for an error.
pub(super) fn drop_too_long(metadata: &mut Metadata) -> Option<String> {
    let parts = [
        ("EXIF", &mut metadata.exif, SEGMENT - EXIF.len()),
        ("XMP", &mut metadata.xmp, SEGMENT - XMP.len()),
    ];
    let mut reasons = Vec::new();
    for (name, part, most) in parts {
        if let Some(part) = part.take_if(|part| part.len() > most) {
            reasons.push(format!("{name} of {} bytes (at most {most})", part.len()));
        }
    }
    let all = reasons.join(", ");
    (!reasons.is_empty())
        .then(|| format!("JPEG cannot hold {all}; choose png, webp or avif to keep it"))
}

/// Encodes 8-bit grey, RGB or YCbCr: baseline, 4:2:0, standard tables, without mozjpeg's slow searches.
///
/// # Errors
/// `Encode`, with the encoder's message.
pub(super) fn encode(
    pixels: &Pixels,
    how: Encoding,
    metadata: Option<&Metadata>,
) -> Result<Vec<u8>, ImageError> {
    let failed = |reason: String| ImageError::Encode {
        format: Format::Jpeg,
        reason,
    };
    let (space, samples) = match (pixels.color, &pixels.samples) {
        (Color::Gray, Samples::Eight(samples)) => (ColorSpace::JCS_GRAYSCALE, samples),
        (Color::Rgb, Samples::Eight(samples)) => (ColorSpace::JCS_RGB, samples),
        (Color::YCbCr, Samples::Eight(samples)) => (ColorSpace::JCS_YCbCr, samples),
        (color, _) => return Err(failed(format!("{color:?} is not a JPEG's colour model"))),
    };
    faults::guarded(|| {
        let mut encoder = Compress::new(space);
        encoder.set_fastest_defaults();
        // Huffman tables optimised for the picture: 3 to 6 % fewer bytes on the samples at 224 pixels, for about 1 % of
        // the time of a 12-megapixel photo.
        encoder.set_optimize_coding(true);
        if how.progressive {
            encoder.set_progressive_mode();
        }
        encoder.set_size(pixels.width as usize, pixels.height as usize);
        encoder.set_quality(f32::from(how.quality.clamp(1, 100)));
        let room = samples.len() / 8 + 1024;
        let mut encoder = encoder
            .start_compress(Vec::with_capacity(room))
            .map_err(|e| failed(e.to_string()))?;
        if let Some(metadata) = metadata {
            if let Some(exif) = &metadata.exif {
                encoder.write_marker(Marker::APP(1), &[EXIF, exif].concat());
            }
            if let Some(xmp) = &metadata.xmp {
                encoder.write_marker(Marker::APP(1), &[XMP, xmp].concat());
            }
            if let Some(icc) = &metadata.icc {
                // Parts are numbered from 1, and each contains the count.
                let parts = icc.chunks(PROFILE_PART);
                let count = parts.len() as u8;
                for (number, part) in (1..=count).zip(parts) {
                    let segment = [ICC, &[number, count], part].concat();
                    encoder.write_marker(Marker::APP(2), &segment);
                }
            }
        }
        encoder
            .write_scanlines(samples)
            .map_err(|e| failed(e.to_string()))?;
        encoder.finish().map_err(|e| failed(e.to_string()))
    })
    .map_err(|error| match error {
        ImageError::Corrupt { reason, .. } | ImageError::UnsupportedVariety { reason, .. } => {
            failed(reason)
        }
        other => other,
    })
}
