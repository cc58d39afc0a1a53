//! Scopes: jobs that may borrow, and that have all ended when the scope does.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use super::job::{option_setters, permit, run_inline};
use super::seeds::Series;
use super::{Canceller, Engine, JobError, JobErrorKind, Place};
use crate::kernel::wire::ArgWriter;
use crate::kernel::{
    Args, CallWriter, Kernel, KernelInfo, Key, Params, Reply, Single, kernel_name,
};
use crate::supervisor::{Failed, Flight, JobId, JobOptions, Read, Supervisor};

/// Submits jobs that may borrow for `'env`: see [`Engine::scope`].
pub struct Scope<'env> {
    engine: &'env Engine,
    /// Jobs of one group, which are cancelled together.
    group: u32,
    series: Series,
    /// Jobs so far.
    jobs: Cell<u64>,
    /// Jobs whose end nobody has seen yet, by their index in the scope.
    open: RefCell<BTreeMap<u64, JobId>>,
    /// Those of them whose handles were dropped: nobody will ask for them.
    unwanted: RefCell<Unwanted>,
    failures: RefCell<Failures>,
    canceller: Canceller,
    /// Invariant: the scope neither shortens nor lengthens what it lends.
    lent: PhantomData<Cell<&'env mut ()>>,
}

/// Jobs that only the scope waits for.
#[derive(Default)]
struct Unwanted {
    /// In the order in which their handles were dropped.
    jobs: Flight<usize, ()>,
    /// So many are looked through when there are more.
    enough: usize,
}

/// Jobs that are never looked through.
const FEW: usize = 16;

/// What a scope remembers of jobs that gave no value.
enum Failures {
    /// The first, which is what it returns.
    First(Option<JobError>),
    /// All of them.
    All(Vec<JobError>),
}

impl Failures {
    fn note(&mut self, error: &JobError) {
        match self {
            // The earliest job's, but not that it was cancelled because of another.
            Self::First(known) => {
                let rank =
                    |error: &JobError| (*error.kind() == JobErrorKind::Cancelled, error.job());
                if known.as_ref().is_none_or(|known| rank(error) < rank(known)) {
                    *known = Some(error.clone());
                }
            }
            Self::All(errors) => errors.push(error.clone()),
        }
    }
}

impl Engine {
    /// Runs `f`, which submits jobs that borrow tiles of arrays, or whole arrays to change in place;
    /// returns when all of them have ended.
    ///
    /// The first failure cancels the other jobs, and is what the scope returns. Those that have not begun never will; those
    /// that run are asked to stop ([`cancelled`](crate::cancelled)), and when the [`grace`](super::Builder::grace) period is
    /// over their workers are killed and replaced. So nothing outlives a scope, and one that is cancelled ends soon. To let
    /// the others run on: [`scope_collect`](Engine::scope_collect).
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
    /// What `f` returns is a value, also where it is an `Err` of its own: the scope waits for all jobs, and passes it on. Where
    /// such an error is to cancel the jobs, as in a task group of anyio or asyncio: [`scope_try`](Engine::scope_try).
    ///
    /// A scope blocks the thread that calls it, because what it lends must not move meanwhile. In `async` code, await
    /// [`Job`](super::Job)s, which are futures, or iterate over [`map(…).stream()`](super::Map::stream); a scope belongs on a thread
    /// of its own there (`spawn_blocking` of tokio, `unblock` of smol).
    ///
    /// What is lent cannot be touched before the scope has ended:
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
    /// and a job without a scope cannot have a tile, because nothing would keep the array alive:
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
    /// The first failure of a job. Rows that a dead worker could write are named in it
    /// ([`JobError::unspecified_rows`]).
    #[doc(alias("TaskGroup", "nursery", "create_task_group"))]
    pub fn scope<'env, T>(&'env self, f: impl FnOnce(&Scope<'env>) -> T) -> Result<T, JobError> {
        match self.run_scope(Failures::First(None), f) {
            (_, Failures::First(Some(error))) => Err(error),
            (value, _) => Ok(value),
        }
    }

