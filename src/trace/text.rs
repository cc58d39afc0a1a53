//! Appends pieces to a text. The formatter of the standard library is slower, and took most of the time of a trace.

/// A value that can be appended to a text.
pub(super) trait Piece {
    fn put(self, text: &mut String);
}

impl Piece for &str {
    fn put(self, text: &mut String) {
        text.push_str(self);
    }
}

impl Piece for &String {
    fn put(self, text: &mut String) {
        text.push_str(self);
    }
}

impl Piece for u64 {
    fn put(self, text: &mut String) {
        text.push_str(itoa::Buffer::new().format(self));
    }
}

impl Piece for u32 {
    fn put(self, text: &mut String) {
        u64::from(self).put(text);
    }
}

/// Nanoseconds, written as microseconds.
#[derive(Clone, Copy)]
pub(super) struct Us(pub(super) u64);

impl Piece for Us {
    fn put(self, text: &mut String) {
        let mut buffer = itoa::Buffer::new();
        let digits = buffer.format(self.0);
        let (whole, rest) = digits.split_at(digits.len().saturating_sub(3));
        text.push_str(whole);
        text.push_str(match digits.len() {
            1 => "0.00",
            2 => "0.0",
            3 => "0.",
            _ => ".",
        });
        text.push_str(rest);
    }
}

/// Appends pieces to a text.
macro_rules! put {
    ($text:expr, $($piece:expr),+ $(,)?) => {{
        let text: &mut String = &mut $text;
        $($crate::trace::text::Piece::put($piece, text);)+
    }};
}
pub(super) use put;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_written_like_the_formatter_writes_them() {
        for ns in [0, 7, 10, 99, 100, 999, 1000, 1_001, 12_345_678, u64::MAX] {
            let mut text = String::from("<");
            put!(text, Us(ns), " ", ns, " ", 7u32, ">");
            let expected = format!("<{}.{:03} {ns} 7>", ns / 1000, ns % 1000);
            assert_eq!(text, expected);
        }
    }
}
