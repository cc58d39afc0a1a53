//! Finds the ends of records of a CSV file without parsing it.
//!
//! A line break ends a record unless it is inside quotes, and whether a position is inside quotes depends on all quotes
//! before it. So a chunk of a file is scanned once for each state in which it may begin, by all workers at the same
//! time; then the states are chained from the beginning of the file. The rules are those of the parser (`csv-core`): a
//! quote opens a quoted field only at the beginning of a field; elsewhere in a bare field it is literal; inside quotes
//! it is doubled.

use memchr::{memchr, memchr_iter, memrchr};

/// The state between two bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum State {
    /// Outside of quotes.
    Outside = 0,
    /// Inside quotes.
    Quoted = 1,
    /// After a quote that either closes the field, or is the first of two that stand for one.
    Closing = 2,
}

impl State {
    pub(super) const ALL: [Self; 3] = [Self::Outside, Self::Quoted, Self::Closing];

    pub(super) fn from_number(number: u64) -> Option<Self> {
        Self::ALL.get(usize::try_from(number).ok()?).copied()
    }
}

/// How records of a format end.
#[derive(Clone, Copy, Debug)]
pub(super) enum Records {
    /// At a line break outside quotes.
    Csv {
        /// The byte between fields.
        delimiter: u8,
    },
    /// At each line break.
    Lines,
}

/// The result of a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Scanned {
    /// The state after the last byte.
    pub(super) state: State,
    /// The position after the first line break that ends a record.
    pub(super) first: Option<usize>,
    /// The position after the last line break that ends a record.
    pub(super) last: Option<usize>,
}

/// Scans bytes that begin in `state` and follow the byte `before`.
pub(super) fn scan(bytes: &[u8], records: Records, state: State, before: u8) -> Scanned {
    let mut found = Scanned {
        state,
        first: None,
        last: None,
    };
    let Records::Csv { delimiter } = records else {
        found.note(bytes, 0);
        return found;
    };
    let mut at = 0;
    while at < bytes.len() {
        match found.state {
            State::Quoted => match memchr(b'"', &bytes[at..]) {
                Some(quote) => {
                    at += quote + 1;
                    found.state = State::Closing;
                }
                None => return found,
            },
            State::Closing if bytes[at] == b'"' => {
                at += 1;
                found.state = State::Quoted;
            }
            State::Closing | State::Outside => {
                // After `Closing`, this byte is no quote, so the quote before it closed the field.
                found.state = State::Outside;
                let begin = at;
                loop {
                    let Some(quote) = memchr(b'"', &bytes[at..]) else {
                        found.note(&bytes[begin..], begin);
                        return found;
                    };
                    let quote = at + quote;
                    at = quote + 1;
                    let previous = quote.checked_sub(1).map_or(before, |index| bytes[index]);
                    if previous == delimiter || matches!(previous, b'\n' | b'\r') {
                        found.note(&bytes[begin..quote], begin);
                        found.state = State::Quoted;
                        break;
                    }
                }
            }
        }
    }
    found
}

impl Scanned {
    /// Records the positions of line breaks in bytes outside quotes.
    fn note(&mut self, outside: &[u8], begin: usize) {
        if self.first.is_none() {
            self.first = memchr(b'\n', outside).map(|at| begin + at + 1);
        }
        if let Some(at) = memrchr(b'\n', outside) {
            self.last = Some(begin + at + 1);
        }
    }
}

/// Returns the beginning of a file without a byte-order mark.
pub(super) fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes)
}

/// Returns the position after the first record of a file and the empty lines before it. `None` if the record does not
/// end in `bytes`.
pub(super) fn first_record(bytes: &[u8], records: Records) -> Option<usize> {
    let blank = bytes
        .iter()
        .take_while(|byte| matches!(byte, b'\n' | b'\r'))
        .count();
    let rest = &bytes[blank..];
    let found = scan(rest, records, State::Outside, b'\n').first;
    if let Records::Csv { .. } = records {
        // The parser also ends a record at a carriage return without a line feed. If it took the records after such a
        // header for a part of the header, they would be lost.
        let (mut state, mut begin) = (State::Outside, 0_usize);
        for at in memchr_iter(b'\r', &rest[..found.unwrap_or(rest.len())]) {
            let before = begin.checked_sub(1).map_or(b'\n', |index| rest[index]);
            state = scan(&rest[begin..at], records, state, before).state;
            begin = at;
            if state != State::Quoted && rest.get(at + 1).is_some_and(|next| *next != b'\n') {
                return Some(blank + at + 1);
            }
        }
    }
    Some(blank + found?)
}
