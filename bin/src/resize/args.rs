//! The command line of `arenite resize`; [`Options`](super::options::Options) is made from it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use arenite_image::{Filter, Fit, Format, ResizeSpec, Size};
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum, ValueHint};

use crate::choice::Choice;
use crate::generate::Generate;
use crate::units;

const EXAMPLES: &str = "\
Examples:
  A folder of photos to thumbnails of at most 224x224 pixels:
    arenite resize photos --size 224 --out thumbs
  Squares, cut from the middle, all as WebP:
    arenite resize photos -s 512x512 --fit cover --format webp -o squares
  Only shrink what is wider than 1600 pixels (the shell knows the sign too):
    arenite resize photos -s '1600x>' -o web
  A glob, expanded by arenite; results keep their path below 'photos':
    arenite resize 'photos/2024-*/**/*.jpg' -s 300 -o thumbs
  A list of names:
    find photos -name '*.jpg' -print0 | arenite resize -0 -s 224 -o thumbs
  Go on after an interruption:
    arenite resize photos -s 224 -o thumbs --resume";

const DETAILS: &str = "\
Inputs:
  JPEG, PNG, WebP, GIF, TIFF and BMP are read; JPEG, PNG and WebP are
  written. Of an animation and of a TIFF with several pages the first
  picture is taken. The content decides, not the extension. A folder is
  searched for pictures at any depth; hidden files and DIR are left out,
  other files are passed by and counted. Links to files are followed, links
  to folders only where they are named as inputs. In a glob * and ? stand for
  parts of a name, [a-c] for one of these, [!a-c] or [^a-c] for any other, **
  for folders at any depth or for none; {a,b} and ~ are left to the shell.
  What has a picture's extension and cannot be read, such as a pipe, is an
  error; HEIC, AVIF, JPEG XL, JPEG 2000 and camera raw files are reported as
  unsupported.

Units:
  Bytes count in 1024s (128M and 128MiB) or in 1000s (128MB), pixels in
  1000s (128M). A time without a unit counts seconds.

Names:
  A result keeps the path below the folder given, or below the part of a
  glob before its first pattern. A file named by itself keeps its relative
  path, or only its name if the path is absolute or contains '..'. The
  extension is that of the format written: jpg, png or webp. It replaces a
  picture's, and is put behind any other: IMG.0001 becomes IMG.0001.jpg. If
  two inputs would get one name, or a result would overwrite an input,
  nothing is started. Existing results are replaced, each at once and whole.
  A name with a line break takes more than one line on stdout: use --json
  for such names.

Sizes:
  N means NxN. WxH is a box; the picture keeps its proportions and fits
  inside (see --fit). Wx and xH give one side, the other follows. A sign
  behind it: > only shrinks, < only enlarges, ! forces exactly WxH, where a
  side that is not given is as long as the other. With --fit fill it stays as
  it is.

--resume:
  DIR/.arenite-resize notes what made each result. A result is skipped if it
  was made with the same options, and neither it nor its input has been
  changed since: either by its length and time.

--keep-metadata:
  Without it colours become sRGB, and nothing but the pixels is written.
  With it the pixels keep their colours, and the profile that says what they
  mean goes along. CMYK, and grey in WebP, become sRGB either way. EXIF
  and XMP go along as well, but of TIFF no EXIF, and nothing else is kept:
  no IPTC, no comments, no extended XMP, and no XMP that speaks of what lies
  in the file beside the picture: gain maps, films, small copies. Orientation
  is applied either way;
  EXIF then says so, gives the sides of the result, and has no thumbnail.

--background, --lossless and --progressive:
  They are about what is written as JPEG, as WebP and as JPEG. What keeps
  its transparency has no background. A colour is #rrggbb, #rgb, white or
  black, in quotes or without its sign where a shell would take that for a
  comment. With --keep-metadata it is one of the picture's own colours.

--sandbox:
  Decoders work on bytes from strangers. Under --sandbox a worker that such
  bytes take over can open no file and no socket, and start or touch no
  process (seccomp, Landlock); trying ends it, with the cause \"denied\". It
  still sees the pictures under way in this run, and nothing stops it from
  putting one into another's result. What this kernel cannot enforce is
  named on stderr, also with --quiet.

--timeout and --retries:
  The time is that of one attempt in its worker; waiting for a worker does
  not count, nor does Ctrl-Z. When it is over the worker is killed and
  replaced. What a decoder says about a picture is final, and not tried
  again.

