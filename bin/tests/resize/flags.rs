//! The flags, one by one.

use crate::begun::{begun, many_pictures};
use crate::crc32::crc32;
use crate::world::{World, children, gone, jpeg, png, signal};

fn sides_with(flags: &str, width: u32, height: u32) -> (u32, u32) {
    let world = World::new();
    world.file("a.png", &png(width, height));
    world.run(&format!("a.png -o out {flags}")).exits(0);
    world.sides("out/a.png")
}

#[test]
fn size_has_the_grammar_of_vipsthumbnail() {
    assert_eq!(sides_with("--size 20", 40, 30), (20, 15));
    assert_eq!(sides_with("-s 20x20", 30, 40), (15, 20));
    assert_eq!(sides_with("-s 20x", 40, 80), (20, 40));
    assert_eq!(sides_with("-s x20", 40, 80), (10, 20));
    assert_eq!(sides_with("-s 80", 40, 30), (80, 60));
    assert_eq!(sides_with("-s 80>", 40, 30), (40, 30));
    assert_eq!(sides_with("-s 20>", 40, 30), (20, 15));
    assert_eq!(sides_with("-s 20<", 40, 30), (40, 30));
    assert_eq!(sides_with("-s 80<", 40, 30), (80, 60));
    assert_eq!(sides_with("-s 20x7!", 40, 30), (20, 7));
    assert_eq!(sides_with("-s 20x!", 40, 30), (20, 20));
    assert_eq!(sides_with("-s x20!", 40, 30), (20, 20));
}

#[test]
fn a_percentage_scales_each_picture() {
    assert_eq!(sides_with("-s 50%", 41, 31), (21, 16));
    assert_eq!(sides_with("-s 12.5%", 40, 16), (5, 2));
    assert_eq!(sides_with("-s 200%", 40, 30), (80, 60));
    assert_eq!(sides_with("-s 200%>", 40, 30), (40, 30));
    assert_eq!(sides_with("-s 200% --no-enlarge", 40, 30), (40, 30));
    assert_eq!(sides_with("-s 50% --fit pad", 40, 30), (20, 15));
    assert_eq!(sides_with("-s 1%", 40, 30), (1, 1));
}

#[test]
fn no_enlarge_and_fit() {
    assert_eq!(sides_with("-s 80 --no-enlarge", 40, 30), (40, 30));
    assert_eq!(sides_with("-s 20x20 --fit contain", 40, 30), (20, 15));
    assert_eq!(sides_with("-s 20x20 --fit cover", 40, 30), (20, 20));
    assert_eq!(sides_with("-s 20x20 --fit fill", 40, 30), (20, 20));
}

#[test]
fn every_filter_and_quality_works() {
    let world = World::new();
    world.file("a.png", &png(64, 48));
    let mut results = Vec::new();
    for filter in [
        "lanczos3",
        "catmull-rom",
        "mitchell",
        "bilinear",
        "box",
        "nearest",
    ] {
        world
            .run(&format!("a.png -s 15 -o {filter} --filter {filter}"))
            .exits(0);
        let result = format!("{filter}/a.png");
        assert_eq!(world.sides(&result), (15, 11));
        let result = std::fs::read(world.path(&result)).unwrap();
        assert!(!results.contains(&result), "{filter} is another's result");
        results.push(result);
    }
    world.file("a.jpg", &jpeg(64, 48));
    world.run("a.jpg -s 48 -o low --quality 10").exits(0);
    world.run("a.jpg -s 48 -o high --quality 95").exits(0);
    let len = |name: &str| std::fs::metadata(world.path(name)).unwrap().len();
    assert!(len("low/a.jpg") < len("high/a.jpg"));
}

