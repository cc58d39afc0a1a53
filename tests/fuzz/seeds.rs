//! Small pictures of every supported kind.

use std::io::Cursor;

use arenite_image::{Color, Format, Pixels, Samples};
use image::codecs::gif::GifEncoder;
use image::{DynamicImage, ImageFormat, Rgba, RgbaImage};

use crate::crc32::crc32;
use crate::driver::Seed;

/// A picture of another writer, from the tests of `arenite-image`.
macro_rules! kept {
    ($name:literal) => {
        include_bytes!(concat!("../../image/src/tests/pictures/", $name)).to_vec()
    };
}

pub fn seeds() -> Vec<Seed> {
    let alpha = DynamicImage::ImageRgba8(RgbaImage::from_fn(20, 14, |x, y| {
        Rgba([x as u8 * 12, y as u8 * 18, (x ^ y) as u8 * 8, (x * y) as u8])
    }));
    let rgb = DynamicImage::ImageRgb8(alpha.to_rgb8());
    let grey = DynamicImage::ImageLuma8(alpha.to_luma8());
    let deep = DynamicImage::ImageRgba16(alpha.to_rgba16());
    let float = DynamicImage::ImageRgb32F(alpha.to_rgb32f());
    let webp = |image: &DynamicImage| {
        let pixels = Pixels {
            width: image.width(),
            height: image.height(),
            color: if image.color().has_alpha() {
                Color::Rgba
            } else {
                Color::Rgb
            },
            samples: Samples::Eight(image.as_bytes().to_vec()),
        };
        arenite_image::encode(pixels, Format::WebP, 60).unwrap()
    };
    vec![
        ("jpeg", jpeg(&rgb, false)),
        ("jpeg grey", written(&grey, ImageFormat::Jpeg)),
        ("jpeg progressive", jpeg(&rgb, true)),
        ("jpeg cmyk", cmyk()),
        ("jpeg with exif", with_exif(&jpeg(&rgb, false))),
        ("png", written(&rgb, ImageFormat::Png)),
        ("png alpha", written(&alpha, ImageFormat::Png)),
        ("png deep", written(&deep, ImageFormat::Png)),
        ("png palette", png(8, 8, [8, 3, 0], &[0; 8 * 9], true)),
        ("png interlaced", png(8, 8, [8, 0, 1], &[0; 79], false)),
        ("webp lossless", written(&alpha, ImageFormat::WebP)),
        ("webp lossy", webp(&rgb)),
        ("webp alpha", webp(&alpha)),
        ("gif", written(&alpha, ImageFormat::Gif)),
        ("gif animated", animated(&alpha)),
        ("tiff", written(&rgb, ImageFormat::Tiff)),
        ("tiff grey", written(&grey, ImageFormat::Tiff)),
        ("tiff float", written(&float, ImageFormat::Tiff)),
        ("bmp", written(&rgb, ImageFormat::Bmp)),
        ("bmp palette", written(&grey, ImageFormat::Bmp)),
        ("bmp runs", bmp_runs()),
        ("pnm", written(&rgb, ImageFormat::Pnm)),
        ("pnm plain", b"P3 2 1 # two\n99 1 20 3 40 50 60".to_vec()),
        ("qoi", written(&alpha, ImageFormat::Qoi)),
        ("tga", written(&alpha, ImageFormat::Tga)),
        ("ico", written(&alpha, ImageFormat::Ico)),
        ("avif", kept!("avif_420_8_full.avif")),
        ("avif alpha", kept!("avif_alpha_multiplied_10.avif")),
        ("avif grid", kept!("avif_grid_alpha.avif")),
        ("avif grain", kept!("avif_grain.avif")),
        ("heic", kept!("heic_420_8.heic")),
        ("heic alpha", kept!("heic_alpha.heic")),
        ("heic thumbnail", kept!("heic_thumbnail.heic")),
        (
            "png hdr",
            with_code_points(&written(&deep, ImageFormat::Png), [9, 16, 0, 1]),
        ),
        (
            "png narrow",
            with_code_points(&written(&rgb, ImageFormat::Png), [1, 13, 0, 0]),
        ),
        ("raw directories", raw_directories(&jpeg(&rgb, false))),
        ("raw boxes", raw_boxes(&jpeg(&rgb, false))),
        ("raw header", raw_header(&jpeg(&rgb, false))),
        (
            "tiff tiles predicted",
            kept!("tiff_rgb8_tiles_zlib_predicted.tif"),
        ),
    ]
}

