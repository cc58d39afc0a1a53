//! The tracks of an animation (ISO/IEC 14496-12): whether all of its pictures are in the file. They are not decoded.

use super::super::error::ImageError;
use super::boxes::{Kind, Reader, TopBox};

/// The brands of files that have tracks: animations in AVIF, and in HEIF.
const BRANDS: [&[u8]; 2] = [b"avis", b"msf1"];

/// Returns whether a file ends before its tracks, or a picture in them, do.
///
/// # Errors
/// If the tables of the tracks cannot be read.
pub(super) fn is_incomplete(file: &[u8]) -> Result<bool, ImageError> {
    let mut reader = Reader::new(file);
    let (mut tracks, mut has_brand, mut has_fragments) = (None::<TopBox<'_>>, false, false);
    while let Ok(Some(found)) = reader.top_box() {
        match &found.kind {
            b"ftyp" => {
                let mut brands = found.content.rest().chunks(4);
                has_brand = brands.any(|brand| BRANDS.contains(&brand));
            }
            b"moov" => tracks = Some(found),
            b"moof" => has_fragments = true,
            _ => {}
        }
    }
    match tracks {
        None => Ok(has_brand),
        Some(tracks) if tracks.is_truncated => Ok(true),
        // The tables of fragments are in front of their pictures, one after the other.
        Some(_) if has_fragments => Ok(Reader::new(file).ends_early()),
        Some(tracks) => Ok(end_of(tracks.content, &PATH)? > file.len() as u64),
    }
}

/// The boxes around the tables of a track, from outside to inside.
const PATH: [&Kind; 4] = [b"trak", b"mdia", b"minf", b"stbl"];

/// Returns the offset in the file at which the last sample in all boxes at the end of `path` ends.
fn end_of(mut parent: Reader<'_>, path: &[&Kind]) -> Result<u64, ImageError> {
    let Some((&next, path)) = path.split_first() else {
        return end_of_samples(parent);
    };
    let mut end = 0;
    while let Some((kind, content)) = parent.inner_box()? {
        if kind == *next {
            end = end.max(end_of(content, path)?);
        }
    }
    Ok(end)
}

/// Returns the offset in the file at which the last sample of a track ends. Samples are stored in chunks.
fn end_of_samples(mut tables: Reader<'_>) -> Result<u64, ImageError> {
    let empty = || Reader::new(&[0; 12]);
    let (mut sizes, mut runs, mut chunks, mut is_long) = (empty(), empty(), empty(), false);
    while let Some((kind, content)) = tables.inner_box()? {
        match &kind {
            b"stsz" => sizes = content,
            b"stsc" => runs = content,
            b"stco" => chunks = content,
            b"co64" => (chunks, is_long) = (content, true),
            _ => {}
        }
    }
    for table in [&mut sizes, &mut runs, &mut chunks] {
        table.version()?;
    }
    // 0 if each sample has its own size.
    let size = u64::from(sizes.u32()?);
    let mut samples = sizes.u32()?;
    let mut runs_left = runs.u32()?;
    // The number of the first chunk of the next run, and the number of samples in each of its chunks.
    let mut run = || -> Result<Option<(u32, u32)>, ImageError> {
        let Some(left) = runs_left.checked_sub(1) else {
            return Ok(None);
        };
        runs_left = left;
        let found = (runs.u32()?, runs.u32()?);
        runs.u32()?;
        Ok(Some(found))
    };
    let (mut next, mut in_chunk, mut end) = (run()?, 0, 0);
    for number in 1..=chunks.u32()? {
        while let Some((_, count)) = next.filter(|&(first, _)| first <= number) {
            (in_chunk, next) = (count, run()?);
        }
        let count = in_chunk.min(samples);
        samples -= count;
        let mut len = size.saturating_mul(count.into());
        for _ in 0..if size == 0 { count } else { 0 } {
            len += u64::from(sizes.u32()?);
        }
        let offset = match is_long {
            true => chunks.u64()?,
            false => chunks.u32()?.into(),
        };
        end = end.max(offset.saturating_add(len));
    }
    Ok(end)
}
