//! State that stays in its worker between jobs, and the kernels that make it and change it.
//!
//! | program | its words | what it does |
//! |---|---|---|
//! | [`Start`] | key, arguments | runs the initial kernel, keeps what it returns |
//! | [`Restore`] | key, array, arguments | the same from a checkpoint |
//! | [`Call`] | key, arguments | runs a method on what is kept |
//! | [`Save`] | key | runs the kernel that makes a checkpoint |
//! | [`End`] | key | drops it |
//!
//! States lie in a table of the lane's thread. The key names the place in it, and a generation, so that nothing is ever
//! found under the key of an actor that is gone. What lies there is looked at by its type as well.
//!
//! Arrays that the initial kernel was given may stay in the state: they are counted for the actor, not for the job, and the
//! supervisor holds them as long as it believes that the state exists. All other handles are the job's.

use std::any::{Any, type_name};
use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::rc::Rc;

use super::entry::{Failure, Params, Program, Stopped, conjure, params_sealed};
use super::host::{Host, Unreachable};
use super::param::{BadArgument, HostRef, Key, Param, Rejected, Words};
use super::reply::Reply;
use crate::arena::{ArenaFull, Extent};
use crate::array::{LaneChunk, LaneCount, lane};

/// What the initial kernel of an actor returns: its state `S`, or a `Result` with one. Sealed.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a state of type `{S}`",
    label = "the initial kernel of an actor returns its state, or a `Result` with it"
)]
pub trait Initial<S>: initial_sealed::Sealed<S> {
    #[doc(hidden)]
    fn into_state(self) -> Result<S, String>;
}

mod initial_sealed {
    pub trait Sealed<S> {}
}

impl<S> initial_sealed::Sealed<S> for S {}
impl<S> Initial<S> for S {
    fn into_state(self) -> Result<S, String> {
        Ok(self)
    }
}

impl<S, E: Display> initial_sealed::Sealed<S> for Result<S, E> {}
impl<S, E: Display> Initial<S> for Result<S, E> {
    fn into_state(self) -> Result<S, String> {
        self.map_err(|error| error.to_string())
    }
}

/// A kernel that makes the state of an actor: a function of up to 8 parameters `P`, or a closure that captures nothing,
/// which returns `O`. Sealed.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot make the state of an actor",
    label = "not an initial kernel",
    note = "an initial kernel is a function, or a closure that captures nothing, of up to 8 parameters that returns the state or a `Result` with it"
)]
pub trait Init<P: Params, O>: Copy + Send + 'static {
    #[doc(hidden)]
    fn make(self, held: P::Held, key: Key) -> O;
}

/// A method of an actor whose state is `S`: a function, or a closure that captures nothing, which takes `&mut S` or `&S`
/// and up to 7 parameters. `P` names them and the receiver. Sealed.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a method of an actor whose state is `{S}`",
    label = "cannot be called on this actor",
    note = "a method takes `&mut {S}` or `&{S}` and up to 7 kernel parameters"
)]
pub trait Method<S, P: MethodParams, R>: Copy + Send + 'static {
    #[doc(hidden)]
    fn call(self, state: &mut S, held: <P::Params as Params>::Held, key: Key) -> R;
}

