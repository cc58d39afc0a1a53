//! Progress, and traces.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use arenite::{Array, BuildError, Engine, Job, JobErrorKind, JobLimit, Limiter, Trace};
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::programs::{Program, Scenario, say, stay};
use crate::harness::{Gate, Lab, assert_kind, at_gates, pass, step, tests, wait_until};

tests![
    every_job_is_counted_once,
    jobs_that_wait_for_a_permit_are_counted,
    progress_from_another_thread,
    a_trace_has_each_run_on_its_lane,
    kernels_are_distinguished_by_type,
    queueing_does_not_count_as_run_time,
    times_are_those_of_the_worker,
    each_retry_and_deadline_is_an_attempt_in_the_trace,
    waits_for_memory_are_traced,
    an_engine_dropped_at_work_completes_its_trace,
    a_killed_program_leaves_a_readable_trace,
    a_report_names_causes,
    an_unwritable_trace_is_an_error,
    an_engine_without_a_trace_has_no_thread_for_one,
    an_inline_engine_writes_a_trace,
    a_trace_records_a_killed_worker_and_its_lanes,
    jobs_of_jobs_have_arrows,
];

// ---- reading trace files -----------------------------------------------------------------------------------

struct Files {
    folder: TempDir,
}

impl Files {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn events(&self) -> PathBuf {
        self.folder.path().join("events.json")
    }

    fn page(&self) -> PathBuf {
        self.folder.path().join("report.html")
    }

    fn read_page(&self) -> String {
        std::fs::read_to_string(self.page()).unwrap()
    }

    fn trace(&self) -> Trace {
        Trace::to(self.events()).report(self.page())
    }

    fn lab(&self, workers: usize) -> Lab {
        Lab::with(workers, |builder| builder.trace(self.trace()))
    }

    fn read(&self) -> Events {
        read(&self.events())
    }
}

#[derive(Debug)]
struct Events(Vec<Value>);

/// Reads all events of a file and checks each against the format.
fn read(path: &Path) -> Events {
    let text = std::fs::read_to_string(path).unwrap();
    let whole: Value =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"));
    let events = whole["traceEvents"]
        .as_array()
        .expect("a list of events")
        .clone();
    let mut open: HashMap<(String, String), f64> = HashMap::new();
    let mut flows: HashMap<u64, f64> = HashMap::new();
    // Runs of a lane, by start: they are disjoint or nested.
    let mut lanes: BTreeMap<(u64, u64), Vec<(f64, f64)>> = BTreeMap::new();
    for event in &events {
        let none = |key: &str| -> ! { panic!("no {key} in {event}") };
        let text = |key: &str| event[key].as_str().unwrap_or_else(|| none(key));
        let number = |key: &str| event[key].as_f64().unwrap_or_else(|| none(key));
        let lane = (number("pid") as u64, number("tid") as u64);
        assert!(!text("name").is_empty());
        if text("ph") == "M" {
            assert!(!event["args"].as_object().unwrap().is_empty());
            continue;
        }
        let at = number("ts");
        assert!(at >= 0.0);
        match text("ph") {
            "X" => {
                assert!(number("dur") >= 0.0);
                let runs = lanes.entry(lane).or_default();
                runs.push((at, at + number("dur")));
            }
            "b" => {
                let id = (text("cat").to_owned(), text("id").to_owned());
                assert_eq!(open.insert(id, at), None, "{event}");
            }
            "e" => {
                let id = (text("cat").to_owned(), text("id").to_owned());
                let begun = open.remove(&id).unwrap_or_else(|| none("beginning"));
                assert!(begun <= at, "{event}");
            }
            "i" => assert_eq!(text("s"), "t"),
            "s" => assert_eq!(flows.insert(number("id") as u64, at), None),
            "f" => {
                let begun = flows.remove(&(number("id") as u64));
                let begun = begun.unwrap_or_else(|| none("beginning"));
                assert!(begun <= at && event["bp"] == "e");
            }
            other => panic!("an event of phase {other}"),
        }
    }
    assert!(open.is_empty() && flows.is_empty(), "{open:?} {flows:?}");
    for (lane, spans) in &mut lanes {
        spans.sort_by(|a, b| a.0.total_cmp(&b.0).then(b.1.total_cmp(&a.1)));
        let mut enclosing: Vec<f64> = Vec::new();
        for &(from, to) in spans.iter() {
            enclosing.retain(|&end| end > from + 0.0005);
            if let Some(&end) = enclosing.last() {
                assert!(
                    to <= end + 0.0015,
                    "{lane:?}: {from}..{to} goes beyond {end}"
                );
            }
            enclosing.push(to);
        }
    }
    Events(events)
}

