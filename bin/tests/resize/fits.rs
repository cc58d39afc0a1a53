//! How pictures fit their box, by the pixels of the results.

use image::{DynamicImage, GrayImage, ImageFormat, Luma, Rgb, RgbImage, Rgba, RgbaImage};

use crate::world::{World, encoded};

/// A picture of 60 × 60 pixels in nine fields, each of its own colour.
fn fields() -> DynamicImage {
    let field = |x, y| Rgb([x as u8 / 20 * 100, y as u8 / 20 * 100, 50]);
    DynamicImage::ImageRgb8(RgbImage::from_fn(60, 60, field))
}

#[test]
fn cover_shows_the_part_at_the_position() {
    let world = World::new();
    world.file("a.png", &encoded(&fields(), ImageFormat::Png));
    // Which field of each row, and of each column, is shown by a third of the picture.
    for (position, column, row) in [
        ("center", 1, 1),
        ("top", 1, 0),
        ("top-right", 2, 0),
        ("right", 2, 1),
        ("bottom-right", 2, 2),
        ("bottom", 1, 2),
        ("bottom-left", 0, 2),
        ("left", 0, 1),
        ("top-left", 0, 0),
    ] {
        let cut = |size: &str| {
            let line = format!("a.png -s {size} -o {position} --fit cover --position {position}");
            world.run(&line).exits(0);
            let result = world.image(&format!("{position}/a.png")).to_rgb8();
            let (width, height) = result.dimensions();
            result.get_pixel(width / 2, height / 2).0
        };
        assert_eq!(cut("5x15"), [column * 100, 100, 50], "{position}");
        assert_eq!(cut("15x5"), [100, row * 100, 50], "{position}");
    }
    let run = world.run("a.png -s 9 -o out --position top").exits(2);
    assert!(run.stderr.contains("--fit cover"), "{}", run.stderr);
}

#[test]
fn cover_shows_what_draws_attention() {
    let world = World::new();
    let skin = Rgb([224, 172, 140]);
    let picture = |middle: u32| {
        RgbImage::from_fn(300, 100, |x, y| {
            let is_inside = x.abs_diff(middle).pow(2) + y.abs_diff(50).pow(2) < 900;
            if is_inside { skin } else { Rgb([90, 110, 130]) }
        })
    };
    for middle in [40, 150, 260] {
        world.file("a.png", &encoded(&picture(middle).into(), ImageFormat::Png));
        let flags = "--fit cover --position attention";
        world.run(&format!("a.png -s 50 -o out {flags}")).exits(0);
        let result = world.image("out/a.png").to_rgb8();
        let warm = result.pixels().filter(|pixel| pixel[0] > pixel[2]);
        // A disc of 30 in a square of 100.
        let share = warm.count() as f64 / 2500.0;
        assert!((0.26..0.3).contains(&share), "{middle}: {share}");
    }
    let run = world.run("a.png -s 9 -o out --fit pad --position attention");
    run.exits(2).says(&["--fit cover"]);
}

#[test]
fn linear_light_brightens_fine_patterns() {
    let world = World::new();
    let stripes = GrayImage::from_fn(64, 64, |x, _| Luma([(x % 2 * 255) as u8]));
    world.file("a.png", &encoded(&stripes.into(), ImageFormat::Png));
    for (flags, expected) in [("", 128), ("--linear", 188)] {
        let line = format!("a.png -s 8 -o out --filter box {flags}");
        world.run(&line).exits(0);
        let grey = world.image("out/a.png").to_luma8().get_pixel(4, 4)[0];
        assert!(grey.abs_diff(expected) <= 1, "{flags}: {grey}");
    }
}

const BLUE: Rgb<u8> = Rgb([20, 40, 200]);

/// Blue pictures of 40 × 20 pixels: opaque, with a transparent left half, and grey.
fn pad_world() -> World {
    let world = World::new();
    let opaque = RgbImage::from_pixel(40, 20, BLUE);
    let half = RgbaImage::from_fn(40, 20, |x, _| {
        let Rgb([r, g, b]) = BLUE;
        Rgba([r, g, b, if x < 20 { 0 } else { 255 }])
    });
    let grey = GrayImage::from_pixel(40, 20, Luma([90]));
    world.file("opaque.png", &encoded(&opaque.into(), ImageFormat::Png));
    world.file("half.png", &encoded(&half.into(), ImageFormat::Png));
    world.file("grey.png", &encoded(&grey.into(), ImageFormat::Png));
    world
}

