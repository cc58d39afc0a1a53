//! Finds the inputs: files, folders, globs and lists.
//!
//! Each input carries the relative path of its result below the output folder:
//!
//! | given as | relative path |
//! |---|---|
//! | a folder | below that folder |
//! | a glob | below its literal prefix, the components before the first with `*`, `?` or `[` |
//! | a file on the command line | the file's name |
//! | a file in a list, with a relative path without `..` | that path |
//! | any other file in a list | the file's name |
//!
//! With `--base`, the relative path of each input is its path below that folder.
//!
//! A walk skips the output folder. If a shell's `*` names the output folder among other inputs, the folder is skipped
//! too. As the only input, or as the start of a glob, the output folder is an error.
//!
//! A walk takes files that look like pictures by name or content, and only counts other files. A file given by name is
//! always an input: if it cannot be read, that is an error. Links to files are followed. Links to folders are followed
//! only if they are named, as an input or in the literal prefix of a glob.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf, absolute};

use arenite_image::{Format, PROBE_BYTES, probe, readable_format};
use clap::ValueEnum;
use walkdir::{DirEntry, WalkDir};

use super::outcome::Fault;
use super::pattern::{Exclusion, Glob, foreign, is_hidden, is_pattern};
use crate::folder::{Stamp, identity, location};
use crate::text::{reason, show_path};

/// A picture, or a file that was expected to be one.
#[derive(Debug)]
pub(crate) struct Input {
    pub path: PathBuf,
    /// The path of the result below the output folder, with the extension of the input. Never empty, never with `..`.
    pub relative: PathBuf,
    pub content: Result<(Format, Stamp), Fault>,
}

/// The inputs found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// In the order of the command line. Inputs from folders and globs are sorted by name.
    pub inputs: Vec<Input>,
    /// The number of skipped files that are not pictures, plus the number of links to folders.
    pub others: u64,
    /// The number of links to folders in `others`.
    pub links: u64,
    /// The number of hidden files and folders skipped.
    pub hidden: u64,
    /// The number of files and folders that `--exclude` left out, plus the number of folders that other programs fill.
    pub excluded: u64,
    /// The output folder, if it was named among the inputs.
    pub left_out: Option<PathBuf>,
}

impl Found {
    /// Returns a note about how raw files of cameras are processed, if any were found.
    pub(crate) fn raw_note(&self) -> Option<String> {
        let is_raw = |input: &&Input| matches!(input.content, Ok((Format::CameraRaw, _)));
        match self.inputs.iter().filter(is_raw).count() {
            0 => None,
            1 => Some(
                "1 raw file of a camera: its largest preview is taken (--raw preview)".to_owned(),
            ),
            more => Some(format!(
                "{more} raw files of cameras: the largest preview of each is taken (--raw preview)"
            )),
        }
    }

    /// Returns the reason why there is nothing to do. `None` if at least one input exists, readable or not.
    pub(crate) fn nothing_found(&self) -> Option<String> {
        let exists =
            |input: &Input| !matches!(&input.content, Err(fault) if fault.cause == "not-found");
        if self.inputs.iter().any(exists) {
            return None;
        }
        let others = match self.others - self.links {
            0 => None,
            1 => Some("1 file is not an image".to_owned()),
            more => Some(format!("{more} files are not images")),
        };
        let links = match self.links {
            0 => None,
            1 => Some("1 is a link to a folder".to_owned()),
            more => Some(format!("{more} are links to folders")),
        };
        let links = links.map(|links| format!("{links} (followed only if named as inputs)"));
        let hidden = match self.hidden {
            0 => None,
            1 => Some("1 is hidden".to_owned()),
            more => Some(format!("{more} are hidden")),
        };
        let excluded = match self.excluded {
            0 => None,
            1 => Some("1 is excluded".to_owned()),
            more => Some(format!("{more} are excluded")),
        };
        let why = others.into_iter().chain(links).chain(hidden);
        let why: Vec<String> = why.chain(excluded).collect();
        Some(match why.is_empty() {
            true => "no input found".to_owned(),
            false => format!("no input found: {}", why.join(", ")),
        })
    }
}

/// An error that prevents the run.
#[derive(Debug)]
pub(crate) enum SetupError {
    /// The only input, or the start of a glob, is the output folder.
    InputIsOutput(PathBuf),
    /// The list on stdin could not be read.
    Stdin(io::Error),
}

