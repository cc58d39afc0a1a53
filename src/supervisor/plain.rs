//! Text of others, made harmless for a terminal.

use std::fmt::{self, Write};

/// Shows a text with its control characters spelled out: `\u{1b}` instead of the byte that begins a
/// terminal escape. Tabs stay; so do newlines, if asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plain<'a> {
    pub(super) text: &'a str,
    pub(super) newlines: bool,
}

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.text;
        let harmful = |each: char| !(each == '\n' && self.newlines) && is_harmful(each);
        while let Some(at) = rest.find(harmful) {
            f.write_str(&rest[..at])?;
            let each = rest[at..].chars().next().unwrap_or_default();
            write!(f, "{}", each.escape_default())?;
            rest = &rest[at + each.len_utf8()..];
        }
        f.write_str(rest)
    }
}

/// Does more to a terminal than stand there: control characters, and marks that change the direction of
/// the text around them.
fn is_harmful(each: char) -> bool {
    each.is_control() && each != '\t'
        || matches!(each, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' | '\u{61c}' | '\u{feff}')
}

/// A text of several lines.
pub(super) fn lines(text: &str) -> Plain<'_> {
    Plain {
        text,
        newlines: true,
    }
}

/// A line out of bytes, of at most `limit` bytes and a mark that says how many more there were, with `cut` of
/// them gone already. Bytes that are no characters are spelled out.
pub(super) fn line(bytes: &[u8], limit: usize, cut: u64) -> String {
    let mut text = String::with_capacity(bytes.len().min(limit));
    let mut used = 0;
    'cut: for chunk in bytes.utf8_chunks() {
        for each in chunk.valid().chars() {
            let before = text.len();
            if is_harmful(each) {
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
    fn escapes_are_spelled_out() {
        assert_eq!(
            line(b"\x1b[31mred\x1b]0;title\x07\tand\r\xc2\x9b2J", 100, 0),
            r"\u{1b}[31mred\u{1b}]0;title\u{7}	and\r\u{9b}2J"
        );
        assert_eq!(line("a\u{202e}b".as_bytes(), 100, 0), r"a\u{202e}b");
        assert_eq!(
            line(b"caf\xe9 \xff\xfe \xe2\x82", 100, 0),
            r"caf\xe9 \xff\xfe \xe2\x82"
        );
        assert_eq!(lines("a\nb\x1b[2J\0").to_string(), "a\nb\\u{1b}[2J\\u{0}");
    }

    #[test]
    fn long_lines_are_cut_with_a_mark() {
        assert_eq!(line(b"abcdef", 6, 0), "abcdef");
        assert_eq!(line(b"abcdefg", 6, 0), "abcdef… (1 more bytes)");
        assert_eq!(line("ääää".as_bytes(), 5, 0), "ää… (4 more bytes)");
        assert_eq!(line(b"abc\x1b", 6, 0), "abc… (1 more bytes)");
    }

    proptest! {
        /// Whatever comes in, nothing that a terminal obeys comes out, and never more than was allowed.
        #[test]
        fn nothing_harmful_passes(bytes: Vec<u8>, limit in 0usize..200) {
            let text = line(&bytes, limit, 0);
            prop_assert!(!text.chars().any(is_harmful));
            prop_assert!(text.len() <= limit + 40);
            let all = line(&bytes, usize::MAX, 0);
            prop_assert!(!all.contains('…') || std::str::from_utf8(&bytes).is_ok_and(|text| text.contains('…')) || bytes.utf8_chunks().any(|chunk| chunk.valid().contains('…')));
        }
    }
}
