//! Files of several pictures that end early. `cut/make.py` wrote them, with the least number of bytes in which another
//! decoder finds all pictures whole.

use std::path::Path;

use super::*;

/// Name, content, and that number of bytes.
fn files() -> Vec<(String, Vec<u8>, usize)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/tests/cut");
    let ends = std::fs::read_to_string(folder.join("ends.txt")).unwrap();
    let files = ends.lines().map(|line| {
        let (name, end) = line.split_once(' ').unwrap();
        let file = std::fs::read(folder.join(name)).unwrap();
        (name.to_owned(), file, end.parse().unwrap())
    });
    files.collect()
}

#[test]
fn files_of_several_pictures_that_end_early_are_reported_wherever_they_end() {
    let full = ResizeSpec::full_size();
    let still = ResizeSpec {
        output: Output::Jpeg,
        ..full
    };
    let files = files();
    assert_eq!(files.len(), 9);
    for (name, file, whole_from) in files {
        assert_eq!(check(&file, &full).unwrap().damage, None, "{name}");
        let whole = resize_encoded(&file, &still).unwrap();
        assert_eq!(whole.damage, None, "{name}");
        let (mut warnings, mut shown) = (0, 0);
        for end in 0..whole_from {
            let cut = &file[..end];
            match check(cut, &full) {
                Err(error) => assert!(error.proves_damage(), "{name}, {end}: {error}"),
                // It ends where a picture does, or lacks only its own end.
                Ok(checked) => {
                    assert!(checked.damage.is_some(), "{name}, {end}");
                    warnings += 1;
                }
            }
            // The first picture is shown if it is whole, with a warning.
            if let Ok(made) = resize_encoded(cut, &still) {
                assert_eq!(made.bytes, whole.bytes, "{name}, {end}");
                assert!(
                    made.damage.is_some_and(|it| it.missing == 0),
                    "{name}, {end}"
                );
                shown += 1;
            }
        }
        assert!(warnings <= 4, "{name}: {warnings}");
        // The largest picture of this icon is its last.
        assert!(
            shown > file.len() / 3 || name == "sizes.ico",
            "{name}: {shown}"
        );
    }
}

/// exiftool warns of such files, and Pillow shows their first picture. Programs that turn a JPEG without loss keep the
/// index of pictures, and leave out all but the first.
#[test]
fn an_index_of_pictures_that_were_left_out_is_a_warning() {
    let (_, file, _) = files().pop().unwrap();
    let second = file.windows(3).rposition(|three| three == b"\xff\xd8\xff");
    let first = &file[..second.unwrap()];
    assert!(first.ends_with(b"\xff\xd9"));
    let full = ResizeSpec::full_size();
    let text = check(first, &full).unwrap().damage.unwrap().text;
    let expected =
        "corrupt JPEG: its index has a picture where none begins; what comes before is whole";
    assert_eq!(text, expected);
    let fail_on = FailOn::Warning;
    assert!(check(first, &ResizeSpec { fail_on, ..full }).is_err());
    // One byte more is a part of the second.
    assert!(check(&file[..first.len() + 1], &full).is_err());
    // Pillow opens these files, and fails at their second picture: "No data found for frame", "not a JPEG file".
    let index = file.windows(4).position(|four| four == b"MPF\0").unwrap() + 4;
    let offset = (first.len() - index) as u32;
    let entry = file
        .windows(4)
        .position(|four| four == offset.to_le_bytes());
    for wrong in [
        offset + 7,
        offset - 40,
        first.len() as u32,
        file.len() as u32,
        u32::MAX,
    ] {
        for trailer in [&[][..], &[0; 9]] {
            let mut file = [&file, trailer].concat();
            file[entry.unwrap()..][..4].copy_from_slice(&wrong.to_le_bytes());
            let checked = check(&file, &full).unwrap();
            assert_eq!(checked.damage.unwrap().text, expected, "{wrong}");
            let cut = &file[..first.len() / 2];
            assert!(check(cut, &full).is_err(), "{wrong}");
        }
    }
}

/// Directories that name each other, or overlap, would take hours.
#[test]
fn directories_of_a_tiff_without_end_are_read_in_linear_time() {
    let (_, file, _) = files().swap_remove(6);
    let start = u32::from_le_bytes(file[4..8].try_into().unwrap()) as usize;
    let count = usize::from(u16::from_le_bytes([file[start], file[start + 1]]));
    let next = start + 2 + 12 * count;
    // The first directory follows itself.
    let mut endless = file.clone();
    endless[next..next + 4].copy_from_slice(&file[4..8]);
    assert_eq!(
        check(&endless, &ResizeSpec::full_size()).unwrap().damage,
        None
    );
    // Directories at every even place, each of the rest of the file.
    let mut overlapping = file.clone();
    let place = file.len() as u32;
    overlapping[next..next + 4].copy_from_slice(&place.to_le_bytes());
    overlapping.resize(1 << 20, 0);
    for at in (place as usize..overlapping.len() - 1).step_by(2) {
        overlapping[at..at + 2].copy_from_slice(&0x7f7f_u16.to_le_bytes());
    }
    let _ = check(&overlapping, &ResizeSpec::full_size());
}
