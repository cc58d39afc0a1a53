//! A folder with an open descriptor. Files and folders below it are reached from the descriptor, and never through a
//! link.
//!
//! Another program may rename folders and replace them by links at any moment. Each system call that takes a path looks
//! the path up again, while a descriptor always refers to the same folder. So a program that checks a path and then
//! writes to it may write elsewhere. A program is safe if it opens a folder, checks the open folder, and then uses only
//! single names in it.
//!
//! Links in the path of [`Folder::open`] are followed, because the user has written that path.
//!
//! A file is written under a temporary name and then renamed. Killed runs leave such files; later runs remove them. A
//! run has a `flock` on each temporary file until the file is renamed or removed. A file counts as left behind if it
//! has such a name, was not written to for an hour, and is not locked. The lock alone is not sufficient: there is a
//! moment before it is taken, and on some file systems locks only apply to one machine. Process ids in names are not
//! used, because containers may share a folder. On a file system without locks nothing is removed.

use std::ffi::{CStr, OsStr, OsString};
use std::fmt;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use rustix::fs::{RenameFlags, renameat_with};

use crate::text::show_path;

/// A folder with an open descriptor.
#[derive(Debug)]
pub(crate) struct Folder {
    /// Opened with `O_PATH`, which requires no permission to list the folder.
    fd: OwnedFd,
    /// The path, for messages.
    path: PathBuf,
}

/// The metadata of what a name in a folder refers to: a file, a folder, or a link itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry(FileStat);

/// The age from which on a temporary file may be left behind, in nanoseconds: an hour, which is far more than writing a
/// file takes.
const OLD: i128 = 60 * 60 * 1_000_000_000;

/// Device and inode: equal for all names of a file.
pub(crate) type Identity = (u64, u64);

/// The flags with which folders are opened.
const FOLDER: OFlag = OFlag::O_PATH
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_CLOEXEC);

impl Folder {
    /// Opens the folder at `path`. Follows links.
    pub(crate) fn open(path: &Path) -> io::Result<Folder> {
        let name = match path.as_os_str().is_empty() {
            true => Path::new("."),
            false => path,
        };
        Ok(Folder {
            fd: nix::fcntl::open(name, FOLDER, Mode::empty())?,
            path: path.to_owned(),
        })
    }

    /// Opens a folder below this one. Follows no links.
    pub(crate) fn below(&self, relative: &Path) -> io::Result<Folder> {
        self.open_below(relative, false)
    }

    /// Like [`below`](Self::below), but creates missing folders.
    pub(crate) fn create_below(&self, relative: &Path) -> io::Result<Folder> {
        self.open_below(relative, true)
    }

    fn open_below(&self, relative: &Path, create: bool) -> io::Result<Folder> {
        let plain = plain(relative)?;
        let fd = match plain.as_os_str().is_empty() {
            true => self.fd.try_clone()?,
            // If Linux refuses the single call, or lacks it (before 5.6), the walk succeeds or returns the error.
            false => match self.resolve(&plain) {
                Ok(fd) => fd,
                Err(_) => self.walk(&plain, create)?,
            },
        };
        Ok(Folder {
            fd,
            path: self.path.join(plain),
        })
    }

    /// Opens a folder below this one in a single system call.
    fn resolve(&self, plain: &Path) -> nix::Result<OwnedFd> {
        let inside = ResolveFlag::RESOLVE_BENEATH
            | ResolveFlag::RESOLVE_NO_SYMLINKS
            | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        openat2(
            &self.fd,
            plain,
            OpenHow::new().flags(FOLDER).resolve(inside),
        )
    }

    /// Opens a folder below this one, each component from the descriptor of the previous one.
    fn walk(&self, plain: &Path, create: bool) -> io::Result<OwnedFd> {
        let mut at = self.fd.try_clone()?;
        let mut path = self.path.clone();
        for part in plain {
            path.push(part);
            let open = || openat(&at, part, FOLDER | OFlag::O_NOFOLLOW, Mode::empty());
            let opened = match open() {
                Err(Errno::ENOENT) if create => {
                    match mkdirat(&at, part, Mode::from_bits_truncate(0o777)) {
                        Ok(()) | Err(Errno::EEXIST) => open(),
                        Err(error) => Err(error),
                    }
                }
                opened => opened,
            };
            let is_link = || stat(&at, part).is_ok_and(|entry| entry.is_link());
            at = match opened {
                Ok(fd) => fd,
                Err(Errno::ENOTDIR | Errno::ELOOP) if is_link() => {
                    return Err(io::Error::other(format!(
                        "{} is a link, and links are not followed here; replace it by a folder or a mount",
                        show_path(&path)
                    )));
                }
                Err(error) => return Err(error.into()),
            };
        }
        Ok(at)
    }

