//! One job: its handle, and its construction.

use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::inlined::observed;
use super::spawn::why_here;
use super::{Backoff, Engine, Limiter, Priority};
use crate::kernel::wire::ArgWriter;
use crate::kernel::{
    Arg, Args, CallWriter, Chain, Failure, Kernel, KernelInfo, Loads, Params, Program, Reply,
    RetrySafe, SplitFirst, Stopped,
};
use crate::supervisor::{
    Failed, JobError, JobErrorKind, JobId, Limit, Permit, Read, RefusedBy, Shared, Terms,
};

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
        let id = shared.submit(&KernelInfo::of::<G>(), &mut call.0, 0, None);
        Self::sent::<G>(shared, id)
    }

    /// A job that was submitted.
    #[inline]
    pub(super) fn sent<G>(shared: &Arc<Shared>, id: JobId) -> Self
    where
        G: Program,
        G::Reply: Reply<Out = R>,
    {
        Self::submitted(shared, id, G::Reply::receive)
    }

    /// A job that was submitted, and how its reply is read.
    #[inline]
    pub(super) fn submitted(shared: &Arc<Shared>, id: JobId, read: Read<R>) -> Self {
        Self {
            state: State::Sent {
                shared: Arc::clone(shared),
                id,
                read,
            },
        }
    }

    /// Where it was sent, if it was and nobody has taken its value.
    pub(super) fn sent_to(&self) -> Option<(&Arc<Shared>, JobId)> {
        match &self.state {
            State::Sent { shared, id, .. } => Some((shared, *id)),
            State::Here(_) | State::Taken => None,
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

    /// The job's number in its engine, from 1: the one that messages ("job 8"), [`JobError::job`] and [`JobError::beside`] have.
    /// 0 where there is none: for a job that ran in this thread, and when the value has been taken.
    ///
    /// An error that lists other jobs can be told what those were:
    ///
    /// ```standalone_crate
    /// use std::collections::HashMap;
    /// use std::sync::Barrier;
    /// use arenite::Engine;
    ///
    /// /// Of the worker: its lanes are threads.
    /// static ALL_RUN: Barrier = Barrier::new(3);
    ///
    /// fn fetch(page: u32) -> u32 {
    ///     ALL_RUN.wait();
    ///     match page {
    ///         13 => std::process::abort(),
    ///         _ => loop {
    ///             std::thread::park();
    ///         },
    ///     }
    /// }
    ///
    /// arenite::init();
    /// let engine = Engine::builder().workers(1).lanes(3).build()?;
    /// let (mut pages, mut jobs) = (HashMap::new(), Vec::new());
    /// for page in [7, 13, 30] {
    ///     let job = engine.submit(fetch, (page,));
    ///     pages.insert(job.id(), page);
    ///     jobs.push(job);
    /// }
    /// let error = jobs.remove(1).wait().unwrap_err();
    /// assert_eq!(pages[&error.job()], 13);
    /// let along: Vec<u32> = error.beside().iter().map(|job| pages[job]).collect();
    /// assert_eq!(along, [7, 30]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn id(&self) -> u64 {
        match &self.state {
            State::Sent { shared, id, .. } => shared.number_of(*id),
            State::Here(_) | State::Taken => 0,
        }
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

    /// Asks the job to end. One that no worker has begun answers
    /// [`Cancelled`](JobErrorKind::Cancelled); one that runs can see it ([`cancelled`](crate::cancelled)),
    /// and answers whatever its kernel then returns. A job that has ended has its answer already.
    ///
    /// ```standalone_crate
    /// use arenite::Engine;
    ///
    /// fn count() -> u64 {
    ///     let mut n = 0;
    ///     while !arenite::cancelled() {
    ///         n += 1;
    ///     }
    ///     n
    /// }
    ///
    /// arenite::init();
    /// let engine = Engine::builder().workers(1).build()?;
    /// let job = engine.submit(count, ());
    /// // It runs as soon as the worker has it; until then it would answer `Cancelled`.
    /// job.cancel();
    /// let counted = job.wait();
    /// assert!(counted.is_ok() || counted.is_err_and(|error| *error.kind() == arenite::JobErrorKind::Cancelled));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn cancel(&self) {
        if let State::Sent { shared, id, .. } = &self.state {
            shared.cancel(*id);
        }
    }

    /// Ends the job, whatever it does: if it runs, its worker is killed and replaced, and the job answers
    /// [`Cancelled`](JobErrorKind::Cancelled) as soon as that process is gone. A job that has ended has its
    /// answer already.
    ///
    /// On a worker with several [`lanes`](super::Builder::lanes), what runs beside it is lost with it.
    ///
    /// ```standalone_crate
    /// use arenite::{Engine, JobErrorKind};
    ///
    /// fn hang() {
    ///     loop {
    ///         std::hint::spin_loop();
    ///     }
    /// }
    ///
    /// arenite::init();
    /// let engine = Engine::builder().workers(1).build()?;
    /// let job = engine.submit(hang, ());
    /// job.cancel_now();
    /// let error = job.wait().unwrap_err();
    /// assert_eq!(*error.kind(), JobErrorKind::Cancelled);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn cancel_now(&self) {
        if let State::Sent { shared, id, .. } = &self.state {
            shared.cancel_now(*id);
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

/// Waits in this thread for the permit that a job needs.
pub(super) fn permit<'l>(
    limit: &'l Option<Limit>,
    name: &'static str,
) -> Result<Option<Permit<'l>>, JobError> {
    let permit = limit.as_ref().map(Limit::enter_here).transpose();
    permit.map_err(|why| Failed::new(why, name, 0).into())
}

