//! A job under construction.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use super::Job;
use super::here::run_program;
use crate::engine::{Backoff, Engine, Limiter, Priority};
use crate::kernel::wire::ArgWriter;
use crate::kernel::{
    Accepts, Arg, Args, CallWriter, Chain, Kernel, KernelInfo, Program, Reply, RetrySafe,
    SplitFirst,
};
use crate::supervisor::{Limit, RefusedBy, Terms};

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
pub struct JobBuilder<'e, G: Program, A, T = Once> {
    pub(in crate::engine) engine: &'e Engine,
    /// What was passed, which also decides whether the job may run again.
    pub(in crate::engine) args: A,
    pub(in crate::engine) terms: Terms,
    /// Which random numbers it draws; 0: the next in the order of submission.
    pub(in crate::engine) seed: u64,
    program: PhantomData<fn() -> (G, T)>,
}

/// A [`JobBuilder`] on which [`retries`](JobBuilder::retries) was not called.
#[derive(Debug)]
pub enum Once {}

/// A [`JobBuilder`] on which [`retries`](JobBuilder::retries) was called.
#[derive(Debug)]
pub enum Again {}

/// Arguments that a job of this kind may have: [any](Once), or those that it [only reads](Again).
pub trait FitFor<T> {}

impl<A> FitFor<Once> for A {}

impl<A: RetrySafe> FitFor<Again> for A {}

impl<'e, G: Program, A> JobBuilder<'e, G, A> {
    pub(in crate::engine) fn first(engine: &'e Engine, args: A) -> Self {
        Self {
            engine,
            args,
            terms: Terms::default(),
            seed: 0,
            program: PhantomData,
        }
    }
}

impl<'e, G: Program, A, T> JobBuilder<'e, G, A, T> {
    /// Then runs `kernel` on the result, in the same worker: what lies between never leaves it. The
    /// result is the kernel's first argument, `rest` are the others. If the first kernel fails the
    /// second does not run.
    pub fn then<H, B, Q, R>(
        self,
        kernel: H,
        rest: B,
    ) -> JobBuilder<'e, Chain<G, H, Q, R>, (A, B), T>
    where
        H: Kernel<Q, R>,
        Q: SplitFirst,
        B: Args<'static, Q::Rest> + FitFor<T>,
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
    /// job answers [`DeadlineExceeded`](crate::engine::JobErrorKind::DeadlineExceeded), or is tried again if it has
    /// [`retries`](JobBuilder::retries): each attempt has this time. Waiting for a worker does not count,
    /// waking one does; nor does time in which the whole program is stopped. A job that has no time at all is not sent. Programs
    /// that the kernel has started are not ended with it.
    ///
    /// Where workers have several [`lanes`](crate::engine::Builder::lanes) the job has a worker to itself, and waits for one, so that
    /// no job is lost with it; unless [`share_deadlines`](crate::engine::Builder::share_deadlines) says otherwise. The states of
    /// [actors](crate::engine::Engine::actor) are lost with their worker, as they are in an engine with single lanes: with several
    /// lanes a worker without any is taken where one is free.
    pub fn deadline(mut self, limit: Duration) -> Self {
        self.terms.deadline = Some(limit);
        self
    }

    /// Runs the job again, up to this many times (0: never), if it panics, exceeds its deadline, or takes its worker
    /// with it. What the kernel returns is its answer, an `Err` included, unless [`retry_errors`](JobBuilder::retry_errors)
    /// says otherwise. A job whose arrays [escaped](crate::JobErrorKind::Escaped) is not run again, nor one that fails once the engine
    /// [shuts down](crate::Engine::shutdown). One that was lost to another job of its worker
    /// ([`LostWith`](crate::JobErrorKind::LostWith)) runs again then too, without using up one of these, as often as
    /// [`quarantine_after`](crate::engine::Builder::quarantine_after) says.
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
    /// also in those that come after:
    ///
    /// ```compile_fail,E0277
    /// # let engine = arenite::Engine::inline();
    /// # use arenite::ArrayMut;
    /// # fn count() -> u32 {
    /// #     10
    /// # }
    /// # fn fill(by: u32, mut values: ArrayMut<u32>) -> ArrayMut<u32> {
    /// #     values.fill(by);
    /// #     values
    /// # }
    /// # let values = engine.zeros::<u32>(10).unwrap();
    /// let job = engine.job(count, ()).retries(1).then(fill, (values,));
    /// ```
    ///
    /// The error that is finally given is that of the last attempt; [`JobError::deaths`](crate::engine::JobError::deaths) lists those
    /// before it. A job that has cost too many workers is given up before its retries are used up:
    /// [`quarantine_after`](crate::engine::Builder::quarantine_after).
    #[doc(alias = "max_retries")]
    pub fn retries(self, retries: u32) -> JobBuilder<'e, G, A, Again>
    where
        A: RetrySafe,
    {
        JobBuilder {
            engine: self.engine,
            args: self.args,
            terms: Terms {
                retries,
                ..self.terms
            },
            seed: self.seed,
            program: PhantomData,
        }
    }

