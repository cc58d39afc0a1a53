//! Decoding of Netpbm's formats: PBM, PGM and PPM, plain and binary, and PAM, with up to 16 bits per sample. If a file
//! contains several pictures, decodes the first.

use super::damage::Found;
use super::error::ImageError;
use super::format::Format;
use super::meta::{Decoded, Request};
use super::pixels::{Color, Orientation, Pixels, Samples, buffer};

const FORMAT: Format = Format::Pnm;

/// How samples are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Storage {
    /// As decimal numbers, separated by blanks.
    Plain,
    /// As digits 0 and 1, with or without blanks; 1 is black.
    PlainBits,
    /// As rows of bits, each padded to whole bytes; 1 is black.
    Bits,
    /// As one byte each.
    Bytes,
    /// As two bytes each, the more significant first.
    Words,
}

#[derive(Debug)]
struct Header {
    width: u32,
    height: u32,
    color: Color,
    /// The value of the brightest sample.
    most: u32,
    storage: Storage,
    /// Offset of the pixels.
    pixels: usize,
}

/// Reads the words of a header and the numbers of a plain picture.
#[derive(Debug)]
struct Words<'a> {
    file: &'a [u8],
    at: usize,
}

impl<'a> Words<'a> {
    fn next(&mut self) -> Option<u8> {
        let byte = self.file.get(self.at).copied()?;
        self.at += 1;
        Some(byte)
    }

    /// Reads the rest of the line.
    fn line(&mut self) -> &'a [u8] {
        let rest = &self.file[self.at..];
        let len = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
        let len = len.unwrap_or(rest.len());
        self.at += len;
        &rest[..len]
    }

    /// Skips blanks and comments.
    fn skip_blanks(&mut self) -> Option<()> {
        loop {
            match self.file.get(self.at)? {
                b'#' => drop(self.line()),
                byte if byte.is_ascii_whitespace() || *byte == 0x0b => self.at += 1,
                _ => return Some(()),
            }
        }
    }

    fn word(&mut self) -> Option<&'a [u8]> {
        self.skip_blanks()?;
        let rest = &self.file[self.at..];
        let is_end = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, 0x0b | b'#');
        let len = rest.iter().position(is_end).unwrap_or(rest.len());
        self.at += len;
        Some(&rest[..len])
    }

    /// Reads a number in digits.
    ///
    /// # Errors
    /// `Truncated` at the end of the file, `Corrupt` if no number follows.
    fn number(&mut self) -> Result<u32, ImageError> {
        let word = self
            .word()
            .ok_or(ImageError::Truncated { format: FORMAT })?;
        let is_number = word.iter().all(u8::is_ascii_digit);
        let number = str::from_utf8(word).ok().filter(|_| is_number);
        let number = number.and_then(|digits| digits.parse().ok());
        number.ok_or_else(|| ImageError::corrupt(FORMAT, "a number is expected"))
    }
}

impl Header {
    fn read(file: &[u8]) -> Result<Self, ImageError> {
        let kind = file.get(1).copied().unwrap_or_default();
        let mut words = Words { file, at: 2 };
        let mut header = match kind {
            b'7' => Self::read_pam(&mut words)?,
            b'F' | b'f' => return Err(ImageError::variety(FORMAT, "floating-point samples (PFM)")),
            _ => {
                let (width, height) = (words.number()?, words.number()?);
                let is_bits = matches!(kind, b'1' | b'4');
                let most = if is_bits { 1 } else { words.number()? };
                Self {
                    width,
                    height,
                    color: match kind {
                        b'3' | b'6' => Color::Rgb,
                        _ => Color::Gray,
                    },
                    most,
                    storage: match kind {
                        b'1' => Storage::PlainBits,
                        b'2' | b'3' => Storage::Plain,
                        b'4' => Storage::Bits,
                        _ if most < 256 => Storage::Bytes,
                        _ => Storage::Words,
                    },
                    pixels: 0,
                }
            }
        };
        let reason = format!("its largest number is {}", header.most);
        match header.most {
            0 => return Err(ImageError::corrupt(FORMAT, reason)),
            1..=0xffff => {}
            // Some programs write up to 32 bits per sample.
            _ => return Err(ImageError::variety(FORMAT, reason)),
        }
        // A single blank ends the header.
        header.pixels = words.at + 1;
        Ok(header)
    }

