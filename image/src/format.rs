//! Picture formats and their first bytes.

use std::fmt;
use std::str::FromStr;

use bytemuck::{CheckedBitPattern, NoUninit};

use super::ico;

/// The number of leading bytes of a file that [`probe`] needs. Pass a shorter file as a whole.
pub const PROBE_BYTES: usize = 256;

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
    /// HEIC or HEIF. Read by libde265, if the system has it: [`heic_decoder`](crate::heic_decoder).
    Heic = 7,
    /// AVIF. In an animation, the still picture that the file also contains.
    Avif = 8,
    /// JPEG XL; the first frame of an animation. Read only.
    JpegXl = 9,
    /// JPEG 2000: recognized so that the error can name it.
    Jpeg2000 = 10,
    /// PBM, PGM, PPM and PAM. Read only.
    Pnm = 11,
    /// QOI. Read only.
    Qoi = 12,
    /// TGA. Read only. It has no signature.
    Tga = 13,
    /// ICO, the largest picture. Read only.
    Ico = 14,
    /// Photoshop: recognized so that the error can name it. The same holds for the formats down to JPEG XR.
    Psd = 15,
    /// PCX.
    Pcx = 16,
    /// DirectDraw Surface.
    Dds = 17,
    /// SGI.
    Sgi = 18,
    /// Radiance HDR.
    RadianceHdr = 19,
    /// OpenEXR.
    OpenExr = 20,
    /// SVG.
    Svg = 21,
    /// Encapsulated PostScript.
    Eps = 22,
    /// PDF.
    Pdf = 23,
    /// GIMP.
    Xcf = 24,
    /// JPEG XR.
    JpegXr = 25,
    /// Raw files of cameras whose previews are read: NEF, CR2, CR3, ARW, DNG, RAF, RW2 and ORF. Read only.
    CameraRaw = 26,
    /// Other raw files of cameras: recognized so that the error can name them.
    OtherRaw = 27,
}

