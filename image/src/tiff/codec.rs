//! Decompression of a strip or tile.

use std::io::Read;

use super::super::error::ImageError;
use super::super::format::Format;
use super::super::{jpeg, webp};
use super::directory::Directory;
use super::fax::{self, Fax};
use super::{lzw, tag};

/// The compression of a picture.
#[derive(Debug)]
pub(super) enum Codec<'a> {
    None,
    Fax(Fax),
    Lzw,
    /// JPEG, with the tables that all strips share.
    Jpeg(Option<&'a [u8]>),
    Deflate,
    PackBits,
    Lzma,
    Zstd,
    WebP,
}

/// The maximum memory of LZMA, in KiB: enough for the largest dictionary of `xz`.
const LZMA_KIB: u32 = 96 << 10;

/// The shape of a strip or tile.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) width: usize,
    pub(crate) rows: usize,
    pub(crate) channels: usize,
    /// The number of bytes of all rows.
    pub(crate) bytes: usize,
}

impl<'a> Codec<'a> {
    /// Returns the compression that a directory specifies.
    ///
    /// # Errors
    /// `UnsupportedVariety`.
    pub(super) fn of(directory: &Directory<'a>) -> Result<Self, ImageError> {
        let options = directory.first(tag::FAX3_OPTIONS).unwrap_or(0);
        Ok(match directory.first(tag::COMPRESSION).unwrap_or(1) {
            1 => Self::None,
            2 => Self::Fax(Fax::Huffman),
            3 => Self::Fax(Fax::Group3 {
                two_dimensional: options & 1 != 0,
            }),
            4 => Self::Fax(Fax::Group4),
            5 => Self::Lzw,
            7 => Self::Jpeg(directory.bytes(tag::JPEG_TABLES)),
            8 | 32_946 => Self::Deflate,
            32_773 => Self::PackBits,
            34_925 => Self::Lzma,
            50_000 => Self::Zstd,
            50_001 => Self::WebP,
            other => {
                let name = match other {
                    6 => "JPEG of the old style".to_owned(),
                    32_809 => "ThunderScan".to_owned(),
                    34_661 => "JBIG".to_owned(),
                    33_003 | 33_005 | 34_712 => "JPEG 2000".to_owned(),
                    34_887 => "LERC".to_owned(),
                    52_546 => "JPEG XL".to_owned(),
                    other => format!("of the unknown kind {other}"),
                };
                let reason = format!("its compression is {name}");
                return Err(ImageError::variety(Format::Tiff, reason));
            }
        })
    }

    /// Returns whether the bits of each byte may be stored in reverse order: `false` for formats that define an order.
    pub(super) const fn has_bit_order(&self) -> bool {
        !matches!(self, Self::Jpeg(_) | Self::WebP)
    }

    /// Decompresses a strip or tile. If the result is shorter than its rows, or pixels of a fax or a JPEG may be
    /// wrong, returns the reason too.
    pub(super) fn decode(&self, data: &[u8], shape: Shape) -> (Vec<u8>, Option<ImageError>) {
        let invalid = || ImageError::corrupt(Format::Tiff, "its pixels are compressed wrongly");
        let mut out = Vec::new();
        let whole = match self {
            Self::None => {
                out.extend_from_slice(&data[..data.len().min(shape.bytes)]);
                true
            }
            Self::Fax(fax) => {
                // For fax each row is a row of bits, whatever the samples are.
                let (rows, is_valid) =
                    fax::decode(data, shape.width * shape.channels, shape.rows, *fax);
                out = rows;
                is_valid
            }
            Self::Lzw => return lzw(data, shape.bytes),
            Self::Deflate => read(flate2::read::ZlibDecoder::new(data), shape, &mut out),
            Self::PackBits => {
                unpack(data, shape.bytes, &mut out);
                true
            }
            Self::Zstd => match ruzstd::decoding::StreamingDecoder::new(data) {
                Ok(decoder) => read(decoder, shape, &mut out),
                Err(_) => false,
            },
            Self::Lzma => {
                let reader = lzma_rust2::XzReader::new_mem_limit(data, true, LZMA_KIB);
                read(reader, shape, &mut out)
            }
            Self::Jpeg(tables) => match jpeg::components(data, *tables, shape) {
                Ok((samples, doubt)) => return (samples, doubt.map(of_strip)),
                Err(error) => return (out, Some(of_strip(error))),
            },
            Self::WebP if matches!(shape.channels, 3 | 4) => {
                let samples = webp::block(data, (shape.width, shape.rows), shape.channels == 4);
                let is_whole = samples.is_some();
                out = samples.unwrap_or(out);
                is_whole
            }
            Self::WebP => false,
        };
        (out, (!whole).then(invalid))
    }
}

/// Converts an error about a strip to one about its file.
fn of_strip(error: ImageError) -> ImageError {
    let format = Format::Tiff;
    match error {
        ImageError::Truncated { .. } => ImageError::Truncated { format },
        ImageError::Corrupt { reason, .. } => ImageError::Corrupt { format, reason },
        ImageError::UnsupportedVariety { reason, .. } => {
            ImageError::UnsupportedVariety { format, reason }
        }
        other => other,
    }
}

/// Reads at most the bytes of the shape. Returns whether no error occurred.
fn read(from: impl Read, shape: Shape, out: &mut Vec<u8>) -> bool {
    from.take(shape.bytes as u64).read_to_end(out).is_ok()
}

fn lzw(data: &[u8], most: usize) -> (Vec<u8>, Option<ImageError>) {
    // Early programs stored the bits in the opposite order; their files begin with a clear code in that order.
    let is_early = matches!(data, [0, second, ..] if second & 1 != 0);
    let mut out = vec![0; most];
    let (written, is_valid) = match is_early {
        true => by_weezl(
            weezl::decode::Decoder::new(weezl::BitOrder::Lsb, 8),
            data,
            &mut out,
        ),
        false => lzw::decode(data, &mut out),
    };
    out.truncate(written);
    let invalid = || ImageError::corrupt(Format::Tiff, "its pixels hold an invalid code");
    (out, (!is_valid).then(invalid))
}

/// Returns the number of bytes written, and whether all codes were valid.
pub(super) fn by_weezl(
    mut decoder: weezl::decode::Decoder,
    data: &[u8],
    out: &mut [u8],
) -> (usize, bool) {
    let (mut read, mut written) = (0, 0);
    while written < out.len() {
        let step = decoder.decode_bytes(&data[read..], &mut out[written..]);
        (read, written) = (read + step.consumed_in, written + step.consumed_out);
        match step.status {
            Ok(weezl::LzwStatus::Ok) => {}
            Ok(weezl::LzwStatus::Done | weezl::LzwStatus::NoProgress) => break,
            Err(_) => return (written, false),
        }
    }
    (written, true)
}

/// Expands runs: each is a count, followed by one byte to repeat or by several bytes to copy.
fn unpack(mut data: &[u8], most: usize, out: &mut Vec<u8>) {
    while let Some((&count, rest)) = data.split_first()
        && out.len() < most
    {
        let room = most - out.len();
        data = match count {
            0..=127 => {
                let (part, rest) = rest.split_at(rest.len().min(usize::from(count) + 1));
                out.extend_from_slice(&part[..part.len().min(room)]);
                rest
            }
            128 => rest,
            129.. => {
                let Some((&byte, rest)) = rest.split_first() else {
                    return;
                };
                out.extend(std::iter::repeat_n(
                    byte,
                    (257 - usize::from(count)).min(room),
                ));
                rest
            }
        };
    }
}
