//! Python's faulthandler writes a traceback when its process dies. Its innermost frame comes first, so its beginning
//! shows what happened. Up to a hundred outer frames may follow, and tracebacks of other threads may precede it:
//!
//! ```text
//! Fatal Python error: Segmentation fault
//!
//! Thread 0x00007fd10d8fc6c0 (most recent call first):
//!   File "threading.py", line 982 in run
//!
//! Current thread 0x00007fd10e68db80 (most recent call first):
//!   File "model.py", line 6 in predict
//!   …
//!
//! Extension modules: numpy._core._multiarray_umath, …
//! ```
//!
//! A panic of Rust, a sanitizer or a debugger writes a stack with numbered frames. The lines above the stack contain
//! the cause:
//!
//! ```text
//! thread '<unnamed>' panicked at src/decode.rs:42:7:
//! index out of bounds: the len is 3 but the index is 3
//! stack backtrace:
//!    0: core::panicking::panic_bounds_check
//!              at /rustc/…/library/core/src/panicking.rs:271:5
//!    1: decode::row
//! ```

/// The maximum number of innermost frames that are retained.
const FRAMES: usize = 16;
/// The maximum length of a retained traceback in bytes.
const BYTES: usize = 4096;
/// The number of lines above the first stack with numbered frames that are retained with it.
pub(super) const HEAD: usize = 3;
/// The maximum number of lines between two stacks of the same report, such as where memory is used and where it was
/// freed.
const BETWEEN: usize = 6;

/// The retained part of the newest traceback: its first line, and the innermost frames of the thread that failed.
#[derive(Debug, Default)]
pub(super) struct Traceback {
    lines: Vec<Vec<u8>>,
    bytes: usize,
    section: Section,
    /// Whether the section of the current thread has begun.
    has_thread: bool,
    /// Number of lines above the line of the first thread.
    head: usize,
    frames: usize,
    /// Number of lines of the retained thread or stack that were left out.
    omitted: usize,
    /// Number of lines since the end of a stack with numbered frames. `None` if another kind of traceback is retained.
    since_stack: Option<usize>,
}

/// The part of a traceback that the next line belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Section {
    /// There is no traceback, or it has ended.
    #[default]
    Outside,
    /// The lines above all threads.
    Head,
    /// The first thread, if it is not the current one.
    First,
    /// The thread that failed.
    Current,
    /// Another thread, or a stack of other frames.
    Other,
    /// A stack with numbered frames.
    Numbered,
}

impl Traceback {
    /// Adds a line of stderr. Returns false if it does not belong to a traceback.
    pub(super) fn feed(&mut self, line: &[u8]) -> bool {
        const CALLS: &[u8] = b"(most recent call first):";
        if line.starts_with(b"Fatal Python error") {
            *self = Self::default();
            self.section = Section::Head;
            self.retain(line);
            self.head = self.lines.len();
            return true;
        }
        let is_thread = line.ends_with(CALLS);
        if is_thread && line.starts_with(b"Current thread 0x") {
            // Without a fatal error, the program has requested this traceback.
            if self.has_thread {
                *self = Self::default();
            }
            self.has_thread = true;
            self.begin_thread(line, Section::Current);
            return true;
        }
        match self.section {
            Section::Outside => return self.feed_outside(line),
            Section::Numbered => return self.feed_numbered(line),
            // If a thread that Python does not know has failed, there is no current thread: then the first thread is
            // retained.
            Section::Head if is_thread => self.begin_thread(line, Section::First),
            _ if is_thread => self.section = Section::Other,
            _ if line.is_empty() => {}
            Section::Head if line.starts_with(b"Python runtime state") => {
                self.retain(line);
                self.head = self.lines.len();
            }
            Section::First | Section::Current if line.starts_with(b"  ") => match self.frames {
                FRAMES => self.omitted += 1,
                _ => {
                    self.frames += 1;
                    self.retain(line);
                }
            },
            Section::Other if line.starts_with(b"  ") => {}
            _ => {
                self.section = Section::Outside;
                // The last line of a traceback, which may name hundreds of modules.
                return line.starts_with(b"Extension modules: ");
            }
        }
        true
    }

    /// Returns true if this line of stderr begins a stack with numbered frames that is to be retained with the lines
    /// above it. The caller passes those lines to [`begin_stack`](Self::begin_stack).
    pub(super) fn begins_stack(&self, line: &[u8]) -> bool {
        // A traceback that Python wrote when its process died is never replaced.
        let may_begin = match self.since_stack {
            None => self.lines.is_empty(),
            Some(lines) => lines > BETWEEN,
        };
        may_begin && self.section == Section::Outside && frame_number(line) == Some(0)
    }

    pub(super) fn begin_stack(&mut self, head: impl Iterator<Item = Vec<u8>>) {
        *self = Self::default();
        head.for_each(|line| self.retain(&line));
        self.since_stack = Some(0);
        self.section = Section::Numbered;
    }

