//! Decoding of PNG, by the `png` crate, with what that crate lacks: the sides are checked before a row is allocated,
//! the rows of a damaged file are kept, unused bits of a transparent grey are masked, and chunks about colour that are
//! not a profile are converted to a profile.

use std::borrow::Cow;
use std::io::{Cursor, ErrorKind};

use moxcms::{Chromaticity, ColorPrimaries, ColorProfile, ToneReprCurve};
use png::{
    BitDepth, BlendOp, ColorType, DecodingError, DisposeOp, InterlaceInfo, Reader, Transformations,
};

use super::animation::{Animation, Area, Disposal, Screen};
use super::color::{encoded, from_code_points, name_of};
use super::damage::{FailOn, Found, Loss, fill_rows};
use super::error::ImageError;
use super::exif;
use super::format::Format;
use super::hdr::Hdr;
use super::meta::{Decoded, Metadata, Request, crc32, without_prefix};
use super::pixels::{Color, Pixels, Samples, buffer};
use super::spec::{ResizeSpec, SPARE_BYTES};

type File<'a> = Cursor<&'a [u8]>;

/// Decodes the first picture: a still picture, or the first frame of an animation.
pub(super) fn decode(input: &[u8], request: Request<'_>) -> Result<Decoded, ImageError> {
    decode_with(input, request, true)
}

/// Decodes the first picture. `checks`: whether the checksum of all pixels is checked.
fn decode_with(input: &[u8], request: Request<'_>, checks: bool) -> Result<Decoded, ImageError> {
    let spec = request.spec;
    // Checked before the decoder runs, which allocates rows for these sides at once.
    if let Some(sides) = announced(input) {
        spec.check_source(sides, Format::Png)?;
    }
    check_palette(input)?;
    let unreadable = |error| unknown_chunk(input).unwrap_or_else(|| translate(error));
    let readable = readable(input);
    let mut reader = open(&readable[..], checks).map_err(unreadable)?;
    let info = reader.info();
    let (width, height) = info.size();
    let is_interlaced = info.interlaced;
    spec.check_source((width, height), Format::Png)?;
    let (color, is_deep) = output_of(&reader)?;
    let stride = width as usize * color.channels() * if is_deep { 2 } else { 1 };
    let bytes = stride as u64 * u64::from(height);
    spec.admit(bytes, input.len() as u64)?;
    let metadata = metadata(&reader, input, color);
    let orientation = metadata.orientation();
    let plans = request.plans((width, height), orientation, Format::Png)?;

    let len = usize::try_from(bytes).map_err(|_| ImageError::OutOfMemory { bytes })?;
    // If missing pixels are accepted, each pass of an interlaced file also fills the pixels of later passes: a coarse
    // picture.
    let is_coarse = is_interlaced && spec.fail_on < FailOn::Error;
    let mut samples = match is_deep {
        true => Samples::Sixteen(buffer(len / 2)?),
        false => Samples::Eight(buffer(len)?),
    };
    let rows: &mut [u8] = match &mut samples {
        Samples::Eight(samples) => samples,
        Samples::Sixteen(samples) => bytemuck::cast_slice_mut(samples),
    };
    let bits = (stride * 8 / width as usize) as u8;
    let all = u64::from(width) * u64::from(height);
    let (done, error) = read_rows(&mut reader, rows, stride, (bits, is_coarse), all);
    if let Samples::Sixteen(samples) = &mut samples {
        samples.iter_mut().for_each(|s| *s = u16::from_be(*s));
    }
    let pixels = Pixels {
        width,
        height,
        color,
        samples,
    };
    let mut pixels = in_full_range(pixels, reader.info());
    let is_doubtful = error.as_ref().is_some_and(concerns_pixels);
    if is_doubtful && done < all && checks && spec.fail_on < FailOn::Error {
        // The decoder checks the sum before it returns the last rows.
        let mut decoded = decode_with(input, request, false)?;
        let doubtful = error.map(translate).map(Found::doubtful);
        decoded.damage = decoded.damage.or(doubtful);
        return Ok(decoded);
    }
    let damage = match error.map(translate) {
        Some(error) if done < all => {
            // An interlaced picture whose first pass is complete lacks no rows: it is coarse everywhere instead.
            let first = u64::from(width.div_ceil(8)) * u64::from(height.div_ceil(8));
            let whole = match is_interlaced {
                true if done >= first => height,
                true => (done / u64::from(width.div_ceil(8))) as u32 * 8,
                false => (done / u64::from(width)) as u32,
            };
            fill_rows(&mut pixels, whole.min(height) as usize, spec.background);
            let loss = Loss::Pixels(all - done);
            Some(Found { loss, error })
        }
        Some(error) if is_doubtful => Some(Found::doubtful(error)),
        error => {
            // The decoder reads on after the pixels, up to the end marker.
            let error = error.map(|error| match error {
                ImageError::Truncated { format } => {
                    ImageError::corrupt(format, "its end marker is missing")
                }
                error => error,
            });
            let error = error.or_else(|| ignored_chunk(input));
            let error = error.or_else(|| unread_chunk(reader.info(), input));
            error.map(Found::around)
        }
    };
    Ok(Decoded {
        pixels,
        chroma: None,
        plans,
        orientation,
        metadata,
        damage,
        full: (width, height),
    })
}

