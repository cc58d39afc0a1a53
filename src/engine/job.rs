//! One job: its handle, and its construction.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::{Engine, Place};
use crate::kernel::wire::ArgWriter;
use crate::kernel::{
    Arg, Args, CallWriter, Chain, Failure, Kernel, KernelInfo, Params, Program, Reply, SplitFirst,
};
use crate::supervisor::{Failed, JobError, JobErrorKind, JobId, Read, Shared};

/// A job that was submitted, and will have a value of type `R`.
///
/// Dropping the handle cancels the job: if it has not begun it never will, and one that runs is asked
/// to stop. [`detach`](Job::detach) lets it run. A job is also a [`Future`], on any executor.
#[must_use = "dropping a job cancels it; `wait` for it, or `detach` it"]
pub struct Job<R> {
    state: State<R>,
}

enum State<R> {
    Sent {
        shared: Arc<Shared>,
        id: JobId,
        read: Read<R>,
    },
    /// Ran in this thread, or could not be sent at all.
    Here(Box<Result<R, JobError>>),
    Taken,
}

// A handle borrows nothing and is not self-referential.
impl<R> Unpin for Job<R> {}

impl<R: Send + 'static> Job<R> {
    /// Sends a job whose arguments `fill` writes.
    #[inline]
    pub(super) fn send<G>(shared: &Arc<Shared>, fill: impl FnOnce(&mut CallWriter)) -> Self
    where
        G: Program,
        G::Reply: Reply<Out = R>,
    {
        let mut call = CallWriter(ArgWriter::new(shared.arena.id()));
        fill(&mut call);
        let id = shared.submit(&KernelInfo::of::<G>(), &mut call.0, 0);
        Self {
            state: State::Sent {
                shared: Arc::clone(shared),
                id,
                read: G::Reply::receive,
            },
        }
    }

    pub(super) fn here(result: Result<R, JobError>) -> Self {
        Self {
            state: State::Here(Box::new(result)),
        }
    }

    /// Runs a kernel in this thread.
    pub(super) fn run_here<F, P, T>(kernel: F, held: P::Held) -> Self
    where
        F: Kernel<P, T>,
        P: Params,
        T: Reply<Out = R>,
    {
        Self::here(run_here(std::any::type_name::<F>(), || {
            kernel.call(held).keep().map_err(Failure::from)
        }))
    }

    /// Waits for the value.
    ///
    /// # Errors
    /// [`JobError`] with the cause, when the job gave no value.
    ///
    /// # Panics
    /// If [`wait_timeout`](Job::wait_timeout) or polling has already returned the value.
    pub fn wait(mut self) -> Result<R, JobError> {
        match std::mem::replace(&mut self.state, State::Taken) {
            State::Sent { shared, id, read } => shared
                .wait(id, read, None)
                .expect("a wait without a limit ends with the answer"),
            State::Here(result) => *result,
            State::Taken => panic!("the value of this job was taken before"),
        }
    }

    /// Waits for the value, but not longer than this. `None`: not yet; the job goes on.
    ///
    /// # Errors
    /// As [`wait`](Job::wait).
    ///
    /// # Panics
    /// If the value was taken before.
    pub fn wait_timeout(&mut self, limit: Duration) -> Option<Result<R, JobError>> {
        match std::mem::replace(&mut self.state, State::Taken) {
            State::Sent { shared, id, read } => match shared.wait(id, read, Some(limit)) {
                Some(answer) => Some(answer),
                None => {
                    self.state = State::Sent { shared, id, read };
                    None
                }
            },
            State::Here(result) => Some(*result),
            State::Taken => panic!("the value of this job was taken before"),
        }
    }

    /// Has the job ended, well or badly?
    pub fn is_done(&self) -> bool {
        match &self.state {
            State::Sent { shared, id, .. } => shared.is_done(*id),
            State::Here(_) | State::Taken => true,
        }
    }

    /// Lets the job run without anybody to ask for its value. What it returns is dropped, and a
    /// failure shows only in [`Engine::stats`].
    pub fn detach(mut self) {
        if let State::Sent { shared, id, .. } = std::mem::replace(&mut self.state, State::Taken) {
            shared.detach(id);
        }
    }
}

/// Runs `kernel` behind a fence in this thread.
pub(super) fn run_here<R>(
    name: &'static str,
    kernel: impl FnOnce() -> Result<R, Failure>,
) -> Result<R, JobError> {
    let kind = match catch_unwind(AssertUnwindSafe(kernel)) {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(Failure::Returned(text))) => JobErrorKind::Returned(text),
        Ok(Err(Failure::Full(full))) => JobErrorKind::ArenaFull(full),
        Ok(Err(Failure::Rejected(why))) => JobErrorKind::Protocol(format!("{why:?}")),
        Err(payload) => JobErrorKind::Panicked {
            message: match (
                payload.downcast_ref::<&str>(),
                payload.downcast_ref::<String>(),
            ) {
                (Some(text), _) => (*text).to_owned(),
                (_, Some(text)) => text.clone(),
                _ => "a panic without a text".to_owned(),
            },
            location: "this thread".to_owned(),
            backtrace: String::new(),
        },
    };
    Err(Failed::new(kind, name, 0).into())
}

