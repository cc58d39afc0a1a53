//! Text for and from users: errors, paths and other strings as parts of a line, numbers with units, and when to use
//! colours.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;

/// The exit code for a wrong command line, or a set-up that failed.
pub(crate) const USAGE: u8 = 2;

/// Returns the system's message in lower case, without the number that `io::Error` appends.
pub(crate) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((words, _)) => words.to_lowercase(),
        None => text,
    }
}

/// Writes results to stdout. If a reader such as `head` stops early, that is no failure.
pub(crate) fn print(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Returns a value as a line of JSON. Escapes characters that have an effect on a terminal; readers of JSON undo this.
pub(crate) fn json_line(value: &impl Serialize) -> serde_json::Result<String> {
    let plain = serde_json::to_string(value)?;
    let mut line = String::with_capacity(plain.len() + 1);
    for each in plain.chars() {
        match arenite::needs_escape(each) {
            // Four digits suffice for all these characters. They occur only inside texts: there are no line breaks
            // between values.
            true => write!(line, "\\u{:04x}", u32::from(each)).unwrap_or_default(),
            false => line.push(each),
        }
    }
    line.push('\n');
    Ok(line)
}

/// Returns a path as part of a line.
pub(crate) fn show_path(path: &Path) -> String {
    show_name(&path.to_string_lossy())
}

/// Returns a name as part of a line. It is quoted and escaped if it contains a character that has an effect on a
/// terminal, or if it starts or ends with a blank.
pub(crate) fn show_name(text: &str) -> String {
    if text.is_empty() || text.trim() != text || text.contains(is_hidden) {
        // This escapes all characters for which `is_hidden` is true, and quotes.
        format!("{text:?}")
    } else {
        text.to_owned()
    }
}

/// Returns whether the character must be escaped, because a line would not show the character itself.
fn is_hidden(each: char) -> bool {
    each == '\t' || arenite::needs_escape(each)
}

/// Joins lines with `; ` and escapes control characters, so that each failure is reported on one line.
pub(crate) fn one_line(text: &str) -> String {
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let mut joined = String::with_capacity(text.len());
    for c in lines.join("; ").chars() {
        match is_hidden(c) {
            true => joined.extend(c.escape_default()),
            false => joined.push(c),
        }
    }
    joined
}

// ---- Numbers with units -------------------------------------------------------------------------

const TOO_SMALL: &str = "it must be more than 0";

/// Parses a number of bytes, such as `1048576`. The units of `64K`, `512MiB` and `4G` are powers of 1024, that of `4GB`
/// is a power of 1000.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let (number, unit) = split(positive(text)?);
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return Err(format!("'{unit}' is not a unit; write 512MiB, 4G or 4GB")),
    };
    scaled(number, factor)
}

/// Parses a number of pixels: `1000000`, `128M`, `1.5G`. Units are powers of 1000.
pub(crate) fn pixels(text: &str) -> Result<u64, String> {
    let (number, unit) = split(positive(text)?);
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" => 1,
        "k" => 1_000,
        "m" | "mp" => 1_000_000,
        "g" | "gp" => 1_000_000_000,
        _ => return Err(format!("'{unit}' is not a unit; write 128M or 128000000")),
    };
    scaled(number, factor)
}

/// Parses a duration: `30s`, `500ms`, `1.5m`, `1h30m`. A number without a unit is in seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let mut rest = positive(text)?.trim();
    let mut nanos: u128 = 0;
    loop {
        let (number, after) = split(rest);
        let end = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit, next) = (after[..end].trim(), after[end..].trim_start());
        let factor: u64 = match unit.to_ascii_lowercase().as_str() {
            "ms" => 1_000_000,
            "s" | "sec" => 1_000_000_000,
            // A number without a unit is allowed only on its own.
            "" if nanos == 0 && next.is_empty() => 1_000_000_000,
            "m" | "min" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => {
                return Err(format!(
                    "'{unit}' is not a unit of time; write 30s, 500ms or 2m"
                ));
            }
        };
        nanos += u128::from(scaled(number, factor)?);
        rest = next;
        if rest.is_empty() {
            break;
        }
    }
    match u64::try_from(nanos / 1_000_000) {
        Ok(0) => Err("it must be at least a millisecond".to_owned()),
        Ok(millis) => Ok(Duration::from_millis(millis)),
        Err(_) => Err("it is too long".to_owned()),
    }
}

/// Formats a number of bytes: `812 B`, `1.4 MiB`.
pub(crate) fn show_bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// Rejects a minus sign, which would otherwise be read as a unit.
fn positive(text: &str) -> Result<&str, String> {
    match text.trim_start().starts_with('-') {
        true => Err(TOO_SMALL.to_owned()),
        false => Ok(text),
    }
}

fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

