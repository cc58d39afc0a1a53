//! State that stays in its worker between jobs, and the programs that create and change it.
//!
//! | program | its words | what it does |
//! |---|---|---|
//! | [`Start`] | key, arguments | runs the initial kernel and retains the state that it returns |
//! | [`Restore`] | key, array, arguments | runs the kernel that restores the state from a checkpoint, and retains it |
//! | [`Call`] | key, arguments | runs a method on the state |
//! | [`Save`] | key | runs the kernel that makes a checkpoint |
//! | [`End`] | key | drops the state |
//!
//! States are in a table of the lane's thread. A key consists of an index into the table and a generation, so the key
//! of an actor that has ended never finds another actor. The type of the state is checked too.
//!
//! Arrays among the arguments of the initial kernel may stay in the state. Handles to them are counted for the actor,
//! not for the job, and the supervisor leases the arrays for as long as the state may exist. All other handles belong
//! to the job. In a lane that retains escaped arrays there is no such difference: the lane retains all arrays in a
//! state, whichever job they came from.

use std::any::{Any, type_name};
use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::Arc;

use super::arity::for_each_arity;
use super::entry::{Kernel, Params, Program, params_sealed, zst_value};
use super::error::{KernelError, Returned, Typed};
use super::failure::{BadArgument, Failure};
use super::host::{Host, Unreachable};
use super::param::{HostRef, Key, Param, Words};
use super::reply::{BadReply, Reply};
use crate::arena::{ArenaFull, Extent};
use crate::array::{FileName, LaneChunk, LaneCount, SealedFile, lane};

/// The return type of an actor's initial kernel: the state `S`, or a `Result` with it. This trait is sealed.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a state of type `{S}`",
    label = "the initial kernel of an actor returns its state, or a `Result` with it"
)]
pub trait Initial<S>: initial_sealed::Sealed<S> {
    #[doc(hidden)]
    fn into_state(self) -> Result<S, Returned>;
    #[doc(hidden)]
    fn check_error(_: &Returned) -> Result<(), BadReply> {
        Err(BadReply)
    }
}

mod initial_sealed {
    pub trait Sealed<S> {}
}

impl<S> initial_sealed::Sealed<S> for S {}
impl<S> Initial<S> for S {
    fn into_state(self) -> Result<S, Returned> {
        Ok(self)
    }
}

impl<S, E: Display> initial_sealed::Sealed<S> for Result<S, E> {}
impl<S, E: Display> Initial<S> for Result<S, E> {
    fn into_state(self) -> Result<S, Returned> {
        self.map_err(|error| error.to_string().into())
    }
}

impl<S, E: KernelError> initial_sealed::Sealed<S> for Result<S, Typed<E>> {}
impl<S, E: KernelError> Initial<S> for Result<S, Typed<E>> {
    fn into_state(self) -> Result<S, Returned> {
        self.map_err(|error| Returned::encode(&error.0))
    }
    fn check_error(error: &Returned) -> Result<(), BadReply> {
        error.value::<E>().map(drop).ok_or(BadReply)
    }
}

/// A method of an actor whose state is `S`: a function, or a closure that captures nothing, that takes `&mut S` or `&S`
/// and up to 7 kernel parameters. `P` describes the receiver and the parameters. This trait is sealed.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a method of an actor whose state is `{S}`",
    label = "cannot be called on this actor",
    note = "a method takes `&mut {S}` or `&{S}` and up to 7 kernel parameters"
)]
pub trait Method<S, P: MethodParams, R>: Copy + Send + 'static {
    #[doc(hidden)]
    fn call(self, state: &mut S, held: <P::Params as Params>::Held, key: Key) -> R;
}

/// The receiver and the parameters of a method: [`ByMut`] or [`ByRef`]. This trait is sealed.
pub trait MethodParams: params_sealed::Sealed {
    /// The parameters after the receiver.
    type Params: Params;
}

/// A method that takes `&mut S`.
#[derive(Debug)]
pub struct ByMut<P>(PhantomData<P>);
/// A method that takes `&S`.
#[derive(Debug)]
pub struct ByRef<P>(PhantomData<P>);

