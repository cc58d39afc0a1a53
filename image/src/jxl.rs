//! JPEG XL, by the `jxl` crate: the first frame, in the orientation that the header specifies.

use std::borrow::Cow;
use std::io::Read;

use brotli_decompressor::Decompressor;
use jxl::api::{
    Endianness, Event, ExtraChannel, JxlBasicInfo, JxlColorEncoding, JxlColorProfile, JxlColorType,
    JxlDataFormat, JxlDecoder, JxlDecoderOptions, JxlOutputBuffer, JxlPixelFormat, JxlPrimaries,
    JxlTransferFunction, ProfileLevel,
};

use super::avif::{Reader, TopBox};
use super::damage::Found;
use super::error::ImageError;
use super::format::{Format, probe};
use super::hdr::Hdr;
use super::meta::{Decoded, Metadata, Request, exif_after_offset};
use super::pixels::{Color, Orientation, Pixels, Samples, buffer};
use super::spec::{ResizeSpec, SPARE_BYTES};

/// Returns width and height in the header of a JPEG XL. `None` for other files.
pub(super) fn sides(file: &[u8]) -> Option<(u32, u32)> {
    if probe(file) != Some(Format::JpegXl) {
        return None;
    }
    let codestream = match is_bare(file) {
        true => file,
        false => boxes(file).find_map(|found| match &found.kind {
            b"jxlc" => Some(found.content.rest()),
            // The number of the part comes first.
            b"jxlp" => found.content.rest().get(4..),
            _ => None,
        })?,
    };
    size_of_header(codestream.get(2..)?)
}

/// Returns width and height in the first bytes after the signature of a codestream, as ISO/IEC 18181-1 describes them:
/// bits from the lowest of each byte.
fn size_of_header(bytes: &[u8]) -> Option<(u32, u32)> {
    const HEADER: usize = 9;
    let bits = bytes.iter().take(HEADER).rev();
    let mut bits = bits.fold(0_u128, |bits, &byte| bits << 8 | u128::from(byte));
    let mut take = |count: u32| {
        let taken = bits & ((1 << count) - 1);
        bits >>= count;
        taken as u64
    };
    let is_small = take(1) == 1;
    let side = |take: &mut dyn FnMut(u32) -> u64| match is_small {
        true => 8 * (take(5) + 1),
        false => {
            let count = [9, 13, 18, 30][take(2) as usize];
            take(count) + 1
        }
    };
    let height = side(&mut take);
    let width = match take(3) {
        0 => side(&mut take),
        ratio => {
            let (across, down) =
                [(1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1)][ratio as usize - 1];
            height * across / down
        }
    };
    Some((width.try_into().ok()?, height.try_into().ok()?))
}

/// Decodes a picture, or the first frame of an animation. A viewer turns the result by `orientation`, which is that of
/// a file around this one.
pub(super) fn decode(
    input: &[u8],
    orientation: Orientation,
    request: Request<'_>,
) -> Result<Decoded, ImageError> {
    let spec = request.spec;
    let mut opened = Opened::new(input, spec)?;
    let sides = (opened.width, opened.height);
    let plain = |kind| boxes(input).find(|found| found.kind == kind && !found.is_truncated);
    let mut exif = plain(*b"Exif").and_then(|found| exif_after_offset(found.content.rest()));
    let mut xmp = plain(*b"xml ").map(|found| found.content.rest().to_vec());
    let mut damage = None;
    if spec.keep_metadata {
        for (kind, compressed) in boxes(input).filter_map(compressed) {
            if kind == *b"Exif" && exif.is_none() || kind == *b"xml " && xmp.is_none() {
                match expanded(compressed) {
                    Ok(content) if kind == *b"Exif" => exif = exif_after_offset(&content),
                    Ok(content) => xmp = Some(content),
                    Err(reason) => {
                        let error = ImageError::corrupt(Format::JpegXl, reason);
                        damage = Some(Found::around(error));
                    }
                }
            }
        }
    }
    let profile = opened.decoder.output_color_profile().cloned();
    let profile = profile.map(displayed);
    let hdr = profile.as_ref().and_then(hdr_of);
    let icc = match (&hdr, &profile) {
        (None, Some(profile)) => profile.try_as_icc().map(Cow::into_owned),
        _ => None,
    };
    let metadata = Metadata {
        exif,
        xmp,
        icc,
        hdr,
    };
    // The decoder has applied the orientation of the header. The orientation in EXIF does not count in this format.
    let plans = request.plans(sides, orientation, Format::JpegXl)?;
    let pixels = opened.pixels()?;
    let lost = match opened.has_more_frames {
        true => loss_of_frames(input, spec).map(Found::later),
        false => None,
    };
    Ok(Decoded {
        pixels,
        chroma: None,
        plans,
        orientation,
        metadata,
        damage: lost.or(damage).or_else(|| damage_at_end(input)),
        full: sides,
    })
}