--trace and --report:
  Both files are made before the first picture is read; an existing one is
  replaced. The trace is JSON for https://ui.perfetto.dev or
  chrome://tracing, with a row for each worker, and the picture's name with
  each run. The report is one page that loads nothing from elsewhere. Where
  there is nothing to do, neither is written.

--json:
  One object per line and input, in the order of the inputs: a picture that
  takes long holds back the lines of those behind it, but not their work.
  Type (\"file\"), input, output, status (written, planned, fresh, failed or
  pending), error, cause, attempts (of a failure in a worker), ms and bytes;
  at the end one of type \"summary\", with a status: done, dry-run,
  interrupted (by a signal), stopped or refused.
  Stopped means that the results of the rest had no place, as on a full
  disk: they are pending, and the exit code is 1. Refused means that nothing
  was begun: the exit code is 2, and the error says why. Names that are not
  UTF-8 are shown with replacement characters.
  Causes: not-found, read (of the file); unsupported-format, not-an-image,
  truncated, corrupt, too-many-pixels, too-many-bytes, bomb,
  output-too-large, out-of-memory, encode, returned (of the picture);
  name-conflict, write, disk-full (of the result); arena-full, timeout,
  memory-limit, out-of-memory-kill, panicked, signal-N, exited-N, denied,
  protocol, no-workers, other (of a worker: N is the signal or the exit
  code).

Signals:
  The first SIGINT (Ctrl-C), SIGTERM or SIGHUP lets finish what is under
  way, and says how to go on. A second one ends the run at once (but not a
  second SIGHUP), and so does one before work begins. Neither leaves a torn
  file; but ended at once, stdout may lack results that wait for their turn
  behind a slow one: --resume --json has those as \"fresh\". The program ends
  by the signal, so that a loop of the shell ends with it. One that is
  killed may leave a hidden file, .arenite-N-*.tmp, which a run into the
  same folder takes away when it is an hour old.

Exit codes: 0 all done, 1 some inputs failed (each named on stderr), or the
list on stdout, the trace or the report could not be written, 2 wrong usage
or set-up or no input found; and as a shell shows the end by a signal: 130
interrupted, 143 terminated, 129 hung up.";

/// Resize photos: files, folders, globs or a list on stdin
///
/// Every picture is read, resized and written by itself: a broken one is reported, the others are done. Decoding
/// happens in worker processes, so that no file can take the program down.
#[derive(Args, Debug)]
#[command(override_usage = "arenite resize [OPTIONS] --size <SIZE> --out <DIR> <INPUT>...", after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{DETAILS}"))]
pub(crate) struct ResizeArgs {
    /// Files, folders or globs; - reads a list of names from stdin, one per line
    #[arg(value_name = "INPUT", value_hint = ValueHint::AnyPath, required_unless_present_any = ["null", "what"])]
    pub inputs: Vec<OsString>,

