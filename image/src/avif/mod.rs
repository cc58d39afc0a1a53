//! AVIF and HEIC: the still picture of a file, in the orientation that the file specifies. The container is read here;
//! rav1d decodes AV1, the system's libde265 decodes HEVC, and ravif encodes AVIF.

#[allow(unsafe_code, reason = "the decoder has the interface of C only")]
mod av1;
mod boxes;
mod canvas;
mod container;
mod file;
#[allow(
    unsafe_code,
    reason = "the decoder is a library of C, loaded when it is needed"
)]
mod hevc;
#[allow(unsafe_code, reason = "samples are memory of a decoder")]
mod picture;
mod write;

use super::color::profile_of_code_points;
use super::error::ImageError;
use super::format::Format;
use super::hdr::Hdr;
use super::meta::{Decoded, Metadata, Request, StoredPlan};
use super::pixels::{Color, Orientation, Pixels, Samples, buffer};
use super::spec::ResizeSpec;

pub(super) use boxes::Reader;
use boxes::corrupt;
use canvas::{Canvas, Output};
use container::{CodePoints, Config, Container, Crop, Properties, Turn};
use picture::Picture;

pub(super) use hevc::version as hevc_version;
pub(super) use write::encode;

/// Decodes the still picture of a file. In an animation this is usually the first frame.
pub(super) fn decode(
    input: &[u8],
    format: Format,
    request: Request<'_>,
) -> Result<Decoded, ImageError> {
    let decoded = decode_primary(input, format, request);
    // The code for both formats creates errors about AVIF: replace the format.
    decoded.map_err(|error| error.with_format(format))
}

fn decode_primary(
    input: &[u8],
    format: Format,
    request: Request<'_>,
) -> Result<Decoded, ImageError> {
    let spec = request.spec;
    let container = Container::read(input)?;
    let mut picture = Item::new(&container, container.primary, spec)?;
    let alpha = match container.alpha_of(container.primary)? {
        Some(alpha) => Some(Item::new(&container, alpha, spec)?),
        None => None,
    };
    if alpha
        .as_ref()
        .is_some_and(|alpha| alpha.sides != picture.sides)
    {
        let reason = "its alpha has other sides than its colours";
        return Err(ImageError::variety(Format::Avif, reason));
    }
    let orientation = orientation(picture.properties.turn);
    let shown = picture.crop();
    let full = (shown.width, shown.height);
    let mut plans = request.plans(full, orientation, format)?;
    let icc = picture.properties.icc.map(<[u8]>::to_vec);
    if format == Format::Heic
        && alpha.is_none()
        && !request.needs_exact_pixels()
        && let Some((smaller, smaller_plans)) = picture.smaller(&plans, spec)
    {
        (picture, plans) = (smaller, smaller_plans);
    }
    let config = picture.config;
    let color = match (config.is_grey, &alpha) {
        (true, None) => Color::Gray,
        (true, Some(_)) => Color::GrayAlpha,
        (false, None) => Color::Rgb,
        (false, Some(_)) => Color::Rgba,
    };
    let (width, height) = picture.sides;
    let bytes_of_sample = if config.depth > 8 { 2 } else { 1 };
    let samples = u64::from(width) * u64::from(height) * color.channels() as u64;
    spec.admit(samples * bytes_of_sample, input.len() as u64)?;
    let len = usize::try_from(samples).map_err(|_| ImageError::OutOfMemory { bytes: samples })?;
    let (samples, points) = match config.depth {
        8 => {
            let mut samples: Vec<u8> = buffer(len)?;
            let points = fill(&mut samples, &picture, alpha.as_ref(), color)?;
            (Samples::Eight(samples), points)
        }
        _ => {
            let mut samples: Vec<u16> = buffer(len)?;
            let points = fill(&mut samples, &picture, alpha.as_ref(), color)?;
            (Samples::Sixteen(samples), points)
        }
    };
    let mut pixels = Pixels {
        width,
        height,
        color,
        samples,
    };
    if alpha.is_some_and(|alpha| alpha.multiplies(&picture)) {
        pixels.divide_by_alpha();
    }
    let pixels = cropped(pixels, picture.crop());
    let (exif, xmp) = container.descriptions_of(container.primary);
    let hdr = match icc {
        Some(_) => None,
        None => Hdr::of_code_points(points.primaries, points.transfer),
    };
    let metadata = Metadata {
        // The orientation in EXIF is ignored: the container has its own.
        exif,
        xmp,
        icc: icc
            .or_else(|| profile_of_code_points(points.primaries, points.transfer, config.is_grey)),
        hdr,
    };
    Ok(Decoded {
        pixels,
        chroma: None,
        plans,
        orientation,
        metadata,
        damage: None,
        full,
    })
}

/// A picture that consists of one item, or of a grid of items.
struct Item<'a> {
    container: &'a Container<'a>,
    number: u32,
    properties: Properties<'a>,
    sides: (u32, u32),
    /// The configuration of each tile.
    config: Config,
    tiles: Vec<u32>,
    columns: u32,
    tile_sides: (u32, u32),
}

