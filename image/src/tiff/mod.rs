//! Decoding of TIFF: the first picture, in strips or tiles of any depth, order, compression and colour model that
//! common programs write.
//!
//! A library decompresses each strip or tile (`codec`); then its predictor is undone and its samples are scaled to 8 or
//! 16 bits (`samples`). The result has one channel for each wanted sample. The colour model is converted at the end,
//! because the samples of a pixel may be in separate planes.

mod codec;
mod directory;
mod fax;
mod layout;
mod lzw;
mod samples;

use std::ops::{ControlFlow, Range};

use super::color;
use super::damage::{FailOn, Found, Loss};
use super::error::ImageError;
use super::format::Format;
use super::meta::{Decoded, Metadata, Request};
use super::pixels::{Color, Orientation, Pixels, Samples, buffer, divide_by_last, narrow};
use super::resample::Bands;
pub(super) use codec::Shape;
pub(super) use directory::Directory;
use layout::{Layout, Model};
use samples::Kind;

/// Numbers of tags (TIFF 6.0, and its supplements).
mod tag {
    pub(super) const WIDTH: u16 = 256;
    pub(super) const HEIGHT: u16 = 257;
    pub(super) const BITS: u16 = 258;
    pub(super) const COMPRESSION: u16 = 259;
    pub(super) const PHOTOMETRIC: u16 = 262;
    pub(super) const FILL_ORDER: u16 = 266;
    pub(super) const STRIP_PLACES: u16 = 273;
    pub(super) const ORIENTATION: u16 = 274;
    pub(super) const SAMPLES: u16 = 277;
    pub(super) const ROWS: u16 = 278;
    pub(super) const STRIP_LENGTHS: u16 = 279;
    pub(super) const PLANES: u16 = 284;
    pub(super) const FAX3_OPTIONS: u16 = 292;
    pub(super) const PREDICTOR: u16 = 317;
    pub(super) const COLORS: u16 = 320;
    pub(super) const TILE_WIDTH: u16 = 322;
    pub(super) const TILE_HEIGHT: u16 = 323;
    pub(super) const TILE_PLACES: u16 = 324;
    pub(super) const TILE_LENGTHS: u16 = 325;
    pub(super) const EXTRA_SAMPLES: u16 = 338;
    pub(super) const SAMPLE_FORMAT: u16 = 339;
    /// Directories of other pictures, beside the chain.
    pub(super) const DIRECTORIES: u16 = 330;
    pub(super) const JPEG_TABLES: u16 = 347;
    pub(super) const JPEG_PLACE: u16 = 513;
    pub(super) const JPEG_LENGTH: u16 = 514;
    pub(super) const YCBCR_WEIGHTS: u16 = 529;
    pub(super) const YCBCR_SHARED: u16 = 530;
    pub(super) const YCBCR_RANGE: u16 = 532;
    /// The packet that Adobe's programs write.
    pub(super) const XMP: u16 = 700;
    pub(super) const ICC: u16 = 34_675;

    /// Returns whether the layout of the pixels depends on this tag.
    pub(super) const fn is_layout(tag: u16) -> bool {
        matches!(
            tag,
            WIDTH
                | HEIGHT
                | BITS
                | COMPRESSION
                | PHOTOMETRIC
                | FILL_ORDER
                | STRIP_PLACES
                | SAMPLES
                | ROWS
                | STRIP_LENGTHS
                | PLANES
                | FAX3_OPTIONS
                | PREDICTOR
                | COLORS
                | TILE_WIDTH
                | TILE_HEIGHT
                | TILE_PLACES
                | TILE_LENGTHS
                | EXTRA_SAMPLES
                | SAMPLE_FORMAT
                | JPEG_TABLES
                | JPEG_PLACE
                | JPEG_LENGTH
                | YCBCR_WEIGHTS
                | YCBCR_SHARED
                | YCBCR_RANGE
        )
    }
}

/// Returns the sides in the first directory.
pub(super) fn announced(input: &[u8]) -> Option<(u32, u32)> {
    let directory = Directory::first_of(input)?;
    let side = |tag| u32::try_from(directory.first(tag)?).ok();
    side(tag::WIDTH).zip(side(tag::HEIGHT))
}

