//! JPEG XL, by the `jxl-oxide` crate: the first frame, upright as its header says.

use std::io::Read;

use brotli_decompressor::Decompressor;
use jxl_oxide::image::ExtraChannelType;
use jxl_oxide::{
    AllocTracker, EnumColourEncoding, InitializeResult, JxlImage, PixelFormat, RenderingIntent,
};

use super::damage::Found;
use super::error::ImageError;
use super::format::Format;
use super::meta::{Decoded, Metadata, Request};
use super::pixels::{Color, Orientation, Pixels, Samples, buffer};
use super::spec::{ResizeSpec, SPARE_BYTES};

/// Decodes a picture, or the first frame of an animation.
pub(super) fn decode(input: &[u8], request: Request<'_>) -> Result<Decoded, ImageError> {
    let spec = request.spec;
    let image = open(input, spec)?;
    let sides = (image.width(), image.height());
    let plain = |kind| boxes(input).find(|(found, ..)| *found == kind);
    let mut exif = plain(*b"Exif").and_then(|(_, content, _)| exif_of(content));
    let mut xmp = plain(*b"xml ").map(|(_, content, _)| content.to_vec());
    let mut damage = None;
    if spec.keep_metadata {
        for (kind, compressed) in boxes(input).filter_map(compressed) {
            if kind == *b"Exif" && exif.is_none() || kind == *b"xml " && xmp.is_none() {
                match expanded(compressed) {
                    Ok(content) if kind == *b"Exif" => exif = exif_of(&content),
                    Ok(content) => xmp = Some(content),
                    Err(reason) => {
                        let error = ImageError::corrupt(Format::JpegXl, reason);
                        damage = Some(Found::around(error));
                    }
                }
            }
        }
    }
    let metadata = Metadata {
        exif,
        xmp,
        icc: Some(image.rendered_icc()),
        hdr: None,
    };
    // That of EXIF is for the decoders of other formats.
    let orientation = Orientation::NoTransforms;
    let plans = request.plans(sides, orientation, Format::JpegXl)?;
    Ok(Decoded {
        pixels: pixels(&image)?,
        chroma: None,
        plans,
        orientation,
        metadata,
        damage,
        full: sides,
    })
}

/// Reads the headers, and checks them against the limits of `spec`.
fn open(input: &[u8], spec: &ResizeSpec) -> Result<JxlImage, ImageError> {
    let format = Format::JpegXl;
    // The decoder has pixels in 32 bits, several times.
    let most = spec.max_bytes.saturating_mul(4).saturating_add(SPARE_BYTES);
    let tracker = AllocTracker::with_limit(usize::try_from(most).unwrap_or(usize::MAX));
    let mut reader = JxlImage::builder().alloc_tracker(tracker).build_uninit();
    let mut parts = without_compressed_boxes(input).into_iter();
    let mut image = loop {
        let part = parts.next().ok_or(ImageError::Truncated { format })?;
        reader.feed_bytes(part).map_err(translate)?;
        match reader.try_init().map_err(translate)? {
            InitializeResult::NeedMoreData(more) => reader = more,
            InitializeResult::Initialized(image) => break image,
        }
    };
    spec.check_source((image.width(), image.height()), format)?;
    let channels = image.pixel_format().channels() as u64;
    let pixels = u64::from(image.width()) * u64::from(image.height());
    spec.admit(
        pixels * channels * bytes_of_sample(&image),
        input.len() as u64,
    )?;
    for part in parts {
        image.feed_bytes(part).map_err(translate)?;
    }
    if !image.is_loading_done() {
        return Err(ImageError::Truncated { format });
    }
    image.finalize().map_err(translate)?;
    if image.hdr_type().is_some() {
        image.request_color_encoding(EnumColourEncoding::srgb(RenderingIntent::Relative));
    }
    Ok(image)
}

/// The file without metadata that is compressed, of which a few bytes may become gigabytes, and without what a JPEG
/// that it was made from had besides the pixels.
fn without_compressed_boxes(file: &[u8]) -> Vec<&[u8]> {
    if file.starts_with(&[0xff, 0x0a]) {
        return vec![file];
    }
    let parts = boxes(file).filter(|(kind, ..)| !matches!(kind, b"brob" | b"jbrd"));
    parts.map(|(.., whole)| whole).collect()
}