/// Opens a decoder, and reads everything before the pixels. `checks`: whether it checks the checksum of all pixels.
fn open<T: AsRef<[u8]>>(input: T, checks: bool) -> Result<Reader<Cursor<T>>, DecodingError> {
    // A profile is decompressed with the header, before the size of the pixels is known.
    let limits = png::Limits {
        bytes: SPARE_BYTES as usize,
    };
    let mut options = png::DecodeOptions::default();
    options.set_ignore_adler32(!checks);
    let mut decoder = png::Decoder::new_with_options(Cursor::new(input), options);
    decoder.set_limits(limits);
    decoder.set_transformations(Transformations::EXPAND);
    decoder.read_info()
}

/// Returns the colour model of decoded rows, and whether they have 16 bits per sample.
fn output_of<T: AsRef<[u8]>>(reader: &Reader<Cursor<T>>) -> Result<(Color, bool), ImageError> {
    let (color, depth) = reader.output_color_type();
    let color = match color {
        ColorType::Grayscale => Color::Gray,
        ColorType::GrayscaleAlpha => Color::GrayAlpha,
        ColorType::Rgb => Color::Rgb,
        ColorType::Rgba => Color::Rgba,
        ColorType::Indexed => {
            let reason = "a palette without colours";
            return Err(ImageError::corrupt(Format::Png, reason));
        }
    };
    Ok((color, depth == BitDepth::Sixteen))
}

/// Reads rows up to the end or an error. Returns the number of pixels read. An error after the last pixel concerns the
/// rest of the file.
fn read_rows(
    reader: &mut Reader<File<'_>>,
    rows: &mut [u8],
    stride: usize,
    (bits, is_coarse): (u8, bool),
    all: u64,
) -> (u64, Option<DecodingError>) {
    let is_interlaced = reader.info().interlaced;
    let width = u64::from(reader.info().width);
    let mut done = 0;
    while done < all {
        let row = if is_interlaced {
            reader.next_interlaced_row().map(|row| {
                let row = row?;
                let InterlaceInfo::Adam7(pass) = row.interlace() else {
                    return None;
                };
                match is_coarse {
                    true => png::splat_interlaced_row(rows, stride, row.data(), pass, bits),
                    false => png::expand_interlaced_row(rows, stride, row.data(), pass, bits),
                }
                Some(row.data().len() as u64 * 8 / u64::from(bits))
            })
        } else {
            let start = (done / width) as usize * stride;
            let row = reader.read_row(&mut rows[start..start + stride]);
            row.map(|row| row.map(|_| width))
        };
        match row {
            Ok(Some(pixels)) => done += pixels,
            Ok(None) => {
                let early = std::io::Error::from(ErrorKind::UnexpectedEof);
                return (done, Some(DecodingError::IoError(early)));
            }
            Err(error) => return (done, Some(error)),
        }
    }
    (done, reader.finish().err())
}

