//! Writes results to a temporary file in the same folder, which is then renamed.
//!
//! The folder of `--out` is opened once. Everything below it is reached from that descriptor, and never through a link:
//! see [`Folder`]. Before each result, its folder and the folder of `--out` are checked to be still at their paths. If
//! another program has exchanged one of them, the result fails.

use std::cell::{Cell, OnceCell};
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::fcntl::OFlag;

use super::record::{self, Own};
use crate::batch::Fault;
use crate::batch::stop::Stop;
use crate::folder::{Entry, Folder, Identity, Stamp, Temporary, identity, is_reserved};
use crate::text::{reason, show_bytes, show_path};

/// Writes files atomically.
#[derive(Debug)]
pub(crate) struct Writer {
    stop: Stop,
    /// Counts temporary names.
    count: u64,
}

/// A result to write, and which files it may replace.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output<'a> {
    pub bytes: &'a [u8],
    /// Whether the result may replace files that arenite has not made.
    pub overwrite: bool,
    /// The time of last change to set, in nanoseconds since 1970; `None` for now.
    pub modified: Option<i128>,
}

/// An open folder below which all results must be.
#[derive(Debug)]
pub(crate) struct Bounds {
    root: Arc<Folder>,
    identity: Identity,
    /// The open folders of the last results, by their paths below `root`, the latest last. While a folder is open it
    /// keeps its device and inode on every file system.
    held: Vec<(PathBuf, Arc<Folder>)>,
    /// The folders that were searched for leftovers.
    swept: HashSet<PathBuf>,
    missing: Missing,
}

/// What to do if a folder was removed after its last result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// Further results in the folder fail: earlier ones of this run are lost.
    Fails,
    /// The folder is created again: other programs may clean up folders while a co-process runs.
    IsCreated,
}

/// The folder of `--out`. All results are written below it.
#[derive(Debug)]
pub(crate) struct OutFolder {
    bounds: Bounds,
    writer: Writer,
    /// The folders that this run has created, the deepest first.
    made: Vec<PathBuf>,
    /// Files that no result may replace: results of this run, and earlier results that it keeps. Maps device and inode
    /// to the relative path.
    taken: HashMap<Identity, PathBuf>,
    /// The relative paths of the files in `taken`.
    names: HashSet<PathBuf>,
    /// The inputs, and other files that no result may replace.
    protected: HashSet<Identity>,
    /// The results of earlier runs. Read when a file is in the way for the first time.
    own: OnceCell<Own>,
}

/// The reason why a result was not written.
#[derive(Debug)]
pub(crate) struct WriteFault {
    pub fault: Fault,
    /// Whether every further result would fail too: the disk is full, or the file system is read-only.
    pub fatal: bool,
}

/// The cause of a failure because of a file that arenite has not made.
const EXISTS: &str = "exists";

/// The reason why a file did not get its name.
#[derive(Debug)]
pub(crate) enum NotPut {
    Io(io::Error),
    /// The file would replace one that it may not replace.
    Refused(Fault),
}

