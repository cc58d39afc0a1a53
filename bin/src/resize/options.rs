//! What a run of `arenite resize` is to do: the command line, checked and with its defaults filled in.
//!
//! Made once from [`ResizeArgs`]; what comes after takes this, or the part that concerns it. A new option is a flag in
//! `args.rs` and a field here.

use std::ffi::OsString;
use std::path::PathBuf;

use arenite_image::{Fit, Format, Margins, Palette, Position, ResizeSpec, Size, When};

use super::args::{Background, ResizeArgs};
use crate::batch::kind::Raw;
use crate::batch::pattern::Exclusion;
use crate::batch::pool::{MOST_SIZES, Make, Settings};
use crate::batch::printer::Purpose;
use crate::batch::run_args::MOST_RETRIES;
use crate::batch::shard::Shard;
use crate::batch::template::Template;

/// A checked command line.
#[derive(Debug)]
pub(crate) struct Options {
    /// Files, folders, globs, or `-` for a list on stdin.
    pub inputs: Vec<OsString>,
    /// Whether the list on stdin is separated by NUL.
    pub null: bool,
    /// The folder below which inputs keep their path; `None` for the default.
    pub base: Option<PathBuf>,
    /// What is left out of the inputs.
    pub exclude: Vec<Exclusion>,
    /// What to do with raw files of cameras.
    pub raw: Raw,
    /// The folder for results.
    pub out: PathBuf,
    /// The format to write; `None` for that of the input.
    pub format: Option<Format>,
    /// The names of results.
    pub name: Template,
    /// Replace files that arenite has not made.
    pub overwrite: bool,
    /// Give results the time of their input.
    pub preserve_times: bool,
    /// Skip results that are up to date.
    pub resume: bool,
    /// The share of the results to make; `None` for all.
    pub shard: Option<Shard>,
    /// Write nothing.
    pub dry_run: bool,
    /// Everything that changes a result, as text: `--resume` compares it.
    pub fingerprint: String,
    /// What to make of each picture.
    pub make: Make,
    /// The engine that makes the results.
    pub engine: Settings,
}

impl Options {
    /// Checks what clap cannot, and fills in defaults.
    ///
    /// # Errors
    ///
    /// A sentence about flags that are missing or contradict each other.
    pub(crate) fn from_args(args: &ResizeArgs) -> Result<Options, String> {
        let Some(out) = &args.out else {
            return Err("--size and --out are needed".to_owned());
        };
        let engine = args.run.settings(&args.inputs, Purpose::Resize)?;
        check_position(args)?;
        let name = args.name.clone().unwrap_or_default();
        check_names(args, &name)?;
        let format = format(args, &name)?;
        let make = make(&ResizeArgs {
            format,
            ..args.clone()
        })?;
        Ok(Options {
            inputs: args.inputs.clone(),
            null: args.null,
            base: args.base.clone(),
            exclude: args.run.exclude.clone(),
            raw: args.run.raw,
            out: out.clone(),
            format,
            name,
            overwrite: args.overwrite,
            preserve_times: args.preserve_times,
            resume: args.resume,
            shard: args.run.shard()?,
            dry_run: args.dry_run,
            fingerprint: fingerprint(&make, format, args.preserve_times),
            make,
            engine,
        })
    }

    /// Whether the workers should start while the inputs are still being searched for.
    pub(crate) fn starts_early(&self) -> bool {
        // With --resume there may be nothing to do.
        let is_settled = !self.dry_run && !self.resume;
        is_settled && self.engine.starts_early(&self.inputs, self.shard.as_ref())
    }
}

/// The checked command line of `--jobs`.
#[derive(Debug)]
pub(crate) struct JobsOptions {
    /// Defaults of all jobs.
    pub defaults: ResizeArgs,
    /// The folder for results, if they have to stay in one.
    pub out: Option<PathBuf>,
    /// The engine that makes the results.
    pub engine: Settings,
}

