#![doc = include_str!("README.md")]

mod builder;
mod calling;
mod inline;
mod names;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::job::{held, run_inline};
use super::seeds::Seeds;
use super::{ActorStatus, Engine, Job, JobErrorKind, Rejection};
use crate::kernel::actor::Call;
use crate::kernel::wire::ArgWriter;
use crate::kernel::{
    Args, Bind, CallWriter, KernelInfo, Key, Method, MethodParams, Params, Reply, captures_nothing,
};
use crate::supervisor::{ActorId, Failed, JobOptions, Supervisor};
use crate::sys::debug_as_text;

pub use builder::ActorBuilder;
use inline::InlineActor;
use names::Name;
pub(super) use names::Names;

/// A handle to a state that lives in one worker: see [`Engine::actor`].
///
/// Handles can be cloned and used from any number of threads. When the last handle is dropped, the actor ends: it
/// answers all submitted calls, and its state is dropped in its worker. States that remain when the engine shuts down
/// are dropped in their workers within the [grace](crate::engine::Builder::grace) period; when the engine is dropped,
/// only idle workers drop states, within half a second. A state whose worker is killed or crashes is lost without its
/// `drop`.
#[must_use = "an actor ends when its last handle is dropped"]
pub struct Actor<S: Send + 'static> {
    inner: Arc<Inner<S>>,
}

struct Inner<S: Send + 'static> {
    location: ActorLocation<S>,
    name: Option<Name>,
}

enum ActorLocation<S> {
    Worker {
        shared: Arc<Supervisor>,
        id: ActorId,
    },
    /// In an inline engine: the state itself, and the seeds of its calls.
    Inline(InlineActor<S>, Arc<Seeds>),
}

/// Why an actor cannot be started, or found, under a name.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ActorNameError {
    /// Another actor of the engine has the name.
    Taken {
        /// The name.
        name: String,
    },
    /// No actor of the engine has the name.
    Unknown {
        /// The name.
        name: String,
    },
    /// The actor of this name has a state of another type.
    OtherState {
        /// The name.
        name: String,
        /// The type that the caller asked for.
        asked: &'static str,
    },
}

impl fmt::Display for ActorNameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Taken { name } => write!(f, "an actor named {name:?} exists already"),
            Self::Unknown { name } => write!(f, "there is no actor named {name:?}"),
            Self::OtherState { name, asked } => {
                write!(f, "the state of the actor named {name:?} is not a {asked}")
            }
        }
    }
}

impl std::error::Error for ActorNameError {}

debug_as_text!(ActorNameError);

impl Engine {
    /// Finds the actor of this name, if a handle to it exists and it was not stopped.
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// use arenite::Actor;
    ///
    /// fn push(list: &mut Vec<u32>, x: u32) -> u64 {
    ///     list.push(x);
    ///     list.len() as u64
    /// }
    ///
    /// let list = engine.actor(Vec::<u32>::new, ()).start_named("list")?;
    /// // Elsewhere in the program:
    /// let same: Actor<Vec<u32>> = engine.actor_named("list")?;
    /// assert_eq!(same.call(push, (7,)).wait()?, 1);
    /// assert_eq!(list.call(push, (8,)).wait()?, 2);
    /// assert!(engine.actor_named::<String>("list").is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// If no actor has this name, or its state is of another type.
    #[doc(alias = "get_actor")]
    pub fn actor_named<S: Send + 'static>(&self, name: &str) -> Result<Actor<S>, ActorNameError> {
        let unknown = || ActorNameError::Unknown { name: name.into() };
        let held = self.names.get(name).ok_or_else(unknown)?;
        let inner = held
            .downcast::<Inner<S>>()
            .map_err(|_| ActorNameError::OtherState {
                name: name.into(),
                asked: std::any::type_name::<S>(),
            })?;
        Ok(Actor { inner })
    }
}

