//! Files written for given events, read by independent parsers.

use std::collections::HashMap;
use std::fs::{File, Permissions};
use std::io::{Read, Seek};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::MFdFlags;
use nix::sys::stat::Mode;
use serde_json::Value;

use super::*;

const LANE: LaneId = LaneId { worker: 1, lane: 0 };

fn config(folder: &Path) -> TraceConfig {
    TraceConfig {
        events: Some(folder.join("events.json")),
        report: Some(folder.join("report.html")),
        attempts: DEFAULT_ATTEMPTS,
    }
}

fn start(config: TraceConfig) -> TraceOwner {
    Tracer::start(config, "test").unwrap()
}

/// A job that waited for 10 µs from `at` on, and ran for 20 µs.
fn ran(job: u64, at: u64, end: AttemptEnd) -> Attempt {
    Attempt {
        job,
        label: None,
        kernel: "app::shrink<u8>",
        attempt: 1,
        since: at,
        ran: Some(KernelRun {
            lane: LANE,
            placed: at + 5_000,
            began: at + 10_000,
            ended: at + 30_000,
        }),
        over: at + 31_000,
        bytes_in: 100,
        bytes_out: 7,
        end,
    }
}

fn events(folder: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.join("events.json")).unwrap();
    let whole: Value =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    whole["traceEvents"].as_array().unwrap().clone()
}

fn of<'a>(events: &'a [Value], phase: &str, name: &str) -> Vec<&'a Value> {
    let is = |event: &&Value| event["ph"] == phase && event["name"] == name;
    events.iter().filter(is).collect()
}

fn failed(why: &str) -> AttemptEnd {
    AttemptEnd::Failed {
        why: why.into(),
        crash: None,
        is_retried: false,
    }
}

/// A stack of 40 functions.
#[derive(Debug)]
struct Crash;

impl Describe for Crash {
    fn what(&self) -> String {
        "SIGSEGV: a \"wild\" <write>".into()
    }

    fn frames(&self) -> Vec<String> {
        let frame = |n| format!("f{n}<u8> (\"a\".rs:{n})");
        (0..40).map(frame).collect()
    }
}