impl JobsOptions {
    /// Checks what clap cannot, and fills in defaults.
    ///
    /// # Errors
    ///
    /// A sentence about flags that contradict each other.
    pub(crate) fn from_args(args: &ResizeArgs) -> Result<JobsOptions, String> {
        check_formats(args)?;
        check_sizes(args)?;
        let engine = args.run.settings(&args.inputs, Purpose::Resize)?;
        Ok(JobsOptions {
            defaults: args.clone(),
            out: args.out.clone(),
            engine: Settings {
                // A job may ask for more than the command line.
                most_retries: MOST_RETRIES,
                // A caller that never reads stderr must not stop the work.
                drops_messages: true,
                ..engine
            },
        })
    }
}

/// What to make of each picture, for a command line or for one job of `--jobs`.
///
/// # Errors
///
/// A sentence about options that contradict each other.
pub(crate) fn make(args: &ResizeArgs) -> Result<Make, String> {
    check_formats(args)?;
    check_sizes(args)?;
    let &[size, ..] = args.size.as_slice() else {
        return Err("--size is needed".to_owned());
    };
    Ok(Make {
        spec: spec(args, size),
        sizes: args.size.clone(),
        timeout: args.run.timeout,
        retries: args.run.retries,
    })
}

fn check_formats(args: &ResizeArgs) -> Result<(), String> {
    match args.format {
        Some(format @ (Format::Jpeg | Format::Gif | Format::Avif)) if args.lossless => {
            return Err(format!(
                "{format} is not lossless; take --format webp or --format png"
            ));
        }
        _ => {}
    }
    if args.background == Some(Background::Transparent) {
        if args.fit != Fit::Pad {
            return Err("--background transparent is for --fit pad: PNG, WebP and AVIF keep the transparency of a picture"
                .to_owned());
        }
        if args.format == Some(Format::Jpeg) {
            return Err("JPEG has no transparency; take --format png or --format webp".to_owned());
        }
    }
    match args.format {
        Some(format) if args.palette == Palette::Always && format != Format::Png => {
            return Err(format!(
                "--palette always is only for PNG, and --format {} writes none",
                format.name().to_lowercase()
            ));
        }
        _ => {}
    }
    let jpeg_flags = [
        ("--progressive", args.progressive),
        (
            "--background",
            args.background.is_some() && args.fit != Fit::Pad,
        ),
    ];
    match (args.format, jpeg_flags.iter().find(|(_, given)| *given)) {
        (Some(format), Some((flag, _))) if format != Format::Jpeg => Err(format!(
            "{flag} is only for JPEG, and --format {} writes none",
            format.name().to_lowercase()
        )),
        _ => Ok(()),
    }
}

/// Checks that results of several sizes can have different names.
///
/// # Errors
///
/// A sentence that says how to name them.
pub(crate) fn check_names(args: &ResizeArgs, template: &Template) -> Result<(), String> {
    if args.size.len() > 1 && !template.has_sides() {
        return Err(
            "several sizes need names with {width} or {height}, such as {stem}-{width}.{ext} (--name)"
                .to_owned(),
        );
    }
    // The width of these results is known, whatever the picture.
    let is_exact = |size: &&Size| {
        let is_forced = size.when == When::Force || matches!(args.fit, Fit::Fill | Fit::Pad);
        is_forced && size.width > 0
    };
    let exact: Vec<&Size> = args.size.iter().filter(is_exact).collect();
    let is_same = |one: &Size, other: &Size| one != other && one.width == other.width;
    let pair = exact.iter().enumerate().find_map(|(at, one)| {
        let other = exact[..at].iter().find(|other| is_same(other, one))?;
        Some((other, one))
    });
    match pair {
        Some((one, other)) if !template.has_height() => Err(format!(
            "results of {one} and {other} have one width: add {{height}} to their names (--name)"
        )),
        _ => Ok(()),
    }
}

/// Not for `--jobs`, where a job may have another fit than the command line.
fn check_position(args: &ResizeArgs) -> Result<(), String> {
    match args.fit {
        Fit::Pad if args.position == Position::Attention => Err(
            "--position attention is for --fit cover: --fit pad shows the whole picture".to_owned(),
        ),
        Fit::Contain | Fit::Fill if args.position != Position::Center => Err(
            "--position is for --fit cover and --fit pad: otherwise nothing is cut off or added"
                .to_owned(),
        ),
        _ => Ok(()),
    }
}