/// Multiplies `number` by `factor`, and rounds the product down. Exact for a whole number.
fn scaled(number: &str, factor: u64) -> Result<u64, String> {
    let value = match number.split_once('.') {
        None => number
            .parse::<u64>()
            .ok()
            .and_then(|n| n.checked_mul(factor)),
        Some(_) => number
            .parse::<f64>()
            .ok()
            .map(|n| n * factor as f64)
            .filter(|n| *n < u64::MAX as f64)
            .map(|n| n as u64),
    };
    match value {
        Some(0) => Err(TOO_SMALL.to_owned()),
        Some(value) => Ok(value),
        None => Err("a number is missing or too large".to_owned()),
    }
}

// ---- Colours and progress -----------------------------------------------------------------------

/// Returns the width of the terminal at stdout in columns. `None` if stdout is no terminal.
pub(crate) fn columns() -> Option<usize> {
    let (width, _) = terminal_size::terminal_size().filter(|_| io::stdout().is_terminal())?;
    Some(usize::from(width.0))
}

/// When to show progress or colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Choice {
    /// On a terminal
    Auto,
    /// Everywhere
    Always,
    /// Nowhere
    Never,
}

/// Returns whether to use colours on this stream, according to `--color`.
pub(crate) fn wants_color(choice: Choice, terminal: bool) -> bool {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let is = |name: &str, value: &str| std::env::var_os(name).as_deref() == Some(OsStr::new(value));
    match choice {
        Choice::Always => true,
        Choice::Never => false,
        Choice::Auto if is_set("NO_COLOR") => false,
        Choice::Auto if is_set("CLICOLOR_FORCE") && !is("CLICOLOR_FORCE", "0") => true,
        Choice::Auto => terminal && !is("TERM", "dumb"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn text_becomes_one_line() {
        assert_eq!(one_line("a\n  b\n\n"), "a; b");
        assert_eq!(one_line("bell\x07"), "bell\\u{7}");
        assert_eq!(one_line("a\u{202e}b"), "a\\u{202e}b");
    }

    #[test]
    fn json_acts_on_no_terminal() {
        let value = serde_json::json!({"a\u{9b}\x1b": ["\u{202e}\u{feff}\x7f\n\tä€"]});
        let line = json_line(&value).unwrap();
        assert_eq!(
            line,
            "{\"a\\u009b\\u001b\":[\"\\u202e\\ufeff\\u007f\\n\\tä€\"]}\n"
        );
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&line).unwrap(),
            value
        );
    }

    #[test]
    fn a_system_error_is_shown_without_its_number() {
        let error = io::Error::from_raw_os_error(13);
        assert_eq!(reason(&error), "permission denied");
    }

    #[test]
    fn unusual_paths_are_quoted() {
        for (path, shown) in [
            ("a b", "a b"),
            (" a", "\" a\""),
            ("a\nb", "\"a\\nb\""),
            ("", "\"\""),
            ("a\u{202e}b", "\"a\\u{202e}b\""),
            ("a\u{feff}\u{2028}b", "\"a\\u{feff}\\u{2028}b\""),
        ] {
            assert_eq!(show_path(Path::new(path)), shown);
        }
    }

    #[test]
    fn bytes_parse_in_binary_and_decimal_units() {
        assert_eq!(bytes("4096"), Ok(4096));
        assert_eq!(bytes("1GiB"), Ok(1 << 30));
        assert_eq!(bytes("1g"), Ok(1 << 30));
        assert_eq!(bytes("1.5 MiB"), Ok(3 << 19));
        assert_eq!(bytes("2GB"), Ok(2_000_000_000));
    }

    #[test]
    fn pixels_parse_in_decimal_units() {
        assert_eq!(pixels("128M"), Ok(128_000_000));
        assert_eq!(pixels("10"), Ok(10));
    }

    #[test]
    fn invalid_numbers_are_rejected() {
        for wrong in ["", "G", "-1", "1X", "0", "99999999999G", "1..2M", "1e9"] {
            assert!(bytes(wrong).is_err(), "{wrong:?}");
            assert!(pixels(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn durations_have_units_and_add_up() {
        let of = |text| duration(text).map(|time| time.as_millis());
        assert_eq!(of("30s"), Ok(30_000));
        assert_eq!(of("30"), Ok(30_000));
        assert_eq!(of(" 500 ms "), Ok(500));
        assert_eq!(of("1.5m"), Ok(90_000));
        assert_eq!(of("1h30m"), Ok(5_400_000));
        assert_eq!(of("2 min 5 s"), Ok(125_000));
        for wrong in [
            "",
            "s",
            "-1s",
            "0",
            "0.1ms",
            "5 weeks",
            "1s2",
            "1e3s",
            "99999999999h",
            "1..5s",
        ] {
            assert!(duration(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn bytes_are_shown_in_one_unit() {
        assert_eq!(show_bytes(812), "812 B");
        assert_eq!(show_bytes(1_468_006), "1.4 MiB");
    }
}