#[test]
fn a_crash_is_described_beside_its_job() {
    let folder = tempfile::tempdir().unwrap();
    let tracer = start(config(folder.path()));
    let crashed = AttemptEnd::Failed {
        why: "its worker was ended".into(),
        crash: Some(Arc::new(Crash)),
        is_retried: true,
    };
    let now = monotonic_ns();
    tracer.0.send(Event::Attempt(ran(1, now, crashed)));
    tracer
        .0
        .send(Event::Attempt(ran(2, now, failed("it broke"))));
    drop(tracer);
    let events = events(folder.path());
    let runs = of(&events, "X", "shrink<u8>");
    let args = &runs[0]["args"];
    assert_eq!(args["crash"], Crash.what());
    let stack = args["stack"].as_array().unwrap();
    assert_eq!(
        (stack.len(), &stack[3]),
        (32, &Crash.frames()[3].clone().into())
    );
    assert_eq!(args["tried_again"], true);
    assert!(runs[1]["args"]["crash"].is_null());
    let failures = of(&events, "i", "failed");
    assert_eq!(failures[0]["args"]["crash"], Crash.what());
    let page = std::fs::read_to_string(folder.path().join("report.html")).unwrap();
    for part in [
        "its worker was ended (retried)<div>SIGSEGV: a &quot;wild&quot; &lt;write&gt;</div><ol><li>f0&lt;u8&gt; (",
        "<li>… (32 more)</li></ol>",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
}

#[test]
fn the_file_is_complete_at_any_time() {
    let folder = tempfile::tempdir().unwrap();
    let tracer = start(config(folder.path()));
    assert_eq!(events(folder.path()).len(), 1, "the name of the engine");
    let now = monotonic_ns();
    for job in 0..100 {
        tracer.0.send(Event::Attempt(ran(
            job,
            now + job * 1000,
            AttemptEnd::Value,
        )));
        if job % 10 == 0 {
            tracer.0.flush().unwrap();
            let events = events(folder.path());
            assert_eq!(of(&events, "X", "shrink<u8>").len() as u64, job + 1);
        }
    }
    drop(tracer);
    assert_eq!(of(&events(folder.path()), "X", "shrink<u8>").len(), 100);
}

#[test]
fn waits_and_runs_have_their_times() {
    let folder = tempfile::tempdir().unwrap();
    let tracer = start(config(folder.path()));
    let now = monotonic_ns();
    tracer
        .0
        .send(Event::Attempt(ran(7, now, AttemptEnd::Value)));
    drop(tracer);
    let events = events(folder.path());
    let time = |event: &Value| (event["ts"].as_f64().unwrap() * 1000.0).round() as i64;
    let [begin] = of(&events, "b", "shrink<u8>")[..] else {
        panic!()
    };
    let [end] = of(&events, "e", "shrink<u8>")[..] else {
        panic!()
    };
    let [run] = of(&events, "X", "shrink<u8>")[..] else {
        panic!()
    };
    assert_eq!(
        (begin["id"].as_str(), end["id"].as_str()),
        (Some("7.1"), Some("7.1"))
    );
    assert_eq!(
        (time(end) - time(begin), time(run) - time(end)),
        (10_000, 0)
    );
    assert_eq!(run["dur"].as_f64(), Some(20.0));
    assert_eq!(
        (run["pid"].as_u64(), run["tid"].as_u64()),
        (Some(3), Some(0))
    );
    let args = &run["args"];
    assert_eq!(args["kernel"], "app::shrink<u8>");
    assert_eq!(
        (args["queued_us"].as_f64(), args["ahead_us"].as_f64()),
        (Some(5.0), Some(5.0))
    );
    assert_eq!(
        (args["bytes_in"].as_u64(), args["bytes_out"].as_u64()),
        (Some(100), Some(7))
    );
}

#[test]
fn arrows_join_dependent_jobs() {
    let folder = tempfile::tempdir().unwrap();
    let tracer = start(config(folder.path()));
    let now = monotonic_ns();
    let send = |job, at: u64, end| tracer.0.send(Event::Attempt(ran(job, now + at, end)));
    tracer.0.send(Event::Depends { from: 1, to: 3 });
    send(1, 0, AttemptEnd::Value);
    send(2, 100_000, AttemptEnd::Value);
    tracer.0.send(Event::Depends { from: 2, to: 3 });
    send(3, 200_000, AttemptEnd::Value);
    // No arrow leads from a job without a value.
    tracer.0.send(Event::Depends { from: 4, to: 5 });
    send(4, 300_000, failed("no"));
    send(5, 400_000, AttemptEnd::Value);
    drop(tracer);
    let events = events(folder.path());
    let (starts, ends) = (of(&events, "s", "needs"), of(&events, "f", "needs"));
    assert_eq!((starts.len(), ends.len()), (2, 2), "{events:#?}");
    let runs: HashMap<_, _> = of(&events, "X", "shrink<u8>")
        .into_iter()
        .map(|run| {
            let from = run["ts"].as_f64().unwrap();
            (
                run["args"]["job"].as_u64().unwrap(),
                from..=from + run["dur"].as_f64().unwrap(),
            )
        })
        .collect();
    for (index, from) in [(0, 1), (1, 2)] {
        assert_eq!(starts[index]["id"], ends[index]["id"]);
        assert_eq!(ends[index]["bp"], "e");
        assert!(runs[&from].contains(&starts[index]["ts"].as_f64().unwrap()));
        assert!(runs[&3].contains(&ends[index]["ts"].as_f64().unwrap()));
    }
}

#[test]
fn events_that_come_too_fast_or_too_late_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let few = TraceConfig {
        attempts: 10,
        ..config(folder.path())
    };
    let tracer = start(few);
    let now = monotonic_ns();
    {
        // The writer's thread cannot write while the lock is held; it may have taken one batch already.
        let _busy = lock(&tracer.0.writer);
        for job in 0..3 * INBOX_LIMIT as u64 {
            tracer
                .0
                .send(Event::Attempt(ran(job, now, AttemptEnd::Value)));
        }
        assert!(lock(&tracer.0.inbox).events.len() <= INBOX_LIMIT);
        assert!(lock(&tracer.0.inbox).dropped >= INBOX_LIMIT as u64);
    }
    let written = tracer.0.flush().unwrap();
    assert_eq!(
        (written.attempts, written.dropped),
        (10, 3 * INBOX_LIMIT as u64 - 10)
    );
    let text = std::fs::read_to_string(folder.path().join("report.html")).unwrap();
    assert!(text.contains("came faster than they could be written"));
    assert_eq!(of(&events(folder.path()), "X", "shrink<u8>").len(), 10);
}

