//! Calls of an actor, and the cancellation of a scope.

use std::time::Instant;

use super::super::actor::GRACE;
use super::super::noop::timed;
use super::super::start::each;
use super::super::{BenchError, Running, Setup};
use super::{engine, engine_with, refused};
use crate::work;
use arenite::JobErrorKind;

/// Does the work of the empty job, and changes a state.
fn next(calls: &mut u64, x: u64) -> u64 {
    *calls += 1;
    work::noop(x)
}

pub(in super::super) fn actor_call(setup: &Setup) -> Result<Running, BenchError> {
    let engine = engine(setup.workers)?;
    let actor = engine.actor(|| 0_u64, ()).start();
    Ok(Box::new(move |times| {
        // Moves the engine into the closure, because it must outlive the calls.
        let _ = &engine;
        timed(times, |i| {
            let got = actor.call(next, (i,)).wait().map_err(refused)?;
            BenchError::expect(got, work::noop(i))
        })
    }))
}

/// Runs without end and ignores cancellation.
fn hang() {
    loop {
        std::thread::park();
    }
}

pub(in super::super) fn cancel_scope(setup: &Setup) -> Result<Running, BenchError> {
    let workers = setup.workers;
    let engine = engine_with(workers, |builder| builder.grace(GRACE))?;
    Ok(Box::new(move |times| {
        each(times, || {
            let mut cancelled = Instant::now();
            let result = engine.scope(|s| {
                for _ in 0..1_000 {
                    s.submit(hang, ());
                }
                while engine.progress().running < workers as u64 {
                    std::thread::yield_now();
                }
                cancelled = Instant::now();
                s.cancel();
            });
            let taken = cancelled.elapsed();
            match result {
                Err(error) if *error.kind() == JobErrorKind::Cancelled => Ok(taken),
                other => Err(BenchError::Engine(format!("a cancelled scope: {other:?}"))),
            }
        })
    }))
}
