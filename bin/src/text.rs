//! Text for people: errors, paths and other strings as parts of a line.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;

/// The system's message in lower case, without the number that `io::Error` appends.
pub(crate) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((words, _)) => words.to_lowercase(),
        None => text,
    }
}

/// Writes results to stdout. A reader that stops early, such as `head`, is no failure.
pub(crate) fn print(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// A value as a line of JSON. What a terminal would act on is escaped in it: a reader of JSON gets the same value.
pub(crate) fn json_line(value: &impl Serialize) -> serde_json::Result<String> {
    let plain = serde_json::to_string(value)?;
    let mut line = String::with_capacity(plain.len() + 1);
    for each in plain.chars() {
        match arenite::needs_escape(each) {
            // All of these have four digits, and are in texts: there are no line breaks between values.
            true => write!(line, "\\u{:04x}", u32::from(each)).unwrap_or_default(),
            false => line.push(each),
        }
    }
    line.push('\n');
    Ok(line)
}

/// A path as part of a line.
pub(crate) fn show_path(path: &Path) -> String {
    show_name(&path.to_string_lossy())
}

/// A name as part of a line: quoted and escaped where a terminal would act on it, or where it starts or ends with a
/// blank.
pub(crate) fn show_name(text: &str) -> String {
    if text.is_empty() || text.trim() != text || text.contains(is_hidden) {
        // Escapes all that `is_hidden` names, and quotes.
        format!("{text:?}")
    } else {
        text.to_owned()
    }
}

/// Whether a line shows something else than the character.
fn is_hidden(each: char) -> bool {
    each == '\t' || arenite::needs_escape(each)
}

/// Joins lines by `; ` and escapes control characters: each failure is reported on one line.
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
}
