//! Kernels that spawn jobs: how those are written into a reply, and how they are called.
//!
//! A reply that spawns is a list of *tasks*: the children, and at the end what goes on with their values. In words:
//!
//! ```text
//! reply   = kernels | children << 32, then kernels × kernel, then (children + 1) × task
//! kernel  = its entry for this, its entry for plain calls, length of its name | spawns << 32, the name
//! task    = which kernel | arguments << 32, then arguments × argument
//! argument = 0 | moved << 8 | values << 32, then values × value        given here
//!          | 1 | moved << 8 | values << 32                             so many of the next children's values
//! value   = arrays | words << 32, then the words, as in any reply; the arrays stand in front of the reply, in order
//! call    = arguments × (number of values, then values × (arrays | words << 32, arrays × (offset, bytes), the words))
//! ```
//!
//! The supervisor knows no types: it checks the numbers, takes the arrays over as from any reply, and writes the call of a
//! task from what was given and from the replies of children. The worker that runs the task reads each value by its type,
//! and refuses an array that is not as long as its shape says.

use std::any::Any;

use super::entry::{Entry, Failure, Kernel, KernelInfo, Params, Single, conjure, to_offset};
use super::host::Host;
use super::param::{HostRef, Key, Param, Rejected, Words, array_at, array_mut_at, read_scalar};
use super::reply::{AnyValue, Reply, Sending, Unsent, Value};
use super::scalar::Scalar;
use super::wire::{MOST_TEXT, Malformed, ReplyWriter, WordReader};
use crate::arena::{ArenaFull, Extent};
use crate::array::{Array, ArrayMut, Element};

/// Arrays that one reply may have.
pub(crate) const MAX_ARRAYS: usize = 4096;
/// In an argument: it was given.
pub(crate) const GIVEN: u64 = 0;
/// In an argument: the values of the next children.
pub(crate) const CHILDREN: u64 = 1;
/// In an argument: its arrays move into the job.
pub(crate) const MOVED: u64 = 1 << 8;
/// In the word before a kernel's name: it may spawn jobs itself.
pub(crate) const SPAWNS: u64 = 1 << 32;
/// The longest name of a kernel in a reply.
pub(crate) const NAME_LIMIT: usize = 512;

/// A parameter of a kernel that can be spawned. Sealed, like [`Param`].
#[diagnostic::on_unimplemented(
    message = "a job that is spawned cannot take a parameter of type `{Self}`",
    note = "lend tiles and `&mut` arrays in a scope; a spawned job takes `&Array<T>`, `&[T]`, `&[Array<T>]`, `ArrayMut<T>`, `&str` and scalars"
)]
pub trait Given: Param<Held: Send + 'static> {
    /// It changes what it takes.
    #[doc(hidden)]
    const MOVED: bool = false;
    #[doc(hidden)]
    fn give(held: Self::Held, giving: &mut Giving<'_, '_>) -> Result<(), ArenaFull>;
    #[doc(hidden)]
    fn take(words: &mut Words<'_>, host: &HostRef<'_>) -> Result<Self::Held, Rejected>;
    /// Out of values of jobs that ran in this thread.
    #[doc(hidden)]
    fn adopt(values: Vec<AnyValue>) -> Option<Self::Held>;
}

/// Arguments on their way into a reply.
#[allow(missing_debug_implementations, reason = "hidden")]
pub struct Giving<'s, 'w>(pub(crate) &'s mut Sending<'w>);

impl Giving<'_, '_> {
    /// An argument of so many values, which follow.
    fn argument(&mut self, values: usize, moved: bool) {
        let moved = if moved { MOVED } else { 0 };
        self.0.writer.word(GIVEN | moved | (values as u64) << 32);
    }

    fn value<V: Value>(&mut self, value: V) -> Result<(), ArenaFull> {
        let at = self.0.writer.words.len();
        let arrays = self.0.writer.arrays.len();
        self.0.writer.word(0);
        value.send(self.0)?;
        let words = self.0.writer.words.len() - at - 1;
        let arrays = self.0.writer.arrays.len() - arrays;
        self.0.writer.words[at] = arrays as u64 | (words as u64) << 32;
        Ok(())
    }

