//! Tests the program `arenite-bench` from outside: its lists, its figures, and its messages about missing things.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[allow(dead_code, reason = "made for the tests of resize")]
#[path = "../../bin/tests/resize/world.rs"]
mod world;

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use serde_json::Value;
use world::{Run, World, gone, with_own_mounts};

/// Every case and its systems, in the order in which they run. Scripts and tables of users contain these names, so no
/// name may change unnoticed.
const CASES: &[(&str, &str)] = &[
    (
        "noop-rtt-hot",
        "arenite, rayon, spin, futex, futex-one-core, unix-socket, pipe, ipc-channel",
    ),
    (
        "noop-rtt-idle",
        "arenite, rayon, futex, futex-one-core, unix-socket, pipe, ipc-channel",
    ),
    (
        "noop-rate",
        "arenite, rayon, spin, futex, futex-one-core, unix-socket, pipe, ipc-channel",
    ),
    (
        "noop-rate-submit",
        "arenite, rayon, spin, futex, futex-one-core, unix-socket, pipe, ipc-channel",
    ),
    ("actor-rtt", "arenite, noop"),
    ("cancel-scope", "arenite"),
    ("service-call", "arenite, unix-socket"),
    ("map-1m", "arenite, noop"),
    ("map-1m-memory", "arenite"),
    ("handover-64kib-touch", HANDOVER),
    ("handover-10mb-touch", HANDOVER),
    ("handover-1gib-touch", HANDOVER),
    ("handover-64kib-sum", HANDOVER),
    ("handover-10mb-sum", HANDOVER),
    ("handover-1gib-sum", HANDOVER),
    ("images-64", "arenite, rayon, one-thread, pipe, unix-socket"),
    ("squares-1m", "arenite, rayon, one-thread"),
    ("guard-images-64", "on, off"),
    ("guard-inplace", "on, off"),
    ("sandbox-images-64", "on, off"),
    ("sandbox-noop", "on, off"),
    ("respawn", "arenite, sandbox"),
    ("busy-rtt", "arenite, rayon, thread, unix-socket"),
    ("busy-map", "arenite, rayon, unix-socket"),
    ("busy-images", "arenite, rayon, unix-socket"),
    ("busy-rtt-nice", "arenite, rayon, thread, unix-socket"),
    ("busy-map-nice", "arenite, rayon, unix-socket"),
    ("busy-images-nice", "arenite, rayon, unix-socket"),
    ("busy-own", "arenite, rayon"),
    ("kmeans", "arenite, rayon, one-thread"),
    ("round-rtt", "arenite, noop"),
    ("reduce-1gib", "arenite, rayon, one-thread"),
    ("start", "arenite, bare-spawn, procspawn"),
    ("fresh-write-1gib", "arenite, plain-shm"),
    ("cold-write-1gib", "arenite, plain-shm"),
    ("mixed-makespan", "arenite, ideal"),
    ("scale-1", "arenite"),
    ("scale-2", "arenite"),
    ("scale-4", "arenite"),
    ("scale-8", "arenite"),
    ("scale-16", "arenite"),
    ("scale-32", "arenite"),
    ("scale-64", "arenite"),
    ("stream-3", "arenite, ideal, threads"),
    ("stream-3-memory", "arenite"),
    ("trace", "arenite, off"),
    ("idle-3s", "arenite"),
    ("idle-mb", "arenite"),
    ("io-lanes", "arenite, ideal"),
    ("graph-100k", "arenite, independent"),
    ("chain-10k", "fused, unfused"),
    ("resize-12mp", RESIZE),
    ("resize-0.3mp", RESIZE),
    ("resize-2mp-png", RESIZE),
    ("resize-2mp-webp", RESIZE),
    ("peak-resize-20", "arenite"),
    ("peak-resize-200", "arenite"),
];
const HANDOVER: &str = "arenite, rayon, unix-socket, pipe, ipc-channel, ipc-channel-shm, memcpy";
const RESIZE: &str = "arenite, rayon, vipsthumbnail, vipsthumbnail-p2";

