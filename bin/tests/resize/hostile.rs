//! Inputs and output folders prepared by an attacker.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileTypeExt;
use std::process::Command;

use image::ImageFormat;

use crate::world::{Run, World, encoded, jpeg, not_tried, picture, png};

/// All files in the world outside `out`, with their content.
fn outside(world: &World) -> Vec<(String, Vec<u8>)> {
    let names = world.all("").into_iter();
    names
        .filter(|name| !name.starts_with("out/") && name != "out")
        .map(|name| {
            let content = fs::read(world.path(&name)).unwrap_or_default();
            (name, content)
        })
        .collect()
}

#[test]
fn names_that_lead_out_of_the_folder_stay_inside() {
    let world = World::new();
    world.photos(&["a.jpg", "in/b.jpg", "in/x/c.jpg"]);
    let before = outside(&world);
    let absolute = world.path("in/b.jpg").display().to_string();
    for (line, name) in [
        ("../a.jpg", "a.jpg"),
        ("x/../../a.jpg", "a.jpg"),
        ("../../../../../../../../../../../../../../no.jpg", ""),
        (&*absolute, "b.jpg"),
        ("x/c.jpg", "x/c.jpg"),
        ("x/../x/c.jpg", "c.jpg"),
        ("/..//../proc/self/cwd/../a.jpg", "a.jpg"),
    ] {
        let mut command = world.command("- -s 8 -o ../out");
        command.current_dir(world.path("in"));
        let list = world.path("list");
        fs::write(&list, line).unwrap();
        command.stdin(fs::File::open(&list).unwrap());
        let child = command
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        fs::remove_file(&list).unwrap();
        let run = crate::world::wait(child);
        if name.is_empty() {
            run.exits(2);
            continue;
        }
        run.exits(0);
        assert_eq!(world.tree("out"), [name], "{line}");
        assert_eq!(outside(&world), before, "{line}");
        fs::remove_dir_all(world.path("out")).unwrap();
    }
}

#[test]
fn invalid_file_names_are_reported_and_the_rest_is_done() {
    let world = World::new();
    world.photos(&["a.jpg"]);
    let long = "y".repeat(300);
    let run = world
        .run_with_stdin(
            "- -s 8 -o out",
            format!("nul\0byte.jpg\n{long}.jpg\na.jpg\n").as_bytes(),
        )
        .exits(1)
        .says(&["nul\\0byte.jpg", "use -0"])
        .says(&[&long[..200]]);
    assert_eq!(run.lines(), ["out/a.jpg"]);
    assert_eq!(run.errors().len(), 2, "{}", run.stderr);
}

#[test]
fn a_result_whose_name_is_too_long_is_one_failure() {
    let world = World::new();
    // A name has at most 255 bytes; the result's extension is one byte longer.
    let longest = format!("{}.jpg", "x".repeat(251));
    let multi = format!("{}.jpg", "ä".repeat(125));
    world.photos(&[&format!("p/{longest}"), &format!("p/{multi}"), "p/a.jpg"]);
    let run = world.run("p -s 8 -o same").exits(0);
    assert_eq!(run.lines().len(), 3);
    let run = world
        .run("p -s 8 -o out --format webp")
        .exits(1)
        .says(&[&longest, "too long"]);
    assert_eq!(run.errors().len(), 1, "{}", run.stderr);
    let mut expected = vec!["a.webp".to_owned(), multi.replace(".jpg", ".webp")];
    expected.sort();
    assert_eq!(world.tree("out"), expected);
    assert_eq!(
        world.all("out").len(),
        1 + 2,
        "no temporary file is left beside the record"
    );
}

#[test]
fn names_that_are_not_utf8_are_kept() {
    let world = World::new();
    world.photos(&["p/a.jpg"]);
    let odd = OsString::from_vec(b"b\xff\n\x1b[31m.jpg".to_vec());
    fs::rename(world.path("p/a.jpg"), world.path("p").join(&odd)).unwrap();
    let run = world.run("p -s 8 -o out").exits(0);
    assert!(world.path("out").join(&odd).exists(), "{}", run.stdout);
    fs::write(world.path("p").join(&odd), b"\xff\xd8\xff broken").unwrap();
    let run = world.run("p -s 8 -o out2").exits(1);
    assert!(!run.stderr.contains('\x1b'), "{:?}", run.stderr);
    assert_eq!(run.errors().len(), 1, "one line: {:?}", run.stderr);
}

