//! A job: one line of JSON.

use std::ffi::OsStr;
use std::fmt::Display;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use arenite_image::{FailOn, Filter, Fit, Format, Palette, Position, Size};
use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::super::args::{self, Background, QUALITY, ResizeArgs};
use super::feed::LONGEST_LINE;
use crate::batch::Fault;
use crate::batch::inputs::Kind;
use crate::batch::plan::Template;
use crate::batch::pool::Make;
use crate::batch::run_args::{MAX_RETRIES, RunArgs};
use crate::text::{self, show_path};

/// The content of a line.
#[derive(Debug)]
pub(super) struct Job {
    /// A string or a number to send back with the answer; null if none can be read.
    pub id: Value,
    /// The input; empty if none can be read.
    pub input: PathBuf,
    /// The checked job, or what is wrong with the line.
    pub asked: Result<Asked, Fault>,
}

/// A checked job.
#[derive(Debug)]
pub(super) struct Asked {
    /// The output path, as the job specifies it.
    pub output: PathBuf,
    /// The names of the results, if the job requests several sizes.
    pub template: Option<Template>,
    pub make: Make,
    /// The format to write: from the job, the command line or the output's name. `None` for that of the input.
    pub format: Option<Format>,
    /// Whether files that arenite has not made may be replaced.
    pub overwrite: bool,
    /// Whether results get the time of the input.
    pub preserve_times: bool,
}

/// The fields of an invalid job that the answer needs.
#[derive(Deserialize)]
struct OnlyId {
    id: Value,
}

/// An `id` as it is written in the line.
#[derive(Deserialize)]
struct RawId<'a> {
    #[serde(borrow)]
    id: &'a RawValue,
}

/// The options of a job, with the names that they have on the command line.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct Fields {
    #[serde(deserialize_with = "sizes")]
    size: Option<Sizes>,
    #[serde(deserialize_with = "parsed")]
    fit: Option<Fit>,
    #[serde(deserialize_with = "parsed")]
    position: Option<Position>,
    no_enlarge: Option<bool>,
    #[serde(deserialize_with = "parsed")]
    format: Option<Format>,
    #[serde(deserialize_with = "parsed")]
    filter: Option<Filter>,
    linear: Option<bool>,
    quality: Option<u8>,
    lossless: Option<bool>,
    progressive: Option<bool>,
    #[serde(deserialize_with = "parsed")]
    palette: Option<Palette>,
    first_frame: Option<bool>,
    #[serde(deserialize_with = "background")]
    background: Option<Background>,
    keep_metadata: Option<bool>,
    overwrite: Option<bool>,
    preserve_times: Option<bool>,
    #[serde(deserialize_with = "parsed")]
    fail_on: Option<FailOn>,
    #[serde(deserialize_with = "duration")]
    timeout: Option<Duration>,
    retries: Option<u32>,
    #[serde(deserialize_with = "pixels")]
    max_pixels: Option<u64>,
    max_ratio: Option<u32>,
}

/// One size, or a list of them.
#[derive(Debug)]
struct Sizes {
    sizes: Vec<Size>,
    is_list: bool,
}

impl Job {
    /// Reads a line. Options that it does not contain come from `defaults`.
    pub(super) fn read(text: Option<&[u8]>, defaults: &ResizeArgs) -> Job {
        let (mut id, mut input) = (Value::Null, PathBuf::new());
        let asked = match text {
            Some(text) => read(text, defaults, &mut id, &mut input),
            None => Err(format!("longer than {LONGEST_LINE} bytes")),
        };
        Job {
            id,
            input,
            asked: asked.map_err(|why| Fault::new("bad-job", why)),
        }
    }
}

