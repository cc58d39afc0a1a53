//! The record of the results that arenite has made: for `--resume`, and to leave other files alone. It is a hidden text
//! file, `.arenite-resize`, in the output folder. Each shard has its own, `.arenite-resize-<number>-of-<count>`,
//! because machines that append to the same file in a network folder overwrite each other's lines. All records are
//! read. A file of this name that begins differently, or is longer than 1 GiB, is not read.
//!
//! A run appends a line for each result after the result has its final name, and changes nothing else. If it ends at
//! any moment, at most the line of one result is lost; that result is then made again. Invalid lines are skipped. Two
//! runs into the same folder may append at the same time: each line is one write.
//!
//! ```text
//! # arenite resize: what made the files in this folder, for later runs.
//! options 9c41e5d07fa0b3a2 1 size=224x224 fit=contain …
//! file 9c41e5d07fa0b3a2 <length> <time> <input length> <input time> <path>
//! files 9c41e5d07fa0b3a2 <input length> <input time> <name><TAB><length> <time> <width> <height> <path><TAB>…
//! ```
//!
//! The second kind of line has all results of a picture whose names depend on their sides. `<name>` is their path, in
//! which `{width}` and `{height}` are not replaced. Times are nanoseconds since 1970. In paths, `%`, control characters
//! and bytes that are not UTF-8 are written as `%xx`.
//!
//! A result is *fresh*, and skipped, if its last line in any record has the same options; if the result still has its
//! length and time in that line (it was not written since); and if the input still has the input length and input time
//! in that line (it was not replaced by another file). It does not matter which of the two files is older: a camera's
//! clock may be ahead. The results of one line are fresh only together.
//!
//! A file is arenite's [`Own`] if any line has its path, length and time. Later results may replace it. If a record
//! cannot be read, or has invalid lines, errors about other files name that record.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::{File, Permissions};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::OFlag;

use crate::batch::Written;
use crate::batch::plan::Task;
use crate::batch::shard::Shard;
use crate::batch::stop::Stop;
use crate::folder::{Entry, Folder, Stamp, Temporary};

/// The name of the record in the output folder, without the suffix of a shard.
pub(crate) const NAME: &str = ".arenite-resize";

/// The beginning of each record.
const BEGINNING: &[u8] = b"# arenite resize";

/// The maximum length of a record, in bytes: more than ten million results.
const LONGEST: u64 = 1 << 30;

const HEADER: &str = "# arenite resize: what made the files in this folder, for later runs.\n";

/// Identifies a set of options. Equal options have equal fingerprints, in this and in later versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint(u64);

impl Fingerprint {
    /// Returns the FNV-1a hash of the options as text.
    pub(crate) fn of(options: &str) -> Fingerprint {
        let hash = options
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
        Fingerprint(hash)
    }
}

/// The records of earlier runs.
#[derive(Debug, Default)]
pub(crate) struct Records {
    /// For each record, the last note of each result.
    notes: Vec<HashMap<PathBuf, Note>>,
}

#[derive(Debug, PartialEq, Eq)]
struct Note {
    options: Fingerprint,
    input_len: u64,
    input_modified: i128,
    results: Vec<Noted>,
}

#[derive(Debug, PartialEq, Eq)]
struct Noted {
    path: PathBuf,
    len: u64,
    modified: i128,
    sides: Option<[u32; 2]>,
}

impl Records {
    /// Reads the records in `out`.
    pub(crate) fn read(out: &Folder) -> Records {
        let records = out.names(is_name).unwrap_or_default();
        let last = |name: &OsString| notes(&read(out, name).0).collect();
        Records {
            notes: records.iter().map(last).collect(),
        }
    }

    /// Returns the existing results of `task` below `out`, if they are up to date.
    pub(crate) fn fresh(
        &self,
        task: &Task,
        out: &Folder,
        options: Fingerprint,
    ) -> Option<Vec<Written>> {
        let there = |noted: &Noted| {
            let entry = out.entry_below(&noted.path).ok().filter(Entry::is_file)?;
            let stamp = Stamp::of_entry(&entry);
            noted.describes(&stamp).then(|| Written {
                relative: noted.path.clone(),
                output: out.path().join(&noted.path),
                stamp,
                sides: noted.sides,
            })
        };
        let mut noted = self.noted(&task.relative, &task.stamp, options);
        noted.find_map(|results| results.iter().map(there).collect())
    }

