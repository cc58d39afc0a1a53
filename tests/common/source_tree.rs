//! Reads the source of a crate as a tree of modules and their imports.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The path of a module or an item, below the root of its crate.
type Name = Vec<String>;

/// The modules of a crate.
pub struct Tree(BTreeMap<Name, Module>);

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

/// Returns the root of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Adds the Rust files below `folder`, with their text.
pub fn collect(folder: &Path, files: &mut BTreeMap<String, String>) {
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
    /// Reads the files below a folder of the repository.
    pub fn read(folder: &str) -> Self {
        let folder = root().join(folder);
        let mut files = BTreeMap::new();
        collect(&folder, &mut files);
        let skip = folder.to_str().unwrap().len() + 1;
        Self::of(files.iter().map(|(path, text)| (&path[skip..], &**text)))
    }

    /// Builds a tree from paths and texts.
    pub fn of<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
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
    pub fn upward_uses<'a>(&'a self, layers: &'a [&str]) -> impl Iterator<Item = String> {
        let rank = |name: &Name| {
            layers
                .iter()
                .position(|layer| Some(*layer) == name.first().map(|part| &**part))
        };
        self.0.iter().flat_map(move |(name, module)| {
            let own = rank(name).unwrap_or(layers.len());
            let is_above = move |used: &&Use| {
                let target = rank(&used.target).or_else(|| rank(&self.owner(&used.target)));
                target.unwrap_or(layers.len()) > own
            };
            let above = module.uses.iter().filter(is_above);
            above.map(move |used| format!("{} uses {}", name.join("::"), used.target.join("::")))
        })
    }

    /// Modules below `folder` that import each other in a circle; tests and re-exports do not count.
    pub fn cycles(&self, folder: &str) -> BTreeSet<BTreeSet<String>> {
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
