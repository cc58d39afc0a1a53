#![doc = include_str!("README.md")]

mod builder;
mod calling;
mod here;
mod names;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::job::run_here;
use super::seeds::Seeds;
use super::{ActorStatus, Engine, Job, JobErrorKind};
use crate::kernel::actor::Call;
use crate::kernel::wire::ArgWriter;
use crate::kernel::{
    Args, CallWriter, Initial, Kernel, KernelInfo, Key, Method, MethodParams, Params, Reply,
    RetrySafe,
};
use crate::supervisor::{ActorId, Failed, JobOptions, Supervisor};
use crate::sys::debug_as_text;

pub use builder::ActorBuilder;
pub use calling::Calling;
use here::Here;
use names::Name;
pub(super) use names::Names;

/// A handle of a state that lives in one worker: see [`Engine::actor`].
///
/// Handles are cloned and used from any number of threads. When the last one is dropped the actor ends: it answers what it
/// was asked before, and its state is dropped in its worker. What is left when the engine shuts down is dropped there too, within
/// the [grace](crate::engine::Builder::grace), and when the engine is dropped within half a second, by workers without a job. With
/// a worker that is killed or crashes a state is gone without its `drop`.
#[must_use = "an actor ends when its last handle is dropped"]
pub struct Actor<S: Send + 'static> {
    inner: Arc<Inner<S>>,
}

struct Inner<S: Send + 'static> {
    place: ActorPlace<S>,
    name: Option<Name>,
}

enum ActorPlace<S> {
    There {
        shared: Arc<Supervisor>,
        id: ActorId,
    },
    /// Of an inline engine: the state itself, and which random numbers calls draw.
    Here(Here<S>, Arc<Seeds>),
}

/// A name of an actor that cannot be had.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ActorNameError {
    /// Another actor of the engine has it.
    Taken {
        /// The name.
        name: String,
    },
    /// No actor of the engine has it, or no more.
    Unknown {
        /// The name.
        name: String,
    },
    /// The actor of this name has another state.
    OtherState {
        /// The name.
        name: String,
        /// The state that was asked for.
        asked: &'static str,
    },
}

impl fmt::Display for ActorNameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Taken { name } => write!(f, "there is an actor named {name:?} already"),
            Self::Unknown { name } => write!(f, "there is no actor named {name:?}"),
            Self::OtherState { name, asked } => {
                write!(f, "the actor named {name:?} has another state than {asked}")
            }
        }
    }
}

impl std::error::Error for ActorNameError {}

debug_as_text!(ActorNameError);

impl Engine {
    /// Starts an actor: `init` makes a state in a worker, where it stays, and methods of it are called one after the other.
    ///
    /// The state is any Rust value; it never leaves its worker. `init` is a kernel that returns it, or a `Result` with it.
    /// What it was given is only read, and arrays among it may stay in the state: nothing is copied. No others may: an array that
    /// `init` makes and keeps, or a method, has [escaped](JobErrorKind::Escaped), which ends the worker and so the actor. (A `Vec`
    /// may stay; a checkpoint's array is given to the next start.) Never fails: if there is no state, calls answer why
    /// ([`ActorLost`](JobErrorKind::ActorLost)).
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// use arenite::Array;
    ///
    /// struct Model { weights: Array<f32>, seen: u64 }
    ///
    /// fn load(weights: &Array<f32>) -> Model {
    ///     Model { weights: weights.clone(), seen: 0 }
    /// }
    ///
    /// impl Model {
    ///     fn predict(&mut self, x: f32) -> f32 {
    ///         self.seen += 1;
    ///         self.weights.iter().map(|w| w * x).sum()
    ///     }
    ///     fn seen(&self) -> u64 {
    ///         self.seen
    ///     }
    /// }
    ///
    /// let weights = engine.from_slice(&[1.0f32, 2.0])?;
    /// let model = engine.actor(load, (&weights,));
    /// assert_eq!(model.call(Model::predict, (2.0,)).wait()?, 6.0);
    /// assert_eq!(model.call(Model::seen, ()).wait()?, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// With an `init` that may fail the state has to be named: `let model: Actor<Model> = engine.actor(open, ("path",));`.
    ///
    /// By default an actor is lost with its worker; [`actor_builder`](Engine::actor_builder) makes one that goes on
    /// from checkpoints, or has a name.
    #[doc(alias = "remote")]
    pub fn actor<F, A, P, O, S>(&self, init: F, args: A) -> Actor<S>
    where
        F: Kernel<P, O>,
        A: Args<'static, P> + RetrySafe,
        P: Params,
        O: Initial<S>,
        S: Send + 'static,
    {
        self.actor_builder(init, args).start()
    }