/// What a method takes: its receiver, and its parameters. Sealed.
pub trait MethodParams: params_sealed::Sealed {
    /// The parameters behind the receiver.
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

macro_rules! methods {
    ($(($($p:ident $x:ident),*))+) => { $(
        impl<Func, Ret, $($p),*> Init<($($p,)*), Ret> for Func
        where
            $($p: Param,)*
            Func: Copy + Send + 'static
                + Fn($($p),*) -> Ret
                + for<'j> Fn($($p::At<'j>),*) -> Ret,
        {
            #[allow(unused_variables, reason = "for one without parameters")]
            fn make(self, held: ($($p::Held,)*), key: Key) -> Ret {
                let ($(mut $x,)*) = held;
                self($($p::at(&mut $x, key)),*)
            }
        }

        impl<Func, State, Ret, $($p),*> Method<State, ByMut<($($p,)*)>, Ret> for Func
        where
            Ret: Reply,
            $($p: Param,)*
            Func: Copy + Send + 'static
                + Fn(&mut State, $($p),*) -> Ret
                + for<'j> Fn(&mut State, $($p::At<'j>),*) -> Ret,
        {
            #[inline]
            #[allow(unused_variables, reason = "for one without parameters")]
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
            #[allow(unused_variables, reason = "for one without parameters")]
            fn call(self, state: &mut State, held: ($($p::Held,)*), key: Key) -> Ret {
                let ($(mut $x,)*) = held;
                let state: &State = state;
                self(state, $($p::at(&mut $x, key)),*)
            }
        }
    )+ };
}
methods! {
    ()
    (P0 x0)
    (P0 x0, P1 x1)
    (P0 x0, P1 x1, P2 x2)
    (P0 x0, P1 x1, P2 x2, P3 x3)
    (P0 x0, P1 x1, P2 x2, P3 x3, P4 x4)
    (P0 x0, P1 x1, P2 x2, P3 x3, P4 x4, P5 x5)
    (P0 x0, P1 x1, P2 x2, P3 x3, P4 x4, P5 x5, P6 x6)
}

// ---- where states lie ------------------------------------------------------------------------------

/// Names an actor in its worker: an index, and how often that was used before.
pub(crate) fn key(index: u32, generation: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(index)
}

/// A state, which a method that runs on it has borrowed: it is in its place all the time, also when that panics.
type Shared = Rc<RefCell<Box<dyn Any>>>;

/// One actor of this lane.
struct Kept {
    key: u64,
    state: Shared,
    /// Counts the handles that the initial kernel was given.
    count: &'static LaneCount,
}

thread_local! {
    /// By the index in their keys.
    static KEPT: RefCell<Vec<Option<Kept>>> = const { RefCell::new(Vec::new()) };
    /// Counters that no actor has.
    static COUNTS: RefCell<Vec<&'static LaneCount>> = const { RefCell::new(Vec::new()) };
    /// That of the actor which the running job calls.
    static CALLED: Cell<Option<&'static LaneCount>> = const { Cell::new(None) };
}

/// Takes one of the states of this thread's lane, for good: the process is about to end.
pub(crate) fn take_state() -> Option<Box<dyn Any>> {
    let take = |place: Option<Kept>| Some(Rc::into_inner(place?.state)?.into_inner());
    KEPT.with_borrow_mut(|kept| std::iter::from_fn(|| kept.pop()).find_map(take))
}

/// Another job begins on this thread, which has called no actor yet.
#[inline]
pub(crate) fn begin_job() {
    CALLED.set(None);
}

/// Does this counter count what the actor was given which the running job calls? That may be sent back where it lies.
pub(super) fn counts_for_actor(count: &'static LaneCount) -> bool {
    CALLED
        .get()
        .is_some_and(|called| std::ptr::eq(called, count))
}

/// Runs `f` on the place of an actor, if it is here.
fn at<R>(key: u64, f: impl FnOnce(&mut Option<Kept>) -> R) -> Result<R, Stopped> {
    KEPT.with_borrow_mut(|kept| match kept.get_mut(key as u32 as usize) {
        Some(place) if place.as_ref().is_some_and(|kept| kept.key == key) => Ok(f(place)),
        _ => Err(unknown()),
    })
}

/// The supervisor sends calls only where their actor is.
fn unknown() -> Stopped {
    Stopped(Failure::Rejected(BadArgument::Unreachable(
        "the actor is not in this worker".into(),
    )))
}

/// Counts the handles that an actor was given. When it goes they have to be gone, too.
struct Handles {
    count: &'static LaneCount,
    /// Who has to answer for one that is left: the job that runs.
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

    fn keep(self) -> &'static LaneCount {
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
            lane::blame(self.job);
        }
    }
}

/// The lane, but that handles are counted for an actor.
struct ActorHost<'a> {
    host: &'a dyn Host,
    count: &'static LaneCount,
}

