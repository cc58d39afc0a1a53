//! Workers that are copied from a template.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use arenite::engine::{Builder, LogLine, LogSource, WorkerProgram};
use arenite::{Engine, JobErrorKind, Sandbox, Template};
use nix::sys::signal::Signal;
use nix::time::ClockId;

use crate::harness::{
    ABORTED, Calls, Lab, assert_kind, assert_says, case, children, send_signal, step, tests,
    wait_until,
};

tests![
    workers_are_copies_of_one_process,
    a_template_that_is_ready_takes_no_time,
    a_worker_that_dies_is_copied_again,
    limits_and_the_sandbox_are_those_of_the_copy,
    many_workers_with_many_lanes_are_copies,
    a_template_that_cannot_be_copied_is_a_notice,
    code_that_a_template_has_open_stays_open_in_copies,
    a_template_that_dies_is_started_again,
    workers_do_not_wait_for_another_template,
    a_template_that_keeps_dying_is_given_up,
    a_template_that_is_killed_is_not_given_up,
    a_template_that_is_stopped_is_replaced,
    an_engine_that_ends_while_its_template_loads,
    engines_share_a_template_that_is_kept,
    engines_that_differ_do_not_share_a_template,
    engines_that_share_a_template_start_another_one,
    a_template_that_cannot_be_shared_is_loaded_once,
    workers_are_copies_of_the_program,
    a_fork_that_is_killed_is_made_again,
];

/// The first argument of a template, and the program of its workers.
const RUN: &str = "--template";

/// Called in `main`, before `init`.
pub fn before_init() {
    if std::env::args().nth(1).as_deref() == Some(RUN) {
        arenite::run_worker_from_template(b"", &Loader);
    }
}

/// What this process, or the one that it is a copy of, has loaded, and its number then.
static LOADED: OnceLock<(String, u32)> = OnceLock::new();
static KEPT: Mutex<Option<File>> = Mutex::new(None);

struct Loader;

impl Template for Loader {
    fn load(&self, setup: &[u8]) -> Result<(), String> {
        let setup = String::from_utf8_lossy(setup).into_owned();
        let hang = || {
            loop {
                std::thread::park();
            }
        };
        match setup.as_str() {
            "error" => return Err("there is no \u{1b}dictionary".into()),
            "panic" => panic!("the dictionary is empty"),
            "abort" => std::process::abort(),
            "thread" => drop(std::thread::spawn(hang)),
            "file" => *KEPT.lock().unwrap() = Some(File::open("/proc/self/stat").unwrap()),
            "code" => *KEPT.lock().unwrap() = Some(File::open("/proc/self/exe").unwrap()),
            "hang" => hang(),
            append if append.starts_with("append ") => {
                let mut file = File::options();
                let file = file.append(true).create(true).open(&append[7..]);
                writeln!(file.unwrap(), "loaded").unwrap();
                return Err("it is loaded once".into());
            }
            path if path.starts_with("hangs once ") && File::create_new(&path[11..]).is_ok() => {
                hang()
            }
            // Only the first one is ready.
            path if path.starts_with('/') && File::create_new(path).is_err() => hang(),
            _ => {}
        }
        let _ = LOADED.set((setup, std::process::id()));
        Ok(())
    }
}

fn loaded() -> String {
    LOADED
        .get()
        .map_or_else(String::new, |(setup, _)| setup.clone())
}

/// The number of the process that has loaded; 0 if none has.
fn loader() -> u32 {
    LOADED.get().map_or(0, |(_, pid)| *pid)
}

fn own_number() -> u32 {
    std::process::id()
}

pub fn builder(setup: &str) -> Builder {
    built_by(program(setup))
}

fn program(setup: &str) -> WorkerProgram {
    WorkerProgram::new(std::env::current_exe().unwrap())
        .args([RUN])
        .template(setup)
}

fn built_by(program: WorkerProgram) -> Builder {
    Engine::builder()
        .workers(2)
        .capacity(64 << 20)
        .worker_program(program)
}