/// Names of the systems of `noop-rtt-hot` in a picture.
const LABELS: [&str; 8] = [
    "arenite",
    "rayon (threads)",
    "bare, spinning, two cores",
    "bare futex, two cores",
    "bare futex, one core",
    "Unix socket",
    "pipe",
    "ipc-channel",
];

const PROGRAM: &str = env!("CARGO_BIN_EXE_arenite-bench");

fn command(world: &World, flags: &str) -> Command {
    let mut command = Command::new(PROGRAM);
    command
        .args(flags.split_whitespace())
        // With this variable, the program would build the command.
        .env_remove("CARGO")
        .current_dir(world.path("."));
    command
}

fn bench(flags: &str) -> Run {
    let world = World::new();
    world.finish(command(&world, flags))
}

/// Returns the cases of `--list` and their systems.
fn listed(flags: &str) -> Vec<(String, String)> {
    let run = bench(&format!("--list {flags}")).exits(0);
    assert_eq!(run.stderr, "");
    let lines = run.lines();
    let heads = lines.iter().zip(&lines[1..]);
    heads
        .filter(|(head, _)| !head.starts_with(' '))
        .map(|(head, systems)| {
            let (id, _) = head.split_once(": ").unwrap();
            (id.to_owned(), systems.trim().to_owned())
        })
        .collect()
}

fn ids(flags: &str) -> Vec<String> {
    listed(flags).into_iter().map(|(id, _)| id).collect()
}

/// Returns the figures of a run of one case, by system.
fn figures(run: &Run) -> BTreeMap<String, Value> {
    let rows: Vec<BTreeMap<String, Value>> = serde_json::from_str(&run.stdout).unwrap();
    rows.into_iter()
        .map(|row| {
            let system = row["system"].as_str().unwrap().to_owned();
            let keys: Vec<&str> = row.keys().map(String::as_str).collect();
            let expected = ["case", "max", "median", "min", "runs", "system", "unit"];
            assert_eq!(keys, expected, "{system}");
            (system, Value::from_iter(row))
        })
        .collect()
}

/// Asserts that each system has figures or is reported as left out.
#[track_caller]
fn measured_or_named(run: &Run, case: &str, systems: &str) {
    let figures = figures(run);
    for system in systems.split(", ") {
        let named = run.stderr.contains(&format!("{case}: {system} left out: "));
        assert_ne!(
            figures.contains_key(system),
            named,
            "{system}: {}",
            run.stderr
        );
    }
}

#[test]
fn every_case_is_listed_with_its_systems() {
    let listed = listed("");
    let listed: Vec<(&str, &str)> = listed
        .iter()
        .map(|(id, systems)| (id.as_str(), systems.as_str()))
        .collect();
    assert_eq!(listed, CASES);
}

#[test]
fn the_list_as_json_equals_the_text() {
    let run = bench("--list --json").exits(0);
    let cases: Vec<Value> = serde_json::from_str(&run.stdout).unwrap();
    let words = |case: &Value, key: &str| -> Vec<String> {
        let words = case[key].as_array().unwrap().iter();
        words.map(|word| word.as_str().unwrap().into()).collect()
    };
    let text = bench("--list").exits(0);
    for (key, sign) in [("goals", "  goal: "), ("notes", "  note: ")] {
        let lines = text.stdout.lines();
        let shown: Vec<&str> = lines.filter_map(|line| line.strip_prefix(sign)).collect();
        let listed: Vec<String> = cases.iter().flat_map(|case| words(case, key)).collect();
        assert!(!shown.is_empty());
        assert_eq!(listed, shown, "{key}");
    }
    let of_text = listed("").into_iter();
    for (case, (id, systems)) in cases.iter().zip(of_text) {
        let (title, unit) = (case["title"].as_str(), case["unit"].as_str());
        let head = format!("{id}: {} [{}", title.unwrap(), unit.unwrap());
        assert!(text.stdout.contains(&head), "{head}");
        assert_eq!(case["case"], id);
        assert_eq!(words(case, "systems").join(", "), systems);
        assert!(case["quick"].is_boolean(), "{case}");
    }
    assert_eq!(cases.len(), CASES.len());
}

