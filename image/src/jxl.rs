//! JPEG XL, by the `jxl` crate: the first frame, in the orientation that the header specifies.

use std::io::Read;

use brotli_decompressor::Decompressor;
use jxl::api::{
    Endianness, Event, ExtraChannel, JxlBasicInfo, JxlColorEncoding, JxlColorProfile, JxlColorType,
    JxlDataFormat, JxlDecoder, JxlDecoderOptions, JxlOutputBuffer, JxlPixelFormat, JxlPrimaries,
    JxlTransferFunction, ProfileLevel,
};

use super::damage::Found;
use super::error::ImageError;
use super::format::Format;
use super::hdr::Hdr;
use super::meta::{Decoded, Metadata, Request, exif_after_offset};
use super::pixels::{Color, Orientation, Pixels, Samples, buffer};
use super::spec::{ResizeSpec, SPARE_BYTES};

/// Decodes a picture, or the first frame of an animation.
pub(super) fn decode(input: &[u8], request: Request<'_>) -> Result<Decoded, ImageError> {
    let spec = request.spec;
    let mut opened = Opened::new(input, spec)?;
    let sides = (opened.width, opened.height);
    let plain = |kind| boxes(input).find(|(found, ..)| *found == kind);
    let mut exif = plain(*b"Exif").and_then(|(_, content, _)| exif_after_offset(content));
    let mut xmp = plain(*b"xml ").map(|(_, content, _)| content.to_vec());
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
    let profile = opened.decoder.output_color_profile();
    let hdr = profile.and_then(hdr_of);
    let icc = match hdr {
        Some(_) => None,
        None => profile.and_then(|profile| Some(profile.try_as_icc()?.into_owned())),
    };
    let metadata = Metadata {
        exif,
        xmp,
        icc,
        hdr,
    };
    // The decoder has applied the orientation of the header. The orientation in EXIF does not count in this format.
    let orientation = Orientation::NoTransforms;
    let plans = request.plans(sides, orientation, Format::JpegXl)?;
    Ok(Decoded {
        pixels: opened.pixels()?,
        chroma: None,
        plans,
        orientation,
        metadata,
        damage,
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
}

impl<'a> Opened<'a> {
    /// Reads the headers, and checks them against the limits of `spec`.
    fn new(input: &'a [u8], spec: &ResizeSpec) -> Result<Self, ImageError> {
        let format = Format::JpegXl;
        let mut options = JxlDecoderOptions::default();
        options.max_profile_level = ProfileLevel::Main10;
        // The decoder uses up to 32 bits for each sample.
        let most = spec.max_bytes.saturating_add(SPARE_BYTES);
        options.sample_limit = Some(usize::try_from(most).unwrap_or(usize::MAX));
        let (mut decoder, mut rest) = (JxlDecoder::new(options), input);
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
        let (width, height) = sides(&info)?;
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
                Event::FrameComplete { .. } => return Ok(()),
                Event::NeedMoreInput { .. } | Event::Complete => {
                    let format = Format::JpegXl;
                    return Err(ImageError::Truncated { format });
                }
                Event::BasicInfo | Event::FrameHeader => {}
            }
        }
    }
}

/// Returns width and height; an error if one of them is 0.
fn sides(info: &JxlBasicInfo) -> Result<(u32, u32), ImageError> {
    let (width, height) = info.size;
    match (u32::try_from(width), u32::try_from(height)) {
        (Ok(width @ 1..), Ok(height @ 1..)) => Ok((width, height)),
        _ => Err(ImageError::corrupt(Format::JpegXl, "it has no pixels")),
    }
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

/// A box of a container: its kind, its content, and all its bytes.
type Part<'a> = ([u8; 4], &'a [u8], &'a [u8]);

/// Returns the boxes of a container; empty for a bare codestream.
fn boxes(file: &[u8]) -> impl Iterator<Item = Part<'_>> {
    let mut rest = match file.starts_with(&[0xff, 0x0a]) {
        true => &[][..],
        false => file,
    };
    std::iter::from_fn(move || {
        let (&[a, b, c, d, ref kind @ ..], _) = rest.split_first_chunk::<8>()?;
        let long = rest.get(8..16).and_then(|long| long.try_into().ok());
        let (len, header) = match (u32::from_be_bytes([a, b, c, d]), long) {
            (0, _) => (rest.len(), 8),
            (1, Some(long)) => (
                usize::try_from(u64::from_be_bytes(long)).unwrap_or(usize::MAX),
                16,
            ),
            (len, _) => (len as usize, 8),
        };
        let (this, after) = rest.split_at(len.clamp(8, rest.len()));
        rest = after;
        Some((*kind, this.get(header..).unwrap_or_default(), this))
    })
}

/// Returns the kind of the box that a compressed box contains, and its compressed content.
fn compressed((kind, content, _): Part<'_>) -> Option<([u8; 4], &[u8])> {
    let (inner, data) = content.split_first_chunk::<4>()?;
    (kind == *b"brob").then_some((*inner, data))
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
        error => ImageError::corrupt(format, error.to_string()),
    }
}
