//! The rules of the house that a compiler does not check: which floor may use which, where `unsafe` may
//! stand, and how long a file may be. CONTRIBUTING.md says why.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// From the ground up: a floor may use those before it.
const FLOORS: [&str; 12] = [
    "sync",
    "sys",
    "arena",
    "array",
    "kernel",
    "link",
    "control",
    "worker",
    "trace",
    "supervisor",
    "engine",
    "platform",
];

/// Floors where `unsafe` stands only with the reason why it cannot be avoided.
const WITH_REASON: [&str; 5] = ["worker", "supervisor", "engine", "image", "benches"];
/// Where there is none.
const WITHOUT_UNSAFE: [&str; 4] = ["control", "trace", "platform", "bin"];

const MOST_LINES: usize = 900;

/// The file that sends signals to other processes: by descriptors, since a number may be another's by then.
const SIGNALS: &str = "src/sys/process.rs";
/// The filter of a sandbox has names of calls that it judges and nobody makes; another file looks whether the kernel has them.
const NO_CALLS: [&str; 2] = ["src/sys/sandbox/", "src/sys/probe.rs"];

#[test]
fn no_floor_uses_one_that_stands_below_it_in_the_list() {
    let house = House::read();
    let breaches: Vec<_> = house.files.iter().flat_map(|f| house.uses(f)).collect();
    assert!(breaches.is_empty(), "\n{}", breaches.join("\n"));
}

#[test]
fn unsafe_stands_only_where_the_design_allows_it() {
    let house = House::read();
    let breaches: Vec<_> = house.files.iter().flat_map(unsafes).collect();
    assert!(breaches.is_empty(), "\n{}", breaches.join("\n"));
}

#[test]
fn no_process_is_sent_a_signal_by_its_number() {
    let house = House::read();
    let breaches: Vec<_> = house.files.iter().flat_map(signals).collect();
    assert!(breaches.is_empty(), "\n{}", breaches.join("\n"));
    // The one place that sends them is seen, were it another one.
    let file = house.file(SIGNALS);
    let elsewhere = File::new("src/supervisor/a.rs", &file.text);
    assert_ne!(signals(&elsewhere), [""; 0]);
}

#[test]
fn no_file_is_longer_than_900_lines() {
    let house = House::read();
    let long = house.files.iter().filter(|file| file.lines() > MOST_LINES);
    let long: Vec<_> = long.map(|f| format!("{}: {}", f.name, f.lines())).collect();
    assert!(long.is_empty(), "\n{}", long.join("\n"));
}

#[test]
fn the_list_of_floors_is_what_lib_rs_declares() {
    let house = House::read();
    let root = house.file("src/lib.rs");
    let mut declared: Vec<String> = root.modules_declared();
    declared.sort();
    let mut listed = FLOORS.map(String::from).to_vec();
    listed.sort();
    assert_eq!(declared, listed);
    // The front page names them all, in this order.
    let map = root
        .text
        .lines()
        .filter_map(|line| line.strip_prefix("//! | `"));
    let named: Vec<_> = map.filter_map(|line| line.split('`').next()).collect();
    assert_eq!(named, FLOORS, "the floor map of lib.rs");
}

// ---- the checks can fail -----------------------------------------------------------------------