/// Reads a job. Sets its `id` and `input` even if the rest is wrong.
fn read(
    text: &[u8],
    defaults: &ResizeArgs,
    id: &mut Value,
    input: &mut PathBuf,
) -> Result<Asked, String> {
    let read: serde_json::Result<Map<String, Value>> = serde_json::from_slice(text);
    let mut fields = read.map_err(|error| {
        // Read the id alone: other fields may contain half of a surrogate pair, or bytes that are not text.
        if let Ok(OnlyId { id: found }) = serde_json::from_slice(text) {
            let _ = checked_id(found, text).map(|found| *id = found);
        }
        format!("not an object of JSON: {error}")
    })?;
    let found = path(&mut fields, "in").map(|found| *input = found);
    *id = checked_id(fields.remove("id").unwrap_or_default(), text)?;
    found?;
    let output = path(&mut fields, "out")?;
    check_output(&output)?;
    let fields = Fields::deserialize(Value::Object(fields)).map_err(|error| error.to_string())?;
    let is_list = fields.size.as_ref().is_some_and(|size| size.is_list);
    let args = fields.over(defaults)?;
    if args.size.is_empty() {
        return Err("size: neither the job nor the command line gives one".to_owned());
    }
    let template = match output.to_str() {
        Some(text) if is_list || args.size.len() > 1 => {
            let template = text.parse().map_err(|why| format!("out: {why}"))?;
            args::check_names(&args, &template).map_err(|why| format!("out: {why}"))?;
            Some(template)
        }
        _ => None,
    };
    Ok(Asked {
        format: format(args.format, &output)?,
        output,
        template,
        make: args::make(&args)?,
        overwrite: args.overwrite,
        preserve_times: args.preserve_times,
    })
}

/// Returns whether a number that is the `id` of this line has no more digits than a float can store. With more digits,
/// two jobs could get the same id.
fn is_exact(text: &[u8]) -> bool {
    let Ok(RawId { id }) = serde_json::from_slice(text) else {
        return false;
    };
    let mantissa = id.get().split(['e', 'E']).next().unwrap_or_default();
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    digits.trim_matches('0').len() <= f64::DIGITS as usize
}

/// Returns whether a whole number is stored exactly by programs that store numbers as floats.
fn is_safe(number: i64) -> bool {
    number.unsigned_abs() < 1 << f64::MANTISSA_DIGITS
}

/// Checks an id. `text` is the whole line.
fn checked_id(id: Value, text: &[u8]) -> Result<Value, String> {
    match id {
        Value::Null | Value::String(_) => Ok(id),
        Value::Number(ref number) if number.as_i64().is_some_and(is_safe) => Ok(id),
        Value::Number(ref number) if number.is_f64() && is_exact(text) => Ok(id),
        Value::Number(_) => Err("id: a number of too many digits; write it as a string".to_owned()),
        _ => Err("id: a string or a number is needed".to_owned()),
    }
}

/// Returns the format to write: from the job or the command line, or from the extension of `output`.
///
/// # Errors
///
/// A sentence, if the extension stands for another format.
fn format(asked: Option<Format>, output: &Path) -> Result<Option<Format>, String> {
    if !Kind::expected(output) {
        return Ok(asked);
    }
    let extension = output.extension().unwrap_or_default().to_string_lossy();
    let named: Format = extension.parse().map_err(|why| format!("out: {why}"))?;
    match asked {
        Some(asked) if asked != named => Err(format!(
            "out: the extension {extension:?} stands for {named}, and format writes {asked}: name it .{}",
            asked.extension()
        )),
        _ => Ok(Some(named)),
    }
}

fn path(fields: &mut Map<String, Value>, name: &str) -> Result<PathBuf, String> {
    match fields.remove(name) {
        Some(Value::String(path)) if path.contains('\0') => {
            Err(format!("{name}: a path has no NUL"))
        }
        Some(Value::String(path)) if !path.is_empty() => Ok(path.into()),
        _ => Err(format!("{name}: the path of a file is needed")),
    }
}

/// Returns the name at the end of a path. `None` if the path ends like that of a folder, which [`Path::file_name`]
/// ignores.
pub(super) fn file_name(path: &Path) -> Option<&OsStr> {
    let bytes = path.as_os_str().as_bytes();
    let is_folder = bytes.ends_with(b"/") || bytes.ends_with(b"/.");
    path.file_name().filter(|_| !is_folder)
}