    /// As [`scope`](Engine::scope), for an `f` that can fail itself: its `Err` cancels the jobs, as the failure of one of them does,
    /// and so `?` can be used in it. The scope returns what came first: the error of `f`, or that of a job, converted.
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
    /// What `f` returned, unless a job had failed before; otherwise as [`scope`](Engine::scope).
    #[doc(alias = "TaskGroup")]
    pub fn scope_try<'env, T, E>(
        &'env self,
        f: impl FnOnce(&Scope<'env>) -> Result<T, E>,
    ) -> Result<T, E>
    where
        E: From<JobError>,
    {
        let (ended, failures) = self.run_scope(Failures::First(None), |scope| {
            let result = f(scope);
            // Behind the failure of a job it is a consequence, as likely as not: that the others were cancelled, say.
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

    /// As [`scope`](Engine::scope), but a failure leaves the other jobs alone: all of them run, and all errors are
    /// returned beside the value of `f`, in the order in which their jobs were submitted. Only
    /// [`Scope::cancel`] ends the jobs of such a scope early.
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
        let (value, failures) = self.run_scope(Failures::All(Vec::new()), f);
        let mut errors = match failures {
            Failures::All(errors) => errors,
            Failures::First(error) => Vec::from_iter(error),
        };
        // They were noted in the order in which their ends were seen.
        errors.sort_by_key(JobError::job);
        (value, errors)
    }

    /// As [`scope_collect`](Engine::scope_collect), as a part of a call that has its number already. Nobody sees the errors
    /// of jobs whose end was not waited for.
    pub(super) fn scope_in<'env, T>(
        &'env self,
        series: Series,
        f: impl FnOnce(&Scope<'env>) -> T,
    ) -> T {
        self.run_scope_in(series, Failures::All(Vec::new()), f).0
    }

    fn run_scope<'env, T>(
        &'env self,
        failures: Failures,
        f: impl FnOnce(&Scope<'env>) -> T,
    ) -> (T, Failures) {
        self.run_scope_in(self.seeds.series(), failures, f)
    }

    fn run_scope_in<'env, T>(
        &'env self,
        series: Series,
        failures: Failures,
        f: impl FnOnce(&Scope<'env>) -> T,
    ) -> (T, Failures) {
        let collects = matches!(failures, Failures::All(_));
        let group = self.shared().map_or(0, |shared| shared.new_group(collects));
        let scope = Scope {
            engine: self,
            group,
            series,
            jobs: Cell::new(0),
            open: RefCell::default(),
            unwanted: RefCell::default(),
            failures: RefCell::new(failures),
            canceller: Canceller::new(self.shared().map(|shared| (Arc::clone(shared), group))),
            lent: PhantomData,
        };
        // Its drop waits for what is open: also when `f` panics.
        let ending = Ending {
            scope: &scope,
            was_panicking: std::thread::panicking(),
        };
        let value = f(&scope);
        drop(ending);
        (value, scope.failures.into_inner())
    }
}

struct Ending<'s, 'env> {
    scope: &'s Scope<'env>,
    /// It is part of a destructor that runs while its thread unwinds: that is no panic of its own.
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

impl<'env> Scope<'env> {
    /// Runs a kernel in a worker, on arguments that may borrow for `'env`. Where there is a
    /// [ceiling](crate::engine::Builder::admission) it waits here until the job is let in: a scope is for threads that may wait.
    /// [`Engine::scope`] has an example.
    pub fn submit<F, A, P, R>(&self, kernel: F, args: A) -> ScopedJob<'_, 'env, R::Out>
    where
        F: Kernel<P, R>,
        A: Args<'env, P>,
        P: Params,
        R: Reply,
    {
        self.job(kernel, args).submit()
    }

    /// A job of this scope under construction, with a deadline, a priority or a limiter.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// use std::time::Duration;
    ///
    /// let mut out = engine.zeros::<u32>(6)?;
    /// engine.scope(|s| {
    ///     let fill = |values: &mut [u32]| values.fill(7);
    ///     s.job(fill, (&mut out,)).deadline(Duration::from_secs(10)).submit();
    /// })?;
    /// assert_eq!(out[..], [7; 6]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn job<F, A, P, R>(&self, kernel: F, args: A) -> ScopedJobBuilder<'_, 'env, R::Out>
    where
        F: Kernel<P, R>,
        A: Args<'env, P>,
        P: Params,
        R: Reply,
    {
        let index = self.jobs.replace(self.jobs.get() + 1);
        let call = match &self.engine.place {
            Place::Inline => {
                let held = args.hold();
                ScopedCall::Here(Box::new(move |scope, options| {
                    let name = kernel_name::<F>();
                    let cancelled = || match scope.is_over() {
                        true => Some(Failed::new(JobErrorKind::Cancelled, name, 0)),
                        false => None,
                    };
                    if let Some(why) = cancelled() {
                        return Err(why.into());
                    }
                    let _permit = permit(&options.limit, name)?;
                    // Somebody else may have cancelled it while it waited.
                    if let Some(why) = cancelled() {
                        return Err(why.into());
                    }
                    let _job = scope.series.begin_inline(index);
                    run_inline(name, || kernel.call(held, Key::new()).into_value())
                }))
            }
            Place::Workers(workers) => {
                let mut call = CallWriter(ArgWriter::new(workers.shared.arena.id()));
                args.send(&mut call);
                call.0.seed = self.series.seed(index);
                ScopedCall::Sent {
                    call,
                    kernel: KernelInfo::of::<Single<F, P, R>>(),
                    read: R::receive,
                }
            }
        };
        ScopedJobBuilder {
            scope: self,
            index,
            call,
            options: JobOptions::default(),
        }
    }

    /// Cancels all jobs of the scope, those that are submitted later included: what has not begun answers
    /// [`Cancelled`](JobErrorKind::Cancelled); what runs is asked to stop, and is ended with its worker when the
    /// [`grace`](super::Builder::grace) period is over.
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

    /// What cancels this scope from another thread, since a scope stays with the one that opened it: from a timer, from a handler
    /// of Ctrl-C, when a client goes away.
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

    /// The number of the call that it belongs to.
    pub(super) fn series(&self) -> u64 {
        self.series.number()
    }

    /// Of an inline engine: is nothing run any more? Workers are told by the supervisor.
    fn is_over(&self) -> bool {
        let failed = matches!(&*self.failures.borrow(), Failures::First(Some(_)));
        self.canceller.was_asked() || failed
    }

    /// Has a job failed, other than by being cancelled by hand?
    fn has_failed(&self) -> bool {
        let seen = match &*self.failures.borrow() {
            Failures::First(Some(error)) => *error.kind() != JobErrorKind::Cancelled,
            Failures::First(None) | Failures::All(_) => false,
        };
        let cancelled = |shared: &Arc<Supervisor>| shared.is_group_cancelled(self.group);
        // In this order: somebody may be about to cancel it.
        seen || self.engine.shared().is_some_and(cancelled) && !self.canceller.was_asked()
    }

    fn note(&self, error: &JobError) {
        self.failures.borrow_mut().note(error);
    }

    /// Nobody asks for this job any more. `holds`: its value may hold memory.
    fn give_up(&self, index: u64, holds: bool) {
        if let Some(id) = self.open.borrow_mut().remove(&index) {
            let unwanted = &mut *self.unwanted.borrow_mut();
            unwanted.jobs.open.push_back((index as usize, id));
            if let Some(shared) = self.engine.shared().filter(|_| holds) {
                shared.forget_value(id);
            }
        }
    }

    /// Takes note of the ends of jobs that nobody asks for, as far as they have ended: whenever there are twice as many as were left
    /// the last time.
    fn forget_unwanted(&self, shared: &Supervisor, kernel: &KernelInfo) {
        let unwanted = &mut *self.unwanted.borrow_mut();
        if unwanted.jobs.open.len() < unwanted.enough.max(FEW) {
            return;
        }
        shared.exchange(kernel, None, &mut [], &mut unwanted.jobs, |_| Ok(()), false);
        let ended = unwanted.jobs.done.drain(..);
        ended
            .filter_map(|(_, end)| end.err())
            .for_each(|error| self.note(&error));
        unwanted.enough = 2 * unwanted.jobs.open.len();
    }

    /// Waits for all open jobs: for the latest first, because the others have usually ended then.
    fn join(&self) {
        let Some(shared) = self.engine.shared().map(Arc::clone) else {
            return;
        };
        let unwanted = self.unwanted.take();
        let mut open = self.open.borrow_mut();
        let jobs = unwanted.jobs.open.into_iter();
        open.extend(jobs.map(|(index, id)| (index as u64, id)));
        drop(open);
        while let Some((_, id)) = { self.open.borrow_mut().pop_last() } {
            if let Err(error) = shared.wait(id, |_| Ok(())) {
                self.note(&error);
            }
        }
        self.canceller.end();
    }
}

impl fmt::Debug for Scope<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope")
            .field(
                "open",
                &(self.open.borrow().len() + self.unwanted.borrow().jobs.open.len()),
            )
            .finish_non_exhaustive()
    }
}

/// A job of a scope under construction: see [`Scope::job`].
///
/// The job may change what it is lent, so it has no retries. If it is killed, what it could write is unspecified, and named in the
/// error. A scope waits for its jobs, and so for their permits; a cancelled scope does not, and an inline engine does not run its
/// remaining jobs.
///
/// ```
/// # let engine = arenite::Engine::inline();
/// use arenite::{Limiter, TileMut};
///
/// fn fill(mut tile: TileMut<'_, u32>) {
///     tile.iter_mut().for_each(|x| *x = 7);
/// }
///
/// let two = Limiter::builder().concurrency(2).build();
/// let mut out = engine.zeros::<u32>(100)?;
/// engine.scope(|s| {
///     for tile in out.tiles_mut(10) {
///         s.job(fill, (tile,)).limit(&two).submit();
///     }
/// })?;
/// assert_eq!(out[..], [7; 100]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a job under construction does nothing until it is submitted"]
pub struct ScopedJobBuilder<'s, 'env, R> {
    scope: &'s Scope<'env>,
    index: u64,
    call: ScopedCall<'env, R>,
    options: JobOptions,
}

#[allow(
    clippy::large_enum_variant,
    reason = "short-lived, and a box for each job of a scope would be slower"
)]
enum ScopedCall<'env, R> {
    Sent {
        call: CallWriter,
        kernel: KernelInfo,
        read: Read<R>,
    },
    /// Runs it in this thread.
    Here(RunHere<'env, R>),
}

