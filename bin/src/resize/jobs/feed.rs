//! Passes lines from stdin one at a time to the callers.

use std::io::{self, BufRead};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The maximum length of a line: far more than two paths and all options.
pub(super) const LONGEST_LINE: usize = 64 << 10;

/// A line that contains a job.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// The number of the line, from 1.
    pub number: u64,
    /// The bytes of the line without the line break. `None` if it is longer than [`LONGEST_LINE`].
    pub text: Option<Vec<u8>>,
}

/// Holds one line between the reader and the callers. The next line is read from stdin only after this one was taken.
#[derive(Debug, Default)]
pub(super) struct Feed {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    line: Option<Line>,
    ended: bool,
    /// The error that ended the reading of stdin.
    failure: Option<io::Error>,
}

impl Feed {
    /// Reads lines until the input or the feed ends. Blank lines are skipped.
    pub(super) fn read(&self, mut input: impl BufRead) {
        let mut number = 0;
        loop {
            let text = match next_line(&mut input) {
                Ok(Some(text)) => text,
                Ok(None) => break self.end(None),
                Err(error) => break self.end(Some(error)),
            };
            number += 1;
            let is_blank = |text: &Vec<u8>| text.iter().all(u8::is_ascii_whitespace);
            if !text.as_ref().is_some_and(is_blank) && !self.put(Line { number, text }) {
                break;
            }
        }
    }

    /// Waits until the previous line was taken. Returns `false` if the feed has ended.
    fn put(&self, line: Line) -> bool {
        let mut state = self.lock();
        while state.line.is_some() && !state.ended {
            state = self.wait(state);
        }
        if state.ended {
            return false;
        }
        state.line = Some(line);
        self.changed.notify_all();
        true
    }

    /// Waits for the next line; `None` at the end.
    pub(super) fn take(&self) -> Option<Line> {
        let mut state = self.lock();
        loop {
            if let Some(line) = state.line.take() {
                self.changed.notify_all();
                return Some(line);
            }
            if state.ended {
                return None;
            }
            state = self.wait(state);
        }
    }

    /// Ends the feed after the line that it holds, if any.
    fn end(&self, failure: Option<io::Error>) {
        let mut state = self.lock();
        state.ended = true;
        state.failure = failure;
        self.changed.notify_all();
    }

    /// Ends the feed at once: a line that no caller has taken is dropped.
    pub(super) fn close(&self) {
        self.lock().line = None;
        self.end(None);
    }

    /// Takes the error that ended the reading of stdin.
    pub(super) fn take_failure(&self) -> Option<io::Error> {
        self.lock().failure.take()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let state = self.changed.wait(state);
        state.unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads a line. `Some(None)` if it is too long; no more than [`LONGEST_LINE`] bytes of it are stored.
fn next_line(input: &mut impl BufRead) -> io::Result<Option<Option<Vec<u8>>>> {
    let mut line = Vec::new();
    let (mut is_too_long, mut has_begun) = (false, false);
    loop {
        let chunk = match input.fill_buf() {
            Ok(chunk) => chunk,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let end = chunk.iter().position(|&byte| byte == b'\n');
        let part = &chunk[..end.unwrap_or(chunk.len())];
        is_too_long |= line.len() + part.len() > LONGEST_LINE;
        has_begun |= !part.is_empty() || end.is_some();
        if is_too_long {
            line = Vec::new();
        } else {
            line.extend_from_slice(part);
        }
        let (is_last, used) = match end {
            Some(end) => (true, end + 1),
            None => (chunk.is_empty(), chunk.len()),
        };
        input.consume(used);
        if is_last {
            return Ok(has_begun.then_some((!is_too_long).then_some(line)));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::io::BufReader;
    use std::thread;

    use super::*;

    fn lines(input: &[u8]) -> Vec<(u64, Option<Vec<u8>>)> {
        let feed = Feed::default();
        thread::scope(|threads| {
            // A small buffer, so that reading a line fills it several times.
            threads.spawn(|| feed.read(BufReader::with_capacity(5, input)));
            std::iter::from_fn(|| feed.take())
                .map(|line| (line.number, line.text))
                .collect()
        })
    }

    #[test]
    fn lines_are_numbered_and_blank_ones_are_skipped() {
        let expected = [
            (1, b"first of them".to_vec()),
            (4, b"a".to_vec()),
            (5, b"torn".to_vec()),
        ];
        let expected = expected.map(|(number, text)| (number, Some(text)));
        assert_eq!(lines(b"first of them\n\n \r\na\ntorn"), expected);
        assert_eq!(lines(b""), []);
        assert_eq!(lines(b"\n"), []);
    }

    #[test]
    fn a_line_that_is_too_long_is_one_line_and_the_next_is_read() {
        let mut input = vec![b'x'; LONGEST_LINE];
        input.push(b'\n');
        input.extend(vec![b'y'; LONGEST_LINE + 1]);
        input.extend(b"\nnext\n");
        input.extend(vec![b'z'; LONGEST_LINE + 1]);
        let lines = lines(&input);
        let lengths: Vec<_> = lines
            .iter()
            .map(|(_, text)| text.as_ref().map(Vec::len))
            .collect();
        assert_eq!(lengths, [Some(LONGEST_LINE), None, Some(4), None]);
        assert_eq!(lines[3].0, 4);
    }

    #[test]
    fn a_closed_feed_gives_no_line_and_ends_its_reader() {
        let feed = Feed::default();
        let line = |number| Line { number, text: None };
        assert!(feed.put(line(1)));
        feed.close();
        assert_eq!(feed.take(), None);
        assert!(!feed.put(line(2)));
    }
}
