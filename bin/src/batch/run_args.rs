//! The flags of commands that process a list of pictures, and the settings that follow from them.

use std::env;
use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::Duration;

use arenite::Sandbox;
use arenite_image::{FailOn, ResizeSpec, Size};
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum, ValueHint};

use super::inputs::Raw;
use super::pattern::Exclusion;
use super::pool::{Make, Settings};
use super::printer::{Purpose, Style};
use super::shard::{Asked, Shard};
use crate::folder::{identity, location};
use crate::text::{self, Choice, wants_color};

/// The environment variable that replaces `--workers`.
const WORKERS: &str = "ARENITE_WORKERS";

/// The largest value of `--retries`.
pub(crate) const MAX_RETRIES: u32 = 100;

/// How a list of pictures is worked through, and what is printed about it.
#[derive(Args, Clone, Debug)]
pub(crate) struct RunArgs {
    /// Skip files and folders of this name, or a path below an input if it contains /; may be repeated
    #[arg(long, value_name = "GLOB", value_parser = Exclusion::parse)]
    pub exclude: Vec<Exclusion>,

    /// What to do with raw files of cameras
    #[arg(long, value_name = "HOW", value_enum, default_value_t = Raw::Preview)]
    pub raw: Raw,

    /// Damage that is an error: none, files that end early, missing or wrong pixels, or any
    #[arg(long, value_name = "DAMAGE", default_value = "error", value_parser = levels(), help_heading = "Run")]
    pub fail_on: FailOn,

    /// Do only one of N shares of the work: K/N, auto (K and N from Slurm or MPI) or auto/N (K from Kubernetes)
    #[arg(
        long,
        value_name = "K/N",
        allow_hyphen_values = true,
        help_heading = "Run"
    )]
    pub shard: Option<Asked>,

    // Not clap's `env`: it counts a set variable as an argument, which conflicts with the exclusive --generate.
    /// Worker processes [env: ARENITE_WORKERS] [default: one per core]
    #[arg(
        short = 'j',
        long,
        value_name = "N",
        allow_hyphen_values = true,
        value_parser = workers,
        help_heading = "Run"
    )]
    pub workers: Option<u16>,

    /// Shared memory for files being processed, such as 512MiB [default: half of the available memory]
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true, value_parser = text::bytes, help_heading = "Run")]
    pub capacity: Option<u64>,

    /// Private memory of each worker, at least 8MiB
    #[arg(
        long,
        value_name = "BYTES",
        allow_hyphen_values = true,
        value_parser = private_memory,
        default_value = "1GiB",
        help_heading = "Run"
    )]
    pub memory_limit: u64,

    /// Whether workers are sandboxed: no files, no network, no other processes [default: on]
    #[arg(long, value_name = "WHEN", value_enum, help_heading = "Run")]
    pub sandbox: Option<LockDown>,

    /// Time limit per picture, such as 30s, 500ms or 2m; its worker is killed and the run continues [default: 1m, and
    /// more for each megapixel]
    #[arg(
        long,
        value_name = "TIME",
        allow_hyphen_values = true,
        value_parser = text::duration,
        help_heading = "Run"
    )]
    pub timeout: Option<Duration>,

    /// Retry a picture up to N times if it times out or crashes its worker
    #[arg(
        long,
        value_name = "N",
        allow_hyphen_values = true,
        default_value_t = 0,
        value_parser = clap::value_parser!(u32).range(..=i64::from(MAX_RETRIES)),
        help_heading = "Run"
    )]
    pub retries: u32,

    /// Reject larger pictures by their header, before decoding, and animations of 4 times as many pixels in all frames
    #[arg(
        long,
        value_name = "PIXELS",
        allow_hyphen_values = true,
        value_parser = text::pixels,
        default_value = "400M",
        help_heading = "Run"
    )]
    pub max_pixels: u64,

    /// Reject pictures that decode to more than N bytes per byte of the file, from 64MiB of pixels on
    #[arg(
        long,
        value_name = "N",
        allow_hyphen_values = true,
        default_value_t = ResizeSpec::MAX_RATIO,
        value_parser = clap::value_parser!(u32).range(1..),
        help_heading = "Run"
    )]
    pub max_ratio: u32,

    /// Write a trace of all workers for Perfetto or Chrome's trace viewer
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Output")]
    pub trace: Option<PathBuf>,

    /// Write an HTML report: a timeline of all workers, durations, failures
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Output")]
    pub report: Option<PathBuf>,

    /// Print a JSON object per input and a summary instead of paths
    #[arg(long, help_heading = "Output")]
    pub json: bool,

    /// Print names on stdout with a NUL after each, for xargs -0, instead of lines
    #[arg(long, conflicts_with = "json", help_heading = "Output")]
    pub print0: bool,

    /// Print only errors, and with --sandbox what this Linux does not enforce
    #[arg(short, long, help_heading = "Output")]
    pub quiet: bool,

    /// When to show progress on stderr; auto: on a terminal
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = Choice::Auto, help_heading = "Output")]
    pub progress: Choice,

    /// When to use colours on stderr; auto: on a terminal, unless NO_COLOR is set
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = Choice::Auto, help_heading = "Output")]
    pub color: Choice,
}

