//! What every test here gets: a watchdog that fails with a dump instead of hanging, and a check of what is left over.

mod gate;
mod lab;
mod traces;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use libtest_mimic::{Failed, Trial};

pub use gate::{Gate, pass};
pub use lab::{Lab, wait_until};
pub use traces::{children, processes_with};

/// A list of trials out of functions.
macro_rules! tests {
    ($($name:ident),+ $(,)?) => {
        pub fn tests() -> Vec<libtest_mimic::Trial> {
            vec![$(crate::harness::trial(concat!(module_path!(), "::", stringify!($name)), $name)),+]
        }
    };
}
pub(crate) use tests;

/// What the test at hand waits for: the last thing that it said.
static STEP: Mutex<String> = Mutex::new(String::new());

/// Says what comes next, for the dump of a test that hangs.
pub fn step(what: impl Into<String>) {
    *STEP.lock().unwrap_or_else(PoisonError::into_inner) = what.into();
}

/// How long a test may take before it counts as hanging. Not a promise of speed: machines are shared.
fn patience() -> Duration {
    let asked = std::env::var("ARENITE_TEST_PATIENCE").ok();
    let seconds = asked.and_then(|text| text.parse().ok()).unwrap_or(120);
    Duration::from_secs(seconds)
}

pub fn trial(path: &'static str, test: fn()) -> Trial {
    // Without the name of the binary.
    let name = path.split_once("::").map_or(path, |(_, name)| name);
    Trial::test(name, move || run(test))
}

fn run(test: fn()) -> Result<(), Failed> {
    step("the beginning");
    let before = traces::Traces::now();
    let (ended, end) = channel();
    let body = thread::Builder::new()
        .name("test".into())
        .spawn(move || {
            let result = catch_unwind(AssertUnwindSafe(test));
            // Nobody listens any more if the test was given up.
            let _ = ended.send(());
            result
        })
        .expect("a thread for the test");
    if let Err(RecvTimeoutError::Timeout) = end.recv_timeout(patience()) {
        return Err(format!("hangs; {}", dump()).into());
    }
    let result = body.join().expect("panics are caught within");
    lab::forget_all();
    if let Err(payload) = result {
        let text = payload.downcast_ref::<String>().cloned();
        let text = text.or_else(|| payload.downcast_ref::<&str>().map(|&text| text.to_owned()));
        let step = STEP.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let text = text.unwrap_or_else(|| "a panic without a text".into());
        return Err(format!("{text}\nlast step: {step}").into());
    }
    before.compare().map_err(Failed::from)
}

/// Everything that tells why nothing moves.
fn dump() -> String {
    let step = STEP.lock().unwrap_or_else(PoisonError::into_inner).clone();
    format!(
        "it was at: {step}\nengines:\n{}threads:\n{}children:\n{}",
        lab::describe_all(),
        traces::describe_threads(),
        traces::describe_children()
    )
}