/// The format to write: that of `--format`, or of the extension in `--name`.
fn format(args: &ResizeArgs, name: &Template) -> Result<Option<Format>, String> {
    match (args.format, name.format()) {
        (Some(asked), Some(named)) if asked != named => Err(format!(
            "--format writes {asked}, and the extension in --name stands for {named}: write {{ext}} in its place"
        )),
        (asked, named) => Ok(asked.or(named)),
    }
}

fn check_sizes(args: &ResizeArgs) -> Result<(), String> {
    if args.size.len() > MOST_SIZES {
        return Err(format!(
            "{} sizes are more than the {MOST_SIZES} that one run makes",
            args.size.len()
        ));
    }
    args.size
        .iter()
        .try_for_each(|&size| check_size(args, size))
}

fn check_size(args: &ResizeArgs, size: Size) -> Result<(), String> {
    match size.when {
        When::Enlarge if args.no_enlarge => {
            Err("--size with < only enlarges, and --no-enlarge forbids it".to_owned())
        }
        When::Force if args.fit == Fit::Cover => Err(
            "--size with ! forces the size, and --fit cover cuts to it: use one of the two"
                .to_owned(),
        ),
        When::Force if args.fit == Fit::Pad => Err(
            "--size with ! forces the size, and --fit pad surrounds the picture: use one of the two"
                .to_owned(),
        ),
        _ => Ok(()),
    }
}

/// What to make of each picture; its format is still that of the input.
fn spec(args: &ResizeArgs, size: Size) -> ResizeSpec {
    let white = [u8::MAX; 3];
    let (background, margins) = match args.background {
        None => (white, Margins::Auto),
        Some(Background::Color(color)) => (color, Margins::Background),
        Some(Background::Transparent) => (white, Margins::Transparent),
    };
    ResizeSpec {
        max_pixels: args.run.max_pixels,
        max_bytes: args.run.memory_limit,
        max_ratio: args.run.max_ratio,
        fit: args.fit,
        position: args.position,
        enlarge: !args.no_enlarge,
        filter: args.filter,
        linear: args.linear,
        quality: args.quality,
        keep_metadata: args.keep_metadata,
        first_frame: args.first_frame,
        lossless: args.lossless,
        progressive: args.progressive,
        background,
        margins,
        fail_on: args.run.fail_on,
        palette: args.palette,
        ..ResizeSpec::new(size)
    }
}

/// Everything that changes a result, as text. The number in front rises when a later version makes other pictures from
/// the same options.
fn fingerprint(make: &Make, format: Option<Format>, preserve_times: bool) -> String {
    let spec = &make.spec;
    let sizes: Vec<String> = make.sizes.iter().map(Size::to_string).collect();
    format!(
        "8 size={} fit={:?} position={} enlarge={} format={} filter={:?} linear={} quality={} metadata={} lossless={} \
         progressive={} background={:?} margins={:?} palette={:?} first-frame={} fail-on={:?}{}",
        sizes.join(","),
        spec.fit,
        spec.position.name(),
        spec.enlarge,
        format.map_or("own", Format::name),
        spec.filter,
        spec.linear,
        spec.quality,
        spec.keep_metadata,
        spec.lossless,
        spec.progressive,
        spec.background,
        spec.margins,
        spec.palette,
        spec.first_frame,
        spec.fail_on,
        if preserve_times { " times=kept" } else { "" },
    )
    .to_lowercase()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::choice::Choice;
    use crate::cli::{Cli, Command};

    fn options(line: &str) -> Result<Options, String> {
        Options::from_args(&parse(line).unwrap())
    }

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
        // Each picture keeps its own format: the flags are for those that know them.
        check("--lossless --progressive --background black").unwrap();
        check("--fit pad --background black --format webp").unwrap();
    }

    #[test]
    fn flags_that_contradict_each_other_are_refused() {
        for (flags, is_refused) in [
            ("-s 5 --trace t --report t", true),
            // By another path.
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
        let sizes: String = (0..=MOST_SIZES)
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
}
