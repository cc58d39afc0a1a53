//! Child programs that are killed at random moments, with all their workers.
//!
//! A child program ends when its parent does: its stdin is a pipe to which the parent never writes, and which Linux closes when
//! the parent ends.

use std::io::{self, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, Command, ExitCode, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use arenite::{Array, Backing, Engine};
use clap::ValueEnum;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::harness::Dice;
use crate::harness::programs::own_session;
use crate::harness::runs::{Order, Seen};
use crate::harness::{Invariant, processes_of, step, wait_until};

/// What a child program does until it is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// Starts an engine, works, and begins again
    Work,
    /// Starts an engine, runs one job, and ends
    Once,
    /// Mounts a small /dev/shm, and works while it is full
    Crowd,
}

const NAME: &str = "ARENITE_SOAK_NAME";

fn spin() -> u32 {
    loop {
        std::hint::spin_loop();
    }
}

fn make(n: usize) -> Array<u32> {
    Array::from_fn(n, |i| i as u32)
}

/// Whether the parent of this program has ended.
static ALONE: AtomicBool = AtomicBool::new(false);

pub(super) fn is_alone() -> bool {
    ALONE.load(SeqCst)
}

/// Starts a thread that waits for the end of the parent, and then ends this program if it does not end on its own.
pub(super) fn watch_starter() -> io::Result<()> {
    let watch = || {
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        ALONE.store(true, SeqCst);
        thread::park_timeout(crate::PATIENCE);
        std::process::exit(1);
    };
    thread::Builder::new().spawn(watch).map(drop)
}

/// The child program.
pub(crate) fn play(role: Role) -> ExitCode {
    if let Err(error) = watch_starter() {
        eprintln!("error: no thread: {error}");
        return ExitCode::FAILURE;
    }
    let build = || {
        let builder = Engine::builder().workers(2).capacity(64 << 20);
        // Named, so that names may be left.
        let builder = builder.backing(Backing::Named);
        match std::env::var(NAME) {
            Ok(name) => builder.name(name).build(),
            Err(_) => builder.build(),
        }
    };
    // An engine that is dropped leaves no name, whatever it was doing.
    while !is_alone() {
        let engine = match build() {
            Ok(engine) => engine,
            Err(error) => {
                eprintln!("error: {error}");
                return ExitCode::FAILURE;
            }
        };
        if role == Role::Once {
            let answer = engine.submit(make, (1000,)).wait();
            engine.shutdown();
            return ExitCode::from(u8::from(answer.is_err()));
        }
        // One worker is busy forever, and is stopped; the other works, dies, and works again.
        engine.submit(spin, ()).detach();
        for n in [10, 100_000, 1_000_000] {
            if engine.submit(make, (n,)).wait().is_err() {
                return ExitCode::FAILURE;
            }
        }
        let workers = engine.stats().workers;
        for worker in workers.iter().filter(|worker| worker.pid != 0) {
            let signal = if worker.open > 0 {
                Signal::SIGSTOP
            } else {
                Signal::SIGKILL
            };
            // Fails if the worker has just ended.
            let _ = kill(Pid::from_raw(worker.pid as i32), signal);
        }
        if engine.submit(make, (1000,)).wait().is_err() {
            return ExitCode::FAILURE;
        }
        engine.trim();
    }
    ExitCode::FAILURE
}

/// A child program and its process group; killed on drop.
pub(super) struct ProcessGroup {
    leader: Child,
    /// Taken out of `leader`, because waiting for that would close it.
    _stdin: Option<ChildStdin>,
}

impl ProcessGroup {
    /// Starts a program that leads a process group of its own and whose stderr is a pipe.
    pub(super) fn spawn(command: &mut Command) -> Result<Self, String> {
        let mut leader = command.spawn().map_err(|error| error.to_string())?;
        let _stdin = leader.stdin.take();
        Ok(Self { leader, _stdin })
    }

    fn start(role: &str, name: Option<&str>) -> Result<Self, String> {
        let own = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut command = Command::new(own);
        command
            .args(["run", "--play", role])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        own_session(&mut command);
        if let Some(name) = name {
            command.env(NAME, name);
        }
        Self::spawn(&mut command)
    }

    pub(super) fn group(&self) -> i32 {
        self.leader.id() as i32
    }

    /// Waits for its end; its children may still run.
    pub(super) fn wait(&mut self) -> Result<ExitStatus, String> {
        self.leader.wait().map_err(|error| error.to_string())
    }

    /// Returns its output on stderr.
    pub(super) fn errors(&mut self) -> String {
        let mut text = String::new();
        if let Some(mut pipe) = self.leader.stderr.take() {
            let _ = pipe.read_to_string(&mut text);
        }
        text
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        // Usually no process is left.
        let _ = killpg(Pid::from_raw(self.group()), Signal::SIGKILL);
        let _ = self.leader.wait();
    }
}

/// Kills supervisors at random moments: their workers end with them, and the next start succeeds.
pub(super) fn killed(order: Order) -> Result<Seen, String> {
    let mut dice = Dice::new(order.seed);
    let mut seen = Seen::default();
    let mut slowest = Duration::ZERO;
    let mut met = 0u32;
    let end = Instant::now() + order.length;
    // At least one has workers when it is killed.
    while seen.faults == 0 || met == 0 || Instant::now() < end {
        let invariant = Invariant::before();
        let name = format!("soak-{}-{}", std::process::id(), seen.faults);
        let name = (dice.below(2) == 0).then_some(&*name);
        let mut child = ProcessGroup::start("work", name)?;
        // More often early than late; later and later as long as no program had workers.
        let longest = [3_000, 20_000, 100_000][dice.below(3) as usize];
        let slower = if met == 0 { seen.faults / 16 } else { 0 };
        thread::sleep(dice.micros(0, longest << slower.min(8)));
        step("a program to be killed");
        met += u32::from(processes_of(child.group()).len() > 1);
        kill(Pid::from_raw(child.group()), Signal::SIGKILL).map_err(|error| error.to_string())?;
        let status = child.wait()?;
        let killed = Instant::now();
        if status.signal() != Some(Signal::SIGKILL as i32) {
            return Err(format!("{status}: {}", child.errors()));
        }
        let group = child.group();
        wait_until("its workers are gone with it", || {
            processes_of(group).is_empty()
        });
        slowest = slowest.max(killed.elapsed());
        drop(child);
        step("the next start");
        let mut next = ProcessGroup::start("once", name)?;
        let status = next.wait()?;
        if !status.success() {
            return Err(format!("the next start: {status}: {}", next.errors()));
        }
        drop(next);
        invariant.nothing_left()?;
        seen.faults += 1;
        seen.jobs += 1;
    }
    // For information: chance decides which.
    seen.figure(order, "had workers", (met.into(), "times"), f64::INFINITY)?;
    seen.figure(order, "all gone after", (slowest.as_secs_f64(), "s"), 1.0)?;
    Ok(seen)
}
