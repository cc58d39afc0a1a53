//! Starting an actor: [`ActorBuilder`].

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use super::names::Name;
use super::{Actor, ActorLocation, ActorNameError, InlineActor, Inner};
use crate::array::{Array, Element};
use crate::engine::job::run_inline;
use crate::engine::{Engine, FailedDependency, JobErrorKind};
use crate::kernel::actor::{End, Restore, Save, Start};
use crate::kernel::wire::ArgWriter;
use crate::kernel::{
    Arg, Args, Bind, CallWriter, Failure, Initial, Kernel, KernelInfo, Key, Method, MethodParams,
    Params, Reply, RetrySafe, SplitFirst, captures_nothing,
};
use crate::supervisor::{ActorPlan, CheckpointPlan};

/// An actor under construction: see [`Engine::actor`].
#[must_use = "an actor under construction does nothing until it is started"]
pub struct ActorBuilder<'e, A, S> {
    engine: &'e Engine,
    args: A,
    /// Creates the state on this thread.
    make: fn(A) -> Result<S, Failure>,
    /// Writes the arguments into the call.
    send: fn(A, &mut CallWriter),
    start: KernelInfo,
    checkpoints: Option<CheckpointPlan>,
    state: PhantomData<fn() -> S>,
}

impl Engine {
    /// Builds an actor, which [`start`](ActorBuilder::start) starts: `init` creates a state in a worker, where it
    /// stays, and the actor's methods are called one after the other.
    ///
    /// The state is any Rust value; it never leaves its worker. `init` is a kernel that returns the state, or a
    /// `Result` with it. Arrays among its arguments are only read and may stay in the state without a copy. Arrays that
    /// `init` or a method creates must not stay in the state: they would [escape](crate::WorkerExit::Escaped), which
    /// ends the worker and the actor. (A `Vec` may stay; the array of a checkpoint is passed to the next start.) Never
    /// fails: if there is no state, calls return the reason ([`FailedDependency::Actor`]).
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
    /// let model = engine.actor(load, (&weights,)).start();
    /// assert_eq!(model.call(Model::predict, (2.0,)).wait()?, 6.0);
    /// assert_eq!(model.call(Model::seen, ()).wait()?, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// If `init` returns a `Result`, name the type of the state: `let model: Actor<Model> = engine.actor(open,
    /// ("path",)).start();`.
    ///
    /// By default an actor is lost with its worker; with a [`checkpoint`](ActorBuilder::checkpoint) it continues in
    /// another worker. [`start_named`](ActorBuilder::start_named) gives it a name.
    #[doc(alias = "remote")]
    pub fn actor<F, A, P, O, S>(&self, init: F, args: A) -> ActorBuilder<'_, F::Args, S>
    where
        F: Bind<A>,
        F::Kernel: Kernel<P, O>,
        F::Args: Args<'static, P> + RetrySafe,
        P: Params,
        O: Initial<S>,
        S: Send + 'static,
    {
        const { captures_nothing::<F::Kernel>() };
        // Only the type of `init` is used: its value has no bytes.
        let (_, args) = init.bind(args);
        ActorBuilder {
            engine: self,
            args,
            make: |args: F::Args| {
                let made = crate::kernel::zst_value::<F::Kernel>().call(args.hold(), Key::new());
                made.into_state().map_err(Failure::Returned)
            },
            send: |args, call| args.send(call),
            start: KernelInfo::of::<Start<F::Kernel, P, O, S>>(),
            checkpoints: None,
            state: PhantomData,
        }
    }
}

