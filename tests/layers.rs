//! Rules of this repository that the compiler does not check: which layer may use which, how modules may import each
//! other, and how long a file may be. CONTRIBUTING.md gives the reasons.
//!
//! Where `unsafe` may stand is a lint on the modules of `src/lib.rs` and on the other crates; who may send signals by
//! process number is one in `clippy.toml`.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "common/source_tree.rs"]
mod source_tree;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use source_tree::{Tree, collect, root};

/// The layers of `src/`, lowest first: each may use those before it.
const LAYERS: [&str; 12] = [
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
/// The layers of `python/memory/src/`, lowest first.
const MEMORY_LAYERS: [&str; 6] = ["sync", "pages", "written", "habit", "private_copy", "heap"];
const MAX_LINES: usize = 900;
/// Files below `src/supervisor/`, or those of a heap of `python/memory/`, that may import each other in a circle; none
/// do in `bin/src/`.
const MAX_CYCLE: usize = 4;

#[test]
fn a_layer_uses_only_those_below_it() {
    for (source, layers) in [("src", &LAYERS[..]), ("python/memory/src", &MEMORY_LAYERS)] {
        let tree = Tree::read(source);
        let breaches: Vec<_> = tree.upward_uses(layers).collect();
        assert!(breaches.is_empty(), "\n{}", breaches.join("\n"));
    }
}

#[test]
fn the_front_page_lists_the_layers() {
    for (source, layers) in [("src", &LAYERS[..]), ("python/memory/src", &MEMORY_LAYERS)] {
        let front = fs::read_to_string(root().join(source).join("lib.rs")).unwrap();
        let rows = front
            .lines()
            .filter_map(|line| line.strip_prefix("//! | `"));
        let listed: Vec<_> = rows.filter_map(|row| row.split('`').next()).collect();
        assert_eq!(listed, layers);
    }
}

/// No compiler for another system is needed to see what it would say first.
#[test]
fn another_system_is_refused_with_one_sentence() {
    let front = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let code = front
        .lines()
        .filter(|line| !line.starts_with("//"))
        .collect::<Vec<_>>();
    let code = code.join("\n").trim_start().to_owned();
    let (condition, rest) = code.split_once("compile_error!(").unwrap();
    assert_eq!(condition, "#[cfg(not(target_os = \"linux\"))]\n");
    let sentence = rest.split('"').nth(1).unwrap();
    for word in ["Linux", "Windows", "WSL 2", "macOS", "container"] {
        assert!(sentence.contains(word), "{word}: {sentence}");
    }
}

#[test]
fn no_cycle_of_imports_is_long() {
    let cycles = |root: &str, below: &str, max: usize| {
        let tree = Tree::read(root);
        tree.cycles(below)
            .into_iter()
            .filter(move |cycle| cycle.len() > max)
    };
    let long: Vec<_> = cycles("src", "supervisor", MAX_CYCLE)
        .chain(cycles("python/memory/src", "", MAX_CYCLE))
        .chain(cycles("bin/src", "", 1))
        .collect();
    assert!(long.is_empty(), "{long:#?}");
}

/// `clippy.toml` forbids the functions; these are the system calls.
#[test]
fn only_one_file_sends_signals() {
    let mut files = BTreeMap::new();
    collect(&root().join("src"), &mut files);
    collect(&root().join("python/memory"), &mut files);
    let calls =
        ["kill", "tkill", "tgkill", "pidfd_send", "rt_sigqueue"].map(|call| format!("SYS_{call}"));
    files.retain(|_, text| calls.iter().any(|call| text.contains(call)));
    // The filter of the sandbox and the probe name calls that they do not make.
    let others = ["sys/process.rs", "sys/probe.rs", "sys/sandbox/"];
    let is_allowed = |path: &String| others.iter().any(|part| path.contains(part));
    assert!(files.keys().all(is_allowed), "{:?}", files.keys());
}

#[test]
fn no_file_is_longer_than_900_lines() {
    let mut files = BTreeMap::new();
    for folder in [
        "src",
        "image",
        "store",
        "tables",
        "bin",
        "benches",
        "tests",
        "examples",
        "python/src",
        "python/memory",
    ] {
        collect(&root().join(folder), &mut files);
    }
    assert!(files.len() > 300, "only {} files were found", files.len());
    files.retain(|_, text| text.lines().count() > MAX_LINES);
    assert!(files.is_empty(), "{:?}", files.keys());
}

#[test]
fn breaches_are_found_however_they_are_written() {
    let lib = (
        "lib.rs",
        "pub use engine::{Engine, Job as Work};\npub use arena::ArenaFull;",
    );
    let upward = |path, code| {
        Tree::of([
            lib,
            ("engine/mod.rs", ""),
            ("arena/mod.rs", ""),
            (path, code),
        ])
        .upward_uses(&LAYERS)
        .count()
    };
    for code in [
        "use crate::engine::Engine;",
        "use crate::{\n    arena::Block,\n    worker,\n};",
        "fn f() { crate::supervisor::start() }",
        "use super::super::engine;",
        "use crate::Work;",
        "mod inner {\n    use super::super::super::engine;\n}",
    ] {
        assert_eq!(upward("link/a.rs", code), 1, "{code}");
    }
    for code in [
        "use crate::ArenaFull;\nuse crate::sys::engine;",
        "use crate::{arena::{Block, worker}, sync};",
        "use super::producer;\nmod inner {\n    use super::x;\n}",
        "// crate::engine",
        "fn f() { crate::point!(\"a\") }",
    ] {
        assert_eq!(upward("link/a.rs", code), 0, "{code}");
    }
    let tree = Tree::of([
        ("lib.rs", ""),
        ("s/mod.rs", "mod a;\npub use b::B;"),
        ("s/a.rs", "use super::B;"),
        ("s/b.rs", "use super::c::C;"),
        (
            "s/c.rs",
            "fn f() { super::a::g() }\n#[cfg(test)]\nmod tests {\n    use super::super::d;\n}",
        ),
        ("s/d.rs", "use super::c;"),
    ]);
    let cycle = BTreeSet::from(["s::a", "s::b", "s::c"].map(String::from));
    assert_eq!(tree.cycles("s"), BTreeSet::from([cycle]));
}
