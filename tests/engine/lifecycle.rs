//! How engines and programs end, leaving nothing behind.

use std::io::{Read, Write};
use std::process::Command;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use arenite::engine::Trace;
use arenite::{Array, BuildError, Engine, JobErrorKind, Limiter, WorkerExit};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use rand::Rng;

use crate::harness::programs::{Ended, Program, Scenario, say, scenario_name, stay};
use crate::harness::{
    Calls, Env, Gate, Lab, assert_kind, assert_says, at_gates, builder, children, pass,
    send_signal, shared_memory_named, step, tests,
};

tests![
    shutdown_finishes_submitted_jobs,
    shutdown_timeout_finishes_jobs_that_end_in_time,
    shutdown_timeout_ends_the_rest,
    shutdown_timeout_ends_queued_jobs,
    several_clones_are_shut_down,
    the_last_clone_ends_the_engine,
    a_limit_ends_a_shutdown_without_one,
    dropping_answers_submitted_jobs,
    dropping_while_others_wait,
    a_forked_copy_does_not_touch_the_engine,
    forked_copies_draw_different_random_numbers,
    many_engines_at_once,
    a_program_killed_while_busy_or_idle,
    a_program_killed_while_its_workers_start,
    a_program_that_exits_without_ending_its_engine,
    a_program_that_is_interrupted,
    a_program_whose_group_is_signalled_while_workers_start,
    a_program_killed_leaves_its_name_to_the_next,
    a_program_that_forgot_init,
    a_program_that_reaps_children_itself,
    building_an_engine_in_a_kernel_is_an_error,
    two_programs_at_once,
];

// ---- in this process --------------------------------------------------------------------------------------

fn shutdown_finishes_submitted_jobs() {
    fn append(path: &str) -> Array<u8> {
        let mut file = std::fs::File::options().append(true).open(path).unwrap();
        file.write_all(b"x").unwrap();
        Array::zeros(1000)
    }
    for workers in [1, 3] {
        let lab = Lab::new(workers);
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        let jobs: Vec<_> = (0..100).map(|_| lab.submit(append, (path,))).collect();
        (0..1000).for_each(|_| lab.submit(append, (path,)).detach());
        step("shutdown");
        lab.into_inner().shutdown();
        assert_eq!(children(), [0_i32; 0]);
        assert_eq!(std::fs::metadata(path).unwrap().len(), 1100);
        assert!(
            jobs.into_iter()
                .all(|job| job.wait().unwrap().len() == 1000)
        );
    }
}

fn shutdown_timeout_finishes_jobs_that_end_in_time() {
    let lab = Lab::new(2);
    let jobs: Vec<_> = (0..100u32)
        .map(|n| lab.submit(|n: u32| n + 1, (n,)))
        .collect();
    step("shutdown");
    assert!(lab.into_inner().shutdown_timeout(Duration::from_secs(3600)));
    assert_eq!(children(), [0_i32; 0]);
    for (job, n) in jobs.into_iter().zip(1..) {
        assert_eq!(job.wait().unwrap(), n);
    }
    assert!(Engine::inline().shutdown_timeout(Duration::ZERO));
    step("one that has nothing to do");
    for _ in 0..20 {
        let idle = Lab::new(1);
        idle.value_of(|| (), ());
        assert!(idle.into_inner().shutdown_timeout(Duration::ZERO));
    }
}

fn shutdown_timeout_ends_the_rest() {
    for limit in [Duration::ZERO, Duration::from_millis(50)] {
        let lab = Lab::with(1, |builder| builder.grace(Duration::from_secs(3600)));
        let (hung, held) = lab.hold();
        // After the job.
        let queued: Vec<_> = (0..20).map(|_| lab.submit(|| (), ())).collect();
        lab.submit(|| (), ()).detach();
        step("shutdown");
        assert!(!lab.into_inner().shutdown_timeout(limit));
        assert_eq!(children(), [0_i32; 0]);
        for job in queued.into_iter().chain([hung]) {
            let error = job.wait().unwrap_err();
            assert_kind!(error, JobErrorKind::ShutDown);
        }
        drop(held);
    }
}

fn shutdown_timeout_ends_queued_jobs() {
    let limiter = Limiter::new().concurrency(1);
    let (other, lab) = (Lab::new(1), Lab::new(1));
    let gate = Gate::new();
    let hung = other.job(pass, (gate.path(),)).limit(&limiter).submit();
    let held = gate.meet();
    let waiting = lab.job(|| (), ()).limit(&limiter).submit();
    step("shutdown, with a job that waits for another engine's");
    assert!(!lab.into_inner().shutdown_timeout(Duration::from_millis(50)));
    let error = waiting.wait().unwrap_err();
    assert_kind!(error, JobErrorKind::ShutDown);
    drop(held);
    hung.wait().unwrap();
}