/// A picture whose headers were read.
struct Opened<'a> {
    decoder: JxlDecoder,
    rest: &'a [u8],
    width: u32,
    height: u32,
    color: Color,
    /// Whether the pixels have more than 8 bits, and become 16.
    is_deep: bool,
    /// Whether colours are multiplied by alpha.
    is_multiplied: bool,
    /// Whether frames follow the one that was decoded last.
    has_more_frames: bool,
}

impl<'a> Opened<'a> {
    /// Reads the headers, and checks them against the limits of `spec`.
    fn new(input: &'a [u8], spec: &ResizeSpec) -> Result<Self, ImageError> {
        let format = Format::JpegXl;
        let (mut decoder, mut rest) = begun(input, options(spec))?;
        match decoder.process(&mut rest, None, None).map_err(translate)? {
            Event::BasicInfo => {}
            _ => return Err(ImageError::Truncated { format }),
        }
        let info = decoder.basic_info().cloned();
        let info = info.ok_or(ImageError::Truncated { format })?;
        let profile = decoder.embedded_color_profile();
        let has = |kind| {
            info.extra_channels
                .iter()
                .any(|channel| channel.ec_type == kind)
        };
        if profile.is_some_and(JxlColorProfile::is_cmyk) || has(ExtraChannel::Black) {
            return Err(ImageError::variety(format, "inks"));
        }
        let is_grey = profile.is_some_and(|profile| profile.channels() == 1);
        let (color, color_type) = match (is_grey, has(ExtraChannel::Alpha)) {
            (true, false) => (Color::Gray, JxlColorType::Grayscale),
            (true, true) => (Color::GrayAlpha, JxlColorType::GrayscaleAlpha),
            (false, false) => (Color::Rgb, JxlColorType::Rgb),
            (false, true) => (Color::Rgba, JxlColorType::Rgba),
        };
        let (width, height) = sides_of(&info)?;
        spec.check_source((width, height), format)?;
        let is_deep = info.bit_depth.bits_per_sample() > 8;
        let samples = u64::from(width) * u64::from(height) * color.channels() as u64;
        spec.admit(samples * (1 + u64::from(is_deep)), input.len() as u64)?;
        let data = match is_deep {
            false => JxlDataFormat::U8 { bit_depth: 8 },
            true => JxlDataFormat::U16 {
                endianness: Endianness::native(),
                bit_depth: 16,
            },
        };
        let pixel_format = JxlPixelFormat {
            color_type,
            color_data_format: Some(data),
            extra_channel_format: vec![None; info.extra_channels.len()],
        };
        decoder.set_pixel_format(pixel_format).map_err(translate)?;
        Ok(Self {
            decoder,
            rest,
            width,
            height,
            color,
            is_deep,
            is_multiplied: info
                .extra_channels
                .iter()
                .find(|channel| channel.ec_type == ExtraChannel::Alpha)
                .is_some_and(|channel| channel.alpha_associated),
            has_more_frames: false,
        })
    }