#[test]
fn events_other_than_attempts_are_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let few = TraceConfig {
        attempts: 10,
        ..config(folder.path())
    };
    let tracer = start(few);
    let now = monotonic_ns();
    let events_of = |n: u64| {
        let at = now + n * 50_000;
        [
            Event::Started {
                worker: 1,
                pid: 9,
                from: at,
                at: at + 1,
            },
            Event::MemoryWait {
                lane: LANE,
                from: at + 2,
                at: at + 3,
                bytes: 4096,
                is_granted: true,
            },
            Event::Exited {
                worker: 1,
                at: at + 4,
                why: Some("it fell".into()),
            },
        ]
    };
    (0..100)
        .flat_map(events_of)
        .for_each(|event| tracer.0.send(event));
    // The events before do not count for the limit of attempts; neither do arrows.
    tracer.0.send(Event::Depends { from: 1, to: 2 });
    for job in 1..=20 {
        tracer
            .0
            .send(Event::Attempt(ran(job, now, AttemptEnd::Value)));
    }
    let written = tracer.0.flush().unwrap();
    assert_eq!((written.attempts, written.dropped), (10, 290 + 1 + 10));
    let events = events(folder.path());
    let count = |phase, name| of(&events, phase, name).len();
    assert_eq!(count("X", "shrink<u8>"), 10);
    assert_eq!(count("s", "needs"), 0);
    let others = [("X", "start"), ("b", "waits for memory"), ("i", "died")];
    assert_eq!(others.map(|(phase, name)| count(phase, name)), [4, 3, 3]);
    let page = std::fs::read_to_string(folder.path().join("report.html")).unwrap();
    assert!(
        page.contains("Workers that died: 100"),
        "the report counts all"
    );
}

#[test]
fn an_unwritable_file_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let missing = |events: &str, report: &str| TraceConfig {
        events: Some(folder.path().join(events)),
        report: Some(folder.path().join(report)),
        attempts: DEFAULT_ATTEMPTS,
    };
    for (config, file) in [
        (missing("no/events.json", "report.html"), "no/events.json"),
        (missing("events.json", "no/report.html"), "no/report.html"),
    ] {
        let (path, error) = Tracer::start(config, "test").unwrap_err();
        assert!(path.ends_with(file), "{path:?}");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
    // A disk that is full from the start.
    let full = TraceConfig {
        events: Some("/dev/full".into()),
        ..config(folder.path())
    };
    let (path, error) = Tracer::start(full, "test").unwrap_err();
    assert_eq!(
        (path, error.kind()),
        ("/dev/full".into(), io::ErrorKind::StorageFull)
    );
}

#[test]
fn a_full_disk_ends_the_writing_with_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let tracer = start(config(folder.path()));
    tracer
        .0
        .send(Event::Attempt(ran(1, monotonic_ns(), AttemptEnd::Value)));
    tracer.0.flush().unwrap();
    lock(&tracer.0.writer).fill_disk();
    tracer
        .0
        .send(Event::Attempt(ran(2, monotonic_ns(), AttemptEnd::Value)));
    for _ in 0..2 {
        let (path, error) = tracer.0.flush().unwrap_err();
        assert!(path.ends_with("events.json"));
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
    drop(tracer);
    assert_eq!(
        of(&events(folder.path()), "X", "shrink<u8>").len(),
        1,
        "the file stays complete"
    );
}