/// Each of them returns only when the workers are gone. Later jobs are refused, however they are submitted.
fn several_clones_are_shut_down() {
    let lab = Lab::new(2);
    let (job, held) = lab.hold();
    let engine = lab.into_inner();
    let barrier = Barrier::new(5);
    thread::scope(|threads| {
        for n in 0..4 {
            let (engine, barrier) = (engine.clone(), &barrier);
            threads.spawn(move || {
                barrier.wait();
                match n {
                    0 => assert!(engine.shutdown_timeout(Duration::from_secs(3600))),
                    _ => engine.shutdown(),
                }
                assert_eq!(children(), [0_i32; 0]);
            });
        }
        barrier.wait();
        drop(held);
        step("four threads that shut the engine down");
    });
    job.wait().unwrap();
    engine.clone().shutdown();
    engine.flush_logs();
    let refused = |error: &arenite::JobError| *error.kind() == JobErrorKind::ShutDown;
    assert!(refused(&engine.error_of(|| (), ())));
    let mut map = engine.map(|n: u32| n, (0..3u32).map(|n| (n,)));
    assert!(map.all(|result| refused(&result.unwrap_err())));
    let scope = engine.scope(|scope| {
        let _ = scope.submit(|| (), ());
    });
    assert!(refused(&scope.unwrap_err()));
}

fn a_limit_ends_a_shutdown_without_one() {
    let lab = Lab::new(1);
    let (hung, held) = lab.hold();
    let engine = lab.into_inner();
    let other = engine.clone();
    let waiting = thread::spawn(|| other.shutdown());
    step("a shutdown with a limit");
    assert!(!engine.shutdown_timeout(Duration::from_millis(50)));
    step("the shutdown without one");
    waiting.join().unwrap();
    let error = hung.wait().unwrap_err();
    assert_kind!(error, JobErrorKind::ShutDown);
    drop(held);
}

fn the_last_clone_ends_the_engine() {
    let lab = Lab::new(1);
    let engine = lab.into_inner();
    let clones = [engine.clone(), engine.clone()];
    drop(engine);
    for clone in clones {
        assert_eq!(clone.value_of(|| 1u8, ()), 1);
    }
    assert_eq!(children(), [0_i32; 0]);
}

fn dropping_answers_submitted_jobs() {
    let lab = Lab::new(2);
    let (running, held) = at_gates(2, |gate| lab.submit(pass, (gate,)));
    let queued: Vec<_> = (0..1000u32)
        .map(|n| lab.submit(|n: u32| Array::from_slice(&[n]), (n,)))
        .collect();
    (0..100).for_each(|_| lab.submit(|| (), ()).detach());
    step("the engine to be dropped");
    drop(lab);
    assert_eq!(
        children(),
        [0_i32; 0],
        "its workers are gone before drop returns"
    );
    drop(held);
    for error in running.into_iter().map(|job| job.wait().unwrap_err()) {
        assert_kind!(error, JobErrorKind::ShutDown);
    }
    for error in queued.into_iter().map(|job| job.wait().unwrap_err()) {
        assert_kind!(error, JobErrorKind::ShutDown);
    }
}

fn dropping_while_others_wait() {
    let lab = Lab::new(1);
    let (running, held) = lab.hold();
    let queued: Vec<_> = (0..8u32).map(|n| lab.submit(|n: u32| n, (n,))).collect();
    let barrier = Barrier::new(10);
    thread::scope(|threads| {
        let barrier = &barrier;
        let first = threads.spawn(move || {
            barrier.wait();
            running.wait().unwrap_err()
        });
        let others: Vec<_> = queued
            .into_iter()
            .map(|job| {
                threads.spawn(move || {
                    barrier.wait();
                    job.wait().unwrap_err()
                })
            })
            .collect();
        barrier.wait();
        drop(lab);
        step("nine threads that wait for jobs of an engine that is gone");
        assert_eq!(*first.join().unwrap().kind(), JobErrorKind::ShutDown);
        assert!(
            others
                .into_iter()
                .all(|thread| *thread.join().unwrap().kind() == JobErrorKind::ShutDown)
        );
    });
    drop(held);
}

