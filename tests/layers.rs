//! Rules of this repository that the compiler does not check: which layer may use which, how modules may import each
//! other, and how long a file may be. CONTRIBUTING.md gives the reasons.
//!
//! Where `unsafe` may stand is a lint on the modules of `src/lib.rs` and on the other crates; who may send signals by
//! process number is one in `clippy.toml`.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

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
const MAX_LINES: usize = 900;
/// Files below `src/supervisor/` that may import each other in a circle; none do in `bin/src/`.
const MAX_CYCLE: usize = 4;

#[test]
fn a_layer_uses_only_those_below_it() {
    let tree = Tree::read("src");
    let breaches: Vec<_> = tree.upward_uses().collect();
    assert!(breaches.is_empty(), "\n{}", breaches.join("\n"));
}

#[test]
fn the_front_page_lists_the_layers() {
    let front = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let rows = front
        .lines()
        .filter_map(|line| line.strip_prefix("//! | `"));
    let listed: Vec<_> = rows.filter_map(|row| row.split('`').next()).collect();
    assert_eq!(listed, LAYERS);
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
        .chain(cycles("bin/src", "", 1))
        .collect();
    assert!(long.is_empty(), "{long:#?}");
}

/// `clippy.toml` forbids the functions; these are the numbers of the system calls.
#[test]
fn only_one_file_makes_the_system_calls_of_signals() {
    let sends = |line: &str| {
        let call = line.split("SYS_").nth(1).unwrap_or_default();
        [
            "kill",
            "tkill",
            "tgkill",
            "pidfd_send_signal",
            "rt_sigqueueinfo",
        ]
        .iter()
        .any(|name| call.starts_with(name))
    };
    let mut files = BTreeMap::new();
    collect(&root().join("src"), &mut files);
    files.retain(|_, text| text.lines().any(sends));
    // The filter of the sandbox and the probe name calls that they do not make.
    let allowed = |path: &String| {
        ["sys/process.rs", "sys/probe.rs"]
            .iter()
            .any(|end| path.ends_with(end))
            || path.contains("sys/sandbox/")
    };
    assert!(files.keys().all(allowed), "{:?}", files.keys());
    assert!(files.keys().any(|path| path.ends_with("sys/process.rs")));
}

