//! Submitting in `async` code.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
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
pub(super) enum Submission<R, E: JobFailure, H> {
    Waits {
        entering: Entering,
        call: PendingCall,
        read: Read<R>,
        retained: E::Retained,
        /// Dropped when the call is submitted.
        _handle: H,
    },
    /// The call ran on the caller's thread.
    Ran(Job<R, E>),
    Submitted,
}

impl<R: Send + 'static, E: JobFailure, H> Submission<R, E, H> {
    pub(super) fn poll(&mut self, context: &Context<'_>) -> Poll<Job<R, E>> {
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

/// The future of [`JobBuilder::submit_async`]. Dropping it leaves the line for admission, and drops the arguments.
#[must_use = "a future does nothing before it is polled"]
pub struct Submitting<G: Program, A, E: JobFailure = JobError> {
    state: Submission<<G::Reply as Reply>::Out, E, ()>,
    args: PhantomData<fn(A)>,
}

// The future is not self-referential.
impl<G: Program, A, E: JobFailure> Unpin for Submitting<G, A, E> {}

impl<G: Program, A, M, E: JobFailure> JobBuilder<'_, G, A, M, E> {
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
    pub fn submit_async(self) -> Submitting<G, A, E>
    where
        G: Accepts<A>,
    {
        let state = match self.engine.supervisor() {
            Some(shared) => {
                let (call, retained) = self.into_pending(shared.arena.id(), 0);
                Submission::Waits {
                    entering: Entering::new(shared),
                    call,
                    read: G::Reply::receive,
                    retained,
                    _handle: (),
                }
            }
            None => Submission::Ran(self.run_inline()),
        };
        let args = PhantomData;
        Submitting { state, args }
    }
}

impl<G: Accepts<A>, A, E: JobFailure> Future for Submitting<G, A, E> {
    type Output = Job<<G::Reply as Reply>::Out, E>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.state.poll(context)
    }
}

impl<G: Program, A, E: JobFailure> fmt::Debug for Submitting<G, A, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Submitting").finish_non_exhaustive()
    }
}
