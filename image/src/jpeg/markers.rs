//! The markers of a JPEG, and its division into scans.

/// A marker with its segment.
#[derive(Debug)]
pub(super) struct Segment<'a> {
    /// The second byte of the marker.
    pub(super) marker: u8,
    /// The content after the length, as far as the file contains it. Empty for markers without a segment.
    pub(super) content: &'a [u8],
    /// Whether the marker has a complete segment and follows the previous segment directly or after fill bytes.
    pub(super) is_regular: bool,
    /// The offset after the segment.
    pub(super) end: usize,
}

/// Returns the segments after the start of image. Skips other bytes, such as entropy-coded data.
pub(super) fn segments(input: &[u8]) -> impl Iterator<Item = Segment<'_>> {
    let mut at = 2;
    std::iter::from_fn(move || {
        let mut follows = true;
        loop {
            let skipped = input.get(at..)?.iter().position(|&byte| byte == 0xff)?;
            follows &= skipped == 0;
            at += skipped;
            match *input.get(at + 1)? {
                // Inside a scan: a stuffed zero, or a restart marker.
                0x00 | 0xd0..=0xd7 => (at, follows) = (at + 2, false),
                // A fill byte: the next byte may start the marker.
                0xff => at += 1,
                marker => {
                    let start = at + 2;
                    at = match marker {
                        // Markers without a segment: start and end of image, TEM.
                        0xd8 | 0xd9 | 0x01 => start,
                        _ => {
                            start
                                + usize::from(u16::from_be_bytes(
                                    *input.get(start..)?.first_chunk()?,
                                ))
                        }
                    };
                    let content = input.get(start + 2..at.min(input.len()));
                    return Some(Segment {
                        marker,
                        content: content.unwrap_or_default(),
                        is_regular: follows && (start + 2..=input.len()).contains(&at),
                        end: at,
                    });
                }
            }
        }
    })
}

/// Returns whether a marker begins the header of a frame. 0xc4, 0xc8 and 0xcc begin tables.
pub(super) const fn is_frame(marker: u8) -> bool {
    matches!(marker, 0xc0..=0xcf) && !matches!(marker, 0xc4 | 0xc8 | 0xcc)
}

/// Returns whether the file ends before its first scan, or inside a segment, without an end marker.
pub(super) fn ends_in_segments(input: &[u8]) -> bool {
    let mut has_scan = false;
    for segment in segments(input) {
        match segment.marker {
            0xd9 => return false,
            _ if segment.end > input.len() => return !input.ends_with(&[0xff, 0xd9]),
            marker => has_scan |= marker == 0xda,
        }
    }
    // A marker whose segment has not even its length.
    let end = &input[input.len().saturating_sub(3)..];
    let begins_segment =
        |pair: &[u8]| pair[0] == 0xff && !matches!(pair[1], 0 | 0xd0..=0xd7 | 0xff);
    !has_scan || end.windows(2).any(begins_segment)
}

/// Returns whether an end marker follows the header of the first scan.
pub(super) fn has_end(input: &[u8]) -> bool {
    let scan = segments(input).find(|segment| segment.marker == 0xda);
    let data = scan.and_then(|scan| input.get(scan.end..));
    // Usually the last two bytes.
    data.is_some_and(|data| data.windows(2).rev().any(|two| two == [0xff, 0xd9]))
}

/// Returns whether the header leaves the height to a marker after the pixels (DNL), which libjpeg does not support.
pub(super) fn has_late_height(input: &[u8]) -> bool {
    let mut lacks_height = false;
    segments(input).any(|segment| match (segment.marker, segment.content) {
        (marker, [_, 0, 0, width @ ..]) if is_frame(marker) => {
            lacks_height = width.iter().take(2).any(|&byte| byte > 0);
            false
        }
        (0xdc, content) => lacks_height && content.iter().any(|&byte| byte > 0),
        _ => false,
    })
}

/// The maximum number of zeros before a marker that count as padding: some encoders align markers, to 16 bytes at most.
pub(super) const MAX_PADDING: usize = 15;

/// Returns the number of zeros that pad the data of scans before markers, restart markers included.
pub(super) fn padding(input: &[u8]) -> usize {
    let scans = segments(input).filter(|segment| segment.marker == 0xda);
    let data = scans.filter_map(|scan| input.get(scan.end..));
    data.map(padding_of_scan).sum()
}