/// Decodes the first picture.
pub(super) fn decode(input: &[u8], request: Request<'_>) -> Result<Decoded, ImageError> {
    let spec = request.spec;
    let format = Format::Tiff;
    let directory = Directory::read(input)?;
    let layout = Layout::of(&directory)?;
    let sides = (layout.width as u32, layout.height as u32);
    spec.check_source(sides, format)?;
    let wanted = layout.wanted();
    // Memory for the pixels, and for the strip or tile that is being decoded.
    spec.admit(
        layout.row_bytes().saturating_mul(layout.height as u64),
        input.len() as u64,
    )?;
    spec.admit(layout.shape(0).bytes as u64, input.len() as u64)?;
    let icc = directory.bytes(tag::ICC);
    let has_inks_and_alpha = matches!(layout.model, Model::Cmyk) && layout.alpha.is_some();
    let has_light = matches!(layout.model, Model::Rgb) && layout.row.kind == Kind::Float;
    let metadata = Metadata {
        exif: None,
        xmp: directory.bytes(tag::XMP).map(<[u8]>::to_vec),
        // L*a*b*, and inks with alpha, are converted to sRGB here.
        icc: match has_inks_and_alpha || matches!(layout.model, Model::Lab { .. }) {
            true => None,
            false if icc.is_none() && has_light => color::linear_profile(),
            false => icc.map(<[u8]>::to_vec),
        },
        hdr: None,
    };
    let number = directory.first(tag::ORIENTATION);
    let number = number.and_then(|number| u8::try_from(number).ok());
    let orientation = number.and_then(Orientation::from_exif);
    let orientation = orientation.unwrap_or(Orientation::NoTransforms);
    let plans = request.plans(sides, orientation, format)?;

    let mut channels = Channels {
        file: input,
        layout: &layout,
        wanted: &wanted,
        levels: layout.levels(),
        fail_on: spec.fail_on,
        top: 0,
        samples: Samples::Eight(Vec::new()),
        is_cut: false,
        missing: Vec::new(),
        first: None,
        doubtful: None,
    };
    let planes = if layout.is_planar { layout.samples } else { 1 };
    let mut lost = 0;
    // The pixels of these rows of strips or tiles.
    let mut band = |rows: Range<usize>| -> Result<Pixels, ImageError> {
        let samples = channels.read(rows)?;
        let mut pixels = converted(samples, &layout, &directory, icc)?;
        let is_divided = matches!(
            layout.model,
            Model::Palette(_) | Model::Cmyk | Model::Lab { .. }
        );
        if layout.multiplies() && !is_divided {
            pixels.divide_by_alpha();
        }
        let missing = &channels.missing;
        lost += fill(&mut pixels, missing, layout.part.0, spec.background);
        Ok(pixels)
    };
    let down = layout.parts().1;
    let (pixels, plans) = match Bands::for_request(request, &plans, sides, layout.row_bytes()) {
        Some(mut bands) => {
            let step = bands.rows().div_ceil(layout.part.1);
            for first in (0..down).step_by(step) {
                bands.add(band(first..down.min(first + step))?)?;
            }
            bands.finish()?
        }
        None => (band(0..down)?, plans),
    };
    let lost = lost / planes as u64;
    let Channels {
        is_cut,
        first,
        doubtful,
        ..
    } = channels;
    let damage = match first {
        Some(error) => {
            let loss = Loss::Pixels(lost.max(1));
            Some(Found { loss, error })
        }
        None if doubtful.is_some() => doubtful.map(Found::doubtful),
        None if is_cut => {
            let error = ImageError::corrupt(format, "a strip or tile ends beyond the file");
            Some(Found::around(error))
        }
        None if directory.is_beyond_file(tag::ICC) => {
            let reason = "its colour profile ends beyond the file, and is not applied";
            Some(Found::around(ImageError::corrupt(format, reason)))
        }
        None if has_inks_and_alpha => {
            let fault = icc.and_then(|icc| color::fault_of_profile(icc, Color::Cmyk));
            fault.map(|reason| Found::around(ImageError::corrupt(format, reason)))
        }
        None => None,
    };
    Ok(Decoded {
        pixels,
        chroma: None,
        plans,
        orientation,
        metadata,
        damage,
        full: sides,
    })
}

