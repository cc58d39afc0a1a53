//! Signals to `arenite resize` at any moment: during start, search, work and end; one or two; to the program or to its group.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use arenite_image::{Output, ResizeSpec, resize_encoded};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use super::command;
use super::pictures::bitmap;
use crate::harness::programs::{Ended, Program};
use crate::harness::runs::{Order, Seen};
use crate::harness::{Dice, End, Invariant, judge, step};

const PICTURES: usize = 24;
/// The last is not a request to end: a closed reader causes it, and the program ignores it at work.
const SIGNALS: [Signal; 4] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGPIPE,
];

/// A folder of pictures, and the right results.
struct Scene {
    folder: tempfile::TempDir,
    command: PathBuf,
    result: Vec<u8>,
}

impl Scene {
    /// Creates the pictures, which are all the same; returns how long all of them take.
    fn new(command: PathBuf) -> Result<(Self, Duration), String> {
        let text = |error: std::io::Error| error.to_string();
        let folder = tempfile::Builder::new()
            .prefix("arenite-soak-")
            .tempdir()
            .map_err(text)?;
        let spec = ResizeSpec {
            output: Output::Jpeg,
            ..ResizeSpec::new("640".parse().map_err(|_| "640 is no size")?)
        };
        let picture =
            resize_encoded(&bitmap(640, 480), &spec).map_err(|error| error.to_string())?;
        for name in ["p", "temporary"] {
            fs::create_dir(folder.path().join(name)).map_err(text)?;
        }
        let first = folder.path().join("p/00.jpg");
        fs::write(&first, picture.bytes).map_err(text)?;
        for index in 1..PICTURES {
            let link = folder.path().join(format!("p/{index:02}.jpg"));
            fs::hard_link(&first, link).map_err(text)?;
        }
        let mut scene = Self {
            folder,
            command,
            result: Vec::new(),
        };
        let began = Instant::now();
        scene.finish("undisturbed")?;
        let took = began.elapsed();
        let result = scene.path("undisturbed").join("00.jpg");
        scene.result = fs::read(result).map_err(text)?;
        Ok((scene, took))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn start(&self, out: &str) -> Program {
        let mut command = Command::new(&self.command);
        command
            .args(["resize", "p", "-s", "64", "-j", "2", "--resume", "-o", out])
            .current_dir(self.folder.path())
            .env("TMPDIR", self.path("temporary"))
            .env_remove("ARENITE_WORKERS");
        Program::spawn(command, || Ok(()))
    }

    /// Resizes the remaining pictures.
    fn finish(&self, out: &str) -> Result<(), String> {
        let ended = self.start(out).wait();
        if !ended.status.success() {
            return Err(format!("undisturbed: {ended:?}"));
        }
        match self.whole(out)? {
            PICTURES => Ok(()),
            other => Err(format!("undisturbed: {other} of {PICTURES} results")),
        }
    }

    /// Returns the number of results. Each has to be right, and no other file may exist.
    fn whole(&self, out: &str) -> Result<usize, String> {
        let entries = match fs::read_dir(self.path(out)) {
            Ok(entries) => entries,
            // It ended before it created the folder.
            Err(_) => return Ok(0),
        };
        let mut found = 0;
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.ends_with(".tmp") {
                return Err(format!("{name} is left"));
            }
            // Its state for `--resume` has a hidden name.
            if name.starts_with('.') {
                continue;
            }
            let bytes = fs::read(entry.path()).map_err(|error| error.to_string())?;
            if !self.result.is_empty() && bytes != self.result {
                return Err(format!("{name} is truncated, or a wrong picture"));
            }
            found += 1;
        }
        Ok(found)
    }
}

/// The program drains or ends with the right exit code, and leaves complete files only, no process and no name.
pub(super) fn run(order: Order) -> Result<Seen, String> {
    let Some(command) = command::locate() else {
        return Ok(Seen::skipped("the arenite command is not built"));
    };
    let (scene, whole) = Scene::new(command)?;
    let mut dice = Dice::new(order.seed);
    let mut seen = Seen::default();
    let mut ends = Vec::new();
    let end = Instant::now() + order.length;
    while seen.faults == 0 || Instant::now() < end {
        let invariant = Invariant::before();
        let first = SIGNALS[dice.below(4) as usize];
        let second = (dice.below(3) == 0).then(|| SIGNALS[dice.below(3) as usize]);
        let to_group = dice.below(2) == 0;
        // Most signals are early: the start is short, and few would hit it by chance. Some come after the end.
        let within = if dice.below(4) == 0 { 16 } else { 1 };
        let longest = whole.as_micros() as u64 * 5 / 4;
        let pauses = [longest / within, longest / 4].map(|most| dice.micros(0, most.max(1)));
        let what = format!(
            "{first} after {:?}, then {second:?} after {:?}, to the group: {to_group}",
            pauses[0], pauses[1]
        );
        step(format!("resize to end: {what}"));
        let out = format!("out{}", seen.faults);
        let child = scene.start(&out);
        let sent: Vec<Signal> = [Some(first), second].into_iter().flatten().collect();
        for (&signal, pause) in sent.iter().zip(pauses) {
            // No synchronisation: the random moment is what is tested.
            std::thread::sleep(pause);
            let pid = Pid::from_raw(child.pid());
            // It has not been waited for, so the process id is still its own.
            let sent = if to_group {
                killpg(pid, signal)
            } else {
                kill(pid, signal)
            };
            sent.map_err(|errno| format!("{what}: {errno}"))?;
        }
        let Ended { status, errors, .. } = child.end();
        let ended = scene
            .whole(&out)
            .and_then(|made| judge(status, &errors, &sent, (made, PICTURES)))
            .map_err(|why| format!("{what}: {status}: {why}\n{errors}"))?;
        ends.push(ended);
        step("resize to do the rest");
        scene
            .finish(&out)
            .map_err(|why| format!("{what}; and then: {why}"))?;
        remove(&scene.path(&out))?;
        invariant.nothing_left()?;
        seen.faults += sent.len() as u64;
        seen.jobs += PICTURES as u64;
    }
    for (name, end) in [
        ("before work", End::Early),
        ("drained", End::Drained),
        ("ended by a second", End::Twice),
        ("done by then", End::Late),
    ] {
        let count = ends.iter().filter(|&&ended| ended == end).count();
        // For information: chance decides which.
        seen.figure(order, name, (count as f64, "times"), f64::INFINITY)?;
    }
    Ok(seen)
}

fn remove(folder: &Path) -> Result<(), String> {
    fs::remove_dir_all(folder).map_err(|error| error.to_string())
}
