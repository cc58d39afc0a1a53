//! Reads the names and source lines of code from ELF files.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
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
/// functions were inlined, and none if no function is found. The offsets are those of a stack, the innermost first:
/// those that follow the first function that is the `last` of interest are left out, because each may need debug
/// information of another unit.
///
/// The path may come from a hostile process. So only regular ELF files are opened, and only the parts with names and
/// lines are read, within the budget. Files are not mapped, because a mapped file may be truncated.
pub fn resolve(
    path: &Path,
    offsets: &[u64],
    budget: &Budget,
    last: fn(&Symbol) -> bool,
) -> Vec<Arc<[Symbol]>> {
    let Some((file, content)) = open(path) else {
        return Vec::new();
    };
    if let Some(found) = known(content, offsets, last) {
        return found;
    }
    // A panic of the parsers must not propagate: the file may be made to cause one.
    let named = catch_unwind(AssertUnwindSafe(|| name(&file, offsets, budget, last)));
    let named = named.ok().flatten();
    let named = named.unwrap_or_else(|| vec![Vec::new(); offsets.len()]);
    let named: Vec<Arc<[Symbol]>> = named.into_iter().map(Arc::from).collect();
    // Otherwise not cached, because the budget may suffice for more at the next call.
    if budget.left() > 0 {
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.get_or_insert_default();
        let entries = |symbols: &Arc<[Symbol]>| symbols.len().max(1);
        let before: usize = known.values().map(entries).sum();
        let added: usize = named.iter().map(entries).sum();
        if before + added > MAX_KNOWN {
            known.clear();
        }
        let named = named.iter().zip(offsets);
        known.extend(named.map(|(symbols, &offset)| ((content, offset), Arc::clone(symbols))));
    }
    named
}