/// Runs `kernel` behind a fence in this thread.
pub(super) fn run_here<R>(
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
        Ok(Err(Failure::Spawned(failed))) => why_here(failed),
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
    Err(Failed::new(kind, name(), 0).into())
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
///
/// A job that takes too long, or takes its worker with it, can be given another try:
///
/// ```standalone_crate
/// use std::time::Duration;
/// use arenite::{Engine, JobErrorKind, Priority};
///
/// fn hang() {
///     loop {
///         std::thread::park();
///     }
/// }
///
/// arenite::init();
/// let engine = Engine::builder().workers(1).build()?;
/// let job = engine
///     .job(hang, ())
///     .deadline(Duration::from_millis(20))
///     .retries(1)
///     .priority(Priority::High)
///     .submit();
/// let error = job.wait().unwrap_err();
/// assert!(matches!(error.kind(), JobErrorKind::DeadlineExceeded { .. }));
/// assert_eq!((error.attempt(), error.deaths().len()), (2, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// An inline engine runs the job at once, and once: there is nobody to end it, and nothing that it could
/// take with it.
#[must_use = "a job under construction does nothing until it is submitted"]
pub struct JobBuilder<'e, G: Program, A> {
    pub(super) engine: &'e Engine,
    /// What was passed, which also decides whether the job may run again.
    pub(super) args: A,
    pub(super) terms: Terms,
    /// Which random numbers it draws; 0: the next in the order of submission.
    seed: u64,
    program: PhantomData<fn() -> G>,
}

impl<'e, G: Program, A> JobBuilder<'e, G, A> {
    pub(super) fn first(engine: &'e Engine, args: A) -> Self {
        Self {
            engine,
            args,
            terms: Terms::default(),
            seed: 0,
            program: PhantomData,
        }
    }

    /// Then runs `kernel` on the result, in the same worker: what lies between never leaves it. The
    /// result is the kernel's first argument, `rest` are the others. If the first kernel fails the
    /// second does not run.
    pub fn then<H, B, Q, R>(self, kernel: H, rest: B) -> JobBuilder<'e, Chain<G, H, Q, R>, (A, B)>
    where
        H: Kernel<Q, R>,
        Q: SplitFirst,
        B: Args<'static, Q::Rest>,
        R: Reply,
        <G::Reply as Reply>::Out: Arg<'static, Q::First>,
    {
        // A name for its type: it has no bytes.
        let _ = kernel;
        JobBuilder {
            engine: self.engine,
            args: (self.args, rest),
            terms: self.terms,
            seed: self.seed,
            program: PhantomData,
        }
    }