/// The maximum number of open folders in addition to that of `--out`.
const HELD: usize = 16;

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
        let bounds = Bounds::create(root, Missing::Fails, &mut writer)?;
        Ok(OutFolder {
            bounds,
            writer,
            made,
            taken: HashMap::new(),
            names: HashSet::new(),
            protected: HashSet::new(),
            own: OnceCell::new(),
        })
    }

    /// Returns the folder of `--out` itself.
    pub(crate) fn root(&self) -> &Arc<Folder> {
        &self.bounds.root
    }

    /// Protects results of an earlier run from being replaced.
    pub(crate) fn keep<'a>(&mut self, results: impl Iterator<Item = (&'a Path, &'a Stamp)>) {
        for (relative, stamp) in results {
            self.taken.insert(stamp.identity(), relative.to_owned());
            self.names.insert(relative.to_owned());
        }
    }

    /// Protects files that results might replace.
    pub(crate) fn protect(&mut self, files: impl IntoIterator<Item = Identity>) {
        self.protected.extend(files);
    }

    /// Removes the empty folders among those that [`create`](Self::create) has made.
    pub(crate) fn unmake(&self) {
        for folder in &self.made {
            if fs::remove_dir(folder).is_err() {
                break;
            }
        }
    }

    /// Writes one result atomically: other programs read either the old file or the complete new one.
    pub(crate) fn write(
        &mut self,
        relative: &Path,
        output: Output<'_>,
    ) -> Result<Stamp, WriteFault> {
        let conflict = |text: &str| Fault::new("name-conflict", text);
        if self.names.contains(relative) {
            let text = "not written: the result of another image has its name; change --name";
            return Err(conflict(text).into());
        }
        let folder = self
            .bounds
            .open(relative.parent().unwrap_or(Path::new("")))?;
        let name = relative.file_name().unwrap_or_default();
        let (bounds, taken, protected) = (&self.bounds, &self.taken, &self.protected);
        let may_replace = |existing: &Entry| {
            if protected.contains(&existing.identity()) {
                return Err(conflict("not written: it would overwrite an input"));
            }
            // Occurs on a file system for which `A.jpg` and `a.jpg` are one name, and if a folder is mounted twice.
            match taken.get(&existing.identity()) {
                Some(other) if may_be_one(other, relative) => Err(conflict(
                    "not written: the output folder's file system treats its name as that of another result",
                )),
                Some(other)
                    if other.file_name() == Some(name) && bounds.leads_into(other, &folder) =>
                {
                    Err(conflict(
                        "not written: its folder is mounted twice, and another result has its name there",
                    ))
                }
                _ => Ok(()),
            }
        };
        let own = || self.own.get_or_init(|| Own::read(&bounds.root));
        let is_own = |existing: &Stamp| own().has(relative, existing);
        let replaced = self
            .writer
            .replace(&folder, name, output, may_replace, is_own);
        let stamp = replaced.map_err(|mut failure| {
            let own = self.own.get().filter(|_| failure.fault.cause == EXISTS);
            if let Some(record) = own.and_then(Own::damaged) {
                let record = show_path(&bounds.path().join(record));
                let more = format!("; the record {record} is damaged, so arenite may have made it");
                failure.fault.text.push_str(&more);
            }
            failure
        })?;
        self.taken.insert(stamp.identity(), relative.to_owned());
        self.names.insert(relative.to_owned());
        Ok(stamp)
    }
}

impl Writer {
    pub(crate) fn new(stop: &Stop) -> Writer {
        Writer {
            stop: stop.clone(),
            count: 0,
        }
    }

    /// Writes a result with this name into the folder atomically. The result may replace a file if `may_replace` allows
    /// it, and if one of these holds: `is_own` says that the file is arenite's, the file has the same content, or
    /// `output` may overwrite any file.
    pub(crate) fn replace(
        &mut self,
        folder: &Arc<Folder>,
        name: &OsStr,
        output: Output<'_>,
        may_replace: impl Fn(&Entry) -> Result<(), Fault>,
        is_own: impl Fn(&Stamp) -> bool,
    ) -> Result<Stamp, WriteFault> {
        let own = || {
            let text = "not written: arenite keeps such names for its own files; change the name";
            Fault::new("name-conflict", text)
        };
        if is_reserved(name) {
            return Err(own().into());
        }
        // `judge` runs again after the old file has lost its name. Its content cannot be read by that name then, so the
        // first answer is stored.
        let known = Cell::new(None);
        let may_be_lost = |existing: &Entry| {
            let stamp = Stamp::of_entry(existing);
            let is_replaceable = output.overwrite
                || known.get() == Some(stamp)
                || existing.is_file()
                    && (is_own(&stamp) || has_content(folder, name, existing, output.bytes));
            if !is_replaceable {
                let path = show_path(&folder.path().join(name));
                let text = format!(
                    "not written: {path} exists, and arenite has not made it; --overwrite replaces such files"
                );
                return Err(Fault::new(EXISTS, text));
            }
            known.set(Some(stamp));
            Ok(())
        };
        let judge = |existing: &Entry| {
            // On file systems that ignore case, `name` may be another spelling of the record's name.
            let record = folder.entry(record::NAME.as_ref());
            match record.is_ok_and(|record| record.identity() == existing.identity()) {
                true => Err(own()),
                false => may_replace(existing).and_then(|()| may_be_lost(existing)),
            }
        };
        let put = self.put_at(folder, name, &[output.bytes], output.modified, judge);
        let entry = put.map_err(|failure| match failure {
            NotPut::Io(error) => failed(&error, folder.path(), output.bytes.len()),
            NotPut::Refused(fault) => fault.into(),
        })?;
        Ok(Stamp::of_entry(&entry))
    }

