//! Writing results: to a temporary name in the same folder, then renamed.

use std::collections::{HashMap, HashSet};
use std::fs::{self, Metadata, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::fault::Fault;
use super::files::Stamp;
use super::leftovers;
use super::stop::Stop;
use crate::text::{reason, show_path};
use crate::units::show_bytes;

/// The folder given with `--out`, and the only place that anything is written to.
#[derive(Debug)]
pub(crate) struct OutFolder {
    root: PathBuf,
    canonical: PathBuf,
    stop: Stop,
    /// Numbers the temporary names.
    count: u64,
    /// Folders below it that exist and lie inside it, each with its name without links.
    ready: HashMap<PathBuf, PathBuf>,
    /// The folders that were not there before this run, the deepest first.
    made: Vec<PathBuf>,
    /// What no result of this run may replace, its other results and those that it keeps: each one's file system, and its
    /// number there, and its name.
    taken: HashMap<(u64, u64), PathBuf>,
    /// The names of those, without links.
    names: HashSet<PathBuf>,
}

/// Why a result was not written.
#[derive(Debug)]
pub(crate) struct WriteFault {
    pub fault: Fault,
    /// Every further result would meet the same: a full disk, a read-only file system.
    pub fatal: bool,
}

impl OutFolder {
    /// Creates the folder where it does not exist.
    ///
    /// # Errors
    ///
    /// A sentence that names the folder.
    pub(crate) fn create(root: &Path, stop: &Stop) -> Result<OutFolder, String> {
        let sentence = |error: io::Error| {
            format!(
                "{}: the output folder cannot be used: {}",
                show_path(root),
                reason(&error)
            )
        };
        let is_missing = |folder: &&Path| folder.symlink_metadata().is_err();
        let made = root.ancestors().take_while(is_missing);
        let made = made.map(Path::to_owned).collect();
        fs::create_dir_all(root).map_err(sentence)?;
        let canonical = fs::canonicalize(root).map_err(sentence)?;
        let mut out = OutFolder {
            root: root.to_owned(),
            canonical,
            stop: stop.clone(),
            count: 0,
            ready: HashMap::new(),
            made,
            taken: HashMap::new(),
            names: HashSet::new(),
        };
        // Once, and not once per picture: nothing can be written here at all.
        out.with_temporary(root, drop).map_err(sentence)?;
        leftovers::remove(root);
        Ok(out)
    }

    /// These are results that an earlier run has made.
    pub(crate) fn keep<'a>(&mut self, results: impl Iterator<Item = (&'a Path, &'a Stamp)>) {
        let mut folders: HashMap<PathBuf, Option<PathBuf>> = HashMap::new();
        for (relative, stamp) in results {
            self.taken.insert(stamp.identity(), relative.to_owned());
            let path = self.root.join(relative);
            let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
                continue;
            };
            let folder = folders
                .entry(folder.to_owned())
                .or_insert_with_key(|folder| folder.canonicalize().ok());
            self.names
                .extend(folder.as_ref().map(|folder| folder.join(name)));
        }
    }

    /// Takes away again what [`create`](Self::create) has made, as far as it is empty.
    pub(crate) fn unmake(&self) {
        for folder in &self.made {
            if fs::remove_dir(folder).is_err() {
                break;
            }
        }
    }

    /// Writes one result; whoever looks sees the old file or the whole new one.
    pub(crate) fn write(&mut self, relative: &Path, bytes: &[u8]) -> Result<Stamp, WriteFault> {
        let path = self.root.join(relative);
        let folder = path.parent().unwrap_or(&self.root).to_owned();
        let conflict = |text: &str| {
            let fault = Fault::new("name-conflict", text);
            WriteFault {
                fault,
                fatal: false,
            }
        };
        let canonical = self.prepare(&folder)?;
        let name = canonical.join(path.file_name().unwrap_or_default());
        if self.names.contains(&name) {
            let text =
                "not written: by a link in the output folder its place is that of another result";
            return Err(conflict(text));
        }
        // On a file system that takes `A.jpg` and `a.jpg` for one name.
        let there = path.symlink_metadata().ok();
        let other = there.and_then(|meta| self.taken.get(&Stamp::of(&meta).identity()));
        if other.is_some_and(|other| may_be_one(other, relative)) {
            let text = "not written: the output folder's file system takes its name for that of another result";
            return Err(conflict(text));
        }
        let meta = self
            .with_temporary(&folder, |mut file| {
                file.write_all(bytes)?;
                let (file, name) = file.into_parts();
                // Some file systems, of networks above all, tell only now that there was no room.
                nix::unistd::close(file)?;
                // A failed rename hands the temporary name back, and dropping that removes the file.
                name.persist(&path).map_err(|error| error.error)?;
                path.symlink_metadata()
            })
            .and_then(|written: io::Result<Metadata>| written)
            .map_err(|error| failed(&error, &folder, bytes.len()))?;
        let stamp = Stamp::of(&meta);
        self.taken.insert(stamp.identity(), relative.to_owned());
        self.names.insert(name);
        Ok(stamp)
    }

    /// Calls `write` with a new file beside the results, which is gone when it is dropped, and also when a signal ends
    /// the program meanwhile.
    fn with_temporary<T>(
        &mut self,
        folder: &Path,
        write: impl Fn(NamedTempFile) -> T,
    ) -> io::Result<T> {
        loop {
            self.count += 1;
            let name = leftovers::name(std::process::id(), self.count);
            let path = folder.join(&name);
            let make = || {
                tempfile::Builder::new()
                    .prefix(&name)
                    .rand_bytes(0)
                    // The mask of the process applies to this mode, as it does to any new file.
                    .permissions(Permissions::from_mode(0o666))
                    .tempfile_in(folder)
            };
            let made = self.stop.guarding(&path, make, |file| {
                leftovers::claim(file.as_file());
                write(file)
            });
            match made {
                // Left behind by a program that had our number, and was killed.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => return made,
            }
        }
    }

    /// Sees to it that the folder is there; its name without links.
    fn prepare(&mut self, folder: &Path) -> Result<PathBuf, WriteFault> {
        if let Some(canonical) = self.ready.get(folder) {
            return Ok(canonical.clone());
        }
        let there = |folder: &&Path| folder.symlink_metadata().is_ok();
        // Before the first folder is made, too: that would be somewhere else already.
        if let Some(deepest) = folder.ancestors().find(there) {
            self.check_inside(deepest)?;
        }
        fs::create_dir_all(folder).map_err(|error| failed(&error, folder, 0))?;
        let canonical = self.check_inside(folder)?;
        if folder != self.root {
            leftovers::remove(folder);
        }
        self.ready.insert(folder.to_owned(), canonical.clone());
        Ok(canonical)
    }

    /// The folder's name without links.
    fn check_inside(&self, folder: &Path) -> Result<PathBuf, WriteFault> {
        let canonical = fs::canonicalize(folder).map_err(|error| failed(&error, folder, 0))?;
        if canonical.starts_with(&self.canonical) {
            return Ok(canonical);
        }
        let text = format!(
            "not written: {} is a link that leads out of {}",
            show_path(folder),
            show_path(&self.root)
        );
        Err(WriteFault {
            fault: Fault::new("write", text),
            fatal: false,
        })
    }
}

