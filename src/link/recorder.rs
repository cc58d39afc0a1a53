//! The flight recorder: what a lane is doing and its last notes, in memory that outlives the worker's process.
//!
//! The worker writes it, to cache lines that no other thread writes; the supervisor clears it only after the exit is
//! confirmed. A reader must treat every number as the claim of a possibly hostile worker.

use super::cells::{LinkCells, RECORDED};
use crate::sync::{AtomicU64, Ordering};

/// What a lane is doing, and its last notes. The supervisor reads `now` at any time, the rest after the worker's exit.
#[derive(Debug)]
#[repr(C, align(128))]
pub(crate) struct Recorder {
    /// Worker: the phase in the low byte; above it the number of the job or of the start step.
    pub(crate) now: AtomicU64,
    /// Worker: the number of words of notes written so far; stored after them (Release).
    pub(crate) written: AtomicU64,
    /// Worker: the last notes, by word number mod [`RECORDED`]. A note is the number of its job, a space, the text and
    /// a newline, padded with zeros to whole words.
    pub(crate) words: [AtomicU64; RECORDED],
}

/// The recorded start steps, by their numbers in the README of [worker](crate::worker). The first of them maps the
/// link.
pub(crate) mod steps {
    pub(crate) const MAP: u8 = 7;
    pub(crate) const LIMIT: u8 = 8;
    pub(crate) const ON_START: u8 = 9;
    pub(crate) const SANDBOX: u8 = 10;
    pub(crate) const LANES: u8 = 11;
    pub(crate) const READY: u8 = 12;
}

/// What a lane is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The lane's process has not mapped this link yet.
    Unknown,
    /// Executing this start step, a number of [`steps`].
    Starting(u8),
    /// Waiting for a job.
    Idle,
    /// Reading the call of this job.
    Opening(u64),
    /// Running the kernel of this job, including the reading of its arguments.
    Running(u64),
    /// Writing the reply of this job.
    Publishing(u64),
    /// Stopping, as requested by the supervisor.
    Stopping,
}

impl Phase {
    /// Packs the phase into a word. Job numbers are truncated to 56 bits, which no engine reaches.
    #[inline]
    fn word(self) -> u64 {
        match self {
            Self::Unknown => 0,
            Self::Starting(step) => 1 | u64::from(step) << 8,
            Self::Idle => 2,
            Self::Opening(job) => 3 | job << 8,
            Self::Running(job) => 4 | job << 8,
            Self::Publishing(job) => 5 | job << 8,
            Self::Stopping => 6,
        }
    }

    /// Unpacks a phase from any word.
    pub(super) fn of(word: u64) -> Self {
        let number = word >> 8;
        match word as u8 {
            1 => Self::Starting(number.min(255) as u8),
            2 => Self::Idle,
            3 => Self::Opening(number),
            4 => Self::Running(number),
            5 => Self::Publishing(number),
            6 => Self::Stopping,
            _ => Self::Unknown,
        }
    }

    /// The job that the lane is working on.
    pub(crate) fn job(self) -> Option<u64> {
        match self {
            Self::Opening(job) | Self::Running(job) | Self::Publishing(job) => Some(job),
            Self::Unknown | Self::Starting(_) | Self::Idle | Self::Stopping => None,
        }
    }
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unknown => f.write_str("before it mapped its link"),
            Self::Starting(step) => write!(f, "at step {step} of its start"),
            Self::Idle => f.write_str("without a job"),
            Self::Opening(job) => write!(f, "reading the call of job {job}"),
            Self::Running(job) => write!(f, "in job {job}"),
            Self::Publishing(job) => write!(f, "sending the reply of job {job}"),
            Self::Stopping => f.write_str("stopping"),
        }
    }
}

/// Max words of a note, including its newline; longer ones are truncated.
const NOTE_WORDS: usize = RECORDED / 4;

impl<const N: usize> LinkCells<N> {
    /// Worker: records what the lane is doing. One store to a line that no other thread writes.
    #[inline]
    pub(crate) fn set_phase(&self, phase: Phase) {
        // Release: "printed, then changed phase", pairs with `phase`: a reader that sees this phase finds earlier
        // output in the pipe.
        let now = &self.reply().recorder.now;
        now.store(phase.word(), Ordering::Release);
    }

