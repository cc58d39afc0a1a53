//! `arenite check`, which shares inputs, workers and output with `resize`.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use image::ImageFormat;
use serde_json::Value;

use crate::begun::{PICTURES, begun, many_pictures};
use crate::world::{JPEG_2000, Run, World, children, encoded, gone, jpeg, picture, png, signal};

fn check(world: &World, line: &str) -> Run {
    world.finish(world.subcommand("check", line))
}

/// A picture that a user reported.
fn reported(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../image/src/tests/reported");
    fs::read(folder.join(name)).unwrap()
}

/// A folder `p` with whole files of all formats.
fn whole_files() -> World {
    let world = World::new();
    for (name, format) in [
        ("a.jpg", ImageFormat::Jpeg),
        ("b.png", ImageFormat::Png),
        ("c.webp", ImageFormat::WebP),
        ("sub/d.gif", ImageFormat::Gif),
        ("sub/e.tif", ImageFormat::Tiff),
        ("sub/f.bmp", ImageFormat::Bmp),
    ] {
        world.file(&format!("p/{name}"), &encoded(&picture(640, 480), format));
    }
    world.file("p/notes.txt", b"no picture");
    world
}

/// Cuts a file to this share of its length.
fn cut(world: &World, name: &str, share: f64) {
    let path = world.path(name);
    let bytes = fs::read(&path).unwrap();
    fs::write(path, &bytes[..(bytes.len() as f64 * share) as usize]).unwrap();
}

#[track_caller]
fn line_of<'a>(lines: &'a [Value], input: &str) -> &'a Value {
    let found = lines.iter().find(|line| line["input"] == input);
    found.unwrap_or_else(|| panic!("no line of {input} in {lines:?}"))
}

#[test]
fn whole_pictures_are_not_listed_and_nothing_is_written() {
    let world = whole_files();
    let before = world.all("");
    let run = check(&world, "p").exits(0);
    assert_eq!((run.stdout.as_str(), run.errors().len()), ("", 0));
    for words in ["6 whole", "1 skipped"] {
        assert!(run.stderr.contains(words), "{}", run.stderr);
    }
    let lines = check(&world, "p --json").exits(0).json();
    let (summary, files) = lines.split_last().unwrap();
    for line in files {
        assert_eq!(line["status"], "whole", "{line}");
        assert_eq!(
            (&line["width"], &line["height"]),
            (&640.into(), &480.into())
        );
        assert!(
            line["output"].is_null() && line["cause"].is_null(),
            "{line}"
        );
    }
    assert_eq!(line_of(files, "p/sub/d.gif")["format"], "gif");
    assert_eq!(
        (&summary["whole"], &summary["status"]),
        (&6.into(), &"done".into())
    );
    assert!(summary.get("written").is_none(), "{summary}");
    assert_eq!(check(&world, "p --quiet").exits(0).stderr, "");
    assert_eq!(world.all(""), before);
}

#[test]
fn damaged_pictures_are_listed_with_what_is_wrong() {
    let world = whole_files();
    for name in [
        "p/a.jpg",
        "p/b.png",
        "p/c.webp",
        "p/sub/d.gif",
        "p/sub/e.tif",
        "p/sub/f.bmp",
    ] {
        fs::copy(world.path(name), world.path(&name.replace('.', "-torn."))).unwrap();
        cut(&world, &name.replace('.', "-torn."), 0.5);
    }
    // A wrong checksum, a code that does not exist, and zeros in the place of a picture.
    let mut sum = png(64, 48);
    let middle = sum.len() / 2;
    sum[middle] ^= 1;
    world.file("p/sum.png", &sum);
    let mut code = jpeg(640, 480);
    let middle = code.len() / 2;
    code[middle..middle + 64].fill(0xfe);
    world.file("p/code.jpg", &code);
    world.file("p/zeros.jpg", &[0; 4096]);
    world.file("p/empty.png", b"");
    let run = check(&world, "p").exits(1);
    assert_eq!(run.errors(), [""; 0]);
    let listed: Vec<(&str, &str)> = run
        .lines()
        .into_iter()
        .map(|line| line.split_once('\t').unwrap())
        .collect();
    let expected = [
        ("p/a-torn.jpg", "truncated JPEG"),
        ("p/b-torn.png", "truncated PNG"),
        ("p/c-torn.webp", "truncated WebP"),
        ("p/code.jpg", "corrupt JPEG"),
        ("p/empty.png", "the file is empty"),
        ("p/sub/d-torn.gif", "truncated GIF"),
        ("p/sub/e-torn.tif", "truncated TIFF"),
        ("p/sub/f-torn.bmp", "truncated BMP"),
        ("p/sum.png", "corrupt PNG"),
        ("p/zeros.jpg", "no known format"),
    ];
    assert_eq!(listed.len(), expected.len(), "{}", run.stdout);
    for ((path, why), (expected, words)) in listed.iter().zip(expected) {
        assert!(*path == expected && why.contains(words), "{path}: {why}");
    }
    let words = "6 whole, 10 damaged";
    assert!(run.stderr.contains(words), "{}", run.stderr);
    // Also under --quiet: it is what the run is for.
    let quiet = check(&world, "p -q -j 1").exits(1);
    assert_eq!((quiet.stdout, quiet.stderr.as_str()), (run.stdout, ""));
    let lines = check(&world, "p --json").exits(1).json();
    let torn = line_of(&lines, "p/a-torn.jpg");
    assert_eq!(
        (&torn["status"], &torn["cause"]),
        (&"damaged".into(), &"truncated".into())
    );
    assert_eq!(line_of(&lines, "p/zeros.jpg")["cause"], "not-an-image");
    let summary = lines.last().unwrap();
    assert_eq!(
        (&summary["damaged"], &summary["failed"]),
        (&10.into(), &0.into())
    );
}