/// Returns the damage of a file that ends before a later page, or a picture beside the pages, does; or before a value
/// of any of them.
pub(super) fn damage_after_first(input: &[u8]) -> Option<Found> {
    let (format, mut number, mut damage) = (Format::Tiff, 0, None);
    Directory::each(input, &[tag::DIRECTORIES], |directory| {
        number += 1;
        // The pixels of the first have been decoded.
        if number > 1 && directory.is_none_or(Directory::lacks_pixels) {
            damage = Some(Found::later(ImageError::Truncated { format }));
            return ControlFlow::Break(());
        } else if directory.is_some_and(Directory::lacks_value) {
            let reason = "a value of its directories is beyond the end of the file";
            let around = || Found::around(ImageError::corrupt(format, reason));
            damage.get_or_insert_with(around);
        }
        ControlFlow::Continue(())
    });
    damage
}

/// The wanted samples of rows of strips or tiles, interleaved.
struct Channels<'a> {
    file: &'a [u8],
    layout: &'a Layout<'a>,
    wanted: &'a [usize],
    /// The conversion of samples of up to 8 bits.
    levels: Vec<u8>,
    fail_on: FailOn,
    /// The first row of `samples`.
    top: usize,
    samples: Samples,
    /// Whether a strip or tile extends beyond the end of the file although all its pixels are there.
    is_cut: bool,
    /// The missing parts of `samples`: left side, first and last row of each.
    missing: Vec<(usize, usize, usize)>,
    /// The reason why the first missing pixels are missing.
    first: Option<ImageError>,
    /// The reason why some pixels may be wrong.
    doubtful: Option<ImageError>,
}