/// Returns EXIF, XMP and a profile, from before and after the pixels.
fn metadata(reader: &Reader<File<'_>>, input: &[u8], color: Color) -> Metadata {
    let is_grey = matches!(color, Color::Gray | Color::GrayAlpha);
    let hdr = hdr(reader.info());
    // Unreadable metadata is ignored: it must not prevent decoding.
    let mut metadata = Metadata {
        exif: exif(reader),
        xmp: xmp(reader),
        icc: match hdr {
            Some(_) => None,
            None => profile(reader.info(), is_grey),
        },
        hdr,
    };
    let mut old = exif_as_text(reader.info());
    if let Some(rest) = metadata_after_pixels(input)
        && let Ok(rest) = open(rest.as_slice(), true)
    {
        metadata.exif = metadata.exif.or_else(|| exif(&rest));
        metadata.xmp = metadata.xmp.or_else(|| xmp(&rest));
        old = old.or_else(|| exif_as_text(rest.info()));
    }
    metadata.exif = metadata.exif.or(old);
    metadata
}

/// The keywords of texts in which ImageMagick and exiftool have written EXIF, before PNG had a chunk for it.
const EXIF_AS_TEXT: [&str; 2] = ["Raw profile type exif", "Raw profile type APP1"];

/// Returns EXIF from a text: a name, a length, and hexadecimal digits.
fn exif_as_text(info: &png::Info<'_>) -> Option<Vec<u8>> {
    let is_exif = |keyword: &str| EXIF_AS_TEXT.contains(&keyword);
    let plain = info.uncompressed_latin1_text.iter();
    let plain = plain.filter(|text| is_exif(&text.keyword));
    let packed = info.compressed_latin1_text.iter();
    let packed = packed.filter(|text| is_exif(&text.keyword));
    let unpacked = packed.filter_map(|text| {
        let mut text = text.clone();
        // An error for more than 2 MiB.
        text.decompress_text().ok()?;
        text.get_text().ok()
    });
    let mut texts = plain.map(|text| text.text.clone()).chain(unpacked);
    texts.find_map(|text| {
        let digits = text.split_ascii_whitespace().skip(2).flat_map(str::chars);
        let digits = digits.map(|digit| digit.to_digit(16).map(|digit| digit as u8));
        let digits: Vec<u8> = digits.collect::<Option<_>>()?;
        let pairs = digits.as_chunks::<2>().0.iter();
        let exif = without_prefix(pairs.map(|[high, low]| high << 4 | low).collect());
        exif::begins_as_exif(&exif).then_some(exif)
    })
}

fn exif(reader: &Reader<File<'_>>) -> Option<Vec<u8>> {
    let exif = reader.info().exif_metadata.as_deref()?;
    Some(without_prefix(exif.to_vec()))
}

fn xmp(reader: &Reader<File<'_>>) -> Option<Vec<u8>> {
    let texts = &reader.info().utf8_text;
    let text = texts
        .iter()
        .find(|text| text.keyword == "XML:com.adobe.xmp")?;
    Some(text.get_text().ok()?.into_bytes())
}

/// Scales the pixels of a picture or frame to full range, if they have the narrow range of video. Pixels of fewer than
/// 8 bits have no narrow range; a palette has 8 bits.
fn in_full_range(pixels: Pixels, info: &png::Info<'_>) -> Pixels {
    let has_range = info.color_type == ColorType::Indexed
        || matches!(info.bit_depth, BitDepth::Eight | BitDepth::Sixteen);
    match info.coding_independent_code_points {
        Some(points)
            if has_range
                && points.matrix_coefficients == 0
                && !points.is_video_full_range_image =>
        {
            pixels.widened()
        }
        _ => pixels,
    }
}

/// Returns the coding of the pixels, if they are of high dynamic range.
fn hdr(info: &png::Info<'_>) -> Option<Hdr> {
    let points = info.coding_independent_code_points?;
    let hdr = Hdr::of_code_points(points.color_primaries, points.transfer_function);
    hdr.filter(|_| points.matrix_coefficients == 0)
}

