//! The layout of the first picture of a TIFF: its sides, samples and colour model, and where its strips or tiles are.

use super::super::error::ImageError;
use super::super::format::Format;
use super::super::jpeg;
use super::super::pixels::Color;
use super::codec::{Codec, Shape};
use super::directory::Directory;
use super::samples::{Kind, Predictor, Row};
use super::tag;

/// The meaning of a pixel's samples.
#[derive(Debug)]
pub(super) enum Model {
    /// Black to white, or white to black.
    Grey {
        is_inverted: bool,
    },
    Rgb,
    /// Indices of colours.
    Palette(Vec<[u8; 3]>),
    /// Four inks.
    Cmyk,
    /// Luma and colour differences, with the number of pixels that share differences, across and down.
    YCbCr {
        across: usize,
        down: usize,
    },
    /// CIE L*a*b*, with signed differences or with an offset.
    Lab {
        is_signed: bool,
    },
}

/// The extra sample that is alpha.
#[derive(Debug, Clone, Copy)]
pub(super) struct Alpha {
    pub(super) sample: usize,
    /// Whether colours are multiplied by alpha.
    pub(super) is_associated: bool,
}

#[derive(Debug)]
pub(super) struct Layout<'a> {
    pub(super) width: usize,
    pub(super) height: usize,
    /// The number of samples per pixel.
    pub(super) samples: usize,
    pub(super) row: Row,
    pub(super) model: Model,
    pub(super) alpha: Option<Alpha>,
    pub(super) codec: Codec<'a>,
    pub(super) predictor: Predictor,
    /// Whether each sample has its own strips or tiles.
    pub(super) is_planar: bool,
    /// Whether the lowest bit of a byte comes first.
    pub(super) is_reversed: bool,
    /// The sides of a strip or tile.
    pub(super) part: (usize, usize),
    /// Whether parts are tiles, which are stored complete even at the edges.
    pub(super) is_tiled: bool,
    places: Vec<u64>,
    lengths: Vec<u64>,
}

