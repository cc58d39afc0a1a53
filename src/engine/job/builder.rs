//! A job under construction.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use super::Job;
use super::inline::run_program;
use crate::engine::submitting::PendingCall;
use crate::engine::{DeadLetter, Engine, JobFailure};
use crate::kernel::wire::ArgWriter;
use crate::kernel::{
    Accepts, Arg, Args, Bind, CallWriter, Chain, Kernel, KernelInfo, Program, Reply, RetrySafe,
    SplitFirst, captures_nothing, stored,
};
use crate::supervisor::{
    Backoff, JobError, JobOptions, Limiter, Owner, PermitSource, Permits, Priority, RefusedBy,
};

/// A job under construction: one kernel, or a chain of kernels that runs in one worker.
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
/// A job that hangs or ends its worker can be retried:
///
/// ```standalone_crate
/// use std::time::Duration;
/// use arenite::{Engine, JobErrorKind, JobLimit, Priority};
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
/// assert!(matches!(error.kind(), JobErrorKind::Limit(JobLimit::Deadline { .. })));
/// assert_eq!((error.attempt(), error.deaths().len()), (2, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// An inline engine runs the job once, on the caller's thread and without a deadline.
///
/// `RETRIES` says whether the job has [retries](JobOptions). `E` is its error type: a [`JobError`], or a [`DeadLetter`]
/// after [`keep_args`](Self::keep_args).
#[must_use = "a job under construction does nothing until it is submitted"]
pub struct JobBuilder<'e, G: Program, A, const RETRIES: bool = false, E: JobFailure = JobError> {
    pub(in crate::engine) engine: &'e Engine,
    /// The arguments as passed. Their type also decides whether the job may be retried.
    pub(in crate::engine) args: A,
    pub(in crate::engine) options: JobOptions,
    /// Seed of the job's random numbers. 0 means the next seed in the order of submission.
    pub(in crate::engine) seed: u64,
    /// Copies the part of the arguments that `E` keeps.
    retain: fn(&A) -> E::Retained,
    program: PhantomData<fn() -> G>,
}

impl<'e, G: Program, A> JobBuilder<'e, G, A> {
    pub(in crate::engine) fn first(engine: &'e Engine, args: A) -> Self {
        Self {
            engine,
            args,
            options: JobOptions::default(),
            seed: 0,
            retain: |_| (),
            program: PhantomData,
        }
    }
}

impl<'e, G: Program, A, const RETRIES: bool> JobBuilder<'e, G, A, RETRIES> {
    /// Runs `kernel` on the result, in the same worker, so that the intermediate value never leaves it.
    ///
    /// The result is the first argument of `kernel`; `rest` contains the other arguments. If the first kernel fails,
    /// the second does not run.
    #[allow(clippy::type_complexity, reason = "the chain that it is")]
    pub fn then<H, B, Q, R>(
        self,
        kernel: H,
        rest: B,
    ) -> JobBuilder<'e, Chain<G, H::Kernel, Q, R>, (A, H::Args), RETRIES>
    where
        H: Bind<B>,
        H::Kernel: Kernel<Q, R>,
        H::Args: Args<'static, Q::Rest> + Permits<RETRIES>,
        Q: SplitFirst,
        R: Reply,
        <G::Reply as Reply>::Out: Arg<'static, Q::First>,
    {
        const { captures_nothing::<H::Kernel>() };
        let (_, rest) = kernel.bind(rest);
        JobBuilder {
            engine: self.engine,
            args: (self.args, rest),
            options: self.options,
            seed: self.seed,
            retain: |_| (),
            program: PhantomData,
        }
    }

    /// Keeps a copy of the arguments until the job has ended, so that a failure returns them in a [`DeadLetter`]. The
    /// copy of an array is another handle.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// fn first(values: &[u8]) -> Result<u8, &'static str> {
    ///     values.first().copied().ok_or("empty")
    /// }
    ///
    /// let values = engine.from_slice::<u8>(&[])?;
    /// let letter = engine.job(first, (values,)).keep_args().submit().wait().unwrap_err();
    /// assert_eq!((letter.args.0.len(), letter.error.attempt()), (0, 1));
    /// assert!(letter.error.to_string().contains("empty"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn keep_args(self) -> JobBuilder<'e, G, A, RETRIES, DeadLetter<A>>
    where
        A: Clone,
    {
        JobBuilder {
            engine: self.engine,
            args: self.args,
            options: self.options,
            seed: self.seed,
            retain: A::clone,
            program: PhantomData,
        }
    }
}