impl Events {
    fn of(&self, phase: &str, name: &str) -> Vec<&Value> {
        let is = |event: &&Value| event["ph"] == phase && event["name"] == name;
        self.0.iter().filter(is).collect()
    }

    /// Runs of a kernel by job and attempt.
    fn runs(&self, name: &str) -> BTreeMap<(u64, u64), &Value> {
        let key = |run: &Value| {
            let number = |key: &str| run["args"][key].as_u64().unwrap();
            (number("job"), number("attempt"))
        };
        let mut runs = BTreeMap::new();
        for run in self.of("X", name) {
            let twice = runs.insert(key(run), run);
            assert!(twice.is_none(), "{run} and {twice:?}");
        }
        runs
    }
}

fn from(event: &Value) -> f64 {
    event["ts"].as_f64().unwrap()
}

fn to(event: &Value) -> f64 {
    from(event) + event["dur"].as_f64().unwrap()
}

// ---- kernels -----------------------------------------------------------------------------------------------

fn double(values: &Array<u32>) -> Array<u32> {
    Array::from_fn(values.shape(), |i| values[i] * 2)
}

fn refuse(n: u32) -> Result<u32, String> {
    Err(format!("no {n}"))
}

fn refuse_at_length() -> Result<u32, String> {
    Err("no".repeat(1 << 20))
}

fn die() {
    std::process::abort();
}

fn busy_for(ms: u64) -> u64 {
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(ms) {
        std::hint::spin_loop();
    }
    ms
}

// ---- progress ----------------------------------------------------------------------------------------------

fn every_job_is_counted_once() {
    let lab = Lab::new(1);
    assert_eq!(lab.progress().submitted, 0);
    let (held, at_gate) = lab.hold();
    let values = lab.submit(|| Array::from_slice(&[1u8; 1000]), ());
    let refused = lab.submit(refuse, (1,));
    let dropped = lab.submit(refuse, (2,));
    let cancelled = lab.submit(refuse, (3,));
    let dying = lab.submit(die, ());
    let middle = lab.progress();
    let jobs = (middle.submitted, middle.ended(), middle.running);
    assert_eq!(jobs, (6, 0, 1));
    assert_eq!(middle.queued + middle.ahead, 5, "{middle:?}");
    let mut kernels = middle.kernels.iter();
    let at_gate_now = kernels.find(|kernel| kernel.name.ends_with("pass"));
    assert_eq!(at_gate_now.unwrap().running, 1);
    drop(dropped);
    cancelled.cancel();
    assert_eq!((lab.progress().cancelled, lab.progress().left()), (2, 4));
    drop(at_gate);
    held.wait().unwrap();
    let kept = values.wait().unwrap();
    lab.failure_of(refused);
    lab.failure_of(dying);
    assert_eq!(*lab.failure_of(cancelled).kind(), JobErrorKind::Cancelled);
    let end = lab.progress();
    let ended = (end.done, end.failed, end.cancelled, end.left());
    assert_eq!(ended, (2, 2, 2, 0), "{end:?}");
    assert_eq!((end.bytes, end.running, end.queued), (1000, 0, 0));
    assert!(end.rate > 0.0 && end.elapsed > Duration::ZERO);
    assert_eq!(end.time_left(), Some(Duration::ZERO));
    drop(kept);
    // The same after a crash.
    let one = lab.from_slice(&[1u32]).unwrap();
    lab.submit(double, (&one,)).wait().unwrap();
    assert_eq!(lab.progress().done, 3);
}

