//! The container of AVIF (HEIF, ISO/IEC 23008-12): the items of the file, the location of their bytes, the properties
//! that describe them, and their references to each other. Everything is checked against the length of the file; no
//! allocation exceeds a small multiple of it.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::super::damage::Found;
use super::super::error::ImageError;
use super::super::format::Format;
use super::super::meta::exif_after_offset;
use super::boxes::{Kind, Reader, corrupt};
use super::film;

/// The metadata about the items of a file.
#[derive(Debug)]
pub(super) struct Container<'a> {
    file: &'a [u8],
    /// The number of the item that is the picture.
    pub(super) primary: u32,
    items: BTreeMap<u32, Item<'a>>,
    /// The properties, which items share. An item names them by position, from 1 on.
    properties: Vec<(Kind, Reader<'a>)>,
    references: Vec<Reference>,
    /// The data of items that is stored inside the metadata.
    inner_data: &'a [u8],
}

#[derive(Debug, Default)]
struct Item<'a> {
    kind: Kind,
    /// The type of the content, if the kind is `mime`.
    content_type: &'a [u8],
    is_protected: bool,
    source: Source,
    /// The extents of the item in its source: offset and length. Length 0 means up to the end.
    extents: Vec<(u64, u64)>,
    /// The numbers of properties, and for each whether a reader must know it.
    properties: Vec<(u16, bool)>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Source {
    #[default]
    File,
    InnerData,
    Elsewhere,
}

#[derive(Debug)]
struct Reference {
    kind: Kind,
    from: u32,
    to: Vec<u32>,
}

/// The properties of an item.
#[derive(Debug, Default)]
pub(super) struct Properties<'a> {
    pub(super) sides: Option<(u32, u32)>,
    pub(super) config: Option<Config>,
    /// Further parameters for the decoder of HEVC; `None` for AV1.
    pub(super) hevc: Option<HevcHeader<'a>>,
    pub(super) code_points: Option<CodePoints>,
    pub(super) icc: Option<&'a [u8]>,
    pub(super) crop: Option<Crop>,
    pub(super) turn: Turn,
    /// The purpose of an auxiliary picture.
    pub(super) purpose: Option<&'a [u8]>,
    /// The number of the operating point (quality) to decode, if the data has several.
    pub(super) operating_point: u8,
}

/// Parameters of HEVC, from the configuration of the decoder (`hvcC`).
#[derive(Debug, Clone, Copy)]
pub(super) struct HevcHeader<'a> {
    /// The number of bytes of the length that precedes each unit of the data.
    pub(super) length_size: usize,
    /// Lists of units of parameters.
    lists: Reader<'a>,
}

/// The kind of samples, from the configuration of the decoder (`av1C`, `hvcC`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Config {
    /// Bits per sample: 8, 10 or 12.
    pub(super) depth: u8,
    pub(super) is_grey: bool,
}

/// How numbers are converted to colours (H.273).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CodePoints {
    pub(super) primaries: u8,
    pub(super) transfer: u8,
    pub(super) matrix: u8,
    pub(super) is_full: bool,
}

/// The visible part of a picture, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Crop {
    pub(super) left: u32,
    pub(super) top: u32,
    pub(super) width: u32,
    pub(super) height: u32,
}

/// Quarter turns clockwise, followed by an optional flip from left to right.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Turn {
    pub(super) quarters: u8,
    pub(super) is_flipped: bool,
}

impl Turn {
    fn turned(self, quarters: u8) -> Self {
        // After a flip, turns have the opposite direction.
        let quarters = match self.is_flipped {
            true => self.quarters + 4 - quarters,
            false => self.quarters + quarters,
        };
        Self {
            quarters: quarters % 4,
            ..self
        }
    }

    fn flipped(self) -> Self {
        Self {
            is_flipped: !self.is_flipped,
            ..self
        }
    }

    /// Combines this turn with one that follows it.
    pub(super) fn then(self, after: Self) -> Self {
        let turned = self.turned(after.quarters);
        match after.is_flipped {
            true => turned.flipped(),
            false => turned,
        }
    }
}

/// Maximum number of items that describe the picture; further items are ignored.
const MAX_CANDIDATES: usize = 16;