impl<S: Send + 'static> Actor<S> {
    /// Calls a method: a function, or a closure that captures nothing, which takes `&mut S` or `&S`, and up to 7
    /// parameters as a [kernel](crate::Kernel) takes them.
    ///
    /// Calls run one after the other, in the order in which they were submitted, and each runs at most once. After an
    /// `Err` or a panic of the method the actor continues, with the state as the method left it. If the worker dies,
    /// the running call fails with [`FailedDependency::Actor`](crate::FailedDependency::Actor) and the cause, as do all
    /// later calls, unless the actor continues from a [checkpoint](ActorBuilder::checkpoint). A call that takes the
    /// value of a [job](Job) keeps its place: later calls wait until that job has ended.
    ///
    /// With [`Engine::inline`] the method runs on this thread, before this function returns. If it calls its own actor,
    /// for example by a handle in a `static`, then that call fails with
    /// [`Rejection::Deadlock`](crate::Rejection::Deadlock).
    ///
    /// With a limit on bytes in flight ([`max_in_flight_bytes`](crate::engine::Builder::max_in_flight_bytes)) this
    /// blocks until the call is admitted; in `async` code use [`call_async`](Actor::call_async).
    ///
    /// [`Job::cancel`] and dropping the job work as for any job. [`Job::kill`] ends a running call together with its
    /// worker and the actor: the call fails with `FailedDependency::Actor`, whose cause is `Cancelled`.
    pub fn call<F, A, P, R>(&self, method: F, args: A) -> Job<R::Out>
    where
        F: Bind<A>,
        F::Kernel: Method<S, P, R>,
        F::Args: Args<'static, P::Params>,
        P: MethodParams,
        R: Reply,
    {
        const { captures_nothing::<F::Kernel>() };
        let (method, args) = method.bind(args);
        self.send(method, args, None)
    }

    /// Like [`call`](Actor::call), with a deadline: if the call runs longer, its worker is killed and the actor ends
    /// with it; the call fails with [`FailedDependency::Actor`](crate::FailedDependency::Actor) whose cause is
    /// `JobLimit::Deadline`. The time that a call waits for earlier calls does not count. An inline engine ignores the
    /// limit.
    pub fn call_within<F, A, P, R>(&self, limit: Duration, method: F, args: A) -> Job<R::Out>
    where
        F: Bind<A>,
        F::Kernel: Method<S, P, R>,
        F::Args: Args<'static, P::Params>,
        P: MethodParams,
        R: Reply,
    {
        const { captures_nothing::<F::Kernel>() };
        let (method, args) = method.bind(args);
        self.send(method, args, Some(&within(limit)))
    }

    #[inline]
    fn send<F, A, P, R>(&self, method: F, args: A, options: Option<&JobOptions>) -> Job<R::Out>
    where
        F: Method<S, P, R>,
        A: Args<'static, P::Params>,
        P: MethodParams,
        R: Reply,
    {
        match &self.inner.location {
            ActorLocation::Worker { shared, id } => {
                let mut call = written(shared, *id, args);
                let info = KernelInfo::of::<Call<F, S, P, R>>();
                let job = shared.submit(&info, &mut call.0, *id, options);
                Job::submitted(shared, job, R::receive, ())
            }
            ActorLocation::Inline(actor, seeds) => call_inline(actor, seeds, method, args),
        }
    }

    /// Ends the actor after all submitted calls: its state is dropped in its worker, and its name becomes free. Later
    /// calls fail with [`Rejection::ActorEnded`](crate::Rejection::ActorEnded).
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// use arenite::{JobErrorKind, Rejection};
    ///
    /// let list = engine.actor(Vec::<u32>::new, ()).start();
    /// list.stop();
    /// let error = list.call(|list: &Vec<u32>| list.len(), ()).wait().unwrap_err();
    /// assert_eq!(*error.kind(), JobErrorKind::Rejected(Rejection::ActorEnded));
    /// ```
    pub fn stop(&self) {
        self.inner.end();
    }

    /// Returns the actor's name, if it has one.
    pub fn name(&self) -> Option<&str> {
        self.inner.name.as_ref().map(|name| name.name.as_str())
    }

    /// Returns the actor's current status.
    ///
    /// ```standalone_crate
    /// use arenite::{Array, Engine};
    ///
    /// struct Sum(u64);
    ///
    /// impl Sum {
    ///     fn add(&mut self, x: u64) -> u64 {
    ///         self.0 += x;
    ///         self.0
    ///     }
    ///     fn save(&self) -> Array<u64> {
    ///         Array::from_slice(&[self.0])
    ///     }
    ///     fn crash(&mut self) {
    ///         std::process::abort();
    ///     }
    /// }
    ///
    /// arenite::init();
    /// let engine = Engine::builder().workers(1).build()?;
    /// let sum = engine
    ///     .actor(|| Sum(0), ())
    ///     .checkpoint(2, Sum::save, |saved: &Array<u64>| Sum(saved[0]))
    ///     .start();
    /// for x in [1, 10, 100] {
    ///     sum.call(Sum::add, (x,)).wait()?;
    /// }
    /// sum.call(Sum::crash, ()).wait().unwrap_err();
    /// // Once it answers again, its losses are known.
    /// sum.call(Sum::add, (1000,)).wait()?;
    /// let status = sum.status();
    /// assert_eq!((status.worker, status.lost), (Some(0), None));
    /// assert_eq!((status.restarts, status.forgotten), (1, 1), "the call that added 100");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn status(&self) -> ActorStatus {
        match &self.inner.location {
            ActorLocation::Worker { shared, id } => {
                shared.status_of_actor(*id).unwrap_or_else(|| ActorStatus {
                    lost: Some(JobErrorKind::Rejected(Rejection::ActorEnded)),
                    ..ActorStatus::default()
                })
            }
            ActorLocation::Inline(actor, _) => ActorStatus {
                lost: actor.lost(),
                ..ActorStatus::default()
            },
        }
    }
}

