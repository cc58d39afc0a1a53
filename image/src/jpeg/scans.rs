//! How a JPEG is cut into scans, by walking its markers.

/// The scans of a JPEG.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scans {
    /// Sequential, and the first scan holds all components: there are no others to wait for.
    AllInOne,
    /// Progressive, or one scan per component: so many of them are in the file.
    Several(usize),
}

/// The scans of a file; it is walked until there are more than `most`, and not at all behind the
/// first scan if that holds everything, as most photos' does.
pub(super) fn count(input: &[u8], most: usize) -> Scans {
    let mut at = 2;
    let mut scans = 0;
    let mut components = None;
    while let Some((marker, segment)) = next_marker(input, &mut at) {
        match marker {
            // End of image.
            0xd9 => break,
            // Frame headers: 0xc4, 0xc8 and 0xcc are tables, not frames.
            0xc0..=0xcf if !matches!(marker, 0xc4 | 0xc8 | 0xcc) => {
                let sequential = matches!(marker, 0xc0 | 0xc1);
                components = sequential.then(|| segment.get(5).copied()).flatten();
            }
            0xda if components.is_some() && segment.first() == components.as_ref() => {
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

/// The next marker and its segment's content; `at` moves behind both. Entropy-coded bytes are skipped.
fn next_marker<'a>(input: &'a [u8], at: &mut usize) -> Option<(u8, &'a [u8])> {
    loop {
        let rest = input.get(*at..)?;
        *at += rest.iter().position(|&byte| byte == 0xff)?;
        match input.get(*at + 1)? {
            // A stuffed zero, or a restart marker: still inside a scan.
            0x00 | 0xd0..=0xd7 => *at += 2,
            // Fill bytes, each of which may begin the marker.
            0xff => *at += 1,
            // Markers without a segment: start and end of image, TEM.
            &marker @ (0xd8 | 0xd9 | 0x01) => {
                *at += 2;
                return Some((marker, &[]));
            }
            &marker => {
                let bytes = input.get(*at + 2..*at + 4)?;
                let length = usize::from(u16::from_be_bytes([bytes[0], bytes[1]])).max(2);
                let segment = input.get(*at + 4..(*at + 2 + length).min(input.len()));
                *at += 2 + length;
                return Some((marker, segment.unwrap_or_default()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Scans, count};

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
}