impl<'a> Container<'a> {
    /// Reads the metadata of a file.
    pub(super) fn read(file: &'a [u8]) -> Result<Self, ImageError> {
        let format = Format::Avif;
        let mut reader = Reader::new(file);
        let mut has_track = false;
        while let Some(found) = reader.top_box()? {
            match &found.kind {
                b"meta" if found.is_truncated => return Err(ImageError::Truncated { format }),
                b"meta" => return Self::of(file, found.content),
                b"moov" if found.is_truncated => return Err(ImageError::Truncated { format }),
                b"moov" => has_track = true,
                _ => {}
            }
        }
        match has_track {
            true => Err(ImageError::variety(
                format,
                "a film without a still picture",
            )),
            false => Err(ImageError::Truncated { format }),
        }
    }

    fn of(file: &'a [u8], mut meta: Reader<'a>) -> Result<Self, ImageError> {
        meta.version()?;
        let mut primary = None;
        let mut container = Self {
            file,
            primary: 0,
            items: BTreeMap::new(),
            properties: Vec::new(),
            references: Vec::new(),
            inner_data: &[],
        };
        while let Some((kind, mut content)) = meta.inner_box()? {
            match &kind {
                b"hdlr" => {
                    content.version()?;
                    content.u32()?;
                    if content.kind()? != *b"pict" {
                        return Err(corrupt("its metadata is not that of a picture"));
                    }
                }
                b"pitm" => {
                    let (version, _) = content.version()?;
                    primary = Some(content.u16_or_u32(version > 0)?);
                }
                b"iinf" => container.read_infos(content)?,
                b"iloc" => container.read_locations(content)?,
                b"iprp" => container.read_properties(content)?,
                b"iref" => container.read_references(content)?,
                b"idat" => container.inner_data = content.rest(),
                _ => {}
            }
        }
        container.primary =
            primary.ok_or_else(|| corrupt("it does not say which item is the picture"))?;
        Ok(container)
    }

    fn read_infos(&mut self, mut list: Reader<'a>) -> Result<(), ImageError> {
        let (version, _) = list.version()?;
        list.u16_or_u32(version > 0)?;
        while let Some((kind, mut info)) = list.inner_box()? {
            let (version, _) = info.version()?;
            // Other boxes do not describe the item.
            if kind != *b"infe" || !matches!(version, 2 | 3) {
                continue;
            }
            let number = info.u16_or_u32(version == 3)?;
            let protection = info.u16()?;
            let item = self.items.entry(number).or_default();
            item.is_protected = protection != 0;
            item.kind = info.kind()?;
            // The name.
            info.text()?;
            if item.kind == *b"mime" {
                item.content_type = info.text()?;
            }
        }
        Ok(())
    }

    fn read_locations(&mut self, mut list: Reader<'a>) -> Result<(), ImageError> {
        let (version, _) = list.version()?;
        if version > 2 {
            return Err(corrupt("an unknown version of the list of locations"));
        }
        let [sizes, more] = list.u16()?.to_be_bytes();
        let (of_offset, of_length) = (sizes >> 4, sizes & 15);
        let (of_base, of_index) = (more >> 4, if version > 0 { more & 15 } else { 0 });
        let count = list.u16_or_u32(version == 2)?;
        for _ in 0..count {
            let number = list.u16_or_u32(version == 2)?;
            let method = if version > 0 { list.u16()? & 15 } else { 0 };
            let is_elsewhere = list.u16()? != 0;
            let base = list.number(of_base)?;
            let extents = list.u16()?;
            if extents > 1 && (of_offset | of_length | of_index) == 0 {
                return Err(corrupt("parts of an item without places"));
            }
            let item = self.items.entry(number).or_default();
            item.source = match method {
                _ if is_elsewhere => Source::Elsewhere,
                0 => Source::File,
                1 => Source::InnerData,
                _ => Source::Elsewhere,
            };
            for _ in 0..extents {
                list.number(of_index)?;
                let offset = base.checked_add(list.number(of_offset)?);
                let offset = offset.ok_or_else(|| corrupt("an item is beyond all bytes"))?;
                item.extents.push((offset, list.number(of_length)?));
            }
        }
        Ok(())
    }