impl std::fmt::Display for SetupError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            SetupError::InputIsOutput(path) => write!(
                f,
                "{}: the input folder is the output folder; use another --out",
                show_path(path)
            ),
            SetupError::Stdin(error) => {
                write!(f, "the list on stdin cannot be read: {}", reason(error))
            }
        }
    }
}

/// The inputs as named on the command line.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub inputs: &'a [OsString],
    /// Whether the list on stdin is separated by NUL instead of line breaks.
    pub null: bool,
    /// The folder of `--base`, if the user names one.
    pub base: Option<&'a Path>,
    /// The values of `--exclude`.
    pub exclude: &'a [Exclusion],
    /// How raw files of cameras are processed.
    pub raw: Raw,
    /// The output folder, if there is one. It may not exist yet. Walks skip it.
    pub out: Option<&'a Path>,
}

/// The byte-order mark, in UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Finds all inputs and reads the first bytes of each; decodes nothing.
pub(crate) fn find(request: &Request<'_>, stdin: &mut dyn Read) -> Result<Found, SetupError> {
    let mut finder = Finder {
        request,
        out_identity: None,
        found: Found::default(),
    };
    let mut listed = false;
    for input in request.inputs {
        if input == "-" {
            finder.list(stdin, request.null)?;
            listed = true;
        } else {
            finder.argument(input)?;
        }
    }
    if request.null && !listed {
        finder.list(stdin, true)?;
    }
    match finder.found.left_out.take() {
        Some(out) if finder.found.inputs.is_empty() => Err(SetupError::InputIsOutput(out)),
        left_out => Ok(Found {
            left_out,
            ..finder.found
        }),
    }
}

struct Finder<'a> {
    request: &'a Request<'a>,
    /// Device and inode of the output folder. `None` until the folder exists: another run may create it at any time.
    out_identity: Option<(u64, u64)>,
    found: Found,
}

