//! Writes the container: takes the pictures from a file that ravif has made, and adds EXIF, XMP and a profile.

use super::super::error::ImageError;
use super::super::meta::Metadata;
use super::boxes::{Kind, corrupt};
use super::container::Container;

/// An item to write. The first item is the picture.
struct Item<'a> {
    kind: Kind,
    /// The bytes after the kind: the name, and for the kind `mime` the type of the content.
    description: &'static [u8],
    data: Vec<&'a [u8]>,
    /// The kind of the item's reference to the first item.
    reference: Option<Kind>,
    /// The numbers of the item's properties. The bit [`ESSENTIAL`] marks properties that a reader must know.
    properties: Vec<u8>,
}

const ESSENTIAL: u8 = 0x80;
/// The matrix by which ravif converts RGB to luma and chroma (H.273): that of BT.601.
const MATRIX: u8 = 6;
/// The number of bytes between the start of the item and the EXIF header: 0.
const NONE_BEFORE: [u8; 4] = [0; 4];

/// Returns a file with the pictures of `file` and with this metadata. `None` if the file would exceed 4 GiB.
///
/// # Errors
/// If `file` cannot be read.
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
            // The matrix of the encoder, and full range.
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
    // The length of the metadata does not depend on the values of the offsets.
    let len = meta(items, properties, 0)?.len();
    let offset = start.len() + len + 8;
    let meta = meta(items, properties, offset)?;
    let data: Vec<&[u8]> = items.iter().flat_map(|item| item.data.clone()).collect();
    Some([start, meta, boxed(b"mdat", &data)?].concat())
}

/// Builds the metadata box, for data that begins at `offset`.
fn meta(items: &[Item<'_>], properties: &[u8], offset: usize) -> Option<Vec<u8>> {
    const FULL: &[u8] = &[0; 4];
    let count = u16::try_from(items.len()).ok()?;
    let count = count.to_be_bytes();
    // Offsets and lengths have four bytes, and there is no base offset.
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
        // The data is in this file, in one extent.
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
