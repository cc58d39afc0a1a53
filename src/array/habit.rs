//! Whether it pays to find out what of an array was written: [`Habit`].

/// Written bytes are copied as a whole for at most this number of calls, before they are looked for again.
const MOST_REFUSED: u32 = 64;

/// Of a larger part of an array, a copy of all of it costs less than a fault for each page that is written again.
const MUCH: usize = 8;

/// Of a smaller part of an array, the caller's copy costs less than a copy of all of it.
pub(super) const LEAST_PART: usize = 4;

/// What it has cost to pass an array that the program writes.
#[derive(Debug, Default)]
pub(super) struct Habit {
    /// The array was passed without a write since its written bytes were copied.
    is_reused: bool,
    /// The number of calls that were refused last, because much of the array had been written again before a second
    /// call.
    refused: u32,
    /// The number of calls that will still be refused.
    left: u32,
}

impl Habit {
    /// Counts a call with an array that was written. Returns true if all of it is to be copied.
    pub(super) fn refuses(&mut self) -> bool {
        let refuses = self.left > 0;
        self.left -= u32::from(refuses);
        refuses
    }

    /// Counts a call with an array that was not written, if it was not. Returns that.
    pub(super) fn reused_if(&mut self, is_unwritten: bool) -> bool {
        self.is_reused |= is_unwritten;
        is_unwritten
    }

    /// Counts `written` bytes of `len` that were copied.
    pub(super) fn copied(&mut self, written: usize, len: usize) {
        self.left = match written > len / MUCH && !self.is_reused {
            true => (4 * self.refused.max(1)).min(MOST_REFUSED),
            false => 0,
        };
        self.refused = self.left;
        self.is_reused = false;
    }
}