#[test]
fn links_with_the_names_of_results_are_replaced_and_never_followed() {
    let world = World::new();
    world
        .photos(&[
            "p/live.jpg",
            "p/dangling.jpg",
            "p/folder.jpg",
            "p/self.jpg",
            "p/up.jpg",
        ])
        .file("precious/live.jpg", b"mine")
        .file("precious/dir/keep", b"mine")
        .symlink("../precious/live.jpg", "out/live.jpg")
        .symlink("../precious/new.jpg", "out/dangling.jpg")
        .symlink("../precious/dir", "out/folder.jpg")
        .symlink("self.jpg", "out/self.jpg")
        .symlink("/etc/hostname", "out/up.jpg");
    let before = outside(&world);
    let run = world.run("p -s 8 -o out").exits(1);
    assert_eq!(run.errors().len(), 5, "{}", run.stderr);
    world.run("p -s 8 -o out --overwrite").exits(0);
    assert_eq!(outside(&world), before);
    for name in ["live", "dangling", "folder", "self", "up"] {
        let path = world.path(&format!("out/{name}.jpg"));
        assert!(fs::symlink_metadata(path).unwrap().is_file(), "{name}");
        assert_eq!(world.sides(&format!("out/{name}.jpg")), (8, 6));
    }
}

#[test]
fn links_with_the_names_of_folders_are_not_followed() {
    let world = World::new();
    world
        .photos(&[
            "p/out/a.jpg",
            "p/gone/b.jpg",
            "p/in/c.jpg",
            "p/deep/er/d.jpg",
            "p/e.jpg",
        ])
        .file("precious/keep", b"mine")
        .file("out/inside/keep", b"")
        .file("out/deep/keep", b"")
        .symlink("../precious", "out/out")
        .symlink("../nowhere", "out/gone")
        .symlink("inside", "out/in")
        .symlink("../../precious", "out/deep/er");
    let before = outside(&world);
    let run = world
        .run("p -s 8 -o out")
        .exits(1)
        .says(&["p/out/a.jpg", "out/out is a link"])
        .says(&["p/gone/b.jpg", "out/gone is a link"])
        .says(&["p/in/c.jpg", "out/in is a link"])
        .says(&["p/deep/er/d.jpg", "out/deep/er is a link"]);
    assert_eq!(run.lines(), ["out/e.jpg"]);
    assert_eq!(outside(&world), before);
    assert!(!world.path("nowhere").exists());
}

#[test]
fn pipes_and_devices_with_the_names_of_results_do_not_block_the_run() {
    let world = World::new();
    world.photos(&["p/pipe.jpg", "p/null.jpg", "p/a.jpg"]);
    world.pipe("out/pipe.jpg");
    let null = world.path("out/null.jpg");
    let made = Command::new("mknod")
        .arg(&null)
        .args(["c", "1", "3"])
        .status()
        .is_ok_and(|status| status.success());
    if !made {
        not_tried("a device in the place of a result, which only root can make");
    }
    world
        .run("p -s 8 -o out")
        .exits(1)
        .says(&["out/pipe.jpg exists"]);
    world.run("p -s 8 -o out --overwrite").exits(0);
    for name in ["pipe", "null", "a"] {
        assert_eq!(world.sides(&format!("out/{name}.jpg")), (8, 6), "{name}");
    }
    let device = fs::metadata("/dev/null").unwrap().file_type();
    assert!(device.is_char_device(), "the device itself is what it was");
}

#[test]
fn pipes_devices_and_sockets_as_inputs_do_not_block_the_run() {
    let world = World::new();
    world.photos(&["p/a.jpg"]).pipe("p/pipe.jpg");
    let _socket = std::os::unix::net::UnixListener::bind(world.path("p/socket.jpg")).unwrap();
    world.symlink("/dev/zero", "p/endless.jpg");
    let named = "p/a.jpg p/pipe.jpg p/endless.jpg p/socket.jpg";
    for inputs in ["p", "p/**/*.jpg", named] {
        let run = world
            .run(&format!("{inputs} -s 8 -o out"))
            .exits(1)
            .says(&["p/pipe.jpg", "not a regular file"])
            .says(&["p/endless.jpg", "not a regular file"])
            .says(&["p/socket.jpg", "not a regular file"]);
        assert_eq!(run.errors().len(), 3, "{inputs}: {}", run.stderr);
        assert_eq!(run.lines(), ["out/a.jpg"], "{inputs}");
    }
}