/// A box of a container: its kind, its content, and all of its bytes.
type Part<'a> = ([u8; 4], &'a [u8], &'a [u8]);

/// The boxes of a container; none of a bare codestream.
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

/// The kind of a compressed box, and its compressed content.
fn compressed((kind, content, _): Part<'_>) -> Option<([u8; 4], &[u8])> {
    let (inner, data) = content.split_first_chunk::<4>()?;
    (kind == *b"brob").then_some((*inner, data))
}

/// The most bytes of metadata that a compressed box may expand to.
const MOST_METADATA: u64 = 16 << 20;

/// Expands the content of a compressed box; an error is what is wrong.
fn expanded(data: &[u8]) -> Result<Vec<u8>, &'static str> {
    let wrong = "its metadata is compressed wrongly, and is left out";
    // A window of up to a gigabyte, which the format does not have, and the decoder allocates.
    if data.first().is_none_or(|first| first & 0x7f == 0x11) {
        return Err(wrong);
    }
    let mut content = Vec::new();
    let mut decoder = Decompressor::new(data, 4096).take(MOST_METADATA + 1);
    match decoder.read_to_end(&mut content) {
        Err(_) => Err(wrong),
        Ok(len) if len as u64 > MOST_METADATA => {
            Err("its metadata expands to more than 16 MiB, and is left out")
        }
        Ok(_) => Ok(content),
    }
}

/// EXIF in the content of its box, which begins with an offset.
fn exif_of(content: &[u8]) -> Option<Vec<u8>> {
    let (offset, exif) = content.split_first_chunk::<4>()?;
    let exif = exif.get(u32::from_be_bytes(*offset) as usize..)?;
    Some(exif.to_vec())
}

/// Bytes of a sample: more than 8 bits become 16.
fn bytes_of_sample(image: &JxlImage) -> u64 {
    match image.image_header().metadata.bit_depth.bits_per_sample() {
        ..=8 => 1,
        _ => 2,
    }
}

/// Decodes the first frame.
fn pixels(image: &JxlImage) -> Result<Pixels, ImageError> {
    let format = Format::JpegXl;
    let color = match image.pixel_format() {
        PixelFormat::Gray => Color::Gray,
        PixelFormat::Graya => Color::GrayAlpha,
        PixelFormat::Rgb => Color::Rgb,
        PixelFormat::Rgba => Color::Rgba,
        PixelFormat::Cmyk | PixelFormat::Cmyka => return Err(ImageError::variety(format, "inks")),
    };
    let render = image.render_frame(0).map_err(translate)?;
    let metadata = &image.image_header().metadata;
    let mut stream = render.stream();
    let (width, height) = (stream.width(), stream.height());
    if stream.channels() as usize != color.channels() {
        return Err(ImageError::corrupt(
            format,
            "it has other channels than its header says",
        ));
    }
    let len = width as usize * height as usize * color.channels();
    let samples = match bytes_of_sample(image) {
        1 => {
            let mut samples: Vec<u8> = buffer(len)?;
            stream.write_to_buffer(&mut samples);
            Samples::Eight(samples)
        }
        _ => {
            let mut samples: Vec<u16> = buffer(len)?;
            stream.write_to_buffer(&mut samples);
            Samples::Sixteen(samples)
        }
    };
    let is_multiplied = metadata.ec_info.iter().any(|channel| {
        matches!(
            channel.ty,
            ExtraChannelType::Alpha {
                alpha_associated: true
            }
        )
    });
    let mut pixels = Pixels {
        width,
        height,
        color,
        samples,
    };
    if is_multiplied {
        pixels.divide_by_alpha();
    }
    Ok(pixels)
}

/// Rewords an error of the decoder.
fn translate(error: Box<dyn std::error::Error + Send + Sync>) -> ImageError {
    let (format, text) = (Format::JpegXl, error.to_string());
    let mut causes = std::iter::successors(Some(&*error as &dyn std::error::Error), |e| e.source());
    match causes.any(|cause| cause.to_string().contains("failed to allocate")) {
        true => ImageError::variety(format, "it needs more memory than is allowed"),
        false => ImageError::corrupt(format, text),
    }
}