    /// Returns the path for messages.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns device and inode of the folder. They do not change while the folder is open.
    pub(crate) fn identity(&self) -> io::Result<Identity> {
        Ok(Entry(fstat(&self.fd)?).identity())
    }

    /// Returns `false` if the folder was removed.
    pub(crate) fn exists(&self) -> io::Result<bool> {
        Ok(fstat(&self.fd)?.st_nlink > 0)
    }

    /// Returns the entry of this name. If the name is that of a link, returns the link itself.
    pub(crate) fn entry(&self, name: &OsStr) -> io::Result<Entry> {
        Ok(stat(&self.fd, single(name)?)?)
    }

    /// Returns the entry at this path below the folder. Follows no links.
    pub(crate) fn entry_below(&self, relative: &Path) -> io::Result<Entry> {
        let name = relative.file_name().unwrap_or_default();
        let parent = relative.parent().unwrap_or(Path::new(""));
        match parent.as_os_str().is_empty() {
            true => self.entry(name),
            false => self.below(parent)?.entry(name),
        }
    }

    /// Returns the names in the folder, including `.` and `..`, for which `is_wanted` returns true.
    pub(crate) fn names(&self, is_wanted: impl Fn(&str) -> bool) -> io::Result<Vec<OsString>> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let mut listing = Dir::openat(&self.fd, ".", flags, Mode::empty())?;
        let names = listing.iter().flatten().filter_map(|entry| {
            let name: &CStr = entry.file_name();
            let name = OsStr::from_bytes(name.to_bytes());
            name.to_str()
                .is_some_and(&is_wanted)
                .then(|| name.to_owned())
        });
        Ok(names.collect())
    }

    /// Opens an existing regular file. Does not wait for the other end of a pipe.
    pub(crate) fn open_file(&self, name: &OsStr, access: OFlag) -> io::Result<File> {
        let flags = access | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let opened = openat(
            &self.fd,
            single(name)?,
            flags | OFlag::O_CLOEXEC,
            Mode::empty(),
        );
        let file = match opened {
            // ELOOP: a link. ENXIO: a pipe without a reader.
            Err(Errno::ELOOP | Errno::ENXIO) => return Err(not_a_file()),
            opened => File::from(opened?),
        };
        match file.metadata()?.is_file() {
            true => Ok(file),
            false => Err(not_a_file()),
        }
    }

    fn rename_by(&self, from: &OsStr, to: &OsStr, how: RenameFlags) -> nix::Result<()> {
        renameat_with(&self.fd, from, &self.fd, to, how)
            .map_err(|error| Errno::from_raw(error.raw_os_error()))
    }

    /// Removes a file or a link.
    pub(crate) fn remove(&self, name: &OsStr) -> io::Result<()> {
        Ok(unlinkat(
            &self.fd,
            single(name)?,
            UnlinkatFlags::NoRemoveDir,
        )?)
    }

    /// Removes temporary files that killed runs have left, if permissions allow it.
    pub(crate) fn remove_leftovers(&self) {
        for name in self.names(Temporary::is_name).unwrap_or_default() {
            self.remove_if_left(&name);
        }
    }

    fn remove_if_left(&self, name: &OsStr) -> Option<()> {
        self.entry(name).ok().filter(Entry::is_old)?;
        // Some file systems lock only files that are open for writing.
        let file = self.open_file(name, OFlag::O_RDWR).ok()?;
        file.try_lock().ok()?;
        // The open and locked file may have been renamed since.
        let locked = Entry::of(&file).ok().filter(Entry::is_old)?.identity();
        let same = self
            .entry(name)
            .is_ok_and(|entry| entry.identity() == locked);
        same.then(|| self.remove(name).ok()).flatten()
    }
}

/// Returns whether results may not have this name, because it begins like the names of records and temporary files.
/// Ignores case, as some file systems do, and characters that are not displayed.
pub(crate) fn is_reserved(name: &OsStr) -> bool {
    let text = name.to_string_lossy();
    // U+017F becomes an s on file systems that ignore case.
    let plain = text.chars().map(|c| if c == '\u{17f}' { 's' } else { c });
    let plain: String = plain.filter(char::is_ascii).collect();
    plain.to_ascii_lowercase().starts_with(".arenite-")
}