impl Finder<'_> {
    /// Adds an argument of the command line. If a file with exactly this name exists, the argument is not a glob.
    fn argument(&mut self, input: &OsStr) -> Result<(), SetupError> {
        let path = Path::new(input);
        let is_missing = fs::symlink_metadata(path).is_err();
        if is_missing && is_pattern(input) {
            return self.glob(path);
        } else if is_missing && let Some(hint) = foreign(input) {
            let fault = Fault::new("not-found", format!("no such file or folder; {hint}"));
            self.push(path.to_owned(), relative_of(path), Err(fault));
        } else {
            self.named(path, name_of);
        }
        Ok(())
    }

    fn list(&mut self, stdin: &mut dyn Read, null: bool) -> Result<(), SetupError> {
        let mut text = Vec::new();
        stdin.read_to_end(&mut text).map_err(SetupError::Stdin)?;
        let end = if null { 0 } else { b'\n' };
        let first = text.split(|byte| *byte == end).next().unwrap_or_default();
        // Some programs begin a text with a byte-order mark. It is removed unless it is part of an existing name.
        let text = match text.strip_prefix(BYTE_ORDER_MARK) {
            Some(rest) if !exists(first) => rest,
            _ => &text,
        };
        for name in text
            .split(|byte| *byte == end)
            .filter(|name| !name.is_empty())
        {
            let name = match name.strip_suffix(b"\r") {
                Some(line) if !null && !exists(name) && (line.is_empty() || exists(line)) => line,
                _ => name,
            };
            if !name.is_empty() {
                self.named(Path::new(OsStr::from_bytes(name)), relative_of);
            }
        }
        Ok(())
    }

    /// Adds a file or folder by its name. `relative` returns the default path of the result, if it is a file.
    fn named(&mut self, path: &Path, relative: fn(&Path) -> PathBuf) {
        let meta = fs::metadata(path);
        let is_folder = meta.as_ref().is_ok_and(Metadata::is_dir);
        let mut exclude = self.request.exclude.iter();
        if exclude.any(|exclusion| exclusion.matches_within(path, is_folder)) {
            self.found.excluded += 1;
            return;
        }
        match meta {
            Ok(meta) if meta.is_dir() && self.is_out(path) => {
                self.found.left_out = Some(path.to_owned());
            }
            Ok(meta) if meta.is_dir() => self.folder(path, path),
            Ok(meta) => {
                let content = look(path, &meta).and_then(|(kind, stamp)| match kind {
                    Kind::Other => {
                        Err(Fault::new("not-an-image", "not an image of a known format"))
                    }
                    kind => readable(kind, self.request.raw).map(|format| (format, stamp)),
                });
                self.push(path.to_owned(), relative(path), content);
            }
            Err(_) if path.as_os_str().as_bytes().contains(&0) => {
                let why = "not a file name: it contains NUL; use -0 for a list separated by NUL";
                self.push(
                    path.to_owned(),
                    relative(path),
                    Err(Fault::new("read", why)),
                );
            }
            Err(error) => {
                let fault = Fault::read(path, &error);
                self.push(path.to_owned(), relative(path), Err(fault));
            }
        }
    }

    /// Adds the files below `root`. The paths of their results are relative to `base`.
    fn folder(&mut self, root: &Path, base: &Path) {
        if self.is_out(root) {
            return;
        }
        let mut walk = walk(root);
        while let Some(entry) = walk.next() {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    self.unreadable(&error, root, base);
                    continue;
                }
            };
            if is_hidden(entry.file_name()) {
                self.found.hidden += 1;
                if entry.file_type().is_dir() {
                    walk.skip_current_dir();
                }
            } else if self.is_excluded(&entry, root) {
                if entry.file_type().is_dir() {
                    walk.skip_current_dir();
                }
            } else if entry.file_type().is_dir() {
                if self.is_out(entry.path()) {
                    walk.skip_current_dir();
                }
            } else {
                self.walked(entry.path(), base);
            }
        }
    }

    /// Returns whether an entry of a walk from `root` is left out, and counts the entry if it is.
    fn is_excluded(&mut self, entry: &DirEntry, root: &Path) -> bool {
        let (path, is_folder) = (entry.path(), entry.file_type().is_dir());
        let below = path.strip_prefix(root).unwrap_or(path);
        let mut exclude = self.request.exclude.iter();
        let is_excluded = is_folder && is_foreign_folder(path)
            || exclude.any(|exclusion| exclusion.matches(below, is_folder));
        self.found.excluded += u64::from(is_excluded);
        is_excluded
    }

    /// Returns whether a folder is the output folder. Reads the folder's metadata instead of taking the
    /// inode from the listing: for a mount point, that is the inode of the folder that the mount covers.
    fn is_out(&mut self, folder: &Path) -> bool {
        self.out_identity = self.out_identity.or_else(|| identity(self.request.out?));
        self.out_identity.is_some() && identity(folder) == self.out_identity
    }

    /// Adds a failure for an entry that a walk could not read.
    fn unreadable(&mut self, error: &walkdir::Error, root: &Path, base: &Path) {
        let path = error.path().unwrap_or(root).to_owned();
        let fault = match error.io_error() {
            Some(error) => Fault::read(&path, error),
            None => Fault::new("read", error.to_string()),
        };
        let relative = below(&path, base);
        self.push(path, relative, Err(fault));
    }

    /// Adds a file of a walk if its name or content is that of a picture. Otherwise counts it.
    fn walked(&mut self, path: &Path, base: &Path) {
        let content = match fs::metadata(path) {
            // A link to a folder.
            Ok(meta) if meta.is_dir() => {
                self.found.others += 1;
                self.found.links += 1;
                return;
            }
            Ok(meta) => look(path, &meta),
            Err(error) => Err(Fault::read(path, &error)),
        };
        let content = match content {
            Ok((Kind::Other, _)) => {
                self.found.others += 1;
                return;
            }
            Ok((kind, stamp)) => readable(kind, self.request.raw).map(|format| (format, stamp)),
            Err(_) if !Kind::expected(path) => {
                self.found.others += 1;
                return;
            }
            Err(fault) => Err(fault),
        };
        self.push(path.to_owned(), below(path, base), content);
    }

    fn glob(&mut self, pattern: &Path) -> Result<(), SetupError> {
        let mut why = match Glob::new(pattern) {
            Err(why) => format!("no such file, and not a valid glob: {why}"),
            Ok(glob) => {
                if self.matching(&glob)? {
                    return Ok(());
                }
                "no file matches".to_owned()
            }
        };
        if let Some(hint) = foreign(pattern.as_os_str()) {
            why.push_str("; ");
            why.push_str(hint);
        }
        let fault = Fault::new("not-found", why);
        self.push(pattern.to_owned(), relative_of(pattern), Err(fault));
        Ok(())
    }

    /// Adds the files that match. Returns `false` if there are none.
    fn matching(&mut self, glob: &Glob) -> Result<bool, SetupError> {
        let prefix = glob.prefix();
        let current = Path::new(".");
        let root = if prefix == Path::new("") {
            current
        } else {
            prefix
        };
        if !root.is_dir() {
            return Ok(false);
        }
        if self.is_out(root) {
            return Err(SetupError::InputIsOutput(root.to_owned()));
        }
        // The state of the glob in each folder from the prefix to the current folder.
        let mut folders = vec![glob.start()];
        if glob.matches(&folders[0], true) {
            self.folder(root, prefix);
            return Ok(true);
        }
        let mut any = false;
        let mut walk = walk(root);
        while let Some(entry) = walk.next() {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    any = true;
                    self.unreadable(&error, root, prefix);
                    continue;
                }
            };
            folders.truncate(entry.depth());
            let reached = glob.enter(&folders[entry.depth() - 1], entry.file_name());
            let is_folder = entry.file_type().is_dir();
            let matches = glob.matches(&reached, is_folder);
            any |= matches;
            if self.is_excluded(&entry, root) {
                if is_folder {
                    walk.skip_current_dir();
                }
                continue;
            }
            let path = entry.path();
            // Remove the `./` that the user has not written.
            let path = path.strip_prefix(current).unwrap_or(path);
            if matches && is_folder {
                // Add the whole folder: the glob cannot match more in it.
                self.folder(path, prefix);
                walk.skip_current_dir();
            } else if matches {
                self.walked(path, prefix);
            } else if is_folder && (reached.is_dead_end() || self.is_out(path)) {
                walk.skip_current_dir();
            } else if is_folder {
                folders.push(reached);
            }
        }
        Ok(any)
    }

    fn push(&mut self, path: PathBuf, relative: PathBuf, content: Result<(Format, Stamp), Fault>) {
        let (relative, content) = match self
            .request
            .base
            .map(|base| (base, below_base(&path, base)))
        {
            None => (relative, content),
            Some((_, Some(below))) => (below, content),
            Some((base, None)) => {
                let text = format!("not written: it is not below {} (--base)", show_path(base));
                let outside = Err(Fault::new("name-conflict", text));
                (relative, content.and(outside))
            }
        };
        self.found.inputs.push(Input {
            path,
            relative,
            content,
        });
    }
}

