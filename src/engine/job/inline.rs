//! Jobs that run inline, on the caller's thread.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::engine::Engine;
use crate::engine::inlined::Observed;
use crate::engine::spawn::inline_failure;
use crate::kernel::{Accepts, Args, Failure, Kernel, Key, Params, Reply, kernel_name, zst_value};
use crate::supervisor::{
    Because, Failed, JobError, JobErrorKind, JobOptions, Permit, PermitSource, WorkerExit,
};
use crate::sync::drop_payload;

/// Waits on this thread for the permit that a job needs.
pub(in crate::engine) fn permit<'l>(
    limit: &'l Option<PermitSource>,
    name: &'static str,
) -> Result<Option<Permit<'l>>, JobError> {
    let permit = limit.as_ref().map(PermitSource::acquire_inline).transpose();
    permit.map_err(|why| Failed::new(why, name, 0).into())
}

/// Runs `kernel` on this thread and catches its panics.
pub(in crate::engine) fn run_inline<R>(
    name: &'static str,
    kernel: impl FnOnce() -> Result<R, Failure>,
) -> Result<R, JobError> {
    run_inline_at(&Cell::new(name), kernel)
}

/// Runs a kernel on this thread.
pub(in crate::engine) fn run_kernel<F, P, R>(held: P::Held) -> Result<R::Out, JobError>
where
    F: Kernel<P, R>,
    P: Params,
    R: Reply,
{
    run_inline(kernel_name::<F>(), || {
        zst_value::<F>().call(held, Key::new()).into_value()
    })
}

/// Returns the arguments of a kernel that runs on this thread.
///
/// # Errors
/// The error of the call, if a job whose value it takes has none.
pub(in crate::engine) fn held<'env, P: Params>(
    name: &'static str,
    args: impl Args<'env, P>,
) -> Result<P::Held, JobError> {
    match args.failed() {
        Some(why) => Err(failed(Because::of_no_value(why), name)),
        None => Ok(args.hold()),
    }
}

/// Like [`run_inline`]. `at` contains the name of the kernel that began last.
fn run_inline_at<R>(
    at: &Cell<&'static str>,
    kernel: impl FnOnce() -> Result<R, Failure>,
) -> Result<R, JobError> {
    let observed = Observed::begin(at.get());
    // This function is compiled for each kernel, so it is short: the rest is in functions that are compiled once.
    let answer = match catch_unwind(AssertUnwindSafe(kernel)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(failure)) => Err(failed(why(failure), at.get())),
        Err(payload) => Err(failed(
            JobErrorKind::caught_panic(payload, drop_payload).into(),
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
        Failure::Spawned(failed) => return inline_failure(failed),
        Failure::NoInput(why) => return Because::of_no_value(why),
        Failure::Returned(returned) => JobErrorKind::Returned(returned),
        Failure::Full(full) => full.into(),
        Failure::Cancelled => JobErrorKind::Cancelled,
        Failure::Rejected(why) => JobErrorKind::Lost(WorkerExit::Protocol(format!("{why:?}"))),
    };
    kind.into()
}

/// Runs the kernels of a program on this thread.
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
        let _job = engine.seeds.begin_inline(seed);
        let at = Cell::new(G::name());
        let run = || G::run_inline(args, &at, Key::new());
        run_inline_at(&at, run)
    };
    run().map_err(|error| error.named_by(options))
}
