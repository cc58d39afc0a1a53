//! Several `--size` from one decode, and `--name`.

use std::fs;

use image::DynamicImage;
use serde_json::json;

use crate::world::{World, jpeg, jpeg_turned, png};

const NAMES: &str = "--name {stem}-{width}.{ext}";

/// The mean difference of two pictures of the same sides, in levels of 255.
fn difference(one: &DynamicImage, other: &DynamicImage) -> f64 {
    let (one, other) = (one.to_rgb8(), other.to_rgb8());
    assert_eq!(one.dimensions(), other.dimensions());
    let pairs = one.as_raw().iter().zip(other.as_raw());
    let sum: u64 = pairs.map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
    sum as f64 / one.as_raw().len() as f64
}

#[test]
fn each_picture_has_a_result_per_size_named_by_its_real_width() {
    let world = World::new();
    // A box of N×N: the width of an upright picture is not N.
    world
        .file("p/a.jpg", &jpeg(800, 600))
        .file("p/x/b.png", &png(600, 800))
        .file("p/turned.jpg", &jpeg_turned(800, 600, 6));
    let run = world
        .run(&format!("p -s 40 -s 160 -s 80 -o out {NAMES}"))
        .exits(0);
    let names =
        |stem: &str, widths: [u32; 3], ext: &str| widths.map(|w| format!("{stem}-{w}.{ext}"));
    let a = names("a", [40, 160, 80], "jpg");
    let b = names("x/b", [30, 120, 60], "png");
    let turned = names("turned", [30, 120, 60], "jpg");
    let all: Vec<&String> = a.iter().chain(&turned).chain(&b).collect();
    let listed: Vec<String> = all.iter().map(|name| format!("out/{name}")).collect();
    assert_eq!(
        run.lines(),
        listed,
        "in the order of the inputs, and of the sizes"
    );
    assert!(run.stderr.contains("3 written (9 files)"), "{}", run.stderr);
    assert_eq!(world.tree("out").len(), 9);
    for (name, sides) in [
        (&a[0], (40, 30)),
        (&a[1], (160, 120)),
        (&b[2], (60, 80)),
        (&turned[1], (120, 160)),
    ] {
        assert_eq!(world.sides(&format!("out/{name}")), sides, "{name}");
    }
    // The largest is that of a run of its own; the others are as good.
    for size in [40, 80, 160] {
        world.run(&format!("p -s {size} -o alone {NAMES}")).exits(0);
    }
    for name in all {
        let [ours, alone] = ["out", "alone"].map(|folder| format!("{folder}/{name}"));
        let error = difference(&world.image(&ours), &world.image(&alone));
        assert!(error <= 2.0, "{name}: {error}");
        let bytes = |name: &str| fs::read(world.path(name)).unwrap();
        let is_largest = [&a[1], &b[1], &turned[1]].contains(&name);
        assert!(!is_largest || bytes(&ours) == bytes(&alone), "{name}");
    }
}

#[test]
fn sizes_that_a_picture_does_not_reach_have_one_result() {
    let world = World::new();
    world.file("p/a.jpg", &jpeg(100, 50));
    let sizes = "-s 60x -s 120x -s 240x --no-enlarge";
    let run = world.run(&format!("p {sizes} -o out {NAMES}")).exits(0);
    assert_eq!(run.lines(), ["out/a-60.jpg", "out/a-100.jpg"]);
    assert_eq!(world.sides("out/a-100.jpg"), (100, 50));
    assert_eq!(world.tree("out"), ["a-100.jpg", "a-60.jpg"]);
}

#[test]
fn names_that_cannot_tell_sizes_apart_are_wrong_usage() {
    let world = World::new();
    world.photos(&["p/a.jpg"]);
    for (flags, words) in [
        ("-s 8 -s 16", "{stem}-{width}.{ext}"),
        ("-s 8 -s 16 --name {stem}.{ext}", "{stem}-{width}.{ext}"),
        ("-s 8x8! -s 8x9! --name {width}.{ext}", "{height}"),
        ("-s 8 --name {stem}.png --format jpeg", "write {ext}"),
    ] {
        let run = world.run(&format!("p {flags} -o out")).exits(2);
        run.says(&[words]);
    }
    let run = world.run("p -s 8 --name {nam}.{ext} -o out").exits(2);
    assert!(run.stderr.contains("{nam}"), "{}", run.stderr);
    assert!(run.stderr.contains("{width}"), "{}", run.stderr);
    assert!(!world.path("out").exists());
}

#[test]
fn a_name_may_lead_into_folders_and_choose_the_format() {
    let world = World::new();
    world.photos(&["p/x/a.jpg", "p/IMG.0001"]);
    let run = world
        .run("p -s 8x -s 16x -o out --name {width}/t_{stem}.png")
        .exits(0);
    assert_eq!(
        run.lines(),
        [
            "out/8/t_IMG.0001.png",
            "out/16/t_IMG.0001.png",
            "out/x/8/t_a.png",
            "out/x/16/t_a.png"
        ]
    );
    assert_eq!(
        world.format("out/8/t_IMG.0001.png"),
        image::ImageFormat::Png
    );
    let run = world
        .run("p/x/a.jpg -s 8 -o one --name {stem}_t.{ext}")
        .exits(0);
    assert_eq!(run.lines(), ["one/a_t.jpg"]);
    assert!(run.stderr.contains("1 written;"), "{}", run.stderr);
}

