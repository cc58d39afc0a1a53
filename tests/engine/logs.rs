//! Output of workers, and what remains of it when they die.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use arenite::engine::{Builder, LogLine, LogSource};
use arenite::{Engine, Job, JobErrorKind, Sandbox};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::programs::{self, Program, Scenario};
use crate::harness::{
    ABORTED, Calls, Gate, KILLED, Lab, assert_kind, assert_says, builder, pass, send_signal, step,
    tests, wait_until,
};

tests![
    a_panic_that_ends_the_process_is_reported,
    a_silent_death_has_no_last_words,
    lines_arrive_in_order_with_their_jobs,
    the_first_line_after_many_silent_jobs_has_its_job,
    a_line_ends_with_its_job,
    a_buffered_line_ends_with_its_job,
    the_last_words_of_a_killed_job,
    terminal_escapes_are_spelled_out,
    a_flood_is_dropped_and_counted,
    lines_arrive_while_the_job_runs_or_is_stopped,
    a_sink_that_blocks_or_panics,
    a_slow_sink_receives_all_lines,
    a_sink_that_drops_the_engine,
    a_grandchild_that_keeps_the_pipe,
    stdin_is_empty,
    a_kernel_that_redirects_or_closes_its_streams,
    by_default_lines_go_to_stderr,
    output_of_ended_jobs_is_there_when_the_program_exits,
    flushing_hands_over_what_ended_jobs_have_printed,
    flushing_gives_up_on_a_sink_that_blocks,
    a_sink_that_flushes_or_exits,
];

/// All output of an engine's workers.
#[derive(Clone, Default)]
pub struct Said(Arc<Mutex<Vec<LogLine>>>);

impl Said {
    pub fn lab(&self, workers: usize) -> Lab {
        self.lab_with(workers, |builder| builder)
    }

    fn lab_with(&self, workers: usize, change: impl FnOnce(Builder) -> Builder) -> Lab {
        let said = self.clone();
        Lab::with(workers, |builder| {
            change(builder).on_log(move |line| said.add(line))
        })
    }

    pub fn all(&self) -> Vec<LogLine> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn texts(&self) -> Vec<(Option<u64>, String)> {
        let lines = self.all().into_iter();
        lines.map(|line| (line.job, line.text)).collect()
    }

    pub fn add(&self, line: &LogLine) {
        self.0.lock().unwrap().push(line.clone());
    }

    /// Waits for a line that contains this text.
    fn await_text(&self, text: &str) -> LogLine {
        wait_until(&format!("a worker says {text:?}"), || {
            self.all().iter().any(|line| line.text.contains(text))
        });
        let mut lines = self.all().into_iter();
        lines.find(|line| line.text.contains(text)).unwrap()
    }
}

fn expect(lines: &[(u64, &str)]) -> Vec<(Option<u64>, String)> {
    let owned = lines
        .iter()
        .map(|&(job, text)| (Some(job), text.to_owned()));
    owned.collect()
}

fn say(text: &str) {
    print!("{text}");
    std::io::stdout().flush().unwrap();
}

/// A panic that must not unwind out of the function ends the process.
extern "C" fn cannot_unwind(what: u32) {
    panic!("no way \x1b[31mout of {what:x}\n  nor back\n1 is no job");
}

fn a_panic_that_ends_the_process_is_reported() {
    let lab = Lab::balanced(1);
    let error = lab.error_of(|| cannot_unwind(0xcafe), ());
    assert_eq!(*error.kind(), ABORTED, "{error}");
    let words = error.last_words();
    let said = |what: &str| words.iter().any(|line| line.contains(what));
    assert!(
        said("tests/engine/logs.rs") && said(r"no way \u{1b}[31mout of cafe"),
        "{words:?}"
    );
    assert!(said("  nor back") && said("1 is no job"), "{words:?}");
    assert_says(&error, "last words");
}