    /// Writes a file from these parts atomically. The file may replace another one if `may_replace` allows it.
    pub(crate) fn put(
        &mut self,
        folder: &Arc<Folder>,
        name: &OsStr,
        parts: &[&[u8]],
        may_replace: impl Fn(&Entry) -> Result<(), Fault>,
    ) -> Result<Entry, NotPut> {
        self.put_at(folder, name, parts, None, may_replace)
    }

    /// Like [`put`](Self::put), and sets the file's time of last change in nanoseconds since 1970.
    fn put_at(
        &mut self,
        folder: &Arc<Folder>,
        name: &OsStr,
        parts: &[&[u8]],
        modified: Option<i128>,
        may_replace: impl Fn(&Entry) -> Result<(), Fault>,
    ) -> Result<Entry, NotPut> {
        let write = |mut file: File| {
            parts.iter().try_for_each(|part| file.write_all(part))?;
            // Some file systems, such as network ones, report only at this point that there was no room.
            let locked = file.try_clone()?;
            nix::unistd::close(file).map_err(io::Error::from)?;
            // Set the time last: a network file system may set it when the file is closed. Until the file has its name,
            // the lock shows that a file with such an old time is not left behind.
            if let Some(time) = modified.and_then(system_time) {
                locked.set_modified(time)?;
            }
            Ok(locked)
        };
        let place = |temporary: &Temporary, _locked| {
            temporary.place(name, |old| may_replace(old).map_err(NotPut::Refused))
        };
        self.with_temporary(folder, write, place)
    }

    /// Creates a temporary file in `folder`, and calls `write` and then `place` with it. Removes the file after an
    /// error, or when a signal ends the program.
    fn with_temporary<W, T>(
        &mut self,
        folder: &Arc<Folder>,
        write: impl FnOnce(File) -> Result<W, NotPut>,
        place: impl FnOnce(&Temporary, W) -> Result<T, NotPut>,
    ) -> Result<T, NotPut> {
        let count = &mut self.count;
        let make = || loop {
            *count += 1;
            let name = Temporary::name(*count);
            match Temporary::create(folder, &name, OFlag::O_WRONLY) {
                // A killed program with the same process id has left the file.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => return made,
            }
        };
        self.stop.guarding(make, write, place)
    }
}

impl Bounds {
    /// Creates the folder if it does not exist, opens it, and removes files that killed runs have left in it.
    ///
    /// # Errors
    ///
    /// A sentence that names the folder.
    pub(crate) fn create(
        root: &Path,
        missing: Missing,
        writer: &mut Writer,
    ) -> Result<Bounds, String> {
        let sentence = |error: &io::Error| {
            let why = match error.kind() {
                io::ErrorKind::StorageFull if lacks_inodes(root) => NO_INODES.to_owned(),
                _ => reason(error),
            };
            let root = show_path(root);
            format!("{root}: the output folder cannot be used: {why}")
        };
        let open = || {
            fs::create_dir_all(root)?;
            let root = Folder::open(root)?;
            io::Result::Ok(Bounds {
                identity: root.identity()?,
                root: Arc::new(root),
                held: Vec::new(),
                swept: HashSet::new(),
                missing,
            })
        };
        let bounds = open().map_err(|error| sentence(&error))?;
        // Test writing here: if nothing can be written, the run fails once instead of once per picture.
        let probe = |temporary: &Temporary, ()| {
            temporary.remove();
            Ok(())
        };
        match writer.with_temporary(&bounds.root, |_| Ok(()), probe) {
            Err(NotPut::Io(error)) => return Err(sentence(&error)),
            Err(NotPut::Refused(fault)) => return Err(fault.text),
            Ok(()) => {}
        }
        bounds.root.remove_leftovers();
        Ok(bounds)
    }

