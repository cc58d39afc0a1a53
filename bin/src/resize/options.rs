//! What a run of `arenite resize` is to do: the command line, checked and with its defaults filled in.
//!
//! Made once from [`ResizeArgs`]; what comes after takes this, or the part that concerns it. A new option is a flag in
//! `args.rs` and a field here.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use arenite::Sandbox;
use arenite_image::{Fit, Format, Margins, Palette, Position, ResizeSpec, Size, When};
use clap::ValueEnum;

use super::args::{self, Background, LockDown, ResizeArgs};
use super::files::{identity, location};
use super::pool::{Make, Settings};
use super::printer::Style;
use super::shard::Shard;
use crate::choice::{Choice, wants_color};

/// The variable that stands for `--workers`.
const WORKERS: &str = "ARENITE_WORKERS";

/// A checked command line.
#[derive(Debug)]
pub(crate) struct Options {
    /// Files, folders, globs, or `-` for a list on stdin.
    pub inputs: Vec<OsString>,
    /// Whether the list on stdin is separated by NUL.
    pub null: bool,
    /// The folder for results.
    pub out: PathBuf,
    /// The format to write; `None` for that of the input.
    pub format: Option<Format>,
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
        let (Some(size), Some(out)) = (args.size, &args.out) else {
            return Err("--size and --out are needed".to_owned());
        };
        check_files(args)?;
        check_sandbox(args)?;
        check_position(args)?;
        let make = make(args, size)?;
        Ok(Options {
            inputs: args.inputs.clone(),
            null: args.null,
            out: out.clone(),
            format: args.format,
            resume: args.resume,
            shard: args
                .shard
                .map(|asked| asked.resolve(variable))
                .transpose()?,
            dry_run: args.dry_run,
            fingerprint: fingerprint(&make.spec, args.format),
            make,
            engine: engine(args)?,
        })
    }

    /// Files that are written besides the results, each with its flag.
    pub(crate) fn extra_files(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let files = [
            ("--trace", &self.engine.trace),
            ("--report", &self.engine.report),
        ];
        files
            .into_iter()
            .filter_map(|(flag, file)| Some((flag, file.as_deref()?)))
    }

    /// Whether the workers should start while the inputs are still being searched for: there is work for all of them as
    /// far as the command line tells, and nothing left to decide that could make them needless.
    pub(crate) fn starts_early(&self) -> bool {
        let workers = self.engine.workers;
        // An extra file could overwrite an input, and with --resume there may be nothing to do.
        let is_settled = !self.dry_run && !self.resume && self.extra_files().next().is_none();
        let shards = self.shard.as_ref().map_or(1, Shard::count);
        let has_enough = self.inputs.len() / shards >= workers
            || self.inputs.iter().any(|input| Path::new(input).is_dir());
        is_settled && workers <= cores() && has_enough
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
        if let Some(size) = args.size {
            check_size(args, size)?;
        }
        let engine = engine(args)?;
        Ok(JobsOptions {
            defaults: args.clone(),
            out: args.out.clone(),
            engine: Settings {
                // A job may ask for more than the command line.
                most_retries: args::MOST_RETRIES,
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
pub(crate) fn make(args: &ResizeArgs, size: Size) -> Result<Make, String> {
    check_formats(args)?;
    check_size(args, size)?;
    Ok(Make {
        spec: spec(args, size),
        timeout: args.timeout,
        retries: args.retries,
    })
}

fn engine(args: &ResizeArgs) -> Result<Settings, String> {
    Ok(Settings {
        workers: workers(args)?,
        capacity: args.capacity,
        memory_limit: args.memory_limit,
        sandbox: match args.sandbox {
            None => Sandbox::Off,
            Some(LockDown::Available) => Sandbox::Strict,
            Some(LockDown::Require) => Sandbox::Required,
        },
        most_retries: args.retries,
        drops_messages: false,
        trace: args.trace.clone(),
        report: args.report.clone(),
    })
}

/// How to print; cannot fail, so that the errors of [`Options::from_args`] can be printed.
pub(crate) fn style(args: &ResizeArgs) -> Style {
    Style {
        json: args.json,
        quiet: args.quiet,
        color: wants_color(args.color, io::stderr().is_terminal()),
        progress: match args.progress {
            Choice::Auto if args.quiet => Choice::Never,
            progress => progress,
        },
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn check_files(args: &ResizeArgs) -> Result<(), String> {
    if let (Some(trace), Some(report)) = (&args.trace, &args.report)
        && (location(trace) == location(report)
            || identity(trace).is_some_and(|found| identity(report) == Some(found)))
    {
        return Err("--trace and --report need a file each".to_owned());
    }
    Ok(())
}

fn check_formats(args: &ResizeArgs) -> Result<(), String> {
    if args.lossless && args.format == Some(Format::Jpeg) {
        return Err("JPEG is never lossless; take --format webp or --format png".to_owned());
    }
    if args.background == Some(Background::Transparent) {
        if args.fit != Fit::Pad {
            return Err("--background transparent is for --fit pad: PNG and WebP keep the transparency of a picture"
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

fn check_sandbox(args: &ResizeArgs) -> Result<(), String> {
    if args.sandbox == Some(LockDown::Available)
        && let Some(word) = args.inputs.iter().find(|input| is_sandbox_value(input))
    {
        let word = word.to_string_lossy();
        return Err(format!("no such file: {word}; write --sandbox={word}"));
    }
    Ok(())
}

/// Whether an input is a value of `--sandbox` that lost its sign, and no file: the run would protect less than meant.
fn is_sandbox_value(input: &OsStr) -> bool {
    let is_value = |value: &LockDown| {
        let value = value.to_possible_value();
        value.is_some_and(|value| input == value.get_name())
    };
    LockDown::value_variants().iter().any(is_value) && fs::symlink_metadata(input).is_err()
}

/// Not for `--jobs`, where a job may have another fit than the command line.
fn check_position(args: &ResizeArgs) -> Result<(), String> {
    match args.fit {
        Fit::Contain | Fit::Fill if args.position != Position::Center => Err(
            "--position is for --fit cover and --fit pad: otherwise nothing is cut off or added"
                .to_owned(),
        ),
        _ => Ok(()),
    }
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

/// A variable of the environment.
fn variable(name: &str) -> Option<String> {
    env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

/// The number of workers: that of the flag, of the variable, or one per core.
fn workers(args: &ResizeArgs) -> Result<usize, String> {
    let asked = match (args.workers, variable(WORKERS)) {
        (Some(flag), _) => flag,
        (None, None) => 0,
        (None, Some(value)) => {
            args::workers(&value).map_err(|why| format!("{WORKERS} is {value:?}: {why}"))?
        }
    };
    Ok(match asked {
        0 => cores(),
        asked => asked.into(),
    })
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
        max_pixels: args.max_pixels,
        max_bytes: args.memory_limit,
        max_ratio: args.max_ratio,
        fit: args.fit,
        position: args.position,
        enlarge: !args.no_enlarge,
        filter: args.filter,
        linear: args.linear,
        quality: args.quality,
        keep_metadata: args.keep_metadata,
        lossless: args.lossless,
        progressive: args.progressive,
        background,
        margins,
        fail_on: args.fail_on,
        palette: args.palette,
        ..ResizeSpec::new(size)
    }
}

/// Everything that changes a result, as text. The number in front rises when a later version makes other pictures from
/// the same options.
fn fingerprint(spec: &ResizeSpec, format: Option<Format>) -> String {
    format!(
        "7 size={} fit={:?} position={} enlarge={} format={} filter={:?} linear={} quality={} metadata={} lossless={} \
         progressive={} background={:?} margins={:?} palette={:?} fail-on={:?}",
        spec.size,
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
        spec.fail_on,
    )
    .to_lowercase()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use clap::Parser;

    use super::*;
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
        assert_eq!((args.progress, args.color), (Choice::Auto, Choice::Auto));
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
            ("-s 5 --fit cover --position top", false),
            ("-s 5> --no-enlarge --fit cover", false),
        ] {
            let options = options(&format!("p -o x {flags}"));
            assert_eq!(options.is_err(), is_refused, "{flags}");
        }
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
            "-s 224 --palette always",
            "-s 224 --palette never",
        ] {
            assert_ne!(
                options(&format!("p -o x {other}")).unwrap().fingerprint,
                base,
                "{other}"
            );
        }
    }
}