/// Returns the options of a call with this deadline.
fn within(limit: Duration) -> JobOptions {
    JobOptions {
        deadline: Some(limit),
        ..JobOptions::default()
    }
}

/// Writes a call of this actor with these arguments.
#[inline]
fn written<A, P>(shared: &Supervisor, id: ActorId, args: A) -> CallWriter
where
    A: Args<'static, P>,
    P: Params,
{
    let mut call = CallWriter(ArgWriter::new(shared.arena.id()));
    call.0.word(id.key());
    args.send(&mut call);
    call
}

/// Runs a method on this thread.
fn call_inline<S, F, A, P, R>(
    actor: &InlineActor<S>,
    seeds: &Seeds,
    method: F,
    args: A,
) -> Job<R::Out>
where
    F: Method<S, P, R>,
    A: Args<'static, P::Params>,
    P: MethodParams,
    R: Reply,
{
    let name = std::any::type_name::<F>();
    let _job = seeds.begin_inline(0);
    let called = actor.call(|state| {
        let held = held::<P::Params>(name, args)?;
        run_inline(name, || method.call(state, held, Key::new()).into_value())
    });
    Job::ready(called.unwrap_or_else(|why| Err(Failed::new(why, name, 0).into())))
}

impl<S: Send + 'static> Inner<S> {
    fn end(&self) {
        match &self.location {
            ActorLocation::Worker { shared, id } => shared.end_actor(*id),
            ActorLocation::Inline(actor, _) => actor.end(),
        }
        if let Some(name) = &self.name {
            name.give_back(std::ptr::from_ref(self).cast());
        }
    }
}

impl<S: Send + 'static> Drop for Inner<S> {
    fn drop(&mut self) {
        self.end();
    }
}

impl<S: Send + 'static> Clone for Actor<S> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

impl<S: Send + 'static> fmt::Debug for Actor<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Actor");
        if let Some(name) = self.name() {
            out.field("name", &name);
        }
        if let ActorLocation::Worker { id, .. } = &self.inner.location {
            out.field("id", id);
        }
        out.finish_non_exhaustive()
    }
}