/// Names of folders for thumbnails, deleted files and the like. Such a folder is left out if it is in another folder.
/// Hidden folders are always left out.
const FOREIGN: [&str; 7] = [
    "@eaDir",
    "@Recycle",
    "#recycle",
    "$RECYCLE.BIN",
    "System Volume Information",
    "lost+found",
    "__MACOSX",
];

/// Returns whether a folder with this name is left out if it is in another folder.
fn is_foreign_folder(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    FOREIGN.iter().any(|foreign| name == *foreign)
}

/// Returns the format of one file, and its stamp.
pub(crate) fn picture(path: &Path, raw: Raw) -> Result<(Format, Stamp), Fault> {
    let meta = fs::metadata(path).map_err(|error| Fault::read(path, &error))?;
    let (kind, stamp) = look(path, &meta)?;
    Ok((readable(kind, raw)?, stamp))
}

/// Returns whether a file with exactly this name exists.
fn exists(name: &[u8]) -> bool {
    fs::symlink_metadata(OsStr::from_bytes(name)).is_ok()
}

fn readable(kind: Kind, raw: Raw) -> Result<Format, Fault> {
    match kind {
        Kind::Readable(format @ Format::CameraRaw) if raw == Raw::Refuse => {
            Err(Fault::unsupported(format.name()))
        }
        Kind::Readable(format) => Ok(format),
        Kind::Foreign(name) => Err(Fault::unsupported(name)),
        Kind::Empty => Err(Fault::damage("not-an-image", "the file is empty")),
        Kind::Misnamed | Kind::Other => Err(Fault::damage(
            "not-an-image",
            "not an image: its first bytes are of no known format",
        )),
    }
}

/// Opens a regular file and reads its first bytes.
fn look(path: &Path, meta: &Metadata) -> Result<(Kind, Stamp), Fault> {
    if !meta.is_file() {
        // Opening a pipe would block until it has a writer.
        return Err(Fault::new("read", "cannot be read: not a regular file"));
    }
    let failed = |error| Fault::read(path, &error);
    let mut file = File::open(path).map_err(failed)?;
    let stamp = file
        .metadata()
        .map(|meta| Stamp::of(&meta))
        .map_err(failed)?;
    let mut head = Vec::with_capacity(PROBE_BYTES);
    file.by_ref()
        .take(PROBE_BYTES as u64)
        .read_to_end(&mut head)
        .map_err(failed)?;
    Ok((Kind::of(path, &head), stamp))
}