impl Format {
    /// Returns the usual name.
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
            Self::Pnm => "PNM",
            Self::Qoi => "QOI",
            Self::Tga => "TGA",
            Self::Ico => "ICO",
            Self::Psd => "PSD",
            Self::Pcx => "PCX",
            Self::Dds => "DDS",
            Self::Sgi => "SGI",
            Self::RadianceHdr => "Radiance HDR",
            Self::OpenExr => "OpenEXR",
            Self::Svg => "SVG",
            Self::Eps => "EPS",
            Self::Pdf => "PDF",
            Self::Xcf => "XCF",
            Self::JpegXr => "JPEG XR",
            Self::CameraRaw => "camera raw",
            Self::OtherRaw => "other camera raw",
        }
    }

    /// Returns the format with this [`name`](Self::name).
    pub(super) fn from_name(name: &str) -> Option<Self> {
        (1..=27)
            .filter_map(|number| bytemuck::checked::try_cast::<u8, Self>(number).ok())
            .find(|format| format.name() == name)
    }

    /// Returns the usual extension of a file in this format, without the dot.
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
            Self::Pnm => "pnm",
            Self::Qoi => "qoi",
            Self::Tga => "tga",
            Self::Ico => "ico",
            Self::Psd => "psd",
            Self::Pcx => "pcx",
            Self::Dds => "dds",
            Self::Sgi => "sgi",
            Self::RadianceHdr => "hdr",
            Self::OpenExr => "exr",
            Self::Svg => "svg",
            Self::Eps => "eps",
            Self::Pdf => "pdf",
            Self::Xcf => "xcf",
            Self::JpegXr => "jxr",
            Self::CameraRaw | Self::OtherRaw => "dng",
        }
    }

    /// Returns whether this crate decodes the format.
    pub const fn is_readable(self) -> bool {
        match self {
            Self::Jpeg2000 => false,
            Self::CameraRaw => true,
            _ => (self as u8) < Self::Psd as u8,
        }
    }

    /// Returns whether this crate encodes the format; AVIF only with the feature `avif`.
    pub const fn is_writable(self) -> bool {
        matches!(self, Self::Jpeg | Self::Png | Self::WebP | Self::Gif)
            || cfg!(feature = "avif") && matches!(self, Self::Avif)
    }

    /// Returns why the format is not written.
    pub(super) fn why_not_written(self) -> String {
        match self {
            Self::Avif => "this build does not write AVIF: build it with `--features avif`, or choose jpeg, png, webp \
                           or gif"
                .to_owned(),
            _ => format!("{self} cannot be written; choose jpeg, png, webp, gif or avif"),
        }
    }

    /// Returns whether a file of the format can be an animation.
    pub(super) const fn is_animated(self) -> bool {
        matches!(self, Self::Png | Self::WebP | Self::Gif)
    }

    /// Returns the default output format for an input of this format: the same; JPEG for HEIC, raw files of cameras,
    /// and AVIF without the feature `avif`; PNG for other formats that are only decoded.
    pub const fn default_output(self) -> Self {
        match self {
            _ if self.is_writable() => self,
            Self::Heic | Self::CameraRaw | Self::Avif => Self::Jpeg,
            _ => Self::Png,
        }
    }

    /// Returns the format that a file's extension stands for (without dot, in any case), supported or not. The
    /// extension says whether a file is *meant* to be a picture; the content decides which format it has.
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
            ("pbm", Format::Pnm),
            ("pgm", Format::Pnm),
            ("ppm", Format::Pnm),
            ("pnm", Format::Pnm),
            ("pam", Format::Pnm),
            ("qoi", Format::Qoi),
            ("tga", Format::Tga),
            ("icb", Format::Tga),
            ("vda", Format::Tga),
            ("vst", Format::Tga),
            ("ico", Format::Ico),
            ("psd", Format::Psd),
            ("psb", Format::Psd),
            ("pcx", Format::Pcx),
            ("dds", Format::Dds),
            ("sgi", Format::Sgi),
            ("exr", Format::OpenExr),
            ("svg", Format::Svg),
            ("svgz", Format::Svg),
            ("eps", Format::Eps),
            ("pdf", Format::Pdf),
            ("xcf", Format::Xcf),
            ("jxr", Format::JpegXr),
            ("wdp", Format::JpegXr),
            ("hdp", Format::JpegXr),
        ];
        // Not "hdr" and "raw", which are also extensions of other files.
        const RAW: [&str; 8] = ["arw", "cr2", "cr3", "dng", "nef", "orf", "raf", "rw2"];
        const OTHER_RAW: [&str; 19] = [
            "3fr", "crw", "dcr", "erf", "fff", "gpr", "iiq", "k25", "kdc", "mef", "mos", "mrw",
            "nrw", "pef", "ptx", "sr2", "srf", "srw", "x3f",
        ];
        let is_this = |known: &str| known.eq_ignore_ascii_case(extension);
        if RAW.iter().any(|known| is_this(known)) {
            return Some(Self::CameraRaw);
        }
        if OTHER_RAW.iter().any(|known| is_this(known)) {
            return Some(Self::OtherRaw);
        }
        let known = KNOWN.iter().find(|(known, _)| is_this(known));
        known.map(|&(_, format)| format)
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
            Some(format) => Err(format.why_not_written()),
            None => Err(format!(
                "unknown format {text:?}; choose jpeg, png, webp, gif or avif"
            )),
        }
    }
}

/// Returns the format of a file by its first bytes ([`PROBE_BYTES`] suffice). `None` if no known picture begins like
/// this. Also recognizes formats for which [`Format::is_readable`] is false. Does not recognize TGA, which has no
/// signature, or raw files of cameras that begin like TIFF.
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
    if is_bmp(head) || is_dib(head) {
        return Some(Format::Bmp);
    }
    if head.starts_with(b"\xff\x0a") || head.starts_with(b"\0\0\0\x0cJXL \r\n\x87\n") {
        return Some(Format::JpegXl);
    }
    if head.starts_with(b"\xff\x4f\xff\x51") || head.starts_with(b"\0\0\0\x0cjP  \r\n\x87\n") {
        return Some(Format::Jpeg2000);
    }
    if is_pnm(head) {
        return Some(Format::Pnm);
    }
    if head.starts_with(b"qoif") {
        return Some(Format::Qoi);
    }
    if ico::is_header(head) {
        return Some(Format::Ico);
    }
    foreign(head).or_else(|| isobmff(head))
}

