//! Removes temporary files that killed runs left behind.
//!
//! A run holds a `flock` on each temporary file until the file is renamed or removed. A file counts as left behind if
//! it has such a name, has not been written to for an hour, and is not locked. The lock alone does not suffice: there
//! is a moment before it is taken, and some file systems keep locks to one machine. Process numbers in names decide
//! nothing, because containers may share a folder. On a file system without locks nothing is removed.

use std::fs::{self, File, Metadata};
use std::path::Path;
use std::time::Duration;

use super::files::Stamp;
use super::shard::Shard;

/// Far longer than the writing of a file takes.
const OLD: Duration = Duration::from_secs(60 * 60);

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

/// Removes files that earlier runs have left in this folder, as far as permissions allow.
pub(crate) fn remove(folder: &Path) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries {
        if entry.file_name().to_str().is_some_and(is_name) {
            remove_if_left(&entry.path());
        }
    }
}

fn remove_if_left(path: &Path) -> Option<()> {
    let file_at_path = || path.symlink_metadata().ok().filter(Metadata::is_file);
    file_at_path().filter(is_old)?;
    // Some file systems lock only files opened for writing.
    let file = File::options().read(true).write(true).open(path).ok()?;
    file.try_lock().ok()?;
    // The opened and locked file may have been renamed since.
    let locked = Stamp::of(&file.metadata().ok().filter(is_old)?).identity();
    let same = file_at_path().is_some_and(|meta| Stamp::of(&meta).identity() == locked);
    same.then(|| fs::remove_file(path).ok()).flatten()
}

fn is_old(meta: &Metadata) -> bool {
    let age = meta.modified().ok().and_then(|time| time.elapsed().ok());
    age.is_some_and(|age| age > OLD)
}
