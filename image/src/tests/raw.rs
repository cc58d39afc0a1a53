//! Raw files of cameras: the largest preview, upright. The files have the structure of the cameras' and no raw pixels.

use super::*;

const PREVIEW: (u32, u32) = (64, 40);

/// A value of a directory.
enum Value {
    Long(u32),
    Longs([u32; 2]),
    Bytes(Vec<u8>),
    /// The place of what is put behind the directories, and its length in the tag that is given.
    Place(Vec<u8>, u16),
    /// Directories below.
    Below(Vec<Vec<(u16, Value)>>),
}
use Value::{Below, Bytes, Long, Longs, Place};

type Entries = Vec<(u16, Value)>;

/// Appends directories that follow each other to a file; returns the offset of the first. Offsets count from `base`.
fn append(file: &mut Vec<u8>, directories: Vec<Entries>, base: usize) -> u32 {
    let mut next = 0u32;
    for entries in directories.into_iter().rev() {
        let mut words: Vec<(u16, u16, u32, u32)> = Vec::new();
        for (tag, value) in entries {
            match value {
                Long(number) => words.push((tag, 4, 1, number)),
                Longs(numbers) => {
                    words.push((tag, 4, 2, (file.len() - base) as u32));
                    file.extend(numbers.map(u32::to_le_bytes).concat());
                }
                Bytes(bytes) => {
                    words.push((tag, 7, bytes.len() as u32, (file.len() - base) as u32));
                    file.extend(bytes);
                }
                Place(bytes, len) => {
                    words.push((tag, 4, 1, (file.len() - base) as u32));
                    words.push((len, 4, 1, bytes.len() as u32));
                    file.extend(bytes);
                }
                Below(all) => {
                    let places: Vec<u32> = all
                        .into_iter()
                        .map(|one| append(file, vec![one], base))
                        .collect();
                    match places[..] {
                        [place] => words.push((tag, 4, 1, place)),
                        _ => {
                            words.push((tag, 4, places.len() as u32, (file.len() - base) as u32));
                            file.extend(places.iter().flat_map(|place| place.to_le_bytes()));
                        }
                    }
                }
            }
        }
        let start = (file.len() - base) as u32;
        file.extend((words.len() as u16).to_le_bytes());
        for (tag, kind, count, value) in words {
            file.extend(tag.to_le_bytes());
            file.extend(kind.to_le_bytes());
            file.extend(count.to_le_bytes());
            file.extend(value.to_le_bytes());
        }
        file.extend(next.to_le_bytes());
        next = start;
    }
    next
}

fn tiff(magic: &[u8; 4], after: &[u8], directories: Vec<Entries>) -> Vec<u8> {
    let mut file = [&magic[..], &[0; 4], after].concat();
    let first = append(&mut file, directories, 0);
    file[4..8].copy_from_slice(&first.to_le_bytes());
    file
}

fn bmff(kind: &[u8; 4], content: &[u8]) -> Vec<u8> {
    [&(content.len() as u32 + 8).to_be_bytes()[..], kind, content].concat()
}

fn preview() -> Vec<u8> {
    jpeg(&waves(PREVIEW.0, PREVIEW.1))
}

fn small() -> Vec<u8> {
    jpeg(&quarters(16, 10))
}

/// A lossless JPEG, as raw pixels are stored.
fn lossless() -> Vec<u8> {
    let mut file = jpeg(&quarters(160, 100));
    let frame = file
        .windows(2)
        .position(|marker| marker == [0xff, 0xc0])
        .unwrap();
    file[frame + 1] = 0xc3;
    file
}

fn olympus() -> Vec<u8> {
    let mut notes = b"OLYMPUS\0II\x03\0".to_vec();
    notes.extend([0; 18]);
    let camera = vec![(0x101, Place(preview(), 0x102))];
    // The first directory lies right after the header: it has a single entry.
    let mut rest = notes.clone();
    let place = append(&mut rest, vec![camera], 0);
    let entry = [
        &[1, 0, 0x20, 0x20, 13, 0, 1, 0, 0, 0][..],
        &place.to_le_bytes(),
        &[0; 4],
    ]
    .concat();
    rest[12..30].copy_from_slice(&entry);
    rest
}

