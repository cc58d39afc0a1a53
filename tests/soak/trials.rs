//! Short soaks: each runs its rows, and fails when a promise is broken.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::harness::programs::{SCENARIO, own_session};
use crate::harness::{case, processes_of, state_of, tests, wait_until};
use crate::harness::{runs::Seen, send_signal};
use crate::supervisor::WORK;
use crate::{ROWS, WITHOUT_FAULTS, kernels, something_happened};

tests![
    a_short_soak_runs_its_rows,
    a_broken_promise_is_exit_code_1,
    a_row_that_lacks_a_part_of_linux_is_skipped,
    workers_of_a_killed_soak_end,
    programs_of_a_killed_soak_end,
    a_run_without_jobs_or_faults_is_a_failure,
];

/// Longer than any run takes here, so that only a hang exceeds it.
const WATCHDOG: Duration = Duration::from_secs(240);

/// This program as a soak.
fn soak(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["run", "--lenient", "--seed", "1"])
        .args(arguments)
        // Its presence makes the soak build the `arenite` command.
        .env_remove("CARGO")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    own_session(&mut command);
    command
}

/// Runs a soak to its end, and `meanwhile` again and again.
fn finish(mut command: Command, mut meanwhile: impl FnMut(i32)) -> Output {
    let child = command.spawn().unwrap();
    let pid = child.id().cast_signed();
    let waiter = std::thread::spawn(move || child.wait_with_output());
    let start = Instant::now();
    while !waiter.is_finished() {
        if start.elapsed() > WATCHDOG {
            let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
            panic!("process {pid} hangs");
        }
        // The watchdog of the harness sees progress.
        case(format!("{command:?} after {:.0?}", start.elapsed()));
        meanwhile(pid);
        std::thread::park_timeout(Duration::from_millis(5));
    }
    waiter.join().unwrap().unwrap()
}

fn run(arguments: &[&str]) -> Output {
    finish(soak(arguments), |_| ())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn a_short_soak_runs_its_rows() {
    for row in [
        "programs",
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
        let output = run(&["--minutes", "0.01", "--only", row]);
        let (table, notes) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(0), "{row}: {notes}");
        assert!(table.lines().any(|line| line.starts_with(row)), "{table}");
        assert!(notes.starts_with("seed 1, 1 rows"), "{notes}");
    }
}

/// Workers die that no row has killed.
fn a_broken_promise_is_exit_code_1() {
    let command = soak(&["--minutes", "1", "--only", "storm-of-stops"]);
    let output = finish(command, |pid| {
        for worker in children_of(pid).into_iter().filter(|&pid| is_worker(pid)) {
            let _ = kill(Pid::from_raw(worker), Signal::SIGKILL);
        }
    });
    let notes = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{notes}");
    assert!(
        notes.contains("storm-of-stops: broken with seed 1"),
        "{notes}"
    );
}

/// Without a sandbox the row about sandboxed workers would show nothing.
fn a_row_that_lacks_a_part_of_linux_is_skipped() {
    let mut command = soak(&["--minutes", "0.01", "--only", "storm-of-locked"]);
    // SAFETY: the closure makes system calls only.
    unsafe { command.pre_exec(kernels::without(&[libc::SYS_mseal])) };
    let output = finish(command, |_| ());
    let (table, notes) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{notes}");
    let row = table
        .lines()
        .find(|line| line.starts_with("storm-of-locked"));
    let is_skipped = row.is_some_and(|row| row.contains("skipped: ") && row.contains("mseal"));
    assert!(is_skipped, "{table}");
}

/// A soak that runs until it is killed.
fn spawn_endless(row: &str) -> Child {
    soak(&["--minutes", "5", "--only", row])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// The workers of this row end themselves if the name of their supervisor says so. The name goes with the supervisor.
fn workers_of_a_killed_soak_end() {
    let mut soak = spawn_endless("crash-loop-at-start");
    wait_until("workers are to end themselves", || {
        let name = std::fs::read_to_string(format!("/proc/{}/comm", soak.id()));
        name.unwrap().starts_with("doom")
    });
    soak.kill().unwrap();
    soak.wait().unwrap();
    let group = soak.id().cast_signed();
    wait_until("no process is left", || processes_of(group).is_empty());
}

/// The programs that a soak starts to kill them.
fn programs_of_a_killed_soak_end() {
    /// Kills what a failed test would leave.
    struct Group(i32);
    impl Drop for Group {
        fn drop(&mut self) {
            let _ = killpg(Pid::from_raw(self.0), Signal::SIGKILL);
        }
    }
    let mut soak = spawn_endless("supervisor-killed");
    let pid = soak.id().cast_signed();
    let is_at_work = |&pid: &i32| {
        let variables = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let own = format!("{SCENARIO}={WORK}");
        let mut variables = variables.split(|byte| *byte == 0);
        variables.any(|variable| variable == own.as_bytes())
    };
    // The soak must not kill the program before the test has seen it.
    let program = loop {
        send_signal(pid, Signal::SIGSTOP);
        wait_until("the soak is stopped", || state_of(pid) == Some('T'));
        if let Some(program) = children_of(pid).into_iter().find(is_at_work) {
            break Group(program);
        }
        send_signal(pid, Signal::SIGCONT);
        std::thread::park_timeout(Duration::from_millis(1));
    };
    soak.kill().unwrap();
    soak.wait().unwrap();
    wait_until("no process is left", || processes_of(program.0).is_empty());
}

fn children_of(pid: i32) -> Vec<i32> {
    // Workers are children of the thread that started them.
    let threads = std::fs::read_dir(format!("/proc/{pid}/task"));
    let lists =
        threads.into_iter().flatten().flatten().map(|thread| {
            std::fs::read_to_string(thread.path().join("children")).unwrap_or_default()
        });
    let pids = |list: String| -> Vec<i32> {
        let words = list.split_whitespace();
        words.filter_map(|pid| pid.parse().ok()).collect()
    };
    lists.flat_map(pids).collect()
}

/// Returns whether this process has shaken hands with its supervisor.
fn is_worker(pid: i32) -> bool {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm"));
    name.is_ok_and(|name| name.starts_with("arenite:"))
}

fn a_run_without_jobs_or_faults_is_a_failure() {
    let seen = |faults, jobs| Seen {
        faults,
        jobs,
        ..Seen::default()
    };
    for row in ROWS.map(|(name, _)| name) {
        assert!(something_happened(row, &seen(1, 1)).is_ok(), "{row}");
        assert!(something_happened(row, &seen(1, 0)).is_err(), "{row}");
        let without = WITHOUT_FAULTS.contains(&row);
        let answer = something_happened(row, &seen(0, 1));
        assert_eq!(answer.is_ok(), without, "{row}");
        assert!(something_happened(row, &Seen::skipped("root only")).is_ok());
    }
    assert!(
        WITHOUT_FAULTS
            .iter()
            .all(|name| ROWS.iter().any(|(row, _)| row == name))
    );
}
