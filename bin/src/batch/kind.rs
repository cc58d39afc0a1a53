//! The kind of a file, by its first bytes and its name.

use std::ffi::OsStr;
use std::path::Path;

use arenite_image::{Format, probe, readable_format};
use clap::ValueEnum;

/// The kind of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A picture in a supported format.
    Readable(Format),
    /// A picture in an unsupported format, with the name of the format.
    Foreign(&'static str),
    /// The name is that of a picture, the content is not.
    Misnamed,
    /// An empty file with the name of a picture.
    Empty,
    /// Neither the name nor the content is that of a picture.
    Other,
}

/// What to do with raw files of cameras.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Raw {
    /// Take the largest JPEG preview in the file (NEF, CR2, CR3, ARW, DNG, RAF, RW2, ORF)
    Preview,
    /// Report them as unsupported
    Refuse,
}

impl Kind {
    /// Decides by the first [`PROBE_BYTES`](arenite_image::PROBE_BYTES) bytes. The name matters only where they are
    /// ambiguous: most camera raw files begin like TIFF, with a thumbnail in the place of the picture, and TGA has no
    /// signature.
    pub(crate) fn of(path: &Path, head: &[u8]) -> Kind {
        match (probe(head), named(path)) {
            (Some(Format::Tiff), Some(raw @ Format::CameraRaw)) => Kind::Readable(raw),
            (Some(Format::Tiff), Some(raw @ Format::OtherRaw)) => Kind::Foreign(raw.name()),
            (None, Some(tga @ Format::Tga)) if readable_format(head) == Ok(tga) => {
                Kind::Readable(tga)
            }
            (Some(format), _) if format.is_readable() => Kind::Readable(format),
            (Some(format), _) => Kind::Foreign(format.name()),
            (None, Some(format)) if !format.is_readable() => Kind::Foreign(format.name()),
            (None, Some(_)) if head.is_empty() => Kind::Empty,
            (None, Some(_)) => Kind::Misnamed,
            (None, None) => Kind::Other,
        }
    }

    /// Whether the name is that of a picture, so that a failure to open the file is an error.
    pub(crate) fn expected(path: &Path) -> bool {
        named(path).is_some()
    }
}

fn extension(path: &Path) -> &str {
    path.extension().and_then(OsStr::to_str).unwrap_or_default()
}

fn named(path: &Path) -> Option<Format> {
    Format::from_extension(extension(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, head: &[u8]) -> Kind {
        Kind::of(Path::new(name), head)
    }

    #[test]
    fn the_first_bytes_override_the_extension() {
        assert_eq!(
            of("a.png", b"\xff\xd8\xff\xe0"),
            Kind::Readable(Format::Jpeg)
        );
        assert_eq!(of("a", b"GIF89a...."), Kind::Readable(Format::Gif));
        assert_eq!(
            of("notes.txt", b"RIFF\0\0\0\0WEBPVP8 "),
            Kind::Readable(Format::WebP)
        );
        assert_eq!(
            of("a.heic", b"\0\0\0\x1cftypavif\0\0\0\0mif1miaf"),
            Kind::Readable(Format::Avif)
        );
    }

    #[test]
    fn unsupported_formats_are_named() {
        assert_eq!(of("a.jp2", b""), Kind::Foreign("JPEG 2000"));
        assert_eq!(
            of("a.PEF", b"MM\0*\0\0\0\x08"),
            Kind::Foreign("other camera raw")
        );
        assert_eq!(
            of("a.cr3", b"\0\0\0\x18ftypcrx "),
            Kind::Readable(Format::CameraRaw)
        );
        assert_eq!(
            of("a.dng", b"\xff\xd8\xff\xe0"),
            Kind::Readable(Format::Jpeg)
        );
        assert_eq!(of("a.psd", b""), Kind::Foreign("PSD"));
        assert_eq!(of("notes", b"%PDF-1.4"), Kind::Foreign("PDF"));
        assert_eq!(of("scan.hdr", b"ENVI\ndescription"), Kind::Other);
        assert_eq!(of("a.mov", b"\0\0\0\x14ftypqt  \0\0\0\0qt  "), Kind::Other);
    }

    #[test]
    fn tga_is_known_by_its_name_and_its_header() {
        let head = b"\0\0\x02\0\0\0\0\0\0\0\0\0\x30\0\x24\0\x18\0";
        assert_eq!(of("a.TGA", head), Kind::Readable(Format::Tga));
        assert_eq!(of("a.dat", head), Kind::Other);
        assert_eq!(of("a.tga", b"a text of some length"), Kind::Misnamed);
        assert_eq!(
            of("a.tga", b"\xff\xd8\xff\xe0"),
            Kind::Readable(Format::Jpeg)
        );
    }

    #[test]
    fn a_file_named_like_a_picture_is_not_skipped() {
        assert_eq!(of("a.JPG", b""), Kind::Empty);
        assert_eq!(of("a.tif", b"<html>"), Kind::Misnamed);
        assert_eq!(of("a.txt", b""), Kind::Other);
        assert!(Kind::expected(Path::new("x/a.JPeG")));
        assert!(Kind::expected(Path::new("x/a.avif")));
        assert!(Kind::expected(Path::new("x/a.DNG")));
        assert!(!Kind::expected(Path::new("x/jpg")));
    }
}