/// Rejects a path that names no file, or that no file system accepts: creating thousands of folders would delay other
/// jobs.
fn check_output(output: &Path) -> Result<(), String> {
    /// The maximum length of a path in bytes, in Linux.
    const LONGEST: usize = 4095;
    const DEEPEST: usize = 255;
    let bytes = output.as_os_str().as_bytes();
    if bytes.len() > LONGEST || output.components().count() > DEEPEST + 1 {
        return Err(format!(
            "out: longer than {LONGEST} bytes, or in more than {DEEPEST} folders"
        ));
    }
    if file_name(output).is_none() {
        return Err(format!(
            "out: {} is a folder; add the name of the file",
            show_path(output)
        ));
    }
    Ok(())
}

impl Fields {
    /// Returns the command line `defaults`, in which the options of this job replace those of the same name.
    fn over(self, defaults: &ResizeArgs) -> Result<ResizeArgs, String> {
        let is_quality = |&quality: &u8| QUALITY.contains(&i64::from(quality));
        if !self.quality.as_ref().is_none_or(is_quality) {
            let (least, most) = (QUALITY.start(), QUALITY.end());
            return Err(format!(
                "quality: a number from {least} to {most} is needed"
            ));
        }
        if self.retries > Some(MAX_RETRIES) {
            return Err(format!("retries: at most {MAX_RETRIES}"));
        }
        if self.max_ratio == Some(0) {
            return Err("max-ratio: at least 1".to_owned());
        }
        Ok(ResizeArgs {
            size: self
                .size
                .map_or_else(|| defaults.size.clone(), |size| size.sizes),
            fit: self.fit.unwrap_or(defaults.fit),
            position: self.position.unwrap_or(defaults.position),
            no_enlarge: self.no_enlarge.unwrap_or(defaults.no_enlarge),
            format: self.format.or(defaults.format),
            filter: self.filter.unwrap_or(defaults.filter),
            linear: self.linear.unwrap_or(defaults.linear),
            quality: self.quality.unwrap_or(defaults.quality),
            lossless: self.lossless.unwrap_or(defaults.lossless),
            progressive: self.progressive.unwrap_or(defaults.progressive),
            palette: self.palette.unwrap_or(defaults.palette),
            first_frame: self.first_frame.unwrap_or(defaults.first_frame),
            background: self.background.or(defaults.background),
            keep_metadata: self.keep_metadata.unwrap_or(defaults.keep_metadata),
            overwrite: self.overwrite.unwrap_or(defaults.overwrite),
            preserve_times: self.preserve_times.unwrap_or(defaults.preserve_times),
            run: RunArgs {
                fail_on: self.fail_on.unwrap_or(defaults.run.fail_on),
                timeout: self.timeout.or(defaults.run.timeout),
                retries: self.retries.unwrap_or(defaults.run.retries),
                max_pixels: self.max_pixels.unwrap_or(defaults.run.max_pixels),
                max_ratio: self.max_ratio.unwrap_or(defaults.run.max_ratio),
                ..defaults.run.clone()
            },
            ..defaults.clone()
        })
    }
}

/// Reads a string or a number. Returns it as it would be written on the command line.
fn word<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    match Value::deserialize(from)? {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text)),
        Value::Number(number) => Ok(Some(number.to_string())),
        other => Err(Error::custom(format!(
            "{other}: a string or a number is needed"
        ))),
    }
}