type RunHere<'env, R> = Box<dyn FnOnce(&Scope<'env>, &JobOptions) -> Result<R, JobError>>;

impl<'s, 'env, R> ScopedJobBuilder<'s, 'env, R> {
    fn with_options(mut self, change: impl FnOnce(&mut JobOptions)) -> Self {
        change(&mut self.options);
        self
    }

    option_setters!(for_this_thread);

    /// Runs it again, up to this many times. Not for kernels of the program: this is for one that writes whatever it is lent
    /// from end to end, and reads only what is somewhere else. What a dead attempt has left of it makes no difference then.
    pub(super) fn writes_all(mut self, retries: u32) -> Self {
        self.options.retries = retries;
        self
    }

    /// It has a worker to itself if it is to run alone, so that what ends this worker is its own doing: as jobs with a deadline
    /// have. In an engine with [`share_deadlines`](super::Builder::share_deadlines) they have not, and neither has this one.
    pub(super) fn alone(mut self, alone: bool) -> Self {
        let lanes = |shared: &Arc<Supervisor>| shared.lanes() > shared.workers();
        if alone && self.scope.engine.shared().is_some_and(lanes) {
            // Beyond all clocks: none.
            self.options.deadline = Some(Duration::MAX);
        }
        self
    }

    /// Submits it.
    pub fn submit(self) -> ScopedJob<'s, 'env, R> {
        let scope = self.scope;
        let state = match (self.call, scope.engine.shared()) {
            (
                ScopedCall::Sent {
                    mut call,
                    kernel,
                    read,
                },
                Some(shared),
            ) => {
                let id = shared.submit(&kernel, &mut call.0, scope.group, self.options.if_set());
                let index = self.index;
                scope.open.borrow_mut().insert(index, id);
                scope.forget_unwanted(shared, &kernel);
                Scoped::Sent { index, id, read }
            }
            (ScopedCall::Here(run), _) => {
                let label = self.options.label.as_ref();
                let result = run(scope, &self.options).map_err(|error| error.with_label(label));
                if let Err(error) = &result {
                    scope.note(error);
                }
                Scoped::Here(result)
            }
            (ScopedCall::Sent { .. }, None) => {
                unreachable!("an inline engine runs its jobs at once")
            }
        };
        ScopedJob {
            scope,
            state: Some(state),
        }
    }
}