#[test]
fn a_use_of_a_later_floor_is_found_however_it_is_written() {
    let lib = "pub use engine::{Engine, Job as Work};\npub use arena::ArenaFull;";
    for (name, code, found) in [
        ("src/link/a.rs", "use crate::engine::Engine;", true),
        ("src/link/a.rs", "use crate::{arena::Block, worker};", true),
        (
            "src/link/a.rs",
            "fn f() { crate::supervisor::start() }",
            true,
        ),
        ("src/link/a.rs", "use super::super::engine;", true),
        ("src/link/mod.rs", "use super::engine;", true),
        ("src/sync.rs", "use super::{arena, sys};", true),
        ("src/link/a.rs", "use crate::Work;", true),
        ("src/link/a.rs", "use crate::Nobody;", true),
        ("src/link/a.rs", "use crate::*;", true),
        (
            "src/link/a.rs",
            "mod inner { use super::super::super::engine; }",
            true,
        ),
        (
            "src/link/a.rs",
            "use crate::ArenaFull; use crate::sys::image;",
            false,
        ),
        (
            "src/link/a.rs",
            "use crate::{arena::{Block, worker}, sync};",
            false,
        ),
        (
            "src/link/a.rs",
            "use super::poster; mod m { use super::x; }",
            false,
        ),
        (
            "src/sync.rs",
            "mod tests { use super::Cell; } mod b { use super::*; }",
            false,
        ),
        (
            "src/link/a.rs",
            "// crate::engine\n/* crate::engine */ /// crate::engine\n",
            false,
        ),
        (
            "src/link/a.rs",
            r##"const A: &str = "crate::engine"; const B: char = '"';"##,
            false,
        ),
        (
            "src/engine/a.rs",
            "use crate::link; fn f<'a>(x: &'a u8) { crate::arena::g('}') }",
            false,
        ),
        ("src/engine/a.rs", "use crate::platform;", true),
        (
            "src/link/b.rs",
            "#[macro_export]\nmacro_rules! loud { () => {} }\nfn f() { crate::loud!() }",
            false,
        ),
    ] {
        let house = House::of(&[("src/lib.rs", lib), (name, code)]);
        let breaches = house.uses(house.file(name));
        assert_eq!(!breaches.is_empty(), found, "{code}: {breaches:?}");
    }
}

#[test]
fn a_signal_by_number_is_found_however_it_is_written() {
    for (code, found) in [
        ("fn f() { kill(pid, Signal::SIGKILL); }", true),
        ("fn f() { libc::kill(1, 9); }", true),
        ("use nix::sys::signal::{Signal, kill as end};", true),
        (
            "use nix::sys::signal;\nfn f() { signal::killpg(pid, None); }",
            true,
        ),
        ("const END: F = libc::kill;", true),
        ("fn f() { libc::syscall(libc::SYS_tgkill, 1, 1, 9); }", true),
        (
            "fn f() { libc::syscall(libc::SYS_pidfd_send_signal, fd, 9); }",
            true,
        ),
        ("fn f(p: &PidFd) { p.kill(Signal::SIGKILL); }", false),
        ("fn kill(&self) {}", false),
        ("let kill = Exit::Signal(9); with(kill, true);", false),
        ("// kill(pid)\nconst A: &str = \"kill(2)\";", false),
    ] {
        for (name, found) in [
            ("src/supervisor/a.rs", found),
            (SIGNALS, found && !code.contains("SYS_pidfd")),
        ] {
            let breaches = signals(&File::new(name, code));
            assert_eq!(!breaches.is_empty(), found, "{name}: {code}: {breaches:?}");
        }
    }
}

#[test]
fn unsafe_without_its_reason_is_found() {
    for (name, code, found) in [
        ("src/worker/a.rs", "unsafe { f() }", true),
        (
            "src/worker/a.rs",
            "// SAFETY: the lane lives.\nunsafe { f() }",
            false,
        ),
        (
            "src/worker/a.rs",
            "// SAFETY: the lane\n// lives.\n#[inline]\nunsafe { f() }",
            false,
        ),
        (
            "src/worker/a.rs",
            "// SAFETY: one reason.\nunsafe { f() }\nunsafe { g() }",
            true,
        ),
        ("src/worker/a.rs", "// It is fine.\nunsafe { f() }", true),
        (
            "src/worker/a.rs",
            "type F = unsafe extern \"C\" fn();",
            false,
        ),
        ("src/link/a.rs", "unsafe { f() }", false),
        (
            "src/control/a.rs",
            "// SAFETY: no reason is enough here.\nunsafe { f() }",
            true,
        ),
        (
            "bin/src/a.rs",
            "// SAFETY: no reason is enough here.\nunsafe { f() }",
            true,
        ),
        ("image/resample/src/a.rs", "unsafe impl V for W {}", true),
        (
            "image/resample/src/a.rs",
            "// SAFETY: the rows are those of another view.\nunsafe impl V for W {}",
            false,
        ),
        (
            "bin/src/a.rs",
            "// unsafe\nlet unsafely = \"unsafe\";",
            false,
        ),
    ] {
        let breaches = unsafes(&File::new(name, code));
        assert_eq!(!breaches.is_empty(), found, "{code}: {breaches:?}");
    }
}