#[test]
fn only_accepts_a_name_or_a_prefix() {
    assert_eq!(ids("--only scale-1"), ["scale-1"], "not scale-16");
    let some = ids("--only handover-10mb --only idle");
    assert_eq!(
        some,
        [
            "handover-10mb-touch",
            "handover-10mb-sum",
            "idle-3s",
            "idle-mb"
        ]
    );
}

#[test]
fn an_unknown_case_is_wrong_usage_and_the_known_ones_are_listed() {
    let run = bench("--only noop-rtt-cold").exits(2);
    assert_eq!(run.stdout, "");
    assert_eq!(run.errors().len(), 1, "{}", run.stderr);
    assert!(run.stderr.contains("\"noop-rtt-cold\""), "{}", run.stderr);
    for (id, _) in CASES {
        assert!(run.stderr.contains(id), "{id}: {}", run.stderr);
    }
}

#[test]
fn wrong_usage_is_exit_code_2() {
    for flags in ["--runs 0", "--warmup -1", "--nonsense", "noop-rtt-hot"] {
        let run = bench(flags).exits(2);
        assert!(run.stdout.is_empty() && !run.stderr.is_empty(), "{flags}");
    }
    // The error comes before anything is measured.
    let run = bench("--only idle-3s --svg no/such/folder.svg").exits(2);
    let no_file = "error: cannot write no/such/folder.svg: no such file or directory\n";
    assert_eq!(run.stderr, no_file);
    let run = bench("--only idle-3s --svg /").exits(2);
    let folder = "error: cannot write /: is a directory\n";
    assert_eq!(run.stderr, folder);
}

#[test]
fn json_and_svg_contain_all_systems() {
    let world = World::new();
    let flags = "--only noop-rtt-hot --runs 1 --warmup 0 --json --svg x.svg";
    let run = world.finish(command(&world, flags)).exits(0);
    // `figures` fails unless stdout is one list.
    let (case, systems) = CASES[0];
    for (system, row) in figures(&run) {
        let number = |key: &str| row[key].as_f64().unwrap();
        assert_eq!((&row["case"], &row["unit"]), (&case.into(), &"us".into()));
        assert_eq!(row["runs"], 1, "{system}");
        assert!(number("median") > 0.0, "{system}");
        let same = (number("min"), number("max"));
        assert_eq!(same, (number("median"), number("median")), "{system}");
    }
    measured_or_named(&run, case, systems);
    assert!(
        run.stderr.starts_with("measuring noop-rtt-hot"),
        "{}",
        run.stderr
    );

    let picture = std::fs::read_to_string(world.path("x.svg")).unwrap();
    let words = words_of(&picture);
    for label in LABELS {
        assert!(
            words.iter().any(|words| words == label),
            "{label}: {words:?}"
        );
    }
}

#[test]
fn the_table_has_goals_and_notes() {
    let run = bench("--only noop-rtt-idle --quick --runs 2 --warmup 0").exits(0);
    let begins = |start: &str| run.lines().iter().any(|line| line.starts_with(start));
    let (_, systems) = CASES[1];
    for system in systems.split(", ") {
        assert!(begins(&format!("  {system} ")), "{system}: {}", run.stdout);
    }
    assert!(begins("noop-rtt-idle: "), "{}", run.stdout);
    assert!(begins("  goal: at most 1.25 × "), "{}", run.stdout);
    assert!(begins("  note: without spin: "), "{}", run.stdout);
    assert!(!run.stdout.contains("measuring"), "{}", run.stdout);
}