    fn read_pam(words: &mut Words<'_>) -> Result<Self, ImageError> {
        let (mut width, mut height, mut depth, mut most) = (None, None, None, None);
        let mut kind: &[u8] = b"";
        loop {
            let word = words
                .word()
                .ok_or(ImageError::Truncated { format: FORMAT })?;
            match word {
                b"WIDTH" => width = Some(words.number()?),
                b"HEIGHT" => height = Some(words.number()?),
                b"DEPTH" => depth = Some(words.number()?),
                b"MAXVAL" => most = Some(words.number()?),
                b"TUPLTYPE" => kind = words.line().trim_ascii(),
                b"ENDHDR" => break,
                _ => return Err(ImageError::corrupt(FORMAT, "an unknown word in its header")),
            }
        }
        let (Some(width), Some(height), Some(depth), Some(most)) = (width, height, depth, most)
        else {
            return Err(ImageError::corrupt(FORMAT, "its header is incomplete"));
        };
        let color = match depth {
            1 => Color::Gray,
            2 => Color::GrayAlpha,
            3 => Color::Rgb,
            4 if kind == b"CMYK" => return Err(ImageError::variety(FORMAT, "inks")),
            4 => Color::Rgba,
            _ => return Err(ImageError::variety(FORMAT, format!("{depth} channels"))),
        };
        Ok(Self {
            width,
            height,
            color,
            most,
            storage: match most {
                ..256 => Storage::Bytes,
                _ => Storage::Words,
            },
            pixels: 0,
        })
    }
}

/// Returns width and height in the header.
pub(super) fn announced(file: &[u8]) -> Option<(u32, u32)> {
    let header = Header::read(file).ok()?;
    Some((header.width, header.height))
}

/// Decodes a picture.
pub(super) fn decode(input: &[u8], request: Request<'_>) -> Result<Decoded, ImageError> {
    let spec = request.spec;
    let header = Header::read(input)?;
    let full = (header.width, header.height);
    spec.check_source(full, FORMAT)?;
    let is_deep = header.most > 255;
    let samples = u64::from(header.width) * u64::from(header.height);
    let samples = samples * header.color.channels() as u64;
    spec.admit(samples * if is_deep { 2 } else { 1 }, input.len() as u64)?;
    let orientation = Orientation::NoTransforms;
    let plans = request.plans(full, orientation, FORMAT)?;

    let (samples, read) = match is_deep {
        true => {
            let mut samples: Vec<u16> = buffer(samples as usize)?;
            let read = read(&header, input, &mut samples, |number| number as u16, 0xffff);
            (Samples::Sixteen(samples), read)
        }
        false => {
            let mut samples: Vec<u8> = buffer(samples as usize)?;
            let read = read(&header, input, &mut samples, |number| number as u8, 0xff);
            (Samples::Eight(samples), read)
        }
    };
    let mut pixels = Pixels {
        width: full.0,
        height: full.1,
        color: header.color,
        samples,
    };
    let damage = read.err().map(|(done, error)| {
        let wide = header.width as usize * header.color.channels();
        Found::missing_rows(&mut pixels, done / wide, spec.background, error)
    });
    Ok(Decoded::without_metadata(
        pixels,
        plans,
        orientation,
        damage,
        full,
    ))
}

/// Reads all samples, and scales them so that the brightest is `white`.
///
/// # Errors
/// The number of samples that were read, and the reason why the other samples were not.
fn read<T>(
    header: &Header,
    file: &[u8],
    samples: &mut [T],
    narrow: impl Fn(u32) -> T,
    white: u32,
) -> Result<(), (usize, ImageError)> {
    let truncated = |done| (done, ImageError::Truncated { format: FORMAT });
    let scale = |number: u32| {
        let number = number.min(header.most);
        narrow((number * white + header.most / 2) / header.most)
    };
    let black = |bit: bool| narrow(if bit { 0 } else { white });
    let mut words = Words {
        file,
        at: header.pixels.min(file.len()),
    };
    let data = &file[words.at..];
    match header.storage {
        Storage::Plain => {
            for (done, sample) in samples.iter_mut().enumerate() {
                let number = words.number().map_err(|error| (done, error))?;
                if number > header.most {
                    let error = ImageError::corrupt(FORMAT, "a sample exceeds the largest number");
                    return Err((done, error));
                }
                *sample = scale(number);
            }
        }
        Storage::PlainBits => {
            for (done, sample) in samples.iter_mut().enumerate() {
                words.skip_blanks().ok_or_else(|| truncated(done))?;
                *sample = match words.next() {
                    Some(bit @ (b'0' | b'1')) => black(bit == b'1'),
                    _ => return Err((done, ImageError::corrupt(FORMAT, "a bit is 0 or 1"))),
                };
            }
        }
        Storage::Bits => {
            let wide = header.width as usize;
            let stride = wide.div_ceil(8);
            for (y, row) in samples.chunks_exact_mut(wide).enumerate() {
                let from = data.get(y * stride..).and_then(|rest| rest.get(..stride));
                let from = from.ok_or_else(|| truncated(y * wide))?;
                for (x, sample) in row.iter_mut().enumerate() {
                    *sample = black(from[x / 8] >> (7 - x % 8) & 1 == 1);
                }
            }
        }
        Storage::Bytes => {
            for (sample, &number) in samples.iter_mut().zip(data) {
                *sample = scale(number.into());
            }
            if data.len() < samples.len() {
                return Err(truncated(data.len()));
            }
        }
        Storage::Words => {
            let numbers = data.as_chunks::<2>().0;
            for (sample, &number) in samples.iter_mut().zip(numbers) {
                *sample = scale(u16::from_be_bytes(number).into());
            }
            if numbers.len() < samples.len() {
                return Err(truncated(numbers.len()));
            }
        }
    }
    Ok(())
}
