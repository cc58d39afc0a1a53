//! Reads the names and source lines of code from ELF files.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use addr2line::gimli::{self, EndianSlice, RunTimeEndian, SectionId};
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use object::{Object, ObjectSection, ObjectSegment, ObjectSymbol, ReadCache, SymbolKind};

/// Max size in bytes of a file that is read, and of all that is read for one stack.
const LARGEST: u64 = 1 << 30;
/// Max number of cached addresses, whether a symbol was found for them or not.
const MAX_KNOWN: usize = 4096;
/// Max number of units of debug information: a unit is a source file or part of a crate. Parsing takes a kilobyte of
/// memory for each, and a file of 12 MB may announce a million. Large programs have about ten thousand.
const MAX_UNITS: usize = 1 << 16;
/// Max number of functions, inlined into each other, that are returned for one address.
const MAX_INLINED: usize = 64;
/// Max length in bytes of a name.
const LONGEST_NAME: usize = 1024;

/// A function at an address, and its source line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Symbol {
    /// The name of the function, demangled.
    pub function: Option<String>,
    /// The source file.
    pub file: Option<String>,
    /// The line, from 1.
    pub line: Option<u32>,
}

/// The number of bytes of files that may still be read.
#[derive(Debug)]
pub struct Budget(Cell<u64>);

impl Budget {
    /// Returns the budget for one stack.
    pub fn new() -> Self {
        Self(Cell::new(LARGEST))
    }

    fn left(&self) -> u64 {
        self.0.get()
    }

    fn spend(&self, bytes: u64) -> io::Result<()> {
        let left = self.left().checked_sub(bytes);
        self.0.set(left.unwrap_or(0));
        left.map(drop)
            .ok_or_else(|| io::Error::other("a file with too many names"))
    }
}

/// Identifies the content of a file, which changes when a library is built again: device, inode, length, and time of
/// the last write in seconds and nanoseconds.
type Content = (u64, u64, u64, i64, i64);
type Known = HashMap<(Content, u64), Arc<[Symbol]>>;
/// Caches symbols, because reading a file is slow and the same crashes recur.
static KNOWN: Mutex<Option<Known>> = Mutex::new(None);

/// Returns the functions at each of these offsets of a file, the innermost first. An offset has several functions if
/// functions were inlined, and none if no function is found.
///
/// The path may come from a hostile process. So only regular ELF files are opened, and only the parts with names and
/// lines are read, within the budget. Files are not mapped, because a mapped file may be truncated.
pub fn resolve(path: &Path, offsets: &[u64], budget: &Budget) -> Vec<Arc<[Symbol]>> {
    let Some((file, content)) = open(path) else {
        return vec![Arc::default(); offsets.len()];
    };
    let known = |offset: &u64| {
        let known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        known.as_ref()?.get(&(content, *offset)).cloned()
    };
    let mut found: Vec<_> = offsets.iter().map(known).collect();
    if found.iter().any(Option::is_none) {
        // A panic of the parsers must not propagate: the file may be made to cause one.
        let named = catch_unwind(AssertUnwindSafe(|| name(file, offsets, budget)));
        let mut named = named.ok().flatten().unwrap_or_default();
        named.resize(offsets.len(), Vec::new());
        if budget.left() == 0 {
            // Not cached, because the budget may suffice for more at the next call.
            return named.into_iter().map(Arc::from).collect();
        }
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.get_or_insert_default();
        let entries = |symbols: &[Symbol]| symbols.len().max(1);
        let before: usize = known.values().map(|symbols| entries(symbols)).sum();
        let added: usize = named.iter().map(|symbols| entries(symbols)).sum();
        if before + added > MAX_KNOWN {
            known.clear();
        }
        for ((found, symbols), &offset) in found.iter_mut().zip(named).zip(offsets) {
            let symbols = found.insert(symbols.into());
            known.insert((content, offset), Arc::clone(symbols));
        }
    }
    found.into_iter().map(Option::unwrap_or_default).collect()
}

