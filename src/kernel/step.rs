//! Kernels as nodes of a graph: arguments that another node gives, and chains of nodes that are one job.
//!
//! A node's arguments wait in the program as [`Slot`]s. When its job is sent, each is written as any argument is; one that
//! comes from another node is read from that node's reply first, so it is checked like every value that arrives here.
//!
//! A chain is the call of several nodes in one: how many, and for each its seed, its entry, how many words follow, and these. The
//! first word of a node says which of its parameters takes over the value of the node before (a bit for each), and whether
//! its own value is the reply of the chain. Between two nodes the value stays in the worker, as it is. Behind the words of the reply
//! stand two that tell how the time is spread over the nodes (`shares.rs`).

use std::any::{Any, TypeId};
use std::cell::{Cell, RefCell};

use super::entry::{
    Entry, Failure, Kernel, KernelInfo, Params, Program, Single, conjure, from_offset,
};
use super::host::Host;
use super::param::{Arg, BadArgument, CallWriter, HostRef, Key, Param, Rejected, Words};
use super::reply::{AnyValue, BadReply, Receiving, Reply, Sending, Value};
use super::scalar::Scalar;
use super::shares::Clock;
use super::wire::{ArgWriter, ReplyWriter, WordReader};
use crate::array::{Array, ArrayMut, Element};