/// A trace whose events go into memory.
fn into_memory() -> (File, TraceOwner) {
    let flags = MFdFlags::MFD_ALLOW_SEALING;
    let memory = File::from(crate::sys::memfd_create("events", flags).unwrap());
    let events = format!("/proc/self/fd/{}", memory.as_raw_fd());
    let tracer = start(TraceConfig {
        events: Some(events.into()),
        report: None,
        attempts: DEFAULT_ATTEMPTS,
    });
    (memory, tracer)
}

/// Sets the length of this memory, and makes writes beyond it fail like those to a full disk.
fn limit_len(memory: &File, len: u64) {
    memory.set_len(len).unwrap();
    fcntl(memory, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_GROW)).unwrap();
}

/// Reads the file, which must be valid JSON.
fn read_all(mut memory: File) -> Value {
    let mut text = String::new();
    memory.rewind().unwrap();
    memory.read_to_string(&mut text).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Collected events are written in batches: the disk takes some of them, and not the next one.
#[test]
fn many_events_make_many_batches() {
    let (memory, tracer) = into_memory();
    limit_len(&memory, 200_000);
    let now = monotonic_ns();
    let attempt = |job| Event::Attempt(ran(job, now, AttemptEnd::Value));
    let mut writer = lock(&tracer.0.writer);
    writer.write((0..2000).map(attempt).collect(), 0);
    let written = writer.written();
    assert_eq!(written.attempts + written.dropped, 2000);
    assert!((200..800).contains(&written.attempts), "{written:?}");
    drop(writer);
    let whole = read_all(memory);
    let events = whole["traceEvents"].as_array().unwrap();
    assert_eq!(of(events, "X", "shrink<u8>").len() as u64, written.attempts);
}

/// Memory that cannot grow takes the first part of a batch, like a disk that fills up.
#[test]
fn a_partially_written_batch_leaves_the_file_complete() {
    let (memory, tracer) = into_memory();
    let now = monotonic_ns();
    let send = |job| {
        tracer
            .0
            .send(Event::Attempt(ran(job, now, AttemptEnd::Value)))
    };
    send(0);
    tracer.0.flush().unwrap();
    limit_len(&memory, 20_000);
    {
        // In one batch: the writer's thread cannot write meanwhile.
        let _busy = lock(&tracer.0.writer);
        (1..100).for_each(send);
    }
    let (_, error) = tracer.0.flush().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    send(100);
    tracer.0.flush().unwrap_err();
    let written = lock(&tracer.0.writer).written();
    assert_eq!(written.attempts + written.dropped, 101);

    let whole = read_all(memory);
    let events = whole["traceEvents"].as_array().unwrap();
    let runs = of(events, "X", "shrink<u8>").len() as u64;
    assert_eq!(runs, written.attempts);
    // The file counts all dropped events but the one after the failure.
    let dropped = whole["otherData"]["dropped_events"].as_str().unwrap();
    assert_eq!(dropped.parse::<u64>().unwrap() + 1, written.dropped);
}

#[test]
fn a_page_replaces_the_previous_one_when_it_is_complete() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("report.html");
    let link = folder.path().join("link.html");
    std::fs::write(&page, "from another program").unwrap();
    std::fs::set_permissions(&page, Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::symlink("report.html", &link).unwrap();
    let mut before = File::open(&page).unwrap();
    let tracer = start(TraceConfig {
        events: None,
        report: Some(link.clone()),
        attempts: DEFAULT_ATTEMPTS,
    });
    tracer.0.flush().unwrap();
    // An open reader still sees the previous page.
    let mut text = String::new();
    before.read_to_string(&mut text).unwrap();
    assert_eq!(text, "from another program");
    let text = std::fs::read_to_string(&page).unwrap();
    assert!(text.starts_with("<!doctype html>"), "{text}");
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    let mode = std::fs::metadata(&page).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    drop(tracer);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
}

/// Like `/dev/stdout`, which cannot be replaced.
#[test]
fn the_page_can_go_to_a_pipe() {
    let (read, write) = nix::unistd::pipe().unwrap();
    let path = format!("/proc/self/fd/{}", write.as_raw_fd());
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        File::from(read).read_to_string(&mut text).unwrap();
        text
    });
    let tracer = start(TraceConfig {
        events: None,
        report: Some(path.into()),
        attempts: DEFAULT_ATTEMPTS,
    });
    drop(tracer);
    drop(write);
    let text = reader.join().unwrap();
    assert!(text.starts_with("<!doctype html>"), "{text}");
}

