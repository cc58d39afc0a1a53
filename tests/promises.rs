//! `docs/guarantees.md` and `docs/security.md` name the tests that show each promise: those tests have to exist.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};

/// Suites that the tables may name, with their paths.
const SUITES: [(&str, &str); 15] = [
    ("lib", "src/supervisor/tests"),
    ("engine", "tests/engine"),
    ("model", "tests/model"),
    ("killing", "tests/killing"),
    ("hostile", "tests/hostile"),
    ("sandbox", "tests/sandbox"),
    ("store", "tests/store"),
    ("fuzz", "tests/fuzz"),
    ("tables", "tests/tables"),
    ("tables-lib", "tables/src/tests"),
    ("layers", "tests/layers.rs"),
    ("resize", "bin/tests/resize"),
    ("doctor", "bin/tests/doctor.rs"),
    ("upgrade", "bin/tests/upgrade.rs"),
    ("python", "python/tests"),
];

/// The head of a table of promises.
const PROMISES: &str = "| promise | shown by |\n|---|---|\n";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// The tests named in tables with this head: suite and path, such as `engine deaths::while_running`.
fn named(page: &str, head: &str) -> Vec<String> {
    let tables = page.split(head).skip(1);
    let rows = tables.flat_map(|table| table.lines().take_while(|line| line.starts_with('|')));
    rows.flat_map(|row| {
        let shown = row.trim_end_matches('|').rsplit('|').next().unwrap();
        let names: Vec<_> = shown.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "a promise without a test: {row}");
        names
    })
    .map(str::to_owned)
    .collect()
}

/// Returns the commands of the table of faults: tests, by suite and path, and rows of the soak.
fn commanded(table: &str) -> (Vec<String>, Vec<String>) {
    let rows = table
        .lines()
        .skip_while(|line| !line.starts_with("|---"))
        .skip(1)
        .take_while(|line| line.starts_with('|'));
    let (mut tests, mut soaked) = (Vec::new(), Vec::new());
    for row in rows {
        // The last suite named in this row; none for unit tests.
        let mut suite = None;
        let commands = row.split('|').nth(2).unwrap().split('`');
        for command in commands.skip(1).step_by(2) {
            let mut words = command.split_whitespace().peekable();
            while let Some(word) = words.next() {
                match word {
                    "--test" | "points" => suite = words.next(),
                    "--lib" => suite = None,
                    "--only" => soaked.push(words.next().unwrap().to_owned()),
                    path if path.contains("::") => {
                        tests.extend(suite.map(|suite| format!("{suite} {path}")));
                    }
                    _ => {}
                }
            }
        }
    }
    (tests, soaked)
}

/// Returns what is wrong with a name, whose path leads through folders and files to a test in the last of them.
fn missing(name: &str) -> Option<String> {
    let (suite, path) = name.split_once(' ').unwrap_or((name, ""));
    let Some((_, place)) = SUITES.iter().find(|(known, _)| *known == suite) else {
        return Some(format!("no suite {suite}"));
    };
    let mut at = root().join(place);
    let mut parts = path.split("::").filter(|part| !part.is_empty());
    for part in parts.by_ref() {
        let [rust, python] = ["rs", "py"].map(|end| at.join(format!("{part}.{end}")));
        let inside = [at.join(part), rust, python];
        if let Some(found) = inside.into_iter().find(|path| path.exists()) {
            at = found;
            continue;
        }
        if !tests_of(&at).iter().any(|test| test == part) {
            return Some(format!("{name}: no {part} in {}", at.display()));
        }
        // A test contains no other.
        let rest = parts.next();
        return rest.map(|rest| format!("{name}: {part} is a test, and {rest} none in it"));
    }
    let files = files(&at);
    let empty = files.iter().all(|file| tests_of(file).is_empty());
    empty.then(|| format!("{name}: no test in {}", at.display()))
}

