//! Output: paths or JSON on stdout, failures and the summary on stderr.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, IsTerminal, LineWriter, Stdout, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use arenite::engine::{Crash, CrashFrame, CrashedAccess};
use serde::Serialize;

use super::inputs::Found;
use super::outcome::{Fault, Outcome, Written};
use super::plan::Item;
use super::progress::{Progress, rate_text};
use super::shard::Shard;
use crate::text::{Choice, json_line, one_line, reason, show_bytes, show_path};

/// What a run is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To make results, whose paths are listed.
    Resize,
    /// To find damaged files, which are listed.
    Check,
}

impl Purpose {
    /// Returns the name of the command.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Purpose::Resize => "resize",
            Purpose::Check => "check",
        }
    }
}

/// How to print.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style {
    pub purpose: Purpose,
    /// Whether stdout has JSON lines instead of paths.
    pub json: bool,
    /// Whether a NUL follows each path, instead of a line break.
    pub print0: bool,
    /// Whether stderr has only errors.
    pub quiet: bool,
    /// Whether to use colours on stderr.
    pub color: bool,
    /// When to show progress on stderr.
    pub progress: Choice,
}

/// Prints the outcome of each input, and counts them.
#[derive(Debug)]
pub(crate) struct Printer {
    /// `None` after a write has failed.
    stdout: Option<LineWriter<Stdout>>,
    /// Whether stdout is a terminal, so that the progress bar must make room for each line.
    stdout_is_terminal: bool,
    /// Whether the list on stdout, or a file of `--trace` or `--report`, could not be written completely.
    list_is_incomplete: bool,
    style: Style,
    /// The value of `--shard`, after `auto` was resolved.
    shard: Option<String>,
    /// `None` until workers have started.
    confinement: Option<Confinement>,
    progress: Progress,
    start: Instant,
    count: Count,
}

/// The counts of the summary, as printed by `resize --json`.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Count {
    /// Pictures found, readable or not.
    pub inputs: u64,
    #[serde(skip)]
    pub whole: u64,
    #[serde(skip)]
    pub damaged: u64,
    pub written: u64,
    pub planned: u64,
    pub fresh: u64,
    pub failed: u64,
    /// The number of pictures in unsupported formats in `failed`, by format.
    pub unsupported: BTreeMap<&'static str, u64>,
    /// Pictures with a warning: damage that does not count as an error, or a preview that is enlarged.
    pub warnings: u64,
    pub pending: u64,
    /// Files that are not pictures.
    pub skipped: u64,
    /// Hidden files and folders.
    pub hidden: u64,
    /// Files and folders left out by `--exclude` and its defaults.
    pub excluded: u64,
    /// The number of bytes that were read.
    pub bytes_in: u64,
    /// The number of bytes that were written.
    pub bytes: u64,
    /// Results written. With several sizes there are more results than pictures.
    pub results: u64,
}

/// The summary, as printed by `check --json`.
#[derive(Serialize)]
struct CheckCount<'a> {
    inputs: u64,
    whole: u64,
    damaged: u64,
    failed: u64,
    unsupported: &'a BTreeMap<&'static str, u64>,
    warnings: u64,
    pending: u64,
    skipped: u64,
    hidden: u64,
    excluded: u64,
    bytes_in: u64,
}

/// The line of an input, as printed by `--json`.
#[derive(Serialize)]
pub(crate) struct FileLine<'a> {
    r#type: &'static str,
    /// `None` if the line of a job names no input.
    input: Option<Cow<'a, str>>,
    output: Option<Cow<'a, str>>,
    status: &'static str,
    error: Option<&'a str>,
    cause: Option<&'a str>,
    attempts: Option<u32>,
    crash: Option<CrashLine<'a>>,
    ms: Option<f64>,
    bytes: Option<u64>,
    /// Width of the result in pixels.
    width: Option<u32>,
    /// Height of the result in pixels.
    height: Option<u32>,
    /// The name of the format, as in `--format`.
    format: Option<String>,
    /// Damage of the input that does not count as an error.
    warning: Option<&'a str>,
    /// The fraction of the input's pixels that is missing.
    missing: Option<f64>,
    /// All results, if their names depend on their sides. The fields above then describe the largest result.
    #[serde(skip_serializing_if = "Option::is_none")]
    results: Option<Vec<ResultLine<'a>>>,
}

/// A result in the line of its input.
#[derive(Serialize)]
struct ResultLine<'a> {
    output: Cow<'a, str>,
    bytes: u64,
    width: Option<u32>,
    height: Option<u32>,
}