    /// Returns the results with this name that were made with these options from this input: one list for each record
    /// that notes such results.
    fn noted(
        &self,
        name: &Path,
        input: &Stamp,
        options: Fingerprint,
    ) -> impl Iterator<Item = &[Noted]> {
        let notes = self.notes.iter().filter_map(move |notes| notes.get(name));
        let (len, modified) = (input.len, input.modified);
        let same = notes.filter(move |note| {
            note.options == options && note.input_len == len && note.input_modified == modified
        });
        same.map(|note| note.results.as_slice())
    }
}

/// The results that earlier runs have made.
#[derive(Debug, Default)]
pub(crate) struct Own {
    hasher: RandomState,
    /// For each result, a hash of path, length and time. A hash suffices, and a record may have millions of results.
    results: HashSet<u64>,
    /// The name of the first record that cannot be read, or has invalid lines.
    damaged: Option<OsString>,
}

impl Own {
    /// Reads the records in `out`.
    pub(crate) fn read(out: &Folder) -> Own {
        let mut own = Own::default();
        for name in out.names(is_name).unwrap_or_default() {
            let (text, is_whole) = read(out, &name);
            if !is_whole || has_invalid_lines(&text) {
                own.damaged.get_or_insert(name);
            }
            for (_, note) in notes(&text) {
                for Noted {
                    path,
                    len,
                    modified,
                    ..
                } in note.results
                {
                    own.results.insert(own.key(&path, len, modified));
                }
            }
        }
        own
    }

    /// Returns whether an earlier run made the file with this stamp, at this path below the folder.
    pub(crate) fn has(&self, relative: &Path, stamp: &Stamp) -> bool {
        let key = self.key(relative, stamp.len, stamp.modified);
        self.results.contains(&key)
    }

    /// Returns the name of a record that may lack results, because it is damaged.
    pub(crate) fn damaged(&self) -> Option<&OsStr> {
        self.damaged.as_deref()
    }

    fn key(&self, relative: &Path, len: u64, modified: i128) -> u64 {
        self.hasher.hash_one((relative, len, modified))
    }
}

impl Noted {
    /// Returns whether this note is about the file with this stamp.
    fn describes(&self, stamp: &Stamp) -> bool {
        (self.len, self.modified) == (stamp.len, stamp.modified)
    }
}

