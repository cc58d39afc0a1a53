//! Submitting in `async` code.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::{Job, JobBuilder, JobFailure};
use crate::kernel::wire::ArgWriter;
use crate::kernel::{Accepts, KernelInfo, Program, Reply};
use crate::supervisor::{JobError, JobId, JobOptions, LineTicket, Read, Supervisor, Target};

/// A ticket in the line for admission. Dropping it leaves the line.
pub(super) struct Entering {
    pub(super) shared: Arc<Supervisor>,
    pub(super) line: LineTicket,
}

impl Entering {
    pub(super) fn new(shared: &Arc<Supervisor>) -> Self {
        Self {
            shared: Arc::clone(shared),
            line: LineTicket::default(),
        }
    }
}

impl Drop for Entering {
    fn drop(&mut self) {
        self.shared.leave_admission_line(&mut self.line);
    }
}

/// A call whose arguments are written, and which is not submitted yet.
pub(super) struct PendingCall {
    pub(super) kernel: KernelInfo,
    pub(super) call: ArgWriter,
    pub(super) target: Target,
    pub(super) options: JobOptions,
}

impl PendingCall {
    /// Submits the call once it is admitted; until then the waker is stored in `line`. Must not be called again after
    /// it has returned `Ready`.
    pub(super) fn poll(
        &mut self,
        shared: &Supervisor,
        line: &mut LineTicket,
        context: &Context<'_>,
    ) -> Poll<JobId> {
        let kernel = self.kernel.named(self.options.name);
        let options = self.options.if_set();
        shared.poll_submit(&kernel, &mut self.call, self.target, options, line, context)
    }
}

/// How far a future has submitted a call.
#[allow(clippy::large_enum_variant, reason = "short-lived")]
enum Submission<R, E: JobFailure> {
    Waits {
        entering: Entering,
        call: PendingCall,
        read: Read<R>,
        retained: E::Retained,
        /// Keeps the actor of a call alive until the call is submitted.
        _actor: Option<Arc<dyn Any + Send + Sync>>,
    },
    /// The call ran on the caller's thread.
    Ran(Job<R, E>),
    Submitted,
}

impl<R: Send + 'static, E: JobFailure> Submission<R, E> {
    fn poll(&mut self, context: &Context<'_>) -> Poll<Job<R, E>> {
        let mut id = None;
        if let Self::Waits { entering, call, .. } = self {
            let Entering { shared, line } = entering;
            id = Some(ready!(call.poll(shared, line, context)));
        }
        Poll::Ready(match (mem::replace(self, Self::Submitted), id) {
            (
                Self::Waits {
                    entering,
                    read,
                    retained,
                    ..
                },
                Some(id),
            ) => Job::submitted(&entering.shared, id, read, retained),
            (Self::Ran(job), _) => job,
            _ => panic!("this call was submitted before"),
        })
    }
}

/// The future of [`JobBuilder::submit_async`] and [`Actor::call_async`](super::Actor::call_async): a call that waits
/// for admission. Dropping it leaves the line and drops the arguments: the call does not run.
#[must_use = "a future does nothing before it is polled"]
pub struct Submitting<R, E: JobFailure = JobError>(Submission<R, E>);

// The future is not self-referential.
impl<R, E: JobFailure> Unpin for Submitting<R, E> {}

impl<R: Send + 'static, E: JobFailure> Submitting<R, E> {
    pub(super) fn new(
        shared: &Arc<Supervisor>,
        call: PendingCall,
        read: Read<R>,
        retained: E::Retained,
        actor: Option<Arc<dyn Any + Send + Sync>>,
    ) -> Self {
        Self(Submission::Waits {
            entering: Entering::new(shared),
            call,
            read,
            retained,
            _actor: actor,
        })
    }

    /// Returns the future of a call that has run on the caller's thread.
    pub(super) fn of_ran(job: Job<R, E>) -> Self {
        Self(Submission::Ran(job))
    }
}

impl<G: Program, A, const RETRIES: bool, E: JobFailure> JobBuilder<'_, G, A, RETRIES, E> {
    /// Submits the job without blocking an event loop: with
    /// [`max_in_flight_bytes`](super::Builder::max_in_flight_bytes), the future is ready when the job is admitted (it
    /// waits in the same line as blocking callers); without a limit, it is ready at once. An inline engine has run the
    /// job when this function returns.
    ///
    /// ```
    /// # fn main() -> Result<(), arenite::JobError> {
    /// # let engine = arenite::Engine::inline();
    /// smol::block_on(async {
    ///     let job = engine.job(|x: u32| x + 1, (41,)).submit_async().await;
    ///     assert_eq!(job.await?, 42);
    ///     Ok(())
    /// })
    /// # }
    /// ```
    pub fn submit_async(self) -> Submitting<<G::Reply as Reply>::Out, E>
    where
        G: Accepts<A>,
    {
        match self.engine.supervisor() {
            Some(shared) => {
                let (call, retained) = self.into_pending(shared.arena.id(), 0);
                Submitting::new(shared, call, G::Reply::receive, retained, None)
            }
            None => Submitting::of_ran(self.run_inline()),
        }
    }
}

impl<R: Send + 'static, E: JobFailure> Future for Submitting<R, E> {
    type Output = Job<R, E>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll(context)
    }
}

impl<R, E: JobFailure> fmt::Debug for Submitting<R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Submitting").finish_non_exhaustive()
    }
}