/// Returns the profile of the pixels, from the first that exists of cICP, iCCP, sRGB, and gAMA with cHRM. `None` for
/// sRGB.
fn profile(info: &png::Info<'_>, is_grey: bool) -> Option<Vec<u8>> {
    if let Some(points) = &info.coding_independent_code_points
        && points.matrix_coefficients == 0
        && let Some(profile) = from_code_points(points.color_primaries, points.transfer_function)
    {
        let name = name_of(points.color_primaries, points.transfer_function);
        return encoded(profile, &name, is_grey);
    }
    if let Some(profile) = &info.icc_profile {
        return Some(profile.to_vec());
    }
    if info.srgb.is_some() {
        return None;
    }
    let gamma = info.gama_chunk.map(png::ScaledFloat::into_scaled);
    // The gamma that programs write for sRGB.
    const LIKE_SRGB: u32 = 45_455;
    let curve = match gamma.filter(is_gamma) {
        None | Some(LIKE_SRGB) => None,
        Some(gamma) => Some(ToneReprCurve::Parametric(vec![100_000.0 / gamma as f32])),
    };
    let chosen = info.chrm_chunk.filter(is_triangle);
    let chosen = chosen.filter(|chosen| !is_like_srgb(chosen)).map(|chosen| {
        let point = |(x, y): Point| Chromaticity::new(x.into_value(), y.into_value());
        let [red, green, blue, white] =
            [chosen.red, chosen.green, chosen.blue, chosen.white].map(point);
        (ColorPrimaries { red, green, blue }, white)
    });
    let name = match (&curve, &chosen) {
        (None, None) => return None,
        (Some(_), None) => "gAMA of a PNG",
        (None, Some(_)) => "cHRM of a PNG",
        (Some(_), Some(_)) => "cHRM and gAMA of a PNG",
    };
    let mut profile = ColorProfile::new_srgb();
    if let Some((primaries, white)) = chosen {
        profile.update_rgb_colorimetry(white.to_xyyb(), primaries);
    }
    if let Some(curve) = curve {
        set_curve(&mut profile, curve);
    }
    encoded(profile, name, is_grey)
}

/// A place among colours: x and y.
type Point = (png::ScaledFloat, png::ScaledFloat);

/// Returns whether a gamma, in units of 1/100,000, is in the range that libpng accepts.
fn is_gamma(gamma: &u32) -> bool {
    (16..=625_000_000).contains(gamma)
}

/// Returns whether primaries and white are those of sRGB, which ImageMagick writes to each PNG. With the tolerance of
/// libpng.
fn is_like_srgb(chosen: &png::SourceChromaticities) -> bool {
    const TOLERANCE: u32 = 100;
    const SRGB: [(u32, u32); 4] = [
        (64_000, 33_000),
        (30_000, 60_000),
        (15_000, 6_000),
        (31_270, 32_900),
    ];
    let all = [chosen.red, chosen.green, chosen.blue, chosen.white];
    let is_near = |((x, y), (to_x, to_y)): (Point, (u32, u32))| {
        x.into_scaled()
            .abs_diff(to_x)
            .max(y.into_scaled().abs_diff(to_y))
            <= TOLERANCE
    };
    all.into_iter().zip(SRGB).all(is_near)
}

/// Returns whether primaries form a triangle of colours around their white point.
fn is_triangle(chosen: &png::SourceChromaticities) -> bool {
    const ONE: i64 = 100_000;
    /// Twice the least area between the white point and two primaries. sRGB has about 50 times as much.
    const LEAST: i64 = ONE * ONE / 1000;
    let point = |(x, y): Point| (i64::from(x.into_scaled()), i64::from(y.into_scaled()));
    let [red, green, blue, white] =
        [chosen.red, chosen.green, chosen.blue, chosen.white].map(point);
    let is_color = |(x, y): (i64, i64)| y > 0 && x + y <= ONE;
    // Twice the area between the white point and two primaries; negative if they follow each other clockwise.
    let area = |a: (i64, i64), b: (i64, i64)| {
        (a.0 - white.0) * (b.1 - white.1) - (a.1 - white.1) * (b.0 - white.0)
    };
    [red, green, blue, white].into_iter().all(is_color) && {
        let areas = [area(red, green), area(green, blue), area(blue, red)];
        areas.iter().all(|&area| area >= LEAST) || areas.iter().all(|&area| area <= -LEAST)
    }
}