/// The crash of a worker.
#[derive(Serialize)]
struct CrashLine<'a> {
    class: &'static str,
    what: String,
    /// In hexadecimal: some parsers lose digits of such large numbers.
    address: Option<String>,
    access: Option<&'static str>,
    /// The frames, the innermost first.
    frames: Vec<FrameLine<'a>>,
    /// The number of frames that are left out of a deep stack.
    omitted: u64,
}

#[derive(Serialize)]
struct FrameLine<'a> {
    function: Option<&'a str>,
    file: Option<&'a str>,
    line: Option<u32>,
    module: Option<Cow<'a, str>>,
}

/// How the workers of a run are confined.
#[derive(Debug)]
pub(crate) struct Confinement {
    /// Whether there is a sandbox: `on` or `off`.
    pub sandbox: &'static str,
    /// The parts of the sandbox that this machine cannot enforce, a sentence each.
    pub not_enforced: Vec<&'static str>,
    /// Whether the command line says how workers are confined.
    pub is_requested: bool,
}

#[derive(Serialize)]
struct SummaryLine<'a> {
    r#type: &'static str,
    status: &'static str,
    error: Option<&'a str>,
    shard: Option<&'a str>,
    /// `None` if no worker was started.
    sandbox: Option<&'static str>,
    not_enforced: &'a [&'static str],
    #[serde(flatten)]
    count: AnyCount<'a>,
    ms: f64,
}