impl<P> params_sealed::Sealed for ByMut<P> {}
impl<P: Params> MethodParams for ByMut<P> {
    type Params = P;
}
impl<P> params_sealed::Sealed for ByRef<P> {}
impl<P: Params> MethodParams for ByRef<P> {
    type Params = P;
}

macro_rules! impl_method {
    // A method takes the receiver and up to 7 parameters, one parameter less than a kernel.
    ($p0:ident $a0:ident $x0:ident $i0:tt $(, $p:ident $a:ident $x:ident $i:tt)*) => {
        impl<Func, State, Ret, $($p),*> Method<State, ByMut<($($p,)*)>, Ret> for Func
        where
            Ret: Reply,
            $($p: Param,)*
            Func: Copy + Send + 'static
                + Fn(&mut State, $($p),*) -> Ret
                + for<'j> Fn(&mut State, $($p::At<'j>),*) -> Ret,
        {
            #[inline]
            #[allow(unused_variables, reason = "for a method without parameters")]
            fn call(self, state: &mut State, held: ($($p::Held,)*), key: Key) -> Ret {
                let ($(mut $x,)*) = held;
                self(state, $($p::at(&mut $x, key)),*)
            }
        }

        impl<Func, State, Ret, $($p),*> Method<State, ByRef<($($p,)*)>, Ret> for Func
        where
            Ret: Reply,
            $($p: Param,)*
            Func: Copy + Send + 'static
                + Fn(&State, $($p),*) -> Ret
                + for<'j> Fn(&State, $($p::At<'j>),*) -> Ret,
        {
            #[inline]
            #[allow(unused_variables, reason = "for a method without parameters")]
            fn call(self, state: &mut State, held: ($($p::Held,)*), key: Key) -> Ret {
                let ($(mut $x,)*) = held;
                let state: &State = state;
                self(state, $($p::at(&mut $x, key)),*)
            }
        }
    };
    () => {};
}
for_each_arity!(impl_method);

// ---- the table of states ---------------------------------------------------------------------------

/// Returns the key of an actor in its worker: its index in the table, and the generation of that index.
pub(crate) fn key(index: u32, generation: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(index)
}

/// A state. A running method borrows it, so the state stays in the table even if the method panics.
type StateCell = Rc<RefCell<Box<dyn Any>>>;

/// One actor of this lane.
struct ActorState {
    key: u64,
    state: StateCell,
    /// Counts the handles to the arrays among the initial kernel's arguments.
    count: &'static LaneCount,
}

thread_local! {
    /// The actors of this lane, by the index in their keys.
    static STATES: RefCell<Vec<Option<ActorState>>> = const { RefCell::new(Vec::new()) };
    /// Counters that no actor uses, for new actors.
    static COUNTS: RefCell<Vec<&'static LaneCount>> = const { RefCell::new(Vec::new()) };
    /// The counter of the actor that the running job calls.
    static CALLED: Cell<Option<&'static LaneCount>> = const { Cell::new(None) };
}

/// Removes and returns a state of this thread's lane. Called when the process is about to end.
pub(crate) fn take_state() -> Option<Box<dyn Any>> {
    let take = |entry: Option<ActorState>| Some(Rc::into_inner(entry?.state)?.into_inner());
    STATES.with_borrow_mut(|states| std::iter::from_fn(|| states.pop()).find_map(take))
}

/// Returns true if this thread's lane hosts an actor.
pub(crate) fn has_states() -> bool {
    STATES.with_borrow(|states| states.iter().any(Option::is_some))
}

/// Called when a job begins on this thread: forgets which actor the previous job called.
#[inline]
pub(crate) fn begin_job() {
    CALLED.set(None);
}

/// Returns true if `count` is the counter of the actor that the running job calls. The job may return arrays whose
/// handles this counter counts without copying them.
pub(super) fn counts_for_actor(count: &'static LaneCount) -> bool {
    CALLED
        .get()
        .is_some_and(|called| std::ptr::eq(called, count))
}