#[test]
fn workers_come_from_the_flag_or_the_environment() {
    let world = many_pictures();
    let with = |flags: &str, variable: Option<&str>| {
        let mut command = world.command(&format!("p -s 64 -o out {flags}"));
        if let Some(value) = variable {
            command.env("ARENITE_WORKERS", value);
        }
        command
    };
    for (flags, variable, workers) in [
        ("-j 1", None, 1),
        ("-j 3", None, 3),
        ("--workers 3", None, 3),
        ("", Some("2"), 2),
        ("-j 3", Some("2"), 3),
        ("-j 1", Some("2"), 1),
    ] {
        // All workers exist before the first result.
        let running = begun(with(flags, variable));
        let id = running.id();
        let found = children(id);
        assert_eq!(found.len(), workers, "{flags:?}, {variable:?}");
        signal(id, libc::SIGKILL);
        assert_eq!(running.ended().code, Some(128 + libc::SIGKILL));
        gone(id);
    }
    world.finish(with("", Some("none"))).exits(2);
    world.run("p -s 8 -o out -j 0").exits(2);
    // More workers than pictures.
    world.photos(&["few/a.jpg", "few/b.jpg", "few/c.jpg"]);
    world.run("few -s 8 -o out -j 1").exits(0);
    world.run("few -s 8 -o out -j 300").exits(0);
    // An empty variable counts as unset.
    for value in ["2", ""] {
        let mut command = world.command("few -s 8 -o out");
        command.env("ARENITE_WORKERS", value);
        world.finish(command).exits(0);
    }
}

#[test]
fn a_small_capacity_suffices_for_many_files_and_a_huge_one_is_a_clear_error() {
    let world = World::new();
    let bytes = png(300, 300);
    for index in 0..30 {
        world.file(&format!("p/{index:02}.png"), &bytes);
    }
    let run = world.run("p -s 8 -o out --capacity 64MiB").exits(0);
    assert_eq!(run.lines().len(), 30);
    world
        .run("p -s 8 -o out --capacity 100TB")
        .exits(2)
        .says(&["100000000000000 bytes", "lower the capacity to"]);
}

#[test]
fn a_file_that_is_larger_than_the_capacity_is_one_failure() {
    let world = World::new();
    world.photos(&["p/a.jpg", "p/large.jpg", "p/z.jpg"]);
    // Bytes after the picture are read too.
    let large = std::fs::File::options()
        .write(true)
        .open(world.path("p/large.jpg"))
        .unwrap();
    large.set_len(100 << 20).unwrap();
    let run = world.run("p -s 8 -o out --capacity 64MiB").exits(1).says(&[
        "p/large.jpg",
        "100.0 MiB",
        "raise --capacity",
    ]);
    assert_eq!(run.errors().len(), 1, "{}", run.stderr);
    assert_eq!(run.lines(), ["out/a.jpg", "out/z.jpg"]);
    world.run("p -s 8 -o out --capacity 256MiB").exits(0);
}

#[test]
fn a_bomb_is_rejected_by_its_header_and_the_rest_is_done() {
    let world = World::new();
    // A header that announces 60,000 × 60,000 pixels, with almost no data.
    let mut bomb = png(8, 8);
    bomb[16..20].copy_from_slice(&60_000_u32.to_be_bytes());
    bomb[20..24].copy_from_slice(&60_000_u32.to_be_bytes());
    let crc = crc32(&bomb[12..29]);
    bomb[29..33].copy_from_slice(&crc.to_be_bytes());
    world.file("p/bomb.png", &bomb).photos(&["p/a.jpg"]);
    let run =
        world
            .run("p -s 8 -o out")
            .exits(1)
            .says(&["p/bomb.png", "60000x60000", "--max-pixels"]);
    assert_eq!(run.lines(), ["out/a.jpg"]);
    world
        .run("p/a.jpg -s 8 -o out --max-pixels 700")
        .exits(1)
        .says(&["p/a.jpg", "--max-pixels"]);
    world.run("p/a.jpg -s 8 -o out --max-pixels 768").exits(0);
}

