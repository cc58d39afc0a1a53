//! Runs the baselines with real processes: each does its work and leaves no process.
//!
//! The usual test harness is not used, because the baselines' processes are this program started again, and `init` has
//! to come first in `main`.

#[path = "../../tests/common/asked.rs"]
mod asked;

use std::io::Read;
use std::num::NonZero;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use arenite::SandboxReport;
use arenite_bench::BenchError;
use arenite_bench::cases::{self, Case, Reading, Setup, Unit};
use libtest_mimic::{Arguments, Failed, Trial};

/// The environment variable that makes this program start a baseline and wait until it is killed.
const HOLD: &str = "ARENITE_BENCH_TEST_HOLD";
/// How long a test waits before it fails.
const WATCHDOG: Duration = Duration::from_secs(60);

fn main() {
    arenite::init();
    arenite_bench::init();
    if std::env::var_os(HOLD).is_some() {
        hold();
    }
    let arguments = Arguments::from_args();
    let mut trials = vec![
        Trial::test(
            "processes_die_with_a_killed_parent",
            processes_die_with_a_killed_parent,
        ),
        Trial::test("case_ids_are_unique", case_ids_are_unique),
        Trial::test("every_goal_names_a_system", every_goal_names_a_system),
    ];
    for (case, system) in light_systems() {
        trials.push(Trial::test(format!("{case}::{system}"), move || {
            does_its_work(&case, system)
        }));
    }
    libtest_mimic::run(&arguments, trials).exit();
}

fn setup() -> Setup {
    Setup {
        quick: true,
        workers: 2,
        command: None,
    }
}

/// Returns all baselines in the cases that need neither much memory nor much time.
fn light_systems() -> Vec<(String, &'static str)> {
    let light = |case: &Case| {
        case.memory == 0 && !matches!(case.unit, Unit::ImagesPerSecond(_) | Unit::Megabytes)
    };
    cases::all(&setup())
        .into_iter()
        .filter(light)
        .flat_map(|case| {
            let id = case.id.clone();
            let systems: Vec<_> = case.systems.iter().map(|system| system.id).collect();
            systems.into_iter().map(move |system| (id.clone(), system))
        })
        .filter(|(_, system)| *system != "arenite")
        .collect()
}

/// Starts, runs and ends a system, which checks its results. All this happens on one thread, with which the processes
/// die.
fn does_its_work(case: &str, system: &str) -> Result<(), Failed> {
    let setup = setup();
    let case = cases::all(&setup)
        .into_iter()
        .find(|one| one.id == case)
        .ok_or("the case is gone")?;
    let entry = case
        .systems
        .iter()
        .find(|one| one.id == system)
        .ok_or("the system is gone")?;
    let mut running = match entry.start(&setup) {
        Ok(running) => running,
        // This machine lacks something that the system needs.
        Err(BenchError::Missing(what)) => {
            missing(&what);
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    for times in [1, 2] {
        let reading = running.run(times)?;
        let total = reading.total().ok_or("a time was expected")?;
        if total.is_zero() {
            return Err(format!("{times} operations took no time").into());
        }
        if let Reading::Each(each) = &reading
            && each.len() as u64 != times
        {
            return Err(format!("{} times for {times} operations", each.len()).into());
        }
        let figure = case.unit.figure(&reading, times);
        if !(figure.is_finite() && figure > 0.0) {
            return Err(format!("the figure is {figure}").into());
        }
    }
    Ok(())
}

/// Reports that something is missing. On a machine with two cores and a complete sandbox, this is an error if
/// `ARENITE_MUST_TRY` is set.
fn missing(what: &str) {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    if cores < 2 || !SandboxReport::of_this_kernel().is_complete() {
        eprintln!("not tried: {what}");
    } else {
        asked::not_tried(what);
    }
}

fn case_ids_are_unique() -> Result<(), Failed> {
    let mut ids: Vec<String> = cases::all(&setup())
        .into_iter()
        .map(|case| case.id)
        .collect();
    let all = ids.len();
    ids.sort();
    ids.dedup();
    if ids.len() == all {
        Ok(())
    } else {
        Err("two cases have one name".into())
    }
}

fn every_goal_names_a_system() -> Result<(), Failed> {
    let cases = cases::all(&setup());
    for case in &cases {
        for goal in &case.goals {
            let words = format!("{goal:?}");
            let named = words.split('"').nth(1);
            let known = |id: &str| {
                case.systems.iter().any(|system| system.id == id)
                    || cases.iter().any(|case| case.id == id)
            };
            if !named.is_none_or(known) {
                return Err(format!("{}: {words} names no system", case.id).into());
            }
        }
    }
    Ok(())
}

/// Runs in the process of the next test: starts baselines and waits until it is killed.
fn hold() -> ! {
    let setup = setup();
    let cases = cases::all(&setup);
    let mut running = Vec::new();
    for entry in cases.iter().take(1).flat_map(|case| &case.systems) {
        if entry.id != "arenite"
            && let Ok(system) = entry.start(&setup)
        {
            running.push(system);
        }
    }
    let children = children_of(std::process::id());
    let words: Vec<String> = children.iter().map(u32::to_string).collect();
    println!("{}", words.join(" "));
    loop {
        std::thread::park();
    }
}

fn children_of(pid: u32) -> Vec<u32> {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    tasks
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|list| {
            list.split_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect::<Vec<u32>>()
        })
        .collect()
}

fn processes_die_with_a_killed_parent() -> Result<(), Failed> {
    let mut parent = Command::new(std::env::current_exe()?)
        .env(HOLD, "1")
        .stdout(Stdio::piped())
        .spawn()?;
    let mut from = parent.stdout.take().ok_or("no pipe")?;
    let mut line = Vec::new();
    let mut byte = [0];
    while from.read(&mut byte)? == 1 && byte != *b"\n" {
        line.push(byte[0]);
    }
    let children: Vec<u32> = String::from_utf8(line)?
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    parent.kill()?;
    let status = parent.wait()?;
    if status.signal() != Some(9) {
        return Err(format!("the parent was not killed: {status}").into());
    }
    if children.is_empty() {
        return Err("no baseline had a process".into());
    }
    let start = Instant::now();
    for child in &children {
        while is_running(*child) {
            if start.elapsed() > WATCHDOG {
                return Err(format!("process {child} outlived its parent").into());
            }
            std::thread::yield_now();
        }
    }
    Ok(())
}

/// Returns whether the process runs. A zombie, which still waits for its new parent, does not.
fn is_running(pid: u32) -> bool {
    let path = format!("/proc/{pid}/stat");
    if !Path::new(&path).exists() {
        return false;
    }
    let stat = std::fs::read_to_string(path).unwrap_or_default();
    let state = stat.rsplit_once(')').map(|(_, rest)| rest.trim_start());
    !state.is_none_or(|state| state.starts_with('Z') || state.starts_with('X'))
}