/// The template from which the worker of the next job was copied.
fn template_of(lab: &Lab) -> i32 {
    lab.value_of(loader, ()) as i32
}

fn workers_are_copies_of_one_process() {
    let lab = Lab::of(builder("three short words").build().unwrap());
    assert_eq!(lab.value_of(loaded, ()), "three short words");
    let template = template_of(&lab);
    assert!(template > 0);
    assert_ne!(lab.value_of(own_number, ()) as i32, template);
    // All of them are children of this process.
    let mut expected = vec![lab.pid(0), lab.pid(1), template];
    expected.sort_unstable();
    let mut found = children();
    found.sort_unstable();
    assert_eq!(found, expected);
    let values = lab.from_slice(&[1.5, 2.0]).unwrap();
    let sum = lab.submit(|values: &[f64]| values.iter().sum::<f64>(), (&values,));
    assert_eq!(sum.wait().unwrap(), 3.5);
    drop(values);
    lab.into_inner().shutdown();
    assert_eq!(children(), [0_i32; 0]);
}

/// The processor time of the threads that watch templates, in nanoseconds.
fn watching() -> u64 {
    let threads = fs::read_dir("/proc/self/task").unwrap().flatten();
    let read = |folder: PathBuf, name| fs::read_to_string(folder.join(name)).unwrap_or_default();
    threads
        .map(|thread| thread.path())
        .filter(|path| read(path.clone(), "comm").starts_with("arenite-templat"))
        .filter_map(|path| {
            read(path, "schedstat")
                .split(' ')
                .next()?
                .parse::<u64>()
                .ok()
        })
        .sum()
}

/// Each copy is announced twice, and only a next copy reads the second announcement.
fn a_template_that_is_ready_takes_no_time() {
    let lab = Lab::of(builder("x").build().unwrap());
    assert!(template_of(&lab) > 0);
    let (own, before) = (ClockId::CLOCK_THREAD_CPUTIME_ID, watching());
    let begin = Duration::from(own.now().unwrap());
    while Duration::from(own.now().unwrap()) - begin < Duration::from_millis(200) {}
    let took = Duration::from_nanos(watching() - before);
    assert!(took < Duration::from_millis(20), "{took:?}");
}

fn a_worker_that_dies_is_copied_again() {
    let lab = Lab::of(builder("x").workers(1).build().unwrap());
    let template = template_of(&lab);
    for _ in 0..3 {
        let error = lab.error_of(|| -> () { std::process::abort() }, ());
        assert_eq!(*error.kind(), ABORTED);
        assert_eq!(template_of(&lab), template);
    }
    lab.replace(0);
    assert_eq!(template_of(&lab), template);
}

fn limits_and_the_sandbox_are_those_of_the_copy() {
    let with_limit = builder("x")
        .memory_limit(256 << 20)
        .sandbox(Sandbox::Strict);
    let lab = Lab::of(with_limit.build().unwrap());
    assert!(template_of(&lab) > 0);
    let opens = || File::open("/etc/passwd").is_ok();
    assert!(!lab.value_of(opens, ()));
    let fills = || vec![1_u8; 512 << 20].len() as u64;
    let error = lab.error_of(fills, ());
    assert_kind!(error, JobErrorKind::Limit(_));
    assert!(template_of(&lab) > 0);
}

fn many_workers_with_many_lanes_are_copies() {
    let lab = Lab::of(builder("x").workers(12).lanes(3).build().unwrap());
    let jobs: Vec<_> = (0..200).map(|_| lab.submit(loader, ())).collect();
    let found: Vec<u32> = jobs.into_iter().map(|job| job.wait().unwrap()).collect();
    assert!(found[0] > 0 && found.iter().all(|pid| *pid == found[0]));
}