/// Opens a regular ELF file.
fn open(path: &Path) -> Option<(File, Content)> {
    // The file of the running program, even if it was moved or deleted.
    let program = Path::new("/proc/self/exe");
    let is_own = |own: &Path| {
        let (own, path) = (own.as_os_str().as_bytes(), path.as_os_str().as_bytes());
        // The worker may have read its maps before the file was deleted, without the suffix.
        own == path || own.strip_suffix(b" (deleted)") == Some(path)
    };
    let path = match fs::read_link(program) {
        Ok(own) if is_own(&own) => program,
        _ => path,
    };
    // Opening a device may have effects, so first open only the path and check its kind. `OpenOptions` drop `O_PATH` on
    // musl.
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    let place = File::from(nix::fcntl::open(path, flags, Mode::empty()).ok()?);
    let meta = place.metadata().ok()?;
    if !meta.is_file() || meta.len() > LARGEST {
        return None;
    }
    let by_number = format!("/proc/self/fd/{}", place.as_raw_fd());
    let mut options = OpenOptions::new();
    let mut file = options
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(by_number)
        .ok()?;
    let mut magic = [0; 4];
    file.read_exact(&mut magic).ok()?;
    let content = (
        meta.dev(),
        meta.ino(),
        meta.len(),
        meta.mtime(),
        meta.mtime_nsec(),
    );
    (magic == *b"\x7fELF").then_some((file, content))
}

/// A file from which no more is read than the budget allows.
#[derive(Debug)]
struct Limited<'a> {
    file: File,
    budget: &'a Budget,
}

impl Read for Limited<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.budget.spend(into.len() as u64)?;
        self.file.read(into)
    }
}

impl Seek for Limited<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

type ElfFile<'a> = object::File<'a, &'a ReadCache<Limited<'a>>>;
type Lines<'a> = addr2line::Context<EndianSlice<'a, RunTimeEndian>>;

fn name(file: File, offsets: &[u64], budget: &Budget) -> Option<Vec<Vec<Symbol>>> {
    let content = ReadCache::new(Limited { file, budget });
    let object = ElfFile::parse(&content).ok()?;
    let lines = lines_of(&object, budget);
    let addresses = offsets.iter().map(|&offset| address_of(&object, offset));
    let addresses: Vec<_> = addresses.collect();
    let mut named: Vec<Vec<Symbol>> = addresses
        .iter()
        .map(|address| match (address, &lines) {
            (&Some(address), Some(lines)) => inlined(lines, address),
            _ => Vec::new(),
        })
        .collect();
    // If debug information has no function names, the symbol table has the name of the outermost function.
    let has_name = |symbols: &[Symbol]| {
        let last = symbols.last();
        last.is_some_and(|last| last.function.is_some())
    };
    let unnamed = named.iter_mut().zip(addresses);
    let unnamed = unnamed.filter(|(symbols, _)| !has_name(symbols));
    let mut unnamed: Vec<_> = unnamed
        .filter_map(|(symbols, address)| Some((address?, symbols)))
        .collect();
    let functions = functions_at(&object, unnamed.iter().map(|&(address, _)| address));
    for ((_, symbols), function) in unnamed.iter_mut().zip(functions) {
        match (symbols.last_mut(), function) {
            (Some(last), function) => last.function = function,
            (None, None) => {}
            (None, function) => symbols.push(Symbol {
                function,
                ..Symbol::default()
            }),
        }
    }
    Some(named)
}

/// Returns the debug information, unless there is none, or it is compressed, too long, or has too many units.
fn lines_of<'a>(object: &ElfFile<'a>, budget: &Budget) -> Option<Lines<'a>> {
    /// The sections that are needed.
    const WANTED: [SectionId; 11] = [
        SectionId::DebugAbbrev,
        SectionId::DebugAddr,
        SectionId::DebugAranges,
        SectionId::DebugInfo,
        SectionId::DebugLine,
        SectionId::DebugLineStr,
        SectionId::DebugRanges,
        SectionId::DebugRngLists,
        SectionId::DebugStr,
        SectionId::DebugStrOffsets,
        SectionId::DebugTypes,
    ];
    let endian = match object.is_little_endian() {
        true => RunTimeEndian::Little,
        false => RunTimeEndian::Big,
    };
    let find = |id: SectionId| {
        let section = object.section_by_name(id.name())?;
        let range = section.compressed_file_range().ok()?;
        (range.format == object::CompressionFormat::None).then_some(section)
    };
    let needed = WANTED.iter().filter_map(|&id| Some(find(id)?.size()));
    let needed = needed.fold(0, u64::saturating_add);
    // The symbol tables also need a part of the budget.
    if needed > budget.left() / 4 * 3 {
        return None;
    }
    let section = |id: SectionId| -> Result<_, gimli::Error> {
        let wanted = WANTED.contains(&id).then(|| find(id)).flatten();
        let data = wanted.and_then(|section| section.data().ok());
        Ok(EndianSlice::new(data.unwrap_or_default(), endian))
    };
    let dwarf = gimli::Dwarf::load(section).ok()?;
    // Reads only the headers of units.
    let mut units = dwarf.units();
    for number in 0.. {
        match units.next().ok()? {
            Some(_) if number < MAX_UNITS => {}
            Some(_) => return None,
            None => break,
        }
    }
    addr2line::Context::from_dwarf(dwarf).ok()
}

