//! Writes results: to a temporary file in the same folder, which is then renamed.

use std::collections::{HashMap, HashSet};
use std::fs::{self, Metadata, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::fault::Fault;
use super::files::{Stamp, identity};
use super::leftovers;
use super::stop::Stop;
use crate::text::{reason, show_path};
use crate::units::show_bytes;

/// Writes files atomically.
#[derive(Debug)]
pub(crate) struct Writer {
    stop: Stop,
    /// Numbers temporary names.
    count: u64,
}

/// A folder that no result may leave.
#[derive(Debug)]
pub(crate) struct Bounds {
    root: PathBuf,
    canonical: PathBuf,
}

/// The folder of `--out`. All results are written below it.
#[derive(Debug)]
pub(crate) struct OutFolder {
    bounds: Bounds,
    writer: Writer,
    /// Folders that exist inside it, each with its canonical path.
    ready: HashMap<PathBuf, PathBuf>,
    /// Folders created by this run, the deepest first.
    made: Vec<PathBuf>,
    /// Files that no result may replace: other results of this run, and results that it keeps. By device and inode,
    /// with their relative paths.
    taken: HashMap<(u64, u64), PathBuf>,
    /// The canonical paths of those.
    names: HashSet<PathBuf>,
    /// Other files that no result may replace, by device and inode.
    protected: HashSet<(u64, u64)>,
}

/// Why a result was not written.
#[derive(Debug)]
pub(crate) struct WriteFault {
    pub fault: Fault,
    /// Whether every further result would fail too: a full disk, a read-only file system.
    pub fatal: bool,
}

impl OutFolder {
    /// Creates the folder if it does not exist.
    ///
    /// # Errors
    ///
    /// A sentence that names the folder.
    pub(crate) fn create(root: &Path, stop: &Stop) -> Result<OutFolder, String> {
        let is_missing = |folder: &&Path| folder.symlink_metadata().is_err();
        let made = root.ancestors().take_while(is_missing);
        let made = made.map(Path::to_owned).collect();
        let mut writer = Writer::new(stop);
        let bounds = Bounds::create(root, &mut writer)?;
        Ok(OutFolder {
            bounds,
            writer,
            ready: HashMap::new(),
            made,
            taken: HashMap::new(),
            names: HashSet::new(),
            protected: HashSet::new(),
        })
    }

    /// The folder itself.
    pub(crate) fn root(&self) -> &Path {
        self.bounds.root()
    }

    /// Protects results of an earlier run from being replaced.
    pub(crate) fn keep<'a>(&mut self, results: impl Iterator<Item = (&'a Path, &'a Stamp)>) {
        let mut folders: HashMap<PathBuf, Option<PathBuf>> = HashMap::new();
        for (relative, stamp) in results {
            self.taken.insert(stamp.identity(), relative.to_owned());
            let path = self.bounds.root.join(relative);
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

    /// Protects files whose paths results might turn out to have.
    pub(crate) fn protect(&mut self, files: impl IntoIterator<Item = (u64, u64)>) {
        self.protected.extend(files);
    }

    /// Removes the folders that [`create`](Self::create) has made, as far as they are empty.
    pub(crate) fn unmake(&self) {
        for folder in &self.made {
            if fs::remove_dir(folder).is_err() {
                break;
            }
        }
    }

    /// Writes one result atomically: readers see the old file or the complete new one.
    pub(crate) fn write(&mut self, relative: &Path, bytes: &[u8]) -> Result<Stamp, WriteFault> {
        let path = self.bounds.root.join(relative);
        let folder = path.parent().unwrap_or(&self.bounds.root).to_owned();
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
            let is_named_so = self.taken.values().any(|other| other == relative);
            let text = match is_named_so {
                true => "not written: the result of another image has its name; change --name",
                false => {
                    "not written: a link in the output folder gives it the path of another result"
                }
            };
            return Err(conflict(text));
        }
        if !self.protected.is_empty()
            && identity(&path).is_some_and(|existing| self.protected.contains(&existing))
        {
            return Err(conflict("not written: it would overwrite an input"));
        }
        // On a file system that treats `A.jpg` and `a.jpg` as one name.
        let existing = path.symlink_metadata().ok();
        let other = existing.and_then(|meta| self.taken.get(&Stamp::of(&meta).identity()));
        if other.is_some_and(|other| may_be_one(other, relative)) {
            let text = "not written: the output folder's file system treats its name as that of another result";
            return Err(conflict(text));
        }
        let stamp = self.writer.replace(&folder, &path, bytes)?;
        self.taken.insert(stamp.identity(), relative.to_owned());
        self.names.insert(name);
        Ok(stamp)
    }

    /// Creates a folder if needed; returns its canonical path.
    fn prepare(&mut self, folder: &Path) -> Result<PathBuf, WriteFault> {
        if let Some(canonical) = self.ready.get(folder) {
            return Ok(canonical.clone());
        }
        let canonical = self.bounds.prepare(folder)?;
        if folder != self.bounds.root {
            leftovers::remove(folder);
        }
        self.ready.insert(folder.to_owned(), canonical.clone());
        Ok(canonical)
    }
}

impl Writer {
    pub(crate) fn new(stop: &Stop) -> Writer {
        Writer {
            stop: stop.clone(),
            count: 0,
        }
    }

    /// Writes `path` in the existing `folder` atomically, and replaces what is there.
    pub(crate) fn replace(
        &mut self,
        folder: &Path,
        path: &Path,
        bytes: &[u8],
    ) -> Result<Stamp, WriteFault> {
        let meta = self
            .with_temporary(folder, |mut file| {
                file.write_all(bytes)?;
                let (file, name) = file.into_parts();
                // Some file systems, such as network ones, report only now that there was no room.
                nix::unistd::close(file)?;
                // A failed rename returns the temporary name; dropping it removes the file.
                name.persist(path).map_err(|error| error.error)?;
                path.symlink_metadata()
            })
            .and_then(|written: io::Result<Metadata>| written)
            .map_err(|error| failed(&error, folder, bytes.len()))?;
        Ok(Stamp::of(&meta))
    }

    /// Calls `write` with a new temporary file in `folder`, which is removed when dropped, or when a signal ends the
    /// program.
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
                    // Subject to the umask, like the mode of any new file.
                    .permissions(Permissions::from_mode(0o666))
                    .tempfile_in(folder)
            };
            let made = self.stop.guarding(&path, make, |file| {
                leftovers::claim(file.as_file());
                write(file)
            });
            match made {
                // Left behind by a killed program with the same process number.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => return made,
            }
        }
    }
}