/// A parameter that the value of another node can be passed for. Sealed, like [`Param`].
#[diagnostic::on_unimplemented(
    message = "a node of a graph cannot take a parameter of type `{Self}`",
    note = "lend tiles and `&mut` arrays in a scope; a node takes `&Array<T>`, `&[T]`, `&[Array<T>]`, `ArrayMut<T>`, `&str` and scalars"
)]
pub trait Feed: Param<Held: Send + 'static> {
    /// What a kernel returns so that it can be passed for this parameter.
    type Value: Send + 'static;
    /// How an argument waits.
    #[doc(hidden)]
    type Slot: Send + 'static;
    #[doc(hidden)]
    fn held(value: Self::Value) -> Self::Held;
    #[doc(hidden)]
    fn send_held(held: Self::Held, call: &mut CallWriter);
    #[doc(hidden)]
    fn receive_value(reply: &mut Receiving<'_>) -> Result<Self::Value, BadReply>;
    /// Another handle on the same value; `None` where there can be only one.
    #[doc(hidden)]
    fn share(value: &Self::Value) -> Option<Self::Value>;
    #[doc(hidden)]
    fn load(slot: Self::Slot, index: u32, loading: &mut Loading<'_>);
    #[doc(hidden)]
    fn take(slot: Self::Slot, kept: &mut Kept) -> Self::Held;
}

/// A parameter that takes one value.
macro_rules! one_slot {
    () => {
        type Slot = Slot<Self::Held>;
        #[inline]
        fn load(slot: Self::Slot, index: u32, loading: &mut Loading<'_>) {
            loading.slot::<Self>(slot, index);
        }
        fn take(slot: Self::Slot, kept: &mut Kept) -> Self::Held {
            kept.slot::<Self>(slot)
        }
    };
}

macro_rules! arrays_feed {
    ($($param:ty)*) => { $(
        impl<T: Element> Feed for $param {
            type Value = Array<T>;
            one_slot!();
            fn held(value: Array<T>) -> Array<T> {
                value
            }
            fn send_held(held: Array<T>, call: &mut CallWriter) {
                Arg::<$param>::send(held, call);
            }
            fn receive_value(reply: &mut Receiving<'_>) -> Result<Array<T>, BadReply> {
                <Array<T> as Value>::receive(reply)
            }
            fn share(value: &Array<T>) -> Option<Array<T>> {
                Some(value.clone())
            }
        }
    )* };
}
arrays_feed!(&Array<T> &[T]);

/// A list: an array or a node for each of its places. Where it has one place, it may take over what a chain carries.
impl<T: Element> Feed for &[Array<T>] {
    type Value = Array<T>;
    type Slot = Vec<Slot<Array<T>>>;
    fn held(value: Array<T>) -> Vec<Array<T>> {
        vec![value]
    }
    fn send_held(held: Vec<Array<T>>, call: &mut CallWriter) {
        Arg::<&[Array<T>]>::send(held, call);
    }
    fn receive_value(reply: &mut Receiving<'_>) -> Result<Array<T>, BadReply> {
        <Array<T> as Value>::receive(reply)
    }
    fn share(value: &Array<T>) -> Option<Array<T>> {
        Some(value.clone())
    }
    fn load(slots: Vec<Slot<Array<T>>>, index: u32, loading: &mut Loading<'_>) {
        // What follows in a chain takes the value of one node.
        if let [Slot::Node(node)] = slots[..]
            && loading.before == Some(node)
        {
            loading.mask |= 1 << index;
            return;
        }
        // As `send` writes a list: how many, and each.
        loading.call.0.word(slots.len() as u64);
        for slot in slots {
            loading.slot::<&Array<T>>(slot, index);
        }
    }
    fn take(slots: Vec<Slot<Array<T>>>, kept: &mut Kept) -> Vec<Array<T>> {
        let one = |slot| kept.slot::<&Array<T>>(slot);
        slots.into_iter().map(one).collect()
    }
}

impl<T: Element> Feed for ArrayMut<T> {
    type Value = ArrayMut<T>;
    one_slot!();
    fn held(value: ArrayMut<T>) -> Option<ArrayMut<T>> {
        Some(value)
    }
    fn send_held(held: Option<ArrayMut<T>>, call: &mut CallWriter) {
        match held {
            Some(array) => Arg::<ArrayMut<T>>::send(array, call),
            None => call.0.foreign = true,
        }
    }
    fn receive_value(reply: &mut Receiving<'_>) -> Result<ArrayMut<T>, BadReply> {
        <ArrayMut<T> as Value>::receive(reply)
    }
    fn share(_: &ArrayMut<T>) -> Option<ArrayMut<T>> {
        None
    }
}

impl Feed for &str {
    type Value = String;
    one_slot!();
    fn held(value: String) -> String {
        value
    }
    fn send_held(held: String, call: &mut CallWriter) {
        Arg::<&str>::send(held, call);
    }
    fn receive_value(reply: &mut Receiving<'_>) -> Result<String, BadReply> {
        <String as Value>::receive(reply)
    }
    fn share(value: &String) -> Option<String> {
        Some(value.clone())
    }
}

impl<S: Scalar> Feed for S {
    type Value = S;
    one_slot!();
    #[inline]
    fn held(value: S) -> S {
        value
    }
    #[inline]
    fn send_held(held: S, call: &mut CallWriter) {
        Arg::<S>::send(held, call);
    }
    #[inline]
    fn receive_value(reply: &mut Receiving<'_>) -> Result<S, BadReply> {
        <S as Value>::receive(reply)
    }
    fn share(value: &S) -> Option<S> {
        Some(*value)
    }
}

/// An argument of a node, as it waits.
#[derive(Debug)]
pub enum Slot<H> {
    /// It is there.
    Held(H),
    /// It is the value of the node of this index.
    Node(u32),
}

/// Writes the value of a node as an argument.
pub(crate) type Forward = fn(&mut Receiving<'_>, &mut CallWriter) -> Result<(), BadReply>;

/// The values of nodes that have ended.
pub(crate) trait Ended {
    /// Has `forward` write the value of a node. False if that value cannot be read.
    fn forward(&mut self, node: u32, forward: Forward, call: &mut CallWriter) -> bool;
}

/// A node's call while it is written.
#[allow(missing_debug_implementations, reason = "hidden")]
pub struct Loading<'a> {
    pub(crate) call: &'a mut CallWriter,
    pub(crate) ended: &'a mut dyn Ended,
    /// The node before in the same chain, whose value never leaves the worker.
    pub(crate) before: Option<u32>,
    /// Parameters that take it over.
    pub(crate) mask: u64,
    /// A value could not be read.
    pub(crate) unreadable: bool,
}

impl Loading<'_> {
    #[inline]
    fn slot<P: Feed>(&mut self, slot: Slot<P::Held>, index: u32) {
        match slot {
            Slot::Held(held) => P::send_held(held, self.call),
            Slot::Node(node) if self.before == Some(node) => self.mask |= 1 << index,
            Slot::Node(node) => {
                let forward: Forward = |reply, call| {
                    let value = P::receive_value(reply)?;
                    P::send_held(P::held(value), call);
                    Ok(())
                };
                self.unreadable |= !self.ended.forward(node, forward, self.call);
            }
        }
    }
}

/// The values of nodes that ran in this thread.
#[allow(missing_debug_implementations, reason = "hidden")]
pub struct Kept {
    pub(crate) values: Vec<Option<AnyValue>>,
    /// How often each will be taken still.
    pub(crate) uses: Vec<u32>,
}