impl<'a> Item<'a> {
    /// Checks an item against the limits of `spec`, without decoding anything.
    fn new(
        container: &'a Container<'a>,
        number: u32,
        spec: &ResizeSpec,
    ) -> Result<Self, ImageError> {
        let kind = container.kind(number)?;
        let properties = container.properties(number)?;
        let sides = properties
            .sides
            .ok_or_else(|| corrupt("a picture without sides"))?;
        spec.check_source(sides, Format::Avif)?;
        match &kind {
            b"av01" | b"hvc1" => {
                let config = properties.config_for(&kind);
                Ok(Self {
                    container,
                    number,
                    sides,
                    config: config.ok_or_else(without_config)?,
                    tiles: vec![number],
                    columns: 1,
                    tile_sides: sides,
                    properties,
                })
            }
            b"grid" => Self::grid(container, number, properties, sides, spec),
            other => {
                let name = other.escape_ascii();
                let reason = format!("its picture is an item of kind {name}");
                Err(ImageError::variety(Format::Avif, reason))
            }
        }
    }

    fn grid(
        container: &'a Container<'a>,
        number: u32,
        properties: Properties<'a>,
        sides: (u32, u32),
        spec: &ResizeSpec,
    ) -> Result<Self, ImageError> {
        let data = container.data(number)?;
        let mut reader = Reader::new(&data);
        let (version, flags) = (reader.u8()?, reader.u8()?);
        if version != 0 {
            return Err(corrupt("an unknown version of a grid"));
        }
        let [rows, columns] = [reader.u8()?, reader.u8()?].map(|less| u32::from(less) + 1);
        let is_long = flags & 1 != 0;
        let whole = (reader.u16_or_u32(is_long)?, reader.u16_or_u32(is_long)?);
        if whole != sides {
            return Err(corrupt("its grid has other sides than its header says"));
        }
        let tiles = container.references_from(number, b"dimg");
        if tiles.len() as u64 != u64::from(rows) * u64::from(columns) {
            return Err(corrupt("its grid has another number of tiles than it says"));
        }
        let mut of_all = None;
        for &tile in tiles {
            let kind = container.kind(tile)?;
            if !matches!(&kind, b"av01" | b"hvc1") {
                return Err(ImageError::variety(
                    Format::Avif,
                    "a grid of other items than AV1 or HEVC",
                ));
            }
            let found = container.properties(tile)?;
            let sides = found.sides.ok_or_else(|| corrupt("a tile without sides"))?;
            let config = found.config_for(&kind).ok_or_else(without_config)?;
            if *of_all.get_or_insert((sides, config)) != (sides, config) {
                return Err(corrupt("tiles of a grid that are not alike"));
            }
        }
        let (tile_sides, config) = of_all.ok_or_else(|| corrupt("a grid without tiles"))?;
        // Each tile is a part of the picture, and together they cover it.
        let covers = |tile: u32, count: u32, whole: u32| {
            let all = u64::from(tile) * u64::from(count);
            all >= u64::from(whole) && all - u64::from(tile) < u64::from(whole)
        };
        if !covers(tile_sides.0, columns, sides.0) || !covers(tile_sides.1, rows, sides.1) {
            return Err(corrupt("its tiles do not fit its grid"));
        }
        let all = (
            tile_sides.0.checked_mul(columns),
            tile_sides.1.checked_mul(rows),
        );
        let all = (all.0.unwrap_or(u32::MAX), all.1.unwrap_or(u32::MAX));
        spec.check_source(all, Format::Avif)?;
        Ok(Self {
            container,
            number,
            sides,
            config,
            tiles: tiles.to_vec(),
            columns,
            tile_sides,
            properties,
        })
    }

    /// Returns the visible part.
    fn crop(&self) -> Crop {
        let (width, height) = self.sides;
        self.properties.crop.unwrap_or(Crop {
            left: 0,
            top: 0,
            width,
            height,
        })
    }

    /// Returns the smallest thumbnail with enough pixels for each result, and the plans for it.
    fn smaller(&self, plans: &[StoredPlan], spec: &ResizeSpec) -> Option<(Self, Vec<StoredPlan>)> {
        let full = self.crop();
        let thumbnails = self.container.thumbnails_of(self.number);
        let found = thumbnails.filter_map(|number| {
            let item = Self::new(self.container, number, spec).ok()?;
            let shown = item.crop();
            let scale = (
                f64::from(shown.width) / f64::from(full.width),
                f64::from(shown.height) / f64::from(full.height),
            );
            // The thumbnail must show the same picture, up to rounding of the shorter side.
            let error = (scale.0 - scale.1).abs() * f64::from(full.width.min(full.height));
            if error > 1.0 || scale.0 >= 1.0 || item.properties.turn != self.properties.turn {
                return None;
            }
            let scaled = plans.iter().map(|plan| {
                let region = plan.region.scaled(scale, (shown.width, shown.height));
                let (width, height) = (f64::from(plan.width), f64::from(plan.height));
                // Allow for a pixel lost by rounding.
                let has_enough = region.width + 1.0 > width && region.height + 1.0 > height;
                has_enough.then_some(StoredPlan { region, ..*plan })
            });
            Some((item, scaled.collect::<Option<Vec<_>>>()?))
        });
        found.min_by_key(|(item, _)| u64::from(item.sides.0) * u64::from(item.sides.1))
    }