#[test]
fn no_file_is_longer_than_900_lines() {
    let mut files = BTreeMap::new();
    for folder in ["src", "image", "bin", "benches", "tests", "examples"] {
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
        .upward_uses()
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

// ---- reading the source ------------------------------------------------------------------------

/// The path of a module or an item, below the root of its crate.
type Name = Vec<String>;

/// The modules of a crate.
struct Tree(BTreeMap<Name, Module>);

struct Module {
    /// Without comments.
    code: String,
    uses: Vec<Use>,
}

/// A path that a module names.
struct Use {
    target: Name,
    /// What the module calls it.
    alias: String,
    is_reexport: bool,
    is_test: bool,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Adds the Rust files below `folder`, with their text.
fn collect(folder: &Path, files: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|end| end == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            files.insert(path.to_str().unwrap().to_owned(), text);
        }
    }
}

impl Tree {
    fn read(folder: &str) -> Self {
        let folder = root().join(folder);
        let mut files = BTreeMap::new();
        collect(&folder, &mut files);
        let skip = folder.to_str().unwrap().len() + 1;
        Self::of(files.iter().map(|(path, text)| (&path[skip..], &**text)))
    }

    fn of<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let module = |(path, text): (&'a str, &'a str)| {
            let parts = path.trim_end_matches(".rs").split('/');
            let name = parts.filter(|part| !["mod", "lib", "main"].contains(part));
            let lines = text.lines().map(|line| line.split("//").next().unwrap());
            let code = lines.fold(String::new(), |code, line| code + "\n" + line);
            (
                name.map(String::from).collect(),
                Module {
                    code,
                    uses: Vec::new(),
                },
            )
        };
        let mut tree = Self(files.into_iter().map(module).collect());
        let uses = |(name, module): (&Name, &Module)| (name.clone(), tree.uses(name, &module.code));
        let uses: Vec<_> = tree.0.iter().map(uses).collect();
        for (name, uses) in uses {
            tree.0.get_mut(&name).unwrap().uses = uses;
        }
        tree
    }

    /// The paths in `code` that begin with `crate`, `super` or `self`, and those of `use` that begin with a child module.
    fn uses(&self, module: &Name, code: &str) -> Vec<Use> {
        let mut uses = Vec::new();
        for (at, _) in code.match_indices("::") {
            let start = code[..at]
                .rfind(|c: char| !(c.is_alphanumeric() || c == '_'))
                .map_or(0, |i| i + 1);
            let line = code[..start].rfind('\n').map_or(0, |i| i + 1);
            let visibility = code[line..start].strip_suffix("use ").map(str::trim);
            let first = &code[start..at];
            let child = [&module[..], &[first.to_owned()]].concat();
            let begins =
                ["crate", "super", "self"].contains(&first) && !code[..start].ends_with(':');
            if !begins && (visibility.is_none() || !self.0.contains_key(&child)) {
                continue;
            }
            // Within `mod x { … }`, a file has one level more.
            let is_inner = code[..start].rfind("\nmod ").is_some_and(|open| {
                code[open + 1..]
                    .lines()
                    .next()
                    .is_some_and(|line| line.ends_with('{'))
                    && !code[open..start].contains("\n}")
            });
            let mut own = module.clone();
            own.extend(is_inner.then(|| "inner".to_owned()));
            let mut paths = Vec::new();
            parse(&mut &code[start..], &mut Vec::new(), &mut paths);
            uses.extend(paths.into_iter().map(|(path, alias)| Use {
                target: absolute(&own, &path),
                alias: visibility.map_or("", |_| alias).to_owned(),
                is_reexport: visibility.is_some_and(|before| before.starts_with("pub")),
                is_test: is_inner,
            }));
        }
        uses
    }

    /// The module that has this item, re-exports and imports resolved.
    fn owner(&self, item: &[String]) -> Name {
        let mut at = Name::new();
        for (depth, part) in item.iter().enumerate() {
            let child = [&at[..], &item[depth..=depth]].concat();
            if self.0.contains_key(&child) {
                at = child;
                continue;
            }
            let uses = self.0.get(&at).map_or(&[][..], |module| &module.uses);
            return match uses
                .iter()
                .find(|found| found.alias == *part && found.target != item)
            {
                Some(found) => self.owner(&[&found.target[..], &item[depth + 1..]].concat()),
                None => at,
            };
        }
        at
    }

    /// Uses of a layer above, and of what no layer has.
    fn upward_uses(&self) -> impl Iterator<Item = String> {
        let rank = |name: &Name| {
            LAYERS
                .iter()
                .position(|layer| Some(*layer) == name.first().map(|part| &**part))
        };
        self.0.iter().flat_map(move |(name, module)| {
            let own = rank(name).unwrap_or(LAYERS.len());
            let is_above = move |used: &&Use| {
                let target = rank(&used.target).or_else(|| rank(&self.owner(&used.target)));
                target.unwrap_or(LAYERS.len()) > own
            };
            let above = module.uses.iter().filter(is_above);
            above.map(move |used| format!("{} uses {}", name.join("::"), used.target.join("::")))
        })
    }

    /// Modules below `folder` that import each other in a circle; tests and re-exports do not count.
    fn cycles(&self, folder: &str) -> BTreeSet<BTreeSet<String>> {
        let is_test = |name: &Name| {
            name.iter()
                .any(|part| ["tests", "hostile", "fixture"].contains(&&**part))
        };
        let is_below = |name: &Name| {
            !is_test(name)
                && (folder.is_empty() || name.first().is_some_and(|first| first == folder))
        };
        let targets = |name: &Name| -> Vec<Name> {
            let uses = self.0[name]
                .uses
                .iter()
                .filter(|used| !used.is_reexport && !used.is_test);
            let owners = uses.map(|used| self.owner(&used.target));
            owners
                .filter(|owner| is_below(owner) && owner != name)
                .collect()
        };
        let reachable = |from: &Name| {
            let (mut seen, mut next) = (BTreeSet::new(), targets(from));
            while let Some(name) = next.pop() {
                if seen.insert(name.clone()) {
                    next.extend(targets(&name));
                }
            }
            seen
        };
        let names = self.0.keys().filter(|name| is_below(name));
        let reached: BTreeMap<_, _> = names.map(|name| (name, reachable(name))).collect();
        let cycle = |(name, seen): (&&Name, &BTreeSet<Name>)| {
            let members = seen.iter().filter(|other| reached[other].contains(*name));
            members
                .map(|other| other.join("::"))
                .collect::<BTreeSet<_>>()
        };
        reached
            .iter()
            .map(cycle)
            .filter(|cycle| !cycle.is_empty())
            .collect()
    }
}

/// Reads a path, or a tree of them in braces: each with the name that it gets.
fn parse<'a>(
    text: &mut &'a str,
    path: &mut Vec<&'a str>,
    found: &mut Vec<(Vec<&'a str>, &'a str)>,
) {
    let len = path.len();
    loop {
        path.push(word(text));
        match text.strip_prefix("::") {
            Some(rest) if rest.starts_with('{') => {
                *text = &rest[1..];
                while !text.is_empty() && !text.trim_start().starts_with('}') {
                    parse(text, path, found);
                    let rest = text.trim_start_matches(|c: char| c != ',' && c != '}');
                    *text = rest.strip_prefix(',').unwrap_or(rest);
                }
                *text = text.trim_start().get(1..).unwrap_or_default();
                break;
            }
            Some(rest) => *text = rest,
            // A macro is called by its name at the root, wherever it is.
            None if text.starts_with('!') => break,
            None => {
                let alias = text.strip_prefix(" as ").map(|mut alias| word(&mut alias));
                found.push((path.clone(), alias.unwrap_or(path[path.len() - 1])));
                break;
            }
        }
    }
    path.truncate(len);
}

/// Takes the next word off; empty before anything else, such as `*`.
fn word<'a>(text: &mut &'a str) -> &'a str {
    let start = text.trim_start();
    let end = start
        .find(|c: char| !(c.is_alphanumeric() || c == '_'))
        .unwrap_or(start.len());
    let (word, rest) = start.split_at(end);
    *text = rest;
    word
}

/// The path from the root of the crate.
fn absolute(module: &Name, path: &[&str]) -> Name {
    let mut base = module.clone();
    for part in path {
        match *part {
            "crate" => base.clear(),
            "super" => drop(base.pop()),
            "self" | "" => {}
            part => base.push(part.to_owned()),
        }
    }
    base
}