/// A program that forks, like an old-style daemon or server, and whose copy runs destructors.
fn a_forked_copy_does_not_touch_the_engine() {
    let name = format!("forked-{}", std::process::id());
    let is_there = || shared_memory_named(&name) > 0;
    let folder = tempfile::tempdir().unwrap();
    let events = folder.path().join("events.json");
    let lab = Lab::with(1, |builder| builder.name(&name).trace(Trace::to(&events)));
    let (running, held) = lab.hold();
    let queued = lab.submit(|x: u32| x, (7,));
    let takes = lab.submit(|x: u32| x + 1, (&queued,));
    let actor = lab.actor(|| 5u32, ()).start();
    let array = lab.from_slice(&[1u8; 100]).unwrap();
    // SAFETY: the copy has this thread only, and touches nothing that another may have locked.
    let copy = unsafe { libc::fork() };
    if copy == 0 {
        std::panic::set_hook(Box::new(|_| ()));
        let use_it = || lab.submit(|x: u32| x, (8,)).wait();
        let fails = |what: &dyn Fn()| {
            let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(what));
            let text = failed.unwrap_err();
            text.downcast_ref::<&str>()
                .is_some_and(|text| text.contains("fork()"))
        };
        let failed = fails(&|| drop(use_it()))
            && fails(&|| drop(lab.from_slice(&[1u8])))
            && fails(&|| drop(lab.stats()));
        drop((running, queued, takes, actor));
        lab.into_inner().shutdown();
        drop(array);
        // SAFETY: ends the copy without the destructors of a test.
        unsafe { libc::_exit(if failed { 0 } else { 1 }) };
    }
    let ended = nix::sys::wait::waitpid(Pid::from_raw(copy), None).unwrap();
    assert_eq!(
        ended,
        nix::sys::wait::WaitStatus::Exited(Pid::from_raw(copy), 0)
    );
    assert!(is_there());
    drop(held);
    running.wait().unwrap();
    assert_eq!(queued.wait().unwrap(), 7);
    assert_eq!(takes.wait().unwrap(), 8);
    assert_eq!(actor.call(|x: &u32| *x, ()).wait().unwrap(), 5);
    assert!(array.iter().all(|&x| x == 1));
    assert_eq!(lab.stats().restarts(), 0);
    drop((actor, array));
    lab.into_inner().shutdown();
    assert!(!is_there());
    let text = std::fs::read_to_string(events).unwrap();
    assert!(
        text.trim_end().ends_with(']') || text.trim_end().ends_with('}'),
        "{text}"
    );
}

/// A copy's inherited state does not reveal the next random number.
fn forked_copies_draw_different_random_numbers() {
    let seed = || Engine::inline().seed();
    let chance = || arenite::rng().next_u64();
    let draw = || [seed(), chance()];
    let before = draw();
    let of_copy = || {
        let (read, write) = nix::unistd::pipe().unwrap();
        // SAFETY: the copy has this thread only, and touches nothing that another may have locked.
        let copy = unsafe { libc::fork() };
        if copy == 0 {
            let drawn = draw().map(u64::to_ne_bytes);
            let _ = nix::unistd::write(&write, drawn.as_flattened());
            // SAFETY: ends the copy without the destructors of a test.
            unsafe { libc::_exit(0) };
        }
        drop(write);
        let mut drawn = [[0; 8]; 2];
        let mut read = std::fs::File::from(read);
        read.read_exact(drawn.as_flattened_mut()).unwrap();
        nix::sys::wait::waitpid(Pid::from_raw(copy), None).unwrap();
        drawn.map(u64::from_ne_bytes)
    };
    let drawn = [before, of_copy(), of_copy(), draw()];
    for kind in 0..2 {
        let mut all = drawn.map(|drawn| drawn[kind]).to_vec();
        all.push(0);
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 5, "{all:x?}");
    }
}

fn many_engines_at_once() {
    thread::scope(|threads| {
        for n in 0..6u64 {
            threads.spawn(move || {
                for _ in 0..5 {
                    let engine = builder(1 + n as usize % 3, 32 << 20).build().unwrap();
                    assert!(
                        engine
                            .map(|n: u64| n, (0..200).map(|n| (n,)))
                            .map(Result::unwrap)
                            .eq(0..200)
                    );
                    if n % 2 == 0 {
                        engine.shutdown()
                    }
                }
            });
        }
    });
    assert_eq!(children(), [0_i32; 0]);
}

// ---- programs of their own ----------------------------------------------------------------------------------

/// A program that plays a scenario, with its workers.
fn start(scenario: &str) -> Program {
    Program::start(scenario, || Ok(()))
}

/// The same, with an environment variable.
fn start_with(scenario: &str, variable: &str, value: &str) -> Program {
    let change = |command: &mut Command| {
        command.env(variable, value);
    };
    Program::with(scenario, || Ok(()), change)
}