fn canon_3(orientation: u8) -> Vec<u8> {
    let head = bmff(b"ftyp", b"crx \0\0\0\x01crx isom");
    let uuid = [&[7; 16][..], &bmff(b"CMT1", &exif(orientation))].concat();
    let full = |offset: u32| {
        let size = bmff(
            b"stsz",
            &[
                &[0; 8][..],
                &1u32.to_be_bytes(),
                &(preview().len() as u32).to_be_bytes(),
            ]
            .concat(),
        );
        let place = bmff(
            b"co64",
            &[
                &[0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0][..],
                &offset.to_be_bytes(),
            ]
            .concat(),
        );
        let table = bmff(b"minf", &bmff(b"stbl", &[size, place].concat()));
        bmff(
            b"moov",
            &[bmff(b"uuid", &uuid), bmff(b"trak", &bmff(b"mdia", &table))].concat(),
        )
    };
    let len = (small().len() as u32).to_be_bytes();
    let shown = [&[0, 0, 0, 0, 0, 1, 0, 16, 0, 10, 0, 1][..], &len, &small()].concat();
    let shown = bmff(b"PRVW", &shown);
    let shown = bmff(
        b"uuid",
        &[&[9; 16][..], &[0, 0, 0, 0, 0, 0, 0, 1], &shown].concat(),
    );
    let offset = (head.len() + full(0).len() + shown.len() + 8) as u32;
    [head, full(offset), shown, bmff(b"mdat", &preview())].concat()
}

fn fuji() -> Vec<u8> {
    let mut file = b"FUJIFILMCCD-RAW 0201".to_vec();
    file.resize(84, 0);
    file.extend(100u32.to_be_bytes());
    file.extend((with_exif(6).len() as u32).to_be_bytes());
    file.resize(100, 0);
    file.extend(with_exif(6));
    file
}

/// The preview with an orientation of its own.
fn with_exif(orientation: u8) -> Vec<u8> {
    let exif = [b"Exif\0\0", &exif(orientation)[..]].concat();
    let len = (exif.len() as u16 + 2).to_be_bytes();
    [b"\xff\xd8\xff\xe1", &len[..], &exif, &preview()[2..]].concat()
}

/// Files of all kinds, each with the orientation in it.
fn files() -> Vec<(&'static str, Vec<u8>, u8)> {
    let raw = || (0x111, Place(vec![7; 99], 0x117));
    let turned = |number| (0x112, Long(number));
    let thumbnail = || (0x201, Place(small(), 0x202));
    let large = || (0x201, Place(preview(), 0x202));
    let strip = || (0x111, Place(preview(), 0x117));
    let unread = || (0x111, Place(lossless(), 0x117));
    let nef = vec![
        (0xfe, Long(1)),
        raw(),
        turned(6),
        (
            0x14a,
            Below(vec![vec![thumbnail()], vec![large()], vec![raw()]]),
        ),
    ];
    let arw = vec![
        (0xfe, Long(1)),
        large(),
        turned(8),
        (0x14a, Below(vec![vec![raw()]])),
    ];
    let dng = vec![
        (0xc612, Long(1)),
        thumbnail(),
        turned(3),
        (0x14a, Below(vec![vec![strip()], vec![unread()]])),
    ];
    let cr2 = vec![vec![strip(), turned(1)], vec![thumbnail()], vec![unread()]];
    let rw2 = vec![vec![turned(2), (0x2e, Bytes(preview()))]];
    let orf = vec![vec![
        turned(5),
        (0x8769, Below(vec![vec![(0x927c, Bytes(olympus()))]])),
    ]];
    let own = vec![vec![
        (0xc612, Long(1)),
        turned(3),
        (0x111, Place(with_exif(6), 0x117)),
    ]];
    vec![
        ("NEF", tiff(b"II*\0", b"", vec![nef]), 6),
        ("ARW", tiff(b"II*\0", b"", vec![arw]), 8),
        ("DNG", tiff(b"II*\0", b"", vec![dng]), 3),
        ("CR2", tiff(b"II*\0", b"CR\x02\0\0\0\0\0", cr2), 1),
        ("RW2", tiff(b"IIU\0", b"", rw2), 2),
        ("ORF", tiff(b"IIRO", b"", orf), 5),
        ("RAF", fuji(), 6),
        ("CR3", canon_3(7), 7),
        ("its own EXIF", tiff(b"II*\0", b"", own), 6),
    ]
}

