//! The command line of `arenite resize`: each flag with its help, the flags that it contradicts, its effect on
//! pictures, and whether `--resume` compares it.
//!
//! A new option needs a field of [`ResizeArgs`], a line in [`spec`], a word in [`fingerprint`] if it changes results,
//! and a paragraph in `help.txt` if its line of help is not sufficient.

use std::ffi::OsString;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use arenite_image::{Filter, Fit, Format, Margins, Palette, Position, ResizeSpec, Size, When};
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueHint};

use crate::batch::plan::Template;
use crate::batch::pool::{MAX_SIZES, Make, Settings};
use crate::batch::printer::Purpose;
use crate::batch::run_args::{MAX_RETRIES, RunArgs};
use crate::batch::shard::Shard;

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
    arenite resize --jobs - -s 224 --timeout 20s";

/// The text that `--help` prints after the list of flags.
const DETAILS: &str = include_str!("help.txt");

/// The range of `--quality`.
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
    after_long_help = format!("{EXAMPLES}\n\n{}", DETAILS.trim_end())
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
        allow_hyphen_values = true,
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
    #[arg(long, value_name = "FORMAT", ignore_case = true, value_parser = formats(), help_heading = "Result")]
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
        allow_hyphen_values = true,
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
    .try_map(|name| name.to_ascii_lowercase().parse::<Format>())
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

/// The background of transparent pictures and of margins.
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

/// Parses a colour: `#rrggbb` or `#rgb`, with or without the `#` (which starts a comment in a shell), `white` or
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

/// A checked command line, with defaults filled in.
#[derive(Debug)]
pub(crate) struct Options<'a> {
    /// The flags themselves.
    pub args: &'a ResizeArgs,
    /// The folder for results.
    pub out: &'a Path,
    /// The format to write; `None` for that of the input.
    pub format: Option<Format>,
    /// The names of results.
    pub name: Template,
    /// The share of the results to make; `None` for all results.
    pub shard: Option<Shard>,
    /// Everything that affects a result, as text. `--resume` compares it.
    pub fingerprint: String,
    /// The results to make of each picture.
    pub make: Make,
    /// The engine that makes the results.
    pub engine: Settings,
}

impl<'a> Options<'a> {
    /// Checks flags where clap cannot, and fills in defaults.
    ///
    /// # Errors
    ///
    /// A sentence about flags that are missing or contradict each other.
    pub(crate) fn from_args(args: &'a ResizeArgs) -> Result<Options<'a>, String> {
        let Some(out) = &args.out else {
            return Err("--size and --out are needed".to_owned());
        };
        let engine = args.run.settings(Purpose::Resize)?;
        check_position(args)?;
        let name = args.name.clone().unwrap_or_default();
        check_names(args, &name)?;
        let format = format(args, &name)?;
        let make = make(&ResizeArgs {
            format,
            ..args.clone()
        })?;
        Ok(Options {
            args,
            out,
            format,
            name,
            shard: args.run.shard()?,
            fingerprint: fingerprint(&make, format, args.preserve_times),
            make,
            engine,
        })
    }

    /// Returns whether the workers should start while the search for inputs is still running.
    pub(crate) fn starts_early(&self) -> bool {
        // With --resume there may be nothing to do.
        let is_settled = !self.args.dry_run && !self.args.resume;
        is_settled
            && self
                .engine
                .starts_early(&self.args.inputs, self.shard.as_ref())
    }
}

/// Returns the settings of the engine for `--jobs`.
///
/// # Errors
///
/// A sentence about flags that contradict each other.
pub(crate) fn settings_of_jobs(args: &ResizeArgs) -> Result<Settings, String> {
    check_formats(args)?;
    check_sizes(args)?;
    Ok(Settings {
        // A job may request more retries than the command line.
        most_retries: MAX_RETRIES,
        // If the caller does not read stderr, the work must continue.
        drops_messages: true,
        ..args.run.settings(Purpose::Resize)?
    })
}

/// Returns the results to make of each picture, for a command line or for one job of `--jobs`.
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
    Ok(args.run.make(spec(args, size), args.size.clone()))
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

/// Checks that results of different sizes can have different names.
///
/// # Errors
///
/// A sentence that says how to name the results.
pub(crate) fn check_names(args: &ResizeArgs, template: &Template) -> Result<(), String> {
    if args.size.len() > 1 && !template.has_sides() {
        return Err(
            "several sizes need names with {width} or {height}, such as {stem}-{width}.{ext} (--name)"
                .to_owned(),
        );
    }
    // Whether the width of the result is known, whatever the picture is.
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

/// Checks `--position`. Not called for `--jobs`, where a job may have another fit than the command line.
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

/// Returns the format to write: from `--format`, or from the extension in `--name`.
fn format(args: &ResizeArgs, name: &Template) -> Result<Option<Format>, String> {
    match (args.format, name.format()) {
        (Some(asked), Some(named)) if asked != named => Err(format!(
            "--format writes {asked}, and the extension in --name stands for {named}: write {{ext}} in its place"
        )),
        (asked, named) => Ok(asked.or(named)),
    }
}

fn check_sizes(args: &ResizeArgs) -> Result<(), String> {
    if args.size.len() > MAX_SIZES {
        return Err(format!(
            "{} sizes are more than the {MAX_SIZES} that one run makes",
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

/// Returns the settings for each picture, without the output format, which is set for each picture.
fn spec(args: &ResizeArgs, size: Size) -> ResizeSpec {
    let white = [u8::MAX; 3];
    let (background, margins) = match args.background {
        None => (white, Margins::Auto),
        Some(Background::Color(color)) => (color, Margins::Background),
        Some(Background::Transparent) => (white, Margins::Transparent),
    };
    ResizeSpec {
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
        palette: args.palette,
        ..ResizeSpec::new(size)
    }
}

/// Returns everything that affects a result, as text. The leading number is incremented when a later version makes
/// other results from the same options.
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
mod tests;
