//! Signals during a run, and killed processes.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use crate::begun::begun;
use crate::world::{
    World, children, encoded, gone, jpeg, png, signal, signal_group, wait, wait_until,
};

const PICTURES: usize = 150;

/// Enough work that a signal after the first result arrives long before the last result.
fn world() -> World {
    let world = World::new();
    world.file("p/000.jpg", &jpeg(1200, 900));
    for index in 1..PICTURES {
        fs::hard_link(
            world.path("p/000.jpg"),
            world.path(&format!("p/{index:03}.jpg")),
        )
        .unwrap();
    }
    world
}

#[test]
fn a_signal_to_the_group_finishes_pictures_in_flight_and_sets_the_exit_code() {
    for (signal, code) in [
        (libc::SIGINT, 130),
        (libc::SIGTERM, 143),
        (libc::SIGHUP, 129),
    ] {
        let world = world();
        let running = begun(world.command("p -s 200 -o out -j 2"));
        // Like a terminal or a service manager: the workers receive it too.
        signal_group(running.id(), signal);
        let run = running
            .ended()
            .exits(code)
            .says(&["interrupted", "--resume"]);
        assert_eq!(run.errors().len(), 1, "no picture failed: {}", run.stderr);
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
        if signal == libc::SIGINT {
            let run = world.run("p -s 200 -o out --resume").exits(0);
            assert_eq!(
                run.lines().len(),
                PICTURES - written.len(),
                "the rest, and only the rest"
            );
            assert_eq!(world.tree("out").len(), PICTURES);
        }
    }
}

#[test]
fn json_lists_what_was_not_begun() {
    let world = world();
    let running = begun(world.command("p -s 200 -o out -j 2 --json"));
    signal(running.id(), libc::SIGTERM);
    let lines = running.ended().exits(143).json();
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
fn a_second_signal_ends_at_once_even_while_a_worker_hangs() {
    let world = world();
    let mut running = begun(world.command("p -s 200 -o out -j 1"));
    let id = running.id();
    let workers = children(id);
    signal(workers[0], libc::SIGSTOP);
    let mut stderr = BufReader::new(running.stderr());
    signal(id, libc::SIGINT);
    let mut note = String::new();
    stderr.read_line(&mut note).unwrap();
    assert!(note.contains("a second signal ends at once"), "{note}");
    signal(id, libc::SIGTERM);
    running.ended().exits(143);
    let mut last = String::new();
    stderr.read_to_string(&mut last).unwrap();
    assert_eq!(
        last,
        "error: ended at once; run the same command with --resume to continue\n"
    );
    gone(id);
    assert!(
        world.all("out").iter().all(|name| !name.ends_with(".tmp")),
        "{:?}",
        world.all("out")
    );
}

/// A shell and Linux each send one when a terminal closes.
#[test]
fn a_second_hang_up_is_ignored() {
    let world = world();
    let mut running = begun(world.command("p -s 200 -o out -j 1"));
    let id = running.id();
    let workers = children(id);
    signal(workers[0], libc::SIGSTOP);
    let mut stderr = BufReader::new(running.stderr());
    signal(id, libc::SIGHUP);
    let mut said = String::new();
    stderr.read_line(&mut said).unwrap();
    assert!(said.contains("pictures under way finish"), "{said}");
    signal(id, libc::SIGHUP);
    wait_until("it has handled the second", || {
        !has("ShdPnd:", id, libc::SIGHUP)
    });
    signal(workers[0], libc::SIGCONT);
    running.ended().exits(129);
    stderr.read_to_string(&mut said).unwrap();
    assert!(
        said.contains("interrupted") && !said.contains("at once; run"),
        "{said}"
    );
}

#[test]
fn before_work_begins_the_first_signal_ends_at_once() {
    let world = World::new();
    for (number, code) in [
        (libc::SIGINT, 130),
        (libc::SIGTERM, 143),
        (libc::SIGHUP, 129),
    ] {
        // It waits for a list on stdin that never arrives.
        let child = world
            .command("- -s 200 -o out")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        wait_until("it listens", || has(CAUGHT, child.id(), number));
        signal(child.id(), number);
        let mut child = child;
        let stdin = child.stdin.take();
        wait(child).exits(code);
        drop(stdin);
        assert!(!world.path("out").exists());
    }
}

#[test]
fn a_signal_ignored_at_start_stays_ignored() {
    let world = world();
    let mut command = Command::new("sh");
    command
        .args(["-c", "trap '' HUP; exec \"$0\" resize p -s 200 -o out"])
        .arg(env!("CARGO_BIN_EXE_arenite"))
        .current_dir(world.path(""));
    let running = begun(command);
    assert!(!has(CAUGHT, running.id(), libc::SIGHUP));
    signal_group(running.id(), libc::SIGHUP);
    let run = running.ended().exits(0);
    assert_eq!(run.lines().len(), PICTURES);
}

/// The signals that a process has handlers for.
const CAUGHT: &str = "SigCgt:";

/// Whether the signal is in this set of the process.
fn has(set: &str, id: u32, number: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix(set));
    u64::from_str_radix(mask.unwrap().trim(), 16).unwrap() & 1 << (number - 1) != 0
}

#[test]
fn a_killed_run_leaves_whole_files_and_can_be_resumed() {
    let world = world();
    let running = begun(world.command("p -s 200 -o out"));
    signal(running.id(), libc::SIGKILL);
    let run = running.ended();
    assert_eq!(run.code, Some(128 + libc::SIGKILL));
    for name in world.tree("out") {
        assert_eq!(world.sides(&format!("out/{name}")), (200, 150), "{name}");
    }
    world.run("p -s 200 -o out --resume").exits(0);
    assert_eq!(world.tree("out").len(), PICTURES);
}

#[test]
fn a_killed_worker_fails_one_picture_with_the_cause() {
    // Long jobs, so that the worker does not run out of them on a busy machine.
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
    // Between two jobs a worker dies without harm: try again until it dies during one.
    for _ in 0..10 {
        let running = begun(world.command("p -s 200 -o out -j 1 --json"));
        let workers = children(running.id());
        assert_eq!(workers.len(), 1, "one worker process was asked for");
        signal(workers[0], libc::SIGKILL);
        let run = running.ended();
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
    panic!("no worker died during a job");
}

#[test]
fn a_picture_beyond_the_memory_limit_is_one_failure() {
    let world = World::new();
    world.photos(&["p/a.jpg", "p/z.jpg"]);
    // 201.7 MB of pixels in a small file: the limit below leaves room for nothing else.
    let flat = image::DynamicImage::ImageRgb8(image::RgbImage::new(8200, 8200));
    world.file("p/large.png", &encoded(&flat, image::ImageFormat::Png));
    let mut command = world.command("p -s 8 -o out -j 1 --memory-limit 193MiB");
    command.env("RUST_BACKTRACE", "1");
    let run = world.finish(command).exits(1);
    let run = run.says(&["p/large.png", "raise --memory-limit"]);
    assert_eq!(run.lines(), ["out/a.jpg", "out/z.jpg"]);
    // The worker's last words would only repeat the error.
    let [said] = run.errors()[..] else {
        panic!("one failure: {}", run.stderr)
    };
    for word in ["last words", "memory allocation", "backtrace"] {
        assert!(!run.stderr.contains(word), "{said}: {}", run.stderr);
    }
}