impl<'a> Layout<'a> {
    /// Reads the layout from a directory.
    ///
    /// # Errors
    /// `Corrupt` and `UnsupportedVariety`.
    pub(super) fn of(directory: &Directory<'a>) -> Result<Self, ImageError> {
        let corrupt = |reason: &str| ImageError::corrupt(Format::Tiff, reason);
        let variety = |reason: String| ImageError::variety(Format::Tiff, reason);
        let number = |tag, default| directory.first(tag).unwrap_or(default);
        let side = |tag| u32::try_from(number(tag, 0)).map_or(0, |side| side as usize);
        let (width, height) = (side(tag::WIDTH), side(tag::HEIGHT));
        if width == 0 || height == 0 {
            return Err(corrupt("it has no pixels"));
        }
        let samples = number(tag::SAMPLES, Self::usual_samples(directory));
        let samples = usize::try_from(samples)
            .ok()
            .filter(|samples| (1..=MAX_SAMPLES).contains(samples));
        let samples =
            samples.ok_or_else(|| corrupt("an impossible number of samples per pixel"))?;
        let mut depths = directory.numbers(tag::BITS);
        let bits = depths.next().unwrap_or(1);
        if depths.any(|other| other != bits) {
            return Err(variety("samples of different depths".to_owned()));
        }
        if !matches!(bits, 1..=32 | 64) {
            return Err(variety(format!("{bits} bits per sample")));
        }
        let kind = match number(tag::SAMPLE_FORMAT, 1) {
            2 => Kind::Signed,
            3 if matches!(bits, 16 | 32 | 64) => Kind::Float,
            3 => return Err(variety(format!("floating-point samples of {bits} bits"))),
            5 | 6 => return Err(variety("complex numbers as samples".to_owned())),
            _ => Kind::Unsigned,
        };
        let is_old_jpeg = number(tag::COMPRESSION, 1) == OLD_JPEG
            && number(tag::JPEG_PLACE, 0) > 0
            && !Self::is_old_jpeg_in_parts(directory, height);
        let codec = match is_old_jpeg {
            true => Codec::Jpeg(None),
            false => Codec::of(directory)?,
        };
        let is_jpeg = matches!(codec, Codec::Jpeg(_));
        let is_planar = number(tag::PLANES, 1) == 2 && samples > 1;
        let (model, colors) = Self::model(directory, samples, bits, is_jpeg || is_planar)?;
        let extra = directory.numbers(tag::EXTRA_SAMPLES);
        let alpha = Self::alpha(&model, extra, samples, colors);
        let predictor = match number(tag::PREDICTOR, 1) {
            2 if matches!(
                codec,
                Codec::Lzw | Codec::Deflate | Codec::Zstd | Codec::Lzma
            ) =>
            {
                Predictor::Horizontal
            }
            3 if kind == Kind::Float => Predictor::Float,
            1 | 2 => Predictor::None,
            other => return Err(corrupt(&format!("an unknown predictor ({other})"))),
        };
        if predictor == Predictor::Horizontal && !bits.is_multiple_of(8) {
            return Err(variety(format!("a predictor for {bits} bits per sample")));
        }
        let kind = if matches!(model, Model::Lab { .. } | Model::Palette(_)) {
            // The bits of samples of unknown kind are read as unsigned numbers.
            Kind::Unsigned
        } else {
            kind
        };
        let is_tiled = directory.first(tag::TILE_PLACES).is_some();
        let (part, places, lengths) = if is_old_jpeg {
            let place = vec![number(tag::JPEG_PLACE, 0)];
            let length = vec![number(tag::JPEG_LENGTH, 0)];
            ((width, height), place, length)
        } else if is_tiled {
            let (places, lengths) = (tag::TILE_PLACES, tag::TILE_LENGTHS);
            let part = (side(tag::TILE_WIDTH), side(tag::TILE_HEIGHT));
            (
                part,
                directory.numbers(places).collect(),
                directory.numbers(lengths).collect(),
            )
        } else {
            let rows = number(tag::ROWS, u64::MAX).min(height as u64) as usize;
            let part = (width, if rows == 0 { height } else { rows });
            let (places, lengths) = (tag::STRIP_PLACES, tag::STRIP_LENGTHS);
            (
                part,
                directory.numbers(places).collect(),
                directory.numbers(lengths).collect::<Vec<_>>(),
            )
        };
        if part.0 == 0 || part.1 == 0 {
            return Err(corrupt("its tiles have no pixels"));
        }
        if places.is_empty() {
            return Err(corrupt("it does not say where its pixels are"));
        }
        // Some are holes in files with few values. Programs that end early leave all of them out.
        if places
            .iter()
            .chain(&lengths)
            .all(|&number: &u64| number == 0)
        {
            return Err(corrupt("none of its strips or tiles has data"));
        }
        let step = if is_planar { 1 } else { samples };
        let mut layout = Self {
            width,
            height,
            samples,
            row: Row {
                bits: bits as usize,
                kind,
                is_big_endian: directory.is_big_endian(),
                step,
            },
            model,
            alpha,
            is_reversed: number(tag::FILL_ORDER, 1) == 2 && codec.has_bit_order(),
            codec,
            predictor,
            is_planar,
            part,
            is_tiled,
            places,
            lengths,
        };
        // Some programs write no length of the only part, or a wrong one. Its pixels then end where the file ends, at
        // most.
        if let (&[place], &[length]) = (&layout.places[..], &layout.lengths[..])
            && place != 0
        {
            let is_raw = matches!(layout.codec, Codec::None);
            if length == 0 || is_raw && length < layout.shape(0).bytes as u64 {
                layout.lengths.clear();
            }
        }
        Ok(layout)
    }

    /// Returns whether a JPEG of the old style has only headers, or only the first rows, because its pixels are in
    /// strips or tiles. If these end beyond the file, the JPEG may only be truncated.
    fn is_old_jpeg_in_parts(directory: &Directory<'a>, height: usize) -> bool {
        let file = directory.file();
        let number = |tag| directory.first(tag).unwrap_or(u64::MAX);
        let start = number(tag::JPEG_PLACE).min(file.len() as u64);
        let length = directory
            .first(tag::JPEG_LENGTH)
            .filter(|&length| length > 0);
        let end = start.saturating_add(length.unwrap_or(u64::MAX));
        let stream = &file[start as usize..end.min(file.len() as u64) as usize];
        let strips = (tag::STRIP_PLACES, tag::STRIP_LENGTHS);
        let tiles = (tag::TILE_PLACES, tag::TILE_LENGTHS);
        let ends = [strips, tiles].into_iter().flat_map(|(places, lengths)| {
            let parts = directory.numbers(places).zip(directory.numbers(lengths));
            parts.map(|(place, length)| place.saturating_add(length))
        });
        let is_in_file = ends.max().is_some_and(|end| end <= file.len() as u64);
        is_in_file && !jpeg::has_rows(stream, height)
    }