/// No case finishes within a millisecond, so only the case that has begun is measured; all others are reported in every
/// output.
#[test]
fn cases_without_time_left_are_reported() {
    let run = bench("--list --json").exits(0);
    let listed: Vec<Value> = serde_json::from_str(&run.stdout).unwrap();
    let is_quick = |id: &&str| {
        listed
            .iter()
            .any(|case| case["case"] == *id && case["quick"] == true)
    };
    let ids = CASES.iter().map(|(id, _)| *id);
    let quick: Vec<&str> = ids.filter(is_quick).collect();
    assert!(quick.len() > 20, "{quick:?}");
    let why = "no time was left of 1ms";

    let run = bench("--quick --budget 1ms").exits(0);
    let programs = bench("--quick --budget 1ms --json").exits(0);
    let rows: Vec<Value> = serde_json::from_str(&programs.stdout).unwrap();
    for (id, systems) in CASES.iter().filter(|(id, _)| quick[1..].contains(id)) {
        for stderr in [&run.stderr, &programs.stderr] {
            let line = format!("{id} left out: {why}");
            assert!(stderr.lines().any(|said| said == line), "{id}: {stderr}");
            assert!(!stderr.contains(&format!("measuring {id} ")), "{stderr}");
        }
        let shown = run.stdout.split("\n\n");
        let head = format!("{id}: ");
        let shown: Vec<&str> = shown.filter(|case| case.starts_with(&head)).collect();
        assert_eq!(shown.len(), 1, "{id}: {}", run.stdout);
        for system in systems.split(", ") {
            let line = format!("  {system:<17} left out: {why}");
            assert!(shown[0].lines().any(|said| said == line), "{}", shown[0]);
            let of_it = |row: &&Value| row["case"] == *id && row["system"] == system;
            let rows: Vec<&Value> = rows.iter().filter(of_it).collect();
            assert_eq!(rows.len(), 1, "{id}: {system}");
            assert_eq!(rows[0]["left_out"], why, "{}", rows[0]);
            assert!(rows[0].get("median").is_none(), "{}", rows[0]);
        }
    }
}

/// A sample of this case consists of forty operations with pauses of 2 ms, so at most two samples begin within 100 ms.
#[test]
fn a_case_ends_with_the_time_budget() {
    let run = bench("--only noop-rtt-idle --quick --budget 100ms --json").exits(0);
    let rows: Vec<Value> = serde_json::from_str(&run.stdout).unwrap();
    let (late, measured): (Vec<&Value>, Vec<&Value>) =
        rows.iter().partition(|row| row.get("left_out").is_some());
    let samples: u64 = measured
        .iter()
        .map(|row| row["runs"].as_u64().unwrap())
        .sum();
    assert!(samples <= 2, "{measured:?}");
    let systems = CASES[1].1.split(", ").count();
    assert_eq!(late.len() + measured.len(), systems);
    assert!(late.len() >= systems - 2, "{late:?}");
}

#[test]
fn a_missing_program_is_reported_and_the_run_continues() {
    let world = World::new();
    // The folder has room for a few photos only, because their creation takes time and the test needs none.
    let script = format!(
        "mkdir small && mount -t tmpfs -o size=256k tmpfs small &&
        unset CARGO && TMPDIR=$PWD/small PATH= exec {PROGRAM} \
            --only resize-0.3mp --only squares-1m --quick --runs 1 --warmup 0 --json"
    );
    let Some(run) = with_own_mounts(&world, &script) else {
        return;
    };
    let run = run.exits(0);
    for system in ["vipsthumbnail", "vipsthumbnail-p2"] {
        let line = format!("resize-0.3mp: {system} left out: vipsthumbnail is not installed");
        assert!(run.stderr.contains(&line), "{}", run.stderr);
    }
    for system in ["arenite", "rayon"] {
        let line = format!("resize-0.3mp: {system} left out: no photos: ");
        assert!(run.stderr.contains(&line), "{}", run.stderr);
    }
    measured_or_named(&run, "squares-1m", "arenite, rayon, one-thread");
}