#[derive(Serialize)]
#[serde(untagged)]
enum AnyCount<'a> {
    Resize(&'a Count),
    Check(CheckCount<'a>),
}

impl Printer {
    pub(crate) fn new(style: Style) -> Printer {
        Printer {
            stdout: Some(LineWriter::new(io::stdout())),
            stdout_is_terminal: io::stdout().is_terminal(),
            list_is_incomplete: false,
            style,
            shard: None,
            confinement: None,
            progress: Progress::None,
            start: Instant::now(),
            count: Count::default(),
        }
    }

    /// Sets the shard. If the environment specifies it, prints which variables do.
    pub(crate) fn shard(&mut self, shard: &Shard) {
        self.shard = Some(shard.to_string());
        if let Some(origin) = &shard.origin {
            self.note(&format!("shard {shard}: {origin}"));
        }
    }

    /// Prints what the sandbox of the workers does not enforce: if a sandbox was requested, even with `--quiet`.
    pub(crate) fn confined(&mut self, confinement: Confinement) {
        if !confinement.not_enforced.is_empty() {
            let parts = confinement.not_enforced.join("; ");
            let text = format!("not enforced by this Linux: {parts}");
            match confinement.is_requested {
                true => self.warn(&text),
                false => self.note(&text),
            }
        }
        self.confinement = Some(confinement);
    }

    /// Stores the counts of files that the search has skipped.
    pub(crate) fn begin(&mut self, found: &Found) {
        self.count.skipped = found.others;
        self.count.hidden = found.hidden;
        self.count.excluded = found.excluded;
    }

    /// Sets the number of inputs. Two names of the same file count as one input.
    pub(crate) fn planned(&mut self, inputs: usize) {
        self.count.inputs = inputs as u64;
    }

    /// Starts to show progress over `total` pictures.
    pub(crate) fn work(&mut self, total: u64) {
        self.progress = Progress::new(self.style.progress, total, self.style.color);
    }

    /// Counts an outcome. Prints it if it is a failure.
    pub(crate) fn decided(&mut self, item: &Item, outcome: &Outcome) {
        self.count(item, outcome);
        if matches!(outcome, Outcome::Written { .. } | Outcome::Whole { .. })
            || matches!(outcome, Outcome::Failed(_)) && item.task.is_ok()
        {
            self.progress.step();
        }
        match outcome {
            // Damaged files are listed on stdout.
            Outcome::Failed(fault) if self.is_damage(fault) => {}
            Outcome::Failed(fault) => self.error(&format!("{}: {fault}", show_path(&item.input))),
            Outcome::Written {
                warning: Some(warning),
                ..
            }
            | Outcome::Whole {
                warning: Some(warning),
                ..
            } => {
                let text = one_line(&warning.text);
                self.note(&format!("warning: {}: {text}", show_path(&item.input)));
            }
            _ => {}
        }
    }

    /// Prints the line of an outcome on stdout, if it has one.
    pub(crate) fn list(&mut self, item: &Item, outcome: &Outcome) {
        match (outcome, &item.task) {
            _ if self.style.json => self.print_json(&self.line(item, outcome)),
            (Outcome::Failed(fault), _) if self.is_damage(fault) => {
                self.print_path(&item.input, Some(fault));
            }
            _ if self.style.quiet => {}
            (Outcome::Written { results, .. }, _) => {
                for result in results {
                    self.print_path(&result.output, None);
                }
            }
            (Outcome::Planned, Ok(task)) => self.print_path(&task.output, None),
            _ => {}
        }
    }

    /// Returns whether the purpose of the run is to find this failure.
    fn is_damage(&self, fault: &Fault) -> bool {
        self.style.purpose == Purpose::Check && fault.proves_damage
    }

    fn line<'a>(&self, item: &'a Item, outcome: &'a Outcome) -> FileLine<'a> {
        let mut line = FileLine::of(item, outcome);
        if matches!(outcome, Outcome::Failed(fault) if self.is_damage(fault)) {
            line.status = "damaged";
        }
        line
    }

    fn count(&mut self, item: &Item, outcome: &Outcome) {
        match outcome {
            Outcome::Failed(fault) if self.is_damage(fault) => self.count.damaged += 1,
            outcome => self.count.add(item, outcome),
        }
    }

    /// Prints a path: its raw bytes for a program, without control characters for a terminal. Adds the reason of a
    /// failure, unless only names are requested.
    fn print_path(&mut self, path: &Path, reason: Option<&Fault>) {
        if self.style.print0 {
            let name = [path.as_os_str().as_bytes(), b"\0"].concat();
            return self.print(&name);
        }
        let mut line = if self.stdout_is_terminal {
            show_path(path).into_bytes()
        } else {
            path.as_os_str().as_bytes().to_vec()
        };
        if let Some(fault) = reason {
            line.extend_from_slice(format!("\t{fault}").as_bytes());
        }
        line.push(b'\n');
        self.print(&line);
    }

    /// Prints an error on stderr.
    pub(crate) fn error(&self, text: &str) {
        self.progress.aside(|| print_error(self.style.color, text));
    }

    /// Records that the list, the trace or the report could not be written: the exit code becomes 1.
    pub(crate) fn list_is_incomplete(&mut self, text: &str) {
        self.list_is_incomplete = true;
        self.error(text);
    }

    /// Prints a message on stderr, except under `--quiet`.
    pub(crate) fn note(&self, text: &str) {
        if !self.style.quiet {
            self.warn(text);
        }
    }

    /// Prints a message on stderr, even with `--quiet`.
    pub(crate) fn warn(&self, text: &str) {
        self.progress.aside(|| {
            let _ = io::stderr()
                .lock()
                .write_all(format!("{text}\n").as_bytes());
        });
    }

    /// Prints why nothing was started. With `--json`, also prints every input, so that a program need not read stderr.
    pub(crate) fn refuse(&mut self, items: &[Item], why: &str) {
        self.error(why);
        if !self.style.json {
            return;
        }
        self.planned(items.len());
        for item in items {
            let outcome = item.unworked(Outcome::Pending);
            self.count(item, &outcome);
            self.print_json(&self.line(item, &outcome));
        }
        self.print_summary("refused", Some(&one_line(why)));
    }

    /// Prints the summary.
    pub(crate) fn end(&mut self, status: &'static str) {
        self.progress.end();
        if self.style.json {
            self.print_summary(status, None);
        } else {
            let sentence = self
                .count
                .sentence(self.style.purpose, status, self.start.elapsed());
            self.note(&sentence);
        }
        if let Some(stdout) = &mut self.stdout {
            let _ = stdout.flush();
        }
    }

    fn print_summary(&mut self, status: &'static str, error: Option<&str>) {
        let confinement = self.confinement.as_ref();
        let line = json_line(&SummaryLine {
            r#type: "summary",
            status,
            error,
            shard: self.shard.as_deref(),
            sandbox: confinement.map(|confinement| confinement.sandbox),
            not_enforced: confinement.map_or(&[], |confinement| &confinement.not_enforced),
            count: match self.style.purpose {
                Purpose::Resize => AnyCount::Resize(&self.count),
                Purpose::Check => AnyCount::Check(self.count.of_check()),
            },
            ms: milliseconds(self.start.elapsed()),
        });
        if let Ok(line) = line {
            self.print(line.as_bytes());
        }
    }

    fn print_json(&mut self, line: &impl Serialize) {
        if let Ok(text) = json_line(line) {
            self.print(text.as_bytes());
        }
    }

    /// Prints on stdout. If a reader such as `head` stops early, the work continues.
    fn print(&mut self, line: &[u8]) {
        let Some(stdout) = &mut self.stdout else {
            return;
        };
        let mut write = || match self.style.print0 {
            true => stdout.write_all(line).and_then(|()| stdout.flush()),
            false => stdout.write_all(line),
        };
        let result = match self.stdout_is_terminal {
            true => self.progress.aside(write),
            false => write(),
        };
        if let Err(error) = result {
            self.stdout = None;
            if error.kind() != io::ErrorKind::BrokenPipe {
                self.list_is_incomplete(&format!("stdout: {}", reason(&error)));
            }
        }
    }

    /// Returns whether only errors are printed.
    pub(crate) fn is_quiet(&self) -> bool {
        self.style.quiet
    }

    /// Returns whether `--resume` can continue the run.
    pub(crate) fn can_resume(&self) -> bool {
        self.style.purpose == Purpose::Resize
    }

    /// Returns the number of inputs that were not begun.
    pub(crate) fn pending(&self) -> u64 {
        self.count.pending
    }

    /// Returns the exit code of a run that was not stopped: 1 after any failure or damage, otherwise 0.
    pub(crate) fn code(&self) -> u8 {
        u8::from(self.count.failed + self.count.damaged > 0 || self.list_is_incomplete)
    }
}

impl<'a> FileLine<'a> {
    pub(crate) fn of(item: &'a Item, outcome: &'a Outcome) -> FileLine<'a> {
        let mut line = FileLine {
            r#type: "file",
            input: Some(item.input.to_string_lossy()).filter(|path| !path.is_empty()),
            output: None,
            status: "failed",
            error: None,
            cause: None,
            attempts: None,
            crash: None,
            ms: None,
            bytes: None,
            width: None,
            height: None,
            format: None,
            warning: None,
            missing: None,
            results: None,
        };
        if let Ok(task) = &item.task {
            line.output = Some(task.output.to_string_lossy()).filter(|path| !path.is_empty());
            line.format = Some(task.format.name().to_ascii_lowercase());
        }
        match outcome {
            Outcome::Written {
                results,
                took,
                warning,
            } => {
                line.status = "written";
                line.show(item, results);
                line.ms = Some(milliseconds(*took));
                line.warning = warning.as_ref().map(|warning| warning.text.as_str());
                line.missing = warning.as_ref().map(|warning| warning.missing);
            }
            Outcome::Whole {
                sides: [width, height],
                took,
                warning,
            } => {
                line.status = "whole";
                line.width = Some(*width);
                line.height = Some(*height);
                line.ms = Some(milliseconds(*took));
                line.warning = warning.as_ref().map(|warning| warning.text.as_str());
                line.missing = warning.as_ref().map(|warning| warning.missing);
            }
            Outcome::Planned => line.status = "planned",
            Outcome::Fresh => {
                line.status = "fresh";
                if let Ok(task) = &item.task
                    && let (Some(_), Some(results)) = (&task.several, &task.fresh)
                {
                    line.show(item, results);
                }
            }
            Outcome::Pending => line.status = "pending",
            Outcome::Failed(fault) => {
                line.error = Some(&fault.text);
                line.cause = Some(&fault.cause);
                line.attempts = fault.attempts;
                line.crash = fault.crash.as_deref().map(CrashLine::of);
            }
        }
        line
    }

    /// Adds the largest result to the line. If names depend on sides, also adds all results.
    fn show(&mut self, item: &Item, results: &'a [Written]) {
        let pixels = |result: &&Written| {
            let [width, height] = result.sides.unwrap_or_default();
            u64::from(width) * u64::from(height)
        };
        if let Some(largest) = results.iter().max_by_key(pixels) {
            self.output = Some(largest.output.to_string_lossy());
            self.bytes = Some(largest.stamp.len);
            self.width = largest.sides.map(|[width, _]| width);
            self.height = largest.sides.map(|[_, height]| height);
        }
        if item.task.as_ref().is_ok_and(|task| task.several.is_some()) {
            let line = |result: &'a Written| ResultLine {
                output: result.output.to_string_lossy(),
                bytes: result.stamp.len,
                width: result.sides.map(|[width, _]| width),
                height: result.sides.map(|[_, height]| height),
            };
            self.results = Some(results.iter().map(line).collect());
        }
    }
}