    /// Target size in pixels: N, WxH, Wx or xH, with > < or ! behind it if wanted
    #[arg(
        short,
        long,
        value_name = "SIZE",
        allow_negative_numbers = true,
        required_unless_present = "what"
    )]
    pub size: Option<Size>,

    /// Folder for the results; made if it does not exist
    #[arg(short, long, value_name = "DIR", value_hint = ValueHint::DirPath, required_unless_present = "what")]
    pub out: Option<PathBuf>,

    /// Read the list on stdin NUL-separated, as find -print0 writes it (implies -)
    #[arg(short = '0', long = "null")]
    pub null: bool,

    /// How a picture fills the size given
    #[arg(long, value_name = "HOW", default_value = "contain", value_parser = fits(), help_heading = "Result")]
    pub fit: Fit,

    /// Make no picture larger: smaller ones are encoded anew at their own size (the same as > behind the size)
    #[arg(long, help_heading = "Result")]
    pub no_enlarge: bool,

    /// Write this format instead of the input's own (GIF, TIFF and BMP become PNG)
    #[arg(long, value_name = "FORMAT", value_parser = formats(), help_heading = "Result")]
    pub format: Option<Format>,

    /// Resampling filter; box and nearest decode all of a JPEG, which takes longer
    #[arg(long, value_name = "NAME", default_value = "lanczos3", value_parser = filters(), help_heading = "Result")]
    pub filter: Filter,

    /// Quality of JPEG and lossy WebP, 1 to 100
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 80, value_parser = clap::value_parser!(u8).range(1..=100), help_heading = "Result")]
    pub quality: u8,

    /// Write WebP without loss (PNG always is)
    #[arg(long, help_heading = "Result")]
    pub lossless: bool,

    /// Write JPEG that shows a rough picture first: longer work, and 1 % smaller
    #[arg(long, help_heading = "Result")]
    pub progressive: bool,

    /// Colour behind what is transparent, in JPEG, such as #ff8000 or black [default: white]
    #[arg(long, value_name = "COLOR", value_parser = color, help_heading = "Result")]
    pub background: Option<[u8; 3]>,

    /// Keep EXIF, XMP and the profile (of TIFF the latter two), but no IPTC and no comments; colours then stay as they are, and become sRGB without it
    #[arg(long, help_heading = "Result")]
    pub keep_metadata: bool,

    /// Skip what was made with the same options and has not changed since, nor its input
    #[arg(long, help_heading = "Run")]
    pub resume: bool,

    /// Show what would be written, and write nothing
    #[arg(short = 'n', long, help_heading = "Run")]
    pub dry_run: bool,

    // Not `env` of clap, which takes a variable for something that was typed, and so for one word too many beside --generate.
    /// Worker processes [env: ARENITE_WORKERS] [default: one per core]
    #[arg(short = 'j', long, value_name = "N", allow_negative_numbers = true, value_parser = workers, help_heading = "Run")]
    pub workers: Option<u16>,

    /// Shared memory for files on their way, such as 512MiB [default: half of what is available]
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true, value_parser = units::bytes, help_heading = "Run")]
    pub capacity: Option<u64>,

    /// Private memory that each worker may use, at least 8MiB
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true, value_parser = private_memory, default_value = "1GiB", help_heading = "Run")]
    pub memory_limit: u64,

    /// Lock workers down: no files, no network, no other processes; with =require, fail where the kernel lacks a part
    #[arg(long, value_name = "WHEN", value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "available", help_heading = "Run")]
    pub sandbox: Option<LockDown>,

    /// Kill a picture's worker when it takes longer, such as 30s, 500ms or 2m, and go on [default: no limit]
    #[arg(long, value_name = "TIME", allow_negative_numbers = true, value_parser = units::duration, help_heading = "Run")]
    pub timeout: Option<Duration>,

    /// Try a picture again, up to N times, when it takes too long or takes its worker down
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=100), help_heading = "Run")]
    pub retries: u32,

    /// Refuse larger pictures, by their header, before anything is decoded
    #[arg(long, value_name = "PIXELS", allow_negative_numbers = true, value_parser = units::pixels, default_value = "128M", help_heading = "Run")]
    pub max_pixels: u64,

    /// Refuse what is better compressed than any photo: more bytes of pixels than this per byte of the file, from 64MiB of pixels on
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = ResizeSpec::MAX_RATIO, value_parser = clap::value_parser!(u32).range(1..), help_heading = "Run")]
    pub max_ratio: u32,

    /// Write what each worker did when: events for Perfetto or Chrome's trace viewer
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Output")]
    pub trace: Option<PathBuf>,

    /// Write a report for a browser: a timeline of all workers, how long pictures took, what failed
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Output")]
    pub report: Option<PathBuf>,

    /// Print one JSON object per input and a summary, instead of the written paths
    #[arg(long, help_heading = "Output")]
    pub json: bool,

    /// Print errors only, and what --sandbox cannot enforce here
    #[arg(short, long, help_heading = "Output")]
    pub quiet: bool,

    /// Progress on stderr; auto shows it on a terminal
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = Choice::Auto, help_heading = "Output")]
    pub progress: Choice,

    /// Colours on stderr; auto heeds NO_COLOR and the terminal
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = Choice::Auto, help_heading = "Output")]
    pub color: Choice,

    #[command(flatten)]
    pub generate: Generate,
}

/// What `--sandbox` insists on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LockDown {
    /// What this kernel has; what it lacks is named on stderr
    Available,
    /// Everything, or nothing is started
    Require,
}

fn fits() -> impl TypedValueParser<Value = Fit> {
    PossibleValuesParser::new([
        PossibleValue::new("contain").help("The whole picture, inside the box"),
        PossibleValue::new("cover")
            .help("The whole box; the picture is cut to it, evenly on both sides"),
        PossibleValue::new("fill")
            .help("The whole picture in the whole box; its proportions are lost"),
    ])
    .try_map(|name| name.parse::<Fit>())
}

