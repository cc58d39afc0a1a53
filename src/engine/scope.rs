//! Scopes: their jobs may borrow, and all of them have ended when the scope returns.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use super::job::{held, permit, run_kernel};
use super::seeds::Series;
use super::{Backend, Canceller, Engine, JobError, JobErrorKind};
use crate::kernel::wire::ArgWriter;
use crate::kernel::{
    Args, Bind, CallWriter, Kernel, KernelInfo, Params, Reply, Single, captures_nothing,
    kernel_name,
};
use crate::supervisor::{Failed, Flight, Group, JobId, JobOptions, Owner, Read, Supervisor};

/// Submits jobs that may borrow for `'env`: see [`Engine::scope`].
pub struct Scope<'env> {
    engine: &'env Engine,
    /// The group of the scope's jobs, which are cancelled together.
    group: Option<Group>,
    series: Series,
    /// Number of jobs submitted so far.
    jobs: Cell<u64>,
    /// Jobs whose results have not been taken, by index in the scope.
    open: RefCell<BTreeMap<u64, JobId>>,
    /// Jobs whose handles were dropped.
    dropped: RefCell<Dropped>,
    failures: RefCell<Failures>,
    canceller: Canceller,
    /// Makes `'env` invariant: the scope neither shortens nor extends the borrows of its jobs.
    lent: PhantomData<Cell<&'env mut ()>>,
}

/// Jobs whose handles were dropped, so that only the scope waits for them.
#[derive(Default)]
struct Dropped {
    /// The jobs, in the order in which their handles were dropped.
    jobs: Flight<usize, ()>,
    /// When `jobs` has this length, it is scanned for jobs that have ended.
    scan_at: usize,
}

/// The minimum number of jobs for which a scan is worthwhile.
const SCAN_AT_LEAST: usize = 16;

/// The failures that a scope returns.
pub(super) enum Failures {
    /// The first failure.
    First(Option<JobError>),
    /// All failures.
    All(Vec<JobError>),
}

impl Failures {
    fn note(&mut self, error: &JobError, culprit: Option<u64>) {
        match self {
            // Retains the failure of the job that cancelled the others: other failures may be consequences. If a call
            // has cancelled them, retains the failure of the job that was submitted first, preferably no cancellation.
            Self::First(known) => {
                let rank = |error: &JobError| {
                    let is_cancelled = *error.kind() == JobErrorKind::Cancelled;
                    (error.job() != culprit, is_cancelled, error.job())
                };
                if known.as_ref().is_none_or(|known| rank(error) < rank(known)) {
                    *known = Some(error.clone());
                }
            }
            Self::All(errors) => errors.push(error.clone()),
        }
    }
}