/// Checks that the program ran to its end without complaint.
#[track_caller]
fn assert_silent(ended: &Ended) {
    ended.assert_done();
    assert_eq!(ended.errors, "");
}

/// Kills the program: its workers end with it.
fn kill_all_of(program: Program) {
    program.kill();
    program.end().assert_killed();
}

fn a_program_killed_while_busy_or_idle() {
    for (scenario, is_stopped) in [
        ("busy", false),
        ("busy", true),
        ("idle", false),
        ("idle", true),
    ] {
        let mut program = start(scenario);
        program.expect(scenario);
        let processes = program.processes();
        assert_eq!(processes.len(), 4, "itself and three workers");
        let own = program.pid();
        for worker in processes
            .into_iter()
            .filter(|&pid| is_stopped && pid != own)
        {
            send_signal(worker, Signal::SIGSTOP);
        }
        kill_all_of(program);
    }
}

fn a_program_killed_while_its_workers_start() {
    let gate = Gate::new();
    let program = start_with("starting", START_GATE, &gate.path());
    let held = gate.meet();
    kill_all_of(program);
    drop(held);
}

fn a_program_that_exits_without_ending_its_engine() {
    for scenario in ["exit", "forget"] {
        let ended = start(scenario).end();
        assert_eq!(ended.code, Some(7), "{ended:?}");
    }
}

/// Ctrl-C reaches the whole group. The program decides what it means, not its workers.
fn a_program_that_is_interrupted() {
    let mut program = start("interrupted");
    program.expect("ready");
    for signal in TO_GROUPS {
        // Workers lead groups of their own.
        for process in program.processes() {
            send_signal(process, signal);
        }
    }
    // All its jobs were run by its original workers.
    assert_silent(&program.end());
}

fn a_program_whose_group_is_signalled_while_workers_start() {
    // Every engine started.
    assert_silent(&start("bombarded").end());
}

/// What a terminal, a service manager or a closed pipe sends to all processes of a program.
const TO_GROUPS: [Signal; 4] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGPIPE,
];

/// Sets a flag when it is dropped.
struct Set<'a>(&'a std::sync::atomic::AtomicBool);

impl Drop for Set<'_> {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

fn ignore_signals_to_groups() {
    for signal in TO_GROUPS {
        // SAFETY: ignoring a signal affects nothing else of this program.
        unsafe { nix::sys::signal::signal(signal, nix::sys::signal::SigHandler::SigIgn) }.unwrap();
    }
}

fn a_program_killed_leaves_its_name_to_the_next() {
    let name = format!("left-{}", std::process::id());
    let mut program = start_with("named", NAME, &name);
    program.expect("named");
    let taken = builder(1, 64 << 20).name(&name).build();
    assert!(taken.is_err(), "while it lives the name is its own");
    kill_all_of(program);
    let lab = Lab::with(1, |builder| builder.name(&name));
    assert_eq!(lab.value_of(|| 1u8, ()), 1);
}

fn a_program_that_forgot_init() {
    assert_silent(&start("forgot-init").end());
}

fn a_program_that_reaps_children_itself() {
    start("reaps").end().assert_done();
}