    fn feed_outside(&mut self, line: &[u8]) -> bool {
        let Some(lines) = &mut self.since_stack else {
            return false;
        };
        *lines = lines.saturating_add(1);
        if *lines > BETWEEN || frame_number(line) != Some(0) {
            return false;
        }
        // A further stack of the same report. The first stack is the most informative.
        self.frames = FRAMES;
        self.section = Section::Numbered;
        self.feed_numbered(line)
    }

    fn feed_numbered(&mut self, line: &[u8]) -> bool {
        if frame_number(line).is_some() {
            match self.frames {
                FRAMES => self.omitted += 1,
                _ => {
                    self.frames += 1;
                    self.retain(line);
                }
            }
            return true;
        }
        let text = line.trim_ascii_start();
        if text.len() < line.len() && text.starts_with(b"at ") {
            // The source position of the frame in the line above.
            if self.omitted == 0 && self.bytes + line.len() <= BYTES {
                self.retain(line);
            }
            return true;
        }
        self.section = Section::Outside;
        self.since_stack = Some(0);
        self.feed_outside(line)
    }

    /// Begins the section of the thread whose frames are retained. Replaces the frames of an earlier thread.
    fn begin_thread(&mut self, line: &[u8], section: Section) {
        self.section = section;
        self.lines.truncate(self.head);
        self.bytes = self.lines.iter().map(Vec::len).sum();
        (self.frames, self.omitted) = (0, 0);
        self.retain(line);
    }

    fn retain(&mut self, line: &[u8]) {
        if self.bytes + line.len() > BYTES {
            self.omitted += 1;
            return;
        }
        self.bytes += line.len();
        self.lines.push(line.to_vec());
    }

    /// Returns the retained lines, in order.
    pub(super) fn lines(&self) -> impl Iterator<Item = Vec<u8>> {
        let rest = (self.omitted > 0).then(|| format!("  … ({} more frames)", self.omitted));
        let lines = self.lines.iter().cloned();
        lines.chain(rest.map(String::into_bytes))
    }
}

