//! Removes temporary files that killed runs left behind.
//!
//! A run holds a `flock` on each temporary file until the file is renamed or removed. A file counts as left behind if
//! it has such a name, has not been written to for an hour, and is not locked. The lock alone does not suffice: there
//! is a moment before it is taken, and some file systems keep locks to one machine. Process numbers in names decide
//! nothing, because containers may share a folder. On a file system without locks nothing is removed.

use std::ffi::OsStr;
use std::fs::File;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::fcntl::OFlag;

use crate::batch::shard::Shard;
use crate::folder::{Entry, Folder};

/// Far longer than the writing of a file takes: an hour, in nanoseconds.
const OLD: i128 = 60 * 60 * 1_000_000_000;

/// Marks the temporary file of the record among those of results.
const RECORD: &str = "record";

/// The name of a temporary file for a result. A run has one at a time.
pub(crate) fn name(process: u32, count: u64) -> String {
    format!(".arenite-{process}-{count}.tmp")
}

/// The name of the temporary file in which a run rewrites its record of results. Shards may run in containers, as
/// processes of one number.
pub(crate) fn record_name(process: u32, shard: Option<&Shard>) -> String {
    let shard = Shard::suffix(shard);
    format!(".arenite-{process}-{RECORD}{shard}.tmp")
}

fn is_name(name: &str) -> bool {
    let numbers = name
        .strip_prefix(".arenite-")
        .and_then(|rest| rest.strip_suffix(".tmp"));
    let parts = numbers.and_then(|numbers| numbers.split_once('-'));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    parts.is_some_and(|(process, what)| {
        digits(process) && (digits(what) || what.starts_with(RECORD))
    })
}

/// Locks a file until it is closed: it is being written.
pub(crate) fn claim(file: &File) {
    // On a file system without locks `remove` gets no lock either.
    let _ = file.try_lock();
}

/// Whether results may not have this name, however a file system spells it: names that begin so are those of records
/// and temporary files. Some file systems ignore case, and characters that are not shown.
pub(crate) fn is_reserved(name: &OsStr) -> bool {
    let text = name.to_string_lossy();
    // Folds to an s.
    let plain = text.chars().map(|c| if c == '\u{17f}' { 's' } else { c });
    let plain: String = plain.filter(char::is_ascii).collect();
    plain.to_ascii_lowercase().starts_with(".arenite-")
}

/// Removes files that earlier runs have left in this folder, as far as permissions allow.
pub(crate) fn remove(folder: &Folder) {
    for name in folder.names(is_name).unwrap_or_default() {
        remove_if_left(folder, &name);
    }
}

fn remove_if_left(folder: &Folder, name: &OsStr) -> Option<()> {
    folder.entry(name).ok().filter(is_old)?;
    // Some file systems lock only files opened for writing.
    let file = folder.open_file(name, OFlag::O_RDWR).ok()?;
    file.try_lock().ok()?;
    // The opened and locked file may have been renamed since.
    let locked = Entry::of(&file).ok().filter(is_old)?.identity();
    let same = folder
        .entry(name)
        .is_ok_and(|entry| entry.identity() == locked);
    same.then(|| folder.remove(name).ok()).flatten()
}

fn is_old(entry: &Entry) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok();
    let now = now.and_then(|now| i128::try_from(now.as_nanos()).ok());
    let age = now.map(|now| now - entry.modified());
    age.is_some_and(|age| age > OLD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_own_files_are_reserved_in_any_spelling() {
        let own = [
            ".arenite-resize",
            ".arenite-resize-1-of-2",
            ".Arenite-Resize",
            ".arenite-re\u{17f}ize",
            ".aren\u{ad}ite-resize",
            &name(1, 2),
            &record_name(1, None),
        ];
        for name in own {
            assert!(is_reserved(OsStr::new(name)), "{name}");
        }
        for name in ["arenite-resize", ".arenite", "a.arenite-1-1.tmp", ".jpg"] {
            assert!(!is_reserved(OsStr::new(name)), "{name}");
        }
    }
}