fn jobs_that_wait_for_a_permit_are_counted() {
    let lab = Lab::new(2);
    let limiter = Limiter::new().concurrency(1);
    let gates = [Gate::new(), Gate::new()];
    let submit = |gate: &Gate| lab.job(pass, (&gate.path(),)).limit(&limiter).submit();
    let jobs = [submit(&gates[0]), submit(&gates[1])];
    let at_gate = gates[0].meet();
    let progress = lab.progress();
    assert_eq!(
        (progress.limited, progress.running, progress.left()),
        (1, 1, 2)
    );
    drop(at_gate);
    gates[1].open();
    for job in jobs {
        job.wait().unwrap();
    }
    assert_eq!((lab.progress().limited, lab.progress().done), (0, 2));
}

fn progress_from_another_thread() {
    let lab = Lab::new(2);
    thread::scope(|threads| {
        let engine: &Engine = &lab;
        let watch = threads.spawn(move || {
            let mut looks = Vec::new();
            while looks.last().is_none_or(|&(done, _)| done < 20_000) {
                let progress = engine.progress();
                looks.push((progress.done, progress.submitted));
                thread::yield_now();
            }
            looks
        });
        let values = engine.map(|n: u32| n + 1, (0..20_000u32).map(|n| (n,)));
        let sum: u64 = values.map(|value| u64::from(value.unwrap())).sum();
        assert_eq!(sum, 200_010_000);
        step("the last look");
        let looks = watch.join().unwrap();
        assert!(looks.is_sorted(), "never back");
        assert!(looks.iter().all(|(done, submitted)| done <= submitted));
    });
}

// ---- the trace ---------------------------------------------------------------------------------------------

fn a_trace_has_each_run_on_its_lane() {
    let files = Files::new();
    let lab = files.lab(2);
    let values = lab.from_slice(&[1u32; 25_000]).unwrap();
    let jobs: Vec<_> = (0..200).map(|_| lab.submit(double, (&values,))).collect();
    for job in jobs {
        assert_eq!(job.wait().unwrap()[24_999], 2);
    }
    // While the engine lives.
    let written = lab.write_trace().unwrap().unwrap();
    assert_eq!((written.attempts, written.dropped), (200, 0));
    assert_eq!(files.read().runs("double").len(), 200);
    lab.into_inner().shutdown();
    let events = files.read();
    let runs = events.runs("double");
    assert_eq!(runs.len(), 200);
    let ends = events.of("e", "double");
    assert_eq!(ends.len(), 200);
    let wait = |end: &Value| (end["id"].as_str().unwrap().to_owned(), from(end));
    let waits: HashMap<_, _> = ends.into_iter().map(wait).collect();
    for ((job, attempt), run) in &runs {
        let waited = waits[&format!("{job}.{attempt}")];
        assert_eq!(waited, from(run), "it waits until it runs");
        for key in ["bytes_in", "bytes_out"] {
            assert_eq!(run["args"][key].as_u64(), Some(100_000));
        }
        assert!(matches!(run["pid"].as_u64(), Some(2 | 3)) && run["tid"] == 0);
    }
    assert_eq!(events.of("X", "start").len(), 2);
    assert_eq!(events.of("i", "ready").len(), 2);
    let ended = events.of("i", "ended").len();
    assert_eq!(ended, 2, "stopped, which is no death");
    let names = events.of("M", "process_name").into_iter();
    let names: Vec<_> = names.map(|event| event["args"]["name"].clone()).collect();
    for name in ["arenite: waiting", "worker 0", "worker 1"] {
        assert!(names.contains(&Value::from(name)), "{names:?}");
    }
}

