//! AVIF: containers that its usual writers do not make, limits, and what is written.

use super::*;
use crate::avif;

const PLAIN: &[u8] = include_bytes!("pictures/avif_420_8_full.avif");
const ALPHA: &[u8] = include_bytes!("pictures/avif_alpha_444_8.avif");
const GRID: &[u8] = include_bytes!("pictures/avif_grid_alpha.avif");

fn full(file: &[u8]) -> Result<Pixels, ImageError> {
    resize_to_pixels(file, &ResizeSpec::full_size())
}

fn boxed(kind: &[u8; 4], content: &[u8]) -> Vec<u8> {
    let len = (content.len() as u32 + 8).to_be_bytes();
    [&len[..], kind, content].concat()
}

/// A box with version and flags.
fn versioned(kind: &[u8; 4], version: u8, content: &[u8]) -> Vec<u8> {
    boxed(kind, &[&[version, 0, 0, 0], content].concat())
}

/// The content of the first box of this kind, wherever it is.
fn content<'a>(file: &'a [u8], kind: &[u8; 4]) -> &'a [u8] {
    let at = file.windows(4).position(|four| four == kind).unwrap();
    let len = u32::from_be_bytes(file[at - 4..at].try_into().unwrap()) as usize;
    &file[at + 4..at - 4 + len]
}

/// The file with a byte string in another's place, as long as it.
fn replaced(file: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut file = file.to_vec();
    let at = file.windows(from.len()).position(|part| part == from);
    let at = at.unwrap();
    file[at..at + to.len()].copy_from_slice(to);
    file
}

/// What is in a file with one picture.
#[derive(Clone)]
struct Parts {
    kind: [u8; 4],
    protection: u16,
    /// Properties of the picture; all of them are essential.
    properties: Vec<Vec<u8>>,
    /// The list of locations, without version and flags.
    locations: Vec<u8>,
    version_of_locations: u8,
    inner_data: Vec<u8>,
    /// What follows the metadata.
    rest: Vec<u8>,
}

/// Where the data is that follows the metadata, for files of [`Parts::file`]; set in a second pass.
const HERE: [u8; 4] = [0xee; 4];

impl Parts {
    fn new() -> Self {
        let data = content(PLAIN, b"mdat").to_vec();
        let mut properties = vec![boxed(b"ispe", content(PLAIN, b"ispe"))];
        properties.push(boxed(b"av1C", content(PLAIN, b"av1C")));
        let mut locations = vec![0x44, 0, 0, 1, 0, 1, 0, 0, 0, 1];
        locations.extend(HERE);
        locations.extend((data.len() as u32).to_be_bytes());
        Self {
            kind: *b"av01",
            protection: 0,
            properties,
            locations,
            version_of_locations: 0,
            inner_data: Vec::new(),
            rest: boxed(b"mdat", &data),
        }
    }

    fn file(&self) -> Vec<u8> {
        let handler = versioned(b"hdlr", 0, b"\0\0\0\0pict\0\0\0\0\0\0\0\0\0\0\0\0\0");
        let primary = versioned(b"pitm", 0, &[0, 1]);
        let info = [
            &[0, 1][..],
            &self.protection.to_be_bytes(),
            &self.kind,
            b"\0",
        ]
        .concat();
        let infos = versioned(b"infe", 2, &info);
        let infos = versioned(b"iinf", 0, &[&[0, 1], &infos[..]].concat());
        let count = self.properties.len() as u8;
        let mut uses = vec![0, 0, 0, 1, 0, 1, count];
        uses.extend((1..=count).map(|index| index | 0x80));
        let properties = [
            boxed(b"ipco", &self.properties.concat()),
            versioned(b"ipma", 0, &uses),
        ];
        let meta = |locations: &[u8]| {
            let version = self.version_of_locations;
            let parts = [
                handler.clone(),
                primary.clone(),
                versioned(b"iloc", version, locations),
                infos.clone(),
                boxed(b"iprp", &properties.concat()),
                boxed(b"idat", &self.inner_data),
            ];
            versioned(b"meta", 0, &parts.concat())
        };
        let start = boxed(b"ftyp", b"avif\0\0\0\0avifmif1miaf");
        let offset = start.len() + meta(&self.locations).len() + 8;
        let mut locations = self.locations.clone();
        if let Some(at) = locations.windows(4).position(|four| four == HERE) {
            locations[at..at + 4].copy_from_slice(&(offset as u32).to_be_bytes());
        }
        [start, meta(&locations), self.rest.clone()].concat()
    }
}