/// Runs `f` on the table entry of an actor, or returns an error if the actor is not in this lane.
fn with_entry<R>(key: u64, f: impl FnOnce(&mut Option<ActorState>) -> R) -> Result<R, Failure> {
    STATES.with_borrow_mut(|states| match states.get_mut(key as u32 as usize) {
        Some(entry) if entry.as_ref().is_some_and(|actor| actor.key == key) => Ok(f(entry)),
        _ => Err(unknown()),
    })
}

/// Returns the error for a call whose actor is not in this lane. It shows a defect: the supervisor sends a call only to
/// the lane of its actor.
fn unknown() -> Failure {
    Failure::Rejected(BadArgument::Unreachable(
        "the actor is not in this worker".into(),
    ))
}

/// Owns the counter of an actor's handles. If a handle is left when this is dropped, the running job counts as having
/// leaked that handle.
struct Handles {
    count: &'static LaneCount,
    /// The counter of the running job, to which a handle that is left is attributed.
    job: &'static LaneCount,
}

impl Handles {
    fn new(host: &dyn Host) -> Self {
        let used = COUNTS.with_borrow_mut(Vec::pop);
        Self {
            count: used.unwrap_or_else(|| Box::leak(Box::new(LaneCount::new()))),
            job: host.count(),
        }
    }

    fn into_count(self) -> &'static LaneCount {
        let count = self.count;
        std::mem::forget(self);
        count
    }
}

impl Drop for Handles {
    fn drop(&mut self) {
        if self.count.live() == 0 {
            COUNTS.with_borrow_mut(|counts| counts.push(self.count));
        } else {
            lane::leak_handle(self.job);
        }
    }
}

/// A host that passes all calls to the lane, but counts handles for an actor.
struct ActorHost<'a> {
    host: &'a dyn Host,
    count: &'static LaneCount,
}

// SAFETY: the memory is the lane's, so the lane's own guarantee holds until the job ends. After that, the supervisor
// keeps its lease on arrays that the initial kernel read until the state is dropped or its process has ended, or the
// lane retains them while handles exist: no process writes them. Nothing is lent.
unsafe impl Host for ActorHost<'_> {
    fn read(&self, extent: Extent) -> Result<NonNull<u8>, Unreachable> {
        self.host.read(extent)
    }
    fn lend(&self, _: Extent, _: u64, _: bool) -> Result<NonNull<u8>, Unreachable> {
        Err(Unreachable(
            "an actor cannot retain an array that others will change".into(),
        ))
    }
    fn open_file(&self, name: FileName, bytes: (u64, u64)) -> Result<Arc<SealedFile>, BadArgument> {
        self.host.open_file(name, bytes)
    }
    fn count(&self) -> &'static LaneCount {
        self.count
    }
    fn count_of(&self, extent: Extent) -> &'static LaneCount {
        match self.host.retains() {
            true => self.host.count_of(extent),
            false => self.count,
        }
    }
    fn alloc(&self, len: usize) -> Result<LaneChunk, ArenaFull> {
        self.host.alloc(len)
    }
}

/// Creates a state and adds it to the table.
fn start<P: Params, O: Initial<S>, S: 'static>(
    words: &mut Words<'_>,
    host: &HostRef<'_>,
    make: impl FnOnce(P::Held) -> O,
) -> Result<(), Failure> {
    let key = words.0.word()?;
    // Declared first, so that `handles` is dropped last, when the handles to arrays have been dropped.
    let handles = Handles::new(host.0);
    let host = ActorHost {
        host: host.0,
        count: handles.count,
    };
    let held = P::receive(words, &HostRef(&host))?;
    let state: S = make(held).into_state().map_err(Failure::Returned)?;
    crate::sync::point!("state.made");
    let actor = ActorState {
        key,
        state: Rc::new(RefCell::new(Box::new(state))),
        count: handles.into_count(),
    };
    let index = key as u32 as usize;
    let before = STATES.with_borrow_mut(|states| {
        if states.len() <= index {
            states.resize_with(index + 1, || None);
        }
        states[index].replace(actor)
    });
    debug_assert!(before.is_none(), "an index is used by one actor at a time");
    crate::sync::point!("state.retained");
    Ok(())
}

