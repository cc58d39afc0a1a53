//! What `/proc` says of one process.

use std::fs;

/// Whether it runs, sleeps, is stopped or a zombie, as a letter; nothing once it is gone.
pub fn state_of(pid: i32) -> Option<char> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Its name may have blanks and brackets.
    text.rsplit_once(')')?.1.trim().chars().next()
}

/// Bytes that it shares with nobody, but for what the kernel holds for it; nothing once it is gone. Pages of an arena are not
/// its own.
pub fn private_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let mut lines = status.lines();
    let line = lines.find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib << 10)
}