/// Builds an engine with this setup, whose workers are no copies. Returns the notice about that.
fn notice(setup: &str, change: impl FnOnce(Builder) -> Builder) -> String {
    case(setup);
    let lines: Arc<Mutex<Vec<LogLine>>> = Arc::default();
    let sink = Arc::clone(&lines);
    let log = move |line: &LogLine| sink.lock().unwrap().push(line.clone());
    let lab = Lab::of(change(builder(setup)).on_log(log).build().unwrap());
    assert_eq!(template_of(&lab), 0, "{setup}");
    let error = lab.error_of(|| -> () { std::process::abort() }, ());
    assert_kind!(error, JobErrorKind::Lost(_));
    assert_eq!(template_of(&lab), 0, "{setup}");
    lab.into_inner().shutdown();
    assert_eq!(children(), [0_i32; 0]);
    let lines = lines.lock().unwrap();
    let notices = lines.iter().filter(|line| line.source == LogSource::Notice);
    let [notice] = &notices.collect::<Vec<_>>()[..] else {
        panic!("{lines:?}");
    };
    notice.text.clone()
}

fn a_template_that_cannot_be_copied_is_a_notice() {
    let expected = [
        ("error", "there is no \\u{1b}dictionary"),
        ("panic", "loading has panicked"),
        ("abort", "it has ended while it was loading (signal 6)"),
        ("thread", "has started threads, which copies would lack: "),
        (
            "file",
            "has left files open, which copies would share: /proc/",
        ),
    ];
    for (setup, words) in expected {
        let text = notice(setup, |builder| builder);
        assert_says(&text, words);
        assert!(text.starts_with("workers are started one by one"), "{text}");
    }
    // Workers that are started by themselves get the time again.
    let text = notice("hang", |builder| {
        builder.start_timeout(Duration::from_secs(5))
    });
    assert_says(&text, "it was not ready after 5s");
}

fn code_that_a_template_has_open_stays_open_in_copies() {
    let lab = Lab::of(builder("code").build().unwrap());
    assert!(template_of(&lab) > 0);
    let is_program = || {
        let kept = KEPT.lock().unwrap();
        let kept = kept.as_ref().unwrap().metadata().unwrap();
        let program = std::fs::metadata("/proc/self/exe").unwrap();
        (kept.dev(), kept.ino()) == (program.dev(), program.ino())
    };
    assert!(lab.value_of(is_program, ()));
}

/// Kills a template, and waits until it is gone.
fn kill_template(template: i32) {
    end_template(template, Signal::SIGKILL);
}

fn end_template(template: i32, signal: Signal) {
    send_signal(template, signal);
    wait_until("the template is gone", || !children().contains(&template));
}

fn a_template_that_dies_is_started_again() {
    let lab = Lab::of(builder("x").workers(1).build().unwrap());
    let template = template_of(&lab);
    let worker = lab.pid(0);
    kill_template(template);
    // Its copies live on.
    assert_eq!(lab.value_of(own_number, ()) as i32, worker);
    lab.replace(0);
    assert_ne!(await_copy(&lab), template);
}

/// Replaces the worker until it is a copy again. Returns its template.
fn await_copy(lab: &Lab) -> i32 {
    loop {
        step("until a worker is a copy");
        match template_of(lab) {
            0 => lab.replace(0),
            template => return template,
        }
    }
}

fn workers_do_not_wait_for_another_template() {
    let folder = tempfile::tempdir().unwrap();
    let marker = folder.path().join("loaded");
    // Longer than this test may wait.
    let builder = builder(marker.to_str().unwrap()).workers(1);
    let lab = Lab::of(
        builder
            .start_timeout(Duration::from_secs(3600))
            .build()
            .unwrap(),
    );
    kill_template(template_of(&lab));
    // The first may be started before the engine knows that the template has ended.
    for _ in 0..2 {
        lab.replace(0);
        assert_eq!(template_of(&lab), 0);
    }
}

fn a_template_that_keeps_dying_is_given_up() {
    let lab = Lab::of(builder("x").workers(1).build().unwrap());
    for round in 0..3 {
        step(format!("template {round}"));
        end_template(await_copy(&lab), Signal::SIGABRT);
        lab.replace(0);
    }
    for _ in 0..3 {
        assert_eq!(template_of(&lab), 0);
        lab.replace(0);
    }
}