// ---- Raw files with a preview ------------------------------------------------------------------

/// As DNG: a strip in a directory of TIFF.
fn raw_directories(preview: &[u8]) -> Vec<u8> {
    // Type LONG, one value.
    let entries = [
        (0x100, 20),
        (0x101, 14),
        (0x111, 8 + 2 + 6 * 12 + 4),
        (0x112, 6),
        (0x117, preview.len() as u32),
        (0xc612, 1),
    ];
    let mut file = b"II*\0\x08\0\0\0\x06\0".to_vec();
    for (tag, value) in entries {
        file.extend(u16::to_le_bytes(tag));
        file.extend([4, 0, 1, 0, 0, 0]);
        file.extend(u32::to_le_bytes(value));
    }
    file.extend([0; 4]);
    file.extend(preview);
    file
}

/// As CR3: the sample of a track.
fn raw_boxes(preview: &[u8]) -> Vec<u8> {
    let boxed = |kind: &[u8; 4], content: &[u8]| {
        [&(content.len() as u32 + 8).to_be_bytes()[..], kind, content].concat()
    };
    let head = boxed(b"ftyp", b"crx \0\0\0\x01crx isom");
    let tracks = |place: u32| {
        let len = (preview.len() as u32).to_be_bytes();
        let size = boxed(b"stsz", &[&[0; 8][..], &[0, 0, 0, 1], &len].concat());
        let place = [
            &[0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0][..],
            &place.to_be_bytes(),
        ]
        .concat();
        let table = boxed(b"stbl", &[size, boxed(b"co64", &place)].concat());
        let track = boxed(b"trak", &boxed(b"mdia", &boxed(b"minf", &table)));
        boxed(b"moov", &track)
    };
    let place = head.len() + tracks(0).len() + 8;
    [head, tracks(place as u32), boxed(b"mdat", preview)].concat()
}

/// As RAF: the place and the length in the header.
fn raw_header(preview: &[u8]) -> Vec<u8> {
    let mut file = b"FUJIFILMCCD-RAW 0201".to_vec();
    file.resize(84, 0);
    file.extend(100u32.to_be_bytes());
    file.extend((preview.len() as u32).to_be_bytes());
    file.resize(100, 0);
    file.extend(preview);
    file
}

pub fn written(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut file = Cursor::new(Vec::new());
    picture.write_to(&mut file, format).unwrap();
    file.into_inner()
}

fn jpeg(picture: &DynamicImage, progressive: bool) -> Vec<u8> {
    encode_jpeg(
        mozjpeg::ColorSpace::JCS_RGB,
        picture.as_bytes(),
        (picture.width(), picture.height()),
        progressive,
    )
}

fn cmyk() -> Vec<u8> {
    let inks: Vec<u8> = (0..12 * 10 * 4).map(|n| (n * 7) as u8).collect();
    encode_jpeg(mozjpeg::ColorSpace::JCS_CMYK, &inks, (12, 10), false)
}

fn encode_jpeg(
    space: mozjpeg::ColorSpace,
    samples: &[u8],
    (width, height): (u32, u32),
    progressive: bool,
) -> Vec<u8> {
    let mut encoder = mozjpeg::Compress::new(space);
    encoder.set_size(width as usize, height as usize);
    if progressive {
        encoder.set_progressive_mode();
    }
    encoder.set_quality(80.0);
    let mut encoder = encoder.start_compress(Vec::new()).unwrap();
    encoder.write_scanlines(samples).unwrap();
    encoder.finish().unwrap()
}