/// A reader of a named pipe that reads to the end, like `cat`.
fn read_once(path: &Path) -> std::thread::JoinHandle<String> {
    // Open the pipe before a writer opens it.
    let mut pipe = std::fs::OpenOptions::new();
    let pipe = pipe.read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let mut pipe = pipe.unwrap();
    fcntl(&pipe, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
    std::thread::spawn(move || {
        // A pipe without a writer would look as if it had ended.
        let flags = PollFlags::POLLIN;
        poll(&mut [PollFd::new(pipe.as_fd(), flags)], PollTimeout::NONE).unwrap();
        let mut text = String::new();
        pipe.read_to_string(&mut text).unwrap();
        text
    })
}

fn within(what: &str, run: impl FnOnce() + Send + 'static) {
    let (sender, done) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        run();
        sender.send(()).unwrap();
    });
    let limit = std::time::Duration::from_secs(120);
    match done.recv_timeout(limit) {
        Err(std::sync::mpsc::RecvTimeoutError::Timeout) => panic!("{what} blocks"),
        _ => thread.join().unwrap(),
    }
}

#[test]
fn a_named_pipe_gets_one_page_without_waiting_for_a_reader() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("page");
    nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
    let only_report = || TraceConfig {
        events: None,
        report: Some(path.clone()),
        attempts: DEFAULT_ATTEMPTS,
    };
    let config = only_report();
    within("a pipe without a reader", move || {
        let (path, error) = Tracer::start(config, "test").unwrap_err();
        assert!(path.ends_with("page"));
        assert_eq!(error.kind(), io::ErrorKind::NotConnected, "{error}");
    });
    for flushes in [0, 1, 2] {
        let reader = read_once(&path);
        let config = only_report();
        within("a pipe with a reader", move || {
            let tracer = start(config);
            let job = ran(1, monotonic_ns(), failed("it broke"));
            tracer.0.send(Event::Attempt(job));
            for _ in 0..flushes {
                tracer.0.flush().unwrap();
            }
            drop(tracer);
        });
        let text = reader.join().unwrap();
        assert_eq!(text.matches("<!doctype html>").count(), 1, "{flushes}");
        assert!(text.contains("it broke"), "{flushes}: {text}");
    }
}

#[test]
fn events_need_a_file_that_can_be_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.json");
    nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
    let (_read, write) = nix::unistd::pipe().unwrap();
    let unnamed = format!("/proc/self/fd/{}", write.as_raw_fd());
    for events in [path, unnamed.into()] {
        let config = TraceConfig {
            events: Some(events),
            report: None,
            attempts: DEFAULT_ATTEMPTS,
        };
        within("a pipe for events", move || {
            let (_, error) = Tracer::start(config, "test").unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotSeekable);
            assert!(error.to_string().contains("events need a file"), "{error}");
        });
    }
}

#[test]
fn events_and_report_need_separate_files() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::create_dir(at("in")).unwrap();
    std::os::unix::fs::symlink("events", at("link")).unwrap();
    let both = |events: PathBuf, report: PathBuf| TraceConfig {
        events: Some(events),
        report: Some(report),
        attempts: DEFAULT_ATTEMPTS,
    };
    for report in ["events", "in/../events", "link"] {
        let _ = std::fs::remove_file(at("events"));
        let (path, error) = Tracer::start(both(at("events"), at(report)), "test").unwrap_err();
        assert!(path.ends_with(report), "{path:?}");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
    }
    // A device that stores nothing may receive both the events and the report.
    drop(start(both("/dev/null".into(), "/dev/null".into())));
    // Two names of one file.
    std::fs::hard_link(at("events"), at("hard")).unwrap();
    let config = both(at("events"), at("hard"));
    Tracer::start(config, "test").unwrap_err();
    std::fs::remove_file(at("hard")).unwrap();
    drop(start(both(at("events"), at("hard"))));
}

