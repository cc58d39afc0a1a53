//! The stack of a crash, with names.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use crate::sys::code_maps::CodeMap;
use crate::sys::crash::NotedCrash;
use crate::sys::symbols::{self, Budget, Symbol};
use crate::trace::escape::escape_text;

/// Number of frames in the text of an error.
const SHOWN: usize = 3;
/// Functions in which every kernel and every thread begins. The frames that they call belong to the program.
const BEGINNINGS: [&str; 2] = ["arenite_runs_kernel", "__rust_begin_short_backtrace"];
/// The source file of the function that calls kernels.
const CALLER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/kernel/entry.rs");
/// The folder of this library's source.
const ENGINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/");
/// Folders of the standard library's source.
const STANDARD: [&str; 2] = ["/rustc/", "/rustlib/src/rust/library/"];
/// Prefixes of names of the standard library, and functions with which a process ends itself.
const MACHINERY: [&str; 7] = [
    "core::", "std::", "alloc::", "<core::", "<std::", "<alloc::", "__rust",
];
const ENDS: [&str; 4] = ["abort", "raise", "gsignal", "pthread_kill"];

/// A function in the stack of a crash: see [`Crash::frames`](super::Crash::frames).
///
/// An inlined function has a frame of its own, with the address of the function that contains it. A frame displays as
/// `decode (src/decode.rs:42)`, or `libpng16.so.16+0x1a2b` without a name.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CrashFrame {
    /// The address of the instruction, in the worker: the crashing instruction, or the one to which the called function
    /// returns.
    pub address: u64,
    /// The file that contains the code: the program or a shared library. `None` if no file contains it, or if the
    /// worker could not determine the file.
    pub module: Option<PathBuf>,
    /// The function, if its name is known.
    pub function: Option<String>,
    /// The source file, if the module has debug information.
    pub file: Option<String>,
    /// The line in the source file, from 1.
    pub line: Option<u32>,
    /// The offset of the instruction in the module, in bytes.
    offset: u64,
}

impl CrashFrame {
    /// Returns true if the function belongs neither to the standard library nor to this library, and does not only end
    /// the process.
    fn is_own(&self) -> bool {
        let file = self.file.as_deref().unwrap_or_default();
        self.function.as_deref().is_some_and(|function| {
            !ENDS.contains(&function)
                && !MACHINERY.iter().any(|name| function.starts_with(name))
                && !STANDARD.iter().any(|part| file.contains(part))
                && !file.starts_with(ENGINE)
        })
    }
}

impl fmt::Display for CrashFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.function, &self.module) {
            (Some(function), _) => write!(f, "{}", escape_text(function))?,
            (None, Some(path)) => {
                let name = path.file_name().unwrap_or(path.as_os_str());
                write!(
                    f,
                    "{}+{:#x}",
                    escape_text(&name.to_string_lossy()),
                    self.offset
                )?;
            }
            (None, None) => write!(f, "{:#x}", self.address)?,
        }
        match (&self.file, self.line) {
            (Some(file), Some(line)) => write!(f, " ({}:{line})", escape_text(file)),
            // Code that the compiler has added belongs to no line.
            (Some(file), None) => write!(f, " ({})", escape_text(file)),
            (None, _) => Ok(()),
        }
    }
}

/// The stack of a crash. Names are looked up on first use.
#[derive(Clone, Debug)]
pub(crate) struct Stack(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    noted: NotedCrash,
    /// The frames, and the number of frames that are left out.
    named: OnceLock<(Vec<CrashFrame>, u64)>,
}

impl PartialEq for Stack {
    fn eq(&self, other: &Self) -> bool {
        self.0.noted == other.0.noted
    }
}

impl Eq for Stack {}

impl Stack {
    pub(crate) fn of(noted: &NotedCrash) -> Self {
        Self(Arc::new(Parts {
            noted: noted.clone(),
            named: OnceLock::new(),
        }))
    }

    pub(super) fn omitted(&self) -> u64 {
        self.named().1
    }

    pub(super) fn frames(&self) -> &[CrashFrame] {
        &self.named().0
    }

    fn named(&self) -> &(Vec<CrashFrame>, u64) {
        self.0.named.get_or_init(|| name(&self.0.noted))
    }