impl<'e, G: Program, A, const RETRIES: bool, E: JobFailure> JobBuilder<'e, G, A, RETRIES, E> {
    fn with_mode<const OTHER: bool>(self, options: JobOptions) -> JobBuilder<'e, G, A, OTHER, E> {
        JobBuilder {
            engine: self.engine,
            args: self.args,
            options,
            seed: self.seed,
            retain: self.retain,
            program: PhantomData,
        }
    }

    fn with_options(mut self, change: impl FnOnce(&mut JobOptions)) -> Self {
        change(&mut self.options);
        self
    }

    /// Sets all options at once, and replaces all that were set earlier.
    pub fn options<const OTHER: bool>(
        self,
        options: &JobOptions<OTHER>,
    ) -> JobBuilder<'e, G, A, OTHER, E>
    where
        A: Permits<OTHER>,
    {
        let mut set: JobOptions = options.clone().with_mode();
        let limit = set.limit.take();
        set.limit = limit.map(|set| PermitSource::for_this_thread(set.limiter()));
        self.with_mode(set)
    }

    /// Runs the job again, up to `retries` times, if it panics, exceeds its deadline, or ends its worker: see
    /// [`JobOptions::retries`]. Requires arguments that the kernel cannot change:
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
    /// This holds for each kernel of a chain:
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
    /// including kernels that are added later:
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
    /// and for options set at once:
    ///
    /// ```compile_fail,E0308
    /// # let engine = arenite::Engine::inline();
    /// # use arenite::ArrayMut;
    /// # fn sort(mut values: ArrayMut<u32>) -> ArrayMut<u32> {
    /// #     values.sort_unstable();
    /// #     values
    /// # }
    /// # let values = engine.zeros::<u32>(10).unwrap();
    /// let twice = arenite::JobOptions::new().retries(1);
    /// let job = engine.job(sort, (values,)).options(&twice);
    /// ```
    #[doc(alias = "max_retries")]
    pub fn retries(self, retries: u32) -> JobBuilder<'e, G, A, true, E>
    where
        A: RetrySafe,
    {
        let mut options = self.options.clone();
        options.retries = retries;
        self.with_mode(options)
    }

    /// Also runs a job again if its kernel returns an `Err`: see [`JobOptions::retry_errors`].
    pub fn retry_errors(self) -> Self {
        self.with_options(|set| set.retry_errors = true)
    }

    /// Sets the pauses between attempts. Default: 10 ms, doubling up to a second.
    pub fn backoff(self, backoff: Backoff) -> Self {
        self.with_options(|set| set.backoff = backoff)
    }

    /// Limits the run time of each attempt: see [`JobOptions::deadline`].
    pub fn deadline(self, limit: Duration) -> Self {
        self.with_options(|set| set.deadline = Some(limit))
    }

    /// Sets the order in which waiting jobs start.
    pub fn priority(self, priority: Priority) -> Self {
        self.with_options(|set| set.priority = priority)
    }

    /// Names the job in errors, traces and reports: see [`JobOptions::label`].
    pub fn label(self, label: impl Into<Arc<str>>) -> Self {
        let label = label.into();
        self.with_options(|set| set.label = Some(label))
    }

    /// Requires a permit of this limiter for each attempt: see [`JobOptions::limit`].
    pub fn limit(self, limiter: &Limiter) -> Self {
        let limit = PermitSource::for_this_thread(limiter);
        self.with_options(|set| set.limit = Some(limit))
    }

    /// Names the function that the job runs, in place of its kernel: see [`JobOptions::name`].
    pub fn name(self, name: impl AsRef<str>) -> Self {
        let name = stored(name.as_ref());
        self.with_options(|set| set.name = name)
    }

    /// Sets the seed of the job's random numbers.
    pub(in crate::engine) fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Sets all options without checking that the arguments allow retries, for callers that have checked this.
    pub(in crate::engine) fn checked_options(mut self, options: &JobOptions) -> Self {
        self.options = options.clone();
        self
    }

    /// Runs the job on the caller's thread.
    pub(in crate::engine) fn run_inline(self) -> Job<<G::Reply as Reply>::Out, E>
    where
        G: Accepts<A>,
    {
        let retained = (self.retain)(&self.args);
        let ran = run_program::<G, A>(self.engine, self.args, &self.options, self.seed);
        Job::ended(ran, retained)
    }

    /// Submits the job. With [`max_in_flight_bytes`](crate::engine::Builder::max_in_flight_bytes) it blocks until the
    /// job is admitted; use [`submit_async`](JobBuilder::submit_async) in `async` code.
    pub fn submit(self) -> Job<<G::Reply as Reply>::Out, E>
    where
        G: Accepts<A>,
    {
        self.submit_noting(|_| {})
    }

    /// Like [`submit`](Self::submit). Shows the call to `note` first.
    pub(in crate::engine) fn submit_noting(
        self,
        note: impl FnOnce(&ArgWriter),
    ) -> Job<<G::Reply as Reply>::Out, E>
    where
        G: Accepts<A>,
    {
        let Some(shared) = self.engine.supervisor() else {
            return self.run_inline();
        };
        let retained = (self.retain)(&self.args);
        let mut call = CallWriter(ArgWriter::new(shared.arena.id()));
        G::send(self.args, &mut call);
        call.0.seed = self.seed;
        note(&call.0);
        let id = shared.submit(
            &KernelInfo::of::<G>().named(self.options.name),
            &mut call.0,
            Owner::Handle,
            self.options.if_set(),
        );
        Job::submitted(shared, id, G::Reply::receive, retained)
    }

    /// Submits the job if it need not wait; otherwise returns the arguments.
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
    /// let engine = Engine::builder().workers(1).max_in_flight_bytes(3 << 20).build()?;
    /// let image = engine.zeros(2 << 20)?;
    /// let running = engine.submit(hang, ());
    /// let refused = engine.job(negate, (image,)).try_submit().unwrap_err();
    /// let (image,) = *refused.args;
    /// running.kill();
    /// running.wait().unwrap_err();
    /// let negative = engine.job(negate, (image,)).submit().wait()?;
    /// assert_eq!(negative[0], 255);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Refused`]: the job would have to wait because of
    /// [`max_in_flight_bytes`](crate::engine::Builder::max_in_flight_bytes), or memory is short. [`Job::wait`] returns
    /// all other errors.
    pub fn try_submit(self) -> Result<Job<<G::Reply as Reply>::Out, E>, Refused<A>>
    where
        G: Accepts<A>,
    {
        let Some(shared) = self.engine.supervisor() else {
            return Ok(self.run_inline());
        };
        let kernel = KernelInfo::of::<G>().named(self.options.name);
        let held = G::bytes_held(&self.args);
        // Before admission: copying may panic.
        let retained = (self.retain)(&self.args);
        let entry = match shared.try_admit_job(&kernel, held) {
            Ok(entry) => entry,
            Err(why) => {
                let args = Box::new(self.args);
                return Err(Refused { args, why });
            }
        };
        let mut call = CallWriter(ArgWriter::new(shared.arena.id()));
        G::send(self.args, &mut call);
        call.0.seed = self.seed;
        let id = shared.submit_admitted_job(&kernel, &mut call.0, self.options.if_set(), entry);
        Ok(Job::submitted(shared, id, G::Reply::receive, retained))
    }

    /// Writes the call of a job that may have to wait for admission. Returns it with the copy of the arguments that a
    /// failure contains. `copies`: the number of handles to each array that the caller keeps until the job has ended.
    pub(in crate::engine) fn into_pending(
        self,
        arena: u64,
        copies: usize,
    ) -> (PendingCall, E::Retained)
    where
        G: Accepts<A>,
    {
        let retained = (self.retain)(&self.args);
        let mut call = CallWriter(ArgWriter::new(arena));
        G::send(self.args, &mut call);
        (call.0.seed, call.0.kept) = (self.seed, copies);
        let pending = PendingCall {
            kernel: KernelInfo::of::<G>(),
            call: call.0,
            target: Owner::Handle.into(),
            options: self.options,
        };
        (pending, retained)
    }
}

/// A job that was not admitted, with its arguments: those of [`job`](Engine::job). Each [`then`](JobBuilder::then)
/// makes them a pair of the earlier arguments and the arguments of `then`.
#[non_exhaustive]
pub struct Refused<A> {
    /// The arguments, as they were passed.
    pub args: Box<A>,
    /// Why the engine refused the job.
    pub why: RefusedBy,
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

impl<G: Program, A, const RETRIES: bool, E: JobFailure> fmt::Debug
    for JobBuilder<'_, G, A, RETRIES, E>
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobBuilder")
            .field("kernel", &G::name())
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