#[test]
fn an_interrupted_bench_keeps_the_old_picture_and_leaves_no_new_one() {
    for old in [Some("<svg/>"), None] {
        let world = World::new();
        if let Some(old) = old {
            world.file("x.svg", old.as_bytes());
        }
        let mut child = command(&world, "--only idle-3s --svg x.svg")
            .process_group(0)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        stderr.read_line(&mut said).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        gone(child.id());
        assert!(said.starts_with("measuring"), "{said}");
        let left = std::fs::read_to_string(world.path("x.svg")).ok();
        assert_eq!(left.as_deref(), old);
        assert!(world.all("").len() <= 1, "{:?}", world.all(""));
        // Killed while it makes the arena of an engine, it leaves a name, which the next engine removes.
        let next = command(&world, "--only noop-rtt-idle --quick --runs 2 --warmup 0");
        world.finish(next).exits(0);
    }
}

#[test]
fn figures_that_cannot_be_written_are_exit_code_1() {
    let world = World::new();
    let mut command = command(&world, "--list");
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = command.stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(!output.stderr.is_empty());
}

/// Root may read more about a worker than other users, who must be able to measure its memory too.
#[test]
fn a_user_without_privileges_measures_the_memory_of_workers() {
    let world = World::new();
    let program = world.path("arenite-bench");
    // Another program copies the file: otherwise a child that another test starts meanwhile could have the file open
    // for writing, and a file that is open for writing cannot be executed.
    let copied = Command::new("cp").arg(PROGRAM).arg(&program).status();
    assert!(copied.unwrap().success());
    world.mode("", 0o777);
    let mut command = Command::new(&program);
    if std::fs::metadata("/proc/self").unwrap().uid() == 0 {
        command = Command::new("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
            .arg(&program);
    }
    command
        .args("--only idle-mb --runs 1 --json".split(' '))
        .current_dir(world.path(""))
        .env("HOME", world.path(""))
        .env("TMPDIR", world.path(""));
    let run = world.finish(command).exits(0);
    let megabytes = figures(&run)["arenite"]["median"].as_f64().unwrap();
    // A worker has at least a stack and a heap.
    assert!(megabytes > 0.01, "{}", run.stdout);
}

/// Returns the texts of an XML file. Asserts that it is well formed as far as the pictures need: a single root, each element
/// closed by its own name, attributes in quotes, and neither `<`, `>` nor `&` elsewhere.
#[track_caller]
fn words_of(xml: &str) -> Vec<String> {
    let mut open: Vec<&str> = Vec::new();
    let mut words = Vec::new();
    let mut rest = xml.trim_end();
    while let Some((before, tag)) = rest.split_once('<') {
        words.push(unescaped(before));
        let (tag, behind) = tag.split_once('>').expect("each tag ends");
        rest = behind;
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "closed by its own name");
            assert_eq!(
                open.is_empty(),
                rest.is_empty(),
                "one root, and nothing after it"
            );
            continue;
        }
        let (tag, alone) = match tag.strip_suffix('/') {
            Some(tag) => (tag, true),
            None => (tag, false),
        };
        let (name, attributes) = tag.split_once(' ').unwrap_or((tag, ""));
        assert!(name.chars().all(char::is_alphanumeric), "{name}");
        attributes_of(attributes);
        if !alone {
            open.push(name);
        }
    }
    assert!(rest.is_empty() && open.is_empty(), "open: {open:?}");
    words.retain(|words| !words.trim().is_empty());
    words
}

#[track_caller]
fn attributes_of(mut rest: &str) {
    while !rest.trim().is_empty() {
        let (name, value) = rest
            .trim_start()
            .split_once("=\"")
            .expect("a value in quotes");
        let is_name = |c: char| c.is_alphanumeric() || c == '-' || c == ':';
        assert!(name.chars().all(is_name), "{name}");
        let (value, behind) = value.split_once('"').expect("quotes are closed");
        unescaped(value);
        rest = behind;
    }
}

#[track_caller]
fn unescaped(words: &str) -> String {
    assert!(!words.contains('>'), "{words}");
    let mut parts = words.split('&');
    let mut plain = parts.next().unwrap().to_owned();
    for part in parts {
        let (name, behind) = part.split_once(';').expect("& begins an entity");
        plain.push(match name {
            "amp" => '&',
            "lt" => '<',
            "gt" => '>',
            "quot" => '"',
            _ => panic!("&{name}; is not an entity"),
        });
        plain.push_str(behind);
    }
    plain
}