    /// How long the job may run. If it has not ended then, its worker is killed and replaced, and the
    /// job answers [`DeadlineExceeded`](JobErrorKind::DeadlineExceeded), or is tried again if it has
    /// [`retries`](JobBuilder::retries): each attempt has this time. Waiting for a worker does not count,
    /// waking one does.
    ///
    /// Where workers have several [`lanes`](super::Builder::lanes) the job has a worker to itself, and waits for one, so that
    /// nothing is lost with it; unless [`share_deadlines`](super::Builder::share_deadlines) says otherwise.
    pub fn deadline(mut self, limit: Duration) -> Self {
        self.terms.deadline = Some(limit);
        self
    }

    /// Runs the job again, up to this many times, if it panics, exceeds its deadline, or takes its worker
    /// with it. What the kernel returns is its answer, an `Err` included, unless [`retry_errors`](JobBuilder::retry_errors)
    /// says otherwise.
    ///
    /// Only for arguments that the job cannot change:
    ///
    /// ```compile_fail,E0277
    /// # let engine = arenite::Engine::inline();
    /// use arenite::ArrayMut;
    ///
    /// fn sort(mut values: ArrayMut<u32>) -> ArrayMut<u32> {
    ///     values.sort_unstable();
    ///     values
    /// }
    ///
    /// let values = engine.zeros::<u32>(10).unwrap();
    /// let job = engine.job(sort, (values,)).retries(1);
    /// ```
    ///
    /// and so in each link of a chain:
    ///
    /// ```compile_fail,E0277
    /// # let engine = arenite::Engine::inline();
    /// use arenite::ArrayMut;
    ///
    /// fn count() -> u32 {
    ///     10
    /// }
    /// fn fill(by: u32, mut values: ArrayMut<u32>) -> ArrayMut<u32> {
    ///     values.fill(by);
    ///     values
    /// }
    ///
    /// let values = engine.zeros::<u32>(10).unwrap();
    /// let job = engine.job(count, ()).then(fill, (values,)).retries(1);
    /// ```
    ///
    /// The error that is finally given is that of the last attempt; [`JobError::deaths`] lists those
    /// before it. A job that has cost too many workers is given up before its retries are used up:
    /// [`quarantine_after`](super::Builder::quarantine_after).
    #[doc(alias = "max_retries")]
    pub fn retries(mut self, retries: u32) -> Self
    where
        A: RetrySafe,
    {
        self.terms.retries = retries;
        self
    }

    /// With [`retries`](JobBuilder::retries): they are also for the `Err`s that the kernel returns. For kernels that ask
    /// somebody else, a server or a disk, who may answer the next time; one that only computes would return the same again.
    ///
    /// The worker lives on, so such attempts bring no job into quarantine. An error of the arena
    /// ([`ArenaFull`](JobErrorKind::ArenaFull)) is none of these. An inline engine tries each job once.
    ///
    /// ```standalone_crate
    /// use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
    /// use arenite::{Backoff, Engine, JobErrorKind};
    ///
    /// /// In the worker: a server that is busy at first.
    /// static ASKED: AtomicU32 = AtomicU32::new(0);
    ///
    /// fn fetch(patience: u32) -> Result<u32, String> {
    ///     match ASKED.fetch_add(1, Relaxed) {
    ///         n if n < patience => Err(format!("503, for the {n}th time")),
    ///         n => Ok(n),
    ///     }
    /// }
    ///
    /// arenite::init();
    /// let engine = Engine::builder().workers(1).build()?;
    /// let fetch = |patience| {
    ///     let job = engine.job(fetch, (patience,)).retries(3).retry_errors();
    ///     job.backoff(Backoff::NONE).submit()
    /// };
    /// assert_eq!(fetch(2).wait()?, 2);
    /// let error = fetch(100).wait().unwrap_err();
    /// assert_eq!((error.attempt(), error.deaths().len()), (4, 3));
    /// assert_eq!(*error.kind(), JobErrorKind::Returned("503, for the 6th time".into()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "autoretry_for")]
    pub fn retry_errors(mut self) -> Self {
        self.terms.retry_errors = true;
        self
    }