/// Returns the state of an actor for the running job, and records that the job calls this actor.
fn lend(key: u64) -> Result<StateCell, Failure> {
    let found = with_entry(key, |entry| {
        let actor = entry.as_ref()?;
        CALLED.set(Some(actor.count));
        Some(Rc::clone(&actor.state))
    })?;
    found.ok_or_else(unknown)
}

// ---- programs --------------------------------------------------------------------------------------

/// Creates the state of an actor.
#[derive(Debug)]
pub struct Start<F, P, O, S>(PhantomData<fn(F, P, O) -> S>);
/// Creates the state of an actor from a checkpoint.
#[derive(Debug)]
pub struct Restore<F, P, O, S>(PhantomData<fn(F, P, O) -> S>);
/// Runs a method.
#[derive(Debug)]
pub struct Call<F, S, P, R>(PhantomData<fn(F, S, P) -> R>);
/// Makes a checkpoint.
#[derive(Debug)]
pub struct Save<F, S, P, R>(PhantomData<fn(F, S, P) -> R>);
/// Drops the state of an actor.
#[derive(Debug)]
pub struct End<S>(PhantomData<fn(S)>);

macro_rules! starts {
    ($($program:ident)*) => { $(
        impl<F, P, O, S> params_sealed::Sealed for $program<F, P, O, S> {}
        impl<F, P, O, S> Program for $program<F, P, O, S>
        where
            F: Kernel<P, O>,
            P: Params,
            O: Initial<S>,
            S: 'static,
        {
            type Reply = ();
            type Id = $program<F, (), (), S>;
            fn name() -> &'static str {
                type_name::<F>()
            }
            fn run(words: &mut Words<'_>, host: &HostRef<'_>) -> Result<(), Failure> {
                start::<P, O, S>(words, host, |held| zst_value::<F>().call(held, Key::new()))
            }
            fn check_error(error: &Returned) -> Result<(), BadReply> {
                O::check_error(error)
            }
        }
    )* };
}
starts!(Start Restore);

macro_rules! calls {
    ($($program:ident $over:literal)*) => { $(
        impl<F, S, P, R> params_sealed::Sealed for $program<F, S, P, R> {}
        impl<F, S, P, R> Program for $program<F, S, P, R>
        where
            F: Method<S, P, R>,
            S: 'static,
            P: MethodParams,
            R: Reply,
        {
            type Reply = R;
            type Id = $program<F, S, (), ()>;
            fn name() -> &'static str {
                type_name::<F>()
            }
            #[inline]
            fn run(words: &mut Words<'_>, host: &HostRef<'_>) -> Result<R, Failure> {
                const { assert!(!R::SPAWNS, "a method of an actor cannot spawn jobs: the calls after it would wait for them") };
                let key = words.0.word()?;
                let held = P::Params::receive(words, host)?;
                let value = {
                    let cell = lend(key)?;
                    let mut state = cell.try_borrow_mut().map_err(|_| unknown())?;
                    let state = (**state).downcast_mut::<S>().ok_or_else(unknown)?;
                    crate::sync::point!("state.lent");
                    let value = zst_value::<F>().call(state, held, Key::new());
                    crate::sync::point!($over);
                    value
                };
                crate::sync::point!("state.back");
                Ok(value)
            }
        }
    )* };
}
calls!(Call "state.called" Save "state.saved");

impl<S> params_sealed::Sealed for End<S> {}
impl<S: 'static> Program for End<S> {
    type Reply = ();
    type Id = Self;
    fn name() -> &'static str {
        type_name::<S>()
    }
    fn run(words: &mut Words<'_>, host: &HostRef<'_>) -> Result<(), Failure> {
        let key = words.0.word()?;
        let Some(actor) = with_entry(key, Option::take)? else {
            return Err(unknown());
        };
        // `_handles` is dropped after the state, even if dropping the state panics.
        let _handles = Handles {
            count: actor.count,
            job: host.0.count(),
        };
        drop(actor.state);
        crate::sync::point!("state.dropped");
        Ok(())
    }
}
