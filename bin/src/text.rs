//! Text for people: errors, paths and other strings as parts of a line.

use std::io::{self, Write};
use std::path::Path;

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
mod tests {
    use super::*;

    #[test]
    fn text_becomes_one_line() {
        assert_eq!(one_line("a\n  b\n\n"), "a; b");
        assert_eq!(one_line("bell\x07"), "bell\\u{7}");
        assert_eq!(one_line("a\u{202e}b"), "a\\u{202e}b");
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