/// Returns whether this is the name of a record, of any shard.
fn is_name(name: &str) -> bool {
    let rest = name.strip_prefix(NAME);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

/// Returns the text of a record, and whether all of it was read.
fn read(out: &Folder, name: &OsStr) -> (Vec<u8>, bool) {
    let mut text = Vec::new();
    let file = out.open_file(name, OFlag::O_RDONLY);
    // After an error, the part that was read is used.
    let read = file.and_then(|mut file| read_open(&mut file, &mut text));
    (text, read.is_ok())
}

/// Reads an open record.
///
/// # Errors
///
/// If it does not begin like a record, or is too long for one: then the rest is not read, which may not fit in memory.
fn read_open(file: &mut File, text: &mut Vec<u8>) -> io::Result<()> {
    let invalid = |text: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    file.take(BEGINNING.len() as u64).read_to_end(text)?;
    // An empty record, such as after a crash of the machine, is continued.
    if !text.is_empty() && text != BEGINNING {
        text.clear();
        return invalid("it is not a record of arenite; remove it");
    }
    if file.metadata()?.len() > LONGEST {
        return invalid("it is longer than 1 GiB; remove it");
    }
    file.take(LONGEST).read_to_end(text)?;
    Ok(())
}

/// Returns whether a record has lines that no version has written, or a line that a crash has truncated.
fn has_invalid_lines(text: &[u8]) -> bool {
    let is_valid = |line: &[u8]| {
        let line = line
            .strip_suffix(b"\n")
            .and_then(|line| std::str::from_utf8(line).ok());
        line.is_some_and(|line| {
            let is_other = line.is_empty() || line.starts_with('#') || line.starts_with("options ");
            is_other || parse(line).is_some()
        })
    };
    !text.split_inclusive(|byte| *byte == b'\n').all(is_valid)
}

/// Returns the notes in a record, in the order of its lines, each with the name of its results.
fn notes(text: &[u8]) -> impl Iterator<Item = (PathBuf, Note)> {
    // If the last line has no line break, a crash has truncated it.
    let lines = text
        .split_inclusive(|byte| *byte == b'\n')
        .filter_map(|line| line.strip_suffix(b"\n"));
    lines.filter_map(|line| std::str::from_utf8(line).ok().and_then(parse))
}

/// Appends to the record. The first note opens the file, and creates it if needed.
#[derive(Debug)]
pub(crate) struct Recorder {
    folder: Arc<Folder>,
    name: OsString,
    /// The name of the record's temporary file.
    temporary: String,
    options: String,
    fingerprint: Fingerprint,
    stop: Stop,
    file: Option<File>,
}

impl Recorder {
    /// Returns a recorder for results in `out`.
    pub(crate) fn new(
        out: &Arc<Folder>,
        shard: Option<&Shard>,
        options: String,
        stop: &Stop,
    ) -> Recorder {
        let fingerprint = Fingerprint::of(&options);
        Recorder {
            folder: Arc::clone(out),
            name: format!("{NAME}{}", Shard::suffix(shard)).into(),
            // Shards may run in containers, where their processes may have the same id.
            temporary: Temporary::name(format!("{}{}", Temporary::RECORD, Shard::suffix(shard))),
            options,
            fingerprint,
            stop: stop.clone(),
            file: None,
        }
    }

    /// Appends a note about the results of a task.
    ///
    /// # Errors
    ///
    /// If the record cannot be written. `--resume` makes results without a note again, so it is slower but never wrong.
    pub(crate) fn note(&mut self, task: &Task, results: &[Written]) -> io::Result<()> {
        let line = line(self.fingerprint, task, results);
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let file = self.open()?;
                self.file.insert(file)
            }
        };
        file.write_all(line.as_bytes())
    }

    /// Returns the path of the record.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join(&self.name)
    }

    /// Opens the record for appending, and creates it if needed.
    fn open(&self) -> io::Result<File> {
        /// The maximum number of tries. If they do not suffice, other programs keep replacing the record.
        const ATTEMPTS: usize = 10;
        for _ in 0..ATTEMPTS {
            let access = OFlag::O_RDWR | OFlag::O_APPEND;
            let opened = match self.folder.open_file(&self.name, access) {
                Ok(file) => self.go_on_with(file),
                Err(error) if error.kind() == io::ErrorKind::NotFound => self.begin(),
                Err(error) => return Err(error),
            };
            match opened {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                opened => return opened,
            }
        }
        Err(io::ErrorKind::ResourceBusy.into())
    }

    fn options_line(&self) -> String {
        format!("options {:016x} {}\n", self.fingerprint.0, self.options)
    }

    /// Creates the record. Fails with `AlreadyExists` if the record exists.
    fn begin(&self) -> io::Result<File> {
        let text = format!("{HEADER}{}", self.options_line());
        self.rename_new(text.as_bytes(), None, |_| false)
    }

    /// Continues an existing record. Fails with `AlreadyExists` if another program has replaced it.
    fn go_on_with(&self, mut file: File) -> io::Result<File> {
        let mut old = Vec::new();
        read_open(&mut file, &mut old)?;
        let entry = Entry::of(&file)?;
        // If the file has other names, in a backup for example, it must not change: write a copy.
        let copy = || entry.has_other_names().then(|| old.clone());
        if let Some(kept) = without_history(&old).or_else(copy) {
            // If another run is appending to the old file, its lines are lost; --resume makes those results again.
            let mode = file.metadata()?.permissions();
            let is_old = |found: &Entry| found.identity() == entry.identity();
            file = self.rename_new(&kept, Some(mode), is_old)?;
        }
        let mut start = String::new();
        if old.is_empty() {
            start.push_str(HEADER);
        } else if !old.ends_with(b"\n") {
            // End a line that a crash has truncated.
            start.push('\n');
        }
        let line = self.options_line();
        if !old
            .split_inclusive(|byte| *byte == b'\n')
            .any(|old| old == line.as_bytes())
        {
            start.push_str(&line);
        }
        file.write_all(start.as_bytes())?;
        Ok(file)
    }

    /// Writes a whole record, which may replace a file if `may_replace` allows it. Fails with `AlreadyExists` if the
    /// file must not be replaced.
    fn rename_new(
        &self,
        text: &[u8],
        mode: Option<Permissions>,
        may_replace: impl Fn(&Entry) -> bool,
    ) -> io::Result<File> {
        let make = || {
            // A killed program with the same process id may have left a temporary file.
            let _ = self.folder.remove(self.temporary.as_ref());
            let access = OFlag::O_WRONLY | OFlag::O_APPEND;
            Temporary::create(&self.folder, &self.temporary, access)
        };
        let write = |mut file: File| {
            if let Some(mode) = mode {
                // Keep the mode: other users of the folder may read the record.
                file.set_permissions(mode)?;
            }
            file.write_all(text)?;
            Ok(file)
        };
        let place = |temporary: &Temporary, file: File| {
            let judge = |old: &Entry| match may_replace(old) {
                true => Ok(()),
                false => Err(io::Error::from(io::ErrorKind::AlreadyExists)),
            };
            temporary.place(&self.name, judge)?;
            Ok(file)
        };
        self.stop.guarding(make, write, place)
    }
}