    /// Returns the path of the folder itself.
    pub(crate) fn path(&self) -> &Path {
        self.root.path()
    }

    /// Opens a folder below this one. Creates it for its first result.
    pub(crate) fn open(&mut self, relative: &Path) -> Result<Arc<Folder>, WriteFault> {
        let path = self.path().join(relative);
        let failed = |error: io::Error| failed(&error, &path, 0);
        if identity(self.path_or_here()) != Some(self.identity) {
            return Err(exchanged(self.path(), true));
        }
        if relative.as_os_str().is_empty() {
            return Ok(Arc::clone(&self.root));
        }
        let known = self.held.iter().position(|(path, _)| path == relative);
        if let Some((_, known)) = known.map(|index| self.held.remove(index)) {
            let is_left = self.missing == Missing::Fails || known.exists().map_err(failed)?;
            if is_left {
                let now = self.root.below(relative);
                // Keep the folder open, whether or not this result succeeds.
                let before = known.identity().map_err(failed)?;
                self.held.push((relative.to_owned(), known));
                return match now.map_err(failed)? {
                    now if now.identity().map_err(failed)? == before => Ok(Arc::new(now)),
                    _ => Err(exchanged(&path, false)),
                };
            }
        }
        let folder = Arc::new(self.root.create_below(relative).map_err(failed)?);
        if self.swept.insert(relative.to_owned()) {
            folder.remove_leftovers();
        }
        if self.held.len() == HELD {
            self.held.remove(0);
        }
        self.held.push((relative.to_owned(), Arc::clone(&folder)));
        Ok(folder)
    }

    /// Returns whether the parent of this path is `folder`.
    fn leads_into(&self, path: &Path, folder: &Folder) -> bool {
        let parent = path.parent().unwrap_or(Path::new(""));
        let parent = self.root.below(parent);
        let both = parent.and_then(|parent| Ok((parent.identity()?, folder.identity()?)));
        both.is_ok_and(|(one, other)| one == other)
    }

    fn path_or_here(&self) -> &Path {
        match self.path() {
            path if path.as_os_str().is_empty() => Path::new("."),
            path => path,
        }
    }
}

/// Creates a folder if needed, and opens it. Follows links.
pub(crate) fn create(folder: &Path) -> Result<Arc<Folder>, WriteFault> {
    let opened = fs::create_dir_all(folder).and_then(|()| Folder::open(folder));
    opened.map(Arc::new).map_err(|error| {
        let error = match error.kind() {
            io::ErrorKind::AlreadyExists => io::Error::other("it is not a folder"),
            _ => error,
        };
        failed(&error, folder, 0)
    })
}

impl From<io::Error> for NotPut {
    fn from(error: io::Error) -> NotPut {
        NotPut::Io(error)
    }
}

impl From<Fault> for WriteFault {
    fn from(fault: Fault) -> WriteFault {
        WriteFault {
            fault,
            fatal: false,
        }
    }
}

/// Returns the failure for a folder that another program has exchanged.
fn exchanged(folder: &Path, fatal: bool) -> WriteFault {
    let folder = show_path(folder);
    let text = format!("not written: {folder} is no longer the folder that it was; run it again");
    WriteFault {
        fault: Fault::new("write", text),
        fatal,
    }
}

/// Returns whether a file system may treat these two names of a file as one. If not, they are hard links, and each may
/// be replaced.
fn may_be_one(one: &Path, other: &Path) -> bool {
    let (one, other) = (one.as_os_str(), other.as_os_str());
    one.eq_ignore_ascii_case(other) || !one.is_ascii() || !other.is_ascii()
}