impl Engine {
    /// Runs `f`, which submits jobs that borrow tiles of arrays, or whole arrays to change in place. Returns when all
    /// of these jobs have ended.
    ///
    /// The first failure cancels the other jobs, and is the result of the scope. Jobs that have not started never
    /// start. Running jobs are asked to stop ([`cancelled`](crate::cancelled)); after the
    /// [`grace`](super::Builder::grace) period their workers are killed and replaced. So no job outlives its scope, and
    /// a cancelled scope ends soon. With [`scope_collect`](Engine::scope_collect) the other jobs continue.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// use arenite::TileMut;
    ///
    /// fn fill(mut tile: TileMut<'_, u32>, by: u32) {
    ///     let first = tile.rows().start as u32;
    ///     for (i, x) in tile.iter_mut().enumerate() {
    ///         *x = by * (first + i as u32);
    ///     }
    /// }
    ///
    /// let mut out = engine.zeros(6)?;
    /// engine.scope(|s| {
    ///     for tile in out.tiles_mut(2) {
    ///         s.submit(fill, (tile, 10));
    ///     }
    /// })?;
    /// assert_eq!(out[..], [0, 10, 20, 30, 40, 50]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// The scope returns the value of `f` after all jobs have ended, even if that value is an `Err`. With
    /// [`scope_try`](Engine::scope_try) such an error cancels the jobs, as in a task group of anyio or asyncio.
    ///
    /// A scope blocks the calling thread, because the borrowed arrays must not move meanwhile. In `async` code, await
    /// [`Job`](super::Job)s, which are futures, or iterate over [`map(…).stream()`](super::Map::stream); or run a scope
    /// on a thread of its own (`spawn_blocking` of tokio, `unblock` of smol).
    ///
    /// Borrowed arrays cannot be used before the scope has ended:
    ///
    /// ```compile_fail,E0506
    /// # fn fill(_: arenite::TileMut<'_, u32>) {}
    /// # let engine = arenite::Engine::inline();
    /// let mut out = engine.zeros(6).unwrap();
    /// engine.scope(|s| {
    ///     for tile in out.tiles_mut(2) {
    ///         s.submit(fill, (tile,));
    ///     }
    ///     out = engine.zeros(1).unwrap();
    /// });
    /// ```
    ///
    /// A job outside a scope cannot borrow a tile, because nothing would keep the array alive:
    ///
    /// ```compile_fail,E0597
    /// # fn fill(_: arenite::TileMut<'_, u32>) {}
    /// # let engine = arenite::Engine::inline();
    /// let mut out = engine.zeros(6).unwrap();
    /// for tile in out.tiles_mut(2) {
    ///     engine.submit(fill, (tile,)).detach();
    /// }
    /// ```
    ///
    /// # Errors
    /// The first failure of a job. It contains the rows that a dead worker may have written
    /// ([`JobError::unspecified_rows`]).
    ///
    /// # Panics
    /// In a waker that a thread of the engine calls: the engine cannot go on until the waker has returned.
    #[doc(alias("TaskGroup", "nursery", "create_task_group"))]
    pub fn scope<'env, T>(&'env self, f: impl FnOnce(&Scope<'env>) -> T) -> Result<T, JobError> {
        match self.run_scope(self.seeds.series(), Failures::First(None), f) {
            (_, Failures::First(Some(error))) => Err(error),
            (value, _) => Ok(value),
        }
    }

    /// Like [`scope`](Engine::scope), for an `f` that can fail and use `?`: its `Err` cancels the jobs, like the
    /// failure of a job. The scope returns whichever error came first: that of `f`, or that of a job, converted to `E`.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// use std::io;
    /// use arenite::TileMut;
    ///
    /// fn fill(mut tile: TileMut<'_, u8>, with: &str) {
    ///     tile.fill(with.as_bytes()[0]);
    /// }
    ///
    /// let mut out = engine.zeros::<u8>(4)?;
    /// let result: Result<(), Box<dyn std::error::Error>> = engine.scope_try(|s| {
    ///     for (tile, name) in out.tiles_mut(2).zip(["Cargo.toml", "no such file"]) {
    ///         let text = std::fs::read_to_string(name)?;
    ///         s.submit(fill, (tile, text));
    ///     }
    ///     Ok(())
    /// });
    /// let error = result.unwrap_err();
    /// assert_eq!(error.downcast_ref::<io::Error>().unwrap().kind(), io::ErrorKind::NotFound);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The error of `f`, unless a job had failed earlier; otherwise like [`scope`](Engine::scope).
    #[doc(alias = "TaskGroup")]
    pub fn scope_try<'env, T, E>(
        &'env self,
        f: impl FnOnce(&Scope<'env>) -> Result<T, E>,
    ) -> Result<T, E>
    where
        E: From<JobError>,
    {
        let series = self.seeds.series();
        let (ended, failures) = self.run_scope(series, Failures::First(None), |scope| {
            let result = f(scope);
            // After the failure of a job, an error of `f` is probably a consequence of that failure.
            let own = result.is_err() && !scope.has_failed();
            if own {
                scope.cancel();
            }
            (result, own)
        });
        match (ended, failures) {
            ((_, false), Failures::First(Some(error))) => Err(error.into()),
            ((result, _), _) => result,
        }
    }