/// Walks `root`, sorted by name. Follows no links to folders except `root` itself.
fn walk(root: &Path) -> walkdir::IntoIter {
    WalkDir::new(root)
        .min_depth(1)
        .sort_by_file_name()
        .into_iter()
}

/// Returns `path` relative to `base`; either may start with `./`.
fn below(path: &Path, base: &Path) -> PathBuf {
    let plain = |path: &Path| -> PathBuf {
        path.components()
            .filter(|part| *part != Component::CurDir)
            .collect()
    };
    match plain(path).strip_prefix(plain(base)) {
        Ok(rest) if !rest.as_os_str().is_empty() => rest.to_owned(),
        _ => relative_of(path),
    }
}

/// Returns the path of a file relative to a folder that contains it: according to the two paths as written, otherwise
/// after resolving links.
fn below_base(path: &Path, base: &Path) -> Option<PathBuf> {
    let inside = |rest: &Path| {
        let mut parts = rest.components();
        parts.all(|part| matches!(part, Component::Normal(_))) && !rest.as_os_str().is_empty()
    };
    let below = |path: PathBuf, base: PathBuf| {
        let rest = path.strip_prefix(base).ok()?;
        inside(rest).then(|| rest.to_owned())
    };
    let by_words = below(absolute(path).ok()?, absolute(base).ok()?);
    by_words.or_else(|| below(location(path), base.canonicalize().ok()?))
}

/// Returns the name of a file, or a substitute if the path ends without a name.
fn name_of(path: &Path) -> PathBuf {
    let name = path.file_name().map(PathBuf::from);
    name.unwrap_or_else(|| PathBuf::from("unnamed"))
}

/// Returns the default path of the result for a file in a list.
fn relative_of(path: &Path) -> PathBuf {
    let inside = path
        .components()
        .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if inside {
        path.components()
            .filter(|part| *part != Component::CurDir)
            .collect()
    } else {
        name_of(path)
    }
}

// ---- Kinds of files -----------------------------------------------------------------------------

/// The kind of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A picture in a supported format.
    Readable(Format),
    /// A picture in an unsupported format, with the name of the format.
    Foreign(&'static str),
    /// The name is that of a picture, the content is not.
    Misnamed,
    /// An empty file with the name of a picture.
    Empty,
    /// Neither the name nor the content is that of a picture.
    Other,
}

/// What to do with raw files of cameras.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Raw {
    /// Take the largest preview in the file (NEF, CR2, CR3, ARW, DNG, RAF, RW2, ORF)
    Preview,
    /// Report them as unsupported
    Refuse,
}

impl Kind {
    /// Decides by the first [`PROBE_BYTES`] bytes. The name is used only if they are ambiguous: most camera raw files
    /// begin like TIFF, with a thumbnail instead of the picture, and TGA has no signature.
    pub(crate) fn of(path: &Path, head: &[u8]) -> Kind {
        match (probe(head), named(path)) {
            (Some(Format::Tiff), Some(raw @ Format::CameraRaw)) => Kind::Readable(raw),
            (Some(Format::Tiff), Some(raw @ Format::OtherRaw)) => Kind::Foreign(raw.name()),
            (None, Some(tga @ Format::Tga)) if readable_format(head) == Ok(tga) => {
                Kind::Readable(tga)
            }
            (Some(format), _) if format.is_readable() => Kind::Readable(format),
            (Some(format), _) => Kind::Foreign(format.name()),
            (None, Some(format)) if !format.is_readable() => Kind::Foreign(format.name()),
            (None, Some(_)) if head.is_empty() => Kind::Empty,
            (None, Some(_)) => Kind::Misnamed,
            (None, None) => Kind::Other,
        }
    }

    /// Returns whether the name is that of a picture, so that a failure to open the file is an error.
    pub(crate) fn expected(path: &Path) -> bool {
        named(path).is_some()
    }
}

fn extension(path: &Path) -> &str {
    path.extension().and_then(OsStr::to_str).unwrap_or_default()
}