/// A file that this program has created under a temporary name.
#[derive(Clone, Debug)]
pub(crate) struct Temporary {
    folder: Arc<Folder>,
    name: OsString,
    identity: Identity,
}

impl Temporary {
    /// Returns the name of a temporary file of this process. `what` is a number, or begins with
    /// [`RECORD`](Self::RECORD).
    pub(crate) fn name(what: impl fmt::Display) -> String {
        format!(".arenite-{}-{what}.tmp", std::process::id())
    }

    /// Distinguishes the temporary file of the record from those of results.
    pub(crate) const RECORD: &str = "record";

    fn is_name(name: &str) -> bool {
        let numbers = name
            .strip_prefix(".arenite-")
            .and_then(|rest| rest.strip_suffix(".tmp"));
        let parts = numbers.and_then(|numbers| numbers.split_once('-'));
        let digits =
            |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        parts.is_some_and(|(process, what)| {
            digits(process) && (digits(what) || what.starts_with(Temporary::RECORD))
        })
    }

    /// Creates the file, opens it with this access and locks it. Its mode is that of any new file, subject to the
    /// umask.
    pub(crate) fn create(
        folder: &Arc<Folder>,
        name: &str,
        access: OFlag,
    ) -> io::Result<(Temporary, File)> {
        let name = OsString::from(name);
        let flags = access | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mode = Mode::from_bits_truncate(0o666);
        let file = File::from(openat(&folder.fd, single(&name)?, flags, mode)?);
        // On a file system without locks `remove_leftovers` gets no lock either, so the file is safe.
        let _ = file.try_lock();
        let identity = Entry::of(&file)?.identity();
        let temporary = Temporary {
            folder: Arc::clone(folder),
            name,
            identity,
        };
        Ok((temporary, file))
    }

    /// Removes the file if it still has its temporary name.
    pub(crate) fn remove(&self) {
        if self.is_at(&self.name).is_ok() {
            let _ = self.folder.remove(&self.name);
        }
    }

    /// Renames the file to `name`. If a file has that name, `may_replace` decides whether the file may be replaced. It
    /// decides again after the two files have exchanged their names, because another program may have replaced the old
    /// file in between. If the second answer is no, the exchange is undone.
    ///
    /// # Errors
    ///
    /// The errors of `may_replace` and of Linux. The file then keeps its temporary name, unless another program renames
    /// it.
    pub(crate) fn place<E: From<io::Error>>(
        &self,
        name: &OsStr,
        may_replace: impl Fn(&Entry) -> Result<(), E>,
    ) -> Result<Entry, E> {
        /// The maximum number of tries. If they do not suffice, another program keeps creating and removing the file.
        const ATTEMPTS: usize = 100;
        let judge = |old: &Entry| match old.is_folder() {
            true => Err(io::Error::from(Errno::EISDIR).into()),
            false => may_replace(old),
        };
        let rename_by = |how| self.folder.rename_by(&self.name, name, how);
        single(name)?;
        for _ in 0..ATTEMPTS {
            match rename_by(RenameFlags::NOREPLACE) {
                Ok(()) => return Ok(self.is_at(name).inspect_err(|_| self.undo(name))?),
                Err(Errno::EEXIST) => {}
                Err(error) if is_unsupported(error) => return self.place_plainly(name, judge),
                Err(error) => return Err(io::Error::from(error).into()),
            }
            match self.folder.entry(name) {
                Ok(old) => judge(&old)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error.into()),
            }
            match rename_by(RenameFlags::EXCHANGE) {
                Ok(()) => {
                    let placed = self.is_at(name);
                    if let Err(refused) = judge(&self.folder.entry(&self.name)?) {
                        rename_by(RenameFlags::EXCHANGE).map_err(io::Error::from)?;
                        return Err(refused);
                    }
                    self.folder.remove(&self.name)?;
                    // If `placed` is an error, another program has replaced the new file. Do not move that program's
                    // file: it may be an input.
                    return Ok(placed?);
                }
                Err(Errno::ENOENT) => {}
                Err(error) if is_unsupported(error) => return self.place_plainly(name, judge),
                Err(error) => return Err(io::Error::from(error).into()),
            }
        }
        Err(io::Error::from(Errno::EBUSY).into())
    }

    /// Undoes the rename to `name`, if another program had put a file of its own at the temporary name.
    fn undo(&self, name: &OsStr) {
        let how = RenameFlags::NOREPLACE;
        let _ = self.folder.rename_by(name, &self.name, how);
    }

    /// Does what [`place`](Self::place) does on file systems, such as NFS, that support only the plain rename: `judge`
    /// is called only before the rename.
    fn place_plainly<E: From<io::Error>>(
        &self,
        name: &OsStr,
        judge: impl Fn(&Entry) -> Result<(), E>,
    ) -> Result<Entry, E> {
        if let Ok(old) = self.folder.entry(name) {
            judge(&old)?;
        }
        let renamed = renameat(&self.folder.fd, &*self.name, &self.folder.fd, name);
        renamed.map_err(io::Error::from)?;
        Ok(self.is_at(name)?)
    }

    /// Returns the entry of the file if the file has this name, otherwise an error.
    fn is_at(&self, name: &OsStr) -> io::Result<Entry> {
        match self.folder.entry(name)? {
            entry if entry.identity() == self.identity => Ok(entry),
            _ => Err(io::Error::other("another program has replaced it")),
        }
    }
}