    /// Like [`scope`](Engine::scope), but a failure does not cancel the other jobs: all of them run. Returns the value
    /// of `f` and all errors, in the order of submission. Only [`Scope::cancel`] ends the jobs of such a scope early.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// fn halve(x: u32) -> Result<u32, String> {
    ///     if x % 2 == 0 { Ok(x / 2) } else { Err(format!("{x} is odd")) }
    /// }
    ///
    /// let (halves, errors) = engine.scope_collect(|s| {
    ///     let jobs: Vec<_> = (1..=4).map(|x| s.submit(halve, (x,))).collect();
    ///     jobs.into_iter().filter_map(|job| job.wait().ok()).collect::<Vec<_>>()
    /// });
    /// assert_eq!(halves, [1, 2]);
    /// assert_eq!(errors.len(), 2);
    /// assert!(errors[0].to_string().contains("1 is odd"));
    /// ```
    #[doc(alias = "TaskGroup")]
    pub fn scope_collect<'env, T>(
        &'env self,
        f: impl FnOnce(&Scope<'env>) -> T,
    ) -> (T, Vec<JobError>) {
        let (value, failures) = self.run_scope(self.seeds.series(), Failures::All(Vec::new()), f);
        let mut errors = match failures {
            Failures::All(errors) => errors,
            Failures::First(error) => Vec::from_iter(error),
        };
        // The errors were recorded in the order in which the jobs ended.
        errors.sort_by_key(JobError::job);
        (value, errors)
    }

    /// Runs `f` in a scope whose jobs draw random numbers of this series.
    ///
    /// # Panics
    /// In a waker that this engine's monitor calls, where the scope could not wait for its jobs.
    pub(super) fn run_scope<'env, T>(
        &'env self,
        series: Series,
        failures: Failures,
        f: impl FnOnce(&Scope<'env>) -> T,
    ) -> (T, Failures) {
        let collects = matches!(failures, Failures::All(_));
        let group = self.supervisor().map(|shared| {
            shared.assert_may_wait();
            shared.new_group(collects)
        });
        let scope = Scope {
            engine: self,
            group,
            series,
            jobs: Cell::new(0),
            open: RefCell::default(),
            dropped: RefCell::default(),
            failures: RefCell::new(failures),
            canceller: Canceller::new(self.supervisor().map(Arc::clone).zip(group)),
            lent: PhantomData,
        };
        // When this value is dropped, it waits for open jobs, even if `f` panics.
        let ending = Ending {
            scope: &scope,
            was_panicking: std::thread::panicking(),
        };
        let value = f(&scope);
        drop(ending);
        (value, scope.failures.into_inner())
    }
}

/// Waits for the jobs of a scope on drop; cancels them first if `f` panicked.
struct Ending<'s, 'env> {
    scope: &'s Scope<'env>,
    /// Whether the scope runs in a destructor while its thread unwinds: then the panic did not come from `f`.
    was_panicking: bool,
}

impl Drop for Ending<'_, '_> {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.was_panicking {
            self.scope.cancel();
        }
        self.scope.join();
    }
}

/// Ends the process when it is dropped. While this exists, a panic must not leave the function: jobs of a scope that
/// the scope does not know, or does not wait for, write to memory that the caller gets back.
struct NoUnwinding;

impl Drop for NoUnwinding {
    fn drop(&mut self) {
        std::process::abort();
    }
}

impl<'env> Scope<'env> {
    /// Runs a kernel in a worker, on arguments that may borrow for `'env`. With
    /// [`max_in_flight_bytes`](crate::engine::Builder::max_in_flight_bytes) it blocks until the job is admitted or the
    /// scope is cancelled. See [`Engine::scope`] for an example.
    pub fn submit<F, A, P, R>(&self, kernel: F, args: A) -> ScopedJob<'_, 'env, R::Out>
    where
        F: Bind<A>,
        F::Kernel: Kernel<P, R>,
        F::Args: Args<'env, P>,
        P: Params,
        R: Reply,
    {
        const { captures_nothing::<F::Kernel>() };
        self.submit_with(&JobOptions::default(), kernel, args)
    }