fn named(path: &Path) -> Option<Format> {
    Format::from_extension(extension(path))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn a_file_in_a_list_keeps_its_relative_path_unless_it_leads_out() {
        let cases = [
            ("a.jpg", "a.jpg"),
            ("./a.jpg", "a.jpg"),
            ("x/./y/a.jpg", "x/y/a.jpg"),
            ("../a.jpg", "a.jpg"),
            ("x/../y/a.jpg", "a.jpg"),
            ("/data/x/a.jpg", "a.jpg"),
        ];
        for (path, relative) in cases {
            assert_eq!(relative_of(Path::new(path)), Path::new(relative), "{path}");
        }
    }

    #[test]
    fn a_path_is_that_below_the_base_or_none() {
        let folder = tempfile::tempdir().unwrap();
        let real = folder.path().join("real");
        fs::create_dir_all(real.join("x")).unwrap();
        std::os::unix::fs::symlink(&real, folder.path().join("link")).unwrap();
        for (path, base, below) in [
            ("/data/x/a.jpg", "/data", Some("x/a.jpg")),
            ("/data/x/a.jpg", "/data/x/", Some("a.jpg")),
            ("/data/x/a.jpg", "/dat", None),
            ("x/./a.jpg", "./x", Some("a.jpg")),
            ("/data", "/data", None),
            ("/data/../b.jpg", "/data", None),
        ] {
            let found = below_base(Path::new(path), Path::new(base));
            assert_eq!(found.as_deref(), below.map(Path::new), "{path} {base}");
        }
        let through = folder.path().join("link/x/a.jpg");
        assert_eq!(below_base(&through, &real), Some("x/a.jpg".into()));
    }

    #[test]
    fn a_path_below_a_folder_is_relative_to_it() {
        assert_eq!(
            below(Path::new("photos/x/a.jpg"), Path::new("./photos")),
            Path::new("x/a.jpg")
        );
        assert_eq!(
            below(Path::new("./a.jpg"), Path::new("")),
            Path::new("a.jpg")
        );
        assert_eq!(
            below(Path::new("../p/x/a.jpg"), Path::new("../p")),
            Path::new("x/a.jpg")
        );
    }

    fn of(name: &str, head: &[u8]) -> Kind {
        Kind::of(Path::new(name), head)
    }

    #[test]
    fn the_first_bytes_override_the_extension() {
        assert_eq!(
            of("a.png", b"\xff\xd8\xff\xe0"),
            Kind::Readable(Format::Jpeg)
        );
        assert_eq!(of("a", b"GIF89a...."), Kind::Readable(Format::Gif));
        assert_eq!(
            of("notes.txt", b"RIFF\0\0\0\0WEBPVP8 "),
            Kind::Readable(Format::WebP)
        );
        assert_eq!(
            of("a.heic", b"\0\0\0\x1cftypavif\0\0\0\0mif1miaf"),
            Kind::Readable(Format::Avif)
        );
    }

    #[test]
    fn unsupported_formats_are_named() {
        assert_eq!(of("a.jp2", b""), Kind::Foreign("JPEG 2000"));
        assert_eq!(
            of("a.PEF", b"MM\0*\0\0\0\x08"),
            Kind::Foreign("other camera raw")
        );
        assert_eq!(
            of("a.cr3", b"\0\0\0\x18ftypcrx "),
            Kind::Readable(Format::CameraRaw)
        );
        assert_eq!(
            of("a.dng", b"\xff\xd8\xff\xe0"),
            Kind::Readable(Format::Jpeg)
        );
        assert_eq!(of("a.psd", b""), Kind::Foreign("PSD"));
        assert_eq!(of("notes", b"%PDF-1.4"), Kind::Foreign("PDF"));
        assert_eq!(of("scan.hdr", b"ENVI\ndescription"), Kind::Other);
        assert_eq!(of("a.mov", b"\0\0\0\x14ftypqt  \0\0\0\0qt  "), Kind::Other);
    }

    #[test]
    fn tga_is_known_by_its_name_and_its_header() {
        let head = b"\0\0\x02\0\0\0\0\0\0\0\0\0\x30\0\x24\0\x18\0";
        assert_eq!(of("a.TGA", head), Kind::Readable(Format::Tga));
        assert_eq!(of("a.dat", head), Kind::Other);
        assert_eq!(of("a.tga", b"a text of some length"), Kind::Misnamed);
        assert_eq!(
            of("a.tga", b"\xff\xd8\xff\xe0"),
            Kind::Readable(Format::Jpeg)
        );
    }

    #[test]
    fn a_file_named_like_a_picture_is_not_skipped() {
        assert_eq!(of("a.JPG", b""), Kind::Empty);
        assert_eq!(of("a.tif", b"<html>"), Kind::Misnamed);
        assert_eq!(of("a.txt", b""), Kind::Other);
        assert!(Kind::expected(Path::new("x/a.JPeG")));
        assert!(Kind::expected(Path::new("x/a.avif")));
        assert!(Kind::expected(Path::new("x/a.DNG")));
        assert!(!Kind::expected(Path::new("x/jpg")));
    }
}