/// Returns the number of a frame: `    7: name` in Rust, `    #7 0x… in name` in a sanitizer or debugger.
fn frame_number(line: &[u8]) -> Option<usize> {
    let text = line.trim_ascii_start();
    let (digits, end) = match text.strip_prefix(b"#") {
        Some(digits) => (digits, b' '),
        None if text.len() < line.len() => (text, b':'),
        None => return None,
    };
    let len = digits.iter().take_while(|byte| byte.is_ascii_digit());
    let (number, rest) = digits.split_at(len.count());
    let number = std::str::from_utf8(number).ok()?.parse().ok()?;
    rest.starts_with(&[end]).then_some(number)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    /// Output of Python 3.11 to 3.13.
    const SEGFAULT: &str = include_str!("tracebacks/segfault.txt");
    const RECURSION: &str = include_str!("tracebacks/recursion.txt");
    const ABORT: &str = include_str!("tracebacks/abort.txt");
    const FATAL: &str = include_str!("tracebacks/fatal.txt");
    const ASKED: &str = include_str!("tracebacks/asked.txt");

    /// Output of Rust with `RUST_BACKTRACE=1`, and of a sanitizer.
    const PANIC: &str = include_str!("tracebacks/panic.txt");
    const SANITIZER: &str = include_str!("tracebacks/sanitizer.txt");

    /// Returns the retained lines, and the lines that belong to no traceback.
    fn read(text: &str) -> (Vec<String>, Vec<&str>) {
        let mut traceback = Traceback::default();
        let mut others = Vec::new();
        for line in text.lines() {
            if traceback.begins_stack(line.as_bytes()) {
                let head = others.split_off(others.len().saturating_sub(HEAD));
                traceback.begin_stack(head.into_iter().map(|line: &str| line.into()));
            }
            if !traceback.feed(line.as_bytes()) {
                others.push(line);
            }
        }
        let text = |line: Vec<u8>| String::from_utf8_lossy(&line).into_owned();
        (traceback.lines().map(text).collect(), others)
    }

    #[test]
    fn the_innermost_frames_of_the_current_thread_are_retained() {
        let (lines, others) = read(SEGFAULT);
        assert_eq!(others, ["segment 17 is read"]);
        assert_eq!(lines.len(), 2 + FRAMES + 1);
        assert_eq!(lines[0], "Fatal Python error: Segmentation fault");
        assert!(lines[1].starts_with("Current thread 0x"), "{}", lines[1]);
        let first = "  File \"/usr/lib/python3.13/ctypes/__init__.py\", line 538 in string_at";
        assert_eq!(lines[2], first);
        assert_eq!(
            lines[3],
            "  File \"/home/user/model.py\", line 6 in predict"
        );
        assert_eq!(lines[2 + FRAMES], "  … (7 more frames)");
    }

    #[test]
    fn an_endless_recursion_is_cut() {
        let (lines, others) = read(RECURSION);
        assert!(others.is_empty(), "{others:?}");
        let frame = "  File \"<string>\", line 6 in __repr__";
        assert!(
            lines[2..2 + FRAMES].iter().all(|line| line == frame),
            "{lines:?}"
        );
        // Python itself prints only the first hundred frames.
        assert_eq!(lines[2 + FRAMES..], ["  … (85 more frames)"]);
    }

    #[test]
    fn what_a_library_says_before_stays_apart() {
        let (lines, others) = read(ABORT);
        assert_eq!(others, ["free(): invalid pointer"]);
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[2], "  File \"<string>\", line 5 in <module>");
    }

    #[test]
    fn without_a_current_thread_the_first_one_is_retained() {
        let (lines, others) = read(FATAL);
        assert!(others.is_empty(), "{others:?}");
        assert_eq!(lines.len(), 4);
        assert_eq!(lines[1], "Python runtime state: initialized");
        assert!(lines[2].starts_with("Thread 0x"), "{lines:?}");
        assert_eq!(lines[3], "  File \"<string>\", line 3 in <module>");
    }

    #[test]
    fn a_traceback_that_was_asked_for_ends_with_the_next_line() {
        let (lines, others) = read(ASKED);
        assert_eq!(lines.len(), 3);
        assert!(lines[0].starts_with("Current thread 0x"), "{lines:?}");
        assert_eq!(others.last(), Some(&"and it goes on"));
        // A later traceback replaces an earlier one.
        let both = format!("{ASKED}{ABORT}");
        assert_eq!(read(&both).0, read(ABORT).0);
        assert_eq!(read(&format!("{ABORT}{ASKED}")).0, lines);
    }

    #[test]
    fn a_panic_is_retained_with_its_message_and_innermost_frames() {
        let (lines, others) = read(PANIC);
        assert!(lines[0].contains("panicked at"), "{lines:#?}");
        assert_eq!(
            lines[1],
            "index out of bounds: the len is 3 but the index is 7"
        );
        assert_eq!(lines[2], "stack backtrace:");
        let is_cause = |line: &String| line.contains("panicking::row");
        assert!(lines.iter().any(is_cause), "{lines:#?}");
        let frames = lines
            .iter()
            .filter_map(|line| frame_number(line.as_bytes()));
        assert!(frames.eq(0..FRAMES), "{lines:#?}");
        assert!(lines.last().unwrap().ends_with(" more frames)"));
        // The second panic is a consequence of the first.
        assert!(
            others.iter().any(|line| line.contains("cannot unwind")),
            "{others:#?}"
        );
        assert_eq!(others[0], "begins");
    }

    #[test]
    fn a_sanitizer_is_quoted_with_the_access_and_not_with_the_allocation() {
        let (lines, others) = read(SANITIZER);
        assert!(lines[1].contains("ERROR: AddressSanitizer"), "{lines:#?}");
        assert!(lines[2].starts_with("READ of size"), "{lines:#?}");
        assert!(
            lines[3].contains("#0 ") && lines[3].contains("in_use"),
            "{lines:#?}"
        );
        assert!(
            !lines.iter().any(|line| line.contains("malloc")),
            "{lines:#?}"
        );
        assert!(
            others.iter().any(|line| line.starts_with("SUMMARY: ")),
            "{others:#?}"
        );
        // A later stack replaces an earlier one, but not the traceback of Python's end.
        let both = format!("{SANITIZER}{PANIC}");
        assert_eq!(read(&both).0, read(PANIC).0);
        assert_eq!(read(&format!("{ABORT}{PANIC}")).0, read(ABORT).0);
    }

    #[test]
    fn numbers_of_frames_are_found() {
        for (line, number) in [
            ("   0: core::panicking::panic", Some(0)),
            ("  12:     0x55d0 - main", Some(12)),
            ("#0  0x0000 in main () at a.c:1", Some(0)),
            ("    #17 0x55d0 in main a.c:1", Some(17)),
            ("0: not indented", None),
            ("#include", None),
            ("#1", None),
            ("  : ", None),
            ("  99999999999999999999999: x", None),
            ("", None),
        ] {
            assert_eq!(frame_number(line.as_bytes()), number, "{line}");
        }
    }

    #[test]
    fn long_frames_stay_below_the_byte_limit() {
        let frame = format!("  File \"{}\", line 1 in f\n", "x".repeat(600));
        let text = format!(
            "Current thread 0x1 (most recent call first):\n{}",
            frame.repeat(16)
        );
        let (lines, _) = read(&text);
        assert_eq!(
            lines.last().map(String::as_str),
            Some("  … (10 more frames)")
        );
        assert!(lines.iter().map(String::len).sum::<usize>() <= BYTES + 50);
    }
}
