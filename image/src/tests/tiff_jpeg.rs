//! JPEG inside TIFF.

use super::formats::tiff;
use super::*;

#[test]
fn a_jpeg_inside_a_tiff_is_damaged_if_bytes_are_left_over() {
    let grey = Pixels {
        width: 64,
        height: 48,
        color: Color::Gray,
        samples: Samples::Eight((0..64 * 48).map(|i| (i % 64) as u8 * 4).collect()),
    };
    let mut strip = encode(grey, Format::Jpeg, 95).unwrap();
    strip.splice(strip.len() - 2..strip.len() - 2, [7; 40]);
    let file = tiff((64, 48), 1, (7, 0), &strip);
    for fail_on in [FailOn::Error, FailOn::None] {
        let spec = ResizeSpec {
            fail_on,
            ..ResizeSpec::full_size()
        };
        match check(&file, &spec) {
            Ok(checked) => {
                assert_eq!(fail_on, FailOn::None);
                let text = checked.damage.unwrap().text;
                assert!(text.contains("pixels may be wrong"), "{text}");
            }
            Err(error) => assert!(fail_on == FailOn::Error && error.proves_damage(), "{error}"),
        }
    }
}

/// The JPEG that the directory names has the headers of all strips, or is the first strip. libtiff reads most such
/// files by joining the strips.
#[test]
fn a_jpeg_of_the_old_style_in_strips_is_unsupported_not_damaged() {
    let photo = waves(64, 48);
    let stream = jpeg(&photo);
    let scan = stream
        .windows(2)
        .position(|two| two == b"\xff\xda")
        .unwrap();
    let data = scan + 2 + usize::from(u16::from_be_bytes([stream[scan + 2], stream[scan + 3]]));
    let end = stream.len() as u32;
    let first_rows = jpeg(&waves(64, 16));
    let [both, one] = [[&first_rows[..], &first_rows].concat(), first_rows];
    let half = one.len() as u32;
    let ended = [&stream[..scan], b"\xff\xd9", &stream[scan..]].concat();
    // The bytes, the place and length of the JPEG that the directory names, and those of the strips.
    type Place = (u32, u32);
    let data = data as u32;
    let cases: [(&[u8], Place, Place); 7] = [
        (&stream, (0, scan as u32), (scan as u32, end - scan as u32)),
        (&stream, (0, data), (data, end - data)),
        (&ended, (0, u32::MAX), (data + 2, end - data)),
        (&both, (0, half), (half, half)),
        (&both, (0, 2 * half), (half, half)),
        (&stream, (0, end), (0, end)),
        // libtiff reads up to the end of the file.
        (&stream, (0, 0), (0, end)),
    ];
    for (number, (bytes, named, strips)) in cases.into_iter().enumerate() {
        let file = old_jpeg_tiff(bytes, named, strips);
        let checked = check(&file, &ResizeSpec::full_size());
        match number {
            // The picture is where the directory says.
            5 | 6 => assert_eq!(checked.unwrap().damage, None),
            _ => assert!(
                matches!(checked, Err(ImageError::UnsupportedVariety { .. })),
                "{number}: {checked:?}"
            ),
        }
        // Without a length, the JPEG ends where the file does.
        if number >= 5 {
            let mut endless = file.clone();
            let length = endless.windows(4).position(|four| four == [2, 2, 4, 0]);
            endless[length.unwrap()] = 3;
            let checked = check(&endless, &ResizeSpec::full_size());
            assert_eq!(checked.unwrap().damage, None);
        }
        // A torn file is damaged.
        let torn = check(&file[..file.len() - 30], &ResizeSpec::full_size());
        assert!(torn.is_err_and(|error| error.proves_damage()), "{number}");
    }
}

/// A TIFF of 64×48 pixels that is a JPEG of the old style. Places count from the start of `bytes`.
fn old_jpeg_tiff(bytes: &[u8], named: (u32, u32), strips: (u32, u32)) -> Vec<u8> {
    let grey = tiff((64, 48), 1, (6, 0), bytes);
    let start = (grey.len() - bytes.len()) as u32 + 24;
    let mut file = grey[..8].to_vec();
    let set = |tag: u16, kind: u16, value: u32| {
        let mut entry = [0; 12];
        entry[..2].copy_from_slice(&tag.to_le_bytes());
        entry[2..4].copy_from_slice(&kind.to_le_bytes());
        entry[4] = 1;
        entry[8..].copy_from_slice(&value.to_le_bytes());
        entry
    };
    file.extend(13_u16.to_le_bytes());
    for entry in grey[10..10 + 11 * 12].as_chunks::<12>().0 {
        file.extend(match u16::from_le_bytes([entry[0], entry[1]]) {
            262 => set(262, 3, 6),
            273 => set(273, 4, start + strips.0),
            277 => set(277, 3, 3),
            279 => set(279, 4, strips.1),
            _ => *entry,
        });
    }
    file.extend(set(513, 4, start + named.0));
    file.extend(set(514, 4, named.1));
    file.extend(&grey[10 + 11 * 12..]);
    file
}