// SAFETY: memory is that of the lane, under the lane's own promise for the length of the job. Beyond it the supervisor
// holds what the initial kernel may read until the state is dropped or its process is gone, and nothing is lent.
unsafe impl Host for ActorHost<'_> {
    fn read(&self, extent: Extent) -> Result<NonNull<u8>, Unreachable> {
        self.host.read(extent)
    }
    fn lend(&self, _: Extent, _: u64) -> Result<NonNull<u8>, Unreachable> {
        Err(Unreachable(
            "an actor keeps nothing that others will change".into(),
        ))
    }
    fn count(&self) -> &'static LaneCount {
        self.count
    }
    fn alloc(&self, len: usize) -> Result<LaneChunk, ArenaFull> {
        self.host.alloc(len)
    }
}

/// Makes a state and keeps it.
fn start<P: Params, O: Initial<S>, S: 'static>(
    words: &mut Words<'_>,
    host: &HostRef<'_>,
    make: impl FnOnce(P::Held) -> O,
) -> Result<(), Stopped> {
    let key = read_key(words)?;
    // Outlives whatever fails below, and what that was given.
    let handles = Handles::new(host.0);
    let host = ActorHost {
        host: host.0,
        count: handles.count,
    };
    let held = P::receive(words, &HostRef(&host));
    let held = held.map_err(|Rejected(why)| Stopped(Failure::Rejected(why)))?;
    let state = make(held).into_state();
    let state: S = state.map_err(|why| Stopped(Failure::Returned(why)))?;
    crate::sync::point!("state.made");
    let kept = Kept {
        key,
        state: Rc::new(RefCell::new(Box::new(state))),
        count: handles.keep(),
    };
    let index = key as u32 as usize;
    let before = KEPT.with_borrow_mut(|all| {
        if all.len() <= index {
            all.resize_with(index + 1, || None);
        }
        all[index].replace(kept)
    });
    debug_assert!(before.is_none(), "one actor has one place");
    crate::sync::point!("state.kept");
    Ok(())
}

fn read_key(words: &mut Words<'_>) -> Result<u64, Stopped> {
    let key = words.0.word();
    key.map_err(|malformed| Stopped(Failure::Rejected(malformed.into())))
}

/// The state of an actor, for as long as a kernel runs on it. From now on the running job calls this one.
fn lend(key: u64) -> Result<Shared, Stopped> {
    let found = at(key, |kept| {
        let kept = kept.as_ref()?;
        CALLED.set(Some(kept.count));
        Some(Rc::clone(&kept.state))
    })?;
    found.ok_or_else(unknown)
}

// ---- programs --------------------------------------------------------------------------------------

/// Makes the state of an actor.
#[derive(Debug)]
pub struct Start<F, P, O, S>(PhantomData<fn(F, P, O) -> S>);
/// Makes the state of an actor from a checkpoint.
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
            F: Init<P, O>,
            P: Params,
            O: Initial<S>,
            S: 'static,
        {
            type Reply = ();
            type Id = $program<F, (), (), S>;
            fn name() -> &'static str {
                type_name::<F>()
            }
            fn run(words: &mut Words<'_>, host: &HostRef<'_>) -> Result<(), Stopped> {
                start::<P, O, S>(words, host, |held| conjure::<F>().make(held, Key::new()))
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
            fn run(words: &mut Words<'_>, host: &HostRef<'_>) -> Result<R, Stopped> {
                const { assert!(!R::SPAWNS, "a method of an actor cannot spawn jobs: its state stays in its lane, and calls after it would wait") };
                let key = read_key(words)?;
                let held = P::Params::receive(words, host)
                    .map_err(|Rejected(why)| Stopped(Failure::Rejected(why)))?;
                let value = {
                    let place = lend(key)?;
                    let mut state = place.try_borrow_mut().map_err(|_| unknown())?;
                    let state = (**state).downcast_mut::<S>().ok_or_else(unknown)?;
                    crate::sync::point!("state.lent");
                    let value = conjure::<F>().call(state, held, Key::new());
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
    fn run(words: &mut Words<'_>, host: &HostRef<'_>) -> Result<(), Stopped> {
        let key = read_key(words)?;
        let Some(kept) = at(key, Option::take)? else {
            return Err(unknown());
        };
        // Judged after the state is gone, also when its drop panics.
        let _handles = Handles {
            count: kept.count,
            job: host.0.count(),
        };
        drop(kept.state);
        crate::sync::point!("state.dropped");
        Ok(())
    }
}