fn with_exif(jpeg: &[u8]) -> Vec<u8> {
    let mut exif =
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0".to_vec();
    let length = (exif.len() as u16 + 2).to_be_bytes();
    let mut file = jpeg[..2].to_vec();
    file.extend([0xff, 0xe1, length[0], length[1]]);
    file.append(&mut exif);
    file.extend(&jpeg[2..]);
    file
}

fn animated(picture: &DynamicImage) -> Vec<u8> {
    let mut file = Vec::new();
    let mut gif = GifEncoder::new(&mut file);
    for _ in 0..2 {
        gif.encode_frame(image::Frame::new(picture.to_rgba8()))
            .unwrap();
    }
    drop(gif);
    file
}

/// Eight rows of runs of eight.
fn bmp_runs() -> Vec<u8> {
    let runs: Vec<u8> = (0..8u8)
        .flat_map(|row| [8, row % 2, 0, 0])
        .chain([0, 1])
        .collect();
    let palette = [[0u8, 0, 0, 0], [255, 255, 255, 0]].concat();
    let start = 14 + 40 + palette.len() as u32;
    let mut file = b"BM".to_vec();
    file.extend((start + runs.len() as u32).to_le_bytes());
    file.extend([0; 4]);
    file.extend(start.to_le_bytes());
    for word in [40u32, 8, 8, 1 | 8 << 16, 1, runs.len() as u32, 0, 0, 2, 0] {
        file.extend(word.to_le_bytes());
    }
    file.extend(palette);
    file.extend(runs);
    file
}

// ---- PNG by hand -------------------------------------------------------------------------------

pub const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";

pub fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let body = [kind, data].concat();
    let mut chunk = (data.len() as u32).to_be_bytes().to_vec();
    chunk.extend(&body);
    chunk.extend(crc32(&body).to_be_bytes());
    chunk
}

/// `kind` is depth, colour type and interlacing.
pub fn png_header(width: u32, height: u32, [depth, color, interlaced]: [u8; 3]) -> Vec<u8> {
    let mut header = [width.to_be_bytes(), height.to_be_bytes()].concat();
    header.extend([depth, color, 0, 0, interlaced]);
    [PNG, &chunk(b"IHDR", &header)].concat()
}

fn png(width: u32, height: u32, kind: [u8; 3], rows: &[u8], palette: bool) -> Vec<u8> {
    let mut file = png_header(width, height, kind);
    if palette {
        file.extend(chunk(b"PLTE", &[7; 6]));
        file.extend(chunk(b"tRNS", &[0, 255]));
    }
    // One stored block.
    let length = rows.len() as u16;
    let mut data = vec![0x78, 0x01, 1];
    data.extend(length.to_le_bytes());
    data.extend((!length).to_le_bytes());
    data.extend(rows);
    data.extend(adler32(rows).to_be_bytes());
    file.extend(chunk(b"IDAT", &data));
    file.extend(chunk(b"IEND", &[]));
    file
}

/// Corrects the checksum of each chunk.
pub fn mend_png(file: &mut [u8]) {
    if !file.starts_with(PNG) {
        return;
    }
    let mut at = PNG.len();
    while let Some(length) = file.get(at..at + 4) {
        let length = u32::from_be_bytes(length.try_into().unwrap()) as usize;
        let body = at + 4..(at + 8).saturating_add(length);
        let Some(sum) = file.get(body.clone()).map(crc32) else {
            return;
        };
        let Some(place) = file.get_mut(body.end..body.end + 4) else {
            return;
        };
        place.copy_from_slice(&sum.to_be_bytes());
        at = body.end + 4;
    }
}

/// The file with code points (H.273) right after its header.
fn with_code_points(file: &[u8], points: [u8; 4]) -> Vec<u8> {
    let (header, rest) = file.split_at(PNG.len() + 25);
    [header, &chunk(b"cICP", &points), rest].concat()
}

fn adler32(bytes: &[u8]) -> u32 {
    let (a, b) = bytes.iter().fold((1u32, 0u32), |(a, b), byte| {
        let a = (a + u32::from(*byte)) % 65_521;
        (a, (b + a) % 65_521)
    });
    b << 16 | a
}
