//! Identity and location of files.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The metadata by which a file is recognized, and by which a change of it is noticed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub device: u64,
    pub inode: u64,
    /// Length in bytes.
    pub len: u64,
    /// Nanoseconds since 1970.
    pub modified: i128,
}

impl Stamp {
    pub(crate) fn of(meta: &Metadata) -> Stamp {
        Stamp {
            device: meta.dev(),
            inode: meta.ino(),
            len: meta.len(),
            modified: i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec()),
        }
    }

    /// Device and inode: equal for all names of one file.
    pub(crate) fn identity(&self) -> (u64, u64) {
        (self.device, self.inode)
    }
}

/// Device and inode of an existing file, links followed.
pub(crate) fn identity(file: &Path) -> Option<(u64, u64)> {
    Some(Stamp::of(&fs::metadata(file).ok()?).identity())
}

/// The absolute path of a file that may not exist yet, with the links of its folder resolved.
pub(crate) fn location(file: &Path) -> PathBuf {
    let folder = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let whole = folder
        .canonicalize()
        .or_else(|_| std::path::absolute(folder));
    let whole = whole.unwrap_or_else(|_| folder.to_owned());
    whole.join(file.file_name().unwrap_or_default())
}

/// Whether two paths lead to one existing file.
pub(crate) fn is_same(one: &Path, other: &Path) -> bool {
    one.canonicalize()
        .is_ok_and(|one| other.canonicalize().is_ok_and(|other| one == other))
}
