//! Reads `/proc` about one process.

use std::fs;

/// Returns the letter of its state (running, sleeping, stopped, zombie); `None` once it is gone.
pub fn state_of(pid: i32) -> Option<char> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Its name may contain blanks and parentheses.
    text.rsplit_once(')')?.1.trim().chars().next()
}

/// Returns the bytes of its anonymous memory, which excludes the pages of arenas; `None` once it is gone.
pub fn private_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let mut lines = status.lines();
    let line = lines.find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib << 10)
}