#[test]
fn the_report_names_failures_and_loads_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let tracer = start(config(folder.path()));
    let now = monotonic_ns();
    tracer.0.send(Event::Started {
        worker: 1,
        pid: 9,
        from: now,
        at: now + 1000,
    });
    tracer
        .0
        .send(Event::Attempt(ran(1, now, AttemptEnd::Value)));
    tracer.0.send(Event::Attempt(ran(
        2,
        now + 50_000,
        failed("<b>it broke</b>"),
    )));
    tracer.0.send(Event::Attempt(Attempt {
        ran: None,
        ..ran(3, now, AttemptEnd::Cancelled)
    }));
    let exited = |why: Option<&str>| Event::Exited {
        worker: 1,
        at: now + 90_000,
        why: why.map(Box::from),
    };
    tracer.0.send(exited(Some("ended by SIGSEGV")));
    tracer.0.send(exited(None));
    drop(tracer);
    let page = std::fs::read_to_string(folder.path().join("report.html")).unwrap();
    for part in [
        "Failures: 1",
        "&lt;b&gt;it broke&lt;/b&gt;",
        "job 2, shrink&lt;u8&gt;, worker 1",
        "Workers that died: 1",
        "ended by SIGSEGV",
        "worker 1</text>",
        "cancelled before they began",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    for outside in [
        "http:", "https:", "src=", "href=", "url(", "@import", "<script",
    ] {
        assert!(!page.contains(outside), "{outside}");
    }
    let events = events(folder.path());
    assert_eq!(of(&events, "i", "died").len(), 1);
    assert_eq!(of(&events, "i", "failed").len(), 1);
    assert_eq!(of(&events, "i", "not run").len(), 1);
}

#[test]
fn the_size_of_a_report_is_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let tracer = start(config(folder.path()));
    let now = monotonic_ns();
    // The times of the runs span many times the duration of the test, because the report begins when the trace does.
    let period = Duration::from_millis(100).as_nanos() as u64;
    for job in 0..20_000 {
        let mut attempt = ran(job, now + job * period, AttemptEnd::Value);
        if let Some(ran) = &mut attempt.ran {
            ran.ended = ran.began + period / 2;
            attempt.over = ran.ended;
        }
        tracer.0.send(Event::Attempt(attempt));
        if job % 5000 == 0 {
            tracer.0.flush().unwrap();
        }
    }
    tracer.0.flush().unwrap();
    let page = std::fs::read_to_string(folder.path().join("report.html")).unwrap();
    assert!(
        page.contains("20,000") && page.len() < 200_000,
        "{}",
        page.len()
    );
    // One shape per lane and kernel; the kernel ran half of the time.
    assert_eq!(page.matches("<path class=\"k0\"").count(), 1);
    assert!(page.contains("50 %"), "{page}");
}

/// Events of each thread stay in order.
#[test]
fn events_come_from_any_thread() {
    let folder = tempfile::tempdir().unwrap();
    let tracer = start(config(folder.path()));
    std::thread::scope(|threads| {
        for thread in 0..4u64 {
            let tracer = Arc::clone(&tracer.0);
            threads.spawn(move || {
                for job in 0..500 {
                    let at = monotonic_ns();
                    tracer.send(Event::Attempt(ran(
                        thread * 1000 + job,
                        at,
                        AttemptEnd::Value,
                    )));
                }
            });
        }
    });
    drop(tracer);
    let events = events(folder.path());
    let runs = of(&events, "X", "shrink<u8>");
    let jobs: Vec<_> = runs
        .iter()
        .map(|run| run["args"]["job"].as_u64().unwrap())
        .collect();
    assert_eq!(jobs.len(), 2000);
    for thread in 0..4 {
        let own: Vec<_> = jobs.iter().filter(|job| **job / 1000 == thread).collect();
        assert!(own.is_sorted() && own.len() == 500);
    }
}