    /// Like [`submit`](Self::submit), with options: a deadline, a priority, a limiter, a label or a name.
    ///
    /// The job may change memory that is lent to it, so it has no retries. If it is killed, that memory is unspecified,
    /// and the error lists it. A scope waits for its jobs, and so for their permits; a cancelled scope does not wait
    /// for permits, and an inline engine does not run its remaining jobs.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// use arenite::{JobOptions, Limiter, TileMut};
    ///
    /// fn fill(mut tile: TileMut<'_, u32>) {
    ///     tile.iter_mut().for_each(|x| *x = 7);
    /// }
    ///
    /// let two = JobOptions::new().limit(&Limiter::new().concurrency(2));
    /// let mut out = engine.zeros::<u32>(100)?;
    /// engine.scope(|s| {
    ///     for tile in out.tiles_mut(10) {
    ///         s.submit_with(&two, fill, (tile,));
    ///     }
    /// })?;
    /// assert_eq!(out[..], [7; 100]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// Submit jobs that only read with [`Engine::job`], which may be [retried](super::JobBuilder::retries):
    ///
    /// ```compile_fail,E0308
    /// # let engine = arenite::Engine::inline();
    /// use arenite::{JobOptions, TileMut};
    ///
    /// fn fill(mut tile: TileMut<'_, u32>) {
    ///     tile.fill(7);
    /// }
    ///
    /// let mut values = engine.zeros::<u32>(10).unwrap();
    /// engine.scope(|s| {
    ///     for tile in values.tiles_mut(5) {
    ///         s.submit_with(&JobOptions::new().retries(1), fill, (tile,));
    ///     }
    /// });
    /// ```
    pub fn submit_with<F, A, P, R>(
        &self,
        options: &JobOptions,
        kernel: F,
        args: A,
    ) -> ScopedJob<'_, 'env, R::Out>
    where
        F: Bind<A>,
        F::Kernel: Kernel<P, R>,
        F::Args: Args<'env, P>,
        P: Params,
        R: Reply,
    {
        const { captures_nothing::<F::Kernel>() };
        // Only the type of the kernel is used: its value has no bytes.
        let (_, args) = kernel.bind(args);
        let index = self.jobs.replace(self.jobs.get() + 1);
        let state = match &self.engine.backend {
            Backend::Inline => {
                let run = || self.run_inline::<F::Kernel, _, P, R>(options, index, args);
                let result = run().map_err(|error| error.named_by(options));
                if let Err(error) = &result {
                    self.note(error);
                }
                Scoped::Inline(result)
            }
            Backend::Workers(workers) => {
                let shared = &workers.shared;
                let mut call = CallWriter(ArgWriter::new(shared.arena.id()));
                args.send(&mut call);
                call.0.seed = self.series.seed(index);
                let kernel = KernelInfo::of::<Single<F::Kernel, P, R>>().named(options.name);
                let owner = self.group.map_or(Owner::Handle, Owner::scope);
                let guard = NoUnwinding;
                let id = shared.submit(&kernel, &mut call.0, owner, options.if_set());
                self.open.borrow_mut().insert(index, id);
                std::mem::forget(guard);
                self.forget_dropped(shared, &kernel);
                Scoped::Sent {
                    shared,
                    index,
                    id,
                    read: R::receive,
                }
            }
        };
        ScopedJob {
            scope: self,
            state: Some(state),
        }
    }

    fn run_inline<F, A, P, R>(
        &self,
        options: &JobOptions,
        index: u64,
        args: A,
    ) -> Result<R::Out, JobError>
    where
        F: Kernel<P, R>,
        A: Args<'env, P>,
        P: Params,
        R: Reply,
    {
        let name = kernel_name::<F>();
        let held = held::<P>(name, args);
        let cancelled = || match self.is_over() {
            true => Err(JobError::from(Failed::new(
                JobErrorKind::Cancelled,
                name,
                0,
            ))),
            false => Ok(()),
        };
        cancelled()?;
        let _permit = permit(&options.limit, name)?;
        // Another thread may have cancelled the scope while this thread waited.
        cancelled()?;
        let _job = self.series.begin_inline(index);
        held.and_then(run_kernel::<F, P, R>)
    }

    /// Options for a job of this crate that overwrites all memory that is lent to it and does not read it first: then
    /// it makes no difference what a dead attempt has written.
    pub(super) fn writes_all(&self, retries: u32) -> JobOptions {
        JobOptions {
            retries,
            ..JobOptions::default()
        }
    }