/// Whether a file system may take these names for one. Otherwise, where both lead to one file, somebody has linked it, and
/// each may be replaced by itself.
fn may_be_one(one: &Path, other: &Path) -> bool {
    let (one, other) = (one.as_os_str(), other.as_os_str());
    one.eq_ignore_ascii_case(other) || !one.is_ascii() || !other.is_ascii()
}

fn failed(error: &io::Error, folder: &Path, len: usize) -> WriteFault {
    let folder = show_path(folder);
    let size = show_bytes(len as u64);
    let (cause, text, fatal) = match error.kind() {
        io::ErrorKind::StorageFull => (
            "disk-full",
            format!("not written: the disk that holds {folder} is full ({size} needed)"),
            true,
        ),
        io::ErrorKind::QuotaExceeded => (
            "disk-full",
            format!("not written: the disk quota for {folder} is used up ({size} needed)"),
            true,
        ),
        io::ErrorKind::ReadOnlyFilesystem => (
            "write",
            format!("not written: {folder} is on a read-only file system"),
            true,
        ),
        io::ErrorKind::IsADirectory => (
            "write",
            "not written: a folder has the name of the result".to_owned(),
            false,
        ),
        _ => (
            "write",
            format!("not written to {folder}: {}", reason(error)),
            false,
        ),
    };
    WriteFault {
        fault: Fault::new(cause, text),
        fatal,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn results_replace_old_ones_and_leave_no_temporary_file() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("deep/out");
        let mut out = OutFolder::create(&root, &Stop::default()).unwrap();
        out.write(Path::new("x/a.jpg"), b"old").unwrap();
        // A run writes each once.
        let mut out = OutFolder::create(&root, &Stop::default()).unwrap();
        let stamp = out.write(Path::new("x/a.jpg"), b"newer").unwrap();
        assert_eq!(stamp.len, 5);
        assert_eq!(fs::read(root.join("x/a.jpg")).unwrap(), b"newer");
        assert_eq!(fs::read_dir(root.join("x")).unwrap().count(), 1);
    }

    #[test]
    fn a_link_out_of_the_folder_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("out");
        let outside = folder.path().join("outside");
        fs::create_dir_all(&outside).unwrap();
        let mut out = OutFolder::create(&root, &Stop::default()).unwrap();
        std::os::unix::fs::symlink(&outside, root.join("sub")).unwrap();
        let error = out.write(Path::new("sub/a.jpg"), b"x").unwrap_err();
        assert!(!error.fatal);
        assert!(error.fault.text.contains("leads out of"), "{}", error.fault);
        // Nor is anything made behind it.
        let error = out.write(Path::new("sub/deeper/a.jpg"), b"x").unwrap_err();
        assert!(error.fault.text.contains("leads out of"), "{}", error.fault);
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    }

    /// Two names of one file are what a file system shows that does not tell upper from lower case.
    #[test]
    fn a_result_does_not_replace_another_one_of_the_same_run() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("out");
        let mut out = OutFolder::create(&root, &Stop::default()).unwrap();
        out.write(Path::new("A.jpg"), b"first").unwrap();
        fs::hard_link(root.join("A.jpg"), root.join("a.jpg")).unwrap();
        let error = out.write(Path::new("a.jpg"), b"second").unwrap_err();
        assert_eq!(
            (error.fault.cause.as_ref(), error.fatal),
            ("name-conflict", false)
        );
        assert_eq!(fs::read(root.join("A.jpg")).unwrap(), b"first");
    }

    /// By hand, or by a program that looks for files that are the same.
    #[test]
    fn results_that_somebody_has_linked_are_replaced_by_themselves() {
        let folder = tempfile::tempdir().unwrap();
        let kept = folder.path().join("kept.jpg");
        fs::write(&kept, b"same").unwrap();
        fs::hard_link(&kept, folder.path().join("stale.jpg")).unwrap();
        let mut out = OutFolder::create(folder.path(), &Stop::default()).unwrap();
        let stamp = Stamp::of(&kept.metadata().unwrap());
        out.keep([(Path::new("kept.jpg"), &stamp)].into_iter());
        out.write(Path::new("stale.jpg"), b"newer").unwrap();
        assert_eq!(fs::read(&kept).unwrap(), b"same");
        let upper = folder.path().join("KEPT.jpg");
        fs::hard_link(&kept, &upper).unwrap();
        let error = out.write(Path::new("KEPT.jpg"), b"other").unwrap_err();
        assert_eq!(error.fault.cause, "name-conflict");
    }

    /// However long it takes.
    #[test]
    fn a_file_that_is_being_written_is_not_taken_for_left_behind() {
        let folder = tempfile::tempdir().unwrap();
        let mut out = OutFolder::create(folder.path(), &Stop::default()).unwrap();
        let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(7200);
        let kept = out.with_temporary(folder.path(), |file| {
            file.as_file().set_modified(long_ago).unwrap();
            leftovers::remove(folder.path());
            let kept = file.path().exists();
            // As it is when its writer was killed.
            let (file, path) = file.keep().unwrap();
            drop(file);
            leftovers::remove(folder.path());
            (kept, path.exists())
        });
        assert_eq!(kept.unwrap(), (true, false));
    }

    #[test]
    fn a_folder_in_the_place_of_a_result_is_one_failure() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("out");
        fs::create_dir_all(root.join("a.jpg/inside")).unwrap();
        let mut out = OutFolder::create(&root, &Stop::default()).unwrap();
        let error = out.write(Path::new("a.jpg"), b"x").unwrap_err();
        assert!(!error.fatal, "{}", error.fault);
        assert_eq!(
            fs::read_dir(&root).unwrap().count(),
            1,
            "the temporary file is gone"
        );
    }

    #[test]
    fn a_full_disk_is_named_and_ends_the_run() {
        let full = io::Error::from(io::ErrorKind::StorageFull);
        let fault = failed(&full, Path::new("out"), 2048);
        assert!(fault.fatal);
        assert_eq!(fault.fault.cause, "disk-full");
        assert!(fault.fault.text.contains("full"), "{}", fault.fault);
    }
}