impl Channels<'_> {
    /// Decodes these rows of strips or tiles.
    fn read(&mut self, rows: Range<usize>) -> Result<Samples, ImageError> {
        let layout = self.layout;
        let (across, down) = layout.parts();
        self.top = rows.start * layout.part.1;
        let end = layout.height.min(rows.end.saturating_mul(layout.part.1));
        let len = (end - self.top) * layout.width * self.wanted.len();
        self.samples = match layout.is_deep() {
            true => Samples::Sixteen(buffer(len)?),
            false => Samples::Eight(buffer(len)?),
        };
        self.missing.clear();
        let planes = if layout.is_planar { layout.samples } else { 1 };
        for plane in (0..planes).filter(|plane| planes == 1 || self.wanted.contains(plane)) {
            for number in rows.start * across..rows.end * across {
                let (left, top) = (
                    number % across * layout.part.0,
                    number / across * layout.part.1,
                );
                let all = plane * across * down + number;
                let (whole, error) = self.read_part(all, (left, top), plane)?;
                let Some(error) = error else { continue };
                if self.fail_on >= FailOn::Error {
                    return Err(error);
                }
                let bottom = layout.height.min(top + layout.part.1);
                let first = top + whole.min(bottom - top);
                self.missing
                    .push((left, first - self.top, bottom - self.top));
                self.first.get_or_insert(error);
            }
        }
        Ok(std::mem::replace(
            &mut self.samples,
            Samples::Eight(Vec::new()),
        ))
    }

    /// Decodes a strip or tile. Returns the number of complete rows, and the reason if some are missing.
    ///
    /// # Errors
    /// `UnsupportedVariety` and `OutOfMemory`: errors that the other strips would have, too.
    fn read_part(
        &mut self,
        number: usize,
        (left, top): (usize, usize),
        plane: usize,
    ) -> Result<(usize, Option<ImageError>), ImageError> {
        let layout = self.layout;
        let shape = layout.shape(top);
        let truncated = || ImageError::Truncated {
            format: Format::Tiff,
        };
        let (data, is_cut) = layout.data(self.file, number);
        let Some(data) = data else {
            return Ok((0, is_cut.then(truncated)));
        };
        let turned: Vec<u8>;
        let data = match layout.is_reversed {
            true => {
                turned = data.iter().map(|byte| byte.reverse_bits()).collect();
                &turned
            }
            false => data,
        };
        let (mut bytes, error) = layout.codec.decode(data, shape);
        if let Some(
            error @ (ImageError::UnsupportedVariety { .. } | ImageError::OutOfMemory { .. }),
        ) = error
        {
            return Err(error);
        }
        if let Model::YCbCr { across, down } = layout.model
            && (across, down) != (1, 1)
        {
            bytes = spread(&bytes, shape, (across, down));
        }
        let rows = layout.height.min(top + shape.rows) - top;
        let columns = layout.width.min(left + shape.width) - left;
        let mut done = 0;
        for (index, row) in bytes
            .chunks_exact_mut(layout.stride())
            .take(rows)
            .enumerate()
        {
            layout.row.unpredict(row, layout.predictor);
            let first = (top - self.top + index) * layout.width + left;
            self.store(row, first, columns, plane);
            done += 1;
        }
        let error = match error {
            // Rows beyond the picture, and data after the last row, may be missing.
            error if done == rows => {
                self.is_cut |= is_cut;
                if matches!(layout.codec, codec::Codec::Fax(_) | codec::Codec::Jpeg(_)) {
                    self.doubtful = self.doubtful.take().or(error);
                }
                None
            }
            Some(_) | None if is_cut => Some(truncated()),
            Some(error) => Some(error),
            None => {
                let reason = "it has fewer pixels than its header says";
                Some(ImageError::corrupt(Format::Tiff, reason))
            }
        };
        Ok((done, error))
    }

    /// Stores the wanted samples of a row, from pixel `first` on.
    fn store(&mut self, row: &[u8], first: usize, columns: usize, plane: usize) {
        let layout = self.layout;
        let count = self.wanted.len();
        let is_index = matches!(layout.model, Model::Palette(_));
        let plain = layout.row.kind == Kind::Unsigned;
        if plain && count == layout.row.step {
            // Fast path: all samples are wanted, in their order.
            let (first, all) = (first * count, columns * count);
            match (&mut self.samples, layout.row.bits) {
                (Samples::Eight(samples), 8) => {
                    return samples[first..][..all].copy_from_slice(&row[..all]);
                }
                (Samples::Sixteen(samples), 16) => {
                    let words = samples[first..][..all]
                        .iter_mut()
                        .zip(row.as_chunks::<2>().0);
                    return match layout.row.is_big_endian {
                        true => words.for_each(|(to, &from)| *to = u16::from_be_bytes(from)),
                        false => words.for_each(|(to, &from)| *to = u16::from_le_bytes(from)),
                    };
                }
                _ => {}
            }
        }
        for (channel, &sample) in self.wanted.iter().enumerate() {
            let offset = match layout.is_planar {
                true if sample != plane => continue,
                true => 0,
                false => sample,
            };
            let indices = (0..columns).map(|x| x * layout.row.step + offset);
            let from = first * count + channel;
            match &mut self.samples {
                Samples::Eight(samples) => {
                    let targets = samples[from..].iter_mut().step_by(count).zip(indices);
                    if plain && layout.row.bits == 8 {
                        targets.for_each(|(to, index)| *to = row[index]);
                    } else {
                        targets.for_each(|(to, index)| {
                            *to = self.levels[layout.row.raw(row, index) as usize];
                        });
                    }
                }
                Samples::Sixteen(samples) => {
                    let targets = samples[from..].iter_mut().step_by(count).zip(indices);
                    if is_index || plain && layout.row.bits == 16 {
                        targets.for_each(|(to, index)| *to = layout.row.raw(row, index) as u16);
                    } else {
                        let share = |index| layout.row.share(row, index);
                        targets
                            .for_each(|(to, index)| *to = (share(index) * 65_535.0).round() as u16);
                    }
                }
            }
        }
    }
}

