//! Kernels that spawn jobs: [`Spawn`].

mod inline;
mod input;

use std::fmt;
use std::marker::PhantomData;

pub(super) use inline::inline_failure;
pub use input::{SpawnInput, SpawnInputs};

use crate::arena::ArenaFull;
use crate::engine::JobError;
use crate::engine::job::run_inline;
use crate::kernel::{
    AnyValue, Args, BadReply, Failure, Giving, Kernel, Key, OwnedParams, Receiving, Reply,
    Returned, Sending, SpawnKernel, Spawning, Unfolded, captures_nothing, reply_sealed, spawning,
    zst_value,
};

/// The return type of a kernel that spawns jobs: a value, or jobs to run first and a kernel that continues with their
/// values.
///
/// If a kernel waited for other jobs, it would block a lane that these jobs may need. So a kernel does not wait: it
/// *returns* the [`call`]s that it needs and a kernel to continue with, and ends. The engine runs the calls, then that
/// kernel with their values as arguments; its result is the value of the job. Each of these kernels may spawn in turn,
/// so recursion works even on a single worker.
///
/// ```
/// use arenite::{Array, Engine, Spawn, call};
///
/// fn sort(values: &Array<i64>) -> Spawn<Array<i64>> {
///     if values.len() <= 4 {
///         let mut sorted = values.to_vec();
///         sorted.sort_unstable();
///         return Array::from_slice(&sorted).into();
///     }
///     let half = values.len() / 2;
///     // Parts of an array are views of it: nothing is copied.
///     let (left, right) = (values.rows(..half), values.rows(half..));
///     Spawn::new(merge, (call(sort, (left,)), call(sort, (right,))))
/// }
///
/// fn merge(left: &[i64], right: &[i64]) -> Array<i64> {
///     let mut merged = Vec::with_capacity(left.len() + right.len());
///     let (mut left, mut right) = (left.iter().peekable(), right.iter().peekable());
///     while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
///         merged.extend(if a <= b { left.next() } else { right.next() });
///     }
///     merged.extend(left.chain(right));
///     Array::from_slice(&merged)
/// }
///
/// let engine = Engine::inline();
/// let values = engine.from_slice(&[5i64, 3, 9, 1, 8, 2, 7, 6, 4, 0])?;
/// let sorted: Array<i64> = engine.submit(sort, (&values,)).wait()?;
/// assert_eq!(sorted[..], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Any number of calls of one type are passed as a `Vec`: for `&[T]` if each returns a number, for `&[Array<T>]` if
/// each returns an array.
///
/// ```
/// use arenite::{Engine, Spawn, call};
///
/// fn leaves(depth: u32) -> Spawn<u64> {
///     match depth {
///         0 => 1.into(),
///         _ => Spawn::new(total, ((0..depth).map(|below| call(leaves, (below,))).collect::<Vec<_>>(),)),
///     }
/// }
/// fn total(parts: &[u64]) -> u64 {
///     parts.iter().sum()
/// }
///
/// assert_eq!(Engine::inline().submit(leaves, (10,)).wait()?, 512);
/// # Ok::<(), arenite::JobError>(())
/// ```
///
/// | where | |
/// |---|---|
/// | [`submit`](crate::Engine::submit), [`job`](crate::Engine::job), [`map`](crate::Engine::map), scopes, stages of a [stream](crate::stream) | a kernel may return `Spawn<R>`; its job has a value of type `R` |
/// | before a [`then`](crate::engine::JobBuilder::then), methods of [actors](crate::Actor) | it does not compile |
/// | under a strict [`Sandbox`](crate::engine::Builder#method.sandbox) | spawning is rejected ([`Rejection::Spawning`](crate::Rejection::Spawning)): a compromised worker could run any kernel |
///
/// ```compile_fail,E0080
/// # fn fib(n: u64) -> arenite::Spawn<u64> { n.into() }
/// let engine = arenite::Engine::inline();
/// // There is no value to pass on before the calls have run: use `Spawn::new(more, (call(fib, (5,)),))`, or two jobs.
/// let job = engine.job(fib, (5,)).then(|n: u64| n + 1, ()).submit();
/// ```
///
/// ```compile_fail,E0080
/// use arenite::Spawn;
///
/// let engine = arenite::Engine::inline();
/// let actor = engine.actor(|| 0u64, ()).start();
/// let job = actor.call(|state: &mut u64| -> Spawn<u64> { (*state).into() }, ());
/// ```
///
/// # Spawned jobs
///
/// - *Each is a job*: counted, traced, with the priority, deadline, limiter and retries of the job that spawned it. The
///   deadline applies to each job separately. Jobs that change an array in place ([`ArrayMut`](crate::ArrayMut)) are
///   not retried.
/// - *The failure* of a spawned job cancels the others. As soon as none of them runs any more, the job that spawned
///   them fails ([`FailedDependency::Child`](crate::FailedDependency::Child), with the cause). Jobs that do not check
///   [`cancelled`](crate::cancelled) are ended after the [`grace`](crate::engine::Builder::grace) period.
/// - *The death of a worker* fails only the job that it ran, which runs again if it has retries. The results of other
///   jobs are not lost.
/// - *Cancelling* or dropping the job cancels all jobs that it has spawned.
/// - *In an inline engine* spawned jobs run on the calling thread, each inside the job that spawned it, with that job's
///   permit of a limiter. Of the limits below, only the depth applies.
/// - *Arrays* that are moved into a call are not copied. An [`ArrayMut`](crate::ArrayMut) parameter gets a copy if the
///   argument is a part of an array, or an array that has another handle.
/// - *Random numbers* ([`rng`](crate::rng)) depend on the job and on the index of the call in its `Spawn`.
/// - *Limits*: a depth of 10,000 jobs, 262,144 open jobs, 4,096 arrays in one `Spawn`. Beyond them the job fails with
///   [`JobLimit::Spawned`](crate::JobLimit::Spawned), or an error that names the limit. A kernel that continues may
///   spawn again any number of times, like a loop.
#[must_use = "return it from the kernel"]
pub struct Spawn<R>(State<R>);

