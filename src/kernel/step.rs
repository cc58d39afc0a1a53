//! Kernels as nodes of a graph: arguments that come from other nodes, and chains of nodes that run as one job.
//!
//! A node's arguments wait in the program as [`Slot`]s. When the node's job is sent, each slot is written like any
//! argument. If an argument is the value of another node, it is first read from that node's reply, and so it is checked
//! like every value that a worker sends.
//!
//! A chain is one call for several nodes. The words of the call:
//!
//! ```text
//! chain = number of nodes, then for each node: its seed, its entry, the number of words that follow, these words
//! node  = head, then its arguments
//! ```
//!
//! Bit `i` of the head says that parameter `i` takes the value of the previous node; [`LAST`] says that the node's own
//! value is the reply of the chain. Between two nodes the value stays in the worker, unchanged. Two words after the
//! words of the reply say how the time was divided among the nodes (`shares.rs`).

use std::any::{Any, TypeId};
use std::cell::{Cell, RefCell};

use super::entry::{Entry, Kernel, KernelInfo, Program, Single, from_offset, zst_value};
use super::failure::{BadArgument, Failure};
use super::host::Host;
use super::owned::{OwnedParam, OwnedParams};
use super::param::{CallWriter, HostRef, Key, Words};
use super::place::{Forward, forward};
use super::reply::{AnyValue, BadReply, Reply, Sending};
use super::shares::ShareClock;
use super::wire::{ArgWriter, ReplyWriter, WordReader};

/// The argument of a node while it waits.
#[derive(Debug)]
pub enum Slot<H> {
    /// The argument.
    Held(H),
    /// The argument will be the value of the node with this index.
    Node(u32),
}

/// Gives access to the replies of nodes that have ended.
pub(crate) trait Ended {
    /// Calls `forward` with the reply of a node. Returns false if the value cannot be read.
    fn forward(&mut self, node: u32, forward: Forward, call: &mut CallWriter) -> bool;
}

/// A node's call under construction.
#[allow(missing_debug_implementations, reason = "hidden")]
pub struct Loading<'a> {
    pub(crate) call: &'a mut CallWriter,
    pub(crate) ended: &'a mut dyn Ended,
    /// The previous node in the same chain. Its value never leaves the worker.
    pub(crate) before: Option<u32>,
    /// Bit `i` is set if parameter `i` takes the value of `before`.
    pub(crate) mask: u64,
    /// Whether the value of a node could not be read from its reply.
    pub(crate) unreadable: bool,
}

impl Loading<'_> {
    #[inline]
    pub(super) fn slot<P: OwnedParam>(&mut self, slot: Slot<P::Held>, index: u32) {
        match slot {
            Slot::Held(held) => P::send_held(held, self.call),
            Slot::Node(node) if self.before == Some(node) => self.mask |= 1 << index,
            Slot::Node(node) => {
                self.unreadable |= !self.ended.forward(node, forward::<P>, self.call);
            }
        }
    }
}

/// The values of nodes that ran inline, by node.
#[allow(missing_debug_implementations, reason = "hidden")]
pub struct NodeValues {
    pub(crate) values: Vec<Option<AnyValue>>,
    /// How many times each value will still be taken.
    pub(crate) uses: Vec<u32>,
}

impl NodeValues {
    /// Takes the value of a node that has ended. If the value will be taken again, returns a shared handle and keeps
    /// the value.
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

    pub(super) fn slot<P: OwnedParam>(&mut self, slot: Slot<P::Held>) -> P::Held {
        match slot {
            Slot::Held(held) => held,
            Slot::Node(node) => P::from_value(self.take(node, P::share)),
        }
    }
}

const ENDED: &str = "a node runs after those that it depends on";
const TYPED: &str = "the value of a node has the type of its reply";

/// Receives parameter `index` of a node of a chain: the value of the previous node if bit `index` of `mask` is set,
/// otherwise from `words`.
#[inline]
pub(super) fn receive_one<P: OwnedParam>(
    mask: u64,
    index: u32,
    words: &mut Words<'_>,
    host: &HostRef<'_>,
) -> Result<P::Held, BadArgument> {
    if mask & 1 << index == 0 {
        return P::receive(words, host);
    }
    let before = CARRIED.with(|carried| carried.borrow_mut().take());
    let before = before.and_then(|value| value.downcast::<P::Value>().ok());
    let value = before.ok_or(BadArgument::Malformed)?;
    Ok(P::from_value(*value))
}