    fn read_properties(&mut self, mut both: Reader<'a>) -> Result<(), ImageError> {
        while let Some((kind, mut content)) = both.inner_box()? {
            match &kind {
                b"ipco" => {
                    while let Some(property) = content.inner_box()? {
                        self.properties.push(property);
                    }
                }
                b"ipma" => self.read_associations(content)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn read_associations(&mut self, mut list: Reader<'a>) -> Result<(), ImageError> {
        let (version, flags) = list.version()?;
        let is_long = flags & 1 != 0;
        for _ in 0..list.u32()? {
            let number = list.u16_or_u32(version > 0)?;
            let count = list.u8()?;
            let item = self.items.entry(number).or_default();
            for _ in 0..count {
                let (index, is_essential) = match is_long {
                    true => list.u16().map(|word| (word & 0x7fff, word & 0x8000 != 0))?,
                    false => list
                        .u8()
                        .map(|byte| (u16::from(byte & 0x7f), byte & 0x80 != 0))?,
                };
                item.properties.push((index, is_essential));
            }
        }
        Ok(())
    }

    fn read_references(&mut self, mut list: Reader<'a>) -> Result<(), ImageError> {
        let (version, _) = list.version()?;
        while let Some((kind, mut content)) = list.inner_box()? {
            let from = content.u16_or_u32(version > 0)?;
            let count = content.u16()?;
            let to = (0..count).map(|_| content.u16_or_u32(version > 0));
            let to = to.collect::<Result<Vec<u32>, ImageError>>()?;
            self.references.push(Reference { kind, from, to });
        }
        Ok(())
    }

    fn item(&self, number: u32) -> Result<&Item<'a>, ImageError> {
        let item = self.items.get(&number);
        item.ok_or_else(|| corrupt("an item that the file does not have"))
    }

    /// Returns the length of the file in bytes.
    pub(super) const fn file_len(&self) -> u64 {
        self.file.len() as u64
    }

    /// Returns the kind of an item.
    ///
    /// # Errors
    /// If the item does not exist, or is encrypted.
    pub(super) fn kind(&self, number: u32) -> Result<Kind, ImageError> {
        let item = self.item(number)?;
        match item.is_protected {
            true => Err(ImageError::variety(Format::Avif, "it is encrypted")),
            false => Ok(item.kind),
        }
    }

    /// Returns the bytes of an item: at most as many as the file has.
    pub(super) fn data(&self, number: u32) -> Result<Cow<'a, [u8]>, ImageError> {
        let format = Format::Avif;
        let item = self.item(number)?;
        let source = match item.source {
            Source::File => self.file,
            Source::InnerData => self.inner_data,
            Source::Elsewhere => {
                let reason = "a part of it is in another file or item";
                return Err(ImageError::variety(format, reason));
            }
        };
        let beyond = || match item.source {
            Source::File => ImageError::Truncated { format },
            _ => corrupt("an item is beyond the data that it is in"),
        };
        let part = |&(offset, len): &(u64, u64)| {
            let start = usize::try_from(offset).ok()?;
            let from = source.get(start..)?;
            match len {
                0 => Some(from),
                len => from.get(..usize::try_from(len).ok()?),
            }
        };
        match &item.extents[..] {
            [] => Err(corrupt("an item without a place in the file")),
            [one] => part(one).map(Cow::Borrowed).ok_or_else(beyond),
            several => {
                let mut data = Vec::new();
                for extent in several {
                    let part = part(extent).ok_or_else(beyond)?;
                    if data.len() + part.len() > self.file.len() {
                        return Err(corrupt("an item is longer than the file"));
                    }
                    data.extend_from_slice(part);
                }
                Ok(Cow::Owned(data))
            }
        }
    }

    /// Returns the damage of a file that ends early: before one of its pictures does, or after its pixels. The caller
    /// has decoded the primary picture.
    pub(super) fn damage_beyond(&self) -> Option<Found> {
        let format = Format::Avif;
        let (mut has_lost_metadata, mut has_lost_pixels) = (false, false);
        for item in self.items.values().filter(|item| self.ends_before(item)) {
            match &item.kind {
                b"Exif" | b"mime" | b"uri " => has_lost_metadata = true,
                _ => has_lost_pixels = true,
            }
        }
        let film = film::is_incomplete(self.file);
        match film {
            Err(error) => Some(Found::later(error)),
            Ok(is_incomplete) if is_incomplete || has_lost_pixels => {
                Some(Found::later(ImageError::Truncated { format }))
            }
            Ok(_) => (has_lost_metadata || Reader::new(self.file).ends_early())
                .then(|| Found::after_pixels(format)),
        }
    }

    /// Returns whether the file ends before the data of an item does.
    fn ends_before(&self, item: &Item<'_>) -> bool {
        let is_beyond = |&(offset, len): &(u64, u64)| {
            let end = offset.saturating_add(len);
            end > self.file.len() as u64
        };
        item.source == Source::File && item.extents.iter().any(is_beyond)
    }

    /// Returns the items that are smaller versions of the same picture.
    pub(super) fn thumbnails_of(&self, number: u32) -> impl Iterator<Item = u32> {
        self.references_to(number, b"thmb")
    }

    /// Returns the items to which an item refers; empty if it has no references of this kind.
    pub(super) fn references_from(&self, number: u32, kind: &Kind) -> &[u32] {
        let mut references = self.references.iter();
        let found = references.find(|found| found.kind == *kind && found.from == number);
        found.map_or(&[], |found| &found.to)
    }

    /// Returns the items that refer to an item, up to [`MAX_CANDIDATES`].
    fn references_to(&self, number: u32, kind: &Kind) -> impl Iterator<Item = u32> {
        let references = self.references.iter();
        let found = references.filter(move |r| r.kind == *kind && r.to.contains(&number));
        found.map(|reference| reference.from).take(MAX_CANDIDATES)
    }

    /// Returns the item that contains the alpha of an item.
    pub(super) fn alpha_of(&self, number: u32) -> Result<Option<u32>, ImageError> {
        for auxiliary in self.references_to(number, b"auxl") {
            // An auxiliary picture may also be a depth map, with unknown properties.
            let purpose = self.first_property(auxiliary, b"auxC")?;
            let purpose = purpose.map(|mut content| {
                content.version()?;
                content.text()
            });
            if let Some(
                b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha" | b"urn:mpeg:hevc:2015:auxid:1",
            ) = purpose.transpose()?
            {
                return Ok(Some(auxiliary));
            }
        }
        Ok(None)
    }

    /// Returns EXIF and XMP of an item, each `None` if it cannot be read.
    pub(super) fn descriptions_of(&self, number: u32) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
        let (mut exif, mut xmp) = (None, None);
        for description in self.references_to(number, b"cdsc") {
            let Ok(item) = self.item(description) else {
                continue;
            };
            let is_xmp = item.kind == *b"mime" && item.content_type == b"application/rdf+xml";
            if item.kind == *b"Exif" && exif.is_none() {
                let data = self.data(description).ok();
                exif = data.and_then(|data| exif_after_offset(&data));
            } else if is_xmp && xmp.is_none() {
                xmp = self.data(description).ok().map(Cow::into_owned);
            }
        }
        (exif, xmp)
    }