#[test]
fn data_is_found_wherever_it_is() {
    let whole = full(PLAIN).unwrap();
    let parts = Parts::new();
    assert_eq!(full(&parts.file()), Ok(whole.clone()));
    let data = content(PLAIN, b"mdat");
    // Inside of the metadata.
    let len = (data.len() as u32).to_be_bytes();
    let inner = Parts {
        locations: [
            &[0x44, 0, 0, 1, 0, 1, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0][..],
            &len,
        ]
        .concat(),
        version_of_locations: 1,
        inner_data: data.to_vec(),
        rest: Vec::new(),
        ..parts.clone()
    };
    assert_eq!(full(&inner.file()), Ok(whole.clone()));
    // In two parts, from a base on.
    let mut two = vec![0x44, 0x40, 0, 1, 0, 1, 0, 0];
    two.extend(HERE);
    two.extend([0, 2, 0, 0, 0, 0, 0, 0, 0, 20, 0, 0, 0, 20]);
    two.extend((data.len() as u32 - 20).to_be_bytes());
    let two = Parts {
        locations: two,
        ..parts.clone()
    };
    assert_eq!(full(&two.file()), Ok(whole.clone()));
    // Up to the end of the file: without a length.
    let mut open = vec![0x40, 0, 0, 1, 0, 1, 0, 0, 0, 1];
    open.extend(HERE);
    let open = Parts {
        locations: open,
        ..parts
    };
    assert_eq!(full(&open.file()), Ok(whole));
}

#[test]
fn containers_that_lie_are_errors() {
    let parts = Parts::new();
    let error = |parts: Parts| full(&parts.file()).unwrap_err().to_string();
    let located = |locations: &[u8], version_of_locations| Parts {
        locations: locations.to_vec(),
        version_of_locations,
        ..Parts::new()
    };
    for (changed, expected) in [
        (
            Parts {
                kind: *b"jpeg",
                ..parts.clone()
            },
            "unsupported kind of AVIF: its picture is an item of kind jpeg",
        ),
        (
            Parts {
                protection: 1,
                ..parts.clone()
            },
            "unsupported kind of AVIF: it is encrypted",
        ),
        (
            Parts {
                properties: Vec::new(),
                ..parts.clone()
            },
            "corrupt AVIF: a picture without sides",
        ),
        (
            Parts {
                properties: [&parts.properties[..], &[boxed(b"abcd", b"")]].concat(),
                ..parts.clone()
            },
            "unsupported kind of AVIF: a property that must be known, abcd",
        ),
        // 65,535 parts of no bytes each.
        (
            located(&[0, 0, 0, 1, 0, 1, 0, 0, 0xff, 0xff], 0),
            "corrupt AVIF: parts of an item without places",
        ),
        // Beyond the end of the file, and of all numbers.
        (
            located(b"\x44\0\0\x01\0\x01\0\0\0\x01\0\xff\0\0\0\0\0\x01", 0),
            "truncated AVIF: the file ends before the picture does",
        ),
        (
            located(
                b"\x88\x80\0\x01\0\x01\0\0\xff\xff\xff\xff\xff\xff\xff\xff\0\x01\
                  \xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0\0\0\0\x01",
                0,
            ),
            "corrupt AVIF: an item is beyond all bytes",
        ),
        // In another item.
        (
            located(b"\x44\0\0\x01\0\x01\0\x02\0\0\0\x01\0\0\0\0\0\0\0\x01", 1),
            "unsupported kind of AVIF: a part of it is in another file or item",
        ),
        // Three times the whole file.
        (
            located(b"\x40\0\0\x01\0\x01\0\0\0\x03\0\0\0\0\0\0\0\0\0\0\0\0", 0),
            "corrupt AVIF: an item is longer than the file",
        ),
    ] {
        assert_eq!(error(changed), expected);
    }
    let film = [
        &boxed(b"ftyp", b"avis\0\0\0\0avis")[..],
        &boxed(b"moov", b""),
    ]
    .concat();
    assert_eq!(
        full(&film).unwrap_err().to_string(),
        "unsupported kind of AVIF: a film without a still picture"
    );
}