fn set_curve(profile: &mut ColorProfile, curve: ToneReprCurve) {
    profile.red_trc = Some(curve.clone());
    profile.green_trc = Some(curve.clone());
    profile.blue_trc = Some(curve);
}

/// Returns the file in the form that the decoder reads as libpng does: without chunks that libpng ignores, and with a
/// transparent grey of the file's depth.
fn readable(file: &[u8]) -> Cow<'_, [u8]> {
    let file = without_ignored(file);
    with_masked_transparency(&file).map_or(file, Cow::Owned)
}

/// Leaves out chunks before the pixels for which the decoder would refuse the file.
fn without_ignored(file: &[u8]) -> Cow<'_, [u8]> {
    let (mut copied, mut start, mut at) = (Vec::new(), 0, SIGNATURE);
    for (kind, len, whole) in before_pixels(file) {
        let is_ignored = match &kind {
            b"PLTE" => !has_palette(file) && !is_palette(len),
            // Code points of RGB in narrow or full range.
            b"cICP" => !matches!(whole[8..], [_, _, 0, 0 | 1, _, _, _, _]),
            // Refused before the palette; never used.
            b"bKGD" => has_palette(file),
            _ => false,
        };
        let end = at + whole.len();
        if is_ignored && has_right_sum(len, whole) == Some(true) {
            copied.extend_from_slice(&file[start..at]);
            start = end;
        }
        at = end;
    }
    if start == 0 {
        return Cow::Borrowed(file);
    }
    copied.extend_from_slice(&file[start..]);
    Cow::Owned(copied)
}

/// Clears the bits of a transparent grey beyond the file's depth, which have no meaning. `None` if no such bits are
/// set.
fn with_masked_transparency(file: &[u8]) -> Option<Vec<u8>> {
    // Depth and colour type follow the sides.
    let (&depth, &kind) = (file.get(24)?, file.get(25)?);
    if kind != 0 || !matches!(depth, 1 | 2 | 4) {
        return None;
    }
    let mut at = SIGNATURE;
    let len = before_pixels(file).find_map(|(kind, len, whole)| {
        let found = kind == *b"tRNS";
        at += if found { 0 } else { whole.len() };
        found.then_some(len)
    })?;
    let mut masked = file.to_vec();
    let chunk = masked.get_mut(at..at + len.saturating_add(OVERHEAD))?;
    let grey = chunk.get_mut(8..10).filter(|_| len >= 2)?;
    let mask = (1u8 << depth) - 1;
    if grey[0] == 0 && grey[1] & !mask == 0 {
        return None;
    }
    grey[0] = 0;
    grey[1] &= mask;
    let sum = crc32(&chunk[4..8 + len]).to_be_bytes();
    chunk[8 + len..].copy_from_slice(&sum);
    Some(masked)
}

/// Whether an error after the last pixel is about the pixels: the checksum of their chunk, or of all of them.
fn concerns_pixels(error: &DecodingError) -> bool {
    let text = error.to_string();
    text.contains("Corrupt deflate stream") || text.contains("CRC error") && text.contains("IDAT")
}

/// Returns the error for a chunk about colours, transparency or orientation that the decoder has ignored, because its
/// checksum is wrong.
fn ignored_chunk(file: &[u8]) -> Option<ImageError> {
    const KINDS: [&[u8; 4]; 7] = [
        b"cICP", b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"tRNS", b"eXIf",
    ];
    let mut found = chunks(file).filter(|(kind, ..)| KINDS.contains(&kind));
    let (kind, ..) = found.find(|(_, len, whole)| has_right_sum(*len, whole) == Some(false))?;
    let kind = String::from_utf8_lossy(&kind).into_owned();
    let reason = format!("the checksum of its chunk {kind} is wrong, so the chunk was ignored");
    Some(ImageError::corrupt(Format::Png, reason))
}

