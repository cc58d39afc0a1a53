//! Splits one stream of a worker into lines and frames.

use std::io::BufRead;

use crate::worker::frame::{self, BOUNDARY, HEAD, MAGIC};

/// The maximum number of bytes of a line; further bytes are only counted.
pub(super) const LONGEST: usize = 4096;

/// A piece of a stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// A line without its end, and the number of bytes that were truncated.
    Line { bytes: &'a [u8], cut: u64 },
    /// A frame: kind and content.
    Frame { kind: u8, content: &'a [u8] },
}

/// Splits a stream. Stores an unfinished line and an unfinished frame, at most one of each.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    line: Vec<u8>,
    cut: u64,
    frame: Vec<u8>,
}

impl Splitter {
    /// Splits `bytes`, which follow the bytes of the last call.
    pub(super) fn feed(&mut self, mut bytes: &[u8], mut take: impl FnMut(Piece<'_>)) {
        // The length of the bytes after the current line. The end of a line is searched only once, however many bytes
        // of the line could begin a frame.
        let mut behind = bytes.len();
        while !bytes.is_empty() {
            if !self.frame.is_empty() {
                bytes = self.feed_frame(bytes, &mut take);
                continue;
            }
            if bytes.len() <= behind {
                // Reading from a slice cannot fail.
                let end = (&mut &*bytes).skip_until(b'\n').unwrap_or(bytes.len());
                behind = bytes.len() - end;
            }
            let (mut piece, rest) = bytes.split_at(bytes.len() - behind);
            let frame = piece
                .contains(&MAGIC[0])
                .then(|| piece.iter().position(|&byte| byte == MAGIC[0]))
                .flatten();
            if let Some(at) = frame {
                self.append(&piece[..at]);
                self.frame.push(MAGIC[0]);
                bytes = &bytes[at + 1..];
                continue;
            }
            bytes = rest;
            let whole = piece.last() == Some(&b'\n');
            if whole {
                piece = &piece[..piece.len() - 1];
            }
            if whole && self.line.is_empty() && self.cut == 0 {
                let (kept, cut) = piece.split_at(piece.len().min(LONGEST));
                take(line(kept, cut.len() as u64));
            } else {
                self.append(piece);
                if whole {
                    self.end_line(&mut take);
                }
            }
        }
    }

    /// Consumes bytes of a possible frame. Returns the remaining bytes.
    fn feed_frame<'a>(&mut self, bytes: &'a [u8], take: &mut impl FnMut(Piece<'_>)) -> &'a [u8] {
        let have = self.frame.len();
        if have < MAGIC.len() {
            if bytes[0] != MAGIC[have] {
                // The bytes were text. The byte that does not fit may begin a frame, or end the line.
                let text = std::mem::take(&mut self.frame);
                self.append(&text);
                return bytes;
            }
            self.frame.push(bytes[0]);
            return &bytes[1..];
        }
        let wanted = if have < HEAD {
            HEAD
        } else {
            match frame::frame_len(&self.frame) {
                Some(length) => length,
                None => {
                    let text = std::mem::take(&mut self.frame);
                    self.append(&text);
                    return bytes;
                }
            }
        };
        let (more, rest) = bytes.split_at(bytes.len().min(wanted - have));
        self.frame.extend(more);
        if self.frame.len() >= HEAD && frame::frame_len(&self.frame) == Some(self.frame.len()) {
            let frame = std::mem::take(&mut self.frame);
            let kind = frame[MAGIC.len()];
            if kind == BOUNDARY {
                // A frame marks the end of a job, which also ends its line.
                self.end(&mut *take);
            }
            take(Piece::Frame {
                kind,
                content: &frame[HEAD..],
            });
        }
        rest
    }

    fn append(&mut self, text: &[u8]) {
        let room = LONGEST - self.line.len();
        let (kept, cut) = text.split_at(text.len().min(room));
        self.line.extend(kept);
        self.cut += cut.len() as u64;
    }

    /// Ends the unfinished line, if there is one.
    pub(super) fn end(&mut self, mut take: impl FnMut(Piece<'_>)) {
        if !self.line.is_empty() || self.cut > 0 {
            self.end_line(&mut take);
        }
    }

    /// Ends the stream. An unfinished frame is dropped.
    pub(super) fn finish(&mut self, take: impl FnMut(Piece<'_>)) {
        if self.frame.len() == 1 {
            self.append(&MAGIC[..1]);
        }
        self.frame.clear();
        self.end(take);
    }

    fn end_line(&mut self, take: &mut impl FnMut(Piece<'_>)) {
        take(line(&self.line, self.cut));
        self.line.clear();
        self.cut = 0;
    }
}

fn line(bytes: &[u8], cut: u64) -> Piece<'_> {
    // Programs written for Windows end lines with `\r\n`.
    let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
    Piece::Line { bytes, cut }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::frame::frame;
    use proptest::prelude::*;

    fn split(chunks: &[&[u8]]) -> Vec<String> {
        let mut splitter = Splitter::default();
        let mut pieces = Vec::new();
        let mut take = |piece: Piece<'_>| {
            pieces.push(match piece {
                Piece::Line { bytes, cut: 0 } => String::from_utf8_lossy(bytes).into_owned(),
                Piece::Line { bytes, cut } => format!("{} bytes and {cut} more", bytes.len()),
                Piece::Frame { kind, content } => format!("<{kind}:{}>", content.escape_ascii()),
            });
        };
        for chunk in chunks {
            splitter.feed(chunk, &mut take);
        }
        splitter.finish(&mut take);
        pieces
    }

    #[test]
    fn lines_frames_and_lookalikes_are_split() {
        assert_eq!(
            split(&[b"one\ntw", b"o\r\n\n", b"three"]),
            ["one", "two", "", "three"]
        );
        let boundary = frame(BOUNDARY, b"\x07\n");
        let middle = [b"half".as_slice(), &boundary, b" line\n"].concat();
        assert_eq!(split(&[&middle]), ["half", "<1:\\x07\\n>", " line"]);
        let middle = [b"half".as_slice(), &frame(9, b"\x07\n"), b" line\n"].concat();
        assert_eq!(split(&[&middle]), ["<9:\\x07\\n>", "half line"]);
        assert_eq!(split(&[b"a\x1e\x1eb\n\x1e"]), ["a\x1e\x1eb", "\x1e"]);
        let doubled = [b"\x1e".as_slice(), &boundary].concat();
        assert_eq!(split(&[&doubled]), ["\x1e", "<1:\\x07\\n>"]);
        assert_eq!(split(&[&boundary[..12]]), Vec::<String>::new());
    }

    #[test]
    fn a_line_without_an_end_takes_bounded_memory() {
        let mut splitter = Splitter::default();
        let mut lines = 0;
        for _ in 0..1000 {
            splitter.feed(&[b'x'; 1000], |_| lines += 1);
        }
        assert_eq!(
            (lines, splitter.line.len(), splitter.cut),
            (0, LONGEST, 1_000_000 - 4096)
        );
        assert!(splitter.line.capacity() < 3 * LONGEST);
        assert_eq!(split(&[&[b'y'; 5000], b"\n"]), ["4096 bytes and 904 more"]);
        assert_eq!(
            split(&[&[&[b'y'; 5000][..], b"\n"].concat()]),
            ["4096 bytes and 904 more"]
        );
    }

    #[test]
    fn a_frame_that_claims_too_much_is_text() {
        let mut bytes = MAGIC.to_vec();
        bytes.extend([BOUNDARY, 0xff, 0xff, b'x', b'\n', b'y']);
        let pieces = split(&[&bytes]);
        assert_eq!(pieces.len(), 2, "{pieces:?}");
        assert!(pieces[0].ends_with('x') && pieces[1] == "y");
    }

    /// Returns the processor time of this thread, independent of other load.
    fn cpu_ns(work: impl FnOnce()) -> i64 {
        use nix::sys::time::TimeValLike;
        let now = || {
            let id = nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID;
            nix::time::clock_gettime(id).expect("a clock that every thread has")
        };
        let before = now();
        work();
        (now() - before).num_nanoseconds().max(1)
    }

    #[test]
    fn frame_marks_cost_the_same_in_any_read_size() {
        let bytes = vec![MAGIC[0]; 512 * 1024];
        let cost = |at_once: usize| {
            let feed = || {
                let mut splitter = Splitter::default();
                for chunk in bytes.chunks(at_once) {
                    splitter.feed(chunk, |_| unreachable!("no line ends"));
                }
                assert_eq!(splitter.line.len() as u64 + splitter.cut + 1, 512 * 1024);
            };
            cpu_ns(feed).min(cpu_ns(feed))
        };
        // Searching the line's end for each possible frame would cost a hundred times as much.
        let (apart, together) = (cost(64), cost(bytes.len()));
        assert!(together < 10 * apart, "{together} ns instead of {apart}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(crate::sys::asked::cases(10_000)))]
        /// The pieces do not depend on how the bytes are divided into reads, and no text is lost.
        #[test]
        fn pieces_do_not_depend_on_the_reads(
            parts in prop::collection::vec(prop_oneof![
                prop::collection::vec(prop_oneof![Just(b'\n'), Just(0x1e), Just(0xf5), any::<u8>()], 0..40),
                prop::collection::vec(any::<u8>(), 0..30).prop_map(|content| frame(2, &content)),
                (0usize..11).prop_map(|len| MAGIC.iter().chain(&[1, 200, 0]).copied().take(len).collect()),
            ], 0..20),
            lengths in prop::collection::vec(1usize..50, 1..10),
        ) {
            let bytes = parts.concat();
            let mut chunks = Vec::new();
            let mut rest = &bytes[..];
            for length in lengths.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (chunk, after) = rest.split_at(rest.len().min(*length));
                chunks.push(chunk);
                rest = after;
            }
            prop_assert_eq!(split(&chunks), split(&[&bytes]));
        }

        /// Text without frame marks is not changed.
        #[test]
        fn text_is_kept(text in "[a-z\n]{0,300}") {
            let expected: Vec<&str> = text.lines().collect();
            prop_assert_eq!(split(&[text.as_bytes()]), expected);
        }
    }
}