/// Returns whether the file contains these bytes. Opens the file by its name; returns false if the name is that of
/// another file.
fn has_content(folder: &Folder, name: &OsStr, existing: &Entry, bytes: &[u8]) -> bool {
    if existing.len() != bytes.len() as u64 {
        return false;
    }
    let read = || {
        let file = folder.open_file(name, OFlag::O_RDONLY)?;
        let is_same = Entry::of(&file)?.identity() == existing.identity();
        let mut content = Vec::with_capacity(bytes.len() + 1);
        file.take(bytes.len() as u64 + 1)
            .read_to_end(&mut content)?;
        io::Result::Ok(is_same && content == bytes)
    };
    read().unwrap_or(false)
}

/// Returns the time that is `nanoseconds` after 1970.
fn system_time(nanoseconds: i128) -> Option<SystemTime> {
    let distance = nanoseconds.unsigned_abs();
    let seconds = u64::try_from(distance / 1_000_000_000).ok()?;
    let distance = Duration::new(seconds, (distance % 1_000_000_000) as u32);
    match nanoseconds < 0 {
        true => UNIX_EPOCH.checked_sub(distance),
        false => UNIX_EPOCH.checked_add(distance),
    }
}

const NO_INODES: &str =
    "its file system has no inodes left, so that it can hold no more files; remove some";

/// Returns whether a file system is full because it has the maximum number of files.
fn lacks_inodes(folder: &Path) -> bool {
    let folder = folder.ancestors().find(|folder| folder.exists());
    let state = nix::sys::statvfs::statvfs(folder.unwrap_or(Path::new(".")));
    // File systems without a maximum report 0.
    state.is_ok_and(|state| state.files() > 0 && state.files_free() == 0)
}