/// Gives each pixel a copy of the colour differences that several pixels share.
fn spread(units: &[u8], shape: Shape, (across, down): (usize, usize)) -> Vec<u8> {
    let stride = shape.width * 3;
    let mut out = vec![0; stride * shape.rows];
    let lumas = across * down;
    let per_row = shape.width.div_ceil(across);
    let units = units.chunks_exact(lumas + 2);
    let whole = units.len() / per_row * down;
    for (number, unit) in units.enumerate() {
        let (left, top) = (number % per_row * across, number / per_row * down);
        for (index, &luma) in unit[..lumas].iter().enumerate() {
            let (x, y) = (left + index % across, top + index / across);
            if x < shape.width && y < shape.rows {
                let pixel = [luma, unit[lumas], unit[lumas + 1]];
                out[y * stride + x * 3..][..3].copy_from_slice(&pixel);
            }
        }
    }
    out.truncate(stride * whole.min(shape.rows));
    out
}

/// Converts the colour model of complete rows. Alpha stays the last sample.
fn converted(
    samples: Samples,
    layout: &Layout<'_>,
    directory: &Directory<'_>,
    icc: Option<&[u8]>,
) -> Result<Pixels, ImageError> {
    let color = layout.color();
    let stride = layout.wanted().len();
    let count = match &samples {
        Samples::Eight(samples) => samples.len() / stride,
        Samples::Sixteen(samples) => samples.len() / stride,
    };
    let samples = match (&layout.model, samples) {
        (Model::Grey { is_inverted: true }, Samples::Eight(mut samples)) => {
            let pixels = samples.chunks_exact_mut(stride);
            pixels.for_each(|pixel| pixel[0] = !pixel[0]);
            Samples::Eight(samples)
        }
        (Model::Grey { is_inverted: true }, Samples::Sixteen(mut samples)) => {
            let pixels = samples.chunks_exact_mut(stride);
            pixels.for_each(|pixel| pixel[0] = !pixel[0]);
            Samples::Sixteen(samples)
        }
        (Model::Palette(colors), samples) => {
            let mut out: Vec<u8> = buffer(count * color.channels())?;
            let most = layout.row.most();
            // Neither indices nor the alpha with them are scaled.
            let draw = |(to, pixel): (&mut [u8], [u16; 2])| {
                let [index, alpha] = pixel;
                let (rgb, rest) = to.split_at_mut(3);
                rgb.copy_from_slice(&colors.get(usize::from(index)).copied().unwrap_or_default());
                if let [to] = rest {
                    *to = ((u64::from(alpha) * 255 + most / 2) / most) as u8;
                }
            };
            let pixels = out.chunks_exact_mut(color.channels());
            match samples {
                Samples::Eight(samples) => {
                    let indices = samples.chunks_exact(stride);
                    let indices = indices.map(|pixel| [pixel[0].into(), pixel[stride - 1].into()]);
                    pixels.zip(indices).for_each(draw);
                }
                Samples::Sixteen(samples) => {
                    let indices = samples.chunks_exact(stride);
                    let indices = indices.map(|pixel| [pixel[0], pixel[stride - 1]]);
                    pixels.zip(indices).for_each(draw);
                }
            }
            Samples::Eight(out)
        }
        (Model::Cmyk, Samples::Eight(samples)) if layout.alpha.is_some() => {
            let eight = |samples: Samples| match samples {
                Samples::Eight(samples) => samples,
                Samples::Sixteen(_) => Vec::new(),
            };
            Samples::Eight(inks_to_rgb(
                samples,
                layout,
                icc,
                u8::MAX,
                (Samples::Eight, eight),
            ))
        }
        (Model::Cmyk, Samples::Sixteen(samples)) if layout.alpha.is_some() => {
            let sixteen = |samples: Samples| match samples {
                Samples::Sixteen(samples) => samples,
                Samples::Eight(_) => Vec::new(),
            };
            Samples::Sixteen(inks_to_rgb(
                samples,
                layout,
                icc,
                u16::MAX,
                (Samples::Sixteen, sixteen),
            ))
        }
        (Model::YCbCr { .. }, Samples::Eight(mut samples)) => {
            let convert = from_ycbcr(directory, matches!(layout.codec, codec::Codec::Jpeg(_)));
            for pixel in samples.chunks_exact_mut(stride) {
                if let Some(pixel) = pixel.first_chunk_mut::<3>() {
                    *pixel = convert(*pixel);
                }
            }
            Samples::Eight(samples)
        }
        (&Model::Lab { is_signed }, Samples::Eight(mut samples)) => {
            for pixel in samples.chunks_exact_mut(stride) {
                let share = layout.share_of_alpha(pixel[stride - 1].into(), 255.0);
                let [level, a, b] = [0, 1, 2].map(|at| match is_signed && at > 0 {
                    true => f32::from(pixel[at].cast_signed()) / share,
                    false => f32::from(pixel[at]) / share,
                });
                let middle = if is_signed { 0.0 } else { 128.0 };
                let lab = [level.min(255.0) * 100.0 / 255.0, a - middle, b - middle];
                pixel[..3].copy_from_slice(&color::from_lab(lab, white_of(is_signed)));
            }
            Samples::Eight(samples)
        }
        (&Model::Lab { is_signed }, Samples::Sixteen(samples)) => {
            let mut out: Vec<u8> = buffer(samples.len())?;
            let pixels = out.chunks_exact_mut(stride);
            for (to, pixel) in pixels.zip(samples.chunks_exact(stride)) {
                let share = layout.share_of_alpha(pixel[stride - 1].into(), 65_535.0);
                let [level, a, b] = [0, 1, 2].map(|at| match is_signed && at > 0 {
                    true => f32::from(pixel[at].cast_signed()) / share,
                    false => f32::from(pixel[at]) / share,
                });
                let (middle, white) = if is_signed {
                    (0.0, 65_535.0)
                } else {
                    (128.0, 65_280.0)
                };
                let [a, b] = [a, b].map(|part| part / 256.0 - middle);
                let lab = [level * 100.0 / white, a, b];
                to[..3].copy_from_slice(&color::from_lab(lab, white_of(is_signed)));
                if let [_, _, _, to] = to {
                    *to = narrow(pixel[3]);
                }
            }
            Samples::Eight(out)
        }
        (_, samples) => samples,
    };
    Ok(Pixels {
        width: layout.width as u32,
        height: (count / layout.width) as u32,
        color,
        samples,
    })
}

