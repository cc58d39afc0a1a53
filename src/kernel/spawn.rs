//! Kernels that spawn jobs: the format of the jobs in a reply, and of their calls.
//!
//! A reply that spawns is a list of *tasks*: the children, and at the end the continuation, which takes their values:
//!
//! ```text
//! reply   = kernels | children << 32, then kernels × kernel, then (children + 1) × task
//! kernel  = its entry for tasks, its entry for plain calls, length of its name | spawns << 32, the name
//! task    = index of the kernel | arguments << 32, then arguments × argument
//! argument = 0 | moved << 8 | values << 32, then values × value        the values follow
//!          | 1 | moved << 8 | values << 32                             the values of the next `values` children
//! value   = arrays | words << 32, then the words, as in any reply; the arrays precede the words of the reply, in order
//! call    = arguments × (number of values, then values × (arrays | words << 32, arrays × (offset, bytes), the words))
//! ```
//!
//! The supervisor does not know the types of values. It checks the numbers, takes the arrays over as from any reply,
//! and writes the call of a task from the given values and the replies of the children. The worker that runs the task
//! reads each value by its type and rejects an array whose length does not match its shape.

use std::any::Any;

use super::entry::{Entry, Kernel, KernelInfo, Single, to_offset, zst_value};
use super::failure::{BadArgument, Failure};
use super::host::Host;
use super::owned::{OwnedParam, OwnedParams};
use super::param::{HostRef, Key, Words, array_at};
use super::reply::{AnyValue, Reply, Sending, Value};
use super::wire::{MAX_TEXT, Malformed, ReplyWriter, WordReader, kind};
use crate::arena::{ArenaFull, Extent};
use crate::array::{Array, Element, Shape};

/// The maximum number of arrays in one reply.
pub(crate) const MAX_ARRAYS: usize = 4096;
/// The kind of an argument whose values follow in the reply.
pub(crate) const GIVEN: u64 = 0;
/// The kind of an argument that consists of the values of the next children.
pub(crate) const CHILDREN: u64 = 1;
/// Bit of an argument whose arrays move into the job.
pub(crate) const MOVED: u64 = 1 << 8;
/// Bit in the word before a kernel's name: the kernel may spawn jobs itself.
pub(crate) const SPAWNS: u64 = 1 << 32;
/// The maximum length in bytes of a kernel's name in a reply.
pub(crate) const NAME_LIMIT: usize = 512;

/// Writes the arguments of spawned jobs into a reply.
#[allow(missing_debug_implementations, reason = "hidden")]
pub struct Giving<'s, 'w>(pub(crate) &'s mut Sending<'w>);

impl Giving<'_, '_> {
    /// Begins an argument that consists of `values` values, which the caller writes next.
    pub(super) fn argument(&mut self, values: usize, moved: bool) {
        let moved = if moved { MOVED } else { 0 };
        self.0.writer.word(GIVEN | moved | (values as u64) << 32);
    }

    pub(super) fn value<V: Value>(&mut self, value: V) -> Result<(), ArenaFull> {
        let at = self.0.writer.words.len();
        let arrays = self.0.writer.arrays.len();
        self.0.writer.word(0);
        value.send(self.0)?;
        let words = self.0.writer.words.len() - at - 1;
        let arrays = self.0.writer.arrays.len() - arrays;
        self.0.writer.words[at] = arrays as u64 | (words as u64) << 32;
        Ok(())
    }

    pub(super) fn one<V: Value>(&mut self, value: V, moved: bool) -> Result<(), ArenaFull> {
        self.argument(1, moved);
        self.value(value)
    }
}

/// A value in the call of a task.
pub(super) struct Piece<'a> {
    arrays: WordReader<'a>,
    pub(super) words: WordReader<'a>,
    /// The number of arrays in the value.
    pub(super) count: u64,
}

impl<'a> Piece<'a> {
    pub(super) fn read(words: &mut WordReader<'a>) -> Result<Self, Malformed> {
        let head = words.word()?;
        let count = head & u64::from(u32::MAX);
        Ok(Self {
            arrays: words.split(2 * count as usize)?,
            words: words.split((head >> 32) as usize)?,
            count,
        })
    }

    /// Reads an argument that is one value.
    pub(super) fn single(words: &mut WordReader<'a>) -> Result<Self, Malformed> {
        match words.word()? {
            1 => Self::read(words),
            _ => Err(Malformed),
        }
    }

    /// Returns the extent and the shape of the value's only array, if its length matches the shape.
    pub(super) fn array<T: Element>(&mut self) -> Result<(Extent, Shape), Malformed> {
        let at = self.arrays.offset()?;
        let len = self.arrays.word()?;
        let shape = self.words.shape()?;
        let bytes = shape.bytes::<T>().ok_or(Malformed)? as u64;
        if bytes != len || self.count != 1 {
            return Err(Malformed);
        }
        Ok((Extent { at, len }, shape))
    }

    pub(super) fn array_at<T: Element>(
        mut self,
        host: &HostRef<'_>,
    ) -> Result<Array<T>, BadArgument> {
        let (extent, shape) = self.array::<T>()?;
        array_at(extent, shape, host)
    }
}

/// Returns the value if there is exactly one value and its type is `V`.
pub(super) fn only<V: 'static>(values: Vec<AnyValue>) -> Option<V> {
    let [value]: [AnyValue; 1] = values.try_into().ok()?;
    Some(*(value as Box<dyn Any>).downcast().ok()?)
}