    fn one<V: Value>(&mut self, value: V, moved: bool) -> Result<(), ArenaFull> {
        self.argument(1, moved);
        self.value(value)
    }
}

/// A value in a call.
struct Piece<'a> {
    arrays: WordReader<'a>,
    words: WordReader<'a>,
    /// How many arrays it has.
    count: u64,
}

impl<'a> Piece<'a> {
    fn read(words: &mut WordReader<'a>) -> Result<Self, Malformed> {
        let head = words.word()?;
        let count = head & u64::from(u32::MAX);
        Ok(Self {
            arrays: words.split(2 * count as usize)?,
            words: words.split((head >> 32) as usize)?,
            count,
        })
    }

    /// Of an argument that is one value.
    fn single(words: &mut WordReader<'a>) -> Result<Self, Malformed> {
        match words.word()? {
            1 => Self::read(words),
            _ => Err(Malformed),
        }
    }

    /// The extent of its array, if that is as long as its shape says.
    fn array<T: Element>(&mut self) -> Result<(Extent, crate::array::Shape), Malformed> {
        let at = self.arrays.offset()?;
        let len = self.arrays.word()?;
        let shape = self.words.shape()?;
        let bytes = shape.bytes::<T>().ok_or(Malformed)? as u64;
        if bytes != len || self.count != 1 {
            return Err(Malformed);
        }
        Ok((Extent { at, len }, shape))
    }
}

fn take_array<T: Element>(piece: &mut Piece<'_>, host: &HostRef<'_>) -> Result<Array<T>, Rejected> {
    let (extent, shape) = piece.array::<T>()?;
    array_at(extent, shape, host)
}

/// The only one of some values, by its type.
fn only<V: 'static>(values: Vec<AnyValue>) -> Option<V> {
    let [value]: [AnyValue; 1] = values.try_into().ok()?;
    Some(*(value as Box<dyn Any>).downcast().ok()?)
}

impl<T: Element> Given for &Array<T> {
    fn give(held: Array<T>, giving: &mut Giving<'_, '_>) -> Result<(), ArenaFull> {
        giving.one(held, false)
    }
    fn take(words: &mut Words<'_>, host: &HostRef<'_>) -> Result<Array<T>, Rejected> {
        take_array(&mut Piece::single(&mut words.0)?, host)
    }
    fn adopt(values: Vec<AnyValue>) -> Option<Array<T>> {
        only(values)
    }
}

impl<T: Element> Given for &[T] {
    fn give(held: Array<T>, giving: &mut Giving<'_, '_>) -> Result<(), ArenaFull> {
        giving.one(held, false)
    }
    /// An array, or elements of which each is the value of a job.
    fn take(words: &mut Words<'_>, host: &HostRef<'_>) -> Result<Array<T>, Rejected> {
        let count = words.0.word()?;
        let mut elements = Vec::new();
        for _ in 0..count {
            let mut piece = Piece::read(&mut words.0)?;
            if piece.count > 0 {
                return match count {
                    1 => take_array(&mut piece, host),
                    _ => Err(Malformed.into()),
                };
            }
            let bytes = piece.words.bytes(size_of::<T>())?;
            elements.push(bytemuck::pod_read_unaligned::<T>(bytes));
        }
        Ok(Array::from_slice(&elements))
    }
    fn adopt(mut values: Vec<AnyValue>) -> Option<Array<T>> {
        if values.len() == 1 && (&*values[0] as &dyn Any).is::<Array<T>>() {
            return only(values);
        }
        let elements: Option<Vec<T>> = values.drain(..).map(|value| only(vec![value])).collect();
        Some(Array::from_slice(&elements?))
    }
}

impl<T: Element> Given for &[Array<T>] {
    fn give(held: Vec<Array<T>>, giving: &mut Giving<'_, '_>) -> Result<(), ArenaFull> {
        giving.argument(held.len(), false);
        held.into_iter().try_for_each(|array| giving.value(array))
    }
    fn take(words: &mut Words<'_>, host: &HostRef<'_>) -> Result<Vec<Array<T>>, Rejected> {
        // Each takes words of the call, so a count that is not true ends with an error.
        let count = words.0.word()?;
        (0..count)
            .map(|_| take_array(&mut Piece::read(&mut words.0)?, host))
            .collect()
    }
    fn adopt(values: Vec<AnyValue>) -> Option<Vec<Array<T>>> {
        values.into_iter().map(|value| only(vec![value])).collect()
    }
}

