//! Workers that die while they parse a part, look for the ends of records, or run a kernel.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use arenite::{Engine, JobErrorKind, JobOptions, WorkerExit};
use arenite_tables::arrow::array::cast::AsArray;
use arenite_tables::arrow::array::types::Int64Type;
use arenite_tables::arrow::schema::ArrowError;
use arenite_tables::{Part, PartReport, Reader, Table, TableError, TableErrorKind, Tables};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{csv, engine, numbers, sum};

const READ: &str = "arenite_tables::kernels::read";
const SURVEY: &str = "arenite_tables::kernels::survey";
const ROWS: i64 = 30_000;
const PART: usize = 40_000;
/// Reads until a worker has died where it should.
const ROUNDS: usize = 50;

/// What a kernel has done: calls that have ended, those that gave no value, and whether one runs.
fn calls_of(engine: &Engine, kernel: &str) -> (u64, u64, bool) {
    let kernels = engine.progress().kernels;
    let found = kernels.iter().find(|known| known.name.ends_with(kernel));
    found.map_or((0, 0, false), |known| {
        (known.calls, known.failures, known.running > 0)
    })
}

/// Nanoseconds for which the threads of a process have run.
fn processor_time(pid: u32) -> Option<u64> {
    let time = |thread: fs::DirEntry| {
        let known = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        known.split_whitespace().next()?.parse::<u64>().ok()
    };
    let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    Some(threads.flatten().filter_map(time).sum())
}

/// Stops a process, so that what it does cannot change. Returns false if it has ended.
fn stop(pid: u32) -> bool {
    let state = || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit(") ").next()?.chars().next()
    };
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGSTOP).is_ok()
        && loop {
            match state() {
                Some('T') => break true,
                None | Some('Z' | 'X') => break false,
                Some(_) => thread::yield_now(),
            }
        }
}

/// Kills the only worker in at most `most` calls of `kernel` while `work` runs: in each when the worker has spent
/// another part of the time that such a call takes, or sooner where a crowded machine lets calls end unseen. Returns how
/// often it did, and what `work` returns.
fn with_kills<R>(engine: &Engine, kernel: &str, most: usize, work: impl Fn() -> R) -> (usize, R) {
    // Undisturbed, to know how long it takes.
    work();
    let kernels = engine.progress().kernels;
    let usual = kernels.iter().find(|known| known.name.ends_with(kernel));
    let usual = usual.unwrap().total.as_nanos() as u64 / usual.unwrap().calls;
    let is_over = AtomicBool::new(false);
    let kill_some = || {
        let (mut kills, mut last, mut missed) = (0, None, 0);
        // The call that runs, and what its worker had spent when it was seen first.
        let mut seen = (None, 0);
        while kills < most && !is_over.load(Relaxed) {
            thread::yield_now();
            let pid = engine.stats().workers[0].pid;
            if pid == 0 || !stop(pid) {
                continue;
            }
            let (calls, _, is_running) = calls_of(engine, kernel);
            let spent = processor_time(pid).unwrap_or_default();
            if seen.0.is_some_and(|seen| seen != calls || !is_running) {
                missed += u32::from(last != seen.0);
                seen.0 = None;
            }
            if is_running && seen.0.is_none() {
                seen = (Some(calls), spent);
            }
            let wanted = (usual * (1 + kills as u64 % 4) / 6) >> missed.min(20);
            let is_due = is_running && last != Some(calls) && spent >= seen.1 + wanted;
            let signal = if is_due {
                Signal::SIGKILL
            } else {
                Signal::SIGCONT
            };
            let _ = kill(Pid::from_raw(pid.cast_signed()), signal);
            if is_due {
                last = Some(calls);
                kills += 1;
            }
        }
        kills
    };
    thread::scope(|threads| {
        let kills = threads.spawn(kill_some);
        let result = work();
        is_over.store(true, Relaxed);
        (kills.join().unwrap(), result)
    })
}

/// A file or folder of each format.
fn files(data: &Path) -> [PathBuf; 3] {
    let paths = ["a.csv", "a.json", "parquet"].map(|name| data.join(name));
    fs::write(&paths[0], csv(0..ROWS)).unwrap();
    let line = |n| format!("{{\"number\": {n}, \"text\": [\"{n}\"]}}\n");
    fs::write(&paths[1], (0..ROWS).map(line).collect::<String>()).unwrap();
    let inline = Engine::inline();
    let table = reader(&inline, &paths[0]).read().unwrap();
    table.write_parquet(&inline, &paths[2]).unwrap();
    paths
}

fn reader<'e>(engine: &'e Engine, path: &Path) -> Reader<'e> {
    match path.extension().and_then(|end| end.to_str()) {
        Some("csv") => engine.csv(path),
        Some("json") => engine.json(path),
        _ => engine.parquet(path),
    }
    .part_bytes(PART)
}

