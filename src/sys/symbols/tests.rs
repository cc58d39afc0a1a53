//! Names and lines of code in files that a compiler, or a test, has made.

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

fn never(_: &Symbol) -> bool {
    false
}

fn function_at(library: &Path, offset: u64, budget: &Budget) -> Option<String> {
    let symbols = resolve(library, &[offset], budget, never).remove(0);
    symbols.first()?.function.clone()
}

#[test]
fn a_library_that_was_built_anew_is_read_anew() {
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join("lib.so");
    for function in ["before", "after_"] {
        let offset = build(&library, function);
        let symbols = resolve(&library, &[offset], &Budget::new(), never).remove(0);
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
    name(&file, &[offset], budget, never).unwrap().remove(0)
}

/// Builds a library of several units. Each has one function, into which another one is inlined. Returns pairs of
/// offset in the file and address, four in each function.
fn build_units(library: &Path, options: &[&str]) -> Vec<(u64, u64)> {
    let sources = (0..5).map(|n| {
        let source = library.with_extension(format!("{n}.c"));
        let inlined = format!("static inline __attribute__((always_inline)) int in{n}(int x)");
        let text = format!(
            "#include <stdio.h>\n{inlined} {{\n  puts(\"{n}\");\n  return x + {n};\n}}\n\
             int unit{n}(int x) {{\n  return in{n}(x) *\n    in{n}(3);\n}}\n"
        );
        fs::write(&source, text).unwrap();
        source
    });
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let mut compiler = std::process::Command::new(compiler);
    compiler
        .args(["-g", "-O1", "-shared", "-fPIC"])
        .args(options);
    let built = compiler.arg("-o").arg(library).args(sources).status();
    assert!(built.unwrap().success());
    let data = fs::read(library).unwrap();
    let object = object::File::parse(&*data).unwrap();
    let is_unit = |name: &str| name.starts_with("unit");
    let functions = object
        .symbols()
        .filter(|symbol| symbol.name().is_ok_and(is_unit));
    let addresses = functions
        .flat_map(|symbol| (0..4).map(move |part| symbol.address() + symbol.size() * part / 4));
    let place = |address| {
        object.segments().find_map(|segment| {
            let at = address - segment.address().min(address);
            (at < segment.size()).then(|| (segment.file_range().0 + at, address))
        })
    };
    let places: Vec<_> = addresses.filter_map(place).collect();
    assert_eq!(places.len(), 20);
    places
}

/// Returns the functions at an address and their lines, from binutils.
fn by_binutils(library: &Path, address: u64) -> Vec<(String, u32)> {
    let mut program = std::process::Command::new("addr2line");
    program.args(["-f", "-i", "-e"]).arg(library);
    let output = program.arg(format!("{address:#x}")).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let line_of = |place: &str| {
        let line = place.rsplit_once(':').unwrap().1;
        line.split(' ').next().unwrap().parse().unwrap()
    };
    let pairs = lines.chunks_exact(2);
    pairs
        .map(|pair| (pair[0].to_owned(), line_of(pair[1])))
        .collect()
}

#[test]
fn functions_are_those_that_binutils_names_whatever_units_are_hidden() {
    let folder = tempfile::tempdir().unwrap();
    // With the second option, units refer to each other, so none may be hidden.
    for (options, hides) in [(&[][..], true), (&["-flto"][..], false)] {
        let library = folder.path().join(format!("{hides}.so"));
        for (offset, address) in build_units(&library, options) {
            let symbols = name_of(&library, offset, &Budget::new());
            let symbols = symbols.into_iter();
            let found = symbols.map(|symbol| (symbol.function.unwrap(), symbol.line.unwrap()));
            let found: Vec<_> = found.collect();
            assert_eq!(
                found,
                by_binutils(&library, address),
                "{options:?} {address:#x}"
            );
            let file = File::open(&library).unwrap();
            let budget = Budget::new();
            let limited = Limited {
                file: &file,
                budget: &budget,
            };
            let content = ReadCache::new(limited);
            let object = ElfFile::parse(&content).unwrap();
            let sections = read_debug_sections(&object, &file, &budget).unwrap();
            let hidden = roots_to_hide(&sections, RunTimeEndian::Little, &[Some(address)]);
            assert_eq!(hidden.map(|roots| roots.len()), hides.then_some(4));
        }
    }
}

#[test]
fn nothing_is_looked_up_beyond_the_last_function_of_interest() {
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join("lib.so");
    let places = build_units(&library, &[]);
    let offsets: Vec<u64> = places.iter().map(|&(offset, _)| offset).collect();
    let is_third = |symbol: &Symbol| symbol.function.as_deref() == Some("unit2");
    let third = offsets.iter().position(|&offset| {
        let symbols = name_of(&library, offset, &Budget::new());
        symbols.iter().any(is_third)
    });
    // Not cached at first, then cached.
    for _ in 0..2 {
        let found = resolve(&library, &offsets, &Budget::new(), is_third);
        assert_eq!(found.len(), third.unwrap() + 1);
    }
    let all = resolve(&library, &offsets, &Budget::new(), never);
    assert!(all.len() == offsets.len() && all.iter().all(|symbols| !symbols.is_empty()));
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
        let found = resolve(&file, &[100, 200], &Budget::new(), never);
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
