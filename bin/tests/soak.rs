//! `arenite soak` from outside: it goes through its rows, and it fails when a promise is broken.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[allow(dead_code, reason = "made for the tests of resize")]
#[path = "resize/world.rs"]
mod world;

#[path = "../../tests/common/lacking.rs"]
mod kernels;

use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use world::{World, gone, signal, signal_group, wait_until};

/// Longer than any run takes here, so that only a hang meets it.
const WATCHDOG: Duration = Duration::from_secs(240);

fn soak(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_arenite"));
    command
        .args(["soak", "--lenient", "--seed", "1"])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Its output, with what is done while it runs.
fn run(arguments: &[&str], meanwhile: impl FnOnce(u32, &dyn Fn() -> bool)) -> Output {
    let child = soak(arguments).process_group(0).spawn().unwrap();
    let pid = child.id();
    let (tell, told) = mpsc::channel();
    let waiter = std::thread::spawn(move || tell.send(child.wait_with_output()));
    let began = Instant::now();
    meanwhile(pid, &|| waiter.is_finished() || began.elapsed() > WATCHDOG);
    told.recv_timeout(WATCHDOG)
        .unwrap_or_else(|_| {
            signal_group(pid, libc::SIGKILL);
            panic!("process {pid} hangs")
        })
        .unwrap()
}

#[test]
fn a_short_soak_goes_through_its_rows() {
    for row in [
        "storm-of-kills",
        "storm-of-locked",
        "broken-pictures",
        "full-shm",
        "poison",
        "crash-loop-at-start",
        "stops-at-deadlines",
        "start-stop",
        "supervisor-killed",
        "signals-to-resize",
    ] {
        let output = run(&["--minutes", "0.01", "--only", row], |_, _| ());
        let (table, notes) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        assert_eq!(output.status.code(), Some(0), "{row}: {notes}");
        assert!(table.lines().any(|line| line.starts_with(row)), "{table}");
        assert!(notes.starts_with("seed 1, 1 rows"), "{notes}");
    }
}

#[test]
fn a_row_that_is_not_there_is_wrong_usage() {
    let output = run(&["--only", "nothing"], |_, _| ());
    let notes = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2));
    assert!(notes.contains("storm-of-kills"), "{notes}");
}

/// Workers that die where none should are noticed.
#[test]
fn a_broken_promise_ends_it_with_1() {
    let arguments = ["--minutes", "1", "--only", "storm-of-stops"];
    let output = run(&arguments, |pid, has_ended| {
        while !has_ended() {
            for worker in children(pid).into_iter().filter(|&pid| is_worker(pid)) {
                // SAFETY: a child of a program that we have started; if it has gone, its number has not been given
                // to another yet.
                unsafe { libc::kill(worker, libc::SIGKILL) };
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
    });
    let notes = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{notes}");
    assert!(
        notes.contains("storm-of-stops: broken with seed 1"),
        "{notes}"
    );
}

#[test]
fn a_length_that_cannot_be_counted_is_wrong_usage() {
    for minutes in ["1e300", "0", "-1", "NaN", "inf", "long"] {
        let output = run(&[&format!("--minutes={minutes}")], |_, _| ());
        let notes = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{minutes}: {notes}");
        assert!(notes.contains("--minutes"), "{notes}");
    }
}

/// Nothing is shown about workers that are locked down where they are not.
#[test]
fn a_row_that_the_kernel_lacks_something_for_says_so() {
    let arguments = ["--minutes", "0.01", "--only", "storm-of-locked"];
    let mut command = soak(&arguments);
    // SAFETY: what is called in the new process makes system calls only.
    unsafe { command.pre_exec(kernels::without(&[libc::SYS_mseal])) };
    let run = World::new().finish(command).exits(0);
    let row = run
        .lines()
        .into_iter()
        .find(|line| line.starts_with("storm-of-locked"));
    let told = row.is_some_and(|row| row.contains("skipped: ") && row.contains("mseal"));
    assert!(told, "{}", run.stdout);
}

/// What says to workers that they die is the name of the program that says it, and goes with that, as its workers do.
#[test]
fn nothing_tells_workers_to_die_when_a_soak_is_killed() {
    // It sees whether a name is left.
    let _world = World::new();
    let mut soak = soak(&["--minutes", "5", "--only", "crash-loop-at-start"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .unwrap();
    wait_until("workers are told to die", || {
        let name = std::fs::read_to_string(format!("/proc/{}/comm", soak.id()));
        name.unwrap().starts_with("doom")
    });
    soak.kill().unwrap();
    soak.wait().unwrap();
    gone(soak.id());
}

/// Programs that it has started to be killed do not outlive it.
#[test]
fn nothing_goes_on_when_a_soak_is_killed() {
    /// Ends what a failed test would leave.
    struct Played(u32);
    impl Drop for Played {
        fn drop(&mut self) {
            signal_group(self.0, libc::SIGKILL);
        }
    }
    // It sees whether a name is left.
    let _world = World::new();
    let mut soak = soak(&["--minutes", "5", "--only", "supervisor-killed"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut played = None;
    wait_until(
        "a program is there, and the soak stopped before it kills that",
        || {
            signal(soak.id(), libc::SIGSTOP);
            wait_until("the soak is stopped", || state(soak.id()) == Some('T'));
            let at_work = |pid: &i32| {
                let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                line.ends_with(b"--play\0work\0") && state(*pid as u32) != Some('Z')
            };
            played = children(soak.id()).into_iter().find(at_work);
            if played.is_none() {
                signal(soak.id(), libc::SIGCONT);
            }
            played.is_some()
        },
    );
    let played = Played(played.unwrap() as u32);
    soak.kill().unwrap();
    soak.wait().unwrap();
    gone(played.0);
}

/// What it does, by the letter.
fn state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

fn children(of: u32) -> Vec<i32> {
    let mut all: Vec<i32> = Vec::new();
    // Workers are children of the thread that started them.
    for thread in std::fs::read_dir(format!("/proc/{of}/task"))
        .into_iter()
        .flatten()
        .flatten()
    {
        let list = std::fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        all.extend(
            list.split_whitespace()
                .filter_map(|pid| pid.parse::<i32>().ok()),
        );
    }
    all
}

/// It has said hello.
fn is_worker(pid: i32) -> bool {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm"));
    name.is_ok_and(|name| name.starts_with("arenite:"))
}