#[test]
fn sides_in_the_header_are_checked_before_anything_is_decoded() {
    let sides = content(PLAIN, b"ispe");
    let with_sides = |width: u32, height: u32| {
        let new = [&sides[..4], &width.to_be_bytes(), &height.to_be_bytes()].concat();
        replaced(PLAIN, sides, &new)
    };
    let huge = full(&with_sides(65_536, 65_536)).unwrap_err();
    assert!(matches!(huge, ImageError::TooManyPixels { .. }), "{huge}");
    let bomb = full(&with_sides(11_000, 11_000)).unwrap_err();
    assert!(matches!(bomb, ImageError::Bomb { .. }), "{bomb}");
    let small = ResizeSpec {
        max_bytes: 1000,
        ..ResizeSpec::full_size()
    };
    let error = resize_to_pixels(PLAIN, &small).unwrap_err();
    assert!(matches!(error, ImageError::TooManyBytes { .. }), "{error}");
    for (width, height, expected) in [
        (0, 21, "corrupt AVIF: it has no pixels"),
        (
            28,
            21,
            "corrupt AVIF: its picture is larger than its header says",
        ),
        (
            21,
            29,
            "corrupt AVIF: its picture has 29x21 pixels, and its header says 21x29",
        ),
        (
            30,
            21,
            "corrupt AVIF: its picture has 29x21 pixels, and its header says 30x21",
        ),
    ] {
        let error = full(&with_sides(width, height)).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn a_grid_is_as_large_as_its_tiles() {
    // Version, flags, rows and columns less one, sides.
    let grid = b"\0\0\x02\x01\0\x80\0\xc0";
    for (wrong, expected) in [
        (b"\0\0\x01\x01\0\x80\0\xc0", "another number of tiles"),
        (b"\x01\0\x02\x01\0\x80\0\xc0", "an unknown version"),
        (b"\0\0\x02\x01\0\x80\0\xbf", "other sides"),
        (b"\0\0\x01\x02\0\x80\0\xc0", "do not fit"),
    ] {
        let error = full(&replaced(GRID, grid, wrong)).unwrap_err().to_string();
        assert!(error.starts_with("corrupt AVIF: "), "{error}");
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn what_is_written_is_read_again() {
    let picture = waves(160, 120);
    let pixels = |color, samples: &[u8]| Pixels {
        width: 160,
        height: 120,
        color,
        samples: Samples::Eight(samples.to_vec()),
    };
    let original = pixels(Color::Rgb, picture.as_raw());
    let mut sizes = Vec::new();
    for (quality, least) in [(30, 28.0), (80, 36.0), (100, 44.0)] {
        let file = encode(original.clone(), Format::Avif, quality).unwrap();
        assert_eq!(probe(&file), Some(Format::Avif));
        let back = full(&file).unwrap();
        assert_eq!(back.color, Color::Rgb);
        let both = original.eight_bits().iter().zip(back.eight_bits());
        let squares: f64 = both.map(|(a, b)| f64::from(a.abs_diff(*b)).powi(2)).sum();
        let mean = squares / original.eight_bits().len() as f64;
        let decibels = 10.0 * (255.0 * 255.0 / mean).log10();
        assert!(decibels > least, "{quality}: {decibels:.1} dB");
        sizes.push(file.len());
    }
    assert!(sizes.is_sorted(), "{sizes:?}");
    for (width, height) in [(1, 1), (3, 2), (2, 65), (130, 1)] {
        let pixels = Pixels {
            width,
            height,
            color: Color::Rgb,
            samples: Samples::Eight(vec![90; (width * height) as usize * 3]),
        };
        let back = full(&encode(pixels, Format::Avif, 80).unwrap()).unwrap();
        assert_eq!((back.width, back.height), (width, height));
        assert!(back.eight_bits().iter().all(|s| s.abs_diff(90) < 4));
    }
    // Grey becomes RGB, and alpha stays.
    let grey: Vec<u8> = (0..160 * 120).map(|at| (at % 160) as u8).collect();
    let file = encode(pixels(Color::Gray, &grey), Format::Avif, 90).unwrap();
    let back = full(&file).unwrap();
    let near = |pixel: &[u8; 3], grey: &u8| pixel.iter().all(|s| s.abs_diff(*grey) < 12);
    let mut both = back.eight_bits().as_chunks().0.iter().zip(&grey);
    assert!(both.all(|(pixel, grey)| near(pixel, grey)));
    let clear: Vec<u8> = grey.iter().flat_map(|&grey| [200, 100, 50, grey]).collect();
    let file = encode(pixels(Color::Rgba, &clear), Format::Avif, 90).unwrap();
    let back = full(&file).unwrap();
    assert_eq!(back.color, Color::Rgba);
    let alphas = back.eight_bits().iter().skip(3).step_by(4);
    assert!(alphas.zip(&grey).all(|(a, b)| a.abs_diff(*b) < 12));
}

#[test]
fn metadata_is_written_and_read_again() {
    let spec = ResizeSpec {
        keep_metadata: true,
        output: Output::Avif,
        ..spec("16")
    };
    let turned = include_bytes!("pictures/avif_exif.avif");
    let made = resize_encoded(turned, &spec).unwrap();
    // The orientation did not count, and is none any more.
    assert_eq!((made.width, made.height), (16, 12));
    let kept = |file: &[u8]| {
        let spec = ResizeSpec {
            keep_metadata: true,
            ..ResizeSpec::full_size()
        };
        rendered(file, &spec).unwrap().metadata
    };
    assert_eq!(kept(&made.bytes).exif, Some(exif(1)));
    // All of it, with alpha and without.
    let profiled = include_bytes!("pictures/avif_profile.avif");
    let metadata = Metadata {
        exif: Some(exif(1)),
        xmp: Some(b"<x:xmpmeta/>".to_vec()),
        icc: kept(profiled).icc,
        ..Metadata::default()
    };
    assert!(metadata.icc.is_some());
    let own = full(profiled).unwrap();
    for pixels in [own.clone(), own.with_alpha()] {
        let file = avif::encode(&pixels, Encoding::new(90), Some(&metadata)).unwrap();
        let plain = avif::encode(&pixels, Encoding::new(90), None).unwrap();
        let found = kept(&file);
        assert_eq!(
            (found.exif, found.xmp, found.icc),
            (
                metadata.exif.clone(),
                metadata.xmp.clone(),
                metadata.icc.clone()
            )
        );
        assert_eq!(kept(&plain).exif, None);
        let spec = ResizeSpec {
            keep_metadata: true,
            ..ResizeSpec::full_size()
        };
        assert_eq!(resize_to_pixels(&file, &spec), full(&plain));
    }
}

#[test]
fn ten_bits_become_sixteen_and_eight_stay() {
    let deep = include_bytes!("pictures/avif_444_10_full.avif");
    assert!(matches!(full(deep).unwrap().samples, Samples::Sixteen(_)));
    let made = resize_encoded(deep, &ResizeSpec::full_size()).unwrap();
    assert!(matches!(
        full(&made.bytes).unwrap().samples,
        Samples::Eight(_)
    ));
    assert!(matches!(full(PLAIN).unwrap().samples, Samples::Eight(_)));
    assert_eq!(full(ALPHA).unwrap().color, Color::Rgba);
    let grey = include_bytes!("pictures/avif_400_8_full.avif");
    let png = ResizeSpec {
        output: Output::Png,
        ..ResizeSpec::full_size()
    };
    let grey = resize_to_pixels(grey, &png).unwrap();
    assert_eq!(grey.color, Color::Gray);
}

#[test]
fn an_animation_gives_its_first_frame() {
    let mut gif = Vec::new();
    let mut encoder = image::codecs::gif::GifEncoder::new(&mut gif);
    for shade in [10, 200] {
        let frame = image::RgbaImage::from_pixel(20, 10, image::Rgba([shade, shade, shade, 255]));
        encoder.encode_frame(image::Frame::new(frame)).unwrap();
    }
    drop(encoder);
    let still = ResizeSpec {
        output: Output::Avif,
        ..ResizeSpec::full_size()
    };
    let made = resize_encoded(&gif, &still).unwrap();
    let pixels = full(&made.bytes).unwrap();
    assert!(pixels.eight_bits().iter().all(|s| s.abs_diff(10) < 4));
}