impl<R> fmt::Debug for ScopedJobBuilder<'_, '_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScopedJobBuilder")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// A job of a scope. Dropping the handle leaves the job as it is: the scope waits for it. Its value is dropped when it has ended.
pub struct ScopedJob<'s, 'env, R> {
    scope: &'s Scope<'env>,
    /// Until somebody waits for it.
    state: Option<Scoped<R>>,
}

enum Scoped<R> {
    Sent {
        index: u64,
        id: JobId,
        read: Read<R>,
    },
    Here(Result<R, JobError>),
}

impl<R> ScopedJob<'_, '_, R> {
    /// The job's number: see [`Job::id`](super::Job::id).
    pub fn id(&self) -> u64 {
        match (&self.state, self.scope.engine.shared()) {
            (Some(Scoped::Sent { id, .. }), Some(shared)) => shared.number_of(*id),
            _ => 0,
        }
    }

    /// Waits for the value.
    ///
    /// # Errors
    /// [`JobError`] with the cause; it is the scope's failure as well, unless there was one before.
    pub fn wait(mut self) -> Result<R, JobError> {
        match self.state.take().expect("only this takes it") {
            Scoped::Here(result) => result,
            Scoped::Sent { index, id, read } => {
                let shared = self
                    .scope
                    .engine
                    .shared()
                    .expect("the job was sent to workers");
                // It leaves the list only when it has ended: the scope must not end before.
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
            self.scope.give_up(index, std::mem::needs_drop::<R>());
        }
    }
}

impl<R> fmt::Debug for ScopedJob<'_, '_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScopedJob").finish_non_exhaustive()
    }
}
