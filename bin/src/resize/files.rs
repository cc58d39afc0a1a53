//! Identity and location of files.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::folder::{Entry, Identity};

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

    pub(crate) fn of_entry(entry: &Entry) -> Stamp {
        let (device, inode) = entry.identity();
        Stamp {
            device,
            inode,
            len: entry.len(),
            modified: entry.modified(),
        }
    }

    pub(crate) fn identity(&self) -> Identity {
        (self.device, self.inode)
    }
}

/// Device and inode of an existing file, links followed.
pub(crate) fn identity(file: &Path) -> Option<Identity> {
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
