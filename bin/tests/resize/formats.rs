//! Formats read and written. The library tests pixels; these tests look at formats, sides and metadata.

use image::{DynamicImage, ImageFormat, Rgba, RgbaImage};

use crate::world::{World, encoded, jpeg, jpeg_turned, picture};

#[test]
fn ten_formats_are_read_and_four_are_written() {
    let world = World::new();
    let image = picture(40, 30);
    let formats = [
        (ImageFormat::Jpeg, "jpg", ImageFormat::Jpeg),
        (ImageFormat::Png, "png", ImageFormat::Png),
        (ImageFormat::WebP, "webp", ImageFormat::WebP),
        (ImageFormat::Gif, "gif", ImageFormat::Gif),
        (ImageFormat::Tiff, "tif", ImageFormat::Png),
        (ImageFormat::Bmp, "bmp", ImageFormat::Png),
        (ImageFormat::Pnm, "ppm", ImageFormat::Png),
        (ImageFormat::Qoi, "qoi", ImageFormat::Png),
        (ImageFormat::Tga, "tga", ImageFormat::Png),
        (ImageFormat::Ico, "ico", ImageFormat::Png),
    ];
    for (format, extension, _) in formats {
        world.file(
            &format!("p/{extension}.{extension}"),
            &encoded(&image, format),
        );
    }
    world.run("p -s 20x20 -o own").exits(0);
    assert_eq!(
        world.tree("own"),
        [
            "bmp.png",
            "gif.gif",
            "ico.png",
            "jpg.jpg",
            "png.png",
            "ppm.png",
            "qoi.png",
            "tga.png",
            "tif.png",
            "webp.webp"
        ]
    );
    for (_, name, written) in formats {
        let result = format!("own/{name}.{}", written.extensions_str()[0]);
        assert_eq!(world.format(&result), written, "{result}");
        assert_eq!(world.sides(&result), (20, 15), "{result}");
    }
    for (name, written, extension) in [
        ("jpeg", ImageFormat::Jpeg, "jpg"),
        ("png", ImageFormat::Png, "png"),
        ("webp", ImageFormat::WebP, "webp"),
        ("gif", ImageFormat::Gif, "gif"),
    ] {
        world
            .run(&format!("p -s 20x20 --format {name} -o {name}"))
            .exits(0);
        for (_, input, _) in formats {
            let result = format!("{name}/{input}.{extension}");
            assert_eq!(
                (world.format(&result), world.sides(&result)),
                (written, (20, 15)),
                "{result}"
            );
        }
    }
}

#[test]
fn avif_is_read_and_written() {
    let world = World::new();
    world.file("p/a.avif", include_bytes!("alpha.avif"));
    world.photos(&["p/b.jpg"]);
    let run = world.run("p -s 16x16 -o own").exits(0);
    assert_eq!(run.lines(), ["own/a.avif", "own/b.jpg"]);
    let run = world.run("p -s 16x16 --format avif -o out");
    assert_eq!(run.exits(0).lines(), ["out/a.avif", "out/b.avif"]);
    let name = world.run("p/b.jpg -s 16x16 -o named --name {stem}-{width}.avif");
    assert_eq!(name.exits(0).lines(), ["named/b-16.avif"]);
    world.run("out -s 100% --format png -o back").exits(0);
    assert_eq!(world.sides("back/a.png"), (16, 12));
    let error = world.run("p -s 16 --format avif --lossless -o no").exits(2);
    error.says(&["AVIF is not lossless"]);
}

/// With metadata that is damaged, about which its decoder logs an error.
#[test]
fn jpeg_xl_is_read_and_becomes_png() {
    let world = World::new();
    world.file("p/a.jxl", include_bytes!("damaged-exif.jxl"));
    let run = world.run("p -s 24x24 -o out").exits(0);
    assert_eq!(run.lines(), ["out/a.png"]);
    assert!(!run.stderr.contains("ERROR"), "{}", run.stderr);
    assert_eq!(world.sides("out/a.png"), (24, 16));
}

#[test]
fn the_content_decides_the_format_not_the_extension() {
    let world = World::new();
    world.file("a.webp", &jpeg(16, 16));
    assert_eq!(
        world.run("a.webp -s 8 -o out").exits(0).lines(),
        ["out/a.jpg"]
    );
    assert_eq!(world.format("out/a.jpg"), ImageFormat::Jpeg);
}

