//! Runs that are looked at while they go on.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, Stdio};

use crate::world::{Run, World, jpeg, wait};

/// So many that there is work left when the first result is seen.
pub const PICTURES: usize = 300;

/// A folder `p` with so many.
pub fn many_pictures() -> World {
    let world = World::new();
    world.file("p/000.jpg", &jpeg(640, 480));
    for index in 1..PICTURES {
        let name = world.path(&format!("p/{index:03}.jpg"));
        fs::hard_link(world.path("p/000.jpg"), name).unwrap();
    }
    world
}

/// The leader of a process group of its own.
pub fn start(mut command: Command) -> Child {
    command
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// A run, and what it printed so far.
pub type Begun = (Child, BufReader<ChildStdout>, String);

/// The process and what it printed first: a result.
pub fn begun(command: Command) -> Begun {
    let mut child = start(command);
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut first = String::new();
    stdout.read_line(&mut first).unwrap();
    assert!(!first.is_empty());
    (child, stdout, first)
}

/// What it was in the end.
pub fn ended((child, mut stdout, mut text): Begun) -> Run {
    stdout.read_to_string(&mut text).unwrap();
    let mut run = wait(child);
    run.stdout = text;
    run
}
