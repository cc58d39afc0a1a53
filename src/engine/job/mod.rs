//! One job: its handle [`Job`] and its builder. `inline.rs` runs it without workers.

mod argument;
mod builder;
mod inline;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

pub use builder::{JobBuilder, Refused};
pub(super) use inline::{held, permit, run_inline, run_kernel};

use super::JobFailure;

use crate::kernel::wire::ArgWriter;
use crate::kernel::{CallWriter, KernelInfo, Key, Program, Reply};
use crate::supervisor::{JobError, JobId, Owner, Read, Supervisor};

/// A submitted job, which returns a value of type `R`.
///
/// Dropping the handle cancels the job: a job that has not begun never begins, and a running job is asked to stop.
/// [`detach`](Job::detach) lets it continue. A job is also a [`Future`], for any executor.
///
/// `E` is the error: a [`JobError`], or a [`DeadLetter`](super::DeadLetter) with the arguments after
/// [`keep_args`](JobBuilder::keep_args).
#[must_use = "dropping a job cancels it; `wait` for it, or `detach` it"]
pub struct Job<R, E: JobFailure = JobError> {
    state: State<R>,
    /// The copy of the arguments that is kept until the job has ended.
    retained: Option<E::Retained>,
    kills_on_drop: bool,
}

/// Ends a job by force from another thread: see [`Job::killer`].
///
/// It may outlive its job; then it has no effect.
pub struct Killer {
    shared: Arc<Supervisor>,
    id: JobId,
}

impl Killer {
    /// Ends the job, like [`Job::kill`]. Does nothing if the job has ended, or its value was taken.
    pub fn kill(&self) {
        self.shared.kill(self.id);
    }
}

impl fmt::Debug for Killer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Killer").field(&self.id).finish()
    }
}

enum State<R> {
    Sent {
        shared: Arc<Supervisor>,
        id: JobId,
        read: Read<R>,
    },
    /// The job ran on this thread, or could not be submitted.
    Ended(Box<Result<R, JobError>>),
    Taken,
}

// The handle is not self-referential.
impl<R, E: JobFailure> Unpin for Job<R, E> {}

impl<R: Send + 'static> Job<R> {
    /// Submits a job whose arguments `fill` writes.
    #[inline]
    pub(super) fn send<G>(shared: &Arc<Supervisor>, fill: impl FnOnce(&mut CallWriter)) -> Self
    where
        G: Program,
        G::Reply: Reply<Out = R>,
    {
        let mut call = CallWriter(ArgWriter::new(shared.arena.id()));
        fill(&mut call);
        let id = shared.submit(&KernelInfo::of::<G>(), &mut call.0, Owner::Handle, None);
        Self::sent::<G>(shared, id)
    }

    /// Returns the handle of a submitted job.
    #[inline]
    pub(super) fn sent<G>(shared: &Arc<Supervisor>, id: JobId) -> Self
    where
        G: Program,
        G::Reply: Reply<Out = R>,
    {
        Self::submitted(shared, id, G::Reply::receive, ())
    }

    pub(super) fn ready(result: Result<R, JobError>) -> Self {
        Self::ended(result, ())
    }
}