    /// Writes the first frames, as a part of a sentence.
    pub(super) fn write_first(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut own = self
            .frames()
            .iter()
            .filter(|frame| frame.is_own())
            .peekable();
        let first = match own.peek() {
            Some(_) => own.take(SHOWN).collect(),
            None => self.frames().iter().take(SHOWN).collect::<Vec<_>>(),
        };
        for (at, frame) in first.into_iter().enumerate() {
            let before = if at == 0 { "; in" } else { ", called from" };
            write!(f, "{before} {frame}")?;
        }
        Ok(())
    }
}

/// Returns true if a kernel or a thread begins in what this function calls.
fn begins(symbol: &Symbol) -> bool {
    let function = symbol.function.as_deref().unwrap_or_default();
    symbol.file.as_deref() == Some(CALLER) || BEGINNINGS.iter().any(|name| function.contains(name))
}

/// Looks up the names of all frames up to the kernel. Also returns the number of frames that are left out in the
/// middle.
fn name(noted: &NotedCrash) -> (Vec<CrashFrame>, u64) {
    #[cfg(feature = "points")]
    crate::supervisor::hold_time::expect_released("frames get names");
    // A return address may already belong to the next function.
    let places = noted.frames.iter().enumerate().map(|(at, &address)| {
        let of = address.saturating_sub(u64::from(at > 0));
        let mut maps = noted.files.iter();
        let map = maps.find(|map| (map.start..map.end).contains(&of));
        let code = map.and_then(|map| {
            let offset = map.offset.checked_add(of - map.start)?;
            Some((map.path.clone(), offset))
        });
        (address, code)
    });
    let places: Vec<_> = places.collect();
    let budget = Budget::new();
    let mut symbols: Vec<Arc<[Symbol]>> = vec![Arc::default(); places.len()];
    for (number, map) in noted.files.iter().enumerate() {
        let is_same = |other: &CodeMap| other.path == map.path;
        if noted.files[..number].iter().any(is_same) {
            continue;
        }
        let of_file = |at: &usize| {
            let code = places[*at].1.as_ref();
            code.is_some_and(|(path, _)| *path == map.path)
        };
        let indices: Vec<usize> = (0..places.len()).filter(of_file).collect();
        let offsets = indices
            .iter()
            .filter_map(|&at| Some(places[at].1.as_ref()?.1));
        let offsets: Vec<u64> = offsets.collect();
        for (at, found) in indices
            .into_iter()
            .zip(symbols::resolve(&map.path, &offsets, &budget, begins))
        {
            symbols[at] = found;
        }
    }
    let mut frames = Vec::new();
    let (innermost, omitted) = noted.omitted;
    for (at, ((address, code), symbols)) in places.into_iter().zip(symbols).enumerate() {
        let unnamed = [Symbol::default()];
        let symbols = match symbols.is_empty() {
            true => &unnamed[..],
            false => &symbols,
        };
        for symbol in symbols {
            if begins(symbol) {
                let omitted = if at < innermost { 0 } else { omitted };
                return (frames, omitted);
            }
            let (module, offset) = code.clone().unzip();
            let Symbol {
                function,
                file,
                line,
            } = symbol.clone();
            frames.push(CrashFrame {
                address,
                module,
                function,
                file,
                line,
                offset: offset.unwrap_or_default(),
            });
        }
    }
    (frames, omitted)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn noted(frames: Vec<u64>, files: Vec<CodeMap>) -> NotedCrash {
        NotedCrash {
            signal: 11,
            code: 1,
            access: None,
            located: None,
            address: None,
            instruction: 0,
            stack: 0,
            stack_start: None,
            frames,
            omitted: (0, 0),
            files,
        }
    }

    #[test]
    fn claims_about_files_are_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).unwrap();
        let [text, torn] = ["text", "torn"].map(|name| folder.path().join(name));
        std::fs::write(&text, "no program").unwrap();
        std::fs::write(&torn, b"\x7fELF\x02\x01\x01torn").unwrap();
        let missing = folder.path().join("missing");
        for path in [
            pipe,
            text,
            torn,
            missing,
            "/dev/zero".into(),
            "/proc/self/maps".into(),
        ] {
            for (start, end, offset) in [(0, u64::MAX, 0), (0, 10, u64::MAX), (10, 0, 5)] {
                let map = CodeMap {
                    start,
                    end,
                    offset,
                    path: path.clone(),
                };
                let stack = Stack::of(&noted(vec![0, 5, u64::MAX], vec![map]));
                assert_eq!(stack.frames().len(), 3);
                assert!(stack.frames().iter().all(|frame| frame.function.is_none()));
            }
        }
    }
}
