//! A log file of kernels, for the test to read.

use std::fmt::Display;
use std::fs::File;
use std::io::{Seek, Write};

/// A file to which kernels append a line each time they run.
pub struct Diary(tempfile::NamedTempFile);

impl Diary {
    pub fn new() -> Self {
        Self(tempfile::NamedTempFile::new().unwrap())
    }

    pub fn path(&self) -> String {
        self.0.path().to_str().unwrap().to_owned()
    }

    pub fn lines(&self) -> Vec<String> {
        lines(&self.path())
    }

    /// Returns its lines as numbers.
    pub fn numbers(&self) -> Vec<u32> {
        numbers(&self.path())
    }
}

/// Returns the lines of a log as numbers.
pub fn numbers(diary: &str) -> Vec<u32> {
    let lines = lines(diary);
    lines.iter().map(|line| line.parse().unwrap()).collect()
}

fn lines(diary: &str) -> Vec<String> {
    let text = std::fs::read_to_string(diary).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// In a kernel: appends a line.
pub fn note(diary: &str, line: impl Display) {
    append(diary, line);
}

/// In a kernel: appends a line and returns the number of lines before it, which is distinct for each kernel. Always 0 for
/// `/dev/null`.
pub fn note_after(diary: &str, line: impl Display) -> usize {
    let end = append(diary, line);
    let text = std::fs::read(diary).unwrap();
    let before = text[..end].iter().filter(|byte| **byte == b'\n');
    before.count().saturating_sub(1)
}

/// Appends a line and returns the offset of its end.
fn append(diary: &str, line: impl Display) -> usize {
    let mut file = File::options().append(true).open(diary).unwrap();
    // In one write, so that lines of several kernels do not mix.
    file.write_all(format!("{line}\n").as_bytes()).unwrap();
    file.stream_position().unwrap() as usize
}