fn formats() -> impl TypedValueParser<Value = Format> {
    PossibleValuesParser::new([
        PossibleValue::new("jpeg").alias("jpg"),
        PossibleValue::new("png"),
        PossibleValue::new("webp"),
    ])
    .try_map(|name| name.parse::<Format>())
}

fn filters() -> impl TypedValueParser<Value = Filter> {
    PossibleValuesParser::new([
        "lanczos3",
        "catmull-rom",
        "mitchell",
        "bilinear",
        "box",
        "nearest",
    ])
    .try_map(|name| name.parse::<Filter>())
}

/// A colour of a page: `#rrggbb` or `#rgb`, the sign may be missing (a shell takes it for a comment), or `white` or `black`.
fn color(text: &str) -> Result<[u8; 3], String> {
    let digits = match text {
        "white" => "fff",
        "black" => "000",
        _ => text.strip_prefix('#').unwrap_or(text),
    };
    let digits: Option<Vec<u8>> = digits
        .chars()
        .map(|digit| digit.to_digit(16).map(|digit| digit as u8))
        .collect();
    match digits.as_deref() {
        Some(&[r, g, b]) => Ok([r, g, b].map(|digit| digit * 0x11)),
        Some(&[r, r2, g, g2, b, b2]) => Ok([r << 4 | r2, g << 4 | g2, b << 4 | b2]),
        _ => Err("a colour is #rrggbb, #rgb, white or black".to_owned()),
    }
}

/// 0 is the default: a variable that is set and empty stands for none.
pub(crate) fn workers(text: &str) -> Result<u16, String> {
    if text.is_empty() {
        return Ok(0);
    }
    match text.parse() {
        Ok(0) => Err("at least one worker is needed".to_owned()),
        Ok(count @ 1..=1024) => Ok(count),
        _ => Err("a number from 1 to 1024 is needed, here or in ARENITE_WORKERS".to_owned()),
    }
}

/// With less no worker gets through a small picture; one that is locked down does not even start.
const LEAST_MEMORY: u64 = 8 << 20;

fn private_memory(text: &str) -> Result<u64, String> {
    match units::bytes(text)? {
        bytes @ LEAST_MEMORY.. => Ok(bytes),
        _ => Err("a worker needs 8MiB at least".to_owned()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

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
    fn needed_flags_are_asked_for_and_wrong_ones_refused() {
        for line in [
            "photos --size 224",
            "photos --out x",
            "--size 224 --out x",
            "photos -s 0 -o x",
            "photos -s 5x5 -o x --quality 0",
            "photos -s 5x5 -o x --quality 101",
            "photos -s 5x5 -o x --format gif",
            "photos -s 5x5 -o x -j 0",
            "photos -s 5x5 -o x --fit crop",
            "photos -s 5x5 -o x --filter sharp",
            "photos -s 5x5 -o x --memory-limit much",
            "photos -s 5x5 -o x --progress maybe",
            "photos -s 5x5 -o x --background grey",
            "photos -s 5x5 -o x --background #ff00",
            "photos -s 5x5 -o x --background #+f0+f0",
        ] {
            let error = parse(line).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}");
        }
        assert!(parse("-0 -s 5 -o x").is_ok(), "-0 alone reads stdin");
        assert!(parse("- -s 5 -o x").is_ok());
        assert!(parse("--generate man").is_ok());
    }

    #[test]
    fn colours_are_those_of_a_page() {
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
    fn the_sandbox_takes_its_word_behind_a_sign() {
        let sandbox = |line: &str| parse(line).map(|args| args.sandbox);
        assert_eq!(sandbox("p -s 5 -o x").unwrap(), None);
        assert_eq!(
            sandbox("--sandbox p -s 5 -o x").unwrap(),
            Some(LockDown::Available)
        );
        assert_eq!(
            sandbox("p -s 5 -o x --sandbox=require").unwrap(),
            Some(LockDown::Require)
        );
        assert_eq!(
            sandbox("p -s 5 -o x --sandbox=some")
                .unwrap_err()
                .exit_code(),
            2
        );
    }

    #[test]
    fn times_and_retries_are_checked() {
        let args = parse("p -s 5 -o x --timeout 1.5m --retries 3").unwrap();
        assert_eq!(args.timeout, Some(Duration::from_secs(90)));
        assert_eq!(args.retries, 3);
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
}