impl<R: Send + 'static> Future for Job<R> {
    type Output = Result<R, JobError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match std::mem::replace(&mut self.state, State::Taken) {
            State::Sent { shared, id, read } => match shared.poll(id, read, context) {
                Poll::Ready(answer) => Poll::Ready(answer),
                Poll::Pending => {
                    self.state = State::Sent { shared, id, read };
                    Poll::Pending
                }
            },
            State::Here(result) => Poll::Ready(*result),
            State::Taken => panic!("the value of this job was taken before"),
        }
    }
}

impl<R> Drop for Job<R> {
    fn drop(&mut self) {
        if let State::Sent { shared, id, .. } = &self.state {
            shared.abandon(*id);
        }
    }
}

impl<R> fmt::Debug for Job<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Sent { .. } => "sent",
            State::Here(_) => "done",
            State::Taken => "taken",
        };
        f.debug_tuple("Job").field(&state).finish()
    }
}

/// A job under construction: one kernel, or a chain of them that runs in one worker.
///
/// ```
/// # let engine = arenite::Engine::inline();
/// use arenite::Array;
///
/// fn double(values: &Array<u32>) -> Array<u32> {
///     Array::from_fn(values.shape(), |i| values[i] * 2)
/// }
/// fn total(values: &[u32], start: u32) -> u32 {
///     start + values.iter().sum::<u32>()
/// }
///
/// let values = engine.from_slice(&[1u32, 2, 3])?;
/// let job = engine.job(double, (&values,)).then(total, (100,)).submit();
/// assert_eq!(job.wait()?, 112);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a job under construction does nothing until it is submitted"]
pub struct JobBuilder<'e, G: Program> {
    engine: &'e Engine,
    call: Call<G>,
}

/// What has been put together so far.
enum Call<G: Program> {
    Sent(Box<ArgWriter>, PhantomData<fn() -> G>),
    Here(Result<<G::Reply as Reply>::Out, JobError>),
}

impl<'e, G: Program> JobBuilder<'e, G> {
    pub(super) fn first<F, A, P, R>(engine: &'e Engine, kernel: F, args: A) -> Self
    where
        F: Kernel<P, R>,
        A: Args<'static, P>,
        P: Params,
        R: Reply,
        G: Program<Reply = R>,
    {
        let call = match &engine.place {
            Place::Workers(workers) => {
                let mut call = CallWriter(ArgWriter::new(workers.shared.arena.id()));
                args.send(&mut call);
                Call::Sent(Box::new(call.0), PhantomData)
            }
            Place::Inline => {
                let held = args.hold();
                let run = || kernel.call(held).keep().map_err(Failure::from);
                Call::Here(run_here(std::any::type_name::<F>(), run))
            }
        };
        Self { engine, call }
    }

    /// Then runs `kernel` on the result, in the same worker: what lies between never leaves it. The
    /// result is the kernel's first argument, `rest` are the others. If the first kernel fails the
    /// second does not run.
    pub fn then<H, A, Q, R>(self, kernel: H, rest: A) -> JobBuilder<'e, Chain<G, H, Q, R>>
    where
        H: Kernel<Q, R>,
        Q: SplitFirst,
        A: Args<'static, Q::Rest>,
        R: Reply,
        <G::Reply as Reply>::Out: Arg<'static, Q::First>,
    {
        let call = match self.call {
            Call::Sent(writer, _) => {
                let mut call = CallWriter(*writer);
                rest.send(&mut call);
                Call::Sent(Box::new(call.0), PhantomData)
            }
            Call::Here(Ok(first)) => {
                let held = Q::join(first.hold(), rest.hold());
                let run = || kernel.call(held).keep().map_err(Failure::from);
                Call::Here(run_here(std::any::type_name::<H>(), run))
            }
            Call::Here(Err(error)) => Call::Here(Err(error)),
        };
        JobBuilder {
            engine: self.engine,
            call,
        }
    }

    /// Submits it.
    pub fn submit(self) -> Job<<G::Reply as Reply>::Out> {
        match (self.call, self.engine.shared()) {
            (Call::Sent(mut writer, _), Some(shared)) => {
                let id = shared.submit(&KernelInfo::of::<G>(), &mut writer, 0);
                let (shared, read) = (Arc::clone(shared), G::Reply::receive as Read<_>);
                Job {
                    state: State::Sent { shared, id, read },
                }
            }
            (Call::Here(result), _) => Job::here(result),
            (Call::Sent(..), None) => unreachable!("an inline engine runs its jobs at once"),
        }
    }
}

impl<G: Program> fmt::Debug for JobBuilder<'_, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("JobBuilder").field(&G::name()).finish()
    }
}
