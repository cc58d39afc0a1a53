//! Names and source lines of code in ELF files, read from the files.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use addr2line::gimli::{self, EndianSlice, RunTimeEndian};
use object::{Object, ObjectSection, ObjectSegment, ObjectSymbol, SymbolKind};

/// Largest file that is read.
const LARGEST: u64 = 1 << 30;
/// Max entries of the cache.
const MAX_KNOWN: usize = 4096;

/// A function at an address, and the line there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Symbol {
    /// Its name, demangled.
    pub function: Option<String>,
    /// The source file.
    pub file: Option<String>,
    /// The line, from 1.
    pub line: Option<u32>,
}

type Key = (PathBuf, u64);
/// What is known: the same crashes recur, and reading a file is slow.
static KNOWN: Mutex<Option<HashMap<Key, Arc<[Symbol]>>>> = Mutex::new(None);

/// The functions at each of these offsets of a file, the innermost first: several where functions were inlined, none
/// where nothing is known.
///
/// The path may come from a hostile process: only regular ELF files are read, and nothing is mapped, since a mapped file
/// may be truncated.
pub fn resolve(path: &Path, offsets: &[u64]) -> Vec<Arc<[Symbol]>> {
    let known = |offset: &u64| {
        let known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        known.as_ref()?.get(&(path.to_owned(), *offset)).cloned()
    };
    let mut found: Vec<_> = offsets.iter().map(known).collect();
    if found.iter().any(Option::is_none) {
        let data = read(path).unwrap_or_default();
        // The parsers are not trusted with any file.
        let named = catch_unwind(AssertUnwindSafe(|| name(&data, offsets)));
        let named = named.ok().flatten().unwrap_or_default();
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.get_or_insert_default();
        if known.len() + offsets.len() > MAX_KNOWN {
            known.clear();
        }
        for (at, &offset) in offsets.iter().enumerate() {
            let symbols: Arc<[Symbol]> = named.get(at).cloned().unwrap_or_default().into();
            known.insert((path.to_owned(), offset), Arc::clone(&symbols));
            found[at] = Some(symbols);
        }
    }
    found.into_iter().map(Option::unwrap_or_default).collect()
}

/// Reads a regular ELF file.
fn read(path: &Path) -> Option<Vec<u8>> {
    let open = || -> std::io::Result<File> {
        let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
        OpenOptions::new().read(true).custom_flags(flags).open(path)
    };
    let mut file = open().ok()?;
    let meta = file.metadata().ok()?;
    if !meta.is_file() || meta.len() > LARGEST {
        return None;
    }
    let mut data = vec![0; 4];
    file.read_exact(&mut data).ok()?;
    if data != b"\x7fELF" {
        return None;
    }
    let rest = meta.len().saturating_sub(4);
    file.take(rest).read_to_end(&mut data).ok()?;
    Some(data)
}

fn name(data: &[u8], offsets: &[u64]) -> Option<Vec<Vec<Symbol>>> {
    let object = object::File::parse(data).ok()?;
    let endian = match object.is_little_endian() {
        true => RunTimeEndian::Little,
        false => RunTimeEndian::Big,
    };
    let section = |id: gimli::SectionId| -> Result<_, gimli::Error> {
        let data = object
            .section_by_name(id.name())
            .and_then(|section| section.data().ok());
        Ok(EndianSlice::new(data.unwrap_or_default(), endian))
    };
    let lines = gimli::Dwarf::load(section).ok();
    let lines = lines.and_then(|dwarf| addr2line::Context::from_dwarf(dwarf).ok());
    let named = offsets.iter().map(|&offset| {
        let Some(address) = address_of(&object, offset) else {
            return Vec::new();
        };
        let mut symbols = lines
            .as_ref()
            .map_or_else(Vec::new, |lines| inlined(lines, address));
        // Without debug information of functions, the symbol table knows the outermost.
        let has_name = symbols.last().is_some_and(|last| last.function.is_some());
        if !has_name && let Some(function) = function_at(&object, address) {
            match symbols.last_mut() {
                Some(last) => last.function = Some(function),
                None => symbols.push(Symbol {
                    function: Some(function),
                    ..Symbol::default()
                }),
            }
        }
        symbols
    });
    Some(named.collect())
}

/// The address, as its linker sees it, of this byte of the file.
fn address_of(object: &object::File<'_>, offset: u64) -> Option<u64> {
    object.segments().find_map(|segment| {
        let (start, len) = segment.file_range();
        let at = offset.checked_sub(start).filter(|&at| at < len)?;
        segment.address().checked_add(at)
    })
}

/// The functions at an address by debug information.
fn inlined(
    lines: &addr2line::Context<EndianSlice<'_, RunTimeEndian>>,
    address: u64,
) -> Vec<Symbol> {
    let mut symbols = Vec::new();
    let Ok(mut frames) = lines.find_frames(address).skip_all_loads() else {
        return symbols;
    };
    while let Ok(Some(frame)) = frames.next() {
        let function = frame.function.and_then(|function| {
            let name = function.demangle().ok()?;
            Some(name.into_owned())
        });
        let location = frame.location;
        symbols.push(Symbol {
            function,
            file: location
                .as_ref()
                .and_then(|location| location.file.map(str::to_owned)),
            line: location.and_then(|location| location.line),
        });
    }
    symbols
}

/// The function at an address by the symbol tables.
fn function_at(object: &object::File<'_>, address: u64) -> Option<String> {
    let symbols = object.symbols().chain(object.dynamic_symbols());
    let inside = symbols.filter(|symbol| {
        let at = address.checked_sub(symbol.address());
        symbol.kind() == SymbolKind::Text
            && symbol.is_definition()
            && at.is_some_and(|at| at < symbol.size())
    });
    let name = inside.max_by_key(ObjectSymbol::address)?.name().ok()?;
    Some(addr2line::demangle_auto(Cow::Borrowed(name), None).into_owned())
}