/// A reported panic, output of an earlier job, and output of an earlier worker are not the last words of a later job,
/// even if one follows the other at once.
fn a_silent_death_has_no_last_words() {
    let lab = Lab::balanced(1);
    for _ in 0..2 {
        let caught = lab.error_of(|| -> u8 { panic!("caught") }, ());
        assert_kind!(caught, JobErrorKind::Panicked { .. });
        assert!(caught.last_words().is_empty(), "{caught:?}");
        let gate = Gate::new();
        let printed = lab.submit(|| println!("of the job before"), ());
        let job = lab.submit(pass, (&gate.path(),));
        printed.wait().unwrap();
        let held = gate.meet();
        send_signal(lab.pid(0), Signal::SIGKILL);
        let error = lab.failure_of(job);
        drop(held);
        assert_eq!(*error.kind(), KILLED);
        assert!(error.last_words().is_empty(), "{error:?}");
    }
    // Nor are those of an earlier attempt.
    let tried = Gate::new();
    let twice = |gate: &str| {
        static TRIED: AtomicBool = AtomicBool::new(false);
        assert!(TRIED.swap(true, Ordering::Relaxed), "the first time");
        pass(gate);
    };
    let job = lab.job(twice, (&tried.path(),)).retries(1).submit();
    let held = tried.meet();
    send_signal(lab.pid(0), Signal::SIGKILL);
    let error = lab.failure_of(job);
    drop(held);
    assert_eq!((error.attempt(), error.deaths().len()), (2, 1));
    assert!(error.last_words().is_empty(), "{error:?}");
}

/// Thousands of jobs on several workers, also in a sandbox, a third of them silent. Each line is attributed to its job,
/// and the lines of a job are in order.
fn lines_arrive_in_order_with_their_jobs() {
    fn talk(n: u64) -> u64 {
        if !n.is_multiple_of(3) {
            println!("{n} out 0");
            eprintln!("{n} err 0");
            println!("{n} out 1");
            eprintln!("{n} err 1");
        }
        n
    }
    const JOBS: u64 = 2000;
    for is_sandboxed in [false, true] {
        let said = Said::default();
        let lab = said.lab_with(3, |builder| match is_sandboxed {
            true => builder.sandbox(Sandbox::Strict),
            false => builder,
        });
        let jobs: Vec<_> = (1..=JOBS).map(|n| lab.submit(talk, (n,))).collect();
        for (n, job) in (1..).zip(jobs) {
            assert_eq!(job.wait().unwrap(), n);
        }
        lab.assert_in_use(0);
        lab.into_inner().shutdown();
        let mut next: BTreeMap<(u64, &str), u32> = BTreeMap::new();
        for line in said.all() {
            let word = match line.source {
                LogSource::Stdout => "out",
                LogSource::Stderr => "err",
                other => panic!("{other:?}: {line}"),
            };
            let job = line
                .job
                .unwrap_or_else(|| panic!("a line without its job: {line:?}"));
            let count = next.entry((job, word)).or_default();
            assert_eq!(line.text, format!("{job} {word} {count}"), "{line:?}");
            *count += 1;
        }
        assert_eq!(next.len() as u64, 2 * (JOBS - JOBS / 3));
        assert!(next.values().all(|&count| count == 2));
    }
}

/// Lines are attributed without observing the worker first, including those of the first job that prints.
fn the_first_line_after_many_silent_jobs_has_its_job() {
    let said = Said::default();
    let lab = said.lab(1);
    for round in 0..20 {
        let base = round * 203;
        let silent = |_| lab.submit(|| 0u8, ());
        let before: Vec<_> = (0..101).map(silent).collect();
        let loud = lab.submit(|round: u64| println!("round {round}"), (round,));
        let after: Vec<_> = (0..101).map(silent).collect();
        before
            .into_iter()
            .chain(after)
            .for_each(|job| assert_eq!(job.wait().unwrap(), 0));
        loud.wait().unwrap();
        let line = said.await_text(&format!("round {round}"));
        assert_eq!(line.job, Some(base + 102), "{line:?}");
    }
}