/// Returns the error for an intact chunk about colours or transparency that the decoder has not read, although it
/// stands before the pixels.
fn unread_chunk(info: &png::Info<'_>, file: &[u8]) -> Option<ImageError> {
    let (kind, ..) = before_pixels(file).find(|&(kind, len, _)| match &kind {
        b"PLTE" => !is_palette(len),
        b"cICP" => info.coding_independent_code_points.is_none(),
        b"iCCP" => info.icc_profile.is_none(),
        b"gAMA" => !info
            .gama_chunk
            .is_some_and(|gamma| is_gamma(&gamma.into_scaled())),
        b"cHRM" => !info.chrm_chunk.as_ref().is_some_and(is_triangle),
        // Next to alpha it has no meaning.
        b"tRNS" => info.trns.is_none() && info.color_type.samples() % 2 == 1,
        _ => false,
    })?;
    let kind = String::from_utf8_lossy(&kind).into_owned();
    let reason = format!("its chunk {kind} is invalid or out of place, so the chunk was ignored");
    Some(ImageError::corrupt(Format::Png, reason))
}

/// Returns the error for an intact chunk that a decoder has to know, and that no specification names.
fn unknown_chunk(file: &[u8]) -> Option<ImageError> {
    const KNOWN: [&[u8; 4]; 4] = [b"IHDR", b"PLTE", b"IDAT", b"IEND"];
    let mut unknown =
        chunks(file).filter(|(kind, ..)| kind[0].is_ascii_uppercase() && !KNOWN.contains(&kind));
    let (kind, ..) = unknown.find(|(_, len, whole)| has_right_sum(*len, whole) == Some(true))?;
    Some(ImageError::variety(
        Format::Png,
        match &kind {
            b"CgBI" => "Apple's CgBI".to_owned(),
            kind => format!("a necessary chunk {}", String::from_utf8_lossy(kind)),
        },
    ))
}

/// Returns whether the checksum of a chunk is right; `None` if the chunk is cut.
fn has_right_sum(len: usize, whole: &[u8]) -> Option<bool> {
    let (body, sum) = whole.get(4..)?.split_last_chunk()?;
    let is_whole = whole.len() == len.saturating_add(OVERHEAD);
    is_whole.then(|| u32::from_be_bytes(*sum) == crc32(body))
}

/// Converts an error of the decoder.
fn translate(error: DecodingError) -> ImageError {
    let format = Format::Png;
    let error = match error {
        DecodingError::IoError(error) if error.kind() == ErrorKind::UnexpectedEof => {
            return ImageError::Truncated { format };
        }
        DecodingError::LimitsExceeded => {
            let reason = "decoding it takes more memory than its pixels can need";
            return ImageError::corrupt(format, reason);
        }
        error => error.to_string(),
    };
    let known = [
        ("CRC error", "the checksum of a chunk is wrong"),
        (
            "Corrupt deflate stream",
            "its pixels are compressed wrongly",
        ),
        (
            "enough data for image",
            "it has fewer pixels than its header says",
        ),
        ("IDAT or fdAT chunk is missing", "it has no pixels"),
        ("Missing palette", "its palette is missing"),
        (
            "Not enough palette entries",
            "its transparency is shorter than its kind of pixels needs",
        ),
        (
            "Invalid color/depth combination",
            "its header names a depth that its kind of pixels cannot have",
        ),
        ("Invalid bit depth", "its header names an unknown depth"),
        (
            "Invalid color type",
            "its header names an unknown kind of pixels",
        ),
        ("method", "its header or a row names an unknown method"),
        ("Chunk length", "a chunk has an impossible length"),
        ("Sequence is not in order", "its frames are out of order"),
        (
            "at most once",
            "it has two chunks of a kind of which it may have one",
        ),
        ("chunk", "its chunks are out of order"),
    ];
    let known = known.iter().find(|(theirs, _)| error.contains(theirs));
    match known {
        Some((_, ours)) => ImageError::corrupt(format, ours),
        None => ImageError::corrupt(format, error),
    }
}