/// Recognizes formats that are not decoded, and raw files of cameras.
fn foreign(head: &[u8]) -> Option<Format> {
    const SIGNATURES: &[(&[u8], Format)] = &[
        (b"8BPS\0\x01", Format::Psd),
        (b"8BPS\0\x02", Format::Psd),
        (b"DDS \x7c\0\0\0", Format::Dds),
        (b"#?RADIANCE", Format::RadianceHdr),
        (b"#?RGBE", Format::RadianceHdr),
        (b"\x76\x2f\x31\x01", Format::OpenExr),
        (b"\xc5\xd0\xd3\xc6", Format::Eps),
        (b"%PDF-", Format::Pdf),
        (b"gimp xcf ", Format::Xcf),
        (b"II\xbc\x01", Format::JpegXr),
        // Panasonic, Olympus, Fujifilm, Minolta, Sigma.
        (b"IIU\0", Format::CameraRaw),
        (b"IIRO", Format::CameraRaw),
        (b"IIRS", Format::CameraRaw),
        (b"MMOR", Format::CameraRaw),
        (b"FUJIFILMCCD-RAW", Format::CameraRaw),
        (b"\0MRM", Format::OtherRaw),
        (b"FOVb", Format::OtherRaw),
    ];
    let found = SIGNATURES
        .iter()
        .find(|(signature, _)| head.starts_with(signature));
    if let Some(&(_, format)) = found {
        return Some(format);
    }
    let has = |at: usize, part: &[u8]| head.get(at..).is_some_and(|rest| rest.starts_with(part));
    if has(6, b"HEAPCCDR") {
        return Some(Format::OtherRaw);
    }
    if has(4, b"ftypcrx ") {
        return Some(Format::CameraRaw);
    }
    if head.starts_with(b"%!PS-Adobe-")
        && head.split(|byte| *byte == b'\n').next().is_some_and(is_eps)
    {
        return Some(Format::Eps);
    }
    match head {
        [0x0a, 0 | 2..=5, 0 | 1, 1 | 2 | 4 | 8, ..] if head.get(64) == Some(&0) => {
            Some(Format::Pcx)
        }
        [0x01, 0xda, 0 | 1, 1 | 2, 0, 1..=3, ..] => Some(Format::Sgi),
        _ => is_svg(head).then_some(Format::Svg),
    }
}

fn is_eps(first_line: &[u8]) -> bool {
    first_line.windows(5).any(|part| part == b"EPSF-")
}

/// Returns whether the first element of the file is `svg`, as far as `head` shows it.
fn is_svg(head: &[u8]) -> bool {
    let text = head
        .strip_prefix(b"\xef\xbb\xbf")
        .unwrap_or(head)
        .trim_ascii_start();
    let is_markup = [&b"<svg"[..], b"<?xml", b"<!DOCTYPE svg", b"<!--"];
    is_markup.iter().any(|start| text.starts_with(start))
        && text
            .windows(4)
            .any(|part| part == b"<svg" || part == b" svg")
}

/// Returns whether the file has a format of Netpbm. Ordinary text may also start with a letter and a digit, so the rest
/// of the header is checked.
fn is_pnm(head: &[u8]) -> bool {
    let [b'P', kind @ (b'1'..=b'7' | b'F' | b'f'), blank, rest @ ..] = head else {
        return false;
    };
    if !blank.is_ascii_whitespace() && *blank != b'#' {
        return false;
    }
    match (kind, rest.trim_ascii_start()) {
        (_, [b'#', ..]) => true,
        (b'7', rest) => {
            let words: [&[u8]; 5] = [b"WIDTH", b"HEIGHT", b"DEPTH", b"MAXVAL", b"TUPLTYPE"];
            words.iter().any(|word| rest.starts_with(word))
        }
        (_, rest) => {
            let len = rest.iter().position(|byte| !byte.is_ascii_digit());
            let (first, after) = rest.split_at(len.unwrap_or(rest.len()));
            let next = after.trim_ascii_start().first();
            !first.is_empty() && next.is_some_and(|next| next.is_ascii_digit() || *next == b'#')
        }
    }
}

/// Returns whether the file is a BMP. Ordinary text may also start with `BM`, so the size of the second header, which
/// has few valid values, is checked.
fn is_bmp(head: &[u8]) -> bool {
    head.starts_with(b"BM")
        && head
            .get(14..18)
            .and_then(|size| size.try_into().ok())
            .map(u32::from_le_bytes)
            .is_some_and(|size| matches!(size, 12 | 16 | 40 | 52 | 56 | 64 | 108 | 124))
}

/// Returns whether the file is a BMP without its first header (DIB). It has no signature, so several fields are
/// checked.
pub(super) fn is_dib(head: &[u8]) -> bool {
    let number = |at: usize, len: usize| {
        let bytes = head.get(at..at + len)?.iter().rev();
        Some(bytes.fold(0, |number, &byte| number << 8 | u32::from(byte)))
    };
    let header = number(0, 4);
    let (sides, rest) = match header {
        Some(12) => ([number(4, 2), number(6, 2)], 8),
        Some(40 | 52 | 56 | 64 | 108 | 124) => ([number(4, 4), number(8, 4)], 12),
        _ => return false,
    };
    let (planes, bits) = (number(rest, 2), number(rest + 2, 2));
    let compression = if rest == 8 { Some(0) } else { number(16, 4) };
    sides.iter().all(|&side| side > Some(0))
        && planes == Some(1)
        && matches!(bits, Some(0 | 1 | 2 | 4 | 8 | 16 | 24 | 32))
        && matches!(compression, Some(0..=6))
}