    /// Returns whether the colours of `picture` were multiplied by this alpha.
    fn multiplies(&self, picture: &Item<'_>) -> bool {
        let multiplied = self.container.references_from(picture.number, b"prem");
        multiplied.contains(&self.number)
    }

    /// Decodes the tiles one after the other, and passes each to the function with its offset in the picture.
    fn for_each_tile(
        &self,
        mut draw: impl FnMut(&Picture, (usize, usize)) -> Result<(), ImageError>,
    ) -> Result<(), ImageError> {
        for (at, &tile) in (0u32..).zip(&self.tiles) {
            let properties = match tile == self.number {
                true => &self.properties,
                false => &self.container.properties(tile)?,
            };
            let data = self.container.data(tile)?;
            let picture = match properties.hevc {
                Some(header) => hevc::decode(&data, header, self.tile_sides)?,
                None => av1::decode(&data, self.tile_sides, properties.operating_point)?,
            };
            let picture = picture.checked(self.tile_sides, self.config)?;
            let (column, row) = (at % self.columns, at / self.columns);
            let offset = (column * self.tile_sides.0, row * self.tile_sides.1);
            draw(&picture, (offset.0 as usize, offset.1 as usize))?;
        }
        Ok(())
    }
}

fn without_config() -> ImageError {
    corrupt("a picture without the configuration of its decoder")
}

/// Decodes colours and alpha into samples. Returns the code points of the colours.
fn fill<T: Output>(
    samples: &mut [T],
    picture: &Item<'_>,
    alpha: Option<&Item<'_>>,
    color: Color,
) -> Result<CodePoints, ImageError> {
    let mut canvas = Canvas {
        samples,
        width: picture.sides.0 as usize,
        height: picture.sides.1 as usize,
        channels: color.channels(),
    };
    let mut points = picture.properties.code_points;
    picture.for_each_tile(|tile, offset| {
        let points = *points.get_or_insert_with(|| tile.code_points());
        match picture.config.depth {
            8 => canvas.draw::<u8>(tile, offset, points, picture.config),
            _ => canvas.draw::<u16>(tile, offset, points, picture.config),
        }
    })?;
    if let Some(alpha) = alpha {
        let depth = alpha.config.depth;
        alpha.for_each_tile(|tile, offset| {
            let points = alpha.properties.code_points;
            let is_full = points.unwrap_or_else(|| tile.code_points()).is_full;
            match depth {
                8 => canvas.draw_alpha::<u8>(tile, offset, (depth, is_full)),
                _ => canvas.draw_alpha::<u16>(tile, offset, (depth, is_full)),
            }
        })?;
    }
    points.ok_or_else(|| corrupt("a picture without tiles"))
}

const fn orientation(turn: Turn) -> Orientation {
    match (turn.quarters, turn.is_flipped) {
        (1, false) => Orientation::Rotate90,
        (2, false) => Orientation::Rotate180,
        (3, false) => Orientation::Rotate270,
        (_, false) => Orientation::NoTransforms,
        (1, true) => Orientation::Rotate90FlipH,
        // A half turn and a flip.
        (2, true) => Orientation::FlipVertical,
        (3, true) => Orientation::Rotate270FlipH,
        (_, true) => Orientation::FlipHorizontal,
    }
}

/// Returns the visible part of the pixels.
fn cropped(pixels: Pixels, crop: Crop) -> Pixels {
    fn part<T: Copy>(samples: &mut Vec<T>, stride: usize, start: usize, len: usize, rows: usize) {
        for row in 0..rows {
            let from = start + row * stride;
            samples.copy_within(from..from + len, row * len);
        }
        samples.truncate(rows * len);
    }
    if (crop.width, crop.height) == (pixels.width, pixels.height) {
        return pixels;
    }
    let channels = pixels.color.channels();
    let stride = pixels.width as usize * channels;
    let start = crop.top as usize * stride + crop.left as usize * channels;
    let (len, rows) = (crop.width as usize * channels, crop.height as usize);
    let mut samples = pixels.samples;
    match &mut samples {
        Samples::Eight(samples) => part(samples, stride, start, len, rows),
        Samples::Sixteen(samples) => part(samples, stride, start, len, rows),
    }
    Pixels {
        width: crop.width,
        height: crop.height,
        samples,
        ..pixels
    }
}