/// Data without padding may end in a zero as well. So zeros before restart markers count only if at least half of these
/// markers have some.
fn padding_of_scan(mut data: &[u8]) -> usize {
    let is_marker = |two: &[u8]| two[0] == 0xff && !matches!(two[1], 0 | 0xff);
    // For each interval that is not empty.
    let mut padding: Vec<u8> = Vec::new();
    while let Some(end) = data.windows(2).position(is_marker) {
        let is_fill = |byte: &&u8| **byte == 0xff;
        let fill = data[..end].iter().rev().take_while(is_fill).count();
        let interval = &data[..end - fill];
        let is_zero = |byte: &&u8| **byte == 0;
        let zeros = interval.iter().rev().take_while(is_zero).count();
        // The zero after 0xff is stuffed.
        let stuffed = zeros > 0 && interval[..interval.len() - zeros].ends_with(&[0xff]);
        let zeros = zeros - usize::from(stuffed);
        if !interval.is_empty() {
            padding.push(if zeros > MAX_PADDING { 0 } else { zeros as u8 });
        }
        if !matches!(data[end + 1], 0xd0..=0xd7) {
            break;
        }
        data = &data[end + 2..];
    }
    let last = padding.pop().unwrap_or_default();
    let padded = padding.iter().filter(|&&zeros| zeros > 0).count();
    let others = padding.iter().filter(|_| 2 * padded >= padding.len());
    others.chain([&last]).map(|&zeros| usize::from(zeros)).sum()
}

/// The scans of a JPEG.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scans {
    /// Sequential, and the first scan has all components: no other scan follows.
    AllInOne,
    /// Progressive, or one scan per component; with the number of scans.
    Several(usize),
}

/// Counts the scans of a file, at most up to `most` + 1. Stops at the first scan if it has all components, as in most
/// photos.
pub(super) fn count_scans(input: &[u8], most: usize) -> Scans {
    let mut scans = 0;
    let mut components = None;
    for segment in segments(input) {
        let content = segment.content;
        match segment.marker {
            // End of image.
            0xd9 => break,
            marker if is_frame(marker) => {
                let sequential = matches!(segment.marker, 0xc0 | 0xc1);
                components = sequential.then(|| content.get(5).copied()).flatten();
            }
            0xda if components.is_some() && content.first() == components.as_ref() => {
                return Scans::AllInOne;
            }
            0xda => {
                scans += 1;
                if scans > most {
                    break;
                }
            }
            _ => {}
        }
    }
    Scans::Several(scans)
}

#[cfg(test)]
mod tests {
    use super::{Scans, count_scans as count};

    fn segment(marker: u8, content: &[u8]) -> Vec<u8> {
        let length = (content.len() as u16 + 2).to_be_bytes();
        [&[0xff, marker], &length[..], content].concat()
    }

    #[test]
    fn counts_scans_and_stops_early() {
        let progressive = segment(0xc2, &[8, 0, 8, 0, 8, 3]);
        let scan = [
            segment(0xda, &[1, 0, 0]),
            vec![1, 2, 0xff, 0, 3, 0xff, 0xd0, 4],
        ]
        .concat();
        let mut file = [&[0xff, 0xd8][..], &progressive].concat();
        for _ in 0..5 {
            file.extend_from_slice(&scan);
        }
        file.extend_from_slice(&[0xff, 0xd9, 0xff, 0xda, 0, 2]);
        assert_eq!(count(&file, 100), Scans::Several(5));
        assert_eq!(count(&file, 3), Scans::Several(4));
        for end in 0..file.len() {
            assert!(matches!(count(&file[..end], 100), Scans::Several(0..=5)));
        }

        let baseline = segment(0xc0, &[8, 0, 8, 0, 8, 3]);
        let all = segment(0xda, &[3, 0, 0]);
        let file = [&[0xff, 0xd8][..], &baseline, &all, &all].concat();
        assert_eq!(count(&file, 100), Scans::AllInOne);
        let file = [&[0xff, 0xd8][..], &baseline, &scan, &scan, &scan].concat();
        assert_eq!(count(&file, 100), Scans::Several(3));
    }

    #[test]
    fn zeros_before_few_of_many_restart_markers_are_no_padding() {
        let file = |zeros: [usize; 6]| {
            let mut file = [&[0xff, 0xd8][..], &segment(0xda, &[1, 0, 0])].concat();
            for (number, zeros) in (0..6).zip(zeros) {
                file.extend([0x5a, 0xff, 0, 0x5a]);
                file.extend(vec![0; zeros]);
                file.extend([0xff, 0xd0 + number]);
            }
            file.truncate(file.len() - 2);
            [&file[..], &[0xff, 0xff, 0xd9]].concat()
        };
        assert_eq!(super::padding(&file([3, 0, 9, 15, 0, 2])), 29);
        assert_eq!(super::padding(&file([3, 0, 9, 16, 5, 2])), 19);
        // Data may end in a zero.
        assert_eq!(super::padding(&file([1, 0, 0, 0, 1, 2])), 2);
    }
}