    /// Options for a job that runs in a worker without other jobs, like a job with a deadline, so that only the job
    /// itself can end that worker. They have no effect with
    /// [`co_schedule_deadlines`](super::Builder::co_schedule_deadlines).
    pub(super) fn exclusive(&self, exclusive: bool) -> JobOptions {
        let lanes = |shared: &Arc<Supervisor>| shared.active_lanes() > shared.active_workers();
        let is_needed = exclusive && self.engine.supervisor().is_some_and(lanes);
        JobOptions {
            // A deadline beyond the range of the clock never expires.
            deadline: is_needed.then_some(Duration::MAX),
            ..JobOptions::default()
        }
    }

    /// Cancels all jobs of the scope, including jobs that are submitted later. Jobs that have not started fail with
    /// [`Cancelled`](JobErrorKind::Cancelled). Running jobs are asked to stop; after the
    /// [`grace`](super::Builder::grace) period their workers are killed.
    ///
    /// ```standalone_crate
    /// use std::time::Duration;
    /// use arenite::{Engine, JobErrorKind};
    ///
    /// fn hang() {
    ///     loop {
    ///         std::thread::park();
    ///     }
    /// }
    ///
    /// arenite::init();
    /// let engine = Engine::builder().workers(2).grace(Duration::from_millis(20)).build()?;
    /// let result = engine.scope(|s| {
    ///     (0..100).for_each(|_| drop(s.submit(hang, ())));
    ///     s.cancel();
    /// });
    /// assert_eq!(*result.unwrap_err().kind(), JobErrorKind::Cancelled);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn cancel(&self) {
        self.canceller.cancel();
    }

    /// Returns a handle that cancels this scope from another thread, such as a timer, a handler of Ctrl-C, or a server
    /// whose client has disconnected.
    ///
    /// ```standalone_crate
    /// use std::{thread, time::Duration};
    /// use arenite::{Engine, JobErrorKind};
    ///
    /// fn hang() {
    ///     loop {
    ///         thread::park();
    ///     }
    /// }
    ///
    /// arenite::init();
    /// let engine = Engine::builder().workers(2).grace(Duration::from_millis(20)).build()?;
    /// let result = engine.scope(|s| {
    ///     let canceller = s.canceller();
    ///     thread::spawn(move || {
    ///         thread::sleep(Duration::from_millis(50));
    ///         canceller.cancel();
    ///     });
    ///     let _ = s.submit(hang, ()).wait();
    /// });
    /// assert_eq!(*result.unwrap_err().kind(), JobErrorKind::Cancelled);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias("CancelScope", "CancellationToken", "abort_handle"))]
    pub fn canceller(&self) -> Canceller {
        self.canceller.clone()
    }

    /// Returns true if workers may write into arrays of the supervisor: see [`Engine::lends`].
    pub(super) fn lends(&self) -> bool {
        self.engine.lends()
    }

    /// Returns the number of the scope's series of random numbers.
    pub(super) fn series(&self) -> u64 {
        self.series.number()
    }

    /// Returns true if an inline engine runs no more jobs of the scope. In an engine with workers, the supervisor
    /// decides this.
    fn is_over(&self) -> bool {
        let failed = matches!(&*self.failures.borrow(), Failures::First(Some(_)));
        self.canceller.was_asked() || failed
    }

    /// Returns true if a job has failed for another reason than [`cancel`](Self::cancel).
    fn has_failed(&self) -> bool {
        let seen = match &*self.failures.borrow() {
            Failures::First(Some(error)) => *error.kind() != JobErrorKind::Cancelled,
            Failures::First(None) | Failures::All(_) => false,
        };
        let group = self.engine.supervisor().zip(self.group);
        let cancelled = group.is_some_and(|(shared, group)| shared.is_group_cancelled(group));
        // `was_asked` is read last, because `cancel`, which may run on another thread, sets it before it cancels the
        // group.
        seen || cancelled && !self.canceller.was_asked()
    }

    fn note(&self, error: &JobError) {
        let group = self.engine.supervisor().zip(self.group);
        let culprit = group.and_then(|(shared, group)| shared.culprit_of(group));
        self.failures.borrow_mut().note(error, culprit);
    }

    /// Records that the handle of this job was dropped. `holds_memory`: whether the job's value may have memory of the
    /// arena.
    fn drop_handle(&self, index: u64, holds_memory: bool) {
        if let Some(id) = self.open.borrow_mut().remove(&index) {
            let dropped = &mut *self.dropped.borrow_mut();
            dropped.jobs.open.push_back((index as usize, id));
            if let Some(shared) = self.engine.supervisor().filter(|_| holds_memory) {
                shared.forget_value(id);
            }
        }
    }

    /// Records the failures of dropped jobs that have ended. Scans only when there are twice as many jobs as after the
    /// last scan.
    fn forget_dropped(&self, shared: &Supervisor, kernel: &KernelInfo) {
        let dropped = &mut *self.dropped.borrow_mut();
        if dropped.jobs.open.len() < dropped.scan_at.max(SCAN_AT_LEAST) {
            return;
        }
        shared.exchange(kernel, None, &mut [], &mut dropped.jobs, |_| Ok(()), false);
        let ended = dropped.jobs.done.drain(..);
        ended
            .filter_map(|(_, end)| end.err())
            .for_each(|error| self.note(&error));
        dropped.scan_at = 2 * dropped.jobs.open.len();
    }

    /// Waits for all open jobs. Waits for the latest first: when it has ended, the others have usually ended, too.
    fn join(&self) {
        let Some(shared) = self.engine.supervisor().map(Arc::clone) else {
            return;
        };
        let dropped = self.dropped.take();
        let mut open = self.open.borrow_mut();
        let jobs = dropped.jobs.open.into_iter();
        open.extend(jobs.map(|(index, id)| (index as u64, id)));
        drop(open);
        let guard = NoUnwinding;
        while let Some((_, id)) = { self.open.borrow_mut().pop_last() } {
            if let Err(error) = shared.wait(id, |_| Ok(())) {
                self.note(&error);
            }
        }
        std::mem::forget(guard);
        self.canceller.end();
    }
}

