//! `--sandbox`: the same results, by workers without rights.

use arenite::SandboxReport;

use crate::world::{World, encoded, picture};
use image::ImageFormat::{Bmp, Gif, Jpeg, Png, Tiff, WebP};

fn folder() -> World {
    let world = World::new();
    let image = picture(120, 90);
    for (name, format) in [
        ("p/a.jpg", Jpeg),
        ("p/b.png", Png),
        ("p/c.webp", WebP),
        ("p/d.gif", Gif),
        ("p/e.tiff", Tiff),
        ("p/f.bmp", Bmp),
    ] {
        let image = image.to_rgb8().into();
        world.file(name, &encoded(&image, format));
    }
    world
}

#[test]
fn results_are_the_same() {
    let world = folder();
    world.run("p -s 32 -o plain").exits(0);
    let run = world.run("p -s 32 -o locked --sandbox").exits(0);
    for part in SandboxReport::of_this_kernel().lacking() {
        assert!(
            run.errors().iter().any(|line| line.contains(part)),
            "{part}"
        );
    }
    let names = world.tree("plain");
    assert_eq!(names, world.tree("locked"));
    assert!(names.len() >= 6, "{names:?}");
    for name in names {
        let read = |folder: &str| std::fs::read(world.path(&format!("{folder}/{name}"))).unwrap();
        assert_eq!(read("plain"), read("locked"), "{name}");
    }
}

#[test]
fn a_broken_picture_costs_itself() {
    let world = folder();
    let whole = std::fs::read(world.path("p/a.jpg")).unwrap();
    world.file("p/broken.jpg", &whole[..whole.len() / 3]);
    world.file("p/none.png", b"no picture");
    world
        .run("p -s 32 -o out --sandbox")
        .exits(1)
        .says(&["none.png"]);
    assert!(world.path("out/f.png").exists());
}

#[test]
fn what_is_required_is_there_or_nothing_is_started() {
    let world = folder();
    let run = world.run("p -s 32 -o out --sandbox=require");
    let report = SandboxReport::of_this_kernel();
    if report.is_complete() {
        run.exits(0);
        assert!(world.path("out/a.jpg").exists());
    } else {
        run.exits(2).says(&["sandbox is required"]);
        assert!(!world.path("out/a.jpg").exists());
    }
}
