//! Actors: a state in one worker, calls in order, and what a death of the worker loses.

mod admission;
mod arrays;
mod calls;
mod company;
mod ends;
mod losses;
mod places;

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use arenite::{
    Actor, ActorNameError, Array, ArrayMut, Engine, FailedDependency, Job, JobErrorKind, JobLimit,
    Priority, Rejection, WorkerExit,
};
use nix::sys::signal::Signal;

use crate::harness::{
    ABORTED, Gate, KILLED, Lab, at_gates, late, pass, rejected, send_signal, step, tests,
    wait_until,
};

/// The tests of all parts.
pub fn tests() -> Vec<libtest_mimic::Trial> {
    let parts = [
        admission::tests(),
        arrays::tests(),
        calls::tests(),
        ends::tests(),
        losses::tests(),
        places::tests(),
        company::tests(),
    ];
    parts.into_iter().flatten().collect()
}

/// Records its calls.
struct List {
    seen: Vec<u64>,
}

impl List {
    fn new() -> Self {
        Self { seen: Vec::new() }
    }

    fn push(&mut self, x: u64) -> u64 {
        self.seen.push(x);
        self.seen.len() as u64
    }

    fn seen(&self) -> Array<u64> {
        Array::from_slice(&self.seen)
    }

    fn restore(saved: &Array<u64>) -> Self {
        Self {
            seen: saved.to_vec(),
        }
    }

    fn push_at(&mut self, x: u64, gate: &str) -> u64 {
        pass(gate);
        self.push(x)
    }

    fn abort(&mut self) {
        std::process::abort();
    }

    fn hang(&mut self) {
        loop {
            thread::park();
        }
    }

    fn pid(&self) -> u32 {
        std::process::id()
    }
}

fn new_list(engine: &Engine) -> Actor<List> {
    engine.actor(List::new, ()).start()
}

/// A list with a checkpoint after this number of calls.
fn saved_list(engine: &Engine, every: u64) -> Actor<List> {
    let list = engine.actor(List::new, ());
    list.checkpoint(every, List::seen, List::restore).start()
}

/// Waits until this number of checkpoints was made.
fn await_saved(list: &Actor<List>, checkpoints: u64) {
    wait_until("it is saved", || list.status().checkpoints == checkpoints);
}

fn seen(list: &Actor<List>) -> Vec<u64> {
    list.call(List::seen, ()).wait().unwrap().to_vec()
}

/// The parts of an `ActorLost` error.
fn lost<R: Send + std::fmt::Debug + 'static>(job: Job<R>) -> (JobErrorKind, u64, bool) {
    step("a call that cannot be answered");
    match job.wait().unwrap_err().kind() {
        JobErrorKind::Dependency(FailedDependency::Actor {
            cause,
            forgotten,
            restarted,
        }) => ((**cause).clone(), *forgotten, *restarted),
        other => panic!("{other:?}"),
    }
}

fn here(actor: &Actor<List>) -> usize {
    wait_until("the actor has a worker", || actor.status().worker.is_some());
    actor.status().worker.unwrap() as usize
}

fn kill_worker_of(lab: &Lab, list: &Actor<List>) {
    let pid = lab.pid(here(list));
    send_signal(pid, Signal::SIGKILL);
}