/// Text without a newline becomes a line at the end of its job; what a thread prints later belongs to no job.
fn a_line_ends_with_its_job() {
    fn leave_a_thread(first: &str, second: &str) {
        let (first, second) = (first.to_owned(), second.to_owned());
        say("half");
        std::thread::spawn(move || {
            pass(&first);
            say("from a thread\n");
            pass(&second);
        });
    }
    let (first, second) = (Gate::new(), Gate::new());
    let said = Said::default();
    let lab = said.lab(1);
    let job = lab.submit(leave_a_thread, (&first.path(), &second.path()));
    job.wait().unwrap();
    said.await_text("half");
    first.open();
    // The job at the gate has printed.
    second.open();
    lab.value_of(|| say("a line\nand more"), ());
    lab.value_of(|| say("\n"), ());
    lab.into_inner().shutdown();
    let mut expected = expect(&[
        (1, "half"),
        (0, "from a thread"),
        (2, "a line"),
        (2, "and more"),
        (3, ""),
    ]);
    expected[1].0 = None;
    assert_eq!(said.texts(), expected);
}

/// The same for text that only the buffers of Rust and of the C library have.
fn a_buffered_line_ends_with_its_job() {
    fn by_c(job: u32) {
        let text = std::ffi::CString::new(format!("C {job}")).unwrap();
        // SAFETY: the text ends with a zero, and has no directives.
        unsafe { libc::printf(text.as_ptr()) };
    }
    let said = Said::default();
    let lab = said.lab(1);
    // A quick kernel that prints nothing, before and after others print.
    (0..100).for_each(|_| lab.value_of(|| (), ()));
    lab.value_of(|| print!("Rust 101"), ());
    lab.value_of(|| (), ());
    lab.value_of(by_c, (103,));
    lab.value_of(|| println!("whole"), ());
    lab.value_of(by_c, (105,));
    let failed = lab.submit(
        || -> Result<(), String> {
            print!("Rust 106");
            Err("on purpose".into())
        },
        (),
    );
    failed.wait().unwrap_err();
    let panicked = lab.submit(|| -> () { panic!("{:?}", print!("Rust 107")) }, ());
    panicked.wait().unwrap_err();
    lab.value_of(|| (), ());
    lab.into_inner().shutdown();
    let mut texts = said.texts();
    texts.retain(|(_, text)| {
        ["Rust", "C ", "whole"]
            .iter()
            .any(|begin| text.starts_with(begin))
    });
    let expected = [
        (101, "Rust 101"),
        (103, "C 103"),
        (104, "whole"),
        (105, "C 105"),
        (106, "Rust 106"),
        (107, "Rust 107"),
    ];
    assert_eq!(texts, expect(&expected));
}

/// What a job has printed when it dies is in its error, however it dies, also without a newline.
fn the_last_words_of_a_killed_job() {
    fn last(gate: &str, how: u8, lines: usize) {
        for n in 0..lines {
            println!("line {n}");
        }
        eprint!("the last straw");
        match how {
            0 => pass(gate),
            1 => std::process::abort(),
            _ => std::process::exit(3),
        }
    }
    let said = Said::default();
    let lab = said.lab(1);
    // Few lines leave room for those of the job before.
    for (how, lines) in [(0, 100), (1, 100), (2, 100), (0, 3), (1, 3), (2, 3)] {
        let gate = Gate::new();
        lab.value_of(|| println!("of an earlier job"), ());
        let job = lab.submit(last, (&gate.path(), how, lines));
        if how == 0 {
            let held = gate.meet();
            send_signal(lab.pid(0), Signal::SIGKILL);
            drop(held);
        }
        let error = lab.failure_of(job);
        let words = error.last_words();
        assert!(words.len() <= 16, "{words:?}");
        let newest = format!("line {}", lines - 1);
        assert!(words.contains(&newest), "{words:?}");
        assert!(
            words.iter().any(|line| line == "the last straw"),
            "{words:?}"
        );
        assert!(
            !words.iter().any(|line| line.contains("earlier")),
            "{words:?}"
        );
        assert_says(&error, "last words");
        let of_this = |line: &LogLine| line.job == error.job();
        wait_until("all its lines have come", || {
            said.all().into_iter().filter(of_this).count() == lines + 1
        });
    }
    lab.assert_in_use(0);
}