enum State<R> {
    Value(R),
    More(Box<Plan>),
}

/// The jobs to run: the children, then the kernel that continues with their values.
pub(super) struct Plan {
    tasks: Vec<Box<dyn Task>>,
}

impl<R: Reply> Spawn<R> {
    /// Returns a value without spawning; the same as `value.into()`.
    pub fn value(value: R) -> Self {
        Self(State::Value(value))
    }

    /// Runs the calls among `inputs`, then `kernel` with their values in place of the calls. The result of `kernel` is
    /// the value of the job.
    ///
    /// `inputs` is a tuple with one input for each parameter of the kernel: an argument as for
    /// [`submit`](crate::Engine::submit), a [`call`] with a value of the parameter's type (`Array<T>` for `&Array<T>`
    /// and `&[T]`, `String` for `&str`, `Bytes` for `&Bytes`, the same type otherwise), or a `Vec` of such calls for
    /// `&[T]` and `&[Array<T>]`.
    ///
    /// If `inputs` contains no call, `kernel` runs next, as a job of its own on any worker.
    pub fn new<F, P, C, I>(kernel: F, inputs: I) -> Self
    where
        F: Kernel<P, C>,
        P: OwnedParams,
        C: Reply<Out = R::Out>,
        I: SpawnInputs<P>,
    {
        const { captures_nothing::<F>() };
        // Only the type of the kernel is used: its value has no bytes.
        let _ = kernel;
        let mut children = Children(Vec::new());
        let sources = inputs.sources(&mut children);
        let mut tasks = children.0;
        tasks.push(prepared::<F, P, C>(sources));
        Self(State::More(Box::new(Plan { tasks })))
    }
}

impl<R> From<R> for Spawn<R> {
    fn from(value: R) -> Self {
        Self(State::Value(value))
    }
}

impl<R: fmt::Debug> fmt::Debug for Spawn<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            State::Value(value) => f.debug_tuple("Spawn").field(value).finish(),
            State::More(plan) => f
                .debug_struct("Spawn")
                .field("calls", &(plan.tasks.len() - 1))
                .finish(),
        }
    }
}

/// The call of a kernel: an input of a [`Spawn`]. See [`call`].
#[must_use = "a call runs as part of the `Spawn` that it is passed to"]
pub struct Call<V> {
    task: Box<dyn Task>,
    value: PhantomData<fn() -> V>,
}

impl<V> fmt::Debug for Call<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").finish_non_exhaustive()
    }
}