fn building_an_engine_in_a_kernel_is_an_error() {
    let lab = Lab::new(1);
    let build = || Engine::builder().build().unwrap_err().to_string();
    let why = lab.value_of(build, ());
    assert_says(&why, "a worker cannot build an engine of its own");
    // The environment says nothing about a process that has become a worker.
    let marked = || {
        let _env = Env::set("ARENITE_WORKER", "1:3:9");
        match Engine::builder().build() {
            Err(BuildError::InWorker) => Engine::inline().submit(|| 1_u8, ()).wait().unwrap(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(lab.value_of(marked, ()), 1);
}

fn two_programs_at_once() {
    let programs: Vec<_> = (0..2).map(|_| start("compute")).collect();
    let lab = Lab::balanced(2);
    compute(&lab);
    for program in programs {
        assert_silent(&program.end());
    }
}

// ---- what those programs do ---------------------------------------------------------------------------------

const START_GATE: &str = "ARENITE_TEST_STARTING";
const NAME: &str = "ARENITE_TEST_NAME";

fn compute(engine: &Engine) {
    fn doubled(values: &Array<u32>, n: u32) -> Array<u32> {
        Array::from_fn(values.shape(), |i| values[i] * 2 + n)
    }
    let values = engine.from_fn(10_000, |i| i as u32).unwrap();
    for (n, result) in (0..500).zip(engine.map(doubled, (0..500u32).map(|n| (&values, n)))) {
        let result = result.unwrap();
        assert!(result.iter().zip(0..).all(|(&x, i)| x == i * 2 + n));
    }
}

fn build() -> Engine {
    builder(3, 64 << 20).build().unwrap()
}

/// Called before `init()`.
pub fn before_init() {
    if scenario_name().as_deref() != Some("forgot-init") {
        return;
    }
    let error = Engine::builder().workers(2).build().unwrap_err();
    assert!(
        matches!(error, arenite::BuildError::NotInitialised),
        "{error:?}"
    );
    let text = error.to_string();
    // The output of a `main` that returns the error.
    assert_eq!(format!("{error:?}"), text);
    assert_says(&text, "arenite::init()");
    assert_says(&text, "main");
    assert_says(&text, "test_workers");
    assert_eq!(children(), [0_i32; 0], "no process was started");
    say("done");
    std::process::exit(0);
}

pub const SCENARIOS: &[Scenario] = &[
    ("busy", busy),
    ("idle", idle),
    ("starting", starting),
    ("exit", exit),
    ("forget", forget),
    ("interrupted", interrupted),
    ("bombarded", bombarded),
    ("named", named),
    ("reaps", reaps),
    ("compute", alone),
];

fn busy() {
    fn spin(gate: &str) -> u64 {
        pass(gate);
        loop {
            std::hint::spin_loop();
        }
    }
    let engine = build();
    let gates: Vec<_> = (0..3).map(|_| Gate::new()).collect();
    gates
        .iter()
        .for_each(|gate| engine.submit(spin, (&gate.path(),)).detach());
    gates.iter().for_each(Gate::open);
    drop(gates);
    say("busy");
    stay();
}

fn idle() {
    let engine = build();
    compute(&engine);
    say("idle");
    stay();
}

fn starting() {
    fn start() {
        pass(&std::env::var(START_GATE).unwrap());
    }
    // It also ends when the test is killed and the gate stays closed.
    std::thread::spawn(|| {
        stay();
        std::process::exit(1)
    });
    let _ = builder(1, 64 << 20).on_worker_start(start).build();
}

/// One of its workers never finishes its job.
fn build_spinning() -> Engine {
    let spin = || -> u8 {
        loop {
            std::hint::spin_loop()
        }
    };
    let engine = build();
    engine.submit(spin, ()).detach();
    engine
}

fn exit() {
    let _engine = build_spinning();
    std::process::exit(7);
}

fn forget() {
    std::mem::forget(build_spinning());
    std::process::exit(7);
}

fn interrupted() {
    ignore_signals_to_groups();
    let engine = build();
    let gate = Gate::new();
    let job = engine.submit(pass, (&gate.path(),));
    let held = gate.meet();
    say("ready");
    stay();
    drop(held);
    job.wait().unwrap();
    compute(&engine);
    assert_eq!(engine.stats().restarts(), 0);
    engine.shutdown();
}

fn bombarded() {
    ignore_signals_to_groups();
    let done = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|threads| {
        threads.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                for signal in TO_GROUPS {
                    killpg(nix::unistd::getpgrp(), signal).unwrap();
                    for worker in children() {
                        // It may have ended.
                        let _ = kill(Pid::from_raw(worker), signal);
                    }
                }
                // The engine needs the processor as well.
                thread::park_timeout(Duration::from_micros(200));
            }
        });
        // Also when this panics: the scope waits for the other thread.
        let _done = Set(&done);
        for _ in 0..10 {
            let engine = build();
            compute(&engine);
            assert_eq!(engine.stats().restarts(), 0);
        }
    });
}

fn named() {
    let name = std::env::var(NAME).unwrap();
    let engine = builder(1, 64 << 20).name(name).build().unwrap();
    say("named");
    stay();
    drop(engine);
}

fn reaps() {
    // SAFETY: ignoring a signal affects nothing else of this program. Linux reaps children from now on.
    unsafe { nix::sys::signal::signal(Signal::SIGCHLD, nix::sys::signal::SigHandler::SigIgn) }
        .unwrap();
    let engine = build();
    for _ in 0..3 {
        let error = engine.error_of(|| -> u8 { std::process::exit(3) }, ());
        assert_kind!(error, JobErrorKind::Lost(WorkerExit::Code(None | Some(3))));
        compute(&engine);
    }
    engine.shutdown();
    assert_eq!(children(), [0_i32; 0]);
    // Names are not compared: those of the other program come and go meanwhile.
    say("done");
    std::process::exit(0);
}

fn alone() {
    let engine = build();
    compute(&engine);
    engine.shutdown();
    assert_eq!(children(), [0_i32; 0]);
}