#[test]
fn what_cannot_be_judged_is_failed_and_not_listed() {
    let world = World::new();
    world.photos(&["p/a.jpg"]).pipe("p/pipe.jpg");
    world.file("p/new.jp2", JPEG_2000);
    world.file("p/large.png", &png(300, 300));
    world.file("notes.txt", b"no picture");
    let line = "p notes.txt missing.jpg --max-pixels 80000";
    let run = check(&world, line).exits(1);
    assert_eq!(run.stdout, "");
    let run = run
        .says(&["p/pipe.jpg", "not a regular file"])
        .says(&["p/new.jp2", "JPEG 2000"])
        .says(&["p/large.png", "raise --max-pixels"])
        .says(&["notes.txt", "not an image"])
        .says(&["missing.jpg", "no such file"]);
    assert_eq!(run.errors().len(), 5, "{}", run.stderr);
    let lines = check(&world, &format!("{line} --json")).exits(1).json();
    for (input, cause) in [
        ("p/pipe.jpg", "read"),
        ("p/new.jp2", "unsupported-format"),
        ("p/large.png", "too-many-pixels"),
        ("notes.txt", "not-an-image"),
        ("missing.jpg", "not-found"),
    ] {
        let line = line_of(&lines, input);
        assert_eq!(
            (&line["status"], &line["cause"]),
            (&"failed".into(), &cause.into())
        );
    }
    let summary = lines.last().unwrap();
    assert_eq!(
        (&summary["damaged"], &summary["failed"]),
        (&0.into(), &5.into())
    );
}

#[test]
fn a_worker_that_hangs_proves_no_damage() {
    let world = many_pictures();
    let running = begun(world.subcommand("check", "p -j 1 --json --timeout 6s"));
    let id = running.id();
    signal(children(id)[0], libc::SIGSTOP);
    let run = running.ended().exits(1);
    gone(id);
    let lines = run.json();
    let (summary, files) = lines.split_last().unwrap();
    let failed: Vec<_> = files
        .iter()
        .filter(|line| line["status"] != "whole")
        .collect();
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert_eq!(
        (&failed[0]["status"], &failed[0]["cause"]),
        (&"failed".into(), &"timeout".into())
    );
    assert_eq!(summary["whole"], PICTURES - 1);
    let name = failed[0]["input"].as_str().unwrap().to_owned();
    run.says(&[&name, "raise --timeout"]);
}

#[test]
fn the_level_of_damage_is_that_of_resize() {
    let world = World::new();
    for name in ["jpeg_dri_without_rst.jpg", "jpeg_zero_after_soi.jpg"] {
        world.file(&format!("p/{name}"), &reported(name));
    }
    world.file("p/torn.jpg", &reported("jpeg_truncated_by_50_bytes.jpg"));
    for (level, damaged) in [("none", 0), ("truncated", 1), ("error", 1), ("warning", 3)] {
        let run = check(&world, &format!("p --fail-on {level}")).exits(i32::from(damaged > 0));
        assert_eq!(run.lines().len(), damaged, "{level}");
        let warnings = run.stderr.matches("warning: p/").count();
        assert_eq!(warnings, 3 - damaged, "{level}: {}", run.stderr);
        assert_eq!(run.errors(), [""; 0]);
    }
    let lines = check(&world, "p --fail-on none --json").exits(0).json();
    let torn = line_of(&lines, "p/torn.jpg");
    assert_eq!(torn["status"], "whole");
    assert!(torn["missing"].as_f64().unwrap() > 0.0, "{torn}");
    assert_eq!(lines.last().unwrap()["warnings"], 3);
}