impl<'a> CrashLine<'a> {
    fn of(crash: &'a Crash) -> CrashLine<'a> {
        let frame = |frame: &'a CrashFrame| FrameLine {
            function: frame.function.as_deref(),
            file: frame.file.as_deref(),
            line: frame.line,
            module: frame.module.as_deref().map(|path| path.to_string_lossy()),
        };
        CrashLine {
            class: crash.class.name(),
            what: crash.what(),
            address: crash.address.map(|address| format!("{address:#x}")),
            access: crash.access.map(CrashedAccess::name),
            frames: crash.frames().iter().map(frame).collect(),
            omitted: crash.omitted(),
        }
    }
}

/// Returns a time in milliseconds, rounded to the microsecond.
fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

impl Count {
    fn add(&mut self, item: &Item, outcome: &Outcome) {
        match outcome {
            Outcome::Written {
                results, warning, ..
            } => {
                self.written += 1;
                self.results += results.len() as u64;
                self.warnings += u64::from(warning.is_some());
                self.bytes += results.iter().map(|result| result.stamp.len).sum::<u64>();
                self.bytes_in += item.task.as_ref().map_or(0, |task| task.stamp.len);
            }
            Outcome::Whole { warning, .. } => {
                self.whole += 1;
                self.warnings += u64::from(warning.is_some());
                self.bytes_in += item.task.as_ref().map_or(0, |task| task.stamp.len);
            }
            Outcome::Planned => self.planned += 1,
            Outcome::Fresh => self.fresh += 1,
            Outcome::Pending => self.pending += 1,
            Outcome::Failed(fault) => {
                self.failed += 1;
                if let Some(format) = fault.unsupported {
                    *self.unsupported.entry(format).or_default() += 1;
                }
            }
        }
    }