fn by<'de, D: Deserializer<'de>, T, E: Display>(
    from: D,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<Option<T>, D::Error> {
    let Some(word) = word(from)? else {
        return Ok(None);
    };
    let value = parse(&word).map_err(|why| Error::custom(format!("{word:?}: {why}")))?;
    Ok(Some(value))
}

fn parsed<'de, D: Deserializer<'de>, T: FromStr<Err: Display>>(
    from: D,
) -> Result<Option<T>, D::Error> {
    by(from, str::parse)
}

/// Reads a size, or a list of sizes that is not empty.
fn sizes<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Sizes>, D::Error> {
    let (values, is_list) = match Value::deserialize(from)? {
        Value::Array(values) if values.is_empty() => {
            return Err(Error::custom("a list of sizes needs at least one"));
        }
        Value::Array(values) => (values, true),
        Value::Null => return Ok(None),
        value => (vec![value], false),
    };
    let size = |value: Value| {
        let size: Option<Size> = parsed(value).map_err(Error::custom)?;
        size.ok_or_else(|| Error::custom("a size is a string or a number"))
    };
    let sizes = values
        .into_iter()
        .map(size)
        .collect::<Result<_, D::Error>>()?;
    Ok(Some(Sizes { sizes, is_list }))
}

fn background<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Background>, D::Error> {
    by(from, args::background)
}

fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    by(from, text::duration)
}