/// Returns the white point of L*a*b*: that of CIELab, which is signed, or of ICCLab.
fn white_of(is_signed: bool) -> &'static color::White {
    match is_signed {
        true => &color::D65,
        false => &color::D50,
    }
}

/// The conversions between samples of one depth and the samples of a picture, in both directions.
type Wrapping<T> = (fn(Vec<T>) -> Samples, fn(Samples) -> Vec<T>);

/// Converts inks with alpha to RGB with alpha, in place, because later code supports at most four channels.
fn inks_to_rgb<T: Copy + Into<u64> + TryFrom<u64>>(
    mut samples: Vec<T>,
    layout: &Layout<'_>,
    icc: Option<&[u8]>,
    most: T,
    (wrap, unwrap): Wrapping<T>,
) -> Vec<T> {
    /// The number of pixels that are converted at a time.
    const BAND: usize = 1 << 16;
    const INKS: usize = 4;
    let count = samples.len() / (INKS + 1);
    if layout.multiplies() {
        divide_by_last(&mut samples, INKS + 1, most);
    }
    for first in (0..count).step_by(BAND) {
        let band = BAND.min(count - first);
        let from = &samples[first * (INKS + 1)..][..band * (INKS + 1)];
        let inks = from.chunks_exact(INKS + 1).flat_map(|pixel| &pixel[..INKS]);
        let inks = Pixels {
            width: band as u32,
            height: 1,
            color: Color::Cmyk,
            samples: wrap(inks.copied().collect()),
        };
        let rgb = unwrap(color::to_srgb(inks, icc).samples);
        for (at, rgb) in (first..).zip(rgb.chunks_exact(3)) {
            let alpha = samples[at * (INKS + 1) + INKS];
            samples[at * 4..][..3].copy_from_slice(rgb);
            samples[at * 4 + 3] = alpha;
        }
    }
    samples.truncate(count * 4);
    samples
}

