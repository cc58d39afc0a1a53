//! Writing of the container: the pictures of a file by ravif, with EXIF, XMP and a profile.

use super::super::error::ImageError;
use super::super::meta::Metadata;
use super::boxes::{Kind, corrupt};
use super::container::Container;

/// An item to write. The first one is the picture.
struct Item<'a> {
    kind: Kind,
    /// What follows the kind: the name, and the type of the content if the kind is `mime`.
    description: &'static [u8],
    data: Vec<&'a [u8]>,
    /// How it refers to the first item.
    reference: Option<Kind>,
    /// Numbers of its properties, of which a reader must know those with the bit [`ESSENTIAL`].
    properties: Vec<u8>,
}

const ESSENTIAL: u8 = 0x80;
/// How ravif makes luma and chroma of RGB (H.273): as BT.601.
const MATRIX: u8 = 6;
/// Bytes between the start of EXIF in its item and its header: none.
const NONE_BEFORE: [u8; 4] = [0; 4];

/// A file with the pictures of another one, and with this metadata. `None` beyond 4 GiB.
///
/// # Errors
/// If the other file cannot be read.
pub(super) fn with_metadata(
    file: &[u8],
    metadata: &Metadata,
) -> Result<Option<Vec<u8>>, ImageError> {
    let container = Container::read(file)?;
    let alpha = container.alpha_of(container.primary)?;
    let mut properties = Vec::new();
    let mut add = |kind: &Kind, content: &[&[u8]]| -> Option<u8> {
        properties.push(boxed(kind, content)?);
        u8::try_from(properties.len()).ok()
    };
    let mut items = Vec::new();
    let mut datas = vec![container.data(container.primary)?];
    if let Some(alpha) = alpha {
        datas.push(container.data(alpha)?);
    }
    for (number, data) in std::iter::once(container.primary).chain(alpha).zip(&datas) {
        let mut uses = Vec::new();
        for kind in [b"ispe", b"av1C", b"pixi", b"auxC"] {
            let Some(content) = container.first_property(number, kind)? else {
                continue;
            };
            let essential = if kind == b"av1C" { ESSENTIAL } else { 0 };
            uses.extend(add(kind, &[content.rest()]).map(|index| index | essential));
        }
        if let (true, Some(icc)) = (items.is_empty(), &metadata.icc) {
            uses.extend(add(b"colr", &[b"prof", icc]));
        }
        if let (true, Some(hdr)) = (items.is_empty(), metadata.hdr) {
            // The matrix is that of the encoder, and all numbers are in use.
            let points = [0, hdr.primaries, 0, hdr.transfer(), 0, MATRIX, 0x80];
            uses.extend(add(b"colr", &[b"nclx", &points]));
        }
        items.push(Item {
            kind: *b"av01",
            description: b"\0",
            data: vec![&**data],
            reference: (!items.is_empty()).then_some(*b"auxl"),
            properties: uses,
        });
    }
    if let Some(exif) = &metadata.exif {
        items.push(Item {
            kind: *b"Exif",
            description: b"\0",
            data: vec![&NONE_BEFORE, exif],
            reference: Some(*b"cdsc"),
            properties: Vec::new(),
        });
    }
    if let Some(xmp) = &metadata.xmp {
        items.push(Item {
            kind: *b"mime",
            description: b"\0application/rdf+xml\0",
            data: vec![xmp],
            reference: Some(*b"cdsc"),
            properties: Vec::new(),
        });
    }
    if items.is_empty() || properties.is_empty() {
        return Err(corrupt("the encoder wrote no picture"));
    }
    Ok(written(&items, &properties.concat()))
}

fn written(items: &[Item<'_>], properties: &[u8]) -> Option<Vec<u8>> {
    let start = boxed(b"ftyp", &[b"avif\0\0\0\0avifmif1miaf"])?;
    // Offsets have the same length whatever they are.
    let len = meta(items, properties, 0)?.len();
    let offset = start.len() + len + 8;
    let meta = meta(items, properties, offset)?;
    let data: Vec<&[u8]> = items.iter().flat_map(|item| item.data.clone()).collect();
    Some([start, meta, boxed(b"mdat", &data)?].concat())
}

/// The metadata, for data from this offset on.
fn meta(items: &[Item<'_>], properties: &[u8], offset: usize) -> Option<Vec<u8>> {
    const FULL: &[u8] = &[0; 4];
    let count = u16::try_from(items.len()).ok()?;
    let count = count.to_be_bytes();
    // Offsets and lengths of four bytes, and no base.
    let mut locations = [FULL, &[0x44, 0], &count].concat();
    let mut infos = [FULL, &count].concat();
    let mut uses = FULL.to_vec();
    let mut references = FULL.to_vec();
    let described = items.iter().filter(|item| !item.properties.is_empty());
    uses.extend(u32::try_from(described.count()).ok()?.to_be_bytes());
    let mut offset = u32::try_from(offset).ok()?;
    for (number, item) in (1u16..).zip(items) {
        let number = number.to_be_bytes();
        let len: usize = item.data.iter().map(|part| part.len()).sum();
        let len = u32::try_from(len).ok()?;
        // In this file, in one part.
        locations.extend([&number[..], &[0, 0, 0, 1], &offset.to_be_bytes()].concat());
        locations.extend(len.to_be_bytes());
        offset = offset.checked_add(len)?;
        let info: [&[u8]; 5] = [
            &[2, 0, 0, 0],
            &number,
            &[0, 0],
            &item.kind,
            item.description,
        ];
        infos.extend(boxed(b"infe", &info)?);
        if !item.properties.is_empty() {
            uses.extend(number);
            uses.push(u8::try_from(item.properties.len()).ok()?);
            uses.extend(&item.properties);
        }
        if let Some(kind) = &item.reference {
            references.extend(boxed(kind, &[&number, &[0, 1, 0, 1]])?);
        }
    }
    let associated = [boxed(b"ipco", &[properties])?, boxed(b"ipma", &[&uses])?];
    let parts = [
        boxed(b"hdlr", &[FULL, b"\0\0\0\0pict", &[0; 12], b"\0"])?,
        boxed(b"pitm", &[FULL, &[0, 1]])?,
        boxed(b"iloc", &[&locations])?,
        boxed(b"iinf", &[&infos])?,
        boxed(b"iref", &[&references])?,
        boxed(b"iprp", &[&associated.concat()])?,
    ];
    boxed(b"meta", &[FULL, &parts.concat()])
}

fn boxed(kind: &Kind, content: &[&[u8]]) -> Option<Vec<u8>> {
    let len: usize = content.iter().map(|part| part.len()).sum();
    let len = u32::try_from(len.checked_add(8)?).ok()?;
    Some([&len.to_be_bytes()[..], kind, &content.concat()].concat())
}
