//! PNG with palettes, by the headers and pixels of the results.

use std::fs;
use std::path::Path;

use image::codecs::png::{PngDecoder, PngEncoder};
use image::{
    DynamicImage, ExtendedColorType, ImageDecoder, ImageEncoder, ImageFormat, Rgba, RgbaImage,
};

use crate::world::{World, encoded, picture};

fn of_project(relative: &str) -> Vec<u8> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    fs::read(root.join(relative)).unwrap()
}

fn sample(name: &str) -> Vec<u8> {
    of_project(&format!("samples/{name}"))
}

/// A photo with a palette of 16 colours.
fn photo_with_palette() -> Vec<u8> {
    of_project("image/src/tests/reported/png_palette16_doubles_in_size.png")
}

/// The bits of a sample and the colour type in the header of a PNG; 3 is a palette.
fn kind(world: &World, relative: &str) -> (u8, u8) {
    let file = fs::read(world.path(relative)).unwrap();
    (file[24], file[25])
}

fn len(world: &World, relative: &str) -> u64 {
    fs::metadata(world.path(relative)).unwrap().len()
}

/// The mean difference of two pictures in steps of 255, with colours weighted by alpha.
fn mean_error(one: &DynamicImage, other: &DynamicImage) -> f64 {
    let weighted = |pixel: &Rgba<u8>| {
        let [r, g, b, a] = pixel.0.map(f64::from);
        [r * a / 255.0, g * a / 255.0, b * a / 255.0, a]
    };
    let (one, other) = (one.to_rgba8(), other.to_rgba8());
    assert_eq!(one.dimensions(), other.dimensions());
    let mut sum = 0.0;
    for (one, other) in one.pixels().zip(other.pixels()) {
        let parts = weighted(one).into_iter().zip(weighted(other));
        sum += parts.map(|(one, other)| (one - other).abs()).sum::<f64>();
    }
    sum / (4.0 * f64::from(one.width()) * f64::from(one.height()))
}

#[test]
fn a_palette_stays_a_palette() {
    let world = World::new();
    let file = photo_with_palette();
    world.file("a.png", &file);
    world
        .run("a.png -s 600 -o nearest --filter nearest")
        .exits(0);
    assert_eq!(kind(&world, "nearest/a.png"), (4, 3));
    let nearest = world.image("nearest/a.png").to_rgb8();
    let source = image::load_from_memory(&file).unwrap().to_rgb8();
    let known: std::collections::HashSet<_> = source.pixels().collect();
    assert!(nearest.pixels().all(|pixel| known.contains(pixel)));
    // Exact, and thus the same as in full.
    world
        .run("a.png -s 600 -o full --filter nearest --palette never")
        .exits(0);
    assert_eq!(kind(&world, "full/a.png"), (8, 2));
    assert_eq!(world.image("full/a.png").to_rgb8(), nearest);
    assert!(len(&world, "nearest/a.png") < len(&world, "full/a.png"));

    world.run("a.png -s 800 -o auto").exits(0);
    world.run("a.png -s 800 -o never --palette never").exits(0);
    assert_eq!(kind(&world, "auto/a.png"), (8, 3));
    assert_eq!(kind(&world, "never/a.png"), (8, 2));
    assert!(2 * len(&world, "auto/a.png") < len(&world, "never/a.png"));
    let error = mean_error(&world.image("auto/a.png"), &world.image("never/a.png"));
    assert!(error < 2.0, "{error}");
}

#[test]
fn other_pictures_have_a_palette_on_request() {
    let world = World::new();
    world.file("a.png", &sample("coffee.png"));
    world.run("a.png -s 100 -o auto").exits(0);
    world
        .run("a.png -s 100 -o always --palette always")
        .exits(0);
    assert_eq!(kind(&world, "auto/a.png"), (8, 2));
    assert_eq!(kind(&world, "always/a.png"), (8, 3));
    assert!(2 * len(&world, "always/a.png") < len(&world, "auto/a.png"));
    let error = mean_error(&world.image("always/a.png"), &world.image("auto/a.png"));
    assert!(error < 6.0, "{error}");
    // Grey stays grey.
    let grey = DynamicImage::ImageLuma8(picture(40, 30).to_luma8());
    world.file("grey.png", &encoded(&grey, ImageFormat::Png));
    world
        .run("grey.png -s 20 -o grey --palette always")
        .exits(0);
    assert_eq!(kind(&world, "grey/grey.png"), (8, 0));
}

#[test]
fn a_profile_is_kept_beside_a_palette() {
    let world = World::new();
    let profile = moxcms::ColorProfile::new_display_p3().encode().unwrap();
    let mut file = Vec::new();
    let mut encoder = PngEncoder::new(&mut file);
    encoder.set_icc_profile(profile.clone()).unwrap();
    let red = [200, 10, 10].repeat(64);
    encoder
        .write_image(&red, 8, 8, ExtendedColorType::Rgb8)
        .unwrap();
    world.file("p3.png", &file);
    world
        .run("p3.png -s 4 -o out --palette always --keep-metadata")
        .exits(0);
    assert_eq!(kind(&world, "out/p3.png"), (1, 3));
    let file = fs::read(world.path("out/p3.png")).unwrap();
    let mut decoder = PngDecoder::new(std::io::Cursor::new(file)).unwrap();
    assert_eq!(decoder.icc_profile().unwrap(), Some(profile));
    let result = world.image("out/p3.png").to_rgb8();
    assert_eq!(result.get_pixel(1, 1).0, [200, 10, 10]);
}

#[test]
fn transparency_of_a_gif_is_kept_in_a_palette() {
    let world = World::new();
    let ring = RgbaImage::from_fn(64, 64, |x, y| {
        let (x, y) = (x as f32 - 31.5, y as f32 - 31.5);
        match (x * x + y * y).sqrt() {
            20.0..30.0 => Rgba([200, 30, 40, 255]),
            _ => Rgba([0; 4]),
        }
    });
    world.file("a.gif", &encoded(&ring.into(), ImageFormat::Gif));
    world.run("a.gif -s 40 -o out --format png").exits(0);
    world
        .run("a.gif -s 40 -o full --format png --palette never")
        .exits(0);
    assert_eq!(kind(&world, "out/a.png").1, 3);
    assert_eq!(kind(&world, "full/a.png").1, 6);
    let error = mean_error(&world.image("out/a.png"), &world.image("full/a.png"));
    assert!(error < 0.5, "{error}");
}