#[test]
fn a_record_that_is_not_a_file_is_left_alone() {
    let world = World::new();
    world.photos(&["p/a.jpg"]).file("precious", b"mine");
    for flags in ["", "--resume"] {
        world.pipe("out/.arenite-resize");
        let run = world.run(&format!("p -s 8 -o out {flags}")).exits(0);
        assert!(run.stderr.contains(".arenite-resize"), "{}", run.stderr);
        let kind = fs::symlink_metadata(world.path("out/.arenite-resize")).unwrap();
        assert!(kind.file_type().is_fifo());
        fs::remove_dir_all(world.path("out")).unwrap();

        world.symlink("../precious", "out/.arenite-resize");
        let run = world.run(&format!("p -s 8 -o out {flags}")).exits(0);
        assert!(run.stderr.contains(".arenite-resize"), "{}", run.stderr);
        assert_eq!(fs::read(world.path("precious")).unwrap(), b"mine");
        fs::remove_dir_all(world.path("out")).unwrap();
    }
}

#[test]
fn a_folder_that_is_not_writable_is_reported() {
    let world = World::new();
    world.photos(&["p/sub/a.jpg", "p/b.jpg"]);
    fs::create_dir_all(world.path("out/sub")).unwrap();
    world.mode("out/sub", 0o555);
    let run = world.finish(world.command_without_privilege("p -s 8 -o out"));
    let run = run
        .exits(1)
        .says(&["p/sub/a.jpg", "out/sub", "permission denied"]);
    assert_eq!(run.lines(), ["out/b.jpg"]);
    assert_eq!(world.all("out"), [".arenite-resize", "b.jpg"]);
    world.mode("out/sub", 0o755);
}

/// A folder of hostile files, through the whole command: each input is reported, and no worker dies.
#[test]
fn corrupt_pictures_and_bombs_are_one_line_each_and_kill_no_worker() {
    const OF_THE_PICTURE: [&str; 6] = [
        "unsupported-format",
        "not-an-image",
        "truncated",
        "corrupt",
        "too-many-pixels",
        "bomb",
    ];
    let world = World::new();
    let image = picture(40, 30);
    let formats = [
        (ImageFormat::Jpeg, "jpg"),
        (ImageFormat::Png, "png"),
        (ImageFormat::WebP, "webp"),
        (ImageFormat::Gif, "gif"),
        (ImageFormat::Tiff, "tif"),
        (ImageFormat::Bmp, "bmp"),
    ];
    let mut seed = 7u64;
    for (format, extension) in formats {
        let whole = encoded(&image, format);
        for part in 0..16 {
            let end = whole.len() * part / 16;
            world.file(
                &format!("p/{extension}/cut{part:02}.{extension}"),
                &whole[..end],
            );
            let mut spoilt = whole.clone();
            for _ in 0..3 {
                seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                let at = (seed >> 33) as usize % spoilt.len().min(200);
                spoilt[at] = (seed >> 20) as u8;
            }
            world.file(
                &format!("p/{extension}/spoilt{part:02}.{extension}"),
                &spoilt,
            );
        }
    }
    let mut gif = b"GIF89a".to_vec();
    gif.extend(42_000u16.to_le_bytes().repeat(2));
    gif.extend([0, 0, 0, 0x2c, 0, 0, 0, 0]);
    gif.extend(42_000u16.to_le_bytes().repeat(2));
    gif.extend([0, 2, 1, 0x44, 0, 0x3b]);
    world.file("p/bomb.gif", &gif);
    let mut bmp = encoded(&picture(4, 4), ImageFormat::Bmp);
    bmp[18..22].copy_from_slice(&11_000i32.to_le_bytes());
    bmp[22..26].copy_from_slice(&11_000i32.to_le_bytes());
    world.file("p/runs.bmp", &bmp);
    world
        .file("p/fine.jpg", &jpeg(40, 30))
        .file("p/fine2.png", &png(40, 30));

    let run: Run = world.run("p -s 16 -o out -j 2 --json").exits(1);
    let lines = run.json();
    let (summary, files) = lines.split_last().unwrap();
    assert_eq!(files.len(), 6 * 32 + 4);
    let failed: Vec<_> = files
        .iter()
        .filter(|line| line["status"] != "written")
        .collect();
    assert!(failed.len() > 60, "{}", failed.len());
    for line in &failed {
        let cause = line["cause"].as_str().unwrap();
        assert!(OF_THE_PICTURE.contains(&cause), "{line}");
        assert!(
            line["error"]
                .as_str()
                .is_some_and(|error| !error.is_empty()),
            "{line}"
        );
    }
    assert_eq!(run.errors().len(), failed.len());
    assert_eq!(summary["failed"], failed.len());
    let cause = |name: &str| {
        let mut found = files.iter().filter(|line| line["input"] == name);
        found.next().unwrap()["cause"].clone()
    };
    assert_eq!(cause("p/bomb.gif"), "too-many-pixels");
    assert_eq!(cause("p/runs.bmp"), "bomb");
    assert!(world.path("out/fine.jpg").exists() && world.path("out/fine2.png").exists());
    assert_eq!(world.tree("out").len(), files.len() - failed.len());
}
