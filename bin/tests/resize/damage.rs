//! `--fail-on`.

use std::path::Path;

use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};

use crate::world::{World, jpeg};

/// A picture that a user reported.
fn reported(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../image/src/tests/reported");
    std::fs::read(folder.join(name)).unwrap()
}

#[test]
fn damage_around_the_pixels_is_a_warning_unless_it_is_to_fail() {
    let names = [
        "jpeg_dri_without_rst.jpg",
        "jpeg_zero_after_soi.jpg",
        "png_truncated_idat_after_complete_pixels.png",
    ];
    let world = World::new();
    for name in names {
        world.file(&format!("p/{name}"), &reported(name));
    }
    for level in ["none", "truncated", "error"] {
        let run = world
            .run(&format!("p -s 64 -o {level} --fail-on {level} --json"))
            .exits(0);
        let lines = run.json();
        for line in &lines[..3] {
            assert_eq!(line["status"], "written", "{line}");
            assert!(
                line["warning"]
                    .as_str()
                    .unwrap()
                    .contains("no pixel is missing"),
                "{line}"
            );
            assert_eq!(line["missing"], 0.0, "{line}");
        }
        assert_eq!(
            (&lines[3]["written"], &lines[3]["warnings"]),
            (&3.into(), &3.into())
        );
        assert_eq!(
            run.stderr.matches("warning: p/").count(),
            3,
            "{}",
            run.stderr
        );
    }
    let run = world.run("p -s 64 -o strict --fail-on warning").exits(1);
    assert_eq!(run.errors().len(), 3);
    assert!(!world.path("strict").exists() || world.tree("strict").is_empty());
    // --quiet prints errors only.
    let run = world.run("p -s 64 -o quiet --quiet").exits(0);
    assert_eq!(run.stderr, "");
}

/// A picture whose colours are wrong looks finished too.
#[test]
fn a_colour_profile_that_cannot_be_applied_is_a_warning() {
    let mut png = Vec::new();
    let mut encoder = PngEncoder::new(&mut png);
    encoder.set_icc_profile(b"no profile".to_vec()).unwrap();
    encoder
        .write_image(&[90; 48], 4, 4, ExtendedColorType::Rgb8)
        .unwrap();
    let world = World::new();
    world.file("p/a.png", &png);
    let run = world.run("p -s 2 -o out --json").exits(0);
    let warning = run.json()[0]["warning"].as_str().unwrap().to_owned();
    assert!(
        warning.contains("colour profile cannot be read"),
        "{warning}"
    );
    assert!(run.stderr.contains("warning: p/a.png: "), "{}", run.stderr);
    let run = world.run("p -s 2 -o strict --fail-on warning").exits(1);
    assert!(run.errors()[0].contains("colour profile"), "{}", run.stderr);
}

#[test]
fn missing_pixels_show_the_background_where_they_are_allowed() {
    let world = World::new();
    let whole = jpeg(640, 480);
    world.file("p/a.jpg", &whole[..whole.len() / 2]);
    for level in [
        "",
        "--fail-on truncated",
        "--fail-on error",
        "--fail-on warning",
    ] {
        let run = world.run(&format!("p -s 64 -o out {level}")).exits(1);
        run.says(&["p/a.jpg", "truncated JPEG"]);
    }
    let line = "p -s 64 -o out --fail-on none --background #ff0000 --json";
    let run = world.run(line).exits(0);
    let lines = run.json();
    let missing = lines[0]["missing"].as_f64().unwrap();
    assert!((0.2..0.9).contains(&missing), "{missing}");
    let percent = format!("{:.1} % of its pixels are missing", missing * 100.0);
    assert!(
        lines[0]["warning"].as_str().unwrap().contains(&percent),
        "{}",
        lines[0]
    );
    let made = world.image("out/a.jpg").to_rgb8();
    let last = made.get_pixel(32, made.height() - 1).0;
    assert!(last[0] > 240 && last[1] < 16 && last[2] < 16, "{last:?}");
    let first = made.get_pixel(32, 2).0;
    assert!(first[0] < 200, "{first:?}");
}

#[test]
fn pixels_that_are_wrong_count_as_errors_but_not_as_truncation() {
    let world = World::new();
    let mut file = jpeg(640, 480);
    // Codes of ones only are invalid.
    let middle = file.len() / 2;
    file[middle..middle + 64].fill(0xfe);
    world.file("p/a.jpg", &file);
    world
        .run("p -s 64 -o out")
        .exits(1)
        .says(&["p/a.jpg", "corrupt JPEG"]);
    let run = world.run("p -s 64 -o out --fail-on truncated").exits(0);
    assert!(run.stderr.contains("warning: p/a.jpg"), "{}", run.stderr);
}

/// Other programs read the first picture of these files, and fail at a later one: `cut/ends.txt`.
#[test]
fn a_file_that_ends_after_its_first_picture_is_written_with_a_warning() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../image/src/tests/cut");
    let world = World::new();
    for name in ["lzw.tif", "strips.tif", "two.mpo"] {
        let file = std::fs::read(folder.join(name)).unwrap();
        world.file(&format!("p/{name}"), &file[..file.len() - 50]);
    }
    let run = world.run("p -s 8 -o out --json").exits(0);
    for line in &run.json()[..3] {
        assert_eq!(line["status"], "written", "{line}");
        let warning = line["warning"].as_str().unwrap();
        assert!(warning.starts_with("truncated "), "{line}");
        assert_eq!(line["missing"], 0.0, "{line}");
    }
    world.run("p -s 8 -o strict --fail-on warning").exits(1);
    let run = world.finish(world.subcommand("check", "p")).exits(1);
    assert_eq!(
        run.stdout
            .matches("the file ends before the picture does")
            .count(),
        3
    );
}
