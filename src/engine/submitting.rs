//! Submitting in `async` code.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use super::job::run_program;
use super::{Job, JobBuilder};
use crate::kernel::wire::ArgWriter;
use crate::kernel::{CallWriter, KernelInfo, Loads, Program, Reply};
use crate::supervisor::{InLine, Shared, Terms};

/// A job that waits until it is let in: see [`JobBuilder::submit_async`]. Dropping it gives up the place in the line, and the
/// arguments.
#[must_use = "a future does nothing before it is polled"]
pub struct Submitting<G, A> {
    /// `None`: in this thread.
    shared: Option<Arc<Shared>>,
    /// `None`: submitted.
    args: Option<A>,
    terms: Terms,
    line: InLine,
    program: std::marker::PhantomData<fn() -> G>,
}

// The arguments are moved in and out; nothing points at them.
impl<G, A> Unpin for Submitting<G, A> {}

impl<G: Program, A> JobBuilder<'_, G, A> {
    /// Submits it without holding up an event loop: where there is a ceiling ([`admission`](super::Builder::admission)) the
    /// future waits until the job is let in, in the same line as everybody else. Without a ceiling it is ready at once.
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
        Submitting {
            shared: self.engine.shared().cloned(),
            args: Some(self.args),
            terms: self.terms,
            line: InLine::default(),
            program: std::marker::PhantomData,
        }
    }
}

impl<G: Loads<A>, A> Future for Submitting<G, A> {
    type Output = Job<<G::Reply as Reply>::Out>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let held = this.args.as_ref().map(G::held);
        let held = held.expect("a future is not polled after it was ready");
        let kernel = KernelInfo::of::<G>();
        let entry = match &this.shared {
            Some(shared) => Some(ready!(shared.poll_enter(
                &kernel,
                held,
                &mut this.line,
                context
            ))),
            None => None,
        };
        let args = this.args.take().expect("it was there above");
        Poll::Ready(match (&this.shared, entry) {
            (Some(shared), Some(entry)) => {
                let mut call = CallWriter(ArgWriter::new(shared.arena.id()));
                G::load(args, &mut call);
                let terms = this.terms.asked();
                let id = shared.submit_entered(&kernel, &mut call.0, terms, entry);
                Job::sent::<G>(shared, id)
            }
            _ => Job::here(run_program::<G, A>(args, &this.terms)),
        })
    }
}

impl<G, A> Drop for Submitting<G, A> {
    fn drop(&mut self) {
        if let Some(shared) = &self.shared {
            shared.leave_line(&mut self.line);
        }
    }
}

impl<G, A> fmt::Debug for Submitting<G, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Submitting")
            .field("terms", &self.terms)
            .finish_non_exhaustive()
    }
}