impl<T: Element> Given for ArrayMut<T> {
    const MOVED: bool = true;
    fn give(held: Self::Held, giving: &mut Giving<'_, '_>) -> Result<(), ArenaFull> {
        let array = held.expect("each argument is handed over once");
        giving.one(array, true)
    }
    fn take(words: &mut Words<'_>, host: &HostRef<'_>) -> Result<Self::Held, Rejected> {
        let (extent, shape) = Piece::single(&mut words.0)?.array::<T>()?;
        array_mut_at(extent, shape, host).map(Some)
    }
    fn adopt(values: Vec<AnyValue>) -> Option<Self::Held> {
        only(values).map(Some)
    }
}

impl Given for &str {
    fn give(held: String, giving: &mut Giving<'_, '_>) -> Result<(), ArenaFull> {
        giving.one(held, false)
    }
    fn take(words: &mut Words<'_>, host: &HostRef<'_>) -> Result<String, Rejected> {
        let piece = Piece::single(&mut words.0)?;
        <&str as Param>::receive(&mut Words(piece.words), host)
    }
    fn adopt(values: Vec<AnyValue>) -> Option<String> {
        only(values)
    }
}

impl<S: Scalar> Given for S {
    fn give(held: S, giving: &mut Giving<'_, '_>) -> Result<(), ArenaFull> {
        giving.one(held, false)
    }
    fn take(words: &mut Words<'_>, _: &HostRef<'_>) -> Result<S, Rejected> {
        Ok(read_scalar(&mut Piece::single(&mut words.0)?.words)?)
    }
    fn adopt(values: Vec<AnyValue>) -> Option<S> {
        only(values)
    }
}

/// Where an argument of a task comes from.
#[derive(Debug)]
pub enum Source<H> {
    /// It is there.
    Given(H),
    /// The values of so many children, the next ones.
    Children(u32),
}

/// The parameters of a kernel that can be spawned. Sealed.
pub trait GivenParams: Params<Held: Send + 'static> {
    #[doc(hidden)]
    type Sources: Send + 'static;
    #[doc(hidden)]
    const COUNT: u32;
    #[doc(hidden)]
    fn given(held: Self::Held) -> Self::Sources;
    #[doc(hidden)]
    fn give(sources: Self::Sources, giving: &mut Giving<'_, '_>) -> Result<(), ArenaFull>;
    #[doc(hidden)]
    fn take(words: &mut Words<'_>, host: &HostRef<'_>) -> Result<Self::Held, Rejected>;
    /// In this thread, with the values of the children.
    #[doc(hidden)]
    fn adopt(sources: Self::Sources, values: &mut dyn Iterator<Item = AnyValue>) -> Self::Held;
}

fn give<P: Given>(source: Source<P::Held>, giving: &mut Giving<'_, '_>) -> Result<(), ArenaFull> {
    match source {
        Source::Given(held) => P::give(held, giving),
        Source::Children(count) => {
            let moved = if P::MOVED { MOVED } else { 0 };
            giving
                .0
                .writer
                .word(CHILDREN | moved | u64::from(count) << 32);
            Ok(())
        }
    }
}

fn adopt<P: Given>(source: Source<P::Held>, values: &mut dyn Iterator<Item = AnyValue>) -> P::Held {
    match source {
        Source::Given(held) => held,
        Source::Children(count) => {
            let values = values.take(count as usize).collect();
            P::adopt(values).expect("a child's value is of the type that is passed for it")
        }
    }
}

