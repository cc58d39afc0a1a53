//! What is refused, and what `--resume` compares.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::time::Duration;

use arenite::Sandbox;
use clap::Parser;

use super::*;
use crate::batch::printer::Purpose;
use crate::text::Choice;
use crate::{Cli, Command};

fn parse(line: &str) -> Result<Box<ResizeArgs>, clap::Error> {
    let words = ["arenite", "resize"]
        .into_iter()
        .chain(line.split_whitespace());
    Cli::try_parse_from(words).map(|cli| match cli.command {
        Some(Command::Resize(args)) => args,
        other => panic!("{other:?}"),
    })
}

#[test]
fn missing_and_invalid_flags_are_rejected() {
    for line in [
        "photos --size 224",
        "photos --out x",
        "--size 224 --out x",
        "photos -s 0 -o x",
        "photos -s 5x5 -o x --quality 0",
        "photos -s 5x5 -o x --quality 101",
        "photos -s 5x5 -o x --format tiff",
        "photos -s 5x5 -o x -j 0",
        "photos -s 50%! -o x",
        "photos -s 5x5 -o x --fit crop",
        "photos -s 5x5 -o x --fit cover --position north",
        "photos -s 5x5 -o x --palette perhaps",
        "photos -s 5x5 -o x --filter sharp",
        "photos -s 5x5 -o x --fail-on never",
        "photos -s 5x5 -o x --memory-limit much",
        "photos -s 5x5 -o x --progress maybe",
        "photos -s 5x5 -o x --background grey",
        "photos -s 5x5 -o x --background #ff00",
        "photos -s 5x5 -o x --background #+f0+f0",
        "photos -s 5x5 -o x --name {stem}",
        "photos -s 5x5 -o x --name ../{stem}.{ext}",
        "photos -s 5x5 -o x --name {nam}.{ext}",
        "--jobs - --name {stem}.{ext}",
    ] {
        let error = parse(line).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{line}");
    }
    assert!(parse("-0 -s 5 -o x").is_ok(), "-0 alone reads stdin");
    assert!(parse("- -s 5 -o x").is_ok());
}

#[test]
fn colours_parse_as_in_css() {
    for (text, expected) in [
        ("#ff8000", [255, 128, 0]),
        ("FF8000", [255, 128, 0]),
        ("#0f8", [0, 255, 136]),
        ("black", [0; 3]),
        ("white", [255; 3]),
    ] {
        assert_eq!(color(text), Ok(expected), "{text}");
    }
}

#[test]
fn workers_are_sandboxed_unless_that_is_refused() {
    let sandbox = |flag: &str| {
        let args = parse(&format!("p -s 5 -o x {flag}"));
        args.map(|args| args.run.settings(Purpose::Resize).unwrap().sandbox)
    };
    for (flag, expected) in [
        ("", Sandbox::Strict),
        ("--sandbox on", Sandbox::Strict),
        ("--sandbox=off", Sandbox::Off),
        ("--sandbox require", Sandbox::Required),
    ] {
        assert_eq!(sandbox(flag).unwrap(), expected, "{flag}");
    }
    for wrong in ["--sandbox", "--sandbox available", "--sandbox="] {
        assert_eq!(sandbox(wrong).unwrap_err().exit_code(), 2, "{wrong}");
    }
}

#[test]
fn times_and_retries_are_checked() {
    let args = parse("p -s 5 -o x --timeout 1.5m --retries 3").unwrap();
    assert_eq!(args.run.timeout, Some(Duration::from_secs(90)));
    assert_eq!(args.run.retries, 3);
    for wrong in [
        "--timeout 0",
        "--timeout soon",
        "--retries -1",
        "--retries 101",
        "--max-ratio 0",
    ] {
        let error = parse(&format!("p -s 5 -o x {wrong}")).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{wrong}");
    }
}

fn options(line: &str) -> Result<Options<'static>, String> {
    Options::from_args(Box::leak(parse(line).unwrap()))
}

#[test]
fn defaults_are_those_of_the_documentation() {
    let args = parse("photos --size 224x224 --out thumbs").unwrap();
    let options = Options::from_args(&args).unwrap();
    let engine = &options.engine;
    assert_eq!(options.make.spec, ResizeSpec::new("224".parse().unwrap()));
    assert_eq!(
        (engine.memory_limit, options.format, engine.capacity),
        (1 << 30, None, None)
    );
    assert_eq!(
        (args.run.progress, args.run.color),
        (Choice::Auto, Choice::Auto)
    );
}