impl<A, S: Send + 'static> ActorBuilder<'_, A, S> {
    /// Saves a checkpoint after every `every` calls (at least 1): `save` copies what `restore` will need from the state
    /// into an array, which outlives the worker. If the worker dies, `restore` creates the state again in another
    /// worker, from the last such array and the arguments of `init`, and the actor continues with the calls that had
    /// not begun.
    ///
    /// `save` takes `&S` and returns an `Array`, or a `Result` with one. An inline engine saves no checkpoints, because
    /// it has no worker that could be lost.
    ///
    /// The call that ran when the worker died fails with [`FailedDependency::Actor`](crate::FailedDependency::Actor)
    /// and `restarted` set; `forgotten` is the number of calls that were answered after the checkpoint, whose effect is
    /// lost. [`ActorStatus::forgotten`](crate::engine::ActorStatus::forgotten) is the sum of these numbers, including
    /// those of deaths while no call ran. No call runs twice.
    ///
    /// Before the first checkpoint, a restart calls `init` again. A start whose worker dies is repeated until it has
    /// ended [`quarantine_after`](crate::engine::Builder::quarantine_after) workers in a row; a start that panics or
    /// returns an error is not repeated. A restart for which the arena has no room is repeated for about 14 seconds,
    /// during which calls wait, before the actor is lost.
    ///
    /// A `save` that ends its worker is called again after each restart, as long as calls are submitted, because each
    /// successful start resets the count of ended workers.
    /// [`ActorStatus::restarts`](crate::engine::ActorStatus::restarts) shows such a loop.
    ///
    /// ```standalone_crate
    /// use arenite::{Array, Engine, JobErrorKind, FailedDependency};
    ///
    /// struct Sum(u64);
    ///
    /// impl Sum {
    ///     fn add(&mut self, x: u64) -> u64 {
    ///         self.0 += x;
    ///         self.0
    ///     }
    ///     fn crash(&mut self) {
    ///         std::process::abort();
    ///     }
    ///     fn save(&self) -> Array<u64> {
    ///         Array::from_slice(&[self.0])
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
    /// let error = sum.call(Sum::crash, ()).wait().unwrap_err();
    /// assert!(matches!(error.kind(), JobErrorKind::Dependency(FailedDependency::Actor { forgotten: 1, restarted: true, .. })));
    /// // 1 and 10 were saved, 100 was not.
    /// assert_eq!(sum.call(Sum::add, (1000,)).wait()?, 1011);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// `restore` takes the saved array, followed by the arguments that the actor was started with:
    ///
    /// ```
    /// use arenite::{Array, Engine};
    ///
    /// struct Counts {
    ///     bins: Vec<u64>,
    ///     width: f32,
    /// }
    ///
    /// impl Counts {
    ///     fn new(bins: usize, width: f32) -> Self {
    ///         Self { bins: vec![0; bins], width }
    ///     }
    ///     fn restore(saved: &Array<u64>, _bins: usize, width: f32) -> Self {
    ///         Self { bins: saved.to_vec(), width }
    ///     }
    ///     fn save(&self) -> Array<u64> {
    ///         Array::from_slice(&self.bins)
    ///     }
    ///     fn count(&mut self, x: f32) -> u64 {
    ///         let bin = &mut self.bins[(x / self.width) as usize];
    ///         *bin += 1;
    ///         *bin
    ///     }
    /// }
    ///
    /// # let engine = Engine::inline();
    /// let counts = engine
    ///     .actor(Counts::new, (10, 0.5))
    ///     .checkpoint(100, Counts::save, Counts::restore)
    ///     .start();
    /// assert_eq!(counts.call(Counts::count, (1.2,)).wait()?, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn checkpoint<F, P, R, T, G, Q, O>(mut self, every: u64, save: F, restore: G) -> Self
    where
        F: Method<S, P, R>,
        P: MethodParams<Params = ()>,
        R: Reply<Out = Array<T>>,
        T: Element,
        G: Kernel<Q, O>,
        Q: SplitFirst,
        O: Initial<S>,
        A: Args<'static, Q::Rest>,
        Array<T>: Arg<'static, Q::First>,
    {
        // Only the types of `save` and `restore` are used: their values have no bytes.
        let _ = (save, restore);
        let _ = (
            crate::kernel::zst_value::<F>(),
            crate::kernel::zst_value::<G>(),
        );
        self.checkpoints = Some(CheckpointPlan {
            every: every.max(1),
            save: KernelInfo::of::<Save<F, S, P, R>>(),
            restore: KernelInfo::of::<Restore<G, Q, O, S>>(),
            fits: |reply| R::receive(reply).is_ok() && reply.0.words.len() == 0,
        });
        self
    }