/// Returns whether the header announces a palette.
pub(super) fn has_palette(file: &[u8]) -> bool {
    file.get(25) == Some(&3)
}

/// Returns whether a file is an animation that can be read: not with 16 bits per sample, and not interlaced.
fn is_animated(file: &[u8]) -> bool {
    let is_read = file.get(24) != Some(&16) && file.get(28) == Some(&0);
    is_read && before_pixels(file).any(|(kind, ..)| &kind == b"acTL")
}

/// Returns the frames of a file with more than one frame.
pub(super) fn animation<'a>(
    input: &'a [u8],
    spec: &'a ResizeSpec,
    draws: bool,
) -> Result<Option<Animation<'a>>, ImageError> {
    if !is_animated(input) {
        return Ok(None);
    }
    let mut reader = open(readable(input), true).map_err(translate)?;
    let Some(control) = reader.info().animation_control else {
        return Ok(None);
    };
    let sides = reader.info().size();
    let mut screen = Screen::new(sides, (input, Format::Png), spec, draws)?;
    let (color, _) = output_of(&reader)?;
    // The decoder requires a buffer for the whole picture, whatever the size of the frame is.
    let mut samples: Vec<u8> = buffer(reader.output_buffer_size().unwrap_or(0))?;
    // A picture that is not part of the animation precedes it.
    let mut is_before_first = reader.info().frame_control.is_none();
    let mut left = control.num_frames;
    let (present, has_end) = frames_present(input);
    let (mut time, mut shown) = (0.0, 0);
    let mut draw = move || {
        if std::mem::replace(&mut is_before_first, true) {
            reader.next_frame_info().map_err(translate)?;
        }
        let frame = reader.info().frame_control.unwrap_or_default();
        screen.admit((frame.width, frame.height))?;
        let info = reader.next_frame(&mut samples).map_err(translate)?;
        let pixels = Pixels {
            width: info.width,
            height: info.height,
            color,
            samples: Samples::Eight(samples[..info.buffer_size()].to_vec()),
        };
        let drawn = in_full_range(pixels, reader.info());
        let drawn = drawn.into_rgb().with_alpha();
        let disposal = match frame.dispose_op {
            DisposeOp::None => Disposal::Keep,
            DisposeOp::Background => Disposal::Clear,
            DisposeOp::Previous => Disposal::Restore,
        };
        let area = Area::new((frame.x_offset, frame.y_offset), (info.width, info.height));
        screen.draw(
            area,
            drawn.eight_bits(),
            frame.blend_op == BlendOp::Over,
            disposal,
        );
        // Rounded as a running sum, so that long animations keep their total time.
        let per_second = if frame.delay_den == 0 {
            100
        } else {
            frame.delay_den
        };
        time += f64::from(frame.delay_num) * 1000.0 / f64::from(per_second);
        let millis = time.round() as u64 - shown;
        shown += millis;
        Ok(screen.frame(millis as u32))
    };
    let next = move || {
        if left == 0 {
            return Ok(None);
        }
        if has_end && present == control.num_frames - left {
            let announced = control.num_frames;
            let reason = format!("it has fewer frames than announced ({present} of {announced})");
            return Err(Found::around(ImageError::corrupt(Format::Png, reason)));
        }
        left -= 1;
        draw().map(Some).map_err(Found::later)
    };
    Ok((control.num_frames > 1).then(|| Animation::new(control.num_plays, next)))
}

/// Returns the damage of an animation that ends before its last frame does.
pub(super) fn damage_after_first(file: &[u8]) -> Option<Found> {
    let (.., control) = before_pixels(file).find(|(kind, ..)| kind == b"acTL")?;
    let announced = u32::from_be_bytes(*control.get(8..)?.first_chunk()?);
    let (present, has_end) = frames_present(file);
    let (_, len, last) = chunks(file).last()?;
    let is_cut = last.len() < len.saturating_add(OVERHEAD);
    let format = Format::Png;
    (!has_end && (is_cut || present < announced))
        .then(|| Found::later(ImageError::Truncated { format }))
}