impl Bounds {
    /// Creates the folder if it does not exist, and removes what killed runs have left in it.
    ///
    /// # Errors
    ///
    /// A sentence that names the folder.
    pub(crate) fn create(root: &Path, writer: &mut Writer) -> Result<Bounds, String> {
        let sentence = |error: io::Error| {
            format!(
                "{}: the output folder cannot be used: {}",
                show_path(root),
                reason(&error)
            )
        };
        fs::create_dir_all(root).map_err(sentence)?;
        let canonical = fs::canonicalize(root).map_err(sentence)?;
        // Fails once, instead of once per picture, if nothing can be written here.
        writer.with_temporary(root, drop).map_err(sentence)?;
        leftovers::remove(root);
        Ok(Bounds {
            root: root.to_owned(),
            canonical,
        })
    }

    /// The folder itself.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Creates a folder inside if needed; returns its canonical path.
    pub(crate) fn prepare(&self, folder: &Path) -> Result<PathBuf, WriteFault> {
        let exists = |folder: &&Path| folder.symlink_metadata().is_ok();
        // Before creating folders too, which would otherwise be created outside.
        if let Some(deepest) = folder.ancestors().find(exists) {
            self.check_inside(deepest)?;
        }
        create(folder)?;
        self.check_inside(folder)
    }

    /// Returns the canonical path of a folder inside the output folder; fails if it is outside.
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

/// Creates a folder if needed.
pub(crate) fn create(folder: &Path) -> Result<(), WriteFault> {
    fs::create_dir_all(folder).map_err(|error| failed(&error, folder, 0))
}

/// Whether a file system may treat these names as one. Other names of one file are hard links, each of which may be
/// replaced.
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
        // A run writes each result once.
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
        // Nothing is created behind it either.
        let error = out.write(Path::new("sub/deeper/a.jpg"), b"x").unwrap_err();
        assert!(error.fault.text.contains("leads out of"), "{}", error.fault);
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    }

    /// On a file system that ignores case, two names lead to one file.
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

    /// Such links are made by users, and by programs that deduplicate files.
    #[test]
    fn hard_linked_results_are_replaced_one_by_one() {
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

    #[test]
    fn a_file_being_written_does_not_count_as_left_behind() {
        let folder = tempfile::tempdir().unwrap();
        let mut out = OutFolder::create(folder.path(), &Stop::default()).unwrap();
        let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(7200);
        let kept = out.writer.with_temporary(folder.path(), |file| {
            file.as_file().set_modified(long_ago).unwrap();
            leftovers::remove(folder.path());
            let kept = file.path().exists();
            // The state after its writer was killed.
            let (file, path) = file.keep().unwrap();
            drop(file);
            leftovers::remove(folder.path());
            (kept, path.exists())
        });
        assert_eq!(kept.unwrap(), (true, false));
    }

    #[test]
    fn a_folder_with_the_name_of_a_result_is_one_failure() {
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