fn kernels_are_distinguished_by_type() {
    // Equal code, which a linker may fold.
    fn same<T>(n: u64) -> u64 {
        n + size_of::<T>() as u64
    }
    let files = Files::new();
    let lab = files.lab(1);
    lab.submit(same::<u8>, (1,)).wait().unwrap();
    lab.submit(same::<i8>, (2,)).wait().unwrap();
    drop(lab);
    let events = files.read();
    assert_eq!(events.runs("same<u8>").len(), 1);
    assert_eq!(events.runs("same<i8>").len(), 1);
}

fn queueing_does_not_count_as_run_time() {
    let files = Files::new();
    let lab = files.lab(1);
    let (before, held) = lab.hold();
    let jobs = [30, 1, 20].map(|ms| lab.submit(busy_for, (ms,)));
    drop(held);
    before.wait().unwrap();
    for job in jobs {
        job.wait().unwrap();
    }
    drop(lab);
    let events = files.read();
    let runs: Vec<_> = events.runs("busy_for").into_values().collect();
    for (run, ms) in runs.iter().zip([30.0, 1.0, 20.0]) {
        assert!(run["dur"].as_f64().unwrap() >= ms * 1000.0, "{run}");
    }
    assert!(to(runs[0]) <= from(runs[1]) && to(runs[1]) <= from(runs[2]));
    // One worker: each waited for the previous one, which is not part of its run.
    let begin = events.of("b", "busy_for");
    assert!(begin.iter().all(|begin| from(begin) < from(runs[0])));
}

/// A run ends when its kernel returns, not when the supervisor sees it.
fn times_are_those_of_the_worker() {
    let files = Files::new();
    let lab = files.lab(1);
    let gate = Gate::new();
    let start = Instant::now();
    let first = lab.submit(busy_for, (1,));
    let second = lab.submit(pass, (&gate.path(),));
    let at_gate = gate.meet();
    // The first has ended by now, and no thread has waited for it.
    let over = start.elapsed();
    busy_for(50);
    first.wait().unwrap();
    drop(at_gate);
    second.wait().unwrap();
    drop(lab);
    let events = files.read();
    let run = events.runs("busy_for").into_values().next().unwrap();
    let took = run["dur"].as_f64().unwrap();
    assert!(
        took <= over.as_secs_f64() * 1e6,
        "{took} µs within {over:?}"
    );
}

fn each_retry_and_deadline_is_an_attempt_in_the_trace() {
    let mut limit = Duration::from_millis(20);
    let events = loop {
        step(format!("three attempts of {limit:?}"));
        let files = Files::new();
        let lab = files.lab(1);
        let job = lab.job(busy_for, (60_000,)).deadline(limit).retries(2);
        assert_eq!(lab.failure_of(job.submit()).attempt(), 3);
        let error = lab.submit(refuse, (7,));
        lab.failure_of(error);
        drop(lab);
        let events = files.read();
        // On a busy machine the worker may not have been ready.
        if events.of("i", "not run").is_empty() {
            break events;
        }
        limit *= 2;
    };
    let runs = events.runs("busy_for");
    let attempts: Vec<_> = runs.keys().map(|(_, attempt)| *attempt).collect();
    assert_eq!(attempts, [1, 2, 3]);
    for ((_, attempt), run) in &runs {
        let args = &run["args"];
        assert_eq!(args["tried_again"].as_bool(), Some(*attempt < 3));
        assert!(
            args["error"].as_str().unwrap().contains("deadline"),
            "{args}"
        );
        assert!(run["dur"].as_f64().unwrap() > 0.0);
    }
    assert!(events.of("i", "died").len() >= 3);
    assert_eq!(events.runs("refuse").len(), 1);
    let [failed] = events.of("i", "failed")[3..] else {
        panic!("{events:?}")
    };
    assert!(failed["args"]["error"].as_str().unwrap().contains("no 7"));
}