// ---- reading the source ------------------------------------------------------------------------

/// A source file: its text, and its code without comments and without what strings contain.
struct File {
    /// Path below the package, with `/`.
    name: String,
    text: String,
    code: String,
}

struct House {
    files: Vec<File>,
    /// What `lib.rs` re-exports, and from which floor.
    exports: BTreeMap<String, String>,
}

impl File {
    fn new(name: &str, text: &str) -> Self {
        let (name, text) = (name.to_owned(), text.to_owned());
        let code = without_comments(&text);
        Self { name, text, code }
    }

    fn lines(&self) -> usize {
        self.text.lines().count()
    }

    /// Another package, by its folder, or a floor; `lib` for the root.
    fn floor(&self) -> &str {
        let path = self.name.strip_prefix("src/").unwrap_or(&self.name);
        path.split(['/', '.']).next().unwrap()
    }

    /// Where the file stands in the tree of modules.
    fn module(&self) -> Vec<String> {
        let path = self.name.trim_start_matches("src/").trim_end_matches(".rs");
        let mut parts: Vec<_> = path.split('/').map(String::from).collect();
        if parts
            .last()
            .is_some_and(|last| last == "mod" || last == "lib")
        {
            parts.pop();
        }
        parts
    }

    fn modules_declared(&self) -> Vec<String> {
        let tokens = tokens(&self.code);
        let found = tokens
            .windows(3)
            .filter(|t| t[0].text == "mod" && t[2].text == ";");
        found.map(|t| t[1].text.to_owned()).collect()
    }
}

impl House {
    fn read() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let mut paths = Vec::new();
        walk(&root.join("src"), &mut paths);
        walk(&root.join("bin/src"), &mut paths);
        walk(&root.join("image"), &mut paths);
        walk(&root.join("benches/src"), &mut paths);
        let files = paths.iter().map(|path| {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap();
            File::new(name, &fs::read_to_string(path).unwrap())
        });
        let files: Vec<_> = files.collect();
        assert!(files.len() > 50, "only {} files were found", files.len());
        Self::with(files)
    }

    fn of(files: &[(&str, &str)]) -> Self {
        Self::with(
            files
                .iter()
                .map(|(name, text)| File::new(name, text))
                .collect(),
        )
    }

    fn with(files: Vec<File>) -> Self {
        let root = files.iter().find(|file| file.name == "src/lib.rs").unwrap();
        let root = tokens(&root.code);
        let mut exports = BTreeMap::new();
        for (at, _) in root.iter().enumerate().filter(|(_, t)| t.text == "use") {
            let statement = root[at..].iter().take_while(|token| token.text != ";");
            let words: Vec<_> = statement.map(|token| token.text).collect();
            for name in words.iter().filter(|word| is_name(word)) {
                exports.insert((*name).to_owned(), words[1].to_owned());
            }
        }
        // Exported macros stand at the root as well, wherever they are written.
        for file in &files {
            for words in tokens(&file.code).windows(6) {
                if words[0].text == "macro_export" && words[2].text == "macro_rules" {
                    exports.insert(words[4].text.to_owned(), file.floor().to_owned());
                }
            }
        }
        Self { files, exports }
    }

    fn file(&self, name: &str) -> &File {
        self.files.iter().find(|file| file.name == name).unwrap()
    }

    /// Uses in `file` that go to a later floor.
    fn uses(&self, file: &File) -> Vec<String> {
        let Some(own) = FLOORS.iter().position(|floor| *floor == file.floor()) else {
            return Vec::new();
        };
        let mut breaches = Vec::new();
        for (line, name) in root_names(file) {
            let floor = match self.exports.get(&name) {
                Some(floor) if !FLOORS.contains(&name.as_str()) => floor,
                _ => &name,
            };
            let place = FLOORS.iter().position(|known| known == floor);
            if place.is_none_or(|place| place > own) {
                let own = FLOORS[own];
                breaches.push(format!("{}:{line}: {own} uses crate::{name}", file.name));
            }
        }
        breaches
    }
}