    /// Returns the number of samples per pixel of a file that does not contain it.
    fn usual_samples(directory: &Directory<'a>) -> u64 {
        match (
            directory.numbers(tag::BITS).len(),
            directory.first(tag::PHOTOMETRIC),
        ) {
            (depths @ 2.., _) => depths as u64,
            (_, Some(2 | 6 | 8 | 9)) => 3,
            (_, Some(5)) => 4,
            _ => 1,
        }
    }

    /// Returns the colour model, and the number of its samples.
    fn model(
        directory: &Directory<'a>,
        samples: usize,
        bits: u64,
        is_upsampled: bool,
    ) -> Result<(Model, usize), ImageError> {
        let default = match samples {
            _ if directory.bytes(tag::COLORS).is_some() => 3,
            3.. => 2,
            _ => 1,
        };
        let what = directory.first(tag::PHOTOMETRIC).unwrap_or(default);
        let (model, colors) = match what {
            0 => (Model::Grey { is_inverted: true }, 1),
            // 4 is a mask: set bits are inside.
            1 | 4 => (Model::Grey { is_inverted: false }, 1),
            2 => (Model::Rgb, 3),
            3 if bits <= 16 => {
                let all: Vec<u64> = directory.numbers(tag::COLORS).collect();
                let third = all.len() / 3;
                if third == 0 {
                    return Err(ImageError::corrupt(Format::Tiff, "its palette is missing"));
                }
                // Some programs store 8 bits in values of 16.
                let shift = if all.iter().any(|&part| part > 255) {
                    8
                } else {
                    0
                };
                let part = |at: usize| (all[at] >> shift) as u8;
                let color = |at| [part(at), part(at + third), part(at + 2 * third)];
                (Model::Palette((0..third).map(color).collect()), 1)
            }
            5 => (Model::Cmyk, 4),
            6 if bits == 8 => {
                let mut shared = directory.numbers(tag::YCBCR_SHARED);
                let mut next = || shared.next().unwrap_or(2).clamp(1, 4) as usize;
                let (across, down) = (next(), next());
                match is_upsampled {
                    true => (Model::YCbCr { across: 1, down: 1 }, 3),
                    false => (Model::YCbCr { across, down }, 3),
                }
            }
            8 | 9 if matches!(bits, 8 | 16) => (
                Model::Lab {
                    is_signed: what == 8,
                },
                3,
            ),
            other => {
                let name = match other {
                    3 => "a palette".to_owned(),
                    6 => "YCbCr".to_owned(),
                    8..=10 => "L*a*b*".to_owned(),
                    32_803 => "the mosaic of a camera's sensor".to_owned(),
                    32_844 | 32_845 => "logarithmic luminance".to_owned(),
                    34_892 => "a camera's linear colours".to_owned(),
                    other => format!("an unknown colour model ({other})"),
                };
                let reason = format!("{name} with {bits} bits per sample");
                return Err(ImageError::variety(Format::Tiff, reason));
            }
        };
        if samples < colors {
            let reason = "fewer samples per pixel than its colour model has";
            return Err(ImageError::corrupt(Format::Tiff, reason));
        }
        Ok((model, colors))
    }

    /// Returns the first extra sample, if it is alpha. If nothing describes the fourth of four samples of RGB, it is
    /// alpha.
    fn alpha(
        model: &Model,
        mut extra: impl ExactSizeIterator<Item = u64>,
        samples: usize,
        colors: usize,
    ) -> Option<Alpha> {
        // Pixels that share differences are stored in units without alpha.
        let shares = matches!(model, Model::YCbCr { across, down } if (*across, *down) != (1, 1));
        let is_possible = !shares && samples > colors;
        let what = match (extra.next(), model) {
            (None, Model::Rgb) if samples == 4 => Some(2),
            (what, _) => what,
        };
        let is_associated = match what.filter(|_| is_possible)? {
            1 => true,
            2 => false,
            _ => return None,
        };
        let sample = colors;
        Some(Alpha {
            sample,
            is_associated,
        })
    }