/// As workers are.
fn a_template_that_is_killed_is_not_given_up() {
    let lab = Lab::of(builder("x").workers(1).build().unwrap());
    for round in 0..8 {
        step(format!("template {round}"));
        kill_template(await_copy(&lab));
        lab.replace(0);
    }
    await_copy(&lab);
    let folder = tempfile::tempdir().unwrap();
    let marker = folder.path().join("loading");
    let loading = builder(&format!("hangs once {}", marker.display())).workers(1);
    let known = children();
    let lab = Lab::of(loading.start_in_background().build().unwrap());
    wait_until("a template loads", || marker.exists());
    let new = children().into_iter().find(|child| !known.contains(child));
    kill_template(new.unwrap());
    assert!(template_of(&lab) > 0);
}

fn a_template_that_is_stopped_is_replaced() {
    let lab = Lab::of(builder("x").workers(1).build().unwrap());
    let template = template_of(&lab);
    send_signal(template, Signal::SIGSTOP);
    lab.replace(0);
    // Started by itself, or copied from another one.
    assert_ne!(template_of(&lab), template);
    wait_until("the template is gone", || !children().contains(&template));
    await_copy(&lab);
}

fn an_engine_that_ends_while_its_template_loads() {
    let engine = builder("hang").start_in_background().build().unwrap();
    let job = engine.submit(loader, ());
    drop(engine);
    let error = job.wait().unwrap_err();
    assert_eq!(*error.kind(), JobErrorKind::ShutDown);
    assert_eq!(children(), [0_i32; 0]);
}

/// An engine with one worker, whose template other engines share.
fn sharing(setup: &str) -> Lab {
    let program = program(setup).keep_template(Duration::from_secs(3600));
    Lab::of(built_by(program).workers(1).build().unwrap())
}

/// Ends the templates that no engine uses, and checks that no process is left.
fn end_all() {
    WorkerProgram::end_unused_templates();
    assert_eq!(children(), [0_i32; 0]);
}

fn engines_share_a_template_that_is_kept() {
    let first = sharing("x");
    let template = template_of(&first);
    let second = sharing("x");
    assert_eq!(template_of(&second), template);
    // It is used.
    WorkerProgram::end_unused_templates();
    first.into_inner().shutdown();
    second.replace(0);
    assert_eq!(template_of(&second), template);
    second.into_inner().shutdown();
    assert_eq!(children(), [template]);
    let third = sharing("x");
    assert_eq!(template_of(&third), template);
    third.into_inner().shutdown();
    end_all();
    assert_ne!(template_of(&sharing("x")), template);
    end_all();
    let briefly = program("x").keep_template(Duration::from_millis(1));
    let lab = Lab::of(built_by(briefly).workers(1).build().unwrap());
    assert!(template_of(&lab) > 0);
    lab.into_inner().shutdown();
    wait_until("the template ends by itself", || children().is_empty());
}

fn engines_that_differ_do_not_share_a_template() {
    let kept = Duration::from_secs(3600);
    let first = sharing("x");
    let folder = tempfile::tempdir().unwrap();
    let before = std::env::current_dir().unwrap();
    let environment = || program("x").keep_template(kept).env([("WORDS", "3")]);
    let mut found = vec![template_of(&first)];
    for other in [
        program("x"),
        program("y").keep_template(kept),
        environment(),
    ] {
        found.push(template_of(&Lab::of(built_by(other).build().unwrap())));
    }
    std::env::set_current_dir(folder.path()).unwrap();
    found.push(template_of(&sharing("x")));
    std::env::set_current_dir(before).unwrap();
    // SAFETY: umask takes and returns a number.
    let umask = unsafe { libc::umask(0o777) };
    found.push(template_of(&sharing("x")));
    // SAFETY: as above.
    unsafe { libc::umask(umask) };
    found.sort_unstable();
    found.dedup();
    assert_eq!(found.len(), 6, "{found:?}");
    assert_eq!(template_of(&sharing("x")), template_of(&first));
    first.into_inner().shutdown();
    end_all();
}