/// The result of padding to 20 × 20.
fn padded(world: &World, name: &str, flags: &str) -> DynamicImage {
    let line = format!("{name}.png -s 20 -o out --fit pad {flags}");
    let run = world.run(&line).exits(0);
    let result = world.image(run.lines()[0]);
    assert_eq!((result.width(), result.height()), (20, 20), "{line}");
    result
}

#[test]
fn pad_surrounds_the_whole_picture() {
    let world = pad_world();
    for (position, above) in [("center", 5), ("top", 0), ("bottom-left", 10), ("left", 5)] {
        let flags = format!("--position {position} --background 0a0");
        let result = padded(&world, "opaque", &flags).to_rgb8();
        for (_, y, pixel) in result.enumerate_pixels() {
            let is_inside = (above..above + 10).contains(&y);
            let expected = if is_inside { BLUE } else { Rgb([0, 170, 0]) };
            assert_eq!(*pixel, expected, "{position}, row {y}");
        }
    }
    // Smaller than the box.
    let line = "opaque.png -s 50x30> -o small --fit pad --position right";
    world.run(line).exits(0);
    let result = world.image("small/opaque.png").to_rgb8();
    assert_eq!(result.dimensions(), (50, 30));
    for (x, y, pixel) in result.enumerate_pixels() {
        let is_inside = x >= 10 && (5..25).contains(&y);
        let expected = if is_inside { BLUE } else { Rgb([255; 3]) };
        assert_eq!(*pixel, expected, "{x}, {y}");
    }
    world.run("opaque.png -s 20! -o out --fit pad").exits(2);
}

#[test]
fn margins_are_white_a_colour_or_transparent() {
    let world = pad_world();
    let (white, red, clear) = (Rgba([255; 4]), Rgba([255, 0, 0, 255]), 0);
    let corner = |name: &str, flags: &str| {
        let result = padded(&world, name, flags);
        (*result.to_rgba8().get_pixel(1, 1), result)
    };
    // JPEG blurs across the edge of the picture.
    let is_near = |one: Rgba<u8>, other: Rgba<u8>| {
        let mut pairs = one.0.into_iter().zip(other.0);
        pairs.all(|(one, other)| one.abs_diff(other) <= 16)
    };
    for name in ["opaque", "grey"] {
        for flags in ["", "--format webp --lossless"] {
            assert_eq!(corner(name, flags).0, white, "{name} {flags}");
        }
        let jpeg = corner(name, "--format jpeg --quality 100").0;
        assert!(is_near(jpeg, white), "{name}: {jpeg:?}");
    }
    // Around a picture with transparency they are transparent where the format can do it.
    assert_eq!(corner("half", "").0[3], clear);
    assert_eq!(corner("half", "--format webp").0[3], clear);
    let jpeg = corner("half", "--format jpeg --quality 100").0;
    assert!(is_near(jpeg, white), "{jpeg:?}");
    for name in ["opaque", "half", "grey"] {
        assert_eq!(corner(name, "--background f00").0, red, "{name}");
        let flags = "--background f00 --format webp --lossless";
        assert_eq!(corner(name, flags).0, red, "{name}");
        let jpeg = corner(name, "--background f00 --format jpeg --quality 100").0;
        assert!(is_near(jpeg, red), "{name}: {jpeg:?}");
        let (margin, result) = corner(name, "--background transparent");
        assert_eq!(margin[3], clear, "{name}");
        assert_eq!(result.to_rgba8().get_pixel(19, 10)[3], 255, "{name}");
    }
    // The picture keeps its own transparency.
    let (_, result) = corner("half", "--background f00");
    assert_eq!(result.to_rgba8().get_pixel(1, 10)[3], clear);
    // Grey stays grey with grey margins.
    assert!(matches!(
        corner("grey", "--background 888").1,
        DynamicImage::ImageLuma8(_)
    ));
}