fn walk(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Token<'a> {
    line: usize,
    text: &'a str,
}

fn is_name(word: &str) -> bool {
    word.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Where a file of the library sends a signal to a process by its number, or by a descriptor outside the one place for it.
fn signals(file: &File) -> Vec<String> {
    if !file.name.starts_with("src/") {
        return Vec::new();
    }
    let no_calls = NO_CALLS.iter().any(|name| file.name.starts_with(name));
    let tokens = tokens(&file.code);
    let breaches = tokens.iter().enumerate().filter(|&(at, token)| {
        let before = at.checked_sub(1).map_or("", |at| tokens[at].text);
        let after = tokens.get(at + 1).map_or("", |token| token.text);
        match token.text {
            "kill" | "killpg" | "tgkill" | "tkill" | "sigqueue" => {
                let is_called = after == "(" && before != "." && before != "fn";
                is_called || before == "::" || after == "as"
            }
            "SYS_kill"
            | "SYS_tkill"
            | "SYS_tgkill"
            | "SYS_rt_sigqueueinfo"
            | "SYS_rt_tgsigqueueinfo" => !no_calls,
            "SYS_pidfd_send_signal" => file.name != SIGNALS && !no_calls,
            _ => false,
        }
    });
    breaches
        .map(|(_, token)| format!("{}:{}: {}", file.name, token.line, token.text))
        .collect()
}

/// Names, `::`, and every other character by itself.
fn tokens(code: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    for (line, text) in (1..).zip(code.lines()) {
        let mut rest = text.trim_start();
        while let Some(first) = rest.chars().next() {
            let len = if is_name(rest) {
                let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
                end.unwrap_or(rest.len())
            } else if rest.starts_with("::") {
                2
            } else {
                first.len_utf8()
            };
            let (text, after) = rest.split_at(len);
            tokens.push(Token { line, text });
            rest = after.trim_start();
        }
    }
    tokens
}

/// What the file names at the root of the crate, by `crate::` or by enough of `super::`.
fn root_names(file: &File) -> Vec<(usize, String)> {
    let tokens = tokens(&file.code);
    let own = file.module().len();
    let mut names = Vec::new();
    // Modules written inside the file: the depth of braces at which each ends.
    let mut inline = Vec::new();
    let mut depth = 0;
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        let follows = |steps: usize| tokens.get(at + steps).map_or("", |token| token.text);
        match token.text {
            "{" => depth += 1,
            "}" => {
                depth -= 1;
                if inline.last() == Some(&depth) {
                    inline.pop();
                }
            }
            "mod" if follows(2) == "{" => inline.push(depth),
            "crate" if follows(1) == "::" => names_in(&tokens, at + 2, 0, &mut names),
            // The first of a chain: `names_in` walks along it.
            "super" if follows(1) == "::" && (at == 0 || tokens[at - 1].text != "::") => {
                names_in(&tokens, at, own + inline.len(), &mut names);
            }
            _ => {}
        }
        at += 1;
    }
    names
}