fn engines_that_share_a_template_start_another_one() {
    let labs = [sharing("x"), sharing("x"), sharing("x")];
    for round in 0..2 {
        step(format!("template {round}"));
        let template = await_copy(&labs[0]);
        kill_template(template);
        for lab in &labs {
            lab.replace(0);
            assert_ne!(await_copy(lab), template);
        }
    }
    let template = template_of(&labs[0]);
    assert_eq!(template_of(&labs[2]), template);
    // The others end with it only if they have no copies of their own.
    send_signal(template, Signal::SIGSTOP);
    labs[0].replace(0);
    labs[1].replace(0);
    wait_until("the template is gone", || !children().contains(&template));
    assert_eq!(labs[2].value_of(loader, ()) as i32, template);
    for lab in labs {
        lab.into_inner().shutdown();
    }
    end_all();
}

fn a_template_that_cannot_be_shared_is_loaded_once() {
    let folder = tempfile::tempdir().unwrap();
    let lines = folder.path().join("lines");
    for _ in 0..3 {
        let lab = sharing(&format!("append {}", lines.display()));
        assert_eq!(template_of(&lab), 0);
        lab.into_inner().shutdown();
        assert_eq!(children(), [0_i32; 0]);
    }
    assert_eq!(std::fs::read_to_string(lines).unwrap(), "loaded\n");
}

/// What the program has set.
static SET: AtomicU32 = AtomicU32::new(0);

fn set() -> u32 {
    SET.load(Ordering::Relaxed)
}

fn forking(workers: usize) -> Lab {
    let program = program("").forked("forked");
    Lab::of(built_by(program).workers(workers).build().unwrap())
}

fn fork(lab: &Lab, value: u32) {
    SET.store(value, Ordering::Relaxed);
    lab.fork(|template| template.run(b"", &Loader)).unwrap();
}

fn workers_are_copies_of_the_program() {
    let lab = forking(2);
    let job = lab.submit(set, ());
    assert!(lab.needs_fork());
    let (read, write) = nix::unistd::pipe().unwrap();
    fork(&lab, 7);
    assert!(!lab.needs_fork());
    assert_eq!(job.wait().unwrap(), 7);
    // Only the first call makes a copy.
    fork(&lab, 8);
    lab.replace(0);
    lab.replace(1);
    assert_eq!(lab.value_of(set, ()), 7);
    assert_eq!(lab.value_of(loaded, ()), "forked");
    // Files are shared.
    let number = write.as_raw_fd();
    let writes = move |number: i32| {
        // SAFETY: the copy has this descriptor of the program, and no value that owns it.
        let file = unsafe { BorrowedFd::borrow_raw(number) };
        nix::unistd::write(file, b"x").unwrap() as u64
    };
    assert_eq!(lab.value_of(writes, (number,)), 1);
    assert_eq!(nix::unistd::read(&read, &mut [0; 2]).unwrap(), 1);
    let error = lab.error_of(|| -> () { std::process::abort() }, ());
    assert_eq!(*error.kind(), ABORTED);
    lab.into_inner().shutdown();
    assert_eq!(children(), [0_i32; 0]);
}

fn a_fork_that_is_killed_is_made_again() {
    let lab = forking(1);
    fork(&lab, 1);
    // Its thread ends before the copies do.
    let template = template_of(&lab);
    kill_template(template);
    wait_until("the fork is missing", || lab.needs_fork());
    assert_eq!(lab.value_of(set, ()), 1);
    // Waits for the fork.
    let job = lab.submit(|| -> u32 { std::process::abort() }, ());
    job.wait().unwrap_err();
    let job = lab.submit(set, ());
    std::thread::scope(|scope| scope.spawn(|| fork(&lab, 2)).join()).unwrap();
    assert_eq!(job.wait().unwrap(), 2);
    assert_ne!(template_of(&lab), template);
    lab.into_inner().shutdown();
    assert_eq!(children(), [0_i32; 0]);
}
