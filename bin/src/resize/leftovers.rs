//! Temporary files of runs that were killed, which nobody else takes away.
//!
//! Whoever writes a result holds a `flock` on its temporary file until that has its final name or is gone. A file is taken for
//! left behind if it has such a name, has not been written to for an hour, and nobody holds its lock. The lock alone would do
//! but for the moment before it is taken, and for file systems that keep locks to one machine; process numbers tell nothing
//! where containers share a folder. Where a file system has no locks nothing is taken away.

use std::fs::{self, File, Metadata};
use std::path::Path;
use std::time::Duration;

use super::files::Stamp;

/// Far longer than any file is written.
const OLD: Duration = Duration::from_secs(60 * 60);

/// In a name: what is no result.
const RECORD: &str = "record";

/// The name of a run's temporary file, of which it has one at a time.
pub(crate) fn name(process: u32, count: u64) -> String {
    format!(".arenite-{process}-{count}.tmp")
}

/// The name of the file in which a run writes the record of results again.
pub(crate) fn record_name(process: u32) -> String {
    format!(".arenite-{process}-{RECORD}.tmp")
}

fn is_name(name: &str) -> bool {
    let numbers = name
        .strip_prefix(".arenite-")
        .and_then(|rest| rest.strip_suffix(".tmp"));
    let parts = numbers.and_then(|numbers| numbers.split_once('-'));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    parts.is_some_and(|(process, what)| digits(process) && (digits(what) || what == RECORD))
}

/// Says that this file is being written, until it is closed.
pub(crate) fn claim(file: &File) {
    // Where there are no locks, whoever would take it away gets none either.
    let _ = file.try_lock();
}

/// Takes away what earlier runs have left in this folder, as far as that is allowed.
pub(crate) fn remove(folder: &Path) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries {
        if entry.file_name().to_str().is_some_and(is_name) {
            remove_if_left(&entry.path());
        }
    }
}

fn remove_if_left(path: &Path) -> Option<()> {
    let there = || path.symlink_metadata().ok().filter(Metadata::is_file);
    there().filter(is_old)?;
    // Some file systems lock only what may be written.
    let file = File::options().read(true).write(true).open(path).ok()?;
    file.try_lock().ok()?;
    // What is locked is what was opened, which may have another name by now.
    let locked = Stamp::of(&file.metadata().ok().filter(is_old)?).identity();
    let same = there().is_some_and(|meta| Stamp::of(&meta).identity() == locked);
    same.then(|| fs::remove_file(path).ok()).flatten()
}

fn is_old(meta: &Metadata) -> bool {
    let age = meta.modified().ok().and_then(|time| time.elapsed().ok());
    age.is_some_and(|age| age > OLD)
}