    fn of_check(&self) -> CheckCount<'_> {
        CheckCount {
            inputs: self.inputs,
            whole: self.whole,
            damaged: self.damaged,
            failed: self.failed,
            unsupported: &self.unsupported,
            warnings: self.warnings,
            pending: self.pending,
            skipped: self.skipped,
            hidden: self.hidden,
            excluded: self.excluded,
            bytes_in: self.bytes_in,
        }
    }

    fn sentence(&self, purpose: Purpose, status: &str, took: Duration) -> String {
        let done = self.written + self.whole;
        let mut parts = vec![match (purpose, status) {
            (Purpose::Check, _) => format!("{done} whole"),
            (Purpose::Resize, "dry-run") => format!("{} to write", self.planned),
            (Purpose::Resize, _) if self.results > done => {
                format!("{done} written ({} files)", self.results)
            }
            (Purpose::Resize, _) => format!("{done} written"),
        }];
        for (count, what) in [
            (self.fresh, "up to date"),
            (self.warnings, "of them with a warning"),
            (self.damaged, "damaged"),
            (self.failed, "failed"),
            (self.pending, "not begun"),
            (self.skipped, "skipped (not images)"),
            (self.hidden, "hidden"),
            (self.excluded, "excluded"),
        ] {
            if count > 0 {
                parts.push(format!("{count} {what}"));
            }
            if what == "failed" && !self.unsupported.is_empty() {
                let formats = self.unsupported.iter();
                let formats: Vec<String> = formats
                    .map(|(format, count)| format!("{count} {format}"))
                    .collect();
                parts.push(format!("of them unsupported: {}", formats.join(", ")));
            }
        }
        let mut text = parts.join(", ");
        if done > 0 {
            let seconds = took.as_secs_f64().max(1e-6);
            let out = match purpose {
                Purpose::Resize => format!(" {} out,", show_bytes(self.bytes)),
                Purpose::Check => String::new(),
            };
            text.push_str(&format!(
                "; {} in,{out} {seconds:.1} s, {}",
                show_bytes(self.bytes_in),
                rate_text(done as f64 / seconds)
            ));
        }
        text
    }
}

/// Prints a line `error: …` on stderr.
fn print_error(color: bool, text: &str) {
    let style = anstyle::Style::new()
        .fg_color(Some(anstyle::AnsiColor::Red.into()))
        .bold();
    let text = one_line(text);
    let line = if color {
        format!("{style}error:{style:#} {text}\n")
    } else {
        format!("error: {text}\n")
    };
    let _ = io::stderr().lock().write_all(line.as_bytes());
}