impl<R: Send + 'static, E: JobFailure> Job<R, E> {
    /// Returns the handle of a submitted job, whose reply `read` decodes.
    #[inline]
    pub(super) fn submitted(
        shared: &Arc<Supervisor>,
        id: JobId,
        read: Read<R>,
        retained: E::Retained,
    ) -> Self {
        Self {
            state: State::Sent {
                shared: Arc::clone(shared),
                id,
                read,
            },
            retained: Some(retained),
            kills_on_drop: false,
        }
    }

    /// Returns the handle of a job that has ended.
    pub(super) fn ended(result: Result<R, JobError>, retained: E::Retained) -> Self {
        Self {
            state: State::Ended(Box::new(result)),
            retained: Some(retained),
            kills_on_drop: false,
        }
    }

    /// Converts the result into the type that the caller gets.
    #[inline]
    fn answer(&mut self, result: Result<R, JobError>) -> Result<R, E> {
        let retained = self.retained.take();
        result.map_err(|error| {
            let retained = retained.expect("a job is answered once");
            E::from_error(0, retained, error, Key::new())
        })
    }

    /// Returns the engine and the id of the job, or `None` if the job ran on this thread or its value was taken.
    pub(super) fn sent_to(&self) -> Option<(&Arc<Supervisor>, JobId)> {
        match &self.state {
            State::Sent { shared, id, .. } => Some((shared, *id)),
            State::Ended(_) | State::Taken => None,
        }
    }

    /// Returns the job's number in its engine, from 1, as used by messages ("job 8"), [`JobError::job`] and
    /// [`JobError::lost_jobs`]. `None` for a job that ran on this thread, and after the value was taken.
    ///
    /// The number identifies the jobs that an error lists:
    ///
    /// ```standalone_crate
    /// use std::collections::HashMap;
    /// use std::sync::Barrier;
    /// use arenite::Engine;
    ///
    /// /// One for all lanes, which are threads of the worker.
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
    /// let lost: Vec<u32> = error.lost_jobs().iter().map(|&job| pages[&Some(job)]).collect();
    /// assert_eq!(lost, [7, 30]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn id(&self) -> Option<u64> {
        match &self.state {
            State::Sent { shared, id, .. } => Some(shared.number_of(*id)),
            State::Ended(_) | State::Taken => None,
        }
    }

    /// Waits for the value of the job.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// let half = |x: u32| if x % 2 == 0 { Ok(x / 2) } else { Err(format!("{x} is odd")) };
    /// assert_eq!(engine.submit(half, (8,)).wait()?, 4);
    /// let error = engine.submit(half, (7,)).wait().unwrap_err();
    /// assert!(error.to_string().ends_with("7 is odd"));
    /// # Ok::<(), arenite::JobError>(())
    /// ```
    ///
    /// # Errors
    /// [`JobError`] with the cause if the job ended without a value, or a [`DeadLetter`](super::DeadLetter) if it
    /// [keeps its arguments](JobBuilder::keep_args). [`JobError::returned`] returns the kernel's own error.
    ///
    /// # Panics
    /// If [`wait_timeout`](Job::wait_timeout) or polling has already returned the value.
    pub fn wait(mut self) -> Result<R, E> {
        let sent = match &self.state {
            State::Sent { shared, id, read } => Some(shared.wait(*id, *read)),
            State::Ended(_) | State::Taken => None,
        };
        self.take(sent)
    }

    /// Returns the value of a job that has ended: `sent`, if the job was submitted. Until now the handle had the job,
    /// which would be abandoned if waiting panicked.
    fn take(&mut self, sent: Option<Result<R, JobError>>) -> Result<R, E> {
        let result = match (std::mem::replace(&mut self.state, State::Taken), sent) {
            (State::Sent { .. }, Some(result)) => result,
            (State::Ended(result), _) => *result,
            _ => panic!("the value of this job was taken before"),
        };
        self.answer(result)
    }

    /// Waits for the value for at most `limit`. Returns `None` if the job has not ended; the job continues.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// use std::time::Duration;
    ///
    /// let mut job = engine.submit(|x: f64| x.sqrt(), (2.25,));
    /// let root = loop {
    ///     match job.wait_timeout(Duration::from_millis(100)) {
    ///         Some(answer) => break answer?,
    ///         None => eprintln!("{} jobs are left", engine.progress().left()),
    ///     }
    /// };
    /// assert_eq!(root, 1.5);
    /// # Ok::<(), arenite::JobError>(())
    /// ```
    ///
    /// # Errors
    /// Like [`wait`](Job::wait).
    ///
    /// # Panics
    /// If the value was already taken.
    pub fn wait_timeout(&mut self, limit: Duration) -> Option<Result<R, E>> {
        let sent = match &self.state {
            State::Sent { shared, id, read } => Some(shared.wait_timeout(*id, *read, limit)?),
            State::Ended(_) | State::Taken => None,
        };
        Some(self.take(sent))
    }

    /// Returns true if the job has ended, with a value or an error.
    pub fn is_done(&self) -> bool {
        match &self.state {
            State::Sent { shared, id, .. } => shared.is_done(*id),
            State::Ended(_) | State::Taken => true,
        }
    }

    /// Returns true if a worker runs the job at this moment. False while it waits for a worker or for its next attempt,
    /// and after its end.
    ///
    /// ```standalone_crate
    /// use arenite::Engine;
    ///
    /// fn hang() {
    ///     loop {
    ///         std::thread::park();
    ///     }
    /// }
    ///
    /// arenite::init();
    /// let engine = Engine::builder().workers(1).build()?;
    /// let job = engine.submit(hang, ());
    /// while !job.is_running() {
    ///     std::thread::yield_now();
    /// }
    /// job.kill();
    /// assert!(job.wait().is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn is_running(&self) -> bool {
        match &self.state {
            State::Sent { shared, id, .. } => shared.is_running(*id),
            State::Ended(_) | State::Taken => false,
        }
    }

    /// See [`raw::wake_when_done`](crate::raw::wake_when_done).
    pub(in crate::engine) fn wake_when_done(&self, waker: &Waker) -> bool {
        match &self.state {
            State::Sent { shared, id, .. } => {
                shared.poll_any(std::iter::once(*id), waker).is_some()
            }
            State::Ended(_) | State::Taken => true,
        }
    }

    /// Asks the job to end. A job that has not begun fails with [`Cancelled`](crate::engine::JobErrorKind::Cancelled).
    /// A running kernel can check [`cancelled`](crate::cancelled); the value that it then returns is the result of the
    /// job. Has no effect on a job that has ended.
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
    /// // Either it has begun and returns a count, or it never begins.
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

    /// Ends the job by force: if it runs, its worker is killed and replaced. The job fails with
    /// [`Cancelled`](crate::engine::JobErrorKind::Cancelled) once that process is gone. Has no effect on a job that has
    /// ended.
    ///
    /// In a worker with several [`lanes`](crate::engine::Builder::lanes), the jobs on the other lanes are lost as well.
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
    /// job.kill();
    /// let error = job.wait().unwrap_err();
    /// assert_eq!(*error.kind(), JobErrorKind::Cancelled);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn kill(&self) {
        if let State::Sent { shared, id, .. } = &self.state {
            shared.kill(*id);
        }
    }

    /// Ends the job by [force](Job::kill) when this handle is dropped before the job has ended, for example in a future
    /// that loses a race. By default, dropping the handle only [asks](Job::cancel) a running job to end.
    ///
    /// ```standalone_crate
    /// use std::time::Duration;
    ///
    /// fn hang() {
    ///     loop {
    ///         std::hint::spin_loop();
    ///     }
    /// }
    ///
    /// arenite::init();
    /// let engine = arenite::Engine::builder().workers(1).build()?;
    /// let mut job = engine.submit(hang, ()).kill_on_drop();
    /// assert!(job.wait_timeout(Duration::from_millis(50)).is_none());
    /// drop(job);
    /// assert_eq!(engine.submit(|| 42, ()).wait()?, 42);
    /// # Ok::<(), arenite::Error>(())
    /// ```
    pub fn kill_on_drop(mut self) -> Self {
        self.kills_on_drop = true;
        self
    }

    /// Returns a handle that ends the job by [force](Job::kill) from another thread while this thread waits for the
    /// job. `None` for a job that ran on this thread, and after the value was taken.
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
    /// let killer = job.killer().expect("it runs in a worker");
    /// let watchdog = std::thread::spawn(move || killer.kill());
    /// assert_eq!(*job.wait().unwrap_err().kind(), JobErrorKind::Cancelled);
    /// watchdog.join().expect("no panic");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn killer(&self) -> Option<Killer> {
        let (shared, id) = self.sent_to()?;
        Some(Killer {
            shared: Arc::clone(shared),
            id,
        })
    }

    /// Lets the job run without a handle. Its value is dropped, and a failure is visible only in
    /// [`Engine::progress`](crate::Engine::progress), [`Engine::stats`](crate::Engine::stats) and a trace.
    ///
    /// ```standalone_crate
    /// use arenite::Engine;
    ///
    /// arenite::init();
    /// let engine = Engine::builder().workers(1).build()?;
    /// engine.submit(|| eprintln!("done some time"), ()).detach();
    /// engine.shutdown(); // finishes it first; dropping the engine would not
    /// # Ok::<(), arenite::BuildError>(())
    /// ```
    pub fn detach(mut self) {
        if let State::Sent { shared, id, .. } = std::mem::replace(&mut self.state, State::Taken) {
            shared.detach(id);
        }
    }
}

impl<R: Send + 'static, E: JobFailure> Future for Job<R, E> {
    type Output = Result<R, E>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // The waker is cloned first: if that panics, the job is unchanged.
        if let State::Sent { shared, id, read } = &self.state {
            let Poll::Ready(result) = shared.poll(*id, *read, context) else {
                return Poll::Pending;
            };
            self.state = State::Taken;
            return Poll::Ready(self.answer(result));
        }
        match std::mem::replace(&mut self.state, State::Taken) {
            State::Sent { .. } => unreachable!("it has just been looked at"),
            State::Ended(result) => Poll::Ready(self.answer(*result)),
            State::Taken => panic!("the value of this job was taken before"),
        }
    }
}

impl<R, E: JobFailure> Drop for Job<R, E> {
    fn drop(&mut self) {
        if let State::Sent { shared, id, .. } = &self.state {
            if self.kills_on_drop && !shared.is_copy() {
                shared.kill(*id);
            }
            shared.abandon(*id);
        }
    }
}

impl<R, E: JobFailure> fmt::Debug for Job<R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Sent { .. } => "sent",
            State::Ended(_) => "done",
            State::Taken => "taken",
        };
        f.debug_tuple("Job").field(&state).finish()
    }
}