/// Returns the sides of all frames, according to their headers.
pub(super) fn frame_sides(file: &[u8]) -> impl Iterator<Item = (u32, u32)> {
    let frames = chunks(file).filter(|(kind, ..)| kind == b"fcTL");
    frames.filter_map(|(.., whole)| {
        let side = |at: usize| Some(u32::from_be_bytes(*whole.get(at..)?.first_chunk()?));
        // After length, kind and number.
        side(12).zip(side(16))
    })
}

/// Returns the number of frames that have pixels, and whether the file has an end marker.
fn frames_present(file: &[u8]) -> (u32, bool) {
    let (mut count, mut has_header) = (0, false);
    for (kind, ..) in chunks(file) {
        match &kind {
            b"fcTL" => has_header = true,
            b"IDAT" | b"fdAT" => count += u32::from(std::mem::take(&mut has_header)),
            b"IEND" => return (count, true),
            _ => {}
        }
    }
    (count, false)
}

const SIGNATURE: usize = 8;
/// The number of bytes of a chunk in addition to its data: length, kind and checksum.
const OVERHEAD: usize = 4 + 4 + 4;

/// A chunk: kind, length of the data according to the header, and the bytes of the chunk that exist.
type Chunk<'a> = ([u8; 4], usize, &'a [u8]);

fn chunks(file: &[u8]) -> impl Iterator<Item = Chunk<'_>> {
    let mut rest = file.get(SIGNATURE..).unwrap_or_default();
    std::iter::from_fn(move || {
        let [a, b, c, d, kind @ ..] = *rest.first_chunk::<8>()?;
        let len = u32::from_be_bytes([a, b, c, d]) as usize;
        let (whole, after) = rest.split_at(rest.len().min(len.saturating_add(OVERHEAD)));
        rest = after;
        Some((kind, len, whole))
    })
}

fn before_pixels(file: &[u8]) -> impl Iterator<Item = Chunk<'_>> {
    chunks(file).take_while(|(kind, ..)| kind != b"IDAT")
}

/// Returns the sides in the header, if its checksum is right.
pub(super) fn announced(file: &[u8]) -> Option<(u32, u32)> {
    let (kind, len, whole) = chunks(file).next()?;
    if kind != *b"IHDR" || len != 13 || has_right_sum(len, whole) != Some(true) {
        return None;
    }
    let side = |at: usize| whole[at..].first_chunk().copied().map(u32::from_be_bytes);
    Some((side(8)?, side(12)?))
}

/// Returns whether a palette may have this number of bytes. (libpng ignores any other number but 0.)
const fn is_palette(len: usize) -> bool {
    len <= 768 && len.is_multiple_of(3)
}

/// Rejects a palette of indices that ends within a colour, on which `png` 0.18 panics.
fn check_palette(file: &[u8]) -> Result<(), ImageError> {
    for (kind, len, _) in before_pixels(file).filter(|_| has_palette(file)) {
        if kind == *b"PLTE" && !len.is_multiple_of(3) {
            let reason = format!("a palette of {len} bytes, which is not a multiple of 3");
            return Err(ImageError::corrupt(Format::Png, reason));
        }
    }
    Ok(())
}

/// Returns a PNG of one pixel with the EXIF and XMP that `file` has after its pixels, where the decoder does not look.
/// `None` if there are none.
pub(super) fn metadata_after_pixels(file: &[u8]) -> Option<Vec<u8>> {
    let whole = |&(kind, len, whole): &Chunk<'_>| {
        let is_metadata = match &kind {
            b"eXIf" => true,
            b"iTXt" => whole[8..].starts_with(b"XML:com.adobe.xmp\0"),
            b"tEXt" | b"zTXt" => {
                let mut keywords = EXIF_AS_TEXT.iter();
                keywords.any(|keyword| whole[8..].starts_with(keyword.as_bytes()))
            }
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