    /// Decodes the first frame.
    fn pixels(&mut self) -> Result<Pixels, ImageError> {
        let len = self.width as usize * self.height as usize * self.color.channels();
        let samples = match self.is_deep {
            false => {
                let mut samples: Vec<u8> = buffer(len)?;
                self.fill(&mut samples)?;
                Samples::Eight(samples)
            }
            true => {
                let mut samples: Vec<u16> = buffer(len)?;
                self.fill(bytemuck::cast_slice_mut(&mut samples))?;
                Samples::Sixteen(samples)
            }
        };
        let mut pixels = Pixels {
            width: self.width,
            height: self.height,
            color: self.color,
            samples,
        };
        if self.is_multiplied {
            pixels.divide_by_alpha();
        }
        Ok(pixels)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), ImageError> {
        let rows = self.height as usize;
        let row = bytes.len() / rows;
        loop {
            let mut buffers = [JxlOutputBuffer::new(bytes, rows, row)];
            let event = self
                .decoder
                .process(&mut self.rest, Some(&mut buffers), None);
            match event.map_err(translate)? {
                Event::FrameComplete { has_more_frames } => {
                    self.has_more_frames = has_more_frames;
                    return Ok(());
                }
                Event::NeedMoreInput { .. } | Event::Complete => {
                    let format = Format::JpegXl;
                    return Err(ImageError::Truncated { format });
                }
                Event::BasicInfo | Event::FrameHeader => {}
            }
        }
    }
}

fn options(spec: &ResizeSpec) -> JxlDecoderOptions {
    let mut options = JxlDecoderOptions::default();
    options.max_profile_level = ProfileLevel::Main10;
    // The decoder uses up to 32 bits for each sample.
    let most = spec.max_bytes.saturating_add(SPARE_BYTES);
    options.sample_limit = Some(usize::try_from(most).unwrap_or(usize::MAX));
    options
}

/// The start of a container of level 10: signature, brand and level.
const LEVEL_10: &[u8] = b"\0\0\0\x0cJXL \r\n\x87\n\0\0\0\x14ftypjxl \0\0\0\0jxl \0\0\0\x09jxll\x0a";
/// The header of a box with a codestream that ends where the file does.
const OPEN_BOX: &[u8] = b"\0\0\0\0jxlc";

/// Returns a decoder, and the bytes to pass to it.
///
/// A file that does not announce a level has level 5, whose limits the decoder enforces. Other decoders do not, and
/// cjxl exceeds them, for example in progressive lossless pictures. So the decoder begins with the start of a container
/// of level 10. Memory is limited by `options`.
fn begun(file: &[u8], options: JxlDecoderOptions) -> Result<(JxlDecoder, &[u8]), ImageError> {
    let mut decoder = JxlDecoder::new(options);
    let mut after_brand = Reader::new(file.get(12..).unwrap_or_default());
    let (start, rest) = match after_brand.top_box() {
        _ if is_bare(file) => ([LEVEL_10, OPEN_BOX].concat(), file),
        Ok(Some(brand)) if brand.kind == *b"ftyp" && boxes(file).all(|it| it.kind != *b"jxll") => {
            (LEVEL_10.to_vec(), after_brand.rest())
        }
        _ => return Ok((decoder, file)),
    };
    // The decoder takes these bytes, and needs more.
    decoder
        .process(&mut &start[..], None, None)
        .map_err(translate)?;
    Ok((decoder, rest))
}

/// Returns the reason why a file lacks frames, if any. Visible frames are skipped, not decoded.
fn loss_of_frames(input: &[u8], spec: &ResizeSpec) -> Option<ImageError> {
    let mut options = options(spec);
    options.scan_frames_only = true;
    let (mut decoder, mut rest) = match begun(input, options) {
        Ok(begun) => begun,
        Err(error) => return Some(error),
    };
    loop {
        match decoder.process(&mut rest, None, None).map_err(translate) {
            Ok(Event::Complete) => return None,
            Ok(Event::NeedMoreInput { .. }) => {
                let format = Format::JpegXl;
                return Some(ImageError::Truncated { format });
            }
            Ok(_) => {}
            Err(error) => return Some(error),
        }
    }
}

/// Returns width and height; an error if one of them is 0.
fn sides_of(info: &JxlBasicInfo) -> Result<(u32, u32), ImageError> {
    let (width, height) = info.size;
    match (u32::try_from(width), u32::try_from(height)) {
        (Ok(width @ 1..), Ok(height @ 1..)) => Ok((width, height)),
        _ => Err(ImageError::corrupt(Format::JpegXl, "it has no pixels")),
    }
}

