//! What stands beside the pixels of a WebP. Its decoder asks for as much memory as a chunk says that it has, before it looks
//! whether the file goes on that far: four gigabytes for a hundred bytes.

pub(super) const EXIF: &[u8; 4] = b"EXIF";
pub(super) const XMP: &[u8; 4] = b"XMP ";
pub(super) const ICC: &[u8; 4] = b"ICCP";

/// The file's own header: a chunk of all the others, with a kind of its own.
const HEADER: usize = 4 + 4 + 4;

/// The chunks of the outermost level: kind, and the data if all of it is there.
fn chunks(file: &[u8]) -> impl Iterator<Item = ([u8; 4], Option<&[u8]>)> {
    let mut rest = file.get(HEADER..).unwrap_or_default();
    std::iter::from_fn(move || {
        let (&[k0, k1, k2, k3, a, b, c, d], behind) = rest.split_first_chunk::<8>()?;
        let len = u32::from_le_bytes([a, b, c, d]) as usize;
        // They begin at even places.
        let whole = len.saturating_add(len % 2).min(behind.len());
        rest = &behind[whole..];
        Some(([k0, k1, k2, k3], behind.get(..len)))
    })
}

/// The first chunk of this kind, where the file is an extended one, and that chunk is whole.
pub(super) fn bytes_of(file: &[u8], kind: &[u8; 4]) -> Option<Vec<u8>> {
    let mut chunks = chunks(file);
    let (first, _) = chunks.next()?;
    if first != *b"VP8X" {
        return None;
    }
    let (_, data) = chunks.find(|(found, _)| found == kind)?;
    data.map(<[u8]>::to_vec)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(kind: &[u8; 4], len: u32, data: &[u8]) -> Vec<u8> {
        [kind, &len.to_le_bytes()[..], data].concat()
    }

    fn file(chunks: &[Vec<u8>]) -> Vec<u8> {
        [b"RIFF\xff\0\0\0WEBP", &chunks.concat()[..]].concat()
    }

    #[test]
    fn the_first_whole_chunk_is_taken() {
        let header = chunk(b"VP8X", 10, &[0; 10]);
        let odd = chunk(b"ICCP", 3, b"abc\0");
        let exif = chunk(EXIF, 4, b"exif");
        let second = chunk(EXIF, 4, b"more");
        let all = file(&[header.clone(), odd, exif.clone(), second]);
        assert_eq!(bytes_of(&all, ICC).as_deref(), Some(&b"abc"[..]));
        assert_eq!(bytes_of(&all, EXIF).as_deref(), Some(&b"exif"[..]));
        assert_eq!(bytes_of(&all, XMP), None);
        let simple = file(&[chunk(b"VP8L", 10, &[0; 10]), exif]);
        assert_eq!(bytes_of(&simple, EXIF), None, "not an extended file");
        for len in [5, u32::MAX] {
            let torn = file(&[header.clone(), chunk(EXIF, len, b"exif")]);
            assert_eq!(bytes_of(&torn, EXIF), None, "{len} bytes");
        }
        for end in 0..all.len() {
            bytes_of(&all[..end], XMP);
        }
    }
}