/// Recognizes HEIC and AVIF, which have the same container, by the main and the compatible brands.
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
        let dib = *b"\x28\0\0\0\x09\0\0\0\x05\0\0\0\x01\0\x18\0\0\0\0\0";
        assert_eq!(probe(&dib), Some(Format::Bmp));
        for at in [0, 1, 4, 8, 12, 13, 14, 15, 17] {
            let mut other = dib;
            other[at] ^= 13;
            let has_side = matches!(at, 4 | 8);
            assert_eq!(probe(&other).is_some(), has_side, "{at}");
        }
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
        assert_eq!(probe(b"P6\n# a comment\n2 2 255\n"), Some(Format::Pnm));
        assert_eq!(probe(b"P1 3 2\n1 0 1"), Some(Format::Pnm));
        assert_eq!(probe(b"P7\nWIDTH 2\n"), Some(Format::Pnm));
        for text in [&b"P1 is the first"[..], b"P3 4ever", b"P2P", b"P7\nA list"] {
            assert_eq!(probe(text), None, "{}", text.escape_ascii());
        }
        assert_eq!(probe(b"qoif\0\0\0\x01"), Some(Format::Qoi));
        assert_eq!(
            probe(b"\0\0\x01\xba\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
            None,
            "MPEG"
        );
        assert_eq!(probe(b""), None);
        assert_eq!(probe(b"\xff\xd8"), None);
    }

    #[test]
    fn what_is_not_read_is_named_by_its_first_bytes() {
        let pcx = [&b"\n\x05\x01\x08"[..], &[0; 61]].concat();
        let dds = b"DDS \x7c\0\0\0";
        let xml = b"<?xml version=\"1.0\" encoding=\"UTF-8\" standalone=\"no\"?>\n<!-- Created by hand -->\n<svg ";
        for (head, format) in [
            (&b"8BPS\0\x01\0\0"[..], Format::Psd),
            (&pcx, Format::Pcx),
            (dds, Format::Dds),
            (b"\x01\xda\x01\x01\0\x03", Format::Sgi),
            (b"#?RADIANCE\nFORMAT=", Format::RadianceHdr),
            (b"\x76\x2f\x31\x01\x02\0\0\0", Format::OpenExr),
            (b"<svg xmlns=", Format::Svg),
            (xml, Format::Svg),
            (b"%!PS-Adobe-3.0 EPSF-3.0\n", Format::Eps),
            (b"\xc5\xd0\xd3\xc6", Format::Eps),
            (b"%PDF-1.4", Format::Pdf),
            (b"gimp xcf v011", Format::Xcf),
            (b"II\xbc\x01", Format::JpegXr),
            (b"II\x1a\0\0\0HEAPCCDR", Format::OtherRaw),
            (b"\0\0\0\x18ftypcrx \0\0\0\x01", Format::CameraRaw),
            (b"FUJIFILMCCD-RAW 0201", Format::CameraRaw),
            (b"IIU\0\x18\0\0\0", Format::CameraRaw),
            (b"IIRO\x08\0\0\0", Format::CameraRaw),
        ] {
            assert_eq!(probe(head), Some(format), "{}", head.escape_ascii());
            assert_eq!(format.is_readable(), format == Format::CameraRaw);
            assert_eq!(Format::from_name(format.name()), Some(format));
        }
        for other in [
            &b"%!PS-Adobe-3.0\n%%Creator: EPSF-3.0"[..],
            b"<html><body><svg>",
            b"<?xml version=\"1.0\"?>\n<note>",
            b"\n\x05\x01\x08 a text",
        ] {
            assert_eq!(probe(other), None, "{}", other.escape_ascii());
        }
    }

    #[test]
    fn only_five_formats_are_written() {
        assert_eq!("JPG".parse(), Ok(Format::Jpeg));
        assert_eq!("webp".parse(), Ok(Format::WebP));
        assert_eq!("avif".parse(), Ok(Format::Avif));
        assert!("tiff".parse::<Format>().is_err());
        // What a build without the feature says.
        assert!(Format::Avif.why_not_written().contains("`--features avif`"));
        assert!("psd".parse::<Format>().is_err());
        assert_eq!(Format::Tiff.default_output(), Format::Png);
        assert_eq!(Format::WebP.default_output(), Format::WebP);
    }
}