    /// Supervisor: what the lane is doing, as claimed by its worker. A hint while the worker lives; the last value once
    /// its exit is confirmed.
    pub(crate) fn phase(&self) -> Phase {
        // Acquire: pairs with `set_phase`.
        Phase::of(self.reply().recorder.now.load(Ordering::Acquire))
    }

    /// Worker: the current end of the notes, to pass to [`truncate_notes`](Self::truncate_notes).
    pub(crate) fn notes_end(&self) -> u64 {
        self.reply().recorder.written.load(Ordering::Relaxed)
    }

    /// Worker, on its lane's thread: discards the notes written after [`notes_end`](Self::notes_end) returned `end`.
    pub(crate) fn truncate_notes(&self, end: u64) {
        let recorder = &self.reply().recorder;
        recorder.written.store(end, Ordering::Release);
    }

    /// Worker, on its lane's thread: records a text, line by line, for the supervisor to read after the exit. `job` is
    /// 0 outside jobs.
    pub(crate) fn note(&self, job: u64, text: &str) {
        let mut line = String::new();
        for part in text.trim_end_matches('\n').split('\n') {
            let end = if line.is_empty() { "" } else { "\n" };
            line.push_str(&format!("{end}{job} {part}"));
        }
        let recorder = &self.reply().recorder;
        let mut at = recorder.written.load(Ordering::Relaxed);
        let mut end = line.len().min(NOTE_WORDS * 8 - 1);
        while !line.is_char_boundary(end) {
            end -= 1;
        }
        let mut bytes = line.as_bytes()[..end]
            .iter()
            .copied()
            .chain([b'\n'])
            .peekable();
        while bytes.peek().is_some() {
            let word = std::array::from_fn(|_| bytes.next().unwrap_or(0));
            let cell = &recorder.words[(at % RECORDED as u64) as usize];
            cell.store(u64::from_le_bytes(word), Ordering::Relaxed);
            at = at.wrapping_add(1);
        }
        // Release: "note written", pairs with `notes`. The supervisor reads notes only after the confirmed exit, which
        // orders these accesses, too.
        recorder.written.store(at, Ordering::Release);
    }

    /// Supervisor, after the exit is confirmed: the notes that are left, with their jobs, oldest first. Accepts any
    /// content. The result has at most as many characters as the recorder has bytes.
    pub(crate) fn notes(&self) -> Vec<(u64, String)> {
        let recorder = &self.reply().recorder;
        let written = recorder.written.load(Ordering::Acquire);
        // An unfinished note may have overwritten the oldest words.
        const SAFE: u64 = (RECORDED - NOTE_WORDS) as u64;
        let whole = written <= SAFE;
        let count = written.min(SAFE);
        let mut bytes = Vec::with_capacity(count as usize * 8);
        for back in (1..=count).rev() {
            let at = (written.wrapping_sub(back) % RECORDED as u64) as usize;
            let word = recorder.words[at].load(Ordering::Relaxed);
            bytes.extend(word.to_le_bytes().into_iter().filter(|&byte| byte != 0));
        }
        let text = String::from_utf8_lossy(&bytes);
        // If notes were overwritten, the first line may be incomplete.
        let lines = text.lines().skip(usize::from(!whole));
        lines
            .filter_map(|line| line.split_once(' '))
            .filter_map(|(job, line)| Some((job.parse().ok()?, line.to_owned())))
            .collect()
    }

