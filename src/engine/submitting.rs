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
use crate::kernel::{CallWriter, KernelInfo, Loads, Program, Reply};
use crate::supervisor::{InLine, Shared, Terms};

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

/// A job that is not submitted yet: what it is called with, until it is let in.
pub(super) struct Unsent<G, A> {
    /// With the terms, and the seed.
    call: Option<(A, Terms, u64)>,
    program: PhantomData<fn() -> G>,
}

impl<G: Loads<A>, A> Unsent<G, A> {
    /// Submits it when it is let in; until then it waits in this place of the line, with a waker there.
    pub(super) fn poll(
        &mut self,
        shared: &Arc<Shared>,
        line: &mut InLine,
        context: &Context<'_>,
    ) -> Poll<Job<<G::Reply as Reply>::Out>> {
        let Some((args, ..)) = &self.call else {
            panic!("this job was submitted before")
        };
        let kernel = KernelInfo::of::<G>();
        let entry = ready!(shared.poll_enter(&kernel, G::held(args), line, context));
        let (args, terms, seed) = self.call.take().expect("it was looked at");
        let mut call = CallWriter(ArgWriter::new(shared.arena.id()));
        G::load(args, &mut call);
        call.0.seed = seed;
        let id = shared.submit_entered(&kernel, &mut call.0, terms.asked(), entry);
        Poll::Ready(Job::sent::<G>(shared, id))
    }
}

/// A job that waits until it is let in: see [`JobBuilder::submit_async`]. Dropping it gives up the place in the line, and the
/// arguments.
#[must_use = "a future does nothing before it is polled"]
pub struct Submitting<G: Program, A> {
    state: State<G, A>,
}

#[allow(clippy::large_enum_variant, reason = "short-lived")]
enum State<G: Program, A> {
    Waits(Entering, Unsent<G, A>),
    /// It ran in this thread, or was let in.
    Here(Job<<G::Reply as Reply>::Out>),
    Submitted,
}

// The arguments are moved in and out; nothing points at them.
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
        G: Loads<A>,
    {
        let state = match self.engine.shared() {
            Some(shared) => State::Waits(Entering::new(shared), self.unsent()),
            None => State::Here(self.run_here()),
        };
        Submitting { state }
    }

    /// Nothing waits for it yet.
    pub(super) fn unsent(self) -> Unsent<G, A> {
        let (call, program) = (Some((self.args, self.terms, self.seed)), PhantomData);
        Unsent { call, program }
    }
}

impl<G: Loads<A>, A> Future for Submitting<G, A> {
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