    /// The pauses between attempts; by default 10 ms, doubling up to a second.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.terms.backoff = backoff;
        self
    }

    /// Which of the jobs that wait goes first.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.terms.priority = priority;
        self
    }

    /// Draws the random numbers of a job with this seed.
    pub(super) fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Each attempt needs a permit of this limiter, and waits for it in the engine: see [`Limiter`].
    pub fn limit(mut self, limiter: &Limiter) -> Self {
        self.terms.limit = Some(Limit::of_this_thread(limiter));
        self
    }

    /// Runs it in this thread.
    pub(super) fn run_here(self) -> Job<<G::Reply as Reply>::Out>
    where
        G: Loads<A>,
    {
        let ran = run_program::<G, A>(self.engine, self.args, &self.terms, self.seed);
        Job::here(ran)
    }

    /// All terms at once, from somebody who has seen that the job may run again if they say so.
    pub(super) fn terms(mut self, terms: &Terms) -> Self {
        self.terms = terms.clone();
        self
    }

    /// Submits it. Where there is a ceiling ([`admission`](super::Builder::admission)), waits until the job is let in; in
    /// `async` code say [`submit_async`](JobBuilder::submit_async) there.
    pub fn submit(self) -> Job<<G::Reply as Reply>::Out>
    where
        G: Loads<A>,
    {
        let Some(shared) = self.engine.shared() else {
            return self.run_here();
        };
        let mut call = CallWriter(ArgWriter::new(shared.arena.id()));
        G::load(self.args, &mut call);
        call.0.seed = self.seed;
        let id = shared.submit(&KernelInfo::of::<G>(), &mut call.0, 0, self.terms.asked());
        Job::sent::<G>(shared, id)
    }

    /// Submits it, if that takes no waiting; otherwise gives the arguments back.
    ///
    /// ```standalone_crate
    /// use arenite::{ArrayMut, Engine};
    ///
    /// fn hang() {
    ///     loop {
    ///         std::thread::park();
    ///     }
    /// }
    /// fn negate(mut image: ArrayMut<u8>) -> ArrayMut<u8> {
    ///     image.iter_mut().for_each(|x| *x = !*x);
    ///     image
    /// }
    ///
    /// arenite::init();
    /// let engine = Engine::builder().workers(1).admission(3 << 20).build()?;
    /// let image = engine.zeros(2 << 20)?;
    /// let running = engine.submit(hang, ());
    /// let refused = engine.job(negate, (image,)).try_submit().unwrap_err();
    /// let (image,) = refused.into_args();
    /// running.cancel_now();
    /// running.wait().unwrap_err();
    /// let negative = engine.job(negate, (image,)).submit().wait()?;
    /// assert_eq!(negative[0], 255);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Refused`]: the job would have to wait for [`admission`](super::Builder::admission), or memory is short. Everything
    /// else, as ever, arrives at [`Job::wait`].
    pub fn try_submit(self) -> Result<Job<<G::Reply as Reply>::Out>, Refused<A>>
    where
        G: Loads<A>,
    {
        let Some(shared) = self.engine.shared() else {
            return Ok(self.run_here());
        };
        let kernel = KernelInfo::of::<G>();
        let entry = match shared.try_enter(&kernel, G::held(&self.args)) {
            Ok(entry) => entry,
            Err(why) => {
                let args = Box::new(self.args);
                return Err(Refused { args, why });
            }
        };
        let mut call = CallWriter(ArgWriter::new(shared.arena.id()));
        G::load(self.args, &mut call);
        call.0.seed = self.seed;
        let id = shared.submit_entered(&kernel, &mut call.0, self.terms.asked(), entry);
        Ok(Job::sent::<G>(shared, id))
    }
}

/// Runs a program in this thread.
fn run_program<G, A>(
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

/// A job that was not let in, with its arguments: those of [`job`](Engine::job), and with each
/// [`then`](JobBuilder::then) the pair of what was there and the arguments of that.
pub struct Refused<A> {
    args: Box<A>,
    why: RefusedBy,
}

impl<A> Refused<A> {
    /// The arguments, as they were passed.
    pub fn into_args(self) -> A {
        *self.args
    }

    /// Why.
    pub fn why(&self) -> RefusedBy {
        self.why
    }
}

impl<A> fmt::Debug for Refused<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refused")
            .field("why", &self.why)
            .finish_non_exhaustive()
    }
}

impl<A> fmt::Display for Refused<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.why.fmt(f)
    }
}

impl<A> std::error::Error for Refused<A> {}

impl<G: Program, A> fmt::Debug for JobBuilder<'_, G, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobBuilder")
            .field("kernel", &G::name())
            .field("terms", &self.terms)
            .finish_non_exhaustive()
    }
}