    /// Starts the actor. Never fails: if there is no state, calls return the reason.
    pub fn start(self) -> Actor<S> {
        Actor {
            inner: self.start_with(None),
        }
    }

    /// Starts the actor under a name, by which [`Engine::actor_named`] finds it as long as a handle to the actor
    /// exists.
    ///
    /// # Errors
    /// If another actor has the name.
    pub fn start_named(self, name: &str) -> Result<Actor<S>, ActorNameError> {
        let names = self.engine.names.clone();
        let inner = names.give(name, |name| self.start_with(Some(name)));
        match inner {
            Some(inner) => Ok(Actor { inner }),
            None => Err(ActorNameError::Taken { name: name.into() }),
        }
    }

    fn start_with(self, name: Option<Name>) -> Arc<Inner<S>> {
        let location = match self.engine.supervisor() {
            Some(shared) => {
                let mut call = CallWriter(ArgWriter::new(shared.arena.id()));
                (self.send)(self.args, &mut call);
                let id = shared.new_actor(ActorPlan {
                    start: self.start,
                    args: call.0,
                    end: KernelInfo::of::<End<S>>(),
                    checkpoints: self.checkpoints,
                });
                ActorLocation::Worker {
                    shared: Arc::clone(shared),
                    id,
                }
            }
            None => {
                let seeds = Arc::clone(&self.engine.seeds);
                let made = {
                    let _job = seeds.begin_inline(0);
                    run_inline(self.start.name, || (self.make)(self.args))
                };
                let state = made.map_err(|error| {
                    JobErrorKind::Dependency(FailedDependency::Actor {
                        cause: Box::new(error.kind().clone()),
                        forgotten: 0,
                        restarted: false,
                    })
                });
                ActorLocation::Inline(InlineActor::new(state), seeds)
            }
        };
        Arc::new(Inner { location, name })
    }
}

impl<A, S> fmt::Debug for ActorBuilder<'_, A, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ActorBuilder")
            .field("init", &self.start.name)
            .field("checkpoints", &self.checkpoints)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::arena::{Arena, BlockPlacement, Spec};
    use crate::kernel::Receiving;
    use crate::kernel::wire::{ReceivedArray, ReplyReader, WordReader};

    /// A checkpoint from a broken worker must not be passed to the next worker.
    #[test]
    fn a_checkpoint_is_what_its_save_returns() {
        struct Bins(Vec<u64>);
        fn save(bins: &Bins) -> Array<u64> {
            Array::from_slice(&bins.0)
        }
        fn restore(saved: &Array<u64>, _: u32) -> Bins {
            Bins(saved.to_vec())
        }
        let engine = Engine::inline();
        let builder = engine.actor(|len: u32| Bins(vec![0; len as usize]), (10,));
        let plan = builder.checkpoint(1, save, restore).checkpoints.unwrap();
        let arena = Arena::create(&Spec::default()).unwrap();
        let block = Arc::new(arena.alloc(0, 80, BlockPlacement::Packed).unwrap());
        let fits = |words: &[u64]| {
            let received = ReceivedArray {
                block: Arc::clone(&block),
                skip: 0,
                len: 80,
            };
            let arrays = smallvec::SmallVec::from([received]).into_iter();
            let words = WordReader::new(words);
            (plan.fits)(&mut Receiving(ReplyReader { words, arrays }))
        };
        let mut writer = crate::kernel::wire::ReplyWriter::default();
        writer.shape(&[10].into());
        let shape = writer.words.to_vec();
        assert!(fits(&shape));
        writer.shape(&[11].into());
        let larger = &writer.words[shape.len()..];
        assert!(!fits(larger), "larger than the array");
        assert!(
            !fits(&[&shape[..], &[7]].concat()),
            "an additional argument"
        );
        assert!(!fits(&[]) && !fits(&shape[1..]));
    }
}