/// Returns the record with only the last of several lines for the same results, if that halves its size.
fn without_history(old: &[u8]) -> Option<Vec<u8>> {
    const SMALL: usize = 64 << 10;
    if old.len() < SMALL {
        return None;
    }
    let lines: Vec<&[u8]> = old
        .split_inclusive(|byte| *byte == b'\n')
        .filter(|line| line.ends_with(b"\n"))
        .collect();
    // The key of a line without a note is the line itself: of equal lines of options, one suffices.
    let key = |line: &'_ [u8]| -> Vec<u8> {
        let note = std::str::from_utf8(line)
            .ok()
            .and_then(|line| parse(line.trim_end_matches('\n')));
        let Some((name, note)) = note else {
            return line.to_vec();
        };
        // Results with the same name but other sides have other paths.
        let paths = note.results.into_iter().map(|noted| noted.path);
        let all: Vec<OsString> = [name].into_iter().chain(paths).map(Into::into).collect();
        all.join(OsStr::new("\0")).into_vec()
    };
    let mut last: HashMap<Vec<u8>, usize> = HashMap::new();
    for (index, line) in lines.iter().enumerate() {
        last.insert(key(line), index);
    }
    let mut kept: Vec<usize> = last.into_values().collect();
    kept.sort_unstable();
    let kept = kept
        .into_iter()
        .flat_map(|index| lines[index])
        .copied()
        .collect::<Vec<u8>>();
    (kept.len() < old.len() / 2).then_some(kept)
}

/// Returns the line for a task whose results have been written.
fn line(options: Fingerprint, task: &Task, results: &[Written]) -> String {
    let Fingerprint(options) = options;
    let (input_len, input_modified) = (task.stamp.len, task.stamp.modified);
    if let (None, [result]) = (&task.several, results) {
        let Stamp { len, modified, .. } = result.stamp;
        let path = escape(&result.relative);
        return format!(
            "file {options:016x} {len} {modified} {input_len} {input_modified} {path}\n"
        );
    }
    let name = escape(&task.relative);
    let mut line = format!("files {options:016x} {input_len} {input_modified} {name}");
    for result in results {
        let Stamp { len, modified, .. } = result.stamp;
        let [width, height] = result.sides.unwrap_or_default();
        let path = escape(&result.relative);
        line.push_str(&format!("\t{len} {modified} {width} {height} {path}"));
    }
    line.push('\n');
    line
}

fn parse(line: &str) -> Option<(PathBuf, Note)> {
    if let Some(line) = line.strip_prefix("files ") {
        return parse_several(line);
    }
    let mut words = line.strip_prefix("file ")?.splitn(6, ' ');
    let options = Fingerprint(u64::from_str_radix(words.next()?, 16).ok()?);
    let (len, modified) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let (input_len, input_modified) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let path = unescape(words.next()?)?;
    let result = Noted {
        path: path.clone(),
        len,
        modified,
        sides: None,
    };
    let note = Note {
        options,
        input_len,
        input_modified,
        results: vec![result],
    };
    Some((path, note))
}