impl Kept {
    /// The value of a node, which has ended.
    pub(crate) fn take<V: Send + 'static>(&mut self, node: u32, share: fn(&V) -> Option<V>) -> V {
        let at = node as usize;
        self.uses[at] -= 1;
        let value: Box<dyn Any> = self.values[at].take().expect(ENDED);
        let value = value.downcast::<V>().expect(TYPED);
        if self.uses[at] == 0 {
            return *value;
        }
        let shared = share(&value).expect("an exclusive value is passed once");
        self.values[at] = Some(value);
        shared
    }

    fn slot<P: Feed>(&mut self, slot: Slot<P::Held>) -> P::Held {
        match slot {
            Slot::Held(held) => held,
            Slot::Node(node) => P::held(self.take(node, P::share)),
        }
    }
}

const ENDED: &str = "a node runs after those that it depends on";
const TYPED: &str = "a node's value is of its type";

/// The parameters of a kernel that a graph can run. Sealed.
pub trait NodeParams: Params {
    #[doc(hidden)]
    type Slots: Send + 'static;
    #[doc(hidden)]
    fn load(slots: Self::Slots, loading: &mut Loading<'_>);
    #[doc(hidden)]
    fn take(slots: Self::Slots, kept: &mut Kept) -> Self::Held;
    #[doc(hidden)]
    fn receive_step(
        mask: u64,
        words: &mut Words<'_>,
        host: &HostRef<'_>,
    ) -> Result<Self::Held, Rejected>;
}

/// A parameter of a node in a chain.
#[inline]
fn receive_one<P: Feed>(
    mask: u64,
    index: u32,
    words: &mut Words<'_>,
    host: &HostRef<'_>,
) -> Result<P::Held, Rejected> {
    if mask & 1 << index == 0 {
        return P::receive(words, host);
    }
    let before = CARRIED.with(|carried| carried.borrow_mut().take());
    let before = before.and_then(|value| value.downcast::<P::Value>().ok());
    let value = before.ok_or(Rejected(BadArgument::Malformed))?;
    Ok(P::held(*value))
}

macro_rules! node_params {
    ($(($($p:ident $x:ident $i:tt),*))+) => { $(
        impl<$($p: Feed),*> NodeParams for ($($p,)*) {
            type Slots = ($($p::Slot,)*);
            #[allow(unused_variables, reason = "for a kernel without parameters")]
            fn load(slots: Self::Slots, loading: &mut Loading<'_>) {
                let ($($x,)*) = slots;
                $($p::load($x, $i, loading);)*
            }
            #[allow(unused_variables, clippy::unused_unit, reason = "for a kernel without parameters")]
            fn take(slots: Self::Slots, kept: &mut Kept) -> Self::Held {
                let ($($x,)*) = slots;
                ($($p::take($x, kept),)*)
            }
            #[allow(unused_variables, reason = "for a kernel without parameters")]
            fn receive_step(
                mask: u64,
                words: &mut Words<'_>,
                host: &HostRef<'_>,
            ) -> Result<Self::Held, Rejected> {
                Ok(($(receive_one::<$p>(mask, $i, words, host)?,)*))
            }
        }
    )+ };
}
node_params! {
    ()
    (P0 x0 0)
    (P0 x0 0, P1 x1 1)
    (P0 x0 0, P1 x1 1, P2 x2 2)
    (P0 x0 0, P1 x1 1, P2 x2 2, P3 x3 3)
    (P0 x0 0, P1 x1 1, P2 x2 2, P3 x3 3, P4 x4 4)
    (P0 x0 0, P1 x1 1, P2 x2 2, P3 x3 3, P4 x4 4, P5 x5 5)
    (P0 x0 0, P1 x1 1, P2 x2 2, P3 x3 3, P4 x4 4, P5 x5 5, P6 x6 6)
    (P0 x0 0, P1 x1 1, P2 x2 2, P3 x3 3, P4 x4 4, P5 x5 5, P6 x6 6, P7 x7 7)
}

/// In the first word of a node: its value is the reply of the chain.
const LAST: u64 = 1 << 63;

thread_local! {
    /// The value of the node before, in the chain that runs on this thread.
    static CARRIED: RefCell<Option<Box<dyn Any>>> = const { RefCell::new(None) };
    /// The node that runs, or ran last.
    static AT: Cell<u32> = const { Cell::new(0) };
}

/// The chain that runs on this thread ends: what it carries goes with it, also when it unwinds.
struct Ending;

impl Drop for Ending {
    fn drop(&mut self) {
        let carried = CARRIED.with(|carried| carried.borrow_mut().take());
        drop(carried);
    }
}

/// Which node of its chain the job that ended last on this thread came to; 0 unless it was a chain.
pub(crate) fn step_reached() -> u32 {
    AT.replace(0)
}

/// One node of a chain.
fn step<F, P, R>(
    mut words: WordReader<'_>,
    host: &dyn Host,
    writer: &mut ReplyWriter,
) -> Result<(), Failure>
where
    F: Kernel<P, R>,
    P: NodeParams,
    R: Reply,
{
    let malformed = |_| Failure::Rejected(BadArgument::Malformed);
    let head = words.word().map_err(malformed)?;
    let held = P::receive_step(head & !LAST, &mut Words(words), &HostRef(host))
        .map_err(|Rejected(why)| Failure::Rejected(why))?;
    let value = conjure::<F>().call(held, Key::new());
    if head & LAST != 0 {
        let sent = value.send(&mut Sending { writer, host });
        crate::sync::point!("chain.sent");
        return sent.map_err(Failure::from);
    }
    let value: Box<dyn Any> = Box::new(value.keep().map_err(Failure::from)?);
    CARRIED.with(|carried| carried.replace(Some(value)));
    crate::sync::point!("chain.carried");
    Ok(())
}

/// Runs a chain of nodes.
fn chain(
    mut words: WordReader<'_>,
    host: &dyn Host,
    writer: &mut ReplyWriter,
) -> Result<(), Failure> {
    let malformed = |_| Failure::Rejected(BadArgument::Malformed);
    let _ending = Ending;
    let count = words.word().map_err(malformed)? as u32;
    let mut clock = Clock::start(count);
    for at in 0..count {
        AT.set(at);
        let seed = words.word().map_err(malformed)?;
        if host.step(at, seed) {
            return Err(Failure::Cancelled);
        }
        let offset = words.word().map_err(malformed)?;
        let len = words.word().map_err(malformed)?;
        let these = words.split(len as usize).map_err(malformed)?;
        // SAFETY: the supervisor wrote the offset of a step of this build (checked in the handshake).
        let step = unsafe { from_offset(offset) };
        crate::sync::point!("chain.begun");
        step(these, host, writer)?;
        clock.ended(at);
    }
    clock.send(writer);
    AT.set(0);
    Ok(())
}

/// How a chain is called.
#[derive(Debug)]
pub(crate) struct ChainWriter {
    /// The node that is written.
    pub(crate) node: CallWriter,
}

impl ChainWriter {
    pub(crate) fn new(arena: u64) -> Self {
        Self {
            node: CallWriter(ArgWriter::new(arena)),
        }
    }