/// Returns what [`resolve`] returns, if all of it is cached.
fn known(
    content: Content,
    offsets: &[u64],
    last: fn(&Symbol) -> bool,
) -> Option<Vec<Arc<[Symbol]>>> {
    let known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let known = known.as_ref()?;
    let mut found: Vec<Arc<[Symbol]>> = Vec::new();
    for &offset in offsets {
        let symbols = known.get(&(content, offset))?;
        found.push(Arc::clone(symbols));
        if symbols.iter().any(last) {
            break;
        }
    }
    Some(found)
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
    file: &'a File,
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

fn name(
    file: &File,
    offsets: &[u64],
    budget: &Budget,
    last: fn(&Symbol) -> bool,
) -> Option<Vec<Vec<Symbol>>> {
    let content = ReadCache::new(Limited { file, budget });
    let object = ElfFile::parse(&content).ok()?;
    let addresses = offsets.iter().map(|&offset| address_of(&object, offset));
    let mut addresses: Vec<_> = addresses.collect();
    // If debug information has no function names, the symbol table has the name of the outermost function.
    let outermost = functions_at(&object, &addresses);
    let is_last = |symbol: &Symbol| symbol.function.is_some() && last(symbol);
    let end = outermost.iter().position(is_last);
    addresses.truncate(end.map_or(addresses.len(), |end| end + 1));
    let mut sections = read_debug_sections(&object, file, budget).unwrap_or_default();
    let endian = match object.is_little_endian() {
        true => RunTimeEndian::Little,
        false => RunTimeEndian::Big,
    };
    hide_units(&mut sections, endian, &addresses);
    let lines = lines_of(&sections, endian);
    let mut named = Vec::new();
    for (address, outermost) in addresses.into_iter().zip(outermost) {
        let mut symbols = match (address, &lines) {
            (Some(address), Some(lines)) => inlined(lines, address),
            _ => Vec::new(),
        };
        match symbols.last_mut() {
            Some(last) if last.function.is_none() => last.function = outermost.function,
            Some(_) => {}
            None if outermost.function.is_some() => symbols.push(outermost),
            None => {}
        }
        let is_end = symbols.iter().any(last);
        named.push(symbols);
        if is_end {
            break;
        }
    }
    Some(named)
}

/// The debug information of a file, by section.
type Sections = Vec<(SectionId, Vec<u8>)>;

/// Reads the debug information, unless it is compressed or too long.
///
/// Each section is read with one call, into memory that Linux has zeroed: `ReadCache` fills its memory byte by byte
/// before it reads, which takes most of the time in a program that was built without optimisation.
fn read_debug_sections(object: &ElfFile<'_>, file: &File, budget: &Budget) -> Option<Sections> {
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
    let ranges = WANTED.iter().filter_map(|&id| {
        let section = object.section_by_name(id.name())?;
        let range = section.compressed_file_range().ok()?;
        (range.format == object::CompressionFormat::None).then_some((id, range))
    });
    let ranges: Vec<_> = ranges.collect();
    let lengths = ranges.iter().map(|(_, range)| range.uncompressed_size);
    let needed = lengths.fold(0, u64::saturating_add);
    // The symbol tables also need a part of the budget.
    if needed > budget.left() / 4 * 3 {
        return None;
    }
    let sections = ranges.into_iter().map(|(id, range)| {
        budget.spend(range.uncompressed_size).ok()?;
        let mut data = vec![0; usize::try_from(range.uncompressed_size).ok()?];
        file.read_exact_at(&mut data, range.offset).ok()?;
        Some((id, data))
    });
    sections.collect()
}

/// Hides the units of debug information that have none of these addresses, because parsing a unit takes much longer
/// than finding its addresses in `.debug_aranges`.
fn hide_units(sections: &mut Sections, endian: RunTimeEndian, addresses: &[Option<u64>]) {
    let Some(roots) = roots_to_hide(sections, endian, addresses) else {
        return;
    };
    let is_info = |(id, _): &&mut (SectionId, Vec<u8>)| *id == SectionId::DebugInfo;
    let Some((_, info)) = sections.iter_mut().find(is_info) else {
        return;
    };
    for root in roots {
        // `addr2line` skips a unit that has no root.
        info[root] = 0;
    }
}

/// Returns the position of the root of each unit that has none of these addresses. `None` if that is unknown: an
/// address is in no unit of the table, or a unit that has one refers to others, as after optimisation at link time.
fn roots_to_hide(
    sections: &Sections,
    endian: RunTimeEndian,
    addresses: &[Option<u64>],
) -> Option<Vec<usize>> {
    let mut wanted: Vec<_> = addresses.iter().flatten().map(|&at| (at, false)).collect();
    wanted.sort_unstable();
    let data = |id| section(sections, id, endian);
    let aranges = gimli::DebugAranges::from(data(SectionId::DebugAranges));
    let mut is_needed = HashMap::new();
    let mut headers = aranges.headers();
    while let Some(header) = headers.next().ok()? {
        let is_needed = is_needed.entry(header.debug_info_offset()).or_insert(false);
        let mut entries = header.entries();
        while let Some(entry) = entries.next().ok()? {
            let range = entry.range();
            let first = wanted.partition_point(|&(address, _)| address < range.begin);
            let inside = wanted[first..].iter_mut();
            for (_, is_found) in inside.take_while(|(address, _)| *address < range.end) {
                *is_needed = true;
                *is_found = true;
            }
        }
    }
    if !wanted.iter().all(|&(_, is_found)| is_found) {
        return None;
    }
    let abbreviations = gimli::DebugAbbrev::from(data(SectionId::DebugAbbrev));
    let mut units = gimli::DebugInfo::from(data(SectionId::DebugInfo)).units();
    let mut roots = Vec::new();
    while let Some(unit) = units.next().ok()? {
        let offset = unit.debug_info_offset()?;
        match is_needed.get(&offset) {
            Some(false) => roots.push(offset.0 + unit.root_offset().0),
            Some(true) => {
                let known = unit.abbreviations(&abbreviations).ok()?;
                let mut used = (1..).map_while(|code| known.get(code));
                let is_reference = |form| form == gimli::DW_FORM_ref_addr;
                if used.any(|entry| {
                    entry
                        .attributes()
                        .iter()
                        .any(|spec| is_reference(spec.form()))
                }) {
                    return None;
                }
            }
            None => {}
        }
    }
    Some(roots)
}

/// Returns the bytes of a section, or none.
fn section(
    sections: &Sections,
    id: SectionId,
    endian: RunTimeEndian,
) -> EndianSlice<'_, RunTimeEndian> {
    let section = sections.iter().find(|(wanted, _)| *wanted == id);
    let data = section.map(|(_, data)| data.as_slice());
    EndianSlice::new(data.unwrap_or_default(), endian)
}

/// Returns the debug information, unless there is none or it has too many units.
fn lines_of(sections: &Sections, endian: RunTimeEndian) -> Option<Lines<'_>> {
    let load = |id| Ok::<_, gimli::Error>(section(sections, id, endian));
    let dwarf = gimli::Dwarf::load(load).ok()?;
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
fn functions_at(object: &ElfFile<'_>, addresses: &[Option<u64>]) -> Vec<Symbol> {
    // The innermost function that contains an address is the one that begins last.
    let mut found: Vec<_> = addresses.iter().flatten().map(|&at| (at, None)).collect();
    found.sort_unstable_by_key(|&(address, _)| address);
    for symbol in object.symbols().chain(object.dynamic_symbols()) {
        let (start, size) = (symbol.address(), symbol.size());
        let first = found.partition_point(|&(address, _)| address < start);
        let inside = found[first..].iter_mut();
        for (_, best) in inside.take_while(|(address, _)| *address - start < size) {
            if symbol.kind() == SymbolKind::Text
                && symbol.is_definition()
                && best.as_ref().is_none_or(|(other, _)| *other < start)
            {
                *best = Some((start, symbol.name().ok()));
            }
        }
    }
    let name = |&address: &Option<u64>| {
        let at = found.binary_search_by_key(&address?, |&(at, _)| at).ok()?;
        let (_, name) = found[at].1?;
        Some(shortened(addr2line::demangle_auto(name?.into(), None)))
    };
    let symbol = |address| Symbol {
        function: name(address),
        ..Symbol::default()
    };
    addresses.iter().map(symbol).collect()
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
mod tests;