fn parse_several(line: &str) -> Option<(PathBuf, Note)> {
    // Paths contain no tabs: control characters are escaped.
    let mut parts = line.split('\t');
    let mut words = parts.next()?.splitn(4, ' ');
    let options = Fingerprint(u64::from_str_radix(words.next()?, 16).ok()?);
    let (input_len, input_modified) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let name = unescape(words.next()?)?;
    let result = |part: &str| {
        let mut words = part.splitn(5, ' ');
        let (len, modified) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let sides = [words.next()?.parse().ok()?, words.next()?.parse().ok()?];
        Some(Noted {
            path: unescape(words.next()?)?,
            len,
            modified,
            sides: Some(sides),
        })
    };
    let results: Option<Vec<Noted>> = parts.map(result).collect();
    let note = Note {
        options,
        input_len,
        input_modified,
        results: results.filter(|results| !results.is_empty())?,
    };
    Some((name, note))
}

fn escape(path: &Path) -> String {
    let mut text = String::new();
    for chunk in path.as_os_str().as_bytes().utf8_chunks() {
        for c in chunk.valid().chars() {
            if c == '%' || c.is_control() {
                let mut buffer = [0; 4];
                for byte in c.encode_utf8(&mut buffer).bytes() {
                    text.push_str(&format!("%{byte:02x}"));
                }
            } else {
                text.push(c);
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("%{byte:02x}"));
        }
    }
    text
}