#[test]
fn an_animation_stays_one_unless_its_first_frame_is_asked_for() {
    use image::AnimationDecoder;
    use image::codecs::gif::{GifDecoder, GifEncoder};
    let world = World::new();
    let mut bytes = Vec::new();
    let mut gif = GifEncoder::new(&mut bytes);
    for shade in [250, 5] {
        let frame = RgbaImage::from_pixel(16, 16, Rgba([shade, shade, shade, 255]));
        gif.encode_frame(image::Frame::new(frame)).unwrap();
    }
    drop(gif);
    world.file("a.gif", &bytes);
    world.run("a.gif -s 8 -o out").exits(0);
    world.run("a.gif -s 8 -o first --first-frame").exits(0);
    world.run("a.gif -s 8 -o first --format jpeg").exits(0);
    let shades = |name: &str| {
        let file = std::io::Cursor::new(std::fs::read(world.path(name)).unwrap());
        let frames = GifDecoder::new(file).unwrap().into_frames();
        let shades = frames.map(|frame| frame.unwrap().buffer().get_pixel(4, 4).0[0]);
        shades.collect::<Vec<u8>>()
    };
    assert_eq!(shades("out/a.gif"), [250, 5]);
    assert_eq!(shades("first/a.gif"), [250]);
    assert!(world.image("first/a.jpg").to_luma8().get_pixel(4, 4).0[0] > 200);
}

#[test]
fn orientation_is_applied() {
    let world = World::new();
    world.file("a.jpg", &jpeg_turned(64, 32, 6));
    world.run("a.jpg -s 32x32 -o out").exits(0);
    assert_eq!(world.sides("out/a.jpg"), (16, 32));
    let bytes = std::fs::read(world.path("out/a.jpg")).unwrap();
    assert!(
        !bytes.windows(4).any(|four| four == b"Exif"),
        "metadata is dropped"
    );
}

#[test]
fn kept_metadata_does_not_turn_the_result_again() {
    let world = World::new();
    world.file("a.jpg", &jpeg_turned(64, 32, 6));
    world.run("a.jpg -s 32x32 -o out --keep-metadata").exits(0);
    assert_eq!(world.sides("out/a.jpg"), (16, 32));
    let bytes = std::fs::read(world.path("out/a.jpg")).unwrap();
    let exif = bytes
        .windows(4)
        .position(|four| four == b"Exif")
        .expect("metadata is kept");
    // The orientation, tag 0x0112 in the byte order of the input, is 1 now.
    let entry = bytes[exif..]
        .windows(2)
        .position(|tag| tag == [0x12, 0x01])
        .expect("orientation is kept")
        + exif;
    assert_eq!(bytes[entry + 8], 1);
}

#[test]
fn alpha_is_kept_if_the_format_supports_it() {
    let world = World::new();
    let image = RgbaImage::from_fn(32, 32, |x, _| {
        Rgba([200, 40, 40, if x < 16 { 0 } else { 255 }])
    });
    world.file(
        "a.png",
        &encoded(&DynamicImage::ImageRgba8(image), ImageFormat::Png),
    );
    world.run("a.png -s 16 -o out").exits(0);
    world.run("a.png -s 16 -o out --format webp").exits(0);
    world.run("a.png -s 16 -o out --format jpeg").exits(0);
    for name in ["out/a.png", "out/a.webp"] {
        let image = world.image(name).to_rgba8();
        assert_eq!(image.get_pixel(2, 8).0[3], 0, "{name}");
        assert_eq!(image.get_pixel(13, 8).0[3], 255, "{name}");
    }
    assert!(!world.image("out/a.jpg").color().has_alpha());
    world
        .run("a.png -s 16 -o dark --format jpeg --background #036")
        .exits(0);
    let behind = world.image("dark/a.jpg").to_rgb8().get_pixel(2, 8).0;
    let near = behind
        .iter()
        .zip([0, 0x33, 0x66])
        .all(|(a, b)| a.abs_diff(b) < 16);
    assert!(near, "{behind:?}");
}

#[test]
fn sixteen_bits_and_grey_are_handled() {
    let world = World::new();
    let image = picture(32, 32);
    world.file(
        "p/deep.png",
        &encoded(
            &DynamicImage::ImageRgb16(image.to_rgb16()),
            ImageFormat::Png,
        ),
    );
    world.file(
        "p/grey.jpg",
        &encoded(
            &DynamicImage::ImageLuma8(image.to_luma8()),
            ImageFormat::Jpeg,
        ),
    );
    world.file(
        "p/greydeep.png",
        &encoded(
            &DynamicImage::ImageLuma16(image.to_luma16()),
            ImageFormat::Png,
        ),
    );
    world.run("p -s 16 -o out").exits(0);
    for name in ["deep.png", "grey.jpg", "greydeep.png"] {
        assert_eq!(world.sides(&format!("out/{name}")), (16, 16), "{name}");
    }
}