fn terminal_escapes_are_spelled_out() {
    fn rude() {
        let bytes = b"\x1b[2J\x1b]0;owned\x07 caf\xe9 \xc2\x9b31m\ttab\r\n\x00\n";
        std::io::stdout().write_all(bytes).unwrap();
        std::io::stdout().write_all(&[b'x'; 10_000]).unwrap();
    }
    let said = Said::default();
    let lab = said.lab(1);
    lab.value_of(rude, ());
    let error = lab.error_of(|| -> u8 { panic!("red \x1b[31m\x07 text\nmore") }, ());
    assert_says(&error, "red \\u{1b}[31m\\u{7} text\nmore");
    let error = lab.error_of(|| Err::<u8, _>("oh \x1b[2J".to_owned()), ());
    assert_says(&error, "oh \\u{1b}[2J");
    lab.into_inner().shutdown();
    let long = format!("{}… (5904 more bytes)", "x".repeat(4096));
    assert_eq!(
        said.texts(),
        expect(&[
            (
                1,
                "\\u{1b}[2J\\u{1b}]0;owned\\u{7} caf\\xe9 \\u{9b}31m\ttab"
            ),
            (1, "\\u{0}"),
            (1, &long),
        ])
    );
}

/// A gigabyte of lines: the excess is dropped and counted, none of it is retained, and other jobs run. Stderr is searched
/// for messages of failed allocations.
fn a_flood_is_dropped_and_counted() {
    const BYTES: u64 = 256 << 20;
    fn flood(errors: bool) {
        let (mut out, mut err) = (std::io::stdout(), std::io::stderr());
        let stream: &mut dyn Write = if errors { &mut err } else { &mut out };
        let lines = [&[b'f'; 1023][..], b"\n"].concat().repeat(512);
        for _ in 0..BYTES / lines.len() as u64 {
            stream.write_all(&lines).unwrap();
        }
    }
    for (source, errors) in [(LogSource::Stdout, false), (LogSource::Stderr, true)] {
        let came = flooded(source, |lab| lab.submit(flood, (errors,)));
        assert_eq!(came.passed + came.dropped, BYTES / 1024);
        let least = if errors { 0 } else { came.passed };
        assert!(came.dropped > least && came.passed > 500, "{came:?}");
    }
}

/// The outcome of a flood, in lines.
#[derive(Debug, Default)]
pub struct Flooded {
    pub passed: u64,
    pub dropped: u64,
}

/// A worker may print any amount: the memory of this process is bounded, and other jobs run.
pub fn flooded(source: LogSource, flood: impl FnOnce(&Lab) -> Job<()>) -> Flooded {
    let (counted, count) = channel();
    let lab = Lab::with(2, |builder| {
        builder.on_log(move |line| counted.send((line.source, line.text.clone())).unwrap())
    });
    let before = resident();
    let flood = flood(&lab);
    let (mut most, mut others) = (0, 0u64);
    step("a flood to be over");
    while !flood.is_done() {
        assert_eq!(lab.value_of(|x: u64| x + 1, (others,)), others + 1);
        others += 1;
        most = most.max(resident());
    }
    flood.wait().unwrap();
    lab.into_inner().shutdown();
    let grown = most.saturating_sub(before);
    let mut came = Flooded::default();
    for (of, text) in count.iter() {
        if of == LogSource::Notice {
            came.dropped += text.split(' ').next().unwrap().parse::<u64>().unwrap();
        } else {
            assert_eq!(of, source, "{text}");
            came.passed += 1;
        }
    }
    let (passed, dropped) = (came.passed, came.dropped);
    println!("{passed} lines, {dropped} dropped, {grown} bytes more, {others} other jobs");
    // The test keeps the lines that passed.
    assert!(
        grown < (32 << 20) + came.passed * 2048,
        "{grown} bytes more"
    );
    assert!(others > 10, "{others} other jobs");
    came
}