#[test]
fn lists_globs_and_shards_are_those_of_resize() {
    let world = World::new();
    let torn = jpeg(640, 480);
    let torn = &torn[..torn.len() / 2];
    let odd = OsStr::from_bytes(b"p/\xff b.jpg");
    world.photos(&["p/a.jpg"]).file("p/c.jpg", torn);
    fs::write(world.path("").join(odd), torn).unwrap();
    assert_eq!(check(&world, "p/c*.jpg").exits(1).lines().len(), 1);
    // Found twice, listed once.
    assert_eq!(check(&world, "p p/c.jpg").exits(1).lines().len(), 2);
    let mut shards = 0;
    for k in 1..=3 {
        let run = check(&world, &format!("p --shard {k}/3"));
        shards += run.lines().len();
    }
    assert_eq!(shards, 2);
    // The bytes of the name as they are.
    let list = world.path("list");
    fs::write(&list, [odd.as_bytes(), b"\0p/a.jpg\0"].concat()).unwrap();
    let mut command = world.subcommand("check", "-0");
    command.stdin(fs::File::open(&list).unwrap());
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let line = [odd.as_bytes(), b"\ttruncated JPEG"].concat();
    assert!(output.stdout.starts_with(&line), "{output:?}");
}

#[test]
fn sandbox_memory_limit_and_reports_work() {
    let world = whole_files();
    check(&world, "p").exits(0);
    let large = png(3000, 3000);
    world.file("q/large.png", &large);
    let run = check(&world, "q --memory-limit 16MiB").exits(1);
    assert_eq!(run.stdout, "");
    run.says(&["q/large.png", "--memory-limit"]);
    check(&world, "p --trace run.json --report run.html").exits(0);
    let trace = fs::read_to_string(world.path("run.json")).unwrap();
    assert!(trace.contains("p/a.jpg"));
    assert!(
        fs::read_to_string(world.path("run.html"))
            .unwrap()
            .contains("</html>")
    );
    // An input is not overwritten.
    check(&world, "p --trace p/a.jpg")
        .exits(2)
        .says(&["--trace would overwrite an input"]);
    check(&world, "p/a.jpg").exits(0);
}

#[test]
fn wrong_usage_is_exit_code_2() {
    let world = World::new();
    world.file("notes/a.txt", b"").photos(&["a.jpg"]);
    for line in [
        "",
        "notes",
        "missing.jpg",
        "a.jpg --out x",
        "a.jpg --size 8",
        "a.jpg --resume",
    ] {
        let run = check(&world, line).exits(2);
        assert!(!run.stderr.is_empty() && run.stdout.is_empty(), "{line}");
    }
    let named = "error: missing.jpg: no such file or folder";
    let run = check(&world, "missing.jpg").exits(2);
    assert_eq!(run.errors(), [named, "error: no input found"]);
    let lines = check(&world, "missing.jpg --json").exits(2).json();
    assert_eq!(lines[0]["status"], "failed");
    assert_eq!(lines[1]["status"], "refused");
    let help = check(&world, "--help").exits(0).stdout;
    for word in [
        "Examples:",
        "--fail-on",
        "--sandbox",
        "Exit codes",
        "damaged",
        "xargs",
    ] {
        assert!(help.contains(word), "{word}");
    }
    let by_hand = help.split("Examples:").nth(1).unwrap();
    assert!(
        by_hand.lines().all(|line| line.chars().count() <= 80),
        "{by_hand}"
    );
    let page = check(&world, "--generate man").exits(0).stdout;
    assert!(
        page.contains(".TH arenite-check") && page.contains("fail\\-on"),
        "{page}"
    );
    let script = check(&world, "--generate complete-bash").exits(0).stdout;
    assert!(script.contains("arenite__subcmd__check") || script.contains("arenite__check"));
}

#[test]
fn a_signal_ends_the_run_after_the_pictures_under_way() {
    let world = many_pictures();
    let mut running = begun(world.subcommand("check", "p -j 1 --json"));
    let id = running.id();
    signal(id, libc::SIGTERM);
    let mut stderr = running.stderr();
    let run = running.ended();
    assert_eq!(run.code, Some(128 + libc::SIGTERM));
    let mut said = String::new();
    std::io::Read::read_to_string(&mut stderr, &mut said).unwrap();
    assert!(
        said.contains("not begun") && !said.contains("--resume"),
        "{said}"
    );
    let lines = run.json();
    assert_eq!(lines.len(), PICTURES + 1);
    assert_eq!(lines.last().unwrap()["status"], "interrupted");
    gone(id);
}