#[test]
fn the_largest_preview_is_shown_upright() {
    let shown = image::load_from_memory(&preview()).unwrap();
    for (name, file, orientation) in files() {
        let expected = match orientation {
            2 => shown.fliph(),
            3 => shown.rotate180(),
            5 => shown.rotate90().fliph(),
            6 => shown.rotate90(),
            7 => shown.rotate270().fliph(),
            8 => shown.rotate270(),
            _ => shown.clone(),
        };
        let made = decode(&file).unwrap_or_else(|error| panic!("{name}: {error}"));
        let expected = Pixels {
            width: expected.width(),
            height: expected.height(),
            color: Color::Rgb,
            samples: Samples::Eight(expected.into_rgb8().into_raw()),
        };
        assert_eq!(
            (made.width, made.height),
            (expected.width, expected.height),
            "{name}"
        );
        assert!(difference(&made, &expected) < 1.0, "{name}");
        let small = resize_encoded(&file, &spec("32")).unwrap();
        assert_eq!(small.format, Format::Jpeg, "{name}");
        let checked = check(&file, &ResizeSpec::full_size()).unwrap();
        assert_eq!(
            (checked.format, checked.damage),
            (Format::CameraRaw, None),
            "{name}"
        );
    }
}

/// As in DNG 1.7.
#[test]
fn a_preview_in_jpeg_xl_is_read() {
    let jxl = include_bytes!("pictures/jxl_rgb8.jxl");
    let shown = image::load_from_memory(include_bytes!("pictures/jxl_rgb8.jxl.png")).unwrap();
    let file = |photometric, data: &[u8]| {
        let large = vec![
            (0x106, Long(photometric)),
            (0x111, Place(data.to_vec(), 0x117)),
        ];
        let dng = vec![
            (0xc612, Long(1)),
            (0x112, Long(6)),
            (0x14a, Below(vec![large])),
        ];
        tiff(b"II*\0", b"", vec![dng])
    };
    let made = decode(&file(6, jxl)).unwrap();
    let turned = shown.rotate90().into_rgb8();
    assert_eq!((made.width, made.height), turned.dimensions());
    assert_eq!(made.eight_bits(), turned.as_raw());
    let error = decode(&file(6, &jxl[..jxl.len() - 9]))
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("truncated camera raw") || error.contains("its preview: "),
        "{error}"
    );
    // The pixels of a sensor are no preview.
    let error = decode(&file(32_803, jxl)).unwrap_err().to_string();
    assert!(error.contains("no preview in JPEG or JPEG XL"), "{error}");
}

/// The orientation of a raw file is that of its sensor. libraw gives a turned size for the preview of such a file, and
/// shows it as it is.
#[test]
fn a_preview_that_the_camera_has_turned_is_not_turned_again() {
    let tall = jpeg(&waves(40, 64));
    let sensor = |width, height| {
        let raw = (0x111, Place(vec![7; 99], 0x117));
        vec![
            (0x100, Long(width)),
            (0x101, Long(height)),
            (0x106, Long(32_803)),
            raw,
        ]
    };
    let file = |preview: &[u8], orientation, sensor: Entries| {
        let preview = vec![(0x201, Place(preview.to_vec(), 0x202))];
        let below = Below(vec![preview, sensor]);
        tiff(
            b"II*\0",
            b"",
            vec![vec![
                (0xfe, Long(1)),
                (0x112, Long(orientation)),
                (0x14a, below),
            ]],
        )
    };
    let shown = |file: &[u8]| {
        let shown = decode(file).unwrap();
        (shown.width, shown.height)
    };
    for orientation in 5..=8 {
        let wide = file(&preview(), orientation, sensor(640, 400));
        assert_eq!(shown(&wide), (40, 64), "{orientation}");
        // Of an unknown sensor, too: it is wide.
        for sensor in [sensor(640, 400), Vec::new()] {
            let made = file(&tall, orientation, sensor);
            assert_eq!(decode(&made), decode(&tall), "{orientation}");
        }
        let tall_sensor = file(&tall, orientation, sensor(400, 640));
        assert_eq!(shown(&tall_sensor), (64, 40), "{orientation}");
        let turned = file(&preview(), orientation, sensor(400, 640));
        assert_eq!(decode(&turned), decode(&preview()), "{orientation}");
    }
    // Its own orientation counts.
    assert_eq!(shown(&file(&with_exif(6), 1, sensor(640, 400))), (40, 64));
}

