//! Jobs that remember their arguments.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::{DeadLetter, Job, JobBuilder, JobError, Submitting};
use crate::kernel::{Accepts, Program, Reply};

/// A job and its arguments: see [`JobBuilder::keep_args`]. Dropping it cancels the job.
#[must_use = "dropping a job cancels it"]
pub struct KeptJob<R, A> {
    job: Job<R>,
    args: Option<A>,
}

// As a job; the arguments are moved out.
impl<R, A> Unpin for KeptJob<R, A> {}

impl<G: Program, A: Clone, T> JobBuilder<'_, G, A, T> {
    /// Submits it, and keeps a copy of the arguments: a failure comes with them, as a [`DeadLetter`]. A copy of an array is
    /// another handle. Waits as [`submit`](JobBuilder::submit) does.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// fn first(values: &[u8]) -> Result<u8, &'static str> {
    ///     values.first().copied().ok_or("empty")
    /// }
    ///
    /// let values = engine.from_slice::<u8>(&[])?;
    /// let letter = engine.job(first, (values,)).keep_args().wait().unwrap_err();
    /// assert_eq!((letter.args().0.len(), letter.attempts()), (0, 1));
    /// assert!(letter.error().to_string().contains("empty"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn keep_args(self) -> KeptJob<<G::Reply as Reply>::Out, A>
    where
        G: Accepts<A>,
    {
        let args = Some(self.args.clone());
        let job = self.submit();
        KeptJob { job, args }
    }

    /// As [`keep_args`](JobBuilder::keep_args), without holding up an event loop: the future waits until the job is let in, as
    /// that of [`submit_async`](JobBuilder::submit_async) does.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// fn first(values: &[u8]) -> Result<u8, &'static str> {
    ///     values.first().copied().ok_or("empty")
    /// }
    ///
    /// let values = engine.from_slice::<u8>(&[])?;
    /// smol::block_on(async {
    ///     let job = engine.job(first, (values,)).keep_args_async().await;
    ///     assert!(job.await.unwrap_err().args().0.is_empty());
    /// });
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn keep_args_async(self) -> SubmittingKept<G, A>
    where
        G: Accepts<A>,
    {
        let args = Some(self.args.clone());
        let job = self.submit_async();
        SubmittingKept { job, args }
    }
}

/// A job that waits until it is let in, and its arguments: see [`JobBuilder::keep_args_async`]. Dropping it gives up the place in
/// the line, and the arguments.
#[must_use = "a future does nothing before it is polled"]
pub struct SubmittingKept<G: Program, A> {
    job: Submitting<G, A>,
    args: Option<A>,
}

// As the job that waits; the arguments are moved out.
impl<G: Program, A> Unpin for SubmittingKept<G, A> {}

impl<G: Accepts<A>, A> Future for SubmittingKept<G, A> {
    type Output = KeptJob<<G::Reply as Reply>::Out, A>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let job = ready!(Pin::new(&mut self.job).poll(context));
        let args = self.args.take();
        Poll::Ready(KeptJob { job, args })
    }
}

impl<G: Program, A> fmt::Debug for SubmittingKept<G, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SubmittingKept").field(&self.job).finish()
    }
}

impl<R: Send + 'static, A> KeptJob<R, A> {
    /// Waits for the value.
    ///
    /// # Errors
    /// The job with its arguments, when it gave no value.
    pub fn wait(self) -> Result<R, DeadLetter<A>> {
        let Self { job, mut args } = self;
        job.wait().map_err(|error| letter(&mut args, error))
    }

    /// The job's number: see [`Job::id`].
    pub fn id(&self) -> u64 {
        self.job.id()
    }

    /// The job alone: for what is done with jobs, such as [`detach`](Job::detach), or to wait without the arguments.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// let kept = engine.job(|x: u32| x + 1, (41,)).keep_args();
    /// let (id, job) = (kept.id(), kept.into_job());
    /// assert_eq!((job.id(), job.wait()?), (id, 42));
    /// # Ok::<(), arenite::JobError>(())
    /// ```
    pub fn into_job(self) -> Job<R> {
        self.job
    }
}

fn letter<A>(args: &mut Option<A>, error: JobError) -> DeadLetter<A> {
    let args = args.take().expect("a job answers once");
    DeadLetter::new(0, args, error)
}

impl<R: Send + 'static, A> Future for KeptJob<R, A> {
    type Output = Result<R, DeadLetter<A>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let answer = Pin::new(&mut this.job).poll(context);
        answer.map(|answer| answer.map_err(|error| letter(&mut this.args, error)))
    }
}

impl<R, A> fmt::Debug for KeptJob<R, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KeptJob").field(&self.job).finish()
    }
}
