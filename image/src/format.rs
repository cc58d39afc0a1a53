//! Picture formats and their first bytes.

use std::fmt;
use std::str::FromStr;

use bytemuck::{CheckedBitPattern, NoUninit};

/// The number of leading bytes of a file that [`probe`] looks at. A shorter file is passed whole.
pub const PROBE_BYTES: usize = 64;

/// A picture format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, NoUninit, CheckedBitPattern)]
#[repr(u8)]
#[non_exhaustive]
pub enum Format {
    /// JPEG, baseline or progressive.
    Jpeg = 1,
    /// PNG, 1 to 16 bits per channel.
    Png = 2,
    /// WebP, lossy or lossless, still or animated.
    WebP = 3,
    /// GIF, still or animated.
    Gif = 4,
    /// TIFF, the first page. Read only.
    Tiff = 5,
    /// BMP. Read only.
    Bmp = 6,
    /// HEIC or HEIF. Read through libde265, where the system has it: [`heic_decoder`](crate::heic_decoder).
    Heic = 7,
    /// AVIF; of an animation the still picture that the file has beside it.
    Avif = 8,
    /// JPEG XL; the first frame of an animation. Read only.
    JpegXl = 9,
    /// JPEG 2000: recognized so that the error can name it.
    Jpeg2000 = 10,
}

impl Format {
    /// The usual name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
            Self::WebP => "WebP",
            Self::Gif => "GIF",
            Self::Tiff => "TIFF",
            Self::Bmp => "BMP",
            Self::Heic => "HEIC",
            Self::Avif => "AVIF",
            Self::JpegXl => "JPEG XL",
            Self::Jpeg2000 => "JPEG 2000",
        }
    }

    /// The format with this [`name`](Self::name).
    pub(super) fn from_name(name: &str) -> Option<Self> {
        (1..=10)
            .filter_map(|number| bytemuck::checked::try_cast::<u8, Self>(number).ok())
            .find(|format| format.name() == name)
    }

    /// The usual extension of a file in this format, without the dot.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Jpeg => "jpg",
            Self::Png => "png",
            Self::WebP => "webp",
            Self::Gif => "gif",
            Self::Tiff => "tif",
            Self::Bmp => "bmp",
            Self::Heic => "heic",
            Self::Avif => "avif",
            Self::JpegXl => "jxl",
            Self::Jpeg2000 => "jp2",
        }
    }

    /// Whether this crate decodes it.
    pub const fn is_readable(self) -> bool {
        !matches!(self, Self::Jpeg2000)
    }

    /// Whether this crate encodes it.
    pub const fn is_writable(self) -> bool {
        matches!(
            self,
            Self::Jpeg | Self::Png | Self::WebP | Self::Gif | Self::Avif
        )
    }

    /// Whether a file can be an animation.
    pub(super) const fn is_animated(self) -> bool {
        matches!(self, Self::Png | Self::WebP | Self::Gif)
    }

    /// The default output format: the same; for a format that is only decoded PNG, and JPEG for the photos of HEIC.
    pub const fn default_output(self) -> Self {
        match self {
            Self::Heic => Self::Jpeg,
            _ if self.is_writable() => self,
            _ => Self::Png,
        }
    }

    /// The format that a file's extension stands for (without dot, in any case), supported or not. It tells whether a
    /// file is *meant* to be a picture; the content decides which format it has.
    ///
    /// ```
    /// use arenite_image::Format;
    /// assert_eq!(Format::from_extension("JPEG"), Some(Format::Jpeg));
    /// assert_eq!(Format::from_extension("txt"), None);
    /// ```
    pub fn from_extension(extension: &str) -> Option<Self> {
        const KNOWN: &[(&str, Format)] = &[
            ("jpg", Format::Jpeg),
            ("jpeg", Format::Jpeg),
            ("jpe", Format::Jpeg),
            ("jfif", Format::Jpeg),
            ("png", Format::Png),
            ("apng", Format::Png),
            ("webp", Format::WebP),
            ("gif", Format::Gif),
            ("tif", Format::Tiff),
            ("tiff", Format::Tiff),
            ("bmp", Format::Bmp),
            ("dib", Format::Bmp),
            ("heic", Format::Heic),
            ("heif", Format::Heic),
            ("hif", Format::Heic),
            ("avif", Format::Avif),
            ("jxl", Format::JpegXl),
            ("jp2", Format::Jpeg2000),
            ("j2k", Format::Jpeg2000),
        ];
        KNOWN
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(extension))
            .map(|&(_, format)| format)
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Format {
    type Err = String;

    /// Parses the name of an output format: `jpeg`, `jpg`, `png`, `webp`, `gif` or `avif`.
    fn from_str(text: &str) -> Result<Self, String> {
        match Self::from_extension(text) {
            Some(format) if format.is_writable() => Ok(format),
            Some(format) => Err(format!(
                "{format} cannot be written; choose jpeg, png, webp, gif or avif"
            )),
            None => Err(format!(
                "unknown format {text:?}; choose jpeg, png, webp, gif or avif"
            )),
        }
    }
}