macro_rules! given_params {
    ($($n:literal ($($p:ident $x:ident),*))+) => { $(
        impl<$($p: Given),*> GivenParams for ($($p,)*) {
            type Sources = ($(Source<$p::Held>,)*);
            const COUNT: u32 = $n;
            #[allow(clippy::unused_unit, reason = "for a kernel without parameters")]
            fn given(held: Self::Held) -> Self::Sources {
                let ($($x,)*) = held;
                ($(Source::Given($x),)*)
            }
            #[allow(unused_variables, reason = "for a kernel without parameters")]
            fn give(sources: Self::Sources, giving: &mut Giving<'_, '_>) -> Result<(), ArenaFull> {
                let ($($x,)*) = sources;
                $(give::<$p>($x, giving)?;)*
                Ok(())
            }
            #[allow(unused_variables, reason = "for a kernel without parameters")]
            fn take(words: &mut Words<'_>, host: &HostRef<'_>) -> Result<Self::Held, Rejected> {
                Ok(($($p::take(words, host)?,)*))
            }
            #[allow(unused_variables, clippy::unused_unit, reason = "for a kernel without parameters")]
            fn adopt(sources: Self::Sources, values: &mut dyn Iterator<Item = AnyValue>) -> Self::Held {
                let ($($x,)*) = sources;
                ($(adopt::<$p>($x, values),)*)
            }
        }
    )+ };
}
given_params! {
    0 ()
    1 (P0 x0)
    2 (P0 x0, P1 x1)
    3 (P0 x0, P1 x1, P2 x2)
    4 (P0 x0, P1 x1, P2 x2, P3 x3)
    5 (P0 x0, P1 x1, P2 x2, P3 x3, P4 x4)
    6 (P0 x0, P1 x1, P2 x2, P3 x3, P4 x4, P5 x5)
    7 (P0 x0, P1 x1, P2 x2, P3 x3, P4 x4, P5 x5, P6 x6)
    8 (P0 x0, P1 x1, P2 x2, P3 x3, P4 x4, P5 x5, P6 x6, P7 x7)
}

/// A kernel as a task names it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SpawnKernel {
    /// For the call of a task.
    entry: Entry,
    /// As a job of its own.
    plain: KernelInfo,
}

impl SpawnKernel {
    pub(crate) fn name(&self) -> &'static str {
        self.plain.name
    }

    pub(crate) fn of<F, P, R>() -> Self
    where
        F: Kernel<P, R>,
        P: GivenParams,
        R: Reply,
    {
        Self {
            entry: task::<F, P, R>,
            plain: KernelInfo::of::<Single<F, P, R>>(),
        }
    }
}

/// A task: its arguments are values, some of them those of children.
fn task<F, P, R>(
    words: WordReader<'_>,
    host: &dyn Host,
    writer: &mut ReplyWriter,
) -> Result<(), Failure>
where
    F: Kernel<P, R>,
    P: GivenParams,
    R: Reply,
{
    let held = P::take(&mut Words(words), &HostRef(host))
        .map_err(|Rejected(why)| Failure::Rejected(why))?;
    let value = conjure::<F>().call(held, Key::new());
    let sent = value.send(&mut Sending { writer, host });
    sent.map_err(Failure::from)
}

/// A task on its way into a reply.
pub(crate) trait Spawning: Send {
    fn kernel(&self) -> SpawnKernel;
    /// How many arguments it has.
    fn arguments(&self) -> u32;
    fn give(self: Box<Self>, giving: &mut Giving<'_, '_>) -> Result<(), ArenaFull>;
}

/// Writes a reply that spawns: the children, and at the end what goes on with their values.
pub(crate) fn spawning<T: Spawning + ?Sized>(
    tasks: Vec<Box<T>>,
    reply: &mut Sending<'_>,
) -> Result<(), Unsent> {
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
    reply.writer.spawns = true;
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
        task.give(&mut Giving(reply)).map_err(Unsent::Full)?;
    }
    if reply.writer.arrays.len() > MAX_ARRAYS {
        let arrays = reply.writer.arrays.len();
        return Err(Unsent::Returned(format!(
            "it spawns jobs with {arrays} arrays at once, and {MAX_ARRAYS} is the most: spawn some that spawn the others"
        )));
    }
    let bytes = 8 * reply.writer.words.len();
    if bytes > MOST_TEXT {
        return Err(Unsent::Returned(format!(
            "it spawns jobs with arguments of {bytes} bytes beside arrays, and {MOST_TEXT} is the most: pass long ones as arrays"
        )));
    }
    Ok(())
}

fn foreign(name: &str) -> Unsent {
    Unsent::Returned(format!(
        "it spawns {name}, which is code of a shared library; kernels must be part of the executable"
    ))
}