    /// Supervisor, after the exit is confirmed: clears the recorder for the next worker.
    pub(crate) fn clear_notes(&self) {
        let recorder = &self.reply().recorder;
        recorder.now.store(0, Ordering::Relaxed);
        recorder.written.store(0, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(arenite_loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cells() -> LinkCells<4> {
        LinkCells::on_heap()
    }

    #[test]
    fn phases_round_trip() {
        let cells = cells();
        assert_eq!(cells.phase(), Phase::Unknown);
        for phase in [
            Phase::Starting(steps::MAP),
            Phase::Idle,
            Phase::Opening(1),
            Phase::Running((1 << 56) - 1),
            Phase::Publishing(3),
            Phase::Stopping,
        ] {
            cells.set_phase(phase);
            assert_eq!(cells.phase(), phase);
        }
        cells.clear_notes();
        assert_eq!(cells.phase(), Phase::Unknown);
    }

    #[test]
    fn the_newest_notes_are_retained_whole() {
        let cells = cells();
        assert!(cells.notes().is_empty());
        let lines = ["first", "", "with 13 bytes", "with 14 bytes.", "two words"];
        for line in lines {
            cells.note(7, line);
        }
        assert_eq!(cells.notes(), lines.map(|line| (7, line.to_owned())));
        for n in 0..10_000 {
            cells.note(n, &format!("note {n}"));
        }
        let notes = cells.notes();
        assert!(notes.len() > 16, "{notes:?}");
        for (back, note) in notes.iter().rev().enumerate() {
            let n = 9_999 - back as u64;
            assert_eq!(*note, (n, format!("note {n}")));
        }
        cells.clear_notes();
        assert!(cells.notes().is_empty());
    }

    #[test]
    fn each_line_of_a_note_belongs_to_its_job() {
        let cells = cells();
        cells.note(7, "the assertion failed\n  left: 1\n right: 2\n");
        cells.note(8, "one\n\n42 is no name");
        let expected = [
            (7, "the assertion failed"),
            (7, "  left: 1"),
            (7, " right: 2"),
            (8, "one"),
            (8, ""),
            (8, "42 is no name"),
        ];
        assert_eq!(
            cells.notes(),
            expected.map(|(job, line)| (job, line.to_owned()))
        );
    }

    #[test]
    fn truncated_notes_are_discarded() {
        let cells = cells();
        cells.note(7, "first");
        let end = cells.notes_end();
        cells.note(7, "second");
        cells.truncate_notes(end);
        assert_eq!(cells.notes(), [(7, "first".to_owned())]);
        cells.note(8, "third");
        assert_eq!(cells.notes()[1], (8, "third".to_owned()));
    }

    #[test]
    fn a_long_note_is_truncated_at_a_character() {
        let cells = cells();
        cells.note(1, "before");
        cells.note(2, &"ä".repeat(5_000));
        let notes = cells.notes();
        assert_eq!(notes[0], (1, "before".to_owned()));
        let (job, text) = &notes[1];
        assert!(*job == 2 && text.len() < RECORDED * 8 / 4 && text.len() > 100);
        assert!(text.chars().all(|each| each == 'ä'));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(crate::sys::asked::cases(10_000)))]

        /// Any content of a recorder reads as text not longer than the recorder, and the next worker finds it empty.
        #[test]
        fn any_content_reads_as_text(
            now: u64,
            written in prop_oneof![any::<u64>(), 0..2 * RECORDED as u64, u64::MAX - 300..=u64::MAX],
            words in prop::collection::vec(
                prop_oneof![any::<u64>(), Just(0), Just(u64::MAX), Just(0x0a0a_0a0a_0a0a_0a0a)],
                1..100,
            ),
        ) {
            let cells = cells();
            let recorder = &cells.reply().recorder;
            recorder.now.store(now, Ordering::Relaxed);
            recorder.written.store(written, Ordering::Relaxed);
            for (cell, word) in recorder.words.iter().zip(words.iter().cycle()) {
                cell.store(*word, Ordering::Relaxed);
            }
            let phase = cells.phase();
            prop_assert!(phase.to_string().len() < 60);
            prop_assert!(phase.job().is_none_or(|job| job == now >> 8));
            // An invalid byte becomes a replacement character of three bytes.
            let notes = cells.notes();
            prop_assert!(notes.iter().map(|(_, line)| line.len()).sum::<usize>() <= RECORDED * 8 * 3);
            cells.clear_notes();
            prop_assert!(cells.notes().is_empty());
        }
    }
}