fn waits_for_memory_are_traced() {
    fn large() -> Array<u8> {
        Array::from_slice(&vec![1u8; 8 << 20])
    }
    let files = Files::new();
    let lab = files.lab(1);
    drop(lab.submit(large, ()).wait().unwrap());
    let error = lab.submit(|| Array::<u8>::zeros(1 << 30), ());
    assert_kind!(
        lab.failure_of(error),
        JobErrorKind::Limit(JobLimit::Arena(_))
    );
    drop(lab);
    let events = files.read();
    let waits = events.of("b", "waits for memory");
    let given: Vec<_> = waits
        .iter()
        .map(|wait| wait["args"]["given"].as_bool().unwrap())
        .collect();
    assert_eq!(given, [true, false]);
    let run = events.runs("large").into_values().next().unwrap();
    assert!(
        from(run) <= from(waits[0]) && from(waits[0]) <= to(run),
        "inside its run"
    );
    assert!(waits[0]["args"]["bytes"].as_u64().unwrap() >= 8 << 20);
}

fn an_engine_dropped_at_work_completes_its_trace() {
    let files = Files::new();
    let lab = files.lab(1);
    let (job, at_gate) = lab.hold();
    let queued: Vec<_> = (0..500).map(|n| lab.submit(refuse, (n,))).collect();
    drop(lab);
    drop(at_gate);
    assert_eq!(*job.wait().unwrap_err().kind(), JobErrorKind::ShutDown);
    let events = files.read();
    assert_eq!(events.runs("pass").len(), 1);
    assert_eq!(events.of("i", "not run").len(), 500);
    drop(queued);
}

pub const SCENARIOS: &[Scenario] = &[("observed", observed)];

/// The variable with the trace file of the program in the next test.
const FILE: &str = "ARENITE_TEST_TRACE";

/// Works until it is killed.
fn observed() {
    // Ends the program with the test.
    std::thread::spawn(|| {
        stay();
        std::process::exit(1)
    });
    let engine = Engine::builder()
        .workers(2)
        .trace(Trace::to(std::env::var_os(FILE).unwrap()))
        .build()
        .unwrap();
    let results = engine.map(|n: u64| n + 1, (0..u64::MAX).map(|n| (n,)));
    for (index, value) in results.enumerate() {
        value.unwrap();
        if index == 0 {
            say("on");
        }
    }
}

fn a_killed_program_leaves_a_readable_trace() {
    let files = Files::new();
    let events = files.events();
    let change = |command: &mut std::process::Command| _ = command.env(FILE, events);
    let mut program = Program::with("observed", || Ok(()), change);
    program.expect("on");
    wait_until("the file has events", || {
        std::fs::metadata(files.events()).is_ok_and(|meta| meta.len() > 100_000)
    });
    program.kill();
    program.end().assert_killed();
    // A kill may truncate the batch that is being written: all but the last line are complete.
    let text = std::fs::read_to_string(files.events()).unwrap();
    let lines: Vec<_> = text.lines().collect();
    for line in &lines[1..lines.len() - 2] {
        let event: Value =
            serde_json::from_str(line.trim_start_matches(',').trim_end_matches(',')).unwrap();
        assert!(event["ph"].is_string());
    }
    assert!(lines.len() > 100);
}

fn a_report_names_causes() {
    let files = Files::new();
    let lab = files.lab(2);
    for n in 0..20u32 {
        lab.submit(|n: u32| n, (n,)).wait().unwrap();
    }
    lab.failure_of(lab.submit(refuse, (13,)));
    lab.failure_of(lab.submit(die, ()));
    wait_until("the worker is replaced", || lab.stats().restarts() == 1);
    lab.write_trace().unwrap();
    let page = files.read_page();
    for part in [
        "refuse",
        "no 13",
        "SIGABRT: an abort",
        "<li>model::observing::die",
        "observing.rs:",
        "Workers that died: 1",
        "Failures: 2",
        "</svg>",
        "</html>",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    assert!(
        !page.contains("http:") && !page.contains("https:"),
        "it loads nothing"
    );
    drop(lab);
    files.read();
}

/// The number of threads of this process that write traces.
fn writers() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    // A thread that has just ended has no name.
    let names =
        tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names
        .filter(|name| name.trim_end() == "arenite-trace")
        .count()
}