/// Bit of a node's head: the node's value is the reply of the chain.
const LAST: u64 = 1 << 63;

thread_local! {
    /// The value of the previous node, in a chain that runs on this thread.
    static CARRIED: RefCell<Option<Box<dyn Any>>> = const { RefCell::new(None) };
    /// The node that runs or ran last, in a chain on this thread.
    static AT: Cell<u32> = const { Cell::new(0) };
}

/// Drops the value in [`CARRIED`] when a chain ends, also by unwinding.
struct DropCarried;

impl Drop for DropCarried {
    fn drop(&mut self) {
        let carried = CARRIED.with(|carried| carried.borrow_mut().take());
        drop(carried);
    }
}

/// Returns which node the last job on this thread had reached when it ended, and sets it to 0. Returns 0 unless the job
/// was a chain that failed.
pub(crate) fn step_reached() -> u32 {
    AT.replace(0)
}

/// Runs one node of a chain.
fn step<F, P, R>(
    mut words: WordReader<'_>,
    host: &dyn Host,
    writer: &mut ReplyWriter,
) -> Result<(), Failure>
where
    F: Kernel<P, R>,
    P: OwnedParams,
    R: Reply,
{
    let head = words.word()?;
    let held = P::receive_step(head & !LAST, &mut Words(words), &HostRef(host))?;
    let value = zst_value::<F>().call(held, Key::new());
    if head & LAST != 0 {
        let sent = value.send(&mut Sending { writer, host });
        crate::sync::point!("chain.sent");
        return sent;
    }
    let value: Box<dyn Any> = Box::new(value.into_value()?);
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
    let _carried = DropCarried;
    let count = words.word()? as u32;
    let mut clock = ShareClock::start(count);
    for at in 0..count {
        AT.set(at);
        let seed = words.word()?;
        if host.step(at, seed) {
            return Err(Failure::Cancelled);
        }
        let offset = words.word()?;
        let len = words.word()?;
        let these = words.split(len as usize)?;
        // SAFETY: the supervisor wrote the offset of a step, and is the same build (checked in the handshake).
        let step = unsafe { from_offset(offset) };
        crate::sync::point!("chain.begun");
        step(these, host, writer)?;
        clock.ended(at);
    }
    clock.send(writer);
    AT.set(0);
    Ok(())
}

/// Writes the call of a chain, node by node.
#[derive(Debug)]
pub(crate) struct ChainWriter {
    /// The node that is being written.
    pub(crate) node: CallWriter,
}

impl ChainWriter {
    pub(crate) fn new(arena: u64) -> Self {
        Self {
            node: CallWriter(ArgWriter::new(arena)),
        }
    }

    /// Begins a chain of `count` nodes.
    pub(crate) fn begin(call: &mut CallWriter, count: u32) {
        call.0.word(u64::from(count));
    }

    /// Appends the node in [`node`](Self::node) to `call`. If bit `i` of `mask` is set, parameter `i` takes the value
    /// of the previous node.
    pub(crate) fn finish(&mut self, call: &mut CallWriter, step: u64, mask: u64, last: bool) {
        let node = &mut self.node.0;
        let words = node.words();
        let head = mask | if last { LAST } else { 0 };
        call.0
            .extend(&[node.seed, step, words.len() as u64 + 1, head]);
        call.0.append(node);
        call.0.foreign |= node.foreign;
        call.0.exclusive |= node.exclusive;
        call.0.once |= node.once;
        call.0.full = call.0.full.or(node.full);
        node.reset();
    }
}

/// The type whose id is the program id of all chains.
enum AnyChain {}

/// The kernel of a graph's node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NodeKernel {
    /// The kernel as a job of its own.
    pub(crate) info: KernelInfo,
    /// The entry for the kernel as a step of a chain.
    pub(crate) step: Entry,
}

impl NodeKernel {
    pub(crate) fn of<F, P, R>() -> Self
    where
        F: Kernel<P, R>,
        P: OwnedParams,
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
    /// Describes the program of every chain that a graph fuses.
    pub(crate) fn of_chain() -> Self {
        Self {
            name: "a chain of nodes",
            given: None,
            id: TypeId::of::<AnyChain>(),
            entry: chain,
            spawns: false,
            // A chain fails with the error of one of its nodes, whose own check applies.
            check_error: |_| Err(BadReply),
        }
    }
}
