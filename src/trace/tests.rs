//! What is written for given events, read by something else than what wrote it.

use std::collections::HashMap;
use std::fs::{File, Permissions};
use std::io::{Read, Seek};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::Mode;
use serde_json::Value;

use super::*;

const HERE: Place = Place { worker: 1, lane: 0 };

fn plan(folder: &Path) -> Plan {
    Plan {
        events: Some(folder.join("events.json")),
        report: Some(folder.join("report.html")),
        attempts: ATTEMPTS,
    }
}

fn start(plan: Plan) -> Owner {
    Tracer::start(plan, "test").unwrap()
}

/// A job that waited from `at` for 10 µs and ran for 20.
fn ran(job: u64, at: u64, end: End) -> Attempt {
    Attempt {
        job,
        label: None,
        kernel: "app::shrink<u8>",
        attempt: 1,
        since: at,
        ran: Some(Ran {
            place: HERE,
            placed: at + 5_000,
            began: at + 10_000,
            ended: at + 30_000,
        }),
        over: at + 31_000,
        bytes: (100, 7),
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

fn failed(why: &str) -> End {
    End::Failed {
        why: why.into(),
        again: false,
    }
}

#[test]
fn the_file_is_whole_at_any_time() {
    let folder = tempfile::tempdir().unwrap();
    let tracer = start(plan(folder.path()));
    assert_eq!(events(folder.path()).len(), 1, "the name of the engine");
    let now = monotonic_ns();
    for job in 0..100 {
        tracer
            .0
            .send(Event::Attempt(ran(job, now + job * 1000, End::Value)));
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
fn a_wait_and_a_run_have_the_times_that_they_had() {
    let folder = tempfile::tempdir().unwrap();
    let tracer = start(plan(folder.path()));
    let now = monotonic_ns();
    tracer.0.send(Event::Attempt(ran(7, now, End::Value)));
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
fn arrows_join_the_jobs_that_depend_on_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let tracer = start(plan(folder.path()));
    let now = monotonic_ns();
    let send = |job, at: u64, end| tracer.0.send(Event::Attempt(ran(job, now + at, end)));
    tracer.0.send(Event::Depends { from: 1, to: 3 });
    send(1, 0, End::Value);
    send(2, 100_000, End::Value);
    tracer.0.send(Event::Depends { from: 2, to: 3 });
    send(3, 200_000, End::Value);
    // Nothing leads from a job without a value.
    tracer.0.send(Event::Depends { from: 4, to: 5 });
    send(4, 300_000, failed("no"));
    send(5, 400_000, End::Value);
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
fn what_comes_too_fast_or_too_late_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let few = Plan {
        attempts: 10,
        ..plan(folder.path())
    };
    let tracer = start(few);
    let now = monotonic_ns();
    {
        // The thread cannot pass anything on while somebody else writes; it may have taken one batch already.
        let _busy = lock(&tracer.0.writer);
        for job in 0..3 * INBOX as u64 {
            tracer.0.send(Event::Attempt(ran(job, now, End::Value)));
        }
        assert!(lock(&tracer.0.inbox).events.len() <= INBOX);
        assert!(lock(&tracer.0.inbox).dropped >= INBOX as u64);
    }
    let written = tracer.0.flush().unwrap();
    assert_eq!(
        (written.attempts, written.dropped),
        (10, 3 * INBOX as u64 - 10)
    );
    let text = std::fs::read_to_string(folder.path().join("report.html")).unwrap();
    assert!(text.contains("came faster than they could be taken"));
    assert_eq!(of(&events(folder.path()), "X", "shrink<u8>").len(), 10);
}

#[test]
fn what_is_no_attempt_is_bounded_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let few = Plan {
        attempts: 10,
        ..plan(folder.path())
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
            Event::Granted {
                place: HERE,
                from: at + 2,
                at: at + 3,
                bytes: 4096,
                given: true,
            },
            Event::Gone {
                worker: 1,
                at: at + 4,
                why: Some("it fell".into()),
            },
        ]
    };
    (0..100)
        .flat_map(events_of)
        .for_each(|event| tracer.0.send(event));
    // What came before takes nothing away from attempts; an arrow is no attempt.
    tracer.0.send(Event::Depends { from: 1, to: 2 });
    for job in 1..=20 {
        tracer.0.send(Event::Attempt(ran(job, now, End::Value)));
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
fn a_file_that_cannot_be_written_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = |events: &str, report: &str| Plan {
        events: Some(folder.path().join(events)),
        report: Some(folder.path().join(report)),
        attempts: ATTEMPTS,
    };
    for (plan, file) in [
        (nowhere("no/events.json", "report.html"), "no/events.json"),
        (nowhere("events.json", "no/report.html"), "no/report.html"),
    ] {
        let (path, error) = Tracer::start(plan, "test").unwrap_err();
        assert!(path.ends_with(file), "{path:?}");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
    // A disk that is full from the start.
    let full = Plan {
        events: Some("/dev/full".into()),
        ..plan(folder.path())
    };
    let (path, error) = Tracer::start(full, "test").unwrap_err();
    assert_eq!(
        (path, error.kind()),
        ("/dev/full".into(), io::ErrorKind::StorageFull)
    );
}

#[test]
fn a_disk_that_fills_up_ends_the_writing_and_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let tracer = start(plan(folder.path()));
    tracer
        .0
        .send(Event::Attempt(ran(1, monotonic_ns(), End::Value)));
    tracer.0.flush().unwrap();
    lock(&tracer.0.writer).spoil();
    tracer
        .0
        .send(Event::Attempt(ran(2, monotonic_ns(), End::Value)));
    for _ in 0..2 {
        let (path, error) = tracer.0.flush().unwrap_err();
        assert!(path.ends_with("events.json"));
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
    drop(tracer);
    assert_eq!(
        of(&events(folder.path()), "X", "shrink<u8>").len(),
        1,
        "what was written stays whole"
    );
}

/// A trace whose events go into memory.
fn into_memory() -> (File, Owner) {
    let flags = MFdFlags::MFD_ALLOW_SEALING;
    let memory = File::from(memfd_create(c"events", flags).unwrap());
    let events = format!("/proc/self/fd/{}", memory.as_raw_fd());
    let tracer = start(Plan {
        events: Some(events.into()),
        report: None,
        attempts: ATTEMPTS,
    });
    (memory, tracer)
}

/// From here on this memory is so long, and takes what lies beyond as little as a disk does that is full.
fn grows_no_more(memory: &File, len: u64) {
    memory.set_len(len).unwrap();
    fcntl(memory, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_GROW)).unwrap();
}

/// The events there, which are valid whatever has happened.
fn read_whole(mut memory: File) -> Value {
    let mut text = String::new();
    memory.rewind().unwrap();
    memory.read_to_string(&mut text).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// What is collected is written piece by piece: of one collection the disk takes some pieces, and the next one not.
#[test]
fn many_events_make_many_batches() {
    let (memory, tracer) = into_memory();
    grows_no_more(&memory, 200_000);
    let now = monotonic_ns();
    let attempt = |job| Event::Attempt(ran(job, now, End::Value));
    let mut writer = lock(&tracer.0.writer);
    writer.write((0..2000).map(attempt).collect(), 0);
    let written = writer.written();
    assert_eq!(written.attempts + written.dropped, 2000);
    assert!((200..800).contains(&written.attempts), "{written:?}");
    drop(writer);
    let whole = read_whole(memory);
    let events = whole["traceEvents"].as_array().unwrap();
    assert_eq!(of(events, "X", "shrink<u8>").len() as u64, written.attempts);
}

/// Memory that refuses to grow takes the first part of a batch, as a disk does that fills up.
#[test]
fn a_batch_that_is_written_by_half_leaves_the_file_whole() {
    let (memory, tracer) = into_memory();
    let now = monotonic_ns();
    let send = |job| tracer.0.send(Event::Attempt(ran(job, now, End::Value)));
    send(0);
    tracer.0.flush().unwrap();
    grows_no_more(&memory, 20_000);
    {
        // In one batch: nobody passes anything on meanwhile.
        let _busy = lock(&tracer.0.writer);
        (1..100).for_each(send);
    }
    let (_, error) = tracer.0.flush().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    send(100);
    tracer.0.flush().unwrap_err();
    let written = lock(&tracer.0.writer).written();
    assert_eq!(written.attempts + written.dropped, 101);

    let whole = read_whole(memory);
    let events = whole["traceEvents"].as_array().unwrap();
    let runs = of(events, "X", "shrink<u8>").len() as u64;
    assert_eq!(runs, written.attempts);
    // All but the one that came after.
    let dropped = whole["otherData"]["dropped_events"].as_str().unwrap();
    assert_eq!(dropped.parse::<u64>().unwrap() + 1, written.dropped);
}

#[test]
fn a_page_takes_the_place_of_the_one_before_when_it_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("report.html");
    let link = folder.path().join("link.html");
    std::fs::write(&page, "by somebody else").unwrap();
    std::fs::set_permissions(&page, Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::symlink("report.html", &link).unwrap();
    let mut before = File::open(&page).unwrap();
    let tracer = start(Plan {
        events: None,
        report: Some(link.clone()),
        attempts: ATTEMPTS,
    });
    tracer.0.flush().unwrap();
    // Whoever reads it goes on reading what they had.
    let mut text = String::new();
    before.read_to_string(&mut text).unwrap();
    assert_eq!(text, "by somebody else");
    let text = std::fs::read_to_string(&page).unwrap();
    assert!(text.starts_with("<!doctype html>"), "{text}");
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    let mode = std::fs::metadata(&page).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    drop(tracer);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
}

/// Such as `/dev/stdout`: nothing takes its place.
#[test]
fn a_pipe_gets_the_page() {
    let (read, write) = nix::unistd::pipe().unwrap();
    let path = format!("/proc/self/fd/{}", write.as_raw_fd());
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        File::from(read).read_to_string(&mut text).unwrap();
        text
    });
    let tracer = start(Plan {
        events: None,
        report: Some(path.into()),
        attempts: ATTEMPTS,
    });
    drop(tracer);
    drop(write);
    let text = reader.join().unwrap();
    assert!(text.starts_with("<!doctype html>"), "{text}");
}

/// A named pipe with a reader, which goes when it has read to the end, as `cat` does.
fn read_once(path: &Path) -> std::thread::JoinHandle<String> {
    // Here, so that it is open before anybody writes.
    let mut pipe = std::fs::OpenOptions::new();
    let pipe = pipe.read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let mut pipe = pipe.unwrap();
    fcntl(&pipe, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
    std::thread::spawn(move || {
        // One that nobody has opened for writing looks like one at its end.
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
    let patience = std::time::Duration::from_secs(120);
    match done.recv_timeout(patience) {
        Err(std::sync::mpsc::RecvTimeoutError::Timeout) => panic!("{what} waits for ever"),
        _ => thread.join().unwrap(),
    }
}

#[test]
fn a_named_pipe_gets_one_page_and_waits_for_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("page");
    nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
    let only_report = || Plan {
        events: None,
        report: Some(path.clone()),
        attempts: ATTEMPTS,
    };
    let plan = only_report();
    within("a pipe without a reader", move || {
        let (path, error) = Tracer::start(plan, "test").unwrap_err();
        assert!(path.ends_with("page"));
        assert_eq!(error.kind(), io::ErrorKind::NotConnected, "{error}");
    });
    for flushes in [0, 1, 2] {
        let reader = read_once(&path);
        let plan = only_report();
        within("a pipe with a reader that goes", move || {
            let tracer = start(plan);
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
fn events_need_what_can_be_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.json");
    nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
    let (_read, write) = nix::unistd::pipe().unwrap();
    let unnamed = format!("/proc/self/fd/{}", write.as_raw_fd());
    for events in [path, unnamed.into()] {
        let plan = Plan {
            events: Some(events),
            report: None,
            attempts: ATTEMPTS,
        };
        within("a pipe for events", move || {
            let (_, error) = Tracer::start(plan, "test").unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotSeekable);
            assert!(error.to_string().contains("events need a file"), "{error}");
        });
    }
}

#[test]
fn events_and_report_need_a_file_each() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::create_dir(at("in")).unwrap();
    std::os::unix::fs::symlink("events", at("link")).unwrap();
    let both = |events: PathBuf, report: PathBuf| Plan {
        events: Some(events),
        report: Some(report),
        attempts: ATTEMPTS,
    };
    for report in ["events", "in/../events", "link"] {
        let _ = std::fs::remove_file(at("events"));
        let (path, error) = Tracer::start(both(at("events"), at(report)), "test").unwrap_err();
        assert!(path.ends_with(report), "{path:?}");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
    }
    // What keeps nothing may be both.
    drop(start(both("/dev/null".into(), "/dev/null".into())));
    // Two files that were one.
    std::fs::hard_link(at("events"), at("hard")).unwrap();
    let plan = both(at("events"), at("hard"));
    Tracer::start(plan, "test").unwrap_err();
    std::fs::remove_file(at("hard")).unwrap();
    drop(start(both(at("events"), at("hard"))));
}

#[test]
fn the_report_names_what_went_wrong_and_loads_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let tracer = start(plan(folder.path()));
    let now = monotonic_ns();
    tracer.0.send(Event::Started {
        worker: 1,
        pid: 9,
        from: now,
        at: now + 1000,
    });
    tracer.0.send(Event::Attempt(ran(1, now, End::Value)));
    tracer.0.send(Event::Attempt(ran(
        2,
        now + 50_000,
        failed("<b>it broke</b>"),
    )));
    tracer.0.send(Event::Attempt(Attempt {
        ran: None,
        ..ran(3, now, End::Cancelled)
    }));
    let gone = |why: Option<&str>| Event::Gone {
        worker: 1,
        at: now + 90_000,
        why: why.map(Box::from),
    };
    tracer.0.send(gone(Some("ended by SIGSEGV")));
    tracer.0.send(gone(None));
    drop(tracer);
    let page = std::fs::read_to_string(folder.path().join("report.html")).unwrap();
    for part in [
        "Failures: 1",
        "&lt;b&gt;it broke&lt;/b&gt;",
        "job 2, shrink&lt;u8&gt;, worker 1",
        "Workers that died: 1",
        "ended by SIGSEGV",
        "worker 1</text>",
        "given up unbegun",
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
fn a_report_of_many_runs_is_no_larger_than_one_of_some() {
    let folder = tempfile::tempdir().unwrap();
    let tracer = start(plan(folder.path()));
    let now = monotonic_ns();
    for job in 0..20_000 {
        tracer
            .0
            .send(Event::Attempt(ran(job, now + job * 40_000, End::Value)));
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
    // Every lane and kernel as one shape; the time that the kernel ran is half of all.
    assert_eq!(page.matches("<path class=\"k0\"").count(), 1);
    assert!(page.contains("50 %"), "{page}");
}

/// Several at once: events of each thread come in its order.
#[test]
fn events_come_from_any_thread() {
    let folder = tempfile::tempdir().unwrap();
    let tracer = start(plan(folder.path()));
    std::thread::scope(|threads| {
        for thread in 0..4u64 {
            let tracer = Arc::clone(&tracer.0);
            threads.spawn(move || {
                for job in 0..500 {
                    let at = monotonic_ns();
                    tracer.send(Event::Attempt(ran(thread * 1000 + job, at, End::Value)));
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