fn an_engine_without_a_trace_has_no_thread_for_one() {
    let lab = Lab::new(2);
    assert_eq!(lab.map(|n: u64| n, (0..1000).map(|n| (n,))).count(), 1000);
    assert_eq!(writers(), 0);
    let files = Files::new();
    let traced = files.lab(2);
    // The thread sets its own name, and leaves the list shortly after its end.
    wait_until("a trace is written by a thread", || writers() == 1);
    drop(traced);
    wait_until("it has ended", || writers() == 0);
}

fn an_unwritable_trace_is_an_error() {
    let nowhere = Path::new("/nowhere/at/all.json");
    let builder = Engine::builder().workers(1).trace(Trace::to(nowhere));
    let error = builder.build().unwrap_err();
    assert!(matches!(&error, BuildError::Trace(trace) if trace.path == nowhere));
    let text = error.to_string();
    assert!(text.contains("/nowhere/at/all.json"), "{text}");
    let lab = Lab::new(1);
    assert_eq!(lab.write_trace().unwrap(), None);
}

fn an_inline_engine_writes_a_trace() {
    let files = Files::new();
    let engine = Engine::builder().trace(files.trace()).inline();
    engine.submit(busy_for, (1,)).wait().unwrap();
    let tripled = engine.map(|n: u32| n * 3, (0..10u32).map(|n| (n,)));
    assert_eq!(tripled.map(Result::unwrap).sum::<u32>(), 135);
    engine.submit(refuse, (4,)).wait().unwrap_err();
    engine.submit(refuse_at_length, ()).wait().unwrap_err();
    // An engine in a kernel is another engine.
    let nested = |n: u32| {
        Engine::inline()
            .submit(|n: u32| n + 1, (n,))
            .wait()
            .unwrap()
    };
    assert_eq!(engine.submit(nested, (1,)).wait().unwrap(), 2);
    thread::scope(|threads| {
        threads.spawn(|| engine.submit(busy_for, (0,)).wait().unwrap());
    });
    let progress = engine.progress();
    let ended = (progress.done, progress.failed, progress.left());
    assert_eq!((progress.submitted, ended), (15, (13, 2, 0)));
    let mut kernels = progress.kernels.iter();
    let refused = kernels.find(|kernel| kernel.name.ends_with("refuse"));
    let refused = refused.unwrap();
    assert_eq!((refused.calls, refused.failures), (1, 1));
    assert_eq!(refused.running, 0);
    assert_eq!(engine.write_trace().unwrap().unwrap().attempts, 15);
    drop(engine);
    let events = files.read();
    let runs = events.runs("busy_for");
    let lanes = runs.values().map(|run| run["tid"].as_u64());
    assert!(lanes.eq([Some(0), Some(1)]), "one row per thread");
    assert_eq!(events.runs("refuse").len(), 1);
    // Texts are truncated, like those of workers.
    let at_length = std::fs::metadata(files.events()).unwrap().len();
    assert!((16 << 10..80 << 10).contains(&at_length), "{at_length}");
    assert!(files.read_page().contains("no 4"));

    let untraced = Engine::inline();
    assert_eq!(untraced.write_trace().unwrap(), None);
    let nowhere = Trace::to("/nowhere/at/all.json");
    let nowhere = Engine::builder().trace(nowhere).inline();
    nowhere.submit(busy_for, (0,)).wait().unwrap();
    let error = nowhere.write_trace().unwrap_err().to_string();
    assert!(error.contains("/nowhere/at/all.json"), "{error}");
}