/// Resident memory of this process in bytes.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = text.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

fn lines_arrive_while_the_job_runs_or_is_stopped() {
    fn talk(gate: &str) {
        println!("I run");
        pass(gate);
        println!("I am done");
    }
    let gate = Gate::new();
    let said = Said::default();
    let lab = said.lab(1);
    let job = lab.submit(talk, (&gate.path(),));
    let held = gate.meet();
    let pid = Pid::from_raw(lab.pid(0));
    kill(pid, Signal::SIGSTOP).unwrap();
    assert_eq!(said.await_text("I run").job, Some(1));
    kill(pid, Signal::SIGCONT).unwrap();
    drop(held);
    job.wait().unwrap();
    assert_eq!(said.await_text("I am done").job, Some(1));
}

/// Nothing waits for a sink that does not return, and one that panics is called again.
fn a_sink_that_blocks_or_panics() {
    let gate = Gate::new();
    let path = gate.path();
    let (sender, lines) = channel();
    let lab = Lab::with(2, |builder| {
        builder.on_log(move |line| {
            match &*line.text {
                "block" => pass(&path),
                "panic" => panic!("the sink does not like this line"),
                _ => {}
            }
            sender.send(line.text.clone()).unwrap();
        })
    });
    lab.value_of(|| println!("panic\nblock"), ());
    let held = gate.meet();
    // Far more than pipes and queues hold.
    for n in 0..2000u32 {
        let talk = |n: u32| {
            println!("{}", "y".repeat(2000));
            n
        };
        assert_eq!(lab.value_of(talk, (n,)), n);
    }
    lab.replace(0);
    drop(held);
    lab.into_inner().shutdown();
    let lines: Vec<String> = lines.iter().collect();
    assert_eq!(lines[0], "block");
    let missing = lines.iter().filter(|line| line.contains("dropped"));
    let missing: Vec<_> = missing.collect();
    assert!(!missing.is_empty() && lines.len() < 1500, "{missing:?}");
}

/// Shutting down waits for all lines, however long they take together.
fn a_slow_sink_receives_all_lines() {
    // Longer than one call may take.
    const LINES: usize = 1100;
    let (sender, lines) = channel();
    let lab = Lab::with(1, |builder| {
        builder.on_log(move |line| {
            // Not a wait: the sink is this slow.
            std::thread::sleep(Duration::from_millis(2));
            sender.send(line.text.clone()).unwrap();
        })
    });
    let print = |count: u64| (0..count).for_each(|n| println!("{n}"));
    lab.value_of(print, (LINES as u64,));
    lab.into_inner().shutdown();
    let arrived: Vec<String> = lines.try_iter().collect();
    let expected: Vec<String> = (0..LINES).map(|n| n.to_string()).collect();
    assert_eq!(arrived, expected);
}

/// The sink's own thread ends the engine without waiting for itself.
fn a_sink_that_drops_the_engine() {
    let slot: Arc<Mutex<Option<Engine>>> = Arc::default();
    let (sender, ended) = channel();
    let inner = Arc::clone(&slot);
    let sink = move |_: &LogLine| {
        let engine = inner.lock().unwrap().take();
        let ended = engine.map(Engine::shutdown).is_some();
        sender.send(ended).unwrap();
    };
    let engine = builder(1, 64 << 20).on_log(sink);
    let mut slot = slot.lock().unwrap();
    let engine = slot.insert(engine.build().unwrap());
    engine.value_of(|| println!("enough"), ());
    drop(slot);
    step("the sink to end the engine");
    assert!(ended.recv().unwrap());
}