    /// Returns the first property of this kind that an item has.
    pub(super) fn first_property(
        &self,
        number: u32,
        kind: &Kind,
    ) -> Result<Option<Reader<'a>>, ImageError> {
        let all = self.properties_of(number)?;
        Ok(all
            .map(|((found, content), _)| (found, content))
            .find(|(found, _)| found == kind)
            .map(|(_, content)| content))
    }

    /// Returns the properties of an item, each with whether it is essential.
    fn properties_of(
        &self,
        number: u32,
    ) -> Result<impl Iterator<Item = ((Kind, Reader<'a>), bool)>, ImageError> {
        let item = self.item(number)?;
        Ok(item.properties.iter().filter_map(|&(index, is_essential)| {
            // 0 is no property.
            let index = usize::from(index).checked_sub(1)?;
            Some((*self.properties.get(index)?, is_essential))
        }))
    }

    /// Returns width and height of the largest picture.
    pub(super) fn largest(&self) -> Option<(u32, u32)> {
        let sizes = self.properties.iter().filter(|(kind, _)| kind == b"ispe");
        let sides = sizes.filter_map(|&(_, mut content)| {
            content.version().ok()?;
            Some((content.u32().ok()?, content.u32().ok()?))
        });
        sides.max_by_key(|&(width, height)| u64::from(width) * u64::from(height))
    }

    /// Reads all properties of an item.
    ///
    /// # Errors
    /// If properties contradict each other, or an essential property is unknown.
    pub(super) fn properties(&self, number: u32) -> Result<Properties<'a>, ImageError> {
        let mut all = Properties::default();
        for ((kind, mut content), is_essential) in self.properties_of(number)? {
            match &kind {
                b"ispe" => {
                    content.version()?;
                    all.sides = Some((content.u32()?, content.u32()?));
                }
                b"av1C" => all.config = Some(Config::read(content)?),
                b"hvcC" => {
                    let (config, header) = HevcHeader::read(content)?;
                    (all.config, all.hevc) = (Some(config), Some(header));
                }
                b"colr" => match &content.kind()? {
                    b"nclx" => {
                        let [primaries, transfer, matrix] =
                            [content.u16()?, content.u16()?, content.u16()?];
                        let short = |number| u8::try_from(number).unwrap_or(u8::MAX);
                        all.code_points = Some(CodePoints {
                            primaries: short(primaries),
                            transfer: short(transfer),
                            matrix: short(matrix),
                            is_full: content.u8()? & 0x80 != 0,
                        });
                    }
                    b"prof" | b"rICC" => all.icc = Some(content.rest()),
                    _ => {}
                },
                b"clap" => {
                    if all.turn != Turn::default() || all.crop.is_some() {
                        return Err(corrupt("it is cropped twice, or after it is turned"));
                    }
                    let sides = all
                        .sides
                        .ok_or_else(|| corrupt("it is cropped before it has sides"))?;
                    all.crop = Some(Crop::read(content, sides)?);
                }
                // Counterclockwise.
                b"irot" => all.turn = all.turn.turned(4 - (content.u8()? & 3)),
                b"imir" => {
                    let turned = if content.u8()? & 1 == 0 { 2 } else { 0 };
                    all.turn = all.turn.turned(turned).flipped();
                }
                b"auxC" => {
                    content.version()?;
                    all.purpose = Some(content.text()?);
                }
                b"a1op" => {
                    all.operating_point = content.u8()?;
                    if all.operating_point > 31 {
                        return Err(corrupt("a quality that no picture can have"));
                    }
                }
                // All layers.
                b"lsel" if content.u16()? == u16::MAX => {}
                b"pixi" | b"pasp" | b"a1lx" | b"clli" | b"mdcv" | b"cclv" | b"amve" => {}
                _ if is_essential => {
                    let name = kind.escape_ascii();
                    let reason = format!("a property that must be known, {name}");
                    return Err(ImageError::variety(Format::Avif, reason));
                }
                _ => {}
            }
        }
        Ok(all)
    }
}

