//! Repairs restart markers. libjpeg would resynchronize at wrong markers, and lose pixels that the file has.

use super::super::damage::Found;
use super::super::error::ImageError;
use super::super::format::Format;
use super::markers::segments;

/// Returns the file with its restart markers in order, if they can be repaired: they are announced but absent, or
/// complete but numbered wrongly. `mcus` is the number of MCUs of the only scan.
///
/// An encoder that numbers wrongly does so by a rule: it counts from another number, or does not count. Other numbers
/// may mean that intervals were moved, and their pixels with them.
pub(super) fn repaired(input: &[u8], mcus: usize) -> Option<(Vec<u8>, Found)> {
    let mut interval = None;
    let mut scan = None;
    for segment in segments(input) {
        match segment.marker {
            // The value comes after marker and length.
            0xdd => interval = Some((segment.end.checked_sub(2)?, segment.content)),
            0xda => {
                scan = Some(segment.end);
                break;
            }
            _ => {}
        }
    }
    let (place, content) = interval?;
    let every = usize::from(u16::from_be_bytes(content.try_into().ok()?));
    let start = scan.filter(|_| every > 0)?;
    let mut markers = Vec::new();
    let mut at = start;
    while let Some(found) = input.get(at..)?.iter().position(|&byte| byte == 0xff) {
        at += found + 1;
        match input.get(at) {
            Some(0xd0..=0xd7) => markers.push(at),
            // A stuffed zero or a fill byte.
            Some(0x00 | 0xff) => {}
            _ => break,
        }
    }
    let corrupt = |reason| ImageError::corrupt(Format::Jpeg, reason);
    let mut found = Found::around(corrupt("its restart markers are missing"));
    let mut file = input.to_vec();
    if markers.is_empty() {
        file.get_mut(place..place + 2)?.fill(0);
    } else if markers.len() == mcus.div_ceil(every) - 1 {
        let step = |pair: &[usize]| input[pair[1]].wrapping_sub(input[pair[0]]) % 8;
        let mut steps = markers.windows(2).map(step);
        let first = steps.next().unwrap_or(0);
        let error = corrupt("its restart markers are out of order");
        found = match first <= 1 && steps.all(|step| step == first) {
            true => Found::around(error),
            false => Found::doubtful(error),
        };
        for (number, &at) in markers.iter().enumerate() {
            file[at] = 0xd0 + (number % 8) as u8;
        }
    }
    (file != input).then_some((file, found))
}
