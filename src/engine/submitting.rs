//! Submitting in `async` code.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::{Job, JobBuilder};
use crate::kernel::wire::ArgWriter;
use crate::kernel::{Accepts, CallWriter, KernelInfo, Program, Reply};
use crate::supervisor::{InLine, Shared, Terms, held_by};

/// Somebody who waits to be let in. Dropping it gives up the place in the line.
pub(super) struct Entering {
    pub(super) shared: Arc<Shared>,
    pub(super) line: InLine,
}

impl Entering {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Self {
            shared: Arc::clone(shared),
            line: InLine::default(),
        }
    }
}

impl Drop for Entering {
    fn drop(&mut self) {
        self.shared.leave_line(&mut self.line);
    }
}

/// A job that is not submitted yet.
pub(super) struct Unsent<G> {
    call: ArgWriter,
    terms: Terms,
    program: PhantomData<fn() -> G>,
}

impl<G: Program> Unsent<G> {
    /// Submits it when it is let in; until then it waits in this place of the line, with a waker there. Once.
    pub(super) fn poll(
        &mut self,
        shared: &Arc<Shared>,
        line: &mut InLine,
        context: &Context<'_>,
    ) -> Poll<Job<<G::Reply as Reply>::Out>> {
        let kernel = KernelInfo::of::<G>();
        let entry = ready!(shared.poll_enter(&kernel, held_by(&self.call), line, context));
        let id = shared.submit_entered(&kernel, &mut self.call, self.terms.asked(), entry);
        Poll::Ready(Job::sent::<G>(shared, id))
    }
}

/// A job that waits until it is let in: see [`JobBuilder::submit_async`]. Dropping it gives up the place in the line, and the
/// arguments.
#[must_use = "a future does nothing before it is polled"]
pub struct Submitting<G: Program, A> {
    state: State<G>,
    args: PhantomData<fn(A)>,
}

#[allow(clippy::large_enum_variant, reason = "short-lived")]
enum State<G: Program> {
    Waits(Entering, Unsent<G>),
    /// It ran in this thread, or was let in.
    Here(Job<<G::Reply as Reply>::Out>),
    Submitted,
}

// Nothing points into it.
impl<G: Program, A> Unpin for Submitting<G, A> {}

impl<G: Program, A, T> JobBuilder<'_, G, A, T> {
    /// Submits it without holding up an event loop: where there is a ceiling ([`admission`](super::Builder::admission)) the
    /// future waits until the job is let in, in the same line as everybody else. Without a ceiling it is ready
    /// at once. An inline engine has run the job when this returns.
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
    pub fn submit_async(self) -> Submitting<G, A>
    where
        G: Accepts<A>,
    {
        let state = match self.engine.shared() {
            Some(shared) => State::Waits(Entering::new(shared), self.unsent(shared, 0)),
            None => State::Here(self.run_here()),
        };
        let args = PhantomData;
        Submitting { state, args }
    }

    /// Nothing waits for it yet. `kept`: handles of each of its arrays that the caller keeps until it is answered.
    pub(super) fn unsent(self, shared: &Shared, kept: usize) -> Unsent<G>
    where
        G: Accepts<A>,
    {
        let mut call = CallWriter(ArgWriter::new(shared.arena.id()));
        G::send(self.args, &mut call);
        (call.0.seed, call.0.kept) = (self.seed, kept);
        Unsent {
            call: call.0,
            terms: self.terms,
            program: PhantomData,
        }
    }
}

impl<G: Accepts<A>, A> Future for Submitting<G, A> {
    type Output = Job<<G::Reply as Reply>::Out>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let State::Waits(entering, unsent) = &mut self.state {
            let Entering { shared, line } = entering;
            let job = ready!(unsent.poll(shared, line, context));
            self.state = State::Here(job);
        }
        match mem::replace(&mut self.state, State::Submitted) {
            State::Here(job) => Poll::Ready(job),
            State::Waits(..) | State::Submitted => panic!("this job was submitted before"),
        }
    }
}

impl<G: Program, A> fmt::Debug for Submitting<G, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Submitting").finish_non_exhaustive()
    }
}
