//! Ctrl-C, and worse.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Stdio};

use crate::world::{Run, World, encoded, jpeg, png, signal, signal_group, wait};

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

/// The processes whose parent is `id`, whichever of its threads started them.
fn children(id: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{id}/task")).unwrap();
    let mut children: Vec<u32> = tasks
        .filter_map(|task| fs::read_to_string(task.ok()?.path().join("children")).ok())
        .flat_map(|list| {
            list.split_whitespace()
                .map(|id| id.parse().unwrap())
                .collect::<Vec<u32>>()
        })
        .collect();
    children.sort_unstable();
    children.dedup();
    children
}

#[test]
fn a_worker_that_dies_costs_one_picture_which_is_named_with_the_cause() {
    // Long work, so that the queue of the worker does not run dry on a busy machine.
    const LARGE: usize = 30;
    let world = World::new();
    world.file("p/000.png", &png(3000, 2000));
    for index in 1..LARGE {
        fs::hard_link(
            world.path("p/000.png"),
            world.path(&format!("p/{index:03}.png")),
        )
        .unwrap();
    }
    // Between two jobs a worker dies without harm; the next try meets it at work.
    for _ in 0..10 {
        let mut command = world.command("p -s 200 -o out -j 1 --json");
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut text = String::new();
        stdout.read_line(&mut text).unwrap();
        let workers = children(child.id());
        assert_eq!(workers.len(), 1, "one worker process was asked for");
        signal(workers[0], libc::SIGKILL);
        let run = ended((child, stdout, text));
        let lines = run.json();
        let (summary, files) = lines.split_last().unwrap();
        let failed: Vec<_> = files
            .iter()
            .filter(|line| line["status"] == "failed")
            .collect();
        assert_eq!(files.len(), LARGE);
        if failed.is_empty() {
            continue;
        }
        assert_eq!(failed.len(), 1, "{failed:?}");
        assert_eq!(summary["written"], LARGE - 1);
        assert_eq!(failed[0]["cause"], "signal-9", "{failed:?}");
        let name = failed[0]["input"].as_str().unwrap().to_owned();
        run.exits(1).says(&[&name, "SIGKILL"]);
        return;
    }
    panic!("a worker was never met at work");
}

#[test]
fn a_picture_that_needs_more_memory_than_a_worker_may_use_is_one_failure() {
    let world = World::new();
    world.photos(&["p/a.jpg", "p/z.jpg"]);
    // 200 MB of pixels in a small file.
    let flat = image::DynamicImage::ImageRgb8(image::RgbImage::new(8200, 8200));
    world.file("p/large.png", &encoded(&flat, image::ImageFormat::Png));
    let run = world
        .run("p -s 8 -o out -j 1 --memory-limit 100MiB")
        .exits(1)
        .says(&["p/large.png"]);
    assert_eq!(run.lines(), ["out/a.jpg", "out/z.jpg"]);
    assert_eq!(run.errors().len(), 1, "{}", run.stderr);
}