/// The names that a path, or a tree of them, has at the root; `height` modules lie between here and there.
fn names_in(tokens: &[Token<'_>], at: usize, height: usize, names: &mut Vec<(usize, String)>) {
    let Some(token) = tokens.get(at) else { return };
    match token.text {
        "super" => names_in(tokens, at + 2, height.saturating_sub(1), names),
        "{" => {
            let mut depth = 0;
            for (index, token) in tokens.iter().enumerate().skip(at) {
                match token.text {
                    "{" => depth += 1,
                    "}" => depth -= 1,
                    _ => {}
                }
                if depth == 0 {
                    return;
                }
                let begins = tokens[index - 1].text == "{" && index - 1 == at
                    || tokens[index - 1].text == "," && depth == 1;
                if begins && token.text != "}" {
                    names_in(tokens, index, height, names);
                }
            }
        }
        _ if height > 0 => {}
        name => names.push((token.line, name.to_owned())),
    }
}

/// `unsafe` in `file` that should not be there, or not without a reason.
fn unsafes(file: &File) -> Vec<String> {
    let none = WITHOUT_UNSAFE.contains(&file.floor());
    if !none && !WITH_REASON.contains(&file.floor()) {
        return Vec::new();
    }
    let lines: Vec<_> = file.text.lines().collect();
    let tokens = tokens(&file.code);
    let mut breaches = Vec::new();
    for (at, token) in tokens
        .iter()
        .enumerate()
        .filter(|(_, t)| t.text == "unsafe")
    {
        // The type of a foreign function does nothing by itself.
        let is_type = tokens.get(at + 1).is_some_and(|next| next.text == "extern");
        if none || !is_type && !has_reason(&lines, token.line - 1) {
            breaches.push(format!("{}:{}: unsafe", file.name, token.line));
        }
    }
    breaches
}

/// Does a comment with `SAFETY:` stand directly above this line?
fn has_reason(lines: &[&str], line: usize) -> bool {
    let above = lines[..line].iter().rev().map(|line| line.trim());
    above
        .skip_while(|line| line.starts_with("#["))
        .take_while(|line| line.starts_with("//"))
        .any(|line| line.starts_with("// SAFETY:"))
}

/// The text with comments and the contents of strings and characters blanked, line by line.
fn without_comments(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    // Copies line ends and blanks the rest up to `end`.
    let blank = |code: &mut String, at: usize, end: usize| {
        code.extend(
            chars[at..end]
                .iter()
                .map(|&c| if c == '\n' { c } else { ' ' }),
        );
        end
    };
    let starts = |at: usize, what: &str| {
        what.chars()
            .eq(chars[at..].iter().copied().take(what.chars().count()))
    };
    while at < chars.len() {
        let end = if starts(at, "//") {
            let rest = chars[at..].iter().position(|&c| c == '\n');
            rest.map_or(chars.len(), |len| at + len)
        } else if starts(at, "/*") {
            end_of_comment(&chars, at)
        } else if let Some(end) = end_of_raw_string(&chars, at) {
            end
        } else if chars[at] == '"' {
            end_of_quoted(&chars, at, '"')
        } else if chars[at] == '\'' && is_character(&chars, at) {
            end_of_quoted(&chars, at, '\'')
        } else {
            code.push(chars[at]);
            at += 1;
            continue;
        };
        at = blank(&mut code, at, end);
    }
    code
}

fn end_of_comment(chars: &[char], start: usize) -> usize {
    let (mut at, mut depth) = (start, 0);
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => (at, depth) = (at + 2, depth + 1),
            ('*', Some('/')) => (at, depth) = (at + 2, depth - 1),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at.min(chars.len())
}

fn end_of_raw_string(chars: &[char], start: usize) -> Option<usize> {
    let named = start > 0 && (chars[start - 1].is_alphanumeric() || chars[start - 1] == '_');
    if chars[start] != 'r' || named && chars[start - 1] != 'b' {
        return None;
    }
    let hashes = chars[start + 1..].iter().take_while(|&&c| c == '#').count();
    let open = start + 1 + hashes;
    if chars.get(open) != Some(&'"') {
        return None;
    }
    let closing: Vec<char> = std::iter::once('"').chain(vec!['#'; hashes]).collect();
    let rest = &chars[open + 1..];
    let len = rest
        .windows(closing.len())
        .position(|window| window == closing);
    Some(len.map_or(chars.len(), |len| open + 1 + len + closing.len()))
}

fn end_of_quoted(chars: &[char], start: usize, quote: char) -> usize {
    let mut at = start + 1;
    while at < chars.len() && chars[at] != quote {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(chars.len())
}

/// A character rather than a lifetime.
fn is_character(chars: &[char], at: usize) -> bool {
    chars.get(at + 1) == Some(&'\\') || chars.get(at + 2) == Some(&'\'')
}
