//! Decides whether to search an array for written pages or to copy all of it: [`Habit`].

/// The maximum number of calls in a row that copy all of an array before its written pages are searched again.
const MAX_REFUSED: u32 = 64;

/// If more than 1/`MUCH` of an array was written, then a copy of all of it costs less than the page faults of the next
/// writes.
const MUCH: usize = 8;

/// If less than 1/`MIN_PART` of an array is needed, then the caller's copy costs less than a copy of all of it.
pub(crate) const MIN_PART: usize = 4;

/// Statistics of the calls that pass one array of the program, which may write to the array between calls.
#[derive(Debug, Default)]
pub(crate) struct Habit {
    /// Whether the array was passed without a new write since its written pages were last copied.
    is_reused: bool,
    /// The number of calls to refuse that the last [`copied`](Self::copied) decided on. Not 0 if much of the array was
    /// written again before each call.
    refused: u32,
    /// How many of these calls are still to come.
    left: u32,
}

impl Habit {
    /// Counts a call with an array that was written. Returns true if the caller is to copy all of it.
    pub(crate) fn take_refusal(&mut self) -> bool {
        let refuses = self.left > 0;
        self.left -= u32::from(refuses);
        refuses
    }

    /// Records that the array was passed unwritten, if `is_unwritten` is true. Returns `is_unwritten`.
    pub(crate) fn note_reuse(&mut self, is_unwritten: bool) -> bool {
        self.is_reused |= is_unwritten;
        is_unwritten
    }

    /// Records that `written` of the array's `len` bytes were copied, and decides how many calls to refuse.
    pub(crate) fn copied(&mut self, written: usize, len: usize) {
        self.left = match written > len / MUCH && !self.is_reused {
            true => (4 * self.refused.max(1)).min(MAX_REFUSED),
            false => 0,
        };
        self.refused = self.left;
        self.is_reused = false;
    }
}
