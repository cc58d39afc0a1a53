//! The items of a file that are pictures: coded ones, and those that are derived from others.

use super::super::error::ImageError;
use super::super::format::Format;
use super::super::meta::StoredPlan;
use super::super::size::Region;
use super::super::spec::ResizeSpec;
use super::boxes::{Reader, corrupt};
use super::container::{Config, Container, Crop, Properties, Turn};
use super::picture::Picture;
use super::{av1, hevc, orientation};

/// A picture that consists of one coded item, of a grid of such items (`grid`), or of layers (`iovl`); or one of these
/// with further turns and crops (`iden`).
pub(super) struct Item<'a> {
    pub(super) container: &'a Container<'a>,
    number: u32,
    /// The number of the item that has the pixels: another if this item only turns and crops it.
    pub(super) source: u32,
    pub(super) properties: Properties<'a>,
    pub(super) sides: (u32, u32),
    /// The configuration of each tile.
    pub(super) config: Config,
    tiles: Vec<u32>,
    columns: u32,
    tile_sides: (u32, u32),
    /// The layers from bottom to top, over a background; empty if the picture has tiles.
    pub(super) layers: Vec<Layer>,
    pub(super) background: [u8; 4],
}

/// A picture over a background or other layers.
pub(super) struct Layer {
    pub(super) number: u32,
    /// The offset of the left upper corner. It may be outside.
    pub(super) left: i32,
    pub(super) top: i32,
}

/// The maximum number of items one above the other that only turn and crop the next.
const MAX_DEPTH: u32 = 8;

impl<'a> Item<'a> {
    /// Checks an item against the limits of `spec`, without decoding anything.
    pub(super) fn new(
        container: &'a Container<'a>,
        number: u32,
        spec: &ResizeSpec,
    ) -> Result<Self, ImageError> {
        Self::at_depth(container, number, spec, 0)
    }

    fn at_depth(
        container: &'a Container<'a>,
        number: u32,
        spec: &ResizeSpec,
        depth: u32,
    ) -> Result<Self, ImageError> {
        let kind = container.kind(number)?;
        let properties = container.properties(number)?;
        if kind == *b"iden" {
            let &[source] = container.references_from(number, b"dimg") else {
                return Err(corrupt("a turned picture that is not made of one other"));
            };
            if depth == MAX_DEPTH {
                return Err(corrupt("a picture that is turned again and again"));
            }
            let source = Self::at_depth(container, source, spec, depth + 1)?;
            return source.turned(number, properties);
        }
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
                    source: number,
                    sides,
                    config: config.ok_or_else(without_config)?,
                    tiles: vec![number],
                    columns: 1,
                    tile_sides: sides,
                    layers: Vec::new(),
                    background: [0; 4],
                    properties,
                })
            }
            b"grid" => Self::grid(container, number, properties, sides, spec),
            b"iovl" => Self::overlay(container, number, properties, sides),
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
            if found.crop.is_some() || found.turn != Turn::default() {
                return Err(ImageError::variety(
                    Format::Avif,
                    "a grid of tiles that are turned or cropped",
                ));
            }
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
            source: number,
            sides,
            config,
            tiles: tiles.to_vec(),
            columns,
            tile_sides,
            layers: Vec::new(),
            background: [0; 4],
            properties,
        })
    }

    fn overlay(
        container: &'a Container<'a>,
        number: u32,
        mut properties: Properties<'a>,
        sides: (u32, u32),
    ) -> Result<Self, ImageError> {
        let data = container.data(number)?;
        let mut reader = Reader::new(&data);
        let (version, flags) = (reader.u8()?, reader.u8()?);
        if version != 0 {
            return Err(corrupt("an unknown version of an overlay"));
        }
        let is_long = flags & 1 != 0;
        let mut background = [0; 4];
        for part in &mut background {
            [*part, _] = reader.u16()?.to_be_bytes();
        }
        if (reader.u16_or_u32(is_long)?, reader.u16_or_u32(is_long)?) != sides {
            return Err(corrupt("its overlay has other sides than its header says"));
        }
        let numbers = container.references_from(number, b"dimg");
        let [first, ..] = numbers else {
            return Err(corrupt("an overlay without layers"));
        };
        let mut signed = || -> Result<i32, ImageError> {
            Ok(match is_long {
                true => reader.u32()?.cast_signed(),
                false => reader.u16()?.cast_signed().into(),
            })
        };
        let layers = numbers.iter().map(|&number| {
            Ok(Layer {
                number,
                left: signed()?,
                top: signed()?,
            })
        });
        let layers = layers.collect::<Result<_, ImageError>>()?;
        if properties.icc.is_none() && properties.code_points.is_none() {
            properties.icc = container.properties(*first)?.icc;
        }
        Ok(Self {
            container,
            number,
            source: number,
            sides,
            config: Config {
                depth: 8,
                is_grey: false,
            },
            tiles: Vec::new(),
            columns: 1,
            tile_sides: (0, 0),
            layers,
            background,
            properties,
        })
    }

    /// Returns the item `number`, which shows this item with the crops and turns in `after`.
    fn turned(self, number: u32, after: Properties<'a>) -> Result<Self, ImageError> {
        let (shown, turn) = (self.crop(), self.properties.turn);
        let crop = match after.crop {
            None => shown,
            Some(crop) => {
                let region = Region {
                    left: crop.left.into(),
                    top: crop.top.into(),
                    width: crop.width.into(),
                    height: crop.height.into(),
                };
                let part = region.stored((shown.width, shown.height), orientation(turn));
                let part = Crop {
                    left: shown.left.saturating_add(part.left as u32),
                    top: shown.top.saturating_add(part.top as u32),
                    width: part.width as u32,
                    height: part.height as u32,
                };
                let (width, height) = match turn.quarters % 2 {
                    0 => (part.width, part.height),
                    _ => (part.height, part.width),
                };
                if (width, height) != (crop.width, crop.height) {
                    return Err(corrupt("the part of it that is shown is not inside"));
                }
                part
            }
        };
        Ok(Self {
            number,
            properties: Properties {
                crop: Some(crop),
                turn: turn.then(after.turn),
                code_points: after.code_points.or(self.properties.code_points),
                icc: after.icc.or(self.properties.icc),
                ..self.properties
            },
            ..self
        })
    }

    /// Returns the visible part.
    pub(super) fn crop(&self) -> Crop {
        let (width, height) = self.sides;
        self.properties.crop.unwrap_or(Crop {
            left: 0,
            top: 0,
            width,
            height,
        })
    }

    /// Returns the smallest thumbnail with enough pixels for each result, and the plans for it.
    pub(super) fn smaller(
        &self,
        plans: &[StoredPlan],
        spec: &ResizeSpec,
    ) -> Option<(Self, Vec<StoredPlan>)> {
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
    pub(super) fn multiplies(&self, picture: &Item<'_>) -> bool {
        let multiplied = self.container.references_from(picture.source, b"prem");
        multiplied.contains(&self.number)
    }

    /// Decodes the tiles one after the other, and passes each to the function with its offset in the picture.
    pub(super) fn for_each_tile(
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