#[test]
fn wrong_usage_is_exit_code_2_with_a_hint() {
    let world = World::new();
    world.photos(&["a.jpg"]);
    for line in [
        "",
        "a.jpg",
        "a.jpg -o out",
        "a.jpg -s 8",
        "a.jpg -s eight -o out",
        "a.jpg -s 8 -o out --quality 0",
        "a.jpg -s 8 -o out --format tiff",
        "a.jpg -s 8 -o out --no-such-flag",
        "a.jpg -s 8< -o out --no-enlarge",
        "a.jpg -s 8 -o a.jpg",
        "a.jpg -s 8 -o out --trace out/a.jpg",
        "a.jpg -s 8 -o out --report ./out/./a.jpg",
    ] {
        let run = world.run(line).exits(2);
        assert!(!run.stderr.is_empty() && run.stdout.is_empty(), "{line}");
    }
    // The message is about the value, not about its position.
    let minus = world.run("a.jpg -s -8 -o out").exits(2);
    assert!(
        minus.stderr.contains("\"-8\" is not a size"),
        "{}",
        minus.stderr
    );
    let mut command = world.command("a.jpg -s 8 -o out");
    command.env("ARENITE_WORKERS", "many");
    let run = world.finish(command).exits(2);
    assert!(run.stderr.contains("in ARENITE_WORKERS"), "{}", run.stderr);
    assert!(!world.path("out").exists());
}

#[test]
fn a_negative_number_is_a_value_and_not_an_input() {
    let world = World::new();
    world.photos(&["a.jpg"]);
    for (flag, why) in [
        ("--quality", "1..=100"),
        ("--workers", "from 1 to 1024"),
        ("--capacity", "more than 0"),
        ("--memory-limit", "more than 0"),
        ("--timeout", "more than 0"),
        ("--retries", "0..=100"),
        ("--max-pixels", "more than 0"),
        ("--max-ratio", "1.."),
    ] {
        let run = world.run(&format!("a.jpg -s 8 -o out {flag} -1")).exits(2);
        for word in ["invalid value '-1'", flag, why] {
            assert!(run.stderr.contains(word), "{word}: {}", run.stderr);
        }
        assert!(!run.stderr.contains("tip:"), "{}", run.stderr);
    }
    assert!(!world.path("out").exists());
}

/// A value with a minus sign is named, and not taken for a flag.
#[test]
fn negative_values_with_units_are_named() {
    let world = World::new();
    world.photos(&["a.jpg"]);
    for value in [
        "--timeout -5s",
        "--capacity -1GiB",
        "--max-pixels -2M",
        "-j -2",
        "-s -5x5",
    ] {
        let run = world.run(&format!("a.jpg -s 8 -o out {value}")).exits(2);
        let (_, number) = value.split_once(' ').unwrap();
        let named = format!("invalid value '{number}'");
        assert!(run.stderr.contains(&named), "{}", run.stderr);
    }
    for line in [
        "top --interval -1s",
        "serve --idle-exit -5m",
        "call x --timeout -1s",
    ] {
        let (name, line) = line.split_once(' ').unwrap();
        let run = world.finish(world.subcommand(name, line)).exits(2);
        assert!(run.stderr.contains("invalid value '-"), "{}", run.stderr);
    }
}

#[test]
fn formats_are_written_in_any_case() {
    let world = World::new();
    world.photos(&["a.jpg"]);
    for (format, name) in [("JPG", "a.jpg"), ("Png", "a.png"), ("WEBP", "a.webp")] {
        let run = world.run(&format!("a.jpg -s 8 -o out --format {format} --overwrite"));
        assert_eq!(run.exits(0).lines(), [format!("out/{name}")]);
    }
}

#[test]
fn little_memory_suffices_for_a_small_picture_and_too_little_is_refused() {
    let world = World::new();
    world.photos(&["a.jpg"]);
    for sandbox in ["", "--sandbox off"] {
        let run = world.run(&format!("a.jpg -s 8 -o out --memory-limit 16MiB {sandbox}"));
        assert_eq!(run.exits(0).lines(), ["out/a.jpg"]);
    }
    for little in ["1", "4MiB", "8MB"] {
        let line = format!("a.jpg -s 8 -o none --memory-limit {little}");
        world.run(&line).exits(2).says(&["--memory-limit", "8MiB"]);
    }
    assert!(!world.path("none").exists());
}

