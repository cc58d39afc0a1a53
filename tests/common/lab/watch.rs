//! A watchdog that tells where something hangs, instead of hanging with it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{engine, traces};

/// What the run at hand waits for: the last thing that it said.
static STEP: Mutex<String> = Mutex::new(String::new());

/// How often the run at hand said what it does: whoever goes on saying so does not hang.
static SAID: AtomicU64 = AtomicU64::new(0);

/// Says what comes next, for the dump of a run that hangs.
pub fn step(what: impl Into<String>) {
    SAID.fetch_add(1, Ordering::Relaxed);
    *STEP.lock().unwrap_or_else(PoisonError::into_inner) = what.into();
}

/// Which of its cases the run at hand has come to, so that it can be tried again alone.
static CASE: Mutex<String> = Mutex::new(String::new());

/// Names the case that comes next, for the message of whatever fails or hangs in it.
pub fn case(what: impl Into<String>) {
    SAID.fetch_add(1, Ordering::Relaxed);
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

/// How long a step of a run may take before it counts as hanging. Not a promise of speed: machines are shared.
pub fn patience() -> Duration {
    let asked = std::env::var("ARENITE_TEST_PATIENCE").ok();
    let seconds = asked.and_then(|text| text.parse().ok()).unwrap_or(30);
    Duration::from_secs(seconds)
}

/// How often the watchdog looks.
const BEAT: Duration = Duration::from_secs(1);

/// Whether a run ended, rather than stood at one step for so long. Its looks are counted and not the clock: what kept this
/// thread from its turn, a machine that was stopped or is crowded, kept the run from its own.
fn ends(end: &Receiver<()>, patience: Duration) -> bool {
    let (mut said, mut stood) = (SAID.load(Ordering::Relaxed), Duration::ZERO);
    while end.recv_timeout(BEAT) == Err(RecvTimeoutError::Timeout) {
        let now = SAID.load(Ordering::Relaxed);
        stood = if now == said {
            stood + BEAT
        } else {
            Duration::ZERO
        };
        said = now;
        if stood >= patience {
            return false;
        }
    }
    true
}

/// Runs `body` on a thread of its own; a panic, an error or a hang comes back as a text. It hangs when it stands at one
/// [`step`] for longer than `patience`, and is then left behind with its thread.
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
            // Nobody listens any more if it was given up.
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

/// So many looks a body that was given up may take to end, once what it had started is gone.
const LOOKS: u32 = 5;

/// Kills the children that a body has which was given up, and waits a little for its end: what it leaves is not to trouble the
/// next one. `others` were there before.
fn end_children(end: &Receiver<()>, others: &[i32]) {
    for _ in 0..LOOKS {
        let children = traces::children();
        for child in children.iter().filter(|child| !others.contains(child)) {
            // One that has ended meanwhile keeps its number until somebody has waited for it.
            let _ = kill(Pid::from_raw(*child), Signal::SIGKILL);
        }
        if end.recv_timeout(BEAT) != Err(RecvTimeoutError::Timeout) {
            return;
        }
    }
}

/// Everything that tells why nothing moves.
fn dump() -> String {
    format!(
        "it was at: {}\nengines:\n{}threads:\n{}children:\n{}",
        last_step(),
        engine::describe_all(),
        traces::describe_threads(),
        traces::describe_children()
    )
}
