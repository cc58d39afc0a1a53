//! The command line of `arenite resize`; [`Options`](super::options::Options) is made from it.

use std::ffi::OsString;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use arenite_image::{Filter, Fit, Format, Palette, Position, Size};
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueHint};

use crate::batch::run_args::RunArgs;
use crate::batch::template::Template;

const EXAMPLES: &str = "\
Examples:
  A folder of photos to thumbnails of at most 224x224 pixels:
    arenite resize photos --size 224 --out thumbs
  Squares, cropped at the middle, all as WebP:
    arenite resize photos -s 512x512 --fit cover --format webp -o squares
  Squares with the whole picture and white margins:
    arenite resize photos -s 512x512 --fit pad -o framed
  Portraits, cropped at the bottom only:
    arenite resize photos -s 300x400 --fit cover --position top -o cards
  Squares around what draws attention in each picture:
    arenite resize photos -s 300x300 --fit cover --position attention -o faces
  Only shrink pictures wider than 1600 pixels (> is quoted for the shell):
    arenite resize photos -s '1600x>' -o web
  Three sizes of each picture, decoded once, for srcset:
    arenite resize photos -s 320x -s 640x -s 1280x --no-enlarge -o web \\
      --name '{stem}-{width}.{ext}'
  A glob, expanded by arenite; results keep their path below 'photos':
    arenite resize 'photos/2024-*/**/*.jpg' -s 300 -o thumbs
  A list of names:
    find photos -name '*.jpg' -print0 | arenite resize -0 -s 224 -o thumbs
  Names with their folders below 'photos':
    arenite resize /data/photos/*/*.jpg --base /data/photos -s 224 -o thumbs
  a.jpg and a.png in one folder, as a.jpg.webp and a.png.webp:
    arenite resize photos -s 224 -o thumbs --name '{name}.webp'
  The third of eight machines that share a folder:
    arenite resize photos -s 224 -o thumbs --shard 3/8
  Continue after an interruption:
    arenite resize photos -s 224 -o thumbs --resume
  Answer the jobs of a server, each a line of JSON:
    arenite resize --jobs - -s 224 --timeout 20s --sandbox";

const DETAILS: &str = "\
Inputs:
  JPEG, PNG, WebP, GIF, AVIF, TIFF, BMP, JPEG XL, PNM (PBM, PGM, PPM, PAM),
  QOI, TGA and ICO are read; JPEG, PNG, WebP, GIF and AVIF are written. An
  animation stays one, except in JPEG and AVIF; of a TIFF with several pages
  the first is used, of an ICO the largest picture. The content decides, not
  the extension, except for TGA, which needs both. Folders are searched at any
  depth, without hidden files and without DIR; files that are no pictures are
  skipped and counted. Links to files are followed, links to folders only if
  named as inputs. In a glob, * and ? match parts of a name, [a-c] one of
  these characters, [!a-c] or [^a-c] any other, and ** folders at any depth,
  including none; {a,b} and ~ are left to the shell. A file with a picture's
  extension that cannot be read, such as a pipe, is an error. HEIC is read
  where the system has libde265 (`arenite doctor` says so). Pictures that are
  not read are errors that name their kind: JPEG 2000, JPEG XR, PSD, PCX, DDS,
  SGI, Radiance HDR, OpenEXR, SVG, EPS, PDF and XCF.

--raw:
  Of raw files of cameras (NEF, CR2, CR3, ARW, DNG, RAF, RW2, ORF) the largest
  JPEG preview is taken, upright, and written as JPEG by default: no raw pixels
  are developed. It is said once per run on stderr. Other raw files, such as CRW
  and PEF, are not read; with --raw refuse none are.

--exclude:
  Skips files and folders found in an input, and inputs given by name. A glob
  without / is compared with names at any depth; one with / with the path
  below the input, where ** stands for folders at any depth, including none;
  one that ends with / only with folders. Folders that other programs fill are
  skipped in folders anyway, unless named as inputs: hidden ones such as
  .thumbnails, @eaDir, @Recycle, #recycle, $RECYCLE.BIN, lost+found, __MACOSX
  and 'System Volume Information'.

Units:
  Bytes: 128M and 128MiB count in 1024s, 128MB in 1000s. Pixels: 128M counts
  in 1000s. Times without a unit are seconds.

Names:
  A result keeps its path below the folder given, or below the part of a glob
  before the first pattern. The result of a file on the command line is
  DIR/NAME, whatever folder the file is in. A file in a list keeps its
  relative path, or only its name if the path is absolute or contains '..'.
  With --base, each input keeps its path below that folder; one outside of it
  is an error. The extension is that of the format written: jpg, png, webp,
  gif or avif. It replaces a picture's extension and is appended to any other:
  IMG.0001 becomes IMG.0001.jpg. Inputs whose results would have one name are
  errors that say how to tell them apart (--name '{name}.{ext}', or --base),
  and the others are done. If a result would overwrite an input, nothing is
  started. A name with a line break takes more than one line on stdout: use
  --print0 or --json.

Existing files:
  Results of arenite are replaced, atomically. A file that arenite has not
  made is left alone: its picture fails with the cause \"exists\", unless
  --overwrite is given. arenite has made a file if DIR/.arenite-resize lists
  it with its length and time, or if its content is that of the new result. So
  results that another program has changed, or that were moved to another
  folder without that record, are not replaced either.

--name:
  A template for the last part of that path; the default is '{stem}.{ext}'.
  {stem} is the name of the input without a picture's extension, {from} that
  extension, and {name} the whole name; {ext} is the extension of the format
  written, {width} and {height} the sides of the result in pixels: the real
  ones, as srcset of a web page needs them, not those of --size. It may
  contain /. It ends with .{ext}, or with the extension of a format, which is
  then written.
  A name with {width} or {height} is known only when the result is made. Until
  then the braces stay in it, as under --dry-run. Pictures whose names are
  equal up to the sides are errors. A name that turns out to be taken, by
  another result or by an input, fails its picture with the cause
  \"name-conflict\".

Sizes:
  N means NxN. WxH is a box: the picture keeps its proportions and fits
  inside (see --fit). Wx and xH give one side; the other follows. N%, such
  as 50% or 12.5%, scales both sides of each picture, whatever --fit says. A
  suffix: > only shrinks, < only enlarges, ! forces exactly WxH, where a
  missing side is as long as the other. With --fit fill, a missing side keeps
  its length. --fit cover and --fit pad need a box; with one side given, they
  are contain. With --fit pad, > and --no-enlarge surround a smaller picture
  without enlarging it.
  With several --size, 32 at most, each picture is decoded once and has a
  result per size; --name tells them apart. The largest result is the same
  as with this size alone; smaller ones are made from larger ones. Sizes
  that give a picture the same sides, as when it is smaller than both of them
  and is not enlarged, have one result. A picture is written, skipped by
  --resume, or failed as a whole.

--resume:
  DIR/.arenite-resize records what made each result. A result is skipped if it
  was made with the same options, and neither it nor its input has changed
  since, judged by length and time. Each run writes that record, with and
  without --resume.

--shard:
  N runs with the same inputs and the same --out, such as one per machine,
  each make the results of one shard, K = 1 to N. A hash of a result's path
  below DIR decides its shard, the same for each size and option, so that a
  new input changes no other's shard. auto takes the first of these pairs
  that is complete, and prints it on stderr: SLURM_ARRAY_TASK_ID and _COUNT
  (from _MIN on), SLURM_PROCID and SLURM_NTASKS, OMPI_COMM_WORLD_RANK and
  _SIZE, PMI_RANK and _SIZE. auto/N takes JOB_COMPLETION_INDEX too, to which
  Kubernetes adds no count. Conflicts of names are looked for among all
  inputs. Each shard has a record of its own for --resume, and reads those of
  all: if a run fails, repeat it, or continue all with another N. Failures
  are reported by one shard; files skipped and hidden are counted by each.

--jobs -:
  For a server that starts arenite once and keeps it. A job is one line:
    {\"id\": 7, \"in\": \"up/a.jpg\", \"out\": \"thumbs/a.webp\", \"size\": 224}
  in and out are needed; id is a string or a number of your choice. size may
  be a list; out is then a template as of --name, of a whole path. The rest
  has the names and values of the options size, fit, position, no-enlarge,
  format, first-frame, filter, linear, quality, lossless, progressive,
  palette, background, keep-metadata, preserve-times, overwrite, fail-on,
  timeout, retries, max-pixels and max-ratio; those without a value are true
  or false. What a job leaves out is taken from the command line. The format
  is that of the job, of the command line, of the extension of out, or of the
  input, in this order. An out with the extension of another picture format is
  wrong. Each job has one answer, printed when it ends: the fields of --json,
  id, and line, the number of its line. A line that is no job is answered with
  the cause \"bad-job\". A line has at most 64 KiB; blank ones are skipped. Jobs
  in flight are limited: while answers are not read, jobs are not read either.
  Folders of results are created. Of two jobs with the same out, the last to
  end wins. Existing files that this program has not made are left alone,
  unless they have the content of the result, or \"overwrite\" is true. out must
  not be the job's own input. With --out, each out is a path below DIR and
  cannot leave it.
  At the end of stdin the program ends after the last answer, with exit code 0
  whatever the answers are. It ends at once, with 1, when nothing reads stdout
  any more. Failures are not repeated on stderr.

--fail-on:
  A damaged picture that is written has a warning on stderr, with the share
  of its pixels that are missing: they show the background (--background),
  or are transparent. At the default, only damage around the pixels is
  written: no end marker, wrong restart markers, bytes between segments, a
  colour profile that cannot be applied.

--keep-metadata:
  Without it, colours become sRGB and no metadata is written. With it, the
  pixels keep their colours and the result carries their profile; CMYK, and
  grey in WebP, still become sRGB, and so does HDR except in PNG and AVIF.
  EXIF and XMP are kept too (of TIFF no EXIF). Nothing else is kept: no IPTC,
  no comments, no extended XMP, and nothing in XMP about other parts of the
  file, such as gain maps, motion photos and thumbnails. EXIF that is none,
  and what a JPEG cannot hold, is left out with a warning. Orientation is
  always applied; EXIF is updated to say so, gets the sides of the result, and
  loses its thumbnail.

--background, --lossless and --progressive:
  --progressive applies to results in JPEG, --lossless to those in WebP.
  --background applies to transparent parts in JPEG and to the margins of
  --fit pad. A result with transparency has no other background. A colour is
  #rrggbb, #rgb, white or black; quote it, or omit the #, which starts a
  comment in a shell. With --keep-metadata it is in the colours of the
  picture. Margins are white, or transparent around a picture with
  transparency; with a colour they have it around every picture, and with
  --background transparent they are transparent around every picture (white
  in JPEG).

--sandbox:
  Decoders process untrusted bytes. With --sandbox, a worker that such bytes
  take over can open no file and no socket, and can start or touch no process
  (seccomp, Landlock); an attempt ends it, with the cause \"denied\". It can
  still read the other pictures being processed in this run, and could put
  one into another's result. Protection that this Linux does not support is
  named on stderr, also with --quiet.

--timeout and --retries:
  The timeout applies to each attempt, from its start in a worker; waiting
  for a worker and time stopped by Ctrl-Z do not count. At the timeout the
  worker is killed and replaced. An error that a decoder returns is final and
  not retried.

--trace and --report:
  Both files are created before the first picture is read, and replace
  existing ones. The trace is JSON for https://ui.perfetto.dev or
  chrome://tracing, with one row per worker and the picture's name on each
  run. The report is a single page that loads nothing from elsewhere. If
  there is nothing to do, neither is written.

--json:
  One object per line and input, in the order of the inputs: a slow picture
  delays the lines of those after it, but not their processing. Fields: type
  (\"file\"), input, output, status (written, planned, fresh, failed or
  pending), error, cause, attempts (of a failure in a worker), ms, and of the
  result: format and, when it is written, bytes, width and height. Of a
  damaged picture that is written also warning, and missing, the share of its
  pixels that are missing. If the name has {width} or {height}, results is a
  list with output, bytes, width and height of each result, and output, bytes,
  width and height are those of the largest one.
  Of a crash, cause signal-N: crash, with class, what, address, access, frames
  (function, file, line, module) and omitted. The last object has type
  \"summary\", shard (\"K/N\"), counts, of which unsupported has one per format
  that is not read, and a status: done, dry-run, interrupted (by a signal),
  stopped or refused. Stopped: results could no longer be written, as on a
  full disk; the rest is pending, and the exit code is 1. Refused: nothing was
  started; the exit code is 2, and the error says why. Names that are not
  UTF-8 are shown with replacement characters. Causes: bad-job (of a line of
  --jobs); not-found, read (of the file); unsupported-format, not-an-image,
  truncated, corrupt, too-many-pixels, too-many-bytes, bomb, output-too-large,
  out-of-memory, encode, returned (of the picture); name-conflict, exists,
  write, disk-full (of the result); arena-full, timeout, memory-limit,
  out-of-memory-kill, panicked, signal-N, exited-N, denied, protocol,
  no-workers, other (of a worker: N is the signal or the exit code).

Signals:
  The first SIGINT (Ctrl-C), SIGTERM or SIGHUP lets the pictures under way
  finish and prints how to continue. A second one ends the run at once (but
  not a second SIGHUP), and so does one before work begins. Neither leaves a
  torn file. After an end at once, stdout may lack results that were waiting
  for a slow one before them; --resume --json lists those as \"fresh\". The
  program ends by the signal, so that a shell loop around it ends too. A
  killed run may leave a hidden file, .arenite-N-*.tmp, which a later run
  into the same folder removes once it is an hour old.

Exit codes: 0 all done, 1 some inputs failed (each named on stderr), or the
list on stdout, the trace or the report could not be written, 2 wrong usage
or set-up, or no input found; and as a shell shows the end by a signal: 130
interrupted, 143 terminated, 129 hung up.";

/// The values of `--quality`.
pub(crate) const QUALITY: RangeInclusive<i64> = 1..=100;

/// Resize photos: files, folders, globs or a list on stdin
///
/// Each picture is read, resized and written on its own: a broken one is reported, and the others are done. Decoding
/// happens in worker processes, so that no file can crash the program.
#[derive(Args, Clone, Debug)]
#[command(
    override_usage = "arenite resize [OPTIONS] --size <SIZE> --out <DIR> <INPUT>...\n       \
                      arenite resize --jobs - [OPTIONS]",
    after_help = EXAMPLES,
    after_long_help = format!("{EXAMPLES}\n\n{DETAILS}")
)]
pub(crate) struct ResizeArgs {
    /// Files, folders or globs; - reads a list of names from stdin, one per line
    #[arg(
        value_name = "INPUT",
        value_hint = ValueHint::AnyPath,
        required_unless_present_any = ["null", "jobs"]
    )]
    pub inputs: Vec<OsString>,

    /// Target size: N, WxH, Wx or xH in pixels, or N%, optionally followed by >, < or !; give several with --name
    #[arg(
        short,
        long,
        value_name = "SIZE",
        allow_negative_numbers = true,
        required_unless_present = "jobs"
    )]
    pub size: Vec<Size>,

    /// Folder for the results; created if it does not exist
    #[arg(
        short,
        long,
        value_name = "DIR",
        value_hint = ValueHint::DirPath,
        required_unless_present = "jobs"
    )]
    pub out: Option<PathBuf>,

    /// Names of results [default: {stem}.{ext}]; several sizes need {width} or {height}, in pixels of the result
    #[arg(long, value_name = "TEMPLATE", value_parser = Template::below)]
    pub name: Option<Template>,

    /// Read a NUL-separated list from stdin, as written by find -print0 (implies -); see also --print0
    #[arg(short = '0', long = "null")]
    pub null: bool,

    /// Keep the path of each input below DIR: DIR/x/a.jpg becomes x/a.jpg in --out, however it is given
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub base: Option<PathBuf>,

    /// Read jobs from stdin and answer them on stdout, as lines of JSON, until stdin ends; SOURCE is -
    #[arg(
        long,
        value_name = "SOURCE",
        value_parser = ["-"],
        hide_possible_values = true,
        conflicts_with_all = [
            "inputs", "null", "base", "exclude", "name", "resume", "shard", "dry_run", "trace", "report", "json", "print0",
            "progress"
        ]
    )]
    pub jobs: Option<String>,

    /// How a picture fills the target size
    #[arg(long, value_name = "HOW", default_value = "contain", value_parser = fits(), help_heading = "Result")]
    pub fit: Fit,

    /// The side or corner at which --fit cover cuts nothing off, and --fit pad has no margin; attention: cover shows
    /// the part with the most edges, saturation and skin
    #[arg(long, value_name = "WHERE", default_value = "center", value_parser = positions(), help_heading = "Result")]
    pub position: Position,

    /// Do not enlarge: smaller pictures are re-encoded at their own size (same as > after the size)
    #[arg(long, help_heading = "Result")]
    pub no_enlarge: bool,

    /// Output format [default: that of the input; PNG for those that are only read]
    #[arg(long, value_name = "FORMAT", value_parser = formats(), help_heading = "Result")]
    pub format: Option<Format>,

    /// Of an animation, take the first frame; otherwise all of them, except in JPEG and AVIF
    #[arg(long, help_heading = "Result")]
    pub first_frame: bool,

    /// Resampling filter; box and nearest are slower for JPEG, which they decode at full size
    #[arg(long, value_name = "NAME", default_value = "lanczos3", value_parser = filters(), help_heading = "Result")]
    pub filter: Filter,

    /// Resize in linear light: fine patterns and lights at night keep their brightness; slower, most of all for JPEG
    #[arg(long, help_heading = "Result")]
    pub linear: bool,

    /// Quality of JPEG, lossy WebP and AVIF, 1 to 100
    #[arg(
        long,
        value_name = "N",
        allow_negative_numbers = true,
        default_value_t = 80,
        value_parser = clap::value_parser!(u8).range(QUALITY),
        help_heading = "Result"
    )]
    pub quality: u8,

    /// Write lossless WebP (PNG always is)
    #[arg(long, help_heading = "Result")]
    pub lossless: bool,

    /// Write progressive JPEG (slower, about 1 % smaller)
    #[arg(long, help_heading = "Result")]
    pub progressive: bool,

    /// When PNG has a palette of at most 256 colours: smaller, and coarser for photos
    #[arg(long, value_name = "WHEN", default_value = "auto", value_parser = palettes(), help_heading = "Result")]
    pub palette: Palette,

    /// Background of transparent parts in JPEG and of margins, such as #ff8000 or black; or transparent margins
    /// [default: white; margins around a picture with transparency are transparent]
    #[arg(long, value_name = "COLOR", value_parser = background, help_heading = "Result")]
    pub background: Option<Background>,

    /// Keep EXIF, XMP and the colour profile (of TIFF only the latter two), and the colours as they are; otherwise
    /// colours become sRGB
    #[arg(long, help_heading = "Result")]
    pub keep_metadata: bool,

    /// Give each result the time of the last change of its input
    #[arg(long, help_heading = "Result")]
    pub preserve_times: bool,

    /// Replace existing files that arenite has not made; it always replaces its own results, and never inputs
    #[arg(long, help_heading = "Run")]
    pub overwrite: bool,

    /// Skip results that were made with the same options from the same input
    #[arg(long, help_heading = "Run")]
    pub resume: bool,

    /// Print what would be written, and write nothing
    #[arg(short = 'n', long, help_heading = "Run")]
    pub dry_run: bool,

    #[command(flatten)]
    pub run: RunArgs,
}

fn fits() -> impl TypedValueParser<Value = Fit> {
    PossibleValuesParser::new([
        PossibleValue::new("contain").help("Fit the whole picture inside the box"),
        PossibleValue::new("cover")
            .help("Fill the box; what is too long is cut off (see --position)"),
        PossibleValue::new("fill").help("Stretch the picture to the box"),
        PossibleValue::new("pad").help(
            "Fit the whole picture inside the box, with margins up to the box (see --background)",
        ),
    ])
    .try_map(|name| name.parse::<Fit>())
}

fn positions() -> impl TypedValueParser<Value = Position> {
    PossibleValuesParser::new(Position::ALL.map(Position::name))
        .try_map(|name| name.parse::<Position>())
}

fn formats() -> impl TypedValueParser<Value = Format> {
    PossibleValuesParser::new([
        PossibleValue::new("jpeg").alias("jpg"),
        PossibleValue::new("png"),
        PossibleValue::new("webp"),
        PossibleValue::new("gif"),
        PossibleValue::new("avif"),
    ])
    .try_map(|name| name.parse::<Format>())
}

fn palettes() -> impl TypedValueParser<Value = Palette> {
    PossibleValuesParser::new([
        PossibleValue::new("auto")
            .help("If the input is a PNG or GIF with one and the result looks the same with it"),
        PossibleValue::new("always")
            .help("For every picture; colours that are missing are mixed (dithered)"),
        PossibleValue::new("never").help("For no picture"),
    ])
    .try_map(|name| name.parse::<Palette>())
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

/// What stands behind and around pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Background {
    /// Red, green, blue.
    Color([u8; 3]),
    /// Margins are transparent.
    Transparent,
}

/// Parses a [`color`], or `transparent`.
pub(crate) fn background(text: &str) -> Result<Background, String> {
    match text {
        "transparent" => Ok(Background::Transparent),
        _ => color(text).map(Background::Color),
    }
}

/// Parses a colour: `#rrggbb` or `#rgb`, with or without the sign (which starts a comment in a shell), `white` or
/// `black`.
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
        _ => Err("a background is #rrggbb, #rgb, white, black or transparent".to_owned()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use clap::Parser;

    use std::time::Duration;

    use super::*;
    use crate::batch::run_args::LockDown;
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
    fn the_value_of_sandbox_needs_an_equals_sign() {
        let sandbox = |line: &str| parse(line).map(|args| args.run.sandbox);
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
}