/// Returns the weights of red, green and blue in luma: those of Rec. 601 if the weights in the file are invalid, such
/// as ratios with denominator 0.
fn weights_or_usual(weights: &[f32]) -> [f32; 3] {
    <[f32; 3]>::try_from(weights)
        .ok()
        .filter(|weights| weights.iter().all(|part| *part > 0.0 && *part < 1.0))
        .filter(|weights| (weights.iter().sum::<f32>() - 1.0).abs() < 0.1)
        .unwrap_or([0.299, 0.587, 0.114])
}

/// Returns the conversion of luma and differences to RGB, by the tags that describe it. JPEG has its own conversion.
fn from_ycbcr(directory: &Directory<'_>, is_jpeg: bool) -> impl Fn([u8; 3]) -> [u8; 3] {
    let weights = directory.ratios(tag::YCBCR_WEIGHTS);
    let range = directory.ratios(tag::YCBCR_RANGE);
    let weights = weights_or_usual(&weights);
    let range = <[f32; 6]>::try_from(range)
        .ok()
        .filter(|range| range.iter().all(|end| end.is_finite()))
        .unwrap_or([0.0, 255.0, 128.0, 255.0, 128.0, 255.0]);
    let [for_red, for_green, for_blue] = weights;
    let [black, white, blue_zero, blue_most, red_zero, red_most] = range;
    move |[luma, blue, red]| {
        if is_jpeg {
            return color::rgb([luma, blue, red]);
        }
        let part = |code: u8, zero: f32, most: f32, full: f32| {
            let width = if most == zero { 1.0 } else { most - zero };
            (f32::from(code) - zero) * full / width
        };
        let luma = part(luma, black, white, 255.0);
        let r = luma + part(red, red_zero, red_most, 127.0) * (2.0 - 2.0 * for_red);
        let b = luma + part(blue, blue_zero, blue_most, 127.0) * (2.0 - 2.0 * for_blue);
        let g = (luma - for_red * r - for_blue * b) / for_green;
        [r, g, b].map(|part| part.round().clamp(0.0, 255.0) as u8)
    }
}

/// Fills missing parts, given by left side, first and last row, with a background. Returns the number of pixels.
fn fill(
    pixels: &mut Pixels,
    missing: &[(usize, usize, usize)],
    part_width: usize,
    background: [u8; 3],
) -> u64 {
    let color = color::background_of(pixels.color, background);
    let (width, channels) = (pixels.width as usize, color.len());
    let mut count = 0;
    for &(left, top, bottom) in missing {
        let right = width.min(left.saturating_add(part_width));
        for y in top..bottom {
            let row = (y * width + left) * channels..(y * width + right) * channels;
            match &mut pixels.samples {
                Samples::Eight(samples) => {
                    let row = samples[row].chunks_exact_mut(channels);
                    row.for_each(|pixel| pixel.copy_from_slice(&color));
                }
                Samples::Sixteen(samples) => {
                    for pixel in samples[row].chunks_exact_mut(channels) {
                        let parts = pixel.iter_mut().zip(&color);
                        parts.for_each(|(to, &part)| *to = u16::from(part) * 257);
                    }
                }
            }
        }
        count += (right - left) as u64 * (bottom - top) as u64;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::weights_or_usual;

    #[test]
    fn weights_that_cannot_be_any_are_the_usual_ones() {
        let usual = [0.299, 0.587, 0.114];
        for wrong in [
            &[][..],
            &[f32::INFINITY; 3],
            &[0.0; 3],
            &[1.0, 1.0, 1.0],
            &[0.2, 0.2, 0.2],
            &[0.299, 0.587],
        ] {
            assert_eq!(weights_or_usual(wrong), usual, "{wrong:?}");
        }
        let rec_709 = [0.2126, 0.7152, 0.0722];
        assert_eq!(weights_or_usual(&rec_709), rec_709);
    }
}
