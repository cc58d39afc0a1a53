//! One job: its handle here, its construction in `builder.rs`, and in `here.rs` what runs it without workers.

mod builder;
mod here;
mod options;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

pub use builder::{JobBuilder, Refused};
pub(super) use here::{permit, run_here};
pub(super) use options::{option_setters, replace};

use super::JobFailure;

use crate::kernel::wire::ArgWriter;
use crate::kernel::{CallWriter, Kernel, KernelInfo, Key, Params, Program, Reply};
use crate::supervisor::{JobError, JobId, Read, Supervisor};

/// A job that was submitted, and will have a value of type `R`.
///
/// Dropping the handle cancels the job: if it has not begun it never will, and one that runs is asked
/// to stop. [`detach`](Job::detach) lets it run. A job is also a [`Future`], on any executor.
///
/// `E` is what the job gives when it fails: a [`JobError`], or a [`DeadLetter`](super::DeadLetter) with the arguments, after
/// [`keep_args`](JobBuilder::keep_args).
#[must_use = "dropping a job cancels it; `wait` for it, or `detach` it"]
pub struct Job<R, E: JobFailure = JobError> {
    state: State<R>,
    /// Until the job is answered.
    retained: Option<E::Retained>,
}

enum State<R> {
    Sent {
        shared: Arc<Supervisor>,
        id: JobId,
        read: Read<R>,
    },
    /// Ran in this thread, or could not be sent at all.
    Here(Box<Result<R, JobError>>),
    Taken,
}

// A handle borrows nothing and is not self-referential.
impl<R, E: JobFailure> Unpin for Job<R, E> {}

impl<R: Send + 'static> Job<R> {
    /// Sends a job whose arguments `fill` writes.
    #[inline]
    pub(super) fn send<G>(shared: &Arc<Supervisor>, fill: impl FnOnce(&mut CallWriter)) -> Self
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
    pub(super) fn sent<G>(shared: &Arc<Supervisor>, id: JobId) -> Self
    where
        G: Program,
        G::Reply: Reply<Out = R>,
    {
        Self::submitted(shared, id, G::Reply::receive, ())
    }

    pub(super) fn here(result: Result<R, JobError>) -> Self {
        Self::ended(result, ())
    }

    /// Runs a kernel in this thread.
    pub(super) fn run_here<F, P, T>(kernel: F, held: P::Held) -> Self
    where
        F: Kernel<P, T>,
        P: Params,
        T: Reply<Out = R>,
    {
        Self::here(run_here(std::any::type_name::<F>(), || {
            kernel.call(held, Key::new()).into_value()
        }))
    }
}

impl<R: Send + 'static, E: JobFailure> Job<R, E> {
    /// A job that was submitted, and how its reply is read.
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
        }
    }

    /// A job that has ended.
    pub(super) fn ended(result: Result<R, JobError>, retained: E::Retained) -> Self {
        Self {
            state: State::Here(Box::new(result)),
            retained: Some(retained),
        }
    }

    /// The answer as the caller gets it.
    #[inline]
    fn answer(&mut self, result: Result<R, JobError>) -> Result<R, E> {
        let retained = self.retained.take();
        result.map_err(|error| {
            let retained = retained.expect("a job is answered once");
            E::from_error(0, retained, error, Key::new())
        })
    }

    /// Where it was sent, if it was and its value was not taken.
    pub(super) fn sent_to(&self) -> Option<(&Arc<Supervisor>, JobId)> {
        match &self.state {
            State::Sent { shared, id, .. } => Some((shared, *id)),
            State::Here(_) | State::Taken => None,
        }
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
    /// [`JobError`] with the cause, when the job gave no value; a [`DeadLetter`](super::DeadLetter) if it
    /// [keeps its arguments](JobBuilder::keep_args).
    ///
    /// # Panics
    /// If [`wait_timeout`](Job::wait_timeout) or polling has already returned the value.
    pub fn wait(mut self) -> Result<R, E> {
        let result = match std::mem::replace(&mut self.state, State::Taken) {
            State::Sent { shared, id, read } => shared.wait(id, read),
            State::Here(result) => *result,
            State::Taken => panic!("the value of this job was taken before"),
        };
        self.answer(result)
    }

    /// Waits for the value, but not longer than this. `None`: not yet; the job goes on.
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
    /// As [`wait`](Job::wait).
    ///
    /// # Panics
    /// If the value was taken before.
    pub fn wait_timeout(&mut self, limit: Duration) -> Option<Result<R, E>> {
        let result = match std::mem::replace(&mut self.state, State::Taken) {
            State::Sent { shared, id, read } => match shared.wait_timeout(id, read, limit) {
                Some(result) => result,
                None => {
                    self.state = State::Sent { shared, id, read };
                    return None;
                }
            },
            State::Here(result) => *result,
            State::Taken => panic!("the value of this job was taken before"),
        };
        Some(self.answer(result))
    }

    /// Has the job ended, well or badly?
    pub fn is_done(&self) -> bool {
        match &self.state {
            State::Sent { shared, id, .. } => shared.is_done(*id),
            State::Here(_) | State::Taken => true,
        }
    }

    /// Asks the job to end. One that no worker has begun answers
    /// [`Cancelled`](crate::engine::JobErrorKind::Cancelled); one that runs can see it ([`cancelled`](crate::cancelled)),
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
    /// [`Cancelled`](crate::engine::JobErrorKind::Cancelled) as soon as that process is gone. A job that has ended has its
    /// answer already.
    ///
    /// On a worker with several [`lanes`](crate::engine::Builder::lanes), what runs beside it is lost with it.
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

    /// Lets the job run without anybody to ask for its value. What it returns is dropped, and a failure shows only in
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
        // A waker whose clone panics leaves the job as it was.
        if let State::Sent { shared, id, read } = &self.state {
            let Poll::Ready(result) = shared.poll(*id, *read, context) else {
                return Poll::Pending;
            };
            self.state = State::Taken;
            return Poll::Ready(self.answer(result));
        }
        match std::mem::replace(&mut self.state, State::Taken) {
            State::Sent { .. } => unreachable!("it has just been looked at"),
            State::Here(result) => Poll::Ready(self.answer(*result)),
            State::Taken => panic!("the value of this job was taken before"),
        }
    }
}

impl<R, E: JobFailure> Drop for Job<R, E> {
    fn drop(&mut self) {
        if let State::Sent { shared, id, .. } = &self.state {
            shared.abandon(*id);
        }
    }
}

impl<R, E: JobFailure> fmt::Debug for Job<R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Sent { .. } => "sent",
            State::Here(_) => "done",
            State::Taken => "taken",
        };
        f.debug_tuple("Job").field(&state).finish()
    }
}
