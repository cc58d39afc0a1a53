//! The README says which test shows which promise: those tests have to exist.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};

/// Suites that the table may name, and where they are.
const SUITES: [(&str, &str); 9] = [
    ("engine", "tests/engine"),
    ("model", "tests/model"),
    ("killing", "tests/killing"),
    ("hostile", "tests/hostile"),
    ("sandbox", "tests/sandbox"),
    ("fuzz", "tests/fuzz"),
    ("floors", "tests/floors.rs"),
    ("resize", "bin/tests/resize"),
    ("doctor", "bin/tests/doctor.rs"),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What stands between backticks in the table below the heading: suite and path, such as `engine deaths::while_idle`.
fn named(readme: &str) -> Vec<String> {
    let table = readme.split("### What is promised").nth(1).unwrap();
    let rows = table
        .lines()
        .skip_while(|line| !line.starts_with("|---"))
        .skip(1)
        .take_while(|line| line.starts_with('|'));
    rows.flat_map(|row| {
        let shown = row.trim_end_matches('|').rsplit('|').next().unwrap();
        let names: Vec<_> = shown.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "a promise without a test: {row}");
        names
    })
    .map(str::to_owned)
    .collect()
}

/// Whether the suite has each part of the path: as a file, a folder or a function.
fn missing(name: &str) -> Option<String> {
    let (suite, path) = name.split_once(' ').unwrap_or((name, ""));
    let Some((_, place)) = SUITES.iter().find(|(known, _)| *known == suite) else {
        return Some(format!("no suite {suite}"));
    };
    let files = files(&root().join(place));
    if files.is_empty() {
        return Some(format!("nothing at {place}"));
    }
    let has = |part: &str| {
        files.iter().any(|file| {
            let named = |path: &Path| path.file_stem().is_some_and(|stem| stem == part);
            named(file)
                || file.parent().is_some_and(named)
                || fs::read_to_string(file)
                    .unwrap()
                    .contains(&format!("fn {part}("))
        })
    };
    let mut parts = path.split("::").filter(|part| !part.is_empty());
    parts
        .find(|part| !has(part))
        .map(|part| format!("{name}: no {part} in {place}"))
}

fn files(place: &Path) -> Vec<PathBuf> {
    if place.is_file() {
        return vec![place.to_owned()];
    }
    let Ok(entries) = fs::read_dir(place) else {
        return Vec::new();
    };
    entries
        .flatten()
        .flat_map(|entry| files(&entry.path()))
        .filter(|path| path.extension().is_some_and(|end| end == "rs"))
        .collect()
}

#[test]
fn every_test_that_the_readme_names_exists() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let names = named(&readme);
    assert!(names.len() > 20, "the table was not found: {names:?}");
    let missing: Vec<_> = names.iter().filter_map(|name| missing(name)).collect();
    assert!(missing.is_empty(), "\n{}", missing.join("\n"));
}

#[test]
fn a_test_that_does_not_exist_is_found() {
    assert_eq!(missing("engine deaths::while_idle"), None);
    assert_eq!(missing("engine deaths"), None);
    assert!(missing("engine deaths::while_asleep").is_some());
    assert!(missing("nothing deaths").is_some());
    let table =
        "### What is promised\n\n| a | b |\n|---|---|\n| one `x` | `engine deaths`, `fuzz` |\n";
    assert_eq!(named(table), ["engine deaths", "fuzz"]);
}