impl Properties<'_> {
    /// Returns the kind of samples, if the configuration belongs to the decoder for items of this kind.
    pub(super) fn config_for(&self, kind: &Kind) -> Option<Config> {
        self.config
            .filter(|_| self.hevc.is_some() == (kind == b"hvc1"))
    }
}

impl Config {
    fn read(mut content: Reader<'_>) -> Result<Self, ImageError> {
        let [first, _profile, flags] = [content.u8()?, content.u8()?, content.u8()?];
        // A marker and the version.
        if first != 0x81 {
            return Err(corrupt("an unknown version of the decoder's configuration"));
        }
        let is = |bit: u8| flags & bit != 0;
        Ok(Self {
            depth: match (is(0x40), is(0x20)) {
                (false, _) => 8,
                (true, false) => 10,
                (true, true) => 12,
            },
            is_grey: is(0x10),
        })
    }
}

impl<'a> HevcHeader<'a> {
    fn read(mut content: Reader<'a>) -> Result<(Config, Self), ImageError> {
        if content.u8()? != 1 {
            return Err(corrupt("an unknown version of the decoder's configuration"));
        }
        // Profile and level, and how decoding can be parallelised.
        content.take(15)?;
        let [chroma, luma_depth, chroma_depth] = [content.u8()?, content.u8()?, content.u8()?];
        // Frames per second.
        content.u16()?;
        let length_size = usize::from(content.u8()? & 3) + 1;
        let is_grey = chroma & 3 == 0;
        let depth = 8 + (luma_depth & 7);
        if !matches!(depth, 8 | 10 | 12) || !is_grey && luma_depth & 7 != chroma_depth & 7 {
            let reason = format!("{depth} bits per sample");
            return Err(ImageError::variety(Format::Heic, reason));
        }
        let lists = content;
        Ok((Config { depth, is_grey }, Self { length_size, lists }))
    }