    /// Returns whether colours are multiplied by alpha.
    pub(super) fn multiplies(&self) -> bool {
        self.alpha.is_some_and(|alpha| alpha.is_associated)
    }

    /// Returns the factor by which to divide a pixel's colours: 1 unless they are multiplied by alpha. `last` is the
    /// pixel's last sample.
    pub(super) fn share_of_alpha(&self, last: f32, most: f32) -> f32 {
        match self.multiplies() && last > 0.0 {
            true => last / most,
            false => 1.0,
        }
    }

    /// Returns the colour model of the pixels, after palettes, L*a*b*, YCbCr, and inks with alpha are converted to RGB.
    pub(super) const fn color(&self) -> Color {
        match (&self.model, self.alpha) {
            (Model::Grey { .. }, None) => Color::Gray,
            (Model::Grey { .. }, Some(_)) => Color::GrayAlpha,
            (Model::Cmyk, None) => Color::Cmyk,
            (_, None) => Color::Rgb,
            (_, Some(_)) => Color::Rgba,
        }
    }

    /// Returns the samples that are read, by their index in the pixel.
    pub(super) fn wanted(&self) -> Vec<usize> {
        let colors = match self.model {
            Model::Grey { .. } | Model::Palette(_) => 1,
            Model::Cmyk => 4,
            _ => 3,
        };
        (0..colors)
            .chain(self.alpha.map(|alpha| alpha.sample))
            .collect()
    }

    /// Returns the number of bytes of a decoded row of the picture.
    pub(super) fn row_bytes(&self) -> u64 {
        let channels = self.color().channels().max(self.wanted().len());
        self.width as u64 * channels as u64 * if self.is_deep() { 2 } else { 1 }
    }

    /// Returns whether the samples need 16 bits.
    pub(super) const fn is_deep(&self) -> bool {
        self.row.bits > 8
    }

    /// Returns the conversion of each sample of up to 8 bits: indices of colours do not change, other samples are
    /// scaled. Empty for more bits.
    pub(super) fn levels(&self) -> Vec<u8> {
        if self.is_deep() {
            return Vec::new();
        }
        let is_index = matches!(self.model, Model::Palette(_));
        let level = |raw: u64| match is_index {
            true => raw as u8,
            false => (self.row.share_of(raw) * 255.0).round() as u8,
        };
        (0..=self.row.most()).map(level).collect()
    }

    /// Returns the number of strips or tiles, across and down.
    pub(super) const fn parts(&self) -> (usize, usize) {
        (
            self.width.div_ceil(self.part.0),
            self.height.div_ceil(self.part.1),
        )
    }

    /// Returns the shape of the strip or tile that begins at row `top`.
    pub(super) fn shape(&self, top: usize) -> Shape {
        let (width, most) = self.part;
        let rows = match self.is_tiled {
            true => most,
            false => most.min(self.height - top),
        };
        let channels = self.row.step;
        let bytes = match self.model {
            Model::YCbCr { across, down } if (across, down) != (1, 1) => {
                let units = width.div_ceil(across).saturating_mul(rows.div_ceil(down));
                units.saturating_mul(across * down + 2)
            }
            _ => self.stride().saturating_mul(rows),
        };
        Shape {
            width,
            rows,
            channels,
            bytes,
        }
    }

    /// Returns the number of bytes of a row of a strip or tile.
    pub(super) const fn stride(&self) -> usize {
        (self
            .part
            .0
            .saturating_mul(self.row.step)
            .saturating_mul(self.row.bits))
        .div_ceil(8)
    }

    /// Returns the bytes of a strip or tile as far as the file contains them, and whether the file ends before the end
    /// of this part. `None` if the file leaves the part out.
    pub(super) fn data(&self, file: &'a [u8], number: usize) -> (Option<&'a [u8]>, bool) {
        let Some(&place) = self.places.get(number) else {
            return (None, true);
        };
        let length = self.lengths.get(number).copied();
        if place == 0 && length == Some(0) {
            return (None, false);
        }
        let size = file.len() as u64;
        let end = place.saturating_add(length.unwrap_or(u64::MAX));
        let start = place.min(size);
        let data = &file[start as usize..end.min(size).max(start) as usize];
        (Some(data), end > size && length.is_some())
    }
}

/// The maximum number of samples of a pixel.
const MAX_SAMPLES: usize = 64;
/// The compression of files that contain a JPEG with its headers.
const OLD_JPEG: u64 = 6;
