//! Ctrl-C, and worse.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Stdio};

use crate::world::{Run, World, jpeg, signal, signal_group, wait};

const PICTURES: usize = 150;

/// Enough work that a signal after the first result comes long before the last.
fn world() -> World {
    let world = World::new();
    world.file("p/000.jpg", &jpeg(2400, 1800));
    for index in 1..PICTURES {
        fs::hard_link(
            world.path("p/000.jpg"),
            world.path(&format!("p/{index:03}.jpg")),
        )
        .unwrap();
    }
    world
}

/// Starts a run and returns when its first result is written.
fn begun(world: &World, line: &str) -> (Child, BufReader<ChildStdout>, String) {
    let mut command = world.command(line);
    let mut child = command
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut first = String::new();
    stdout.read_line(&mut first).unwrap();
    assert!(first.ends_with(".jpg\n"), "{first:?}");
    (child, stdout, first)
}

fn ended((child, mut stdout, mut text): (Child, BufReader<ChildStdout>, String)) -> Run {
    stdout.read_to_string(&mut text).unwrap();
    let mut run = wait(child);
    run.stdout = text;
    run
}

#[test]
fn ctrl_c_finishes_what_runs_says_how_to_resume_and_ends_with_130() {
    let world = world();
    let running = begun(&world, "p -s 200 -o out");
    // As a terminal does it: the workers get it, too.
    signal_group(running.0.id(), libc::SIGINT);
    let run = ended(running).exits(130).says(&["interrupted", "--resume"]);
    let written: Vec<String> = run
        .lines()
        .iter()
        .map(|line| line.trim_start_matches("out/").to_owned())
        .collect();
    assert!(
        !written.is_empty() && written.len() < PICTURES,
        "{}",
        written.len()
    );
    assert_eq!(
        world.all("out").len(),
        written.len() + 1,
        "nothing but results and the record"
    );
    for name in &written {
        assert_eq!(world.sides(&format!("out/{name}")), (200, 150));
    }
    let run = world.run("p -s 200 -o out --resume").exits(0);
    assert_eq!(
        run.lines().len(),
        PICTURES - written.len(),
        "the rest, and only the rest"
    );
    assert_eq!(world.tree("out").len(), PICTURES);
}

#[test]
fn json_tells_what_was_not_begun() {
    let world = world();
    let mut command = world.command("p -s 200 -o out --json");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut text = String::new();
    stdout.read_line(&mut text).unwrap();
    signal(child.id(), libc::SIGTERM);
    let lines = ended((child, stdout, text)).exits(143).json();
    assert_eq!(lines.len(), PICTURES + 1);
    let pending = lines
        .iter()
        .filter(|line| line["status"] == "pending")
        .count();
    let summary = lines.last().unwrap();
    assert_eq!(summary["status"], "interrupted");
    assert!(pending > 0 && summary["pending"] == pending, "{summary}");
}

#[test]
fn a_second_ctrl_c_ends_at_once() {
    let world = world();
    let running = begun(&world, "p -s 200 -o out -j 1");
    // The second may come before the first is handled, which makes them one; either way it is 130.
    signal(running.0.id(), libc::SIGINT);
    signal(running.0.id(), libc::SIGINT);
    ended(running).exits(130);
}

#[test]
fn a_killed_run_leaves_whole_files_and_can_be_resumed() {
    let world = world();
    let running = begun(&world, "p -s 200 -o out");
    signal(running.0.id(), libc::SIGKILL);
    let run = ended(running);
    assert_eq!(run.code, None);
    for name in world.tree("out") {
        assert_eq!(world.sides(&format!("out/{name}")), (200, 150), "{name}");
    }
    world.run("p -s 200 -o out --resume").exits(0);
    assert_eq!(world.tree("out").len(), PICTURES);
}