#[test]
fn a_preview_that_is_enlarged_is_a_warning() {
    for (name, file, _) in files() {
        let warning = |size: &str| resize_encoded(&file, &spec(size)).unwrap().damage;
        assert_eq!(warning("32"), None, "{name}");
        let text = warning("100").unwrap().text;
        assert!(
            text.contains("of 64x40 pixels, is enlarged"),
            "{name}: {text}"
        );
        assert_eq!(warning("100>"), None, "{name}");
    }
}

/// Files that end with the 50 bytes that `part` describes at this place, after the preview.
fn ending_with(magic: &[u8; 4], part: impl Fn(u32) -> Entries) -> Vec<u8> {
    let directories = |place| {
        let preview = (0x201, Place(preview(), 0x202));
        let below = (0x14a, Below(vec![part(place)]));
        vec![vec![(0xfe, Long(1)), preview, below]]
    };
    let place = tiff(magic, b"", directories(0)).len() as u32;
    [tiff(magic, b"", directories(place)), vec![7; 50]].concat()
}

/// Places and lengths are those of TIFF 6.0 (strips, tiles, JPEG) and ISO/IEC 14496-12 (boxes).
#[test]
fn a_check_finds_raw_files_that_end_within_their_raw_pixels() {
    let strip = |place| vec![(0x111, Long(place)), (0x117, Long(50))];
    let strips = |place| {
        vec![
            (0x111, Longs([place, place + 20])),
            (0x117, Longs([20, 30])),
        ]
    };
    let tile = |place| vec![(0x144, Long(place)), (0x145, Long(50))];
    let jpeg = |place| vec![(0x201, Long(place)), (0x202, Long(50))];
    let canon_3 = [canon_3(1), bmff(b"mdat", &[7; 42])].concat();
    let spec = ResizeSpec::full_size();
    let fail_on = FailOn::None;
    for (name, file) in [
        ("strip", ending_with(b"II*\0", strip)),
        ("strips", ending_with(b"II*\0", strips)),
        ("tile", ending_with(b"II*\0", tile)),
        ("JPEG", ending_with(b"II*\0", jpeg)),
        ("box", canon_3.clone()),
    ] {
        let damage = |file: &[u8], spec| check(file, &spec).map(|checked| checked.damage);
        assert_eq!(damage(&file, spec), Ok(None), "{name}");
        let small = resize_encoded(&file, &spec).unwrap();
        for end in file.len() - 40..file.len() {
            let torn = &file[..end];
            let error = damage(torn, spec).unwrap_err();
            assert!(
                matches!(error, ImageError::Truncated { .. }),
                "{name}: {error}"
            );
            let text = damage(torn, ResizeSpec { fail_on, ..spec })
                .unwrap()
                .unwrap()
                .text;
            assert!(
                text.contains("what comes before is whole"),
                "{name}: {text}"
            );
            // The preview is whole.
            let made = resize_encoded(torn, &spec).unwrap();
            assert_eq!(made.bytes, small.bytes, "{name}");
            assert_eq!(made.damage.unwrap().text, text, "{name}");
        }
    }
    // Neither an unknown place, nor an unknown length, nor what follows the last box is damage.
    for file in [
        ending_with(b"II*\0", |_| {
            vec![(0x111, Long(u32::MAX)), (0x117, Long(50))]
        }),
        ending_with(b"II*\0", |place| {
            vec![(0x111, Long(place)), (0x117, Long(u32::MAX))]
        }),
        ending_with(b"II*\0", |place| {
            vec![(0x111, Long(place + 99)), (0x117, Long(0))]
        }),
        ending_with(b"II*\0", |place| vec![(0x111, Long(place + 99))]),
        ending_with(b"IIU\0", |place| {
            vec![(0x111, Long(place)), (0x117, Long(999))]
        }),
        [&canon_3[..], b"\x7f\0\0\0more"].concat(),
    ] {
        assert_eq!(check(&file, &spec).unwrap().damage, None);
    }
}

