//! Jobs that run in the calling thread.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::engine::Engine;
use crate::engine::inlined::Observed;
use crate::engine::spawn::why_here;
use crate::kernel::{Accepts, Failure, Reply};
use crate::supervisor::{
    Because, Failed, JobError, JobErrorKind, JobOptions, Permit, PermitSource,
};
use crate::worker::fence::drop_payload;

/// Waits in this thread for the permit that a job needs.
pub(in crate::engine) fn permit<'l>(
    limit: &'l Option<PermitSource>,
    name: &'static str,
) -> Result<Option<Permit<'l>>, JobError> {
    let permit = limit.as_ref().map(PermitSource::acquire_inline).transpose();
    permit.map_err(|why| Failed::new(why, name, 0).into())
}

/// Runs `kernel` behind a fence in this thread.
pub(in crate::engine) fn run_here<R>(
    name: &'static str,
    kernel: impl FnOnce() -> Result<R, Failure>,
) -> Result<R, JobError> {
    run_here_at(&Cell::new(name), kernel)
}

/// As [`run_here`]; `at` tells afterwards which kernel it was.
fn run_here_at<R>(
    at: &Cell<&'static str>,
    kernel: impl FnOnce() -> Result<R, Failure>,
) -> Result<R, JobError> {
    let observed = Observed::begin(at.get());
    // Each kernel has this function of its own: what follows is not part of it.
    let answer = match catch_unwind(AssertUnwindSafe(kernel)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(failure)) => Err(failed(why(failure), at.get())),
        Err(payload) => Err(failed(
            JobErrorKind::panicked_here(payload, drop_payload).into(),
            at.get(),
        )),
    };
    if let Some(observed) = observed {
        observed.end(answer.as_ref().err().map(JobError::kind));
    }
    answer
}

fn failed(why: Because, name: &'static str) -> JobError {
    Failed::new(why, name, 0).into()
}

fn why(failure: Failure) -> Because {
    let kind = match failure {
        Failure::Spawned(failed) => return why_here(failed),
        Failure::Returned(returned) => JobErrorKind::Returned(returned),
        Failure::Full(full) => JobErrorKind::ArenaFull(full),
        Failure::Cancelled => JobErrorKind::Cancelled,
        Failure::Rejected(why) => JobErrorKind::Protocol(format!("{why:?}")),
    };
    kind.into()
}

/// Runs a program in this thread.
pub(super) fn run_program<G, A>(
    engine: &Engine,
    args: A,
    options: &JobOptions,
    seed: u64,
) -> Result<<G::Reply as Reply>::Out, JobError>
where
    G: Accepts<A>,
{
    let run = || {
        let _permit = permit(&options.limit, G::name())?;
        let _job = engine.seeds.here(seed);
        let at = Cell::new(G::name());
        let run = || G::run_inline(args, &at);
        run_here_at(&at, run)
    };
    run().map_err(|error| error.with_label(options.label.as_ref()))
}