fn pixels<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    by(from, text::pixels)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::{Cli, Command};

    fn job(flags: &str, line: &str) -> Job {
        let words = ["arenite", "resize", "--jobs", "-"];
        let words = words.into_iter().chain(flags.split_whitespace());
        let Some(Command::Resize(args)) = Cli::try_parse_from(words).unwrap().command else {
            panic!("{flags}");
        };
        Job::read(Some(line.as_bytes()), &args)
    }

    #[test]
    fn a_job_says_what_differs_from_the_command_line() {
        let flags = "-s 8 --quality 70 --lossless --timeout 5s --fail-on none";
        let defaults = job(flags, r#"{"in": "a", "out": "b"}"#).asked.unwrap();
        assert_eq!(defaults.make.spec.size, "8".parse().unwrap());
        assert_eq!((defaults.make.spec.quality, defaults.format), (70, None));
        let line = r##"{"id": 7, "in": "a", "out": "b", "size": "9x5>", "fit": "cover", "position": "left", "no-enlarge": true,
            "format": "jpg", "filter": "box", "linear": true, "quality": 90, "lossless": false, "progressive": true, "palette": "never", "first-frame": true,
            "background": "#f00", "keep-metadata": true, "fail-on": "warning", "timeout": 1.5, "retries": 2,
            "max-pixels": "2M", "max-ratio": 9}"##;
        let read = job(flags, line);
        let asked = read.asked.unwrap();
        let spec = asked.make.spec;
        assert_eq!(read.id, 7);
        assert_eq!((spec.size, spec.fit), ("9x5>".parse().unwrap(), Fit::Cover));
        assert_eq!((spec.position, spec.linear), (Position::Left, true));
        assert_eq!((spec.filter, spec.quality), ("box".parse().unwrap(), 90));
        assert_eq!((spec.enlarge, spec.lossless), (false, false));
        assert_eq!((spec.palette, spec.first_frame), (Palette::Never, true));
        assert_eq!((spec.progressive, spec.keep_metadata), (true, true));
        assert_eq!(
            (spec.background, spec.fail_on),
            ([255, 0, 0], FailOn::Warning)
        );
        assert_eq!((spec.max_pixels, spec.max_ratio), (2_000_000, 9));
        assert_eq!(asked.make.timeout, Some(Duration::from_millis(1500)));
        assert_eq!((asked.make.retries, asked.format), (2, Some(Format::Jpeg)));
        let number = job(
            "",
            r#"{"in": "a", "out": "b", "size": 12, "quality": null}"#,
        );
        let number = number.asked.unwrap();
        assert_eq!(number.make.spec.size, "12".parse().unwrap());
    }

    #[test]
    fn what_is_wrong_is_named_and_the_id_is_read_all_the_same() {
        for (fields, words) in [
            (r#""in": "a""#, "out: the path of a file"),
            (r#""in": "", "out": "b""#, "in: the path of a file"),
            (r#""in": 5, "out": "b""#, "in: the path of a file"),
            (r#""in": "a\u0000", "out": "b""#, "in: a path has no NUL"),
            (
                r#""in": "a", "out": "b", "siez": 5"#,
                "unknown field `siez`",
            ),
            (
                r#""in": "a", "out": "b", "size": [[5]]"#,
                "a string or a number",
            ),
            (
                &format!(r#""in": "a", "out": "{}b""#, "d/".repeat(256)),
                "more than 255 folders",
            ),
            (
                &format!(r#""in": "a", "out": "{}""#, "d".repeat(4096)),
                "longer than 4095 bytes",
            ),
            (r#""in": "a", "out": "d/""#, "d/ is a folder; add the name"),
            (r#""in": "a", "out": "d/.""#, "d/. is a folder"),
            (r#""in": "a", "out": "d/..""#, "d/.. is a folder"),
            (r#""in": "a", "out": "/""#, "/ is a folder"),
            (
                r#""in": "a", "out": "{stem}/", "size": [5]"#,
                "{stem}/ is a folder",
            ),
            (r#""in": "a", "out": "b", "size": []"#, "at least one"),
            (r#""in": "a", "out": "b", "size": [5, null]"#, "a size is"),
            (
                r#""in": "a", "out": "b", "size": [5, 6]"#,
                "out: several sizes",
            ),
            (
                r#""in": "a", "out": "{size}", "size": [5]"#,
                "out: unknown \"{size}\"",
            ),
            (r#""in": "a", "out": "b", "size": "0""#, "\"0\""),
            (
                r#""in": "a", "out": "b", "format": "tiff""#,
                "cannot be written",
            ),
            (r#""in": "a", "out": "b", "quality": 101"#, "from 1 to 100"),
            (r#""in": "a", "out": "b", "quality": "80""#, "invalid type"),
            (r#""in": "a", "out": "b", "retries": 101"#, "at most 100"),
            (r#""in": "a", "out": "b", "max-ratio": 0"#, "at least 1"),
            (r#""in": "a", "out": "b", "timeout": "soon""#, "soon"),
            (r#""in": "a", "out": "b", "background": "grey""#, "#rrggbb"),
            (
                r#""in": "a", "out": "b", "workers": 5"#,
                "unknown field `workers`",
            ),
            (
                r#""in": "a", "out": "b", "lossless": true, "format": "jpeg""#,
                "is not lossless",
            ),
        ] {
            let read = job("-s 8", &format!(r#"{{"id": "x", {fields}}}"#));
            let fault = read.asked.unwrap_err();
            assert_eq!(
                (read.id, &*fault.cause),
                ("x".into(), "bad-job"),
                "{fields}"
            );
            assert!(fault.text.contains(words), "{fields}: {fault}");
        }
        for line in [
            "",
            "[]",
            "{",
            "{} {}",
            "\u{fffd}",
            r#"{"id": {}, "in": "a", "out": "b"}"#,
            r#"{"id": 18446744073709551616, "in": "a", "out": "b"}"#,
            r#"{"id": 18446744073709551615, "in": "a", "out": "b"}"#,
            r#"{"id": 9007199254740993, "in": "a", "out": "b"}"#,
            r#"{"id": 9007199254740992, "in": "a", "out": "b"}"#,
            r#"{"id": -9007199254740993, "in": "a", "out": "b"}"#,
            r#"{"id": 0.1234567890123456, "in": "a", "out": "b"}"#,
        ] {
            let read = job("-s 8", line);
            assert_eq!(
                (read.id, read.asked.is_err()),
                (Value::Null, true),
                "{line}"
            );
        }
        for id in [9_007_199_254_740_991, -9_007_199_254_740_991_i64, 0] {
            let read = job("-s 8", &format!(r#"{{"id": {id}, "in": "a", "out": "b"}}"#));
            assert_eq!((read.id, read.asked.is_ok()), (id.into(), true));
        }
        let fault = job("", r#"{"in": "a", "out": "b"}"#).asked.unwrap_err();
        assert!(fault.text.contains("size"), "{fault}");
    }
}