/// The cells of the rows of a table in the report, without markup.
fn table(page: &str, title: &str) -> Vec<Vec<String>> {
    let start = page.find(&format!("<h2>{title}</h2>")).unwrap();
    let text = &page[start..start + page[start..].find("</table>").unwrap()];
    let cell = |cell: &str| {
        let from = cell.find('>').unwrap() + 1;
        let text = cell[from..].split("</td>").next().unwrap();
        text.rsplit("</i>").next().unwrap().to_owned()
    };
    let row = |row: &str| row.split("<td").skip(1).map(cell).collect();
    text.split("<tr>").skip(2).map(row).collect()
}

#[test]
fn the_report_names_labels_the_slowest_runs_and_idle_workers() {
    let folder = tempfile::tempdir().unwrap();
    let tracer = start(config(folder.path()));
    let now = monotonic_ns();
    let send = |event| tracer.0.send(event);
    for worker in [1, 2] {
        send(Event::Started {
            worker,
            pid: 9,
            from: now,
            at: now + 1_000_000,
        });
    }
    let labels = [None, Some("small"), Some("<large>")];
    for job in 1..=90u64 {
        let mut attempt = ran(job, now + 2_000_000, AttemptEnd::Value);
        attempt.label = labels[job as usize % 3].map(Arc::from);
        if let Some(run) = &mut attempt.ran {
            run.ended = run.began + job * 10_000;
            attempt.over = run.ended;
        }
        send(Event::Attempt(attempt));
    }
    send(Event::Exited {
        worker: 2,
        at: now + 4_000_000,
        why: None,
    });
    send(Event::Exited {
        worker: 1,
        at: now + 101_000_000,
        why: None,
    });
    drop(tracer);
    let page = std::fs::read_to_string(folder.path().join("report.html")).unwrap();
    let kernels = table(&page, "Kernels");
    let mut seen: Vec<_> = kernels.iter().map(|row| &row[..5]).collect();
    seen.sort();
    let ms = |us: u64| format!("{:.1} ms", us as f64 / 1e3);
    let total = |rest: u64| ms((1..=90).filter(|job| job % 3 == rest).sum::<u64>() * 10);
    assert_eq!(
        seen,
        [
            ["shrink&lt;u8&gt;", "", "30", "0", &total(0)],
            ["shrink&lt;u8&gt;", "&lt;large&gt;", "30", "0", &total(2)],
            ["shrink&lt;u8&gt;", "small", "30", "0", &total(1)],
        ]
    );
    let slowest = table(&page, "Slowest runs");
    assert_eq!(slowest.len(), 20);
    for (row, job) in slowest.iter().zip((71..=90).rev()) {
        let label = ["", "small", "&lt;large&gt;"][job % 3];
        let took = format!("{} µs", job * 10);
        assert_eq!(row[1..5], [label, &job.to_string(), &took, "worker 1"]);
    }
    // The first one was ready for 100 ms; the other one ran nothing.
    let busy = (1..=90).sum::<u64>() * 10;
    assert_eq!(
        table(&page, "Workers"),
        [
            ["worker 1", "90", &ms(busy), &ms(100_000 - busy)],
            ["worker 2", "0", "0", "3.00 ms"]
        ]
    );
    assert!(page.contains("shrink&lt;u8&gt; &quot;small&quot;"));
}

#[test]
fn labels_beyond_a_limit_share_a_row() {
    let folder = tempfile::tempdir().unwrap();
    let tracer = start(config(folder.path()));
    let now = monotonic_ns();
    for job in 0..3000 {
        let mut attempt = ran(job, now, AttemptEnd::Value);
        attempt.label = Some(format!("{job}").into());
        tracer.0.send(Event::Attempt(attempt));
    }
    drop(tracer);
    let page = std::fs::read_to_string(folder.path().join("report.html")).unwrap();
    let kernels = table(&page, "Kernels");
    assert_eq!(kernels.len(), 501);
    let runs = |row: &Vec<String>| row[2].replace(',', "").parse::<u64>().unwrap();
    assert_eq!(kernels.iter().map(runs).sum::<u64>(), 3000);
    assert!(
        kernels
            .iter()
            .any(|row| row[1] == "(other labels)" && runs(row) == 2500)
    );
}
