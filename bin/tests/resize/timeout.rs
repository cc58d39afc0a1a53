//! Hanging pictures. A stopped worker is the hardest hang: it cannot even handle a signal.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::begun::{PICTURES, begun, many_pictures, start};
use crate::world::{
    Run, WATCHDOG, World, children, gone, jpeg, png, private_bytes, signal, signal_group, wait,
    wait_until,
};

/// Runs the tests that mostly wait for seconds, in parallel.
pub fn all_that_wait() {
    let all: [(&str, fn()); 5] = [
        (
            "always",
            a_picture_that_always_hangs_fails_after_its_attempts,
        ),
        (
            "named",
            a_hanging_picture_is_reported_with_the_cause_and_the_rest_is_done,
        ),
        (
            "once",
            a_picture_that_hangs_once_succeeds_at_the_next_attempt,
        ),
        (
            "stopped",
            time_while_the_run_is_stopped_counts_for_no_deadline,
        ),
        ("drained", a_hang_does_not_block_the_end_after_a_signal),
    ];
    thread::scope(|threads| {
        for (name, test) in all {
            // A panic there propagates, with the name of its thread.
            let named = thread::Builder::new().name(format!("timeout::{name}"));
            named.spawn_scoped(threads, test).unwrap();
        }
    });
}

fn a_hanging_picture_is_reported_with_the_cause_and_the_rest_is_done() {
    let world = many_pictures();
    let running = begun(world.command("p -s 64 -o out -j 1 --timeout 6s --json"));
    let id = running.id();
    let stopped = children(id);
    assert_eq!(stopped.len(), 1);
    signal(stopped[0], libc::SIGSTOP);
    let run = running.ended().exits(1);
    let lines = run.json();
    let (summary, files) = lines.split_last().unwrap();
    let failed: Vec<_> = files
        .iter()
        .filter(|line| line["status"] != "written")
        .collect();
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert_eq!(failed[0]["cause"], "timeout", "{}", failed[0]);
    assert_eq!(failed[0]["attempts"], 1, "{}", failed[0]);
    assert_eq!(
        (&summary["written"], &summary["failed"]),
        (&(PICTURES - 1).into(), &1.into())
    );
    let name = failed[0]["input"].as_str().unwrap().to_owned();
    run.says(&[&name, "deadline of 6s", "raise --timeout"]);
    assert_eq!(world.tree("out").len(), PICTURES - 1);
    gone(id);
}

fn time_while_the_run_is_stopped_counts_for_no_deadline() {
    let world = many_pictures();
    let running = begun(world.command("p -s 64 -o out --timeout 6s --retries 0"));
    let id = running.id();
    signal_group(id, libc::SIGSTOP);
    // Not synchronization: the time itself is tested.
    thread::sleep(Duration::from_secs(8));
    signal_group(id, libc::SIGCONT);
    running.ended().exits(0);
    assert_eq!(world.tree("out").len(), PICTURES);
    gone(id);
}

#[test]
fn a_hanging_picture_does_not_delay_the_others() {
    // The worker may not be stopped in time: try again.
    let was_hanging = (0..5).any(|_| others_are_done_during_a_hang());
    assert!(was_hanging, "a picture that hangs");
}

/// A run whose first picture hangs until all others are done. Returns `false` if that picture was done sooner.
fn others_are_done_during_a_hang() -> bool {
    let world = many_pictures();
    world.file("p/00-hangs.png", &png(6000, 4000));
    // Results are listed in the order of the inputs. So the list is empty during the hang, and no reader is needed.
    let child = start(world.command("p -s 64 -o out -j 2"));
    let id = child.id();
    let mut stopped = None;
    wait_until("the first picture is begun", || {
        stopped = decoding(id);
        stopped.is_some() || world.path("out/00-hangs.png").exists()
    });
    if let Some(worker) = stopped {
        signal(worker, libc::SIGSTOP);
    }
    // Without a deadline it hangs; the others are done one after the other.
    wait_until("all results but one", || {
        world.tree("out").len() >= PICTURES
    });
    let was_hanging = !world.path("out/00-hangs.png").exists();
    if let Some(worker) = stopped {
        signal(worker, libc::SIGCONT);
    }
    let run = wait(child).exits(0);
    assert_eq!(world.tree("out").len(), PICTURES + 1);
    let listed: Vec<_> = run.stdout.lines().collect();
    assert_eq!(listed.len(), PICTURES + 1);
    assert!(listed.is_sorted(), "in the order of the inputs");
    gone(id);
    was_hanging
}

fn a_picture_that_hangs_once_succeeds_at_the_next_attempt() {
    let world = many_pictures();
    let running = begun(world.command("p -s 64 -o out -j 1 --timeout 6s --retries 1"));
    signal(children(running.id())[0], libc::SIGSTOP);
    let run = running.ended().exits(0);
    assert_eq!(run.errors(), [""; 0]);
    assert_eq!(world.tree("out").len(), PICTURES);
}