/// Where an argument of a task comes from.
#[derive(Debug)]
pub enum Source<H> {
    /// The kernel that spawns the task passes this argument.
    Given(H),
    /// The argument consists of the values of this number of children, which follow those of the earlier arguments.
    Children(u32),
}

impl<H> Source<H> {
    pub(super) fn give<P: OwnedParam<Held = H>>(
        self,
        giving: &mut Giving<'_, '_>,
    ) -> Result<(), ArenaFull> {
        match self {
            Self::Given(held) => P::give(held, giving),
            Self::Children(count) => {
                let moved = if P::MOVED { MOVED } else { 0 };
                let word = CHILDREN | moved | u64::from(count) << 32;
                giving.0.writer.word(word);
                Ok(())
            }
        }
    }

    pub(super) fn adopt<P: OwnedParam<Held = H>>(
        self,
        values: &mut dyn Iterator<Item = AnyValue>,
    ) -> H {
        match self {
            Self::Given(held) => held,
            Self::Children(count) => {
                let values = values.take(count as usize).collect();
                P::adopt(values).expect("the value of a child has the type of the parameter")
            }
        }
    }
}

/// The kernel of a task.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SpawnKernel {
    /// The entry that takes the call of a task.
    entry: Entry,
    /// The kernel as a job of its own, with the entry for plain calls.
    plain: KernelInfo,
}

impl SpawnKernel {
    pub(crate) fn name(&self) -> &'static str {
        self.plain.name
    }

    pub(crate) fn of<F, P, R>() -> Self
    where
        F: Kernel<P, R>,
        P: OwnedParams,
        R: Reply,
    {
        Self {
            entry: task::<F, P, R>,
            plain: KernelInfo::of::<Single<F, P, R>>(),
        }
    }
}

/// Runs a task. Its arguments are values, some of which are the values of its children.
fn task<F, P, R>(
    words: WordReader<'_>,
    host: &dyn Host,
    writer: &mut ReplyWriter,
) -> Result<(), Failure>
where
    F: Kernel<P, R>,
    P: OwnedParams,
    R: Reply,
{
    let held = P::read_given(&mut Words(words), &HostRef(host))?;
    let value = zst_value::<F>().call(held, Key::new());
    value.send(&mut Sending { writer, host })
}

/// A task that can be written into a reply.
pub(crate) trait Spawning: Send {
    fn kernel(&self) -> SpawnKernel;
    /// Returns the number of the task's arguments.
    fn arguments(&self) -> u32;
    fn give(self: Box<Self>, giving: &mut Giving<'_, '_>) -> Result<(), ArenaFull>;
}

/// Writes a reply that spawns: the children, then the continuation.
pub(crate) fn spawning<T: Spawning + ?Sized>(
    tasks: Vec<Box<T>>,
    reply: &mut Sending<'_>,
) -> Result<(), Failure> {
    let mut kernels: Vec<(SpawnKernel, [u64; 2])> = Vec::new();
    let mut rows = Vec::with_capacity(tasks.len());
    for task in &tasks {
        let kernel = task.kernel();
        let known = kernels
            .iter()
            .position(|(known, _)| known.plain.id == kernel.plain.id);
        let row = match known {
            Some(row) => row,
            None => {
                let offsets = to_offset(kernel.entry).zip(to_offset(kernel.plain.entry));
                let (entry, plain) = offsets.ok_or_else(|| foreign(kernel.plain.name))?;
                kernels.push((kernel, [entry, plain]));
                kernels.len() - 1
            }
        };
        rows.push(row as u64);
    }
    reply.writer.kind = kind::SPAWN;
    let children = tasks.len() as u64 - 1;
    reply.writer.word(kernels.len() as u64 | children << 32);
    for (kernel, [entry, plain]) in &kernels {
        let name = kernel.plain.name;
        let name = &name[..name.floor_char_boundary(NAME_LIMIT)];
        let spawns = if kernel.plain.spawns { SPAWNS } else { 0 };
        reply.writer.word(*entry);
        reply.writer.word(*plain);
        reply.writer.word(name.len() as u64 | spawns);
        reply.writer.bytes(name.as_bytes());
    }
    for (task, row) in tasks.into_iter().zip(rows) {
        reply.writer.word(row | u64::from(task.arguments()) << 32);
        task.give(&mut Giving(reply))?;
    }
    if reply.writer.arrays.len() > MAX_ARRAYS {
        let arrays = reply.writer.arrays.len();
        return Err(Failure::Returned(format!(
            "it spawns jobs with {arrays} arrays at once; the limit is {MAX_ARRAYS}: spawn jobs that spawn the others"
        ).into()));
    }
    let bytes = 8 * reply.writer.words.len();
    if bytes > MAX_TEXT {
        return Err(Failure::Returned(format!(
            "it spawns jobs with {bytes} bytes of arguments other than arrays; the limit is {MAX_TEXT}: pass long ones as arrays"
        ).into()));
    }
    Ok(())
}

fn foreign(name: &str) -> Failure {
    Failure::Returned(
        format!(
            "it spawns {name}, which is code of another library; kernels must be in the executable or shared object \
             that contains arenite"
        )
        .into(),
    )
}
