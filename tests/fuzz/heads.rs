//! Finds the headers of a file: what tells how to read the rest. Elsewhere one bit is much like another.
#![allow(
    clippy::single_range_in_vec_init,
    reason = "a list of ranges is meant, and may have one"
)]

use std::ops::Range;

/// Length taken for the header where the format does not tell more.
pub const USUAL: usize = 160;

/// The headers of a well-formed file of any format; at least one, and none is empty unless the file is.
pub fn heads(file: &[u8]) -> Vec<Range<usize>> {
    let heads = match file {
        [0xff, 0xd8, ..] => jpeg(file),
        [0x89, b'P', b'N', b'G', ..] => png(file),
        [b'G', b'I', b'F', ..] => gif(file),
        [b'I', b'I', 42, 0, ..] => tiff(file),
        // The place of the preview is at the end.
        [b'F', b'U', b'J', b'I', ..] => Some(vec![0..file.len().min(100)]),
        [b'B', b'M', ..] => bmp(file),
        [b'R', b'I', b'F', b'F', ..] => webp(file),
        [_, _, _, _, b'f', b't', b'y', b'p', ..] => avif(file),
        // Numbers in digits, of PAM with words.
        [b'P', b'7', ..] => {
            let end = file.windows(7).position(|line| line == b"ENDHDR\n");
            end.map(|end| vec![0..end + 7])
        }
        [b'P', b'1'..=b'6', ..] => Some(vec![0..file.len().min(16)]),
        [b'q', b'o', b'i', b'f', ..] => Some(vec![0..file.len().min(14)]),
        // TGA, which has no signature.
        [0, 0, 2 | 10, 0, ..] => Some(vec![0..file.len().min(18)]),
        [0, 0, 1, 0, ..] => icon(file),
        _ => None,
    };
    let usual = || vec![0..file.len().min(USUAL)];
    heads.unwrap_or_else(usual)
}

fn u16_le(file: &[u8], at: usize) -> Option<usize> {
    let bytes = file.get(at..at + 2)?;
    Some(u16::from_le_bytes(bytes.try_into().ok()?).into())
}

fn u32_le(file: &[u8], at: usize) -> Option<usize> {
    let bytes = file.get(at..at + 4)?;
    usize::try_from(u32::from_le_bytes(bytes.try_into().ok()?)).ok()
}

/// The header, an entry, and the headers of the PNG that follows it.
fn icon(file: &[u8]) -> Option<Vec<Range<usize>>> {
    const ENTRY: usize = 6 + 16;
    let inner = png(file.get(ENTRY..)?)?.into_iter();
    let inner = inner.map(|head| head.start + ENTRY..head.end + ENTRY);
    Some([0..ENTRY].into_iter().chain(inner).collect())
}

/// All boxes up to that with the pixels.
fn avif(file: &[u8]) -> Option<Vec<Range<usize>>> {
    let mut at = 0;
    while file.get(at + 4..at + 8)? != b"mdat" {
        at += u32::from_be_bytes(file[at..at + 4].try_into().ok()?) as usize;
    }
    Some(vec![0..at])
}

/// All segments up to the first scan, whose own header is the last.
fn jpeg(file: &[u8]) -> Option<Vec<Range<usize>>> {
    let mut at = 2;
    loop {
        let [0xff, marker, high, low] = *file.get(at..at + 4)? else {
            return None;
        };
        at += 2 + usize::from(u16::from_be_bytes([high, low]));
        if marker == 0xda {
            return (at <= file.len()).then(|| vec![0..at]);
        }
    }
}

/// All chunks, and the start of those with pixels, which describes the packing.
fn png(file: &[u8]) -> Option<Vec<Range<usize>>> {
    let mut heads = Vec::from([0..8]);
    let mut at = 8;
    while at < file.len() {
        let len = u32::from_be_bytes(file.get(at..at + 4)?.try_into().ok()?) as usize;
        let whole = file.get(at + 4..at + 8)? != b"IDAT";
        heads.push(at..at + 12 + if whole { len } else { len.min(100) });
        at += 12 + len;
    }
    heads
        .iter()
        .all(|head| head.end <= file.len())
        .then_some(heads)
}

/// All but the colours and the packed pixels.
fn gif(file: &[u8]) -> Option<Vec<Range<usize>>> {
    let colours = |flags: u8| match flags & 0x80 {
        0 => 0,
        _ => 3 << (1 + (flags & 7)),
    };
    let mut heads = Vec::from([0..13]);
    let mut at = 13 + colours(*file.get(10)?);
    loop {
        let start = at;
        match *file.get(at)? {
            0x21 => {
                at += 2;
                while *file.get(at)? != 0 {
                    at += 1 + usize::from(file[at]);
                }
                at += 1;
                heads.push(start..at);
            }
            0x2c => {
                heads.push(start..start + 10);
                at += 10 + colours(*file.get(at + 9)?);
                // The lengths of the codes, and the number of bytes that follow.
                heads.push(at..at + 2);
                at += 1;
                while *file.get(at)? != 0 {
                    at += 1 + usize::from(file[at]);
                }
                at += 1;
            }
            0x3b => {
                heads.push(at..at + 1);
                return Some(heads);
            }
            _ => return None,
        }
    }
}

/// The first eight bytes, each directory, and what its entries keep elsewhere, except for the pixels.
fn tiff(file: &[u8]) -> Option<Vec<Range<usize>>> {
    const SIZES: [usize; 13] = [0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8];
    let mut heads = Vec::from([0..8]);
    let mut at = u32_le(file, 4)?;
    while at != 0 {
        let entries = u16_le(file, at)?;
        let end = at + 2 + entries * 12 + 4;
        heads.push(at..end);
        for entry in (at + 2..end - 4).step_by(12) {
            let (kind, count) = (u16_le(file, entry + 2)?, u32_le(file, entry + 4)?);
            let bytes = SIZES.get(kind)? * count;
            if bytes > 4 {
                let elsewhere = u32_le(file, entry + 8)?;
                heads.push(elsewhere..elsewhere + bytes);
            }
        }
        at = u32_le(file, end - 4)?;
    }
    heads
        .iter()
        .all(|head| head.end <= file.len())
        .then_some(heads)
}

/// The header and a few of the colours, since their end is given elsewhere.
fn bmp(file: &[u8]) -> Option<Vec<Range<usize>>> {
    let header = 14 + u32_le(file, 14)?;
    (header + 8 <= file.len()).then(|| vec![0..header + 8])
}

/// Of each chunk its name and length and the start of its content, which includes the frame's header.
fn webp(file: &[u8]) -> Option<Vec<Range<usize>>> {
    let mut heads = Vec::from([0..12]);
    let mut at = 12;
    while at < file.len() {
        let len = u32_le(file, at + 4)?;
        heads.push(at..at + 8 + len.min(100));
        at += 8 + len.next_multiple_of(2);
    }
    heads
        .iter()
        .all(|head| head.end <= file.len())
        .then_some(heads)
}
