//! Escapes untrusted text, so that a terminal can show it.

use std::fmt::{self, Write};

/// Displays a text of several lines so that nothing in it has an effect on a terminal: see [`needs_escape`]. Newlines
/// and tabs stay. Use it for names and messages that come from files or from other programs.
///
/// ```
/// assert_eq!(arenite::escape_text("red: \x1b[31m").to_string(), r"red: \u{1b}[31m");
/// ```
pub fn escape_text(text: &str) -> impl fmt::Display {
    Escaped(text)
}

struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        while let Some(at) = rest.find(|each: char| each != '\n' && needs_escape(each)) {
            f.write_str(&rest[..at])?;
            let each = rest[at..].chars().next().unwrap_or_default();
            write!(f, "{}", each.escape_default())?;
            rest = &rest[at + each.len_utf8()..];
        }
        f.write_str(rest)
    }
}

/// Whether the character has an effect on a terminal: control characters other than the tab, line separators, and marks
/// that change the direction of the text around them.
///
/// ```
/// assert!(arenite::needs_escape('\u{202e}') && !arenite::needs_escape('ä'));
/// ```
pub fn needs_escape(each: char) -> bool {
    each.is_control() && each != '\t'
        || matches!(each, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' | '\u{61c}' | '\u{feff}')
}

/// Escapes one line of at most `limit` bytes. If the line was longer, or `cut` bytes were removed before, adds the
/// number of missing bytes at the end. Bytes that are not UTF-8 are escaped.
pub(crate) fn escape_line(bytes: &[u8], limit: usize, cut: u64) -> String {
    let mut text = String::with_capacity(bytes.len().min(limit));
    let mut used = 0;
    'cut: for chunk in bytes.utf8_chunks() {
        for each in chunk.valid().chars() {
            let before = text.len();
            if needs_escape(each) {
                text.extend(each.escape_default());
            } else {
                text.push(each);
            }
            if text.len() > limit {
                text.truncate(before);
                break 'cut;
            }
            used += each.len_utf8();
        }
        for byte in chunk.invalid() {
            if text.len() + 4 > limit {
                break 'cut;
            }
            // Writing into a string cannot fail.
            let _ = write!(text, "\\x{byte:02x}");
            used += 1;
        }
    }
    let more = (bytes.len() - used) as u64 + cut;
    if more > 0 {
        let _ = write!(text, "… ({more} more bytes)");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(
            escape_line(b"\x1b[31mred\x1b]0;title\x07\tand\r\xc2\x9b2J", 100, 0),
            r"\u{1b}[31mred\u{1b}]0;title\u{7}	and\r\u{9b}2J"
        );
        assert_eq!(escape_line("a\u{202e}b".as_bytes(), 100, 0), r"a\u{202e}b");
        assert_eq!(
            escape_line(b"caf\xe9 \xff\xfe \xe2\x82", 100, 0),
            r"caf\xe9 \xff\xfe \xe2\x82"
        );
        assert_eq!(
            escape_text("a\nb\x1b[2J\0").to_string(),
            "a\nb\\u{1b}[2J\\u{0}"
        );
    }

    #[test]
    fn long_lines_are_truncated_with_a_mark() {
        assert_eq!(escape_line(b"abcdef", 6, 0), "abcdef");
        assert_eq!(escape_line(b"abcdefg", 6, 0), "abcdef… (1 more bytes)");
        assert_eq!(escape_line("ääää".as_bytes(), 5, 0), "ää… (4 more bytes)");
        assert_eq!(escape_line(b"abc\x1b", 6, 0), "abc… (1 more bytes)");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(crate::sys::asked::cases(10_000)))]
        /// No character that a terminal acts on passes, and the length stays bounded, for any input.
        #[test]
        fn control_characters_are_always_escaped(bytes: Vec<u8>, limit in 0usize..200) {
            let text = escape_line(&bytes, limit, 0);
            prop_assert!(!text.chars().any(needs_escape));
            prop_assert!(text.len() <= limit + 40);
            let all = escape_line(&bytes, usize::MAX, 0);
            prop_assert!(!all.contains('…') || std::str::from_utf8(&bytes).is_ok_and(|text| text.contains('…')) || bytes.utf8_chunks().any(|chunk| chunk.valid().contains('…')));
        }
    }
}