/// Returns the tests of a file, or of the `mod.rs` of a folder: functions after `#[test]`, those in a list for the
/// harness, and those of Python whose name begins with `test_`. A file that builds its list in a function has one test
/// without a name.
fn tests_of(place: &Path) -> Vec<String> {
    let file = match place.is_dir() {
        true => place.join("mod.rs"),
        false => place.to_owned(),
    };
    let Ok(text) = fs::read_to_string(file) else {
        return Vec::new();
    };
    let name = |text: &str| {
        let is_part = |c: char| c.is_alphanumeric() || c == '_';
        text.split(|c| !is_part(c))
            .find(|part| !part.is_empty())
            .unwrap_or_default()
            .to_owned()
    };
    if place.extension().is_some_and(|end| end == "py") {
        let tests = text.split("\ndef ").skip(1).map(name);
        return tests.filter(|test| test.starts_with("test_")).collect();
    }
    let defined = |test: &String| text.contains(&format!("fn {test}("));
    let plain = text.split("#[test]").skip(1);
    let plain = plain.filter_map(|behind| Some(name(behind.split_once("fn ")?.1)));
    let lists = text.split("tests![").skip(1);
    let lists = lists.filter_map(|list| Some(list.split_once(']')?.0));
    let listed = lists.flat_map(|list| list.split([',', ';', '>']).map(name));
    let made = text.contains("Trial> {");
    let mut tests: Vec<_> = plain.chain(listed).filter(defined).collect();
    tests.extend(made.then(String::new));
    tests
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
        .filter(|path| {
            path.extension()
                .is_some_and(|end| end == "rs" || end == "py")
        })
        .collect()
}

#[test]
fn every_test_named_beside_a_promise_exists() {
    let guarantees = fs::read_to_string(root().join("docs/guarantees.md")).unwrap();
    let mut names = named(&guarantees, PROMISES);
    assert!(names.len() > 80, "a table was not found: {names:?}");
    let head = "| against | protected | not protected | shown by |\n|---|---|---|---|\n";
    let security = fs::read_to_string(root().join("docs/security.md")).unwrap();
    let protected = named(&security, head);
    assert!(protected.len() > 20, "no table: {protected:?}");
    names.extend(protected);
    let missing: Vec<_> = names.iter().filter_map(|name| missing(name)).collect();
    assert!(missing.is_empty(), "\n{}", missing.join("\n"));
}

#[test]
fn everything_that_the_table_of_faults_names_exists() {
    let soak = root().join("tests/soak");
    let table = fs::read_to_string(soak.join("README.md")).unwrap();
    let (tests, soaked) = commanded(&table);
    assert!(
        tests.len() > 20 && soaked.len() > 15,
        "{tests:?} {soaked:?}"
    );
    let missing: Vec<_> = tests.iter().filter_map(|name| missing(name)).collect();
    assert!(missing.is_empty(), "\n{}", missing.join("\n"));
    let rows = fs::read_to_string(soak.join("main.rs")).unwrap();
    for row in soaked {
        assert!(rows.contains(&format!("(\"{row}\",")), "no row {row}");
    }
    // Each suite that kills workers is named in the row.
    let table = table.split("| a worker killed").nth(1).unwrap();
    let (row, _) = table.split_once('\n').unwrap();
    for file in files(&root().join("tests/killing")) {
        let text = fs::read_to_string(&file).unwrap();
        let name = file.file_stem().unwrap().to_str().unwrap();
        let kills = ["Fault::Kill", "Death::arm"]
            .iter()
            .any(|fault| text.contains(fault));
        let kills_workers = kills && text.contains("points(Side::Worker)");
        assert!(
            !kills_workers || row.contains(&format!("`{name}::`")),
            "{name}"
        );
    }
}

#[test]
fn a_test_that_does_not_exist_is_found() {
    assert_eq!(missing("engine deaths::while_running"), None);
    assert_eq!(missing("engine deaths"), None);
    assert!(missing("engine deaths::while_asleep").is_some());
    // A test of another file, a function that is no test, and a path below a test.
    assert_eq!(missing("engine logs::a_flood_is_dropped_and_counted"), None);
    assert!(missing("engine deaths::a_flood_is_dropped_and_counted").is_some());
    assert!(missing("sandbox wild::assert_refused").is_some());
    assert!(missing("sandbox lab").is_some());
    assert!(missing("engine deaths::while_running::deaths").is_some());
    assert!(missing("nothing deaths").is_some());
    let table = "# A\n\n| promise | shown by |\n|---|---|\n| one `x` | `engine deaths`, `fuzz` |\n";
    assert_eq!(named(table, PROMISES), ["engine deaths", "fuzz"]);
    let table = "| a | b |\n|---|---|\n| f | `soak --only x`, `points killing a::`, `b::c` | d |\n\
        | g | `tests --test engine d::`; `tests -p arenite --lib e::f` | d |\n";
    let expected = ["killing a::", "killing b::c", "engine d::"].map(str::to_owned);
    assert_eq!(commanded(table), (expected.to_vec(), vec!["x".to_owned()]));
}