/// Returns the address that the linker gave to byte `offset` of the file.
fn address_of(object: &ElfFile<'_>, offset: u64) -> Option<u64> {
    object.segments().find_map(|segment| {
        let (start, len) = segment.file_range();
        let at = offset.checked_sub(start).filter(|&at| at < len)?;
        segment.address().checked_add(at)
    })
}

/// Returns the functions at an address, from debug information.
fn inlined(lines: &Lines<'_>, address: u64) -> Vec<Symbol> {
    let mut symbols = Vec::new();
    let Ok(mut frames) = lines.find_frames(address).skip_all_loads() else {
        return symbols;
    };
    while symbols.len() < MAX_INLINED
        && let Ok(Some(frame)) = frames.next()
    {
        let function = frame
            .function
            .and_then(|function| Some(shortened(function.demangle().ok()?)));
        let location = frame.location;
        symbols.push(Symbol {
            function,
            file: location
                .as_ref()
                .and_then(|location| Some(shortened(location.file?.into()))),
            line: location.and_then(|location| location.line),
        });
    }
    symbols
}

/// Returns the functions at these addresses, from the symbol tables.
fn functions_at(object: &ElfFile<'_>, addresses: impl Iterator<Item = u64>) -> Vec<Option<String>> {
    // The innermost function that contains an address is the one that begins last.
    let mut found: Vec<_> = addresses.map(|address| (address, None)).collect();
    if found.is_empty() {
        return Vec::new();
    }
    for symbol in object.symbols().chain(object.dynamic_symbols()) {
        if symbol.kind() != SymbolKind::Text || !symbol.is_definition() {
            continue;
        }
        let (start, size) = (symbol.address(), symbol.size());
        for (address, best) in &mut found {
            let is_inside = address.checked_sub(start).is_some_and(|at| at < size);
            if is_inside && best.as_ref().is_none_or(|(other, _)| *other < start) {
                *best = Some((start, symbol.name().ok()));
            }
        }
    }
    let name = |(_, best): (u64, Option<(u64, Option<&str>)>)| {
        let name = best?.1?;
        Some(shortened(addr2line::demangle_auto(name.into(), None)))
    };
    found.into_iter().map(name).collect()
}