#[test]
fn the_folder_for_temporary_files_may_be_of_no_use() {
    let world = World::new();
    world.photos(&["a.jpg"]);
    let long = world.path(&"x".repeat(100));
    std::fs::create_dir(&long).unwrap();
    for (n, folder) in [world.path("nowhere"), world.path("a.jpg"), long]
        .iter()
        .enumerate()
    {
        let mut command = world.command(&format!("a.jpg -s 8 -o out{n}"));
        command.env("TMPDIR", folder);
        assert_eq!(
            world.finish(command).exits(0).lines(),
            [format!("out{n}/a.jpg")]
        );
    }
}

#[test]
fn man_pages_and_completions_are_generated() {
    let world = World::new();
    for (what, sign) in [
        ("man", ".TH"),
        ("complete-bash", "complete -F"),
        ("complete-zsh", "#compdef arenite"),
        ("complete-fish", "complete -c arenite"),
    ] {
        let run = world.run(&format!("--generate {what}")).exits(0);
        assert!(run.stdout.contains(sign), "{what}");
        assert!(
            run.stdout.contains("resize") && run.stdout.contains("resume"),
            "{what}"
        );
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_arenite"));
        command.args(["--generate", what]);
        assert!(
            world.finish(command).exits(0).stdout.contains(sign),
            "{what}"
        );
    }
    // What it prints is described once, and not at the head of each command's options.
    for name in ["resize", "check", "doctor", "put", "ls"] {
        let help = world.finish(world.subcommand(name, "--help")).exits(0);
        assert!(
            !help.stdout.contains("--generate"),
            "{name}: {}",
            help.stdout
        );
    }
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_arenite"));
    command.arg("--help");
    let help = world.finish(command).exits(0).stdout;
    assert!(help.contains("arenite --generate complete-bash"), "{help}");
    world.run("--generate nonsense").exits(2);
    world.run("--generate man -j 2").exits(2);
    // A variable that is set does not conflict with --generate.
    for value in ["2", "", "none"] {
        let mut command = world.command("--generate man");
        command.env("ARENITE_WORKERS", value);
        assert!(world.finish(command).exits(0).stdout.contains(".TH"));
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_arenite"));
        command.args(["put", "--generate", "man"]);
        command.env("ARENITE_STORE", value);
        let page = world.finish(command).exits(0).stdout;
        assert!(page.contains("arenite-put"), "{page}");
    }
}

#[test]
fn help_suffices() {
    let world = World::new();
    let run = world.run("--help").exits(0);
    for word in [
        "Examples:",
        "arenite resize photos --size 224 --out thumbs",
        "--resume",
        "--no-enlarge",
        "ARENITE_WORKERS",
        "find photos",
        "Exit codes",
        "HEIC",
        "130",
        "NO_COLOR",
        "summary",
        "[default: 1GiB]",
        "[default: lanczos3]",
        "Units:",
        "sRGB",
        "--print0 or --json",
    ] {
        assert!(
            run.stdout.contains(word),
            "{word} is missing in:\n{}",
            run.stdout
        );
    }
    assert!(world.run("-h").exits(0).stdout.contains("Examples:"));
    // Text wrapped by hand fits 80 columns, or it would be wrapped again.
    let by_hand = run.stdout.split("Examples:").nth(1).unwrap();
    for line in by_hand.lines() {
        assert!(
            line.chars().count() <= 80 || line.contains("arenite resize"),
            "{line}"
        );
    }
}

#[test]
fn the_version_names_the_build() {
    let world = World::new();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_arenite"));
    command.arg("--version");
    let run = world.finish(command).exits(0);
    assert!(
        run.stdout
            .starts_with(&format!("arenite {}", env!("CARGO_PKG_VERSION"))),
        "{}",
        run.stdout
    );
    assert!(run.stdout.contains("build for"), "{}", run.stdout);
}
