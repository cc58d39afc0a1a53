//! Jobs that run in the calling thread.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::engine::Engine;
use crate::engine::inlined::observed;
use crate::engine::spawn::why_here;
use crate::kernel::{Failure, Loads, Reply, Stopped};
use crate::supervisor::{Failed, JobError, JobErrorKind, Limit, Permit, Terms};
use crate::worker::fence::drop_payload;

/// Waits in this thread for the permit that a job needs.
pub(in crate::engine) fn permit<'l>(
    limit: &'l Option<Limit>,
    name: &'static str,
) -> Result<Option<Permit<'l>>, JobError> {
    let permit = limit.as_ref().map(Limit::enter_here).transpose();
    permit.map_err(|why| Failed::new(why, name, 0).into())
}

/// Runs `kernel` behind a fence in this thread.
pub(in crate::engine) fn run_here<R>(
    name: &'static str,
    kernel: impl FnOnce() -> Result<R, Failure>,
) -> Result<R, JobError> {
    run_here_at(|| name, kernel)
}

/// As [`run_here`]; `name` tells afterwards which kernel it was.
fn run_here_at<R>(
    name: impl Fn() -> &'static str,
    kernel: impl FnOnce() -> Result<R, Failure>,
) -> Result<R, JobError> {
    observed(name(), || fenced(&name, kernel))
}

fn fenced<R>(
    name: &impl Fn() -> &'static str,
    kernel: impl FnOnce() -> Result<R, Failure>,
) -> Result<R, JobError> {
    let kind = match catch_unwind(AssertUnwindSafe(kernel)) {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(Failure::Spawned(failed))) => {
            return Err(Failed::new(why_here(failed), name(), 0).into());
        }
        Ok(Err(Failure::Returned(text))) => JobErrorKind::Returned(text),
        Ok(Err(Failure::Full(full))) => JobErrorKind::ArenaFull(full),
        Ok(Err(Failure::Cancelled)) => JobErrorKind::Cancelled,
        Ok(Err(Failure::Rejected(why))) => JobErrorKind::Protocol(format!("{why:?}")),
        Err(payload) => JobErrorKind::panicked_here(payload, drop_payload),
    };
    Err(Failed::new(kind, name(), 0).into())
}

/// Runs a program in this thread.
pub(super) fn run_program<G, A>(
    engine: &Engine,
    args: A,
    terms: &Terms,
    seed: u64,
) -> Result<<G::Reply as Reply>::Out, JobError>
where
    G: Loads<A>,
{
    let _permit = permit(&terms.limit, G::name())?;
    let _job = engine.seeds.here(seed);
    let at = Cell::new(G::name());
    let run = || G::run_here(args, &at).map_err(|Stopped(why)| why);
    run_here_at(|| at.get(), run)
}