    /// Calls a function with each unit of parameters. The decoder needs all units before the data.
    pub(super) fn for_each_unit(
        &self,
        mut f: impl FnMut(&'a [u8]) -> Result<(), ImageError>,
    ) -> Result<(), ImageError> {
        let mut lists = self.lists;
        for _ in 0..lists.u8()? {
            lists.u8()?;
            for _ in 0..lists.u16()? {
                let len = lists.u16()?;
                f(lists.take(len.into())?)?;
            }
        }
        Ok(())
    }
}

impl Crop {
    /// Reads the width and height of the crop, and the distance of its middle from the middle of the picture. All four
    /// numbers are fractions.
    fn read(mut content: Reader<'_>, (width, height): (u32, u32)) -> Result<Self, ImageError> {
        let [across, down, right, below] = {
            let mut fraction =
                || -> Result<(u32, u32), ImageError> { Ok((content.u32()?, content.u32()?)) };
            [fraction()?, fraction()?, fraction()?, fraction()?]
        };
        let side = |(shown, divisor): (u32, u32), (offset, parts): (u32, u32), whole: u32| {
            let shown = shown
                .checked_div(divisor)
                .filter(|side| side * divisor == shown)?;
            // (whole - visible) / 2 + offset / parts, where the offset has a sign.
            let (offset, parts) = (i64::from(offset as i32), i64::from(parts));
            let free = i64::from(whole) - i64::from(shown);
            let doubled = (2 * offset).checked_div(parts)?;
            let start = free + doubled;
            let is_even = doubled * parts == 2 * offset && start % 2 == 0;
            let start = u32::try_from(start / 2)
                .ok()
                .filter(|_| is_even && start >= 0)?;
            let is_inside = shown > 0 && u64::from(start) + u64::from(shown) <= u64::from(whole);
            is_inside.then_some((start, shown))
        };
        let horizontal = side(across, right, width);
        let vertical = side(down, below, height);
        let (Some((left, width)), Some((top, height))) = (horizontal, vertical) else {
            return Err(corrupt("the part of it that is shown is not inside"));
        };
        Ok(Self {
            left,
            top,
            width,
            height,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_crop_is_around_the_middle_and_inside() {
        let crop = |numbers: [i32; 8], sides| {
            let bytes = numbers.map(i32::to_be_bytes);
            Crop::read(Reader::new(bytes.as_flattened()), sides)
        };
        let found = crop([6, 1, 4, 2, 1, 2, -2, 2], (11, 8)).unwrap();
        assert_eq!((found.left, found.top), (3, 2));
        assert_eq!((found.width, found.height), (6, 2));
        for wrong in [
            [12, 1, 4, 1, 0, 1, 0, 1],
            [5, 2, 4, 1, 0, 1, 0, 1],
            [6, 1, 4, 1, 0, 1, 0, 1],
            [6, 0, 4, 1, 1, 2, 0, 1],
            [0, 1, 4, 1, 1, 2, 0, 1],
            [6, 1, 4, 1, -7, 2, 0, 1],
            [6, 1, 4, 1, 7, 2, 0, 1],
            [6, 1, 4, 1, 1, 0, 0, 1],
            [i32::MIN, i32::MIN, 4, 1, i32::MIN, -1, 0, 1],
        ] {
            assert!(crop(wrong, (11, 8)).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn turns_and_flips_are_combined() {
        let none = Turn::default();
        assert_eq!(none.turned(1).turned(3), none);
        assert_eq!(none.flipped().flipped(), none);
        // A quarter turn after a flip equals a quarter turn the other way before the flip.
        let both = none.flipped().turned(1);
        assert_eq!((both.quarters, both.is_flipped), (3, true));
    }
}