/// Describes a job, to be passed to [`Spawn::new`] in place of its value. Its kernel may spawn as well.
///
/// Arrays among the arguments are passed on without a copy: arguments of the calling kernel, parts of them, and arrays
/// that it has created. Tiles that a scope lends cannot be passed on:
///
/// ```compile_fail,E0277
/// use arenite::{Spawn, TileMut, call};
///
/// fn fill(tile: TileMut<'_, u32>) -> u32 { 0 }
/// fn all(tile: TileMut<'static, u32>) -> Spawn<u32> {
///     Spawn::new(|n: u32| n, (call(fill, (tile,)),))
/// }
/// ```
pub fn call<F, A, P, R>(kernel: F, args: A) -> Call<R::Out>
where
    F: Kernel<P, R>,
    A: Args<'static, P>,
    P: OwnedParams,
    R: Reply,
{
    const { captures_nothing::<F>() };
    // Only the type of the kernel is used: its value has no bytes.
    let _ = kernel;
    Call {
        task: prepared::<F, P, R>(P::sources(args.hold())),
        value: PhantomData,
    }
}

/// The calls among the inputs of a [`Spawn`], in order.
#[allow(missing_debug_implementations, reason = "hidden")]
pub struct Children(Vec<Box<dyn Task>>);

/// The result of a task that ran on this thread.
enum Ran {
    Value(AnyValue),
    More(Box<Plan>),
}

/// A kernel and its arguments.
trait Task: Spawning {
    /// Runs the task on this thread, with the values of the children.
    fn run(self: Box<Self>, values: Vec<AnyValue>) -> Result<Ran, JobError>;
}

/// A task whose parameter types are erased, because they have lifetimes.
struct Prepared<S> {
    sources: S,
    kernel: SpawnKernel,
    arguments: u32,
    give: fn(S, &mut Giving<'_, '_>) -> Result<(), ArenaFull>,
    run: fn(S, Vec<AnyValue>) -> Result<Ran, JobError>,
}

fn prepared<F, P, R>(sources: P::Sources) -> Box<dyn Task>
where
    F: Kernel<P, R>,
    P: OwnedParams,
    R: Reply,
{
    Box::new(Prepared {
        sources,
        kernel: SpawnKernel::of::<F, P, R>(),
        arguments: P::COUNT,
        give: P::give,
        run: |sources, values| {
            let held = P::adopt(sources, &mut values.into_iter());
            let run = || zst_value::<F>().call(held, Key::new()).unfold();
            Ok(match run_inline(std::any::type_name::<F>(), run)? {
                Unfolded::Value(value) => Ran::Value(Box::new(value)),
                Unfolded::More(plan) => Ran::More(inline::plan(plan)),
            })
        },
    })
}

impl<S: Send> Spawning for Prepared<S> {
    fn kernel(&self) -> SpawnKernel {
        self.kernel
    }

    fn arguments(&self) -> u32 {
        self.arguments
    }

    fn give(self: Box<Self>, giving: &mut Giving<'_, '_>) -> Result<(), ArenaFull> {
        (self.give)(self.sources, giving)
    }
}

impl<S: Send> Task for Prepared<S> {
    fn run(self: Box<Self>, values: Vec<AnyValue>) -> Result<Ran, JobError> {
        (self.run)(self.sources, values)
    }
}

impl<R: Reply> reply_sealed::Sealed for Spawn<R> {}
impl<R: Reply> Reply for Spawn<R> {
    type Out = R::Out;
    const SPAWNS: bool = true;
    fn send(self, reply: &mut Sending<'_>) -> Result<(), Failure> {
        match self.0 {
            State::Value(value) => value.send(reply),
            State::More(plan) => spawning(plan.tasks, reply),
        }
    }
    fn receive(reply: &mut Receiving<'_>) -> Result<R::Out, BadReply> {
        R::receive(reply)
    }
    fn into_value(self) -> Result<R::Out, Failure> {
        match self.0 {
            State::Value(value) => value.into_value(),
            State::More(plan) => inline::run(*plan),
        }
    }
    fn check_error(error: &Returned) -> Result<(), BadReply> {
        R::check_error(error)
    }
    fn unfold(self) -> Result<Unfolded<R::Out>, Failure> {
        match self.0 {
            State::Value(value) => value.unfold(),
            State::More(plan) => Ok(Unfolded::More(plan)),
        }
    }
}