/// The numbers in the part that a failure names.
fn lost(failure: &TableError) -> Vec<i64> {
    let origin = failure.origin().unwrap();
    let file = origin.file();
    let inline = Engine::inline();
    let Some(bytes) = origin.bytes() else {
        assert_eq!(origin.row_group(), Some(0), "each file has one");
        return numbers(&inline.read_parquet(file).unwrap());
    };
    let name = file.file_name().unwrap().to_str().unwrap();
    let named = format!("{name}, bytes {}..{}: ", bytes.start, bytes.end);
    assert!(failure.to_string().contains(&named), "{failure}");
    let content = fs::read(file).unwrap();
    // The first part has the header itself.
    let begin = if name.ends_with("csv") && bytes.start > 0 {
        "number,text\n"
    } else {
        ""
    };
    let part = tempfile::tempdir().unwrap();
    let path = part.path().join(name);
    let rows = &content[bytes.start as usize..bytes.end as usize];
    fs::write(&path, [begin.as_bytes(), rows].concat()).unwrap();
    numbers(&reader(&inline, &path).read().unwrap())
}

/// All other rows are there.
fn assert_whole_but_for_failures(report: &PartReport<Table>) {
    let mut found = numbers(report.values());
    assert!(found.is_sorted());
    found.extend(report.failures().iter().flat_map(lost));
    found.sort_unstable();
    assert_eq!(found, (0..ROWS).collect::<Vec<_>>());
}

#[test]
fn a_worker_killed_while_it_parses_costs_that_part() {
    let data = tempfile::tempdir().unwrap();
    for path in files(data.path()) {
        let engine = engine(1);
        let round = || {
            // Most of the time of a call is that of its parser.
            let read = || reader(&engine, &path).report().unwrap();
            let (kills, report) = with_kills(&engine, READ, 4, read);
            assert!(report.failures().len() <= kills, "{report:?}");
            for failure in report.failures() {
                let TableErrorKind::Job(error) = failure.kind() else {
                    panic!("{failure}")
                };
                let killed = WorkerExit::Signal(Signal::SIGKILL as i32);
                assert_eq!(*error.kind(), JobErrorKind::Lost(killed), "{error}");
            }
            assert_whole_but_for_failures(&report);
            !report.failures().is_empty()
        };
        assert!((0..ROUNDS).any(|_| round()), "no part was lost");
    }
}

#[test]
fn a_part_is_read_again_where_there_are_retries() {
    let data = tempfile::tempdir().unwrap();
    let retries = JobOptions::new().retries(4);
    for path in files(data.path()) {
        let engine = engine(1);
        let round = || {
            let read = || reader(&engine, &path).options(&retries).read().unwrap();
            let (_, table) = with_kills(&engine, READ, 4, read);
            assert_eq!(numbers(&table), (0..ROWS).collect::<Vec<_>>());
            calls_of(&engine, READ).1 > 0
        };
        assert!((0..ROUNDS).any(|_| round()), "no call was ended");
    }
}

#[test]
fn a_worker_that_dies_while_it_looks_for_the_ends_of_records_costs_nothing() {
    let data = tempfile::tempdir().unwrap();
    let [path, ..] = files(data.path());
    let engine = engine(1);
    // For kills that come too late.
    let retries = JobOptions::new().retries(2);
    let round = || {
        let read = || reader(&engine, &path).options(&retries).read().unwrap();
        let (_, table) = with_kills(&engine, SURVEY, 2, read);
        assert_eq!(numbers(&table), (0..ROWS).collect::<Vec<_>>());
        calls_of(&engine, SURVEY).1 > 0
    };
    assert!((0..ROUNDS).any(|_| round()), "no call was ended");
}

#[test]
fn a_death_costs_one_part_which_the_error_names() {
    fn fatal(part: &Part) -> Result<i64, ArrowError> {
        let total = sum(part)?;
        if part.batches()?[0]
            .column(0)
            .as_primitive::<Int64Type>()
            .values()
            .contains(&250)
        {
            std::process::abort();
        }
        Ok(total)
    }
    let data = tempfile::tempdir().unwrap();
    let path = data.path().join("a.csv");
    fs::write(&path, csv(0..500)).unwrap();
    let engine = engine(2);
    let table = engine.csv(&path).part_bytes(500).read().unwrap();
    let scan = engine.csv(&path).part_bytes(500).scan().unwrap();
    for report in [
        engine.map_partitions(&table, fatal, ()).report(),
        scan.map_partitions(fatal, ()).report(),
    ] {
        let [failure] = report.failures() else {
            panic!("{report:?}")
        };
        let bytes = failure.origin().unwrap().bytes().unwrap();
        let content = fs::read_to_string(&path).unwrap();
        assert!(content[bytes.start as usize..bytes.end as usize].contains("\n250,"));
        let named = format!("a.csv, bytes {}..{}: ", bytes.start, bytes.end);
        assert!(
            failure.to_string().contains(&named) && failure.to_string().contains("SIGABRT"),
            "{failure}"
        );
        let TableErrorKind::Job(error) = failure.kind() else {
            panic!("{failure}")
        };
        assert!(matches!(error.kind(), JobErrorKind::Lost(_)));
        assert_eq!(
            report
                .values()
                .iter()
                .filter(|value| value.is_none())
                .count(),
            1
        );
        assert_eq!(report.values().len(), table.parts().len());
    }
}