/// Returns the format of a file by its first bytes ([`PROBE_BYTES`] suffice); `None` if they are not those of a
/// picture. JPEG 2000 is recognized, although [`Format::is_readable`] is false for it.
///
/// ```
/// use arenite_image::{probe, Format};
/// assert_eq!(probe(b"\xff\xd8\xff\xe0\0\x10JFIF"), Some(Format::Jpeg));
/// assert_eq!(probe(b"#!/bin/sh"), None);
/// ```
pub fn probe(head: &[u8]) -> Option<Format> {
    // Some programs write a zero after the start marker.
    if head.starts_with(b"\xff\xd8\xff") || head.starts_with(b"\xff\xd8\0\xff") {
        return Some(Format::Jpeg);
    }
    if head.starts_with(b"\x89PNG\r\n\x1a\n") {
        return Some(Format::Png);
    }
    if head.starts_with(b"RIFF") && head.get(8..12) == Some(b"WEBP") {
        return Some(Format::WebP);
    }
    if head.starts_with(b"GIF87a") || head.starts_with(b"GIF89a") {
        return Some(Format::Gif);
    }
    // 42 is TIFF, 43 BigTIFF.
    if matches!(
        head.get(..4),
        Some(b"II*\0" | b"MM\0*" | b"II+\0" | b"MM\0+")
    ) {
        return Some(Format::Tiff);
    }
    if is_bmp(head) {
        return Some(Format::Bmp);
    }
    if head.starts_with(b"\xff\x0a") || head.starts_with(b"\0\0\0\x0cJXL \r\n\x87\n") {
        return Some(Format::JpegXl);
    }
    if head.starts_with(b"\xff\x4f\xff\x51") || head.starts_with(b"\0\0\0\x0cjP  \r\n\x87\n") {
        return Some(Format::Jpeg2000);
    }
    isobmff(head)
}

/// Checks the size of the second header too, which has few valid values: `BM` alone also starts ordinary text.
fn is_bmp(head: &[u8]) -> bool {
    head.starts_with(b"BM")
        && head
            .get(14..18)
            .and_then(|size| size.try_into().ok())
            .map(u32::from_le_bytes)
            .is_some_and(|size| matches!(size, 12 | 16 | 40 | 52 | 56 | 64 | 108 | 124))
}

/// Recognizes HEIC and AVIF, which are brands of one container, by the main and the compatible brands.
fn isobmff(head: &[u8]) -> Option<Format> {
    if head.get(4..8) != Some(b"ftyp") {
        return None;
    }
    let size = u32::from_be_bytes(head.get(..4)?.try_into().ok()?) as usize;
    let end = size.clamp(8, head.len());
    let brands = head.get(8..end)?;
    let mut generic = None;
    for (index, brand) in brands.chunks_exact(4).enumerate() {
        match brand {
            // The second word is the minor version, not a brand.
            _ if index == 1 => {}
            b"avif" | b"avis" | b"MA1A" | b"MA1B" => return Some(Format::Avif),
            b"heic" | b"heix" | b"hevc" | b"hevx" | b"heim" | b"heis" => return Some(Format::Heic),
            b"mif1" | b"msf1" => generic = Some(Format::Heic),
            _ => {}
        }
    }
    generic
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_format_is_recognized_by_its_first_bytes() {
        let mut bmp = *b"BM\0\0\0\0\0\0\0\0\0\0\0\0\x28\0\0\0";
        assert_eq!(probe(&bmp), Some(Format::Bmp));
        bmp[14] = 0x41;
        assert_eq!(probe(&bmp), None, "BM and text is not a picture");
        assert_eq!(probe(b"\x89PNG\r\n\x1a\n"), Some(Format::Png));
        assert_eq!(probe(b"RIFF\x10\0\0\0WEBPVP8 "), Some(Format::WebP));
        assert_eq!(probe(b"RIFF\x10\0\0\0WAVEfmt "), None);
        assert_eq!(probe(b"GIF89a"), Some(Format::Gif));
        assert_eq!(probe(b"II*\0\x08\0\0\0"), Some(Format::Tiff));
        assert_eq!(probe(b"MM\0*\0\0\0\x08"), Some(Format::Tiff));
        assert_eq!(
            probe(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"),
            Some(Format::Heic)
        );
        assert_eq!(
            probe(b"\0\0\0\x18ftypmif1\0\0\0\0avifmiaf"),
            Some(Format::Avif)
        );
        assert_eq!(
            probe(b"\0\0\0\x18ftypisom\0\0\0\0mp42avc1"),
            None,
            "a film is not a picture"
        );
        assert_eq!(probe(b"\xff\x0a\xfa\x1f"), Some(Format::JpegXl));
        assert_eq!(probe(b""), None);
        assert_eq!(probe(b"\xff\xd8"), None);
    }

    #[test]
    fn only_five_formats_are_written() {
        assert_eq!("JPG".parse(), Ok(Format::Jpeg));
        assert_eq!("webp".parse(), Ok(Format::WebP));
        assert_eq!("avif".parse(), Ok(Format::Avif));
        assert!("tiff".parse::<Format>().is_err());
        assert!("psd".parse::<Format>().is_err());
        assert_eq!(Format::Tiff.default_output(), Format::Png);
        assert_eq!(Format::WebP.default_output(), Format::WebP);
    }
}