#[test]
fn json_has_all_results_in_the_line_of_their_picture() {
    let world = World::new();
    world
        .file("p/a.jpg", &jpeg(64, 48))
        .file("p/b.jpg", b"\xff\xd8\xff torn");
    let flags = format!("p -s 16 -s 32 -s 8 -o out {NAMES} --json");
    let lines = world.run(&format!("{flags} --dry-run")).exits(0).json();
    assert_eq!(lines[0]["status"], "planned");
    assert_eq!(lines[0]["output"], "out/a-{width}.jpg");
    let lines = world.run(&flags).exits(1).json();
    assert_eq!(lines.len(), 3);
    let bytes = |width: u32| {
        let name = format!("out/a-{width}.jpg");
        fs::metadata(world.path(&name)).unwrap().len()
    };
    let result = |width: u32, height: u32| {
        let output = format!("out/a-{width}.jpg");
        json!({"output": output, "bytes": bytes(width), "width": width, "height": height})
    };
    let results = json!([result(16, 12), result(32, 24), result(8, 6)]);
    let [a, b, summary] = &lines[..] else {
        unreachable!()
    };
    assert_eq!((&a["results"], &a["status"]), (&results, &json!("written")));
    // What a reader of single results looks at is the largest.
    assert_eq!(a["output"], "out/a-32.jpg");
    assert_eq!([&a["width"], &a["height"]], [32, 24]);
    assert_eq!(a["bytes"], bytes(32));
    assert_eq!((&b["status"], b.get("results")), (&json!("failed"), None));
    assert_eq!([&summary["written"], &summary["results"]], [1, 3]);
    assert_eq!(summary["bytes"], bytes(16) + bytes(32) + bytes(8));
    assert_eq!(world.tree("out").len(), 3);
}

#[test]
fn resume_skips_a_picture_whose_results_are_all_there() {
    let world = World::new();
    world.photos(&["p/a.jpg", "p/b.jpg"]);
    let flags = format!("p -s 8 -s 16 -o out {NAMES} --resume");
    world.run(&flags).exits(0);
    let run = world.run(&flags).exits(0);
    assert_eq!(run.lines(), [""; 0]);
    assert!(run.stderr.contains("2 up to date"), "{}", run.stderr);
    let lines = world.run(&format!("{flags} --json")).exits(0).json();
    assert_eq!(lines[0]["status"], "fresh");
    assert_eq!(lines[0]["output"], "out/a-16.jpg");
    assert_eq!(lines[0]["results"][0]["output"], "out/a-8.jpg");
    assert_eq!(lines[0]["results"][1]["width"], 16);
    // One result is gone, or another size was asked for.
    fs::remove_file(world.path("out/b-8.jpg")).unwrap();
    let run = world.run(&flags).exits(0);
    assert_eq!(run.lines(), ["out/b-8.jpg", "out/b-16.jpg"]);
    let more = format!("p -s 8 -s 16 -s 24 -o out {NAMES} --resume");
    assert_eq!(world.run(&more).exits(0).lines().len(), 6);
    // Other names are other results.
    let renamed = "p -s 8 -s 16 -s 24 -o out --name {stem}_{width}.{ext} --resume";
    assert_eq!(world.run(renamed).exits(0).lines().len(), 6);
    assert_eq!(world.run(&more).exits(0).lines(), [""; 0]);
}

#[test]
fn pictures_with_equal_names_up_to_the_sides_fail() {
    let world = World::new();
    world.photos(&["p/a.jpg", "p/a.jpeg"]);
    let run = world.run(&format!("p -s 8 -s 16 -o out {NAMES}")).exits(1);
    let template = "--name '{name}-{width}.{ext}'";
    run.says(&["p/a.jpg", "p/a.jpeg", "out/a-{width}.jpg", template]);
    world.photos(&["q/a.jpg", "q/b.jpg"]);
    let run = world
        .run("q -s 8 -s 16 -o out --name {width}.{ext}")
        .exits(1);
    run.says(&["q/a.jpg", "q/b.jpg", "out/{width}.jpg", template]);
    assert!(!world.path("out").exists());
}

#[test]
fn a_name_that_turns_out_to_be_taken_fails_its_picture() {
    let world = World::new();
    world
        .file("p/a.jpg", &jpeg(116, 10))
        .file("p/a1.jpg", &jpeg(16, 10))
        .file("p/b.jpg", &jpeg(20, 10));
    let flags = "-s 200 --no-enlarge -j 1 --name {stem}{width}.{ext} --json";
    let lines = world.run(&format!("p {flags} -o out")).exits(1).json();
    assert_eq!(lines[3]["written"], 2);
    let failed: Vec<_> = lines
        .iter()
        .filter(|line| line["status"] == "failed")
        .collect();
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0]["cause"], "name-conflict");
    assert_eq!(world.tree("out"), ["a116.jpg", "b20.jpg"]);

    // Two results of one picture.
    world.file("q/a.jpg", &jpeg(100, 100));
    let run = world
        .run(&format!("q -s 20x20 -s 20x10 --fit cover -o cut {NAMES}"))
        .exits(1);
    run.says(&["q/a.jpg", "20x20", "20x10", "a-20.jpg"]);
    assert_eq!(world.tree("cut"), [""; 0]);

    // An input.
    world
        .file("in/a-16.jpg", &jpeg(9, 9))
        .file("r/a.jpg", &jpeg(32, 32));
    let run = world
        .run(&format!("r in/a-16.jpg -s 16 -o in {NAMES}"))
        .exits(1);
    run.says(&["r/a.jpg", "would overwrite an input"]);
    assert_eq!(world.sides("in/a-16.jpg"), (9, 9));
}