fn failed(error: &io::Error, path: &Path, len: usize) -> WriteFault {
    let folder = show_path(path);
    let size = show_bytes(len as u64);
    let (cause, text, fatal) = match error.kind() {
        io::ErrorKind::StorageFull if lacks_inodes(path) => (
            "disk-full",
            format!("not written to {folder}: {NO_INODES}"),
            true,
        ),
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

    fn write(out: &mut OutFolder, name: &str, bytes: &[u8]) -> Result<Stamp, WriteFault> {
        let output = Output {
            bytes,
            overwrite: true,
            modified: None,
        };
        out.write(Path::new(name), output)
    }

    #[test]
    fn results_replace_old_ones_and_leave_no_temporary_file() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("deep/out");
        let mut out = OutFolder::create(&root, &Stop::default()).unwrap();
        write(&mut out, "x/a.jpg", b"old").unwrap();
        // A run writes each result once.
        let mut out = OutFolder::create(&root, &Stop::default()).unwrap();
        let stamp = write(&mut out, "x/a.jpg", b"newer").unwrap();
        assert_eq!(stamp.len, 5);
        assert_eq!(fs::read(root.join("x/a.jpg")).unwrap(), b"newer");
        assert_eq!(fs::read_dir(root.join("x")).unwrap().count(), 1);
    }

    #[test]
    fn a_link_below_the_folder_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("out");
        let outside = folder.path().join("outside");
        fs::create_dir_all(&outside).unwrap();
        let mut out = OutFolder::create(&root, &Stop::default()).unwrap();
        std::os::unix::fs::symlink(&outside, root.join("sub")).unwrap();
        // Nothing is created behind the link either.
        for name in ["sub/a.jpg", "sub/deeper/a.jpg"] {
            let error = write(&mut out, name, b"x").unwrap_err();
            assert!(!error.fatal);
            let text = &error.fault.text;
            assert!(text.contains("out/sub is a link"), "{text}");
        }
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_that_is_exchanged_fails_its_results() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("out");
        let mut out = OutFolder::create(&root, &Stop::default()).unwrap();
        write(&mut out, "sub/a.jpg", b"x").unwrap();
        let other = folder.path().join("other");
        fs::rename(root.join("sub"), &other).unwrap();
        fs::create_dir(root.join("sub")).unwrap();
        let error = write(&mut out, "sub/b.jpg", b"x").unwrap_err();
        let text = &error.fault.text;
        assert!(
            !error.fatal && text.contains("out/sub is no longer"),
            "{text}"
        );
        fs::rename(&root, folder.path().join("gone")).unwrap();
        let error = write(&mut out, "c.jpg", b"x").unwrap_err();
        let text = &error.fault.text;
        assert!(error.fatal && text.contains("out is no longer"), "{text}");
    }

    #[test]
    fn an_input_is_not_replaced_whatever_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let input = folder.path().join("input.jpg");
        fs::write(&input, b"mine").unwrap();
        let mut out = OutFolder::create(&folder.path().join("out"), &Stop::default()).unwrap();
        out.protect(identity(&input));
        fs::hard_link(&input, folder.path().join("out/a.jpg")).unwrap();
        let error = write(&mut out, "a.jpg", b"x").unwrap_err();
        assert_eq!(error.fault.cause, "name-conflict");
        assert_eq!(fs::read(folder.path().join("out/a.jpg")).unwrap(), b"mine");
    }

    /// On a file system that ignores case, two names lead to one file.
    #[test]
    fn a_result_does_not_replace_another_one_of_the_same_run() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("out");
        let mut out = OutFolder::create(&root, &Stop::default()).unwrap();
        write(&mut out, "A.jpg", b"first").unwrap();
        fs::hard_link(root.join("A.jpg"), root.join("a.jpg")).unwrap();
        let error = write(&mut out, "a.jpg", b"second").unwrap_err();
        assert_eq!(
            (error.fault.cause.as_ref(), error.fatal),
            ("name-conflict", false)
        );
        assert_eq!(fs::read(root.join("A.jpg")).unwrap(), b"first");
    }

    /// Hard links are made by users, and by programs that deduplicate files.
    #[test]
    fn hard_linked_results_are_replaced_one_by_one() {
        let folder = tempfile::tempdir().unwrap();
        let kept = folder.path().join("kept.jpg");
        fs::write(&kept, b"same").unwrap();
        fs::hard_link(&kept, folder.path().join("stale.jpg")).unwrap();
        let mut out = OutFolder::create(folder.path(), &Stop::default()).unwrap();
        let stamp = Stamp::of(&kept.metadata().unwrap());
        out.keep([(Path::new("kept.jpg"), &stamp)].into_iter());
        write(&mut out, "stale.jpg", b"newer").unwrap();
        assert_eq!(fs::read(&kept).unwrap(), b"same");
        let upper = folder.path().join("KEPT.jpg");
        fs::hard_link(&kept, &upper).unwrap();
        let error = write(&mut out, "KEPT.jpg", b"other").unwrap_err();
        assert_eq!(error.fault.cause, "name-conflict");
    }

    #[test]
    fn a_file_being_written_does_not_count_as_left_behind() {
        let folder = tempfile::tempdir().unwrap();
        let mut out = OutFolder::create(folder.path(), &Stop::default()).unwrap();
        let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(7200);
        let root = Arc::clone(out.root());
        let count = || fs::read_dir(folder.path()).unwrap().count();
        let write = |file: File| {
            file.set_modified(long_ago)?;
            root.remove_leftovers();
            let kept = count();
            // Without the lock, the file is as if its writer had been killed.
            drop(file);
            root.remove_leftovers();
            Ok((kept, count()))
        };
        let counts = out
            .writer
            .with_temporary(&root, write, |_, counts| Ok(counts));
        assert_eq!(counts.unwrap(), (1, 0));
    }

    #[test]
    fn a_folder_with_the_name_of_a_result_is_one_failure() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("out");
        fs::create_dir_all(root.join("a.jpg/inside")).unwrap();
        let mut out = OutFolder::create(&root, &Stop::default()).unwrap();
        let error = write(&mut out, "a.jpg", b"x").unwrap_err();
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