#[test]
fn torn_and_endless_raw_files_are_errors() {
    for (name, file, _) in files() {
        for end in (0..file.len()).step_by(7) {
            if let Err(error) = decode(&file[..end]) {
                assert!(!error.to_string().contains("panicked"), "{name}: {error}");
            }
        }
    }
    // Directories that lead to themselves, and nothing to show.
    let mut endless = tiff(
        b"II*\0",
        b"CR\x02\0",
        vec![vec![(0x14a, Long(0)), (0x112, Long(1))]],
    );
    let first = endless[4..8].to_vec();
    let len = endless.len();
    endless[len - 4..].copy_from_slice(&first);
    let none = ["no preview", "unsupported"];
    let error = decode(&endless).unwrap_err();
    assert!(
        none.iter().all(|word| error.to_string().contains(word)),
        "{error}"
    );
    assert!(!error.proves_damage());
    // An ordinary TIFF is none.
    let picture = written(&waves(20, 10).into(), ImageFormat::Tiff);
    assert_eq!(
        check(&picture, &ResizeSpec::full_size()).unwrap().format,
        Format::Tiff
    );
}

/// A pyramid: a small picture, and a larger one in a nested directory. Neither is a preview or from a sensor.
#[test]
fn a_tiff_that_begins_with_a_reduced_picture_is_no_raw_file() {
    let picture = |side: u32, level: u8, colors: u32| -> Entries {
        let samples = vec![level; (side * side * 3) as usize];
        vec![
            (254, Long(1)),
            (256, Long(side)),
            (257, Long(side)),
            (258, Long(8)),
            (262, Long(colors)),
            (273, Place(samples, 279)),
            (277, Long(3)),
        ]
    };
    let file = |colors: u32| {
        let mut first = picture(4, 90, 2);
        first.push((330, Below(vec![picture(8, 200, colors)])));
        tiff(b"II*\0", b"", vec![first])
    };
    let shown = decode(&file(2)).unwrap();
    assert_eq!((shown.width, shown.eight_bits()[0]), (4, 90));
    assert_eq!(
        check(&file(2), &ResizeSpec::full_size()).unwrap().format,
        Format::Tiff
    );
    for colors in [32_803, 34_892] {
        let error = decode(&file(colors)).unwrap_err();
        assert!(error.to_string().contains("preview"), "{error}");
    }
}

/// libtiff and Pillow take such files, too.
#[test]
fn the_number_of_samples_may_follow_from_the_colours() {
    let file = |colors: u32, bits: Value, samples: usize| {
        let entries = vec![
            (256, Long(4)),
            (257, Long(4)),
            (258, bits),
            (262, Long(colors)),
            (273, Place((0..16 * samples as u8).collect(), 279)),
        ];
        tiff(b"II*\0", b"", vec![entries])
    };
    for (colors, bits, samples, color) in [
        (2, Long(8), 3, Color::Rgb),
        (1, Long(8), 1, Color::Gray),
        (1, Longs([8, 8]), 2, Color::Gray),
        (6, Long(8), 3, Color::Rgb),
    ] {
        let file = file(colors, bits, samples);
        let shown = decode(&file).unwrap_or_else(|error| panic!("{colors}: {error}"));
        assert_eq!(shown.color, color, "{colors}");
        if colors != 6 {
            let second = shown.eight_bits()[color.channels()];
            assert_eq!(second, samples as u8);
        }
    }
}