/// Returns the profile by which pixels are displayed: the curve of BT.709 counts as that of sRGB, as in other formats.
fn displayed(mut profile: JxlColorProfile) -> JxlColorProfile {
    if let JxlColorProfile::Simple(
        JxlColorEncoding::RgbColorSpace {
            transfer_function, ..
        }
        | JxlColorEncoding::GrayscaleColorSpace {
            transfer_function, ..
        },
    ) = &mut profile
        && *transfer_function == JxlTransferFunction::BT709
    {
        *transfer_function = JxlTransferFunction::SRGB;
    }
    profile
}

/// Returns the coding of pixels with these colours, if they are of high dynamic range.
fn hdr_of(profile: &JxlColorProfile) -> Option<Hdr> {
    let transfer = match profile.transfer_function()? {
        JxlTransferFunction::PQ => 16,
        JxlTransferFunction::HLG => 18,
        _ => return None,
    };
    // Primaries by their numbers in H.273. Other primaries are rare, and close to those of BT.2020.
    let primaries = match profile {
        JxlColorProfile::Simple(JxlColorEncoding::RgbColorSpace { primaries, .. }) => {
            match primaries {
                JxlPrimaries::SRGB => 1,
                JxlPrimaries::P3 => 12,
                JxlPrimaries::BT2100 | JxlPrimaries::Chromaticities { .. } => 9,
            }
        }
        _ => 1,
    };
    Hdr::of_code_points(primaries, transfer)
}

/// Returns the boxes of a container; empty for a bare codestream.
fn boxes(file: &[u8]) -> impl Iterator<Item = TopBox<'_>> {
    let mut reader = Reader::new(if is_bare(file) { &[] } else { file });
    std::iter::from_fn(move || reader.top_box().ok().flatten())
}

/// Returns whether a file is a codestream without a container.
fn is_bare(file: &[u8]) -> bool {
    file.starts_with(&[0xff, 0x0a])
}

/// Returns the damage of a file that ends early, and after its pixels.
fn damage_at_end(file: &[u8]) -> Option<Found> {
    let is_cut = !is_bare(file) && Reader::new(file).ends_early();
    is_cut.then(|| Found::after_pixels(Format::JpegXl))
}

/// Returns the kind of the box that a compressed box contains, and its compressed content.
fn compressed(found: TopBox<'_>) -> Option<([u8; 4], &[u8])> {
    let (inner, data) = found.content.rest().split_first_chunk::<4>()?;
    (found.kind == *b"brob").then_some((*inner, data))
}

/// The maximum number of bytes of metadata in a compressed box, after decompression.
const MAX_METADATA: u64 = 16 << 20;

/// Decompresses the content of a compressed box. The error is a text for the user.
fn expanded(data: &[u8]) -> Result<Vec<u8>, &'static str> {
    let wrong = "its metadata is compressed wrongly, and is left out";
    // This byte announces a window of up to a gigabyte. The format has no such windows, but the decoder would allocate
    // it.
    if data.first().is_none_or(|first| first & 0x7f == 0x11) {
        return Err(wrong);
    }
    let mut content = Vec::new();
    let mut decoder = Decompressor::new(data, 4096).take(MAX_METADATA + 1);
    match decoder.read_to_end(&mut content) {
        Err(_) => Err(wrong),
        Ok(len) if len as u64 > MAX_METADATA => {
            Err("its metadata expands to more than 16 MiB, and is left out")
        }
        Ok(_) => Ok(content),
    }
}

/// Converts an error of the decoder.
fn translate(error: jxl::error::Error) -> ImageError {
    let format = Format::JpegXl;
    match error {
        jxl::error::Error::OutOfMemory(_)
        | jxl::error::Error::ImageOutOfMemory(..)
        | jxl::error::Error::ImageSizeTooLarge(..) => {
            ImageError::variety(format, "it needs more memory than is allowed")
        }
        // Not damage: only this decoder enforces these limits.
        error @ jxl::error::Error::LevelLimitExceeded { .. } => ImageError::variety(format, error),
        error => ImageError::corrupt(format, error.to_string()),
    }
}