#[test]
fn flags_that_a_format_knows_nothing_of_are_refused() {
    let check = |flags: &str| options(&format!("p -s 5 -o x {flags}"));
    for (flags, word) in [
        ("--lossless --format jpeg", "--format webp"),
        ("--progressive --format png", "--progressive"),
        ("--background black --format webp", "--background"),
        ("--background transparent", "--fit pad"),
        ("--palette always --format webp", "--palette"),
        ("--background transparent --fit pad --format jpeg", "png"),
    ] {
        let why = check(flags).unwrap_err();
        assert!(why.contains(word), "{flags}: {why}");
    }
    // Without `--format` each picture keeps its format, and a flag applies to the pictures whose format supports it.
    check("--lossless --progressive --background black").unwrap();
    check("--fit pad --background black --format webp").unwrap();
}

#[test]
fn flags_that_contradict_each_other_are_refused() {
    for (flags, is_refused) in [
        ("-s 5 --trace t --report t", true),
        // The same file, by another path.
        ("-s 5 --trace t --report ./t", true),
        ("-s 5 --trace t --report ./u", false),
        ("-s 5< --no-enlarge", true),
        ("-s 5! --fit cover", true),
        ("-s 5! --fit pad", true),
        ("-s 5 --position top", true),
        ("-s 5 --fit pad --position top", false),
        ("-s 5 --fit pad --position attention", true),
        ("-s 5 --fit cover --position attention", false),
        ("-s 5 --fit cover --position top", false),
        ("-s 5> --no-enlarge --fit cover", false),
    ] {
        let options = options(&format!("p -o x {flags}"));
        assert_eq!(options.is_err(), is_refused, "{flags}");
    }
}

#[test]
fn names_must_tell_several_sizes_apart() {
    for (flags, word) in [
        ("-s 5 -s 6", Some("{stem}-{width}.{ext}")),
        (
            "-s 5 -s 6 --name {stem}.{ext}",
            Some("{stem}-{width}.{ext}"),
        ),
        ("-s 5 -s 6 --name {stem}-{width}.{ext}", None),
        ("-s x5 -s x6 --name {stem}-{height}.{ext}", None),
        (
            "-s 5x6! -s 5x7! --name {stem}-{width}.{ext}",
            Some("{height}"),
        ),
        ("-s 5x6! -s 5x7! --name {stem}-{width}x{height}.{ext}", None),
        ("-s 5x6 -s 5x7 --name {stem}-{width}.{ext}", None),
        ("-s 5 --name {stem}.jpg --format webp", Some("{ext}")),
        ("-s 5 --name {stem}.jpg --lossless", Some("lossless")),
    ] {
        let options = options(&format!("p -o x {flags}"));
        match word {
            Some(word) => {
                let why = options.unwrap_err();
                assert!(why.contains(word), "{flags}: {why}");
            }
            None => drop(options.unwrap()),
        }
    }
    let named = options("p -o x -s 5 --name t_{stem}.webp").unwrap();
    assert_eq!(named.format, Some(Format::WebP));
    let sizes: String = (0..=MAX_SIZES)
        .map(|size| format!(" -s {}", size + 5))
        .collect();
    let why = options(&format!("p -o x --name {{width}}.{{ext}}{sizes}")).unwrap_err();
    assert!(why.contains("32"), "{why}");
}

#[test]
fn the_fingerprint_sees_what_changes_a_result_and_nothing_else() {
    let base = options("p -s 224 -o x").unwrap().fingerprint;
    for same in [
        "q -s 224x224 -o y",
        "p -s 224 -o x -j 3 --resume --json --capacity 1G --max-pixels 5M",
    ] {
        assert_eq!(options(same).unwrap().fingerprint, base, "{same}");
    }
    for other in [
        "-s 225",
        "-s 224>",
        "-s 224 --fit cover",
        "-s 224 --fit pad",
        "-s 224 --fit pad --background transparent",
        "-s 224 --fit pad --background white",
        "-s 224 --fit cover --position top",
        "-s 224 --fit cover --position top-left",
        "-s 224 --no-enlarge",
        "-s 224 --format png",
        "-s 224 --filter box",
        "-s 224 --linear",
        "-s 224 --quality 81",
        "-s 224 --keep-metadata",
        "-s 224 --lossless",
        "-s 224 --progressive",
        "-s 224 --background 000",
        "-s 224 --fail-on none",
        "-s 224 --preserve-times",
        "-s 224 --palette always",
        "-s 224 --palette never",
        "-s 224 -s 112 --name {width}.{ext}",
        "-s 112 -s 224 --name {width}.{ext}",
    ] {
        assert_ne!(
            options(&format!("p -o x {other}")).unwrap().fingerprint,
            base,
            "{other}"
        );
    }
}