fn unescape(text: &str) -> Option<PathBuf> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first == b'%' {
            let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &rest[2..];
        } else {
            bytes.push(first);
        }
    }
    Some(PathBuf::from(OsString::from_vec(bytes)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use arenite_image::Format;

    use super::*;
    use crate::batch::plan::Template;

    const OPTIONS: &str = "1 size=224x224";

    fn open(out: &tempfile::TempDir) -> Arc<Folder> {
        Arc::new(Folder::open(out.path()).unwrap())
    }

    fn stamp(len: u64, modified: i128) -> Stamp {
        Stamp {
            len,
            modified,
            ..Stamp::default()
        }
    }

    fn task(name: &Path, input: &Stamp) -> Task {
        Task {
            relative: name.to_owned(),
            output: name.to_owned(),
            several: None,
            source: Format::Jpeg,
            format: Format::Jpeg,
            stamp: *input,
            fresh: None,
        }
    }

    fn written(path: &Path, stamp: &Stamp) -> Written {
        Written {
            relative: path.to_owned(),
            output: path.to_owned(),
            stamp: *stamp,
            sides: Some([3, 2]),
        }
    }

    fn note(recorder: &mut Recorder, path: &str, result: &Stamp, input: &Stamp) -> io::Result<()> {
        let path = Path::new(path);
        recorder.note(&task(path, input), &[written(path, result)])
    }

    fn is_fresh(
        record: &Records,
        path: &str,
        result: &Stamp,
        input: &Stamp,
        options: Fingerprint,
    ) -> bool {
        let mut noted = record.noted(Path::new(path), input, options);
        noted.any(|results| results.iter().all(|noted| noted.describes(result)))
    }

    #[test]
    fn results_with_several_names_are_fresh_together() {
        let out = tempfile::tempdir().unwrap();
        let input = stamp(9, 1);
        let template: Template = "{stem}-{width}.{ext}".parse().unwrap();
        let name = template.fill(Path::new("x/a\t b.jpg"), Format::Jpeg);
        let several = Task {
            several: Some(name.clone()),
            ..task(&name.path(None), &input)
        };
        let mut results = Vec::new();
        for width in [8, 16] {
            let relative = name.path(Some([width, 5]));
            let output = out.path().join(&relative);
            std::fs::create_dir_all(output.parent().unwrap()).unwrap();
            std::fs::write(&output, "result").unwrap();
            results.push(Written {
                stamp: Stamp::of(&output.metadata().unwrap()),
                sides: Some([width, 5]),
                relative,
                output,
            });
        }
        let mut recorder = Recorder::new(&open(&out), None, OPTIONS.to_owned(), &Stop::default());
        recorder.note(&several, &results).unwrap();
        let options = Fingerprint::of(OPTIONS);
        let fresh = || Records::read(&open(&out)).fresh(&several, &open(&out), options);
        let found = fresh().unwrap();
        let shown = |results: &[Written]| -> Vec<_> {
            results
                .iter()
                .map(|result| (result.output.clone(), result.stamp, result.sides))
                .collect()
        };
        assert_eq!(shown(&found), shown(&results));
        std::fs::remove_file(&results[1].output).unwrap();
        assert!(fresh().is_none());
        assert_eq!(parse("files 00 9 1 a"), None, "no results");
    }

    #[test]
    fn a_result_is_fresh_until_something_changes() {
        let out = tempfile::tempdir().unwrap();
        let path = "x/a b.jpg";
        let (result, input) = (stamp(100, 2_000), stamp(900, 1_000));
        let mut recorder = Recorder::new(&open(&out), None, OPTIONS.to_owned(), &Stop::default());
        note(&mut recorder, path, &result, &input).unwrap();

        let record = Records::read(&open(&out));
        let same = Fingerprint::of(OPTIONS);
        assert!(is_fresh(&record, path, &result, &input, same));
        assert!(
            !is_fresh(
                &record,
                path,
                &result,
                &input,
                Fingerprint::of("1 size=100x100")
            ),
            "other options"
        );
        assert!(
            !is_fresh(&record, path, &stamp(101, 2_000), &input, same),
            "result of another length"
        );
        assert!(
            !is_fresh(&record, path, &stamp(100, 2_001), &input, same),
            "result written by another program"
        );
        assert!(
            !is_fresh(&record, path, &result, &stamp(900, 2_001), same),
            "input newer"
        );
        assert!(
            !is_fresh(&record, path, &result, &stamp(900, 2_000), same),
            "input from the tick of the result"
        );
        assert!(
            !is_fresh(&record, path, &result, &stamp(901, 1_000), same),
            "input of another length"
        );
        assert!(
            !is_fresh(&record, "x/b.jpg", &result, &input, same),
            "never noted"
        );
    }

    #[test]
    fn an_input_with_a_time_in_the_future_is_processed_once() {
        let out = tempfile::tempdir().unwrap();
        let (result, input) = (stamp(5, 1_000), stamp(9, 5_000));
        let mut recorder = Recorder::new(&open(&out), None, OPTIONS.to_owned(), &Stop::default());
        note(&mut recorder, "a", &result, &input).unwrap();
        let record = Records::read(&open(&out));
        assert!(is_fresh(
            &record,
            "a",
            &result,
            &input,
            Fingerprint::of(OPTIONS)
        ));
    }

    #[test]
    fn a_result_with_the_time_of_its_input_is_fresh() {
        let out = tempfile::tempdir().unwrap();
        let both = stamp(5, 1_000);
        let mut recorder = Recorder::new(&open(&out), None, OPTIONS.to_owned(), &Stop::default());
        note(&mut recorder, "a", &both, &both).unwrap();
        assert!(is_fresh(
            &Records::read(&open(&out)),
            "a",
            &both,
            &both,
            Fingerprint::of(OPTIONS)
        ));
    }

    #[test]
    fn the_last_line_of_a_path_counts() {
        let out = tempfile::tempdir().unwrap();
        let (result, input) = (stamp(1, 10), stamp(2, 5));
        for options in ["1 a", "1 b"] {
            let mut recorder =
                Recorder::new(&open(&out), None, options.to_owned(), &Stop::default());
            note(&mut recorder, "f", &result, &input).unwrap();
        }
        let record = Records::read(&open(&out));
        assert!(!is_fresh(
            &record,
            "f",
            &result,
            &input,
            Fingerprint::of("1 a")
        ));
        assert!(is_fresh(
            &record,
            "f",
            &result,
            &input,
            Fingerprint::of("1 b")
        ));
    }

    #[test]
    fn a_torn_line_costs_only_itself() {
        let out = tempfile::tempdir().unwrap();
        let (result, input) = (stamp(1, 10), stamp(2, 5));
        let mut recorder = Recorder::new(&open(&out), None, OPTIONS.to_owned(), &Stop::default());
        note(&mut recorder, "a", &result, &input).unwrap();
        let mut file = File::options()
            .append(true)
            .open(out.path().join(NAME))
            .unwrap();
        file.write_all(b"file 0123 7 8 9").unwrap();
        let mut recorder = Recorder::new(&open(&out), None, OPTIONS.to_owned(), &Stop::default());
        note(&mut recorder, "b", &result, &input).unwrap();
        let record = Records::read(&open(&out));
        let options = Fingerprint::of(OPTIONS);
        assert!(is_fresh(&record, "a", &result, &input, options));
        assert!(is_fresh(&record, "b", &result, &input, options));
        assert_eq!(record.notes[0].len(), 2);
    }

    #[test]
    fn a_record_that_may_lack_results_is_damaged() {
        let out = tempfile::tempdir().unwrap();
        let (result, input) = (stamp(1, 10), stamp(2, 5));
        let mut recorder = Recorder::new(&open(&out), None, OPTIONS.to_owned(), &Stop::default());
        for path in ["a", "b"] {
            note(&mut recorder, path, &result, &input).unwrap();
        }
        let path = out.path().join(NAME);
        let whole = std::fs::read(&path).unwrap();
        let own = || Own::read(&open(&out));
        assert_eq!(own().damaged(), None);
        assert!(own().has(Path::new("b"), &result));
        for (text, has) in [
            (&whole[..whole.len() - 3], [true, false]),
            (&[&whole[..], b"file 0123 7 8 9\n"].concat(), [true, true]),
            (&whole[1..], [false, false]),
        ] {
            std::fs::write(&path, text).unwrap();
            let own = own();
            assert_eq!(own.damaged(), Some(OsStr::new(NAME)));
            assert_eq!(
                ["a", "b"].map(|path| own.has(Path::new(path), &result)),
                has
            );
        }
        std::fs::write(&path, &whole).unwrap();
        // A file without blocks: reading it would take all memory.
        for beginning in [&whole[..], b""] {
            let other = out.path().join(format!("{NAME}-x"));
            std::fs::write(&other, beginning).unwrap();
            File::options()
                .write(true)
                .open(&other)
                .unwrap()
                .set_len(1 << 40)
                .unwrap();
            assert_eq!(own().damaged(), Some(other.file_name().unwrap()));
            assert!(own().has(Path::new("a"), &result));
            assert_eq!(Records::read(&open(&out)).notes.len(), 2);
            std::fs::rename(&other, &path).unwrap();
            let mut recorder =
                Recorder::new(&open(&out), None, OPTIONS.to_owned(), &Stop::default());
            assert!(note(&mut recorder, "c", &result, &input).is_err());
            std::fs::write(&path, &whole).unwrap();
        }
    }

    #[test]
    fn history_is_dropped_once_it_is_most_of_the_record() {
        let out = tempfile::tempdir().unwrap();
        let (result, input) = (stamp(1, 10), stamp(2, 5));
        for round in 0..50 {
            let mut recorder =
                Recorder::new(&open(&out), None, OPTIONS.to_owned(), &Stop::default());
            for index in 0..100 {
                let path = format!("folder/{index}.jpg");
                note(&mut recorder, &path, &result, &input).unwrap();
            }
            // The file that replaces the record keeps its mode.
            let shared = Permissions::from_mode(0o664);
            if round == 0 {
                std::fs::set_permissions(out.path().join(NAME), shared).unwrap();
            }
        }
        let meta = std::fs::metadata(out.path().join(NAME)).unwrap();
        assert_eq!(meta.permissions().mode() & 0o777, 0o664);
        let text = std::fs::read_to_string(out.path().join(NAME)).unwrap();
        assert!(text.len() < 96 << 10, "{} bytes", text.len());
        assert!(text.starts_with(HEADER));
        assert_eq!(text.matches("options ").count(), 1);
        let record = Records::read(&open(&out));
        assert_eq!(record.notes[0].len(), 100);
        assert!(is_fresh(
            &record,
            "folder/99.jpg",
            &result,
            &input,
            Fingerprint::of(OPTIONS)
        ));
        assert_eq!(
            std::fs::read_dir(out.path()).unwrap().count(),
            1,
            "no temporary file is left"
        );
    }

    #[test]
    fn a_record_that_is_a_link_is_not_written_through() {
        let out = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("elsewhere", out.path().join(NAME)).unwrap();
        let mut recorder = Recorder::new(&open(&out), None, OPTIONS.to_owned(), &Stop::default());
        assert!(note(&mut recorder, "a", &stamp(1, 1), &stamp(1, 1)).is_err());
        assert!(!out.path().join("elsewhere").exists());
    }

    #[test]
    fn any_name_can_be_recorded() {
        for name in [
            &b"a b"[..],
            b"100%",
            b"new\nline",
            b"\xff\xfe",
            "grün/塔".as_bytes(),
            b"%zz",
            b" ",
        ] {
            let path = PathBuf::from(OsString::from_vec(name.to_vec()));
            assert_eq!(unescape(&escape(&path)), Some(path));
        }
        assert_eq!(unescape("%"), None);
        assert_eq!(unescape("%é"), None);
    }
}
