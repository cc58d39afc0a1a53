//! What kernels note in a file, for the test to read.

use std::fmt::Display;
use std::fs::File;
use std::io::{Seek, Write};

/// A file in which kernels leave a line each time they run.
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

    /// Its lines, each of which is a number.
    pub fn numbers(&self) -> Vec<u32> {
        numbers(&self.path())
    }
}

/// The lines of a diary, each of which is a number.
pub fn numbers(diary: &str) -> Vec<u32> {
    let lines = lines(diary);
    lines.iter().map(|line| line.parse().unwrap()).collect()
}

fn lines(diary: &str) -> Vec<String> {
    let text = std::fs::read_to_string(diary).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// In a kernel: leaves a line.
pub fn note(diary: &str, line: impl Display) {
    append(diary, line);
}

/// In a kernel: leaves a line, and says how many there are before it. Of kernels that do so at the same time, each gets another
/// number; `/dev/null` keeps none.
pub fn note_after(diary: &str, line: impl Display) -> usize {
    let end = append(diary, line);
    let text = std::fs::read(diary).unwrap();
    let before = text[..end].iter().filter(|byte| **byte == b'\n');
    before.count().saturating_sub(1)
}

/// Where the line ends in the file.
fn append(diary: &str, line: impl Display) -> usize {
    let mut file = File::options().append(true).open(diary).unwrap();
    // At once: lines of others come before or after it.
    file.write_all(format!("{line}\n").as_bytes()).unwrap();
    file.stream_position().unwrap() as usize
}
