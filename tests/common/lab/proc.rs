//! Reads `/proc` about one process.

use std::fs;

/// Returns the letter of its state (running, sleeping, stopped, zombie); `None` once it is gone.
pub fn state_of(pid: i32) -> Option<char> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Its name may contain blanks and parentheses.
    text.rsplit_once(')')?.1.trim().chars().next()
}

/// Returns a field of its status; `None` once it is gone.
pub fn status_of(pid: u32, name: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    field_of(&status, name)
}

/// Returns a field of the text of a status.
pub fn field_of(status: &str, name: &str) -> Option<String> {
    let mut fields = status.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = fields.find(|(known, _)| *known == name)?;
    Some(value.trim().to_owned())
}

/// Returns the bytes of its anonymous memory, which excludes the pages of arenas; `None` once it is gone.
pub fn private_bytes(pid: u32) -> Option<u64> {
    let kib = status_of(pid, "RssAnon")?;
    let kib: u64 = kib.strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}