    /// Begins with a chain of so many nodes.
    pub(crate) fn begin(call: &mut CallWriter, count: u32) {
        call.0.word(u64::from(count));
    }

    /// Takes over the node that was written: which parameters take over what was before, and whether it is the last.
    pub(crate) fn finish(&mut self, call: &mut CallWriter, step: u64, mask: u64, last: bool) {
        let node = &mut self.node.0;
        let words = node.words();
        let head = mask | if last { LAST } else { 0 };
        call.0
            .extend(&[node.seed, step, words.len() as u64 + 1, head]);
        call.0.extend(words);
        if !node.leases.is_empty() {
            call.0.leases.append(&mut node.leases);
        }
        call.0.foreign |= node.foreign;
        call.0.exclusive |= node.exclusive;
        call.0.full = call.0.full.or(node.full);
        node.reset();
    }
}

/// Names the program of all chains.
enum AnyChain {}

/// A kernel as graphs know it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NodeKernel {
    /// As a job of its own.
    pub(crate) info: KernelInfo,
    /// As part of a chain.
    pub(crate) step: Entry,
}

impl NodeKernel {
    pub(crate) fn of<F, P, R>() -> Self
    where
        F: Kernel<P, R>,
        P: NodeParams,
        R: Reply,
        Single<F, P, R>: Program,
    {
        Self {
            info: KernelInfo::of::<Single<F, P, R>>(),
            step: step::<F, P, R>,
        }
    }
}

impl KernelInfo {
    /// Whatever is fused by a graph.
    pub(crate) fn of_chain() -> Self {
        Self {
            name: "a chain of nodes",
            id: TypeId::of::<AnyChain>(),
            entry: chain,
            spawns: false,
        }
    }
}