    /// With [`retries`](JobBuilder::retries): they are also for the `Err`s that the kernel returns. For kernels that ask
    /// somebody else, a server or a disk, who may answer the next time; one that only computes would return the same again.
    ///
    /// The worker lives on, so such attempts bring no job into quarantine. An error of the arena
    /// ([`ArenaFull`](crate::engine::JobErrorKind::ArenaFull)) is none of these. An inline engine tries each job once. Without retries
    /// this changes nothing.
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

    /// The pauses between attempts; by default 10 ms, doubling up to a second. Without retries there are none.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.terms.backoff = backoff;
        self
    }

    /// Which of the jobs that wait goes first.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.terms.priority = priority;
        self
    }

    /// What people call this job: the file that it reads, or the customer whom it serves. Its errors, the traces and the reports have it
    /// beside the kernel's name; of inline engines the errors alone.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// fn decode(file: &str) -> Result<u32, String> {
    ///     Err(format!("{} bytes are no picture", file.len()))
    /// }
    ///
    /// let job = engine.job(decode, ("…",)).label("holiday/3.jpg").submit();
    /// let error = job.wait().unwrap_err();
    /// assert_eq!(error.label(), Some("holiday/3.jpg"));
    /// assert!(error.to_string().contains("\"holiday/3.jpg\""), "{error}");
    /// ```
    pub fn label(mut self, label: impl Into<Arc<str>>) -> Self {
        self.terms.label = Some(label.into());
        self
    }

    /// Draws the random numbers of a job with this seed.
    pub(in crate::engine) fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Each attempt needs a permit of this limiter, and waits for it in the engine: see [`Limiter`]. This thread is the caller
    /// that takes turns with others, unless [the handle says who is](Limiter::caller). A job has one limiter: said again, the last
    /// one counts.
    pub fn limit(mut self, limiter: &Limiter) -> Self {
        self.terms.limit = Some(Limit::of_this_thread(limiter));
        self
    }

    /// Runs it in this thread.
    pub(in crate::engine) fn run_here(self) -> Job<<G::Reply as Reply>::Out>
    where
        G: Accepts<A>,
    {
        let ran = run_program::<G, A>(self.engine, self.args, &self.terms, self.seed);
        Job::here(ran)
    }

    /// All terms at once, from somebody who has seen that the job may run again if they say so.
    pub(in crate::engine) fn terms(mut self, terms: &Terms) -> Self {
        self.terms = terms.clone();
        self
    }

    /// Submits it. Where there is a ceiling ([`admission`](crate::engine::Builder::admission)), waits until the job is let in; in
    /// `async` code say [`submit_async`](JobBuilder::submit_async) there.
    pub fn submit(self) -> Job<<G::Reply as Reply>::Out>
    where
        G: Accepts<A>,
    {
        let Some(shared) = self.engine.shared() else {
            return self.run_here();
        };
        let mut call = CallWriter(ArgWriter::new(shared.arena.id()));
        G::send(self.args, &mut call);
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
    /// [`Refused`]: the job would have to wait for [`admission`](crate::engine::Builder::admission), or memory is short. Everything
    /// else, as ever, arrives at [`Job::wait`].
    pub fn try_submit(self) -> Result<Job<<G::Reply as Reply>::Out>, Refused<A>>
    where
        G: Accepts<A>,
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
        G::send(self.args, &mut call);
        call.0.seed = self.seed;
        let id = shared.submit_entered(&kernel, &mut call.0, self.terms.asked(), entry);
        Ok(Job::sent::<G>(shared, id))
    }
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
        fmt::Display::fmt(self, f)
    }
}

impl<A> fmt::Display for Refused<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.why.fmt(f)
    }
}

impl<A> std::error::Error for Refused<A> {}

impl<G: Program, A, T> fmt::Debug for JobBuilder<'_, G, A, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobBuilder")
            .field("kernel", &G::name())
            .field("terms", &self.terms)
            .finish_non_exhaustive()
    }
}