impl Entry {
    pub(crate) fn of(file: &File) -> io::Result<Entry> {
        Ok(Entry(fstat(file)?))
    }

    /// Returns device and inode of the entry.
    pub(crate) fn identity(&self) -> Identity {
        (self.0.st_dev, self.0.st_ino)
    }

    pub(crate) fn is_file(&self) -> bool {
        self.is(SFlag::S_IFREG)
    }

    fn is_folder(&self) -> bool {
        self.is(SFlag::S_IFDIR)
    }

    fn is_link(&self) -> bool {
        self.is(SFlag::S_IFLNK)
    }

    pub(crate) fn is_socket(&self) -> bool {
        self.is(SFlag::S_IFSOCK)
    }

    fn is(&self, kind: SFlag) -> bool {
        SFlag::from_bits_truncate(self.0.st_mode) & SFlag::S_IFMT == kind
    }

    /// Returns whether the file has other names.
    pub(crate) fn has_other_names(&self) -> bool {
        self.0.st_nlink > 1
    }

    /// Returns the length in bytes.
    pub(crate) fn len(&self) -> u64 {
        self.0.st_size.unsigned_abs()
    }

    /// Returns the time of the last change, in nanoseconds since 1970.
    pub(crate) fn modified(&self) -> i128 {
        i128::from(self.0.st_mtime) * 1_000_000_000 + i128::from(self.0.st_mtime_nsec)
    }

    /// Returns whether the file was not written to for an hour.
    fn is_old(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok();
        let now = now.and_then(|now| i128::try_from(now.as_nanos()).ok());
        now.is_some_and(|now| now - self.modified() > OLD)
    }
}

fn stat(folder: &OwnedFd, name: &OsStr) -> nix::Result<Entry> {
    fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW).map(Entry)
}

/// Returns the path without `.` components. Fails if another component is not a name.
fn plain(relative: &Path) -> io::Result<PathBuf> {
    let parts = relative.components();
    let named = |part| match part {
        Component::Normal(name) => Some(Ok(name)),
        Component::CurDir => None,
        _ => Some(Err(io::Error::from(Errno::EINVAL))),
    };
    parts.filter_map(named).collect()
}

/// Returns the name if it refers to an entry of the folder itself, otherwise an error.
fn single(name: &OsStr) -> io::Result<&OsStr> {
    match name.as_bytes() {
        b"" | b"." | b".." => Err(Errno::EINVAL.into()),
        bytes if bytes.contains(&b'/') => Err(Errno::EINVAL.into()),
        _ => Ok(name),
    }
}

/// Returns whether the error means that a file system, or a filter of system calls, does not support the flags of a
/// rename.
fn is_unsupported(error: Errno) -> bool {
    matches!(
        error,
        Errno::EINVAL | Errno::ENOSYS | Errno::ENOTSUP | Errno::EPERM
    )
}

fn not_a_file() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "it is a link, or not a file")
}

/// Metadata that identifies a file, and that changes when the file is changed.
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

/// Returns device and inode of an existing file. Follows links.
pub(crate) fn identity(file: &Path) -> Option<Identity> {
    Some(Stamp::of(&fs::metadata(file).ok()?).identity())
}

/// Returns the absolute path of a file that may not exist yet. Links in the path of its folder are resolved.
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

/// Returns whether two paths lead to the same existing file.
pub(crate) fn is_same(one: &Path, other: &Path) -> bool {
    one.canonicalize()
        .is_ok_and(|one| other.canonicalize().is_ok_and(|other| one == other))
}

#[cfg(test)]
mod tests;
