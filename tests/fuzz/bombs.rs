//! Small files that announce enormous pictures: refused from the header, before memory is allocated.

use arenite_image::{ImageError, ResizeSpec, resize_encoded};
use image::codecs::png::PngEncoder;
use image::{DynamicImage, ExtendedColorType, GrayImage, ImageEncoder, ImageFormat};

use crate::driver::Seed;
use crate::memory::with_peak;
use crate::seeds::{chunk, png_header, seeds, written};

fn seed(name: &str) -> Vec<u8> {
    seeds().into_iter().find(|seed| seed.0 == name).unwrap().1
}

fn put(file: &mut [u8], at: usize, bytes: &[u8]) {
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

fn png(width: u32, height: u32, depth: u8) -> Vec<u8> {
    let data = chunk(b"IDAT", &[0x78, 0x9c, 0x63, 0, 0, 0, 1, 0]);
    let file = [
        png_header(width, height, [depth, 6, 0]),
        data,
        chunk(b"IEND", &[]),
    ]
    .concat();
    assert_eq!(file.len(), 65);
    file
}

fn gif(width: u16, height: u16) -> Vec<u8> {
    gif_with_frame((width, height), (width, height))
}

fn gif_with_frame(screen: (u16, u16), frame: (u16, u16)) -> Vec<u8> {
    let sides = |(width, height): (u16, u16)| [width.to_le_bytes(), height.to_le_bytes()].concat();
    let mut file = b"GIF89a".to_vec();
    file.extend(&sides(screen));
    file.extend([0, 0, 0, 0x2c, 0, 0, 0, 0]);
    file.extend(&sides(frame));
    file.extend([0, 2, 1, 0x44, 0, 0x3b]);
    file
}

fn bmp(width: i32, height: i32, seed_name: &str) -> Vec<u8> {
    let mut file = seed(seed_name);
    put(&mut file, 18, &width.to_le_bytes());
    put(&mut file, 22, &height.to_le_bytes());
    file
}

/// Three bytes per pixel, in strips of an enormous length.
fn tiff(width: u32, height: u32) -> Vec<u8> {
    let mut file = seed("tiff");
    for (tag, value) in [
        (256u16, width),
        (257, height),
        (278, height),
        (279, u32::MAX),
    ] {
        // A single LONG.
        let entry = [&tag.to_le_bytes()[..], &[4, 0, 1, 0, 0, 0]].concat();
        let at = file.windows(8).position(|eight| eight == entry).unwrap();
        put(&mut file, at + 8, &value.to_le_bytes());
    }
    file
}

fn webp(lossless: bool) -> Vec<u8> {
    let (mut file, tag) = if lossless {
        (seed("webp lossless"), b"VP8L")
    } else {
        (seed("webp lossy"), b"VP8 ")
    };
    let at = file.windows(4).position(|four| four == tag).unwrap() + 8;
    if lossless {
        // Twice 14 bits, each one less than the side.
        put(&mut file, at + 1, &[0xfe, 0xbf, 0xff, 0x0f]);
    } else {
        put(&mut file, at + 6, &[0xff, 0x3f, 0xff, 0x3f]);
    }
    file
}

/// An extended file whose last chunk, of metadata, has almost four gigabytes according to its header.
fn webp_with(kind: &[u8; 4], flag: u8) -> Vec<u8> {
    let picture = seed("webp lossless");
    let pixels = &picture[12..];
    assert!(pixels.starts_with(b"VP8L"));
    // Twice 14 bits after the signature, each one less than the side.
    let sides = u32::from_le_bytes(pixels[9..13].try_into().unwrap());
    let [width, height] = [sides & 0x3fff, sides >> 14 & 0x3fff].map(u32::to_le_bytes);
    let mut file = b"RIFF\xff\xff\xff\xffWEBPVP8X\x0a\0\0\0".to_vec();
    file.extend([flag, 0, 0, 0]);
    file.extend(&width[..3]);
    file.extend(&height[..3]);
    file.extend(pixels);
    file.extend(kind);
    file.extend(0xffff_fff0_u32.to_le_bytes());
    file.extend(b"and no more");
    file
}

/// An animation of one pixel according to its header, whose first frame contains a picture of 800 MB.
fn webp_with_frame(alpha: Option<usize>) -> Vec<u8> {
    let picture = webp(false);
    let mut pixels = picture[12..].to_vec();
    assert!(pixels.starts_with(b"VP8 "));
    let chunk =
        |kind: &[u8; 4], data: &[u8]| [kind, &(data.len() as u32).to_le_bytes()[..], data].concat();
    if let Some(len) = alpha {
        // The decoder takes what follows for the picture, without checking its name.
        pixels[..4].copy_from_slice(b"XXXX");
        pixels.splice(..0, chunk(b"ALPH", &vec![0; len]));
        if len % 2 == 1 {
            // It starts at an even offset, and the frame claims to end before the sides of the picture do.
            pixels.insert(8 + len, 0);
            pixels[12 + len + 1..][..4].copy_from_slice(&10u32.to_le_bytes());
            pixels.truncate(8 + len + 1 + 8 + 10);
        }
    }
    // Its position, its sides less one, its duration, and its blending.
    let frame = [&[0; 6][..], &[0; 6], &[0; 3], &[0], &pixels].concat();
    let chunks = [
        chunk(b"VP8X", &[0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        chunk(b"ANIM", &[0; 6]),
        chunk(b"ANMF", &frame),
    ];
    let body = [b"WEBP", &chunks.concat()[..]].concat();
    chunk(b"RIFF", &body)
}

fn jpeg(name: &str, width: u16, height: u16) -> Vec<u8> {
    let mut file = seed(name);
    let frame = |two: &[u8]| two == [0xff, 0xc0] || two == [0xff, 0xc2];
    let at = file.windows(2).position(frame).unwrap();
    put(&mut file, at + 5, &height.to_be_bytes());
    put(&mut file, at + 7, &width.to_be_bytes());
    file
}

#[test]
fn bombs_are_refused_before_allocating() {
    let bombs: Vec<Seed> = vec![
        ("65 bytes of PNG, 1 GB", png(16_384, 16_384, 8)),
        (
            "65 bytes of PNG, 968 MB that the pixel limit allows",
            png(11_000, 11_000, 16),
        ),
        (
            "65 bytes of PNG, 2^31 by 2^31",
            png(0x7fff_ffff, 0x7fff_ffff, 8),
        ),
        ("GIF, 7 GB", gif(42_000, 42_000)),
        (
            "GIF, 400 MB that the pixel limit allows",
            gif(10_000, 10_000),
        ),
        ("TIFF, 137 GB", tiff(213_800, 213_800)),
        ("TIFF, 2^32 by 2^32", tiff(u32::MAX, u32::MAX)),
        (
            "TIFF, 363 MB that the pixel limit allows",
            tiff(11_000, 11_000),
        ),
        ("WebP lossless, 1 GB", webp(true)),
        ("WebP lossy, 800 MB", webp(false)),
        ("BMP, 2^31 by 2^31", bmp(i32::MAX, i32::MAX, "bmp")),
        ("BMP, upside down", bmp(60_000, -60_000, "bmp")),
        (
            "BMP, 363 MB that the pixel limit allows",
            bmp(11_000, 11_000, "bmp"),
        ),
        ("BMP in runs", bmp(11_000, 11_000, "bmp runs")),
        ("JPEG", jpeg("jpeg", 65_500, 65_500)),
        (
            "JPEG in scans, with all their coefficients",
            jpeg("jpeg progressive", 11_000, 11_000),
        ),
    ];
    let spec = ResizeSpec::new("16".parse().unwrap());
    for (name, file) in bombs {
        assert!(file.len() < 1500, "{name}: {} bytes", file.len());
        let (made, peak) = with_peak(|| resize_encoded(&file, &spec));
        let error = made.unwrap_err();
        assert!(peak < 1 << 20, "{name}: {peak} bytes for {error}");
        let limited = matches!(
            error,
            ImageError::TooManyPixels { .. }
                | ImageError::TooManyBytes { .. }
                | ImageError::Bomb { .. }
        );
        // Sides that the decoder itself refuses.
        let unbelievable = name.contains("2^31") || name.contains("2^32");
        assert!(limited || unbelievable, "{name}: {error}");
    }
}

/// A picture of one pixel according to its header, and more after it. 64 MiB are harmless from any input.
#[test]
fn data_hidden_behind_a_small_picture_is_bounded() {
    let mut profile = Vec::new();
    let mut encoder = PngEncoder::new(&mut profile);
    encoder.set_icc_profile(vec![0; 200 << 20]).unwrap();
    encoder
        .write_image(&[0; 3], 1, 1, ExtendedColorType::Rgb8)
        .unwrap();
    let spec = ResizeSpec::new("16".parse().unwrap());
    for (name, file) in [
        (
            "GIF, a frame of 800 MB",
            gif_with_frame((1, 1), (16_000, 12_500)),
        ),
        ("PNG, a profile of 200 MB", profile),
        ("WebP, EXIF of 4 GB", webp_with(b"EXIF", 0x08)),
        ("WebP, XMP of 4 GB", webp_with(b"XMP ", 0x04)),
        ("WebP, a profile of 4 GB", webp_with(b"ICCP", 0x20)),
        ("WebP, a frame of 800 MB", webp_with_frame(None)),
        ("WebP, one behind its alpha", webp_with_frame(Some(2))),
        ("WebP, one that ends before", {
            let mut file = webp_with_frame(Some(3));
            let anmf = file.windows(4).position(|kind| kind == b"ANMF").unwrap();
            let len = u32::from_le_bytes(file[anmf + 4..][..4].try_into().unwrap());
            file[anmf + 4..][..4].copy_from_slice(&(len - 1).to_le_bytes());
            file
        }),
    ] {
        let (made, peak) = with_peak(|| resize_encoded(&file, &spec));
        assert!(peak < 100 << 20, "{name}: {peak} bytes for {made:?}");
    }
}

#[test]
fn each_limit_is_named_with_a_remedy() {
    let spec = ResizeSpec::new("16".parse().unwrap());
    let error = resize_encoded(&png(20_001, 20_000, 8), &spec).unwrap_err();
    assert!(matches!(error, ImageError::TooManyPixels { .. }), "{error}");
    assert!(error.to_string().contains("max_pixels"), "{error}");

    let error = resize_encoded(&png(11_000, 11_000, 8), &spec).unwrap_err();
    let expected = ImageError::Bomb {
        bytes: 484_000_000,
        file: 65,
        limit: 4096,
    };
    assert_eq!(error, expected);
    assert!(error.to_string().contains("max_ratio"), "{error}");

    let little = ResizeSpec {
        max_bytes: 100_000_000,
        ..spec
    };
    let error = resize_encoded(&png(11_000, 11_000, 8), &little).unwrap_err();
    let ImageError::TooManyBytes { bytes, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(bytes, 484_000_000);
    assert!(error.to_string().contains("max_bytes"), "{error}");
    let error = resize_encoded(&jpeg("jpeg progressive", 11_000, 11_000), &little).unwrap_err();
    assert!(matches!(error, ImageError::TooManyBytes { .. }), "{error}");
}

/// A single colour, compressed as well as a format can: not a bomb, whatever the ratio.
#[test]
fn flat_pictures_are_not_bombs() {
    let flat = DynamicImage::ImageLuma8(GrayImage::new(4000, 3000));
    let spec = ResizeSpec::new("16".parse().unwrap());
    for format in [
        ImageFormat::Png,
        ImageFormat::Gif,
        ImageFormat::Jpeg,
        ImageFormat::WebP,
    ] {
        let file = match format {
            ImageFormat::Gif => written(&DynamicImage::ImageRgba8(flat.to_rgba8()), format),
            _ => written(&flat, format),
        };
        let made = resize_encoded(&file, &spec);
        assert!(made.is_ok(), "{format:?}, {} bytes: {made:?}", file.len());
    }
    // PNG at its best, beyond the harmless size.
    let file = written(
        &DynamicImage::ImageLuma8(GrayImage::new(8200, 8200)),
        ImageFormat::Png,
    );
    let made = resize_encoded(&file, &spec);
    assert!(made.is_ok(), "{} bytes: {made:?}", file.len());
}

#[test]
fn a_profile_that_unpacks_to_too_much_is_dropped() {
    // The packed rows of a flat picture: 16 KB that become 16 MB.
    let flat = written(
        &DynamicImage::ImageLuma8(GrayImage::new(4000, 4000)),
        ImageFormat::Png,
    );
    let mut packed = Vec::new();
    let mut at = 8;
    while at + 8 <= flat.len() {
        let length = u32::from_be_bytes(flat[at..at + 4].try_into().unwrap()) as usize;
        if &flat[at + 4..at + 8] == b"IDAT" {
            packed.extend(&flat[at + 8..at + 8 + length]);
        }
        at += 12 + length;
    }
    assert!(packed.len() < 200_000, "{} bytes", packed.len());
    let small = seed("png");
    let profile = chunk(b"iCCP", &[b"x\0\0", &packed[..]].concat());
    let text = chunk(b"zTXt", &[b"x\0\0", &packed[..]].concat());
    let file = [&small[..33], &profile, &text, &small[33..]].concat();
    let spec = ResizeSpec::new("16".parse().unwrap());
    let (made, peak) = with_peak(|| resize_encoded(&file, &spec));
    assert!(made.is_ok(), "{made:?}");
    assert!(peak < 128 << 20, "{peak} bytes");
}