/// The values of `--sandbox`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LockDown {
    /// Workers have your rights
    Off,
    /// Enforce what this Linux supports; name what it lacks on stderr
    On,
    /// Like on, but fail if this Linux lacks a part
    Require,
}

impl RunArgs {
    /// Checks flags where clap cannot, and fills in defaults.
    ///
    /// # Errors
    ///
    /// A sentence about flags that contradict each other, or a variable with a wrong value.
    pub(crate) fn settings(&self, purpose: Purpose) -> Result<Settings, String> {
        self.check_files()?;
        Ok(Settings {
            purpose,
            workers: self.workers()?,
            capacity: self.capacity,
            memory_limit: self.memory_limit,
            sandbox: match self.sandbox {
                Some(LockDown::Off) => Sandbox::Off,
                None | Some(LockDown::On) => Sandbox::Strict,
                Some(LockDown::Require) => Sandbox::Required,
            },
            is_sandbox_requested: self.sandbox.is_some(),
            most_retries: self.retries,
            drops_messages: false,
            trace: self.trace.clone(),
            report: self.report.clone(),
        })
    }

    /// Returns the style of the output. Cannot fail, so that the errors of [`settings`](Self::settings) can be printed.
    pub(crate) fn style(&self, purpose: Purpose) -> Style {
        Style {
            purpose,
            json: self.json,
            print0: self.print0,
            quiet: self.quiet,
            color: wants_color(self.color, io::stderr().is_terminal()),
            progress: match self.progress {
                Choice::Auto if self.quiet => Choice::Never,
                progress => progress,
            },
        }
    }

    /// Returns the share of the work, if the work is divided.
    ///
    /// # Errors
    ///
    /// A sentence that says which value to write.
    pub(crate) fn shard(&self) -> Result<Option<Shard>, String> {
        self.shard.map(|asked| asked.resolve(variable)).transpose()
    }

    /// Returns the settings for each picture, within the limits of these flags.
    pub(crate) fn make(&self, spec: ResizeSpec, sizes: Vec<Size>) -> Make {
        Make {
            spec: ResizeSpec {
                max_pixels: self.max_pixels,
                max_bytes: self.memory_limit,
                max_ratio: self.max_ratio,
                fail_on: self.fail_on,
                ..spec
            },
            sizes,
            timeout: self.timeout,
            retries: self.retries,
        }
    }

    fn check_files(&self) -> Result<(), String> {
        if let (Some(trace), Some(report)) = (&self.trace, &self.report)
            && (location(trace) == location(report)
                || identity(trace).is_some_and(|found| identity(report) == Some(found)))
        {
            return Err("--trace and --report need a file each".to_owned());
        }
        Ok(())
    }

    /// Returns the number of workers: from the flag, from the variable, or one per core.
    fn workers(&self) -> Result<usize, String> {
        let asked = match (self.workers, variable(WORKERS)) {
            (Some(flag), _) => flag,
            (None, None) => 0,
            (None, Some(value)) => {
                workers(&value).map_err(|why| format!("{WORKERS} is {value:?}: {why}"))?
            }
        };
        Ok(match asked {
            0 => cores(),
            asked => asked.into(),
        })
    }
}

impl Settings {
    /// Returns the files that are written in addition to the results, each with its flag.
    pub(crate) fn extra_files(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let files = [("--trace", &self.trace), ("--report", &self.report)];
        files
            .into_iter()
            .filter_map(|(flag, file)| Some((flag, file.as_deref()?)))
    }

    /// Returns whether the workers should start while the search for inputs is still running. The conditions: according
    /// to the command line there is work for all workers, and no extra file could overwrite an input.
    pub(crate) fn starts_early(&self, inputs: &[OsString], shard: Option<&Shard>) -> bool {
        let shards = shard.map_or(1, Shard::count);
        let has_enough = inputs.len() / shards >= self.workers
            || inputs.iter().any(|input| Path::new(input).is_dir());
        has_enough && self.workers <= cores() && self.extra_files().next().is_none()
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Returns the value of an environment variable.
fn variable(name: &str) -> Option<String> {
    env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

fn levels() -> impl TypedValueParser<Value = FailOn> {
    PossibleValuesParser::new([
        PossibleValue::new("none").help("No damage, as long as the header can be read"),
        PossibleValue::new("truncated").help("Files that end before their pixels do"),
        PossibleValue::new("error").help("Pixels that are missing or wrong too"),
        PossibleValue::new("warning").help("Damage that costs no pixel too"),
    ])
    .try_map(|name| name.parse::<FailOn>())
}

/// Parses a number of workers. An empty value is 0, which means the default.
fn workers(text: &str) -> Result<u16, String> {
    if text.is_empty() {
        return Ok(0);
    }
    match text.parse() {
        Ok(0) => Err("at least one worker is needed".to_owned()),
        Ok(count @ 1..=1024) => Ok(count),
        _ => Err("a number from 1 to 1024 is needed, here or in ARENITE_WORKERS".to_owned()),
    }
}

/// The minimum of private memory: with less, even small pictures fail, and sandboxed workers do not start.
const MIN_MEMORY: u64 = 8 << 20;

fn private_memory(text: &str) -> Result<u64, String> {
    match text::bytes(text)? {
        bytes @ MIN_MEMORY.. => Ok(bytes),
        _ => Err("a worker needs at least 8MiB".to_owned()),
    }
}