/// With several lanes there is a row per lane, and the death of the worker names all running jobs.
fn a_trace_records_a_killed_worker_and_its_lanes() {
    let files = Files::new();
    let lab = Lab::with(2, |builder| builder.lanes(3).trace(files.trace()));
    let (jobs, held) = at_gates(6, |gate| lab.submit(pass, (gate,)));
    assert_eq!(lab.progress().running, 6);
    lab.replace(0);
    drop(held);
    let (ended, lost): (Vec<_>, Vec<_>) = jobs.into_iter().map(Job::wait).partition(Result::is_ok);
    assert_eq!((ended.len(), lost.len()), (3, 3));
    for error in lost.into_iter().map(Result::unwrap_err) {
        assert_eq!(error.worker(), Some(0));
    }
    lab.submit(busy_for, (0,)).wait().unwrap();
    // Complete also after the death of a worker.
    lab.write_trace().unwrap();
    files.read();
    drop(lab);
    let events = files.read();
    let [died] = events.of("i", "died")[..] else {
        panic!("{events:?}")
    };
    assert!(died["args"]["cause"].as_str().unwrap().contains("SIGKILL"));
    let runs = events.runs("pass");
    let lane = |run: &&Value| (run["pid"].as_u64(), run["tid"].as_u64());
    let mut lanes: Vec<_> = runs.values().map(lane).collect();
    lanes.sort_unstable();
    let rows = [2, 3].map(|worker| [0, 1, 2].map(|lane| (Some(worker), Some(lane))));
    assert_eq!(lanes, rows.concat());
    for run in runs.values() {
        let error = run["args"]["error"].as_str().unwrap_or_default();
        let is_lost = run["pid"] == died["pid"];
        assert_eq!(error.contains("SIGKILL"), is_lost, "{run}");
        assert_eq!(run["cname"] == "terrible", is_lost, "{run}");
        assert!(from(run) < from(died), "it began before its worker died");
    }
    assert_eq!(events.runs("busy_for").len(), 1);
    assert_eq!(events.of("X", "start").len(), 3);
    assert!(files.read_page().contains("worker 0 lane 2"));
}

/// One job feeds two, which feed one: four jobs and four arrows, each from inside one run to inside another.
fn jobs_of_jobs_have_arrows() {
    fn one(n: u32) -> u32 {
        n + 1
    }
    fn sum(a: u32, b: u32) -> u32 {
        a + b
    }
    let files = Files::new();
    let lab = files.lab(2);
    let first = lab.submit(one, (1,));
    let (left, right) = (lab.submit(one, (&first,)), lab.submit(one, (&first,)));
    let last = lab.submit(sum, (&left, &right));
    assert_eq!(last.wait().unwrap(), 6);
    drop(lab);
    let events = files.read();
    // By job number, in the order of sending.
    let ones: Vec<_> = events.runs("one").into_values().collect();
    let sums: Vec<_> = events.runs("sum").into_values().collect();
    let ([first, left, right], [last]) = (&ones[..], &sums[..]) else {
        panic!("{ones:?} {sums:?}");
    };
    let starts = events.of("s", "needs").into_iter();
    let mut arrows: Vec<_> = starts
        .map(|start| {
            let mut ends = events.of("f", "needs").into_iter();
            let end = ends.find(|end| end["id"] == start["id"]).unwrap();
            (start, end)
        })
        .collect();
    let within = |end: &Value, run: &Value| {
        // Within the rounding to three digits of a microsecond.
        let times = from(run) - 0.001..=to(run) + 0.001;
        (&end["pid"], &end["tid"]) == (&run["pid"], &run["tid"]) && times.contains(&from(end))
    };
    for (needed, needs) in [(first, left), (first, right), (left, last), (right, last)] {
        let leads = |(start, end): &(&Value, &Value)| within(start, needed) && within(end, needs);
        let found = arrows.iter().position(leads);
        arrows.remove(found.unwrap_or_else(|| panic!("none of {arrows:?}: {needed} {needs}")));
    }
    assert!(arrows.is_empty(), "{arrows:?}");
}