/// A program that a kernel started and left holds the pipes of its worker.
fn a_grandchild_that_keeps_the_pipe() {
    fn start() -> u32 {
        let script = "while :; do echo noise; done";
        let child = Command::new("sh")
            .args(["-c", script])
            .stdin(Stdio::null())
            .spawn();
        child.unwrap().id()
    }
    let said = Said::default();
    let lab = said.lab(2);
    let pid = lab.value_of(start, ());
    said.await_text("noise");
    let worker = said.all()[0].worker as usize;
    lab.replace(worker);
    assert_eq!(lab.value_of(|| 1u8, ()), 1);
    // Its output has no reader any more, which ends it.
    wait_until("the program has ended", || {
        kill(Pid::from_raw(pid as i32), None).is_err()
    });
    lab.assert_in_use(0);
}

fn stdin_is_empty() {
    fn read() -> u64 {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).unwrap() as u64
    }
    let lab = Lab::new(1);
    assert_eq!(lab.value_of(read, ()), 0);
}

/// A kernel may replace its stdout by a file, into which the engine then writes nothing. It may also close it.
fn a_kernel_that_redirects_or_closes_its_streams() {
    fn redirect(path: &str) {
        println!("before");
        let file = std::fs::File::create(path).unwrap();
        nix::unistd::dup2_stdout(&file).unwrap();
        println!("into the file");
        eprintln!("still heard");
    }
    fn close() {
        // SAFETY: this process prints nothing after this.
        unsafe { libc::close(1) };
        // SAFETY: as above.
        unsafe { libc::close(2) };
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    let said = Said::default();
    let lab = said.lab(1);
    lab.value_of(redirect, (file.path().to_str().unwrap(),));
    lab.value_of(|| eprintln!("another"), ());
    assert_eq!(said.await_text("still heard").job, Some(1));
    assert_eq!(said.await_text("another").job, Some(2));
    assert_eq!(
        std::fs::read_to_string(file.path()).unwrap(),
        "into the file\n"
    );
    lab.value_of(close, ());
    assert_eq!(lab.value_of(|| 1u8, ()), 1);
    lab.replace(0);
    lab.value_of(|| println!("a new one"), ());
    assert_eq!(said.await_text("a new one").job, Some(5));
    lab.assert_in_use(0);
}

fn by_default_lines_go_to_stderr() {
    let ended = Program::start("plain", || Ok(())).end();
    ended.assert_done();
    let lines: Vec<&str> = ended.errors.lines().collect();
    assert_eq!(lines, ["shop:0 job 1: hello", "shop:0 job 2: again"]);
    // There is no reader: the work is done all the same.
    Program::start("closed", || Ok(())).end().assert_done();
}

pub const SCENARIOS: &[Scenario] = &[
    ("plain", plain),
    ("closed", closed),
    ("never-ended", never_ended),
    ("exits-in-sink", exits_in_sink),
    ("events", crate::events::program),
];

/// Several times: whether the monitor or the end of the program came first used to be a race.
fn output_of_ended_jobs_is_there_when_the_program_exits() {
    for _ in 0..30 {
        let ended = Program::start("never-ended", || Ok(())).end();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let mut lines: Vec<&str> = ended.errors.lines().collect();
        lines.sort_unstable();
        let expected: Vec<_> = (10..50).map(|n| format!("line {n}")).collect();
        assert_eq!(lines, expected);
    }
}

/// The static engine is not dropped when the program ends.
fn never_ended() {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    let builder = builder(2, 64 << 20);
    let builder = builder.on_log(|line| eprintln!("{}", line.text));
    let engine = ENGINE.get_or_init(|| builder.build().unwrap());
    let say = |n: u32| println!("line {n}");
    let jobs: Vec<_> = (10..50).map(|n| engine.submit(say, (n,))).collect();
    jobs.into_iter().for_each(|job| job.wait().unwrap());
    std::process::exit(0);
}

/// Also while a job on another lane prints without end, within the limits on output.
fn flushing_hands_over_what_ended_jobs_have_printed() {
    // While the gate exists.
    let flood = |gate: &str| {
        pass(gate);
        while std::fs::metadata(gate).is_ok() {
            println!("{}", "x".repeat(100));
            std::thread::sleep(Duration::from_micros(500));
        }
    };
    for (workers, lanes) in [(2, 1), (1, 2)] {
        let said = Said::default();
        let add = said.clone();
        let lab = Lab::with(workers, |builder| {
            let add = move |line: &LogLine| {
                if line.text.starts_with("job") {
                    add.add(line);
                }
            };
            builder.lanes(lanes).on_log(add)
        });
        let gate = Gate::new();
        let flooding = lab.submit(flood, (&gate.path(),));
        gate.open();
        for n in 0..50 {
            lab.value_of(|n: u32| eprintln!("job {n}"), (n,));
            lab.flush_logs();
            let last = said.all().pop().map(|line| line.text);
            assert_eq!(last, Some(format!("job {n}")));
            step("the next line");
        }
        drop(gate);
        flooding.wait().unwrap();
    }
    Engine::inline().flush_logs();
}

fn flushing_gives_up_on_a_sink_that_blocks() {
    let (release, released) = channel::<()>();
    let released = Mutex::new(released);
    let block = move |_: &LogLine| {
        let _ = released.lock().unwrap().recv();
    };
    let lab = Lab::with(1, |builder| builder.on_log(block));
    lab.value_of(|| println!("not taken"), ());
    step("a flush that does not wait for the sink");
    lab.flush_logs();
    drop(release);
    lab.flush_logs();
}

/// What the sink does with its own engine waits for nothing.
fn a_sink_that_flushes_or_exits() {
    let ended = Program::start("exits-in-sink", || Ok(())).end();
    assert_eq!(ended.code, Some(5), "{ended:?}");
}

fn exits_in_sink() {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    let builder = builder(1, 64 << 20);
    let builder = builder.on_log(|_| {
        ENGINE.get().unwrap().flush_logs();
        std::process::exit(5);
    });
    let engine = ENGINE.get_or_init(|| builder.build().unwrap());
    engine.value_of(|| println!("the last line"), ());
    // Its input is closed already: the sink ends it.
    loop {
        std::thread::park();
    }
}

fn plain() {
    let engine = Engine::builder()
        .workers(1)
        .label("shop")
        .capacity(64 << 20);
    let engine = engine.build().unwrap();
    engine.value_of(|| println!("hello"), ());
    engine.value_of(|| eprintln!("again"), ());
    engine.shutdown();
}

fn closed() {
    // SAFETY: the standard library handles a closed stderr.
    unsafe { libc::close(2) };
    // SAFETY: as above; the next descriptors get these numbers.
    unsafe { libc::close(0) };
    plain();
    // As much as from the start of a segment into the links of all workers; a replaced worker finds everything
    // unchanged.
    let builder = builder(2, 64 << 20);
    let engine = builder.build().unwrap();
    // Failures below are reported by the exit code.
    programs::say("done");
    // SAFETY: as above.
    unsafe { libc::close(1) };
    let flood = || (0..8000).for_each(|line| println!("{line:060}"));
    engine.value_of(flood, ());
    for _ in 0..4 {
        engine.error_of(|| -> () { std::process::abort() }, ());
        let squares = engine.map(|x: u64| x * x, (0..1000u64).map(|x| (x,)));
        let squares: Vec<u64> = squares.map(Result::unwrap).collect();
        assert!(squares.into_iter().eq((0..1000).map(|x| x * x)));
    }
    assert_eq!(engine.stats().restarts(), 4);
    engine.shutdown();
    // Its descriptors differ from those at its start, on purpose.
    std::process::exit(0);
}
