//! A watchdog that fails with a dump where a test hangs.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{engine, traces};

/// What the current run waits for.
static STEP: Mutex<String> = Mutex::new(String::new());

/// Number of steps and cases of the current run: while it grows, the run does not hang.
static STEPS: AtomicU64 = AtomicU64::new(0);

/// Names the next step, for the dump of a hang.
pub fn step(what: impl Into<String>) {
    STEPS.fetch_add(1, Ordering::Relaxed);
    *STEP.lock().unwrap_or_else(PoisonError::into_inner) = what.into();
}

/// The current case, so that it can be repeated alone.
static CASE: Mutex<String> = Mutex::new(String::new());

/// Names the next case, for the message of a failure or hang.
pub fn case(what: impl Into<String>) {
    STEPS.fetch_add(1, Ordering::Relaxed);
    *CASE.lock().unwrap_or_else(PoisonError::into_inner) = what.into();
}

fn last_step() -> String {
    let case = CASE.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let step = STEP.lock().unwrap_or_else(PoisonError::into_inner).clone();
    match case.as_str() {
        "" => step,
        _ => format!("{case}: {step}"),
    }
}

/// How long a step may take before it counts as a hang: 30 s, or `ARENITE_TEST_PATIENCE` in seconds.
pub fn patience() -> Duration {
    let seconds = std::env::var("ARENITE_TEST_PATIENCE").ok();
    let seconds = seconds.and_then(|text| text.parse().ok()).unwrap_or(30);
    Duration::from_secs(seconds)
}

/// Interval of the watchdog.
const BEAT: Duration = Duration::from_secs(1);

/// Waits until a run ends; returns false if it stays at one step for longer than `patience`. Counts its own intervals instead of
/// the clock: a stopped or crowded machine delays the watchdog as much as the run.
fn ends(end: &Receiver<()>, patience: Duration) -> bool {
    let (mut steps, mut idle) = (STEPS.load(Ordering::Relaxed), Duration::ZERO);
    while end.recv_timeout(BEAT) == Err(RecvTimeoutError::Timeout) {
        let now = STEPS.load(Ordering::Relaxed);
        idle = if now == steps {
            idle + BEAT
        } else {
            Duration::ZERO
        };
        steps = now;
        if idle >= patience {
            return false;
        }
    }
    true
}

/// Runs `body` on a thread of its own. Returns a panic, an error or a hang as text. It hangs when it stays at one [`step`] for
/// longer than `patience`; its thread is then leaked.
pub fn watched(
    patience: Duration,
    body: impl FnOnce() -> Result<(), String> + Send + 'static,
) -> Result<(), String> {
    case("");
    step("the beginning");
    let others = traces::children();
    let (ended, end) = channel();
    let body = thread::Builder::new()
        .name("test".into())
        .spawn(move || {
            let result = catch_unwind(AssertUnwindSafe(body));
            // Fails if the watchdog has given up.
            let _ = ended.send(());
            result
        })
        .map_err(|error| format!("no thread: {error}"))?;
    if !ends(&end, patience) {
        let dump = dump();
        end_children(&end, &others);
        return Err(format!("hangs; {dump}"));
    }
    let result = body.join().unwrap_or_else(Err);
    engine::forget_all();
    match result {
        Ok(Ok(())) => Ok(()),
        Ok(Err(text)) => Err(format!("{text}\nlast step: {}", last_step())),
        Err(payload) => {
            let text = payload.downcast_ref::<String>().cloned();
            let text = text.or_else(|| payload.downcast_ref::<&str>().map(|&text| text.to_owned()));
            let text = text.unwrap_or_else(|| "a panic without a text".into());
            Err(format!("{text}\nlast step: {}", last_step()))
        }
    }
}

/// Intervals that a leaked body may take to end once its children are killed.
const FINAL_BEATS: u32 = 5;

/// Kills the children of a leaked body and waits for its end for a while, so that it does not disturb the next test. `others`
/// existed before.
fn end_children(end: &Receiver<()>, others: &[i32]) {
    for _ in 0..FINAL_BEATS {
        let children = traces::children();
        for child in children.iter().filter(|child| !others.contains(child)) {
            // A child that has ended keeps its process id until it is waited for.
            #[allow(
                clippy::disallowed_methods,
                reason = "the child has not been waited for"
            )]
            let _ = kill(Pid::from_raw(*child), Signal::SIGKILL);
        }
        if end.recv_timeout(BEAT) != Err(RecvTimeoutError::Timeout) {
            return;
        }
    }
}

/// Describes the state of a hang.
fn dump() -> String {
    format!(
        "it was at: {}\nengines:\n{}threads:\n{}children:\n{}",
        last_step(),
        engine::describe_all(),
        traces::describe_threads(),
        traces::describe_children()
    )
}