/// Truncates a name to [`LONGEST_NAME`] bytes.
fn shortened(name: Cow<'_, str>) -> String {
    match name.len() <= LONGEST_NAME {
        true => name.into_owned(),
        false => format!("{}…", &name[..name.floor_char_boundary(LONGEST_NAME)]),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    /// Builds a library with this one function. Returns the byte of the file where it begins.
    fn build(library: &Path, function: &str) -> u64 {
        let source = library.with_extension("c");
        fs::write(&source, format!("int {function}(void) {{ return 7; }}")).unwrap();
        let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
        let mut compiler = std::process::Command::new(compiler);
        compiler.args(["-g", "-O1", "-shared", "-fPIC", "-o"]);
        let built = compiler.arg(library).arg(&source).status().unwrap();
        assert!(built.success());
        let data = fs::read(library).unwrap();
        let object = object::File::parse(&*data).unwrap();
        let mut symbols = object.symbols();
        let symbol = symbols.find(|symbol| symbol.name() == Ok(function));
        let address = symbol.unwrap().address();
        let mut offsets = object.segments().filter_map(|segment| {
            let at = address.checked_sub(segment.address())?;
            (at < segment.size()).then(|| segment.file_range().0 + at)
        });
        offsets.next().unwrap()
    }

    fn function_at(library: &Path, offset: u64, budget: &Budget) -> Option<String> {
        let symbols = resolve(library, &[offset], budget).remove(0);
        symbols.first()?.function.clone()
    }

    #[test]
    fn a_library_that_was_built_anew_is_read_anew() {
        let folder = tempfile::tempdir().unwrap();
        let library = folder.path().join("lib.so");
        for function in ["before", "after_"] {
            let offset = build(&library, function);
            let symbols = resolve(&library, &[offset], &Budget::new()).remove(0);
            assert_eq!(symbols[0].function.as_deref(), Some(function));
            assert_eq!(symbols[0].line, Some(1));
            assert!(symbols[0].file.as_ref().unwrap().ends_with("lib.c"));
        }
    }

    #[test]
    fn no_more_is_read_than_the_budget_allows() {
        let folder = tempfile::tempdir().unwrap();
        let library = folder.path().join("lib.so");
        let offset = build(&library, "function");
        let small = Budget(Cell::new(2000));
        assert_eq!(function_at(&library, offset, &small), None);
        assert_eq!(small.left(), 0);
        // The failure has not been cached.
        let budget = Budget::new();
        let name = function_at(&library, offset, &budget);
        assert_eq!(name.as_deref(), Some("function"));
        let read = LARGEST - budget.left();
        assert!(read > 2000, "{read}");
        // Cached symbols cost no budget.
        function_at(&library, offset, &budget);
        assert_eq!(LARGEST - budget.left(), read);
        // If the budget does not suffice for lines, functions are still found.
        let less = Budget(Cell::new(read));
        let symbols = name_of(&library, offset, &less);
        assert_eq!(symbols[0].function.as_deref(), Some("function"));
    }

    fn name_of(library: &Path, offset: u64, budget: &Budget) -> Vec<Symbol> {
        let file = File::open(library).unwrap();
        name(file, &[offset], budget).unwrap().remove(0)
    }

    /// Returns a valid ELF file with this number of units of debug information. Each unit has one entry without
    /// attributes.
    fn with_units(units: usize) -> Vec<u8> {
        fn put(file: &mut Vec<u8>, fields: &[(u64, usize)]) {
            for &(value, len) in fields {
                file.extend_from_slice(&value.to_le_bytes()[..len]);
            }
        }
        let names = b"\0.debug_info\0.debug_abbrev\0.names\0";
        let name = |of: &[u8]| {
            let mut at = names.windows(of.len()).enumerate();
            at.find(|(_, part)| *part == of).unwrap().0 as u64
        };
        // Head, and one segment, of code at the addresses from 0 on.
        let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
        let machine = 62;
        put(&mut file, &[(3, 2), (machine, 2), (1, 4), (0, 8), (64, 8)]);
        let sections_at = file.len();
        put(
            &mut file,
            &[
                (0, 8),
                (0, 4),
                (64, 2),
                (56, 2),
                (1, 2),
                (64, 2),
                (4, 2),
                (3, 2),
            ],
        );
        put(
            &mut file,
            &[
                (1, 4),
                (5, 4),
                (0, 8),
                (0, 8),
                (0, 8),
                (1 << 40, 8),
                (1 << 40, 8),
                (4096, 8),
            ],
        );
        let info = file.len() as u64;
        for _ in 0..units {
            // Length, version, abbreviations, bytes of an address, and an entry by the first abbreviation.
            put(&mut file, &[(8, 4), (4, 2), (0, 4), (8, 1), (1, 1)]);
        }
        let abbrev = file.len() as u64;
        // Abbreviation 1: a unit without children and attributes.
        file.extend([1, 0x11, 0, 0, 0, 0]);
        let names_at = file.len() as u64;
        file.extend_from_slice(names);
        let start = file.len() as u64;
        file[sections_at..][..8].copy_from_slice(&start.to_le_bytes());
        file.extend([0; 64]);
        for (name, kind, at, end) in [
            (name(b".debug_info"), 1, info, abbrev),
            (name(b".debug_abbrev"), 1, abbrev, names_at),
            (name(b".names"), 3, names_at, start),
        ] {
            let fields = [(name, 4), (kind, 4), (0, 8), (0, 8), (at, 8), (end - at, 8)];
            put(&mut file, &fields);
            put(&mut file, &[(0, 4), (0, 4), (1, 8), (0, 8)]);
        }
        file
    }

    /// Returns the peak memory of this process in bytes.
    fn peak() -> u64 {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:"));
        let words = line.unwrap().split_ascii_whitespace();
        words.clone().nth(1).unwrap().parse::<u64>().unwrap() << 10
    }

    /// Debug information with very many parts costs little memory, whatever it claims to describe.
    #[test]
    fn a_file_with_many_units_takes_little_memory() {
        let folder = tempfile::tempdir().unwrap();
        for units in [1, MAX_UNITS, 1_000_000] {
            let file = folder.path().join(units.to_string());
            fs::write(&file, with_units(units)).unwrap();
            // What is tested is debug information, not a file that is refused for another reason.
            let data = fs::read(&file).unwrap();
            let object = object::File::parse(&*data).unwrap();
            let info = object.section_by_name(".debug_info").unwrap();
            assert_eq!(info.size(), 12 * units as u64);
            drop(data);
            let before = peak();
            let found = resolve(&file, &[100, 200], &Budget::new());
            assert!(found.iter().all(|symbols| symbols.is_empty()));
            let more = peak() - before;
            assert!(more < 300 << 20, "{units} units took {more} bytes");
        }
    }

    #[test]
    fn long_names_are_truncated() {
        assert_eq!(shortened("short".into()), "short");
        let long = shortened("é".repeat(2000).into());
        assert_eq!(long.len(), LONGEST_NAME + "…".len());
    }
}