impl fmt::Debug for Scope<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope")
            .field(
                "open",
                &(self.open.borrow().len() + self.dropped.borrow().jobs.open.len()),
            )
            .finish_non_exhaustive()
    }
}

/// A job of a scope. Dropping the handle does not cancel the job: the scope waits for it, and its value is dropped.
pub struct ScopedJob<'s, 'env, R> {
    scope: &'s Scope<'env>,
    /// `None` after its result was taken.
    state: Option<Scoped<'env, R>>,
}

enum Scoped<'env, R> {
    Sent {
        shared: &'env Arc<Supervisor>,
        index: u64,
        id: JobId,
        read: Read<R>,
    },
    Inline(Result<R, JobError>),
}

impl<R> ScopedJob<'_, '_, R> {
    /// Returns the job's number: see [`Job::id`](super::Job::id).
    pub fn id(&self) -> Option<u64> {
        match &self.state {
            Some(Scoped::Sent { shared, id, .. }) => Some(shared.number_of(*id)),
            _ => None,
        }
    }

    /// Waits for the value.
    ///
    /// # Errors
    /// [`JobError`] with the cause. It is also the failure of the scope, unless there was an earlier failure.
    pub fn wait(mut self) -> Result<R, JobError> {
        match self.state.take().expect("only this takes it") {
            Scoped::Inline(result) => result,
            Scoped::Sent {
                shared,
                index,
                id,
                read,
            } => {
                // The job is removed from `open` only after it has ended, because the scope must not end earlier.
                let result = shared.wait(id, read);
                self.scope.open.borrow_mut().remove(&index);
                if let Err(error) = &result {
                    self.scope.note(error);
                }
                result
            }
        }
    }
}

impl<R> Drop for ScopedJob<'_, '_, R> {
    fn drop(&mut self) {
        if let Some(Scoped::Sent { index, .. }) = self.state {
            self.scope.drop_handle(index, std::mem::needs_drop::<R>());
        }
    }
}

impl<R> fmt::Debug for ScopedJob<'_, '_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScopedJob").finish_non_exhaustive()
    }
}