    /// The actor of this name, as long as somebody has a handle of it and it was not stopped.
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
    /// let list = engine.actor_builder(Vec::<u32>::new, ()).start_named("list")?;
    /// // Elsewhere in the program:
    /// let same: Actor<Vec<u32>> = engine.actor_named("list")?;
    /// assert_eq!(same.call(push, (7,)).wait()?, 1);
    /// assert_eq!(list.call(push, (8,)).wait()?, 2);
    /// assert!(engine.actor_named::<String>("list").is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// There is none of this name, or its state is of another type.
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
    /// Calls run one after the other, in the order in which they were made, each at most once. What the method returns is
    /// the answer; an `Err` or a panic leaves the actor alive, with its state as the method left it. If the worker dies, the
    /// call that ran answers [`ActorLost`](JobErrorKind::ActorLost) with the cause, as do all that follow, unless the
    /// actor goes on from a [checkpoint](ActorBuilder::checkpoint).
    ///
    /// With [`Engine::inline`] the call runs here, before this returns. So a method that calls its own actor, by a handle in a
    /// `static`, say, would wait for itself: that call answers [`WaitsForItself`](JobErrorKind::WaitsForItself).
    ///
    /// Where there is a ceiling ([`admission`](crate::engine::Builder::admission)) this waits until the call is let in; in `async`
    /// code say [`call_async`](Actor::call_async) there.
    ///
    /// [`Job::cancel`] and dropping the job do what they do to any job. [`Job::cancel_now`] ends a call that runs with its
    /// worker, and so the actor: the answer is `ActorLost` because of `Cancelled`.
    pub fn call<F, A, P, R>(&self, method: F, args: A) -> Job<R::Out>
    where
        F: Method<S, P, R>,
        A: Args<'static, P::Params>,
        P: MethodParams,
        R: Reply,
    {
        self.send(method, args, None)
    }

    /// As [`call`](Actor::call), but a call that runs longer than this is ended with its worker, and the actor with it: it
    /// answers [`ActorLost`](JobErrorKind::ActorLost) because of `DeadlineExceeded`. Waiting for the calls
    /// before it does not count. An inline engine cannot end what runs.
    pub fn call_within<F, A, P, R>(&self, limit: Duration, method: F, args: A) -> Job<R::Out>
    where
        F: Method<S, P, R>,
        A: Args<'static, P::Params>,
        P: MethodParams,
        R: Reply,
    {
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
        match &self.inner.place {
            ActorPlace::There { shared, id } => {
                let mut call = written(shared, *id, args);
                let info = KernelInfo::of::<Call<F, S, P, R>>();
                let job = shared.call_actor(*id, &info, &mut call.0, options);
                Job::submitted(shared, job, R::receive, ())
            }
            ActorPlace::Here(here, seeds) => call_here(here, seeds, method, args),
        }
    }

    /// Ends the actor when it has answered all calls made so far: its state is dropped in its worker, and its name is
    /// free. Calls that come later answer [`ActorEnded`](JobErrorKind::ActorEnded).
    ///
    /// ```
    /// # let engine = arenite::Engine::inline();
    /// use arenite::JobErrorKind;
    ///
    /// let list = engine.actor(Vec::<u32>::new, ());
    /// list.stop();
    /// let error = list.call(|list: &Vec<u32>| list.len(), ()).wait().unwrap_err();
    /// assert_eq!(*error.kind(), JobErrorKind::ActorEnded);
    /// ```
    pub fn stop(&self) {
        self.inner.end();
    }

    /// Its name, if it has one.
    pub fn name(&self) -> Option<&str> {
        self.inner.name.as_ref().map(|name| name.name.as_str())
    }

    /// How it fares at this moment.
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
    ///     .actor_builder(|| Sum(0), ())
    ///     .checkpoint(2, Sum::save, |saved: &Array<u64>| Sum(saved[0]))
    ///     .start();
    /// for x in [1, 10, 100] {
    ///     sum.call(Sum::add, (x,)).wait()?;
    /// }
    /// sum.call(Sum::crash, ()).wait().unwrap_err();
    /// // As soon as it answers again, everything is known of what it has lost.
    /// sum.call(Sum::add, (1000,)).wait()?;
    /// let status = sum.status();
    /// assert_eq!((status.worker, status.lost), (Some(0), None));
    /// assert_eq!((status.restarts, status.forgotten), (1, 1), "the call that added 100");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn status(&self) -> ActorStatus {
        match &self.inner.place {
            ActorPlace::There { shared, id } => {
                shared.status_of_actor(*id).unwrap_or_else(|| ActorStatus {
                    lost: Some(JobErrorKind::ActorEnded),
                    ..ActorStatus::default()
                })
            }
            ActorPlace::Here(here, _) => ActorStatus {
                lost: here.lost(),
                ..ActorStatus::default()
            },
        }
    }
}

/// The options of a call that may run so long.
fn within(limit: Duration) -> JobOptions {
    JobOptions {
        deadline: Some(limit),
        ..JobOptions::default()
    }
}

/// A call of this actor with these arguments.
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

/// Runs a method in this thread.
fn call_here<S, F, A, P, R>(here: &Here<S>, seeds: &Seeds, method: F, args: A) -> Job<R::Out>
where
    F: Method<S, P, R>,
    A: Args<'static, P::Params>,
    P: MethodParams,
    R: Reply,
{
    let name = std::any::type_name::<F>();
    let _job = seeds.here(0);
    let called = here.call(|state| {
        let held = args.hold();
        run_here(name, || method.call(state, held, Key::new()).into_value())
    });
    Job::here(called.unwrap_or_else(|why| Err(Failed::new(why, name, 0).into())))
}

impl<S: Send + 'static> Inner<S> {
    fn end(&self) {
        match &self.place {
            ActorPlace::There { shared, id } => shared.end_actor(*id),
            ActorPlace::Here(here, _) => here.end(),
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
        if let ActorPlace::There { id, .. } = &self.inner.place {
            out.field("id", id);
        }
        out.finish_non_exhaustive()
    }
}