#[test]
fn killed_workers_fail_no_picture_with_retries() {
    let world = many_pictures();
    let running = begun(world.command("p -s 64 -o out -j 2 --retries 2"));
    for worker in children(running.id()) {
        signal(worker, libc::SIGKILL);
    }
    running.ended().exits(0);
    assert_eq!(world.tree("out").len(), PICTURES);
}

fn a_picture_that_always_hangs_fails_after_its_attempts() {
    let world = World::new();
    world.file("p/hangs.png", &png(6000, 4000));
    // The worker may not be stopped in time: try again.
    let run = (0..5).find_map(|_| stopped_each_time(&world));
    let run = run.expect("a picture that hangs").exits(1);
    let lines = run.json();
    assert_eq!(lines[0]["cause"], "timeout", "{}", lines[0]);
    assert_eq!(lines[0]["attempts"], 3, "{}", lines[0]);
    run.says(&["p/hangs.png", "3 attempts"]);
}

/// A run in which each worker is stopped while it decodes; `None` if one was not.
fn stopped_each_time(world: &World) -> Option<Run> {
    let child = start(world.command("p -s 64 -o out -j 1 --timeout 3s --retries 2 --json"));
    let id = child.id();
    let over = AtomicBool::new(false);
    let (run, stopped) = thread::scope(|threads| {
        // Stopped once it holds many pixels.
        let stopper = threads.spawn(|| {
            let mut stopped = HashSet::new();
            while !over.load(Ordering::Relaxed) {
                for worker in children(id) {
                    if private_bytes(worker) > Some(30 << 20) && stopped.insert(worker) {
                        signal(worker, libc::SIGSTOP);
                    }
                }
                thread::sleep(Duration::from_millis(1));
            }
            stopped.len()
        });
        let run = wait(child);
        over.store(true, Ordering::Relaxed);
        (run, stopper.join().unwrap())
    });
    gone(id);
    (stopped == 3).then_some(run)
}

#[test]
fn the_message_about_a_signal_is_printed_at_once_even_during_a_hang() {
    let world = World::new();
    world.file("p/hangs.png", &png(6000, 4000));
    let mut child = start(world.command("p -s 64 -o out -j 1"));
    let id = child.id();
    let worker = in_the_middle(id);
    signal(worker, libc::SIGSTOP);
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    signal(id, libc::SIGINT);
    let (sender, receiver) = mpsc::channel();
    thread::scope(|threads| {
        threads.spawn(|| {
            let mut line = String::new();
            stderr.read_line(&mut line).unwrap();
            sender.send(line).unwrap();
        });
        let received = receiver.recv_timeout(WATCHDOG);
        // Continue the worker in any case, so that the threads end.
        signal(worker, libc::SIGCONT);
        let line = received.expect("a line while the worker hangs");
        assert!(line.contains("a second signal ends at once"), "{line}");
    });
    wait(child).exits(130);
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("interrupted"), "{rest}");
    assert!(!rest.contains("a second signal"), "printed once: {rest}");
    assert_eq!(world.tree("out"), ["hangs.png"]);
    gone(id);
}

#[test]
fn an_error_of_the_decoder_is_not_retried() {
    let world = World::new();
    world
        .file("p/torn.jpg", &jpeg(64, 48)[..300])
        .photos(&["p/a.jpg"]);
    let run = world
        .run("p -s 8 -o out --retries 5 --timeout 1m --json")
        .exits(1);
    let torn = &run.json()[1];
    assert_eq!(
        (&torn["status"], &torn["attempts"]),
        (&"failed".into(), &1.into()),
        "{torn}"
    );
}

fn a_hang_does_not_block_the_end_after_a_signal() {
    let world = many_pictures();
    // The first input.
    world.file("p/00-hangs.png", &png(6000, 4000));
    let child = start(world.command("p -s 64 -o out -j 1 --timeout 6s"));
    let id = child.id();
    signal(in_the_middle(id), libc::SIGSTOP);
    signal(id, libc::SIGTERM);
    let run = wait(child).exits(143).says(&["interrupted", "--resume"]);
    assert_eq!(run.errors().len(), 2, "a picture hung: {}", run.stderr);
    gone(id);
}

/// The worker that holds many pixels of a picture. Stopped between two pictures, it would hang no job.
fn in_the_middle(program: u32) -> u32 {
    let mut worker = None;
    wait_until("a worker is in the middle of the picture", || {
        worker = decoding(program);
        worker.is_some()
    });
    worker.unwrap()
}

/// The worker that holds many pixels of a picture, if there is one.
fn decoding(program: u32) -> Option<u32> {
    (children(program).into_iter()).find(|&worker| private_bytes(worker) > Some(30 << 20))
}
